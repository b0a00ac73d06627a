//! Waiting: for the end of a process, which is an event, and for what nothing tells of, which is looked at again and again
//! with a pause in between. What clusterd says and shows is waited for in `cluster`.
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::process::Command;
use std::time::{Duration, Instant};

/// Longest wait for anything, on a machine that is busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Pause between two looks at what nothing tells of.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Waits until something holds that no event tells of: the content of a file, a counter of the kernel.
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    wait_for(what, || holds().then_some(()));
}

/// As [`wait_until`]; what was found.
pub(crate) fn wait_for<T>(what: &str, mut find: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = find() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} did not come true");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Waits for the end of a process; one that nobody has reaped yet has ended too.
pub(crate) fn wait_end(pid: i32) {
    assert!(ends_within(pid, PATIENCE), "process {pid} did not end");
}

/// Whether a process ends within this time.
pub(crate) fn ends_within(pid: i32, time: Duration) -> bool {
    let Some(process) = open(pid) else { return true };
    let deadline = Instant::now() + time;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap();
        match poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) if left.is_zero() => return false,
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return true,
            Err(e) => panic!("cannot wait for process {pid}: {e}"),
        }
    }
}

/// A descriptor that is readable when the process has ended; `None`: there is no such process.
fn open(pid: i32) -> Option<OwnedFd> {
    // SAFETY: takes two integers; what it returns is a new descriptor that nobody else has, or an error.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    match Errno::result(fd) {
        // SAFETY: as above.
        Ok(fd) => Some(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).unwrap()) }),
        Err(Errno::ESRCH) => None,
        Err(e) => panic!("cannot open process {pid}: {e}"),
    }
}

/// Whether a process exists and is not a zombie.
pub(crate) fn alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| stat.rsplit_once(')').map(|(_, rest)| !rest.trim_start().starts_with('Z')))
        .unwrap_or(false)
}

/// Sends a signal by name.
pub(crate) fn kill(pid: i32, signal: &str) {
    let status = Command::new("kill").arg(format!("-{signal}")).arg(pid.to_string()).status().unwrap();
    assert!(status.success(), "cannot send {signal} to {pid}");
}
