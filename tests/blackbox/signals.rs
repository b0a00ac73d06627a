//! Signals to the pid that the person sees.
use super::apps::misbehave;
use super::client::get;
use super::cluster::{Cluster, alive, kill, wait_end};

fn slow(options: &[&str]) -> Cluster {
    let mut all = vec!["-b", "round-robin", "-e", "SLOW_MS=1500"];
    all.extend(options);
    Cluster::web(2, &misbehave("slow.js"), &all)
}

#[test]
fn sigterm_finishes_what_is_under_way() {
    let mut cluster = slow(&[]);
    let address = cluster.address();
    let request = std::thread::spawn(move || get(address, "/slow"));
    cluster.wait_view("a taken request", |view| view.apps[0].handoffs == 1);
    cluster.signal("TERM");
    assert!(request.join().unwrap().unwrap().contains("pid"));
    assert_eq!(cluster.wait_exit(), 0);
}

#[test]
fn a_second_sigterm_ends_it_at_once() {
    let mut cluster = slow(&["-e", "DEAF=1", "-e", "SLOW_MS=60000"]);
    let address = cluster.address();
    let workers = cluster.worker_pids();
    let request = std::thread::spawn(move || get(address, "/slow"));
    cluster.wait_view("a taken request", |view| view.apps[0].handoffs == 1);
    cluster.signal("INT");
    cluster.wait_line("a second signal stops at once");
    cluster.signal("INT");
    assert_eq!(cluster.wait_exit(), 0);
    assert!(workers.iter().all(|&pid| !alive(pid)));
    assert!(request.join().unwrap().is_err());
}

#[test]
fn sigquit_ends_it_at_once() {
    let mut cluster = slow(&[]);
    cluster.signal("QUIT");
    assert_eq!(cluster.wait_exit(), 0);
}

#[test]
fn the_number_of_workers_follows_signals() {
    let cluster = Cluster::hello(2);
    cluster.signal("TTIN");
    cluster.wait_ready(3);
    cluster.signal("TTOU");
    cluster.wait_ready(2);
    cluster.signal("USR2");
    cluster.wait_ready(3);
    // A value that `sigqueue` carries is the number.
    let queued = std::process::Command::new("kill")
        .args(["-q", "4", "-USR2", &cluster.keeper_pid().to_string()])
        .status()
        .unwrap();
    assert!(queued.success());
    cluster.wait_ready(4);
    cluster.signal("TTOU");
    cluster.wait_ready(3);
    cluster.stop();
}

#[test]
fn a_signal_that_comes_while_no_master_lives_is_not_lost() {
    let mut cluster = Cluster::hello(1);
    let master = cluster.master_pid();
    kill(master, "STOP");
    cluster.signal("TERM");
    kill(master, "KILL");
    assert_eq!(cluster.wait_exit(), 0);
}

#[test]
fn a_deaf_worker_is_killed_after_its_time() {
    let mut cluster = slow(&["-e", "DEAF=1", "--drain-timeout", "200ms", "--kill-timeout", "200ms"]);
    let address = cluster.address();
    let request = std::thread::spawn(move || get(address, "/slow"));
    cluster.wait_view("a taken request", |view| view.apps[0].handoffs == 1);
    cluster.signal("TERM");
    cluster.wait_line("has not ended in time; sending SIGKILL");
    assert_eq!(cluster.wait_exit(), 0);
    assert!(request.join().unwrap().is_err());
    wait_end(cluster.keeper_pid());
}
