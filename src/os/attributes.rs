//! What a process has besides its program, identity and files: priority, limits, CPUs, the score for the OOM killer,
//! umask, and whether it may gain privileges. What is set between fork and exec is prepared before the fork.
use super::spawn::Step;
use crate::limits::CPU_NUMBERS_MAX;
use nix::errno::Errno;
use std::fs;
use std::io;

/// Where the kernel keeps the score.
const OOM_SCORE_ADJ: &str = "/proc/self/oom_score_adj";
/// Resources with a limit, by their names in `ulimit` and limits.conf(5).
const RESOURCES: [(&str, libc::c_int); 14] = [
    ("as", libc::RLIMIT_AS as _),
    ("core", libc::RLIMIT_CORE as _),
    ("cpu", libc::RLIMIT_CPU as _),
    ("data", libc::RLIMIT_DATA as _),
    ("fsize", libc::RLIMIT_FSIZE as _),
    ("locks", libc::RLIMIT_LOCKS as _),
    ("memlock", libc::RLIMIT_MEMLOCK as _),
    ("msgqueue", libc::RLIMIT_MSGQUEUE as _),
    ("nofile", libc::RLIMIT_NOFILE as _),
    ("nproc", libc::RLIMIT_NPROC as _),
    ("rtprio", libc::RLIMIT_RTPRIO as _),
    ("rttime", libc::RLIMIT_RTTIME as _),
    ("sigpending", libc::RLIMIT_SIGPENDING as _),
    ("stack", libc::RLIMIT_STACK as _),
];

/// The attributes of a process that is to be started. What is `None` or empty stays as ours.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attributes<'a> {
    /// Mode bits that new files do not get.
    pub umask: Option<u32>,
    /// From -20 (first) to 19.
    pub nice: Option<i32>,
    /// From -1000 (never killed) to 1000.
    pub oom_score_adj: Option<i32>,
    /// Numbers of the CPUs that it may run on.
    pub cpus: &'a [u32],
    /// (resource, soft, hard), applied in order, before the identity changes: raising needs privilege.
    pub rlimits: &'a [(i32, u64, u64)],
    /// It and its children gain nothing by executing programs with setuid bits or file capabilities.
    pub no_new_privs: bool,
}

/// The same, ready for a child that may allocate nothing.
pub(super) struct Prepared {
    umask: Option<u32>,
    nice: Option<i32>,
    oom_score_adj: Option<Vec<u8>>,
    /// The kernel's mask of CPUs; empty: as it is.
    cpu_mask: Vec<u64>,
    rlimits: Vec<(i32, libc::rlimit)>,
    no_new_privs: bool,
}

impl Prepared {
    /// Makes them ready.
    ///
    /// # Errors
    /// A CPU number over the bound.
    pub(super) fn new(wanted: &Attributes<'_>) -> Result<Prepared, Errno> {
        Ok(Prepared {
            umask: wanted.umask,
            nice: wanted.nice,
            oom_score_adj: wanted.oom_score_adj.map(|score| score.to_string().into_bytes()),
            cpu_mask: cpu_mask(wanted.cpus)?,
            rlimits: wanted
                .rlimits
                .iter()
                .map(|(resource, soft, hard)| (*resource, libc::rlimit { rlim_cur: *soft as _, rlim_max: *hard as _ }))
                .collect(),
            no_new_privs: wanted.no_new_privs,
        })
    }

    /// Applies what may need our own rights. Returns the step that failed, with errno set.
    ///
    /// # Safety
    /// Only in a process that was just forked.
    pub(super) unsafe fn apply_as_ourselves(&self) -> Result<(), Step> {
        // SAFETY: bare system calls and async-signal-safe functions on memory that was prepared before the fork.
        unsafe {
            // Before the limit on open files, which may be lower than the numbers that are in use here.
            if let Some(score) = &self.oom_score_adj
                && !write_file(c"/proc/self/oom_score_adj", score)
            {
                return Err(Step::OomScoreAdj);
            }
            for (resource, limit) in &self.rlimits {
                if libc::setrlimit(*resource as _, limit) != 0 {
                    return Err(Step::ResourceLimits);
                }
            }
            if let Some(nice) = self.nice
                && libc::setpriority(libc::PRIO_PROCESS, 0, nice) != 0
            {
                return Err(Step::Nice);
            }
            if !self.cpu_mask.is_empty() {
                let bytes = size_of_val(self.cpu_mask.as_slice());
                let set = libc::syscall(libc::SYS_sched_setaffinity, 0, bytes, self.cpu_mask.as_ptr());
                if set != 0 {
                    return Err(Step::CpuAffinity);
                }
            }
        }
        Ok(())
    }

    /// Applies what is to hold for the new identity. Returns the step that failed, with errno set.
    ///
    /// # Safety
    /// As [`Prepared::apply_as_ourselves`].
    pub(super) unsafe fn apply_as_the_new_user(&self) -> Result<(), Step> {
        // SAFETY: umask and prctl touch no memory.
        unsafe {
            if let Some(umask) = self.umask {
                libc::umask(umask as libc::mode_t);
            }
            let (on, unused) = (1 as libc::c_ulong, 0 as libc::c_ulong);
            if self.no_new_privs && libc::prctl(libc::PR_SET_NO_NEW_PRIVS, on, unused, unused, unused) != 0 {
                return Err(Step::NoNewPrivileges);
            }
        }
        Ok(())
    }
}

/// Writes a file of the kernel, whole.
///
/// # Safety
/// Only in a process that was just forked, or has one thread.
unsafe fn write_file(path: &std::ffi::CStr, bytes: &[u8]) -> bool {
    // SAFETY: open, write and close are async-signal-safe; the path ends with NUL, the bytes are lent for the call.
    unsafe {
        let fd = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if fd < 0 {
            return false;
        }
        let written = libc::write(fd, bytes.as_ptr().cast(), bytes.len());
        let errno = Errno::last_raw();
        libc::close(fd);
        Errno::set_raw(errno);
        written == bytes.len().cast_signed()
    }
}

fn cpu_mask(cpus: &[u32]) -> Result<Vec<u64>, Errno> {
    let Some(highest) = cpus.iter().max() else { return Ok(Vec::new()) };
    if *highest >= CPU_NUMBERS_MAX {
        return Err(Errno::EINVAL);
    }
    let mut mask = vec![0; *highest as usize / 64 + 1];
    for cpu in cpus {
        mask[*cpu as usize / 64] |= 1 << (cpu % 64);
    }
    Ok(mask)
}

/// The number of a resource for setrlimit(2), by its name.
#[must_use]
pub fn resource(name: &str) -> Option<i32> {
    RESOURCES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

/// How far this process may raise its own limit of a resource, where it has no right to go further.
#[must_use]
pub fn hard_limit(resource: i32) -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is ours and lives until the call returns.
    let got = unsafe { libc::getrlimit(resource as _, &raw mut limit) };
    (got == 0).then_some(limit.rlim_max)
}

/// Lowers the score of this process for the OOM killer to this, unless it is lower already. Returns what it was.
///
/// # Errors
/// It may not be lowered, or `/proc` is not mounted.
pub fn lower_oom_score(to: i32) -> io::Result<Option<i32>> {
    let text = fs::read_to_string(OOM_SCORE_ADJ)?;
    let is: i32 = text.trim().parse().map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    if is <= to {
        return Ok(None);
    }
    fs::write(OOM_SCORE_ADJ, to.to_string())?;
    Ok(Some(is))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_has_a_bit_for_each_cpu() {
        assert_eq!(cpu_mask(&[]).unwrap(), Vec::<u64>::new());
        assert_eq!(cpu_mask(&[0, 3]).unwrap(), [0b1001]);
        assert_eq!(cpu_mask(&[64, 1]).unwrap(), [2, 1]);
        assert_eq!(cpu_mask(&[CPU_NUMBERS_MAX]), Err(Errno::EINVAL));
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know getrlimit")]
    fn resources_have_the_systems_names() {
        assert_eq!(resource("nofile"), Some(libc::RLIMIT_NOFILE as i32));
        assert_eq!(resource("files"), None);
        assert!(hard_limit(libc::RLIMIT_NOFILE as i32).is_some_and(|most| most > 0));
    }
}
