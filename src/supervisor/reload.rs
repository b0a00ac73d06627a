//! Rolling reload and roll-back. In each slot the new worker starts beside the old one, and the old one drains only
//! once the new one is ready, so the number of ready workers never falls. One reload at a time per app.
//!
//! What runs before the workers of a generation (`before`) comes first, then the agent, alone: the old one ends, the new one starts, and the workers follow once it is ready. If
//! it fails, no worker was touched.
//!
//! The next slot waits briefly for the old worker to exit. If that worker had clients, it waits for `settle_ms`: the
//! clients reconnect to a worker with cold code, and starting another process now would make them wait for the CPU as
//! well.
use super::app::{App, Cx, Role};
use super::slot::SlotPhase;
use super::spares::with_spares;
use super::timers::TimerKey;
use super::worker::{Phase, Worker};
use super::{Action, CanaryWorse, Policy, Report};
use crate::ids::{Generation, Slot, WorkerId};
use std::collections::{BTreeSet, VecDeque};

/// Longest wait of a reload for an old worker without clients to exit, before it starts the next new one, in
/// milliseconds.
pub const RELOAD_GONE_MS_MAX: u64 = 150;

/// A requested reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Queued {
    pub(super) to: Generation,
    pub(super) policy: Policy,
    /// Without those of spares.
    pub(super) slots: u32,
}

/// A reload under way. When it fails it rolls back: `target` becomes `from`, and replaced slots are replaced again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reload {
    pub(super) from: Generation,
    pub(super) to: Generation,
    /// The number of slots after the reload, without those of spares.
    pub(super) slots: u32,
    /// Slots that still have to be replaced.
    pub(super) pending: VecDeque<u32>,
    /// Slots whose new worker is starting.
    pub(super) starting: Vec<u32>,
    /// Slots that were replaced.
    pub(super) done: Vec<u32>,
    /// Why it failed, if it did.
    pub(super) failed: Option<String>,
    /// Until when the first new worker is watched (absolute milliseconds); set until it was judged.
    pub(super) canary_until_ms: Option<u64>,
    /// Slots that were replaced a moment ago. Not saved: under a new master that moment is over.
    pub(super) settling: Vec<Settling>,
}

/// A slot that delays the next one. Times are absolute milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settling {
    /// The worker that left the slot.
    old: WorkerId,
    since_ms: u64,
    /// The latest time to wait for the old worker's exit.
    until_gone_ms: u64,
    /// The old worker had clients: wait until then even if it is gone.
    until_ms: u64,
}

impl Settling {
    fn new(old: WorkerId, now_ms: u64) -> Settling {
        Settling { old, since_ms: now_ms, until_gone_ms: now_ms + RELOAD_GONE_MS_MAX, until_ms: now_ms }
    }

    fn ends_ms(&self, gone: bool) -> u64 {
        if gone { self.until_ms } else { self.until_ms.max(self.until_gone_ms) }
    }
}

impl Reload {
    /// Whether no slot has been replaced yet, before any roll-back.
    fn is_first(&self) -> bool {
        self.failed.is_none() && self.done.is_empty()
    }

    pub(super) fn target(&self) -> Generation {
        if self.failed.is_some() { self.from } else { self.to }
    }
}

impl App {
    /// The generations that still have a worker or may get one.
    pub fn generations(&self) -> BTreeSet<Generation> {
        let mut all = self.coming_generations();
        all.extend(self.workers.values().map(|w| w.generation));
        let beside = [self.workers.agent(), self.workers.before()];
        all.extend(beside.into_iter().flatten().map(|process| process.generation));
        all
    }

    /// The generations of the slots and those that they may get: without those that only leaving workers have.
    pub fn coming_generations(&self) -> BTreeSet<Generation> {
        let mut all: BTreeSet<Generation> = self.slots.iter().map(|s| s.generation).collect();
        all.insert(self.generation);
        all.extend(self.reload.iter().flat_map(|r| [r.from, r.to]));
        all.extend(self.queued.iter().chain(&self.then_start).map(|q| q.to));
        all
    }

    pub(super) fn ask_reload(&mut self, cx: &mut Cx<'_>, asked: Queued) {
        if self.stopping.is_some() {
            cx.report(Report::ReloadFailed { to: asked.to, reason: "the app is stopping".to_owned() });
        } else if self.reload.is_some() {
            let by = asked.to;
            if let Some(earlier) = self.queued.replace(asked) {
                cx.report(Report::ReloadSuperseded { to: earlier.to, by });
            }
        } else {
            self.begin_reload(cx, asked);
        }
    }

    fn begin_reload(&mut self, cx: &mut Cx<'_>, asked: Queued) {
        let Queued { to, policy, slots } = asked;
        self.policies.insert(to, policy);
        self.abandon_replacements(cx);
        self.reset_agent_backoff();
        self.reset_before_backoff();
        self.reported_end = false;
        let pending = self.order_of_replacement(with_spares(slots, self.policy(to)));
        let from = self.generation;
        self.reload = Some(Reload {
            from,
            to,
            slots,
            pending,
            starting: Vec::new(),
            done: Vec::new(),
            failed: None,
            canary_until_ms: None,
            settling: Vec::new(),
        });
        cx.report(Report::ReloadStarted { to });
        if self.held == Some(to) {
            cx.report(Report::Held { generation: to });
        }
        self.step_reload(cx);
    }

    /// Starts as many new workers as the surge allows; ends the reload when none is left to start. Waits until those of
    /// the new generation may start.
    pub(super) fn step_reload(&mut self, cx: &mut Cx<'_>) {
        loop {
            let Some(reload) = &self.reload else { return };
            if reload.pending.is_empty() {
                break;
            }
            let (target, to, returns) = (reload.target(), reload.to, reload.failed.is_some());
            if returns && self.is_held_up(target) {
                // Nothing of the generation before ever ran: the slots stay as they are.
                return self.end_roll_back(cx);
            }
            if !self.may_start(target) {
                return;
            }
            let busy = (reload.starting.len() + reload.settling.len()) as u32;
            let alone = self.policy(to).canary_ms > 0 && self.reload.as_ref().is_some_and(Reload::is_first);
            let surge = if alone { 1 } else { self.policy(to).surge.max(1) };
            if busy >= surge || self.must_vacate_first(cx, target) {
                return;
            }
            let Some(reload) = &mut self.reload else { return };
            let Some(index) = reload.pending.pop_front() else { break };
            if index as usize >= self.slots.len() {
                continue;
            }
            reload.starting.push(index);
            self.start_incoming(cx, index, target);
        }
        self.settle_reload(cx);
    }

    fn start_incoming(&mut self, cx: &mut Cx<'_>, index: u32, generation: Generation) {
        let worker = self.spawn(cx, index, generation);
        let waiting = matches!(self.slots[index as usize].phase, SlotPhase::Waiting { .. });
        if waiting {
            // The new generation takes the place of the planned restart.
            self.set_slot_phase(index, SlotPhase::Filled);
        }
        if let Some(slot) = self.slot_mut(index) {
            slot.incoming = Some(worker);
        }
    }

    /// The new worker of a slot is ready: it takes the slot, or is watched for a while if it is the first.
    pub(super) fn incoming_serves(&mut self, cx: &mut Cx<'_>, index: u32, worker: WorkerId) {
        let Some(reload) = &self.reload else { return self.incoming_ready(cx, index, worker) };
        let canary_ms = self.policy(reload.to).canary_ms;
        if canary_ms == 0 || !reload.is_first() {
            return self.incoming_ready(cx, index, worker);
        }
        self.watch_canary(cx, worker, canary_ms);
        cx.report(Report::CanaryWatched { worker, slot: Slot(index), for_ms: canary_ms });
    }

    fn watch_canary(&mut self, cx: &mut Cx<'_>, worker: WorkerId, canary_ms: u64) {
        let until_ms = cx.now_ms + canary_ms;
        if let Some(reload) = &mut self.reload {
            reload.canary_until_ms = Some(until_ms);
        }
        self.timers.set(TimerKey::Canary, Some(until_ms));
        cx.act(Action::WatchCanary { worker });
    }

    /// The canary time is over and the worker lives: it is judged.
    pub(super) fn end_canary(&mut self, cx: &mut Cx<'_>) {
        let index = self.reload.as_ref().and_then(|reload| reload.starting.first().copied());
        let incoming = index.and_then(|index| self.slots.get(index as usize)?.incoming);
        if let Some(worker) = incoming.filter(|id| self.is_ready(*id)) {
            cx.act(Action::JudgeCanary { worker });
        } else if let Some(reload) = &mut self.reload {
            reload.canary_until_ms = None;
        }
    }

    /// The canary takes the slot, or leaves it where it was worse than the old workers.
    pub(super) fn on_canary_judged(&mut self, cx: &mut Cx<'_>, worker: WorkerId, worse: Option<CanaryWorse>) {
        let Role::Incoming(index) = self.role(worker) else { return };
        let until_ms = self.reload.as_mut().and_then(|reload| reload.canary_until_ms.take());
        if until_ms.is_none() || !self.is_ready(worker) {
            return;
        }
        self.timers.set(TimerKey::Canary, None);
        match worse {
            None => self.incoming_ready(cx, index, worker),
            Some(worse) => {
                // It has connections, so it is drained.
                self.retire(cx, worker);
                self.incoming_failed(cx, index, worse.to_string());
            }
        }
    }

    fn is_ready(&self, worker: WorkerId) -> bool {
        self.workers.get(&worker).is_some_and(|w| matches!(w.phase, Phase::Ready { .. }))
    }

    /// A ready worker that another master left beside the old one takes the slot now. A canary is watched for its whole
    /// time again: what the other master had measured died with it, and nothing of the release may pass unseen.
    pub(super) fn rejoin_incoming(&mut self, cx: &mut Cx<'_>, worker: WorkerId) {
        let Role::Incoming(index) = self.role(worker) else { return };
        match self.reload.as_ref().filter(|r| r.canary_until_ms.is_some()).map(|r| r.to) {
            Some(to) => self.watch_canary(cx, worker, self.policy(to).canary_ms),
            None => self.incoming_ready(cx, index, worker),
        }
    }

    /// The new worker of a slot has proved itself: it takes the slot, and the old one drains.
    pub(super) fn incoming_ready(&mut self, cx: &mut Cx<'_>, index: u32, worker: WorkerId) {
        let Some(generation) = self.workers.get(&worker).map(|w| w.generation) else { return };
        self.set_slot_phase(index, SlotPhase::Filled);
        let Some(slot) = self.slot_mut(index) else { return };
        slot.generation = generation;
        slot.proven = true;
        slot.incoming = None;
        slot.clear_failures();
        slot.death = None;
        let old = slot.current.replace(worker);
        if let Some(old) = old {
            self.retire(cx, old);
            self.spread_drain(cx, index, old);
        }
        if let Some(reload) = &mut self.reload {
            reload.starting.retain(|&i| i != index);
            reload.done.push(index);
            if reload.failed.is_none() {
                reload.settling.extend(old.map(|old| Settling::new(old, cx.now_ms)));
            }
        }
        self.settle(cx);
    }

    /// The old worker of a slot had clients: the new one gets time before the next slot follows.
    pub(super) fn on_clients(&mut self, cx: &mut Cx<'_>, worker: WorkerId) {
        let Some(reload) = &self.reload else { return };
        let settle_ms = self.policy(reload.target()).settle_ms;
        let Some(reload) = &mut self.reload else { return };
        if let Some(settling) = reload.settling.iter_mut().find(|settling| settling.old == worker) {
            settling.until_ms = settling.since_ms.saturating_add(settle_ms);
            self.settle(cx);
        }
    }

    /// Slots that have settled no longer delay the next one.
    pub(super) fn settle(&mut self, cx: &mut Cx<'_>) {
        let Some(reload) = &mut self.reload else { return };
        let ends_ms = |settling: &Settling| settling.ends_ms(self.workers.get(&settling.old).is_none());
        reload.settling.retain(|settling| ends_ms(settling) > cx.now_ms);
        let until_ms = reload.settling.iter().map(ends_ms).min();
        self.timers.set(TimerKey::Settling, until_ms);
        self.step_reload(cx);
    }

    /// With `drain_spread` the old workers get different deadlines, so that their last clients do not all reconnect at
    /// once.
    fn spread_drain(&mut self, cx: &Cx<'_>, index: u32, old: WorkerId) {
        let Some(w) = self.workers.get(&old) else { return };
        let (Phase::Draining { deadline_ms }, spread_ms) = (w.phase, self.policy(w.generation).drain_spread_ms) else {
            return;
        };
        let share = spread_ms.saturating_mul(u64::from(index)) / (self.slots.len() as u64).max(1);
        let deadline_ms = deadline_ms.max(cx.now_ms).saturating_add(share);
        self.set_phase(old, Phase::Draining { deadline_ms });
    }

    /// The new worker of a slot failed: roll back, or (during a roll-back) leave the slot as it is.
    pub(super) fn incoming_failed(&mut self, cx: &mut Cx<'_>, index: u32, reason: String) {
        if let Some(slot) = self.slot_mut(index) {
            slot.incoming = None;
        }
        self.timers.set(TimerKey::Canary, None);
        let Some(reload) = &mut self.reload else { return self.replacement_failed(cx, index) };
        reload.canary_until_ms = None;
        reload.starting.retain(|&i| i != index);
        let others = self.begin_roll_back(cx, reason);
        self.refill_emptied(cx, index);
        for other in others {
            self.refill_emptied(cx, other);
        }
        self.step_reload(cx);
    }

    /// The agent of the new generation, or the command before it, failed before any worker was touched.
    pub(super) fn fail_reload(&mut self, cx: &mut Cx<'_>, reason: String) {
        self.begin_roll_back(cx, reason);
        self.reset_agent_backoff();
        self.step_reload(cx);
    }

    /// There is no agent for the generation that the roll-back returns to, or its command never ended well: the slots stay as they
    /// are.
    pub(super) fn end_roll_back(&mut self, cx: &mut Cx<'_>) {
        if let Some(reload) = &mut self.reload {
            reload.pending.clear();
        }
        self.settle_reload(cx);
    }

    /// Begins the roll-back, unless it has begun: starting workers end, replaced slots are replaced again. Returns the
    /// slots that were starting.
    fn begin_roll_back(&mut self, cx: &mut Cx<'_>, reason: String) -> Vec<u32> {
        let Some(reload) = self.reload.as_mut().filter(|reload| reload.failed.is_none()) else { return Vec::new() };
        reload.failed = Some(reason);
        let others = std::mem::take(&mut reload.starting);
        reload.settling.clear();
        reload.pending = std::mem::take(&mut reload.done).into();
        for &other in &others {
            let incoming = self.slot_mut(other).and_then(|s| s.incoming.take());
            if let Some(worker) = incoming {
                self.retire(cx, worker);
            }
        }
        others
    }

    /// Fills a slot whose old worker died while the new one was starting, from the current generation.
    fn refill_emptied(&mut self, cx: &mut Cx<'_>, index: u32) {
        let empty = self
            .slots
            .get(index as usize)
            .is_some_and(|s| s.phase == SlotPhase::Filled && s.current.is_none() && s.incoming.is_none());
        if empty && self.stopping.is_none() {
            self.fill(cx, index);
        }
    }

    /// Ends the reload once every worker of the other generations is gone.
    fn settle_reload(&mut self, cx: &mut Cx<'_>) {
        let Some(reload) = &self.reload else { return };
        if !reload.pending.is_empty() || !reload.starting.is_empty() {
            return;
        }
        let left_out = self.left_out(reload);
        if !left_out.is_empty() {
            if let Some(reload) = &mut self.reload {
                reload.pending.extend(left_out);
            }
            return self.step_reload(cx);
        }
        let (to, slots) = (reload.to, reload.slots);
        self.generation = reload.target();
        let target = self.generation;
        let settled = self.workers.values().all(|w| w.generation == target || self.is_current(w.id));
        if !settled {
            return;
        }
        let failed = self.reload.take().and_then(|r| r.failed);
        match failed {
            Some(reason) => cx.report(Report::ReloadFailed { to, reason }),
            None => {
                let scale = self.queued_scale.take().unwrap_or(slots);
                if scale != self.wanted || with_spares(scale, self.policy(target)) != self.slots.len() as u32 {
                    self.ask_scale(cx, scale);
                }
                cx.report(Report::ReloadDone { to });
            }
        }
        if let Some(scale) = self.queued_scale.take() {
            self.ask_scale(cx, scale);
        }
        let wanted = self.generations();
        self.policies.retain(|generation, _| wanted.contains(generation));
        if let Some(next) = self.queued.take() {
            self.begin_reload(cx, next);
        }
    }

    /// Slots that the reload was to remove, and so did not replace, but that a later scale keeps.
    fn left_out(&self, reload: &Reload) -> Vec<u32> {
        let Some(slots) = self.queued_scale.filter(|_| reload.failed.is_none()) else { return Vec::new() };
        let kept = self.slots.iter().take(with_spares(slots, self.policy(reload.to)) as usize).enumerate();
        kept.filter(|(_, slot)| slot.generation != reload.to).map(|(index, _)| index as u32).collect()
    }

    fn is_current(&self, worker: WorkerId) -> bool {
        self.workers.get(&worker).is_some_and(|w| {
            !matches!(w.phase, Phase::Draining { .. } | Phase::Stopping { .. } | Phase::Killed)
                && self.slots.get(w.slot.0 as usize).is_some_and(|s| s.current == Some(worker))
        })
    }

    /// Continues a reload of a previous master: a slot whose new worker was lost is replaced again.
    pub(super) fn resume_reload(&mut self, cx: &mut Cx<'_>) {
        let Some(reload) = &mut self.reload else { return };
        let slots = &self.slots;
        let (starting, lost): (Vec<u32>, Vec<u32>) = std::mem::take(&mut reload.starting)
            .into_iter()
            .partition(|&i| slots.get(i as usize).is_some_and(|s| s.incoming.is_some()));
        reload.starting = starting;
        for index in lost {
            reload.pending.push_front(index);
        }
        self.step_reload(cx);
    }

    /// A process is gone: the reload may have waited for it.
    pub(super) fn after_removal(&mut self, cx: &mut Cx<'_>) {
        if self.reload.is_some() {
            return self.settle(cx);
        }
        for index in 0..self.slots.len() as u32 {
            self.refill_vacated(cx, index);
        }
    }

    /// Without overlap the old worker of the next slot ends first. Returns whether it is still there.
    fn must_vacate_first(&mut self, cx: &mut Cx<'_>, target: Generation) -> bool {
        let Some(&index) = self.reload.as_ref().and_then(|reload| reload.pending.front()) else { return false };
        if self.policy(target).overlap {
            return false;
        }
        if let Some(old) = self.slots.get(index as usize).and_then(|slot| slot.current) {
            self.detach(index, old);
            self.retire(cx, old);
        }
        self.must_wait_for_old(index, target)
    }

    /// Whether a worker that leaves this slot has to end before the next one starts.
    pub(super) fn must_wait_for_old(&self, index: u32, generation: Generation) -> bool {
        let leaves = |w: &Worker| w.slot == Slot(index) && w.phase.is_leaving();
        !self.policy(generation).overlap && self.workers.values().any(leaves)
    }

    /// Fills a slot that was waiting for its old worker's end.
    fn refill_vacated(&mut self, cx: &mut Cx<'_>, index: u32) {
        let Some(slot) = self.slots.get(index as usize) else { return };
        let is_empty = slot.phase == SlotPhase::Filled && slot.current.is_none() && slot.incoming.is_none();
        if is_empty && self.stopping.is_none() && !self.policy(slot.generation).overlap {
            self.fill(cx, index);
        }
    }

    /// The app stops: reports the end of the reload to whoever waits.
    pub(super) fn abandon_reload(&mut self, cx: &mut Cx<'_>) {
        self.timers.set(TimerKey::Canary, None);
        self.timers.set(TimerKey::Settling, None);
        let waiting = self.reload.take().map(|r| r.to).into_iter().chain(self.queued.take().map(|q| q.to));
        for to in waiting {
            cx.report(Report::ReloadFailed { to, reason: "the app was stopped".to_owned() });
        }
        self.queued_scale = None;
    }
}
