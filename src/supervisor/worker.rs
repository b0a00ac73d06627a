//! A worker, an agent or the command before them as the supervisor sees it. `app` makes the transitions.
use super::ReadyBy;
use crate::ids::{Generation, Slot, WorkerId};
use std::collections::BTreeMap;

/// The same for a worker that is not ready yet, in milliseconds: nobody misses it, and its exit status says more, even
/// if it arrives late because CPUs are scarce.
pub const CHANNEL_CLOSED_STARTING_MS: u64 = 1_000;

/// A worker whose channel closed and whose process is still alive after this, in milliseconds, is leaving by itself.
const CHANNEL_CLOSED_GRACE_MS: u64 = 50;

/// A worker that closed its last server and opened none within this time, in milliseconds, is leaving by itself.
const SERVERS_CLOSED_GRACE_MS: u64 = 1_000;

/// The state of a worker, with its data; times are absolute milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Spawned or about to be; not ready yet. `ready_at_ms`: when its age alone makes it ready. `warming`: what made it ready,
    /// while it is warmed up.
    Starting {
        deadline_ms: u64,
        ready_at_ms: Option<u64>,
        online: bool,
        severed_at_ms: Option<u64>,
        warming: Option<ReadyBy>,
    },
    /// Serves. `idle_since_ms`: it closed its last server; `severed_at_ms`: its channel closed.
    Ready { since_ms: u64, idle_since_ms: Option<u64>, severed_at_ms: Option<u64> },
    /// Gets nothing new and finishes its connections.
    Draining { deadline_ms: u64 },
    /// Was asked to end (SIGTERM).
    Stopping { kill_at_ms: u64 },
    /// Was sent SIGKILL; its exit is awaited.
    Killed,
}

impl Phase {
    /// The deadline of this state: not ready in time, SIGTERM after a drain, SIGKILL after SIGTERM.
    pub fn deadline_ms(&self) -> Option<u64> {
        match *self {
            Phase::Starting { deadline_ms, .. } | Phase::Draining { deadline_ms } => Some(deadline_ms),
            Phase::Stopping { kill_at_ms } => Some(kill_at_ms),
            Phase::Ready { .. } | Phase::Killed => None,
        }
    }

    /// Whether it was told to leave (or left by itself): its end needs no replacement.
    pub fn is_leaving(&self) -> bool {
        matches!(self, Phase::Draining { .. } | Phase::Stopping { .. } | Phase::Killed)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Worker {
    pub(super) id: WorkerId,
    pub(super) slot: Slot,
    pub(super) generation: Generation,
    pub(super) pid: Option<i32>,
    pub(super) spawned_at_ms: u64,
    pub(super) phase: Phase,
    /// It left by itself: its time to end is its own, up to `drain_timeout`.
    pub(super) by_itself: bool,
    /// Once ready, it is held back (`spares`).
    pub(super) spare: bool,
    /// It had a server before it was ready, so it may hold connections. Not saved: the new master says it again.
    pub(super) serves: bool,
    /// Why it was not ready, when last known. Not saved: a new master finds out by itself.
    pub(super) not_yet: Option<String>,
}

/// The processes of an app: its workers by id, the number of ready ones, and those beside them.
#[derive(Clone, Debug, Default)]
pub(super) struct Crew {
    by_id: BTreeMap<WorkerId, Worker>,
    ready: u32,
    /// Those of them that are held back.
    spares: u32,
    /// The process in the agent's slot. It is found by its id, but is not a worker.
    agent: Option<Worker>,
    /// The process of the command before the workers, in the same way.
    before: Option<Worker>,
}

impl Crew {
    /// A worker, or a process beside them.
    pub(super) fn get(&self, id: &WorkerId) -> Option<&Worker> {
        self.by_id.get(id).or_else(|| self.agent.iter().chain(&self.before).find(|process| process.id == *id))
    }

    /// For changes of everything but the phase, which [`Crew::set_phase`] changes.
    pub(super) fn get_mut(&mut self, id: &WorkerId) -> Option<&mut Worker> {
        self.by_id
            .get_mut(id)
            .or_else(|| self.agent.iter_mut().chain(&mut self.before).find(|process| process.id == *id))
    }

    /// The worker leaves, and nobody had asked it.
    pub(super) fn note_own_leave(&mut self, id: &WorkerId) {
        if let Some(worker) = self.by_id.get_mut(id) {
            worker.by_itself = true;
        }
    }

    /// The agent's process, in any state.
    pub(super) fn agent(&self) -> Option<&Worker> {
        self.agent.as_ref()
    }

    /// The process of the command before the workers, in any state.
    pub(super) fn before(&self) -> Option<&Worker> {
        self.before.as_ref()
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Worker> {
        self.by_id.values()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &WorkerId> {
        self.by_id.keys()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    pub(super) fn ready(&self) -> u32 {
        self.ready
    }

    /// Ready workers that are held back.
    pub(super) fn spares(&self) -> u32 {
        self.spares
    }

    /// Ready workers that get connections.
    pub(super) fn serving(&self) -> u32 {
        self.ready - self.spares
    }

    fn count(&mut self, worker: &Worker) {
        self.ready += u32::from(worker.is_ready());
        self.spares += u32::from(worker.is_held_back());
    }

    fn discount(&mut self, worker: &Worker) {
        self.ready -= u32::from(worker.is_ready());
        self.spares -= u32::from(worker.is_held_back());
    }

    pub(super) fn insert(&mut self, worker: Worker) {
        match worker.slot {
            Slot::AGENT => return self.agent = Some(worker),
            Slot::BEFORE => return self.before = Some(worker),
            Slot(_) => {}
        }
        self.count(&worker);
        if let Some(before) = self.by_id.insert(worker.id, worker) {
            self.discount(&before);
        }
    }

    pub(super) fn remove(&mut self, id: &WorkerId) {
        self.agent.take_if(|agent| agent.id == *id);
        self.before.take_if(|before| before.id == *id);
        if let Some(gone) = self.by_id.remove(id) {
            self.discount(&gone);
        }
    }

    /// Returns whether the process exists.
    pub(super) fn set_phase(&mut self, id: &WorkerId, phase: Phase) -> bool {
        if let Some(process) = self.agent.iter_mut().chain(&mut self.before).find(|process| process.id == *id) {
            process.phase = phase;
            return true;
        }
        self.change(id, |worker| worker.phase = phase)
    }

    /// Whether the worker is held back once it is ready.
    pub(super) fn set_spare(&mut self, id: &WorkerId, spare: bool) {
        self.change(id, |worker| worker.spare = spare);
    }

    /// Changes what is counted of a worker. Returns whether it exists.
    fn change(&mut self, id: &WorkerId, change: impl FnOnce(&mut Worker)) -> bool {
        let Some(mut worker) = self.by_id.remove(id) else { return false };
        self.discount(&worker);
        change(&mut worker);
        self.count(&worker);
        self.by_id.insert(*id, worker);
        true
    }
}

/// The public view of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerView {
    pub id: WorkerId,
    /// Its slot; [`Slot::AGENT`] for an agent, [`Slot::BEFORE`] for the command before the workers.
    pub slot: Slot,
    pub generation: Generation,
    /// Its pid, once it runs.
    pub pid: Option<i32>,
    /// When it was spawned, in milliseconds.
    pub spawned_at_ms: u64,
    pub phase: Phase,
    /// Once ready, it is held back.
    pub spare: bool,
}

impl WorkerView {
    /// Whether it is ready, and gets no connections.
    pub fn is_held_back(&self) -> bool {
        matches!(self.phase, Phase::Ready { .. }) && self.spare
    }
}

impl Worker {
    pub(super) fn new(id: WorkerId, slot: Slot, generation: Generation, spawned_at_ms: u64, phase: Phase) -> Worker {
        let (by_itself, spare, serves) = (false, false, false);
        Worker { id, slot, generation, pid: None, spawned_at_ms, phase, by_itself, spare, serves, not_yet: None }
    }

    pub(super) fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Ready { .. })
    }

    pub(super) fn is_held_back(&self) -> bool {
        self.is_ready() && self.spare
    }

    pub(super) fn is_serving(&self) -> bool {
        self.is_ready() && !self.spare
    }

    /// Whether it is no worker, but a process beside them.
    pub(super) fn is_beside(&self) -> bool {
        self.slot.is_beside()
    }

    pub(super) fn view(&self) -> WorkerView {
        WorkerView {
            id: self.id,
            slot: self.slot,
            generation: self.generation,
            pid: self.pid,
            spawned_at_ms: self.spawned_at_ms,
            phase: self.phase,
            spare: self.spare,
        }
    }
}

/// The deadline of a phase, if it has one.
pub(super) fn phase_timer(phase: &Phase) -> Option<u64> {
    match *phase {
        Phase::Starting { deadline_ms, ready_at_ms, severed_at_ms, .. } => {
            let severed = severed_at_ms.map(|at| at + CHANNEL_CLOSED_STARTING_MS);
            [Some(deadline_ms), ready_at_ms, severed].into_iter().flatten().min()
        }
        Phase::Ready { idle_since_ms, severed_at_ms, .. } => {
            let severed = severed_at_ms.map(|at| at + CHANNEL_CLOSED_GRACE_MS);
            let idle = idle_since_ms.map(|at| at + SERVERS_CLOSED_GRACE_MS);
            [severed, idle].into_iter().flatten().min()
        }
        Phase::Draining { deadline_ms } => Some(deadline_ms),
        Phase::Stopping { kill_at_ms } => Some(kill_at_ms),
        Phase::Killed => None,
    }
}
