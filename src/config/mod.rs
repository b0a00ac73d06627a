//! What a deployment is, with every default decided: nothing later asks "or else?". Pure: no fd, no clock, no OS crate.
//!
//! [`sources::Sources`] (what was typed, as plain data) goes through [`resolve::resolve`] to a [`Config`]. The loader reads
//! the files.
pub mod address;
pub mod agent;
pub mod cron;
pub mod defaults;
pub mod env_file;
pub mod hooks;
pub mod import;
pub mod inspect;
pub mod log;
pub mod log_time;
pub mod name;
pub mod parse;
pub mod problem;
pub mod raw;
pub mod resolve;
pub mod rules;
pub mod sources;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A deployment: what one master runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// At least one; names are unique.
    pub apps: Vec<App>,
}

/// One app: a command with its workers, listeners and settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    /// Unique in the deployment.
    pub name: String,
    /// The group that commands may name instead of each app.
    pub namespace: String,
    /// Program and arguments; never empty.
    pub command: Vec<String>,
    /// How many workers, still relative to the CPUs of the machine.
    pub workers: Workers,
    /// Addresses bound before anything is forked, in the order of `LISTEN_FDS`.
    pub listen: Vec<Listen>,
    /// Who gets the next connection.
    pub balance: Balance,
    /// How the command takes its sockets.
    pub protocol: Protocol,
    /// What makes a worker ready. `None`: the protocol's own default (see `docs/configuration.md`).
    pub ready: Option<Ready>,
    /// A worker that is not ready after this has failed.
    pub ready_timeout: Duration,
    /// A draining worker is asked to end by SIGTERM after this.
    pub drain_timeout: Duration,
    /// SIGKILL follows SIGTERM after this.
    pub kill_timeout: Duration,
    /// Added to the environment of clusterd itself (or `base_env`); the chosen `env.NAME` table is already laid over.
    pub env: BTreeMap<String, String>,
    /// What `env` is added to, where it is not the environment of clusterd itself.
    pub base_env: Option<BTreeMap<String, String>>,
    /// The variable that holds a worker's slot.
    pub instance_var: String,
    /// A variable of `env`, a number, that each slot gets with its slot added.
    pub increment_var: Option<String>,
    /// As typed; made absolute and links resolved at each generation.
    pub cwd: Option<PathBuf>,
    /// User to run as (name or number).
    pub user: Option<String>,
    /// Group to run as (name or number).
    pub group: Option<String>,
    /// File mode mask of the workers.
    pub umask: Option<u32>,
    /// When every worker is replaced, as a cron expression in local time.
    pub cron_restart: Option<String>,
    /// Files whose change has every worker replaced.
    pub watch: Option<Watch>,
    /// What happens when a worker dies.
    pub restart: Restart,
    /// How a reload goes.
    pub reload: Reload,
    /// Commands to run when something happens; none is empty.
    pub hooks: BTreeMap<hooks::HookEvent, Vec<String>>,
    /// What a worker may use.
    pub limits: Limits,
    /// The process beside the workers.
    pub agent: Option<agent::Agent>,
    /// Where output goes.
    pub log: log::Log,
    /// Put `name/slot | ` before each line of output.
    pub prefix: bool,
}

/// Number of workers as typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workers {
    /// This many.
    Exactly(u32),
    /// The CPUs that this process may use, less this many (at least one worker).
    MaxMinus(u32),
    /// This share of the CPUs, rounded up (at least one worker).
    Percent(u32),
}

/// Where to listen.
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

/// Who gets the next connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// The master accepts and hands off to the worker with the fewest open hand-offs.
    RoundRobin,
    /// The same client address goes to the same slot.
    Sticky,
    /// Every worker gets the listening socket itself.
    Shared,
    /// Every slot has a listening socket of its own; the kernel chooses among them.
    Kernel,
}

/// How a command takes its sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `Node` where the program is node, else `ListenFds` when something is configured to listen, else `None`.
    Auto,
    /// Node's cluster protocol.
    Node,
    /// systemd's socket passing.
    ListenFds,
    /// No socket at all.
    None,
}

/// What makes a worker ready.
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

/// What a worker can say of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// Node's `listening`.
    Listening,
    /// `process.send('ready')`.
    Message,
    /// `READY=1` on `NOTIFY_SOCKET`.
    Notify,
}

/// What happens when a worker dies. Failures are counted per slot in a sliding window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restart {
    /// A worker that lived shorter has failed at start; its slot waits before the next.
    pub min_uptime: Duration,
    /// Failures within `window` that make the slot `errored`; `None`: never give up.
    pub max_restarts: Option<u32>,
    /// Length of the sliding window.
    pub window: Duration,
    /// Wait after the first failure in a row.
    pub backoff_first: Duration,
    /// Wait after the second; it doubles.
    pub backoff_min: Duration,
    /// Longest wait.
    pub backoff_max: Duration,
    /// Least wait after any end that nobody asked for.
    pub delay: Duration,
    /// Ends that nobody asked for after which the slot is left empty; `None`: no number of them.
    pub max_runs: Option<u32>,
    /// Exit codes after which the slot is stopped, not refilled.
    pub stop_exit_codes: Vec<i32>,
}

/// Which files are watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    /// Absolute; none: the folder of the app.
    pub paths: Vec<PathBuf>,
    /// What does not count, as lines of a `.gitignore`.
    pub ignore: Vec<String>,
    /// A change is acted on when none came for so long.
    pub delay: Duration,
}

/// What a worker may use before it is replaced, or killed (`hang`). `None`: as much as it likes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Resident memory, in bytes.
    pub memory: Option<u64>,
    /// Time since its start.
    pub lifetime: Option<Duration>,
    /// Connections that were handed to it.
    pub max_connections: Option<u64>,
    /// Time in which its event loop has to answer.
    pub hang: Option<Duration>,
    /// A report and SIGABRT come first.
    pub hang_report: bool,
    /// Where the report goes, as typed; `None`: where Node puts it.
    pub hang_report_dir: Option<String>,
}

/// How a reload goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reload {
    /// How many slots are replaced at a time.
    pub surge: u32,
    /// The first new worker is watched for so long before the rest follows.
    pub canary: Duration,
    /// A slot whose old worker had clients holds up the next one for so long.
    pub settle: Duration,
    /// Over this time the old workers' drains reach their deadlines.
    pub drain_spread: Duration,
}

impl App {
    /// The variable that counts up with the slots, and its value in slot 0.
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

impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Balance::RoundRobin => "round-robin",
            Balance::Sticky => "sticky",
            Balance::Shared => "shared",
            Balance::Kernel => "kernel",
        })
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Auto => "auto",
            Protocol::Node => "node",
            Protocol::ListenFds => "listen-fds",
            Protocol::None => "none",
        })
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
    /// The rule that wants this and nothing else.
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
