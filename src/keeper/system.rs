//! Every system call of the keeper, as one trait, so that a simulated system can take its place. [`Linux`] is the real
//! one: thin, and chosen at compile time. Pure helpers (signal names, the meaning of a wait status) are not here.
use crate::os::cgroup::{self, Base, CgroupError, Entry, Limit, Limits};
use crate::os::packet::{self, Packet};
use crate::os::poll;
use crate::os::process::{self, FileLimit};
use crate::os::signal::{self, Caught};
use crate::os::spawn::{self, Failure, Plan, Report, Started};
use crate::os::stderr;
use crate::os::{attributes, clock, closer, memfd, memory, notify, pipe, procfs, rescue, tracee};
use std::collections::VecDeque;
use std::ffi::OsString;
use std::fmt::Debug;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// What the keeper sets its oom_score_adj to where it may: 1,000 less is never killed, and the master and the workers get
/// the score back that clusterd was started with.
const KEEPER_OOM_SCORE_ADJ: i32 = -900;

/// The signals that the keeper handles. All but SIGCHLD are passed to the master.
pub(super) const SIGNALS: [i32; 9] = [
    signal::TERM,
    signal::INT,
    signal::QUIT,
    signal::HUP,
    signal::USR1,
    signal::USR2,
    signal::TTIN,
    signal::TTOU,
    signal::CHLD,
];
/// What to wait for on one file, and the result.
#[derive(Debug)]
pub struct Interest<'a, F> {
    pub fd: &'a F,
    /// Also wait until it is writable.
    pub write: bool,
    /// Readable, or closed by the peer. Set by [`System::wait`].
    pub readable: bool,
}

/// The system as the keeper uses it. Only [`System::wait`] blocks. Errors are those of the system calls.
pub trait System: Debug {
    /// An open file. Dropping it closes it.
    type Fd: Debug;

    /// CLOCK_MONOTONIC, in milliseconds.
    fn now_ms(&self) -> u64;

    /// CLOCK_MONOTONIC, in microseconds.
    fn now_us(&self) -> u64 {
        self.now_ms() * 1_000
    }

    /// Writes a line to stderr.
    fn say(&self, line: &str);

    /// Has stderr go to this file.
    fn take_stderr(&self, fd: Self::Fd) {
        drop(fd);
    }

    /// Tells this, perhaps with a file, to the service manager that started us, if it asked for it (`NOTIFY_SOCKET`). Returns
    /// `false` where it has to be told again, because it has not read what it was told before.
    fn tell_service_manager(&self, _state: &str, _fd: Option<&Self::Fd>) -> bool {
        true
    }

    /// Whether both are the same file, as far as can be seen.
    fn is_same_file(&self, _one: &Self::Fd, _other: &Self::Fd) -> bool {
        false
    }

    /// Releases code pages that only the start needed.
    fn forget_code(&self);

    /// Our pid.
    fn own_pid(&self) -> u32;

    /// Our environment.
    fn environment(&self) -> Vec<(OsString, OsString)>;

    /// Names the process, for `ps`.
    fn set_name(&self, name: &str);

    // ---- files ----

    /// The running binary.
    fn own_binary(&self) -> io::Result<Self::Fd>;

    /// `/dev/null`.
    fn null_device(&self) -> io::Result<Self::Fd>;

    /// Raises the limit on open files to its maximum. Returns the previous limit.
    fn raise_file_limit(&self) -> io::Result<FileLimit>;

    /// Has the OOM killer choose this process late. Returns what its score was, where it could be lowered.
    fn lower_oom_score(&self) -> Option<i32> {
        None
    }

    /// Sets close-on-exec for all fds from this number on.
    fn close_on_exec_from(&self, first: RawFd) -> io::Result<()>;

    /// Clears close-on-exec.
    fn keep_over_exec(&self, fd: &Self::Fd) -> io::Result<()>;

    /// Takes an fd that was open when the process began.
    fn take_inherited(&self, number: RawFd) -> io::Result<Self::Fd>;

    /// One message with files, where standard input is a socket for that; it is empty from then on.
    fn take_passed(&self, _buffer: &mut [u8], _fds: &mut VecDeque<Self::Fd>) -> io::Result<Packet> {
        Ok(Packet::End)
    }

    /// Closes an fd whose close may block because of options that others set.
    fn close(&self, fd: Self::Fd) {
        drop(fd);
    }

    fn is_open(&self, number: RawFd) -> bool;

    fn number(&self, fd: &Self::Fd) -> RawFd;

    /// A memfd with this content.
    fn file_with(&self, name: &str, bytes: &[u8]) -> io::Result<Self::Fd>;

    /// The whole content of a memfd.
    fn contents(&self, fd: &Self::Fd, bytes_max: usize) -> io::Result<Vec<u8>>;

    /// A pipe: its reading end and its writing end.
    fn pipe(&self) -> io::Result<(Self::Fd, Self::Fd)>;

    /// Reads what is there; `None` when there is nothing yet.
    fn read_now(&self, fd: &Self::Fd, buffer: &mut [u8]) -> io::Result<Option<usize>>;

    // ---- packets ----

    /// A connected pair of sockets.
    fn pair(&self, buffer_bytes: usize) -> io::Result<(Self::Fd, Self::Fd)>;

    /// Sends one packet, whole or not at all, with a copy of an fd.
    fn send(&self, socket: &Self::Fd, bytes: &[u8], fd: Option<&Self::Fd>) -> io::Result<()>;

    /// Receives one packet and its fds.
    fn receive(&self, socket: &Self::Fd, buffer: &mut [u8], fds: &mut VecDeque<Self::Fd>) -> io::Result<Packet>;

    // ---- signals and waiting ----

    /// Blocks these signals for good, so that [`System::next_signal`] returns them; ignores SIGPIPE.
    fn watch_signals(&mut self, signals: &[i32]) -> io::Result<()>;

    /// Gives a signal its default action.
    fn reset_signal(&self, signal: i32) -> io::Result<()>;

    /// The next signal that has arrived.
    fn next_signal(&mut self) -> io::Result<Option<Caught>>;

    /// Waits for a signal, one of these fds, or the time-out (milliseconds; `None`: for ever).
    fn wait(&self, interests: &mut [Interest<'_, Self::Fd>], timeout_ms: Option<u64>) -> io::Result<()>;

    /// Sends a signal to a process.
    fn kill(&self, pid: i32, signal: i32) -> io::Result<()>;

    /// Sends a signal to a process group.
    fn kill_group(&self, leader: i32, signal: i32) -> io::Result<()>;

    // ---- processes ----

    /// Forks and executes. [`System::report`] returns the result.
    fn start(&self, plan: &Plan<'_, Self::Fd>) -> Result<Started<Self::Fd>, Failure>;

    /// The report of a starting process.
    fn report(&self, report: &Self::Fd) -> Report;

    /// Executes this binary in this process. Returns if that failed.
    fn replace(&self, program: &Self::Fd, args: &[Vec<u8>], env: &[Vec<u8>]) -> io::Error;

    /// Has descendants that lose their parent become our children.
    fn become_subreaper(&self) {}

    /// The pids of our children.
    fn children(&self) -> Vec<i32> {
        Vec::new()
    }

    /// Whether a process has this name.
    fn is_called(&self, _pid: i32, _name: &str) -> bool {
        false
    }

    /// Waits until a child has ended, reaped or not, for at most `ms`.
    fn await_end(&self, _pid: i32, _ms: u64) {}

    /// A variable in the environment that a process was started with, where it can be read.
    fn variable(&self, _pid: i32, _name: &str) -> Option<Vec<u8>> {
        None
    }

    // ---- cgroups ----

    /// The app in whose cgroup a process is.
    fn app_of(&self, _pid: i32, _base: &Base) -> Option<String> {
        None
    }

    /// Finds the place for the cgroups of the apps.
    fn find_cgroups(&self, _base: &str) -> Result<Base, CgroupError> {
        Err(CgroupError::NotMounted)
    }

    /// Makes the cgroup of an app where it is missing, and limits it. Returns the limits that do not hold.
    fn make_cgroup(
        &self,
        base: &mut Base,
        app: &str,
        limits: &Limits,
        before: &Limits,
    ) -> Result<Vec<(Limit, CgroupError)>, CgroupError> {
        base.make(app, limits, before)
    }

    /// What a process needs to join the cgroup of an app.
    fn enter_cgroup(&self, _base: &Base, _app: &str) -> io::Result<Entry<Self::Fd>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Kills every process in the cgroup of an app. Returns whether the group is gone.
    fn end_cgroup(&self, base: &Base, app: &str) -> bool {
        base.end(app)
    }

    /// Removes what is empty of the apps' cgroups.
    fn remove_cgroups(&self, base: &mut Base) {
        base.remove();
    }

    /// How many processes of an app the kernel has killed because its cgroup was out of memory.
    fn oom_kills(&self, base: &Base, app: &str) -> u64 {
        base.oom_kills(app)
    }
    /// Reads the memory of a thread's process, at most as much as an address of a socket has.
    fn read_memory(&self, tid: i32, address: u64, bytes: usize) -> io::Result<Vec<u8>>;

    /// Copies connections of a process of which it has read nothing, `most` at the most.
    fn copy_untouched(&self, _pid: i32, _most: usize) -> io::Result<Vec<Self::Fd>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// A child that has ended; the pid stays its own until [`System::reap`].
    fn ended_child(&self) -> io::Result<Option<i32>>;

    /// The wait status of a child that has ended.
    fn reap(&self, pid: i32) -> io::Result<Option<i32>>;
}

/// The real system.
#[derive(Debug, Default)]
pub struct Linux {
    signals: Option<signal::Watch>,
}

fn tell_service_manager(state: &str, fd: Option<BorrowedFd<'_>>) -> bool {
    let Some(address) = std::env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty()) else { return true };
    match notify::tell(&address, state, fd) {
        Ok(()) => true,
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => false,
        Err(e) => {
            stderr::say(&format!(
                "clusterd: cannot send {state:?} to the service manager at {}: {e}",
                address.display()
            ));
            true
        }
    }
}

impl System for Linux {
    type Fd = OwnedFd;

    fn now_ms(&self) -> u64 {
        clock::monotonic_ms()
    }

    fn now_us(&self) -> u64 {
        clock::monotonic_us()
    }

    fn say(&self, line: &str) {
        stderr::say(line);
    }

    fn take_stderr(&self, fd: OwnedFd) {
        if let Err(e) = stderr::replace(fd.as_fd()) {
            stderr::say(&format!("clusterd: cannot switch to the reopened log: {e}"));
        }
    }

    fn tell_service_manager(&self, state: &str, fd: Option<&OwnedFd>) -> bool {
        tell_service_manager(state, fd.map(AsFd::as_fd))
    }

    fn is_same_file(&self, one: &OwnedFd, other: &OwnedFd) -> bool {
        let identity = |fd: &OwnedFd| process::file_identity(fd.as_fd()).ok();
        identity(one).is_some_and(|own| identity(other) == Some(own))
    }

    fn forget_code(&self) {
        memory::forget_code();
    }

    fn own_pid(&self) -> u32 {
        std::process::id()
    }

    fn environment(&self) -> Vec<(OsString, OsString)> {
        std::env::vars_os().collect()
    }

    fn set_name(&self, name: &str) {
        process::set_name(name);
    }

    fn own_binary(&self) -> io::Result<OwnedFd> {
        process::own_binary()
    }

    fn null_device(&self) -> io::Result<OwnedFd> {
        process::null_device()
    }

    fn raise_file_limit(&self) -> io::Result<FileLimit> {
        process::raise_file_limit()
    }

    fn lower_oom_score(&self) -> Option<i32> {
        // Only root, or who was lower before, may: for everybody else nothing changes.
        attributes::lower_oom_score(KEEPER_OOM_SCORE_ADJ).ok().flatten()
    }

    fn close_on_exec_from(&self, first: RawFd) -> io::Result<()> {
        process::close_on_exec_from(first)
    }

    fn keep_over_exec(&self, fd: &OwnedFd) -> io::Result<()> {
        process::keep_over_exec(fd.as_fd())
    }

    fn take_inherited(&self, number: RawFd) -> io::Result<OwnedFd> {
        process::take_inherited_fd(number)
    }

    fn take_passed(&self, buffer: &mut [u8], fds: &mut VecDeque<OwnedFd>) -> io::Result<Packet> {
        match packet::is_packet_socket(io::stdin().as_fd()) {
            true => packet::receive(process::take_stdin()?, buffer, fds),
            false => Ok(Packet::End),
        }
    }

    fn close(&self, fd: OwnedFd) {
        closer::close_here(fd);
    }

    fn is_open(&self, number: RawFd) -> bool {
        process::is_open(number)
    }

    fn number(&self, fd: &OwnedFd) -> RawFd {
        fd.as_raw_fd()
    }

    fn file_with(&self, name: &str, bytes: &[u8]) -> io::Result<OwnedFd> {
        memfd::with_contents(name, bytes)
    }

    fn contents(&self, fd: &OwnedFd, bytes_max: usize) -> io::Result<Vec<u8>> {
        memfd::contents(fd.as_fd(), bytes_max)
    }

    fn pipe(&self) -> io::Result<(OwnedFd, OwnedFd)> {
        pipe::pair()
    }

    fn read_now(&self, fd: &OwnedFd, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        process::read_now(fd.as_fd(), buffer)
    }

    fn pair(&self, buffer_bytes: usize) -> io::Result<(OwnedFd, OwnedFd)> {
        packet::pair(buffer_bytes)
    }

    fn send(&self, socket: &OwnedFd, bytes: &[u8], fd: Option<&OwnedFd>) -> io::Result<()> {
        packet::send(socket.as_fd(), bytes, fd.map(AsFd::as_fd).as_slice())
    }

    fn receive(&self, socket: &OwnedFd, buffer: &mut [u8], fds: &mut VecDeque<OwnedFd>) -> io::Result<Packet> {
        packet::receive(socket, buffer, fds)
    }

    fn watch_signals(&mut self, signals: &[i32]) -> io::Result<()> {
        self.signals = Some(signal::Watch::new(signals)?);
        signal::ignore(signal::PIPE)
    }

    fn reset_signal(&self, signal: i32) -> io::Result<()> {
        signal::reset(signal)
    }

    fn next_signal(&mut self) -> io::Result<Option<Caught>> {
        self.signals.as_mut().map_or(Ok(None), signal::Watch::next_caught)
    }

    fn wait(&self, interests: &mut [Interest<'_, OwnedFd>], timeout_ms: Option<u64>) -> io::Result<()> {
        let signals: Option<BorrowedFd<'_>> = self.signals.as_ref().map(AsFd::as_fd);
        let files = interests.iter().map(|interest| poll::Interest::new(interest.fd.as_fd(), interest.write));
        let mut all: Vec<poll::Interest<'_>> =
            files.chain(signals.map(|signals| poll::Interest::new(signals, false))).collect();
        let stderr = io::stderr();
        if stderr::is_waiting() {
            all.push(poll::Interest::to_write(stderr.as_fd()));
        }
        poll::wait(&mut all, timeout_ms)?;
        stderr::write_waiting();
        let readable: Vec<bool> = all.iter().map(poll::Interest::readable).collect();
        for (interest, readable) in interests.iter_mut().zip(readable) {
            interest.readable = readable;
        }
        Ok(())
    }

    fn kill(&self, pid: i32, signal: i32) -> io::Result<()> {
        signal::send(pid, signal)
    }

    fn kill_group(&self, leader: i32, signal: i32) -> io::Result<()> {
        signal::send_group(leader, signal)
    }

    fn start(&self, plan: &Plan<'_, OwnedFd>) -> Result<Started<OwnedFd>, Failure> {
        spawn::start(plan)
    }

    fn report(&self, report: &OwnedFd) -> Report {
        spawn::read_report(report.as_fd())
    }

    fn replace(&self, program: &OwnedFd, args: &[Vec<u8>], env: &[Vec<u8>]) -> io::Error {
        spawn::replace(program.as_fd(), args, env)
    }

    fn become_subreaper(&self) {
        // Kernels before 3.4 have none: what workers leave goes to init there.
        let _ = process::become_subreaper();
    }

    fn children(&self) -> Vec<i32> {
        procfs::children()
    }

    fn is_called(&self, pid: i32, name: &str) -> bool {
        procfs::name(pid).is_some_and(|found| found == name)
    }

    fn await_end(&self, pid: i32, ms: u64) {
        // An error means that it has ended, or that there are no pidfds: then it has not begun either.
        if let Ok(process) = process::pidfd(pid) {
            let _ = poll::wait(&mut [poll::Interest::new(process.as_fd(), false)], Some(ms));
        }
    }

    fn variable(&self, pid: i32, name: &str) -> Option<Vec<u8>> {
        procfs::variable(pid, name)
    }

    fn app_of(&self, pid: i32, base: &Base) -> Option<String> {
        cgroup::app_of(pid, base.name())
    }

    fn find_cgroups(&self, base: &str) -> Result<Base, CgroupError> {
        Base::find(base)
    }

    fn enter_cgroup(&self, base: &Base, app: &str) -> io::Result<Entry<OwnedFd>> {
        base.entry(app)
    }

    fn read_memory(&self, tid: i32, address: u64, bytes: usize) -> io::Result<Vec<u8>> {
        tracee::read_memory(tid, address, bytes)
    }

    fn copy_untouched(&self, pid: i32, most: usize) -> io::Result<Vec<OwnedFd>> {
        rescue::copy_untouched(pid, most, |fd| self.close(fd))
    }

    fn ended_child(&self) -> io::Result<Option<i32>> {
        process::peek_ended()
    }

    fn reap(&self, pid: i32) -> io::Result<Option<i32>> {
        process::reap(pid)
    }
}
