//! Workers and master that get a CPU only now and then, as on a machine with far too much to do: every client is answered
//! in time all the same. Here they are stopped and continued in turns: only one of them runs at a time, until it has
//! nothing more to do.
use super::client::get;
use super::cluster::{Cluster, Folder, kill, wait_until};
use super::kernel::waiting;
use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::Duration;

/// Each one's turn. An answer that takes a turn is slow.
const TURN: Duration = Duration::from_millis(120);

/// The first worker of a slot serves; the next one never gets so far.
const APP: &str = "const fs = require('node:fs'), mark = 'had-' + process.env.CLUSTERD_SLOT;
if (fs.existsSync(mark)) setInterval(() => {}, 1000);
else {
  fs.writeFileSync(mark, '');
  require('node:http').createServer((q, s) => s.end(JSON.stringify({ pid: process.pid }))).listen(process.env.PORT);
}";

fn start(workers: u32, balance: &str) -> Cluster {
    let folder = Folder::new();
    folder.write("app.js", APP);
    let count = workers.to_string();
    let args = ["-w", &count, "-b", balance, "--host", "127.0.0.1", "--port", "0", "--", "node", "app.js"];
    let cluster = Cluster::start_in(folder, &args, |_| {});
    cluster.wait_ready(workers);
    cluster
}

/// Whether a process waits for something to happen.
fn sleeps(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('S'))
}

/// Lets these stopped processes run in turns until `done`, then all of them.
fn in_turns(pids: [i32; 2], done: impl Fn() -> bool) {
    while !done() {
        for pid in pids {
            kill(pid, "CONT");
            std::thread::sleep(TURN);
            wait_until("it has nothing more to do", || {
                (0..3).all(|_| {
                    std::thread::sleep(Duration::from_millis(1));
                    sleeps(pid)
                })
            });
            kill(pid, "STOP");
        }
    }
    pids.iter().for_each(|&pid| kill(pid, "CONT"));
}

/// So many clients at once, each with one request.
fn clients(address: SocketAddr, count: usize) -> Vec<JoinHandle<Result<String, String>>> {
    (0..count).map(|_| std::thread::spawn(move || get(address, "/"))).collect()
}

/// All of them were answered, by this one.
fn all_answered(clients: Vec<JoinHandle<Result<String, String>>>, by: i32) {
    let ends: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    let wanted = format!("{{\"pid\":{by}}}");
    let others: Vec<_> = ends.iter().filter(|end| end.as_ref() != Ok(&wanted)).collect();
    assert!(others.is_empty(), "{} of {} were not answered in time: {others:?}", others.len(), ends.len());
}

#[test]
fn clients_of_a_starved_machine_are_not_let_through_one_by_one() {
    let cluster = start(1, "round-robin");
    let (address, master, worker) = (cluster.address(), cluster.master_pid(), cluster.worker_pids()[0]);
    kill(master, "STOP");
    kill(worker, "STOP");
    let clients = clients(address, 50);
    wait_until("all of them in the queue", || waiting(address).iter().sum::<u32>() == 50);
    in_turns([master, worker], || clients.iter().all(JoinHandle::is_finished));
    all_answered(clients, worker);
    cluster.stop();
}

#[test]
fn what_waits_for_a_dead_worker_is_taken_by_a_starved_one() {
    let cluster = start(2, "kernel");
    let (address, master, workers) = (cluster.address(), cluster.master_pid(), cluster.worker_pids());
    kill(master, "STOP");
    workers.iter().for_each(|&worker| kill(worker, "STOP"));
    let clients = clients(address, 80);
    wait_until("all of them in the queues", || waiting(address).iter().sum::<u32>() == 80);
    kill(workers[0], "KILL");
    in_turns([master, workers[1]], || clients.iter().all(JoinHandle::is_finished));
    all_answered(clients, workers[1]);
    cluster.stop();
}
