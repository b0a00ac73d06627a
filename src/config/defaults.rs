//! Defaults that are used beyond the table of settings, with their reasons. The others are in `schema::keys`.
use super::{Balancing, Protocol, Workers};
use std::time::Duration;

/// The namespace of apps that name none.
pub const NAMESPACE: &str = "default";
/// All CPUs that this process may use, for who serves.
pub const WORKERS: Workers = Workers::MaxMinus(0);
/// A bot, a job or a worker of a queue: a second one would do the work twice.
pub const WORKERS_WITHOUT_ADDRESS: Workers = Workers::Exactly(1);
/// By the app: `balancing` has the table.
pub const BALANCE: Balancing = Balancing::Auto;
/// By the program in the command.
pub const PROTOCOL: Protocol = Protocol::Auto;
/// Long enough for a big application to start, short enough to notice one that never will.
pub const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// Long enough for most migrations, short enough for somebody to wait for.
pub const BEFORE_TIMEOUT: Duration = Duration::from_secs(600);
/// Long enough for slow requests to end.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// The time between SIGTERM and SIGKILL.
pub const KILL_TIMEOUT: Duration = Duration::from_secs(5);
/// Between the death of an agent and the next one, as with egg.
pub const AGENT_RESTART_DELAY: Duration = Duration::from_secs(1);
/// The variable for a worker's slot, with PM2's name.
pub const INSTANCE_VAR: &str = "NODE_APP_INSTANCE";
/// A program that cannot announce its readiness counts as ready after this.
pub const READY_AFTER: Duration = Duration::from_secs(1);
/// A program for which no address is configured, and that does not listen, counts as ready after this.
pub const READY_WITHOUT_LISTENING: Duration = Duration::from_secs(3);

/// Rotated log files that are kept.
pub const LOG_KEEP: u32 = 30;

/// An editor, a checkout or a build changes several files in a row.
pub const WATCH_DELAY: Duration = Duration::from_millis(300);

/// argv\[1\] of a worker of clusterd's own that serves files (`serve`).
pub const SERVE_FLAG: &str = "--serve-files";
