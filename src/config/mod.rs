//! A deployment's configuration, with every default filled in: no later code asks for defaults. Pure: no fd, no clock,
//! no OS crate.
//!
//! [`resolve::resolve`] turns [`sources::Sources`] (the sources as plain data) into a [`Config`]. The loader reads the
//! files.
pub mod address;
pub mod agent;
pub mod attributes;
pub mod balancing;
pub mod control;
pub mod cron;
pub mod defaults;
mod dependencies;
pub mod env_file;
pub mod hooks;
pub mod import;
pub mod inspect;
pub mod log;
pub mod log_time;
pub mod name;
pub mod node_command;
pub mod options;
pub mod parse;
pub mod problem;
pub mod protocol;
pub(crate) mod raw;
pub mod resolve;
pub mod rules;
pub mod scaling;
pub mod schema;
pub mod sources;
pub mod value_error;
pub mod warm_up;

use crate::ids::Slot;
pub use balancing::{Balance, Balancing};
pub use protocol::{Protocol, ProtocolKind};
pub use scaling::{Scaling, WorkerRange};
pub use schema::keys::{Alive, App, Limits, Restart};
pub use schema::reload_keys::Reload;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A deployment: what one master runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// At least one; names are unique.
    pub apps: Vec<App>,
    /// The control API over TCP, where that is wanted.
    pub control: Option<control::Control>,
    /// The address for agent checks, where they are wanted.
    pub agent_check: Option<SocketAddr>,
}

/// Number of workers as typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workers {
    /// This many.
    Exactly(u32),
    /// The usable CPUs, less this many (at least one worker).
    MaxMinus(u32),
    /// This share of the CPUs, rounded up (at least one worker).
    Percent(u32),
}

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Listen {
    /// All interfaces, IPv6 and IPv4 where the machine has both.
    Any(u16),
    /// One address.
    Tcp(SocketAddr),
    /// A host name with its port, resolved when bound.
    Host(String, u16),
    /// A socket in the file system.
    Unix(PathBuf),
}

/// Who may connect to a socket in the file system. What is not set has its default: the mode by the umask, the user of the
/// app.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SocketAccess {
    /// The permission bits.
    pub mode: Option<u32>,
    /// Name or number.
    pub owner: Option<String>,
    /// Name or number.
    pub group: Option<String>,
}

/// How the metrics that an app has of its own are had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metrics {
    None,
    /// From `prom-client` in Node workers, over their channels.
    PromClient,
    /// From the files of Python's `prometheus_client`.
    Python,
}

/// The rule for a worker's readiness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ready {
    /// Node's `listening`.
    Listening,
    /// `process.send('ready')`.
    Message,
    /// `READY=1` on `NOTIFY_SOCKET`.
    Notify,
    /// It answers a GET of this path with a 2xx or 3xx status.
    Http(String),
    /// It lived this long.
    After(Duration),
    /// Whichever comes first.
    Or(Said, Duration),
}

impl Ready {
    /// The age that makes a worker ready; zero where none does.
    pub fn age(&self) -> Duration {
        match self {
            Ready::After(age) | Ready::Or(_, age) => *age,
            Ready::Listening | Ready::Message | Ready::Notify | Ready::Http(_) => Duration::ZERO,
        }
    }
}

/// Evidence that a worker announces itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// Node's `listening`.
    Listening,
    /// `process.send('ready')`.
    Message,
    /// `READY=1` on `NOTIFY_SOCKET`.
    Notify,
}

/// The watched files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    /// Absolute; empty: the app's folder.
    pub paths: Vec<PathBuf>,
    /// Ignored files, as lines of a `.gitignore`.
    pub ignore: Vec<String>,
    /// How long no other change may follow before a change is acted on.
    pub delay: Duration,
}

impl App {
    /// Whether the app's processes do not get this variable of clusterd's own.
    pub fn leaves_out(&self, variable: &str) -> bool {
        self.filter_env.iter().any(|text| variable.contains(text.as_str()))
    }

    /// The slots beside those of its workers.
    pub fn beside(&self) -> Vec<Slot> {
        let (agent, before) = (self.agent.as_ref().map(|_| Slot::AGENT), self.before.as_ref().map(|_| Slot::BEFORE));
        agent.into_iter().chain(before).collect()
    }

    /// The most workers that the app may have by its configuration, where this process may use `cpus` CPUs.
    pub fn workers_most(&self, cpus: u32) -> u32 {
        let most = self.scale.as_ref().map_or(0, |scale| scale.most.count(cpus));
        most.max(self.workers.count(cpus))
    }

    /// The variable that is incremented per slot, and its value in slot 0.
    pub fn first_of_increment(&self) -> Option<(&str, i64)> {
        let name = self.increment_var.as_deref()?;
        Some((name, self.env.get(name)?.parse().ok()?))
    }
}

impl Workers {
    /// The number of workers on a machine where this process may use `cpus` CPUs; at least one.
    pub fn count(self, cpus: u32) -> u32 {
        match self {
            Workers::Exactly(n) => n,
            Workers::MaxMinus(less) => cpus.saturating_sub(less).max(1),
            Workers::Percent(percent) => {
                cpus.saturating_mul(percent).div_ceil(100).clamp(1, crate::limits::WORKERS_MAX)
            }
        }
    }
}

impl fmt::Display for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Workers::Exactly(n) => write!(f, "{n}"),
            Workers::MaxMinus(0) => f.write_str("max"),
            Workers::MaxMinus(less) => write!(f, "max-{less}"),
            Workers::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl Metrics {
    /// The words for them.
    pub const NAMES: [&str; 3] = ["none", "prom-client", "python"];

    const ALL: [Metrics; 3] = [Metrics::None, Metrics::PromClient, Metrics::Python];

    pub const fn name(self) -> &'static str {
        Metrics::NAMES[self as usize]
    }

    /// That with this name.
    pub fn named(word: &str) -> Option<Metrics> {
        Metrics::ALL.into_iter().find(|metrics| metrics.name() == word)
    }
}

impl fmt::Display for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ready::Listening => f.write_str("listening"),
            Ready::Message => f.write_str("message"),
            Ready::Notify => f.write_str("notify"),
            Ready::Http(path) => write!(f, "http:{path}"),
            Ready::After(time) => write!(f, "{time:?}"),
            Ready::Or(said, time) => write!(f, "{} or {time:?}", said.alone()),
        }
    }
}

impl Said {
    /// The rule that needs only this.
    pub fn alone(self) -> Ready {
        match self {
            Said::Listening => Ready::Listening,
            Said::Message => Ready::Message,
            Said::Notify => Ready::Notify,
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Any(port) => write!(f, "*:{port}"),
            Listen::Tcp(address) => write!(f, "{address}"),
            Listen::Host(host, port) => write!(f, "{host}:{port}"),
            Listen::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
