//! Drains, step by step: wait for the open hand-offs, say goodbye, and watch from outside until the worker holds no
//! connection that came through us. The deadlines are the supervisor's.
use super::context::Context;
use super::eligibility;
use super::tasks::Task;
use super::timers::Timer;
use super::worker::Worker;
use crate::config::Listen;
use crate::ids::{AppIx, Generation, ListenerIx, WorkerId, WorkerIx};
use crate::os::clock;
use crate::os::procfs::{self, ConnectionTable};
use crate::supervisor::Event;
use crate::worker::Farewell;
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// Time that a draining worker which has closed its channel has to end by itself before its sockets are looked at, in
/// milliseconds.
const DRAIN_OWN_END_MS: u64 = 200;

/// First pause between two looks at the connections of draining workers, in milliseconds. It doubles.
const DRAIN_CHECK_MIN_MS: u64 = 10;

/// Longest pause between two looks at the connections of draining workers, in milliseconds.
const DRAIN_CHECK_MAX_MS: u64 = 500;

/// Pause after such a look, as a multiple of the time that it took, so that the loop spends little of its time on them.
const DRAIN_CHECK_REST_FACTOR: u64 = 20;

/// Longest such pause, in milliseconds: on a machine without CPU to spare everything seems to take long.
const DRAIN_CHECK_REST_MAX_MS: u64 = 1_000;

/// A look at whether an app has clients counts at least so long, in milliseconds: many workers may begin to drain at once.
const CLIENTS_SEEN_MIN_MS: u64 = 50;

/// How far a worker's drain has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drain {
    /// Hand-offs are still to be answered.
    WaitingForAnswers,
    /// It accepts by itself, until nothing waits for it any more.
    EmptyingQueue,
    /// Goodbye was said; it finishes its connections.
    Finishing,
}

/// Whether a Node worker knows that it is to leave. It may be told once: a second `disconnect` makes Node throw in a
/// worker that still has connections to finish.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Goodbye {
    /// Nobody said anything.
    #[default]
    Unsaid,
    /// It was told, or told us.
    Said,
    /// The master before saved that it would tell it, and may have died before it did.
    SaidBefore,
}

/// The workers that drain, and when they are looked at.
#[derive(Default)]
pub(super) struct Drains {
    draining: BTreeSet<WorkerIx>,
    /// The pause before the next look at what those hold that finish, in milliseconds.
    pause_ms: u64,
    /// Whether an app had connections at the last look, and until when (milliseconds) that counts.
    clients_seen: BTreeMap<AppIx, (bool, u64)>,
}

impl Drains {
    /// The worker is gone.
    pub(super) fn remove(&mut self, ix: WorkerIx) {
        self.draining.remove(&ix);
    }

    /// The supervisor sends a worker into its drain.
    pub(super) fn begin(&mut self, cx: &mut Context, ix: WorkerIx) {
        self.report_clients(cx, ix);
        let Some(worker) = cx.workers.get_mut(ix) else { return };
        if worker.drain.is_none() {
            worker.drain = Some(Drain::WaitingForAnswers);
            self.draining.insert(ix);
        }
        eligibility::refresh(cx, ix);
        self.step(cx, ix);
    }

    /// In a reload the next slot waits for clients that come back.
    fn report_clients(&mut self, cx: &mut Context, ix: WorkerIx) {
        let Some(worker) = cx.workers.get(ix) else { return };
        let (app, id, drains) = (worker.app, worker.id, worker.drain.is_some());
        if !drains && cx.apps[app].supervisor.is_reloading() && self.has_clients(cx, app) {
            cx.events.push_back((app, Event::HasClients { worker: id }));
        }
    }

    /// Whether anybody has a connection of this app. Whose they are does not matter: that would take a look at every fd of
    /// every worker. A look takes time with the sockets of the machine, so it counts for all drains that begin soon after.
    fn has_clients(&mut self, cx: &Context, app_ix: AppIx) -> bool {
        let app = &cx.apps[app_ix];
        if app.balancer.total_open() > 0 {
            return true;
        }
        let began_ms = clock::monotonic_ms();
        if let Some(&(any, until_ms)) = self.clients_seen.get(&app_ix)
            && began_ms < until_ms
        {
            return any;
        }
        let (ports, paths) = app.ports_and_paths();
        let any = procfs::has_connections(&ports, &paths);
        let ended_ms = clock::monotonic_ms();
        let counts_ms = (ended_ms.saturating_sub(began_ms) * DRAIN_CHECK_REST_FACTOR)
            .clamp(CLIENTS_SEEN_MIN_MS, DRAIN_CHECK_REST_MAX_MS);
        self.clients_seen.insert(app_ix, (any, ended_ms + counts_ms));
        any
    }

    /// Takes the next step, if the worker has come so far.
    pub(super) fn step(&mut self, cx: &mut Context, ix: WorkerIx) {
        let Some(worker) = cx.workers.get_mut(ix) else { return };
        if !matches!(worker.drain, Some(Drain::WaitingForAnswers | Drain::EmptyingQueue)) {
            return;
        }
        let app = &cx.apps[worker.app];
        let gone = worker.channel.as_ref().is_none_or(|c| c.closed);
        let open = worker.member.map_or(0, |member| app.balancer.open_count(member));
        if open > 0 && !gone {
            return;
        }
        let farewell = app.generations.get(&worker.generation).map_or(Farewell::Signal, |s| s.protocol.farewell());
        let first = worker.drain == Some(Drain::WaitingForAnswers);
        if first && farewell == Farewell::Signal && worker.own_socket && !worker.serves.is_empty() && !app.closed {
            // What waits in its own queue nobody else could take.
            worker.drain = Some(Drain::EmptyingQueue);
            cx.tasks.push_back(Task::AwaitEmptyQueue(ix));
            return;
        }
        worker.drain = Some(Drain::Finishing);
        match farewell {
            Farewell::Message if !gone && worker.goodbye == Goodbye::Unsaid => {
                cx.tasks.push_back(Task::SayGoodbye(worker.id));
            }
            Farewell::Message => {}
            Farewell::Signal => cx.tasks.push_back(Task::Terminate(worker.id)),
        }
        cx.timers.set(Timer::DrainCheck, cx.now_ms + DRAIN_CHECK_MIN_MS);
        self.pause_ms = DRAIN_CHECK_MIN_MS;
    }

    /// Looks at the sockets of all Node workers that have closed their channel in a drain; those that hold no
    /// connection of ours are done, whatever else keeps their event loop alive.
    pub(super) fn check(&mut self, cx: &mut Context) {
        if !cx.timers.take_due(Timer::DrainCheck, cx.now_ms) {
            return;
        }
        let draining = || self.draining.iter().filter_map(|ix| Some((*ix, cx.workers.get(*ix)?)));
        let finishing: Vec<(WorkerIx, i32)> = draining()
            .filter(|(_, w)| w.drain == Some(Drain::Finishing))
            .filter(|(_, w)| {
                // A worker that has just closed its channel is about to end by itself.
                w.goodbye == Goodbye::SaidBefore || w.severed_ms.is_some_and(|at| at + DRAIN_OWN_END_MS <= cx.now_ms)
            })
            .filter_map(|(ix, w)| Some((ix, w.pid?)))
            .collect();
        let next_ms = draining().any(|(_, w)| w.channel.is_some()).then(|| {
            // Look often at first, then rarely: most drains are over in moments, some take minutes.
            self.pause_ms = (self.pause_ms * 2).min(DRAIN_CHECK_MAX_MS);
            cx.now_ms + self.pause_ms
        });
        cx.timers.set_or_cancel(Timer::DrainCheck, next_ms);
        if finishing.is_empty() {
            return;
        }
        // Workers that hold no socket at all, which is most, need no list of connections.
        let mut unclear = Vec::new();
        for (ix, pid) in finishing {
            let Some(worker) = cx.workers.get(ix) else { continue };
            let Some(held) = procfs::socket_inodes(pid) else { continue };
            if held.is_empty() {
                cx.events.push_back((worker.app, Event::Drained { worker: worker.id }));
            } else {
                unclear.push((worker.app, worker.id, held));
            }
        }
        report_drained(cx, &unclear);
        // Both take time with the number of connections, and nobody is served meanwhile.
        let took_ms = clock::monotonic_ms().saturating_sub(cx.now_ms);
        let rest_ms = (took_ms * DRAIN_CHECK_REST_FACTOR).min(DRAIN_CHECK_REST_MAX_MS);
        cx.timers.set_or_cancel(Timer::DrainCheck, next_ms.map(|at| at.max(cx.now_ms + took_ms + rest_ms)));
    }
}

/// Those of these workers that hold no connection that came through us are done.
fn report_drained(cx: &mut Context, unclear: &[(AppIx, WorkerId, HashSet<u64>)]) {
    let apps: BTreeSet<AppIx> = unclear.iter().map(|(app, ..)| *app).collect();
    let places: BTreeMap<AppIx, _> = apps.into_iter().map(|app| (app, cx.apps[app].ports_and_paths())).collect();
    let ports: BTreeSet<u16> = places.values().flat_map(|(ports, _)| ports.iter().copied()).collect();
    let paths: Vec<String> = places.values().flat_map(|(_, paths)| paths.iter().cloned()).collect();
    let ports: Vec<u16> = ports.into_iter().collect();
    let Some(table) = ConnectionTable::read(&ports, &paths) else { return };
    for (app, worker, held) in unclear {
        let (ports, paths) = &places[app];
        if table.count(held, ports, paths) == 0 {
            cx.events.push_back((*app, Event::Drained { worker: *worker }));
        }
    }
}

/// The listeners that nobody serves once this worker leaves, and whose address is in no slot's configuration any more:
/// what waits there is for this worker, and nobody gets in after it.
pub(super) fn listeners_left_by(cx: &Context, ix: WorkerIx) -> Vec<(AppIx, ListenerIx)> {
    let Some(worker) = cx.workers.get(ix) else { return Vec::new() };
    let app_ix = worker.app;
    let app = &cx.apps[app_ix];
    // Only Node workers can be given what waits.
    if app.closed || worker.drain.is_some() || worker.channel.is_none() {
        return Vec::new();
    }
    // One or two, however many slots there are.
    let generations: BTreeSet<Generation> = app.supervisor.slots().map(|slot| slot.generation).collect();
    let wanted = |address: &Listen| {
        let mut settings = generations.iter().filter_map(|g| app.generations.get(g));
        settings.any(|s| s.config.listen.contains(address))
    };
    let others = |listener: ListenerIx| {
        let serving = |w: &Worker| w.app == app_ix && w.drain.is_none() && w.serves.contains(&listener);
        cx.workers.iter().any(|(other, w)| other != ix && serving(w))
    };
    let left = worker
        .serves
        .iter()
        .copied()
        .filter(|&n| app.listeners[n].configured.as_ref().is_some_and(|address| !wanted(address)))
        .filter(|&n| !others(n));
    left.map(|listener| (app_ix, listener)).collect()
}
