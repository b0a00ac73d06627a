//! Balance `kernel`: each slot has its own listening socket and the kernel chooses. Who gets connections, and that none is
//! lost whatever happens to a worker or the master. The same with fewer rights, and where the kernel takes no program.
use super::apps::project;
use super::client::{Load, Tally, get, who};
use super::cluster::{Cluster, Folder, PATIENCE, alive, kill, wait_for, wait_until};
use super::common::users::{NOBODY, through_setpriv};
use super::refusal;
use clusterd::api::types::Worker;
use clusterd::os::sock_diag;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Answers with its pid; SIGUSR2 stops its event loop for a while. In slot SLOW_SLOT each answer takes 4 ms of CPU time.
const APP: &str = "process.on('SIGUSR2', () => { const end = Date.now() + 2000; while (Date.now() < end); });
const slow = process.env.CLUSTERD_SLOT === process.env.SLOW_SLOT;
require('node:http').createServer((q, s) => {
  for (const end = performance.now() + 4; slow && performance.now() < end; );
  s.end(JSON.stringify({ pid: process.pid }));
}).listen(process.env.PORT);";

/// Who runs clusterd, and what its kernel lets it do.
#[derive(Clone, Copy, Debug, PartialEq)]
enum As {
    /// Whoever runs the tests.
    Is,
    /// A user without any right.
    Nobody,
    /// Where programs that choose among sockets are refused.
    Refused,
}

fn touch(command: &mut Command, how: As) {
    match how {
        As::Is => {}
        As::Nobody => through_setpriv(command, NOBODY),
        As::Refused => refusal::refuse_bpf(command),
    }
}

fn start_as(how: As, workers: u32, options: &[&str], command: &[&str]) -> Cluster {
    let folder = Folder::new();
    folder.write("app.js", APP);
    let count = workers.to_string();
    let mut args = vec!["-w", &count, "-b", "kernel", "--host", "127.0.0.1", "--port", "0"];
    args.extend(options);
    args.push("--");
    args.extend(command);
    let cluster = Cluster::start_in(folder, &args, |command| touch(command, how));
    cluster.wait_ready(workers);
    cluster
}

fn start(workers: u32) -> Cluster {
    start_as(As::Is, workers, &[], &["node", "app.js"])
}

fn python(workers: u32) -> Cluster {
    let script = project("workers/python/listen_fds.py").display().to_string();
    start_as(As::Is, workers, &["--ready", "notify"], &["python3", &script])
}

fn steering(cluster: &Cluster) -> String {
    cluster.app().steering.unwrap_or_default().as_str().to_owned()
}

fn nothing_lost(seen: &Tally) {
    assert_eq!((seen.refused, seen.cut, seen.hung, seen.wrong), (0, 0, 0, 0), "{seen:?}");
}

/// The least served worker's share of what the most served one got.
fn fairness(seen: &Tally, workers: usize) -> f64 {
    assert_eq!(seen.by_pid.len(), workers, "{seen:?}");
    let (least, most) = (seen.by_pid.values().min().unwrap(), seen.by_pid.values().max().unwrap());
    *least as f64 / *most as f64
}

fn load(cluster: &Cluster, answers: u64) -> Tally {
    let load = Load::start(cluster.address(), 4, false);
    load.wait_more(answers);
    load.finish()
}

/// What the workers were given in so many rounds of 500 answers, as the kernel chose. Where CPUs are scarce a worker may
/// stand still for so long that what waits for it goes to another: such a round does not count, and is told of.
fn undisturbed(cluster: &Cluster, rounds: usize) -> Tally {
    let mut sum = Tally::default();
    let mut left = rounds;
    for _ in 0..rounds * 10 {
        let before = cluster.app().handoffs;
        let seen = load(cluster, 500);
        nothing_lost(&seen);
        let handed = cluster.app().handoffs - before;
        if handed > 0 {
            eprintln!("{handed} of {} were handed to another worker", seen.ok);
            continue;
        }
        sum.ok += seen.ok;
        seen.by_pid.iter().for_each(|(pid, count)| *sum.by_pid.entry(*pid).or_default() += count);
        left -= 1;
        if left == 0 {
            return sum;
        }
    }
    panic!("workers stood still all the time");
}

#[test]
#[ignore = "a long load"]
fn turns_are_fair_and_the_master_has_no_part_in_it() {
    let _turn = super::common::turns::turn();
    let cluster = start(4);
    if steering(&cluster) != "turns" {
        eprintln!("not tested here: the kernel gives turns only to those with CAP_BPF");
        return;
    }
    cluster.wait_line("the kernel gives connections to the workers in turn");
    let seen = undisturbed(&cluster, 2);
    assert!(fairness(&seen, 4) >= 0.9, "{seen:?}");
    let steered: u64 = cluster.app().workers.iter().map(|w| w.steered.unwrap()).sum();
    assert!(steered >= seen.ok, "{steered} of {}", seen.ok);
    cluster.stop();
}

#[test]
#[ignore = "a long load"]
fn a_worker_that_is_slow_gets_fewer_as_long_as_much_waits_for_it() {
    // Beside another load every worker is slow.
    let _alone = super::common::turns::alone();
    let cluster = start_as(As::Is, 2, &["-e", "SLOW_SLOT=0"], &["node", "app.js"]);
    if steering(&cluster) != "turns" {
        eprintln!("not tested here: the kernel gives turns only to those with CAP_BPF");
        return;
    }
    let slow = cluster.app().workers.iter().find(|worker| worker.slot == 0).unwrap().pid.unwrap();
    let load = Load::start(cluster.address(), 24, false);
    load.wait_more(1_500);
    let seen = load.finish();
    nothing_lost(&seen);
    let by_slow = seen.by_pid[&slow];
    // In strict turns it would be a half, and everybody would wait for it.
    assert!(by_slow * 3 < seen.ok, "{by_slow} of {}", seen.ok);
    cluster.stop();
}

#[test]
#[ignore = "a long load"]
fn a_user_without_rights_has_connections_spread_at_random_and_fairly() {
    let _turn = super::common::turns::turn();
    let cluster = start_as(As::Nobody, 4, &[], &["node", "app.js"]);
    assert_eq!(steering(&cluster), "random");
    cluster.wait_line("at random (turns need CAP_BPF");
    // 3,000 each, give or take 50 (about the square root): a tenth is far outside.
    let seen = undisturbed(&cluster, 24);
    assert!(fairness(&seen, 4) >= 0.9, "{seen:?}");
    cluster.stop();
}

/// Answers as (who gave it, how long it took), from so many clients at once, until `done`.
fn timed(address: SocketAddr, clients: usize, done: impl Fn() -> bool + Sync) -> Vec<(i32, Duration)> {
    let answers = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                while !done() {
                    let asked = Instant::now();
                    let pid = who(address);
                    answers.lock().unwrap().push((pid, asked.elapsed()));
                }
            });
        }
    });
    answers.into_inner().unwrap()
}

fn a_blocked_worker_is_waited_for_by_nobody(how: As) {
    let cluster = start_as(how, 2, &[], &["node", "app.js"]);
    let address = cluster.address();
    let stuck = cluster.worker_pids()[0];
    for _ in 0..3 {
        // Under load from before, so that the block meets connections in every state.
        let start = Instant::now();
        let clients = 4;
        let told = Mutex::new(false);
        let answers = timed(address, clients, || {
            if start.elapsed() > Duration::from_millis(200) && !std::mem::replace(&mut *told.lock().unwrap(), true) {
                kill(stuck, "USR2");
            }
            start.elapsed() > Duration::from_millis(1_900)
        });
        // Only what it had taken itself, before it was blocked, waits with it.
        let slow: Vec<_> = answers.iter().filter(|(_, took)| *took > Duration::from_millis(500)).collect();
        assert!(slow.iter().all(|(pid, _)| *pid == stuck) && slow.len() <= clients, "{how:?}: {slow:?}");
        assert!(answers.len() > 50, "{how:?}: {} answers", answers.len());
        cluster.wait_view("its turn", |_| who(address) == stuck);
    }
    assert!(cluster.app().handoffs > 0, "somebody's connection was handed to the other worker");
    cluster.stop();
}

#[test]
#[ignore = "a long load"]
fn a_blocked_worker_gets_nothing_and_what_waited_for_it_goes_to_another() {
    let _turn = super::common::turns::alone();
    a_blocked_worker_is_waited_for_by_nobody(As::Is);
    a_blocked_worker_is_waited_for_by_nobody(As::Nobody);
}

#[test]
#[ignore = "a long load"]
fn a_blocked_worker_is_waited_for_by_nobody_under_the_kernels_own_hash() {
    let _turn = super::common::turns::alone();
    a_blocked_worker_is_waited_for_by_nobody(As::Refused);
}

/// As when a master dies with the word of a worker that it has closed its server: the worker lives, its event loop turns,
/// and this master believes that it takes connections.
#[test]
#[ignore = "long: a variant of what quicker tests show"]
fn a_worker_that_has_lost_its_socket_is_noticed_and_replaced() {
    for workers in [1, 2] {
        let folder = Folder::new();
        let app = "const send = process.send.bind(process);
        process.send = (message, ...rest) => message?.act === 'close' || send(message, ...rest);
        const server = require('node:http').createServer((q, s) => {
            if (q.url === '/lose') server.close();
            s.end('pid=' + process.pid);
        }).listen(process.env.PORT);
        setInterval(() => {}, 1000);";
        folder.write("app.js", app);
        let count = workers.to_string();
        let options =
            ["-b", "kernel", "--drain-timeout", "1s", "--host", "127.0.0.1", "--port", "0", "--", "node", "app.js"];
        let args = [&["-w", &count], &options[..]].concat();
        let cluster = Cluster::start_in(folder, &args, |_| {});
        cluster.wait_ready(workers);
        let lost = get(cluster.address(), "/lose").unwrap();
        nothing_lost(&load(&cluster, 100));
        cluster.wait_line("closed its server on 127.0.0.1");
        cluster.wait_view("a replacement", |view| {
            let app = &view.apps[0];
            let is_lost = |worker: &Worker| worker.pid.is_some_and(|pid| format!("pid={pid}") == lost);
            app.workers_ready == workers && app.workers.len() == workers as usize && !app.workers.iter().any(is_lost)
        });
        cluster.stop();
    }
}

/// Kills one worker and waits until the app is whole again.
fn kill_one(cluster: &Cluster, workers: u32, n: usize) {
    let victim = cluster.wait_ready(workers)[n].clone();
    kill(victim.pid.unwrap(), "KILL");
    cluster.wait_view("a replacement", |view| {
        let app = &view.apps[0];
        app.workers_ready == workers && app.workers.iter().all(|w| w.id != victim.id)
    });
}

fn kills_lose_only_what_the_killed_had_taken(how: As) {
    let cluster = start_as(how, 2, &[], &["node", "app.js"]);
    let load = Load::start(cluster.address(), 32, false);
    load.wait_more(200);
    for n in 0..6 {
        kill_one(&cluster, 2, n % 2);
        load.wait_more(50);
    }
    let seen = load.finish();
    assert_eq!((seen.refused, seen.hung, seen.wrong), (0, 0, 0), "{how:?}: {seen:?}");
    assert!(seen.cut <= 6 * 32, "{how:?}: {seen:?}");
    cluster.stop();
}

#[test]
#[ignore = "a long load"]
fn workers_that_are_killed_lose_only_what_they_had_taken() {
    let _turn = super::common::turns::turn();
    kills_lose_only_what_the_killed_had_taken(As::Is);
    kills_lose_only_what_the_killed_had_taken(As::Nobody);
}

/// The lengths of the queues of the sockets that listen on an address.
pub(crate) fn waiting(address: SocketAddr) -> Vec<u32> {
    sock_diag::unconnected(address.port(), false).unwrap().iter().map(|socket| socket.waiting).collect()
}

#[test]
fn what_waits_for_a_dead_worker_is_taken_by_another() {
    let cluster = start(2);
    let address = cluster.address();
    let victim = cluster.wait_ready(2)[0].clone();
    // Stopped, it leaves everything in its queue; the other one too, so that all of it is still there when it dies.
    let other = cluster.wait_ready(2)[1].pid.unwrap();
    kill(victim.pid.unwrap(), "STOP");
    kill(other, "STOP");
    let clients: Vec<_> = (0..10).map(|_| std::thread::spawn(move || who(address))).collect();
    wait_until("ten clients in the queues", || waiting(address).iter().sum::<u32>() == 10);
    kill(victim.pid.unwrap(), "KILL");
    kill(other, "CONT");
    let served: BTreeSet<i32> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    assert!(!served.contains(&victim.pid.unwrap()));
    cluster.stop();
}

#[test]
#[ignore = "a long load"]
fn reloads_and_scaling_lose_nothing() {
    let _turn = super::common::turns::turn();
    for how in [As::Is, As::Refused] {
        let cluster = start_as(how, 2, &[], &["node", "app.js"]);
        let load = Load::start(cluster.address(), 16, false);
        load.wait_more(100);
        for workers in [5, 1, 3] {
            assert!(cluster.cli(&["scale", "all", &workers.to_string()]).status.success());
            let before: BTreeSet<i32> = cluster.wait_ready(workers).iter().filter_map(|w| w.pid).collect();
            load.wait_more(100);
            assert!(cluster.cli(&["reload", "all"]).status.success());
            let after = cluster.wait_ready(workers);
            assert!(after.iter().all(|w| !before.contains(&w.pid.unwrap())));
            load.wait_more(100);
        }
        nothing_lost(&load.finish());
        cluster.stop();
    }
}

#[test]
fn master_kills_lose_nothing_and_workers_notice_nothing() {
    let cluster = start(3);
    let workers = cluster.worker_pids();
    let load = Load::start(cluster.address(), 16, false);
    load.wait_more(100);
    for n in 1..=3 {
        kill(cluster.master_pid(), "KILL");
        cluster.wait_view("the next master", |view| view.master_restarts == n && view.apps[0].workers_ready == 3);
        load.wait_more(200);
    }
    nothing_lost(&load.finish());
    assert_eq!(cluster.worker_pids(), workers);
    // The next one looks after the same sockets.
    kill_one(&cluster, 3, 1);
    let seen = self::load(&cluster, 300);
    nothing_lost(&seen);
    assert_eq!(seen.by_pid.len(), 3);
    cluster.stop();
}

#[test]
#[ignore = "a long load"]
fn a_reload_may_change_the_way_to_balance_and_back() {
    let _turn = super::common::turns::turn();
    let folder = Folder::new();
    folder.write("app.js", APP);
    let config = |balance: &str| {
        format!(
            "[[app]]\nname = \"web\"\ncommand = [\"node\", \"app.js\"]\nworkers = 3\nlisten = \"127.0.0.1:0\"\n\
             balance = \"{balance}\"\n"
        )
    };
    folder.write("c.toml", &config("round-robin"));
    let cluster = Cluster::start_in(folder, &["-c", "c.toml"], |_| {});
    cluster.wait_ready(3);
    let load = Load::start(cluster.address(), 16, false);
    load.wait_more(100);
    for balance in ["kernel", "shared", "kernel", "round-robin"] {
        cluster.folder.write("c.toml", &config(balance));
        assert!(cluster.cli(&["reload", "all"]).status.success());
        let app = cluster.app();
        assert_eq!(app.balance.as_str(), balance);
        let before = app.handoffs;
        load.wait_more(300);
        let handed = cluster.app().handoffs - before;
        assert_eq!(handed > 100, balance == "round-robin", "{handed} hand-offs with {balance}");
    }
    nothing_lost(&load.finish());
    cluster.stop();
}

#[test]
fn a_kernel_that_takes_no_program_is_told_and_serves_on() {
    let cluster = start_as(As::Refused, 3, &[], &["node", "app.js"]);
    assert_eq!(steering(&cluster), "hash");
    let line = cluster.wait_line("the kernel distributes connections by its own hash");
    assert!(line.contains("Operation not permitted"), "{line}");
    let seen = load(&cluster, 500);
    nothing_lost(&seen);
    assert_eq!(seen.by_pid.len(), 3);
    // The kernel still chooses the socket of a slot that was removed: connections that arrive there are served.
    assert!(cluster.cli(&["scale", "all", "1"]).status.success());
    cluster.wait_ready(1);
    let seen = load(&cluster, 200);
    nothing_lost(&seen);
    assert!(cluster.app().handoffs > 0);
    cluster.stop();
}

#[test]
#[ignore = "a long load"]
fn other_programs_have_a_socket_for_each_slot_too() {
    let _turn = super::common::turns::turn();
    let cluster = python(3);
    assert_ne!(steering(&cluster), "");
    let load = Load::start(cluster.address(), 8, false);
    load.wait_more(100);
    assert!(cluster.cli(&["reload", "all"]).status.success());
    load.wait_more(50);
    for workers in [1, 4] {
        assert!(cluster.cli(&["scale", "all", &workers.to_string()]).status.success());
        cluster.wait_ready(workers);
        load.wait_more(50);
    }
    kill(cluster.master_pid(), "KILL");
    cluster.wait_view("the next master", |view| view.master_restarts == 1 && view.apps[0].workers_ready == 4);
    load.wait_more(50);
    nothing_lost(&load.finish());
    // What waits for a worker that died waits for the next one of its slot.
    let load = Load::start(cluster.address(), 8, false);
    load.wait_more(50);
    for n in 0..4 {
        kill_one(&cluster, 4, n);
    }
    load.wait_more(50);
    let seen = load.finish();
    assert_eq!((seen.refused, seen.hung, seen.wrong), (0, 0, 0), "{seen:?}");
    assert!(seen.by_pid.len() >= 4, "{seen:?}");
    cluster.stop();
}

#[test]
fn other_programs_share_one_socket_where_the_kernel_takes_no_program() {
    let script = project("workers/python/listen_fds.py").display().to_string();
    let cluster = start_as(As::Refused, 3, &["--ready", "notify"], &["python3", &script]);
    cluster.wait_line("the workers share one socket: the kernel refuses the BPF program");
    let load = Load::start(cluster.address(), 8, false);
    load.wait_more(50);
    assert!(cluster.cli(&["scale", "all", "1"]).status.success());
    cluster.wait_ready(1);
    load.wait_more(50);
    nothing_lost(&load.finish());
    cluster.stop();
}

#[test]
fn a_worker_of_another_program_that_takes_nothing_gets_nothing_new() {
    // It accepts when it is told to, one by one.
    let script = "import os, socket, time\n\
                  s = socket.socket(fileno=3)\n\
                  while True:\n\
                  \x20   c = s.accept()[0]\n\
                  \x20   asked = b''\n\
                  \x20   while not asked.endswith(b'\\r\\n\\r\\n'): asked += c.recv(500)\n\
                  \x20   while os.path.exists('hold-%s' % os.environ['CLUSTERD_SLOT']): time.sleep(0.01)\n\
                  \x20   body = b'pid=%d' % os.getpid()\n\
                  \x20   c.sendall(b'HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n' % len(body) + body)\n\
                  \x20   c.close()\n";
    let cluster = start_as(As::Is, 2, &["--ready", "100ms"], &["python3", "-c", script]);
    let address = cluster.address();
    cluster.folder.write("hold-0", "");
    // One that it takes and holds, and one that waits behind it: from then on everybody is served by the other.
    let held: Vec<_> = (0..8).map(|_| std::thread::spawn(move || who(address))).collect();
    let other = cluster.wait_ready(2)[1].pid.unwrap();
    cluster.wait_view("only the other one", |_| (0..6).all(|_| timely(address) == Some(other)));
    std::fs::remove_file(cluster.folder.path().join("hold-0")).unwrap();
    let served: BTreeSet<i32> = held.into_iter().map(|client| client.join().unwrap()).collect();
    assert_eq!(served.len(), 2);
    cluster.wait_view("both again", |_| (0..6).any(|_| who(address) != other));
    cluster.stop();
}

/// Who answers within a moment.
fn timely(address: SocketAddr) -> Option<i32> {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(get(address, "/")));
    let body = receiver.recv_timeout(Duration::from_millis(500)).ok()?.ok()?;
    body.strip_prefix("pid=")?.parse().ok()
}

#[test]
fn two_deployments_never_share_an_address() {
    let cluster = start(2);
    let address = cluster.address().to_string();
    let folder = Folder::new();
    for balance in ["kernel", "round-robin"] {
        let args = ["-w", "2", "-b", balance, "--listen", &address, "--", "node", "app.js"];
        let (code, _, err) = super::cluster::run(&folder, &args);
        assert_eq!(code, 1, "{err}");
        assert!(err.contains(&address) && err.contains("in use by ") && err.contains("(pid "), "{err}");
    }
    cluster.stop();
}

#[test]
fn an_app_that_is_started_again_has_its_sockets_again() {
    let folder = Folder::new();
    folder.write("app.js", APP);
    let address = format!("127.0.0.1:{}", super::common::ports::free_port());
    let args = ["-w", "3", "-b", "kernel", "--listen", &address, "--", "node", "app.js"];
    let cluster = Cluster::start_in(folder, &args, |_| {});
    let before: BTreeSet<i32> = cluster.wait_ready(3).iter().filter_map(|w| w.pid).collect();
    for _ in 0..2 {
        assert!(cluster.cli(&["restart", "all"]).status.success());
        let seen = load(&cluster, 300);
        nothing_lost(&seen);
        assert_eq!(seen.by_pid.len(), 3);
        assert!(seen.by_pid.keys().all(|pid| !before.contains(pid)));
    }
    assert_ne!(steering(&cluster), "");
    cluster.stop();
}

#[test]
fn servers_that_the_app_itself_asks_for_are_spread_too() {
    let folder = Folder::new();
    // No port and no address: any free one, IPv6 and IPv4.
    let app = "const s = require('node:http').createServer((q, r) => r.end('pid=' + process.pid));\n\
               s.listen(() => console.log('port ' + s.address().port));";
    folder.write("app.js", app);
    let cluster = Cluster::start_in(folder, &["-w", "3", "-b", "kernel", "--", "node", "app.js"], |_| {});
    cluster.wait_ready(3);
    wait_until("three reports", || cluster.stdout().len() == 3);
    let ports: BTreeSet<String> = cluster.stdout().into_iter().collect();
    assert_eq!(ports.len(), 1);
    let port: u16 = ports.first().unwrap().strip_prefix("port ").unwrap().parse().unwrap();
    for host in ["127.0.0.1", "[::1]"] {
        let seen = Load::start(format!("{host}:{port}").parse().unwrap(), 4, false);
        seen.wait_more(100);
        let seen = seen.finish();
        nothing_lost(&seen);
        assert_eq!(seen.by_pid.len(), 3);
    }
    cluster.stop();
}

/// The pid that answers this client's datagram.
fn ask(client: &UdpSocket, port: u16) -> Option<i32> {
    client.send_to(b"hello", ("127.0.0.1", port)).unwrap();
    let mut answer = [0; 64];
    let (n, _) = client.recv_from(&mut answer).ok()?;
    String::from_utf8_lossy(&answer[..n]).strip_prefix("pid=")?.parse().ok()
}

#[test]
fn datagrams_of_a_client_stay_with_their_worker_also_when_another_dies() {
    let folder = Folder::new();
    let app = "const s = require('node:dgram').createSocket('udp4');\n\
               s.on('message', (m, from) => s.send('pid=' + process.pid, from.port));\n\
               s.bind(0, '127.0.0.1', () => console.log('port ' + s.address().port));";
    folder.write("app.js", app);
    let cluster = Cluster::start_in(folder, &["-w", "3", "-b", "kernel", "--", "node", "app.js"], |_| {});
    cluster.wait_ready(3);
    wait_until("three reports", || cluster.stdout().len() == 3);
    let port: u16 = cluster.stdout()[0].strip_prefix("port ").unwrap().parse().unwrap();
    let clients: Vec<UdpSocket> = (0..30).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    clients.iter().for_each(|client| client.set_read_timeout(Some(PATIENCE)).unwrap());
    let ask_all = || clients.iter().map(|client| ask(client, port).unwrap()).collect::<Vec<i32>>();
    // The kernel is told a moment after the last worker was ready.
    wait_until("all three", || ask_all().iter().collect::<BTreeSet<_>>().len() == 3 && ask_all() == ask_all());
    let first = ask_all();
    let victim = cluster.wait_ready(3)[1].clone();
    kill(victim.pid.unwrap(), "KILL");
    cluster.wait_view("a replacement", |view| {
        view.apps[0].workers_ready == 3 && view.apps[0].workers.iter().all(|w| w.id != victim.id)
    });
    let new = cluster.wait_ready(3)[1].pid.unwrap();
    let expected: Vec<i32> = first.iter().map(|&pid| if pid == victim.pid.unwrap() { new } else { pid }).collect();
    // The kernel is told a moment after it was ready.
    wait_until("the replacement in the victim's place", || ask_all() == expected);
    cluster.stop();
}

#[test]
fn an_idle_master_sleeps() {
    let cluster = start(4);
    nothing_lost(&load(&cluster, 50));
    let master = cluster.master_pid();
    let wakes = || {
        let status = std::fs::read_to_string(format!("/proc/{master}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches")).unwrap().to_owned();
        line.split_ascii_whitespace().nth(1).unwrap().parse::<u32>().unwrap()
    };
    let before = wakes();
    // The measure is time: nothing happens that could be waited for.
    std::thread::sleep(Duration::from_secs(3));
    // Heartbeat and pings: a few a second.
    let woke = wakes() - before;
    assert!(woke <= 24, "woke {woke} times in three seconds without anything to do");
    cluster.stop();
}

#[test]
#[ignore = "long: a variant of what quicker tests show"]
fn slots_that_are_scaled_away_leave_nothing_behind() {
    let cluster = start(2);
    let keeper = cluster.keeper_pid();
    let sockets = || {
        let held = std::fs::read_dir(format!("/proc/{keeper}/fd")).unwrap();
        let targets = held.flatten().filter_map(|fd| std::fs::read_link(fd.path()).ok());
        targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
    };
    // What is given back is given back a moment after the last process has ended.
    let at_rest = || {
        wait_for("a number of sockets that stays", || {
            let seen = sockets();
            std::thread::sleep(Duration::from_millis(300));
            (sockets() == seen).then_some(seen)
        })
    };
    let mut counts = BTreeMap::new();
    for _ in 0..3 {
        for workers in [6, 2] {
            let before = cluster.worker_pids();
            assert!(cluster.cli(&["scale", "all", &workers.to_string()]).status.success());
            cluster.wait_ready(workers);
            wait_until("the end of those that left", || before.iter().filter(|pid| alive(**pid)).count() == 2);
            let known = *counts.entry(workers).or_insert_with(at_rest);
            wait_until("as many sockets as before", || sockets() == known);
        }
    }
    cluster.stop();
}
