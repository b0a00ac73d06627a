//! When the system has too little: no free file descriptors, none in the whole machine, too many under way. Connections wait
//! in the kernel's queue, the master does not turn in circles, and afterwards everything works again.
use super::apps::hello;
use super::client::{Load, who};
use super::cluster::{Cluster, Folder, kill, wait_until};
use super::common::files::first_free_file;
use super::common::users::{NOBODY, is_root, through_setpriv};
use super::kernel::waiting;
use super::refusal::Gate;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// CPU time that a process has used, in milliseconds.
fn cpu_ms(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().collect();
    (fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()) * 10
}

/// Changes the soft limit on open files of a running process; returns the previous one.
fn limit_files(pid: i32, files: u64) -> u64 {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let before = line.split_ascii_whitespace().nth(3).unwrap().parse().unwrap();
    let mut command = Command::new("prlimit");
    command.args([format!("--pid={pid}"), format!("--nofile={files}:")]);
    // Not even root may do this to another user's process everywhere; that user may.
    let owner = fs::metadata(format!("/proc/{pid}")).unwrap().uid();
    if owner != fs::metadata("/proc/self").unwrap().uid() {
        through_setpriv(&mut command, owner);
    }
    assert!(command.status().unwrap().success());
    before
}

/// The CPU time of a process over this time is a small part of it.
fn does_not_spin(pid: i32, time: Duration) {
    let (before, start) = (cpu_ms(pid), Instant::now());
    std::thread::sleep(time);
    let (used, whole) = (cpu_ms(pid) - before, start.elapsed().as_millis() as u64);
    assert!(used * 10 <= whole, "{used} ms of CPU in {whole} ms");
}

fn clients(cluster: &Cluster, count: usize) -> Vec<std::thread::JoinHandle<i32>> {
    let address = cluster.address();
    (0..count).map(|_| std::thread::spawn(move || who(address))).collect()
}

/// Nobody is served while it lasts, everybody afterwards.
fn outlasts(cluster: Cluster, begin: impl FnOnce(i32) -> u64, end: impl FnOnce(i32, u64)) {
    let (master, address) = (cluster.master_pid(), cluster.address());
    let before = begin(master);
    let waiting: Vec<_> = (0..4).map(|_| std::thread::spawn(move || who(address))).collect();
    cluster.wait_line("cannot accept");
    does_not_spin(master, Duration::from_millis(1_500));
    assert!(waiting.iter().all(|client| !client.is_finished()));
    let said = cluster.stderr().iter().filter(|line| line.contains("cannot accept")).count();
    assert_eq!(said, 1, "it is said once");
    end(master, before);
    waiting.into_iter().for_each(|client| assert!(client.join().unwrap() > 0));
    let load = Load::start(cluster.address(), 8, false);
    load.wait_more(100);
    let seen = load.finish();
    assert_eq!((seen.refused, seen.cut, seen.hung, seen.wrong), (0, 0, 0, 0), "{seen:?}");
    assert_eq!(cluster.master_pid(), master);
    cluster.stop();
}

#[test]
fn without_free_descriptors_connections_wait_and_the_master_too() {
    outlasts(
        Cluster::web(2, &hello(), &["-b", "round-robin"]),
        |master| limit_files(master, 3),
        |master, before| {
            limit_files(master, before);
        },
    );
}

#[test]
fn without_free_descriptors_in_the_whole_system_connections_wait_and_the_master_too() {
    let gate = Gate::new(libc::SYS_accept4);
    let app = hello();
    let args = ["-w", "2", "-b", "round-robin", "--host", "127.0.0.1", "--port", "0", "--", "node", &app];
    let cluster = Cluster::start_in(Folder::new(), &args, |command| gate.stand_before(command));
    cluster.wait_ready(2);
    outlasts(
        cluster,
        |_| {
            gate.refuse_with(libc::ENFILE);
            0
        },
        |_, _| gate.let_pass(),
    );
}

#[test]
fn a_rescue_without_free_descriptors_waits_too() {
    let cluster = Cluster::web(2, &hello(), &["-b", "kernel"]);
    let master = cluster.master_pid();
    let stopped = cluster.worker_pids();
    stopped.iter().for_each(|&pid| kill(pid, "STOP"));
    let address = cluster.address();
    let clients = clients(&cluster, 8);
    wait_until("connections for both", || waiting(address).iter().sum::<u32>() == 8);
    let before = limit_files(master, 3);
    kill(stopped[0], "CONT");
    // What waits for the other one cannot be accepted now.
    does_not_spin(master, Duration::from_millis(1_500));
    limit_files(master, before);
    clients.into_iter().for_each(|client| assert!(client.join().unwrap() > 0));
    kill(stopped[1], "CONT");
    cluster.stop();
}

/// A process of a user of its own that keeps descriptors under way, unread, until it is ended.
fn keeps_under_way(user: u32, count: u32) -> Child {
    let script = format!(
        "import array, socket, sys\n\
         ends = [socket.socketpair() for _ in range({count} // 100)]\n\
         for a, b in ends:\n\
         \x20   for _ in range(100):\n\
         \x20       a.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [0]))])\n\
         print('under way', flush=True)\n\
         sys.stdin.read()\n"
    );
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped());
    through_setpriv(&mut command, user);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "under way\n");
    child
}

#[test]
#[ignore = "a long load"]
fn with_too_many_descriptors_under_way_connections_wait_and_the_master_too() {
    let _turn = super::common::turns::turn();
    const USER: u32 = 64_321;
    if !is_root() {
        eprintln!("not tested here: it takes root to run as a user of its own");
        return;
    }
    for balance in ["round-robin", "kernel"] {
        let folder = Folder::new();
        // The sample app may lie where this user may not look.
        folder.write("hello.js", &fs::read_to_string(hello()).unwrap());
        let args = ["-w", "2", "-b", balance, "--host", "127.0.0.1", "--port", "0", "--", "node", "hello.js"];
        let cluster = Cluster::start_in(folder, &args, |command| through_setpriv(command, USER));
        cluster.wait_ready(2);
        let master = cluster.master_pid();
        let mut hoarder = keeps_under_way(USER, 1_000);
        let before = limit_files(master, 200);
        let waiting = clients(&cluster, 4);
        if balance == "kernel" {
            // What a new worker asks for rides on the same channel.
            assert!(cluster.cli(&["scale", "all", "3"]).status.success());
        } else {
            cluster.wait_line("cannot hand connections on");
        }
        does_not_spin(master, Duration::from_millis(1_500));
        let _ = hoarder.kill();
        let _ = hoarder.wait();
        limit_files(master, before);
        waiting.into_iter().for_each(|client| assert!(client.join().unwrap() > 0));
        cluster.wait_ready(if balance == "kernel" { 3 } else { 2 });
        let load = Load::start(cluster.address(), 8, false);
        load.wait_more(100);
        let seen = load.finish();
        assert_eq!((seen.refused, seen.cut, seen.hung, seen.wrong), (0, 0, 0, 0), "{seen:?}");
        assert_eq!(cluster.master_pid(), master);
        assert_eq!(cluster.app().restarts, 0);
        cluster.stop();
    }
}

#[test]
fn a_worker_whose_descriptors_the_keeper_cannot_take_has_failed_and_the_end_waits_for_nobody() {
    let cluster = Cluster::hello(1);
    let keeper = cluster.keeper_pid();
    // One number is free: an order with more descriptors than that arrives without them.
    let held = fs::read_dir(format!("/proc/{keeper}/fd")).unwrap().count() as u64;
    let before = limit_files(keeper, held);
    cluster.signal("TTIN");
    cluster.wait_line("could not be started");
    limit_files(keeper, before);
    cluster.wait_ready(2);
    cluster.stop();
}

/// The processes that the keeper has started: the master and the workers.
fn started_by(keeper: i32) -> Vec<i32> {
    let list = fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children")).unwrap();
    list.split_ascii_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// Wherever a spawn fails for lack of descriptors: the channel, the filter's socket, the description.
#[test]
fn a_failed_spawn_leaves_nothing_with_the_keeper() {
    let options = ["-w", "1", "--port", "0", "--protocol", "bind", "--ready", "1ms", "--min-uptime", "0ms"];
    let cluster = Cluster::start(&[&options[..], &["--kill-timeout", "100ms", "--", "sleep", "1000"]].concat());
    cluster.wait_ready(1);
    let (master, keeper) = (cluster.master_pid(), cluster.keeper_pid());
    let held = || fs::read_dir(format!("/proc/{keeper}/fd")).unwrap().count();
    let before = held();
    // Read from stderr alone: a call of the control API would use descriptors too.
    let told = |what: &str| cluster.stderr().iter().filter(|line| line.contains(what)).count();
    for free in 0.. {
        assert!(free < 20, "it never works");
        let (failed, ready) = (told("could not be started"), told("ready, 1 worker"));
        let worker = *started_by(keeper).iter().find(|pid| **pid != master).unwrap();
        let limit = limit_files(master, first_free_file(master) + free);
        kill(worker, "KILL");
        let next = || started_by(keeper).iter().any(|pid| *pid != master && *pid != worker);
        wait_until("a failed spawn, or a new worker", || told("could not be started") > failed || next());
        let works = told("could not be started") == failed;
        limit_files(master, limit);
        wait_until("a worker that is ready", || told("ready, 1 worker") > ready);
        if works {
            break;
        }
    }
    assert!(told("cannot send the order to the keeper") > 0, "{:?}", cluster.stderr());
    wait_until("as many files as before", || held() == before);
    cluster.stop();
}

/// As many files as the process has open, and not one more.
fn take_free_files(pid: i32) {
    limit_files(pid, first_free_file(pid));
}

#[test]
fn a_master_without_free_descriptors_answers_commands() {
    let cluster = Cluster::hello(2);
    take_free_files(cluster.master_pid());
    for _ in 0..3 {
        let listed = cluster.cli(&["ls", "--json"]);
        let listed = String::from_utf8(listed.stdout).unwrap();
        assert!(listed.contains("\"workers_ready\""), "{listed}");
    }
    cluster.stop();
}

#[test]
fn a_keeper_without_free_descriptors_starts_the_next_master() {
    let cluster = Cluster::hello(2);
    let master = cluster.master_pid();
    take_free_files(cluster.keeper_pid());
    for restarts in 1..=3 {
        kill(cluster.master_pid(), "KILL");
        cluster
            .wait_view("the next master", |view| view.master_restarts as u64 == restarts && view.master_pid != master);
        assert!(who(cluster.address()) > 0);
    }
    cluster.stop();
}

#[test]
fn a_verb_that_can_make_no_thread_does_its_work() {
    let cluster = Cluster::start_in(
        Folder::new(),
        &["-w", "1", "--protocol", "none", "--ready", "1ms", "--", "sleep", "1000"],
        |command| through_setpriv(command, NOBODY),
    );
    cluster.wait_line("ready, 1 worker");
    let clusterd = match is_root() {
        true => cluster.folder.path().join("clusterd"),
        false => PathBuf::from(env!("CARGO_BIN_EXE_clusterd")),
    };
    for (verb, wanted) in [("ls", "sleep"), ("kill", "")] {
        // The user has more processes than that already.
        let mut command = Command::new("prlimit");
        command.arg("--nproc=1").arg(&clusterd).arg(verb);
        command.env("CLUSTERD_HOME", cluster.folder.path().join("home"));
        through_setpriv(&mut command, NOBODY);
        let output = command.output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && out.contains(wanted), "{verb}: {out}{err}");
        assert!(!err.contains("panicked"), "{verb}: {err}");
    }
    let mut cluster = cluster;
    assert_eq!(cluster.wait_exit(), 0);
}
