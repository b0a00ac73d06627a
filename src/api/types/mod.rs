//! The JSON of the control API: answers and bodies of requests, shared by server, command line and master. `routes` has
//! the paths.
//!
//! Fields are stable: they may be added, never renamed or removed (`tests.rs` has the text of each).
#[cfg(test)]
mod tests;
mod words;

pub use words::{
    AgentState, AppStatus, Balance, BeforeState, EventType, LogFormat, Protocol, ReleaseState, ScaleBy, Steering,
    WorkerState,
};

use crate::config::log as domain;
use crate::config::sources::Sources;
use crate::os::user::Credentials;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// `GET /v1/apps`: everything that one master runs. Fields with a default are missing in `ls --json` for a deployment
/// that is gone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Deployment {
    /// The deployment's name: its control socket is `NAME.sock`.
    pub name: String,
    /// Version of clusterd that runs it: the master's.
    #[serde(default)]
    pub version: String,
    /// Pid that signals go to.
    #[serde(default)]
    pub keeper_pid: i32,
    /// Version of the keeper; "" if it does not report one.
    #[serde(default)]
    pub keeper_version: String,
    /// Pid of the current master.
    #[serde(default)]
    pub master_pid: i32,
    /// Number of times the master was restarted.
    #[serde(default)]
    pub master_restarts: u32,
    /// Time since the deployment started, in milliseconds.
    #[serde(default)]
    pub uptime_ms: u64,
    /// The last upgrade.
    #[serde(default)]
    pub upgrade: Option<Upgrade>,
    /// The deployment stays when its apps stop, and they can be started again.
    #[serde(default)]
    pub background: bool,
    /// Its configuration file.
    #[serde(default)]
    pub config: Option<String>,
    /// Where the control API is over TCP: `http://127.0.0.1:9615`.
    #[serde(default)]
    pub control: Option<String>,
    /// Whether there is a page for browsers.
    #[serde(default)]
    pub page: bool,
    pub apps: Vec<App>,
}

/// An upgrade in place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Upgrade {
    /// Counts them, from 1.
    pub number: u32,
    /// Whether the new binary serves; absent while that is not known.
    pub ok: Option<bool>,
    /// Whether the keeper runs the new binary too; absent while that is not known. Known after `ok`.
    #[serde(default)]
    pub keeper: Option<bool>,
    /// The same, for people.
    pub message: String,
}

/// Body of `POST /v1/upgrade`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpgradeRequest {
    /// Absolute path of the new binary.
    pub binary: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct App {
    pub name: String,
    /// Its id in the home, which commands accept as well; absent without a home.
    #[serde(default)]
    pub id: Option<u32>,
    #[serde(default)]
    pub namespace: String,
    /// The working directory of its workers, links resolved.
    #[serde(default)]
    pub cwd: String,
    pub status: AppStatus,
    /// The command and its arguments.
    pub command: Vec<String>,
    /// How many workers shall serve.
    pub workers_wanted: u32,
    /// How many serve.
    pub workers_ready: u32,
    /// How the number of workers follows the load; absent: it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<Autoscale>,
    /// How many more shall be ready without connections.
    #[serde(default)]
    pub spares_wanted: u32,
    /// How many are.
    #[serde(default)]
    pub spares_ready: u32,
    /// Counts reloads, from 1.
    pub generation: u32,
    /// How connections are distributed.
    pub balance: Balance,
    /// `balance` as configured; empty for an older master.
    #[serde(default)]
    pub balance_typed: Balance,
    /// With `auto`: why it means `balance` here; absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balance_why: Option<String>,
    /// With balance `kernel`: how the kernel chooses among the workers.
    #[serde(default)]
    pub steering: Option<Steering>,
    /// How its workers get their sockets.
    pub protocol: Protocol,
    /// What makes its workers ready: `listening`, `http:/healthz`, `2s`; empty for an older master.
    #[serde(default)]
    pub ready: String,
    /// Bound addresses, with the assigned port where 0 was requested.
    pub listen: Vec<String>,
    /// Replacements of workers whose end was not requested.
    pub restarts: u64,
    /// Connections handed off by this master.
    pub handoffs: u64,
    /// Kept connections that moved to another worker, under this master.
    #[serde(default)]
    pub moved: u64,
    /// Who its workers run as; absent: as clusterd itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<User>,
    /// What its metrics count beyond that.
    #[serde(default)]
    pub counters: Counters,
    /// What is watched for changes, empty: its folder; absent: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watch: Option<Vec<String>>,
    /// When its workers are replaced; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron_restart: Option<String>,
    /// The memory from which on a worker is replaced; absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_limit_bytes: Option<u64>,
    /// Whether its workers have a stdin that lines can be sent to.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stdin: bool,
    /// The other limits of a worker; absent: none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub limits: Limits,
    /// The last warning that was logged about it, by the present master; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
    /// The files for its output.
    #[serde(default)]
    pub log: Log,
    /// Lost lines of its output (a full disk).
    #[serde(default)]
    pub log_lines_dropped: u64,
    /// Its slots, in order; a slot that is being replaced has two rows.
    pub workers: Vec<Worker>,
    /// The agent; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<Agent>,
    /// The command before its workers; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Before>,
    /// The apps that have to be ready before it starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<String>,
    /// Those of them that it waits for now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits_for: Vec<String>,
}

/// How the number of an app's workers follows its load.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Autoscale {
    /// Never fewer workers, but for its schedule.
    pub min: u32,
    /// Never more.
    pub max: u32,
    pub by: ScaleBy,
    /// The load that one worker should have: a share of a CPU, or waiting connections.
    pub target: f64,
    /// The load that one has, on average; absent while it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load: Option<f64>,
    /// A person has set the number, and it stays.
    pub by_hand: bool,
    /// Why the number changed last, for people: "from 2 to 4 workers: cpu use 93%, target 70%".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_change: Option<String>,
    /// How long ago that was, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_change_ms_ago: Option<u64>,
}

/// Counts of an app, for `/metrics`. Those of connections and output begin with each master.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// Connections that the master accepted.
    pub accepted: u64,
    /// Hand-offs that workers refused; the connections went to others.
    pub refused: u64,
    /// Connections taken from where nobody would have served them: a stuck worker's queue, a killed process.
    pub rescued: u64,
    /// Connections that wait in the master for a worker now.
    pub waiting: u64,
    /// Time from the accept to the worker that took the connection; absent where the master does not accept.
    pub handover: Option<Histogram>,
    /// How long event loops let a ping or hand-off wait, once a second for each worker that serves; absent for workers other
    /// than Node's.
    pub loop_delay: Option<Histogram>,
    /// Bytes of its output that were written to log files.
    pub log_bytes: u64,
    /// Restarts by cause, across masters.
    pub restarts: BTreeMap<String, u64>,
    /// Workers that were replaced for a limit, by limit, across masters.
    pub replaced: BTreeMap<String, u64>,
    /// Reloads by outcome, across masters.
    pub reloads: BTreeMap<String, u64>,
}

/// Counts of events by their time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Histogram {
    /// Upper bounds of the buckets, inclusive, in microseconds; a last bucket has none.
    pub bounds_us: Vec<u64>,
    /// The events in each bucket; one more than bounds.
    pub counts: Vec<u64>,
    /// All times together, in microseconds.
    pub sum_us: u64,
}

/// When a worker is replaced, and when its slot is given up; absent: never.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Its age, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifetime_ms: Option<u64>,
    /// Connections that it took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u64>,
    /// How long its event loop may stand still, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hang_ms: Option<u64>,
    /// Failures within the window, after which a slot stays empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_restarts: Option<u32>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The user of an app's workers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Ids of supplementary groups.
    pub groups: Vec<u32>,
}

impl From<&Credentials> for User {
    fn from(who: &Credentials) -> User {
        User { uid: who.uid, gid: who.gid, groups: who.groups.clone() }
    }
}

impl From<&User> for Credentials {
    fn from(user: &User) -> Credentials {
        Credentials { uid: user.uid, gid: user.gid, groups: user.groups.clone() }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Agent {
    pub command: Vec<String>,
    /// `node`: it has a channel and gets messages; or `none`.
    pub protocol: Protocol,
    /// Its id, of those of the workers; absent while it has no process.
    pub id: Option<u64>,
    /// Process id; absent while there is no process.
    pub pid: Option<i32>,
    pub state: AgentState,
    pub generation: u32,
    /// Time since it was spawned, in milliseconds.
    pub uptime_ms: Option<u64>,
    /// Restarts after an end that was not requested.
    pub restarts: u64,
    /// Remaining time in milliseconds: to get ready, to end after SIGTERM; while it waits, until the next start.
    #[serde(default)]
    pub time_left_ms: Option<u64>,
    /// Resident memory in bytes, where it can be read.
    pub memory_bytes: Option<u64>,
    /// CPU time used so far in milliseconds, where it can be read.
    pub cpu_ms: Option<u64>,
    /// Messages lost because it did not read, since this master began.
    #[serde(default)]
    pub messages_lost: u64,
    /// The last event, for people.
    pub note: Option<String>,
}

/// The command that runs before the workers of each generation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Before {
    pub command: Vec<String>,
    pub state: BeforeState,
    /// The generation that it runs for, or ran for last.
    pub generation: u32,
    /// Its id, of those of the workers; absent while it does not run.
    pub id: Option<u64>,
    /// Process id; absent while it does not run.
    pub pid: Option<i32>,
    /// Time since it was started, in milliseconds.
    pub uptime_ms: Option<u64>,
    /// Remaining time in milliseconds: to end; while it waits, until the next try.
    pub time_left_ms: Option<u64>,
    /// How it failed, for people.
    pub note: Option<String>,
}

/// `GET /v1/apps/NAME/releases`: the generations of an app that ran, the last one first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Releases {
    pub releases: Vec<Release>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Release {
    pub generation: u32,
    /// When it began, in milliseconds since 1970.
    pub at_ms: u64,
    /// The folder of its workers, links resolved.
    pub folder: String,
    /// Its command, for people.
    pub command: String,
    pub state: ReleaseState,
    /// It is a roll-back to this generation; absent: it is none.
    pub back_to: Option<u32>,
    /// Why it failed.
    pub reason: Option<String>,
}

/// Body of `POST /v1/apps/NAME/rollback`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RollbackRequest {
    /// To this generation; absent: to the one before that which serves.
    pub to: Option<u32>,
}

/// The targets of an app's output.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Log {
    /// Absolute path of the file of stdout; absent: clusterd's own stdout; `NULL`: nowhere.
    pub out: Option<String>,
    /// The same of stderr.
    pub err: Option<String>,
    /// Absolute path of a file that gets both streams, beside files of their own.
    pub both: Option<String>,
    /// Each slot has its own files, with the slot before the ending (`web-out-0.log`).
    pub per_worker: bool,
    /// The form of its lines.
    pub format: LogFormat,
    /// Format of the timestamps (strftime); absent: none, or the default of JSON.
    pub time: Option<String>,
}

impl From<&domain::Log> for Log {
    fn from(log: &domain::Log) -> Log {
        let text = |target: &domain::Target| match target {
            domain::Target::Inherit => None,
            domain::Target::Null => Some(NULL.to_owned()),
            domain::Target::File(path) => Some(path.display().to_string()),
        };
        Log {
            out: text(&log.out),
            err: text(&log.err),
            both: log.both.as_ref().map(|path| path.display().to_string()),
            per_worker: log.per_worker,
            format: match log.format {
                domain::Format::Plain => LogFormat::Plain,
                domain::Format::Json => LogFormat::Json,
            },
            time: log.time.clone(),
        }
    }
}

impl From<&Log> for domain::Log {
    /// The rotation is not part of the wire format.
    fn from(log: &Log) -> domain::Log {
        let target = |text: &Option<String>| match text.as_deref() {
            None => domain::Target::Inherit,
            Some(NULL) => domain::Target::Null,
            Some(path) => domain::Target::File(PathBuf::from(path)),
        };
        domain::Log {
            out: target(&log.out),
            err: target(&log.err),
            both: log.both.as_ref().map(PathBuf::from),
            per_worker: log.per_worker,
            format: match log.format {
                LogFormat::Json => domain::Format::Json,
                LogFormat::Plain | LogFormat::Unknown => domain::Format::Plain,
            },
            time: log.time.clone(),
            ..domain::Log::default()
        }
    }
}

/// A log that is discarded.
const NULL: &str = "NULL";

/// One worker, or a slot without one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Worker {
    /// Slot, from 0.
    pub slot: u32,
    /// Worker id; absent for a slot without a worker.
    pub id: Option<u64>,
    /// Process id; absent while there is no process.
    pub pid: Option<i32>,
    /// State of the worker, or of the slot.
    pub state: WorkerState,
    pub generation: u32,
    /// Time since it was spawned, in milliseconds.
    pub uptime_ms: Option<u64>,
    /// Replacements in this slot after an end that was not requested.
    pub restarts: u64,
    /// Open hand-offs.
    pub open_handoffs: u32,
    /// Connections that it took from this master.
    pub handoffs: u64,
    /// Remaining time in milliseconds: to get ready, to drain, to end after SIGTERM; for a slot that waits, until the
    /// next try.
    #[serde(default)]
    pub time_left_ms: Option<u64>,
    /// Connections that the kernel gave to its slot under this master, if the kernel counts them (steering `turns`).
    #[serde(default)]
    pub steered: Option<u64>,
    /// Resident memory in bytes, where it can be read.
    pub memory_bytes: Option<u64>,
    /// CPU time used so far in milliseconds, where it can be read.
    pub cpu_ms: Option<u64>,
    /// How long its event loop took to read the last ping or answer the last hand-off, in milliseconds; or the age of
    /// an unread one, if that is longer. Node workers only; about 1 when idle.
    #[serde(default)]
    pub loop_delay_ms: Option<f64>,
    /// Messages (of apps with an agent) lost because it did not read, since this master began.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub messages_lost: u64,
    /// The actions that it offers (`@pm2/io`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub actions: Vec<String>,
    /// What it measures itself (`@pm2/io`), by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub custom_metrics: BTreeMap<String, CustomMetric>,
    /// Why it is not ready yet, if known: "GET /healthz was answered with 503".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_yet: Option<String>,
    /// The last event, for people: "exited with code 1 after 12 s".
    pub note: Option<String>,
}

/// A value that a worker measures itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CustomMetric {
    /// A number, a text or a boolean.
    pub value: serde_json::Value,
    /// As the app names it; may be empty.
    #[serde(default)]
    pub unit: String,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// One line of `GET /v1/events`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Grows with each event, also from one master to the next.
    pub id: u64,
    /// When it happened, in milliseconds since 1970.
    pub at_ms: u64,
    #[serde(rename = "type")]
    pub kind: EventType,
    /// The app that it concerns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<u32>,
    /// The id of the worker, or agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u32>,
    /// The same, for people.
    pub message: String,
}

impl Event {
    /// An event of this type that says nothing yet.
    pub fn of(kind: EventType) -> Event {
        Event {
            id: 0,
            at_ms: 0,
            kind,
            app: None,
            slot: None,
            worker: None,
            pid: None,
            generation: None,
            message: String::new(),
        }
    }
}

/// Body of `POST /v1/apps/NAME/scale`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScaleRequest {
    /// `4`, `+3`, `-1`, `max`, `50%`.
    pub workers: String,
}

/// Body of `POST /v1/apps/NAME/reload`, `/start` and `/restart`. An empty body means the original command line, with
/// its files read again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Change {
    /// The new environment to which apps add theirs.
    pub env: Option<BTreeMap<String, String>>,
    /// The new command line and the content of its files.
    pub sources: Option<Box<Sources>>,
}

/// Body of `POST /v1/apps/NAME/signal`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignalRequest {
    /// `SIGUSR2`, `USR2` or `12`.
    pub signal: String,
    /// Only to the worker in this slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<u32>,
}

/// Body of `POST /v1/apps/NAME/replace`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplaceRequest {
    /// The slot of the worker.
    pub slot: u32,
}

/// Body of `POST /v1/apps/NAME/send`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SendRequest {
    /// Without its end.
    pub line: String,
    /// The worker's slot; absent: every worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<u32>,
}

/// Body of `POST /v1/apps/NAME/trigger`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TriggerRequest {
    pub action: String,
    /// What the action gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameter: Option<String>,
    /// The worker's slot; absent: every worker that has the action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<u32>,
}

/// Body of `POST /v1/apps/NAME/profile`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileRequest {
    pub kind: ProfileKind,
    /// How long CPU time is looked at, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_ms: Option<u64>,
    /// The worker's slot; absent: the only worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<u32>,
    /// Absolute path of the file that the worker writes; absent: one in its folder for temporary files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

/// What a profile looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProfileKind {
    Cpu,
    Heap,
}

impl ProfileKind {
    /// The ending of its files, by which programs that show them know it.
    pub fn ending(self) -> &'static str {
        match self {
            ProfileKind::Cpu => "cpuprofile",
            ProfileKind::Heap => "heapsnapshot",
        }
    }
}

/// Answer to `GET /v1/apps/NAME/env`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// Every variable of a worker, by name.
    pub env: BTreeMap<String, String>,
}

/// Body of `POST /v1/apps/NAME/stop` and `POST /v1/stop`. An empty body means the defaults.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StopRequest {
    /// Do not drain.
    pub now: bool,
}

/// Answer to every request that changes something.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// Whether it worked.
    pub ok: bool,
    /// One sentence for people.
    pub message: String,
    /// What was logged as a warning meanwhile.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Answer to every request that failed (status 4xx or 5xx).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// What failed, and what to do.
    pub error: String,
    /// The last lines of the worker that made a reload fail.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub output: Vec<String>,
    /// What was logged as a warning meanwhile.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}
