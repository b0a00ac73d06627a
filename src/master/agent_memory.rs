//! The wire format of what is noted of an app's agent; it rides on the app's note. As in `memory`: fields may be added
//! with a default, never renamed.
use crate::ids::{Generation, WorkerId};
use crate::supervisor::{AgentMemory, AgentPhase, AgentProcess};
use serde::{Deserialize, Serialize};

/// The agent of one app.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct AgentNote {
    pub(super) process: Option<ProcessNote>,
    waiting_until_ms: Option<u64>,
    failures: Vec<u64>,
    consecutive: u32,
    restarts: u64,
    ready_in: Vec<u32>,
}

/// Its process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct ProcessNote {
    pub(super) id: u64,
    pub(super) generation: u32,
    pid: Option<i32>,
    spawned_at_ms: u64,
    #[serde(with = "PhaseNote")]
    phase: AgentPhase,
}

/// [`AgentPhase`] as it is written; the core knows no wire format.
#[derive(Serialize, Deserialize)]
#[serde(remote = "AgentPhase")]
enum PhaseNote {
    Starting {
        deadline_ms: u64,
        #[serde(default)]
        ready_at_ms: Option<u64>,
    },
    Ready {
        since_ms: u64,
    },
    Stopping {
        kill_at_ms: u64,
    },
    Killed,
}

impl AgentNote {
    /// `None` for an app that never had one.
    pub(super) fn of(memory: &AgentMemory) -> Option<AgentNote> {
        if *memory == AgentMemory::default() {
            return None;
        }
        Some(AgentNote {
            process: memory.process.as_ref().map(Into::into),
            waiting_until_ms: memory.waiting_until_ms,
            failures: memory.failures.clone(),
            consecutive: memory.consecutive,
            restarts: memory.restarts,
            ready_in: memory.ready_in.iter().map(|generation| generation.0).collect(),
        })
    }
}

impl From<AgentNote> for AgentMemory {
    fn from(note: AgentNote) -> AgentMemory {
        AgentMemory {
            process: note.process.map(Into::into),
            waiting_until_ms: note.waiting_until_ms,
            failures: note.failures,
            consecutive: note.consecutive,
            restarts: note.restarts,
            ready_in: note.ready_in.into_iter().map(Generation).collect(),
        }
    }
}

impl From<&AgentProcess> for ProcessNote {
    fn from(process: &AgentProcess) -> ProcessNote {
        ProcessNote {
            id: process.id.0,
            generation: process.generation.0,
            pid: process.pid,
            spawned_at_ms: process.spawned_at_ms,
            phase: process.phase,
        }
    }
}

impl From<ProcessNote> for AgentProcess {
    fn from(note: ProcessNote) -> AgentProcess {
        AgentProcess {
            id: WorkerId(note.id),
            generation: Generation(note.generation),
            pid: note.pid,
            spawned_at_ms: note.spawned_at_ms,
            phase: note.phase,
        }
    }
}
