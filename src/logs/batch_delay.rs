//! How long the log thread naps between two turns, so that one turn takes many lines and no pipe fills up. Pure.

/// A stream that gave this many bytes in a turn has much output.
pub(super) const LOG_MUCH_BYTES: usize = 32 * 1024;
/// Longest nap between two turns, in microseconds: the delay of a line.
const LOG_NAP_US_MAX: u64 = 10_000;
/// Shortest nap that is worth one, in microseconds.
const LOG_NAP_US_MIN: u64 = 60;
/// Bytes that the busiest stream should give after a nap: a part of a pipe's capacity.
const LOG_NAP_BYTES: usize = 16 * 1024;

/// The measurements so far.
#[derive(Debug, Default)]
pub(super) struct BatchDelay {
    last_us: u64,
}

impl BatchDelay {
    /// The nap after a turn from `begun_us` to `ended_us` that took at most `most` bytes from one stream, in
    /// microseconds; 0: wait for the next event.
    pub(super) fn nap_us(&mut self, begun_us: u64, ended_us: u64, most: usize) -> u64 {
        let since_us = begun_us.saturating_sub(self.last_us);
        self.last_us = begun_us;
        // For rare lines a nap is not worth it; a pipe that is nearly full must be read.
        if most == 0 || most >= LOG_MUCH_BYTES || since_us >= 2 * LOG_NAP_US_MAX {
            return 0;
        }
        let until_us = since_us.saturating_mul(LOG_NAP_BYTES as u64) / most as u64;
        let nap_us = until_us.min(LOG_NAP_US_MAX).saturating_sub(ended_us.saturating_sub(begun_us));
        if nap_us < LOG_NAP_US_MIN { 0 } else { nap_us }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn naps_follow_the_stream() {
        let mut batch_delay = BatchDelay::default();
        assert_eq!(batch_delay.nap_us(1_000_000, 1_000_010, 100), 0, "the first line after a silence");
        assert_eq!(batch_delay.nap_us(1_001_000, 1_001_010, 100), LOG_NAP_US_MAX - 10, "a line each millisecond");
        assert_eq!(batch_delay.nap_us(1_002_000, 1_002_010, LOG_MUCH_BYTES), 0, "nearly full");
        // 10 KiB in 200 µs: a little later there is enough for the next turn.
        let nap_us = batch_delay.nap_us(1_002_200, 1_002_220, 10 * 1024);
        assert_eq!(nap_us, 200 * LOG_NAP_BYTES as u64 / (10 * 1024) - 20);
        assert_eq!(batch_delay.nap_us(1_002_210, 1_002_220, 16 * 1024), 0, "too short to be one");
        assert_eq!(batch_delay.nap_us(1_003_000, 1_003_001, 0), 0);
    }
}
