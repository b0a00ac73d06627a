//! Processes that could not be started: whether another try may help.
use super::app::{App, Cx};
use super::slot::{Death, SlotPhase, SlotState, died};
use super::{Cause, Next};
use crate::ids::{Generation, Slot, WorkerId};

/// What stands in the way of a spawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// A lack of memory, processes or descriptors, a file that is being written: the next try may succeed.
    Passing,
    /// The program, its arguments or its configuration have to change first.
    Lasting,
}

impl App {
    pub(super) fn on_spawn_failed(&mut self, cx: &mut Cx<'_>, worker: WorkerId, reason: String, obstacle: Obstacle) {
        self.lose(cx, worker, Cause::NotStarted { reason, obstacle }, cx.now_ms);
    }

    /// Whether the next try would fail as this one did. Where a generation has served, a deploy may be replacing its files at
    /// this moment, so that they come back.
    pub(super) fn is_hopeless(&self, generation: Generation, death: Option<&Death>) -> bool {
        let cause = death.map(|death| &death.cause);
        matches!(cause, Some(Cause::NotStarted { obstacle: Obstacle::Lasting, .. })) && !self.has_served(generation)
    }

    fn has_served(&self, generation: Generation) -> bool {
        self.slots.iter().any(|slot| slot.generation == generation && slot.proven)
            || self.workers.values().any(|worker| worker.generation == generation && worker.is_ready())
    }

    /// Leaves the slot empty.
    pub(super) fn give_up(&mut self, cx: &mut Cx<'_>, index: u32, next: Next) {
        let death = self.slot_mut(index).and_then(|slot| slot.death.take());
        self.set_slot_phase(index, SlotPhase::Errored);
        if let Some(death) = death {
            cx.report(died(death, Slot(index), next));
        }
    }
}

impl SlotState {
    /// A worker of this generation is ready in the slot.
    pub(super) fn prove(&mut self, generation: Generation) {
        self.proven |= self.generation == generation;
    }
}
