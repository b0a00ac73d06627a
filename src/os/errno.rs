//! Errors with a meaning for the rest of the program, as predicates and constants.
use nix::errno::Errno;
use std::io;

/// Whether accept failed because the process or the system is out of fds or memory.
pub fn is_out_of_resources(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw),
        Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM)
    )
}

/// libuv's code of this error: its number, negative. EINVAL for an error that did not come from the system.
pub fn libuv_code(error: &io::Error) -> i32 {
    -error.raw_os_error().unwrap_or(Errno::EINVAL as i32)
}

/// EADDRINUSE, negative, as libuv writes it.
pub const UV_EADDRINUSE: i32 = -(Errno::EADDRINUSE as i32);
/// EINVAL, negative, as libuv writes it.
pub const UV_EINVAL: i32 = -(Errno::EINVAL as i32);
/// EACCES, negative, as libuv writes it.
pub const UV_EACCES: i32 = -(Errno::EACCES as i32);
/// ENOENT, negative, as libuv writes it.
pub const UV_ENOENT: i32 = -(Errno::ENOENT as i32);
/// The process has no free fd number.
pub const EMFILE: i32 = Errno::EMFILE as i32;
/// EMFILE, negative, as libuv writes it.
pub const UV_EMFILE: i32 = -(Errno::EMFILE as i32);
/// Not a program that this machine executes.
pub const ENOEXEC: i32 = Errno::ENOEXEC as i32;
