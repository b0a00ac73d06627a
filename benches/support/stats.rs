//! Figures of several rounds, and latencies in bounded space.

/// The one in the middle; NaN of nothing.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Lowest and highest.
pub(crate) fn range(values: &[f64]) -> (f64, f64) {
    values.iter().fold((f64::MAX, f64::MIN), |(low, high), &value| (low.min(value), high.max(value)))
}

/// Lowest to highest, in words.
pub(crate) fn spread(values: &[f64], digits: usize) -> String {
    let (low, high) = range(values);
    format!("{low:.digits$} to {high:.digits$}")
}

/// Parts of each power of two: what a latency is rounded to is at most 1/64 of it.
const PARTS: u32 = 64;
/// Powers of two above the first `PARTS` microseconds: up to 67 s.
const POWERS: u32 = 20;

/// Latencies, rounded.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    buckets: Vec<u32>,
    count: u64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { buckets: vec![0; (PARTS * (POWERS + 1)) as usize], count: 0 }
    }
}

impl Histogram {
    pub(crate) fn add(&mut self, us: u32) {
        let power = (u32::BITS - us.leading_zeros()).saturating_sub(PARTS.ilog2() + 1);
        let (power, part) = if us < PARTS { (0, us) } else { (power + 1, (us >> power) - PARTS) };
        let at = (power * PARTS + part).min(PARTS * (POWERS + 1) - 1);
        self.buckets[at as usize] += 1;
        self.count += 1;
    }

    pub(crate) fn merge(&mut self, other: &Histogram) {
        for (own, more) in self.buckets.iter_mut().zip(&other.buckets) {
            *own += more;
        }
        self.count += other.count;
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The latency that this share (0 to 1) did not exceed, in milliseconds; NaN of nothing.
    pub(crate) fn quantile_ms(&self, share: f64) -> f64 {
        let wanted = (self.count.saturating_sub(1) as f64 * share) as u64;
        let mut seen = 0;
        for (at, &count) in self.buckets.iter().enumerate() {
            seen += u64::from(count);
            if seen > wanted {
                let (power, part) = (at as u32 / PARTS, at as u32 % PARTS);
                let us = if power == 0 { u64::from(part) } else { u64::from(PARTS + part) << (power - 1) };
                return us as f64 / 1000.0;
            }
        }
        f64::NAN
    }
}
