//! The canary time of a reload, the comparison of a canary with the others, and drains that are spread: the rules, one named scenario each.
use super::random::Random;
use super::scenarios::{Stage, policy};
use super::successor::{notes, succeed_under};
use super::world::canary::worse;
use clusterd::ids::{Generation, WorkerId};
use clusterd::supervisor::{
    Action, CanaryAmount, CanaryFigures, Cause, Event, ExitStatus, Policy, RELOAD_GONE_MS_MAX, Report, judge_canary,
};

fn watched() -> Policy {
    Policy { canary_ms: 5_000, surge: 2, ..policy() }
}

fn reload(stage: &mut Stage, policy: Policy) {
    stage.tell(Event::Reload { to: Generation(2), policy, slots: 3 });
}

fn drains(stage: &mut Stage) -> Vec<u64> {
    stage
        .take()
        .into_iter()
        .filter_map(|a| if let Action::Drain { worker } = a { Some(worker.0) } else { None })
        .collect()
}

#[test]
fn the_first_new_worker_is_watched_alone_and_nobody_is_drained_meanwhile() {
    let mut s = Stage::ready(3);
    reload(&mut s, watched());
    assert_eq!(s.spawned(), [4], "one, whatever the surge");
    s.make_ready(4);
    let actions = s.take();
    assert!(actions.contains(&Action::Serve { worker: WorkerId(4) }), "it gets its share: {actions:?}");
    assert!(!actions.iter().any(|a| matches!(a, Action::Drain { .. } | Action::Spawn { .. })), "{actions:?}");
    s.pass(4_999);
    assert!(s.take().is_empty());
    s.pass(1);
    let actions = s.take();
    assert!(actions.contains(&Action::Drain { worker: WorkerId(1) }), "{actions:?}");
    assert_eq!(actions.iter().filter(|a| matches!(a, Action::Spawn { .. })).count(), 1, "worker 1 settles");
    s.exit(1, 0);
    assert_eq!(s.spawned(), [6], "now as many as the surge");
}

#[test]
fn a_crash_in_the_canary_time_fails_the_reload_and_the_old_ones_never_stopped() {
    let mut s = Stage::ready(3);
    reload(&mut s, watched());
    s.make_ready(4);
    s.pass(3_000);
    s.take();
    s.exit(4, 1);
    let actions = s.take();
    assert!(!actions.iter().any(|a| matches!(a, Action::Drain { .. } | Action::Spawn { .. })), "{actions:?}");
    let failed = actions.iter().any(
        |a| matches!(a, Action::Report(Report::ReloadFailed { reason, .. }) if reason.contains("exited with code 1")),
    );
    assert!(failed, "{actions:?}");
    assert_eq!(s.app.generation(), Generation(1));
    assert_eq!(s.app.ready_count(), 3);
}

#[test]
fn a_canary_that_leaves_by_itself_has_failed_and_may_finish_what_it_has() {
    let mut s = Stage::ready(3);
    reload(&mut s, watched());
    s.make_ready(4);
    s.take();
    s.tell(Event::Leaving { worker: WorkerId(4) });
    assert_eq!(drains(&mut s), [4]);
    s.exit(4, 0);
    assert!(s.reports().iter().any(|r| matches!(r, Report::ReloadFailed { .. })));
}

#[test]
fn an_old_worker_that_dies_in_the_canary_time_leaves_its_slot_to_the_canary() {
    let mut s = Stage::ready(3);
    reload(&mut s, watched());
    s.make_ready(4);
    s.take();
    s.exit(1, 1);
    let died = s.reports();
    let cause = Cause::Ended(ExitStatus::Code(1));
    assert!(died.iter().any(|r| matches!(r, Report::WorkerDied { cause: c, .. } if *c == cause)), "{died:?}");
    s.pass(5_000);
    assert_eq!(s.spawned(), [5, 6], "the slot is done, the others follow");
}

#[test]
fn a_slot_that_has_neither_canary_nor_old_worker_is_filled_from_what_served() {
    let mut s = Stage::ready(3);
    reload(&mut s, watched());
    s.make_ready(4);
    s.exit(1, 1);
    s.take();
    s.exit(4, 1);
    let spawned = s.take().into_iter().find_map(|a| match a {
        Action::Spawn { slot, generation, .. } => Some((slot.0, generation)),
        _ => None,
    });
    assert_eq!(spawned, Some((0, Generation(1))));
}

#[test]
fn spread_drains_end_one_after_the_other() {
    let spread = Policy { drain_spread_ms: 9_000, ..policy() };
    let mut s = Stage::under(spread.clone(), 3);
    for id in 1..=3 {
        s.make_ready(id);
    }
    reload(&mut s, Policy { surge: 3, ..spread });
    for id in 4..=6 {
        s.make_ready(id);
    }
    s.take();
    let mut ended = Vec::new();
    for _ in 0..20 {
        s.pass(1_000);
        let now = s.now_ms;
        ended.extend(s.take().into_iter().filter_map(|a| match a {
            Action::Terminate { worker } => Some((now, worker.0)),
            _ => None,
        }));
    }
    assert_eq!(ended, [(10_000, 1), (13_000, 2), (16_000, 3)], "the time-out, and a third of the spread each");
}

#[test]
fn the_next_slot_waits_for_the_old_worker_to_be_gone_but_not_for_long() {
    let mut s = Stage::ready(3);
    reload(&mut s, policy());
    assert_eq!(s.spawned(), [4]);
    s.make_ready(4);
    let actions = s.take();
    assert!(actions.contains(&Action::Drain { worker: WorkerId(1) }), "{actions:?}");
    assert!(!actions.iter().any(|a| matches!(a, Action::Spawn { .. })), "its clients come back now: {actions:?}");
    s.pass(10);
    s.exit(1, 0);
    assert_eq!(s.spawned(), [5], "gone: the next one follows at once");
    s.make_ready(5);
    s.take();
    s.pass(RELOAD_GONE_MS_MAX - 1);
    assert!(s.spawned().is_empty());
    s.pass(1);
    assert_eq!(s.spawned(), [6], "connections that last do not hold the reload up");
}

#[test]
fn slots_that_settle_count_as_part_of_the_surge() {
    let mut s = Stage::ready(3);
    reload(&mut s, Policy { surge: 2, ..policy() });
    assert_eq!(s.spawned(), [4, 5]);
    s.make_ready(4);
    assert!(s.spawned().is_empty());
    s.exit(1, 0);
    assert_eq!(s.spawned(), [6], "one of two is done");
}

#[test]
fn where_the_old_worker_had_clients_the_next_slot_gives_the_new_one_time() {
    let mut s = Stage::ready(3);
    reload(&mut s, policy());
    s.make_ready(4);
    s.tell(Event::HasClients { worker: WorkerId(1) });
    s.take();
    s.pass(20);
    s.exit(1, 0);
    s.pass(579);
    assert!(s.spawned().is_empty(), "gone or not");
    s.pass(1);
    assert_eq!(s.spawned(), [5]);
    s.make_ready(5);
    s.take();
    s.pass(20);
    s.exit(2, 0);
    assert_eq!(s.spawned(), [6], "this one had none");
    s.make_ready(6);
    s.tell(Event::HasClients { worker: WorkerId(3) });
    s.exit(3, 0);
    let done = Report::ReloadDone { to: Generation(2) };
    assert!(s.reports().contains(&done), "nothing follows the last slot: the reload is over");
}

#[test]
fn a_roll_back_waits_for_nobody() {
    let mut s = Stage::ready(3);
    reload(&mut s, Policy { surge: 2, ..policy() });
    s.make_ready(4);
    s.tell(Event::HasClients { worker: WorkerId(1) });
    assert_eq!(s.spawned(), [4, 5], "worker 4 settles");
    s.exit(5, 1);
    assert_eq!(s.spawned(), [6], "the slot that was done is done again, at once");
}

#[test]
fn a_canary_that_is_worse_than_the_others_is_drained_and_they_serve_on() {
    let mut s = Stage::ready(3);
    reload(&mut s, watched());
    s.make_ready(4);
    assert!(s.take().contains(&Action::WatchCanary { worker: WorkerId(4) }));
    s.worse = Some(worse());
    s.pass(5_000);
    let actions = s.take();
    assert!(actions.contains(&Action::JudgeCanary { worker: WorkerId(4) }), "{actions:?}");
    assert!(actions.contains(&Action::Drain { worker: WorkerId(4) }), "{actions:?}");
    assert!(!actions.iter().any(|a| matches!(a, Action::Spawn { .. })), "{actions:?}");
    s.exit(4, 0);
    let reason = "the canary printed 120 lines on stderr for 40 connections, the others 0 for 120 (allowed: 20)";
    let failed = Report::ReloadFailed { to: Generation(2), reason: reason.to_owned() };
    let reports = s.reports();
    assert!(reports.contains(&failed), "{reports:?}");
    assert_eq!((s.app.generation(), s.app.ready_count(), s.app.is_reloading()), (Generation(1), 3, false));
}

#[test]
fn a_verdict_that_comes_late_or_for_another_worker_decides_nothing() {
    let mut s = Stage::ready(2);
    s.tell(Event::CanaryJudged { worker: WorkerId(1), worse: Some(worse()) });
    reload(&mut s, watched());
    s.make_ready(3);
    s.take();
    s.tell(Event::CanaryJudged { worker: WorkerId(1), worse: Some(worse()) });
    assert!(s.take().is_empty());
    s.pass(5_000);
    s.take();
    // It has its slot.
    s.tell(Event::CanaryJudged { worker: WorkerId(3), worse: Some(worse()) });
    assert!(s.take().is_empty());
}

#[test]
fn a_canary_under_another_master_is_watched_for_its_whole_time_again() {
    let mut s = Stage::ready(1);
    s.tell(Event::Reload { to: Generation(2), policy: watched(), slots: 1 });
    s.make_ready(2);
    s.pass(4_900);
    let left = notes(&mut s);
    let (app, actions) = succeed_under(&s, left, &watched());
    assert!(actions.contains(&Action::WatchCanary { worker: WorkerId(2) }), "{actions:?}");
    s.replace(app);
    s.take();
    s.worse = Some(worse());
    s.pass(4_999);
    assert!(s.take().is_empty(), "what the master before had measured is gone");
    s.pass(1);
    assert!(s.take().contains(&Action::Drain { worker: WorkerId(2) }));
}

/// A release and the one before it under the same load, with noise: how often a canary is taken back.
fn taken_back(lines_each: (u64, u64), cpu_ms_each: (u64, u64), connections: (u64, u64)) -> usize {
    let mut random = Random::new(7);
    let mut side = |workers: u64, lines_each: u64, cpu_ms_each: u64| {
        let mut sum = CanaryFigures::default();
        for _ in 0..workers {
            let units = random.between(connections.0, connections.1);
            let mut noise = |each: u64| {
                let sum = (0..units).map(|_| random.between(0, 2 * each)).sum();
                Some(CanaryAmount { sum, units })
            };
            let (stderr_lines, cpu_ms) = (noise(lines_each), noise(cpu_ms_each));
            sum.add(&CanaryFigures { stderr_lines, cpu_ms, ..CanaryFigures::default() });
        }
        sum
    };
    let is_worse = |_: &usize| {
        let (old, new) = (side(3, lines_each.0, cpu_ms_each.0), side(1, lines_each.1, cpu_ms_each.1));
        judge_canary(&new, &old, 3).worse.is_some()
    };
    (0..200).filter(is_worse).count()
}

#[test]
fn a_canary_as_good_as_the_others_passes_under_noise_and_a_worse_one_never() {
    assert_eq!(taken_back((0, 0), (5, 5), (0, 400)), 0);
    assert_eq!(taken_back((2, 2), (20, 20), (0, 400)), 0, "an access log on stderr");
    assert_eq!(taken_back((1, 2), (20, 30), (0, 400)), 0, "somewhat worse");
    assert_eq!(taken_back((0, 3), (5, 5), (20, 400)), 200, "errors");
    assert_eq!(taken_back((0, 0), (5, 50), (40, 400)), 200, "ten times the CPU time");
    assert_eq!(taken_back((0, 100), (5, 500), (0, 9)), 0, "a load that says nothing");
}
