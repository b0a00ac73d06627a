//! A bound on the time that a system call may block: a timer interrupts it by a signal. For calls without a
//! non-blocking form, such as close(2) of a socket with SO_LINGER or write(2) to a file that is shared with others.
use super::closer::CLOSE_WAIT_MS;
use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::gettid;
use std::ptr;
use std::sync::Once;
use std::time::Duration;

/// Not used for anything else in the program.
const SIGNAL: Signal = Signal::SIGALRM;

extern "C" fn interrupts(_: libc::c_int) {}

/// Runs `call` on this thread. A system call that blocks in it is interrupted every `ms` milliseconds: it fails with
/// EINTR, or returns a partial result. If the system is out of timers, the call may block without a bound.
pub fn within<T>(ms: u64, call: impl FnOnce() -> T) -> T {
    let timer = start(Duration::from_millis(ms.max(1)));
    let returned = call();
    drop(timer);
    returned
}

/// Periodically interrupts blocking system calls of this thread while it is active: for a loop in which any call may
/// block, and which has no time to set a timer for each.
#[derive(Debug, Default)]
pub struct Periodic {
    timer: Option<Timer>,
    /// Used since the last [`Periodic::rest`].
    wanted: bool,
}

impl Periodic {
    /// Activates it for the calling thread. Costs nothing while it is active.
    pub fn keep(&mut self) {
        self.wanted = true;
        if self.timer.is_none() {
            // Without a timer a call may block, as it would without us.
            self.timer = start(Duration::from_millis(CLOSE_WAIT_MS)).ok();
        }
    }

    /// Deactivates it if it was not used since the last call, so that an idle process is not woken.
    pub fn rest(&mut self) {
        if !std::mem::take(&mut self.wanted) {
            self.timer = None;
        }
    }
}

/// A timer of the kernel. The system calls are made directly: not every C library knows timers that signal one thread.
#[derive(Debug)]
struct Timer(libc::c_int);

impl Timer {
    /// Sends [`SIGNAL`] to this thread, every so often.
    fn new(every: Duration) -> nix::Result<Timer> {
        // SAFETY: a struct of integers and pointers, for which zeros are valid.
        let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = SIGNAL as libc::c_int;
        event.sigev_notify_thread_id = gettid().as_raw();
        let mut id: libc::c_int = 0;
        // SAFETY: timer_create(2) reads the event and writes the number of the timer, an int; both live until it returns.
        let made =
            unsafe { libc::syscall(libc::SYS_timer_create, libc::CLOCK_MONOTONIC, &raw const event, &raw mut id) };
        Errno::result(made)?;
        let timer = Timer(id);
        let every = libc::timespec {
            tv_sec: i64::try_from(every.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: every.subsec_nanos().into(),
        };
        let times = libc::itimerspec { it_interval: every, it_value: every };
        let nothing = ptr::null_mut::<libc::itimerspec>();
        // SAFETY: timer_settime(2) reads the times, which live until it returns; a null pointer means that nobody wants
        // the previous ones.
        let set = unsafe { libc::syscall(libc::SYS_timer_settime, timer.0, 0, &raw const times, nothing) };
        Errno::result(set)?;
        Ok(timer)
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // SAFETY: timer_delete(2) takes a number, which is of a timer that only this value names.
        unsafe { libc::syscall(libc::SYS_timer_delete, self.0) };
    }
}

fn start(every: Duration) -> nix::Result<Timer> {
    static HANDLER: Once = Once::new();
    HANDLER.call_once(|| {
        // No SA_RESTART: the call must return.
        let action = SigAction::new(SigHandler::Handler(interrupts), SaFlags::empty(), SigSet::empty());
        // SAFETY: the handler does nothing, which is async-signal-safe.
        let _ = unsafe { sigaction(SIGNAL, &action) };
    });
    // Our parent may have left it blocked.
    SigSet::from(SIGNAL).thread_unblock()?;
    Timer::new(every)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::io;
    use std::os::fd::AsRawFd;
    use std::time::Instant;

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know signals")]
    fn a_call_that_would_wait_for_ever_ends() {
        let (read, _write) = io::pipe().unwrap();
        let from = Instant::now();
        let mut byte = 0_u8;
        // SAFETY: one byte of ours, which lives until the call returns.
        let got = within(20, || unsafe { libc::read(read.as_raw_fd(), (&raw mut byte).cast(), 1) });
        assert_eq!((got, io::Error::last_os_error().kind()), (-1, io::ErrorKind::Interrupted));
        assert!(from.elapsed() >= Duration::from_millis(20));
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know signals")]
    fn a_thread_is_interrupted_again_and_again() {
        let mut timer = Periodic::default();
        timer.keep();
        for _ in 0..2 {
            // SAFETY: without descriptors poll(2) reads no memory.
            let got = unsafe { libc::poll(ptr::null_mut(), 0, 60_000) };
            assert_eq!((got, io::Error::last_os_error().kind()), (-1, io::ErrorKind::Interrupted));
        }
        timer.rest();
        assert!(timer.timer.is_some(), "it was wanted until now");
        timer.rest();
        assert!(timer.timer.is_none());
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know signals")]
    fn a_call_that_does_not_wait_is_left_alone() {
        assert_eq!(within(1_000, || 7), 7);
    }
}
