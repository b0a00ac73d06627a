//! A kernel that refuses: a seccomp filter on the command under test, as containers have them.
use clusterd::os::{fdpass, poll};
use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

/// Where the number of the call and the low words of its arguments are in `struct seccomp_data`.
const NUMBER_AT: u32 = 0;
const ARGUMENT_2_AT: u32 = 16 + 2 * 8 + if cfg!(target_endian = "little") { 0 } else { 4 };

/// Has bpf(2) and both ways to attach a program to a group of sockets fail with EPERM, for the command and all below it.
pub(crate) fn refuse_bpf(command: &mut Command) {
    let load = |at| statement(0x20, at);
    let (allow, refuse) =
        (statement(0x06, libc::SECCOMP_RET_ALLOW), statement(0x06, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32));
    let filter = vec![
        load(NUMBER_AT),
        jump_if(libc::SYS_bpf as u32, 5, 0),
        jump_if(libc::SYS_setsockopt as u32, 0, 3),
        load(ARGUMENT_2_AT),
        jump_if(libc::SO_ATTACH_REUSEPORT_CBPF as u32, 2, 0),
        jump_if(libc::SO_ATTACH_REUSEPORT_EBPF as u32, 1, 0),
        allow,
        refuse,
    ];
    install_before_exec(command, filter);
}

fn install_before_exec(command: &mut Command, mut filter: Vec<libc::sock_filter>) {
    let install = move || {
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
        // SAFETY: two calls that only read `program`, which lives through them; between fork and exec both are allowed.
        let done = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
        };
        if done { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    };
    // SAFETY: the closure makes system calls only and allocates nothing.
    unsafe { command.pre_exec(install) };
}

/// Has seccomp(2) fail with EPERM, for the command and all below it.
pub(crate) fn refuse_filters(command: &mut Command) {
    let filter = vec![
        statement(0x20, NUMBER_AT),
        jump_if(libc::SYS_seccomp as u32, 0, 1),
        statement(0x06, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        statement(0x06, libc::SECCOMP_RET_ALLOW),
    ];
    install_before_exec(command, filter);
}

fn statement(code: u16, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt: 0, jf: 0, k }
}

fn jump_if(equal_to: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: 0x15, jt, jf, k: equal_to }
}

/// Stands before one system call of a command and all below it: lets it pass, or has it fail, as it is told.
pub(crate) struct Gate {
    call: u32,
    errno: Arc<AtomicI32>,
    ends: (OwnedFd, OwnedFd),
}

/// What the kernel asks: `struct seccomp_notif`, of which the id is looked at alone.
#[repr(C)]
struct Question {
    id: u64,
    rest: [u64; 9],
}

/// `struct seccomp_notif_resp`.
#[repr(C)]
struct Reply {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

// linux/seccomp.h, for which libc has no names everywhere.
const RECEIVE: libc::Ioctl = (0xc050_2100_u32) as libc::Ioctl;
const SEND: libc::Ioctl = (0xc018_2101_u32) as libc::Ioctl;
const CONTINUE: u32 = 1;
const NEW_LISTENER: libc::c_ulong = 1 << 3;
const USER_NOTIF: u32 = 0x7fc0_0000;

impl Gate {
    pub(crate) fn new(call: libc::c_long) -> Gate {
        let (ours, theirs) = UnixStream::pair().unwrap();
        Gate { call: call as u32, errno: Arc::default(), ends: (ours.into(), theirs.into()) }
    }

    /// The call fails with this from now on.
    pub(crate) fn refuse_with(&self, errno: i32) {
        self.errno.store(errno, Ordering::SeqCst);
    }

    pub(crate) fn let_pass(&self) {
        self.errno.store(0, Ordering::SeqCst);
    }

    /// Before this command, which is about to be started.
    pub(crate) fn stand_before(&self, command: &mut Command) {
        let load = statement(0x20, NUMBER_AT);
        let (allow, ask) = (statement(0x06, libc::SECCOMP_RET_ALLOW), statement(0x06, USER_NOTIF));
        let mut filter = vec![load, jump_if(self.call, 1, 0), allow, ask];
        let theirs = self.ends.1.try_clone().unwrap();
        let install = move || {
            let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
            // SAFETY: system calls that only read `program`, which lives through them.
            let listener = unsafe {
                libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
                libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, NEW_LISTENER, &raw const program)
            };
            if listener < 0 {
                return Err(std::io::Error::last_os_error());
            }
            // SAFETY: the listener is a new fd that nobody else owns; this copy ends with the closure.
            let listener = unsafe { OwnedFd::from_raw_fd(listener as i32) };
            fdpass::send_with_fd(theirs.as_fd(), b"l", Some(listener.as_fd())).map(|_| ())
        };
        // SAFETY: the closure makes system calls only and allocates nothing.
        unsafe { command.pre_exec(install) };
        let (ours, errno) = (self.ends.0.try_clone().unwrap(), Arc::clone(&self.errno));
        std::thread::spawn(move || answer(&ours, &errno));
    }
}

/// Whether nobody is left who could ask.
fn is_orphaned(listener: &OwnedFd) -> bool {
    let mut asked = libc::pollfd { fd: listener.as_raw_fd(), events: 0, revents: 0 };
    // SAFETY: one entry, which lives until the call returns. It does not wait.
    unsafe { libc::poll(&raw mut asked, 1, 0) > 0 && asked.revents & libc::POLLHUP != 0 }
}

/// Answers until nothing is left of the command.
fn answer(ours: &OwnedFd, errno: &AtomicI32) {
    let mut fds = VecDeque::new();
    poll::wait(&mut [poll::Interest::new(ours.as_fd(), false)], None).unwrap();
    fdpass::recv_with_fds(ours.as_fd(), &mut [0; 8], &mut fds).unwrap();
    let listener = fds.pop_front().unwrap();
    loop {
        let mut question = Question { id: 0, rest: [0; 9] };
        // SAFETY: the kernel fills a structure of this size, which has to be zero before.
        let got = unsafe { libc::ioctl(listener.as_raw_fd(), RECEIVE, &raw mut question) };
        if got < 0 {
            match std::io::Error::last_os_error().kind() {
                std::io::ErrorKind::Interrupted => continue,
                // ENOENT: a signal took the call away before it was read, and it comes again; or everybody has ended.
                std::io::ErrorKind::NotFound if !is_orphaned(&listener) => continue,
                _ => return,
            }
        }
        let error = -errno.load(Ordering::SeqCst);
        let flags = if error == 0 { CONTINUE } else { 0 };
        let reply = Reply { id: question.id, value: 0, error, flags };
        // SAFETY: the kernel reads a structure of this size. The process that asked may be gone by now.
        unsafe { libc::ioctl(listener.as_raw_fd(), SEND, &raw const reply) };
    }
}
