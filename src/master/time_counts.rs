//! Counts of something by the time that it took, in buckets of fixed bounds: connections between their accept and the
//! worker that took them, event loops between a ping and its reading. The hot path adds to it, so it is an array, and the
//! bucket is found without a loop.

/// Bounds of the buckets; one more has what took longer.
pub const BOUNDS: usize = 16;

/// The first bound, in microseconds. Each further one is twice as long; the last is about 2.1 s.
const FIRST_BOUND_US: u64 = 64;

/// Counts by time.
#[derive(Clone, Debug, Default)]
pub struct TimeCounts {
    counts: [u64; BOUNDS + 1],
    sum_us: u64,
}

impl TimeCounts {
    /// Counts one that took this long.
    #[inline]
    pub fn add(&mut self, us: u64) {
        let doublings = u64::BITS - (us.saturating_sub(1) / FIRST_BOUND_US).leading_zeros();
        self.counts[(doublings as usize).min(BOUNDS)] += 1;
        self.sum_us = self.sum_us.wrapping_add(us);
    }

    /// The upper bounds, inclusive, in microseconds.
    pub fn bounds_us() -> [u64; BOUNDS] {
        std::array::from_fn(|n| FIRST_BOUND_US << n)
    }

    /// The count of each bucket; the last one has no upper bound.
    pub fn counts(&self) -> &[u64; BOUNDS + 1] {
        &self.counts
    }

    /// All these times together, in microseconds.
    pub fn sum_us(&self) -> u64 {
        self.sum_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_counted_below_the_first_bound_that_it_does_not_exceed() {
        for us in (0..300).chain([(64 << 15) - 1, 64 << 15, (64 << 15) + 1, u64::MAX]) {
            let mut times = TimeCounts::default();
            times.add(us);
            let bucket = TimeCounts::bounds_us().iter().position(|bound| us <= *bound).unwrap_or(BOUNDS);
            assert_eq!(times.counts()[bucket], 1, "{us}");
            assert_eq!((times.counts().iter().sum::<u64>(), times.sum_us()), (1, us));
        }
    }
}
