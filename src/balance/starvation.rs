//! How long connections may wait although there are workers. Small windows keep what waits where any worker can still get
//! it; where every worker is slow (CPUs are scarce, event loops turn rarely), they would let connections through one by one.

/// Connections that nobody could take for this time, in microseconds, go to workers that are slow, their share to each.
pub const STARVED_AFTER_US: u64 = 250_000;

/// How long the connections that wait in one place have waited.
#[derive(Clone, Copy, Debug, Default)]
pub struct Starvation {
    /// Since when nobody could take them (microseconds).
    since_us: Option<u64>,
}

impl Starvation {
    /// Nobody can take what waits. Returns whether that has lasted for too long; if so the time starts again.
    pub fn is_reached(&mut self, now_us: u64) -> bool {
        let since_us = *self.since_us.get_or_insert(now_us);
        let reached = now_us.saturating_sub(since_us) >= STARVED_AFTER_US;
        if reached {
            self.since_us = Some(now_us);
        }
        reached
    }
}
