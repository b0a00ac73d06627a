//! Workers that follow the load: a step of load brings more, its end takes them back, and no client notices; numbers that
//! a person sets; what a later master knows of both.
use super::client::Load;
use super::cluster::{Cluster, Folder, kill};
use clusterd::api::types::{Autoscale, Deployment};
use std::time::Instant;

/// Works for three milliseconds, then answers with its pid.
const APP: &str = "require('node:http').createServer((q, s) => {
  const end = performance.now() + 3;
  while (performance.now() < end);
  s.end(JSON.stringify({ pid: process.pid }));
}).listen(process.env.PORT);";

fn start(workers: &str, app: &str, scale: &str) -> Cluster {
    let folder = Folder::new();
    folder.write("app.js", APP);
    folder.write("c.toml", &format!("[[app]]\nname = \"web\"\nworkers = \"{workers}\"\n{app}\n[app.scale]\n{scale}\n"));
    Cluster::start_in(folder, &["-c", "c.toml"], |_| {})
}

fn scale_of(view: &Deployment) -> &Autoscale {
    view.apps[0].scale.as_ref().unwrap()
}

/// From two workers to more under load, and back after it.
fn workers_follow(most: u32, balance: &str, keep_alive: bool, in_between: impl FnOnce(&Cluster)) {
    let app = format!("command = [\"node\", \"app.js\"]\nlisten = \"127.0.0.1:0\"\nbalance = \"{balance}\"");
    // So low that the clients of any machine exceed it, and high enough for the end of a start.
    let cluster = start(&format!("2..{most}"), &app, "target = \"4%\"\ncooldown = \"2s\"");
    cluster.wait_ready(2);
    let begins = Instant::now();
    let load = Load::start(cluster.address(), 6, keep_alive);
    cluster.wait_ready(most);
    eprintln!("from 2 to {most} workers {:?} after a step of load", begins.elapsed());
    let line = cluster.wait_line("web: scaled from ");
    assert!(line.contains("workers: cpu use ") && line.contains("%, target 4%"), "{line}");
    if balance != "kernel" {
        let has_one = |view: &Deployment| view.apps[0].workers.iter().all(|worker| worker.handoffs > 0);
        cluster.wait_view("a connection for every worker", has_one);
    }
    let pids = cluster.worker_pids();
    in_between(&cluster);
    load.wait_more(200);
    assert_eq!(cluster.worker_pids(), pids, "nobody was replaced, and there are not more");
    let seen = load.finish();
    cluster.wait_ready(2);
    assert_eq!((seen.refused, seen.cut, seen.hung, seen.wrong, seen.idle_closed), (0, 0, 0, 0, 0), "{seen:?}");
    assert!(pids.iter().all(|pid| seen.by_pid.contains_key(pid)), "new workers took load: {seen:?} {pids:?}");
    let view = cluster.try_view().unwrap();
    assert!(
        scale_of(&view).last_change.as_ref().is_some_and(|last| last.contains("to 2 workers: cpu use ")),
        "{view:#?}"
    );
    cluster.stop();
}

#[test]
#[ignore = "long: a load, and a cooldown after it"]
fn a_step_of_load_brings_workers_also_beyond_the_death_of_a_master() {
    workers_follow(6, "round-robin", false, |cluster| {
        kill(cluster.master_pid(), "KILL");
        let view = cluster.wait_view("another master", |view| view.master_restarts == 1);
        assert_eq!(view.apps[0].workers_wanted, 6);
        assert!(scale_of(&view).last_change.as_ref().is_some_and(|last| last.contains("to 6 workers")), "{view:#?}");
    });
}

#[test]
#[ignore = "long: a load, and a cooldown after it"]
fn new_workers_take_kept_connections_of_the_others() {
    workers_follow(4, "round-robin", true, |_| {});
}

#[test]
#[ignore = "long: a load, and a cooldown after it"]
fn workers_that_accept_by_themselves_follow_the_load_too() {
    workers_follow(4, "kernel", false, |_| {});
}

#[test]
fn a_number_set_by_hand_holds_until_it_is_taken_back_or_the_file_is_read_again() {
    let sleep = "command = [\"sleep\", \"1000\"]\nprotocol = \"none\"\nready = \"1ms\"";
    let cluster = start("1..2", sleep, "");
    cluster.wait_ready(1);
    let text = |args: &[&str]| {
        let done = cluster.cli(args);
        let said = [done.stdout, done.stderr].concat();
        (done.status.success(), String::from_utf8_lossy(&said).into_owned())
    };
    let (ok, said) = text(&["scale", "web", "3"]);
    assert!(ok && said.contains("web: from 1 to 3 workers, until: clusterd scale web auto"), "{said}");
    cluster.wait_line("web: scaled from 1 to 3 workers by hand");
    cluster.wait_ready(3);
    kill(cluster.master_pid(), "KILL");
    let view = cluster.wait_view("another master", |view| view.master_restarts == 1);
    assert!(scale_of(&view).by_hand && view.apps[0].workers_wanted == 3, "{view:#?}");
    assert!(text(&["ls"]).1.contains("3 of 1..2 workers, set by hand, until: clusterd scale web auto"));
    // Above the bounds, which hold again.
    assert!(text(&["scale", "web", "auto"]).0);
    cluster.wait_line("web: scaled from 3 to 2 workers: at most 2");
    cluster.wait_ready(2);
    assert!(text(&["scale", "web", "3"]).0);
    cluster.wait_ready(3);
    assert!(text(&["reload", "web"]).0);
    let view = cluster.wait_view("a reload", |view| view.apps[0].generation == 2 && view.apps[0].workers_wanted == 2);
    assert!(!scale_of(&view).by_hand, "{view:#?}");
    cluster.stop();
}

#[test]
fn only_workers_with_bounds_can_follow_the_load() {
    let cluster = Cluster::start(&["-w", "1", "--name", "web", "--ready", "1ms", "--", "sleep", "1000"]);
    cluster.wait_ready(1);
    let refused = cluster.cli(&["scale", "web", "auto"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("web has a fixed number of workers"), "{said}");
    cluster.stop();
}
