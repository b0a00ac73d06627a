//! Who waits for what: clients of the control API whose answer comes when a start, a reload or a stop has ended. What is
//! done for them is `commands`' business.
use super::context::Context;
use crate::api::{Answer, ReplySender};
use crate::ids::{AppIx, Generation};
use crate::logs::Tail;
use crate::supervisor::Report;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A client that is answered when something has ended.
struct Waiter {
    what: Wait,
    reply: Option<ReplySender>,
    /// What the worker printed that made it fail.
    said: Option<Arc<Tail>>,
}

/// What has to end.
pub(super) enum Wait {
    /// These reloads (app index to generation); the text of those that failed.
    Reload { open: BTreeMap<AppIx, Generation>, failures: Vec<String>, done: Vec<String> },
    /// The start of these apps.
    Start { open: BTreeSet<AppIx> },
    /// The stop of one app.
    StopApp { app: AppIx },
    /// The stop of everything.
    StopAll,
}

/// What came of a start, as far as it is known.
pub(super) enum StartState {
    /// Nothing yet.
    Pending,
    /// Every worker is ready.
    Ready(String),
    /// One of its first workers failed; what it printed.
    Failed(String, Option<Arc<Tail>>),
}

/// Everybody who waits.
#[derive(Default)]
pub(super) struct Waiters {
    open: Vec<Waiter>,
}

impl Waiters {
    /// Has a client wait; it is answered at once when there is nothing to wait for. Nobody may wait for a reload that a
    /// signal asked for: it is followed all the same, for its failures.
    pub(super) fn add(&mut self, cx: &Context, what: Wait, reply: Option<ReplySender>) {
        self.open.push(Waiter { what, reply, said: None });
        self.answer_settled(cx);
    }

    /// Notes what a report means for who waits for a reload. `said`: what the worker printed that made it fail.
    pub(super) fn on_report(&mut self, cx: &Context, app_ix: AppIx, report: &Report, said: Option<&Arc<Tail>>) {
        let app = &cx.apps[app_ix];
        for waiter in &mut self.open {
            let Wait::Reload { open, failures, done } = &mut waiter.what else { continue };
            match report {
                Report::ReloadDone { to } if open.get(&app_ix) == Some(to) => {
                    open.remove(&app_ix);
                    done.push(app.name.clone());
                }
                Report::ReloadFailed { to, reason } if open.get(&app_ix) == Some(to) => {
                    open.remove(&app_ix);
                    failures.push(format!("{}: {reason}; {}", app.name, app.serves_still()));
                    waiter.said = waiter.said.take().or_else(|| said.cloned());
                }
                Report::ReloadSuperseded { to, by } if open.get(&app_ix) == Some(to) => {
                    // The later one brings whatever this one was to bring.
                    open.insert(app_ix, *by);
                }
                _ => {}
            }
        }
    }

    /// Answers those whose matter has ended.
    pub(super) fn answer_settled(&mut self, cx: &Context) {
        let apps = &cx.apps;
        for waiter in &mut self.open {
            let answer = match &waiter.what {
                Wait::Reload { open, .. } if !open.is_empty() => continue,
                Wait::Reload { failures, done, .. } if failures.is_empty() => {
                    Answer::Done(format!("reloaded {}", done.join(", ")))
                }
                Wait::Reload { failures, .. } => {
                    Answer::Failed { error: failures.join("; "), said: waiter.said.take() }
                }
                Wait::Start { open } => {
                    let states: Vec<StartState> = open.iter().map(|&ix| apps[ix].start_state()).collect();
                    match outcome(states) {
                        Some(answer) => answer,
                        None => continue,
                    }
                }
                Wait::StopApp { app } if apps[*app].supervisor.is_stopped() => {
                    let what = if apps[*app].deleted { "is deleted" } else { "has stopped" };
                    Answer::Done(format!("{} {what}", apps[*app].name))
                }
                Wait::StopAll if apps.iter().all(|a| a.supervisor.is_stopped()) => {
                    Answer::Done(format!("{} has stopped", cx.deployment.name))
                }
                Wait::StopApp { .. } | Wait::StopAll => continue,
            };
            if let Some(reply) = waiter.reply.take() {
                // The client may have left.
                let _ = reply.send(answer);
            }
        }
        self.open.retain(|w| w.reply.is_some() || matches!(&w.what, Wait::Reload { open, .. } if !open.is_empty()));
    }
}

/// What came of several starts, once it is known of all, or one has failed.
fn outcome(states: Vec<StartState>) -> Option<Answer> {
    let mut ready = Vec::new();
    let mut pending = false;
    for state in states {
        match state {
            StartState::Failed(error, said) => return Some(Answer::Failed { error, said }),
            StartState::Ready(text) => ready.push(text),
            StartState::Pending => pending = true,
        }
    }
    (!pending).then(|| Answer::Done(ready.join("\n")))
}
