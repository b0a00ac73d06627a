//! How long connections may wait although there are workers. Small windows keep what waits where any worker can still get
//! it; where every worker is slow (CPUs are scarce, event loops turn rarely), they would let connections through one by one.
use crate::limits;

/// Of the connections that wait in one socket.
#[derive(Clone, Copy, Debug, Default)]
pub struct Patience {
    /// Since when nobody could take them (microseconds).
    since_us: Option<u64>,
}

impl Patience {
    /// Nobody can take what waits. Whether that has lasted for too long; if so it begins anew.
    pub fn is_over(&mut self, now_us: u64) -> bool {
        let since_us = *self.since_us.get_or_insert(now_us);
        let over = now_us.saturating_sub(since_us) >= limits::HANDOFF_PATIENCE_US;
        if over {
            self.since_us = Some(now_us);
        }
        over
    }
}
