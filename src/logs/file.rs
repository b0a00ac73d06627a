//! One log file: opened, appended to, rotated when due. What it cannot take is counted as lost.
use super::archive::Archive;
use super::journal::{Announced, Identity, Journal};
use super::path::LogPath;
use super::rotation;
use super::storage::Storage;
use crate::config::log::Rotation;
use crate::os::clock;
use crate::os::place::{self, Missing, Place};
use jiff::Timestamp;
use memchr::memchr_iter;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Names checked in the folder of a log file.
pub(super) const LOG_FOLDER_ENTRIES_MAX: usize = 100_000;

/// Pause before another try to open a log file that could not be opened, in milliseconds.
const LOG_REOPEN_MS: u64 = 1_000;

/// The time of a turn, in several forms.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    /// Wall clock.
    pub(super) wall: Timestamp,
    /// The same, for the file system.
    pub(super) system: SystemTime,
    /// CLOCK_MONOTONIC, in microseconds.
    pub(super) us: u64,
}

impl Now {
    pub(super) fn read() -> Now {
        let system = clock::wall();
        // A clock that is off by 10,000 years shows the epoch.
        Now { wall: Timestamp::try_from(system).unwrap_or(Timestamp::UNIX_EPOCH), system, us: clock::monotonic_us() }
    }
}

/// The end of one app's lines in a write, and their number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) app: usize,
    pub(super) end: usize,
}

/// A file that cannot be written at present.
#[derive(Debug)]
struct Trouble {
    lost: u64,
    /// When to try to open it again.
    reopen_us: u64,
}

/// See the module.
pub(super) struct LogFile {
    pub(super) path: LogPath,
    pub(super) rotation: Rotation,
    /// Streams that are written to it.
    pub(super) users: usize,
    open: Option<Open>,
    trouble: Option<Trouble>,
    /// When to try to rotate it again, after that failed.
    rotate_us: u64,
}

struct Open {
    file: File,
    device: u64,
    inode: u64,
    /// Anything but a regular file has no length and is never rotated.
    regular: bool,
    begun: SystemTime,
}

impl LogFile {
    pub(super) fn new(path: LogPath, rotation: Rotation) -> LogFile {
        LogFile { path, rotation, users: 0, open: None, trouble: None, rotate_us: 0 }
    }

    /// Opens the file that its path names now.
    ///
    /// # Errors
    /// As [`place::within`]; the old file stays open then.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        let has_user = self.path.user.is_some();
        let wall = Now::read().wall;
        let file = self.path.within(Missing::Create, move |place| match place.append() {
            // Written with our rights by an earlier version.
            Err(e) if has_user && e.kind() == io::ErrorKind::PermissionDenied && place.is_of_ours()? => {
                move_aside(place, wall)?;
                place.append()
            }
            file => file,
        })?;
        self.take(file)
    }

    fn take(&mut self, file: File) -> io::Result<()> {
        let metadata = file.metadata()?;
        let begun = metadata.created().or_else(|_| metadata.modified()).unwrap_or_else(|_| SystemTime::now());
        self.open =
            Some(Open { file, device: metadata.dev(), inode: metadata.ino(), regular: metadata.is_file(), begun });
        Ok(())
    }

    /// Empties it.
    ///
    /// # Errors
    /// As [`place::within`] and ftruncate(2).
    pub(super) fn empty(&mut self) -> io::Result<()> {
        match &self.open {
            Some(open) if open.regular => open.file.set_len(0),
            Some(_) => Ok(()),
            None => empty(&self.path),
        }
    }

    /// Appends what the journal has planned, or counts it as lost.
    pub(super) fn append<G: Storage>(
        &mut self,
        journal: &mut Journal<G>,
        bytes: &[u8],
        parts: &[Part],
        now: Now,
        archive: &Archive,
    ) {
        let written = match (self.prepare(bytes.len(), now, archive), &self.open) {
            (Err(e), _) => Err((0, e)),
            (Ok(_), None) => Err((0, io::ErrorKind::NotFound.into())),
            (Ok(length), Some(open)) => {
                let file = Identity { device: open.device, inode: open.inode, length };
                journal.announce(&self.path.path, &file, bytes.len());
                journal.append(&open.file, bytes).map_err(|(written, e)| {
                    let Some(before) = length else { return (written, e) };
                    // Only whole lines stay.
                    let kept = memchr::memrchr(b'\n', &bytes[..written]).map_or(0, |last| last + 1);
                    // If even that fails, half a line too many stays.
                    let _ = journal.cut(&open.file, before + kept as u64);
                    (kept, e)
                })
            }
        };
        let kept = written.as_ref().map_or_else(|(kept, _)| *kept, |()| bytes.len());
        let mut start = 0;
        for part in parts {
            journal.count_written(part.app, part.end.min(kept).saturating_sub(start));
            start = part.end.min(kept);
        }
        match written {
            Ok(()) => self.works_again(),
            Err((kept, e)) => self.lose(journal, bytes, kept, parts, now, &e),
        }
        journal.settle();
    }

    /// Opens the file if it is not, and rotates it when due. Returns its length.
    fn prepare(&mut self, more: usize, now: Now, archive: &Archive) -> io::Result<Option<u64>> {
        if self.open.is_none() {
            if self.trouble.as_ref().is_some_and(|trouble| now.us < trouble.reopen_us) {
                return Err(io::ErrorKind::NotConnected.into());
            }
            self.reopen()?;
            if self.rotation.compress {
                archive.look_after(&self.path, &self.rotation);
            }
        }
        match self.length()? {
            Some(length) if self.rotate_when_due(length, more, now, archive)? => self.length(),
            length => Ok(length),
        }
    }

    fn length(&self) -> io::Result<Option<u64>> {
        match &self.open {
            Some(open) if open.regular => Ok(Some(open.file.metadata()?.len())),
            Some(_) | None => Ok(None),
        }
    }

    /// Returns whether the file was replaced.
    fn rotate_when_due(&mut self, length: u64, more: usize, now: Now, archive: &Archive) -> io::Result<bool> {
        let Some(open) = &mut self.open else { return Ok(false) };
        if length == 0 {
            open.begun = now.system;
        }
        let age = now.system.duration_since(open.begun).unwrap_or(Duration::ZERO);
        if now.us < self.rotate_us || !rotation::is_due(&self.rotation, length, more as u64, age) {
            return Ok(false);
        }
        let (identity, wall) = ((open.device, open.inode), now.wall);
        let new = self.path.within(Missing::Create, move |place| {
            // If somebody else has moved the file already, only open its path.
            if place.identity().is_ok_and(|named| named == identity) {
                move_aside(place, wall)?;
            }
            place.append()
        });
        if let Err(e) = new.and_then(|file| self.take(file)) {
            log::debug!("{}: stays too large, it cannot be rotated: {e}", self.path);
            self.rotate_us = now.us + LOG_REOPEN_MS * 1000;
            return Ok(false);
        }
        archive.look_after(&self.path, &self.rotation);
        Ok(true)
    }

    fn works_again(&mut self) {
        if let Some(trouble) = self.trouble.take() {
            let (path, lost) = (&self.path, trouble.lost);
            log::warn!(
                "{path}: written again; {lost} {} lost meanwhile",
                if lost == 1 { "line was" } else { "lines were" }
            );
        }
    }

    fn lose<G: Storage>(
        &mut self,
        journal: &mut Journal<G>,
        bytes: &[u8],
        kept: usize,
        parts: &[Part],
        now: Now,
        why: &io::Error,
    ) {
        let mut start = kept;
        let mut all = 0;
        for part in parts.iter().filter(|part| part.end > kept) {
            let lines = memchr_iter(b'\n', &bytes[start..part.end]).count() as u64;
            journal.lost(part.app, lines);
            all += lines;
            start = part.end;
        }
        let reopen_us = now.us + LOG_REOPEN_MS * 1000;
        match &mut self.trouble {
            Some(trouble) => {
                trouble.lost += all;
                if now.us >= trouble.reopen_us {
                    trouble.reopen_us = reopen_us;
                }
            }
            None => {
                log::warn!(
                    "cannot write {}: {why}; its lines are dropped and counted until that works again",
                    self.path
                );
                self.trouble = Some(Trouble { lost: all, reopen_us });
            }
        }
    }
}

fn move_aside(place: &Place, wall: Timestamp) -> io::Result<()> {
    let mut at = wall;
    loop {
        let to = rotation::rotated(Path::new(place.name()), at).into_os_string();
        let mut packed = to.clone();
        packed.push(rotation::COMPRESSED);
        if !place.has(&to) && !place.has(&packed) {
            return place.rename(place.name(), &to);
        }
        // A second rotation within a millisecond gets the next name.
        at = at.checked_add(Duration::from_millis(1)).map_err(io::Error::other)?;
    }
}

/// Empties the file at this path, if there is one.
///
/// # Errors
/// As [`place::within`] and ftruncate(2).
pub(super) fn empty(path: &LogPath) -> io::Result<()> {
    match path.within(Missing::Fail, Place::empty) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Finds the file of an announced append: at its path, or rotated in the same folder. Only that very file, which was
/// opened with the right rights before, is opened.
pub(super) fn find(announced: &Announced) -> Option<File> {
    let identity = (announced.file.device, announced.file.inode);
    if let Some(file) = place::append_if(&announced.path, identity) {
        return Some(file);
    }
    let entries = fs::read_dir(announced.path.parent()?).ok()?.take(LOG_FOLDER_ENTRIES_MAX).flatten();
    let named = entries.filter(|e| e.metadata().is_ok_and(|m| (m.dev(), m.ino()) == identity));
    named.into_iter().find_map(|entry| place::append_if(&entry.path(), identity))
}
