//! Canaries that are compared: the master finds, at random, that one is worse, unless it dies before.
use super::{Coming, World};
use clusterd::ids::WorkerId;
use clusterd::supervisor::{CanaryAmount, CanaryFigure, CanaryWorse, Event};

pub(crate) fn worse() -> CanaryWorse {
    let (canary, others) = (CanaryAmount { sum: 120, units: 40 }, CanaryAmount { sum: 0, units: 120 });
    CanaryWorse { figure: CanaryFigure::StderrLines, canary, others, allowed: 20 }
}

impl World {
    pub(super) fn judge_canary(&mut self, worker: WorkerId) {
        let took = self.random.between(0, 20);
        self.plan(took, Coming::Judged(worker, self.deaths_of_master));
    }

    /// The verdict of the master that compared, or of nobody.
    pub(super) fn canary_judged(&mut self, worker: WorkerId, judged_by: u32) {
        if self.master.is_some() && judged_by == self.deaths_of_master {
            let worse = self.random.percent(30).then(worse);
            self.tell(Event::CanaryJudged { worker, worse });
        }
    }
}
