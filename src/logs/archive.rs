//! Handles rotated log files: removes the oldest, compresses the others. On a thread of its own that lives while there
//! is work. Files that a dying master leaves half done are found by their names in the next round.
use super::file::LOG_FOLDER_ENTRIES_MAX;
use super::rotation::{COMPRESSED, Kind, UNFINISHED, kind};
use super::writer::LOG_STACK_BYTES;
use crate::config::log::Rotation;
use crate::os::append;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Log files whose rotated files are to be checked.
#[derive(Clone, Default)]
pub(super) struct Archive {
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Default)]
struct Waiting {
    files: BTreeMap<PathBuf, Rotation>,
    at_work: bool,
}

impl Archive {
    /// Handles the rotated files of this log file.
    pub(super) fn look_after(&self, path: &Path, rotation: &Rotation) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.files.insert(path.to_owned(), rotation.clone());
        if waiting.at_work {
            return;
        }
        let shared = Arc::clone(&self.waiting);
        let thread = std::thread::Builder::new().name("clusterd-gzip".to_owned()).stack_size(LOG_STACK_BYTES);
        match thread.spawn(move || work(&shared)) {
            Ok(_) => waiting.at_work = true,
            Err(e) => log::warn!("{}: rotated files stay as they are for now: {e}", path.display()),
        }
    }
}

fn work(waiting: &Mutex<Waiting>) {
    append::be_nice();
    loop {
        let next = {
            let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
            let next = waiting.files.pop_first();
            waiting.at_work = next.is_some();
            next
        };
        let Some((path, rotation)) = next else { return };
        if let Err((file, e)) = tidy(&path, &rotation) {
            log::warn!("{}: cannot look after {}: {e}; it stays as it is", path.display(), file.display());
        }
    }
}

/// Removes and compresses. The error names the file that failed.
fn tidy(path: &Path, rotation: &Rotation) -> Result<(), (PathBuf, io::Error)> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut found = list(path).map_err(|e| (folder.to_owned(), e))?;
    for (file, _) in found.extract_if(.., |(_, kind)| *kind == Kind::Unfinished) {
        remove(&file)?;
    }
    // A file and its compressed copy count once: a death between the last two steps leaves both.
    found.dedup_by(|later, earlier| later.0.as_os_str().to_str() == with_ending(&earlier.0, COMPRESSED).to_str());
    let too_many = found.len().saturating_sub(rotation.keep as usize);
    for (file, kind) in found.drain(..too_many) {
        remove(&file)?;
        if kind == Kind::Rotated {
            remove(&with_ending(&file, COMPRESSED))?;
        }
    }
    for (file, _) in found.iter().filter(|(_, kind)| rotation.compress && *kind == Kind::Rotated) {
        compress(file).map_err(|e| (file.clone(), e))?;
    }
    Ok(())
}

/// The rotated files of a log file, oldest first.
///
/// # Errors
/// The folder cannot be read.
pub(super) fn list(path: &Path) -> io::Result<Vec<(PathBuf, Kind)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path.parent().unwrap_or(Path::new("/")))?.take(LOG_FOLDER_ENTRIES_MAX) {
        let name = entry?.file_name();
        if let Some(kind) = name.to_str().and_then(|name| kind(path, name)) {
            found.push((path.with_file_name(name), kind));
        }
    }
    found.sort();
    Ok(found)
}

fn remove(file: &Path) -> Result<(), (PathBuf, io::Error)> {
    match fs::remove_file(file) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err((file.to_owned(), e)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn with_ending(file: &Path, ending: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

fn compress(file: &Path) -> io::Result<()> {
    let unfinished = with_ending(file, UNFINISHED);
    let done = (|| {
        let mut from = File::open(file)?;
        let to = OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(&unfinished)?;
        let mut encoder = GzEncoder::new(to, Compression::fast());
        io::copy(&mut from, &mut encoder)?;
        encoder.finish()?;
        fs::rename(&unfinished, with_ending(file, COMPRESSED))?;
        fs::remove_file(file)
    })();
    if done.is_err() {
        // A partial file only takes space.
        let _ = fs::remove_file(&unfinished);
    }
    done
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn the_oldest_go_and_the_others_are_compressed_whatever_was_left_behind() {
        let folder = std::env::temp_dir().join(format!("clusterd-archive-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("web.log");
        let old = |n: usize| folder.join(format!("web-2026020{n}T040506.789Z.log"));
        for n in 1..=4 {
            fs::write(old(n), format!("day {n}\n")).unwrap();
        }
        fs::write(with_ending(&old(2), COMPRESSED), "the copy of a death between two steps").unwrap();
        fs::write(with_ending(&old(3), UNFINISHED), "half").unwrap();
        fs::write(folder.join("web-other.log"), "not ours").unwrap();
        let rotation = Rotation { max_size: Some(1), max_age: None, keep: 3, compress: true };
        tidy(&path, &rotation).unwrap();
        let mut names: Vec<String> =
            fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(
            names,
            [
                "web-20260202T040506.789Z.log.gz",
                "web-20260203T040506.789Z.log.gz",
                "web-20260204T040506.789Z.log.gz",
                "web-other.log"
            ]
        );
        let mut text = String::new();
        let packed = File::open(with_ending(&old(2), COMPRESSED)).unwrap();
        flate2::read::GzDecoder::new(packed).read_to_string(&mut text).unwrap();
        assert_eq!(text, "day 2\n");
        fs::remove_dir_all(folder).unwrap();
    }
}
