//! epoll, level-triggered: waits for many fds to become readable. The master's loop uses mio.
use nix::errno::Errno;
use nix::sys::epoll::{self, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::io;
use std::os::fd::AsFd;

/// The watched fds, each with a token of the caller.
#[derive(Debug)]
pub struct Epoll {
    epoll: epoll::Epoll,
    events: Vec<EpollEvent>,
}

impl Epoll {
    /// `events_max`: how many are returned at a time.
    ///
    /// # Errors
    /// Out of fds.
    pub fn new(events_max: usize) -> io::Result<Epoll> {
        let epoll = epoll::Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        Ok(Epoll { epoll, events: vec![EpollEvent::empty(); events_max] })
    }

    /// Watches this fd too.
    ///
    /// # Errors
    /// The fd cannot be watched (not a pipe or socket), or the system's limit is reached
    /// (`fs.epoll.max_user_watches`).
    pub fn add(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        Ok(self.epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, token))?)
    }

    /// Stops watching this fd.
    pub fn remove(&self, fd: impl AsFd) {
        // It may not be watched: then there is nothing to do.
        let _ = self.epoll.delete(fd);
    }

    /// Waits until an fd is readable or at its end, at most `timeout_ms` (`None`: for ever). Returns the tokens.
    ///
    /// # Errors
    /// As epoll_wait(2).
    pub fn wait(&mut self, timeout_ms: Option<u16>) -> io::Result<impl Iterator<Item = u64>> {
        let timeout = timeout_ms.map_or(EpollTimeout::NONE, EpollTimeout::from);
        let count = match self.epoll.wait(&mut self.events, timeout) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(e) => return Err(e.into()),
        };
        Ok(self.events[..count].iter().map(EpollEvent::data))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::os::pipe;

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know pipes and epoll")]
    fn bytes_and_ends_are_told_until_they_are_read() {
        let (first, to_first) = pipe::pair().unwrap();
        let (second, to_second) = pipe::pair().unwrap();
        let mut epoll = Epoll::new(8).unwrap();
        epoll.add(&first, 1).unwrap();
        epoll.add(&second, 2).unwrap();
        assert_eq!(epoll.wait(Some(0)).unwrap().count(), 0);
        pipe::write_byte(to_first.as_fd());
        drop(to_second);
        for _ in 0..2 {
            let mut ready: Vec<u64> = epoll.wait(None).unwrap().collect();
            ready.sort_unstable();
            assert_eq!(ready, [1, 2]);
        }
        epoll.remove(&second);
        assert_eq!(epoll.wait(None).unwrap().collect::<Vec<_>>(), [1]);
    }
}
