//! How many CPUs this process may use: the minimum of the affinity mask and the CPU quotas of its cgroups (v1 and v2,
//! every visible ancestor).
use super::hierarchy::{self, Group, Mount, Version, read};
use std::path::{Path, PathBuf};

/// CPUs that the affinity mask may hold; beyond it the kernel is not asked.
const AFFINITY_CPUS_MAX: usize = 512 * 1024;

/// CPUs that this process may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuCount {
    /// At least 1.
    pub count: u32,
    /// The source of the number, for people: `8 CPUs by affinity`, `2 CPUs by cgroup quota (…/cpu.max)`.
    pub reason: String,
}

/// A quota of CPU time.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Quota {
    /// Rounded up to whole CPUs, at least 1.
    cpus: u32,
    /// The file with the quota.
    file: PathBuf,
}

/// CPUs that this process may use now. Never fails: a limit that cannot be read does not count.
pub fn available() -> CpuCount {
    decide(by_affinity(), quota_under(Path::new("/")))
}

fn decide(affinity: Option<u32>, quota: Option<Quota>) -> CpuCount {
    let plural = |count: u32| if count == 1 { "1 CPU".to_owned() } else { format!("{count} CPUs") };
    match (affinity, quota) {
        (Some(affinity), Some(quota)) if quota.cpus >= affinity => decide(Some(affinity), None),
        (_, Some(Quota { cpus, file })) => {
            CpuCount { count: cpus, reason: format!("{} by cgroup quota ({})", plural(cpus), file.display()) }
        }
        (Some(count), None) => CpuCount { count, reason: format!("{} by affinity", plural(count)) },
        (None, None) => CpuCount { count: 1, reason: "1 CPU, because the number cannot be read".into() },
    }
}

/// CPUs in this thread's affinity mask. The kernel refuses a buffer smaller than its own mask: the buffer doubles until
/// it fits.
fn by_affinity() -> Option<u32> {
    let mut words = 1024 / 64;
    while words * 64 <= AFFINITY_CPUS_MAX {
        let mut mask = vec![0_u64; words];
        // SAFETY: the pointer and the length in bytes describe `mask`, which lives across the call and is aligned for
        // the kernel's array of longs; the kernel writes at most that many bytes.
        let written =
            unsafe { libc::syscall(libc::SYS_sched_getaffinity, 0, size_of_val(mask.as_slice()), mask.as_mut_ptr()) };
        if written > 0 {
            return Some(mask.iter().map(|word| word.count_ones()).sum::<u32>().max(1));
        }
        if std::io::Error::last_os_error().raw_os_error() != Some(libc::EINVAL) {
            break;
        }
        words *= 2;
    }
    std::thread::available_parallelism().ok().and_then(|count| u32::try_from(count.get()).ok())
}

/// The smallest quota of this process's cgroup and its ancestors, in any hierarchy that limits CPU time. `root`
/// replaces `/` in tests.
fn quota_under(root: &Path) -> Option<Quota> {
    let (groups, mounts) = hierarchy::read_all(root)?;
    let limits_cpu = |mount: &&Mount| mount.version == Version::Two || mount.controllers.iter().any(|c| c == "cpu");
    let quotas = groups.iter().flat_map(|group: &Group| {
        mounts.iter().filter(limits_cpu).filter(|mount| group.is_in(mount)).flat_map(move |mount| {
            mount.folders(&group.path).into_iter().filter_map(|folder| {
                let inside = root.join(folder.strip_prefix("/").unwrap_or(&folder));
                let quota = match group.version {
                    Version::Two => quota_v2(&inside),
                    Version::One => quota_v1(&inside),
                };
                quota.map(|(cpus, file)| Quota { cpus, file: folder.join(file) })
            })
        })
    });
    quotas.min_by_key(|quota| quota.cpus)
}

/// `cpu.max`: `QUOTA PERIOD` in microseconds, or `max PERIOD`.
fn quota_v2(folder: &Path) -> Option<(u32, &'static str)> {
    let text = read(&folder.join("cpu.max"))?;
    let mut words = text.split_whitespace();
    Some((cpus(words.next()?, words.next().unwrap_or("100000"))?, "cpu.max"))
}

/// `cpu.cfs_quota_us` (-1: none) and `cpu.cfs_period_us`.
fn quota_v1(folder: &Path) -> Option<(u32, &'static str)> {
    let quota = read(&folder.join("cpu.cfs_quota_us"))?;
    let period = read(&folder.join("cpu.cfs_period_us"))?;
    Some((cpus(quota.trim(), period.trim())?, "cpu.cfs_quota_us"))
}

/// Whole CPUs for this much time, rounded up: a quota of 1.5 keeps two workers busy, not one.
fn cpus(quota: &str, period: &str) -> Option<u32> {
    let (quota, period) = (quota.parse::<u64>().ok()?, period.parse::<u64>().ok().filter(|period| *period > 0)?);
    Some(u32::try_from(quota.div_ceil(period)).unwrap_or(u32::MAX).max(1))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// A folder in place of `/`, removed at the end.
    struct Machine(PathBuf);

    impl Machine {
        fn new(cgroup: &str, mountinfo: &str) -> Machine {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let name = format!("clusterd-cpu-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            let machine = Machine(std::env::temp_dir().join(name));
            machine.file("proc/self/cgroup", cgroup).file("proc/self/mountinfo", mountinfo);
            machine
        }

        fn file(&self, path: &str, text: &str) -> &Machine {
            let path = self.0.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
            self
        }

        fn cpus(&self) -> Option<u32> {
            quota_under(&self.0).map(|quota| quota.cpus)
        }
    }

    impl Drop for Machine {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    const V2: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
    const V1: &str = "33 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
                      34 31 0:30 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n";

    #[test]
    fn v2_takes_the_smallest_of_all_ancestors() {
        let machine = Machine::new("0::/a/b/c\n", V2);
        assert_eq!(machine.cpus(), None, "no file limits");
        machine.file("sys/fs/cgroup/a/b/c/cpu.max", "max 100000\n");
        assert_eq!(machine.cpus(), None, "max is no limit");
        machine.file("sys/fs/cgroup/a/b/cpu.max", "400000 100000\n");
        assert_eq!(machine.cpus(), Some(4));
        machine.file("sys/fs/cgroup/a/cpu.max", "150000 100000\n");
        let quota = quota_under(&machine.0).unwrap();
        assert_eq!(quota, Quota { cpus: 2, file: "/sys/fs/cgroup/a/cpu.max".into() }, "rounded up");
        machine.file("sys/fs/cgroup/a/b/c/cpu.max", "1000 100000\n");
        assert_eq!(machine.cpus(), Some(1), "at least one");
    }

    #[test]
    fn v2_in_a_container_has_its_own_group_at_the_mount_point() {
        // A private cgroup namespace.
        let machine = Machine::new("0::/\n", V2);
        machine.file("sys/fs/cgroup/cpu.max", "200000 100000");
        assert_eq!(machine.cpus(), Some(2));
        // The host's namespace: the path is the host's, and begins with the mount's root.
        let mount = "30 23 0:26 /docker/1f /sys/fs/cgroup ro - cgroup2 cgroup rw\n";
        let machine = Machine::new("0::/docker/1f/inner\n", mount);
        machine.file("sys/fs/cgroup/cpu.max", "300000 100000").file("sys/fs/cgroup/inner/cpu.max", "max 100000");
        assert_eq!(machine.cpus(), Some(3));
        // A mount from above the namespace's root, and a path above the root.
        for (path, root) in [("0::/../other\n", "/"), ("0::/x\n", "/.."), ("0::/elsewhere\n", "/docker/1f")] {
            let machine = Machine::new(path, &format!("30 23 0:26 {root} /sys/fs/cgroup ro - cgroup2 cgroup rw\n"));
            machine.file("sys/fs/cgroup/cpu.max", "200000 100000");
            assert_eq!(machine.cpus(), Some(2), "{path} {root}");
        }
    }

    #[test]
    fn v1_reads_quota_and_period_of_every_ancestor() {
        let machine = Machine::new("5:cpuset:/\n4:cpu,cpuacct:/docker/1f\n0::/\n", V1);
        let folder = "sys/fs/cgroup/cpu,cpuacct/docker";
        machine.file(&format!("{folder}/1f/cpu.cfs_quota_us"), "-1\n");
        machine.file(&format!("{folder}/1f/cpu.cfs_period_us"), "100000\n");
        assert_eq!(machine.cpus(), None);
        machine.file(&format!("{folder}/cpu.cfs_quota_us"), "250000\n");
        assert_eq!(machine.cpus(), None, "no period");
        machine.file(&format!("{folder}/cpu.cfs_period_us"), "50000\n");
        assert_eq!(machine.cpus(), Some(5));
    }

    #[test]
    fn hybrid_machines_have_both() {
        let mounts = format!("{V1}41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
        let machine = Machine::new("3:cpuacct,cpu:/a\n0::/b\n", &mounts);
        machine.file("sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", "400000");
        machine.file("sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us", "100000");
        machine.file("sys/fs/cgroup/unified/b/cpu.max", "700000 100000");
        assert_eq!(machine.cpus(), Some(4));
        machine.file("sys/fs/cgroup/unified/b/cpu.max", "100000 100000");
        assert_eq!(machine.cpus(), Some(1));
    }

    #[test]
    fn what_cannot_be_read_does_not_limit() {
        assert_eq!(quota_under(Path::new("/nowhere/at/all")), None);
        for (cgroup, mounts) in
            [("", ""), ("::\n0\n0::\n\u{0}", V2), ("0::/a\n", " - \na b - cgroup2\n - cgroup2 x y\n")]
        {
            assert_eq!(Machine::new(cgroup, mounts).cpus(), None, "{cgroup:?}");
        }
        for garbage in ["", "x y", "100000 0", "-5 100000", "max", "1e5 100000", "\u{fffd}"] {
            let machine = Machine::new("0::/a\n", V2);
            machine.file("sys/fs/cgroup/a/cpu.max", garbage);
            assert_eq!(machine.cpus(), None, "{garbage:?}");
        }
        let machine = Machine::new("0::/a\n", V2);
        machine.file("sys/fs/cgroup/a/cpu.max", "99999999999999 1");
        assert_eq!(machine.cpus(), Some(u32::MAX));
    }

    #[test]
    fn mount_points_are_unescaped() {
        let machine = Machine::new("0::/a\n", "1 2 0:1 / /my\\040cgroup rw - cgroup2 x rw\n");
        machine.file("my cgroup/a/cpu.max", "200000 100000");
        assert_eq!(machine.cpus(), Some(2));
    }

    #[test]
    fn the_smaller_of_affinity_and_quota_wins() {
        let quota = |cpus| Some(Quota { cpus, file: "/f".into() });
        assert_eq!(decide(Some(8), None).reason, "8 CPUs by affinity");
        assert_eq!(decide(Some(8), quota(2)), CpuCount { count: 2, reason: "2 CPUs by cgroup quota (/f)".into() });
        assert_eq!(decide(Some(1), quota(2)), CpuCount { count: 1, reason: "1 CPU by affinity".into() });
        assert_eq!(decide(None, quota(1)).count, 1);
        assert_eq!(decide(None, None).count, 1);
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know sched_getaffinity")]
    fn this_machine_has_a_cpu() {
        let all = std::thread::available_parallelism().unwrap().get();
        let count = available();
        assert!(count.count >= 1, "{count:?}");
        assert!(by_affinity().unwrap() as usize >= all, "the standard library counts the quota in");
    }
}
