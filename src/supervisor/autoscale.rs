//! Workers that follow the load: from samples of the load and the time to a number of workers. Who measures, and what
//! changes the number, is up to the shell.
//!
//! The rule is proportional: as many workers as it takes for each to have at most its target. It grows in one step, once
//! the load has needed more for `grow_after_ms` without a break. It shrinks to the most that was needed, with a margin,
//! at any moment of a whole cooldown; so neither noise nor a short lull moves the number. When a shrink proves wrong
//! within a cooldown, the next cooldown is longer.

/// Shrinks only to a number of workers that would have at most this share of the target, in percent.
const SHRINK_BELOW_PERCENT: u64 = 80;

/// Load of one worker that has a whole CPU, in thousandths.
const WHOLE_CPU_MILLI: u64 = 1_000;

/// Each shrink that proved wrong doubles the cooldown, up to this many times the configured one.
const COOLDOWN_FACTOR_MAX: u32 = 8;

/// What is measured of workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Measure {
    /// CPU time of the worker and its children, by wall time.
    #[default]
    Cpu,
    /// CPU time of the worker's main thread, by wall time.
    Loop,
    /// Connections that wait to be taken.
    Queue,
}

impl Measure {
    pub const ALL: [Measure; 3] = [Measure::Cpu, Measure::Loop, Measure::Queue];

    /// The names of all measures.
    pub const NAMES: [&str; Measure::ALL.len()] = [Measure::Cpu.name(), Measure::Loop.name(), Measure::Queue.name()];

    pub const fn name(self) -> &'static str {
        match self {
            Measure::Cpu => "cpu",
            Measure::Loop => "loop",
            Measure::Queue => "queue",
        }
    }

    /// The measure with this name.
    pub fn named(word: &str) -> Option<Measure> {
        Measure::ALL.into_iter().find(|measure| measure.name() == word)
    }
}

/// What the number of workers follows. Loads are in thousandths: of a CPU, or of a waiting connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScaleRule {
    pub by: Measure,
    /// Never fewer workers; at least 1.
    pub min: u32,
    /// Never more; at least `min`.
    pub max: u32,
    /// The load that one worker should have; at least 1.
    pub target_milli: u64,
    /// For so long the load has to need more workers.
    pub grow_after_ms: u64,
    /// For so long it has to need fewer.
    pub cooldown_ms: u64,
}

/// The load at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadSample {
    /// Load of all measured workers together. Processes that are dead, start, leave, or are held back have none.
    pub load_milli: u64,
    /// CPU time that they used, by wall time.
    pub cpu_milli: u64,
    /// Workers that were measured.
    pub measured: u32,
    /// Workers that serve and are not measured yet, that start, or wait to be started again.
    pub unsettled: u32,
}

/// Why the number of workers changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScaleReason {
    /// The load of one worker, on average, against the target.
    Load { each_milli: u64, target_milli: u64 },
    /// It was below the least that is allowed now.
    Least,
    /// It was above the most.
    Most,
}

/// A decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScaleChange {
    pub from: u32,
    pub to: u32,
    pub reason: ScaleReason,
}

/// What has been seen since the last decision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Autoscaler {
    above: Option<Above>,
    below: Option<Below>,
    /// When it shrank last, unless that has proved wrong since.
    shrunk_ms: Option<u64>,
    /// The cooldown is this many times the configured one, plus that.
    more_cooldowns: u32,
}

/// Samples in a row that need more workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Above {
    since_ms: u64,
    load_milli: u64,
    measured: u64,
    samples: u64,
}

/// Samples in a row that need fewer workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Below {
    since_ms: u64,
    /// The most that one of them needed.
    needed: u32,
    /// The highest load of one worker, on average.
    each_milli: u64,
}

/// What a successor has to know of an [`Autoscaler`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AutoscalerSnapshot {
    /// Since when fewer workers would do (absolute milliseconds), if they would.
    pub below_since_ms: Option<u64>,
    /// How many were needed at most since then.
    pub needed: u32,
    /// When it shrank last (absolute milliseconds), unless that has proved wrong since.
    pub shrunk_ms: Option<u64>,
    pub more_cooldowns: u32,
}

impl ScaleRule {
    /// The least number of workers of which each has at most `each_milli` of the load.
    fn workers_for(&self, load_milli: u64, each_milli: u64) -> u32 {
        let wanted = load_milli.div_ceil(each_milli.max(1));
        u32::try_from(wanted).unwrap_or(u32::MAX).clamp(self.min, self.max.max(self.min))
    }

    /// How many the load needs.
    fn needed(&self, load_milli: u64) -> u32 {
        self.workers_for(load_milli, self.target_milli)
    }

    /// How many it needs with a margin, so that the number does not grow again at once.
    fn needed_with_margin(&self, sample: &LoadSample) -> u32 {
        let with_margin = |each_milli: u64| (each_milli * SHRINK_BELOW_PERCENT / 100).max(1);
        let needed = self.workers_for(sample.load_milli, with_margin(self.target_milli));
        match self.by {
            // An empty queue does not tell how many workers keep it empty.
            Measure::Queue => needed.max(self.workers_for(sample.cpu_milli, with_margin(WHOLE_CPU_MILLI))),
            Measure::Cpu | Measure::Loop => needed,
        }
    }
}

impl Autoscaler {
    /// Nothing that is measured now tells of the load to come: a reload or a stop is under way, or a person has set the
    /// number.
    pub fn pause(&mut self) {
        self.above = None;
        self.below = None;
    }

    /// Takes a sample while `wanted` workers shall serve; `None`: nothing could be measured. Returns the next number,
    /// which the caller sees to.
    pub fn observe(
        &mut self,
        rule: &ScaleRule,
        wanted: u32,
        sample: Option<&LoadSample>,
        now_ms: u64,
    ) -> Option<ScaleChange> {
        if wanted < rule.min || wanted > rule.max.max(rule.min) {
            self.pause();
            let (to, reason) =
                if wanted < rule.min { (rule.min, ScaleReason::Least) } else { (rule.max, ScaleReason::Most) };
            return Some(ScaleChange { from: wanted, to, reason });
        }
        let Some(sample) = sample.filter(|sample| sample.measured > 0) else {
            self.pause();
            return None;
        };
        let change = self.grow(rule, wanted, sample, now_ms).or_else(|| self.shrink(rule, wanted, sample, now_ms));
        if change.is_some() {
            self.pause();
        }
        change
    }

    fn grow(&mut self, rule: &ScaleRule, wanted: u32, sample: &LoadSample, now_ms: u64) -> Option<ScaleChange> {
        if rule.needed(sample.load_milli) <= wanted {
            self.above = None;
            return None;
        }
        let above = self.above.get_or_insert(Above { since_ms: now_ms, load_milli: 0, measured: 0, samples: 0 });
        above.load_milli = above.load_milli.saturating_add(sample.load_milli);
        above.measured += u64::from(sample.measured);
        above.samples += 1;
        if now_ms.saturating_sub(above.since_ms) < rule.grow_after_ms {
            return None;
        }
        let (to, each_milli) = (rule.needed(above.load_milli / above.samples), above.load_milli / above.measured);
        if self.shrunk_ms.take().is_some_and(|at| now_ms.saturating_sub(at) < self.cooldown_ms(rule)) {
            self.more_cooldowns = (2 * (self.more_cooldowns + 1)).min(COOLDOWN_FACTOR_MAX) - 1;
        }
        let reason = ScaleReason::Load { each_milli, target_milli: rule.target_milli };
        Some(ScaleChange { from: wanted, to, reason })
    }

    fn shrink(&mut self, rule: &ScaleRule, wanted: u32, sample: &LoadSample, now_ms: u64) -> Option<ScaleChange> {
        let needed = rule.needed_with_margin(sample);
        // The others have the load of who is missing.
        if needed >= wanted || sample.unsettled > 0 {
            self.below = None;
            return None;
        }
        let below = self.below.get_or_insert(Below { since_ms: now_ms, needed: 0, each_milli: 0 });
        below.needed = below.needed.max(needed);
        below.each_milli = below.each_milli.max(sample.load_milli / u64::from(sample.measured));
        let below = *below;
        if now_ms.saturating_sub(below.since_ms) < self.cooldown_ms(rule) {
            return None;
        }
        let to = match rule.by {
            Measure::Queue => below.needed.max(wanted - 1),
            Measure::Cpu | Measure::Loop => below.needed,
        };
        if self.shrunk_ms.replace(now_ms).is_some() {
            // The last one did not prove wrong.
            self.more_cooldowns = 0;
        }
        let reason = ScaleReason::Load { each_milli: below.each_milli, target_milli: rule.target_milli };
        Some(ScaleChange { from: wanted, to, reason })
    }

    fn cooldown_ms(&self, rule: &ScaleRule) -> u64 {
        rule.cooldown_ms.saturating_mul(1 + u64::from(self.more_cooldowns))
    }

    pub fn snapshot(&self) -> AutoscalerSnapshot {
        AutoscalerSnapshot {
            below_since_ms: self.below.map(|below| below.since_ms),
            needed: self.below.map_or(0, |below| below.needed),
            shrunk_ms: self.shrunk_ms,
            more_cooldowns: self.more_cooldowns,
        }
    }

    /// As another master left it. Growth begins again with the next sample.
    pub fn restore(snapshot: &AutoscalerSnapshot) -> Autoscaler {
        let AutoscalerSnapshot { below_since_ms, needed, shrunk_ms, more_cooldowns } = *snapshot;
        Autoscaler {
            above: None,
            below: below_since_ms.map(|since_ms| Below { since_ms, needed, each_milli: 0 }),
            shrunk_ms,
            more_cooldowns: more_cooldowns.min(COOLDOWN_FACTOR_MAX - 1),
        }
    }
}
