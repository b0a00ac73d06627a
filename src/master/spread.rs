//! Balance `kernel`: the SO_REUSEPORT group of a listener, one socket for each slot, and the program in the kernel that
//! chooses among those whose workers take connections. What waits in the sockets is `queues`' business.
//!
//! A socket lives as long as its listener, and its number in the group is its slot: sockets of slots that were scaled
//! away stay, unselected, and are used again.
use super::listener::{Listener, slot_name};
use super::{Master, checkpoint};
use crate::ids::{AppIx, ListenerIx, WorkerIx};
use crate::keeper::protocol::Order;
use crate::limits;
use crate::os::listen::{self, LocalAddress};
use crate::reuseport::group::{Abilities, Group, GrowError};
use crate::reuseport::program::Steering;
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Pause after the choice of sockets was changed in the kernel, before the next change, in milliseconds.
const STEER_EVERY_MS: u64 = 5;

/// What is to be told to the kernel.
#[derive(Default)]
pub(super) struct Spreading {
    abilities: Abilities,
    /// Sockets of all groups.
    sockets: usize,
    /// Groups whose program is to be replaced: app and listener.
    unsteered: BTreeSet<(AppIx, ListenerIx)>,
    /// Not before this time (milliseconds).
    steer_after_ms: u64,
}

impl Spreading {
    /// When [`Master::steer`] has something to do.
    pub(super) fn steer_at_ms(&self) -> Option<u64> {
        (!self.unsteered.is_empty()).then_some(self.steer_after_ms)
    }
}

impl Listener {
    /// Number of its sockets.
    pub(super) fn socket_count(&self) -> u32 {
        self.reuseport.as_ref().map_or(1, Group::socket_count)
    }

    /// One of them; the first where there are fewer.
    pub(super) fn socket(&self, number: u32) -> BorrowedFd<'_> {
        let other = self.reuseport.as_ref().and_then(|group| group.socket(number));
        other.unwrap_or(self.fd.as_fd())
    }

    /// The one of a slot.
    pub(super) fn socket_of(&self, slot: u32) -> BorrowedFd<'_> {
        self.socket(self.reuseport.as_ref().map_or(0, |group| group.selection.socket_of(slot)))
    }

    pub(super) fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        (0..self.socket_count()).map(|number| self.socket(number))
    }

    /// Connections that the kernel gave to each of its sockets, where it counts them.
    pub(super) fn steered(&self) -> Vec<u64> {
        self.reuseport.as_ref().map(Group::counts).unwrap_or_default()
    }
}

impl Master {
    /// Makes sure that a slot has a socket of its own on this address, where that is possible.
    pub(super) fn give_slot_a_socket(&mut self, app_ix: AppIx, listener_ix: ListenerIx, slot: u32) {
        let app = &self.cx.apps[app_ix];
        let slots = app.supervisor.slot_count().max(slot + 1).min(limits::GROUP_SOCKETS_MAX);
        let listener = &app.listeners[listener_ix];
        if listener.socket_count() >= slots && listener.reuseport.is_some() {
            return;
        }
        if !self.open_group(app_ix, listener_ix) {
            return;
        }
        let before = self.cx.apps[app_ix].listeners[listener_ix].socket_count();
        if let Err(reason) = self.grow_group(app_ix, listener_ix, slots) {
            let app = &mut self.cx.apps[app_ix];
            let listener = &mut app.listeners[listener_ix];
            if let Some(group) = &mut listener.reuseport {
                group.full = true;
            }
            log::warn!(
                "{}: {listener} has {} for {slots} slots, so slots share; no more because {reason}",
                app.name,
                sockets_in_words(listener.socket_count())
            );
        }
        if self.cx.apps[app_ix].listeners[listener_ix].socket_count() > before {
            checkpoint::save_listener(&mut self.cx, app_ix, listener_ix);
            self.abilities.unsteered.insert((app_ix, listener_ix));
        }
    }

    /// Whether the listener has a group, from now on or before.
    fn open_group(&mut self, app_ix: AppIx, listener_ix: ListenerIx) -> bool {
        let app = &mut self.cx.apps[app_ix];
        let can_be_rescued = app.settings().protocol.can_be_handed_connections();
        let listener = &mut app.listeners[listener_ix];
        if listener.reuseport.is_some() {
            return true;
        }
        if !matches!(listener.local, LocalAddress::Inet(_)) {
            return false;
        }
        // What the kernel's own hash gives to a slot without a worker could not be taken from there.
        let needs_choice = listener.datagram || !can_be_rescued;
        if needs_choice && self.abilities.abilities.best() == Steering::Hash {
            self.tell_steering(app_ix, None);
            return false;
        }
        let app = &mut self.cx.apps[app_ix];
        let listener = &mut app.listeners[listener_ix];
        match Group::open(listener.fd.as_fd()) {
            Ok(group) => listener.reuseport = Some(group),
            Err(e) => {
                log::warn!(
                    "{}: the workers share {listener}: the kernel makes no group of sockets there: {e}",
                    app.name
                );
                return false;
            }
        }
        self.abilities.sockets += 1;
        if !listener.datagram {
            self.cx.reactor.add_queue((app_ix, listener_ix, 0), listener.fd.as_fd());
            self.look_at_queues_soon();
        }
        true
    }

    /// Adds sockets up to this number. The error says why it became no more.
    fn grow_group(&mut self, app_ix: AppIx, listener_ix: ListenerIx, slots: u32) -> Result<(), GrowError> {
        let app = &self.cx.apps[app_ix];
        let blocking = app.settings().protocol.wants_blocking_sockets();
        let listener = &app.listeners[listener_ix];
        let Some(group) = listener.reuseport.as_ref().filter(|group| !group.full) else { return Ok(()) };
        let max = limits::GROUPS_SOCKETS_MAX;
        let left = max.saturating_sub(self.abilities.sockets);
        let prepare = |socket: BorrowedFd<'_>| prepare_for_workers(socket, blocking, listener.datagram);
        let (made, outcome) = group.make(listener.fd.as_fd(), slots, left, max, prepare);
        for socket in made {
            self.add_socket(app_ix, listener_ix, socket, true);
        }
        outcome
    }

    /// Takes a socket into a group, at its end.
    pub(super) fn add_socket(&mut self, app_ix: AppIx, listener_ix: ListenerIx, socket: OwnedFd, hold: bool) {
        let app = &mut self.cx.apps[app_ix];
        let listener = &mut app.listeners[listener_ix];
        let Some(group) = &mut listener.reuseport else { return };
        let number = group.socket_count();
        if hold {
            self.cx.keeper.hold(slot_name(&app.name, &listener.key, number), socket.as_fd());
        }
        if !listener.datagram {
            self.cx.reactor.add_queue((app_ix, listener_ix, number), socket.as_fd());
        }
        group.push(socket);
        self.abilities.sockets += 1;
    }

    /// The group that a former master left.
    pub(super) fn resume_group(&mut self, app_ix: AppIx, listener_ix: ListenerIx, sockets: Vec<OwnedFd>, full: bool) {
        if !self.open_group(app_ix, listener_ix) {
            return;
        }
        for socket in sockets {
            self.add_socket(app_ix, listener_ix, socket, false);
        }
        if let Some(group) = &mut self.cx.apps[app_ix].listeners[listener_ix].reuseport {
            group.full = full;
        }
        self.abilities.unsteered.insert((app_ix, listener_ix));
    }

    /// Nobody listens there any more. Who waits is reset.
    pub(super) fn stop_listening(&mut self, app_ix: AppIx, listener_ix: ListenerIx) {
        let app = &mut self.cx.apps[app_ix];
        let listener = &mut app.listeners[listener_ix];
        listener.readable = false;
        listener.leave_poll(&self.cx.reactor);
        for socket in listener.sockets() {
            self.cx.reactor.remove_queue(socket);
            listen::stop_listening(socket);
        }
    }

    /// As [`Master::stop_listening`], and the keeper lets go of the sockets too.
    pub(super) fn release_listener(&mut self, app_ix: AppIx, listener_ix: ListenerIx) {
        self.stop_listening(app_ix, listener_ix);
        let app = &mut self.cx.apps[app_ix];
        let listener = &mut app.listeners[listener_ix];
        self.cx.keeper.send(Order::Release { name: listener.held_name(&app.name) });
        for number in 1..listener.socket_count() {
            self.cx.keeper.send(Order::Release { name: slot_name(&app.name, &listener.key, number) });
        }
        if listener.reuseport.take().is_some() {
            let left: usize = self.cx.apps.iter().flat_map(|a| &a.listeners).map(group_sockets).sum();
            self.abilities.sockets = left;
        }
        self.abilities.unsteered.remove(&(app_ix, listener_ix));
    }

    /// Something about a worker changed: whose listeners does it count for, and from which does it take connections?
    pub(super) fn recount(&mut self, ix: WorkerIx) {
        let Some(worker) = self.cx.workers.get(ix) else { return };
        let counted = worker.takes.union(&worker.present).copied().collect::<BTreeSet<ListenerIx>>();
        for listener_ix in worker.serves.union(&counted).copied().collect::<Vec<ListenerIx>>() {
            self.recount_one(ix, listener_ix);
        }
    }

    /// The same for one listener.
    pub(super) fn recount_one(&mut self, ix: WorkerIx, listener_ix: ListenerIx) {
        let Some(worker) = self.cx.workers.get_mut(ix) else { return };
        let app_ix = worker.app;
        let Some(listener) = self.cx.apps[app_ix].listeners.get_mut(listener_ix) else { return };
        let present = worker.admitted && worker.serves.contains(&listener_ix);
        let changed = if present { worker.present.insert(listener_ix) } else { worker.present.remove(&listener_ix) };
        if changed {
            listener.count_present(worker.generation, present);
        }
        let Some(group) = listener.reuseport.as_mut().filter(|_| worker.own_socket) else { return };
        let channel = worker.channel.as_ref();
        let here = present && worker.drain.is_none() && channel.is_none_or(|channel| !channel.closed);
        let reads = !worker.liveness.stuck && channel.is_none_or(|channel| !channel.is_blocked());
        // Datagrams cannot be given to another worker, and their clients are not moved for a moment's trouble.
        let takes = here && (reads || listener.datagram);
        if takes && worker.takes.insert(listener_ix) {
            group.selection.enter(worker.slot, ix);
            self.watch.look_soon(self.cx.now_ms);
        } else if !takes && worker.takes.remove(&listener_ix) {
            let left = group.selection.leave(worker.slot, ix);
            if let Some(socket) = left.filter(|_| !listener.datagram) {
                self.watch.add((app_ix, listener_ix, socket), self.cx.now_ms);
                self.watch.look_soon(self.cx.now_ms);
            }
        }
        if group.selection.is_changed() {
            self.abilities.unsteered.insert((app_ix, listener_ix));
        }
    }

    /// The generation that serves has changed, and with it perhaps the way to balance.
    pub(super) fn steer_anew(&mut self, app_ix: AppIx) {
        for (listener_ix, listener) in self.cx.apps[app_ix].listeners.entries() {
            if listener.reuseport.is_some() {
                self.abilities.unsteered.insert((app_ix, listener_ix));
            }
        }
    }

    /// Tells the kernel which sockets to choose from, where that changed.
    pub(super) fn steer(&mut self) {
        if self.abilities.unsteered.is_empty() || self.cx.now_ms < self.abilities.steer_after_ms {
            return;
        }
        for (app_ix, listener_ix) in std::mem::take(&mut self.abilities.unsteered) {
            self.steer_group(app_ix, listener_ix);
        }
        self.abilities.steer_after_ms = self.cx.now_ms + STEER_EVERY_MS;
    }

    fn steer_group(&mut self, app_ix: AppIx, listener_ix: ListenerIx) {
        let app = &mut self.cx.apps[app_ix];
        let slots = app.supervisor.slot_count();
        // Under another way to balance the master takes all connections from the first socket.
        let own_sockets = app.has_own_sockets();
        let Some(listener) = app.listeners.get_mut(listener_ix) else { return };
        let Some(group) = &mut listener.reuseport else { return };
        group.selection.settle();
        if group.socket_count() < 2 {
            return;
        }
        let selected = if own_sockets { group.selection.selected() } else { vec![0] };
        let before = group.steering;
        let best = self.abilities.abilities.best();
        let attached = if listener.datagram {
            group.steer_datagrams(listener.fd.as_fd(), slots, &selected)
        } else {
            group.steer(listener.fd.as_fd(), best, &selected)
        };
        match attached {
            Ok(steering) => group.steering = Some(steering),
            Err(e) => {
                let known = group.steering.replace(Steering::Hash) == Some(Steering::Hash);
                if !known {
                    log::warn!("{}: the kernel takes no program for {listener}: {e}", app.name);
                }
            }
        }
        if before.is_none() {
            self.tell_steering(app_ix, Some(listener_ix));
        }
    }

    /// Says once how the kernel spreads the connections of an app.
    fn tell_steering(&mut self, app_ix: AppIx, listener_ix: Option<ListenerIx>) {
        let best = self.abilities.abilities.best();
        let app = &mut self.cx.apps[app_ix];
        let listener = listener_ix.and_then(|ix| app.listeners.get(ix));
        if listener.is_some_and(|l| l.datagram) || std::mem::replace(&mut app.steering_told, true) {
            return;
        }
        let steering = listener.and_then(|l| l.reuseport.as_ref()).and_then(|group| group.steering).unwrap_or(best);
        let (name, why) = (&app.name, self.abilities.abilities.why_not_better());
        match steering {
            Steering::Turns => log::info!("{name}: the kernel gives connections to the workers in turns"),
            Steering::Random => {
                log::info!("{name}: the kernel gives connections to the workers at random (turns need CAP_BPF: {why})");
            }
            Steering::Hash if listener.is_none() => log::warn!(
                "{name}: the workers share one socket: this kernel takes no program that would choose among several ({why})"
            ),
            Steering::Hash => log::warn!(
                "{name}: the kernel goes by its own hash, because it takes no program that would choose ({why}); what \
                 comes to a worker that cannot take it goes through clusterd"
            ),
        }
    }
}

fn group_sockets(listener: &Listener) -> usize {
    listener.reuseport.as_ref().map_or(0, |group| group.socket_count() as usize)
}

fn sockets_in_words(n: u32) -> String {
    format!("{n} {}", super::narration::plural(n, "socket"))
}

/// As workers of this kind expect their sockets.
pub(super) fn prepare_for_workers(socket: BorrowedFd<'_>, blocking: bool, datagram: bool) -> io::Result<()> {
    if !blocking {
        return Ok(());
    }
    // Programs that take LISTEN_FDS expect what systemd passes: a blocking socket, theirs to change.
    listen::set_nonblocking(socket, false)?;
    // A server that is given a socket cannot know whether it is TCP, and some then leave Nagle's algorithm on: 40 ms for
    // each answer on a kept connection.
    if datagram { Ok(()) } else { listen::set_nodelay(socket) }
}
