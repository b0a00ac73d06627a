//! The hot path: accept a connection, give it to a worker, close our copy when the worker has answered. No policy, no
//! log line and no allocation per connection; who gets it is `balance`'s business.
use super::Master;
use super::app::App;
use super::connections::Connection;
use super::offer::{Answer, Closed, Offer, Offered};
use super::tasks::Task;
use super::timers::Timer;
use crate::balance::{ConnIx, sticky};
use crate::ids::{AppIx, ListenerIx, WorkerIx};
use crate::limits;
use crate::os::listen::{self, LocalAddress};
use crate::os::{closer, reuseport};
use crate::supervisor::Event;
use crate::worker::node::channel::Sent;
use std::io;

/// What came of accepting from a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accepted {
    /// Everything that waited.
    All,
    /// A batch; there may be more.
    Some,
    /// Nobody can take a connection now, or accepting is paused.
    NotNow,
}

impl Master {
    /// Accepts from every listener on which connections wait, as long as somebody can take them.
    pub(super) fn accept_all(&mut self) {
        if self.upgrade.is_handing_over() {
            return;
        }
        let mut n = 0;
        while n < self.ready_listeners.len() {
            let (app, listener) = self.ready_listeners[n];
            if self.accept_from(app, listener) {
                n += 1;
            } else {
                self.ready_listeners.swap_remove(n);
            }
        }
    }

    /// Accepts a batch from one listener. Whether it has to be looked at again.
    pub(super) fn accept_from(&mut self, app_ix: AppIx, listener_ix: ListenerIx) -> bool {
        let Some(app) = self.cx.apps.get(app_ix) else { return false };
        let Some(listener) = app.listeners.get(listener_ix) else { return false };
        if app.closed || !listener.readable {
            return false;
        }
        let all = self.accept_batch(app_ix, listener_ix, 0) == Accepted::All;
        if all && let Some(listener) = self.cx.apps[app_ix].listeners.get_mut(listener_ix) {
            listener.readable = false;
        }
        !all
    }

    /// Accepts a batch from one socket of a listener.
    pub(super) fn accept_batch(&mut self, app_ix: AppIx, listener_ix: ListenerIx, socket: u32) -> Accepted {
        let app = &self.cx.apps[app_ix];
        let listener = &app.listeners[listener_ix];
        if app.accept_pause_until_ms > self.cx.now_ms {
            return Accepted::NotNow;
        }
        let wants_client = app.balancer.wants_client();
        let group = listener.group;
        // Nobody overtakes a connection of the same listener. One of another listener may wait for long: its server may
        // be closed in every worker.
        let of_this = |conn: &ConnIx| app.connections.get(*conn).is_some_and(|c| c.listener == listener_ix);
        if app.homeless.iter().any(of_this) {
            return Accepted::NotNow;
        }
        let waiting_elsewhere = app.homeless.len();
        for _ in 0..limits::ACCEPT_BATCH_MAX {
            let app = &mut self.cx.apps[app_ix];
            let room = app.homeless.len() == waiting_elsewhere && app.connections.len() < limits::HANDOFFS_OPEN_MAX;
            if !room {
                return Accepted::NotNow;
            }
            if !app.balancer.can_take(group, self.cx.now_us) && !self.starves(app_ix, listener_ix, socket) {
                return Accepted::NotNow;
            }
            let app = &mut self.cx.apps[app_ix];
            let from = app.listeners[listener_ix].socket(socket);
            let accepted = if wants_client {
                listen::accept_with_peer(from)
            } else {
                listen::accept(from).map(|socket| (socket, None))
            };
            match accepted {
                Ok((socket, peer)) => {
                    let client_hash = peer.map(sticky::hash_ip);
                    let connection = Connection { socket, listener: listener_ix, client_hash };
                    let conn = app.connections.insert(connection);
                    self.hand_off(app_ix, conn);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    if app.listeners[listener_ix].starvation.remove(&socket).is_some() {
                        app.balancer.close_windows();
                    }
                    return Accepted::All;
                }
                Err(e) => {
                    if self.accept_failed(app_ix, &e) {
                        return Accepted::NotNow;
                    }
                }
            }
        }
        Accepted::Some
    }

    /// Nobody can take what waits in this socket. When it has waited for long because every worker is slow, they get more
    /// than one at a time: it would not be faster elsewhere. Whether somebody can take it now.
    fn starves(&mut self, app_ix: AppIx, listener_ix: ListenerIx, socket: u32) -> bool {
        let listener = &mut self.cx.apps[app_ix].listeners[listener_ix];
        if !listener.starvation.entry(socket).or_default().is_reached(self.cx.now_us) {
            return false;
        }
        let waiting = reuseport::accept_queue(listener.socket(socket)).waiting;
        self.open_windows(app_ix, listener_ix, waiting)
    }

    /// So many connections have waited for long. Whether somebody can take one of them now.
    fn open_windows(&mut self, app_ix: AppIx, listener_ix: ListenerIx, waiting: u32) -> bool {
        // They have not read their pings, and it is not long enough to call them stuck.
        let suspects: Vec<WorkerIx> =
            self.cx.workers.iter().filter(|(_, w)| w.app == app_ix && w.liveness.suspect).map(|(ix, _)| ix).collect();
        for ix in suspects {
            if let Some(worker) = self.cx.workers.get_mut(ix) {
                worker.liveness.suspect = false;
            }
            self.refresh_eligibility(ix);
        }
        let App { balancer, listeners, .. } = &mut self.cx.apps[app_ix];
        let group = listeners[listener_ix].group;
        balancer.open_windows(group, waiting) && balancer.can_take(group, self.cx.now_us)
    }

    /// Whether to stop accepting for a while. A connection that was reset while it waited is no reason.
    fn accept_failed(&mut self, app_ix: AppIx, error: &io::Error) -> bool {
        if !crate::os::errno::is_out_of_resources(error) {
            return false;
        }
        self.pause(app_ix, "accept", error);
        true
    }

    /// The system has too little of something: no connections for a moment.
    fn pause(&mut self, app_ix: AppIx, what: &str, error: &io::Error) {
        let app = &mut self.cx.apps[app_ix];
        app.accept_pause_until_ms = self.cx.now_ms + limits::ACCEPT_PAUSE_MS;
        self.cx.timers.set(Timer::AcceptPause(app_ix), app.accept_pause_until_ms);
        if !std::mem::replace(&mut app.accept_pause_told, true) {
            log::warn!(
                "{}: cannot {what}: {error}; connections wait in the kernel's queue, next try in {} ms \
                 (raise the limit on open files: ulimit -n)",
                app.name,
                limits::ACCEPT_PAUSE_MS
            );
        }
    }

    /// Gives a connection to a worker, or keeps it until one can take it.
    pub(super) fn hand_off(&mut self, app_ix: AppIx, conn: ConnIx) {
        loop {
            let app = &mut self.cx.apps[app_ix];
            let Some(connection) = app.connections.get(conn) else { return };
            let listener = &app.listeners[connection.listener];
            let (group, client_hash) = (listener.group, connection.client_hash);
            let offer = Offer { conn, socket: &connection.socket, group, client_hash, newconn: &listener.newconn };
            let offered = offer.send(
                &mut app.balancer,
                &app.by_member,
                |worker| self.cx.workers.get_mut(worker).and_then(|w| w.channel.as_mut()),
                &mut self.line,
                self.cx.now_us,
            );
            match offered {
                Offered::Sent { before } => {
                    // By address, another worker than this one may have nothing to do, and its next client is not to wait.
                    let fewest = client_hash.and_then(|_| app.balancer.fewest_open(group, self.cx.now_us));
                    self.coalescing.gave(fewest.unwrap_or(before));
                    self.open_handoffs += 1;
                    return;
                }
                Offered::Nobody => {
                    app.homeless.push_back(conn);
                    return;
                }
                Offered::Unsent { worker, why: Some(Sent::Blocked) } => self.wait_until_writable(worker),
                Offered::Unsent { worker, why: Some(Sent::Broken) } => self.channel_broken(worker),
                Offered::Unsent { .. } => {}
                Offered::Scarce { errno } => {
                    // Whoever it is given to, it is the same. It is the first to go when there is enough again.
                    app.homeless.push_front(conn);
                    self.pause(app_ix, "hand connections on", &io::Error::from_raw_os_error(errno));
                    return;
                }
            }
        }
    }

    /// A worker's answer to a hand-off. Answers to a former master's hand-offs have unknown numbers.
    pub(super) fn answered(&mut self, worker_ix: WorkerIx, seq: u64, accepted: bool) {
        let Some(worker) = self.cx.workers.get_mut(worker_ix) else { return };
        let Some(member) = worker.member else { return };
        let app_ix = worker.app;
        let app = &mut self.cx.apps[app_ix];
        let answer = Answer { member, seq, accepted };
        let closed = answer.close(&mut app.balancer, &mut app.connections, &mut app.homeless, self.cx.now_us);
        let Some(Closed { latency_us, taken }) = closed else { return };
        if let Some(connection) = taken {
            // What the worker did to the socket must not hold the loop up.
            let is_unix = matches!(app.listeners[connection.listener].local, LocalAddress::Unix(_));
            self.interrupts.keep();
            if is_unix { closer::close(connection.socket) } else { closer::close_soon(connection.socket) }
        }
        worker.liveness.answered(latency_us, self.cx.now_us);
        self.answers += 1;
        self.open_handoffs = self.open_handoffs.saturating_sub(1);
        if accepted {
            app.accept_pause_told = false;
            worker.taken += 1;
            app.handoffs += 1;
        } else if let Some(connection) = app.homeless.back().and_then(|conn| app.connections.get(*conn)) {
            // It was just put there.
            app.balancer.refused(app.listeners[connection.listener].group, member, self.cx.now_us);
        }
        if worker.drain.is_some() {
            // Not now: its channel is being read, and goodbye is said over it.
            self.cx.tasks.push_back(Task::DrainStep(worker_ix));
        }
    }

    /// Takes back what a worker had not answered for; others get it.
    pub(super) fn take_back(&mut self, worker_ix: WorkerIx) {
        let Some(worker) = self.cx.workers.get_mut(worker_ix) else { return };
        let Some(member) = worker.member.take() else { return };
        let app = &mut self.cx.apps[worker.app];
        let before = app.homeless.len();
        app.balancer.remove_member(member, &mut self.taken_back);
        app.homeless.extend(self.taken_back.drain(..));
        self.open_handoffs = self.open_handoffs.saturating_sub(app.homeless.len() - before);
    }

    /// Finds workers for connections that lost theirs.
    pub(super) fn rehome(&mut self) {
        for app_ix in self.cx.apps.indices() {
            self.cx.apps[app_ix].balancer.end_backoff(self.cx.now_us);
            self.rehome_of(app_ix);
            let app = &mut self.cx.apps[app_ix];
            let Some(first) = app.homeless.front() else {
                if app.homeless_starvation.take().is_some() {
                    app.balancer.close_windows();
                }
                continue;
            };
            let listener = app.connections.get(*first).map(|connection| connection.listener);
            let waiting = app.homeless.len() as u32;
            if app.homeless_starvation.get_or_insert_default().is_reached(self.cx.now_us)
                && listener.is_some_and(|listener| self.open_windows(app_ix, listener, waiting))
            {
                self.rehome_of(app_ix);
            }
        }
    }

    fn rehome_of(&mut self, app_ix: AppIx) {
        for _ in 0..self.cx.apps[app_ix].homeless.len() {
            if self.cx.apps[app_ix].accept_pause_until_ms > self.cx.now_ms {
                break;
            }
            let Some(conn) = self.cx.apps[app_ix].homeless.pop_front() else { break };
            self.hand_off(app_ix, conn);
        }
    }

    /// Whether a worker may be handed connections at this moment.
    pub(super) fn refresh_eligibility(&mut self, worker_ix: WorkerIx) {
        self.recount(worker_ix);
        let Some(worker) = self.cx.workers.get(worker_ix) else { return };
        let Some(member) = worker.member else { return };
        let open = worker.channel.as_ref().is_some_and(|c| !c.closed && !c.is_blocked());
        let well = !worker.liveness.stuck && !worker.liveness.suspect;
        let eligible = worker.admitted && worker.drain.is_none() && open && well;
        self.cx.apps[worker.app].balancer.set_eligible(member, eligible);
    }

    /// The channel broke under our hands: the rules decide what that means.
    pub(super) fn channel_broken(&mut self, worker_ix: WorkerIx) {
        let Some(worker) = self.cx.workers.get_mut(worker_ix) else { return };
        if let Some(channel) = &mut worker.channel {
            channel.closed = true;
        }
        let (app, id) = (worker.app, worker.id);
        self.cx.events.push_back((app, Event::ChannelClosed { worker: id }));
    }
}
