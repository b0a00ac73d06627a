//! Moves: connections that a worker gave back between two requests go to another worker, as a new connection does. The
//! ledger of hand-offs keeps them until a worker has taken them. A worker gives back what it keeps when it leaves, and
//! some of it where others keep fewer (`balance::kept` has the rule).
use super::app::App;
use super::channels;
use super::connections::Connection;
use super::context::Context;
use super::dispatch::Dispatch;
use super::narration::plural;
use super::system::System;
use super::timers::Timer;
use super::worker::Worker;
use crate::balance::{ConnIx, kept, sticky};
use crate::ids::{AppIx, ListenerIx, WorkerId, WorkerIx};
use crate::keeper::protocol::Order;
use crate::limits;
use crate::os::listen::LocalAddress;
use crate::supervisor::{Phase, WorkerView};
use crate::worker::node::lines::NewconnLine;
use crate::worker::node::preload_lines;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

/// Workers are not asked more often what they keep, in milliseconds.
const ASK_EVERY_MS: u64 = 1_000;

/// Time for workers to say what they keep before it is decided who gives, in milliseconds. Where one takes longer, all are asked
/// again with the next heartbeat.
const COUNTS_WITHIN_MS: u64 = 50;

/// Prefix of the names in the keeper of copies of what a worker has not read; its id and a number follow.
pub(super) const COPIES: &str = "untouched/";

/// Balance waits so long for workers that start, in milliseconds.
const STARTS_WITHIN_MS: u64 = 5_000;

/// How many connections a worker keeps, as far as is known.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Kept {
    /// What it said last; a new worker keeps none.
    reported: Option<u32>,
    /// It has said so since it was asked last.
    is_fresh: bool,
    /// What it had taken and given when it said so.
    taken_then: u64,
    given_then: u64,
    /// Connections that it gave back.
    pub(super) given: u64,
    recent: Recent,
}

/// Connections that moved to a worker lately: in this period, and in the one before.
#[derive(Clone, Copy, Debug, Default)]
struct Recent {
    since_ms: u64,
    now: u32,
    before: u32,
}

impl Recent {
    const NONE: Recent = Recent { since_ms: 0, now: 0, before: 0 };

    /// So many moved within the last `MOVES_AGAIN_MS`, or a few more.
    fn count(&self, now_ms: u64) -> u32 {
        match now_ms.saturating_sub(self.since_ms) / kept::MOVES_AGAIN_MS {
            0 => self.now + self.before,
            1 => self.now,
            _ => 0,
        }
    }

    fn add(&mut self, now_ms: u64) {
        if now_ms.saturating_sub(self.since_ms) >= kept::MOVES_AGAIN_MS {
            *self = Recent { since_ms: now_ms, now: 0, before: self.count(now_ms) };
        }
        self.now += 1;
    }
}

impl Kept {
    /// Of a worker that has just started.
    pub(super) const NONE: Kept =
        Kept { reported: Some(0), is_fresh: false, taken_then: 0, given_then: 0, given: 0, recent: Recent::NONE };

    /// What it keeps now, given what it has taken; `None` where that is unknown.
    pub(super) fn count(&self, taken: u64) -> Option<u64> {
        let since = (taken - self.taken_then).saturating_sub(self.given - self.given_then);
        self.reported.map(|reported| u64::from(reported) + since)
    }

    /// The worker says how many it keeps.
    pub(super) fn report(&mut self, count: u32, taken: u64) {
        (self.reported, self.is_fresh) = (Some(count), true);
        (self.taken_then, self.given_then) = (taken, self.given);
    }
}

/// When the kept connections of an app are balanced.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rebalance {
    /// The workers were asked what they keep.
    is_asked: bool,
    /// When they were asked last, in milliseconds.
    asked_ms: Option<u64>,
    /// A worker became ready since the last round.
    is_wanted: bool,
    /// Shares are not compared again before this, in milliseconds, unless a worker became ready.
    next_ms: u64,
    /// The hand-offs of the app at the last round.
    handoffs_seen: u64,
}

/// A worker gave a connection back. One that leaves gives all it keeps, and they go to whoever has fewest; where that is not
/// known, and with `sticky`, to the worker that balancing chooses. The connection is closed where its client has closed it,
/// or nobody is left to take it.
pub(super) fn take(cx: &mut Context<impl System>, dispatch: &mut Dispatch, ix: WorkerIx, socket: OwnedFd) {
    cx.system.holding(socket.as_fd());
    let Some(worker) = cx.workers.get_mut(ix) else { return close(cx, socket) };
    worker.kept.given += 1;
    let app_ix = worker.app;
    let app = &cx.apps[app_ix];
    let is_alive = cx.system.connection(socket.as_fd()).is_some_and(|seen| seen.is_alive);
    let has_room = app.connections.len() < limits::HANDOFFS_OPEN_MAX;
    let listener = listener_of(cx, app, &socket);
    let has_future = !app.closed && app.supervisor.has_future();
    let listener = listener.filter(|listener| is_alive && has_room && has_future && has_takers(cx, ix, *listener));
    let Some(listener) = listener else { return close(cx, socket) };
    let conn = add(cx, app_ix, listener, socket, None);
    cx.apps[app_ix].moved += 1;
    let is_sticky = cx.apps[app_ix].balancer.wants_client();
    let receiver = if is_sticky { None } else { least_served(cx, app_ix, listener, ix) };
    match receiver {
        Some(receiver) => {
            let now_ms = cx.now_ms;
            if let Some(worker) = cx.workers.get_mut(receiver) {
                worker.kept.recent.add(now_ms);
            }
            dispatch.hand_to(cx, app_ix, conn, receiver);
        }
        // The giver's channel is being read, so nothing can be handed to it now.
        None => cx.apps[app_ix].waiting.queue.push_back(conn),
    }
}

/// Closes a connection that was in hand.
fn close(cx: &mut Context<impl System>, socket: OwnedFd) {
    cx.system.handed();
    cx.system.close(socket);
}

/// The name in the keeper of the copies of what a worker has not read.
fn copies_name(id: WorkerId) -> String {
    format!("{COPIES}{id}")
}

/// A worker is about to be killed: copies of what it has not read a byte of are kept until it is dead. The keeper makes
/// them, because Yama lets the parent of a process have them, and it holds them for the next master too.
pub(super) fn keep_untouched(cx: &mut Context<impl System>, id: WorkerId) {
    let Some(worker) = cx.workers.find(id).and_then(|ix| cx.workers.get(ix)) else { return };
    let app = &cx.apps[worker.app];
    if worker.member.is_some() && !app.closed && app.supervisor.has_future() {
        cx.keeper.send(Order::CopyUntouched { worker: id, name: copies_name(id) });
    }
}

/// The keeper has a copy of a connection that a worker did not read.
pub(super) fn keep_copy(cx: &mut Context<impl System>, name: String, copy: OwnedFd) {
    let id = name.strip_prefix(COPIES).and_then(|rest| rest.split('/').next()?.parse().ok());
    match id.and_then(|id| cx.workers.find(WorkerId(id))).and_then(|ix| cx.workers.get_mut(ix)) {
        Some(worker) => worker.untouched.push((name, copy)),
        None => {
            cx.keeper.send(Order::Release { name });
            cx.system.close(copy);
        }
    }
}

/// The worker is dead: what it never read a byte of goes to others. What it had not answered is in the ledger, and is not
/// taken twice.
pub(super) fn rescue(cx: &mut Context<impl System>, app_ix: AppIx, id: WorkerId, copies: Vec<(String, OwnedFd)>) {
    if copies.is_empty() {
        return;
    }
    let app = &cx.apps[app_ix];
    let mut known: BTreeSet<u64> = app.connections.iter().filter_map(|c| cx.system.inode(c.socket.as_fd())).collect();
    let mut rescued = 0_u32;
    for (name, socket) in copies {
        cx.keeper.send(Order::Release { name });
        let app = &cx.apps[app_ix];
        // A process may have a connection under several numbers.
        let is_new = cx.system.inode(socket.as_fd()).is_none_or(|inode| known.insert(inode));
        let seen = cx.system.connection(socket.as_fd());
        let is_whole = seen.is_some_and(|seen| seen.is_alive && seen.is_untouched) && is_new;
        let may = is_whole && !app.closed && app.connections.len() < limits::HANDOFFS_OPEN_MAX;
        let listener = listener_of(cx, app, &socket);
        if let Some(listener) = listener.filter(|_| may) {
            queue(cx, app_ix, listener, socket);
            rescued += 1;
        } else {
            cx.system.close(socket);
        }
    }
    cx.apps[app_ix].rescued += u64::from(rescued);
    if rescued > 0 {
        let what = plural(rescued, "connection");
        log::info!("{}: {rescued} {what} that worker {id} never read: given to other workers", cx.apps[app_ix].name);
    }
}

/// Has a connection wait for any worker.
fn queue(cx: &mut Context<impl System>, app_ix: AppIx, listener: ListenerIx, socket: OwnedFd) {
    let conn = add(cx, app_ix, listener, socket, None);
    cx.apps[app_ix].moved += 1;
    cx.apps[app_ix].waiting.queue.push_back(conn);
}

/// Takes a connection into the table of those that no worker has taken yet.
pub(super) fn add(
    cx: &mut Context<impl System>,
    app_ix: AppIx,
    listener: ListenerIx,
    socket: OwnedFd,
    own_line: Option<Box<NewconnLine>>,
) -> ConnIx {
    let app = &mut cx.apps[app_ix];
    let client = if app.balancer.wants_client() { cx.system.peer(socket.as_fd()) } else { None };
    let client_hash = client.map(sticky::hash_ip);
    app.connections.insert(Connection { socket, listener, client_hash, since_us: cx.now_us, own_line, kept_as: None })
}

/// Whether another worker serves this listener, or will: an app that closes a server of its own for good means its
/// connections too.
pub(super) fn has_takers(cx: &Context<impl System>, giver: WorkerIx, listener: ListenerIx) -> bool {
    let Some(worker) = cx.workers.get(giver) else { return false };
    let serves = |other: &Worker<_>| other.admitted && other.drain.is_none() && other.serves.contains(&listener);
    let is_configured = cx.apps[worker.app].listeners[listener].configured.is_some();
    worker.drain.is_some()
        || is_configured
        || cx.workers.iter().any(|(ix, other)| ix != giver && other.app == worker.app && serves(other))
}

/// The worker that keeps the fewest connections of those that serve a listener, except the giver. `None`: nobody's count
/// is known.
fn least_served(cx: &Context<impl System>, app_ix: AppIx, listener: ListenerIx, giver: WorkerIx) -> Option<WorkerIx> {
    let app = &cx.apps[app_ix];
    let group = app.listeners[listener].group;
    let may = |worker: &Worker<_>| worker.member.is_some_and(|member| app.balancer.may_take(group, member, cx.now_us));
    let known = cx.workers.iter().filter(|(ix, worker)| worker.app == app_ix && *ix != giver && may(worker));
    let counted = known.filter_map(|(ix, worker)| {
        let open = worker.member.map_or(0, |member| app.balancer.open_count(member));
        Some((worker.kept.count(worker.taken)? + u64::from(open), ix))
    });
    counted.min().map(|(_, ix)| ix)
}

/// A worker of the app became ready: the others say what they keep, so that moves go to whoever has fewest.
pub(super) fn worker_is_ready(cx: &mut Context<impl System>, ix: WorkerIx) {
    let Some(app) = cx.workers.get(ix).map(|worker| worker.app) else { return };
    let rebalance = &mut cx.apps[app].rebalance;
    rebalance.is_wanted = true;
    cx.timers.set_earlier(Timer::Balance, cx.now_ms);
    // Between two answers the counts are kept up to date: a thousand workers that start are not asked a thousand times.
    if rebalance.asked_ms.is_none_or(|at| cx.now_ms.saturating_sub(at) >= ASK_EVERY_MS) {
        ask(cx, app);
    }
}

fn is_asked_for_counts<S: System>(worker: &Worker<S>, app: AppIx) -> bool {
    let reads = worker.channel.as_ref().is_some_and(|channel| !channel.closed && !channel.is_blocked());
    let serves = worker.admitted && worker.drain.is_none() && !worker.liveness.stuck;
    worker.app == app && worker.has_preload && serves && reads
}

fn ask(cx: &mut Context<impl System>, app: AppIx) {
    cx.apps[app].rebalance.asked_ms = Some(cx.now_ms);
    for ix in cx.workers.indices() {
        let Some(worker) = cx.workers.get_mut(ix).filter(|worker| is_asked_for_counts(worker, app)) else { continue };
        worker.kept.is_fresh = false;
        channels::send(cx, ix, preload_lines::COUNT);
    }
}

/// Once a second, and soon after a worker became ready: has workers that keep many connections give some to those that keep few.
pub(super) fn rebalance(cx: &mut Context<impl System>) {
    for app_ix in cx.apps.indices() {
        let app = &mut cx.apps[app_ix];
        let is_on = app.settings().config.rebalance && !app.balancer.wants_client();
        // Moves within a few moments of each other would move some connections twice.
        let is_young = |w: &WorkerView| cx.now_ms.saturating_sub(w.spawned_at_ms) < STARTS_WITHIN_MS;
        let starts = app.supervisor.workers().any(|w| matches!(w.phase, Phase::Starting { .. }) && is_young(&w));
        if !is_on || app.closed || app.supervisor.is_stopping() || app.supervisor.is_reloading() || starts {
            app.rebalance.is_asked = false;
            continue;
        }
        if std::mem::take(&mut app.rebalance.is_asked) {
            give(cx, app_ix);
            continue;
        }
        let Rebalance { is_wanted, next_ms, handoffs_seen, .. } = app.rebalance;
        let may_drift = (app.handoffs != handoffs_seen || !app.master_accepts()) && next_ms <= cx.now_ms;
        if is_wanted || may_drift {
            app.rebalance.is_asked = true;
            app.rebalance.handoffs_seen = app.handoffs;
            cx.timers.set_earlier(Timer::Balance, cx.now_ms + COUNTS_WITHIN_MS);
            ask(cx, app_ix);
        }
    }
}

/// Has workers give what is beyond their share. Where one has not answered, the next round tries again.
fn give(cx: &mut Context<impl System>, app_ix: AppIx) {
    let workers = || cx.workers.iter().filter(|(_, worker)| is_asked_for_counts(worker, app_ix));
    let counts = workers().filter(|(_, worker)| worker.kept.is_fresh);
    let kept: Vec<(WorkerIx, u32)> =
        counts.filter_map(|(ix, worker)| Some((ix, u32::try_from(worker.kept.count(worker.taken)?).ok()?))).collect();
    if kept.len() != workers().count() {
        return;
    }
    let gives = kept::gives(&kept);
    let rebalance = &mut cx.apps[app_ix].rebalance;
    rebalance.next_ms = cx.now_ms + kept::ROUND_EVERY_MS;
    rebalance.is_wanted = false;
    let mut line = Vec::new();
    for (ix, count) in gives {
        // The oldest: what moved here lately stays.
        let recent = cx.workers.get(ix).map_or(0, |worker| worker.kept.recent.count(cx.now_ms));
        let keeps = kept.iter().find(|(other, _)| *other == ix).map_or(0, |(_, keeps)| *keeps);
        let of = keeps.saturating_sub(recent);
        if of < count {
            cx.apps[app_ix].rebalance.is_wanted = true;
        }
        line.clear();
        preload_lines::give(&mut line, count.min(of), of);
        channels::send(cx, ix, &line);
    }
}

/// The listener that accepted a connection, by its local address.
pub(super) fn listener_of(cx: &Context<impl System>, app: &App, connection: &OwnedFd) -> Option<ListenerIx> {
    let local = cx.system.local_address(connection.as_fd()).ok()?;
    let open = || app.listeners.entries().filter(|(_, listener)| !listener.datagram);
    let exact = open().find(|(_, listener)| listener.local == local);
    let any = || {
        let LocalAddress::Inet(address) = &local else { return None };
        open().find(|(_, listener)| accepts(&listener.local, address))
    };
    exact.or_else(any).map(|(ix, _)| ix)
}

/// Whether a listener on all interfaces accepts what comes to this address.
fn accepts(listener: &LocalAddress, address: &SocketAddr) -> bool {
    let LocalAddress::Inet(own) = listener else { return false };
    own.port() == address.port() && own.ip().is_unspecified() && (own.is_ipv6() || address.is_ipv4())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_all_interfaces_accepts_at_each() {
        let listener = |text: &str| LocalAddress::Inet(text.parse().unwrap());
        let at_each = |on: &str, at: &str| accepts(&listener(on), &at.parse().unwrap());
        assert!(at_each("0.0.0.0:80", "127.0.0.1:80"));
        assert!(at_each("[::]:80", "[::ffff:127.0.0.1]:80") && at_each("[::]:80", "[::1]:80"));
        assert!(!at_each("0.0.0.0:80", "127.0.0.1:81") && !at_each("0.0.0.0:80", "[::1]:80"));
        assert!(!at_each("127.0.0.2:80", "127.0.0.1:80"));
    }
}
