//! What a connection costs: `cargo bench --bench handoff [-- --quick]`.
//!
//! Runs, in turns, the floor (a bare accept + sendmsg + close loop), and in front of the same app with two workers the
//! least primary that Node's workers can be given, Node's own cluster (round-robin and shared) and clusterd (each way to
//! balance), under short connections over loopback, and prints one table: connections/s, latency, CPU of the primary per
//! connection. Then memory with 8 workers, the time in which a crashed worker is replaced, and 500 workers of `sleep`.
//! Ratios within one run count; absolute figures depend on the machine. Bounded, and ends by itself.
#![allow(clippy::print_stdout)] // The table is the point.
#[path = "../support/mod.rs"]
#[allow(dead_code)]
mod support;

use nix::sys::signal::Signal;
use std::process::Stdio;
use std::time::{Duration, Instant};
use support::load::Plan;
use support::processes;
use support::servers::{Programs, Server, Tool, clusterd, new_folder};
use support::stats::{median, range, spread};

const WORKERS: usize = 2;
const CLIENTS: usize = 64;

const TOOLS: [Tool; 8] = [
    Tool::Floor,
    Tool::Least,
    Tool::NodeRoundRobin,
    Tool::NodeShared,
    Tool::RoundRobin,
    Tool::Sticky,
    Tool::Shared,
    Tool::Kernel,
];

#[derive(Clone, Debug, Default)]
struct Round {
    rate: f64,
    p50_ms: f64,
    p99_ms: f64,
    cpu_us: f64,
    failed: u64,
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    support::be_one_of_them(&args);
    if args.first().is_some_and(|arg| arg == "load") {
        return load_alone(&args[1..]);
    }
    let _end = processes::end_together();
    let quick = args.iter().any(|a| a == "--quick");
    let (rounds, time) = if quick { (3, Duration::from_secs(2)) } else { (7, Duration::from_secs(4)) };
    println!("{CLIENTS} clients, short connections, {WORKERS} workers, {rounds} rounds of {time:?} each, in turns\n");
    connections(rounds, time);
    if args.iter().any(|a| a == "--connections") {
        return;
    }
    memory();
    replacement(if quick { 10 } else { 30 });
    many_workers();
}

/// `load ADDRESS SECONDS [CLIENTS]`: the clients alone, for a look at a server under load.
fn load_alone(args: &[String]) {
    let clients = args.get(2).map_or(CLIENTS, |text| text.parse().expect("a number"));
    let (address, seconds) = (args[0].parse().expect("an address"), args[1].parse().expect("a number"));
    let tally = Plan::short(address, clients).run(Duration::from_secs(seconds));
    let (p50, p99) = (tally.latencies.quantile_ms(0.5), tally.latencies.quantile_ms(0.99));
    println!("{:.0} connections/s, p50 {p50:.2} ms, p99 {p99:.2} ms, {} failed", tally.rate(), tally.failed());
}

fn started(tool: Tool, workers: usize) -> Server {
    Server::start(tool, workers, &Programs::none()).expect("a server")
}

// ---- connections ----

fn connections(rounds: usize, time: Duration) {
    let tools: Vec<Tool> = TOOLS.into_iter().filter(|tool| tool.in_this_build()).collect();
    let mut all: Vec<Vec<Round>> = vec![Vec::new(); tools.len()];
    for _ in 0..rounds {
        for (n, &tool) in tools.iter().enumerate() {
            let server = started(tool, WORKERS);
            let plan = Plan::short(server.address, CLIENTS);
            plan.run(Duration::from_millis(1200));
            let masters = server.masters();
            let before = processes::cpu_us(&masters);
            let tally = plan.run(time);
            let cpu_us = processes::cpu_us(&masters) - before;
            all[n].push(Round {
                rate: tally.rate(),
                p50_ms: tally.latencies.quantile_ms(0.5),
                p99_ms: tally.latencies.quantile_ms(0.99),
                cpu_us: cpu_us / tally.whole.max(1) as f64,
                failed: tally.failed(),
            });
        }
    }
    let of = |n: usize, figure: &dyn Fn(&Round) -> f64| -> Vec<f64> { all[n].iter().map(figure).collect() };
    let at = |tool: Tool| tools.iter().position(|t| *t == tool).expect("in the list");
    let floor_cpu = median(&of(at(Tool::Floor), &|r| r.cpu_us));
    let node_cpu = median(&of(at(Tool::NodeRoundRobin), &|r| r.cpu_us));
    let node_rate = median(&of(at(Tool::NodeRoundRobin), &|r| r.rate));
    let shared_rate = median(&of(at(Tool::NodeShared), &|r| r.rate));
    let least_rate = median(&of(at(Tool::Least), &|r| r.rate));
    println!(
        "| what | conn/s (spread) | p50 ms | p99 ms | primary CPU µs/conn (spread) | CPU / floor | CPU / node rr | rate / node rr | rate / node shared | rate / least | failed |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    for (n, tool) in tools.iter().enumerate() {
        let (rates, cpus) = (of(n, &|r| r.rate), of(n, &|r| r.cpu_us));
        let (rate, cpu) = (median(&rates), median(&cpus));
        println!(
            "| {} | {rate:.0} ({}) | {:.2} | {:.2} | {cpu:.1} ({}) | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {} |",
            tool.label(),
            spread(&rates, 0),
            median(&of(n, &|r| r.p50_ms)),
            median(&of(n, &|r| r.p99_ms)),
            spread(&cpus, 1),
            cpu / floor_cpu,
            cpu / node_cpu,
            rate / node_rate,
            rate / shared_rate,
            rate / least_rate,
            all[n].iter().map(|r| r.failed).sum::<u64>(),
        );
    }
    println!();
}

// ---- the rest of the budget ----

fn memory() {
    let server = started(Tool::RoundRobin, 8);
    Plan::short(server.address, CLIENTS).run(Duration::from_secs(1));
    let resident = |pids: &[i32]| processes::memory_mib(pids).0;
    let (keeper, both) = (resident(&[server.root()]), resident(&server.masters()));
    println!(
        "memory with 8 workers after load: keeper {keeper:.1} MiB + master {:.1} MiB = {both:.1} MiB resident",
        both - keeper
    );
}

/// Kills workers of a clusterd and measures until their replacement's process exists.
fn replacement(kills: usize) {
    let server = started(Tool::RoundRobin, WORKERS);
    let spawned = || -> Vec<i32> {
        let children = processes::children(server.root()).into_iter();
        children.filter(|&pid| !processes::is_master(pid)).collect()
    };
    let mut took_ms = Vec::new();
    for _ in 0..kills {
        // A worker that had its minimal uptime, so that no backoff applies.
        std::thread::sleep(Duration::from_millis(1100));
        let before = spawned();
        let Some(&victim) = before.first() else { continue };
        processes::send(victim, Signal::SIGKILL);
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(5) {
            if spawned().iter().any(|pid| !before.contains(pid)) {
                took_ms.push(start.elapsed().as_secs_f64() * 1000.0);
                break;
            }
        }
    }
    println!(
        "replacement of a killed worker, from kill to its process ({} kills): median {:.1} ms, worst {:.1} ms",
        took_ms.len(),
        median(&took_ms),
        range(&took_ms).1
    );
}

fn many_workers() {
    let home = new_folder().expect("a folder");
    let start = Instant::now();
    let args = ["-w", "500", "--protocol", "none", "--ready", "100ms", "--name", "many", "--", "sleep", "1000"];
    let mut child = clusterd(&home).args(args).stderr(Stdio::null()).spawn().expect("clusterd");
    let mut ready = false;
    while start.elapsed() < Duration::from_secs(60) && !ready {
        std::thread::sleep(Duration::from_millis(50));
        let listed = clusterd(&home).args(["ls", "--json"]).output().expect("ls");
        ready = String::from_utf8_lossy(&listed.stdout).contains("\"workers_ready\": 500");
    }
    let started = start.elapsed();
    let listing = Instant::now();
    let lines = clusterd(&home).arg("ls").output().expect("ls").stdout.iter().filter(|&&b| b == b'\n').count();
    let listed = listing.elapsed();
    let stopping = Instant::now();
    processes::send(child.id() as i32, Signal::SIGTERM);
    let status = child.wait().expect("an exit");
    println!(
        "500 workers of sleep: {} after {:.2} s, listed ({lines} lines) in {:.0} ms, stopped in {:.0} ms ({status})",
        if ready { "all ready" } else { "NOT all ready" },
        started.as_secs_f64(),
        listed.as_secs_f64() * 1000.0,
        stopping.elapsed().as_secs_f64() * 1000.0,
    );
    let _ = std::fs::remove_dir_all(home);
}
