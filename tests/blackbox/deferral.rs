//! Balance `kernel`: when a connection enters the queue of a slot. Where clients speak first, with their first bytes, so that
//! nobody has it before; elsewhere at once.
use super::client::who;
use super::cluster::{Cluster, Folder, PATIENCE, kill, wait_end, wait_until};
use super::kernel::waiting;
use clusterd::api::types::Deployment;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// A connection whose client says nothing enters the queue after a second.
const IN_TIME: Duration = Duration::from_millis(900);
const WORKERS: u32 = 2;
const CLIENTS: usize = 4;
const ATTEMPTS: usize = 20;

const HTTP: &str = "require('node:http').createServer((q, s) => s.end(JSON.stringify({ pid: process.pid })))";
const NET: &str = "require('node:net').createServer((s) => s.end('220 at your service\\n'))";

fn app(server: &str) -> String {
    format!("{server}.listen(process.env.PORT);\n")
}

fn start(server: &str, options: &str) -> Cluster {
    let folder = Folder::new();
    folder.write("app.js", &app(server));
    let config = "[[app]]\nname = \"web\"\ncommand = [\"node\", \"app.js\"]\nworkers = 2\nlisten = \"127.0.0.1:0\"\n";
    folder.write("c.toml", &format!("{config}balance = \"kernel\"\n{options}"));
    let cluster = Cluster::start_in(folder, &["-c", "c.toml"], |_| {});
    cluster.wait_ready(WORKERS);
    cluster
}

fn silent(address: SocketAddr) -> Vec<TcpStream> {
    (0..CLIENTS).map(|_| TcpStream::connect(address).unwrap()).collect()
}

fn stop(pid: i32) {
    kill(pid, "STOP");
    let state = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    wait_until("a worker that stands still", || state().contains(") T "));
}

fn ask(mut client: TcpStream) {
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
}

/// Whether connections wait for their client outside of the queues: looked at while nobody takes any from there.
fn defers(cluster: &Cluster) -> bool {
    for _ in 0..ATTEMPTS {
        let pids: Vec<i32> = cluster.wait_ready(WORKERS).iter().filter_map(|worker| worker.pid).collect();
        pids.iter().for_each(|pid| stop(*pid));
        let start = Instant::now();
        let clients = silent(cluster.address());
        // The master takes some of them out again, for whichever of the workers is found standing still last.
        let found = waiting(cluster.address()).iter().any(|count| *count > 0);
        let took = start.elapsed();
        pids.iter().for_each(|pid| kill(*pid, "CONT"));
        drop(clients);
        wait_until("empty queues", || waiting(cluster.address()).iter().sum::<u32>() == 0);
        if took < IN_TIME {
            return !found;
        }
    }
    panic!("the machine is too slow for this")
}

#[test]
fn only_servers_whose_clients_speak_first_have_connections_wait_for_that() {
    for (server, expected) in [
        (HTTP, true),
        ("require('node:http2').createServer()", true),
        ("require('node:tls').createServer({})", true),
        (NET, false),
    ] {
        let cluster = start(server, "");
        assert_eq!(defers(&cluster), expected, "{server}");
        cluster.stop();
    }
    let cluster = start(HTTP, "preload = false\n");
    assert!(!defers(&cluster), "nobody says what this one speaks");
    cluster.stop();
}

#[test]
fn whether_connections_wait_for_their_client_follows_the_workers_of_a_slot_and_outlives_the_master() {
    let cluster = start(HTTP, "");
    for (server, expected) in [(NET, false), (HTTP, true)] {
        cluster.folder.write("app.js", &app(server));
        assert!(cluster.cli(&["reload", "all"]).status.success());
        assert_eq!(defers(&cluster), expected, "{server}");
    }
    kill(cluster.master_pid(), "KILL");
    cluster.wait_view("the next master", |view| view.master_restarts == 1 && view.apps[0].workers_ready == WORKERS);
    assert!(defers(&cluster));
    // The socket that was a slot's is everybody's under another mode.
    let config = std::fs::read_to_string(cluster.folder.path().join("c.toml")).unwrap();
    cluster.folder.write("c.toml", &config.replace("kernel", "shared"));
    assert!(cluster.cli(&["reload", "all"]).status.success());
    assert!(!defers(&cluster));
    cluster.stop();
}

#[test]
fn a_client_that_has_asked_nothing_yet_is_not_cut_off_by_the_death_of_a_worker() {
    let cluster = start(HTTP, "");
    for _ in 0..ATTEMPTS {
        let victim = cluster.wait_ready(WORKERS)[0].pid.unwrap();
        let start = Instant::now();
        let clients = silent(cluster.address());
        // Both workers have taken everything that there is to take.
        for _ in 0..8 {
            who(cluster.address());
        }
        kill(victim, "KILL");
        wait_end(victim);
        if start.elapsed() >= IN_TIME {
            // The dead one counts as ready until the master hears of its end.
            let is_gone = |view: &Deployment| view.apps[0].workers.iter().all(|worker| worker.pid != Some(victim));
            cluster.wait_view("its successor", is_gone);
            continue;
        }
        clients.into_iter().for_each(ask);
        return cluster.stop();
    }
    panic!("the machine is too slow for this")
}

#[test]
fn a_client_that_stays_silent_is_accepted_after_a_moment() {
    // Who is accepted and asks nothing is told so.
    let cluster = start(
        &HTTP.replace("createServer(", "createServer({ headersTimeout: 500, connectionsCheckingInterval: 100 }, "),
        "",
    );
    for mut client in silent(cluster.address()) {
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 408"), "{answer:?}");
    }
    cluster.stop();
}
