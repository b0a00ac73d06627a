//! Signals: receives them as events (signalfd), sends them, knows their names. No policy.
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd, siginfo};
use std::borrow::Cow;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// Abort, and leave a core.
pub const ABRT: i32 = libc::SIGABRT;
/// Hang up: read the configuration again.
pub const HUP: i32 = libc::SIGHUP;
/// Ctrl-C.
pub const INT: i32 = libc::SIGINT;
/// Stop now.
pub const QUIT: i32 = libc::SIGQUIT;
/// Kill; cannot be caught.
pub const KILL: i32 = libc::SIGKILL;
/// Reopen the log files.
pub const USR1: i32 = libc::SIGUSR1;
/// Scale.
pub const USR2: i32 = libc::SIGUSR2;
/// A write without a reader.
pub const PIPE: i32 = libc::SIGPIPE;
/// A file exceeded its size limit (ulimit -f).
pub const XFSZ: i32 = libc::SIGXFSZ;
/// Stop gracefully.
pub const TERM: i32 = libc::SIGTERM;
/// A child changed.
pub const CHLD: i32 = libc::SIGCHLD;
/// Continue after a stop.
pub const CONT: i32 = libc::SIGCONT;
/// Stop the process; cannot be caught.
pub const STOP: i32 = libc::SIGSTOP;
/// One worker more.
pub const TTIN: i32 = libc::SIGTTIN;
/// One worker less.
pub const TTOU: i32 = libc::SIGTTOU;

/// A signal that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caught {
    pub signal: i32,
    /// The value of `sigqueue`; `None` for a plain `kill`.
    pub value: Option<i32>,
}

/// Signals as readiness of an fd. They stay blocked for good: a child must clear its mask before exec.
#[derive(Debug)]
pub struct Watch {
    fd: SignalFd,
    /// The terminal was closed: more than one process tells of it.
    hung_up: bool,
}

impl Watch {
    /// Blocks these signals in the calling thread and delivers them here. Works for ignored signals, too: a blocked
    /// signal is queued even when it is ignored (nohup).
    ///
    /// # Errors
    /// An invalid signal number; those of signalfd(2).
    pub fn new(signals: &[i32]) -> io::Result<Watch> {
        let mut set = SigSet::empty();
        for signal in signals {
            set.add(Signal::try_from(*signal)?);
        }
        set.thread_block()?;
        let fd = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Watch { fd, hung_up: false })
    }

    /// The next signal that has arrived; `None` if there is none. A SIGHUP because the controlling terminal was closed is a
    /// SIGTERM, once; where SIGHUP was ignored from the start (nohup), it is nothing.
    ///
    /// # Errors
    /// As read(2).
    pub fn next_caught(&mut self) -> io::Result<Option<Caught>> {
        match self.fd.read_signal() {
            Ok(Some(info)) if is_hang_up(&info) => {
                let is_first = !std::mem::replace(&mut self.hung_up, true);
                if is_first && !is_ignored(HUP) {
                    return Ok(Some(Caught { signal: TERM, value: None }));
                }
                self.next_caught()
            }
            Ok(Some(info)) => {
                let value = (info.ssi_code == libc::SI_QUEUE).then_some(info.ssi_int);
                Ok(Some(Caught { signal: info.ssi_signo.cast_signed(), value }))
            }
            Ok(None) | Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Whether a signal says that the controlling terminal was closed: the kernel sends it, or the shell that led the session
/// passes it on. Who else sends a SIGHUP wants a reload.
fn is_hang_up(info: &siginfo) -> bool {
    // SAFETY: getsid(2) touches no memory.
    let leader = unsafe { libc::getsid(0) };
    let from_shell = || info.ssi_pid.cast_signed() == leader && std::fs::File::open("/dev/tty").is_err();
    info.ssi_signo.cast_signed() == HUP && (info.ssi_code == libc::SI_KERNEL || from_shell())
}

/// Whether the process ignores this signal.
fn is_ignored(signal: i32) -> bool {
    // SAFETY: an all-zero sigaction is a valid value; the call only writes to it.
    let mut present: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: without a new action the present one is written to `present`, which lives until the call returns.
    let asked = unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut present) };
    asked == 0 && present.sa_sigaction == libc::SIG_IGN
}

/// Makes the process ignore this signal.
///
/// # Errors
/// An invalid signal number.
pub fn ignore(signal: i32) -> io::Result<()> {
    // SAFETY: SIG_IGN installs no handler.
    unsafe { nix::sys::signal::signal(Signal::try_from(signal)?, nix::sys::signal::SigHandler::SigIgn)? };
    Ok(())
}

/// Restores the default action of this signal. If a parent left SIGCHLD ignored, the kernel would reap our children
/// itself.
///
/// # Errors
/// An invalid signal number.
pub fn reset(signal: i32) -> io::Result<()> {
    // SAFETY: SIG_DFL installs no handler.
    unsafe { nix::sys::signal::signal(Signal::try_from(signal)?, nix::sys::signal::SigHandler::SigDfl)? };
    Ok(())
}

/// Sends a signal (any number up to 64, including real-time ones; 0 only checks) to one process.
///
/// # Errors
/// ESRCH, EPERM, EINVAL. A pid below 1 is EINVAL: it would mean a group or every process.
pub fn send(pid: i32, signal: i32) -> io::Result<()> {
    if pid < 1 {
        return Err(Errno::EINVAL.into());
    }
    // SAFETY: kill(2) touches no memory.
    Errno::result(unsafe { libc::kill(pid, signal) })?;
    Ok(())
}

/// Sends a signal to every process in the group of `leader`.
///
/// # Errors
/// As [`send`]. A leader below 2 is EINVAL: kill(-1) would mean every process.
pub fn send_group(leader: i32, signal: i32) -> io::Result<()> {
    if leader < 2 {
        return Err(Errno::EINVAL.into());
    }
    // SAFETY: kill(2) touches no memory.
    Errno::result(unsafe { libc::kill(-leader, signal) })?;
    Ok(())
}

/// Sends a signal with a value (sigqueue(3)).
///
/// # Errors
/// As [`send`], and EAGAIN when too many are queued.
pub fn send_with_value(pid: i32, signal: i32, value: i32) -> io::Result<()> {
    if pid < 1 {
        return Err(Errno::EINVAL.into());
    }
    // The receiver reads an int (`ssi_int`). Through usize the int lies in the low half, which is where a
    // little-endian union of int and pointer has it; a big-endian one has it in the upper half.
    #[cfg(target_endian = "little")]
    let carried = value.cast_unsigned() as usize;
    #[cfg(target_endian = "big")]
    let carried = (value.cast_unsigned() as usize) << (usize::BITS - 32);
    let value = libc::sigval { sival_ptr: carried as *mut libc::c_void };
    // SAFETY: the pointer is only carried, never followed.
    Errno::result(unsafe { libc::sigqueue(pid, signal, value) })?;
    Ok(())
}

/// `SIGKILL` for 9, `signal 40` for a number without a name.
#[must_use]
pub fn name(signal: i32) -> Cow<'static, str> {
    crate::text::signal_name(signal)
}

/// The number of `SIGUSR2`, `USR2`, `usr2` or `12`.
#[must_use]
pub fn from_name(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=libc::SIGRTMAX()).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let full = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    full.parse::<Signal>().ok().map(|known| known as i32)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::os::poll;

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know signals")]
    fn a_queued_signal_brings_its_value_and_a_plain_one_none() {
        let mut watch = Watch::new(&[USR1, USR2]).unwrap();
        assert_eq!(watch.next_caught().unwrap(), None);
        // To this thread alone: other tests run beside this one.
        // SAFETY: the id is our own thread's.
        let thread = unsafe { libc::gettid() };
        // SAFETY: tgkill touches no memory.
        assert_eq!(unsafe { libc::syscall(libc::SYS_tgkill, std::process::id(), thread, USR1) }, 0);
        poll::wait(&mut [poll::Interest::new(watch.as_fd(), false)], Some(5_000)).unwrap();
        assert_eq!(watch.next_caught().unwrap(), Some(Caught { signal: USR1, value: None }));
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know kill(2)")]
    fn dangerous_targets_are_refused() {
        for pid in [0, -1, -5] {
            assert!(send(pid, 0).is_err());
            assert!(send_with_value(pid, 0, 1).is_err());
        }
        for leader in [1, 0, -7] {
            assert!(send_group(leader, 0).is_err());
        }
        send(std::process::id().cast_signed(), 0).unwrap();
    }

    #[test]
    fn names_are_the_ones_that_people_know() {
        assert_eq!(["SIGUSR2", "usr2", "12"].map(from_name), [Some(USR2); 3]);
        assert_eq!(["", "SIG", "0", "-9", "900", "NOPE"].map(from_name), [None; 6]);
        for known in Signal::iterator() {
            assert_eq!(name(known as i32), known.as_str());
        }
        assert_eq!([0, 32, 40, -1].map(name), ["signal 0", "signal 32", "signal 40", "signal -1"]);
    }
}
