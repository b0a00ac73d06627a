//! The part of a hand-off that needs no system: choose the worker, write the line, keep the ledger that the answer
//! closes. It works over any [`Wire`], so that its instructions can be counted with a script in place of sockets
//! (`benches/instructions`). `dispatch` handles workers that cannot be reached.
use super::connections::{Connection, Connections};
use super::time_counts::TimeCounts;
use crate::balance::{Balancer, ConnIx, GroupIx, MemberIx};
use crate::ids::WorkerIx;
use crate::worker::node::channel::{Channel, Sent, Wire};
use crate::worker::node::lines::NewconnLine;
use std::collections::VecDeque;

/// A connection to be handed to a worker.
pub struct HandOff<'a, S> {
    pub conn: ConnIx,
    pub socket: &'a S,
    /// The workers that serve its listener.
    pub group: GroupIx,
    /// Hash of the client's address, for sticky balancing.
    pub client_hash: Option<u64>,
    /// The line template of its listener.
    pub newconn: &'a NewconnLine,
}

/// The result of a hand-off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A worker has the connection.
    Sent {
        /// Hand-offs to this worker that were open before this one.
        before: u32,
    },
    /// No worker can take the connection now.
    NoWorker,
    /// The system is out of a resource, whichever worker is chosen.
    NoResources { errno: i32 },
    /// The hand-off could not be sent to this worker, which is ineligible from now on.
    Unsent {
        worker: WorkerIx,
        /// The reason; `None` where the worker has no channel.
        why: Option<Sent>,
    },
}

impl<S> HandOff<'_, S> {
    /// Sends the connection to the worker that the balancer chooses. `channel_of` is told the worker and the number of the hand-off;
    /// `line` is scratch space.
    pub fn send<'c, W: Wire<Passed = S> + 'c>(
        &self,
        balancer: &mut Balancer,
        by_member: &[WorkerIx],
        channel_of: impl FnOnce(WorkerIx, u64) -> Option<&'c mut Channel<W>>,
        line: &mut Vec<u8>,
        now_us: u64,
    ) -> Outcome {
        let Some(member) = balancer.pick(self.group, self.client_hash, now_us) else { return Outcome::NoWorker };
        self.send_to(member, balancer, by_member, channel_of, line, now_us)
    }

    /// As [`HandOff::send`], to this worker.
    #[inline]
    pub fn send_to<'c, W: Wire<Passed = S> + 'c>(
        &self,
        member: MemberIx,
        balancer: &mut Balancer,
        by_member: &[WorkerIx],
        channel_of: impl FnOnce(WorkerIx, u64) -> Option<&'c mut Channel<W>>,
        line: &mut Vec<u8>,
        now_us: u64,
    ) -> Outcome {
        let worker = by_member[member.0 as usize];
        let seq = balancer.next_seq(member);
        let Some(channel) = channel_of(worker, seq) else {
            balancer.set_eligible(member, false);
            return Outcome::Unsent { worker, why: None };
        };
        self.newconn.render(seq, line);
        match channel.send_handoff(line, self.socket) {
            Sent::Whole => {
                let before = balancer.open_count(member);
                balancer.opened(member, self.conn, now_us);
                Outcome::Sent { before }
            }
            Sent::NoResources(errno) => Outcome::NoResources { errno },
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
    /// The worker's member index in the balancer.
    pub member: MemberIx,
    pub seq: u64,
    /// Whether it took the connection.
    pub accepted: bool,
}

/// A hand-off that was closed by its answer.
pub struct Closed<S> {
    /// How long the answer took, in microseconds.
    pub latency_us: u64,
    /// The connection, if the worker took it: our copy can be closed.
    pub taken: Option<Connection<S>>,
}

impl Answer {
    /// Closes the hand-off. A connection that was taken is returned to be closed, and its time is counted; another one
    /// waits for a worker again. `None` if the number is not open.
    pub fn close<S>(
        self,
        balancer: &mut Balancer,
        connections: &mut Connections<S>,
        waiting: &mut VecDeque<ConnIx>,
        times: &mut TimeCounts,
        now_us: u64,
    ) -> Option<Closed<S>> {
        let (conn, latency_us) = balancer.answered(self.member, self.seq, now_us)?;
        let taken = if self.accepted {
            balancer.taken(self.member);
            let connection = connections.remove(conn);
            if let Some(connection) = &connection {
                times.add(now_us.saturating_sub(connection.since_us));
            }
            connection
        } else {
            waiting.push_back(conn);
            None
        };
        Some(Closed { latency_us, taken })
    }
}
