//! Every system call of the master's loop, as one trait, so that a simulated system can take its place. `linux` is the
//! real one: thin, and chosen at compile time.
//!
//! Not here: what other threads do (the control API's server, the reader of configurations, the watcher of files, the
//! log writer), and pure helpers (signal names, the meaning of a wait status).
mod linux;

use crate::api::CallSender;
use crate::api::server::Server;
use crate::home::Home;
use crate::ids::WorkerId;
use crate::keeper::link::KeeperSocket;
use crate::keeper::protocol::Credentials;
use crate::logs::LogPath;
use crate::master::metrics_folders::Names;
use crate::os::background::Background;
use crate::os::connection::Connection;
use crate::os::container::Container;
use crate::os::cpu::CpuCount;
use crate::os::guard::Parcel;
use crate::os::listen::{Access, LocalAddress, SocketFile};
use crate::os::loopback::{Half, Made};
use crate::os::notify::Datagram;
use crate::os::other_end::OtherEnd;
use crate::os::procfs::{ConnectionTable, Holder};
use crate::os::reuseport::AcceptQueue;
use crate::os::seccomp::{Answer, Call, Sent};
use crate::os::tracee::{Caller, Seen, Wishes};
use crate::os::user::{Account, UserError};
use crate::reuseport::group::Kernel;
use crate::worker::node::channel::ChannelSocket;
use std::collections::HashSet;
use std::fmt::Debug;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Receiver;

pub use linux::Linux;

/// What happened to an fd that an [`Epoll`] watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readiness {
    pub token: usize,
    pub writable: bool,
    /// The peer has closed; its last bytes are still to be read.
    pub ended: bool,
}

/// What to wait for on one fd. Errors and hang-ups are always reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    Read,
    ReadAndWrite,
}

/// A set of fds to wait for, edge-triggered.
pub trait Epoll: Sized {
    /// Adds an fd. Closing the fd removes it.
    fn add(&self, fd: BorrowedFd<'_>, token: usize, interest: Interest) -> io::Result<()>;

    fn change(&self, fd: BorrowedFd<'_>, token: usize, interest: Interest) -> io::Result<()>;

    fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()>;

    /// Watches another set, which is readable while one of its fds is ready.
    fn add_set(&self, inner: &Self, token: usize) -> io::Result<()>;

    fn remove_set(&self, inner: &Self) -> io::Result<()>;

    /// A function that makes `token` ready, from any thread. There can be only one for each set.
    fn waker(&self, token: usize) -> io::Result<Arc<dyn Fn() + Send + Sync>>;

    /// Waits for at most `timeout_ms`, then passes on all that is ready. A signal ends the wait.
    fn wait(&mut self, timeout_ms: u64, take: impl FnMut(Readiness)) -> io::Result<()>;
}

/// The system as the master uses it. Only [`Epoll::wait`] and [`System::nap`] block. Errors are those of the system
/// calls. Fds are closed by dropping them, except where another process may have made the close block.
pub trait System: Debug + Default + Kernel + 'static {
    type Epoll: Epoll;
    /// The master's end of the connection to the keeper.
    type KeeperSocket: KeeperSocket;
    /// The master's end of a worker's channel.
    type ChannelSocket: ChannelSocket;

    // ---- the process ----

    /// CLOCK_MONOTONIC, in microseconds.
    fn now_us(&self) -> u64;

    fn local_time(&self) -> jiff::ZonedDateTime;

    fn own_pid(&self) -> i32;

    fn keeper_pid(&self) -> i32;

    /// The container whose main process the keeper is.
    fn container(&self) -> Option<Container>;

    fn own_uid(&self) -> u32;

    /// Device and inode of the running binary.
    fn own_binary(&self) -> Option<(u64, u64)>;

    /// Whether stderr is a terminal.
    fn is_on_terminal(&self) -> bool;

    /// Writes what waits for stderr, for a bounded time: the process is about to end.
    fn finish_stderr(&self);

    /// Names the process, for `ps`.
    fn set_name(&self, name: &str);

    /// Has this process live on for a moment when the keeper has ended.
    fn outlive_keeper(&self) -> io::Result<()>;

    /// Kills the process group of a worker whose keeper has ended.
    fn kill_orphans(&self, leader: i32);

    fn ignore_signal(&self, signal: i32) -> io::Result<()>;

    /// Releases code pages that only the start needed.
    fn forget_code(&self);

    /// The CPUs that this process may use.
    fn cpus(&self) -> CpuCount;

    /// Has a thread of its own do what may block.
    fn on_thread(&self, name: &'static str, stack_bytes: usize, work: impl FnOnce() + Send + 'static)
    -> io::Result<()>;

    /// Has a thread of its own take the turns of this loop.
    fn in_background(&self, name: &'static str, stack_bytes: usize, work: impl Background) -> io::Result<()>;

    /// Waits for a word of such a thread, or its end, for at most `ms`.
    fn await_background(&self, word: &Receiver<()>, ms: u64);

    /// Serves the control socket on a thread of its own: requests go to `calls`.
    fn serve_control(&self, socket: UnixListener, calls: CallSender) -> io::Result<Server>;

    // ---- users and files ----

    /// Looks up a user and a group. `None` if neither is given.
    fn credentials(&self, user: Option<&str>, group: Option<&str>) -> Result<Option<Credentials>, UserError>;

    fn account(&self, uid: u32) -> Account;

    /// The number of a user.
    fn user_id(&self, name: &str) -> Result<u32, UserError>;

    /// The number of a group.
    fn group_id(&self, name: &str) -> Result<u32, UserError>;

    /// Calls `act` with the rights of this user.
    fn as_user<T: Send + 'static>(
        &self,
        who: &Credentials,
        act: impl FnOnce(&Self) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T>;

    /// The path with its links resolved.
    fn real_path(&self, path: &Path) -> io::Result<PathBuf>;

    fn is_folder(&self, path: &Path) -> bool;

    /// See [`Home::mark`].
    fn home_mark(&self, home: &Home) -> Option<u64>;

    /// Ends what is left in cgroups whose keeper was killed. Returns how many processes that were.
    fn end_leftovers(&self, base: &str) -> usize;

    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// The path of the preload's file for workers of this user; the first call writes the file.
    fn preload_file(&self, uid: u32, home: Option<&Home>) -> io::Result<String>;

    /// The folder for metrics of a generation's workers, who are this user (`None`: our own); made where it is missing.
    fn metrics_folder(
        &self,
        who: Option<&Credentials>,
        home: Option<&Home>,
        names: &Names,
        generation: u32,
    ) -> io::Result<PathBuf>;

    /// Removes all these folders of an app, in a bounded time.
    fn remove_metrics_folders(&self, who: Option<&Credentials>, home: Option<&Home>, names: &Names);

    /// Device and inode of an open file.
    fn file_identity(&self, fd: BorrowedFd<'_>) -> io::Result<(u64, u64)>;

    /// Opens the log file at `path` once, so that a file that cannot be opened is reported early.
    fn check_log_file(&self, path: &LogPath) -> io::Result<()>;

    /// Copies this log and empties it, once it is larger than this.
    fn rotate_own_log(&self, path: &Path, bytes_max: u64) -> io::Result<()>;

    /// Opens this log again, under its name, as our stderr. Returns the file, for the keeper.
    fn reopen_own_log(&self, path: &Path) -> io::Result<OwnedFd>;

    /// Empties this log.
    fn empty_own_log(&self, path: &Path) -> io::Result<()>;

    /// A memfd with this content.
    fn file_with(&self, name: &str, bytes: &[u8]) -> io::Result<OwnedFd>;

    /// The whole content of a memfd.
    fn contents(&self, fd: BorrowedFd<'_>, bytes_max: usize) -> io::Result<Vec<u8>>;

    fn null_device(&self) -> io::Result<OwnedFd>;

    /// A pipe: its reading end, which does not block, and its writing end.
    fn pipe(&self) -> io::Result<(OwnedFd, OwnedFd)>;

    /// As [`crate::os::pipe::for_input`].
    fn input_pipe(&self, capacity: usize) -> io::Result<(OwnedFd, OwnedFd)>;

    /// As [`crate::os::pipe::write_whole`].
    fn write_pipe(&self, pipe: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<()>;

    // ---- waiting ----

    fn epoll(&self) -> io::Result<Self::Epoll>;

    /// Sleeps.
    fn nap(&self, us: u64);

    // ---- the keeper and channels ----

    /// Takes the connection that the keeper left for this process.
    fn keeper_socket(&self) -> io::Result<Self::KeeperSocket>;

    fn channel(&self, fd: OwnedFd) -> Self::ChannelSocket;

    /// A connected pair of Unix sockets; the first one does not block.
    fn socket_pair(&self) -> io::Result<(OwnedFd, OwnedFd)>;

    // ---- listening sockets ----

    /// As [`crate::os::listen::bind_tcp`].
    fn bind_tcp(&self, address: SocketAddr, v6only: bool, backlog: i32) -> io::Result<OwnedFd>;

    /// On all interfaces, IPv6 and IPv4 where possible.
    fn bind_tcp_any(&self, port: u16, backlog: i32) -> io::Result<OwnedFd>;

    /// As [`crate::os::listen::client_for`].
    fn client_for(&self, listener: SocketAddr) -> io::Result<(OwnedFd, SocketAddr)>;

    /// As [`crate::os::listen::connect`].
    fn connect(&self, client: BorrowedFd<'_>, to: SocketAddr) -> io::Result<()>;

    /// As [`crate::os::listen::bind_tcp_beside`].
    fn bind_tcp_beside(&self, address: SocketAddr, v6only: bool, others: &[BorrowedFd<'_>]) -> io::Result<OwnedFd>;

    /// The same on all interfaces.
    fn bind_tcp_any_beside(&self, port: u16, others: &[BorrowedFd<'_>]) -> io::Result<OwnedFd>;

    fn bind_udp(&self, address: SocketAddr, v6only: bool, reuse_address: bool) -> io::Result<OwnedFd>;

    /// `replace_dead`: removes a socket file on which nobody listens.
    fn bind_unix(&self, path: &Path, backlog: i32, replace_dead: bool, access: &Access) -> io::Result<OwnedFd>;

    /// Sets owner and mode of a socket file if it is still the same one.
    fn set_socket_access(&self, file: &SocketFile, access: &Access) -> io::Result<()>;

    /// The addresses of a host. Blocks as long as the resolver does.
    fn addresses_of(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>>;

    fn local_address(&self, socket: BorrowedFd<'_>) -> io::Result<LocalAddress>;

    fn is_datagram(&self, socket: BorrowedFd<'_>) -> bool;

    fn is_listening(&self, socket: BorrowedFd<'_>) -> bool;

    /// As [`crate::os::listen::refuses_clients`].
    fn refuses_clients(&self, socket: BorrowedFd<'_>) -> bool;

    /// As [`crate::os::listen::listen_again`].
    fn listen_again(&self, socket: BorrowedFd<'_>, address: SocketAddr, backlog: i32) -> io::Result<()>;

    fn stop_listening(&self, socket: BorrowedFd<'_>);

    fn set_nonblocking(&self, socket: BorrowedFd<'_>, on: bool) -> io::Result<()>;

    fn set_nodelay(&self, listener: BorrowedFd<'_>) -> io::Result<()>;

    fn accept_queue(&self, listener: BorrowedFd<'_>) -> AcceptQueue;

    /// Whether connections enter that queue only when their client has sent something.
    fn defer_accept(&self, listener: BorrowedFd<'_>, on: bool) -> io::Result<()>;

    /// The socket file at a path, as it is now.
    fn socket_file(&self, path: &Path) -> Option<SocketFile>;

    /// Removes a socket file if it is still the same one.
    fn remove_socket_file(&self, file: &SocketFile) -> io::Result<()>;

    /// Who listens on a TCP port.
    fn tcp_port_holder(&self, address: SocketAddr) -> Option<Holder>;

    /// The TCP ports on which a process listens.
    fn listening_ports(&self, pid: i32) -> Vec<u16>;

    /// Who listens at a path.
    fn unix_path_holder(&self, path: &Path) -> Option<Holder>;

    // ---- connections ----

    /// What the kernel knows of a connection. `None`: it is not a connected stream socket.
    fn connection(&self, socket: BorrowedFd<'_>) -> Option<Connection>;

    fn peer(&self, socket: BorrowedFd<'_>) -> Option<IpAddr>;

    /// The inode of an fd of our own.
    fn inode(&self, fd: BorrowedFd<'_>) -> Option<u64>;

    /// The other end of a connected client of our own.
    fn other_end(&self, client: BorrowedFd<'_>) -> io::Result<OtherEnd>;

    /// Whether a process of this tree has the socket `connection`, or waits with epoll at `listener` (inodes). `None`: that
    /// cannot be seen.
    fn is_served_by(&self, leader: i32, connection: u64, listener: u64) -> Option<bool>;

    /// Has a connection that is between accept and its hand-off outlive this process: it is sent to `to` then, in this parcel.
    ///
    /// # Errors
    /// As [`crate::os::guard::Guard::start`].
    fn guard(&mut self, to: BorrowedFd<'_>, parcel: &Parcel) -> io::Result<()>;

    /// Whether what is in hand outlives this process.
    fn is_guarded(&self) -> bool;

    /// Takes a connection in hand that was not accepted just now: a worker gave it back, or it has waited.
    fn holding(&self, connection: BorrowedFd<'_>);

    /// This connection goes to this worker now, as this hand-off. Nothing changes where another one is in hand.
    fn handing(&self, connection: BorrowedFd<'_>, worker: WorkerId, seq: u64);

    /// What was in hand was handed on, or somebody else keeps it.
    fn handed(&self);

    /// Accepts a connection, which is in hand until [`System::handed`].
    fn accept(&self, listener: BorrowedFd<'_>) -> io::Result<OwnedFd>;

    fn accept_with_peer(&self, listener: BorrowedFd<'_>) -> io::Result<(OwnedFd, Option<IpAddr>)>;

    /// Closes a TCP connection that another process may share.
    fn close_connection(&mut self, connection: OwnedFd);

    /// Once per turn without open connections: stops what [`System::close_connection`] keeps running.
    fn rest(&mut self);

    /// Closes an fd of another process's making, for which the loop must not wait.
    fn close(&self, fd: OwnedFd);

    /// Begins a loopback connection to ourselves.
    fn begin_loopback(&self) -> io::Result<Half>;

    fn finish_loopback(&self, half: Half) -> io::Result<Made>;

    fn write(&self, socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize>;

    /// Reads what is there; `None` when there is nothing yet.
    fn read_now(&self, socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Option<usize>>;

    // ---- the notify socket ----

    /// As [`crate::os::notify::bind_for`].
    fn bind_notify(&self, path: &Path, owner: u32) -> io::Result<OwnedFd>;

    fn bind_notify_abstract(&self) -> io::Result<OwnedFd>;

    fn notify_address(&self, socket: BorrowedFd<'_>) -> io::Result<String>;

    fn prepare_notify_folder(&self, path: &Path) -> io::Result<()>;

    fn receive_notify(&self, socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Option<Datagram>>;

    // ---- intercepted calls ----

    /// As [`crate::os::seccomp::peek_listener`].
    fn peek_filter(&self, socket: BorrowedFd<'_>) -> io::Result<Option<Sent>>;

    /// The next intercepted call. `None` when there is none.
    fn next_call(&self, filter: BorrowedFd<'_>) -> io::Result<Option<Call>>;

    /// Whether the caller still waits.
    fn is_call_waiting(&self, filter: BorrowedFd<'_>, call: u64) -> bool;

    /// Looks at the caller of bind(2) on a thread of its own, and tells there what it sees: reading its memory may block.
    fn look_at_caller(
        &self,
        caller: Caller,
        stack_bytes: usize,
        tell: impl FnOnce(Seen) + Send + 'static,
    ) -> io::Result<()>;

    fn answer_call(&self, filter: BorrowedFd<'_>, call: u64, answer: Answer) -> io::Result<()>;

    /// As [`crate::os::seccomp::replace_fd`].
    fn replace_fd(
        &self,
        filter: BorrowedFd<'_>,
        call: u64,
        number: i32,
        file: BorrowedFd<'_>,
        close_on_exec: bool,
    ) -> io::Result<()>;

    fn is_socket(&self, fd: BorrowedFd<'_>) -> bool;

    fn is_hung_up(&self, fd: BorrowedFd<'_>) -> bool;

    /// Whether something waits in an fd: of a listening socket, a connection.
    fn is_readable(&self, fd: BorrowedFd<'_>) -> bool;

    /// A connection to a socket in the file system, made without waiting.
    fn connect_path(&self, path: &Path) -> io::Result<OwnedFd>;

    fn set_backlog(&self, socket: BorrowedFd<'_>, backlog: i32) -> io::Result<()>;

    /// Sets the usual options of one socket on another.
    fn copy_options(&self, from: BorrowedFd<'_>, to: BorrowedFd<'_>);

    /// Options that say how a program wants to bind a socket.
    fn socket_wishes(&self, socket: BorrowedFd<'_>) -> Wishes;

    /// Inode of the socket that a thread has at this number.
    fn socket_inode(&self, tid: i32, number: i32) -> Option<u64>;

    // ---- other processes ----

    /// Whether a process has a socket under a number outside of `except`.
    fn holds_socket(&self, pid: i32, inode: u64, except: &Range<RawFd>) -> bool;

    fn process_group(&self, pid: i32) -> Option<i32>;

    /// Inodes of the sockets that a process holds.
    fn socket_inodes(&self, pid: i32) -> Option<HashSet<u64>>;

    /// Resident memory of a process.
    fn memory_bytes(&self, pid: i32) -> Option<u64>;

    /// How long a process has waited for a CPU, in microseconds.
    fn cpu_wait_us(&self, pid: i32) -> Option<u64>;

    /// As [`crate::os::procfs::tree_cpu_ms`].
    fn tree_cpu_ms(&self, pid: i32) -> Option<u64>;

    /// As [`crate::os::procfs::main_thread_cpu_ms`].
    fn main_thread_cpu_ms(&self, pid: i32) -> Option<u64>;

    /// Whether there are connections to these ports or paths, whoever holds them.
    fn has_connections(&self, ports: &[u16], paths: &[String]) -> bool;

    /// The connections to these ports and paths.
    fn connections(&self, ports: &[u16], paths: &[String]) -> Option<ConnectionTable>;

    /// The hard limit of clusterd itself on a resource.
    fn hard_limit(&self, resource: i32) -> Option<u64>;
}
