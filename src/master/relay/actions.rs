//! Actions and metrics of apps that use PM2's libraries: remembers what each worker offers and measures, calls actions for
//! clients of the control API, and answers them when the workers have answered. `worker::node::actions` has the messages.
use super::Relay;
use crate::api::{Answer, ReplySender};
use crate::ids::{AppIx, WorkerId, WorkerIx};
use crate::limits::{ACTION_WAIT_MS, ACTIONS_OPEN_MAX, METRICS_PER_WORKER_MAX};
use crate::master::context::Context;
use crate::master::system::System;
use crate::master::timers::Timer;
use crate::worker::node::actions::{self, AppMessage, Metric};
use std::collections::BTreeMap;

/// What a worker offers and measures.
#[derive(Clone, Debug, Default)]
pub(in crate::master) struct Custom {
    pub(in crate::master) actions: Vec<String>,
    pub(in crate::master) metrics: BTreeMap<String, Metric>,
    /// It was logged that it has more metrics than are kept.
    told: bool,
    /// Since when it has left a question for its metrics unanswered (milliseconds).
    pub(in crate::master) asked_ms: Option<u64>,
    /// It has answered such a question.
    pub(super) answers: bool,
    /// It is to write a snapshot of its heap, which holds up its event loop.
    pub(in crate::master) writes_snapshot: bool,
}

impl Custom {
    /// Takes new values in; those of other libraries of the app stay. Returns how many were too many.
    fn take_in(&mut self, new: BTreeMap<String, Metric>) -> usize {
        let mut left_out = 0;
        for (name, metric) in new {
            if self.metrics.len() < METRICS_PER_WORKER_MAX || self.metrics.contains_key(&name) {
                self.metrics.insert(name, metric);
            } else {
                left_out += 1;
            }
        }
        left_out
    }
}

/// Calls of actions that wait for workers, oldest first.
#[derive(Default)]
pub(in crate::master) struct Actions {
    open: Vec<Open>,
}

/// An action to call.
pub(in crate::master) struct Call {
    pub(in crate::master) app: AppIx,
    /// The worker's slot; `None`: every worker that has it.
    pub(in crate::master) slot: Option<u32>,
    pub(in crate::master) action: String,
    pub(in crate::master) parameter: Option<String>,
}

struct Open {
    action: String,
    /// Workers that have not answered, with their names.
    waiting: Vec<(WorkerId, String)>,
    /// What the others have said, by name; `Err`: why they said nothing.
    said: BTreeMap<String, Result<String, String>>,
    until_ms: u64,
    reply: Option<ReplySender>,
}

impl Open {
    /// The answer, once nobody is waited for.
    fn answer(&self) -> Answer {
        let lines = |wanted: bool| self.said.iter().filter(move |(_, said)| said.is_ok() == wanted);
        let text = |(name, said): (&String, &Result<String, String>)| match said {
            Ok(value) if value.is_empty() => format!("{name}: done"),
            Ok(said) | Err(said) => format!("{name}: {said}"),
        };
        let all: Vec<String> = lines(true).chain(lines(false)).map(text).collect();
        match lines(false).next() {
            None => Answer::Done(all.join("\n")),
            Some(_) => Answer::Refused(all.join("\n")),
        }
    }
}

impl Relay {
    /// Acts on a line of PM2's libraries. Returns whether it was one.
    pub(super) fn hear_app(&mut self, cx: &mut Context<impl System>, ix: WorkerIx, line: &[u8]) -> bool {
        let Some(message) = actions::decode(line) else { return false };
        let Some(worker) = cx.workers.get_mut(ix).filter(|worker| !worker.is_beside) else { return true };
        match message {
            AppMessage::Action(name) => {
                // The next master has to know it: it is said once.
                worker.unnoted |= actions::add_action(&mut worker.custom.actions, name);
            }
            AppMessage::Metrics { all, left_out } => {
                let left_out = left_out + worker.custom.take_in(all);
                if left_out > 0 && !std::mem::replace(&mut worker.custom.told, true) {
                    let (name, slot, kept) = (&cx.apps[worker.app].name, worker.slot, worker.custom.metrics.len());
                    log::warn!(
                        "{name}/{slot}: {left_out} of the app's own metrics are not shown (of a worker, {kept} are)"
                    );
                }
            }
            AppMessage::Reply { action, value } => {
                let id = worker.id;
                self.actions.settle(cx, id, Some(&action), Ok(value));
            }
            AppMessage::Other => {}
        }
        true
    }

    /// Calls an action. The client is answered once every worker has answered, or after a time.
    pub(in crate::master) fn call_action(&mut self, cx: &mut Context<impl System>, call: Call, reply: ReplySender) {
        let Call { app, slot, action, parameter } = call;
        let those = match workers_with(cx, app, slot, &action) {
            Ok(those) if self.actions.open.len() < ACTIONS_OPEN_MAX => those,
            // The client may have left.
            Ok(_) => {
                let why = format!("{ACTIONS_OPEN_MAX} actions are waiting for their workers already");
                return drop(reply.send(Answer::Refused(why)));
            }
            Err(why) => return drop(reply.send(Answer::Refused(why))),
        };
        let until_ms = cx.now_ms + ACTION_WAIT_MS;
        let (mut waiting, mut said) = (Vec::new(), BTreeMap::new());
        for (ix, id, slot) in those {
            let name = format!("{}/{slot}", cx.apps[app].name);
            let mut line = Vec::new();
            actions::call(&mut line, &action, parameter.as_deref(), slot);
            if self.send(cx, ix, &line) {
                waiting.push((id, name));
            } else {
                said.insert(name, Err("it does not read its messages".to_owned()));
            }
        }
        self.actions.open.push(Open { action, waiting, said, until_ms, reply: Some(reply) });
        self.actions.finish(cx);
    }
}

/// The workers that have this action, with their slots.
///
/// # Errors
/// Nobody has it: what there is instead.
fn workers_with(
    cx: &Context<impl System>,
    app: AppIx,
    slot: Option<u32>,
    action: &str,
) -> Result<Vec<(WorkerIx, WorkerId, u32)>, String> {
    let rules = &cx.apps[app].supervisor;
    let of_slot = rules.workers().filter(|w| !w.phase.is_leaving() && slot.is_none_or(|slot| slot == w.slot.0));
    let all: Vec<_> = of_slot.filter_map(|w| Some((cx.workers.find(w.id)?, w.id, w.slot.0))).collect();
    let actions_of = |ix: WorkerIx| cx.workers.get(ix).map_or(&[][..], |worker| &worker.custom.actions);
    let mut known: Vec<&String> = all.iter().flat_map(|(ix, ..)| actions_of(*ix)).collect();
    let with: Vec<_> =
        all.iter().copied().filter(|(ix, ..)| actions_of(*ix).iter().any(|known| known == action)).collect();
    if !with.is_empty() {
        return Ok(with);
    }
    known.sort_unstable();
    known.dedup();
    let name = slot.map_or_else(|| cx.apps[app].name.clone(), |slot| format!("{}/{slot}", cx.apps[app].name));
    let known: Vec<&str> = known.into_iter().map(String::as_str).collect();
    Err(match known.as_slice() {
        [] => {
            format!("{name} has no actions; a Node app gets them from the package @pm2/io: io.action(name, function)")
        }
        known => format!("{name} has no action {action:?}; it has {}", known.join(", ")),
    })
}

impl Actions {
    /// A worker has said something for the oldest call of this action that waits for it (`None`: for every one).
    fn settle(
        &mut self,
        cx: &mut Context<impl System>,
        worker: WorkerId,
        action: Option<&str>,
        said: Result<String, String>,
    ) {
        for open in &mut self.open {
            if action.is_some_and(|action| action != open.action) {
                continue;
            }
            let Some(at) = open.waiting.iter().position(|(id, _)| *id == worker) else { continue };
            let (_, name) = open.waiting.swap_remove(at);
            open.said.insert(name, said.clone());
            if action.is_some() {
                break;
            }
        }
        self.finish(cx);
    }

    /// A worker is gone: nobody waits for it any more.
    pub(in crate::master) fn worker_gone(&mut self, cx: &mut Context<impl System>, worker: WorkerId) {
        if !self.open.is_empty() {
            self.settle(cx, worker, None, Err("it ended before it answered".to_owned()));
        }
    }

    /// Ends the calls whose time is over.
    pub(in crate::master) fn look(&mut self, cx: &mut Context<impl System>) {
        if !cx.timers.take_due(Timer::Actions, cx.now_ms) {
            return;
        }
        for open in self.open.iter_mut().filter(|open| open.until_ms <= cx.now_ms) {
            for (_, name) in open.waiting.drain(..) {
                open.said.insert(name, Err(format!("no answer within {} s", ACTION_WAIT_MS / 1_000)));
            }
        }
        self.finish(cx);
    }

    /// Answers clients whose workers have all answered.
    fn finish(&mut self, cx: &mut Context<impl System>) {
        self.open.retain_mut(|open| {
            if open.waiting.is_empty()
                && let Some(reply) = open.reply.take()
            {
                // The client may have left.
                let _ = reply.send(open.answer());
            }
            open.reply.is_some()
        });
        match self.open.iter().map(|open| open.until_ms).min() {
            Some(first_ms) => cx.timers.set(Timer::Actions, first_ms),
            None => cx.timers.cancel(Timer::Actions),
        }
    }
}
