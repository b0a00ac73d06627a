//! Files that are only written at their end.
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Mode of new log files: the owner writes, the group may read.
const FILE_MODE: u32 = 0o640;
/// Mode of folders that are made for them.
const FOLDER_MODE: u32 = 0o750;

/// Opens a file to write at its end; it is made where it is missing, and its folders too. A write to what is no regular
/// file (a pipe, a terminal) never waits.
///
/// # Errors
/// As open(2) and mkdir(2).
pub fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    // Without O_NONBLOCK a named pipe without a reader would be waited for.
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

/// Whether the file can be read back, cut and moved.
///
/// # Errors
/// As fstat(2).
pub fn is_regular(file: &File) -> io::Result<bool> {
    Ok(file.metadata()?.is_file())
}

/// Makes the calling thread give way to others. Where that is refused it goes on as before.
pub fn be_nice() {
    const NICENESS: i32 = 10;
    // SAFETY: takes no pointers; 0 is the calling thread.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS) };
}
