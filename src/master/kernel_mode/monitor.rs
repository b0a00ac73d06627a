//! The accept queue monitor: checks what waits in the sockets of slots. Workers accept by themselves; the master
//! rescues connections that their worker does not take. From a queue whose worker is stuck, dead or leaving, the master
//! accepts them itself and hands them to another worker. Only Node workers can be handed connections; with other
//! programs they wait for the slot's next worker.
//!
//! When idle, the next connection to any slot wakes the master. From then on it checks every `LOOK_EVERY_MS` until the
//! queues are empty. The number of connections in between does not matter for the cost.
use crate::ids::{AppIx, ListenerIx, WorkerId, WorkerIx};
use crate::limits;
use crate::master::context::Context;
use crate::master::dispatch::{Accepted, Dispatch};
use crate::master::drains::Drain;
use crate::master::eligibility;
use crate::master::kernel_mode::groups::is_first_shared;
use crate::master::liveness::{LivenessProbes, STARVED_US};
use crate::master::narration::plural;
use crate::master::reactor::QueueIx;
use crate::master::system::System;
use crate::master::tasks::Task;
use crate::master::timers::Timer;
use crate::master::worker::Worker;
use crate::supervisor::SlotPhase;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// Pause between two checks of the accept queues while connections arrive, in milliseconds.
const LOOK_EVERY_MS: u64 = 10;
/// Delay of the first check after an idle time, in milliseconds: by then a healthy worker has taken what arrived.
const FIRST_LOOK_MS: u64 = 2;
/// Pause between two checks while the master rescues connections, in milliseconds.
const RESCUE_EVERY_MS: u64 = 1;
/// Such checks in a row in which no connection could be rescued.
const RESCUE_ATTEMPTS_MAX: u32 = 20;
/// Longest pause between two checks while connections wait that the master cannot help, in milliseconds.
const LOOK_EVERY_MAX_MS: u64 = 100;
/// Checks in a row that found nothing, after which the monitor is idle until the next connection.
const QUIET_LOOKS_MAX: u32 = 2;
/// Workers pinged per check because connections wait for them.
const PINGS_PER_LOOK_MAX: usize = 32;
/// A Node worker with waiting connections gets no more once it has left a ping unread for this time, in microseconds.
const STUCK_US: u64 = 20_000;
/// After connections have waited for a Node worker for this time, the monitor checks whether the worker still holds the
/// socket; in milliseconds.
const UNTAKEN_MS: u64 = 250;
/// A worker without a channel gets no more connections once those of its slot have waited for this time, until it has
/// taken them; in milliseconds.
const STALLED_MS: u64 = 50;
/// A worker that accepts by itself is told to end once its queue was empty for this time, in milliseconds.
const EMPTY_MS: u64 = 50;
/// Longest wait for an empty queue, in milliseconds.
const EMPTY_MAX_MS: u64 = 2_000;
/// Connections that wait for a slot which gets no worker again are closed after this time, in milliseconds.
const STRANDED_MS: u64 = 1_000;

/// State of the monitor.
#[derive(Default)]
pub(in crate::master) struct AcceptQueueMonitor {
    /// Sockets that were not empty at the last check.
    busy: BTreeMap<QueueIx, Busy>,
    news: Vec<QueueIx>,
    every_ms: u64,
    /// Checks in a row that found nothing.
    quiet: u32,
    /// Connections wait that any worker may have, and none can take them.
    for_anyone: bool,
    /// Checks in a row that could rescue nothing while other workers had hand-offs open.
    rescue_attempts: u32,
    /// The queue whose worker was pinged last: the next round begins after it.
    pinged_last: Option<QueueIx>,
    /// Workers that were pinged at the last check.
    pinged: Vec<WorkerIx>,
    /// Workers among `pinged` that have read their ping since.
    healthy: Vec<WorkerIx>,
    /// Workers that are to end once their queue is empty.
    leaving: Vec<Leaving>,
}

struct Busy {
    since_ms: u64,
    /// Connections that waited at the last check.
    waited: u32,
    /// Workers that get no new connections until they have taken the waiting ones.
    stalled: Vec<(WorkerIx, WorkerId)>,
    /// Node workers that were seen to hold the socket.
    holders: Vec<WorkerId>,
}

struct Leaving {
    ix: WorkerIx,
    id: WorkerId,
    since_ms: u64,
    empty_since_ms: u64,
}

/// The result of a check of one socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Empty,
    /// Connections wait, and no worker accepts from the socket.
    Abandoned,
    /// The master rescues the waiting connections.
    Rescuing,
    /// Connections wait, and somebody will take them.
    Waits,
    /// Connections wait, and the master cannot help.
    Stuck,
}

/// The queue that only a leaving worker takes connections from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OwnQueue {
    /// The worker has no queue of its own (any more).
    None,
    Empty,
    Waits,
}

impl AcceptQueueMonitor {
    /// A worker can take connections again, perhaps those that wait for any worker.
    pub(in crate::master) fn find_taker(&mut self, cx: &mut Context<impl System>) {
        if self.for_anyone {
            cx.look_at_queues_now();
        }
    }

    /// A connection arrived after an idle time. Most are taken within moments.
    pub(in crate::master) fn woke(&mut self, cx: &mut Context<impl System>) {
        cx.reactor.wake_for_queues(false);
        if !cx.timers.is_due(Timer::AcceptQueues, cx.now_ms) {
            // Also where the next look was planned for sooner: the connection would be new at it.
            cx.timers.set(Timer::AcceptQueues, cx.now_ms + FIRST_LOOK_MS);
        }
        self.take_news(cx);
        for queue in std::mem::take(&mut self.news) {
            if takers_of(cx, queue).is_none_or(<[WorkerIx]>::is_empty) {
                cx.look_at_queues_now();
            }
            self.watch(queue, cx.now_ms);
        }
    }

    /// Checks this socket from now on, until it is empty.
    fn watch(&mut self, queue: QueueIx, now_ms: u64) {
        let new = Busy { since_ms: now_ms, waited: 0, stalled: Vec::new(), holders: Vec::new() };
        self.busy.entry(queue).or_insert(new);
    }

    fn watch_abandoned(&mut self, cx: &mut Context<impl System>) {
        for queue in std::mem::take(&mut cx.group_changes.abandoned) {
            self.watch(queue, cx.now_ms);
        }
    }

    /// Collects the sockets with new connections. Returns whether there are any.
    fn take_news(&mut self, cx: &mut Context<impl System>) -> bool {
        self.news.clear();
        if let Err(e) = cx.reactor.take_queues(&mut self.news) {
            log::error!("cannot poll the accept queues: {e}");
        }
        !self.news.is_empty()
    }

    /// Before a check: workers that have read the last check's ping are healthy. The others are watched until they
    /// have.
    pub(in crate::master) fn check_pings(&mut self, cx: &mut Context<impl System>, liveness: &mut LivenessProbes) {
        self.healthy.clear();
        for ix in self.pinged.drain(..) {
            if liveness.waits_for_ping(cx, ix) {
                liveness.watch(cx, ix);
            } else {
                self.healthy.push(ix);
            }
        }
    }

    /// One check of all busy queues: which workers are behind, and how to help. Sets when the next one is due.
    pub(in crate::master) fn look(
        &mut self,
        cx: &mut Context<impl System>,
        liveness: &mut LivenessProbes,
        dispatch: &mut Dispatch,
    ) {
        let mut in_progress = self.take_news(cx);
        let mut rescuing = false;
        for queue in std::mem::take(&mut self.news) {
            self.watch(queue, cx.now_ms);
        }
        self.watch_abandoned(cx);
        let mut pings = PINGS_PER_LOOK_MAX;
        let after = self.pinged_last.map_or(Bound::Unbounded, Bound::Excluded);
        let upto = self.pinged_last.map_or(Bound::Unbounded, Bound::Included);
        let later = self.busy.range((after, Bound::Unbounded)).map(|(queue, _)| *queue);
        let mut round: Vec<QueueIx> = later.collect();
        if self.pinged_last.is_some() {
            round.extend(self.busy.range((Bound::Unbounded, upto)).map(|(queue, _)| *queue));
        }
        // Decide which workers are healthy before choosing who gets connections.
        let mut abandoned = Vec::new();
        let listeners: BTreeSet<(AppIx, ListenerIx)> =
            round.iter().map(|&(app, listener, _)| (app, listener)).collect();
        for queue in round {
            match self.look_at(cx, liveness, queue, &mut pings) {
                Seen::Empty => self.no_longer_busy(cx, queue),
                Seen::Abandoned => abandoned.push(queue),
                Seen::Rescuing => rescuing = true,
                Seen::Waits => in_progress = true,
                Seen::Stuck => {}
            }
        }
        self.level_out(cx, &listeners);
        self.for_anyone = false;
        for queue in abandoned {
            match self.rescue(cx, dispatch, queue) {
                Seen::Empty => self.no_longer_busy(cx, queue),
                Seen::Rescuing => rescuing = true,
                Seen::Waits | Seen::Abandoned => in_progress = true,
                Seen::Stuck => self.for_anyone = true,
            }
        }
        in_progress |= self.look_at_leaving(cx);
        self.plan_next_look(cx, in_progress, rescuing);
    }

    /// Among a listener's workers, those that are behind get fewer connections and the others more.
    fn level_out(&self, cx: &mut Context<impl System>, listeners: &BTreeSet<(AppIx, ListenerIx)>) {
        for &(app, listener) in listeners {
            let busy = self.busy.range((app, listener, 0)..=(app, listener, u32::MAX));
            let waiting: Vec<(u32, u32)> = busy.map(|(&(_, _, socket), busy)| (socket, busy.waited)).collect();
            let listener = cx.apps.get_mut(app).and_then(|app| app.listeners.get_mut(listener));
            if let Some(group) = listener.and_then(|listener| listener.reuseport.as_mut()) {
                group.level_out(&waiting);
            }
        }
    }

    fn plan_next_look(&mut self, cx: &mut Context<impl System>, in_progress: bool, rescuing: bool) {
        // Changes made by this check are handled in the next one.
        self.watch_abandoned(cx);
        if self.busy.is_empty() && self.leaving.is_empty() {
            self.quiet += 1;
        } else {
            self.quiet = 0;
        }
        self.every_ms = if rescuing {
            RESCUE_EVERY_MS
        } else if in_progress || self.quiet > 0 {
            LOOK_EVERY_MS
        } else {
            (self.every_ms * 2).clamp(LOOK_EVERY_MS, LOOK_EVERY_MAX_MS)
        };
        let rests = self.quiet >= QUIET_LOOKS_MAX;
        cx.timers.set_or_cancel(Timer::AcceptQueues, (!rests).then_some(cx.now_ms + self.every_ms));
        // While checks are rare, new connections must not wait for the next one.
        cx.reactor.wake_for_queues(rests || self.every_ms == LOOK_EVERY_MAX_MS);
    }

    fn look_at(
        &mut self,
        cx: &mut Context<impl System>,
        liveness: &mut LivenessProbes,
        queue: QueueIx,
        pings: &mut usize,
    ) -> Seen {
        let (app_ix, listener_ix, socket) = queue;
        let Some(app) = cx.apps.get(app_ix).filter(|app| !app.closed) else { return Seen::Empty };
        let Some(listener) = app.listeners.get(listener_ix) else { return Seen::Empty };
        let Some(group) = &listener.reuseport else { return Seen::Empty };
        let waiting = cx.system.accept_queue(listener.socket(socket)).waiting;
        if waiting == 0 {
            // A socket that was shut down wakes the monitor as well.
            cx.group_changes.has_closed |= !cx.system.is_listening(listener.socket(socket));
            return Seen::Empty;
        }
        let Some(busy) = self.busy.get_mut(&queue) else { return Seen::Empty };
        let waited = std::mem::replace(&mut busy.waited, waiting);
        for taker in group.selection.takers(socket).to_vec() {
            self.check_holds_socket(cx, taker, queue);
        }
        let app = &cx.apps[app_ix];
        let Some(group) = &app.listeners[listener_ix].reuseport else { return Seen::Empty };
        let takers = group.selection.takers(socket).to_vec();
        if takers.is_empty() {
            // In another balance mode the first socket is shared, and polled where the master accepts.
            return if socket == 0 && is_first_shared(cx, app_ix, listener_ix) { Seen::Empty } else { Seen::Abandoned };
        }
        if !group.selection.has_others(socket) && !is_first_shared(cx, app_ix, listener_ix) {
            // No other worker could take them over.
            return Seen::Stuck;
        }
        // No other process accepts from this socket: a worker that has taken more than arrived since is healthy, and
        // needs no ping.
        let takes = waiting < waited && takers.len() == 1;
        for taker in takers {
            self.suspect(cx, liveness, taker, queue, takes, pings);
        }
        let abandoned = takers_of(cx, queue).is_some_and(<[WorkerIx]>::is_empty);
        if abandoned { Seen::Abandoned } else { Seen::Waits }
    }

    /// Checks that a Node worker that takes nothing for a while still holds the socket. A worker that closed its server
    /// says so, but the previous master may have died before it read that. Nothing else would ever show it, because the
    /// event loop turns.
    fn check_holds_socket(&mut self, cx: &mut Context<impl System>, ix: WorkerIx, queue: QueueIx) {
        let (app_ix, listener_ix, _) = queue;
        let Some(worker) = cx.workers.get(ix) else { return };
        let Some(busy) = self.busy.get_mut(&queue) else { return };
        let waited_ms = cx.now_ms.saturating_sub(busy.since_ms);
        if waited_ms < UNTAKEN_MS || busy.holders.contains(&worker.id) {
            return;
        }
        // The unread lines may contain the socket.
        if !worker.channel.as_ref().is_some_and(|channel| !channel.closed && channel.all_read()) {
            return;
        }
        let listener = &cx.apps[app_ix].listeners[listener_ix];
        let Some(held) = worker.pid.and_then(|pid| cx.system.socket_inodes(pid)) else { return };
        // It has its channel at least: this one is ending, and nobody has told us yet.
        if held.is_empty() {
            return;
        }
        let ours = |fd| cx.system.file_identity(fd).is_ok_and(|(_, inode)| held.contains(&inode));
        if listener.sockets().any(ours) {
            busy.holders.push(worker.id);
            return;
        }
        log::warn!(
            "{}: worker {} closed its server on {listener} without telling this master",
            cx.apps[app_ix].name,
            worker.id
        );
        cx.tasks.push_back(Task::ServerClosed { worker: worker.id, key: listener.key.clone() });
    }

    /// Handles a worker for which connections wait. A Node worker has to take them or read a ping; any other program
    /// has to take them.
    fn suspect(
        &mut self,
        cx: &mut Context<impl System>,
        liveness: &mut LivenessProbes,
        ix: WorkerIx,
        queue: QueueIx,
        takes: bool,
        pings: &mut usize,
    ) {
        let Some(worker) = cx.workers.get(ix) else { return };
        let (id, pinged_us) = (worker.id, worker.liveness.pinged_us);
        let stuck = match (worker.channel.is_some(), pinged_us) {
            (true, None) => {
                if !takes && *pings > 0 {
                    *pings -= 1;
                    self.pinged_last = Some(queue);
                    liveness.ping(cx, ix);
                    self.pinged.push(ix);
                    if !self.healthy.contains(&ix) {
                        set_suspect(cx, ix);
                    }
                }
                false
            }
            (true, Some(at_us)) => {
                let waits = liveness.waits_for_ping(cx, ix);
                if waits {
                    set_suspect(cx, ix);
                }
                waits && is_stuck(cx, ix, cx.now_us.saturating_sub(at_us))
            }
            (false, _) => {
                let Some(busy) = self.busy.get_mut(&queue) else { return };
                let stalled = cx.now_ms.saturating_sub(busy.since_ms) >= STALLED_MS;
                if stalled {
                    busy.stalled.push((ix, id));
                }
                stalled
            }
        };
        if stuck && let Some(worker) = cx.workers.get_mut(ix) {
            worker.liveness.stuck = true;
            eligibility::refresh(cx, ix);
        }
    }

    /// The socket is empty: workers that were stalled because of it get connections again.
    fn no_longer_busy(&mut self, cx: &mut Context<impl System>, queue: QueueIx) {
        let Some(busy) = self.busy.remove(&queue) else { return };
        for (ix, id) in busy.stalled {
            if let Some(worker) = cx.workers.get_mut(ix).filter(|worker| worker.id == id) {
                worker.liveness.stuck = false;
                eligibility::refresh(cx, ix);
            }
        }
    }

    /// Accepts from a socket that no worker accepts from, for other workers.
    fn rescue(&mut self, cx: &mut Context<impl System>, dispatch: &mut Dispatch, queue: QueueIx) -> Seen {
        let (app_ix, listener_ix, socket) = queue;
        if !cx.apps[app_ix].settings().protocol.can_be_handed_connections() {
            return self.wait_for_next_worker(cx, queue);
        }
        let before = cx.apps[app_ix].balancer.total_open();
        let accepted_before = cx.apps[app_ix].accepted;
        let accepted = dispatch.accept_batch(cx, app_ix, listener_ix, socket);
        let app = &mut cx.apps[app_ix];
        app.rescued += app.accepted - accepted_before;
        let some = cx.apps[app_ix].balancer.total_open() > before;
        self.rescue_attempts = if some { 0 } else { self.rescue_attempts.saturating_add(1) };
        match accepted {
            Accepted::All => Seen::Empty,
            Accepted::Some => Seen::Rescuing,
            // The others have all open hand-offs that their windows allow.
            Accepted::NotNow if some || (before > 0 && self.rescue_attempts < RESCUE_ATTEMPTS_MAX) => Seen::Rescuing,
            Accepted::NotNow if before > 0 => Seen::Waits,
            Accepted::NotNow => Seen::Stuck,
        }
    }

    /// Waiting connections are for the slot's next worker. If the slot will have none, they are closed, so that clients
    /// do not hang.
    fn wait_for_next_worker(&mut self, cx: &mut Context<impl System>, (app_ix, listener_ix, socket): QueueIx) -> Seen {
        aim_at_starting_worker(cx, app_ix, listener_ix);
        let app = &cx.apps[app_ix];
        let listener = &app.listeners[listener_ix];
        let stalled = self.busy.get(&(app_ix, listener_ix, socket)).is_some_and(|busy| !busy.stalled.is_empty());
        let since_ms = self.busy.get(&(app_ix, listener_ix, socket)).map_or(cx.now_ms, |busy| busy.since_ms);
        let is_its = |number: u32| listener.reuseport.as_ref().is_some_and(|s| s.selection.socket_of(number) == socket);
        // A worker that starts has its number; one that is to be started takes the socket in which something waits.
        let here = |w: &Worker<_>| w.app == app_ix && !w.is_beside && is_its(w.socket_number) && w.drain.is_none();
        let is_reloading = app.supervisor.is_reloading();
        let comes = cx.workers.iter().any(|(_, worker)| here(worker))
            || app.supervisor.slots().any(|slot| match slot.phase {
                SlotPhase::Waiting { .. } => true,
                // Its worker died while its successor was being started: if that fails, it is filled again.
                SlotPhase::Filled => is_reloading && slot.current.is_none(),
                SlotPhase::Errored | SlotPhase::Stopped => false,
            });
        let last_one = |leaving: &Leaving| {
            let worker = cx.workers.get(leaving.ix).filter(|worker| worker.id == leaving.id && worker.app == app_ix);
            worker.is_some_and(|w| is_its(w.socket_number))
        };
        if stalled || comes || self.leaving.iter().any(last_one) {
            if let Some(busy) = self.busy.get_mut(&(app_ix, listener_ix, socket)) {
                busy.since_ms = cx.now_ms;
            }
            return Seen::Stuck;
        }
        if cx.now_ms < since_ms + STRANDED_MS {
            return Seen::Stuck;
        }
        let mut ended = 0;
        let fd = listener.socket(socket);
        // Non-blocking for this call, and no other process has the socket: the master must not block on a socket that
        // turns out empty.
        if cx.system.set_nonblocking(fd, true).is_ok() {
            while ended < limits::ACCEPT_BATCH_MAX
                && let Ok(connection) = cx.system.accept(fd)
            {
                drop(connection);
                cx.system.handed();
                ended += 1;
            }
            if let Err(e) = cx.system.set_nonblocking(fd, false) {
                log::warn!("{}: cannot make {listener} blocking again: {e}", app.name);
            }
        }
        if ended > 0 {
            log::warn!(
                "{}: closed {ended} {} on {listener} that waited for slot {socket}, which has no worker any more",
                app.name,
                plural(ended as u32, "connection")
            );
        }
        Seen::Waits
    }

    // ---- leaving workers ----

    /// A worker that accepts by itself ends once its queue is empty: no other worker could take from it.
    pub(in crate::master) fn await_empty_queue(&mut self, cx: &mut Context<impl System>, ix: WorkerIx) {
        let Some(worker) = cx.workers.get(ix) else { return };
        let now_ms = cx.now_ms;
        self.leaving.push(Leaving { ix, id: worker.id, since_ms: now_ms, empty_since_ms: now_ms });
        cx.look_at_queues_now();
    }

    /// Checks the queues of leaving workers. Returns whether any worker is still waited for.
    fn look_at_leaving(&mut self, cx: &mut Context<impl System>) -> bool {
        let mut leaving = std::mem::take(&mut self.leaving);
        let now_ms = cx.now_ms;
        leaving.retain_mut(|leaving| {
            let done = match own_queue(cx, leaving.ix, leaving.id) {
                OwnQueue::None => true,
                OwnQueue::Waits => {
                    leaving.empty_since_ms = now_ms;
                    now_ms >= leaving.since_ms + EMPTY_MAX_MS
                }
                // Connections on their way arrive within moments, if at all.
                OwnQueue::Empty => now_ms >= leaving.empty_since_ms + EMPTY_MS,
            };
            if done && cx.workers.get(leaving.ix).is_some_and(|worker| worker.id == leaving.id) {
                cx.tasks.push_back(Task::DrainStep(leaving.ix));
            }
            !done
        });
        let any = !leaving.is_empty();
        self.leaving = leaving;
        any
    }
}

/// Where no worker accepts, and the socket in which new connections wait is that of a worker that is gone: has them wait in the
/// socket of one that starts.
fn aim_at_starting_worker(cx: &mut Context<impl System>, app_ix: AppIx, listener_ix: ListenerIx) {
    let may_come = |w: &Worker<_>| w.app == app_ix && !w.is_beside && !w.ended && w.own_socket && w.drain.is_none();
    let Some(listener) = cx.apps.get(app_ix).and_then(|app| app.listeners.get(listener_ix)) else { return };
    let Some(group) = listener.reuseport.as_ref() else { return };
    let sockets = cx.workers.iter().filter(|(_, worker)| may_come(worker));
    let sockets: Vec<u32> = sockets.map(|(_, worker)| group.selection.socket_of(worker.socket_number)).collect();
    let is_awaited = |socket: &u32| cx.system.is_listening(listener.socket(*socket));
    if group.selection.selected().iter().any(|socket| sockets.contains(socket)) {
        return;
    }
    let Some(socket) = sockets.iter().copied().find(is_awaited) else { return };
    if let Some(group) = cx.apps[app_ix].listeners[listener_ix].reuseport.as_mut() {
        group.selection.wait_in(socket);
        if group.selection.is_changed() {
            cx.group_changes.add_unsteered(&mut cx.timers, (app_ix, listener_ix));
        }
    }
}

/// The workers that accept from a socket; `None` where there is no group.
fn takers_of(cx: &Context<impl System>, (app, listener, socket): QueueIx) -> Option<&[WorkerIx]> {
    let listener = cx.apps.get(app)?.listeners.get(listener)?;
    Some(listener.reuseport.as_ref()?.selection.takers(socket))
}

/// Whether a worker that has not read its ping for this time is stuck, rather than short of CPU.
fn is_stuck(cx: &mut Context<impl System>, ix: WorkerIx, unread_us: u64) -> bool {
    let now_us = cx.now_us;
    let Some(worker) = cx.workers.get_mut(ix) else { return false };
    let waited_us = worker.pid.and_then(|pid| cx.system.cpu_wait_us(pid)).unwrap_or(0);
    let (since_us, before_us) = *worker.liveness.unread_since.get_or_insert((now_us, waited_us));
    let starved = waited_us.saturating_sub(before_us) * 2 > now_us.saturating_sub(since_us);
    unread_us >= if starved { STARVED_US } else { STUCK_US }
}

/// Hands the worker no connections of others until it has read its ping.
fn set_suspect(cx: &mut Context<impl System>, ix: WorkerIx) {
    if let Some(worker) = cx.workers.get_mut(ix) {
        worker.liveness.suspect = true;
    }
    eligibility::refresh(cx, ix);
}

/// What waits for this worker alone.
fn own_queue(cx: &Context<impl System>, ix: WorkerIx, id: WorkerId) -> OwnQueue {
    let emptying = |w: &&Worker<_>| w.id == id && w.drain == Some(Drain::EmptyingQueue);
    let Some(worker) = cx.workers.get(ix).filter(emptying) else { return OwnQueue::None };
    let app = &cx.apps[worker.app];
    let mut found = OwnQueue::None;
    for listener in worker.serves.iter().filter_map(|listener| app.listeners.get(*listener)) {
        let Some(group) = &listener.reuseport else { continue };
        let socket = group.selection.socket_of(worker.socket_number);
        if !group.selection.takers(socket).is_empty() {
            // Where slots share sockets, another worker has it too.
            continue;
        }
        // A connection of our own is nobody's request.
        let ours = worker.probed.is_some() && worker.probed == cx.system.inode(listener.socket(socket));
        let waiting = cx.system.accept_queue(listener.socket(socket)).waiting;
        if group.selection.is_changed() || waiting > u32::from(ours) {
            return OwnQueue::Waits;
        }
        found = OwnQueue::Empty;
    }
    found
}
