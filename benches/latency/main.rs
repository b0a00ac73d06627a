//! Latency at ordinary load: `cargo bench --bench latency [-- --quick] [--workers 2,8] [--mix even,uneven,job]
//! [--tools NAME,...] [--rounds N] [--docs]`.
//!
//! Open load (`open.rs`) at 10, 30, 50, 70 and 90 % of what Node's workers can do with a shared socket, which a closed
//! load finds out first for each number of workers, mix of requests and kind of connection. Every server gets the same
//! requests at the same times; whose turn is first changes from round to round. The load runs on the machine that it
//! measures, so figures beside each other count. `--docs` puts tables and picture into docs/performance.md.
#![allow(clippy::print_stdout)] // The tables are the point.
mod open;
mod page;
#[path = "../compare/programs.rs"]
#[allow(dead_code)]
mod programs;
#[path = "../support/mod.rs"]
#[allow(dead_code)]
mod support;

use open::Mix;
use page::{Cell, Table};
use std::time::Duration;
use support::load;
use support::processes;
use support::servers::{Programs, Server, Tool};

/// Per cent of what a shared socket can do.
pub(crate) const LEVELS: [u32; 5] = [10, 30, 50, 70, 90];
/// Clients of the closed load that finds that out.
const CLIENTS: usize = 64;

struct Wanted {
    workers: Vec<usize>,
    mixes: Vec<Mix>,
    tools: Vec<Tool>,
    rounds: usize,
    time: Duration,
    docs: bool,
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    support::be_one_of_them(&args);
    let wanted = wanted(&args).unwrap_or_else(|why| {
        eprintln!("{why}");
        std::process::exit(2);
    });
    let _end = processes::end_together();
    let programs = programs::find();
    let mut tables = Vec::new();
    for &workers in &wanted.workers {
        for &mix in &wanted.mixes {
            for kept in [false, true] {
                let table = measured(&wanted, &programs, workers, mix, kept);
                println!("{}", page::text(&table));
                tables.push(table);
            }
        }
    }
    println!("{}", page::verdict(&tables));
    if let Err(why) = page::write(&tables, wanted.docs) {
        eprintln!("{why}");
        std::process::exit(1);
    }
}

fn measured(wanted: &Wanted, programs: &Programs, workers: usize, mix: Mix, kept: bool) -> Table {
    let most = capacity(workers, mix, kept);
    let mut table = Table { workers, mix, kept, most, seconds: wanted.time.as_secs_f64(), rows: Vec::new() };
    table.rows = wanted.tools.iter().map(|&tool| (tool, Vec::new())).collect();
    for round in 0..wanted.rounds {
        for n in 0..wanted.tools.len() {
            let n = (n + round) % wanted.tools.len();
            let tool = wanted.tools[n];
            match one(wanted, programs, &table, tool, round) {
                Ok(cells) => table.rows[n].1.push(cells),
                Err(why) => println!("{}: {why}", tool.label()),
            }
        }
    }
    table.rows.retain(|(_, rounds)| !rounds.is_empty());
    table
}

/// Requests a second that Node's workers answer on a shared socket.
fn capacity(workers: usize, mix: Mix, kept: bool) -> f64 {
    let server = Server::start(Tool::NodeShared, workers, &Programs::none()).expect("Node's cluster, shared");
    // A mix has no path of its own: what its requests take on average decides.
    let path = if mix == Mix::Job { "/job" } else { "/" };
    let load = load::Plan { kept, path, ..load::Plan::short(server.address, CLIENTS) };
    load.run(Duration::from_secs(2));
    let each_s = 1.0 / load.run(Duration::from_secs(3)).rate();
    match mix {
        Mix::Even | Mix::Job => 1.0 / each_s,
        // A tenth takes 20 ms of one of the CPUs.
        Mix::Uneven => {
            let cpus = std::thread::available_parallelism().map_or(1, usize::from).min(workers);
            1.0 / (each_s + 0.1 * 0.020 / cpus as f64)
        }
    }
}

/// All levels on one server.
fn one(wanted: &Wanted, programs: &Programs, table: &Table, tool: Tool, round: usize) -> Result<Vec<Cell>, String> {
    let server = Server::start(tool, table.workers, programs)?;
    let plan = |level: u32, time: Duration, seed: u64| open::Plan {
        address: server.address,
        mix: table.mix,
        kept: table.kept,
        rate: table.most * f64::from(level) / 100.0,
        time,
        seed,
    };
    let run = |plan: open::Plan| plan.run().map_err(|e| format!("the load: {e}"));
    // Code that is not compiled yet would be what the first level measures.
    run(plan(50, Duration::from_secs(3), 1))?;
    LEVELS
        .iter()
        .map(|&level| {
            let seen = run(plan(level, wanted.time, round as u64 * 100 + u64::from(level)))?;
            Ok(Cell {
                p50_ms: seen.latencies.quantile_ms(0.5),
                p99_ms: seen.latencies.quantile_ms(0.99),
                failed: seen.failed,
                closed: seen.closed,
            })
        })
        .collect()
}

fn wanted(args: &[String]) -> Result<Wanted, String> {
    let mut wanted = Wanted {
        workers: vec![2, 4, 8],
        mixes: Mix::ALL.to_vec(),
        // Those two measure a hand-off; nobody runs them.
        tools: Tool::ALL.into_iter().filter(|tool| !matches!(tool, Tool::Floor | Tool::Least)).collect(),
        rounds: 3,
        time: Duration::from_secs(4),
        docs: false,
    };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut values = || args.next().map_or("", String::as_str).split(',').map(str::to_owned).collect::<Vec<_>>();
        match arg.as_str() {
            "--bench" => {}
            "--docs" => wanted.docs = true,
            "--quick" => (wanted.rounds, wanted.time, wanted.workers) = (1, Duration::from_secs(1), vec![2]),
            "--rounds" => wanted.rounds = values()[0].parse().map_err(|_| "--rounds takes a number")?,
            "--workers" => {
                let all: Result<Vec<usize>, _> = values().iter().map(|value| value.parse()).collect();
                wanted.workers = all.map_err(|_| "--workers takes numbers: 2,4,8")?;
            }
            "--mix" => {
                wanted.mixes = Mix::ALL.to_vec();
                let names = values();
                wanted.mixes.retain(|mix| names.iter().any(|name| name == mix.name()));
            }
            "--tools" => {
                let names = values();
                wanted.tools.retain(|tool| names.iter().any(|name| name == tool.name()));
            }
            other => return Err(format!("what is {other}?")),
        }
    }
    Ok(wanted)
}
