//! SO_REUSEPORT groups: open one around a bound socket, add sockets, attach the program that chooses among them. Which
//! sockets are chosen is decided in `balance::steering`.
//!
//! A socket's number in its group is the order in which it came. Closing one moves the last into its place, so a group
//! is only ever cut at its end.
use super::sock_diag;
use crate::balance::steering::{self, Classic, Extended};
use crate::limits;
use socket2::{Domain, SockRef, Socket, Type};
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Opens a group around a socket that was bound without SO_REUSEPORT, and so to nobody but us: a group of somebody else
/// could not have been joined by mistake.
///
/// # Errors
/// The kernel knows no SO_REUSEPORT for such sockets (unix sockets have none).
pub fn open(first: BorrowedFd<'_>) -> io::Result<()> {
    SockRef::from(&first).set_reuse_port(true)
}

/// One more socket on the address of `first`, listening where that one does.
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
        socket.listen(queue(first).most as i32)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Whether another process has a socket on the very address of these, and so in their group. `false` where that cannot
/// be seen.
pub fn has_strangers(ours: &[BorrowedFd<'_>]) -> bool {
    let Some(first) = ours.first() else { return false };
    let own: BTreeSet<u64> =
        ours.iter().filter_map(|fd| super::process::file_identity(*fd).ok()).map(|id| id.1).collect();
    let like = SockRef::from(first);
    let port = like.local_addr().ok().and_then(|address| address.as_socket()).map(|address| address.port());
    let (Some(port), Ok(kind)) = (port, like.r#type()) else { return false };
    let Ok(all) = sock_diag::unconnected(port, kind == Type::DGRAM) else { return false };
    // What the kernel says of our own first socket is the address to look for.
    let inode = super::process::file_identity(*first).map(|id| id.1).unwrap_or_default();
    let Some(here) = all.iter().find(|socket| socket.inode == inode).map(|socket| (socket.family, socket.address))
    else {
        return false;
    };
    all.iter().any(|socket| (socket.family, socket.address) == here && !own.contains(&socket.inode))
}

/// The queue of connections of a listening socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queue {
    /// Those that wait.
    pub waiting: u32,
    /// Those that may.
    pub most: u32,
}

/// The queue of a listening TCP socket; empty for any other socket.
pub fn queue(listener: BorrowedFd<'_>) -> Queue {
    // SAFETY: all zero is a valid tcp_info.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `info`; both live through the call.
    let said = unsafe {
        libc::getsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    if said == 0 { Queue { waiting: info.tcpi_unacked, most: info.tcpi_sacked } } else { Queue::default() }
}

/// Attaches a classic program to the group of a socket; the former one is replaced in one step.
///
/// # Errors
/// EINVAL for a socket that is alone; EPERM or ENOPROTOOPT where the kernel takes no such program.
pub fn attach_classic(socket: BorrowedFd<'_>, program: &[Classic]) -> io::Result<()> {
    let filter: Vec<libc::sock_filter> =
        program.iter().map(|i| libc::sock_filter { code: i.code, jt: i.jump_true, jf: i.jump_false, k: i.k }).collect();
    let too_long = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let len = u16::try_from(filter.len()).map_err(too_long)?;
    let program = libc::sock_fprog { len, filter: filter.as_ptr().cast_mut() };
    set_option(socket, libc::SO_ATTACH_REUSEPORT_CBPF, &program)
}

/// Whether this kernel lets us have strict turns.
///
/// # Errors
/// What it says instead: EPERM without CAP_BPF.
pub fn try_turns() -> io::Result<()> {
    let (counters, table, skips) = (new_map(16)?, new_map(4)?, new_map(8)?);
    load(&steering::by_turns(counters.as_raw_fd(), table.as_raw_fd(), skips.as_raw_fd(), 1, 1)).map(|_| ())
}

/// Whether this kernel takes classic programs, tried on a socket of its own.
///
/// # Errors
/// What it says instead.
pub fn try_classic() -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_port(true)?;
    attach_classic(socket.as_fd(), &steering::by_chance(&[0]).unwrap_or_default())
}

fn set_option<T>(socket: BorrowedFd<'_>, option: libc::c_int, value: &T) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel reads `length` bytes of `value`, and what that points to, during the call only.
    let done =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, (&raw const *value).cast(), length) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Turns for one group (eBPF), strict but for those that are left to others. The turn and the counts go on when the set of
/// sockets changes.
#[derive(Debug)]
pub struct Turns {
    counters: OwnedFd,
    skips: OwnedFd,
    /// Some were left.
    skipping: bool,
    /// Sockets that can be counted.
    capacity: u32,
}

impl Turns {
    /// For a group of so many sockets.
    ///
    /// # Errors
    /// EPERM without CAP_BPF; whatever else says that there is no eBPF here.
    pub fn new(sockets: u32) -> io::Result<Turns> {
        let capacity = sockets.max(limits::STEERING_COUNTERS_MIN).next_power_of_two();
        let (counters, skips) = (new_map(8 * (1 + capacity))?, new_map(8 * capacity)?);
        Ok(Turns { counters, skips, skipping: false, capacity })
    }

    /// From now on `selected` take turns, among the first `sockets` of the group of `socket`.
    ///
    /// # Errors
    /// Those of bpf(2) and setsockopt(2); EINVAL for a socket that is alone.
    pub fn attach(&mut self, socket: BorrowedFd<'_>, selected: &[u32], sockets: u32) -> io::Result<()> {
        if sockets > self.capacity {
            let more = Turns::new(sockets)?;
            let mut counts = self.read()?;
            counts.resize(1 + more.capacity as usize, 0);
            write_map(&more.counters, &counts.iter().flat_map(|n| n.to_ne_bytes()).collect::<Vec<u8>>())?;
            *self = more;
        }
        let bytes: Vec<u8> = selected.iter().flat_map(|index| index.to_ne_bytes()).collect();
        let table = new_map(bytes.len().max(4) as u32)?;
        if !bytes.is_empty() {
            write_map(&table, &bytes)?;
        }
        let [counters, table_number, skips] = [&self.counters, &table, &self.skips].map(AsRawFd::as_raw_fd);
        let sockets = sockets.min(self.capacity);
        let program = steering::by_turns(counters, table_number, skips, selected.len() as u32, sockets);
        let program = load(&program)?;
        set_option(socket, libc::SO_ATTACH_REUSEPORT_EBPF, &program.as_raw_fd())
    }

    /// From now on these sockets leave so many of their next turns to others; all others leave none.
    ///
    /// # Errors
    /// Those of bpf(2).
    pub fn leave(&mut self, turns: &[(u32, u32)]) -> io::Result<()> {
        if turns.is_empty() && !self.skipping {
            return Ok(());
        }
        let mut bytes = vec![0; 8 * self.capacity as usize];
        for &(socket, count) in turns {
            if let Some(place) = bytes.chunks_exact_mut(8).nth(socket as usize) {
                place.copy_from_slice(&i64::from(count).to_ne_bytes());
            }
        }
        self.skipping = !turns.is_empty();
        write_map(&self.skips, &bytes)
    }

    /// How many connections each socket was chosen for.
    pub fn counts(&self) -> Vec<u64> {
        self.read().map(|mut counts| counts.split_off(1)).unwrap_or_default()
    }

    fn read(&self) -> io::Result<Vec<u64>> {
        let mut counts = vec![0_u64; 1 + self.capacity as usize];
        let key = 0_u32;
        let element = Element {
            map: self.counters.as_raw_fd() as u32,
            pad: 0,
            key: (&raw const key) as u64,
            value: counts.as_mut_ptr() as u64,
            flags: 0,
        };
        // SAFETY: the map has a key of four bytes and a value as long as `counts`, which the kernel fills.
        unsafe { bpf(BPF_MAP_LOOKUP_ELEM, &element) }?;
        Ok(counts)
    }
}

// ---- bpf(2), which libc does not wrap ----

const BPF_MAP_CREATE: libc::c_int = 0;
const BPF_MAP_LOOKUP_ELEM: libc::c_int = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_PROG_TYPE_SOCKET_FILTER: u32 = 1;

#[repr(C)]
struct NewMap {
    kind: u32,
    key_bytes: u32,
    value_bytes: u32,
    entries: u32,
    flags: u32,
}

#[repr(C)]
struct Element {
    map: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct NewProgram {
    kind: u32,
    instructions: u32,
    code: u64,
    license: u64,
    log_level: u32,
    log_bytes: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

/// # Safety
/// What `argument` points to must be what the command wants, and live through the call.
unsafe fn bpf<T>(command: libc::c_int, argument: &T) -> io::Result<libc::c_int> {
    // SAFETY: the caller's; the kernel reads as many bytes of `argument` as it has.
    let said = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *argument, size_of::<T>() as libc::c_uint) };
    if said < 0 { Err(io::Error::last_os_error()) } else { Ok(said as libc::c_int) }
}

/// An array of one element of zeroes.
fn new_map(value_bytes: u32) -> io::Result<OwnedFd> {
    let map = NewMap { kind: BPF_MAP_TYPE_ARRAY, key_bytes: 4, value_bytes, entries: 1, flags: 0 };
    // SAFETY: the attributes hold no pointers. The kernel returns a new fd, close-on-exec, that nobody else owns.
    unsafe { Ok(OwnedFd::from_raw_fd(bpf(BPF_MAP_CREATE, &map)?)) }
}

/// Writes the one element, whole.
fn write_map(map: &OwnedFd, value: &[u8]) -> io::Result<()> {
    let key = 0_u32;
    let element = Element {
        map: map.as_raw_fd() as u32,
        pad: 0,
        key: (&raw const key) as u64,
        value: value.as_ptr() as u64,
        flags: 0,
    };
    // SAFETY: callers bring as many bytes as they made the map with; the kernel only reads them.
    unsafe { bpf(BPF_MAP_UPDATE_ELEM, &element) }.map(|_| ())
}

fn load(program: &[Extended]) -> io::Result<OwnedFd> {
    let code: Vec<u8> = program.iter().flat_map(encode).collect();
    let description = NewProgram {
        kind: BPF_PROG_TYPE_SOCKET_FILTER,
        instructions: program.len() as u32,
        code: code.as_ptr() as u64,
        license: c"MIT".as_ptr() as u64,
        log_level: 0,
        log_bytes: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
    };
    // SAFETY: `code` holds that many instructions, the license ends with a zero, and both outlive the call. The kernel
    // returns a new fd, close-on-exec, that nobody else owns.
    unsafe { Ok(OwnedFd::from_raw_fd(bpf(BPF_PROG_LOAD, &description)?)) }
}

/// `struct bpf_insn`: the two registers share a byte, as bit fields in the order of the machine.
fn encode(i: &Extended) -> [u8; 8] {
    let registers = if cfg!(target_endian = "little") { i.src << 4 | i.dst } else { i.dst << 4 | i.src };
    let mut bytes = [0; 8];
    (bytes[0], bytes[1]) = (i.code, registers);
    bytes[2..4].copy_from_slice(&i.offset.to_ne_bytes());
    bytes[4..].copy_from_slice(&i.constant.to_ne_bytes());
    bytes
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::os::listen::{self, LocalAddress};
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};

    /// A group of so many sockets.
    fn group(first: OwnedFd, count: usize) -> (Vec<OwnedFd>, SocketAddr) {
        let LocalAddress::Inet(address) = listen::local_address(first.as_fd()).unwrap() else { panic!("not inet") };
        open(first.as_fd()).unwrap();
        let mut sockets = vec![first];
        for _ in 1..count {
            sockets.push(join(sockets[0].as_fd()).unwrap());
        }
        (sockets, address)
    }

    fn loopback() -> OwnedFd {
        listen::bind_tcp((Ipv4Addr::LOCALHOST, 0).into(), true, 128).unwrap()
    }

    fn connect(address: SocketAddr, count: usize) -> Vec<TcpStream> {
        (0..count).map(|_| TcpStream::connect(address).unwrap()).collect()
    }

    fn lengths(sockets: &[OwnedFd]) -> Vec<u32> {
        sockets.iter().map(|socket| queue(socket.as_fd()).waiting).collect()
    }

    #[test]
    fn a_group_is_open_to_us_and_to_no_other_group() {
        for first in [loopback(), listen::bind_tcp_any(0, 128).unwrap()] {
            let (sockets, address) = group(first, 2);
            // What another clusterd would do.
            let other = listen::bind_tcp(address, false, 128).unwrap_err();
            assert_eq!(other.kind(), io::ErrorKind::AddrInUse);
            let ours: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
            assert!(!has_strangers(&ours));
            // The same user may push into it with SO_REUSEPORT: at least that is seen.
            let _stranger = join(sockets[0].as_fd()).unwrap();
            assert!(has_strangers(&ours));
        }
    }

    #[test]
    fn the_classic_program_leaves_out_whom_it_shall() {
        let (sockets, address) = group(loopback(), 4);
        // Where this is refused there is nothing to see; the black-box tests have such a machine made up.
        if try_classic().is_err() {
            return;
        }
        attach_classic(sockets[0].as_fd(), &steering::by_chance(&[1, 3]).unwrap()).unwrap();
        let _clients = connect(address, 60);
        let seen = lengths(&sockets);
        assert_eq!((seen[0], seen[2], seen.iter().sum()), (0, 0, 60), "{seen:?}");
        assert!(seen[1] > 10 && seen[3] > 10, "{seen:?}");
        attach_classic(sockets[3].as_fd(), &steering::by_chance(&[2]).unwrap()).unwrap();
        let _more = connect(address, 10);
        assert_eq!(lengths(&sockets)[2], 10);
    }

    #[test]
    fn turns_are_strict_and_go_on_when_the_set_changes() {
        let (mut sockets, address) = group(loopback(), 3);
        let Ok(mut turns) = Turns::new(3) else { return };
        turns.attach(sockets[0].as_fd(), &[0, 1, 2], 3).unwrap();
        let _clients = connect(address, 9);
        assert_eq!(lengths(&sockets), [3, 3, 3]);
        turns.attach(sockets[0].as_fd(), &[0, 2], 3).unwrap();
        let _more = connect(address, 4);
        assert_eq!(lengths(&sockets), [5, 3, 5]);
        // Beyond what can be counted so far.
        while sockets.len() < 40 {
            sockets.push(join(sockets[0].as_fd()).unwrap());
        }
        turns.attach(sockets[0].as_fd(), &[39], 40).unwrap();
        let _last = connect(address, 2);
        let counts = turns.counts();
        assert_eq!((&counts[..3], counts[39]), (&[5, 3, 5][..], 2));
    }

    #[test]
    fn turns_that_a_socket_leaves_go_to_the_next() {
        let (sockets, address) = group(loopback(), 3);
        let Ok(mut turns) = Turns::new(3) else { return };
        turns.attach(sockets[0].as_fd(), &[0, 1, 2], 3).unwrap();
        turns.leave(&[(0, 2)]).unwrap();
        let _clients = connect(address, 4);
        assert_eq!(lengths(&sockets), [0, 2, 2]);
        // It has left them all.
        let _more = connect(address, 2);
        assert_eq!(lengths(&sockets), [1, 3, 2]);
        turns.leave(&[(2, 100)]).unwrap();
        turns.leave(&[]).unwrap();
        let _last = connect(address, 3);
        assert_eq!(lengths(&sockets), [2, 4, 3]);
        // Two in a row that leave theirs: somebody gets it all the same.
        turns.leave(&[(0, 9), (1, 9), (2, 9)]).unwrap();
        let _all = connect(address, 3);
        assert_eq!(lengths(&sockets).iter().sum::<u32>(), 12);
    }

    #[test]
    fn datagrams_of_one_client_stay_together() {
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        for first in [(Ipv4Addr::LOCALHOST, 0).into(), any].map(|at| listen::bind_udp(at, false, false).unwrap()) {
            let (sockets, address) = group(first, 4);
            let selected = [0, 1, 3];
            if attach_classic(sockets[0].as_fd(), &steering::by_flow(4, &selected).unwrap()).is_err() {
                return;
            }
            let receivers: Vec<UdpSocket> = sockets.into_iter().map(UdpSocket::from).collect();
            let mut met = BTreeSet::new();
            for _ in 0..40 {
                let client = UdpSocket::bind("127.0.0.1:0").unwrap();
                for _ in 0..3 {
                    client.send_to(b"x", (Ipv4Addr::LOCALHOST, address.port())).unwrap();
                }
                let got: Vec<usize> =
                    receivers.iter().map(|r| std::iter::from_fn(|| r.recv_from(&mut [0; 8]).ok()).count()).collect();
                let at = got.iter().position(|n| *n == 3).unwrap_or_else(|| panic!("{got:?}"));
                met.insert(at as u32);
            }
            assert_eq!(met.into_iter().collect::<Vec<_>>(), selected);
        }
    }
}
