//! The words that the control API uses for states and modes. Each is an enum; a word that this version does not know reads
//! as `Unknown`, so that a client understands a newer server.
use serde::{Deserialize, Serialize};
use std::fmt;

/// Declares enums whose variants are words on the wire.
macro_rules! wire_words {
    ($($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)+ })+) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$doc])* #[serde(rename = $word)] $variant,)+
            /// Nothing is known (the empty string on the wire), or a word of a newer version.
            #[default]
            #[serde(rename = "", other)]
            Unknown,
        }

        impl $name {
            /// Every known variant.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// The variant with this word.
            pub fn from_word(word: &str) -> $name {
                Self::ALL.iter().copied().find(|variant| variant.as_str() == word).unwrap_or($name::Unknown)
            }

            /// The word on the wire.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $($name::$variant => $word,)+
                    $name::Unknown => "",
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(if *self == $name::Unknown { "unknown" } else { self.as_str() })
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, word: &str) -> bool {
                self.as_str() == word
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, word: &&str) -> bool {
                self.as_str() == *word
            }
        }
    )+};
}

wire_words! {
    /// The state of an app.
    AppStatus {
        /// Some slot was not ready yet.
        Starting = "starting",
        /// It serves.
        Running = "running",
        /// A reload is under way.
        Reloading = "reloading",
        /// Its workers drain or end.
        Stopping = "stopping",
        /// It has no process.
        Stopped = "stopped",
        /// Every slot has failed too often.
        Errored = "errored",
        /// Only on the command line: its keeper was killed.
        Gone = "gone",
    }

    /// The state of a worker, or of a slot without one.
    WorkerState {
        /// Its process exists.
        Starting = "starting",
        /// Node has started, but the worker is not ready.
        Online = "online",
        /// It serves.
        Ready = "ready",
        /// It is ready, and gets connections when another worker dies.
        Spare = "spare",
        /// It finishes its connections.
        Draining = "draining",
        /// It was told to end.
        Stopping = "stopping",
        /// The slot waits for the next try.
        Waiting = "waiting",
        /// The slot has failed too often.
        Errored = "errored",
        /// The slot stays empty.
        Stopped = "stopped",
    }

    /// The state of an agent.
    AgentState {
        /// Its process exists.
        Starting = "starting",
        /// It is ready.
        Ready = "ready",
        /// It was told to end.
        Stopping = "stopping",
        /// It waits for its next start.
        Waiting = "waiting",
        /// It stays stopped.
        Stopped = "stopped",
    }

    /// The state of the command before the workers.
    BeforeState {
        /// It runs.
        Running = "running",
        /// It was told to end.
        Stopping = "stopping",
        /// It has failed and waits for its next try.
        Waiting = "waiting",
        /// It has ended well.
        Done = "done",
        /// It has failed.
        Failed = "failed",
        /// It did not run, or was stopped.
        Stopped = "stopped",
    }

    /// How a generation went.
    ReleaseState {
        /// Its first workers are starting.
        Starting = "starting",
        /// It serves now.
        Serving = "serving",
        /// It served.
        Served = "served",
        /// It served until somebody went back.
        RolledBack = "rolled_back",
        /// It never served alone.
        Failed = "failed",
    }

    /// What an event tells.
    EventType {
        /// A worker, or spare, serves.
        WorkerReady = "worker_ready",
        /// A worker was lost.
        WorkerDied = "worker_died",
        /// A worker that was asked to end is gone.
        WorkerLeft = "worker_left",
        /// A worker leaves, or is replaced.
        WorkerLeaving = "worker_leaving",
        /// A worker did not end in time.
        WorkerOverdue = "worker_overdue",
        /// The agent is ready.
        AgentReady = "agent_ready",
        /// The agent was lost.
        AgentDied = "agent_died",
        /// The agent was asked to end and is gone.
        AgentLeft = "agent_left",
        /// An app waits for others before it starts.
        AppWaits = "app_waits",
        /// The command before the workers runs.
        BeforeStarted = "before_started",
        /// It has ended well.
        BeforeDone = "before_done",
        /// It has failed.
        BeforeFailed = "before_failed",
        /// The workers of an app start.
        AppStarted = "app_started",
        /// Every wanted worker serves.
        AppReady = "app_ready",
        /// The number of workers changed.
        AppScaled = "app_scaled",
        /// No process of the app is left.
        AppStopped = "app_stopped",
        /// Every worker failed too often.
        AppErrored = "app_errored",
        /// A reload began.
        ReloadStarted = "reload_started",
        /// The first new worker is watched.
        ReloadCanary = "reload_canary",
        /// The new generation serves alone.
        ReloadDone = "reload_done",
        /// The old generation serves again.
        ReloadFailed = "reload_failed",
        /// A later one came.
        ReloadSuperseded = "reload_superseded",
        /// A warning or an error of clusterd's log.
        Warning = "warning",
        /// Events are missing here.
        Lost = "lost",
    }

    /// How connections are distributed.
    Balance {
        /// The worker with the fewest open hand-offs, in turn.
        RoundRobin = "round-robin",
        /// The worker of the client's address.
        Sticky = "sticky",
        /// The worker that accepts first.
        Shared = "shared",
        /// A socket for each slot, chosen by the kernel.
        Kernel = "kernel",
        /// By the app. Only as what was typed, never as what is in use.
        Auto = "auto",
    }

    /// What the number of workers follows.
    ScaleBy {
        /// CPU time of the workers.
        Cpu = "cpu",
        /// CPU time of their main threads.
        Loop = "loop",
        /// Connections that wait.
        Queue = "queue",
    }

    /// How the kernel chooses among the slots' sockets.
    Steering {
        /// In turns.
        Turns = "turns",
        /// At random.
        Random = "random",
        /// By its own hash of the addresses.
        Hash = "hash",
    }

    /// How a program gets its sockets.
    Protocol {
        /// Over Node's cluster channel.
        Node = "node",
        /// In the place of those that it binds.
        Bind = "bind",
        /// By inheritance, as systemd passes them.
        ListenFds = "listen-fds",
        /// Not from clusterd.
        None = "none",
    }

    /// The form of the lines of a log file.
    LogFormat {
        /// As they were printed.
        Plain = "plain",
        /// One JSON object for each.
        Json = "json",
    }
}
