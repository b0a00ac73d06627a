//! Balance `kernel`: the SO_REUSEPORT group of a listener, one socket for each slot, and the program in the kernel that
//! chooses among those whose workers take connections. What waits in the sockets is `queues`' business.
//!
//! A socket lives as long as its listener, and its number in the group is its slot: sockets of slots that were scaled
//! away stay, unselected, and are used again.
use super::Master;
use super::listener::{Listener, slot_name};
use crate::balance::selection::Selection;
use crate::balance::steering::{self, Steering};
use crate::config::Protocol;
use crate::ids::{AppIx, ListenerIx, WorkerIx};
use crate::keeper::protocol::Order;
use crate::limits;
use crate::os::listen::{self, LocalAddress};
use crate::os::reuseport::{self, Turns};
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The group of one listener.
pub(super) struct Spread {
    /// The sockets after the first, which is the listener's own.
    pub(super) more: Vec<OwnedFd>,
    pub(super) selection: Selection,
    turns: Option<Turns>,
    /// How the kernel chooses; `None` as long as there is only one socket.
    pub(super) steering: Option<Steering>,
    /// It cannot grow any more: slots beyond share its sockets.
    pub(super) full: bool,
}

/// What this kernel lets us do, once it was tried.
#[derive(Default)]
pub(super) struct Abilities {
    steering: Option<Steering>,
    /// Why it is not more.
    why: String,
    /// Sockets of all groups.
    sockets: usize,
    /// Groups whose program is to be replaced: app and listener.
    unsteered: BTreeSet<(AppIx, ListenerIx)>,
    /// Not before this time (milliseconds).
    steer_after_ms: u64,
}

impl Abilities {
    /// How the kernel can choose at best, found out at the first call.
    fn steering(&mut self) -> Steering {
        if let Some(known) = self.steering {
            return known;
        }
        let found = match reuseport::try_turns() {
            Ok(()) => Steering::Turns,
            Err(no_turns) => match reuseport::try_classic() {
                Ok(()) => {
                    self.why = no_turns.to_string();
                    Steering::Random
                }
                Err(nothing) => {
                    self.why = nothing.to_string();
                    Steering::Hash
                }
            },
        };
        self.steering = Some(found);
        found
    }

    /// When [`Master::steer`] has something to do.
    pub(super) fn steer_at_ms(&self) -> Option<u64> {
        (!self.unsteered.is_empty()).then_some(self.steer_after_ms)
    }
}

impl Listener {
    /// Number of its sockets.
    pub(super) fn socket_count(&self) -> u32 {
        self.spread.as_ref().map_or(1, |spread| spread.selection.sockets())
    }

    /// One of them; the first where there are fewer.
    pub(super) fn socket(&self, number: u32) -> BorrowedFd<'_> {
        let more = self.spread.as_ref().and_then(|spread| spread.more.get(number.checked_sub(1)? as usize));
        more.unwrap_or(&self.fd).as_fd()
    }

    /// The one of a slot.
    pub(super) fn socket_of(&self, slot: u32) -> BorrowedFd<'_> {
        self.socket(self.spread.as_ref().map_or(0, |spread| spread.selection.socket_of(slot)))
    }

    pub(super) fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        (0..self.socket_count()).map(|number| self.socket(number))
    }

    /// Gives the next turns of sockets in which more waits than in others to those, where the kernel goes by turns.
    pub(super) fn even_out(&mut self, waiting: &[(u32, u32)]) {
        let Some(spread) = self.spread.as_mut() else { return };
        if let Some(turns) = spread.turns.as_mut()
            && let Err(e) = turns.leave(&spread.selection.excess(waiting))
        {
            log::debug!("cannot tell the kernel which slots are behind: {e}");
        }
    }

    /// Connections that the kernel gave to each of its sockets, where it counts them.
    pub(super) fn steered(&self) -> Vec<u64> {
        self.spread.as_ref().and_then(|spread| spread.turns.as_ref()).map(Turns::counts).unwrap_or_default()
    }
}

impl Master {
    /// Makes sure that a slot has a socket of its own on this address, where that is possible.
    pub(super) fn give_slot_a_socket(&mut self, app_ix: AppIx, listener_ix: ListenerIx, slot: u32) {
        let app = &self.cx.apps[app_ix];
        let slots = app.supervisor.slot_count().max(slot + 1).min(limits::GROUP_SOCKETS_MAX);
        let listener = &app.listeners[listener_ix];
        if listener.socket_count() >= slots && listener.spread.is_some() {
            return;
        }
        if !self.open_group(app_ix, listener_ix) {
            return;
        }
        let before = self.cx.apps[app_ix].listeners[listener_ix].socket_count();
        if let Err(reason) = self.grow_group(app_ix, listener_ix, slots) {
            let app = &mut self.cx.apps[app_ix];
            let listener = &mut app.listeners[listener_ix];
            if let Some(spread) = &mut listener.spread {
                spread.full = true;
            }
            log::warn!(
                "{}: {listener} has {} for {slots} slots, so slots share; no more because {reason}",
                app.name,
                sockets_in_words(listener.socket_count())
            );
        }
        if self.cx.apps[app_ix].listeners[listener_ix].socket_count() > before {
            self.note_listener(app_ix, listener_ix);
            self.abilities.unsteered.insert((app_ix, listener_ix));
        }
    }

    /// Whether the listener has a group, from now on or before.
    fn open_group(&mut self, app_ix: AppIx, listener_ix: ListenerIx) -> bool {
        let app = &mut self.cx.apps[app_ix];
        let node = app.settings().protocol == Protocol::Node;
        let listener = &mut app.listeners[listener_ix];
        if listener.spread.is_some() {
            return true;
        }
        if !matches!(listener.local, LocalAddress::Inet(_)) {
            return false;
        }
        // What the kernel's own hash gives to a slot without a worker could not be taken from there.
        let needs_choice = listener.datagram || !node;
        if needs_choice && self.abilities.steering() == Steering::Hash {
            self.tell_steering(app_ix, None);
            return false;
        }
        let app = &mut self.cx.apps[app_ix];
        let listener = &mut app.listeners[listener_ix];
        if let Err(e) = reuseport::open(listener.fd.as_fd()) {
            log::warn!("{}: the workers share {listener}: the kernel makes no group of sockets there: {e}", app.name);
            return false;
        }
        listener.spread =
            Some(Spread { more: Vec::new(), selection: Selection::new(), turns: None, steering: None, full: false });
        self.abilities.sockets += 1;
        if !listener.datagram {
            self.cx.reactor.add_queue((app_ix, listener_ix, 0), listener.fd.as_fd());
            self.look_at_queues_soon();
        }
        true
    }

    /// Adds sockets up to this number. The error says why it became no more.
    fn grow_group(&mut self, app_ix: AppIx, listener_ix: ListenerIx, slots: u32) -> Result<(), String> {
        let app = &self.cx.apps[app_ix];
        let blocking = app.settings().protocol != Protocol::Node;
        let listener = &app.listeners[listener_ix];
        let Some(spread) = listener.spread.as_ref().filter(|spread| !spread.full) else { return Ok(()) };
        let mut added = Vec::new();
        let mut outcome = Ok(());
        for _ in spread.selection.sockets()..slots {
            if self.abilities.sockets + added.len() >= limits::GROUPS_SOCKETS_MAX {
                outcome = Err(format!("there are {} in all, which is the most", limits::GROUPS_SOCKETS_MAX));
                break;
            }
            let made = reuseport::join(listener.fd.as_fd()).and_then(|socket| {
                prepare_for_workers(socket.as_fd(), blocking, listener.datagram)?;
                Ok(socket)
            });
            match made {
                Ok(socket) => added.push(socket),
                Err(e) => {
                    outcome = Err(e.to_string());
                    break;
                }
            }
        }
        if added.is_empty() {
            return outcome;
        }
        let all: Vec<BorrowedFd<'_>> = listener.sockets().chain(added.iter().map(AsFd::as_fd)).collect();
        if reuseport::has_strangers(&all) {
            return Err("another process of this user has joined the address (SO_REUSEPORT)".to_owned());
        }
        for socket in added {
            self.add_socket(app_ix, listener_ix, socket, true);
        }
        outcome
    }

    /// Takes a socket into a group, at its end.
    pub(super) fn add_socket(&mut self, app_ix: AppIx, listener_ix: ListenerIx, socket: OwnedFd, hold: bool) {
        let app = &mut self.cx.apps[app_ix];
        let listener = &mut app.listeners[listener_ix];
        let Some(spread) = &mut listener.spread else { return };
        let number = spread.selection.sockets();
        if hold {
            self.cx.keeper.hold(slot_name(&app.name, &listener.key, number), socket.as_fd());
        }
        if !listener.datagram {
            self.cx.reactor.add_queue((app_ix, listener_ix, number), socket.as_fd());
        }
        spread.selection.grow();
        spread.more.push(socket);
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
        if let Some(spread) = &mut self.cx.apps[app_ix].listeners[listener_ix].spread {
            spread.full = full;
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
        if listener.spread.take().is_some() {
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
        let Some(spread) = listener.spread.as_mut().filter(|_| worker.own_socket) else { return };
        let channel = worker.channel.as_ref();
        let here = present && worker.drain.is_none() && channel.is_none_or(|channel| !channel.closed);
        let reads = !worker.pulse.stuck && channel.is_none_or(|channel| !channel.is_blocked());
        // Datagrams cannot be given to another worker, and their clients are not moved for a moment's trouble.
        let takes = here && (reads || listener.datagram);
        if takes && worker.takes.insert(listener_ix) {
            spread.selection.enter(worker.slot, ix);
            self.watch.look_soon(self.cx.now_ms);
        } else if !takes && worker.takes.remove(&listener_ix) {
            let left = spread.selection.leave(worker.slot, ix);
            if let Some(socket) = left.filter(|_| !listener.datagram) {
                self.watch.add((app_ix, listener_ix, socket), self.cx.now_ms);
                self.watch.look_soon(self.cx.now_ms);
            }
        }
        if spread.selection.is_changed() {
            self.abilities.unsteered.insert((app_ix, listener_ix));
        }
    }

    /// The generation that serves has changed, and with it perhaps the way to balance.
    pub(super) fn steer_anew(&mut self, app_ix: AppIx) {
        for (listener_ix, listener) in self.cx.apps[app_ix].listeners.entries() {
            if listener.spread.is_some() {
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
        self.abilities.steer_after_ms = self.cx.now_ms + limits::STEER_EVERY_MS;
    }

    fn steer_group(&mut self, app_ix: AppIx, listener_ix: ListenerIx) {
        let app = &mut self.cx.apps[app_ix];
        let slots = app.supervisor.slot_count();
        // Under another way to balance the master takes all connections from the first socket.
        let own_sockets = app.has_own_sockets();
        let Some(listener) = app.listeners.get_mut(listener_ix) else { return };
        let Some(spread) = &mut listener.spread else { return };
        spread.selection.settle();
        let sockets = spread.selection.sockets();
        if sockets < 2 {
            return;
        }
        let selected = if own_sockets { spread.selection.selected() } else { vec![0] };
        let before = spread.steering;
        let best = self.abilities.steering();
        let attached = if listener.datagram {
            steering::by_flow(slots.min(sockets), &selected)
                .map_or(Ok(()), |program| reuseport::attach_classic(listener.fd.as_fd(), &program))
                .map(|()| Steering::Random)
        } else {
            attach(listener.fd.as_fd(), spread, best, &selected)
        };
        match attached {
            Ok(steering) => spread.steering = Some(steering),
            Err(e) => {
                let known = spread.steering.replace(Steering::Hash) == Some(Steering::Hash);
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
        let best = self.abilities.steering();
        let app = &mut self.cx.apps[app_ix];
        let listener = listener_ix.and_then(|ix| app.listeners.get(ix));
        if listener.is_some_and(|l| l.datagram) || std::mem::replace(&mut app.steering_told, true) {
            return;
        }
        let steering = listener.and_then(|l| l.spread.as_ref()).and_then(|spread| spread.steering).unwrap_or(best);
        let (name, why) = (&app.name, &self.abilities.why);
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
    listener.spread.as_ref().map_or(0, |spread| spread.selection.sockets() as usize)
}

fn sockets_in_words(n: u32) -> String {
    format!("{n} {}", super::tell::plural(n, "socket"))
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

/// Attaches the best program that the kernel takes.
fn attach(first: BorrowedFd<'_>, spread: &mut Spread, best: Steering, selected: &[u32]) -> io::Result<Steering> {
    let sockets = spread.selection.sockets();
    if best == Steering::Turns {
        let turns = match spread.turns.take() {
            Some(turns) => Ok(turns),
            None => Turns::new(sockets),
        };
        let attached = turns.and_then(|mut turns| turns.attach(first, selected, sockets).map(|()| turns));
        match attached {
            Ok(turns) => {
                spread.turns = Some(turns);
                return Ok(Steering::Turns);
            }
            Err(e) => log::debug!("the kernel took no program that goes by turns: {e}"),
        }
    }
    if best == Steering::Hash {
        return Ok(Steering::Hash);
    }
    let Some(program) = steering::by_chance(selected) else { return Ok(Steering::Random) };
    reuseport::attach_classic(first, &program).map(|()| Steering::Random)
}
