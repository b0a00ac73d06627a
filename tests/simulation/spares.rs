//! Spares: workers that are ready and held back until another one is lost.
use super::scenarios::{Stage, policy};
use super::successor::{notes, succeed_under};
use clusterd::ids::{Generation, Slot, WorkerId};
use clusterd::supervisor::{Action, Event, Excess, Limits, Phase, Policy, ReadyBy, Report};

fn with_spares(spares: u32) -> Policy {
    Policy { spares, ..policy() }
}

/// Two workers that serve, in slots 0 and 1, and a ready spare, worker 3.
fn ready() -> Stage {
    let mut s = Stage::under(with_spares(1), 2);
    for id in 1..=3 {
        s.make_ready(id);
    }
    s.take();
    s
}

fn serve(id: u64) -> Action {
    Action::Serve { worker: WorkerId(id) }
}

fn position(actions: &[Action], wanted: impl Fn(&Action) -> bool) -> usize {
    actions.iter().position(wanted).unwrap_or_else(|| panic!("not there: {actions:?}"))
}

fn serving(s: &Stage) -> Vec<u64> {
    let serving = s.app.workers().filter(|w| matches!(w.phase, Phase::Ready { .. }) && !w.is_held_back());
    serving.map(|w| w.id.0).collect()
}

#[test]
fn the_wanted_workers_serve_and_the_next_one_is_held_back() {
    let mut s = Stage::under(with_spares(1), 2);
    assert_eq!(s.spawned(), [1, 2, 3], "the spare starts with the others");
    s.make_ready(1);
    s.make_ready(2);
    let actions = s.take();
    assert!(
        actions.contains(&Action::Report(Report::AppReady { workers: 2 })),
        "nobody waits for a spare: {actions:?}"
    );
    s.make_ready(3);
    let actions = s.take();
    assert!(!actions.contains(&serve(3)), "{actions:?}");
    let report =
        Report::WorkerReady { worker: WorkerId(3), slot: Slot(2), after_ms: 0, spare: true, by: ReadyBy::Evidence };
    assert!(actions.contains(&Action::Report(report)), "{actions:?}");
    s.pass(100_000);
    assert!(!s.take().contains(&serve(3)), "however long it waits");
    assert_eq!((s.app.serving_count(), s.app.spare_count(), s.app.spares_wanted()), (2, 1, 1));
}

#[test]
fn a_death_promotes_the_spare_at_once_and_the_next_worker_is_the_next_spare() {
    let mut s = ready();
    s.pass(5_000);
    s.exit(1, 1);
    let actions = s.take();
    let served = position(&actions, |a| *a == serve(3));
    let spawned = position(&actions, |a| matches!(a, Action::Spawn { worker: WorkerId(4), slot: Slot(0), .. }));
    assert!(served < spawned, "the spare serves before anything is started: {actions:?}");
    assert!(
        actions.contains(&Action::Report(Report::SpareServes { worker: WorkerId(3), slot: Slot(2) })),
        "{actions:?}"
    );
    assert_eq!(serving(&s), [2, 3]);
    s.make_ready(4);
    assert!(!s.take().contains(&serve(4)), "it is the next spare");
    s.exit(3, 1);
    assert!(s.take().contains(&serve(4)));
    assert_eq!(serving(&s), [2, 4]);
}

#[test]
fn a_spare_that_becomes_ready_after_the_death_serves_then() {
    let mut s = Stage::under(with_spares(1), 2);
    s.make_ready(1);
    s.make_ready(2);
    s.pass(5_000);
    s.take();
    s.exit(1, 1);
    assert!(!s.take().iter().any(|a| matches!(a, Action::Serve { .. })), "none is ready");
    s.make_ready(4);
    assert!(s.take().contains(&serve(4)), "whoever is ready first");
    s.tell(Event::Spawned { worker: WorkerId(3), pid: 3 });
    assert_eq!(s.app.serving_count(), 2);
}

#[test]
fn deaths_of_spares_back_off_and_cost_no_capacity() {
    let mut s = ready();
    s.exit(3, 1);
    assert_eq!(s.spawned(), [4], "the first young death: at once");
    s.exit(4, 1);
    assert!(s.spawned().is_empty());
    s.pass(100);
    assert_eq!(s.spawned(), [5]);
    s.exit(5, 1);
    s.pass(200);
    assert_eq!(s.spawned(), [6]);
    s.exit(6, 1);
    let errored = |a: &Action| matches!(a, Action::Report(Report::AppErrored));
    assert!(!s.take().iter().any(errored), "only the slot of the spare is given up");
    assert_eq!(s.app.serving_count(), 2);
}

#[test]
fn a_worker_that_leaves_by_itself_or_hangs_is_replaced_by_the_spare_too() {
    let mut s = ready();
    s.tell(Event::Leaving { worker: WorkerId(1) });
    assert!(s.take().contains(&serve(3)));
    let hanging = Policy { limits: Limits { hang_ms: Some(1_000), ..Limits::NONE }, ..with_spares(1) };
    let mut s = Stage::under(hanging, 1);
    s.make_ready(1);
    s.make_ready(2);
    s.take();
    s.tell(Event::Hung { worker: WorkerId(2) });
    let actions = s.take();
    assert!(actions.contains(&Action::Kill { worker: WorkerId(2) }), "a hung spare is of no use: {actions:?}");
    s.make_ready(3);
    s.take();
    s.tell(Event::Hung { worker: WorkerId(1) });
    assert!(s.take().contains(&serve(3)));
}

#[test]
fn a_reload_renews_the_spare_last_and_it_stays_a_spare() {
    let mut s = ready();
    s.tell(Event::Reload { to: Generation(2), policy: with_spares(1), slots: 2 });
    for (old, new) in [(1, 4), (2, 5)] {
        assert_eq!(s.spawned(), [new]);
        s.make_ready(new);
        let actions = s.take();
        assert!(
            position(&actions, |a| *a == serve(new))
                < position(&actions, |a| *a == Action::Drain { worker: WorkerId(old) })
        );
        assert_eq!(s.app.serving_count(), 2);
        s.exit(old, 0);
    }
    assert_eq!(s.spawned(), [6]);
    s.make_ready(6);
    let actions = s.take();
    assert!(!actions.contains(&serve(6)) && actions.contains(&Action::Drain { worker: WorkerId(3) }), "{actions:?}");
    s.exit(3, 0);
    assert!(s.reports().contains(&Report::ReloadDone { to: Generation(2) }));
    assert_eq!((s.app.serving_count(), s.app.spare_count()), (2, 1));
}

#[test]
fn the_first_worker_of_a_reload_that_is_watched_is_one_that_serves() {
    let mut s = ready();
    // The spare is now in slot 0.
    s.exit(1, 1);
    s.make_ready(4);
    s.take();
    let watched = Policy { canary_ms: 5_000, ..with_spares(1) };
    s.tell(Event::Reload { to: Generation(2), policy: watched, slots: 2 });
    let first = s.take();
    assert!(first.iter().any(|a| matches!(a, Action::Spawn { slot: Slot(1), .. })), "{first:?}");
    s.make_ready(5);
    assert!(s.take().contains(&serve(5)));
}

#[test]
fn a_reload_adds_spares_and_removes_them() {
    let mut s = Stage::ready(2);
    s.tell(Event::Reload { to: Generation(2), policy: with_spares(1), slots: 2 });
    for (old, new) in [(1, 3), (2, 4)] {
        s.make_ready(new);
        s.exit(old, 0);
    }
    s.take();
    s.make_ready(5);
    assert!(!s.take().contains(&serve(5)));
    assert_eq!((s.app.serving_count(), s.app.spare_count(), s.app.slot_count()), (2, 1, 3));
    // The spare serves in slot 2, which is removed: the one in slot 0 serves for it.
    s.exit(3, 1);
    s.make_ready(6);
    s.tell(Event::Reload { to: Generation(3), policy: policy(), slots: 2 });
    for (old, new) in [(4, 7), (6, 8)] {
        s.make_ready(new);
        s.exit(old, 0);
    }
    assert_eq!((s.app.serving_count(), s.app.spare_count(), s.app.slot_count()), (2, 0, 2));
    assert_eq!(serving(&s), [7, 8]);
    s.exit(5, 0);
    assert!(s.reports().contains(&Report::ReloadDone { to: Generation(3) }));
}

#[test]
fn a_scale_up_uses_the_spare_first_and_a_scale_down_leaves_one() {
    let mut s = ready();
    s.tell(Event::Scale { slots: 3 });
    let actions = s.take();
    assert!(
        actions.contains(&serve(3)) && actions.contains(&Action::Report(Report::Scaled { slots: 3 })),
        "{actions:?}"
    );
    s.make_ready(4);
    assert_eq!((s.app.serving_count(), s.app.spare_count(), s.app.slot_count()), (3, 1, 4));
    s.take();
    // Slots 2 and 3 go, one of which was the spare's: of the two that are left, one is to be a spare.
    s.tell(Event::Scale { slots: 1 });
    let actions = s.take();
    for id in [2, 3, 4] {
        assert!(actions.contains(&Action::Drain { worker: WorkerId(id) }), "{id}: {actions:?}");
    }
    s.make_ready(5);
    assert_eq!((serving(&s), s.app.spare_count(), s.app.slot_count()), (vec![1], 1, 2));
}

#[test]
fn a_spare_over_a_limit_is_replaced_by_a_spare() {
    let mut s = ready();
    s.tell(Event::Replace { worker: WorkerId(3), excess: Excess::Lifetime { lived_ms: 1 } });
    assert_eq!(s.spawned(), [4]);
    s.make_ready(4);
    let actions = s.take();
    assert!(!actions.contains(&serve(4)) && actions.contains(&Action::Drain { worker: WorkerId(3) }), "{actions:?}");
    s.pass(60_000);
    s.tell(Event::Replace { worker: WorkerId(1), excess: Excess::Lifetime { lived_ms: 1 } });
    s.make_ready(5);
    assert!(s.take().contains(&serve(5)), "what takes over from one that serves, serves");
    assert_eq!(serving(&s), [2, 5]);
}

#[test]
fn another_master_keeps_spares_and_promotes_them() {
    let mut s = ready();
    let kept = notes(&mut s);
    let (app, actions) = succeed_under(&s, kept, &with_spares(1));
    assert!(actions.contains(&serve(1)) && actions.contains(&serve(2)) && !actions.contains(&serve(3)), "{actions:?}");
    s.replace(app);
    s.exit(2, 1);
    assert!(s.take().contains(&serve(3)));

    // The death was seen while no master lived, or the promotion was noted and perhaps never done.
    let mut s = ready();
    let mut kept = notes(&mut s);
    kept.workers.retain(|worker| worker.id != WorkerId(1));
    kept.slots[0].current = None;
    let (_, actions) = succeed_under(&s, kept, &with_spares(1));
    assert!(actions.contains(&serve(3)), "{actions:?}");

    // A master that knew no spares noted all three as workers that serve; there is no `wanted` in its notes.
    let mut s = Stage::ready(3);
    let kept = notes(&mut s);
    let (app, _) = succeed_under(&s, kept, &policy());
    assert_eq!((app.serving_count(), app.wanted_count()), (3, 3));
}

#[test]
fn a_stop_ends_spares_and_a_start_makes_new_ones() {
    let mut s = ready();
    s.tell(Event::Start { to: Generation(2), policy: with_spares(2), slots: 1 });
    let actions = s.take();
    assert!(!actions.iter().any(|a| matches!(a, Action::Serve { .. })), "nobody takes over in a stop: {actions:?}");
    for id in 1..=3 {
        s.exit(id, 0);
    }
    assert_eq!(s.spawned(), [4, 5, 6]);
    for id in 4..=6 {
        s.make_ready(id);
    }
    assert_eq!((serving(&s), s.app.spare_count(), s.app.wanted_count()), (vec![4], 2, 1));
}
