//! What many workers cost, and what many connections leave behind: `cargo bench --bench scale [-- --quick]`.
//!
//! With 10, 100 and 1,000 scripted workers (they cost next to nothing themselves): CPU of the master's loop and of the
//! keeper per connection, per worker that dies and is replaced, and per worker that a reload replaces, beyond what they
//! use at rest (a ping to each worker, once a second); how long `ls` takes. Then 1,000 workers that serve 100 listeners
//! each. What one event costs should not grow with the number of workers. At last, what master and keeper hold before and
//! after a million connections; when that is more, the bench fails. Bounded, and ends by itself.
#![allow(clippy::print_stdout, clippy::unwrap_used)] // The table is the point, and what cannot be measured ends it.
#[path = "../../tests/scale/held.rs"]
mod held;
#[path = "../support/load.rs"]
#[allow(dead_code)]
mod load;
#[path = "../support/stats.rs"]
#[allow(dead_code)]
mod stats;
#[path = "../../tests/scale/worker.rs"]
mod worker;

use clusterd::api::types::Deployment;
use held::Held;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const CLIENTS: usize = 16;
/// Workers that are killed one after the other.
const DEATHS: usize = 40;
/// Connections until every table and buffer has the size that it keeps.
const WARM_UP: u64 = 20_000;
/// Connections that may leave nothing behind; with `--quick` a tenth of them.
const CONNECTIONS: u64 = 1_000_000;
/// The last answers arrive, and what was closed is gone.
const SETTLE: Duration = Duration::from_millis(500);
/// No step takes longer.
const PATIENCE: Duration = Duration::from_secs(180);

fn main() {
    if std::env::args().nth(1).as_deref() == Some("worker") {
        return worker::run();
    }
    let quick = std::env::args().any(|arg| arg == "--quick");
    println!("{CLIENTS} clients, short connections; CPU of the master's loop, of the keeper in brackets\n");
    println!(
        "| balance | workers | start, ms | at rest, µs per s | µs per connection | µs per death | µs per reloaded worker | ls, ms |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for balance in ["round-robin", "sticky", "kernel"] {
        for &workers in if quick { &[10, 100][..] } else { &[10, 100, 1_000] } {
            row(balance, workers, if quick { 1 } else { 3 });
        }
    }
    many_listeners(if quick { 100 } else { 1_000 });
    many_connections(if quick { CONNECTIONS / 10 } else { CONNECTIONS });
}

/// One row of the table; what takes a time of its choice takes `seconds`.
fn row(balance: &str, workers: u32, seconds: u64) {
    let addresses = addresses(1);
    let mut cluster = Cluster::start(balance, workers, &addresses);
    std::thread::sleep(Duration::from_secs(1));
    let rest = cluster.cpu_of(|| std::thread::sleep(Duration::from_secs(seconds)));
    cluster.rest = (rest.0 / seconds as f64, rest.1 / seconds as f64);
    serve(addresses[0], Duration::from_millis(500));
    let mut served = 0;
    let per_connection = cluster.cpu_of(|| {
        served = serve(addresses[0], Duration::from_secs(seconds));
    });
    let per_death = cluster.cpu_of(|| (0..DEATHS).for_each(|n| cluster.kill_and_wait(n % workers as usize)));
    let per_reload = cluster.cpu_of(|| {
        cluster.cli(&["reload", "all"]);
        cluster.wait("all new ones", |view| view.apps[0].workers.len() == workers as usize);
    });
    let asked = Instant::now();
    let lines = cluster.cli(&["ls"]).iter().filter(|&&byte| byte == b'\n').count();
    let listed = asked.elapsed();
    assert!(lines > workers as usize);
    println!(
        "| {balance} | {workers} | {} | {} | {} | {} | {} | {} |",
        cluster.started.as_millis(),
        per(rest, seconds),
        per(per_connection, served),
        per(per_death, DEATHS as u64),
        per(per_reload, u64::from(workers)),
        listed.as_millis()
    );
}

fn many_listeners(workers: u32) {
    let addresses = addresses(100);
    let cluster = Cluster::start("round-robin", workers, &addresses);
    let start = Instant::now();
    for address in &addresses {
        serve(*address, Duration::from_millis(20));
    }
    let served = start.elapsed();
    let start = Instant::now();
    cluster.cli(&["reload", "all"]);
    println!(
        "\n{workers} workers that serve 100 listeners each: ready after {:.1} s, each listener asked in {:.1} s in all, reloaded in \
         {:.1} s",
        cluster.started.as_secs_f64(),
        served.as_secs_f64(),
        start.elapsed().as_secs_f64()
    );
}

/// Master and keeper before and after so many connections.
fn many_connections(count: u64) {
    let addresses = addresses(1);
    let cluster = Cluster::start("round-robin", 8, &addresses);
    let pids = [cluster.view().unwrap().master_pid, cluster.child.id() as i32];
    let open = |count: u64| {
        let mut opened = 0;
        while opened < count {
            opened += serve(addresses[0], Duration::from_secs(1));
        }
        opened
    };
    open(WARM_UP);
    std::thread::sleep(SETTLE);
    let before = pids.map(Held::of);
    let opened = open(count);
    std::thread::sleep(SETTLE);
    let after = pids.map(Held::of);
    println!("\n| after {opened} connections | private KiB, before | after | open files, before | after |");
    println!("|---|---|---|---|---|");
    for (n, who) in ["master", "keeper"].iter().enumerate() {
        let (before, after) = (before[n], after[n]);
        println!("| {who} | {} | {} | {} | {} |", before.private_kib, after.private_kib, before.fds, after.fds);
    }
    assert!(after[0].is_as(before[0]) && after[1].is_as(before[1]), "more is held than before");
}

/// Short connections for this time; how many were answered.
fn serve(address: SocketAddr, time: Duration) -> u64 {
    let tally = load::Plan::short(address, CLIENTS).run(time);
    assert_eq!(tally.failed(), 0);
    tally.whole
}

fn per((master_us, keeper_us): (f64, f64), count: u64) -> String {
    format!("{:.1} ({:.1})", master_us / count as f64, keeper_us / count as f64)
}

/// So many free addresses.
fn addresses(count: usize) -> Vec<SocketAddr> {
    let held: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    held.iter().map(|listener| listener.local_addr().unwrap()).collect()
}

/// One clusterd with scripted workers; ended by pid when dropped.
struct Cluster {
    child: Child,
    home: PathBuf,
    started: Duration,
    /// CPU of master and keeper at rest, in microseconds per second.
    rest: (f64, f64),
}

impl Cluster {
    fn start(balance: &str, workers: u32, addresses: &[SocketAddr]) -> Cluster {
        let home = std::env::temp_dir().join(format!("clusterd-scale-{}-{balance}-{workers}", std::process::id()));
        fs::create_dir_all(&home).unwrap();
        let list: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let quoted: Vec<String> = list.iter().map(|address| format!("\"{address}\"")).collect();
        let own = std::env::current_exe().unwrap();
        let config = format!(
            "[[app]]\nname = \"many\"\ncommand = [\"{}\", \"worker\"]\nprotocol = \"node\"\nworkers = {workers}\n\
             listen = [{}]\nbalance = \"{balance}\"\nready_timeout = \"3m\"\nenv.ADDRESSES = \"{}\"\n\
             [app.reload]\nsurge = 10\n",
            own.display(),
            quoted.join(", "),
            list.join(",")
        );
        let file = home.join("c.toml");
        fs::write(&file, config).unwrap();
        let start = Instant::now();
        let child = clusterd(&home).arg("-c").arg(file).stderr(Stdio::null()).spawn().unwrap();
        let mut cluster = Cluster { child, home, started: Duration::ZERO, rest: (0.0, 0.0) };
        cluster.wait("every worker", |view| view.apps[0].workers_ready == workers);
        cluster.started = start.elapsed();
        cluster
    }

    fn cli(&self, args: &[&str]) -> Vec<u8> {
        clusterd(&self.home).args(args).stderr(Stdio::null()).output().unwrap().stdout
    }

    fn view(&self) -> Option<Deployment> {
        let listed: Vec<Deployment> = serde_json::from_slice(&self.cli(&["ls", "--json"])).ok()?;
        listed.into_iter().next()
    }

    fn wait(&self, what: &str, wanted: impl Fn(&Deployment) -> bool) -> Deployment {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(view) = self.view().filter(&wanted) {
                return view;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("{what} did not come");
    }

    /// Kills a worker and waits, without asking, until the keeper has a child more than it then had.
    fn kill_and_wait(&self, nth: usize) {
        let keeper = self.child.id();
        let children = || {
            let text = fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children")).unwrap();
            text.split_ascii_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<i32>>()
        };
        let before = children();
        // The master is among them, and first.
        let victim = before[1 + nth % (before.len() - 1)];
        kill(victim, "-KILL");
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            let now = children();
            if now.len() == before.len() && !now.contains(&victim) {
                // Its replacement gets ready.
                std::thread::sleep(Duration::from_millis(20));
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("no replacement");
    }

    /// CPU time of the master's loop and of the keeper while something is done, beyond what they use at rest, in
    /// microseconds.
    fn cpu_of(&self, work: impl FnOnce()) -> (f64, f64) {
        let keeper = self.child.id() as i32;
        let master = self.view().unwrap().master_pid;
        let (start, before) = (Instant::now(), (cpu_us(master), cpu_us(keeper)));
        work();
        let seconds = start.elapsed().as_secs_f64();
        let beyond = |pid, before: f64, rest: f64| (cpu_us(pid) - before - rest * seconds).max(0.0);
        (beyond(master, before.0, self.rest.0), beyond(keeper, before.1, self.rest.1))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.home);
    }
}

fn clusterd(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clusterd"));
    command.env("CLUSTERD_HOME", home);
    command
}

/// CPU time of a process's first thread, in microseconds.
fn cpu_us(pid: i32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap();
    text.split_ascii_whitespace().next().unwrap().parse::<f64>().unwrap() / 1000.0
}

fn kill(pid: i32, signal: &str) {
    let _ = Command::new("kill").args([signal, &pid.to_string()]).status();
}
