//! The system under a master: sockets, files and epoll are the real ones, processes, users and time those of the world.
use crate::actor::{Me, Until};
use crate::bugs::{self, Bug};
use crate::listen_fds;
use crate::random::Random;
use crate::world::{Hand, Process};
use clusterd::home::Home;
use clusterd::ids::WorkerId;
use clusterd::keeper::link::KeeperSocket;
use clusterd::keeper::protocol::Credentials;
use clusterd::logs::LogPath;
use clusterd::master::metrics_folders::Names;
use clusterd::master::system::{Epoll, Interest, Linux, Readiness, System};
use clusterd::os::connection::{self, Connection};
use clusterd::os::container::Container;
use clusterd::os::cpu::CpuCount;
use clusterd::os::fdpass::Received;
use clusterd::os::guard::Parcel;
use clusterd::os::listen::{Access, LocalAddress, SocketFile};
use clusterd::os::loopback::{Half, Made};
use clusterd::os::notify::{self, Datagram};
use clusterd::os::other_end::OtherEnd;
use clusterd::os::packet::{self, Packet};
use clusterd::os::procfs::{ConnectionTable, Holder};
use clusterd::os::reuseport::AcceptQueue;
use clusterd::os::seccomp::{Answer, Call, Sent};
use clusterd::os::tracee::Wishes;
use clusterd::os::user::{Account, UserError};
use clusterd::reuseport::group::Kernel;
use clusterd::worker::node::channel::{ChannelSocket, Wire};
use std::cell::{Cell, RefCell};
use std::collections::{HashSet, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The number of a master's connection to the keeper.
const KEEPER_FD: RawFd = 3;
/// CPUs of the machine.
const CPUS: u32 = 2;

/// `me` is `None` only in what `Default` makes, which nobody uses.
#[derive(Debug, Default)]
pub(crate) struct MasterSystem {
    me: Option<Me>,
    linux: Linux,
}

/// A socket of the master whose calls are those of a simulated process.
#[derive(Debug)]
pub(crate) struct Socket {
    me: Option<Me>,
    fd: OwnedFd,
    /// Packets that a fault holds back, each until so many others have been sent.
    delayed: RefCell<VecDeque<(usize, Vec<u8>)>>,
    /// A packet was received in this turn.
    has_received: Cell<bool>,
}

impl Socket {
    fn new(me: Option<Me>, fd: OwnedFd) -> Socket {
        Socket { me, fd, delayed: RefCell::default(), has_received: Cell::new(false) }
    }

    fn has_bug(&self, shows: impl FnOnce(Bug, &mut Random) -> bool) -> bool {
        self.me.as_ref().is_some_and(|me| me.has_bug(shows))
    }
}

fn call(me: Option<&Me>, name: &'static str) -> io::Result<()> {
    me.map_or(Ok(()), |me| me.call(name))
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<Socket> for OwnedFd {
    fn from(socket: Socket) -> OwnedFd {
        socket.fd
    }
}

impl KeeperSocket for Socket {
    fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        call(self.me.as_ref(), if fds.is_empty() { "sendmsg" } else { "sendmsg with files" })?;
        if self.has_bug(|bug, random| bug.loses(random, bytes)) {
            return Ok(());
        }
        if self.has_bug(|bug, _| bug.delays(bytes)) {
            self.delayed.borrow_mut().push_back((bugs::NOTE_DELAY, bytes.to_vec()));
            return Ok(());
        }
        packet::send(self.fd.as_fd(), bytes, fds)?;
        let mut delayed = self.delayed.borrow_mut();
        delayed.iter_mut().for_each(|(left, _)| *left = left.saturating_sub(1));
        while delayed.front().is_some_and(|(left, _)| *left == 0) {
            let Some((_, packet)) = delayed.pop_front() else { break };
            packet::send(self.fd.as_fd(), &packet, &[])?;
        }
        Ok(())
    }

    fn receive(&self, buffer: &mut [u8], fds: &mut VecDeque<OwnedFd>) -> io::Result<Packet> {
        call(self.me.as_ref(), "recvmsg")?;
        if self.has_received.replace(false) && self.has_bug(|bug, _| bug == Bug::StarvedBudget) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let packet = packet::receive(&self.fd, buffer, fds)?;
        self.has_received.set(true);
        if let (Packet::Whole(length), Some(me)) = (&packet, &self.me) {
            let mut lost = None;
            me.has_bug(|bug, random| {
                lost = bug.loses_notice(random, &buffer[..*length]);
                lost.is_some()
            });
            if let Some(instead) = lost {
                packet::send(self.fd.as_fd(), &instead, &[])?;
                return KeeperSocket::receive(self, buffer, fds);
            }
        }
        Ok(packet)
    }

    fn wait_readable(&self, ms: u64) -> io::Result<u64> {
        call(self.me.as_ref(), "poll")?;
        let Some(me) = &self.me else { return Ok(0) };
        let end_us = me.world.now_us() + ms * 1_000;
        me.wait(Until::Ready { read: vec![self.fd.as_raw_fd()], write: Vec::new(), at_us: Some(end_us) });
        Ok(end_us.saturating_sub(me.world.now_us()) / 1_000)
    }

    fn file_with(&self, name: &str, bytes: &[u8]) -> io::Result<OwnedFd> {
        call(self.me.as_ref(), "memfd_create")?;
        KeeperSocket::file_with(&self.fd, name, bytes)
    }
}

impl Wire for Socket {
    type Passed = OwnedFd;

    fn send(&self, bytes: &[u8], passed: Option<&OwnedFd>) -> io::Result<usize> {
        call(self.me.as_ref(), if passed.is_none() { "sendmsg" } else { "sendmsg with files" })?;
        Wire::send(&self.fd, bytes, passed)
    }

    fn receive(&self, into: &mut [u8], passed: &mut VecDeque<OwnedFd>) -> io::Result<Received> {
        call(self.me.as_ref(), "recvmsg")?;
        Wire::receive(&self.fd, into, passed)
    }
}

impl ChannelSocket for Socket {
    fn unread_by_peer(&self) -> usize {
        self.fd.unread_by_peer()
    }

    fn send_lent(&self, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<usize> {
        call(self.me.as_ref(), if fd.is_none() { "sendmsg" } else { "sendmsg with files" })?;
        self.fd.send_lent(bytes, fd)
    }
}

/// A real epoll that waits in the time of the world.
pub(crate) struct WorldEpoll {
    me: Option<Me>,
    real: <Linux as System>::Epoll,
}

impl Epoll for WorldEpoll {
    fn add(&self, fd: BorrowedFd<'_>, token: usize, interest: Interest) -> io::Result<()> {
        call(self.me.as_ref(), "epoll_ctl")?;
        self.real.add(fd, token, interest)
    }

    fn change(&self, fd: BorrowedFd<'_>, token: usize, interest: Interest) -> io::Result<()> {
        call(self.me.as_ref(), "epoll_ctl")?;
        self.real.change(fd, token, interest)
    }

    fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        call(self.me.as_ref(), "epoll_ctl")?;
        self.real.remove(fd)
    }

    fn add_set(&self, inner: &WorldEpoll, token: usize) -> io::Result<()> {
        call(self.me.as_ref(), "epoll_ctl")?;
        self.real.add_set(&inner.real, token)
    }

    fn remove_set(&self, inner: &WorldEpoll) -> io::Result<()> {
        call(self.me.as_ref(), "epoll_ctl")?;
        self.real.remove_set(&inner.real)
    }

    fn waker(&self, token: usize) -> io::Result<Arc<dyn Fn() + Send + Sync>> {
        self.real.waker(token)
    }

    fn wait(&mut self, timeout_ms: u64, mut take: impl FnMut(Readiness)) -> io::Result<()> {
        call(self.me.as_ref(), "epoll_wait")?;
        if timeout_ms > 0
            && let Some(me) = &self.me
        {
            let at_us = Some(me.world.now_us() + timeout_ms * 1_000);
            me.wait(Until::Ready { read: vec![self.real.number()], write: Vec::new(), at_us });
        }
        let me = self.me.clone();
        self.real.wait(0, |event| {
            if !me.as_ref().is_some_and(|me| me.has_bug(Bug::loses_edge)) {
                take(event);
            }
        })
    }
}

impl MasterSystem {
    pub(crate) fn new(me: Me) -> MasterSystem {
        MasterSystem { me: Some(me), linux: Linux::default() }
    }

    fn call(&self, name: &'static str) -> io::Result<()> {
        call(self.me.as_ref(), name)
    }

    fn step(&self, name: &'static str) {
        // A failure that was ordered has no meaning here.
        let _ = self.call(name);
    }

    /// The inodes of the sockets that a process holds, with their numbers; those that its program uses have none here.
    fn inodes(&self, pid: i32) -> Option<Vec<(RawFd, u64)>> {
        let state = self.me.as_ref()?.world.state();
        let process = state.processes.get(&pid).filter(|process| process.ended.is_none())?;
        let files = process.files.iter().filter_map(|(n, fd)| Some((*n, connection::inode(fd.as_fd())?)));
        let used = process.connections.keys().chain(&process.waits_at).map(|inode| (RawFd::MAX, *inode));
        Some(files.chain(used).collect())
    }

    fn living<T>(&self, pid: i32, read: impl FnOnce(&Process) -> T) -> Option<T> {
        let state = self.me.as_ref()?.world.state();
        state.processes.get(&pid).filter(|process| process.ended.is_none()).map(read)
    }

    fn hand(&self, change: impl FnOnce(&mut Hand)) {
        if let Some(me) = self.me.as_ref().filter(|me| !me.has_bug(|bug, _| bug == Bug::Unguarded))
            && let Some(hand) = me.world.state().processes.get_mut(&me.pid).and_then(|own| own.hand.as_mut())
        {
            change(hand);
        }
    }
}

impl Kernel for MasterSystem {}

/// Calls that the real system does after the world has allowed them.
macro_rules! real {
    ($($kernel_call:literal fn $name:ident(&self $(, $arg:ident: $type:ty)*) -> $out:ty;)*) => {
        $(fn $name(&self $(, $arg: $type)*) -> $out {
            self.call($kernel_call)?;
            self.linux.$name($($arg),*)
        })*
    };
}

/// The same for calls without an error.
macro_rules! sure {
    ($($kernel_call:literal fn $name:ident(&self $(, $arg:ident: $type:ty)*) $(-> $out:ty)?;)*) => {
        $(fn $name(&self $(, $arg: $type)*) $(-> $out)? {
            self.step($kernel_call);
            self.linux.$name($($arg),*)
        })*
    };
}

impl System for MasterSystem {
    type Epoll = WorldEpoll;
    type KeeperSocket = Socket;
    type ChannelSocket = Socket;

    fn now_us(&self) -> u64 {
        self.me.as_ref().map_or(0, |me| me.world.now_us())
    }

    fn own_pid(&self) -> i32 {
        self.me.as_ref().map_or(0, |me| me.pid)
    }

    fn keeper_pid(&self) -> i32 {
        let Some(me) = &self.me else { return 0 };
        me.world.state().processes.get(&me.pid).map_or(1, |own| own.parent)
    }

    fn container(&self) -> Option<Container> {
        None
    }

    fn is_on_terminal(&self) -> bool {
        false
    }

    fn finish_stderr(&self) {}

    fn set_name(&self, _name: &str) {}

    fn outlive_keeper(&self) -> io::Result<()> {
        self.call("prctl")?;
        if let Some(me) = &self.me
            && let Some(own) = me.world.state().processes.get_mut(&me.pid)
        {
            own.dies_with_parent = false;
        }
        Ok(())
    }

    fn kill_orphans(&self, leader: i32) {
        self.step("kill");
        if let Some(me) = &self.me {
            me.world.state().signal_group(leader, crate::world::SIGKILL);
        }
    }

    fn ignore_signal(&self, _signal: i32) -> io::Result<()> {
        self.call("sigaction")
    }

    fn forget_code(&self) {}

    fn cpus(&self) -> CpuCount {
        CpuCount { count: CPUS, reason: format!("{CPUS} simulated CPUs") }
    }

    fn on_thread(
        &self,
        _name: &'static str,
        _stack_bytes: usize,
        work: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        self.call("clone")?;
        work();
        Ok(())
    }

    fn as_user<T: Send + 'static>(
        &self,
        _who: &Credentials,
        act: impl FnOnce(&MasterSystem) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        act(self)
    }

    fn end_leftovers(&self, _base: &str) -> usize {
        0
    }

    fn epoll(&self) -> io::Result<WorldEpoll> {
        self.call("epoll_create")?;
        Ok(WorldEpoll { me: self.me.clone(), real: self.linux.epoll()? })
    }

    fn nap(&self, us: u64) {
        if let Some(me) = &self.me {
            let at_us = Some(me.world.now_us() + us);
            me.wait(Until::Ready { read: Vec::new(), write: Vec::new(), at_us });
        }
    }

    fn keeper_socket(&self) -> io::Result<Socket> {
        self.call("fcntl")?;
        let missing = || io::Error::from(io::ErrorKind::NotConnected);
        let me = self.me.as_ref().ok_or_else(missing)?;
        let mut state = me.world.state();
        let fd = state.processes.get_mut(&me.pid).and_then(|own| own.files.remove(&KEEPER_FD)).ok_or_else(missing)?;
        Ok(Socket::new(self.me.clone(), fd))
    }

    fn channel(&self, fd: OwnedFd) -> Socket {
        Socket::new(self.me.clone(), fd)
    }

    fn guard(&mut self, to: BorrowedFd<'_>, parcel: &Parcel) -> io::Result<()> {
        self.call("clone")?;
        let to = to.try_clone_to_owned()?;
        if let Some(me) = &self.me
            && let Some(own) = me.world.state().processes.get_mut(&me.pid)
        {
            own.hand = Some(Hand { to, parcel: parcel.clone(), connection: None, held: -1, receiver: 0, number: 0 });
        }
        Ok(())
    }

    fn is_guarded(&self) -> bool {
        let Some(me) = &self.me else { return false };
        me.world.state().processes.get(&me.pid).is_some_and(|own| own.hand.is_some())
    }

    fn holding(&self, connection: BorrowedFd<'_>) {
        let copy = connection.try_clone_to_owned().ok();
        self.hand(|hand| (hand.connection, hand.held, hand.receiver) = (copy, connection.as_raw_fd(), 0));
    }

    fn handing(&self, connection: BorrowedFd<'_>, worker: WorkerId, seq: u64) {
        self.hand(|hand| {
            if hand.connection.is_some() && hand.held == connection.as_raw_fd() {
                (hand.receiver, hand.number) = (worker.0, seq);
            }
        });
    }

    fn handed(&self) {
        self.hand(|hand| (hand.connection, hand.receiver) = (None, 0));
    }

    fn accept(&self, listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
        self.accept_with_peer(listener).map(|(socket, _)| socket)
    }

    fn accept_with_peer(&self, listener: BorrowedFd<'_>) -> io::Result<(OwnedFd, Option<IpAddr>)> {
        // As the guard does it: nothing is in hand before the next one.
        self.handed();
        self.call("accept4")?;
        let accepted = self.linux.accept_with_peer(listener)?;
        let copy = accepted.0.try_clone()?;
        let number = accepted.0.as_raw_fd();
        self.hand(|hand| (hand.connection, hand.held, hand.receiver) = (Some(copy), number, 0));
        Ok(accepted)
    }

    fn close_connection(&mut self, connection: OwnedFd) {
        self.step("close");
        drop(connection);
    }

    fn rest(&mut self) {}

    fn close(&self, fd: OwnedFd) {
        self.step("close");
        if self.me.as_ref().is_some_and(|me| me.has_bug(Bug::keeps_file)) {
            std::mem::forget(fd);
        }
    }

    fn tcp_port_holder(&self, _address: SocketAddr) -> Option<Holder> {
        None
    }

    fn listening_ports(&self, _pid: i32) -> Vec<u16> {
        Vec::new()
    }

    fn unix_path_holder(&self, _path: &Path) -> Option<Holder> {
        None
    }

    fn is_served_by(&self, leader: i32, connection: u64, listener: u64) -> Option<bool> {
        self.living(leader, |process| {
            process.connections.contains_key(&connection) || process.waits_at.contains(&listener)
        })
    }

    fn holds_socket(&self, pid: i32, inode: u64, except: &Range<RawFd>) -> bool {
        let held = self.inodes(pid).unwrap_or_default();
        held.iter().any(|(number, held)| *held == inode && !except.contains(number))
    }

    fn process_group(&self, pid: i32) -> Option<i32> {
        let state = self.me.as_ref()?.world.state();
        state.processes.get(&pid).map(|process| process.group)
    }

    fn socket_inodes(&self, pid: i32) -> Option<HashSet<u64>> {
        Some(self.inodes(pid)?.into_iter().map(|(_, inode)| inode).collect())
    }

    fn receive_notify(&self, socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Option<Datagram>> {
        self.call("recvmsg")?;
        // What rides along is closed here, and not by another thread.
        let (received, _) = notify::receive_with_files(socket, buffer)?;
        Ok(received.map(|found| Datagram { pid: listen_fds::sender(&buffer[..found.bytes]), ..found }))
    }

    fn memory_bytes(&self, pid: i32) -> Option<u64> {
        self.living(pid, |process| process.memory_bytes)
    }

    fn cpu_wait_us(&self, pid: i32) -> Option<u64> {
        self.inodes(pid).map(|_| 0)
    }

    fn tree_cpu_ms(&self, pid: i32) -> Option<u64> {
        self.living(pid, |process| process.cpu_us / 1_000)
    }

    fn main_thread_cpu_ms(&self, pid: i32) -> Option<u64> {
        self.living(pid, |process| process.cpu_us / 1_000)
    }

    real! {
        "lstat" fn real_path(&self, path: &Path) -> io::Result<PathBuf>;
        "unlink" fn remove_file(&self, path: &Path) -> io::Result<()>;
        "open" fn preload_file(&self, uid: u32, home: Option<&Home>) -> io::Result<String>;
        "mkdir" fn metrics_folder(&self, who: Option<&Credentials>, home: Option<&Home>, names: &Names, generation: u32) -> io::Result<PathBuf>;
        "fstat" fn file_identity(&self, fd: BorrowedFd<'_>) -> io::Result<(u64, u64)>;
        "open" fn check_log_file(&self, path: &LogPath) -> io::Result<()>;
        "rename" fn rotate_own_log(&self, path: &Path, bytes_max: u64) -> io::Result<()>;
        "open" fn reopen_own_log(&self, path: &Path) -> io::Result<OwnedFd>;
        "open" fn empty_own_log(&self, path: &Path) -> io::Result<()>;
        "memfd_create" fn file_with(&self, name: &str, bytes: &[u8]) -> io::Result<OwnedFd>;
        "pread" fn contents(&self, fd: BorrowedFd<'_>, bytes_max: usize) -> io::Result<Vec<u8>>;
        "open" fn null_device(&self) -> io::Result<OwnedFd>;
        "pipe2" fn pipe(&self) -> io::Result<(OwnedFd, OwnedFd)>;
        "pipe2" fn input_pipe(&self, capacity: usize) -> io::Result<(OwnedFd, OwnedFd)>;
        "write" fn write_pipe(&self, pipe: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<()>;
        "socketpair" fn socket_pair(&self) -> io::Result<(OwnedFd, OwnedFd)>;
        "bind" fn bind_tcp(&self, address: SocketAddr, v6only: bool, backlog: i32) -> io::Result<OwnedFd>;
        "bind" fn bind_tcp_any(&self, port: u16, backlog: i32) -> io::Result<OwnedFd>;
        "socket" fn client_for(&self, listener: SocketAddr) -> io::Result<(OwnedFd, SocketAddr)>;
        "connect" fn connect(&self, client: BorrowedFd<'_>, to: SocketAddr) -> io::Result<()>;
        "bind" fn bind_tcp_beside(&self, address: SocketAddr, v6only: bool, others: &[BorrowedFd<'_>]) -> io::Result<OwnedFd>;
        "bind" fn bind_tcp_any_beside(&self, port: u16, others: &[BorrowedFd<'_>]) -> io::Result<OwnedFd>;
        "bind" fn bind_udp(&self, address: SocketAddr, v6only: bool, reuse_address: bool) -> io::Result<OwnedFd>;
        "bind" fn bind_unix(&self, path: &Path, backlog: i32, replace_dead: bool, access: &Access) -> io::Result<OwnedFd>;
        "chown" fn set_socket_access(&self, file: &SocketFile, access: &Access) -> io::Result<()>;
        "connect" fn addresses_of(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>>;
        "getsockname" fn local_address(&self, socket: BorrowedFd<'_>) -> io::Result<LocalAddress>;
        "listen" fn listen_again(&self, socket: BorrowedFd<'_>, address: SocketAddr, backlog: i32) -> io::Result<()>;
        "ioctl" fn set_nonblocking(&self, socket: BorrowedFd<'_>, on: bool) -> io::Result<()>;
        "setsockopt" fn defer_accept(&self, listener: BorrowedFd<'_>, on: bool) -> io::Result<()>;
        "setsockopt" fn set_nodelay(&self, listener: BorrowedFd<'_>) -> io::Result<()>;
        "unlink" fn remove_socket_file(&self, file: &SocketFile) -> io::Result<()>;
        "getsockname" fn other_end(&self, client: BorrowedFd<'_>) -> io::Result<OtherEnd>;
        "socket" fn begin_loopback(&self) -> io::Result<Half>;
        "accept4" fn finish_loopback(&self, half: Half) -> io::Result<Made>;
        "sendmsg" fn write(&self, socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize>;
        "read" fn read_now(&self, socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Option<usize>>;
        "bind" fn bind_notify(&self, path: &Path, owner: u32) -> io::Result<OwnedFd>;
        "bind" fn bind_notify_abstract(&self) -> io::Result<OwnedFd>;
        "getsockname" fn notify_address(&self, socket: BorrowedFd<'_>) -> io::Result<String>;
        "mkdir" fn prepare_notify_folder(&self, path: &Path) -> io::Result<()>;
        "recvmsg" fn peek_filter(&self, socket: BorrowedFd<'_>) -> io::Result<Option<Sent>>;
        "ioctl" fn next_call(&self, filter: BorrowedFd<'_>) -> io::Result<Option<Call>>;
        "ioctl" fn answer_call(&self, filter: BorrowedFd<'_>, call: u64, answer: Answer) -> io::Result<()>;
        "ioctl" fn replace_fd(&self, filter: BorrowedFd<'_>, call: u64, number: i32, file: BorrowedFd<'_>, close_on_exec: bool) -> io::Result<()>;
        "connect" fn connect_path(&self, path: &Path) -> io::Result<OwnedFd>;
        "listen" fn set_backlog(&self, socket: BorrowedFd<'_>, backlog: i32) -> io::Result<()>;
    }

    sure! {
        "gettimeofday" fn local_time(&self) -> jiff::ZonedDateTime;
        "getuid" fn own_uid(&self) -> u32;
        "stat" fn own_binary(&self) -> Option<(u64, u64)>;
        "open" fn account(&self, uid: u32) -> Account;
        "open" fn credentials(&self, user: Option<&str>, group: Option<&str>) -> Result<Option<Credentials>, UserError>;
        "open" fn user_id(&self, name: &str) -> Result<u32, UserError>;
        "open" fn group_id(&self, name: &str) -> Result<u32, UserError>;
        "stat" fn is_folder(&self, path: &Path) -> bool;
        "stat" fn home_mark(&self, home: &Home) -> Option<u64>;
        "unlink" fn remove_metrics_folders(&self, who: Option<&Credentials>, home: Option<&Home>, names: &Names);
        "getsockopt" fn is_datagram(&self, socket: BorrowedFd<'_>) -> bool;
        "getsockopt" fn is_listening(&self, socket: BorrowedFd<'_>) -> bool;
        "connect" fn refuses_clients(&self, socket: BorrowedFd<'_>) -> bool;
        "shutdown" fn stop_listening(&self, socket: BorrowedFd<'_>);
        "getsockopt" fn accept_queue(&self, listener: BorrowedFd<'_>) -> AcceptQueue;
        "stat" fn socket_file(&self, path: &Path) -> Option<SocketFile>;
        "getsockopt" fn connection(&self, socket: BorrowedFd<'_>) -> Option<Connection>;
        "getpeername" fn peer(&self, socket: BorrowedFd<'_>) -> Option<IpAddr>;
        "fstat" fn inode(&self, fd: BorrowedFd<'_>) -> Option<u64>;
        "ioctl" fn is_call_waiting(&self, filter: BorrowedFd<'_>, call: u64) -> bool;
        "getsockopt" fn is_socket(&self, fd: BorrowedFd<'_>) -> bool;
        "poll" fn is_hung_up(&self, fd: BorrowedFd<'_>) -> bool;
        "poll" fn is_readable(&self, fd: BorrowedFd<'_>) -> bool;
        "setsockopt" fn copy_options(&self, from: BorrowedFd<'_>, to: BorrowedFd<'_>);
        "getsockopt" fn socket_wishes(&self, socket: BorrowedFd<'_>) -> Wishes;
        "stat" fn socket_inode(&self, tid: i32, number: i32) -> Option<u64>;
        "recvmsg" fn has_connections(&self, ports: &[u16], paths: &[String]) -> bool;
        "recvmsg" fn connections(&self, ports: &[u16], paths: &[String]) -> Option<ConnectionTable>;
        "getrlimit" fn hard_limit(&self, resource: i32) -> Option<u64>;
    }
}
