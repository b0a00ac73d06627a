//! Reads log files back: the files of an app, their last lines, and new ones. For `clusterd logs` and the control API;
//! independent of workers.
mod follow;
mod show;

use super::archive;
use super::path::LogPath;
use crate::config::log::{Format, Log, Target, slot_path};
use crate::os::clock;
use crate::os::user::{Credentials, UserError};
use follow::Follow;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use show::{Line, Origin};
use std::path::PathBuf;
use std::time::SystemTime;
use thiserror::Error;

pub use show::Style;

/// Pause between two reads of followed files, in milliseconds.
pub(crate) const LOGS_LOOK_MS: u64 = 200;
/// Pause between two queries for the list of files, in milliseconds.
pub(crate) const LOGS_ASK_MS: u64 = 2_000;

/// The requested part of an app's output.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// Only this stream.
    pub kind: Option<Kind>,
    /// Only the worker in this slot.
    pub slot: Option<u32>,
}

/// One of the two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// stdout.
    Out,
    /// stderr.
    Err,
}

impl Kind {
    /// The word in JSON lines.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Out => "out",
            Kind::Err => "err",
        }
    }
}

/// Why an app has no file with the requested output.
#[derive(Debug, Error)]
pub enum NoFiles {
    /// One stream is wanted, and both are in one file.
    #[error(
        "stdout and stderr go to one file, whose lines do not say which they are; give them two files, or format = \"json\""
    )]
    OneFile,
    /// One worker is wanted, and all are in one file.
    #[error("its lines do not say which worker they are of; set per_worker = true or format = \"json\" in [app.log]")]
    WithoutWorker,
    /// The wanted slot does not exist.
    #[error("it has no worker in slot {0}; clusterd ls shows the slots")]
    NoSlot(u32),
    /// It goes to the standard output of clusterd.
    #[error(
        "its output goes to the terminal (or wherever) that clusterd was started from, not to a file; [app.log] makes one"
    )]
    Inherited,
    /// It goes nowhere.
    #[error("what it prints there is not kept: [app.log] says NULL")]
    Discarded,
    /// The entry of an app without a keeper has no sources.
    #[error("its entry does not say where it wrote to")]
    NoSources,
    /// The sources of such an app cannot be resolved.
    #[error("the configuration that it was started with is not understood any more")]
    Unreadable,
    /// The user of such an app is gone.
    #[error("cannot tell whose rights its files are read with: {0}")]
    User(UserError),
    /// They do not have the app.
    #[error("its configuration does not name it")]
    NoApp,
}

/// Log files with their origins.
#[derive(Debug, Default)]
pub struct Files(Vec<(Origin, LogPath)>);

impl Files {
    /// Adds the files of one app that match the filter. `user`: whose rights they are read with.
    ///
    /// # Errors
    /// No file matches.
    pub fn add_app(
        &mut self,
        name: &str,
        log: &Log,
        user: Option<&Credentials>,
        slots: &[u32],
        filter: &Filter,
    ) -> Result<(), NoFiles> {
        let path = |target: &Target| match target {
            Target::File(path) => Some(LogPath { path: path.clone(), user: user.cloned() }),
            Target::Inherit | Target::Null => None,
        };
        let (mut out, mut err) = (path(&log.out), path(&log.err));
        let both = log.both.clone().map(|path| LogPath { path, user: user.cloned() });
        // A stream that is in the file of both alone: that file has each line of the other one too.
        if both.is_some() && (out == both || err == both) {
            match filter.kind {
                Some(Kind::Out) if out != both => err = None,
                Some(Kind::Err) if err != both => out = None,
                _ => (out, err) = (both.clone(), both),
            }
        }
        let json = log.format == Format::Json;
        let origin = |kind| Origin {
            apps: vec![name.to_owned()],
            kind,
            json,
            time: log.time.clone(),
            only: filter.slot.into_iter().collect(),
            ..Origin::default()
        };
        let one = out.is_some() && out == err;
        if one && !json && filter.kind.is_some() {
            return Err(NoFiles::OneFile);
        }
        if filter.slot.is_some() && !json && !log.per_worker {
            return Err(NoFiles::WithoutWorker);
        }
        let streams = if one {
            vec![(None, out)]
        } else {
            let wanted = |kind| filter.kind.is_none_or(|wanted| wanted == kind);
            vec![
                (Some(Kind::Out), out.filter(|_| wanted(Kind::Out))),
                (Some(Kind::Err), err.filter(|_| wanted(Kind::Err))),
            ]
        };
        let mut some = false;
        for (kind, path) in streams {
            let Some(path) = path else { continue };
            let origin = origin(kind);
            if !log.per_worker {
                some = true;
                self.add(origin, path);
                continue;
            }
            for &slot in slots.iter().filter(|slot| filter.slot.is_none_or(|wanted| wanted == **slot)) {
                some = true;
                let path = LogPath { path: slot_path(&path.path, slot), user: path.user.clone() };
                self.add(Origin { slot: Some(slot), ..origin.clone() }, path);
            }
        }
        if some { Ok(()) } else { Err(nothing(log, slots, filter)) }
    }

    /// Adds the log of clusterd itself, of a deployment in the background, but for what concerns these other apps.
    pub fn add_own(&mut self, path: PathBuf, others: Vec<String>) {
        let origin = Origin { apps: vec!["clusterd".to_owned()], own: true, others, ..Origin::default() };
        self.add(origin, LogPath { path, user: None });
    }

    /// Several apps may write to one file, or be requested twice.
    fn add(&mut self, origin: Origin, path: LogPath) {
        match self.0.iter_mut().find(|(_, known)| *known == path) {
            None => self.0.push((origin, path)),
            Some((known, _)) => {
                known.kind = known.kind.filter(|kind| origin.kind == Some(*kind));
                let new: Vec<String> = origin.apps.into_iter().filter(|app| !known.apps.contains(app)).collect();
                known.apps.extend(new);
                match origin.only.is_empty() || known.only.is_empty() {
                    true => known.only.clear(),
                    false => known.only.extend(origin.only),
                }
                // An app that one target leaves out may be meant by another.
                known.others.retain(|app| origin.others.contains(app));
            }
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Why no file of an app matches.
fn nothing(log: &Log, slots: &[u32], filter: &Filter) -> NoFiles {
    let targets = match filter.kind {
        Some(Kind::Out) => [&log.out, &log.out],
        Some(Kind::Err) => [&log.err, &log.err],
        None => [&log.out, &log.err],
    };
    if let Some(slot) = filter.slot.filter(|slot| !slots.contains(slot)) {
        return NoFiles::NoSlot(slot);
    }
    if targets.contains(&&Target::Inherit) {
        return NoFiles::Inherited;
    }
    NoFiles::Discarded
}

/// A file that is read.
struct Shown {
    origin: Origin,
    follow: Follow,
}

/// Reads files and formats their lines.
pub struct Reader {
    style: Style,
    filter: Filter,
    zone: TimeZone,
    began: SystemTime,
    shown: Vec<Shown>,
}

impl Reader {
    /// Starts at the current ends of these files.
    pub fn new(files: Files, style: Style, filter: Filter) -> Reader {
        let shown = files.0.into_iter().map(|(origin, path)| Shown { origin, follow: Follow::new(path) });
        Reader { style, filter, zone: TimeZone::system(), began: clock::wall(), shown: shown.collect() }
    }

    /// The last lines of every file, ordered by time as far as it is known; otherwise file by file, the last written
    /// one at the end.
    pub fn last(&self, count: usize) -> Vec<u8> {
        let mut all: Vec<(Option<Timestamp>, Line, &Origin)> = Vec::new();
        for Shown { origin, follow } in &self.shown {
            let (lines, written) = follow.last_lines(count);
            let written = written.and_then(|time| Timestamp::try_from(time).ok());
            let lines: Vec<Line> = lines.iter().map(|line| show::parse(line, origin, &self.zone)).collect();
            // A line without a time belongs to the line before it.
            let mut time = lines.iter().find_map(|line| line.time).or(written);
            for line in lines.into_iter().filter(|line| line.is_wanted(origin, &self.filter)) {
                time = line.time.or(time);
                all.push((time, line, origin));
            }
        }
        all.sort_by_key(|(time, ..)| *time);
        let shown = all.iter().map(|(_, line, origin)| self.style.show(line, origin, None, &self.zone));
        shown.collect::<Vec<_>>().concat()
    }

    /// Passes new lines to `out`, one by one, until it returns false.
    pub fn look(&mut self, out: &mut dyn FnMut(&[u8]) -> bool) {
        let Reader { style, filter, zone, shown, .. } = self;
        let mut wanted = true;
        for Shown { origin, follow } in shown {
            follow.look(&mut |line| {
                let line = show::parse(line, origin, zone);
                if wanted && line.is_wanted(origin, filter) {
                    wanted = out(&style.show(&line, origin, Some(Timestamp::now()), zone));
                }
            });
            if !wanted {
                return;
            }
        }
    }

    /// Adds files that were not there before: of a new worker, a new app, or a changed configuration.
    pub fn take_in(&mut self, files: Files) {
        for (origin, path) in files.0 {
            match self.shown.iter_mut().find(|shown| *shown.follow.path() == path) {
                Some(known) => known.origin = origin,
                None => self.shown.push(Shown { origin, follow: Follow::since(path, self.began) }),
            }
        }
    }
}
