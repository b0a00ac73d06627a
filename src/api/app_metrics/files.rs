//! Reads the files of Python's `prometheus_client` in its multiprocess mode: one for each process and type of metric, named
//! `counter_PID.db` or `gauge_MODE_PID.db` (its `mmap_dict.py` and `multiprocess.py`). Live gauges of ended processes are
//! removed, as `mark_process_dead()` would; other files of ended processes stay, up to a bound, for the app's own exporter.
use super::series::{self, Bound, Combine, Combined, Kind, Parsed, Part};
use super::{Folder, Place};
use crate::limits::{
    APP_METRICS_BYTES_MAX, APP_METRICS_FILES_KEPT_MAX, APP_METRICS_FILES_MAX, APP_METRICS_FILES_WAIT_MS,
    APP_METRICS_WORKER_BYTES_MAX,
};
use crate::os::place::{self, Missing};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// Folders of earlier generations that are read in one scrape.
const OLD_FOLDERS_MAX: usize = 16;

/// What the files of an app have said.
pub(super) struct Read {
    /// By a number for the file.
    pub(super) parsed: Vec<(u64, Parsed)>,
    /// Folders that could not be read.
    pub(super) missing: u64,
}

/// Reads all files, and removes what is over.
pub(super) fn read(folder: &Folder) -> Read {
    let mut all = Read { parsed: Vec::new(), missing: 0 };
    let (folders, over) = folders(&folder.place);
    let own = matches!(folder.place, Place::Made { .. });
    let mut room_bytes = APP_METRICS_BYTES_MAX;
    for path in &folders {
        let is_over = over.contains(path);
        // The name stands for the files beside it.
        let any = path.join("metrics.db");
        let left = match (own, is_over) {
            (false, _) => Left::Everything,
            (true, false) => Left::WhatCounts,
            (true, true) => Left::Nothing,
        };
        let found =
            place::within(folder.who.as_ref(), &any, Missing::Fail, Some(APP_METRICS_FILES_WAIT_MS), move |place| {
                read_folder(place, left, room_bytes)
            });
        let Ok(found) = found else {
            all.missing += 1;
            continue;
        };
        for (name, bytes) in found {
            room_bytes = room_bytes.saturating_sub(bytes.len());
            all.parsed.extend(parse(&name, &bytes).map(|parsed| (number_of(path, &name), parsed)));
        }
        if is_over {
            // It may not be empty, and then is there at the next scrape too.
            let _ = fs::remove_dir(path);
        }
    }
    all
}

/// The folders of an app; and those among them that are over.
fn folders(place: &Place) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let (base, prefix, living) = match place {
        Place::Typed(path) => return (vec![path.clone()], Vec::new()),
        Place::Made { base, prefix, living } => (base, prefix, living),
    };
    let generation = |name: &OsStr| name.to_str()?.strip_prefix(prefix.as_str())?.parse::<u32>().ok();
    let names = fs::read_dir(base).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let old = names.filter(|name| generation(name).is_some_and(|generation| !living.contains(&generation)));
    let over: Vec<PathBuf> = old.take(OLD_FOLDERS_MAX).map(|name| base.join(name)).collect();
    let folders = living.iter().map(|generation| base.join(format!("{prefix}{generation}")));
    (folders.chain(over.iter().cloned()).collect(), over)
}

/// Which files stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    Everything,
    /// All but live gauges of ended processes, and those of ended processes that are too many.
    WhatCounts,
    Nothing,
}

fn read_folder(place: &place::Place, left: Left, mut room_bytes: usize) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut found = Vec::new();
    let mut ended = 0;
    for name in place.names(APP_METRICS_FILES_MAX)? {
        let Some(named) = name.to_str().and_then(Named::parse) else { continue };
        let has_ended = left == Left::Nothing || named.has_ended();
        ended += usize::from(has_ended);
        let counts = !(has_ended && named.mode.starts_with("live"));
        if counts && let Ok(bytes) = place.read_regular(&name).and_then(|file| read_used(file, room_bytes)) {
            room_bytes -= bytes.len();
            found.push((name.to_string_lossy().into_owned(), bytes));
        }
        let is_removed = has_ended && (left == Left::Nothing || !counts || ended > APP_METRICS_FILES_KEPT_MAX);
        if is_removed && left != Left::Everything {
            // Where that fails it is tried again at the next scrape.
            let _ = place.remove(&name);
        }
    }
    Ok(found)
}

/// The part of a file that is in use: the file itself is larger.
fn read_used(mut file: fs::File, room_bytes: usize) -> io::Result<Vec<u8>> {
    let mut head = [0; 4];
    file.read_exact(&mut head)?;
    let used = usize::try_from(i32::from_ne_bytes(head)).unwrap_or(0);
    if used < head.len() || used > APP_METRICS_WORKER_BYTES_MAX.min(room_bytes) {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut bytes = head.to_vec();
    file.take((used - head.len()) as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What the name of a file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Named<'a> {
    kind: Kind,
    /// Of a gauge: what becomes of its values.
    mode: &'a str,
    /// Mostly a pid.
    process: &'a str,
}

impl Named<'_> {
    fn parse(name: &str) -> Option<Named<'_>> {
        let (kind, rest) = name.strip_suffix(".db")?.split_once('_')?;
        let (kind, mode, process) = match kind {
            "counter" => (Kind::Counter, "", rest),
            "histogram" => (Kind::Histogram, "", rest),
            "summary" => (Kind::Summary, "", rest),
            "gauge" => {
                let (mode, process) = rest.split_once('_')?;
                (Kind::Gauge, mode, process)
            }
            _ => return None,
        };
        Some(Named { kind, mode, process })
    }

    fn has_ended(&self) -> bool {
        self.process.parse::<u32>().is_ok_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
    }

    /// How values of processes are combined; `None`: they are not, each has the label `pid`.
    fn combine(&self) -> Option<Combine> {
        match self.mode.strip_prefix("live").unwrap_or(self.mode) {
            "all" => None,
            "min" => Some(Combine::Min),
            "max" => Some(Combine::Max),
            "mostrecent" => Some(Combine::Latest),
            _ => Some(Combine::Sum),
        }
    }
}

fn number_of(folder: &Path, name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (folder, name).hash(&mut hasher);
    hasher.finish()
}

/// One value: its names, labels and help as JSON, the value, and when it was set (in seconds).
type Entry<'a> = (&'a [u8], f64, f64);

/// Reads a file; `None`: it is not one of theirs.
fn parse(name: &str, bytes: &[u8]) -> Option<Parsed> {
    let named = Named::parse(name)?;
    // Before version 0.18 there was no time.
    let entries = entries(bytes, 16).or_else(|| entries(bytes, 8));
    let mut parsed = Parsed::default();
    let Some(entries) = entries else {
        parsed.left_out = 1;
        return Some(parsed);
    };
    for (key, value, at) in entries {
        if take(&named, key, Combined::of(value, at), &mut parsed).is_none() {
            parsed.left_out += 1;
        }
    }
    parsed.accumulate_buckets();
    Some(parsed)
}

/// The entries of a file, whose values have so many bytes. `None`: they do not.
fn entries(bytes: &[u8], value_bytes: usize) -> Option<Vec<Entry<'_>>> {
    let number = |at: usize| -> Option<usize> {
        let bytes = bytes.get(at..)?.first_chunk().copied()?;
        usize::try_from(i32::from_ne_bytes(bytes)).ok()
    };
    let float = |at: usize| Some(f64::from_ne_bytes(bytes.get(at..)?.first_chunk().copied()?));
    let mut all = Vec::new();
    let mut at = 8;
    while at < bytes.len() {
        let length = number(at)?;
        let key = bytes.get(at + 4..)?.get(..length).filter(|key| key.starts_with(b"["))?;
        let value_at = at + 4 + length + (8 - (length + 4) % 8);
        let set_at = if value_bytes == 16 { float(value_at + 8)? } else { 0.0 };
        all.push((key, float(value_at)?, set_at));
        at = value_at + value_bytes;
    }
    Some(all)
}

/// Adds an entry; `None`: it cannot be read.
fn take(named: &Named<'_>, key: &[u8], value: Combined, parsed: &mut Parsed) -> Option<()> {
    // Early versions have no help.
    let (family, name, mut labels, help): (String, String, BTreeMap<String, String>, String) =
        serde_json::from_slice(key).ok().or_else(|| {
            let (family, name, labels) = serde_json::from_slice(key).ok()?;
            Some((family, name, labels, String::new()))
        })?;
    let part = match (named.kind, name.strip_prefix(family.as_str())?) {
        (Kind::Histogram, "_bucket") => Part::Bucket(Bound::parse(&labels.remove("le")?)?),
        (Kind::Histogram | Kind::Summary, "_sum") => Part::Sum,
        (Kind::Histogram | Kind::Summary, "_count") => Part::Count,
        (_, "_created") => return Some(()),
        _ => Part::Value,
    };
    let combine = named.combine();
    if combine.is_none() {
        labels.insert("pid".to_owned(), named.process.to_owned());
    }
    let about = (family.as_str(), named.kind, combine.unwrap_or(Combine::First), help.as_str());
    parsed.add(about, series::labels(labels), part, value);
    Some(())
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
