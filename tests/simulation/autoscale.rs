//! Workers that follow the load: the rule beside a real supervisor, in a world of CPU-bound or blocking workers that start
//! slowly, die, and are measured with noise.
use super::random::Random;
use super::scenarios::{Stage, policy};
use clusterd::ids::{Generation, WorkerId};
use clusterd::supervisor::{
    Action, Autoscaler, Event, LoadSample, Measure, Phase, Policy, ScaleChange, ScaleReason, ScaleRule, SlotPhase,
};
use std::collections::BTreeMap;

const TICK_MS: u64 = 500;
const MINUTE_MS: u64 = 60_000;
const START_MS: u64 = 800;

fn rule(min: u32, max: u32) -> ScaleRule {
    let (grow_after_ms, cooldown_ms) = (1_000, 5 * MINUTE_MS);
    ScaleRule { by: Measure::Cpu, min, max, target_milli: 700, grow_after_ms, cooldown_ms }
}

fn by_queue(min: u32, max: u32) -> ScaleRule {
    ScaleRule { by: Measure::Queue, target_milli: 4_000, ..rule(min, max) }
}

/// An app under a load.
struct World {
    stage: Stage,
    rule: ScaleRule,
    scaler: Autoscaler,
    random: Random,
    /// Work that arrives, in thousandths of a worker's capacity.
    demand_milli: u64,
    /// Each measurement is off by up to so many percent.
    noise_percent: u64,
    /// Workers use a CPU while they work.
    is_cpu_bound: bool,
    /// Work that waits, in thousandths.
    backlog_milli: u64,
    starts: BTreeMap<u64, u64>,
    changes: Vec<(u64, ScaleChange)>,
}

impl World {
    fn new(rule: ScaleRule, seed: u64) -> World {
        World::under(policy(), rule, seed)
    }

    fn under(policy: Policy, rule: ScaleRule, seed: u64) -> World {
        let mut world = World {
            stage: Stage::under(policy, rule.min),
            rule,
            scaler: Autoscaler::default(),
            random: Random::new(seed),
            demand_milli: 0,
            noise_percent: 0,
            is_cpu_bound: true,
            backlog_milli: 0,
            starts: BTreeMap::new(),
            changes: Vec::new(),
        };
        world.pass(10_000);
        assert!(world.changes.is_empty() && world.serving() == rule.min);
        world
    }

    fn wanted(&self) -> u32 {
        self.stage.app.wanted_count()
    }

    fn serving(&self) -> u32 {
        self.stage.app.serving_count()
    }

    /// Workers get ready in time, and end as they are told.
    fn live(&mut self) {
        loop {
            let due = self.starts.iter().find(|(_, at)| **at <= self.stage.now_ms).map(|(id, _)| *id);
            if let Some(id) = due {
                self.starts.remove(&id);
                self.stage.make_ready(id);
            }
            let actions = self.stage.take();
            if actions.is_empty() && due.is_none() {
                return;
            }
            for action in actions {
                match action {
                    Action::Spawn { worker, .. } => drop(self.starts.insert(worker.0, self.stage.now_ms + START_MS)),
                    Action::Drain { worker } => drop(self.stage.tell(Event::Drained { worker })),
                    Action::Terminate { worker } | Action::Kill { worker } => {
                        self.starts.remove(&worker.0);
                        self.stage.exit(worker.0, 0);
                    }
                    _ => {}
                }
            }
        }
    }

    fn off(&mut self, value: u64) -> u64 {
        let percent = 100 - self.noise_percent + self.random.between(0, 2 * self.noise_percent);
        value * percent / 100
    }

    fn sample(&mut self) -> LoadSample {
        let app = &self.stage.app;
        let measured = app.workers().filter(|w| matches!(w.phase, Phase::Ready { .. }) && !w.spare).count() as u32;
        let given_up = app.slots().filter(|s| matches!(s.phase, SlotPhase::Errored | SlotPhase::Stopped)).count();
        let missing = app.wanted_count().saturating_sub(measured).saturating_sub(given_up as u32);
        let unsettled = missing + u32::from(app.is_replacing());
        let capacity = u64::from(measured) * 1_000;
        if self.rule.by == Measure::Queue {
            let arrived = self.backlog_milli + self.demand_milli * TICK_MS / 1_000;
            self.backlog_milli = arrived.saturating_sub(capacity * TICK_MS / 1_000);
        }
        let done = if self.backlog_milli > 0 { capacity } else { capacity.min(self.demand_milli) };
        let cpu_milli = if self.is_cpu_bound { self.off(done) } else { 0 };
        let load_milli = if self.rule.by == Measure::Queue { self.backlog_milli } else { cpu_milli };
        LoadSample { load_milli, cpu_milli, measured, unsettled }
    }

    fn tick(&mut self) {
        self.stage.pass(TICK_MS);
        self.live();
        let sample = self.sample();
        if self.stage.app.is_reloading() {
            self.scaler.pause();
            return;
        }
        let now_ms = self.stage.now_ms;
        if let Some(change) = self.scaler.observe(&self.rule, self.wanted(), Some(&sample), now_ms) {
            assert_ne!(change.from, change.to, "{change:?}");
            self.changes.push((now_ms, change));
            self.stage.tell(Event::Scale { slots: change.to });
            self.live();
        }
        assert!((self.rule.min..=self.rule.max).contains(&self.wanted()), "{} of {:?}", self.wanted(), self.rule);
    }

    fn pass(&mut self, ms: u64) {
        for _ in 0..ms / TICK_MS {
            self.tick();
        }
    }

    /// The number of workers after each change.
    fn numbers(&self) -> Vec<u32> {
        self.changes.iter().map(|(_, change)| change.to).collect()
    }

    fn kill(&mut self, count: usize) {
        let serving: Vec<WorkerId> = self
            .stage
            .app
            .workers()
            .filter(|w| matches!(w.phase, Phase::Ready { .. }))
            .map(|w| w.id)
            .take(count)
            .collect();
        for worker in serving {
            self.stage.exit(worker.0, 1);
        }
    }
}

#[test]
fn a_step_of_load_brings_the_workers_that_it_needs_and_its_end_takes_them_back() {
    let mut world = World::new(rule(2, 8), 1);
    world.demand_milli = 4_000;
    world.pass(10_000);
    assert_eq!(world.serving(), 6, "4 CPUs at 70%: {:?}", world.changes);
    // Full workers show no more than what they do: each step grows by what is seen.
    assert_eq!(world.numbers(), [3, 5, 6]);
    let (_, first) = world.changes[0];
    assert_eq!(first.reason, ScaleReason::Load { each_milli: 1_000, target_milli: 700 });
    world.pass(30 * MINUTE_MS);
    assert_eq!(world.numbers(), [3, 5, 6], "and it stays");
    let ends_ms = world.stage.now_ms;
    world.demand_milli = 500;
    world.pass(20 * MINUTE_MS);
    assert_eq!(world.numbers(), [3, 5, 6, 2], "in one step");
    let took_ms = world.changes[3].0 - ends_ms;
    assert!((5 * MINUTE_MS..5 * MINUTE_MS + 2_000).contains(&took_ms), "after {took_ms} ms");
}

#[test]
fn a_load_that_is_seen_whole_is_answered_in_one_step() {
    let mut world = World::new(rule(4, 16), 2);
    world.demand_milli = 3_900;
    world.pass(5_000);
    assert_eq!(world.numbers(), [6]);
}

#[test]
fn a_spike_brings_nothing_and_a_lull_takes_nothing() {
    let mut world = World::new(rule(2, 8), 3);
    world.demand_milli = 1_900;
    world.pass(10_000);
    let steady = world.numbers();
    for _ in 0..20 {
        world.demand_milli = 3_000;
        world.tick();
        world.demand_milli = 1_900;
        world.pass(10_000);
        world.demand_milli = 0;
        world.pass(4 * MINUTE_MS);
        world.demand_milli = 1_900;
        world.pass(10_000);
    }
    assert_eq!(world.numbers(), steady);
}

#[test]
fn a_constant_load_reaches_one_number_and_noise_does_not_move_it() {
    for seed in 0..80 {
        let mut random = Random::new(seed);
        let min = random.between(1, 4) as u32;
        let max = min + random.between(1, 12) as u32;
        let mut world = World::new(ScaleRule { target_milli: random.between(200, 950), ..rule(min, max) }, seed);
        world.noise_percent = 10;
        world.demand_milli = random.between(0, u64::from(max) * 1_000);
        world.pass(30 * MINUTE_MS);
        let numbers = world.numbers();
        let seen = format!("seed {seed}: {numbers:?} {:?}, demand {}", world.rule, world.demand_milli);
        assert!(numbers.windows(2).all(|two| two[0] < two[1]), "it only grows: {seen}");
        let settled = world.changes.iter().filter(|(at, _)| *at > 5 * MINUTE_MS).count();
        assert!(settled <= 1, "beside a bound, noise may bring one more, once: {seen}");
    }
}

#[test]
fn whatever_happens_the_number_stays_between_its_bounds() {
    // `tick` asserts it. Loads jump, workers die, bounds change, reloads come, masters go.
    for seed in 0..30 {
        let mut random = Random::new(seed);
        let mut world = World::new(rule(2, 6), seed);
        (world.noise_percent, world.rule.cooldown_ms) = (20, 10_000);
        let mut generation = 1;
        for _ in 0..300 {
            match random.between(0, 9) {
                0..=3 => world.demand_milli = random.between(0, 12_000),
                4 => world.kill(1),
                5 => world.kill(random.between(1, 6) as usize),
                6 => world.rule.min = random.between(1, 6) as u32,
                7 => world.scaler = Autoscaler::restore(&world.scaler.snapshot()),
                8 if !world.stage.app.is_reloading() => {
                    generation += 1;
                    let slots = world.wanted();
                    world.stage.tell(Event::Reload { to: Generation(generation), policy: policy(), slots });
                }
                _ => {}
            }
            world.pass(random.between(1, 40) * TICK_MS);
        }
    }
}

#[test]
fn a_dead_worker_does_not_count_and_its_absence_takes_nobody_away() {
    let mut world = World::new(rule(2, 8), 5);
    world.demand_milli = 2_700;
    world.pass(MINUTE_MS);
    let reached = world.numbers();
    assert_eq!(reached.last(), Some(&4));
    for _ in 0..600 {
        // Their share goes to the others, which cannot do more than they do.
        world.kill(2);
        world.pass(2_000);
    }
    assert_eq!(world.numbers(), reached, "{:?}", world.changes);
}

#[test]
fn a_reload_holds_decisions_back() {
    let mut world = World::new(rule(2, 8), 6);
    world.stage.tell(Event::Reload { to: Generation(2), policy: policy(), slots: 2 });
    world.demand_milli = 8_000;
    while world.stage.app.is_reloading() {
        assert!(world.changes.is_empty());
        world.tick();
    }
    world.pass(10_000);
    assert!(world.wanted() > 2, "and only back");
}

#[test]
fn spares_are_not_counted() {
    let mut world = World::under(Policy { spares: 2, ..policy() }, rule(2, 8), 7);
    world.demand_milli = 1_300;
    world.pass(MINUTE_MS);
    assert!(world.changes.is_empty(), "two that serve, at 65%: {:?}", world.changes);
    world.demand_milli = 4_000;
    world.pass(10_000);
    assert_eq!((world.serving(), world.stage.app.spare_count()), (6, 2));
}

#[test]
fn a_schedule_raises_the_number_at_once_and_lowers_it_after_the_cooldown() {
    let mut world = World::new(rule(2, 8), 8);
    world.rule.min = 5;
    world.pass(2_000);
    assert_eq!(world.changes[0].1.reason, ScaleReason::Least);
    assert_eq!(world.serving(), 5);
    world.rule.min = 2;
    world.pass(4 * MINUTE_MS);
    assert_eq!(world.wanted(), 5);
    world.pass(2 * MINUTE_MS);
    assert_eq!(world.wanted(), 2);
    (world.rule.min, world.rule.max) = (1, 1);
    world.changes.clear();
    world.pass(2_000);
    assert_eq!(world.changes.first().map(|(_, change)| change.reason), Some(ScaleReason::Most));
}

#[test]
fn a_successor_continues_the_cooldown() {
    let mut world = World::new(rule(2, 8), 9);
    world.demand_milli = 4_000;
    world.pass(10_000);
    world.demand_milli = 0;
    let ends_ms = world.stage.now_ms;
    while world.wanted() > 2 {
        world.pass(10_000);
        world.scaler = Autoscaler::restore(&world.scaler.snapshot());
    }
    let took_ms = world.stage.now_ms - ends_ms;
    assert!((5 * MINUTE_MS..6 * MINUTE_MS).contains(&took_ms), "{took_ms} ms");
}

#[test]
fn connections_that_wait_bring_workers_and_an_empty_queue_does_not_take_busy_ones() {
    let mut world = World::new(by_queue(2, 8), 10);
    world.demand_milli = 3_700;
    world.pass(240 * MINUTE_MS);
    assert_eq!(world.numbers(), [3, 4], "and it stays: {:?}", world.changes);
    world.demand_milli = 1_000;
    world.pass(6 * MINUTE_MS);
    assert_eq!(world.numbers(), [3, 4, 3], "one at a time");
    world.pass(6 * MINUTE_MS);
    assert_eq!(world.numbers(), [3, 4, 3, 2]);
}

#[test]
fn shrinks_that_prove_wrong_become_rarer() {
    let mut world = World::new(by_queue(2, 8), 11);
    (world.is_cpu_bound, world.demand_milli) = (false, 3_700);
    world.pass(24 * 60 * MINUTE_MS);
    let shrinks: Vec<u64> =
        world.changes.iter().filter(|(_, change)| change.to < change.from).map(|(at, _)| *at).collect();
    let late = shrinks.iter().filter(|at| **at > 12 * 60 * MINUTE_MS).count();
    assert!(late <= 12 * 60 / 40 + 1, "at most one in eight cooldowns: {late} in 12 hours");
    assert!(world.changes.iter().all(|(_, change)| change.to + 1 >= change.from), "one at a time");
    // The load falls for good: then the cooldown is short again.
    world.demand_milli = 0;
    let falls_ms = world.stage.now_ms;
    while world.wanted() > 2 {
        world.tick();
    }
    assert!(world.stage.now_ms - falls_ms < (40 + 40 + 8 * 5) * MINUTE_MS);
}

#[test]
fn what_cannot_be_measured_changes_nothing() {
    let (rule, mut scaler) = (rule(2, 8), Autoscaler::default());
    for now_ms in (0..100 * MINUTE_MS).step_by(TICK_MS as usize) {
        let nothing = LoadSample { unsettled: 5, ..LoadSample::default() };
        assert_eq!(scaler.observe(&rule, 5, Some(&nothing), now_ms), None);
        assert_eq!(scaler.observe(&rule, 5, None, now_ms), None);
    }
}
