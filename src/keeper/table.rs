//! What the keeper holds: children, fds by name, the checkpoint, and news that wait for a master. Pure: a held fd is
//! any type, time is an argument, and the caller reports what happens to processes.
use super::protocol::{Notice, SpawnStep};
use crate::ids::WorkerId;
use crate::limits::CHILDREN_MAX;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::ops::Bound::{Excluded, Unbounded};

/// Notes (opaque records of the master's checkpoint) that the keeper holds.
const NOTES_MAX: usize = 32 * 1024;

/// File descriptors that the keeper holds by name.
const HELD_FDS_MAX: usize = 64 * 1024;

/// Signals queued while there is no master.
const SIGNALS_PENDING_MAX: usize = 64;

/// A process that the master ordered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Child {
    /// Also its process group.
    pub pid: i32,
    /// The tag of its spawn.
    pub tag: Vec<u8>,
    /// Its app, if that has a cgroup.
    pub app: String,
    /// When it was forked.
    pub started_ms: u64,
    /// The kernel killed it because its cgroup was out of memory.
    pub out_of_memory: bool,
    pub state: State,
}

/// The state of a child. Acknowledged children are no longer in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Forked; its program does not run yet.
    Starting,
    /// It reported why its program cannot run, and is about to exit.
    Failing { step: SpawnStep, errno: i32 },
    /// Its program runs.
    Running,
    /// Reaped: its pid is meaningless. Waits for the master's acknowledgement.
    Ended { status: i32, at_ms: u64 },
}

/// What a reaped pid was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reaped {
    /// A child that ended; it stays in the table until [`Table::exit_seen`].
    Exited { worker: WorkerId, status: i32, at_ms: u64, out_of_memory: bool },
    /// A child whose program never ran; it was removed.
    NeverRan { worker: WorkerId, step: SpawnStep, errno: i32 },
    /// Not a child of ours: a process that lost its parent and was reparented to us.
    Stranger,
}

/// Why something was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The bound is reached.
    Full { what: &'static str, max: usize },
    /// The worker id was used before.
    InUse(WorkerId),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Full { what, max } => write!(f, "the limit of {max} {what} is reached"),
            Refusal::InUse(worker) => write!(f, "worker {worker} exists already"),
        }
    }
}

/// Everything that outlives a master, and the keeper's binary. `F` is a held fd.
#[derive(Debug, PartialEq, Eq)]
pub struct Table<F> {
    children: BTreeMap<WorkerId, Child>,
    by_pid: HashMap<i32, WorkerId>,
    held: BTreeMap<String, F>,
    notes: BTreeMap<String, Vec<u8>>,
    waiting: VecDeque<Notice>,
}

impl<F> Default for Table<F> {
    fn default() -> Self {
        Table {
            children: BTreeMap::new(),
            by_pid: HashMap::new(),
            held: BTreeMap::new(),
            notes: BTreeMap::new(),
            waiting: VecDeque::new(),
        }
    }
}

impl<F> Table<F> {
    /// Checks that a child with this id may be started.
    ///
    /// # Errors
    /// The bound is reached, or the id is in use.
    pub fn may_start(&self, worker: WorkerId) -> Result<(), Refusal> {
        if self.children.contains_key(&worker) {
            return Err(Refusal::InUse(worker));
        }
        if self.children.len() >= CHILDREN_MAX {
            return Err(Refusal::Full { what: "processes", max: CHILDREN_MAX });
        }
        Ok(())
    }

    /// A child was forked.
    pub fn started(&mut self, worker: WorkerId, pid: i32, tag: Vec<u8>, app: String, now_ms: u64) {
        self.by_pid.insert(pid, worker);
        let state = State::Starting;
        self.children.insert(worker, Child { pid, tag, app, started_ms: now_ms, out_of_memory: false, state });
    }

    /// The app of a child whose app has a cgroup.
    #[must_use]
    pub fn app_of(&self, worker: WorkerId) -> Option<&str> {
        self.children.get(&worker).map(|child| child.app.as_str()).filter(|app| !app.is_empty())
    }

    /// The kernel has killed the child because its cgroup was out of memory. To be said before it is reaped.
    pub fn out_of_memory(&mut self, worker: WorkerId) {
        if let Some(child) = self.children.get_mut(&worker) {
            child.out_of_memory = true;
        }
    }

    /// The child's program runs. Returns its pid; `None` if it was not starting.
    pub fn executed(&mut self, worker: WorkerId) -> Option<i32> {
        let child = self.children.get_mut(&worker)?;
        match child.state {
            State::Starting => {
                child.state = State::Running;
                Some(child.pid)
            }
            State::Failing { .. } | State::Running | State::Ended { .. } => None,
        }
    }

    /// The child reported that its program cannot run. The master is told once it is reaped.
    pub fn failing(&mut self, worker: WorkerId, step: SpawnStep, errno: i32) {
        if let Some(child) = self.children.get_mut(&worker) {
            match child.state {
                State::Starting => child.state = State::Failing { step, errno },
                State::Failing { .. } | State::Running | State::Ended { .. } => {}
            }
        }
    }

    /// The child with this pid, while it is not reaped.
    #[must_use]
    pub fn worker_of(&self, pid: i32) -> Option<WorkerId> {
        self.by_pid.get(&pid).copied()
    }

    /// This pid was reaped. The report of a child in [`State::Starting`] has to be handled before.
    pub fn reaped(&mut self, pid: i32, status: i32, now_ms: u64) -> Reaped {
        let Some(worker) = self.by_pid.remove(&pid) else { return Reaped::Stranger };
        let Some(child) = self.children.get_mut(&worker) else { return Reaped::Stranger };
        match child.state {
            State::Failing { step, errno } => {
                self.children.remove(&worker);
                Reaped::NeverRan { worker, step, errno }
            }
            State::Starting | State::Running | State::Ended { .. } => {
                child.state = State::Ended { status, at_ms: now_ms };
                Reaped::Exited { worker, status, at_ms: now_ms, out_of_memory: child.out_of_memory }
            }
        }
    }

    /// The master acknowledged the end of this child. Returns false, without effect, while it lives or if it is
    /// unknown.
    pub fn exit_seen(&mut self, worker: WorkerId) -> bool {
        let ended = matches!(self.children.get(&worker), Some(Child { state: State::Ended { .. }, .. }));
        if ended {
            self.children.remove(&worker);
        }
        ended
    }

    /// The pid for a signal to this worker, while it is not reaped.
    #[must_use]
    pub fn signal_target(&self, worker: WorkerId) -> Option<i32> {
        let child = self.children.get(&worker)?;
        match child.state {
            State::Starting | State::Failing { .. } | State::Running => Some(child.pid),
            State::Ended { .. } => None,
        }
    }

    /// The pids of all children that are not reaped.
    pub fn unreaped_pids(&self) -> impl Iterator<Item = i32> + '_ {
        self.by_pid.keys().copied()
    }

    /// How many children are not reaped.
    #[must_use]
    pub fn unreaped_count(&self) -> usize {
        self.by_pid.len()
    }

    /// The first child after this id, in the order of ids.
    #[must_use]
    pub fn child_after(&self, last: Option<WorkerId>) -> Option<(WorkerId, &Child)> {
        let from = last.map_or(Unbounded, Excluded);
        self.children.range((from, Unbounded)).next().map(|(worker, child)| (*worker, child))
    }

    /// Holds an fd under a name. Returns an fd that had the name, to be closed.
    ///
    /// # Errors
    /// The bound is reached.
    pub fn hold(&mut self, name: String, fd: F) -> Result<Option<F>, Refusal> {
        if self.held.len() >= HELD_FDS_MAX && !self.held.contains_key(&name) {
            return Err(Refusal::Full { what: "held file descriptors", max: HELD_FDS_MAX });
        }
        Ok(self.held.insert(name, fd))
    }

    /// Removes a held fd.
    pub fn release(&mut self, name: &str) -> Option<F> {
        self.held.remove(name)
    }

    /// The fd held under this name.
    #[must_use]
    pub fn held_as(&self, name: &str) -> Option<&F> {
        self.held.get(name)
    }

    /// The first held fd after this name.
    #[must_use]
    pub fn held_after(&self, last: Option<&str>) -> Option<(&str, &F)> {
        let from = last.map_or(Unbounded, Excluded);
        self.held.range::<str, _>((from, Unbounded)).next().map(|(name, fd)| (name.as_str(), fd))
    }

    /// Stores a value.
    ///
    /// # Errors
    /// The bound is reached.
    pub fn note(&mut self, key: String, value: Vec<u8>) -> Result<(), Refusal> {
        if self.notes.len() >= NOTES_MAX && !self.notes.contains_key(&key) {
            return Err(Refusal::Full { what: "records", max: NOTES_MAX });
        }
        self.notes.insert(key, value);
        Ok(())
    }

    /// Deletes a value.
    pub fn forget(&mut self, key: &str) {
        self.notes.remove(key);
    }

    /// The first stored value after this key.
    #[must_use]
    pub fn note_after(&self, last: Option<&str>) -> Option<(&str, &[u8])> {
        let from = last.map_or(Unbounded, Excluded);
        self.notes.range::<str, _>((from, Unbounded)).next().map(|(key, value)| (key.as_str(), value.as_slice()))
    }

    /// Keeps news that no master has read. The next master learns most of them from the table; signals and failed
    /// spawns are not in the table, and are queued. Signals coalesce as in the kernel: repeating a queued one adds
    /// nothing, except that a second "stop" means "stop now" (`is_stop`).
    pub fn keep_for_next_master(&mut self, notice: Notice, is_stop: impl Fn(i32) -> bool) {
        let room = match &notice {
            Notice::Signal { signal, .. } => {
                let signals = self.waiting.iter().filter(|waiting| matches!(waiting, Notice::Signal { .. })).count();
                let same = self.waiting.iter().filter(|waiting| **waiting == notice).count();
                same < if is_stop(*signal) { 2 } else { 1 } && signals < SIGNALS_PENDING_MAX
            }
            Notice::SpawnFailed { .. } => self.waiting.len() < CHILDREN_MAX,
            Notice::Hello { .. }
            | Notice::Child { .. }
            | Notice::Held { .. }
            | Notice::Noted { .. }
            | Notice::Begin
            | Notice::Keeper { .. }
            | Notice::Looked { .. }
            | Notice::Spawned { .. }
            | Notice::Exited { .. } => false,
        };
        if room {
            self.waiting.push_back(notice);
        }
    }

    /// Takes the queued news, in order.
    pub fn take_waiting(&mut self) -> VecDeque<Notice> {
        std::mem::take(&mut self.waiting)
    }

    // ---- for another binary ----

    /// Every child, in the order of ids.
    pub fn children(&self) -> impl Iterator<Item = (WorkerId, &Child)> {
        self.children.iter().map(|(worker, child)| (*worker, child))
    }

    /// Every held fd, in the order of names.
    pub fn held(&self) -> impl Iterator<Item = (&str, &F)> {
        self.held.iter().map(|(name, fd)| (name.as_str(), fd))
    }

    /// Every stored value, in the order of keys.
    pub fn notes(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.notes.iter().map(|(key, value)| (key.as_str(), value.as_slice()))
    }

    /// The queued news, in order.
    pub fn waiting(&self) -> impl Iterator<Item = &Notice> {
        self.waiting.iter()
    }

    /// Restores a child.
    ///
    /// # Errors
    /// The bound is reached; its id or its pid is in use.
    pub fn restore(&mut self, worker: WorkerId, child: Child) -> Result<(), Refusal> {
        self.may_start(worker)?;
        match child.state {
            State::Starting | State::Failing { .. } | State::Running => {
                if self.by_pid.insert(child.pid, worker).is_some() {
                    return Err(Refusal::InUse(worker));
                }
            }
            State::Ended { .. } => {}
        }
        self.children.insert(worker, child);
        Ok(())
    }

    /// Restores queued news.
    ///
    /// # Errors
    /// The bound is reached.
    pub fn restore_waiting(&mut self, notice: Notice) -> Result<(), Refusal> {
        let max = CHILDREN_MAX + SIGNALS_PENDING_MAX;
        if self.waiting.len() >= max {
            return Err(Refusal::Full { what: "waiting messages", max });
        }
        self.waiting.push_back(notice);
        Ok(())
    }

    /// The same table with other fds.
    ///
    /// # Errors
    /// The first error of `change`.
    pub fn try_map<G, E>(self, mut change: impl FnMut(F) -> Result<G, E>) -> Result<Table<G>, E> {
        let Table { children, by_pid, held, notes, waiting } = self;
        let held = held.into_iter().map(|(name, fd)| Ok((name, change(fd)?))).collect::<Result<_, E>>()?;
        Ok(Table { children, by_pid, held, notes, waiting })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const W1: WorkerId = WorkerId(1);
    const W2: WorkerId = WorkerId(2);

    #[test]
    fn an_exit_is_remembered_until_it_was_seen() {
        let mut table: Table<u32> = Table::default();
        table.may_start(W1).unwrap();
        table.started(W1, 100, b"tag".to_vec(), String::new(), 5);
        assert_eq!(table.may_start(W1), Err(Refusal::InUse(W1)));
        assert_eq!(table.executed(W1), Some(100));
        assert_eq!(table.executed(W1), None);
        assert!(!table.exit_seen(W1));
        assert_eq!(table.reaped(100, 9, 77), Reaped::Exited { worker: W1, status: 9, at_ms: 77, out_of_memory: false });
        let (worker, child) = table.child_after(None).unwrap();
        assert_eq!((worker, child.state), (W1, State::Ended { status: 9, at_ms: 77 }));
        assert_eq!(table.may_start(W1), Err(Refusal::InUse(W1)));
        assert!(table.exit_seen(W1));
        assert!(!table.exit_seen(W1));
        assert!(table.child_after(None).is_none());
    }

    #[test]
    fn a_reaped_pid_is_never_signalled_even_when_another_child_gets_it() {
        let mut table: Table<u32> = Table::default();
        table.started(W1, 100, vec![], String::new(), 0);
        assert_eq!(table.signal_target(W1), Some(100));
        table.executed(W1);
        assert_eq!(table.signal_target(W1), Some(100));
        table.reaped(100, 0, 1);
        assert_eq!(table.signal_target(W1), None);
        table.started(W2, 100, vec![], String::new(), 2);
        assert_eq!(table.signal_target(W1), None);
        assert_eq!(table.signal_target(W2), Some(100));
        table.exit_seen(W1);
        assert_eq!(table.worker_of(100), Some(W2));
        assert_eq!(table.unreaped_pids().collect::<Vec<_>>(), [100]);
    }

    #[test]
    fn a_program_that_never_ran_leaves_nothing() {
        let mut table: Table<u32> = Table::default();
        table.started(W1, 100, vec![], String::new(), 0);
        table.failing(W1, SpawnStep::Exec, 2);
        assert_eq!(table.executed(W1), None);
        let expected = Reaped::NeverRan { worker: W1, step: SpawnStep::Exec, errno: 2 };
        assert_eq!(table.reaped(100, 127 << 8, 1), expected);
        assert!(table.child_after(None).is_none());
        assert_eq!(table.unreaped_count(), 0);
        assert_eq!(table.reaped(100, 0, 1), Reaped::Stranger);
    }

    #[test]
    fn held_fds_and_notes_are_replaced_walked_and_dropped() {
        let mut table: Table<u32> = Table::default();
        assert_eq!(table.hold("b".into(), 1).unwrap(), None);
        assert_eq!(table.hold("a".into(), 2).unwrap(), None);
        assert_eq!(table.hold("b".into(), 3).unwrap(), Some(1));
        assert_eq!(table.held_after(None), Some(("a", &2)));
        assert_eq!(table.held_after(Some("a")), Some(("b", &3)));
        // A walk continues even when its last position was removed.
        assert_eq!(table.release("a"), Some(2));
        assert_eq!(table.held_after(Some("a")), Some(("b", &3)));
        assert_eq!(table.held_after(Some("b")), None);
        table.note("k".into(), b"1".to_vec()).unwrap();
        table.note("k".into(), b"2".to_vec()).unwrap();
        assert_eq!(table.note_after(None), Some(("k", &b"2"[..])));
        table.forget("k");
        table.forget("unknown");
        assert_eq!(table.note_after(None), None);
    }

    #[test]
    fn every_bound_refuses_and_still_lets_replace() {
        let mut table: Table<()> = Table::default();
        for n in 0..HELD_FDS_MAX {
            table.hold(n.to_string(), ()).unwrap();
        }
        assert!(matches!(table.hold("one more".into(), ()), Err(Refusal::Full { .. })));
        table.hold("0".into(), ()).unwrap();
        for n in 0..NOTES_MAX {
            table.note(n.to_string(), vec![]).unwrap();
        }
        assert!(matches!(table.note("one more".into(), vec![]), Err(Refusal::Full { .. })));
        table.note("0".into(), vec![1]).unwrap();
        for n in 0..CHILDREN_MAX as u64 {
            table.started(WorkerId(n), n as i32 + 2, vec![], String::new(), 0);
        }
        let over = WorkerId(CHILDREN_MAX as u64);
        assert!(matches!(table.may_start(over), Err(Refusal::Full { .. })));
    }

    #[test]
    fn waiting_signals_coalesce_and_a_second_stop_counts() {
        let mut table: Table<()> = Table::default();
        let signal = |signal, value| Notice::Signal { signal, value };
        let failed = Notice::SpawnFailed { worker: W1, step: SpawnStep::Exec, errno: 2 };
        let mut keep = |notice| table.keep_for_next_master(notice, |signal| signal == 15);
        for _ in 0..3 {
            keep(signal(1, None));
            keep(signal(15, None));
        }
        keep(failed.clone());
        keep(Notice::Exited { worker: W2, status: 0, at_ms: 0, out_of_memory: false });
        keep(signal(12, Some(4)));
        keep(signal(12, Some(5)));
        let all: Vec<_> = table.take_waiting().into();
        let expected =
            [signal(1, None), signal(15, None), signal(15, None), failed, signal(12, Some(4)), signal(12, Some(5))];
        assert_eq!(all, expected);
        for n in 0..1000 {
            table.keep_for_next_master(signal(12, Some(n)), |_| false);
        }
        assert_eq!(table.take_waiting().len(), SIGNALS_PENDING_MAX);
        assert!(table.take_waiting().is_empty());
    }
}
