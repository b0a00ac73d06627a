//! When connections enter the accept queue of a slot: where its worker speaks HTTP or TLS, with the first bytes of their
//! client, else at once. Which servers those are, the preload says with its request for the socket.
//!
//! What waits for its client outside of the queue belongs to no worker, so it survives a worker that is killed, and a worker
//! accepts nothing that it cannot read yet. Where the server speaks first (SMTP, MySQL) the client would wait in vain.
use crate::ids::{AppIx, ListenerIx};
use crate::master::context::Context;
use crate::master::system::System;
use crate::master::worker::Worker;
use crate::os::listen::LocalAddress;

/// Sets this socket of a listener up for the workers that accept from it. Where there is none it stays as it is, for the
/// slot's next one.
pub(in crate::master) fn refresh(cx: &Context<impl System>, app_ix: AppIx, listener_ix: ListenerIx, socket: u32) {
    let Some(app) = cx.apps.get(app_ix) else { return };
    let Some(listener) = app.listeners.get(listener_ix) else { return };
    if listener.datagram || !matches!(listener.local, LocalAddress::Inet(_)) {
        return;
    }
    let place = |number: u32| listener.reuseport.as_ref().map_or(0, |group| group.selection.socket_of(number));
    let socket = place(socket);
    let here = |w: &Worker<_>| {
        w.app == app_ix && w.own_socket && w.serves.contains(&listener_ix) && place(w.socket_number) == socket
    };
    let mut waits = cx.workers.iter().filter(|(_, w)| here(w)).map(|(_, w)| w.client_first.contains(&listener_ix));
    // In another balance mode the first socket is everybody's. It may have been a slot's before, also in an earlier run.
    let Some(first) = (if app.has_own_sockets() { waits.next() } else { Some(false) }) else { return };
    if let Err(e) = cx.system.defer_accept(listener.socket(socket), first && waits.all(|waits| waits)) {
        log::debug!("{}: cannot set TCP_DEFER_ACCEPT on {listener}: {e}", app.name);
    }
}

/// The same for all sockets of an app: its balance mode may have changed.
pub(in crate::master) fn refresh_all(cx: &Context<impl System>, app_ix: AppIx) {
    for (listener_ix, listener) in cx.apps[app_ix].listeners.entries() {
        for socket in 0..listener.socket_count() {
            refresh(cx, app_ix, listener_ix, socket);
        }
    }
}
