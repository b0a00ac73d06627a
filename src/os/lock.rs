//! A lock file: locked as long as any copy of its fd is open, in any process.
use nix::errno::Errno;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Takes the lock without waiting; `None` when somebody else holds it. It is released when the last copy of the fd is
/// closed; there is no guard, because copies in other processes must keep it.
///
/// # Errors
/// The file cannot be created or opened, or the file system does not support locks.
pub fn take(path: &Path) -> io::Result<Option<File>> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    // SAFETY: flock takes no pointers; the fd is open for the call.
    match Errno::result(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) }) {
        Ok(_) => Ok(Some(file)),
        Err(Errno::EWOULDBLOCK) => Ok(None),
        Err(e) => Err(e.into()),
    }
}
