//! Workers that pass a limit are replaced beside themselves; hung ones are killed and their slots refilled.
use super::scenarios::{Stage, policy};
use super::successor::{notes, succeed};
use clusterd::ids::{Generation, WorkerId};
use clusterd::limits;
use clusterd::supervisor::{Action, Cause, Event, Excess, Limits, Next, Report, SlotPhase};

const EXCESS: Excess = Excess::Memory { used: 600, allowed: 512 };

fn replace(stage: &mut Stage, id: u64) {
    stage.tell(Event::Replace { worker: WorkerId(id), excess: EXCESS });
}

/// Two ready workers, the first of them with its replacement (3) under way.
fn replacing() -> Stage {
    let mut s = Stage::ready(2);
    s.pass(5_000);
    replace(&mut s, 1);
    s
}

fn drains(seen: &[Action], id: u64) -> bool {
    seen.contains(&Action::Drain { worker: WorkerId(id) })
}

#[test]
fn a_worker_over_its_limit_serves_until_another_one_is_ready_and_then_drains() {
    let mut s = replacing();
    let seen = s.take();
    assert!(
        seen.iter().any(|a| matches!(a, Action::Report(Report::Replacing { pid: Some(1), excess: EXCESS, .. }))),
        "{seen:?}"
    );
    assert!(seen.iter().any(|a| matches!(a, Action::Spawn { worker: WorkerId(3), generation: Generation(1), .. })));
    assert!(!drains(&seen, 1) && s.app.ready_count() == 2);
    s.make_ready(3);
    assert!(drains(&s.take(), 1) && s.app.ready_count() == 2);
    s.exit(1, 0);
    assert!(s.spawned().is_empty(), "its end is not a death");
    assert_eq!(s.app.slots().next().unwrap().current.unwrap().id, WorkerId(3));
}

#[test]
fn one_slot_at_a_time_is_replaced_and_none_during_a_reload() {
    let mut s = replacing();
    assert_eq!(s.spawned(), [3]);
    replace(&mut s, 1);
    replace(&mut s, 2);
    assert!(s.spawned().is_empty(), "one at a time");
    s.make_ready(3);
    replace(&mut s, 2);
    assert_eq!(s.spawned(), [4]);
    s.tell(Event::Reload { to: Generation(2), policy: policy(), slots: 2 });
    let seen = s.take();
    assert!(seen.contains(&Action::Terminate { worker: WorkerId(4) }), "the reload brings new ones: {seen:?}");
    replace(&mut s, 3);
    replace(&mut s, 2);
    assert!(s.spawned().is_empty());
}

#[test]
fn a_replacement_that_fails_leaves_the_old_worker_and_the_next_try_waits() {
    let mut s = replacing();
    s.take();
    let mut tries = vec![s.now_ms];
    let mut id = 3;
    s.exit(id, 1);
    let reports = s.reports();
    assert!(matches!(&reports[0], Report::WorkerDied { next: Next::None, .. }), "{reports:?}");
    for _ in 0..100 {
        s.pass(1_000);
        replace(&mut s, 1);
        if let [next] = s.spawned()[..] {
            id = next;
            tries.push(s.now_ms);
            s.exit(id, 1);
        }
    }
    assert!(s.app.ready_count() == 2 && (8..=11).contains(&tries.len()), "{tries:?}");
    assert!(s.app.slots().all(|slot| slot.phase == SlotPhase::Filled));
    // The old one dies of age: its slot is not given up for the failures of others.
    s.exit(1, 1);
    assert_eq!(s.spawned().len(), 1);
}

#[test]
fn the_new_worker_is_over_the_limit_too_and_they_do_not_chase_each_other() {
    let mut s = replacing();
    s.make_ready(3);
    s.take();
    replace(&mut s, 3);
    s.pass(limits::REPLACE_EVERY_MS - 1);
    replace(&mut s, 3);
    assert!(s.spawned().is_empty());
    s.pass(1);
    replace(&mut s, 3);
    assert_eq!(s.spawned(), [4]);
}

#[test]
fn when_the_old_worker_dies_meanwhile_its_replacement_fills_the_slot() {
    let mut s = replacing();
    s.tell(Event::Spawned { worker: WorkerId(3), pid: 3 }).take();
    s.exit(1, 1);
    let seen = s.take();
    assert!(!seen.iter().any(|a| matches!(a, Action::Spawn { .. })), "one is on its way: {seen:?}");
    assert!(matches!(&seen[0], Action::Report(Report::WorkerDied { next: Next::Replaced { .. }, .. })), "{seen:?}");
    s.exit(3, 1);
    assert_eq!(s.spawned(), [4], "it fails like any worker of the slot");
}

#[test]
fn an_exit_code_that_leaves_the_slot_empty_ends_the_replacement_too() {
    let mut s = replacing();
    s.take();
    s.exit(1, 42);
    assert!(s.take().contains(&Action::Terminate { worker: WorkerId(3) }));
    s.exit(3, 0);
    assert!(s.spawned().is_empty());
}

#[test]
fn a_worker_that_leaves_by_itself_while_it_is_replaced_needs_no_second_one() {
    let mut s = replacing();
    s.take();
    s.tell(Event::Leaving { worker: WorkerId(1) });
    let seen = s.take();
    assert!(drains(&seen, 1) && !seen.iter().any(|a| matches!(a, Action::Spawn { .. })), "{seen:?}");
}

#[test]
fn a_replacement_outlives_the_master() {
    let mut s = replacing();
    let kept = notes(&mut s);
    let (mut app, actions) = succeed(&s, kept);
    assert!(!actions.contains(&Action::Terminate { worker: WorkerId(3) }), "{actions:?}");
    assert!(actions.contains(&Action::Serve { worker: WorkerId(1) }), "{actions:?}");
    let again = app.take_changes().0;
    assert!(
        again.iter().all(|(_, slot)| slot.as_ref().is_none_or(|s| s.index != 0 || s.incoming == Some(WorkerId(3))))
    );
    assert!(!app.is_reloading());
}

#[test]
fn a_replacement_whose_old_worker_is_gone_when_the_next_master_comes_fills_the_slot() {
    let mut s = replacing();
    let mut kept = notes(&mut s);
    kept.workers.retain(|w| w.id != WorkerId(1));
    let (app, actions) = succeed(&s, kept);
    assert!(!actions.iter().any(|a| matches!(a, Action::Spawn { .. })), "{actions:?}");
    assert_eq!(app.slots().next().unwrap().current.unwrap().id, WorkerId(3));
}

fn hung(hang_report: bool) -> Stage {
    let limits = Limits { hang_ms: Some(10_000), hang_report, ..Limits::NONE };
    let mut s = Stage::under(clusterd::supervisor::Policy { limits, ..policy() }, 1);
    s.make_ready(1);
    s.take();
    s.pass(500);
    s.tell(Event::Hung { worker: WorkerId(1) });
    s
}

#[test]
fn a_hung_worker_is_killed_at_once_and_its_slot_refilled_without_backoff() {
    let mut s = hung(false);
    let seen = s.take();
    assert!(seen.contains(&Action::Kill { worker: WorkerId(1) }), "{seen:?}");
    assert!(seen.iter().any(|a| matches!(a, Action::Spawn { worker: WorkerId(2), .. })));
    s.tell(Event::Spawned { worker: WorkerId(2), pid: 2 });
    let reports = s.reports();
    assert!(matches!(&reports[0], Report::WorkerDied { cause: Cause::Hung(10_000), .. }), "{reports:?}");
    s.tell(Event::Hung { worker: WorkerId(1) });
    s.exit(1, 9);
    assert!(s.spawned().is_empty(), "its end is not a second death");
}

#[test]
fn a_hung_worker_may_leave_a_core_before_it_is_killed() {
    let mut s = hung(true);
    let seen = s.take();
    assert!(seen.contains(&Action::Abort { worker: WorkerId(1) }), "{seen:?}");
    assert!(!seen.contains(&Action::Kill { worker: WorkerId(1) }));
    s.pass(limits::HANG_REPORT_MS);
    assert!(!s.take().contains(&Action::Kill { worker: WorkerId(1) }), "it has its time for a report");
    s.pass(2_000);
    assert!(s.take().contains(&Action::Kill { worker: WorkerId(1) }));
}

#[test]
fn without_the_limit_nobody_is_hung() {
    let mut s = Stage::ready(1);
    s.tell(Event::Hung { worker: WorkerId(1) });
    assert!(s.take().is_empty());
}
