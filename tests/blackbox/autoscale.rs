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
fn workers_follow(most: u32, balance: &str, by: &str, keep_alive: bool, in_between: impl FnOnce(&Cluster)) {
    let app = format!("command = [\"node\", \"app.js\"]\nlisten = \"127.0.0.1:0\"\nbalance = \"{balance}\"");
    // So low that the clients of any machine exceed it, and high enough for the end of a start.
    let scale = format!("by = \"{by}\"\ntarget = \"4%\"\ncooldown = \"2s\"");
    let cluster = start(&format!("2..{most}"), &app, &scale);
    cluster.wait_ready(2);
    let begins = Instant::now();
    let load = Load::start(cluster.address(), 6, keep_alive);
    cluster.wait_ready(most);
    eprintln!("from 2 to {most} workers {:?} after a step of load", begins.elapsed());
    let line = cluster.wait_line("web: scaled from ");
    assert!(line.contains(&format!("workers: {by} use ")) && line.contains("%, target 4%"), "{line}");
    in_between(&cluster);
    if balance != "kernel" {
        let has_one = |view: &Deployment| view.apps[0].workers.iter().all(|worker| worker.handoffs > 0);
        cluster.wait_view("a connection for every worker", has_one);
    }
    let pids = cluster.worker_pids();
    load.wait_more(200);
    assert_eq!(cluster.worker_pids(), pids, "nobody was replaced, and there are not more");
    assert_eq!(pids.len(), most as usize);
    let seen = load.finish();
    cluster.wait_ready(2);
    assert_eq!((seen.refused, seen.cut, seen.hung, seen.wrong, seen.idle_closed), (0, 0, 0, 0, 0), "{seen:?}");
    assert!(pids.iter().all(|pid| seen.by_pid.contains_key(pid)), "new workers took load: {seen:?} {pids:?}");
    let view = cluster.try_view().unwrap();
    let last = scale_of(&view).last_change.clone().unwrap_or_default();
    assert!(last.contains(&format!("to 2 workers: {by} use ")), "{view:#?}");
    cluster.stop();
}

#[test]
#[ignore = "long: a load, and a cooldown after it"]
fn a_step_of_load_brings_workers_also_beyond_the_death_of_a_master() {
    workers_follow(6, "round-robin", "cpu", false, |cluster| {
        let pids = cluster.worker_pids();
        kill(cluster.master_pid(), "KILL");
        let view = cluster.wait_view("another master", |view| view.master_restarts == 1);
        assert_eq!(view.apps[0].workers_wanted, 6);
        assert!(scale_of(&view).last_change.as_ref().is_some_and(|last| last.contains("to 6 workers")), "{view:#?}");
        assert_eq!(cluster.worker_pids(), pids);
    });
}

#[test]
#[ignore = "long: a load, and a cooldown after it"]
fn new_workers_take_kept_connections_of_the_others_and_a_reload_keeps_their_number() {
    workers_follow(4, "round-robin", "cpu", true, |cluster| {
        let done = cluster.cli(&["reload", "web"]);
        assert!(done.status.success(), "{done:?}");
        let view = cluster.wait_view("the reload", |view| view.apps[0].generation == 2);
        assert_eq!((view.apps[0].workers_wanted, scale_of(&view).by_hand), (4, false));
        cluster.wait_ready(4);
    });
}

#[test]
#[ignore = "long: a load, and a cooldown after it"]
fn workers_that_accept_by_themselves_follow_the_use_of_their_loops() {
    workers_follow(4, "kernel", "loop", false, |_| {});
}

/// Handles one connection after the other, each for a time in which it uses no CPU.
const BLOCKING: &str = "import http.server, os, time
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        time.sleep(0.05)
        body = ('{\"pid\": %d}' % os.getpid()).encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
http.server.HTTPServer(('127.0.0.1', int(os.environ['PORT'])), Answer).serve_forever()
";

#[test]
#[ignore = "long: a load, and two cooldowns after it"]
fn connections_that_wait_bring_workers_where_no_cpu_is_used() {
    let folder = Folder::new();
    folder.write("app.py", BLOCKING);
    let text = "[[app]]\nname = \"web\"\nworkers = \"1..3\"\ncommand = [\"python3\", \"app.py\"]\n\
                listen = \"127.0.0.1:0\"\n[app.scale]\nby = \"queue\"\ntarget = 1\ncooldown = \"1s\"\n";
    folder.write("c.toml", text);
    let cluster = Cluster::start_in(folder, &["-c", "c.toml"], |_| {});
    cluster.wait_view("ready, or a refusal", |view| {
        view.apps[0].workers_ready == 1 || cluster.stderr().iter().any(|line| line.contains("refuses the filter"))
    });
    if cluster.stderr().iter().any(|line| line.contains("refuses the filter")) {
        eprintln!("skipped: the system refuses the filter");
        return;
    }
    let load = Load::start(cluster.address(), 12, false);
    cluster.wait_ready(3);
    let line = cluster.wait_line("web: scaled from 1 to ");
    assert!(line.contains("connections wait for each, target 1"), "{line}");
    load.wait_more(30);
    let seen = load.finish();
    cluster.wait_line("web: scaled from 3 to 2 workers");
    cluster.wait_line("web: scaled from 2 to 1 worker:");
    cluster.wait_ready(1);
    assert_eq!((seen.refused, seen.cut, seen.hung, seen.wrong), (0, 0, 0, 0), "{seen:?}");
    cluster.stop();
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
    cluster.signal("TTIN");
    cluster.wait_line("web: scaled from 2 to 3 workers by hand");
    cluster.wait_ready(3);
    cluster.signal("USR2");
    cluster.wait_ready(2);
    assert!(!cluster.app().scale.is_some_and(|scale| scale.by_hand), "as configured again");
    assert!(text(&["scale", "web", "3"]).0);
    cluster.wait_ready(3);
    assert!(text(&["reload", "web"]).0);
    let view = cluster.wait_view("a reload", |view| view.apps[0].generation == 2 && view.apps[0].workers_wanted == 2);
    assert!(!scale_of(&view).by_hand, "{view:#?}");
    cluster.stop();
}

#[test]
fn a_schedule_raises_the_lower_bound() {
    let sleep = "command = [\"sleep\", \"1000\"]\nprotocol = \"none\"\nready = \"1ms\"";
    // The time of the first entry came within the last second, that of the other one in January.
    let schedule = "schedule = [{ cron = \"* * * * * *\", workers = 2 }, { cron = \"0 0 1 1 *\", workers = 3 }]";
    let cluster = start("1..3", sleep, schedule);
    cluster.wait_line("web: scaled from 1 to 2 workers: schedule \"* * * * * *\"");
    cluster.wait_ready(2);
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
