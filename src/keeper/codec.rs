//! Orders, notices and spawn specs as records (`crate::record`): their tags, bounds and defaults. Pure; knows no socket
//! and no fd. Keeper and master may be of different versions: an upgrade replaces one of them while the other runs.
use super::protocol::{About, Credentials, GroupLimits, Notice, Order, OwnUpgrade, SpawnSpec, SpawnStep};
use crate::limits::{
    KEEPER_NAME_BYTES_MAX, KEEPER_PACKET_BYTES_MAX, NOTE_BYTES_MAX, PLACED_FD_NUMBER_MAX, SPAWN_SPEC_BYTES_MAX,
    SPAWN_TAG_BYTES_MAX,
};
pub use crate::record::RecordError;
use crate::record::{self, record, variants, within};

variants! {
    Order {
        1 Hold { 1 name [max KEEPER_NAME_BYTES_MAX]; }
        2 Release { 1 name [max KEEPER_NAME_BYTES_MAX]; }
        3 Note { 1 key [max KEEPER_NAME_BYTES_MAX]; 2 value [max NOTE_BYTES_MAX]; }
        4 Forget { 1 key [max KEEPER_NAME_BYTES_MAX]; }
        5 Spawn { 1 worker; }
        6 Signal { 1 worker; 2 signal; 3 group = false; }
        7 ExitSeen { 1 worker; }
        8 Heartbeat {}
        9 Ready {}
        10 Finish { 1 code = 1; }
        11 Upgrade {}
        12 AppEnded { 1 app [max KEEPER_NAME_BYTES_MAX]; }
        13 Group {
            1 base [max KEEPER_NAME_BYTES_MAX];
            2 app [max KEEPER_NAME_BYTES_MAX];
            3 limits = GroupLimits::default();
        }
        14 Look { 1 worker; 2 call; 3 tid; 4 address; 5 bytes = 0; }
        15 OwnLog {}
        16 Serving {}
        17 CopyUntouched { 1 worker; 2 name [max KEEPER_NAME_BYTES_MAX]; }
    }
}

variants! {
    Notice {
        1 Hello {
            1 version;
            2 incarnation = 1;
            3 previous_end [cut KEEPER_NAME_BYTES_MAX] = String::new();
            4 about = About::default();
        }
        2 Child { 1 worker; 2 pid; 3 tag [max SPAWN_TAG_BYTES_MAX]; 4 started_ms = 0; 5 status; 6 out_of_memory = false; }
        3 Held { 1 name [max KEEPER_NAME_BYTES_MAX]; }
        4 Noted { 1 key [max KEEPER_NAME_BYTES_MAX]; 2 value [max NOTE_BYTES_MAX]; }
        5 Begin {}
        6 Spawned { 1 worker; 2 pid; }
        7 SpawnFailed { 1 worker; 2 step = SpawnStep::Exec; 3 errno = 0; }
        8 Exited { 1 worker; 2 status; 3 at_ms = 0; 4 out_of_memory = false; }
        9 Signal { 1 signal; 2 value; }
        10 Keeper { 1 about = About::default(); }
        11 Looked { 1 worker; 2 call; 3 bytes [max KEEPER_NAME_BYTES_MAX]; 4 errno = 0; }
    }
}

record! {
    About { 1 version [cut KEEPER_NAME_BYTES_MAX] = String::new(); 2 upgrade = OwnUpgrade::Open; 3 has_store = false; }
}

variants! {
    OwnUpgrade { 0 Open {} 1 Done {} 2 Stays { 1 why [cut KEEPER_NAME_BYTES_MAX] = String::new(); } }
    else OwnUpgrade::Open
}

variants! {
    SpawnStep {
        0 Description {}
        1 Fork {}
        2 ProcessGroup {}
        3 SupplementaryGroups {}
        4 Group {}
        5 User {}
        6 ResourceLimits {}
        7 WorkingDirectory {}
        8 FileDescriptors {}
        9 Signals {}
        10 ParentDeath {}
        11 Exec {}
        12 OomScoreAdj {}
        13 Nice {}
        14 CpuAffinity {}
        15 NoNewPrivileges {}
        16 Cgroup {}
    } else SpawnStep::Exec
}

record! {
    SpawnSpec {
        1 tag [max SPAWN_TAG_BYTES_MAX];
        2 program;
        3 args;
        4 env;
        5 listen_pid = false;
        6 cwd;
        7 umask;
        8 credentials;
        9 rlimits;
        10 placements;
        11 nice;
        12 oom_score_adj;
        13 cpus;
        14 no_new_privs = false;
        15 intercept;
        16 may_give_up_privileges = false;
        17 app [max KEEPER_NAME_BYTES_MAX] = String::new();
    }
}

record! {
    GroupLimits { 1 memory_max; 2 memory_high; 3 cpu_max; 4 pids_max; }
}

record! {
    Credentials { 1 uid; 2 gid; 3 groups; }
}

/// Encodes an order.
///
/// # Errors
/// A name or value exceeds its bound.
pub fn encode_order(order: &Order) -> Result<Vec<u8>, RecordError> {
    packet(record::encode(order)?)
}

/// Decodes an order.
///
/// # Errors
/// Damaged bytes; [`RecordError::Unknown`] for an order of another version.
pub fn decode_order(bytes: &[u8]) -> Result<Order, RecordError> {
    record::decode(bytes)
}

/// Encodes a notice.
///
/// # Errors
/// A name, tag or value exceeds its bound.
pub fn encode_notice(notice: &Notice) -> Result<Vec<u8>, RecordError> {
    packet(record::encode(notice)?)
}

/// Decodes a notice.
///
/// # Errors
/// Damaged bytes; [`RecordError::Unknown`] for a notice of another version.
pub fn decode_notice(bytes: &[u8]) -> Result<Notice, RecordError> {
    record::decode(bytes)
}

fn packet(bytes: Vec<u8>) -> Result<Vec<u8>, RecordError> {
    within("packet", bytes.len(), KEEPER_PACKET_BYTES_MAX)?;
    Ok(bytes)
}

/// Encodes a spawn spec, as a document.
///
/// # Errors
/// A tag, or the whole, exceeds its bound.
pub fn encode_spawn_spec(spec: &SpawnSpec) -> Result<Vec<u8>, RecordError> {
    let bytes = record::to_document(spec)?;
    within("description", bytes.len(), SPAWN_SPEC_BYTES_MAX)?;
    Ok(bytes)
}

/// Decodes a spawn spec. Checks the placements: each number is between 0 and [`PLACED_FD_NUMBER_MAX`], and unique.
///
/// # Errors
/// Damaged bytes.
pub fn decode_spawn_spec(bytes: &[u8]) -> Result<SpawnSpec, RecordError> {
    within("description", bytes.len(), SPAWN_SPEC_BYTES_MAX)?;
    let spec: SpawnSpec = record::from_document(bytes)?;
    let mut numbers = spec.placements.clone();
    numbers.sort_unstable();
    let twice = numbers.windows(2).any(|pair| pair[0] == pair[1]);
    if twice || numbers.iter().any(|number| !(0..=PLACED_FD_NUMBER_MAX).contains(number)) {
        return Err(RecordError::Bad("placements"));
    }
    Ok(spec)
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
