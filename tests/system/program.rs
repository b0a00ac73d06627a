//! What a simulated worker is to the driver, whatever protocol it speaks, and which program a new process runs.
use crate::intercepted::Binder;
use crate::listen_fds::{ListenFds, Plain};
use crate::manner::Manner;
use crate::node::Node;
use crate::plan::{BAD_RELEASE, Plan};
use crate::world::{Process, State};
use clusterd::keeper::CAN_BE_KEEPER;
use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::os::fd::{OwnedFd, RawFd};

/// The first inherited socket.
const FIRST_FD: RawFd = 3;

/// What a program wants to hear of.
#[derive(Debug, Default)]
pub(crate) struct Wants {
    pub(crate) read: Vec<RawFd>,
    pub(crate) write: Vec<RawFd>,
    /// When it does something by itself.
    pub(crate) at_us: Option<u64>,
}

/// The name of the program that says whether its binary can be the keeper.
pub(crate) const CHECK: &[u8] = b"check";

/// A program that a worker runs. It never blocks.
pub(crate) trait Program: Send {
    fn wants(&self, now_us: u64) -> Wants;

    /// Does what is due. Returns the wait status with which it ends, if it does.
    fn step(&mut self, state: &mut State, pid: i32) -> Option<i32>;

    /// The clients whose connections end with it.
    fn holds(&self) -> Vec<String> {
        Vec::new()
    }

    /// Whether it serves: it has started, and does not leave.
    fn serves(&self) -> bool;
}

/// The wait status of a process that exits with this code.
pub(crate) fn exited(code: u8) -> i32 {
    i32::from(code) << 8
}

/// A variable of a process.
pub(crate) fn variable(process: &Process, name: &str) -> Option<String> {
    let start = format!("{name}=");
    let found = process.env.iter().find_map(|entry| entry.strip_prefix(start.as_bytes()))?;
    Some(String::from_utf8_lossy(found).into_owned())
}

/// The program of a process, by its environment. `None`: what it needs is missing, which is a violation.
pub(crate) fn start(state: &mut State, pid: i32, plan: &Plan) -> Option<Box<dyn Program>> {
    state.counts.workers += 1;
    let mut manner = Manner::any(&mut state.random);
    let now_us = state.now_us;
    let is_over = state.faults.over;
    if state.random.percent(plan.bad_starts_percent) && !is_over {
        manner.fails = Some(3);
    }
    let process = state.processes.get_mut(&pid)?;
    let value = |name: &str| variable(process, name);
    if let Some(behaviour) = value(BAD_RELEASE) {
        manner.is_bad(&behaviour);
    }
    let channel = value("NODE_CHANNEL_FD").and_then(|number| number.parse::<RawFd>().ok());
    let has_preload = value("NODE_OPTIONS").is_some_and(|options| options.contains("--require"));
    let port = value("PORT").and_then(|port| port.parse().ok()).unwrap_or(plan.address.port());
    let (pid_meant, count) = (value("LISTEN_PID"), value("LISTEN_FDS").and_then(|count| count.parse::<RawFd>().ok()));
    let notify = value("NOTIFY_SOCKET").map(OsString::from);
    let path = value("SIM_PATH");
    if let Some(number) = channel {
        let Some(channel) = process.files.remove(&number) else {
            state.violated(format!("worker {pid} has no channel"));
            return None;
        };
        manner.choose_quirk(state, plan, Manner::any_of_node);
        return Some(Box::new(Node::new(manner, (port, path), channel, has_preload, now_us)));
    }
    let is_bound = value("SIM_BIND").and_then(|address| address.parse::<SocketAddr>().ok());
    if let Some(address) = is_bound.filter(|_| process.filter.is_some()) {
        let more = state.random.percent(20).then(|| SocketAddr::new(address.ip(), address.port() + 1));
        let says_ready = plan.must_say_ready || state.random.percent(50);
        manner.choose_quirk(state, plan, Manner::any_of_others);
        let addresses = [address].into_iter().chain(more);
        return Some(Box::new(Binder::new(manner, addresses, notify.filter(|_| says_ready), now_us)));
    }
    let Some(count) = count else {
        manner.choose_quirk(state, plan, Manner::any_of_others);
        return Some(Box::new(Plain::new(&manner, now_us)));
    };
    let copies = (FIRST_FD..FIRST_FD + count).map(|number| process.files.get(&number)?.try_clone().ok());
    let copies: Option<Vec<OwnedFd>> = copies.collect();
    let is_meant = pid_meant.as_deref() == Some(pid.to_string().as_str());
    let (Some(listeners), true) = (copies, is_meant) else {
        state.violated(format!(
            "worker {pid} has not the {count} sockets of LISTEN_FDS, or LISTEN_PID is {pid_meant:?}"
        ));
        return None;
    };
    let says_ready = plan.must_say_ready || state.random.percent(50);
    manner.choose_quirk(state, plan, Manner::any_of_others);
    Some(Box::new(ListenFds::new(manner, listeners, notify.filter(|_| says_ready), now_us)))
}

/// A binary that says whether it can be the keeper.
pub(crate) struct Check {
    ends_us: u64,
}

/// The number of its standard output.
const STDOUT: RawFd = 1;

impl Check {
    pub(crate) fn new(state: &mut State) -> Check {
        // Some take too long.
        let most = if state.random.percent(10) { 9_000_000 } else { 100_000 };
        Check { ends_us: state.now_us + state.random.between(1_000, most) }
    }
}

impl Program for Check {
    fn wants(&self, _now_us: u64) -> Wants {
        Wants { at_us: Some(self.ends_us), ..Wants::default() }
    }

    fn step(&mut self, state: &mut State, pid: i32) -> Option<i32> {
        if self.ends_us > state.now_us {
            return None;
        }
        let can = state.random.percent(80);
        let said =
            if can { format!("{CAN_BE_KEEPER} of version 9") } else { "clusterd keeper: not this one".to_owned() };
        let out = state.processes.get_mut(&pid)?.files.remove(&STDOUT).map(File::from);
        // The keeper may not listen any more.
        let _ = out.map(|mut out| out.write_all(said.as_bytes()));
        Some(exited(u8::from(!can)))
    }

    fn serves(&self) -> bool {
        false
    }
}
