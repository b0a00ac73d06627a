//! Files that a process has open.
use std::fs;

/// The first number that is free behind all of /dev/null: what a process keeps in reserve is open, and below it.
pub(crate) fn first_free_file(pid: i32) -> u64 {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let file = |entry: fs::DirEntry| {
        let number: u64 = entry.file_name().to_str()?.parse().ok()?;
        Some((number, fs::read_link(entry.path()).ok()?))
    };
    let open: Vec<_> = entries.filter_map(file).collect();
    let reserved = open.iter().filter(|(_, path)| path.to_str() == Some("/dev/null")).map(|(number, _)| *number).max();
    let is_free = |number: &u64| !open.iter().any(|(taken, _)| taken == number);
    (reserved.unwrap_or(0)..).find(is_free).unwrap()
}
