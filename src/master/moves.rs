//! Moves: connections that a worker gave back between two requests go to another worker, as a new connection does. The
//! ledger of hand-offs keeps them until a worker has taken them. A worker gives back what it keeps when it leaves, and
//! some of it where others keep fewer (`balance::kept` has the rule).
use super::app::App;
use super::channels;
use super::connections::Connection;
use super::context::Context;
use super::dispatch::Dispatch;
use super::system::System;
use super::worker::Worker;
use crate::balance::{kept, sticky};
use crate::ids::{AppIx, ListenerIx, WorkerIx};
use crate::limits;
use crate::os::listen::LocalAddress;
use crate::worker::node::lines;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

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
}

impl Kept {
    /// Of a worker that has just started.
    pub(super) const NONE: Kept = Kept { reported: Some(0), is_fresh: false, taken_then: 0, given_then: 0, given: 0 };

    /// What it keeps now, given what it has taken; `None` where that is unknown.
    fn count(&self, taken: u64) -> Option<u64> {
        let since = (taken - self.taken_then).saturating_sub(self.given - self.given_then);
        self.reported.map(|reported| u64::from(reported) + since)
    }

    /// The worker says how many it keeps.
    pub(super) fn report(&mut self, count: u32, taken: u64) {
        *self = Kept {
            reported: Some(count),
            is_fresh: true,
            taken_then: taken,
            given_then: self.given,
            given: self.given,
        };
    }
}

/// When the kept connections of an app are balanced.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rebalance {
    /// The workers were asked what they keep.
    is_asked: bool,
    /// A worker became ready since the last round.
    is_wanted: bool,
    /// Shares are not compared again before this, in milliseconds, unless a worker became ready.
    next_ms: u64,
    /// No connection moves for balance before this, in milliseconds.
    rests_until_ms: u64,
    /// The hand-offs of the app at the last round.
    handoffs_seen: u64,
}

/// A worker gave a connection back. One that leaves gives all it keeps, and they go to whoever has fewest; where that is not
/// known, and with `sticky`, to the worker that balancing chooses. The connection is closed where its client has closed it,
/// or nobody is left to take it.
pub(super) fn take(cx: &mut Context<impl System>, dispatch: &mut Dispatch, ix: WorkerIx, socket: OwnedFd) {
    let Some(worker) = cx.workers.get_mut(ix) else { return cx.system.close(socket) };
    worker.kept.given += 1;
    let app_ix = worker.app;
    let app = &mut cx.apps[app_ix];
    let is_alive = cx.system.connection(socket.as_fd()).is_some_and(|seen| seen.is_alive);
    let has_room = app.connections.len() < limits::HANDOFFS_OPEN_MAX;
    let listener = cx.system.local_address(socket.as_fd()).ok().and_then(|local| listener_of(app, &local));
    let Some(listener) = listener.filter(|_| is_alive && has_room && !app.closed && app.supervisor.has_future()) else {
        return cx.system.close(socket);
    };
    let client_hash =
        if app.balancer.wants_client() { cx.system.peer(socket.as_fd()).map(sticky::hash_ip) } else { None };
    let is_sticky = client_hash.is_some();
    let conn = app.connections.insert(Connection { socket, listener, client_hash });
    app.moved += 1;
    let receiver = if is_sticky { None } else { least_served(cx, app_ix, listener, ix) };
    match receiver {
        Some(receiver) => dispatch.hand_to(cx, app_ix, conn, receiver),
        // The giver's channel is being read, so nothing can be handed to it now.
        None => cx.apps[app_ix].waiting.queue.push_back(conn),
    }
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
    cx.apps[app].rebalance.is_wanted = true;
    ask(cx, app);
}

fn is_asked_for_counts<S: System>(worker: &Worker<S>, app: AppIx) -> bool {
    worker.app == app && worker.has_preload && worker.admitted && worker.drain.is_none()
}

fn ask(cx: &mut Context<impl System>, app: AppIx) {
    for ix in cx.workers.indices() {
        let Some(worker) = cx.workers.get_mut(ix).filter(|worker| is_asked_for_counts(worker, app)) else { continue };
        worker.kept.is_fresh = false;
        channels::send(cx, ix, lines::COUNT);
    }
}

/// Once a second: has workers that keep many connections give some to those that keep few.
pub(super) fn rebalance(cx: &mut Context<impl System>) {
    for app_ix in cx.apps.indices() {
        let app = &mut cx.apps[app_ix];
        let is_on = app.settings().config.rebalance && !app.balancer.wants_client();
        if !is_on || app.closed || app.supervisor.is_stopping() || app.supervisor.is_reloading() {
            app.rebalance.is_asked = false;
            continue;
        }
        if std::mem::take(&mut app.rebalance.is_asked) {
            give(cx, app_ix);
            continue;
        }
        let Rebalance { is_wanted, next_ms, rests_until_ms, handoffs_seen, .. } = app.rebalance;
        let may_drift = (app.handoffs != handoffs_seen || !app.master_accepts()) && next_ms <= cx.now_ms;
        if (is_wanted || may_drift) && rests_until_ms <= cx.now_ms {
            app.rebalance.is_asked = true;
            app.rebalance.handoffs_seen = app.handoffs;
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
    rebalance.is_wanted = false;
    rebalance.next_ms = cx.now_ms + kept::ROUND_EVERY_MS;
    if !gives.is_empty() {
        rebalance.rests_until_ms = rebalance.next_ms;
    }
    let mut line = Vec::new();
    for (ix, count) in gives {
        line.clear();
        lines::give(&mut line, count);
        channels::send(cx, ix, &line);
    }
}

/// The listener that accepted a connection with this local address.
fn listener_of(app: &App, local: &LocalAddress) -> Option<ListenerIx> {
    let open = || app.listeners.entries().filter(|(_, listener)| !listener.datagram);
    let exact = open().find(|(_, listener)| listener.local == *local);
    let any = || {
        let LocalAddress::Inet(address) = local else { return None };
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
