//! One slot: who fills it, how often that failed, and how long to wait before the next try. Workers have numbered slots;
//! an app's agent has one of its own (`Slot::AGENT`), which differs in what its policy says ([`Rules`]).
use super::worker::WorkerView;
use super::{Next, Policy, ReadyRule, Report};
use crate::ids::{Generation, Slot, WorkerId};
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

/// A worker's death that is reported once the replacement runs.
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

/// What a policy says of the processes of one kind of slot. Times are in milliseconds.
pub(super) struct Rules<'a> {
    pub(super) ready: &'a ReadyRule,
    pub(super) ready_timeout_ms: u64,
    pub(super) kill_timeout_ms: u64,
    pub(super) backoff: Backoff,
}

/// Waits before the next try, in milliseconds.
pub(super) struct Backoff {
    first_ms: u64,
    min_ms: u64,
    max_ms: u64,
    /// After any end that nobody asked for it is at least this.
    least_ms: u64,
}

impl Policy {
    /// What it says of the processes of this slot.
    pub(super) fn rules(&self, slot: Slot) -> Rules<'_> {
        match &self.agent {
            Some(agent) if slot == Slot::AGENT => {
                let delay_ms = agent.restart_delay_ms;
                Rules {
                    ready: &agent.ready,
                    ready_timeout_ms: agent.ready_timeout_ms,
                    kill_timeout_ms: agent.kill_timeout_ms,
                    // It doubles from the delay.
                    backoff: Backoff {
                        first_ms: delay_ms,
                        min_ms: delay_ms.saturating_mul(2),
                        max_ms: self.backoff_max_ms.max(delay_ms),
                        least_ms: delay_ms,
                    },
                }
            }
            Some(_) | None => Rules {
                ready: &self.ready,
                ready_timeout_ms: self.ready_timeout_ms,
                kill_timeout_ms: self.kill_timeout_ms,
                backoff: Backoff {
                    first_ms: self.backoff_first_ms,
                    min_ms: self.backoff_min_ms,
                    max_ms: self.backoff_max_ms,
                    least_ms: self.restart_delay_ms,
                },
            },
        }
    }
}

/// What others may see of a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotView {
    /// The generation that last served here: what a refill takes.
    pub generation: Generation,
    /// What it is doing.
    pub phase: SlotPhase,
    /// The worker that counts; of the agent's slot the process that there is, also one that leaves.
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
    pub(super) fn backoff_ms(&self, backoff: &Backoff) -> u64 {
        let backoff_ms = match self.consecutive {
            0 => 0,
            1 => backoff.first_ms,
            n => backoff.min_ms.saturating_mul(1u64.checked_shl(n - 2).unwrap_or(u64::MAX)).min(backoff.max_ms),
        };
        backoff_ms.max(backoff.least_ms)
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

/// The report of a death, of a worker or of the agent.
pub(super) fn died(death: Death, slot: Slot, next: Next) -> Report {
    let Death { worker, pid, cause, lived_ms, .. } = death;
    match slot {
        Slot::AGENT => Report::AgentDied { agent: worker, pid, cause, lived_ms, next },
        _ => Report::WorkerDied { worker, slot, pid, cause, lived_ms, next },
    }
}
