//! The channels of all workers: reads lines and passes each to its mechanism, sends control lines, and handles closed
//! channels and protocol violations. Bytes and fds are in `worker::node::channel`, requests of workers in `requests`.
use super::context::Context;
use super::dispatch::{self, Dispatch};
use super::eligibility;
use super::http_probes::{HttpProbes, PROBE_SEQ};
use super::kernel_mode::groups::Groups;
use super::relay::Relay;
use super::system::System;
use super::tasks::Task;
use super::unread::{self, Budget};
use super::worker::Worker;
use super::{checkpoint, in_hand, requests};
use crate::ids::{WorkerId, WorkerIx};
use crate::limits;
use crate::supervisor::{Event, KeptConnections};
use crate::worker::node::channel::{Channel, ChannelSocket, Read, Unsendable};
use crate::worker::node::framing::Oversize;
use crate::worker::node::lines::{self, BadLine, FromWorker};
use crate::worker::node::preload_lines;
use thiserror::Error;

/// How a worker broke the protocol. The worker fails for it.
#[derive(Debug, Error)]
pub(super) enum Violation {
    /// A line that is too long.
    #[error(transparent)]
    Oversize(#[from] Oversize),
    /// A line that is not in the protocol.
    #[error(transparent)]
    BadLine(#[from] BadLine),
    /// More fds than lines that announce them.
    #[error("it sent more than {} handles at once", limits::CHANNEL_FDS_PENDING_MAX)]
    TooManyHandles,
    /// The worker does not read its answers.
    #[error(transparent)]
    Unsendable(#[from] Unsendable),
}

/// Reads channels. It borrows the mechanisms that handle the lines; all of them are below it in the order of layers.
pub(super) struct ChannelReader<'a, S: System> {
    pub(super) cx: &'a mut Context<S>,
    pub(super) dispatch: &'a mut Dispatch,
    pub(super) groups: &'a mut Groups,
    pub(super) http_probes: &'a mut HttpProbes,
    pub(super) relay: &'a mut Relay,
}

impl<S: System> ChannelReader<'_, S> {
    /// Reads one channel until it is empty, or its budget spent, and acts on every line. `to_end`: the other side may have
    /// closed, which a read that comes back short does not tell and no later event will.
    pub(super) fn read(&mut self, ix: WorkerIx, to_end: bool) {
        let budget = Budget::of(self.cx, ix);
        self.read_within(ix, to_end, budget);
    }

    /// The same for a process that has ended: what does not fit into the budget is lost.
    pub(super) fn read_last_words(&mut self, ix: WorkerIx) {
        self.read_within(ix, true, Budget::of_last_words());
    }

    fn read_within(&mut self, ix: WorkerIx, to_end: bool, budget: Budget) {
        // The channel leaves the table while its lines are worked on, so that lines may change the table.
        let Some(mut channel) = self.cx.workers.get_mut(ix).and_then(|w| w.channel.take()) else { return };
        self.dispatch.begin_reading();
        self.relay.begin_reading();
        let mut rest = budget;
        let outcome = self.read_lines(ix, &mut channel, to_end, &mut rest);
        channel.inbox.shrink();
        let (closed, blocked, owes) = (channel.closed, channel.is_blocked(), channel.owes_reading());
        if let Some(worker) = self.cx.workers.get_mut(ix) {
            worker.channel = Some(channel);
        }
        self.dispatch.end_reading(self.cx, ix);
        unread::note(self.cx, ix, budget, rest);
        unread::note_owed(self.cx, ix, owes && !closed);
        if let Ok(Some(wait_ms)) = outcome {
            unread::leave(self.cx, ix, to_end, wait_ms);
        }
        match outcome {
            Err(violation) => fail(self.cx, ix, &violation),
            Ok(_) if closed => on_closed(self.cx, ix),
            Ok(_) if blocked => self.cx.tasks.push_back(Task::AwaitWritable(ix)),
            Ok(_) => {}
        }
    }

    /// When the channel is to be read on, in milliseconds from now, where it was left with bytes in it.
    fn read_lines(
        &mut self,
        ix: WorkerIx,
        channel: &mut Channel<impl ChannelSocket>,
        to_end: bool,
        budget: &mut Budget,
    ) -> Result<Option<u64>, Violation> {
        if channel.is_read_out {
            return Ok(None);
        }
        loop {
            if !to_end && let Some(wait_ms) = self.relay.defers(self.cx, ix) {
                return Ok(Some(wait_ms));
            }
            if budget.is_spent() {
                return Ok(Some(unread::REST_MS));
            }
            if !to_end && channel.owes_reading() {
                return Ok(Some(unread::OWED_LOOK_MS));
            }
            // Lines that the last turn left come first.
            let mut read = Read::Some;
            if !channel.inbox.has_more() {
                read = channel.read();
                budget.read(channel.inbox.unread_bytes());
            }
            let worked = self.work_on_lines(ix, channel, budget);
            save_and_answer(self.cx, ix, channel);
            worked?;
            unread::bound_line(self.cx, ix, channel);
            match read {
                Read::TooManyFds => return Err(Violation::TooManyHandles),
                _ if channel.inbox.has_more() => {}
                Read::Some => {}
                Read::Last if to_end => {}
                Read::Last | Read::Nothing => return Ok(None),
                Read::Closed => {
                    (channel.closed, channel.is_read_out) = (true, true);
                    return Ok(None);
                }
            }
        }
    }

    fn work_on_lines(
        &mut self,
        ix: WorkerIx,
        channel: &mut Channel<impl ChannelSocket>,
        budget: &mut Budget,
    ) -> Result<(), Violation> {
        loop {
            // Each line may be one that is answered.
            if budget.is_spent() || channel.owes_reading() {
                return Ok(());
            }
            let (message, resumed) = match channel.inbox.next_line() {
                Ok(Some(line)) => {
                    let message = if line.is_cut { lines::decode_head(line.bytes) } else { lines::decode(line.bytes) };
                    budget.line(line.bytes.len(), message.as_ref().ok());
                    if matches!(message, Ok(FromWorker::User)) {
                        self.relay.pass_on(self.cx, ix, line);
                        budget.passed_on(self.relay.take_sent());
                    }
                    (message, line.resumed)
                }
                Ok(None) => return Ok(()),
                Err(oversize) => return Err(oversize.into()),
            };
            match message {
                Ok(FromWorker::Answer { ack, accepted: Some(accepted) }) => {
                    let is_handoff = self.dispatch.answered(self.cx, ix, ack, accepted);
                    match ack {
                        _ if is_handoff => {}
                        PROBE_SEQ => self.http_probes.taken(self.cx, ix, accepted),
                        _ if ack == self.cx.deployment.question_seq() => in_hand::answered(self.cx, ix),
                        _ => {}
                    }
                }
                Ok(FromWorker::User) => self.relay.reply(self.cx, ix, channel),
                Ok(message) => {
                    if matches!(message, FromWorker::Online { .. }) {
                        self.relay.introduce_agent_to(self.cx, ix);
                        self.relay.reply(self.cx, ix, channel);
                    }
                    requests::on_message(self, ix, channel, message)?;
                }
                // The start of a line that the previous master had read in part.
                Err(_) if resumed => {}
                Err(bad) => return Err(bad.into()),
            }
        }
    }
}

/// Saves which listeners the worker serves, then sends the answers held back until then.
pub(super) fn save_and_answer(cx: &mut Context<impl System>, ix: WorkerIx, channel: &mut Channel<impl ChannelSocket>) {
    if cx.workers.get(ix).is_some_and(|worker| worker.unnoted) {
        checkpoint::save_serves(cx, ix);
    }
    channel.flush_held();
}

/// Sends a control line to a worker. A worker that does not read its channel fails.
pub(super) fn send(cx: &mut Context<impl System>, ix: WorkerIx, line: &[u8]) {
    let Some(channel) = cx.workers.get_mut(ix).and_then(|w| w.channel.as_mut()) else { return };
    match channel.send_line(line, None) {
        Ok(()) if channel.is_blocked() => cx.tasks.push_back(Task::AwaitWritable(ix)),
        Ok(()) => {}
        Err(e) => fail(cx, ix, &e.into()),
    }
}

/// Tells the preload what becomes of kept connections, then sends the message `"shutdown"` for apps that listen for it, then Node's own disconnect, which closes the servers and
/// then the channel.
pub(super) fn say_goodbye(cx: &mut Context<impl System>, worker: WorkerId) {
    let Some(ix) = cx.workers.find(worker) else { return };
    checkpoint::save_goodbye(cx, ix);
    let is_taken = |worker: &Worker<_>| {
        cx.apps[worker.app].supervisor.kept_connections() == KeptConnections::Move && !worker.is_last
    };
    let kept = if cx.workers.get(ix).is_some_and(is_taken) { preload_lines::MOVE } else { preload_lines::END };
    send(cx, ix, kept);
    let mut line = Vec::new();
    lines::user_string(&mut line, "shutdown");
    send(cx, ix, &line);
    let Some(channel) = cx.workers.get_mut(ix).and_then(|w| w.channel.as_mut()) else { return };
    let seq = channel.next_seq();
    line.clear();
    lines::disconnect(&mut line, seq);
    send(cx, ix, &line);
}

/// The peer closed, or nothing can be sent to it. Once everything that it wrote before was read, hand-offs still open were not taken.
fn on_closed(cx: &mut Context<impl System>, ix: WorkerIx) {
    if cx.workers.get(ix).and_then(|w| w.channel.as_ref()).is_none_or(|channel| channel.is_read_out) {
        forget_poll(cx, ix);
        dispatch::take_back(cx, ix);
    }
    let now_ms = cx.now_ms;
    let Some(worker) = cx.workers.get_mut(ix) else { return };
    worker.severed_ms.get_or_insert(now_ms);
    let (app, id, drains) = (worker.app, worker.id, worker.drain.is_some());
    eligibility::recount(cx, ix);
    if drains {
        cx.tasks.push_back(Task::DrainStep(ix));
    } else {
        cx.events.push_back((app, Event::ChannelClosed { worker: id }));
    }
}

/// Fails a worker that sent bad input; no other worker is affected.
pub(super) fn fail(cx: &mut Context<impl System>, ix: WorkerIx, violation: &Violation) {
    if let Some(channel) = cx.workers.get_mut(ix).and_then(|w| w.channel.as_mut()) {
        (channel.closed, channel.is_read_out) = (true, true);
    }
    forget_poll(cx, ix);
    dispatch::take_back(cx, ix);
    eligibility::recount(cx, ix);
    let Some(worker) = cx.workers.get(ix) else { return };
    cx.events.push_back((worker.app, Event::Misbehaved { worker: worker.id, reason: violation.to_string() }));
}

/// Removes the channel from the reactor.
pub(super) fn forget_poll(cx: &mut Context<impl System>, ix: WorkerIx) {
    if let Some(channel) = cx.workers.get(ix).and_then(|w| w.channel.as_ref()) {
        cx.reactor.remove_channel(channel.as_fd());
    }
}
