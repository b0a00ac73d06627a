//! All deadlines of the master, in one queue. A mechanism sets its timer here and nowhere else, and takes it when it is
//! due; the loop sleeps until the first one. The mechanism that a timer is named after knows what it means.
use crate::ids::AppIx;
use std::collections::{BTreeMap, BTreeSet};

/// The owner of a deadline. There is at most one deadline for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// The heartbeat for the keeper's watchdog, and checks once a second.
    Heartbeat,
    /// The next deadline of an app's supervisor.
    Rules(AppIx),
    /// The end of a pause in accepting for an app.
    AcceptPause(AppIx),
    /// A worker that refused connections of an app may be offered some again.
    BackoffEnd(AppIx),
    /// The check whether workers have read their pings.
    PingLook,
    /// The first limit for a stuck event loop.
    Hang,
    /// The next step of a probe by HTTP.
    HttpProbe,
    /// The next step of the balance of kept connections, sooner than with the heartbeat.
    Balance,
    /// The check of draining workers from outside.
    DrainCheck,
    /// The first end of a `drain_delay`.
    DrainDelay,
    /// The first stop of an app that was put off.
    StopDelay,
    /// What is left of a stop is reported, before a container is killed.
    StopReport,
    /// The check of the accept queues of slots.
    AcceptQueues,
    /// The next change of a selection in the kernel.
    Steering,
    /// Sockets of a group that a worker has shut down listen again.
    Listening,
    /// The retry of lines that wait for a resource of the system.
    ResourceRetry,
    /// The retry of orders to the keeper.
    KeeperRetry,
    /// Datagrams that were left on notify sockets are read.
    Notify,
    /// The first call of an app's action that waits too long.
    Actions,
    /// The first profile that takes too long.
    Profiles,
    /// The check whether the output of a failed worker has been read.
    LastWords,
    /// Calls that were left are answered.
    Calls,
    /// Workers that inherited their sockets are asked whether they accept.
    AcceptProbe,
    /// Intercepted system calls that were left are answered.
    Intercepted,
    /// Channels that were left with bytes in them are read on.
    Unread,
    /// The end of a hand-over to the next binary that takes too long.
    HandOver,
    /// The check of our own log's size in the background.
    OwnLog,
    /// The check of running hooks.
    Hooks,
    /// The load of apps whose workers follow it is measured.
    Autoscale,
}

/// The queue. The kinds of timers and the number of apps bound its size.
#[derive(Debug, Default)]
pub(super) struct Timers {
    queue: BTreeSet<(u64, Timer)>,
    at: BTreeMap<Timer, u64>,
}

impl Timers {
    /// Sets a timer to this time (monotonic milliseconds); replaces an earlier setting.
    pub(super) fn set(&mut self, timer: Timer, at_ms: u64) {
        match self.at.insert(timer, at_ms) {
            Some(before) if before == at_ms => {}
            before => {
                if let Some(before) = before {
                    self.queue.remove(&(before, timer));
                }
                self.queue.insert((at_ms, timer));
            }
        }
    }

    /// Sets a timer, unless it is due earlier.
    pub(super) fn set_earlier(&mut self, timer: Timer, at_ms: u64) {
        if self.at.get(&timer).is_none_or(|set| at_ms < *set) {
            self.set(timer, at_ms);
        }
    }

    /// Sets a timer, or cancels it if `at_ms` is `None`.
    pub(super) fn set_or_cancel(&mut self, timer: Timer, at_ms: Option<u64>) {
        match at_ms {
            Some(at_ms) => self.set(timer, at_ms),
            None => self.cancel(timer),
        }
    }

    pub(super) fn cancel(&mut self, timer: Timer) {
        if let Some(at_ms) = self.at.remove(&timer) {
            self.queue.remove(&(at_ms, timer));
        }
    }

    /// Whether a timer is due.
    pub(super) fn is_due(&self, timer: Timer, now_ms: u64) -> bool {
        self.at.get(&timer).is_some_and(|at_ms| *at_ms <= now_ms)
    }

    /// Whether a timer is due. Cancels it then: a timer that stays due would keep the loop from sleeping.
    pub(super) fn take_due(&mut self, timer: Timer, now_ms: u64) -> bool {
        let due = self.is_due(timer, now_ms);
        if due {
            self.cancel(timer);
        }
        due
    }

    /// The earliest deadline.
    pub(super) fn next_ms(&self) -> Option<u64> {
        self.queue.first().map(|(at_ms, _)| *at_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_timer_is_next_and_a_due_one_is_taken_once() {
        let mut timers = Timers::default();
        timers.set(Timer::Hang, 30);
        timers.set(Timer::Rules(AppIx(1)), 20);
        timers.set(Timer::Rules(AppIx(0)), 10);
        assert_eq!(timers.next_ms(), Some(10));
        assert!(!timers.take_due(Timer::Rules(AppIx(0)), 9));
        assert!(timers.take_due(Timer::Rules(AppIx(0)), 10));
        assert!(!timers.take_due(Timer::Rules(AppIx(0)), 10), "it was taken");
        assert_eq!(timers.next_ms(), Some(20));
    }

    #[test]
    fn a_timer_that_is_set_again_counts_once() {
        let mut timers = Timers::default();
        timers.set(Timer::Hang, 30);
        timers.set_earlier(Timer::Hang, 40);
        assert_eq!(timers.next_ms(), Some(30));
        timers.set_earlier(Timer::Hang, 20);
        timers.set(Timer::Hang, 50);
        assert_eq!(timers.next_ms(), Some(50));
        timers.set_or_cancel(Timer::Hang, None);
        assert_eq!(timers.next_ms(), None);
        assert!(!timers.take_due(Timer::Hang, u64::MAX));
    }
}
