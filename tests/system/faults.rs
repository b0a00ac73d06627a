//! What goes wrong in the system calls of keeper and master, and when.
use crate::bugs::Bug;
use crate::random::Random;

const EAGAIN: i32 = 11;
const ENOMEM: i32 = 12;
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;
const ENOSPC: i32 = 28;
const ENOBUFS: i32 = 105;
const ETOOMANYREFS: i32 = 109;

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Passes,
    /// Others run first.
    Pauses,
    /// The process is killed before the call.
    Killed,
    /// The call fails with this errno.
    Fails(i32),
}

/// What a machine can be short of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lack {
    /// Numbers for open files in one process, or files in all.
    Files,
    Memory,
    /// Room for files in flight between processes (SCM_RIGHTS).
    Flight,
}

/// A time in which calls fail.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scarcity {
    pub(crate) lack: Lack,
    pub(crate) end_us: u64,
    /// Calls in a hundred that fail, of those that need what is lacking.
    pub(crate) percent: u64,
}

/// Chances and dates of faults.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    /// Calls in a thousand before which others run.
    pub(crate) pauses_per_thousand: u64,
    /// The master's calls of which the one that brings this to zero is its last.
    pub(crate) kill_master_after: Option<u64>,
    pub(crate) scarcity: Option<Scarcity>,
    /// A fault of the program that is put in.
    pub(crate) bug: Option<Bug>,
    /// No faults from now on.
    pub(crate) over: bool,
}

impl Faults {
    /// What becomes of the next call.
    pub(crate) fn next(&mut self, random: &mut Random, now_us: u64, is_master: bool, name: &'static str) -> Fate {
        if self.over {
            return Fate::Passes;
        }
        if is_master && let Some(left) = &mut self.kill_master_after {
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.kill_master_after = None;
                return Fate::Killed;
            }
        }
        if let Some(scarcity) = self.scarcity {
            if now_us >= scarcity.end_us {
                self.scarcity = None;
            } else if let Some(errno) = errno_of(scarcity.lack, name).filter(|_| random.percent(scarcity.percent)) {
                return Fate::Fails(errno);
            }
        }
        if random.next() % 1_000 < self.pauses_per_thousand { Fate::Pauses } else { Fate::Passes }
    }
}

/// How a call fails for want of that; `None`: it does not need it.
fn errno_of(lack: Lack, name: &str) -> Option<i32> {
    match (lack, name) {
        (Lack::Files, "accept4" | "memfd_create" | "socketpair" | "pipe2" | "socket" | "open" | "epoll_create") => {
            Some(EMFILE)
        }
        (Lack::Files, "bind") => Some(ENFILE),
        (Lack::Memory, "accept4" | "memfd_create" | "epoll_ctl") => Some(ENOMEM),
        (Lack::Memory, "fork" | "clone") => Some(EAGAIN),
        (Lack::Memory, "sendmsg") => Some(ENOBUFS),
        (Lack::Memory, "mkdir") => Some(ENOSPC),
        (Lack::Flight, "sendmsg with files") => Some(ETOOMANYREFS),
        _ => None,
    }
}
