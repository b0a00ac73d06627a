//! Orders, notices and spawn descriptions as bytes and back. Pure; knows no socket and no fd.
//!
//! A message is one byte that says its kind, then its fields in the order of the type: integers little-endian, bytes
//! and text with a u32 length before them, lists with a u32 count, an optional field with a byte 0 or 1 before it.
//! Keeper and master may be of versions next to each other (an upgrade replaces one of them while the other runs):
//! a kind that is not known is [`Decoded::Unknown`], bytes after the last known field are ignored, and a message that
//! ends where a field of a later version would begin has that field's default. Identifiers have no default: a
//! message without them is damaged.
pub use super::bytes::CodecError;
use super::bytes::{Reader, Writer, beginning, within};
use super::protocol::{About, Notice, Order, OwnUpgrade, SpawnSpec, SpawnStep};
use crate::limits::{
    KEEPER_NAME_BYTES_MAX, NOTE_BYTES_MAX, PLACED_FD_NUMBER_MAX, SPAWN_SPEC_BYTES_MAX, SPAWN_TAG_BYTES_MAX,
};

/// The version of this encoding, in [`Notice::Hello`].
pub const VERSION: u16 = 1;

/// A message, or the kind of one that only another version knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded<T> {
    /// A message.
    Known(T),
    /// To be ignored.
    Unknown(u8),
}

/// Encodes an order.
///
/// # Errors
/// A name or value over its bound.
pub fn encode_order(order: &Order) -> Result<Vec<u8>, CodecError> {
    let mut out = Writer::default();
    match order {
        Order::Hold { name } => out.kind(1).name("name", name)?,
        Order::Release { name } => out.kind(2).name("name", name)?,
        Order::Note { key, value } => out.kind(3).name("key", key)?.bytes("value", value, NOTE_BYTES_MAX)?,
        Order::Forget { key } => out.kind(4).name("key", key)?,
        Order::Spawn { worker } => out.kind(5).u64(worker.0),
        Order::Signal { worker, signal, group } => out.kind(6).u64(worker.0).i32(*signal).bool(*group),
        Order::ExitSeen { worker } => out.kind(7).u64(worker.0),
        Order::Heartbeat => out.kind(8),
        Order::Ready => out.kind(9),
        Order::Finish { code } => out.kind(10).u8(*code),
        Order::Upgrade => out.kind(11),
    };
    out.finish()
}

/// Decodes an order. Defaults of missing fields: `Signal.group` false, `Finish.code` 1.
///
/// # Errors
/// Damaged bytes.
pub fn decode_order(bytes: &[u8]) -> Result<Decoded<Order>, CodecError> {
    let mut from = Reader { rest: bytes };
    Ok(Decoded::Known(match from.kind()? {
        1 => Order::Hold { name: from.name("name")? },
        2 => Order::Release { name: from.name("name")? },
        3 => Order::Note { key: from.name("key")?, value: from.bytes("value", NOTE_BYTES_MAX)? },
        4 => Order::Forget { key: from.name("key")? },
        5 => Order::Spawn { worker: from.worker()? },
        6 => {
            Order::Signal { worker: from.worker()?, signal: from.i32("signal")?, group: from.or(false, Reader::bool)? }
        }
        7 => Order::ExitSeen { worker: from.worker()? },
        8 => Order::Heartbeat,
        9 => Order::Ready,
        10 => Order::Finish { code: from.or(1, |from| from.u8("code"))? },
        11 => Order::Upgrade,
        kind => return Ok(Decoded::Unknown(kind)),
    }))
}

/// Encodes a notice. Texts for people are cut at [`KEEPER_NAME_BYTES_MAX`].
///
/// # Errors
/// A name, tag or value over its bound.
pub fn encode_notice(notice: &Notice) -> Result<Vec<u8>, CodecError> {
    let mut out = Writer::default();
    match notice {
        Notice::Hello { version, incarnation, previous_end, about } => {
            let cut = beginning(previous_end, KEEPER_NAME_BYTES_MAX);
            about_keeper(out.kind(1).u16(*version).u32(*incarnation).name("previous end", cut)?, about)?
        }
        Notice::Child { worker, pid, tag, started_ms, status } => out
            .kind(2)
            .u64(worker.0)
            .i32(*pid)
            .bytes("tag", tag, SPAWN_TAG_BYTES_MAX)?
            .u64(*started_ms)
            .optional_i32(*status),
        Notice::Held { name } => out.kind(3).name("name", name)?,
        Notice::Noted { key, value } => out.kind(4).name("key", key)?.bytes("value", value, NOTE_BYTES_MAX)?,
        Notice::Begin => out.kind(5),
        Notice::Spawned { worker, pid } => out.kind(6).u64(worker.0).i32(*pid),
        Notice::SpawnFailed { worker, step, errno } => out.kind(7).u64(worker.0).u8(step_number(*step)).i32(*errno),
        Notice::Exited { worker, status, at_ms } => out.kind(8).u64(worker.0).i32(*status).u64(*at_ms),
        Notice::Signal { signal, value } => out.kind(9).i32(*signal).optional_i32(*value),
        Notice::Keeper { about } => about_keeper(out.kind(10), about)?,
    };
    out.finish()
}

fn about_keeper<'w>(out: &'w mut Writer, about: &About) -> Result<&'w mut Writer, CodecError> {
    let (number, reason) = match &about.upgrade {
        OwnUpgrade::Open => (0, ""),
        OwnUpgrade::Done => (1, ""),
        OwnUpgrade::Stays(reason) => (2, reason.as_str()),
    };
    let version = beginning(&about.version, KEEPER_NAME_BYTES_MAX);
    out.name("keeper's version", version)?.u8(number).name("reason", beginning(reason, KEEPER_NAME_BYTES_MAX))
}

fn read_about(from: &mut Reader<'_>) -> Result<About, CodecError> {
    let version = from.or(String::new(), |from| from.name("keeper's version"))?;
    let number = from.or(0, |from| from.u8("upgrade"))?;
    let reason = from.or(String::new(), |from| from.name("reason"))?;
    let upgrade = match number {
        1 => OwnUpgrade::Done,
        2 => OwnUpgrade::Stays(reason),
        _ => OwnUpgrade::Open,
    };
    Ok(About { version, upgrade })
}

/// Decodes a notice. Defaults of missing fields: `incarnation` 1, `previous_end` "", `tag` empty, `started_ms` and
/// `at_ms` 0, `status` of a child and `value` of a signal none, `step` [`SpawnStep::Exec`] (also for a step that only
/// a newer version knows), `errno` 0, everything about the keeper empty.
///
/// # Errors
/// Damaged bytes.
pub fn decode_notice(bytes: &[u8]) -> Result<Decoded<Notice>, CodecError> {
    let mut from = Reader { rest: bytes };
    Ok(Decoded::Known(match from.kind()? {
        1 => Notice::Hello {
            version: from.u16("version")?,
            incarnation: from.or(1, |from| from.u32("incarnation"))?,
            previous_end: from.or(String::new(), |from| from.name("previous end"))?,
            about: read_about(&mut from)?,
        },
        2 => Notice::Child {
            worker: from.worker()?,
            pid: from.i32("pid")?,
            tag: from.or(Vec::new(), |from| from.bytes("tag", SPAWN_TAG_BYTES_MAX))?,
            started_ms: from.or(0, |from| from.u64("start time"))?,
            status: from.or(None, Reader::optional_i32)?,
        },
        3 => Notice::Held { name: from.name("name")? },
        4 => Notice::Noted { key: from.name("key")?, value: from.bytes("value", NOTE_BYTES_MAX)? },
        5 => Notice::Begin,
        6 => Notice::Spawned { worker: from.worker()?, pid: from.i32("pid")? },
        7 => Notice::SpawnFailed {
            worker: from.worker()?,
            step: from.or(SpawnStep::Exec, |from| Ok(step_of(from.u8("step")?)))?,
            errno: from.or(0, |from| from.i32("errno"))?,
        },
        8 => Notice::Exited {
            worker: from.worker()?,
            status: from.i32("status")?,
            at_ms: from.or(0, |from| from.u64("time"))?,
        },
        9 => Notice::Signal { signal: from.i32("signal")?, value: from.or(None, Reader::optional_i32)? },
        10 => Notice::Keeper { about: read_about(&mut from)? },
        kind => return Ok(Decoded::Unknown(kind)),
    }))
}

/// Encodes a spawn description.
///
/// # Errors
/// A tag, or the whole, over its bound.
pub fn encode_spawn_spec(spec: &SpawnSpec) -> Result<Vec<u8>, CodecError> {
    let mut out = Writer::default();
    out.bytes("tag", &spec.tag, SPAWN_TAG_BYTES_MAX)?.bytes("program", &spec.program, SPAWN_SPEC_BYTES_MAX)?;
    for (field, list) in [("arguments", &spec.args), ("environment", &spec.env)] {
        out.count(list.len());
        for entry in list {
            out.bytes(field, entry, SPAWN_SPEC_BYTES_MAX)?;
        }
    }
    out.bool(spec.listen_pid).bool(spec.cwd.is_some());
    if let Some(cwd) = &spec.cwd {
        out.bytes("working directory", cwd, SPAWN_SPEC_BYTES_MAX)?;
    }
    out.bool(spec.umask.is_some());
    if let Some(umask) = spec.umask {
        out.u32(umask);
    }
    out.bool(spec.credentials.is_some());
    if let Some(credentials) = &spec.credentials {
        out.u32(credentials.uid).u32(credentials.gid).count(credentials.groups.len());
        for group in &credentials.groups {
            out.u32(*group);
        }
    }
    out.count(spec.rlimits.len());
    for (resource, soft, hard) in &spec.rlimits {
        out.i32(*resource).u64(*soft).u64(*hard);
    }
    out.count(spec.placements.len());
    for number in &spec.placements {
        out.i32(*number);
    }
    within("description", out.bytes.len(), SPAWN_SPEC_BYTES_MAX)?;
    Ok(out.bytes)
}

/// Decodes a spawn description. Defaults of missing fields: those of [`SpawnSpec::default`]; the tag, the program and
/// the arguments must be there. The placements are checked: each number from 0 to [`PLACED_FD_NUMBER_MAX`], none
/// twice.
///
/// # Errors
/// Damaged bytes.
pub fn decode_spawn_spec(bytes: &[u8]) -> Result<SpawnSpec, CodecError> {
    within("description", bytes.len(), SPAWN_SPEC_BYTES_MAX)?;
    let mut from = Reader { rest: bytes };
    let texts = |from: &mut Reader<'_>, field| from.list(field, 4, |from| from.bytes(field, SPAWN_SPEC_BYTES_MAX));
    let spec = SpawnSpec {
        tag: from.bytes("tag", SPAWN_TAG_BYTES_MAX)?,
        program: from.bytes("program", SPAWN_SPEC_BYTES_MAX)?,
        args: texts(&mut from, "arguments")?,
        env: from.or(Vec::new(), |from| texts(from, "environment"))?,
        listen_pid: from.or(false, Reader::bool)?,
        cwd: from.or(None, |from| from.optional(|from| from.bytes("working directory", SPAWN_SPEC_BYTES_MAX)))?,
        umask: from.or(None, |from| from.optional(|from| from.u32("umask")))?,
        credentials: from.or(None, |from| from.optional(Reader::credentials))?,
        rlimits: from.or(Vec::new(), |from| {
            from.list("resource limits", 20, |from| {
                Ok((from.i32("resource")?, from.u64("soft limit")?, from.u64("hard limit")?))
            })
        })?,
        placements: from.or(Vec::new(), |from| from.list("placements", 4, |from| from.i32("placement")))?,
    };
    let mut numbers = spec.placements.clone();
    numbers.sort_unstable();
    let twice = numbers.windows(2).any(|pair| pair[0] == pair[1]);
    if twice || numbers.iter().any(|number| !(0..=PLACED_FD_NUMBER_MAX).contains(number)) {
        return Err(CodecError::Bad("placements"));
    }
    Ok(spec)
}

const STEPS: [SpawnStep; 12] = [
    SpawnStep::Description,
    SpawnStep::Fork,
    SpawnStep::ProcessGroup,
    SpawnStep::SupplementaryGroups,
    SpawnStep::Group,
    SpawnStep::User,
    SpawnStep::ResourceLimits,
    SpawnStep::WorkingDirectory,
    SpawnStep::FileDescriptors,
    SpawnStep::Signals,
    SpawnStep::ParentDeath,
    SpawnStep::Exec,
];

/// Its place in [`STEPS`], so that the two directions cannot disagree; a new step goes to the end of both.
pub(super) fn step_number(step: SpawnStep) -> u8 {
    match step {
        SpawnStep::Description => 0,
        SpawnStep::Fork => 1,
        SpawnStep::ProcessGroup => 2,
        SpawnStep::SupplementaryGroups => 3,
        SpawnStep::Group => 4,
        SpawnStep::User => 5,
        SpawnStep::ResourceLimits => 6,
        SpawnStep::WorkingDirectory => 7,
        SpawnStep::FileDescriptors => 8,
        SpawnStep::Signals => 9,
        SpawnStep::ParentDeath => 10,
        SpawnStep::Exec => 11,
    }
}

pub(super) fn step_of(number: u8) -> SpawnStep {
    STEPS.get(usize::from(number)).copied().unwrap_or(SpawnStep::Exec)
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
