//! Explains to people an address that a worker asks for and cannot have: who holds it, and what to do.
use super::context::Context;
use super::listener::Listener;
use super::system::System;
use super::unread;
use crate::api::warnings;
use crate::home::Home;
use crate::ids::{AppIx, WorkerIx};
use crate::os::listen::LocalAddress;
use crate::os::procfs::Holder;
use crate::worker::node::lines::{AddressType, Query};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// What was asked for.
enum Asked {
    Inet { address: SocketAddr, datagram: bool },
    Path(PathBuf),
}

impl Asked {
    fn of(query: &Query, cwd: &Path) -> Option<Asked> {
        let port = u16::try_from(query.port).unwrap_or_default();
        let (any, datagram) = match query.address_type {
            AddressType::Unix => return Some(Asked::Path(cwd.join(query.address.as_deref()?))),
            AddressType::Tcp4 => (IpAddr::from([0u8; 4]), false),
            AddressType::Tcp6 => (IpAddr::from([0u16; 8]), false),
            AddressType::Udp4 => (IpAddr::from([0u8; 4]), true),
            AddressType::Udp6 => (IpAddr::from([0u16; 8]), true),
        };
        let ip = query.address.as_deref().and_then(|text| text.split('%').next()?.parse().ok()).unwrap_or(any);
        Some(Asked::Inet { address: SocketAddr::new(ip, port), datagram })
    }

    fn is_of(&self, listener: &Listener) -> bool {
        match (self, &listener.local) {
            _ if listener.is_retired() => false,
            (Asked::Inet { address, datagram }, LocalAddress::Inet(local)) => {
                local.port() == address.port() && *datagram == listener.datagram
            }
            (Asked::Path(path), LocalAddress::Unix(local)) => path == local,
            _ => false,
        }
    }
}

/// Logs who holds the address of a query that failed.
pub(super) fn explain(cx: &mut Context<impl System>, ix: WorkerIx, query: &Query) {
    let Some(worker) = cx.workers.get(ix) else { return };
    let (app_ix, id) = (worker.app, worker.id);
    let app = &cx.apps[app_ix];
    let settings = app.generations.get(&worker.generation).unwrap_or_else(|| app.settings());
    let Some(asked) = Asked::of(query, &settings.cwd) else { return };
    // Two servers of one process at one address: the program knows both.
    let has_it = worker.serves.iter().any(|&listener| asked.is_of(&app.listeners[listener]));
    if has_it || !unread::may_warn(cx, ix) {
        return;
    }
    let what = match &asked {
        Asked::Inet { address, datagram: false } => address.to_string(),
        Asked::Inet { address, datagram: true } => format!("udp:{address}"),
        Asked::Path(path) => format!("unix:{}", path.display()),
    };
    let holder = holder(cx, app_ix, &asked);
    let app = &cx.apps[app_ix];
    let own: Vec<String> = app.listeners.iter().filter(|l| l.configured.is_some()).map(ToString::to_string).collect();
    let advice = if own.is_empty() {
        "stop it, or have the program bind another address".to_owned()
    } else {
        let own = own.join(", ");
        format!("stop it, or have the program bind what the app is configured for ({own}; does it read PORT?)")
    };
    log::warn!("{}: worker {id} cannot bind {what}: {holder}; {advice}", app.name);
}

/// The port of Node's `EADDRINUSE: address already in use 127.0.0.1:8080`, in the last lines of a worker.
fn refused_port(lines: &[String]) -> Option<u16> {
    let address =
        lines.iter().find_map(|line| line.split_once("EADDRINUSE: address already in use ")?.1.split(' ').next());
    address?.rsplit_once(':')?.1.parse().ok()
}

/// Logs who holds the port that a worker died of, where it did not ask clusterd for it (`exclusive`, worker threads).
pub(super) fn explain_end(cx: &Context<impl System>, app_ix: AppIx, lines: &[String]) {
    let Some(port) = refused_port(lines) else { return };
    let app = &cx.apps[app_ix];
    let is_told = |text: &str| text.contains(" cannot bind ") && text.contains(&format!(":{port}: in use "));
    if !warnings::since(app.warned_before, is_told).is_empty() {
        return;
    }
    let asked = Asked::Inet { address: SocketAddr::new(IpAddr::from([0u8; 4]), port), datagram: false };
    let is_own = app.listeners.iter().any(|listener| asked.is_of(listener));
    let (holder, advice) = if is_own {
        let advice =
            "have it listen in the process itself, without `exclusive`: clusterd shares the port among the workers";
        ("in use by clusterd for this app".to_owned(), advice)
    } else {
        (holder(cx, app_ix, &asked), "stop it, or have the program bind another port")
    };
    log::warn!("{}: a worker cannot bind port {port}: {holder}; {advice}", app.name);
}

/// Who has an address; `None`: it cannot be seen.
pub(super) fn in_use(holder: Option<&Holder>) -> String {
    match holder {
        Some(holder) => format!("in use by {holder}"),
        None => "in use by a process that this user may not see (sudo ss -lnp shows it)".to_owned(),
    }
}

fn holder(cx: &Context<impl System>, app_ix: AppIx, asked: &Asked) -> String {
    let has_it = |app: AppIx| cx.apps[app].listeners.iter().any(|listener| asked.is_of(listener));
    if let Some(other) = cx.apps.indices().find(|&other| other != app_ix && has_it(other)) {
        return format!("in use by the app {}", cx.apps[other].name);
    }
    let found = match asked {
        Asked::Inet { address, datagram: false } => cx.system.tcp_port_holder(*address),
        Asked::Inet { datagram: true, .. } => None,
        Asked::Path(path) => cx.system.unix_path_holder(path),
    };
    let Some(Holder { pid, parent, .. }) = found else { return in_use(None) };
    if let Some((_, worker)) = cx.workers.iter().find(|(_, worker)| worker.pid == Some(pid)) {
        return format!("in use by worker {} of the app {} (pid {pid})", worker.id, cx.apps[worker.app].name);
    }
    if pid == cx.deployment.keeper_pid || parent == Some(cx.deployment.keeper_pid) {
        return format!("in use by the app {} itself, on another address", cx.apps[app_ix].name);
    }
    let sockets = cx.deployment.home.as_ref().map(Home::sockets).unwrap_or_default();
    let is_its = |keeper: i32| keeper == pid || Some(keeper) == parent;
    match sockets.iter().find(|(_, socket)| Home::keeper_of(socket).is_some_and(is_its)) {
        Some((name, _)) => format!("in use by {name} (pid {pid}), which clusterd runs too: see clusterd ls"),
        None => in_use(found.as_ref()),
    }
}
