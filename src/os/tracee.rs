//! A look into another process that waits in a system call: its memory, a copy of one of its fds, and what `/proc` says of
//! that. Reading memory may wait for whoever serves a page (a file system of a user's own), so it is not for an event loop.
use nix::errno::Errno;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// The most that is read of an address (`struct sockaddr_storage`).
pub const ADDRESS_BYTES_MAX: usize = 128;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketKind {
    Tcp,
    Udp,
    UnixStream,
    Other,
}

/// An fd of the other process, from `/proc`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FdFlags {
    pub nonblocking: bool,
    pub close_on_exec: bool,
}

/// A thread that waits in bind(2), by its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    pub tid: i32,
    pub fd: RawFd,
    /// Place and length of the address in its memory.
    pub address: u64,
    pub length: u32,
}

/// What a look at such a thread shows.
#[derive(Debug)]
pub struct Seen {
    /// The process of the thread.
    pub process: i32,
    pub kind: SocketKind,
    pub flags: FdFlags,
    /// The bytes of the address; empty where the socket is of another kind.
    pub address: io::Result<Vec<u8>>,
    /// A copy of the socket, where we may have one.
    pub socket: Option<OwnedFd>,
}

/// Looks at a thread that waits in bind(2).
pub fn look(caller: Caller) -> Seen {
    let Caller { tid, fd, address, length } = caller;
    let kind = socket_kind(tid, fd).unwrap_or(SocketKind::Other);
    let mut seen = Seen {
        process: process_of(tid).unwrap_or(tid),
        kind,
        flags: fd_flags(tid, fd).unwrap_or(FdFlags { nonblocking: false, close_on_exec: true }),
        address: Ok(Vec::new()),
        socket: None,
    };
    if kind != SocketKind::Other {
        seen.address = read_memory(tid, address, usize::try_from(length).unwrap_or(usize::MAX));
        seen.socket = copy_fd(tid, fd).ok();
    }
    seen
}

/// Reads up to [`ADDRESS_BYTES_MAX`] bytes of the memory of a thread's process.
///
/// # Errors
/// EPERM without permission to trace it; EFAULT where nothing is mapped.
pub fn read_memory(tid: i32, address: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0_u8; length.min(ADDRESS_BYTES_MAX)];
    let local = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let remote = libc::iovec { iov_base: address as usize as *mut libc::c_void, iov_len: bytes.len() };
    // SAFETY: the kernel writes at most `bytes.len()` bytes to `bytes`, which lives through the call. The other address is
    // one of the other process, and is never dereferenced here.
    let read = unsafe { libc::process_vm_readv(tid, &raw const local, 1, &raw const remote, 1, 0) };
    let read = usize::try_from(read).map_err(|_| io::Error::last_os_error())?;
    bytes.truncate(read);
    Ok(bytes)
}

/// A copy of an fd of a thread's process.
///
/// # Errors
/// Kernels before 5.6; EPERM without permission to trace it; EBADF.
pub fn copy_fd(tid: i32, number: RawFd) -> io::Result<OwnedFd> {
    copy_fd_of(super::process::pidfd(process_of(tid).ok_or(Errno::ESRCH)?)?.as_fd(), number)
}

/// A copy of an fd of the process behind this pidfd.
///
/// # Errors
/// As [`copy_fd`].
pub fn copy_fd_of(process: BorrowedFd<'_>, number: RawFd) -> io::Result<OwnedFd> {
    let zero = libc::c_long::from(0);
    // SAFETY: pidfd_getfd touches no memory.
    let fd = unsafe {
        libc::syscall(libc::SYS_pidfd_getfd, libc::c_long::from(process.as_raw_fd()), libc::c_long::from(number), zero)
    };
    let fd = RawFd::try_from(Errno::result(fd)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just opened it for us, so nobody else owns it. It is close-on-exec.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub fn process_of(tid: i32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
}

/// The inode of the socket behind an fd of a thread's process.
pub fn socket_inode(tid: i32, number: RawFd) -> Option<u64> {
    let target = fs::read_link(format!("/proc/{tid}/fd/{number}")).ok()?;
    target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// Whether a process has this socket under a number outside of `except`.
pub fn holds_socket(pid: i32, inode: u64, except: &std::ops::Range<RawFd>) -> bool {
    let wanted = format!("socket:[{inode}]");
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let others = fds.filter(|fd| {
        let number = fd.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok());
        number.is_some_and(|number| !except.contains(&number))
    });
    others.into_iter().any(|fd| fs::read_link(fd.path()).is_ok_and(|target| target.as_os_str() == wanted.as_str()))
}

pub fn socket_kind(tid: i32, number: RawFd) -> Option<SocketKind> {
    let path = CString::new(format!("/proc/{tid}/fd/{number}")).ok()?;
    let mut name = [0_u8; 32];
    // SAFETY: path and attribute are NUL-terminated, and the kernel writes at most `name.len()` bytes to `name`.
    let length = unsafe {
        libc::getxattr(path.as_ptr(), c"system.sockprotoname".as_ptr(), name.as_mut_ptr().cast(), name.len())
    };
    let name = name.get(..usize::try_from(length).ok()?)?;
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    Some(match name {
        // MPTCP falls back to TCP with every peer.
        b"TCP" | b"TCPv6" | b"MPTCP" | b"MPTCPv6" => SocketKind::Tcp,
        b"UDP" | b"UDPv6" => SocketKind::Udp,
        b"UNIX-STREAM" => SocketKind::UnixStream,
        _ => SocketKind::Other,
    })
}

pub fn fd_flags(tid: i32, number: RawFd) -> Option<FdFlags> {
    let info = fs::read_to_string(format!("/proc/{tid}/fdinfo/{number}")).ok()?;
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?.trim();
    let flags = i32::from_str_radix(flags, 8).ok()?;
    Some(FdFlags { nonblocking: flags & libc::O_NONBLOCK != 0, close_on_exec: flags & libc::O_CLOEXEC != 0 })
}

/// The options that a program set on its socket before bind(2), as far as a socket can have them copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    pub reuse_address: bool,
    pub reuse_port: bool,
    pub v6only: bool,
}

/// Copies the usual options from a program's socket to the one that it gets instead. Whatever cannot be copied stays.
pub fn copy_options(from: BorrowedFd<'_>, to: BorrowedFd<'_>) {
    for (level, option) in [
        (libc::IPPROTO_TCP, libc::TCP_NODELAY),
        (libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT),
        (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT),
        (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE),
        (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL),
        (libc::IPPROTO_TCP, libc::TCP_KEEPCNT),
        (libc::SOL_SOCKET, libc::SO_KEEPALIVE),
    ] {
        let Some(value) = int_option(from, level, option) else { continue };
        if int_option(to, level, option) != Some(value) {
            set_int_option(to, level, option, value);
        }
    }
    // What getsockopt(2) tells of the buffers is twice what was asked for, and a size that was set stops the kernel from
    // tuning it: copied only where it is not the size that a new socket has.
    let fresh = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    for option in [libc::SO_RCVBUF, libc::SO_SNDBUF] {
        let usual = fresh.as_ref().ok().and_then(|s| int_option(s.as_fd(), libc::SOL_SOCKET, option));
        if let Some(value) = int_option(from, libc::SOL_SOCKET, option).filter(|value| Some(*value) != usual) {
            set_int_option(to, libc::SOL_SOCKET, option, value / 2);
        }
    }
}

/// What a program wished of its socket before bind(2).
pub fn wishes(socket: BorrowedFd<'_>) -> Wishes {
    let is_set = |level, option| int_option(socket, level, option).is_some_and(|value| value != 0);
    Wishes {
        reuse_address: is_set(libc::SOL_SOCKET, libc::SO_REUSEADDR),
        reuse_port: is_set(libc::SOL_SOCKET, libc::SO_REUSEPORT),
        v6only: is_set(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY),
    }
}

fn int_option(socket: BorrowedFd<'_>, level: libc::c_int, option: libc::c_int) -> Option<libc::c_int> {
    let (mut value, mut length) = (0 as libc::c_int, size_of::<libc::c_int>() as libc::socklen_t);
    // SAFETY: the kernel writes at most `length` bytes to `value`; both live through the call.
    let got = unsafe { libc::getsockopt(socket.as_raw_fd(), level, option, (&raw mut value).cast(), &raw mut length) };
    (got == 0).then_some(value)
}

fn set_int_option(socket: BorrowedFd<'_>, level: libc::c_int, option: libc::c_int, value: libc::c_int) {
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the kernel reads `length` bytes of `value`, which lives through the call. A refusal leaves the option.
    unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), length) };
}
