//! The master's end of one worker's channel: bytes in and out of the socket, fds beside them. What the lines mean is
//! `node`'s business.
use crate::limits;
use crate::os::fdpass::{self, Received};
use crate::os::packet;
use crate::worker::node::framing::{CHANNEL_READ_BYTES, LineBuffer, Outbox, OutboxFull};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use thiserror::Error;

/// Answers that may wait for a worker that is read nevertheless.
const OWED_LINES_MAX: usize = limits::CHANNEL_OUTBOX_LINES_MAX / 2;

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

/// The socket of a channel: its [`Wire`] passes fds.
pub trait ChannelSocket: Wire<Passed = OwnedFd> + AsFd + Into<OwnedFd> {
    /// Bytes that the peer has not read yet.
    fn unread_by_peer(&self) -> usize;

    /// As [`Wire::send`], with an fd that is only lent.
    ///
    /// # Errors
    /// As [`fdpass::send_with_fd`].
    fn send_lent(&self, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<usize>;
}

impl ChannelSocket for OwnedFd {
    fn unread_by_peer(&self) -> usize {
        fdpass::unread_by_peer(self.as_fd())
    }

    fn send_lent(&self, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<usize> {
        fdpass::send_with_fd(self.as_fd(), bytes, fd)
    }
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

pub struct Channel<W: Wire = OwnedFd> {
    wire: W,
    /// Lines that arrive.
    pub inbox: LineBuffer,
    /// Fds that arrived with them, not yet claimed by a line.
    pub(crate) fds: VecDeque<W::Passed>,
    outbox: Outbox,
    /// Copies of fds that wait in the outbox with their line, in order.
    outbox_fds: VecDeque<W::Passed>,
    /// Our count of messages (`seq` of what we send that is not a hand-off).
    seq: u64,
    /// Lines that were added and are not to go out yet.
    held: usize,
    /// The socket took no more at the last try.
    full: bool,
    /// The system has too little for what waits; no event tells when that ends.
    lacks_resources: bool,
    /// The other side closed, or the socket broke: nothing can be sent any more.
    pub(crate) closed: bool,
    /// Nothing is read any more. A channel that is closed for us may have lines that the worker wrote before it died: what it
    /// has taken, and what it gave back.
    pub(crate) is_read_out: bool,
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
    /// More fds than a well-behaved worker sends.
    TooManyFds,
}

/// A line cannot be sent, now or later.
#[derive(Debug, Error)]
pub(crate) enum Unsendable {
    /// Too many wait: the worker does not read its channel.
    #[error("it does not read its channel: {} messages wait", limits::CHANNEL_OUTBOX_LINES_MAX)]
    Full,
    /// It carries an fd and has to wait, and there is no free fd for a copy of it.
    #[error("cannot keep a copy of the socket that it asked for: {0}")]
    NoFd(io::Error),
}

/// Whether a line went out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// All of it.
    Whole,
    /// The worker does not read at the moment; nothing was sent.
    Blocked,
    /// The system has too little (fds under way, memory), whatever the worker does; nothing was sent.
    NoResources(i32),
    /// The channel is broken.
    Broken,
}

impl<W: Wire> Channel<W> {
    /// `resumed`: a previous master read from it, so the first line may be a piece of one.
    pub fn new(wire: W, resumed: bool) -> Channel<W> {
        let inbox = if resumed { LineBuffer::resumed() } else { LineBuffer::new() };
        Channel {
            wire,
            inbox,
            fds: VecDeque::new(),
            outbox: Outbox::new(),
            outbox_fds: VecDeque::new(),
            seq: 0,
            held: 0,
            full: false,
            lacks_resources: false,
            closed: false,
            is_read_out: false,
        }
    }

    /// One read into the inbox.
    #[inline]
    pub fn read(&mut self) -> Read {
        let space = self.inbox.spare(CHANNEL_READ_BYTES);
        let room = space.len();
        let before = self.fds.len();
        match self.wire.receive(space, &mut self.fds) {
            Ok(got) if got.bytes == 0 => Read::Closed,
            Ok(got) => {
                self.inbox.filled(got.bytes);
                // One that got lost, because no fd was free, is asked for again when its line comes.
                if self.fds.len() > limits::CHANNEL_FDS_PENDING_MAX {
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

    /// Whether lines wait because the worker does not read, or would have to.
    #[inline]
    pub fn is_blocked(&self) -> bool {
        self.full || !self.outbox.is_empty()
    }

    /// Whether lines wait that only time can send.
    pub(crate) fn lacks_resources(&self) -> bool {
        self.lacks_resources && !self.outbox.is_empty()
    }

    /// Sends a hand-off: whole or not at all, and never past lines that wait.
    #[inline]
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
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.full = true;
                    return Sent::Blocked;
                }
                Err(e) if packet::is_temporary(&e) => return Sent::NoResources(e.raw_os_error().unwrap_or(0)),
                Err(_) => return Sent::Broken,
            }
        }
    }

    /// Whether so many lines wait for the worker that it has to read them before it is read itself: the rest of the room
    /// is for what the master says by itself.
    pub fn owes_reading(&self) -> bool {
        self.outbox.control_lines() >= OWED_LINES_MAX
    }

    /// Lines that wait for the worker, without messages.
    pub(crate) fn waiting_control_lines(&self) -> usize {
        self.outbox.control_lines()
    }

    /// Writes what waits, as far as the worker reads. Whether anything went out.
    pub(crate) fn flush(&mut self) -> bool {
        (self.full, self.lacks_resources) = (false, false);
        let (mut any, mut together) = (false, Vec::new());
        while let Some((bytes, attachment)) = self.outbox.front_lines(&mut together) {
            match self.wire.send(bytes, attachment.and_then(|_| self.outbox_fds.front())) {
                Ok(sent) => {
                    if attachment.is_some() {
                        self.outbox_fds.pop_front();
                    }
                    self.outbox.written(sent);
                    any = true;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if may_pass(&e) => {
                    self.lacks_resources = e.kind() != io::ErrorKind::WouldBlock;
                    return any;
                }
                Err(_) => {
                    self.closed = true;
                    return any;
                }
            }
        }
        any
    }
}

impl<W: ChannelSocket> Channel<W> {
    /// The fds of a channel that is of no more use, its own and those that nobody claimed: closing them may wait.
    pub(crate) fn into_fds(self) -> impl Iterator<Item = OwnedFd> {
        self.fds.into_iter().chain([self.wire.into()])
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.wire.as_fd()
    }

    pub(crate) fn next_seq(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }

    /// Whether the worker has read everything that was sent to it.
    pub(crate) fn all_read(&self) -> bool {
        !self.is_blocked() && self.wire.unread_by_peer() == 0
    }

    /// Whether a line went out in part: whoever writes next would spoil it.
    pub(crate) fn is_cut(&self) -> bool {
        self.outbox.is_cut() && !self.closed
    }

    /// The size of the messages that wait for the worker.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.outbox.message_bytes()
    }

    /// Whether so many messages wait for the worker that their senders should wait too.
    pub(crate) fn is_high(&self) -> bool {
        self.outbox.is_high()
    }

    /// Sends a message that somebody else sent, or lets it wait its turn.
    ///
    /// # Errors
    /// When too many wait: this one is not sent, and nothing else happens.
    pub(crate) fn send_message(&mut self, line: &[u8]) -> Result<(), OutboxFull> {
        self.outbox.push_message(line)?;
        self.flush();
        Ok(())
    }

    /// Sends a control line, or lets it wait its turn.
    ///
    /// # Errors
    /// It can neither be sent nor wait.
    pub(crate) fn send_line(&mut self, line: &[u8], fd: Option<BorrowedFd<'_>>) -> Result<(), Unsendable> {
        if self.held > 0 {
            return self.hold_line(line, fd);
        }
        let (mut line, mut fd) = (line, fd);
        if !self.closed && self.outbox.is_empty() {
            match self.wire.send_lent(line, fd) {
                Ok(sent) => (line, fd) = (&line[sent..], None),
                Err(e) if may_pass(&e) => {}
                Err(_) => self.closed = true,
            }
        }
        if self.closed || line.is_empty() {
            return Ok(());
        }
        self.enqueue(line, fd)?;
        self.flush();
        Ok(())
    }

    /// As [`Channel::send_line`], but it goes out with [`Channel::flush_held`].
    ///
    /// # Errors
    /// It cannot wait.
    pub(crate) fn hold_line(&mut self, line: &[u8], fd: Option<BorrowedFd<'_>>) -> Result<(), Unsendable> {
        if self.closed {
            return Ok(());
        }
        self.enqueue(line, fd)?;
        self.held += 1;
        Ok(())
    }

    /// Lines that are held back.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Sends the lines that were held back.
    pub(crate) fn flush_held(&mut self) {
        if std::mem::take(&mut self.held) > 0 {
            self.flush();
        }
    }

    fn enqueue(&mut self, line: &[u8], fd: Option<BorrowedFd<'_>>) -> Result<(), Unsendable> {
        // A copy, because the listener may be gone when the line's turn comes.
        let copy = fd.map(|fd| fd.try_clone_to_owned()).transpose().map_err(Unsendable::NoFd)?;
        self.outbox.push(line, copy.is_some().then_some(0)).map_err(|OutboxFull| Unsendable::Full)?;
        self.outbox_fds.extend(copy);
        Ok(())
    }
}

/// Full socket, or too many fds under way that nobody has read yet (unix(7), ETOOMANYREFS).
fn may_pass(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Interrupted || packet::is_temporary(error)
}
