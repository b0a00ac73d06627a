//! What one mechanism of the master leaves to another: a closed list, worked off by the loop in order before it sleeps. A
//! mechanism calls those below it directly; what concerns one above it, or one that it is not given, goes here.
use super::channels::Violation;
use crate::ids::{WorkerId, WorkerIx};

/// Something that is to be done before the loop sleeps.
#[derive(Debug)]
pub(super) enum Task {
    /// A worker that was ineligible takes connections again: one that waits for anybody may be for it.
    FindTaker,
    /// Lines wait in the worker's channel: send them when it reads.
    AwaitWritable(WorkerIx),
    /// The worker has closed its server on the listener with this key, and did not say so.
    ServerClosed { worker: WorkerId, key: String },
    /// The worker broke the protocol.
    Misbehaved { worker: WorkerId, violation: Violation },
    /// The drain of this worker may be able to take its next step.
    DrainStep(WorkerIx),
    /// The worker accepts from a queue of its own: step its drain when that is empty.
    AwaitEmptyQueue(WorkerIx),
    /// Save that the worker is told to leave, then tell it.
    SayGoodbye(WorkerId),
    /// Send SIGTERM and hand it nothing more.
    Terminate(WorkerId),
}
