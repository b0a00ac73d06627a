//! Round-robin: the worker with the fewest open hand-offs among those that can take a connection, ties in turn. That is
//! strict round-robin while all are idle, and a worker with a stuck event loop gets no more.
use super::{Candidates, Strategy};
use crate::balance::MemberIx;

/// The pool keeps the turn of each listener.
#[derive(Clone, Debug, Default)]
pub(in crate::balance) struct RoundRobin;

impl Strategy for RoundRobin {
    #[inline]
    fn pick(&mut self, candidates: &mut Candidates<'_>, _client: Option<u64>) -> Option<MemberIx> {
        candidates.take_turn()
    }
}
