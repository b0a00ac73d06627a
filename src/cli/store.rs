//! What `resurrect --stay` keeps for the deployments of its home, as a service manager does: their listening sockets. A keeper sends
//! copies of them; the next keeper of the deployment gets them, so that connections wait while it starts. Where systemd has a store for
//! this process, they are passed on to it, and outlive this process too.
use crate::home::Home;
use crate::os::{notify, packet, poll, process, user};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Sockets that are kept: as many as one message can carry.
pub(super) const FILES_MAX: usize = crate::os::fdpass::FDS_PER_PACKET_MAX;
/// The longest message of a keeper, in bytes.
const MESSAGE_BYTES_MAX: usize = 4096;
/// Messages that are read in one go.
const MESSAGES_PER_TURN_MAX: usize = 1024;
/// Requested buffer of the message to a new keeper, in bytes.
const PASSED_BYTES: usize = 256 * 1024;
/// Pause after an error of the socket, in milliseconds.
const ERROR_PAUSE_MS: u64 = 1_000;

/// How often systemd is told something until it reads, and the pause before each further time, in milliseconds.
const SENDS_MAX: u32 = 100;
const SEND_AGAIN_MS: u64 = 20;

/// The message of a command that stops everything for a restart.
const STOPPING: &str = "CLUSTERD_STOPPING=1";

#[derive(Debug)]
pub(super) struct Store {
    kept: Mutex<Kept>,
    /// systemd's socket, where it has a store.
    manager: Option<OsString>,
}

#[derive(Debug)]
struct Kept {
    /// Where messages come.
    socket: OwnedFd,
    /// Sockets by the names that keepers gave them: `listen/APP/KEY`, `slot/APP/KEY/SLOT`.
    files: BTreeMap<String, OwnedFd>,
    /// It was said that no more are kept.
    is_full_said: bool,
    /// Everything ends, and starts again with this process.
    is_stopping: bool,
}

impl Store {
    /// Takes what an earlier process of this kind left with systemd, and listens to keepers from now on. To be called before
    /// anything is started. `None`: it cannot listen, and nothing is kept.
    pub(super) fn open(home: &Home) -> Option<Arc<Store>> {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let manager = variable("NOTIFY_SOCKET").filter(|_| variable("FDSTORE").is_some());
        let files = left_with_systemd();
        let bound = home.prepare_store().map_err(|error| error.to_string()).and_then(|path| {
            let bound =
                notify::bind_for(&path, user::own_uid()).map_err(|error| format!("{}: {error}", path.display()));
            bound.and_then(|socket| Ok((socket.try_clone().map_err(|error| error.to_string())?, socket)))
        });
        let (socket, watched) = match bound {
            Ok(both) => both,
            Err(why) => {
                log::warn!("cannot keep listening sockets for a next start: {why}");
                return None;
            }
        };
        let store = Arc::new(Store {
            kept: Mutex::new(Kept { socket, files, is_full_said: false, is_stopping: false }),
            manager,
        });
        let listening = Arc::clone(&store);
        let started = std::thread::Builder::new().name("store".into()).spawn(move || listening.listen(&watched));
        if let Err(error) = started {
            log::warn!("cannot keep listening sockets for a next start: no thread: {error}");
            return None;
        }
        Some(store)
    }

    /// Where keepers of this home can leave sockets, if anybody takes them there.
    pub(super) fn address(home: &Home) -> Option<PathBuf> {
        let path = std::path::absolute(home.store_path()).ok()?;
        notify::tell(path.as_os_str(), "STATUS=", None).is_ok().then_some(path)
    }

    /// Tells whoever keeps sockets that everything is about to be stopped, and starts again with the service.
    pub(super) fn announce_stop(home: &Home) {
        // Nobody may be there.
        let _ = notify::tell(home.store_path().as_os_str(), STOPPING, None);
    }

    /// The standard input of a keeper that is to get the sockets of these apps.
    pub(super) fn input_for(&self, is_its: impl Fn(&str) -> bool) -> Option<OwnedFd> {
        let kept = self.kept();
        let its = kept.files.iter().filter(|(name, _)| is_its(app_of(name)));
        let (names, fds): (Vec<&str>, Vec<BorrowedFd<'_>>) = its.map(|(name, fd)| (name.as_str(), fd.as_fd())).unzip();
        if names.is_empty() {
            return None;
        }
        let passed = packet::pair(PASSED_BYTES).and_then(|(ours, theirs)| {
            packet::send(ours.as_fd(), names.join("\n").as_bytes(), &fds)?;
            Ok(theirs)
        });
        passed.map_err(|error| log::warn!("cannot pass the kept sockets on: {error}")).ok()
    }

    /// Closes the sockets of all other apps, unless everything starts again.
    pub(super) fn keep_only(&self, is_wanted: impl Fn(&str) -> bool) {
        let mut kept = self.kept();
        self.read(&mut kept);
        if !kept.is_stopping {
            let others = kept.files.keys().filter(|name| !is_wanted(app_of(name)));
            others.cloned().collect::<Vec<_>>().iter().for_each(|name| self.remove(&mut kept, name));
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listen(&self, watched: &OwnedFd) {
        loop {
            if let Err(error) = poll::wait(&mut [poll::Interest::new(watched.as_fd(), false)], None) {
                log::warn!("cannot wait for what keepers leave: {error}");
                std::thread::sleep(Duration::from_millis(ERROR_PAUSE_MS));
            }
            self.read(&mut self.kept());
        }
    }

    /// Reads the messages that have come.
    fn read(&self, kept: &mut Kept) {
        let mut buffer = [0; MESSAGE_BYTES_MAX];
        for _ in 0..MESSAGES_PER_TURN_MAX {
            match notify::receive_with_files(kept.socket.as_fd(), &mut buffer) {
                Ok((Some(from), files)) if from.uid == user::own_uid() => {
                    self.note(kept, &String::from_utf8_lossy(&buffer[..from.bytes]), files.into_iter().next());
                }
                Ok(_) => {}
                // There are no more, or this one cannot be received.
                Err(_) => return,
            }
        }
    }

    /// A message of a keeper. What is not about the store is for a service manager that starts one deployment.
    fn note(&self, kept: &mut Kept, said: &str, file: Option<OwnedFd>) {
        if let Some(name) = said.strip_prefix("FDSTOREREMOVE=1\nFDNAME=") {
            return self.remove(kept, name);
        }
        kept.is_stopping |= said == STOPPING;
        let (Some(name), Some(file)) = (said.strip_prefix("FDSTORE=1\nFDNAME="), file) else { return };
        if kept.files.len() >= FILES_MAX && !kept.files.contains_key(name) {
            if !std::mem::replace(&mut kept.is_full_said, true) {
                log::warn!("cannot keep {name} for a next start: the limit of {FILES_MAX} sockets is reached");
            }
            return;
        }
        self.tell_manager(said, Some(file.as_fd()));
        kept.files.insert(name.to_owned(), file);
    }

    fn remove(&self, kept: &mut Kept, name: &str) {
        if kept.files.remove(name).is_some() {
            self.tell_manager(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), None);
        }
    }

    fn tell_manager(&self, text: &str, file: Option<BorrowedFd<'_>>) {
        let Some(address) = &self.manager else { return };
        let mut told = notify::tell(address, text, file);
        // It has not read what it was told before.
        for _ in 0..SENDS_MAX {
            if !told.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
                break;
            }
            std::thread::sleep(Duration::from_millis(SEND_AGAIN_MS));
            told = notify::tell(address, text, file);
        }
        if let Err(error) = told {
            log::warn!("cannot send {text:?} to the service manager at {}: {error}", Path::new(address).display());
        }
    }
}

/// The app in a name.
fn app_of(name: &str) -> &str {
    name.split('/').nth(1).unwrap_or_default()
}

/// The sockets that systemd passes, by name.
fn left_with_systemd() -> BTreeMap<String, OwnedFd> {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    if variable("LISTEN_PID").parse() != Ok(std::process::id()) {
        return BTreeMap::new();
    }
    let count: usize = variable("LISTEN_FDS").parse().unwrap_or_default();
    let names = variable("LISTEN_FDNAMES");
    let taken = names.split(':').zip(3..).take(count.min(FILES_MAX)).filter_map(|(name, number)| {
        match process::take_inherited_fd(number) {
            Ok(fd) => Some((name.to_owned(), fd)),
            Err(error) => {
                log::warn!("LISTEN_FDS is {count}, but fd {number} is not open: {error}");
                None
            }
        }
    });
    taken.collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::collections::VecDeque;
    use std::fs::File;

    fn store() -> Store {
        let socket = notify::bind_abstract().unwrap();
        Store {
            kept: Mutex::new(Kept { socket, files: BTreeMap::new(), is_full_said: false, is_stopping: false }),
            manager: None,
        }
    }

    fn hear(store: &Store, said: &str, has_file: bool) {
        let null = has_file.then(|| OwnedFd::from(File::open("/dev/null").unwrap()));
        store.note(&mut store.kept(), said, null);
    }

    fn names(store: &Store) -> Vec<String> {
        store.kept().files.keys().cloned().collect()
    }

    #[test]
    fn a_next_keeper_gets_the_sockets_of_its_apps() {
        let store = store();
        hear(&store, "FDSTORE=1\nFDNAME=listen/web/*%3A80", true);
        hear(&store, "FDSTORE=1\nFDNAME=listen/web/*%3A81", true);
        hear(&store, "FDSTORE=1\nFDNAME=listen/api/*%3A82", true);
        hear(&store, "READY=1\nSTATUS=Serving", false);
        hear(&store, "FDSTORE=1\nFDNAME=listen/web/lost", false);
        hear(&store, "FDSTOREREMOVE=1\nFDNAME=listen/web/*%3A81", false);
        let input = store.input_for(|app| app == "web").unwrap();
        let (mut buffer, mut fds) = ([0; 100], VecDeque::new());
        let passed = packet::receive(&input, &mut buffer, &mut fds).unwrap();
        assert_eq!((passed, fds.len()), (packet::Packet::Whole("listen/web/*%3A80".len()), 1));
        assert!(buffer.starts_with(b"listen/web/*%3A80"));
        assert_eq!(packet::receive(&input, &mut buffer, &mut fds).unwrap(), packet::Packet::End);
        assert!(store.input_for(|app| app == "other").is_none());
        store.keep_only(|app| app == "api");
        assert_eq!(names(&store), ["listen/api/*%3A82"]);
        // What is stopped for a restart starts again.
        hear(&store, STOPPING, false);
        store.keep_only(|_| false);
        assert_eq!(names(&store), ["listen/api/*%3A82"]);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let store = store();
        (0..FILES_MAX + 5).for_each(|n| hear(&store, &format!("FDSTORE=1\nFDNAME=listen/web/{n}"), true));
        assert_eq!(names(&store).len(), FILES_MAX);
        assert!(store.input_for(|_| true).is_some());
    }
}
