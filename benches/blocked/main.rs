//! What a worker that stands still costs those whom the others serve: `cargo bench --bench blocked [-- --quick]`.
//!
//! Four Node workers under short requests from clients that pause between two, so that the machine is not what they wait
//! for; then the same while the first worker's event loop stands still for 2 s out of every 4. In turns, clusterd and
//! Node's own cluster. The goal: p99 of the others' answers at most doubles. Loopback only, bounded, and ends by itself.
#![allow(clippy::print_stdout)] // The figures are the point.
#[path = "../support/mod.rs"]
#[allow(dead_code)]
mod support;

use std::time::Duration;
use support::load::{Plan, Tally};
use support::processes;
use support::servers::{Programs, Server, Tool};
use support::stats::{median, range, spread};

const WORKERS: usize = 4;
const CLIENTS: usize = 16;
const WARM_UP: Duration = Duration::from_millis(1500);
/// Two times blocked, two times not.
const TIME: Duration = Duration::from_secs(8);
const TOOLS: [Tool; 4] = [Tool::NodeRoundRobin, Tool::NodeShared, Tool::RoundRobin, Tool::Kernel];

/// One round of one tool.
struct Round {
    free: Tally,
    blocked: Tally,
}

fn main() {
    let _end = processes::end_together();
    let quick = std::env::args().any(|arg| arg == "--quick");
    let rounds = if quick { 1 } else { 5 };
    println!(
        "{CLIENTS} clients that pause between short connections, {WORKERS} workers, {rounds} rounds of {TIME:?} each, in \
         turns; answers of the worker that stands still are counted apart\n"
    );
    let mut all: [Vec<Round>; TOOLS.len()] = Default::default();
    for _ in 0..rounds {
        for (tool, rounds) in TOOLS.into_iter().zip(&mut all) {
            rounds.push(Round { free: run(tool, &[]), blocked: run(tool, &[("BLOCK_FIRST", "1")]) });
        }
    }
    println!(
        "| what | p99 ms, nobody blocked (spread) | p99 ms of the others beside a blocked worker (spread) | ratio (spread) | \
         answers of the others | answers of the blocked one | slowest of the others ms | failed |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for (tool, rounds) in TOOLS.into_iter().zip(&all) {
        let of = |figure: fn(&Round) -> f64| -> Vec<f64> { rounds.iter().map(figure).collect() };
        let (free, blocked) =
            (of(|r| r.free.latencies.quantile_ms(0.99)), of(|r| r.blocked.latencies.quantile_ms(0.99)));
        // Round by round: both were measured within seconds of each other.
        let ratios: Vec<f64> = blocked.iter().zip(&free).map(|(blocked, free)| blocked / free).collect();
        println!(
            "| {} | {:.2} ({}) | {:.2} ({}) | {:.2} ({}) | {} | {} | {:.0} | {} |",
            tool.label(),
            median(&free),
            spread(&free, 2),
            median(&blocked),
            spread(&blocked, 2),
            median(&ratios),
            spread(&ratios, 2),
            rounds.iter().map(|r| r.blocked.latencies.count()).sum::<u64>(),
            rounds.iter().map(|r| r.blocked.apart.count()).sum::<u64>(),
            range(&of(|r| r.blocked.latencies.quantile_ms(1.0))).1,
            rounds.iter().map(|r| r.free.failed() + r.blocked.failed()).sum::<u64>(),
        );
    }
}

/// The load on a server of its own.
fn run(tool: Tool, env: &'static [(&'static str, &'static str)]) -> Tally {
    let server = Server::start_with(tool, WORKERS, &Programs::none(), env).expect("a server");
    let plan = Plan { rest: true, ..Plan::short(server.address, CLIENTS) };
    plan.run(WARM_UP);
    plan.run(TIME)
}
