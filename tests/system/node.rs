//! A simulated Node worker: speaks the cluster protocol over its channel, takes connections (handed over, or from a listening socket
//! that it was given), answers requests of one line, and leaves when it is told to. What it does wrong is in `quirks`.
use crate::manner::{Manner, Quirk, Step};
use crate::program::{Program, Wants, exited};
use crate::server::{self, Server};
use crate::world::{LetGo, SIGTERM, State};
use clusterd::os::fdpass;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Bytes of one read.
const READ_BYTES: usize = 16 * 1024;
/// How long a connection may rest when nobody is left to move to, in microseconds.
const REST_US: u64 = 5_000_000;
/// Who has closed its server listens again after this time, in microseconds.
const CLOSED_US: u64 = 2_000_000;
/// What the preload says (`src/worker/node/preload_lines.rs`).
const HELLO: &str = r#"{"cmd":"NODE_CLUSTERD","act":"hello"}"#;
const MOVED: &str = r#"{"cmd":"NODE_HANDLE","type":"net.Native","msg":{"cmd":"NODE_CLUSTERD","act":"moved"}}"#;

#[derive(Clone, Copy, PartialEq)]
enum Phase {
    Starting { at_us: u64 },
    Loading { at_us: u64 },
    Asking { seq: u64 },
    Listening,
    Leaving,
}

/// A line to the master.
struct Line {
    /// What was not written yet.
    bytes: Vec<u8>,
    handle: Option<OwnedFd>,
}

/// The worker.
pub(crate) struct Node {
    pub(super) manner: Manner,
    pub(super) port: u16,
    /// Where it listens instead.
    path: Option<String>,
    phase: Phase,
    born_us: u64,
    channel: OwnedFd,
    read: Vec<u8>,
    passed: VecDeque<OwnedFd>,
    /// Lines that are not written yet; `is_full`: the channel takes no more now.
    outbox: VecDeque<Line>,
    is_full: bool,
    seq: u64,
    key: Value,
    listener: Option<OwnedFd>,
    /// It has asked for a UDP socket by this number, and what it got.
    udp_seq: Option<u64>,
    udp: Option<OwnedFd>,
    /// It has closed its server, and listens again at this time.
    closed_until_us: Option<u64>,
    pub(super) server: Server,
    preload: Option<Preload>,
    /// Lines that wait for the acknowledgement of a handle, with their handles. `Some`: one was sent and is not acknowledged.
    behind_handle: Option<VecDeque<(String, Option<OwnedFd>)>>,
    /// Hand-offs so far.
    handed: u64,
    /// When it does what its quirk says, if that has a time.
    pub(super) quirk_us: Option<u64>,
    /// Until when it hangs.
    frozen_until_us: u64,
    /// Ends before anything else, with this code.
    dies: Option<u8>,
}

/// An address as Node tells it.
struct Address<'a> {
    path: Option<&'a str>,
    port: u16,
}

impl Address<'_> {
    fn of(port: u16, path: Option<&str>) -> Address<'_> {
        Address { path, port }
    }

    /// The message with it.
    fn with(&self, mut message: Value) -> Value {
        (message["address"], message["port"], message["addressType"]) = match self.path {
            Some(path) => (path.into(), (-1).into(), (-1).into()),
            None => (Value::Null, self.port.into(), 4.into()),
        };
        message
    }
}

/// The state of the preload.
#[derive(Default)]
struct Preload {
    /// Told to leave: what can move does.
    moving: bool,
    /// Connections to give to workers that keep fewer.
    quota: usize,
    /// Nobody is left to move to.
    ending: bool,
}

impl Node {
    pub(crate) fn new(
        manner: Manner,
        (port, path): (u16, Option<String>),
        channel: OwnedFd,
        has_preload: bool,
        now_us: u64,
    ) -> Node {
        let phase = Phase::Starting { at_us: now_us + manner.start_us };
        let server = Server {
            answer_us: manner.answer_us,
            leak_bytes: manner.leak_bytes,
            keeps_ended: manner.quirk == Quirk::GivesEnded && has_preload,
            ..Server::default()
        };
        Node {
            manner,
            port,
            path,
            phase,
            born_us: now_us,
            channel,
            read: Vec::new(),
            passed: VecDeque::new(),
            outbox: VecDeque::new(),
            is_full: false,
            seq: 0,
            key: Value::Null,
            listener: None,
            udp_seq: None,
            udp: None,
            closed_until_us: None,
            server,
            preload: has_preload.then(Preload::default),
            behind_handle: None,
            handed: 0,
            quirk_us: None,
            frozen_until_us: 0,
            dies: None,
        }
    }

    pub(super) fn has_preload(&self) -> bool {
        self.preload.is_some()
    }

    pub(super) fn is_listening(&self) -> bool {
        self.phase == Phase::Listening
    }

    /// Ends at the end of this turn.
    pub(super) fn die(&mut self, code: u8) {
        self.dies = Some(code);
    }

    // ---- lines ----

    /// `false`: the channel is broken.
    pub(super) fn send(&mut self, message: &Value) -> bool {
        self.send_line(message.to_string(), None)
    }

    /// As Node does: behind a handle every line waits until that is acknowledged.
    pub(super) fn send_line(&mut self, line: String, handle: Option<OwnedFd>) -> bool {
        if let Some(waiting) = &mut self.behind_handle {
            waiting.push_back((line, handle));
            return true;
        }
        if handle.is_some() {
            self.behind_handle = Some(VecDeque::new());
        }
        self.send_raw(format!("{line}\n").into_bytes(), handle)
    }

    /// Bytes as they are.
    pub(super) fn send_raw(&mut self, bytes: Vec<u8>, handle: Option<OwnedFd>) -> bool {
        self.outbox.push_back(Line { bytes, handle });
        // Pieces follow one by one.
        self.manner.piece_bytes < usize::MAX || self.flush()
    }

    /// Writes what waits, or one piece of it. `false`: the channel is broken.
    fn flush(&mut self) -> bool {
        while let Some(line) = self.outbox.front_mut() {
            let most = if line.handle.is_some() { usize::MAX } else { self.manner.piece_bytes };
            let piece = &line.bytes[..line.bytes.len().min(most)];
            match fdpass::send_with_fd(self.channel.as_fd(), piece, line.handle.as_ref().map(AsFd::as_fd)) {
                Ok(written) => {
                    line.handle = None;
                    line.bytes.drain(..written);
                    if line.bytes.is_empty() {
                        self.outbox.pop_front();
                    }
                    if self.manner.piece_bytes < usize::MAX {
                        return true;
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    self.is_full = true;
                    return true;
                }
                Err(_) => return false,
            }
        }
        true
    }

    fn acknowledged(&mut self) -> bool {
        let mut waiting = self.behind_handle.take().unwrap_or_default();
        while let Some((line, handle)) = waiting.pop_front() {
            let has_handle = handle.is_some();
            if !self.send_line(line, handle) {
                return false;
            }
            if has_handle {
                self.behind_handle = Some(waiting);
                return true;
            }
        }
        true
    }

    pub(super) fn act(&mut self, act: &str, mut message: Value) -> bool {
        self.seq += 1;
        message["cmd"] = "NODE_CLUSTER".into();
        message["act"] = act.into();
        message["seq"] = self.seq.into();
        self.send(&message)
    }

    pub(super) fn query(&mut self, port: u16, index: u32) -> bool {
        let address = Address::of(port, self.path.as_deref().filter(|_| port == self.port));
        self.act("queryServer", address.with(json!({ "fd": null, "index": index, "flags": 0, "data": null })))
    }

    /// As `dgram` does it.
    pub(super) fn query_udp(&mut self) -> bool {
        let query =
            json!({ "address": null, "port": self.port, "addressType": "udp4", "fd": null, "index": 0, "flags": 0 });
        let said = self.act("queryServer", query);
        self.udp_seq = Some(self.seq);
        said
    }

    /// Reads the channel. `None`: it is closed.
    fn read_channel(&mut self) -> Option<()> {
        let mut buffer = vec![0; READ_BYTES];
        let mut passed = VecDeque::new();
        loop {
            match fdpass::recv_with_fds(self.channel.as_fd(), &mut buffer, &mut passed) {
                Ok(received) if received.bytes == 0 => return None,
                Ok(received) => {
                    self.read.extend_from_slice(&buffer[..received.bytes]);
                    self.passed.append(&mut passed);
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Some(()),
                Err(_) => return None,
            }
        }
    }

    fn take_lines(&mut self, state: &mut State, pid: i32) -> bool {
        while let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.read.drain(..=end).collect();
            let Ok(mut message) = serde_json::from_slice::<Value>(&line) else {
                state.violated(format!("worker {pid} got a line that is no JSON: {}", String::from_utf8_lossy(&line)));
                return false;
            };
            let mut passed = None;
            if message["cmd"] == "NODE_HANDLE" {
                passed = self.passed.pop_front();
                let answer = if passed.is_some() { "NODE_HANDLE_ACK" } else { "NODE_HANDLE_NACK" };
                if !self.send(&json!({ "cmd": answer })) {
                    return false;
                }
                message = message["msg"].take();
            }
            if !self.take(&message, passed, state, pid) {
                return false;
            }
            if self.dies.is_some() {
                return true;
            }
        }
        true
    }

    fn take(&mut self, message: &Value, passed: Option<OwnedFd>, state: &mut State, pid: i32) -> bool {
        if let Phase::Asking { seq } = self.phase
            && message["ack"] == seq
        {
            if message["errno"].as_i64().unwrap_or_default() != 0 {
                state.tell(&format!("worker {pid}"), &format!("cannot listen: {message}"));
                return false;
            }
            self.listener = passed;
            self.key = message["key"].clone();
            self.phase = Phase::Listening;
            self.begin_quirk(state);
            let address = Address::of(self.port, self.path.as_deref());
            return self.act("listening", address.with(json!({})));
        }
        if self.udp_seq.is_some_and(|seq| message["ack"] == seq) {
            state.count(if passed.is_some() { "UDP sockets" } else { "UDP sockets refused" });
            self.udp_seq = None;
            self.udp = passed;
            return true;
        }
        if message["cmd"] == "NODE_HANDLE_ACK" || message["cmd"] == "NODE_HANDLE_NACK" {
            return self.acknowledged();
        }
        if message["cmd"] == "NODE_CLUSTERD" {
            return self.take_for_preload(message);
        }
        if message["act"] == "newconn" {
            return self.take_connection(message, passed, state);
        }
        if message["act"] == "disconnect" && self.phase != Phase::Leaving {
            return self.leave(state, pid);
        }
        true
    }

    fn take_connection(&mut self, message: &Value, passed: Option<OwnedFd>, state: &mut State) -> bool {
        let is_mine = self.phase == Phase::Listening && self.closed_until_us.is_none() && message["key"] == self.key;
        let peer = passed.as_ref().and_then(server::peer);
        let mut taken = passed.filter(|_| is_mine);
        self.handed += u64::from(taken.is_some());
        match self.manner.quirk {
            Quirk::Refuses(count) if self.handed <= count && taken.is_some() => {
                state.count("hand-offs refused");
                taken = None;
            }
            Quirk::Mute(count) if self.handed <= count && taken.is_some() => {
                if let Some(socket) = taken {
                    self.server.add(socket, state.now_us);
                    let peer = self.server.connections.last().and_then(|connection| connection.peer.clone());
                    state.let_go(peer, LetGo::Mute);
                }
                return true;
            }
            Quirk::Dies(Step::Handed(count)) if self.handed == count => {
                self.dies = Some(8);
                return true;
            }
            Quirk::Freezes { handed, length_us } if self.handed == handed && self.frozen_until_us == 0 => {
                state.count("workers froze");
                self.frozen_until_us = state.now_us + length_us;
            }
            Quirk::Dies(Step::Taken(count)) if self.handed == count => self.dies = Some(9),
            _ => {}
        }
        let accepted = taken.is_some();
        if !accepted {
            state.let_go(peer, LetGo::Returned);
        }
        if let Some(socket) = taken {
            self.server.add(socket, state.now_us);
        }
        self.send(&json!({ "cmd": "NODE_CLUSTER", "ack": message["seq"], "accepted": accepted }))
    }

    fn leave(&mut self, state: &mut State, pid: i32) -> bool {
        self.phase = Phase::Leaving;
        self.listener = None;
        self.udp = None;
        self.closed_until_us = None;
        state.tell(&format!("worker {pid}"), "leaves");
        if self.preload.as_ref().is_none_or(|preload| preload.ending) {
            self.server.close_idle(state);
        }
        self.act("close", json!({ "key": self.key }))
    }

    /// A word of the master to the preload.
    fn take_for_preload(&mut self, message: &Value) -> bool {
        let kept = self.server.connections.len();
        let Some(preload) = &mut self.preload else { return true };
        match message["act"].as_str() {
            Some("move") => preload.moving = true,
            Some("give") => preload.quota = message["count"].as_u64().unwrap_or_default() as usize,
            Some("end") => preload.ending = true,
            Some("count") => {
                return self.send_line(format!(r#"{{"cmd":"NODE_CLUSTERD","act":"kept","count":{kept}}}"#), None);
            }
            Some("resumed") if self.behind_handle.is_some() => return self.acknowledged(),
            _ => {}
        }
        true
    }

    /// Gives connections back that rest.
    fn give(&mut self, state: &mut State) -> bool {
        let leaving = self.phase == Phase::Leaving;
        let Some(preload) = &mut self.preload else { return true };
        if preload.ending {
            return true;
        }
        let everything = preload.moving || leaving;
        let connections = &mut self.server.connections;
        let mut given = Vec::new();
        let mut n = 0;
        while n < connections.len() && (everything || preload.quota > 0) {
            if connections[n].can_move() {
                let connection = connections.remove(n);
                state.let_go(connection.peer.clone(), LetGo::Returned);
                given.push(connection.socket);
                state.counts.moved += 1;
                preload.quota = preload.quota.saturating_sub(1);
            } else {
                n += 1;
            }
        }
        given.extend(self.server.take_ended());
        given.into_iter().all(|socket| self.send_line(MOVED.to_owned(), Some(socket)))
    }

    /// Gives something back that may be no connection.
    pub(super) fn give_other(&mut self, handle: OwnedFd) -> bool {
        self.send_line(MOVED.to_owned(), Some(handle))
    }

    /// Closes its server, and listens again later.
    pub(super) fn close_server(&mut self, now_us: u64) -> bool {
        self.closed_until_us = Some(now_us + CLOSED_US);
        self.listener = None;
        self.act("close", json!({ "key": self.key }))
    }

    /// `cluster.worker.disconnect()` in the app.
    pub(super) fn leave_by_itself(&mut self, state: &mut State, pid: i32) -> bool {
        self.act("exitedAfterDisconnect", json!({})) && self.leave(state, pid)
    }

    // ---- its life ----

    fn begin(&mut self, state: &State) -> Option<i32> {
        match self.phase {
            Phase::Starting { at_us } if at_us <= state.now_us => {
                if self.manner.quirk == Quirk::Dies(Step::Start) {
                    return Some(exited(4));
                }
                self.phase = Phase::Loading { at_us: state.now_us + self.manner.listen_us };
                let said =
                    self.act("online", json!({})) && (self.preload.is_none() || self.send_line(HELLO.to_owned(), None));
                (!said).then(|| exited(0))
            }
            Phase::Loading { at_us } if at_us <= state.now_us => {
                if self.manner.quirk == Quirk::Dies(Step::Online) {
                    return Some(exited(5));
                }
                if let Some(code) = self.manner.fails {
                    return Some(exited(code));
                }
                if self.manner.never_listens {
                    self.phase = Phase::Loading { at_us: u64::MAX };
                    return None;
                }
                if self.manner.quirk == Quirk::ListensElsewhere {
                    (self.port, self.path) = (0, None);
                }
                let asked = self.query(self.port, 0);
                self.phase = Phase::Asking { seq: self.seq };
                if self.manner.quirk == Quirk::Dies(Step::Asked) {
                    return Some(exited(6));
                }
                (!asked).then(|| exited(0))
            }
            Phase::Listening if self.closed_until_us.is_some_and(|at_us| at_us <= state.now_us) => {
                self.closed_until_us = None;
                let asked = self.query(self.port, 0);
                self.phase = Phase::Asking { seq: self.seq };
                (!asked).then(|| exited(0))
            }
            _ => None,
        }
    }

    /// Until when it does not read its channel.
    fn deaf_until_us(&self, now_us: u64) -> Option<u64> {
        let Quirk::Deaf { from_us, length_us } = self.manner.quirk else { return None };
        let (begin_us, end_us) = (self.born_us + from_us, self.born_us + from_us + length_us);
        (begin_us..end_us).contains(&now_us).then_some(end_us)
    }

    fn rest_us(&self) -> Option<u64> {
        self.preload.as_ref().is_some_and(|preload| preload.ending).then_some(REST_US)
    }

    /// One turn of its loop. Returns how it ends, if it does.
    fn live(&mut self, state: &mut State, pid: i32) -> Option<i32> {
        if let Some(status) = self.begin(state) {
            return Some(status);
        }
        let mut is_open = true;
        if self.deaf_until_us(state.now_us).is_none() {
            is_open = self.read_channel().is_some();
            if !self.take_lines(state, pid) {
                return Some(exited(1));
            }
        }
        if let Some(code) = self.dies {
            return Some(exited(code));
        }
        if self.frozen_until_us > state.now_us {
            self.server.show(state, pid, self.listener.as_slice(), false);
            return None;
        }
        if let Some(listener) = &self.listener {
            self.server.accept(listener, state.now_us);
        }
        let rest_us = self.rest_us();
        self.server.serve(state, pid, rest_us);
        if !self.give(state) || !self.act_by_quirk(state, pid) {
            return Some(exited(1));
        }
        if let Some(code) = self.dies {
            return Some(exited(code));
        }
        self.server.show(state, pid, self.listener.as_slice(), true);
        let leaves = self.phase == Phase::Leaving && self.server.connections.is_empty();
        let is_done = leaves && self.behind_handle.is_none() && self.outbox.is_empty();
        (is_done || !is_open).then(|| exited(0))
    }
}

impl Program for Node {
    fn wants(&self, now_us: u64) -> Wants {
        let mut wants = Wants::default();
        match self.phase {
            Phase::Starting { at_us } => {
                wants.at_us = Some(at_us);
                return wants;
            }
            Phase::Loading { at_us } => wants.at_us = Some(at_us),
            _ => {}
        }
        if self.frozen_until_us > now_us {
            wants.at_us = Some(self.frozen_until_us);
            return wants;
        }
        wants.at_us = wants.at_us.into_iter().chain(self.quirk_us).chain(self.closed_until_us).min();
        wants.read.extend(self.listener.as_ref().map(AsRawFd::as_raw_fd));
        if self.is_full {
            wants.write.push(self.channel.as_raw_fd());
        } else if !self.outbox.is_empty() {
            wants.at_us = Some(0);
        }
        self.server.wants(self.rest_us(), &mut wants);
        match self.deaf_until_us(now_us) {
            Some(until_us) => wants.at_us = wants.at_us.into_iter().chain([until_us]).min(),
            None => wants.read.push(self.channel.as_raw_fd()),
        }
        wants
    }

    fn step(&mut self, state: &mut State, pid: i32) -> Option<i32> {
        while let Some(caught) = state.processes.get_mut(&pid)?.caught.pop_front() {
            if caught.signal == SIGTERM {
                return Some(SIGTERM);
            }
        }
        if let Phase::Starting { at_us } = self.phase
            && at_us > state.now_us
        {
            return None;
        }
        if self.frozen_until_us > state.now_us {
            return None;
        }
        self.is_full = false;
        if !self.outbox.is_empty() && !self.flush() {
            return Some(exited(1));
        }
        self.live(state, pid)
    }

    fn holds(&self) -> Vec<String> {
        let unsent = self.outbox.iter().filter_map(|line| line.handle.as_ref());
        let waiting = self.behind_handle.iter().flatten().filter_map(|(_, handle)| handle.as_ref());
        let given = unsent.chain(waiting).filter_map(server::peer);
        self.server.holds().into_iter().chain(given).collect()
    }

    fn serves(&self) -> bool {
        self.phase == Phase::Listening
    }
}
