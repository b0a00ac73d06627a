//! The cgroups of the apps: which there are, what they may use, and which of their processes the kernel has killed for lack
//! of memory. Where none can be made, apps run without; that is said if a limit was asked for.
use super::protocol::GroupLimits;
use super::state::{GroupState, GroupsState};
use super::system::System;
use crate::limits::APPS_MAX;
use crate::os::cgroup::{Base, CgroupError, Entry, Limit};
use std::collections::BTreeMap;
use std::io;

/// How long after the kernel has killed a process of a cgroup for lack of memory the end of a worker counts as that, in
/// milliseconds: a process with much memory takes its time to end.
const OOM_KILL_LINGERS_MS: u64 = 10_000;

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Groups {
    base: Option<Base>,
    apps: BTreeMap<String, Group>,
}

/// That of one app.
#[derive(Debug, Default)]
struct Group {
    limits: GroupLimits,
    /// Killed for lack of memory, as far as it is known.
    oom_kills: u64,
    /// How many of these are not accounted for, and when the last of them was seen.
    open_oom_kills: u64,
    open_since_ms: u64,
}

impl Groups {
    /// Takes over from another binary.
    pub(super) fn resume<S: System>(system: &S, state: GroupsState) -> Groups {
        let mut groups = Groups::default();
        for GroupState { app, limits, oom_kills } in state.apps {
            groups.set(system, &state.base, app.clone(), limits);
            if let Some(group) = groups.apps.get_mut(&app) {
                group.oom_kills = oom_kills;
            }
        }
        groups
    }

    /// For another binary.
    pub(super) fn state(&self) -> GroupsState {
        let base = self.base.as_ref().map(|base| base.name().to_owned()).unwrap_or_default();
        let one = |(app, group): (&String, &Group)| GroupState {
            app: app.clone(),
            limits: group.limits,
            oom_kills: group.oom_kills - group.open_oom_kills,
        };
        GroupsState { base, apps: self.apps.iter().map(one).collect() }
    }

    /// Makes the group of an app, or gives the one that is there other limits. Logs what is not possible.
    pub(super) fn set<S: System>(&mut self, system: &S, base: &str, app: String, limits: GroupLimits) {
        // More apps than a deployment may have: the master is not ours.
        if self.apps.len() >= APPS_MAX && !self.apps.contains_key(&app) {
            return;
        }
        let before = self.apps.get(&app).map(|group| group.limits).unwrap_or_default();
        match self.make(system, base, &app, &limits, &before) {
            Ok(unmet) => {
                for (limit, why) in unmet {
                    system.say(&format!("clusterd: {app}: limits.{} is not enforced: {why}", limit.key()));
                }
                let group = self.apps.entry(app).or_default();
                group.limits = limits;
            }
            Err(why) => {
                self.apps.remove(&app);
                if let Some(limit) = Limit::ALL.into_iter().find(|limit| limits.get(*limit).is_some()) {
                    let key = limit.key();
                    system.say(&format!("clusterd: {app}: limits.{key} is not enforced: cannot make a cgroup: {why}"));
                }
            }
        }
    }

    fn make<S: System>(
        &mut self,
        system: &S,
        base: &str,
        app: &str,
        limits: &GroupLimits,
        before: &GroupLimits,
    ) -> Result<Vec<(Limit, CgroupError)>, CgroupError> {
        let base = match &mut self.base {
            Some(base) => base,
            none => none.insert(system.find_cgroups(base)?),
        };
        system.make_cgroup(base, app, limits, before)
    }

    /// How a process joins the group of its app; `None` if that has none.
    pub(super) fn entry<S: System>(&mut self, system: &S, app: &str) -> Option<Entry<S::Fd>> {
        let limits = self.apps.get(app)?.limits;
        let enter = |base: &Base| system.enter_cgroup(base, app);
        let entry = match enter(self.base.as_ref()?) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Removed when the app ended, or by somebody else.
                system.make_cgroup(self.base.as_mut()?, app, &limits, &GroupLimits::default()).ok()?;
                if let Some(group) = self.apps.get_mut(app) {
                    *group = Group { limits, ..Group::default() };
                }
                enter(self.base.as_ref()?)
            }
            entry => entry,
        };
        entry
            .inspect_err(|why| {
                system.say(&format!("clusterd: {app}: cannot use its cgroup: {why}; the new worker has no limits"))
            })
            .ok()
    }

    /// The app in whose group a process is.
    pub(super) fn app_of<S: System>(&self, system: &S, pid: i32) -> Option<String> {
        system.app_of(pid, self.base.as_ref()?)
    }

    /// Kills what is in the group of an app. Returns whether the group is gone.
    pub(super) fn end<S: System>(&mut self, system: &S, app: &str) -> bool {
        let Some(base) = self.base.as_ref().filter(|_| self.apps.contains_key(app)) else { return true };
        let gone = system.end_cgroup(base, app);
        if gone {
            self.apps.remove(app);
        }
        gone
    }

    /// Kills what is in any group. Returns how many groups are left.
    pub(super) fn end_all<S: System>(&mut self, system: &S) -> usize {
        let apps: Vec<String> = self.apps.keys().cloned().collect();
        apps.iter().filter(|app| !self.end(system, app)).count()
    }

    /// Removes the group of all groups.
    pub(super) fn remove<S: System>(&mut self, system: &S) {
        if let Some(base) = &mut self.base {
            system.remove_cgroups(base);
        }
    }

    /// Counts what the kernel has killed. To be called once a second, because an end of a worker long after such a kill has
    /// nothing to do with it.
    pub(super) fn look<S: System>(&mut self, system: &S, now_ms: u64) {
        let Some(base) = &self.base else { return };
        for (app, group) in self.apps.iter_mut().filter(|(_, group)| group.limits.memory_max.is_some()) {
            group.look(system.oom_kills(base, app), now_ms);
        }
    }

    /// Whether the kernel has killed a process of the app for lack of memory that is not accounted for. It is now.
    pub(super) fn take_oom_kill<S: System>(&mut self, system: &S, app: &str, now_ms: u64) -> bool {
        let (Some(base), Some(group)) = (&self.base, self.apps.get_mut(app)) else { return false };
        group.look(system.oom_kills(base, app), now_ms);
        let any = group.open_oom_kills > 0;
        group.open_oom_kills = group.open_oom_kills.saturating_sub(1);
        any
    }
}

impl Group {
    fn look(&mut self, oom_kills: u64, now_ms: u64) {
        if now_ms.saturating_sub(self.open_since_ms) > OOM_KILL_LINGERS_MS {
            self.open_oom_kills = 0;
        }
        if oom_kills > self.oom_kills {
            self.open_oom_kills += oom_kills - self.oom_kills;
            self.open_since_ms = now_ms;
        }
        self.oom_kills = oom_kills;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kill_is_accounted_for_once_and_not_for_ever() {
        let mut group = Group::default();
        group.look(2, 1_000);
        assert_eq!(group.open_oom_kills, 2);
        group.look(2, 2_000);
        assert_eq!(group.open_oom_kills, 2);
        group.open_oom_kills -= 1;
        group.look(2, 1_000 + OOM_KILL_LINGERS_MS + 1);
        assert_eq!(group.open_oom_kills, 0, "too long ago");
        group.look(3, 60_000);
        assert_eq!(group.open_oom_kills, 1);
    }
}
