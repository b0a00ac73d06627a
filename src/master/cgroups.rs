//! The cgroups of the apps: tells the keeper what each app may use, before its first process and whenever that changes. The
//! keeper makes them; it says where that is not possible.
use super::context::Context;
use super::system::System;
use crate::ids::AppIx;
use crate::keeper::protocol::{GROUPS_PREFIX, GroupLimits, Order};

/// Has the keeper make or limit the group of an app, if these limits are not what it was told last.
pub(super) fn limit(cx: &mut Context<impl System>, ix: AppIx, limits: GroupLimits) {
    if cx.apps[ix].group_limits == Some(limits) {
        return;
    }
    cx.apps[ix].group_limits = Some(limits);
    let (base, app) = (base_name(cx), cx.apps[ix].name.clone());
    cx.keeper.send(Order::Group { base, app, limits });
}

/// Has the keeper end what is left of an app that has stopped.
pub(super) fn end(cx: &mut Context<impl System>, ix: AppIx) {
    cx.apps[ix].group_limits = None;
    let app = cx.apps[ix].name.clone();
    cx.keeper.send(Order::AppEnded { app });
}

/// Ends what is left of an earlier run of this deployment whose keeper was killed. To be called before anything is bound: it
/// may hold the port.
pub(super) fn end_leftovers(cx: &Context<impl System>) {
    let count = cx.system.end_leftovers(&base_name(cx));
    if count > 0 {
        let processes = if count == 1 { "process" } else { "processes" };
        log::warn!("killed {count} {processes} left behind by an earlier clusterd, whose keeper was killed");
    }
}

/// Ends what is in the groups of this deployment, whose keeper has just ended.
pub(super) fn end_orphans(cx: &Context<impl System>) {
    let _ = cx.system.end_leftovers(&base_name(cx));
}

/// The name of the group of all apps: of this deployment in this home, and no other. Without a home: of this keeper.
fn base_name(cx: &Context<impl System>) -> String {
    let deployment = &cx.deployment;
    let whose = match deployment.home.as_ref().and_then(|home| cx.system.home_mark(home)) {
        Some(mark) => format!("{mark:016x}"),
        None => format!("pid{}", deployment.keeper_pid),
    };
    format!("{GROUPS_PREFIX}{}-{whose}", deployment.name)
}
