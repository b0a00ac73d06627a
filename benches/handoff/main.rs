//! What a connection costs: `cargo bench --bench handoff [-- --quick]`.
//!
//! Runs, in turns, the floor (a bare accept + sendmsg + close loop), Node's own cluster (round-robin and shared) and
//! clusterd (round-robin, sticky, shared and kernel) in front of the same app with two workers, under short connections over
//! loopback, and prints one table: connections/s, latency, CPU of the primary per connection. Then memory with 8
//! workers, the time in which a crashed worker is replaced, and 500 workers of `sleep`. Ratios within one run count;
//! absolute figures depend on the machine. Bounded, and ends by itself.
#![allow(clippy::print_stdout)] // The table is the point.
mod floor;
mod load;

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const WORKERS: usize = 2;
const CLIENTS: usize = 64;
/// Clock ticks per second of /proc/PID/stat on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Floor,
    NodeRoundRobin,
    NodeShared,
    RoundRobin,
    Sticky,
    Shared,
    Kernel,
}

const KINDS: [(Kind, &str); 7] = [
    (Kind::Floor, "floor (bare loop)"),
    (Kind::NodeRoundRobin, "node cluster, round-robin"),
    (Kind::NodeShared, "node cluster, shared"),
    (Kind::RoundRobin, "clusterd, round-robin"),
    (Kind::Sticky, "clusterd, sticky"),
    (Kind::Shared, "clusterd, shared"),
    (Kind::Kernel, "clusterd, kernel"),
];

/// One server under measurement; ended by pid when dropped.
struct Server {
    child: Child,
    address: SocketAddr,
    home: PathBuf,
    kind: Kind,
}

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
    match args.first().map(String::as_str) {
        Some("floor") => floor::primary(args[1].parse().expect("a port"), WORKERS),
        Some("floor-worker") => floor::worker(),
        Some("load") => return load_alone(&args[1..]),
        _ => {}
    }
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
    let mut tally = load::run(address, clients, Duration::from_secs(seconds));
    let (p50, p99) = (tally.quantile_ms(0.5), tally.quantile_ms(0.99));
    println!("{:.0} connections/s, p50 {p50:.2} ms, p99 {p99:.2} ms, {} failed", tally.rate(), tally.failed);
}

// ---- connections ----

fn connections(rounds: usize, time: Duration) {
    let mut all: Vec<Vec<Round>> = vec![Vec::new(); KINDS.len()];
    for _ in 0..rounds {
        for (n, (kind, _)) in KINDS.iter().enumerate() {
            let server = Server::start(*kind, WORKERS);
            load::run(server.address, CLIENTS, Duration::from_millis(500));
            let before = cpu_ticks(server.primary());
            let mut tally = load::run(server.address, CLIENTS, time);
            let ticks = cpu_ticks(server.primary()) - before;
            all[n].push(Round {
                rate: tally.rate(),
                p50_ms: tally.quantile_ms(0.5),
                p99_ms: tally.quantile_ms(0.99),
                cpu_us: ticks as f64 / TICKS_PER_SECOND * 1e6 / tally.ok.max(1) as f64,
                failed: tally.failed,
            });
        }
    }
    let reference = |kind: Kind| KINDS.iter().position(|(k, _)| *k == kind).expect("in the list");
    let floor_cpu = median(&all[reference(Kind::Floor)], |r| r.cpu_us);
    let node_cpu = median(&all[reference(Kind::NodeRoundRobin)], |r| r.cpu_us);
    let node_rate = median(&all[reference(Kind::NodeRoundRobin)], |r| r.rate);
    let shared_rate = median(&all[reference(Kind::NodeShared)], |r| r.rate);
    println!(
        "| what | conn/s (spread) | p50 ms | p99 ms | primary CPU µs/conn (spread) | CPU / floor | CPU / node rr | rate / node rr | rate / node shared | failed |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for (rounds, (_, name)) in all.iter().zip(KINDS) {
        let (rate, cpu) = (median(rounds, |r| r.rate), median(rounds, |r| r.cpu_us));
        println!(
            "| {name} | {rate:.0} ({}) | {:.2} | {:.2} | {cpu:.1} ({}) | {:.2} | {:.2} | {:.2} | {:.2} | {} |",
            spread(rounds, |r| r.rate, 0),
            median(rounds, |r| r.p50_ms),
            median(rounds, |r| r.p99_ms),
            spread(rounds, |r| r.cpu_us, 1),
            cpu / floor_cpu,
            cpu / node_cpu,
            rate / node_rate,
            rate / shared_rate,
            rounds.iter().map(|r| r.failed).sum::<u64>(),
        );
    }
    println!();
}

fn median(rounds: &[Round], of: impl Fn(&Round) -> f64) -> f64 {
    let mut values: Vec<f64> = rounds.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn spread(rounds: &[Round], of: impl Fn(&Round) -> f64, digits: usize) -> String {
    let values: Vec<f64> = rounds.iter().map(of).collect();
    let (low, high) = values.iter().fold((f64::MAX, f64::MIN), |(l, h), &v| (l.min(v), h.max(v)));
    format!("{low:.digits$} to {high:.digits$}")
}

// ---- the rest of the budget ----

fn memory() {
    let server = Server::start(Kind::RoundRobin, 8);
    load::run(server.address, CLIENTS, Duration::from_secs(1));
    let (keeper, master) = (server.child.id() as i32, server.primary());
    let (k, m) = (resident_mib(keeper), resident_mib(master));
    println!("memory with 8 workers after load: keeper {k:.1} MiB + master {m:.1} MiB = {:.1} MiB resident", k + m);
}

/// Kills workers of a clusterd and measures until their replacement's process exists.
fn replacement(kills: usize) {
    let server = Server::start(Kind::RoundRobin, WORKERS);
    let keeper = server.child.id() as i32;
    let mut took_ms = Vec::new();
    for _ in 0..kills {
        // A worker that had its minimal uptime, so that no backoff applies.
        std::thread::sleep(Duration::from_millis(1100));
        let before = workers_of(keeper);
        let Some(&victim) = before.first() else { continue };
        kill(victim, "-KILL");
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(5) {
            if workers_of(keeper).iter().any(|pid| !before.contains(pid)) {
                took_ms.push(start.elapsed().as_secs_f64() * 1000.0);
                break;
            }
        }
    }
    took_ms.sort_by(f64::total_cmp);
    let at = |share: f64| took_ms[((took_ms.len() - 1) as f64 * share) as usize];
    println!(
        "replacement of a killed worker, from kill to its process ({} kills): median {:.1} ms, worst {:.1} ms",
        took_ms.len(),
        at(0.5),
        at(1.0)
    );
}

fn many_workers() {
    let home = new_home();
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
    kill(child.id() as i32, "-TERM");
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

// ---- servers ----

impl Server {
    fn start(kind: Kind, workers: usize) -> Server {
        let port = floor::free_port();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let home = new_home();
        let apps = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/apps");
        let count = workers.to_string();
        let mut command = match kind {
            Kind::Floor => {
                let mut c = Command::new(std::env::current_exe().expect("own path"));
                c.args(["floor", &port.to_string()]);
                c
            }
            Kind::NodeRoundRobin | Kind::NodeShared => {
                let mut c = Command::new("node");
                let policy = if kind == Kind::NodeShared { "shared" } else { "round-robin" };
                c.arg(apps.join("primary.js")).args([&count, policy]).env("PORT", port.to_string());
                c
            }
            Kind::RoundRobin | Kind::Sticky | Kind::Shared | Kind::Kernel => {
                let balance = match kind {
                    Kind::Sticky => "sticky",
                    Kind::Shared => "shared",
                    Kind::Kernel => "kernel",
                    _ => "round-robin",
                };
                let mut c = clusterd(&home);
                c.args(["-w", &count, "--host", "127.0.0.1", "--port", &port.to_string(), "--balance", balance]);
                c.args(["--", "node"]).arg(apps.join("hello.js"));
                c
            }
        };
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a server");
        let server = Server { child, address, home, kind };
        server.wait_until_serving(workers);
        server
    }

    fn wait_until_serving(&self, workers: usize) {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(20) {
            let serving = TcpStream::connect(self.address).is_ok();
            let started = match self.kind {
                Kind::RoundRobin | Kind::Sticky | Kind::Shared | Kind::Kernel => {
                    workers_of(self.child.id() as i32).len()
                }
                Kind::Floor | Kind::NodeRoundRobin | Kind::NodeShared => children_of(self.child.id() as i32).len(),
            };
            if serving && started >= workers {
                // Let them all have bootstrapped: one whole answer from a warm-up run follows before any figure.
                load::run(self.address, 4, Duration::from_millis(700));
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("a server did not start on {}", self.address);
    }

    /// The process that hands connections out.
    fn primary(&self) -> i32 {
        let pid = self.child.id() as i32;
        match self.kind {
            Kind::Floor | Kind::NodeRoundRobin | Kind::NodeShared => pid,
            Kind::RoundRobin | Kind::Sticky | Kind::Shared | Kind::Kernel => {
                children_of(pid).into_iter().find(|&child| is_master(child)).expect("a master")
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let children = children_of(self.child.id() as i32);
        let _ = self.child.kill();
        let _ = self.child.wait();
        if self.kind == Kind::Floor {
            for child in children {
                kill(child, "-KILL");
            }
        }
        let _ = std::fs::remove_dir_all(&self.home);
    }
}

fn clusterd(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clusterd"));
    command.env("CLUSTERD_HOME", home);
    command
}

fn new_home() -> PathBuf {
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let n = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    std::env::temp_dir().join(format!("clusterd-bench-{}-{n}", std::process::id()))
}

fn kill(pid: i32, signal: &str) {
    let _ = Command::new("kill").args([signal, &pid.to_string()]).status();
}

// ---- /proc ----

fn children_of(pid: i32) -> Vec<i32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split_ascii_whitespace().filter_map(|p| p.parse().ok()).collect()
}

fn is_master(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|c| c.starts_with("clusterd: master"))
}

fn workers_of(keeper: i32) -> Vec<i32> {
    children_of(keeper).into_iter().filter(|&child| !is_master(child)).collect()
}

fn cpu_ticks(pid: i32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a living primary");
    let fields: Vec<u64> = stat
        .rsplit_once(')')
        .expect("a command in parentheses")
        .1
        .split_ascii_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|f| f.parse().ok())
        .collect();
    fields.iter().sum()
}

fn resident_mib(pid: i32) -> f64 {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).expect("a living process");
    let pages: f64 = statm.split_ascii_whitespace().nth(1).and_then(|p| p.parse().ok()).expect("statm");
    pages * 4096.0 / 1_048_576.0
}
