//! The agent of an app: the rules, one named scenario each.
use super::scenarios::{Stage, policy};
use super::successor::{notes, succeed_under};
use clusterd::ids::{Generation, Slot, WorkerId};
use clusterd::supervisor::{
    Action, AgentPolicy, Cause, Event, Evidence, ExitStatus, Next, Obstacle, Phase, Policy, ReadyRule, Report,
};

fn with_agent() -> Policy {
    let agent = AgentPolicy {
        ready: ReadyRule { evidence: Some(Evidence::Message), after_ms: None },
        ready_timeout_ms: 3_000,
        kill_timeout_ms: 700,
        restart_delay_ms: 1_000,
    };
    Policy { agent: Some(agent), backoff_max_ms: 3_000, ..policy() }
}

fn runs(stage: &mut Stage, id: u64) {
    stage.tell(Event::Spawned { worker: WorkerId(id), pid: id as i32 });
}

fn agent_ready(stage: &mut Stage, id: u64) {
    runs(stage, id);
    stage.tell(Event::Evidence { worker: WorkerId(id), evidence: Evidence::Message });
}

/// What was spawned, in which slot.
fn spawned(stage: &mut Stage) -> Vec<(u64, Slot)> {
    let spawn = |action| match action {
        Action::Spawn { worker, slot, .. } => Some((worker.0, slot)),
        _ => None,
    };
    stage.take().into_iter().filter_map(spawn).collect()
}

/// Two workers beside an agent (1), all of them ready.
fn serving() -> Stage {
    let mut s = Stage::under(with_agent(), 2);
    agent_ready(&mut s, 1);
    s.make_ready(2);
    s.make_ready(3);
    s.take();
    s
}

fn waits(reports: &[Report]) -> Vec<u64> {
    let next = |report: &Report| match report {
        Report::AgentDied { next: Next::Waiting { ms, .. }, .. } => Some(*ms),
        _ => None,
    };
    reports.iter().filter_map(next).collect()
}

#[test]
fn workers_wait_for_the_agent_and_start_when_it_is_ready() {
    let mut s = Stage::under(with_agent(), 2);
    assert_eq!(spawned(&mut s), [(1, Slot::AGENT)]);
    runs(&mut s, 1);
    s.tell(Event::Evidence { worker: WorkerId(1), evidence: Evidence::Listening });
    s.pass(2_900);
    assert!(spawned(&mut s).is_empty(), "listening makes no agent ready");
    s.tell(Event::Evidence { worker: WorkerId(1), evidence: Evidence::Message });
    assert_eq!(spawned(&mut s), [(2, Slot(0)), (3, Slot(1))]);
    assert!(!s.app.workers().any(|w| w.id == WorkerId(1)), "an agent is not a worker");
    assert_eq!(s.app.ready_agent(), Some(WorkerId(1)));
}

#[test]
fn an_agent_that_dies_is_started_again_after_its_delay_and_the_workers_stay() {
    let mut s = serving();
    s.pass(10_000);
    s.exit(1, 1);
    let seen = s.take();
    assert!(!seen.iter().any(|a| matches!(a, Action::Terminate { .. } | Action::Drain { .. } | Action::Spawn { .. })));
    s.pass(999);
    assert!(spawned(&mut s).is_empty());
    s.pass(1);
    assert_eq!(spawned(&mut s), [(4, Slot::AGENT)]);
    assert_eq!(s.app.ready_count(), 2);
    assert_eq!(s.app.agent().unwrap().restarts, 1);
}

#[test]
fn the_wait_for_the_next_agent_doubles_while_they_die_young_and_never_ends() {
    let mut s = serving();
    let mut id = 1;
    let mut seen = Vec::new();
    for _ in 0..5 {
        s.exit(id, 1);
        let wait_ms = waits(&s.reports())[0];
        seen.push(wait_ms);
        s.pass(wait_ms);
        id = spawned(&mut s)[0].0;
        agent_ready(&mut s, id);
    }
    assert_eq!(seen, [1_000, 2_000, 3_000, 3_000, 3_000], "up to the longest wait of the backoff, for ever");
    s.pass(1_000);
    s.exit(id, 1);
    assert_eq!(waits(&s.reports()), [1_000], "one that has lived long enough ends the backoff");
    assert_eq!(s.app.ready_count(), 2);
}

#[test]
fn workers_whose_agent_was_never_ready_give_up_with_it() {
    let mut s = Stage::under(with_agent(), 2);
    let mut tries = 0;
    while let [(id, Slot::AGENT)] = spawned(&mut s)[..] {
        runs(&mut s, id);
        s.exit(id, 1);
        tries += 1;
        s.pass(4_000);
        assert!(tries < 10, "it is never given up");
    }
    assert_eq!(tries, 4);
    assert!(s.app.is_errored() && s.app.is_over());
}

#[test]
fn an_agent_that_cannot_run_is_given_up_at_once_and_one_that_has_been_ready_is_not() {
    let cannot_run = |id| Event::SpawnFailed {
        worker: WorkerId(id),
        reason: "Exec format error".to_owned(),
        obstacle: Obstacle::Lasting,
    };
    let mut s = Stage::under(with_agent(), 2);
    s.take();
    s.tell(cannot_run(1));
    let given_up = |r: &Report| matches!(r, Report::AgentDied { next: Next::GivenUp, .. });
    assert!(s.reports().iter().any(given_up));
    assert!(s.app.is_errored() && s.app.is_over() && s.app.next_deadline_ms().is_none());
    let mut s = serving();
    s.exit(1, 1);
    s.pass(1_000);
    assert_eq!(spawned(&mut s), [(4, Slot::AGENT)]);
    s.tell(cannot_run(4));
    assert_eq!(waits(&s.reports()), [2_000], "its workers serve, and its program may come back");
}

#[test]
fn an_agent_that_is_not_ready_in_time_is_ended_and_tried_again() {
    let mut s = Stage::under(with_agent(), 1);
    runs(&mut s, 1);
    s.take();
    s.pass(3_000);
    let seen = s.take();
    assert!(seen.contains(&Action::Terminate { worker: WorkerId(1) }));
    let late = |a: &Action| {
        let Action::Report(Report::AgentDied { cause, next, .. }) = a else { return false };
        *cause == Cause::NotReady { ms: 3_000, why: None } && matches!(next, Next::Waiting { ms: 1_000, .. })
    };
    assert!(seen.iter().any(late), "{seen:?}");
    s.pass(700);
    assert!(s.take().contains(&Action::Kill { worker: WorkerId(1) }), "after its own kill time-out");
    s.pass(5_000);
    assert!(spawned(&mut s).is_empty(), "there are never two");
    s.exit(1, 0);
    assert_eq!(spawned(&mut s), [(2, Slot::AGENT)], "its wait was over already");
}

#[test]
fn a_reload_replaces_the_agent_before_any_worker_and_fails_with_it() {
    let mut s = serving();
    s.tell(Event::Reload { to: Generation(2), policy: with_agent(), slots: 2 });
    assert!(s.take().contains(&Action::Terminate { worker: WorkerId(1) }));
    s.exit(1, 0);
    assert_eq!(spawned(&mut s), [(4, Slot::AGENT)]);
    runs(&mut s, 4);
    s.exit(4, 1);
    let seen = s.take();
    assert!(!seen.iter().any(|a| matches!(a, Action::Drain { .. })), "no worker was touched: {seen:?}");
    let back = seen.iter().find_map(|a| match a {
        Action::Spawn { worker, slot: Slot::AGENT, generation: Generation(1) } => Some(worker.0),
        _ => None,
    });
    assert!(seen.iter().any(|a| matches!(a, Action::Report(Report::ReloadFailed { to: Generation(2), .. }))));
    agent_ready(&mut s, back.unwrap());
    assert_eq!((s.app.generation(), s.app.ready_count()), (Generation(1), 2));
}

#[test]
fn a_stop_ends_the_workers_first_and_the_agent_after_them() {
    let mut s = serving();
    s.tell(Event::Stop { now: false });
    assert!(!s.take().contains(&Action::Terminate { worker: WorkerId(1) }));
    s.exit(2, 0);
    s.exit(3, 0);
    assert!(s.take().contains(&Action::Terminate { worker: WorkerId(1) }));
    s.exit(1, 0);
    assert!(s.reports().contains(&Report::AppStopped));

    let mut s = serving();
    s.tell(Event::Stop { now: true });
    assert!(s.take().contains(&Action::Terminate { worker: WorkerId(1) }), "at once");
}

#[test]
fn what_a_worker_does_means_nothing_when_an_agent_does_it() {
    let mut s = serving();
    let worker = WorkerId(1);
    for event in [Event::ChannelClosed { worker }, Event::Leaving { worker }, Event::ServersClosed { worker }] {
        s.tell(event);
    }
    s.pass(60_000);
    assert!(s.take().is_empty());
    assert_eq!(s.app.ready_agent(), Some(worker), "a Node agent may close its channel and live on");
    s.tell(Event::Misbehaved { worker, reason: "garbage".to_owned() });
    assert!(s.take().contains(&Action::Terminate { worker }));
    s.tell(Event::Exited { worker, status: ExitStatus::Signal(15), at_ms: s.now_ms });
    assert_eq!(s.app.ready_count(), 2);
}

#[test]
fn another_master_knows_the_agent_and_when_the_next_one_starts() {
    let mut s = serving();
    let noted = notes(&mut s);
    let (app, actions) = succeed_under(&s, noted, &with_agent());
    assert!(!actions.iter().any(|a| matches!(a, Action::Spawn { .. } | Action::Terminate { .. })), "{actions:?}");
    assert_eq!(app.ready_agent(), Some(WorkerId(1)));
    assert!(matches!(app.agent().unwrap().current.unwrap().phase, Phase::Ready { .. }));

    let mut s = serving();
    s.exit(1, 1);
    s.pass(400);
    let noted = notes(&mut s);
    let (app, _) = succeed_under(&s, noted, &with_agent());
    s.replace(app);
    s.take();
    s.pass(599);
    assert!(spawned(&mut s).is_empty());
    s.pass(1);
    assert_eq!(spawned(&mut s).first().map(|(_, slot)| *slot), Some(Slot::AGENT));
}
