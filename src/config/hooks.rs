//! `[app.hooks]`: the things that can happen to an app for which a command can be run.

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HookEvent {
    /// A worker became ready.
    WorkerReady,
    /// A worker's process is gone, or could not be started.
    WorkerExit,
    /// A new generation serves alone.
    ReloadDone,
    /// A reload failed or was refused; the old generation serves.
    ReloadFailed,
}

impl HookEvent {
    /// All of them.
    pub const ALL: [HookEvent; 4] =
        [HookEvent::WorkerReady, HookEvent::WorkerExit, HookEvent::ReloadDone, HookEvent::ReloadFailed];

    /// Its key in `[app.hooks]`, and the value of `CLUSTERD_EVENT`.
    pub fn key(self) -> &'static str {
        match self {
            HookEvent::WorkerReady => "worker_ready",
            HookEvent::WorkerExit => "worker_exit",
            HookEvent::ReloadDone => "reload_done",
            HookEvent::ReloadFailed => "reload_failed",
        }
    }
}
