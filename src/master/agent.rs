//! What the API and the log show of an app's agent. `spawn` starts its process as it starts a worker's; the supervisor
//! decides when it starts and ends; `relay` passes messages between agent and workers.
use super::context::Context;
use super::system::System;
use crate::api::types as wire;
use crate::ids::{AppIx, Slot};
use crate::supervisor::{Cause, Evidence, Phase, Report, SlotPhase};
use crate::text::elapsed;

/// The agent as the API shows it; `None`: the app has none.
pub(super) fn view(cx: &Context<impl System>, app_ix: AppIx) -> Option<wire::Agent> {
    let app = &cx.apps[app_ix];
    let slot = app.supervisor.agent()?;
    let process = slot.current;
    let settings = app.settings();
    let here = process.and_then(|p| cx.workers.find(p.id)).and_then(|ix| cx.workers.get(ix));
    let (state, until_ms) = match (process, slot.phase) {
        (Some(process), _) => (state(&process.phase), process.phase.deadline_ms()),
        (None, SlotPhase::Waiting { until_ms }) => (wire::AgentState::Waiting, Some(until_ms)),
        (None, SlotPhase::Filled | SlotPhase::Errored | SlotPhase::Stopped) => (wire::AgentState::Stopped, None),
    };
    let has_channel = settings.agent.as_ref().is_some_and(|agent| agent.has_channel);
    Some(wire::Agent {
        command: settings.config.agent.as_ref().map(|agent| agent.command.clone()).unwrap_or_default(),
        protocol: if has_channel { wire::Protocol::Node } else { wire::Protocol::None },
        id: process.map(|process| process.id.0),
        pid: process.and_then(|process| process.pid),
        state,
        generation: slot.generation.0,
        uptime_ms: process.map(|process| cx.now_ms.saturating_sub(process.spawned_at_ms)),
        restarts: slot.restarts,
        time_left_ms: until_ms.map(|at_ms| at_ms.saturating_sub(cx.now_ms)),
        memory_bytes: None,
        cpu_ms: None,
        messages_lost: here.map_or(0, |here| here.receiver.lost),
        note: here.and_then(|here| here.status_text.clone()).or_else(|| app.slot_notes.get(&Slot::AGENT.0).cloned()),
    })
}

/// Logs a change of the agent's state.
pub(super) fn log_report(cx: &mut Context<impl System>, app_ix: AppIx, report: &Report) {
    let name = cx.apps[app_ix].name.clone();
    let pid = |pid: &Option<i32>| pid.map_or(String::new(), |pid| format!(" (pid {pid})"));
    match report {
        Report::AgentReady { pid: known, after_ms, .. } => {
            log::info!("{name}/agent: ready{} after {}", pid(known), elapsed(*after_ms));
        }
        Report::AgentDied { pid: known, cause, lived_ms, next, .. } => {
            let text = format!("agent{} {}", pid(known), cause.with_age(*lived_ms));
            cx.apps[app_ix].slot_notes.insert(Slot::AGENT.0, text.clone());
            log::warn!("{name}/agent: {text}{}{}", super::narration::next_words(*next), advice(cx, app_ix, cause));
        }
        Report::AgentLeft { pid: known, status, killed, .. } => {
            let overdue = if *killed { " (it did not end by itself)" } else { "" };
            log::debug!("{name}/agent: agent{} {status}{overdue}", pid(known));
        }
        Report::AgentOverdue { .. } => log::warn!("{name}/agent: has not ended in time; sending SIGKILL"),
        _ => {}
    }
}

fn advice(cx: &Context<impl System>, app_ix: AppIx, cause: &Cause) -> &'static str {
    if !matches!(cause, Cause::NotReady { .. }) {
        return "";
    }
    let policy = cx.apps[app_ix].settings().policy().agent;
    match policy.and_then(|policy| policy.ready.evidence) {
        Some(Evidence::Message) => {
            "; it never called process.send('ready') (for an agent that does not: agent.ready = \"2s\")"
        }
        Some(Evidence::Notify) => "; it never sent READY=1 to NOTIFY_SOCKET",
        Some(Evidence::Listening | Evidence::Http) | None => "",
    }
}

fn state(phase: &Phase) -> wire::AgentState {
    match phase {
        Phase::Starting { .. } => wire::AgentState::Starting,
        Phase::Ready { .. } => wire::AgentState::Ready,
        Phase::Draining { .. } | Phase::Stopping { .. } | Phase::Killed => wire::AgentState::Stopping,
    }
}
