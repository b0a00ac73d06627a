//! The system under a master: sockets, files and epoll are the real ones, processes, users and time those of the world.
use crate::actor::{Me, Until};
use crate::bugs::Bug;
use crate::intercepted;
use crate::listen_fds;
use crate::sockets::{Socket, WorldEpoll, call, part};
use crate::world::{Hand, Process};
use clusterd::api::CallSender;
use clusterd::api::server::Server;
use clusterd::home::Home;
use clusterd::ids::WorkerId;
use clusterd::keeper::protocol::Credentials;
use clusterd::logs::LogPath;
use clusterd::master::metrics_folders::{self, Names, Work};
use clusterd::master::system::{Linux, System};
use clusterd::os::background::Background;
use clusterd::os::connection::{self, Connection};
use clusterd::os::container::Container;
use clusterd::os::cpu::CpuCount;
use clusterd::os::guard::Parcel;
use clusterd::os::listen::{Access, LocalAddress, SocketFile};
use clusterd::os::loopback::{Half, Made};
use clusterd::os::notify::{self, Datagram};
use clusterd::os::other_end::OtherEnd;
use clusterd::os::procfs::{ConnectionTable, Holder};
use clusterd::os::reuseport::AcceptQueue;
use clusterd::os::seccomp::{Answer, Call, Sent};
use clusterd::os::tracee::{Caller, Seen, Wishes};
use clusterd::os::user::{Account, UserError};
use clusterd::reuseport::group::Kernel;
use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, TryRecvError};

/// The number of a master's connection to the keeper.
const KEEPER_FD: RawFd = 3;
/// Pause between two looks whether a thread is done, in microseconds.
const AWAIT_LOOK_US: u64 = 1_000;
/// CPUs of the machine.
const CPUS: u32 = 2;

/// `me` is `None` only in what `Default` makes, which nobody uses.
#[derive(Debug, Default)]
pub(crate) struct MasterSystem {
    me: Option<Me>,
    linux: Linux,
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
        let used = process.connections.keys().chain(&process.listens).map(|inode| (RawFd::MAX, *inode));
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

/// What is done while somebody waits for it is done at once.
fn at_once(_name: &'static str, _stack_bytes: usize, work: Work) -> io::Result<()> {
    work();
    Ok(())
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

    fn own_binary(&self) -> Option<(u64, u64)> {
        self.step("stat");
        let me = self.me.as_ref()?;
        me.world.state().processes.get(&me.pid).and_then(|own| own.binary)
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
        if let Some(me) = &self.me {
            me.world.state().add_errand(me.pid, Box::new(work));
        }
        Ok(())
    }

    fn in_background(&self, _name: &'static str, _stack_bytes: usize, work: impl Background) -> io::Result<()> {
        self.call("clone")?;
        if let Some(me) = &self.me {
            me.world.state().add_loop(me.pid, Box::new(work));
        }
        Ok(())
    }

    fn serve_control(&self, socket: UnixListener, calls: CallSender) -> io::Result<Server> {
        self.call("clone")?;
        if let Some(me) = &self.me {
            me.world.state().controls.insert(me.pid, (socket, calls));
        }
        Ok(Server::elsewhere())
    }

    fn await_background(&self, word: &Receiver<()>, ms: u64) {
        let Some(me) = &self.me else { return };
        let end_us = me.world.now_us() + ms * 1_000;
        while matches!(word.try_recv(), Err(TryRecvError::Empty)) && me.world.now_us() < end_us {
            let at_us = Some(me.world.now_us() + AWAIT_LOOK_US);
            me.wait(Until::Ready { read: Vec::new(), write: Vec::new(), at_us });
            if std::thread::panicking() {
                return;
            }
        }
    }

    fn look_at_caller(&self, caller: Caller, _: usize, tell: impl FnOnce(Seen) + Send + 'static) -> io::Result<()> {
        self.call("clone")?;
        if let Some(me) = &self.me {
            let world = me.world.clone();
            let look = move || {
                let seen = intercepted::look(&mut world.state(), caller);
                tell(seen);
            };
            me.world.state().add_errand(me.pid, Box::new(look));
        }
        Ok(())
    }

    fn next_call(&self, filter: BorrowedFd<'_>) -> io::Result<Option<Call>> {
        self.call("ioctl")?;
        self.me.as_ref().map_or(Ok(None), |me| me.world.state().intercepted.next(filter))
    }

    fn is_call_waiting(&self, _filter: BorrowedFd<'_>, call: u64) -> bool {
        self.step("ioctl");
        self.me.as_ref().is_some_and(|me| me.world.state().intercepted.is_waiting(call))
    }

    fn answer_call(&self, _filter: BorrowedFd<'_>, call: u64, answer: Answer) -> io::Result<()> {
        self.call("ioctl")?;
        self.me.as_ref().map_or(Ok(()), |me| me.world.state().intercepted.answer(call, answer))
    }

    fn replace_fd(
        &self,
        _filter: BorrowedFd<'_>,
        call: u64,
        number: i32,
        file: BorrowedFd<'_>,
        _close_on_exec: bool,
    ) -> io::Result<()> {
        self.call("ioctl")?;
        let copy = file.try_clone_to_owned()?;
        let Some(me) = &self.me else { return Ok(()) };
        let mut state = me.world.state();
        let pid = state.intercepted.caller(call)?;
        if let Some(process) = state.processes.get_mut(&pid) {
            process.files.insert(number, copy);
        }
        Ok(())
    }

    fn socket_inode(&self, tid: i32, number: i32) -> Option<u64> {
        self.step("stat");
        self.living(tid, |process| process.files.get(&number).and_then(|file| connection::inode(file.as_fd())))?
    }

    fn metrics_folder(
        &self,
        who: Option<&Credentials>,
        home: Option<&Home>,
        names: &Names,
        generation: u32,
    ) -> io::Result<PathBuf> {
        self.call("mkdir")?;
        metrics_folders::make(who, home, names, generation, at_once)
    }

    fn remove_metrics_folders(&self, who: Option<&Credentials>, home: Option<&Home>, names: &Names) {
        self.step("unlink");
        metrics_folders::remove_all(who, home, names, at_once);
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
        Ok(WorldEpoll::new(self.me.clone(), self.linux.epoll()?))
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

    fn write(&self, socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
        self.call("sendmsg")?;
        self.linux.write(socket, &bytes[..part(self.me.as_ref(), bytes.len())])
    }

    fn read_now(&self, socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        self.call("read")?;
        let most = part(self.me.as_ref(), buffer.len());
        self.linux.read_now(socket, &mut buffer[..most])
    }

    fn local_time(&self) -> jiff::ZonedDateTime {
        let us = self.me.as_ref().map_or(0, |me| {
            let state = me.world.state();
            state.wall_s * 1_000_000 + state.now_us as i64
        });
        jiff::Timestamp::from_microsecond(us).unwrap_or_default().to_zoned_datetime(jiff::tz::TimeZone::UTC)
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
        "bind" fn bind_notify(&self, path: &Path, owner: u32) -> io::Result<OwnedFd>;
        "bind" fn bind_notify_abstract(&self) -> io::Result<OwnedFd>;
        "getsockname" fn notify_address(&self, socket: BorrowedFd<'_>) -> io::Result<String>;
        "mkdir" fn prepare_notify_folder(&self, path: &Path) -> io::Result<()>;
        "recvmsg" fn peek_filter(&self, socket: BorrowedFd<'_>) -> io::Result<Option<Sent>>;
        "connect" fn connect_path(&self, path: &Path) -> io::Result<OwnedFd>;
        "listen" fn set_backlog(&self, socket: BorrowedFd<'_>, backlog: i32) -> io::Result<()>;
    }

    sure! {
        "getuid" fn own_uid(&self) -> u32;
        "open" fn account(&self, uid: u32) -> Account;
        "open" fn credentials(&self, user: Option<&str>, group: Option<&str>) -> Result<Option<Credentials>, UserError>;
        "open" fn user_id(&self, name: &str) -> Result<u32, UserError>;
        "open" fn group_id(&self, name: &str) -> Result<u32, UserError>;
        "stat" fn is_folder(&self, path: &Path) -> bool;
        "stat" fn home_mark(&self, home: &Home) -> Option<u64>;
        "getsockopt" fn is_datagram(&self, socket: BorrowedFd<'_>) -> bool;
        "getsockopt" fn is_listening(&self, socket: BorrowedFd<'_>) -> bool;
        "connect" fn refuses_clients(&self, socket: BorrowedFd<'_>) -> bool;
        "shutdown" fn stop_listening(&self, socket: BorrowedFd<'_>);
        "getsockopt" fn accept_queue(&self, listener: BorrowedFd<'_>) -> AcceptQueue;
        "stat" fn socket_file(&self, path: &Path) -> Option<SocketFile>;
        "getsockopt" fn connection(&self, socket: BorrowedFd<'_>) -> Option<Connection>;
        "getpeername" fn peer(&self, socket: BorrowedFd<'_>) -> Option<IpAddr>;
        "fstat" fn inode(&self, fd: BorrowedFd<'_>) -> Option<u64>;
        "getsockopt" fn is_socket(&self, fd: BorrowedFd<'_>) -> bool;
        "poll" fn is_hung_up(&self, fd: BorrowedFd<'_>) -> bool;
        "poll" fn is_readable(&self, fd: BorrowedFd<'_>) -> bool;
        "setsockopt" fn copy_options(&self, from: BorrowedFd<'_>, to: BorrowedFd<'_>);
        "getsockopt" fn socket_wishes(&self, socket: BorrowedFd<'_>) -> Wishes;
        "recvmsg" fn has_connections(&self, ports: &[u16], paths: &[String]) -> bool;
        "recvmsg" fn connections(&self, ports: &[u16], paths: &[String]) -> Option<ConnectionTable>;
        "getrlimit" fn hard_limit(&self, resource: i32) -> Option<u64>;
    }
}
