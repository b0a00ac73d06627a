//! `[app.hooks]`: the events of an app for which a command can run.

use super::problem::At;
use super::schema::keys::RawHooks;
use std::collections::BTreeMap;

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

/// The command of each event that has one.
pub(super) fn decide(raw: RawHooks) -> BTreeMap<HookEvent, Vec<String>> {
    let command = |event| match event {
        HookEvent::WorkerReady => &raw.worker_ready,
        HookEvent::WorkerExit => &raw.worker_exit,
        HookEvent::ReloadDone => &raw.reload_done,
        HookEvent::ReloadFailed => &raw.reload_failed,
    };
    let hook = |event| command(event).as_ref().map(|At { value, .. }| (event, value.clone()));
    HookEvent::ALL.into_iter().filter_map(hook).collect()
}
