//! Processes that outlived the worker that started them and left its process group (`setsid`). Where the app has a cgroup,
//! they are in it (`groups`). Elsewhere the keeper is their subreaper, so that they become its children; it knows them by the
//! variables that every worker has.
use super::event_loop::Keeper;
use super::protocol::SpawnSpec;
use super::system::System;
use crate::os::signal;

/// The variable that names the app in every worker and agent.
const APP: &str = "CLUSTERD_APP";
/// The variable that only hooks have: what a hook leaves behind does not belong to the app.
const HOOK: &str = "CLUSTERD_EVENT";

impl<S: System> Keeper<S> {
    /// The app has stopped: ends what its workers left. Each of these may have left others, so that it takes several turns.
    pub(super) fn app_ended(&mut self, app: String) {
        self.ended_apps.insert(app);
        self.end_strays();
    }

    /// Another process of an app that is about to start: from now on strays of that name may be the new worker's.
    pub(super) fn app_starts(&mut self, spec: &SpawnSpec) {
        self.ended_apps.retain(|app| *app != spec.app && !spec.env.contains(&format!("{APP}={app}").into_bytes()));
    }

    /// Ends what is left of apps that have stopped. To be called again whenever a stray has ended.
    pub(super) fn end_strays(&mut self) {
        let mut ended = std::mem::take(&mut self.ended_apps);
        ended.retain(|app| {
            let group_ended = self.groups.end(&self.system, app);
            self.kill_strays(Some(app)) > 0 || !group_ended
        });
        self.ended_apps = ended;
    }

    /// Kills the strays of an app (`None`: of every app) that are there now; how many that are.
    pub(super) fn kill_strays(&self, of: Option<&str>) -> usize {
        let is_known = |pid: i32| self.is_master(pid) || self.table.worker_of(pid).is_some();
        let children = self.system.children();
        let strays = children.into_iter().filter(|pid| !is_known(*pid) && self.is_stray(*pid, of));
        // Not reaped, so the pid is still its own. Errors: it runs as somebody whom we may not signal.
        strays.inspect(|pid| drop(self.system.kill(*pid, signal::KILL))).count()
    }

    fn is_stray(&self, pid: i32, of: Option<&str>) -> bool {
        // What the kernel knows comes first: a process can have the reading of its variables block.
        if let Some(app) = self.groups.app_of(&self.system, pid) {
            return of.is_none_or(|of| app == of);
        }
        let app = self.system.variable(pid, APP);
        app.is_some_and(|app| of.is_none_or(|of| app == of.as_bytes())) && self.system.variable(pid, HOOK).is_none()
    }
}
