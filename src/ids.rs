//! The identifiers that every part of the program shares. No behaviour lives here.
use std::fmt;

/// Counts spawns over the whole life of a deployment; never used twice. Node's `NODE_UNIQUE_ID`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub u64);

/// A worker's place in its app, from 0. It survives the worker: the replacement takes the same slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u32);

/// Counts the reloads of an app. A worker belongs to one generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u32);

impl Slot {
    /// The place of an app's agent, where its output or its place in a list has to have one. No worker has it.
    pub const AGENT: Slot = Slot(u32::MAX);
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Slot::AGENT {
            return f.write_str("agent");
        }
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
