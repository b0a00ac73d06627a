//! Forks into a cgroup.
use nix::errno::Errno;
use std::os::fd::RawFd;

/// What makes clone3 start a process in the cgroup of an fd (linux/sched.h; Linux 5.7).
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Forks; in the cgroup of this folder, if the system can do that. Moving a process later makes the kernel wait for all
/// CPUs. Returns the pid (0 in the child), and whether the child is in the cgroup.
///
/// # Safety
/// As fork(2): the child may only call what is async-signal-safe.
pub(super) unsafe fn fork_into(folder: Option<RawFd>) -> Result<(i32, bool), Errno> {
    if let Some(folder) = folder {
        // SAFETY: all zero is a valid clone_args.
        let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
        args.flags = CLONE_INTO_CGROUP;
        args.exit_signal = libc::SIGCHLD as u64;
        args.cgroup = folder as u64;
        // SAFETY: `args` is ours and has this size. Without CLONE_VM and a stack the call is a fork: the child has a copy of
        // all memory, and what libc does at a fork (locks of other threads) is of no use to a child that calls only what
        // is async-signal-safe.
        let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) };
        match Errno::result(pid) {
            Ok(pid) => return Ok((pid as i32, true)),
            // The app has as many processes as it may.
            Err(Errno::EAGAIN) => return Err(Errno::EAGAIN),
            // An old kernel, or a filter of system calls.
            Err(_) => {}
        }
    }
    // SAFETY: forwarded to the caller.
    Errno::result(unsafe { libc::fork() }).map(|pid| (pid, false))
}
