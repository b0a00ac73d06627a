//! Everything that the keeper holds as bytes and back: what it hands to the binary that it becomes. Pure: a held fd is
//! any type, and its number once it is written down.
//!
//! A mark, the version, then records: a byte that says the kind, a u32 length, the fields as in `codec`. The version
//! says which readers can go on from it; a binary of another version ignores kinds that it does not know, ignores fields
//! after those that it knows, and has defaults for those that are missing, so that only a change of meaning needs a new
//! one. The last record says how many there are.
use super::bytes::{CodecError, Reader, Writer, within};
use super::codec::{self, Decoded};
use super::protocol::Notice;
use super::table::{Child, State as Life, Table};
use super::watch::WatchMemory;
use crate::ids::WorkerId;
use crate::limits::{
    KEEPER_OUTBOX_MAX, KEEPER_PACKET_BYTES_MAX, KEEPER_STATE_BYTES_MAX, NOTE_BYTES_MAX, SPAWN_TAG_BYTES_MAX,
};
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fmt;

const MARK: &[u8] = b"clusterd keeper\n";
/// The version that this binary writes, and the last one that it reads.
pub const VERSION: u16 = 1;
/// stdin, stdout and stderr stay where they are.
const FIRST_FD: i32 = 3;
/// No child has a lower pid.
const FIRST_PID: i32 = 2;

/// Everything that a keeper holds while a master serves.
#[derive(Debug, PartialEq, Eq)]
pub struct State<F> {
    /// RLIMIT_NOFILE as it was before the keeper raised it, soft and hard: workers get that.
    pub file_limit: (u64, u64),
    /// `/dev/null`.
    pub null: F,
    /// What the next master runs.
    pub binary: F,
    /// The watch over the masters.
    pub watch: WatchMemory,
    /// Pid of the master.
    pub master_pid: i32,
    /// The keeper's end of the connection to it.
    pub ours: F,
    /// The copy of its own.
    pub theirs: F,
    /// What it is still to be told.
    pub news: VecDeque<Notice>,
    /// Children, held fds, notes.
    pub table: Table<F>,
    /// Where children that have not yet said whether their program runs will say it.
    pub reports: BTreeMap<WorkerId, F>,
}

/// The same, lent.
#[derive(Debug)]
pub struct View<'a, F> {
    /// See [`State`].
    pub file_limit: (u64, u64),
    /// See [`State`].
    pub null: &'a F,
    /// See [`State`].
    pub binary: &'a F,
    /// See [`State`].
    pub watch: WatchMemory,
    /// See [`State`].
    pub master_pid: i32,
    /// See [`State`].
    pub ours: &'a F,
    /// See [`State`].
    pub theirs: &'a F,
    /// See [`State`].
    pub news: &'a VecDeque<Notice>,
    /// See [`State`].
    pub table: &'a Table<F>,
    /// See [`State`].
    pub reports: &'a BTreeMap<WorkerId, F>,
}

/// Why a state cannot be gone on from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateError {
    /// It is none.
    Foreign,
    /// Only a newer binary understands it.
    Newer(u16),
    /// A part of it is missing or makes no sense.
    Damaged { part: &'static str, error: CodecError },
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StateError::Foreign => write!(f, "it is no state of a keeper"),
            StateError::Newer(version) => {
                write!(f, "the keeper's state has version {version}; this binary reads up to {VERSION}")
            }
            StateError::Damaged { part, error } => write!(f, "the keeper's state is damaged ({part}): {error}"),
        }
    }
}

impl std::error::Error for StateError {}

impl<F> View<'_, F> {
    /// Every fd in it.
    pub fn fds(&self) -> impl Iterator<Item = &F> {
        let alone = [self.null, self.binary, self.ours, self.theirs].into_iter();
        alone.chain(self.table.held().map(|(_, fd)| fd)).chain(self.reports.values())
    }
}

impl<F> State<F> {
    /// The same, lent.
    pub fn view(&self) -> View<'_, F> {
        View {
            file_limit: self.file_limit,
            null: &self.null,
            binary: &self.binary,
            watch: self.watch,
            master_pid: self.master_pid,
            ours: &self.ours,
            theirs: &self.theirs,
            news: &self.news,
            table: &self.table,
            reports: &self.reports,
        }
    }

    /// The same with other fds.
    ///
    /// # Errors
    /// The first one of `change`.
    pub fn try_map<G, E>(self, mut change: impl FnMut(F) -> Result<G, E>) -> Result<State<G>, E> {
        let mut reports = BTreeMap::new();
        for (worker, fd) in self.reports {
            reports.insert(worker, change(fd)?);
        }
        Ok(State {
            file_limit: self.file_limit,
            null: change(self.null)?,
            binary: change(self.binary)?,
            watch: self.watch,
            master_pid: self.master_pid,
            ours: change(self.ours)?,
            theirs: change(self.theirs)?,
            news: self.news,
            table: self.table.try_map(change)?,
            reports,
        })
    }
}

// ---- to bytes ----

/// Encodes it; `number` is what an fd is called after it was handed over.
///
/// # Errors
/// A part, or the whole, over its bound.
pub fn encode<F>(state: &View<'_, F>, number: impl Fn(&F) -> i32) -> Result<Vec<u8>, CodecError> {
    let mut out = Records::new();
    let (soft, hard) = state.file_limit;
    out.add(1, |to| Ok(to.u64(soft).u64(hard).i32(number(state.null)).i32(number(state.binary))))?;
    let watch = &state.watch;
    out.add(2, |to| {
        to.u32(watch.incarnation).u64(watch.started_ms).u64(watch.backoff_ms).u32(watch.stops_asked);
        to.bool(watch.stop_now_until_ms.is_some());
        Ok(watch.stop_now_until_ms.into_iter().fold(to, Writer::u64))
    })?;
    out.add(3, |to| Ok(to.i32(state.master_pid).i32(number(state.ours)).i32(number(state.theirs))))?;
    for (worker, child) in state.table.children() {
        let report = state.reports.get(&worker).map(&number);
        out.add(4, |to| {
            to.u64(worker.0).i32(child.pid).u64(child.started_ms).bytes("tag", &child.tag, SPAWN_TAG_BYTES_MAX)?;
            to.optional_i32(report);
            Ok(match child.state {
                Life::Starting => to.u8(0),
                Life::Failing { step, errno } => to.u8(1).u8(codec::step_number(step)).i32(errno),
                Life::Running => to.u8(2),
                Life::Ended { status, at_ms } => to.u8(3).i32(status).u64(at_ms),
            })
        })?;
    }
    for (name, fd) in state.table.held() {
        out.add(5, |to| Ok(to.name("name", name)?.i32(number(fd))))?;
    }
    for (key, value) in state.table.notes() {
        out.add(6, |to| to.name("key", key)?.bytes("value", value, NOTE_BYTES_MAX))?;
    }
    for notice in state.table.waiting() {
        out.add(7, |to| Ok(to.put(&codec::encode_notice(notice)?)))?;
    }
    for notice in state.news {
        out.add(8, |to| Ok(to.put(&codec::encode_notice(notice)?)))?;
    }
    out.finish()
}

struct Records {
    out: Writer,
    count: u32,
}

impl Records {
    fn new() -> Records {
        let mut out = Writer::default();
        out.put(MARK).u16(VERSION);
        Records { out, count: 0 }
    }

    fn add(
        &mut self,
        kind: u8,
        write: impl for<'w> FnOnce(&'w mut Writer) -> Result<&'w mut Writer, CodecError>,
    ) -> Result<(), CodecError> {
        let mut record = Writer::default();
        write(&mut record)?;
        self.out.kind(kind).bytes("record", &record.bytes, KEEPER_PACKET_BYTES_MAX)?;
        self.count += 1;
        within("state", self.out.bytes.len(), KEEPER_STATE_BYTES_MAX)
    }

    fn finish(mut self) -> Result<Vec<u8>, CodecError> {
        let count = self.count;
        self.add(LAST, |to| Ok(to.u32(count)))?;
        Ok(self.out.bytes)
    }
}

/// Kind of the last record.
const LAST: u8 = 255;

// ---- from bytes ----

/// Decodes it. Nothing in it is said twice: no fd, no name, no pid, no worker.
///
/// # Errors
/// It is none, of a later version, or damaged.
pub fn decode(bytes: &[u8]) -> Result<State<i32>, StateError> {
    let damaged = |part| move |error| StateError::Damaged { part, error };
    within("state", bytes.len(), KEEPER_STATE_BYTES_MAX).map_err(damaged("all of it"))?;
    let mut from = Reader { rest: bytes.strip_prefix(MARK).ok_or(StateError::Foreign)? };
    let version = from.u16("version").map_err(damaged("version"))?;
    if version > VERSION {
        return Err(StateError::Newer(version));
    }
    let mut parts = Parts::default();
    let mut count = 0;
    loop {
        let record = from.kind().and_then(|kind| Ok((kind, from.slice("record", KEEPER_PACKET_BYTES_MAX)?)));
        let (kind, record) = record.map_err(damaged("records"))?;
        if kind == LAST {
            let said = Reader { rest: record }.u32("number of records").map_err(damaged("last record"))?;
            if said != count {
                return Err(damaged("last record")(CodecError::Bad("number of records")));
            }
            return parts.whole().map_err(damaged("all of it"));
        }
        parts.take(kind, &mut Reader { rest: record }).map_err(|(part, error)| damaged(part)(error))?;
        count += 1;
    }
}

#[derive(Default)]
struct Parts {
    keeper: Option<((u64, u64), i32, i32)>,
    watch: Option<WatchMemory>,
    master: Option<(i32, i32, i32)>,
    news: VecDeque<Notice>,
    table: Table<i32>,
    reports: BTreeMap<WorkerId, i32>,
}

type Part<T> = Result<T, (&'static str, CodecError)>;

impl Parts {
    fn take(&mut self, kind: u8, from: &mut Reader<'_>) -> Part<()> {
        let (part, taken) = match kind {
            1 => ("keeper", self.keeper(from)),
            2 => ("watch", self.watch(from)),
            3 => ("master", self.master(from)),
            4 => ("child", self.child(from)),
            5 => ("held file", self.held(from)),
            6 => ("note", self.note(from)),
            7 => ("waiting news", self.notice(from, true)),
            8 => ("news", self.notice(from, false)),
            _ => return Ok(()),
        };
        taken.map_err(|error| (part, error))
    }

    fn keeper(&mut self, from: &mut Reader<'_>) -> Result<(), CodecError> {
        let file_limit = (from.u64("soft limit")?, from.u64("hard limit")?);
        self.keeper = Some((file_limit, from.i32("null device")?, from.i32("binary")?));
        Ok(())
    }

    fn watch(&mut self, from: &mut Reader<'_>) -> Result<(), CodecError> {
        self.watch = Some(WatchMemory {
            incarnation: from.u32("incarnation")?,
            started_ms: from.u64("start time")?,
            backoff_ms: from.or(0, |from| from.u64("backoff"))?,
            stops_asked: from.or(0, |from| from.u32("stops"))?,
            stop_now_until_ms: from.or(None, |from| from.optional(|from| from.u64("deadline")))?,
        });
        Ok(())
    }

    fn master(&mut self, from: &mut Reader<'_>) -> Result<(), CodecError> {
        self.master = Some((pid(from)?, from.i32("connection")?, from.i32("connection's other end")?));
        Ok(())
    }

    fn child(&mut self, from: &mut Reader<'_>) -> Result<(), CodecError> {
        let (worker, pid, started_ms) = (from.worker()?, pid(from)?, from.u64("start time")?);
        let tag = from.bytes("tag", SPAWN_TAG_BYTES_MAX)?;
        let report = from.optional_i32()?;
        let state = match from.u8("state")? {
            0 => Life::Starting,
            1 => Life::Failing { step: codec::step_of(from.u8("step")?), errno: from.i32("errno")? },
            2 => Life::Running,
            3 => Life::Ended { status: from.i32("status")?, at_ms: from.u64("time")? },
            _ => return Err(CodecError::Bad("state")),
        };
        self.reports.extend(report.map(|report| (worker, report)));
        let restored = self.table.restore(worker, Child { pid, tag, started_ms, state });
        restored.map_err(|_| CodecError::Bad("worker id or pid, which is there twice or one too many,"))
    }

    fn held(&mut self, from: &mut Reader<'_>) -> Result<(), CodecError> {
        match self.table.hold(from.name("name")?, from.i32("file descriptor")?) {
            Ok(None) => Ok(()),
            Ok(Some(_)) | Err(_) => Err(CodecError::Bad("name, which is there twice or one too many,")),
        }
    }

    fn note(&mut self, from: &mut Reader<'_>) -> Result<(), CodecError> {
        let noted = self.table.note(from.name("key")?, from.bytes("value", NOTE_BYTES_MAX)?);
        noted.map_err(|_| CodecError::Bad("key, which is one too many,"))
    }

    fn notice(&mut self, from: &mut Reader<'_>, waiting: bool) -> Result<(), CodecError> {
        // One of a kind that is not known is nothing that this binary could tell anybody.
        let Decoded::Known(notice) = codec::decode_notice(from.rest)? else { return Ok(()) };
        if waiting {
            return self.table.restore_waiting(notice).map_err(|_| CodecError::Bad("number"));
        }
        within("number", self.news.len() + 1, KEEPER_OUTBOX_MAX)?;
        self.news.push_back(notice);
        Ok(())
    }

    fn whole(self) -> Result<State<i32>, CodecError> {
        let (file_limit, null, binary) = self.keeper.ok_or(CodecError::Short("keeper"))?;
        let (master_pid, ours, theirs) = self.master.ok_or(CodecError::Short("master"))?;
        let watch = self.watch.ok_or(CodecError::Short("watch"))?;
        let (news, table, reports) = (self.news, self.table, self.reports);
        let state = State { file_limit, null, binary, watch, master_pid, ours, theirs, news, table, reports };
        if state.table.worker_of(master_pid).is_some() {
            return Err(CodecError::Bad("master's pid"));
        }
        // Two owners of one fd would close it under each other.
        let mut seen = HashSet::new();
        if state.view().fds().any(|&fd| fd < FIRST_FD || !seen.insert(fd)) {
            return Err(CodecError::Bad("file descriptor"));
        }
        Ok(state)
    }
}

fn pid(from: &mut Reader<'_>) -> Result<i32, CodecError> {
    from.i32("pid").and_then(|pid| if pid >= FIRST_PID { Ok(pid) } else { Err(CodecError::Bad("pid")) })
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
