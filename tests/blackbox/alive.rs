//! `[app.alive]`: workers that serve are asked whether they are well; one that is not is replaced by another beside it, at
//! no client's cost. Under every balance, over a master's death, and what is refused.
use super::client::Load;
use super::cluster::{Cluster, Folder, kill, run};

/// `/healthz` is answered well unless there is a file `ill-SLOT-PID`; the worker answers everything else.
const APP: &str = "const fs = require('node:fs');
require('node:http').createServer((q, s) => {
  if (q.url === '/healthz') {
    if (fs.existsSync('silent-' + process.pid)) return;
    if (fs.existsSync('ill-' + process.pid)) s.statusCode = 503;
  }
  s.end(JSON.stringify({ pid: process.pid }));
}).listen(process.env.PORT);";

fn start(balance: &str, alive: &str) -> Cluster {
    let folder = Folder::new();
    folder.write("app.js", APP);
    let app = "name = \"web\"\ncommand = [\"node\", \"app.js\"]\nworkers = 2\nlisten = \"127.0.0.1:0\"";
    folder.write(
        "c.toml",
        &format!("[[app]]\n{app}\nbalance = \"{balance}\"\n[app.alive]\nhttp = \"/healthz\"\n{alive}"),
    );
    let cluster = Cluster::start_in(folder, &["-c", "c.toml"], |_| {});
    cluster.wait_ready(2);
    cluster
}

/// Both workers are ready, and the process `gone` is not among them.
fn wait_replaced(cluster: &Cluster, gone: i32) {
    cluster.wait_view("a replacement", |view| {
        let app = &view.apps[0];
        app.workers_ready == 2 && app.workers.len() == 2 && app.workers.iter().all(|worker| worker.pid != Some(gone))
    });
}

fn one_that_is_not_well_is_replaced(balance: &str) {
    let cluster = start(balance, "every = \"100ms\"\nfailures = 2\n");
    let pids = cluster.worker_pids();
    let load = Load::start(cluster.address(), 4, true);
    load.wait_more(50);
    cluster.folder.write(&format!("ill-{}", pids[0]), "");
    cluster.wait_line("is unhealthy: GET /healthz was answered with 503");
    cluster.wait_line("has failed 2 liveness probes in a row; replacing it");
    wait_replaced(&cluster, pids[0]);
    assert!(cluster.worker_pids().contains(&pids[1]), "the other one is well");
    load.wait_more(50);
    let seen = load.finish();
    assert_eq!((seen.refused, seen.cut, seen.hung, seen.wrong), (0, 0, 0, 0), "{balance}: {seen:?}");
    cluster.stop();
}

#[test]
fn a_worker_that_is_not_well_is_replaced_beside_it() {
    one_that_is_not_well_is_replaced("round-robin");
}

#[test]
#[ignore = "long: a variant of what quicker tests show"]
fn the_same_where_workers_accept_by_themselves() {
    one_that_is_not_well_is_replaced("kernel");
    one_that_is_not_well_is_replaced("shared");
}

#[test]
fn a_worker_that_does_not_answer_in_time_is_replaced_also_by_the_next_master() {
    let cluster = start("round-robin", "every = \"100ms\"\ntimeout = \"300ms\"\nfailures = 1\n");
    let pids = cluster.worker_pids();
    kill(cluster.master_pid(), "KILL");
    cluster.wait_view("the next master", |view| view.master_restarts == 1 && view.apps[0].workers_ready == 2);
    cluster.folder.write(&format!("silent-{}", pids[1]), "");
    cluster.wait_line("is unhealthy: GET /healthz was not answered within 300 ms");
    wait_replaced(&cluster, pids[1]);
    cluster.stop();
}

#[test]
fn one_failure_alone_replaces_nobody() {
    let cluster = start("round-robin", "every = \"50ms\"\nfailures = 1000\n");
    let pids = cluster.worker_pids();
    let load = Load::start(cluster.address(), 1, false);
    cluster.folder.write(&format!("ill-{}", pids[0]), "");
    load.wait_more(300);
    load.finish();
    assert_eq!(cluster.worker_pids(), pids);
    cluster.stop();
}

/// `stuck-PID` stops the event loop of that process for a while.
const STUCK: &str = "const fs = require('node:fs');
setInterval(() => {
  const file = 'stuck-' + process.pid;
  if (!fs.existsSync(file)) return;
  fs.unlinkSync(file);
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 3000);
}, 20);
require('node:net').createServer((socket) => socket.end('hello')).listen(process.env.PORT);";

fn start_with(files: &[(&str, &str)], text: &str) -> Cluster {
    let folder = Folder::new();
    files.iter().for_each(|(name, text)| drop(folder.write(name, text)));
    folder.write("c.toml", &format!("[[app]]\nname = \"web\"\nworkers = 2\n{text}"));
    let cluster = Cluster::start_in(folder, &["-c", "c.toml"], |_| {});
    cluster.wait_ready(2);
    cluster
}

#[test]
fn a_worker_that_takes_no_connection_is_replaced_whatever_it_speaks() {
    let cluster = start_with(
        &[("app.js", STUCK)],
        "command = [\"node\", \"app.js\"]\nlisten = \"127.0.0.1:0\"\n\
         [app.alive]\ntcp = true\nevery = \"50ms\"\ntimeout = \"1s\"\nfailures = 2\n",
    );
    let pids = cluster.worker_pids();
    // It speaks first, and has no listener for errors: a connection that was reset would end it.
    cluster.folder.write(&format!("stuck-{}", pids[0]), "");
    cluster.wait_line(&format!("(pid {}) is unhealthy: a connection was not accepted within 1 s", pids[0]));
    wait_replaced(&cluster, pids[0]);
    cluster.stop();
}

/// A worker without a socket, and a command that says of each whether it is well; it writes down what it was told.
#[test]
fn a_command_says_which_worker_is_not_well_also_to_the_next_master() {
    let check = "#!/bin/sh\necho \"$CLUSTERD_EVENT $CLUSTERD_APP $CLUSTERD_SLOT $CLUSTERD_PID $CLUSTERD_GENERATION\" >> told\n\
                 [ ! -e \"ill-$CLUSTERD_PID\" ] || exit 7\n\
                 [ ! -e \"slow-$CLUSTERD_PID\" ] || exec sleep 1000\n";
    let cluster = start_with(
        &[("check.sh", check)],
        "command = [\"sleep\", \"1000\"]\nprotocol = \"none\"\n\
         [app.alive]\nexec = [\"sh\", \"check.sh\"]\nevery = \"50ms\"\ntimeout = \"1s\"\nfailures = 2\n",
    );
    let pids = cluster.worker_pids();
    cluster.folder.write(&format!("ill-{}", pids[0]), "");
    cluster.wait_line("is unhealthy: sh exited with code 7");
    wait_replaced(&cluster, pids[0]);
    let told = std::fs::read_to_string(cluster.folder.path().join("told")).unwrap();
    assert!(told.lines().any(|line| line == format!("alive web 0 {} 1", pids[0])), "{told}");
    kill(cluster.master_pid(), "KILL");
    cluster.wait_view("the next master", |view| view.master_restarts == 1 && view.apps[0].workers_ready == 2);
    // On a busy machine another one may have taken its place.
    let slow = cluster.worker_pids()[1];
    cluster.folder.write(&format!("slow-{slow}"), "");
    cluster.wait_line(&format!("(pid {slow}) is unhealthy: sh did not end within 1 s and was killed"));
    wait_replaced(&cluster, slow);
    cluster.stop();
}

#[test]
fn what_cannot_be_asked_is_refused() {
    let folder = Folder::new();
    let check = |text: &str| {
        folder.write("c.toml", &format!("[[app]]\nname = \"web\"\ncommand = [\"node\", \"app.js\"]\n{text}"));
        let (code, _, err) = run(&folder, &["check", "-c", "c.toml"]);
        assert_ne!(code, 0, "{text}");
        err
    };
    let err = check("protocol = \"bind\"\nlisten = \"127.0.0.1:0\"\n[app.alive]\nhttp = \"/healthz\"\n");
    assert!(err.contains("c.toml:7:") && err.contains("needs protocol \"node\""), "{err}");
    let err = check("[app.alive]\nevery = \"5s\"\n");
    assert!(err.contains("nothing is asked") && err.contains("/healthz"), "{err}");
    let err = check("[app.alive]\nhttp = \"/healthz\"\nexec = [\"true\"]\n");
    assert!(err.contains("keep one of them"), "{err}");
    let err = check("protocol = \"bind\"\nlisten = \"127.0.0.1:0\"\n[app.alive]\ntcp = true\n");
    assert!(err.contains("alive.tcp needs protocol \"node\""), "{err}");
    let err = check("[app.alive]\nhttp = \"healthz\"\n");
    assert!(err.contains("begins with a slash"), "{err}");
    let err = check("[app.alive]\nhttp = \"/healthz\"\nfailures = 0\n");
    assert!(err.contains("failures"), "{err}");
}
