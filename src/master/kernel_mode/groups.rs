//! The SO_REUSEPORT groups of all listeners: which slot gets a socket, which sockets the keeper holds, and when the
//! kernel gets a new selection. `monitor` checks what waits in the sockets.
use crate::ids::{AppIx, ListenerIx};
use crate::keeper::protocol::Order;
use crate::limits;
use crate::master::checkpoint;
use crate::master::context::Context;
use crate::master::listener::{Listener, slot_name};
use crate::master::listening::Listening;
use crate::master::narration::plural;
use crate::master::system::System;
use crate::master::timers::Timer;
use crate::master::worker::Worker;
use crate::os::listen::LocalAddress;
use crate::reuseport::group::{Abilities, Group, GrowError};
use crate::reuseport::program::Steering;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Sockets of all groups of a deployment; slots beyond share them.
const GROUPS_SOCKETS_MAX: usize = 16 * 1024;

/// Minimum time between two changes of the kernel's selection, in milliseconds, unless a worker is gone.
const STEER_EVERY_MS: u64 = 5;

/// The groups of all listeners.
#[derive(Default)]
pub(in crate::master) struct Groups {
    abilities: Abilities,
    /// Number of sockets in all groups.
    sockets: usize,
    /// Earliest time of the next change of a selection (milliseconds).
    steer_after_ms: u64,
}

impl Groups {
    /// Gives a slot its own socket on this address, where possible.
    pub(in crate::master) fn give_slot_a_socket(
        &mut self,
        cx: &mut Context<impl System>,
        app_ix: AppIx,
        listener_ix: ListenerIx,
        slot: u32,
    ) {
        let app = &cx.apps[app_ix];
        let slots = app.supervisor.slot_count().max(slot + 1).min(limits::GROUP_SOCKETS_MAX);
        let listener = &app.listeners[listener_ix];
        if listener.socket_count() >= slots && listener.reuseport.is_some() {
            return;
        }
        if !self.open_group(cx, app_ix, listener_ix) {
            return;
        }
        let before = cx.apps[app_ix].listeners[listener_ix].socket_count();
        if let Err(reason) = self.grow_group(cx, app_ix, listener_ix, slots) {
            let app = &mut cx.apps[app_ix];
            let listener = &mut app.listeners[listener_ix];
            if let Some(group) = &mut listener.reuseport {
                group.full = true;
            }
            log::warn!(
                "{}: {listener} has {} for {slots} slots, so slots share them: {reason}",
                app.name,
                sockets_in_words(listener.socket_count())
            );
        }
        if cx.apps[app_ix].listeners[listener_ix].socket_count() > before {
            checkpoint::save_listener(cx, app_ix, listener_ix);
            cx.needs_steering(app_ix, listener_ix);
        }
    }

    /// Whether the listener has a group, opened now or before.
    fn open_group(&mut self, cx: &mut Context<impl System>, app_ix: AppIx, listener_ix: ListenerIx) -> bool {
        let app = &mut cx.apps[app_ix];
        let can_be_rescued = app.settings().protocol.can_be_handed_connections();
        let listener = &mut app.listeners[listener_ix];
        if listener.reuseport.is_some() {
            return true;
        }
        if !matches!(listener.local, LocalAddress::Inet(_)) {
            return false;
        }
        // Connections that the kernel's own hash sends to a slot without a worker could not be taken from there.
        let needs_choice = listener.datagram || !can_be_rescued;
        if needs_choice && self.abilities.best(&cx.system) == Steering::Hash {
            self.report_steering(cx, app_ix, None);
            return false;
        }
        let app = &mut cx.apps[app_ix];
        let listener = &mut app.listeners[listener_ix];
        match Group::open(&cx.system, listener.fd.as_fd()) {
            Ok(group) => listener.reuseport = Some(group),
            Err(e) => {
                log::warn!(
                    "{}: the workers share {listener}: the kernel refuses a reuseport group there: {e}",
                    app.name
                );
                return false;
            }
        }
        self.sockets += 1;
        if !listener.datagram {
            cx.reactor.add_queue((app_ix, listener_ix, 0), listener.fd.as_fd());
            cx.look_at_queues_now();
        }
        true
    }

    /// Adds sockets up to this number. The error says why the group did not grow further.
    fn grow_group(
        &mut self,
        cx: &mut Context<impl System>,
        app_ix: AppIx,
        listener_ix: ListenerIx,
        slots: u32,
    ) -> Result<(), GrowError> {
        let app = &cx.apps[app_ix];
        let blocking = app.settings().protocol.wants_blocking_sockets();
        let listener = &app.listeners[listener_ix];
        let Some(group) = listener.reuseport.as_ref().filter(|group| !group.full) else { return Ok(()) };
        let max = GROUPS_SOCKETS_MAX;
        let left = max.saturating_sub(self.sockets);
        let prepare = |socket: BorrowedFd<'_>| prepare_for_workers(&cx.system, socket, blocking, listener.datagram);
        let (made, outcome) = group.make(&cx.system, listener.fd.as_fd(), slots, left, max, prepare);
        for socket in made {
            self.add_socket(cx, app_ix, listener_ix, socket, true);
        }
        outcome
    }

    /// Appends a socket to a group.
    fn add_socket(
        &mut self,
        cx: &mut Context<impl System>,
        app_ix: AppIx,
        listener_ix: ListenerIx,
        socket: OwnedFd,
        hold: bool,
    ) {
        let app = &mut cx.apps[app_ix];
        let listener = &mut app.listeners[listener_ix];
        let Some(group) = &mut listener.reuseport else { return };
        let number = group.socket_count();
        if hold {
            cx.keeper.hold(slot_name(&app.name, &listener.key, number), socket.as_fd());
        }
        if !listener.datagram {
            cx.reactor.add_queue((app_ix, listener_ix, number), socket.as_fd());
        }
        group.push(socket);
        self.sockets += 1;
    }

    /// Continues the group that an earlier deployment left with the service manager: connections wait in its sockets.
    pub(in crate::master) fn adopt(
        &mut self,
        cx: &mut Context<impl System>,
        app_ix: AppIx,
        listener_ix: ListenerIx,
        sockets: Vec<OwnedFd>,
    ) {
        if sockets.is_empty() || !self.open_group(cx, app_ix, listener_ix) {
            return;
        }
        let app = &cx.apps[app_ix];
        let blocking = app.settings().protocol.wants_blocking_sockets();
        for socket in sockets {
            if let Err(e) = prepare_for_workers(&cx.system, socket.as_fd(), blocking, false) {
                let app = &cx.apps[app_ix];
                log::warn!("{}: cannot prepare a socket of {} for workers: {e}", app.name, app.listeners[listener_ix]);
            }
            self.add_socket(cx, app_ix, listener_ix, socket, true);
        }
        cx.needs_steering(app_ix, listener_ix);
    }

    /// Restores the group that the previous master left.
    pub(in crate::master) fn resume(
        &mut self,
        cx: &mut Context<impl System>,
        app_ix: AppIx,
        listener_ix: ListenerIx,
        sockets: Vec<OwnedFd>,
        full: bool,
        places: &[u32],
    ) {
        if !self.open_group(cx, app_ix, listener_ix) {
            return;
        }
        for socket in sockets {
            self.add_socket(cx, app_ix, listener_ix, socket, false);
        }
        if let Some(group) = &mut cx.apps[app_ix].listeners[listener_ix].reuseport {
            group.full = full;
            if !places.is_empty() {
                group.set_order(places);
            }
        }
        cx.needs_steering(app_ix, listener_ix);
    }

    /// Like [`Groups::stop_listening`], and has the keeper drop the sockets too.
    pub(in crate::master) fn release_listener(
        &mut self,
        cx: &mut Context<impl System>,
        app_ix: AppIx,
        listener_ix: ListenerIx,
    ) {
        stop_listening(cx, app_ix, listener_ix);
        let app = &mut cx.apps[app_ix];
        let listener = &mut app.listeners[listener_ix];
        cx.keeper.send(Order::Release { name: listener.held_name(&app.name) });
        for number in 1..listener.socket_count() {
            cx.keeper.send(Order::Release { name: slot_name(&app.name, &listener.key, number) });
        }
        if listener.reuseport.take().is_some() {
            let left: usize = cx.apps.iter().flat_map(|a| &a.listeners).map(group_sockets).sum();
            self.sockets = left;
        }
        cx.group_changes.unsteered.remove(&(app_ix, listener_ix));
    }

    /// Has a listener on all interfaces listen in this family: programs whose socket is an IPv4 one cannot read the addresses
    /// of IPv6 peers. Nobody may have taken connections from it; what waits in it is reset.
    ///
    /// # Errors
    /// Those of bind(2); the listener stays as it was.
    pub(in crate::master) fn change_family(
        &mut self,
        cx: &mut Context<impl System>,
        app_ix: AppIx,
        listener_ix: ListenerIx,
        wanted: SocketAddr,
    ) -> io::Result<()> {
        let listener = &cx.apps[app_ix].listeners[listener_ix];
        let others: Vec<BorrowedFd<'_>> = listener.sockets().collect();
        let socket = cx.system.bind_tcp_beside(wanted, false, &others)?;
        cx.system.set_backlog(socket.as_fd(), limits::LISTEN_BACKLOG)?;
        let LocalAddress::Inet(local) = cx.system.local_address(socket.as_fd())? else {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        };
        let listener = &mut cx.apps[app_ix].listeners[listener_ix];
        listener.leave_poll(&cx.reactor);
        let before: Vec<OwnedFd> = listener.sockets().filter_map(|socket| socket.try_clone_to_owned().ok()).collect();
        listener.sockets().for_each(|socket| cx.reactor.remove_queue(socket));
        let group = listener.reuseport.take();
        let old = std::mem::replace(&mut listener.fd, socket);
        listener.local = LocalAddress::Inet(local);
        // A master that dies between these orders leaves a listener of one family with one socket.
        checkpoint::save_listener(cx, app_ix, listener_ix);
        let app = &cx.apps[app_ix];
        let listener = &app.listeners[listener_ix];
        cx.keeper.hold(listener.held_name(&app.name), listener.fd.as_fd());
        for number in 1..before.len() as u32 {
            cx.keeper.send(Order::Release { name: slot_name(&app.name, &listener.key, number) });
        }
        before.iter().for_each(|socket| cx.system.stop_listening(socket.as_fd()));
        drop((old, group, before));
        self.sockets = cx.apps.iter().flat_map(|a| &a.listeners).map(group_sockets).sum();
        cx.group_changes.unsteered.remove(&(app_ix, listener_ix));
        Ok(())
    }

    /// Gives the kernel the selections that have changed.
    pub(in crate::master) fn steer(&mut self, cx: &mut Context<impl System>) {
        let at_once = std::mem::take(&mut cx.group_changes.chooses_gone);
        if cx.group_changes.unsteered.is_empty() {
            return;
        }
        if cx.now_ms < self.steer_after_ms && !at_once {
            cx.timers.set(Timer::Steering, self.steer_after_ms);
            return;
        }
        cx.timers.cancel(Timer::Steering);
        for (app_ix, listener_ix) in std::mem::take(&mut cx.group_changes.unsteered) {
            self.steer_group(cx, app_ix, listener_ix);
        }
        self.steer_after_ms = cx.now_ms + STEER_EVERY_MS;
    }

    fn steer_group(&mut self, cx: &mut Context<impl System>, app_ix: AppIx, listener_ix: ListenerIx) {
        leave_out_closed(cx, app_ix, listener_ix);
        let is_shared = is_first_shared(cx, app_ix, listener_ix);
        let app = &mut cx.apps[app_ix];
        let own_sockets = app.has_own_sockets();
        let slots = app.supervisor.slot_count();
        let Some(listener) = app.listeners.get_mut(listener_ix) else { return };
        let Some(group) = &mut listener.reuseport else { return };
        group.selection.settle();
        // Where none listens the group is steered when one does again.
        if group.socket_count() < 2 || group.order().is_empty() {
            return;
        }
        let selected = match (own_sockets, is_shared) {
            (false, _) => vec![0],
            (true, false) => group.selection.selected(),
            (true, true) => group.selection.selected_with_first(),
        };
        let before = group.steering;
        let best = self.abilities.best(&cx.system);
        let attached = if listener.datagram {
            group.steer_datagrams(&cx.system, listener.fd.as_fd(), slots, &selected)
        } else {
            group.steer(&cx.system, listener.fd.as_fd(), best, &selected)
        };
        match attached {
            Ok(steering) => group.steering = Some(steering),
            Err(e) => {
                let known = group.steering.replace(Steering::Hash) == Some(Steering::Hash);
                if !known {
                    log::warn!(
                        "{}: the kernel refuses the BPF program that selects a socket of {listener}: {e}",
                        app.name
                    );
                }
            }
        }
        if before.is_none() {
            self.report_steering(cx, app_ix, Some(listener_ix));
        }
    }

    /// Logs once how the kernel distributes the connections of an app.
    fn report_steering(&mut self, cx: &mut Context<impl System>, app_ix: AppIx, listener_ix: Option<ListenerIx>) {
        let best = self.abilities.best(&cx.system);
        let app = &mut cx.apps[app_ix];
        let listener = listener_ix.and_then(|ix| app.listeners.get(ix));
        if listener.is_some_and(|l| l.datagram) || std::mem::replace(&mut app.steering_reported, true) {
            return;
        }
        let steering = listener.and_then(|l| l.reuseport.as_ref()).and_then(|group| group.steering).unwrap_or(best);
        let (name, why) = (&app.name, self.abilities.why_not_better());
        match steering {
            Steering::Turns => log::info!("{name}: the kernel gives connections to the workers in turn"),
            Steering::Random => {
                log::info!("{name}: the kernel gives connections to the workers at random (turns need CAP_BPF: {why})");
            }
            Steering::Hash if listener.is_none() => log::warn!(
                "{name}: the workers share one socket: the kernel refuses the BPF program that would choose among several ({why})"
            ),
            Steering::Hash => log::warn!(
                "{name}: the kernel distributes connections by its own hash, because it refuses the BPF program that would \
                 choose ({why}); clusterd hands on what a worker cannot take"
            ),
        }
    }
}

/// Takes the sockets out of a group's order that a worker has shut down, so that the program is for those that listen.
fn leave_out_closed(cx: &mut Context<impl System>, app_ix: AppIx, listener_ix: ListenerIx) {
    let Context { apps, system, group_changes, .. } = &mut *cx;
    let Some(listener) = apps[app_ix].listeners.get_mut(listener_ix) else { return };
    if listener.datagram || listener.listening != Listening::Yes && listener.listening != Listening::Restored {
        return;
    }
    let closed: Vec<u32> =
        (0..listener.socket_count()).filter(|number| !system.is_listening(listener.socket(*number))).collect();
    let Some(group) = &mut listener.reuseport else { return };
    if closed.iter().filter(|number| group.note_closed(**number)).count() > 0 {
        group_changes.has_closed = true;
        checkpoint::save_listener(cx, app_ix, listener_ix);
    }
}

fn group_sockets(listener: &Listener) -> usize {
    listener.reuseport.as_ref().map_or(0, |group| group.socket_count() as usize)
}

fn sockets_in_words(n: u32) -> String {
    format!("{n} {}", plural(n, "socket"))
}

/// Whether others than the worker of its slot take connections from the first socket: the master for its workers, or workers that share
/// it. In a reload that changes the balance, beside workers that have sockets of their own.
pub(in crate::master) fn is_first_shared(cx: &Context<impl System>, app_ix: AppIx, listener_ix: ListenerIx) -> bool {
    let app = &cx.apps[app_ix];
    if !app.has_own_sockets() {
        return true;
    }
    let is_mixed = app.generations.values().any(|settings| !settings.has_own_sockets());
    let takes = |w: &Worker<_>| {
        let serves = w.admitted && w.drain.is_none() && w.serves.contains(&listener_ix);
        w.app == app_ix && !w.is_beside && !w.own_socket && serves
    };
    is_mixed && cx.workers.iter().any(|(_, worker)| takes(worker))
}

/// Closes the group of a listener that is no longer served. Waiting connections are reset.
pub(in crate::master) fn stop_listening(cx: &mut Context<impl System>, app_ix: AppIx, listener_ix: ListenerIx) {
    let listener = &mut cx.apps[app_ix].listeners[listener_ix];
    listener.readable = false;
    listener.listening = Listening::Stopped;
    listener.leave_poll(&cx.reactor);
    for socket in listener.sockets() {
        cx.reactor.remove_queue(socket);
        cx.system.stop_listening(socket);
    }
}

/// Renews every selection of an app: its generation has changed, and perhaps its balance mode.
pub(in crate::master) fn steer_again(cx: &mut Context<impl System>, app_ix: AppIx) {
    let Context { apps, group_changes, timers, .. } = cx;
    for (listener_ix, listener) in apps[app_ix].listeners.entries() {
        if listener.reuseport.is_some() {
            group_changes.add_unsteered(timers, (app_ix, listener_ix));
        }
    }
}

/// Sets up a socket as workers of this protocol expect it.
pub(in crate::master) fn prepare_for_workers(
    system: &impl System,
    socket: BorrowedFd<'_>,
    blocking: bool,
    datagram: bool,
) -> io::Result<()> {
    // Programs that take LISTEN_FDS expect what systemd passes: a blocking socket that they may change. Otherwise the loop
    // accepts from it, also where whoever opened it left it blocking.
    system.set_nonblocking(socket, !blocking)?;
    if !blocking {
        return Ok(());
    }
    // A server that is given a socket cannot know whether it is TCP, and some then leave Nagle's algorithm on: 40 ms
    // for each answer on a kept connection.
    if datagram { Ok(()) } else { system.set_nodelay(socket) }
}
