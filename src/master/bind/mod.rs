//! Workers that bind their ports by themselves (`protocol = "bind"`): takes the listener of each worker's filter, and answers
//! the intercepted calls. bind(2) of an address of the app gets the worker's own socket of ours; listen(2) on that is
//! readiness; every other call is carried out by the kernel as it is.
//!
//! A call is answered in three steps. The look into the caller's memory is made on a thread (`look`), because it can wait for
//! whoever serves a page there. The decision is made here. The answer is given when the keeper has what the next master needs
//! to know ([`Interception::give_held`]).
mod address;
mod look;

use super::context::Context;
use super::kernel_mode::groups::Groups;
use super::spawn;
use super::timers::Timer;
use crate::ids::{AppIx, ListenerIx, WorkerId, WorkerIx};
use crate::keeper::protocol::Order;
use crate::master::system::System;
use crate::os::seccomp::{Answer, Call, Sent, What};
use crate::os::tracee::Caller;
use crate::supervisor::{Event, Evidence, Phase};
use crate::worker::bind::Address;
use look::Looked;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Calls of one worker that are taken per turn of the loop.
const CALLS_PER_TURN_MAX: usize = 32;
/// Looks into one worker's processes at a time; further calls wait in the kernel.
const LOOKS_PER_WORKER_MAX: u32 = 8;
/// Looks of all workers that have ended and wait for the loop; a thread with one more waits.
const LOOKED_QUEUE_MAX: usize = 64;
/// Sockets given to processes of a worker that are remembered.
const GIVEN_MAX: usize = 64;
/// Looks of the keeper that are under way; beyond them its answer is not asked for.
const ASKED_MAX: usize = 256;
/// Pause after a turn that left calls of a worker, in milliseconds.
const REST_MS: u64 = 1;

/// A worker's side of the interception.
#[derive(Debug, Default)]
pub(super) struct Intercepted {
    /// Where the listener comes from, until it is taken.
    link: Option<OwnedFd>,
    listener: Option<OwnedFd>,
    /// Looks into its processes that are under way.
    looks: u32,
    /// What its processes were given, the latest last.
    given: VecDeque<Given>,
    /// Calls were left: they are taken when a look ends, or after a rest.
    left: bool,
}

impl Intercepted {
    /// With the socket over which the listener comes, or the listener, as the keeper holds it.
    pub(super) fn new(system: &impl System, held: OwnedFd) -> Intercepted {
        if system.is_socket(held.as_fd()) {
            Intercepted { link: Some(held), ..Intercepted::default() }
        } else {
            Intercepted { listener: Some(held), ..Intercepted::default() }
        }
    }
}

impl Intercepted {
    /// Whether one of its processes was given a socket.
    pub(super) fn has_bound(&self) -> bool {
        !self.given.is_empty()
    }
}

/// A socket that a process was given.
#[derive(Debug, PartialEq, Eq)]
struct Given {
    process: i32,
    /// As it asked for it.
    address: Address,
    listener: ListenerIx,
}

/// The name in the keeper of the listener of a worker's filter, or of the socket that it comes over.
pub(super) fn held_name(worker: WorkerId) -> String {
    format!("{HELD}{worker}")
}

/// Prefix of these names.
pub(super) const HELD: &str = "bind/";

/// What the keeper found in a process.
pub(super) struct KeeperLooked {
    pub(super) worker: WorkerId,
    pub(super) call: u64,
    pub(super) bytes: Vec<u8>,
    pub(super) errno: i32,
}

/// A call that gets a socket as soon as the keeper knows what it has to.
struct Held {
    worker: WorkerId,
    call: u64,
    fd: i32,
    listener: ListenerIx,
    looked: Looked,
}

/// All intercepted workers.
pub(super) struct Interception {
    sender: SyncSender<Looked>,
    receiver: Receiver<Looked>,
    held: VecDeque<Held>,
    /// Looks that the keeper was asked for.
    asked: BTreeMap<(WorkerId, u64), Looked>,
    /// Workers with calls that were left.
    resting: Vec<WorkerIx>,
    refusal_reported: bool,
}

impl Default for Interception {
    fn default() -> Interception {
        let (sender, receiver) = sync_channel(LOOKED_QUEUE_MAX);
        Interception {
            sender,
            receiver,
            held: VecDeque::new(),
            asked: BTreeMap::new(),
            resting: Vec::new(),
            refusal_reported: false,
        }
    }
}

impl Interception {
    /// The worker's program runs: takes the listener of its filter.
    pub(super) fn begin(&mut self, cx: &mut Context<impl System>, ix: WorkerIx) {
        let Some(worker) = cx.workers.get_mut(ix) else { return };
        let (app_ix, id) = (worker.app, worker.id);
        let Some(intercepted) = &mut worker.intercepted else { return };
        if let Some(link) = intercepted.link.take() {
            match cx.system.peek_filter(link.as_fd()) {
                Ok(Some(Sent::Listener(listener))) => {
                    cx.keeper.hold(held_name(id), listener.as_fd());
                    intercepted.listener = Some(listener);
                }
                Ok(Some(Sent::Refused(e))) => return self.go_without(cx, app_ix, ix, &e),
                // A keeper that does not know how sends nothing.
                Ok(None) => return self.go_without(cx, app_ix, ix, &io::ErrorKind::Unsupported.into()),
                Err(e) => return self.go_without(cx, app_ix, ix, &e),
            }
        }
        if let Some(listener) = &intercepted.listener {
            cx.reactor.add_calls(ix, listener);
        }
        self.read(cx, ix);
    }

    /// The worker gets its sockets by inheritance alone.
    fn go_without(&mut self, cx: &mut Context<impl System>, app_ix: AppIx, ix: WorkerIx, why: &io::Error) {
        let Some(worker) = cx.workers.get_mut(ix) else { return };
        worker.intercepted = None;
        let id = worker.id;
        cx.keeper.send(Order::Release { name: held_name(id) });
        if !std::mem::replace(&mut self.refusal_reported, true) {
            log::warn!(
                "{}: workers that bind the port themselves cannot share it here: the system refuses the filter (seccomp) \
                 that this needs: {why}; workers get their sockets in LISTEN_FDS only",
                cx.apps[app_ix].name
            );
        }
        spawn::serve_inherited(cx, ix);
    }

    /// Takes calls of a worker, as many as a turn may.
    pub(super) fn read(&mut self, cx: &mut Context<impl System>, ix: WorkerIx) {
        for _ in 0..CALLS_PER_TURN_MAX {
            let Some(worker) = cx.workers.get_mut(ix) else { return };
            let Some(intercepted) = &mut worker.intercepted else { return };
            intercepted.left = intercepted.looks >= LOOKS_PER_WORKER_MAX;
            if intercepted.left {
                return;
            }
            let Some(listener) = &intercepted.listener else { return };
            match cx.system.next_call(listener.as_fd()) {
                Ok(Some(call)) => self.on_call(cx, ix, call),
                Ok(None) => return self.note_end(cx, ix),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => {
                    log::debug!("worker {}: its calls cannot be read: {e}", worker.id);
                    return;
                }
            }
        }
        self.resting.push(ix);
        cx.timers.set_earlier(Timer::Intercepted, cx.now_ms + REST_MS);
    }

    /// When every process with the filter is gone the listener stays ready for ever.
    fn note_end(&mut self, cx: &mut Context<impl System>, ix: WorkerIx) {
        let Some(intercepted) = cx.workers.get_mut(ix).and_then(|worker| worker.intercepted.as_mut()) else { return };
        if intercepted.listener.as_ref().is_some_and(|listener| cx.system.is_hung_up(listener.as_fd())) {
            intercepted.listener = None;
        }
    }

    /// Takes the calls that were left, when that is due.
    pub(super) fn read_left(&mut self, cx: &mut Context<impl System>) {
        if cx.timers.take_due(Timer::Intercepted, cx.now_ms) {
            for ix in std::mem::take(&mut self.resting) {
                self.read(cx, ix);
            }
        }
    }

    fn on_call(&mut self, cx: &mut Context<impl System>, ix: WorkerIx, call: Call) {
        match call.what {
            What::Bind { fd, address, length } => {
                if own_listener(cx, ix, call.tid, fd).is_some() {
                    // A signal interrupted a call that was answered, and it is made again.
                    return answer(cx, ix, call.id, Answer::Done);
                }
                let Some(id) = cx.workers.get(ix).map(|worker| worker.id) else { return };
                let caller = Caller { tid: call.tid, fd, address, length };
                let begun = look::begin(cx, id, call.id, caller, self.sender.clone());
                let Some(worker) = cx.workers.get_mut(ix) else { return };
                match (begun, worker.intercepted.as_mut()) {
                    (Ok(()), Some(intercepted)) => intercepted.looks += 1,
                    (Ok(()), None) => {}
                    (Err(e), _) => {
                        log::warn!(
                            "{}: worker {id}: cannot inspect its bind(2): {e}; it binds a socket of its own",
                            cx.apps[worker.app].name
                        );
                        answer(cx, ix, call.id, Answer::Continue);
                    }
                }
            }
            What::Listen { fd, backlog } => self.on_listen(cx, ix, call, fd, backlog),
            What::Other => answer(cx, ix, call.id, Answer::Continue),
        }
    }

    /// Handles looks that have ended.
    pub(super) fn take_looks(&mut self, cx: &mut Context<impl System>, groups: &mut Groups) {
        while let Ok(looked) = self.receiver.try_recv() {
            let Some(ix) = cx.workers.find(looked.worker) else { continue };
            let left =
                cx.workers.get_mut(ix).and_then(|worker| worker.intercepted.as_mut()).is_some_and(|intercepted| {
                    intercepted.looks = intercepted.looks.saturating_sub(1);
                    intercepted.left
                });
            if looked.is_for_the_keeper() && self.asked.len() < ASKED_MAX {
                let (worker, call, tid, address) = (looked.worker, looked.call, looked.tid, looked.at);
                let bytes = looked.length;
                cx.keeper.send(Order::Look { worker, call, tid, address, bytes });
                self.asked.insert((worker, call), looked);
            } else {
                self.on_bind(cx, groups, ix, looked);
            }
            if left {
                self.read(cx, ix);
            }
        }
    }

    /// The keeper has looked into a process, as its parent.
    pub(super) fn keeper_looked(&mut self, cx: &mut Context<impl System>, groups: &mut Groups, answer: KeeperLooked) {
        let Some(mut looked) = self.asked.remove(&(answer.worker, answer.call)) else { return };
        let Some(ix) = cx.workers.find(answer.worker) else { return };
        if answer.errno == 0 {
            (looked.error, looked.address) = (None, Address::parse(&answer.bytes));
        } else {
            looked.error = Some(io::Error::from_raw_os_error(answer.errno));
        }
        self.on_bind(cx, groups, ix, looked);
    }

    fn on_bind(&mut self, cx: &mut Context<impl System>, groups: &mut Groups, ix: WorkerIx, looked: Looked) {
        let (call, fd) = (looked.call, looked.fd);
        if !is_waiting(cx, ix, call) {
            return;
        }
        match address::listener_for(cx, groups, ix, &looked) {
            Ok(listener) => {
                note_given(cx, ix, listener, &looked);
                self.held.push_back(Held { worker: looked.worker, call, fd, listener, looked });
            }
            Err(given) => answer(cx, ix, call, given),
        }
    }

    /// Gives sockets to the calls that wait for it, once the keeper has been told everything.
    pub(super) fn give_held(&mut self, cx: &mut Context<impl System>) {
        if self.held.is_empty() || cx.keeper.has_more() {
            return;
        }
        while let Some(held) = self.held.pop_front() {
            if let Some(ix) = cx.workers.find(held.worker) {
                let given = give(cx, ix, &held);
                answer(cx, ix, held.call, given);
            }
        }
    }

    fn on_listen(&mut self, cx: &mut Context<impl System>, ix: WorkerIx, call: Call, fd: i32, backlog: i32) {
        let Some(listener_ix) = own_listener(cx, ix, call.tid, fd) else {
            return answer(cx, ix, call.id, Answer::Continue);
        };
        let Some(worker) = cx.workers.get(ix) else { return };
        let socket = spawn::socket_for(cx, worker, listener_ix);
        // The queue also serves while the slot has no worker: never shorter than clusterd's own.
        let most = cx.system.accept_queue(socket).most as i32;
        if backlog > most
            && let Err(e) = cx.system.set_backlog(socket, backlog)
        {
            log::debug!("worker {}: cannot set its backlog: {e}", worker.id);
        }
        answer(cx, ix, call.id, Answer::Done);
        serves(cx, ix, listener_ix);
    }
}

fn note_given(cx: &mut Context<impl System>, ix: WorkerIx, listener: ListenerIx, looked: &Looked) {
    let intercepted = cx.workers.get_mut(ix).and_then(|worker| worker.intercepted.as_mut());
    let (Some(intercepted), Some(address)) = (intercepted, &looked.address) else { return };
    let given = Given { process: looked.process, address: address.clone(), listener };
    if !intercepted.given.contains(&given) {
        if intercepted.given.len() >= GIVEN_MAX {
            intercepted.given.pop_front();
        }
        intercepted.given.push_back(given);
    }
}

/// The worker takes connections of this listener from now on.
fn serves(cx: &mut Context<impl System>, ix: WorkerIx, listener_ix: ListenerIx) {
    super::requests::join(cx, ix, listener_ix);
    super::checkpoint::save_serves(cx, ix);
    let Some(worker) = cx.workers.get(ix) else { return };
    let (app, id) = (worker.app, worker.id);
    cx.push_news(app, Event::ServersOpen { worker: id });
    let view = cx.apps[app].supervisor.worker(id);
    if view.is_some_and(|view| !matches!(view.phase, Phase::Starting { .. })) {
        return;
    }
    match super::requests::serves_too_little(cx, ix) {
        Some(why) => {
            log::warn!("{}: worker {id} is not ready: it {why}", cx.apps[app].name);
            cx.push_news(app, Event::NotYet { worker: id, why: format!("it {why}") });
        }
        None => cx.push_news(app, Event::Evidence { worker: id, evidence: Evidence::Listening }),
    }
}

/// Puts the socket into the place of the program's own.
fn give(cx: &Context<impl System>, ix: WorkerIx, held: &Held) -> Answer {
    let Some(worker) = cx.workers.get(ix) else { return Answer::Continue };
    let Some(calls) = worker.intercepted.as_ref().and_then(|intercepted| intercepted.listener.as_ref()) else {
        return Answer::Continue;
    };
    let socket = spawn::socket_for(cx, worker, held.listener);
    let looked = &held.looked;
    if let Err(e) = cx.system.set_nonblocking(socket, looked.flags.nonblocking) {
        log::debug!("worker {}: cannot set the flags of its socket: {e}", worker.id);
    }
    if let Some(own) = &looked.socket {
        cx.system.copy_options(own.as_fd(), socket);
    }
    match cx.system.replace_fd(calls.as_fd(), held.call, held.fd, socket, looked.flags.close_on_exec) {
        Ok(()) => Answer::Done,
        Err(e) => {
            let app = &cx.apps[worker.app];
            log::warn!(
                "{}: worker {} cannot be given the socket of {}: {e}; it binds one of its own",
                app.name,
                worker.id,
                app.listeners[held.listener]
            );
            Answer::Continue
        }
    }
}

/// The listener whose socket an fd of a worker's process is.
fn own_listener(cx: &Context<impl System>, ix: WorkerIx, tid: i32, fd: i32) -> Option<ListenerIx> {
    let worker = cx.workers.get(ix)?;
    let inode = cx.system.socket_inode(tid, fd)?;
    let listeners = cx.apps[worker.app].listeners.entries().filter(|(_, listener)| !listener.is_retired());
    let is_it = |socket: BorrowedFd<'_>| cx.system.file_identity(socket).is_ok_and(|(_, found)| found == inode);
    let mut found =
        listeners.filter(|(_, listener)| is_it(listener.socket_of(worker.socket_number)) || is_it(listener.fd.as_fd()));
    found.next().map(|(ix, _)| ix)
}

fn is_waiting(cx: &Context<impl System>, ix: WorkerIx, call: u64) -> bool {
    let intercepted = cx.workers.get(ix).and_then(|worker| worker.intercepted.as_ref());
    let listener = intercepted.and_then(|intercepted| intercepted.listener.as_ref());
    listener.is_some_and(|listener| cx.system.is_call_waiting(listener.as_fd(), call))
}

fn answer(cx: &Context<impl System>, ix: WorkerIx, call: u64, given: Answer) {
    let Some(worker) = cx.workers.get(ix) else { return };
    let Some(listener) = worker.intercepted.as_ref().and_then(|intercepted| intercepted.listener.as_ref()) else {
        return;
    };
    if let Err(e) = cx.system.answer_call(listener.as_fd(), call, given) {
        // The process was killed, or a signal took it out of the call.
        log::debug!("worker {}: a call has gone before its answer: {e}", worker.id);
    }
}
