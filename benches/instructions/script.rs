//! Hand-offs without a system: the product's own balancer, lines, channels and ledger over a scripted wire. Each worker of
//! the script reads the number in the line that it is sent and answers as Node does, when it is its turn.
use clusterd::balance::sticky;
use clusterd::balance::{Balancer, GroupIx, MemberIx, Mode};
use clusterd::ids::{ListenerIx, WorkerIx};
use clusterd::limits;
use clusterd::master::connections::{Connection, Connections};
use clusterd::master::handoff::{Answer, HandOff, Outcome};
use clusterd::master::time_counts::TimeCounts;
use clusterd::os::fdpass::Received;
use clusterd::worker::node::channel::{Channel, Read, Wire};
use clusterd::worker::node::lines::{self, FromWorker, NewconnLine};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;

/// What is counted.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    mode: Mode,
    workers: u32,
    /// Different addresses that connections come from, one after the other.
    clients: u32,
}

pub(crate) const CASES: [Case; 5] = [
    Case { name: "round-robin-2", mode: Mode::RoundRobin, workers: 2, clients: u32::MAX },
    Case { name: "round-robin-8", mode: Mode::RoundRobin, workers: 8, clients: u32::MAX },
    Case { name: "round-robin-1000", mode: Mode::RoundRobin, workers: 1_000, clients: u32::MAX },
    // Every client is new, so that every worker is weighed for it; and clients that are known.
    Case { name: "sticky-8", mode: Mode::Sticky, workers: 8, clients: u32::MAX },
    Case { name: "sticky-1000", mode: Mode::Sticky, workers: 1_000, clients: 64 },
];

/// Connections that one wake-up finds, as under load.
const PER_TURN: u64 = 8;
/// Time from a turn to its answers, in microseconds: fast workers.
const ANSWER_US: u64 = 300;
/// The first number of a first master.
const FIRST_SEQ: u64 = 1 << 32;

/// Stands in for a socket: what it is sent, it answers.
struct Worker {
    number: usize,
    answers: RefCell<Vec<u8>>,
    /// Those of all workers that have answers, as epoll tells the master.
    readable: Rc<RefCell<VecDeque<usize>>>,
}

impl Wire for Worker {
    /// A number stands for a connection's socket.
    type Passed = u64;

    fn send(&self, line: &[u8], passed: Option<&u64>) -> io::Result<usize> {
        let digits = line.strip_suffix(b"}}\n").and_then(|line| {
            let before = line.iter().rposition(|byte| !byte.is_ascii_digit())?;
            Some(&line[before + 1..])
        });
        let (Some(digits), Some(_)) = (digits, passed) else { return Err(io::ErrorKind::InvalidData.into()) };
        let mut answers = self.answers.borrow_mut();
        if answers.is_empty() {
            self.readable.borrow_mut().push_back(self.number);
        }
        answers.extend_from_slice(b"{\"cmd\":\"NODE_HANDLE_ACK\"}\n{\"cmd\":\"NODE_CLUSTER\",\"ack\":");
        answers.extend_from_slice(digits);
        answers.extend_from_slice(b",\"accepted\":true,\"seq\":1234}\n");
        Ok(line.len())
    }

    fn receive(&self, into: &mut [u8], _passed: &mut VecDeque<u64>) -> io::Result<Received> {
        let mut answers = self.answers.borrow_mut();
        if answers.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let bytes = answers.len();
        into[..bytes].copy_from_slice(&answers);
        answers.clear();
        Ok(Received { bytes, truncated_fds: false, truncated_bytes: false })
    }
}

/// One app as the master has it.
pub(crate) struct App {
    sticky: bool,
    clients: u32,
    balancer: Balancer,
    group: GroupIx,
    by_member: Vec<WorkerIx>,
    channels: Vec<Channel<Worker>>,
    readable: Rc<RefCell<VecDeque<usize>>>,
    connections: Connections<u64>,
    waiting: VecDeque<clusterd::balance::ConnIx>,
    times: TimeCounts,
    newconn: NewconnLine,
    line: Vec<u8>,
    now_us: u64,
    accepted: u64,
    closed: u64,
}

impl App {
    /// Hands connections off until they are `count` in all; how many were closed by an answer.
    pub(crate) fn run_to(&mut self, count: u64) -> u64 {
        while self.accepted < count {
            self.accept(PER_TURN.min(count - self.accepted));
            self.now_us += ANSWER_US;
            while let Some(worker) = self.next_readable() {
                self.read(worker);
            }
        }
        assert!(self.connections.is_empty() && self.waiting.is_empty(), "every connection was taken");
        self.closed
    }

    pub(crate) fn new(case: &Case) -> App {
        let mut balancer = Balancer::new(case.mode, FIRST_SEQ);
        let group = balancer.add_group();
        for slot in 0..case.workers {
            let member = balancer.add_member(slot);
            balancer.join(group, member);
            balancer.set_eligible(member, true);
        }
        let readable = Rc::new(RefCell::new(VecDeque::new()));
        let worker = |number| {
            Channel::new(Worker { number, answers: RefCell::default(), readable: Rc::clone(&readable) }, false)
        };
        App {
            sticky: case.mode == Mode::Sticky,
            clients: case.clients,
            balancer,
            group,
            by_member: (0..case.workers as usize).map(WorkerIx).collect(),
            channels: (0..case.workers as usize).map(worker).collect(),
            readable: Rc::clone(&readable),
            connections: Connections::default(),
            waiting: VecDeque::new(),
            times: TimeCounts::default(),
            newconn: NewconnLine::new("null:8080:4::0"),
            line: Vec::new(),
            now_us: 1_000_000,
            accepted: 0,
            closed: 0,
        }
    }

    /// As `Dispatch::accept_batch` and `Dispatch::hand_off`, less what asks the system.
    fn accept(&mut self, waiting: u64) {
        for _ in 0..waiting {
            if self.connections.len() >= limits::HANDOFFS_OPEN_MAX || !self.balancer.can_take(self.group, self.now_us) {
                return;
            }
            self.accepted += 1;
            let peer = self.sticky.then(|| IpAddr::from(Ipv4Addr::from_bits(self.accepted as u32 % self.clients)));
            let client_hash = peer.map(sticky::hash_ip);
            let (socket, listener, since_us) = (self.accepted, ListenerIx(0), self.now_us);
            let conn = self.connections.insert(Connection {
                socket,
                listener,
                client_hash,
                since_us,
                own_line: None,
                kept_as: None,
            });
            let Some(connection) = self.connections.get(conn) else { continue };
            let handoff = HandOff {
                conn,
                socket: &connection.socket,
                group: self.group,
                client_hash: connection.client_hash,
                newconn: &self.newconn,
            };
            let channels = &mut self.channels;
            let outcome = handoff.send(
                &mut self.balancer,
                &self.by_member,
                |worker, _| channels.get_mut(worker.0),
                &mut self.line,
                self.now_us,
            );
            assert!(matches!(outcome, Outcome::Sent { .. }), "a worker takes it: {outcome:?}");
        }
    }

    fn next_readable(&self) -> Option<usize> {
        self.readable.borrow_mut().pop_front()
    }

    /// As `Master::read_lines` and `Dispatch::answered`.
    fn read(&mut self, worker: usize) {
        let channel = &mut self.channels[worker];
        loop {
            let read = channel.read();
            while let Ok(Some(line)) = channel.inbox.next_line() {
                let (ack, accepted) = match lines::decode(line.bytes) {
                    Ok(FromWorker::Answer { ack, accepted: Some(accepted) }) => (ack, accepted),
                    Ok(FromWorker::HandleAck) => continue,
                    other => panic!("an answer is not understood: {other:?}"),
                };
                let answer = Answer { member: MemberIx(worker as u32), seq: ack, accepted };
                let (connections, waiting) = (&mut self.connections, &mut self.waiting);
                let closed = answer.close(&mut self.balancer, connections, waiting, &mut self.times, self.now_us);
                self.closed += u64::from(closed.is_some());
            }
            if matches!(read, Read::Last | Read::Nothing) {
                return;
            }
        }
    }
}
