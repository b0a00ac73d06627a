//! The machine's sockets by NETLINK_SOCK_DIAG: local address and inode of each; the kernel leaves out sockets in
//! TIME_WAIT. `/proc/net/tcp` has the same, but formats a line for every lingering socket.
use super::{clock, poll};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Time limit for the kernel's list of TCP connections, in milliseconds.
const SOCK_DIAG_MS_MAX: u64 = 1_000;

/// Packets of that list. The kernel puts 100 to 300 sockets into one.
const SOCK_DIAG_PACKETS_MAX: usize = 64 * 1024;

/// Buffer for one packet of that list, in bytes. The kernel makes them as long as the buffer, up to 32 KiB.
const SOCK_DIAG_PACKET_BYTES: usize = 32 * 1024;

/// Size of `struct nlmsghdr`: length, type, flags, sequence, port id.
pub(super) const HEAD_BYTES: usize = 16;
/// Size of `struct inet_diag_req_v2`.
pub(super) const REQUEST_BYTES: usize = 56;
/// Size of `struct inet_diag_msg`; attributes may follow.
pub(super) const SOCKET_BYTES: usize = 72;
/// Offsets of the states and the local port in the request.
const REQUEST_STATES_AT: usize = 4;
const REQUEST_PORT_AT: usize = 8;
/// Offsets of the local port and the inode in an answer.
const SOCKET_PORT_AT: usize = 4;
const SOCKET_ADDRESS_AT: usize = 8;
const SOCKET_WAITING_AT: usize = 56;
pub(super) const SOCKET_INODE_AT: usize = 68;

pub(super) const SOCK_DIAG_BY_FAMILY: u16 = 20;
pub(super) const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLMSG_NOOP: u16 = 1;
pub(super) const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// Bits of the states in which a socket is a connection that a process may hold: all of the kernel's TCP states (1 to
/// 12) but SYN_RECV (3), TIME_WAIT (6), CLOSE (7), LISTEN (10) and NEW_SYN_RECV (12).
const CONNECTED: u32 = 1 << 1 | 1 << 2 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;

/// Bits of the states of a TCP socket that listens (LISTEN) and of a UDP socket that is only bound (CLOSE).
const LISTENING: u32 = 1 << 10;
const BOUND: u32 = 1 << 7;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The kernel's number of its family.
    pub family: u8,
    /// Its local port.
    pub port: u16,
    /// Its local address, as the kernel writes it.
    pub address: [u8; 16],
    /// Its inode, as in `/proc/PID/fd`.
    pub inode: u64,
    /// What waits to be received: bytes, or connections of a listening socket.
    pub waiting: u32,
}

impl Found {
    /// Its local address; `None` if that is any.
    pub fn ip(&self) -> Option<IpAddr> {
        let ip = if i32::from(self.family) == libc::AF_INET {
            let [a, b, c, d, ..] = self.address;
            IpAddr::from([a, b, c, d])
        } else {
            IpAddr::from(self.address).to_canonical()
        };
        Some(ip).filter(|ip| !ip.is_unspecified())
    }
}

/// The progress of a dump after a packet.
#[derive(Debug, PartialEq, Eq)]
enum Progress {
    More,
    Done,
    /// The kernel refused, with this errno.
    Refused(i32),
    /// The packet is not a valid answer, or the kernel reports that the dump is incomplete.
    Damaged,
}

/// Local port and inode of the machine's TCP connections with one of these local ports; with no ports: of all.
///
/// # Errors
/// Netlink is refused (seccomp, gVisor, missing kernel module); `TimedOut` when it takes longer than the
/// master's loop may wait.
pub fn connections(ports: &[u16]) -> io::Result<Vec<(u16, u64)>> {
    let found = sockets(libc::IPPROTO_TCP, CONNECTED, ports, usize::MAX)?;
    Ok(found.into_iter().map(|socket| (socket.port, socket.inode)).collect())
}

/// Whether any process has accepted a connection with one of these local TCP ports. One pass over the machine's
/// sockets, for any number of ports; ends at the first match.
///
/// # Errors
/// As [`connections`].
pub fn is_connected(ports: &[u16]) -> io::Result<bool> {
    Ok(!ports.is_empty() && !sockets(libc::IPPROTO_TCP, CONNECTED, ports, 1)?.is_empty())
}

/// The sockets that listen on a TCP port, or are bound to a UDP port (`datagram`).
///
/// # Errors
/// As [`connections`].
pub fn unconnected(port: u16, datagram: bool) -> io::Result<Vec<Found>> {
    let (protocol, state) = if datagram { (libc::IPPROTO_UDP, BOUND) } else { (libc::IPPROTO_TCP, LISTENING) };
    sockets(protocol, state, &[port], usize::MAX)
}

/// The sockets that listen on one of these TCP ports.
///
/// # Errors
/// As [`connections`].
pub fn listening(ports: &[u16]) -> io::Result<Vec<Found>> {
    sockets(libc::IPPROTO_TCP, LISTENING, ports, usize::MAX)
}

/// A socket on which the kernel is asked.
pub(super) fn open() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok(socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkSockDiag)?)
}

/// Sockets in these states with these local ports (with no ports: any); stops after the packet with which `enough` were
/// found.
fn sockets(protocol: i32, states: u32, ports: &[u16], enough: usize) -> io::Result<Vec<Found>> {
    let netlink = open()?;
    let deadline_ms = clock::monotonic_ms() + SOCK_DIAG_MS_MAX;
    let mut found = Vec::new();
    // The kernel filters by one port or not at all; and not every kernel filters UDP sockets.
    let port = if let [port] = ports { Some(*port) } else { None };
    for (sequence, family) in [(1, libc::AF_INET), (2, libc::AF_INET6)] {
        let request = request(sequence, family as u8, protocol as u8, states, port);
        send(netlink.as_raw_fd(), &request, MsgFlags::empty())?;
        dump(&netlink, sequence, deadline_ms, ports, enough, &mut found)?;
        if found.len() >= enough {
            break;
        }
    }
    Ok(found)
}

/// Receives the kernel's answer to one request.
fn dump(
    netlink: &OwnedFd,
    sequence: u32,
    deadline_ms: u64,
    ports: &[u16],
    enough: usize,
    found: &mut Vec<Found>,
) -> io::Result<()> {
    let mut buffer = vec![0_u8; SOCK_DIAG_PACKET_BYTES];
    for _ in 0..SOCK_DIAG_PACKETS_MAX {
        let now_ms = clock::monotonic_ms();
        if now_ms >= deadline_ms {
            break;
        }
        let length = match recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::MSG_TRUNC) {
            Ok(length) => length,
            Err(Errno::EAGAIN) => {
                poll::wait(&mut [poll::Interest::new(netlink.as_fd(), false)], Some(deadline_ms - now_ms))?;
                continue;
            }
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
        };
        let Some(packet) = buffer.get(..length) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a netlink packet is longer than was asked for"));
        };
        match read_packet(packet, sequence, ports, found) {
            Progress::More if found.len() < enough => {}
            Progress::More | Progress::Done => return Ok(()),
            Progress::Refused(errno) => return Err(io::Error::from_raw_os_error(errno)),
            Progress::Damaged => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the kernel's list of sockets is damaged"));
            }
        }
    }
    Err(io::Error::from(io::ErrorKind::TimedOut))
}

/// `struct nlmsghdr` with `struct inet_diag_req_v2`.
fn request(
    sequence: u32,
    family: u8,
    protocol: u8,
    states: u32,
    port: Option<u16>,
) -> [u8; HEAD_BYTES + REQUEST_BYTES] {
    let mut bytes = [0; HEAD_BYTES + REQUEST_BYTES];
    bytes[..4].copy_from_slice(&((HEAD_BYTES + REQUEST_BYTES) as u32).to_ne_bytes());
    bytes[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes[6..8].copy_from_slice(&(NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
    let body = &mut bytes[HEAD_BYTES..];
    body[0] = family;
    body[1] = protocol;
    body[REQUEST_STATES_AT..REQUEST_STATES_AT + 4].copy_from_slice(&states.to_ne_bytes());
    body[REQUEST_PORT_AT..REQUEST_PORT_AT + 2].copy_from_slice(&port.unwrap_or(0).to_be_bytes());
    bytes
}

/// The sockets in one packet, which holds whole messages, each padded to four bytes.
fn read_packet(mut packet: &[u8], sequence: u32, ports: &[u16], found: &mut Vec<Found>) -> Progress {
    while !packet.is_empty() {
        let (Some(length), Some(kind), Some(flags), Some(number)) =
            (u32_at(packet, 0), u16_at(packet, 4), u16_at(packet, 6), u32_at(packet, 8))
        else {
            return Progress::Damaged;
        };
        let Some(body) = packet.get(HEAD_BYTES..length as usize) else { return Progress::Damaged };
        packet = packet.get((length as usize).next_multiple_of(4)..).unwrap_or_default();
        if number != sequence {
            continue;
        }
        if flags & NLM_F_DUMP_INTR != 0 {
            return Progress::Damaged;
        }
        match kind {
            SOCK_DIAG_BY_FAMILY if body.len() < SOCKET_BYTES => return Progress::Damaged,
            SOCK_DIAG_BY_FAMILY => {
                let port = u16::from_be_bytes([body[SOCKET_PORT_AT], body[SOCKET_PORT_AT + 1]]);
                let wanted = ports.is_empty() || ports.contains(&port);
                // A socket that no process holds has inode 0.
                if let Some(inode) = u32_at(body, SOCKET_INODE_AT).filter(|inode| wanted && *inode != 0) {
                    let mut address = [0; 16];
                    address.copy_from_slice(&body[SOCKET_ADDRESS_AT..SOCKET_ADDRESS_AT + 16]);
                    let waiting = u32_at(body, SOCKET_WAITING_AT).unwrap_or(0);
                    found.push(Found { family: body[0], port, address, inode: u64::from(inode), waiting });
                }
            }
            NLMSG_ERROR | NLMSG_DONE => {
                // Both carry an errno, negative; with an old kernel the end may carry nothing.
                return match u32_at(body, 0).map(u32::cast_signed) {
                    Some(errno) if errno < 0 => Progress::Refused(errno.saturating_neg()),
                    None if kind == NLMSG_ERROR => Progress::Damaged,
                    Some(_) | None => Progress::Done,
                };
            }
            NLMSG_NOOP => {}
            _ => return Progress::Damaged,
        }
    }
    Progress::More
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn message(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = ((HEAD_BYTES + body.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn a_socket(port: u16, inode: u32) -> Vec<u8> {
        let mut body = vec![0; SOCKET_BYTES];
        body[SOCKET_PORT_AT..SOCKET_PORT_AT + 2].copy_from_slice(&port.to_be_bytes());
        body[SOCKET_INODE_AT..].copy_from_slice(&inode.to_ne_bytes());
        // An attribute of five bytes, to test the padding.
        body.extend([5, 0, 8, 0, 3]);
        message(SOCK_DIAG_BY_FAMILY, 2, 7, &body)
    }

    fn read(packet: &[u8]) -> (Progress, Vec<(u16, u64)>) {
        let mut found = Vec::new();
        let progress = read_packet(packet, 7, &[], &mut found);
        (progress, found.into_iter().map(|socket| (socket.port, socket.inode)).collect())
    }

    #[test]
    fn sockets_are_read_until_the_end_and_orphans_are_skipped() {
        let mut packet = [a_socket(8080, 11), a_socket(443, 0), a_socket(443, u32::MAX)].concat();
        let sockets = vec![(8080, 11), (443, u64::from(u32::MAX))];
        assert_eq!(read(&packet), (Progress::More, sockets.clone()));
        packet.extend(message(NLMSG_DONE, 2, 7, &0_i32.to_ne_bytes()));
        packet.extend(a_socket(1, 1));
        assert_eq!(read(&packet), (Progress::Done, sockets));
        assert_eq!(read(&message(NLMSG_DONE, 2, 7, &[])).0, Progress::Done);
        // A packet for another request does not count.
        assert_eq!(read(&message(NLMSG_DONE, 2, 6, &[])).0, Progress::More);
        assert_eq!(read(&message(NLMSG_NOOP, 0, 7, &[])).0, Progress::More);
        assert_eq!(read(&[]).0, Progress::More);
    }

    #[test]
    fn a_refusal_is_told_with_its_errno() {
        let refused = |kind, errno: i32| read(&message(kind, 0, 7, &errno.to_ne_bytes())).0;
        assert_eq!(refused(NLMSG_ERROR, -libc::ENOENT), Progress::Refused(libc::ENOENT));
        assert_eq!(refused(NLMSG_DONE, -libc::ENOMEM), Progress::Refused(libc::ENOMEM));
        assert_eq!(refused(NLMSG_ERROR, i32::MIN), Progress::Refused(i32::MAX));
        assert_eq!(refused(NLMSG_ERROR, 0), Progress::Done);
    }

    #[test]
    fn damaged_packets_are_noticed() {
        let whole = [a_socket(8080, 11), message(NLMSG_DONE, 2, 7, &0_i32.to_ne_bytes())].concat();
        assert_eq!(read(&whole).0, Progress::Done);
        let first = a_socket(8080, 11).len();
        for length in 1..whole.len() {
            // The padding of the first message does not count as damage.
            let border = (first - 3..=first).contains(&length);
            let wanted = if border { Progress::More } else { Progress::Damaged };
            assert_eq!(read(&whole[..length]).0, wanted, "cut to {length} bytes");
        }
        for wrong in [0_u32, 15, u32::MAX] {
            let mut packet = whole.clone();
            packet[..4].copy_from_slice(&wrong.to_ne_bytes());
            assert_eq!(read(&packet).0, Progress::Damaged, "length {wrong}");
        }
        assert_eq!(read(&message(SOCK_DIAG_BY_FAMILY, 2, 7, &[0; SOCKET_BYTES - 1])).0, Progress::Damaged);
        assert_eq!(read(&message(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP_INTR, 7, &[0; SOCKET_BYTES])).0, Progress::Damaged);
        assert_eq!(read(&message(NLMSG_ERROR, 0, 7, &[1])).0, Progress::Damaged);
        assert_eq!(read(&message(99, 0, 7, &[])).0, Progress::Damaged);
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know netlink")]
    fn the_kernel_tells_of_an_open_connection_and_not_of_its_listener() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        // Where netlink is refused there is nothing to test; `procfs` falls back and has its own test.
        let Ok(before) = connections(&[port]) else { return };
        assert_eq!(before, []);
        assert!(!is_connected(&[port]).unwrap());
        let client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (_server, _) = listener.accept().unwrap();
        let own = connections(&[port]).unwrap();
        assert_eq!(own.len(), 1);
        assert!(own[0].0 == port && own[0].1 > 0, "{own:?}");
        assert!(is_connected(&[port]).unwrap() && is_connected(&[1, port]).unwrap());
        assert!(!is_connected(&[]).unwrap() && !is_connected(&[1, 2]).unwrap());
        let all = connections(&[]).unwrap();
        let other_end = client.local_addr().unwrap().port();
        assert!(all.contains(&own[0]) && all.iter().any(|(port, _)| *port == other_end), "{all:?}");
    }
}
