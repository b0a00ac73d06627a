//! What the filter of `protocol = "bind"` costs a Go server: `cargo bench --bench filter [-- --quick]`, with `go` in PATH.
//!
//! The same server (`tests/frameworks/apps/main.go`) on one worker under short connections, in turns with the filter and without
//! (`protocol = "none"`, where it binds its port itself): CPU time of the server per request. The goal: under 1 % more. Loopback
//! only, bounded, and ends by itself.
#![allow(clippy::print_stdout)] // The figures are the point.
#[path = "../support/mod.rs"]
#[allow(dead_code)]
mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::processes;
use support::servers::{clusterd, new_folder, wait_for};
use support::stats::{median, spread};

const CLIENTS: usize = 8;
const ROUNDS: usize = 30;
const WARM_UP: Duration = Duration::from_millis(500);
const TIME: Duration = Duration::from_millis(1500);

fn main() {
    let _end = processes::end_together();
    let folder = new_folder().expect("a folder");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/frameworks/apps/main.go");
    let mut go = Command::new("go");
    go.args(["build", "-o", "server"]).arg(source).current_dir(&folder).env("CGO_ENABLED", "0");
    if !go.status().is_ok_and(|status| status.success()) {
        println!("there is no Go compiler, or it failed: nothing is measured");
        return;
    }
    let mut ratios = Vec::new();
    let mut costs = [Vec::new(), Vec::new()];
    let rounds = if std::env::args().any(|arg| arg == "--quick") { 1 } else { ROUNDS };
    for n in 0..rounds {
        let measured = |protocol| run(&folder, protocol).expect("a server that answers");
        // Each comes first in turns: the machine may be getting faster or slower.
        let round = if n % 2 == 0 {
            [measured("none"), measured("bind")]
        } else {
            let bind = measured("bind");
            [measured("none"), bind]
        };
        // Round by round: both were measured within seconds of each other.
        ratios.push((round[1] / round[0] - 1.0) * 100.0);
        costs.iter_mut().zip(round).for_each(|(costs, us)| costs.push(us));
    }
    println!("| protocol | CPU µs of the server per request (spread) |\n|---|---|");
    for (name, costs) in ["none", "bind"].into_iter().zip(&costs) {
        println!("| {name} | {:.2} ({}) |", median(costs), spread(costs, 2));
    }
    println!("\nthe filter costs {:.2} % (spread {})", median(&ratios), spread(&ratios, 2));
}

/// CPU time of the server per request, in microseconds.
fn run(folder: &Path, protocol: &str) -> Result<f64, String> {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).map_err(|e| e.to_string())?.port();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut command = clusterd(&folder.join("home"));
    command.args([
        "--workers",
        "1",
        "--protocol",
        protocol,
        "--ready",
        "1s",
        "-e",
        &format!("PORT={port}"),
        "--",
        "./server",
    ]);
    command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|e| e.to_string())?;
    let keeper = child.id() as i32;
    wait_for("the server", || TcpStream::connect(address).ok())?;
    let server: Vec<i32> = processes::children(keeper).into_iter().filter(|pid| !processes::is_master(*pid)).collect();
    answers(address, WARM_UP);
    let before = processes::cpu_us(&server);
    let seen = answers(address, TIME);
    let used = processes::cpu_us(&server) - before;
    processes::send(keeper, nix::sys::signal::Signal::SIGTERM);
    let _ = child.wait();
    if seen == 0 { Err("no answer".to_owned()) } else { Ok(used / seen as f64) }
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
    stream.set_read_timeout(Some(TIME))?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
