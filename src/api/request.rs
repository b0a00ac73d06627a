//! What a client may ask of a deployment: one type that the command line builds, its client sends, the server parses and
//! the master executes. How each looks in HTTP is in `routes`.
use super::types::Change;
use crate::config::{Workers, parse};
use crate::limits;
use crate::logs::reading::Filter;
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// A request to a deployment.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// Changes nothing.
    View(View),
    /// Wait until every app is ready, or its start has failed.
    Ready,
    /// Replace the workers one after the other; answered when that has ended.
    Reload { target: Target, change: Change },
    /// Start an app that is stopped; answered when it is ready, or its start has failed.
    Start { app: String, change: Change },
    /// Stop an app and start it; answered as a start is.
    Restart { app: String, change: Change },
    /// Stop apps; answered when they have stopped.
    Stop { target: Target, mode: StopMode },
    /// Stop an app and forget it; answered when nothing of it is left.
    Delete { app: String, mode: StopMode },
    /// Change the number of slots; answered when it is accepted.
    Scale { app: String, to: Scale },
    /// Send a signal to every worker, and the agent.
    Signal { app: String, signal: i32 },
    /// The variables of an app's processes.
    Environment { app: String, of: Role },
    /// Open every log file again; answered when they are open.
    ReopenLogs,
    /// Empty log files; answered when they are empty.
    FlushLogs { target: Target },
    /// Have this binary (an absolute path) take over. The master answers with what it would find; the server has the
    /// binary look at that, and then orders the upgrade.
    Upgrade { binary: String },
}

/// What a client looks at.
#[derive(Clone, Debug, PartialEq)]
pub enum View {
    /// Everything.
    Deployment,
    /// One app.
    App(String),
    /// Whether the master's loop turns.
    Live,
    /// Whether every app has a ready worker.
    Ready,
    /// Log lines.
    Logs(LogQuery),
}

/// Which apps of a deployment are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Every one.
    All,
    /// The one with this name.
    App(String),
}

/// How workers end.
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

    /// Whether nothing is drained.
    pub fn is_now(self) -> bool {
        self == StopMode::Now
    }
}

/// A kind of process of an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Any of its workers.
    Worker,
    /// Its agent.
    Agent,
}

/// Which log lines are wanted.
#[derive(Clone, Debug, PartialEq)]
pub struct LogQuery {
    /// Of these apps; empty: of every one.
    pub apps: Vec<String>,
    /// So many of the last ones of each file first.
    pub lines: usize,
    /// Then those that come.
    pub follow: bool,
    /// Of this stream or slot.
    pub filter: Filter,
}

impl Default for LogQuery {
    fn default() -> LogQuery {
        LogQuery { apps: Vec::new(), lines: limits::LOGS_LINES_DEFAULT, follow: false, filter: Filter::default() }
    }
}

/// A number of workers: `4`, `max`, `50%`; or a change of it: `+3`, `-1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scale {
    /// This many.
    To(Workers),
    /// So many more.
    Up(u32),
    /// So many less.
    Down(u32),
}

/// Why an app cannot be scaled.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ScaleError {
    /// The text is neither a number of workers nor a change.
    #[error("cannot scale to {0:?}: say a number from 1 to {max}, +N, -N, max, max-1 or 50%", max = limits::WORKERS_MAX)]
    Unreadable(String),
    /// No worker would stay.
    #[error("cannot scale from {from} by \"{by}\": at least 1 worker must stay (stop ends all)")]
    TooFew { from: u32, by: Scale },
    /// More workers than an app may have.
    #[error("cannot scale from {from} by \"{by}\": an app has at most {max} workers", max = limits::WORKERS_MAX)]
    TooMany { from: u32, by: Scale },
}

impl Scale {
    /// The number of workers after the change, where there are `from` now and `max` means `cpus`.
    ///
    /// # Errors
    /// That number is out of bounds.
    pub fn resolve(&self, from: u32, cpus: u32) -> Result<u32, ScaleError> {
        let wanted = match self {
            Scale::To(workers) => i64::from(workers.count(cpus)),
            Scale::Up(more) => i64::from(from) + i64::from(*more),
            Scale::Down(less) => i64::from(from) - i64::from(*less),
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
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_is_a_number_or_a_change() {
        for (text, from, to) in [("4", 2, 4), ("+3", 2, 5), ("-1", 2, 1), ("max", 2, 8), ("max-1", 2, 7), ("50%", 2, 4)]
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
