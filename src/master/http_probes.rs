//! Readiness and liveness probes: requests a path from a listening worker until the answer is good (`ready = "http:/path"`), has it
//! answer its warm-up (`warm_up` counts), and asks
//! one that serves every few seconds whether it is well (`[app.alive]`): by a path, by a connection that it has to take, or by a
//! command (`exec_probes`). Each connection is a loopback connection of the master whose other end is handed to that very worker, so
//! that no client and no other worker is involved. The supervisor decides what an answer means; `worker::http` parses it.
//!
//! Nothing here blocks: unfinished steps are polled. Nothing survives a master's death: the next master probes again,
//! and pending answers go to a closed socket.
use super::context::Context;
use super::dispatch;
use super::exec_probes::ExecProbes;
use super::probe_question::{Failure, Question, READY_ANSWER_MS, Way, in_ms, question};
use super::system::System;
use super::tasks::Task;
use super::timers::Timer;
use super::warm_up::{BadPaths, Warming};
use crate::hooks::Trouble;
use crate::ids::{AppIx, ListenerIx, WorkerIx};
use crate::os::listen::LocalAddress;
use crate::os::loopback::{Half, Made};
use crate::supervisor::{Event, Evidence, Excess};
use crate::worker::http::{self, Answer};
use crate::worker::node::channel::Sent;
use crate::worker::node::framing::shown;
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// Pause before a worker without a good answer is probed again, in milliseconds. It doubles.
const READY_ASK_MIN_MS: u64 = 50;

/// Longest such pause, in milliseconds.
const READY_ASK_MAX_MS: u64 = 1_000;

/// Time limit for the rest of an answer once its status is known, in milliseconds; the rest is discarded.
const READY_BODY_MS: u64 = 1_000;

/// Pause between two checks whether the kernel has completed a loopback connection, in milliseconds.
const READY_CONNECT_LOOK_MS: u64 = 1;

/// Workers that are probed at the same time, over all apps; further ones wait.
const READY_ASKS_AT_ONCE_MAX: usize = 256;

/// How much of an answer is discarded before the connection is closed, in bytes.
const READY_ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// Bytes per read of an answer.
const READY_READ_BYTES: usize = 4 * 1024;

/// The hand-off number of connections that carry a probe. No other hand-off has it (`first_seq`), so the worker's
/// acknowledgement matches nothing there: an HTTP answer counts, and with `alive.tcp` the acknowledgement, here.
pub(super) const PROBE_SEQ: u64 = 1 << 53;

/// The probes of all workers.
#[derive(Default)]
pub(super) struct HttpProbes {
    probed: BTreeSet<WorkerIx>,
    exec: ExecProbes,
    bad_paths: BadPaths,
    /// Scratch space for one line.
    line: Vec<u8>,
}

/// The state of one worker's probe.
pub(super) struct HttpProbe {
    step: Step,
    /// The pause before the next request about readiness; it doubles.
    pause_ms: u64,
    /// The reason that was reported last.
    reported: String,
    /// Requests in a row that failed while the worker served.
    failures: u32,
    warming: Warming,
}

enum Step {
    Resting {
        until_ms: u64,
    },
    Connecting {
        half: Half,
        look_ms: u64,
        until_ms: u64,
    },
    Asked(Request),
    /// The worker has to take a connection. Until it has, it gets no other one.
    Offered {
        socket: OwnedFd,
        until_ms: u64,
    },
    /// A command runs; it has a time limit of its own.
    Running,
}

/// A request without a complete answer.
struct Request {
    socket: OwnedFd,
    /// The start of the answer, until its status is known.
    head: Vec<u8>,
    status_known: bool,
    received_bytes: usize,
    until_ms: u64,
    /// It is one of a warm-up.
    warms_up: bool,
}

impl HttpProbe {
    fn due_ms(&self) -> u64 {
        match &self.step {
            Step::Resting { until_ms } => *until_ms,
            Step::Connecting { look_ms, .. } => *look_ms,
            Step::Asked(request) => request.until_ms,
            Step::Offered { until_ms, .. } => *until_ms,
            // Its end is told.
            Step::Running => u64::MAX,
        }
    }

    fn is_resting(&self) -> bool {
        matches!(self.step, Step::Resting { .. })
    }

    /// A request has failed.
    fn report(&mut self, cx: &mut Context<impl System>, ix: WorkerIx, failure: &Failure) {
        let Some(question) = question(cx, ix) else { return };
        let why = format!("{} {failure}", question.name(self.warming.answered));
        match question {
            Question::WarmUp(_) if matches!(failure, Failure::Pending) => {}
            Question::Readiness(_) | Question::WarmUp(_) => self.report_unready(cx, ix, why),
            Question::Liveness(..) if matches!(failure, Failure::NotRun(_)) => self.warn_once(cx, ix, why),
            Question::Liveness(_, alive) => {
                let most = alive.failures;
                self.count_failure(cx, ix, failure, most, &why);
            }
        }
    }

    /// A worker cannot be asked, for which it has not to answer.
    fn warn_once(&mut self, cx: &Context<impl System>, ix: WorkerIx, why: String) {
        if let Some(worker) = cx.workers.get(ix).filter(|_| self.reported != why) {
            log::warn!("{}/{}: {why}", cx.apps[worker.app].name, worker.slot);
            self.reported = why;
        }
    }

    /// Counts a failure of a worker that serves; after so many in a row it is to be replaced. The supervisor replaces one
    /// worker at a time, so it is told again while the failures last.
    fn count_failure(&mut self, cx: &mut Context<impl System>, ix: WorkerIx, failure: &Failure, most: u32, why: &str) {
        if !failure.is_the_workers() {
            return;
        }
        let Some(worker) = cx.workers.get_mut(ix) else { return };
        worker.liveness.failed_probes += 1;
        self.failures = self.failures.saturating_add(1);
        let app = &mut cx.apps[worker.app];
        let pid = worker.pid.map_or(String::new(), |pid| format!(" (pid {pid})"));
        let text = format!("worker {}{pid} is unhealthy: {why}", worker.id);
        if self.failures < most {
            log::debug!("{}/{}: {text} (failure {} of {most})", app.name, worker.slot, self.failures);
            return;
        }
        if self.failures == most {
            log::warn!("{}/{}: {text}", app.name, worker.slot);
            app.slot_notes.insert(worker.slot, text);
        }
        let excess = Excess::Unwell { failures: self.failures };
        cx.events.push_back((worker.app, Event::Replace { worker: worker.id, excess }));
    }

    /// The answer of a worker that serves was good.
    fn is_well(&mut self, cx: &Context<impl System>, ix: WorkerIx, most: u32) {
        let had = std::mem::take(&mut self.failures);
        if let Some(worker) = cx.workers.get(ix).filter(|_| had >= most) {
            log::info!("{}/{}: worker {} is healthy again", cx.apps[worker.app].name, worker.slot, worker.id);
        }
    }

    /// Tells the supervisor why the worker is not ready, if the reason is new.
    fn report_unready(&mut self, cx: &mut Context<impl System>, ix: WorkerIx, why: String) {
        let Some(worker) = cx.workers.get(ix).filter(|_| self.reported != why) else { return };
        log::debug!("{}/{}: worker {} is not ready: {why}", cx.apps[worker.app].name, worker.slot, worker.id);
        self.reported.clone_from(&why);
        cx.events.push_back((worker.app, Event::NotYet { worker: worker.id, why }));
    }

    /// Ends a request; the next one follows after a pause. `None` if the probe is no longer needed.
    fn rest(mut self, cx: &Context<impl System>, ix: WorkerIx) -> Option<HttpProbe> {
        let pause_ms = match question(cx, ix)? {
            Question::Liveness(_, alive) => in_ms(alive.every),
            Question::Readiness(_) | Question::WarmUp(_) => {
                let doubled = (self.pause_ms * 2).min(READY_ASK_MAX_MS);
                std::mem::replace(&mut self.pause_ms, doubled)
            }
        };
        self.step = Step::Resting { until_ms: cx.now_ms + pause_ms };
        Some(self)
    }

    fn fail(mut self, cx: &mut Context<impl System>, ix: WorkerIx, failure: &Failure) -> Option<HttpProbe> {
        self.report(cx, ix, failure);
        self.rest(cx, ix)
    }
}

/// The result of reading an answer.
struct Progress {
    /// Whether the answer was good, once that is known.
    verdict: Option<Result<(), Failure>>,
    is_over: bool,
}

impl Request {
    /// Reads what has arrived. What follows the status is discarded, so that a worker that is still writing does not
    /// get an error.
    fn receive(&mut self, system: &impl System, now_ms: u64) -> Progress {
        let mut verdict = None;
        let mut buffer = [0; READY_READ_BYTES];
        loop {
            let count = match system.read_now(self.socket.as_fd(), &mut buffer) {
                Ok(None) => return Progress { verdict, is_over: false },
                Ok(Some(0)) | Err(_) => {
                    if !self.status_known {
                        verdict = Some(Err(Failure::Closed));
                    }
                    return Progress { verdict, is_over: true };
                }
                Ok(Some(count)) => count,
            };
            self.received_bytes += count;
            if self.status_known {
                if self.received_bytes > READY_ANSWER_BYTES_MAX {
                    return Progress { verdict, is_over: true };
                }
                continue;
            }
            self.head.extend_from_slice(&buffer[..count]);
            verdict = match http::answer(&self.head) {
                Answer::More => continue,
                Answer::Foreign => {
                    let failure = Failure::NotHttp(shown(&self.head));
                    return Progress { verdict: Some(Err(failure)), is_over: true };
                }
                Answer::Status(status) if http::is_well(status) => Some(Ok(())),
                Answer::Status(status) => Some(Err(Failure::Status(status))),
            };
            self.status_known = true;
            self.head = Vec::new();
            self.until_ms = self.until_ms.min(now_ms + READY_BODY_MS);
        }
    }
}

impl HttpProbes {
    /// Starts to probe a worker that listens on what it has to, or has become ready, if its app is configured for probes.
    pub(super) fn begin(&mut self, cx: &mut Context<impl System>, ix: WorkerIx) {
        let until_ms = match question(cx, ix) {
            Some(Question::Readiness(_) | Question::WarmUp(_)) => cx.now_ms,
            Some(Question::Liveness(_, alive)) => cx.now_ms + in_ms(alive.every),
            None => return,
        };
        let Some(worker) = cx.workers.get_mut(ix) else { return };
        if worker.http_probe.is_none() {
            worker.http_probe = Some(HttpProbe {
                step: Step::Resting { until_ms },
                pause_ms: READY_ASK_MIN_MS,
                reported: String::new(),
                failures: 0,
                warming: Warming::default(),
            });
            self.probed.insert(ix);
            cx.timers.set_earlier(Timer::HttpProbe, until_ms);
        }
    }

    /// Has a worker that is ready answer its warm-up, on the supervisor's order.
    pub(super) fn warm_up(&mut self, cx: &mut Context<impl System>, ix: WorkerIx) {
        let now_ms = cx.now_ms;
        match cx.workers.get_mut(ix).and_then(|worker| worker.http_probe.as_mut()) {
            // That of its readiness. Where its answer is still being read, the first request follows that.
            Some(probe) => {
                probe.pause_ms = READY_ASK_MIN_MS;
                if probe.is_resting() {
                    probe.step = Step::Resting { until_ms: now_ms };
                    cx.timers.set_earlier(Timer::HttpProbe, now_ms);
                }
            }
            None => self.begin(cx, ix),
        }
    }

    /// Goes on to ask a worker that serves, as the previous master did.
    pub(super) fn resume(&mut self, cx: &mut Context<impl System>, ix: WorkerIx) {
        if matches!(question(cx, ix), Some(Question::Liveness(..))) {
            self.begin(cx, ix);
        }
    }

    /// Postpones everything that is due: another master is about to probe.
    pub(super) fn postpone(&self, cx: &mut Context<impl System>) {
        if cx.timers.take_due(Timer::HttpProbe, cx.now_ms) {
            cx.timers.set(Timer::HttpProbe, cx.now_ms + READY_ASK_MAX_MS);
        }
    }

    /// Sends requests that are due, and ends those that took too long.
    pub(super) fn advance(&mut self, cx: &mut Context<impl System>) {
        if !cx.timers.take_due(Timer::HttpProbe, cx.now_ms) {
            return;
        }
        let all: Vec<WorkerIx> = self.probed.iter().copied().collect();
        let probe = |ix: &WorkerIx| cx.workers.get(*ix).and_then(|w| w.http_probe.as_ref());
        let mut open = all.iter().filter(|ix| probe(ix).is_some_and(|probe| !probe.is_resting())).count();
        for ix in all {
            let Some(mut probe) = cx.workers.get_mut(ix).and_then(|w| w.http_probe.take()) else {
                self.probed.remove(&ix);
                continue;
            };
            if probe.due_ms() <= cx.now_ms {
                let rested = probe.is_resting();
                if rested && open >= READY_ASKS_AT_ONCE_MAX {
                    probe.step = Step::Resting { until_ms: cx.now_ms + READY_ASK_MIN_MS };
                } else {
                    open += usize::from(rested);
                    probe = match self.next_step(cx, ix, probe) {
                        Some(probe) => probe,
                        None => continue,
                    };
                }
            }
            self.keep(cx, ix, probe);
        }
    }

    fn keep(&mut self, cx: &mut Context<impl System>, ix: WorkerIx, probe: HttpProbe) {
        if probe.due_ms() < u64::MAX {
            cx.timers.set_earlier(Timer::HttpProbe, probe.due_ms());
        }
        if let Some(worker) = cx.workers.get_mut(ix) {
            worker.http_probe = Some(probe);
        }
    }

    /// The next step of a probe that is due; `None` if the probe is no longer needed.
    fn next_step(&mut self, cx: &mut Context<impl System>, ix: WorkerIx, mut probe: HttpProbe) -> Option<HttpProbe> {
        match probe.step {
            Step::Asked(ref request) if request.warms_up && request.status_known => self.answered(cx, ix, probe),
            Step::Asked(ref request) => {
                if !request.status_known {
                    let limit_ms = question(cx, ix)?.answer_ms();
                    probe.report(cx, ix, &Failure::Late(limit_ms));
                }
                probe.rest(cx, ix)
            }
            Step::Resting { .. } => match question(cx, ix)? {
                Question::Liveness(Way::Exec(command), alive) => {
                    let started = self.exec.start(cx, ix, command, in_ms(alive.timeout));
                    match started {
                        Ok(()) => {
                            probe.step = Step::Running;
                            Some(probe)
                        }
                        Err(e) => probe.fail(cx, ix, &Failure::NotRun(e.to_string())),
                    }
                }
                _ => self.connect(cx, ix, probe),
            },
            Step::Offered { socket, .. } => {
                let Question::Liveness(_, alive) = question(cx, ix)? else { return None };
                let (limit_ms, until_ms) = (in_ms(alive.timeout), cx.now_ms + in_ms(alive.every));
                probe.step = Step::Offered { socket, until_ms };
                probe.report(cx, ix, &Failure::NotTaken(limit_ms));
                Some(probe)
            }
            Step::Running => Some(probe),
            Step::Connecting { half, until_ms, .. } => {
                probe.step = Step::Resting { until_ms };
                self.finish_connecting(cx, ix, probe, half, until_ms)
            }
        }
    }

    /// Opens a loopback connection of the kind that the worker's server accepts.
    fn connect(&mut self, cx: &mut Context<impl System>, ix: WorkerIx, probe: HttpProbe) -> Option<HttpProbe> {
        let local = listener_to_ask(cx, ix).map(|(app, listener)| &cx.apps[app].listeners[listener].local);
        match local {
            None => probe.fail(cx, ix, &Failure::NoListener),
            Some(LocalAddress::Inet(_)) => match cx.system.begin_loopback() {
                Ok(half) => self.finish_connecting(cx, ix, probe, half, cx.now_ms + READY_ANSWER_MS),
                Err(e) => probe.fail(cx, ix, &e.into()),
            },
            Some(LocalAddress::Unix(_) | LocalAddress::Other) => match cx.system.socket_pair() {
                Ok((ours, other)) => self.ask(cx, ix, probe, ours, other),
                Err(e) => probe.fail(cx, ix, &e.into()),
            },
        }
    }

    fn finish_connecting(
        &mut self,
        cx: &mut Context<impl System>,
        ix: WorkerIx,
        mut probe: HttpProbe,
        half: Half,
        until_ms: u64,
    ) -> Option<HttpProbe> {
        match cx.system.finish_loopback(half) {
            Ok(Made::Whole { ours, other }) => self.ask(cx, ix, probe, ours, other),
            Ok(Made::Half(half)) if cx.now_ms < until_ms => {
                let look_ms = (cx.now_ms + READY_CONNECT_LOOK_MS).min(until_ms);
                probe.step = Step::Connecting { half, look_ms, until_ms };
                Some(probe)
            }
            Ok(Made::Half(_)) => probe.fail(cx, ix, &io::Error::from(io::ErrorKind::TimedOut).into()),
            Err(e) => probe.fail(cx, ix, &e.into()),
        }
    }

    /// Hands the other end to the worker and sends the request over ours.
    fn ask(
        &mut self,
        cx: &mut Context<impl System>,
        ix: WorkerIx,
        mut probe: HttpProbe,
        ours: OwnedFd,
        other: OwnedFd,
    ) -> Option<HttpProbe> {
        let question = question(cx, ix)?;
        let (request, until_ms) = (question.request(probe.warming.answered), cx.now_ms + question.answer_ms());
        let warms_up = matches!(question, Question::WarmUp(_));
        let Some((app, listener)) = listener_to_ask(cx, ix) else { return probe.rest(cx, ix) };
        let channel = cx.workers.get_mut(ix)?.channel.as_mut()?;
        cx.apps[app].listeners[listener].newconn.render(PROBE_SEQ, &mut self.line);
        let sent = channel.send_handoff(&self.line, &other);
        drop(other);
        match sent {
            Sent::Whole => {}
            Sent::Blocked => {
                cx.tasks.push_back(Task::AwaitWritable(ix));
                return probe.fail(cx, ix, &Failure::Unread);
            }
            Sent::Broken => {
                dispatch::channel_broken(cx, ix);
                return None;
            }
            Sent::NoResources(errno) => return probe.fail(cx, ix, &io::Error::from_raw_os_error(errno).into()),
        }
        let Some(request) = request else {
            probe.step = Step::Offered { socket: ours, until_ms };
            return Some(probe);
        };
        match cx.system.write(ours.as_fd(), &request) {
            // The send buffer of a new connection is larger than any path.
            Ok(count) if count == request.len() && cx.reactor.add_probe(ix, &ours) => {}
            Ok(_) => return probe.fail(cx, ix, &io::Error::from(io::ErrorKind::WriteZero).into()),
            Err(e) => return probe.fail(cx, ix, &e.into()),
        }
        if probe.reported.is_empty() {
            probe.report(cx, ix, &Failure::Pending);
        }
        let (head, status_known, received_bytes) = (Vec::new(), false, 0);
        probe.step = Step::Asked(Request { socket: ours, head, status_known, received_bytes, until_ms, warms_up });
        Some(probe)
    }

    /// A worker has acknowledged the connection of a probe.
    pub(super) fn taken(&mut self, cx: &mut Context<impl System>, ix: WorkerIx, accepted: bool) {
        let Some(mut probe) = cx.workers.get_mut(ix).and_then(|w| w.http_probe.take()) else { return };
        let step = std::mem::replace(&mut probe.step, Step::Resting { until_ms: cx.now_ms });
        let Step::Offered { socket, .. } = step else {
            probe.step = step;
            return self.keep(cx, ix, probe);
        };
        if !accepted || !cx.reactor.add_probe(ix, &socket) {
            return self.decided(cx, ix, probe, if accepted { Ok(()) } else { Err(Failure::Refused) });
        }
        if let Some(Question::Liveness(_, alive)) = question(cx, ix) {
            let most = alive.failures;
            probe.is_well(cx, ix, most);
        }
        // What it says is read: an app that speaks first would see a reset, which ends one without a listener for errors.
        let (head, status_known, received_bytes, warms_up) = (Vec::new(), true, 0, false);
        let until_ms = cx.now_ms + READY_BODY_MS;
        probe.step = Step::Asked(Request { socket, head, status_known, received_bytes, until_ms, warms_up });
        self.keep(cx, ix, probe);
    }

    /// Commands have ended.
    pub(super) fn take_ended(&mut self, cx: &mut Context<impl System>) {
        while let Some((id, outcome)) = self.exec.take() {
            let Some(ix) = cx.workers.find(id) else { continue };
            let Some(probe) = cx.workers.get_mut(ix).and_then(|w| w.http_probe.take()) else { continue };
            let outcome = outcome.map_err(|trouble| match trouble {
                Trouble::Failed(why) => Failure::Command(why),
                Trouble::NotRun(why) => Failure::NotRun(why),
            });
            self.decided(cx, ix, probe, outcome);
        }
    }

    /// It is known whether a worker that serves is well.
    fn decided(
        &mut self,
        cx: &mut Context<impl System>,
        ix: WorkerIx,
        mut probe: HttpProbe,
        outcome: Result<(), Failure>,
    ) {
        if let Err(failure) = outcome {
            probe.report(cx, ix, &failure);
        } else if let Some(Question::Liveness(_, alive)) = question(cx, ix) {
            let most = alive.failures;
            probe.is_well(cx, ix, most);
        }
        if let Some(probe) = probe.rest(cx, ix) {
            self.keep(cx, ix, probe);
        }
    }

    /// Bytes of an answer arrived.
    pub(super) fn answer_came(&mut self, cx: &mut Context<impl System>, ix: WorkerIx) {
        let Some(mut probe) = cx.workers.get_mut(ix).and_then(|w| w.http_probe.take()) else { return };
        let Step::Asked(request) = &mut probe.step else { return self.keep(cx, ix, probe) };
        let Progress { verdict, is_over } = request.receive(&cx.system, cx.now_ms);
        let warms_up = request.warms_up;
        let is_answered = is_over && warms_up && request.status_known;
        match verdict {
            None => {}
            Some(Err(Failure::Status(status))) if warms_up => probe.warming.bad_status = Some(status),
            Some(Err(failure)) => probe.report(cx, ix, &failure),
            Some(Ok(())) if warms_up => {}
            Some(Ok(())) => match question(cx, ix) {
                Some(Question::Liveness(_, alive)) => {
                    let most = alive.failures;
                    probe.is_well(cx, ix, most);
                }
                _ => {
                    let Some(worker) = cx.workers.get(ix) else { return };
                    let event = Event::Evidence { worker: worker.id, evidence: Evidence::Http };
                    cx.events.push_back((worker.app, event));
                }
            },
        }
        let next = match is_over {
            true if is_answered => self.answered(cx, ix, probe),
            true => probe.rest(cx, ix),
            false => Some(probe),
        };
        if let Some(probe) = next {
            self.keep(cx, ix, probe);
        }
    }

    /// A request of a warm-up was answered; the next one follows at once.
    fn answered(&mut self, cx: &mut Context<impl System>, ix: WorkerIx, mut probe: HttpProbe) -> Option<HttpProbe> {
        probe.pause_ms = READY_ASK_MIN_MS;
        if probe.warming.count(cx, ix, &mut self.bad_paths) {
            return probe.rest(cx, ix);
        }
        self.connect(cx, ix, probe)
    }
}

/// Where to probe a worker: the first configured address that it listens on, else the first one that it requested
/// itself. App and listener.
fn listener_to_ask(cx: &Context<impl System>, ix: WorkerIx) -> Option<(AppIx, ListenerIx)> {
    let worker = cx.workers.get(ix)?;
    let app = &cx.apps[worker.app];
    let settings = app.generations.get(&worker.generation)?;
    let streams = || worker.serves.iter().copied().filter(|&n| !app.listeners[n].datagram);
    let at = |wanted| streams().find(|&n| app.listeners[n].configured.as_ref() == Some(wanted));
    let listener = settings.config.listen.iter().find_map(at).or_else(|| streams().next())?;
    Some((worker.app, listener))
}
