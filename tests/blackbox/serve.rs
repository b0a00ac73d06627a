//! Serving: who gets connections, on which sockets, and what passes through untouched.
use super::apps::{misbehave, project};
use super::client::{Load, get, who};
use super::cluster::{Cluster, Folder, kill, wait_until};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};

#[test]
fn idle_workers_take_strict_turns_and_know_their_place() {
    let cluster = Cluster::web(3, &misbehave("slow.js"), &["--balance", "round-robin"]);
    let address = cluster.address();
    let pids: Vec<i32> = (0..9).map(|_| who(address)).collect();
    assert_eq!(pids[..3], pids[3..6]);
    assert_eq!(pids.iter().collect::<BTreeSet<_>>().len(), 3);
    let answer = get(address, "/").unwrap();
    assert!(answer.contains(&format!("\"port\":\"{}\"", address.port())), "{answer}");
    cluster.stop();
}

#[test]
fn sticky_clients_stay_with_their_worker() {
    let cluster = Cluster::web(3, &misbehave("slow.js"), &["--balance", "sticky"]);
    let address = cluster.address();
    let pids: BTreeSet<i32> = (0..12).map(|_| who(address)).collect();
    assert_eq!(pids.len(), 1, "one client address, one worker");
    cluster.stop();
}

/// The worker of an address is waited for, however busy: what it remembers of its clients is there.
#[test]
#[ignore = "long: a variant of what quicker tests show"]
fn sticky_clients_wait_for_their_busy_worker() {
    let folder = Folder::new();
    let app = "require('http').createServer((q, a) => {\
        for (const end = performance.now() + 20; performance.now() < end;);\
        a.end(JSON.stringify({ pid: process.pid })) }).listen(process.env.PORT)";
    let app = folder.write("busy.js", app);
    let cluster = Cluster::web(4, &app, &["--balance", "sticky"]);
    let load = Load::start(cluster.address(), 12, false);
    load.wait_more(200);
    let seen = load.finish();
    assert_eq!((seen.refused, seen.cut, seen.hung, seen.wrong), (0, 0, 0, 0), "{seen:?}");
    assert_eq!(seen.by_pid.len(), 1, "one client address, one worker: {seen:?}");
    cluster.stop();
}

#[test]
fn shared_workers_accept_by_themselves() {
    let cluster = Cluster::web(2, &misbehave("slow.js"), &["--balance", "shared"]);
    let load = Load::start(cluster.address(), 16, false);
    load.wait_more(300);
    let seen = load.finish();
    assert_eq!((seen.refused, seen.cut, seen.hung), (0, 0, 0), "{seen:?}");
    assert_eq!(cluster.app().handoffs, 0);
    cluster.stop();
}

#[test]
fn a_socket_file_serves_and_is_gone_afterwards() {
    let folder = Folder::new();
    let path = folder.path().join("app.sock");
    let app = "require('node:http').createServer((q, s) => s.end('pid=' + process.pid)).listen(process.env.SOCK);";
    folder.write("app.js", app);
    let listen = format!("unix:{}", path.display());
    let env = format!("SOCK={}", path.display());
    let cluster =
        Cluster::start_in(folder, &["-w", "2", "--listen", &listen, "-e", &env, "--", "node", "app.js"], |_| {});
    cluster.wait_ready(2);
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("pid="), "{answer}");
    cluster.stop();
    assert!(!path.exists());
}

#[test]
fn port_zero_is_one_port_for_all_workers() {
    let folder = Folder::new();
    let app = "const s = require('node:http').createServer((q, r) => r.end('pid=' + process.pid)).listen(0, () => console.log('port ' + s.address().port));";
    folder.write("app.js", app);
    let cluster = Cluster::start_in(folder, &["-w", "2", "--", "node", "app.js"], |_| {});
    cluster.wait_ready(2);
    wait_until("two reports", || cluster.stdout().len() == 2);
    let ports = cluster.stdout();
    assert_eq!(ports[0], ports[1]);
    let address = cluster.address();
    assert_eq!(format!("port {}", address.port()), ports[0]);
    assert_ne!(who(address), who(address));
    cluster.stop();
}

#[test]
fn udp_sockets_are_shared() {
    let folder = Folder::new();
    let app = "const s = require('node:dgram').createSocket('udp4'); s.on('message', (m, from) => s.send('pid=' + process.pid, from.port)); s.bind(0, '127.0.0.1', () => console.log('port ' + s.address().port));";
    folder.write("app.js", app);
    let cluster = Cluster::start_in(folder, &["-w", "2", "--", "node", "app.js"], |_| {});
    cluster.wait_ready(2);
    wait_until("two reports", || cluster.stdout().len() == 2);
    let ports = cluster.stdout();
    assert_eq!(ports[0], ports[1]);
    let port: u16 = ports[0].strip_prefix("port ").unwrap().parse().unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(super::cluster::PATIENCE)).unwrap();
    client.send_to(b"hello", ("127.0.0.1", port)).unwrap();
    let mut answer = [0; 64];
    let (n, _) = client.recv_from(&mut answer).unwrap();
    assert!(answer[..n].starts_with(b"pid="));
    cluster.stop();
}

fn python_server() -> Cluster {
    let script = project("workers/python/listen_fds.py").display().to_string();
    let args = ["-w", "2", "--host", "127.0.0.1", "--port", "0", "--ready", "notify", "--", "python3", &script];
    let cluster = Cluster::start(&args);
    cluster.wait_ready(2);
    cluster
}

#[test]
fn any_program_takes_its_socket_from_listen_fds() {
    let cluster = python_server();
    assert_eq!(cluster.app().protocol, "bind");
    assert!(cluster.app().workers.iter().all(|w| w.note.as_deref() == Some("serving")));
    let load = Load::start(cluster.address(), 8, false);
    load.wait_more(100);
    assert!(cluster.cli(&["reload", "all"]).status.success());
    load.wait_more(50);
    kill(cluster.master_pid(), "KILL");
    cluster.wait_view("the next master", |view| view.master_restarts == 1);
    load.wait_more(50);
    let seen = load.finish();
    assert_eq!((seen.refused, seen.hung, seen.wrong), (0, 0, 0), "{seen:?}");
    cluster.stop();
}

#[test]
fn connections_of_an_inherited_socket_send_small_pieces_at_once() {
    let script = "import socket\n\
                  s = socket.socket(fileno=3)\n\
                  c = s.accept()[0]\n\
                  print('nodelay', c.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY), flush=True)\n\
                  c.recv(1)\n";
    let args = ["-w", "1", "--host", "127.0.0.1", "--port", "0", "--ready", "1ms", "--", "python3", "-c", script];
    let cluster = Cluster::start(&args);
    cluster.wait_ready(1);
    let client = TcpStream::connect(cluster.address()).unwrap();
    assert_eq!(cluster.wait_out("nodelay"), "nodelay 1");
    drop(client);
    cluster.stop();
}

#[test]
#[ignore = "long: a variant of what quicker tests show"]
fn clusterd_itself_takes_sockets_from_systemd() {
    let folder = Folder::new();
    // What systemd does: the socket at 3, the variables, exec.
    let script = "import os, socket, sys\n\
                  s = socket.create_server(('127.0.0.1', 0))\n\
                  os.dup2(s.fileno(), 3)\n\
                  os.set_inheritable(3, True)\n\
                  os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES='web')\n\
                  print('port', s.getsockname()[1], flush=True)\n\
                  os.execv(sys.argv[1], sys.argv[1:])\n";
    let script = folder.write("activate.py", script);
    let binary = env!("CARGO_BIN_EXE_clusterd");
    let mut started = Cluster::start_in(folder, &[], |command| {
        let mut python = std::process::Command::new("python3");
        python.args([&script, binary, "-w", "2", "--", "node", &super::apps::hello()]);
        python.current_dir(command.get_current_dir().unwrap());
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                python.env(name, value);
            }
        }
        python.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        *command = python;
    });
    let port = started.wait_out("port ");
    started.wait_ready(2);
    let address = started.address();
    assert_eq!(format!("port {}", address.port()), port);
    assert_ne!(who(address), who(address));
    started.signal("TERM");
    assert_eq!(started.wait_exit(), 0);
}

/// As a service manager does: the socket at 3, the variables, exec. It comes as stdin.
fn start_with_socket(socket: OwnedFd, address: &str) -> Cluster {
    let folder = Folder::new();
    let app = folder.write(
        "app.js",
        "require('http').createServer((q, a) => a.end(JSON.stringify({ pid: process.pid })))\
         .listen(process.env.SOCK || process.env.PORT)",
    );
    let config = format!(
        "[[app]]\nname = \"web\"\ncommand = [\"node\", {app:?}]\nworkers = 1\nlisten = \"{address}\"\n\
                 env = {{ SOCK = {:?} }}\n",
        address.strip_prefix("unix:").unwrap_or_default()
    );
    let config = folder.write("web.toml", &config);
    let script = "import os, sys\n\
                  os.dup2(0, 3)\n\
                  os.dup2(os.open('/dev/null', os.O_RDONLY), 0)\n\
                  os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES='web.socket')\n\
                  os.execv(sys.argv[1], sys.argv[1:])\n";
    let script = folder.write("activate.py", script);
    Cluster::start_in(folder, &[], |command| {
        let mut python = std::process::Command::new("python3");
        python.args([&script, env!("CARGO_BIN_EXE_clusterd"), "-c", &config]);
        python.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        python.stdin(socket).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        *command = python;
    })
}

/// What a socket unit opened stays open while clusterd is started again: who comes meanwhile waits for the next start.
#[test]
fn a_socket_that_somebody_else_keeps_open_listens_after_the_end() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = socket.local_addr().unwrap();
    let mut waits: Option<TcpStream> = None;
    for _ in 0..2 {
        let mut cluster = start_with_socket(socket.try_clone().unwrap().into(), &at.to_string());
        if let Some(mut waits) = waits.take() {
            waits.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
            let mut answer = String::new();
            waits.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
        cluster.wait_ready(1);
        kill(cluster.master_pid(), "KILL");
        cluster.wait_view("the next master", |view| view.master_restarts == 1);
        who(at);
        cluster.signal("TERM");
        assert_eq!(cluster.wait_exit(), 0);
        waits = Some(TcpStream::connect(at).expect("it still listens"));
    }
}

#[test]
fn the_file_of_a_socket_that_somebody_else_keeps_open_stays() {
    let folder = Folder::new();
    let path = folder.path().join("app.sock");
    let socket = UnixListener::bind(&path).unwrap();
    let mut cluster = start_with_socket(socket.try_clone().unwrap().into(), &format!("unix:{}", path.display()));
    cluster.wait_ready(1);
    kill(cluster.master_pid(), "KILL");
    cluster.wait_view("the next master", |view| view.master_restarts == 1);
    cluster.wait_ready(1);
    cluster.signal("TERM");
    assert_eq!(cluster.wait_exit(), 0);
    UnixStream::connect(&path).expect("it still listens");
}

#[test]
fn prefixed_output_names_its_slot_and_survives_a_dead_master() {
    let text = "echo out; echo err >&2; trap 'echo bye; exit' TERM; while :; do sleep 0.05; done";
    let args = ["-w", "1", "--name", "web", "--prefix", "--ready", "50ms", "--", "sh", "-c", text];
    let mut cluster = Cluster::start(&args);
    cluster.wait_ready(1);
    cluster.wait_out("web/0 | out");
    cluster.wait_line("web/0 | err");
    kill(cluster.master_pid(), "KILL");
    cluster.wait_view("the next master", |view| view.master_restarts == 1);
    cluster.signal("TERM");
    assert_eq!(cluster.wait_exit(), 0);
    assert_eq!(cluster.stdout(), ["web/0 | out", "web/0 | bye"]);
}

#[test]
fn output_passes_through_untouched() {
    let text = "echo out; echo err >&2; printf 'no end of line'; exec sleep 1000";
    let mut cluster = Cluster::start(&["-w", "1", "--ready", "50ms", "--", "sh", "-c", text]);
    cluster.wait_ready(1);
    cluster.signal("TERM");
    assert_eq!(cluster.wait_exit(), 0);
    assert_eq!(cluster.stdout(), ["out", "no end of line"]);
    assert!(cluster.stderr().contains(&"err".to_owned()));
}

#[test]
fn a_connection_that_waits_for_a_closed_server_does_not_hold_up_the_others() {
    let folder = Folder::new();
    let app = "const http = require('node:http'), fs = require('node:fs');\n\
        const other = http.createServer(() => {}).listen(0, '127.0.0.1', () => console.log('other :' + other.address().port));\n\
        http.createServer((q, s) => {\n\
          if (q.url === '/close') { while (!fs.existsSync('go')); other.close(); }\n\
          s.end('pid=' + process.pid);\n\
        }).listen(process.env.PORT);";
    folder.write("app.js", app);
    let cluster =
        Cluster::start_in(folder, &["-w", "1", "-b", "round-robin", "--port", "0", "--", "node", "app.js"], |_| {});
    cluster.wait_ready(1);
    let said = cluster.wait_out("other :");
    let port: u16 = said.rsplit(':').next().unwrap().trim().parse().unwrap();
    let address = cluster.address();
    // The worker is busy, is given a connection to its other server, closes that server and refuses the connection.
    let busy = std::thread::spawn(move || get(address, "/close").unwrap());
    wait_until("a busy worker", || cluster.app().handoffs == 1);
    let waiting = TcpStream::connect(("127.0.0.1", port)).unwrap();
    wait_until("a hand-off", || cluster.app().workers[0].open_handoffs == 1);
    cluster.folder.write("go", "");
    busy.join().unwrap();
    wait_until("a refusal", || cluster.app().workers[0].open_handoffs == 0);
    for _ in 0..3 {
        who(address);
    }
    drop(waiting);
    cluster.stop();
}
