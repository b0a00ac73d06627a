//! What commands say while they wait, and what the views tell of it.
use super::apps::misbehave;
use super::background::{Home, address};
use super::client::get;
use super::cluster::{command, kill, wait_until};
use clusterd::api::types::Worker;
use std::process::{Child, Stdio};

/// A verb that runs beside the test.
fn begin(home: &Home, args: &[&str]) -> Child {
    command(&home.folder).args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Its exit code and what it said on stderr.
fn end(verb: Child) -> (Option<i32>, String) {
    let output = verb.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_stop_that_drains_says_what_it_waits_for() {
    let home = Home::new();
    let slow = ["-i", "1", "--host", "127.0.0.1", "-p", "0", "-b", "round-robin", "-e", "SLOW_MS=4000"];
    home.ok(&[&["start", &misbehave("slow.js"), "-n", "web"], &slow[..]].concat());
    let at = address(&home.app("web"));
    let request = std::thread::spawn(move || get(at, "/slow"));
    wait_until("a taken request", || home.app("web").handoffs == 1);
    let stop = begin(&home, &["stop", "web"]);
    wait_until("the drain with its deadline", || {
        let draining =
            |worker: &Worker| worker.state == "draining" && worker.time_left_ms.is_some_and(|ms| ms <= 30_000);
        home.app("web").workers.iter().any(draining)
    });
    let (code, said) = end(stop);
    assert_eq!(code, Some(0), "{said}");
    assert!(request.join().unwrap().unwrap().contains("pid"));
    let drains = said.lines().find(|line| line.contains("web: 1 worker drains, 1 connection open; up to "));
    // How much is left of the 30 s depends on how busy the machine is.
    let left = |line: &str| line.split("up to ").nth(1)?.strip_suffix(" s (--now ends at once)")?.parse::<u32>().ok();
    assert!(drains.and_then(left).is_some_and(|left| (20..=30).contains(&left)), "{said}");
    assert_eq!(said.matches("drains").count(), 1, "not a terminal: no more than a line every 10 s\n{said}");
    assert!(said.ends_with("web has stopped\n"), "{said}");
}

#[test]
fn a_slow_start_counts_who_is_ready_and_a_quick_one_says_nothing_of_it() {
    let home = Home::new();
    let app = home
        .folder
        .write("late.js", "setTimeout(() => process.send('ready'), process.env.LATE_MS); setInterval(() => {}, 1000)");
    let late = ["start", &app, "-i", "1", "--ready", "message", "-e", "LATE_MS=2500"];
    let said = home.ok(&late);
    assert!(said.contains("late: 0 of 1 workers ready; up to "), "{said}");
    let said = home.ok(&["restart", "late"]);
    assert!(said.contains("late: 0 of 1 workers ready"), "{said}");
    home.ok(&["delete", "late"]);
    let from = std::time::Instant::now();
    let said = home.ok(&["start", &app, "-i", "1", "--ready", "message", "-e", "LATE_MS=1"]);
    // On a machine that is too busy even the quick one takes its second.
    assert!(from.elapsed().as_millis() >= 1_000 || !said.contains("of 1 workers ready"), "{said}");
}

#[test]
#[ignore = "long: what hangs is waited for"]
fn a_master_that_hangs_is_named_while_it_is_waited_for() {
    let home = Home::new();
    home.web("web", "1");
    let master = home.deployments()[0].master_pid;
    kill(master, "STOP");
    let (_, _, said) = home.run(&["ls"]);
    assert!(said.contains("web: its master does not answer yet"), "{said}");
    wait_until("its successor", || home.deployments().first().is_some_and(|d| d.master_pid != master));
}
