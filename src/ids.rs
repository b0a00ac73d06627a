//! The identifiers that every part of the program shares. No behaviour lives here.
use std::fmt;

/// Counts spawns over the whole life of a deployment; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub u64);

/// A worker's place in its app, from 0. It survives the worker: the replacement takes the same slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u32);

/// Counts the reloads of an app. A worker belongs to one generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u32);

macro_rules! index {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub usize);

        impl From<usize> for $name {
            fn from(number: usize) -> Self {
                $name(number)
            }
        }

        impl From<$name> for usize {
            fn from(index: $name) -> usize {
                index.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

index! {
    /// An app's place in the deployment. It stays when the app is deleted.
    AppIx
}

index! {
    /// A listener's place in its app. It stays when the listener is retired.
    ListenerIx
}

index! {
    /// A process's place in the table of those that live, and its token in the reactor. Places are used again.
    WorkerIx
}

impl Slot {
    /// The place of an app's agent, where its output or its place in a list has to have one. No worker has it.
    pub const AGENT: Slot = Slot(u32::MAX);

    /// The same for the command that runs before an app's workers.
    pub const BEFORE: Slot = Slot(u32::MAX - 1);

    /// Whether it is that of a process beside the workers, which serves nothing.
    #[must_use]
    pub fn is_beside(self) -> bool {
        self == Slot::AGENT || self == Slot::BEFORE
    }
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
        if *self == Slot::BEFORE {
            return f.write_str("before");
        }
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
