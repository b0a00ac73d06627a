//! Moves of upgraded connections (WebSockets), which carry a state from one worker to another. `moves` is about connections
//! between two requests. Who gets one, and what becomes of it otherwise, is decided in `balance::upgraded`.
use super::context::Context;
use super::dispatch::Dispatch;
use super::moves;
use super::system::System;
use super::worker::Worker;
use crate::balance::ConnIx;
use crate::balance::upgraded::{self, Fate, Taker};
use crate::ids::{AppIx, ListenerIx, WorkerIx};
use crate::limits;
use crate::worker::node::channel::{Channel, ChannelSocket, Unsendable};
use crate::worker::node::preload_lines;
use std::os::fd::{AsFd, OwnedFd};

/// A worker gave back an upgraded connection with its state. It is told whether another worker has it now; it keeps it otherwise.
///
/// # Errors
/// The giver does not read its channel.
pub(super) fn take(
    cx: &mut Context<impl System>,
    dispatch: &mut Dispatch,
    giver: WorkerIx,
    channel: &mut Channel<impl ChannelSocket>,
    socket: OwnedFd,
    state: Option<&str>,
) -> Result<(), Unsendable> {
    let offer = cx.workers.get(giver).map(|worker| worker.app);
    let offer = offer.and_then(|app_ix| Some((app_ix, place(cx, app_ix, giver, &socket)?, state?)));
    let Some((app_ix, listener, state)) = offer else {
        cx.system.close(socket);
        return channel.send_line(preload_lines::STAYS, None);
    };
    let line = cx.apps[app_ix].listeners[listener].newconn.with_state(state);
    let conn = moves::add(cx, app_ix, listener, socket, Some(Box::new(line)));
    let receiver = receiver(cx, app_ix, conn, Some(giver));
    if let Fate::Goes(receiver) = upgraded::fate(true, receiver, true)
        && dispatch.send_to(cx, app_ix, conn, receiver)
    {
        cx.apps[app_ix].moved += 1;
        return channel.send_line(preload_lines::TAKEN, None);
    }
    let sent = channel.send_line(preload_lines::STAYS, None);
    // A giver that is gone cannot keep it.
    match upgraded::fate::<WorkerIx>(true, None, sent.is_ok() && !channel.closed) {
        Fate::Waits => cx.apps[app_ix].waiting.upgraded.add(conn, cx.now_ms),
        Fate::Stays | Fate::Ends | Fate::Goes(_) => close(cx, app_ix, conn),
    }
    sent
}

/// The listener of a connection that may move: its client is there, and its app has room for it and a future.
fn place(cx: &Context<impl System>, app_ix: AppIx, giver: WorkerIx, socket: &OwnedFd) -> Option<ListenerIx> {
    let app = &cx.apps[app_ix];
    let is_alive = cx.system.connection(socket.as_fd()).is_some_and(|seen| seen.is_alive);
    let under_way = app.connections.iter().filter(|connection| connection.own_line.is_some()).count();
    let has_room = app.connections.len() < limits::HANDOFFS_OPEN_MAX && under_way < limits::UPGRADED_OPEN_MAX;
    let may = is_alive && has_room && !app.closed && app.supervisor.has_future();
    let listener = if may { moves::listener_of(cx, app, socket) } else { None };
    listener.filter(|listener| moves::has_takers(cx, giver, *listener))
}

fn close(cx: &mut Context<impl System>, app_ix: AppIx, conn: ConnIx) {
    if let Some(connection) = cx.apps[app_ix].connections.remove(conn) {
        cx.system.close(connection.socket);
    }
}

/// Gives to other workers what a worker had not taken when it died, or had given back.
pub(super) fn hand_off_waiting(cx: &mut Context<impl System>, dispatch: &mut Dispatch) {
    for app_ix in cx.apps.indices() {
        for _ in 0..cx.apps[app_ix].waiting.upgraded.len() {
            let Some(waits) = cx.apps[app_ix].waiting.upgraded.take_first() else { break };
            let receiver = receiver(cx, app_ix, waits.conn, None);
            let is_sent = receiver.is_some_and(|receiver| dispatch.send_to(cx, app_ix, waits.conn, receiver));
            if !is_sent && !cx.apps[app_ix].waiting.upgraded.put_back(waits, cx.now_ms) {
                log::warn!("{}: closed an upgraded connection (WebSocket): no worker takes it", cx.apps[app_ix].name);
                close(cx, app_ix, waits.conn);
            }
        }
    }
}

/// The worker that gets an upgraded connection.
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
    let open = |worker: &Worker<_>| worker.member.map_or(0, |member| u64::from(app.balancer.open_count(member)));
    let takers = workers.iter().filter(|(ix, worker)| takes(*ix, worker)).map(|(ix, worker)| Taker {
        worker: ix,
        is_home: home.is_some() && worker.member == home,
        generation: worker.generation,
        load: worker.kept.count(worker.taken).unwrap_or(worker.taken) + open(worker),
    });
    upgraded::receiver(takers)
}
