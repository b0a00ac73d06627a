//! Which sockets of an SO_REUSEPORT group get new connections: those that a worker accepts from. Pure; workers are
//! indices of the shell.
//!
//! Each slot has its own socket. If there are fewer sockets than slots, slots share them.
use crate::ids::WorkerIx;
use std::collections::BTreeSet;

/// A socket leaves its next turns to others when this many more connections wait in it than on average.
const EXCESS_MIN: u32 = 4;

/// The sockets of one group, and the workers that accept from each.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// By number of the socket in its group.
    takers: Vec<Vec<WorkerIx>>,
    /// Numbers of the sockets that a worker accepts from.
    taken: BTreeSet<u32>,
    /// The last selection before no worker accepted: connections wait there.
    last: Vec<u32>,
    changed: bool,
}

impl Selection {
    pub fn new() -> Selection {
        Selection { takers: vec![Vec::new()], taken: BTreeSet::new(), last: vec![0], changed: true }
    }

    /// Adds a socket.
    pub fn grow(&mut self) {
        self.takers.push(Vec::new());
        self.changed = true;
    }

    pub fn socket_of(&self, slot: u32) -> u32 {
        slot % self.takers.len().max(1) as u32
    }

    /// A worker begins to accept from its slot's socket.
    pub fn enter(&mut self, slot: u32, worker: WorkerIx) {
        let socket = self.socket_of(slot);
        let Some(takers) = self.takers.get_mut(socket as usize) else { return };
        if !takers.contains(&worker) {
            takers.push(worker);
        }
        self.changed |= self.taken.insert(socket);
    }

    /// The worker stops accepting. Returns the number of the socket if no other worker accepts from it.
    pub fn leave(&mut self, slot: u32, worker: WorkerIx) -> Option<u32> {
        let socket = self.socket_of(slot);
        let takers = self.takers.get_mut(socket as usize)?;
        let before = takers.len();
        takers.retain(|taker| *taker != worker);
        if !takers.is_empty() || before == 0 {
            return None;
        }
        if self.taken.len() == 1 {
            self.last = self.taken.iter().copied().collect();
        }
        self.taken.remove(&socket);
        self.changed = true;
        Some(socket)
    }

    /// While no worker accepts, new connections wait in this socket.
    pub fn wait_in(&mut self, socket: u32) {
        if self.taken.is_empty() && socket < self.sockets() && self.last != [socket] {
            self.last = vec![socket];
            self.changed = true;
        }
    }

    /// The workers that accept from a socket.
    pub fn takers(&self, socket: u32) -> &[WorkerIx] {
        self.takers.get(socket as usize).map_or(&[], Vec::as_slice)
    }

    /// Whether a worker accepts from any other socket.
    pub fn has_others(&self, socket: u32) -> bool {
        self.taken.iter().any(|other| *other != socket)
    }

    pub fn sockets(&self) -> u32 {
        self.takers.len() as u32
    }

    /// The sockets for new connections, ascending; never empty.
    pub fn selected(&self) -> Vec<u32> {
        if self.taken.is_empty() { self.last.clone() } else { self.taken.iter().copied().collect() }
    }

    /// The same where others take connections from the first socket too: the master, or workers that have no socket of their own.
    pub fn selected_with_first(&self) -> Vec<u32> {
        let first = Some(0).filter(|first| !self.taken.contains(first));
        first.into_iter().chain(self.taken.iter().copied()).collect()
    }

    /// How many of their next turns sockets leave to others, so that about the same number of connections waits in
    /// each: those above the average of `waiting` (number of the socket, connections; the others are empty). Small
    /// differences are ignored.
    pub fn excess(&self, waiting: &[(u32, u32)]) -> Vec<(u32, u32)> {
        let waiting: Vec<(u32, u32)> = waiting.iter().copied().filter(|(n, _)| self.taken.contains(n)).collect();
        let total: u32 = waiting.iter().map(|(_, count)| count).sum();
        let mean = total.div_ceil(self.taken.len().max(1) as u32);
        let beyond = |count: u32| count.checked_sub(mean).filter(|excess| *excess >= EXCESS_MIN);
        waiting.into_iter().filter_map(|(n, count)| Some((n, beyond(count)?))).collect()
    }

    /// Whether the selection, or the number of sockets, may have changed since `settle`.
    pub fn is_changed(&self) -> bool {
        self.changed
    }

    /// The kernel has the current selection.
    pub fn settle(&mut self) {
        self.changed = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_beyond_the_mean_is_left_to_others() {
        let mut selection = Selection::new();
        for slot in 1..4 {
            selection.grow();
            selection.enter(slot, WorkerIx(100 + slot as usize));
        }
        assert_eq!(selection.excess(&[]), []);
        assert_eq!(selection.excess(&[(1, 7), (2, 7), (3, 7)]), []);
        assert_eq!(selection.excess(&[(1, 30), (3, 3)]), [(1, 19)]);
        // No worker accepts from the first one: what waits there does not count for theirs.
        assert_eq!(selection.excess(&[(0, 90), (2, 9)]), [(2, 6)]);
        assert_eq!(selection.excess(&[(1, 4), (2, 1)]), [], "two more than the mean");
    }

    fn of(sockets: u32) -> Selection {
        let mut selection = Selection::new();
        (1..sockets).for_each(|_| selection.grow());
        selection.settle();
        selection
    }

    #[test]
    fn sockets_with_a_taker_are_selected_and_the_last_one_stays() {
        let mut group = of(3);
        assert_eq!(group.selected(), [0], "until somebody is there connections wait in one place");
        group.enter(1, WorkerIx(7));
        group.enter(2, WorkerIx(8));
        assert!(group.is_changed());
        assert_eq!(group.selected(), [1, 2]);
        assert!(group.has_others(1) && group.has_others(0));
        group.settle();
        assert_eq!(group.leave(1, WorkerIx(7)), Some(1));
        assert!(!group.has_others(2));
        assert_eq!(group.leave(2, WorkerIx(8)), Some(2));
        assert_eq!(group.selected(), [2]);
        group.enter(0, WorkerIx(9));
        assert_eq!(group.selected(), [0]);
    }

    #[test]
    fn the_first_socket_stays_selected_while_others_take_from_it() {
        let mut group = of(3);
        assert_eq!(group.selected_with_first(), [0]);
        group.enter(2, WorkerIx(7));
        assert_eq!(group.selected_with_first(), [0, 2]);
        group.enter(0, WorkerIx(8));
        assert_eq!(group.selected_with_first(), [0, 2]);
        group.leave(0, WorkerIx(8));
        group.leave(2, WorkerIx(7));
        assert_eq!(group.selected_with_first(), [0], "nothing waits where nobody is any more");
    }

    #[test]
    fn connections_wait_where_a_worker_starts_while_none_accepts() {
        let mut group = of(3);
        group.enter(0, WorkerIx(7));
        group.settle();
        group.wait_in(1);
        assert_eq!((group.selected(), group.is_changed()), (vec![0], false), "it has a taker");
        group.leave(0, WorkerIx(7));
        group.settle();
        group.wait_in(9);
        assert_eq!((group.selected(), group.is_changed()), (vec![0], false), "there is no such socket");
        group.wait_in(2);
        assert_eq!((group.selected(), group.is_changed()), (vec![2], true));
        group.settle();
        group.wait_in(2);
        assert!(!group.is_changed());
    }

    #[test]
    fn old_and_new_worker_of_a_slot_take_from_one_socket() {
        let mut group = of(2);
        group.enter(1, WorkerIx(7));
        group.settle();
        group.enter(1, WorkerIx(8));
        group.enter(1, WorkerIx(8));
        assert_eq!(group.takers(1), [WorkerIx(7), WorkerIx(8)]);
        assert_eq!(group.leave(1, WorkerIx(7)), None);
        assert_eq!(group.leave(1, WorkerIx(7)), None, "it has left before");
        assert!(!group.is_changed());
        assert_eq!(group.leave(1, WorkerIx(8)), Some(1));
    }

    #[test]
    fn slots_share_where_sockets_are_few() {
        let mut group = of(2);
        assert_eq!((group.socket_of(0), group.socket_of(5)), (0, 1));
        group.enter(1, WorkerIx(7));
        group.enter(3, WorkerIx(8));
        assert_eq!(group.leave(1, WorkerIx(7)), None);
        assert_eq!(group.selected(), [1]);
    }
}
