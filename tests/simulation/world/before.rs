//! The command before the workers in a world: what its process does, and what has to hold of it.
use super::{Coming, World};
use crate::random::Random;
use clusterd::ids::{Generation, Slot, WorkerId};
use clusterd::supervisor::{BeforePolicy, ExitStatus};

/// A third of all generations have one.
pub(super) fn policy(random: &mut Random) -> Option<BeforePolicy> {
    random.percent(33).then_some(BeforePolicy { timeout_ms: 1_000, kill_timeout_ms: 500 })
}

impl World {
    pub(super) fn spawn_before(&mut self, id: WorkerId, generation: Generation) {
        let other =
            self.processes.iter().find(|(other, p)| **other != id && p.slot == Slot::BEFORE && p.ended.is_none());
        assert!(other.is_none(), "the command {id} starts and {:?} lives", other.map(|(id, _)| id));
        assert!(!self.before_done.contains(&generation), "the command of generation {generation} runs again");
        self.begin_process(id, Slot::BEFORE, generation);
    }

    /// What its process will do of itself.
    pub(super) fn plan_before_life(&mut self, id: WorkerId) {
        let bad = self.bad_befores.contains(&self.processes[&id].generation);
        let took = self.random.between(5, 400);
        let trouble = self.trouble();
        let fails = bad || (trouble && self.random.percent(10));
        if !fails {
            self.plan(took, Coming::Ends(id, ExitStatus::Code(0)));
        } else if self.random.percent(70) {
            self.plan(took, Coming::Ends(id, ExitStatus::Code(1)));
        } // Else it never ends.
    }

    /// Nothing of a generation starts before its command has ended well.
    pub(super) fn check_before(&self, process: WorkerId, generation: Generation) {
        let waits = self.policies[&generation].before.is_some() && !self.before_ended.contains(&generation);
        assert!(!waits, "{process} starts and the command before generation {generation} has not ended");
    }
}
