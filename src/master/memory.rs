//! The notes' wire format: JSON that a master of the release before or after can read. Fields may be added with a
//! default, never renamed. Conversions to and from the supervisor's plain data; no behaviour.
use super::agent_memory::AgentNote;
use super::notes;
use crate::ids::{Generation, Slot, WorkerId};
use crate::limits;
use crate::supervisor::{AppMemory, Phase, ReloadMemory, SlotMemory, SlotPhase, WorkerMemory};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// The deployment as a whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct DeploymentNote {
    pub(super) name: String,
    pub(super) started_ms: u64,
    /// No worker id from here on was ever used.
    pub(super) worker_ids_below: u64,
    pub(super) last_source: u32,
    pub(super) stop_asked: bool,
    pub(super) exit_code: u8,
    pub(super) notify: Option<String>,
    pub(super) upgrade: UpgradeNote,
    /// It stays when its apps have stopped.
    pub(super) background: bool,
    /// The folder with its entry, where it has one.
    pub(super) home: Option<String>,
    /// Ids of the apps, by name.
    pub(super) ids: BTreeMap<String, u32>,
}

/// The last upgrade that was begun.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct UpgradeNote {
    /// Counts them, from 1; 0: none.
    pub(super) number: u32,
    pub(super) path: String,
    /// Which file it was, whatever the path names later.
    pub(super) device: u64,
    pub(super) inode: u64,
    /// What came of it, for people.
    pub(super) outcome: Option<Result<String, String>>,
    /// Whether the keeper is of the new binary too: its version, or why it stays what it was.
    pub(super) keeper: Option<Result<String, String>>,
}

/// One app.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct AppNote {
    pub(super) name: String,
    pub(super) generation: u32,
    pub(super) last_generation: u32,
    pub(super) slots: u32,
    pub(super) generations: BTreeMap<u32, GenerationNote>,
    #[serde(default)]
    pub(super) reload: Option<ReloadNote>,
    #[serde(default)]
    pub(super) queued: Option<(u32, u32)>,
    #[serde(default)]
    pub(super) queued_scale: Option<u32>,
    #[serde(default)]
    pub(super) stopping: Option<bool>,
    #[serde(default)]
    pub(super) then_start: Option<(u32, u32)>,
    /// It is no part of the deployment any more.
    #[serde(default)]
    pub(super) deleted: bool,
    #[serde(default)]
    pub(super) told_ready: bool,
    #[serde(default)]
    pub(super) restarts: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) agent: Option<AgentNote>,
}

/// Where a generation's settings came from, and what was looked up for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct GenerationNote {
    pub(super) source: u32,
    pub(super) cwd: String,
    pub(super) program: String,
    /// The agent's program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) agent_program: Option<String>,
}

/// What passed over a worker's channel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct ServesNote {
    /// Keys of the listeners that it serves.
    pub(super) keys: Vec<String>,
    /// It knows that it leaves.
    pub(super) goodbye: bool,
    /// Connections that it took, where a limit makes them count.
    pub(super) taken: u64,
    /// It was told that the app is ready (apps with an agent).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) greeted: bool,
}

/// A reload under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct ReloadNote {
    from: u32,
    to: u32,
    slots: u32,
    #[serde(with = "runs")]
    pending: Vec<u32>,
    starting: Vec<u32>,
    #[serde(with = "runs")]
    done: Vec<u32>,
    #[serde(default)]
    failed: Option<String>,
    #[serde(default)]
    canary_until_ms: Option<u64>,
}

/// One slot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct SlotNote {
    index: u32,
    generation: u32,
    phase: SlotPhaseNote,
    current: Option<u64>,
    incoming: Option<u64>,
    #[serde(default)]
    failures: Vec<u64>,
    #[serde(default)]
    consecutive: u32,
    #[serde(default)]
    restarts: u64,
    #[serde(default)]
    runs: u32,
    #[serde(default)]
    replace_after_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum SlotPhaseNote {
    Filled,
    Waiting(u64),
    Errored,
    Stopped,
}

/// One worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct WorkerNote {
    id: u64,
    slot: u32,
    generation: u32,
    pid: Option<i32>,
    spawned_at_ms: u64,
    #[serde(with = "PhaseNote")]
    phase: Phase,
}

/// [`Phase`] as it is written; the core knows no wire format.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Phase")]
enum PhaseNote {
    Starting {
        deadline_ms: u64,
        #[serde(default)]
        ready_at_ms: Option<u64>,
        #[serde(default)]
        online: bool,
        #[serde(default)]
        severed_at_ms: Option<u64>,
    },
    Ready {
        since_ms: u64,
        #[serde(default)]
        idle_since_ms: Option<u64>,
        #[serde(default)]
        severed_at_ms: Option<u64>,
    },
    Draining {
        deadline_ms: u64,
    },
    Stopping {
        kill_at_ms: u64,
    },
    Killed,
}

/// One listener.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct ListenerNote {
    pub(super) key: String,
    /// The configured address as people write it; absent for those that workers asked for.
    #[serde(default)]
    pub(super) configured: Option<String>,
    #[serde(default)]
    pub(super) data: Option<String>,
    /// The order in which it was made: `LISTEN_FDS` follows it.
    pub(super) order: usize,
    /// Sockets of its group, the first one included; 0 where there is no group.
    #[serde(default)]
    pub(super) sockets: u32,
    /// The group cannot grow any more.
    #[serde(default)]
    pub(super) full: bool,
}

/// Slots as runs of neighbours (`[[0, 999]]`): a note stays short however many they are. Plain numbers can be read too.
mod runs {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Clone, Copy, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Run {
        One(u32),
        FromTo(u32, u32),
    }

    pub(super) fn serialize<S: Serializer>(slots: &[u32], to: S) -> Result<S::Ok, S::Error> {
        let mut runs: Vec<Run> = Vec::new();
        for &slot in slots {
            match runs.last_mut() {
                Some(Run::FromTo(_, last)) if last.checked_add(1) == Some(slot) => *last = slot,
                _ => runs.push(Run::FromTo(slot, slot)),
            }
        }
        runs.serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u32>, D::Error> {
        let runs = Vec::<Run>::deserialize(from)?;
        let most = crate::limits::WORKERS_MAX;
        let slots = runs.into_iter().flat_map(|run| match run {
            Run::One(slot) => slot..=slot,
            Run::FromTo(first, last) => first..=last.min(most),
        });
        // Each run is bounded; a damaged note may have many.
        Ok(slots.take(most as usize).collect())
    }
}

impl GenerationNote {
    /// For one of which only the configuration is known: folder and program are looked up again.
    pub(super) fn looked_up_anew(source: u32) -> GenerationNote {
        GenerationNote { source, cwd: String::new(), program: String::new(), agent_program: None }
    }
}

impl AppNote {
    /// Whether a reload is starting a new worker in this slot.
    pub(super) fn reload_starts(&self, index: u32) -> bool {
        self.reload.as_ref().is_some_and(|reload| reload.starting.contains(&index))
    }

    pub(super) fn new(name: &str, memory: &AppMemory, last: Generation, restarts: u64) -> AppNote {
        AppNote {
            name: name.to_owned(),
            generation: memory.generation.0,
            last_generation: last.0,
            slots: memory.slots,
            generations: BTreeMap::new(),
            reload: memory.reload.as_ref().map(|r| ReloadNote {
                from: r.from.0,
                to: r.to.0,
                slots: r.slots,
                pending: r.pending.clone(),
                starting: r.starting.clone(),
                done: r.done.clone(),
                failed: r.failed.clone(),
                canary_until_ms: r.canary_until_ms,
            }),
            queued: memory.queued.map(|(to, slots)| (to.0, slots)),
            queued_scale: memory.queued_scale,
            stopping: memory.stopping,
            then_start: memory.then_start.map(|(to, slots)| (to.0, slots)),
            deleted: false,
            told_ready: memory.told_ready,
            restarts,
            agent: AgentNote::of(&memory.agent),
        }
    }

    pub(super) fn memory(&self) -> AppMemory {
        AppMemory {
            generation: Generation(self.generation),
            slots: self.slots,
            reload: self.reload.as_ref().map(|r| ReloadMemory {
                from: Generation(r.from),
                to: Generation(r.to),
                slots: r.slots,
                pending: r.pending.clone(),
                starting: r.starting.clone(),
                done: r.done.clone(),
                failed: r.failed.clone(),
                canary_until_ms: r.canary_until_ms,
            }),
            queued: self.queued.map(|(to, slots)| (Generation(to), slots)),
            queued_scale: self.queued_scale,
            stopping: self.stopping,
            then_start: self.then_start.map(|(to, slots)| (Generation(to), slots)),
            told_ready: self.told_ready,
            agent: self.agent.clone().map(Into::into).unwrap_or_default(),
        }
    }
}

impl From<&SlotMemory> for SlotNote {
    fn from(s: &SlotMemory) -> SlotNote {
        SlotNote {
            index: s.index,
            generation: s.generation.0,
            phase: match s.phase {
                SlotPhase::Filled => SlotPhaseNote::Filled,
                SlotPhase::Waiting { until_ms } => SlotPhaseNote::Waiting(until_ms),
                SlotPhase::Errored => SlotPhaseNote::Errored,
                SlotPhase::Stopped => SlotPhaseNote::Stopped,
            },
            current: s.current.map(|w| w.0),
            incoming: s.incoming.map(|w| w.0),
            failures: s.failures.clone(),
            consecutive: s.consecutive,
            restarts: s.restarts,
            runs: s.runs,
            replace_after_ms: s.replace_after_ms,
        }
    }
}

impl From<SlotNote> for SlotMemory {
    fn from(s: SlotNote) -> SlotMemory {
        SlotMemory {
            index: s.index,
            generation: Generation(s.generation),
            phase: match s.phase {
                SlotPhaseNote::Filled => SlotPhase::Filled,
                SlotPhaseNote::Waiting(until_ms) => SlotPhase::Waiting { until_ms },
                SlotPhaseNote::Errored => SlotPhase::Errored,
                SlotPhaseNote::Stopped => SlotPhase::Stopped,
            },
            current: s.current.map(WorkerId),
            incoming: s.incoming.map(WorkerId),
            failures: s.failures,
            consecutive: s.consecutive,
            restarts: s.restarts,
            runs: s.runs,
            replace_after_ms: s.replace_after_ms,
        }
    }
}

impl From<&WorkerMemory> for WorkerNote {
    fn from(w: &WorkerMemory) -> WorkerNote {
        WorkerNote {
            id: w.id.0,
            slot: w.slot.0,
            generation: w.generation.0,
            pid: w.pid,
            spawned_at_ms: w.spawned_at_ms,
            phase: w.phase,
        }
    }
}

impl From<WorkerNote> for WorkerMemory {
    fn from(w: WorkerNote) -> WorkerMemory {
        WorkerMemory {
            id: WorkerId(w.id),
            slot: Slot(w.slot),
            generation: Generation(w.generation),
            pid: w.pid,
            spawned_at_ms: w.spawned_at_ms,
            phase: w.phase,
        }
    }
}

/// Whether a note can be read as what its key says that it is.
///
/// # Errors
/// Why not.
pub(super) fn reads_as_its_kind(key: &str, bytes: &[u8]) -> Result<(), String> {
    let value: Value = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    let sound = |sound: bool, why: &str| if sound { Ok(()) } else { Err(why.to_owned()) };
    let ends_with = |number: u64| key.rsplit('/').next() == Some(number.to_string().as_str());
    // Every master wrote these: without them it is something else, whatever has a default.
    let has = |fields: &[&str]| match fields.iter().find(|field| value.get(field).is_none()) {
        Some(field) => Err(format!("missing field `{field}`")),
        None => Ok(()),
    };
    if key == notes::DEPLOYMENT {
        has(&["name", "worker_ids_below", "last_source"])?;
        let note: DeploymentNote = read(value)?;
        return sound(note.worker_ids_below.max(note.started_ms) <= limits::NOTE_NUMBER_MAX, ABSURD);
    }
    sound(!has_absurd_number(&value), ABSURD)?;
    if key.starts_with(notes::APP) {
        let note: AppNote = read(value)?;
        // A reload counts on.
        return sound(note.last_generation < u32::MAX, ABSURD);
    }
    if key.starts_with(notes::SLOT) {
        let note: SlotNote = read(value)?;
        return sound(note.index < limits::WORKERS_MAX && ends_with(u64::from(note.index)), OTHER);
    }
    if key.starts_with(notes::WORKER) {
        let note: WorkerNote = read(value)?;
        return sound(note.slot < limits::WORKERS_MAX && ends_with(note.id), OTHER);
    }
    if key.starts_with(notes::SERVES) {
        has(&["keys"])?;
        return read::<ServesNote>(value).map(|_| ());
    }
    if key.starts_with(notes::LISTENER) {
        return read::<ListenerNote>(value).map(|_| ());
    }
    Err("of a kind that this version does not know: it is older than what runs".to_owned())
}

const ABSURD: &str = "a number in it makes no sense";
const OTHER: &str = "it is not about what its key says";

fn read<T: DeserializeOwned>(value: Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(|e| e.to_string())
}

/// Times and ids stay far below; what is beyond would overflow somewhere.
fn has_absurd_number(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.as_u64().is_some_and(|number| number > limits::NOTE_NUMBER_MAX),
        Value::Array(all) => all.iter().any(has_absurd_number),
        Value::Object(all) => all.values().any(has_absurd_number),
        Value::Null | Value::Bool(_) | Value::String(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_of_a_reload_are_noted_as_runs_and_read_in_either_form() {
        let note = ReloadNote {
            from: 1,
            to: 2,
            slots: 1000,
            pending: (400..1000).chain([7, 8]).collect(),
            starting: vec![399],
            done: (0..399).collect(),
            failed: None,
            canary_until_ms: None,
        };
        let text = serde_json::to_string(&note).unwrap_or_default();
        assert!(text.contains("\"pending\":[[400,999],[7,8]]") && text.contains("\"done\":[[0,398]]"), "{text}");
        assert_eq!(serde_json::from_str(&text).ok(), Some(note.clone()));
        let plain = text.replace("[[400,999],[7,8]]", "[400,7]");
        let read: Option<ReloadNote> = serde_json::from_str(&plain).ok();
        assert_eq!(read.map(|note| note.pending), Some(vec![400, 7]));
    }

    #[test]
    fn a_listener_with_the_most_that_a_worker_may_say_fits_its_note() {
        let note = ListenerNote {
            // Control characters take six bytes each, quotes two.
            key: "\u{1}".repeat(limits::LISTENER_KEY_BYTES_MAX + 64),
            configured: Some("\u{1}".repeat(limits::HOST_BYTES_MAX + 8)),
            data: Some("\"".repeat(limits::LISTENER_DATA_BYTES_MAX)),
            order: 1 << 53,
            sockets: u32::MAX,
            full: false,
        };
        let bytes = serde_json::to_vec(&note).map_or(usize::MAX, |bytes| bytes.len());
        assert!(bytes <= limits::NOTE_BYTES_MAX, "{bytes} bytes");
    }
}
