//! Defaults that more than the table of settings names, with their reasons. The others stand in `schema::keys`.
use super::{Balance, Protocol, Workers};
use crate::balance::Mode;
use std::time::Duration;

/// The namespace of apps that name none.
pub const NAMESPACE: &str = "default";
/// All CPUs that this process may use.
pub const WORKERS: Workers = Workers::MaxMinus(0);
/// The master hands off, the least busy worker first.
pub const BALANCE: Balance = Balance::Strategy(Mode::RoundRobin);
/// Decided by the program that the command names.
pub const PROTOCOL: Protocol = Protocol::Auto;
/// Long enough for a big application to start, short enough to notice one that never will.
pub const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// Long enough for slow requests to end.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// What is left to a worker between SIGTERM and SIGKILL.
pub const KILL_TIMEOUT: Duration = Duration::from_secs(5);
/// Between the death of an agent and the next one, as with egg.
pub const AGENT_RESTART_DELAY: Duration = Duration::from_secs(1);
/// What holds a worker's slot: the name that PM2 made known.
pub const INSTANCE_VAR: &str = "NODE_APP_INSTANCE";
/// A program that has no way to say that it is ready counts as ready after this.
pub const READY_AFTER: Duration = Duration::from_secs(1);

/// Rotated log files that are kept.
pub const LOG_KEEP: u32 = 30;

/// An editor, a checkout or a build changes several files in a row.
pub const WATCH_DELAY: Duration = Duration::from_millis(300);
