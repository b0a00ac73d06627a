//! The limit on open files: clusterd raises its own and gives workers what the person started it with.
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// RLIMIT_NOFILE, as setrlimit(2) numbers it.
pub const NOFILE: i32 = libc::RLIMIT_NOFILE as i32;

/// Raises the soft limit on open files to the hard one. Returns (soft, hard) as they were before.
pub fn raise_nofile() -> Option<(u64, u64)> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    if soft < hard {
        // A refusal is not worth a message: the old limit still holds.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
    Some((soft, hard))
}
