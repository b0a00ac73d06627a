//! The command that runs before the workers of a generation: the rules, one named scenario each.
use super::scenarios::{Stage, policy};
use super::successor::{notes, succeed_under};
use clusterd::ids::{Generation, Slot, WorkerId};
use clusterd::supervisor::{Action, BeforePolicy, Cause, Event, ExitStatus, Next, Obstacle, Phase, Policy, Report};

fn with_before() -> Policy {
    Policy { before: Some(BeforePolicy { timeout_ms: 3_000, kill_timeout_ms: 700 }), ..policy() }
}

fn runs(stage: &mut Stage, id: u64) {
    stage.tell(Event::Spawned { worker: WorkerId(id), pid: id as i32 });
}

/// What was spawned, in which slot.
fn spawned(actions: &[Action]) -> Vec<(u64, Slot)> {
    let spawn = |action: &Action| match action {
        Action::Spawn { worker, slot, .. } => Some((worker.0, *slot)),
        _ => None,
    };
    actions.iter().filter_map(spawn).collect()
}

/// Two workers (2, 3) of generation 1, whose command (1) has ended well.
fn serving() -> Stage {
    let mut s = Stage::under(with_before(), 2);
    runs(&mut s, 1);
    s.exit(1, 0);
    s.make_ready(2);
    s.make_ready(3);
    s.take();
    s
}

fn reload(stage: &mut Stage) -> Vec<(u64, Slot)> {
    stage.tell(Event::Reload { to: Generation(2), policy: with_before(), slots: 2 });
    spawned(&stage.take())
}

fn failure(reports: &[Report]) -> Option<&str> {
    reports.iter().find_map(|report| match report {
        Report::ReloadFailed { to: Generation(2), reason } => Some(reason.as_str()),
        _ => None,
    })
}

#[test]
fn it_runs_once_however_many_workers_wait_for_it() {
    let mut s = Stage::under(with_before(), 2);
    assert_eq!(spawned(&s.take()), [(1, Slot::BEFORE)]);
    runs(&mut s, 1);
    s.pass(2_900);
    assert!(s.app.before().unwrap().process.is_some() && spawned(&s.take()).is_empty());
    s.exit(1, 0);
    let seen = s.take();
    assert_eq!(spawned(&seen), [(2, Slot(0)), (3, Slot(1))]);
    assert!(seen.iter().any(|a| matches!(a, Action::Report(Report::BeforeDone { after_ms: 2_900, .. }))), "{seen:?}");
    let before = s.app.before().unwrap();
    assert!(before.is_done && before.process.is_none());
    s.make_ready(2);
    s.make_ready(3);
    s.take();
    s.pass(5_000);
    s.exit(2, 1);
    assert_eq!(spawned(&s.take()), [(4, Slot(0))], "the next worker of the generation needs no command");
    s.tell(Event::Scale { slots: 3 });
    assert_eq!(spawned(&s.take()), [(5, Slot(2))]);
}

#[test]
fn in_a_reload_the_old_workers_serve_and_are_replaced_until_it_has_ended() {
    let mut s = serving();
    assert_eq!(reload(&mut s), [(4, Slot::BEFORE)]);
    runs(&mut s, 4);
    s.pass(2_000);
    s.exit(2, 1);
    let seen = s.take();
    let old = |a: &Action| matches!(a, Action::Spawn { slot: Slot(0), generation: Generation(1), .. });
    assert!(seen.iter().any(old), "{seen:?}");
    s.make_ready(5);
    s.take();
    s.exit(4, 0);
    let seen = s.take();
    let new = |a: &Action| matches!(a, Action::Spawn { slot: Slot(0), generation: Generation(2), .. });
    assert!(seen.iter().any(new), "{seen:?}");
}

#[test]
fn its_failure_ends_a_reload_and_no_worker_is_touched() {
    for (code, wanted) in [(Some(3), "before exited with code 3"), (None, "before did not end within 3 s")] {
        let mut s = serving();
        reload(&mut s);
        runs(&mut s, 4);
        match code {
            Some(code) => s.exit(4, code),
            None => s.pass(3_000),
        }
        let seen = s.take();
        let ended = |a: &Action| matches!(a, Action::Drain { .. } | Action::Spawn { .. });
        assert!(!seen.iter().any(ended), "{seen:?}");
        let reports: Vec<Report> =
            seen.into_iter().filter_map(|a| if let Action::Report(report) = a { Some(report) } else { None }).collect();
        assert_eq!(failure(&reports), Some(wanted));
        assert_eq!((s.app.ready_count(), s.app.generation()), (2, Generation(1)));
        s.pass(60_000);
        assert!(spawned(&s.take()).is_empty(), "a reload does not try it again");
    }
}

#[test]
fn one_that_cannot_run_fails_the_reload_too() {
    let mut s = serving();
    reload(&mut s);
    let (worker, reason, obstacle) = (WorkerId(4), "no such file".to_owned(), Obstacle::Lasting);
    s.tell(Event::SpawnFailed { worker, reason, obstacle });
    assert_eq!(failure(&s.reports()), Some("before could not be started: no such file"));
}

#[test]
fn a_command_that_is_over_its_time_is_ended_and_the_next_reload_waits_for_that() {
    let mut s = serving();
    reload(&mut s);
    runs(&mut s, 4);
    s.pass(3_000);
    let seen = s.take();
    assert!(seen.contains(&Action::Terminate { worker: WorkerId(4) }), "{seen:?}");
    s.tell(Event::Reload { to: Generation(3), policy: with_before(), slots: 2 });
    s.pass(699);
    assert!(spawned(&s.take()).is_empty(), "two would run at a time");
    s.pass(1);
    assert!(s.take().contains(&Action::Kill { worker: WorkerId(4) }));
    s.tell(Event::Exited { worker: WorkerId(4), status: ExitStatus::Signal(9), at_ms: s.now_ms });
    assert_eq!(spawned(&s.take()), [(5, Slot::BEFORE)]);
}

#[test]
fn at_a_start_it_is_tried_again_as_a_worker_is_and_given_up() {
    let mut s = Stage::under(with_before(), 2);
    let mut tries = 0;
    while let [(id, Slot::BEFORE)] = spawned(&s.take())[..] {
        runs(&mut s, id);
        s.exit(id, 1);
        tries += 1;
        assert!(tries < 10, "it is never given up");
        s.pass(4_000);
    }
    assert_eq!(tries, 4);
    assert!(s.app.is_errored() && s.app.is_over());
}

#[test]
fn one_that_no_file_is_there_for_is_given_up_at_once() {
    let mut s = Stage::under(with_before(), 1);
    let (worker, reason, obstacle) = (WorkerId(1), "no such file".to_owned(), Obstacle::Lasting);
    s.tell(Event::SpawnFailed { worker, reason: reason.clone(), obstacle });
    let reports = s.reports();
    let cause = Cause::NotStarted { reason, obstacle };
    let failed = Report::BeforeFailed { process: worker, pid: None, cause, lived_ms: 0, next: Next::GivenUp };
    assert!(reports.contains(&failed) && reports.contains(&Report::AppErrored), "{reports:?}");
}

#[test]
fn a_stop_ends_it_and_nothing_starts() {
    let mut s = Stage::under(with_before(), 2);
    runs(&mut s, 1);
    s.take();
    s.tell(Event::Stop { now: false });
    let seen = s.take();
    assert!(seen.contains(&Action::Terminate { worker: WorkerId(1) }), "{seen:?}");
    assert!(!seen.contains(&Action::Report(Report::AppStopped)), "it still lives");
    s.exit(1, 0);
    let seen = s.take();
    assert!(seen.contains(&Action::Report(Report::AppStopped)) && spawned(&seen).is_empty(), "{seen:?}");
}

#[test]
fn a_successor_takes_it_over_and_never_runs_it_again_once_it_has_ended_well() {
    let mut s = serving();
    reload(&mut s);
    runs(&mut s, 4);
    let saved = notes(&mut s);
    let (app, actions) = succeed_under(&s, saved, &with_before());
    assert!(spawned(&actions).is_empty(), "it runs: {actions:?}");
    let process = app.before().unwrap().process.unwrap();
    assert!(process.id == WorkerId(4) && matches!(process.phase, Phase::Starting { .. }));
    s.replace(app);
    s.exit(4, 0);
    assert_eq!(spawned(&s.take()), [(5, Slot(0))]);
    let saved = notes(&mut s);
    let (_, actions) = succeed_under(&s, saved, &with_before());
    assert!(spawned(&actions).iter().all(|(_, slot)| *slot != Slot::BEFORE), "{actions:?}");
}

// ---- a generation that waits for other apps ----

fn held() -> Stage {
    let mut s = serving();
    s.tell(Event::Hold { generation: Generation(2) });
    assert!(reload(&mut s).is_empty(), "not even its command starts");
    s
}

#[test]
fn a_reload_that_is_held_begins_when_it_is_admitted_and_the_old_workers_are_replaced_meanwhile() {
    let mut s = held();
    s.pass(5_000);
    s.exit(2, 1);
    let seen = s.take();
    let old = |a: &Action| matches!(a, Action::Spawn { slot: Slot(0), generation: Generation(1), .. });
    assert!(seen.iter().any(old), "{seen:?}");
    let saved = notes(&mut s);
    let (app, actions) = succeed_under(&s, saved, &with_before());
    assert!(app.held() == Some(Generation(2)) && spawned(&actions).is_empty(), "{actions:?}");
    s.replace(app);
    s.tell(Event::Admit { generation: Generation(2) });
    let seen = s.take();
    assert!(seen.iter().any(|a| matches!(a, Action::Spawn { slot: Slot::BEFORE, .. })), "{seen:?}");
}

#[test]
fn a_reload_whose_dependency_has_failed_fails_and_touches_no_worker() {
    let mut s = held();
    s.tell(Event::Abandon { generation: Generation(2), reason: "api was not reloaded".to_owned() });
    let reports = s.reports();
    assert_eq!(failure(&reports), Some("api was not reloaded"));
    assert_eq!((s.app.ready_count(), s.app.held()), (2, None));
}

#[test]
fn a_start_that_is_held_runs_nothing_and_ends_errored_where_what_it_waits_for_never_comes() {
    for admit in [true, false] {
        let mut s = Stage::held(policy(), 2);
        assert!(spawned(&s.take()).is_empty());
        s.pass(60_000);
        let generation = Generation(1);
        if admit {
            s.tell(Event::Admit { generation });
            assert_eq!(spawned(&s.take()), [(1, Slot(0)), (2, Slot(1))]);
        } else {
            s.tell(Event::Abandon { generation, reason: "api has failed".to_owned() });
            assert!(s.reports().contains(&Report::AppErrored) && s.app.is_over());
        }
    }
}

#[test]
fn a_start_that_was_held_goes_on_where_a_reload_of_it_has_failed() {
    let mut s = Stage::held(policy(), 2);
    s.take();
    s.tell(Event::Hold { generation: Generation(2) });
    assert!(reload(&mut s).is_empty());
    s.tell(Event::Abandon { generation: Generation(2), reason: "api was not reloaded".to_owned() });
    let reports = s.reports();
    assert_eq!(failure(&reports), Some("api was not reloaded"));
    assert!(reports.contains(&Report::Held { generation: Generation(1) }), "{reports:?}");
    s.tell(Event::Admit { generation: Generation(1) });
    assert_eq!(spawned(&s.take()), [(1, Slot(0)), (2, Slot(1))]);
}

#[test]
fn a_stop_ends_the_wait() {
    let mut s = Stage::held(policy(), 1);
    s.take();
    s.tell(Event::Stop { now: false });
    assert!(s.reports().contains(&Report::AppStopped));
    s.tell(Event::Admit { generation: Generation(1) });
    assert!(spawned(&s.take()).is_empty());
}
