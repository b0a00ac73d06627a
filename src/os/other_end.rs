//! Who has accepted a connection of our own: whether its other end still waits in the listening socket's queue, and whether a
//! process or one of its descendants has that end, or waits with epoll for connections there.
//!
//! The kernel gives the other end an inode when it is accepted. Whose it is, only `/proc/PID/fd` tells, which needs the rights
//! of that process (`PTRACE_MODE_READ`): its user's, or CAP_SYS_PTRACE.
use super::connection;
use super::sock_diag::{
    self, HEAD_BYTES, NLM_F_REQUEST, NLMSG_ERROR, REQUEST_BYTES, SOCK_DIAG_BY_FAMILY, SOCKET_BYTES, SOCKET_INODE_AT,
    u16_at, u32_at,
};
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::sys::socket::{MsgFlags, recv, send};
use nix::unistd::Pid;
use socket2::SockRef;
use std::collections::VecDeque;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};

/// Processes of one tree that are looked at.
const TREE_PROCESSES_MAX: usize = 64;
/// Open files of one process that are looked at.
const FILES_MAX: usize = 4_096;
/// Threads of one process that are asked for their children.
const THREADS_MAX: usize = 256;
/// An answer about one socket, in bytes, with room for attributes.
const ANSWER_BYTES: usize = 1_024;
/// Size of `struct unix_diag_req`, and of `struct unix_diag_msg`.
const UNIX_REQUEST_BYTES: usize = 24;
const UNIX_SOCKET_BYTES: usize = 16;
/// Asks for the other end; the attribute that tells it.
const UDIAG_SHOW_PEER: u32 = 4;
const UNIX_DIAG_PEER: u16 = 2;
/// `TCP_ESTABLISHED` (include/net/tcp_states.h).
const ESTABLISHED: u8 = 1;
/// Offsets in `struct inet_diag_req_v2` and `struct inet_diag_msg`.
const REQUEST_LOCAL_PORT_AT: usize = 8;
const REQUEST_PEER_PORT_AT: usize = 10;
const REQUEST_LOCAL_AT: usize = 12;
const REQUEST_PEER_AT: usize = 28;
const REQUEST_COOKIE_AT: usize = 48;
const SOCKET_STATE_AT: usize = 1;
const SOCKET_PEER_PORT_AT: usize = 6;

/// The other end of a connection to a listening socket of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtherEnd {
    /// Nobody has accepted it.
    Waits,
    /// Somebody has, and holds it as a socket with this inode.
    Accepted { inode: u64 },
    /// Somebody has accepted and closed it, or the listening socket is gone.
    Closed,
}

/// Asks for the other end of a connected client.
///
/// # Errors
/// It is not connected; netlink, or its part for this kind of socket, is refused or missing.
pub fn look(client: BorrowedFd<'_>) -> io::Result<OtherEnd> {
    let known = SockRef::from(&client);
    let (own, peer) = (known.local_addr()?, known.peer_addr()?);
    match (own.as_socket(), peer.as_socket()) {
        (Some(own), Some(peer)) => look_tcp(client, own, peer),
        _ => look_unix(client),
    }
}

fn look_tcp(client: BorrowedFd<'_>, own: SocketAddr, peer: SocketAddr) -> io::Result<OtherEnd> {
    let mut body = [0; REQUEST_BYTES];
    body[0] = family_of(peer.ip());
    body[1] = libc::IPPROTO_TCP as u8;
    body[4..8].copy_from_slice(&u32::MAX.to_ne_bytes());
    // The socket that is asked for is the other one, so its own address is our peer's.
    body[REQUEST_LOCAL_PORT_AT..REQUEST_LOCAL_PORT_AT + 2].copy_from_slice(&peer.port().to_be_bytes());
    body[REQUEST_PEER_PORT_AT..REQUEST_PEER_PORT_AT + 2].copy_from_slice(&own.port().to_be_bytes());
    put_address(&mut body[REQUEST_LOCAL_AT..REQUEST_LOCAL_AT + 16], peer.ip());
    put_address(&mut body[REQUEST_PEER_AT..REQUEST_PEER_AT + 16], own.ip());
    body[REQUEST_COOKIE_AT..REQUEST_COOKIE_AT + 8].copy_from_slice(&u64::MAX.to_ne_bytes());
    let answer = ask(&body)?;
    let found = answer.as_ref().filter(|answer| {
        // Where the connection is gone the kernel tells of the listening socket.
        answer.len() >= SOCKET_BYTES && answer[SOCKET_PEER_PORT_AT..SOCKET_PEER_PORT_AT + 2] == own.port().to_be_bytes()
    });
    match found.map(|answer| (answer[SOCKET_STATE_AT], u32_at(answer, SOCKET_INODE_AT).unwrap_or(0))) {
        Some((ESTABLISHED, 0)) => Ok(OtherEnd::Waits),
        Some((_, inode)) if inode != 0 => Ok(OtherEnd::Accepted { inode: u64::from(inode) }),
        // A kernel that cannot tell says the same as one that finds nothing; but then this end lives.
        None if connection::look(client).is_some_and(|found| found.is_alive) => Err(io::ErrorKind::Unsupported.into()),
        Some(_) | None => Ok(OtherEnd::Closed),
    }
}

fn family_of(ip: IpAddr) -> u8 {
    (if ip.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 }) as u8
}

fn put_address(into: &mut [u8], ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => into[..4].copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => into.copy_from_slice(&ip.octets()),
    }
}

fn look_unix(client: BorrowedFd<'_>) -> io::Result<OtherEnd> {
    let own =
        connection::inode(client).and_then(|inode| u32::try_from(inode).ok()).ok_or(io::ErrorKind::Unsupported)?;
    let mut body = [0; UNIX_REQUEST_BYTES];
    body[0] = libc::AF_UNIX as u8;
    body[4..8].copy_from_slice(&u32::MAX.to_ne_bytes());
    body[8..12].copy_from_slice(&own.to_ne_bytes());
    body[12..16].copy_from_slice(&UDIAG_SHOW_PEER.to_ne_bytes());
    body[16..24].copy_from_slice(&u64::MAX.to_ne_bytes());
    // This end exists, so a kernel that finds nothing cannot tell.
    let answer = ask(&body)?.ok_or(io::ErrorKind::Unsupported)?;
    let mut attributes = answer.get(UNIX_SOCKET_BYTES..).unwrap_or_default();
    while let (Some(length), Some(kind)) = (u16_at(attributes, 0), u16_at(attributes, 2)) {
        if kind == UNIX_DIAG_PEER {
            return Ok(match u32_at(attributes, 4) {
                // A closed one has no inode any more.
                Some(0) if connection::look(client).is_some_and(|found| found.is_alive) => OtherEnd::Waits,
                Some(inode) if inode != 0 => OtherEnd::Accepted { inode: u64::from(inode) },
                Some(_) | None => OtherEnd::Closed,
            });
        }
        let next = usize::from(length).next_multiple_of(4).max(4);
        attributes = attributes.get(next..).unwrap_or_default();
    }
    Ok(OtherEnd::Closed)
}

/// Asks about one socket. `None`: the kernel finds none.
fn ask(body: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let netlink = sock_diag::open()?;
    let mut request = ((HEAD_BYTES + body.len()) as u32).to_ne_bytes().to_vec();
    request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend(NLM_F_REQUEST.to_ne_bytes());
    request.extend([0; 8]);
    request.extend(body);
    send(netlink.as_raw_fd(), &request, MsgFlags::empty())?;
    // The kernel answers within the call that asks.
    let mut answer = vec![0; ANSWER_BYTES];
    let length = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    answer.truncate(length);
    let damaged = || io::Error::from(io::ErrorKind::InvalidData);
    let (said, kind) = (u32_at(&answer, 0).ok_or_else(damaged)?, u16_at(&answer, 4).ok_or_else(damaged)?);
    let body = answer.get(HEAD_BYTES..said as usize).ok_or_else(damaged)?;
    match kind {
        SOCK_DIAG_BY_FAMILY => Ok(Some(body.to_vec())),
        NLMSG_ERROR => match u32_at(body, 0).ok_or_else(damaged)?.cast_signed().saturating_neg() {
            libc::ENOENT => Ok(None),
            errno => Err(io::Error::from_raw_os_error(errno)),
        },
        _ => Err(damaged()),
    }
}

/// Whether a process or one of its descendants has the socket `connection`, or waits with epoll at the socket `listener`
/// (inodes). `None`: it was not seen, and the files of one of them cannot be seen, or there are too many of either.
pub fn is_served_by(leader: i32, connection: u64, listener: u64) -> Option<bool> {
    let mut left = VecDeque::from([leader]);
    let (mut looked, mut hidden) = (0, false);
    while let Some(pid) = left.pop_front() {
        if looked == TREE_PROCESSES_MAX {
            return None;
        }
        looked += 1;
        let (seen, children) = (has(pid, connection, listener), children(pid));
        if seen == Some(true) {
            return seen;
        }
        // A process that has just ended hides nothing.
        hidden |= (seen.is_none() || children.is_none()) && exists(pid);
        left.extend(children.unwrap_or_default().into_iter().take(TREE_PROCESSES_MAX));
    }
    (!hidden).then_some(false)
}

/// Whether there is such a process. (`/proc` may show other users' to nobody: `hidepid`.)
fn exists(pid: i32) -> bool {
    kill(Pid::from_raw(pid), None) != Err(Errno::ESRCH)
}

/// `None`: they cannot be seen, or the kernel keeps no list of them.
fn children(pid: i32) -> Option<Vec<i32>> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten().take(THREADS_MAX);
    let lists: Vec<String> =
        threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok()).collect();
    let pids = |list: &String| list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<i32>>();
    (!lists.is_empty()).then(|| lists.iter().flat_map(pids).collect())
}

fn has(pid: i32, connection: u64, listener: u64) -> Option<bool> {
    let connection = format!("socket:[{connection}]");
    let files = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    for (looked, file) in files.flatten().enumerate() {
        if looked == FILES_MAX {
            return None;
        }
        let Ok(target) = fs::read_link(file.path()) else { continue };
        let is_it = match target.to_str() {
            Some("anon_inode:[eventpoll]") => {
                let number = file.file_name();
                let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{}", number.to_string_lossy()));
                info.is_ok_and(|info| info.lines().any(|line| watched(line) == Some(listener)))
            }
            name => name == Some(connection.as_str()),
        };
        if is_it {
            return Some(true);
        }
    }
    Some(false)
}

/// The inode in a line of an epoll's fdinfo: `tfd: 5 events: 19 data: 5 pos:0 ino:2af sdev:8`.
fn watched(line: &str) -> Option<u64> {
    let inode = line.strip_prefix("tfd:")?.split_ascii_whitespace().find_map(|word| word.strip_prefix("ino:"))?;
    u64::from_str_radix(inode, 16).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::os::unix::net::{UnixListener, UnixStream};

    fn me() -> i32 {
        std::process::id().cast_signed()
    }

    fn accepted(end: OtherEnd) -> u64 {
        let OtherEnd::Accepted { inode } = end else { panic!("{end:?}") };
        inode
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know sockets of other processes")]
    fn a_tcp_connection_waits_is_accepted_and_closed() {
        for address in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let Ok(listener) = TcpListener::bind(address) else {
                eprintln!("skipped: no {address} here");
                continue;
            };
            let port = listener.local_addr().unwrap().port();
            // An IPv6 socket for all addresses takes IPv4 clients too.
            let host = if address == "[::1]:0" { "::1" } else { "127.0.0.1" };
            let client = TcpStream::connect((host, port)).unwrap();
            let Ok(end) = look(client.as_fd()) else {
                eprintln!("skipped: the system does not tell of sockets");
                return;
            };
            assert_eq!(end, OtherEnd::Waits, "{address}");
            let (server, _) = listener.accept().unwrap();
            let inode = accepted(look(client.as_fd()).unwrap());
            assert_eq!(Some(inode), connection::inode(server.as_fd()), "{address}");
            assert_eq!(is_served_by(me(), inode, 0), Some(true));
            drop(server);
            assert_eq!(look(client.as_fd()).unwrap(), OtherEnd::Closed, "{address}");
            assert_eq!(is_served_by(me(), inode, 0), Some(false));
            drop(listener);
            assert_eq!(look(client.as_fd()).unwrap(), OtherEnd::Closed, "{address}");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know sockets of other processes")]
    fn a_unix_connection_waits_is_accepted_and_closed() {
        let path = std::env::temp_dir().join(format!("clusterd-other-end-{}", std::process::id()));
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let client = UnixStream::connect(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let Ok(end) = look(client.as_fd()) else {
            eprintln!("skipped: the system does not tell of unix sockets");
            return;
        };
        assert_eq!(end, OtherEnd::Waits);
        let (server, _) = listener.accept().unwrap();
        assert_eq!(Some(accepted(look(client.as_fd()).unwrap())), connection::inode(server.as_fd()));
        drop(server);
        assert_eq!(look(client.as_fd()).unwrap(), OtherEnd::Closed);
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know sockets of other processes")]
    fn a_descendant_serves_for_its_ancestor() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        let inode = connection::inode(server.as_fd()).unwrap();
        // Its child has the connection, it has not.
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", "exec 3<&0 </dev/null; sleep 1000 & exec 3<&-; echo; wait"]);
        shell.stdin(std::process::Stdio::from(std::os::fd::OwnedFd::from(server)));
        let mut shell = shell.stdout(std::process::Stdio::piped()).spawn().unwrap();
        io::Read::read_exact(&mut shell.stdout.take().unwrap(), &mut [0]).unwrap();
        let pid = shell.id().cast_signed();
        let served = is_served_by(pid, inode, 0);
        let children = children(pid).unwrap();
        for child in &children {
            let _ = kill(Pid::from_raw(*child), nix::sys::signal::SIGKILL);
        }
        shell.kill().unwrap();
        shell.wait().unwrap();
        assert_eq!(served, Some(true), "{children:?}");
        drop(client);
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know sockets of other processes")]
    fn what_cannot_be_seen_is_not_denied() {
        // A process that has ended has nothing; one of another user, or with more files than are looked at, may have it.
        assert_eq!(is_served_by(i32::MAX, 1, 1), Some(false));
        let mut sleep = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let sleeping = sleep.id().cast_signed();
        assert_eq!(is_served_by(sleeping, 1, 1), Some(false));
        sleep.kill().unwrap();
        sleep.wait().unwrap();
        if fs::read_dir("/proc/1/fd").is_err() {
            assert_eq!(is_served_by(1, 1, 1), None);
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know sockets of other processes")]
    fn who_waits_with_epoll_is_seen() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let inode = connection::inode(listener.as_fd()).unwrap();
        assert_eq!(is_served_by(me(), 0, inode), Some(false));
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
        epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, 7)).unwrap();
        assert_eq!(is_served_by(me(), 0, inode), Some(true));
    }

    #[test]
    fn lines_of_an_epoll_are_read() {
        assert_eq!(watched("tfd:        5 events:       19 data:                5  pos:0 ino:2af sdev:8"), Some(0x2af));
        assert_eq!(watched("tfd:        5 events:       19 data:                5"), None);
        assert_eq!(watched("pos:\t0"), None);
    }
}
