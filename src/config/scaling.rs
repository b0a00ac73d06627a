//! `workers = "2..8"` and `[app.scale]`: the bounds between which the number of workers follows the load, and by what. The
//! rule itself is the supervisor's.
use super::Workers;
use super::parse;
use super::problem::{At, Found, Spot};
use super::protocol::{Protocol, ProtocolKind};
use super::schema::Raw as _;
pub use super::schema::scale_keys::Scaling;
use super::schema::scale_keys::{RawScale, ScalingRest};
use super::value_error::ValueError;
use crate::limits::SCALE_WAITING_MAX;
use crate::supervisor::Measure;
use std::fmt;

/// The target where none is typed, in thousandths of a CPU.
const TARGET_CPU_MILLI: u64 = 700;
/// The same in thousandths of a waiting connection.
const TARGET_QUEUE_MILLI: u64 = 4_000;

/// `workers` as typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerRange {
    /// The number, or the lower bound.
    pub least: Workers,
    /// The upper bound, where the number follows the load.
    pub most: Option<Workers>,
}

/// The load that one worker should have, as typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A share of a CPU.
    Percent(u32),
    /// So many waiting connections.
    Waiting(u32),
}

/// An entry of `schedule`: the lower bound from a time on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduleEntry {
    /// When it begins to hold; until the next entry does.
    pub cron: String,
    pub workers: Workers,
}

impl fmt::Display for WorkerRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.most {
            Some(most) => write!(f, "{}..{most}", self.least),
            None => self.least.fmt(f),
        }
    }
}

/// `4`, `max`, `50%`; with two of them between dots the bounds: `2..8`, `2..max`.
pub(super) fn worker_range(text: &str) -> Result<WorkerRange, ValueError> {
    let Some((least, most)) = text.split_once("..") else {
        return Ok(WorkerRange { least: parse::workers(text)?, most: None });
    };
    let (least, most) = (parse::workers(least)?, parse::workers(most)?);
    // Bounds of different kinds depend on the machine.
    let is_growing = match (least, most) {
        (Workers::Exactly(least), Workers::Exactly(most)) => least < most,
        (Workers::Percent(least), Workers::Percent(most)) => least < most,
        (Workers::MaxMinus(least), Workers::MaxMinus(most)) => least > most,
        _ => true,
    };
    if is_growing {
        Ok(WorkerRange { least, most: Some(most) })
    } else {
        Err(ValueError::WorkersRange(text.to_owned()))
    }
}

/// `70%`.
pub(super) fn target(text: &str) -> Result<Target, ValueError> {
    let percent =
        text.strip_suffix('%').and_then(parse::digits).filter(|percent| (1..=TARGET_PERCENT_MAX).contains(percent));
    percent.map(Target::Percent).ok_or_else(|| ValueError::ScaleTarget(text.to_owned()))
}

/// Highest target, in percent of a CPU: workers with many threads use several.
pub(super) const TARGET_PERCENT_MAX: u32 = 10_000;

/// With every default decided; `None` where the number of workers is fixed.
pub(super) fn decide(
    raw: Option<At<RawScale>>,
    range: Option<&At<WorkerRange>>,
    protocol: Protocol,
    found: &mut Found,
) -> Option<Scaling> {
    let raw = raw.map(|at| at.value).unwrap_or_default();
    let Some(most) = range.and_then(|range| range.value.most) else {
        if let Some(spot) = raw.spot() {
            found.add(spot, "does nothing without bounds for the number of workers: workers = \"2..8\"");
        }
        return None;
    };
    if raw.bad.contains(&"by") || raw.bad.contains(&"target") {
        return None;
    }
    let by = raw.by.as_ref().map_or(Measure::default(), |at| at.value);
    let by_spot = raw.by.as_ref().map_or(Spot::Whole, |at| at.spot);
    if by == Measure::Queue && protocol.exactly() == Some(ProtocolKind::Plain) {
        found.add(
            by_spot,
            "by = \"queue\" counts connections that wait at clusterd's sockets, and protocol \"none\" has none",
        );
    }
    let target_milli = match raw.target.as_ref().map(|at| (at.value, at.spot)) {
        None if by == Measure::Queue => TARGET_QUEUE_MILLI,
        None => TARGET_CPU_MILLI,
        Some((Target::Waiting(count), _)) if by == Measure::Queue => u64::from(count) * 1_000,
        Some((Target::Percent(percent), spot)) if by != Measure::Queue => {
            if by == Measure::Loop && percent > 100 {
                found.add(spot, "the main thread of a worker uses at most 100% of a CPU");
            }
            u64::from(percent) * 10
        }
        Some((_, spot)) => {
            let wants = match by {
                Measure::Queue => format!("with by = \"queue\" a number of connections from 1 to {SCALE_WAITING_MAX}"),
                Measure::Cpu | Measure::Loop => {
                    format!("with by = \"{}\" a share of a CPU, such as \"70%\"", by.name())
                }
            };
            found.add(spot, format!("target is {wants}"));
            return None;
        }
    };
    Some(raw.decide(ScalingRest { most, target_milli }))
}
