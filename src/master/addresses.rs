//! The addresses of an app over its generations: which listeners a generation has, in the order of its configuration,
//! and which ones no generation needs any more.
use super::app::App;
use super::checkpoint;
use super::context::Context;
use super::in_hand;
use super::kernel_mode::groups::Groups;
use super::listener::{self, BindError, Listener};
use super::settings::Settings;
use super::system::System;
use crate::balance::ConnIx;
use crate::config::{Listen, address};
use crate::ids::{AppIx, Generation, ListenerIx};
use crate::os::listen::LocalAddress;
use crate::supervisor::{Event, Phase};
use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::net::IpAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use thiserror::Error;

/// An address of a new generation.
pub(super) enum Wanted {
    /// It was bound for this generation.
    Bound(Listen, OwnedFd),
    /// Workers requested it before it was configured.
    Adopted(Listen, ListenerIx),
}

/// The configured listeners of a generation, in the order of its configuration. A generation that configures no address
/// has the sockets that clusterd was given at its start.
pub(super) fn of_generation(app: &App, settings: &Settings) -> Vec<ListenerIx> {
    let wanted = &settings.config.listen;
    if wanted.is_empty() {
        return app.listeners.entries().filter(|(_, l)| l.given && l.configured.is_some()).map(|(ix, _)| ix).collect();
    }
    let configured = |address: &Listen| app.listeners.find(|l| l.configured.is_some() && l.serves(address));
    wanted.iter().filter_map(configured).collect()
}

/// The first configured TCP port of a generation: its workers' `PORT`.
pub(super) fn port(app: &App, settings: &Settings) -> Option<u16> {
    let listeners = of_generation(app, settings).into_iter().filter_map(|ix| app.listeners.get(ix));
    listeners.filter(|l| !l.datagram).find_map(Listener::port)
}

/// Binds the addresses that an app does not have yet; changes nothing else.
///
/// # Errors
/// The address, who holds it, and what to do.
pub(super) fn bind_new(cx: &Context<impl System>, ix: AppIx, settings: &Settings) -> Result<Vec<Wanted>, AddressError> {
    let app = &cx.apps[ix];
    let mut new = Vec::new();
    for address in &settings.config.listen {
        if let Some(known) = app.listeners.iter().find(|l| l.configured.is_some() && l.serves(address)) {
            set_access(cx, known, address, settings)?;
            continue;
        }
        if let Some(requested) = app.listeners.find(|l| is_requested_at(l, address)) {
            set_access(cx, &app.listeners[requested], address, settings)?;
            new.push(Wanted::Adopted(address.clone(), requested));
            continue;
        }
        let fd = listener::bind_configured(&cx.system, address, &covering(app, address), settings)?;
        new.push(Wanted::Bound(address.clone(), fd));
    }
    Ok(new)
}

/// Sets who may connect to a socket in the file system that is bound already.
fn set_access(
    cx: &Context<impl System>,
    known: &Listener,
    address: &Listen,
    settings: &Settings,
) -> Result<(), AddressError> {
    let (Listen::Unix(path), Some(file)) = (address, &known.unlink) else { return Ok(()) };
    match cx.system.set_socket_access(file, &settings.socket_access(path)) {
        // Somebody has removed it; nobody can connect to it.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        set => set.map_err(|source| AddressError::Access { path: path.clone(), source }),
    }
}

/// Why an app cannot have an address of a new generation.
#[derive(Debug, Error)]
pub(super) enum AddressError {
    /// It cannot be bound.
    #[error("{0}")]
    Bind(BindError),
    /// It is bound, and stays as it is.
    #[error("cannot set mode, owner and group of {}: {source}", path.display())]
    Access { path: PathBuf, source: io::Error },
}

impl From<BindError> for AddressError {
    fn from(why: BindError) -> AddressError {
        AddressError::Bind(why)
    }
}

/// Whether workers requested a socket at exactly this address.
fn is_requested_at(listener: &Listener, wanted: &Listen) -> bool {
    if listener.configured.is_some() || listener.datagram {
        return false;
    }
    match (&listener.local, wanted) {
        (LocalAddress::Inet(local), Listen::Any(port)) => local.port() == *port && local.ip().is_unspecified(),
        (LocalAddress::Inet(local), Listen::Tcp(wanted)) => local == wanted && wanted.ip() != UNSPECIFIED_V6,
        (LocalAddress::Unix(local), Listen::Unix(wanted)) => local == wanted,
        _ => false,
    }
}

/// An IPv6 wildcard that workers requested may serve IPv4 too, a configured one does not.
const UNSPECIFIED_V6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED);

/// The app's own sockets that keep the kernel from binding this address as usual: `127.0.0.1:80` and `*:80`.
fn covering<'a>(app: &'a App, wanted: &Listen) -> Vec<BorrowedFd<'a>> {
    let covers = |listener: &&Listener| match listener.local {
        LocalAddress::Inet(local) if !listener.datagram => {
            let local = if local.ip().is_unspecified() { Listen::Any(local.port()) } else { Listen::Tcp(local) };
            address::overlap(&local, wanted)
                || matches!((&local, wanted), (l, Listen::Host(_, p)) if address::port(l) == Some(*p))
        }
        LocalAddress::Inet(_) | LocalAddress::Unix(_) | LocalAddress::Other => false,
    };
    app.listeners.iter().filter(covers).flat_map(Listener::sockets).collect()
}

/// The generations from which the app has or may get workers; those that only leaving workers have are over. The
/// supervisor does not know yet of commands that were given a moment ago.
pub(super) fn coming_generations(cx: &Context<impl System>, ix: AppIx) -> BTreeSet<Generation> {
    let asked = cx.events.iter().filter_map(|(app, event)| match event {
        Event::Reload { to, .. } | Event::Start { to, .. } if *app == ix => Some(*to),
        _ => None,
    });
    let mut coming = cx.apps[ix].supervisor.coming_generations();
    coming.extend(asked);
    coming
}

/// Closes configured addresses that no coming generation has. One that its workers asked for by themselves stays.
pub(super) fn close_unwanted(cx: &mut Context<impl System>, groups: &mut Groups, ix: AppIx) {
    let coming = coming_generations(cx, ix);
    let app = &cx.apps[ix];
    let settings = coming.iter().filter_map(|generation| app.generations.get(generation));
    let wanted: BTreeSet<ListenerIx> = settings.flat_map(|settings| of_generation(app, settings)).collect();
    for listener_ix in app.listeners.indices() {
        let app = &mut cx.apps[ix];
        let listener = &mut app.listeners[listener_ix];
        if listener.configured.is_none() || wanted.contains(&listener_ix) {
            continue;
        }
        let served = cx.workers.iter().filter(|(_, w)| w.app == ix && w.serves.contains(&listener_ix));
        let is_needed = served.map(|(_, w)| w.generation).any(|generation| coming.contains(&generation));
        if is_needed {
            listener.configured = None;
            log::info!(
                "{}: {listener} is no longer configured, and stays open for the workers that listen on it",
                app.name
            );
            checkpoint::save_listener(cx, ix, listener_ix);
            continue;
        }
        close(cx, groups, ix, listener_ix);
    }
}

/// Closes what workers asked for by themselves and none has open any more, once no worker is about to ask for it again.
pub(super) fn close_unserved(cx: &mut Context<impl System>, groups: &mut Groups, ix: AppIx) {
    let rules = &cx.apps[ix].supervisor;
    if rules.is_reloading() || rules.workers().any(|w| matches!(w.phase, Phase::Starting { .. })) {
        return;
    }
    for listener_ix in cx.apps[ix].listeners.indices() {
        close_if_unserved(cx, groups, ix, listener_ix);
    }
}

/// Closes a listener that workers asked for by themselves, if none has it open.
pub(super) fn close_if_unserved(
    cx: &mut Context<impl System>,
    groups: &mut Groups,
    ix: AppIx,
    listener_ix: ListenerIx,
) {
    let Some(listener) = cx.apps[ix].listeners.get(listener_ix) else { return };
    let is_requested = listener.configured.is_none() && !listener.is_retired() && !outlives_us(cx, ix, listener);
    if listener.datagram && cx.apps[ix].settings().protocol.intercepts() {
        // Nobody sees who has a datagram socket open: no listen(2) follows.
        return;
    }
    if is_requested && !cx.workers.iter().any(|(_, w)| w.app == ix && w.serves.contains(&listener_ix)) {
        close(cx, groups, ix, listener_ix);
    }
}

/// Whether a listener stays open when the deployment ends. What clusterd was given at its start cannot be opened again. What
/// the service manager has in its store waits for the next start there, which takes it for a configured address, or for all that
/// its only app listens on (`start::bind_all`); where none follows, the service manager closes it.
pub(super) fn outlives_us(cx: &Context<impl System>, ix: AppIx, listener: &Listener) -> bool {
    let is_taken = || {
        let mut apps = cx.apps.iter().filter(|app| !app.deleted);
        let is_only_one = apps.next().is_some() && apps.next().is_none();
        listener.configured.is_some() || is_only_one && cx.apps[ix].settings().config.listen.is_empty()
    };
    listener.given || cx.deployment.leaves_sockets && !listener.datagram && is_taken()
}

/// Closes what nobody will accept from again, because every slot is empty for good: clients are refused instead of left
/// hanging.
pub(super) fn close_all(cx: &mut Context<impl System>, groups: &mut Groups, ix: AppIx) {
    for listener_ix in cx.apps[ix].listeners.indices() {
        let listener = &cx.apps[ix].listeners[listener_ix];
        match listener.is_retired() || outlives_us(cx, ix, listener) {
            false => close(cx, groups, ix, listener_ix),
            true if listener.is_retired() || listener.given => {}
            true => log::info!("{}: {listener} waits with the service manager for the next start", cx.apps[ix].name),
        }
    }
}

/// Closes a listener. Clients that wait for it are disconnected.
pub(super) fn close(cx: &mut Context<impl System>, groups: &mut Groups, ix: AppIx, listener_ix: ListenerIx) {
    let app = &mut cx.apps[ix];
    log::info!("{}: no longer listening on {}", app.name, app.listeners[listener_ix]);
    let waits = |conn: &ConnIx| app.connections.get(*conn).is_some_and(|c| c.listener == listener_ix);
    let (gone, left) = app.waiting.queue.drain(..).partition::<VecDeque<ConnIx>, _>(&waits);
    app.waiting.queue = left;
    let upgraded = app.waiting.upgraded.take_where(|conn| waits(&conn));
    for conn in gone.into_iter().chain(upgraded) {
        in_hand::handed(&cx.system, &mut cx.keeper, &mut app.connections, conn);
        if let Some(connection) = app.connections.remove(conn) {
            cx.system.close(connection.socket);
        }
    }
    groups.release_listener(cx, ix, listener_ix);
    checkpoint::forget_listener(cx, ix, listener_ix);
    let app = &mut cx.apps[ix];
    let who = app.settings().credentials().cloned();
    let listener = &mut app.listeners[listener_ix];
    listener.remove_file(&cx.system, who.as_ref());
    listener.retire(&cx.system);
}

/// The place of a closed listener that nothing refers to any more.
pub(super) fn free_place(cx: &Context<impl System>, ix: AppIx) -> Option<ListenerIx> {
    let app = &cx.apps[ix];
    let retired = app.listeners.entries().filter(|(_, listener)| listener.is_retired()).map(|(place, _)| place);
    let is_used = |place: ListenerIx| {
        app.connections.iter().any(|connection| connection.listener == place)
            || cx.workers.iter().any(|(_, w)| w.app == ix && (w.serves.contains(&place) || w.takes.contains(&place)))
    };
    retired.into_iter().find(|place| !is_used(*place))
}
