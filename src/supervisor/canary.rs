//! The comparison of a canary, the first new worker of a reload, with the workers of the old generation. The shell takes
//! the figures at the beginning and at the end of the canary time; here is the rule.
//!
//! Each figure is a sum with what it is a sum over, so a canary that had a fourth of the connections may have a fourth
//! of the lines. With too little of that nothing is judged: a few connections say nothing of a release.
use std::fmt;

/// A figure that is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CanaryFigure {
    /// Lines on stderr, by connection.
    StderrLines,
    /// CPU time in milliseconds, by connection.
    CpuMs,
    /// Connections that it refused, by connection that it was handed.
    Refused,
    /// Loop delay in microseconds, by measurement.
    LoopDelayUs,
    /// Liveness probes that failed, by worker.
    FailedProbes,
}

/// How a figure is judged. Besides what the factor allows, the canary may have `slack`, and `slack_each` for each unit:
/// its code is cold, and a single event is no trend.
struct Bounds {
    /// Both sides need so many units.
    units_min: u64,
    slack: u64,
    slack_each: u64,
}

/// Connections that each side needs.
const CONNECTIONS_MIN: u64 = 10;

impl CanaryFigure {
    /// All of them, in the order in which they are judged.
    pub const ALL: [CanaryFigure; 5] = [
        CanaryFigure::StderrLines,
        CanaryFigure::CpuMs,
        CanaryFigure::Refused,
        CanaryFigure::LoopDelayUs,
        CanaryFigure::FailedProbes,
    ];

    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            CanaryFigure::StderrLines => "lines on stderr",
            CanaryFigure::CpuMs => "CPU time",
            CanaryFigure::Refused => "refused connections",
            CanaryFigure::LoopDelayUs => "loop delay",
            CanaryFigure::FailedProbes => "failed liveness probes",
        }
    }

    fn bounds(self) -> Bounds {
        match self {
            // About one stack trace.
            CanaryFigure::StderrLines => Bounds { units_min: CONNECTIONS_MIN, slack: 20, slack_each: 0 },
            // A Node worker has compiled most of what it needs after half a second.
            CanaryFigure::CpuMs => Bounds { units_min: CONNECTIONS_MIN, slack: 500, slack_each: 0 },
            CanaryFigure::Refused => Bounds { units_min: CONNECTIONS_MIN, slack: 10, slack_each: 0 },
            // One measurement a second and worker.
            CanaryFigure::LoopDelayUs => Bounds { units_min: 3, slack: 0, slack_each: 100_000 },
            CanaryFigure::FailedProbes => Bounds { units_min: 1, slack: 1, slack_each: 0 },
        }
    }
}

/// A sum over `units`: connections, measurements or workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CanaryAmount {
    pub sum: u64,
    pub units: u64,
}

/// What one side did in the canary time. `None`: not measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CanaryFigures {
    pub stderr_lines: Option<CanaryAmount>,
    pub cpu_ms: Option<CanaryAmount>,
    pub refused: Option<CanaryAmount>,
    pub loop_delay_us: Option<CanaryAmount>,
    pub failed_probes: Option<CanaryAmount>,
}

impl CanaryFigures {
    fn of(&self, figure: CanaryFigure) -> Option<CanaryAmount> {
        match figure {
            CanaryFigure::StderrLines => self.stderr_lines,
            CanaryFigure::CpuMs => self.cpu_ms,
            CanaryFigure::Refused => self.refused,
            CanaryFigure::LoopDelayUs => self.loop_delay_us,
            CanaryFigure::FailedProbes => self.failed_probes,
        }
    }

    /// Adds another worker. A figure counts for the workers of which it is known.
    pub fn add(&mut self, other: &CanaryFigures) {
        let add = |own: &mut Option<CanaryAmount>, other: Option<CanaryAmount>| {
            let Some(other) = other else { return };
            let own = own.get_or_insert_default();
            own.sum = own.sum.saturating_add(other.sum);
            own.units = own.units.saturating_add(other.units);
        };
        add(&mut self.stderr_lines, other.stderr_lines);
        add(&mut self.cpu_ms, other.cpu_ms);
        add(&mut self.refused, other.refused);
        add(&mut self.loop_delay_us, other.loop_delay_us);
        add(&mut self.failed_probes, other.failed_probes);
    }
}

/// The figure by which a canary is worse, and how it reads to people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CanaryWorse {
    pub figure: CanaryFigure,
    pub canary: CanaryAmount,
    pub others: CanaryAmount,
    /// The most that the canary might have, for its units.
    pub allowed: u64,
}

/// The result of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CanaryVerdict {
    /// The first figure by which the canary is worse.
    pub worse: Option<CanaryWorse>,
    /// Figures that were compared.
    pub judged: Vec<CanaryFigure>,
    /// Figures for which there was too little, on one side at least, or that are not measured.
    pub unjudged: Vec<CanaryFigure>,
}

/// Compares a canary with the other workers: by no figure may it have more than `factor` times as much as they.
pub fn judge_canary(canary: &CanaryFigures, others: &CanaryFigures, factor: u32) -> CanaryVerdict {
    let mut verdict = CanaryVerdict::default();
    for figure in CanaryFigure::ALL {
        let bounds = figure.bounds();
        let enough = |amount: &CanaryAmount| amount.units >= bounds.units_min;
        let (Some(canary), Some(others)) = (canary.of(figure).filter(enough), others.of(figure).filter(enough)) else {
            verdict.unjudged.push(figure);
            continue;
        };
        verdict.judged.push(figure);
        let allowed = allowed(&bounds, canary.units, others, factor);
        if canary.sum > allowed && verdict.worse.is_none() {
            verdict.worse = Some(CanaryWorse { figure, canary, others, allowed });
        }
    }
    verdict
}

fn allowed(bounds: &Bounds, units: u64, others: CanaryAmount, factor: u32) -> u64 {
    let proportion = u128::from(others.sum) * u128::from(units);
    let by_factor = proportion.saturating_mul(u128::from(factor)) / u128::from(others.units.max(1));
    let slack = bounds.slack.saturating_add(bounds.slack_each.saturating_mul(units));
    u64::try_from(by_factor).unwrap_or(u64::MAX).saturating_add(slack)
}

impl fmt::Display for CanaryWorse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CanaryWorse { figure, canary, others, allowed } = *self;
        let (had, had_others, of, of_others) = (canary.sum, others.sum, canary.units, others.units);
        match figure {
            CanaryFigure::StderrLines => write!(
                f,
                "the canary printed {had} lines on stderr for {of} connections, the others {had_others} for {of_others} \
                 (allowed: {allowed})"
            ),
            CanaryFigure::CpuMs => write!(
                f,
                "the canary used {had} ms of CPU time for {of} connections, the others {had_others} ms for {of_others} \
                 (allowed: {allowed} ms)"
            ),
            CanaryFigure::Refused => write!(
                f,
                "the canary refused {had} of {of} connections, the others {had_others} of {of_others} \
                 (allowed: {allowed})"
            ),
            CanaryFigure::LoopDelayUs => {
                let each_ms = |sum: u64, units: u64| sum / units.max(1) / 1_000;
                write!(
                    f,
                    "the event loop of the canary was late by {} ms on average, those of the others by {} ms \
                     (allowed: {} ms)",
                    each_ms(had, of),
                    each_ms(had_others, of_others),
                    each_ms(allowed, of)
                )
            }
            CanaryFigure::FailedProbes => {
                let workers = if of_others == 1 { "worker" } else { "workers" };
                write!(
                    f,
                    "the canary failed {had} liveness probes, the others {had_others} ({of_others} {workers}; \
                     allowed: {allowed})"
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amount(sum: u64, units: u64) -> Option<CanaryAmount> {
        Some(CanaryAmount { sum, units })
    }

    fn lines(sum: u64, units: u64) -> CanaryFigures {
        CanaryFigures { stderr_lines: amount(sum, units), ..CanaryFigures::default() }
    }

    fn worse(canary: &CanaryFigures, others: &CanaryFigures) -> Option<String> {
        judge_canary(canary, others, 3).worse.map(|worse| worse.to_string())
    }

    #[test]
    fn lines_count_by_connection() {
        let said = "the canary printed 120 lines on stderr for 40 connections, the others 0 for 120 (allowed: 20)";
        assert_eq!(worse(&lines(120, 40), &lines(0, 120)).as_deref(), Some(said));
        assert_eq!(worse(&lines(20, 40), &lines(0, 120)), None, "about one stack trace");
        // One line each is an access log.
        assert_eq!(worse(&lines(40, 40), &lines(120, 120)), None);
        assert_eq!(worse(&lines(140, 40), &lines(120, 120)), None, "three times as many, and the slack");
        assert!(worse(&lines(141, 40), &lines(120, 120)).is_some());
        assert_eq!(worse(&lines(0, 40), &lines(10_000, 120)), None, "better");
    }

    #[test]
    fn too_little_on_either_side_decides_nothing_and_is_told() {
        for (canary, others) in [
            (lines(10_000, 9), lines(0, 1_000)),
            (lines(10_000, 1_000), lines(0, 9)),
            (lines(10_000, 1_000), CanaryFigures::default()),
            (CanaryFigures::default(), lines(0, 1_000)),
        ] {
            let verdict = judge_canary(&canary, &others, 3);
            assert_eq!((verdict.worse, verdict.judged), (None, Vec::new()));
            assert_eq!(verdict.unjudged, CanaryFigure::ALL);
        }
    }

    #[test]
    fn cpu_time_counts_by_connection_beyond_that_of_cold_code() {
        let cpu = |sum, units| CanaryFigures { cpu_ms: amount(sum, units), ..CanaryFigures::default() };
        assert_eq!(worse(&cpu(500, 20), &cpu(0, 60)), None);
        assert_eq!(worse(&cpu(800, 20), &cpu(300, 60)), None);
        let said = "the canary used 801 ms of CPU time for 20 connections, the others 300 ms for 60 (allowed: 800 ms)";
        assert_eq!(worse(&cpu(801, 20), &cpu(300, 60)).as_deref(), Some(said));
    }

    #[test]
    fn refusals_delays_and_probes_have_their_own_units() {
        let of = |refused, loop_delay_us, failed_probes| CanaryFigures {
            refused,
            loop_delay_us,
            failed_probes,
            ..CanaryFigures::default()
        };
        let said = worse(&of(amount(30, 40), None, None), &of(amount(0, 120), None, None));
        assert_eq!(said.as_deref(), Some("the canary refused 30 of 40 connections, the others 0 of 120 (allowed: 10)"));
        let (late, well) = (of(None, amount(2_000_000, 5), None), of(None, amount(40_000, 20), None));
        let said = "the event loop of the canary was late by 400 ms on average, those of the others by 2 ms \
                    (allowed: 106 ms)";
        assert_eq!(worse(&late, &well).as_deref(), Some(said));
        assert_eq!(worse(&well, &late), None);
        assert_eq!(worse(&of(None, amount(2_000_000, 2), None), &well), None, "two measurements are too few");
        let said = "the canary failed 2 liveness probes, the others 0 (3 workers; allowed: 1)";
        let (failing, passing) = (of(None, None, amount(2, 1)), of(None, None, amount(0, 3)));
        assert_eq!(worse(&failing, &passing).as_deref(), Some(said));
        assert_eq!(worse(&of(None, None, amount(1, 1)), &passing), None, "one may be chance");
        assert_eq!(worse(&failing, &of(None, None, amount(3, 3))), None, "something else is broken");
    }

    #[test]
    fn amounts_beyond_all_bounds_do_not_overflow() {
        let most = lines(u64::MAX, u64::MAX);
        assert_eq!(judge_canary(&most, &most, u32::MAX).worse, None);
        let mut sum = most;
        sum.add(&most);
        assert_eq!(sum, most);
    }

    #[test]
    fn workers_add_up_where_they_are_measured() {
        let mut sum = CanaryFigures::default();
        sum.add(&lines(3, 10));
        sum.add(&CanaryFigures { cpu_ms: amount(7, 5), ..CanaryFigures::default() });
        sum.add(&lines(1, 20));
        assert_eq!((sum.stderr_lines, sum.cpu_ms, sum.refused), (amount(4, 30), amount(7, 5), None));
    }
}
