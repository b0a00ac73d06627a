//! A bound on the time that one system call may wait: a timer interrupts it by a signal. For calls that have no
//! non-blocking form, such as close(2) of a socket with SO_LINGER or write(2) to a file that is shared with others.
use crate::limits::CLOSE_WAIT_MS;
use nix::sys::signal::{SaFlags, SigAction, SigEvent, SigHandler, SigSet, SigevNotify, Signal, sigaction};
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;
use nix::unistd::gettid;
use std::sync::Once;
use std::time::Duration;

/// Nothing else in the program uses it.
const SIGNAL: Signal = Signal::SIGALRM;

extern "C" fn interrupts(_: libc::c_int) {}

/// Runs `call` on this thread. A system call that waits in it is interrupted after `ms` milliseconds, and again after
/// each further `ms`: it fails with EINTR, or returns what it has done so far. Where the system has no timer left, it
/// waits as long as it waits.
pub fn within<T>(ms: u64, call: impl FnOnce() -> T) -> T {
    let timer = start(Duration::from_millis(ms.max(1)));
    let returned = call();
    drop(timer);
    returned
}

/// Interrupts whatever system call this thread waits in, every so often, as long as that is wanted: for a loop in which
/// any call may be the one that waits, and which has no time to set a timer for each.
#[derive(Debug, Default)]
pub struct Periodic {
    timer: Option<Timer>,
    /// Since the last [`Periodic::rest`].
    wanted: bool,
}

impl Periodic {
    /// Has it going from now on, for the thread that calls. Costs nothing while it goes.
    pub fn keep(&mut self) {
        self.wanted = true;
        if self.timer.is_none() {
            // Without a timer a call may wait, as it would without us.
            self.timer = start(Duration::from_millis(CLOSE_WAIT_MS)).ok();
        }
    }

    /// Ends it where nobody wanted it since the last time. An idle process is not to be woken.
    pub fn rest(&mut self) {
        if !std::mem::take(&mut self.wanted) {
            self.timer = None;
        }
    }
}

fn start(every: Duration) -> nix::Result<Timer> {
    static HANDLER: Once = Once::new();
    HANDLER.call_once(|| {
        // No SA_RESTART: the call is to end.
        let action = SigAction::new(SigHandler::Handler(interrupts), SaFlags::empty(), SigSet::empty());
        // SAFETY: the handler does nothing, which is async-signal-safe.
        let _ = unsafe { sigaction(SIGNAL, &action) };
    });
    // Whoever started us may have left it blocked.
    SigSet::from(SIGNAL).thread_unblock()?;
    let to_this_thread = SigevNotify::SigevThreadId { signal: SIGNAL, thread_id: gettid().as_raw(), si_value: 0 };
    let mut timer = Timer::new(ClockId::CLOCK_MONOTONIC, SigEvent::new(to_this_thread))?;
    timer.set(Expiration::IntervalDelayed(every.into(), every.into()), TimerSetTimeFlags::empty())?;
    Ok(timer)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::io;
    use std::os::fd::AsRawFd;
    use std::time::Instant;

    #[test]
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
    fn a_call_that_does_not_wait_is_left_alone() {
        assert_eq!(within(1_000, || 7), 7);
    }
}
