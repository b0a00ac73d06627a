//! Workers that refused a connection, by listener: they are put aside for a moment, so that a connection that nobody
//! takes (every worker has its `maxConnections`, or no server any more) does not go round and round between them.
use super::{GroupIx, MemberIx};
use crate::limits;

/// One worker that is offered nothing of one listener until its time is over.
#[derive(Clone, Copy, Debug)]
struct Aside {
    group: GroupIx,
    member: MemberIx,
    until_us: u64,
}

/// All that are aside: at most one entry for each worker and listener.
#[derive(Clone, Debug, Default)]
pub(super) struct Refusals {
    aside: Vec<Aside>,
}

impl Refusals {
    /// It has refused this often in a row.
    pub(super) fn add(&mut self, group: GroupIx, member: MemberIx, in_a_row: u32, now_us: u64) {
        self.aside.push(Aside { group, member, until_us: now_us + pause_us(in_a_row) });
    }

    /// It serves this listener anew, or no more.
    pub(super) fn forget(&mut self, group: GroupIx, member: MemberIx) {
        self.aside.retain(|aside| (aside.group, aside.member) != (group, member));
    }

    /// It is gone.
    pub(super) fn forget_member(&mut self, member: MemberIx) {
        self.aside.retain(|aside| aside.member != member);
    }

    /// Calls `back` with those whose time is over.
    pub(super) fn end(&mut self, now_us: u64, mut back: impl FnMut(GroupIx, MemberIx)) {
        self.aside.retain(|aside| {
            let over = aside.until_us <= now_us;
            if over {
                back(aside.group, aside.member);
            }
            !over
        });
    }

    /// When the first of them is over (microseconds).
    pub(super) fn next_end_us(&self) -> Option<u64> {
        self.aside.iter().map(|aside| aside.until_us).min()
    }
}

/// Twice as long for each refusal in a row.
fn pause_us(in_a_row: u32) -> u64 {
    let doubled = 1_u64.checked_shl(in_a_row.saturating_sub(1)).unwrap_or(u64::MAX);
    limits::REFUSAL_PAUSE_MIN_US.saturating_mul(doubled).min(limits::REFUSAL_PAUSE_MAX_US)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        assert_eq!([1, 2, 3].map(pause_us), [1, 2, 4].map(|times| times * limits::REFUSAL_PAUSE_MIN_US));
        assert!((6..200).chain([u32::MAX]).all(|in_a_row| pause_us(in_a_row) == limits::REFUSAL_PAUSE_MAX_US));
    }
}
