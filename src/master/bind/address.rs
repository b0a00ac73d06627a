//! Which listener of the app an intercepted bind(2) means. A configured port is meant by any host; another fixed port becomes
//! a listener of its own at the first bind.
use super::Given;
use super::look::Looked;
use crate::config::Listen;
use crate::ids::{ListenerIx, WorkerIx};
use crate::master::context::Context;
use crate::master::kernel_mode::groups::Groups;
use crate::master::system::System;
use crate::master::{address_in_use, addresses, requests, spawn, unread};
use crate::os::errno;
use crate::os::listen::LocalAddress;
use crate::os::seccomp::Answer;
use crate::os::tracee::SocketKind;
use crate::worker::FIRST_FD;
use crate::worker::bind::Address;
use crate::worker::node::lines::{AddressType, Query};
use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
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
    let (app_ix, number, own_socket) = (worker.app, worker.socket_number, worker.own_socket);
    if let Some(e) = &looked.error {
        if unread::may_warn(cx, ix) {
            let (app, id) = (&cx.apps[app_ix].name, looked.worker);
            log::warn!("{app}: worker {id}: cannot read the address that it binds: {e}; it binds a socket of its own");
        }
        return Err(Answer::Continue);
    }
    let Some(address) = &looked.address else { return Err(Answer::Continue) };
    let found = match configured(cx, ix, looked.kind, address) {
        Some(found) => in_its_family(cx, groups, ix, found, looked, address)?,
        None => other(cx, ix, looked, address)?,
    };
    if is_bound_already(cx, ix, found, looked, address) {
        return Err(Answer::Fail(-errno::UV_EADDRINUSE));
    }
    if own_socket {
        groups.give_slot_a_socket(cx, app_ix, found, number);
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

/// This listener, in the family of the program's socket where nobody else has it so far. An IPv6 socket beside one for IPv4 is
/// another listener.
fn in_its_family(
    cx: &mut Context<impl System>,
    groups: &mut Groups,
    ix: WorkerIx,
    found: ListenerIx,
    looked: &Looked,
    address: &Address,
) -> Result<ListenerIx, Answer> {
    let worker = cx.workers.get(ix).ok_or(Answer::Continue)?;
    let app_ix = worker.app;
    let listener = &cx.apps[app_ix].listeners[found];
    let (LocalAddress::Inet(local), Address::Inet(asked)) = (&listener.local, address) else { return Ok(found) };
    if local.is_ipv4() == asked.is_ipv4() || !matches!(listener.configured, Some(Listen::Any(_))) {
        return Ok(found);
    }
    let is_in_use = cx.workers.iter().any(|(_, other)| {
        let given = other.intercepted.iter().flat_map(|intercepted| &intercepted.given);
        other.app == app_ix && (other.serves.contains(&found) || given.into_iter().any(|given| given.listener == found))
    });
    let only_v6 = looked.socket.as_ref().is_some_and(|socket| cx.system.socket_wishes(socket.as_fd()).v6only);
    if asked.is_ipv6() && (is_in_use || only_v6) {
        return if only_v6 { other(cx, ix, looked, address) } else { Ok(found) };
    }
    if is_in_use {
        return Ok(found);
    }
    let any = if asked.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { IpAddr::from(Ipv6Addr::UNSPECIFIED) };
    let wanted = SocketAddr::new(any, local.port());
    if let Err(e) = groups.change_family(cx, app_ix, found, wanted) {
        log::warn!("{}: cannot change over to {wanted}, which its program binds: {e}", cx.apps[app_ix].name);
    }
    Ok(found)
}

/// Whether this process has bound this address before and still has the socket, so that the kernel would refuse it.
fn is_bound_already(
    cx: &Context<impl System>,
    ix: WorkerIx,
    found: ListenerIx,
    looked: &Looked,
    address: &Address,
) -> bool {
    let Some(worker) = cx.workers.get(ix) else { return false };
    let Some(intercepted) = &worker.intercepted else { return false };
    let same = Given { process: looked.process, address: address.clone(), listener: found };
    let shares = looked.socket.as_ref().is_some_and(|socket| cx.system.socket_wishes(socket.as_fd()).reuse_port);
    if shares || !intercepted.given.contains(&same) {
        return false;
    }
    let listeners = &cx.apps[worker.app].listeners;
    let inherited = listeners.iter().filter(|listener| listener.configured.is_some()).count();
    let passed = FIRST_FD..FIRST_FD + i32::try_from(inherited).unwrap_or(0);
    let identity = cx.system.file_identity(spawn::socket_for(cx, worker, found));
    identity.is_ok_and(|(_, inode)| cx.system.holds_socket(looked.process, inode, &passed))
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
        readable_all: false,
        writable_all: false,
        client_first: false,
        refuses: false,
        backlog: None,
        index: 0,
        data: None,
    };
    let worker = cx.workers.get(ix).ok_or(Answer::Continue)?;
    let app = &cx.apps[worker.app];
    let key = query.key();
    if let Some(found) = app.listeners.find(|listener| listener.matches(&query, &key, Path::new("/"))) {
        return Ok(found);
    }
    // Where it cannot be bound the kernel tells the program why.
    requests::listener_for(cx, ix, &query).map_err(|code| {
        if code == errno::UV_EADDRINUSE {
            address_in_use::explain(cx, ix, &query);
        }
        Answer::Continue
    })
}
