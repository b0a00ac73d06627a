//! What the kernel knows of one connection: whether it lives, who is at the other end, and what was read of it.
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `TCP_ESTABLISHED` and `TCP_CLOSE_WAIT` (include/net/tcp_states.h).
const ESTABLISHED: u8 = 1;
const CLOSE_WAIT: u8 = 8;

/// A connection as the kernel sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Both sides may send, or the peer has sent all that it will and some of that is unread.
    pub is_alive: bool,
    /// No byte that the peer sent was ever read. Unknown (false) for unix sockets.
    pub is_untouched: bool,
}

/// Looks at a socket. `None`: it is not a connected stream socket.
pub fn look(socket: BorrowedFd<'_>) -> Option<Connection> {
    let known = socket2::SockRef::from(&socket);
    if known.r#type().ok()? != socket2::Type::STREAM || known.peer_addr().is_err() {
        return None;
    }
    let unread = unread_bytes(socket)?;
    if known.domain().ok()? == socket2::Domain::UNIX {
        return Some(Connection { is_alive: unread > 0 || !is_hung_up(socket), is_untouched: false });
    }
    let info = tcp_info(socket)?;
    let is_alive = info.tcpi_state == ESTABLISHED || (info.tcpi_state == CLOSE_WAIT && unread > 0);
    // The peer's FIN counts as a byte received.
    let received = info.tcpi_bytes_received - u64::from(info.tcpi_state == CLOSE_WAIT && info.tcpi_bytes_received > 0);
    Some(Connection { is_alive, is_untouched: received == u64::from(unread) })
}

/// The peer's IP address; `None` for unix sockets.
pub fn peer(socket: BorrowedFd<'_>) -> Option<IpAddr> {
    Some(socket2::SockRef::from(&socket).peer_addr().ok()?.as_socket()?.ip().to_canonical())
}

/// The inode of the file behind an fd.
pub fn inode(fd: BorrowedFd<'_>) -> Option<u64> {
    nix::sys::stat::fstat(fd).ok().map(|found| found.st_ino)
}

fn unread_bytes(socket: BorrowedFd<'_>) -> Option<u32> {
    let mut unread: libc::c_int = 0;
    // SAFETY: the kernel writes one int to `unread`, which lives through the call.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::FIONREAD, &raw mut unread) };
    (done == 0).then(|| u32::try_from(unread).unwrap_or(0))
}

fn is_hung_up(socket: BorrowedFd<'_>) -> bool {
    // nix does not know POLLRDHUP, and would not report it.
    let peer_closed = PollFlags::from_bits_retain(libc::POLLRDHUP);
    let mut fds = [PollFd::new(socket, peer_closed)];
    let ended = peer_closed | PollFlags::POLLHUP | PollFlags::POLLERR;
    poll(&mut fds, PollTimeout::ZERO).is_err() || fds[0].revents().is_none_or(|seen| seen.intersects(ended))
}

/// The head of `struct tcp_info`, as far as it is read here; kernels only add to its end (include/uapi/linux/tcp.h).
#[repr(C)]
struct TcpInfo {
    tcpi_state: u8,
    others: [u8; 127],
    tcpi_bytes_received: u64,
}

fn tcp_info(socket: BorrowedFd<'_>) -> Option<TcpInfo> {
    let mut info = TcpInfo { tcpi_state: 0, others: [0; 127], tcpi_bytes_received: 0 };
    let mut length = size_of::<TcpInfo>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `info`, which has as many and for which all bytes are valid, and
    // their number to `length`; both live through the call.
    let said = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, (&raw mut info).cast(), &raw mut length)
    };
    (said == 0).then_some(info)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    fn until(socket: BorrowedFd<'_>, wanted: Connection) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while look(socket) != Some(wanted) {
            assert!(std::time::Instant::now() < deadline, "{:?}, not {wanted:?}", look(socket));
            std::thread::yield_now();
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know sockets")]
    fn what_was_read_of_a_connection_is_seen() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(look(listener.as_fd()), None);
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut ours, _) = listener.accept().unwrap();
        let fresh = Connection { is_alive: true, is_untouched: true };
        until(ours.as_fd(), fresh);
        client.write_all(b"GET").unwrap();
        until(ours.as_fd(), fresh);
        ours.read_exact(&mut [0; 1]).unwrap();
        until(ours.as_fd(), Connection { is_alive: true, is_untouched: false });
        assert!(peer(ours.as_fd()).unwrap().is_loopback());
        // A request that a client sent before it closed its half is still to be answered.
        client.shutdown(Shutdown::Write).unwrap();
        until(ours.as_fd(), Connection { is_alive: true, is_untouched: false });
        ours.read_exact(&mut [0; 2]).unwrap();
        until(ours.as_fd(), Connection { is_alive: false, is_untouched: false });
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know sockets")]
    fn an_unread_request_of_a_half_closed_client_is_untouched() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (ours, _) = listener.accept().unwrap();
        client.write_all(b"GET").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        until(ours.as_fd(), Connection { is_alive: true, is_untouched: true });
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know sockets")]
    fn a_unix_connection_lives_until_its_peer_closes() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        assert_eq!(look(ours.as_fd()), Some(Connection { is_alive: true, is_untouched: false }));
        drop(theirs);
        assert_eq!(look(ours.as_fd()), Some(Connection { is_alive: false, is_untouched: false }));
        assert_eq!(peer(ours.as_fd()), None);
    }
}
