//! The keeper: parent of the master and of every worker. It spawns, reaps, signals, holds fds and notes, watches the
//! master and forwards signals. It parses no configuration, opens no socket to the outside, starts no thread.
//!
//! `table` and `watch` are its pure part, `codec` what it says; `event_loop` and `workers` do it. `link` is the
//! master's side of the connection.
pub mod codec;
mod delivery;
mod event_loop;
pub mod link;
pub mod protocol;
pub mod table;
pub mod watch;
mod workers;

use std::ffi::OsString;
use std::process::ExitCode;

/// argv\[0\] of a master: how the program knows, at its start, that it is one.
pub const MASTER_ARGV0: &str = "clusterd: master";
/// The fd number under which a master finds its connection to the keeper.
pub const MASTER_KEEPER_FD: i32 = 3;
/// Sockets that clusterd itself was given by its parent (systemd, `LISTEN_FDS`) are held under
/// `inherited/<index>/<name>`, the name being that of `LISTEN_FDNAMES` or empty.
pub const INHERITED_PREFIX: &str = "inherited/";

/// How the keeper was called.
#[derive(Clone, Debug, Default)]
pub struct Launch {
    /// The original argv\[1..\], passed on to each master unchanged.
    pub args: Vec<OsString>,
}

/// Becomes the keeper, until everything has ended. To be called once, at the start of a process that has one thread:
/// parent-death signals are tied to the thread that forks. Messages go to stderr.
#[must_use]
pub fn run(launch: Launch) -> ExitCode {
    match event_loop::Keeper::new(launch) {
        Ok(keeper) => ExitCode::from(keeper.run()),
        Err((what, error)) => {
            crate::os::process::say(&format!("clusterd: cannot start: {what}: {error}"));
            ExitCode::FAILURE
        }
    }
}
