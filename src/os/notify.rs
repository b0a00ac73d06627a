//! Datagram sockets for `NOTIFY_SOCKET`: bound so that only one user can reach them, read with the sender's
//! credentials. The datagrams are opaque here.
use super::{closer, fdpass};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, UnixCredentials, recvmsg, sockopt};
use socket2::{Domain, SockAddr, Socket, Type};
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Number of bytes in the buffer.
    pub bytes: usize,
    /// The pid of the sender, from the kernel.
    pub pid: i32,
    /// The effective user of the sender.
    pub uid: u32,
}

/// Binds a datagram socket to a path that only `owner` (and root) may send to. Replaces a socket at the path. The
/// folder must belong to us, and not be writable for others.
///
/// # Errors
/// Those of socket(2), bind(2), chown(2) and chmod(2); `InvalidInput` for a path longer than the kernel
/// allows.
pub fn bind_for(path: &Path, owner: u32) -> io::Result<OwnedFd> {
    if fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        fs::remove_file(path)?;
    }
    let socket = new_socket()?;
    socket.bind(&SockAddr::unix(path)?)?;
    // In this order: nobody else may send before the owner is set.
    let closed = || fs::set_permissions(path, Permissions::from_mode(0o600));
    let given = closed().and_then(|()| match nix::unistd::geteuid().as_raw() {
        own if own == owner => Ok(()),
        _ => std::os::unix::fs::lchown(path, Some(owner), None),
    });
    if let Err(error) = given {
        let _ = fs::remove_file(path);
        return Err(error);
    }
    Ok(socket.into())
}

/// Binds a datagram socket in the abstract name space, which everybody can reach: for systems without a writable
/// folder. The kernel chooses the name.
///
/// # Errors
/// Those of socket(2) and bind(2).
pub fn bind_abstract() -> io::Result<OwnedFd> {
    let socket = new_socket()?;
    nix::sys::socket::bind(socket.as_raw_fd(), &UnixAddr::new_unnamed())?;
    Ok(socket.into())
}

fn new_socket() -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
    socket.set_nonblocking(true)?;
    // Attaches the sender's credentials to each datagram.
    nix::sys::socket::setsockopt(&socket.as_fd(), sockopt::PassCred, &true)?;
    Ok(socket)
}

/// Sends a datagram, perhaps with a file, to the socket at this value of `NOTIFY_SOCKET`: a path, or `@` and an abstract
/// name. Does not wait.
///
/// # Errors
/// Those of socket(2), connect(2) and sendmsg(2).
pub fn tell(address: &OsStr, state: &str, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    let address = match address.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(address)?,
    };
    socket.connect_addr(&address)?;
    fdpass::send_with_fd(socket.as_fd(), state.as_bytes(), fd).map(drop)
}

/// The value of `NOTIFY_SOCKET` for this socket: its path, or `@` and its abstract name.
///
/// # Errors
/// The socket has no name, or one that is not text.
pub fn address(socket: BorrowedFd<'_>) -> io::Result<String> {
    let name: UnixAddr = nix::sys::socket::getsockname(socket.as_raw_fd())?;
    let path = name.path().and_then(|path| path.to_str().map(ToOwned::to_owned));
    let name = name.as_abstract().map(|bytes| format!("@{}", String::from_utf8_lossy(bytes)));
    path.or(name).ok_or_else(|| io::Error::other("the socket has no name"))
}

/// Creates a folder whose files others can reach by name, but not list or change. Checks an existing one.
///
/// # Errors
/// It cannot be created; `PermissionDenied` when it belongs to somebody else, others may write to it, or they cannot enter it: it may
/// be the home of a deployment.
pub fn prepare_folder(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o711).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        Ok(()) => fs::set_permissions(path, Permissions::from_mode(0o711))?,
        Err(_) => {}
    }
    let found = fs::symlink_metadata(path)?;
    let ours = found.is_dir() && found.uid() == nix::unistd::geteuid().as_raw() && found.mode() & 0o022 == 0;
    if ours && found.mode() & 0o011 == 0o011 { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
}

/// Receives one datagram with its sender. Attached fds (FDSTORE=1, BARRIER=1) are closed on another thread. `None`: the
/// kernel does not name the sender.
///
/// # Errors
/// Those of recvmsg(2); `WouldBlock` when there is none.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Option<Datagram>> {
    let (datagram, files) = receive_with_files(socket, buffer)?;
    closer::close_all(files);
    Ok(datagram)
}

/// As [`receive`], for a receiver that trusts its senders: returns the attached fds too.
///
/// # Errors
/// As [`receive`].
pub fn receive_with_files(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(Option<Datagram>, Vec<OwnedFd>)> {
    let mut iov = [io::IoSliceMut::new(buffer)];
    // Room for all fds that a message can carry: the kernel would close the others itself, and that could block.
    let mut space = nix::cmsg_space!(UnixCredentials, [i32; 253]);
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<UnixAddr>(socket.as_raw_fd(), &mut iov, Some(&mut space), flags)?;
    let (mut datagram, mut files) = (None, Vec::new());
    for control in message.cmsgs()? {
        match control {
            ControlMessageOwned::ScmCredentials(who) => {
                datagram = Some(Datagram { bytes: message.bytes, pid: who.pid(), uid: who.uid() });
            }
            ControlMessageOwned::ScmRights(fds) => {
                // SAFETY: the kernel has just given us these fds and nobody else knows them.
                files.extend(fds.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
            _ => {}
        }
    }
    Ok((datagram, files))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::io::Read;

    fn folder(name: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("clusterd-notify-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        path
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know sockets")]
    fn a_socket_tells_who_spoke_and_is_closed_to_others() {
        let folder = folder("path");
        prepare_folder(&folder).unwrap();
        prepare_folder(&folder).unwrap();
        let path = folder.join("n");
        let own = nix::unistd::geteuid().as_raw();
        drop(bind_for(&path, own).unwrap());
        let socket = bind_for(&path, own).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(address(socket.as_fd()).unwrap(), path.to_str().unwrap());
        UnixDatagram::unbound().unwrap().send_to(b"READY=1", &path).unwrap();
        let mut buffer = [0; 64];
        let said = receive(socket.as_fd(), &mut buffer).unwrap().unwrap();
        assert_eq!(said, Datagram { bytes: 7, pid: std::process::id().cast_signed(), uid: own });
        assert_eq!(receive(socket.as_fd(), &mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know sockets")]
    fn a_service_manager_is_told_at_a_path_and_at_an_abstract_name() {
        let folder = folder("manager");
        prepare_folder(&folder).unwrap();
        let path = folder.join("n");
        let by_path = bind_for(&path, nix::unistd::geteuid().as_raw()).unwrap();
        let by_name = bind_abstract().unwrap();
        for (socket, told) in [(&by_path, "READY=1"), (&by_name, "STOPPING=1")] {
            tell(OsStr::new(&address(socket.as_fd()).unwrap()), told, None).unwrap();
            let mut buffer = [0; 64];
            let said = receive(socket.as_fd(), &mut buffer).unwrap().unwrap();
            assert_eq!(&buffer[..said.bytes], told.as_bytes());
        }
        fs::remove_dir_all(&folder).unwrap();
        assert!(tell(path.as_os_str(), "READY=1", None).is_err());
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know sockets")]
    fn what_rides_along_is_closed() {
        let socket = bind_abstract().unwrap();
        let name: UnixAddr = nix::sys::socket::getsockname(socket.as_raw_fd()).unwrap();
        assert!(address(socket.as_fd()).unwrap().starts_with('@'));
        let sender = UnixDatagram::unbound().unwrap();
        nix::sys::socket::connect(sender.as_raw_fd(), &name).unwrap();
        let (mut read, write) = io::pipe().unwrap();
        fdpass::send_with_fd(sender.as_fd(), b"BARRIER=1", Some(write.as_fd())).unwrap();
        drop(write);
        assert!(receive(socket.as_fd(), &mut [0; 64]).unwrap().is_some());
        // The end of file comes only when the fd is closed.
        assert_eq!(read.read(&mut [0; 1]).unwrap(), 0);
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know sockets")]
    fn a_folder_that_others_may_write_or_cannot_enter_is_refused() {
        let folder = folder("open");
        fs::create_dir(&folder).unwrap();
        for mode in [0o777, 0o700, 0o710, 0o701] {
            fs::set_permissions(&folder, Permissions::from_mode(mode)).unwrap();
            assert_eq!(prepare_folder(&folder).unwrap_err().kind(), io::ErrorKind::PermissionDenied, "{mode:o}");
        }
        fs::set_permissions(&folder, Permissions::from_mode(0o711)).unwrap();
        prepare_folder(&folder).unwrap();
        fs::remove_dir(&folder).unwrap();
    }
}
