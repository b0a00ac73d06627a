//! One turn of the log: takes what is in the pipes, writes whole lines to their files, keeps the rest. Fair among
//! streams, and never mixes two of them in a line. `writer` waits for pipes.
use super::archive::Archive;
use super::batch_delay::LOG_MUCH_BYTES;
use super::file::{self, LogFile, Now, Part};
use super::journal::{Announced, Journal, LOG_SPOOL_BYTES, Taken, Written};
use super::line_count::{self, LineCount};
use super::path::LogPath;
use super::render::{self, Input, Look};
use super::stamp::Stamps;
use super::storage::Storage;
use super::tail::Tail;
use crate::config::log::Rotation;
use crate::os::clock;
use jiff::tz::TimeZone;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// Streams (stdout or stderr of one worker) that go to log files at once.
pub(super) const LOG_STREAMS_MAX: usize = 2 * crate::limits::CHILDREN_MAX;
/// Bytes taken from one stream per turn: the capacity of a pipe.
pub(super) const LOG_TAKE_BYTES: usize = 64 * 1024;
/// Streams read per turn.
pub(super) const LOG_READY_MAX: usize = 64;

/// Bytes per write to a file; one more line may be added.
const LOG_WRITE_BYTES: usize = 256 * 1024;

/// A write that takes longer than this, in microseconds, means that the disk is slow: streams with much output are
/// paused.
const LOG_SLOW_WRITE_US: u64 = 20_000;

/// Length of the pause, as a multiple of the time that the write took.
const LOG_REST_FACTOR: u64 = 4;

/// Longest such pause, in microseconds.
const LOG_REST_US_MAX: u64 = 1_000_000;

/// A stream with little output that spoke within this time counts as active and must not wait, in microseconds.
const LOG_QUIET_US: u64 = 1_000_000;

/// One stream of one worker, as the master describes it.
pub struct Source {
    /// Unique in a deployment, and the same for every master.
    pub key: u64,
    /// The reading end, non-blocking.
    pub pipe: OwnedFd,
    /// Index of the app, for the count of lost lines.
    pub app: usize,
    /// Its file; `None`: none.
    pub file: Option<(LogPath, Rotation)>,
    /// A second file that gets the same lines, once they are in the first; where this process dies in between, it misses
    /// them.
    pub copy: Option<(LogPath, Rotation)>,
    /// The format of a line.
    pub look: SourceLook,
    /// Gets the last lines, while somebody else holds it.
    pub tail: Option<Arc<Tail>>,
}

/// The format of a line in its file.
#[derive(Clone, Debug)]
pub enum SourceLook {
    /// As printed, after the time in this format.
    Plain { time: Option<String> },
    /// JSON, with the time in this format and these fields (`"name":value`, with commas between).
    Json { time: Option<String>, fields: String },
}

struct Stream {
    key: u64,
    pipe: OwnedFd,
    app: usize,
    file: Option<usize>,
    copy: Option<usize>,
    look: StreamLook,
    tail: Option<Arc<Tail>>,
    count: Option<Arc<LineCount>>,
    /// Pieces that are not completely written: the rest of a line, and the bytes after it.
    left: [Option<usize>; 2],
    /// No writer is left.
    ended: bool,
    /// Its rest counts as a line, with or without a newline.
    closed: bool,
    /// Bytes taken from it in this turn.
    gave: usize,
    /// When its pause ends.
    rests_until_us: u64,
}

enum StreamLook {
    Plain,
    Stamped(usize),
    Json { stamp: usize, rest: Vec<u8> },
}

/// The result of a turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Turned {
    /// The most bytes taken from one stream.
    pub(super) most: usize,
    /// A readable stream was not read, because its disk is slow.
    pub(super) resting: bool,
}

/// See the module.
pub(super) struct Engine<G> {
    journal: Journal<G>,
    streams: Slots<Stream>,
    files: Slots<LogFile>,
    stamps: Stamps,
    archive: Archive,
    /// The bytes of the next write, and the app of each part.
    out: Vec<u8>,
    parts: Vec<Part>,
    /// Streams of this turn.
    touched: Vec<usize>,
    /// Streams that ended: their key and pipe.
    ended: Vec<(u64, OwnedFd)>,
    /// When a stream with little output last spoke.
    quiet_seen_us: u64,
    /// The longest write of this turn.
    slowest_us: u64,
}

impl<G: Storage> Engine<G> {
    /// Continues from the state of the storage.
    ///
    /// # Errors
    /// The storage is invalid.
    pub(super) fn new(storage: G, zone: TimeZone) -> io::Result<Engine<G>> {
        Engine::with_find(storage, zone, file::find)
    }

    fn with_find(storage: G, zone: TimeZone, find: impl FnMut(&Announced) -> Option<File>) -> io::Result<Engine<G>> {
        Ok(Engine {
            journal: Journal::recover(storage, find)?,
            streams: Slots::default(),
            files: Slots::default(),
            stamps: Stamps::new(zone),
            archive: Archive::default(),
            out: Vec::new(),
            parts: Vec::new(),
            touched: Vec::new(),
            ended: Vec::new(),
            quiet_seen_us: 0,
            slowest_us: 0,
        })
    }

    /// Bytes of each app that were written.
    pub(super) fn written(&self) -> Arc<Written> {
        self.journal.written()
    }

    /// Adds a stream. Returns its token for readiness; `None` if there are too many.
    pub(super) fn add(&mut self, source: Source) -> Option<usize> {
        if self.streams.len() >= LOG_STREAMS_MAX {
            return None;
        }
        let file = source.file.map(|(path, rotation)| self.file(path, rotation));
        let copy = source.copy.map(|(path, rotation)| self.file(path, rotation));
        let look = match source.look {
            SourceLook::Plain { time: None } => StreamLook::Plain,
            SourceLook::Plain { time: Some(time) } => StreamLook::Stamped(self.stamps.number(Some(&time))),
            SourceLook::Json { time, fields } => StreamLook::Json {
                stamp: self.stamps.number(time.as_deref()),
                rest: format!(",{fields}}}\n").into_bytes(),
            },
        };
        let number = self.streams.insert(Stream {
            key: source.key,
            pipe: source.pipe,
            app: source.app,
            file,
            copy,
            look,
            tail: source.tail,
            count: None,
            left: [None, None],
            ended: false,
            closed: false,
            gave: 0,
            rests_until_us: 0,
        });
        let claimed = self.journal.claim(source.key, number);
        if let Some(stream) = self.streams.get_mut(number) {
            stream.left = [claimed.first().copied(), claimed.get(1).copied()];
            if stream.left[0].is_some() {
                self.touched.push(number);
            }
        }
        Some(number)
    }

    /// Called when all streams of the previous master are there again: writes what it left of them. Returns the number
    /// of bytes left of other streams, which are dropped.
    ///
    /// # Errors
    /// As [`Engine::turn`].
    pub(super) fn all_are_there(&mut self, now: Now) -> io::Result<usize> {
        let nobodys = self.journal.drop_unclaimed();
        self.stamps.set(now.wall);
        self.write_touched(now)?;
        Ok(nobodys)
    }

    pub(super) fn pipe(&self, stream: usize) -> Option<&OwnedFd> {
        self.streams.get(stream).map(|stream| &stream.pipe)
    }

    /// The streams that have ended since the last call.
    pub(super) fn take_ended(&mut self) -> impl Iterator<Item = (u64, OwnedFd)> {
        self.ended.drain(..)
    }

    /// Reads these streams, at most [`LOG_READY_MAX`], and writes.
    ///
    /// # Errors
    /// The storage failed: this process cannot continue.
    pub(super) fn turn(&mut self, ready: impl Iterator<Item = usize>, now: Now) -> io::Result<Turned> {
        self.stamps.set(now.wall);
        self.slowest_us = 0;
        let mut turned = Turned::default();
        if !self.journal.has_room(LOG_READY_MAX * LOG_TAKE_BYTES) {
            self.turn_over(now)?;
        }
        for number in ready.take(LOG_READY_MAX) {
            let Some(stream) = self.streams.get_mut(number) else { continue };
            if now.us < stream.rests_until_us {
                turned.resting = true;
                continue;
            }
            match self.journal.take(stream.key, number, stream.pipe.as_fd(), LOG_TAKE_BYTES) {
                Ok(Taken::Piece(piece)) => {
                    let taken = self.journal.rest(piece);
                    stream.gave = taken.len();
                    stream.count.take_if(|count| !line_count::is_wanted(count));
                    if let Some(count) = &stream.count {
                        count.add(taken);
                    }
                    turned.most = turned.most.max(stream.gave);
                    let place = usize::from(stream.left[0].is_some());
                    stream.left[place] = Some(piece);
                }
                Ok(Taken::Nothing) => continue,
                Ok(Taken::End) => (stream.ended, stream.closed) = (true, true),
                Err(e) => {
                    let file = stream.file.and_then(|file| self.files.get(file));
                    let file = file.map_or_else(String::new, |file| format!(" for {}", file.path));
                    log::error!("cannot read a worker's output{file}: {e}; the rest of it is not written");
                    (stream.ended, stream.closed) = (true, true);
                }
            }
            self.touched.push(number);
        }
        self.write_touched(now)?;
        Ok(turned)
    }

    /// Writes unfinished lines.
    ///
    /// # Errors
    /// As [`Engine::turn`].
    pub(super) fn close_lines(&mut self, now: Now) -> io::Result<()> {
        self.stamps.set(now.wall);
        for (number, stream) in self.streams.iter_mut() {
            if stream.left[0].is_some() {
                stream.closed = true;
                self.touched.push(number);
            }
        }
        self.write_touched(now)
    }

    fn write_touched(&mut self, now: Now) -> io::Result<()> {
        let mut touched = std::mem::take(&mut self.touched);
        touched.sort_by_key(|&number| self.targets(number));
        let mut ragged = false;
        let mut at = 0;
        while at < touched.len() {
            let targets = self.targets(touched[at]);
            while at < touched.len() && self.targets(touched[at]) == targets {
                self.render(touched[at], now);
                at += 1;
            }
            self.flush(targets, now);
        }
        for number in touched.drain(..) {
            ragged |= self.sort_out(number, now);
        }
        self.touched = touched;
        if ragged || self.journal.is_used_up() {
            self.turn_over(now)?;
        }
        Ok(())
    }

    /// Renders the whole lines of one stream to `out`; writes in between when there is too much.
    fn render(&mut self, number: usize, now: Now) {
        loop {
            let Some(stream) = self.streams.get_mut(number) else { return };
            // Nobody else holds the tail, so lines need not be found.
            stream.tail.take_if(|tail| Arc::strong_count(tail) == 1);
            let look = match &stream.look {
                _ if stream.file.is_none() => Look::Nothing,
                StreamLook::Plain => Look::Plain,
                StreamLook::Stamped(stamp) => {
                    self.stamps.make(*stamp);
                    Look::Stamped(self.stamps.plain(*stamp))
                }
                StreamLook::Json { stamp, rest } => {
                    self.stamps.make(*stamp);
                    Look::Json { stamp: self.stamps.json(*stamp), rest }
                }
            };
            let rest = |piece: Option<usize>| piece.map_or(&[][..], |piece| self.journal.rest(piece));
            let input = Input { first: rest(stream.left[0]), second: rest(stream.left[1]), closed: stream.closed };
            let first = input.first.len();
            let used = render::fill(&mut self.out, input, look, stream.tail.as_deref(), LOG_WRITE_BYTES);
            if used == 0 {
                return;
            }
            let of_first = used.min(first);
            for (piece, bytes) in stream.left.into_iter().zip([of_first, used - of_first]) {
                if let Some(piece) = piece.filter(|_| bytes > 0) {
                    self.journal.plan(piece, bytes);
                }
            }
            self.parts.push(Part { app: stream.app, end: self.out.len() });
            let targets = (stream.file, stream.copy);
            if self.out.len() >= LOG_WRITE_BYTES || stream.file.is_none() {
                self.flush(targets, now);
            }
        }
    }

    /// The file and the second file of a stream.
    fn targets(&self, number: usize) -> (Option<usize>, Option<usize>) {
        self.streams.get(number).map_or((None, None), |stream| (stream.file, stream.copy))
    }

    /// Writes `out`. With the first file the journal settles: the second one has nothing planned, so that no line can be
    /// in it twice.
    fn flush(&mut self, (file, copy): (Option<usize>, Option<usize>), now: Now) {
        if file.is_none() || self.out.is_empty() {
            self.journal.settle();
        }
        for number in file.into_iter().chain(copy).filter(|_| !self.out.is_empty()) {
            let Some(file) = self.files.get_mut(number) else { continue };
            let before_us = clock::monotonic_us();
            file.append(&mut self.journal, &self.out, &self.parts, now, &self.archive);
            self.slowest_us = self.slowest_us.max(clock::monotonic_us().saturating_sub(before_us));
        }
        self.out.clear();
        self.parts.clear();
    }

    /// After the write: updates the pieces of a stream. Returns whether there are two.
    fn sort_out(&mut self, number: usize, now: Now) -> bool {
        let Some(stream) = self.streams.get_mut(number) else { return false };
        let journal = &self.journal;
        let has_rest = |piece: &usize| !journal.rest(*piece).is_empty();
        let [first, second] = stream.left.map(|piece| piece.filter(has_rest));
        stream.left = if first.is_some() { [first, second] } else { [second, None] };
        let gave = std::mem::take(&mut stream.gave);
        if gave >= LOG_MUCH_BYTES {
            let others = now.us < self.quiet_seen_us + LOG_QUIET_US;
            if self.slowest_us >= LOG_SLOW_WRITE_US && others {
                let rest_us = (self.slowest_us * LOG_REST_FACTOR).min(LOG_REST_US_MAX);
                stream.rests_until_us = clock::monotonic_us() + rest_us;
            }
        } else if gave > 0 {
            self.quiet_seen_us = now.us;
        }
        stream.closed = stream.ended;
        let ragged = stream.left[1].is_some();
        if stream.ended {
            self.end(number);
        }
        ragged
    }

    fn end(&mut self, number: usize) {
        let Some(stream) = self.streams.remove(number) else { return };
        if let Some(tail) = &stream.tail {
            tail.stream_ended();
        }
        for number in stream.file.into_iter().chain(stream.copy) {
            let Some(file) = self.files.get_mut(number) else { continue };
            file.users -= 1;
            if file.users == 0 {
                self.files.remove(number);
            }
        }
        self.ended.push((stream.key, stream.pipe));
    }

    /// Switches to the other spool, with the rests of lines. If they do not fit, the longest are written in pieces.
    fn turn_over(&mut self, now: Now) -> io::Result<()> {
        let mut groups = self.groups();
        let size = |journal: &Journal<G>, parts: &[Option<usize>; 2]| -> usize {
            parts.iter().flatten().map(|piece| journal.rest(*piece).len()).sum()
        };
        let most = LOG_SPOOL_BYTES / 2;
        if groups.iter().map(|(_, parts)| size(&self.journal, parts)).sum::<usize>() > most {
            let each = most / groups.len();
            groups.retain(|(_, parts)| size(&self.journal, parts) > each);
            for (number, _) in groups {
                let Some(stream) = self.streams.get_mut(number) else { continue };
                stream.closed = true;
                self.render(number, now);
                self.flush(self.targets(number), now);
                self.sort_out(number, now);
            }
            groups = self.groups();
        }
        self.journal.turn_over(&groups)?;
        for (piece, (number, _)) in groups.into_iter().enumerate() {
            if let Some(stream) = self.streams.get_mut(number) {
                stream.left = [Some(piece), None];
            }
        }
        Ok(())
    }

    /// Streams with something left, each with its pieces.
    fn groups(&self) -> Vec<(usize, [Option<usize>; 2])> {
        let left = self.journal.left().filter_map(|(piece, owner)| {
            let stream = self.streams.get(owner)?;
            (stream.left[0] == Some(piece)).then_some((owner, stream.left))
        });
        left.collect()
    }

    #[cfg(test)]
    pub(super) fn storage(&self) -> &G {
        self.journal.storage()
    }

    /// The lines of this stream from now on go to `tail` too, while somebody else holds it. Returns whether there is such
    /// a stream.
    pub(super) fn listen(&mut self, key: u64, tail: &Arc<Tail>) -> bool {
        let stream = self.streams.iter_mut().find(|(_, stream)| stream.key == key);
        let found = stream.is_some();
        if let Some((_, stream)) = stream {
            stream.tail = Some(Arc::clone(tail));
        }
        found
    }

    /// The lines of this stream from now on are counted, while somebody else holds `count`. Returns whether there is
    /// such a stream.
    pub(super) fn count(&mut self, key: u64, count: &Arc<LineCount>) -> bool {
        let stream = self.streams.iter_mut().find(|(_, stream)| stream.key == key);
        stream.map(|(_, stream)| stream.count = Some(Arc::clone(count))).is_some()
    }

    /// Called when there will be nothing to do for a while.
    pub(super) fn rest(&mut self) {
        self.journal.shrink();
    }

    /// Reopens every file by its path. Returns how many, and the reasons for those that failed.
    pub(super) fn reopen(&mut self) -> (usize, Vec<String>) {
        let mut failed = Vec::new();
        let mut opened = 0;
        for (_, file) in self.files.iter_mut() {
            match file.reopen() {
                Ok(()) => opened += 1,
                Err(e) => failed.push(format!("{}: {e}", file.path)),
            }
        }
        (opened, failed)
    }

    /// Empties these files.
    pub(super) fn empty(&mut self, paths: &[LogPath]) -> (usize, Vec<String>) {
        let mut failed = Vec::new();
        let mut emptied = 0;
        for path in paths {
            let open = self.files.iter_mut().find(|(_, file)| file.path == *path);
            match open.map_or_else(|| file::empty(path), |(_, file)| file.empty()) {
                Ok(()) => emptied += 1,
                Err(e) => failed.push(format!("{path}: {e}")),
            }
        }
        (emptied, failed)
    }

    /// The number of the file at this path; counts one more user.
    fn file(&mut self, path: LogPath, rotation: Rotation) -> usize {
        let known = self.files.iter_mut().find(|(_, file)| file.path == path).map(|(number, _)| number);
        let number = known.unwrap_or_else(|| self.files.insert(LogFile::new(path, rotation.clone())));
        if let Some(file) = self.files.get_mut(number) {
            file.users += 1;
            // The latest configuration applies.
            file.rotation = rotation;
        }
        number
    }
}

/// Entries by number; numbers are reused.
struct Slots<T> {
    slots: Vec<Option<T>>,
    free: Vec<usize>,
}

impl<T> Default for Slots<T> {
    fn default() -> Slots<T> {
        Slots { slots: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slots<T> {
    fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    fn insert(&mut self, thing: T) -> usize {
        if let Some(number) = self.free.pop() {
            self.slots[number] = Some(thing);
            return number;
        }
        self.slots.push(Some(thing));
        self.slots.len() - 1
    }

    fn remove(&mut self, number: usize) -> Option<T> {
        let thing = self.slots.get_mut(number)?.take()?;
        self.free.push(number);
        Some(thing)
    }

    fn get(&self, number: usize) -> Option<&T> {
        self.slots.get(number)?.as_ref()
    }

    fn get_mut(&mut self, number: usize) -> Option<&mut T> {
        self.slots.get_mut(number)?.as_mut()
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = (usize, &mut T)> {
        self.slots.iter_mut().enumerate().filter_map(|(number, slot)| Some((number, slot.as_mut()?)))
    }
}
