//! The deadlines of the master, all in one queue. A mechanism sets its timer here and nowhere else, and takes it when it
//! is due; the loop sleeps until the first one. What a timer means is the business of the mechanism that is named by it.
use crate::ids::AppIx;
use std::collections::{BTreeMap, BTreeSet};

/// Whose deadline it is. There is at most one of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// The keeper's watchdog has to hear of us, and what is looked at once a second.
    Heartbeat,
    /// The next deadline of an app's supervisor.
    Rules(AppIx),
    /// Connections of an app waited because the system had too little of something.
    AcceptPause(AppIx),
    /// A worker that refused connections of an app is offered some again.
    BackoffEnd(AppIx),
    /// Whether workers have read their pings.
    PingLook,
    /// The first event loop that stands still for too long.
    Hang,
    /// Workers that are asked whether they are ready.
    ReadinessProbe,
    /// Draining workers are looked at from outside.
    DrainCheck,
    /// The accept queues of slots are looked at.
    AcceptQueues,
    /// The kernel is told among which slots to choose.
    Steering,
    /// Lines that wait because the system had too little for them are sent again.
    ScarceChannels,
    /// What the keeper could not be sent is sent again.
    KeeperRetry,
    /// Channels that were left with bytes in them are read on.
    Unread,
    /// A hand-over to the next binary has taken too long.
    HandOver,
    /// Our own log in the background is kept from growing for ever.
    OwnLog,
    /// Commands of hooks.
    Hooks,
}

/// The queue. Its size is bounded by the kinds of timers and the number of apps.
#[derive(Debug, Default)]
pub(super) struct Timers {
    queue: BTreeSet<(u64, Timer)>,
    at: BTreeMap<Timer, u64>,
}

impl Timers {
    /// Sets a timer to this time (monotonic milliseconds), whatever it was set to.
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

    /// Sets a timer, unless it is set to an earlier time.
    pub(super) fn set_earlier(&mut self, timer: Timer, at_ms: u64) {
        if self.at.get(&timer).is_none_or(|set| at_ms < *set) {
            self.set(timer, at_ms);
        }
    }

    /// Sets a timer where there is a time, else cancels it.
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

    /// Whether a timer is due. It is cancelled then: one that stays due would keep the loop from sleeping.
    pub(super) fn take_due(&mut self, timer: Timer, now_ms: u64) -> bool {
        let due = self.at.get(&timer).is_some_and(|at_ms| *at_ms <= now_ms);
        if due {
            self.cancel(timer);
        }
        due
    }

    /// The earliest time that any timer is set to.
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
