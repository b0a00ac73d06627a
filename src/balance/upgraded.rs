//! Moves of upgraded connections (WebSockets) with their state, pure: who gets one that a worker gives back, and what becomes of it
//! where nobody can. Only workers that have announced it take them.
use super::ConnIx;
use crate::ids::Generation;
use crate::limits;
use std::cmp::Reverse;
use std::collections::VecDeque;

/// A worker that takes upgraded connections, and may be handed one now.
#[derive(Clone, Copy, Debug)]
pub struct Taker<K> {
    pub worker: K,
    /// It is the worker that the client belongs to (`sticky`).
    pub is_home: bool,
    pub generation: Generation,
    /// Connections that it keeps, and those that are under way to it.
    pub load: u64,
}

/// The worker that gets an upgraded connection: its client's home, else one of the newest generation, so that it moves only once,
/// with the fewest connections.
pub fn receiver<K>(takers: impl Iterator<Item = Taker<K>>) -> Option<K> {
    takers.min_by_key(|taker| (!taker.is_home, Reverse(taker.generation), taker.load)).map(|taker| taker.worker)
}

/// What becomes of a connection that a worker gave back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate<K> {
    /// It is sent to this worker; the giver closes it.
    Goes(K),
    /// The giver keeps it.
    Stays,
    /// The giver is gone: it waits for a worker, see [`Waiting`].
    Waits,
    /// The giver is gone, and nobody will take it.
    Ends,
}

/// Decides about a connection. `may_move`: its client is there, its state can be handed on, and its app serves and has room.
/// `giver_hears`: the giver can still be told that it stays.
pub fn fate<K>(may_move: bool, receiver: Option<K>, giver_hears: bool) -> Fate<K> {
    match (receiver.filter(|_| may_move), giver_hears) {
        (Some(worker), _) => Fate::Goes(worker),
        (None, true) => Fate::Stays,
        (None, false) if may_move => Fate::Waits,
        (None, false) => Fate::Ends,
    }
}

/// Upgraded connections whose giver is gone and that no worker has taken, the oldest at the front. Each waits for a bounded time.
#[derive(Debug, Default)]
pub struct Waiting {
    queue: VecDeque<Waits>,
}

/// A connection that waits.
#[derive(Clone, Copy, Debug)]
pub struct Waits {
    pub conn: ConnIx,
    until_ms: u64,
}

impl Waiting {
    /// Has a connection wait from now on.
    pub fn add(&mut self, conn: ConnIx, now_ms: u64) {
        self.queue.push_back(Waits { conn, until_ms: now_ms + limits::UPGRADED_WAIT_MS });
    }

    /// Takes the first out, to offer it to a worker.
    pub fn take_first(&mut self) -> Option<Waits> {
        self.queue.pop_front()
    }

    /// Nobody has taken it: it waits on, behind the others. Whether it does; its time may be over.
    #[must_use]
    pub fn put_back(&mut self, waits: Waits, now_ms: u64) -> bool {
        let has_time = now_ms < waits.until_ms;
        if has_time {
            self.queue.push_back(waits);
        }
        has_time
    }

    /// Takes out those for which `is_meant` holds.
    pub fn take_where(&mut self, is_meant: impl Fn(ConnIx) -> bool) -> Vec<ConnIx> {
        let (taken, left) = self.queue.drain(..).partition::<VecDeque<_>, _>(|waits| is_meant(waits.conn));
        self.queue = left;
        taken.into_iter().map(|waits| waits.conn).collect()
    }

    pub fn clear(&mut self) {
        self.queue.clear();
    }

    pub fn len(&self) -> usize {
        self.queue.len()
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn home_comes_first_then_the_newest_generation_then_the_fewest_connections() {
        let taker =
            |worker, is_home, generation, load| Taker { worker, is_home, generation: Generation(generation), load };
        let of = |takers: &[Taker<char>]| receiver(takers.iter().copied());
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[taker('a', false, 1, 0), taker('b', false, 2, 9), taker('c', false, 2, 7)]), Some('c'));
        assert_eq!(of(&[taker('a', true, 1, 99), taker('b', false, 2, 0)]), Some('a'));
    }

    #[test]
    fn only_what_its_giver_cannot_keep_waits_or_ends() {
        assert_eq!(fate(true, Some(1), true), Fate::Goes(1));
        assert_eq!(fate(true, Some(1), false), Fate::Goes(1));
        assert_eq!(fate(false, Some(1), true), Fate::Stays);
        assert_eq!(fate::<u32>(true, None, true), Fate::Stays);
        assert_eq!(fate::<u32>(true, None, false), Fate::Waits);
        assert_eq!(fate(false, Some(1), false), Fate::Ends);
    }
}
