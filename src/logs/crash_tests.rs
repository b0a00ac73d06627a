//! The engine in a process that dies: before each store, take, write and cut, or in the middle of a write. The next
//! engine continues with the same memory, spools, pipes and files, and every line is there exactly once.
#![allow(clippy::unwrap_used)]
use super::engine::{Engine, LOG_TAKE_BYTES, Source, SourceLook};
use super::file::Now;
use super::journal::LOG_SPOOL_BYTES;
use super::path::LogPath;
use super::render::LOG_LINE_BYTES_MAX;
use super::storage::{LiveStorage, Storage, cell};
use crate::config::log::Rotation;
use crate::os::place::Missing;
use crate::os::{pipe, poll};
use jiff::tz::TimeZone;
use std::cell::Cell;
use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The panic of a process that dies.
struct Died;

/// Counts down; at zero the process dies.
#[derive(Clone, Default)]
struct Fuse {
    left: Rc<Cell<u64>>,
    steps: Rc<Cell<u64>>,
}

impl Fuse {
    fn burns_down(&self) -> bool {
        self.steps.set(self.steps.get() + 1);
        self.left.set(self.left.get().saturating_sub(1));
        self.left.get() == 0
    }

    fn step(&self) {
        if self.burns_down() {
            // Suppresses the panic message.
            resume_unwind(Box::new(Died));
        }
    }
}

/// A real storage, on which the process may die at every step.
struct Frail {
    live: LiveStorage,
    fuse: Fuse,
    random: Random,
    /// Free space of the disk, in bytes.
    room: Rc<Cell<usize>>,
}

impl Storage for Frail {
    fn load(&self, cell: usize) -> u64 {
        self.live.load(cell)
    }

    fn store(&mut self, cell: usize, value: u64) {
        self.fuse.step();
        self.live.store(cell, value);
    }

    fn position(&self, spool: usize) -> io::Result<u64> {
        self.live.position(spool)
    }

    fn seek(&mut self, spool: usize, to: u64) -> io::Result<()> {
        self.fuse.step();
        self.live.seek(spool, to)
    }

    fn take(&mut self, spool: usize, pipe: BorrowedFd<'_>, bytes_max: usize) -> io::Result<Option<usize>> {
        self.fuse.step();
        self.live.take(spool, pipe, bytes_max)
    }

    fn bytes(&self, spool: usize) -> &[u8] {
        self.live.bytes(spool)
    }

    fn copy(&mut self, from: usize, piece: Range<usize>, at: usize) {
        self.fuse.step();
        self.live.copy(from, piece, at);
    }

    fn release(&mut self, spool: usize, from: usize) {
        self.live.release(spool, from);
    }

    fn write(&mut self, file: &File, bytes: &[u8]) -> io::Result<usize> {
        // SIGKILL ends a long write in the middle, and a write may be short.
        let part = &bytes[..self.random.below(bytes.len() + 1)];
        if self.fuse.burns_down() {
            self.live.write(file, part)?;
            resume_unwind(Box::new(Died));
        }
        let part = if part.is_empty() { bytes } else { part };
        let room = self.room.get();
        if room == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.room.set(room - part.len().min(room));
        self.live.write(file, &part[..part.len().min(room)])
    }

    fn cut(&mut self, file: &File, length: u64) -> io::Result<()> {
        self.fuse.step();
        self.live.cut(file, length)
    }
}

#[derive(Clone)]
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

/// A worker's stream, with the lines that it still has to print.
struct Printer {
    read: OwnedFd,
    write: Option<File>,
    text: Vec<u8>,
    at: usize,
}

/// Two workers with one file and a third one with its own; their pipes, and what outlives a process.
struct World {
    folder: PathBuf,
    printers: Vec<Printer>,
    held: [OwnedFd; 3],
    fuse: Fuse,
    random: Random,
    rotation: Rotation,
}

const STREAMS: usize = 3;
/// A writable pipe takes this many bytes without blocking.
const PIPE_BUF: usize = 4096;

impl World {
    fn new(seed: u64, lines: usize, line_bytes: usize, max_size: Option<u64>) -> World {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("clusterd-crash-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let mut random = Random(seed * 2 + 1);
        let printers = (0..STREAMS)
            .map(|stream| {
                let (read, write) = pipe::pair().unwrap();
                let mut text = Vec::new();
                for n in 0..lines {
                    let filler = "x".repeat(random.below(line_bytes));
                    writeln!(text, "{stream} {n} {filler}").unwrap();
                }
                // The last line has no newline: its worker dies in the middle of it.
                text.pop();
                Printer { read, write: Some(write.into()), text, at: 0 }
            })
            .collect();
        let live = LiveStorage::new().unwrap();
        let held = live.fds().map(|fd| fd.try_clone_to_owned().unwrap());
        let rotation = Rotation { max_size, max_age: None, keep: 1000, compress: false };
        World { folder, printers, held, fuse: Fuse::default(), random, rotation }
    }

    /// A new process.
    fn engine(&mut self) -> Engine<Frail> {
        let live = LiveStorage::adopt(self.held.each_ref().map(|fd| fd.try_clone().unwrap())).unwrap();
        let random = Random(self.random.below(usize::MAX) as u64 | 1);
        let storage = Frail { live, fuse: self.fuse.clone(), random, room: Rc::new(Cell::new(usize::MAX)) };
        let mut engine = Engine::new(storage, TimeZone::UTC).unwrap();
        for (stream, printer) in self.printers.iter().enumerate() {
            let name = if stream == 2 { "own.log" } else { "shared.log" };
            let look = SourceLook::Plain { time: (stream == 1).then(|| "%%".to_owned()) };
            let source = Source {
                key: stream as u64,
                pipe: printer.read.try_clone().unwrap(),
                app: stream,
                file: Some((LogPath::own(self.folder.join(name)), self.rotation.clone())),
                copy: (stream == 2).then(|| (LogPath::own(self.folder.join("copy.log")), self.rotation.clone())),
                look,
                tail: None,
            };
            assert_eq!(engine.add(source), Some(stream));
        }
        assert_eq!(engine.all_are_there(Now::read()).unwrap(), 0);
        engine
    }

    /// Prints some more.
    fn print(&mut self) {
        for printer in &mut self.printers {
            for _ in 0..self.random.below(6) {
                let left = printer.text.len() - printer.at;
                let Some(write) = printer.write.as_mut().filter(|write| poll::writable_now(write.as_fd())) else {
                    break;
                };
                let bytes = self.random.below(PIPE_BUF).min(left);
                write.write_all(&printer.text[printer.at..printer.at + bytes]).unwrap();
                printer.at += bytes;
                if printer.at == printer.text.len() {
                    printer.write = None;
                }
            }
        }
    }

    /// Runs processes one after the other until one reaches the end; returns how many died.
    fn run(&mut self, mut steps_of_next: impl FnMut(&mut Random) -> u64) -> u32 {
        let mut deaths = 0;
        loop {
            self.fuse.left.set(steps_of_next(&mut self.random));
            let world = AssertUnwindSafe(&mut *self);
            let lived = catch_unwind(move || {
                let world = world;
                let mut engine = world.0.engine();
                let mut ended = 0;
                while ended < STREAMS {
                    world.0.print();
                    let ready: Vec<usize> = (0..STREAMS).filter(|&n| engine.pipe(n).is_some()).collect();
                    engine.turn(ready.into_iter(), Now::read()).unwrap();
                    ended += engine.take_ended().count();
                }
            });
            match lived {
                Ok(()) => return deaths,
                Err(death) if death.is::<Died>() => deaths += 1,
                Err(panic) => resume_unwind(panic),
            }
        }
    }

    /// Asserts that every line is there once, whole, in the order of its stream, in its file.
    fn check(&self, deaths: u32) {
        let text = |name: &str| {
            let path = self.folder.join(name);
            let mut all = String::new();
            let log = LogPath::own(path.clone());
            for (name, _) in log.within(Missing::Fail, super::archive::list).unwrap() {
                all += &fs::read_to_string(self.folder.join(name)).unwrap();
            }
            all + &fs::read_to_string(path).unwrap()
        };
        let (shared, own) = (text("shared.log"), text("own.log"));
        for (stream, printer) in self.printers.iter().enumerate() {
            let (file, start) = [(&shared, "0 "), (&shared, "%: 1 "), (&own, "2 ")][stream];
            let stamp = start.len() - 2;
            let got: Vec<&str> =
                file.lines().filter(|line| line.starts_with(start)).map(|line| &line[stamp..]).collect();
            let wanted = String::from_utf8(printer.text.clone()).unwrap();
            let wanted: Vec<&str> = wanted.lines().collect();
            assert!(got == wanted, "stream {stream}: {} lines of {}", got.len(), wanted.len());
        }
        let lines: usize = self.printers.iter().map(|p| p.text.iter().filter(|b| **b == b'\n').count() + 1).sum();
        assert_eq!(shared.lines().count() + own.lines().count(), lines);
        assert!(shared.ends_with('\n') && own.ends_with('\n'));
        // Of a second file a death may cost lines, and no more: what is there is whole, in order, and there once.
        let copy = text("copy.log");
        let mut first = own.lines();
        assert!(copy.lines().all(|line| first.any(|other| other == line)), "a line that the first file has not");
        assert!(copy.ends_with('\n') || copy.is_empty());
        assert!(deaths > 0 || copy == own, "lines that are missing although nobody died");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn a_death_before_any_step_loses_and_repeats_no_line() {
    let mut whole = World::new(7, 40, 100, None);
    assert_eq!(whole.run(|_| u64::MAX), 0);
    whole.check(0);
    let steps = whole.fuse.steps.get();
    assert!(steps > 100, "{steps} steps");
    for step in 1..=steps {
        let mut world = World::new(7, 40, 100, None);
        let mut first = Some(step);
        assert_eq!(world.run(|_| first.take().unwrap_or(u64::MAX)), 1, "step {step} of {steps}");
        world.check(1);
    }
}

#[test]
fn many_deaths_one_after_the_other_lose_and_repeat_no_line() {
    for seed in 1..=24 {
        // Long lines, so that the spools fill up and are switched; in every second run files are rotated.
        let mut world = World::new(seed, 400, 3000, (seed % 2 == 0).then_some(100_000));
        let mut deaths = 0;
        let died = world.run(|random| {
            deaths += 1;
            if deaths > 60 { u64::MAX } else { 1 + random.below(150) as u64 }
        });
        assert!(died > 20, "{died} deaths");
        world.check(died);
    }
}

#[test]
fn a_disk_that_gets_full_in_the_middle_of_a_write_keeps_whole_lines() {
    let path = std::env::temp_dir().join(format!("clusterd-disk-{}.log", std::process::id()));
    let _ = fs::remove_file(&path);
    let room = Rc::new(Cell::new(usize::MAX));
    let fuse = Fuse::default();
    fuse.left.set(u64::MAX);
    let storage = Frail { live: LiveStorage::new().unwrap(), fuse, random: Random(5), room: Rc::clone(&room) };
    let mut engine = Engine::new(storage, TimeZone::UTC).unwrap();
    let (pipe, write) = pipe::pair().unwrap();
    let mut write = File::from(write);
    let rotation = Rotation { max_size: None, max_age: None, keep: 1, compress: false };
    let file = Some((LogPath::own(path.clone()), rotation));
    engine.add(Source { key: 1, pipe, app: 9, file, copy: None, look: SourceLook::Plain { time: None }, tail: None });
    for (space, text) in [(usize::MAX, "1\n"), (7, "two\nthree\nfour\n"), (0, "five\n"), (usize::MAX, "six\n")] {
        room.set(space);
        write.write_all(text.as_bytes()).unwrap();
        engine.turn(0..1, Now::read()).unwrap();
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), "1\ntwo\nsix\n");
    assert_eq!(engine.storage().load(cell::LOST + 9), 3);
    fs::remove_file(path).unwrap();
}

#[test]
fn what_a_full_device_does_not_take_is_counted_for_its_app() {
    let mut engine = Engine::new(LiveStorage::new().unwrap(), TimeZone::UTC).unwrap();
    let rotation = Rotation { max_size: Some(10), max_age: None, keep: 1, compress: false };
    let mut writers = Vec::new();
    for (app, text) in [(3, "a\nb\nc"), (5, "d\n")] {
        let (pipe, write) = pipe::pair().unwrap();
        let mut write = File::from(write);
        write.write_all(text.as_bytes()).unwrap();
        writers.push(write);
        let file = Some((LogPath::own(PathBuf::from("/dev/full")), rotation.clone()));
        engine.add(Source {
            key: app as u64,
            pipe,
            app,
            file,
            copy: None,
            look: SourceLook::Plain { time: None },
            tail: None,
        });
    }
    engine.turn(0..2, Now::read()).unwrap();
    let lost = |engine: &Engine<LiveStorage>, app: usize| engine.storage().load(cell::LOST + app);
    assert_eq!((lost(&engine, 3), lost(&engine, 5), lost(&engine, 0)), (2, 1, 0));
    writers.clear();
    engine.turn(0..2, Now::read()).unwrap();
    assert_eq!(lost(&engine, 3), 3, "a line without its newline is one");
    assert_eq!(engine.take_ended().count(), 2);
}

#[test]
fn lines_that_never_end_are_written_in_pieces_before_they_fill_the_spool() {
    let folder = std::env::temp_dir().join(format!("clusterd-endless-{}", std::process::id()));
    let mut engine = Engine::new(LiveStorage::new().unwrap(), TimeZone::UTC).unwrap();
    let rotation = Rotation { max_size: None, max_age: None, keep: 1, compress: false };
    // Each holds less than the longest line, all of them together more than a spool.
    let streams = 2 * LOG_SPOOL_BYTES / LOG_LINE_BYTES_MAX;
    let mut writers = Vec::new();
    for n in 0..streams {
        let (pipe, write) = pipe::pair().unwrap();
        writers.push(File::from(write));
        let file = Some((LogPath::own(folder.join("log")), rotation.clone()));
        engine.add(Source {
            key: n as u64,
            pipe,
            app: 0,
            file,
            copy: None,
            look: SourceLook::Plain { time: None },
            tail: None,
        });
    }
    let rounds = LOG_LINE_BYTES_MAX / LOG_TAKE_BYTES - 1;
    for _ in 0..rounds {
        for write in &mut writers {
            write.write_all(&[b'x'; LOG_TAKE_BYTES]).unwrap();
        }
        engine.turn(0..streams, Now::read()).unwrap();
    }
    writers.clear();
    engine.turn(0..streams, Now::read()).unwrap();
    let text = fs::read_to_string(folder.join("log")).unwrap();
    assert_eq!(text.bytes().filter(|b| *b == b'x').count(), streams * rounds * LOG_TAKE_BYTES);
    assert!(text.lines().count() >= streams);
    fs::remove_dir_all(folder).unwrap();
}
