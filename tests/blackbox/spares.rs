//! Spares: a worker that died is replaced by one that is ready already. Starts are held up by a file here, so that what a
//! promoted spare answers is not answered by anybody who started meanwhile.
use super::client::who;
use super::cluster::{Cluster, Folder, kill, run};
use clusterd::api::types::{Deployment, Worker, WorkerState};
use std::collections::BTreeSet;
use std::fs;

/// Answers with its pid. It does not listen while there is a file `gate` in its folder.
const NODE: &str = "const fs = require('node:fs');
const server = require('node:http').createServer((q, s) => s.end(JSON.stringify({ pid: process.pid })));
(function start() {
  if (fs.existsSync('gate')) return setTimeout(start, 10);
  server.listen(process.env.PORT);
})();";

const PYTHON: &str = "import http.server, json, os, time
class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        body = json.dumps({'pid': os.getpid()}).encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
while os.path.exists('gate'):
    time.sleep(0.01)
http.server.ThreadingHTTPServer(('0.0.0.0', int(os.environ['PORT'])), Answer).serve_forever()
";

/// Requests on connections of their own, enough to reach every worker that gets any.
const REQUESTS: usize = 40;

fn start(options: &[&str], command: &[&str]) -> Cluster {
    let folder = Folder::new();
    folder.write("app.js", NODE);
    folder.write("app.py", PYTHON);
    let mut args = vec!["-w", "2", "--spares", "1", "--port", "0", "--ready-timeout", "60s"];
    args.extend(options);
    args.push("--");
    args.extend(command);
    Cluster::start_in(folder, &args, |_| {})
}

/// Waits for two workers that serve and a spare; their pids.
fn wait_whole(cluster: &Cluster) -> ([i32; 2], i32) {
    let is_whole = |view: &Deployment| {
        let app = &view.apps[0];
        (app.workers_ready, app.spares_ready, app.workers.len()) == (2, 1, 3)
    };
    let app = cluster.wait_view("two workers and a spare", is_whole).apps.remove(0);
    assert_eq!((app.workers_wanted, app.spares_wanted), (2, 1));
    let pids = |state| app.workers.iter().filter(move |w| w.state == state).filter_map(|w: &Worker| w.pid);
    let serving: Vec<i32> = pids(WorkerState::Ready).collect();
    ([serving[0], serving[1]], pids(WorkerState::Spare).next().unwrap())
}

/// Who answers.
fn answering(cluster: &Cluster) -> BTreeSet<i32> {
    let address = cluster.address();
    (0..REQUESTS).map(|_| who(address)).collect()
}

/// Kills a worker that serves, while nobody can start.
fn a_spare_serves_for_a_killed_worker(cluster: &Cluster) {
    let gate = cluster.folder.path().join("gate");
    for _ in 0..2 {
        let (serving, spare) = wait_whole(cluster);
        assert_eq!(answering(cluster), BTreeSet::from(serving), "and never the spare, {spare}");
        fs::write(&gate, "").unwrap();
        kill(serving[0], "KILL");
        let view = cluster.wait_view("the spare serves", |view| {
            let app = &view.apps[0];
            app.workers_ready == 2 && app.workers.iter().any(|w| w.pid == Some(spare) && w.state == WorkerState::Ready)
        });
        let starts = |w: &&Worker| matches!(w.state, WorkerState::Starting | WorkerState::Online);
        assert_eq!(view.apps[0].workers.iter().filter(starts).count(), 1, "the next spare: {view:#?}");
        assert_eq!(answering(cluster), BTreeSet::from([serving[1], spare]), "both, before the next one could start");
        fs::remove_file(&gate).unwrap();
    }
    wait_whole(cluster);
}

#[test]
fn a_spare_serves_at_once_for_a_killed_worker() {
    let cluster = start(&[], &["node", "app.js"]);
    a_spare_serves_for_a_killed_worker(&cluster);
    let line = cluster.wait_line(": spare worker ");
    assert!(line.contains("app/"), "{line}");
    cluster.stop();
}

#[test]
#[ignore = "long: a variant of what quicker tests show"]
fn a_spare_has_a_socket_of_its_own_and_gets_nothing_there_with_balance_kernel() {
    let cluster = start(&["-b", "kernel"], &["node", "app.js"]);
    a_spare_serves_for_a_killed_worker(&cluster);
    cluster.stop();
}

#[test]
#[ignore = "long: a variant of what quicker tests show"]
fn a_program_that_binds_its_port_is_held_back_too() {
    let cluster = start(&["--protocol", "bind"], &["python3", "app.py"]);
    cluster.wait_view("ready, or a refusal", |view| {
        view.apps[0].workers_ready == 2 || cluster.stderr().iter().any(|line| line.contains("refuses the filter"))
    });
    if cluster.stderr().iter().any(|line| line.contains("refuses the filter")) {
        eprintln!("skipped: the system refuses the filter");
        return;
    }
    a_spare_serves_for_a_killed_worker(&cluster);
    cluster.stop();
}

#[test]
#[ignore = "long: a variant of what quicker tests show"]
fn a_killed_master_and_a_reload_leave_the_spare_a_spare() {
    let cluster = start(&[], &["node", "app.js"]);
    let (serving, spare) = wait_whole(&cluster);
    kill(cluster.master_pid(), "KILL");
    cluster.wait_view("the next master", |view| view.master_restarts == 1);
    assert_eq!(wait_whole(&cluster), (serving, spare), "the workers notice nothing");
    assert_eq!(answering(&cluster), BTreeSet::from(serving));
    let done = cluster.cli(&["reload", "app"]);
    assert!(done.status.success(), "{done:?}");
    let (renewed, new_spare) = wait_whole(&cluster);
    let (old, new) =
        (BTreeSet::from([serving[0], serving[1], spare]), BTreeSet::from([renewed[0], renewed[1], new_spare]));
    assert!(old.is_disjoint(&new), "{old:?} {new:?}");
    assert_eq!(answering(&cluster), BTreeSet::from(renewed));
    a_spare_serves_for_a_killed_worker(&cluster);
    cluster.stop();
}

#[test]
fn people_see_the_spare() {
    let cluster = start(&["--name", "web"], &["node", "app.js"]);
    let (_, spare) = wait_whole(&cluster);
    let said = |args: &[&str]| String::from_utf8_lossy(&cluster.cli(args).stdout).into_owned();
    let list = said(&["ls"]);
    assert!(list.contains("2/2 ready and 1/1 spare"), "{list}");
    let row = list.lines().find(|line| line.contains(&spare.to_string())).unwrap_or_default();
    assert!(row.contains("spare"), "{list}");
    let described = said(&["describe", "web"]);
    assert!(described.contains("2 of 2 workers ready, and 1 of 1 spare"), "{described}");
    let done = cluster.cli(&["scale", "web", "3"]);
    assert!(done.status.success(), "{done:?}");
    cluster.wait_view("three and a spare", |view| {
        let app = &view.apps[0];
        (app.workers_wanted, app.workers_ready, app.spares_ready, app.workers.len()) == (3, 3, 1, 4)
    });
    cluster.stop();
}

#[test]
fn where_nobody_can_be_held_back_spares_are_an_error_with_a_way_out() {
    let folder = Folder::new();
    folder.write("app.js", NODE);
    let refused = |options: &[&str], way_out: &str| {
        let mut args = vec!["--spares", "1"];
        args.extend(options);
        args.extend(["--", "node", "app.js"]);
        let (code, _, said) = run(&folder, &args);
        assert!(code != 0 && said.contains("spares need") && said.contains(way_out), "{options:?}: {code} {said}");
    };
    refused(&["-b", "shared", "--port", "0"], "use \"round-robin\"");
    refused(&["--protocol", "none"], "protocol \"bind\"");
    refused(&["--protocol", "bind"], "add --port or listen");
    refused(&["--protocol", "listen-fds", "--port", "0"], "use \"kernel\"");
    refused(&["-b", "kernel", "--listen", "unix:app.sock"], "listen on a port");
}
