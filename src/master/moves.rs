//! Moves: connections that a worker gave back between two requests go to another worker, as a new connection does. The
//! ledger of hand-offs keeps them until a worker has taken them.
use super::app::App;
use super::connections::Connection;
use super::context::Context;
use super::system::System;
use crate::balance::sticky;
use crate::ids::{ListenerIx, WorkerIx};
use crate::limits;
use crate::os::listen::LocalAddress;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

/// A worker gave a connection back: it waits for the worker that balancing chooses. It is closed where its client has
/// closed it, or nobody is left to take it.
pub(super) fn take(cx: &mut Context<impl System>, ix: WorkerIx, socket: OwnedFd) {
    let Some(worker) = cx.workers.get(ix) else { return cx.system.close(socket) };
    let app = &mut cx.apps[worker.app];
    let is_alive = cx.system.connection(socket.as_fd()).is_some_and(|seen| seen.is_alive);
    let has_room = app.connections.len() < limits::HANDOFFS_OPEN_MAX;
    let listener = cx.system.local_address(socket.as_fd()).ok().and_then(|local| listener_of(app, &local));
    let Some(listener) = listener.filter(|_| is_alive && has_room && !app.closed && app.supervisor.has_future()) else {
        return cx.system.close(socket);
    };
    let client_hash =
        if app.balancer.wants_client() { cx.system.peer(socket.as_fd()).map(sticky::hash_ip) } else { None };
    let conn = app.connections.insert(Connection { socket, listener, client_hash });
    // Its own channel is being read, so it is not handed on at once.
    app.waiting.queue.push_back(conn);
    app.moved += 1;
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
