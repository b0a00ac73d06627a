//! How long connections wait although there are workers. Small windows keep waiting connections where any worker can
//! still take them; but where every worker is slow (CPUs are scarce, event loops turn rarely), they would let
//! connections through one by one.

/// Connections that no worker could take for this time, in microseconds, are shared out to slow workers.
pub const STARVED_AFTER_US: u64 = 250_000;

/// How long connections have waited in one place.
#[derive(Clone, Copy, Debug, Default)]
pub struct Starvation {
    /// Since when no worker could take them (microseconds).
    since_us: Option<u64>,
}

impl Starvation {
    /// No worker can take the waiting connections. Returns whether that has lasted too long; if so the time starts
    /// again.
    pub fn is_reached(&mut self, now_us: u64) -> bool {
        let since_us = *self.since_us.get_or_insert(now_us);
        let reached = now_us.saturating_sub(since_us) >= STARVED_AFTER_US;
        if reached {
            self.since_us = Some(now_us);
        }
        reached
    }
}
