//! The slot of an app's agent: it has one process at a time, starts before the workers, and the workers stay when it
//! dies. Its process starts, gets ready, fails, waits and ends as any other (`app`, `slot`).
//!
//! The intended state of the slot is computed after every step ([`App::reconcile_agent`]), whatever led there: a start,
//! a death, a reload, a stop, or a restored master.
use super::app::{App, Cx};
use super::slot::died;
use super::slot::{Death, SlotPhase, SlotState, SlotView};
use super::worker::{Phase, Worker};
use super::{Next, ReadyRule};
use crate::ids::{Generation, Slot, WorkerId};
use crate::limits;
use std::collections::BTreeSet;

/// The part of an agent's configuration that the supervisor needs. Times are in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentPolicy {
    /// The rule for its readiness.
    pub ready: ReadyRule,
    /// An agent that is not ready by then has failed.
    pub ready_timeout_ms: u64,
    /// SIGKILL follows SIGTERM after this.
    pub kill_timeout_ms: u64,
    /// Pause between its death and the next start; it doubles while agents die young.
    pub restart_delay_ms: u64,
}

/// The agent's slot.
#[derive(Clone, Debug)]
pub(super) struct AgentSlot {
    pub(super) slot: SlotState,
    /// The generations in which an agent was ready once: their workers no longer wait.
    pub(super) ready_in: BTreeSet<Generation>,
}

impl AgentSlot {
    pub(super) fn new(generation: Generation) -> AgentSlot {
        AgentSlot { slot: SlotState::new(generation), ready_in: BTreeSet::new() }
    }
}

/// The intended state of the slot.
enum Want {
    /// An agent of this generation.
    One(Generation),
    /// The agent that is there, if any; no new one.
    NoNew,
    /// No agent.
    None,
}

const INDEX: u32 = Slot::AGENT.0;

impl App {
    /// The agent's slot; `None` where the app has no agent and is to have none.
    pub fn agent(&self) -> Option<SlotView> {
        let process = self.workers.agent().map(Worker::view);
        let has = process.is_some() || self.policy(self.generation).agent.is_some();
        let slot = &self.agent.slot;
        let generation = process.map_or(self.generation, |process| process.generation);
        has.then_some(SlotView { generation, phase: slot.phase, current: process, restarts: slot.restarts })
    }

    /// Whether every slot was ready once since the app last had no ready worker.
    pub fn was_ready(&self) -> bool {
        self.reported_ready
    }

    /// The agent that messages can be sent to.
    pub fn ready_agent(&self) -> Option<WorkerId> {
        self.workers.agent().filter(|agent| agent.is_ready()).map(|agent| agent.id)
    }

    pub(super) fn is_agent(&self, id: WorkerId) -> bool {
        self.workers.agent().is_some_and(|agent| agent.id == id)
    }

    /// Whether workers of this generation may be started: it has no agent, or its agent was ready once.
    pub(super) fn agent_lets_start(&self, generation: Generation) -> bool {
        self.policy(generation).agent.is_none() || self.agent.ready_in.contains(&generation)
    }

    /// A new generation arrives: earlier failures do not count.
    pub(super) fn reset_agent_backoff(&mut self) {
        self.set_slot_phase(INDEX, SlotPhase::Filled);
        self.agent.slot.clear_failures();
    }

    fn agent_wanted(&self) -> Want {
        let one = |generation: Generation| match self.policy(generation).agent {
            Some(_) if self.is_held_up(generation) => Want::NoNew,
            Some(_) => Want::One(generation),
            None => Want::None,
        };
        if let Some(stopping) = self.stopping {
            // The workers need the agent until they end.
            return if stopping.now || self.workers.is_empty() { Want::None } else { Want::NoNew };
        }
        if let Some(reload) = &self.reload {
            let begins = reload.failed.is_none() && !self.is_held_up(reload.to);
            let to = begins && self.policy(reload.to).agent.is_some();
            return one(if to { reload.to } else { reload.from });
        }
        let over = self.slots.iter().all(|s| matches!(s.phase, SlotPhase::Errored | SlotPhase::Stopped));
        if over && self.workers.is_empty() { Want::None } else { one(self.generation) }
    }

    /// Moves the slot towards its intended state; called after every step.
    pub(super) fn reconcile_agent(&mut self, cx: &mut Cx<'_>) {
        let process = self.workers.agent();
        if process.is_none() && self.policies.values().all(|policy| policy.agent.is_none()) {
            return;
        }
        let process = process.map(|agent| (agent.id, agent.generation, agent.phase.is_leaving()));
        let waits = matches!(self.agent.slot.phase, SlotPhase::Waiting { until_ms } if until_ms > cx.now_ms);
        match (self.agent_wanted(), process) {
            (_, Some((.., true))) => {}
            (Want::NoNew, _) | (Want::None, None) => self.set_slot_phase(INDEX, SlotPhase::Filled),
            (Want::One(wanted), Some((_, generation, false))) if wanted == generation => {}
            (Want::One(_) | Want::None, Some((id, ..))) => {
                self.detach(INDEX, id);
                self.terminate(cx, id);
            }
            (Want::One(_), None) if waits => {}
            (Want::One(generation), None) => {
                self.set_slot_phase(INDEX, SlotPhase::Filled);
                let id = self.spawn(cx, INDEX, generation);
                self.agent.slot.generation = generation;
                self.agent.slot.current = Some(id);
            }
        }
    }

    /// "Stop now" shortens the kill time-out of processes beside the workers that were asked to end earlier.
    pub(super) fn hurry_beside(&mut self, cx: &mut Cx<'_>) {
        let beside = [self.workers.agent(), self.workers.before()];
        for (id, phase) in
            beside.map(|process| process.map(|process| (process.id, process.phase))).into_iter().flatten()
        {
            if let Phase::Stopping { kill_at_ms } = phase {
                let kill_at_ms = kill_at_ms.min(cx.now_ms + limits::STOP_NOW_KILL_MS);
                self.set_phase(id, Phase::Stopping { kill_at_ms });
            }
        }
    }

    /// The agent of this generation is ready: workers that waited for it start.
    pub(super) fn agent_is_ready(&mut self, cx: &mut Cx<'_>, generation: Generation) {
        let known = self.generations();
        self.agent.ready_in.retain(|generation| known.contains(generation));
        if !self.agent.ready_in.insert(generation) || self.stopping.is_some() {
            return;
        }
        self.fill_waiting(cx, generation);
        self.step_reload(cx);
    }

    /// Fills the slots that are empty because this generation could not start before.
    pub(super) fn fill_waiting(&mut self, cx: &mut Cx<'_>, generation: Generation) {
        for index in 0..self.slots.len() as u32 {
            if self.waits_to_start(index, generation) {
                self.fill(cx, index);
            }
        }
    }

    /// Whether a slot is empty because this generation cannot start yet: its agent was not ready, or what runs before has not ended.
    pub(super) fn waits_to_start(&self, index: u32, generation: Generation) -> bool {
        self.slots.get(index as usize).is_some_and(|slot| {
            slot.generation == generation
                && slot.phase == SlotPhase::Filled
                && slot.current.is_none()
                && slot.incoming.is_none()
        })
    }

    /// Handles an unrequested end of an agent: the reload fails, or the agent is started again.
    pub(super) fn agent_failed(&mut self, cx: &mut Cx<'_>, death: Death, generation: Generation, young: bool) {
        let first = !self.agent.ready_in.contains(&generation);
        let onward = self.reload.as_ref().is_some_and(|r| r.failed.is_none() && r.to == generation);
        let back = self.reload.as_ref().is_some_and(|r| r.failed.is_some() && r.from == generation);
        let wanted = matches!(self.agent_wanted(), Want::One(wanted) if wanted == generation);
        let reason = death.cause.of_the_new("agent");
        let next = match wanted {
            true if !(onward && first) => {
                let hopeless = first && self.is_hopeless(generation, Some(&death));
                self.next_agent(cx, generation, young, (first, hopeless))
            }
            true | false => Next::None,
        };
        cx.report(died(death, Slot::AGENT, next));
        if onward && first {
            self.fail_reload(cx, reason);
        } else if back && first {
            // The previous agent never worked either: leave it as it was.
            self.end_roll_back(cx);
        }
    }

    /// Plans the next agent, or gives up: workers that never had one no longer wait.
    fn next_agent(
        &mut self,
        cx: &Cx<'_>,
        generation: Generation,
        young: bool,
        (first, hopeless): (bool, bool),
    ) -> Next {
        let policy = self.policy(generation).clone();
        let failures = self.agent.slot.count_death(&policy, young, cx.now_ms);
        let ms = self.agent.slot.backoff_ms(&policy.rules(Slot::AGENT).backoff);
        self.set_slot_phase(INDEX, SlotPhase::Waiting { until_ms: cx.now_ms + ms });
        if hopeless || (first && young && policy.max_restarts.is_some_and(|max| failures >= max)) {
            for index in 0..self.slots.len() as u32 {
                if self.waits_to_start(index, generation) {
                    self.set_slot_phase(index, SlotPhase::Errored);
                }
            }
        }
        if matches!(self.agent_wanted(), Want::None) {
            return if hopeless { Next::GivenUp } else { Next::Errored { failures } };
        }
        self.agent.slot.restarts += 1;
        Next::Waiting { ms, failures, max: policy.max_restarts.filter(|_| first) }
    }

    /// Corrects a slot that was saved for a start or a reload whose own record died with its master. It would wait for
    /// an agent or a command that never comes, so it returns to the app's generation.
    pub(super) fn keep_to_agent(&mut self, index: u32) {
        let generation = self.slots.get(index as usize).map(|slot| slot.generation);
        let strange = generation.is_some_and(|generation| !self.may_start(generation));
        let own = self.generation;
        if let Some(slot) = self.slot_mut(index).filter(|_| strange) {
            slot.generation = own;
            slot.proven = false;
        }
    }
}
