//! The keeper: parent of the master and of every worker. It spawns, reaps and signals processes, holds fds and the
//! checkpoint, watches the master and forwards signals. It parses no configuration, opens no socket to the outside,
//! starts no thread.
//!
//! `table` and `watchdog` are its pure part, `codec` the encoding of its messages; `event_loop` and `workers` act.
//! `reexec` replaces its binary, `state` is what the new binary takes over. System calls go through `system`. `link` is
//! the master's side of the connection.
pub mod codec;
mod delivery;
mod ending;
mod event_loop;
mod groups;
mod inherited;
pub mod link;
pub mod protocol;
mod reexec;
mod service_manager;
pub mod state;
mod strays;
pub mod system;
pub mod table;
pub mod watchdog;
mod workers;

pub use reexec::check;

pub use event_loop::StartError;

use std::ffi::OsString;
use std::process::ExitCode;
use system::{Linux, System};

/// argv\[0\] of a master, by which the program recognizes its role.
pub const MASTER_ARGV0: &str = "clusterd: master";
/// argv\[0\] of a keeper that was another binary before.
pub const KEEPER_ARGV0: &str = "clusterd: keeper";
/// argv\[0\] of a binary that is asked whether it could be the keeper.
pub const KEEPER_CHECK_ARGV0: &str = "clusterd: can you be the keeper?";
/// The start of a positive answer.
pub const CAN_BE_KEEPER: &str = "clusterd keeper";
/// The fd number of a master's connection to the keeper.
pub const MASTER_KEEPER_FD: i32 = 3;
/// Prefix of sockets that clusterd got from its own parent (systemd, `LISTEN_FDS`): they are held as
/// `inherited/<index>/<name>`, with the name from `LISTEN_FDNAMES` or an empty one.
pub const INHERITED_PREFIX: &str = "inherited/";

/// Name of the held file with the arguments, NUL behind each, where those on the command line of the master lack the values
/// of variables: everybody on the machine can read that one.
pub const ARGUMENTS: &str = "arguments";

/// How the keeper was started.
#[derive(Clone, Debug, Default)]
pub struct Launch {
    /// The original argv\[1..\], passed on to each master unchanged.
    pub args: Vec<OsString>,
}

/// Becomes the keeper until the deployment is over. Call it once, at the start of a process with one thread:
/// parent-death signals are tied to the thread that forks. Messages go to stderr.
#[must_use]
pub fn run(launch: Launch) -> ExitCode {
    match run_on(Linux::default(), launch) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            Linux::default().say(&format!("clusterd: cannot start: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// The same on any system: `tests/system` puts a simulated one under it. Returns the exit code.
///
/// # Errors
/// What cannot be set up.
pub fn run_on(system: impl System, launch: Launch) -> Result<u8, StartError> {
    Ok(event_loop::Keeper::new(system, launch)?.run())
}

/// Takes over as the keeper from another binary, which executed this one as [`KEEPER_ARGV0`]. `args` is argv without
/// that. Otherwise as [`run`].
#[must_use]
pub fn resume(args: Vec<OsString>) -> ExitCode {
    resume_on(Linux::default(), args)
}

/// The same on any system: `tests/system` puts a simulated one under it.
#[must_use]
pub fn resume_on(system: impl System, args: Vec<OsString>) -> ExitCode {
    reexec::resume(system, args)
}

/// For a binary that was executed as [`KEEPER_ARGV0`] and cannot take over: returns to the previous binary, or logs
/// what is lost. Returns only if that fails.
#[must_use]
pub fn decline(args: Vec<OsString>, why: &str) -> ExitCode {
    reexec::decline(&Linux::default(), args, why)
}
