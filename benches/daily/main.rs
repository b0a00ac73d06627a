//! What daily commands cost: `cargo bench --bench daily [-- --quick]`.
//!
//! Prints what `clusterd start` adds to an app's own start, how long `ls` takes over 20 apps, and the private memory and
//! CPU time of the keepers and masters of 100 idle apps. In a home of its own, bounded, and ends by itself.
#![allow(clippy::print_stdout)] // The figures are the point.

use clusterd::api::types::Deployment;
use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Apps that are listed.
const LISTED: usize = 20;
/// How long idle apps are watched.
const WATCHED: Duration = Duration::from_secs(20);
/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(30);

fn main() {
    let quick = std::env::args().any(|arg| arg == "--quick");
    let home = Home::new();
    starts(&home, if quick { 5 } else { 20 });
    idle(&home, LISTED);
    listing(&home, if quick { 10 } else { 40 });
    idle(&home, if quick { 30 } else { 100 });
    resting(&home);
}

/// A start beside the same program started by hand, in turns: from the command to the first answer.
fn starts(home: &Home, times: usize) {
    let app = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/apps/web.js");
    let (mut alone, mut started, mut returned) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..times {
        let port = free_port();
        let from = Instant::now();
        let mut node = Command::new("node").arg(&app).env("PORT", port.port().to_string()).spawn().expect("node");
        first_answer(port);
        alone.push(ms(from));
        node.kill().and_then(|()| node.wait()).expect("an end");
        let port = free_port();
        let from = Instant::now();
        let words = ["start", &app.display().to_string(), "-n", "web", "-i", "1", "--host", "127.0.0.1", "-p"];
        home.run(&[&words[..], &[&port.port().to_string()]].concat());
        returned.push(ms(from));
        first_answer(port);
        started.push(ms(from));
        home.run(&["delete", "web", "--now"]);
    }
    println!(
        "start: node answers after {:.0} ms, through clusterd start after {:.0} ms: {:.0} ms more (goal < 50); the \
         command returns after {:.0} ms (medians of {times})",
        median(&mut alone),
        median(&mut started),
        median(&mut started) - median(&mut alone),
        median(&mut returned)
    );
}

/// Brings the home to so many apps that do nothing.
fn idle(home: &Home, count: usize) {
    let there = home.deployments().len();
    for n in there..count {
        home.run(&["start", "-n", &format!("idle-{n}"), "-w", "1", "--ready", "1ms", "--", "sleep", "1000"]);
    }
}

fn listing(home: &Home, times: usize) {
    let mut took: Vec<f64> = (0..times)
        .map(|_| {
            let from = Instant::now();
            home.run(&["ls"]);
            ms(from)
        })
        .collect();
    println!("ls: {LISTED} apps in {:.1} ms (median of {times}; goal < 20)", median(&mut took));
}

fn resting(home: &Home) {
    let all = home.deployments();
    let of = |d: &Deployment| [vec![d.keeper_pid, d.master_pid], guards(d.master_pid)].concat();
    let pids: Vec<Vec<i32>> = all.iter().map(of).collect();
    let ticks = || pids.iter().flatten().map(|pid| cpu_ticks(*pid)).sum::<u64>();
    let before = ticks();
    std::thread::sleep(WATCHED);
    let used = (ticks() - before) * 10;
    let sum = |pids: &Vec<i32>| pids.iter().map(|pid| private_kib(*pid)).sum::<u64>() as f64 / 1024.0;
    let mut private: Vec<f64> = pids.iter().map(sum).collect();
    println!(
        "{} idle apps: keeper, master and guard together {:.2} MiB of private memory each (median; goal < 10), and {used} ms of \
         CPU time for all of them in {} s",
        all.len(),
        median(&mut private),
        WATCHED.as_secs()
    );
}

/// A home in which everything ends with it.
struct Home(PathBuf);

impl Home {
    fn new() -> Home {
        let path = std::env::temp_dir().join(format!("clusterd-daily-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder");
        Home(path)
    }

    fn run(&self, args: &[&str]) -> Vec<u8> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_clusterd"));
        command.args(args).env("CLUSTERD_HOME", &self.0).stdin(Stdio::null()).stderr(Stdio::piped());
        let output = command.output().expect("clusterd");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    fn deployments(&self) -> Vec<Deployment> {
        serde_json::from_slice(&self.run(&["ls", "--json"])).expect("JSON")
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        self.run(&["kill", "--now"]);
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port")
}

/// Asks until there is an answer.
fn first_answer(address: SocketAddr) {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Ok(mut stream) = TcpStream::connect(address) {
            let asked =
                std::io::Write::write_all(&mut stream, b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
            let mut answer = Vec::new();
            if asked.is_ok() && stream.read_to_end(&mut answer).is_ok_and(|n| n > 0) {
                return;
            }
        }
        assert!(Instant::now() < until, "no answer from {address}");
        std::thread::sleep(Duration::from_micros(500));
    }
}

fn ms(from: Instant) -> f64 {
    from.elapsed().as_secs_f64() * 1000.0
}

fn median(of: &mut [f64]) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

/// User and system time so far, in hundredths of a second.
fn cpu_ticks(pid: i32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    after.split_ascii_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum()
}

/// The guard of a master.
fn guards(master: i32) -> Vec<i32> {
    let children = std::fs::read_to_string(format!("/proc/{master}/task/{master}/children")).unwrap_or_default();
    children.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

fn private_kib(pid: i32) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let private = rollup.lines().filter(|line| line.starts_with("Private_"));
    private.filter_map(|line| line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()).sum()
}
