//! poll(2): waiting for a handful of fds, level-triggered. The master's loop, which watches thousands, uses mio.
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use std::io;
use std::os::fd::BorrowedFd;

/// What to wait for on one fd, and what happened.
#[derive(Debug)]
pub struct Interest<'a> {
    fd: PollFd<'a>,
}

impl<'a> Interest<'a> {
    /// Waits until `fd` can be read (or hung up), with `write` also until it can be written.
    #[must_use]
    pub fn new(fd: BorrowedFd<'a>, write: bool) -> Self {
        let flags = if write { PollFlags::POLLIN | PollFlags::POLLOUT } else { PollFlags::POLLIN };
        Interest { fd: PollFd::new(fd, flags) }
    }

    /// Waits until `fd` can be written.
    #[must_use]
    pub fn to_write(fd: BorrowedFd<'a>) -> Self {
        Interest { fd: PollFd::new(fd, PollFlags::POLLOUT) }
    }

    /// Something can be read, or the other side is gone, or the fd is broken: reading tells which.
    #[must_use]
    pub fn readable(&self) -> bool {
        self.fd.revents().is_some_and(|seen| {
            seen.intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL)
        })
    }
}

/// Waits until one of `interests` has something or `timeout_ms` is over (`None`: for ever). An interrupting signal
/// counts as the end of the wait.
///
/// # Errors
/// As poll(2): out of memory.
pub fn wait(interests: &mut [Interest<'_>], timeout_ms: Option<u64>) -> io::Result<()> {
    let timeout = match timeout_ms {
        None => PollTimeout::NONE,
        Some(ms) => PollTimeout::try_from(ms.min(3_600_000)).unwrap_or(PollTimeout::MAX),
    };
    let mut fds: Vec<PollFd<'_>> = interests.iter().map(|interest| interest.fd.clone()).collect();
    match nix::poll::poll(&mut fds, timeout) {
        Ok(_) => {
            for (interest, fd) in interests.iter_mut().zip(fds) {
                interest.fd = fd;
            }
            Ok(())
        }
        Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether `fd` takes bytes right now. A pipe that says so takes at least PIPE_BUF (4096) of them without blocking.
#[must_use]
pub fn writable_now(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::POLLOUT)];
    let polled = nix::poll::poll(&mut fds, PollTimeout::ZERO);
    polled.is_ok() && fds[0].revents().is_some_and(|seen| seen.contains(PollFlags::POLLOUT))
}

/// Whether whoever was at the other side of a pipe has left. A pipe that nobody has opened for writing yet has not been left.
#[must_use]
pub fn is_hung_up(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::empty())];
    let polled = nix::poll::poll(&mut fds, PollTimeout::ZERO);
    polled.is_ok() && fds[0].revents().is_some_and(|seen| seen.contains(PollFlags::POLLHUP))
}

/// Waits until `fd` takes bytes, is broken, or `timeout_ms` is over.
pub fn wait_writable(fd: BorrowedFd<'_>, timeout_ms: u64) {
    // That it failed is no more than a wait that was too short.
    let _ = wait(&mut [Interest::to_write(fd)], Some(timeout_ms));
}
