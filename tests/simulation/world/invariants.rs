//! What holds in a world after every step, and once it has come to rest.
use super::{Coming, World};
use clusterd::ids::WorkerId;
use clusterd::supervisor::{Action, App, Phase, Report, SlotPhase};
use std::collections::BTreeMap;

impl World {
    pub(super) fn check(&self) {
        let Some(app) = &self.master else { return };
        let mut places: BTreeMap<u32, u32> = BTreeMap::new();
        for worker in app.workers().filter(|w| matches!(w.phase, Phase::Ready { .. })) {
            let listened = self.processes.get(&worker.id).is_none_or(|p| p.listened);
            assert!(listened, "worker {} counts as ready and never listened", worker.id);
            assert!(self.is_well(worker.id), "worker {} counts as ready and never answered well", worker.id);
        }
        for worker in app.workers().filter(|w| w.is_held_back()) {
            assert!(!self.served.contains(&worker.id), "worker {} is a spare and got connections", worker.id);
        }
        let (serving, wanted) = (app.serving_count(), app.wanted_count());
        let has_spares = app.spares_wanted() > 0 && !app.is_reloading() && !app.is_stopping();
        assert!(!has_spares || serving <= wanted, "{serving} workers serve of {wanted}");
        assert!(!has_spares || serving == wanted || app.spare_count() == 0, "a spare is held back that is needed");
        for worker in app.workers().filter(|w| !w.phase.is_leaving()) {
            *places.entry(worker.slot.0).or_default() += 1;
        }
        for (&slot, &count) in &places {
            assert!(count <= 2, "slot {slot} has {count} workers that count");
        }
        let doubled = places.values().filter(|&&count| count == 2).count();
        assert!(app.is_reloading() || doubled <= 1, "{doubled} slots are being replaced at once: {places:?}");
        // Ends are told at once, so whoever lives is known (strangers were killed).
        for (id, process) in &self.processes {
            let known = super::agent::knows(app, *id);
            let dying = self.coming.values().any(|c| matches!(c, Coming::Ends(w, _) if w == id));
            assert!(known || dying || process.ended.is_some(), "worker {id} lives and nobody knows it");
            let limit = 3_000 + 2_000 + 1_000 + 500 + 200 + 100 * u64::from(self.deaths_of_master);
            if let Some(began) = process.drain_began_ms {
                assert!(self.now_ms <= began + limit, "the drain of worker {id} does not end");
            }
        }
    }

    pub(super) fn check_rest(&mut self) {
        let app = self.master.as_ref().expect("a master lives");
        assert!(
            !app.is_reloading(),
            "a reload has not ended: {:?} {:?}",
            app.snapshot(),
            app.workers().collect::<Vec<_>>()
        );
        assert!(self.deaths_of_master > 0 || self.reloads_open.is_empty(), "a reload was never answered");
        assert!(self.deaths_of_master > 0 || self.starts_open.is_empty(), "a start never came");
        assert!(!app.is_restarting(), "a start waits for ever");
        // A command that died with its master was never heard.
        let obeyed = self.stopped == app.is_stopping();
        assert!(self.deaths_of_master > 0 || obeyed, "the last word was start, or stop, and the app does the other");
        for id in &self.spawned {
            let lives = self.processes.contains_key(id);
            assert!(lives != self.reaped.contains(id), "worker {id} is neither alive nor reaped, or both");
        }
        if app.is_stopping() {
            assert!(self.processes.is_empty(), "the app has stopped and processes live");
            return;
        }
        for (index, slot) in app.slots().enumerate() {
            match slot.phase {
                SlotPhase::Errored | SlotPhase::Stopped => {}
                SlotPhase::Waiting { .. } => panic!("slot {index} waits for ever"),
                SlotPhase::Filled if slot.current.is_none() && self.may_wait(slot.generation) => {}
                SlotPhase::Filled => {
                    let worker = slot.current.unwrap_or_else(|| panic!("slot {index} is empty"));
                    let is_ready = matches!(worker.phase, Phase::Ready { .. });
                    assert!(self.bad.contains(&worker.generation) || is_ready, "slot {index}: {:?}", worker.phase);
                }
            }
        }
        let filled = app.slots().filter(|s| s.current.is_some()).count();
        let known: Vec<_> = app.workers().map(|w| (w.id, w.slot, w.phase)).collect();
        let living: Vec<_> =
            self.processes.iter().map(|(id, p)| (id, p.generation, p.running, p.ended, p.deaf)).collect();
        let agents = self.check_agent_at_rest(app);
        assert_eq!(living.len(), filled + agents, "processes beyond the slots live on: {living:?}; known: {known:?}");
    }

    /// During a reload nothing is drained that would leave fewer ready workers than there were.
    pub(super) fn check_floor(&mut self, app: &App, ready_before: u32, actions: &[Action]) {
        let mut ready_before = ready_before;
        for action in actions {
            match action {
                Action::Report(Report::ReloadStarted { .. }) => self.floor = Some(ready_before),
                Action::Report(Report::Scaled { .. }) => {
                    // A reload that follows in the same step begins with what the scaling left.
                    ready_before = app.serving_count();
                    self.floor = None;
                }
                Action::Report(Report::ReloadDone { .. } | Report::ReloadFailed { .. }) => self.floor = None,
                Action::Report(Report::WorkerLeaving { .. }) => {
                    self.floor = self.floor.map(|floor| floor.saturating_sub(1));
                }
                Action::Report(Report::WorkerDied { .. }) => {}
                _ => {}
            }
        }
        if let Some(floor) = self.floor.filter(|_| app.is_reloading() && !app.is_stopping()) {
            // Workers that misbehave are lost without having ended.
            let failed =
                actions.iter().filter(|a| matches!(a, Action::Report(Report::WorkerDied { .. }))).count() as u32;
            let is_beside = |id: &WorkerId| self.processes.get(id).is_some_and(|p| p.slot.is_beside());
            let ended = |a: &&Action| match a {
                Action::Terminate { worker } | Action::Abort { worker } | Action::Kill { worker } => !is_beside(worker),
                _ => false,
            };
            let failed = failed + actions.iter().filter(ended).count() as u32;
            if failed > 0 {
                self.floor = Some(floor.saturating_sub(failed));
                return;
            }
            let ready = app.serving_count();
            assert!(ready >= floor, "{} serving workers in a reload that began with {floor}", ready);
        }
    }
}
