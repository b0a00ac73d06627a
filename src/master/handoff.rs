//! The part of a hand-off that needs no system: who gets the connection, the line that says so, the ledger that is closed
//! by the answer. It works over any [`Wire`], so that its instructions can be counted under a script that stands in for
//! sockets (`benches/instructions`). What follows when a worker cannot be reached is decided in `dispatch`.
use super::connections::{Connection, Connections};
use crate::balance::{Balancer, ConnIx, GroupIx, MemberIx};
use crate::ids::WorkerIx;
use crate::worker::node::channel::{Channel, Sent, Wire};
use crate::worker::node::lines::NewconnLine;
use std::collections::VecDeque;

/// A connection that is to be handed to a worker.
pub struct HandOff<'a, S> {
    /// Its index.
    pub conn: ConnIx,
    /// Its socket.
    pub socket: &'a S,
    /// The workers that serve its listener.
    pub group: GroupIx,
    /// Its client, for sticky balancing.
    pub client_hash: Option<u64>,
    /// Its listener's line.
    pub newconn: &'a NewconnLine,
}

/// What came of a hand-off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A worker has it.
    Sent {
        /// Hand-offs that this worker had not answered before this one.
        before: u32,
    },
    /// Nobody can take the connection now.
    NoWorker,
    /// The system has too little for the hand-off, whoever the worker is.
    Scarce {
        /// What the system said.
        errno: i32,
    },
    /// The hand-off could not be sent to this worker, which is not eligible from now on.
    Unsent {
        /// The worker.
        worker: WorkerIx,
        /// Why; `None` without a channel.
        why: Option<Sent>,
    },
}

impl<S> HandOff<'_, S> {
    /// Sends it to the worker whose turn it is. `line` is scratch space.
    pub fn send<'c, W: Wire<Passed = S> + 'c>(
        &self,
        balancer: &mut Balancer,
        by_member: &[WorkerIx],
        channel_of: impl FnOnce(WorkerIx) -> Option<&'c mut Channel<W>>,
        line: &mut Vec<u8>,
        now_us: u64,
    ) -> Outcome {
        let Some(member) = balancer.pick(self.group, self.client_hash, now_us) else { return Outcome::NoWorker };
        let worker = by_member[member.0 as usize];
        let Some(channel) = channel_of(worker) else {
            balancer.set_eligible(member, false);
            return Outcome::Unsent { worker, why: None };
        };
        self.newconn.render(balancer.next_seq(member), line);
        match channel.send_handoff(line, self.socket) {
            Sent::Whole => {
                let before = balancer.open_count(member);
                balancer.opened(member, self.conn, now_us);
                Outcome::Sent { before }
            }
            Sent::Scarce(errno) => Outcome::Scarce { errno },
            why @ (Sent::Blocked | Sent::Broken) => {
                balancer.set_eligible(member, false);
                Outcome::Unsent { worker, why: Some(why) }
            }
        }
    }
}

/// A worker's answer to a hand-off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its place in the balancer.
    pub member: MemberIx,
    /// The hand-off's number.
    pub seq: u64,
    /// Whether it took the connection.
    pub accepted: bool,
}

/// What a hand-off came to.
pub struct Closed<S> {
    /// How long the answer took, in microseconds.
    pub latency_us: u64,
    /// The connection, where the worker took it: our copy of it is of no more use.
    pub taken: Option<Connection<S>>,
}

impl Answer {
    /// Closes the hand-off: a connection that was taken is given back to be closed, another one waits for a worker again.
    /// `None` for a number that is not open.
    pub fn close<S>(
        self,
        balancer: &mut Balancer,
        connections: &mut Connections<S>,
        waiting: &mut VecDeque<ConnIx>,
        now_us: u64,
    ) -> Option<Closed<S>> {
        let (conn, latency_us) = balancer.answered(self.member, self.seq, now_us)?;
        let taken = if self.accepted {
            balancer.taken(self.member);
            connections.remove(conn)
        } else {
            waiting.push_back(conn);
            None
        };
        Some(Closed { latency_us, taken })
    }
}
