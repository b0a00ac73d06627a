//! Warm-up: a worker that is ready answers some requests before it serves. The rules, one named scenario each.
use super::scenarios::{Stage, policy};
use super::successor::{notes, succeed_under};
use clusterd::ids::{Generation, WorkerId};
use clusterd::supervisor::{Action, Event, ExitStatus, Report};
use clusterd::supervisor::{AgentPolicy, Cause, Evidence, Phase, Policy, ReadyBy, ReadyRule};

fn warmed() -> Policy {
    Policy { warms_up: true, ..policy() }
}

const fn warm_up(id: u64) -> Action {
    Action::WarmUp { worker: WorkerId(id) }
}

const fn serve(id: u64) -> Action {
    Action::Serve { worker: WorkerId(id) }
}

fn is_warm(stage: &mut Stage, id: u64) {
    stage.tell(Event::Warmed { worker: WorkerId(id) });
}

/// Its workers serve.
fn serving(workers: u32) -> Stage {
    let mut s = Stage::under(warmed(), workers);
    for id in 1..=u64::from(workers) {
        s.make_ready(id);
        is_warm(&mut s, id);
    }
    s.take();
    s
}

fn failure(reports: &[Report]) -> Option<&str> {
    reports.iter().find_map(|report| match report {
        Report::ReloadFailed { reason, .. } => Some(reason.as_str()),
        _ => None,
    })
}

#[test]
fn a_worker_serves_once_it_has_answered_its_warm_up_and_is_asked_for_it_once() {
    let mut s = Stage::under(warmed(), 1);
    is_warm(&mut s, 1);
    s.make_ready(1);
    let actions = s.take();
    assert!(actions.contains(&warm_up(1)) && !actions.contains(&serve(1)), "{actions:?}");
    s.tell(Event::Evidence { worker: WorkerId(1), evidence: Evidence::Listening });
    s.pass(1_000);
    assert_eq!((s.take(), s.app.ready_count()), (vec![], 0), "said twice");
    assert_eq!(s.app.not_yet(WorkerId(1)), Some("its warm-up has not ended"));
    is_warm(&mut s, 1);
    let actions = s.take();
    assert!(actions.contains(&serve(1)) && s.app.ready_count() == 1, "{actions:?}");
    is_warm(&mut s, 1);
    assert_eq!(s.take(), []);
}

#[test]
fn a_reload_goes_on_to_the_next_slot_when_the_new_worker_is_warm() {
    let mut s = serving(2);
    s.tell(Event::Reload { to: Generation(2), policy: warmed(), slots: 2 });
    s.make_ready(3);
    s.pass(4_900);
    let actions = s.take();
    assert!(!actions.iter().any(|a| matches!(a, Action::Drain { .. } | Action::Serve { .. })), "{actions:?}");
    is_warm(&mut s, 3);
    let actions = s.take();
    assert!(actions.contains(&serve(3)) && actions.contains(&Action::Drain { worker: WorkerId(1) }), "{actions:?}");
}

#[test]
fn a_worker_that_dies_while_it_is_warmed_up_has_died_before_it_was_ready() {
    let mut s = serving(2);
    s.tell(Event::Reload { to: Generation(2), policy: warmed(), slots: 2 });
    s.make_ready(3);
    s.exit(3, 7);
    let reports = s.reports();
    assert_eq!(failure(&reports), Some("the new worker exited with code 7"));
    assert_eq!((s.app.ready_count(), s.app.generation()), (2, Generation(1)), "nothing was touched");

    // At a start it is a young failure, however long it lived.
    let mut s = Stage::under(Policy { ready_timeout_ms: 20_000, ..warmed() }, 1);
    for id in 1..=4 {
        s.make_ready(id);
        s.pass(5_000);
        s.exit(id, 7);
        s.pass(400);
    }
    let reports = s.reports();
    let given_up = reports.iter().any(|report| matches!(report, Report::AppErrored));
    assert!(given_up, "{reports:?}");
    let died = |report: &Report| match report {
        Report::WorkerDied { cause, .. } => Some(cause.clone()),
        _ => None,
    };
    assert!(reports.iter().filter_map(died).all(|cause| cause == Cause::Ended(ExitStatus::Code(7))), "{reports:?}");
}

#[test]
fn a_warm_up_has_the_time_to_get_ready_once_more_and_then_the_worker_has_failed() {
    let mut s = serving(1);
    s.tell(Event::Reload { to: Generation(2), policy: warmed(), slots: 1 });
    s.pass(4_999);
    s.make_ready(2);
    s.pass(4_999);
    s.tell(Event::NotYet { worker: WorkerId(2), why: "GET / was not answered within 5 s".to_owned() });
    assert_eq!(failure(&s.reports()), None);
    s.pass(1);
    s.exit(2, 0);
    let reports = s.reports();
    let reason = failure(&reports);
    assert_eq!(reason, Some("the new worker was not ready after 5 s: GET / was not answered within 5 s"));
    assert_eq!((s.app.ready_count(), s.app.generation()), (1, Generation(1)));
}

#[test]
fn the_next_master_warms_up_from_the_beginning_in_the_time_that_is_left() {
    let mut s = Stage::under(warmed(), 1);
    s.make_ready(1);
    s.pass(3_000);
    let noted = notes(&mut s);
    let (successor, actions) = succeed_under(&s, noted, &warmed());
    assert!(actions.contains(&warm_up(1)) && !actions.contains(&serve(1)), "{actions:?}");
    let phase = successor.worker(WorkerId(1)).unwrap().phase;
    let warming = Some(ReadyBy::Evidence);
    assert!(matches!(phase, Phase::Starting { deadline_ms: 5_000, warming: w, .. } if w == warming), "{phase:?}");
    s.replace(successor);
    s.take();
    is_warm(&mut s, 1);
    assert!(s.take().contains(&serve(1)));
}

#[test]
fn a_worker_that_is_ready_by_its_age_is_warmed_up_too_and_an_agent_never() {
    let age = ReadyRule { evidence: None, after_ms: Some(5_000) };
    let agent =
        AgentPolicy { ready: age.clone(), ready_timeout_ms: 9_000, kill_timeout_ms: 1_000, restart_delay_ms: 100 };
    let mut s = Stage::under(Policy { ready: age, agent: Some(agent), ..warmed() }, 1);
    s.tell(Event::Spawned { worker: WorkerId(1), pid: 1 });
    s.pass(5_000);
    let actions = s.take();
    assert!(actions.iter().any(|a| matches!(a, Action::Report(Report::AgentReady { .. }))), "{actions:?}");
    assert!(!actions.contains(&warm_up(1)), "{actions:?}");
    s.tell(Event::Spawned { worker: WorkerId(2), pid: 2 });
    s.pass(5_000);
    assert!(s.take().contains(&warm_up(2)));
    s.pass(4_999);
    is_warm(&mut s, 2);
    let reports = s.reports();
    let by = reports.iter().find_map(|r| if let Report::WorkerReady { by, .. } = r { Some(*by) } else { None });
    assert_eq!(by, Some(ReadyBy::Age));
}

#[test]
fn a_spare_is_warm_before_it_is_one() {
    let mut s = Stage::under(Policy { spares: 1, ..warmed() }, 1);
    for id in 1..=2 {
        s.make_ready(id);
    }
    is_warm(&mut s, 2);
    is_warm(&mut s, 1);
    let served: Vec<Action> = s.take().into_iter().filter(|a| matches!(a, Action::Serve { .. })).collect();
    assert_eq!(served, [serve(2)], "the first that is warm serves");
    assert_eq!(s.app.spare_count(), 1);
    s.exit(2, 1);
    assert!(s.take().contains(&serve(1)), "and the other one at once when that dies");
}
