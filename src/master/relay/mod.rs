//! The relay of messages between an app's agent and its workers: chooses the receivers, and handles receivers that do
//! not read. `worker::node::messages` defines the messages; `announcements` sends the master's own ones.
//!
//! Each receiver has a bounded queue. When the queue is full its owner loses messages, and nobody else is affected. An
//! agent that sends faster than a worker reads is held up (its channel is not read) as long as that worker reads at
//! all. A worker is never held up, because its answers to hand-offs come over the same channel.
mod actions;
mod adapter;
mod announcements;
pub(super) mod app_metrics;
mod profiles;

pub(super) use actions::{Call, Custom};
pub(super) use profiles::Wanted;

use super::context::Context;
use super::drains::Goodbye;
use super::tasks::Task;
use super::worker::Worker;
use crate::ids::{AppIx, WorkerIx};
use crate::limits;
use crate::master::system::System;
use crate::supervisor::{Event, Evidence, Phase};
use crate::worker::node::channel::{Channel, ChannelSocket};
use crate::worker::node::framing::Line;
use crate::worker::node::messages::{self, From, Message, To};

/// A receiver that has read nothing for this time no longer holds the agent up, in milliseconds.
const MESSAGES_STALL_MS: u64 = 200;

/// How often a held-up agent is checked, in milliseconds.
const MESSAGES_PAUSE_LOOK_MS: u64 = 5;

/// Messages of one sender that are relayed per turn of the loop, in bytes (each counts for 256 more).
const MESSAGES_PER_TURN_BYTES_MAX: usize = 512 * 1024;

/// How often a process that does not read its messages is logged, in milliseconds.
const MESSAGES_TOLD_EVERY_MS: u64 = 10_000;

/// State of the relay.
#[derive(Default)]
pub(super) struct Relay {
    /// Lines for the process whose channel is being read.
    replies: Vec<Vec<u8>>,
    /// What the process whose channel is being read may still have passed on, in bytes.
    budget_bytes: usize,
    /// Lines that were sent since that was last asked.
    sent: u32,
    /// What may still wait for the receivers of an app, in bytes, and when that was counted (milliseconds).
    room: Option<(AppIx, u64, usize)>,
    /// Round-robin position for messages to any worker.
    turn: usize,
    /// Calls of actions that wait for workers.
    pub(super) actions: actions::Actions,
    /// The scrape of apps' metrics under way.
    pub(super) metrics: app_metrics::Collection,
    /// Profiles that workers are taking.
    pub(super) profiles: profiles::Profiles,
}

/// A process as a receiver of messages.
#[derive(Clone, Debug, Default)]
pub(super) struct Receiver {
    /// When it last read queued messages (milliseconds).
    read_ms: u64,
    /// Messages lost because its queue was full.
    pub(super) lost: u64,
    /// When losses were last logged (milliseconds), and the number lost by then.
    reported_ms: Option<u64>,
    reported_lost: u64,
    /// It was told that the app is ready (apps with an agent).
    pub(super) greeted: bool,
    /// Ids of its adapters of socket.io.
    adapters: Vec<String>,
}

impl Relay {
    /// A channel is about to be read.
    pub(super) fn begin_reading(&mut self) {
        self.budget_bytes = MESSAGES_PER_TURN_BYTES_MAX;
        self.sent = 0;
        self.room = None;
    }

    /// How many lines were sent since the last call.
    pub(super) fn take_sent(&mut self) -> u32 {
        std::mem::take(&mut self.sent)
    }

    /// After how many milliseconds a channel is to be read on that is left alone for now: enough of it was passed on, or
    /// somebody has to read first.
    pub(super) fn defers(&self, cx: &Context<impl System>, ix: WorkerIx) -> Option<u64> {
        let worker = cx.workers.get(ix)?;
        if worker.is_beside && has_slow_reader(cx, worker.app) {
            return Some(MESSAGES_PAUSE_LOOK_MS);
        }
        (self.budget_bytes == 0).then_some(0)
    }

    /// Relays a line if it is a message. Messages for the sender itself wait for [`Relay::reply`], because its channel
    /// is being read.
    pub(super) fn pass_on(&mut self, cx: &mut Context<impl System>, from_ix: WorkerIx, line: Line<'_>) {
        let Some(sender) = cx.workers.get(from_ix) else { return };
        let (app, id, is_agent) = (sender.app, sender.id, sender.is_beside);
        if !is_agent && self.hear_metrics(cx, from_ix, line) {
            return;
        }
        if !is_agent && !line.is_cut && self.hear_app(cx, from_ix, line.bytes) {
            return;
        }
        if !is_agent && let Some(message) = adapter::message(cx, from_ix, line) {
            return self.pass_on_adapters(cx, from_ix, &message, line.bytes);
        }
        if !is_agent && cx.apps[app].supervisor.agent().is_none() {
            return;
        }
        let decoded =
            if line.is_cut { messages::decode_head(line.bytes) } else { messages::decode(line.bytes, is_agent) };
        let Some(decoded) = decoded else { return };
        let mut out = Vec::new();
        let message = match decoded {
            Ok(message) => message,
            Err(bad) => {
                bad.render(&mut out);
                return self.replies.push(out);
            }
        };
        if is_agent && message.is_agent_start() {
            cx.push_news(app, Event::Evidence { worker: id, evidence: Evidence::Message });
        }
        let (receivers, mut why) = self.receivers(cx, app, from_ix, &message);
        let mut missed = usize::from(receivers.is_empty());
        if line.is_cut || line.bytes.len() > limits::MESSAGE_BYTES_MAX {
            missed = receivers.len().max(1);
            why = "the message is too large";
        } else {
            message.render(sender_of(cx, from_ix), &mut out);
            for receiver in receivers {
                if receiver == from_ix {
                    self.replies.push(out.clone());
                } else if !self.send(cx, receiver, &out) {
                    missed += 1;
                    why = "it does not read its messages";
                }
            }
        }
        if missed > 0 && message.wants_answer() {
            let mut answer = Vec::new();
            message.render_undelivered(missed, why, &mut answer);
            self.replies.push(answer);
        }
    }

    /// The receivers of a message, or why there are none.
    fn receivers(
        &mut self,
        cx: &Context<impl System>,
        app: AppIx,
        from: WorkerIx,
        message: &Message<'_>,
    ) -> (Vec<WorkerIx>, &'static str) {
        // The sender's channel is being read, and so is not in the table.
        let reads = |ix: WorkerIx, w: &Worker<_>| w.app == app && (ix == from || can_read(w));
        let one = |found: Option<WorkerIx>| found.into_iter().collect::<Vec<_>>();
        match message.to {
            To::Master => (Vec::new(), "nobody is there"),
            To::Agent => {
                let agent = ready_agent(cx, app);
                let agent = agent.filter(|&ix| cx.workers.get(ix).is_some_and(|w| reads(ix, w)));
                (one(agent), "there is no agent that is ready and has a channel")
            }
            To::Workers => {
                let all = cx.workers.iter().filter(|(ix, w)| !w.is_beside && reads(*ix, w));
                (all.map(|(ix, _)| ix).collect(), "there is no worker that reads messages")
            }
            To::Random => (one(self.any_worker(cx, app, from)), "there is no other worker that reads messages"),
            To::Slot(slot) => {
                let worker = cx.apps[app].supervisor.slots().nth(slot as usize).and_then(|slot| slot.current);
                let found = worker.and_then(|worker| cx.workers.find(worker.id));
                let found = found.filter(|&ix| cx.workers.get(ix).is_some_and(|w| reads(ix, w)));
                (one(found), "no worker of that slot reads messages")
            }
            To::Pid(pid) => {
                let found = cx.workers.iter().find(|(ix, w)| w.pid == Some(pid) && reads(*ix, w));
                (one(found.map(|(ix, _)| ix)), "no process of the app has that pid and reads messages")
            }
        }
    }

    /// A ready worker; the sender only if there is no other.
    fn any_worker(&mut self, cx: &Context<impl System>, app: AppIx, from: WorkerIx) -> Option<WorkerIx> {
        let is_ready = |w: &Worker<_>| {
            let view = cx.apps[app].supervisor.worker(w.id);
            view.is_some_and(|view| matches!(view.phase, Phase::Ready { .. }))
        };
        let mut all: Vec<WorkerIx> = cx
            .workers
            .iter()
            .filter(|(ix, w)| w.app == app && !w.is_beside && (*ix == from || can_read(w)) && is_ready(w))
            .map(|(ix, _)| ix)
            .collect();
        if all.len() > 1 {
            all.retain(|ix| *ix != from);
        }
        self.turn = self.turn.wrapping_add(1);
        let place = self.turn.checked_rem(all.len())?;
        all.get(place).copied()
    }

    /// Adds a line to a receiver's queue. Returns whether there was room.
    fn send(&mut self, cx: &mut Context<impl System>, ix: WorkerIx, line: &[u8]) -> bool {
        let now_ms = cx.now_ms;
        let Some(worker) = cx.workers.get_mut(ix).filter(|worker| can_read(worker)) else { return false };
        let Some(channel) = worker.channel.as_mut() else { return false };
        if !channel.is_blocked() {
            worker.receiver.read_ms = now_ms;
        }
        self.budget_bytes = self.budget_bytes.saturating_sub(line.len() + limits::MESSAGE_ID_BYTES_MAX);
        self.sent = self.sent.saturating_add(1);
        let is_full = channel.is_blocked() && !self.takes_room(cx, ix, line.len());
        let Some(worker) = cx.workers.get_mut(ix) else { return false };
        let Some(channel) = worker.channel.as_mut() else { return false };
        let sent = !is_full && channel.send_message(line).is_ok();
        let blocked = channel.is_blocked();
        if !sent {
            worker.receiver.lost += 1;
            report_lost(cx, ix);
        }
        if blocked {
            cx.tasks.push_back(Task::AwaitWritable(ix));
        }
        sent
    }

    /// Whether another line may wait for a receiver that does not read. The receivers of the app are counted once for each
    /// sender that is read.
    fn takes_room(&mut self, cx: &Context<impl System>, ix: WorkerIx, bytes: usize) -> bool {
        let Some(app) = cx.workers.get(ix).map(|worker| worker.app) else { return false };
        let counted = self.room.filter(|(of, at_ms, _)| (*of, *at_ms) == (app, cx.now_ms)).map(|(_, _, room)| room);
        let room = counted.unwrap_or_else(|| {
            let channels = cx.workers.iter().filter(|(_, w)| w.app == app).filter_map(|(_, w)| w.channel.as_ref());
            let waiting: usize = channels.map(Channel::waiting_bytes).sum();
            limits::MESSAGES_WAITING_APP_BYTES_MAX.saturating_sub(waiting)
        });
        let fits = bytes <= room;
        self.room = Some((app, cx.now_ms, if fits { room - bytes } else { room }));
        fits
    }

    /// Sends the lines for the process whose channel was just read.
    pub(super) fn reply(
        &mut self,
        cx: &mut Context<impl System>,
        ix: WorkerIx,
        channel: &mut Channel<impl ChannelSocket>,
    ) {
        for line in self.replies.drain(..) {
            if channel.send_message(&line).is_err()
                && let Some(worker) = cx.workers.get_mut(ix)
            {
                worker.receiver.lost += 1;
            }
        }
    }
}

impl Receiver {
    /// The receiver has read queued messages.
    pub(super) fn has_read(&mut self, now_ms: u64) {
        self.read_ms = now_ms;
    }
}

/// Whether a worker of this app is behind, but still reads.
fn has_slow_reader(cx: &Context<impl System>, app: AppIx) -> bool {
    cx.workers.iter().any(|(_, w)| {
        let is_high = w.channel.as_ref().is_some_and(|channel| channel.is_high() && !channel.closed);
        w.app == app && !w.is_beside && is_high && cx.now_ms < w.receiver.read_ms + MESSAGES_STALL_MS
    })
}

fn sender_of(cx: &Context<impl System>, ix: WorkerIx) -> From {
    let Some(worker) = cx.workers.get(ix).filter(|worker| !worker.is_beside) else { return From::Agent };
    let slot = cx.apps[worker.app].supervisor.worker(worker.id).map_or(0, |view| view.slot.0);
    From::Worker { slot, pid: worker.pid.unwrap_or_default() }
}

fn ready_agent(cx: &Context<impl System>, app: AppIx) -> Option<WorkerIx> {
    cx.apps[app].supervisor.ready_agent().and_then(|agent| cx.workers.find(agent))
}

/// Whether a process would see a message: Node drops messages after a `disconnect`.
fn can_read(worker: &Worker<impl System>) -> bool {
    worker.goodbye == Goodbye::Unsaid && worker.channel.as_ref().is_some_and(|channel| !channel.closed)
}

/// Logs from time to time how many messages a receiver lost.
fn report_lost(cx: &mut Context<impl System>, ix: WorkerIx) {
    let now_ms = cx.now_ms;
    let Some(worker) = cx.workers.get_mut(ix) else { return };
    let receiver = &mut worker.receiver;
    if receiver.reported_ms.is_some_and(|at| now_ms < at + MESSAGES_TOLD_EVERY_MS) {
        return;
    }
    let (lost, new) = (receiver.lost, receiver.lost - receiver.reported_lost);
    (receiver.reported_ms, receiver.reported_lost) = (Some(now_ms), lost);
    let who = if worker.is_beside { "agent".to_owned() } else { format!("worker {}", worker.id) };
    let name = &cx.apps[worker.app].name;
    log::warn!("{name}: {who} does not read its messages: {new} were dropped, {lost} in all");
}

/// Whether a line was sent in part, which a successor could not continue.
pub(super) fn has_cut_lines(cx: &Context<impl System>) -> bool {
    cx.workers.iter().any(|(_, w)| w.channel.as_ref().is_some_and(Channel::is_cut))
}
