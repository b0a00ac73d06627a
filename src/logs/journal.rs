//! Exactly once: records which bytes of which stream were taken out of its pipe, and which of them are in a file. Bytes
//! that are not in a file yet lie in one of two spools, as consecutive pieces.
//!
//! The kernel keeps the fill position of a spool (see `os::spool`). An append is announced before it is made: the file,
//! its length before and after, and how far every piece is written then. A successor that finds an announced append
//! compares the file's length to see whether it happened. When a spool is used up, the rest moves to the other one.
use super::storage::{Storage, cell};
use crate::limits::{APPS_MAX, LOG_PATH_BYTES_MAX};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Pieces of streams kept at the same time: the rest of a line, and the bytes after it.
pub(super) const LOG_SEGMENTS_MAX: usize = 2 * super::engine::LOG_STREAMS_MAX;
/// Size of one of the two spools, in bytes. Memory is used only as far as they are filled.
pub(super) const LOG_SPOOL_BYTES: usize = 8 * 1024 * 1024;
/// Fill of a spool at which the rest moves to the other one, in bytes: small enough for the processor's cache.
const LOG_SPOOL_TURN_BYTES: usize = 256 * 1024;
/// Memory of an idle spool that is not released, in bytes.
const LOG_SPOOL_IDLE_BYTES: usize = 64 * 1024;

/// A piece of a stream in the current spool.
#[derive(Clone, Copy, Debug)]
struct Piece {
    stream: u64,
    /// The caller's number for the stream.
    owner: usize,
    end: usize,
    /// End of what is written.
    done: usize,
    /// End of what is written after the current append.
    next: usize,
}

/// A file and its length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) device: u64,
    pub(super) inode: u64,
    /// The length before the append; `None` for a file without one (a pipe, a terminal).
    pub(super) length: Option<u64>,
}

/// An announced append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Announced {
    pub(super) path: PathBuf,
    pub(super) file: Identity,
    pub(super) planned: u64,
}

/// The result of an announced append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// All of it is in the file.
    Done,
    /// Part of it: cut the file to its old length and repeat the append.
    Cut { to: u64 },
    /// None of it, or nobody can tell: repeat the append.
    Again,
}

/// Judges by the current length of the file; `None`: the file is gone.
pub(super) fn judge(announced: &Announced, length: Option<u64>) -> Verdict {
    match (announced.file.length, length) {
        (Some(before), Some(now)) if now >= before + announced.planned => Verdict::Done,
        (Some(before), Some(now)) if now > before => Verdict::Cut { to: before },
        // Shorter than before: somebody has emptied it.
        (Some(_) | None, Some(_) | None) => Verdict::Again,
    }
}

/// The result of reading a pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// A new piece.
    Piece(usize),
    /// Nothing now.
    Nothing,
    /// No writer is left.
    End,
}

/// See the module.
pub(super) struct Journal<G> {
    storage: G,
    current: usize,
    pieces: Vec<Piece>,
    end: usize,
    /// Pieces with bytes in the append that is being prepared.
    planned: Vec<usize>,
    /// How far each spool was filled since its memory was released.
    touched: [usize; 2],
    written: Arc<Written>,
}

/// Bytes of each app that were appended to files since this process began.
#[derive(Debug)]
pub(super) struct Written([AtomicU64; APPS_MAX]);

impl Default for Written {
    fn default() -> Written {
        Written([const { AtomicU64::new(0) }; APPS_MAX])
    }
}

impl Written {
    /// Those of the app with this index.
    pub(super) fn of(&self, app: usize) -> u64 {
        self.0.get(app).map_or(0, |bytes| bytes.load(Ordering::Relaxed))
    }
}

impl<G: Storage> Journal<G> {
    /// Continues from the state of the storage (empty for a new one). `find` looks for the file of an announced append.
    /// Owners are unknown until [`Journal::claim`].
    ///
    /// # Errors
    /// The storage is invalid.
    pub(super) fn recover(mut storage: G, mut find: impl FnMut(&Announced) -> Option<File>) -> io::Result<Journal<G>> {
        let current = usize::from(storage.load(cell::CURRENT) != 0);
        let count = (storage.load(cell::count(current)) as usize).min(LOG_SEGMENTS_MAX);
        let end = (storage.position(current)? as usize).min(LOG_SPOOL_BYTES);
        let mut done = false;
        let under_way = storage.load(cell::UNDER_WAY) != 0;
        if under_way {
            let announced = announced(&storage);
            let file = find(&announced);
            let length = file.as_ref().and_then(|file| file.metadata().ok()).map(|metadata| metadata.len());
            match (judge(&announced, length), file) {
                (Verdict::Done, _) => done = true,
                (Verdict::Cut { to }, Some(file)) => storage.cut(&file, to)?,
                (Verdict::Cut { .. } | Verdict::Again, _) => {}
            }
        }
        let mut pieces = Vec::with_capacity(count);
        for number in 0..count {
            let at = cell::piece(current, number);
            let start = (storage.load(at + 1) as usize).min(end);
            let following =
                if number + 1 < count { storage.load(cell::piece(current, number + 1) + 1) } else { end as u64 };
            let stop = (following as usize).clamp(start, end);
            let written = storage.load(if done { at + 3 } else { at + 2 });
            let written = (written as usize).clamp(start, stop);
            storage.store(at + 2, written as u64);
            storage.store(at + 3, written as u64);
            pieces.push(Piece { stream: storage.load(at), owner: usize::MAX, end: stop, done: written, next: written });
        }
        if under_way {
            storage.store(cell::UNDER_WAY, 0);
        }
        let touched = [LOG_SPOOL_BYTES; 2];
        Ok(Journal { storage, current, pieces, end, planned: Vec::new(), touched, written: Arc::default() })
    }

    /// The pieces of this stream that a previous master left, in order; they belong to `owner` from now on.
    pub(super) fn claim(&mut self, stream: u64, owner: usize) -> Vec<usize> {
        let mut own = Vec::new();
        for (number, piece) in self.pieces.iter_mut().enumerate() {
            if piece.stream == stream && piece.owner == usize::MAX && piece.done < piece.end {
                piece.owner = owner;
                own.push(number);
            }
        }
        own
    }

    /// Drops unclaimed pieces. Returns their bytes.
    pub(super) fn drop_unclaimed(&mut self) -> usize {
        let mut bytes = 0;
        for number in 0..self.pieces.len() {
            let piece = self.pieces[number];
            if piece.owner == usize::MAX && piece.done < piece.end {
                bytes += piece.end - piece.done;
                self.plan(number, piece.end - piece.done);
            }
        }
        self.settle();
        bytes
    }

    /// Whether a read of the maximum size fits.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.end + bytes <= LOG_SPOOL_BYTES && self.pieces.len() < LOG_SEGMENTS_MAX
    }

    /// Moves at most `bytes_max` bytes from the pipe into a new piece.
    ///
    /// # Errors
    /// The pipe cannot be read.
    pub(super) fn take(
        &mut self,
        stream: u64,
        owner: usize,
        pipe: BorrowedFd<'_>,
        bytes_max: usize,
    ) -> io::Result<Taken> {
        let number = self.pieces.len();
        let start = self.end;
        self.write_piece(self.current, number, stream, start);
        self.storage.store(cell::count(self.current), number as u64 + 1);
        let taken = self.storage.take(self.current, pipe, bytes_max);
        if let Ok(Some(bytes @ 1..)) = taken {
            self.end += bytes;
            self.touched[self.current] = self.touched[self.current].max(self.end);
            self.pieces.push(Piece { stream, owner, end: self.end, done: start, next: start });
            return Ok(Taken::Piece(number));
        }
        self.storage.store(cell::count(self.current), number as u64);
        Ok(if taken?.is_some() { Taken::End } else { Taken::Nothing })
    }

    fn write_piece(&mut self, spool: usize, number: usize, stream: u64, start: usize) {
        let at = cell::piece(spool, number);
        self.storage.store(at, stream);
        for n in 1..4 {
            self.storage.store(at + n, start as u64);
        }
    }

    /// The part of a piece that is neither written nor planned.
    pub(super) fn rest(&self, piece: usize) -> &[u8] {
        let piece = &self.pieces[piece];
        &self.storage.bytes(self.current)[piece.next..piece.end]
    }

    /// Adds the next `bytes` of a piece to the append that is being prepared.
    pub(super) fn plan(&mut self, number: usize, bytes: usize) {
        let piece = &mut self.pieces[number];
        if piece.next == piece.done {
            self.planned.push(number);
        }
        piece.next += bytes;
        let next = piece.next as u64;
        self.storage.store(cell::piece(self.current, number) + 3, next);
    }

    /// Announces that the planned bytes are appended to this file.
    pub(super) fn announce(&mut self, path: &Path, file: &Identity, planned: usize) {
        let bytes = path.as_os_str().as_bytes();
        let bytes = &bytes[..bytes.len().min(LOG_PATH_BYTES_MAX)];
        let storage = &mut self.storage;
        for (n, chunk) in bytes.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            storage.store(cell::PATH + n, u64::from_le_bytes(word));
        }
        storage.store(cell::PATH_BYTES, bytes.len() as u64);
        storage.store(cell::DEVICE, file.device);
        storage.store(cell::INODE, file.inode);
        storage.store(cell::BEFORE, file.length.unwrap_or(u64::MAX));
        storage.store(cell::PLANNED, planned as u64);
        storage.store(cell::UNDER_WAY, 1);
    }

    /// Appends. Returns how much was written before an error, and the error.
    pub(super) fn append(&mut self, file: &File, mut bytes: &[u8]) -> Result<(), (usize, io::Error)> {
        let whole = bytes.len();
        while !bytes.is_empty() {
            match self.storage.write(file, bytes) {
                Ok(0) => return Err((whole - bytes.len(), io::ErrorKind::WriteZero.into())),
                Ok(written) => bytes = &bytes[written..],
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err((whole - bytes.len(), e)),
            }
        }
        Ok(())
    }

    pub(super) fn cut(&mut self, file: &File, length: u64) -> io::Result<()> {
        self.storage.cut(file, length)
    }

    /// The planned bytes were written, or given up.
    pub(super) fn settle(&mut self) {
        for number in self.planned.drain(..) {
            let piece = &mut self.pieces[number];
            piece.done = piece.next;
            self.storage.store(cell::piece(self.current, number) + 2, piece.done as u64);
        }
        self.storage.store(cell::UNDER_WAY, 0);
    }

    /// Counts bytes of an app that were written.
    pub(super) fn count_written(&self, app: usize, bytes: usize) {
        if let Some(all) = self.written.0.get(app) {
            all.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }

    /// What was written, for reading by another thread.
    pub(super) fn written(&self) -> Arc<Written> {
        Arc::clone(&self.written)
    }

    /// Counts lost lines of an app.
    pub(super) fn lost(&mut self, app: usize, lines: u64) {
        let before = self.storage.load(cell::LOST + app);
        self.storage.store(cell::LOST + app, before + lines);
    }

    /// Whether the spool is used up far enough to switch to the other one.
    pub(super) fn is_used_up(&self) -> bool {
        self.end >= LOG_SPOOL_TURN_BYTES || self.pieces.len() >= LOG_SEGMENTS_MAX / 2
    }

    /// The pieces that are not completely written, with their owners.
    pub(super) fn left(&self) -> impl Iterator<Item = (usize, usize)> {
        let pieces = self.pieces.iter().enumerate();
        pieces.filter(|(_, piece)| piece.done < piece.end).map(|(number, piece)| (number, piece.owner))
    }

    /// Switches to the other spool. Each group (owner, its one or two pieces) becomes one piece there, numbered by its
    /// place; everything else must have been written.
    ///
    /// # Errors
    /// As lseek(2): nothing has changed.
    pub(super) fn turn_over(&mut self, groups: &[(usize, [Option<usize>; 2])]) -> io::Result<()> {
        let (from, to) = (self.current, 1 - self.current);
        self.storage.store(cell::count(to), 0);
        let mut end = 0;
        let mut pieces = Vec::with_capacity(groups.len());
        for (number, (owner, parts)) in groups.iter().enumerate() {
            let start = end;
            let mut stream = 0;
            for part in parts.iter().flatten() {
                let piece = self.pieces[*part];
                stream = piece.stream;
                self.storage.copy(from, piece.done..piece.end, end);
                end += piece.end - piece.done;
            }
            self.write_piece(to, number, stream, start);
            pieces.push(Piece { stream, owner: *owner, end, done: start, next: start });
        }
        self.storage.seek(to, end as u64)?;
        self.storage.store(cell::count(to), pieces.len() as u64);
        self.storage.store(cell::CURRENT, to as u64);
        self.current = to;
        self.pieces = pieces;
        self.end = end;
        self.touched[to] = self.touched[to].max(end);
        Ok(())
    }

    /// Releases memory that is not needed now.
    pub(super) fn shrink(&mut self) {
        for spool in 0..2 {
            let needed = if spool == self.current { self.end } else { 0 };
            let keep = needed.max(LOG_SPOOL_IDLE_BYTES).next_multiple_of(4096);
            if self.touched[spool] > keep {
                self.storage.release(spool, keep);
                self.touched[spool] = keep;
            }
        }
    }

    #[cfg(test)]
    pub(super) fn storage(&self) -> &G {
        &self.storage
    }
}

fn announced(storage: &impl Storage) -> Announced {
    let length = (storage.load(cell::PATH_BYTES) as usize).min(LOG_PATH_BYTES_MAX);
    let mut bytes = Vec::with_capacity(length.next_multiple_of(8));
    for n in 0..length.div_ceil(8) {
        bytes.extend_from_slice(&storage.load(cell::PATH + n).to_le_bytes());
    }
    bytes.truncate(length);
    let before = storage.load(cell::BEFORE);
    Announced {
        path: PathBuf::from(OsStr::from_bytes(&bytes)),
        file: Identity {
            device: storage.load(cell::DEVICE),
            inode: storage.load(cell::INODE),
            length: (before != u64::MAX).then_some(before),
        },
        planned: storage.load(cell::PLANNED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_the_file_tells_whether_an_append_happened() {
        let file = Identity { device: 1, inode: 2, length: Some(100) };
        let announced = Announced { path: "/l".into(), file, planned: 50 };
        for (now, verdict) in [
            (Some(100), Verdict::Again),
            (Some(101), Verdict::Cut { to: 100 }),
            (Some(149), Verdict::Cut { to: 100 }),
            (Some(150), Verdict::Done),
            (Some(151), Verdict::Done),
            (Some(0), Verdict::Again),
            (None, Verdict::Again),
        ] {
            assert_eq!(judge(&announced, now), verdict, "{now:?}");
        }
        let pipe = Identity { length: None, ..announced.file.clone() };
        assert_eq!(judge(&Announced { file: pipe, ..announced }, Some(0)), Verdict::Again);
    }
}
