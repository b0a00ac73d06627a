//! A process beside this one that has the same files and outlives it for a moment. The connection that lies between accept(2)
//! and sendmsg(2) when this process is killed is sent on by its guard, and is not closed. The caller gives the packet
//! that it travels in; what the numbers in it mean is the caller's business.
//!
//! Files that two processes share (CLONE_FILES) stay open until both are gone: what a killed process had accepted is still there.
use super::{argv, fdpass, process};
use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

/// The name of the process, and its command line.
pub const NAME: &str = "clusterd-guard";
/// Fds among which a connection is searched that was accepted, and whose number is not known yet, where the size of the table is not
/// known.
const FDS_MAX: RawFd = 65_536;
/// Where the kernel says how large the table of files is (`FDSize`), and how much of that is read.
const STATUS: &CStr = c"/proc/self/status";
const STATUS_BYTES_MAX: usize = 4 * 1024;
/// Bytes of a packet.
const PACKET_BYTES_MAX: usize = 256;

/// The packet in which a connection is sent, and where in it two numbers of [`Parcel::DIGITS`] digits stand.
#[derive(Clone, Debug)]
pub struct Parcel {
    pub bytes: Vec<u8>,
    /// The receiver to which the connection was being handed; 0: to nobody yet.
    pub receiver_at: usize,
    /// The number of that hand-off.
    pub number_at: usize,
}

impl Parcel {
    /// Digits of a number in it.
    pub const DIGITS: usize = 20;
}

/// The connection that is in hand. In memory that both processes share; only the guarded one writes, and the guard reads
/// when that one is dead.
#[repr(C)]
struct Hand {
    /// The client of the connection: the kernel writes it before it gives the connection a number. Its family is 0 while there
    /// is none.
    client: libc::sockaddr_storage,
    client_length: libc::socklen_t,
    /// The number of the connection; -1 while there is none.
    number: AtomicI32,
    /// As in [`Parcel`].
    receiver: AtomicU64,
    handoff: AtomicU64,
}

/// The guarded side: what it accepts is not lost with it.
#[derive(Debug)]
pub struct Guard {
    hand: *mut Hand,
    /// By which the guard learns of our end. It is kept open for it.
    _process: OwnedFd,
}

impl Guard {
    /// Starts the guard of this process. When this process ends with a connection in hand, the guard sends the parcel with it
    /// to the packet socket `to`, which has to stay open.
    ///
    /// # Errors
    /// Kernels before 5.3; no memory or no process is to be had.
    pub fn start(to: BorrowedFd<'_>, parcel: &Parcel) -> io::Result<Guard> {
        let fits = |at: usize| at.checked_add(Parcel::DIGITS).is_some_and(|end| end <= parcel.bytes.len());
        if parcel.bytes.len() > PACKET_BYTES_MAX || !fits(parcel.receiver_at) || !fits(parcel.number_at) {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        let hand = shared_hand()?;
        let process = process::pidfd(std::process::id().cast_signed())?;
        let shown = argv::own_command_line();
        let flags = libc::c_long::from(libc::CLONE_FILES);
        let none = libc::c_long::from(0);
        // SAFETY: without CLONE_VM and a stack this is a fork whose child shares our files. The child calls only what is
        // async-signal-safe, and never returns. Without an exit signal nobody here mistakes it for a child of its own; whoever
        // inherits it gets SIGCHLD.
        let pid = unsafe { libc::syscall(libc::SYS_clone, flags, none, none, none, none) };
        if Errno::result(pid)? == 0 {
            if let Some(shown) = shown {
                argv::show_as(shown, NAME);
            }
            watch(process.as_raw_fd(), to, hand, parcel);
        }
        Ok(Guard { hand, _process: process })
    }

    /// Accepts a connection, which is in hand until [`Guard::handed`]. With its client's address (`None` for Unix sockets).
    ///
    /// # Errors
    /// Those of accept(2).
    pub fn accept(&self, listener: BorrowedFd<'_>) -> io::Result<(OwnedFd, Option<IpAddr>)> {
        self.handed();
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: the memory was mapped for as long as the process lives and has the length that it says; nobody else writes
        // to it, and a `Guard` is not shared between threads (it holds a pointer).
        let accepted = unsafe {
            (*self.hand).client_length = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            let length = &raw mut (*self.hand).client_length;
            libc::accept4(listener.as_raw_fd(), (&raw mut (*self.hand).client).cast(), length, flags)
        };
        if accepted < 0 {
            return Err(io::Error::last_os_error());
        }
        self.hand().number.store(accepted, Ordering::Release);
        // SAFETY: accept4 returned a new fd that nobody else owns.
        let socket = unsafe { OwnedFd::from_raw_fd(accepted) };
        // SAFETY: zeroed memory is a valid sockaddr_storage, and the kernel wrote at most its size.
        Ok((socket, super::listen::ip_of(unsafe { &(*self.hand).client })))
    }

    /// Takes a connection in hand that was accepted earlier.
    pub fn holding(&self, connection: BorrowedFd<'_>) {
        self.handed();
        self.hand().number.store(connection.as_raw_fd(), Ordering::Release);
    }

    /// This connection goes to this receiver (not 0) now, as the hand-off of this number. It may have it from the next call on.
    /// Nothing changes where another connection is in hand.
    pub fn handing(&self, connection: BorrowedFd<'_>, receiver: u64, number: u64) {
        if self.hand().number.load(Ordering::Relaxed) != connection.as_raw_fd() {
            return;
        }
        self.hand().handoff.store(number, Ordering::Release);
        self.hand().receiver.store(receiver, Ordering::Release);
    }

    /// Nothing is in hand: somebody has it, or it waits.
    pub fn handed(&self) {
        // The receiver last: a connection that was sent to one is never taken for one that nobody has.
        // SAFETY: as in `accept`.
        unsafe { (&raw mut (*self.hand).client.ss_family).write_volatile(0) };
        self.hand().number.store(-1, Ordering::Release);
        self.hand().receiver.store(0, Ordering::Release);
    }

    fn hand(&self) -> &Hand {
        // SAFETY: mapped for as long as the process lives. What is written through the pointer is not read through this
        // reference, except for atomics.
        unsafe { &*self.hand }
    }
}

fn shared_hand() -> io::Result<*mut Hand> {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let kind = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping at an address that the kernel chooses.
    let memory = unsafe { libc::mmap(ptr::null_mut(), size_of::<Hand>(), access, kind, -1, 0) };
    if memory == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let hand: *mut Hand = memory.cast();
    // SAFETY: the kernel filled it with zeros, which are valid for every field; pages are aligned for any type.
    unsafe { (*hand).number.store(-1, Ordering::Release) };
    Ok(hand)
}

/// The guard: waits until the process has ended, sends what it had in hand, and ends. Allocates nothing and takes no lock:
/// another thread of the process may have held one when it was copied.
fn watch(process: RawFd, to: BorrowedFd<'_>, hand: *const Hand, parcel: &Parcel) -> ! {
    // Signals to the process group are not meant for it. It cannot fail with these arguments.
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None);
    process::set_name(NAME);
    let mut ended = libc::pollfd { fd: process, events: libc::POLLIN, revents: 0 };
    // SAFETY: one pollfd, which lives through the call.
    while unsafe { libc::poll(&raw mut ended, 1, -1) } < 0 && Errno::last() == Errno::EINTR {}
    // SAFETY: the memory stays mapped, and its only writer is dead.
    if let Some(connection) = unsafe { in_hand(&*hand) } {
        // SAFETY: the fd is open, and nobody is left who could close it.
        let connection = unsafe { BorrowedFd::borrow_raw(connection) };
        let mut bytes = [0; PACKET_BYTES_MAX];
        let bytes = &mut bytes[..parcel.bytes.len()];
        bytes.copy_from_slice(&parcel.bytes);
        // SAFETY: as above.
        let (receiver, handoff) =
            unsafe { ((*hand).receiver.load(Ordering::Acquire), (*hand).handoff.load(Ordering::Acquire)) };
        write_digits(&mut bytes[parcel.receiver_at..][..Parcel::DIGITS], receiver);
        write_digits(&mut bytes[parcel.number_at..][..Parcel::DIGITS], handoff);
        // If nobody is there to take it, the connection is closed, as it would be without a guard.
        let _ = fdpass::send_with_fd(to, bytes, Some(connection));
    }
    // SAFETY: ends this process at once.
    unsafe { libc::_exit(0) }
}

/// The number of the connection in hand.
fn in_hand(hand: &Hand) -> Option<RawFd> {
    let number = hand.number.load(Ordering::Acquire);
    if number >= 0 {
        return Some(number);
    }
    // The kernel may have accepted it without telling its number, which is that of the one connection from this address. A client
    // may use an address for several servers: then it is not known which one, and another worker may have the other. Clients
    // of Unix sockets have no address that would tell them apart.
    if ![libc::AF_INET, libc::AF_INET6].contains(&i32::from(hand.client.ss_family)) {
        return None;
    }
    let mut from = (0..table_size().unwrap_or(FDS_MAX)).filter(|fd| is_from(*fd, hand));
    from.next().filter(|_| from.next().is_none())
}

/// How many fds the table of files has room for.
fn table_size() -> Option<RawFd> {
    let mut text = [0; STATUS_BYTES_MAX];
    // SAFETY: the path ends with NUL. A failure is a negative number, from which nothing can be read.
    let file = unsafe { libc::open(STATUS.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    // SAFETY: at most as many bytes are written as there are. The file is left open: this process ends soon.
    let read = unsafe { libc::read(file, text.as_mut_ptr().cast(), text.len()) };
    size_in(text.get(..usize::try_from(read).ok()?)?)
}

/// The number behind `FDSize:` in the text of /proc/self/status.
fn size_in(text: &[u8]) -> Option<RawFd> {
    let line = text.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"FDSize:"))?;
    str::from_utf8(line).ok()?.trim().parse().ok().filter(|size| *size > 0)
}

/// Whether this is a connection from the client in hand.
fn is_from(fd: RawFd, hand: &Hand) -> bool {
    let mut client = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    let mut length = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    // SAFETY: the storage is as large as `length` says, and both live through the call. The fd need not be open.
    let found = unsafe { libc::getpeername(fd, client.as_mut_ptr().cast(), &raw mut length) } == 0;
    let bytes = |address: *const libc::sockaddr_storage| {
        // SAFETY: `length` bytes of each were written by the kernel, at most the size of the storage, and the rest is zero.
        unsafe {
            std::slice::from_raw_parts(address.cast::<u8>(), (length as usize).min(size_of::<libc::sockaddr_storage>()))
        }
    };
    found && length == hand.client_length && bytes(client.as_ptr()) == bytes(&raw const hand.client)
}

fn write_digits(into: &mut [u8], mut number: u64) {
    for digit in into.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    fn hand(client: Option<&TcpStream>, number: RawFd) -> Hand {
        // SAFETY: zeros are valid for every field.
        let mut hand: Hand = unsafe { std::mem::zeroed() };
        hand.number.store(number, Ordering::Release);
        if let Some(client) = client {
            let address = socket2::SockAddr::from(client.local_addr().unwrap());
            hand.client_length = address.len();
            // SAFETY: the address has this length, which is less than that of the storage.
            unsafe {
                ptr::copy_nonoverlapping(
                    address.as_ptr().cast::<u8>(),
                    (&raw mut hand.client).cast(),
                    address.len() as usize,
                );
            }
        }
        hand
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know sockets")]
    fn a_connection_without_a_number_is_found_by_its_client() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let clients: Vec<TcpStream> =
            (0..3).map(|_| TcpStream::connect(listener.local_addr().unwrap()).unwrap()).collect();
        let accepted: Vec<TcpStream> = clients.iter().map(|_| listener.accept().unwrap().0).collect();
        assert_eq!(in_hand(&hand(Some(&clients[1]), -1)), Some(accepted[1].as_raw_fd()));
        assert_eq!(in_hand(&hand(Some(&clients[1]), 7)), Some(7), "its number says more");
        assert_eq!(in_hand(&hand(None, -1)), None);
        let twice = accepted[1].try_clone().unwrap();
        assert_eq!(in_hand(&hand(Some(&clients[1]), -1)), None, "which of the two it is, is not known");
        drop(twice);
        drop(accepted);
        assert_eq!(in_hand(&hand(Some(&clients[2]), -1)), None, "it is closed");
    }

    #[test]
    fn the_size_of_the_table_is_read() {
        assert_eq!(size_in(b"Name:\tx\nFDSize:\t256\nGroups:\t0\n"), Some(256));
        assert_eq!((size_in(b"FDSize:\t\n"), size_in(b"FDSize:\t0\n"), size_in(b"")), (None, None, None));
        assert!(cfg!(miri) || table_size().unwrap() >= 3);
    }

    #[test]
    fn digits_are_written_in_front_of_what_follows() {
        let mut packet = *b"hand/....................;";
        write_digits(&mut packet[5..25], u64::MAX);
        assert_eq!(&packet, b"hand/18446744073709551615;");
        write_digits(&mut packet[5..25], 42);
        assert_eq!(&packet, b"hand/00000000000000000042;");
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know sockets")]
    fn a_parcel_without_room_for_the_numbers_is_refused() {
        let parcel = Parcel { bytes: vec![b'0'; 30], receiver_at: 0, number_at: 11 };
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(Guard::start(ours.as_fd(), &parcel).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
