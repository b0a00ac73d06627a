//! Clients of the control API that wait until a start, a reload or a stop has ended. `commands` performs the
//! operations.
use super::app::App;
use super::context::Context;
use super::one_worker;
use super::releases;
use super::system::System;
use crate::api::{Answer, ReplySender, warnings};
use crate::ids::{AppIx, Generation, Slot, WorkerId};
use crate::logs::Tail;
use crate::supervisor::{Phase, Report, SlotPhase, SlotView};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A waiting client.
struct Waiter {
    what: Wait,
    /// The apps that it concerns.
    apps: BTreeSet<AppIx>,
    reply: Option<ReplySender>,
    /// The last lines of the worker that made the operation fail.
    said: Option<Arc<Tail>>,
}

/// What a client waits for.
pub(super) enum Wait {
    /// The end of these reloads (app index to generation); the reasons of those that failed.
    /// `growing`: apps whose reload has ended, and whose added slots have no ready worker yet.
    Reload { open: BTreeMap<AppIx, Generation>, growing: BTreeSet<AppIx>, failures: Vec<String>, done: Vec<String> },
    /// The start of these apps.
    Start { open: BTreeSet<AppIx> },
    /// The replacement of one worker; `begun`: the supervisor has begun it.
    Replace { app: AppIx, slot: Slot, old: WorkerId, begun: bool },
    /// The stop of one app.
    StopApp { app: AppIx },
    /// The stop of everything.
    StopAll,
}

/// The result of a start so far.
pub(super) enum StartState {
    Pending,
    /// Every worker is ready.
    Ready(String),
    /// One of the first workers failed; its last lines.
    Failed(String, Option<Arc<Tail>>),
}

/// All waiting clients.
#[derive(Default)]
pub(super) struct Waiters {
    open: Vec<Waiter>,
}

impl Waiters {
    /// Adds a client; it is answered at once if there is nothing to wait for. A reload by a signal has no client: it is
    /// followed all the same, to log its failures.
    pub(super) fn add(&mut self, cx: &mut Context<impl System>, what: Wait, reply: Option<ReplySender>) {
        let apps = match &what {
            Wait::Reload { open, .. } => open.keys().copied().collect(),
            Wait::Start { open } => open.clone(),
            Wait::Replace { app, .. } => BTreeSet::from([*app]),
            Wait::StopApp { .. } | Wait::StopAll => BTreeSet::new(),
        };
        self.open.push(Waiter { what, apps, reply, said: None });
        self.answer_settled(cx);
    }

    /// Updates the clients that wait for a reload. `said`: the last lines of the worker that made it fail.
    pub(super) fn on_report(
        &mut self,
        cx: &Context<impl System>,
        app_ix: AppIx,
        report: &Report,
        said: Option<&Arc<Tail>>,
    ) {
        let app = &cx.apps[app_ix];
        for waiter in &mut self.open {
            if let (Wait::Replace { app, old, begun, .. }, Report::Replacing { worker, .. }) =
                (&mut waiter.what, report)
            {
                *begun |= *app == app_ix && worker == old;
            }
            let Wait::Reload { open, growing, failures, .. } = &mut waiter.what else { continue };
            match report {
                Report::ReloadDone { to } if open.get(&app_ix) == Some(to) => {
                    open.remove(&app_ix);
                    growing.insert(app_ix);
                }
                Report::ReloadFailed { to, reason } if open.get(&app_ix) == Some(to) => {
                    open.remove(&app_ix);
                    failures.push(format!("{}: {reason}; {}", app.name, app.remaining_service()));
                    waiter.said = waiter.said.take().or_else(|| said.cloned());
                }
                Report::ReloadSuperseded { to, by } if open.get(&app_ix) == Some(to) => {
                    // A later reload includes everything of this one.
                    open.insert(app_ix, *by);
                }
                _ => {}
            }
        }
    }

    /// Answers clients whose operation has ended.
    pub(super) fn answer_settled(&mut self, cx: &mut Context<impl System>) {
        let apps = &cx.apps;
        let mut told = BTreeSet::new();
        for waiter in &mut self.open {
            if let Wait::Reload { growing, failures, done, .. } = &mut waiter.what {
                growing.retain(|&ix| match growth(&apps[ix]) {
                    Growth::Pending => true,
                    Growth::Done => {
                        done.push(releases::reloaded_words(&apps[ix]));
                        false
                    }
                    Growth::Failed(why) => {
                        failures.push(why);
                        false
                    }
                });
            }
            let answer = match &waiter.what {
                Wait::Reload { open, growing, .. } if !(open.is_empty() && growing.is_empty()) => continue,
                Wait::Reload { failures, done, .. } if failures.is_empty() => {
                    Answer::Done(format!("reloaded {}", done.join(", ")))
                }
                Wait::Reload { failures, .. } => {
                    Answer::Failed { error: failures.join("; "), said: waiter.said.clone() }
                }
                Wait::Start { open } => {
                    let states: Vec<StartState> = open.iter().map(|&ix| apps[ix].start_state()).collect();
                    match outcome(states) {
                        Some(answer) => answer,
                        None => continue,
                    }
                }
                Wait::Replace { begun: false, .. } => continue,
                Wait::Replace { app, slot, old, .. } => match one_worker::outcome(&apps[*app], *slot, *old) {
                    Some(answer) => answer,
                    None => continue,
                },
                Wait::StopApp { app } if apps[*app].supervisor.is_stopped() => {
                    let what = if apps[*app].deleted { "is deleted" } else { "has stopped" };
                    Answer::Done(format!("{} {what}", apps[*app].name))
                }
                Wait::StopApp { app } if !apps[*app].closed && !apps[*app].is_stopping() => {
                    Answer::Done(format!("{} has stopped, and was started again", apps[*app].name))
                }
                Wait::StopAll if apps.iter().all(|a| a.supervisor.is_stopped()) => {
                    Answer::Done(format!("{} has stopped", cx.deployment.name))
                }
                Wait::StopApp { .. } | Wait::StopAll => continue,
            };
            let reads_on = || waiter.apps.iter().any(|&ix| apps[ix].awaited.is_some());
            if matches!(answer, Answer::Failed { said: Some(_), .. }) && reads_on() {
                continue;
            }
            if let Some(reply) = waiter.reply.take() {
                // The client may have left.
                let _ = reply.send(with_warnings(cx, &waiter.apps, answer));
                told.extend(waiter.apps.iter().copied());
            }
        }
        for ix in told {
            cx.apps[ix].warned_before = warnings::count();
        }
        let is_open = |open: &BTreeMap<_, _>, growing: &BTreeSet<_>| !(open.is_empty() && growing.is_empty());
        self.open.retain(|w| {
            w.reply.is_some() || matches!(&w.what, Wait::Reload { open, growing, .. } if is_open(open, growing))
        });
    }
}

/// What became of the slots that a reload has added.
enum Growth {
    Pending,
    Done,
    /// One has failed: the sentence.
    Failed(String),
}

fn growth(app: &App) -> Growth {
    let supervisor = &app.supervisor;
    if supervisor.is_stopping() || supervisor.is_over() || supervisor.serving_count() >= supervisor.wanted_count() {
        return Growth::Done;
    }
    let failed = |slot: &SlotView| matches!(slot.phase, SlotPhase::Waiting { .. } | SlotPhase::Errored);
    let starts = |slot: SlotView| {
        slot.phase == SlotPhase::Filled
            && slot.current.is_none_or(|worker| !matches!(worker.phase, Phase::Ready { .. }))
    };
    let failed = supervisor.slots().position(|slot| failed(&slot)).and_then(|slot| u32::try_from(slot).ok());
    let Some(slot) = failed else {
        return if supervisor.slots().any(starts) { Growth::Pending } else { Growth::Done };
    };
    let note = app.slot_notes.get(&slot).map(|note| format!(": {note}")).unwrap_or_default();
    let (serving, wanted) = (supervisor.serving_count(), supervisor.wanted_count());
    let name = &app.name;
    Growth::Failed(format!("{name}: reloaded, but {serving} of {wanted} workers serve; {name}/{slot} failed{note}"))
}

/// The answer with what was logged as a warning since the command, but for what concerns other apps.
fn with_warnings(cx: &Context<impl System>, meant: &BTreeSet<AppIx>, answer: Answer) -> Answer {
    let Some(before) = meant.iter().map(|&ix| cx.apps[ix].warned_before).min() else { return answer };
    let others: Vec<&App> = cx.apps.entries().filter(|(ix, _)| !meant.contains(ix)).map(|(_, app)| app).collect();
    let warnings = warnings::since(before, |text| !others.iter().any(|app| warnings::is_about(text, &app.name)));
    if warnings.is_empty() { answer } else { Answer::Warned { answer: Box::new(answer), warnings } }
}

/// The result of several starts: known once all have ended, or one has failed.
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
