//! The end of the keeper: ends everything below it, and waits until that is gone.
use super::event_loop::Keeper;
use super::system::System;
use crate::limits::STOP_NOW_KILL_MS;
use crate::os::signal;

/// How long the keeper waits at the end for processes that it has killed, in milliseconds.
const KEEPER_END_WAIT_MS: u64 = 2_000;
/// How often the keeper looks at the end whether a cgroup that it has killed is empty, in milliseconds.
const CGROUP_LOOK_MS: u64 = 10;

impl<S: System> Keeper<S> {
    /// Kills what is left and waits, for a bounded time, until it is gone, so that a new clusterd finds its ports free.
    /// Workers that no master has asked to end get SIGTERM first.
    pub(super) fn end_everything(&mut self) {
        self.cancel_reexec();
        let now_ms = self.system.now_ms();
        if let Some(master) = &self.master {
            // The leader is not reaped, so pid and group are still its own.
            let _ = self.system.kill_group(master.pid, signal::KILL);
            let _ = self.system.kill(master.pid, signal::KILL);
        }
        if self.watchdog.stop_has_no_master(now_ms) || self.watchdog.stop_now_is_over(now_ms) {
            self.end_workers_with(signal::TERM);
            self.wait_for_ends(STOP_NOW_KILL_MS, Strays::Stay);
        }
        self.end_workers_with(signal::KILL);
        self.wait_for_ends(KEEPER_END_WAIT_MS, Strays::End);
    }

    fn end_workers_with(&self, number: i32) {
        for pid in self.table.unreaped_pids() {
            // Not reaped, so the pid is still its own; it may have left its group, so signal both.
            let _ = self.system.kill_group(pid, number);
            let _ = self.system.kill(pid, number);
        }
    }

    fn wait_for_ends(&mut self, most_ms: u64, strays: Strays) {
        let deadline_ms = self.system.now_ms() + most_ms;
        loop {
            while let Ok(Some(pid)) = self.system.ended_child() {
                let Ok(Some(status)) = self.system.reap(pid) else { break };
                if self.is_master(pid) {
                    self.master = None;
                }
                self.table.reaped(pid, status, 0);
            }
            let now_ms = self.system.now_ms();
            let (left, groups) = match strays {
                Strays::End => (self.kill_strays(None), self.groups.end_all(&self.system)),
                Strays::Stay => (0, 0),
            };
            let ended = self.master.is_none() && self.table.unreaped_count() == 0 && left + groups == 0;
            if ended || now_ms >= deadline_ms {
                return self.groups.remove(&self.system);
            }
            while let Ok(Some(_)) = self.system.next_signal() {}
            // No signal says that a group is empty.
            let most_ms = if groups > 0 { CGROUP_LOOK_MS } else { u64::MAX };
            if self.system.wait(&mut [], Some(most_ms.min(deadline_ms - now_ms))).is_err() {
                return;
            }
        }
    }
}

/// What becomes of the processes that workers left behind.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Strays {
    /// Nothing yet.
    Stay,
    /// They are killed.
    End,
}
