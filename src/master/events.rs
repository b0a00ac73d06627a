//! Reports of the supervisors as events of the control API.
use super::autoscale;
use super::context::Context;
use super::dependencies;
use super::history::is_crash;
use super::narration::{next_words, plural};
use super::system::System;
use crate::api::events;
use crate::api::types::{Event, EventType};
use crate::ids::{AppIx, Generation, Slot, WorkerId};
use crate::os::signal;
use crate::supervisor::Report;

/// Tells the clients that follow events.
pub(super) fn announce(cx: &Context<impl System>, app_ix: AppIx, report: &Report) {
    let app = Some(cx.apps[app_ix].name.clone());
    let event = |kind: EventType, message: String| Event { app: app.clone(), message, ..Event::of(kind) };
    let of_worker = |kind: EventType, worker: WorkerId, slot: Slot, message: String| {
        let pid = cx.workers.pid_of(worker);
        Event { slot: Some(slot.0), worker: Some(worker.0), pid, ..event(kind, message) }
    };
    let of_reload =
        |kind: EventType, to: Generation, message: String| Event { generation: Some(to.0), ..event(kind, message) };
    let of_agent = |kind: EventType, agent: WorkerId, message: String| Event {
        worker: Some(agent.0),
        pid: cx.workers.pid_of(agent),
        ..event(kind, message)
    };
    events::push(match report {
        Report::WorkerReady { worker, slot, after_ms, spare, by: _ } => {
            let role = if *spare { " as a spare" } else { "" };
            of_worker(EventType::WorkerReady, *worker, *slot, format!("ready{role} after {after_ms} ms"))
        }
        Report::SpareServes { worker, slot } => {
            of_worker(EventType::WorkerReady, *worker, *slot, "was a spare and serves now".to_owned())
        }
        Report::WorkerDied { worker, slot, pid, cause, lived_ms, next } => {
            let message = format!("{}{}", cause.with_age(*lived_ms), next_words(*next));
            Event { pid: *pid, ..of_worker(EventType::WorkerDied, *worker, *slot, message) }
        }
        Report::WorkerLeft { worker, slot, pid, status, .. } => {
            let kind = if is_crash(report) { EventType::WorkerDied } else { EventType::WorkerLeft };
            Event { pid: *pid, ..of_worker(kind, *worker, *slot, status.to_string()) }
        }
        Report::WorkerLeaving { worker, slot } => {
            of_worker(EventType::WorkerLeaving, *worker, *slot, "leaves by itself".to_owned())
        }
        Report::Replacing { worker, slot, .. } => {
            of_worker(EventType::WorkerLeaving, *worker, *slot, "has passed a limit; replacing it".to_owned())
        }
        Report::Overdue { worker, slot, kill } => {
            let message = match kill {
                true => "has not ended in time; sending SIGKILL".to_owned(),
                false => format!(
                    "has not drained in time; sending {}",
                    signal::name(cx.apps[app_ix].settings().stop_signal())
                ),
            };
            of_worker(EventType::WorkerOverdue, *worker, *slot, message)
        }
        Report::AgentReady { agent, .. } => of_agent(EventType::AgentReady, *agent, "the agent is ready".to_owned()),
        Report::AgentDied { agent, cause, lived_ms, next, .. } => {
            let message = format!("the agent {}{}", cause.with_age(*lived_ms), next_words(*next));
            of_agent(EventType::AgentDied, *agent, message)
        }
        Report::AgentLeft { agent, status, .. } => {
            of_agent(EventType::AgentLeft, *agent, format!("the agent {status}"))
        }
        Report::AgentOverdue { agent } => {
            of_agent(EventType::WorkerOverdue, *agent, "the agent has not ended in time; sending SIGKILL".to_owned())
        }
        Report::Held { generation } => {
            let others = dependencies::waits_for(cx, app_ix).join(", ");
            of_reload(EventType::AppWaits, *generation, format!("waits for {others}"))
        }
        Report::BeforeStarted { process, generation } => {
            Event { worker: Some(process.0), ..of_reload(EventType::BeforeStarted, *generation, "runs".to_owned()) }
        }
        Report::BeforeDone { process, pid, generation, after_ms } => {
            let message = format!("done after {after_ms} ms");
            let event = of_reload(EventType::BeforeDone, *generation, message);
            Event { worker: Some(process.0), pid: *pid, ..event }
        }
        Report::BeforeFailed { process, pid, cause, lived_ms, next } => {
            let message = format!("before {}{}", cause.with_age(*lived_ms), next_words(*next));
            Event { worker: Some(process.0), pid: *pid, ..event(EventType::BeforeFailed, message) }
        }
        Report::AppReady { workers } => {
            event(EventType::AppReady, format!("ready, {workers} {}", plural(*workers, "worker")))
        }
        Report::ReloadStarted { to } => of_reload(EventType::ReloadStarted, *to, format!("reloading, generation {to}")),
        Report::CanaryWatched { worker, slot, for_ms } => {
            of_worker(EventType::ReloadCanary, *worker, *slot, format!("is watched for {for_ms} ms (canary)"))
        }
        Report::ReloadDone { to } => of_reload(EventType::ReloadDone, *to, format!("generation {to} serves alone")),
        Report::ReloadFailed { to, reason } => of_reload(EventType::ReloadFailed, *to, reason.clone()),
        Report::ReloadSuperseded { to, by } => {
            of_reload(EventType::ReloadSuperseded, *to, format!("replaced by generation {by}"))
        }
        Report::Scaled { slots } => event(EventType::AppScaled, autoscale::scaled_words(&cx.apps[app_ix], *slots)),
        Report::AppErrored => event(EventType::AppErrored, "every worker failed; nothing serves".to_owned()),
        Report::AppFinished => event(EventType::AppStopped, "every worker has finished".to_owned()),
        Report::AppStopped => event(EventType::AppStopped, "stopped".to_owned()),
        Report::Started { to } => {
            Event { generation: Some(to.0), ..event(EventType::AppStarted, "its workers start".to_owned()) }
        }
        Report::StartDropped { .. } => event(EventType::AppStopped, "stays stopped".to_owned()),
        Report::StartSuperseded { to } => {
            of_reload(EventType::ReloadSuperseded, *to, "was replaced by a later start".to_owned())
        }
    });
}
