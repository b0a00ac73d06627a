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

/// Whether an error of execve(2), or of a call that prepares it, stays until somebody changes the program or what it is started
/// with. (ETXTBSY, EAGAIN, ENOMEM, EMFILE and the like pass; EEXIST and EIO may.)
pub fn is_lasting(code: i32) -> bool {
    matches!(
        Errno::from_raw(code),
        Errno::ENOEXEC
            | Errno::ENOENT
            | Errno::ENOTDIR
            | Errno::EISDIR
            | Errno::EACCES
            | Errno::EPERM
            | Errno::E2BIG
            | Errno::EINVAL
            | Errno::ELOOP
            | Errno::ENAMETOOLONG
            | Errno::ELIBBAD
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
/// The path does not exist.
pub const ENOENT: i32 = Errno::ENOENT as i32;
/// Not permitted by the file's mode, or by its file system.
pub const EACCES: i32 = Errno::EACCES as i32;
/// Not permitted to this process.
pub const EPERM: i32 = Errno::EPERM as i32;
/// Arguments and environment are too long.
pub const E2BIG: i32 = Errno::E2BIG as i32;
/// Not a program that this machine executes.
pub const ENOEXEC: i32 = Errno::ENOEXEC as i32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_by_itself_is_told_from_what_stays() {
        for stays in [ENOEXEC, ENOENT, EACCES, EPERM, E2BIG, Errno::ENOTDIR as i32, Errno::ELOOP as i32] {
            assert!(is_lasting(stays), "{stays}");
        }
        // A program that is being written, and what a busy system lacks.
        for passes in [Errno::ETXTBSY, Errno::EAGAIN, Errno::ENOMEM, Errno::EMFILE, Errno::ENFILE, Errno::EIO] {
            assert!(!is_lasting(passes as i32), "{passes}");
        }
    }
}
