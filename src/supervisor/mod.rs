//! The rules of supervision, pure: an [`Event`] and the time go in, [`Action`]s come out. One [`App`] is one app.
//!
//! No fd, no clock, no OS crate. The shell (`master`) turns readiness of fds into events and actions into system calls;
//! the simulation in `tests/` does the same with a seeded world under virtual time.
//!
//! ```text
//! starting -> online -> ready -> draining -> stopping -> exited      (slot: + waiting (backoff), errored, stopped)
//! ```
mod agent;
mod app;
mod cause;
mod limits;
mod news;
mod reload;
mod scale;
mod slot;
mod snapshot;
mod start;
mod timers;
mod worker;

pub use agent::AgentPolicy;
pub use app::{App, Cx};
pub use limits::{Excess, Limits};
pub use slot::{SlotPhase, SlotView};
pub use snapshot::{AgentSnapshot, AppSnapshot, ReloadSnapshot, SlotSnapshot, WorkerSnapshot};
pub use worker::{Phase, WorkerView};

use crate::ids::{Generation, Slot, WorkerId};

/// What the supervisor has to know of an app's configuration. One per generation. Times are in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// What makes a worker ready.
    pub ready: ReadyRule,
    /// A worker that is not ready by then has failed.
    pub ready_timeout_ms: u64,
    /// A draining worker is asked to end after this.
    pub drain_timeout_ms: u64,
    /// SIGKILL follows SIGTERM after this.
    pub kill_timeout_ms: u64,
    /// A worker that lived shorter has failed young.
    pub min_uptime_ms: u64,
    /// Young failures within the window that make a slot errored; `None`: never.
    pub max_restarts: Option<u32>,
    /// Length of the sliding window.
    pub window_ms: u64,
    /// The wait after the first young failure in a row.
    pub backoff_first_ms: u64,
    /// The wait after the second; it doubles from there.
    pub backoff_min_ms: u64,
    /// Longest wait of the backoff.
    pub backoff_max_ms: u64,
    /// The least wait before any worker that follows one whose end nobody asked for.
    pub restart_delay_ms: u64,
    /// Ends that nobody asked for after which a slot is left empty; `None`: no number of them.
    pub max_runs: Option<u32>,
    /// Exit codes after which a slot is left empty.
    pub stop_exit_codes: Vec<i32>,
    /// Slots that a reload replaces at a time.
    pub surge: u32,
    /// The first new worker of a reload is watched for so long, beside the old one, before the rest follows.
    pub canary_ms: u64,
    /// A slot whose old worker had clients holds up the next one of a reload for so long.
    pub settle_ms: u64,
    /// Over this time the drains of a reload reach their deadlines, slot after slot.
    pub drain_spread_ms: u64,
    /// What a worker may use.
    pub limits: Limits,
    /// The one process beside the workers, where there is one.
    pub agent: Option<AgentPolicy>,
}

/// A worker is ready when the evidence arrives, or when it has lived so long, whichever is set and comes first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadyRule {
    /// What it has to show.
    pub evidence: Option<Evidence>,
    /// How long it has to live.
    pub after_ms: Option<u64>,
}

/// What a worker can show for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// Node's `listening`.
    Listening,
    /// `process.send('ready')`.
    Message,
    /// `READY=1`.
    Notify,
    /// It answered an HTTP request well.
    Http,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// It returned this code.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
}

/// What happened in the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The program of this worker runs.
    Spawned { worker: WorkerId, pid: i32 },
    /// It could not be started; nothing of it is left.
    SpawnFailed { worker: WorkerId, reason: String },
    /// Node has bootstrapped.
    Online { worker: WorkerId },
    /// The worker showed something that may make it ready.
    Evidence { worker: WorkerId, evidence: Evidence },
    /// The worker is not ready yet for a reason that is known: told when it never will be.
    NotYet { worker: WorkerId, why: String },
    /// The worker has closed its last server.
    ServersClosed { worker: WorkerId },
    /// The worker serves (again).
    ServersOpen { worker: WorkerId },
    /// The channel closed, or broke, while the process lives as far as we know.
    ChannelClosed { worker: WorkerId },
    /// The worker said that it leaves on purpose.
    Leaving { worker: WorkerId },
    /// The worker broke the protocol: it alone is failed.
    Misbehaved { worker: WorkerId, reason: String },
    /// The worker has passed a limit: another one shall take its place. Asked again as long as that holds.
    Replace { worker: WorkerId, excess: Excess },
    /// The worker's event loop has not turned for as long as the limits say.
    Hung { worker: WorkerId },
    /// The app had clients when this worker was sent into its drain: its own will come back to others.
    HasClients { worker: WorkerId },
    /// The worker holds no connection that came through us and will get none.
    Drained { worker: WorkerId },
    /// The process ended. `at_ms`: when.
    Exited { worker: WorkerId, status: ExitStatus, at_ms: u64 },
    /// Replace every worker by one of this generation, one after the other; go to `slots` slots when it has worked.
    Reload { to: Generation, policy: Policy, slots: u32 },
    /// Go to so many slots.
    Scale { slots: u32 },
    /// Stop what runs, if anything does, then start with this generation in so many slots.
    Start { to: Generation, policy: Policy, slots: u32 },
    /// End: gracefully, or without a drain.
    Stop { now: bool },
}

impl Event {
    /// The process that it is about.
    pub fn worker(&self) -> Option<WorkerId> {
        match *self {
            Event::Spawned { worker, .. }
            | Event::SpawnFailed { worker, .. }
            | Event::Online { worker }
            | Event::Evidence { worker, .. }
            | Event::NotYet { worker, .. }
            | Event::ServersClosed { worker }
            | Event::ServersOpen { worker }
            | Event::ChannelClosed { worker }
            | Event::Leaving { worker }
            | Event::Misbehaved { worker, .. }
            | Event::Replace { worker, .. }
            | Event::Hung { worker }
            | Event::HasClients { worker }
            | Event::Drained { worker }
            | Event::Exited { worker, .. } => Some(worker),
            Event::Reload { .. } | Event::Scale { .. } | Event::Start { .. } | Event::Stop { .. } => None,
        }
    }
}

/// What the shell has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start a process for this slot; the agent's is [`Slot::AGENT`].
    Spawn { worker: WorkerId, slot: Slot, generation: Generation },
    /// Give it connections from now on.
    Serve { worker: WorkerId },
    /// No new connections; wait for the open hand-offs; say goodbye; report `Drained` when it holds nothing more.
    Drain { worker: WorkerId },
    /// Send SIGTERM to the process.
    Terminate { worker: WorkerId },
    /// Have the process leave a report (in `HANG_REPORT_MS`), then send it SIGABRT.
    Abort { worker: WorkerId },
    /// Send SIGKILL to its process group.
    Kill { worker: WorkerId },
    /// Tell the people.
    Report(Report),
}

/// What people (and waiting commands) want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// A worker became ready, `after_ms` after its spawn.
    WorkerReady { worker: WorkerId, slot: Slot, after_ms: u64 },
    /// Every slot is ready for the first time (or again after it had none).
    AppReady { workers: u32 },
    /// A worker's end that nobody asked for, and what became of its slot.
    WorkerDied { worker: WorkerId, slot: Slot, pid: Option<i32>, cause: Cause, lived_ms: u64, next: Next },
    /// A worker that had been asked to leave is gone.
    WorkerLeft { worker: WorkerId, slot: Slot, pid: Option<i32>, status: ExitStatus, killed: bool, lived_ms: u64 },
    /// A worker left by itself; its replacement is on the way.
    WorkerLeaving { worker: WorkerId, slot: Slot },
    /// A worker has passed a limit; its replacement is on the way.
    Replacing { worker: WorkerId, slot: Slot, pid: Option<i32>, excess: Excess },
    /// A draining worker did not end in time and got SIGTERM, or SIGKILL (`kill`).
    Overdue { worker: WorkerId, slot: Slot, kill: bool },
    /// The agent became ready, `after_ms` after its spawn.
    AgentReady { agent: WorkerId, pid: Option<i32>, after_ms: u64 },
    /// An agent's end that nobody asked for, and when the next one starts.
    AgentDied { agent: WorkerId, pid: Option<i32>, cause: Cause, lived_ms: u64, next: Next },
    /// An agent that had been asked to end is gone.
    AgentLeft { agent: WorkerId, pid: Option<i32>, status: ExitStatus, killed: bool },
    /// An agent did not end in time and got SIGKILL.
    AgentOverdue { agent: WorkerId },
    /// A reload began.
    ReloadStarted { to: Generation },
    /// The first worker of the new generation is ready and is watched before the others follow.
    CanaryWatched { worker: WorkerId, slot: Slot, for_ms: u64 },
    /// The new generation serves alone.
    ReloadDone { to: Generation },
    /// The reload failed and the old generation serves (again).
    ReloadFailed { to: Generation, reason: String },
    /// A reload that waited was replaced by a later one, `by`.
    ReloadSuperseded { to: Generation, by: Generation },
    /// The app has so many slots from now on.
    Scaled { slots: u32 },
    /// Every slot is errored: nothing serves.
    AppErrored,
    /// Every slot was left empty by `stop_exit_codes` or `max_runs`.
    AppFinished,
    /// A stop has ended: no worker is left.
    AppStopped,
    /// The workers of a start are on their way; of what ran before none is left.
    Started { to: Generation },
    /// A start that waited for the stop before it will not come: the app is to stay stopped.
    StartDropped { to: Generation },
    /// A start that waited for the stop before it was replaced by a later one.
    StartSuperseded { to: Generation },
}

/// Why a worker was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Its process ended.
    Ended(ExitStatus),
    /// It could not be started.
    NotStarted(String),
    /// It did not become ready in this time (ms), for this reason where one is known.
    NotReady { ms: u64, why: Option<String> },
    /// It broke the protocol.
    Misbehaved(String),
    /// Its event loop did not turn for this time (ms).
    Hung(u64),
}

/// What becomes of a slot whose worker was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// A replacement was spawned, this long (ms) after the death.
    Replaced { after_ms: u64 },
    /// The replacement waits for this long (ms); `failures` young deaths of `max` in the window.
    Waiting { ms: u64, failures: u32, max: Option<u32> },
    /// Too many failures: the slot stays empty.
    Errored { failures: u32 },
    /// The exit code says: do not restart.
    Stopped,
    /// It was the last of `max_runs`; `failed`: and it did not end well.
    LastRun { runs: u32, failed: bool },
    /// The app is stopping, or a reload is about to fill the slot.
    None,
}
