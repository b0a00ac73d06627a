//! A world around one supervised app: a keeper that holds notes and processes, workers that start slowly, crash, hang,
//! leave and lie, commands at random moments, and a master that dies at any step and is restored from the notes that
//! had reached the keeper. Invariants hold after every step, and every world comes to rest.
mod agent;
mod asks;
mod before;
pub(crate) mod canary;
mod invariants;
mod policies;

use super::random::Random;
use clusterd::ids::{Generation, Slot, WorkerId};
use clusterd::supervisor::{
    Action, App, AppSnapshot, Cx, Event, Evidence, Excess, ExitStatus, Phase, Policy, Report, SlotSnapshot,
    WorkerSnapshot,
};
use policies::policy;
use std::collections::{BTreeMap, BTreeSet};

/// Commands and failures end here; then the world has to come to rest.
const TROUBLE_ENDS_MS: u64 = 60_000;
/// By then everything rests.
const REST_MS: u64 = TROUBLE_ENDS_MS + 90_000;
/// No world takes more steps.
const STEPS_MAX: u32 = 200_000;

/// A bug put in on purpose between the rules and the world: the simulation has to find each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sabotage {
    /// One death in ten is never told.
    LostExit,
    /// SIGKILL is never sent.
    NoKill,
    /// Every worker counts as ready as soon as its process exists.
    ReadyTooEarly,
    /// Workers are not noted, only slots.
    LostNote,
    /// The agent counts as ready as soon as its process exists.
    AgentReadyTooEarly,
    /// The agent is not noted.
    LostAgentNote,
    /// That the command before the workers has ended is not noted.
    LostBeforeNote,
}

/// What will happen.
#[derive(Clone, Debug)]
enum Coming {
    ExecDone(WorkerId),
    ExecFails(WorkerId),
    Says(WorkerId, Says),
    Ends(WorkerId, ExitStatus),
    HasClients(WorkerId),
    Holds(WorkerId),
    /// It passes a limit, and is over it from then on.
    Exceeds(WorkerId),
    /// Its event loop does not turn any more.
    Hangs(WorkerId),
    /// A master, the n-th, hears what it answers.
    Answers(WorkerId, u32),
    /// The same with the last request of its warm-up.
    IsWarm(WorkerId, u32),
    /// A canary was compared, by the master of that number.
    Judged(WorkerId, u32),
    Command(Box<Event>),
    MasterDies,
    MasterStarts,
}

/// What a worker says over its channel. It waits there while no master lives.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Says {
    Online,
    Ready,
    Listening,
    Closes,
    Reopens,
    Leaving,
    Garbage,
    ChannelEnd,
}

/// A process of the keeper.
struct Process {
    pid: i32,
    running: bool,
    /// How it ended, until the master has taken note.
    ended: Option<(ExitStatus, u64)>,
    deaf: bool,
    listened: bool,
    slot: Slot,
    generation: Generation,
    drain_began_ms: Option<u64>,
    /// How it answers, if it is asked.
    health: asks::Health,
    waiting: Vec<Says>,
}

/// One thing on its way from the master to the keeper.
enum Order {
    Header(Box<AppSnapshot>),
    Slot(u32, Option<SlotSnapshot>),
    Worker(WorkerId, Option<WorkerSnapshot>),
    Do(Action),
    ExitSeen(WorkerId),
}

#[derive(Default)]
struct Notes {
    header: Option<AppSnapshot>,
    slots: BTreeMap<u32, SlotSnapshot>,
    workers: BTreeMap<WorkerId, WorkerSnapshot>,
}

struct World {
    sabotage: Option<Sabotage>,
    random: Random,
    now_ms: u64,
    coming: BTreeMap<(u64, u64), Coming>,
    order: u64,
    processes: BTreeMap<WorkerId, Process>,
    notes: Notes,
    master: Option<App>,
    policies: BTreeMap<Generation, Policy>,
    bad: BTreeSet<Generation>,
    bad_agents: BTreeSet<Generation>,
    bad_befores: BTreeSet<Generation>,
    /// Generations whose command before the workers has ended with 0, and those of which that was reported.
    before_ended: BTreeSet<Generation>,
    before_done: BTreeSet<Generation>,
    /// Generations whose agent has said once that it is ready.
    agents_ready: BTreeSet<Generation>,
    next_worker: u64,
    next_pid: i32,
    /// Orders that the keeper still receives before the master dies.
    dies_after: Option<usize>,
    spawned: BTreeSet<WorkerId>,
    served: BTreeSet<WorkerId>,
    reaped: BTreeSet<WorkerId>,
    never_ran: BTreeSet<WorkerId>,
    reloads_open: BTreeSet<Generation>,
    starts_open: BTreeSet<Generation>,
    deaths_of_master: u32,
    stopped: bool,
    stopped_now: bool,
    floor: Option<u32>,
}

/// What a master sends after a step: its notes first, then what follows from them.
fn stream(app: &mut App, actions: Vec<Action>) -> Vec<Order> {
    let (slots, workers) = app.take_changes();
    let slots = slots.into_iter().map(|(index, slot)| Order::Slot(index, slot));
    let workers = workers.into_iter().map(|(id, worker)| Order::Worker(id, worker));
    slots
        .chain(workers)
        .chain([Order::Header(Box::new(app.snapshot()))])
        .chain(actions.into_iter().map(Order::Do))
        .collect()
}

/// Lives one world to its rest.
pub(crate) fn live(seed: u64, sabotage: Option<Sabotage>) {
    let mut random = Random::new(seed);
    let first = policy(&mut random);
    let slots = random.between(1, 5) as u32;
    let generation = Generation(1);
    let mut world = World {
        sabotage,
        master: Some(App::new(generation, first.clone(), slots)),
        policies: BTreeMap::from([(generation, first)]),
        random,
        now_ms: 0,
        coming: BTreeMap::new(),
        order: 0,
        processes: BTreeMap::new(),
        notes: Notes::default(),
        bad: BTreeSet::new(),
        bad_agents: BTreeSet::new(),
        bad_befores: BTreeSet::new(),
        before_ended: BTreeSet::new(),
        before_done: BTreeSet::new(),
        agents_ready: BTreeSet::new(),
        next_worker: 1,
        next_pid: 100,
        dies_after: None,
        spawned: BTreeSet::new(),
        served: BTreeSet::new(),
        reaped: BTreeSet::new(),
        never_ran: BTreeSet::new(),
        reloads_open: BTreeSet::new(),
        starts_open: BTreeSet::new(),
        deaths_of_master: 0,
        stopped: false,
        stopped_now: false,
        floor: None,
    };
    if world.random.percent(10) {
        world.bad_agents.insert(generation);
    }
    world.plan_trouble();
    world.with_master(|app, cx| app.start(cx));
    world.turn();
    world.check_rest();
}

impl World {
    fn trouble(&self) -> bool {
        self.now_ms < TROUBLE_ENDS_MS
    }

    fn plan(&mut self, in_ms: u64, what: Coming) {
        self.order += 1;
        self.coming.insert((self.now_ms + in_ms, self.order), what);
    }

    fn plan_trouble(&mut self) {
        for _ in 0..self.random.between(0, 6) {
            let at = self.random.between(100, TROUBLE_ENDS_MS - 1_000);
            let command = match self.random.between(0, 7) {
                0..=2 => {
                    let (to, policy) = self.another_generation();
                    if self.random.percent(40) {
                        self.bad.insert(to);
                    }
                    Event::Reload { to, policy, slots: self.random.between(1, 5) as u32 }
                }
                3 | 4 => Event::Scale { slots: self.random.between(1, 6) as u32 },
                5 | 6 => {
                    let (to, policy) = self.another_generation();
                    Event::Start { to, policy, slots: self.random.between(1, 5) as u32 }
                }
                _ if self.random.percent(50) => Event::Stop { now: self.random.percent(30) },
                _ => Event::Scale { slots: 2 },
            };
            self.plan(at, Coming::Command(Box::new(command)));
        }
        for _ in 0..self.random.between(0, 5) {
            let at = self.random.between(1, TROUBLE_ENDS_MS - 1_000);
            self.plan(at, Coming::MasterDies);
        }
    }

    fn another_generation(&mut self) -> (Generation, Policy) {
        let to = Generation(self.policies.len() as u32 + 1);
        let policy = policy(&mut self.random);
        self.policies.insert(to, policy.clone());
        if self.random.percent(20) {
            self.bad_agents.insert(to);
        }
        if self.random.percent(20) {
            self.bad_befores.insert(to);
        }
        (to, policy)
    }

    fn turn(&mut self) {
        for _ in 0..STEPS_MAX {
            let timer = self.master.as_ref().and_then(App::next_deadline_ms);
            let next = self.coming.keys().next().map(|&(at, _)| at);
            let Some(at) = [timer, next].into_iter().flatten().min() else { return };
            if at > REST_MS {
                return;
            }
            self.now_ms = self.now_ms.max(at);
            if next == Some(at) {
                let (_, what) = self.coming.pop_first().unwrap();
                self.happen(what);
            } else {
                self.with_master(|app, cx| app.advance(cx));
            }
            self.check();
        }
        panic!("the world does not come to rest");
    }

    fn happen(&mut self, what: Coming) {
        match what {
            Coming::ExecDone(worker) => {
                let Some(process) = self.processes.get_mut(&worker) else { return };
                if process.ended.is_some() {
                    return;
                }
                process.running = true;
                let (pid, slot) = (process.pid, process.slot);
                self.tell(Event::Spawned { worker, pid });
                match slot {
                    Slot::AGENT => return self.plan_agent_life(worker),
                    Slot::BEFORE => return self.plan_before_life(worker),
                    Slot(_) => {}
                }
                if self.sabotage == Some(Sabotage::ReadyTooEarly) {
                    let evidence = self.evidence_of(worker);
                    self.tell(Event::Evidence { worker, evidence });
                }
                self.plan_life(worker);
            }
            Coming::ExecFails(worker) => {
                self.processes.remove(&worker);
                self.reaped.insert(worker);
                self.never_ran.insert(worker);
                self.tell(agent::cannot_start(worker));
            }
            Coming::Says(worker, says) => self.say(worker, says),
            Coming::Ends(worker, status) => {
                let now_ms = self.now_ms;
                let Some(process) = self.processes.get_mut(&worker) else { return };
                if process.ended.is_none() && process.running {
                    process.ended = Some((status, now_ms));
                    if process.slot == Slot::BEFORE && status == ExitStatus::Code(0) {
                        self.before_ended.insert(process.generation);
                    }
                    self.deliver_end(worker);
                }
            }
            Coming::HasClients(worker) => self.tell(Event::HasClients { worker }),
            Coming::Holds(worker) => {
                if self.processes.get(&worker).is_some_and(|p| p.ended.is_none()) {
                    self.tell(Event::Drained { worker });
                }
            }
            Coming::Exceeds(worker) => {
                let excess = Excess::Connections { taken: 1 };
                self.over_limit(worker, Coming::Exceeds(worker), Event::Replace { worker, excess });
            }
            Coming::Answers(worker, master) => self.answers(worker, master),
            Coming::IsWarm(worker, master) => self.is_warm(worker, master),
            Coming::Judged(worker, master) => self.canary_judged(worker, master),
            Coming::Hangs(worker) => self.over_limit(worker, Coming::Hangs(worker), Event::Hung { worker }),
            Coming::Command(command) => self.command(*command),
            Coming::MasterDies => {
                // At any point of what it sends next, or at once.
                if self.random.percent(50) {
                    self.dies_after = Some(self.random.between(0, 6) as usize);
                } else {
                    self.master_dies();
                }
            }
            Coming::MasterStarts => self.restore(),
        }
    }

    /// The shell tells once a second what it sees.
    fn over_limit(&mut self, worker: WorkerId, again: Coming, event: Event) {
        if self.processes.get(&worker).is_some_and(|p| p.ended.is_none()) && self.trouble() {
            self.tell(event);
            self.plan(1_000, again);
        }
    }

    fn command(&mut self, command: Event) {
        if self.master.is_none() {
            self.plan(50, Coming::Command(Box::new(command)));
            return;
        }
        match &command {
            Event::Reload { to, .. } => drop(self.reloads_open.insert(*to)),
            Event::Start { to, .. } => {
                self.stopped = false;
                self.starts_open.insert(*to);
            }
            Event::Stop { now } => {
                self.stopped = true;
                self.stopped_now |= now;
            }
            _ => {}
        }
        self.tell(command);
    }

    /// What a process will do of itself.
    fn plan_life(&mut self, worker: WorkerId) {
        let process = &self.processes[&worker];
        let bad = self.bad.contains(&process.generation);
        let trouble = self.trouble();
        let ready_in = self.random.between(5, 400);
        self.plan(1, Coming::Says(worker, Says::Online));
        let crash = |code| Coming::Ends(worker, ExitStatus::Code(code));
        if bad || (trouble && self.random.percent(8)) {
            if self.random.percent(70) {
                self.plan(ready_in, crash(1));
            } else if self.random.percent(50) {
                self.never_well(worker, ready_in);
            } // Else it never listens.
            return;
        }
        self.plan(ready_in, Coming::Says(worker, Says::Listening));
        self.well_after(worker, ready_in);
        let later = self.random.between(0, 20_000);
        if !trouble {
            return;
        }
        if self.random.percent(15) {
            let at = self.random.between(0, 2_000);
            self.plan(ready_in + at, Coming::Exceeds(worker));
        }
        match self.random.between(0, 11) {
            0 | 1 => self.plan(ready_in + later, Coming::Ends(worker, ExitStatus::Signal(9))),
            2 => self.plan(ready_in + later / 20, crash(1)),
            3 => {
                self.plan(ready_in + later, Coming::Says(worker, Says::Leaving));
                self.plan(ready_in + later + 10, Coming::Says(worker, Says::ChannelEnd));
            }
            4 => self.plan(ready_in + later, Coming::Says(worker, Says::Garbage)),
            5 => {
                self.plan(ready_in + later, Coming::Says(worker, Says::Closes));
                if self.random.percent(50) {
                    self.plan(ready_in + later + 500, Coming::Says(worker, Says::Reopens));
                }
            }
            6 => {
                self.plan(ready_in + later, Coming::Says(worker, Says::ChannelEnd));
                if self.random.percent(50) {
                    self.plan(ready_in + later + 20, crash(0));
                }
            }
            8 => self.plan(ready_in + later, Coming::Hangs(worker)),
            7 if self.random.percent(20) => self.plan(ready_in + later, crash(99)),
            _ => {}
        }
    }

    fn say(&mut self, worker: WorkerId, says: Says) {
        let Some(process) = self.processes.get_mut(&worker) else { return };
        if process.ended.is_some() || !process.running {
            return;
        }
        process.listened |= says == Says::Listening;
        if process.slot == Slot::AGENT {
            process.listened = says == Says::Ready || (process.listened && says != Says::Garbage);
        }
        if says == Says::Ready {
            self.agents_ready.insert(process.generation);
        }
        if self.master.is_none() {
            process.waiting.push(says);
            return;
        }
        let event = match says {
            Says::Online => Event::Online { worker },
            Says::Ready => Event::Evidence { worker, evidence: Evidence::Message },
            Says::Listening => Event::Evidence { worker, evidence: Evidence::Listening },
            Says::Closes => Event::ServersClosed { worker },
            Says::Reopens => Event::ServersOpen { worker },
            Says::Leaving => Event::Leaving { worker },
            Says::Garbage => Event::Misbehaved { worker, reason: "garbage".to_owned() },
            Says::ChannelEnd => Event::ChannelClosed { worker },
        };
        self.tell(event);
        if says == Says::Listening {
            self.ask(worker);
        }
    }

    fn tell(&mut self, event: Event) {
        self.with_master(|app, cx| app.handle(cx, event));
    }

    /// A death reaches the master, which takes note of it last.
    fn deliver_end(&mut self, worker: WorkerId) {
        let Some((status, at_ms)) = self.processes.get(&worker).and_then(|p| p.ended) else { return };
        if self.master.is_none() {
            return;
        }
        self.note_loss(worker);
        if self.sabotage != Some(Sabotage::LostExit) || !self.random.percent(10) {
            self.tell(Event::Exited { worker, status, at_ms });
        }
        if self.master.is_some() {
            self.receive(vec![Order::ExitSeen(worker)]);
        }
    }

    /// A loss that is not the supervisor's doing lowers what it has to keep up.
    fn note_loss(&mut self, worker: WorkerId) {
        let serving = self.master.as_ref().and_then(|app| app.worker(worker));
        if serving.is_some_and(|w| matches!(w.phase, Phase::Ready { .. }) && !w.spare) {
            self.floor = self.floor.map(|floor| floor.saturating_sub(1));
        }
    }

    /// One step of the master: its notes first, then what follows from them.
    fn with_master(&mut self, step: impl FnOnce(&mut App, &mut Cx<'_>)) {
        let Some(mut app) = self.master.take() else { return };
        let ready_before = app.serving_count();
        let mut actions = Vec::new();
        let mut cx = Cx { now_ms: self.now_ms, next_worker: &mut self.next_worker, actions: &mut actions };
        step(&mut app, &mut cx);
        self.trace("", &actions);
        self.check_floor(&app, ready_before, &actions);
        let orders = stream(&mut app, actions);
        self.master = Some(app);
        self.receive(orders);
    }

    fn trace(&self, who: &str, actions: &[Action]) {
        if std::env::var_os("SIM_TRACE").is_some() {
            actions.iter().for_each(|action| eprintln!("{:>6} {who}{action:?}", self.now_ms));
        }
    }

    /// The keeper receives the stream, or the part of it that was sent before the master died.
    fn receive(&mut self, orders: Vec<Order>) {
        for order in orders {
            match &mut self.dies_after {
                Some(0) => {
                    self.master_dies();
                    return;
                }
                Some(left) => *left -= 1,
                None => {}
            }
            match order {
                Order::Header(mut header) => {
                    if self.sabotage == Some(Sabotage::LostAgentNote) {
                        header.agent = Default::default();
                    }
                    if self.sabotage == Some(Sabotage::LostBeforeNote) {
                        header.before = Default::default();
                    }
                    self.notes.header = Some(*header);
                }
                Order::Slot(index, Some(slot)) => drop(self.notes.slots.insert(index, slot)),
                Order::Slot(index, None) => drop(self.notes.slots.remove(&index)),
                Order::Worker(..) if self.sabotage == Some(Sabotage::LostNote) => {}
                Order::Worker(id, Some(worker)) => drop(self.notes.workers.insert(id, worker)),
                Order::Worker(id, None) => drop(self.notes.workers.remove(&id)),
                Order::ExitSeen(worker) => self.exit_seen(worker),
                Order::Do(action) => self.act(action),
            }
        }
    }

    fn exit_seen(&mut self, worker: WorkerId) {
        if self.processes.get(&worker).is_some_and(|p| p.ended.is_some()) {
            self.processes.remove(&worker);
            assert!(self.reaped.insert(worker), "worker {worker} was reaped twice");
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Spawn { worker, slot: Slot::AGENT, generation } => self.spawn_agent(worker, generation),
            Action::Spawn { worker, slot: Slot::BEFORE, generation } => self.spawn_before(worker, generation),
            Action::Spawn { worker, slot, generation } => {
                self.check_spawn(worker, generation);
                self.begin_process(worker, slot, generation);
            }
            Action::Drain { worker } => {
                let now_ms = self.now_ms;
                let Some(process) = self.processes.get_mut(&worker) else { return };
                process.drain_began_ms.get_or_insert(now_ms);
                if self.random.percent(50) {
                    self.plan(0, Coming::HasClients(worker));
                }
                let took = self.random.between(0, 2_000);
                match self.random.between(0, 3) {
                    0 | 1 => self.plan(took, Coming::Ends(worker, ExitStatus::Code(0))),
                    2 => self.plan(took, Coming::Holds(worker)),
                    _ => {} // Long-lived connections.
                }
            }
            Action::Terminate { worker } => {
                self.check_terminate(worker);
                let deaf = self.processes.get(&worker).is_some_and(|p| p.deaf);
                if !deaf {
                    let took = self.random.between(0, 30);
                    self.end(worker, took, 15);
                }
            }
            Action::Kill { .. } if self.sabotage == Some(Sabotage::NoKill) => {}
            Action::Abort { worker } => {
                let deaf = self.processes.get(&worker).is_some_and(|p| p.deaf);
                if !deaf {
                    let took = self.random.between(0, 400);
                    self.end(worker, took, 6);
                }
            }
            Action::Kill { worker } => self.end(worker, 0, 9),
            Action::WarmUp { worker } => self.warm_up(worker),
            Action::Serve { worker } => drop(self.served.insert(worker)),
            Action::WatchCanary { .. } => {}
            Action::JudgeCanary { worker } => self.judge_canary(worker),
            Action::Report(report) => self.heard(report),
        }
    }

    fn end(&mut self, worker: WorkerId, in_ms: u64, signal: i32) {
        if let Some(process) = self.processes.get_mut(&worker) {
            // A signal that comes before exec ends the process all the same.
            process.running = true;
            self.plan(in_ms, Coming::Ends(worker, ExitStatus::Signal(signal)));
        }
    }

    fn heard(&mut self, report: Report) {
        match report {
            Report::ReloadDone { to } | Report::ReloadFailed { to, .. } | Report::ReloadSuperseded { to, .. } => {
                let open = self.reloads_open.remove(&to);
                assert!(open || self.deaths_of_master > 0, "reload to {to} ended twice");
            }
            Report::BeforeDone { generation, .. } => {
                assert!(self.before_done.insert(generation), "the command of generation {generation} ended twice");
            }
            Report::Started { to } => {
                let open = self.starts_open.remove(&to);
                assert!(open || self.deaths_of_master > 0, "start of {to} ended twice");
                self.floor = None;
                let living = self.processes.iter().find(|(_, p)| p.ended.is_none() && p.generation != to);
                assert!(living.is_none(), "a start found an old worker alive: {:?}", living.map(|(id, _)| id));
            }
            Report::StartDropped { to } | Report::StartSuperseded { to } => {
                let open = self.starts_open.remove(&to);
                assert!(open || self.deaths_of_master > 0, "start of {to} ended twice");
            }
            _ => {}
        }
    }

    // ---- the master's death and its successor ----

    fn master_dies(&mut self) {
        self.dies_after = None;
        if self.master.take().is_some() {
            self.deaths_of_master += 1;
            self.floor = None;
            let took = self.random.between(5, 60);
            self.plan(took, Coming::MasterStarts);
        }
    }

    fn restore(&mut self) {
        let Some(header) = self.notes.header.clone() else {
            // It died before its first note: nothing runs, and the keeper would have given up.
            let policy = self.policies[&Generation(1)].clone();
            self.master = Some(App::new(Generation(1), policy, 1));
            return self.with_master(|app, cx| app.start(cx));
        };
        self.next_worker += 256;
        let pids: BTreeMap<WorkerId, i32> = self.processes.iter().map(|(&id, p)| (id, p.pid)).collect();
        let mut actions = Vec::new();
        let mut cx = Cx { now_ms: self.now_ms, next_worker: &mut self.next_worker, actions: &mut actions };
        let mut app = App::restore(
            header,
            self.notes.slots.values().cloned().collect(),
            self.notes.workers.values().cloned().collect(),
            self.policies.clone(),
            &|worker| pids.get(&worker).copied(),
            &mut cx,
        );
        let strangers: Vec<WorkerId> = pids.keys().copied().filter(|&id| !agent::knows(&app, id)).collect();
        for stranger in strangers {
            let ended = self.processes[&stranger].ended.is_some();
            assert!(ended, "worker {stranger} lives and is in no note: a successor would end it");
        }
        self.trace("a successor:", &actions);
        let orders = stream(&mut app, actions);
        self.master = Some(app);
        self.receive(orders);
        let ended: Vec<WorkerId> =
            self.processes.iter().filter(|(_, p)| p.ended.is_some()).map(|(&id, _)| id).collect();
        for worker in ended {
            self.deliver_end(worker);
        }
        let waiting: Vec<(WorkerId, Vec<Says>)> =
            self.processes.iter_mut().map(|(&id, p)| (id, std::mem::take(&mut p.waiting))).collect();
        for (worker, said) in waiting {
            for says in said {
                self.say(worker, says);
            }
        }
        self.ask_again();
    }
}
