//! The first part: what a connection costs. Every round starts each server again, with 2 and with 8 workers, and puts each
//! load on it; whose turn is first changes from round to round, so that a slow minute of the machine hits all of them.
use crate::data::{Connections, MAIN, Missing, Named, Round, Row, Setup};
use crate::plan::Plan;
use crate::support::load;
use crate::support::processes;
use crate::support::servers::{Programs, Server, Tool};
use std::time::Instant;

const CLIENTS: usize = 64;
/// The main setup gets so many times the time of others.
const MAIN_TIMES: u32 = 3;

pub(crate) fn run(plan: &Plan, tools: &[Tool], programs: &Programs) -> Connections {
    let (start, mut slowest) = (Instant::now(), 0.0_f64);
    let mut found = Connections { clients: CLIENTS, seconds: plan.load.as_secs_f64(), ..Connections::default() };
    found.rows = rows(plan, tools);
    for round in 0..plan.rounds {
        let begun = Instant::now();
        if (begun - start).as_secs_f64() + slowest > plan.connections_max.as_secs_f64() {
            println!("no time for more rounds");
            break;
        }
        for workers in plan.workers() {
            for n in 0..tools.len() {
                let tool = tools[(n + round) % tools.len()];
                if found.missing.iter().any(|missing| missing.label == tool.label()) {
                    continue;
                }
                if let Err(why) = measure(plan, tool, workers, programs, &mut found.rows) {
                    println!("  {}: {why}", tool.label());
                    found.missing.push(Missing { label: tool.label().to_owned(), why });
                }
            }
        }
        slowest = slowest.max(begun.elapsed().as_secs_f64());
        println!("connections: round {} of {} took {:.0} s", round + 1, plan.rounds, begun.elapsed().as_secs_f64());
    }
    found.rows.retain(|row| !row.rounds.is_empty());
    found
}

/// An empty row for everything that is to be measured, in the order of the page.
fn rows(plan: &Plan, tools: &[Tool]) -> Vec<Row> {
    let mut rows = Vec::new();
    for &setup in &plan.setups {
        for &tool in tools {
            // The floor answers one request per connection; on kept ones a primary hardly matters.
            if !matches!(tool, Tool::Floor | Tool::Least) || !setup.kept {
                rows.push(Row { tool: named(tool), setup, rounds: Vec::new() });
            }
        }
    }
    rows
}

pub(crate) fn named(tool: Tool) -> Named {
    Named { name: tool.name().to_owned(), label: tool.label().to_owned() }
}

/// Every load that goes with so many workers, on one server.
fn measure(plan: &Plan, tool: Tool, workers: usize, programs: &Programs, rows: &mut [Row]) -> Result<(), String> {
    let server = Server::start(tool, workers, programs)?;
    load::Plan::short(server.address, CLIENTS).run(plan.first_warm_up);
    for row in rows.iter_mut().filter(|row| row.tool.name == tool.name() && row.setup.workers == workers) {
        row.rounds.push(one(plan, &server, row.setup));
    }
    Ok(())
}

fn one(plan: &Plan, server: &Server, setup: Setup) -> Round {
    let load = load::Plan {
        kept: setup.kept,
        path: if setup.job { "/job" } else { "/" },
        ..load::Plan::short(server.address, CLIENTS)
    };
    // The one that targets are set for takes longer, because its figures have to mean more.
    let times = if setup == MAIN { MAIN_TIMES } else { 1 };
    let workers: Vec<i32> = load.run(plan.warm_up * times).served.into_keys().map(u32::cast_signed).collect();
    let masters = server.masters();
    let spent = || [&masters, &workers].map(|pids| processes::cpu_us(pids));
    let before = spent();
    let tally = load.run(plan.load * times);
    let after = spent();
    let each = |n: usize| (after[n] - before[n]) / tally.whole.max(1) as f64;
    Round {
        rate: tally.rate(),
        p50_ms: tally.latencies.quantile_ms(0.5),
        p99_ms: tally.latencies.quantile_ms(0.99),
        cpu_us: each(0),
        workers_cpu_us: each(1),
        memory_mib: processes::memory_mib(&masters).0,
        fairness: fairness(tally.served.values().copied().collect(), setup.workers),
        failed: tally.failed(),
    }
}

/// Answers of the worker that gave fewest by those of the one that gave most; one that gave none is not among them.
fn fairness(served: Vec<u64>, workers: usize) -> f64 {
    let most = served.iter().copied().max().unwrap_or(0);
    let least = if served.len() < workers { 0 } else { served.iter().copied().min().unwrap_or(0) };
    if most == 0 { 0.0 } else { least as f64 / most as f64 }
}
