//! What these tests share: starting an app of `apps/`, killing a worker, judging what the clients saw.
use super::apps::project;
use super::client::{Load, Tally};
use super::cluster::{Cluster, kill};
use super::install;
use std::time::Duration;

/// The version of Node under which frameworks run.
pub(crate) const NODE: u32 = 24;
/// An app of `apps/`.
pub(crate) fn app(name: &str) -> String {
    project("tests/frameworks/apps").join(name).display().to_string()
}

/// Two workers of a Node app, ready.
pub(crate) fn node_app(name: &str, options: &[&str]) -> Cluster {
    let path = format!("NODE_PATH={}", install::npm().display());
    let (node, app) = (install::node(NODE), app(name));
    start(&[&["-e", &path], options].concat(), &[&node, &app])
}

/// Two workers of any program on a port of their own, ready.
pub(crate) fn start(options: &[&str], command: &[&str]) -> Cluster {
    let fixed = ["-w", "2", "--host", "127.0.0.1", "--port", "0"];
    let cluster = Cluster::start(&[&fixed, options, &["--"], command].concat());
    cluster.wait_ready(2);
    cluster
}

/// Kills a worker and waits until another is ready in its place.
pub(crate) fn kill_one(cluster: &Cluster) {
    let victim = cluster.wait_ready(2)[0].clone();
    kill(victim.pid.unwrap(), "KILL");
    cluster.wait_view("a replacement", |view| {
        let app = &view.apps[0];
        app.workers_ready == 2 && app.workers.len() == 2 && app.workers.iter().all(|w| w.id != victim.id)
    });
}

/// Kills the master and waits for the next one.
pub(crate) fn kill_master(cluster: &Cluster) {
    let before = cluster.wait_view("a master", |_| true).master_restarts;
    kill(cluster.master_pid(), "KILL");
    cluster.wait_view("the next master", |view| {
        view.master_restarts == before + 1 && view.apps.iter().all(|app| app.workers_ready == 2)
    });
}

/// `clusterd reload all` ends well and every worker is another one.
pub(crate) fn reload(cluster: &Cluster) {
    let before = cluster.worker_pids();
    let done = cluster.cli(&["reload", "all"]);
    assert!(done.status.success(), "{done:?}");
    let after = cluster.worker_pids();
    assert!(after.len() == 2 && after.iter().all(|pid| !before.contains(pid)), "{before:?} {after:?}");
}

/// How many clients there are at a time, and how patient they are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clients {
    /// On short connections.
    pub(crate) short: usize,
    /// On connections that they keep.
    pub(crate) kept: usize,
    /// The time within which each wants an answer.
    pub(crate) patience: Duration,
}

const MANY: Clients = Clients { short: 16, kept: 8, patience: Duration::from_secs(5) };

/// Short and kept connections at once, while something happens; what both saw.
pub(crate) fn under_load(cluster: &Cluster, happens: impl FnOnce()) -> Both {
    under_load_of(MANY, cluster, happens)
}

/// The same with other clients.
pub(crate) fn under_load_of(clients: Clients, cluster: &Cluster, happens: impl FnOnce()) -> Both {
    let address = cluster.address();
    let start = |count, keep_alive| Load::start_patient(clients.patience, address, count, keep_alive);
    let (short, kept) = (start(clients.short, false), start(clients.kept, true));
    let more = || {
        short.wait_more(100);
        kept.wait_more(100);
    };
    more();
    happens();
    more();
    Both { clients, short: short.finish(), kept: kept.finish() }
}

/// What clients on short connections and on kept ones saw.
#[derive(Debug)]
pub(crate) struct Both {
    clients: Clients,
    pub(crate) short: Tally,
    pub(crate) kept: Tally,
}

impl Both {
    /// Every connection was accepted, and got its answer in time.
    pub(crate) fn nobody_refused_or_hung(&self) {
        for seen in [&self.short, &self.kept] {
            assert_eq!((seen.refused, seen.hung, seen.wrong), (0, 0, 0), "{self:?}");
        }
    }

    /// And every answer was whole.
    pub(crate) fn nobody_hurt(&self) {
        self.nobody_refused_or_hung();
        assert_eq!((self.short.cut, self.kept.cut), (0, 0), "{self:?}");
    }

    /// At most as many were cut as so many processes that ended can have had in hand.
    pub(crate) fn cut_at_most_in_hand_of(&self, processes: u64) {
        self.nobody_refused_or_hung();
        let [short, kept] = [self.clients.short, self.clients.kept].map(|clients| processes * clients as u64);
        assert!(self.short.cut <= short && self.kept.cut <= kept, "{self:?}");
    }
}
