//! What reloads and scaling cost clients that keep their connections, with and without a proxy, side by side with Node's own cluster
//! and PM2: `cargo bench --bench proxied [-- --quick] [-- NAME...]`.
//!
//! Three tables: POSTs and GETs through nginx (`keepalive 64`, `proxy_next_upstream off`) at given rates over reloads; clients that
//! never pause, with an app that answers after a while; shares of the workers after a scale. `benches/run` installs PM2 and nginx;
//! rows of what is missing are left out. The version of Node is the one of PATH. Loopback only, bounded, and ends by itself.
#![allow(clippy::print_stdout)] // The figures are the point.
mod client;
#[path = "../support/mod.rs"]
#[allow(dead_code)]
mod support;

use client::Load;
use nix::sys::signal::Signal;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::processes;
use support::servers::{Programs, Server, Tool, new_folder, wait_for};

const WORKERS: usize = 2;
/// Clients of the proxy, and clients without one.
const PROXIED: usize = 32;
const STRAIGHT: usize = 32;
/// Clients under which the app is scaled, and workers by which.
const SCALED: usize = 64;
const MORE: usize = 2;
const TOOLS: [Tool; 5] = [Tool::NodeRoundRobin, Tool::Pm2, Tool::RoundRobin, Tool::Kernel, Tool::Shared];

/// An app that answers after so many milliseconds.
const DELAYS: [(&str, &[(&str, &str)]); 4] =
    [("0", &[]), ("20", &[("DELAY", "20")]), ("50", &[("DELAY", "50")]), ("300", &[("DELAY", "300")])];

struct Plan {
    rates: &'static [u32],
    reloads: usize,
    delays: usize,
    tools: Vec<Tool>,
}

fn main() {
    let _end = processes::end_together();
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let quick = args.iter().any(|arg| arg == "--quick");
    let is_meant = |tool: &Tool| {
        let mut names = args.iter().filter(|arg| !arg.starts_with('-')).peekable();
        names.peek().is_none() || names.any(|name| name == tool.name())
    };
    let tools = TOOLS.into_iter().filter(is_meant).collect();
    let plan = if quick {
        Plan { rates: &[300], reloads: 1, delays: 2, tools }
    } else {
        Plan { rates: &[300, 900, 1600, 2500], reloads: 20, delays: DELAYS.len(), tools }
    };
    let programs = Programs { pm2: pm2(), nginx: Err("not used".to_owned()) };
    behind_nginx(&plan, &programs);
    never_pausing(&plan, &programs);
    scaled(&plan, &programs);
}

// ---- 1: behind nginx ----

fn behind_nginx(plan: &Plan, programs: &Programs) {
    let reloads = plan.reloads;
    println!(
        "{PROXIED} clients of nginx (keepalive 64, proxy_next_upstream off), {WORKERS} workers, {reloads} reloads\n"
    );
    println!("| server | requests/s asked for | answers | not 200 | closed or cut | reload, mean |");
    println!("|---|---|---|---|---|---|");
    for &tool in &plan.tools {
        for &rate in plan.rates {
            let row = || -> Result<String, String> {
                let server = Server::start(tool, WORKERS, programs)?;
                let proxy = Proxy::start(server.address)?;
                let load = Load::start(proxy.address, PROXIED, Duration::from_secs(1) * PROXIED as u32 / rate);
                let mean = reload(&server, reloads)?;
                let seen = load.finish();
                Ok(format!("{} | {} | {} | {mean:.2} s", seen.answers, seen.not_200, seen.closed + seen.cut))
            };
            println!("| {} | {rate} | {} |", tool.label(), row().unwrap_or_else(|why| format!("{why} | | |")));
        }
    }
}

// ---- 2: without a proxy ----

fn never_pausing(plan: &Plan, programs: &Programs) {
    let reloads = plan.reloads.div_ceil(4);
    println!("\n{STRAIGHT} clients that keep their connection and never pause, {WORKERS} workers, {reloads} reloads\n");
    println!("| server | answer after | answers | closed at rest | cut | reload, mean |");
    println!("|---|---|---|---|---|---|");
    for &tool in &plan.tools {
        for (delay, env) in DELAYS.into_iter().take(plan.delays) {
            let row = || -> Result<String, String> {
                let server = Server::start_with(tool, WORKERS, programs, env)?;
                let load = Load::start(server.address, STRAIGHT, Duration::ZERO);
                let mean = reload(&server, reloads)?;
                let seen = load.finish();
                Ok(format!("{} | {} | {} | {mean:.2} s", seen.answers, seen.closed, seen.cut))
            };
            println!("| {} | {delay} ms | {} |", tool.label(), row().unwrap_or_else(|why| format!("{why} | | |")));
        }
    }
}

// ---- 3: more workers ----

fn scaled(plan: &Plan, programs: &Programs) {
    println!(
        "\n{SCALED} clients that keep their connection, {WORKERS} workers and {MORE} more; answers in the third second after\n"
    );
    println!("| server | least served / most served | closed |");
    println!("|---|---|---|");
    for &tool in plan.tools.iter().filter(|tool| **tool != Tool::NodeRoundRobin) {
        let row = || -> Result<String, String> {
            let server = Server::start(tool, WORKERS, programs)?;
            let load = Load::start(server.address, SCALED, Duration::from_millis(20));
            std::thread::sleep(Duration::from_secs(1));
            server.scale_up(MORE, WORKERS + MORE)?;
            std::thread::sleep(Duration::from_secs(2));
            load.recount();
            std::thread::sleep(Duration::from_secs(1));
            let seen = load.finish();
            let all = seen.by_worker.len() == WORKERS + MORE;
            let least = if all { seen.by_worker.values().min().copied().unwrap_or(0) } else { 0 };
            let most = seen.by_worker.values().max().copied().unwrap_or(1);
            Ok(format!("{:.2} | {}", least as f64 / most as f64, seen.closed + seen.cut))
        };
        println!("| {} | {} |", tool.label(), row().unwrap_or_else(|why| format!("{why} |")));
    }
}

/// Reloads one after the other; the mean time in seconds.
fn reload(server: &Server, times: usize) -> Result<f64, String> {
    std::thread::sleep(Duration::from_millis(500));
    let from = Instant::now();
    for _ in 0..times {
        server.reload()?;
    }
    let took = from.elapsed().as_secs_f64() / times as f64;
    std::thread::sleep(Duration::from_millis(500));
    Ok(took)
}

// ---- programs ----

/// PM2, where `benches/run` installs it.
fn pm2() -> Result<PathBuf, String> {
    let folder = std::env::var_os("CLUSTERD_BENCH_DEPS").map(PathBuf::from);
    let folder = folder.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench-deps"));
    let pm2 = folder.join("npm/node_modules/pm2/bin/pm2");
    if pm2.exists() { Ok(pm2) } else { Err("PM2 is not there: benches/run installs it".to_owned()) }
}

/// nginx in front of an app, ended by its pid when dropped.
struct Proxy {
    child: Child,
    address: SocketAddr,
    folder: PathBuf,
}

impl Proxy {
    fn start(to: SocketAddr) -> Result<Proxy, String> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|e| e.to_string())?;
        let address = listener.local_addr().map_err(|e| e.to_string())?;
        drop(listener);
        let folder = new_folder()?;
        let dir = folder.display();
        let temp: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("  {kind}_temp_path {dir}/{kind};\n"))
            .concat();
        let text = format!(
            "daemon off;\npid {dir}/nginx.pid;\nerror_log {dir}/nginx.log;\nevents {{ worker_connections 4096; }}\nhttp {{\n\
             {temp}  access_log off;\n  keepalive_requests 1000000;\n  upstream app {{ server {to}; keepalive 64; \
             keepalive_requests 1000000; }}\n  server {{ listen {address}; location / {{ proxy_pass http://app; \
             proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_next_upstream off; }} }}\n}}\n"
        );
        let file = folder.join("nginx.conf");
        std::fs::write(&file, text).map_err(|e| e.to_string())?;
        let path = format!("{}:/usr/sbin:/usr/local/sbin", std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new("nginx");
        command.arg("-p").arg(&folder).arg("-c").arg(&file).env("PATH", path);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.map_err(|e| format!("cannot run nginx: {e}"))?;
        let proxy = Proxy { child, address, folder };
        wait_for("nginx", || TcpStream::connect(address).ok())?;
        Ok(proxy)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        processes::send(self.child.id() as i32, Signal::SIGTERM);
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
