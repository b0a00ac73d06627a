//! Requests of Node workers over their channels, and the answers: a socket for `listen()`, a closed server, permission
//! to leave. `worker::node::lines` defines the lines, `listener` binds sockets.
use super::address_in_use;
use super::addresses;
use super::balance_fallback;
use super::channels::{self, ChannelReader, Violation};
use super::checkpoint;
use super::context::Context;
use super::drains::Goodbye;
use super::eligibility;
use super::kernel_mode::deferral;
use super::listener::{self, Listener};
use super::listening::Listening;
use super::moves;
use super::overlap;
use super::settings::Settings;
use super::system::System;
use super::tasks::Task;
use super::unread;
use super::upgraded_moves;
use crate::config::{self, Balance};
use crate::ids::{AppIx, ListenerIx, WorkerIx};
use crate::limits;
use crate::os::errno;
use crate::os::listen::LocalAddress;
use crate::supervisor::{Event, Evidence, Phase};
use crate::worker::node::channel::{Channel, ChannelSocket, Unsendable};
use crate::worker::node::lines::{self, FromWorker, Query, Reply, SockName};
use crate::worker::node::preload_lines;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// A listener that a worker asked for and closed within this time, in milliseconds, was opened for a moment only: to
/// find a free port, for example.
const MOMENTARY_MS: u64 = 3_000;

/// Answers to one worker that are held back until their effect is saved.
const CHANNEL_HELD_LINES_MAX: usize = 64;

/// Handles a line of a worker.
///
/// # Errors
/// The answer cannot be sent.
pub(super) fn on_message(
    reader: &mut ChannelReader<'_, impl System>,
    ix: WorkerIx,
    channel: &mut Channel<impl ChannelSocket>,
    message: FromWorker,
) -> Result<(), Violation> {
    let Some(worker) = reader.cx.workers.get(ix) else { return Ok(()) };
    let (app, id) = (worker.app, worker.id);
    match message {
        // An agent serves nothing.
        FromWorker::QueryServer { .. } | FromWorker::Close { .. } | FromWorker::ExitedAfterDisconnect { .. }
            if worker.is_beside => {}
        FromWorker::Online { .. } => reader.cx.push_news(app, Event::Online { worker: id }),
        FromWorker::QueryServer { seq, query } => return on_query(reader, ix, channel, seq, &query),
        FromWorker::Listening { .. } => on_listening(reader, ix),
        FromWorker::Ready => {
            reader.cx.push_news(app, Event::Evidence { worker: id, evidence: Evidence::Message });
        }
        FromWorker::Close { key, .. } => on_close(reader.cx, ix, &key),
        FromWorker::ExitedAfterDisconnect { seq } => {
            let own = channel.next_seq();
            let mut line = Vec::new();
            lines::ack(&mut line, seq, own);
            let sent = channel.send_line(&line, None);
            checkpoint::save_goodbye(reader.cx, ix);
            reader.cx.push_news(app, Event::Leaving { worker: id });
            return sent.map_err(Violation::from);
        }
        FromWorker::Handle { .. } => {
            // The handle is not needed, but Node sends nothing more until it is acknowledged.
            if let Some(handle) = channel.fds.pop_front() {
                reader.cx.system.close(handle);
                return channel.send_line(lines::HANDLE_ACK, None).map_err(Violation::from);
            }
            return channel.send_line(lines::HANDLE_NACK, None).map_err(Violation::from);
        }
        FromWorker::Moved => {
            let moved = channel.fds.pop_front();
            let answer = if moved.is_some() { lines::HANDLE_ACK } else { lines::HANDLE_NACK };
            if let Some(socket) = moved {
                moves::take(reader.cx, reader.dispatch, ix, socket);
            }
            return channel.send_line(answer, None).map_err(Violation::from);
        }
        FromWorker::Upgraded { state } => {
            let Some(socket) = channel.fds.pop_front() else {
                return channel.send_line(lines::HANDLE_NACK, None).map_err(Violation::from);
            };
            upgraded_moves::take(reader.cx, reader.dispatch, ix, channel, socket, state.as_deref())?;
            return channel.send_line(lines::HANDLE_ACK, None).map_err(Violation::from);
        }
        FromWorker::Takes => {
            if let Some(worker) = reader.cx.workers.get_mut(ix) {
                worker.takes_upgraded = true;
            }
        }
        FromWorker::Sync { nth } => {
            let mut line = Vec::new();
            preload_lines::synced(&mut line, nth);
            return channel.send_line(&line, None).map_err(Violation::from);
        }
        FromWorker::Hello => {
            if let Some(worker) = reader.cx.workers.get_mut(ix) {
                worker.has_preload = true;
            }
        }
        FromWorker::Kept { count } => {
            if let Some(worker) = reader.cx.workers.get_mut(ix) {
                // Only a worker with the preload says so, also to a master that has just taken over.
                worker.has_preload = true;
                worker.kept.report(count, worker.taken);
            }
        }
        FromWorker::Profiled(said) => reader.relay.hear_profile(reader.cx, ix, said),
        FromWorker::Answer { .. }
        | FromWorker::HandleAck
        | FromWorker::HandleNack
        | FromWorker::User
        | FromWorker::OtherInternal(_) => {}
    }
    Ok(())
}

/// A server of a worker listens. A worker that is ready has said enough.
fn on_listening(reader: &mut ChannelReader<'_, impl System>, ix: WorkerIx) {
    let Some(worker) = reader.cx.workers.get(ix) else { return };
    let (app, id) = (worker.app, worker.id);
    let view = reader.cx.apps[app].supervisor.worker(id);
    if view.is_some_and(|view| !matches!(view.phase, Phase::Starting { .. })) {
        return;
    }
    if let Some(why) = serves_too_little(reader.cx, ix) {
        let text = format!("it {why}");
        let is_known = reader.cx.apps[app].supervisor.not_yet(id) == Some(text.as_str());
        if !is_known && unread::may_warn(reader.cx, ix) {
            log::warn!("{}: worker {id} is not ready: it {why}", reader.cx.apps[app].name);
        }
        return reader.cx.push_news(app, Event::NotYet { worker: id, why: text });
    }
    reader.http_probes.begin(reader.cx, ix);
    reader.cx.push_news(app, Event::Evidence { worker: id, evidence: Evidence::Listening });
}

/// What a listening worker still lacks, for people: it has to listen on a configured address, and in a reload on
/// everything that the present workers serve.
pub(super) fn serves_too_little(cx: &Context<impl System>, ix: WorkerIx) -> Option<String> {
    let worker = cx.workers.get(ix)?;
    let app = &cx.apps[worker.app];
    let settings = app.generations.get(&worker.generation).unwrap_or_else(|| app.settings());
    let configured = addresses::of_generation(app, settings);
    let wanted = |n: &ListenerIx| configured.contains(n);
    let present: BTreeSet<ListenerIx> =
        app.listeners.indices().filter(|n| app.listeners[*n].is_served_by_others_than(worker.generation)).collect();
    let lacking: Vec<ListenerIx> = if present.iter().any(wanted) {
        present.iter().copied().filter(|n| !worker.serves.contains(n)).filter(wanted).collect()
    } else if worker.serves.iter().any(wanted) {
        Vec::new()
    } else if !configured.is_empty() {
        configured
    } else {
        let serves_one = present.is_empty() || present.iter().any(|n| worker.serves.contains(n));
        let others = app.generations.iter().filter(|(generation, _)| **generation != worker.generation);
        let moves =
            || !worker.serves.is_empty() && others.map(|(_, s)| s).any(|other| settings.listens_elsewhere(other));
        if serves_one || moves() { Vec::new() } else { present.into_iter().collect() }
    };
    if lacking.is_empty() {
        return None;
    }
    let list = |all: &mut dyn Iterator<Item = ListenerIx>| {
        all.map(|n| app.listeners[n].to_string()).collect::<Vec<String>>().join(", ")
    };
    Some(format!(
        "listens on {} and not yet on {} (does it read PORT?)",
        list(&mut worker.serves.iter().copied()),
        list(&mut lacking.into_iter())
    ))
}

/// Handles `listen()`: finds or binds the socket, answers with the key (round-robin) or the socket itself.
fn on_query(
    reader: &mut ChannelReader<'_, impl System>,
    ix: WorkerIx,
    channel: &mut Channel<impl ChannelSocket>,
    seq: u64,
    query: &Query,
) -> Result<(), Violation> {
    balance_fallback::judge(reader.cx, ix, query);
    let Some(worker) = reader.cx.workers.get(ix) else { return Ok(()) };
    let (app_ix, id, number, own_socket) = (worker.app, worker.id, worker.socket_number, worker.own_socket);
    let settings = reader.cx.apps[app_ix].generations.get(&worker.generation);
    let shared = own_socket || settings.is_some_and(|s: &Settings| s.balance.balance == Balance::Shared);
    let found = listener_for(reader.cx, ix, query);
    if let Ok(listener_ix) = found
        && shared
    {
        listener::begin_listening(reader.cx, app_ix, listener_ix);
    }
    if let Ok(listener_ix) = found
        && own_socket
    {
        reader.groups.give_slot_a_socket(reader.cx, app_ix, listener_ix, number);
    }
    if let Ok(listener_ix) = found {
        let listener = &mut reader.cx.apps[app_ix].listeners[listener_ix];
        if listener.data.is_none() && query.data.is_some() {
            listener.data.clone_from(&query.data);
        }
        checkpoint::save_listener(reader.cx, app_ix, listener_ix);
        if let Some(worker) = reader.cx.workers.get_mut(ix) {
            // Where it has several servers, all of them have to.
            if !query.client_first {
                worker.client_first.remove(&listener_ix);
            } else if !worker.serves.contains(&listener_ix) {
                worker.client_first.insert(listener_ix);
            }
        }
        join(reader.cx, ix, listener_ix);
        reader.cx.push_news(app_ix, Event::ServersOpen { worker: id });
    }
    let own = channel.next_seq();
    let mut line = Vec::new();
    let given = match found {
        Err(code) => {
            if code == errno::UV_EADDRINUSE {
                address_in_use::explain(reader.cx, ix, query);
            }
            // As Node's primary: a TLS server reads what it sent.
            let reply = Reply { errno: code, key: &query.key(), data: query.data.as_deref(), sockname: None };
            lines::reply(&mut line, seq, own, &reply, None);
            None
        }
        Ok(listener_ix) => {
            let listener = &reader.cx.apps[app_ix].listeners[listener_ix];
            let sockname = sock_name(&listener.local);
            let reply =
                Reply { errno: 0, key: &listener.key, data: listener.data.as_deref(), sockname: sockname.as_ref() };
            let kind = if listener.datagram { "dgram.Native" } else { "net.Native" };
            let given = shared || listener.datagram;
            lines::reply(&mut line, seq, own, &reply, given.then_some(kind));
            given.then_some(listener_ix)
        }
    };
    let own_socket = own_socket.then_some(number);
    let mut sent = channel.hold_line(&line, given.map(|listener| handle_of(reader.cx, app_ix, listener, own_socket)));
    if let Err(Unsendable::NoFd(_)) = sent {
        // It cannot be held back without a copy: save now, and send.
        channels::save_and_answer(reader.cx, ix, channel);
        sent = channel.send_line(&line, given.map(|listener| handle_of(reader.cx, app_ix, listener, own_socket)));
    }
    if channel.held() >= CHANNEL_HELD_LINES_MAX {
        channels::save_and_answer(reader.cx, ix, channel);
    }
    sent.map_err(Violation::from)
}

/// The socket for a worker that accepts by itself: its own one of the group, or the shared one.
fn handle_of(
    cx: &Context<impl System>,
    app_ix: AppIx,
    listener_ix: ListenerIx,
    own_socket: Option<u32>,
) -> BorrowedFd<'_> {
    let listener = &cx.apps[app_ix].listeners[listener_ix];
    own_socket.map_or(listener.fd.as_fd(), |number| listener.socket_of(number))
}

/// The listener that a worker's request means, bound at the first request. The error becomes the error of `listen()`.
pub(super) fn listener_for(cx: &mut Context<impl System>, ix: WorkerIx, query: &Query) -> Result<ListenerIx, i32> {
    let worker = cx.workers.get(ix).ok_or(errno::UV_EINVAL)?;
    let app_ix = worker.app;
    let app = &cx.apps[app_ix];
    let cwd = app.generations.get(&worker.generation).map_or_else(|| app.settings().cwd.clone(), |s| s.cwd.clone());
    if let Some(fd) = query.fd.filter(|&fd| fd >= 0) {
        // As with systemd: 3 is the first configured socket.
        let nth = usize::try_from(fd).ok().and_then(|fd| fd.checked_sub(3)).ok_or(errno::UV_EINVAL)?;
        let settings = app.generations.get(&worker.generation).unwrap_or_else(|| app.settings());
        return addresses::of_generation(app, settings).get(nth).copied().ok_or(errno::UV_EINVAL);
    }
    let mut key = query.key();
    let meant = app.listeners.entries().filter(|(_, l)| l.matches(query, &key, &cwd)).map(|(found, _)| found);
    let mut meant: Vec<ListenerIx> = meant.collect();
    if meant.len() > 1 {
        // During a reload an address of the old configuration may match too.
        let settings = app.generations.get(&worker.generation).unwrap_or_else(|| app.settings());
        let configured = addresses::of_generation(app, settings);
        meant.sort_by_key(|listener| !configured.contains(listener));
    }
    let mut own = 0;
    for found in meant {
        if !worker.serves.contains(&found) {
            if app.listeners[found].has_lost_its_file(&cx.system) {
                rebind(cx, ix, found, query, &cwd)?;
            }
            return Ok(found);
        }
        own += 1;
    }
    if own > 0 && query.port != 0 && !query.shares_its_port() {
        // Two servers of one process on one address: the second fails, as without clusterd.
        return Err(errno::UV_EADDRINUSE);
    }
    if own > 0 {
        // Another request for any free port gets another port.
        key = listener::sibling_key(&key, own);
    }
    if app.listeners.iter().filter(|l| !l.is_retired()).count() >= limits::LISTENER_KEYS_PER_APP_MAX {
        let (name, id) = (app.name.clone(), worker.id);
        if unread::may_warn(cx, ix) {
            let max = limits::LISTENER_KEYS_PER_APP_MAX;
            log::warn!("{name}: worker {id} listens on more than {max} addresses; further ones are refused (EMFILE)");
        }
        return Err(errno::UV_EMFILE);
    }
    let fd = bind_asked(cx, ix, query, &cwd)?;
    Ok(add_listener(cx, app_ix, fd, key, None))
}

/// Binds what a worker asked for, with its rights. The error becomes the error of `listen()`.
fn bind_asked(cx: &Context<impl System>, ix: WorkerIx, query: &Query, cwd: &Path) -> Result<OwnedFd, i32> {
    let worker = cx.workers.get(ix).ok_or(errno::UV_EINVAL)?;
    let app = &cx.apps[worker.app];
    let of = app.generations.get(&worker.generation).unwrap_or_else(|| app.settings());
    listener::bind_asked(&cx.system, query, cwd, of).map_err(|e| match errno::libuv_code(&e) {
        // libuv's uv_pipe_bind reports this for a missing folder.
        errno::UV_ENOENT => errno::UV_EACCES,
        code => code,
    })
}

/// Binds the path of a socket again whose file somebody has removed, as Node apps do before `listen()`. Clients that wait
/// at the old socket are served.
fn rebind(
    cx: &mut Context<impl System>,
    ix: WorkerIx,
    listener_ix: ListenerIx,
    query: &Query,
    cwd: &Path,
) -> Result<(), i32> {
    let Some(app_ix) = cx.workers.get(ix).map(|worker| worker.app) else { return Ok(()) };
    let fd = match &cx.apps[app_ix].listeners[listener_ix].configured {
        // Its folder may be one where only clusterd may write.
        Some(address) => {
            let settings = cx.apps[app_ix].settings();
            listener::bind_configured(&cx.system, address, &[], settings).map_err(|_| errno::UV_EADDRINUSE)?
        }
        None => bind_asked(cx, ix, query, cwd)?,
    };
    listener::replace_socket(cx, app_ix, listener_ix, fd);
    let app = &cx.apps[app_ix];
    log::info!("{}: {} was removed; it was bound again", app.name, app.listeners[listener_ix]);
    Ok(())
}

/// Adds a bound socket to the app, gives the keeper a copy, and saves that.
pub(super) fn add_listener(
    cx: &mut Context<impl System>,
    app_ix: AppIx,
    fd: OwnedFd,
    key: String,
    configured: Option<config::Listen>,
) -> ListenerIx {
    let listener_ix = add_unsaved_listener(cx, app_ix, fd, key, configured);
    checkpoint::save_listener(cx, app_ix, listener_ix);
    listener_ix
}

/// The same for a listener that the checkpoint knows: the caller saves it when it is whole again. A master that is killed before
/// that leaves the record as it was.
pub(super) fn add_unsaved_listener(
    cx: &mut Context<impl System>,
    app_ix: AppIx,
    fd: OwnedFd,
    key: String,
    configured: Option<config::Listen>,
) -> ListenerIx {
    let local = cx.system.local_address(fd.as_fd()).unwrap_or(LocalAddress::Other);
    let datagram = cx.system.is_datagram(fd.as_fd());
    let unlink = match &local {
        LocalAddress::Unix(path) => cx.system.socket_file(path),
        LocalAddress::Inet(_) | LocalAddress::Other => None,
    };
    let listening = if datagram { Listening::Yes } else { Listening::of(&cx.system, fd.as_fd()) };
    let place = addresses::free_place(cx, app_ix);
    let app = &mut cx.apps[app_ix];
    let listener = Listener {
        fd,
        newconn: lines::NewconnLine::new(&key),
        key,
        configured,
        local,
        datagram,
        group: match place {
            Some(place) => app.listeners[place].group,
            None => app.balancer.add_group(),
        },
        data: None,
        polled: false,
        readable: false,
        starvation: BTreeMap::new(),
        unlink,
        present: BTreeMap::new(),
        listening,
        given: false,
        retired: false,
        opened_ms: cx.now_ms,
        reuseport: None,
    };
    let name = listener.held_name(&app.name);
    cx.keeper.hold(name, listener.fd.as_fd());
    if listener.configured.is_none() {
        log::info!("{}: listening on {listener}, which a worker asked for", app.name);
    }
    let listener_ix = match place {
        Some(place) => {
            app.listeners.replace(place, listener);
            place
        }
        None => app.listeners.push(listener),
    };
    overlap::refresh(cx, app_ix);
    listener_ix
}

/// The worker serves this listener from now on. The caller saves that.
pub(super) fn join(cx: &mut Context<impl System>, ix: WorkerIx, listener_ix: ListenerIx) {
    let Some(worker) = cx.workers.get_mut(ix) else { return };
    worker.serves.insert(listener_ix);
    worker.unnoted = true;
    let app = &mut cx.apps[worker.app];
    if let (Some(member), Some(listener)) = (worker.member, app.listeners.get(listener_ix)) {
        app.balancer.join(listener.group, member);
    }
    let (app_ix, socket) = (worker.app, worker.socket_number);
    eligibility::recount_listener(cx, ix, listener_ix);
    deferral::refresh(cx, app_ix, listener_ix, socket);
    listener::poll(cx, app_ix, listener_ix);
}

/// The worker has closed a server.
pub(super) fn on_close(cx: &mut Context<impl System>, ix: WorkerIx, key: &str) {
    let Some(worker) = cx.workers.get_mut(ix) else { return };
    let app = &mut cx.apps[worker.app];
    let Some(listener_ix) = app.listeners.find(|l| l.key == key) else { return };
    if !worker.serves.remove(&listener_ix) {
        return;
    }
    worker.client_first.remove(&listener_ix);
    worker.unnoted = true;
    if let Some(member) = worker.member {
        app.balancer.leave(app.listeners[listener_ix].group, member);
    }
    let leaves = worker.drain.is_some() || worker.goodbye != Goodbye::Unsaid;
    let was_last = worker.admitted && worker.serves.is_empty();
    let was_open_ms = cx.now_ms.saturating_sub(app.listeners[listener_ix].opened_ms);
    // A worker that served and leaves, or is about to, is replaced: clients wait for its replacement.
    if was_open_ms < MOMENTARY_MS || !(leaves || was_last) {
        cx.tasks.push_back(Task::ListenerUnserved { app: worker.app, listener: listener_ix });
    }
    let (app_ix, socket) = (worker.app, worker.socket_number);
    if worker.serves.is_empty() {
        let event = Event::ServersClosed { worker: worker.id };
        cx.push_news(app_ix, event);
    }
    eligibility::recount_listener(cx, ix, listener_ix);
    deferral::refresh(cx, app_ix, listener_ix, socket);
}

/// The result of `server.address()` in the worker.
fn sock_name(local: &LocalAddress) -> Option<SockName> {
    match local {
        LocalAddress::Inet(address) => Some(SockName { address: address.ip(), port: address.port() }),
        LocalAddress::Unix(_) | LocalAddress::Other => None,
    }
}
