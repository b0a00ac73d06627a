//! Starts deployments in the background: writes the entry, starts the keeper, and waits until the apps are ready. For the
//! verbs `start`, `restart` and `resurrect`.
use super::apply::Outcome;
use super::client::{self, Answered};
use super::error::{CommandError, KeeperError};
use super::progress::{Progress, Wait};
use super::store::{self, Store};
use super::target::Found;
use crate::api::{Change, Request};
use crate::cli::client::{LOOK_TRIES_MAX, PROGRESS_EVERY_MS};
use crate::home::{Entry, Home, HomeError, Registry};
use crate::limits;
use crate::loader;
use crate::master::BACKGROUND_FLAG;
use crate::os::process;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

/// Pause between two queries to a master that is being started.
pub(super) const START_LOOK_MS: u64 = 2;

/// Longest part of a deployment's log that a failed start shows, in bytes.
const START_WORDS_BYTES_MAX: u64 = 16 * 1024;

/// Whether a deployment's entry stays when it cannot be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Novelty {
    /// New: the entry is removed.
    New,
    /// Existing: the entry stays.
    Known,
}

/// The default folder for log files of background apps.
pub(super) fn log_folder(home: &Home) -> String {
    let folder = home.path().join("logs");
    std::path::absolute(&folder).unwrap_or(folder).display().to_string()
}

/// The environment of this command, for apps to keep. Variables that are not UTF-8 are left out, with a warning.
pub(super) fn own_environment() -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    for (name, value) in std::env::vars_os() {
        match (name.into_string(), value.into_string()) {
            (Ok(name), Ok(value)) => drop(env.insert(name, value)),
            (name, _) => {
                let name = name.unwrap_or_else(|name| name.to_string_lossy().into_owned());
                log::warn!("the variable {name} is not UTF-8 and is left out");
            }
        }
    }
    env
}

/// Sends a start or restart, and waits until the app is ready.
pub(super) fn request_ready(found: &Found, request: &Request) -> Outcome {
    let mut progress = Progress::new(Wait::Ready, &found.app);
    match client::send_watched(&found.socket, request, &mut progress) {
        Answered::Master(answer) => Ok(answer?),
        Answered::Lost => wait_until_ready(&found.socket, &mut progress),
    }
}

/// Starts an app of which nothing runs, from the present configuration, and waits until it is ready.
pub(super) fn start(found: &Found) -> Outcome {
    request_ready(found, &Request::Start { app: found.app.clone(), change: Change::default() })
}

/// Waits until every app of a deployment is ready, or one has failed; the master may be replaced meanwhile.
fn wait_until_ready(socket: &Path, progress: &mut Progress) -> Outcome {
    for _ in 0..LOOK_TRIES_MAX {
        match client::send_watched(socket, &Request::Ready, progress) {
            Answered::Master(answer) => return Ok(answer?),
            Answered::Lost => std::thread::sleep(Duration::from_millis(PROGRESS_EVERY_MS)),
        }
    }
    Err(CommandError::MasterDies)
}

/// Starts a deployment whose keeper is gone; `starts`: which of its apps are started even if they were stopped.
pub(super) fn revive(home: &Home, deployment: &str, starts: impl Fn(&str) -> bool, change: Change) -> Outcome {
    let registry = home.registry()?;
    let mut entry = home.entry(deployment)?;
    if home.is_alive(deployment) {
        drop(registry);
        return wait_until_ready(&home.socket_path(deployment), &mut Progress::new(Wait::Ready, deployment));
    }
    let before = entry.sources.take().ok_or(CommandError::NoSources)?;
    // Its files may have changed, as before a reload.
    let mut sources = match change.sources {
        Some(sources) => *sources,
        None => loader::reload(&before)?,
    };
    loader::notes(&sources, Some(&before)).iter().for_each(|note| log::warn!("{note}"));
    sources.base_env = change.env.or(sources.base_env).or(before.base_env);
    entry.sources = Some(sources);
    for one in entry.apps.iter_mut().filter(|one| starts(&one.name)) {
        one.stopped = false;
    }
    launch(registry, home, &entry, Novelty::Known, None)
}

/// Writes the entry, starts the keeper, and waits until its apps are ready. `store` has the sockets of an earlier keeper.
pub(super) fn launch(
    registry: Registry<'_>,
    home: &Home,
    entry: &Entry,
    novelty: Novelty,
    store: Option<&Store>,
) -> Outcome {
    let mut entry = entry.clone();
    if let Some(sources) = &mut entry.sources {
        sources.log_folder.get_or_insert_with(|| log_folder(home));
    }
    let log_path = home.log_path(&entry.name)?;
    let mut log = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&log_path)
        .map_err(|source| HomeError::Unusable { path: log_path.clone(), source })?;
    let told_before = log.seek(SeekFrom::End(0)).unwrap_or_default();
    let not_started = |why| CommandError::NotStarted { name: entry.name.clone(), why };
    home.write_entry(&entry)?;
    let mut progress = Progress::new(Wait::Ready, &entry.name);
    let started = start_keeper(home, &entry, &log, store)
        .and_then(|keeper| wait_for_socket(home, &entry.name, keeper, &mut log, told_before, &mut progress));
    if let Err(why) = started {
        if novelty == Novelty::New {
            home.remove_entry(&entry.name);
        }
        return Err(not_started(why));
    }
    drop(registry);
    let outcome = wait_until_ready(&home.socket_path(&entry.name), &mut progress);
    outcome.map_err(|error| {
        if error.is_dead() { not_started(KeeperError::Ended(last_lines(&mut log, told_before))) } else { error }
    })
}

/// Starts the keeper; returns why if that fails.
fn start_keeper(home: &Home, entry: &Entry, log: &File, store: Option<&Store>) -> Result<Child, KeeperError> {
    let folder = entry.sources.as_ref().map_or("/", |sources| sources.start_folder.as_str());
    let home_path = std::path::absolute(home.path())?;
    let args = [OsStr::new(BACKGROUND_FLAG), home_path.as_os_str(), OsStr::new(&entry.name)];
    let input = store.and_then(|store| store.input_for(|app| entry.apps.iter().any(|its| its.name == app)));
    let kept_at = Store::address(home);
    let files = store::FILES_MAX.to_string();
    let env = match &kept_at {
        Some(path) => vec![("NOTIFY_SOCKET", path.as_os_str()), ("FDSTORE", OsStr::new(&files))],
        None => Vec::new(),
    };
    process::start_in_background(&args, Path::new(folder), log, input, &env)
        .map_err(|source| KeeperError::NotStarted { folder: folder.to_owned(), source })
}

/// Waits (bounded) until the new keeper's control socket answers; returns why if it does not.
fn wait_for_socket(
    home: &Home,
    name: &str,
    mut keeper: Child,
    log: &mut File,
    told_before: u64,
    progress: &mut Progress,
) -> Result<(), KeeperError> {
    let socket = home.socket_path(name);
    let until = Instant::now() + Duration::from_millis(limits::START_WAIT_MS);
    loop {
        if UnixStream::connect(&socket).is_ok() && home.is_alive(name) {
            return Ok(());
        }
        if keeper.try_wait().is_ok_and(|ended| ended.is_some()) {
            return Err(KeeperError::Ended(last_lines(log, told_before)));
        }
        if Instant::now() > until {
            let log = home.log_path(name).unwrap_or_default();
            return Err(KeeperError::Silent { pid: keeper.id(), log });
        }
        progress.tell("its keeper has no control socket yet");
        std::thread::sleep(Duration::from_millis(START_LOOK_MS));
    }
}

/// What a deployment has logged since this position.
fn last_lines(log: &mut (impl Read + Seek), since: u64) -> String {
    let mut text = String::new();
    let mut bytes = Vec::new();
    // What cannot be read is left out; the exit code says enough.
    let _ = log.seek(SeekFrom::Start(since));
    let _ = log.take(START_WORDS_BYTES_MAX).read_to_end(&mut bytes);
    for line in String::from_utf8_lossy(&bytes).lines() {
        let line = line.split_once("clusterd: ").map_or(line, |(_, said)| said);
        text.push_str(if text.is_empty() { "" } else { "\n" });
        text.push_str(line);
    }
    if text.is_empty() { "it ended without a message".to_owned() } else { text }
}
