//! `ready = "http:/healthz"`: the worker itself is asked until it answers well. What it sees of that, who gets nothing
//! before, what a reload makes of bad answers, what becomes of it when the master dies, and what is refused.
use super::client::{Load, get};
use super::cluster::{Cluster, Folder, PATIENCE, kill, run, wait_until};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;

/// Notes every request in the file `seen`. `/healthz` is answered with 503 three times, and as long as there is no file
/// `gate`; then with 200.
const APP: &str = "const fs = require('node:fs'); let asked = 0;
const server = require('node:http').createServer((q, s) => {
  fs.appendFileSync('seen', `${process.pid} ${q.url} ${q.rawHeaders.join('|')} ${q.socket.remoteAddress}\\n`);
  if (q.url === '/healthz') s.statusCode = ++asked > 3 && fs.existsSync('gate') ? 200 : 503;
  s.end(JSON.stringify({ pid: process.pid }));
});
server.listen(process.env.WHERE || process.env.PORT);";

fn start(folder: Folder, options: &[&str]) -> Cluster {
    let fixed = ["-w", "2", "--name", "web", "--ready", "http:/healthz"];
    let args = [&fixed, options, &["--", "node", "app.js"]].concat();
    Cluster::start_in(folder, &args, |_| {})
}

fn folder(app: &str) -> Folder {
    let folder = Folder::new();
    folder.write("app.js", app);
    folder
}

const LOCAL: [&str; 4] = ["--host", "127.0.0.1", "--port", "0"];

/// What the workers saw: path, and the rest of the line, by pid, in order.
fn seen(cluster: &Cluster) -> BTreeMap<i32, Vec<(String, String)>> {
    let text = std::fs::read_to_string(cluster.folder.path().join("seen")).unwrap_or_default();
    let mut all: BTreeMap<i32, Vec<(String, String)>> = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.splitn(3, ' ');
        let mut word = || words.next().unwrap_or_default().to_owned();
        let (pid, path, rest) = (word(), word(), word());
        all.entry(pid.parse().unwrap()).or_default().push((path, rest));
    }
    all
}

/// Both workers were asked several times, and were not well.
fn wait_asked(cluster: &Cluster, times: usize) {
    wait_until("workers that were asked", || {
        let seen = seen(cluster);
        seen.len() == 2 && seen.values().all(|all| all.len() >= times)
    });
}

/// Every worker was asked as we ask, and no client came before it had answered well.
fn asked_first(cluster: &Cluster, from: &str) {
    let asks = format!("Host|localhost|User-Agent|clusterd/{}|Connection|close {from}", env!("CARGO_PKG_VERSION"));
    for (pid, all) in seen(cluster) {
        let first_other = all.iter().position(|(path, _)| path != "/healthz").unwrap_or(all.len());
        let (before, after) = all.split_at(first_other);
        assert!(before.len() >= 4, "{pid} answered 503 three times: {all:?}");
        assert!(before.iter().all(|(_, rest)| *rest == asks), "{pid}: {before:?}, not {asks}");
        assert!(after.iter().all(|(path, _)| path == "/"), "{pid} was asked when it was ready: {after:?}");
    }
}

#[test]
fn a_worker_is_ready_when_it_answers_well_and_clients_wait_until_then() {
    for balance in ["round-robin", "sticky"] {
        let cluster = start(folder(APP), &[&LOCAL[..], &["-b", balance]].concat());
        wait_asked(&cluster, 5);
        let address = cluster.address();
        let clients: Vec<_> = (0..4)
            .map(|_| {
                let mut early = TcpStream::connect(address).unwrap();
                early.set_read_timeout(Some(PATIENCE)).unwrap();
                early.write_all(b"GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").unwrap();
                early
            })
            .collect();
        let times = seen(&cluster).values().map(Vec::len).max().unwrap();
        wait_asked(&cluster, times + 1);
        assert_eq!(cluster.app().workers_ready, 0, "503 makes nobody ready");
        let told = String::from_utf8(cluster.cli(&["describe", "web"]).stdout).unwrap();
        let lacks = "slot 1: not ready yet: GET /healthz was answered with 503";
        let rule = told.lines().find_map(|line| line.trim().strip_prefix("ready by")).map(str::trim);
        assert!(rule == Some("http:/healthz") && told.contains(lacks), "{told}");
        cluster.folder.write("gate", "");
        cluster.wait_ready(2);
        for mut early in clients {
            let mut answer = String::new();
            early.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
        asked_first(&cluster, "127.0.0.1");
        let app = cluster.app();
        assert_eq!((app.handoffs, app.restarts), (4, 0), "probes do not count as clients");
        cluster.stop();
    }
}

#[test]
fn workers_that_accept_by_themselves_are_asked_each_by_itself() {
    for balance in ["shared", "kernel"] {
        let folder = folder(APP);
        folder.write("gate", "");
        let cluster = start(folder, &[&LOCAL[..], &["-b", balance]].concat());
        cluster.wait_ready(2);
        let asked = seen(&cluster);
        assert_eq!(asked.keys().copied().collect::<Vec<_>>(), sorted(cluster.worker_pids()), "{balance}");
        assert!(asked.values().all(|all| all.len() == 4), "{balance}: {asked:?}");
        assert!(get(cluster.address(), "/").is_ok());
        asked_first(&cluster, "127.0.0.1");
        cluster.stop();
    }
}

fn sorted(mut pids: Vec<i32>) -> Vec<i32> {
    pids.sort_unstable();
    pids
}

#[test]
fn a_server_on_a_unix_socket_is_asked_over_one() {
    let folder = folder(APP);
    folder.write("gate", "");
    let path = folder.path().join("app.sock").display().to_string();
    let args = ["-w", "2", "--name", "web", "--ready", "http:/healthz", "-l", &path, "--", "node", "app.js"];
    let cluster = Cluster::start_in(folder, &args, |command| {
        command.env("WHERE", &path);
    });
    cluster.wait_ready(2);
    assert!(seen(&cluster).values().all(|all| all.len() == 4));
    asked_first(&cluster, "undefined");
    cluster.stop();
}

#[test]
fn of_several_addresses_the_first_configured_one_is_asked() {
    let app = "const { createServer } = require('node:http'); const fs = require('node:fs');
const answer = (status) => (q, s) => { s.statusCode = status; s.end('{}'); };
const own = createServer(answer(500)).listen(0, () => createServer(answer(500)).listen(fs.readFileSync('second', 'utf8'),
  () => createServer(answer(302)).listen(process.env.PORT)));";
    let folder = folder(app);
    let second = folder.path().join("second.sock").display().to_string();
    folder.write("second", &second);
    let cluster = start(folder, &[&LOCAL[..], &["-l", &second]].concat());
    cluster.wait_ready(2);
    assert_eq!(cluster.app().restarts, 0);
    cluster.stop();
}

/// A reload to this code fails and says so, and nobody notices.
fn bad_answer(code: &str, wanted: &str) {
    let folder = folder(APP);
    folder.write("gate", "");
    let cluster = start(folder, &[&LOCAL[..], &["--ready-timeout", "8s"]].concat());
    cluster.wait_ready(2);
    let before = cluster.worker_pids();
    cluster.folder.write("app.js", code);
    let load = Load::start(cluster.address(), 4, false);
    let refused = cluster.cli(&["reload", "web"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("was not ready after 8 s: ") && said.contains(wanted), "{said}");
    load.wait_more(50);
    let tally = load.finish();
    assert_eq!((tally.refused, tally.cut, tally.hung, tally.wrong), (0, 0, 0, 0), "{tally:?}");
    assert_eq!(cluster.worker_pids(), before, "the old workers were never touched");
    cluster.folder.write("app.js", APP);
    let done = cluster.cli(&["reload", "web"]);
    assert!(done.status.success(), "{done:?}");
    asked_first(&cluster, "127.0.0.1");
    cluster.stop();
}

#[test]
#[ignore = "a long load"]
fn a_reload_to_code_that_answers_500_goes_back_and_says_so() {
    let _turn = super::common::turns::turn();
    let code = "require('node:http').createServer((q, s) => { s.statusCode = 500; s.end(); }).listen(process.env.PORT)";
    bad_answer(code, "GET /healthz was answered with 500");
}

#[test]
#[ignore = "a long load"]
fn a_reload_to_code_that_never_listens_goes_back_and_says_so() {
    let _turn = super::common::turns::turn();
    bad_answer("setInterval(() => {}, 1000)", "it never called listen()");
}

#[test]
#[ignore = "a long load"]
fn a_reload_to_code_that_never_answers_goes_back_and_says_so() {
    let _turn = super::common::turns::turn();
    bad_answer("require('node:http').createServer(() => {}).listen(process.env.PORT)", "was not answered within 5 s");
}

#[test]
#[ignore = "a long load"]
fn a_reload_to_code_that_speaks_tls_or_no_http_at_all_goes_back_and_says_so() {
    let _turn = super::common::turns::turn();
    bad_answer("require('node:https').createServer(() => {}).listen(process.env.PORT)", "speaks TLS");
    let mail = "require('node:net').createServer((c) => c.end('220 mail\\r\\n')).listen(process.env.PORT)";
    bad_answer(mail, "was not answered in HTTP/1, but with \"220 mail\\r\\n\"");
}

#[test]
fn a_first_start_that_never_answers_well_says_so() {
    let folder = folder(APP);
    let args = ["start", "app.js", "-w", "1", "-p", "0", "--ready", "http:/nothing-here", "--ready-timeout", "3s"];
    folder.write("app.js", &APP.replace("'/healthz'", "'/'").replace("s.end", "s.statusCode = 404; s.end"));
    let (code, _, err) = run(&folder, &args);
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("GET /nothing-here was answered with 404"), "{err}");
    run(&folder, &["delete", "all", "--now"]);
}

#[test]
fn the_next_master_asks_again_and_no_worker_is_lost_over_it() {
    let cluster = start(folder(APP), &LOCAL);
    wait_asked(&cluster, 2);
    let pids = sorted(cluster.worker_pids());
    for restarts in 1..=2 {
        kill(cluster.master_pid(), "KILL");
        cluster.wait_view("the next master", |view| view.master_restarts == restarts);
        let times = seen(&cluster).values().map(Vec::len).max().unwrap();
        wait_asked(&cluster, times + 2);
        assert_eq!(cluster.app().workers_ready, 0);
    }
    cluster.folder.write("gate", "");
    cluster.wait_ready(2);
    assert_eq!(sorted(cluster.worker_pids()), pids);
    assert!(get(cluster.address(), "/").is_ok());
    asked_first(&cluster, "127.0.0.1");
    cluster.stop();
}

#[test]
fn a_question_that_is_open_when_the_master_dies_harms_nobody() {
    // The first request takes until the gate opens, whoever asks.
    let app = "const fs = require('node:fs');
require('node:http').createServer((q, s) => {
  fs.appendFileSync('seen', `${process.pid} ${q.url} x\\n`);
  const answer = () => (fs.existsSync('gate') ? s.end(JSON.stringify({ pid: process.pid })) : setTimeout(answer, 20));
  answer();
}).listen(process.env.PORT);";
    let cluster = start(folder(app), &LOCAL);
    wait_asked(&cluster, 1);
    let pids = sorted(cluster.worker_pids());
    kill(cluster.master_pid(), "KILL");
    wait_asked(&cluster, 2);
    cluster.folder.write("gate", "");
    cluster.wait_ready(2);
    assert_eq!(sorted(cluster.worker_pids()), pids);
    assert!(get(cluster.address(), "/").is_ok());
    cluster.stop();
}

#[test]
fn a_large_answer_is_let_go_by_and_not_cut_off() {
    let app = "const fs = require('node:fs');
require('node:http').createServer((q, s) => {
  s.on('close', () => fs.appendFileSync('seen', `${process.pid} ${s.writableFinished} x\\n`));
  s.end(Buffer.alloc(500000, 'x'));
}).on('clientError', () => fs.appendFileSync('seen', `${process.pid} clientError x\\n`)).listen(process.env.PORT);";
    let cluster = start(folder(app), &LOCAL);
    cluster.wait_ready(2);
    wait_asked(&cluster, 1);
    assert!(seen(&cluster).values().flatten().all(|(path, _)| path == "true"), "{:?}", seen(&cluster));
    cluster.stop();
}

#[test]
fn rules_that_cannot_be_asked_for_are_refused_with_the_way_out() {
    let folder = folder(APP);
    let typed = [
        ("http:", "write \"http:/healthz\""),
        ("http:healthz", "write \"http:/healthz\""),
        ("/healthz", "write \"http:/healthz\""),
        ("http://127.0.0.1:80/x", "write \"http:/x\""),
        ("https:/x", "plain HTTP"),
        ("http:/a b", "%20"),
        ("http:/x or 2s", "goes with no other rule"),
    ];
    for (rule, wanted) in typed {
        let (code, _, err) = run(&folder, &["check", "--ready", rule, "--", "node", "app.js"]);
        assert!(code == 2 && err.contains(wanted), "{rule}: {code} {err}");
        folder.write("c.toml", &format!("[[app]]\ncommand = [\"node\", \"app.js\"]\nready = \"{rule}\"\n"));
        let (code, _, err) = run(&folder, &["check", "-c", "c.toml"]);
        assert!(code == 2 && err.contains(wanted) && err.contains("c.toml:3:9"), "{rule}: {code} {err}");
    }
    for (wanted_code, options, wanted) in [
        (1, &["-p", "0"][..], "use \"notify\" or a time such as \"2s\""),
        (2, &["-p", "0", "--protocol", "listen-fds"], "\"notify\" (the program says READY=1"),
        (2, &["--protocol", "none"], "use a time such as \"2s\""),
    ] {
        let args = [&["--ready", "http:/x"], options, &["--", "sleep", "5"]].concat();
        let (code, _, err) = run(&folder, &args);
        assert!(code == wanted_code && err.contains(wanted), "{code} {err}");
    }
    let (code, out, err) = run(&folder, &["check", "--ready", "http:/healthz?full=1", "--", "node", "app.js"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("http:/healthz?full=1, within 30s"), "{out}");
}
