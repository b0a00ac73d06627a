//! The processes in a group and the groups below it: kills them, and removes what is empty then.
use super::{
    APP_PREFIX, BASE_PREFIX, CGROUP_FOLDERS_MAX, CGROUP_KILL_ROUNDS_MAX, CgroupError, KILL_PAUSE, check_name, rank,
    system,
};
use crate::os::hierarchy::{self, Version, read};
use crate::os::{lock, signal};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// Processes of a cgroup that are killed at a time, where the kernel cannot kill a whole group.
const CGROUP_PROCESSES_MAX: usize = 100_000;

/// Ends the processes that are left in bases of this name which no clusterd uses any more, wherever they are, and removes
/// those. Returns how many processes that were.
#[must_use]
pub fn end_leftovers(name: &str) -> usize {
    if check_name(name).is_err() || !name.starts_with(BASE_PREFIX) {
        return 0;
    }
    let Some((_, mut mounts)) = hierarchy::read_all(Path::new("/")) else { return 0 };
    mounts.retain(|mount| mount.version == Version::Two || rank(&mount.controllers).is_some());
    mounts.sort_by_key(|mount| (mount.version == Version::One, rank(&mount.controllers)));
    let mut count = 0;
    for base in mounts.iter().flat_map(|mount| folders_below(Path::new(&mount.point), Some(name))) {
        // Held by a clusterd that runs, or not ours.
        let Ok(Some(_lock)) = lock::take_folder(&base) else { continue };
        count += all_processes(&base).len();
        for _ in 0..CGROUP_KILL_ROUNDS_MAX {
            kill_all(&base);
            if remove_tree(&base) {
                break;
            }
            std::thread::sleep(KILL_PAUSE);
        }
    }
    count
}

/// The app in whose group a process is, in the base of this name.
#[must_use]
pub fn app_of(pid: i32, base: &str) -> Option<String> {
    app_in(&read(Path::new(&format!("/proc/{pid}/cgroup")))?, base)
}

/// The same in the text of `/proc/PID/cgroup`.
pub(super) fn app_in(groups: &str, base: &str) -> Option<String> {
    let of_base = format!("/{base}/{APP_PREFIX}");
    let found = groups.lines().find_map(|line| line.splitn(3, ':').nth(2)?.split_once(&of_base));
    found.and_then(|(_, below)| below.split('/').next()).map(str::to_owned)
}

/// Kills every process in a group and the groups below it.
pub(super) fn kill_all(group: &Path) {
    // Before Linux 5.14, and in version 1, one after the other: stopped meanwhile where that is possible, so that none makes
    // others faster than they are killed.
    if write(&group.join("cgroup.kill"), "1").is_ok() {
        return;
    }
    for round in 0..CGROUP_KILL_ROUNDS_MAX {
        let freezes =
            write(&group.join("freezer.state"), "FROZEN").is_ok() || write(&group.join("cgroup.freeze"), "1").is_ok();
        let found = all_processes(group);
        for pid in &found {
            // A frozen process ends by no other hand. Where nothing freezes, its pid was read microseconds ago.
            let _ = signal::send(*pid, signal::KILL);
        }
        if freezes {
            // Both, for whichever it has.
            let _ = write(&group.join("freezer.state"), "THAWED");
            let _ = write(&group.join("cgroup.freeze"), "0");
        }
        if found.is_empty() {
            return;
        }
        if round > 0 {
            std::thread::sleep(KILL_PAUSE);
        }
    }
}

/// Pids in a group and the groups below it, without this process.
fn all_processes(group: &Path) -> Vec<i32> {
    let own = std::process::id().cast_signed();
    let below = folders_below(group, None);
    let all = std::iter::once(group.to_owned()).chain(below).flat_map(|folder| processes(&folder));
    all.filter(|pid| *pid != own).take(CGROUP_PROCESSES_MAX).collect()
}

/// Pids in a group. Those of other pid namespaces are 0, and left out.
pub(super) fn processes(group: &Path) -> Vec<i32> {
    let text = read(&group.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|pid| pid.trim().parse().ok()).filter(|pid| *pid > 0).collect()
}

/// The folders below a folder, those at the top first; only those of this name, where there is one.
fn folders_below(top: &Path, name: Option<&str>) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![top.to_owned()];
    let mut seen = 0;
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            seen += 1;
            if seen > CGROUP_FOLDERS_MAX {
                return found;
            }
            if name.is_none_or(|name| entry.file_name() == name) {
                found.push(entry.path());
            }
            open.push(entry.path());
        }
    }
    found
}

/// Removes a group and the groups below it. Returns whether it is gone.
pub(super) fn remove_tree(group: &Path) -> bool {
    let below = folders_below(group, None);
    // Longer paths are further down.
    let mut all: Vec<PathBuf> = below.into_iter().chain([group.to_owned()]).collect();
    all.sort_by_key(|folder| std::cmp::Reverse(folder.components().count()));
    // Not empty: whoever is in it is about to end, or has just come.
    all.iter().for_each(|folder| drop(fs::remove_dir(folder)));
    !group.exists()
}

/// Writes a file of the kernel; makes none.
pub(super) fn write(path: &Path, text: &str) -> Result<(), CgroupError> {
    let file: io::Result<File> = OpenOptions::new().write(true).open(path);
    file.and_then(|mut file| io::Write::write_all(&mut file, text.as_bytes())).map_err(system(path))
}
