//! Encodes everything that the keeper holds, for the binary that it becomes, and decodes it. Pure: a held fd is any
//! type, and a number once it is encoded. The format is that of `crate::record`.
use super::protocol::{GroupLimits, KEEPER_OUTBOX_MAX, Notice};
use super::table::{Child, State as Life, Table};
use super::watchdog::WatchdogState;
use crate::ids::WorkerId;
use crate::limits::{KEEPER_NAME_BYTES_MAX, NOTE_BYTES_MAX, SPAWN_TAG_BYTES_MAX};
use crate::record::{self, RecordError, record, variants, within};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet, VecDeque};

/// Size of what the keeper hands to the binary that it becomes, in bytes. Over it the keeper stays what it is.
pub const KEEPER_STATE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// stdin, stdout and stderr stay where they are.
const FIRST_FD: i32 = 3;
/// Init has pid 1; no child has a lower pid than this.
const FIRST_PID: i32 = 2;

/// Everything that a keeper holds while a master serves.
#[derive(Debug, PartialEq, Eq)]
pub struct State<F> {
    /// RLIMIT_NOFILE before the keeper raised it, soft and hard: workers get that.
    pub file_limit: (u64, u64),
    /// The keeper's oom_score_adj before it lowered it, if it did: workers get that.
    pub original_oom_score_adj: Option<i32>,
    /// `/dev/null`.
    pub null: F,
    /// The binary of the next master.
    pub binary: F,
    pub watchdog: WatchdogState,
    pub master_pid: i32,
    /// The keeper's end of the connection to it.
    pub ours: F,
    /// The keeper's copy of the master's end.
    pub theirs: F,
    /// News not sent yet.
    pub news: VecDeque<Notice>,
    /// Children, held fds, and the checkpoint.
    pub table: Table<F>,
    /// Reports of children whose exec has neither failed nor succeeded yet.
    pub reports: BTreeMap<WorkerId, F>,
    /// Cgroups.
    pub groups: GroupsState,
}

/// The cgroups of the apps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupsState {
    /// The name of the group of all of them; "" if there is none.
    pub base: String,
    /// One for each app.
    pub apps: Vec<GroupState>,
}

/// The cgroup of an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupState {
    /// The app.
    pub app: String,
    /// What it may use.
    pub limits: GroupLimits,
    /// How many of its processes the kernel has killed for lack of memory, as far as they are accounted for.
    pub oom_kills: u64,
}

/// A borrowed [`State`].
#[derive(Debug)]
pub struct View<'a, F> {
    /// See [`State`].
    pub file_limit: (u64, u64),
    /// See [`State`].
    pub original_oom_score_adj: Option<i32>,
    /// See [`State`].
    pub null: &'a F,
    /// See [`State`].
    pub binary: &'a F,
    /// See [`State`].
    pub watchdog: WatchdogState,
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
    /// See [`State`].
    pub groups: Cow<'a, GroupsState>,
}

impl<F> View<'_, F> {
    /// Every fd in it.
    pub fn fds(&self) -> impl Iterator<Item = &F> {
        let alone = [self.null, self.binary, self.ours, self.theirs].into_iter();
        alone.chain(self.table.held().map(|(_, fd)| fd)).chain(self.reports.values())
    }
}

impl<F> State<F> {
    /// Borrows the state.
    pub fn view(&self) -> View<'_, F> {
        View {
            file_limit: self.file_limit,
            original_oom_score_adj: self.original_oom_score_adj,
            null: &self.null,
            binary: &self.binary,
            watchdog: self.watchdog,
            master_pid: self.master_pid,
            ours: &self.ours,
            theirs: &self.theirs,
            news: &self.news,
            table: &self.table,
            reports: &self.reports,
            groups: Cow::Borrowed(&self.groups),
        }
    }

    /// The same state with other fds.
    ///
    /// # Errors
    /// The first error of `change`.
    pub fn try_map<G, E>(self, mut change: impl FnMut(F) -> Result<G, E>) -> Result<State<G>, E> {
        let mut reports = BTreeMap::new();
        for (worker, fd) in self.reports {
            reports.insert(worker, change(fd)?);
        }
        Ok(State {
            file_limit: self.file_limit,
            original_oom_score_adj: self.original_oom_score_adj,
            null: change(self.null)?,
            binary: change(self.binary)?,
            watchdog: self.watchdog,
            master_pid: self.master_pid,
            ours: change(self.ours)?,
            theirs: change(self.theirs)?,
            news: self.news,
            table: self.table.try_map(change)?,
            reports,
            groups: self.groups,
        })
    }
}

// ---- the record ----

/// The encoded form of a state: borrowed for encoding, owned after decoding.
struct Saved<'a> {
    soft_limit: u64,
    hard_limit: u64,
    null: i32,
    binary: i32,
    watchdog: WatchdogState,
    master: SavedMaster,
    children: Vec<SavedChild<'a>>,
    held: Vec<SavedFile<'a>>,
    notes: Vec<SavedNote<'a>>,
    waiting: Vec<Cow<'a, Notice>>,
    news: Vec<Cow<'a, Notice>>,
    original_oom_score_adj: Option<i32>,
    groups: Cow<'a, GroupsState>,
}

record! {
    Saved<'a> {
        1 soft_limit;
        2 hard_limit;
        3 null;
        4 binary;
        5 watchdog;
        6 master;
        7 children;
        8 held;
        9 notes;
        10 waiting;
        11 news;
        12 original_oom_score_adj;
        13 groups = Cow::default();
    }
}

record! { GroupsState { 1 base [max KEEPER_NAME_BYTES_MAX] = String::new(); 2 apps; } }
record! {
    GroupState {
        1 app [max KEEPER_NAME_BYTES_MAX];
        2 limits = GroupLimits::default();
        3 oom_kills = 0;
    }
}

record! {
    WatchdogState {
        1 incarnation;
        2 started_ms;
        3 backoff_ms = 0;
        4 stops_asked = 0;
        5 stop_now_until_ms;
    }
}

struct SavedMaster {
    pid: i32,
    ours: i32,
    theirs: i32,
}

record! { SavedMaster { 1 pid; 2 ours; 3 theirs; } }

struct SavedChild<'a> {
    worker: WorkerId,
    child: Cow<'a, Child>,
    report: Option<i32>,
}

record! { SavedChild<'a> { 1 worker; 2 child; 3 report; } }
record! {
    Child {
        1 pid;
        2 tag [max SPAWN_TAG_BYTES_MAX];
        3 started_ms;
        4 state;
        5 app [max KEEPER_NAME_BYTES_MAX] = String::new();
        6 out_of_memory = false;
    }
}

variants! {
    Life {
        0 Starting {}
        1 Failing { 1 step; 2 errno = 0; }
        2 Running {}
        3 Ended { 1 status; 2 at_ms; }
    }
}

struct SavedFile<'a> {
    name: Cow<'a, str>,
    fd: i32,
}

record! { SavedFile<'a> { 1 name [max KEEPER_NAME_BYTES_MAX]; 2 fd; } }

struct SavedNote<'a> {
    key: Cow<'a, str>,
    value: Cow<'a, [u8]>,
}

record! { SavedNote<'a> { 1 key [max KEEPER_NAME_BYTES_MAX]; 2 value [max NOTE_BYTES_MAX]; } }

/// Encodes the state as a document. `number` gives the number of a held fd after the hand-over.
///
/// # Errors
/// A part, or the whole, exceeds its bound.
pub fn encode<F>(state: &View<'_, F>, number: impl Fn(&F) -> i32) -> Result<Vec<u8>, RecordError> {
    let (soft_limit, hard_limit) = state.file_limit;
    let child = |(worker, child)| SavedChild {
        worker,
        child: Cow::Borrowed(child),
        report: state.reports.get(&worker).map(&number),
    };
    let file = |(name, fd)| SavedFile { name: Cow::Borrowed(name), fd: number(fd) };
    let note = |(key, value)| SavedNote { key: Cow::Borrowed(key), value: Cow::Borrowed(value) };
    let bytes = record::to_document(&Saved {
        soft_limit,
        hard_limit,
        null: number(state.null),
        binary: number(state.binary),
        watchdog: state.watchdog,
        master: SavedMaster { pid: state.master_pid, ours: number(state.ours), theirs: number(state.theirs) },
        children: state.table.children().map(child).collect(),
        held: state.table.held().map(file).collect(),
        notes: state.table.notes().map(note).collect(),
        waiting: state.table.waiting().map(Cow::Borrowed).collect(),
        news: state.news.iter().map(Cow::Borrowed).collect(),
        original_oom_score_adj: state.original_oom_score_adj,
        groups: Cow::Borrowed(&*state.groups),
    })?;
    within("state", bytes.len(), KEEPER_STATE_BYTES_MAX)?;
    Ok(bytes)
}

/// Decodes a state. Checks that every fd, name, pid and worker is unique.
///
/// # Errors
/// The bytes are not a state, of a later version, or damaged.
pub fn decode(bytes: &[u8]) -> Result<State<i32>, RecordError> {
    within("state", bytes.len(), KEEPER_STATE_BYTES_MAX)?;
    record::from_document::<Saved<'_>>(bytes)?.into_state()
}

impl Saved<'_> {
    fn into_state(self) -> Result<State<i32>, RecordError> {
        let mut table = Table::default();
        let mut reports = BTreeMap::new();
        for SavedChild { worker, child, report } in self.children {
            if child.pid < FIRST_PID || child.pid == self.master.pid && !matches!(child.state, Life::Ended { .. }) {
                return Err(RecordError::Bad("pid of a child"));
            }
            reports.extend(report.map(|report| (worker, report)));
            let restored = table.restore(worker, child.into_owned());
            restored.map_err(|_| RecordError::Bad("list of children (one twice, or too many)"))?;
        }
        for SavedFile { name, fd } in self.held {
            match table.hold(name.into_owned(), fd) {
                Ok(None) => {}
                Ok(Some(_)) | Err(_) => {
                    return Err(RecordError::Bad("list of files (one name twice, or too many)"));
                }
            }
        }
        for SavedNote { key, value } in self.notes {
            let noted = table.note(key.into_owned(), value.into_owned());
            noted.map_err(|_| RecordError::Bad("list of records (too many)"))?;
        }
        for notice in self.waiting {
            let restored = table.restore_waiting(notice.into_owned());
            restored.map_err(|_| RecordError::Bad("list of waiting messages (too many)"))?;
        }
        within("news", self.news.len(), KEEPER_OUTBOX_MAX)?;
        if self.master.pid < FIRST_PID {
            return Err(RecordError::Bad("master's pid"));
        }
        let state = State {
            file_limit: (self.soft_limit, self.hard_limit),
            original_oom_score_adj: self.original_oom_score_adj,
            null: self.null,
            binary: self.binary,
            watchdog: self.watchdog,
            master_pid: self.master.pid,
            ours: self.master.ours,
            theirs: self.master.theirs,
            news: self.news.into_iter().map(Cow::into_owned).collect(),
            table,
            reports,
            groups: self.groups.into_owned(),
        };
        // Two owners of one fd would close it for each other.
        let mut seen = HashSet::new();
        if state.view().fds().any(|&fd| fd < FIRST_FD || !seen.insert(fd)) {
            return Err(RecordError::Bad("file descriptor"));
        }
        Ok(state)
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
