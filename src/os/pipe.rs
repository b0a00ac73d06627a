//! Pipes: for workers' output, and for waking a thread.
use nix::fcntl::OFlag;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

/// A pipe: the reading end (non-blocking) and the writing end. Both CLOEXEC. The writing end blocks when the pipe is
/// full, so that a worker that prints faster than it is read is slowed down.
///
/// # Errors
/// Out of fds.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    let flags = OFlag::from_bits_truncate(nix::fcntl::fcntl(&read, nix::fcntl::FcntlArg::F_GETFL)?);
    nix::fcntl::fcntl(&read, nix::fcntl::FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok((read, write))
}

/// Writes one byte, to wake the reader.
pub fn write_byte(pipe: BorrowedFd<'_>) {
    // A full pipe has woken its reader already.
    let _ = nix::unistd::write(pipe, b"x");
}
