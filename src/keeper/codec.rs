//! Orders, notices and spawn descriptions as bytes and back. Pure; knows no socket and no fd.
//!
//! A message is one byte that says its kind, then its fields in the order of the type: integers little-endian, bytes
//! and text with a u32 length before them, lists with a u32 count, an optional field with a byte 0 or 1 before it.
//! Keeper and master may be of versions next to each other (an upgrade replaces one of them while the other runs):
//! a kind that is not known is [`Decoded::Unknown`], bytes after the last known field are ignored, and a message that
//! ends where a field of a later version would begin has that field's default. Identifiers have no default: a
//! message without them is damaged.
use super::protocol::{Credentials, Notice, Order, SpawnSpec, SpawnStep};
use crate::ids::WorkerId;
use crate::limits::{
    KEEPER_NAME_BYTES_MAX, KEEPER_PACKET_BYTES_MAX, NOTE_BYTES_MAX, PLACED_FD_NUMBER_MAX, SPAWN_SPEC_BYTES_MAX,
    SPAWN_TAG_BYTES_MAX,
};
use std::fmt;

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

/// Why bytes are no message, or a message cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CodecError {
    /// The bytes end inside this field, or before one that must be there.
    Short(&'static str),
    /// This field is longer than its bound, in bytes or entries.
    TooLong { field: &'static str, is: usize, max: usize },
    /// This field has a value that means nothing.
    Bad(&'static str),
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CodecError::Short(field) => write!(f, "it ends before or inside its {field}"),
            CodecError::TooLong { field, is, max } => write!(f, "its {field} is {is} long; the most is {max}"),
            CodecError::Bad(field) => write!(f, "its {field} makes no sense"),
        }
    }
}

impl std::error::Error for CodecError {}

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

/// Encodes a notice. `previous_end` is cut at [`KEEPER_NAME_BYTES_MAX`].
///
/// # Errors
/// A name, tag or value over its bound.
pub fn encode_notice(notice: &Notice) -> Result<Vec<u8>, CodecError> {
    let mut out = Writer::default();
    match notice {
        Notice::Hello { version, incarnation, previous_end } => {
            let cut = beginning(previous_end, KEEPER_NAME_BYTES_MAX);
            out.kind(1).u16(*version).u32(*incarnation).name("previous end", cut)?
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
    };
    out.finish()
}

/// Decodes a notice. Defaults of missing fields: `incarnation` 1, `previous_end` "", `tag` empty, `started_ms` and
/// `at_ms` 0, `status` of a child and `value` of a signal none, `step` [`SpawnStep::Exec`] (also for a step that only
/// a newer version knows), `errno` 0.
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
fn step_number(step: SpawnStep) -> u8 {
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

fn step_of(number: u8) -> SpawnStep {
    STEPS.get(usize::from(number)).copied().unwrap_or(SpawnStep::Exec)
}

fn within(field: &'static str, is: usize, max: usize) -> Result<(), CodecError> {
    if is > max { Err(CodecError::TooLong { field, is, max }) } else { Ok(()) }
}

/// The text's beginning, at most so many bytes, never ending inside a character.
fn beginning(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[derive(Default)]
struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    fn finish(self) -> Result<Vec<u8>, CodecError> {
        within("packet", self.bytes.len(), KEEPER_PACKET_BYTES_MAX)?;
        Ok(self.bytes)
    }

    fn put(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    fn kind(&mut self, kind: u8) -> &mut Self {
        self.put(&[kind])
    }

    fn u8(&mut self, value: u8) -> &mut Self {
        self.put(&[value])
    }

    fn bool(&mut self, value: bool) -> &mut Self {
        self.put(&[u8::from(value)])
    }

    fn u16(&mut self, value: u16) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    fn u32(&mut self, value: u32) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    fn u64(&mut self, value: u64) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    fn i32(&mut self, value: i32) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    fn optional_i32(&mut self, value: Option<i32>) -> &mut Self {
        match value {
            None => self.bool(false),
            Some(value) => self.bool(true).i32(value),
        }
    }

    /// A count too large for u32 belongs to a list that is over every bound too.
    fn count(&mut self, count: usize) -> &mut Self {
        self.u32(u32::try_from(count).unwrap_or(u32::MAX))
    }

    fn bytes(&mut self, field: &'static str, bytes: &[u8], max: usize) -> Result<&mut Self, CodecError> {
        within(field, bytes.len(), max)?;
        Ok(self.count(bytes.len()).put(bytes))
    }

    fn name(&mut self, field: &'static str, name: &str) -> Result<&mut Self, CodecError> {
        self.bytes(field, name.as_bytes(), KEEPER_NAME_BYTES_MAX)
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, field: &'static str, count: usize) -> Result<&'a [u8], CodecError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(CodecError::Short(field))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], CodecError> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(CodecError::Short(field))?;
        self.rest = rest;
        Ok(*taken)
    }

    /// A field that a message of an older version may lack.
    fn or<T>(&mut self, default: T, read: impl FnOnce(&mut Self) -> Result<T, CodecError>) -> Result<T, CodecError> {
        if self.rest.is_empty() { Ok(default) } else { read(self) }
    }

    fn kind(&mut self) -> Result<u8, CodecError> {
        self.u8("kind")
    }

    fn u8(&mut self, field: &'static str) -> Result<u8, CodecError> {
        self.array::<1>(field).map(|[byte]| byte)
    }

    fn bool(&mut self) -> Result<bool, CodecError> {
        match self.u8("flag")? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(CodecError::Bad("flag")),
        }
    }

    fn u16(&mut self, field: &'static str) -> Result<u16, CodecError> {
        self.array(field).map(u16::from_le_bytes)
    }

    fn u32(&mut self, field: &'static str) -> Result<u32, CodecError> {
        self.array(field).map(u32::from_le_bytes)
    }

    fn u64(&mut self, field: &'static str) -> Result<u64, CodecError> {
        self.array(field).map(u64::from_le_bytes)
    }

    fn i32(&mut self, field: &'static str) -> Result<i32, CodecError> {
        self.array(field).map(i32::from_le_bytes)
    }

    fn worker(&mut self) -> Result<WorkerId, CodecError> {
        self.u64("worker id").map(WorkerId)
    }

    fn optional<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, CodecError>) -> Result<Option<T>, CodecError> {
        if self.bool()? { read(self).map(Some) } else { Ok(None) }
    }

    fn optional_i32(&mut self) -> Result<Option<i32>, CodecError> {
        self.optional(|from| from.i32("number"))
    }

    fn bytes(&mut self, field: &'static str, max: usize) -> Result<Vec<u8>, CodecError> {
        let count = usize::try_from(self.u32(field)?).unwrap_or(usize::MAX);
        within(field, count, max)?;
        Ok(self.take(field, count)?.to_vec())
    }

    fn name(&mut self, field: &'static str) -> Result<String, CodecError> {
        String::from_utf8(self.bytes(field, KEEPER_NAME_BYTES_MAX)?).map_err(|_| CodecError::Bad(field))
    }

    /// A list whose entries take at least `entry_bytes` each: a count that cannot be true allocates nothing.
    fn list<T>(
        &mut self,
        field: &'static str,
        entry_bytes: usize,
        mut read: impl FnMut(&mut Self) -> Result<T, CodecError>,
    ) -> Result<Vec<T>, CodecError> {
        let count = usize::try_from(self.u32(field)?).unwrap_or(usize::MAX);
        if count > self.rest.len() / entry_bytes {
            return Err(CodecError::Short(field));
        }
        (0..count).map(|_| read(self)).collect()
    }

    fn credentials(&mut self) -> Result<Credentials, CodecError> {
        Ok(Credentials {
            uid: self.u32("user id")?,
            gid: self.u32("group id")?,
            groups: self.list("groups", 4, |from| from.u32("group"))?,
        })
    }
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
