//! The records of the checkpoint: their fields, and the table of tags of each type, including the supervisor's data
//! (the core knows no format). The format itself is in `crate::record`. No behaviour.
use crate::ids::{Generation, WorkerId};
use crate::limits;
use crate::record::{self, RecordError, Value, record, variants};
use crate::supervisor::{
    AgentSnapshot, AppSnapshot, AutoscalerSnapshot, BeforeSnapshot, Phase, ReadyBy, ReloadSnapshot, SlotPhase,
    SlotSnapshot, WorkerSnapshot,
};
use std::collections::BTreeMap;
use thiserror::Error;

#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::master) struct DeploymentRecord {
    pub(in crate::master) name: String,
    pub(in crate::master) started_ms: u64,
    /// Every used worker id is below this.
    pub(in crate::master) worker_ids_below: u64,
    pub(in crate::master) last_source: u32,
    pub(in crate::master) stop_asked: bool,
    pub(in crate::master) exit_code: u8,
    /// The deployment stays when its apps have stopped.
    pub(in crate::master) background: bool,
    /// The home that has its entry, if any.
    pub(in crate::master) home: Option<String>,
    /// Ids of the apps, by name.
    pub(in crate::master) ids: BTreeMap<String, u32>,
    /// When the stop was asked for.
    pub(in crate::master) stop_asked_ms: u64,
    /// Listening sockets stay open after the stop.
    pub(in crate::master) leaves_sockets: bool,
}

record! {
    DeploymentRecord {
        1 name;
        2 started_ms = 0;
        3 worker_ids_below;
        4 last_source;
        5 stop_asked = false;
        6 exit_code = 0;
        7 background = false;
        8 home;
        9 ids;
        10 stop_asked_ms = 0;
        11 leaves_sockets = false;
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::master) struct UpgradeRecord {
    /// Counts upgrades from 1; 0 before the first.
    pub(in crate::master) number: u32,
    pub(in crate::master) path: String,
    /// Identifies the file, even when the path names another one later.
    pub(in crate::master) device: u64,
    pub(in crate::master) inode: u64,
    /// The result, for people; absent while the upgrade is under way.
    pub(in crate::master) outcome: Option<Result<String, String>>,
    /// The keeper's own upgrade: its new version, or why it kept the old one.
    pub(in crate::master) keeper: Option<Result<String, String>>,
}

record! {
    UpgradeRecord { 1 number; 2 path; 3 device; 4 inode; 5 outcome; 6 keeper; }
}

#[derive(Clone, Debug, PartialEq)]
pub(in crate::master) struct AppRecord {
    pub(in crate::master) name: String,
    pub(in crate::master) rules: AppSnapshot,
    pub(in crate::master) last_generation: Generation,
    pub(in crate::master) generations: BTreeMap<Generation, GenerationRecord>,
    /// Deleted from the deployment.
    pub(in crate::master) deleted: bool,
    pub(in crate::master) restarts: u64,
    /// Workers that were spawned.
    pub(in crate::master) spawned: u64,
    /// Restarts, replacements and reloads, as `History` counts them.
    pub(in crate::master) history: Vec<u64>,
    /// How its workers follow the load.
    pub(in crate::master) scale: ScaleRecord,
    /// A stop was asked for, and put off until then.
    pub(in crate::master) stops_at_ms: Option<u64>,
}

record! {
    AppRecord { 1 name; 2 rules; 3 last_generation; 4 generations; 5 deleted = false; 6 restarts = 0; 7 spawned = 0;
        8 history = Vec::new(); 9 scale = ScaleRecord::default(); 10 stops_at_ms; }
}

/// What is known of an app's load, and why the number of its workers changed last.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::master) struct ScaleRecord {
    /// A person set the number.
    pub(in crate::master) by_hand: bool,
    /// The generation with which that ends.
    pub(in crate::master) hand_ends_with: Option<Generation>,
    pub(in crate::master) rule: AutoscalerSnapshot,
    /// The last change, for people: to how many, the whole of it, when (absolute milliseconds).
    pub(in crate::master) last_to: u32,
    pub(in crate::master) last_text: Option<String>,
    pub(in crate::master) last_at_ms: u64,
}

record! {
    ScaleRecord { 1 by_hand = false; 2 hand_ends_with; 3 rule = AutoscalerSnapshot::default(); 4 last_to = 0; 5 last_text;
        6 last_at_ms = 0; }
}

/// Which sources a generation came from, and what was looked up for it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::master) struct GenerationRecord {
    pub(in crate::master) source: u32,
    /// The working directory, links resolved; empty where directory and program have to be looked up again.
    pub(in crate::master) cwd: String,
    pub(in crate::master) program: String,
    /// Path of the agent's program.
    pub(in crate::master) agent_program: Option<String>,
    /// What `balance = "auto"` means for it; absent where another balance was typed, or a version before `auto` wrote this.
    pub(in crate::master) balance: Option<String>,
    /// Why, for people.
    pub(in crate::master) balance_why: String,
}

record! {
    GenerationRecord { 1 source; 2 cwd = String::new(); 3 program = String::new(); 4 agent_program; 5 balance;
        6 balance_why = String::new(); }
}

/// The generations of an app that ran.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::master) struct ReleasesRecord {
    pub(in crate::master) releases: Vec<ReleaseRecord>,
}

record! {
    ReleasesRecord { 1 releases; }
}

/// One of them.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::master) struct ReleaseRecord {
    pub(in crate::master) generation: Generation,
    /// When it began, in milliseconds since 1970.
    pub(in crate::master) at_ms: u64,
    /// The folder of its workers, links resolved.
    pub(in crate::master) folder: String,
    /// For people.
    pub(in crate::master) command: String,
    /// Number of its sources.
    pub(in crate::master) source: u32,
    /// It is a roll-back to this generation.
    pub(in crate::master) back_to: Option<Generation>,
    pub(in crate::master) result: ReleaseResult,
}

record! {
    ReleaseRecord { 1 generation; 2 at_ms = 0; 3 folder; 4 command = String::new(); 5 source; 6 back_to; 7 result; }
}

/// How it went.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::master) enum ReleaseResult {
    /// Its first workers are starting.
    Starting {},
    /// It served, or does.
    Served {},
    /// It served until somebody went back.
    RolledBack {},
    /// It never served alone.
    Failed { reason: String },
}

variants! {
    ReleaseResult { 0 Starting {} 1 Served {} 2 RolledBack {} 3 Failed { 1 reason; } }
}

/// The state of a worker's channel.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::master) struct ServesRecord {
    /// Keys of the listeners that the worker serves.
    pub(in crate::master) keys: Vec<String>,
    /// The worker was told to leave, or said that it leaves.
    pub(in crate::master) goodbye: bool,
    /// Connections that the worker took, where a limit counts them.
    pub(in crate::master) taken: u64,
    /// The worker was told that the app is ready (apps with an agent).
    pub(in crate::master) greeted: bool,
    /// The actions that the worker offers.
    pub(in crate::master) actions: Vec<String>,
    /// Of `keys`, those on which its server speaks when it was spoken to.
    pub(in crate::master) client_first: Vec<String>,
}

record! {
    ServesRecord { 1 keys; 2 goodbye = false; 3 taken = 0; 4 greeted = false; 5 actions; 6 client_first; }
}

#[derive(Clone, Debug, PartialEq)]
pub(in crate::master) struct ListenerRecord {
    pub(in crate::master) key: String,
    /// The configured address as people write it; absent for listeners that workers requested.
    pub(in crate::master) configured: Option<String>,
    pub(in crate::master) data: Option<String>,
    /// The order of creation, which `LISTEN_FDS` follows.
    pub(in crate::master) order: usize,
    /// Sockets in its reuseport group, the first one included; 0 without a group.
    pub(in crate::master) sockets: u32,
    /// The group cannot grow.
    pub(in crate::master) full: bool,
    /// It was passed to clusterd at its start; no configuration names it.
    pub(in crate::master) given: bool,
    /// The sockets of the group that listen, in the kernel's order; empty: all, by their numbers.
    pub(in crate::master) places: Vec<u32>,
}

record! {
    ListenerRecord { 1 key; 2 configured; 3 data; 4 order; 5 sockets = 0; 6 full = false; 7 given = false; 8 places; }
}

// ---- the supervisor's data ----

record! {
    AppSnapshot {
        1 generation;
        2 slots;
        3 reload;
        4 queued;
        5 queued_scale;
        6 stopping;
        7 then_start;
        8 reported_ready = false;
        9 agent = AgentSnapshot::default();
        10 wanted = 0;
        11 before = BeforeSnapshot::default();
        12 held;
    }
}

record! {
    AutoscalerSnapshot { 1 below_since_ms; 2 needed = 0; 3 shrunk_ms; 4 more_cooldowns = 0; }
}

record! {
    ReloadSnapshot { 1 from; 2 to; 3 slots; 4 pending; 5 starting; 6 done; 7 failed; 8 canary_until_ms; }
}

record! {
    SlotSnapshot {
        1 index;
        2 generation;
        3 phase;
        4 current;
        5 incoming;
        6 failures;
        7 consecutive = 0;
        8 restarts = 0;
        9 runs = 0;
        10 replace_after_ms = 0;
        11 proven = false;
    }
}

variants! {
    SlotPhase { 0 Filled {} 1 Waiting { 1 until_ms; } 2 Errored {} 3 Stopped {} }
}

record! {
    WorkerSnapshot { 1 id; 2 slot; 3 generation; 4 pid; 5 spawned_at_ms; 6 phase; 7 by_itself = false; 8 spare = false; }
}

variants! {
    Phase {
        0 Starting { 1 deadline_ms; 2 ready_at_ms; 3 online = false; 4 severed_at_ms; 5 warming; }
        1 Ready { 1 since_ms; 2 idle_since_ms; 3 severed_at_ms; }
        2 Draining { 1 deadline_ms; }
        3 Stopping { 1 kill_at_ms; }
        4 Killed {}
    }
}

variants! {
    ReadyBy { 0 Evidence {} 1 Age {} }
}

record! {
    AgentSnapshot { 1 process; 2 waiting_until_ms; 3 failures; 4 consecutive = 0; 5 restarts = 0; 6 ready_in; }
}

record! {
    BeforeSnapshot { 1 process; 2 waiting_until_ms; 3 failures; 4 consecutive = 0; 5 done; }
}

// ---- keys ----

pub(in crate::master) const DEPLOYMENT: &str = "deployment";
pub(in crate::master) const UPGRADE: &str = "upgrade";
/// Prefix of an app's key; the index of the app follows.
pub(in crate::master) const APP: &str = "app/";
/// Prefix of the key of an app's generations; the index of the app follows.
pub(in crate::master) const RELEASES: &str = "releases/";
/// Prefix of a slot's key; app index and slot follow.
pub(in crate::master) const SLOT: &str = "slot/";
/// Prefix of a worker's key; app index and worker id follow.
pub(in crate::master) const WORKER: &str = "worker/";
/// Prefix of the key of a worker's channel state; the worker id follows.
pub(in crate::master) const SERVES: &str = "serves/";
/// Prefix of a listener's key; app name and listener key follow.
pub(in crate::master) const LISTENER: &str = "listener/";

/// Why a record of the checkpoint cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(in crate::master) enum CheckpointError {
    #[error("{0}")]
    Unreadable(#[from] RecordError),
    /// The record belongs to another key.
    #[error("its content does not match its key")]
    Misplaced,
    /// A number in the record is out of range.
    #[error("a number in it is out of range")]
    OutOfRange,
    /// The key is not known to this version.
    #[error("this version does not know its kind")]
    UnknownKey,
}

/// Checks that a record can be read as the type that its key names.
///
/// # Errors
/// The reason why it cannot.
pub(in crate::master) fn check(key: &str, bytes: &[u8]) -> Result<(), CheckpointError> {
    let about = |number: u64| match key.rsplit('/').next() == Some(number.to_string().as_str()) {
        true => Ok(()),
        false => Err(CheckpointError::Misplaced),
    };
    let in_range = |slot: u32| if slot < limits::WORKERS_MAX { Ok(()) } else { Err(CheckpointError::OutOfRange) };
    if key == DEPLOYMENT {
        read::<DeploymentRecord>(bytes)?;
    } else if key == UPGRADE {
        read::<UpgradeRecord>(bytes)?;
    } else if key.starts_with(APP) {
        let app: AppRecord = read(bytes)?;
        // The next reload increments it.
        if app.last_generation.0 == u32::MAX {
            return Err(CheckpointError::OutOfRange);
        }
    } else if key.starts_with(SLOT) {
        let slot: SlotSnapshot = read(bytes)?;
        in_range(slot.index).and(about(u64::from(slot.index)))?;
    } else if key.starts_with(WORKER) {
        let worker: WorkerSnapshot = read(bytes)?;
        in_range(worker.slot.0).and(about(worker.id.0))?;
    } else if key.starts_with(RELEASES) {
        read::<ReleasesRecord>(bytes)?;
    } else if key.starts_with(SERVES) {
        read::<ServesRecord>(bytes)?;
    } else if key.starts_with(LISTENER) {
        read::<ListenerRecord>(bytes)?;
    } else {
        return Err(CheckpointError::UnknownKey);
    }
    Ok(())
}

/// Reads a record.
///
/// # Errors
/// The record cannot be read.
pub(in crate::master) fn read<T: Value>(bytes: &[u8]) -> Result<T, RecordError> {
    record::from_document(bytes)
}

/// The worker id in the key of a channel record.
pub(in crate::master) fn served_by(key: &str) -> Option<WorkerId> {
    key.strip_prefix(SERVES)?.parse().ok().map(WorkerId)
}

/// The numbers at the end of a key, such as `3` and `7` of `slot/3/7`.
pub(in crate::master) fn numbers(key: &str, prefix: &str) -> Option<(usize, u64)> {
    let (first, second) = key.strip_prefix(prefix)?.split_once('/')?;
    Some((first.parse().ok()?, second.parse().ok()?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::master::releases;

    #[test]
    fn a_listener_with_the_most_that_a_worker_may_say_fits_its_record() {
        let record = ListenerRecord {
            key: "k".repeat(limits::LISTENER_KEY_BYTES_MAX + 64),
            configured: Some("a".repeat(limits::HOST_BYTES_MAX + 8)),
            data: Some("d".repeat(limits::LISTENER_DATA_BYTES_MAX)),
            order: 1 << 53,
            sockets: u32::MAX,
            full: false,
            given: false,
            places: (0..limits::GROUP_SOCKETS_MAX).collect(),
        };
        let bytes = record::to_document(&record).unwrap().len();
        assert!(bytes <= limits::NOTE_BYTES_MAX, "{bytes} bytes");
    }

    #[test]
    fn as_many_generations_as_are_remembered_fit_their_record() {
        let words = || "w".repeat(releases::WORDS_BYTES_MAX);
        let release = ReleaseRecord {
            generation: Generation(u32::MAX),
            at_ms: u64::MAX,
            // The longest path.
            folder: "f".repeat(4_095),
            command: words(),
            source: u32::MAX,
            back_to: Some(Generation(u32::MAX)),
            result: ReleaseResult::Failed { reason: words() },
        };
        let bytes = record::to_document(&ReleasesRecord { releases: vec![release; releases::RELEASES_MAX] }).unwrap();
        assert!(bytes.len() <= limits::NOTE_BYTES_MAX, "{} bytes", bytes.len());
    }

    #[test]
    fn the_largest_app_in_a_reload_fits_its_record() {
        let slots = || (0..limits::WORKERS_MAX).collect::<Vec<_>>();
        let reload = ReloadSnapshot {
            from: Generation(u32::MAX - 2),
            to: Generation(u32::MAX - 1),
            slots: limits::WORKERS_MAX,
            pending: slots(),
            starting: slots(),
            done: slots(),
            failed: Some("it said: ".repeat(100)),
            canary_until_ms: Some(u64::MAX),
        };
        let rules = AppSnapshot {
            generation: Generation(1),
            slots: limits::WORKERS_MAX,
            wanted: limits::WORKERS_MAX - 1,
            reload: Some(reload),
            queued: Some((Generation(9), 4)),
            queued_scale: Some(8),
            stopping: None,
            then_start: None,
            reported_ready: true,
            agent: AgentSnapshot::default(),
            before: BeforeSnapshot::default(),
            held: Some(Generation(3)),
        };
        let record = AppRecord {
            name: "a".repeat(64),
            rules,
            last_generation: Generation(u32::MAX - 1),
            generations: BTreeMap::from([(Generation(1), GenerationRecord::default())]),
            deleted: false,
            restarts: u64::MAX,
            spawned: u64::MAX,
            history: vec![u64::MAX; 64],
            scale: ScaleRecord { last_text: Some("why ".repeat(200)), ..ScaleRecord::default() },
            stops_at_ms: Some(u64::MAX),
        };
        let bytes = record::to_document(&record).unwrap();
        assert!(bytes.len() <= limits::NOTE_BYTES_MAX, "{} bytes", bytes.len());
        assert_eq!(read::<AppRecord>(&bytes), Ok(record));
    }
}
