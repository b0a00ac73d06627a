//! What one mechanism of the master leaves to another: a closed list, worked off by the loop in order. A mechanism calls
//! those below it directly; what concerns one above it goes here.
use crate::ids::WorkerIx;

/// Something that is to be done before the loop sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// The drain of this worker may be able to take its next step.
    DrainStep(WorkerIx),
}
