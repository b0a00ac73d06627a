//! Workers that refused a connection, by listener: they get none for a moment, so that a connection that nobody takes
//! (every worker has its `maxConnections`, or no server any more) does not go round and round between them.
use super::{GroupIx, MemberIx};

/// Backoff after the first refusal, in microseconds; it doubles with each further refusal in a row.
pub const PAUSE_MIN_US: u64 = 1_000;
/// Longest backoff, in microseconds.
pub const PAUSE_MAX_US: u64 = 32_000;

/// One worker that is offered nothing of one listener until its time is over.
#[derive(Clone, Copy, Debug)]
struct Entry {
    group: GroupIx,
    member: MemberIx,
    until_us: u64,
}

/// Every worker that backs off: at most one entry for each worker and listener.
#[derive(Clone, Debug, Default)]
pub(super) struct Backoff {
    entries: Vec<Entry>,
}

impl Backoff {
    /// The worker has refused this often in a row.
    pub(super) fn add(&mut self, group: GroupIx, member: MemberIx, in_a_row: u32, now_us: u64) {
        self.entries.push(Entry { group, member, until_us: now_us + pause_us(in_a_row) });
    }

    /// The worker joins this listener again, or leaves it.
    pub(super) fn forget(&mut self, group: GroupIx, member: MemberIx) {
        self.entries.retain(|entry| (entry.group, entry.member) != (group, member));
    }

    /// The worker is gone.
    pub(super) fn forget_member(&mut self, member: MemberIx) {
        self.entries.retain(|entry| entry.member != member);
    }

    /// Calls `back` with the workers whose backoff is over.
    pub(super) fn end(&mut self, now_us: u64, mut back: impl FnMut(GroupIx, MemberIx)) {
        self.entries.retain(|entry| {
            let over = entry.until_us <= now_us;
            if over {
                back(entry.group, entry.member);
            }
            !over
        });
    }

    /// When the first backoff is over (microseconds).
    pub(super) fn next_end_us(&self) -> Option<u64> {
        self.entries.iter().map(|entry| entry.until_us).min()
    }
}

/// Twice as long for each refusal in a row.
fn pause_us(in_a_row: u32) -> u64 {
    let doubled = 1_u64.checked_shl(in_a_row.saturating_sub(1)).unwrap_or(u64::MAX);
    PAUSE_MIN_US.saturating_mul(doubled).min(PAUSE_MAX_US)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        assert_eq!([1, 2, 3].map(pause_us), [1, 2, 4].map(|times| times * PAUSE_MIN_US));
        assert!((6..200).chain([u32::MAX]).all(|in_a_row| pause_us(in_a_row) == PAUSE_MAX_US));
    }
}
