//! The only reader of clocks. Everything else takes the time as an argument.
use nix::time::{ClockId, clock_gettime};
use std::time::SystemTime;

/// CLOCK_MONOTONIC in milliseconds. It does not count the time of a suspend, and is the same in every process of a
/// machine, so a timestamp outlives the process that took it.
#[must_use]
pub fn monotonic_ms() -> u64 {
    monotonic_us() / 1000
}

/// CLOCK_MONOTONIC in microseconds.
#[must_use]
pub fn monotonic_us() -> u64 {
    microseconds(ClockId::CLOCK_MONOTONIC)
}

/// The CPU time of the calling thread, in milliseconds.
#[must_use]
pub(super) fn thread_cpu_ms() -> u64 {
    microseconds(ClockId::CLOCK_THREAD_CPUTIME_ID) / 1000
}

fn microseconds(clock: ClockId) -> u64 {
    match clock_gettime(clock) {
        // Both count from a beginning and are never negative.
        Ok(now) => now.tv_sec().unsigned_abs() * 1_000_000 + now.tv_nsec().unsigned_abs() / 1000,
        // Cannot fail on Linux: the id is valid and the pointer is ours.
        Err(_) => 0,
    }
}

/// The local time, in the time zone of the system (or `TZ`).
#[must_use]
pub fn local_time() -> jiff::ZonedDateTime {
    jiff::ZonedDateTime::now()
}

/// The wall clock.
#[must_use]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_forward_and_both_units_agree() {
        let first = monotonic_ms();
        let then = monotonic_us();
        assert!(then / 1000 >= first);
        assert!(monotonic_us() >= then);
    }
}
