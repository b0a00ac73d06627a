//! Simulated programs without a channel: those that take sockets from fd 3 up (`LISTEN_FDS`), and those without any.
use crate::manner::{Manner, Quirk};
use crate::program::{Program, Wants, exited};
use crate::server::Server;
use crate::world::{SIGTERM, State};
use clusterd::os::notify;
use std::ffi::OsString;
use std::os::fd::{AsRawFd, OwnedFd};

/// Who leaves closes a connection without a request after this time, in microseconds.
const FRESH_US: u64 = 5_000_000;
/// Pause between two tries to say READY=1, in microseconds.
const AGAIN_US: u64 = 1_000;
/// The line of a datagram by which the simulated kernel names its sender.
const SENDER: &str = "SIMULATED_PID=";

#[derive(PartialEq)]
enum Phase {
    Starting { at_us: u64 },
    Serving,
    Leaving,
}

/// A program with inherited sockets.
pub(crate) struct ListenFds {
    manner: Manner,
    phase: Phase,
    listeners: Vec<OwnedFd>,
    /// Where it says READY=1.
    notify: Option<OsString>,
    server: Server,
    /// When it ends by itself.
    dies_us: Option<u64>,
    /// When it tries again to say that it is ready.
    again_us: Option<u64>,
}

impl ListenFds {
    pub(crate) fn new(manner: Manner, listeners: Vec<OwnedFd>, notify: Option<OsString>, now_us: u64) -> ListenFds {
        let phase = Phase::Starting { at_us: now_us + manner.start_us };
        let server = Server { answer_us: manner.answer_us, leak_bytes: manner.leak_bytes, ..Server::default() };
        let dies_us = match manner.quirk {
            Quirk::DiesAfter(us) => Some(now_us + us),
            _ => None,
        };
        ListenFds { manner, phase, listeners, notify, server, dies_us, again_us: None }
    }

    fn rest_us(&self) -> Option<u64> {
        (self.phase == Phase::Leaving).then_some(FRESH_US)
    }
}

impl Program for ListenFds {
    fn wants(&self, _now_us: u64) -> Wants {
        let mut wants = Wants::default();
        if let Phase::Starting { at_us } = self.phase {
            wants.at_us = Some(at_us);
            return wants;
        }
        wants.at_us = self.dies_us.into_iter().chain(self.again_us.filter(|_| self.notify.is_some())).min();
        wants.read.extend(self.listeners.iter().map(AsRawFd::as_raw_fd));
        self.server.wants(self.rest_us(), &mut wants);
        wants
    }

    fn step(&mut self, state: &mut State, pid: i32) -> Option<i32> {
        while let Some(caught) = state.processes.get_mut(&pid)?.caught.pop_front() {
            if caught.signal != SIGTERM {
                continue;
            }
            if matches!(self.phase, Phase::Starting { .. }) {
                return Some(SIGTERM);
            }
            self.phase = Phase::Leaving;
            self.listeners.clear();
            state.processes.get_mut(&pid)?.files.clear();
            self.server.close_idle(state);
        }
        if let Phase::Starting { at_us } = self.phase {
            if at_us > state.now_us {
                return None;
            }
            if let Some(code) = self.manner.fails {
                return Some(exited(code));
            }
            if self.manner.never_listens {
                self.phase = Phase::Starting { at_us: u64::MAX };
                return None;
            }
            self.phase = Phase::Serving;
        }
        if let Some(address) = &self.notify {
            // sd_notify(3) waits while the socket is full.
            let said = notify::tell(address, &format!("STATUS=serving\nREADY=1\n{SENDER}{pid}"), None);
            state.count(if said.is_ok() { "READY=1 said" } else { "READY=1 has to wait" });
            match said {
                Ok(()) => self.notify = None,
                Err(_) => self.again_us = Some(state.now_us + AGAIN_US),
            }
        }
        if self.dies_us.is_some_and(|at_us| at_us <= state.now_us) {
            state.count("programs died");
            return Some(exited(7));
        }
        for listener in &self.listeners {
            self.server.accept(listener, state.now_us);
        }
        self.server.serve(state, pid, self.rest_us());
        if self.phase == Phase::Leaving {
            self.server.close_idle(state);
        }
        self.server.show(state, pid, &self.listeners, true);
        (self.phase == Phase::Leaving && self.server.connections.is_empty()).then(|| exited(0))
    }

    fn holds(&self) -> Vec<String> {
        self.server.holds()
    }

    fn serves(&self) -> bool {
        self.phase == Phase::Serving
    }
}

/// The pid in a datagram that a simulated process sent. Others come from a process that is no worker.
pub(crate) fn sender(datagram: &[u8]) -> i32 {
    let text = String::from_utf8_lossy(datagram);
    text.lines().find_map(|line| line.strip_prefix(SENDER)?.parse().ok()).unwrap_or(1)
}

/// A program without a socket.
pub(crate) struct Plain {
    /// When it ends by itself, and how.
    ends: Option<(u64, u8)>,
    /// How long it takes to end when it is asked to.
    ending_us: u64,
    asked_us: Option<u64>,
}

impl Plain {
    pub(crate) fn new(manner: &Manner, now_us: u64) -> Plain {
        let ends = match manner.quirk {
            Quirk::DiesAfter(us) => Some((now_us + us, (us % 3) as u8)),
            _ => manner.fails.map(|code| (now_us + manner.start_us, code)),
        };
        Plain { ends, ending_us: manner.answer_us, asked_us: None }
    }
}

impl Program for Plain {
    fn wants(&self, _now_us: u64) -> Wants {
        let ends = self.ends.map(|(at_us, _)| at_us);
        Wants { at_us: self.asked_us.into_iter().chain(ends).min(), ..Wants::default() }
    }

    fn step(&mut self, state: &mut State, pid: i32) -> Option<i32> {
        while let Some(caught) = state.processes.get_mut(&pid)?.caught.pop_front() {
            if caught.signal == SIGTERM {
                self.asked_us.get_or_insert(state.now_us + self.ending_us);
            }
        }
        if let Some((_, code)) = self.ends.filter(|(at_us, _)| *at_us <= state.now_us) {
            state.count("programs died");
            return Some(exited(code));
        }
        self.asked_us.filter(|at_us| *at_us <= state.now_us).map(|_| exited(0))
    }

    fn serves(&self) -> bool {
        self.asked_us.is_none()
    }
}
