//! Processes of workers, agents and commands before workers: prepares spawns, sends signals, and cleans up after processes that are gone. The
//! keeper spawns and reaps them.
use super::app::App;
use super::bind::{self, Intercepted};
use super::context::Context;
use super::drains::{Drains, Goodbye};
use super::hooks::HookRuns;
use super::kernel_mode::deferral;
use super::kernel_mode::groups::Groups;
use super::listener::Listener;
use super::liveness::Liveness;
use super::moves::{self, Kept};
use super::notify_sockets::NotifySockets;
use super::output::{Output, Way};
use super::recovery::{Tag, beside_tag_bytes};
use super::relay::{Custom, Receiver, app_metrics};
use super::settings::{Settings, SpawnPlace};
use super::spawn_error::{SpawnError, obstacle};
use super::system::System;
use super::tasks::Task;
use super::unread::Intake;
use super::worker::Worker;
use super::{addresses, cgroups, channels, checkpoint, dispatch, eligibility, listener, requests, stdin};
use crate::ids::{AppIx, Generation, ListenerIx, Slot, WorkerId, WorkerIx};
use crate::keeper::protocol::{Order, SpawnStep};
use crate::limits;
use crate::os::{process, signal};
use crate::supervisor::{Event, ExitStatus, Obstacle, Phase};
use crate::worker::node::channel::Channel;
use crate::worker::{Inherited, listen_fds};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The name in the keeper of our end of a worker's channel.
pub(super) fn channel_name(worker: WorkerId) -> String {
    format!("channel/{worker}")
}

/// What a process gets in addition to its standard fds.
#[derive(Default)]
struct Passed {
    fds: Vec<OwnedFd>,
    /// Our end of its channel.
    channel: Option<OwnedFd>,
    /// Names of the listening sockets among the fds.
    listen_names: Vec<String>,
}

impl Passed {
    fn prepare(
        system: &impl System,
        app: &App,
        inherited: Inherited,
        given: &[ListenerIx],
        number: u32,
    ) -> Result<Passed, SpawnError> {
        let mut passed = Passed::default();
        match inherited {
            Inherited::Channel => {
                let (ours, theirs) = system.socket_pair().map_err(SpawnError::Channel)?;
                passed.fds.push(theirs);
                passed.channel = Some(ours);
            }
            Inherited::Listeners => {
                for listener in given.iter().filter_map(|ix| app.listeners.get(*ix)) {
                    let copy = listener.socket_of(number).try_clone_to_owned();
                    let fd = copy.map_err(|error| SpawnError::Listener { listener: listener.to_string(), error })?;
                    passed.fds.push(fd);
                    passed.listen_names.push(listen_fds::escape_name(&listener.to_string()));
                }
            }
            Inherited::Nothing => {}
        }
        Ok(passed)
    }
}

/// A process as the tables record it.
pub(super) struct Process {
    pub(super) app: AppIx,
    pub(super) id: WorkerId,
    pub(super) slot: Slot,
    pub(super) generation: Generation,
    pub(super) pid: Option<i32>,
    /// The number of its socket in reuseport groups.
    pub(super) socket_number: u32,
}

/// Starts processes. It borrows the mechanisms that provide what a process needs.
pub(super) struct Spawner<'a, S: System> {
    pub(super) cx: &'a mut Context<S>,
    pub(super) groups: &'a mut Groups,
    pub(super) output: &'a mut Output,
    pub(super) hooks: &'a mut HookRuns,
    pub(super) notify: &'a mut NotifySockets,
}

impl<S: System> Spawner<'_, S> {
    /// Has the keeper start a worker, or a process beside the workers.
    ///
    /// # Errors
    /// Something that the process needs is not available.
    pub(super) fn start(
        &mut self,
        app_ix: AppIx,
        worker: WorkerId,
        slot: Slot,
        generation: Generation,
    ) -> Result<(), SpawnError> {
        let cx = &mut *self.cx;
        let app = &cx.apps[app_ix];
        let settings = app.generations.get(&generation).unwrap_or_else(|| app.settings()).clone();
        // What is beside the workers serves nothing.
        let is_beside = slot.is_beside();
        let given = if is_beside { Vec::new() } else { addresses::of_generation(app, &settings) };
        if settings.protocol.inherited() == Inherited::Listeners {
            given.iter().for_each(|&listener| listener::begin_listening(cx, app_ix, listener));
        }
        let wanted = wanted_socket(&settings);
        let chooses = !is_beside && settings.has_own_sockets() && wanted != WantedSocket::OfTheSlot;
        let socket_number = if chooses { choose_socket(cx, app_ix, slot, wanted) } else { slot.0 };
        if settings.has_own_sockets() {
            for &listener in &given {
                self.groups.give_slot_a_socket(cx, app_ix, listener, socket_number);
            }
        }
        let (inherited, speaks) = match slot {
            Slot::AGENT => (settings.agent_inherits(), settings.agent_inherits() == Inherited::Nothing),
            Slot::BEFORE => (Inherited::Nothing, false),
            Slot(_) => (settings.protocol.inherited(), settings.protocol.has_notify_socket()),
        };
        let notify = if speaks { self.notify.address_for(cx, &settings) } else { None };
        let preload = if is_beside { None } else { preload_for(cx, &settings) };
        let metrics = if is_beside { None } else { app_metrics::folder_for(cx, app_ix, &settings, generation) };
        let app = &cx.apps[app_ix];
        // Whoever requested a reload, a replacement or a start wants to see why it failed, unless the terminal shows it anyway.
        let watched = app.supervisor.is_replacing() || (app.starting && cx.deployment.background);
        let tail = watched && !cx.deployment.on_terminal;
        let heard = !is_beside && (settings.leaves_hang_reports() || settings.compares_canary());
        let way = Way { config: &settings.config, slot, generation, tail, heard };
        let output = self.output.for_worker(&cx.system, &mut cx.keeper, worker, &way).map_err(SpawnError::Output)?;
        let (mut stdio, mut fds): (Vec<i32>, Vec<OwnedFd>) = output.into_iter().unzip();
        let mut input = None;
        if settings.config.stdin && !is_beside {
            let (theirs, ours) = stdin::for_worker(cx, worker).map_err(SpawnError::Stdin)?;
            stdio.push(0);
            fds.push(theirs);
            input = Some(ours);
        }
        let Passed { fds: passed, channel, listen_names } =
            Passed::prepare(&cx.system, &cx.apps[app_ix], inherited, &given, socket_number)?;
        fds.extend(passed);
        let intercepted = if !is_beside && settings.protocol.intercepts() {
            let (ours, theirs) = cx.system.socket_pair().map_err(SpawnError::Channel)?;
            fds.push(theirs);
            Some(ours)
        } else {
            None
        };
        let place = SpawnPlace {
            number: cx.apps[app_ix].spawned + 1,
            slot,
            generation: generation.0,
            port: addresses::port(&cx.apps[app_ix], &settings),
            listen_names,
            notify: notify.as_deref(),
            preload: preload.as_deref(),
            metrics: metrics.as_deref(),
            stdio,
        };
        let name = &cx.apps[app_ix].name;
        let tag = || beside_tag_bytes(slot, name, generation);
        let spec = match slot {
            Slot::AGENT => settings.agent_spec(&place, tag()).ok_or(SpawnError::NoAgent)?,
            Slot::BEFORE => settings.before_spec(&place, tag()).ok_or(SpawnError::NoBefore)?,
            Slot(_) => {
                let tag = Tag { app: name.clone(), slot, generation, socket: chooses.then_some(socket_number) };
                settings.spawn_spec(&place, tag.to_bytes())
            }
        };
        if !is_beside {
            cx.apps[app_ix].spawned += 1;
            checkpoint::save_app(cx, app_ix);
        }
        if let Some(ours) = &channel {
            cx.keeper.hold(channel_name(worker), ours.as_fd());
        }
        if let Some(ours) = &intercepted {
            cx.keeper.hold(bind::held_name(worker), ours.as_fd());
        }
        cgroups::limit(cx, app_ix, settings.group_limits());
        let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        cx.keeper.spawn(worker, &spec, &borrowed).map_err(SpawnError::Order)?;
        let (has_channel, is_intercepted) = (channel.is_some(), intercepted.is_some());
        let process = Process { app: app_ix, id: worker, slot, generation, pid: None, socket_number };
        let ix = add_worker(cx, self.hooks, process, channel.map(|fd| (fd, false)));
        if let Some(worker) = cx.workers.get_mut(ix) {
            worker.intercepted = intercepted.map(|held| Intercepted::new(&cx.system, held));
            worker.stdin = input;
        }
        if !has_channel && !is_beside && !is_intercepted && settings.has_own_sockets() {
            // A Node worker requests its listeners later; other programs have them from the start.
            given.into_iter().for_each(|listener| requests::join(cx, ix, listener));
            checkpoint::save_serves(cx, ix);
        }
        Ok(())
    }
}

/// The file of the preload for workers with these settings, if they load it.
fn preload_for(cx: &mut Context<impl System>, settings: &Settings) -> Option<String> {
    if !settings.config.preload || !settings.protocol.has_preload() {
        return None;
    }
    let found = cx.system.preload_file(settings.uid(), cx.deployment.home.as_ref());
    if let Err(e) = &found
        && !std::mem::replace(&mut cx.deployment.told_no_preload, true)
    {
        log::warn!(
            "{}: cannot write the preload script: {e}; workers that leave close idle connections instead of moving them",
            settings.config.name
        );
    }
    found.ok()
}

/// Which socket of a group the next worker of a slot gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WantedSocket {
    /// That of its slot, which the old worker may have too: clusterd hands on what waits there.
    OfTheSlot,
    /// One that no living worker has, the one in which most waits: nobody else can take that.
    WithMost,
    /// One that no living worker has, and in which least waits: the worker is to get no connections before it is warm.
    WithLeast,
}

fn wanted_socket(settings: &Settings) -> WantedSocket {
    match settings.protocol.inherited() {
        Inherited::Listeners => WantedSocket::WithMost,
        _ if settings.config.warm_up.is_some() => WantedSocket::WithLeast,
        _ => WantedSocket::OfTheSlot,
    }
}

/// The number of a socket that no living worker has, for the next worker of a slot; where several are as good, the last one of its
/// slot.
fn choose_socket(cx: &mut Context<impl System>, app_ix: AppIx, slot: Slot, wanted: WantedSocket) -> u32 {
    let app = &cx.apps[app_ix];
    // One that failed before it served, and is about to end, takes nothing more: what waits for it is the next worker's.
    let has_failed = |w: &Worker<_>| {
        let phase = app.supervisor.worker(w.id).map(|view| view.phase);
        let is_new = !w.admitted && w.drain.is_none();
        is_new && matches!(phase, Some(Phase::Stopping { .. } | Phase::Killed))
    };
    let living = cx.workers.iter().filter(|(_, w)| w.app == app_ix && !w.is_beside && !w.ended && !has_failed(w));
    let taken: BTreeSet<u32> = living.map(|(_, worker)| worker.socket_number).collect();
    let last = app.last_sockets.get(&slot.0).copied();
    let groups = || app.listeners.iter().filter(|listener| listener.reuseport.is_some() && !listener.datagram);
    let waiting = |number: u32| -> i64 {
        let mut those = groups().filter(|listener| number < listener.socket_count());
        let count: i64 =
            those.by_ref().map(|listener| i64::from(cx.system.accept_queue(listener.socket(number)).waiting)).sum();
        if wanted == WantedSocket::WithLeast { -count } else { count }
    };
    let made = groups().map(Listener::socket_count).max().unwrap_or(0).max(taken.len() as u32 + 1);
    let free = (0..made.min(limits::GROUP_SOCKETS_MAX)).filter(|number| !taken.contains(number));
    let chosen = free.max_by_key(|number| (waiting(*number), Some(*number) == last, std::cmp::Reverse(*number)));
    let chosen = chosen.unwrap_or(slot.0);
    cx.apps[app_ix].last_sockets.insert(slot.0, chosen);
    chosen
}

/// The environment of a worker in this slot of an app.
pub(super) fn worker_environment(cx: &Context<impl System>, app_ix: AppIx, slot: Slot) -> BTreeMap<OsString, OsString> {
    let app = &cx.apps[app_ix];
    let place = SpawnPlace {
        number: app.spawned,
        slot,
        generation: app.supervisor.generation().0,
        port: app.port(),
        listen_names: Vec::new(),
        notify: None,
        preload: None,
        metrics: None,
        stdio: Vec::new(),
    };
    app.settings().environment(&place)
}

/// The environment of an app's agent; `None` if it has none.
pub(super) fn agent_environment(
    cx: &Context<impl System>,
    notify: &NotifySockets,
    app_ix: AppIx,
) -> Option<BTreeMap<OsString, OsString>> {
    let app = &cx.apps[app_ix];
    app.settings().agent.as_ref()?;
    let slot = app.supervisor.agent();
    let place = SpawnPlace {
        number: 0,
        slot: Slot::AGENT,
        generation: slot.map_or(app.supervisor.generation(), |slot| slot.generation).0,
        port: app.port(),
        listen_names: Vec::new(),
        notify: notify.address_of(app.settings().uid()),
        preload: None,
        metrics: None,
        stdio: Vec::new(),
    };
    Some(app.settings().agent_environment(&place))
}

/// Adds a worker to the tables, with its channel if it has one (and whether a previous master has read from that).
pub(super) fn add_worker(
    cx: &mut Context<impl System>,
    hooks: &mut HookRuns,
    process: Process,
    channel: Option<(OwnedFd, bool)>,
) -> WorkerIx {
    let Process { app, id, slot, generation, pid, socket_number } = process;
    let is_beside = slot.is_beside();
    if !is_beside {
        hooks.register(id, generation);
    }
    let settings = cx.apps[app].generations.get(&generation);
    let own_socket = !is_beside && settings.is_some_and(Settings::has_own_sockets);
    // A worker says so when it starts, which a previous master has heard.
    let loads = |s: &Settings| s.config.preload && s.protocol.has_preload();
    let has_preload = !is_beside && pid.is_some() && settings.is_some_and(loads);
    let channel = channel.map(|(fd, resumed)| Channel::new(cx.system.channel(fd), resumed));
    let has_channel = channel.is_some();
    let ix = cx.workers.insert(Worker {
        id,
        app,
        slot: slot.0,
        generation,
        is_beside,
        pid,
        channel,
        member: None,
        serves: BTreeSet::new(),
        client_first: BTreeSet::new(),
        unnoted: false,
        present: BTreeSet::new(),
        own_socket,
        socket_number,
        takes: BTreeSet::new(),
        ended: false,
        admitted: false,
        drain: None,
        is_last: false,
        goodbye: Goodbye::Unsaid,
        has_preload,
        takes_upgraded: false,
        untouched: Vec::new(),
        // Of one that a previous master has started, nothing is known.
        kept: if pid.is_none() { Kept::NONE } else { Kept::default() },
        severed_ms: None,
        taken: 0,
        refused: 0,
        taken_before: 0,
        liveness: Liveness::default(),
        stdin: None,
        status_text: None,
        receiver: Receiver::default(),
        custom: Custom::default(),
        intake: Intake::default(),
        intercepted: None,
        http_probe: None,
        probed: None,
    });
    if is_beside {
        if let Some(channel) = cx.workers.get(ix).and_then(|w| w.channel.as_ref()) {
            cx.reactor.add_channel(ix, channel.as_fd());
        }
    } else if has_channel {
        let app = &mut cx.apps[app];
        let member = app.balancer.add_member(slot.0);
        let place = member.0 as usize;
        if app.by_member.len() <= place {
            app.by_member.resize(place + 1, ix);
        }
        app.by_member[place] = ix;
        if let Some(worker) = cx.workers.get_mut(ix) {
            worker.member = Some(member);
            if let Some(channel) = &worker.channel {
                cx.reactor.add_channel(ix, channel.as_fd());
            }
        }
        eligibility::refresh(cx, ix);
    }
    ix
}

/// The socket of a worker on this listener: its slot's own, or the shared one.
pub(super) fn socket_for<'a, S: System>(
    cx: &'a Context<S>,
    worker: &Worker<S>,
    listener: ListenerIx,
) -> BorrowedFd<'a> {
    let listener = &cx.apps[worker.app].listeners[listener];
    if worker.own_socket { listener.socket_of(worker.socket_number) } else { listener.fd.as_fd() }
}

/// The worker serves the sockets that it inherited, as far as anybody can know.
pub(super) fn serve_inherited(cx: &mut Context<impl System>, ix: WorkerIx) {
    let Some(worker) = cx.workers.get(ix) else { return };
    let app = &cx.apps[worker.app];
    let settings = app.generations.get(&worker.generation).unwrap_or_else(|| app.settings());
    addresses::of_generation(app, settings).into_iter().for_each(|listener| requests::join(cx, ix, listener));
    checkpoint::save_serves(cx, ix);
}

/// Admits the worker: it may get connections.
pub(super) fn serve(cx: &mut Context<impl System>, worker: WorkerId) {
    let Some(ix) = cx.workers.find(worker) else { return };
    if let Some(worker) = cx.workers.get_mut(ix) {
        worker.admitted = true;
    }
    // Ready by a rule of its own, and never seen to listen: it serves what it inherited.
    if cx.workers.get(ix).is_some_and(|worker| worker.intercepted.is_some() && worker.serves.is_empty()) {
        serve_inherited(cx, ix);
    }
    eligibility::refresh(cx, ix);
    moves::worker_is_ready(cx, ix);
}

/// Asks a worker, or a process beside the workers, to end, and gives it no more connections.
pub(super) fn terminate(cx: &mut Context<impl System>, worker: WorkerId) {
    let of_app = |worker: &Worker<_>| {
        let app = &cx.apps[worker.app];
        app.generations.get(&worker.generation).unwrap_or_else(|| app.settings()).stop_signal()
    };
    let found = cx.workers.find(worker).and_then(|ix| cx.workers.get(ix)).filter(|worker| !worker.is_beside);
    let signal = found.map_or(signal::TERM, of_app);
    cx.keeper.signal(worker, signal);
    withdraw(cx, worker);
}

/// Gives the worker no more connections, whatever makes it end.
pub(super) fn withdraw(cx: &mut Context<impl System>, worker: WorkerId) {
    if let Some(ix) = cx.workers.find(worker) {
        if let Some(w) = cx.workers.get_mut(ix) {
            w.admitted = false;
        }
        eligibility::refresh(cx, ix);
    }
}

/// Kills the worker's process group.
pub(super) fn kill(cx: &mut Context<impl System>, worker: WorkerId) {
    cx.keeper.signal_group(worker, signal::KILL);
    withdraw(cx, worker);
}

pub(super) fn on_spawned(cx: &mut Context<impl System>, output: &mut Output, id: WorkerId, pid: i32) {
    let Some(ix) = cx.workers.find(id) else { return };
    cx.workers.set_pid(ix, pid);
    let Some(worker) = cx.workers.get(ix) else { return };
    let (app_ix, generation) = (worker.app, worker.generation);
    let app = &cx.apps[app_ix];
    let settings = app.generations.get(&generation).unwrap_or_else(|| app.settings());
    output.files.spawned(id, pid, app_ix, settings);
    cx.events.push_back((app_ix, Event::Spawned { worker: id, pid }));
    if may_accept(cx, ix) {
        cx.push_news(app_ix, Event::ServersOpen { worker: id });
    }
}

/// Whether the worker has had its listening sockets since its program runs: it may accept before anybody can see that.
pub(super) fn may_accept(cx: &Context<impl System>, ix: WorkerIx) -> bool {
    let Some(worker) = cx.workers.get(ix).filter(|worker| !worker.is_beside && worker.pid.is_some()) else {
        return false;
    };
    let app = &cx.apps[worker.app];
    let settings = app.generations.get(&worker.generation).unwrap_or_else(|| app.settings());
    settings.protocol.inherited() == Inherited::Listeners && !addresses::of_generation(app, settings).is_empty()
}

/// Why the keeper could not start a process, its app, and whether that may pass; `None` if the worker is no longer known.
pub(super) fn failure(
    cx: &Context<impl System>,
    id: WorkerId,
    step: SpawnStep,
    errno: i32,
) -> Option<(AppIx, SpawnError, Obstacle)> {
    let worker = cx.workers.find(id).and_then(|ix| cx.workers.get(ix))?;
    let app = &cx.apps[worker.app];
    let settings = app.generations.get(&worker.generation).unwrap_or_else(|| app.settings());
    let error = SpawnError::at_step(&cx.system, (step, errno), settings, Slot(worker.slot));
    Some((worker.app, error, obstacle(step, errno)))
}

pub(super) fn exit_status(raw_status: i32, out_of_memory: bool) -> ExitStatus {
    if out_of_memory {
        return ExitStatus::OutOfMemory;
    }
    match process::end_signal(raw_status) {
        Some(signal) => ExitStatus::Signal(signal),
        None => ExitStatus::Code(process::exit_code(raw_status).unwrap_or(-1)),
    }
}

/// Keeps the last lines of a worker whose end makes a start fail: they are reported once its replacement runs.
pub(super) fn keep_last_words(cx: &mut Context<impl System>, output: &mut Output, app: AppIx, id: WorkerId) {
    // That of the command before the workers was taken when it failed.
    let worker = cx.workers.find(id).and_then(|ix| cx.workers.get(ix));
    let is_before = worker.is_some_and(|worker| Slot(worker.slot) == Slot::BEFORE);
    let app = &mut cx.apps[app];
    if !is_before && app.starting && app.start_failure.is_none() && app.last_words.is_none() {
        app.last_words = output.take_tail(id);
    }
}

/// Releases everything that belonged to a process that is gone.
pub(super) fn remove(cx: &mut Context<impl System>, drains: &mut Drains, output: &mut Output, id: WorkerId) {
    if let Some(ix) = cx.workers.find(id) {
        channels::forget_poll(cx, ix);
        withdraw(cx, id);
        dispatch::take_back(cx, ix);
        drains.remove(ix);
        if let Some(worker) = cx.workers.remove(ix) {
            // Multicast groups that it joined belong to the socket: its replacement could not join them again.
            let listeners = &cx.apps[worker.app].listeners;
            let datagrams = worker.serves.iter().copied().filter(|n| listeners[*n].datagram);
            cx.tasks.extend(datagrams.map(|listener| Task::ListenerUnserved { app: worker.app, listener }));
            for listener in worker.serves.iter().filter(|_| worker.own_socket) {
                deferral::refresh(cx, worker.app, *listener, worker.socket_number);
            }
            worker.channel.into_iter().flat_map(Channel::into_fds).for_each(|fd| cx.system.close(fd));
            moves::rescue(cx, worker.app, id, worker.untouched);
        }
    }
    // Whether the spawn got that far or not.
    for name in [channel_name(id), stdin::held_name(id), bind::held_name(id)] {
        cx.keeper.send(Order::Release { name });
    }
    output.release(&mut cx.keeper, id);
    checkpoint::forget_serves(cx, id);
}
