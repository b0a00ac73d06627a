//! Round-robin: among the workers that can take a connection, one with the fewest open hand-offs, ties in turn. That is
//! strict round-robin when all are idle, and a worker whose event loop is stuck gets nothing more.
use super::{Candidates, Strategy};
use crate::balance::MemberIx;

/// The turn itself is kept for each listener, by the pool.
#[derive(Clone, Debug, Default)]
pub(in crate::balance) struct RoundRobin;

impl Strategy for RoundRobin {
    fn pick(&mut self, candidates: &mut Candidates<'_>, _client: Option<u64>) -> Option<MemberIx> {
        candidates.take_turn()
    }
}
