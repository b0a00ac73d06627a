//! The live log: the last lines of some files, and then whatever is written to them; also when they are rotated.
use super::model::TOP_LOG_LINES_MAX;
use crate::api::types::{App, Log, LogFormat};
use crate::config::log::slot_path;
use crate::home::Home;
use std::collections::{BTreeSet, VecDeque};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, SystemTime};

/// Log files of an app that it follows.
const TOP_LOG_FILES_MAX: usize = 64;

/// How much of a log it reads at once, in bytes; of what grows faster the rest is left out.
const TOP_LOG_READ_BYTES: u64 = 64 * 1024;

/// How often it looks whether a log has grown, in milliseconds.
const TOP_LOG_LOOK_MS: u64 = 250;

/// Whose words a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Voice {
    Out,
    Err,
    /// clusterd's own.
    Clusterd,
}

/// A file that is to be followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) voice: Voice,
    /// Its lines are JSON, of which the message counts.
    json: bool,
}

/// The log files of an app: its workers' and, of a deployment in the background, what clusterd itself said. In the
/// foreground that goes to a terminal. `app`: as its master shows it; it is not known of an app that is gone.
pub(super) fn sources(home: &Home, deployment: &str, background: bool, app: Option<&App>) -> Vec<Source> {
    let mut all = Vec::new();
    if let Some(app) = app {
        let slots: BTreeSet<u32> = app.workers.iter().map(|worker| worker.slot).collect();
        let Log { out, err, both, .. } = &app.log;
        // A stream that is in the file of both alone: that file has each line of the other one too.
        let typed = match both.is_some() && (out == both || err == both) {
            true => [(Voice::Out, both), (Voice::Err, both)],
            false => [(Voice::Out, out), (Voice::Err, err)],
        };
        for (voice, typed) in typed {
            let Some(path) = typed.as_ref().filter(|path| *path != "NULL").map(PathBuf::from) else { continue };
            let paths = match app.log.per_worker {
                true => slots.iter().map(|&slot| slot_path(&path, slot)).collect(),
                false => vec![path],
            };
            let json = app.log.format == LogFormat::Json;
            all.extend(paths.into_iter().map(|path| Source { path, voice, json }));
        }
        // One file for both says nothing of which line is whose.
        let mut seen = BTreeSet::new();
        all.retain(|source: &Source| seen.insert(source.path.clone()));
    }
    if background && let Ok(path) = home.log_path(deployment) {
        all.push(Source { path, voice: Voice::Clusterd, json: false });
    }
    all.truncate(TOP_LOG_FILES_MAX);
    all
}

/// What a line of JSON says; the line itself where it is none.
fn message(line: &str) -> String {
    #[derive(serde::Deserialize)]
    struct Fields {
        message: String,
    }
    serde_json::from_str::<Fields>(line).map_or_else(|_| line.to_owned(), |fields| fields.message)
}

/// Lines with the voice of their file; `true`: of other files than before.
pub(super) type Lines = (Vec<(Voice, String)>, bool);

/// Follows the files that were asked for last, until nobody asks or listens any more.
pub(super) fn follow(wanted: &Receiver<Vec<Source>>, tell: impl Fn(Lines) -> bool) {
    let mut files: Vec<Followed> = Vec::new();
    loop {
        let is_new_log = match wanted.recv_timeout(Duration::from_millis(TOP_LOG_LOOK_MS)) {
            Ok(paths) => {
                // Whoever moves through the table is only interested in where that ends.
                let paths = wanted.try_iter().last().unwrap_or(paths);
                // The one that was written last is read last: its lines stand at the end.
                let mut paths: Vec<(Option<SystemTime>, Source)> =
                    paths.into_iter().map(|source| (written(&source.path), source)).collect();
                paths.sort_by_key(|(written, _)| *written);
                files = paths.into_iter().map(|(_, source)| Followed::new(source)).collect();
                true
            }
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let mut lines = Vec::new();
        for file in &mut files {
            let voice = file.source.voice;
            lines.extend(file.more().into_iter().map(|line| (voice, line)));
        }
        if (is_new_log || !lines.is_empty()) && !tell((lines, is_new_log)) {
            return;
        }
    }
}

struct Followed {
    source: Source,
    /// The open file, and its inode.
    file: Option<(File, u64)>,
    /// Where it was read to.
    at: u64,
    /// A line that has no end yet.
    rest: Vec<u8>,
}

impl Followed {
    fn new(source: Source) -> Followed {
        Followed { source, file: None, at: 0, rest: Vec::new() }
    }

    /// The lines that are new; of a file that is met for the first time, the last ones.
    fn more(&mut self) -> Vec<String> {
        let mut lines = VecDeque::new();
        if self.file.is_none() {
            self.open();
        }
        self.read(&mut lines);
        // Rotated: what came before the new file is read by now.
        let present = inode(&self.source.path);
        if present.is_some() && present != self.file.as_ref().map(|(_, inode)| *inode) {
            self.open();
            self.read(&mut lines);
        }
        lines.into()
    }

    fn open(&mut self) {
        self.at = 0;
        self.rest.clear();
        let opened = File::open(&self.source.path).and_then(|file| file.metadata().map(|found| (file, found.ino())));
        // It may come into being later.
        self.file = opened.ok();
    }

    fn read(&mut self, lines: &mut VecDeque<String>) {
        let Some((file, _)) = &mut self.file else { return };
        let length = file.metadata().map_or(0, |found| found.len());
        if length < self.at {
            // Cut off, and written from the start.
            (self.at, self.rest) = (0, Vec::new());
        }
        // What was written too fast to be read by anybody is left out.
        let from = self.at.max(length.saturating_sub(TOP_LOG_READ_BYTES));
        let skipped = from > self.at;
        let mut bytes = Vec::new();
        let read = file.seek(SeekFrom::Start(from)).and_then(|_| file.take(TOP_LOG_READ_BYTES).read_to_end(&mut bytes));
        if read.is_err() {
            return;
        }
        self.at = from + bytes.len() as u64;
        if skipped {
            self.rest.clear();
            let whole = bytes.iter().position(|&b| b == b'\n').map_or(bytes.len(), |end| end + 1);
            bytes.drain(..whole);
        }
        self.rest.extend(bytes);
        let Some(end) = self.rest.iter().rposition(|&b| b == b'\n') else {
            self.rest.truncate(TOP_LOG_READ_BYTES as usize);
            return;
        };
        let whole: Vec<u8> = self.rest.drain(..=end).collect();
        for line in whole[..end].split(|&b| b == b'\n') {
            let line = String::from_utf8_lossy(line);
            lines.push_back(printable(&if self.source.json { message(&line) } else { line.into_owned() }));
            if lines.len() > TOP_LOG_LINES_MAX {
                lines.pop_front();
            }
        }
    }
}

fn written(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|found| found.modified()).ok()
}

fn inode(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|found| found.ino())
}

/// A line without what would move the cursor: escape sequences are left out, tabs become spaces.
pub(super) fn printable(line: &str) -> String {
    let mut shown = String::with_capacity(line.len());
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\x1b' => match chars.next() {
                // CSI: parameters, then one final letter.
                Some('[') => while chars.next().is_some_and(|c| !('@'..='~').contains(&c)) {},
                // OSC: up to BEL or ESC \.
                Some(']') => while chars.next().is_some_and(|c| c != '\x07' && c != '\\') {},
                Some(_) | None => {}
            },
            '\t' => shown.push_str("    "),
            c if c.is_control() => {}
            c => shown.push(c),
        }
    }
    shown
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::api::types::Log;
    use crate::cli::samples;
    use std::io::Write;

    fn plain(path: &Path) -> Source {
        Source { path: path.to_owned(), voice: Voice::Out, json: false }
    }

    #[test]
    fn the_files_of_an_app_are_what_its_master_says() {
        let home = Home::find(Some(&std::env::temp_dir().join("clusterd-top-sources"))).unwrap();
        let log =
            Log { out: Some("/l/web-out.log".to_owned()), err: Some("/l/web-err.log".to_owned()), ..Log::default() };
        let app = App { log: log.clone(), ..samples::app("web", vec![samples::worker(0), samples::worker(1)]) };
        let names = |background, app: Option<&App>| {
            let all = sources(&home, "web", background, app);
            all.iter().map(|s| s.path.file_name().unwrap().to_string_lossy().into_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(true, Some(&app)), ["web-out.log", "web-err.log", "web.clusterd.log"]);
        assert_eq!(names(false, Some(&app)), ["web-out.log", "web-err.log"]);
        assert_eq!(names(true, None), ["web.clusterd.log"], "of what is gone");
        let with = |log| App { log, ..app.clone() };
        let own = with(Log { per_worker: true, err: Some("NULL".to_owned()), ..log.clone() });
        assert_eq!(names(false, Some(&own)), ["web-out-0.log", "web-out-1.log"]);
        let third = Some("/l/web.log".to_owned());
        let all = with(Log { both: third.clone(), ..log.clone() });
        assert_eq!(names(false, Some(&all)), ["web-out.log", "web-err.log"]);
        let all = with(Log { both: third.clone(), err: third, ..log.clone() });
        assert_eq!(names(false, Some(&all)), ["web.log"], "it has the lines of web-out.log too");
        let both = with(Log { err: log.out.clone(), ..log });
        assert_eq!(names(false, Some(&both)), ["web-out.log"]);
        let both = with(Log { per_worker: true, ..both.log });
        assert_eq!(names(false, Some(&both)), ["web-out-0.log", "web-out-1.log"]);
        assert!(names(false, Some(&with(Log::default()))).is_empty());
        fs::remove_dir_all(home.path()).unwrap();
    }

    #[test]
    fn of_lines_of_json_the_message_is_shown() {
        let path = std::env::temp_dir().join(format!("clusterd-follow-json-{}", std::process::id()));
        fs::write(&path, "{\"message\":\"GET /\",\"slot\":1}\nnot json\n").unwrap();
        assert_eq!(Followed::new(Source { json: true, ..plain(&path) }).more(), ["GET /", "not json"]);
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_log_is_followed_through_a_rotation_and_a_cut() {
        let folder = std::env::temp_dir().join(format!("clusterd-follow-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("a.log");
        let mut followed = Followed::new(plain(&path));
        assert!(followed.more().is_empty(), "it is not there yet");
        fs::write(&path, "one\ntwo\nthr").unwrap();
        assert_eq!(followed.more(), ["one", "two"]);
        let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"ee\nfour\n").unwrap();
        assert_eq!(followed.more(), ["three", "four"]);
        file.write_all(b"last words\n").unwrap();
        fs::rename(&path, folder.join("a.log.1")).unwrap();
        fs::write(&path, "of the new file\n").unwrap();
        assert_eq!(followed.more(), ["last words", "of the new file"]);
        fs::OpenOptions::new().write(true).truncate(true).open(&path).unwrap().write_all(b"cut\n").unwrap();
        assert_eq!(followed.more(), ["cut"]);
        assert!(followed.more().is_empty());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn of_a_long_log_only_the_end_is_read() {
        let path = std::env::temp_dir().join(format!("clusterd-follow-long-{}", std::process::id()));
        let text: String = (0..200_000).map(|n| format!("line {n}\n")).collect();
        fs::write(&path, text).unwrap();
        let lines = Followed::new(plain(&path)).more();
        assert!(lines.len() <= TOP_LOG_LINES_MAX);
        assert_eq!(lines.last().map(String::as_str), Some("line 199999"));
        assert!(lines.iter().all(|line| line.starts_with("line ")));
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn what_would_move_the_cursor_is_left_out() {
        assert_eq!(printable("\x1b[31;1mred\x1b[0m\tx\r\x07 \x1b]0;title\x07y\x1b"), "red    x y");
        assert_eq!(printable("grüße 漢字"), "grüße 漢字");
    }
}
