//! Which listener of the app an intercepted bind(2) means. A configured port is meant by any host; another fixed port becomes
//! a listener of its own at the first bind.
use super::look::Looked;
use crate::ids::{ListenerIx, WorkerIx};
use crate::master::context::Context;
use crate::master::kernel_mode::groups::Groups;
use crate::master::system::System;
use crate::master::{addresses, requests, unread};
use crate::os::listen::LocalAddress;
use crate::os::seccomp::Answer;
use crate::os::tracee::SocketKind;
use crate::worker::bind::Address;
use crate::worker::node::lines::{AddressType, Query};
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The listener whose socket the caller gets.
///
/// # Errors
/// The answer, where it gets none.
pub(super) fn listener_for(
    cx: &mut Context<impl System>,
    groups: &mut Groups,
    ix: WorkerIx,
    looked: &Looked,
) -> Result<ListenerIx, Answer> {
    let worker = cx.workers.get(ix).ok_or(Answer::Continue)?;
    let (app_ix, slot, own_socket) = (worker.app, worker.slot, worker.own_socket);
    if let Some(e) = &looked.error {
        if unread::may_warn(cx, ix) {
            let (app, id) = (&cx.apps[app_ix].name, looked.worker);
            log::warn!(
                "{app}: worker {id}: cannot read the address that it binds ({e}); it gets a socket of its own there"
            );
        }
        return Err(Answer::Continue);
    }
    let Some(address) = &looked.address else { return Err(Answer::Continue) };
    let found = configured(cx, ix, looked.kind, address).map_or_else(|| other(cx, ix, looked, address), Ok)?;
    if own_socket {
        groups.give_slot_a_socket(cx, app_ix, found, slot);
    }
    Ok(found)
}

/// The configured listener that this address means.
fn configured(cx: &Context<impl System>, ix: WorkerIx, kind: SocketKind, address: &Address) -> Option<ListenerIx> {
    let worker = cx.workers.get(ix)?;
    let app = &cx.apps[worker.app];
    let settings = app.generations.get(&worker.generation).unwrap_or_else(|| app.settings());
    let cwd = &settings.cwd;
    let configured = addresses::of_generation(app, settings).into_iter().map(|ix| (ix, &app.listeners[ix]));
    let found = configured.into_iter().find(|(_, listener)| match (&listener.local, address, kind) {
        (LocalAddress::Inet(local), Address::Inet(asked), SocketKind::Tcp) => asked.port() == local.port(),
        (LocalAddress::Unix(path), Address::Path(asked), SocketKind::UnixStream) => same_path(path, asked, cwd),
        _ => false,
    });
    found.map(|(ix, _)| ix)
}

fn same_path(path: &Path, asked: &[u8], cwd: &Path) -> bool {
    cwd.join(OsStr::from_bytes(asked)) == *path
}

/// The listener at a fixed address that nobody configured, made at the first bind.
fn other(
    cx: &mut Context<impl System>,
    ix: WorkerIx,
    looked: &Looked,
    address: &Address,
) -> Result<ListenerIx, Answer> {
    let wishes = looked.socket.as_ref().map(|socket| cx.system.socket_wishes(socket.as_fd()));
    let v6only = wishes.is_some_and(|wishes| wishes.v6only);
    let address_type = match (address, looked.kind) {
        (Address::Inet(SocketAddr::V4(_)), SocketKind::Tcp) => AddressType::Tcp4,
        (Address::Inet(SocketAddr::V6(_)), SocketKind::Tcp) => AddressType::Tcp6,
        // Who wants to share a UDP port by itself (multicast) gets every datagram in every process.
        (Address::Inet(asked), SocketKind::Udp) if wishes.is_some_and(|w| !w.reuse_address && !w.reuse_port) => {
            if asked.is_ipv4() { AddressType::Udp4 } else { AddressType::Udp6 }
        }
        _ => return Err(Answer::Continue),
    };
    let Address::Inet(asked) = address else { return Err(Answer::Continue) };
    if asked.port() == 0 {
        return Err(Answer::Continue);
    }
    let query = Query {
        address: Some(asked.ip().to_string()),
        port: i64::from(asked.port()),
        address_type,
        fd: None,
        // UV_TCP_IPV6ONLY and UV_UDP_IPV6ONLY.
        flags: i64::from(v6only),
        backlog: None,
        index: 0,
        data: None,
    };
    // Where it cannot be bound the kernel tells the program why.
    requests::listener_for(cx, ix, &query).map_err(|_| Answer::Continue)
}
