//! Whether a worker that inherited its sockets accepts: a connection of our own into its socket, while it starts. Programs that
//! call listen(2) or say `READY=1` need none; the others (Go, Rust, puma) are ready when they have accepted it.
//!
//! Where workers share a socket (balance `shared`, Unix paths) any of them may accept it. Then a worker is ready when one of its
//! processes holds the accepted connection, or waits with epoll at the socket. If a sibling was faster, the next probe follows
//! after a pause. What cannot be seen counts as evidence: the files of the worker's processes without the rights for that, and
//! who accepted a connection that was closed within a moment.
use super::own_listeners::{self, OwnListeners};
use crate::ids::{ListenerIx, WorkerId, WorkerIx};
use crate::master::context::Context;
use crate::master::system::System;
use crate::master::timers::Timer;
use crate::master::worker::Worker;
use crate::master::{addresses, spawn};
use crate::os::listen::LocalAddress;
use crate::os::other_end::OtherEnd;
use crate::supervisor::{Event, Evidence, Phase};
use crate::worker::Inherited;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

/// How long a worker may take to listen by itself before it is probed, in milliseconds.
const PROBE_AFTER_MS: u64 = 500;
/// Pause between two looks at the probes, in milliseconds.
const LOOK_EVERY_MS: u64 = 50;
/// Pause after a probe that a sibling accepted, in milliseconds: it doubles, from the first to the last.
const AGAIN_FIRST_MS: u64 = 50;
const AGAIN_LAST_MS: u64 = 400;
/// Probes in shared sockets of which one look asks who has accepted them; the others follow with the next one.
const ASKED_PER_LOOK_MAX: usize = 64;

/// The probes that nobody has accepted so far.
#[derive(Default)]
pub(in crate::master) struct AcceptProbes {
    open: BTreeMap<WorkerId, Probe>,
    /// Probes that a sibling accepted: when the next one follows, and the pause before it (milliseconds).
    again: BTreeMap<WorkerId, (u64, u64)>,
    /// The worker at which the last look had no more questions left: the next one begins with it.
    begin_at: Option<WorkerId>,
    own: OwnListeners,
}

struct Probe {
    listener: ListenerIx,
    /// The socket that it waits in: the worker's may be replaced by one of another family when a sibling binds.
    inode: Option<u64>,
    client: OwnedFd,
}

/// What became of a probe.
enum Answer {
    Waits,
    /// The worker has accepted it, as far as can be seen.
    Accepted,
    /// Another worker has.
    Sibling,
}

impl Probe {
    fn new<S: System>(cx: &Context<S>, worker: &Worker<S>, listener: ListenerIx, client: OwnedFd) -> Probe {
        let inode = cx.system.inode(spawn::socket_for(cx, worker, listener));
        Probe { listener, inode, client }
    }
}

impl AcceptProbes {
    /// A worker starts, or was found starting.
    pub(in crate::master) fn expect(&mut self, cx: &mut Context<impl System>) {
        cx.timers.set_earlier(Timer::AcceptProbe, cx.now_ms + LOOK_EVERY_MS);
    }

    /// Looks at all starting workers, when that is due.
    pub(in crate::master) fn look(&mut self, cx: &mut Context<impl System>) {
        if !cx.timers.take_due(Timer::AcceptProbe, cx.now_ms) {
            return;
        }
        let starting: Vec<WorkerIx> = cx.workers.indices().filter(|ix| is_starting(cx, *ix)).collect();
        let ids: Vec<WorkerId> = starting.iter().filter_map(|ix| Some(cx.workers.get(*ix)?.id)).collect();
        self.open.retain(|id, _| ids.contains(id));
        self.again.retain(|id, _| ids.contains(id));
        let begin = ids.iter().position(|id| Some(*id) == self.begin_at).unwrap_or(0);
        self.begin_at = None;
        let mut questions = ASKED_PER_LOOK_MAX;
        for ix in starting[begin..].iter().chain(&starting[..begin]) {
            self.look_at(cx, *ix, &mut questions);
        }
        if !starting.is_empty() {
            cx.timers.set(Timer::AcceptProbe, cx.now_ms + LOOK_EVERY_MS);
        }
        let awaited: Vec<WorkerIx> = cx.workers.indices().filter(|ix| own_listeners::is_awaited(cx, *ix)).collect();
        if let Some(at_ms) = self.own.look(cx, &awaited) {
            cx.timers.set_earlier(Timer::AcceptProbe, at_ms.max(cx.now_ms + LOOK_EVERY_MS));
        }
    }

    fn look_at(&mut self, cx: &mut Context<impl System>, ix: WorkerIx, questions: &mut usize) {
        let Some(worker) = cx.workers.get(ix) else { return };
        let (app_ix, id) = (worker.app, worker.id);
        let Some(view) = cx.apps[app_ix].supervisor.worker(id) else { return };
        let binds_itself = worker.intercepted.as_ref().is_some_and(|intercepted| intercepted.has_bound());
        let again_ms = self.again.get(&id).map_or(0, |(at_ms, _)| *at_ms);
        if binds_itself || cx.now_ms < again_ms.max(view.spawned_at_ms + PROBE_AFTER_MS) {
            return;
        }
        match self.open.get(&id) {
            None => match open(cx, ix) {
                Ok(probe) => {
                    set_probed(cx, ix, probe.as_ref().and_then(|probe| probe.inode));
                    self.open.extend(probe.map(|probe| (id, probe)));
                }
                Err(e) => log::debug!("worker {id}: cannot connect to see whether it accepts: {e}"),
            },
            Some(probe) => {
                let socket = spawn::socket_for(cx, worker, probe.listener);
                if cx.system.inode(socket) != probe.inode {
                    // Nobody has accepted it, and nobody will: the next look makes another one.
                    self.open.remove(&id);
                    return;
                }
                let is_shared = is_shared(cx, ix, probe);
                if is_shared && *questions == 0 {
                    self.begin_at = self.begin_at.or(Some(id));
                    return;
                }
                *questions -= usize::from(is_shared);
                let found = if is_shared { ask_who(cx, worker, probe) } else { ask_queue(cx, worker, probe) };
                match found {
                    Answer::Waits => {}
                    Answer::Sibling => {
                        self.open.remove(&id);
                        set_probed(cx, ix, None);
                        let pause_ms =
                            self.again.get(&id).map_or(AGAIN_FIRST_MS, |(_, ms)| (ms * 2).min(AGAIN_LAST_MS));
                        self.again.insert(id, (cx.now_ms + pause_ms, pause_ms));
                    }
                    Answer::Accepted => {
                        self.open.remove(&id);
                        set_probed(cx, ix, None);
                        spawn::serve_inherited(cx, ix);
                        cx.push_news(app_ix, Event::Evidence { worker: id, evidence: Evidence::Listening });
                    }
                }
            }
        }
    }
}

fn set_probed(cx: &mut Context<impl System>, ix: WorkerIx, inode: Option<u64>) {
    if let Some(worker) = cx.workers.get_mut(ix) {
        worker.probed = inode;
    }
}

/// Whether another worker may accept the probe.
fn is_shared(cx: &Context<impl System>, ix: WorkerIx, probe: &Probe) -> bool {
    let Some(worker) = cx.workers.get(ix) else { return false };
    let group = cx.apps[worker.app].listeners[probe.listener].reuseport.as_ref().filter(|_| worker.own_socket);
    // In a full group slots share sockets.
    let place = |w: &Worker<_>| group.map(|group| group.selection.socket_of(w.socket_number));
    let may = |w: &Worker<_>| w.app == worker.app && !w.is_beside && !w.ended && place(w) == place(worker);
    cx.workers.iter().any(|(other, w)| other != ix && may(w))
}

/// Of a socket that only this worker has: whether the probe has left its queue.
fn ask_queue<S: System>(cx: &Context<S>, worker: &Worker<S>, probe: &Probe) -> Answer {
    let socket = spawn::socket_for(cx, worker, probe.listener);
    let is_path = matches!(cx.apps[worker.app].listeners[probe.listener].local, LocalAddress::Unix(_));
    // The kernel tells the length of a TCP queue only.
    let waits = cx.system.accept_queue(socket).waiting > 0 || (is_path && cx.system.is_readable(socket));
    if waits { Answer::Waits } else { Answer::Accepted }
}

/// Of a socket that several workers have: who has accepted the probe.
fn ask_who<S: System>(cx: &Context<S>, worker: &Worker<S>, probe: &Probe) -> Answer {
    match cx.system.other_end(probe.client.as_fd()) {
        Ok(OtherEnd::Waits) => Answer::Waits,
        Ok(OtherEnd::Accepted { inode }) => {
            let seen = worker.pid.map(|pid| cx.system.is_served_by(pid, inode, probe.inode.unwrap_or(0)));
            if seen == Some(Some(false)) { Answer::Sibling } else { Answer::Accepted }
        }
        Ok(OtherEnd::Closed) => Answer::Accepted,
        Err(_) => ask_queue(cx, worker, probe),
    }
}

/// Whether it is a worker that starts, has inherited its sockets, and is ready when it listens.
fn is_starting(cx: &Context<impl System>, ix: WorkerIx) -> bool {
    let Some(worker) = cx.workers.get(ix).filter(|worker| !worker.is_beside && worker.pid.is_some()) else {
        return false;
    };
    let app = &cx.apps[worker.app];
    let settings = app.generations.get(&worker.generation).unwrap_or_else(|| app.settings());
    settings.protocol.inherited() == Inherited::Listeners
        && settings.policy().ready.evidence == Some(Evidence::Listening)
        && app.supervisor.worker(worker.id).is_some_and(|view| matches!(view.phase, Phase::Starting { .. }))
}

/// Connects to a socket of the worker: a TCP one, where it has one. `None`: it has no socket.
fn open<S: System>(cx: &mut Context<S>, ix: WorkerIx) -> io::Result<Option<Probe>> {
    let Some(worker) = cx.workers.get(ix) else { return Ok(None) };
    let app_ix = worker.app;
    let app = &cx.apps[app_ix];
    let settings = app.generations.get(&worker.generation).unwrap_or_else(|| app.settings());
    for listener_ix in addresses::of_generation(app, settings) {
        let LocalAddress::Inet(local) = app.listeners[listener_ix].local else { continue };
        let to = |ip: IpAddr| SocketAddr::new(ip, local.port());
        let client = match local.ip() {
            ip if !ip.is_unspecified() => connected(cx, worker, listener_ix, local),
            IpAddr::V4(_) => connected(cx, worker, listener_ix, to(Ipv4Addr::LOCALHOST.into())),
            IpAddr::V6(_) => connected(cx, worker, listener_ix, to(Ipv6Addr::LOCALHOST.into()))
                .or_else(|_| connected(cx, worker, listener_ix, to(Ipv4Addr::LOCALHOST.into()))),
        };
        // The kernel goes back to the usual selection.
        if cx.apps[app_ix].listeners[listener_ix].reuseport.is_some() {
            cx.group_changes.add_unsteered(&mut cx.timers, (app_ix, listener_ix));
        }
        return Ok(Some(Probe::new(cx, worker, listener_ix, client?)));
    }
    for listener_ix in addresses::of_generation(app, settings) {
        if let LocalAddress::Unix(path) = &app.listeners[listener_ix].local {
            return Ok(Some(Probe::new(cx, worker, listener_ix, cx.system.connect_path(path)?)));
        }
    }
    Ok(None)
}

fn connected<S: System>(
    cx: &Context<S>,
    worker: &Worker<S>,
    listener_ix: ListenerIx,
    to: SocketAddr,
) -> io::Result<OwnedFd> {
    let listener = &cx.apps[worker.app].listeners[listener_ix];
    let (client, own) = cx.system.client_for(to)?;
    if let Some(group) = listener.reuseport.as_ref().filter(|_| worker.own_socket) {
        let socket = group.selection.socket_of(worker.socket_number);
        group.aim(&cx.system, listener.fd.as_fd(), own, socket)?;
    }
    // Among those that listen the kernel would choose another worker's socket, and that worker would accept.
    if !cx.system.is_listening(spawn::socket_for(cx, worker, listener_ix)) {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    cx.system.connect(client.as_fd(), to)?;
    Ok(client)
}
