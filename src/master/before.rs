//! What the API and the log show of the command that runs before an app's workers (`before`). `spawn` starts its process as it starts
//! a worker's; the supervisor decides when it runs, and what its failure means.
use super::context::Context;
use super::narration::next_words;
use super::system::System;
use crate::api::types as wire;
use crate::ids::{AppIx, Slot};
use crate::supervisor::Report;
use crate::text::elapsed;

/// The command as the API shows it; `None`: the app has none.
pub(super) fn view(cx: &Context<impl System>, app_ix: AppIx) -> Option<wire::Before> {
    let app = &cx.apps[app_ix];
    let found = app.supervisor.before()?;
    let settings = app.generations.get(&found.generation).unwrap_or_else(|| app.settings());
    let left = |at_ms: u64| at_ms.saturating_sub(cx.now_ms);
    let process = found.process;
    let note = app.slot_notes.get(&Slot::BEFORE.0).cloned();
    let state = match (process, found.next_try_ms) {
        (Some(process), _) if process.phase.is_leaving() => wire::BeforeState::Stopping,
        (Some(_), _) => wire::BeforeState::Running,
        (None, Some(_)) => wire::BeforeState::Waiting,
        (None, None) if found.is_done => wire::BeforeState::Done,
        (None, None) if note.is_some() => wire::BeforeState::Failed,
        (None, None) => wire::BeforeState::Stopped,
    };
    Some(wire::Before {
        command: settings.config.before.clone().unwrap_or_default(),
        state,
        generation: found.generation.0,
        id: process.map(|process| process.id.0),
        pid: process.and_then(|process| process.pid),
        uptime_ms: process.map(|process| cx.now_ms.saturating_sub(process.spawned_at_ms)),
        time_left_ms: process.and_then(|process| process.phase.deadline_ms()).or(found.next_try_ms).map(left),
        note: note.filter(|_| !found.is_done),
    })
}

/// Logs a change of its state.
pub(super) fn log_report(cx: &mut Context<impl System>, app_ix: AppIx, report: &Report) {
    let app = &mut cx.apps[app_ix];
    let name = &app.name;
    let pid = |pid: &Option<i32>| pid.map_or(String::new(), |pid| format!(" (pid {pid})"));
    match report {
        Report::BeforeStarted { generation, .. } => {
            let settings = app.generations.get(generation).unwrap_or_else(|| app.settings());
            let command = settings.config.before.as_ref().map_or_else(String::new, |words| words.join(" "));
            log::info!("{name}/before: running {command}, before the workers of generation {generation}");
            app.slot_notes.remove(&Slot::BEFORE.0);
        }
        Report::BeforeDone { pid: known, after_ms, .. } => {
            log::info!("{name}/before: done{} after {}; the workers start", pid(known), elapsed(*after_ms));
        }
        Report::BeforeFailed { pid: known, cause, lived_ms, next, .. } => {
            let text = cause.with_age(*lived_ms);
            log::warn!("{name}/before: the command{} {text}{}", pid(known), next_words(*next));
            app.slot_notes.insert(Slot::BEFORE.0, text);
        }
        _ => {}
    }
}
