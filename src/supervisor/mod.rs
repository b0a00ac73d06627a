//! The rules of supervision, pure: an [`Event`] and the time go in, [`Action`]s come out. One [`App`] for each app.
//!
//! No fd, no clock, no OS crate. The shell (`master`) turns readiness of fds into events and actions into system calls;
//! the simulation in `tests/` does the same with a seeded world under virtual time.
//!
//! ```text
//! starting -> online -> ready -> draining -> stopping -> exited      (slot: + waiting (backoff), errored, stopped)
//! ```
mod agent;
mod app;
mod autoscale;
mod before;
mod canary;
mod cause;
mod drain;
mod limits;
mod readiness;
mod reload;
mod repeats;
mod scale;
mod slot;
mod snapshot;
mod spares;
mod spawn_failures;
mod start;
mod timers;
mod worker;

pub use agent::AgentPolicy;
pub use app::{App, Cx};
pub use autoscale::{Autoscaler, AutoscalerSnapshot, LoadSample, Measure, ScaleChange, ScaleReason, ScaleRule};
pub use before::{BeforePolicy, BeforeView};
pub use canary::{CanaryAmount, CanaryFigure, CanaryFigures, CanaryVerdict, CanaryWorse, judge_canary};
pub use drain::KeptConnections;
pub use limits::{Excess, Limits};
pub use reload::RELOAD_GONE_MS_MAX;
pub use slot::{SlotPhase, SlotView};
#[cfg(test)]
pub(crate) use snapshot::FALLBACK_POLICY;
pub use snapshot::{AgentSnapshot, AppSnapshot, BeforeSnapshot, ReloadSnapshot, SlotSnapshot, WorkerSnapshot};
pub use spawn_failures::Obstacle;
pub use worker::{CHANNEL_CLOSED_STARTING_MS, Phase, WorkerView};

use crate::ids::{Generation, Slot, WorkerId};

/// The part of an app's configuration that the supervisor needs; one per generation. Times are in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The rule for a worker's readiness.
    pub ready: ReadyRule,
    /// A worker that is not ready by then has failed.
    pub ready_timeout_ms: u64,
    /// Its app is warmed up: a worker that is ready is asked some requests before it serves. It has `ready_timeout_ms` for that.
    pub warms_up: bool,
    /// A draining worker gets SIGTERM after this.
    pub drain_timeout_ms: u64,
    /// SIGKILL follows SIGTERM after this.
    pub kill_timeout_ms: u64,
    /// A worker that lived for less time died young.
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
    /// Least wait before the replacement of a worker whose end was not requested.
    pub restart_delay_ms: u64,
    /// Unrequested ends after which a slot is left empty; `None`: no limit.
    pub max_runs: Option<u32>,
    /// Exit codes after which a slot is left empty.
    pub stop_exit_codes: Vec<i32>,
    /// Workers that are started beside the wanted ones and held back until another one is lost.
    pub spares: u32,
    /// Slots that a reload replaces at a time.
    pub surge: u32,
    /// Two workers may run in one slot: a new one starts beside the old one, which drains once the new one is ready.
    pub overlap: bool,
    /// How long the first new worker of a reload is watched, beside the old one, before the others follow.
    pub canary_ms: u64,
    /// How long a slot whose old worker had clients delays the next slot of a reload.
    pub settle_ms: u64,
    /// The drain deadlines of a reload are spread over this time, slot after slot.
    pub drain_spread_ms: u64,
    pub limits: Limits,
    /// The agent, if the app has one.
    pub agent: Option<AgentPolicy>,
    /// The command that runs once before the workers of the generation, if there is one.
    pub before: Option<BeforePolicy>,
}

/// A worker is ready when the evidence arrives or when it has lived for a time; where both are set, whichever comes
/// first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadyRule {
    /// The evidence, if any counts.
    pub evidence: Option<Evidence>,
    /// How long it has to live, if that counts.
    pub after_ms: Option<u64>,
}

/// Evidence that a worker is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// Node's `listening`.
    Listening,
    /// `process.send('ready')`.
    Message,
    /// `READY=1`.
    Notify,
    /// A good answer to an HTTP request.
    Http,
}

/// What made a worker ready. Saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadyBy {
    /// The evidence of its rule.
    Evidence,
    /// Its age: the evidence has not come.
    Age,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// It returned this code.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
    /// The kernel killed it (SIGKILL), because the app's cgroup was out of memory.
    OutOfMemory,
}

/// An event for the supervisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The worker's program is running.
    Spawned { worker: WorkerId, pid: i32 },
    /// The worker could not be started; no process is left.
    SpawnFailed { worker: WorkerId, reason: String, obstacle: Obstacle },
    /// Node has started in the worker.
    Online { worker: WorkerId },
    /// Evidence of the worker's readiness.
    Evidence { worker: WorkerId, evidence: Evidence },
    /// Why the worker is not ready yet; reported if it never gets ready.
    NotYet { worker: WorkerId, why: String },
    /// The worker has answered its warm-up.
    Warmed { worker: WorkerId },
    /// The worker has closed its last server.
    ServersClosed { worker: WorkerId },
    /// The worker serves (again).
    ServersOpen { worker: WorkerId },
    /// The channel closed, or broke, while the process is believed to live.
    ChannelClosed { worker: WorkerId },
    /// The worker announced that it leaves.
    Leaving { worker: WorkerId },
    /// The worker broke the protocol: it fails, and no other worker is affected.
    Misbehaved { worker: WorkerId, reason: String },
    /// The worker has passed a limit and is to be replaced. Repeated as long as that holds.
    Replace { worker: WorkerId, excess: Excess },
    /// The worker's event loop was stuck for longer than its limit.
    Hung { worker: WorkerId },
    /// The app had clients when this worker's drain began: they will reconnect to other workers.
    HasClients { worker: WorkerId },
    /// The worker holds no connection that came through us and gets no more.
    Drained { worker: WorkerId },
    /// The canary time is over, and the worker was compared with those of the old generation.
    CanaryJudged { worker: WorkerId, worse: Option<CanaryWorse> },
    /// The process ended at `at_ms`.
    Exited { worker: WorkerId, status: ExitStatus, at_ms: u64 },
    /// Replace every worker by one of this generation, one after the other; then change to `slots` slots. Slots of
    /// spares are not counted, here and below.
    Reload { to: Generation, policy: Policy, slots: u32 },
    /// Start nothing of this generation, which a reload is about to bring, until it is admitted.
    Hold { generation: Generation },
    /// What the generation waited for is there.
    Admit { generation: Generation },
    /// What it waited for will not come.
    Abandon { generation: Generation, reason: String },
    /// Change to this number of slots.
    Scale { slots: u32 },
    /// Stop what runs, if anything does, then start this generation with this number of slots.
    Start { to: Generation, policy: Policy, slots: u32 },
    /// Stop: gracefully, or without a drain.
    Stop { now: bool },
}

impl Event {
    /// The process that the event concerns.
    pub fn worker(&self) -> Option<WorkerId> {
        match *self {
            Event::Spawned { worker, .. }
            | Event::SpawnFailed { worker, .. }
            | Event::Online { worker }
            | Event::Evidence { worker, .. }
            | Event::NotYet { worker, .. }
            | Event::Warmed { worker }
            | Event::ServersClosed { worker }
            | Event::ServersOpen { worker }
            | Event::ChannelClosed { worker }
            | Event::Leaving { worker }
            | Event::Misbehaved { worker, .. }
            | Event::Replace { worker, .. }
            | Event::Hung { worker }
            | Event::HasClients { worker }
            | Event::Drained { worker }
            | Event::CanaryJudged { worker, .. }
            | Event::Exited { worker, .. } => Some(worker),
            Event::Reload { .. }
            | Event::Hold { .. }
            | Event::Admit { .. }
            | Event::Abandon { .. }
            | Event::Scale { .. }
            | Event::Start { .. }
            | Event::Stop { .. } => None,
        }
    }
}

/// An order to the shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start a process for this slot; the agent's is [`Slot::AGENT`], that of the command before the workers [`Slot::BEFORE`].
    Spawn { worker: WorkerId, slot: Slot, generation: Generation },
    /// Ask the worker, which is ready, for its warm-up; report `Warmed` when it has answered all of that.
    WarmUp { worker: WorkerId },
    /// Give the worker connections from now on.
    Serve { worker: WorkerId },
    /// The worker is a canary from now on: take the figures that it will be judged by.
    WatchCanary { worker: WorkerId },
    /// Its time is over: compare it with the workers of the old generation, and report `CanaryJudged`.
    JudgeCanary { worker: WorkerId },
    /// Give the worker no new connections; wait for the open hand-offs; say goodbye; report `Drained` when it holds no
    /// more connections.
    Drain { worker: WorkerId },
    /// Send SIGTERM to the process.
    Terminate { worker: WorkerId },
    /// Let the process leave a report (within `HANG_REPORT_MS`), then send it SIGABRT.
    Abort { worker: WorkerId },
    /// Send SIGKILL to its process group.
    Kill { worker: WorkerId },
    /// Log the report and pass it to whoever waits for it.
    Report(Report),
}

/// A report for people and waiting commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// A worker became ready, `after_ms` after its spawn. A `spare` gets no connections yet.
    WorkerReady { worker: WorkerId, slot: Slot, after_ms: u64, spare: bool, by: ReadyBy },
    /// A spare gets connections from now on.
    SpareServes { worker: WorkerId, slot: Slot },
    /// All wanted workers serve for the first time (or again after the app had no ready worker).
    AppReady { workers: u32 },
    /// An unrequested end of a worker, and what became of its slot.
    WorkerDied { worker: WorkerId, slot: Slot, pid: Option<i32>, cause: Cause, lived_ms: u64, next: Next },
    /// A worker that had been asked to leave is gone.
    WorkerLeft {
        worker: WorkerId,
        slot: Slot,
        pid: Option<i32>,
        status: ExitStatus,
        killed: bool,
        lived_ms: u64,
        /// Nobody had asked it.
        by_itself: bool,
    },
    /// A worker announced that it leaves; its replacement is starting.
    WorkerLeaving { worker: WorkerId, slot: Slot },
    /// A worker has passed a limit; its replacement is starting.
    Replacing { worker: WorkerId, slot: Slot, pid: Option<i32>, excess: Excess },
    /// A draining worker did not end in time and got SIGTERM, or SIGKILL (`kill`).
    Overdue { worker: WorkerId, slot: Slot, kill: bool },
    /// The agent became ready, `after_ms` after its spawn.
    AgentReady { agent: WorkerId, pid: Option<i32>, after_ms: u64 },
    /// An unrequested end of an agent, and when the next one starts.
    AgentDied { agent: WorkerId, pid: Option<i32>, cause: Cause, lived_ms: u64, next: Next },
    /// An agent that had been asked to end is gone.
    AgentLeft { agent: WorkerId, pid: Option<i32>, status: ExitStatus, killed: bool },
    /// An agent did not end in time and got SIGKILL.
    AgentOverdue { agent: WorkerId },
    /// Nothing of this generation starts before it is admitted.
    Held { generation: Generation },
    /// The command before the workers of this generation was started.
    BeforeStarted { process: WorkerId, generation: Generation },
    /// It ended well, `after_ms` after its spawn: the workers start.
    BeforeDone { process: WorkerId, pid: Option<i32>, generation: Generation, after_ms: u64 },
    /// It failed, and when it is tried again.
    BeforeFailed { process: WorkerId, pid: Option<i32>, cause: Cause, lived_ms: u64, next: Next },
    /// A reload began.
    ReloadStarted { to: Generation },
    /// The first worker of the new generation is ready, and is watched before the others follow.
    CanaryWatched { worker: WorkerId, slot: Slot, for_ms: u64 },
    /// Only the new generation serves.
    ReloadDone { to: Generation },
    /// The reload failed; the old generation serves (again).
    ReloadFailed { to: Generation, reason: String },
    /// A reload that waited was replaced by the later reload `by`.
    ReloadSuperseded { to: Generation, by: Generation },
    /// The app has this number of slots from now on.
    Scaled { slots: u32 },
    /// Every slot is errored: the app is down.
    AppErrored,
    /// Every slot was left empty by `stop_exit_codes` or `max_runs`.
    AppFinished,
    /// A stop has ended: no process is left.
    AppStopped,
    /// The workers of a start are starting; no process of the previous run is left.
    Started { to: Generation },
    /// A start that waited for a stop was cancelled: the app stays stopped.
    StartDropped { to: Generation },
    /// A start that waited for a stop was replaced by a later one.
    StartSuperseded { to: Generation },
}

/// Why a worker was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Its process ended.
    Ended(ExitStatus),
    /// It could not be started.
    NotStarted { reason: String, obstacle: Obstacle },
    /// It did not become ready in this time (ms); with the reason, if known.
    NotReady { ms: u64, why: Option<String> },
    /// It broke the protocol.
    Misbehaved(String),
    /// Its event loop was stuck for this time (ms).
    Hung(u64),
    /// It was to end by itself within this time (ms).
    Overran(u64),
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
    /// Another try would fail too: the slot stays empty.
    GivenUp,
    /// The exit code means: do not restart.
    Stopped,
    /// It was the last run of `max_runs`; `failed`: it did not end well.
    LastRun { runs: u32, failed: bool },
    /// The app is stopping, or a reload is about to fill the slot.
    None,
}
