//! The keeper: parent of the master and of every worker. It spawns, reaps, signals, holds fds and notes, watches the
//! master and forwards signals. It parses no configuration, opens no socket to the outside, starts no thread.
//!
//! `table` and `watchdog` are its pure part, `codec` what it says; `event_loop` and `workers` do it. `reexec` is how it
//! becomes another binary, `state` what it then takes along. Its system calls go through `system`. `link` is the master's
//! side of the connection.
pub mod codec;
mod delivery;
mod event_loop;
pub mod link;
pub mod protocol;
mod reexec;
pub mod state;
pub mod system;
pub mod table;
pub mod watchdog;
mod workers;

pub use reexec::check;

use std::ffi::OsString;
use std::process::ExitCode;
use system::{Linux, System};

/// argv\[0\] of a master: how the program knows, at its start, that it is one.
pub const MASTER_ARGV0: &str = "clusterd: master";
/// argv\[0\] of a keeper that was another binary before.
pub const KEEPER_ARGV0: &str = "clusterd: keeper";
/// argv\[0\] of a binary that is asked whether it could be the keeper.
pub const KEEPER_CHECK_ARGV0: &str = "clusterd: can you be the keeper?";
/// First words of the answer of one that can.
pub const CAN_BE_KEEPER: &str = "clusterd keeper";
/// The fd number under which a master finds its connection to the keeper.
pub const MASTER_KEEPER_FD: i32 = 3;
/// Sockets that clusterd itself was given by its parent (systemd, `LISTEN_FDS`) are held under
/// `inherited/<index>/<name>`, the name being that of `LISTEN_FDNAMES` or empty.
pub const INHERITED_PREFIX: &str = "inherited/";

/// Name of the held file with the arguments, NUL behind each, where those on the command line of the master lack the values
/// of variables: everybody on the machine can read that one.
pub const ARGUMENTS: &str = "arguments";

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
    match event_loop::Keeper::new(Linux::default(), launch) {
        Ok(keeper) => ExitCode::from(keeper.run()),
        Err(error) => {
            Linux::default().say(&format!("clusterd: cannot start: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Takes over as the keeper that this process was with another binary, which executed this one as [`KEEPER_ARGV0`].
/// `args` is argv without that. The same holds as for [`run`].
#[must_use]
pub fn resume(args: Vec<OsString>) -> ExitCode {
    reexec::resume(Linux::default(), args)
}

/// What a binary does that was executed as [`KEEPER_ARGV0`] and cannot take over: hands back to the previous one, or says
/// what ends. Returns only when nothing else is left.
#[must_use]
pub fn decline(args: Vec<OsString>, why: &str) -> ExitCode {
    reexec::decline(&Linux::default(), args, why)
}
