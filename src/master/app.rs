//! What the master keeps for each app beside its supervisor: generations, listeners, the balancer and the open
//! connections.
use super::addresses;
use super::autoscale::Autoscale;
use super::canary::Canary;
use super::checkpoint::records::AppRecord;
use super::connections::{Connection, Connections};
use super::dispatch::AcceptPause;
use super::history::History;
use super::last_words::Awaited;
use super::listener::Listener;
use super::moves::Rebalance;
use super::releases::Releases;
use super::settings::Settings;
use super::table::Table;
use super::time_counts::TimeCounts;
use super::triggers::Schedule;
use super::waiting_connections::WaitingConnections;
use crate::balance::{Balancer, ConnIx, Mode};
use crate::config::Balance;
use crate::ids::{Generation, ListenerIx, WorkerIx};
use crate::keeper::protocol::GroupLimits;
use crate::logs::Tail;
use crate::reuseport::program::Steering;
use crate::supervisor;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

pub(super) struct App {
    pub(super) name: String,
    pub(super) supervisor: supervisor::App,
    pub(super) generations: BTreeMap<Generation, Settings>,
    /// The generation of the last reload that began.
    pub(super) last_generation: Generation,
    pub(super) listeners: Table<ListenerIx, Listener>,
    pub(super) balancer: Balancer,
    pub(super) connections: Connections<OwnedFd>,
    /// The worker behind each member of the balancer.
    pub(super) by_member: Vec<WorkerIx>,
    /// Connections that wait for a worker.
    pub(super) waiting: WaitingConnections,
    pub(super) accept_pause: AcceptPause,
    /// The app is stopping: the master no longer accepts for it.
    pub(super) closed: bool,
    /// Somebody has asked to stop it, and it stops then (monotonic milliseconds), or later if it waits for others: `stop_delay`.
    pub(super) stops_at_ms: Option<u64>,
    /// The record of it that was saved last.
    pub(super) saved: Option<AppRecord>,
    /// The kernel's way to choose among the workers was logged.
    pub(super) steering_reported: bool,
    /// The number of the socket that each slot's last worker had, where workers choose among free ones.
    pub(super) last_sockets: BTreeMap<u32, u32>,
    /// Deleted from the deployment. The entry stays, because indices refer to it.
    pub(super) deleted: bool,
    /// Started, and not ready since.
    pub(super) starting: bool,
    /// Why the last start failed, for the client that requested it; cleared once the app is ready.
    pub(super) start_failure: Option<(String, Option<Arc<Tail>>)>,
    /// Connections that this master accepted.
    pub(super) accepted: u64,
    pub(super) handoffs: u64,
    /// Hand-offs that workers refused.
    pub(super) refused: u64,
    /// Connections taken from a socket or a process that would not have served them.
    pub(super) rescued: u64,
    pub(super) handover_times: TimeCounts,
    /// How long event loops of its workers let a ping or hand-off wait; one for each worker and second.
    pub(super) loop_delays: TimeCounts,
    /// Connections that workers gave back for others.
    pub(super) moved: u64,
    pub(super) rebalance: Rebalance,
    pub(super) restarts: u64,
    pub(super) history: History,
    /// The generations that ran, for `releases` and `rollback`.
    pub(super) releases: Releases,
    /// Workers that were spawned: the `cluster.worker.id` of the last one.
    pub(super) spawned: u64,
    /// The last message about each slot, for `ls`.
    pub(super) slot_notes: BTreeMap<u32, String>,
    pub(super) schedule: Schedule,
    pub(super) autoscale: Autoscale,
    /// The canary of the reload under way.
    pub(super) canary: Option<Canary>,
    /// What the keeper was told about the app's cgroup.
    pub(super) group_limits: Option<GroupLimits>,
    /// What the worker that made the current reload fail printed last.
    pub(super) last_words: Option<Arc<Tail>>,
    /// Last lines of a failed worker that are still read.
    pub(super) awaited: Option<Awaited>,
    /// The largest exit code of the last runs of its workers, where their number is limited.
    pub(super) last_run_code: u8,
    /// The generation of which a worker counted as ready without its message.
    pub(super) message_missed_in: Option<Generation>,
    /// Warnings that were logged before the last start or reload of it.
    pub(super) warned_before: u64,
    /// Its workers send messages of socket.io's adapter to each other.
    pub(super) has_adapters: bool,
}

impl App {
    /// A client's connection has been accepted; no worker has it yet.
    #[inline]
    pub(super) fn admit(
        &mut self,
        socket: OwnedFd,
        listener: ListenerIx,
        client_hash: Option<u64>,
        now_us: u64,
    ) -> ConnIx {
        self.accepted += 1;
        self.connections.insert(Connection {
            socket,
            listener,
            client_hash,
            since_us: now_us,
            own_line: None,
            kept_as: None,
        })
    }

    pub(super) fn new(name: String, supervisor: supervisor::App, settings: Settings, first_seq: u64) -> App {
        let generation = supervisor.generation();
        let mode = balance_mode(settings.balance.balance);
        App {
            name,
            supervisor,
            generations: BTreeMap::from([(generation, settings)]),
            last_generation: generation,
            listeners: Table::default(),
            balancer: Balancer::new(mode, first_seq),
            connections: Connections::default(),
            by_member: Vec::new(),
            waiting: WaitingConnections::default(),
            accept_pause: AcceptPause::default(),
            closed: false,
            stops_at_ms: None,
            saved: None,
            steering_reported: false,
            last_sockets: BTreeMap::new(),
            deleted: false,
            starting: false,
            start_failure: None,
            message_missed_in: None,
            accepted: 0,
            handoffs: 0,
            refused: 0,
            rescued: 0,
            handover_times: TimeCounts::default(),
            loop_delays: TimeCounts::default(),
            moved: 0,
            rebalance: Rebalance::default(),
            restarts: 0,
            history: History::default(),
            releases: Releases::default(),
            spawned: 0,
            slot_notes: BTreeMap::new(),
            group_limits: None,
            schedule: Schedule::default(),
            autoscale: Autoscale::default(),
            canary: None,
            last_words: None,
            awaited: None,
            last_run_code: 0,
            warned_before: 0,
            has_adapters: false,
        }
    }

    /// The settings of the current generation.
    pub(super) fn settings(&self) -> &Settings {
        let serving = self.supervisor.generation();
        self.generations
            .get(&serving)
            .or_else(|| self.generations.values().next_back())
            // An app is created with a generation, and always keeps at least one.
            .expect("an app has at least one generation")
    }

    /// What serves after a reload that failed, for people.
    pub(super) fn remaining_service(&self) -> String {
        let (ready, slots) = (self.supervisor.ready_count(), self.supervisor.slot_count());
        if self.supervisor.is_stopping() {
            "nothing serves".to_owned()
        } else if self.supervisor.is_errored() {
            "nothing serves, as before".to_owned()
        } else if ready == 0 {
            "nothing serves until a worker of the old generation is ready again".to_owned()
        } else if ready < slots {
            format!("the old generation serves, with {ready} of {slots} workers")
        } else {
            "the old generation serves".to_owned()
        }
    }

    /// Whether the master accepts for this app, instead of passing the listening socket to its workers; in a reload, for any of its
    /// generations: its workers get connections as soon as they are ready.
    pub(super) fn master_accepts(&self) -> bool {
        self.generations.values().any(Settings::master_accepts)
    }

    /// Whether slots have listening sockets of their own in any generation.
    pub(super) fn has_own_sockets(&self) -> bool {
        self.generations.values().any(Settings::has_own_sockets)
    }

    /// The first configured TCP port of the current generation.
    pub(super) fn port(&self) -> Option<u16> {
        addresses::port(self, self.settings())
    }

    /// How the kernel chooses among the workers' sockets; the weakest method where listeners differ.
    pub(super) fn steering(&self) -> Option<Steering> {
        let streams = self.listeners.iter().filter(|listener| !listener.datagram);
        streams.filter_map(|listener| listener.reuseport.as_ref()?.steering).max()
    }

    /// Connections that the kernel gave to each of these numbers of sockets, where the kernel counts them.
    pub(super) fn steered(&self, numbers: impl Iterator<Item = u32> + Clone) -> BTreeMap<u32, u64> {
        let mut by_number = BTreeMap::new();
        for listener in &self.listeners {
            let counts = listener.steered();
            for number in numbers.clone() {
                let socket = listener.reuseport.as_ref().map_or(0, |group| group.selection.socket_of(number));
                if let Some(count) = counts.get(socket as usize) {
                    *by_number.entry(number).or_default() += count;
                }
            }
        }
        by_number
    }

    /// Resets the app after a stop: listeners, hand-offs and counters belong to the previous run.
    pub(super) fn forget_past(&mut self, first_seq: u64) {
        self.listeners.clear();
        self.by_member.clear();
        self.waiting.clear();
        self.connections = Connections::default();
        self.balancer = Balancer::new(balance_mode(self.settings().balance.balance), first_seq);
        self.slot_notes.clear();
        self.steering_reported = false;
    }

    /// The app's addresses, as people write them.
    pub(super) fn addresses(&self) -> Vec<String> {
        let configured = addresses::of_generation(self, self.settings());
        let others = self.listeners.entries().filter(|(ix, l)| !l.is_retired() && !configured.contains(ix));
        let first = configured.iter().map(|ix| self.listeners[*ix].to_string());
        first.chain(others.map(|(_, l)| l.to_string())).collect()
    }

    /// The app's TCP ports and socket paths, by which its connections are recognized from outside.
    pub(super) fn ports_and_paths(&self) -> (Vec<u16>, Vec<String>) {
        use crate::os::listen::LocalAddress;
        let mut ports = Vec::new();
        let mut paths = Vec::new();
        for listener in self.listeners.iter().filter(|l| !l.datagram) {
            match &listener.local {
                LocalAddress::Inet(address) => ports.push(SocketAddr::port(address)),
                LocalAddress::Unix(path) => paths.push(path.to_string_lossy().into_owned()),
                LocalAddress::Other => {}
            }
        }
        (ports, paths)
    }
}

pub(super) fn balance_mode(balance: Balance) -> Mode {
    match balance {
        Balance::Strategy(mode) => mode,
        // Connections that the master rescues in kernel mode.
        Balance::Shared | Balance::Kernel => Mode::RoundRobin,
    }
}
