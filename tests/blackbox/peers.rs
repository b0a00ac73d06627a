//! Where other tools fail and nothing else here looks: old workers that take their time, reloads that overlap, `max` on
//! fewer CPUs than the machine has.
use super::apps::hello;
use super::client::{get_within, who};
use super::cluster::{Cluster, Folder, PATIENCE, command};
use std::collections::BTreeSet;
use std::process::{Command, Stdio};

/// Answers with its pid; `/slow` only when the file `go` is there.
const SLOW: &str = "require('node:http').createServer((q, s) => {
  const answer = () => s.end(JSON.stringify({ pid: process.pid }));
  const look = () => require('node:fs').existsSync('go') ? answer() : setTimeout(look, 20);
  if (q.url === '/slow') look(); else answer();
}).listen(process.env.PORT);";

#[test]
fn an_old_worker_that_takes_its_time_to_end_gets_no_new_connections() {
    let folder = Folder::new();
    folder.write("app.js", SLOW);
    let args = ["-w", "2", "-b", "round-robin", "--host", "127.0.0.1", "--port", "0", "--", "node", "app.js"];
    let cluster = Cluster::start_in(folder, &args, |_| {});
    cluster.wait_ready(2);
    let address = cluster.address();
    let old: BTreeSet<i32> = cluster.worker_pids().into_iter().collect();
    // Both have a request to finish, and do not end before the test says so.
    let mut slow = Vec::new();
    for count in 1..=4 {
        slow.push(std::thread::spawn(move || get_within(PATIENCE, address, "/slow")));
        cluster.wait_view("a request in a worker", |view| {
            view.apps[0].workers.iter().map(|worker| worker.handoffs).sum::<u64>() == count
        });
    }
    assert!(cluster.app().workers.iter().all(|worker| worker.handoffs == 2), "they are given in turns");
    cluster.signal("HUP");
    let reloaded = cluster.wait_view("two new workers beside the old ones", |view| {
        let states = |wanted: &str| view.apps[0].workers.iter().filter(|worker| worker.state == wanted).count();
        states("ready") == 2 && states("draining") == 2
    });
    let draining = reloaded.apps[0].workers.iter().filter(|worker| worker.state == "draining");
    assert_eq!(draining.filter_map(|worker| worker.pid).collect::<BTreeSet<i32>>(), old);
    for n in 0..100 {
        let pid = who(address);
        assert!(!old.contains(&pid), "answer {n} came from {pid}, which drains");
    }
    cluster.folder.write("go", "");
    for answer in slow {
        assert!(answer.join().unwrap().is_ok(), "a request of an old worker was not finished");
    }
    cluster.wait_ready(2);
    cluster.stop();
}

#[test]
fn reloads_that_overlap_run_one_after_the_other_and_leave_no_orphan() {
    let cluster = Cluster::hello(2);
    let commands: Vec<_> = (0..3)
        .map(|_| {
            let mut reload = command(&cluster.folder);
            reload.args(["reload", "all"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            reload.spawn().unwrap()
        })
        .collect();
    for command in commands {
        let done = command.wait_with_output().unwrap();
        assert!(done.status.success(), "{done:?}");
    }
    let listed: BTreeSet<i32> = cluster.wait_ready(2).iter().filter_map(|worker| worker.pid).collect();
    let app = cluster.app();
    assert!(app.workers.iter().all(|worker| worker.generation == app.generation), "{app:#?}");
    let family = || {
        let (keeper, master) = (cluster.keeper_pid(), cluster.master_pid());
        let children = std::fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children")).unwrap();
        children.split_whitespace().filter_map(|pid| pid.parse().ok()).filter(|&pid| pid != master).collect()
    };
    assert_eq!(listed, family(), "every child of the keeper is listed");
    cluster.stop();
}

#[test]
fn max_is_the_number_of_cpus_that_this_process_may_use() {
    // The affinity of a thread is inherited by what it spawns. The CPU is the first one that this thread may use.
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim();
    let cpu = allowed.split([',', '-']).next().unwrap();
    let thread = std::fs::read_link("/proc/thread-self").unwrap();
    let thread = thread.file_name().unwrap().to_str().unwrap();
    let pinned = Command::new("taskset").args(["-cp", cpu, thread]).stdout(Stdio::null()).status().unwrap();
    assert!(pinned.success());
    let options = ["--workers", "max", "--host", "127.0.0.1", "--port", "0", "--", "node", &hello()];
    let cluster = Cluster::start_in(Folder::new(), &options, |_| {});
    cluster.wait_ready(1);
    cluster.stop();
}
