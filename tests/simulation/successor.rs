//! What a successor makes of notes that end in the middle of a step: the master before it died there.
use super::scenarios::{Stage, policy};
use clusterd::ids::{Generation, WorkerId};
use clusterd::supervisor::{Action, App, Cx, Phase, Policy, SlotSnapshot, WorkerSnapshot};
use std::collections::BTreeMap;

/// An app's notes, as the keeper holds them.
pub(crate) struct Notes {
    pub(crate) slots: Vec<SlotSnapshot>,
    pub(crate) workers: Vec<WorkerSnapshot>,
}

pub(crate) fn notes(stage: &mut Stage) -> Notes {
    // A master that starts writes everything down.
    let (slots, workers) = stage.app.take_changes();
    Notes {
        slots: slots.into_iter().filter_map(|(_, slot)| slot).collect(),
        workers: workers.into_iter().filter_map(|(_, worker)| worker).collect(),
    }
}

/// What the successor does first. Every noted worker lives.
pub(crate) fn succeed(stage: &Stage, notes: Notes) -> (App, Vec<Action>) {
    succeed_under(stage, notes, &policy())
}

/// The same with these rules.
pub(crate) fn succeed_under(stage: &Stage, notes: Notes, policy: &Policy) -> (App, Vec<Action>) {
    let mut actions = Vec::new();
    let mut next_worker = 100;
    let mut cx = Cx { now_ms: stage.now_ms, next_worker: &mut next_worker, actions: &mut actions };
    let policies = BTreeMap::from([(Generation(1), policy.clone()), (Generation(2), policy.clone())]);
    let lives = |id: WorkerId| Some(id.0 as i32);
    let app = App::restore(stage.app.snapshot(), notes.slots, notes.workers, policies, &lives, &mut cx);
    (app, actions)
}

#[test]
fn a_worker_that_its_slot_was_done_with_is_drained_and_does_not_serve_on() {
    let mut stage = Stage::ready(1);
    let mut notes = notes(&mut stage);
    // It left; the slot was noted, the worker's drain was not.
    notes.slots[0].current = None;
    let (_, actions) = succeed(&stage, notes);
    assert!(actions.contains(&Action::Drain { worker: WorkerId(1) }), "{actions:?}");
    assert!(!actions.contains(&Action::Serve { worker: WorkerId(1) }), "{actions:?}");
    assert!(actions.iter().any(|a| matches!(a, Action::Spawn { .. })), "its slot is filled: {actions:?}");
}

#[test]
fn a_kill_that_was_noted_and_perhaps_never_sent_is_sent_again() {
    let mut stage = Stage::ready(1);
    let mut notes = notes(&mut stage);
    notes.workers[0].phase = Phase::Killed;
    let (_, actions) = succeed(&stage, notes);
    assert!(actions.contains(&Action::Kill { worker: WorkerId(1) }), "{actions:?}");
}

#[test]
fn a_worker_of_a_reload_that_was_never_noted_takes_no_slot() {
    let mut stage = Stage::ready(1);
    let mut notes = notes(&mut stage);
    let mut young = notes.workers[0];
    young.id = WorkerId(2);
    young.generation = Generation(2);
    let (deadline_ms, ready_at_ms, severed_at_ms, warming) = (5_000, None, None, None);
    young.phase = Phase::Starting { deadline_ms, ready_at_ms, online: false, severed_at_ms, warming };
    notes.workers.push(young);
    notes.slots[0].incoming = Some(WorkerId(2));
    let (app, actions) = succeed(&stage, notes);
    assert!(actions.contains(&Action::Terminate { worker: WorkerId(2) }), "{actions:?}");
    assert!(actions.contains(&Action::Serve { worker: WorkerId(1) }), "{actions:?}");
    assert!(!app.is_reloading());
}
