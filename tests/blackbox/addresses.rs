//! Addresses that change: in the configuration, and in what a program asks for by itself.
use super::background::{Home, address};
use super::client::{Load, get};
use super::cluster::{Cluster, Folder, kill, wait_until};
use super::common::ports::free_ports;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Answers with its `PORT` and the ports that it listens on, `listen({ fd })` in the order of the inherited sockets.
const FDS: &str = "const http = require('http'); const on = [];\
    for (const fd of [3, 4]) http.createServer((q, a) => a.end(JSON.stringify({ pid: process.pid, port: process.env.PORT, on })))\
      .on('error', () => {}).listen({ fd }, function () { on.push(this.address().port) })";

const WEB: &str =
    "require('http').createServer((q, a) => a.end(JSON.stringify({ pid: process.pid }))).listen(process.env.PORT)";

/// A program that serves what it inherits.
const INHERITS: &str = "import os, socket\n\
    s = socket.socket(fileno=3)\n\
    while True:\n\
    \x20   c, _ = s.accept()\n\
    \x20   c.recv(9999)\n\
    \x20   body = '{\"pid\": %d}' % os.getpid()\n\
    \x20   c.sendall(b'HTTP/1.1 200 OK\\r\\nConnection: close\\r\\nContent-Length: %d\\r\\n\\r\\n%s' % (len(body), body.encode()))\n\
    \x20   c.close()\n";

fn at(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn configure(folder: &Folder, command: &str, listen: &[String]) {
    let text = format!("[[app]]\nname = \"web\"\ncommand = {command}\nworkers = 2\nlisten = {listen:?}\n");
    folder.write("c.toml", &text);
}

#[test]
fn a_reload_and_a_restart_take_the_addresses_of_the_file_in_its_order() {
    let home = Home::new();
    let [one, two, three] = free_ports();
    home.folder.write("app.js", FDS);
    let listen = |ports: &[u16]| ports.iter().map(|port| format!("127.0.0.1:{port}")).collect::<Vec<_>>();
    let command = "[\"node\", \"app.js\"]";
    configure(&home.folder, command, &listen(&[one, two]));
    home.ok(&["start", "c.toml"]);
    let says = |first: u16, second: u16| {
        let answer = get(at(first), "/").unwrap();
        let wanted = format!("\"port\":\"{first}\",\"on\":[{first},{second}]");
        assert!(answer.contains(&wanted), "{answer}, not {wanted}");
        assert!(get(at(second), "/").unwrap().contains(&wanted));
    };
    says(one, two);
    configure(&home.folder, command, &listen(&[three, one]));
    home.ok(&["reload", "web"]);
    says(three, one);
    assert!(get(at(two), "/").is_err(), "an address that is no longer configured is closed");
    configure(&home.folder, command, &listen(&[two, three]));
    home.ok(&["restart", "web"]);
    says(two, three);
    assert!(get(at(one), "/").is_err());
    assert_eq!(home.app("web").listen, listen(&[two, three]), "and nothing else is open");
}

#[test]
fn a_program_that_inherits_its_sockets_gets_those_of_its_generation() {
    let home = Home::new();
    let [one, two] = free_ports();
    home.folder.write("app.py", INHERITS);
    let command = "[\"python3\", \"app.py\"]";
    for (port, verb) in [(one, vec!["start", "c.toml"]), (two, vec!["reload", "web"]), (one, vec!["restart", "web"])] {
        let listen = [format!("127.0.0.1:{port}")];
        let text = format!(
            "[[app]]\nname = \"web\"\ncommand = {command}\nworkers = 2\nprotocol = \"listen-fds\"\nlisten = {listen:?}\n"
        );
        home.folder.write("c.toml", &text);
        home.ok(&verb);
        get(at(port), "/").unwrap();
        let other = if port == one { two } else { one };
        assert!(get(at(other), "/").is_err(), "{verb:?}");
    }
}

/// One address covers the other: the kernel refuses to bind it while the first one is open.
fn narrow_and_wide(balance: &str) {
    let home = Home::new();
    let [port] = free_ports();
    home.folder.write("app.js", WEB);
    let narrow = format!("127.0.0.1:{port}");
    let wide = port.to_string();
    let command = "[\"node\", \"app.js\"]";
    let configure = |listen: &str| {
        let listen = [listen.to_owned()];
        let text = format!(
            "[[app]]\nname = \"web\"\ncommand = {command}\nworkers = 2\nbalance = \"{balance}\"\nlisten = {listen:?}\n"
        );
        home.folder.write("c.toml", &text);
    };
    configure(&narrow);
    home.ok(&["start", "c.toml"]);
    let load = Load::start(at(port), 4, false);
    for (listen, shown) in [(&wide, format!("*:{port}")), (&narrow, narrow.clone()), (&wide, format!("*:{port}"))] {
        load.wait_more(50);
        configure(listen);
        home.ok(&["reload", "web"]);
        assert_eq!(home.app("web").listen, [shown]);
    }
    // A generation that never serves leaves the others their clients.
    configure(&narrow);
    home.folder.write("app.js", "throw new Error('typo')");
    home.fails(&["reload", "web"]);
    load.wait_more(50);
    home.folder.write("app.js", WEB);
    if balance == "round-robin" {
        kill(home.deployments()[0].master_pid, "KILL");
        load.wait_more(50);
        home.ok(&["reload", "web"]);
        load.wait_more(50);
        assert_eq!(home.app("web").listen, [narrow]);
    }
    let seen = load.finish();
    let cut = if balance == "round-robin" { 1 } else { 0 };
    assert!(seen.refused == 0 && seen.cut <= cut && seen.hung == 0 && seen.wrong == 0, "{seen:?}");
}

#[test]
#[ignore = "a long load"]
fn an_address_may_become_all_of_its_port_and_back_and_loses_nothing() {
    let _turn = super::common::turns::turn();
    narrow_and_wide("round-robin");
}

#[test]
fn a_program_may_be_told_another_port_than_before() {
    let home = Home::new();
    let [one, two, three] = free_ports();
    home.folder.write("app.js", WEB);
    let text = |production: u16| {
        format!(
            "[[app]]\nname = \"web\"\ncommand = [\"node\", \"app.js\"]\nworkers = 2\nenv.PORT = \"{one}\"\n\
             env.production = {{ PORT = \"{production}\" }}\n"
        )
    };
    home.folder.write("c.toml", &text(two));
    home.ok(&["start", "c.toml"]);
    get(at(one), "/").unwrap();
    home.ok(&["start", "c.toml", "--env", "production"]);
    get(at(two), "/").unwrap();
    assert!(get(at(one), "/").is_err(), "what nobody listens on any more is closed");
    assert_eq!(home.app("web").listen, [format!("*:{two}")]);
    home.folder.write("c.toml", &text(three));
    home.ok(&["restart", "web"]);
    get(at(three), "/").unwrap();
    assert!(get(at(two), "/").is_err());
}

#[test]
#[ignore = "a long load"]
fn what_workers_asked_for_may_be_configured_later_and_the_other_way_round() {
    let home = Home::new();
    let [port] = free_ports();
    home.folder.write("app.js", &WEB.replace("process.env.PORT", &port.to_string()));
    let start = "[[app]]\nname = \"web\"\ncommand = [\"node\", \"app.js\"]\nworkers = 2\n".to_owned();
    home.folder.write("c.toml", &start);
    home.ok(&["start", "c.toml"]);
    let load = Load::start(at(port), 4, false);
    load.wait_more(20);
    for text in [format!("{start}listen = \"{port}\"\n"), start.clone(), format!("{start}listen = \"{port}\"\n")] {
        home.folder.write("c.toml", &text);
        home.ok(&["reload", "web"]);
        assert_eq!(address(&home.app("web")), at(port));
        load.wait_more(20);
    }
    let seen = load.finish();
    assert_eq!((seen.refused, seen.cut, seen.hung, seen.wrong), (0, 0, 0, 0), "{seen:?}");
}

#[test]
fn sockets_that_clusterd_was_given_stay_through_a_reload_and_a_dead_master() {
    let folder = Folder::new();
    let script = "import os, socket, sys\n\
                  s = socket.create_server(('127.0.0.1', 0))\n\
                  os.dup2(s.fileno(), 3)\n\
                  os.set_inheritable(3, True)\n\
                  os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()))\n\
                  os.execv(sys.argv[1], sys.argv[1:])\n";
    let script = folder.write("activate.py", script);
    folder.write("app.py", INHERITS);
    let binary = env!("CARGO_BIN_EXE_clusterd");
    let cluster = Cluster::start_in(folder, &[], |command| {
        let mut python = std::process::Command::new("python3");
        python.args([&script, binary, "-w", "1", "-n", "web", "--protocol", "listen-fds", "--", "python3", "app.py"]);
        python.current_dir(command.get_current_dir().unwrap());
        python.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        python.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        *command = python;
    });
    cluster.wait_ready(1);
    let at = cluster.address();
    for n in 0..2 {
        assert!(cluster.cli(&["reload", "web"]).status.success());
        get(at, "/").unwrap();
        kill(cluster.master_pid(), "KILL");
        wait_until("the next master", || cluster.try_view().is_some_and(|view| view.master_restarts == 1 + n));
        cluster.wait_ready(1);
    }
    cluster.stop();
}

/// Node apps remove the file of their socket before they listen.
#[test]
fn a_path_whose_file_its_app_removes_is_bound_again() {
    let home = Home::new();
    let path = home.folder.path().join("a.sock");
    let app = "const path = process.env.SOCK; require('fs').rmSync(path, { force: true });\
        require('http').createServer((q, a) => a.end(JSON.stringify({ pid: process.pid }))).listen(path)";
    home.folder.write("app.js", app);
    let who = || -> Option<i32> {
        let mut stream = UnixStream::connect(&path).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        text.rsplit_once("\"pid\":")?.1.trim_end_matches('}').parse().ok()
    };
    let sock = format!("SOCK={}", path.display());
    home.ok(&["start", "app.js", "-i", "1", "-n", "one", "-e", &sock]);
    let first = who().unwrap();
    kill(first, "KILL");
    wait_until("the next worker", || who().is_some_and(|pid| pid != first));
    let second = who().unwrap();
    home.ok(&["reload", "one"]);
    assert_ne!(who().unwrap(), second);
    home.ok(&["delete", "one"]);
    assert!(!path.exists());
    for more in [&[][..], &["-l", &format!("unix:{}", path.display())]] {
        home.ok(&[&["start", "app.js", "-i", "2", "-b", "round-robin", "-n", "two", "-e", &sock], more].concat());
        let seen: std::collections::BTreeSet<i32> = (0..4).map(|_| who().unwrap()).collect();
        assert_eq!(seen.len(), 2);
        home.ok(&["delete", "two"]);
    }
}

/// `cluster.worker.id` counts the workers of the app, as if it were alone.
#[test]
fn the_ids_of_workers_count_from_one_in_every_app() {
    let home = Home::new();
    let app =
        "require('http').createServer((q, a) => a.end(`id ${require('cluster').worker.id}`)).listen(process.env.PORT)";
    home.folder.write("app.js", app);
    let one = |name: &str| {
        format!("[[app]]\nname = \"{name}\"\ncommand = [\"node\", \"app.js\"]\nworkers = 1\nlisten = \"127.0.0.1:0\"\n")
    };
    home.folder.write("c.toml", &(one("a") + &one("b")));
    home.ok(&["start", "c.toml"]);
    let id = |name: &str| get(address(&home.app(name)), "/").unwrap().rsplit_once("id ").unwrap().1.to_owned();
    assert_eq!((id("a"), id("b")), ("1".to_owned(), "1".to_owned()));
    kill(home.deployments()[0].master_pid, "KILL");
    home.ok(&["reload", "b"]);
    assert_eq!((id("a"), id("b")), ("1".to_owned(), "2".to_owned()));
}

#[test]
fn an_app_that_gave_up_is_closed_to_clients() {
    let home = Home::new();
    let [port] = free_ports();
    home.folder.write("app.js", "setTimeout(() => { throw new Error('no database') }, 10)");
    let listen = format!("127.0.0.1:{port}");
    home.fails(&["start", "app.js", "-i", "1", "-n", "web", "-l", &listen, "--max-restarts", "1"]);
    wait_until("its end", || home.app("web").status == "errored");
    wait_until("refusal", || std::net::TcpStream::connect(at(port)).is_err());
    home.folder.write("app.js", WEB);
    home.ok(&["start", "web"]);
    get(at(port), "/").unwrap();
}

#[test]
fn a_restart_with_another_port_in_its_environment_serves_there_and_closes_the_old_one() {
    let home = Home::new();
    let [one, two] = free_ports();
    let app = home.folder.write(
        "app.js",
        "require('http').createServer((q, a) => a.end('x')).listen(process.env.WEB_PORT, '127.0.0.1')",
    );
    let with = |port: u16, args: &[&str]| {
        let mut command = super::cluster::command(&home.folder);
        let done = command.env("WEB_PORT", port.to_string()).args(args).output().unwrap();
        assert!(done.status.success(), "{done:?}");
    };
    with(one, &["start", &app, "-n", "web", "-i", "2", "--ready", "listening"]);
    assert!(get(at(one), "/").is_ok());
    for (verb, now, before) in [("restart", two, one), ("reload", one, two)] {
        with(now, &[verb, "web", "--update-env"]);
        assert!(get(at(now), "/").is_ok(), "{verb}");
        wait_until("the old port is closed", || get(at(before), "/").is_err());
        assert!(!home.app("web").listen.iter().any(|address| address.ends_with(&before.to_string())), "{verb}");
    }
}
