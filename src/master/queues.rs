//! Balance `kernel`: what waits in the sockets of slots. Workers take connections by themselves; the master looks after
//! those that nobody takes: behind a worker that is stuck, dead or leaving it accepts them itself and hands them to
//! another. Other programs than Node cannot be given connections: there they wait for the slot's next worker.
//!
//! At rest the next connection to any slot wakes the master; from then on it looks every `LOOK_EVERY_MS` until nothing
//! waits any more. How many connections come in between costs nothing.
use super::drains::Drain;
use super::handoff::Accepted;
use super::polls::QueueIx;
use super::tasks::Task;
use super::worker::Worker;
use super::{Master, checkpoint};
use crate::ids::{AppIx, ListenerIx, WorkerId, WorkerIx};
use crate::limits;
use crate::os::{listen, process, procfs, reuseport};
use crate::supervisor::SlotPhase;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// Pause between two looks at the accept queues while connections come, in milliseconds.
const LOOK_EVERY_MS: u64 = 10;
/// First look after a rest: by then a healthy worker has taken what came, in milliseconds.
const FIRST_LOOK_MS: u64 = 2;
/// Pause between two looks while the master rescues connections, in milliseconds.
const RESCUE_EVERY_MS: u64 = 1;
/// Such looks in a row in which no connection could be rescued.
const RESCUE_ATTEMPTS_MAX: u32 = 20;
/// Longest pause between two looks while connections wait for which nothing can be done, in milliseconds.
const LOOK_EVERY_MAX_MS: u64 = 100;
/// Looks in a row that found nothing, after which the next connection wakes the master again.
const QUIET_LOOKS_MAX: u32 = 2;
/// Workers that are pinged at one look because connections wait for them.
const PINGS_PER_LOOK_MAX: usize = 32;
/// A Node worker for which connections wait and that has not read a ping for this time gets none until it has, in
/// microseconds.
const STUCK_US: u64 = 20_000;
/// The same for a worker that has spent most of this time waiting for a CPU: others would not have had one either.
pub(super) const STARVED_US: u64 = 100_000;
/// A Node worker for which connections have waited for this time is checked for whether it still holds the socket, in
/// milliseconds.
const UNTAKEN_MS: u64 = 250;
/// A worker without a channel for whose slot connections have waited for this time gets none until it has taken them, in
/// milliseconds.
const STALLED_MS: u64 = 50;
/// A worker that accepts by itself is told to end when its queue was empty for this time, in milliseconds.
const EMPTY_MS: u64 = 50;
/// Longest wait for that, in milliseconds.
const EMPTY_MAX_MS: u64 = 2_000;
/// Connections that wait for a slot which will have no worker again are closed after this, in milliseconds.
const STRANDED_MS: u64 = 1_000;

/// What is known of the slots' sockets.
#[derive(Default)]
pub(super) struct Watch {
    /// Sockets in which something waited at the last look.
    busy: BTreeMap<QueueIx, Busy>,
    news: Vec<QueueIx>,
    /// The next look; `None` while nothing happens.
    next_look_ms: Option<u64>,
    every_ms: u64,
    /// Looks in a row that found nothing.
    quiet: u32,
    /// Something waits for anybody at all who can take it.
    for_anyone: bool,
    /// Looks in a row that could hand nothing on, while others had yet to take what they were given.
    hurries: u32,
    /// Where pinging goes on.
    pinged_last: Option<QueueIx>,
    /// Workers that were pinged at the last look.
    pinged: Vec<WorkerIx>,
    /// Those of them that have read it since.
    well: Vec<WorkerIx>,
    /// Workers that are to end once nothing waits for them.
    leaving: Vec<Leaving>,
}

struct Busy {
    since_ms: u64,
    /// Connections that waited at the last look.
    waited: u32,
    /// Workers that get nothing new until they have taken what waits.
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

/// What a look at one socket came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// Nothing waits.
    Empty,
    /// Something waits, and nobody takes connections from there.
    Nobodys,
    /// The master hands on what waits.
    Moves,
    /// Something waits, and something is being done about it.
    Waits,
    /// Something waits, and nobody can do anything.
    Stuck,
}

/// What waits for a worker that is to leave, and for no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OwnQueue {
    /// It has none of its own (any more).
    None,
    Empty,
    Waits,
}

impl Watch {
    /// Looks at this socket from now on, until it is empty.
    pub(super) fn add(&mut self, queue: QueueIx, now_ms: u64) {
        self.busy.entry(queue).or_insert(Busy {
            since_ms: now_ms,
            waited: 0,
            stalled: Vec::new(),
            holders: Vec::new(),
        });
    }

    /// Something changed: the next look is in this turn of the loop.
    pub(super) fn look_soon(&mut self, now_ms: u64) {
        self.next_look_ms = Some(now_ms);
    }

    /// When [`Master::look_at_queues`] is due.
    pub(super) fn next_look_ms(&self) -> Option<u64> {
        self.next_look_ms
    }
}

impl Master {
    /// Something changed: looks in this turn of the loop.
    pub(super) fn look_at_queues_soon(&mut self) {
        self.watch.look_soon(self.cx.now_ms);
    }

    /// A worker can take connections again.
    pub(super) fn look_for_someone(&mut self) {
        if self.watch.for_anyone {
            self.look_at_queues_soon();
        }
    }

    /// After a rest, something came. Most of it is taken within moments.
    pub(super) fn queues_woke(&mut self) {
        self.cx.reactor.wake_for_queues(false);
        self.watch.next_look_ms = Some(self.cx.now_ms + FIRST_LOOK_MS);
        self.take_news();
        let news = std::mem::take(&mut self.watch.news);
        for &queue in &news {
            if self.takers(queue).is_none_or(<[WorkerIx]>::is_empty) {
                self.look_at_queues_soon();
            }
            self.watch.add(queue, self.cx.now_ms);
        }
    }

    fn take_news(&mut self) -> bool {
        let mut news = std::mem::take(&mut self.watch.news);
        news.clear();
        if let Err(e) = self.cx.reactor.take_queues(&mut news) {
            log::error!("cannot look at the queues of slots: {e}");
        }
        let some = !news.is_empty();
        self.watch.news = news;
        some
    }

    /// One look: who waits for whom, and what can be done about it. Says when the next one is due.
    pub(super) fn look_at_queues(&mut self) {
        if self.watch.next_look_ms.is_none_or(|at| at > self.cx.now_ms) {
            return;
        }
        if self.upgrade.is_handing_over() {
            // The next master looks at them all.
            self.watch.next_look_ms = None;
            return;
        }
        self.look_at_queue_pings();
        let mut going_on = self.take_news();
        let mut moves = false;
        let news = std::mem::take(&mut self.watch.news);
        for &queue in &news {
            self.watch.add(queue, self.cx.now_ms);
        }
        self.watch.news = news;
        let mut pings = PINGS_PER_LOOK_MAX;
        let after = self.watch.pinged_last.map_or(Bound::Unbounded, Bound::Excluded);
        let upto = self.watch.pinged_last.map_or(Bound::Unbounded, Bound::Included);
        let later = self.watch.busy.range((after, Bound::Unbounded)).map(|(queue, _)| *queue);
        let mut round: Vec<QueueIx> = later.collect();
        if self.watch.pinged_last.is_some() {
            round.extend(self.watch.busy.range((Bound::Unbounded, upto)).map(|(queue, _)| *queue));
        }
        // First who is well and who is not, then who gets what.
        let mut nobodys = Vec::new();
        let listeners: BTreeSet<(AppIx, ListenerIx)> =
            round.iter().map(|&(app, listener, _)| (app, listener)).collect();
        for queue in round {
            match self.look_at(queue, &mut pings) {
                Seen::Empty => self.no_longer_busy(queue),
                Seen::Nobodys => nobodys.push(queue),
                Seen::Moves => moves = true,
                Seen::Waits => going_on = true,
                Seen::Stuck => {}
            }
        }
        self.even_out(&listeners);
        self.watch.for_anyone = false;
        for queue in nobodys {
            match self.rescue(queue) {
                Seen::Empty => self.no_longer_busy(queue),
                Seen::Moves => moves = true,
                Seen::Waits | Seen::Nobodys => going_on = true,
                Seen::Stuck => self.watch.for_anyone = true,
            }
        }
        going_on |= self.look_at_leaving();
        self.plan_next_look(going_on, moves);
    }

    /// Those of a listener's workers that are behind get less, those that are not get more.
    fn even_out(&mut self, listeners: &BTreeSet<(AppIx, ListenerIx)>) {
        for &(app, listener) in listeners {
            let busy = self.watch.busy.range((app, listener, 0)..=(app, listener, u32::MAX));
            let waiting: Vec<(u32, u32)> = busy.map(|(&(_, _, socket), busy)| (socket, busy.waited)).collect();
            if let Some(listener) = self.cx.apps.get_mut(app).and_then(|app| app.listeners.get_mut(listener))
                && let Some(group) = &mut listener.reuseport
            {
                group.level_out(&waiting);
            }
        }
    }

    fn plan_next_look(&mut self, going_on: bool, moves: bool) {
        let watch = &mut self.watch;
        if watch.busy.is_empty() && watch.leaving.is_empty() {
            watch.quiet += 1;
        } else {
            watch.quiet = 0;
        }
        watch.every_ms = if moves {
            RESCUE_EVERY_MS
        } else if going_on || watch.quiet > 0 {
            LOOK_EVERY_MS
        } else {
            (watch.every_ms * 2).clamp(LOOK_EVERY_MS, LOOK_EVERY_MAX_MS)
        };
        let rests = watch.quiet >= QUIET_LOOKS_MAX;
        watch.next_look_ms = (!rests).then_some(self.cx.now_ms + watch.every_ms);
        // While it looks rarely, news need not wait for the next look.
        self.cx.reactor.wake_for_queues(rests || watch.every_ms == LOOK_EVERY_MAX_MS);
    }

    fn takers(&self, (app, listener, socket): QueueIx) -> Option<&[WorkerIx]> {
        let listener = self.cx.apps.get(app)?.listeners.get(listener)?;
        Some(listener.reuseport.as_ref()?.selection.takers(socket))
    }

    fn look_at(&mut self, queue: QueueIx, pings: &mut usize) -> Seen {
        let (app_ix, listener_ix, socket) = queue;
        let Some(app) = self.cx.apps.get(app_ix).filter(|app| !app.closed) else { return Seen::Empty };
        let Some(listener) = app.listeners.get(listener_ix) else { return Seen::Empty };
        let Some(group) = &listener.reuseport else { return Seen::Empty };
        let waiting = reuseport::accept_queue(listener.socket(socket)).waiting;
        if waiting == 0 {
            return Seen::Empty;
        }
        let Some(busy) = self.watch.busy.get_mut(&queue) else { return Seen::Empty };
        let waited = std::mem::replace(&mut busy.waited, waiting);
        for taker in group.selection.takers(socket).to_vec() {
            self.look_for_socket(taker, queue);
        }
        let app = &self.cx.apps[app_ix];
        let Some(group) = &app.listeners[listener_ix].reuseport else { return Seen::Empty };
        let takers = group.selection.takers(socket).to_vec();
        if takers.is_empty() {
            // Under another way to balance the first socket is everybody's, and polled where the master accepts.
            return if socket > 0 || app.has_own_sockets() { Seen::Nobodys } else { Seen::Empty };
        }
        if !group.selection.has_others(socket) {
            // Nobody could take it off their hands.
            return Seen::Stuck;
        }
        // Nobody else takes from there: a worker that has taken more than came since is well, and needs no ping.
        let takes = waiting < waited && takers.len() == 1;
        for taker in takers {
            self.suspect(taker, queue, takes, pings);
        }
        let nobodys = self.takers(queue).is_some_and(<[WorkerIx]>::is_empty);
        if nobodys { Seen::Nobodys } else { Seen::Waits }
    }

    /// A Node worker that takes nothing for a while may have closed its server: it says so, but a former master may have
    /// died over its words. Nobody else would ever notice, because its event loop turns.
    fn look_for_socket(&mut self, ix: WorkerIx, queue: QueueIx) {
        let (app_ix, listener_ix, _) = queue;
        let Some(worker) = self.cx.workers.get(ix) else { return };
        let Some(busy) = self.watch.busy.get_mut(&queue) else { return };
        let waited_ms = self.cx.now_ms.saturating_sub(busy.since_ms);
        if waited_ms < UNTAKEN_MS || busy.holders.contains(&worker.id) {
            return;
        }
        // What it has not read may be the socket.
        if !worker.channel.as_ref().is_some_and(|channel| !channel.closed && channel.all_read()) {
            return;
        }
        let listener = &self.cx.apps[app_ix].listeners[listener_ix];
        let Some(held) = worker.pid.and_then(procfs::socket_inodes) else { return };
        let ours = |fd| process::file_identity(fd).is_ok_and(|(_, inode)| held.contains(&inode));
        if listener.sockets().any(ours) {
            busy.holders.push(worker.id);
            return;
        }
        log::warn!(
            "{}: worker {} has closed its server on {listener} without a word to this master",
            self.cx.apps[app_ix].name,
            worker.id
        );
        let key = listener.key.clone();
        self.on_close(ix, &key);
        checkpoint::save_serves(&mut self.cx, ix);
    }

    /// Connections wait for this worker. A Node worker has to take them or to read a ping; any other has to take them.
    fn suspect(&mut self, ix: WorkerIx, queue: QueueIx, takes: bool, pings: &mut usize) {
        let Some(worker) = self.cx.workers.get(ix) else { return };
        let (id, pinged_us) = (worker.id, worker.liveness.pinged_us);
        let stuck = match (worker.channel.is_some(), pinged_us) {
            (true, None) => {
                if !takes && *pings > 0 {
                    *pings -= 1;
                    self.watch.pinged_last = Some(queue);
                    self.liveness.ping(&mut self.cx, ix);
                    self.watch.pinged.push(ix);
                    if !self.watch.well.contains(&ix) {
                        self.set_suspect(ix);
                    }
                }
                false
            }
            (true, Some(at_us)) => {
                let waits = self.waits_for_ping(ix);
                if waits {
                    self.set_suspect(ix);
                }
                waits && self.stands_still(ix, self.cx.now_us.saturating_sub(at_us))
            }
            (false, _) => {
                let Some(busy) = self.watch.busy.get_mut(&queue) else { return };
                let stalled = self.cx.now_ms.saturating_sub(busy.since_ms) >= STALLED_MS;
                if stalled {
                    busy.stalled.push((ix, id));
                }
                stalled
            }
        };
        if stuck && let Some(worker) = self.cx.workers.get_mut(ix) {
            worker.liveness.stuck = true;
            self.refresh_eligibility(ix);
        }
    }

    /// Whether a worker that has not read its ping for this time is stuck, and not only in want of a CPU.
    fn stands_still(&mut self, ix: WorkerIx, unread_us: u64) -> bool {
        let now_us = self.cx.now_us;
        let Some(worker) = self.cx.workers.get_mut(ix) else { return false };
        let waited_us = worker.pid.and_then(procfs::cpu_wait_us).unwrap_or(0);
        let (since_us, before_us) = *worker.liveness.unread_since.get_or_insert((now_us, waited_us));
        let starved = waited_us.saturating_sub(before_us) * 2 > now_us.saturating_sub(since_us);
        unread_us >= if starved { STARVED_US } else { STUCK_US }
    }

    /// Who has read the ping of the last look is well. Who has not is watched until it has.
    pub(super) fn look_at_queue_pings(&mut self) {
        self.watch.well.clear();
        let mut pinged = std::mem::take(&mut self.watch.pinged);
        for ix in pinged.drain(..) {
            if self.waits_for_ping(ix) {
                self.liveness.watch(&mut self.cx, ix);
            } else {
                self.watch.well.push(ix);
            }
        }
        self.watch.pinged = pinged;
    }

    /// Until it has read its ping it is handed none of others' connections.
    fn set_suspect(&mut self, ix: WorkerIx) {
        if let Some(worker) = self.cx.workers.get_mut(ix) {
            worker.liveness.suspect = true;
        }
        self.refresh_eligibility(ix);
    }

    /// Nothing waits there: who got nothing new because of it does again.
    fn no_longer_busy(&mut self, queue: QueueIx) {
        let Some(busy) = self.watch.busy.remove(&queue) else { return };
        for (ix, id) in busy.stalled {
            if let Some(worker) = self.cx.workers.get_mut(ix).filter(|worker| worker.id == id) {
                worker.liveness.stuck = false;
                self.refresh_eligibility(ix);
            }
        }
    }

    /// Nobody takes connections from this socket: the master does, for others.
    fn rescue(&mut self, queue: QueueIx) -> Seen {
        let (app_ix, listener_ix, socket) = queue;
        if !self.cx.apps[app_ix].settings().protocol.can_be_handed_connections() {
            return self.wait_for_next_worker(queue);
        }
        let before = self.open_handoffs;
        let accepted = self.accept_batch(app_ix, listener_ix, socket);
        let some = self.open_handoffs > before;
        self.watch.hurries = if some { 0 } else { self.watch.hurries.saturating_add(1) };
        match accepted {
            Accepted::All => Seen::Empty,
            Accepted::Some => Seen::Moves,
            // The others have as many as they may until they answer.
            Accepted::NotNow if some || (before > 0 && self.watch.hurries < RESCUE_ATTEMPTS_MAX) => Seen::Moves,
            Accepted::NotNow if before > 0 => Seen::Waits,
            Accepted::NotNow => Seen::Stuck,
        }
    }

    /// A slot's next worker takes what waits. Where there will be none, nobody ever does: its clients are told so.
    fn wait_for_next_worker(&mut self, (app_ix, listener_ix, socket): QueueIx) -> Seen {
        let app = &self.cx.apps[app_ix];
        let listener = &app.listeners[listener_ix];
        let stalled = self.watch.busy.get(&(app_ix, listener_ix, socket)).is_some_and(|busy| !busy.stalled.is_empty());
        let since_ms = self.watch.busy.get(&(app_ix, listener_ix, socket)).map_or(self.cx.now_ms, |busy| busy.since_ms);
        let comes = app.supervisor.slots().enumerate().any(|(slot, view)| {
            let own = listener.reuseport.as_ref().is_some_and(|s| s.selection.socket_of(slot as u32) == socket);
            own && matches!(view.phase, SlotPhase::Filled | SlotPhase::Waiting { .. })
        });
        let last_one = |leaving: &Leaving| {
            let worker =
                self.cx.workers.get(leaving.ix).filter(|worker| worker.id == leaving.id && worker.app == app_ix);
            worker.is_some_and(|w| listener.reuseport.as_ref().is_some_and(|s| s.selection.socket_of(w.slot) == socket))
        };
        if stalled || comes || self.watch.leaving.iter().any(last_one) {
            if let Some(busy) = self.watch.busy.get_mut(&(app_ix, listener_ix, socket)) {
                busy.since_ms = self.cx.now_ms;
            }
            return Seen::Stuck;
        }
        if self.cx.now_ms < since_ms + STRANDED_MS {
            return Seen::Stuck;
        }
        let mut ended = 0;
        let fd = listener.socket(socket);
        // For a moment, and nobody else has it: a socket that is empty after all must not hold the master.
        if listen::set_nonblocking(fd, true).is_ok() {
            while ended < limits::ACCEPT_BATCH_MAX && listen::accept(fd).is_ok() {
                ended += 1;
            }
            if let Err(e) = listen::set_nonblocking(fd, false) {
                log::warn!("{}: cannot make {listener} blocking again: {e}", app.name);
            }
        }
        if ended > 0 {
            log::warn!(
                "{}: closed {ended} {} on {listener} that waited for slot {socket}, which has no worker any more",
                app.name,
                super::narration::plural(ended as u32, "connection")
            );
        }
        Seen::Waits
    }

    // ---- workers that are to leave ----

    /// A worker that accepts by itself ends when nothing waits for it any more: nobody else could take that.
    pub(super) fn await_empty_queue(&mut self, ix: WorkerIx) {
        let Some(worker) = self.cx.workers.get(ix) else { return };
        let now_ms = self.cx.now_ms;
        self.watch.leaving.push(Leaving { ix, id: worker.id, since_ms: now_ms, empty_since_ms: now_ms });
        self.look_at_queues_soon();
    }

    /// Whether anybody is still waited for.
    fn look_at_leaving(&mut self) -> bool {
        let mut leaving = std::mem::take(&mut self.watch.leaving);
        let now_ms = self.cx.now_ms;
        leaving.retain_mut(|leaving| {
            let done = match self.own_queue(leaving.ix, leaving.id) {
                OwnQueue::None => true,
                OwnQueue::Waits => {
                    leaving.empty_since_ms = now_ms;
                    now_ms >= leaving.since_ms + EMPTY_MAX_MS
                }
                // What is on its way to it comes within moments, if at all.
                OwnQueue::Empty => now_ms >= leaving.empty_since_ms + EMPTY_MS,
            };
            if done && self.cx.workers.get(leaving.ix).is_some_and(|worker| worker.id == leaving.id) {
                self.cx.tasks.push_back(Task::DrainStep(leaving.ix));
            }
            !done
        });
        let any = !leaving.is_empty();
        self.watch.leaving = leaving;
        any
    }

    /// What waits for this worker alone.
    fn own_queue(&self, ix: WorkerIx, id: WorkerId) -> OwnQueue {
        let emptying = |w: &&Worker| w.id == id && w.drain == Some(Drain::EmptyingQueue);
        let Some(worker) = self.cx.workers.get(ix).filter(emptying) else { return OwnQueue::None };
        let app = &self.cx.apps[worker.app];
        let mut found = OwnQueue::None;
        for listener in worker.serves.iter().filter_map(|listener| app.listeners.get(*listener)) {
            let Some(group) = &listener.reuseport else { continue };
            let socket = group.selection.socket_of(worker.slot);
            if !group.selection.takers(socket).is_empty() {
                // Its successor in the slot has the same socket.
                continue;
            }
            if group.selection.is_changed() || reuseport::accept_queue(listener.socket(socket)).waiting > 0 {
                return OwnQueue::Waits;
            }
            found = OwnQueue::Empty;
        }
        found
    }
}
