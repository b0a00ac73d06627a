//! The home: `$CLUSTERD_HOME/run` with a socket, a lock and an entry for each deployment. The lock on a name is
//! released when the last process that holds it exits, so files left by a crash are never in the way. Entries are in
//! `entry`, the list that survives a reboot in `dump`.
mod dump;
mod entry;
mod file;
mod trust;

pub use dump::Dump;
pub use entry::{Entry, EntryApp, Registry, deployment_name};
pub use file::FileProblem;

use crate::limits;
use crate::os::{listen, lock, user};
use std::fs;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;

/// Pause between two checks of that.
pub(super) const REGISTRY_RETRY_MS: u64 = 2;

/// Tries to get a lock: a process that only checks whether a deployment lives holds it for microseconds.
const CLAIM_TRIES_MAX: u32 = 25;

/// Longest path of a unix socket, in bytes (`sun_path` without its NUL).
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// A folder for control sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    path: PathBuf,
}

/// A name that is claimed while the lock is held.
#[derive(Debug)]
pub struct Claim {
    /// The name, made unique if the user did not choose it.
    pub name: String,
    /// Every copy of this fd holds the lock.
    pub lock: OwnedFd,
    /// The path of its control socket.
    path: PathBuf,
}

impl Claim {
    /// Binds the control socket: others find us from now on.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn listen(&self) -> Result<UnixListener, HomeError> {
        bind_control(&self.path)
    }
}

/// Binds the control socket of a deployment whose name this process holds.
///
/// # Errors
/// The folder cannot be written.
pub fn bind_control(path: &Path) -> Result<UnixListener, HomeError> {
    let run = path.parent().unwrap_or(path).to_owned();
    listen::bind_control(path).map_err(|source| HomeError::Unusable { path: run, source })
}

/// Why the home, or a file in it, cannot be used.
#[derive(Debug, Error)]
pub enum HomeError {
    /// There is neither CLUSTERD_HOME nor HOME.
    #[error("neither CLUSTERD_HOME nor HOME is set; set CLUSTERD_HOME to a folder")]
    Unknown,
    /// The folder cannot be used: read-only, somebody else's, and the like.
    #[error(
        "cannot use {path}: {source}; set CLUSTERD_HOME to a folder that this user may write",
        path = .path.display()
    )]
    Unusable { path: PathBuf, source: io::Error },
    /// The folder belongs to another user.
    #[error("{path} belongs to user {owner}, not to {own}; run: chmod 700 {path}", path = .path.display())]
    Foreign { path: PathBuf, owner: u32, own: u32 },
    /// Root's, and others may change what is in it.
    #[error("{path} {why}; set CLUSTERD_HOME to a folder that root alone can change", path = .path.display())]
    Untrusted { path: PathBuf, why: String },
    /// Others may write to the folder.
    #[error("other users can write to {path}; run: chmod 700 {path}", path = .0.display())]
    Insecure(PathBuf),
    /// The path of the socket is too long for the kernel.
    #[error(
        "the path of the control socket is longer than {SOCKET_PATH_BYTES_MAX} bytes: {path}; set a shorter \
         CLUSTERD_HOME",
        path = .0.display()
    )]
    PathTooLong(PathBuf),
    /// The name is in use by a running deployment.
    #[error(
        "an app or deployment called {name:?} is there already ({holder}); choose another --name, or delete that one: \
         clusterd delete {name}"
    )]
    Taken { name: String, holder: String },
    /// Another start holds the registry for too long.
    #[error(
        "another start has held {path} for {s} s; try again when it has ended",
        path = .0.display(),
        s = limits::REGISTRY_WAIT_MS / 1000
    )]
    Busy(PathBuf),
    /// An entry cannot be used.
    #[error("{path} {problem}{remedy}", path = .path.display(), remedy = remedy(.problem))]
    Entry { path: PathBuf, problem: FileProblem },
    /// Nothing was saved, or the saved list cannot be used.
    #[error("{path} {problem}; clusterd save writes it", path = .path.display())]
    NotSaved { path: PathBuf, problem: FileProblem },
}

fn remedy(problem: &FileProblem) -> &'static str {
    if matches!(problem, FileProblem::Damaged(_)) { "; remove it" } else { "" }
}

impl HomeError {
    /// Whether a run can continue without a home: without a control socket.
    pub fn is_unusable_home(&self) -> bool {
        match self {
            HomeError::Unknown
            | HomeError::Unusable { .. }
            | HomeError::Foreign { .. }
            | HomeError::Untrusted { .. }
            | HomeError::Insecure(_)
            | HomeError::PathTooLong(_) => true,
            HomeError::Taken { .. } | HomeError::Busy(_) | HomeError::Entry { .. } | HomeError::NotSaved { .. } => {
                false
            }
        }
    }
}

impl Home {
    /// The home: as typed, else `~/.clusterd`.
    ///
    /// # Errors
    /// Neither is known.
    pub fn find(typed: Option<&Path>) -> Result<Home, HomeError> {
        match (typed, std::env::var_os("HOME")) {
            (Some(path), _) => Ok(Home { path: path.to_owned() }),
            (None, Some(home)) if !home.is_empty() => Ok(Home { path: Path::new(&home).join(".clusterd") }),
            (None, Some(_) | None) => Err(HomeError::Unknown),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A number that no other folder of this machine has at the same time. `None`: there is no such folder.
    pub fn mark(&self) -> Option<u64> {
        let path = fs::canonicalize(&self.path).ok()?;
        let found = fs::metadata(&path).ok()?;
        let numbers = [found.dev(), found.ino()].map(u64::to_le_bytes);
        let all = numbers.as_flattened().iter().chain(path.as_os_str().as_bytes());
        // FNV-1a: the same in every version of this program.
        Some(
            all.fold(0xcbf2_9ce4_8422_2325, |sum: u64, byte| {
                (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
            }),
        )
    }

    /// The folder of sockets, locks, and the preload of workers of our own user.
    pub fn run_dir(&self) -> PathBuf {
        self.path.join("run")
    }

    /// The path of a deployment's control socket, existing or not.
    pub fn socket_path(&self, name: &str) -> PathBuf {
        self.run_dir().join(format!("{name}.sock"))
    }

    /// Checks that the kernel can bind the control socket of a deployment of this name.
    ///
    /// # Errors
    /// Its path is too long.
    fn check_socket_path(&self, name: &str) -> Result<(), HomeError> {
        let path = self.socket_path(name);
        let fits = path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX;
        if fits { Ok(()) } else { Err(HomeError::PathTooLong(path)) }
    }

    /// The path of a deployment's notify socket, as long as that of the control socket.
    pub fn notify_path(&self, name: &str) -> PathBuf {
        self.run_dir().join(format!("{name}.ntfy"))
    }

    /// The path for `resurrect --stay` to bind; creates its folder.
    ///
    /// # Errors
    /// The folder cannot be used.
    pub fn prepare_store(&self) -> Result<PathBuf, HomeError> {
        self.open().map(|_| self.store_path())
    }

    /// Where `resurrect --stay` takes listening sockets that it keeps.
    pub fn store_path(&self) -> PathBuf {
        self.run_dir().join("kept.ntfy")
    }

    /// The path of a background deployment's log; creates its folder.
    ///
    /// # Errors
    /// The folder cannot be created.
    pub fn log_path(&self, name: &str) -> Result<PathBuf, HomeError> {
        let folder = self.path.join("logs");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(|source| HomeError::Unusable { path: folder.clone(), source })?;
        Ok(folder.join(format!("{name}.clusterd.log")))
    }

    /// Whether a process holds the name of this deployment.
    pub fn is_alive(&self, name: &str) -> bool {
        let path = self.run_dir().join(format!("{name}.lock"));
        // Without access to the lock, we could not talk to its owner either.
        path.exists() && matches!(lock::take(&path), Ok(None))
    }

    /// The keeper behind a control socket: signals go to it when no master answers.
    pub fn keeper_of(socket: &Path) -> Option<i32> {
        fs::read_to_string(socket.with_extension("lock")).ok()?.trim().parse().ok()
    }

    /// Whether root can rely on what is in it.
    fn check_trust(&self) -> Result<(), HomeError> {
        trust::check(&self.path).map_err(|trust::Doubt { path, why }| HomeError::Untrusted { path, why })
    }

    /// Creates the folder where missing, and checks that others cannot write to it.
    fn open(&self) -> Result<PathBuf, HomeError> {
        self.check_trust()?;
        let run = self.run_dir();
        let unusable = |source| HomeError::Unusable { path: run.clone(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&run).map_err(unusable)?;
        let found = fs::metadata(&run).map_err(unusable)?;
        let own = user::own_uid();
        if found.uid() != own && own != 0 {
            return Err(HomeError::Foreign { path: run, owner: found.uid(), own });
        }
        if found.permissions().mode() & 0o022 != 0 {
            return Err(HomeError::Insecure(run));
        }
        Ok(run)
    }

    /// The sockets in this home, by name, including dead ones.
    pub fn sockets(&self) -> Vec<(String, PathBuf)> {
        let Ok(entries) = fs::read_dir(self.run_dir()) else { return Vec::new() };
        let mut found: Vec<(String, PathBuf)> = entries
            .flatten()
            .take(2 * limits::MASTERS_PER_HOME_MAX)
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|e| e == "sock"))
            .filter_map(|path| Some((path.file_stem()?.to_str()?.to_owned(), path)))
            .collect();
        found.sort();
        found
    }

    /// Claims a name.
    ///
    /// # Errors
    /// See [`HomeError`]; `Taken` when a process holds the name.
    pub fn claim(&self, name: &str) -> Result<Claim, HomeError> {
        let run = self.open()?;
        self.check_socket_path(name)?;
        let path = self.socket_path(name);
        let unusable = |source| HomeError::Unusable { path: run.clone(), source };
        let lock_path = run.join(format!("{name}.lock"));
        let mut taken = lock::take(&lock_path).map_err(unusable)?;
        for _ in 0..CLAIM_TRIES_MAX {
            if taken.is_some() {
                break;
            }
            // Another process may only be checking the lock.
            std::thread::sleep(Duration::from_millis(REGISTRY_RETRY_MS));
            taken = lock::take(&lock_path).map_err(unusable)?;
        }
        let Some(mut lock) = taken else {
            let pid = fs::read_to_string(&lock_path).unwrap_or_default();
            return Err(HomeError::Taken {
                name: name.to_owned(),
                holder: format!("its keeper is pid {}", pid.trim()),
            });
        };
        // Identifies the owner of the lock for others; the keeper is the parent of the claiming master.
        lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::os::unix::process::parent_id())).map_err(unusable)?;
        Ok(Claim { name: name.to_owned(), lock: lock.into(), path })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn home(name: &str) -> Home {
        let path = std::env::temp_dir().join(format!("clusterd-home-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Home { path }
    }

    #[test]
    fn a_name_is_held_while_its_holder_lives_and_free_afterwards() {
        let home = home("names");
        let first = home.claim("web").unwrap();
        assert_eq!(fs::metadata(home.run_dir()).unwrap().permissions().mode() & 0o777, 0o700);
        let error = home.claim("web").unwrap_err();
        assert!(error.to_string().contains("is there already"), "{error}");
        assert!(!error.is_unusable_home() && home.is_alive("web"));
        drop(first.listen().unwrap());
        // The socket file stays behind, as after a crash. Another test's child may hold a copy of the lock until it
        // execs.
        drop(first);
        let again = (0..1_000).find_map(|_| home.claim("web").ok());
        assert_eq!(again.unwrap().name, "web");
        assert_eq!(home.sockets().len(), 1);
        fs::remove_dir_all(home.path).unwrap();
    }

    #[test]
    fn a_home_that_cannot_hold_a_socket_says_why() {
        let long = Home { path: home("long").path.join("x".repeat(100)) };
        let error = long.claim("web").unwrap_err();
        assert!(error.to_string().contains("shorter CLUSTERD_HOME"), "{error}");
        let file = home("file");
        fs::write(&file.path, "").unwrap();
        let error = file.claim("web").unwrap_err();
        assert!(error.is_unusable_home() && error.to_string().contains("CLUSTERD_HOME"), "{error}");
        fs::remove_file(file.path).unwrap();
        let open = home("open");
        fs::create_dir_all(open.run_dir()).unwrap();
        fs::set_permissions(open.run_dir(), fs::Permissions::from_mode(0o777)).unwrap();
        let error = open.claim("web").unwrap_err();
        assert!(error.to_string().contains("chmod 700"), "{error}");
        fs::remove_dir_all(open.path).unwrap();
    }
}
