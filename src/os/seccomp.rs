//! Interception of bind(2) and listen(2) in a worker and its descendants: a seccomp filter whose listener tells of each such
//! call and lets it be answered, or continued (seccomp_unotify(2)). All other system calls pass the filter in the kernel.
//!
//! The filter is installed between fork and exec. The new process sends the listener over a socket, which keeps it until
//! somebody takes it ([`peek_listener`]); what to answer is decided elsewhere. This is not a sandbox: a call that is continued may
//! have other arguments by then.
use super::fdpass;
use super::poll::Interest;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// An intercepted call, which waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// Identifies the call at its listener.
    pub id: u64,
    /// The *thread* that calls; 0 if this process cannot see it.
    pub tid: i32,
    /// What it calls.
    pub what: What,
}

/// The calls that are intercepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// bind(2), with the place of the address in the caller's memory.
    Bind {
        fd: i32,
        address: u64,
        length: u32,
    },
    Listen {
        fd: i32,
        backlog: i32,
    },
    /// Another call: no filter of ours reports one.
    Other,
}

/// The answer to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The kernel carries the call out as it is.
    Continue,
    /// The call returns 0 and is not carried out.
    Done,
    /// The call fails with this errno and is not carried out.
    Fail(i32),
}

/// What a new process sent.
#[derive(Debug)]
pub enum Sent {
    /// The listener of its filter.
    Listener(OwnedFd),
    /// It runs without a filter, for this reason.
    Refused(io::Error),
}

/// Bytes of the message with which a process sends the listener: an errno, 0 with the listener attached.
const MESSAGE_BYTES: usize = 4;

/// What the filter has to know of an architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Architecture {
    /// As in `struct seccomp_data` (linux/audit.h).
    audit: u32,
    /// The number of bind(2).
    bind: u32,
    /// The number of listen(2).
    listen: u32,
}

#[cfg(any(target_arch = "x86_64", test))]
const X86_64: Architecture = Architecture { audit: 0xC000_003E, bind: 49, listen: 50 };
#[cfg(any(target_arch = "aarch64", test))]
const AARCH64: Architecture = Architecture { audit: 0xC000_00B7, bind: 200, listen: 201 };

#[cfg(target_arch = "x86_64")]
const OURS: Option<Architecture> = Some(X86_64);
#[cfg(target_arch = "aarch64")]
const OURS: Option<Architecture> = Some(AARCH64);
// Other architectures have other ways to call bind(2) (socketcall) or are not tested.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const OURS: Option<Architecture> = None;

// The numbers are those of the system that this is built for.
const _: () = if let Some(ours) = OURS {
    assert!(ours.bind == libc::SYS_bind as u32 && ours.listen == libc::SYS_listen as u32);
};

/// Offsets in `struct seccomp_data`.
const NUMBER_AT: u32 = 0;
const ARCH_AT: u32 = 4;

const fn statement(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

const fn jump_if_equal(k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, jt, jf, k }
}

/// Native calls of bind and listen go to the listener; calls of another architecture (32-bit programs) pass.
const fn program(architecture: Architecture) -> [libc::sock_filter; 7] {
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let give_back = libc::BPF_RET | libc::BPF_K;
    [
        statement(load, ARCH_AT),
        jump_if_equal(architecture.audit, 0, 4),
        statement(load, NUMBER_AT),
        jump_if_equal(architecture.bind, 1, 0),
        jump_if_equal(architecture.listen, 0, 1),
        statement(give_back, libc::SECCOMP_RET_USER_NOTIF),
        statement(give_back, libc::SECCOMP_RET_ALLOW),
    ]
}

/// Installs the filter in the calling process and sends its listener over `socket`, or the reason why there is none. The
/// program runs either way. `may_give_up_privileges`: sets no_new_privs where the filter needs it.
///
/// # Safety
/// Only in a process that was just forked.
pub(super) unsafe fn install(socket: RawFd, may_give_up_privileges: bool) {
    // SAFETY: bare system calls on memory of this stack frame, which is valid until they return.
    unsafe {
        let listener = new_listener(may_give_up_privileges);
        let errno = if listener < 0 { nix::errno::Errno::last_raw() } else { 0 };
        send(socket, errno, listener);
        if listener >= 0 {
            libc::close(listener);
        }
        libc::close(socket);
    }
}

/// # Safety
/// As [`install`].
unsafe fn new_listener(may_give_up_privileges: bool) -> RawFd {
    let Some(ours) = OURS else {
        nix::errno::Errno::set_raw(libc::ENOSYS);
        return -1;
    };
    let filter = program(ours);
    // SAFETY: the kernel copies the program, which lives until after the calls; prctl touches no memory.
    unsafe {
        let first = try_listener(&filter);
        // Without CAP_SYS_ADMIN the process has to promise first that it gains no privileges.
        if first >= 0 || nix::errno::Errno::last_raw() != libc::EACCES || !may_give_up_privileges {
            return first;
        }
        let (on, unused) = (1 as libc::c_ulong, 0 as libc::c_ulong);
        if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, on, unused, unused, unused) != 0 {
            return -1;
        }
        try_listener(&filter)
    }
}

/// # Safety
/// As [`install`].
unsafe fn try_listener(filter: &[libc::sock_filter]) -> RawFd {
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    let call = |flags: libc::c_ulong| {
        let (mode, flags) = (libc::c_long::from(libc::SECCOMP_SET_MODE_FILTER), flags as libc::c_long);
        // SAFETY: `program` points to as many instructions as it says; the kernel copies them.
        unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program) as RawFd }
    };
    // A signal that is handled while the call waits would start it again (Go's runtime sends itself such signals all the
    // time). Kernels before 5.19 cannot be told to wait.
    let listener = call(libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV);
    if listener < 0 && nix::errno::Errno::last_raw() == libc::EINVAL {
        return call(libc::SECCOMP_FILTER_FLAG_NEW_LISTENER);
    }
    listener
}

/// Sends without allocating (`fdpass` is as careful, but may log in the future).
///
/// # Safety
/// As [`install`].
unsafe fn send(socket: RawFd, errno: i32, listener: RawFd) {
    let bytes = errno.to_le_bytes();
    // SAFETY: both fds are open and are borrowed for this call alone.
    unsafe {
        let socket = BorrowedFd::borrow_raw(socket);
        let passed = (listener >= 0).then(|| BorrowedFd::borrow_raw(listener));
        // Where this fails the receiver finds nothing, and the listener is closed: calls then fail with ENOSYS. The only
        // known reason is a limit on the fds in flight.
        let _ = fdpass::send_with_fd(socket, &bytes, passed);
    }
}

/// What a new process sent over its socket; `None` if it has not come so far. It stays in the socket, so that whoever
/// gets the socket next finds it again.
///
/// # Errors
/// The socket is closed, or holds something else.
pub fn peek_listener(socket: BorrowedFd<'_>) -> io::Result<Option<Sent>> {
    let (mut buffer, mut fds) = ([0_u8; MESSAGE_BYTES], VecDeque::new());
    let received = match fdpass::peek_with_fds(socket, &mut buffer, &mut fds) {
        Ok(received) => received,
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
        Err(e) => return Err(e),
    };
    match (received.bytes, i32::from_le_bytes(buffer), fds.pop_front()) {
        (MESSAGE_BYTES, 0, Some(listener)) => Ok(Some(Sent::Listener(listener))),
        (MESSAGE_BYTES, errno, None) if errno != 0 => Ok(Some(Sent::Refused(io::Error::from_raw_os_error(errno)))),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// The next call that nobody has taken. Never blocks.
///
/// # Errors
/// Those of the ioctl; `NotFound` when the caller is gone, or a signal took it out of the call.
pub fn next_call(listener: BorrowedFd<'_>) -> io::Result<Option<Call>> {
    // The ioctl would wait for a call.
    let mut interest = [Interest::new(listener, false)];
    super::poll::wait(&mut interest, Some(0))?;
    if !interest[0].has_input() {
        return Ok(None);
    }
    // SAFETY: all zero is a valid seccomp_notif; the kernel demands zeroes.
    let mut found: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    control(listener, libc::SECCOMP_IOCTL_NOTIF_RECV, &mut found)?;
    let args = found.data.args;
    let int = |n: usize| args[n] as u32 as i32;
    let what = match libc::c_long::from(found.data.nr) {
        libc::SYS_bind => What::Bind { fd: int(0), address: args[1], length: args[2] as u32 },
        libc::SYS_listen => What::Listen { fd: int(0), backlog: int(1) },
        _ => What::Other,
    };
    Ok(Some(Call { id: found.id, tid: found.pid.cast_signed(), what }))
}

/// Whether the call still waits for its answer. While it does, its thread id belongs to the same thread.
pub fn is_waiting(listener: BorrowedFd<'_>, id: u64) -> bool {
    let mut id = id;
    control(listener, libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &mut id).is_ok()
}

/// Puts a copy of `file` in the place of an fd of the calling process.
///
/// # Errors
/// `NotFound` when the call no longer waits; EBADF, EMFILE as dup2(2).
pub fn replace_fd(
    listener: BorrowedFd<'_>,
    id: u64,
    number: i32,
    file: BorrowedFd<'_>,
    close_on_exec: bool,
) -> io::Result<()> {
    let mut add = libc::seccomp_notif_addfd {
        id,
        flags: libc::SECCOMP_ADDFD_FLAG_SETFD as u32,
        srcfd: file.as_raw_fd().cast_unsigned(),
        newfd: number.cast_unsigned(),
        newfd_flags: if close_on_exec { libc::O_CLOEXEC.cast_unsigned() } else { 0 },
    };
    control(listener, libc::SECCOMP_IOCTL_NOTIF_ADDFD, &mut add)
}

/// Answers a call.
///
/// # Errors
/// `NotFound` when it no longer waits.
pub fn answer(listener: BorrowedFd<'_>, id: u64, answer: Answer) -> io::Result<()> {
    let (error, flags) = match answer {
        Answer::Continue => (0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32),
        Answer::Done => (0, 0),
        Answer::Fail(errno) => (-errno, 0),
    };
    let mut response = libc::seccomp_notif_resp { id, val: 0, error, flags };
    control(listener, libc::SECCOMP_IOCTL_NOTIF_SEND, &mut response)
}

fn control<T>(listener: BorrowedFd<'_>, request: libc::Ioctl, argument: &mut T) -> io::Result<()> {
    loop {
        // SAFETY: each caller passes the struct that its request reads and writes; it is borrowed until the call returns.
        let done = unsafe { libc::ioctl(listener.as_raw_fd(), request, &raw mut *argument) };
        if done >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel does with a call, by the program: the instructions that it has, and no others.
    fn verdict(program: &[libc::sock_filter], number: u32, audit: u32) -> u32 {
        const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
        const JUMP: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
        const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
        let (mut at, mut accumulator) = (0, 0);
        loop {
            // The kernel refuses a program that can run past its end.
            let libc::sock_filter { code, jt, jf, k } = program[at];
            at += 1;
            match (u32::from(code), k) {
                (LOAD, 0) => accumulator = number,
                (LOAD, 4) => accumulator = audit,
                (JUMP, k) => at += usize::from(if accumulator == k { jt } else { jf }),
                (RETURN, k) => return k,
                (code, k) => panic!("an instruction that the filter does not need: {code:#x} {k:#x}"),
            }
        }
    }

    /// Numbers from the kernel's tables: asm/unistd_64.h of x86, and asm-generic/unistd.h, which arm64 uses.
    #[test]
    fn both_architectures_report_bind_and_listen_and_nothing_else() {
        for (own, other, reported) in [(X86_64, AARCH64, [49, 50]), (AARCH64, X86_64, [200, 201])] {
            let program = program(own);
            for number in 0..1024 {
                let wanted =
                    if reported.contains(&number) { libc::SECCOMP_RET_USER_NOTIF } else { libc::SECCOMP_RET_ALLOW };
                assert_eq!(verdict(&program, number, own.audit), wanted, "{own:?}: call {number}");
                // 32-bit programs (i386, arm) and whatever else the kernel runs.
                for foreign in [other.audit, 0x4000_0003, 0x4000_0028, 0] {
                    assert_eq!(verdict(&program, number, foreign), libc::SECCOMP_RET_ALLOW, "{own:?}: call {number}");
                }
            }
        }
    }
}
