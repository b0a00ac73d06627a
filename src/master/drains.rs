//! Drains, step by step: wait for open hand-offs, say goodbye, and watch from outside until the worker holds no
//! connection that came through us. The supervisor sets the deadlines.
use super::addresses;
use super::context::Context;
use super::eligibility;
use super::system::System;
use super::tasks::Task;
use super::timers::Timer;
use super::worker::Worker;
use crate::ids::{AppIx, Generation, ListenerIx, WorkerId, WorkerIx};
use crate::supervisor::Event;
use crate::worker::Farewell;
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// How long a draining worker may take to exit after it closed its channel, before its sockets are checked, in
/// milliseconds.
const DRAIN_OWN_END_MS: u64 = 200;

/// First pause between two checks of the connections of draining workers, in milliseconds. It doubles.
const DRAIN_CHECK_MIN_MS: u64 = 10;

/// Longest pause between two checks of the connections of draining workers, in milliseconds.
const DRAIN_CHECK_MAX_MS: u64 = 500;

/// Pause after a check, as a multiple of its duration, so that the loop spends little time on checks.
const DRAIN_CHECK_REST_FACTOR: u64 = 20;

/// Longest pause of that kind, in milliseconds: with little CPU to spare, every check seems to take long.
const DRAIN_CHECK_REST_MAX_MS: u64 = 1_000;

/// How long a check for clients of an app stays valid at least, in milliseconds: many workers may begin to drain at
/// once.
const CLIENTS_SEEN_MIN_MS: u64 = 50;

/// The stage of a worker's drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drain {
    /// Open hand-offs are still to be answered.
    WaitingForAnswers,
    /// The worker accepts by itself, until its queue is empty.
    EmptyingQueue,
    /// It gets nothing new. Whoever keeps connections to it may learn of that until this time (milliseconds).
    Delaying { until_ms: u64 },
    /// Goodbye was sent; the worker finishes its connections.
    Finishing,
}

/// Whether a Node worker knows that it has to leave. It must be told only once: a second `disconnect` makes Node throw
/// in a worker that still has connections to finish.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Goodbye {
    #[default]
    Unsaid,
    /// The worker was told, or told us.
    Said,
    /// The previous master saved that it was about to tell the worker, and may have died before it did.
    SaidBefore,
}

/// The draining workers, and when they are checked.
#[derive(Default)]
pub(super) struct Drains {
    draining: BTreeSet<WorkerIx>,
    /// The pause before the next check of finishing workers, in milliseconds.
    pause_ms: u64,
    /// Whether an app had connections at the last check, and until when (milliseconds) that result is valid.
    clients_seen: BTreeMap<AppIx, (bool, u64)>,
}

impl Drains {
    /// Removes a worker that has ended.
    pub(super) fn remove(&mut self, ix: WorkerIx) {
        self.draining.remove(&ix);
    }

    /// Begins the drain of a worker, on the supervisor's order.
    pub(super) fn begin(&mut self, cx: &mut Context<impl System>, ix: WorkerIx) {
        self.report_clients(cx, ix);
        let Some(worker) = cx.workers.get_mut(ix) else { return };
        if worker.drain.is_none() {
            worker.drain = Some(Drain::WaitingForAnswers);
            self.draining.insert(ix);
        }
        eligibility::refresh(cx, ix);
        self.step(cx, ix);
    }

    /// During a reload the next slot waits for clients to reconnect.
    fn report_clients(&mut self, cx: &mut Context<impl System>, ix: WorkerIx) {
        let Some(worker) = cx.workers.get(ix) else { return };
        let (app, id, drains) = (worker.app, worker.id, worker.drain.is_some());
        if !drains && cx.apps[app].supervisor.is_reloading() && self.has_clients(cx, app) {
            cx.events.push_back((app, Event::HasClients { worker: id }));
        }
    }

    /// Whether the app has any connection, whichever worker holds it: finding the holder would need every fd of every
    /// worker. The cost depends on all sockets of the machine, so the result is used for all drains that begin soon
    /// after.
    fn has_clients(&mut self, cx: &Context<impl System>, app_ix: AppIx) -> bool {
        let app = &cx.apps[app_ix];
        if app.balancer.total_open() > 0 {
            return true;
        }
        let began_ms = cx.system.now_us() / 1000;
        if let Some(&(any, until_ms)) = self.clients_seen.get(&app_ix)
            && began_ms < until_ms
        {
            return any;
        }
        let (ports, paths) = app.ports_and_paths();
        let any = cx.system.has_connections(&ports, &paths);
        let ended_ms = cx.system.now_us() / 1000;
        let counts_ms = (ended_ms.saturating_sub(began_ms) * DRAIN_CHECK_REST_FACTOR)
            .clamp(CLIENTS_SEEN_MIN_MS, DRAIN_CHECK_REST_MAX_MS);
        self.clients_seen.insert(app_ix, (any, ended_ms + counts_ms));
        any
    }

    /// Takes the next step of a drain, if its condition is met.
    pub(super) fn step(&mut self, cx: &mut Context<impl System>, ix: WorkerIx) {
        let Some(worker) = cx.workers.get_mut(ix) else { return };
        match worker.drain {
            Some(Drain::WaitingForAnswers | Drain::EmptyingQueue) => {}
            Some(Drain::Delaying { until_ms }) if until_ms <= cx.now_ms => {}
            Some(Drain::Delaying { .. } | Drain::Finishing) | None => return,
        }
        let app = &cx.apps[worker.app];
        let gone = worker.channel.as_ref().is_none_or(|c| c.closed);
        let open = worker.member.map_or(0, |member| app.balancer.open_count(member));
        if open > 0 && !gone {
            return;
        }
        let settings = app.generations.get(&worker.generation);
        let farewell = settings.map_or(Farewell::Signal, |s| s.protocol.farewell());
        // Before a stop it has passed already (`stop_delay`).
        let delay_ms = if app.closed { 0 } else { settings.map_or(0, |s| s.drain_delay_ms()) };
        let first = worker.drain == Some(Drain::WaitingForAnswers);
        if first && farewell == Farewell::Signal && worker.own_socket && !worker.serves.is_empty() && !app.closed {
            // No other worker could take the connections in its own queue.
            worker.drain = Some(Drain::EmptyingQueue);
            cx.tasks.push_back(Task::AwaitEmptyQueue(ix));
            return;
        }
        let is_delayed = matches!(worker.drain, Some(Drain::Delaying { .. }));
        if farewell == Farewell::Signal && delay_ms > 0 && !is_delayed {
            let until_ms = cx.now_ms + delay_ms;
            worker.drain = Some(Drain::Delaying { until_ms });
            return cx.timers.set_earlier(Timer::DrainDelay, until_ms);
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

    /// Steps drains whose delay is over.
    pub(super) fn end_delays(&mut self, cx: &mut Context<impl System>) {
        if !cx.timers.take_due(Timer::DrainDelay, cx.now_ms) {
            return;
        }
        let delays = self.draining.iter().filter_map(|&ix| match cx.workers.get(ix)?.drain? {
            Drain::Delaying { until_ms } => Some((until_ms, ix)),
            _ => None,
        });
        for (until_ms, ix) in delays.collect::<Vec<_>>() {
            if until_ms <= cx.now_ms {
                self.step(cx, ix);
            } else {
                cx.timers.set_earlier(Timer::DrainDelay, until_ms);
            }
        }
    }

    /// Checks the sockets of all Node workers that closed their channel during a drain. A worker without a connection
    /// of ours is done, whatever else keeps its event loop alive.
    pub(super) fn check(&mut self, cx: &mut Context<impl System>) {
        if !cx.timers.take_due(Timer::DrainCheck, cx.now_ms) {
            return;
        }
        let draining = || self.draining.iter().filter_map(|ix| Some((*ix, cx.workers.get(*ix)?)));
        let finishing: Vec<(WorkerIx, i32)> = draining()
            .filter(|(_, w)| w.drain == Some(Drain::Finishing))
            .filter(|(_, w)| {
                // A worker that just closed its channel is probably about to exit.
                w.goodbye == Goodbye::SaidBefore || w.severed_ms.is_some_and(|at| at + DRAIN_OWN_END_MS <= cx.now_ms)
            })
            .filter_map(|(ix, w)| Some((ix, w.pid?)))
            .collect();
        let next_ms = draining().any(|(_, w)| w.channel.is_some()).then(|| {
            // Check often at first, then rarely: most drains take moments, some take minutes.
            self.pause_ms = (self.pause_ms * 2).min(DRAIN_CHECK_MAX_MS);
            cx.now_ms + self.pause_ms
        });
        cx.timers.set_or_cancel(Timer::DrainCheck, next_ms);
        if finishing.is_empty() {
            return;
        }
        // Most workers hold no socket at all, and need no list of connections.
        let mut unclear = Vec::new();
        for (ix, pid) in finishing {
            let Some(worker) = cx.workers.get(ix) else { continue };
            let Some(held) = cx.system.socket_inodes(pid) else { continue };
            if held.is_empty() {
                cx.events.push_back((worker.app, Event::Drained { worker: worker.id }));
            } else {
                unclear.push((worker.app, worker.id, held));
            }
        }
        report_drained(cx, &unclear);
        // Both take time with the number of connections, and block the loop meanwhile.
        let took_ms = (cx.system.now_us() / 1000).saturating_sub(cx.now_ms);
        let rest_ms = (took_ms * DRAIN_CHECK_REST_FACTOR).min(DRAIN_CHECK_REST_MAX_MS);
        cx.timers.set_or_cancel(Timer::DrainCheck, next_ms.map(|at| at.max(cx.now_ms + took_ms + rest_ms)));
    }
}

/// Reports those of these workers that hold no connection of ours as drained.
fn report_drained(cx: &mut Context<impl System>, unclear: &[(AppIx, WorkerId, HashSet<u64>)]) {
    let apps: BTreeSet<AppIx> = unclear.iter().map(|(app, ..)| *app).collect();
    let places: BTreeMap<AppIx, _> = apps.into_iter().map(|app| (app, cx.apps[app].ports_and_paths())).collect();
    let ports: BTreeSet<u16> = places.values().flat_map(|(ports, _)| ports.iter().copied()).collect();
    let paths: Vec<String> = places.values().flat_map(|(_, paths)| paths.iter().cloned()).collect();
    let ports: Vec<u16> = ports.into_iter().collect();
    let Some(table) = cx.system.connections(&ports, &paths) else { return };
    for (app, worker, held) in unclear {
        let (ports, paths) = &places[app];
        if table.count(held, ports, paths) == 0 {
            cx.events.push_back((*app, Event::Drained { worker: *worker }));
        }
    }
}

/// Listeners that only this worker serves and whose address is no longer in any slot's configuration: what waits there
/// is for this worker, and no later worker will take it.
pub(super) fn listeners_left_by(cx: &Context<impl System>, ix: WorkerIx) -> Vec<(AppIx, ListenerIx)> {
    let Some(worker) = cx.workers.get(ix) else { return Vec::new() };
    let app_ix = worker.app;
    let app = &cx.apps[app_ix];
    // Only Node workers can be handed waiting connections.
    if app.closed || worker.drain.is_some() || worker.channel.is_none() {
        return Vec::new();
    }
    // One or two, whatever the number of slots.
    let generations: BTreeSet<Generation> = app.supervisor.slots().map(|slot| slot.generation).collect();
    let settings = generations.iter().filter_map(|generation| app.generations.get(generation));
    let wanted: BTreeSet<ListenerIx> = settings.flat_map(|settings| addresses::of_generation(app, settings)).collect();
    let others = |listener: ListenerIx| {
        let serving = |w: &Worker<_>| w.app == app_ix && w.drain.is_none() && w.serves.contains(&listener);
        cx.workers.iter().any(|(other, w)| other != ix && serving(w))
    };
    let left = worker
        .serves
        .iter()
        .copied()
        .filter(|n| app.listeners[*n].configured.is_some() && !wanted.contains(n))
        .filter(|&n| !others(n));
    left.map(|listener| (app_ix, listener)).collect()
}
