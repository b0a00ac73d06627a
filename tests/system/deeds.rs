//! What is done to a deployment beside kills and stops of processes: its file changes, its sockets are attacked, its keeper dies.
use crate::plan::Plan;
use crate::program;
use crate::world::{SIGKILL, State};
use clusterd::os::{notify, signal};
use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::AsFd;

/// What an attacker sends to a notify socket.
const DATAGRAMS: [&str; 7] = [
    "READY=1",
    "READY=1\nMAINPID=1\nSTATUS=\u{1b}[2J",
    "",
    "\u{0}\u{0}\u{0}",
    "STOPPING=1",
    "FDSTORE=1\nFDNAME=x",
    "READY=1\nREADY=1\nSTATUS=",
];

/// The file of the deployment changes.
pub(crate) fn configure(state: &mut State, plan: &Plan, text: &str) {
    state.tell("plan", &format!("writes the file: {text:?}"));
    if let Some(folder) = &plan.folder {
        folder.write(text);
        state.count("files written");
    }
}

/// Another process sends garbage to each socket whose name it can learn.
pub(crate) fn attack(state: &mut State, count: u64) {
    let addresses = state.processes.values().filter_map(|process| program::variable(process, "NOTIFY_SOCKET"));
    let addresses: BTreeSet<String> = addresses.collect();
    state.tell("plan", &format!("attacks {addresses:?}"));
    let null = File::open("/dev/null").ok();
    for address in addresses {
        for _ in 0..count {
            let mut text = DATAGRAMS[state.random.next() as usize % DATAGRAMS.len()].to_owned();
            if state.random.percent(10) {
                text.push_str(&"x".repeat(state.random.between(1, 20_000) as usize));
            }
            let file = null.as_ref().filter(|_| state.random.percent(30));
            // When its queue is full it takes no more.
            if notify::tell(address.as_ref(), &text, file.map(AsFd::as_fd)).is_ok() {
                state.count("datagrams of an attacker");
            }
        }
    }
}

/// SIGSTOP for the masters.
pub(crate) fn stop_masters(state: &mut State) {
    let masters: Vec<i32> = state.processes.keys().copied().filter(|pid| state.is_master(*pid)).collect();
    for pid in masters {
        state.tell("plan", &format!("stops master {pid} for good"));
        state.signal(pid, signal::STOP);
        state.count("masters stopped");
    }
}

/// SIGKILL for the keeper.
pub(crate) fn kill_keeper(state: &mut State, keeper: i32) {
    state.tell("plan", "kills the keeper");
    state.count("keepers killed");
    state.signal(keeper, SIGKILL);
}
