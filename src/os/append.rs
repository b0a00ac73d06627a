//! Append-only files.
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Mode of new log files: the owner writes, the group may read.
const FILE_MODE: u32 = 0o640;
/// Mode of folders created for them.
const FOLDER_MODE: u32 = 0o750;

/// Opens a file for appending; creates it, and its folders, where missing. Writes to anything but a regular file (a
/// pipe, a terminal) never block.
///
/// # Errors
/// As open(2) and mkdir(2).
pub fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    // Without O_NONBLOCK, opening a named pipe would wait for a reader.
    options.append(true).create(true).mode(FILE_MODE).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    match options.open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            if let Some(folder) = path.parent() {
                DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder)?;
            }
            options.open(path)
        }
        other => other,
    }
}

/// Lowers the priority of the calling thread. A refusal is ignored.
pub fn be_nice() {
    const NICENESS: i32 = 10;
    // SAFETY: takes no pointers; 0 is the calling thread.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS) };
}
