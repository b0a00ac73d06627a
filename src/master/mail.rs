//! Messages between an app's agent and its workers: who gets them, and what becomes of them when somebody does not read.
//! Their shapes are in `worker::node::messages`.
//!
//! Each receiver has a bounded queue. A full one costs its owner the message, and nobody else anything. An agent that
//! sends faster than a worker reads is held up (its channel is not read) as long as that worker reads at all; a worker
//! never is, because its answers to hand-offs come over the same channel.
use super::Master;
use super::drains::Goodbye;
use super::worker::Worker;
use crate::ids::{AppIx, WorkerIx};
use crate::limits;
use crate::supervisor::{Event, Evidence, Phase};
use crate::worker::node::channel::Channel;
use crate::worker::node::messages::{self, From, Message, To};

/// What the master has to remember of messages that are under way.
#[derive(Default)]
pub(super) struct Post {
    /// Lines for the process whose channel is being read right now.
    own: Vec<Vec<u8>>,
    /// What this turn may still pass on, in bytes.
    pub(super) budget_bytes: usize,
    /// Channels that were left with bytes in them.
    pub(super) unread: Vec<WorkerIx>,
    /// Some of them because of somebody who has to read first.
    held_up: bool,
    /// Whose turn it is, of those that a message to any of them may go to.
    turn: usize,
}

impl Master {
    /// When channels that were left have to be looked at again, in milliseconds from now.
    pub(super) fn post_timeout_ms(&self) -> Option<u64> {
        let wait_ms = if self.post.held_up { limits::MESSAGES_PAUSE_LOOK_MS } else { 0 };
        (!self.post.unread.is_empty()).then_some(wait_ms)
    }

    /// Begins a turn: what was left in channels goes on.
    pub(super) fn go_on_with_post(&mut self) {
        self.post.budget_bytes = limits::MESSAGES_PER_TURN_BYTES_MAX;
        self.post.held_up = false;
        for ix in std::mem::take(&mut self.post.unread) {
            self.read_channel(ix, false);
        }
    }

    /// Whether a channel is to be left alone for now: this turn has passed on enough, or somebody has to read first.
    pub(super) fn leaves_post(&mut self, ix: WorkerIx) -> bool {
        let Some(worker) = self.cx.workers.get(ix) else { return false };
        let held_up = worker.is_agent && self.is_held_up(worker.app);
        if !held_up && self.post.budget_bytes > 0 {
            return false;
        }
        self.post.held_up |= held_up;
        if !self.post.unread.contains(&ix) {
            self.post.unread.push(ix);
        }
        true
    }

    /// Whether a worker of this app has much to read, and reads.
    fn is_held_up(&self, app: AppIx) -> bool {
        self.cx.workers.iter().any(|(_, w)| {
            let is_high = w.channel.as_ref().is_some_and(|channel| channel.is_high() && !channel.closed);
            w.app == app && !w.is_agent && is_high && self.cx.now_ms < w.mail.read_ms + limits::MESSAGES_STALL_MS
        })
    }

    /// A line of the user's. Where it is a message, whoever it is for gets it. What the sender itself is to get waits
    /// for [`Master::own_post`]: its channel is being read.
    pub(super) fn pass_on(&mut self, from_ix: WorkerIx, line: &[u8]) {
        let Some(sender) = self.cx.workers.get(from_ix) else { return };
        let (app, id, is_agent) = (sender.app, sender.id, sender.is_agent);
        if !is_agent && self.cx.apps[app].supervisor.agent().is_none() {
            return;
        }
        let Some(decoded) = messages::decode(line, is_agent) else { return };
        let mut out = Vec::new();
        let message = match decoded {
            Ok(message) => message,
            Err(bad) => {
                bad.render(&mut out);
                return self.post.own.push(out);
            }
        };
        if is_agent && message.is_agent_start() {
            self.cx.events.push_back((app, Event::Evidence { worker: id, evidence: Evidence::Message }));
        }
        let (receivers, mut why) = self.receivers(app, from_ix, &message);
        let mut missed = usize::from(receivers.is_empty());
        if line.len() > limits::MESSAGE_BYTES_MAX {
            missed = receivers.len().max(1);
            why = "the message is too large";
        } else {
            let from = self.sender(from_ix);
            message.render(from, &mut out);
            for receiver in receivers {
                if receiver == from_ix {
                    self.post.own.push(out.clone());
                } else if !self.post(receiver, &out) {
                    missed += 1;
                    why = "it does not read its messages";
                }
            }
        }
        if missed > 0 && message.wants_answer() {
            let mut answer = Vec::new();
            message.render_undelivered(missed, why, &mut answer);
            self.post.own.push(answer);
        }
    }

    fn sender(&self, ix: WorkerIx) -> From {
        let Some(worker) = self.cx.workers.get(ix).filter(|worker| !worker.is_agent) else { return From::Agent };
        let slot = self.cx.apps[worker.app].supervisor.worker(worker.id).map_or(0, |view| view.slot.0);
        From::Worker { slot, pid: worker.pid.unwrap_or_default() }
    }

    /// Whom a message goes to, and why to nobody.
    fn receivers(&mut self, app: AppIx, from: WorkerIx, message: &Message<'_>) -> (Vec<WorkerIx>, &'static str) {
        // The sender's channel is being read, and so is in no table.
        let reads = |ix: WorkerIx, w: &Worker| w.app == app && (ix == from || can_read(w));
        let one = |found: Option<WorkerIx>| found.into_iter().collect::<Vec<_>>();
        match message.to {
            To::Master => (Vec::new(), "nobody is there"),
            To::Agent => {
                let agent = self.ready_agent_ix(app);
                let agent = agent.filter(|&ix| self.cx.workers.get(ix).is_some_and(|w| reads(ix, w)));
                (one(agent), "there is no agent that is ready and has a channel")
            }
            To::Workers => {
                let all = self.cx.workers.iter().filter(|(ix, w)| !w.is_agent && reads(*ix, w));
                (all.map(|(ix, _)| ix).collect(), "there is no worker that reads messages")
            }
            To::Random => (one(self.any_worker(app, from)), "there is no other worker that reads messages"),
            To::Slot(slot) => {
                let worker = self.cx.apps[app].supervisor.slots().nth(slot as usize).and_then(|slot| slot.current);
                let found = worker.and_then(|worker| self.cx.workers.find(worker.id));
                let found = found.filter(|&ix| self.cx.workers.get(ix).is_some_and(|w| reads(ix, w)));
                (one(found), "no worker of that slot reads messages")
            }
            To::Pid(pid) => {
                let found = self.cx.workers.iter().find(|(ix, w)| w.pid == Some(pid) && reads(*ix, w));
                (one(found.map(|(ix, _)| ix)), "no process of the app has that pid and reads messages")
            }
        }
    }

    /// A ready worker; the sender only if there is no other.
    fn any_worker(&mut self, app: AppIx, from: WorkerIx) -> Option<WorkerIx> {
        let is_ready = |w: &Worker| {
            let view = self.cx.apps[app].supervisor.worker(w.id);
            view.is_some_and(|view| matches!(view.phase, Phase::Ready { .. }))
        };
        let mut all: Vec<WorkerIx> = self
            .cx
            .workers
            .iter()
            .filter(|(ix, w)| w.app == app && !w.is_agent && (*ix == from || can_read(w)) && is_ready(w))
            .map(|(ix, _)| ix)
            .collect();
        if all.len() > 1 {
            all.retain(|ix| *ix != from);
        }
        self.post.turn = self.post.turn.wrapping_add(1);
        let place = self.post.turn.checked_rem(all.len())?;
        all.get(place).copied()
    }

    /// Puts a line into a receiver's queue. Whether there was room.
    pub(super) fn post(&mut self, ix: WorkerIx, line: &[u8]) -> bool {
        let now_ms = self.cx.now_ms;
        let Some(worker) = self.cx.workers.get_mut(ix).filter(|worker| can_read(worker)) else { return false };
        let Some(channel) = worker.channel.as_mut() else { return false };
        if !channel.is_blocked() {
            worker.mail.read_ms = now_ms;
        }
        self.post.budget_bytes = self.post.budget_bytes.saturating_sub(line.len() + limits::MESSAGE_ID_BYTES_MAX);
        let sent = channel.send_message(line);
        let blocked = channel.is_blocked();
        if sent.is_err() {
            worker.mail.lost += 1;
            self.tell_lost(ix);
        }
        if blocked {
            self.scarce.await_writable(&mut self.cx, ix);
        }
        sent.is_ok()
    }

    /// A receiver whose messages waited has taken some of them.
    pub(super) fn has_read(&mut self, ix: WorkerIx, any: bool) {
        let now_ms = self.cx.now_ms;
        if let Some(worker) = self.cx.workers.get_mut(ix).filter(|_| any) {
            worker.mail.read_ms = now_ms;
        }
    }

    /// A worker's Node has started: it learns who the agent is, before its own code runs.
    pub(super) fn introduce(&mut self, ix: WorkerIx) {
        let Some(worker) = self.cx.workers.get(ix).filter(|worker| !worker.is_agent) else { return };
        if self.cx.apps[worker.app].supervisor.agent().is_some() {
            self.post.own.extend(self.agents_pid(worker.app));
        }
    }

    /// What the process whose channel was just read is to get itself.
    pub(super) fn own_post(&mut self, ix: WorkerIx, channel: &mut Channel) {
        for line in std::mem::take(&mut self.post.own) {
            if channel.send_message(&line).is_err()
                && let Some(worker) = self.cx.workers.get_mut(ix)
            {
                worker.mail.lost += 1;
            }
        }
    }

    fn tell_lost(&mut self, ix: WorkerIx) {
        let now_ms = self.cx.now_ms;
        let Some(worker) = self.cx.workers.get_mut(ix) else { return };
        let mail = &mut worker.mail;
        if mail.told_ms.is_some_and(|at| now_ms < at + limits::MESSAGES_TOLD_EVERY_MS) {
            return;
        }
        let new = mail.lost - mail.told;
        (mail.told_ms, mail.told) = (Some(now_ms), mail.lost);
        let who = if worker.is_agent { "agent".to_owned() } else { format!("worker {}", worker.id) };
        let name = &self.cx.apps[worker.app].name;
        log::warn!("{name}: {who} does not read its messages: {new} were lost, {} in all", worker.mail.lost);
    }

    /// Whether a line is out in part, which a successor could not go on with.
    pub(super) fn has_cut_lines(&self) -> bool {
        self.cx.workers.iter().any(|(_, w)| w.channel.as_ref().is_some_and(Channel::is_cut))
    }
}

/// Whether a process would see a message: Node drops what comes after a `disconnect`.
fn can_read(worker: &Worker) -> bool {
    worker.goodbye == Goodbye::Unsaid && worker.channel.as_ref().is_some_and(|channel| !channel.closed)
}
