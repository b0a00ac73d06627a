//! What makes a worker ready beside listen(): a good answer to an HTTP request, and its age. The rules, one named scenario each.
use super::scenarios::{Stage, policy};
use super::successor::{notes, succeed_under};
use clusterd::ids::{Generation, WorkerId};
use clusterd::supervisor::{Action, Cause, Event, Evidence, Phase, Policy, ReadyBy, ReadyRule, Report};

fn asked() -> Policy {
    Policy { ready: ReadyRule { evidence: Some(Evidence::Http), after_ms: None }, ready_timeout_ms: 3_000, ..policy() }
}

fn listens(stage: &mut Stage, id: u64) {
    let worker = WorkerId(id);
    stage.tell(Event::Spawned { worker, pid: id as i32 });
    stage.tell(Event::Online { worker });
    stage.tell(Event::Evidence { worker, evidence: Evidence::Listening });
}

fn answers(stage: &mut Stage, id: u64, status: u16) {
    let worker = WorkerId(id);
    stage.tell(match status {
        200 => Event::Evidence { worker, evidence: Evidence::Http },
        _ => Event::NotYet { worker, why: format!("GET /healthz was answered with {status}") },
    });
}

/// Why a worker was lost for not being ready.
fn not_ready(reports: &[Report]) -> Option<String> {
    reports.iter().find_map(|report| match report {
        Report::WorkerDied { cause: Cause::NotReady { ms: 3_000, why }, .. } => why.clone(),
        _ => None,
    })
}

#[test]
fn a_worker_that_listens_is_not_ready_before_it_answers_well() {
    let mut s = Stage::under(asked(), 1);
    listens(&mut s, 1);
    answers(&mut s, 1, 503);
    s.pass(2_900);
    answers(&mut s, 1, 503);
    assert!(!s.take().contains(&Action::Serve { worker: WorkerId(1) }));
    answers(&mut s, 1, 200);
    assert!(s.take().contains(&Action::Serve { worker: WorkerId(1) }), "late, and in time");
    s.pass(10_000);
    assert_eq!(s.app.ready_count(), 1);
}

#[test]
fn a_worker_that_never_listens_or_never_answers_well_has_failed_and_the_last_word_is_told() {
    let mut s = Stage::under(asked(), 1);
    s.tell(Event::Spawned { worker: WorkerId(1), pid: 1 });
    s.pass(3_000);
    // Its replacement is spawned; the death is told when that runs.
    listens(&mut s, 2);
    let why = not_ready(&s.reports()).unwrap();
    assert!(why.contains("listen()"), "{why}");

    let mut s = Stage::under(asked(), 1);
    listens(&mut s, 1);
    answers(&mut s, 1, 503);
    answers(&mut s, 1, 500);
    s.pass(2_999);
    assert!(s.take().iter().all(|a| !matches!(a, Action::Terminate { .. })));
    s.pass(1);
    let actions = s.take();
    assert!(actions.contains(&Action::Terminate { worker: WorkerId(1) }), "{actions:?}");
    listens(&mut s, 2);
    assert_eq!(not_ready(&s.reports()).as_deref(), Some("GET /healthz was answered with 500"));
    answers(&mut s, 1, 200);
    assert!(!s.take().contains(&Action::Serve { worker: WorkerId(1) }), "too late");
}

#[test]
fn a_reload_to_code_that_answers_500_goes_back_and_says_so() {
    let mut s = Stage::under(asked(), 2);
    for id in [1, 2] {
        listens(&mut s, id);
        answers(&mut s, id, 200);
    }
    s.take();
    s.tell(Event::Reload { to: Generation(2), policy: asked(), slots: 2 });
    listens(&mut s, 3);
    answers(&mut s, 3, 500);
    s.pass(3_000);
    s.exit(3, 0);
    let reports = s.reports();
    let reason = reports.iter().find_map(|report| match report {
        Report::ReloadFailed { reason, .. } => Some(reason.as_str()),
        _ => None,
    });
    assert_eq!(reason, Some("the new worker was not ready after 3 s: GET /healthz was answered with 500"));
    assert_eq!((s.app.ready_count(), s.app.generation()), (2, Generation(1)));
}

#[test]
fn a_master_that_dies_in_the_middle_takes_no_time_from_the_worker_and_gives_it_none() {
    let mut s = Stage::under(asked(), 1);
    listens(&mut s, 1);
    answers(&mut s, 1, 503);
    s.pass(1_000);
    let noted = notes(&mut s);
    let (successor, actions) = succeed_under(&s, noted, &asked());
    assert!(!actions.contains(&Action::Serve { worker: WorkerId(1) }), "{actions:?}");
    let phase = successor.worker(WorkerId(1)).unwrap().phase;
    assert!(matches!(phase, Phase::Starting { deadline_ms: 3_000, .. }), "{phase:?}");
    s.replace(successor);
    answers(&mut s, 1, 200);
    assert!(s.take().contains(&Action::Serve { worker: WorkerId(1) }), "asked again, it answered");
}

#[test]
fn a_worker_whose_message_never_comes_counts_as_ready_by_its_age_and_that_is_told() {
    let ready = ReadyRule { evidence: Some(Evidence::Message), after_ms: Some(4_000) };
    let mut s = Stage::under(Policy { ready, ready_timeout_ms: 4_000, ..policy() }, 2);
    // The time to get ready counts from the order, the age from the process.
    s.pass(10);
    for id in 1..=2 {
        s.tell(Event::Spawned { worker: WorkerId(id), pid: id as i32 });
    }
    s.tell(Event::Evidence { worker: WorkerId(2), evidence: Evidence::Message });
    s.pass(3_999);
    assert_eq!(s.app.ready_count(), 1);
    s.pass(1);
    let ready = s.reports().into_iter().filter_map(|report| match report {
        Report::WorkerReady { worker, by, .. } => Some((worker.0, by)),
        _ => None,
    });
    assert_eq!(ready.collect::<Vec<_>>(), [(2, ReadyBy::Evidence), (1, ReadyBy::Age)]);
}
