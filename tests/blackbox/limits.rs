//! Workers that live and are not well: stuck event loops, and limits that replace a worker before it does harm.
use super::client::{Load, get, who};
use super::cluster::{Cluster, Folder, kill, wait_end, wait_for, wait_until};
use clusterd::api::types::{Deployment, Worker};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Answers with its pid; `/block` stops its event loop until the file `go` is there. Who stops for good says so in the file `stuck`.
const APP: &str = "const fs = require('node:fs');
if (process.env.HEEDLESS) process.on('SIGABRT', () => {});
process.on('SIGINT', () => {});
function blockingHandler() { for (;;); }
require('node:http').createServer((q, s) => {
  if (['/block', '/inside', '/outside'].includes(q.url)) fs.writeFileSync('stuck', String(process.pid));
  if (q.url === '/block') while (!fs.existsSync('go')) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5);
  if (q.url === '/inside') blockingHandler();
  if (q.url === '/outside') require('node:child_process').execSync('sleep 1000');
  if (q.url === '/leak') { global.leak ??= []; leak.push(Buffer.alloc(64 * 1024 * 1024, 1)); }
  s.end(JSON.stringify({ pid: process.pid }));
}).listen(process.env.PORT);";

/// Held by a test whose worker turns in a loop for good: two of them would leave nothing of two CPUs to anybody else.
fn whole_cpu() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Two workers of it under these limits.
fn start(limits: &str) -> Cluster {
    let folder = Folder::new();
    folder.write("app.js", APP);
    let config = "[[app]]\nname = \"web\"\ncommand = [\"node\", \"app.js\"]\nworkers = 2\nlisten = \"127.0.0.1:0\"\n";
    folder.write("c.toml", &format!("{config}{limits}"));
    let cluster = Cluster::start_in(folder, &["-c", "c.toml"], |_| {});
    cluster.wait_ready(2);
    cluster
}

fn delays(view: &Deployment) -> Vec<Option<f64>> {
    view.apps[0].workers.iter().map(|worker| worker.loop_delay_ms).collect()
}

/// The delay of this worker's event loop; `None`: it is not ready any more.
fn delay_of(view: &Deployment, pid: i32) -> Option<f64> {
    let is_it = |worker: &&Worker| worker.pid == Some(pid) && worker.state == "ready";
    view.apps[0].workers.iter().find(is_it).map(|worker| worker.loop_delay_ms.unwrap_or(0.0))
}

/// The worker that has stopped, by its own word: on a busy machine another one may be slow too.
fn stuck_worker(cluster: &Cluster) -> i32 {
    let path = cluster.folder.path().join("stuck");
    wait_for("a worker that says that it stops", || std::fs::read_to_string(&path).ok()?.parse().ok())
}

#[test]
fn a_stuck_event_loop_shows_its_delay_and_gets_no_connections_until_it_turns() {
    let cluster = start("");
    let address = cluster.address();
    cluster
        .wait_view("delays of idle loops", |view| delays(view).iter().all(|delay| delay.is_some_and(|ms| ms < 500.0)));
    let blocked = std::thread::spawn(move || get(address, "/block"));
    let stuck = stuck_worker(&cluster);
    // It was pinged when it was stuck, and the next ping was due.
    let view =
        cluster.wait_view("a stuck loop", |view| delay_of(view, stuck).expect("nothing ends what hangs") > 1_500.0);
    let table = String::from_utf8(cluster.cli(&["ls"]).stdout).unwrap();
    assert!(table.contains("DELAY"), "{table}");
    for _ in 0..40 {
        assert_ne!(who(address), stuck);
    }
    let taken = |view: &Deployment| view.apps[0].workers.iter().find(|w| w.pid == Some(stuck)).unwrap().handoffs;
    assert_eq!(taken(&view), taken(&cluster.try_view().unwrap()));
    cluster.folder.write("go", "");
    assert!(blocked.join().unwrap().unwrap().contains(&stuck.to_string()));
    cluster.wait_view("its turn", |_| who(address) == stuck);
    cluster.stop();
}

/// Waits until neither of these pids is a worker of the app and two others are ready.
fn wait_for_others(cluster: &Cluster, before: &[i32]) -> Deployment {
    cluster.wait_view("other workers", |view| {
        let app = &view.apps[0];
        app.workers_ready == 2
            && app.workers.len() == 2
            && app.workers.iter().all(|w| w.pid.is_some_and(|pid| !before.contains(&pid)))
    })
}

fn loses_nothing(load: Load) {
    let seen = load.finish();
    assert_eq!((seen.refused, seen.cut, seen.hung, seen.wrong), (0, 0, 0, 0), "{seen:?}");
}

/// A worker that is stuck for good; its pid, and its client.
fn hang(cluster: &Cluster) -> (i32, JoinHandle<Result<String, String>>) {
    hang_at(cluster, "/block")
}

fn hang_at(cluster: &Cluster, path: &'static str) -> (i32, JoinHandle<Result<String, String>>) {
    let address = cluster.address();
    let client = std::thread::spawn(move || get(address, path));
    let stuck = stuck_worker(cluster);
    // Or it is being replaced already: nobody has to look at the right moment.
    cluster.wait_view("a stuck loop", |view| delay_of(view, stuck).is_none_or(|ms| ms > 900.0));
    (stuck, client)
}

#[test]
fn a_hung_worker_is_killed_and_replaced() {
    let cluster = start("[app.limits]\nhang = \"2s\"\n");
    let (stuck, client) = hang(&cluster);
    let load = Load::start(cluster.address(), 8, false);
    let line = cluster.wait_line("its event loop did not answer for 2 s");
    assert!(line.contains(&format!("(pid {stuck})")) && line.contains("replaced in"), "{line}");
    wait_end(stuck);
    wait_for_others(&cluster, &[stuck]);
    load.wait_more(50);
    loses_nothing(load);
    assert!(client.join().unwrap().is_err());
    cluster.stop();
}

#[test]
fn a_hung_worker_gets_sigabrt_first_and_sigkill_when_that_does_not_end_it() {
    let cluster =
        start("kill_timeout = \"300ms\"\nenv.HEEDLESS = \"1\"\n[app.limits]\nhang = \"1s\"\nhang_report = true\n");
    let (stuck, client) = hang(&cluster);
    cluster.wait_line("its event loop did not answer for 1 s");
    cluster.wait_line("has not ended in time; sending SIGKILL");
    wait_end(stuck);
    wait_for_others(&cluster, &[stuck]);
    assert!(client.join().unwrap().is_err());
    cluster.stop();
}

#[test]
fn a_hung_worker_can_die_of_sigabrt_and_leave_a_core() {
    let cluster = start("kill_timeout = \"1h\"\n[app.limits]\nhang = \"1s\"\nhang_report = true\n");
    let (stuck, client) = hang(&cluster);
    wait_end(stuck);
    wait_for_others(&cluster, &[stuck]);
    assert!(client.join().unwrap().is_err());
    cluster.stop();
}

/// `NODE_OPTIONS` without the preload, which comes first.
fn node_options(pid: i32) -> Option<String> {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
    let variables = environment.split(|&byte| byte == 0).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    let options = variables.filter_map(|variable| variable.strip_prefix("NODE_OPTIONS=").map(str::to_owned)).next()?;
    let (preload, rest) = options.split_once(' ').unwrap_or((&options, ""));
    assert!(preload.starts_with("--require=") && preload.ends_with(".cjs\""), "{options}");
    (!rest.is_empty()).then(|| rest.to_owned())
}

#[test]
fn a_hung_worker_leaves_a_report_that_names_the_function_that_blocks() {
    let _cpu = whole_cpu();
    let config = "env.NODE_OPTIONS = \"--max-http-header-size=20000\"\nkill_timeout = \"1h\"\n[app.limits]\nhang = \"1s\"\n\
                  hang_report = true\nhang_report_dir = \"reports\"\n";
    let cluster = start(config);
    let reports = cluster.folder.path().join("reports");
    std::fs::create_dir(&reports).unwrap();
    // Nothing of the user's is lost.
    assert_eq!(
        node_options(cluster.worker_pids()[0]).unwrap(),
        "--max-http-header-size=20000 --inspect-port=0 --inspect-publish-uid=stderr"
    );
    let (stuck, client) = hang_at(&cluster, "/inside");
    let load = Load::start(cluster.address(), 4, false);
    let line = cluster.wait_line("was stuck in blockingHandler (");
    assert!(line.contains(&format!("(pid {stuck})")) && line.contains("app.js:"), "{line}");
    let file = line.split("; its report: ").nth(1).unwrap().to_owned();
    assert!(file.starts_with(&reports.display().to_string()), "{file}");
    wait_end(stuck);
    wait_for_others(&cluster, &[stuck]);
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    assert_eq!(report["header"]["processId"], stuck);
    let stack = report["javascriptStack"]["stack"].to_string();
    assert!(stack.contains("blockingHandler") && stack.contains("app.js"), "{stack}");
    load.wait_more(20);
    loses_nothing(load);
    assert!(client.join().unwrap().is_err());
    cluster.stop();
}

#[test]
#[ignore = "long: what hangs is waited for"]
fn a_worker_that_hangs_outside_of_javascript_leaves_no_report_and_ends_all_the_same() {
    let cluster = start("kill_timeout = \"1h\"\n[app.limits]\nhang = \"1s\"\nhang_report = true\n");
    let (stuck, client) = hang_at(&cluster, "/outside");
    let line = cluster.wait_line("left no report: it opened no inspector: what blocks it is not JavaScript");
    assert!(line.contains(&format!("(pid {stuck})")), "{line}");
    wait_end(stuck);
    wait_for_others(&cluster, &[stuck]);
    assert!(client.join().unwrap().is_err());
    cluster.stop();
}

#[test]
#[ignore = "long: what hangs is waited for"]
fn a_master_that_dies_while_a_report_is_written_leaves_no_hung_worker_behind() {
    let cluster = start("kill_timeout = \"200ms\"\n[app.limits]\nhang = \"1s\"\nhang_report = true\n");
    let (stuck, client) = hang_at(&cluster, "/outside");
    cluster.wait_line("its event loop did not answer for 1 s");
    kill(cluster.master_pid(), "KILL");
    wait_end(stuck);
    wait_for_others(&cluster, &[stuck]);
    assert!(client.join().unwrap().is_err());
    cluster.stop();
}

/// What an inspector tells about its targets to whoever asks.
fn targets_told(port: u16) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(b"GET /json/list HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n").unwrap();
    // It does not close the connection; the answer is one write.
    let mut answer = vec![0; 4096];
    let length = stream.read(&mut answer).unwrap();
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

fn an_inspector_tells_no_other_user_how_it_is_used(node: &str) {
    let _cpu = whole_cpu();
    let folder = Folder::new();
    folder.write("app.js", APP);
    let config = format!(
        "[[app]]\nname = \"web\"\ncommand = [{node:?}, \"app.js\"]\nworkers = 1\nlisten = \"127.0.0.1:0\"\nprotocol = \"node\"\n\
         kill_timeout = \"1h\"\n[app.limits]\nhang = \"1s\"\nhang_report = true\n[app.log]\nerr = \"NULL\"\n"
    );
    folder.write("c.toml", &config);
    let cluster = Cluster::start_in(folder, &["-c", "c.toml"], |_| {});
    cluster.wait_ready(1);
    let pid = cluster.worker_pids()[0];
    // As when a report is asked for.
    kill(pid, "USR1");
    let mut port = None;
    wait_until("its inspector is open", || {
        port = clusterd::os::procfs::listening_ports(pid).into_iter().next();
        port.is_some()
    });
    let told = targets_told(port.unwrap());
    assert!(told.contains(" 404 ") && !told.contains("webSocketDebuggerUrl"), "{told}");
    kill(pid, "KILL");
    wait_end(pid);
    cluster.wait_view("the next one", |view| view.apps[0].workers_ready == 1);
    // Master and report find it, also after a master's death, and where stderr is discarded.
    kill(cluster.master_pid(), "KILL");
    cluster.wait_view("the next master", |view| view.master_restarts == 1 && view.apps[0].workers_ready == 1);
    let (stuck, client) = hang_at(&cluster, "/inside");
    cluster.wait_line("was stuck in blockingHandler (");
    wait_end(stuck);
    assert!(client.join().unwrap().is_err());
    cluster.stop();
}

#[test]
fn the_inspector_of_a_hung_worker_is_for_clusterd_alone() {
    an_inspector_tells_no_other_user_how_it_is_used("node");
}

#[test]
fn whoever_has_an_inspector_of_his_own_keeps_it() {
    let _cpu = whole_cpu();
    let cluster =
        start("env.NODE_OPTIONS = \"--inspect-port=40007\"\n[app.limits]\nhang = \"1s\"\nhang_report = true\n");
    let options = node_options(cluster.worker_pids()[0]).unwrap();
    assert_eq!(options, "--inspect-port=40007 --inspect-publish-uid=stderr");
    cluster.stop();
    // Open to all from the start: nothing is added, and it is asked for its target.
    let cluster = start("env.NODE_OPTIONS = \"--inspect=0\"\n[app.limits]\nhang = \"1s\"\nhang_report = true\n");
    assert_eq!(node_options(cluster.worker_pids()[0]).unwrap(), "--inspect=0");
    let (stuck, client) = hang_at(&cluster, "/inside");
    cluster.wait_line("was stuck in blockingHandler (");
    wait_end(stuck);
    assert!(client.join().unwrap().is_err());
    cluster.stop();
    // And without a report nothing is added.
    let cluster = start("[app.limits]\nhang = \"1s\"\n");
    assert_eq!(node_options(cluster.worker_pids()[0]), std::env::var("NODE_OPTIONS").ok());
    cluster.stop();
}

#[test]
fn a_worker_that_leaks_is_replaced_and_nobody_notices() {
    let cluster = start("[app.limits]\nmemory = \"250M\"\n");
    let address = cluster.address();
    let load = Load::start(address, 8, false);
    load.wait_more(50);
    let before = cluster.worker_pids();
    while !cluster.stderr().iter().any(|line| line.contains("MB of 250 MB allowed; replacing it")) {
        get(address, "/leak").unwrap();
        load.wait_more(20);
    }
    let line = cluster.wait_line("; replacing it");
    let leaky = *before.iter().find(|pid| line.contains(&format!("(pid {pid})"))).unwrap();
    cluster.wait_view("a replacement", |view| view.apps[0].workers.iter().all(|w| w.pid != Some(leaky)));
    load.wait_more(50);
    loses_nothing(load);
    cluster.stop();
}

#[test]
fn workers_whose_time_is_over_are_replaced_one_after_the_other() {
    let cluster = start("[app.limits]\nlifetime = \"5s\"\n");
    let before = cluster.worker_pids();
    let load = Load::start(cluster.address(), 8, true);
    wait_for_others(&cluster, &before);
    loses_nothing(load);
    let said =
        cluster.stderr().iter().filter(|line| line.contains("has lived") && line.contains("; replacing it")).count();
    assert!(said >= 2, "{:?}", cluster.stderr());
    cluster.stop();
}

#[test]
fn workers_that_took_their_connections_are_replaced_also_by_the_next_master() {
    let cluster = start("[app.limits]\nmax_connections = 40\n");
    let address = cluster.address();
    let before = cluster.worker_pids();
    // Half of it from one master, half from the next.
    for _ in 0..50 {
        who(address);
    }
    // It is noted with the heartbeat: two of them later it is there.
    let uptime_ms = || cluster.app().workers.iter().map(|w| w.uptime_ms.unwrap()).min().unwrap();
    let taken_at_ms = uptime_ms();
    wait_until("a note of it", || uptime_ms() > taken_at_ms + 2_500);
    kill(cluster.master_pid(), "KILL");
    cluster.wait_view("the next master", |view| view.master_restarts == 1 && view.apps[0].workers_ready == 2);
    // Together they have taken 89, so one of them has taken 40; from this master alone none has.
    for _ in 0..39 {
        who(address);
    }
    let line = cluster.wait_line("connections; replacing it");
    cluster.wait_view("a replacement", |view| {
        view.apps[0].workers.iter().any(|w| w.pid.is_some_and(|pid| !before.contains(&pid)))
    });
    assert!(line.contains("has taken"), "{line}");
    cluster.stop();
}
