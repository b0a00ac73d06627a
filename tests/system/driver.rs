//! Decides who runs next: one process, client or event of the plan at a time, chosen by the seed among those that can. When nobody
//! can, the clock goes on to the next date.
use crate::actor::{self, Actor, Me, Until};
use crate::check;
use crate::client::{Client, Fortune};
use crate::commands;
use crate::deeds;
use crate::errors::Lack;
use crate::faults::Scarcity;
use crate::keeper::KeeperSystem;
use crate::master::MasterSystem;
use crate::plan::{Deed, Plan};
use crate::program::{self, Program};
use crate::told;
use crate::world::{Exec, LetGo, Newborn, State, World};
use clusterd::os::background::Wait;
use clusterd::os::{process, signal};
use clusterd::{cli, keeper, master};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;

/// The name of the first client of a burst.
const BURST_NAMES_FIRST: u64 = 100_000;
/// Turns of one world. A world that needs more turns in circles.
const TURNS_MAX: u64 = 400_000;
/// What is left when the keeper was killed ends within this time.
const ORPHANS_US_MAX: u64 = 3_000_000;
/// Calls in a hundred that fail at the most, where any call may.
const ANY_ERROR_PERCENT_MAX: u64 = 8;
/// Simulated seconds that a stop may take.
const STOP_US_MAX: u64 = 120_000_000;

/// Who can have the next turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Thread(i32),
    Worker(i32),
    Client(usize),
    /// Work of a thread of a master, by its place.
    Errand(usize),
    /// A loop beside a master's, by its number.
    Loop(u64),
    Deed,
}

pub(crate) struct Driver {
    world: World,
    plan: Plan,
    threads: BTreeMap<i32, Actor>,
    workers: BTreeMap<i32, Box<dyn Program>>,
    clients: Vec<Client>,
    keeper: i32,
    next_deed: usize,
    /// Clients of bursts so far.
    bursts: u64,
    pub(crate) turns: u64,
    /// The keeper's exit code, once it has ended; `None` in it: killed.
    pub(crate) ended: Option<Option<u8>>,
}

impl Driver {
    pub(crate) fn new(world: World, plan: Plan) -> Driver {
        plan.folder.iter().for_each(|folder| folder.begin());
        let keeper = world.state().add_process("clusterd", 1);
        let args: Vec<OsString> = plan.args.iter().map(OsString::from).collect();
        let shared = world.clone();
        let started = Actor::start("keeper", move |baton| {
            let system = KeeperSystem::new(Me::new(shared, keeper, baton));
            keeper::run_on(system, keeper::Launch { args }).unwrap_or(1)
        });
        let mut threads = BTreeMap::new();
        match started {
            Ok(actor) => drop(threads.insert(keeper, actor)),
            Err(error) => world.state().violated(format!("no thread: {error}")),
        }
        let clients = plan.clients.iter().map(|order| order.client()).collect();
        let (next_deed, turns) = (0, 0);
        Driver {
            world,
            plan,
            threads,
            workers: BTreeMap::new(),
            clients,
            keeper,
            next_deed,
            bursts: 0,
            turns,
            ended: None,
        }
    }

    /// Lives through the plan. What must not be is in the violations of the world.
    pub(crate) fn run(&mut self) {
        let mut last = None;
        while !self.is_over() {
            self.turns += 1;
            if self.turns > TURNS_MAX {
                self.world.state().violated(format!("not over after {TURNS_MAX} turns; the last was of {last:?}"));
                break;
            }
            self.bury();
            self.give_birth();
            let able = self.able();
            if able.is_empty() {
                if !self.let_time_pass() {
                    self.world.state().violated("nobody can do anything any more".to_owned());
                    break;
                }
                continue;
            }
            let chosen = self.world.state().random.next() as usize % able.len();
            last = Some(able[chosen]);
            self.turn_of(able[chosen]);
            commands::take_answers(&mut self.world.state());
        }
        self.end();
    }

    /// A keeper that was killed ends everything else with it, a moment later.
    fn is_over(&self) -> bool {
        let state = self.world.state();
        let is_empty = || state.processes.values().all(|process| process.ended.is_some());
        let is_late =
            || state.deaths.iter().any(|death| death.pid == self.keeper && death.at_us + ORPHANS_US_MAX < state.now_us);
        self.ended.is_some() && (self.ended != Some(None) || is_empty() || is_late())
    }

    /// Processes that were killed end.
    fn bury(&mut self) {
        loop {
            let next = self.world.state().processes.iter().find_map(|(pid, process)| {
                process.ended.is_none().then_some(())?;
                Some((*pid, process.doomed?))
            });
            let Some((pid, status)) = next else { return };
            if let Some(mut actor) = self.threads.remove(&pid) {
                // Its next call is its last.
                actor.turn();
                let until = actor.until.clone();
                if !matches!(until, Until::Ended(_)) {
                    self.world.state().violated(format!("pid {pid} was killed and goes on: {until:?}"));
                }
            }
            self.drop_worker(pid);
            self.world.state().ended(pid, status);
            if pid == self.keeper {
                self.ended = Some(None);
            }
        }
    }

    /// Processes that were forked run their programs.
    fn give_birth(&mut self) {
        loop {
            let newborn = self.world.state().newborn.pop();
            let Some(Newborn { pid, program, args, report }) = newborn else { return };
            // It may have been killed before it ran anything.
            if self.world.state().processes.get(&pid).is_none_or(|process| process.ended.is_some()) {
                continue;
            }
            if program == program::CHECK {
                let check = program::Check::new(&mut self.world.state());
                self.workers.insert(pid, Box::new(check));
            } else if program == b"clusterd" {
                self.start_master(pid, args);
            } else {
                self.start_worker(pid);
            }
            drop(report);
        }
    }

    fn start_master(&mut self, pid: i32, args: Vec<Vec<u8>>) {
        let broken = std::fs::File::open(commands::BROKEN_BINARY).ok();
        let broken = broken.and_then(|file| process::file_identity(file.as_fd()).ok());
        let binary = self.world.state().processes.get(&pid).and_then(|own| own.binary);
        if broken.is_some() && broken == binary {
            return self.world.state().ended(pid, program::exited(1));
        }
        self.world.state().counts.masters += 1;
        let argv: Vec<OsString> = args.into_iter().map(OsString::from_vec).collect();
        let world = self.world.clone();
        let started = Actor::start("master", move |baton| {
            let system = MasterSystem::new(Me::new(world, pid, baton));
            let typed = master::CommandLine { argv, read: cli::command_line::read_run };
            match master::run_on(system, typed) == std::process::ExitCode::SUCCESS {
                true => 0,
                false => 1,
            }
        });
        match started {
            Ok(actor) => drop(self.threads.insert(pid, actor)),
            Err(error) => self.world.state().violated(format!("no thread: {error}")),
        }
    }

    fn start_worker(&mut self, pid: i32) {
        let mut state = self.world.state();
        if let Some(program) = program::start(&mut state, pid, &self.plan) {
            self.workers.insert(pid, program);
        }
    }

    /// The program of a process is gone, and with it its connections.
    fn drop_worker(&mut self, pid: i32) {
        if let Some(program) = self.workers.remove(&pid) {
            let mut state = self.world.state();
            program.holds().into_iter().for_each(|client| state.let_go(Some(client), LetGo::Died));
        }
    }

    /// Who can run now.
    fn able(&self) -> Vec<Who> {
        let state = self.world.state();
        let now_us = state.now_us;
        let is_due = |at_us: Option<u64>| at_us.is_some_and(|at_us| at_us <= now_us);
        let mut able = Vec::new();
        let mut watched: Vec<(Who, RawFd, bool)> = Vec::new();
        for (pid, process) in &state.processes {
            if process.stopped || process.ended.is_some() {
                continue;
            }
            let (has_signal, who) = (!process.caught.is_empty(), Who::Thread(*pid));
            if let Some(actor) = self.threads.get(pid) {
                match &actor.until {
                    Until::Later => able.push(who),
                    Until::Ready { at_us, .. } if has_signal || is_due(*at_us) => able.push(who),
                    Until::Ready { read, write, .. } => {
                        watched.extend(read.iter().map(|fd| (who, *fd, false)));
                        watched.extend(write.iter().map(|fd| (who, *fd, true)));
                    }
                    Until::Ended(_) | Until::Executed | Until::Panicked(_) => {}
                }
            } else if let Some(program) = self.workers.get(pid) {
                let (wants, who) = (program.wants(now_us), Who::Worker(*pid));
                if has_signal || is_due(wants.at_us) {
                    able.push(who);
                } else {
                    watched.extend(wants.read.iter().map(|fd| (who, *fd, false)));
                    watched.extend(wants.write.iter().map(|fd| (who, *fd, true)));
                }
            }
        }
        for (n, client) in self.clients.iter().enumerate() {
            if is_due(client.due_us()) {
                able.push(Who::Client(n));
            } else if client.fortune == Fortune::Waits
                && let Some(fd) = client.reads()
            {
                watched.push((Who::Client(n), fd, false));
            }
        }
        for (n, errand) in state.errands.iter().enumerate() {
            if is_due(Some(errand.at_us)) && is_going(&state, errand.pid) {
                able.push(Who::Errand(n));
            }
        }
        for beside in state.loops.iter().filter(|beside| is_going(&state, beside.pid)) {
            let files = beside.work.iter().flat_map(|work| work.files());
            watched.extend(files.map(|file| (Who::Loop(beside.number), file.as_raw_fd(), false)));
        }
        if is_due(self.plan.deeds.get(self.next_deed).map(|(at_us, _)| *at_us)) {
            able.push(Who::Deed);
        }
        drop(state);
        for who in ready(&watched) {
            if !able.contains(&who) {
                able.push(who);
            }
        }
        able
    }

    /// Goes on to the next date. `false`: there is none.
    fn let_time_pass(&mut self) -> bool {
        let mut state = self.world.state();
        let mut dates: Vec<u64> = self.clients.iter().filter_map(Client::due_us).collect();
        dates.extend(self.plan.deeds.get(self.next_deed).map(|(at_us, _)| *at_us));
        dates.extend(state.errands.iter().filter(|errand| is_going(&state, errand.pid)).map(|errand| errand.at_us));
        for (pid, actor) in &self.threads {
            if let Until::Ready { at_us: Some(at_us), .. } = &actor.until
                && state.processes.get(pid).is_some_and(|process| !process.stopped)
            {
                dates.push(*at_us);
            }
        }
        for (pid, program) in &self.workers {
            if state.processes.get(pid).is_some_and(|process| !process.stopped) {
                dates.extend(program.wants(state.now_us).at_us);
            }
        }
        let Some(next) = dates.into_iter().min() else { return false };
        state.now_us = state.now_us.max(next);
        true
    }

    fn turn_of(&mut self, who: Who) {
        match who {
            Who::Thread(pid) => self.turn_of_thread(pid),
            Who::Worker(pid) => {
                let Some(program) = self.workers.get_mut(&pid) else { return };
                let mut state = self.world.state();
                let end = program.step(&mut state, pid);
                if let Some(status) = end {
                    drop(state);
                    self.drop_worker(pid);
                    self.world.state().ended(pid, status);
                }
            }
            Who::Client(n) => self.clients[n].step(&mut self.world.state()),
            Who::Errand(n) => {
                let errand = self.world.state().errands.remove(n);
                // What it logs locks the state.
                actor::speaking_for(&self.world, errand.pid, errand.work);
            }
            Who::Loop(number) => self.turn_of_loop(number),
            Who::Deed => {
                if let Some((_, deed)) = self.plan.deeds.get(self.next_deed).cloned() {
                    self.next_deed += 1;
                    self.do_deed(&deed);
                }
            }
        }
    }

    fn turn_of_loop(&mut self, number: u64) {
        let place = |state: &State| state.loops.iter().position(|beside| beside.number == number);
        let mut state = self.world.state();
        let Some(at) = place(&state) else { return };
        let (pid, Some(mut work)) = (state.loops[at].pid, state.loops[at].work.take()) else { return };
        drop(state);
        let goes_on = actor::speaking_for(&self.world, pid, || work.turn(Wait::No));
        let mut state = self.world.state();
        if let Some(at) = place(&state) {
            match goes_on {
                true => state.loops[at].work = Some(work),
                false => drop(state.loops.remove(at)),
            }
        }
    }

    fn turn_of_thread(&mut self, pid: i32) {
        let Some(actor) = self.threads.get_mut(&pid) else { return };
        actor.turn();
        let status = match &actor.until {
            Until::Later | Until::Ready { .. } => return,
            Until::Executed => return self.execute(pid),
            Until::Ended(Some(code)) => i32::from(*code) << 8,
            Until::Ended(None) => crate::world::SIGKILL,
            Until::Panicked(text) => {
                let text = format!("pid {pid} panicked: {text}");
                self.world.state().violated(text);
                101 << 8
            }
        };
        let code = match &actor.until {
            Until::Ended(code) => *code,
            _ => Some(101),
        };
        self.threads.remove(&pid);
        self.world.state().ended(pid, status);
        if pid == self.keeper {
            self.ended = Some(code);
        }
    }

    /// The keeper goes on as another binary.
    fn execute(&mut self, pid: i32) {
        self.threads.remove(&pid);
        let Some(Exec { args, files }) = self.world.state().exec.take() else { return };
        let files = files.into_iter().filter_map(|(number, file)| Some((number, under(number, file)?))).collect();
        let args: Vec<OsString> = args.into_iter().skip(1).map(OsString::from_vec).collect();
        let world = self.world.clone();
        let started = Actor::start("keeper", move |baton| {
            let system = KeeperSystem::new(Me::new(world, pid, baton)).with_inherited(files);
            u8::from(keeper::resume_on(system, args) != std::process::ExitCode::SUCCESS)
        });
        match started {
            Ok(actor) => drop(self.threads.insert(pid, actor)),
            Err(error) => self.world.state().violated(format!("no thread: {error}")),
        }
    }

    fn do_deed(&mut self, deed: &Deed) {
        let world = self.world.clone();
        let mut state = world.state();
        match deed {
            Deed::KillMaster => {
                let masters: Vec<i32> = self.threads.keys().copied().filter(|pid| *pid != self.keeper).collect();
                for pid in masters {
                    state.tell("plan", &format!("kills master {pid}"));
                    state.signal(pid, crate::world::SIGKILL);
                }
            }
            Deed::KillMasterAfter(calls) => state.faults.kill_master_after = Some(*calls),
            Deed::KillWorker(nth) => {
                let pids: Vec<i32> = self.workers.keys().copied().collect();
                if let Some(pid) = pids.get(nth % pids.len().max(1)).copied() {
                    state.tell("plan", &format!("kills worker {pid}"));
                    state.signal(pid, crate::world::SIGKILL);
                }
            }
            Deed::StopWorker(nth) => {
                let pids: Vec<i32> = self.workers.keys().copied().collect();
                if let Some(pid) = pids.get(nth % pids.len().max(1)).copied() {
                    state.tell("plan", &format!("stops worker {pid} for a while"));
                    state.signal(pid, signal::STOP);
                    state.count(told::STOPPED);
                    let at_us = state.now_us + state.random.between(1_000, 15_000_000);
                    self.insert_deed(at_us, Deed::ContinueWorker(pid));
                }
            }
            Deed::ContinueWorker(pid) => {
                state.tell("plan", &format!("lets {pid} go on"));
                state.signal(*pid, signal::CONT);
            }
            Deed::Lack(lack, length_us) => {
                let most = if *lack == Lack::Anything { ANY_ERROR_PERCENT_MAX } else { 100 };
                let (end_us, percent) = (state.now_us + length_us, state.random.between(1, most));
                state.tell("plan", &format!("{percent} % of calls lack {lack:?} for {} ms", length_us / 1_000));
                state.faults.scarcity = Some(Scarcity { lack: *lack, end_us, percent });
            }
            Deed::Burst(count) => {
                state.tell("plan", &format!("{count} clients come at once"));
                for _ in 0..*count {
                    // Above the names of the plan, whatever was left out of it.
                    let name = BURST_NAMES_FIRST + self.bursts;
                    self.bursts += 1;
                    self.clients.push(Client::new(name, state.now_us, self.plan.target.clone(), 1, 0));
                }
            }
            Deed::Configure(text) => deeds::configure(&mut state, &self.plan, text),
            Deed::Attack(count) => deeds::attack(&mut state, *count),
            Deed::Command(command) => commands::give(&mut state, command),
            Deed::StopMaster => deeds::stop_masters(&mut state),
            Deed::PauseMaster(us) => {
                let masters: Vec<i32> = self.threads.keys().copied().filter(|pid| *pid != self.keeper).collect();
                self.pause(&mut state, &masters, *us);
            }
            Deed::PauseKeeper(us) => self.pause(&mut state, &[self.keeper], *us),
            Deed::SetClock(seconds) => {
                state.tell("plan", &format!("sets the wall clock by {seconds} s"));
                state.wall_s += seconds;
                state.count("clocks set");
            }
            Deed::KillKeeper => deeds::kill_keeper(&mut state, self.keeper),
            Deed::Signal(signal) => {
                state.tell("plan", &format!("sends signal {signal} to the keeper"));
                state.signal(self.keeper, *signal);
            }
            Deed::Calm => {
                state.tell("plan", "no faults from now on");
                state.faults.over = true;
            }
            Deed::Stop => {
                state.tell("plan", "stops the deployment");
                state.stopped_us = Some(state.now_us);
                state.faults.over = true;
                let serving = self.workers.values().filter(|program| program.serves()).count();
                let (least, most) = self.plan.workers_at_end;
                if !(least..=most).contains(&serving) && !self.plan.kills_keeper && !self.plan.stops_early {
                    state.violated(format!("{serving} workers serve at the end, and not {least} to {most}"));
                }
                state.signal(self.keeper, self.plan.stop_signal);
                let end_us = state.now_us + STOP_US_MAX;
                self.plan.deeds.push((end_us, Deed::GiveUp));
            }
            Deed::GiveUp => {
                state.violated(format!("the stop takes longer than {} s", STOP_US_MAX / 1_000_000));
                drop(state);
                self.ended = Some(Some(255));
            }
        }
    }

    /// SIGSTOP for these processes, and SIGCONT some time later.
    fn pause(&mut self, state: &mut State, pids: &[i32], us: u64) {
        for pid in pids {
            state.tell("plan", &format!("stops {pid} for {} ms", us / 1_000));
            state.signal(*pid, signal::STOP);
            state.count("masters and keepers stopped for a while");
            self.insert_deed(state.now_us + us, Deed::ContinueWorker(*pid));
        }
    }

    fn insert_deed(&mut self, at_us: u64, deed: Deed) {
        let place = self.plan.deeds.partition_point(|(at, _)| *at <= at_us).max(self.next_deed);
        self.plan.deeds.insert(place, (at_us, deed));
    }

    /// Looks at what is left.
    fn end(&mut self) {
        for actor in self.threads.values_mut() {
            // What is left of the world ends with it.
            actor.stop();
        }
        let mut state = self.world.state();
        // Their connections have ended with the world.
        self.clients.iter_mut().for_each(|client| client.step(&mut state));
        let code = if self.plan.kills_keeper { None } else { Some(0) };
        commands::check_ended(&mut state);
        check::processes(&mut state, self.ended, code);
        if !self.plan.kills_keeper {
            check::clients(&mut state, &self.clients);
        }
    }
}

/// Whether a process runs, and is not stopped.
fn is_going(state: &State, pid: i32) -> bool {
    state.processes.get(&pid).is_some_and(|process| !process.stopped && process.ended.is_none())
}

/// The file under this number, which nobody has any more. `None`: somebody has it, which no world expects.
fn under(number: RawFd, file: OwnedFd) -> Option<OwnedFd> {
    if file.as_raw_fd() == number {
        return Some(file);
    }
    // SAFETY: touches no memory; the new fd is ours.
    let copy = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_DUPFD_CLOEXEC, number) };
    // SAFETY: as above.
    let copy = (copy >= 0).then(|| unsafe { OwnedFd::from_raw_fd(copy) })?;
    (copy.as_raw_fd() == number).then_some(copy)
}

/// Those of which a file is ready. Nothing runs meanwhile that could close one.
fn ready(watched: &[(Who, RawFd, bool)]) -> Vec<Who> {
    let polled = |(_, fd, write): &(Who, RawFd, bool)| {
        let events = if *write { libc::POLLOUT } else { libc::POLLIN };
        libc::pollfd { fd: *fd, events, revents: 0 }
    };
    let mut fds: Vec<libc::pollfd> = watched.iter().map(polled).collect();
    let count = libc::nfds_t::try_from(fds.len()).unwrap_or(0);
    // SAFETY: the array has that many entries and lives through the call.
    if unsafe { libc::poll(fds.as_mut_ptr(), count, 0) } < 0 {
        return Vec::new();
    }
    let mut found: Vec<Who> =
        watched.iter().zip(&fds).filter(|(_, fd)| fd.revents != 0).map(|((who, ..), _)| *who).collect();
    found.dedup();
    found
}
