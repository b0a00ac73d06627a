//! Error numbers that mean something to the rest of the program, as questions and names.
use nix::errno::Errno;
use std::io;

/// Whether accept failed because the process or the system has no fds or no memory left.
pub fn is_out_of_resources(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw),
        Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM)
    )
}

/// What libuv would call this error: its number, negative. An error that did not come from the system is EINVAL.
pub fn libuv_code(error: &io::Error) -> i32 {
    -error.raw_os_error().unwrap_or(Errno::EINVAL as i32)
}

/// EADDRINUSE, negative, as libuv writes it.
pub const UV_EADDRINUSE: i32 = -(Errno::EADDRINUSE as i32);
/// EBADF, negative, as libuv writes it.
pub const UV_EBADF: i32 = -(Errno::EBADF as i32);
/// EMFILE, negative, as libuv writes it.
pub const UV_EMFILE: i32 = -(Errno::EMFILE as i32);

/// An error number in words: "No such file or directory".
pub fn describe(errno: i32) -> String {
    Errno::from_raw(errno).desc().to_owned()
}

/// The name of a signal: "SIGKILL"; a number where it has none.
pub fn signal_name(signal: i32) -> String {
    match nix::sys::signal::Signal::try_from(signal) {
        Ok(signal) => signal.as_str().to_owned(),
        Err(_) => format!("signal {signal}"),
    }
}
