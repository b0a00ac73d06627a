//! Who counts as listening: servers of which Node tells its primary nothing, and programs that only accept.
use super::background::Home;
use super::client::{get_within, who};
use super::cluster::{Cluster, Folder, PATIENCE};
use clusterd::api::types::WorkerState;
use std::collections::BTreeSet;

/// Two workers of this Node program, ready because they listen.
fn listens(script: &str, options: &[&str]) -> Cluster {
    let folder = Folder::new();
    folder.write("app.js", script);
    let fixed = ["-w", "2", "--ready", "listening"];
    let cluster = Cluster::start_in(folder, &[&fixed, options, &["--", "node", "app.js"]].concat(), |_| {});
    cluster.wait_ready(2);
    cluster
}

#[test]
fn servers_with_exclusive_ports_and_those_of_worker_threads_count_as_listening() {
    let exclusive = "require('net').createServer().listen({ port: 0, host: '127.0.0.1', exclusive: true })";
    listens(exclusive, &[]).stop();
    let thread = "const { Worker, isMainThread } = require('worker_threads');\n\
                  if (isMainThread) new Worker(__filename); else require('net').createServer().listen(0, '127.0.0.1')";
    listens(thread, &[]).stop();
}

#[test]
fn a_server_with_exclusive_on_the_configured_port_shares_it() {
    let script = "require('http').createServer((q, a) => a.end(JSON.stringify({ pid: process.pid })))\n\
                  .listen({ port: process.env.PORT, host: '127.0.0.1', exclusive: true, reusePort: true })";
    let cluster = listens(script, &["--host", "127.0.0.1", "--port", "0"]);
    let workers: BTreeSet<i32> = cluster.worker_pids().into_iter().collect();
    let answered: BTreeSet<i32> = (0..8).map(|_| who(cluster.address())).collect();
    assert_eq!(answered, workers);
    cluster.stop();
}

#[test]
fn a_worker_thread_that_binds_the_configured_port_is_told_who_has_it() {
    let home = Home::new();
    let app = home.folder.write(
        "app.js",
        "const { Worker, isMainThread } = require('worker_threads');\n\
         if (isMainThread) new Worker(__filename);\n\
         else require('net').createServer().listen(Number(process.env.PORT), '127.0.0.1')",
    );
    let said = home.fails(&["start", &app, "-i", "1", "--host", "127.0.0.1", "-p", "0"]);
    assert!(
        said.contains("EADDRINUSE") && said.contains("in use by clusterd for this app; have it listen in"),
        "{said}"
    );
}

/// It never calls listen(2): the socket listens already.
#[test]
fn a_program_that_accepts_from_an_inherited_path_is_ready_and_one_that_does_not_is_not() {
    let accepts = "import os, socket\n\
                   s = socket.socket(fileno=3)\n\
                   while True:\n\
                   \x20   c, _ = s.accept()\n\
                   \x20   c.close()\n";
    let folder = Folder::new();
    folder.write("app.py", accepts);
    let args = ["-w", "1", "-l", "unix:app.sock", "--protocol", "listen-fds"];
    let cluster = Cluster::start_in(folder, &[&args[..], &["--", "python3", "app.py"]].concat(), |_| {});
    cluster.wait_ready(1);
    cluster.stop();
    let idle = ["--ready-timeout", "2s", "--max-restarts", "1", "--", "sleep", "1000"];
    let mut cluster = Cluster::start(&[&args[..], &idle].concat());
    cluster.wait_line("was not ready after 2 s");
    assert_eq!(cluster.wait_exit(), 1);
}

/// It accepts once its file is there; each connection until its client ends.
const ACCEPTS_LATER: &str = "import os, socket, time
slot = os.environ['CLUSTERD_SLOT']
while not os.path.exists('go-' + slot): time.sleep(0.01)
s = socket.socket(fileno=3)
s.setblocking(True)
while True:
    c, _ = s.accept()
    print('accepted by', slot, flush=True)
    while c.recv(100): pass
    c.close()
";

fn a_sibling_makes_no_other_worker_ready(listen: &str) {
    let folder = Folder::new();
    folder.write("app.py", ACCEPTS_LATER);
    folder.write("go-0", "");
    let args = ["-w", "2", "-l", listen, "-b", "shared", "--protocol", "listen-fds", "--ready-timeout", "1h"];
    let cluster = Cluster::start_in(folder, &[&args[..], &["--", "python3", "app.py"]].concat(), |_| {});
    // One was meant for the worker that accepted them all, the others for its sibling.
    cluster.wait_in_out("connections of clusterd's own", |lines| (lines.len() >= 3).then_some(()));
    let workers = cluster.app().workers;
    let ready = |slot| workers.iter().any(|w| w.slot == slot && w.state == WorkerState::Ready);
    assert!(ready(0) && !ready(1), "{workers:?}");
    cluster.folder.write("go-1", "");
    cluster.wait_ready(2);
    cluster.stop();
}

#[test]
fn a_sibling_that_accepts_from_a_shared_socket_makes_no_other_worker_ready() {
    a_sibling_makes_no_other_worker_ready("127.0.0.1:0");
}

#[test]
fn a_sibling_that_accepts_from_a_path_makes_no_other_worker_ready() {
    a_sibling_makes_no_other_worker_ready("unix:app.sock");
}

/// It has accepted a connection before it is ready, and answers when it is told that it has to leave.
const NOT_READY: &str = "const server = require('node:http').createServer((_, answer) => {
  console.log('asked');
  process.on('message', (message) => message === 'shutdown' && answer.end(`pid=${process.pid}`));
}).listen(process.env.PORT);
";

#[test]
fn a_stop_drains_a_worker_that_serves_and_is_not_ready_yet() {
    let folder = Folder::new();
    folder.write("app.js", NOT_READY);
    let options = ["-w", "1", "--port", "0", "--host", "127.0.0.1", "-b", "shared", "--ready", "message"];
    let cluster = Cluster::start_in(
        folder,
        &[&options[..], &["--kill-timeout", "100ms", "--", "node", "app.js"]].concat(),
        |_| {},
    );
    cluster.wait_line("listening on");
    let address = cluster.address();
    let client = std::thread::spawn(move || get_within(PATIENCE, address, "/"));
    cluster.wait_out("asked");
    cluster.stop();
    assert!(client.join().unwrap().unwrap().starts_with("pid="));
}

/// The same from an inherited socket: nobody is told that it listens.
const INHERITS: &str = "import os, signal, socket, time
s = socket.socket(fileno=3)
s.setblocking(True)
c, _ = s.accept()
c.recv(9999)
def leave(*_):
    time.sleep(0.5)
    c.sendall(b'HTTP/1.1 200 OK\\r\\ncontent-length: 4\\r\\nconnection: close\\r\\n\\r\\npid=')
    os._exit(0)
signal.signal(signal.SIGTERM, leave)
print('asked', flush=True)
while True: signal.pause()
";

#[test]
fn a_stop_drains_a_worker_that_has_accepted_from_an_inherited_socket_and_is_not_ready_yet() {
    for balance in ["kernel", "shared"] {
        let folder = Folder::new();
        folder.write("app.py", INHERITS);
        let options = ["-w", "1", "--port", "0", "--host", "127.0.0.1", "-b", balance, "--protocol", "listen-fds"];
        let rest = ["--ready", "notify", "--kill-timeout", "100ms", "--", "python3", "app.py"];
        let cluster = Cluster::start_in(folder, &[&options[..], &rest].concat(), |_| {});
        cluster.wait_line("listening on");
        let address = cluster.address();
        let client = std::thread::spawn(move || get_within(PATIENCE, address, "/"));
        cluster.wait_out("asked");
        cluster.stop();
        assert_eq!(client.join().unwrap().unwrap(), "pid=", "{balance}");
    }
}
