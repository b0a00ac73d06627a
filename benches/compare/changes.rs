//! The second part: what clients see while a server is reloaded, while its workers are killed, and while the process that
//! hands out connections is killed. The clients ask without a pause on short connections, and with a short rest on kept
//! ones.
use crate::connections::named;
use crate::data::{Change, Changes, Missing, Seen};
use crate::plan::Plan;
use crate::support::load::{self, Tally};
use crate::support::processes;
use crate::support::servers::{Programs, Server, Tool};
use nix::sys::signal::Signal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const CLIENTS: usize = 32;
const WORKERS: usize = 2;
/// No load of this part runs longer.
const LOAD_MAX: Duration = Duration::from_secs(90);
/// Where nobody got an answer for as long at the end, nobody will.
const GONE: Duration = Duration::from_secs(1);
/// Load before the first change and after the last.
const BESIDE: Duration = Duration::from_millis(500);
/// Workers and masters that have lived for a second are replaced without a pause.
const PAUSE: Duration = Duration::from_millis(1200);
/// Bound of the wait for the end of a process that was killed, and of those that go with it.
const DEATH_MAX: Duration = Duration::from_secs(5);

pub(crate) fn run(plan: &Plan, tools: &[Tool], programs: &Programs) -> Changes {
    let (start, mut slowest) = (Instant::now(), 0.0_f64);
    let mut found = Changes { clients: CLIENTS, workers: WORKERS, ..Changes::default() };
    for round in 0..plan.change_rounds {
        let begun = Instant::now();
        if (begun - start).as_secs_f64() + slowest > plan.changes_max.as_secs_f64() {
            println!("no time for more rounds");
            break;
        }
        for change in Change::ALL {
            for &kept in if plan.kept_too { &[false, true][..] } else { &[false] } {
                for n in 0..tools.len() {
                    let tool = tools[(n + round) % tools.len()];
                    if found.missing.iter().any(|missing| missing.label == tool.label()) {
                        continue;
                    }
                    match one(plan, tool, change, kept, programs) {
                        Ok((times, tally)) => note(&mut found.seen, tool, change, kept, times, &tally),
                        Err(why) => {
                            println!("  {}, {}: {why}", tool.label(), change.title());
                            found.missing.push(Missing { label: tool.label().to_owned(), why });
                        }
                    }
                }
            }
        }
        slowest = slowest.max(begun.elapsed().as_secs_f64());
        println!("changes: round {} of {} took {:.0} s", round + 1, plan.change_rounds, begun.elapsed().as_secs_f64());
    }
    let place = |seen: &Seen| (tools.iter().position(|tool| tool.name() == seen.tool.name), seen.kept);
    found.seen.sort_by_key(place);
    found
}

/// One server under load; how often the change was made, and what the clients saw.
fn one(plan: &Plan, tool: Tool, change: Change, kept: bool, programs: &Programs) -> Result<(u64, Tally), String> {
    let server = Server::start(tool, WORKERS, programs)?;
    let load = load::Plan { kept, rest: kept, ..load::Plan::short(server.address, CLIENTS) };
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients = scope.spawn(|| load.run_until(LOAD_MAX, &stop));
        std::thread::sleep(BESIDE);
        let done = match change {
            Change::Reload => reloads(&server, plan.reloads),
            Change::WorkerKill => worker_kills(&server, plan.kills),
            Change::MasterKill => master_kills(&server, plan.kills),
        };
        std::thread::sleep(BESIDE + GONE);
        stop.store(true, Ordering::Relaxed);
        let tally = clients.join().map_err(|_| "the load ended too early".to_owned())?;
        Ok((done?, tally))
    })
}

fn reloads(server: &Server, times: u64) -> Result<u64, String> {
    for _ in 0..times {
        server.reload()?;
        std::thread::sleep(BESIDE);
    }
    Ok(times)
}

/// One worker after the other, each when there are as many as there should be.
fn worker_kills(server: &Server, times: u64) -> Result<u64, String> {
    for _ in 0..times {
        server.wait_for_workers(WORKERS)?;
        std::thread::sleep(PAUSE);
        let victim = server.workers().first().copied().ok_or("no worker is left")?;
        kill(victim);
    }
    Ok(times)
}

/// Kills what hands out connections, as long as somebody brings it back; returns when that has happened, or when the last
/// worker has gone with it.
fn master_kills(server: &Server, times: u64) -> Result<u64, String> {
    for done in 0..times {
        std::thread::sleep(PAUSE);
        let Some(master) = server.master() else { return Ok(done) };
        kill(master);
        let start = Instant::now();
        while server.master().is_none() && !server.workers().is_empty() && start.elapsed() < DEATH_MAX {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    Ok(times)
}

fn kill(pid: i32) {
    processes::send(pid, Signal::SIGKILL);
    let start = Instant::now();
    while processes::alive(pid) && start.elapsed() < DEATH_MAX {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Adds what was seen to what was seen in earlier rounds.
fn note(all: &mut Vec<Seen>, tool: Tool, change: Change, kept: bool, times: u64, tally: &Tally) {
    let (silence, gone) = (tally.longest_gap.as_secs_f64() * 1000.0, tally.last_gap >= GONE);
    let place = all.iter().position(|seen| seen.tool.name == tool.name() && (seen.change, seen.kept) == (change, kept));
    let at = place.unwrap_or_else(|| {
        all.push(Seen {
            tool: named(tool),
            change,
            kept,
            times: 0,
            answered: 0,
            refused: 0,
            reset: 0,
            cut: 0,
            hung: 0,
            closed: 0,
            silence_ms: Some(0.0),
        });
        all.len() - 1
    });
    let seen = &mut all[at];
    seen.times += times;
    seen.answered += tally.whole;
    seen.refused += tally.refused;
    seen.reset += tally.reset;
    seen.cut += tally.cut;
    seen.hung += tally.hung;
    seen.closed += tally.closed;
    seen.silence_ms = seen.silence_ms.filter(|_| !gone).map(|before| before.max(silence));
}
