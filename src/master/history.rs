//! What has happened to an app, in numbers: restarts by cause, replacements by reason, reloads by outcome. A checkpoint
//! has them, so they go on under the next master.
use crate::supervisor::{Cause, Excess, ExitStatus, Next, Report};

/// What is counted. The order is that of the record: append only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counted {
    Exit,
    Signal,
    OutOfMemory,
    NotStarted,
    NotReady,
    Misbehaved,
    Hung,
    Memory,
    Lifetime,
    Connections,
    Reloaded,
    ReloadFailed,
    ReloadSuperseded,
    Unwell,
}

use Counted::{
    Connections, Exit, Hung, Lifetime, Memory, Misbehaved, NotReady, NotStarted, OutOfMemory, ReloadFailed,
    ReloadSuperseded, Reloaded, Signal, Unwell,
};

/// The causes of restarts, and the word of each on the wire.
pub(super) const CAUSES: [(Counted, &str); 7] = [
    (Exit, "exit"),
    (Signal, "signal"),
    (OutOfMemory, "out_of_memory"),
    (NotStarted, "not_started"),
    (NotReady, "not_ready"),
    (Misbehaved, "misbehaved"),
    (Hung, "hung"),
];

/// The limits and probes that workers were replaced for.
pub(super) const LIMITS: [(Counted, &str); 4] =
    [(Memory, "memory"), (Lifetime, "lifetime"), (Connections, "connections"), (Unwell, "unwell")];

/// The outcomes of reloads.
pub(super) const OUTCOMES: [(Counted, &str); 3] =
    [(Reloaded, "done"), (ReloadFailed, "failed"), (ReloadSuperseded, "superseded")];

const KINDS: usize = Unwell as usize + 1;

/// How often each happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct History([u64; KINDS]);

impl History {
    /// From a record, which may be of another version.
    pub(super) fn from_record(counts: &[u64]) -> History {
        let mut history = History::default();
        for (count, saved) in history.0.iter_mut().zip(counts) {
            *count = *saved;
        }
        history
    }

    /// For a record; empty if nothing has happened.
    pub(super) fn to_record(&self) -> Vec<u64> {
        if self == &History::default() { Vec::new() } else { self.0.to_vec() }
    }

    pub(super) fn count(&self, of: Counted) -> u64 {
        self.0[of as usize]
    }

    /// Counts restarts from 0.
    pub(super) fn reset_restarts(&mut self) {
        for (cause, _) in CAUSES {
            self.0[cause as usize] = 0;
        }
    }

    /// Counts what a report tells. Returns whether it was counted.
    pub(super) fn note(&mut self, report: &Report) -> bool {
        let counted = match report {
            Report::WorkerDied { cause, next: Next::Replaced { .. } | Next::Waiting { .. }, .. } => match cause {
                Cause::Ended(status) => ended(*status),
                Cause::NotStarted { .. } => NotStarted,
                Cause::NotReady { .. } => NotReady,
                Cause::Misbehaved(_) => Misbehaved,
                // Not of a worker: only the command before them has such an end.
                Cause::Overran(_) => return false,
                Cause::Hung(_) => Hung,
            },
            Report::WorkerLeft { status, .. } if is_crash(report) => ended(*status),
            Report::Replacing { excess, .. } => match excess {
                Excess::Memory { .. } => Memory,
                Excess::Lifetime { .. } => Lifetime,
                Excess::Connections { .. } => Connections,
                Excess::Unwell { .. } => Unwell,
                Excess::Asked => return false,
            },
            Report::ReloadDone { .. } => Reloaded,
            Report::ReloadFailed { .. } => ReloadFailed,
            Report::ReloadSuperseded { .. } => ReloadSuperseded,
            _ => return false,
        };
        self.0[counted as usize] = self.0[counted as usize].saturating_add(1);
        true
    }
}

fn ended(status: ExitStatus) -> Counted {
    match status {
        ExitStatus::Code(_) => Exit,
        ExitStatus::Signal(_) => Signal,
        ExitStatus::OutOfMemory => OutOfMemory,
    }
}

/// Whether a worker that seemed to leave by itself has crashed: the end of its channel may be seen before its exit.
pub(super) fn is_crash(report: &Report) -> bool {
    matches!(report, Report::WorkerLeft { status, killed: false, by_itself: true, .. } if *status != ExitStatus::Code(0))
}

/// Whether a report tells of a worker that was lost, and replaced.
pub(super) fn is_restart(report: &Report) -> bool {
    matches!(report, Report::WorkerDied { next: Next::Replaced { .. } | Next::Waiting { .. }, .. }) || is_crash(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Generation, Slot, WorkerId};

    #[test]
    fn counts_go_through_a_record_of_any_length() {
        let mut history = History::default();
        assert!(history.to_record().is_empty());
        assert!(history.note(&Report::ReloadDone { to: Generation(2) }));
        assert!(history.note(&Report::ReloadDone { to: Generation(3) }));
        assert!(!history.note(&Report::AppFinished));
        assert_eq!(History::from_record(&history.to_record()), history);
        assert_eq!(history.count(Reloaded), 2);
        let longer: Vec<u64> = (0..100).collect();
        assert_eq!(History::from_record(&longer).count(Signal), 1);
        assert_eq!(History::from_record(&[7]).count(Exit), 7);
    }

    #[test]
    fn a_crash_counts_although_the_channel_ended_first() {
        let left = |status, by_itself| Report::WorkerLeft {
            worker: WorkerId(1),
            slot: Slot(0),
            pid: Some(7),
            status,
            killed: false,
            lived_ms: 5,
            by_itself,
        };
        let mut history = History::default();
        let crash = left(ExitStatus::Signal(9), true);
        assert!(is_restart(&crash) && history.note(&crash));
        assert_eq!(history.count(Signal), 1);
        for other in [left(ExitStatus::Code(0), true), left(ExitStatus::Signal(15), false)] {
            assert!(!is_restart(&other) && !history.note(&other));
        }
    }

    #[test]
    fn every_kind_has_a_word_of_its_own() {
        let all: Vec<_> = CAUSES.iter().chain(&LIMITS).chain(&OUTCOMES).collect();
        let mut kinds: Vec<usize> = all.iter().map(|(kind, _)| *kind as usize).collect();
        kinds.sort_unstable();
        assert_eq!(kinds, (0..KINDS).collect::<Vec<_>>());
    }
}
