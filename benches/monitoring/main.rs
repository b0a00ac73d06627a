//! What being watched costs: `cargo bench --bench monitoring [-- --quick]`.
//!
//! 50 apps with 200 Node workers. Measured are a scrape of `/metrics` (time, size), the hand-offs of one app with and without
//! scrapes beside them (p99, in turns), and the master's CPU time with and without an open page, which looks every 2 seconds
//! and follows the events (in turns too). The goals: a scrape under 20 ms and 1 MB, no effect on hand-offs, a page under 1 % of
//! a CPU. About 10 GB of memory. Loopback only, bounded, and ends by itself.
#![allow(clippy::print_stdout)] // The figures are the point.
#[path = "../support/mod.rs"]
#[allow(dead_code)]
mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use support::load::Plan;
use support::processes;
use support::servers::{clusterd, new_folder, wait_for};
use support::stats::{Histogram, median, spread};

const APPS: usize = 50;
const WORKERS_PER_APP: usize = 4;
const SCRAPES: usize = 100;
/// Turns with scrapes, and as many without.
const TURNS: usize = 10;
const TURN: Duration = Duration::from_secs(2);
/// A Prometheus asks every 15 s, some every second.
const SCRAPE_EVERY: Duration = Duration::from_millis(500);
/// The page looks so often.
const LOOK_EVERY: Duration = Duration::from_secs(2);
const PAGE_TURN: Duration = Duration::from_secs(10);
const CLIENTS: usize = 4;
const REST: Duration = Duration::from_secs(5);
/// For 200 workers on few CPUs to start.
const STARTS: usize = 10;
const ANSWER: Duration = Duration::from_secs(10);

fn main() {
    let _end = processes::end_together();
    let quick = std::env::args().any(|arg| arg == "--quick");
    let apps = if quick { 5 } else { APPS };
    let folder = new_folder().expect("a folder");
    let app = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/apps/web.js");
    let mut text = "[control]\nlisten = \"127.0.0.1:0\"\npage = true\n".to_owned();
    for n in 0..apps {
        text += &format!(
            "[[app]]\nname = \"app-{n}\"\ncommand = [\"node\", {app:?}]\nworkers = {WORKERS_PER_APP}\n\
             listen = \"127.0.0.1:0\"\nready_timeout = \"3m\"\n"
        );
    }
    fs::write(folder.join("c.toml"), text).expect("a file");
    let log = fs::File::create(folder.join("log")).expect("a file");
    let mut command = clusterd(&folder.join("home"));
    command.args(["-c", "c.toml"]).current_dir(&folder).stdout(Stdio::null()).stderr(log);
    let mut child = command.spawn().expect("clusterd");
    let keeper = child.id() as i32;
    let control = started(&folder, apps);
    let address = fs::read_to_string(folder.join("log")).ok().and_then(|log| {
        let (_, rest) = log.split_once("app-0: listening on ")?;
        rest.lines().next()?.parse::<SocketAddr>().ok()
    });
    let address = address.expect("an address");
    // What a start leaves to do is done.
    std::thread::sleep(REST);
    let masters: Vec<i32> = processes::children(keeper).into_iter().filter(|pid| processes::is_master(*pid)).collect();

    let times: Vec<(f64, usize)> = (0..SCRAPES).map(|_| timed(control, "/metrics")).collect();
    let ms: Vec<f64> = times.iter().map(|(ms, _)| *ms).collect();
    let bytes = times.iter().map(|(_, bytes)| *bytes).max().unwrap_or(0);
    println!("{apps} apps, {} workers", apps * WORKERS_PER_APP);
    println!("a scrape: {:.1} ms (spread {}), {:.0} kB", median(&ms), spread(&ms, 1), bytes as f64 / 1e3);

    let (mut with, mut without) = (Histogram::default(), Histogram::default());
    for turn in 0..2 * TURNS {
        let scraped = turn % 2 == 1;
        let over = AtomicBool::new(false);
        let tally = std::thread::scope(|scope| {
            scope.spawn(|| {
                while scraped && !over.load(Ordering::Acquire) {
                    timed(control, "/metrics");
                    std::thread::sleep(SCRAPE_EVERY);
                }
            });
            let tally = Plan { rest: true, ..Plan::short(address, CLIENTS) }.run(TURN);
            over.store(true, Ordering::Release);
            tally
        });
        assert_eq!(tally.failed(), 0, "an answer was lost");
        if scraped { with.merge(&tally.latencies) } else { without.merge(&tally.latencies) }
    }
    println!(
        "hand-offs, p99 in ms: {:.2} with a scrape every 500 ms, {:.2} without",
        with.quantile_ms(0.99),
        without.quantile_ms(0.99)
    );

    let mut used = [Vec::new(), Vec::new()];
    for turn in 0..if quick { 2 } else { 6 } {
        let open = turn % 2 == 1;
        let before = processes::cpu_us(&masters);
        let begun = Instant::now();
        let events = open.then(|| follow(control));
        while begun.elapsed() < PAGE_TURN {
            if open {
                timed(control, "/v1/apps");
            }
            std::thread::sleep(LOOK_EVERY);
        }
        let percent = (processes::cpu_us(&masters) - before) / begun.elapsed().as_micros() as f64 * 100.0;
        used[usize::from(open)].push(percent);
        drop(events);
    }
    println!(
        "CPU of the master, in % of one: {:.2} with a page open, {:.2} without: the page costs {:.2}",
        median(&used[1]),
        median(&used[0]),
        median(&used[1]) - median(&used[0])
    );
    processes::send(keeper, nix::sys::signal::Signal::SIGTERM);
    let _ = child.wait();
}

/// Waits for all workers; the address of the control API.
fn started(folder: &Path, apps: usize) -> SocketAddr {
    let look = || {
        let log = fs::read_to_string(folder.join("log")).ok()?;
        let ready = log.matches(": ready, ").count();
        let (_, rest) = log.split_once("the control API is at http://")?;
        rest.lines().next()?.parse().ok().filter(|_| ready == apps)
    };
    (0..STARTS).find_map(|_| wait_for("the workers", look).ok()).expect("workers that are ready")
}

/// Time of a request in ms, and the size of its answer.
fn timed(control: SocketAddr, path: &str) -> (f64, usize) {
    let begun = Instant::now();
    let mut stream = TcpStream::connect(control).expect("the control API");
    stream.set_read_timeout(Some(ANSWER)).expect("a time-out");
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("a request");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer[..answer.len().min(200)]));
    (begun.elapsed().as_secs_f64() * 1e3, answer.len())
}

/// The events, as the page follows them.
fn follow(control: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(control).expect("the control API");
    write!(stream, "GET /v1/events?follow=true HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("a request");
    stream
}
