//! Tasks that one mechanism of the master leaves for another: a closed list, performed by the loop in order before it
//! sleeps. A mechanism calls those below it directly; a task is for one above it, or one that it is not given.
use super::channels::Violation;
use crate::ids::{AppIx, ListenerIx, WorkerId, WorkerIx};

/// Work to do before the loop sleeps.
#[derive(Debug)]
pub(super) enum Task {
    /// An ineligible worker takes connections again, perhaps those that wait for any worker.
    FindTaker,
    /// Lines wait in the worker's channel: send them when the worker reads.
    AwaitWritable(WorkerIx),
    /// The worker closed its server on the listener with this key, and did not say so.
    ServerClosed { worker: WorkerId, key: String },
    /// The last worker that had this listener open closed it.
    ListenerUnserved { app: AppIx, listener: ListenerIx },
    /// The worker broke the protocol.
    Misbehaved { worker: WorkerId, violation: Violation },
    /// Apps may have what they wait for: others that they depend on.
    AdmitDependents,
    /// The drain of this worker may be able to take its next step.
    DrainStep(WorkerIx),
    /// The worker accepts from its own queue: step its drain when the queue is empty.
    AwaitEmptyQueue(WorkerIx),
    /// Save that the worker is told to leave, then tell it.
    SayGoodbye(WorkerId),
    /// Send SIGTERM and give the worker no more connections.
    Terminate(WorkerId),
}
