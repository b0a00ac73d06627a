//! Stop, and a start after it. A restart is a stop followed by a start, so that two generations never run together.
use super::Report;
use super::agent::AgentSlot;
use super::app::{App, Cx, Stopping};
use super::before::BeforeSlot;
use super::reload::Queued;
use super::slot::{SlotPhase, SlotState};
use super::spares::{clamp_wanted, with_spares};
use super::worker::Phase;
use crate::ids::{Generation, WorkerId};

impl App {
    /// Whether the app was told to stop.
    pub fn is_stopping(&self) -> bool {
        self.stopping.is_some()
    }

    /// Whether it starts again after the stop.
    pub fn is_restarting(&self) -> bool {
        self.then_start.is_some()
    }

    /// Whether it was told to stop and has no process left.
    pub fn is_stopped(&self) -> bool {
        self.stopping.is_some() && self.runs_nothing()
    }

    pub(super) fn runs_nothing(&self) -> bool {
        self.workers.is_empty() && self.workers.agent().is_none() && self.workers.before().is_none()
    }

    /// Ends every worker: gracefully, or without a drain. Cancels a start that was to follow an earlier stop.
    pub(super) fn ask_stop(&mut self, cx: &mut Cx<'_>, now: bool) {
        if let Some(earlier) = self.then_start.take() {
            cx.report(Report::StartDropped { to: earlier.to });
        }
        self.stop(cx, now);
        self.report_end(cx);
    }

    /// Starts the app; if anything runs, after stopping it.
    pub(super) fn ask_start(&mut self, cx: &mut Cx<'_>, asked: Queued) {
        if let Some(earlier) = self.then_start.replace(asked) {
            cx.report(Report::StartSuperseded { to: earlier.to });
        }
        if !self.is_stopped() {
            let now = self.stopping.is_some_and(|s| s.now);
            self.stop(cx, now);
        }
        if self.is_stopped() {
            self.begin_start(cx);
        }
    }

    /// Whether every slot is errored.
    pub fn is_errored(&self) -> bool {
        !self.slots.is_empty() && self.slots.iter().all(|slot| slot.phase == SlotPhase::Errored)
    }

    /// Whether no slot will ever have a worker again without a command: all errored or stopped.
    pub fn is_over(&self) -> bool {
        self.runs_nothing() && self.slots.iter().all(|s| matches!(s.phase, SlotPhase::Errored | SlotPhase::Stopped))
    }

    /// The generation of which nothing starts before it is admitted.
    pub fn held(&self) -> Option<Generation> {
        self.held
    }

    /// Holds back a generation that is about to start.
    pub fn hold(&mut self, generation: Generation) {
        self.held = Some(generation);
    }

    pub(super) fn admit_generation(&mut self, cx: &mut Cx<'_>, generation: Generation) {
        if self.held.take_if(|held| *held == generation).is_some() {
            self.reconcile_before(cx);
            self.fill_waiting(cx, generation);
            self.step_reload(cx);
        }
    }

    /// A reload to the generation has failed; of a start, nothing will run.
    pub(super) fn abandon_generation(&mut self, cx: &mut Cx<'_>, generation: Generation, reason: String) {
        if self.held.take_if(|held| *held == generation).is_none() {
            return;
        }
        if let Some(from) = self.reload.as_ref().filter(|reload| reload.to == generation).map(|reload| reload.from) {
            self.fail_reload(cx, reason);
            return self.hold_again(cx, from);
        }
        for index in 0..self.slots.len() as u32 {
            if self.waits_to_start(index, generation) {
                self.set_slot_phase(index, SlotPhase::Errored);
            }
        }
        self.report_end(cx);
    }

    /// What had not started when a reload came waits again for what its generation waits for.
    fn hold_again(&mut self, cx: &mut Cx<'_>, generation: Generation) {
        let waits = |index| self.waits_to_start(index, generation);
        if self.held.is_none() && self.stopping.is_none() && (0..self.slots.len() as u32).any(waits) {
            self.held = Some(generation);
            cx.report(Report::Held { generation });
        }
    }

    /// Continues a start whose stop ended while no master lived.
    pub(super) fn resume_start(&mut self, cx: &mut Cx<'_>) {
        if self.is_stopped() && self.then_start.is_some() {
            self.begin_start(cx);
        }
    }

    /// Nothing runs any more: begins with new slots and workers, and clears failures and counters.
    pub(super) fn begin_start(&mut self, cx: &mut Cx<'_>) {
        let Some(Queued { to, policy, slots }) = self.then_start.take() else { return };
        self.stopping = None;
        self.reported_ready = false;
        self.reported_end = false;
        self.policies.insert(to, policy);
        self.generation = to;
        self.wanted = clamp_wanted(slots, self.policy(to));
        let slots = with_spares(self.wanted, self.policy(to));
        self.touched_slots.extend(0..slots.max(self.slots.len() as u32));
        self.slots = (0..slots).map(|_| SlotState::new(to)).collect();
        self.reset_agent_backoff();
        self.reset_before_backoff();
        self.agent = AgentSlot::new(to);
        self.before = BeforeSlot::new(to);
        self.held = None;
        let wanted = self.generations();
        self.policies.retain(|generation, _| wanted.contains(generation));
        cx.report(Report::Started { to });
        self.start(cx);
    }

    fn stop(&mut self, cx: &mut Cx<'_>, now: bool) {
        let now = now || self.stopping.is_some_and(|s| s.now);
        self.stopping = Some(Stopping { now });
        self.held = None;
        self.reported_end = false;
        self.abandon_reload(cx);
        for index in 0..self.slots.len() as u32 {
            self.set_slot_phase(index, SlotPhase::Stopped);
            if let Some(slot) = self.slot_mut(index) {
                (slot.current, slot.incoming) = (None, None);
            }
        }
        let everyone: Vec<WorkerId> = self.workers.keys().copied().collect();
        for worker in everyone {
            if !now {
                self.retire(cx, worker);
            } else if self.workers.get(&worker).is_some_and(|w| w.phase != Phase::Killed) {
                self.terminate(cx, worker);
            }
        }
        if now {
            self.hurry_beside(cx);
        }
    }
}
