//! Decides about the master: when to start it, when it counts as hung, what its end means, and when the time for "stop
//! now" is over. Pure: time is an argument.
//!
//! The watchdog counts the keeper's own wake-ups, not time: a keeper that was itself stopped or starved for a minute
//! wakes up once, so that a healthy master misses one tick, not sixty. The caller reads all messages before it calls
//! [`Watchdog::tick`].
use crate::limits::{HEARTBEAT_EVERY_MS, STOP_NOW_GRACE_MS, STOP_WITHOUT_MASTER_MS};

/// Keeper ticks (one each `HEARTBEAT_EVERY_MS`) without a heartbeat after which the master counts as hung.
const WATCHDOG_MISSED_TICKS_MAX: u32 = 5;
/// Time limit for a new master to report that it serves, in milliseconds.
const MASTER_START_TIMEOUT_MS: u64 = 30_000;
/// First wait before a master that died again at once is started again, in milliseconds. It doubles.
const MASTER_BACKOFF_MIN_MS: u64 = 50;
/// Longest wait before a master that keeps dying is started again, in milliseconds. Nobody accepts meanwhile, so clients
/// wait as long; a start costs some milliseconds of CPU.
const MASTER_BACKOFF_MAX_MS: u64 = 1_000;
/// A master that lived this long (ms) has no backoff: it is started again at once.
const MASTER_MIN_UPTIME_MS: u64 = 1_000;

/// Ticks within which a new master has to become ready.
const START_TICKS_MAX: u64 = MASTER_START_TIMEOUT_MS / HEARTBEAT_EVERY_MS;
/// After a heartbeat the next tick is due a little later than the next heartbeat: an idle keeper wakes up for the
/// heartbeat and never for the tick.
const TICK_AFTER_HEARTBEAT_MS: u64 = HEARTBEAT_EVERY_MS + HEARTBEAT_EVERY_MS / 4;

/// The state of the master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// There is none; the next one is started at this time.
    Down {
        start_at_ms: u64,
    },
    /// It runs and is not ready yet.
    Starting {
        started_ms: u64,
        ticks: u64,
        next_tick_ms: u64,
    },
    Serving {
        started_ms: u64,
        missed: u32,
        next_tick_ms: u64,
    },
    /// It was sent SIGKILL; its exit is awaited.
    Condemned {
        started_ms: u64,
        was_ready: bool,
    },
}

/// Why a master counts as hung.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hung {
    /// It did not get ready within this time, in milliseconds.
    Starting(u64),
    /// It sent no heartbeat for this time, in milliseconds.
    Serving(u64),
}

/// What the end of a master means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterEnd {
    /// The first master never served: there is nothing to keep alive.
    GiveUp,
    /// Start another one after this pause, in milliseconds.
    StartAfter(u64),
}

/// The watchdog's state for another binary, while a master serves. Times are CLOCK_MONOTONIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchdogState {
    /// The number of the master.
    pub incarnation: u32,
    /// When it was started.
    pub started_ms: u64,
    /// The pause after the next early death.
    pub backoff_ms: u64,
    /// How often the user requested a stop.
    pub stops_asked: u32,
    /// The deadline of a "stop now".
    pub stop_now_until_ms: Option<u64>,
}

/// The watchdog of all masters of one keeper.
#[derive(Debug)]
pub struct Watchdog {
    incarnation: u32,
    phase: Phase,
    backoff_ms: u64,
    stops_asked: u32,
    stop_now_until_ms: Option<u64>,
    /// Deadline for a master that can stop gracefully; set while a stop is requested and no master serves.
    stop_needs_master_until_ms: Option<u64>,
}

impl Watchdog {
    /// No master yet; the first start is due at once.
    #[must_use]
    pub fn new(now_ms: u64) -> Watchdog {
        Watchdog {
            incarnation: 0,
            phase: Phase::Down { start_at_ms: now_ms },
            backoff_ms: MASTER_BACKOFF_MIN_MS,
            stops_asked: 0,
            stop_now_until_ms: None,
            stop_needs_master_until_ms: None,
        }
    }

    /// The state for another binary; `None` while no master serves.
    #[must_use]
    pub fn state(&self) -> Option<WatchdogState> {
        let Phase::Serving { started_ms, .. } = self.phase else { return None };
        Some(WatchdogState {
            incarnation: self.incarnation,
            started_ms,
            backoff_ms: self.backoff_ms,
            stops_asked: self.stops_asked,
            stop_now_until_ms: self.stop_now_until_ms,
        })
    }

    /// Takes over from another binary.
    #[must_use]
    pub fn resume(state: WatchdogState, now_ms: u64) -> Watchdog {
        let WatchdogState { incarnation, started_ms, backoff_ms, stops_asked, stop_now_until_ms } = state;
        let next_tick_ms = now_ms + TICK_AFTER_HEARTBEAT_MS;
        Watchdog {
            incarnation,
            phase: Phase::Serving { started_ms, missed: 0, next_tick_ms },
            backoff_ms: backoff_ms.clamp(MASTER_BACKOFF_MIN_MS, MASTER_BACKOFF_MAX_MS),
            stops_asked,
            stop_now_until_ms,
            stop_needs_master_until_ms: None,
        }
    }

    /// The number of the current master, from 1; 0 before the first.
    #[must_use]
    pub fn incarnation(&self) -> u32 {
        self.incarnation
    }

    #[must_use]
    pub fn start_is_due(&self, now_ms: u64) -> bool {
        matches!(self.phase, Phase::Down { start_at_ms } if now_ms >= start_at_ms)
    }

    /// A master was started. Returns its number.
    pub fn started(&mut self, now_ms: u64) -> u32 {
        self.incarnation = self.incarnation.saturating_add(1);
        self.phase = Phase::Starting { started_ms: now_ms, ticks: 0, next_tick_ms: now_ms + HEARTBEAT_EVERY_MS };
        self.incarnation
    }

    /// A master could not be started (no memory, too many processes).
    pub fn start_failed(&mut self, now_ms: u64) -> AfterEnd {
        if self.incarnation == 0 { AfterEnd::GiveUp } else { self.back_off(now_ms) }
    }

    pub fn heartbeat(&mut self, now_ms: u64) {
        match &mut self.phase {
            Phase::Serving { missed, next_tick_ms, .. } => {
                *missed = 0;
                *next_tick_ms = now_ms + TICK_AFTER_HEARTBEAT_MS;
            }
            // Only "ready" ends the time to start.
            Phase::Starting { .. } | Phase::Condemned { .. } | Phase::Down { .. } => {}
        }
    }

    /// The master reports that it serves. Returns true the first time.
    pub fn ready(&mut self, now_ms: u64) -> bool {
        match self.phase {
            Phase::Starting { started_ms, .. } => {
                let next_tick_ms = now_ms + TICK_AFTER_HEARTBEAT_MS;
                self.phase = Phase::Serving { started_ms, missed: 0, next_tick_ms };
                self.stop_needs_master_until_ms = None;
                true
            }
            // It sent "ready" before it died; the message was still in the socket.
            Phase::Condemned { started_ms, was_ready: false } => {
                self.phase = Phase::Condemned { started_ms, was_ready: true };
                false
            }
            Phase::Serving { .. } | Phase::Condemned { was_ready: true, .. } | Phase::Down { .. } => false,
        }
    }

    /// A wake-up of the keeper, after every message of the master was read. Counts at most one tick, however long the
    /// keeper slept.
    pub fn tick(&mut self, now_ms: u64) -> Option<Hung> {
        match &mut self.phase {
            Phase::Starting { ticks, next_tick_ms, .. } if now_ms >= *next_tick_ms => {
                *ticks += 1;
                *next_tick_ms = now_ms + HEARTBEAT_EVERY_MS;
                (*ticks >= START_TICKS_MAX).then_some(Hung::Starting(MASTER_START_TIMEOUT_MS))
            }
            Phase::Serving { missed, next_tick_ms, .. } if now_ms >= *next_tick_ms => {
                *missed += 1;
                *next_tick_ms = now_ms + HEARTBEAT_EVERY_MS;
                let hung_ms = u64::from(WATCHDOG_MISSED_TICKS_MAX) * HEARTBEAT_EVERY_MS;
                (*missed >= WATCHDOG_MISSED_TICKS_MAX).then_some(Hung::Serving(hung_ms))
            }
            Phase::Starting { .. } | Phase::Serving { .. } | Phase::Condemned { .. } | Phase::Down { .. } => None,
        }
    }

    /// The master was sent SIGKILL; it no longer has deadlines.
    pub fn condemned(&mut self) {
        match self.phase {
            Phase::Starting { started_ms, .. } => self.phase = Phase::Condemned { started_ms, was_ready: false },
            Phase::Serving { started_ms, .. } => self.phase = Phase::Condemned { started_ms, was_ready: true },
            Phase::Condemned { .. } | Phase::Down { .. } => {}
        }
    }

    /// The master has ended, and every message of it was handled.
    pub fn ended(&mut self, now_ms: u64) -> AfterEnd {
        if self.stops_asked > 0 {
            self.stop_needs_master_until_ms.get_or_insert(now_ms + STOP_WITHOUT_MASTER_MS);
        }
        let (started_ms, was_ready) = match self.phase {
            Phase::Starting { started_ms, .. } => (started_ms, false),
            Phase::Serving { started_ms, .. } => (started_ms, true),
            Phase::Condemned { started_ms, was_ready } => (started_ms, was_ready),
            Phase::Down { start_at_ms } => {
                return AfterEnd::StartAfter(start_at_ms.saturating_sub(now_ms));
            }
        };
        if self.incarnation <= 1 && !was_ready {
            self.phase = Phase::Down { start_at_ms: u64::MAX };
            return AfterEnd::GiveUp;
        }
        if now_ms.saturating_sub(started_ms) >= MASTER_MIN_UPTIME_MS {
            self.backoff_ms = MASTER_BACKOFF_MIN_MS;
            self.phase = Phase::Down { start_at_ms: now_ms };
            return AfterEnd::StartAfter(0);
        }
        self.back_off(now_ms)
    }

    /// The end was part of an upgrade: the next master is due at once. Call it after [`Watchdog::ended`], whose result
    /// does not matter then.
    pub fn start_now(&mut self, now_ms: u64) {
        self.phase = Phase::Down { start_at_ms: now_ms };
    }

    /// Whether the current master has proved itself: it has served for a while.
    #[must_use]
    pub fn is_proved(&self, now_ms: u64) -> bool {
        match self.phase {
            Phase::Serving { started_ms, .. } | Phase::Condemned { started_ms, was_ready: true } => {
                now_ms.saturating_sub(started_ms) >= MASTER_MIN_UPTIME_MS
            }
            Phase::Starting { .. } | Phase::Condemned { was_ready: false, .. } | Phase::Down { .. } => false,
        }
    }

    /// When the current master will have proved itself; `None` while it does not serve.
    #[must_use]
    pub fn proved_at_ms(&self) -> Option<u64> {
        self.state().map(|state| state.started_ms.saturating_add(MASTER_MIN_UPTIME_MS))
    }

    fn back_off(&mut self, now_ms: u64) -> AfterEnd {
        let wait_ms = self.backoff_ms;
        self.backoff_ms = (self.backoff_ms * 2).min(MASTER_BACKOFF_MAX_MS);
        self.phase = Phase::Down { start_at_ms: now_ms + wait_ms };
        AfterEnd::StartAfter(wait_ms)
    }

    /// The user requested a graceful stop. A second request means "now".
    pub fn stop_asked(&mut self, now_ms: u64) {
        self.stops_asked = self.stops_asked.saturating_add(1);
        if !matches!(self.phase, Phase::Serving { .. }) {
            self.stop_needs_master_until_ms.get_or_insert(now_ms + STOP_WITHOUT_MASTER_MS);
        }
        if self.stops_asked >= 2 {
            self.stop_now_asked(now_ms);
        }
    }

    /// The user requested a stop without grace.
    pub fn stop_now_asked(&mut self, now_ms: u64) {
        self.stop_now_until_ms.get_or_insert(now_ms + STOP_NOW_GRACE_MS);
    }

    /// Whether a stop was requested, and no master came in time to perform it.
    #[must_use]
    pub fn stop_has_no_master(&self, now_ms: u64) -> bool {
        self.stop_needs_master_until_ms.is_some_and(|until_ms| now_ms >= until_ms)
    }

    /// Whether the master did not stop within its time after "stop now".
    #[must_use]
    pub fn stop_now_is_over(&self, now_ms: u64) -> bool {
        self.stop_now_until_ms.is_some_and(|until_ms| now_ms >= until_ms)
    }

    /// When the next decision is due. `None`: only after an event.
    #[must_use]
    pub fn wake_at_ms(&self) -> Option<u64> {
        let next_ms = match self.phase {
            Phase::Down { start_at_ms: u64::MAX } | Phase::Condemned { .. } => None,
            Phase::Down { start_at_ms } => Some(start_at_ms),
            Phase::Starting { next_tick_ms, .. } | Phase::Serving { next_tick_ms, .. } => Some(next_tick_ms),
        };
        [next_ms, self.stop_now_until_ms, self.stop_needs_master_until_ms].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A watchdog whose first master started at 0 and is ready.
    fn serving() -> Watchdog {
        let mut watch = Watchdog::new(0);
        assert!(watch.start_is_due(0));
        assert_eq!(watch.started(0), 1);
        assert!(watch.ready(0));
        assert!(!watch.ready(0));
        watch
    }

    #[test]
    fn a_first_master_that_never_served_ends_everything() {
        let mut watch = Watchdog::new(0);
        watch.started(0);
        assert_eq!(watch.ended(10), AfterEnd::GiveUp);
        assert!(!watch.start_is_due(u64::MAX - 1));
        let mut watch = Watchdog::new(0);
        assert_eq!(watch.start_failed(0), AfterEnd::GiveUp);
    }

    #[test]
    fn a_master_that_lived_is_back_at_once_and_others_wait_ever_longer() {
        let mut watch = serving();
        assert_eq!(watch.ended(MASTER_MIN_UPTIME_MS), AfterEnd::StartAfter(0));
        let mut now = MASTER_MIN_UPTIME_MS;
        let mut waits = Vec::new();
        for _ in 0..9 {
            assert!(watch.start_is_due(now));
            watch.started(now);
            let AfterEnd::StartAfter(wait_ms) = watch.ended(now) else { panic!("workers are never given up") };
            assert_eq!(watch.wake_at_ms(), Some(now + wait_ms));
            assert_eq!(watch.start_is_due(now), wait_ms == 0);
            waits.push(wait_ms);
            now += wait_ms;
        }
        assert_eq!(waits, [50, 100, 200, 400, 800, 1000, 1000, 1000, 1000]);
        watch.started(now);
        watch.ready(now);
        now += MASTER_MIN_UPTIME_MS;
        assert_eq!(watch.ended(now), AfterEnd::StartAfter(0));
        watch.started(now);
        assert_eq!(watch.ended(now), AfterEnd::StartAfter(MASTER_BACKOFF_MIN_MS));
        assert_eq!(watch.start_failed(now), AfterEnd::StartAfter(MASTER_BACKOFF_MIN_MS * 2));
    }

    #[test]
    fn a_silent_master_is_hung_after_its_ticks_and_a_heartbeat_starts_the_count_again() {
        let mut watch = serving();
        let mut now = 0;
        for _ in 1..WATCHDOG_MISSED_TICKS_MAX {
            now = watch.wake_at_ms().unwrap_or(u64::MAX);
            assert_eq!(watch.tick(now), None);
        }
        watch.heartbeat(now);
        let quiet_since = now;
        let mut judged = None;
        while judged.is_none() {
            now = watch.wake_at_ms().unwrap_or(u64::MAX);
            judged = watch.tick(now);
        }
        assert_eq!(judged, Some(Hung::Serving(5_000)));
        assert_eq!(now - quiet_since, 5_250);
        watch.condemned();
        assert_eq!(watch.wake_at_ms(), None);
        assert_eq!(watch.tick(now + 100_000), None);
        assert_eq!(watch.ended(now), AfterEnd::StartAfter(0));
    }

    #[test]
    fn a_keeper_that_slept_for_an_hour_blames_nobody() {
        let mut watch = serving();
        assert_eq!(watch.tick(3_600_000), None);
        // Several wake-ups at the same time count as one tick.
        for _ in 0..100 {
            assert_eq!(watch.tick(3_600_000), None);
        }
        watch.heartbeat(3_600_010);
        assert_eq!(watch.tick(7_200_000), None);
    }

    #[test]
    fn heartbeats_do_not_stand_for_ready() {
        let mut watch = serving();
        assert_eq!(watch.ended(5_000), AfterEnd::StartAfter(0));
        watch.started(5_000);
        let (judged, now) = loop {
            let now = watch.wake_at_ms().unwrap_or(u64::MAX);
            watch.heartbeat(now);
            if let Some(hung) = watch.tick(now) {
                break (hung, now);
            }
        };
        assert_eq!(judged, Hung::Starting(MASTER_START_TIMEOUT_MS));
        assert_eq!(now, 5_000 + MASTER_START_TIMEOUT_MS);
    }

    #[test]
    fn ready_that_was_on_its_way_counts_for_a_condemned_first_master() {
        let mut watch = Watchdog::new(0);
        watch.started(0);
        watch.condemned();
        assert!(!watch.ready(40_000));
        assert_eq!(watch.ended(40_000), AfterEnd::StartAfter(0));
    }

    #[test]
    fn a_stop_that_no_master_can_carry_out_ends_all_the_same() {
        let mut watch = serving();
        watch.stop_asked(100);
        assert!(!watch.stop_has_no_master(1_000_000), "it serves, and may take its time");
        assert_eq!(watch.ended(5_000), AfterEnd::StartAfter(0));
        // Masters that die again and again do not move the deadline; one that serves does.
        watch.started(5_000);
        watch.ended(5_010);
        assert!(!watch.stop_has_no_master(5_000 + STOP_WITHOUT_MASTER_MS - 1));
        watch.started(6_000);
        watch.ready(6_010);
        assert!(!watch.stop_has_no_master(1_000_000));
        watch.ended(9_000);
        assert_eq!(watch.wake_at_ms(), Some(9_000));
        watch.started(9_000);
        watch.ended(9_001);
        assert!(watch.stop_has_no_master(9_000 + STOP_WITHOUT_MASTER_MS));
        let mut watch = serving();
        watch.ended(5_000);
        assert!(!watch.stop_has_no_master(1_000_000), "nobody asked");
        watch.stop_asked(6_000);
        assert!(watch.stop_has_no_master(6_000 + STOP_WITHOUT_MASTER_MS));
    }

    #[test]
    fn another_binary_goes_on_with_the_same_watch() {
        let mut watch = Watchdog::new(0);
        assert_eq!(watch.state(), None);
        watch.started(5);
        assert_eq!((watch.state(), watch.proved_at_ms()), (None, None));
        watch.ready(8);
        assert_eq!(watch.proved_at_ms(), Some(5 + MASTER_MIN_UPTIME_MS));
        watch.stop_asked(10);
        watch.stop_asked(20);
        let Some(state) = watch.state() else { panic!("it serves") };
        let now = 5 + MASTER_MIN_UPTIME_MS;
        let mut next = Watchdog::resume(state, now);
        assert_eq!(next.state(), Some(state));
        assert!(next.is_proved(now) && !next.stop_now_is_over(now));
        assert!(next.stop_now_is_over(20 + STOP_NOW_GRACE_MS));
        // Time without a running keeper does not count.
        assert_eq!(next.tick(now), None);
        assert_eq!(next.ended(now), AfterEnd::StartAfter(0));
        assert_eq!(next.started(now), 2);
        let damaged = Watchdog::resume(WatchdogState { backoff_ms: 0, ..state }, 9);
        assert_eq!(damaged.state().map(|state| state.backoff_ms), Some(MASTER_BACKOFF_MIN_MS));
    }

    #[test]
    fn stop_now_has_a_deadline_that_asking_again_does_not_move() {
        let mut watch = serving();
        watch.stop_asked(100);
        assert!(!watch.stop_now_is_over(1_000_000));
        watch.stop_asked(200);
        assert!(!watch.stop_now_is_over(200 + STOP_NOW_GRACE_MS - 1));
        watch.stop_now_asked(300);
        assert!(watch.stop_now_is_over(200 + STOP_NOW_GRACE_MS));
        watch.condemned();
        assert_eq!(watch.wake_at_ms(), Some(200 + STOP_NOW_GRACE_MS));
    }
}
