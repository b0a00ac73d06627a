//! What goes wrong in the system calls of keeper and master, and when.
use crate::bugs::Bug;
use crate::errors::{self, Lack};
use crate::random::Random;

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Passes,
    /// Others run first.
    Pauses,
    /// The process is killed before the call.
    Killed,
    /// The call fails with this errno.
    Fails(i32),
}

/// A time in which calls fail.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scarcity {
    pub(crate) lack: Lack,
    pub(crate) end_us: u64,
    /// Calls in a hundred that fail, of those that need what is lacking.
    pub(crate) percent: u64,
}

/// Chances and dates of faults.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    /// Calls in a thousand before which others run.
    pub(crate) pauses_per_thousand: u64,
    /// The master's calls of which the one that brings this to zero is its last.
    pub(crate) kill_master_after: Option<u64>,
    pub(crate) scarcity: Option<Scarcity>,
    /// Reads and writes in a hundred that end early.
    pub(crate) short_percent: u64,
    /// A fault of the program that is put in.
    pub(crate) bug: Option<Bug>,
    /// No faults from now on.
    pub(crate) over: bool,
}

impl Faults {
    /// How many of these bytes a read or a write takes.
    pub(crate) fn part(&self, random: &mut Random, bytes: usize) -> usize {
        match bytes > 1 && !self.over && self.short_percent > 0 && random.percent(self.short_percent) {
            true => random.between(1, bytes as u64 - 1) as usize,
            false => bytes,
        }
    }

    /// What becomes of the next call.
    pub(crate) fn next(&mut self, random: &mut Random, now_us: u64, is_master: bool, name: &'static str) -> Fate {
        if self.over {
            return Fate::Passes;
        }
        if is_master && let Some(left) = &mut self.kill_master_after {
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.kill_master_after = None;
                return Fate::Killed;
            }
        }
        if let Some(scarcity) = self.scarcity {
            if now_us >= scarcity.end_us {
                self.scarcity = None;
            } else {
                let errnos = errors::of(scarcity.lack, name);
                if !errnos.is_empty() && random.percent(scarcity.percent) {
                    return Fate::Fails(errnos[random.next() as usize % errnos.len()]);
                }
            }
        }
        if random.next() % 1_000 < self.pauses_per_thousand { Fate::Pauses } else { Fate::Passes }
    }
}
