//! `protocol = "bind"`: programs that bind their port by themselves, unmodified and behind wrappers, run on several workers.
//! Where the system refuses the filter, these tests are skipped with a message.
use super::client::{Load, Tally, get, who};
use super::cluster::{Cluster, Folder, alive, kill, wait_for, wait_until};
use super::common::ports::free_port;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

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
    let cluster = Cluster::start_in(folder, &args, |command| {
        command.env("SECOND_PORT", free_port().to_string());
    });
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

fn is_there(program: &str) -> bool {
    let said = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    said.is_ok_and(|status| status.success())
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

#[test]
fn a_worker_that_has_not_bound_yet_is_not_ready_because_another_one_has() {
    // Slow to start: asked by a connection of clusterd's own into its inherited socket, which the first bind replaces.
    let folder = Folder::new();
    let wait = "import os, time\nwhile not os.path.exists('go-' + os.environ['CLUSTERD_SLOT']): time.sleep(0.01)\n";
    folder.write("server.py", &format!("{wait}{PYTHON}"));
    let args = ["-w", "2", "--protocol", "bind", "--port", "0", "--ready-timeout", "1h", "--", "python3", "server.py"];
    let cluster = Cluster::start_in(folder, &args, |_| {});
    let refused = || cluster.stderr().iter().any(|line| line.contains("the system refuses the filter"));
    let asked = || super::kernel::waiting(cluster.address()).iter().sum::<u32>();
    wait_until("a question to each, or a refusal", || refused() || asked() == 2);
    if refused() {
        eprintln!("skipped: the system refuses the filter");
        return;
    }
    cluster.folder.write("go-0", "");
    cluster.wait_view("the first one", |view| view.apps[0].workers_ready > 0);
    wait_until("another question, or a wrong answer", || asked() == 1 || cluster.app().workers_ready == 2);
    assert_eq!(cluster.app().workers_ready, 1);
    cluster.folder.write("go-1", "");
    cluster.wait_ready(2);
    let seen = load(&cluster, 60);
    nothing_lost(&seen);
    cluster.stop();
}

/// The same server, which at SIGTERM accepts nothing more and finishes what it has.
const FINISHES: &str = "import signal, threading
server = http.server.ThreadingHTTPServer(('0.0.0.0', int(os.environ['PORT'])), Answer)
server.daemon_threads = False
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever()
";

#[test]
#[ignore = "a long load"]
fn reloads_in_a_row_lose_no_connection_of_a_server_that_finishes_what_it_has() {
    const RELOADS: u32 = 6;
    let folder = Folder::new();
    let (answer, _) = PYTHON.rsplit_once("http.server.Threading").unwrap();
    folder.write("server.py", &format!("{answer}{FINISHES}"));
    let Some(cluster) = start_in(folder, 2, &[], &["python3", "server.py"]) else { return };
    let load = Load::start(cluster.address(), 4, false);
    for _ in 0..RELOADS {
        load.wait_more(50);
        let output = cluster.cli(&["reload", "all"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    load.wait_more(50);
    nothing_lost(&load.finish());
    cluster.stop();
}

/// Both workers answer, whoever binds and through whatever they are started.
fn both_answer(command: &[&str], touch: impl FnOnce(&Folder)) {
    let folder = Folder::new();
    folder.write("server.py", PYTHON);
    touch(&folder);
    let Some(cluster) = start_in(folder, 2, &[], command) else { return };
    assert_eq!(cluster.app().protocol, "bind");
    let seen = load(&cluster, 60);
    nothing_lost(&seen);
    // One that has only just begun to listen may be passed over while others have its CPU.
    let mut pids = answered_by(&seen);
    wait_until("answers of both", || {
        pids.insert(who(cluster.address()));
        pids.len() == 2
    });
    cluster.stop();
}

#[test]
#[ignore = "long: a hostile or rare program on protocol bind"]
fn wrappers_need_nothing() {
    let script = "#!/bin/sh\nX=1 nice -n 1 env Y=2 python3 server.py\n";
    both_answer(&["sh", "./start.sh"], |folder| drop(folder.write("start.sh", script)));
    // As a shell runs it: the kernel does not know what to do with it.
    both_answer(&["./start.sh", "x y"], |folder| {
        folder.write_executable("start.sh", "[ \"$1\" = 'x y' ] && exec python3 server.py\n");
    });
    let node = "require('node:http').createServer((q, s) => s.end(`pid=${process.pid}`)).listen(process.env.PORT);";
    both_answer(&["env", "X=1", "node", "app.js"], |folder| drop(folder.write("app.js", node)));
    if is_there("npm") {
        both_answer(&["npm", "start"], |folder| {
            folder.write("app.js", node);
            folder.write("package.json", r#"{"name": "web", "scripts": {"start": "node app.js"}}"#);
        });
    } else {
        eprintln!("npm start is not tested: there is no npm");
    }
}

/// A blocking server in C: one process, or children that accept from the socket of their parent.
const C: &str = r#"
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int main(int argc, char **argv) {
    int s = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(atoi(getenv("PORT"))) };
    setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(s, (void *)&a, sizeof a) || listen(s, 16)) { perror("listen"); return 1; }
    for (int n = 0; n < argc - 1; n++) if (fork() == 0) break;
    for (;;) {
        struct sockaddr_in peer; socklen_t length = sizeof peer;
        int c = accept(s, (void *)&peer, &length);
        char b[4096], out[256], body[32];
        if (c < 0 || peer.sin_family != AF_INET) return 2;
        if (read(c, b, sizeof b) > 0) {
            int n = sprintf(body, "pid=%d", getpid());
            n = sprintf(out, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", n, body);
            if (write(c, out, n) != n) return 3;
        }
        close(c);
    }
}
"#;

fn compiled() -> Option<Folder> {
    if !is_there("cc") {
        eprintln!("a program in C is not tested: there is no cc");
        return None;
    }
    let folder = Folder::new();
    folder.write("server.c", C);
    for linking in [&["-static"][..], &[]] {
        let mut cc = Command::new("cc");
        cc.current_dir(folder.path()).args(linking).args(["-o", "server", "server.c"]).stderr(Stdio::null());
        if cc.status().unwrap().success() {
            return Some(folder);
        }
    }
    panic!("cc cannot compile the server");
}

#[test]
fn a_static_program_is_one_of_several_and_so_are_its_children() {
    let Some(folder) = compiled() else { return };
    let Some(cluster) = start_in(folder, 2, &[], &["./server"]) else { return };
    let seen = load(&cluster, 100);
    nothing_lost(&seen);
    assert_eq!(answered_by(&seen), cluster.worker_pids().into_iter().collect());
    cluster.stop();
    let Some(folder) = compiled() else { return };
    let Some(cluster) = start_in(folder, 2, &[], &["./server", "a child", "another"]) else { return };
    let seen = load(&cluster, 400);
    nothing_lost(&seen);
    assert!(seen.by_pid.len() > 2, "parents and children answer: {seen:?}");
    cluster.stop();
}

#[test]
fn programs_get_a_socket_of_the_family_that_they_asked_for() {
    let Some(cluster) = start(1, &[], &["python3", "server.py"]) else { return };
    let body = get(cluster.address(), "/").unwrap();
    assert!(body.contains(r#""client": "127.0.0.1""#), "{body}");
    let v6 = SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], cluster.address().port()));
    assert!(TcpStream::connect(v6).is_err(), "nobody serves IPv6: clients are refused and try IPv4");
    cluster.stop();
}

#[test]
#[ignore = "a long load"]
fn a_reload_under_load_loses_nothing() {
    let Some(cluster) = start(2, &[], &["python3", "server.py"]) else { return };
    let before = cluster.worker_pids();
    let load = Load::start(cluster.address(), 4, false);
    load.wait_more(100);
    for _ in 0..2 {
        let (code, _, err) = run_in(&cluster, &["reload", "all"]);
        assert_eq!(code, 0, "{err}");
    }
    load.wait_more(100);
    let seen = load.finish();
    nothing_lost(&seen);
    let after = cluster.worker_pids();
    assert!(after.iter().all(|pid| !before.contains(pid) && seen.by_pid.contains_key(pid)), "{after:?} {seen:?}");
    cluster.stop();
}

/// Shuts its listening socket down before it ends, as Twisted does, and answers whom it has accepted.
const SHUTS: &str = "import signal, socket, sys, threading
source = open('server.py').read().replace('http.server.ThreadingHTTPServer(', 'server = Server(').replace('.serve_forever()', '')
import http.server
class Server(http.server.ThreadingHTTPServer):
    daemon_threads = False
exec(source)
def end(*_):
    server.socket.shutdown(socket.SHUT_RDWR)
    threading.Thread(target=server.shutdown).start()
signal.signal(signal.SIGTERM, end)
server.serve_forever()
server.server_close()
";

#[test]
#[ignore = "long: a hostile or rare program on protocol bind"]
fn the_next_workers_serve_where_a_program_shuts_its_socket_down_at_its_end() {
    let folder = Folder::new();
    folder.write("server.py", PYTHON);
    folder.write("shuts.py", SHUTS);
    let Some(cluster) = start_in(folder, 3, &[], &["python3", "shuts.py"]) else { return };
    for _ in 0..3 {
        let (code, _, err) = run_in(&cluster, &["reload", "all"]);
        assert_eq!(code, 0, "{err}");
        assert_eq!(answered_by(&load_again(&cluster)), cluster.worker_pids().into_iter().collect());
    }
    // The next master knows the order in which the sockets are in the kernel's group.
    let master = cluster.master_pid();
    kill(master, "KILL");
    wait_until("the next master", || cluster.try_view().is_some_and(|view| view.master_pid != master));
    cluster.wait_ready(3);
    let seen = load_again(&cluster);
    assert_eq!(answered_by(&seen), cluster.worker_pids().into_iter().collect());
    cluster.stop();
}

fn run_in(cluster: &Cluster, args: &[&str]) -> (i32, String, String) {
    let done = cluster.cli(args);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (done.status.code().unwrap(), text(&done.stdout), text(&done.stderr))
}

#[test]
fn what_waits_for_a_killed_worker_is_answered_by_the_next() {
    let Some(cluster) = start(1, &[], &["python3", "server.py"]) else { return };
    let worker = cluster.worker_pids()[0];
    kill(worker, "STOP");
    let waiting: Vec<TcpStream> = (0..5)
        .map(|_| {
            let mut client = TcpStream::connect(cluster.address()).unwrap();
            client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
            client
        })
        .collect();
    kill(worker, "KILL");
    for mut client in waiting {
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && !answer.contains(&format!("{worker}")), "{answer}");
    }
    cluster.stop();
}

#[test]
#[ignore = "long: a hostile or rare program on protocol bind"]
fn an_upgrade_keeps_what_was_given() {
    let Some(cluster) = start(2, &[], &["python3", "server.py"]) else { return };
    let pids = cluster.worker_pids();
    let load = Load::start(cluster.address(), 4, false);
    load.wait_more(50);
    let (code, _, err) = run_in(&cluster, &["upgrade"]);
    assert_eq!(code, 0, "{err}");
    load.wait_more(50);
    nothing_lost(&load.finish());
    assert_eq!(cluster.worker_pids(), pids);
    // The new master answers calls of workers that it did not start, and of those that it starts.
    kill(pids[0], "KILL");
    cluster.wait_view("a replacement", |view| {
        view.apps[0].workers_ready == 2 && view.apps[0].workers.iter().all(|worker| worker.pid != Some(pids[0]))
    });
    let seen = load_again(&cluster);
    assert_eq!(answered_by(&seen), cluster.worker_pids().into_iter().collect());
    cluster.stop();
}

fn load_again(cluster: &Cluster) -> Tally {
    let seen = load(cluster, 100);
    nothing_lost(&seen);
    seen
}

/// Binds a second, fixed port and any free one, each address twice, and tells what came of it.
const BINDS: &str = "import errno, http.server, json, os, socket, threading
def bound(port, host='127.0.0.1'):
    s = socket.socket()
    s.bind((host, port))
    s.listen()
    return s
second = int(os.environ['SECOND_PORT'])
kept = [bound(second), bound(0), bound(0)]
def refusal(port):
    try:
        bound(port)
    except OSError as e:
        return errno.errorcode[e.errno]
facts = {'pid': os.getpid(), 'again': refusal(second), 'free': [s.getsockname()[1] for s in kept]}
class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        body = json.dumps(facts).encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer(('0.0.0.0', int(os.environ['PORT'])), Answer)
other = http.server.ThreadingHTTPServer(('127.0.0.1', second), Answer, bind_and_activate=False)
other.socket = kept[0]
threading.Thread(target=other.serve_forever, daemon=True).start()
facts['own again'] = refusal(int(os.environ['PORT']))
server.serve_forever()
";

#[test]
fn a_fixed_port_is_shared_a_free_one_is_not_and_nobody_binds_twice() {
    let folder = Folder::new();
    folder.write("binds.py", BINDS);
    let Some(cluster) = start_in(folder, 2, &[], &["python3", "binds.py"]) else { return };
    let (mut pids, mut second, mut free) = (BTreeSet::new(), 0, BTreeSet::new());
    wait_until("both workers on the main port", || {
        let facts: serde_json::Value = serde_json::from_str(&get(cluster.address(), "/").unwrap()).unwrap();
        assert_eq!(facts["again"], "EADDRINUSE", "{facts}");
        pids.insert(facts["pid"].as_i64().unwrap());
        second = facts["free"][0].as_u64().unwrap();
        free.extend([1, 2].map(|n| facts["free"][n].as_u64().unwrap()));
        pids.len() == 2
    });
    assert_eq!(free.len(), 4, "port 0 is another port each time");
    let mut pids = BTreeSet::new();
    wait_until("both workers on the second port", || {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, second as u16));
        let facts: serde_json::Value = serde_json::from_str(&get(address, "/").unwrap()).unwrap();
        pids.insert(facts["pid"].as_i64().unwrap());
        pids.len() == 2
    });
    cluster.stop();
}

/// Binds so many fixed ports that nobody would share them all.
const MANY: &str = "import os, socket, time
base = int(os.environ['FIRST_OF_MANY'])
main = socket.socket()
main.bind(('127.0.0.1', int(os.environ['PORT'])))
main.listen()
kept = []
for port in range(base, base + 1000):
    if port > base and port % 100 == 0:
        print('before', port, flush=True)
    try:
        s = socket.socket()
        s.bind(('127.0.0.1', port))
        kept.append(s)
    except OSError:
        pass
print('bound', len(kept), flush=True)
time.sleep(1000)
";

#[test]
#[ignore = "a long load"]
fn who_binds_a_thousand_ports_gets_them_and_costs_the_others_nothing() {
    let _turn = super::common::turns::turn();
    let folder = Folder::new();
    folder.write("many.py", MANY);
    // Above the ports of clients: a thousand of those below, which other tests are given, would be missed.
    const FIRST: u32 = 62_000;
    let first = format!("FIRST_OF_MANY={FIRST}");
    let Some(cluster) = start_in(folder, 1, &["-e", &first], &["python3", "many.py"]) else { return };
    for hundred in 1..10 {
        cluster.wait_out(&format!("before {}", FIRST + hundred * 100));
    }
    let bound: usize = cluster.wait_out("bound").rsplit(' ').next().unwrap().parse().unwrap();
    assert!(bound > 500, "{bound}");
    // Which of them come first depends on the ports that others use.
    cluster.wait_line("more warnings like these were left out");
    let (code, out, err) = run_in(&cluster, &["ls"]);
    assert_eq!(code, 0, "{out}{err}");
    cluster.stop();
}

#[test]
fn where_filters_are_refused_it_is_said_once_and_sockets_are_inherited() {
    let folder = Folder::new();
    let server = super::apps::project("workers/python/listen_fds.py").display().to_string();
    let args = ["-w", "2", "--port", "0", "--ready", "notify", "--", "python3", server.as_str()];
    let cluster = Cluster::start_in(folder, &args, super::refusal::refuse_filters);
    cluster.wait_ready(2);
    nothing_lost(&load(&cluster, 20));
    let said = cluster.stderr().iter().filter(|line| line.contains("the system refuses the filter")).count();
    assert_eq!(said, 1, "{:?}", cluster.stderr());
    cluster.stop();
}

/// Accepts from the socket that it inherits, and calls neither bind(2) nor listen(2). Without TAKES it does nothing at all.
const INHERITS: &str = "import os, socket, time
while 'TAKES' not in os.environ:
    time.sleep(1)
server = socket.socket(fileno=os.dup(3))
while True:
    client, _ = server.accept()
    if client.recv(4096):
        body = b'pid=%d' % os.getpid()
        client.sendall(b'HTTP/1.1 200 OK\\r\\nConnection: close\\r\\nContent-Length: %d\\r\\n\\r\\n%s' % (len(body), body))
    client.close()
";

#[test]
fn who_took_an_inherited_socket_is_ready_when_it_accepts_and_never_by_time() {
    let folder = Folder::new();
    folder.write("inherits.py", INHERITS);
    let Some(cluster) = start_in(folder, 2, &["-e", "TAKES=1"], &["python3", "inherits.py"]) else { return };
    let seen = load(&cluster, 60);
    nothing_lost(&seen);
    assert_eq!(answered_by(&seen), cluster.worker_pids().into_iter().collect());
    cluster.stop();
    for refused in [false, true] {
        let folder = Folder::new();
        folder.write("inherits.py", INHERITS);
        let args = ["-w", "1", "--port", "0", "--ready-timeout", "1500ms", "--", "python3", "inherits.py"];
        let cluster = Cluster::start_in(folder, &args, |command| {
            if refused {
                super::refusal::refuse_filters(command);
            }
        });
        cluster.wait_line("was not ready after 1.5 s");
        assert!(!cluster.stderr().iter().any(|line| line.contains("ready, 1 worker")), "{:?}", cluster.stderr());
        cluster.stop();
    }
}

#[test]
fn where_filters_are_refused_it_still_is_seen_who_accepts() {
    let folder = Folder::new();
    folder.write("inherits.py", INHERITS);
    let args = ["-w", "2", "-b", "kernel", "--port", "0", "-e", "TAKES=1", "--", "python3", "inherits.py"];
    let cluster = Cluster::start_in(folder, &args, super::refusal::refuse_filters);
    cluster.wait_ready(2);
    nothing_lost(&load(&cluster, 20));
    cluster.stop();
}

#[test]
fn a_port_of_somebody_else_is_refused_and_explained() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let folder = Folder::new();
    folder.write("server.py", "import os, socket\nsocket.socket().bind(('127.0.0.1', int(os.environ['TAKEN'])))");
    let variable = format!("TAKEN={port}");
    let args = ["-w", "1", "--protocol", "bind", "--port", "0", "-e", &variable, "--", "python3", "server.py"];
    let cluster = Cluster::start_in(folder, &args, |_| ());
    let is_wanted = |line: &String| line.contains("cannot bind 127.0.0.1") || line.contains("refuses the filter");
    let line = wait_for("an explanation", || cluster.stderr().into_iter().find(is_wanted));
    if line.contains("refuses the filter") {
        return eprintln!("skipped: {line}");
    }
    assert!(line.contains("in use by ") && line.contains("(pid ") && line.contains("PORT"), "{line}");
}

/// Node makes no worker of a process without a script.
#[test]
fn code_on_nodes_command_line_shares_the_port_as_any_program() {
    let code = "require('node:http').createServer((q, s) => s.end(`pid=${process.pid}`)).listen(process.env.PORT)";
    let folder = Folder::new();
    let args = ["-w", "2", "--protocol", "node", "--port", "0", "--", "node", "-e", code];
    let (exit, _, said) = super::cluster::run(&folder, &args);
    assert!(exit == 1 && said.contains("put the code into a file"), "{exit} {said}");
    both_answer(&["node", "-e", code], |_| ());
    let cluster = Cluster::start(&[
        "-w",
        "1",
        "--port",
        "0",
        "--ready",
        "1ms",
        "--",
        "node",
        "-e",
        "setInterval(() => {}, 1000)",
    ]);
    cluster.wait_ready(1);
    assert_eq!(cluster.app().protocol, "bind");
    cluster.stop();
}

/// Binds while another thread changes the address, and has children that are killed in the middle of a call.
const WILD: &str = "import ctypes, http.server, os, signal, socket, struct, threading
libc = ctypes.CDLL(None, use_errno=True)
port = int(os.environ['PORT'])
def address(port):
    return struct.pack('<H', socket.AF_INET) + struct.pack('>H', port) + bytes([127, 0, 0, 1]) + bytes(8)
buffer = ctypes.create_string_buffer(address(port), 16)
stop = threading.Event()
def change():
    while not stop.is_set():
        for port_now in (port, 0, 1, 65535):
            buffer[:16] = address(port_now)
        buffer[:2] = b'\\xff\\xff'
changer = threading.Thread(target=change)
changer.start()
for n in range(40):
    s = socket.socket()
    libc.bind(s.fileno(), buffer, 16)
    s.close()
stop.set()
changer.join()
# Addresses that cannot be read, too short ones and too long ones.
for pointer, length in ((None, 16), (1, 16), (buffer, 1), (buffer, 0), (buffer, 1 << 30)):
    s = socket.socket()
    libc.bind(s.fileno(), pointer, length)
    s.close()
for n in range(8):
    child = os.fork()
    if child == 0:
        while True:
            s = socket.socket()
            libc.bind(s.fileno(), address(port), 16)
            s.close()
    os.sched_yield()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        body = b'pid=%d' % os.getpid()
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(('127.0.0.1', port), Answer).serve_forever()
";

#[test]
#[ignore = "long: a hostile or rare program on protocol bind"]
fn addresses_that_change_while_they_are_read_and_callers_that_die_cost_nobody_anything() {
    let _turn = super::common::turns::turn();
    let folder = Folder::new();
    folder.write("wild.py", WILD);
    let Some(cluster) = start_in(folder, 2, &[], &["python3", "wild.py"]) else { return };
    let seen = load(&cluster, 40);
    nothing_lost(&seen);
    assert_eq!(seen.by_pid.len(), 2, "{seen:?}");
    let view = cluster.wait_view("a view", |_| true);
    assert_eq!((view.master_restarts, view.apps[0].restarts), (0, 0), "{:?}", cluster.stderr());
    cluster.stop();
}
