//! Moves of upgraded connections (WebSockets), which carry a state from one worker to another. `moves` is about connections
//! between two requests. Only workers that have announced it take them; one that nobody can take stays with its worker.
use super::context::Context;
use super::dispatch::Dispatch;
use super::moves;
use super::system::System;
use super::worker::Worker;
use crate::balance::ConnIx;
use crate::ids::{AppIx, WorkerIx};
use crate::limits;
use std::cmp::Reverse;
use std::os::fd::{AsFd, OwnedFd};

/// A worker gave back an upgraded connection with its state. Whether another worker has it now; the giver keeps it otherwise.
pub(super) fn take(
    cx: &mut Context<impl System>,
    dispatch: &mut Dispatch,
    giver: WorkerIx,
    socket: OwnedFd,
    state: Option<&str>,
) -> bool {
    let Some(app_ix) = cx.workers.get(giver).map(|worker| worker.app) else {
        cx.system.close(socket);
        return false;
    };
    let app = &cx.apps[app_ix];
    let is_alive = cx.system.connection(socket.as_fd()).is_some_and(|seen| seen.is_alive);
    let under_way = app.connections.iter().filter(|connection| connection.own_line.is_some()).count();
    let has_room = app.connections.len() < limits::HANDOFFS_OPEN_MAX && under_way < limits::UPGRADED_OPEN_MAX;
    let may = is_alive && has_room && !app.closed && app.supervisor.has_future();
    let listener = moves::listener_of(cx, app, &socket);
    let listener = listener.filter(|listener| may && moves::has_takers(cx, giver, *listener));
    let Some((listener, state)) = listener.zip(state) else {
        cx.system.close(socket);
        return false;
    };
    let line = cx.apps[app_ix].listeners[listener].newconn.with_state(state);
    let conn = moves::add(cx, app_ix, listener, socket, Some(Box::new(line)));
    let receiver = receiver(cx, app_ix, conn, Some(giver));
    if receiver.is_some_and(|receiver| dispatch.send_to(cx, app_ix, conn, receiver)) {
        cx.apps[app_ix].moved += 1;
        return true;
    }
    if let Some(connection) = cx.apps[app_ix].connections.remove(conn) {
        cx.system.close(connection.socket);
    }
    false
}

/// Gives to other workers what a worker had not taken when it died.
pub(super) fn hand_off_waiting(cx: &mut Context<impl System>, dispatch: &mut Dispatch) {
    for app_ix in cx.apps.indices() {
        for _ in 0..cx.apps[app_ix].waiting.upgraded.len() {
            let Some((until_ms, conn)) = cx.apps[app_ix].waiting.upgraded.pop_front() else { break };
            let receiver = receiver(cx, app_ix, conn, None);
            if receiver.is_some_and(|receiver| dispatch.send_to(cx, app_ix, conn, receiver)) {
                continue;
            }
            if cx.now_ms < until_ms {
                cx.apps[app_ix].waiting.upgraded.push_back((until_ms, conn));
            } else if let Some(connection) = cx.apps[app_ix].connections.remove(conn) {
                log::warn!("{}: an upgraded connection is closed: no worker takes it", cx.apps[app_ix].name);
                cx.system.close(connection.socket);
            }
        }
    }
}

/// The worker that gets an upgraded connection: the one that its client belongs to (`sticky`), or one of the newest generation,
/// so that it moves only once, with the fewest connections.
fn receiver(cx: &mut Context<impl System>, app_ix: AppIx, conn: ConnIx, giver: Option<WorkerIx>) -> Option<WorkerIx> {
    let (now_us, workers) = (cx.now_us, &cx.workers);
    let app = &mut cx.apps[app_ix];
    let (listener, client_hash) = app.connections.get(conn).map(|c| (c.listener, c.client_hash))?;
    let group = app.listeners[listener].group;
    let home = client_hash.and_then(|hash| app.balancer.pick(group, Some(hash), now_us));
    let takes = |ix: WorkerIx, worker: &Worker<_>| {
        let may = worker.member.is_some_and(|member| app.balancer.may_take(group, member, now_us));
        worker.app == app_ix && Some(ix) != giver && worker.takes_upgraded && worker.drain.is_none() && may
    };
    let at_home = home.map(|member| app.by_member[member.0 as usize]);
    if let Some(ix) = at_home.filter(|ix| workers.get(*ix).is_some_and(|worker| takes(*ix, worker))) {
        return Some(ix);
    }
    let takers = workers.iter().filter(|(ix, worker)| takes(*ix, worker));
    let open = |worker: &Worker<_>| worker.member.map_or(0, |member| u64::from(app.balancer.open_count(member)));
    let load = |worker: &Worker<_>| worker.kept.count(worker.taken).unwrap_or(worker.taken) + open(worker);
    takers.min_by_key(|(_, worker)| (Reverse(worker.generation), load(worker))).map(|(ix, _)| ix)
}
