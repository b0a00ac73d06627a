//! What a comparison has found, as plain data: everything that the page and the picture are made from. Nothing here
//! measures and nothing here knows how it is shown.
use serde::{Deserialize, Serialize};

/// One run of the program; a part that was not asked for is `None`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Name and value of what the figures depend on.
    pub(crate) machine: Vec<(String, String)>,
    pub(crate) connections: Option<Connections>,
    pub(crate) changes: Option<Changes>,
}

/// The first part: what a connection costs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Connections {
    pub(crate) clients: usize,
    pub(crate) seconds: f64,
    pub(crate) rows: Vec<Row>,
    pub(crate) missing: Vec<Missing>,
}

/// What was put in front of the workers. The names are those of the command line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) label: String,
}

/// One of them in one setup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) tool: Named,
    pub(crate) setup: Setup,
    pub(crate) rounds: Vec<Round>,
}

/// What the clients do, and how many workers answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Setup {
    pub(crate) workers: usize,
    pub(crate) kept: bool,
    pub(crate) job: bool,
}

/// The one in the picture and in the first table.
pub(crate) const MAIN: Setup = Setup { workers: 2, kept: false, job: false };

impl Setup {
    pub(crate) fn title(self) -> String {
        let connections = if self.kept { "kept-alive connections" } else { "short connections" };
        let work = if self.job { "5 ms of CPU" } else { "hello" };
        format!("{connections}, {work}, {} workers", self.workers)
    }
}

/// Figures of one round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Round {
    /// Whole answers per second; with short connections that is connections per second.
    pub(crate) rate: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    /// CPU time of everything between clients and workers, per answer.
    pub(crate) cpu_us: f64,
    /// CPU time of the workers, per answer.
    #[serde(default)]
    pub(crate) workers_cpu_us: f64,
    /// Resident memory of everything between clients and workers.
    pub(crate) memory_mib: f64,
    /// Answers of the worker that gave fewest, by those of the one that gave most.
    pub(crate) fairness: f64,
    /// Requests without a whole answer.
    pub(crate) failed: u64,
}

/// What could not be measured, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Missing {
    pub(crate) label: String,
    pub(crate) why: String,
}

/// The second part: what clients see when something changes below them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Changes {
    pub(crate) clients: usize,
    pub(crate) workers: usize,
    pub(crate) seen: Vec<Seen>,
    pub(crate) missing: Vec<Missing>,
}

/// What is done to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Change {
    Reload,
    WorkerKill,
    MasterKill,
}

impl Change {
    pub(crate) const ALL: [Change; 3] = [Change::Reload, Change::WorkerKill, Change::MasterKill];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Change::Reload => "reload",
            Change::WorkerKill => "SIGKILL of a worker",
            Change::MasterKill => "SIGKILL of the primary, daemon or master",
        }
    }
}

/// What the clients of one tool saw of one change, over all rounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Seen {
    pub(crate) tool: Named,
    pub(crate) change: Change,
    pub(crate) kept: bool,
    /// How often it was done.
    pub(crate) times: u64,
    pub(crate) answered: u64,
    pub(crate) refused: u64,
    pub(crate) reset: u64,
    pub(crate) cut: u64,
    pub(crate) hung: u64,
    /// Kept connections that ended between two requests; the clients asked again.
    pub(crate) closed: u64,
    /// Longest time in which nobody got an answer; `None` where nobody got one ever after.
    pub(crate) silence_ms: Option<f64>,
}
