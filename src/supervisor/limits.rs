//! Limits on a worker's life, and what follows when one is passed: a replacement beside the worker, or the end of a
//! hung worker.
use super::app::{App, Cx, Role};
use super::slot::SlotPhase;
use super::slot::died;
use super::worker::Phase;
use super::{Action, Cause, ExitStatus, Next, Report};
use crate::ids::{Generation, Slot, WorkerId};
use crate::limits;

/// Workers leave up to this share of their `lifetime` early (one part in so many; no unit).
const LIFETIME_JITTER_SHARE: u64 = 10;

/// Limits of a worker. `None`: no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Resident memory, in bytes.
    pub memory_bytes: Option<u64>,
    /// Time since its spawn, in milliseconds.
    pub lifetime_ms: Option<u64>,
    /// Connections that were handed to it.
    pub max_connections: Option<u64>,
    /// A worker whose event loop has not turned for this time (ms) is hung.
    pub hang_ms: Option<u64>,
    /// A hung worker may leave a report, and a core, before it is killed.
    pub hang_report: bool,
}

/// The limit that a worker has passed, or the other reason why it is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excess {
    /// Bytes used and allowed.
    Memory { used: u64, allowed: u64 },
    /// Age of the worker (ms).
    Lifetime { lived_ms: u64 },
    /// Connections that it took.
    Connections { taken: u64 },
    /// So many liveness probes in a row failed.
    Unwell { failures: u32 },
    /// None: somebody asked for its replacement.
    Asked,
}

impl Limits {
    /// No limits.
    pub const NONE: Limits =
        Limits { memory_bytes: None, lifetime_ms: None, max_connections: None, hang_ms: None, hang_report: false };

    /// The first limit that a worker with these figures has passed.
    pub fn passed(&self, worker: WorkerId, lived_ms: u64, used: Option<u64>, taken: u64) -> Option<Excess> {
        if let (Some(used), Some(allowed)) = (used, self.memory_bytes)
            && used > allowed
        {
            return Some(Excess::Memory { used, allowed });
        }
        if self.lifetime_ms.is_some_and(|lifetime_ms| lived_ms >= own_lifetime_ms(worker, lifetime_ms)) {
            return Some(Excess::Lifetime { lived_ms });
        }
        (self.max_connections.is_some_and(|most| taken >= most)).then_some(Excess::Connections { taken })
    }
}

/// The lifetime less up to a tenth, by the worker's id: workers that started together do not leave together.
fn own_lifetime_ms(worker: WorkerId, lifetime_ms: u64) -> u64 {
    // Fibonacci hashing: neighbouring ids get distant values.
    let spread = worker.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    lifetime_ms - (lifetime_ms / LIFETIME_JITTER_SHARE).saturating_mul(spread) / (1 << 32)
}

impl App {
    /// Says of a generation whether two of its workers may run in one slot.
    pub fn set_overlap(&mut self, generation: Generation, overlap: bool) {
        if let Some(policy) = self.policies.get_mut(&generation) {
            policy.overlap = overlap;
        }
    }

    /// Leaves the slot empty after its last allowed run.
    pub(super) fn end_last_run(&mut self, cx: &mut Cx<'_>, index: u32) {
        let Some(slot) = self.slot_mut(index) else { return };
        let (runs, death) = (slot.runs, slot.death.take());
        let failed = death.as_ref().is_some_and(|death| death.cause != Cause::Ended(ExitStatus::Code(0)));
        self.set_slot_phase(index, if failed { SlotPhase::Errored } else { SlotPhase::Stopped });
        if let Some(death) = death {
            cx.report(died(death, Slot(index), Next::LastRun { runs, failed }));
        }
    }

    /// Whether a worker is being replaced: by a reload, for a passed limit, or because somebody asked.
    pub fn is_replacing(&self) -> bool {
        self.reload.is_some() || self.slots.iter().any(|slot| slot.incoming.is_some())
    }

    /// The worker that is being started beside that of a slot.
    pub fn incoming(&self, slot: Slot) -> Option<WorkerId> {
        self.slots.get(slot.0 as usize)?.incoming
    }

    /// Starts a replacement beside a worker that has passed a limit; the old worker drains once the new one is ready.
    /// One slot at a time, and never during a reload: the shell repeats the event.
    pub(super) fn on_replace(&mut self, cx: &mut Cx<'_>, worker: WorkerId, excess: Excess) {
        let Some(w) = self.workers.get(&worker) else { return };
        let serves = matches!(w.phase, Phase::Ready { .. });
        let (slot, pid) = (w.slot, w.pid);
        let Role::Current(index) = self.role(worker) else { return };
        if !serves || self.is_replacing() || self.stopping.is_some() {
            return;
        }
        let Some(slot_state) = self.slots.get(index as usize) else { return };
        if slot_state.replace_after_ms > cx.now_ms && excess != Excess::Asked {
            return;
        }
        let generation = slot_state.generation;
        cx.report(Report::Replacing { worker, slot, pid, excess });
        let overlap = self.policy(generation).overlap;
        let incoming = if overlap {
            Some(self.spawn(cx, index, generation))
        } else {
            // The slot is filled when the old one is gone.
            self.detach(index, worker);
            self.retire(cx, worker);
            None
        };
        let now_ms = cx.now_ms;
        if let Some(slot) = self.slot_mut(index) {
            slot.incoming = incoming;
            // If even a new worker is over the limit, replacements must not follow each other at once.
            slot.replace_after_ms = now_ms + limits::REPLACE_EVERY_MS;
        }
    }

    /// The replacement failed: the old worker keeps serving, and the next try waits as after any failure.
    pub(super) fn replacement_failed(&mut self, cx: &mut Cx<'_>, index: u32) {
        let Some(generation) = self.slots.get(index as usize).map(|slot| slot.generation) else { return };
        let policy = self.policy(generation).clone();
        let now_ms = cx.now_ms;
        let Some(slot) = self.slot_mut(index) else { return };
        slot.count_death(&policy, true, now_ms);
        slot.replace_after_ms = slot.replace_after_ms.max(now_ms + slot.backoff_ms(&policy.rules(Slot(index)).backoff));
    }

    /// The worker of a slot is lost while its replacement starts: the replacement fills the slot now. Returns whether
    /// there was one.
    pub(super) fn promote(&mut self, cx: &mut Cx<'_>, index: u32, young: bool) -> bool {
        if self.reload.is_some() {
            return false;
        }
        let Some(generation) = self.slots.get(index as usize).map(|slot| slot.generation) else { return false };
        let policy = self.policy(generation).clone();
        let now_ms = cx.now_ms;
        let Some(slot) = self.slot_mut(index) else { return false };
        let Some(incoming) = slot.incoming.take() else { return false };
        slot.current = Some(incoming);
        slot.count_death(&policy, young, now_ms);
        slot.restarts += 1;
        // Otherwise the death is reported when the replacement is spawned.
        if self.workers.get(&incoming).is_some_and(|w| w.pid.is_some())
            && let Some(death) = self.slot_mut(index).and_then(|slot| slot.death.take())
        {
            let slot = Slot(index);
            cx.report(died(death, slot, Next::Replaced { after_ms: 0 }));
        }
        true
    }

    /// Ends replacements under way, because a reload or the slot's end comes first.
    pub(super) fn abandon_replacements(&mut self, cx: &mut Cx<'_>) {
        for index in 0..self.slots.len() as u32 {
            if self.slots[index as usize].incoming.is_some()
                && let Some(worker) = self.slot_mut(index).and_then(|slot| slot.incoming.take())
            {
                self.retire(cx, worker);
            }
        }
    }

    /// The worker's event loop is stuck: the worker has failed. SIGTERM would need the event loop.
    pub(super) fn on_hung(&mut self, cx: &mut Cx<'_>, worker: WorkerId) {
        let Some(w) = self.workers.get(&worker) else { return };
        let policy = self.policy(w.generation);
        let (report, kill_timeout_ms) = (policy.limits.hang_report, policy.kill_timeout_ms);
        let Some(hang_ms) = policy.limits.hang_ms.filter(|_| matches!(w.phase, Phase::Ready { .. })) else { return };
        let role = self.role(worker);
        self.count_failure(cx, worker, role, Cause::Hung(hang_ms), cx.now_ms);
        if report {
            let kill_at_ms = cx.now_ms + limits::HANG_REPORT_MS + kill_timeout_ms;
            self.set_phase(worker, Phase::Stopping { kill_at_ms });
            cx.act(Action::Abort { worker });
        } else {
            self.set_phase(worker, Phase::Killed);
            cx.act(Action::Kill { worker });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_spread_over_a_tenth() {
        let day = 86_400_000;
        let all: Vec<u64> = (1..=64).map(|id| own_lifetime_ms(WorkerId(id), day)).collect();
        assert!(all.iter().all(|&ms| ms <= day && ms > day - day / 10), "{all:?}");
        let early = all.iter().filter(|&&ms| ms < day - day / 20).count();
        assert!((16..48).contains(&early), "{all:?}");
        let mut sorted = all.clone();
        sorted.sort_unstable();
        assert!(sorted.windows(2).all(|two| two[1] - two[0] > 1_000), "no two leave together: {sorted:?}");
        assert_eq!(own_lifetime_ms(WorkerId(3), 1), 1);
        let longest = limits::DURATION_MS_MAX;
        assert!(own_lifetime_ms(WorkerId(5), longest) > longest / 2);
    }

    #[test]
    fn the_limit_that_was_passed_is_named() {
        let limits =
            Limits { memory_bytes: Some(100), lifetime_ms: Some(1_000), max_connections: Some(5), ..Limits::NONE };
        let passed = |lived_ms, used, taken| limits.passed(WorkerId(1), lived_ms, used, taken);
        assert_eq!(passed(10, Some(100), 4), None);
        assert_eq!(passed(10, Some(101), 4), Some(Excess::Memory { used: 101, allowed: 100 }));
        assert_eq!(passed(1_000, None, 4), Some(Excess::Lifetime { lived_ms: 1_000 }));
        assert_eq!(passed(10, None, 5), Some(Excess::Connections { taken: 5 }));
        assert_eq!(Limits::NONE.passed(WorkerId(1), u64::MAX, Some(u64::MAX), u64::MAX), None);
    }
}
