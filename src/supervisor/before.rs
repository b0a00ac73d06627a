//! The command that runs once before the workers of a generation start (`before`): a migration, a build. Its process has a slot of
//! its own, as the agent's has, and is started before the agent.
//!
//! While it runs, the old workers serve, and one of them that dies is replaced. When it has ended well, the agent and the workers of
//! its generation may start. When it fails, no worker was touched: a reload has failed, and a start tries it again as it would a
//! worker. The intended state of the slot is computed after every step ([`App::reconcile_before`]), so a stop, a later reload and a
//! restored master need no special cases: a new master finds the process running, or its exit, and never runs a command again that
//! has ended well.
use super::app::{App, Cx};
use super::slot::{Death, SlotPhase, SlotState, died};
use super::worker::{Worker, WorkerView};
use super::{Cause, Next, Report};
use crate::ids::{Generation, Slot, WorkerId};
use std::collections::BTreeSet;

/// The part of the command's configuration that the supervisor needs. Times are in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BeforePolicy {
    /// A command that has not ended by then has failed.
    pub timeout_ms: u64,
    /// SIGKILL follows SIGTERM after this.
    pub kill_timeout_ms: u64,
}

/// The slot of the command.
#[derive(Clone, Debug)]
pub(super) struct BeforeSlot {
    pub(super) slot: SlotState,
    /// The generations whose command has ended well.
    pub(super) done: BTreeSet<Generation>,
}

impl BeforeSlot {
    pub(super) fn new(generation: Generation) -> BeforeSlot {
        BeforeSlot { slot: SlotState::new(generation), done: BTreeSet::new() }
    }
}

/// The public view of the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BeforeView {
    /// The generation that it runs for, or ran for last.
    pub generation: Generation,
    /// Its process, even while that is being ended.
    pub process: Option<WorkerView>,
    /// The time of the next try (absolute milliseconds), where the last one failed.
    pub next_try_ms: Option<u64>,
    /// It has ended well.
    pub is_done: bool,
}

const INDEX: u32 = Slot::BEFORE.0;

impl App {
    /// The command before the workers; `None` where the generation that is coming, or serves, has none.
    pub fn before(&self) -> Option<BeforeView> {
        let process = self.workers.before().map(Worker::view);
        let coming = self.reload.as_ref().filter(|reload| reload.failed.is_none()).map(|reload| reload.to);
        let generation = process.map_or(coming.unwrap_or(self.generation), |process| process.generation);
        self.policy(generation).before.as_ref()?;
        let next_try_ms = match self.before.slot.phase {
            SlotPhase::Waiting { until_ms } => Some(until_ms),
            SlotPhase::Filled | SlotPhase::Errored | SlotPhase::Stopped => None,
        };
        Some(BeforeView { generation, process, next_try_ms, is_done: self.before.done.contains(&generation) })
    }

    pub(super) fn is_before(&self, id: WorkerId) -> bool {
        self.workers.before().is_some_and(|before| before.id == id)
    }

    /// Whether workers of this generation may be started.
    pub(super) fn may_start(&self, generation: Generation) -> bool {
        !self.is_held_up(generation) && self.agent_lets_start(generation)
    }

    /// Whether this generation waits for other apps, or for its command.
    pub(super) fn is_held_up(&self, generation: Generation) -> bool {
        self.held == Some(generation) || self.waits_for_before(generation)
    }

    /// Whether the command of this generation has not ended well yet.
    fn waits_for_before(&self, generation: Generation) -> bool {
        self.policy(generation).before.is_some() && !self.before.done.contains(&generation)
    }

    /// A new generation arrives: earlier failures do not count.
    pub(super) fn reset_before_backoff(&mut self) {
        self.set_slot_phase(INDEX, SlotPhase::Filled);
        self.before.slot.clear_failures();
    }

    /// The generation whose command is to run.
    fn before_wanted(&self) -> Option<Generation> {
        let generation = match &self.reload {
            _ if self.stopping.is_some() => return None,
            Some(reload) if reload.failed.is_some() => return None,
            Some(reload) => reload.to,
            None => self.generation,
        };
        let has_use = |index: u32| self.waits_to_start(index, generation);
        if self.reload.is_none() && !(0..self.slots.len() as u32).any(has_use) {
            return None;
        }
        (self.held != Some(generation) && self.waits_for_before(generation)).then_some(generation)
    }

    /// Moves the slot towards its intended state; called after every step.
    pub(super) fn reconcile_before(&mut self, cx: &mut Cx<'_>) {
        let process = self.workers.before();
        if process.is_none() && self.policies.values().all(|policy| policy.before.is_none()) {
            return;
        }
        let process = process.map(|before| (before.id, before.generation, before.phase.is_leaving()));
        let waits = matches!(self.before.slot.phase, SlotPhase::Waiting { until_ms } if until_ms > cx.now_ms);
        match (self.before_wanted(), process) {
            // The next one starts when this one is gone.
            (_, Some((.., true))) => {}
            (Some(wanted), Some((_, generation, false))) if wanted == generation => {}
            (_, Some((id, ..))) => {
                self.detach(INDEX, id);
                self.terminate(cx, id);
            }
            (None, None) => self.set_slot_phase(INDEX, SlotPhase::Filled),
            (Some(_), None) if waits => {}
            (Some(generation), None) => {
                self.set_slot_phase(INDEX, SlotPhase::Filled);
                let id = self.spawn(cx, INDEX, generation);
                self.before.slot.generation = generation;
                self.before.slot.current = Some(id);
                cx.report(Report::BeforeStarted { process: id, generation });
            }
        }
    }

    /// The command has ended well: what waited for it starts.
    pub(super) fn before_has_ended(&mut self, cx: &mut Cx<'_>, worker: WorkerId, at_ms: u64) {
        let Some(w) = self.workers.get(&worker) else { return };
        let (generation, pid, after_ms) = (w.generation, w.pid, at_ms.saturating_sub(w.spawned_at_ms));
        self.detach(INDEX, worker);
        self.forget(worker);
        self.before.slot.clear_failures();
        let known = self.generations();
        self.before.done.retain(|generation| known.contains(generation));
        self.before.done.insert(generation);
        cx.report(Report::BeforeDone { process: worker, pid, generation, after_ms });
        if self.stopping.is_some() {
            return self.report_end(cx);
        }
        self.fill_waiting(cx, generation);
        self.step_reload(cx);
    }

    /// Handles an end of the command that was not a good one.
    pub(super) fn before_failed(&mut self, cx: &mut Cx<'_>, death: Death, generation: Generation) {
        let of_reload = self.reload.as_ref().is_some_and(|r| r.failed.is_none() && r.to == generation);
        let reason = format!("before {}", death.cause);
        let is_wanted = self.before_wanted() == Some(generation);
        let next = if is_wanted && !of_reload { self.next_before(cx, &death, generation) } else { Next::None };
        cx.report(died(death, Slot::BEFORE, next));
        if of_reload {
            self.fail_reload(cx, reason);
        }
    }

    /// Plans the next try, or gives up: workers that wait for it will not start.
    fn next_before(&mut self, cx: &Cx<'_>, death: &Death, generation: Generation) -> Next {
        let hopeless = self.is_hopeless(generation, Some(death));
        let policy = self.policy(generation).clone();
        let failures = self.before.slot.count_death(&policy, true, cx.now_ms);
        let ms = self.before.slot.backoff_ms(&policy.rules(Slot::BEFORE).backoff);
        if hopeless || policy.max_restarts.is_some_and(|max| failures >= max) {
            for index in 0..self.slots.len() as u32 {
                if self.waits_to_start(index, generation) {
                    self.set_slot_phase(index, SlotPhase::Errored);
                }
            }
            return if hopeless { Next::GivenUp } else { Next::Errored { failures } };
        }
        self.set_slot_phase(INDEX, SlotPhase::Waiting { until_ms: cx.now_ms + ms });
        Next::Waiting { ms, failures, max: policy.max_restarts }
    }

    /// The cause for a command whose time is over.
    pub(super) fn overran(&self, generation: Generation) -> Cause {
        Cause::Overran(self.policy(generation).rules(Slot::BEFORE).ready_timeout_ms)
    }
}
