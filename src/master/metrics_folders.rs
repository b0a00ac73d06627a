//! The folders in which workers with Python's `prometheus_client` keep their metrics: one for each generation of an app, so
//! that each begins with an empty one. It belongs to the user of the workers; its name and the folder above are ours.
//! `api::app_metrics` reads them, and removes those that are over.
use crate::home::Home;
use crate::os::notify;
use crate::os::user::{self, Credentials};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, lchown};
use std::path::{Path, PathBuf};

/// Folder for workers of other users, who cannot enter our home.
const SHARED_FOLDER: &str = "/run/clusterd";

/// The folder of this name for workers of this user (`None`: of our own), made where it is missing.
///
/// # Errors
/// No folder can be used, for the last reason.
pub(super) fn make(who: Option<&Credentials>, home: Option<&Home>, name: &str) -> io::Result<PathBuf> {
    let who = who.filter(|who| who.uid != user::own_uid());
    let own = home.filter(|_| who.is_none()).map(Home::run_dir);
    let temporary = std::env::temp_dir().join(format!("clusterd-{}", user::own_uid()));
    let mut tried = Err(io::ErrorKind::NotFound.into());
    for base in own.iter().chain(&[PathBuf::from(SHARED_FOLDER), temporary]) {
        let prepared = if Some(base) == own.as_ref() { Ok(()) } else { notify::prepare_folder(base) };
        tried = prepared.and_then(|()| make_in(base, who, name));
        if tried.is_ok() {
            break;
        }
    }
    tried
}

fn make_in(base: &Path, who: Option<&Credentials>, name: &str) -> io::Result<PathBuf> {
    let path = base.join(name);
    match DirBuilder::new().mode(0o700).create(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        Ok(()) => {
            if let Some(who) = who {
                lchown(&path, Some(who.uid), Some(who.gid))?;
            }
        }
        Err(_) => {}
    }
    let found = fs::symlink_metadata(&path)?;
    let is_theirs = found.is_dir() && found.uid() == who.map_or_else(user::own_uid, |who| who.uid);
    if is_theirs { Ok(path) } else { Err(io::ErrorKind::PermissionDenied.into()) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_made_once_and_belongs_to_the_workers_user() {
        let base = std::env::temp_dir().join(format!("clusterd-metrics-test-{}", std::process::id()));
        let _ = fs::remove_dir_all(&base);
        fs::create_dir(&base).unwrap();
        let path = make_in(&base, None, "own").unwrap();
        assert_eq!(make_in(&base, None, "own").unwrap(), path);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        // What else is there under the name is not used.
        fs::write(base.join("file"), "").unwrap();
        std::os::unix::fs::symlink(&path, base.join("link")).unwrap();
        assert!(make_in(&base, None, "file").is_err() && make_in(&base, None, "link").is_err());
        let somebody = Credentials { uid: 54_321, gid: 54_321, groups: Vec::new() };
        if user::own_uid() == 0 {
            assert_eq!(fs::metadata(make_in(&base, Some(&somebody), "theirs").unwrap()).unwrap().uid(), 54_321);
        } else {
            assert!(make_in(&base, Some(&somebody), "theirs").is_err());
        }
        fs::remove_dir_all(base).unwrap();
    }
}
