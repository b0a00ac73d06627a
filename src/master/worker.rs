//! What the master keeps for each living worker, and the table of them. Its state in the rules' sense is the
//! supervisor's; here are its fds and what was said to it.
use super::drains::{Drain, Goodbye};
use super::liveness::Liveness;
use super::readiness_probe::ReadinessProbe;
use super::relay::Receiver;
use super::unread::Intake;
use crate::balance::MemberIx;
use crate::ids::{AppIx, Generation, ListenerIx, WorkerId, WorkerIx};
use crate::worker::node::channel::Channel;
use std::collections::{BTreeSet, HashMap};

/// One worker.
pub(super) struct Worker {
    pub(super) id: WorkerId,
    pub(super) app: AppIx,
    pub(super) slot: u32,
    pub(super) generation: Generation,
    /// It is its app's agent: it has no slot, and gets no connections.
    pub(super) is_agent: bool,
    pub(super) pid: Option<i32>,
    /// Node's channel; other programs have none.
    pub(super) channel: Option<Channel>,
    /// Its place in the balancer while it can be handed connections.
    pub(super) member: Option<MemberIx>,
    /// Listeners (by index in the app) that it serves.
    pub(super) serves: BTreeSet<ListenerIx>,
    /// That changed since it was noted.
    pub(super) unnoted: bool,
    /// Listeners that count it among those who serve them: `serves`, while it is admitted.
    pub(super) present: BTreeSet<ListenerIx>,
    /// It accepts by itself, from the sockets of its slot (balance `kernel`).
    pub(super) own_socket: bool,
    /// Listeners for which the kernel is to choose it.
    pub(super) takes: BTreeSet<ListenerIx>,
    /// The supervisor said that it may have connections.
    pub(super) admitted: bool,
    pub(super) drain: Option<Drain>,
    pub(super) goodbye: Goodbye,
    /// When its channel closed.
    pub(super) severed_ms: Option<u64>,
    /// Connections that it took from this master.
    pub(super) taken: u64,
    /// Those that it took from former masters, where a limit makes them count.
    pub(super) taken_before: u64,
    pub(super) liveness: Liveness,
    /// The program's own word about itself (`STATUS=` of the notify protocol).
    pub(super) status_text: Option<String>,
    pub(super) receiver: Receiver,
    /// What it has said over its channel.
    pub(super) intake: Intake,
    /// It is asked whether it is ready.
    pub(super) readiness_probe: Option<ReadinessProbe>,
}

/// All living workers. Indices are used again; ids never are.
#[derive(Default)]
pub(super) struct Workers {
    slots: Vec<Option<Worker>>,
    free: Vec<WorkerIx>,
    by_id: HashMap<WorkerId, WorkerIx>,
    by_pid: HashMap<i32, WorkerIx>,
}

impl Workers {
    pub(super) fn insert(&mut self, worker: Worker) -> WorkerIx {
        let (id, pid) = (worker.id, worker.pid);
        let ix = match self.free.pop() {
            Some(ix) => {
                self.slots[ix.0] = Some(worker);
                ix
            }
            None => {
                self.slots.push(Some(worker));
                WorkerIx(self.slots.len() - 1)
            }
        };
        self.by_id.insert(id, ix);
        self.by_pid.extend(pid.map(|pid| (pid, ix)));
        ix
    }

    /// Its process is known from now on.
    pub(super) fn set_pid(&mut self, ix: WorkerIx, pid: i32) {
        if let Some(worker) = self.get_mut(ix) {
            worker.pid = Some(pid);
            self.by_pid.insert(pid, ix);
        }
    }

    pub(super) fn find_pid(&self, pid: i32) -> Option<WorkerIx> {
        self.by_pid.get(&pid).copied()
    }

    /// The process of a worker, where it is known.
    pub(super) fn pid_of(&self, id: WorkerId) -> Option<i32> {
        self.get(self.find(id)?)?.pid
    }

    pub(super) fn remove(&mut self, ix: WorkerIx) -> Option<Worker> {
        let worker = self.slots.get_mut(ix.0)?.take()?;
        self.free.push(ix);
        self.by_id.remove(&worker.id);
        if let Some(pid) = worker.pid
            && self.by_pid.get(&pid) == Some(&ix)
        {
            self.by_pid.remove(&pid);
        }
        Some(worker)
    }

    pub(super) fn find(&self, id: WorkerId) -> Option<WorkerIx> {
        self.by_id.get(&id).copied()
    }

    pub(super) fn get(&self, ix: WorkerIx) -> Option<&Worker> {
        self.slots.get(ix.0)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, ix: WorkerIx) -> Option<&mut Worker> {
        self.slots.get_mut(ix.0)?.as_mut()
    }

    /// Every index that was ever given out. It borrows nothing.
    pub(super) fn indices(&self) -> impl Iterator<Item = WorkerIx> + use<> {
        (0..self.slots.len()).map(WorkerIx)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (WorkerIx, &Worker)> {
        self.slots.iter().enumerate().filter_map(|(ix, w)| Some((WorkerIx(ix), w.as_ref()?)))
    }
}
