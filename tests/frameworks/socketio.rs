//! socket.io on several workers: polling with sticky balancing, and messages between workers by its cluster adapter.
use super::install;
use super::support::{NODE, app};
use crate::cluster::Cluster;
use std::process::Command;

/// Runs of the clients, each of which has to work.
const RUNS: usize = 5;

#[test]
#[ignore = "installs frameworks and versions of Node"]
fn polling_and_the_cluster_adapter_work_on_four_workers() {
    let (path, node) = (format!("NODE_PATH={}", install::socketio().display()), install::node(NODE));
    let options = ["-w", "4", "-b", "sticky", "--host", "127.0.0.1", "--port", "0", "-e", &path];
    let cluster = Cluster::start(&[&options[..], &["--", &node, &app("adapter.js")]].concat());
    cluster.wait_ready(4);
    let port = cluster.address().port().to_string();
    for run in 0..RUNS {
        let mut clients = Command::new(&node);
        clients.arg(app("adapter-clients.js")).arg(&port).env("NODE_PATH", install::socketio());
        let seen = clients.output().unwrap();
        assert!(seen.status.success(), "run {run}: {seen:?}");
        let reached: usize = String::from_utf8_lossy(&seen.stdout).trim().parse().unwrap();
        assert!(reached > 1, "all clients went to one worker");
    }
    cluster.stop();
}
