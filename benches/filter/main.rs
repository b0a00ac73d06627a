//! What the filter of `protocol = "bind"` costs a Go server: `cargo bench --bench filter [-- --quick]`, with `go` in PATH.
//!
//! The same server (`tests/frameworks/apps/main.go`) twice at the same time, on one worker each: with the filter, and without
//! (`protocol = "none"`, where it binds its port itself). They get short connections in turns of a fifth of a second, so that a
//! machine that gets faster or slower does so for both; each pair of processes lies differently in memory, so there are several
//! pairs. Measured is the CPU time of the servers per request. The goal: under 1 % more. Loopback only, bounded, and ends by
//! itself.
#![allow(clippy::print_stdout)] // The figures are the point.
#[path = "../support/mod.rs"]
#[allow(dead_code)]
mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::processes;
use support::servers::{clusterd, new_folder, wait_for};
use support::stats::{median, spread};

const CLIENTS: usize = 4;
const PAIRS: usize = 12;
const TURNS: usize = 24;
const WARM_UP: Duration = Duration::from_millis(500);
const TURN: Duration = Duration::from_millis(200);
/// An answer that takes longer counts as none.
const ANSWER: Duration = Duration::from_secs(5);
/// The bench itself as a worker, which makes system calls and no more.
const CALLER: &str = "caller";
const CALLS: u32 = 200_000;
const CALL_ROUNDS: usize = 20;
const CALL_TURNS: usize = 8;
/// Without and with the filter.
const PROTOCOLS: [&str; 2] = ["none", "bind"];

fn main() {
    if std::env::args().nth(1).as_deref() == Some(CALLER) {
        return call();
    }
    let _end = processes::end_together();
    let folder = new_folder().expect("a folder");
    one_call(&folder);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/frameworks/apps/main.go");
    let mut go = Command::new("go");
    go.args(["build", "-o", "server"]).arg(source).current_dir(&folder).env("CGO_ENABLED", "0");
    if !go.status().is_ok_and(|status| status.success()) {
        println!("there is no Go compiler, or it failed: nothing is measured");
        return;
    }
    let mut ratios = Vec::new();
    let mut costs = [Vec::new(), Vec::new()];
    let pairs = if std::env::args().any(|arg| arg == "--quick") { 1 } else { PAIRS };
    for n in 0..pairs {
        // Each is started first in turns.
        let pair = measure(&folder, n % 2 == 1).expect("two servers that answer");
        ratios.push((pair[1] / pair[0] - 1.0) * 100.0);
        costs.iter_mut().zip(pair).for_each(|(costs, us)| costs.push(us));
    }
    println!("| protocol | CPU µs of the server per request (spread) |\n|---|---|");
    for (name, costs) in PROTOCOLS.into_iter().zip(&costs) {
        println!("| {name} | {:.2} ({}) |", median(costs), spread(costs, 2));
    }
    println!("\nthe filter costs {:.2} % (spread {})", median(&ratios), spread(&ratios, 2));
}

/// What the filter costs one system call that passes it, in turns: far less than a request's CPU time differs by itself.
fn one_call(folder: &Path) {
    let mut costs = [Vec::new(), Vec::new()];
    for turn in 0..CALL_TURNS {
        for (n, protocol) in PROTOCOLS.into_iter().enumerate() {
            let mut command = clusterd(&folder.join("home"));
            command.args(["--workers", "1", "--protocol", protocol, "--ready", "1ms", "--kill-timeout", "100ms"]);
            if protocol == "bind" {
                command.args(["--port", "0"]);
            }
            command.arg("--").arg(std::env::current_exe().expect("this program")).arg(CALLER);
            let file = folder.join(format!("calls-{turn}-{n}"));
            let out = std::fs::File::create(&file).expect("a file");
            let mut child = command.stdin(Stdio::null()).stdout(out).stderr(Stdio::null()).spawn().expect("clusterd");
            let ns = wait_for("the calls", || std::fs::read_to_string(&file).ok()?.trim().parse::<f64>().ok());
            costs[n].push(ns.expect("the time of a call"));
            processes::send(child.id() as i32, nix::sys::signal::Signal::SIGTERM);
            let _ = child.wait();
        }
    }
    let [without, with] = costs.map(|costs| median(&costs));
    println!("a system call: {without:.0} ns without the filter, {with:.0} ns with it\n");
}

/// Makes system calls, and prints what one takes at best, in nanoseconds.
fn call() {
    let best = (0..CALL_ROUNDS).map(|_| {
        let begun = Instant::now();
        for _ in 0..CALLS {
            std::hint::black_box(nix::unistd::getppid());
        }
        begun.elapsed().as_nanos() as f64 / f64::from(CALLS)
    });
    println!("{:.1}", best.fold(f64::INFINITY, f64::min));
    std::thread::sleep(ANSWER);
}

/// CPU time per request of a server without and one with the filter, in microseconds: the median of their turns.
fn measure(folder: &Path, turned: bool) -> Result<[f64; 2], String> {
    let mut servers = Vec::new();
    let mut order = [0, 1];
    if turned {
        order.reverse();
    }
    for n in order {
        servers.push((n, Server::start(&folder.join(format!("home-{n}")), folder, PROTOCOLS[n])?));
    }
    servers.sort_by_key(|(n, _)| *n);
    let mut costs = [Vec::new(), Vec::new()];
    for (_, server) in &servers {
        answers(server.address, WARM_UP);
    }
    for turn in 0..TURNS {
        for at in [turn % 2, 1 - turn % 2] {
            let server = &servers[at].1;
            let before = processes::cpu_us(&server.processes);
            let seen = answers(server.address, TURN);
            if seen == 0 {
                return Err("no answer".to_owned());
            }
            costs[at].push((processes::cpu_us(&server.processes) - before) / seen as f64);
        }
    }
    for (_, server) in servers {
        server.end();
    }
    Ok([median(&costs[0]), median(&costs[1])])
}

struct Server {
    keeper: Child,
    address: SocketAddr,
    processes: Vec<i32>,
}

impl Server {
    fn start(home: &Path, folder: &Path, protocol: &str) -> Result<Server, String> {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).map_err(|e| e.to_string())?.port();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut command = clusterd(home);
        command.args(["--workers", "1", "--protocol", protocol, "--ready", "1s"]);
        command.args(["-e", &format!("PORT={port}"), "--", "./server"]);
        command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().map_err(|e| e.to_string())?;
        let keeper = child.id() as i32;
        wait_for("the server", || TcpStream::connect(address).ok())?;
        let children = processes::children(keeper);
        let processes = children.into_iter().filter(|pid| !processes::is_master(*pid)).collect();
        Ok(Server { keeper: child, address, processes })
    }

    fn end(mut self) {
        processes::send(self.keeper.id() as i32, nix::sys::signal::Signal::SIGTERM);
        let _ = self.keeper.wait();
    }
}

/// Whole answers to short connections within this time.
fn answers(address: SocketAddr, time: Duration) -> u64 {
    let end = Instant::now() + time;
    let client = move || {
        let mut whole = 0;
        while Instant::now() < end {
            whole += u64::from(ask(address).is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")));
        }
        whole
    };
    let clients: Vec<_> = (0..CLIENTS).map(|_| std::thread::spawn(client)).collect();
    clients.into_iter().filter_map(|client| client.join().ok()).sum()
}

fn ask(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
