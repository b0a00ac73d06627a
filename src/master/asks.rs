//! `ready = "http:/path"`: asks a worker that listens for a path until it answers well. Each request goes over a
//! connection of the master with itself, whose other end is handed to that very worker: no client, and no other worker,
//! has a part in it. What the answer means for the worker is the supervisor's business, its bytes are `worker::http`'s.
//!
//! Nothing here waits: what is not there yet is looked at again. Nothing is remembered over a master's death: the next
//! one asks again, and the answers that were under way go to a socket that is gone.
use super::Master;
use super::dispatch;
use crate::ids::{AppIx, ListenerIx, WorkerIx};
use crate::limits;
use crate::os::listen::{self, LocalAddress};
use crate::os::loopback::{Half, Made};
use crate::os::{fdpass, process};
use crate::supervisor::{Event, Evidence, Phase};
use crate::worker::http::{self, Answer};
use crate::worker::node::channel::Sent;
use crate::worker::node::framing::shown;
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// The number under which connections with a question are handed over. No hand-off ever has it (`first_seq`), so the
/// worker's word that it has taken one is nobody's: the answer alone counts.
const ASK_SEQ: u64 = 1 << 53;

/// Workers that are asked.
#[derive(Default)]
pub(super) struct Asks {
    all: BTreeSet<WorkerIx>,
    /// When the next of them is to be looked at.
    next_ms: Option<u64>,
}

impl Asks {
    pub(super) fn next_ms(&self) -> Option<u64> {
        self.next_ms
    }

    fn look_at(&mut self, at_ms: u64) {
        self.next_ms = Some(self.next_ms.map_or(at_ms, |next| next.min(at_ms)));
    }
}

/// How far the asking of one worker has come.
pub(super) struct Asking {
    step: Step,
    /// The rest before the next question; it doubles.
    pause_ms: u64,
    /// What is known of why it is not ready, when it was told last.
    told: String,
}

enum Step {
    Resting { until_ms: u64 },
    Connecting { half: Half, look_ms: u64, until_ms: u64 },
    Asked(Asked),
}

/// A question that is out.
struct Asked {
    socket: OwnedFd,
    /// What has come of the answer, until its status is known.
    head: Vec<u8>,
    status_known: bool,
    heard_bytes: usize,
    until_ms: u64,
}

/// What came of a question, where it is not a good answer.
enum Bad<'a> {
    Status(u16),
    Foreign(&'a [u8]),
    Closed,
    Late,
    Pending,
    Unread,
    NothingToAsk,
    NoConnection(io::Error),
}

impl Bad<'_> {
    fn words(&self, path: &str) -> String {
        match self {
            Bad::Status(status) => format!("GET {path} was answered with {status}"),
            Bad::Foreign(bytes) => format!("GET {path} was not answered in HTTP/1 but with {}", shown(bytes)),
            Bad::Closed => format!(
                "GET {path} was not answered: it closed the connection (a server that speaks TLS alone does; it is asked \
                 in plain HTTP)"
            ),
            Bad::Late => format!("GET {path} was not answered in {} s", limits::READY_ANSWER_MS / 1000),
            Bad::Pending => format!("GET {path} is not answered yet"),
            Bad::Unread => format!("GET {path} is not asked yet: it does not read its channel"),
            Bad::NothingToAsk => format!("GET {path} is not asked: it listens on no TCP port and no Unix socket"),
            Bad::NoConnection(e) => format!("GET {path} is not asked yet: no connection can be made: {e}"),
        }
    }
}

impl Asking {
    fn due_ms(&self) -> u64 {
        match &self.step {
            Step::Resting { until_ms } => *until_ms,
            Step::Connecting { look_ms, .. } => *look_ms,
            Step::Asked(asked) => asked.until_ms,
        }
    }
}

impl Master {
    /// A server of the worker listens where it has to: if an answer is to make the worker ready, it is asked from now on.
    pub(super) fn begin_asking(&mut self, ix: WorkerIx) {
        if self.path_to_ask(ix).is_none() {
            return;
        }
        let now_ms = self.cx.now_ms;
        let Some(worker) = self.cx.workers.get_mut(ix) else { return };
        if worker.asking.is_none() {
            let step = Step::Resting { until_ms: now_ms };
            worker.asking = Some(Asking { step, pause_ms: limits::READY_ASK_MIN_MS, told: String::new() });
            self.asks.all.insert(ix);
            self.asks.look_at(now_ms);
        }
    }

    /// A former master may have heard that a worker listens, and may have asked it.
    pub(super) fn ask_again(&mut self) {
        for ix in self.cx.workers.indices() {
            let listens = self.cx.workers.get(ix).is_some_and(|worker| !worker.serves.is_empty());
            if listens && self.path_to_ask(ix).is_some() && self.serves_too_little(ix).is_none() {
                self.begin_asking(ix);
            }
        }
    }

    /// The path that a worker has to answer for to be ready; `None` where it is ready or leaves, or where the rule is
    /// another one.
    fn path_to_ask(&self, ix: WorkerIx) -> Option<String> {
        let worker = self.cx.workers.get(ix).filter(|worker| !worker.is_agent)?;
        let app = &self.cx.apps[worker.app];
        let path = app.generations.get(&worker.generation)?.path_to_ask()?;
        let phase = app.supervisor.worker(worker.id)?.phase;
        matches!(phase, Phase::Starting { .. }).then(|| path.to_owned())
    }

    /// Asks whoever is due, and ends what took too long.
    pub(super) fn go_on_asking(&mut self) {
        if self.asks.next_ms.is_none_or(|at| at > self.cx.now_ms) {
            return;
        }
        self.asks.next_ms = None;
        let all: Vec<WorkerIx> = self.asks.all.iter().copied().collect();
        let asking = |ix: &WorkerIx| self.cx.workers.get(*ix).and_then(|w| w.asking.as_ref());
        let mut open =
            all.iter().filter(|ix| asking(ix).is_some_and(|a| !matches!(a.step, Step::Resting { .. }))).count();
        for ix in all {
            let Some(mut asking) = self.cx.workers.get_mut(ix).and_then(|w| w.asking.take()) else {
                self.asks.all.remove(&ix);
                continue;
            };
            if asking.due_ms() <= self.cx.now_ms {
                let rested = matches!(asking.step, Step::Resting { .. });
                if rested && open >= limits::READY_ASKS_AT_ONCE_MAX {
                    asking.step = Step::Resting { until_ms: self.cx.now_ms + limits::READY_ASK_MIN_MS };
                } else {
                    open += usize::from(rested);
                    asking = match self.ask_on(ix, asking) {
                        Some(asking) => asking,
                        None => continue,
                    };
                }
            }
            self.keep_asking(ix, asking);
        }
    }

    fn keep_asking(&mut self, ix: WorkerIx, asking: Asking) {
        self.asks.look_at(asking.due_ms());
        if let Some(worker) = self.cx.workers.get_mut(ix) {
            worker.asking = Some(asking);
        }
    }

    /// The next step of one that is due; `None` when nobody wants to know any more.
    fn ask_on(&mut self, ix: WorkerIx, mut asking: Asking) -> Option<Asking> {
        match asking.step {
            Step::Asked(ref asked) => {
                if !asked.status_known {
                    self.not_well(ix, &mut asking.told, &Bad::Late);
                }
                self.rest(ix, asking)
            }
            Step::Resting { .. } => {
                self.path_to_ask(ix)?;
                if self.upgrade.is_handing_over() {
                    // The next master asks.
                    return self.rest(ix, asking);
                }
                self.connect(ix, asking)
            }
            Step::Connecting { half, until_ms, .. } => {
                asking.step = Step::Resting { until_ms };
                self.connected(ix, asking, half, until_ms)
            }
        }
    }

    /// The question is over, whatever came of it: the next one follows after a rest, while somebody wants to know.
    fn rest(&mut self, ix: WorkerIx, mut asking: Asking) -> Option<Asking> {
        self.path_to_ask(ix)?;
        asking.step = Step::Resting { until_ms: self.cx.now_ms + asking.pause_ms };
        asking.pause_ms = (asking.pause_ms * 2).min(limits::READY_ASK_MAX_MS);
        Some(asking)
    }

    /// Makes a connection of the kind that the worker's server takes.
    fn connect(&mut self, ix: WorkerIx, mut asking: Asking) -> Option<Asking> {
        let is_unix = self
            .listener_to_ask(ix)
            .map(|(app, listener)| !matches!(self.cx.apps[app].listeners[listener].local, LocalAddress::Inet(_)));
        match is_unix {
            None => {
                self.not_well(ix, &mut asking.told, &Bad::NothingToAsk);
                self.rest(ix, asking)
            }
            Some(true) => match listen::channel_pair() {
                Ok((ours, other)) => self.ask_over(ix, asking, ours, other),
                Err(e) => self.cannot_ask(ix, asking, e),
            },
            Some(false) => match Half::begin() {
                Ok(half) => self.connected(ix, asking, half, self.cx.now_ms + limits::READY_ANSWER_MS),
                Err(e) => self.cannot_ask(ix, asking, e),
            },
        }
    }

    fn connected(&mut self, ix: WorkerIx, mut asking: Asking, half: Half, until_ms: u64) -> Option<Asking> {
        match half.finish() {
            Ok(Made::Whole { ours, other }) => self.ask_over(ix, asking, ours, other),
            Ok(Made::Half(half)) if self.cx.now_ms < until_ms => {
                let look_ms = (self.cx.now_ms + limits::READY_CONNECT_LOOK_MS).min(until_ms);
                asking.step = Step::Connecting { half, look_ms, until_ms };
                Some(asking)
            }
            Ok(Made::Half(_)) => self.cannot_ask(ix, asking, io::ErrorKind::TimedOut.into()),
            Err(e) => self.cannot_ask(ix, asking, e),
        }
    }

    fn cannot_ask(&mut self, ix: WorkerIx, mut asking: Asking, error: io::Error) -> Option<Asking> {
        self.not_well(ix, &mut asking.told, &Bad::NoConnection(error));
        self.rest(ix, asking)
    }

    /// Hands the other end to the worker and asks over ours.
    fn ask_over(&mut self, ix: WorkerIx, mut asking: Asking, ours: OwnedFd, other: OwnedFd) -> Option<Asking> {
        let path = self.path_to_ask(ix)?;
        let Some((app, listener)) = self.listener_to_ask(ix) else { return self.rest(ix, asking) };
        let channel = self.cx.workers.get_mut(ix)?.channel.as_mut()?;
        let mut line = Vec::new();
        self.cx.apps[app].listeners[listener].newconn.render(ASK_SEQ, &mut line);
        let sent = channel.send_handoff(&line, &other);
        drop(other);
        match sent {
            Sent::Whole => {}
            Sent::Blocked => {
                self.scarce.await_writable(&mut self.cx, ix);
                self.not_well(ix, &mut asking.told, &Bad::Unread);
                return self.rest(ix, asking);
            }
            Sent::Broken => {
                dispatch::channel_broken(&mut self.cx, ix);
                return None;
            }
            Sent::Scarce(errno) => return self.cannot_ask(ix, asking, io::Error::from_raw_os_error(errno)),
        }
        let request = http::request(&path);
        let written = fdpass::send_with_fd(ours.as_fd(), &request, None);
        match written {
            // A new connection takes more than a path may be long.
            Ok(count) if count == request.len() && self.cx.reactor.add_ask(ix, &ours) => {}
            Ok(_) => return self.cannot_ask(ix, asking, io::ErrorKind::WriteZero.into()),
            Err(e) => return self.cannot_ask(ix, asking, e),
        }
        if asking.told.is_empty() {
            self.not_well(ix, &mut asking.told, &Bad::Pending);
        }
        let until_ms = self.cx.now_ms + limits::READY_ANSWER_MS;
        let (head, status_known, heard_bytes) = (Vec::new(), false, 0);
        asking.step = Step::Asked(Asked { socket: ours, head, status_known, heard_bytes, until_ms });
        Some(asking)
    }

    /// Where a worker is asked: the first of the configured addresses that it listens on, else the first of those that it
    /// asked for itself. App and listener.
    fn listener_to_ask(&self, ix: WorkerIx) -> Option<(AppIx, ListenerIx)> {
        let worker = self.cx.workers.get(ix)?;
        let app = &self.cx.apps[worker.app];
        let settings = app.generations.get(&worker.generation)?;
        let streams = || worker.serves.iter().copied().filter(|&n| !app.listeners[n].datagram);
        let at = |wanted| streams().find(|&n| app.listeners[n].configured.as_ref() == Some(wanted));
        let listener = settings.config.listen.iter().find_map(at).or_else(|| streams().next())?;
        Some((worker.app, listener))
    }

    /// Something came over the connection with a question.
    pub(super) fn answer_came(&mut self, ix: WorkerIx) {
        let Some(mut asking) = self.cx.workers.get_mut(ix).and_then(|w| w.asking.take()) else { return };
        let Step::Asked(mut asked) = asking.step else { return self.keep_asking(ix, asking) };
        let is_over = self.hear(ix, &mut asked, &mut asking.told);
        asking.step = Step::Asked(asked);
        let asking = if is_over { self.rest(ix, asking) } else { Some(asking) };
        if let Some(asking) = asking {
            self.keep_asking(ix, asking);
        }
    }

    /// Reads what has come. Whether that was the end. What follows the status is let go by, so that a worker that still
    /// writes is not cut off.
    fn hear(&mut self, ix: WorkerIx, asked: &mut Asked, told: &mut String) -> bool {
        let mut buffer = [0; limits::READY_READ_BYTES];
        loop {
            let count = match process::read_now(asked.socket.as_fd(), &mut buffer) {
                Ok(None) => return false,
                Ok(Some(0)) | Err(_) => {
                    if !asked.status_known {
                        self.not_well(ix, told, &Bad::Closed);
                    }
                    return true;
                }
                Ok(Some(count)) => count,
            };
            asked.heard_bytes += count;
            if asked.status_known {
                if asked.heard_bytes > limits::READY_ANSWER_BYTES_MAX {
                    return true;
                }
                continue;
            }
            asked.head.extend_from_slice(&buffer[..count]);
            match http::answer(&asked.head) {
                Answer::More => continue,
                Answer::Foreign => {
                    self.not_well(ix, told, &Bad::Foreign(&asked.head));
                    return true;
                }
                Answer::Status(status) if http::is_well(status) => {
                    let Some(worker) = self.cx.workers.get(ix) else { return true };
                    let event = Event::Evidence { worker: worker.id, evidence: Evidence::Http };
                    self.cx.events.push_back((worker.app, event));
                }
                Answer::Status(status) => self.not_well(ix, told, &Bad::Status(status)),
            }
            asked.status_known = true;
            asked.head = Vec::new();
            asked.until_ms = asked.until_ms.min(self.cx.now_ms + limits::READY_BODY_MS);
        }
    }

    /// Tells the supervisor why the worker is not ready, where that is news.
    fn not_well(&mut self, ix: WorkerIx, told: &mut String, bad: &Bad<'_>) {
        let Some(path) = self.path_to_ask(ix) else { return };
        let why = bad.words(&path);
        let Some(worker) = self.cx.workers.get(ix).filter(|_| *told != why) else { return };
        log::debug!("{}/{}: worker {} is not ready: {why}", self.cx.apps[worker.app].name, worker.slot, worker.id);
        told.clone_from(&why);
        self.cx.events.push_back((worker.app, Event::NotYet { worker: worker.id, why }));
    }
}
