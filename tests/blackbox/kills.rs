//! What the promise is judged by: workers, the master and the keeper are killed under load.
use super::apps::misbehave;
use super::client::Load;
use super::cluster::{Cluster, Folder, PATIENCE, kill, wait_end};
use super::common::wait::wait_until;
use clusterd::api::types::Deployment;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Kills one worker and waits until the app is whole again.
fn kill_one(cluster: &Cluster, slot: usize) {
    let victim = cluster.wait_ready(2)[slot].clone();
    kill(victim.pid.unwrap(), "KILL");
    cluster.wait_view("a replacement", |view| {
        let app = &view.apps[0];
        app.workers_ready == 2 && app.workers.len() == 2 && app.workers.iter().all(|w| w.id != victim.id)
    });
}

#[test]
#[ignore = "a long load"]
fn ten_worker_kills_under_short_connections_refuse_and_hang_nobody() {
    let _turn = super::common::turns::turn();
    let cluster = Cluster::hello(2);
    let load = Load::start(cluster.address(), 64, false);
    load.wait_more(200);
    for n in 0..10 {
        kill_one(&cluster, n % 2);
        load.wait_more(50);
    }
    let seen = load.finish();
    assert_eq!((seen.refused, seen.hung, seen.wrong), (0, 0, 0), "{seen:?}");
    // Cut are only connections that a killed worker had taken: at most what one worker may have open at a time.
    assert!(seen.cut <= 10 * 64, "{seen:?}");
    assert!(seen.ok > 500, "{seen:?}");
    cluster.stop();
}

#[test]
fn three_master_kills_under_short_connections_cost_at_most_the_one_in_hand() {
    let cluster = Cluster::hello(2);
    let workers = cluster.worker_pids();
    let load = Load::start(cluster.address(), 64, false);
    load.wait_more(200);
    for n in 1..=3 {
        kill(cluster.master_pid(), "KILL");
        cluster.wait_view("the next master", |view| view.master_restarts == n && view.apps[0].workers_ready == 2);
        load.wait_more(200);
    }
    let seen = load.finish();
    assert_eq!((seen.refused, seen.hung, seen.wrong), (0, 0, 0), "{seen:?}");
    assert!(seen.cut <= 3, "{seen:?}");
    assert_eq!(cluster.worker_pids(), workers, "the workers notice nothing");
    cluster.stop();
}

#[test]
fn kept_alive_connections_do_not_notice_a_dead_master() {
    let cluster = Cluster::hello(2);
    let load = Load::start(cluster.address(), 8, true);
    load.wait_more(100);
    kill(cluster.master_pid(), "KILL");
    cluster.wait_view("the next master", |view| view.master_restarts == 1);
    load.wait_more(200);
    let seen = load.finish();
    assert_eq!((seen.refused, seen.cut, seen.hung, seen.wrong, seen.idle_closed), (0, 0, 0, 0, 0), "{seen:?}");
    cluster.stop();
}

#[test]
fn a_hung_master_is_replaced_and_waiting_clients_are_served() {
    let cluster = Cluster::hello(2);
    let address = cluster.address();
    let workers = cluster.worker_pids();
    kill(cluster.master_pid(), "STOP");
    // Nobody accepts now: this client waits in the kernel's queue, longer than the strict client would.
    let waiting = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map(|_| answer)
    });
    cluster.wait_line("no heartbeat");
    assert!(waiting.join().unwrap().unwrap().contains("hello"));
    assert_eq!(cluster.worker_pids(), workers);
    cluster.stop();
}

#[test]
fn when_the_keeper_dies_nothing_of_it_lives_on() {
    let cluster = Cluster::hello(2);
    let mut family = cluster.worker_pids();
    family.push(cluster.master_pid());
    kill(cluster.keeper_pid(), "KILL");
    family.iter().for_each(|&pid| wait_end(pid));
}

/// A worker that prints the pid of a process that it has started, and has no other work.
const HAS_A_CHILD: &str = "sleep 1000 & echo CHILD $!; wait";

fn with_a_child() -> (Cluster, i32) {
    let args = ["-w", "1", "--protocol", "none", "--ready", "1ms", "--", "sh", "-c", HAS_A_CHILD];
    let cluster = Cluster::start(&args);
    let said = cluster.wait_out("CHILD ");
    let child = said.split_once("CHILD ").unwrap().1.trim().parse().unwrap();
    cluster.wait_ready(1);
    (cluster, child)
}

#[test]
fn when_the_keeper_dies_what_workers_started_ends_too() {
    let (cluster, child) = with_a_child();
    let master = cluster.master_pid();
    kill(cluster.keeper_pid(), "KILL");
    wait_end(child);
    wait_end(master);
}

#[test]
fn the_next_master_too_ends_what_workers_started_when_the_keeper_dies() {
    let (cluster, child) = with_a_child();
    kill(cluster.master_pid(), "KILL");
    let master = cluster.wait_view("the next master", |view| view.master_restarts == 1).master_pid;
    kill(cluster.keeper_pid(), "KILL");
    wait_end(child);
    wait_end(master);
}

#[test]
fn a_master_that_is_stopped_ends_with_the_keeper_all_the_same() {
    let (cluster, child) = with_a_child();
    let master = cluster.master_pid();
    kill(master, "STOP");
    kill(cluster.keeper_pid(), "KILL");
    wait_end(master);
    wait_end(child);
}

#[test]
fn a_master_that_is_continued_lives_while_its_keeper_does() {
    let cluster = Cluster::hello(1);
    let master = cluster.master_pid();
    kill(master, "CONT");
    // A master that waited for its end would have met it.
    std::thread::sleep(Duration::from_millis(3_500));
    assert_eq!((cluster.master_pid(), cluster.wait_view("it", |_| true).master_restarts), (master, 0));
    cluster.stop();
}

#[test]
fn a_worker_that_dies_while_no_master_lives_is_replaced_by_the_next_one() {
    let cluster = Cluster::hello(2);
    let victim = cluster.wait_ready(2)[0].clone();
    let master = cluster.master_pid();
    // Stopped, it cannot see the death; killed, it never will.
    kill(master, "STOP");
    kill(victim.pid.unwrap(), "KILL");
    kill(master, "KILL");
    cluster.wait_view("a replacement", |view| {
        let app = &view.apps[0];
        app.workers_ready == 2 && app.workers.iter().all(|w| w.id != victim.id)
    });
    cluster.stop();
}

#[test]
fn a_drain_with_an_open_connection_outlives_two_masters() {
    let cluster = Cluster::web(1, &misbehave("drip.js"), &["--drain-timeout", "60s"]);
    let old = cluster.worker_pids()[0];
    let mut drip = BufReader::new(TcpStream::connect(cluster.address()).unwrap());
    drip.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
    let mut word = |expected: &str| {
        let mut answer = String::new();
        drip.get_mut().write_all(b"more\n").unwrap();
        drip.read_line(&mut answer).unwrap();
        assert_eq!(answer, expected);
    };
    word("1\n");
    cluster.signal("HUP");
    let leaving = |view: &Deployment| view.apps[0].workers.iter().any(|w| w.pid == Some(old) && w.state == "draining");
    for n in 1..=2 {
        cluster.wait_view("the old worker in its drain", leaving);
        kill(cluster.master_pid(), "KILL");
        cluster.wait_view("the next master", |view| view.master_restarts == n);
    }
    // The worker was told to leave once; it finishes the connections that it has.
    word("2\n");
    drop(drip);
    wait_end(old);
    cluster.wait_ready(1);
    let thrown = cluster.stderr().iter().any(|line| line.contains("ERR_IPC_DISCONNECTED"));
    assert!(!thrown, "it was told to leave a second time");
    cluster.stop();
}

/// A worker of Node's protocol. The first process stops reading its channel once it has a connection, as one that dies does, says
/// later that it has taken it, and ends. Each writes down the connections that it is given.
const LAST_WORD: &str = r#"
import json, os, socket, sys, time
channel = socket.socket(fileno=int(os.environ['NODE_CHANNEL_FD']))
is_first = not os.path.exists('pids')
with open('pids', 'a') as f:
    f.write(f'{os.getpid()}\n')
said = 0

def say(**message):
    global said
    said += 1
    line = json.dumps({'cmd': 'NODE_CLUSTER', 'seq': said, **message}, separators=(',', ':'))
    channel.sendall((line + '\n').encode())

address = {'address': '127.0.0.1', 'port': int(os.environ['PORT']), 'addressType': 4}
say(act='online')
say(act='queryServer', **address, fd=None, index=0, data=None, flags=0)
pending, fds, given = b'', [], 0
while True:
    data, new, _, _ = socket.recv_fds(channel, 65536, 8)
    if not data:
        sys.exit()
    fds += new
    *lines, pending = (pending + data).split(b'\n')
    for message in map(json.loads, lines):
        inner = message.get('msg', message)
        if inner.get('ack') == 2:
            say(act='listening', **address)
        if inner.get('act') == 'disconnect':
            sys.exit()
        if inner.get('act') != 'newconn':
            continue
        connection = socket.socket(fileno=fds.pop(0))
        given += 1
        if is_first:
            channel.shutdown(socket.SHUT_RD)
            connection.sendall(b'taken\n')
            while not os.path.exists('go'):
                time.sleep(0.005)
            say(ack=inner['seq'], accepted=True)
            connection.recv(1)
            sys.exit(1)
        say(ack=inner['seq'], accepted=True)
        connection.sendall(f'number {given}\n'.encode())
"#;

#[test]
fn what_a_worker_took_before_its_channel_broke_is_given_to_nobody_else() {
    let folder = Folder::new();
    folder.write("worker.py", LAST_WORD);
    let cluster = Cluster::start_in(
        folder,
        &["-w", "1", "--protocol", "node", "--listen", "127.0.0.1:0", "--", "python3", "worker.py"],
        |_| {},
    );
    cluster.wait_ready(1);
    let connect = || {
        let stream = TcpStream::connect(cluster.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        BufReader::new(stream)
    };
    let hear = |client: &mut BufReader<TcpStream>| {
        let mut line = String::new();
        client.read_line(&mut line).unwrap();
        line
    };
    let mut first = connect();
    assert_eq!(hear(&mut first), "taken\n");
    // The master finds that it can send nothing, before it reads that the first one was taken. On a machine so busy that the first one is
    // late by now, the second one is not even accepted.
    let mut second = connect();
    let is_late = |at: std::time::Instant| at.elapsed() > Duration::from_secs(3);
    let from = std::time::Instant::now();
    wait_until("one that waits", || cluster.app().counters.waiting > 0 || is_late(from));
    cluster.folder.write("go", "");
    first.get_mut().write_all(b"x").unwrap();
    assert_eq!(hear(&mut first), "", "it ends with its worker");
    assert_eq!(hear(&mut second), "number 1\n", "the next worker has only what nobody had taken");
    cluster.stop();
}
