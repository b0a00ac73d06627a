//! The messages between keeper and master, as types. One message is one SOCK_SEQPACKET packet; file descriptors are
//! attached to it and never part of these types.
use crate::ids::WorkerId;
pub use crate::os::cgroup::{BASE_PREFIX as GROUPS_PREFIX, CPU_PERIOD_US, Limits as GroupLimits};
pub use crate::os::user::Credentials;

/// Packets queued for a peer that does not read, in each direction between keeper and master.
pub(super) const KEEPER_OUTBOX_MAX: usize = 64 * 1024;

/// From the master to the keeper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Keep a copy of the attached fd under this name (one fd). A second `Hold` of a name replaces the first.
    Hold { name: String },
    /// Close the fd held under this name. Unknown names are ignored.
    Release { name: String },
    /// Store these opaque bytes under this key, replacing an earlier value.
    Note { key: String, value: Vec<u8> },
    /// Delete the value of this key. Unknown keys are ignored.
    Forget { key: String },
    /// Start a process. Attached: a memfd with the encoded [`SpawnSpec`], then one fd for each of `spec.placements`.
    Spawn { worker: WorkerId },
    /// Send a signal to a child that is not yet reaped; `group`: to its whole process group.
    Signal { worker: WorkerId, signal: i32, group: bool },
    /// The master has handled the end of this child; the keeper may forget it.
    ExitSeen { worker: WorkerId },
    /// The master's loop is turning.
    Heartbeat,
    /// The master has finished its takeover (or start) and serves.
    Ready,
    /// The deployment is over: exit with this code.
    Finish { code: u8 },
    /// Make a cgroup for this app, where that is possible, below the one called `base` (the same for all apps), and limit
    /// it, also where it is there. Processes whose [`SpawnSpec::app`] it is join it.
    Group { base: String, app: String, limits: GroupLimits },
    /// Read up to `bytes` at this address of a thread's memory, for `call` of this worker; the answer is [`Notice::Looked`].
    /// Yama lets the parent of a process look into it, and no other process of its user.
    Look { worker: WorkerId, call: u64, tid: i32, address: u64, bytes: u32 },
    /// Hold copies of the connections of this child of which it never read a byte, as `name/0`, `name/1` and so on; a
    /// [`Notice::Held`] for each of them follows. For the parent of a process the same holds as for [`Order::Look`].
    CopyUntouched { worker: WorkerId, name: String },
    /// Your stderr is this file from now on (attached: one fd). The master has opened the log again.
    OwnLog,
    /// Every app serves: tell the service manager, if one asked for it ([sd_notify]).
    ///
    /// [sd_notify]: https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html
    Serving,
    /// This app has stopped: what its processes left behind is to end.
    AppEnded { app: String },
    /// Run this binary (attached: one fd) as the next master, at once when the current one has ended. If that master
    /// does not get ready, or dies young, the one after it runs the previous binary again. Once it has proved itself,
    /// the keeper becomes this binary too, if the binary can take over what the keeper holds; [`Notice::Keeper`]
    /// reports the result.
    Upgrade,
}

/// From the keeper to the master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Always the first message. `incarnation` counts masters of this keeper from 1; `previous_end` says how the
    /// previous one ended ("" for the first); `about` describes the keeper.
    Hello { version: u16, incarnation: u32, previous_end: String, about: About },
    /// After `Hello`: an existing child, with the tag of its spawn. `status` is set if it has ended (raw wait status)
    /// and was not acknowledged with `ExitSeen`. `started_ms` is CLOCK_MONOTONIC.
    /// `out_of_memory`: see [`Notice::Exited`].
    Child { worker: WorkerId, pid: i32, tag: Vec<u8>, started_ms: u64, status: Option<i32>, out_of_memory: bool },
    /// After `Hello`: a held fd (attached: one fd). As news: a file that the keeper has begun to hold by itself.
    Held { name: String },
    /// After `Hello`: a stored value.
    Noted { key: String, value: Vec<u8> },
    /// The end of what the keeper held; only news follow.
    Begin,
    /// The process runs its program (exec succeeded).
    Spawned { worker: WorkerId, pid: i32 },
    /// The process could not be started. It is gone; no `Exited` follows.
    SpawnFailed { worker: WorkerId, step: SpawnStep, errno: i32 },
    /// A child ended (raw wait status). Repeated to a new master until `ExitSeen`. `at_ms` is CLOCK_MONOTONIC.
    /// `out_of_memory`: the kernel killed it because its cgroup was out of memory.
    Exited { worker: WorkerId, status: i32, at_ms: u64, out_of_memory: bool },
    /// The keeper got this signal; `value` is the value of `sigqueue`.
    Signal { signal: i32, value: Option<i32> },
    /// The result of the keeper's own part in an upgrade.
    Keeper { about: About },
    /// The answer to [`Order::Look`]: the bytes, or an errno.
    Looked { worker: WorkerId, call: u64, bytes: Vec<u8>, errno: i32 },
}

/// The keeper's description of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// Its version; "" if it does not report one.
    pub version: String,
    /// The result of its own part in the last upgrade.
    pub upgrade: OwnUpgrade,
    /// The service manager keeps listening sockets for its next start.
    pub has_store: bool,
}

/// The keeper's own part in an upgrade.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OwnUpgrade {
    /// No upgrade, or not decided yet.
    #[default]
    Open,
    /// The keeper runs the new binary.
    Done,
    /// The keeper kept its binary, for this reason.
    Stays { why: String },
}

/// The step at which a spawn failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpawnStep {
    /// The spec was damaged or exceeded a bound, or the number of fds was wrong.
    Description,
    /// fork (EAGAIN: too many processes).
    Fork,
    /// Joining the app's cgroup.
    Cgroup,
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
    /// Writing oom_score_adj.
    OomScoreAdj,
    /// setpriority.
    Nice,
    /// sched_setaffinity.
    CpuAffinity,
    /// prctl(PR_SET_NO_NEW_PRIVS).
    NoNewPrivileges,
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
    /// Returned in [`Notice::Child`], opaque to the keeper.
    pub tag: Vec<u8>,
    /// The app, whose cgroup it joins if [`Order::Group`] named it.
    pub app: String,
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
    /// The user to become. `None`: unchanged.
    pub credentials: Option<Credentials>,
    /// (resource, soft, hard) as in setrlimit(2).
    pub rlimits: Vec<(i32, u64, u64)>,
    /// As setpriority(2) has it. `None`: inherited.
    pub nice: Option<i32>,
    /// `None`: what clusterd was started with.
    pub oom_score_adj: Option<i32>,
    /// Numbers of the CPUs that it may run on; empty: inherited.
    pub cpus: Vec<u32>,
    /// It gains nothing by executing programs with setuid bits or file capabilities.
    pub no_new_privs: bool,
    /// Intercept its calls of bind(2) and listen(2), and send the listener (or the errno) over the placed socket with this
    /// number, which the program does not get.
    pub intercept: Option<i32>,
    /// It may be kept from gaining privileges for that.
    pub may_give_up_privileges: bool,
    /// For each attached fd (after the memfd), its number in the new process. stdin, stdout and stderr that are not
    /// placed are the keeper's own.
    pub placements: Vec<i32>,
}
