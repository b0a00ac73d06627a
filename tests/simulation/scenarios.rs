//! The rules of supervision, one named scenario each, under virtual time.
use super::successor::{notes, succeed};
use clusterd::ids::{Generation, Slot, WorkerId};
use clusterd::supervisor::{
    Action, App, CHANNEL_CLOSED_STARTING_MS, CanaryWorse, Cause, Cx, Event, Evidence, Excess, ExitStatus, Limits, Next,
    Obstacle, Policy, RELOAD_GONE_MS_MAX, ReadyRule, Report,
};

/// One app whose world is the test.
pub(crate) struct Stage {
    pub(crate) app: App,
    pub(crate) now_ms: u64,
    next_worker: u64,
    seen: Vec<Action>,
    /// What the comparison of a canary finds.
    pub(crate) worse: Option<CanaryWorse>,
}

pub(crate) fn policy() -> Policy {
    Policy {
        ready: ReadyRule { evidence: Some(Evidence::Listening), after_ms: None },
        ready_timeout_ms: 5_000,
        warms_up: false,
        drain_timeout_ms: 10_000,
        kill_timeout_ms: 2_000,
        min_uptime_ms: 1_000,
        max_restarts: Some(4),
        window_ms: 60_000,
        backoff_first_ms: 0,
        backoff_min_ms: 100,
        backoff_max_ms: 300,
        restart_delay_ms: 0,
        max_runs: None,
        stop_exit_codes: vec![42],
        spares: 0,
        surge: 1,
        overlap: true,
        canary_ms: 0,
        settle_ms: 600,
        drain_spread_ms: 0,
        limits: Limits::NONE,
        agent: None,
        before: None,
    }
}

impl Stage {
    fn new(slots: u32) -> Stage {
        Stage::under(policy(), slots)
    }

    /// Just started, under this policy.
    pub(crate) fn under(policy: Policy, slots: u32) -> Stage {
        let app = App::new(Generation(1), policy, slots);
        let mut stage = Stage { app, now_ms: 0, next_worker: 1, seen: Vec::new(), worse: None };
        stage.step(|app, cx| app.start(cx));
        stage
    }

    /// Just started, and held back until it is admitted.
    pub(crate) fn held(policy: Policy, slots: u32) -> Stage {
        let app = App::new(Generation(1), policy, slots);
        let mut stage = Stage { app, now_ms: 0, next_worker: 1, seen: Vec::new(), worse: None };
        stage.app.hold(Generation(1));
        stage.step(|app, cx| app.start(cx));
        stage
    }

    /// With every worker ready.
    pub(crate) fn ready(slots: u32) -> Stage {
        let mut stage = Stage::new(slots);
        for id in 1..=u64::from(slots) {
            stage.make_ready(id);
        }
        stage.seen.clear();
        stage
    }

    /// Another master takes over.
    pub(crate) fn replace(&mut self, app: App) {
        self.app = app;
    }

    fn step(&mut self, step: impl FnOnce(&mut App, &mut Cx<'_>)) {
        let mut cx = Cx { now_ms: self.now_ms, next_worker: &mut self.next_worker, actions: &mut self.seen };
        step(&mut self.app, &mut cx);
    }

    pub(crate) fn tell(&mut self, event: Event) -> &mut Stage {
        self.step(|app, cx| app.handle(cx, event));
        self
    }

    pub(crate) fn make_ready(&mut self, id: u64) {
        let worker = WorkerId(id);
        self.tell(Event::Spawned { worker, pid: id as i32 });
        self.tell(Event::Evidence { worker, evidence: Evidence::Listening });
    }

    pub(crate) fn exit(&mut self, id: u64, code: i32) {
        let (worker, at_ms) = (WorkerId(id), self.now_ms);
        self.tell(Event::Exited { worker, status: ExitStatus::Code(code), at_ms });
    }

    pub(crate) fn pass(&mut self, ms: u64) {
        let until = self.now_ms + ms;
        while let Some(at) = self.app.next_deadline_ms().filter(|&at| at <= until) {
            self.now_ms = at.max(self.now_ms);
            let before = self.seen.len();
            self.step(|app, cx| app.advance(cx));
            self.judge(before);
        }
        self.now_ms = until;
    }

    /// Answers the comparisons that these actions asked for.
    fn judge(&mut self, from: usize) {
        let asked = self.seen[from..].iter().filter_map(|action| match action {
            Action::JudgeCanary { worker } => Some(*worker),
            _ => None,
        });
        for worker in asked.collect::<Vec<_>>() {
            let worse = self.worse;
            self.tell(Event::CanaryJudged { worker, worse });
        }
    }

    pub(crate) fn take(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.seen)
    }

    pub(crate) fn spawned(&mut self) -> Vec<u64> {
        self.take()
            .into_iter()
            .filter_map(|a| if let Action::Spawn { worker, .. } = a { Some(worker.0) } else { None })
            .collect()
    }

    pub(crate) fn reports(&mut self) -> Vec<Report> {
        self.take()
            .into_iter()
            .filter_map(|a| if let Action::Report(report) = a { Some(report) } else { None })
            .collect()
    }
}

#[test]
fn a_crash_of_age_is_refilled_at_once_and_young_ones_wait_twice_as_long_each_time() {
    let mut s = Stage::ready(1);
    s.pass(5_000);
    s.exit(1, 1);
    assert_eq!(s.spawned(), [2], "of age: at once");
    s.exit(2, 1);
    assert_eq!(s.spawned(), [3], "the first young death: at once");
    s.exit(3, 1);
    assert!(s.spawned().is_empty());
    s.pass(99);
    assert!(s.spawned().is_empty());
    s.pass(1);
    assert_eq!(s.spawned(), [4], "after 100 ms");
    s.make_ready(4);
    s.pass(2_000);
    s.exit(4, 1);
    assert_eq!(s.spawned().len(), 1, "it lived long enough: no backoff any more");
}

#[test]
fn a_worker_that_ends_before_it_was_ready_has_ended_as_it_did_also_where_that_is_told_late() {
    let told = |after_ms: u64| {
        let mut s = Stage::new(1);
        s.tell(Event::Spawned { worker: WorkerId(1), pid: 1 });
        s.tell(Event::ChannelClosed { worker: WorkerId(1) });
        s.pass(after_ms);
        s.exit(1, 7);
        // It is told with what becomes of the slot.
        s.tell(Event::Spawned { worker: WorkerId(2), pid: 2 });
        let causes = s.reports().into_iter().filter_map(|report| match report {
            Report::WorkerDied { cause, .. } => Some(cause),
            _ => None,
        });
        causes.collect::<Vec<_>>()
    };
    assert_eq!(told(CHANNEL_CLOSED_STARTING_MS - 1), [Cause::Ended(ExitStatus::Code(7))]);
    assert!(matches!(told(CHANNEL_CLOSED_STARTING_MS)[..], [Cause::Misbehaved(_)]), "it lived on without a channel");
}

#[test]
fn failures_in_the_window_make_a_slot_errored_and_old_ones_fall_out_of_it() {
    let mut s = Stage::new(1);
    for id in 1..=3 {
        s.exit(id, 1);
        s.pass(1_000);
    }
    // The fourth would be one too many, but the first three fall out of the window.
    s.make_ready(4);
    s.pass(61_000);
    s.exit(4, 1);
    for id in 5..=7 {
        s.exit(id, 1);
        s.pass(500);
    }
    s.take();
    s.exit(8, 1);
    let reports = s.reports();
    assert!(matches!(reports[0], Report::WorkerDied { next: Next::Errored { failures: 4 }, .. }), "{reports:?}");
    assert_eq!(reports[1], Report::AppErrored);
    assert!(s.app.is_errored() && s.app.next_deadline_ms().is_none());
}

fn not_started(id: u64, obstacle: Obstacle) -> Event {
    Event::SpawnFailed { worker: WorkerId(id), reason: "Exec format error".to_owned(), obstacle }
}

#[test]
fn a_program_that_cannot_run_is_given_up_at_once_and_what_may_pass_is_tried_again() {
    let mut s = Stage::new(2);
    s.take();
    s.tell(not_started(1, Obstacle::Lasting));
    let reports = s.reports();
    assert!(matches!(reports[..], [Report::WorkerDied { next: Next::GivenUp, .. }]), "{reports:?}");
    s.tell(not_started(2, Obstacle::Passing));
    assert_eq!(s.spawned(), [3], "in the other slot it is tried at once");
    s.tell(not_started(3, Obstacle::Lasting));
    let reports = s.reports();
    assert!(matches!(reports[..], [Report::WorkerDied { next: Next::GivenUp, .. }, Report::AppErrored]), "{reports:?}");
    assert!(s.app.is_over() && s.app.next_deadline_ms().is_none());
    // A start of another generation, which can run, begins with nothing of it.
    s.tell(Event::Start { to: Generation(2), policy: policy(), slots: 1 });
    s.make_ready(4);
    assert_eq!(s.app.ready_count(), 1);
}

/// A deploy replaces the files of an app that serves: for a moment its program does not exist, or is not whole.
#[test]
fn a_program_that_has_served_may_come_back() {
    for takes_over in [false, true] {
        let mut s = Stage::ready(1);
        s.exit(1, 1);
        assert_eq!(s.spawned(), [2]);
        s.tell(not_started(2, Obstacle::Lasting));
        let reports = s.reports();
        assert!(matches!(reports[..], [Report::WorkerDied { next: Next::Waiting { .. }, .. }]), "{reports:?}");
        if takes_over {
            let left = notes(&mut s);
            let (app, _) = succeed(&s, left);
            s.replace(app);
        }
        s.pass(100);
        assert_eq!(s.spawned(), [3]);
        s.tell(not_started(3, Obstacle::Lasting));
        assert!(matches!(s.reports()[..], [Report::WorkerDied { next: Next::Waiting { .. }, .. }]));
        // The new slots of a scale are of that generation.
        s.tell(Event::Scale { slots: 2 });
        s.tell(not_started(4, Obstacle::Lasting));
        assert_eq!(s.spawned(), [4, 5]);
        s.make_ready(5);
    }
}

/// A reload to a program that cannot run fails with its first worker, and the old ones serve on.
#[test]
fn a_reload_to_a_program_that_cannot_run_leaves_what_serves() {
    let mut s = Stage::ready(2);
    s.tell(Event::Reload { to: Generation(2), policy: policy(), slots: 2 });
    assert_eq!(s.spawned(), [3]);
    s.tell(not_started(3, Obstacle::Lasting));
    let reports = s.reports();
    assert!(
        matches!(reports[..], [Report::WorkerDied { next: Next::None, .. }, Report::ReloadFailed { .. }]),
        "{reports:?}"
    );
    assert_eq!((s.app.ready_count(), s.app.generation()), (2, Generation(1)));
}

#[test]
fn so_many_runs_and_no_more_however_they_end() {
    let mut s = Stage::under(Policy { max_runs: Some(2), ..policy() }, 1);
    s.make_ready(1);
    s.pass(5_000);
    s.exit(1, 1);
    s.make_ready(2);
    s.pass(5_000);
    s.take();
    s.exit(2, 0);
    let reports = s.reports();
    let last = Next::LastRun { runs: 2, failed: false };
    assert!(matches!(&reports[0], Report::WorkerDied { next, .. } if *next == last), "{reports:?}");
    assert_eq!(reports[1], Report::AppFinished);
    // A start counts from zero; a last run that fails is an error.
    s.tell(Event::Start { to: Generation(2), policy: Policy { max_runs: Some(1), ..policy() }, slots: 1 });
    s.make_ready(3);
    s.take();
    s.exit(3, 7);
    let reports = s.reports();
    assert!(matches!(reports[0], Report::WorkerDied { next: Next::LastRun { runs: 1, failed: true }, .. }));
    assert_eq!(reports[1], Report::AppErrored);
}

#[test]
fn the_first_wait_and_the_least_wait_are_as_asked() {
    let spin = Policy { backoff_first_ms: 300, backoff_min_ms: 300, backoff_max_ms: 300, ..policy() };
    let mut s = Stage::under(Policy { max_restarts: None, ..spin }, 1);
    s.take();
    for id in 1..=9 {
        s.exit(id, 1);
        s.pass(299);
        assert!(s.spawned().is_empty());
        s.pass(1);
        assert_eq!(s.spawned(), [id + 1], "the same wait each time");
    }
    let mut s = Stage::under(Policy { restart_delay_ms: 1_000, ..policy() }, 1);
    s.make_ready(1);
    s.pass(5_000);
    s.take();
    s.exit(1, 0);
    s.pass(999);
    assert!(s.spawned().is_empty(), "of age, and yet");
    s.pass(1);
    assert_eq!(s.spawned(), [2]);
}

#[test]
fn a_worker_that_age_makes_ready_was_ready_also_where_its_start_and_its_end_are_seen_together() {
    let by_age = |age_ms, lived_ms| {
        let ready = ReadyRule { evidence: None, after_ms: Some(age_ms) };
        let mut s = Stage::under(Policy { ready, min_uptime_ms: 1, max_restarts: Some(1), ..policy() }, 1);
        s.take();
        // The master stood still meanwhile.
        s.now_ms += lived_ms;
        s.tell(Event::Spawned { worker: WorkerId(1), pid: 1 });
        s.exit(1, 0);
        s.spawned()
    };
    assert_eq!(by_age(200, 288), [2], "replaced at once");
    assert!(by_age(200, 199).is_empty(), "it was not ready yet, and one failure is the most that is allowed");
}

#[test]
fn an_exit_code_can_leave_the_slot_empty() {
    let mut s = Stage::ready(1);
    s.exit(1, 42);
    let reports = s.reports();
    assert!(matches!(reports[0], Report::WorkerDied { next: Next::Stopped, .. }));
    assert_eq!(reports[1], Report::AppFinished);
}

#[test]
fn a_worker_that_is_not_ready_in_time_is_ended_and_counts_as_a_failure() {
    let mut s = Stage::new(1);
    s.tell(Event::Spawned { worker: WorkerId(1), pid: 1 }).take();
    s.pass(5_000);
    let seen = s.take();
    assert!(seen.contains(&Action::Terminate { worker: WorkerId(1) }));
    assert!(seen.iter().any(|a| matches!(a, Action::Spawn { worker: WorkerId(2), .. })));
    s.pass(2_000);
    assert!(s.take().contains(&Action::Kill { worker: WorkerId(1) }));
}

#[test]
fn a_worker_that_listens_and_is_not_ready_yet_is_drained() {
    let mut s = Stage::new(3);
    let drains = |n| Action::Drain { worker: WorkerId(n) };
    let ends = |n| Action::Terminate { worker: WorkerId(n) };
    for id in 1..=3 {
        s.tell(Event::Spawned { worker: WorkerId(id), pid: id as i32 });
    }
    s.tell(Event::ServersOpen { worker: WorkerId(1) });
    s.tell(Event::ServersOpen { worker: WorkerId(2) });
    s.tell(Event::ServersClosed { worker: WorkerId(2) });
    s.take();
    s.tell(Event::Stop { now: false });
    let seen = s.take();
    assert!(seen.contains(&drains(1)) && seen.contains(&ends(2)) && seen.contains(&ends(3)), "{seen:?}");
    s.pass(10_000);
    assert!(s.take().contains(&ends(1)));
}

#[test]
fn a_worker_that_leaves_by_itself_is_replaced_first_and_drains_under_a_deadline() {
    let mut s = Stage::ready(1);
    s.pass(5_000);
    s.tell(Event::Leaving { worker: WorkerId(1) });
    let seen = s.take();
    assert_eq!(seen[0], Action::Drain { worker: WorkerId(1) });
    assert!(seen.iter().any(|a| matches!(a, Action::Spawn { worker: WorkerId(2), .. })));
    s.make_ready(2);
    s.take();
    s.pass(10_000);
    assert!(s.take().contains(&Action::Terminate { worker: WorkerId(1) }));
}

#[test]
fn a_channel_that_closes_before_the_exit_is_a_plain_crash() {
    let mut s = Stage::ready(1);
    s.pass(5_000);
    s.tell(Event::ChannelClosed { worker: WorkerId(1) });
    s.pass(20);
    s.exit(1, 7);
    s.tell(Event::Spawned { worker: WorkerId(2), pid: 2 });
    let reports = s.reports();
    assert!(
        matches!(
            &reports[0],
            Report::WorkerDied { cause: Cause::Ended(ExitStatus::Code(7)), next: Next::Replaced { .. }, .. }
        ),
        "{reports:?}"
    );
}

#[test]
fn a_server_that_is_opened_again_in_time_is_no_reason_to_leave() {
    let mut s = Stage::ready(1);
    s.tell(Event::ServersClosed { worker: WorkerId(1) });
    s.pass(900);
    s.tell(Event::ServersOpen { worker: WorkerId(1) });
    s.pass(5_000);
    assert!(s.spawned().is_empty());
    s.tell(Event::ServersClosed { worker: WorkerId(1) });
    s.pass(1_000);
    assert_eq!(s.spawned(), [2]);
}

#[test]
fn a_worker_that_leaves_by_itself_keeps_its_time() {
    let mut s = Stage::ready(1);
    s.tell(Event::ServersClosed { worker: WorkerId(1) });
    s.pass(1_000);
    assert_eq!(s.spawned(), [2]);
    s.make_ready(2);
    s.take();
    // It holds no connection, and writes to its database.
    s.tell(Event::Drained { worker: WorkerId(1) });
    s.pass(3_000);
    s.tell(Event::Drained { worker: WorkerId(1) });
    assert!(!s.take().contains(&Action::Terminate { worker: WorkerId(1) }), "it has until drain_timeout");
    // A stop does not wait for what nobody sees.
    s.tell(Event::Stop { now: false });
    s.tell(Event::Drained { worker: WorkerId(1) });
    assert!(s.take().contains(&Action::Terminate { worker: WorkerId(1) }));
}

#[test]
fn a_program_that_need_not_listen_may_end_its_work_before_it_counts_as_ready() {
    let ready = ReadyRule { evidence: Some(Evidence::Listening), after_ms: Some(3_000) };
    let job = Policy { ready, max_runs: Some(1), drain_timeout_ms: 8_000, ready_timeout_ms: 30_000, ..policy() };
    let left = || {
        let mut s = Stage::under(job.clone(), 1);
        s.tell(Event::Spawned { worker: WorkerId(1), pid: 1 });
        s.tell(Event::Leaving { worker: WorkerId(1) });
        s.tell(Event::ChannelClosed { worker: WorkerId(1) });
        s.pass(7_000);
        assert!(s.take().iter().all(|action| !matches!(action, Action::Terminate { .. } | Action::Serve { .. })));
        s
    };
    let mut s = left();
    s.exit(1, 0);
    let reports = s.reports();
    let last = Next::LastRun { runs: 1, failed: false };
    assert!(matches!(&reports[0], Report::WorkerDied { next, .. } if *next == last), "{reports:?}");
    assert_eq!(reports[1], Report::AppFinished);
    // It has the time of a worker that leaves by itself, and no more.
    let mut s = left();
    s.pass(1_000);
    assert!(s.take().contains(&Action::Terminate { worker: WorkerId(1) }));
}

#[test]
fn a_lone_worker_that_holds_its_own_port_is_replaced_after_its_end() {
    let mut s = Stage::ready(1);
    s.app.set_overlap(Generation(1), false);
    s.tell(Event::Replace { worker: WorkerId(1), excess: Excess::Connections { taken: 9 } });
    let seen = s.take();
    assert!(seen.contains(&Action::Drain { worker: WorkerId(1) }), "{seen:?}");
    assert!(!seen.iter().any(|action| matches!(action, Action::Spawn { .. })), "{seen:?}");
    s.exit(1, 0);
    assert_eq!(s.spawned(), [2]);
}

#[test]
fn without_overlap_the_old_worker_ends_before_the_new_one_starts() {
    let apart = Policy { overlap: false, ..policy() };
    let mut s = Stage::ready(1);
    s.tell(Event::Reload { to: Generation(2), policy: apart.clone(), slots: 1 });
    assert!(s.take().contains(&Action::Drain { worker: WorkerId(1) }));
    s.pass(500);
    assert!(s.spawned().is_empty(), "the old one still runs");
    s.exit(1, 0);
    assert_eq!(s.spawned(), [2]);
    s.make_ready(2);
    assert!(s.reports().contains(&Report::ReloadDone { to: Generation(2) }));
    // A limit: the same.
    s.take();
    s.tell(Event::Replace { worker: WorkerId(2), excess: Excess::Connections { taken: 9 } });
    assert!(s.spawned().is_empty());
    s.exit(2, 0);
    assert_eq!(s.spawned(), [3]);
    s.make_ready(3);
    // What does not come up is replaced by what was there.
    s.tell(Event::Reload { to: Generation(3), policy: apart, slots: 1 });
    s.exit(3, 0);
    assert_eq!(s.spawned(), [4]);
    s.exit(4, 1);
    let seen = s.take();
    let old_again = Action::Spawn { worker: WorkerId(5), slot: Slot(0), generation: Generation(2) };
    assert!(seen.contains(&old_again), "{seen:?}");
    let failed = |a: &Action| matches!(a, Action::Report(Report::ReloadFailed { to: Generation(3), .. }));
    assert!(seen.iter().any(failed), "{seen:?}");
}

#[test]
fn a_reload_starts_the_new_beside_the_old_and_drains_only_what_is_replaced() {
    let mut s = Stage::ready(2);
    s.tell(Event::Reload { to: Generation(2), policy: policy(), slots: 2 });
    assert_eq!(s.spawned(), [3], "one at a time");
    s.make_ready(3);
    let seen = s.take();
    assert!(
        seen.contains(&Action::Drain { worker: WorkerId(1) }) && !seen.contains(&Action::Drain { worker: WorkerId(2) })
    );
    s.pass(RELOAD_GONE_MS_MAX);
    s.make_ready(4);
    s.take();
    s.exit(1, 0);
    assert!(!s.reports().contains(&Report::ReloadDone { to: Generation(2) }), "the old generation still serves");
    s.exit(2, 0);
    assert!(s.reports().contains(&Report::ReloadDone { to: Generation(2) }));
}

#[test]
fn a_reload_that_fails_on_the_second_slot_takes_the_first_one_back() {
    let mut s = Stage::ready(2);
    s.tell(Event::Reload { to: Generation(2), policy: policy(), slots: 2 });
    s.make_ready(3);
    s.exit(1, 0);
    s.take();
    s.exit(4, 1);
    let seen = s.take();
    let back = seen.iter().find_map(|a| match a {
        Action::Spawn { worker, slot, generation: Generation(1) } => Some((*worker, slot.0)),
        _ => None,
    });
    assert_eq!(back, Some((WorkerId(5), 0)), "{seen:?}");
    s.make_ready(5);
    assert!(s.take().contains(&Action::Drain { worker: WorkerId(3) }));
    s.exit(3, 0);
    assert!(matches!(s.reports().last(), Some(Report::ReloadFailed { to: Generation(2), .. })));
    assert_eq!(s.app.generation(), Generation(1));
}

#[test]
fn a_reload_during_a_reload_runs_once_after_it() {
    let mut s = Stage::ready(1);
    for to in 2..=4 {
        s.tell(Event::Reload { to: Generation(to), policy: policy(), slots: 1 });
    }
    assert!(s.reports().contains(&Report::ReloadSuperseded { to: Generation(3), by: Generation(4) }));
    s.make_ready(2);
    s.exit(1, 0);
    let reports = s.reports();
    assert!(reports.contains(&Report::ReloadDone { to: Generation(2) }));
    assert!(reports.contains(&Report::ReloadStarted { to: Generation(4) }));
}

#[test]
fn a_slot_that_a_scale_keeps_from_a_shrinking_reload_is_replaced_too() {
    let mut s = Stage::ready(2);
    // The file says one worker; before the reload is over, somebody asks for three.
    s.tell(Event::Reload { to: Generation(2), policy: policy(), slots: 1 });
    s.tell(Event::Scale { slots: 3 });
    s.make_ready(3);
    s.pass(RELOAD_GONE_MS_MAX);
    assert_eq!(s.spawned(), [3, 4], "the second slot stays, so it is replaced");
    s.make_ready(4);
    s.exit(1, 0);
    assert!(!s.reports().contains(&Report::ReloadDone { to: Generation(2) }), "the old generation still serves");
    s.exit(2, 0);
    let reports = s.reports();
    assert!(reports.contains(&Report::ReloadDone { to: Generation(2) }), "{reports:?}");
    s.make_ready(5);
    assert_eq!(s.app.ready_count(), 3);
    assert!(s.app.workers().all(|worker| worker.generation == Generation(2)));
}

#[test]
fn scaling_down_drains_the_highest_slot_and_up_again_fills_it() {
    let mut s = Stage::ready(3);
    s.tell(Event::Scale { slots: 2 });
    assert!(s.take().contains(&Action::Drain { worker: WorkerId(3) }));
    s.tell(Event::Scale { slots: 3 });
    assert_eq!(s.spawned(), [4]);
    s.exit(3, 0);
    assert_eq!(s.app.slot_count(), 3);
}

#[test]
fn a_stop_drains_and_a_second_one_does_not_wait() {
    let mut s = Stage::ready(2);
    s.tell(Event::Stop { now: false });
    assert!(s.take().contains(&Action::Drain { worker: WorkerId(2) }));
    s.exit(1, 0);
    s.tell(Event::Stop { now: true });
    assert!(s.take().contains(&Action::Terminate { worker: WorkerId(2) }));
    s.pass(1_000);
    assert!(s.take().contains(&Action::Kill { worker: WorkerId(2) }));
    s.exit(2, 9);
    assert!(s.reports().contains(&Report::AppStopped));
}

#[test]
fn an_errored_app_can_be_brought_back_by_a_reload() {
    let mut s = Stage::new(1);
    for id in 1..=4 {
        s.exit(id, 1);
        s.pass(1_000);
    }
    assert!(s.app.is_errored());
    s.take();
    s.tell(Event::Reload { to: Generation(2), policy: policy(), slots: 1 });
    s.make_ready(5);
    let reports = s.reports();
    assert!(reports.contains(&Report::ReloadDone { to: Generation(2) }), "{reports:?}");
    assert!(!s.app.is_errored());
}

#[test]
fn a_restart_starts_nothing_before_the_last_old_worker_is_gone() {
    let mut s = Stage::ready(2);
    s.tell(Event::Start { to: Generation(2), policy: policy(), slots: 3 });
    s.exit(1, 0);
    assert!(s.spawned().is_empty(), "one old worker lives");
    s.exit(2, 0);
    let seen = s.take();
    assert!(seen.contains(&Action::Report(Report::Started { to: Generation(2) })), "{seen:?}");
    assert!(!seen.contains(&Action::Report(Report::AppStopped)), "it has not stopped for those who look");
    assert_eq!(seen.iter().filter(|a| matches!(a, Action::Spawn { generation: Generation(2), .. })).count(), 3);
    (3..=5).for_each(|id| s.make_ready(id));
    assert!(s.reports().contains(&Report::AppReady { workers: 3 }));
}

#[test]
fn a_stopped_or_errored_app_starts_with_a_clean_slate() {
    let mut s = Stage::new(1);
    (1..=4).for_each(|id| {
        s.exit(id, 1);
        s.pass(1_000);
    });
    assert!(s.app.is_errored());
    s.take();
    s.tell(Event::Start { to: Generation(2), policy: policy(), slots: 1 });
    assert_eq!(s.spawned(), [5]);
    s.exit(5, 1);
    assert_eq!(s.spawned(), [6], "its first failure, as of a new app");
    s.tell(Event::Stop { now: true });
    s.exit(6, 9);
    assert!(s.reports().contains(&Report::AppStopped));
    s.tell(Event::Start { to: Generation(3), policy: policy(), slots: 2 });
    assert_eq!(s.spawned(), [7, 8]);
}

#[test]
fn a_stop_during_a_restart_is_the_last_word() {
    let mut s = Stage::ready(1);
    s.tell(Event::Start { to: Generation(2), policy: policy(), slots: 1 });
    s.tell(Event::Stop { now: false });
    assert!(s.reports().iter().any(|r| matches!(r, Report::StartDropped { to: Generation(2), .. })));
    s.exit(1, 0);
    let seen = s.take();
    assert!(seen.contains(&Action::Report(Report::AppStopped)) && s.app.is_stopped(), "{seen:?}");
}
