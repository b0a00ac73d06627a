//! The real keeper and master in simulated worlds: their processes, signals and time are simulated, and each of their system calls may
//! fail, be their last, or let others run first. Sockets and files are real ones: a model of them could be wrong.
//!
//! `cargo test --test system` lives the cases of the past and fixed seeds, and shows that faults that are put in on purpose are found.
//! A failing seed is printed and told as a story; run it alone with `SYSTEM_SEED=n`. `SYSTEM_SECONDS=n` has new worlds for so long
//! (the usual run has none: the same code is to have the same result), `SYSTEM_SEEDS=n` the first n seeds. `SYSTEM_TRACE=1` prints what happens as it happens, `SYSTEM_CALLS=1` every system call too.
#![allow(clippy::unwrap_used, clippy::print_stdout)]
mod actor;
mod bugs;
mod cases;
mod check;
mod client;
mod commands;
mod deeds;
mod determinism;
mod driver;
mod errors;
mod faults;
mod intercepted;
mod keeper;
mod listen_fds;
mod manner;
mod master;
mod node;
mod plan;
mod program;
mod quirks;
#[path = "../simulation/random.rs"]
mod random;
mod runner;
mod server;
mod settings;
mod sockets;
mod told;
mod trouble;
mod world;

use bugs::Bug;
use plan::Plan;
use runner::{Outcome, live};
use std::env;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use world::Counts;

/// What the test is called on a command line.
const NAME: &str = "system::worlds";
/// Worlds of fixed seeds in a usual run.
const SEEDS: u64 = 90;
/// Worlds in which a fault that was put in has to show.
const BUG_SEEDS_MAX: u64 = 200;
/// Where the seeds of the cases of the past begin.
const CASES_FIRST: u64 = 1_000_000;
/// Processes that live worlds beside each other.
const PARTS: u64 = 2;
/// Failing worlds that are told; of others only the seed is printed.
const TOLD_MAX: u32 = 2;
/// The number of a process among those; it is set for them alone.
const PART: &str = "SYSTEM_PART";

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().and_then(|text| text.parse().ok())
}

fn main() -> ExitCode {
    if env::args().any(|arg| arg == "--ignored") && number("SYSTEM_SECONDS").is_none() {
        println!("no worlds: those of the usual run are all but new ones (SYSTEM_SECONDS=n)");
        return ExitCode::SUCCESS;
    }
    // As other tests: a name on the command line chooses.
    if env::args().skip(1).any(|arg| !arg.starts_with('-') && !NAME.contains(&arg)) {
        return ExitCode::SUCCESS;
    }
    let Some(part) = number(PART).or(number("SYSTEM_SEED").map(|_| 0)) else { return in_parts() };
    determinism::stay_on_one_cpu(part);
    actor::hook_panics();
    log::set_logger(&actor::StoryLog).unwrap();
    log::set_max_level(log::LevelFilter::Info);
    let mut all = All::new();
    if let Some(seed) = number("SYSTEM_SEED") {
        all.live(&format!("seed {seed}"), seed, &Plan::of(seed));
    } else {
        all.live_all(part);
    }
    let found = number("SYSTEM_SEED").is_some() || number("SYSTEM_SECONDS").is_some() || all.finds_bugs(part);
    all.tell(part);
    if all.failed == 0 && found { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs this program once for each part.
fn in_parts() -> ExitCode {
    let program = env::current_exe().unwrap();
    let new = number("SYSTEM_NEW").unwrap_or_else(|| {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() % 1_000_000 * 1_000)
    });
    if number("SYSTEM_SECONDS").is_some() {
        println!("new seeds from {new} on (again with SYSTEM_NEW={new})");
    }
    let start = |part: u64| {
        Command::new(&program).env(PART, part.to_string()).env("SYSTEM_NEW", new.to_string()).spawn().unwrap()
    };
    let children: Vec<_> = (0..PARTS).map(start).collect();
    let mut code = ExitCode::SUCCESS;
    for mut child in children {
        if !child.wait().unwrap().success() {
            code = ExitCode::FAILURE;
        }
    }
    code
}

/// What all worlds of a part showed.
struct All {
    failed: u32,
    worlds: u64,
    turns: u64,
    calls: u64,
    lived_us: u64,
    counts: Counts,
    begun: Instant,
}

impl All {
    fn new() -> All {
        let (failed, worlds, turns, calls, lived_us) = (0, 0, 0, 0, 0);
        All { failed, worlds, turns, calls, lived_us, counts: Counts::default(), begun: Instant::now() }
    }

    fn live_all(&mut self, part: u64) {
        let seconds = number("SYSTEM_SECONDS");
        if seconds.is_none() {
            for (n, (name, plan)) in (0..).zip(cases::ALL).filter(|(n, _)| n % PARTS == part) {
                self.live(name, CASES_FIRST + n, &plan(CASES_FIRST + n));
            }
            for seed in (0..number("SYSTEM_SEEDS").unwrap_or(SEEDS)).filter(|seed| seed % PARTS == part) {
                self.live(&format!("seed {seed}"), seed, &Plan::of(seed));
            }
        }
        let end = Instant::now() + Duration::from_secs(seconds.unwrap_or(0));
        let mut seed = number("SYSTEM_NEW").unwrap_or(0) + part;
        while Instant::now() < end {
            self.live(&format!("seed {seed}"), seed, &Plan::of(seed));
            seed += PARTS;
        }
    }

    /// Whether every fault that is put in shows, of those that are this part's.
    fn finds_bugs(&mut self, part: u64) -> bool {
        let mut all_found = true;
        for (_, bug) in (0..).zip(bugs::ALL).filter(|(n, _)| n % PARTS == part) {
            let begun = Instant::now();
            let found = (0..BUG_SEEDS_MAX).find_map(|seed| {
                let plan = Plan::of(seed).busier(seed);
                let first = live(seed, plan.clone(), Some(bug)).violations.into_iter().next()?;
                // The world has to be right without it.
                self.live(&format!("seed {seed}, busier"), seed, &plan).then_some((seed, first))
            });
            match found {
                Some((seed, first)) => {
                    println!("found {bug}: world {} after {:.1} s: {first}", seed + 1, begun.elapsed().as_secs_f64())
                }
                None => {
                    all_found = false;
                    println!("NOT FOUND in {BUG_SEEDS_MAX} worlds: {bug}");
                }
            }
        }
        all_found
    }

    /// Lives a world. Whether everything in it is right.
    fn live(&mut self, name: &str, seed: u64, plan: &Plan) -> bool {
        let Outcome { violations, counts, turns, calls, lived_us, .. } = live(seed, plan.clone(), None::<Bug>);
        self.worlds += 1;
        self.turns += turns;
        self.calls += calls;
        self.lived_us += lived_us;
        self.counts += counts;
        let is_right = violations.is_empty();
        if !is_right {
            self.failed += 1;
            println!("FAILED: {name}: {}", violations.join("; "));
            if self.failed <= TOLD_MAX && env::var_os("SYSTEM_TRACE").is_none() {
                runner::tell(name, seed, plan);
            }
        }
        is_right
    }

    fn tell(&self, part: u64) {
        let (seconds, lived) = (self.begun.elapsed().as_secs_f64(), self.lived_us as f64 / 1e6);
        let (worlds, failed, turns, calls) = (self.worlds, self.failed, self.turns, self.calls);
        println!(
            "part {part}: {worlds} worlds of {lived:.0} s in all, {failed} failed, {turns} turns, {calls} calls; {seconds:.1} s"
        );
        println!("part {part}: {:?}", self.counts);
    }
}
