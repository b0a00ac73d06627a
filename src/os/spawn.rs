//! fork, everything between fork and exec, exec. The caller decides what to start, and what a failure means.
//!
//! The child makes only async-signal-safe calls: all memory that it needs is prepared before the fork. It reports a
//! failure as (step, errno) over a close-on-exec pipe; an empty pipe that is closed means that the program runs.
use super::attributes::{self, Attributes};
use super::cgroup::Entry;
use super::closer::CLOSE_WAIT_MS;
use super::fork::fork_into;
use super::process::{describe_errno, read_now};
use super::shell;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::{getegid, geteuid, getgroups, pipe2};
use std::ffi::{CStr, CString, NulError};
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr;

/// The step at which a start failed. The numbers travel over the report pipe within one process, so they are not part
/// of a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Step {
    /// A NUL byte in a name, or an impossible fd number.
    Description,
    /// pipe2 or fork.
    Fork,
    /// Joining the cgroup.
    Cgroup,
    /// setsid, or setpgid.
    ProcessGroup,
    /// Placing fds.
    FileDescriptors,
    /// Dispositions and mask.
    Signals,
    /// setrlimit.
    ResourceLimits,
    /// Writing oom_score_adj.
    OomScoreAdj,
    /// setpriority.
    Nice,
    /// sched_setaffinity.
    CpuAffinity,
    /// setgroups.
    SupplementaryGroups,
    /// setgid.
    Group,
    /// setuid.
    User,
    /// chdir.
    WorkingDirectory,
    /// prctl(PR_SET_NO_NEW_PRIVS).
    NoNewPrivileges,
    /// prctl(PR_SET_PDEATHSIG), or the parent was already gone.
    ParentDeath,
    /// execve.
    Exec,
}

const STEPS: [Step; 17] = [
    Step::Description,
    Step::Fork,
    Step::Cgroup,
    Step::ProcessGroup,
    Step::FileDescriptors,
    Step::Signals,
    Step::ResourceLimits,
    Step::OomScoreAdj,
    Step::Nice,
    Step::CpuAffinity,
    Step::SupplementaryGroups,
    Step::Group,
    Step::User,
    Step::WorkingDirectory,
    Step::NoNewPrivileges,
    Step::ParentDeath,
    Step::Exec,
];

/// A failed start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    pub step: Step,
    pub errno: i32,
}

/// The call that failed, and why: `chdir: permission denied`.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let call = match self.step {
            Step::Description => "its description",
            Step::Fork => "fork",
            Step::Cgroup => "joining its cgroup",
            Step::ProcessGroup => "setpgid",
            Step::FileDescriptors => "dup2",
            Step::Signals => "sigprocmask",
            Step::ResourceLimits => "setrlimit",
            Step::OomScoreAdj => "oom_score_adj",
            Step::Nice => "setpriority",
            Step::CpuAffinity => "sched_setaffinity",
            Step::SupplementaryGroups => "setgroups",
            Step::Group => "setgid",
            Step::User => "setuid",
            Step::WorkingDirectory => "chdir",
            Step::NoNewPrivileges => "PR_SET_NO_NEW_PRIVS",
            Step::ParentDeath => "PR_SET_PDEATHSIG",
            Step::Exec => "execve",
        };
        write!(f, "{call}: {}", describe_errno(self.errno))
    }
}

/// What to execute.
#[derive(Clone, Copy, Debug)]
pub enum Program<'a, F> {
    /// An absolute path.
    Path(&'a [u8]),
    /// An open file, whatever its path says now.
    Fd(&'a F),
}

/// The user to become.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// All supplementary groups.
    pub groups: &'a [u32],
}

/// The terminal of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Terminal {
    /// The parent's, if it has one.
    Ours,
    /// None: a session of its own. It can write to a terminal that it inherits, but not read from another user's, and
    /// cannot push input into it (TIOCSTI).
    None,
}

/// How a process is intercepted (`seccomp`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intercept {
    /// The number in the process of the socket over which it sends its filter's listener; closed before exec.
    pub socket: RawFd,
    /// Whether it may be kept from gaining privileges for that.
    pub may_give_up_privileges: bool,
}

/// A process to be started. It always gets: its own process group, default signals, an empty mask, SIGKILL when the
/// calling *thread* ends.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a, F> {
    /// What to execute.
    pub program: Program<'a, F>,
    /// argv, with argv\[0\].
    pub args: &'a [Vec<u8>],
    /// The whole environment, `NAME=value` each.
    pub env: &'a [Vec<u8>],
    /// Add `LISTEN_PID=<own pid>` to the environment.
    pub listen_pid: bool,
    /// `None`: ours.
    pub cwd: Option<&'a [u8]>,
    pub terminal: Terminal,
    /// `None`: ours. Skipped if it is ours already, since changing it needs privilege.
    pub identity: Option<Identity<'a>>,
    /// Priority, limits and the like.
    pub attributes: Attributes<'a>,
    /// Intercepts its calls of bind(2) and listen(2).
    pub intercept: Option<Intercept>,
    /// The cgroup to join. `None`: ours.
    pub cgroup: Option<&'a Entry<F>>,
    /// (our fd, its number there). Fds that are not listed are closed by exec; 0, 1 and 2 stay ours.
    pub fds: &'a [(&'a F, RawFd)],
}

/// A forked child.
#[derive(Debug)]
pub struct Started<F> {
    /// Its pid, which is also its process group.
    pub pid: i32,
    /// The report of its start; see [`read_report`]. Non-blocking.
    pub report: F,
}

/// The content of a report pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// Nothing yet.
    Pending,
    /// The program runs (or a signal killed the process before: see its wait status).
    Executed,
    /// It could not be started; the process is exiting.
    Failed(Failure),
}

/// Bytes of a report: step, errno.
const REPORT_BYTES: usize = 5;
/// `LISTEN_PID=`, ten digits, NUL.
const LISTEN_PID_BYTES: usize = 22;
const LISTEN_PID_NAME: &[u8] = b"LISTEN_PID=";
/// One more than the last real-time signal.
const SIGNALS_END: i32 = 65;

/// What the child uses, allocated by the parent. The pointers point into the other fields.
struct Prepared {
    program: Option<CString>,
    program_fd: RawFd,
    argv: Vec<*const libc::c_char>,
    /// For a script without a `#!` line.
    shell_argv: Vec<*const libc::c_char>,
    envp: Vec<*const libc::c_char>,
    listen_pid: Option<Box<[u8; LISTEN_PID_BYTES]>>,
    cwd: Option<CString>,
    terminal: Terminal,
    identity: Option<(u32, u32, Vec<u32>)>,
    attributes: attributes::Prepared,
    intercept: Option<Intercept>,
    /// Files of cgroups to which it writes 0 to join them.
    cgroup_files: Vec<RawFd>,
    /// (our fd, its temporary copy, its number in the child).
    fds: Vec<(RawFd, RawFd, RawFd)>,
    /// Above every number in the child.
    spare_from: RawFd,
    report: RawFd,
    parent: i32,
    _args: Vec<CString>,
    _env: Vec<CString>,
}

/// Forks and starts `plan`. Returns at once; the result comes from [`read_report`].
///
/// # Errors
/// [`Step::Description`] and [`Step::Fork`]; later failures are in the report.
pub fn start<F: AsRawFd>(plan: &Plan<'_, F>) -> Result<Started<OwnedFd>, Failure> {
    let forking = |errno: Errno| Failure { step: Step::Fork, errno: errno as i32 };
    let (report, report_write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).map_err(forking)?;
    let mut prepared = prepare(plan, report_write.as_raw_fd())
        .map_err(|errno| Failure { step: Step::Description, errno: errno as i32 })?;
    let folder = plan.cgroup.and_then(|cgroup| cgroup.folder.as_ref()).map(AsRawFd::as_raw_fd);
    // SAFETY: the child calls only async-signal-safe functions on memory that is its own copy, and never returns.
    let (pid, is_inside) = unsafe { fork_into(folder) }.map_err(forking)?;
    if pid == 0 {
        let inside = usize::from(is_inside);
        // SAFETY: this is the child.
        unsafe { child(&mut prepared, inside) }
    }
    if plan.terminal == Terminal::Ours {
        // The child does the same; whoever comes first, a signal to the group finds it. Errors mean that it was first.
        // (The leader of a group could not begin a session: then a signal before that has to go to the process.)
        // SAFETY: setpgid touches no memory.
        unsafe { libc::setpgid(pid, pid) };
    }
    Ok(Started { pid, report })
}

/// Executes this program in the current process. Returns only if that failed.
#[must_use]
pub fn replace(program: BorrowedFd<'_>, args: &[Vec<u8>], env: &[Vec<u8>]) -> io::Error {
    let (args, env) = match (strings(args), strings(env)) {
        (Ok(args), Ok(env)) => (args, env),
        (Err(errno), _) | (_, Err(errno)) => return errno.into(),
    };
    let pointers = |list: &[CString]| -> Vec<*const libc::c_char> {
        list.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect()
    };
    let (argv, envp) = (pointers(&args), pointers(&env));
    let (fd, flags) = (libc::c_long::from(program.as_raw_fd()), libc::c_long::from(libc::AT_EMPTY_PATH));
    // SAFETY: both lists end with a null pointer, and their strings live in `args` and `env` until the call returns.
    unsafe { libc::syscall(libc::SYS_execveat, fd, c"".as_ptr(), argv.as_ptr(), envp.as_ptr(), flags) };
    io::Error::last_os_error()
}

/// Reads a report without blocking.
#[must_use]
pub fn read_report(report: BorrowedFd<'_>) -> Report {
    let mut bytes = [0_u8; REPORT_BYTES];
    match read_now(report, &mut bytes) {
        Ok(None) => Report::Pending,
        // Reports are shorter than PIPE_BUF and arrive whole.
        Ok(Some(REPORT_BYTES)) => {
            let step = STEPS.get(usize::from(bytes[0])).copied().unwrap_or(Step::Exec);
            Report::Failed(Failure { step, errno: i32::from_le_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]) })
        }
        Ok(Some(_)) | Err(_) => Report::Executed,
    }
}

fn prepare<F: AsRawFd>(plan: &Plan<'_, F>, report: RawFd) -> Result<Prepared, Errno> {
    let args = strings(plan.args)?;
    let kept: Vec<&Vec<u8>> =
        plan.env.iter().filter(|entry| !(plan.listen_pid && entry.starts_with(LISTEN_PID_NAME))).collect();
    let env = kept.into_iter().map(|entry| string(entry)).collect::<Result<Vec<_>, _>>()?;
    let mut listen_pid = plan.listen_pid.then(|| Box::new([0_u8; LISTEN_PID_BYTES]));
    let mut envp: Vec<*const libc::c_char> = Vec::with_capacity(env.len() + 2);
    if let Some(buffer) = &mut listen_pid {
        buffer[..LISTEN_PID_NAME.len()].copy_from_slice(LISTEN_PID_NAME);
        envp.push(buffer.as_mut_ptr().cast_const().cast());
    }
    envp.extend(env.iter().map(|entry| entry.as_ptr()));
    envp.push(ptr::null());
    let mut argv: Vec<*const libc::c_char> = args.iter().map(|arg| arg.as_ptr()).collect();
    argv.push(ptr::null());
    let (program, program_fd) = match plan.program {
        Program::Path(path) => (Some(string(path)?), -1),
        Program::Fd(fd) => (None, fd.as_raw_fd()),
    };
    let shell_argv = program.as_ref().map_or_else(Vec::new, |program| shell::arguments(program, &args));
    let fds: Vec<_> = plan.fds.iter().map(|(fd, number)| (fd.as_raw_fd(), -1, *number)).collect();
    let highest = fds.iter().map(|(_, _, number)| *number).max().unwrap_or(2).max(2);
    if fds.iter().any(|(_, _, number)| *number < 0) || highest == RawFd::MAX {
        return Err(Errno::EBADF);
    }
    Ok(Prepared {
        program,
        program_fd,
        argv,
        shell_argv,
        envp,
        listen_pid,
        cwd: plan.cwd.map(string).transpose()?,
        terminal: plan.terminal,
        identity: plan.identity.filter(|wanted| !is_ours(wanted)).map(|id| (id.uid, id.gid, id.groups.to_vec())),
        attributes: attributes::Prepared::new(&plan.attributes)?,
        intercept: plan.intercept.filter(|wanted| plan.fds.iter().any(|(_, number)| *number == wanted.socket)),
        cgroup_files: plan.cgroup.iter().flat_map(|cgroup| &cgroup.files).map(AsRawFd::as_raw_fd).collect(),
        fds,
        spare_from: highest + 1,
        report,
        parent: std::process::id().cast_signed(),
        _args: args,
        _env: env,
    })
}

fn string(bytes: &[u8]) -> Result<CString, Errno> {
    CString::new(bytes).map_err(|_: NulError| Errno::EINVAL)
}

fn strings(list: &[Vec<u8>]) -> Result<Vec<CString>, Errno> {
    list.iter().map(|bytes| string(bytes)).collect()
}

/// Whether this identity is ours already. The kernel refuses setgroups to unprivileged processes even then.
fn is_ours(wanted: &Identity<'_>) -> bool {
    let Ok(groups) = getgroups() else { return false };
    let sorted = |mut groups: Vec<u32>| {
        groups.sort_unstable();
        groups.dedup();
        groups
    };
    geteuid().as_raw() == wanted.uid
        && getegid().as_raw() == wanted.gid
        && sorted(groups.iter().map(|group| group.as_raw()).collect()) == sorted(wanted.groups.to_vec())
}

/// The child, until exec. `inside`: how many of its cgroups it was born in.
///
/// # Safety
/// Only in a process that was just forked. `prepared`'s pointers are valid: they point into its own fields.
unsafe fn child(prepared: &mut Prepared, inside: usize) -> ! {
    // SAFETY: forwarded from the caller.
    let failure = unsafe { become_program(prepared, inside) };
    let errno = failure.errno.to_le_bytes();
    let report = [failure.step as u8, errno[0], errno[1], errno[2], errno[3]];
    // SAFETY: write and _exit are async-signal-safe. The report fd is open, or the parent learns from the exit code.
    unsafe {
        libc::write(prepared.report, report.as_ptr().cast(), REPORT_BYTES);
        libc::_exit(127)
    }
}

fn failed(step: Step) -> Failure {
    Failure { step, errno: Errno::last_raw() }
}

#[cfg(target_pointer_width = "64")]
use libc::{SYS_setgid as SYS_SETGID, SYS_setgroups as SYS_SETGROUPS, SYS_setuid as SYS_SETUID};
// On this architecture the calls without a suffix have ids of 16 bits.
#[cfg(target_pointer_width = "32")]
use libc::{SYS_setgid32 as SYS_SETGID, SYS_setgroups32 as SYS_SETGROUPS, SYS_setuid32 as SYS_SETUID};

/// Returns only if a step failed.
///
/// # Safety
/// As [`child`].
unsafe fn become_program(prepared: &mut Prepared, inside: usize) -> Failure {
    // SAFETY: every call here is async-signal-safe (signal-safety(7)), or a bare system call. The identity is changed by bare
    // ones because libc's setgroups, setgid and setuid are not on that list: they have all threads of a process do it, under a
    // lock that another thread may have held at the fork; the child has one thread. Pointers come from `prepared`, whose
    // strings are NUL-terminated and whose lists end with a null pointer or come with their length.
    unsafe {
        let apart = match prepared.terminal {
            Terminal::Ours => libc::setpgid(0, 0),
            Terminal::None => libc::setsid(),
        };
        if apart < 0 {
            return failed(Step::ProcessGroup);
        }
        // Before their fds make room for its own, and before it allocates anything that counts.
        for file in prepared.cgroup_files.iter().skip(inside) {
            if libc::write(*file, c"0".as_ptr().cast(), 1) != 1 {
                return failed(Step::Cgroup);
            }
        }
        if !place_fds(prepared) {
            return failed(Step::FileDescriptors);
        }
        if !reset_signals() {
            return failed(Step::Signals);
        }
        if let Err(step) = prepared.attributes.apply_as_ourselves() {
            return failed(step);
        }
        if prepared.identity.is_some() && prepared.terminal == Terminal::None {
            lend_terminal(libc::STDOUT_FILENO, c"/proc/self/fd/1");
            lend_terminal(libc::STDERR_FILENO, c"/proc/self/fd/2");
        }
        // With our own rights, which may spare the process the promise that it gains none.
        if let Some(Intercept { socket, may_give_up_privileges }) = prepared.intercept {
            super::seccomp::install(socket, may_give_up_privileges);
        }
        if let Some((uid, gid, groups)) = &prepared.identity {
            if libc::syscall(SYS_SETGROUPS, groups.len(), groups.as_ptr()) != 0 {
                return failed(Step::SupplementaryGroups);
            }
            if libc::syscall(SYS_SETGID, *gid) != 0 {
                return failed(Step::Group);
            }
            if libc::syscall(SYS_SETUID, *uid) != 0 {
                return failed(Step::User);
            }
        }
        if let Err(step) = prepared.attributes.apply_as_the_new_user() {
            return failed(step);
        }
        // After the identity, because the worker's user needs access.
        if let Some(cwd) = &prepared.cwd
            && libc::chdir(cwd.as_ptr()) != 0
        {
            return failed(Step::WorkingDirectory);
        }
        // After the identity, too, because changing the identity clears it.
        if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong) != 0 {
            return failed(Step::ParentDeath);
        }
        // If the parent died before the call above, no signal ever comes.
        if libc::getppid() != prepared.parent {
            return Failure { step: Step::ParentDeath, errno: libc::ESRCH };
        }
        if let Some(buffer) = &mut prepared.listen_pid {
            write_decimal(&mut buffer[LISTEN_PID_NAME.len()..], libc::getpid().unsigned_abs());
        }
        let (argv, envp) = (prepared.argv.as_ptr(), prepared.envp.as_ptr());
        match &prepared.program {
            Some(path) => {
                libc::execve(path.as_ptr(), argv, envp);
                if Errno::last() == Errno::ENOEXEC {
                    shell::execute(path, prepared.shell_argv.as_ptr(), envp);
                }
            }
            None => {
                let fd = libc::c_long::from(prepared.program_fd);
                let flags = libc::c_long::from(libc::AT_EMPTY_PATH);
                libc::syscall(libc::SYS_execveat, fd, c"".as_ptr(), argv, envp, flags);
            }
        }
        failed(Step::Exec)
    }
}

/// Reopens `number` for writing only, if it is a terminal: it was opened for its owner's input, too, and another
/// session could read that. Uses `/dev/null` where this fails.
///
/// # Safety
/// As [`child`].
unsafe fn lend_terminal(number: RawFd, path: &CStr) {
    // SAFETY: isatty asks the kernel alone; open and dup2 are async-signal-safe, and the paths are NUL-terminated.
    unsafe {
        if libc::isatty(number) == 0 {
            return;
        }
        let flags = libc::O_WRONLY | libc::O_NOCTTY | libc::O_CLOEXEC;
        let mut fd = libc::open(path.as_ptr(), flags);
        if fd < 0 {
            fd = libc::open(c"/dev/null".as_ptr(), flags);
        }
        if fd < 0 {
            libc::close(number);
        } else {
            libc::dup2(fd, number);
        }
    }
}

/// Gives each fd its number. Sources and numbers may overlap in any way, so all sources are first moved out of the way.
///
/// # Safety
/// As [`child`].
unsafe fn place_fds(prepared: &mut Prepared) -> bool {
    let spare_from = prepared.spare_from;
    // SAFETY: fcntl, close_range and dup2 are async-signal-safe, and the fds are this process's own copies.
    unsafe {
        let report = libc::fcntl(prepared.report, libc::F_DUPFD_CLOEXEC, spare_from);
        if report < 0 {
            return false;
        }
        prepared.report = report;
        if prepared.program_fd >= 0 {
            prepared.program_fd = libc::fcntl(prepared.program_fd, libc::F_DUPFD_CLOEXEC, spare_from);
            if prepared.program_fd < 0 {
                return false;
            }
        }
        for (fd, copy, _) in &mut prepared.fds {
            *copy = libc::fcntl(*fd, libc::F_DUPFD_CLOEXEC, spare_from);
            if *copy < 0 {
                return false;
            }
        }
        // dup2 makes a copy that survives exec.
        if !prepared.fds.iter().all(|(_, copy, number)| libc::dup2(*copy, *number) >= 0) {
            return false;
        }
        close_others(prepared);
        true
    }
}

/// Closes all fds that the new program does not get. Exec would close them too, but a close can block (see `closer`):
/// the child may hold the last copy of a channel with an unread lingering socket, if the parent has closed its own
/// meanwhile. So it is done here, under a timer.
///
/// # Safety
/// As [`child`].
unsafe fn close_others(prepared: &mut Prepared) {
    // SAFETY: sigaction, sigprocmask, setitimer, dup3, close and close_range are system calls; the structs are ours. What
    // is closed is this process's copy.
    unsafe {
        // Move both out of the way, next to each other.
        let (report, program) = (prepared.spare_from, prepared.spare_from + 1);
        let mut first_other = report;
        // These numbers now belong to copies of placed fds, or are closed.
        let moved = keep_as(&mut prepared.report, &mut prepared.program_fd, report, program);
        if moved {
            first_other = program + 1;
        }
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = interrupts as *const () as libc::sighandler_t;
        let mut alarm: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut alarm);
        libc::sigaddset(&raw mut alarm, libc::SIGALRM);
        let mut every: libc::timeval = std::mem::zeroed();
        every.tv_usec = CLOSE_WAIT_MS as i64 * 1000;
        let (going, off) = (libc::itimerval { it_interval: every, it_value: every }, std::mem::zeroed());
        libc::sigaction(libc::SIGALRM, &raw const action, ptr::null_mut());
        libc::sigprocmask(libc::SIG_UNBLOCK, &raw const alarm, ptr::null_mut());
        libc::setitimer(libc::ITIMER_REAL, &raw const going, ptr::null_mut());
        if moved {
            let (from, upto) = (libc::c_long::from(first_other), libc::c_long::from(libc::c_uint::MAX));
            libc::syscall(libc::SYS_close_range, from, upto, 0 as libc::c_long);
        }
        for number in 3..prepared.spare_from {
            if !prepared.fds.iter().any(|(_, _, placed)| *placed == number) {
                libc::close(number);
            }
        }
        libc::setitimer(libc::ITIMER_REAL, &raw const off, ptr::null_mut());
    }
}

extern "C" fn interrupts(_: libc::c_int) {}

/// Moves both fds to these numbers. Returns whether that worked; otherwise they stay where they were.
///
/// # Safety
/// As [`child`].
unsafe fn keep_as(report: &mut RawFd, program: &mut RawFd, report_at: RawFd, program_at: RawFd) -> bool {
    // SAFETY: fcntl and dup3 are system calls, and the fds are this process's own copies.
    unsafe {
        // First above both numbers: one fd may have the number for the other.
        let above = libc::fcntl(*report, libc::F_DUPFD_CLOEXEC, program_at + 1);
        let program_above =
            if *program < 0 { -1 } else { libc::fcntl(*program, libc::F_DUPFD_CLOEXEC, program_at + 1) };
        if above < 0 || (*program >= 0 && program_above < 0) || libc::dup3(above, report_at, libc::O_CLOEXEC) < 0 {
            return false;
        }
        *report = report_at;
        if program_above >= 0 {
            if libc::dup3(program_above, program_at, libc::O_CLOEXEC) < 0 {
                *program = program_above;
                return false;
            }
            *program = program_at;
        } else {
            libc::close(program_at);
        }
        true
    }
}

/// Resets all dispositions to default, then empties the mask.
///
/// # Safety
/// As [`child`].
unsafe fn reset_signals() -> bool {
    // SAFETY: sigaction and sigprocmask are async-signal-safe; all zero is a valid sigaction, and SIG_DFL.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = libc::SIG_DFL;
        for signal in 1..SIGNALS_END {
            if libc::sigaction(signal, &raw const action, ptr::null_mut()) != 0 {
                // KILL and STOP refuse. So does libc for the two signals that it reserves, though a parent may have
                // left them ignored: the kernel itself takes zeroes as "default" for them.
                let number = libc::c_long::from(signal);
                let (zeroes, mask_bytes) = ([0_u64; 8], 8 as libc::c_long);
                let nowhere = ptr::null_mut::<libc::c_void>();
                libc::syscall(libc::SYS_rt_sigaction, number, zeroes.as_ptr(), nowhere, mask_bytes);
            }
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut()) == 0
    }
}

/// Writes `number` and a NUL. The buffer has room for ten digits and the NUL.
fn write_decimal(buffer: &mut [u8], number: u32) {
    let mut digits = [0_u8; 10];
    let mut count = 0;
    let mut rest = number;
    loop {
        digits[count] = b'0' + (rest % 10) as u8;
        count += 1;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    for (to, digit) in buffer.iter_mut().zip(digits[..count].iter().rev()) {
        *to = *digit;
    }
    buffer[count] = 0;
}

/// The errno of an error of the system; EIO for other errors.
#[must_use]
pub fn errno_of(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

/// EINVAL: a damaged or invalid description.
pub const EINVAL: i32 = libc::EINVAL;
/// E2BIG: a bound is exceeded.
pub const E2BIG: i32 = libc::E2BIG;
/// EAGAIN: too many processes.
pub const EAGAIN: i32 = libc::EAGAIN;
/// EEXIST: the worker id is in use.
pub const EEXIST: i32 = libc::EEXIST;
/// ESRCH: no such process.
pub const ESRCH: i32 = libc::ESRCH;
