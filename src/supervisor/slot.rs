//! One slot: who fills it, how often that failed, and how long to wait before the next try.
use super::Policy;
use super::worker::WorkerView;
use crate::ids::{Generation, WorkerId};
use crate::limits;
use std::collections::VecDeque;

/// What a slot is doing when it has no worker of its own, or that it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotPhase {
    /// It has a worker, or a reload is about to give it one.
    Filled,
    /// It waits (backoff) until this time, in milliseconds.
    Waiting { until_ms: u64 },
    /// It failed too often.
    Errored,
    /// Its worker ended with a code that means "do not restart", or the app stops.
    Stopped,
}

/// A worker's death that is told to the people once the replacement runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Death {
    pub(super) worker: WorkerId,
    pub(super) pid: Option<i32>,
    pub(super) cause: super::Cause,
    pub(super) lived_ms: u64,
    pub(super) at_ms: u64,
}

/// One slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SlotState {
    /// The generation that last served here: what a refill takes.
    pub(super) generation: Generation,
    pub(super) phase: SlotPhase,
    /// The worker that counts: starting or ready.
    pub(super) current: Option<WorkerId>,
    /// The worker that is being started beside it: of the next generation in a reload, else its replacement.
    pub(super) incoming: Option<WorkerId>,
    /// Young failures in the sliding window, oldest first (absolute milliseconds).
    pub(super) failures: VecDeque<u64>,
    /// Young failures in a row: drives the backoff.
    pub(super) consecutive: u32,
    /// Refills after an end that nobody asked for.
    pub(super) restarts: u64,
    /// Ends that nobody asked for, since the slot began or its worker was last replaced on purpose.
    pub(super) runs: u32,
    /// Its worker is not replaced for passing a limit before this time (absolute milliseconds).
    pub(super) replace_after_ms: u64,
    /// The last death, until its replacement runs.
    pub(super) death: Option<Death>,
}

/// What others may see of a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotView {
    /// The generation that last served here: what a refill takes.
    pub generation: Generation,
    /// What it is doing.
    pub phase: SlotPhase,
    /// The worker that counts.
    pub current: Option<WorkerView>,
    /// Refills after an end that nobody asked for.
    pub restarts: u64,
}

impl SlotState {
    pub(super) fn new(generation: Generation) -> SlotState {
        SlotState {
            generation,
            phase: SlotPhase::Filled,
            current: None,
            incoming: None,
            failures: VecDeque::new(),
            consecutive: 0,
            restarts: 0,
            runs: 0,
            replace_after_ms: 0,
            death: None,
        }
    }

    /// Counts a death. A young one (before `min_uptime`) lengthens the backoff and goes into the window; any other
    /// clears the backoff. Returns how many failures the window holds.
    pub(super) fn count_death(&mut self, policy: &Policy, young: bool, now_ms: u64) -> u32 {
        if young {
            self.consecutive = self.consecutive.saturating_add(1);
            if self.failures.len() == limits::FAILURES_REMEMBERED_MAX {
                self.failures.pop_front();
            }
            self.failures.push_back(now_ms);
        } else {
            self.consecutive = 0;
        }
        while self.failures.front().is_some_and(|&at| at + policy.window_ms < now_ms) {
            self.failures.pop_front();
        }
        self.failures.len() as u32
    }

    /// The wait before the next try: after a death of age the ordinary one, after the first young one its own, then
    /// doubling.
    pub(super) fn backoff_ms(&self, policy: &Policy) -> u64 {
        let backoff_ms = match self.consecutive {
            0 => 0,
            1 => policy.backoff_first_ms,
            n => policy
                .backoff_min_ms
                .saturating_mul(1u64.checked_shl(n - 2).unwrap_or(u64::MAX))
                .min(policy.backoff_max_ms),
        };
        backoff_ms.max(policy.restart_delay_ms)
    }

    /// Counts an end that nobody asked for; whether it was the last one allowed.
    pub(super) fn count_run(&mut self, policy: &Policy) -> bool {
        self.runs = self.runs.saturating_add(1);
        policy.max_runs.is_some_and(|max| self.runs >= max)
    }

    /// A worker of this slot has proved itself: old failures count no more.
    pub(super) fn forgive(&mut self) {
        self.failures.clear();
        self.consecutive = 0;
        self.runs = 0;
    }
}
