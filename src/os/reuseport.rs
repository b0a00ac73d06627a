//! SO_REUSEPORT groups: opens one around a bound socket, adds sockets, attaches the program that chooses among them.
//! The caller decides on the selection.
//!
//! The number of a socket in its group is the order in which it joined. Closing one moves the last into its place, so
//! groups are only ever shortened at the end.
use super::{bpf, sock_diag};
use socket2::{Domain, SockRef, Socket, Type};
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// How long a connection waits for its client's first bytes, in seconds: until the kernel's first repetition of its SYN-ACK.
const DEFER_S: libc::c_int = 1;

/// Opens a group around a socket that was bound without SO_REUSEPORT, so that it cannot have joined somebody else's
/// group.
///
/// # Errors
/// The kernel does not support SO_REUSEPORT for this socket (unix sockets).
pub fn open(first: BorrowedFd<'_>) -> io::Result<()> {
    SockRef::from(&first).set_reuse_port(true)
}

/// Adds a socket on the address of `first`, listening if that one does.
///
/// # Errors
/// Those of socket(2), bind(2) and listen(2); EADDRINUSE when `first` is another user's socket.
pub fn join(first: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let like = SockRef::from(&first);
    let (domain, kind) = (like.domain()?, like.r#type()?);
    let socket = Socket::new(domain, kind, None)?;
    if domain == Domain::IPV6 {
        socket.set_only_v6(like.only_v6()?)?;
    }
    socket.set_reuse_address(like.reuse_address()?)?;
    socket.set_reuse_port(true)?;
    socket.bind(&like.local_addr()?)?;
    if kind == Type::STREAM {
        socket.listen(accept_queue(first).most as i32)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Whether another process has a socket on the same address, and so in the same group. `false` if that cannot be seen.
pub fn has_strangers(ours: &[BorrowedFd<'_>]) -> bool {
    let Some(first) = ours.first() else { return false };
    let own: BTreeSet<u64> =
        ours.iter().filter_map(|fd| super::process::file_identity(*fd).ok()).map(|id| id.1).collect();
    let like = SockRef::from(first);
    let port = like.local_addr().ok().and_then(|address| address.as_socket()).map(|address| address.port());
    let (Some(port), Ok(kind)) = (port, like.r#type()) else { return false };
    let Ok(all) = sock_diag::unconnected(port, kind == Type::DGRAM) else { return false };
    // The kernel's entry for our own first socket has the address to look for.
    let inode = super::process::file_identity(*first).map(|id| id.1).unwrap_or_default();
    let Some(here) = all.iter().find(|socket| socket.inode == inode).map(|socket| (socket.family, socket.address))
    else {
        return false;
    };
    all.iter().any(|socket| (socket.family, socket.address) == here && !own.contains(&socket.inode))
}

/// The accept queue of a listening socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AcceptQueue {
    /// Connections in the queue.
    pub waiting: u32,
    /// Length limit of the queue.
    pub most: u32,
}

/// The accept queue of a listening TCP socket; empty for any other socket.
pub fn accept_queue(listener: BorrowedFd<'_>) -> AcceptQueue {
    // SAFETY: tcp_info has integers alone, for which all zero is valid.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `info`, which has as many, and the number of them to `length`; both
    // live through the call and are borrowed by nobody else.
    let said = unsafe {
        libc::getsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    if said == 0 { AcceptQueue { waiting: info.tcpi_unacked, most: info.tcpi_sacked } } else { AcceptQueue::default() }
}

/// Whether connections wait outside of this TCP socket's accept queue until their client has sent something
/// (TCP_DEFER_ACCEPT), for about a second at most: then they are accepted without.
///
/// # Errors
/// Those of setsockopt(2).
pub fn defer_accept(listener: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    let seconds: libc::c_int = if on { DEFER_S } else { 0 };
    // SAFETY: the option's value is an integer without pointers.
    unsafe { set_option(listener, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, &seconds) }
}

/// Attaches a classic program to the group of a socket; replaces an earlier one atomically. `instructions` are laid out
/// as `struct sock_filter`.
///
/// # Errors
/// EINVAL for a socket without a group; EPERM or ENOPROTOOPT where the kernel does not accept such programs.
pub fn attach_classic(socket: BorrowedFd<'_>, instructions: &[[u8; 8]]) -> io::Result<()> {
    let too_long = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let len = u16::try_from(instructions.len()).map_err(too_long)?;
    let program = libc::sock_fprog { len, filter: instructions.as_ptr().cast_mut().cast() };
    // SAFETY: `filter` points to `len` times 8 bytes, the size of a sock_filter, which live through the call. The kernel
    // copies them; it neither writes them nor needs them aligned.
    unsafe { set_option(socket, libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF, &program) }
}

/// Attaches an eBPF program to the group of a socket; replaces an earlier one atomically. The group keeps the program.
///
/// # Errors
/// EINVAL for a socket without a group; those of setsockopt(2).
pub fn attach(socket: BorrowedFd<'_>, program: &bpf::Program) -> io::Result<()> {
    // SAFETY: the option's value is the number of an fd, an integer without pointers.
    unsafe { set_option(socket, libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_EBPF, &program.0.as_raw_fd()) }
}

/// A TCP socket in a group of its own, to test what this kernel supports.
///
/// # Errors
/// Those of socket(2) and setsockopt(2).
pub fn sample() -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_port(true)?;
    Ok(socket.into())
}

/// # Safety
/// `value` is of the type that the option takes, and each address in it points to memory that lives through the call and
/// has the size that the option takes for it.
unsafe fn set_option<T>(socket: BorrowedFd<'_>, level: libc::c_int, option: libc::c_int, value: &T) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel reads `length` bytes of `value`, which is borrowed; the rest is the caller's promise.
    let done = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const *value).cast(), length) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::os::listen::{self, LocalAddress};
    use std::net::Ipv4Addr;
    use std::os::fd::AsFd;

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know sockets")]
    fn a_group_is_open_to_us_and_to_no_other_group() {
        let loopback = listen::bind_tcp((Ipv4Addr::LOCALHOST, 0).into(), true, 128).unwrap();
        for first in [loopback, listen::bind_tcp_any(0, 128).unwrap()] {
            let LocalAddress::Inet(address) = listen::local_address(first.as_fd()).unwrap() else { panic!("not inet") };
            open(first.as_fd()).unwrap();
            let second = join(first.as_fd()).unwrap();
            let sockets = [first, second];
            // As another clusterd would.
            let other = listen::bind_tcp(address, false, 128).unwrap_err();
            assert_eq!(other.kind(), io::ErrorKind::AddrInUse);
            let ours: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
            assert!(!has_strangers(&ours));
            // The same user can join it with SO_REUSEPORT: at least that is visible.
            let _stranger = join(sockets[0].as_fd()).unwrap();
            assert!(has_strangers(&ours));
        }
    }
}
