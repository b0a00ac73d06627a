//! Listening sockets: bind, name, accept. Every socket is created CLOEXEC. The caller decides which addresses to bind,
//! and when.
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, unlinkat};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// The address that a socket is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalAddress {
    /// IPv4 or IPv6.
    Inet(SocketAddr),
    /// A path in the file system.
    Unix(PathBuf),
    /// Something else (an abstract or unnamed socket).
    Other,
}

/// Binds and listens on one TCP address. `v6only` matters for IPv6 only.
///
/// # Errors
/// Those of socket(2), bind(2) and listen(2).
pub fn bind_tcp(address: SocketAddr, v6only: bool, backlog: i32) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(v6only)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Binds all interfaces: IPv6 with IPv4 where the machine has IPv6, else IPv4 (as Node does for a listen without host).
///
/// # Errors
/// Those of the last address tried.
pub fn bind_tcp_any(port: u16, backlog: i32) -> io::Result<OwnedFd> {
    bind_any(port, |address, v6only| bind_tcp(address, v6only, backlog))
}

/// The same with another way to bind an address (its second argument: IPv6 only).
///
/// # Errors
/// Those of the last address tried.
pub fn bind_any(port: u16, bind: impl Fn(SocketAddr, bool) -> io::Result<OwnedFd>) -> io::Result<OwnedFd> {
    match bind(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port), false) {
        Err(e) if no_such_family(&e) => bind(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port), false),
        bound => bound,
    }
}

/// Binds one TCP address of which other sockets of ours have a part, and does not listen: SO_REUSEPORT lets the sockets
/// of one user share a port. Until it listens, the others get every connection; then the more specific address wins.
///
/// # Errors
/// Those of socket(2), setsockopt(2) and bind(2).
pub fn bind_tcp_beside(address: SocketAddr, v6only: bool, others: &[BorrowedFd<'_>]) -> io::Result<OwnedFd> {
    for other in others {
        socket2::SockRef::from(other).set_reuse_port(true)?;
    }
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(v6only)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Whether an error means that the machine lacks the address family (IPv6 disabled).
fn no_such_family(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw),
        Some(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL | Errno::EINVAL | Errno::EPROTONOSUPPORT)
    )
}

/// Binds a UDP address.
///
/// # Errors
/// Those of socket(2) and bind(2).
pub fn bind_udp(address: SocketAddr, v6only: bool, reuse_address: bool) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(v6only)?;
    }
    socket.set_reuse_address(reuse_address)?;
    socket.bind(&address.into())?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Binds and listens on a path. With `replace_dead`, first removes a socket file that nobody listens on.
///
/// # Errors
/// Those of socket(2), bind(2) and listen(2); EADDRINUSE when somebody listens there, or the path is not a
/// socket.
pub fn bind_unix(path: &Path, backlog: i32, replace_dead: bool, access: &Access) -> io::Result<OwnedFd> {
    if replace_dead && is_dead_socket(path) {
        std::fs::remove_file(path)?;
    }
    // An abstract name has neither mode nor owner.
    let none = Access::default();
    let access = if path.as_os_str().as_encoded_bytes().starts_with(b"\0") { &none } else { access };
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    if let Some(mode) = access.mode {
        // The file gets no more than that from the first moment, whatever the umask.
        nix::sys::stat::fchmod(&socket, Mode::from_bits_truncate(mode))?;
    }
    socket.bind(&SockAddr::unix(path)?)?;
    let own = nix::unistd::geteuid().as_raw();
    if let Err(e) = access.apply(path, |found| found.st_uid == own) {
        std::fs::remove_file(path)?;
        return Err(e);
    }
    socket.listen(backlog)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Who may connect to a socket in the file system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// The permission bits; `None`: by the umask.
    pub mode: Option<u32>,
    /// Bits that are added to those.
    pub added: u32,
    /// `None`: who binds.
    pub uid: Option<u32>,
    /// `None`: the group of who binds.
    pub gid: Option<u32>,
}

impl Access {
    /// Sets owner and mode of the socket at this path, if `is_it`. What is there is looked at and changed by one fd.
    fn apply(&self, path: &Path, is_it: impl Fn(&FileStat) -> bool) -> io::Result<()> {
        if *self == Access::default() {
            return Ok(());
        }
        let file = open(path, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
        let found = fstat(&file)?;
        let is_socket = found.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFSOCK.bits();
        if !is_socket || !is_it(&found) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let (uid, gid) = (self.uid.map(Uid::from_raw), self.gid.map(Gid::from_raw));
        if uid.is_some_and(|uid| uid.as_raw() != found.st_uid) || gid.is_some_and(|gid| gid.as_raw() != found.st_gid) {
            fchownat(&file, "", uid, gid, AtFlags::AT_EMPTY_PATH)?;
        }
        let mode = self.mode.unwrap_or(found.st_mode & 0o777) | self.added;
        if mode != found.st_mode & 0o777 {
            // An fd with O_PATH cannot be changed by itself.
            let by_fd = format!("/proc/self/fd/{}", file.as_raw_fd());
            std::fs::set_permissions(by_fd, std::fs::Permissions::from_mode(mode))?;
        }
        Ok(())
    }
}

/// The identity of a socket's file: another file may be at its path by now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    /// The socket at this path, if there is one.
    #[must_use]
    pub fn at(path: &Path) -> Option<SocketFile> {
        let found = std::fs::symlink_metadata(path).ok().filter(|found| found.file_type().is_socket())?;
        Some(SocketFile { path: path.to_owned(), device: found.dev(), inode: found.ino() })
    }

    /// Sets owner and mode of the file, if it is still the one at its path.
    ///
    /// # Errors
    /// Those of open(2), fchownat(2) and chmod(2); `NotFound` if another file is there.
    pub fn set_access(&self, access: &Access) -> io::Result<()> {
        access.apply(&self.path, |found| (found.st_dev, found.st_ino) == (self.device, self.inode))
    }

    /// Removes the file, if it is still the one at its path. The folder is opened once, so that it cannot be replaced
    /// between check and removal.
    ///
    /// # Errors
    /// Those of open(2), fstatat(2) and unlinkat(2); `NotFound` if another file is there.
    pub fn remove(&self) -> io::Result<()> {
        let name = self.path.file_name().ok_or(io::ErrorKind::NotFound)?;
        let above = self.path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let folder = open(above, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        let found = fstatat(&folder, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        if (found.st_dev, found.st_ino) != (self.device, self.inode) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(unlinkat(&folder, name, UnlinkatFlags::NoRemoveDir)?)
    }
}

/// Whether a path is a socket that refuses connections because its owner is gone.
fn is_dead_socket(path: &Path) -> bool {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket());
    is_socket && UnixStream::connect(path).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused)
}

/// The address that a socket is bound to.
///
/// # Errors
/// Those of getsockname(2).
pub fn local_address(socket: BorrowedFd<'_>) -> io::Result<LocalAddress> {
    let address = socket2::SockRef::from(&socket).local_addr()?;
    Ok(match (address.as_socket(), address.as_pathname()) {
        (Some(inet), _) => LocalAddress::Inet(inet),
        (None, Some(path)) => LocalAddress::Unix(path.to_owned()),
        (None, None) => LocalAddress::Other,
    })
}

pub fn is_listening(socket: BorrowedFd<'_>) -> bool {
    socket2::SockRef::from(&socket).is_listener().unwrap_or(false)
}

/// Whether somebody has shut down the reading side of a listening Unix socket: it counts as listening, and the kernel refuses
/// every client.
pub fn refuses_clients(socket: BorrowedFd<'_>) -> bool {
    // nix does not know POLLRDHUP.
    let mut fd = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLRDHUP, revents: 0 };
    // SAFETY: one pollfd is passed, as the count says, and lives until the call, which does not wait, returns.
    let ready = unsafe { libc::poll(&raw mut fd, 1, 0) };
    ready == 1 && fd.revents & libc::POLLRDHUP != 0
}

/// Whether this is a socket of any kind.
#[must_use]
pub fn is_socket(fd: BorrowedFd<'_>) -> bool {
    socket2::SockRef::from(&fd).r#type().is_ok()
}

/// Whether a socket is of the datagram kind.
pub fn is_datagram(socket: BorrowedFd<'_>) -> bool {
    socket2::SockRef::from(&socket).r#type().is_ok_and(|t| t == Type::DGRAM)
}

/// Sets or clears O_NONBLOCK. It belongs to the open file description: every process that shares the socket sees it.
///
/// # Errors
/// Those of fcntl(2).
pub fn set_nonblocking(socket: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    socket2::SockRef::from(&socket).set_nonblocking(on)
}

/// Has every connection that is accepted from this TCP socket send small pieces at once (TCP_NODELAY, which Linux
/// copies from the listening socket).
///
/// # Errors
/// Those of setsockopt(2).
pub fn set_nodelay(listener: BorrowedFd<'_>) -> io::Result<()> {
    socket2::SockRef::from(&listener).set_tcp_nodelay(true)
}

/// Sets the length limit of the accept queue of a listening socket.
///
/// # Errors
/// Those of listen(2).
pub fn set_backlog(socket: BorrowedFd<'_>, backlog: i32) -> io::Result<()> {
    socket2::SockRef::from(&socket).listen(backlog)
}

/// A connection to a socket in the file system, made without waiting.
///
/// # Errors
/// Those of socket(2) and connect(2): nobody listens, or the queue is full.
pub fn connect_path(path: &Path) -> io::Result<OwnedFd> {
    let client = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    client.set_nonblocking(true)?;
    client.connect(&SockAddr::unix(path)?)?;
    Ok(client.into())
}

/// A non-blocking client socket for a listener of this machine, and its own address: known before it connects.
///
/// # Errors
/// Those of socket(2) and bind(2).
pub fn client_for(listener: SocketAddr) -> io::Result<(OwnedFd, SocketAddr)> {
    let client = Socket::new(Domain::for_address(listener), Type::STREAM, Some(Protocol::TCP))?;
    client.set_nonblocking(true)?;
    client.bind(&SocketAddr::new(listener.ip(), 0).into())?;
    let own = client.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
    Ok((client.into(), own))
}

/// Connects it. Over loopback the connection is complete when the call returns, or it fails.
///
/// # Errors
/// Those of connect(2).
pub fn connect(client: BorrowedFd<'_>, to: SocketAddr) -> io::Result<()> {
    let client = socket2::SockRef::from(&client);
    match client.connect(&to.into()) {
        Err(e) if e.raw_os_error() == Some(libc::EINPROGRESS) => client.peer_addr().map(drop),
        done => done,
    }
}

/// Stops listening, for every process that shares the socket: new clients are refused, waiting ones are reset.
pub fn stop_listening(socket: BorrowedFd<'_>) {
    // A socket that does not listen needs no stopping.
    let _ = socket2::SockRef::from(&socket).shutdown(std::net::Shutdown::Both);
}

/// Has a TCP socket listen again at its address after somebody's shutdown(2). A connect to AF_UNSPEC comes first: it clears
/// the mark of the shutdown, which accepted connections would inherit (tcp_disconnect in the kernel). A port that the
/// kernel chose is given up by the shutdown, so it is bound again (tcp_set_state).
///
/// # Errors
/// Those of connect(2), bind(2) and listen(2): `AddrInUse` where somebody else has taken the port meanwhile.
pub fn listen_again(socket: BorrowedFd<'_>, address: SocketAddr, backlog: i32) -> io::Result<()> {
    // SAFETY: an all-zero sockaddr is valid; its family is AF_UNSPEC (0).
    let nobody: libc::sockaddr = unsafe { std::mem::zeroed() };
    // SAFETY: the address lives until the call returns and is as long as is said.
    let done = unsafe { libc::connect(socket.as_raw_fd(), &raw const nobody, size_of_val(&nobody) as libc::socklen_t) };
    Errno::result(done)?;
    let socket = socket2::SockRef::from(&socket);
    // EINVAL: it is bound. (getsockname(2) still tells the old port where the kernel has given it up.)
    socket.bind(&address.into()).or_else(|e| if e.kind() == io::ErrorKind::InvalidInput { Ok(()) } else { Err(e) })?;
    socket.listen(backlog)
}

/// Accepts one connection, non-blocking and CLOEXEC, without its peer's address.
///
/// # Errors
/// Those of accept4(2); `WouldBlock` when no connection waits.
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: null address pointers are allowed by accept4; the fd is valid for the call.
    let fd = unsafe { libc::accept4(listener.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut(), flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: accept4 returned a new fd that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Accepts one connection with its peer's IP address (`None` for unix sockets).
///
/// # Errors
/// As [`accept`].
pub fn accept_with_peer(listener: BorrowedFd<'_>) -> io::Result<(OwnedFd, Option<IpAddr>)> {
    let mut storage = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    let mut length = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: the storage is as large as `length` says, and both live through the call.
    let fd = unsafe { libc::accept4(listener.as_raw_fd(), storage.as_mut_ptr().cast(), &mut length, flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: accept4 returned a new fd that nobody else owns.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: zeroed storage is a valid sockaddr_storage (family 0), and the kernel wrote at most its size.
    let storage = unsafe { storage.assume_init() };
    Ok((socket, ip_of(&storage)))
}

/// The IP address in a socket address of the kernel; an IPv4 address in an IPv6 one as what it is.
pub(super) fn ip_of(storage: &libc::sockaddr_storage) -> Option<IpAddr> {
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that the storage holds a sockaddr_in, which is smaller than the storage.
            let v4 = unsafe { *(&raw const *storage).cast::<libc::sockaddr_in>() };
            Some(IpAddr::V4(Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr))))
        }
        libc::AF_INET6 => {
            // SAFETY: the family says that the storage holds a sockaddr_in6, which is smaller than the storage.
            let v6 = unsafe { *(&raw const *storage).cast::<libc::sockaddr_in6>() };
            Some(Ipv6Addr::from(v6.sin6_addr.s6_addr).to_canonical())
        }
        _ => None,
    }
}

/// Binds a control socket, accessible to its owner only. The caller holds the lock on its name, so an existing file is
/// left from a run that is gone.
///
/// # Errors
/// Those of socket(2), bind(2), listen(2) and chmod(2).
pub fn bind_control(path: &Path) -> io::Result<UnixListener> {
    if std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket()) {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// A stream socketpair for a worker's channel. The first end (ours) is non-blocking; the second one blocks, as with
/// Node's primary.
///
/// # Errors
/// Those of socketpair(2).
pub fn channel_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = Socket::pair(Domain::UNIX, Type::STREAM, None)?;
    ours.set_nonblocking(true)?;
    Ok((ours.into(), theirs.into()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know sockets")]
    fn who_may_connect_is_said_whatever_the_umask() {
        let dir = std::env::temp_dir().join(format!("clusterd-access-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("a.sock");
        let mode = || std::fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o777;
        for wanted in [0o600, 0o777, 0o660] {
            let access = Access { mode: Some(wanted), ..Access::default() };
            drop(bind_unix(&path, 16, true, &access).unwrap());
            assert_eq!(mode(), wanted);
        }
        let added = Access { mode: Some(0o700), added: 0o222, ..Access::default() };
        let _bound = bind_unix(&path, 16, true, &added).unwrap();
        assert_eq!(mode(), 0o722);
        let file = SocketFile::at(&path).unwrap();
        file.set_access(&Access { mode: Some(0o666), ..Access::default() }).unwrap();
        assert_eq!(mode(), 0o666);
        // Another file is in its place: nothing happens to that, nor to what a link leads to.
        std::fs::rename(&path, dir.join("moved.sock")).unwrap();
        std::fs::write(dir.join("precious"), "").unwrap();
        std::os::unix::fs::symlink("precious", &path).unwrap();
        file.set_access(&Access { mode: Some(0o777), ..Access::default() }).unwrap_err();
        assert_ne!(std::fs::metadata(dir.join("precious")).unwrap().permissions().mode() & 0o777, 0o777);
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know sockets")]
    fn a_bound_port_is_refused_to_the_next() {
        let first = bind_tcp_any(0, 16).unwrap();
        let LocalAddress::Inet(address) = local_address(first.as_fd()).unwrap() else { panic!("not inet") };
        let error = bind_tcp_any(address.port(), 16).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(is_listening(first.as_fd()));
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know sockets")]
    fn accept_names_the_peer_and_says_when_none_waits() {
        let listener = bind_tcp((Ipv4Addr::LOCALHOST, 0).into(), false, 16).unwrap();
        let LocalAddress::Inet(address) = local_address(listener.as_fd()).unwrap() else { panic!("not inet") };
        assert_eq!(accept(listener.as_fd()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let _client = std::net::TcpStream::connect(address).unwrap();
        let (_socket, peer) = accept_with_peer(listener.as_fd()).unwrap();
        assert_eq!(peer, Some(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know sockets")]
    fn a_dead_socket_file_is_replaced_and_a_living_one_is_not() {
        let dir = std::env::temp_dir().join(format!("clusterd-listen-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("app.sock");
        drop(bind_unix(&path, 16, true, &Access::default()).unwrap());
        assert!(bind_unix(&path, 16, false, &Access::default()).is_err());
        let alive = bind_unix(&path, 16, true, &Access::default()).unwrap();
        assert_eq!(bind_unix(&path, 16, true, &Access::default()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(alive);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know sockets")]
    fn only_the_socket_itself_is_removed() {
        let dir = std::env::temp_dir().join(format!("clusterd-socket-file-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(dir.join("other")).unwrap();
        let path = dir.join("app.sock");
        assert_eq!(SocketFile::at(&path), None);
        let _first = bind_unix(&path, 16, true, &Access::default()).unwrap();
        let file = SocketFile::at(&path).unwrap();
        // Moved, so that its fd number is not reused.
        std::fs::rename(&path, dir.join("moved.sock")).unwrap();
        let _second = bind_unix(&path, 16, true, &Access::default()).unwrap();
        assert_eq!(file.remove().unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(path.exists());
        SocketFile::at(&path).unwrap().remove().unwrap();
        assert!(!path.exists());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
