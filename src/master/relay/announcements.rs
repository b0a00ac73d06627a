//! The master's own messages: to an app's agent, and to workers where the agent concerns them.
use super::{Relay, ready_agent};
use crate::ids::{AppIx, Slot, WorkerId, WorkerIx};
use crate::master::checkpoint;
use crate::master::context::Context;
use crate::master::system::System;
use crate::supervisor::{Phase, Report, WorkerView};
use crate::worker::node::messages;
use serde_json::{Value, json};

impl Relay {
    /// Sends what a report means to the agent, and to workers where it concerns them.
    pub(in crate::master) fn announce(&mut self, cx: &mut Context<impl System>, app_ix: AppIx, report: &Report) {
        if !has_agent(cx, app_ix) {
            return;
        }
        match report {
            Report::AgentReady { .. } => self.introduce_new_agent(cx, app_ix),
            Report::WorkerReady { worker, slot, .. } => {
                let about = about(cx, app_ix, *worker, *slot, None);
                if cx.apps[app_ix].supervisor.was_ready()
                    && let Some(ix) = cx.workers.find(*worker)
                {
                    self.greet(cx, app_ix, ix);
                }
                self.inform_agent(cx, app_ix, "worker_ready", about);
                self.send_pids(cx, app_ix);
            }
            Report::AppReady { workers } => {
                self.inform_agent(cx, app_ix, "app_ready", json!({ "workers": workers }));
                self.greet_all(cx, app_ix);
            }
            Report::WorkerDied { worker, slot, pid, cause, .. } => {
                let mut about = about(cx, app_ix, *worker, *slot, *pid);
                about["reason"] = cause.to_string().into();
                self.inform_agent(cx, app_ix, "worker_exit", about);
                self.send_pids(cx, app_ix);
            }
            Report::WorkerLeft { worker, slot, pid, .. } => {
                let about = about(cx, app_ix, *worker, *slot, *pid);
                self.inform_agent(cx, app_ix, "worker_exit", about);
                self.send_pids(cx, app_ix);
            }
            Report::WorkerLeaving { worker, slot } => {
                let about = about(cx, app_ix, *worker, *slot, None);
                self.inform_agent(cx, app_ix, "worker_leaving", about);
                self.send_pids(cx, app_ix);
            }
            Report::Scaled { slots } => self.inform_agent(cx, app_ix, "scaled", json!({ "workers": slots })),
            Report::ReloadStarted { to } => {
                self.inform_agent(cx, app_ix, "reload_started", json!({ "generation": to.0 }));
            }
            Report::ReloadDone { to } => self.inform_agent(cx, app_ix, "reload_done", json!({ "generation": to.0 })),
            Report::ReloadFailed { to, reason } => {
                let about = json!({ "generation": to.0, "reason": reason });
                self.inform_agent(cx, app_ix, "reload_failed", about);
            }
            _ => {}
        }
    }

    /// Sends an event to a ready agent, in clusterd's own format.
    pub(in crate::master) fn inform_agent(
        &mut self,
        cx: &mut Context<impl System>,
        app_ix: AppIx,
        event: &str,
        about: Value,
    ) {
        let Some(agent) = ready_agent(cx, app_ix) else { return };
        let mut line = Vec::new();
        messages::event(event, about, &mut line);
        self.send(cx, agent, &line);
    }

    /// Sends the list of serving workers, as egg expects it.
    fn send_pids(&mut self, cx: &mut Context<impl System>, app_ix: AppIx) {
        let Some(agent) = ready_agent(cx, app_ix) else { return };
        let pids: Vec<i32> = ready_workers(cx, app_ix).iter().filter_map(|w| w.pid).collect();
        let mut line = Vec::new();
        messages::egg_action("egg-pids", &json!(pids), &mut line);
        self.send(cx, agent, &line);
    }

    /// Tells a new agent about the workers, and the workers about its pid.
    fn introduce_new_agent(&mut self, cx: &mut Context<impl System>, app_ix: AppIx) {
        let workers = ready_workers(cx, app_ix);
        let list: Vec<Value> = workers
            .iter()
            .map(|w| json!({ "worker": w.id.0, "slot": w.slot.0, "pid": w.pid, "generation": w.generation.0 }))
            .collect();
        let app = &cx.apps[app_ix];
        let about = json!({
            "app": app.name,
            "generation": app.supervisor.generation().0,
            "wanted": app.supervisor.wanted_count(),
            "workers": list,
        });
        self.inform_agent(cx, app_ix, "state", about);
        self.send_pids(cx, app_ix);
        let mut line = agent_pid_line(cx, app_ix).unwrap_or_default();
        messages::egg_action("agent-start", &Value::Null, &mut line);
        for ix in cx.workers.indices() {
            if cx.workers.get(ix).is_some_and(|w| w.app == app_ix && !w.is_beside) {
                for line in line.split_inclusive(|&b| b == b'\n') {
                    self.send(cx, ix, line);
                }
            }
        }
        self.greet_all(cx, app_ix);
    }

    /// Tells a worker about the agent once its Node has started: the next [`Relay::reply`] sends it before the app's
    /// own code runs.
    pub(in crate::master) fn introduce_agent_to(&mut self, cx: &Context<impl System>, ix: WorkerIx) {
        let Some(worker) = cx.workers.get(ix).filter(|worker| !worker.is_beside) else { return };
        if has_agent(cx, worker.app) {
            self.replies.extend(agent_pid_line(cx, worker.app));
        }
    }

    /// Tells every worker that does not know it yet that the app is ready: each worker was ready once.
    pub(in crate::master) fn greet_all(&mut self, cx: &mut Context<impl System>, app_ix: AppIx) {
        if !has_agent(cx, app_ix) || !cx.apps[app_ix].supervisor.was_ready() {
            return;
        }
        for worker in ready_workers(cx, app_ix) {
            if let Some(ix) = cx.workers.find(worker.id) {
                self.greet(cx, app_ix, ix);
            }
        }
        if let Some(agent) = ready_agent(cx, app_ix) {
            self.greet(cx, app_ix, agent);
        }
    }

    fn greet(&mut self, cx: &mut Context<impl System>, app_ix: AppIx, ix: WorkerIx) {
        if cx.workers.get(ix).is_none_or(|worker| worker.receiver.greeted) {
            return;
        }
        let app = &cx.apps[app_ix];
        let data = json!({ "port": app.port(), "workers": app.supervisor.wanted_count(), "name": app.name });
        let mut line = Vec::new();
        messages::egg_action("egg-ready", &data, &mut line);
        self.send(cx, ix, &line);
        if let Some(worker) = cx.workers.get_mut(ix) {
            worker.receiver.greeted = true;
        }
        checkpoint::save_serves(cx, ix);
    }
}

/// Whether the app has an agent, now or at its next start.
fn has_agent(cx: &Context<impl System>, app_ix: AppIx) -> bool {
    cx.apps.get(app_ix).is_some_and(|app| app.supervisor.agent().is_some())
}

fn ready_workers(cx: &Context<impl System>, app_ix: AppIx) -> Vec<WorkerView> {
    cx.apps[app_ix].supervisor.workers().filter(|w| matches!(w.phase, Phase::Ready { .. })).collect()
}

/// A worker as agents see it. `pid`: for workers that the supervisor no longer knows.
fn about(cx: &Context<impl System>, app_ix: AppIx, worker: WorkerId, slot: Slot, pid: Option<i32>) -> Value {
    let view = cx.apps[app_ix].supervisor.worker(worker);
    let pid = pid.or_else(|| view.and_then(|view| view.pid));
    json!({ "worker": worker.0, "slot": slot.0, "pid": pid, "generation": view.map(|view| view.generation.0) })
}

/// The line that tells a worker the pid of a ready agent.
fn agent_pid_line(cx: &Context<impl System>, app_ix: AppIx) -> Option<Vec<u8>> {
    let pid = ready_agent(cx, app_ix).and_then(|agent| cx.workers.get(agent)?.pid)?;
    let mut line = Vec::new();
    messages::egg_action("egg-pids", &json!([pid]), &mut line);
    Some(line)
}
