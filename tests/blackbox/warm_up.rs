//! `warmup`: a new worker answers some requests before clients reach it, whatever started it. Who is asked what, how often, what
//! bad answers, deaths and silence mean, what becomes of it when the master dies, and what is refused.
use super::client::Load;
use super::cluster::{Cluster, Folder, kill, run, wait_until};
use std::collections::BTreeMap;
use std::fs;

/// Notes what clusterd asks it for, and takes a moment for it. A client that comes before the whole warm-up gets a 500.
const APP: &str = "const fs = require('node:fs'); let asked = 0;
require('node:http').createServer((q, s) => {
  if (!(q.headers['user-agent'] ?? '').startsWith('clusterd/')) {
    s.statusCode = asked < 12 ? 500 : 200;
    return s.end(JSON.stringify({ pid: process.pid }));
  }
  fs.appendFileSync('seen', `${process.pid} ${q.url}\\n`);
  const answer = () => {
    if (fs.existsSync('gate')) return setTimeout(answer, 10);
    s.statusCode = q.url === '/bad' ? 404 : 200;
    s.end('x'.repeat(5000), () => asked++);
  };
  setTimeout(answer, 5);
}).listen(process.env.PORT);";

const WARM_UP: &str = "warmup = [\"/\", \"/api\", \"/bad\"]\nwarmup_times = 4\n";

fn start_without_waiting(balance: &str, keys: &str, prepare: impl FnOnce(&Folder)) -> Cluster {
    let folder = Folder::new();
    folder.write("app.js", APP);
    prepare(&folder);
    let app = "name = \"web\"\ncommand = [\"node\", \"app.js\"]\nworkers = 2\nlisten = \"127.0.0.1:0\"\n";
    folder.write("c.toml", &format!("[[app]]\n{app}balance = \"{balance}\"\n{keys}"));
    Cluster::start_in(folder, &["-c", "c.toml"], |_| {})
}

fn start(balance: &str, keys: &str) -> Cluster {
    let cluster = start_without_waiting(balance, keys, |_| {});
    cluster.wait_ready(2);
    cluster
}

/// The paths that clusterd asked each worker for, in order.
fn seen(cluster: &Cluster) -> BTreeMap<i32, Vec<String>> {
    let text = fs::read_to_string(cluster.folder.path().join("seen")).unwrap_or_default();
    let mut all: BTreeMap<i32, Vec<String>> = BTreeMap::new();
    for (pid, path) in text.lines().filter_map(|line| line.split_once(' ')) {
        all.entry(pid.parse().unwrap()).or_default().push(path.to_owned());
    }
    all
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Every worker that there was answered the whole warm-up, once.
fn all_were_asked(cluster: &Cluster, workers: usize) {
    let wanted: Vec<&str> = ["/", "/api", "/bad"].repeat(4);
    let seen = seen(cluster);
    assert_eq!(seen.len(), workers, "{seen:?}");
    assert!(seen.values().all(|paths| *paths == wanted), "{seen:?}");
}

fn wait_serving(cluster: &Cluster, workers: u32) {
    cluster.wait_view("workers that serve", |view| {
        let app = &view.apps[0];
        (app.workers_ready, app.workers.len()) == (workers, workers as usize)
    });
}

/// A load over a reload, in which every new worker is warm before it answers.
fn reload_under_load(cluster: &Cluster) -> Load {
    let load = Load::start(cluster.address(), 8, false);
    load.wait_more(50);
    let done = cluster.cli(&["reload", "web"]);
    assert!(done.status.success(), "{done:?}");
    load.wait_more(50);
    load
}

/// Nobody met a worker that was cold, or anything else that is wrong.
fn all_is_well(cluster: &Cluster, load: Load) {
    let tally = load.finish();
    assert_eq!((tally.refused, tally.cut, tally.hung, tally.wrong), (0, 0, 0, 0), "{tally:?}");
    let pids = cluster.worker_pids();
    assert!(pids.iter().all(|pid| tally.by_pid.contains_key(pid)), "all of {pids:?} served: {tally:?}");
    let app = cluster.app();
    // One that moves is handed twice.
    assert!(app.handoffs <= tally.ok + app.moved, "a warm-up is no client: {} and {}", app.handoffs, app.moved);
}

#[test]
fn no_client_reaches_a_worker_before_it_has_answered_its_warm_up() {
    let cluster = start("round-robin", WARM_UP);
    let load = reload_under_load(&cluster);
    all_is_well(&cluster, load);
    all_were_asked(&cluster, 4);
    // Once for each generation, however many workers and requests.
    let told = || cluster.stderr().iter().filter(|line| line.contains("GET /bad was answered with 404")).count();
    wait_until("the bad answers are told", || told() == 2);
    cluster.stop();
}

fn no_client_comes_before(balance: &str) {
    let cluster = start(balance, WARM_UP);
    let load = reload_under_load(&cluster);
    let done = cluster.cli(&["scale", "web", "3"]);
    assert!(done.status.success(), "{done:?}");
    wait_serving(&cluster, 3);
    load.wait_more(100);
    all_is_well(&cluster, load);
    all_were_asked(&cluster, 5);
    let victim = cluster.worker_pids()[0];
    kill(victim, "KILL");
    cluster.wait_view("a replacement", |view| {
        let app = &view.apps[0];
        app.workers_ready == 3 && app.workers.iter().all(|worker| worker.pid != Some(victim))
    });
    all_were_asked(&cluster, 6);
    cluster.stop();
}

#[test]
#[ignore = "long: a variant of what a quicker test shows"]
fn nor_one_of_a_scale_up_or_a_replacement() {
    no_client_comes_before("round-robin");
}

#[test]
#[ignore = "long: a variant of what a quicker test shows"]
fn nor_where_each_worker_has_a_socket_of_its_own() {
    no_client_comes_before("kernel");
}

#[test]
#[ignore = "long: a warm-up that is never answered takes its time"]
fn a_worker_that_dies_or_is_silent_in_its_warm_up_is_not_ready_and_a_reload_goes_back() {
    let cluster = start("round-robin", &format!("{WARM_UP}ready_timeout = \"1500ms\"\n"));
    let before = cluster.worker_pids();
    let refused = |code: &str| {
        cluster.folder.write("app.js", code);
        let done = cluster.cli(&["reload", "web"]);
        assert_eq!(done.status.code(), Some(1), "{done:?}");
        String::from_utf8_lossy(&done.stderr).into_owned()
    };
    let server =
        |answer: &str| format!("require('node:http').createServer((q, s) => {answer}).listen(process.env.PORT)");
    let said = refused(&server("process.exit(7)"));
    assert!(said.contains("the new worker exited with code 7"), "{said}");
    let said = refused(&server("{}"));
    assert!(said.contains("the new worker was not ready after 1.5 s: its warm-up has not ended"), "{said}");
    let said = refused(&server("q.url === '/api' ? q.destroy() : s.end()"));
    assert!(said.contains("GET /api (warm-up, 2 of 12) was not answered: the worker closed the connection"), "{said}");
    assert_eq!(cluster.worker_pids(), before, "nothing was touched");
    cluster.stop();
}

#[test]
fn the_next_master_warms_up_from_the_beginning() {
    let cluster = start_without_waiting("round-robin", WARM_UP, |folder| drop(folder.write("gate", "")));
    wait_until("requests that wait", || seen(&cluster).len() == 2);
    kill(cluster.master_pid(), "KILL");
    cluster.wait_view("the next master", |view| view.master_restarts == 1);
    wait_until("more of them", || seen(&cluster).values().all(|paths| paths.len() > 1));
    assert_eq!(cluster.app().workers_ready, 0);
    let told = String::from_utf8(cluster.cli(&["describe", "web"]).stdout).unwrap();
    assert!(told.contains("slot 1: not ready yet: "), "{told}");
    fs::remove_file(cluster.folder.path().join("gate")).unwrap();
    cluster.wait_ready(2);
    let after_the_first = &["/", "/api", "/bad"].repeat(4)[1..];
    assert!(seen(&cluster).values().all(|paths| paths.ends_with(&owned(after_the_first))), "{:?}", seen(&cluster));
    assert_eq!(cluster.app().restarts, 0);
    cluster.stop();
}

#[test]
fn a_worker_is_warmed_up_once_it_is_ready_and_then_asked_whether_it_is_well() {
    let keys = format!("{WARM_UP}ready = \"http:/healthz\"\n[app.alive]\nhttp = \"/alive\"\nevery = \"50ms\"\n");
    let cluster = start("round-robin", &keys);
    wait_until("liveness probes", || seen(&cluster).values().all(|paths| paths.len() > 14));
    for (pid, paths) in seen(&cluster) {
        let (readiness, rest) = paths.split_at(1);
        let (warm_up, alive) = rest.split_at(12);
        assert_eq!(readiness, ["/healthz"], "{pid}");
        assert_eq!(warm_up, ["/", "/api", "/bad"].repeat(4), "{pid}");
        assert!(alive.iter().all(|path| path == "/alive"), "{pid}: {paths:?}");
    }
    cluster.stop();
}

#[test]
fn a_warm_up_that_would_reach_other_workers_or_clients_first_is_refused() {
    let folder = Folder::new();
    let refused = |keys: &str, why: &str| {
        let text = format!("[[app]]\nname = \"web\"\ncommand = [\"node\", \"app.js\"]\n{keys}\n");
        folder.write("c.toml", &text);
        let (code, _, said) = run(&folder, &["check", "-c", "c.toml"]);
        assert!(code != 0 && said.contains(why), "{keys}: {code} {said}");
    };
    refused("warmup = [\"/\"]\nbalance = \"shared\"", "c.toml:4");
    refused("warmup = [\"/\"]\nbalance = \"shared\"", "use \"round-robin\"");
    refused("warmup = [\"/\"]\nprotocol = \"bind\"", "ready = \"notify\"");
    refused("warmup = [\"/\"]\nbalance = \"kernel\"\nlisten = \"unix:x.sock\"", "share a unix socket");
    refused("warmup = \"api\"", "begins with a slash");
    refused("warmup = \"/\"\nwarmup_times = 0", "from 1 to 1000");
    refused("warmup_times = 3", "nothing is asked: warmup");
    refused(&format!("warmup = [{}]", "\"/\", ".repeat(33)), "32 is the most");
}
