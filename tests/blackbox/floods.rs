//! Workers and clients that say more than clusterd can take, beside an honest app in the same deployment: it notices
//! nothing, and the master stays what it is. The quick run has a flood of each mechanism, `--ignored` one of each kind.
use super::apps::misbehave;
use super::client::get;
use super::cluster::Cluster;
use super::common::flooding::{FLOOD_KIB_MAX, MASTER_KIB_MAX, begin, beside, beside_script, control_socket, peak_kib};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long the honest app is asked beside the flood.
const FLOOD_LASTS: Duration = Duration::from_secs(3);
/// Answers that it gives in that time at least.
const ANSWERS_MIN: usize = 60;
/// All but one in a hundred come within this. Both sides share the machine with other tests.
const LATENCY_MAX: Duration = Duration::from_millis(1_500);

/// The master before the flood.
struct Before {
    pid: i32,
    kib: u64,
}

fn master_of(cluster: &Cluster) -> Before {
    let pid = cluster.master_pid();
    Before { pid, kib: peak_kib(pid) }
}

/// The honest app answers everything in time while the master lives on in little memory and answers too.
fn is_unharmed(cluster: &Cluster, master: &Before) {
    let (address, begun) = (cluster.address(), Instant::now());
    let mut latencies = Vec::new();
    while begun.elapsed() < FLOOD_LASTS || latencies.len() < ANSWERS_MIN {
        let asked = Instant::now();
        get(address, "/").unwrap();
        latencies.push(asked.elapsed());
    }
    latencies.sort_unstable();
    let p99 = latencies[latencies.len() * 99 / 100];
    assert!(p99 < LATENCY_MAX, "p99 of {} answers: {p99:?}", latencies.len());
    let view = cluster.wait_view("the control API", |_| true);
    assert_eq!((view.master_pid, view.master_restarts), (master.pid, 0));
    let kib = peak_kib(master.pid);
    // The kernel may forget a peak when it takes pages back.
    let added = kib.saturating_sub(master.kib);
    assert!(kib < MASTER_KIB_MAX && added < FLOOD_KIB_MAX, "{} KiB before, {kib} at most", master.kib);
}

/// The whole of it with one kind of flood, up to the end of the deployment. The workers are not killed for it.
fn floods(flood: &str, workers: usize) -> Cluster {
    floods_in(beside(flood, workers, ""), workers)
}

fn floods_in(cluster: Cluster, workers: usize) -> Cluster {
    let master = master_of(&cluster);
    begin(&cluster);
    is_unharmed(&cluster, &master);
    let app = cluster.wait_view("the flooding app", |_| true).apps.remove(1);
    assert_eq!((app.restarts, app.workers_ready as usize), (0, workers), "they are read later, and live");
    cluster
}

#[test]
#[ignore = "long: every kind of flood, each for seconds"]
fn a_worker_that_says_ready_for_ever_hurts_nobody() {
    let _turn = super::common::turns::turn();
    let cluster = floods("ready", 1);
    cluster.wait_line("floods its channel");
    cluster.stop();
}

#[test]
#[ignore = "long: every kind of flood, each for seconds"]
fn a_worker_that_listens_for_ever_hurts_nobody() {
    let _turn = super::common::turns::turn();
    floods("listening", 1).stop();
}

#[test]
#[ignore = "long: every kind of flood, each for seconds"]
fn a_worker_that_comes_online_for_ever_hurts_nobody() {
    let _turn = super::common::turns::turn();
    floods("online", 1).stop();
}

#[test]
#[ignore = "long: every kind of flood, each for seconds"]
fn unknown_internal_lines_for_ever_hurt_nobody() {
    let _turn = super::common::turns::turn();
    floods("unknown", 1).stop();
}

#[test]
#[ignore = "long: every kind of flood, each for seconds"]
fn numbers_for_ever_hurt_nobody() {
    let _turn = super::common::turns::turn();
    floods("number", 1).stop();
}

#[test]
#[ignore = "long: every kind of flood, each for seconds"]
fn messages_to_nobody_for_ever_hurt_nobody() {
    let _turn = super::common::turns::turn();
    floods("message", 2).stop();
}

#[test]
#[ignore = "long: every kind of flood, each for seconds"]
fn answers_to_nothing_for_ever_hurt_nobody() {
    let _turn = super::common::turns::turn();
    floods("answers", 1).stop();
}

#[test]
#[ignore = "long: every kind of flood, each for seconds"]
fn servers_that_open_and_close_for_ever_hurt_nobody() {
    let _turn = super::common::turns::turn();
    floods("servers", 1).stop();
}

#[test]
#[ignore = "long: every kind of flood, each for seconds"]
fn lines_of_many_kinds_for_ever_hurt_nobody() {
    floods("mixed", 2).stop();
}

#[test]
#[ignore = "long: every kind of flood, each for seconds"]
fn a_line_at_a_time_for_ever_hurts_nobody() {
    let _turn = super::common::turns::turn();
    floods("writes", 2).stop();
}

#[test]
#[ignore = "long: every kind of flood, each for seconds"]
fn one_line_of_60_mib_after_the_other_hurts_nobody() {
    let _turn = super::common::turns::turn();
    floods("long", 2).stop();
}

#[test]
#[ignore = "long: every kind of flood, each for seconds"]
fn lines_that_are_never_finished_take_little_memory() {
    let _turn = super::common::turns::turn();
    floods("unfinished", 3).stop();
}

#[test]
#[ignore = "long: every kind of flood, each for seconds"]
fn a_worker_that_asks_for_addresses_for_ever_fills_no_log() {
    let _turn = super::common::turns::turn();
    let cluster = beside("addresses", 1, "");
    let master = master_of(&cluster);
    begin(&cluster);
    is_unharmed(&cluster, &master);
    cluster.wait_line("listens on more than 256 addresses");
    cluster.wait_line("more warnings like these were left out");
    let app = cluster.wait_view("the flooding app", |_| true).apps.remove(1);
    assert_eq!((app.restarts, app.workers_ready), (0, 1), "it is read later, and lives");
    let told = cluster.stderr().iter().filter(|line| line.contains("listens on more than 256 addresses")).count();
    assert!(told <= 6, "{told} lines say so");
    cluster.stop();
}

#[test]
#[ignore = "long: a worker that reads nothing, for seconds"]
fn a_worker_that_does_not_read_its_answers_is_read_once_it_does() {
    let script = misbehave("asks.py");
    let cluster = Cluster::start(&["-w", "1", "-p", "0", "--protocol", "node", "--", "python3", &script]);
    cluster.wait_line("sends requests and does not read the answers");
    let view = cluster.wait_view("the worker", |_| true);
    assert_eq!((view.apps[0].restarts, view.apps[0].workers_ready), (0, 1), "it waits, and lives");
    cluster.folder.write("read", "");
    assert!(cluster.wait_out("ANSWERED").contains("ANSWERED True"), "each answer, in order");
    assert_eq!(get(cluster.address(), "/").unwrap(), "ok");
    assert_eq!(cluster.wait_view("the worker", |_| true).apps[0].restarts, 0);
    cluster.stop();
}

#[test]
#[ignore = "long: every kind of flood, each for seconds"]
fn messages_to_an_agent_for_ever_hurt_nobody() {
    let _turn = super::common::turns::turn();
    floods_in(beside("relay", 2, "[app.agent]\ncommand = [\"node\", \"agent.js\"]\n"), 2).stop();
}

#[test]
#[ignore = "long: every kind of flood, each for seconds"]
fn long_lines_that_an_agent_might_get_take_little_memory() {
    let _turn = super::common::turns::turn();
    for flood in ["long", "unfinished"] {
        floods_in(beside(flood, 3, "[app.agent]\ncommand = [\"node\", \"agent.js\"]\n"), 3).stop();
    }
}

#[test]
fn a_worker_that_floods_its_notify_socket_hurts_nobody() {
    let more = "protocol = \"listen-fds\"\nlisten = \"127.0.0.1:0\"\nready = \"notify\"\n";
    floods_in(beside_script("shouts.py", 2, more), 2).stop();
}

#[test]
fn clients_that_ask_the_control_api_for_ever_hurt_nobody() {
    let cluster = Cluster::hello(1);
    let (master, socket, over) = (master_of(&cluster), control_socket(&cluster), Arc::new(AtomicBool::new(false)));
    let askers: Vec<_> = (0..8)
        .map(|_| {
            let (socket, over) = (socket.clone(), Arc::clone(&over));
            std::thread::spawn(move || {
                let mut answers = 0;
                while !over.load(Ordering::Acquire) {
                    let mut client = UnixStream::connect(&socket).unwrap();
                    client.write_all(b"GET /v1/apps HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
                    let mut answer = String::new();
                    client.read_to_string(&mut answer).unwrap();
                    answers += usize::from(answer.contains("200 OK"));
                }
                answers
            })
        })
        .collect();
    is_unharmed(&cluster, &master);
    over.store(true, Ordering::Release);
    for asker in askers {
        assert!(asker.join().unwrap() > 0);
    }
    cluster.stop();
}

#[test]
fn a_client_that_holds_connections_leaves_some_to_others() {
    let cluster = Cluster::hello(1);
    let worker = cluster.worker_pids()[0].to_string();
    let held: Vec<UnixStream> = (0..80).map(|_| UnixStream::connect(control_socket(&cluster)).unwrap()).collect();
    let asked = Instant::now();
    let said = cluster.cli(&["ls"]);
    assert!(String::from_utf8_lossy(&said.stdout).contains(&worker), "{said:?}");
    // Later the held ones are closed, because nothing is asked over them.
    assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());
    drop(held);
    cluster.stop();
}
