//! A log file that is named, and with whose rights it is handled.
use crate::os::place::{self, Missing, Place};
use crate::os::user::Credentials;
use std::fmt;
use std::io;
use std::path::PathBuf;

/// Time limit for an action on a log file with the rights of another user, in milliseconds.
const AS_USER_LOG_WAIT_MS: u64 = 1_000;

/// A log file of an app.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogPath {
    /// Absolute, links not resolved.
    pub path: PathBuf,
    /// The user of the app; `None`: our own. See [`place::within`] for when those rights apply.
    pub user: Option<Credentials>,
}

impl LogPath {
    /// A file that is handled with our own rights.
    #[cfg(test)]
    pub(super) fn own(path: PathBuf) -> LogPath {
        LogPath { path, user: None }
    }

    /// Opens the file for appending and closes it again, so that it is there.
    ///
    /// # Errors
    /// As [`place::within`] and openat(2).
    pub fn check(&self) -> io::Result<()> {
        self.within(Missing::Create, |place| place.append().map(drop))
    }

    /// Handles the file with the rights that apply.
    pub(super) fn within<T: Send + 'static>(
        &self,
        missing: Missing,
        act: impl FnOnce(&Place) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        place::within(self.user.as_ref(), &self.path, missing, Some(AS_USER_LOG_WAIT_MS), act)
    }
}

impl fmt::Display for LogPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}
