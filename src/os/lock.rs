//! A lock file: locked as long as any copy of its fd is open, in any process.
use nix::errno::Errno;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Takes the lock without waiting; `None` when somebody else holds it. It is released when the last copy of the fd is
/// closed; there is no guard, because copies in other processes must keep it.
///
/// # Errors
/// The file cannot be created or opened, or the file system does not support locks.
pub fn take(path: &Path) -> io::Result<Option<File>> {
    lock(OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?)
}

/// The same with a folder, which has to exist.
///
/// # Errors
/// It cannot be opened, or the file system does not support locks.
pub fn take_folder(path: &Path) -> io::Result<Option<OwnedFd>> {
    let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
    Ok(lock(OpenOptions::new().read(true).custom_flags(flags).open(path)?)?.map(OwnedFd::from))
}

fn lock(file: File) -> io::Result<Option<File>> {
    // SAFETY: flock takes no pointers; the fd is open for the call.
    match Errno::result(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) }) {
        Ok(_) => Ok(Some(file)),
        Err(Errno::EWOULDBLOCK) => Ok(None),
        Err(e) => Err(e.into()),
    }
}
