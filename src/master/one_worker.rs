//! Commands about one worker of an app: its replacement by another, and signals to it alone. `commands` calls them; that the
//! replacement happens is up to the supervisor.
use super::app::App;
use super::context::Context;
use super::lifecycle::refusal_while_stopped;
use super::system::System;
use super::waiters::Wait;
use crate::api::Answer;
use crate::ids::{AppIx, Slot, WorkerId};
use crate::os::signal as signals;
use crate::supervisor::{Event, Excess, Phase, SlotPhase};

/// Whether the app has this slot.
///
/// # Errors
/// It has not: the answer names those that it has.
pub(super) fn check_slot(cx: &Context<impl System>, ix: AppIx, slot: Slot) -> Result<(), Answer> {
    let app = &cx.apps[ix];
    match app.supervisor.slot_count() {
        count if slot.0 < count => Ok(()),
        0 | 1 => Err(Answer::NotFound(format!("{0} has no worker {slot}, only {0}/0", app.name))),
        count => Err(Answer::NotFound(format!("{0} has no worker {slot}, only {0}/0 to {0}/{1}", app.name, count - 1))),
    }
}

/// Begins the replacement of the worker in a slot. Returns what the client waits for.
///
/// # Errors
/// The answer, if there is nothing to replace now.
pub(super) fn replace(cx: &mut Context<impl System>, ix: AppIx, slot: Slot) -> Result<Wait, Answer> {
    check_slot(cx, ix, slot)?;
    if let Some(why) = refusal_while_stopped(cx, ix) {
        return Err(Answer::Refused(why));
    }
    let app = &mut cx.apps[ix];
    let name = &app.name;
    if app.supervisor.is_replacing() {
        return Err(Answer::Refused(format!(
            "{name}/{slot}: another worker of {name} is being replaced; try again once it serves"
        )));
    }
    let current = app.supervisor.slot(slot).and_then(|slot| slot.current);
    let Some(worker) = current.filter(|worker| matches!(worker.phase, Phase::Ready { .. })) else {
        let why =
            format!("{name}/{slot} has no worker that is ready; clusterd restart {name} starts all of them again");
        return Err(Answer::Refused(why));
    };
    // What is kept here from now on is of the replacement.
    app.last_words = None;
    app.slot_notes.remove(&slot.0);
    cx.events.push_back((ix, Event::Replace { worker: worker.id, excess: Excess::Asked }));
    Ok(Wait::Replace { app: ix, slot, old: worker.id, begun: false })
}

/// The result of a replacement; `None` while it is open.
pub(super) fn outcome(app: &App, slot: Slot, old: WorkerId) -> Option<Answer> {
    let supervisor = &app.supervisor;
    let name = &app.name;
    let Some(view) = supervisor.slot(slot).filter(|_| !supervisor.is_stopping()) else {
        return Some(Answer::Refused(format!("{name}/{slot}: the app was stopped or made smaller meanwhile")));
    };
    let failed = |and: &str| {
        let note = app.slot_notes.get(&slot.0).map(|note| format!(" ({note})")).unwrap_or_default();
        let error = format!("{name}/{slot}: the new worker failed{note}; {and}");
        Some(Answer::Failed { error, said: app.last_words.clone() })
    };
    match (view.current, view.phase) {
        (Some(current), _) if current.id == old => match supervisor.incoming(slot) {
            None if !supervisor.is_reloading() => failed(&format!("worker {old} keeps serving")),
            _ => None,
        },
        (Some(current), _) if matches!(current.phase, Phase::Ready { .. }) => {
            Some(Answer::Done(format!("{name}/{slot}: worker {} serves in place of worker {old}", current.id)))
        }
        (_, SlotPhase::Waiting { .. }) => failed("another try follows after a pause"),
        (_, SlotPhase::Errored | SlotPhase::Stopped) => failed("the slot is empty"),
        (_, SlotPhase::Filled) => None,
    }
}

/// Sends a signal to the worker in a slot; while it is being replaced, to both.
pub(super) fn signal(cx: &mut Context<impl System>, ix: AppIx, slot: Slot, signal: i32) -> Answer {
    if let Err(answer) = check_slot(cx, ix, slot) {
        return answer;
    }
    let app = &cx.apps[ix];
    let of_slot = app.supervisor.workers().filter(|worker| worker.slot == slot && worker.pid.is_some());
    let workers: Vec<WorkerId> = of_slot.map(|worker| worker.id).collect();
    let name = &app.name;
    if workers.is_empty() {
        return Answer::Refused(format!("{name}/{slot} has no process now"));
    }
    let answer = Answer::Done(format!("{name}/{slot}: {} sent", signals::name(signal)));
    workers.into_iter().for_each(|worker| cx.keeper.signal(worker, signal));
    answer
}
