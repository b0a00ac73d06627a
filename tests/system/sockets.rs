//! The master's sockets and epolls: real ones, whose calls are those of a simulated process.
use crate::actor::{Me, Until};
use crate::bugs::{self, Bug};
use crate::random::Random;
use clusterd::keeper::link::KeeperSocket;
use clusterd::master::system::{Epoll, Interest, Linux, Readiness, System};
use clusterd::os::fdpass::Received;
use clusterd::os::packet::{self, Packet};
use clusterd::worker::node::channel::{ChannelSocket, Wire};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// A socket of the master whose calls are those of a simulated process.
#[derive(Debug)]
pub(crate) struct Socket {
    me: Option<Me>,
    fd: OwnedFd,
    /// Packets that a fault holds back, each until so many others have been sent.
    delayed: RefCell<VecDeque<(usize, Vec<u8>)>>,
    /// A packet was received in this turn.
    has_received: Cell<bool>,
}

impl Socket {
    pub(crate) fn new(me: Option<Me>, fd: OwnedFd) -> Socket {
        Socket { me, fd, delayed: RefCell::default(), has_received: Cell::new(false) }
    }

    fn has_bug(&self, shows: impl FnOnce(Bug, &mut Random) -> bool) -> bool {
        self.me.as_ref().is_some_and(|me| me.has_bug(shows))
    }
}

/// How many of these bytes a read or a write of a TCP connection takes. (On channels Linux cuts nothing short: a small line is written as
/// a whole, and a read takes all that is there.)
pub(crate) fn part(me: Option<&Me>, bytes: usize) -> usize {
    me.map_or(bytes, |me| me.world.state().part(bytes))
}

pub(crate) fn call(me: Option<&Me>, name: &'static str) -> io::Result<()> {
    me.map_or(Ok(()), |me| me.call(name))
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<Socket> for OwnedFd {
    fn from(socket: Socket) -> OwnedFd {
        socket.fd
    }
}

impl KeeperSocket for Socket {
    fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        call(self.me.as_ref(), if fds.is_empty() { "sendmsg" } else { "sendmsg with files" })?;
        if self.has_bug(|bug, random| bug.loses(random, bytes)) {
            return Ok(());
        }
        if self.has_bug(|bug, _| bug.delays(bytes)) {
            self.delayed.borrow_mut().push_back((bugs::NOTE_DELAY, bytes.to_vec()));
            return Ok(());
        }
        packet::send(self.fd.as_fd(), bytes, fds)?;
        let mut delayed = self.delayed.borrow_mut();
        delayed.iter_mut().for_each(|(left, _)| *left = left.saturating_sub(1));
        while delayed.front().is_some_and(|(left, _)| *left == 0) {
            let Some((_, packet)) = delayed.pop_front() else { break };
            packet::send(self.fd.as_fd(), &packet, &[])?;
        }
        Ok(())
    }

    fn receive(&self, buffer: &mut [u8], fds: &mut VecDeque<OwnedFd>) -> io::Result<Packet> {
        call(self.me.as_ref(), "recvmsg")?;
        if self.has_received.replace(false) && self.has_bug(|bug, _| bug == Bug::StarvedBudget) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let packet = packet::receive(&self.fd, buffer, fds)?;
        self.has_received.set(true);
        if let (Packet::Whole(length), Some(me)) = (&packet, &self.me) {
            let mut lost = None;
            me.has_bug(|bug, random| {
                lost = bug.loses_notice(random, &buffer[..*length]);
                lost.is_some()
            });
            if let Some(instead) = lost {
                packet::send(self.fd.as_fd(), &instead, &[])?;
                return KeeperSocket::receive(self, buffer, fds);
            }
        }
        Ok(packet)
    }

    fn wait_readable(&self, ms: u64) -> io::Result<u64> {
        call(self.me.as_ref(), "poll")?;
        let Some(me) = &self.me else { return Ok(0) };
        let end_us = me.world.now_us() + ms * 1_000;
        me.wait(Until::Ready { read: vec![self.fd.as_raw_fd()], write: Vec::new(), at_us: Some(end_us) });
        Ok(end_us.saturating_sub(me.world.now_us()) / 1_000)
    }

    fn file_with(&self, name: &str, bytes: &[u8]) -> io::Result<OwnedFd> {
        call(self.me.as_ref(), "memfd_create")?;
        KeeperSocket::file_with(&self.fd, name, bytes)
    }
}

impl Wire for Socket {
    type Passed = OwnedFd;

    fn send(&self, bytes: &[u8], passed: Option<&OwnedFd>) -> io::Result<usize> {
        call(self.me.as_ref(), if passed.is_none() { "sendmsg" } else { "sendmsg with files" })?;
        Wire::send(&self.fd, bytes, passed)
    }

    fn receive(&self, into: &mut [u8], passed: &mut VecDeque<OwnedFd>) -> io::Result<Received> {
        call(self.me.as_ref(), "recvmsg")?;
        Wire::receive(&self.fd, into, passed)
    }
}

impl ChannelSocket for Socket {
    fn unread_by_peer(&self) -> usize {
        self.fd.unread_by_peer()
    }

    fn send_lent(&self, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<usize> {
        call(self.me.as_ref(), if fd.is_none() { "sendmsg" } else { "sendmsg with files" })?;
        self.fd.send_lent(bytes, fd)
    }
}

/// A real epoll that waits in the time of the world.
pub(crate) struct WorldEpoll {
    me: Option<Me>,
    real: <Linux as System>::Epoll,
}

impl WorldEpoll {
    pub(crate) fn new(me: Option<Me>, real: <Linux as System>::Epoll) -> WorldEpoll {
        WorldEpoll { me, real }
    }
}

impl Epoll for WorldEpoll {
    fn add(&self, fd: BorrowedFd<'_>, token: usize, interest: Interest) -> io::Result<()> {
        call(self.me.as_ref(), "epoll_ctl")?;
        self.real.add(fd, token, interest)
    }

    fn change(&self, fd: BorrowedFd<'_>, token: usize, interest: Interest) -> io::Result<()> {
        call(self.me.as_ref(), "epoll_ctl")?;
        self.real.change(fd, token, interest)
    }

    fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        call(self.me.as_ref(), "epoll_ctl")?;
        self.real.remove(fd)
    }

    fn add_set(&self, inner: &WorldEpoll, token: usize) -> io::Result<()> {
        call(self.me.as_ref(), "epoll_ctl")?;
        self.real.add_set(&inner.real, token)
    }

    fn remove_set(&self, inner: &WorldEpoll) -> io::Result<()> {
        call(self.me.as_ref(), "epoll_ctl")?;
        self.real.remove_set(&inner.real)
    }

    fn waker(&self, token: usize) -> io::Result<Arc<dyn Fn() + Send + Sync>> {
        self.real.waker(token)
    }

    fn wait(&mut self, timeout_ms: u64, mut take: impl FnMut(Readiness)) -> io::Result<()> {
        call(self.me.as_ref(), "epoll_wait")?;
        if timeout_ms > 0
            && let Some(me) = &self.me
        {
            let at_us = Some(me.world.now_us() + timeout_ms * 1_000);
            me.wait(Until::Ready { read: vec![self.real.number()], write: Vec::new(), at_us });
        }
        let me = self.me.clone();
        self.real.wait(0, |event| {
            if !me.as_ref().is_some_and(|me| me.has_bug(Bug::loses_edge)) {
                take(event);
            }
        })
    }
}
