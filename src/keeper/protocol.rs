//! What keeper and master say to each other, as types. One message is one SOCK_SEQPACKET packet; file descriptors ride
//! beside it and are never inside these types.
use crate::ids::WorkerId;
pub use crate::os::user::Credentials;

/// From the master to the keeper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Keep a copy of the attached fd under this name (one fd). A second `Hold` of a name replaces the first.
    Hold { name: String },
    /// Close the fd held under this name. Unknown names are fine.
    Release { name: String },
    /// Keep these opaque bytes under this key, replacing what was there.
    Note { key: String, value: Vec<u8> },
    /// Drop the note. Unknown keys are fine.
    Forget { key: String },
    /// Start a process. Attached: a memfd with the encoded [`SpawnSpec`], then one fd per `spec.placements`.
    Spawn { worker: WorkerId },
    /// Send a signal to a child that is not yet reaped; `group`: to its whole process group.
    Signal { worker: WorkerId, signal: i32, group: bool },
    /// The master has taken note of this child's end; the keeper may forget it.
    ExitSeen { worker: WorkerId },
    /// The master's loop turns.
    Heartbeat,
    /// The master has taken over (or started) completely and serves.
    Ready,
    /// Everything is done: end with this exit code.
    Finish { code: u8 },
    /// The next master runs this binary (attached: one fd). It starts at once when this one has ended; if it does not
    /// get ready, or ends young, the one after it runs the previous binary again. Once it has proved itself, the keeper
    /// itself becomes this binary too, if that can take over what it holds; [`Notice::Keeper`] says what came of it.
    Upgrade,
}

/// From the keeper to the master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Always first. `incarnation` counts masters of this keeper from 1; `previous_end` says how the one before ended
    /// ("" for the first); `about` is the keeper itself.
    Hello { version: u16, incarnation: u32, previous_end: String, about: About },
    /// After `Hello`: a child that exists, with the tag its spawn carried. `status` is set when it has already ended
    /// (raw wait status) and nobody has said `ExitSeen` yet. `started_ms` is CLOCK_MONOTONIC.
    Child { worker: WorkerId, pid: i32, tag: Vec<u8>, started_ms: u64, status: Option<i32> },
    /// After `Hello`: an fd that is held (attached: one fd).
    Held { name: String },
    /// After `Hello`: a note that is held.
    Noted { key: String, value: Vec<u8> },
    /// The end of what the keeper had; from here on only news.
    Begin,
    /// The process runs its program (exec succeeded).
    Spawned { worker: WorkerId, pid: i32 },
    /// The process could not be started. Nothing of it is left; no `Exited` follows.
    SpawnFailed { worker: WorkerId, step: SpawnStep, errno: i32 },
    /// A child ended (raw wait status). Repeated to a new master until `ExitSeen`. `at_ms` is CLOCK_MONOTONIC.
    Exited { worker: WorkerId, status: i32, at_ms: u64 },
    /// The keeper got this signal; `value` is what `sigqueue` carried.
    Signal { signal: i32, value: Option<i32> },
    /// It is known what came of the keeper's own part in an upgrade.
    Keeper { about: About },
}

/// What the keeper says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// Its version; "" for one that does not say.
    pub version: String,
    /// What came of its own part in the last upgrade.
    pub upgrade: OwnUpgrade,
}

/// The keeper's own part in an upgrade.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OwnUpgrade {
    /// There was none, or it is not decided yet.
    #[default]
    Open,
    /// The keeper is of the new binary.
    Done,
    /// It stays what it was, for this reason.
    Stays { why: String },
}

/// Where a spawn failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpawnStep {
    /// The description was damaged or over a bound, or its number of fds was wrong.
    Description,
    /// fork (EAGAIN: too many processes).
    Fork,
    /// setpgid.
    ProcessGroup,
    /// setgroups / initgroups.
    SupplementaryGroups,
    /// setgid.
    Group,
    /// setuid.
    User,
    /// setrlimit.
    ResourceLimits,
    /// chdir.
    WorkingDirectory,
    /// Placing fds (dup2).
    FileDescriptors,
    /// Signal mask and dispositions.
    Signals,
    /// prctl(PR_SET_PDEATHSIG).
    ParentDeath,
    /// execve: the command.
    Exec,
}

/// Everything that happens between fork and exec. Bytes, not strings: the kernel's names need not be UTF-8.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpawnSpec {
    /// Given back in [`Notice::Child`], opaque to the keeper.
    pub tag: Vec<u8>,
    /// Absolute path of the program.
    pub program: Vec<u8>,
    /// argv, with argv\[0\].
    pub args: Vec<Vec<u8>>,
    /// The whole environment, each entry `NAME=value`.
    pub env: Vec<Vec<u8>>,
    /// Add `LISTEN_PID=<own pid>` to the environment (its value is known only after fork).
    pub listen_pid: bool,
    /// Absolute path; `None`: the keeper's own.
    pub cwd: Option<Vec<u8>>,
    /// `None`: inherited.
    pub umask: Option<u32>,
    /// Who to become. `None`: stay.
    pub credentials: Option<Credentials>,
    /// (resource, soft, hard) as in setrlimit(2).
    pub rlimits: Vec<(i32, u64, u64)>,
    /// For each attached fd (after the memfd), the number it must have in the new process. stdin, stdout and stderr
    /// that are not placed are the keeper's own.
    pub placements: Vec<i32>,
}
