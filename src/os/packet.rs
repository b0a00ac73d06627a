//! SOCK_SEQPACKET pairs: whole messages, in order, with attached fds. The messages are opaque here.
use super::fdpass;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, getsockopt, setsockopt, socketpair, sockopt};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What to say of [`Packet::WithoutFds`].
pub const FDS_LOST: &str = "its file descriptors were lost (no free descriptor numbers?)";

/// The result of a receive.
#[derive(Debug, PartialEq, Eq)]
pub enum Packet {
    /// A whole message of this many bytes.
    Whole(usize),
    /// A message of this many bytes that is whole but for its fds: this process had no free number for one of them. Those
    /// that arrived were closed.
    WithoutFds(usize),
    /// A message that lost bytes, with the reason. The fds that arrived were closed.
    Damaged(&'static str),
    /// The peer has closed.
    End,
}

/// Two connected ends, both CLOEXEC and non-blocking. `buffer_bytes` is the requested size of each send buffer.
///
/// # Errors
/// As socketpair(2): out of fds.
pub fn pair(buffer_bytes: usize) -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let (left, right) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
    for end in [&left, &right] {
        // Only a request: the kernel limits it to net.core.wmem_max, and every message fits in the default too.
        let _ = setsockopt(end, sockopt::SndBuf, &buffer_bytes);
    }
    Ok((left, right))
}

/// Whether this fd is an end of a SOCK_SEQPACKET connection.
#[must_use]
pub fn is_packet_socket(fd: BorrowedFd<'_>) -> bool {
    matches!(getsockopt(&fd, sockopt::SockType), Ok(SockType::SeqPacket))
}

/// Sends one message with copies of `fds`, whole or not at all. Never blocks.
///
/// # Errors
/// `WouldBlock` when the peer does not read; as [`fdpass::send_with_fds`].
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    if bytes.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "an empty packet would read as the end"));
    }
    fdpass::send_with_fds(socket, bytes, fds).map(|_| ())
}

/// Whether a send that failed with this error may succeed once the peer has read.
#[must_use]
pub fn is_temporary(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
        || matches!(error.raw_os_error(), Some(libc::ETOOMANYREFS | libc::ENOBUFS | libc::ENOMEM))
}

/// Receives one message into `buffer` and its fds into `fds` (emptied first). Never blocks.
///
/// # Errors
/// `WouldBlock` when there is no message; other errors of recvmsg(2).
pub fn receive(socket: impl AsFd, buffer: &mut [u8], fds: &mut VecDeque<OwnedFd>) -> io::Result<Packet> {
    fds.clear();
    let received = fdpass::recv_with_fds(socket.as_fd(), buffer, fds)?;
    if received.truncated_bytes {
        fds.clear();
        return Ok(Packet::Damaged("longer than a packet may be"));
    }
    if received.truncated_fds {
        fds.clear();
        return Ok(Packet::WithoutFds(received.bytes));
    }
    if received.bytes == 0 {
        return Ok(Packet::End);
    }
    Ok(Packet::Whole(received.bytes))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know sockets")]
    fn messages_keep_their_borders_and_too_long_ones_are_noticed() {
        let (left, right) = pair(100_000).unwrap();
        assert!(is_packet_socket(left.as_fd()));
        assert!(!is_packet_socket(File::open("/dev/null").unwrap().as_fd()));
        let null = File::open("/dev/null").unwrap();
        send(left.as_fd(), b"one", &[]).unwrap();
        send(left.as_fd(), b"three", &[null.as_fd(), null.as_fd()]).unwrap();
        send(left.as_fd(), b"much longer than that", &[null.as_fd()]).unwrap();
        assert!(send(left.as_fd(), b"", &[]).is_err());
        drop(left);
        let mut buffer = [0; 8];
        let mut fds = VecDeque::new();
        assert_eq!(receive(&right, &mut buffer, &mut fds).unwrap(), Packet::Whole(3));
        assert!(fds.is_empty());
        assert_eq!(receive(&right, &mut buffer, &mut fds).unwrap(), Packet::Whole(5));
        assert_eq!(fds.len(), 2);
        assert!(matches!(receive(&right, &mut buffer, &mut fds).unwrap(), Packet::Damaged(_)));
        assert!(fds.is_empty());
        assert_eq!(receive(&right, &mut buffer, &mut fds).unwrap(), Packet::End);
    }
}
