//! The hot path: accept a connection, hand it to a worker, close our copy when the worker has answered. No policy, no
//! log line and no allocation per connection; `balance` chooses the worker.
use super::app::App;
use super::context::Context;
use super::eligibility;
use super::handoff::{Answer, Closed, HandOff, Outcome};
use super::in_hand;
use super::resource_retry::ResourceRetry;
use super::system::System;
use super::tasks::Task;
use super::timers::Timer;
use super::worker::Workers;
use crate::balance::coalescing::{self, Coalescing};
use crate::balance::{ConnIx, sticky};
use crate::ids::{AppIx, ListenerIx, WorkerIx};
use crate::limits;
use crate::os::listen::LocalAddress;
use crate::supervisor::Event;
use crate::worker::node::channel::{Channel, Sent};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// The result of accepting from a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accepted {
    /// Every waiting connection was accepted.
    All,
    /// A batch was accepted; more may wait.
    Some,
    /// No worker can take a connection now, or accepting is paused.
    NotNow,
}

/// A pause in accepting because the system is out of a resource.
#[derive(Default)]
pub(super) struct AcceptPause {
    /// When accepting resumes (milliseconds).
    pub(super) until_ms: u64,
    /// The pause was logged, and no connection has been accepted since.
    reported: bool,
}

#[derive(Default)]
pub(super) struct Dispatch {
    /// Listeners on which connections may wait.
    ready_listeners: Vec<(AppIx, ListenerIx)>,
    coalescing: Coalescing,
    /// Answers read so far from the current channel.
    answers: u64,
    /// Scratch space for a hand-off line.
    line: Vec<u8>,
    /// Channels with lines that wait for a resource of the system.
    pub(super) resource_retry: ResourceRetry,
}

impl Dispatch {
    /// Marks a listener on which connections may wait.
    pub(super) fn listener_ready(&mut self, cx: &mut Context<impl System>, app: AppIx, listener: ListenerIx) {
        let Some(l) = cx.apps.get_mut(app).and_then(|a| a.listeners.get_mut(listener)) else { return };
        l.readable = true;
        if !self.ready_listeners.contains(&(app, listener)) {
            self.ready_listeners.push((app, listener));
        }
    }

    /// How long the loop naps before it waits, in microseconds.
    pub(super) fn nap_us(&mut self, cx: &Context<impl System>) -> u64 {
        let alone = cx.apps.len() == 1;
        let most_us = if alone { coalescing::NAP_MAX_US } else { coalescing::NAP_BESIDE_OTHERS_MAX_US };
        self.coalescing.nap_us(cx.now_us, most_us)
    }

    /// Accepts from every listener on which connections wait, as long as workers can take them.
    pub(super) fn accept_all(&mut self, cx: &mut Context<impl System>) {
        let mut n = 0;
        while n < self.ready_listeners.len() {
            let (app, listener) = self.ready_listeners[n];
            if self.accept_from(cx, app, listener) {
                n += 1;
            } else {
                self.ready_listeners.swap_remove(n);
            }
        }
    }

    /// Accepts a batch from one listener. Returns whether the listener stays in the ready list.
    fn accept_from(&mut self, cx: &mut Context<impl System>, app_ix: AppIx, listener_ix: ListenerIx) -> bool {
        let Some(app) = cx.apps.get(app_ix) else { return false };
        let Some(listener) = app.listeners.get(listener_ix) else { return false };
        if app.closed || !listener.readable {
            return false;
        }
        let all = self.accept_batch(cx, app_ix, listener_ix, 0) == Accepted::All;
        if all && let Some(listener) = cx.apps[app_ix].listeners.get_mut(listener_ix) {
            listener.readable = false;
        }
        !all
    }

    /// Accepts a batch from one socket of a listener.
    pub(super) fn accept_batch(
        &mut self,
        cx: &mut Context<impl System>,
        app_ix: AppIx,
        listener_ix: ListenerIx,
        socket: u32,
    ) -> Accepted {
        let app = &cx.apps[app_ix];
        let listener = &app.listeners[listener_ix];
        if app.accept_pause.until_ms > cx.now_ms {
            return Accepted::NotNow;
        }
        let wants_client = app.balancer.wants_client();
        let group = listener.group;
        // Connections of one listener keep their order. Those of another listener may wait for long: every worker may
        // have closed its server.
        let of_this = |conn: &ConnIx| app.connections.get(*conn).is_some_and(|c| c.listener == listener_ix);
        if app.waiting.queue.iter().any(of_this) {
            return Accepted::NotNow;
        }
        let waiting_elsewhere = app.waiting.len();
        for _ in 0..limits::ACCEPT_BATCH_MAX {
            let app = &mut cx.apps[app_ix];
            let room = app.waiting.len() == waiting_elsewhere && app.connections.len() < limits::HANDOFFS_OPEN_MAX;
            if !room {
                return Accepted::NotNow;
            }
            if !app.balancer.can_take(group, cx.now_us) && !relieve_starvation(cx, app_ix, listener_ix, socket) {
                return Accepted::NotNow;
            }
            let app = &mut cx.apps[app_ix];
            let from = app.listeners[listener_ix].socket(socket);
            let accepted = if wants_client {
                cx.system.accept_with_peer(from)
            } else {
                cx.system.accept(from).map(|socket| (socket, None))
            };
            match accepted {
                Ok((socket, peer)) => {
                    let client_hash = peer.map(sticky::hash_ip);
                    let conn = app.admit(socket, listener_ix, client_hash, cx.now_us);
                    self.hand_off(cx, app_ix, conn);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    if app.listeners[listener_ix].starvation.remove(&socket).is_some() {
                        app.balancer.close_windows();
                    }
                    return Accepted::All;
                }
                Err(e) if crate::os::errno::is_out_of_resources(&e) => {
                    pause(cx, app_ix, "accept", &e);
                    return Accepted::NotNow;
                }
                // A connection that was reset while it waited does not end the batch.
                Err(_) => {}
            }
        }
        Accepted::Some
    }

    /// Hands a connection to a worker, or queues it until a worker can take it.
    fn hand_off(&mut self, cx: &mut Context<impl System>, app_ix: AppIx, conn: ConnIx) {
        loop {
            let app = &mut cx.apps[app_ix];
            let Some(connection) = app.connections.get(conn) else { return };
            if connection.own_line.is_some() {
                return app.waiting.upgraded.add(conn, cx.now_ms);
            }
            in_hand::take_up(&cx.system, connection);
            let listener = &app.listeners[connection.listener];
            let (group, client_hash) = (listener.group, connection.client_hash);
            let handoff = HandOff { conn, socket: &connection.socket, group, client_hash, newconn: &listener.newconn };
            let outcome = handoff.send(
                &mut app.balancer,
                &app.by_member,
                |worker, seq| channel_to(&mut cx.workers, &cx.system, &connection.socket, worker, seq),
                &mut self.line,
                cx.now_us,
            );
            match outcome {
                Outcome::Sent { before } => {
                    in_hand::handed(&cx.system, &mut cx.keeper, &mut app.connections, conn);
                    // Sticky: another worker may be idle, and its next client must not wait.
                    let fewest = client_hash.and_then(|_| app.balancer.fewest_open(group, cx.now_us));
                    self.coalescing.gave(fewest.unwrap_or(before));
                    return;
                }
                Outcome::NoWorker => {
                    app.waiting.queue.push_back(conn);
                    return;
                }
                Outcome::Unsent { worker, why: Some(Sent::Blocked) } => {
                    cx.tasks.push_back(Task::AwaitWritable(worker));
                }
                Outcome::Unsent { worker, why: Some(Sent::Broken) } => channel_broken(cx, worker),
                Outcome::Unsent { .. } => {}
                Outcome::NoResources { errno } => {
                    // No worker could take it now. It goes first once the resource is back.
                    app.waiting.queue.push_front(conn);
                    pause(cx, app_ix, "hand connections on", &io::Error::from_raw_os_error(errno));
                    return;
                }
            }
        }
    }

    /// Accepts all that waits at a listener, for the last worker that serves it: also beyond its window, and if it is slow.
    /// What is not accepted now is reset.
    pub(super) fn accept_for_last(
        &mut self,
        cx: &mut Context<impl System>,
        app_ix: AppIx,
        listener_ix: ListenerIx,
        last: WorkerIx,
    ) {
        if cx.workers.get(last).is_none_or(|worker| worker.member.is_none()) {
            return;
        }
        for _ in 0..cx.apps[app_ix].waiting.queue.len() {
            let app = &mut cx.apps[app_ix];
            let Some(conn) = app.waiting.queue.pop_front() else { break };
            if app.connections.get(conn).is_some_and(|connection| connection.listener == listener_ix) {
                self.hand_to(cx, app_ix, conn, last);
            } else {
                app.waiting.queue.push_back(conn);
            }
        }
        for socket in 0..cx.apps[app_ix].listeners[listener_ix].socket_count() {
            for _ in 0..limits::LISTEN_BACKLOG {
                let app = &mut cx.apps[app_ix];
                if app.connections.len() >= limits::HANDOFFS_OPEN_MAX {
                    break;
                }
                let socket = match cx.system.accept(app.listeners[listener_ix].socket(socket)) {
                    Ok(socket) => socket,
                    // It was reset while it waited.
                    Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => continue,
                    Err(_) => break,
                };
                let conn = app.admit(socket, listener_ix, None, cx.now_us);
                self.hand_to(cx, app_ix, conn, last);
            }
        }
    }

    /// Hands a connection to this worker; where that cannot be, it waits for any.
    pub(super) fn hand_to(&mut self, cx: &mut Context<impl System>, app_ix: AppIx, conn: ConnIx, receiver: WorkerIx) {
        if !self.send_to(cx, app_ix, conn, receiver) {
            cx.apps[app_ix].waiting.queue.push_back(conn);
        }
    }

    /// Sends a connection to this worker. Whether that could be done.
    pub(super) fn send_to(
        &mut self,
        cx: &mut Context<impl System>,
        app_ix: AppIx,
        conn: ConnIx,
        receiver: WorkerIx,
    ) -> bool {
        let member = cx.workers.get(receiver).and_then(|worker| worker.member);
        let app = &mut cx.apps[app_ix];
        let Some((connection, member)) = app.connections.get(conn).zip(member) else { return false };
        in_hand::take_up(&cx.system, connection);
        let listener = &app.listeners[connection.listener];
        let handoff = HandOff {
            conn,
            socket: &connection.socket,
            group: listener.group,
            client_hash: connection.client_hash,
            newconn: connection.own_line.as_deref().unwrap_or(&listener.newconn),
        };
        let outcome = handoff.send_to(
            member,
            &mut app.balancer,
            &app.by_member,
            |worker, seq| channel_to(&mut cx.workers, &cx.system, &connection.socket, worker, seq),
            &mut self.line,
            cx.now_us,
        );
        match outcome {
            Outcome::Unsent { worker, why: Some(Sent::Blocked) } => cx.tasks.push_back(Task::AwaitWritable(worker)),
            Outcome::Unsent { worker, why: Some(Sent::Broken) } => channel_broken(cx, worker),
            Outcome::Sent { .. } => in_hand::handed(&cx.system, &mut cx.keeper, &mut app.connections, conn),
            Outcome::NoWorker | Outcome::NoResources { .. } | Outcome::Unsent { .. } => {}
        }
        matches!(outcome, Outcome::Sent { .. })
    }

    /// Called before a channel is read.
    pub(super) fn begin_reading(&mut self) {
        self.answers = 0;
    }

    /// Called after the channel of this worker was read.
    pub(super) fn end_reading(&mut self, cx: &Context<impl System>, ix: WorkerIx) {
        let Some(worker) = cx.workers.get(ix) else { return };
        if let Some(member) = worker.member {
            self.coalescing.read(self.answers, cx.apps[worker.app].balancer.open_count(member));
        }
    }

    /// A worker answered a hand-off. Returns whether it was one of this dispatch: answers to a previous master's hand-offs, and to
    /// probes, have unknown numbers.
    pub(super) fn answered(
        &mut self,
        cx: &mut Context<impl System>,
        worker_ix: WorkerIx,
        seq: u64,
        accepted: bool,
    ) -> bool {
        let Some(worker) = cx.workers.get_mut(worker_ix) else { return false };
        let Some(member) = worker.member else { return false };
        let app_ix = worker.app;
        let app = &mut cx.apps[app_ix];
        let answer = Answer { member, seq, accepted };
        let App { balancer, connections, waiting, handover_times, .. } = app;
        let closed = answer.close(balancer, connections, &mut waiting.queue, handover_times, cx.now_us);
        let Some(Closed { latency_us, taken }) = closed else { return false };
        if let Some(connection) = taken {
            // Options that the worker set on the socket must not block the loop.
            let is_unix = matches!(app.listeners[connection.listener].local, LocalAddress::Unix(_));
            if is_unix { cx.system.close(connection.socket) } else { cx.system.close_connection(connection.socket) }
        }
        worker.liveness.answered(latency_us, cx.now_us);
        self.answers += 1;
        if accepted {
            app.accept_pause.reported = false;
            worker.taken += 1;
            app.handoffs += 1;
        } else if let Some(connection) = app.waiting.queue.back().and_then(|conn| app.connections.get(*conn)) {
            // It was inserted just above.
            app.balancer.refused(app.listeners[connection.listener].group, member, cx.now_us);
            app.refused += 1;
            worker.refused += 1;
            cx.timers.set_or_cancel(Timer::BackoffEnd(app_ix), backoff_end_ms(app));
        }
        if worker.drain.is_some() {
            // Not now: the channel is being read, and the goodbye goes over it.
            cx.tasks.push_back(Task::DrainStep(worker_ix));
        }
        true
    }

    /// Hands waiting connections to workers that can take them.
    pub(super) fn hand_off_waiting(&mut self, cx: &mut Context<impl System>) {
        for app_ix in cx.apps.indices() {
            cx.timers.take_due(Timer::AcceptPause(app_ix), cx.now_ms);
            if cx.timers.take_due(Timer::BackoffEnd(app_ix), cx.now_ms) {
                let app = &mut cx.apps[app_ix];
                app.balancer.end_backoff(cx.now_us);
                cx.timers.set_or_cancel(Timer::BackoffEnd(app_ix), backoff_end_ms(app));
            }
            self.hand_off_waiting_of(cx, app_ix);
            let app = &mut cx.apps[app_ix];
            let Some(first) = app.waiting.queue.front() else {
                if app.waiting.starvation.take().is_some() {
                    app.balancer.close_windows();
                }
                continue;
            };
            let listener = app.connections.get(*first).map(|connection| connection.listener);
            let waiting = app.waiting.len() as u32;
            if app.waiting.starve(cx.now_us)
                && listener.is_some_and(|listener| open_windows(cx, app_ix, listener, waiting))
            {
                self.hand_off_waiting_of(cx, app_ix);
            }
        }
    }

    fn hand_off_waiting_of(&mut self, cx: &mut Context<impl System>, app_ix: AppIx) {
        for _ in 0..cx.apps[app_ix].waiting.len() {
            if cx.apps[app_ix].accept_pause.until_ms > cx.now_ms {
                break;
            }
            let Some(conn) = cx.apps[app_ix].waiting.queue.pop_front() else { break };
            self.hand_off(cx, app_ix, conn);
        }
    }
}

/// The channel to a worker, for this hand-off.
fn channel_to<'a, S: System>(
    workers: &'a mut Workers<S>,
    system: &S,
    connection: &OwnedFd,
    worker: WorkerIx,
    seq: u64,
) -> Option<&'a mut Channel<S::ChannelSocket>> {
    let worker = workers.get_mut(worker)?;
    system.handing(connection.as_fd(), worker.id, seq);
    worker.channel.as_mut()
}

/// Once per turn: an idle process is not to be woken, so what bounds a blocking close ends with the first turn that had
/// nothing to close and has no answer to wait for.
pub(super) fn rest(cx: &mut Context<impl System>) {
    if !has_open(cx) {
        cx.system.rest();
    }
}

/// When the first worker that refused connections may be offered some again.
fn backoff_end_ms(app: &App) -> Option<u64> {
    app.balancer.next_backoff_end_us().map(|over_us| over_us.div_ceil(1000))
}

/// Whether any hand-off is open.
pub(super) fn has_open(cx: &Context<impl System>) -> bool {
    cx.apps.iter().any(|app| app.balancer.total_open() > 0)
}

/// Takes back the open hand-offs of a worker for other workers, and gives it no more.
pub(super) fn take_back(cx: &mut Context<impl System>, worker_ix: WorkerIx) {
    let Some(worker) = cx.workers.get_mut(worker_ix) else { return };
    let Some(member) = worker.member.take() else { return };
    let app = &mut cx.apps[worker.app];
    let mut taken_back = Vec::new();
    app.balancer.remove_member(member, &mut taken_back);
    app.waiting.queue.extend(taken_back);
}

/// Writing to a worker's channel failed: the supervisor decides what follows.
pub(super) fn channel_broken(cx: &mut Context<impl System>, worker_ix: WorkerIx) {
    let Some(worker) = cx.workers.get_mut(worker_ix) else { return };
    if let Some(channel) = &mut worker.channel {
        channel.closed = true;
    }
    cx.events.push_back((worker.app, Event::ChannelClosed { worker: worker.id }));
}

/// Handles a socket from which no worker can take connections. If connections have waited for long because every worker
/// is slow, windows are opened: waiting in a worker takes as long as waiting here. Returns whether a worker can take a
/// connection now.
fn relieve_starvation(cx: &mut Context<impl System>, app_ix: AppIx, listener_ix: ListenerIx, socket: u32) -> bool {
    let listener = &mut cx.apps[app_ix].listeners[listener_ix];
    if !listener.starvation.entry(socket).or_default().is_reached(cx.now_us) {
        return false;
    }
    let waiting = cx.system.accept_queue(listener.socket(socket)).waiting;
    open_windows(cx, app_ix, listener_ix, waiting)
}

/// Opens the windows for this many starving connections. Returns whether a worker can take one now.
fn open_windows(cx: &mut Context<impl System>, app_ix: AppIx, listener_ix: ListenerIx, waiting: u32) -> bool {
    // Suspects have not read their pings, but not for long enough to count as stuck.
    let suspects: Vec<WorkerIx> =
        cx.workers.iter().filter(|(_, w)| w.app == app_ix && w.liveness.suspect).map(|(ix, _)| ix).collect();
    for ix in suspects {
        if let Some(worker) = cx.workers.get_mut(ix) {
            worker.liveness.suspect = false;
        }
        eligibility::refresh(cx, ix);
    }
    let app = &mut cx.apps[app_ix];
    let group = app.listeners[listener_ix].group;
    app.balancer.open_windows(group, waiting) && app.balancer.can_take(group, cx.now_us)
}

/// Pauses accepting because the system is out of a resource.
fn pause(cx: &mut Context<impl System>, app_ix: AppIx, what: &str, error: &io::Error) {
    let app = &mut cx.apps[app_ix];
    app.accept_pause.until_ms = cx.now_ms + limits::ACCEPT_PAUSE_MS;
    cx.timers.set(Timer::AcceptPause(app_ix), app.accept_pause.until_ms);
    if !std::mem::replace(&mut app.accept_pause.reported, true) {
        log::warn!(
            "{}: cannot {what}: {error}; connections wait in the kernel's queue, next try in {} ms \
             (raise the limit on open files: ulimit -n)",
            app.name,
            limits::ACCEPT_PAUSE_MS
        );
    }
}
