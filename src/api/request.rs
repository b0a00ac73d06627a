//! The requests to a deployment: one type that the command line builds, its client sends, the server parses and the
//! master executes. `routes` maps it to HTTP.
use super::types::{Change, ProfileRequest};
use crate::config::{Workers, parse};
use crate::limits;
use crate::logs::reading::Filter;
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// Changes nothing.
    View(View),
    /// Wait until every app is ready, or has failed to start.
    Ready,
    /// Replace the workers one after the other; answered at the end.
    Reload { target: Target, change: Change },
    /// The generations of an app that ran.
    Releases { app: String },
    /// Reload an app from the folder and configuration of an earlier generation: `to`, or the one before that which serves;
    /// answered like a reload.
    Rollback { app: String, to: Option<u32> },
    /// Start a stopped app; answered when it is ready, or has failed to start.
    Start { app: String, change: Change },
    /// Stop an app and start it; answered like a start.
    Restart { app: String, change: Change },
    /// Stop apps; answered when they have stopped.
    Stop { target: Target, mode: StopMode },
    /// Stop an app and remove it; answered when nothing of it is left.
    Delete { app: String, mode: StopMode },
    /// Change the number of slots; answered once accepted.
    Scale { app: String, to: Scale },
    /// Write a line to the stdin of every worker, or of the one in a slot.
    SendLine { app: String, slot: Option<u32>, line: String },
    /// Replace the worker in one slot; answered when the new one serves, or has failed.
    Replace { app: String, slot: u32 },
    /// Send a signal to every worker, and the agent; or to the worker in one slot.
    Signal { app: String, signal: i32, slot: Option<u32> },
    /// Call an action that workers offer; answered when they have answered.
    Trigger { app: String, slot: Option<u32>, action: String, parameter: Option<String> },
    /// Have a worker write a profile; answered when it is written.
    Profile { app: String, what: ProfileRequest },
    /// Count an app's restarts from zero.
    ResetCounters { app: String },
    /// The environment of an app's processes.
    Environment { app: String, of: Role },
    /// Reopen every log file; answered when they are open.
    ReopenLogs,
    /// Empty log files; answered when they are empty.
    FlushLogs { target: Target },
    /// Have this binary (an absolute path) take over. The master answers with a snapshot; the server has the binary
    /// check it, and then orders the upgrade.
    Upgrade { binary: String },
}

/// A read-only request.
#[derive(Clone, Debug, PartialEq)]
pub enum View {
    Deployment,
    App(String),
    /// Whether the master's loop is turning.
    Live,
    /// Whether every app has a ready worker.
    Ready,
    /// Whether this app has one.
    AppReady(String),
    /// Metrics of everything.
    Metrics,
    /// What happens.
    Events(EventQuery),
    /// Log lines.
    Logs(LogQuery),
}

/// The apps of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Every one.
    All,
    /// The one with this name.
    App(String),
}

/// How to end workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopMode {
    /// They finish their connections first.
    Drain,
    /// At once.
    Now,
}

impl StopMode {
    /// From the flag `--now`.
    pub fn from_now(now: bool) -> StopMode {
        if now { StopMode::Now } else { StopMode::Drain }
    }

    /// Whether workers end without a drain.
    pub fn is_now(self) -> bool {
        self == StopMode::Now
    }
}

/// A kind of process of an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Its worker in this slot.
    Worker {
        slot: u32,
    },
    Agent,
}

/// A query for log lines.
#[derive(Clone, Debug, PartialEq)]
pub struct LogQuery {
    /// Apps; empty: all.
    pub apps: Vec<String>,
    /// Number of last lines of each file.
    pub lines: usize,
    /// Followed by new lines.
    pub follow: bool,
    /// Stream or slot.
    pub filter: Filter,
}

/// A query for events.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EventQuery {
    /// Apps; empty: all, and what concerns none.
    pub apps: Vec<String>,
    /// Only what came after the event with this id.
    pub after: Option<u64>,
    /// Followed by new events.
    pub follow: bool,
}

impl Default for LogQuery {
    fn default() -> LogQuery {
        LogQuery { apps: Vec::new(), lines: limits::LOGS_LINES_DEFAULT, follow: false, filter: Filter::default() }
    }
}

/// A number of workers: `4`, `max`, `50%`; a change: `+3`, `-1`; or `auto`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scale {
    /// This many.
    To(Workers),
    /// This many more.
    Up(u32),
    /// This many fewer.
    Down(u32),
    /// As many as the load needs, within the configured bounds.
    Auto,
}

/// Why an app cannot be scaled.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ScaleError {
    /// The text is neither a number of workers nor a change.
    #[error("cannot scale to {0:?}: say a number from 1 to {max}, +N, -N, max, max-1, 50% or auto", max = limits::WORKERS_MAX)]
    Unreadable(String),
    /// Fewer than one worker.
    #[error("cannot scale from {from} by \"{by}\": at least 1 worker must stay (stop ends all)")]
    TooFew { from: u32, by: Scale },
    /// More workers than the limit of an app.
    #[error("cannot scale from {from} by \"{by}\": an app has at most {max} workers", max = limits::WORKERS_MAX)]
    TooMany { from: u32, by: Scale },
}

impl Scale {
    /// The new number of workers, from the current number `from`; `max` means `cpus`.
    ///
    /// # Errors
    /// That number is out of bounds.
    pub fn resolve(&self, from: u32, cpus: u32) -> Result<u32, ScaleError> {
        let wanted = match self {
            Scale::To(workers) => i64::from(workers.count(cpus)),
            Scale::Up(more) => i64::from(from) + i64::from(*more),
            Scale::Down(less) => i64::from(from) - i64::from(*less),
            Scale::Auto => i64::from(from),
        };
        match u32::try_from(wanted) {
            Ok(n) if (1..=limits::WORKERS_MAX).contains(&n) => Ok(n),
            Err(_) if wanted > 0 => Err(ScaleError::TooMany { from, by: self.clone() }),
            Ok(n) if n > 0 => Err(ScaleError::TooMany { from, by: self.clone() }),
            Ok(_) | Err(_) => Err(ScaleError::TooFew { from, by: self.clone() }),
        }
    }
}

impl FromStr for Scale {
    type Err = ScaleError;

    fn from_str(text: &str) -> Result<Scale, ScaleError> {
        let bad = || ScaleError::Unreadable(text.to_owned());
        match (text.strip_prefix('+'), text.strip_prefix('-')) {
            (Some(more), _) => more.parse().map(Scale::Up).map_err(|_| bad()),
            (_, Some(less)) => less.parse().map(Scale::Down).map_err(|_| bad()),
            (None, None) if text == "auto" => Ok(Scale::Auto),
            (None, None) => parse::workers(text).map(Scale::To).map_err(|_| bad()),
        }
    }
}

impl fmt::Display for Scale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scale::To(workers) => workers.fmt(f),
            Scale::Up(more) => write!(f, "+{more}"),
            Scale::Down(less) => write!(f, "-{less}"),
            Scale::Auto => f.write_str("auto"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_is_a_number_or_a_change() {
        for (text, from, to) in
            [("4", 2, 4), ("+3", 2, 5), ("-1", 2, 1), ("max", 2, 8), ("max-1", 2, 7), ("50%", 2, 4), ("auto", 2, 2)]
        {
            let scale: Scale = text.parse().unwrap();
            assert_eq!(scale.resolve(from, 8), Ok(to), "{text}");
            assert_eq!(scale.to_string(), text);
        }
        for bad in ["", "x", "+max", "-", "0", "+-1", "4.5"] {
            assert_eq!(bad.parse::<Scale>(), Err(ScaleError::Unreadable(bad.to_owned())));
        }
        let stays = Scale::Down(2).resolve(2, 8).unwrap_err().to_string();
        assert_eq!(stays, "cannot scale from 2 by \"-2\": at least 1 worker must stay (stop ends all)");
        for up in [limits::WORKERS_MAX, u32::MAX] {
            assert!(matches!(Scale::Up(up).resolve(1, 8), Err(ScaleError::TooMany { .. })));
        }
        assert!(matches!(Scale::Down(u32::MAX).resolve(1, 8), Err(ScaleError::TooFew { .. })));
    }
}
