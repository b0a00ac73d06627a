//! Handles rotated log files: removes the oldest, compresses the others. On a thread for each user of apps that lives
//! while there is work. Files that a dying master leaves half done are found by their names in the next round.
use super::file::LOG_FOLDER_ENTRIES_MAX;
use super::path::LogPath;
use super::rotation::{COMPRESSED, Kind, UNFINISHED, kind};
use super::writer::LOG_STACK_BYTES;
use crate::config::log::Rotation;
use crate::os::place::{self, Missing, Place};
use crate::os::process;
use crate::os::user::Credentials;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Log files whose rotated files are to be checked, by user. (A thread that hangs holds up this user's files alone.)
#[derive(Clone, Default)]
pub(super) struct Archive {
    waiting: Arc<Mutex<BTreeMap<Option<Credentials>, Waiting>>>,
}

#[derive(Default)]
struct Waiting {
    files: BTreeMap<PathBuf, Rotation>,
}

/// A file that cannot be handled, by its name.
type Failed = (OsString, io::Error);

impl Archive {
    /// Handles the rotated files of this log file.
    pub(super) fn look_after(&self, file: &LogPath, rotation: &Rotation) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let at_work = waiting.contains_key(&file.user);
        waiting.entry(file.user.clone()).or_default().files.insert(file.path.clone(), rotation.clone());
        if at_work {
            return;
        }
        let (shared, user) = (Arc::clone(&self.waiting), file.user.clone());
        let thread = std::thread::Builder::new().name("clusterd-gzip".to_owned()).stack_size(LOG_STACK_BYTES);
        if let Err(e) = thread.spawn(move || work(&shared, &user)) {
            waiting.remove(&file.user);
            log::warn!(
                "{file}: cannot start a thread to compress and remove rotated files: {e}; they stay until the next rotation"
            );
        }
    }
}

/// Handles the files of one user, whose entry is there while the thread lives.
fn work(waiting: &Mutex<BTreeMap<Option<Credentials>, Waiting>>, user: &Option<Credentials>) {
    process::be_nice();
    loop {
        let next = {
            let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
            let next = waiting.get_mut(user).and_then(|waiting| waiting.files.pop_first());
            if next.is_none() {
                waiting.remove(user);
            }
            next
        };
        let Some((path, rotation)) = next else { return };
        let tidied = place::within(user.as_ref(), &path, Missing::Fail, None, move |place| Ok(tidy(place, &rotation)));
        let folder = path.parent().unwrap_or(Path::new("/"));
        if let Err((file, e)) = tidied.unwrap_or_else(|e| Err((OsString::new(), e))) {
            log::warn!(
                "{}: cannot compress or remove {}: {e}; it stays as it is",
                path.display(),
                folder.join(file).display()
            );
        }
    }
}

/// Removes and compresses.
fn tidy(place: &Place, rotation: &Rotation) -> Result<(), Failed> {
    let mut found = list(place).map_err(|e| (OsString::new(), e))?;
    for (file, _) in found.extract_if(.., |(_, kind)| *kind == Kind::Unfinished) {
        remove(place, &file)?;
    }
    // A file and its compressed copy count once: a death between the last two steps leaves both.
    found.dedup_by(|later, earlier| later.0 == with_ending(&earlier.0, COMPRESSED));
    let too_many = found.len().saturating_sub(rotation.keep as usize);
    for (file, kind) in found.drain(..too_many) {
        remove(place, &file)?;
        if kind == Kind::Rotated {
            remove(place, &with_ending(&file, COMPRESSED))?;
        }
    }
    // One that cannot be read does not keep the others from it.
    let mut done = Ok(());
    for (file, _) in found.iter().filter(|(_, kind)| rotation.compress && *kind == Kind::Rotated) {
        done = done.and(compress(place, file).map_err(|e| (file.clone(), e)));
    }
    done
}

/// The names of the rotated files of a log file, oldest first.
///
/// # Errors
/// The folder cannot be read.
pub(super) fn list(place: &Place) -> io::Result<Vec<(OsString, Kind)>> {
    let names = place.names(LOG_FOLDER_ENTRIES_MAX)?.into_iter();
    let mut found: Vec<(OsString, Kind)> = names
        .filter_map(|name| {
            let kind = kind(Path::new(place.name()), name.to_str()?)?;
            Some((name, kind))
        })
        .collect();
    found.sort();
    Ok(found)
}

fn remove(place: &Place, file: &OsStr) -> Result<(), Failed> {
    match place.remove(file) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err((file.to_owned(), e)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn with_ending(file: &OsStr, ending: &str) -> OsString {
    let mut name = file.to_owned();
    name.push(ending);
    name
}

fn compress(place: &Place, file: &OsStr) -> io::Result<()> {
    let unfinished = with_ending(file, UNFINISHED);
    let done = (|| {
        let mut from = place.read_regular(file)?;
        let mut encoder = GzEncoder::new(place.create(&unfinished)?, Compression::fast());
        io::copy(&mut from, &mut encoder)?;
        encoder.finish()?;
        place.rename(&unfinished, &with_ending(file, COMPRESSED))?;
        place.remove(file)
    })();
    if done.is_err() {
        // A partial file only takes space.
        let _ = place.remove(&unfinished);
    }
    done
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::fs::{self, File};
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
        fs::write(with_ending(old(2).as_os_str(), COMPRESSED), "the copy of a death between two steps").unwrap();
        fs::write(with_ending(old(3).as_os_str(), UNFINISHED), "half").unwrap();
        fs::write(folder.join("web-other.log"), "not ours").unwrap();
        let rotation = Rotation { max_size: Some(1), max_age: None, keep: 3, compress: true };
        place::within(None, &path, Missing::Fail, None, move |place| Ok(tidy(place, &rotation))).unwrap().unwrap();
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
        let packed = File::open(with_ending(old(2).as_os_str(), COMPRESSED)).unwrap();
        flate2::read::GzDecoder::new(packed).read_to_string(&mut text).unwrap();
        assert_eq!(text, "day 2\n");
        fs::remove_dir_all(folder).unwrap();
    }
}
