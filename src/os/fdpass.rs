//! SCM_RIGHTS: passes fds along with bytes over any unix socket. The bytes are opaque here.
//!
//! Sending allocates nothing, because it is the hot path of a hand-off. Every call is non-blocking, whatever the flags
//! of the socket.
use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// File descriptors attached to one packet. The kernel's SCM_MAX_FD is 253.
pub const FDS_PER_PACKET_MAX: usize = 250;

/// Bytes of one control message with the most fds that a message may carry.
const CONTROL_BYTES_MAX: usize = {
    // SAFETY: CMSG_SPACE only computes; the argument fits u32.
    unsafe { libc::CMSG_SPACE((FDS_PER_PACKET_MAX * size_of::<RawFd>()) as u32) as usize }
};
/// Bytes of one control message with one fd.
const CONTROL_BYTES_ONE: usize = {
    // SAFETY: as above.
    unsafe { libc::CMSG_SPACE(size_of::<RawFd>() as u32) as usize }
};

/// Control messages must be aligned as a `cmsghdr`.
#[repr(C, align(8))]
struct Control<const BYTES: usize>([u8; BYTES]);

/// The result of a receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Bytes read. 0 is the end of a stream.
    pub bytes: usize,
    /// The kernel could not deliver some fds (too many at once, or no free fd numbers): they are lost.
    pub truncated_fds: bool,
    /// The packet was longer than the buffer (packet sockets only): the rest is lost.
    pub truncated_bytes: bool,
}

/// Sends `bytes`, with a copy of `passed` attached to the first of them. One `sendmsg`, no allocation, never blocks,
/// never raises SIGPIPE. On a stream socket it may send only a part of the bytes; the fd has been sent then.
///
/// # Errors
/// `WouldBlock` when the peer does not read; ETOOMANYREFS when more of our fds are in flight than
/// RLIMIT_NOFILE allows; other errors of sendmsg(2).
pub fn send_with_fd(socket: BorrowedFd<'_>, bytes: &[u8], passed: Option<BorrowedFd<'_>>) -> io::Result<usize> {
    let mut control = Control([0_u8; CONTROL_BYTES_ONE]);
    match passed {
        None => send_message(socket, bytes, &[], &mut control.0),
        Some(fd) => send_message(socket, bytes, &[fd], &mut control.0),
    }
}

/// Like [`send_with_fd`], with up to [`FDS_PER_PACKET_MAX`] fds.
///
/// # Errors
/// As [`send_with_fd`]; `InvalidInput` with more fds than that.
pub fn send_with_fds(socket: BorrowedFd<'_>, bytes: &[u8], passed: &[BorrowedFd<'_>]) -> io::Result<usize> {
    if passed.len() > FDS_PER_PACKET_MAX {
        let text = format!("{} file descriptors in one message; the most is {FDS_PER_PACKET_MAX}", passed.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let mut control = Control([0_u8; CONTROL_BYTES_MAX]);
    send_message(socket, bytes, passed, &mut control.0)
}

/// `control` is aligned as a `cmsghdr` and has room for `passed`.
fn send_message(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    passed: &[BorrowedFd<'_>],
    control: &mut [u8],
) -> io::Result<usize> {
    let mut vector = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: all zero is a valid msghdr (and musl's has private padding that can be made in no other way).
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut vector;
    message.msg_iovlen = 1;
    let data_bytes = size_of_val(passed);
    if !passed.is_empty() {
        // SAFETY: CMSG_SPACE only computes; at most FDS_PER_PACKET_MAX fds fit u32.
        let space = unsafe { libc::CMSG_SPACE(data_bytes as u32) } as usize;
        assert!(space <= control.len(), "callers bring the room for their fds");
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = space as _;
        // SAFETY: msg_control points to `space` zeroed, aligned bytes that outlive `message`: room for one header
        // and `passed.len()` ints. BorrowedFd is repr(transparent) over RawFd, so the slice is an array of ints.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(data_bytes as u32) as _;
            std::ptr::copy_nonoverlapping(passed.as_ptr().cast::<u8>(), libc::CMSG_DATA(header), data_bytes);
        }
    }
    loop {
        // SAFETY: `message` and all that it points to live until the call returns; the kernel only reads them.
        let sent =
            unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
        match usize::try_from(sent) {
            Ok(sent) => return Ok(sent),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

/// Receives bytes, and appends the fds attached to them to `fds`, all of them CLOEXEC. Never blocks. Receives at most
/// [`FDS_PER_PACKET_MAX`] fds per call, which is the kernel's own limit per message.
///
/// # Errors
/// `WouldBlock` when there is nothing to read; other errors of recvmsg(2).
pub fn recv_with_fds(socket: BorrowedFd<'_>, buffer: &mut [u8], fds: &mut VecDeque<OwnedFd>) -> io::Result<Received> {
    receive_message(socket, buffer, fds, 0)
}

/// Like [`recv_with_fds`], and leaves bytes and fds in the socket: `fds` gets copies.
///
/// # Errors
/// As [`recv_with_fds`].
pub fn peek_with_fds(socket: BorrowedFd<'_>, buffer: &mut [u8], fds: &mut VecDeque<OwnedFd>) -> io::Result<Received> {
    receive_message(socket, buffer, fds, libc::MSG_PEEK)
}

fn receive_message(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    fds: &mut VecDeque<OwnedFd>,
    peek: libc::c_int,
) -> io::Result<Received> {
    let mut control = Control([0_u8; CONTROL_BYTES_MAX]);
    let mut vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all zero is a valid msghdr.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut vector;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = CONTROL_BYTES_MAX as _;
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC | peek;
    let bytes = loop {
        // SAFETY: `message` and all that it points to are ours, writable and live until the call returns.
        let got = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) };
        match usize::try_from(got) {
            Ok(bytes) => break bytes,
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    };
    take_fds(&message, fds);
    Ok(Received {
        bytes,
        truncated_fds: message.msg_flags & libc::MSG_CTRUNC != 0,
        truncated_bytes: message.msg_flags & libc::MSG_TRUNC != 0,
    })
}

/// Takes ownership of the fds in a message that recvmsg(2) has just filled.
fn take_fds(message: &libc::msghdr, fds: &mut VecDeque<OwnedFd>) {
    // SAFETY: the kernel wrote well-formed control messages of msg_controllen bytes into our aligned buffer; the
    // CMSG macros stay inside them. Each int of an SCM_RIGHTS message is an open fd that nobody else owns.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                let data = libc::CMSG_DATA(header);
                let data_bytes = ((*header).cmsg_len as usize).saturating_sub(libc::CMSG_LEN(0) as usize);
                for index in 0..data_bytes / size_of::<RawFd>() {
                    let fd = data.cast::<RawFd>().add(index).read_unaligned();
                    fds.push_back(OwnedFd::from_raw_fd(fd));
                }
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
    }
}

/// Bytes sent over a unix socket that its peer has not read (including the kernel's overhead). 0 if the kernel does not
/// tell.
pub fn unread_by_peer(socket: BorrowedFd<'_>) -> usize {
    let mut bytes: libc::c_int = 0;
    // The kernel wakes us a moment before it takes the last one off its count: 1 is none.
    // SAFETY: SIOCOUTQ (TIOCOUTQ for sockets) writes one int, which lives until after the call.
    let said = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if said == 0 { usize::try_from(bytes - 1).unwrap_or(0) } else { 0 }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know sockets")]
    fn a_descriptor_arrives_beside_the_bytes_and_is_close_on_exec() {
        let (left, right) = UnixStream::pair().unwrap();
        let (mut read, write) = io::pipe().unwrap();
        assert_eq!(send_with_fd(left.as_fd(), b"line\n", Some(write.as_fd())).unwrap(), 5);
        drop(write);
        let mut buffer = [0; 64];
        let mut fds = VecDeque::new();
        let received = recv_with_fds(right.as_fd(), &mut buffer, &mut fds).unwrap();
        assert_eq!(received, Received { bytes: 5, truncated_fds: false, truncated_bytes: false });
        assert_eq!(fds.len(), 1);
        let fd = fds.pop_front().unwrap();
        // SAFETY: F_GETFD on an fd that we own.
        assert_eq!(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFD) }, libc::FD_CLOEXEC);
        File::from(fd).write_all(b"through").unwrap();
        let mut text = String::new();
        read.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know sockets")]
    fn nothing_there_and_a_full_socket_are_would_block_and_a_closed_one_is_the_end() {
        let (left, right) = UnixStream::pair().unwrap();
        let mut buffer = [0; 64];
        let mut fds = VecDeque::new();
        let nothing = recv_with_fds(right.as_fd(), &mut buffer, &mut fds).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        let chunk = [7_u8; 4096];
        let full = loop {
            if let Err(error) = send_with_fd(left.as_fd(), &chunk, None) {
                break error;
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        drop(right);
        let broken = send_with_fd(left.as_fd(), &chunk, None).unwrap_err();
        assert!(matches!(broken.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset));
        let (left, right) = UnixStream::pair().unwrap();
        drop(left);
        assert_eq!(recv_with_fds(right.as_fd(), &mut buffer, &mut fds).unwrap().bytes, 0);
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know sockets")]
    fn the_most_fds_of_one_message_arrive_and_more_are_refused() {
        let (left, right) = UnixStream::pair().unwrap();
        let null = File::open("/dev/null").unwrap();
        let many = vec![null.as_fd(); FDS_PER_PACKET_MAX];
        assert_eq!(send_with_fds(left.as_fd(), b"x", &many).unwrap(), 1);
        let mut fds = VecDeque::new();
        let received = recv_with_fds(right.as_fd(), &mut [0; 8], &mut fds).unwrap();
        assert!(!received.truncated_fds);
        assert_eq!(fds.len(), FDS_PER_PACKET_MAX);
        let too_many = vec![null.as_fd(); FDS_PER_PACKET_MAX + 1];
        let error = send_with_fds(left.as_fd(), b"x", &too_many).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
