//! `protocol = "bind"`: programs that bind their port by themselves, unmodified and behind wrappers, run on several workers.
//! Where the system refuses the filter, these tests are skipped with a message.
use super::client::{Load, Tally};
use super::cluster::{Cluster, Folder, alive, kill, wait_until};
use std::collections::BTreeSet;

/// A server that binds PORT by itself, on IPv4, and answers with its pid and its client's address.
const PYTHON: &str = "import http.server, json, os
class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        body = json.dumps({'pid': os.getpid(), 'client': self.client_address[0]}).encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(('0.0.0.0', int(os.environ['PORT'])), Answer).serve_forever()
";

/// Starts workers of `command`, in a folder with `server.py`. `None`: the system refuses the filter.
fn start(workers: u32, options: &[&str], command: &[&str]) -> Option<Cluster> {
    let folder = Folder::new();
    folder.write("server.py", PYTHON);
    start_in(folder, workers, options, command)
}

fn start_in(folder: Folder, workers: u32, options: &[&str], command: &[&str]) -> Option<Cluster> {
    let count = workers.to_string();
    let mut args = vec!["-w", &count, "--protocol", "bind", "--port", "0", "--ready-timeout", "20s"];
    args.extend(options);
    args.push("--");
    args.extend(command);
    let cluster = Cluster::start_in(folder, &args, |_| ());
    cluster.wait_view("ready, or a refusal", |view| {
        view.apps[0].workers_ready >= workers
            || cluster.stderr().iter().any(|line| line.contains("the system refuses the filter"))
    });
    if cluster.stderr().iter().any(|line| line.contains("the system refuses the filter")) {
        eprintln!("skipped: the system refuses the filter");
        return None;
    }
    Some(cluster)
}

fn load(cluster: &Cluster, answers: u64) -> Tally {
    let load = Load::start(cluster.address(), 4, false);
    load.wait_more(answers);
    load.finish()
}

fn nothing_lost(seen: &Tally) {
    assert_eq!((seen.refused, seen.cut, seen.hung, seen.wrong), (0, 0, 0, 0), "{seen:?}");
}

fn answered_by(seen: &Tally) -> BTreeSet<i32> {
    seen.by_pid.keys().copied().collect()
}

#[test]
fn an_unmodified_server_shares_its_port_and_a_killed_worker_loses_nothing_that_waits() {
    let Some(cluster) = start(2, &[], &["python3", "server.py"]) else { return };
    let pids: BTreeSet<i32> = cluster.worker_pids().into_iter().collect();
    let seen = load(&cluster, 200);
    nothing_lost(&seen);
    assert_eq!(answered_by(&seen), pids);
    // The next master takes over the interception: what replaces a worker is intercepted by it.
    let master = cluster.master_pid();
    kill(master, "KILL");
    wait_until("the next master", || cluster.try_view().is_some_and(|view| view.master_pid != master));
    let victim = cluster.worker_pids()[0];
    kill(victim, "KILL");
    wait_until("its end", || !alive(victim));
    cluster.wait_view("its replacement", |view| {
        view.apps[0].workers_ready == 2 && view.apps[0].workers.iter().all(|worker| worker.pid != Some(victim))
    });
    let seen = load(&cluster, 200);
    nothing_lost(&seen);
    assert_eq!(answered_by(&seen), cluster.worker_pids().into_iter().collect());
    cluster.stop();
}
