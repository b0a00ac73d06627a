//! The folders in which workers with Python's `prometheus_client` keep their metrics: one for each generation of an app, so
//! that each begins with an empty one. It belongs to the user of the workers; its name and the folder above are ours.
//! `api::app_metrics` reads them, and removes those of generations that are over.
use crate::home::Home;
use crate::os::notify;
use crate::os::user::{self, Credentials};
use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, lchown};
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

/// Folder for workers of other users, who cannot enter our home.
const SHARED_FOLDER: &str = "/run/clusterd";

/// Folders of earlier runs that are removed at a time.
const STALE_MAX: usize = 256;

/// Name of the thread that removes folders.
const THREAD: &str = "clusterd-metrics";
/// Stack of the thread that removes folders, in bytes.
const REMOVAL_STACK_BYTES: usize = 256 * 1024;

/// How long the end of a run waits until its folders are removed.
const REMOVAL_WAIT: Duration = Duration::from_millis(500);

/// How the names of folders begin: those of a deployment in its home, of its present run, and of an app in that. The number of a
/// generation follows. The parts are separated by what no name has.
pub struct Names {
    deployment: Option<String>,
    run: String,
    app: String,
}

impl Names {
    /// `home`: its mark; without one, nobody knows whose folders others are. `run`: the keeper, and when it began.
    pub(super) fn of(home: Option<u64>, deployment: &str, run: (i32, u64), app: &str) -> Names {
        let of_deployment = format!("metrics+{:016x}+{deployment}+", home.unwrap_or(0));
        let of_run = format!("{of_deployment}{}+{}+", run.0, run.1);
        let app = format!("{of_run}{app}+");
        Names { deployment: home.map(|_| of_deployment), run: of_run, app }
    }

    pub(super) fn of_app(&self) -> &str {
        &self.app
    }
}

/// What a thread does.
pub type Work = Box<dyn FnOnce() + Send>;

/// The folder of a generation for workers of this user (`None`: of our own), made where it is missing. With the first one,
/// those of earlier runs of the deployment go, on a thread that `begin` starts.
///
/// # Errors
/// No folder can be used, for the last reason.
pub fn make(
    who: Option<&Credentials>,
    home: Option<&Home>,
    names: &Names,
    generation: u32,
    begin: impl FnOnce(&'static str, usize, Work) -> io::Result<()>,
) -> io::Result<PathBuf> {
    let who = who.filter(|who| who.uid != user::own_uid());
    let own = own_base(who, home);
    let name = format!("{}{generation}", names.app);
    let mut tried = Err(io::ErrorKind::NotFound.into());
    for base in own.iter().chain(&shared_bases()) {
        let prepared = if Some(base) == own.as_ref() { Ok(()) } else { notify::prepare_folder(base) };
        tried = prepared.and_then(|()| make_in(base, who, &name));
        if let Ok((_, is_new)) = &tried {
            if *is_new && let Some(deployment) = &names.deployment {
                let (base, deployment, run) = (base.clone(), deployment.clone(), names.run.clone());
                // Where there is no thread they stay until the next start.
                let work: Work = Box::new(move || remove(&base, &deployment, Some(&run)));
                let _ = begin(THREAD, REMOVAL_STACK_BYTES, work);
            }
            break;
        }
    }
    tried.map(|(path, _)| path)
}

/// Removes the folders of this run of an app, which is over, on a thread that `begin` starts.
pub fn remove_all(
    who: Option<&Credentials>,
    home: Option<&Home>,
    names: &Names,
    begin: impl FnOnce(&'static str, usize, Work) -> io::Result<()>,
) {
    let who = who.filter(|who| who.uid != user::own_uid());
    let bases: Vec<PathBuf> = own_base(who, home).into_iter().chain(shared_bases()).collect();
    let prefix = names.app.clone();
    let (sender, removed) = sync_channel(1);
    let work: Work = Box::new(move || {
        bases.iter().for_each(|base| remove(base, &prefix, None));
        let _ = sender.send(());
    });
    let begun = begin(THREAD, REMOVAL_STACK_BYTES, work);
    // The folder is the workers' user's, who may have it wait for ever.
    let _ = begun.is_ok_and(|_| removed.recv_timeout(REMOVAL_WAIT).is_ok());
}

fn own_base(who: Option<&Credentials>, home: Option<&Home>) -> Option<PathBuf> {
    home.filter(|_| who.is_none()).map(Home::run_dir)
}

fn shared_bases() -> [PathBuf; 2] {
    [PathBuf::from(SHARED_FOLDER), std::env::temp_dir().join(format!("clusterd-{}", user::own_uid()))]
}

/// Removes the folders whose names begin so, but for those that begin like `left`. No link in them is followed.
fn remove(base: &Path, prefix: &str, left: Option<&str>) {
    let names = fs::read_dir(base).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let is_over = |name: &OsString| {
        let name = name.to_string_lossy();
        name.starts_with(prefix) && !left.is_some_and(|left| name.starts_with(left))
    };
    for name in names.filter(is_over).take(STALE_MAX) {
        // What cannot be removed stays.
        let _ = fs::remove_dir_all(base.join(name));
    }
}

/// The folder; and whether it is new.
fn make_in(base: &Path, who: Option<&Credentials>, name: &str) -> io::Result<(PathBuf, bool)> {
    let path = base.join(name);
    let is_new = match DirBuilder::new().mode(0o700).create(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        Ok(()) => {
            if let Some(who) = who {
                lchown(&path, Some(who.uid), Some(who.gid))?;
            }
            true
        }
        Err(_) => false,
    };
    let found = fs::symlink_metadata(&path)?;
    let is_theirs = found.is_dir() && found.uid() == who.map_or_else(user::own_uid, |who| who.uid);
    if is_theirs { Ok((path, is_new)) } else { Err(io::ErrorKind::PermissionDenied.into()) }
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
        let (path, is_new) = make_in(&base, None, "own").unwrap();
        assert_eq!((make_in(&base, None, "own").unwrap(), is_new), ((path.clone(), false), true));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        // What else is there under the name is not used.
        fs::write(base.join("file"), "").unwrap();
        std::os::unix::fs::symlink(&path, base.join("link")).unwrap();
        assert!(make_in(&base, None, "file").is_err() && make_in(&base, None, "link").is_err());
        let somebody = Credentials { uid: 54_321, gid: 54_321, groups: Vec::new() };
        if user::own_uid() == 0 {
            assert_eq!(fs::metadata(make_in(&base, Some(&somebody), "theirs").unwrap().0).unwrap().uid(), 54_321);
        } else {
            assert!(make_in(&base, Some(&somebody), "theirs").is_err());
        }
        fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn folders_of_earlier_runs_go_and_those_of_others_stay() {
        let base = std::env::temp_dir().join(format!("clusterd-metrics-runs-{}", std::process::id()));
        let _ = fs::remove_dir_all(&base);
        fs::create_dir(&base).unwrap();
        let make = |home, deployment, run, app| {
            let names = Names::of(Some(home), deployment, run, app);
            fs::write(make_in(&base, None, &format!("{}1", names.app)).unwrap().0.join("counter_1.db"), "x").unwrap();
            names
        };
        let names = make(7, "web", (100, 5), "web");
        for (home, deployment, run) in
            [(7, "web", (99, 5)), (7, "web", (100, 4)), (8, "web", (99, 5)), (7, "web-1", (9, 9))]
        {
            make(home, deployment, run, "web");
        }
        let count = || fs::read_dir(&base).unwrap().count();
        remove(&base, names.deployment.as_ref().unwrap(), Some(&names.run));
        assert_eq!(count(), 3);
        make(7, "web", (100, 5), "web-1");
        remove(&base, &names.app, None);
        assert_eq!(count(), 3);
        assert_eq!(Names::of(None, "web", (1, 1), "web").deployment, None);
        fs::remove_dir_all(base).unwrap();
    }
}
