//! What changes cost the clients: `cargo bench --bench reload [-- --quick]`.
//!
//! Prints the time of a reload of 8 idle workers; the time from the master's SIGKILL to the answer to a connection that
//! was opened after it; and the latency of a kept-alive load during a reload, beside the same load while as many
//! unrelated Node processes start and stop in the same time, in turns. The load runs on the machine that it measures, so ratios count.
//! Loopback only, bounded, and ends by itself.
#![allow(clippy::print_stdout)] // The figures are the point.
mod load;
#[path = "../support/mod.rs"]
#[allow(dead_code)]
mod support;

use load::{Load, Tally};
use nix::sys::signal::Signal;
use std::cell::Cell;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::processes;
use support::servers::{Programs, Server, Tool};
use support::stats::{median, spread};

/// Workers of the app whose reload is timed, and of the one that serves a load meanwhile.
const IDLE_WORKERS: usize = 8;
const WORKERS: usize = 4;
const CLIENTS: usize = 16;
const PAUSE: Duration = Duration::from_millis(2);
/// New code is compiled before a client meets it.
const WARM_UP: &str = "warmup = [\"/\"]\nwarmup_times = 100\n[app.reload]\nsettle = \"700ms\"";
/// Reloads (or turns of unrelated processes) in one round.
const TURNS: usize = 3;

fn main() {
    let _end = processes::end_together();
    let quick = std::env::args().any(|arg| arg == "--quick");
    idle_reload(if quick { 3 } else { 10 });
    master_kills(if quick { 5 } else { 20 });
    for (title, settings) in [("as it comes", ""), ("with a warm-up", WARM_UP)] {
        latency(title, settings, if quick { 3 } else { 9 });
    }
}

// ---- 1: an idle reload ----

fn idle_reload(times: usize) {
    let start = Instant::now();
    stop(unrelated());
    let node = start.elapsed();
    let server = started(IDLE_WORKERS);
    let took: Vec<f64> = (0..times)
        .map(|_| {
            let from = Instant::now();
            server.reload().expect("a reload");
            from.elapsed().as_secs_f64() * 1000.0
        })
        .collect();
    println!(
        "reload of {IDLE_WORKERS} idle workers, {times} times: median {:.0} ms ({}); goal < 2000 ms; one such Node \
         process starts in {:.0} ms here",
        median(&took),
        spread(&took, 0),
        node.as_secs_f64() * 1000.0,
    );
}

// ---- 2: the master's death ----

fn master_kills(kills: usize) {
    let server = started(2);
    let background = Load::start(server.address, 4, false, Duration::from_millis(10));
    let mut took = Vec::new();
    for _ in 0..kills {
        // A master that has lived for a second is started again without a pause.
        std::thread::sleep(Duration::from_millis(1200));
        let Some(master) = server.master() else { continue };
        let from = Instant::now();
        processes::send(master, Signal::SIGKILL);
        // Whatever is opened from now on, only the next one can accept.
        while processes::alive(master) {
            std::hint::spin_loop();
        }
        if load::ask(server.address, false, &mut None) {
            took.push(from.elapsed().as_secs_f64() * 1000.0);
        } else {
            println!("no answer after a kill of the master");
        }
    }
    let seen = background.finish();
    println!(
        "SIGKILL of the master to the next answer, {} kills: median {:.1} ms ({}); goals < 30 ms and < 100 ms; the \
         load beside it: {} answers, {} failed (at most one per kill)",
        took.len(),
        median(&took),
        spread(&took, 1),
        seen.count(),
        seen.failed,
    );
}

// ---- 3: latency during a reload ----

fn latency(title: &str, settings: &'static str, rounds: usize) {
    let server = Server::start_set(Tool::RoundRobin, WORKERS, &Programs::none(), &[], settings).expect("a server");
    let under_load = |act: &dyn Fn()| -> Tally {
        let load = Load::start(server.address, CLIENTS, true, PAUSE);
        act();
        load.finish()
    };
    let quiet = || std::thread::sleep(Duration::from_secs(2));
    let took = Cell::new(Duration::ZERO);
    let reloads = || {
        let from = Instant::now();
        (0..TURNS).for_each(|_| server.reload().expect("a reload"));
        took.set(from.elapsed() / TURNS as u32);
    };
    // As a reload does it: the next one starts, is up, and then the one before it ends. A turn takes as long as a
    // reload took, or its quiet end would dilute the quantiles of the one and not of the other.
    let beside = || {
        let mut before = None;
        for _ in 0..TURNS {
            let end = Instant::now() + took.get();
            for _ in 0..WORKERS {
                if let Some(old) = before.replace(unrelated()) {
                    stop(old);
                }
            }
            std::thread::sleep(end.saturating_duration_since(Instant::now()));
        }
        before.into_iter().for_each(stop);
    };
    let kinds: [(&str, &dyn Fn()); 3] =
        [("nothing else", &quiet), ("unrelated processes beside it", &beside), ("during reloads", &reloads)];
    let mut all: [Vec<Tally>; 3] = Default::default();
    under_load(&reloads);
    for round in 0..rounds {
        // Alternating, so that a slow minute of the machine hits all of them.
        for n in 0..kinds.len() {
            let n = (n + round) % kinds.len();
            all[n].push(under_load(kinds[n].1));
        }
    }
    println!(
        "\n{title}: {CLIENTS} clients on kept connections, {WORKERS} workers, {rounds} rounds in turns, each {TURNS} reloads or \
         {} processes\n",
        TURNS * WORKERS
    );
    println!("A reload takes {} ms under this load.\n", took.get().as_millis());
    println!("| load and | answers | p50 ms (spread) | p99 ms (spread) | failed |");
    println!("|---|---|---|---|---|");
    for ((name, _), tallies) in kinds.iter().zip(&all) {
        let of = |share: f64| -> Vec<f64> { tallies.iter().map(|tally| tally.quantile_ms(share)).collect() };
        let (p50, p99) = (of(0.5), of(0.99));
        println!(
            "| {name} | {} | {:.2} ({}) | {:.2} ({}) | {} |",
            tallies.iter().map(Tally::count).sum::<usize>(),
            median(&p50),
            spread(&p50, 2),
            median(&p99),
            spread(&p99, 2),
            tallies.iter().map(|tally| tally.failed).sum::<u64>(),
        );
    }
    // Round by round: both were measured within seconds of each other.
    let ratios: Vec<f64> = all[2]
        .iter()
        .zip(&all[1])
        .map(|(reload, beside)| reload.quantile_ms(0.99) / beside.quantile_ms(0.99))
        .collect();
    println!(
        "\np99 during reloads / beside unrelated processes: {:.2} ({}); goal at most 1.2",
        median(&ratios),
        spread(&ratios, 2)
    );
}

// ---- processes ----

fn started(workers: usize) -> Server {
    Server::start(Tool::RoundRobin, workers, &Programs::none()).expect("a server")
}

/// A Node web server that has nothing to do with clusterd, and is up.
fn unrelated() -> Child {
    let code = "require('node:http').createServer((q, s) => s.end()).listen(0, '127.0.0.1', () => console.log('up'))";
    let mut child =
        Command::new("node").args(["-e", code]).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("node");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
    assert_eq!(line, "up\n");
    child
}

fn stop(mut child: Child) {
    processes::send(child.id() as i32, Signal::SIGTERM);
    let _ = child.wait();
}
