//! Processes after their start: exit status, reaping; and settings of the own process. `spawn` starts processes.
use super::signal;
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// The running binary itself, even if its path names another file by now. It can only be executed.
///
/// # Errors
/// `/proc` is not mounted.
pub fn own_binary() -> io::Result<OwnedFd> {
    open_program(Path::new("/proc/self/exe"))
}

/// Opens a program's file, to execute it whatever its path names later.
///
/// # Errors
/// Those of open(2); it need not be readable.
pub fn open_program(path: &Path) -> io::Result<OwnedFd> {
    // O_PATH needs no read permission.
    OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path).map(Into::into)
}

/// `/dev/null` for reading and writing.
///
/// # Errors
/// It does not exist.
pub fn null_device() -> io::Result<OwnedFd> {
    OpenOptions::new().read(true).write(true).open("/dev/null").map(Into::into)
}

/// Has descendants that lose their parent become children of this process instead of init's. It holds over an exec.
///
/// # Errors
/// As prctl(2).
pub fn become_subreaper() -> io::Result<()> {
    // SAFETY: prctl with this option touches no memory.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1 as libc::c_ulong) })?;
    Ok(())
}

/// The pid of a child that has ended and is not reaped; it stays a zombie, so the pid stays its own. `None` if no child
/// has ended, or there are none.
///
/// # Errors
/// As waitid(2).
pub fn peek_ended() -> io::Result<Option<i32>> {
    // SAFETY: all zero is a valid siginfo_t, and what waitid leaves when nothing has ended.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: `info` is ours and lives until the call returns.
    match Errno::result(unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, flags) }) {
        Ok(_) => {
            // SAFETY: waitid filled a SIGCHLD siginfo, or left the zeroes.
            let pid = unsafe { info.si_pid() };
            Ok((pid > 0).then_some(pid))
        }
        Err(Errno::ECHILD | Errno::EINTR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Reaps this child if it has ended, and returns its raw wait status. Afterwards the pid may be reused.
///
/// # Errors
/// ECHILD: not a child of ours.
pub fn reap(pid: i32) -> io::Result<Option<i32>> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is ours and lives until the call returns.
        match Errno::result(unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) }) {
            Ok(0) => return Ok(None),
            Ok(_) => return Ok(Some(status)),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// An fd that becomes readable when this child has ended, reaped or not. Close-on-exec.
///
/// # Errors
/// Kernels before 5.3 have none.
pub fn pidfd(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open touches no memory.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::c_long::from(pid), 0 as libc::c_long) };
    let fd = Errno::result(fd)?;
    let fd = RawFd::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just opened it for us, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A raw wait status in words that follow "the process": `exited with code 3`, `was killed by SIGKILL`.
#[must_use]
pub fn describe_status(status: i32) -> String {
    if libc::WIFSIGNALED(status) {
        let core = if libc::WCOREDUMP(status) { " (core dumped)" } else { "" };
        return format!("was killed by {}{core}", signal::name(libc::WTERMSIG(status)));
    }
    format!("exited with code {}", libc::WEXITSTATUS(status))
}

/// The exit code in a raw wait status; `None` when a signal ended the process.
#[must_use]
pub fn exit_code(status: i32) -> Option<i32> {
    libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status))
}

/// The signal in a raw wait status; `None` when the process exited by itself.
#[must_use]
pub fn end_signal(status: i32) -> Option<i32> {
    libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status))
}

/// The system's text for an errno.
#[must_use]
pub fn describe_errno(errno: i32) -> &'static str {
    Errno::from_raw(errno).desc()
}

/// RLIMIT_NOFILE as (soft, hard).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileLimit {
    /// The current limit.
    pub soft: u64,
    /// The limit up to which the process may raise it.
    pub hard: u64,
}

/// The number of RLIMIT_NOFILE for setrlimit(2).
pub const RLIMIT_NOFILE: i32 = libc::RLIMIT_NOFILE as i32;

/// The limit on open files of this process.
///
/// # Errors
/// As getrlimit(2).
pub fn file_limit() -> io::Result<FileLimit> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(FileLimit { soft, hard })
}

/// Raises the soft limit on open files to the hard one. Returns the previous limit, which workers get: a program that
/// uses select(2) is safe only below the limit that its user chose.
///
/// # Errors
/// As setrlimit(2).
pub fn raise_file_limit() -> io::Result<FileLimit> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(FileLimit { soft, hard })
}

/// Marks every open fd from `first` up as close-on-exec, so that workers do not inherit fds that our parent leaked to
/// us.
///
/// # Errors
/// The kernel lacks close_range(2) and `/proc` is not mounted.
pub fn close_on_exec_from(first: RawFd) -> io::Result<()> {
    let from = libc::c_long::from(first);
    let upto = libc::c_long::from(libc::c_uint::MAX);
    let flag = libc::c_long::from(libc::CLOSE_RANGE_CLOEXEC);
    // SAFETY: sets a flag on fds; closes nothing.
    if unsafe { libc::syscall(libc::SYS_close_range, from, upto, flag) } == 0 {
        return Ok(());
    }
    for entry in fs::read_dir("/proc/self/fd")? {
        let number = entry?.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok());
        if let Some(fd) = number.filter(|fd| *fd >= first) {
            // SAFETY: sets a flag; an fd that is closed by now is an error that changes nothing.
            unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
    Ok(())
}

/// Clears close-on-exec. [`close_on_exec_from`] sets it again.
///
/// # Errors
/// As fcntl(2).
pub fn keep_over_exec(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: sets a flag of an fd that is open as long as it is lent.
    Errno::result(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, 0) })?;
    Ok(())
}

#[must_use]
pub fn is_open(number: RawFd) -> bool {
    // SAFETY: asks for a flag; a number that is not open is an error.
    unsafe { libc::fcntl(number, libc::F_GETFD) >= 0 }
}

/// Takes ownership of an fd that our parent opened under an agreed number, and makes it close-on-exec. Call it at the
/// start of a process, for numbers that this process did not open itself.
///
/// # Errors
/// EBADF: no fd is open under this number; `InvalidInput` for stdin, stdout and stderr, which have owners, and
/// for a number that was taken before.
pub fn take_inherited_fd(number: RawFd) -> io::Result<OwnedFd> {
    static TAKEN: Mutex<BTreeSet<RawFd>> = Mutex::new(BTreeSet::new());
    if number <= 2 {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    // SAFETY: sets a flag; a number that is not open is EBADF.
    Errno::result(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    if !TAKEN.lock().unwrap_or_else(PoisonError::into_inner).insert(number) {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    // SAFETY: the fd is open, and no number is given out twice. That it was inherited, and so has no owner in this process,
    // cannot be checked: callers pass numbers that were agreed with the parent, before they open anything.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Sets the name of the calling thread for `ps` and `top`: at most 15 bytes, the rest is cut.
pub fn set_name(name: &str) {
    let mut bytes = [0_u8; 16];
    let length = name.len().min(15);
    bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
    // SAFETY: a NUL-terminated buffer of 16 bytes, which the kernel only reads.
    unsafe { libc::prctl(libc::PR_SET_NAME, bytes.as_ptr()) };
}

/// Lowers the priority of the calling thread. A refusal is ignored.
pub fn be_nice() {
    const NICENESS: i32 = 10;
    // SAFETY: takes no pointers; 0 is the calling thread.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS) };
}

/// Reads what is available from a non-blocking pipe end. `Ok(None)`: nothing yet, the writer is alive.
///
/// # Errors
/// As read(2).
pub fn read_now(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    loop {
        // SAFETY: the buffer is ours, of that length, and lives until the call returns.
        let got = unsafe { libc::read(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
        match Errno::result(got) {
            Ok(got) => return Ok(Some(usize::try_from(got).unwrap_or(0))),
            Err(Errno::EAGAIN) => return Ok(None),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Device and inode: equal for two fds exactly when they are the same file, pipe or socket.
///
/// # Errors
/// As fstat(2).
pub fn file_identity(fd: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let metadata = File::from(fd.try_clone_to_owned()?).metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

/// What a service manager says to the process that it starts.
const OF_SERVICE_MANAGER: [&str; 7] =
    ["NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "FDSTORE", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];

/// Starts this program again in a session of its own, so that the end of a terminal does not reach it: with its output in
/// `log`, and `input` for [`take_stdin`] or none. The caller need not wait for it. A service manager waits for the command
/// that starts this, if for any; `env` says who takes its place.
///
/// # Errors
/// Those of fork and exec; the folder is missing.
pub fn start_in_background(
    args: &[&OsStr],
    folder: &Path,
    log: &File,
    input: Option<OwnedFd>,
    env: &[(&str, &OsStr)],
) -> io::Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("clusterd").args(args).current_dir(folder).stdin(input.map_or_else(Stdio::null, Stdio::from));
    for name in OF_SERVICE_MANAGER {
        command.env_remove(name);
    }
    command.envs(env.iter().copied());
    command.stdout(log.try_clone()?).stderr(log.try_clone()?);
    // SAFETY: setsid is async-signal-safe and touches no memory.
    unsafe { command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(io::Error::from)) };
    command.spawn()
}

/// Takes this process's standard input, which is empty from then on.
///
/// # Errors
/// It is closed; as open(2) and dup2(2).
pub fn take_stdin() -> io::Result<OwnedFd> {
    let taken = io::stdin().as_fd().try_clone_to_owned()?;
    let nothing = null_device()?;
    // SAFETY: dup2 touches no memory; 0 stays open under the same number.
    Errno::result(unsafe { libc::dup2(nothing.as_raw_fd(), 0) })?;
    Ok(taken)
}

/// Has the child of `command` killed (SIGKILL) when the thread that starts it ends first.
pub fn end_with_this_thread(command: &mut Command) {
    let thread_of = std::process::id();
    // SAFETY: prctl and getppid are async-signal-safe and touch no memory.
    unsafe {
        command.pre_exec(move || {
            Errno::result(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong))?;
            // The parent ended before the call: no signal would come.
            if libc::getppid().cast_unsigned() != thread_of {
                return Err(Errno::ESRCH.into());
            }
            Ok(())
        });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn wait_statuses_read_as_a_person_says_them() {
        assert_eq!(describe_status(3 << 8), "exited with code 3");
        assert_eq!(describe_status(9), "was killed by SIGKILL");
        assert_eq!(describe_status(11 | 0x80), "was killed by SIGSEGV (core dumped)");
        assert_eq!((exit_code(3 << 8), end_signal(3 << 8)), (Some(3), None));
        assert_eq!((exit_code(15), end_signal(15)), (None, Some(15)));
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know file descriptors of the system")]
    fn stdio_is_never_taken_and_a_closed_number_is_an_error() {
        assert!(take_inherited_fd(1).is_err());
        assert!(take_inherited_fd(999_999).is_err());
        // Takes the place of an inherited fd: it has no other owner any more.
        let number = std::os::fd::IntoRawFd::into_raw_fd(OwnedFd::from(io::pipe().unwrap().0));
        let taken = take_inherited_fd(number).unwrap();
        assert!(take_inherited_fd(number).is_err(), "it has an owner");
        drop(taken);
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know file descriptors of the system")]
    fn what_is_kept_over_an_exec_can_be_taken_back() {
        let (read, _write) = io::pipe().unwrap();
        // SAFETY: asks for a flag.
        let closes = || unsafe { libc::fcntl(read.as_raw_fd(), libc::F_GETFD) } == libc::FD_CLOEXEC;
        assert!(closes() && is_open(read.as_raw_fd()) && !is_open(999_999));
        keep_over_exec(read.as_fd()).unwrap();
        assert!(!closes());
        close_on_exec_from(3).unwrap();
        assert!(closes());
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know file descriptors of the system")]
    fn identities_tell_files_apart() {
        let (read, write) = io::pipe().unwrap();
        let (other, _write) = io::pipe().unwrap();
        let same = file_identity(read.as_fd()).unwrap();
        assert_eq!(same, file_identity(write.as_fd()).unwrap());
        assert_ne!(same, file_identity(other.as_fd()).unwrap());
    }
}
