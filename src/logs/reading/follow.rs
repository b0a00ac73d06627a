//! Reads a log file that is being written: its last lines, then new ones, across rotation, truncation and replacement.
use super::super::lines::Lines;
use super::super::path::LogPath;
use super::super::rotation::Kind;
use super::archive;
use crate::logs::pump::OUTPUT_READ_BYTES;
use crate::os::place::{Missing, Place};
use flate2::read::GzDecoder;
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::SystemTime;

/// How much of a log file is read for its last lines, in bytes.
const LOGS_READ_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Longest line that is shown whole, in bytes; a longer one is shown in pieces. JSON may use six bytes for one.
const LOGS_LINE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Further checks of a file that was renamed: its writer may not know yet.
const LOGS_FORMER_LOOKS: u32 = 50;

/// Bytes before the position that are remembered, to notice that a file was emptied and filled again.
const LOGS_REMEMBERED_BYTES: u64 = 256;

/// A file and the position in it.
pub(super) struct Follow {
    path: LogPath,
    open: Option<Open>,
    /// The previous file: its writer may not have noticed the rename yet.
    previous: Option<Previous>,
    /// The newest known rotated file.
    newest_aside: Option<OsString>,
}

struct Open {
    file: File,
    identity: (u64, u64),
    at: u64,
    /// The bytes before that position: if they differ, the file was emptied and filled again.
    before: Vec<u8>,
    /// The unfinished line.
    lines: Lines,
}

struct Previous {
    open: Open,
    looks_left: u32,
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// The name of a rotated file without the ending of compression.
fn aside_name(name: &OsStr) -> OsString {
    let path = Path::new(name);
    if path.extension().is_some_and(|ending| ending == "gz") { path.with_extension("").into() } else { name.to_owned() }
}

impl Follow {
    /// Starts at the current end of the file, if it exists.
    pub(super) fn new(path: LogPath) -> Follow {
        let newest_aside = asides(&path).pop().map(|(name, _)| aside_name(&name));
        let mut follow = Follow { path, open: None, previous: None, newest_aside };
        if let Some(open) = follow.open_now() {
            let at = open.file.metadata().map_or(0, |metadata| metadata.len());
            let before = open.before(at).unwrap_or_default();
            follow.open = Some(Open { at, before, ..open });
        }
        follow
    }

    pub(super) fn path(&self) -> &LogPath {
        &self.path
    }

    /// Starts at the beginning of a file that is newer than `began`, else at its current end.
    pub(super) fn since(path: LogPath, began: SystemTime) -> Follow {
        let mut follow = Follow::new(path);
        if let Some(open) = &mut follow.open
            && open.file.metadata().and_then(|metadata| metadata.created()).is_ok_and(|created| created >= began)
        {
            (open.at, open.before) = (0, Vec::new());
        }
        follow
    }

    fn open_now(&self) -> Option<Open> {
        let file = self.path.within(Missing::Fail, |place| place.read_regular(place.name())).ok()?;
        let metadata = file.metadata().ok().filter(Metadata::is_file)?;
        Some(Open { file, identity: identity(&metadata), at: 0, before: Vec::new(), lines: new_lines() })
    }

    /// The last lines before the position, oldest first, and when the file was last written.
    pub(super) fn last_lines(&self, count: usize) -> (Vec<Vec<u8>>, Option<SystemTime>) {
        let Some(open) = &self.open else { return (Vec::new(), None) };
        let (mut lines, mut whole) = tail_of(&open.file, open.at, count).unwrap_or_default();
        for (name, kind) in asides(&self.path).into_iter().rev() {
            if lines.len() >= count || !whole {
                break;
            }
            // Show the others even if one cannot be read.
            let Ok((mut all, all_of_it)) = last_of_aside(&self.path, &name, kind, count - lines.len()) else {
                continue;
            };
            all.append(&mut lines);
            (lines, whole) = (all, all_of_it);
        }
        (lines, open.file.metadata().ok().and_then(|metadata| metadata.modified().ok()))
    }

    /// Every whole line since the last call.
    pub(super) fn look(&mut self, out: &mut dyn FnMut(&[u8])) {
        if let Some(previous) = &mut self.previous {
            previous.open.read(out);
            previous.looks_left -= 1;
            if previous.looks_left == 0 {
                previous.open.lines.finish(&mut *out);
                self.previous = None;
            }
        }
        let named = self.path.within(Missing::Fail, Place::identity).ok();
        if let Some(open) = &mut self.open {
            open.read(out);
            if named.is_none_or(|named| named == open.identity) {
                return;
            }
        }
        let Some(new) = self.open_now() else { return };
        self.catch_up(out);
        if let Some(open) = self.open.replace(new) {
            self.previous = Some(Previous { open, looks_left: LOGS_FORMER_LOOKS });
        }
        if let Some(open) = &mut self.open {
            open.read(out);
        }
    }

    /// Reads files that were created and rotated since the last call.
    fn catch_up(&mut self, out: &mut dyn FnMut(&[u8])) {
        let asides = asides(&self.path);
        let known = self.newest_aside.take();
        let new = asides.iter().filter(|(name, _)| known.as_ref().is_none_or(|known| aside_name(name) > *known));
        // The first of them is the open one, which is read already.
        let missed: Vec<_> = new.skip(usize::from(self.open.is_some())).cloned().collect();
        self.newest_aside = asides.last().map(|(name, _)| aside_name(name)).or(known);
        for (name, kind) in missed {
            // Continue even if one cannot be read.
            let _ = read_aside(&self.path, &name, kind, out);
        }
    }
}

impl Open {
    fn read(&mut self, out: &mut dyn FnMut(&[u8])) {
        match self.file.metadata().map(|metadata| metadata.len()) {
            Ok(length) if length >= self.at && self.before(self.at).is_ok_and(|before| before == self.before) => {}
            // It was emptied since.
            Ok(_) => (self.at, self.lines) = (0, new_lines()),
            Err(_) => return,
        }
        let mut buffer = vec![0; OUTPUT_READ_BYTES];
        while let Ok(n @ 1..) = self.file.read_at(&mut buffer, self.at) {
            self.at += n as u64;
            self.lines.push(&buffer[..n], &mut *out);
        }
        self.before = self.before(self.at).unwrap_or_default();
    }

    /// Some bytes before this position.
    fn before(&self, at: u64) -> io::Result<Vec<u8>> {
        let count = at.min(LOGS_REMEMBERED_BYTES);
        let mut bytes = vec![0; count as usize];
        self.file.read_exact_at(&mut bytes, at - count)?;
        Ok(bytes)
    }
}

/// The names of the rotated files, oldest first, without duplicates.
fn asides(path: &LogPath) -> Vec<(OsString, Kind)> {
    let mut found = path.within(Missing::Fail, archive::list).unwrap_or_default();
    found.retain(|(_, kind)| *kind != Kind::Unfinished);
    found.dedup_by(|later, earlier| aside_name(&later.0) == earlier.0);
    found
}

fn new_lines() -> Lines {
    Lines::bounded(LOGS_LINE_BYTES_MAX)
}

fn open_aside(path: &LogPath, name: &OsStr) -> io::Result<File> {
    let name = name.to_owned();
    path.within(Missing::Fail, move |place| place.read_regular(&name))
}

/// Every line of a rotated file.
fn read_aside(path: &LogPath, name: &OsStr, kind: Kind, out: &mut dyn FnMut(&[u8])) -> io::Result<()> {
    let file = open_aside(path, name)?;
    let mut from: Box<dyn Read> = match kind {
        Kind::Compressed => Box::new(GzDecoder::new(file)),
        Kind::Rotated | Kind::Unfinished => Box::new(file),
    };
    let mut lines = new_lines();
    let mut buffer = vec![0; OUTPUT_READ_BYTES];
    loop {
        match from.read(&mut buffer)? {
            0 => break,
            n => lines.push(&buffer[..n], &mut *out),
        }
    }
    lines.finish(out);
    Ok(())
}

/// Its last lines, and whether these are all of them.
fn last_of_aside(path: &LogPath, name: &OsStr, kind: Kind, count: usize) -> io::Result<(Vec<Vec<u8>>, bool)> {
    if kind != Kind::Compressed {
        let file = open_aside(path, name)?;
        return tail_of(&file, file.metadata()?.len(), count);
    }
    let mut last: VecDeque<Vec<u8>> = VecDeque::new();
    let (mut bytes, mut whole) = (0, true);
    read_aside(path, name, kind, &mut |line| {
        bytes += line.len() as u64;
        last.push_back(line.to_vec());
        while last.len() > count || bytes > LOGS_READ_BYTES_MAX {
            whole = false;
            bytes -= last.pop_front().map_or(bytes, |line| line.len() as u64);
        }
    })?;
    Ok((last.into(), whole))
}

fn split(text: &[u8]) -> Vec<Vec<u8>> {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    if text.is_empty() {
        return Vec::new();
    }
    text.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
}

/// The last lines before `end`, and whether these are all of them.
fn tail_of(file: &File, end: u64, count: usize) -> io::Result<(Vec<Vec<u8>>, bool)> {
    let mut blocks: Vec<Vec<u8>> = Vec::new();
    let (mut start, mut newlines) = (end, 0);
    // One newline more than lines: the one before the first line.
    while start > 0 && newlines <= count && end - start < LOGS_READ_BYTES_MAX {
        let bytes = start.min(OUTPUT_READ_BYTES as u64);
        start -= bytes;
        let mut block = vec![0; bytes as usize];
        file.read_exact_at(&mut block, start)?;
        newlines += memchr::memchr_iter(b'\n', &block).count();
        blocks.push(block);
    }
    blocks.reverse();
    let mut lines = split(&blocks.concat());
    let whole = start == 0 && lines.len() <= count;
    lines.drain(..lines.len().saturating_sub(count));
    Ok((lines, whole))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write;
    use std::path::PathBuf;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("clusterd-follow-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Folder(path)
        }

        fn append(&self, name: &str, text: &str) {
            let file = File::options().append(true).create(true).open(self.0.join(name));
            file.unwrap().write_all(text.as_bytes()).unwrap();
        }

        fn rename(&self, from: &str, to: &str) {
            fs::rename(self.0.join(from), self.0.join(to)).unwrap();
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn news(follow: &mut Follow) -> Vec<String> {
        let mut got = Vec::new();
        follow.look(&mut |line| got.push(String::from_utf8(line.to_vec()).unwrap()));
        got
    }

    fn text(lines: Vec<Vec<u8>>) -> Vec<String> {
        lines.into_iter().map(|line| String::from_utf8(line).unwrap()).collect()
    }

    #[test]
    fn the_last_lines_reach_back_into_files_that_were_moved_aside() {
        let folder = Folder::new("last");
        folder.append("web-20260101T000000.000Z.log", "1\n2\n");
        let packed = File::create(folder.0.join("web-20260101T000000.000Z.log.gz")).unwrap();
        let mut packed = flate2::write::GzEncoder::new(packed, flate2::Compression::fast());
        packed.write_all(b"1\n2\n").unwrap();
        packed.finish().unwrap();
        folder.append("web-20260102T000000.000Z.log", "3\n");
        folder.append("web.log", "\n5\n");
        let follow = Follow::new(LogPath::own(folder.0.join("web.log")));
        assert_eq!(text(follow.last_lines(1).0), ["5"]);
        assert_eq!(text(follow.last_lines(4).0), ["2", "3", "", "5"]);
        assert_eq!(text(follow.last_lines(100).0), ["1", "2", "3", "", "5"]);
        folder.append("long.log", &format!("{}\nb\n", "a".repeat(200_000)));
        assert_eq!(text(Follow::new(LogPath::own(folder.0.join("long.log"))).last_lines(2).0)[0].len(), 200_000);
    }

    #[test]
    fn what_comes_is_seen_once_whatever_becomes_of_the_file() {
        let folder = Folder::new("comes");
        folder.append("web.log", "old\n");
        let mut follow = Follow::new(LogPath::own(folder.0.join("web.log")));
        assert!(news(&mut follow).is_empty());
        folder.append("web.log", "a\nb");
        assert_eq!(news(&mut follow), ["a"]);
        folder.append("web.log", "b\n");
        assert_eq!(news(&mut follow), ["bb"]);
        // Rotated twice between two calls.
        folder.append("web.log", "c\n");
        folder.rename("web.log", "web-20260101T000000.000Z.log");
        folder.append("web.log", "d\n");
        folder.rename("web.log", "web-20260101T000000.001Z.log");
        folder.append("web.log", "e\n");
        assert_eq!(news(&mut follow), ["c", "d", "e"]);
        // Renamed by somebody else; the writer continues for a while.
        folder.rename("web.log", "web.log.1");
        assert!(news(&mut follow).is_empty());
        folder.append("web.log.1", "f\n");
        assert_eq!(news(&mut follow), ["f"]);
        folder.append("web.log", "");
        assert!(news(&mut follow).is_empty());
        folder.append("web.log.1", "g\n");
        assert_eq!(news(&mut follow), ["g"]);
        folder.append("web.log", "h\n");
        assert_eq!(news(&mut follow), ["h"]);
        // Emptied.
        File::create(folder.0.join("web.log")).unwrap();
        assert!(news(&mut follow).is_empty());
        folder.append("web.log", "i\n");
        assert_eq!(news(&mut follow), ["i"]);
        // Emptied, and longer than before at the next call.
        File::create(folder.0.join("web.log")).unwrap();
        folder.append("web.log", "j\nk\n");
        assert_eq!(news(&mut follow), ["j", "k"]);
    }
}
