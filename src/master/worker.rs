//! What the master keeps for each living worker, and the table of workers. The supervisor has a worker's state; here
//! are its fds and what was sent to it.
use super::bind::Intercepted;
use super::drains::{Drain, Goodbye};
use super::http_probes::HttpProbe;
use super::liveness::Liveness;
use super::moves::Kept;
use super::relay::{Custom, Receiver};
use super::system::System;
use super::unread::Intake;
use crate::balance::MemberIx;
use crate::ids::{AppIx, Generation, ListenerIx, WorkerId, WorkerIx};
use crate::worker::node::channel::Channel;
use std::collections::{BTreeSet, HashMap};
use std::os::fd::OwnedFd;

pub(super) struct Worker<S: System> {
    pub(super) id: WorkerId,
    pub(super) app: AppIx,
    pub(super) slot: u32,
    pub(super) generation: Generation,
    /// The agent of its app: no slot, no connections.
    pub(super) is_beside: bool,
    pub(super) pid: Option<i32>,
    /// Node's channel; other programs have none.
    pub(super) channel: Option<Channel<S::ChannelSocket>>,
    /// Its member index in the balancer while it may be handed connections.
    pub(super) member: Option<MemberIx>,
    /// The listeners (by index in the app) that it serves.
    pub(super) serves: BTreeSet<ListenerIx>,
    /// Of these, those on which its server speaks when it was spoken to.
    pub(super) client_first: BTreeSet<ListenerIx>,
    /// `serves` changed since it was saved.
    pub(super) unnoted: bool,
    /// Listeners that count it as serving: `serves`, while it is admitted.
    pub(super) present: BTreeSet<ListenerIx>,
    /// It accepts by itself, from the sockets of its slot (balance `kernel`).
    pub(super) own_socket: bool,
    /// The number of its socket in each group: its slot, unless nobody else could take what waits in a socket.
    pub(super) socket_number: u32,
    /// Listeners whose group the kernel may choose it from.
    pub(super) takes: BTreeSet<ListenerIx>,
    /// Its process has ended; what it had is about to be released.
    pub(super) ended: bool,
    /// Admitted by the supervisor: it may get connections.
    pub(super) admitted: bool,
    pub(super) drain: Option<Drain>,
    /// It drains, and no other worker serves one of its listeners: connections from there can go nowhere else.
    pub(super) is_last: bool,
    pub(super) goodbye: Goodbye,
    /// It has loaded the preload, and can give connections back.
    pub(super) has_preload: bool,
    /// It takes upgraded connections with their state.
    pub(super) takes_upgraded: bool,
    /// Copies of connections that it had not read when it was killed, with their names in the keeper.
    pub(super) untouched: Vec<(String, OwnedFd)>,
    /// The connections that it keeps.
    pub(super) kept: Kept,
    /// When its channel closed.
    pub(super) severed_ms: Option<u64>,
    /// Connections that it took from this master.
    pub(super) taken: u64,
    /// Hand-offs that it refused.
    pub(super) refused: u64,
    /// Connections that it took from previous masters, where a limit counts them.
    pub(super) taken_before: u64,
    pub(super) liveness: Liveness,
    /// Our end of the pipe of its stdin, where it has one.
    pub(super) stdin: Option<OwnedFd>,
    /// The program's own status (`STATUS=` of the notify protocol).
    pub(super) status_text: Option<String>,
    pub(super) receiver: Receiver,
    /// The actions that it offers, and what it measures.
    pub(super) custom: Custom,
    /// What it has said over its channel.
    pub(super) intake: Intake,
    /// The interception of its bind(2) and listen(2), if it has one.
    pub(super) intercepted: Option<Intercepted>,
    /// The readiness probe, while the worker is being probed.
    pub(super) http_probe: Option<HttpProbe>,
    /// The inode of its listening socket in which a connection of clusterd's own may still wait.
    pub(super) probed: Option<u64>,
}

/// All living workers. Indices are reused; ids never are.
pub(super) struct Workers<S: System> {
    slots: Vec<Option<Worker<S>>>,
    free: Vec<WorkerIx>,
    by_id: HashMap<WorkerId, WorkerIx>,
    by_pid: HashMap<i32, WorkerIx>,
}

impl<S: System> Default for Workers<S> {
    fn default() -> Workers<S> {
        Workers { slots: Vec::new(), free: Vec::new(), by_id: HashMap::new(), by_pid: HashMap::new() }
    }
}

impl<S: System> Workers<S> {
    pub(super) fn insert(&mut self, worker: Worker<S>) -> WorkerIx {
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

    /// Records the pid of a worker.
    pub(super) fn set_pid(&mut self, ix: WorkerIx, pid: i32) {
        if let Some(worker) = self.get_mut(ix) {
            worker.pid = Some(pid);
            self.by_pid.insert(pid, ix);
        }
    }

    pub(super) fn find_pid(&self, pid: i32) -> Option<WorkerIx> {
        self.by_pid.get(&pid).copied()
    }

    /// The pid of a worker, if it is known.
    pub(super) fn pid_of(&self, id: WorkerId) -> Option<i32> {
        self.get(self.find(id)?)?.pid
    }

    pub(super) fn remove(&mut self, ix: WorkerIx) -> Option<Worker<S>> {
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

    pub(super) fn get(&self, ix: WorkerIx) -> Option<&Worker<S>> {
        self.slots.get(ix.0)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, ix: WorkerIx) -> Option<&mut Worker<S>> {
        self.slots.get_mut(ix.0)?.as_mut()
    }

    /// Every index ever used. The iterator does not borrow the table.
    pub(super) fn indices(&self) -> std::iter::Map<std::ops::Range<usize>, fn(usize) -> WorkerIx> {
        (0..self.slots.len()).map(WorkerIx as fn(usize) -> WorkerIx)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (WorkerIx, &Worker<S>)> {
        self.slots.iter().enumerate().filter_map(|(ix, w)| Some((WorkerIx(ix), w.as_ref()?)))
    }
}
