//! The part of a log that outlives its master: numbers in shared memory, two spools, and the files. Every change goes
//! through [`Storage`], so that a test can let the process die before each one.
use super::journal::{LOG_SEGMENTS_MAX, LOG_SPOOL_BYTES};
use crate::limits::{APPS_MAX, LOG_PATH_BYTES_MAX};
use crate::os::shared::Shared;
use crate::os::spool::Spool;
use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Cells of the shared memory. A change of the layout is a new [`VERSION_NOW`].
pub(super) mod cell {
    use super::{APPS_MAX, LOG_PATH_BYTES_MAX, LOG_SEGMENTS_MAX};
    pub(crate) const VERSION: usize = 0;
    /// The spool that is being filled.
    pub(crate) const CURRENT: usize = 1;
    /// 1: the append in the next cells is under way.
    pub(crate) const UNDER_WAY: usize = 2;
    pub(crate) const DEVICE: usize = 3;
    pub(crate) const INODE: usize = 4;
    pub(crate) const BEFORE: usize = 5;
    pub(crate) const PLANNED: usize = 6;
    pub(crate) const PATH_BYTES: usize = 7;
    pub(crate) const PATH: usize = 8;
    /// Lost lines of each app.
    pub(crate) const LOST: usize = PATH + LOG_PATH_BYTES_MAX / 8;
    /// Two tables: the number of pieces, then the pieces.
    const TABLES: usize = LOST + APPS_MAX;
    const PIECE: usize = 4;
    const TABLE: usize = 1 + PIECE * LOG_SEGMENTS_MAX;
    pub(crate) const ALL: usize = TABLES + 2 * TABLE;

    /// The number of pieces in a spool.
    pub(crate) fn count(spool: usize) -> usize {
        TABLES + spool * TABLE
    }

    /// The first cell of a piece: its stream, its start, the end of what is written, the end after the current append.
    pub(crate) fn piece(spool: usize, number: usize) -> usize {
        count(spool) + 1 + PIECE * number
    }
}

/// The layout of the cells.
pub(super) const VERSION_NOW: u64 = 1;

/// See the module.
pub(super) trait Storage {
    fn load(&self, cell: usize) -> u64;
    fn store(&mut self, cell: usize, value: u64);
    fn position(&self, spool: usize) -> io::Result<u64>;
    fn seek(&mut self, spool: usize, to: u64) -> io::Result<()>;
    /// As [`Spool::take`].
    fn take(&mut self, spool: usize, pipe: BorrowedFd<'_>, bytes_max: usize) -> io::Result<Option<usize>>;
    fn bytes(&self, spool: usize) -> &[u8];
    /// Copies a piece of one spool to a place in the other.
    fn copy(&mut self, from: usize, piece: Range<usize>, at: usize);
    fn release(&mut self, spool: usize, from: usize);
    fn write(&mut self, file: &File, bytes: &[u8]) -> io::Result<usize>;
    fn cut(&mut self, file: &File, length: u64) -> io::Result<()>;
}

/// The real storage.
#[derive(Debug)]
pub(super) struct LiveStorage {
    cells: Arc<Shared>,
    spools: [Spool; 2],
}

/// Names under which the keeper holds it: the cells, the spools.
pub(super) const HELD: [&str; 3] = ["log/cells", "log/spool/0", "log/spool/1"];

impl LiveStorage {
    pub(super) fn new() -> io::Result<LiveStorage> {
        let cells = Arc::new(Shared::new(HELD[0], cell::ALL * size_of::<u64>())?);
        cells.cells()[cell::VERSION].store(VERSION_NOW, Ordering::Release);
        Ok(LiveStorage {
            cells,
            spools: [Spool::new(HELD[1], LOG_SPOOL_BYTES)?, Spool::new(HELD[2], LOG_SPOOL_BYTES)?],
        })
    }

    /// Takes over what a previous master left.
    pub(super) fn adopt(fds: [OwnedFd; 3]) -> io::Result<LiveStorage> {
        let [cells, first, second] = fds;
        let cells = Arc::new(Shared::adopt(cells, cell::ALL * size_of::<u64>())?);
        if cells.cells()[cell::VERSION].load(Ordering::Acquire) != VERSION_NOW {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it was written by another version"));
        }
        Ok(LiveStorage {
            cells,
            spools: [Spool::adopt(first, LOG_SPOOL_BYTES)?, Spool::adopt(second, LOG_SPOOL_BYTES)?],
        })
    }

    /// Its fds, in the order of [`HELD`].
    pub(super) fn fds(&self) -> [BorrowedFd<'_>; 3] {
        [self.cells.as_fd(), self.spools[0].as_fd(), self.spools[1].as_fd()]
    }

    /// The cells, for reading the counts.
    pub(super) fn cells(&self) -> Arc<Shared> {
        Arc::clone(&self.cells)
    }
}

impl Storage for LiveStorage {
    fn load(&self, cell: usize) -> u64 {
        self.cells.cells()[cell].load(Ordering::Acquire)
    }

    fn store(&mut self, cell: usize, value: u64) {
        // In program order: a successor relies on it.
        self.cells.cells()[cell].store(value, Ordering::Release);
    }

    fn position(&self, spool: usize) -> io::Result<u64> {
        self.spools[spool].position()
    }

    fn seek(&mut self, spool: usize, to: u64) -> io::Result<()> {
        self.spools[spool].seek(to)
    }

    fn take(&mut self, spool: usize, pipe: BorrowedFd<'_>, bytes_max: usize) -> io::Result<Option<usize>> {
        self.spools[spool].take(pipe, bytes_max)
    }

    fn bytes(&self, spool: usize) -> &[u8] {
        self.spools[spool].bytes()
    }

    fn copy(&mut self, from: usize, piece: Range<usize>, at: usize) {
        let [first, second] = &mut self.spools;
        let (from, to) = if from == 0 { (first, second) } else { (second, first) };
        to.put(at, from, piece);
    }

    fn release(&mut self, spool: usize, from: usize) {
        self.spools[spool].release(from as u64);
    }

    fn write(&mut self, mut file: &File, bytes: &[u8]) -> io::Result<usize> {
        file.write(bytes)
    }

    fn cut(&mut self, file: &File, length: u64) -> io::Result<()> {
        file.set_len(length)
    }
}
