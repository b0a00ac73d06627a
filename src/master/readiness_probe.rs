//! Readiness probes (`ready = "http:/path"`): requests a path from a listening worker until the answer is good. Each
//! request goes over a loopback connection of the master whose other end is handed to that very worker, so that no
//! client and no other worker is involved. The supervisor decides what an answer means; `worker::http` parses it.
//!
//! Nothing here blocks: unfinished steps are polled. Nothing survives a master's death: the next master probes again,
//! and pending answers go to a closed socket.
use super::context::Context;
use super::dispatch;
use super::system::System;
use super::tasks::Task;
use super::timers::Timer;
use crate::ids::{AppIx, ListenerIx, WorkerIx};
use crate::os::listen::LocalAddress;
use crate::os::loopback::{Half, Made};
use crate::supervisor::{Event, Evidence, Phase};
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

/// Time limit for the status of an answer, in milliseconds.
const READY_ANSWER_MS: u64 = 5_000;

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
/// acknowledgement matches nothing: only the HTTP answer counts.
const PROBE_SEQ: u64 = 1 << 53;

/// The readiness probes of all workers.
#[derive(Default)]
pub(super) struct ReadinessProbes {
    probed: BTreeSet<WorkerIx>,
    /// Scratch space for one line.
    line: Vec<u8>,
}

/// The state of one worker's probe.
pub(super) struct ReadinessProbe {
    step: Step,
    /// The pause before the next request; it doubles.
    pause_ms: u64,
    /// The reason that was reported last.
    reported: String,
}

enum Step {
    Resting { until_ms: u64 },
    Connecting { half: Half, look_ms: u64, until_ms: u64 },
    Asked(Request),
}

/// A request without a complete answer.
struct Request {
    socket: OwnedFd,
    /// The start of the answer, until its status is known.
    head: Vec<u8>,
    status_known: bool,
    received_bytes: usize,
    until_ms: u64,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("was answered with {0}")]
    Status(u16),
    #[error("was not answered in HTTP/1 but with {0}")]
    NotHttp(String),
    #[error(
        "was not answered: it closed the connection (a server that speaks TLS alone does; it is asked in plain HTTP)"
    )]
    Closed,
    #[error("was not answered in {} s", READY_ANSWER_MS / 1000)]
    Late,
    #[error("is not answered yet")]
    Pending,
    #[error("is not asked yet: it does not read its channel")]
    Unread,
    #[error("is not asked: it listens on no TCP port and no Unix socket")]
    NoListener,
    #[error("is not asked yet: no connection can be made: {0}")]
    NoConnection(#[from] io::Error),
}

impl ReadinessProbe {
    fn due_ms(&self) -> u64 {
        match &self.step {
            Step::Resting { until_ms } => *until_ms,
            Step::Connecting { look_ms, .. } => *look_ms,
            Step::Asked(request) => request.until_ms,
        }
    }

    fn is_resting(&self) -> bool {
        matches!(self.step, Step::Resting { .. })
    }

    /// Tells the supervisor why the worker is not ready, if the reason is new.
    fn report(&mut self, cx: &mut Context<impl System>, ix: WorkerIx, failure: &Failure) {
        let Some(path) = path_to_ask(cx, ix) else { return };
        let why = format!("GET {path} {failure}");
        let Some(worker) = cx.workers.get(ix).filter(|_| self.reported != why) else { return };
        log::debug!("{}/{}: worker {} is not ready: {why}", cx.apps[worker.app].name, worker.slot, worker.id);
        self.reported.clone_from(&why);
        cx.events.push_back((worker.app, Event::NotYet { worker: worker.id, why }));
    }

    /// Ends a request; the next one follows after a pause. `None` if the probe is no longer needed.
    fn rest(mut self, cx: &Context<impl System>, ix: WorkerIx) -> Option<ReadinessProbe> {
        path_to_ask(cx, ix)?;
        self.step = Step::Resting { until_ms: cx.now_ms + self.pause_ms };
        self.pause_ms = (self.pause_ms * 2).min(READY_ASK_MAX_MS);
        Some(self)
    }

    fn fail(mut self, cx: &mut Context<impl System>, ix: WorkerIx, failure: &Failure) -> Option<ReadinessProbe> {
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

impl ReadinessProbes {
    /// Starts to probe a worker that listens on what it has to, if its app is configured for probes.
    pub(super) fn begin(&mut self, cx: &mut Context<impl System>, ix: WorkerIx) {
        if path_to_ask(cx, ix).is_none() {
            return;
        }
        let Some(worker) = cx.workers.get_mut(ix) else { return };
        if worker.readiness_probe.is_none() {
            worker.readiness_probe = Some(ReadinessProbe {
                step: Step::Resting { until_ms: cx.now_ms },
                pause_ms: READY_ASK_MIN_MS,
                reported: String::new(),
            });
            self.probed.insert(ix);
            cx.timers.set_earlier(Timer::ReadinessProbe, cx.now_ms);
        }
    }

    /// Postpones everything that is due: another master is about to probe.
    pub(super) fn postpone(&self, cx: &mut Context<impl System>) {
        if cx.timers.take_due(Timer::ReadinessProbe, cx.now_ms) {
            cx.timers.set(Timer::ReadinessProbe, cx.now_ms + READY_ASK_MAX_MS);
        }
    }

    /// Sends requests that are due, and ends those that took too long.
    pub(super) fn advance(&mut self, cx: &mut Context<impl System>) {
        if !cx.timers.take_due(Timer::ReadinessProbe, cx.now_ms) {
            return;
        }
        let all: Vec<WorkerIx> = self.probed.iter().copied().collect();
        let probe = |ix: &WorkerIx| cx.workers.get(*ix).and_then(|w| w.readiness_probe.as_ref());
        let mut open = all.iter().filter(|ix| probe(ix).is_some_and(|probe| !probe.is_resting())).count();
        for ix in all {
            let Some(mut probe) = cx.workers.get_mut(ix).and_then(|w| w.readiness_probe.take()) else {
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

    fn keep(&mut self, cx: &mut Context<impl System>, ix: WorkerIx, probe: ReadinessProbe) {
        cx.timers.set_earlier(Timer::ReadinessProbe, probe.due_ms());
        if let Some(worker) = cx.workers.get_mut(ix) {
            worker.readiness_probe = Some(probe);
        }
    }

    /// The next step of a probe that is due; `None` if the probe is no longer needed.
    fn next_step(
        &mut self,
        cx: &mut Context<impl System>,
        ix: WorkerIx,
        mut probe: ReadinessProbe,
    ) -> Option<ReadinessProbe> {
        match probe.step {
            Step::Asked(ref request) => {
                if !request.status_known {
                    probe.report(cx, ix, &Failure::Late);
                }
                probe.rest(cx, ix)
            }
            Step::Resting { .. } => {
                path_to_ask(cx, ix)?;
                self.connect(cx, ix, probe)
            }
            Step::Connecting { half, until_ms, .. } => {
                probe.step = Step::Resting { until_ms };
                self.finish_connecting(cx, ix, probe, half, until_ms)
            }
        }
    }

    /// Opens a loopback connection of the kind that the worker's server accepts.
    fn connect(
        &mut self,
        cx: &mut Context<impl System>,
        ix: WorkerIx,
        probe: ReadinessProbe,
    ) -> Option<ReadinessProbe> {
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
        mut probe: ReadinessProbe,
        half: Half,
        until_ms: u64,
    ) -> Option<ReadinessProbe> {
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
        mut probe: ReadinessProbe,
        ours: OwnedFd,
        other: OwnedFd,
    ) -> Option<ReadinessProbe> {
        let path = path_to_ask(cx, ix)?.to_owned();
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
        let request = http::request(&path);
        match cx.system.write(ours.as_fd(), &request) {
            // The send buffer of a new connection is larger than any path.
            Ok(count) if count == request.len() && cx.reactor.add_probe(ix, &ours) => {}
            Ok(_) => return probe.fail(cx, ix, &io::Error::from(io::ErrorKind::WriteZero).into()),
            Err(e) => return probe.fail(cx, ix, &e.into()),
        }
        if probe.reported.is_empty() {
            probe.report(cx, ix, &Failure::Pending);
        }
        let until_ms = cx.now_ms + READY_ANSWER_MS;
        let (head, status_known, received_bytes) = (Vec::new(), false, 0);
        probe.step = Step::Asked(Request { socket: ours, head, status_known, received_bytes, until_ms });
        Some(probe)
    }

    /// Bytes of an answer arrived.
    pub(super) fn answer_came(&mut self, cx: &mut Context<impl System>, ix: WorkerIx) {
        let Some(mut probe) = cx.workers.get_mut(ix).and_then(|w| w.readiness_probe.take()) else { return };
        let Step::Asked(request) = &mut probe.step else { return self.keep(cx, ix, probe) };
        let Progress { verdict, is_over } = request.receive(&cx.system, cx.now_ms);
        match verdict {
            None => {}
            Some(Err(failure)) => probe.report(cx, ix, &failure),
            Some(Ok(())) => {
                let Some(worker) = cx.workers.get(ix) else { return };
                let event = Event::Evidence { worker: worker.id, evidence: Evidence::Http };
                cx.events.push_back((worker.app, event));
            }
        }
        if let Some(probe) = if is_over { probe.rest(cx, ix) } else { Some(probe) } {
            self.keep(cx, ix, probe);
        }
    }
}

/// The path to probe; `None` where the worker is ready or leaving, or is not configured for probes.
fn path_to_ask(cx: &Context<impl System>, ix: WorkerIx) -> Option<&str> {
    let worker = cx.workers.get(ix).filter(|worker| !worker.is_agent)?;
    let app = &cx.apps[worker.app];
    let path = app.generations.get(&worker.generation)?.path_to_ask()?;
    let phase = app.supervisor.worker(worker.id)?.phase;
    matches!(phase, Phase::Starting { .. }).then_some(path)
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
