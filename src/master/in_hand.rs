//! The connections that a killed master had and no worker. One is in hand, between its accept (or its coming back from a worker) and
//! the end of its hand-off: the master's guard (`os::guard`) sends it to the keeper, which holds it for the next master. Those that
//! wait for a worker the keeper holds from the end of the turn in which they began to wait. Here is the name that they have there, and
//! what the next master does with them: nobody gets one twice, and it waits for nobody who has it.
//!
//! Where the hand-off had begun, the worker may have the connection or not. It answers in the order of what it reads: so a
//! connection that does not exist is handed to it, for a server that does not exist. If it has answered that and not the hand-off
//! before, it never got that one.
use super::connections::{Connection, Connections};
use super::context::Context;
use super::keeper::Keeper;
use super::moves;
use super::system::System;
use super::tasks::Task;
use crate::balance::ConnIx;
use crate::ids::{AppIx, WorkerId, WorkerIx};
use crate::keeper::codec;
use crate::keeper::protocol::Order;
use crate::limits;
use crate::os::guard::Parcel;
use crate::worker::node::lines::NewconnLine;
use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};

/// Prefix of its name in the keeper; the worker's id and the number of the hand-off follow.
pub(super) const HELD: &str = "hand/";
/// Waiting connections that the keeper gets in one turn. The rest follows in the next ones.
const KEPT_PER_TURN_MAX: usize = 64;
/// No listener has this key.
const NO_KEY: &str = "clusterd:none";

/// The order to hold a connection in hand, for the guard to fill in.
pub(super) fn parcel() -> Option<Parcel> {
    let zeros = "0".repeat(Parcel::DIGITS);
    let name = format!("{HELD}{zeros}/{zeros}");
    let bytes = codec::encode_order(&Order::Hold { name: name.clone() }).ok()?;
    let receiver_at = bytes.windows(name.len()).position(|part| part == name.as_bytes())? + HELD.len();
    Some(Parcel { bytes, receiver_at, number_at: receiver_at + Parcel::DIGITS + 1 })
}

/// The worker (`None`: nobody yet) and the hand-off in a name.
fn read_name(name: &str) -> Option<(Option<WorkerId>, u64)> {
    let (worker, seq) = name.strip_prefix(HELD)?.split_once('/')?;
    let worker: u64 = worker.parse().ok()?;
    Some(((worker > 0).then_some(WorkerId(worker)), seq.parse().ok()?))
}

/// The name of a connection that waits for any worker.
fn waiting_name(number: u64) -> String {
    format!("{HELD}0/{number}")
}

/// Has the keeper hold what waits for a worker at the end of a turn.
pub(super) fn keep_waiting(cx: &mut Context<impl System>) {
    // Without a guard nobody would know whether one was handed on just before the end of this process.
    if !cx.system.is_guarded() {
        return;
    }
    let mut left = KEPT_PER_TURN_MAX;
    for ix in cx.apps.indices() {
        let app = &mut cx.apps[ix];
        for conn in &app.waiting.queue {
            // Orders that wait are not to become more.
            if left == 0 || cx.keeper.has_more() {
                return;
            }
            let Some(connection) = app.connections.get_mut(*conn) else { continue };
            // The state of one that carries some would be lost.
            if connection.kept_as.is_some() || connection.own_line.is_some() {
                continue;
            }
            let number = cx.deployment.next_kept();
            connection.kept_as = Some(number);
            cx.keeper.hold(waiting_name(number), connection.socket.as_fd());
            left -= 1;
        }
    }
}

/// A connection is about to be handed on: one that has waited is in hand from now on.
pub(super) fn take_up(system: &impl System, connection: &Connection<OwnedFd>) {
    if connection.kept_as.is_some() {
        system.holding(connection.socket.as_fd());
    }
}

/// A worker has this connection now, or nobody needs it any more.
pub(super) fn handed<S: System>(
    system: &S,
    keeper: &mut Keeper<S>,
    connections: &mut Connections<OwnedFd>,
    conn: ConnIx,
) {
    if let Some(number) = connections.get_mut(conn).and_then(|connection| connection.kept_as.take()) {
        keeper.send(Order::Release { name: waiting_name(number) });
    }
    // Last: until the keeper has let go of it, the guard says who has it.
    system.handed();
}

/// Takes over what the previous master had in hand, and what waited. Before any channel is read: the worker's answer may wait there.
pub(super) fn adopt(cx: &mut Context<impl System>, fds: &mut HashMap<String, OwnedFd>) {
    let mut names: Vec<String> = fds.keys().filter(|name| name.starts_with(HELD)).cloned().collect();
    // One that waited and was just being handed on comes by both names: the one with its worker is the later one.
    names.sort_by_key(|name| std::cmp::Reverse(read_name(name)));
    let mut seen = HashSet::new();
    for name in names {
        let (socket, meant_for) = (fds.remove(&name), read_name(&name));
        let identity = socket.as_ref().and_then(|socket| cx.system.file_identity(socket.as_fd()).ok());
        let socket = socket.filter(|_| identity.is_none_or(|identity| seen.insert(identity)));
        // The keeper's copy is not kept: a connection that kills each master must not kill all of them.
        cx.keeper.send(Order::Release { name });
        let Some((socket, (worker, seq))) = socket.zip(meant_for) else { continue };
        let listener = cx.apps.indices().find_map(|ix| {
            let app = &cx.apps[ix];
            let listener = moves::listener_of(cx, app, &socket)?;
            (!app.closed && app.connections.len() < limits::HANDOFFS_OPEN_MAX).then_some((ix, listener))
        });
        let receiver = worker.map(|id| cx.workers.find(id));
        let member = receiver.flatten().and_then(|ix| cx.workers.get(ix)?.member);
        match (listener, receiver, member) {
            // Its worker lives and gets no connections: it may have this one.
            (None, ..) | (Some(_), Some(Some(_)), None) => cx.system.close(socket),
            (Some((app, listener)), Some(Some(ix)), Some(member)) => {
                let conn = moves::add(cx, app, listener, socket, None);
                cx.apps[app].balancer.adopt(member, conn, seq, cx.now_us);
                ask(cx, ix);
            }
            (Some((app, listener)), None | Some(None), _) => {
                let conn = moves::add(cx, app, listener, socket, None);
                wait(cx, app, [conn]);
            }
        }
    }
}

/// Asks a worker something that it answers after all that it was sent before. The number is this master's: the answer to what an
/// earlier one asked says nothing.
fn ask(cx: &mut Context<impl System>, ix: WorkerIx) {
    let mut line = Vec::new();
    NewconnLine::new(NO_KEY).render(cx.deployment.question_seq(), &mut line);
    // Where it cannot be asked, its answer to the hand-off, or its end, decides.
    let Ok((_, other)) = cx.system.socket_pair() else { return };
    let Some(worker) = cx.workers.get_mut(ix) else { return };
    let Some(channel) = &mut worker.channel else { return };
    match channel.send_line(&line, Some(other.as_fd())) {
        Ok(()) if channel.is_blocked() => cx.tasks.push_back(Task::AwaitWritable(ix)),
        Ok(()) | Err(_) => {}
    }
}

/// The worker has answered the question.
pub(super) fn answered(cx: &mut Context<impl System>, ix: WorkerIx) {
    let Some(worker) = cx.workers.get(ix) else { return };
    let (app, Some(member)) = (worker.app, worker.member) else { return };
    let never_sent = cx.apps[app].balancer.take_back_adopted(member);
    wait(cx, app, never_sent);
}

/// They wait for any worker.
fn wait(cx: &mut Context<impl System>, app: AppIx, connections: impl IntoIterator<Item = ConnIx>) {
    let app = &mut cx.apps[app];
    let waiting = app.waiting.len();
    app.waiting.queue.extend(connections);
    app.rescued += (app.waiting.len() - waiting) as u64;
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_name_in_the_parcel_is_read_back_with_its_numbers() {
        let Parcel { mut bytes, receiver_at, number_at } = parcel().unwrap();
        bytes[receiver_at..receiver_at + Parcel::DIGITS].copy_from_slice(b"00000000000000000017");
        bytes[number_at..number_at + Parcel::DIGITS].copy_from_slice(b"00000000008589934593");
        let Order::Hold { name } = codec::decode_order(&bytes).unwrap() else { panic!("another order") };
        assert_eq!(read_name(&name), Some((Some(WorkerId(17)), 8_589_934_593)));
        let nobody = format!("{HELD}{:020}/{:020}", 0, 0);
        assert_eq!(read_name(&nobody), Some((None, 0)));
        assert_eq!(read_name("hand/x/1"), None);
    }
}
