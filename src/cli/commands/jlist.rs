//! `clusterd jlist` and `prettylist`: the list in the shape of PM2's, an object for each worker, for scripts written for PM2.
//! `ls --json` has everything, in the words of the control API.
use crate::api::types::{App, AppStatus, Deployment, Worker, WorkerState};
use crate::cli::apply::{fail, print};
use crate::cli::target::{gone_app, known};
use clap::Args;
use serde_json::{Value, json};
use std::path::Path;
use std::process::ExitCode;

/// Processes as PM2's jlist has them: pid, name, pm_id, monit, pm2_env
#[derive(Args, Clone, Debug, PartialEq)]
#[command(hide = true)]
pub struct Jlist {}

/// The same in lines
#[derive(Args, Clone, Debug, PartialEq)]
#[command(hide = true)]
pub struct Prettylist {}

impl Jlist {
    pub(super) fn run(&self, home: Option<&Path>) -> ExitCode {
        list(home, serde_json::to_string)
    }
}

impl Prettylist {
    pub(super) fn run(&self, home: Option<&Path>) -> ExitCode {
        list(home, serde_json::to_string_pretty)
    }
}

fn list(home: Option<&Path>, text: impl Fn(&[Value]) -> serde_json::Result<String>) -> ExitCode {
    let known = match known(home) {
        Ok(known) => known,
        Err(error) => return fail(error),
    };
    let mut all = Vec::new();
    let mut complete = true;
    for master in &known.masters {
        match &master.deployment {
            Ok(deployment) => {
                all.extend(deployment.apps.iter().flat_map(|app| processes(app, Some(deployment))));
            }
            Err(error) => {
                log::warn!("{}: {error}; it is left out", master.name);
                complete = false;
            }
        }
    }
    let gone = known.dead.iter().flat_map(|entry| &entry.apps);
    all.extend(gone.flat_map(|app| processes(&gone_app(&app.name, Some(app.id)), None)));
    let printed = match text(&all) {
        Ok(text) => print(&format!("{text}\n")),
        Err(error) => return fail(error),
    };
    if complete { printed } else { ExitCode::FAILURE }
}

/// The processes of an app. One that is stopped has one, without a pid, as in PM2.
fn processes(app: &App, deployment: Option<&Deployment>) -> Vec<Value> {
    let nobody = Worker { state: WorkerState::Stopped, ..Worker::default() };
    let workers = if app.workers.is_empty() { std::slice::from_ref(&nobody) } else { &app.workers };
    workers.iter().map(|worker| process(app, worker, deployment)).collect()
}

fn process(app: &App, worker: &Worker, deployment: Option<&Deployment>) -> Value {
    let now_ms = jiff::Timestamp::now().as_millisecond();
    let ago = |ms: u64| now_ms - i64::try_from(ms).unwrap_or(0);
    let began_ms = worker.uptime_ms.map(ago);
    let cpu = worker.cpu_ms.zip(worker.uptime_ms).filter(|(_, up_ms)| *up_ms > 0);
    let cpu = cpu.map_or(0, |(used_ms, up_ms)| used_ms.saturating_mul(100) / up_ms);
    // The words before the script are its interpreter and what that is told.
    let at = app.command.iter().position(|word| Path::new(&app.cwd).join(word).is_file()).unwrap_or(0);
    let script = app.command.get(at).map(|word| Path::new(&app.cwd).join(word).display().to_string());
    let actions: Vec<Value> = worker.actions.iter().map(|name| json!({ "action_name": name })).collect();
    json!({
        "pid": worker.pid.unwrap_or(0),
        "name": app.name,
        "pm_id": app.id,
        "monit": { "memory": worker.memory_bytes.unwrap_or(0), "cpu": cpu },
        "pm2_env": {
            "name": app.name,
            "namespace": app.namespace,
            "pm_id": app.id,
            "status": status(app, worker),
            "pm_exec_path": script,
            "pm_cwd": app.cwd,
            "args": app.command.get(at + 1..).unwrap_or_default(),
            "exec_mode": if app.protocol == "none" { "fork_mode" } else { "cluster_mode" },
            "instances": app.workers_wanted,
            "NODE_APP_INSTANCE": worker.slot,
            "restart_time": worker.restarts,
            "unstable_restarts": 0,
            "max_restarts": app.limits.max_restarts,
            "pm_uptime": began_ms,
            "created_at": deployment.map(|deployment| ago(deployment.uptime_ms)),
            "pm_out_log_path": app.log.out,
            "pm_err_log_path": app.log.err,
            "pm_log_path": app.log.both,
            "watch": app.watch.is_some(),
            "cron_restart": app.cron_restart,
            "max_memory_restart": app.memory_limit_bytes,
            "axm_actions": actions,
            "axm_monitor": worker.custom_metrics,
        },
    })
}

/// PM2's words for the state of a process.
fn status(app: &App, worker: &Worker) -> &'static str {
    match app.status {
        AppStatus::Stopped | AppStatus::Gone => return "stopped",
        AppStatus::Errored => return "errored",
        AppStatus::Stopping => return "stopping",
        _ => {}
    }
    match worker.state {
        WorkerState::Ready => "online",
        WorkerState::Draining | WorkerState::Stopping => "stopping",
        WorkerState::Waiting => "waiting restart",
        WorkerState::Errored => "errored",
        WorkerState::Stopped => "stopped",
        _ => "launching",
    }
}
