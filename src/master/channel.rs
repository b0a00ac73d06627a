//! The master's end of one worker's channel: bytes in and out of the socket, fds beside them. What the lines mean is
//! `node`'s business.
use crate::limits;
use crate::os::fdpass::{self, Received};
use crate::os::packet;
use crate::protocol::framing::{LineBuffer, Outbox, OutboxFull};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What a channel's bytes go through: a socket, or a script that stands in for one.
pub trait Wire {
    /// What rides beside the bytes.
    type Passed;

    /// Sends as much as fits, with what rides on its first byte.
    ///
    /// # Errors
    /// As [`fdpass::send_with_fd`].
    fn send(&self, bytes: &[u8], passed: Option<&Self::Passed>) -> io::Result<usize>;

    /// Receives what is there.
    ///
    /// # Errors
    /// As [`fdpass::recv_with_fds`].
    fn receive(&self, into: &mut [u8], passed: &mut VecDeque<Self::Passed>) -> io::Result<Received>;
}

impl Wire for OwnedFd {
    type Passed = OwnedFd;

    fn send(&self, bytes: &[u8], passed: Option<&OwnedFd>) -> io::Result<usize> {
        fdpass::send_with_fd(self.as_fd(), bytes, passed.map(AsFd::as_fd))
    }

    fn receive(&self, into: &mut [u8], passed: &mut VecDeque<OwnedFd>) -> io::Result<Received> {
        fdpass::recv_with_fds(self.as_fd(), into, passed)
    }
}

/// One channel.
pub struct Channel<W: Wire = OwnedFd> {
    wire: W,
    /// Lines that arrive.
    pub inbox: LineBuffer,
    /// Fds that arrived with them, not yet claimed by a line.
    pub(super) fds: VecDeque<W::Passed>,
    outbox: Outbox,
    /// Copies of fds that wait in the outbox with their line, in order.
    outbox_fds: VecDeque<W::Passed>,
    /// Our count of messages (`seq` of what we send that is not a hand-off).
    seq: u64,
    /// The other side closed, or the socket broke.
    pub(super) closed: bool,
}

/// What one read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// Bytes are in the inbox; there may be more in the socket.
    Some,
    /// Bytes are in the inbox and the socket is empty for now.
    Last,
    /// Nothing was there.
    Nothing,
    /// The other side closed.
    Closed,
    /// More fds than any honest worker sends.
    TooManyFds,
}

/// Whether a line went out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// All of it.
    Whole,
    /// The worker does not read at the moment; nothing was sent.
    Blocked,
    /// The channel is broken.
    Broken,
}

impl<W: Wire> Channel<W> {
    /// `resumed`: a former master read from it, so the first line may be a piece of one.
    pub fn new(wire: W, resumed: bool) -> Channel<W> {
        let inbox = if resumed { LineBuffer::resumed() } else { LineBuffer::new() };
        Channel {
            wire,
            inbox,
            fds: VecDeque::new(),
            outbox: Outbox::new(),
            outbox_fds: VecDeque::new(),
            seq: 0,
            closed: false,
        }
    }

    /// One read into the inbox.
    pub fn read(&mut self) -> Read {
        let space = self.inbox.spare(limits::CHANNEL_READ_BYTES);
        let room = space.len();
        let before = self.fds.len();
        match self.wire.receive(space, &mut self.fds) {
            Ok(got) if got.bytes == 0 => Read::Closed,
            Ok(got) => {
                self.inbox.filled(got.bytes);
                if got.truncated_fds || self.fds.len() > limits::CHANNEL_FDS_PENDING_MAX {
                    Read::TooManyFds
                } else if got.bytes < room && self.fds.len() == before {
                    // A short read of a stream without fds has emptied it; what comes later is a new event.
                    Read::Last
                } else {
                    Read::Some
                }
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Read::Nothing,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Read::Some,
            Err(_) => Read::Closed,
        }
    }

    /// Whether lines wait because the worker does not read.
    pub fn is_blocked(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Sends a hand-off: whole or not at all, and never past lines that wait.
    pub fn send_handoff(&mut self, line: &[u8], socket: &W::Passed) -> Sent {
        if self.closed {
            return Sent::Broken;
        }
        if self.is_blocked() {
            return Sent::Blocked;
        }
        loop {
            match self.wire.send(line, Some(socket)) {
                Ok(sent) if sent == line.len() => return Sent::Whole,
                // A small message on a unix stream socket is all or nothing; should it ever be cut, the fd is gone with
                // the first part, so the rest has to follow.
                Ok(sent) => {
                    return match self.outbox.push(&line[sent..], None) {
                        Ok(()) => Sent::Whole,
                        Err(OutboxFull) => Sent::Broken,
                    };
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return if is_transient(&e) { Sent::Blocked } else { Sent::Broken },
            }
        }
    }

    /// Writes what waits, as far as the worker reads. Whether anything went out.
    pub(super) fn flush(&mut self) -> bool {
        let mut any = false;
        while let Some((bytes, attachment)) = self.outbox.front() {
            match self.wire.send(bytes, attachment.and_then(|_| self.outbox_fds.front())) {
                Ok(sent) => {
                    if attachment.is_some() {
                        self.outbox_fds.pop_front();
                    }
                    self.outbox.written(sent);
                    any = true;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if is_transient(&e) => return any,
                Err(_) => {
                    self.closed = true;
                    return any;
                }
            }
        }
        any
    }
}

impl Channel {
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.wire.as_fd()
    }

    pub(super) fn next_seq(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }

    /// Whether the worker has read everything that was sent to it.
    pub(super) fn all_read(&self) -> bool {
        !self.is_blocked() && fdpass::unread_by_peer(self.as_fd()) == 0
    }

    /// Whether a line went out in part: whoever writes next would spoil it.
    pub(super) fn is_cut(&self) -> bool {
        self.outbox.is_cut() && !self.closed
    }

    /// Whether so many messages wait for the worker that their senders should wait too.
    pub(super) fn is_high(&self) -> bool {
        self.outbox.is_high()
    }

    /// Sends a message that somebody else sent, or lets it wait its turn.
    ///
    /// # Errors
    /// When too many wait: this one is not sent, and nothing else happens.
    pub(super) fn send_message(&mut self, line: &[u8]) -> Result<(), OutboxFull> {
        self.outbox.push_message(line)?;
        self.flush();
        Ok(())
    }

    /// Sends a control line, or lets it wait its turn.
    ///
    /// # Errors
    /// When too many lines wait: the worker does not read its channel.
    pub(super) fn send_line(&mut self, line: &[u8], fd: Option<BorrowedFd<'_>>) -> Result<(), OutboxFull> {
        if self.closed {
            return Ok(());
        }
        let attachment = match fd {
            Some(fd) => {
                // A copy, because the listener may be gone when the line's turn comes.
                let Ok(copy) = fd.try_clone_to_owned() else { return Err(OutboxFull) };
                self.outbox_fds.push_back(copy);
                Some(0)
            }
            None => None,
        };
        self.outbox.push(line, attachment)?;
        self.flush();
        Ok(())
    }
}

/// Full socket, or too many fds under way that the worker has not read (unix(7), ETOOMANYREFS).
fn is_transient(error: &io::Error) -> bool {
    packet::is_temporary(error)
}
