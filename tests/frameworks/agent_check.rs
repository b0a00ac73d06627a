//! A real HAProxy follows the agent checks of two deployments, as in docs/proxies.md: it shifts its weights while workers are missing, and
//! drains a server before its app stops, at no client's cost.
use super::apps::project;
use super::client::get;
use super::cluster::{Cluster, Folder, kill, wait_until};
use super::common::packages::program;
use super::common::ports::free_port;
use super::proxies::{Proxy, under_load};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Requests on connections of their own, enough to see the shares of two servers.
const REQUESTS: usize = 60;

/// It does not listen while there is a file `gate`, and answers with its folder.
const APP: &str = "const fs = require('node:fs');
const server = require('node:http').createServer((q, s) => {
  q.resume().on('end', () => s.end(JSON.stringify({ pid: process.pid, folder: process.cwd() })));
});
server.keepAliveTimeout = 75000;
(function start() {
  if (fs.existsSync('gate')) return setTimeout(start, 10);
  server.listen(process.env.PORT);
})();";

/// A deployment of the app, whose deployment does not end with it.
struct Server {
    cluster: Cluster,
    check: u16,
}

impl Server {
    fn start() -> Server {
        let folder = Folder::new();
        folder.write("app.js", APP);
        // It has to be the same one after the stop.
        let port = free_port();
        folder.write(
            "c.toml",
            &format!("[control]\nagent_check = \"127.0.0.1:0\"\n[[app]]\nname = \"web\"\ncommand = [\"node\", \"app.js\"]\nworkers = 4\n\
             listen = \"127.0.0.1:{port}\"\ndrain_delay = \"1s\"\n[[app]]\nname = \"other\"\ncommand = [\"sleep\", \"1000\"]\n\
             protocol = \"none\"\nworkers = 1\nready = \"10ms\"\n"),
        );
        let cluster = Cluster::start_in(folder, &["-c", "c.toml"], |_| {});
        let line = cluster.wait_line("agent checks are answered at ");
        let check = line.rsplit(':').next().unwrap().trim().parse().unwrap();
        cluster.wait_view("four workers", |view| view.apps[0].workers_ready == 4);
        Server { cluster, check }
    }
}

/// The example, with its addresses replaced, and what this test looks at.
fn haproxy(one: &Server, two: &Server) -> Option<(Proxy, PathBuf)> {
    let haproxy = program("haproxy", "haproxy")?;
    let page = fs::read_to_string(project("docs/proxies.md")).unwrap();
    let block = |name: &str| {
        let (_, rest) = page.split_once(&format!("```{name}\n")).unwrap();
        rest.split_once("```").unwrap().0.to_owned()
    };
    let example = block("haproxy");
    let (head, _) = example.split_once("\nbackend app").unwrap();
    let (folder, port) = (Folder::new(), free_port());
    let socket = folder.path().join("haproxy.sock");
    let replaced = [
        ("127.0.0.1:8000", format!("127.0.0.1:{port}")),
        ("127.0.0.1:8080", one.cluster.address().to_string()),
        ("127.0.0.1:8081", two.cluster.address().to_string()),
        ("agent-port 9616", format!("agent-port {}", one.check)),
        ("agent-port 9617", format!("agent-port {}", two.check)),
        ("agent-inter 1s", "agent-inter 100ms".to_owned()),
    ];
    let mut text = format!("{head}\n{}", block("haproxy weights"));
    for (from, to) in replaced {
        assert!(text.contains(from), "{from}: {text}");
        text = text.replace(from, &to);
    }
    let global = format!("global\n    stats socket {} mode 600 level admin\n", socket.display());
    let file = folder.write("haproxy.cfg", &(global + &text));
    Some((Proxy::run(folder, port, Command::new(haproxy).args(["-db", "-f", &file])), socket))
}

/// Status and weight of each server, as HAProxy sees them.
fn servers(socket: &Path) -> BTreeMap<String, (String, String)> {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.write_all(b"show stat\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let mut rows = text.lines().map(|line| line.trim_start_matches("# ").split(',').collect::<Vec<_>>());
    let head = rows.next().unwrap();
    let at = |name: &str| head.iter().position(|column| *column == name).unwrap();
    let (backend, server, status, weight) = (at("pxname"), at("svname"), at("status"), at("weight"));
    let ours = rows.filter(|row| row.len() > status && row[backend] == "app");
    ours.map(|row| (row[server].to_owned(), (row[status].to_owned(), row[weight].to_owned()))).collect()
}

/// Waits until HAProxy sees the first server so; the second one is never touched. A server that drains has its weight still.
fn wait_seen(socket: &Path, status: &str, weight: Option<&str>) {
    wait_until(&format!("{status} with weight {weight:?}"), || {
        let seen = servers(socket);
        let (is, two) = (&seen["one"], &seen["two"]);
        assert!(two.0.starts_with("UP") && two.1 == "100", "{seen:?}");
        // "DRAIN (agent)"
        is.0.starts_with(status) && weight.is_none_or(|weight| is.1 == weight)
    });
}

/// How many of some requests the first server answered.
fn share(address: SocketAddr, one: &Server) -> usize {
    let folder = fs::canonicalize(one.cluster.folder.path()).unwrap().display().to_string();
    (0..REQUESTS).filter(|_| get(address, "/").unwrap().contains(&folder)).count()
}

#[test]
#[ignore = "installs HAProxy"]
fn haproxy_shifts_its_weight_while_workers_are_missing_and_drains_a_server_before_it_stops() {
    let (one, two) = (Server::start(), Server::start());
    let Some((proxy, socket)) = haproxy(&one, &two) else {
        one.cluster.stop();
        return two.cluster.stop();
    };
    wait_seen(&socket, "UP", Some("100"));
    assert_eq!(share(proxy.address, &one), REQUESTS / 2);

    let gate = one.cluster.folder.write("gate", "");
    let pids: Vec<i32> =
        one.cluster.try_view().unwrap().apps[0].workers.iter().filter_map(|worker| worker.pid).collect();
    kill(pids[0], "KILL");
    kill(pids[1], "KILL");
    wait_seen(&socket, "UP", Some("50"));
    let third = share(proxy.address, &one);
    assert!((REQUESTS / 4..REQUESTS * 5 / 12).contains(&third), "a third: {third} of {REQUESTS}");
    fs::remove_file(gate).unwrap();
    wait_seen(&socket, "UP", Some("100"));

    let (count, bad) = under_load(proxy.address, || {
        std::thread::scope(|scope| {
            let stop = scope.spawn(|| one.cluster.cli(&["stop", "web"]));
            wait_seen(&socket, "DRAIN", None);
            let pid = one.cluster.try_view().unwrap().apps[0].workers.iter().find_map(|worker| worker.pid);
            assert!(pid.is_some(), "it is drained before its workers end");
            assert!(stop.join().unwrap().status.success());
        });
        wait_seen(&socket, "MAINT", None);
        assert!(one.cluster.cli(&["start", "web"]).status.success());
        wait_seen(&socket, "UP", Some("100"));
    });
    eprintln!("{count} answers over a stop and a start of one server of two");
    assert!(bad.is_empty(), "{} of {count} answers: {:?}", bad.len(), &bad[..bad.len().min(8)]);
    assert_eq!(share(proxy.address, &one), REQUESTS / 2);
    drop(proxy);
    one.cluster.stop();
    two.cluster.stop();
}
