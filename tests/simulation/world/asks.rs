//! Workers that are ready when they answer well: the master asks, again and again, and what it asked dies with it.
use super::{Coming, Random, Says, World};
use clusterd::ids::WorkerId;
use clusterd::supervisor::{Event, Evidence, Phase};

/// How a worker answers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Health {
    /// It answers well from then on; `None`: never.
    well_at_ms: Option<u64>,
    /// A master has heard it answer well.
    was_well: bool,
    /// A master has heard its last answer of a warm-up.
    was_warm: bool,
}

/// What a generation's workers have to show.
pub(super) fn evidence(random: &mut Random) -> Evidence {
    if random.percent(40) { Evidence::Http } else { Evidence::Listening }
}

impl World {
    pub(super) fn evidence_of(&self, worker: WorkerId) -> Evidence {
        let generation = self.processes[&worker].generation;
        self.policies[&generation].ready.evidence.unwrap_or(Evidence::Listening)
    }

    fn is_asked(&self, worker: WorkerId) -> bool {
        self.processes.get(&worker).is_some_and(|p| !p.slot.is_beside()) && self.evidence_of(worker) == Evidence::Http
    }

    /// It serves, and answers badly for ever.
    pub(super) fn never_well(&mut self, worker: WorkerId, listens_in_ms: u64) {
        if self.is_asked(worker) {
            self.plan(listens_in_ms, Coming::Says(worker, Says::Listening));
        }
    }

    pub(super) fn well_after(&mut self, worker: WorkerId, listens_in_ms: u64) {
        let well_at_ms = Some(self.now_ms + listens_in_ms + self.random.between(0, 800));
        if let Some(process) = self.processes.get_mut(&worker) {
            process.health.well_at_ms = well_at_ms;
        }
    }

    /// The master asks a worker that listens, while it is not ready.
    pub(super) fn ask(&mut self, worker: WorkerId) {
        let phase = self.master.as_ref().and_then(|app| app.worker(worker)).map(|w| w.phase);
        if self.is_asked(worker) && matches!(phase, Some(Phase::Starting { .. })) {
            let took = self.random.between(1, 100);
            self.plan(took, Coming::Answers(worker, self.deaths_of_master));
        }
    }

    /// An answer reaches the master that asked, or nobody.
    pub(super) fn answers(&mut self, worker: WorkerId, asked_by: u32) {
        let now_ms = self.now_ms;
        let Some(process) = self.processes.get_mut(&worker) else { return };
        if self.master.is_none() || asked_by != self.deaths_of_master || process.ended.is_some() {
            return;
        }
        if process.health.well_at_ms.is_some_and(|at| at <= now_ms) {
            process.health.was_well = true;
            return self.tell(Event::Evidence { worker, evidence: Evidence::Http });
        }
        self.tell(Event::NotYet { worker, why: "answered with 500".to_owned() });
        self.ask(worker);
    }

    /// A successor asks whoever listens.
    pub(super) fn ask_again(&mut self) {
        let listening = self.processes.iter().filter(|(_, p)| p.listened && p.ended.is_none());
        for worker in listening.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.ask(worker);
        }
    }

    /// The master begins the warm-up of a worker. It lasts longer than there is time for, now and then.
    pub(super) fn warm_up(&mut self, worker: WorkerId) {
        let took = if self.random.percent(5) { 2_500 } else { self.random.between(1, 600) };
        self.plan(took, Coming::IsWarm(worker, self.deaths_of_master));
    }

    /// The last answer of a warm-up reaches the master that asked, or nobody.
    pub(super) fn is_warm(&mut self, worker: WorkerId, asked_by: u32) {
        let Some(process) = self.processes.get_mut(&worker) else { return };
        if self.master.is_none() || asked_by != self.deaths_of_master || process.ended.is_some() {
            return;
        }
        process.health.was_warm = true;
        self.tell(Event::Warmed { worker });
    }

    /// Whether a worker may count as ready.
    pub(super) fn is_well(&self, worker: WorkerId) -> bool {
        let Some(process) = self.processes.get(&worker) else { return true };
        let is_warm = !self.policies[&process.generation].warms_up || process.health.was_warm;
        is_warm && (!self.is_asked(worker) || process.health.was_well)
    }
}
