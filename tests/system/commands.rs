//! Commands of clients of the control API: what they ask for, and that each of them ends. They go to the master as the API's thread
//! passes them on; HTTP, which that thread speaks, is not here.
use crate::plan::{BEGIN_US, CALM_US, Deed, LENGTH_US, Plan};
use crate::random::Random;
use crate::world::State;
use clusterd::api::request::{Role, Scale, StopMode, Target, View};
use clusterd::api::{Answer, CallSender, NotTaken, Order, Request, app_metrics};
use clusterd::os::signal;
use std::fs::File;
use std::sync::Arc;
use tokio::sync::oneshot::Receiver;
use tokio::sync::oneshot::error::TryRecvError;

/// Makes the choices here independent of those of `plan`.
const SALT: u64 = 0xc033_a4d5;
/// Files that stand for binaries, which are known by their inodes alone.
pub(crate) const NEW_BINARY: &str = "/dev/zero";
pub(crate) const BROKEN_BINARY: &str = "/dev/full";
/// A command that takes longer does not end.
const COMMAND_US_MAX: u64 = 150_000_000;
/// So long after its start was asked for, an app listens again.
const START_US: u64 = 20_000_000;

/// What a client of the control API asks for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Command {
    Give(Request),
    /// Metrics of everything.
    Scrape,
    /// An upgrade, whose check has passed: to a binary that works, or not.
    TakeOver {
        works: bool,
    },
}

/// The app without a file has the name of its command.
fn name(plan: &Plan) -> &'static str {
    if plan.args.iter().any(|arg| arg == "-c") { "web" } else { "true" }
}

/// A command that has no answer yet.
struct Open {
    command: String,
    master: i32,
    at_us: u64,
    answer: Receiver<Answer>,
}

/// The commands of a world.
#[derive(Default)]
pub(crate) struct Commands {
    open: Vec<Open>,
    /// When a client stopped an app, and when one started it again.
    stops: Vec<(u64, Option<u64>)>,
}

impl Commands {
    /// Whether an app may have been without its sockets in this time.
    pub(crate) fn has_stopped(&self, from_us: u64, to_us: u64) -> bool {
        let ends = |until: Option<u64>| until.is_none_or(|at_us| at_us + START_US >= from_us);
        self.stops.iter().any(|(at_us, until)| *at_us <= to_us && ends(*until))
    }
}

/// Has clients give commands in some of the worlds.
pub(crate) fn vary(plan: &mut Plan, seed: u64) {
    let mut random = Random::new(seed ^ SALT);
    if !random.percent(45) {
        return;
    }
    plan.give_home(seed);
    for _ in 0..random.between(1, 10) {
        let at_us = BEGIN_US + random.between(1_000_000, LENGTH_US - CALM_US - 1_000_000);
        let command = any(plan, &mut random);
        // A start reads the file, whose release may not work, and nothing that served before takes its place. And workers may have left
        // on the order of a master that could not note it, for want of room for files in flight, and was killed: then they have finished.
        let starts =
            matches!(&command, Command::Give(Request::Start { .. } | Request::Stop { .. } | Request::Restart { .. }));
        if starts && (plan.has_bad_release() || plan.is_ever_short()) {
            continue;
        }
        if let Command::Give(Request::Stop { .. } | Request::Restart { .. }) = &command {
            let app = name(plan).to_owned();
            let start = Command::Give(Request::Start { app, change: Default::default() });
            if random.percent(50) {
                plan.deeds.push((at_us + random.between(0, 5_000_000), Deed::Command(start.clone())));
            }
            // Whatever became of the others: nothing goes wrong any more.
            plan.deeds.push((BEGIN_US + LENGTH_US - CALM_US + 1, Deed::Command(start)));
        }
        plan.deeds.push((at_us, Deed::Command(command)));
    }
    plan.deeds.sort_by_key(|(at_us, _)| *at_us);
}

fn any(plan: &mut Plan, random: &mut Random) -> Command {
    let app = name(plan).to_owned();
    let slot = random.between(0, 4) as u32;
    let some_slot = Some(slot).filter(|_| random.percent(50));
    let mode = StopMode::from_now(random.percent(50));
    let target = if random.percent(50) { Target::All } else { Target::App(app.clone()) };
    let (least, most) = plan.workers_at_end;
    let request = match random.between(0, 26) {
        0..=2 => Request::View(View::Deployment),
        3 => Request::Ready,
        4..=6 => Request::Reload { target, change: Default::default() },
        7 => Request::Releases { app },
        8 => Request::Rollback { app, to: None },
        9 => Request::Start { app, change: Default::default() },
        10 => Request::Restart { app, change: Default::default() },
        // The end of the last app would be that of the deployment.
        11 | 12 if plan.apps > 1 => Request::Stop { target: Target::App(app), mode },
        11 | 12 => Request::Restart { app, change: Default::default() },
        13 => {
            let more = random.between(1, 3) as u32;
            plan.workers_at_end = (least, most + more as usize);
            Request::Scale { app, to: Scale::Up(more) }
        }
        14 => {
            plan.workers_at_end = (least.saturating_sub(1).max(plan.apps), most);
            Request::Scale { app, to: Scale::Down(1) }
        }
        15 => Request::SendLine { app, slot: some_slot, line: "a line".to_owned() },
        16 | 17 => Request::Replace { app, slot },
        18 => Request::Signal { app, signal: signal::USR2, slot: some_slot },
        19 => Request::Trigger { app, slot: some_slot, action: "flush".to_owned(), parameter: None },
        20 => Request::ResetCounters { app },
        21 => Request::Environment { app, of: Role::Worker { slot } },
        24 | 25 => return Command::TakeOver { works: random.percent(70) },
        22 => {
            if random.percent(50) {
                Request::ReopenLogs
            } else {
                Request::FlushLogs { target }
            }
        }
        23 => Request::Upgrade { binary: "/proc/self/exe".to_owned() },
        _ => return Command::Scrape,
    };
    Command::Give(request)
}

/// A client gives a command to the master that serves now.
pub(crate) fn give(state: &mut State, command: &Command) {
    let served = state.controls.iter().next_back();
    let Some((master, calls)) = served.map(|(pid, (_, calls))| (*pid, CallSender::clone(calls))) else {
        state.count("commands that found no master");
        return;
    };
    let (order, shown) = match command {
        Command::Give(request) => (Order::Request(request.clone()), format!("{request:?}")),
        Command::TakeOver { works } => match File::open(if *works { NEW_BINARY } else { BROKEN_BINARY }) {
            Ok(binary) => {
                let (path, binary) = ("/new/clusterd".to_owned(), Arc::new(binary.into()));
                (Order::TakeOver { path, binary }, format!("an upgrade, which works: {works}"))
            }
            Err(error) => return state.violated(format!("no binary: {error}")),
        },
        Command::Scrape => (Order::Scrape { answers: app_metrics::AnswerSender::unheard() }, "Scrape".to_owned()),
    };
    state.tell("client", &format!("asks master {master} for {shown}"));
    let now_us = state.now_us;
    match command {
        Command::Give(Request::Stop { .. } | Request::Restart { .. }) => state.commands.stops.push((now_us, None)),
        Command::Give(Request::Start { .. }) => {
            state.commands.stops.iter_mut().for_each(|(_, until)| _ = until.get_or_insert(now_us));
        }
        _ => {}
    }
    match calls.order(order) {
        Ok(answer) => {
            state.commands.open.push(Open { command: shown, master, at_us: now_us, answer });
            state.count("commands given");
        }
        Err(NotTaken::Full) => state.count("commands that found the queue full"),
        Err(NotTaken::Ended) => state.count("commands that found a master that ends"),
    }
}

/// Takes the answers that have come.
pub(crate) fn take_answers(state: &mut State) {
    let mut n = 0;
    while n < state.commands.open.len() {
        let one = &mut state.commands.open[n];
        let name = match one.answer.try_recv() {
            Ok(answer) => kind(&answer),
            Err(TryRecvError::Closed) => {
                let is_alive = state.processes.get(&one.master).is_some_and(|master| master.ended.is_none());
                let is_ending = state.processes.get(&one.master).is_some_and(|master| master.doomed.is_some());
                if is_alive && !is_ending && state.controls.contains_key(&one.master) && state.stopped_us.is_none() {
                    let text = format!("master {} gives no answer to {}", one.master, one.command);
                    state.violated(text);
                }
                "commands ended by the end of a master"
            }
            Err(TryRecvError::Empty) => {
                let is_stopped = state.processes.get(&one.master).is_some_and(|master| master.stopped);
                if one.at_us + COMMAND_US_MAX < state.now_us && !is_stopped {
                    let text = format!("{} has no answer after {} s", one.command, COMMAND_US_MAX / 1_000_000);
                    state.commands.open.remove(n);
                    state.violated(text);
                    continue;
                }
                n += 1;
                continue;
            }
        };
        let open = state.commands.open.remove(n);
        state.tell("client", &format!("{}: {name}", open.command));
        state.count(name);
    }
}

fn kind(answer: &Answer) -> &'static str {
    match answer {
        Answer::Deployment(_) => "answers: deployment",
        Answer::Scrape(..) => "answers: metrics",
        Answer::Environment(_) => "answers: environment",
        Answer::Releases(_) => "answers: releases",
        Answer::Snapshot(_) => "answers: snapshot",
        Answer::Done(_) => "answers: done",
        Answer::NotFound(_) => "answers: no such app",
        Answer::Refused(_) => "answers: refused",
        Answer::Failed { .. } => "answers: failed",
        Answer::Warned { answer, .. } => kind(answer),
    }
}

/// No command outlives the deployment.
pub(crate) fn check_ended(state: &mut State) {
    take_answers(state);
    let left: Vec<String> = state.commands.open.drain(..).map(|open| open.command).collect();
    if !left.is_empty() {
        state.violated(format!("commands without an end: {}", left.join(", ")));
    }
}
