//! The state of a simulated machine: its clock, its processes, what they have open, and what happened. Files and sockets are real ones of
//! this process; a simulated process holds them, and they close with it. Who runs next is `driver`'s decision.
use crate::check::{Death, Reason};
use crate::commands::Commands;
use crate::faults::{Fate, Faults};
use crate::intercepted::Calls;
use crate::random::Random;
use crate::told;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Lines of the story that are kept.
const STORY_LINES_MAX: usize = 4_000;
/// The pid of the first process. No real process is meant by it.
const PID_FIRST: i32 = 2_000_000;
/// The wall clock of a new world: 2026-03-29, on which clocks go forward in Europe.
const WALL_S: i64 = 1_774_742_400;
/// Memory of a new process.
const MEMORY_BYTES: u64 = 50 * 1024 * 1024;
/// The longest time until a thread has done what it was started for, in microseconds.
const ERRAND_US_MAX: u64 = 50_000;
/// Microseconds that a system call takes.
const CALL_US_MAX: u64 = 4;

pub(crate) const SIGKILL: i32 = libc_signal::KILL;
pub(crate) const SIGTERM: i32 = libc_signal::TERM;

use clusterd::api::CallSender;
use clusterd::os::background::Background;
use clusterd::os::signal as libc_signal;

/// A process of the simulated machine.
pub(crate) struct Process {
    pub(crate) name: String,
    pub(crate) parent: i32,
    pub(crate) group: i32,
    pub(crate) env: Vec<Vec<u8>>,
    pub(crate) files: BTreeMap<RawFd, OwnedFd>,
    /// Signals that were caught and not taken yet.
    pub(crate) caught: VecDeque<libc_signal::Caught>,
    /// Stopped by SIGSTOP.
    pub(crate) stopped: bool,
    /// It ends before it does anything else, with this wait status.
    pub(crate) doomed: Option<i32>,
    /// It has ended and was not reaped.
    pub(crate) ended: Option<i32>,
    /// Is killed when its parent ends.
    pub(crate) dies_with_parent: bool,
    /// Its connections by their inodes, the inodes of its listening sockets, and of those at which it waits.
    pub(crate) connections: BTreeMap<u64, RawFd>,
    pub(crate) listens: BTreeSet<u64>,
    pub(crate) waits_at: BTreeSet<u64>,
    /// CPU time and memory that it has used.
    pub(crate) cpu_us: u64,
    pub(crate) memory_bytes: u64,
    /// What the guard of this process would send on.
    pub(crate) hand: Option<Hand>,
    /// Where the calls go that its filter tells of.
    pub(crate) filter: Option<OwnedFd>,
    /// Device and inode of its binary, where that is clusterd.
    pub(crate) binary: Option<(u64, u64)>,
}

/// What a process that executes another binary leaves to that.
pub(crate) struct Exec {
    pub(crate) args: Vec<Vec<u8>>,
    pub(crate) files: BTreeMap<RawFd, OwnedFd>,
}

/// What a worker did with a connection of a client, by the client's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LetGo {
    /// It gave it back to the master, or refused it.
    Returned,
    /// It left, and closed what rested.
    Closed,
    /// It ended with it.
    Died,
    /// It took it and did not say so: nobody can know whose it is.
    Mute,
}

/// What lies between accept and a hand-off (`clusterd::os::guard`).
pub(crate) struct Hand {
    pub(crate) to: OwnedFd,
    pub(crate) parcel: clusterd::os::guard::Parcel,
    /// A copy of the connection, and its number in the process.
    pub(crate) connection: Option<OwnedFd>,
    pub(crate) held: RawFd,
    pub(crate) receiver: u64,
    pub(crate) number: u64,
}

/// What changes in a world.
pub(crate) struct State {
    pub(crate) now_us: u64,
    /// The wall clock when `now_us` was zero, in seconds since 1970.
    pub(crate) wall_s: i64,
    pub(crate) random: Random,
    pub(crate) processes: BTreeMap<i32, Process>,
    pub(crate) newborn: Vec<Newborn>,
    /// The keeper executes another binary.
    pub(crate) exec: Option<Exec>,
    /// What threads of masters do beside their loops.
    pub(crate) errands: Vec<Errand>,
    pub(crate) loops: Vec<Loop>,
    /// What masters serve the control API with.
    pub(crate) controls: BTreeMap<i32, (UnixListener, CallSender)>,
    /// Calls of bind(2) and listen(2).
    pub(crate) intercepted: Calls,
    /// Commands of clients.
    pub(crate) commands: Commands,
    pub(crate) faults: Faults,
    /// System calls of keeper and masters.
    pub(crate) calls: u64,
    /// What happens is printed as it happens; every system call is told.
    is_traced: bool,
    tells_calls: bool,
    story: VecDeque<String>,
    /// What must not be, and was seen.
    pub(crate) violations: Vec<String>,
    /// Processes that were killed.
    pub(crate) deaths: Vec<Death>,
    pub(crate) counts: Counts,
    /// What workers did with connections, by the addresses of the clients.
    pub(crate) let_go: BTreeMap<String, LetGo>,
    /// When the deployment was told to stop.
    pub(crate) stopped_us: Option<u64>,
    /// Who read each request.
    pub(crate) reads: BTreeMap<String, Vec<i32>>,
    loops_so_far: u64,
    next_pid: i32,
    /// Pids whose processes the keeper has reaped.
    pub(crate) reaped: BTreeSet<i32>,
}

/// What there was of everything: a world in which nothing happens proves nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) masters: u64,
    pub(crate) workers: u64,
    pub(crate) served: u64,
    pub(crate) cut: u64,
    pub(crate) closed: u64,
    pub(crate) moved: u64,
    pub(crate) answers: u64,
    pub(crate) reasons: BTreeMap<Reason, u64>,
    /// What else happened, and how often.
    pub(crate) happened: BTreeMap<&'static str, u64>,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.masters += other.masters;
        self.workers += other.workers;
        self.served += other.served;
        self.cut += other.cut;
        self.closed += other.closed;
        self.moved += other.moved;
        self.answers += other.answers;
        for (reason, count) in other.reasons {
            *self.reasons.entry(reason).or_default() += count;
        }
        for (what, count) in other.happened {
            *self.happened.entry(what).or_default() += count;
        }
    }
}

/// Work that a master gave to a thread: it is done as a whole, some time later.
pub(crate) struct Errand {
    pub(crate) pid: i32,
    pub(crate) at_us: u64,
    pub(crate) work: Box<dyn FnOnce() + Send>,
}

/// A loop that a master has run beside its own. It is taken out while it has its turn.
pub(crate) struct Loop {
    pub(crate) pid: i32,
    pub(crate) number: u64,
    pub(crate) work: Option<Box<dyn Background>>,
}

/// A process that was forked and has not run yet.
pub(crate) struct Newborn {
    pub(crate) pid: i32,
    pub(crate) program: Vec<u8>,
    pub(crate) args: Vec<Vec<u8>>,
    /// Written to when the program cannot be executed, closed when it is.
    pub(crate) report: OwnedFd,
}

/// A simulated machine; its threads share it.
#[derive(Clone)]
pub(crate) struct World(Arc<Mutex<State>>);

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("World")
    }
}

impl World {
    pub(crate) fn new(seed: u64, faults: Faults) -> World {
        World(Arc::new(Mutex::new(State {
            now_us: 1_000_000_000,
            wall_s: WALL_S,
            random: Random::new(seed),
            processes: BTreeMap::new(),
            newborn: Vec::new(),
            exec: None,
            errands: Vec::new(),
            loops: Vec::new(),
            controls: BTreeMap::new(),
            intercepted: Calls::default(),
            commands: Commands::default(),
            loops_so_far: 0,
            faults,
            calls: 0,
            is_traced: std::env::var_os("SYSTEM_TRACE").is_some(),
            tells_calls: std::env::var_os("SYSTEM_CALLS").is_some(),
            story: VecDeque::new(),
            violations: Vec::new(),
            deaths: Vec::new(),
            counts: Counts::default(),
            let_go: BTreeMap::new(),
            stopped_us: None,
            reads: BTreeMap::new(),
            next_pid: PID_FIRST,
            reaped: BTreeSet::new(),
        })))
    }

    /// One thread runs at a time, so nobody waits here. A killed process may have left the lock poisoned: its state is whole.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn now_us(&self) -> u64 {
        self.state().now_us
    }

    pub(crate) fn tell(&self, who: &str, what: &str) {
        self.state().tell(who, what);
    }
}

impl State {
    pub(crate) fn tell(&mut self, who: &str, what: &str) {
        if who.starts_with("master") || who == "keeper" {
            told::name(what).into_iter().for_each(|name| self.count(name));
            if told::is_wrong(what) {
                self.violations.push(format!("{who} says: {what}"));
            }
        }
        let at = self.now_us - 1_000_000_000;
        let line = format!("{:>6}.{:06} {who}: {what}", at / 1_000_000, at % 1_000_000);
        if self.is_traced {
            println!("{line}");
        }
        if self.story.len() == STORY_LINES_MAX {
            self.story.pop_front();
        }
        self.story.push_back(line);
    }

    /// What happened, as far as it is kept.
    pub(crate) fn story(&self) -> impl Iterator<Item = &String> {
        self.story.iter()
    }

    pub(crate) fn violated(&mut self, what: String) {
        self.tell("VIOLATION", &what);
        self.violations.push(what);
    }

    pub(crate) fn count(&mut self, what: &'static str) {
        *self.counts.happened.entry(what).or_default() += 1;
    }

    /// A worker has let go of a client's connection.
    pub(crate) fn let_go(&mut self, client: Option<String>, how: LetGo) {
        let Some(client) = client else { return };
        let known = self.let_go.entry(client).or_insert(how);
        *known = how.max(*known);
    }

    /// A worker has used this time and memory for a request.
    pub(crate) fn works(&mut self, pid: i32, cpu_us: u64, bytes: u64) {
        if let Some(process) = self.processes.get_mut(&pid) {
            process.cpu_us += cpu_us;
            process.memory_bytes += bytes;
        }
    }

    /// Whoever signals a pid that it has reaped may hit somebody else.
    pub(crate) fn check_is_ours(&mut self, pid: i32, signal: i32) {
        if self.reaped.contains(&pid) {
            self.violated(format!("the keeper sends signal {signal} to pid {pid}, which it has reaped"));
        }
    }

    /// How many of these bytes a read or a write takes.
    pub(crate) fn part(&mut self, bytes: usize) -> usize {
        self.faults.part(&mut self.random, bytes)
    }

    /// A master gives work to a thread.
    pub(crate) fn add_errand(&mut self, pid: i32, work: Box<dyn FnOnce() + Send>) {
        let at_us = self.now_us + self.random.between(0, ERRAND_US_MAX);
        self.errands.push(Errand { pid, at_us, work });
    }

    pub(crate) fn add_loop(&mut self, pid: i32, work: Box<dyn Background>) {
        self.loops_so_far += 1;
        self.loops.push(Loop { pid, number: self.loops_so_far, work: Some(work) });
    }

    /// A new process, which runs nothing yet.
    pub(crate) fn add_process(&mut self, name: &str, parent: i32) -> i32 {
        let pid = self.next_pid;
        self.next_pid += 1;
        let process = Process {
            name: name.to_owned(),
            parent,
            group: pid,
            env: Vec::new(),
            files: BTreeMap::new(),
            caught: VecDeque::new(),
            stopped: false,
            doomed: None,
            ended: None,
            dies_with_parent: true,
            connections: BTreeMap::new(),
            listens: BTreeSet::new(),
            waits_at: BTreeSet::new(),
            cpu_us: 0,
            memory_bytes: MEMORY_BYTES,
            hand: None,
            binary: None,
            filter: None,
        };
        self.processes.insert(pid, process);
        pid
    }

    /// One system call of a process: takes time, and may be its last.
    pub(crate) fn call(&mut self, pid: i32, name: &'static str) -> Fate {
        self.calls += 1;
        self.now_us += self.random.between(1, CALL_US_MAX);
        if self.tells_calls {
            self.tell(&format!("pid {pid}"), name);
        }
        if self.processes.get(&pid).is_none_or(|process| process.doomed.is_some()) {
            return Fate::Killed;
        }
        let is_master = self.is_master(pid);
        let fate = self.faults.next(&mut self.random, self.now_us, is_master, name);
        match fate {
            Fate::Killed => {
                self.tell(&format!("pid {pid}"), &format!("is killed at its call of {name}"));
                self.doom(pid, SIGKILL);
            }
            Fate::Fails(errno) => self.tell(&format!("pid {pid}"), &format!("{name} fails with errno {errno}")),
            Fate::Passes | Fate::Pauses => {}
        }
        fate
    }

    pub(crate) fn is_master(&self, pid: i32) -> bool {
        self.processes.get(&pid).is_some_and(|process| process.name.contains("master"))
    }

    pub(crate) fn doom(&mut self, pid: i32, status: i32) {
        if let Some(process) = self.processes.get_mut(&pid)
            && process.ended.is_none()
            && process.doomed.is_none()
        {
            process.doomed = Some(status);
        }
    }

    /// A process has ended: its files close, its children lose their parent, its parent hears of it.
    pub(crate) fn ended(&mut self, pid: i32, status: i32) {
        let Some(process) = self.processes.get_mut(&pid) else { return };
        if process.ended.is_some() {
            return;
        }
        process.ended = Some(status);
        let is_master = process.name.contains("master");
        if status == SIGKILL || (status != 0 && !is_master) {
            let in_need = self.faults.scarcity.is_some();
            let guarded = process.hand.is_some();
            self.deaths.push(Death { at_us: self.now_us, pid, is_master, in_need, guarded });
        }
        process.files.clear();
        process.filter = None;
        self.intercepted.forget(pid);
        // Its threads end with it.
        self.errands.retain(|errand| errand.pid != pid);
        self.loops.retain(|beside| beside.pid != pid);
        self.controls.remove(&pid);
        let hand = process.hand.take();
        let (parent, name) = (process.parent, process.name.clone());
        self.tell(&format!("pid {pid}"), &format!("({name}) has ended with status {status}"));
        if let Some(hand) = hand {
            send_on(hand);
        }
        let children: Vec<i32> =
            self.processes.iter().filter(|(_, child)| child.parent == pid).map(|(pid, _)| *pid).collect();
        for child in children {
            if self.processes[&child].dies_with_parent {
                self.doom(child, SIGKILL);
            }
            if let Some(child) = self.processes.get_mut(&child) {
                child.parent = 1;
            }
        }
        if parent == 1 {
            self.processes.remove(&pid);
        } else if let Some(parent) = self.processes.get_mut(&parent) {
            parent.caught.push_back(libc_signal::Caught { signal: libc_signal::CHLD, value: None });
        }
        self.processes.retain(|_, process| process.parent != 1 || process.ended.is_none());
    }

    /// kill(2). `false`: there is no such process.
    pub(crate) fn signal(&mut self, pid: i32, signal: i32) -> bool {
        let Some(process) = self.processes.get_mut(&pid) else { return false };
        if process.ended.is_some() || signal == 0 {
            return true;
        }
        match signal {
            libc_signal::KILL => self.doom(pid, SIGKILL),
            libc_signal::STOP => process.stopped = true,
            libc_signal::CONT => process.stopped = false,
            _ => process.caught.push_back(libc_signal::Caught { signal, value: None }),
        }
        true
    }

    /// kill(2) of a group. `false`: there is none.
    pub(crate) fn signal_group(&mut self, leader: i32, signal: i32) -> bool {
        let members: Vec<i32> = self.processes.iter().filter(|(_, p)| p.group == leader).map(|(pid, _)| *pid).collect();
        let any = !members.is_empty();
        for pid in members {
            self.signal(pid, signal);
        }
        any
    }
}

/// What the guard of a killed process does.
fn send_on(hand: Hand) {
    let Some(connection) = hand.connection else { return };
    let mut bytes = hand.parcel.bytes;
    for (at, number) in [(hand.parcel.receiver_at, hand.receiver), (hand.parcel.number_at, hand.number)] {
        let digits = clusterd::os::guard::Parcel::DIGITS;
        bytes[at..][..digits].copy_from_slice(format!("{number:0digits$}").as_bytes());
    }
    // If nobody is there to take it, the connection is closed.
    let _ = clusterd::os::packet::send(hand.to.as_fd(), &bytes, &[connection.as_fd()]);
}
