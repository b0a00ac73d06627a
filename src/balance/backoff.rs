//! Workers that refused a connection, by listener: they pause for a moment, so that a connection that no worker takes
//! (all are at `maxConnections`, or have closed their server) does not circle between them.
use super::{GroupIx, MemberIx};

/// Backoff after the first refusal, in microseconds; it doubles with each further refusal in a row.
pub const PAUSE_MIN_US: u64 = 1_000;
/// Longest backoff, in microseconds.
pub const PAUSE_MAX_US: u64 = 32_000;

/// The pause of one worker for one listener.
#[derive(Clone, Copy, Debug)]
struct Entry {
    group: GroupIx,
    member: MemberIx,
    until_us: u64,
}

/// All pauses: at most one for each worker and listener.
#[derive(Clone, Debug, Default)]
pub(super) struct Backoff {
    entries: Vec<Entry>,
}

impl Backoff {
    /// Starts the pause of a worker after this many refusals in a row.
    pub(super) fn add(&mut self, group: GroupIx, member: MemberIx, in_a_row: u32, now_us: u64) {
        self.entries.push(Entry { group, member, until_us: now_us + pause_us(in_a_row) });
    }

    /// Ends the pause when the worker joins or leaves this listener.
    pub(super) fn forget(&mut self, group: GroupIx, member: MemberIx) {
        self.entries.retain(|entry| (entry.group, entry.member) != (group, member));
    }

    /// Removes a worker that is gone.
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

/// The length of a pause: doubles with each refusal in a row.
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
