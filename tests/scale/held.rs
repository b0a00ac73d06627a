//! What a process holds, seen from outside: memory that is nobody else's, and open files.
use std::fs;

/// Private memory may differ by so much and still count as the same: what the allocator keeps for later.
pub(crate) const GROWTH_MAX_KIB: u64 = 128;

/// What one process holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub(crate) private_kib: u64,
    pub(crate) fds: usize,
}

impl Held {
    pub(crate) fn of(pid: i32) -> Held {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
        let kib = |name: &str| -> u64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().trim_end_matches(" kB").parse().unwrap()
        };
        let fds = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
        Held { private_kib: kib("Private_Dirty:") + kib("Swap:"), fds }
    }

    /// Whether it is at most what was held before.
    pub(crate) fn is_as(self, before: Held) -> bool {
        self.fds <= before.fds && self.private_kib <= before.private_kib + GROWTH_MAX_KIB
    }
}
