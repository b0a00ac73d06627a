//! One slot: its worker, its failures, and the pause before the next try. Workers have numbered slots; an app's agent
//! has one of its own (`Slot::AGENT`), as has the command before the workers (`Slot::BEFORE`); the policy has other values for them
//! ([`Rules`]).
use super::worker::WorkerView;
use super::{Next, Policy, ReadyRule, Report};
use crate::ids::{Generation, Slot, WorkerId};
use crate::limits;
use std::collections::VecDeque;

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

/// A worker's death that is reported once the replacement is spawned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Death {
    pub(super) worker: WorkerId,
    pub(super) pid: Option<i32>,
    pub(super) cause: super::Cause,
    pub(super) lived_ms: u64,
    pub(super) at_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SlotState {
    /// The generation that last served here, which a refill uses.
    pub(super) generation: Generation,
    pub(super) phase: SlotPhase,
    /// The current worker: starting or ready.
    pub(super) current: Option<WorkerId>,
    /// The worker that is being started beside it: of the next generation in a reload, a replacement otherwise.
    pub(super) incoming: Option<WorkerId>,
    /// Young failures in the sliding window, oldest first (absolute milliseconds).
    pub(super) failures: VecDeque<u64>,
    /// Young failures in a row, which drive the backoff.
    pub(super) consecutive: u32,
    /// Refills after an unrequested end.
    pub(super) restarts: u64,
    /// Unrequested ends, since the slot began or its worker was last replaced on purpose.
    pub(super) runs: u32,
    /// A worker of this generation was ready here.
    pub(super) proven: bool,
    /// Earliest time of the next replacement for a passed limit (absolute milliseconds).
    pub(super) replace_after_ms: u64,
    /// The last death, until its replacement is spawned.
    pub(super) death: Option<Death>,
}

/// What a policy says about the processes of a slot. Times are in milliseconds.
pub(super) struct Rules<'a> {
    pub(super) ready: &'a ReadyRule,
    pub(super) ready_timeout_ms: u64,
    pub(super) kill_timeout_ms: u64,
    pub(super) backoff: Backoff,
}

/// Pauses before the next try, in milliseconds.
pub(super) struct Backoff {
    first_ms: u64,
    min_ms: u64,
    max_ms: u64,
    /// Least pause after any unrequested end.
    least_ms: u64,
}

impl Policy {
    pub(super) fn rules(&self, slot: Slot) -> Rules<'_> {
        if slot == Slot::BEFORE {
            return self.rules_before();
        }
        match &self.agent {
            Some(agent) if slot == Slot::AGENT => {
                let delay_ms = agent.restart_delay_ms;
                Rules {
                    ready: &agent.ready,
                    ready_timeout_ms: agent.ready_timeout_ms,
                    kill_timeout_ms: agent.kill_timeout_ms,
                    // It doubles, starting at the delay.
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
                backoff: self.backoff(),
            },
        }
    }

    /// The command before the workers never gets ready: it ends.
    fn rules_before(&self) -> Rules<'_> {
        let times = self.before.as_ref().map(|before| (before.timeout_ms, before.kill_timeout_ms));
        let (ready_timeout_ms, kill_timeout_ms) = times.unwrap_or((self.ready_timeout_ms, self.kill_timeout_ms));
        let ready = &ReadyRule { evidence: None, after_ms: None };
        Rules { ready, ready_timeout_ms, kill_timeout_ms, backoff: self.backoff() }
    }

    fn backoff(&self) -> Backoff {
        Backoff {
            first_ms: self.backoff_first_ms,
            min_ms: self.backoff_min_ms,
            max_ms: self.backoff_max_ms,
            least_ms: self.restart_delay_ms,
        }
    }
}

/// The public view of a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotView {
    /// The generation that last served here, which a refill uses.
    pub generation: Generation,
    pub phase: SlotPhase,
    /// The current worker; in the agent's slot its process, even while it leaves.
    pub current: Option<WorkerView>,
    /// Refills after an unrequested end.
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
            proven: false,
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

    /// The pause before the next try: the ordinary one after the death of an old process, a shorter one after the first
    /// young death, doubling from then on.
    pub(super) fn backoff_ms(&self, backoff: &Backoff) -> u64 {
        let backoff_ms = match self.consecutive {
            0 => 0,
            1 => backoff.first_ms,
            n => backoff.min_ms.saturating_mul(1u64.checked_shl(n - 2).unwrap_or(u64::MAX)).min(backoff.max_ms),
        };
        backoff_ms.max(backoff.least_ms)
    }

    /// Counts an unrequested end. Returns whether it was the last one allowed.
    pub(super) fn count_run(&mut self, policy: &Policy) -> bool {
        self.runs = self.runs.saturating_add(1);
        policy.max_runs.is_some_and(|max| self.runs >= max)
    }

    /// A worker of this slot has proved itself: clears its earlier failures.
    pub(super) fn clear_failures(&mut self) {
        self.failures.clear();
        self.consecutive = 0;
        self.runs = 0;
    }
}

/// The report of a death, of a worker or of a process beside them.
pub(super) fn died(death: Death, slot: Slot, next: Next) -> Report {
    let Death { worker, pid, cause, lived_ms, .. } = death;
    match slot {
        Slot::AGENT => Report::AgentDied { agent: worker, pid, cause, lived_ms, next },
        Slot::BEFORE => Report::BeforeFailed { process: worker, pid, cause, lived_ms, next },
        _ => Report::WorkerDied { worker, slot, pid, cause, lived_ms, next },
    }
}
