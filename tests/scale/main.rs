//! Many of everything: 1,000 workers, 100 listeners, 20,000 connections that are kept open over a reload. One binary is
//! everything: called by cargo it runs the tests, called as `worker` or `clients` it is one of many.
//!
//! What it costs is measured by `cargo bench --bench scale`.
#![allow(clippy::unwrap_used, clippy::print_stdout)]
#[path = "../common/mod.rs"]
mod common;
mod held;
mod keep;
mod pass;
mod worker;

use common::client::Load;
use common::cluster::{Cluster, Folder, kill};
use common::ports::free_port;
use common::runner::{self, Kind, Test, tests};
use common::{client, cluster};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

const TESTS: &[Test] = tests![
    a_thousand_workers_serve_reload_and_are_listed,
    a_hundred_listeners_are_served_by_every_worker,
    a_thousand_sockets_in_one_group,
    pass::connections_that_are_over_leave_nothing_behind,
    keep::twenty_thousand_kept_connections_pass_a_reload,
];

const WHY: &str = "loads the machine for minutes";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("worker") => worker::run(),
        Some("clients") => keep::clients(&args[1..]),
        _ => return runner::run("scale", TESTS, Kind::Ignored(WHY), 1, &args),
    }
    ExitCode::SUCCESS
}

/// So many free addresses.
fn addresses(count: usize) -> Vec<SocketAddr> {
    (0..count).map(|_| SocketAddr::from(([127, 0, 0, 1], free_port()))).collect()
}

/// So many scripted workers on these addresses, ready.
fn start(workers: u32, addresses: &[SocketAddr], more: &str) -> Cluster {
    let list: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let quoted: Vec<String> = list.iter().map(|address| format!("\"{address}\"")).collect();
    let own = std::env::current_exe().unwrap();
    let config = format!(
        "[[app]]\nname = \"many\"\ncommand = [\"{}\", \"worker\"]\nprotocol = \"node\"\nworkers = {workers}\n\
         listen = [{}]\nready_timeout = \"2m\"\nenv.ADDRESSES = \"{}\"\n{more}",
        own.display(),
        quoted.join(", "),
        list.join(",")
    );
    let folder = Folder::new();
    folder.write("c.toml", &config);
    let cluster = Cluster::start_in(folder, &["-c", "c.toml"], |_| {});
    cluster.wait_line("many: ready");
    cluster.wait_ready(workers);
    cluster
}

/// Short connections from everywhere to every address; who served them.
fn serve(addresses: &[SocketAddr], answers: u64) -> BTreeSet<i32> {
    let mut served = BTreeSet::new();
    let share = answers.div_ceil(addresses.len() as u64);
    for batch in addresses.chunks(8) {
        let loads: Vec<Load> = batch.iter().map(|address| Load::start(*address, 2, false)).collect();
        loads.iter().for_each(|load| load.wait_more(share));
        for load in loads {
            let seen = load.finish();
            assert_eq!((seen.refused, seen.cut, seen.hung, seen.wrong), (0, 0, 0, 0), "{seen:?}");
            served.extend(seen.by_pid.keys());
        }
    }
    served
}

fn a_thousand_workers_serve_reload_and_are_listed() {
    let addresses = addresses(2);
    let cluster = start(1_000, &addresses, "[app.reload]\nsurge = 100\nsettle = \"0s\"\n");
    assert!(serve(&addresses, 2_000).len() >= 900);
    let asked = Instant::now();
    let table = String::from_utf8(cluster.cli(&["ls"]).stdout).unwrap();
    assert!(table.contains("1000/1000 ready") && table.lines().count() >= 1_002);
    assert!(asked.elapsed() < Duration::from_secs(5), "ls took {:?}", asked.elapsed());
    // A hundred deaths at once.
    let before: Vec<i32> = cluster.worker_pids();
    before[..100].iter().for_each(|&pid| kill(pid, "KILL"));
    cluster.wait_view("replacements", |view| {
        let gone = |pid: Option<i32>| pid.is_some_and(|pid| before[..100].contains(&pid));
        view.apps[0].workers_ready == 1_000 && !view.apps[0].workers.iter().any(|w| gone(w.pid))
    });
    let load = Load::start(addresses[0], 4, false);
    load.wait_more(50);
    let before: BTreeSet<i32> = cluster.worker_pids().into_iter().collect();
    assert!(cluster.cli(&["reload", "all"]).status.success());
    let seen = load.finish();
    assert_eq!((seen.refused, seen.cut, seen.hung, seen.wrong), (0, 0, 0, 0), "{seen:?}");
    let after: BTreeSet<i32> = cluster.wait_ready(1_000).iter().filter_map(|w| w.pid).collect();
    assert!(before.is_disjoint(&after));
    // The next master has them all.
    kill(cluster.master_pid(), "KILL");
    cluster.wait_view("the next master", |view| view.master_restarts == 1 && view.apps[0].workers_ready == 1_000);
    let served = serve(&addresses, 1_000);
    assert!(served.is_subset(&after) && served.len() >= 400, "{} served", served.len());
    cluster.stop();
}

fn a_hundred_listeners_are_served_by_every_worker() {
    let addresses = addresses(100);
    let cluster = start(150, &addresses, "[app.reload]\nsurge = 30\nsettle = \"0s\"\n");
    assert!(serve(&addresses, 2_000).len() >= 50);
    assert!(cluster.cli(&["reload", "all"]).status.success());
    kill(cluster.master_pid(), "KILL");
    cluster.wait_view("the next master", |view| view.master_restarts == 1 && view.apps[0].workers_ready == 150);
    assert!(serve(&addresses, 2_000).len() >= 50);
    cluster.stop();
}

fn a_thousand_sockets_in_one_group() {
    let addresses = addresses(1);
    let cluster = start(1_000, &addresses, "balance = \"kernel\"\n[app.reload]\nsurge = 100\nsettle = \"0s\"\n");
    assert!(serve(&addresses, 2_000).len() >= 600);
    // Every second slot loses its worker: the set of those that may be chosen is as ragged as can be.
    let pids = cluster.worker_pids();
    pids.iter().step_by(2).for_each(|&pid| kill(pid, "KILL"));
    let served = serve(&addresses, 500);
    assert!(served.len() > 200);
    cluster.wait_ready(1_000);
    assert!(cluster.cli(&["reload", "all"]).status.success());
    kill(cluster.master_pid(), "KILL");
    cluster.wait_view("the next master", |view| view.master_restarts == 1 && view.apps[0].workers_ready == 1_000);
    assert!(serve(&addresses, 1_000).len() >= 400);
    cluster.stop();
}
