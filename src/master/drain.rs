//! A drain, step by step: wait for the open hand-offs, say goodbye, and watch from outside until the worker holds no
//! connection that came through us. The deadlines are the supervisor's.
use super::worker::{Drain, Goodbye, Worker};
use super::{Master, checkpoint};
use crate::config::Listen;
use crate::ids::{AppIx, Generation, ListenerIx, WorkerId, WorkerIx};
use crate::limits;
use crate::os::clock;
use crate::os::procfs::{self, ConnectionTable};
use crate::supervisor::Event;
use crate::worker::Farewell;
use crate::worker::node::lines;
use std::collections::{BTreeMap, BTreeSet, HashSet};

impl Master {
    /// The supervisor sends a worker into its drain.
    pub(super) fn begin_drain(&mut self, ix: WorkerIx) {
        self.close_left_addresses(ix);
        self.tell_of_clients(ix);
        let Some(worker) = self.cx.workers.get_mut(ix) else { return };
        if worker.drain.is_none() {
            worker.drain = Some(Drain::WaitingForAnswers);
            self.draining.insert(ix);
        }
        self.refresh_eligibility(ix);
        self.drain_step(ix);
    }

    /// In a reload the next slot waits for clients that come back.
    fn tell_of_clients(&mut self, ix: WorkerIx) {
        let Some(worker) = self.cx.workers.get(ix) else { return };
        let (app, id, drains) = (worker.app, worker.id, worker.drain.is_some());
        if !drains && self.cx.apps[app].supervisor.is_reloading() && self.has_clients(app) {
            self.cx.events.push_back((app, Event::HasClients { worker: id }));
        }
    }

    /// Whether anybody has a connection of this app. Whose they are does not matter: that would take a look at every fd of
    /// every worker. A look takes time with the sockets of the machine, so it counts for all drains that begin soon after.
    fn has_clients(&mut self, app: AppIx) -> bool {
        let app = &mut self.cx.apps[app];
        if app.balancer.total_open() > 0 {
            return true;
        }
        let began_ms = clock::monotonic_ms();
        if let Some((any, until_ms)) = app.clients_seen
            && began_ms < until_ms
        {
            return any;
        }
        let (ports, paths) = app.ports_and_paths();
        let any = procfs::has_connections(&ports, &paths);
        let ended_ms = clock::monotonic_ms();
        let counts_ms = (ended_ms.saturating_sub(began_ms) * limits::DRAIN_CHECK_REST_FACTOR)
            .clamp(limits::CLIENTS_SEEN_MIN_MS, limits::DRAIN_CHECK_REST_MAX_MS);
        app.clients_seen = Some((any, ended_ms + counts_ms));
        any
    }

    /// When the last worker that serves an address leaves, and no slot's configuration has that address any more: takes
    /// what waits there, gives it to this worker, and lets nobody in after it.
    fn close_left_addresses(&mut self, ix: WorkerIx) {
        let Some(worker) = self.cx.workers.get(ix) else { return };
        let app_ix = worker.app;
        let app = &self.cx.apps[app_ix];
        // Only Node workers can be given what waits.
        if app.closed || worker.drain.is_some() || worker.channel.is_none() {
            return;
        }
        // One or two, however many slots there are.
        let generations: BTreeSet<Generation> = app.supervisor.slots().map(|slot| slot.generation).collect();
        let wanted = |address: &Listen| {
            let mut settings = generations.iter().filter_map(|g| app.generations.get(g));
            settings.any(|s| s.config.listen.contains(address))
        };
        let others = |listener: ListenerIx| {
            let serving = |w: &Worker| w.app == app_ix && w.drain.is_none() && w.serves.contains(&listener);
            self.cx.workers.iter().any(|(other, w)| other != ix && serving(w))
        };
        let left: Vec<ListenerIx> = worker
            .serves
            .iter()
            .copied()
            .filter(|&n| app.listeners[n].configured.as_ref().is_some_and(|address| !wanted(address)))
            .filter(|&n| !others(n))
            .collect();
        for listener in left {
            for socket in 0..self.cx.apps[app_ix].listeners[listener].socket_count() {
                self.accept_batch(app_ix, listener, socket);
            }
            self.stop_listening(app_ix, listener);
        }
    }

    /// Goes on with a drain after something changed.
    pub(super) fn drain_step(&mut self, ix: WorkerIx) {
        let Some(worker) = self.cx.workers.get_mut(ix) else { return };
        if !matches!(worker.drain, Some(Drain::WaitingForAnswers | Drain::EmptyingQueue)) {
            return;
        }
        let app = &self.cx.apps[worker.app];
        let gone = worker.channel.as_ref().is_none_or(|c| c.closed);
        let open = worker.member.map_or(0, |member| app.balancer.open_count(member));
        if open > 0 && !gone {
            return;
        }
        let farewell = app.generations.get(&worker.generation).map_or(Farewell::Signal, |s| s.protocol.farewell());
        let id = worker.id;
        let says_goodbye = !gone && worker.goodbye == Goodbye::Unsaid;
        let first = worker.drain == Some(Drain::WaitingForAnswers);
        if first && farewell == Farewell::Signal && self.empties_its_queue(ix) {
            if let Some(worker) = self.cx.workers.get_mut(ix) {
                worker.drain = Some(Drain::EmptyingQueue);
            }
            return;
        }
        if let Some(worker) = self.cx.workers.get_mut(ix) {
            worker.drain = Some(Drain::Finishing);
        }
        match farewell {
            Farewell::Message if says_goodbye => self.goodbye(ix),
            Farewell::Message => {}
            Farewell::Signal => self.terminate(id),
        }
        self.next_drain_check_ms = Some(self.cx.now_ms + limits::DRAIN_CHECK_MIN_MS);
        self.drain_check_every_ms = limits::DRAIN_CHECK_MIN_MS;
    }

    /// The message `"shutdown"` for apps that listen for it, then Node's own disconnect: it closes the servers, then
    /// the channel.
    fn goodbye(&mut self, ix: WorkerIx) {
        checkpoint::save_goodbye(&mut self.cx, ix);
        let mut line = Vec::new();
        lines::user_string(&mut line, "shutdown");
        self.say(ix, &line);
        let Some(channel) = self.cx.workers.get_mut(ix).and_then(|w| w.channel.as_mut()) else { return };
        let seq = channel.next_seq();
        line.clear();
        lines::disconnect(&mut line, seq);
        self.say(ix, &line);
    }

    /// Looks at the sockets of all Node workers that have closed their channel in a drain; those that hold no
    /// connection of ours are done, whatever else keeps their event loop alive.
    pub(super) fn check_drains(&mut self) {
        if self.next_drain_check_ms.is_none_or(|at| at > self.cx.now_ms) {
            return;
        }
        self.next_drain_check_ms = None;
        let draining = || self.draining.iter().filter_map(|ix| Some((*ix, self.cx.workers.get(*ix)?)));
        let finishing: Vec<(WorkerIx, i32)> = draining()
            .filter(|(_, w)| w.drain == Some(Drain::Finishing))
            .filter(|(_, w)| {
                // A worker that has just closed its channel is about to end by itself, as it likes to.
                w.goodbye == Goodbye::SaidBefore
                    || w.severed_ms.is_some_and(|at| at + limits::DRAIN_OWN_END_MS <= self.cx.now_ms)
            })
            .filter_map(|(ix, w)| Some((ix, w.pid?)))
            .collect();
        let waiting = draining().any(|(_, w)| w.channel.is_some());
        if waiting {
            // Look often at first, then rarely: most drains are over in moments, some take minutes.
            self.drain_check_every_ms = (self.drain_check_every_ms * 2).min(limits::DRAIN_CHECK_MAX_MS);
            self.next_drain_check_ms = Some(self.cx.now_ms + self.drain_check_every_ms);
        }
        if finishing.is_empty() {
            return;
        }
        // Workers that hold no socket at all, which is most, need no list of connections.
        let mut unclear = Vec::new();
        for (ix, pid) in finishing {
            let Some(worker) = self.cx.workers.get(ix) else { continue };
            let Some(held) = procfs::socket_inodes(pid) else { continue };
            if held.is_empty() {
                self.cx.events.push_back((worker.app, Event::Drained { worker: worker.id }));
            } else {
                unclear.push((worker.app, worker.id, held));
            }
        }
        self.count_connections(&unclear);
        // Both take time with the number of connections, and nobody is served meanwhile.
        let took_ms = clock::monotonic_ms().saturating_sub(self.cx.now_ms);
        let rest_ms = (took_ms * limits::DRAIN_CHECK_REST_FACTOR).min(limits::DRAIN_CHECK_REST_MAX_MS);
        self.next_drain_check_ms = self.next_drain_check_ms.map(|at| at.max(self.cx.now_ms + took_ms + rest_ms));
    }

    /// Those that hold no connection that came through us are done.
    fn count_connections(&mut self, unclear: &[(AppIx, WorkerId, HashSet<u64>)]) {
        let apps: BTreeSet<AppIx> = unclear.iter().map(|(app, ..)| *app).collect();
        let places: BTreeMap<AppIx, _> =
            apps.into_iter().map(|app| (app, self.cx.apps[app].ports_and_paths())).collect();
        let ports: BTreeSet<u16> = places.values().flat_map(|(ports, _)| ports.iter().copied()).collect();
        let paths: Vec<String> = places.values().flat_map(|(_, paths)| paths.iter().cloned()).collect();
        let ports: Vec<u16> = ports.into_iter().collect();
        let Some(table) = ConnectionTable::read(&ports, &paths) else { return };
        for (app, worker, held) in unclear {
            let (ports, paths) = &places[app];
            if table.count(held, ports, paths) == 0 {
                self.cx.events.push_back((*app, Event::Drained { worker: *worker }));
            }
        }
    }
}
