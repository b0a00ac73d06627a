//! `[app.log]`: the files for an app's output, and the format of their lines. Pure: touches no file.
use super::defaults;
use super::problem::{At, Found, Spot};
use super::schema::keys::RawLog;
use super::sources::{Sources, absolute};
use crate::ids::Slot;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The targets of an app's output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// stdout.
    pub out: Target,
    /// stderr. The same file as `out`: one file for both.
    pub err: Target,
    /// A file that gets both streams, beside those of their own.
    pub both: Option<PathBuf>,
    /// Every slot has its own files: [`slot_path`].
    pub per_worker: bool,
    pub format: Format,
    /// Format of timestamps (strftime); `None`: none (JSON lines always have one).
    pub time: Option<String>,
    /// When a file is rotated.
    pub rotation: Rotation,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// clusterd's own stdout or stderr.
    Inherit,
    /// Discarded.
    Null,
    /// This file: an absolute path, links not resolved.
    File(PathBuf),
}

/// The format of a line in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// As the worker printed it, after the timestamp.
    Plain,
    /// One JSON object.
    Json,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Plain => "plain",
            Format::Json => "json",
        })
    }
}

/// When a file is rotated, and how many are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// Before it would exceed this size, in bytes.
    pub max_size: Option<u64>,
    /// When it is older than this.
    pub max_age: Option<Duration>,
    /// Number of rotated files that are kept.
    pub keep: u32,
    /// Rotated files are compressed.
    pub compress: bool,
}

impl Default for Log {
    fn default() -> Log {
        Log {
            out: Target::Inherit,
            err: Target::Inherit,
            both: None,
            per_worker: false,
            format: Format::Plain,
            time: None,
            rotation: Rotation { max_size: None, max_age: None, keep: defaults::LOG_KEEP, compress: false },
        }
    }
}

impl Log {
    /// The same, with the default files of an app in the background: `FOLDER/NAME-out.log` and `FOLDER/NAME-error.log`.
    #[must_use]
    pub fn in_background(mut self, name: &str, folder: &Path) -> Log {
        for (target, kind) in [(&mut self.out, "out"), (&mut self.err, "error")] {
            if *target == Target::Inherit {
                *target = Target::File(folder.join(format!("{name}-{kind}.log")));
            }
        }
        self
    }

    /// Whether a stream goes to a file.
    pub fn has_file(&self) -> bool {
        [&self.out, &self.err].into_iter().any(|target| matches!(target, Target::File(_)))
    }

    /// Keys without effect, because no stream goes to a file (in the foreground, if no file is configured).
    pub fn idle_keys(&self) -> Vec<&'static str> {
        let set = [
            ("per_worker", self.per_worker),
            ("format", self.format != Format::Plain),
            ("time", self.time.is_some()),
            ("max_size", self.rotation.max_size.is_some()),
            ("max_age", self.rotation.max_age.is_some()),
        ];
        set.into_iter().filter(|(_, set)| *set && !self.has_file()).map(|(key, _)| key).collect()
    }

    /// The files of `slots` slots, and of those beside them, each once.
    pub fn files(&self, slots: u32, beside: &[Slot]) -> Vec<PathBuf> {
        let mut paths = Vec::new();
        let beside = beside.iter().filter(|_| self.per_worker).map(|slot| slot.0);
        for slot in (0..if self.per_worker { slots } else { 1 }).chain(beside) {
            let both = self.both.clone().map(Target::File);
            // Only files of one slot can be the same.
            let first = paths.len();
            for target in [&self.out, &self.err].into_iter().chain(&both) {
                if let Target::File(path) = self.of_slot(target, slot)
                    && !paths[first..].contains(&path)
                {
                    paths.push(path);
                }
            }
        }
        paths
    }

    /// The target of a stream for the worker in this slot.
    pub fn of_slot(&self, target: &Target, slot: u32) -> Target {
        match target {
            Target::File(path) if self.per_worker => Target::File(slot_path(path, slot)),
            Target::Inherit | Target::Null | Target::File(_) => target.clone(),
        }
    }
}

/// The file of one slot: `logs/web-out.log` is `logs/web-out-3.log` for slot 3, `logs/web-out-agent.log` for the agent.
pub fn slot_path(path: &Path, slot: u32) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let ending = path.extension().map(|ending| format!(".{}", ending.to_string_lossy())).unwrap_or_default();
    path.with_file_name(format!("{stem}-{}{ending}", Slot(slot)))
}

/// Why a text is not a valid target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    #[error("a log path is empty; write \"NULL\" to discard the output")]
    Empty,
    #[error("a log path holds a zero byte")]
    ZeroByte,
    /// A placeholder, as in other tools.
    #[error("\"{0}\": a log path is taken as it is; write it without % (per_worker = true adds the slot)")]
    Placeholder(String),
    #[error("\"{0}\" names a folder; add the name of the file")]
    Folder(String),
}

/// A target as typed: a path, or `NULL`.
pub(super) fn target(typed: &str) -> Result<Target, TargetError> {
    match typed {
        "NULL" | "/dev/null" => Ok(Target::Null),
        "" => Err(TargetError::Empty),
        _ if typed.contains('\0') => Err(TargetError::ZeroByte),
        _ if typed.contains('%') => Err(TargetError::Placeholder(typed.to_owned())),
        _ if typed.ends_with('/') => Err(TargetError::Folder(typed.to_owned())),
        _ => Ok(Target::File(PathBuf::from(typed))),
    }
}

/// The settings with every default filled in. Relative paths start at `folder`.
pub(super) fn decide(raw: RawLog, name: &str, folder: &str, sources: &Sources, found: &mut Found) -> Log {
    let RawLog { file, out, err, per_worker, format, time, max_size, max_age, keep, compress, .. } = raw;
    let whole = |target: Target| match target {
        Target::File(path) => Target::File(absolute(folder, &path.to_string_lossy())),
        other => other,
    };
    let file = file.map(|at| whole(at.value));
    let both = match &file {
        Some(Target::File(path)) => Some(path.clone()),
        Some(Target::Null | Target::Inherit) | None => None,
    };
    // A stream without a file of its own is in that of both alone.
    let place = |target: Option<At<Target>>| match (target.map(|at| whole(at.value)), &file) {
        (Some(Target::Null), Some(file)) => file.clone(),
        (Some(own), _) => own,
        (None, Some(file)) => file.clone(),
        (None, None) => Target::Inherit,
    };
    let (out, err) = (place(out), place(err));
    let default = Log::default();
    let mut log = Log {
        both: both.filter(|path| [&out, &err].into_iter().any(|own| *own != Target::File(path.clone()))),
        out,
        err,
        per_worker: per_worker.as_ref().is_some_and(|at| at.value),
        format: format.as_ref().map_or(default.format, |at| at.value),
        time: time.as_ref().and_then(|at| at.value.clone()),
        rotation: Rotation {
            max_size: max_size.as_ref().map(|at| at.value),
            max_age: max_age.as_ref().map(|at| at.value),
            keep: keep.as_ref().map_or(default.rotation.keep, |at| at.value),
            compress: compress.as_ref().is_some_and(|at| at.value),
        },
    };
    if let Some(folder) = sources.log_folder.as_ref().filter(|_| sources.background) {
        log = log.in_background(name, Path::new(folder));
    }
    let useless: [(&str, Option<Spot>); 7] = [
        ("per_worker", per_worker.filter(|at| at.value).map(|at| at.spot)),
        ("format", format.filter(|at| at.value != Format::Plain).map(|at| at.spot)),
        ("time", time.filter(|at| at.value.is_some()).map(|at| at.spot)),
        ("max_size", max_size.map(|at| at.spot)),
        ("max_age", max_age.map(|at| at.spot)),
        ("keep", keep.map(|at| at.spot)),
        ("compress", compress.filter(|at| at.value).map(|at| at.spot)),
    ];
    let rotates = log.rotation.max_size.is_some() || log.rotation.max_age.is_some();
    for (key, spot) in useless {
        let Some(spot) = spot else { continue };
        if log.out == Target::Null && log.err == Target::Null {
            found.add(spot, format!("{key} does nothing: both out and err are discarded"));
        } else if !rotates && matches!(key, "keep" | "compress") {
            found
                .add(spot, format!("{key} does nothing without max_size or max_age: a file is then never moved aside"));
        }
    }
    log
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_has_its_own_file_before_the_ending() {
        assert_eq!(slot_path(Path::new("/l/web-out.log"), 3), Path::new("/l/web-out-3.log"));
        assert_eq!(slot_path(Path::new("/l/a.b/out"), 0), Path::new("/l/a.b/out-0"));
    }

    #[test]
    fn the_background_has_files_where_nothing_was_said() {
        let log = Log { err: Target::Null, ..Log::default() }.in_background("web", Path::new("/h/logs"));
        assert_eq!((log.out, log.err), (Target::File("/h/logs/web-out.log".into()), Target::Null));
        let log = Log::default().in_background("web", Path::new("/h/logs"));
        assert_eq!(log.err, Target::File("/h/logs/web-error.log".into()));
        let stamped = Log { time: Some("%H".to_owned()), ..Log::default() };
        assert_eq!(stamped.idle_keys(), ["time"]);
        assert!(stamped.in_background("web", Path::new("/h/logs")).idle_keys().is_empty());
        assert_eq!(log.files(5, &[]).len(), 2);
        assert_eq!(Log { both: Some("/l/all.log".into()), ..log.clone() }.files(5, &[]).len(), 3);
        assert_eq!(Log { per_worker: true, err: log.out.clone(), ..log }.files(5, &[Slot::AGENT]).len(), 6);
    }
}
