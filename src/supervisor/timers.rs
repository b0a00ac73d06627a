//! Deadlines of workers and slots, at most one each, earliest first. The caller defines the clock (milliseconds).
use crate::ids::WorkerId;
use std::collections::{BTreeMap, BTreeSet};

/// The owner of a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TimerKey {
    /// The canary time of a reload.
    Canary,
    /// The pause of a reload for old workers to exit.
    Settling,
    Worker(WorkerId),
    /// A slot; also the agent's.
    Slot(u32),
}

/// A set of deadlines.
#[derive(Clone, Debug, Default)]
pub(super) struct Timers {
    by_time: BTreeSet<(u64, TimerKey)>,
    by_key: BTreeMap<TimerKey, u64>,
}

impl Timers {
    /// Sets or clears the one deadline of `key`.
    pub(super) fn set(&mut self, key: TimerKey, at_ms: Option<u64>) {
        if let Some(old) = self.by_key.remove(&key) {
            self.by_time.remove(&(old, key));
        }
        if let Some(at) = at_ms {
            self.by_key.insert(key, at);
            self.by_time.insert((at, key));
        }
    }

    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<u64> {
        self.by_time.first().map(|&(at, _)| at)
    }

    /// Removes and returns one deadline that has passed.
    pub(super) fn take_due(&mut self, now_ms: u64) -> Option<TimerKey> {
        let &(at, key) = self.by_time.first()?;
        if at > now_ms {
            return None;
        }
        self.set(key, None);
        Some(key)
    }
}
