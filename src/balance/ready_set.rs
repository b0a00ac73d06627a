//! The workers that could take a connection now, by their number of open hand-offs: a bit set for each number. The
//! search for the next in turn checks 64 workers at a time.
use crate::limits;

/// Numbers of open hand-offs with which a worker can still take another.
const LEVELS: usize = limits::HANDOFF_WINDOW_MAX as usize;

const _: () = assert!(LEVELS <= 64, "`ReadySet::some` has one bit for each level");

/// A set of indices.
#[derive(Clone, Debug, Default)]
pub(super) struct Bits {
    words: Vec<u64>,
}

impl Bits {
    #[inline]
    pub(super) fn insert(&mut self, index: u32) {
        let word = index as usize / 64;
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        self.words[word] |= 1 << (index % 64);
    }

    /// Returns whether it was in the set.
    #[inline]
    pub(super) fn remove(&mut self, index: u32) -> bool {
        let Some(word) = self.words.get_mut(index as usize / 64) else { return false };
        let (before, bit) = (*word, 1 << (index % 64));
        *word &= !bit;
        before & bit != 0
    }

    #[inline]
    pub(super) fn contains(&self, index: u32) -> bool {
        self.words.get(index as usize / 64).is_some_and(|word| word & (1 << (index % 64)) != 0)
    }

    /// Calls `with` for each index, the lowest first.
    #[inline]
    pub(super) fn for_each(&self, mut with: impl FnMut(u32)) {
        for (at, &word) in self.words.iter().enumerate() {
            let mut left = word;
            while left != 0 {
                with(at as u32 * 64 + left.trailing_zeros());
                left &= left - 1;
            }
        }
    }

    /// The first index from `from` on, then from the start, that is in both sets.
    #[inline]
    fn next_common(&self, other: &Bits, from: u32) -> Option<u32> {
        let count = self.words.len().min(other.words.len());
        let both = |at: usize| self.words[at] & other.words[at];
        let found = |at: usize, word: u64| (word != 0).then(|| at as u32 * 64 + word.trailing_zeros());
        let start = from as usize / 64;
        if start < count {
            let rest = found(start, both(start) & (u64::MAX << (from % 64)));
            if rest.is_some() {
                return rest;
            }
        }
        let after = (start + 1).min(count)..count;
        after.chain(0..(start + 1).min(count)).find_map(|at| found(at, both(at)))
    }
}

/// The members that could take a connection.
#[derive(Clone, Debug)]
pub(super) struct ReadySet {
    /// By number of open hand-offs.
    levels: Vec<Bits>,
    counts: [u32; LEVELS],
    /// One bit for each level that is not empty.
    some: u64,
}

impl ReadySet {
    pub(super) fn new() -> ReadySet {
        ReadySet { levels: vec![Bits::default(); LEVELS], counts: [0; LEVELS], some: 0 }
    }

    /// Adds a member with this number of open hand-offs (below the maximum).
    #[inline]
    pub(super) fn enter(&mut self, level: u32, index: u32) {
        let at = level as usize;
        self.levels[at].insert(index);
        self.counts[at] += 1;
        self.some |= 1 << level;
    }

    /// Removes a member from this level.
    #[inline]
    pub(super) fn leave(&mut self, level: u32, index: u32) {
        let at = level as usize;
        self.levels[at].remove(index);
        self.counts[at] -= 1;
        if self.counts[at] == 0 {
            self.some &= !(1 << level);
        }
    }

    /// The member of `among` on the lowest level; of several the first from `from` on.
    #[inline]
    pub(super) fn next(&self, among: &Bits, from: u32) -> Option<u32> {
        let mut left = self.some;
        while left != 0 {
            let found = self.levels[left.trailing_zeros() as usize].next_common(among, from);
            if found.is_some() {
                return found;
            }
            left &= left - 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(indices: &[u32]) -> Bits {
        let mut bits = Bits::default();
        indices.iter().for_each(|&index| bits.insert(index));
        bits
    }

    #[test]
    fn the_next_in_turn_is_found_from_anywhere() {
        let mut ready = ReadySet::new();
        let all = [3, 63, 64, 200, 999];
        all.iter().for_each(|&index| ready.enter(0, index));
        let among = bits(&all);
        for from in 0..1100 {
            let expected = all.iter().find(|&&index| index >= from).unwrap_or(&3);
            assert_eq!(ready.next(&among, from), Some(*expected), "from {from}");
        }
        assert_eq!(ready.next(&bits(&[5, 64]), 65), Some(64), "only those that serve");
        assert_eq!(ready.next(&bits(&[5, 3000]), 0), None);
        let mut seen = Vec::new();
        among.for_each(|index| seen.push(index));
        assert_eq!(seen, all);
    }

    #[test]
    fn the_fewest_come_first_and_who_left_is_not_found() {
        let mut ready = ReadySet::new();
        let among = bits(&[0, 1, 2]);
        for (level, index) in [(63, 0), (5, 1), (5, 2)] {
            ready.enter(level, index);
        }
        assert_eq!(ready.next(&among, 2), Some(2));
        ready.leave(5, 2);
        assert_eq!(ready.next(&among, 2), Some(1));
        ready.leave(5, 1);
        assert_eq!(ready.next(&among, 2), Some(0));
        ready.leave(63, 0);
        assert_eq!(ready.next(&among, 2), None);
    }
}
