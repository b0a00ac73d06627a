//! The real system. Each method is one call of `os`.
use super::{Epoll, Interest, Readiness, System};
use crate::api::CallSender;
use crate::api::server::{self, Server};
use crate::home::Home;
use crate::ids::WorkerId;
use crate::keeper::protocol::Credentials;
use crate::logs::LogPath;
use crate::master::metrics_folders::{self, Names};
use crate::master::preload;
use crate::os::background::{self, Background};
use crate::os::connection::{self, Connection};
use crate::os::container::{self, Container};
use crate::os::cpu::{self, CpuCount};
use crate::os::guard::{Guard, Parcel};
use crate::os::hosts;
use crate::os::interrupt::Periodic;
use crate::os::listen::{self, Access, LocalAddress, SocketFile};
use crate::os::loopback::{Half, Made};
use crate::os::notify::{self, Datagram};
use crate::os::other_end::{self, OtherEnd};
use crate::os::procfs::{self, ConnectionTable, Holder};
use crate::os::reuseport::{self, AcceptQueue};
use crate::os::seccomp::{self, Answer, Call, Sent};
use crate::os::tracee::{self, Caller, Seen, Wishes};
use crate::os::user::{self, Account, UserError};
use crate::os::{
    attributes, cgroup, clock, closer, fdpass, identity, memfd, memory, parent, pipe, poll, process, signal, stderr,
};
use crate::reuseport::group::Kernel;
use mio::unix::SourceFd;
use mio::{Events, Poll, Token, Waker};
use std::collections::HashSet;
use std::fs;
use std::io::{self, IsTerminal as _};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

/// Time limit for an action with the rights of a worker's user, in milliseconds.
const AS_USER_WAIT_MS: u64 = 200;
/// Events taken from one epoll at a time.
const POLL_EVENTS_MAX: usize = 256;

/// The system calls of Linux.
#[derive(Debug, Default)]
pub struct Linux {
    /// Interrupts a close that blocks.
    interrupts: Periodic,
    /// Sends on what is in hand when this process is killed.
    guard: Option<Guard>,
}

impl Kernel for Linux {}

impl System for Linux {
    type Epoll = MioEpoll;
    type KeeperSocket = OwnedFd;
    type ChannelSocket = OwnedFd;

    fn now_us(&self) -> u64 {
        clock::monotonic_us()
    }

    fn local_time(&self) -> jiff::ZonedDateTime {
        clock::local_time()
    }

    fn own_pid(&self) -> i32 {
        std::process::id() as i32
    }

    fn keeper_pid(&self) -> i32 {
        std::os::unix::process::parent_id() as i32
    }

    fn container(&self) -> Option<Container> {
        container::of(self.keeper_pid())
    }

    fn own_uid(&self) -> u32 {
        user::own_uid()
    }

    fn own_binary(&self) -> Option<(u64, u64)> {
        fs::metadata("/proc/self/exe").ok().map(|own| (own.dev(), own.ino()))
    }

    fn is_on_terminal(&self) -> bool {
        io::stderr().is_terminal()
    }

    fn finish_stderr(&self) {
        stderr::finish();
    }

    fn set_name(&self, name: &str) {
        process::set_name(name);
    }

    fn outlive_keeper(&self) -> io::Result<()> {
        parent::outlive()
    }

    fn kill_orphans(&self, leader: i32) {
        // It may be gone.
        let _ = signal::send_group(leader, signal::KILL);
    }

    fn ignore_signal(&self, signal: i32) -> io::Result<()> {
        signal::ignore(signal)
    }

    fn forget_code(&self) {
        memory::forget_code();
    }

    fn cpus(&self) -> CpuCount {
        cpu::available()
    }

    fn on_thread(
        &self,
        name: &'static str,
        stack_bytes: usize,
        work: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        std::thread::Builder::new().name(name.to_owned()).stack_size(stack_bytes).spawn(work).map(drop)
    }

    fn in_background(&self, name: &'static str, stack_bytes: usize, work: impl Background) -> io::Result<()> {
        background::on_thread(name, stack_bytes, work)
    }

    fn await_background(&self, word: &Receiver<()>, ms: u64) {
        let _ = word.recv_timeout(Duration::from_millis(ms));
    }

    fn serve_control(&self, socket: UnixListener, calls: CallSender) -> io::Result<Server> {
        server::start(socket, calls, self.own_uid())
    }

    fn credentials(&self, user: Option<&str>, group: Option<&str>) -> Result<Option<Credentials>, UserError> {
        user::resolve(user, group)
    }

    fn account(&self, uid: u32) -> Account {
        user::account(uid)
    }

    fn user_id(&self, name: &str) -> Result<u32, UserError> {
        user::uid_of(name)
    }

    fn group_id(&self, name: &str) -> Result<u32, UserError> {
        user::gid_of(name)
    }

    fn as_user<T: Send + 'static>(
        &self,
        who: &Credentials,
        act: impl FnOnce(&Linux) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        identity::as_user(who, Some(AS_USER_WAIT_MS), move || act(&Linux::default()))
    }

    fn real_path(&self, path: &Path) -> io::Result<PathBuf> {
        fs::canonicalize(path)
    }

    fn is_folder(&self, path: &Path) -> bool {
        path.is_dir()
    }

    fn home_mark(&self, home: &Home) -> Option<u64> {
        home.mark()
    }

    fn end_leftovers(&self, base: &str) -> usize {
        cgroup::end_leftovers(base)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn preload_file(&self, uid: u32, home: Option<&Home>) -> io::Result<String> {
        preload::path_for(uid, home)
    }

    fn metrics_folder(
        &self,
        who: Option<&Credentials>,
        home: Option<&Home>,
        names: &Names,
        generation: u32,
    ) -> io::Result<PathBuf> {
        metrics_folders::make(who, home, names, generation, |name, bytes, work| self.on_thread(name, bytes, work))
    }

    fn remove_metrics_folders(&self, who: Option<&Credentials>, home: Option<&Home>, names: &Names) {
        metrics_folders::remove_all(who, home, names, |name, bytes, work| self.on_thread(name, bytes, work));
    }

    fn file_identity(&self, fd: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
        process::file_identity(fd)
    }

    fn check_log_file(&self, path: &LogPath) -> io::Result<()> {
        path.check()
    }

    fn rotate_own_log(&self, path: &Path, bytes_max: u64) -> io::Result<()> {
        if fs::metadata(path).is_ok_and(|file| file.len() > bytes_max) {
            let kept = fs::copy(path, path.with_extension("log.1")).map(drop);
            let emptied = fs::OpenOptions::new().write(true).open(path).and_then(|file| file.set_len(0));
            kept.and(emptied)?;
        }
        Ok(())
    }

    fn reopen_own_log(&self, path: &Path) -> io::Result<OwnedFd> {
        let file = fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        stderr::replace(file.as_fd())?;
        Ok(file.into())
    }

    fn empty_own_log(&self, path: &Path) -> io::Result<()> {
        fs::OpenOptions::new().write(true).open(path)?.set_len(0)
    }

    fn file_with(&self, name: &str, bytes: &[u8]) -> io::Result<OwnedFd> {
        memfd::with_contents(name, bytes)
    }

    fn contents(&self, fd: BorrowedFd<'_>, bytes_max: usize) -> io::Result<Vec<u8>> {
        memfd::contents(fd, bytes_max)
    }

    fn null_device(&self) -> io::Result<OwnedFd> {
        process::null_device()
    }

    fn pipe(&self) -> io::Result<(OwnedFd, OwnedFd)> {
        pipe::pair()
    }

    fn input_pipe(&self, capacity: usize) -> io::Result<(OwnedFd, OwnedFd)> {
        pipe::for_input(capacity)
    }

    fn write_pipe(&self, pipe: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<()> {
        pipe::write_whole(pipe, bytes)
    }

    fn epoll(&self) -> io::Result<MioEpoll> {
        Ok(MioEpoll { poll: Poll::new()?, events: Events::with_capacity(POLL_EVENTS_MAX) })
    }

    fn nap(&self, us: u64) {
        std::thread::sleep(Duration::from_micros(us));
    }

    fn keeper_socket(&self) -> io::Result<OwnedFd> {
        crate::keeper::link::inherited_socket()
    }

    fn channel(&self, fd: OwnedFd) -> OwnedFd {
        fd
    }

    fn socket_pair(&self) -> io::Result<(OwnedFd, OwnedFd)> {
        listen::channel_pair()
    }

    fn bind_tcp(&self, address: SocketAddr, v6only: bool, backlog: i32) -> io::Result<OwnedFd> {
        listen::bind_tcp(address, v6only, backlog)
    }

    fn bind_tcp_any(&self, port: u16, backlog: i32) -> io::Result<OwnedFd> {
        listen::bind_tcp_any(port, backlog)
    }

    fn client_for(&self, listener: SocketAddr) -> io::Result<(OwnedFd, SocketAddr)> {
        listen::client_for(listener)
    }

    fn connect(&self, client: BorrowedFd<'_>, to: SocketAddr) -> io::Result<()> {
        listen::connect(client, to)
    }

    fn bind_tcp_beside(&self, address: SocketAddr, v6only: bool, others: &[BorrowedFd<'_>]) -> io::Result<OwnedFd> {
        listen::bind_tcp_beside(address, v6only, others)
    }

    fn bind_tcp_any_beside(&self, port: u16, others: &[BorrowedFd<'_>]) -> io::Result<OwnedFd> {
        listen::bind_any(port, |address, v6only| listen::bind_tcp_beside(address, v6only, others))
    }

    fn bind_udp(&self, address: SocketAddr, v6only: bool, reuse_address: bool) -> io::Result<OwnedFd> {
        listen::bind_udp(address, v6only, reuse_address)
    }

    fn bind_unix(&self, path: &Path, backlog: i32, replace_dead: bool, access: &Access) -> io::Result<OwnedFd> {
        listen::bind_unix(path, backlog, replace_dead, access)
    }

    fn set_socket_access(&self, file: &SocketFile, access: &Access) -> io::Result<()> {
        file.set_access(access)
    }

    fn addresses_of(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        hosts::addresses_of(host, port)
    }

    fn local_address(&self, socket: BorrowedFd<'_>) -> io::Result<LocalAddress> {
        listen::local_address(socket)
    }

    fn is_datagram(&self, socket: BorrowedFd<'_>) -> bool {
        listen::is_datagram(socket)
    }

    fn is_listening(&self, socket: BorrowedFd<'_>) -> bool {
        listen::is_listening(socket)
    }

    fn refuses_clients(&self, socket: BorrowedFd<'_>) -> bool {
        listen::refuses_clients(socket)
    }

    fn listen_again(&self, socket: BorrowedFd<'_>, address: SocketAddr, backlog: i32) -> io::Result<()> {
        listen::listen_again(socket, address, backlog)
    }

    fn stop_listening(&self, socket: BorrowedFd<'_>) {
        listen::stop_listening(socket);
    }

    fn set_nonblocking(&self, socket: BorrowedFd<'_>, on: bool) -> io::Result<()> {
        listen::set_nonblocking(socket, on)
    }

    fn set_nodelay(&self, listener: BorrowedFd<'_>) -> io::Result<()> {
        listen::set_nodelay(listener)
    }

    fn accept_queue(&self, listener: BorrowedFd<'_>) -> AcceptQueue {
        reuseport::accept_queue(listener)
    }

    fn defer_accept(&self, listener: BorrowedFd<'_>, on: bool) -> io::Result<()> {
        reuseport::defer_accept(listener, on)
    }

    fn socket_file(&self, path: &Path) -> Option<SocketFile> {
        SocketFile::at(path)
    }

    fn remove_socket_file(&self, file: &SocketFile) -> io::Result<()> {
        file.remove()
    }

    fn tcp_port_holder(&self, address: SocketAddr) -> Option<Holder> {
        procfs::tcp_port_holder(address)
    }

    fn listening_ports(&self, pid: i32) -> Vec<u16> {
        procfs::listening_ports(pid)
    }

    fn unix_path_holder(&self, path: &Path) -> Option<Holder> {
        procfs::unix_path_holder(path)
    }

    fn connection(&self, socket: BorrowedFd<'_>) -> Option<Connection> {
        connection::look(socket)
    }

    fn peer(&self, socket: BorrowedFd<'_>) -> Option<IpAddr> {
        connection::peer(socket)
    }

    fn inode(&self, fd: BorrowedFd<'_>) -> Option<u64> {
        connection::inode(fd)
    }

    fn other_end(&self, client: BorrowedFd<'_>) -> io::Result<OtherEnd> {
        other_end::look(client)
    }

    fn is_served_by(&self, leader: i32, connection: u64, listener: u64) -> Option<bool> {
        other_end::is_served_by(leader, connection, listener)
    }

    fn guard(&mut self, to: BorrowedFd<'_>, parcel: &Parcel) -> io::Result<()> {
        self.guard = Some(Guard::start(to, parcel)?);
        Ok(())
    }

    fn is_guarded(&self) -> bool {
        self.guard.is_some()
    }

    fn holding(&self, connection: BorrowedFd<'_>) {
        if let Some(guard) = &self.guard {
            guard.holding(connection);
        }
    }

    fn handing(&self, connection: BorrowedFd<'_>, worker: WorkerId, seq: u64) {
        if let Some(guard) = &self.guard {
            guard.handing(connection, worker.0, seq);
        }
    }

    fn handed(&self) {
        if let Some(guard) = &self.guard {
            guard.handed();
        }
    }

    fn accept(&self, listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
        match &self.guard {
            Some(guard) => guard.accept(listener).map(|(socket, _)| socket),
            None => listen::accept(listener),
        }
    }

    fn accept_with_peer(&self, listener: BorrowedFd<'_>) -> io::Result<(OwnedFd, Option<IpAddr>)> {
        match &self.guard {
            Some(guard) => guard.accept(listener),
            None => listen::accept_with_peer(listener),
        }
    }

    fn close_connection(&mut self, connection: OwnedFd) {
        self.interrupts.keep();
        closer::close_soon(connection);
    }

    fn rest(&mut self) {
        self.interrupts.rest();
    }

    fn close(&self, fd: OwnedFd) {
        closer::close(fd);
    }

    fn begin_loopback(&self) -> io::Result<Half> {
        Half::begin()
    }

    fn finish_loopback(&self, half: Half) -> io::Result<Made> {
        half.finish()
    }

    fn write(&self, socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
        fdpass::send_with_fd(socket, bytes, None)
    }

    fn read_now(&self, socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        process::read_now(socket, buffer)
    }

    fn bind_notify(&self, path: &Path, owner: u32) -> io::Result<OwnedFd> {
        notify::bind_for(path, owner)
    }

    fn bind_notify_abstract(&self) -> io::Result<OwnedFd> {
        notify::bind_abstract()
    }

    fn notify_address(&self, socket: BorrowedFd<'_>) -> io::Result<String> {
        notify::address(socket)
    }

    fn prepare_notify_folder(&self, path: &Path) -> io::Result<()> {
        notify::prepare_folder(path)
    }

    fn receive_notify(&self, socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Option<Datagram>> {
        notify::receive(socket, buffer)
    }

    fn peek_filter(&self, socket: BorrowedFd<'_>) -> io::Result<Option<Sent>> {
        seccomp::peek_listener(socket)
    }

    fn next_call(&self, filter: BorrowedFd<'_>) -> io::Result<Option<Call>> {
        seccomp::next_call(filter)
    }

    fn is_call_waiting(&self, filter: BorrowedFd<'_>, call: u64) -> bool {
        seccomp::is_waiting(filter, call)
    }

    fn look_at_caller(
        &self,
        caller: Caller,
        stack_bytes: usize,
        tell: impl FnOnce(Seen) + Send + 'static,
    ) -> io::Result<()> {
        self.on_thread("look", stack_bytes, move || tell(tracee::look(caller)))
    }

    fn answer_call(&self, filter: BorrowedFd<'_>, call: u64, answer: Answer) -> io::Result<()> {
        seccomp::answer(filter, call, answer)
    }

    fn replace_fd(
        &self,
        filter: BorrowedFd<'_>,
        call: u64,
        number: i32,
        file: BorrowedFd<'_>,
        close_on_exec: bool,
    ) -> io::Result<()> {
        seccomp::replace_fd(filter, call, number, file, close_on_exec)
    }

    fn is_socket(&self, fd: BorrowedFd<'_>) -> bool {
        listen::is_socket(fd)
    }

    fn is_hung_up(&self, fd: BorrowedFd<'_>) -> bool {
        poll::is_hung_up(fd)
    }

    fn is_readable(&self, fd: BorrowedFd<'_>) -> bool {
        poll::is_readable(fd)
    }

    fn connect_path(&self, path: &Path) -> io::Result<OwnedFd> {
        listen::connect_path(path)
    }

    fn set_backlog(&self, socket: BorrowedFd<'_>, backlog: i32) -> io::Result<()> {
        listen::set_backlog(socket, backlog)
    }

    fn copy_options(&self, from: BorrowedFd<'_>, to: BorrowedFd<'_>) {
        tracee::copy_options(from, to);
    }

    fn socket_wishes(&self, socket: BorrowedFd<'_>) -> Wishes {
        tracee::wishes(socket)
    }

    fn socket_inode(&self, tid: i32, number: i32) -> Option<u64> {
        tracee::socket_inode(tid, number)
    }

    fn holds_socket(&self, pid: i32, inode: u64, except: &Range<RawFd>) -> bool {
        tracee::holds_socket(pid, inode, except)
    }

    fn process_group(&self, pid: i32) -> Option<i32> {
        procfs::process_group(pid)
    }

    fn socket_inodes(&self, pid: i32) -> Option<HashSet<u64>> {
        procfs::socket_inodes(pid)
    }

    fn memory_bytes(&self, pid: i32) -> Option<u64> {
        procfs::memory_bytes(pid)
    }

    fn cpu_wait_us(&self, pid: i32) -> Option<u64> {
        procfs::cpu_wait_us(pid)
    }

    fn tree_cpu_ms(&self, pid: i32) -> Option<u64> {
        procfs::tree_cpu_ms(pid)
    }

    fn main_thread_cpu_ms(&self, pid: i32) -> Option<u64> {
        procfs::main_thread_cpu_ms(pid)
    }

    fn has_connections(&self, ports: &[u16], paths: &[String]) -> bool {
        procfs::has_connections(ports, paths)
    }

    fn connections(&self, ports: &[u16], paths: &[String]) -> Option<ConnectionTable> {
        ConnectionTable::read(ports, paths)
    }

    fn hard_limit(&self, resource: i32) -> Option<u64> {
        attributes::hard_limit(resource)
    }
}

/// A set of fds in mio.
pub struct MioEpoll {
    poll: Poll,
    events: Events,
}

impl MioEpoll {
    /// Its own fd, which is readable while one of the watched ones is ready.
    pub fn number(&self) -> RawFd {
        self.poll.as_raw_fd()
    }

    fn register(&self, number: RawFd, token: usize, interest: Interest) -> io::Result<()> {
        self.poll.registry().register(&mut SourceFd(&number), Token(token), in_mio(interest))
    }

    fn deregister(&self, number: RawFd) -> io::Result<()> {
        self.poll.registry().deregister(&mut SourceFd(&number))
    }

    fn poll(&mut self, timeout_ms: u64) -> io::Result<()> {
        match self.poll.poll(&mut self.events, Some(Duration::from_millis(timeout_ms))) {
            Err(e) if e.kind() != io::ErrorKind::Interrupted => Err(e),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

fn in_mio(interest: Interest) -> mio::Interest {
    match interest {
        Interest::Read => mio::Interest::READABLE,
        Interest::ReadAndWrite => mio::Interest::READABLE | mio::Interest::WRITABLE,
    }
}

impl Epoll for MioEpoll {
    fn add(&self, fd: BorrowedFd<'_>, token: usize, interest: Interest) -> io::Result<()> {
        self.register(fd.as_raw_fd(), token, interest)
    }

    fn change(&self, fd: BorrowedFd<'_>, token: usize, interest: Interest) -> io::Result<()> {
        self.poll.registry().reregister(&mut SourceFd(&fd.as_raw_fd()), Token(token), in_mio(interest))
    }

    fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.deregister(fd.as_raw_fd())
    }

    fn add_set(&self, inner: &MioEpoll, token: usize) -> io::Result<()> {
        self.register(inner.poll.as_raw_fd(), token, Interest::Read)
    }

    fn remove_set(&self, inner: &MioEpoll) -> io::Result<()> {
        self.deregister(inner.poll.as_raw_fd())
    }

    fn waker(&self, token: usize) -> io::Result<Arc<dyn Fn() + Send + Sync>> {
        let waker = Waker::new(self.poll.registry(), Token(token))?;
        // A failed wake-up means that the loop has ended, and the process with it.
        Ok(Arc::new(move || drop(waker.wake())))
    }

    fn wait(&mut self, timeout_ms: u64, mut take: impl FnMut(Readiness)) -> io::Result<()> {
        let mut timeout_ms = timeout_ms;
        loop {
            self.poll(timeout_ms)?;
            let mut count = 0;
            for event in self.events.iter() {
                let (token, writable, ended) = (event.token().0, event.is_writable(), event.is_read_closed());
                take(Readiness { token, writable, ended });
                count += 1;
            }
            // Each is reported once, so nothing may be left behind.
            if count < POLL_EVENTS_MAX {
                return Ok(());
            }
            timeout_ms = 0;
        }
    }
}
