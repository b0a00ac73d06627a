//! Which workers may get connections: by hand-off, from the sockets of their slots, or not at all. Computed from the
//! state of a worker after each change.
use super::context::Context;
use super::listener;
use super::listening::Listening;
use super::reactor::QueueIx;
use super::system::System;
use super::timers::{Timer, Timers};
use crate::ids::{AppIx, ListenerIx, WorkerIx};
use std::collections::BTreeSet;

/// Changes of reuseport groups that kernel mode has not handled yet.
#[derive(Default)]
pub(super) struct GroupChanges {
    /// Groups whose program has to be replaced.
    pub(super) unsteered: BTreeSet<(AppIx, ListenerIx)>,
    /// One of them still chooses a worker that is gone: what comes to its socket waits for the next one of its slot.
    pub(super) chooses_gone: bool,
    /// Sockets that lost the last worker that took connections from them.
    pub(super) abandoned: Vec<QueueIx>,
    /// A socket of a slot no longer listens.
    pub(super) has_closed: bool,
}

impl GroupChanges {
    /// The program of this group has to be replaced.
    pub(super) fn add_unsteered(&mut self, timers: &mut Timers, group: (AppIx, ListenerIx)) {
        self.unsteered.insert(group);
        // Now; `Groups::steer` puts it off where it was done a moment ago.
        timers.set_earlier(Timer::Steering, 0);
    }
}

/// Brings balancer and groups up to date after a worker changed.
pub(super) fn refresh(cx: &mut Context<impl System>, ix: WorkerIx) {
    recount(cx, ix);
    let Some(worker) = cx.workers.get(ix) else { return };
    let Some(member) = worker.member else { return };
    let open = worker.channel.as_ref().is_some_and(|c| !c.closed && !c.is_blocked());
    let healthy = !worker.liveness.stuck && !worker.liveness.suspect;
    let eligible = worker.admitted && worker.drain.is_none() && open && healthy;
    cx.apps[worker.app].balancer.set_eligible(member, eligible);
}

/// Recomputes which listeners count the worker, and from which groups it takes connections by itself.
pub(super) fn recount(cx: &mut Context<impl System>, ix: WorkerIx) {
    let Some(worker) = cx.workers.get(ix) else { return };
    let counted = worker.takes.union(&worker.present).copied().collect::<BTreeSet<ListenerIx>>();
    for listener_ix in worker.serves.union(&counted).copied().collect::<Vec<ListenerIx>>() {
        recount_listener(cx, ix, listener_ix);
    }
}

/// Recomputes this for one listener.
pub(super) fn recount_listener(cx: &mut Context<impl System>, ix: WorkerIx, listener_ix: ListenerIx) {
    let Some(worker) = cx.workers.get_mut(ix) else { return };
    let app_ix = worker.app;
    let Some(listener) = cx.apps[app_ix].listeners.get_mut(listener_ix) else { return };
    let present = worker.admitted && worker.serves.contains(&listener_ix);
    let changed = if present { worker.present.insert(listener_ix) } else { worker.present.remove(&listener_ix) };
    if changed {
        listener.count_present(worker.generation, present);
    }
    if present && listener.listening == Listening::Later {
        listener::begin_listening(cx, app_ix, listener_ix);
        listener::poll(cx, app_ix, listener_ix);
    }
    let Some(worker) = cx.workers.get_mut(ix) else { return };
    if !worker.own_socket && cx.apps[app_ix].has_own_sockets() {
        // Whether the first socket is selected depends on it too.
        return cx.needs_steering(app_ix, listener_ix);
    }
    let Some(listener) = cx.apps[app_ix].listeners.get_mut(listener_ix) else { return };
    let Some(group) = listener.reuseport.as_mut().filter(|_| worker.own_socket) else { return };
    let channel = worker.channel.as_ref();
    let here = present && worker.drain.is_none() && channel.is_none_or(|channel| !channel.closed);
    let reads = !worker.liveness.stuck && channel.is_none_or(|channel| !channel.is_blocked());
    // Datagrams cannot be given to another worker, and their clients are not moved for a short disturbance.
    let takes = here && (reads || listener.datagram);
    let changes = &mut cx.group_changes;
    if takes && worker.takes.insert(listener_ix) {
        group.selection.enter(worker.socket_number, ix);
        cx.timers.set_earlier(Timer::AcceptQueues, cx.now_ms);
    } else if !takes && worker.takes.remove(&listener_ix) {
        let left = group.selection.leave(worker.socket_number, ix);
        changes.chooses_gone |= !here;
        if let Some(socket) = left.filter(|_| !listener.datagram) {
            changes.abandoned.push((app_ix, listener_ix, socket));
            cx.timers.set_earlier(Timer::AcceptQueues, cx.now_ms);
        }
    }
    if group.selection.is_changed() {
        changes.add_unsteered(&mut cx.timers, (app_ix, listener_ix));
    }
}
