//! Turns for one group: the eBPF program and its maps.
use super::program::{self, Extended};
use crate::os::bpf::{Map, Program};
use crate::os::reuseport;
use std::io;
use std::os::fd::BorrowedFd;

/// Initial number of sockets that can be counted; it doubles as the group grows.
const COUNTERS_MIN: u32 = 16;

/// Turns for one group, strict except for turns that a socket leaves to others. The turn and the counts survive changes
/// of the selection.
#[derive(Debug)]
pub struct Turns {
    counters: Map,
    skips: Map,
    /// Some sockets leave turns.
    skipping: bool,
    /// Sockets that can be counted.
    capacity: u32,
}

impl Turns {
    /// Maps for a group with this number of sockets.
    ///
    /// # Errors
    /// EPERM without CAP_BPF; other errors mean that there is no eBPF.
    pub fn new(sockets: u32) -> io::Result<Turns> {
        let capacity = sockets.max(COUNTERS_MIN).next_power_of_two();
        Ok(Turns { counters: Map::new(8 * (1 + capacity))?, skips: Map::new(8 * capacity)?, skipping: false, capacity })
    }

    /// Tests whether this kernel supports strict turns.
    ///
    /// # Errors
    /// The kernel's error: EPERM without CAP_BPF.
    pub fn probe() -> io::Result<()> {
        let (counters, table, skips) = (Map::new(16)?, Map::new(4)?, Map::new(8)?);
        load(&program::by_turns(counters.number(), table.number(), skips.number(), 1, 1)).map(|_| ())
    }

    /// From now on `selected` take turns, among the first `sockets` of the group of `socket`.
    ///
    /// # Errors
    /// Those of bpf(2) and setsockopt(2); EINVAL for a socket without a group.
    pub fn attach(&mut self, socket: BorrowedFd<'_>, selected: &[u32], sockets: u32) -> io::Result<()> {
        if sockets > self.capacity {
            let more = Turns::new(sockets)?;
            let mut counts = self.counters.read()?;
            counts.resize(8 * (1 + more.capacity as usize), 0);
            more.counters.write(&counts)?;
            *self = more;
        }
        let bytes: Vec<u8> = selected.iter().flat_map(|index| index.to_ne_bytes()).collect();
        let table = Map::new(bytes.len().max(4) as u32)?;
        if !bytes.is_empty() {
            table.write(&bytes)?;
        }
        let [counters, table_number, skips] = [&self.counters, &table, &self.skips].map(Map::number);
        let sockets = sockets.min(self.capacity);
        // The loaded program keeps its maps; our fd of the table may close.
        let program = load(&program::by_turns(counters, table_number, skips, selected.len() as u32, sockets))?;
        reuseport::attach(socket, &program)
    }

    /// From now on these sockets leave this many of their next turns to others; all others leave none.
    ///
    /// # Errors
    /// Those of bpf(2).
    pub fn leave(&mut self, turns: &[(u32, u32)]) -> io::Result<()> {
        if turns.is_empty() && !self.skipping {
            return Ok(());
        }
        let mut bytes = vec![0; 8 * self.capacity as usize];
        for &(socket, count) in turns {
            if let Some(place) = bytes.chunks_exact_mut(8).nth(socket as usize) {
                place.copy_from_slice(&i64::from(count).to_ne_bytes());
            }
        }
        self.skipping = !turns.is_empty();
        self.skips.write(&bytes)
    }

    /// Sockets have other places: their counts go with them. Each order has the sockets' numbers by place. What is counted
    /// meanwhile is lost.
    ///
    /// # Errors
    /// Those of bpf(2).
    pub fn reorder(&mut self, before: &[u32], after: &[u32]) -> io::Result<()> {
        let mut bytes = self.counters.read()?;
        // The first number is the turn.
        let counts: Vec<[u8; 8]> = bytes.as_chunks::<8>().0.iter().skip(1).copied().collect();
        for (place, count) in bytes.as_chunks_mut::<8>().0.iter_mut().skip(1).enumerate() {
            let was = after.get(place).and_then(|number| before.iter().position(|other| other == number));
            *count = was.and_then(|was| counts.get(was)).copied().unwrap_or_default();
        }
        self.counters.write(&bytes)
    }

    /// How many connections each socket was chosen for; empty if the kernel does not tell.
    pub fn counts(&self) -> Vec<u64> {
        let bytes = self.counters.read().unwrap_or_default();
        // The first number is the turn.
        let numbers = bytes.as_chunks::<8>().0.iter().skip(1);
        numbers.map(|bytes| u64::from_ne_bytes(*bytes)).collect()
    }
}

fn load(program: &[Extended]) -> io::Result<Program> {
    Program::load(&program.iter().map(Extended::to_bytes).collect::<Vec<_>>())
}
