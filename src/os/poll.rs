//! poll(2): waits for a few fds, level-triggered. The master's loop, which watches thousands, uses mio.
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use std::io;
use std::os::fd::BorrowedFd;

/// What to wait for on one fd, and the result.
#[derive(Debug)]
pub struct Interest<'a> {
    fd: PollFd<'a>,
}

impl<'a> Interest<'a> {
    /// Waits until `fd` is readable (or hung up); with `write` also until it is writable.
    #[must_use]
    pub fn new(fd: BorrowedFd<'a>, write: bool) -> Self {
        let flags = if write { PollFlags::POLLIN | PollFlags::POLLOUT } else { PollFlags::POLLIN };
        Interest { fd: PollFd::new(fd, flags) }
    }

    /// Waits until `fd` is writable.
    #[must_use]
    pub fn to_write(fd: BorrowedFd<'a>) -> Self {
        Interest { fd: PollFd::new(fd, PollFlags::POLLOUT) }
    }

    /// Readable, closed by the peer, or broken: a read tells which.
    #[must_use]
    pub fn readable(&self) -> bool {
        self.fd.revents().is_some_and(|seen| {
            seen.intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL)
        })
    }

    /// Readable: something is there.
    #[must_use]
    pub fn has_input(&self) -> bool {
        self.fd.revents().is_some_and(|seen| seen.contains(PollFlags::POLLIN))
    }
}

/// Waits until one of `interests` is ready or `timeout_ms` is over (`None`: for ever). A signal ends the wait, too.
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

/// Whether `fd` is writable now. A pipe that is takes at least PIPE_BUF (4096) bytes without blocking.
#[must_use]
pub fn writable_now(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::POLLOUT)];
    let polled = nix::poll::poll(&mut fds, PollTimeout::ZERO);
    polled.is_ok() && fds[0].revents().is_some_and(|seen| seen.contains(PollFlags::POLLOUT))
}

/// Whether the last writer of a pipe has closed it. False for a pipe that no writer has opened yet.
#[must_use]
pub fn is_hung_up(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::empty())];
    let polled = nix::poll::poll(&mut fds, PollTimeout::ZERO);
    polled.is_ok() && fds[0].revents().is_some_and(|seen| seen.contains(PollFlags::POLLHUP))
}

/// Whether a read, or an accept, would find something now.
#[must_use]
pub fn is_readable(fd: BorrowedFd<'_>) -> bool {
    let mut interest = [Interest::new(fd, false)];
    wait(&mut interest, Some(0)).is_ok() && interest[0].has_input()
}

/// Waits until `fd` is writable, is broken, or `timeout_ms` is over.
pub fn wait_writable(fd: BorrowedFd<'_>, timeout_ms: u64) {
    // A failure is only a wait that is too short.
    let _ = wait(&mut [Interest::to_write(fd)], Some(timeout_ms));
}
