//! The end of this process's parent. A child of the keeper is killed by the kernel with it; one that has something left to do
//! asks for a signal instead, and is killed a moment later.
use nix::errno::Errno;
use std::io;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

/// The parent's pid at the start, for the handler.
static PARENT: AtomicI32 = AtomicI32::new(0);
/// The timer that kills this process (a `timer_t`), for the handler.
static END: AtomicUsize = AtomicUsize::new(0);

/// Pid of the parent. Another one than at the start: it has ended.
#[must_use]
pub fn pid() -> i32 {
    nix::unistd::getppid().as_raw()
}

/// From now on this process outlives its parent by `GRACE_S`, whatever it does then, in place of being killed at once. To be
/// called by the main thread. A stopped process (SIGSTOP) is continued for it.
///
/// # Errors
/// Those of timer_create(2), sigaction(2) and prctl(2); then nothing has changed.
pub fn outlive() -> io::Result<()> {
    PARENT.store(pid(), Ordering::Release);
    let mut timer: libc::timer_t = std::ptr::null_mut();
    // SAFETY: an all-zero sigevent is valid.
    let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
    event.sigev_notify = libc::SIGEV_SIGNAL;
    event.sigev_signo = libc::SIGKILL;
    // SAFETY: both live through the call, which writes a timer.
    Errno::result(unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer) })?;
    END.store(timer as usize, Ordering::Release);
    // SAFETY: an all-zero sigaction is valid: no flags, no handler, an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = continued as extern "C" fn(libc::c_int) as usize;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: the action lives through the call; the handler calls getppid(2) and timer_settime(2) only, which are
    // async-signal-safe, and loads atomics that were stored before.
    Errno::result(unsafe { libc::sigaction(libc::SIGCONT, &raw const action, std::ptr::null_mut()) })?;
    // SAFETY: prctl touches no memory here. What was asked for before (SIGKILL) holds until then: there is no moment in
    // which the parent's end is not noticed.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGCONT as libc::c_ulong) })?;
    Ok(())
}

/// How long this process lives on, in seconds.
const GRACE_S: i64 = 3;

/// Sets the end of this process, if its parent has ended. SIGCONT comes for other reasons, too.
extern "C" fn continued(_: libc::c_int) {
    // SAFETY: getppid(2) touches no memory.
    if unsafe { libc::getppid() } == PARENT.load(Ordering::Acquire) {
        return;
    }
    let timer = END.load(Ordering::Acquire) as libc::timer_t;
    let never = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let after = libc::itimerspec { it_interval: never, it_value: libc::timespec { tv_sec: GRACE_S, tv_nsec: 0 } };
    // SAFETY: the timer was made before this handler was set and is never deleted; the value lives through the call.
    unsafe { libc::timer_settime(timer, 0, &raw const after, std::ptr::null_mut()) };
}
