//! Writes the supervisor's reports to the log, one line each. `waiters` answers the clients that wait for them.
use super::app::App;
use super::autoscale;
use super::context::Context;
use super::dependencies;
use super::system::System;
use crate::ids::{AppIx, Generation, Slot, WorkerId};
use crate::os::signal;
use crate::supervisor::{Cause, Evidence, Excess, ExitStatus, Next, ReadyBy, ReadyRule, Report};
use crate::text::{elapsed, time_limit};

fn excess_words(excess: Excess) -> String {
    match excess {
        Excess::Memory { used, allowed } => {
            format!("uses {} MB of {} MB allowed", used.div_ceil(1 << 20), allowed >> 20)
        }
        Excess::Lifetime { lived_ms } => format!("has lived {}", elapsed(lived_ms)),
        Excess::Connections { taken } => format!("has taken {taken} connections"),
        Excess::Unwell { failures: 1 } => "has failed a liveness probe".to_owned(),
        Excess::Unwell { failures } => format!("has failed {failures} liveness probes in a row"),
        Excess::Asked => "is replaced on request".to_owned(),
    }
}

pub(super) fn next_words(next: Next) -> String {
    match next {
        Next::Replaced { after_ms } => format!("; replaced in {}", elapsed(after_ms)),
        Next::Waiting { ms, failures, max: Some(max) } if failures > 0 => {
            format!("; next try in {} (failure {failures} of {max})", elapsed(ms))
        }
        Next::Waiting { ms, .. } => format!("; next try in {}", elapsed(ms)),
        Next::Errored { failures } => format!("; failed {failures} times, given up (errored)"),
        Next::GivenUp => "; given up (errored): another try would fail too".to_owned(),
        Next::Stopped => "; not restarted: its exit code is one of stop_exit_codes".to_owned(),
        Next::LastRun { runs, .. } => format!("; not restarted: max_runs is {runs}"),
        Next::None => String::new(),
    }
}

/// Logs a report, and keeps what `ls` shows of it.
pub(super) fn narrate(cx: &mut Context<impl System>, app_ix: AppIx, report: &Report) {
    let name = cx.apps[app_ix].name.clone();
    match report {
        Report::WorkerReady { worker, slot, after_ms, spare, by } => {
            let role = if *spare { " as a spare" } else { "" };
            log::debug!("{name}/{slot}: worker {worker} is ready{role} after {}", elapsed(*after_ms));
            if *by == ReadyBy::Age {
                warn_of_missing_message(cx, app_ix, *worker, *slot);
            }
        }
        Report::SpareServes { worker, slot } => {
            let pid = cx.workers.pid_of(*worker).map_or(String::new(), |pid| format!(" (pid {pid})"));
            log::info!("{name}/{slot}: spare worker {worker}{pid} serves now");
        }
        Report::AppReady { workers } => log_ready(&cx.apps[app_ix], *workers),
        Report::WorkerDied { worker, slot, pid, cause, lived_ms, next } => {
            let pid = pid.map_or(String::new(), |pid| format!(" (pid {pid})"));
            let text = format!("worker {worker}{pid} {}", cause.with_age(*lived_ms));
            let advice = advice_on(&cx.apps[app_ix], cause);
            log::warn!("{name}/{slot}: {text}{}{advice}", next_words(*next));
            cx.apps[app_ix].slot_notes.insert(slot.0, text);
        }
        Report::WorkerLeft { worker, slot, pid, status, killed: false, by_itself: true, .. }
            if *status != ExitStatus::Code(0) =>
        {
            let pid = pid.map_or(String::new(), |pid| format!(" (pid {pid})"));
            log::warn!("{name}/{slot}: worker {worker}{pid} crashed while it was leaving by itself: {status}");
        }
        Report::WorkerLeft { worker, slot, pid, status, killed, .. } => {
            let pid = pid.map_or(String::new(), |pid| format!(" (pid {pid})"));
            let overdue = if *killed { " (it did not end by itself)" } else { "" };
            log::debug!("{name}/{slot}: worker {worker}{pid} has left: {status}{overdue}");
        }
        Report::WorkerLeaving { worker, slot } => {
            log::info!("{name}/{slot}: worker {worker} leaves by itself; its replacement starts now");
        }
        Report::Replacing { worker, slot, pid, excess } => {
            let pid = pid.map_or(String::new(), |pid| format!(" (pid {pid})"));
            let replacing = if *excess == Excess::Asked { "" } else { "; replacing it" };
            log::info!("{name}/{slot}: worker {worker}{pid} {}{replacing}", excess_words(*excess));
        }
        Report::Overdue { worker, slot, kill: false } => {
            let signal = signal::name(cx.apps[app_ix].settings().stop_signal());
            log::warn!("{name}/{slot}: worker {worker} has not drained in time; sending {signal}");
        }
        Report::Overdue { worker, slot, kill: true } => {
            log::warn!("{name}/{slot}: worker {worker} has not ended in time; sending SIGKILL");
        }
        Report::AgentReady { .. }
        | Report::AgentDied { .. }
        | Report::AgentLeft { .. }
        | Report::AgentOverdue { .. } => super::agent::log_report(cx, app_ix, report),
        Report::Held { .. } => {
            log::info!("{name}: waits for {}", dependencies::waits_for(cx, app_ix).join(", "));
        }
        Report::BeforeStarted { .. } | Report::BeforeDone { .. } | Report::BeforeFailed { .. } => {
            super::before::log_report(cx, app_ix, report);
        }
        Report::ReloadStarted { to } => {
            log::info!("{name}: reloading, generation {to}");
            log_change_of_balance(&cx.apps[app_ix], *to);
        }
        Report::CanaryWatched { worker, for_ms, .. } => {
            log::info!("{name}: watching worker {worker} of the new generation for {} (canary)", elapsed(*for_ms));
        }
        Report::ReloadDone { to } => {
            log::info!("{name}: reloaded, generation {to} serves alone");
        }
        Report::ReloadFailed { to, reason } => {
            let still = cx.apps[app_ix].remaining_service();
            log::error!("{name}: reload to generation {to} failed: {reason}; {still}");
        }
        Report::ReloadSuperseded { to, .. } => {
            log::info!("{name}: reload to generation {to} was replaced by a later one");
        }
        Report::Scaled { slots } => log::info!("{name}: {}", autoscale::scaled_words(&cx.apps[app_ix], *slots)),
        Report::AppErrored if cx.apps[app_ix].last_run_code > 0 => {
            log::error!("{name}: every worker has ended, and at least one failed");
        }
        // Its own failure was logged before.
        Report::AppErrored if cx.apps[app_ix].spawned == 0 => {}
        Report::AppErrored => log::error!("{name}: every worker has failed; nothing serves any more"),
        Report::AppFinished => log::info!("{name}: every worker has finished"),
        Report::AppStopped => log::info!("{name}: stopped"),
        Report::Started { .. } => log_start(&cx.apps[app_ix]),
        Report::StartDropped { .. } => log::info!("{name}: stays stopped: a stop followed the restart"),
        Report::StartSuperseded { to } => {
            log::info!("{name}: start of generation {to} was replaced by a later one")
        }
    }
}

/// Logs once for each generation that a worker counts as ready although it never sent the message that was expected.
fn warn_of_missing_message(cx: &mut Context<impl System>, app_ix: AppIx, worker: WorkerId, slot: Slot) {
    let Some(here) = cx.workers.find(worker).and_then(|ix| cx.workers.get(ix)) else { return };
    let (generation, pid) = (here.generation, here.pid);
    let app = &mut cx.apps[app_ix];
    let rule = app.generations.get(&generation).unwrap_or_else(|| app.settings()).policy().ready;
    let ReadyRule { evidence: Some(Evidence::Message), after_ms: Some(ms) } = rule else { return };
    if app.message_missed_in.replace(generation) != Some(generation) {
        let pid = pid.map_or(String::new(), |pid| format!(" (pid {pid})"));
        log::warn!(
            "{}/{slot}: worker {worker}{pid} has not called process.send('ready') within {} and counts as ready, as with \
             PM2's wait_ready; ready = \"message\" makes that a failure",
            app.name,
            time_limit(ms)
        );
    }
}

/// Logs that the workers of an app are starting.
pub(super) fn log_start(app: &App) {
    log::info!(
        "{}: starting {} {}: {}",
        app.name,
        app.supervisor.wanted_count(),
        plural(app.supervisor.wanted_count(), "worker"),
        app.settings().config.command.join(" ")
    );
    if let Some(sentence) = app.settings().balance.sentence() {
        log::info!("{}: balance {sentence}", app.name);
    }
}

/// Logs that a reload changes how connections are given to workers, or why.
fn log_change_of_balance(app: &App, to: Generation) {
    let Some(next) = app.generations.get(&to).map(|settings| &settings.balance) else { return };
    let now = &app.settings().balance;
    if next != now {
        let words = next.sentence().unwrap_or_else(|| next.balance.to_string());
        log::info!("{}: balance {words}; generation {} has {}", app.name, app.supervisor.generation(), now.balance);
    }
}

fn log_ready(app: &App, workers: u32) {
    log::info!("{}: ready, {workers} {}", app.name, plural(workers, "worker"));
    // Of other programs nobody knows on which of their sockets they listen.
    if !app.settings().protocol.can_be_handed_connections() {
        return;
    }
    for listener in app.listeners.iter().filter(|l| l.configured.is_some()) {
        if listener.present.is_empty() {
            log::warn!(
                "{}: no worker listens on {listener}, so connections to it wait; have the app listen on \
                 process.env.PORT",
                app.name
            );
        }
    }
}

/// Advice for a worker that did not become ready.
fn advice_on(app: &App, cause: &Cause) -> String {
    // A more specific message was logged before.
    if !matches!(cause, Cause::NotReady { why: None, .. }) {
        return String::new();
    }
    match app.settings().policy().ready.evidence {
        Some(Evidence::Listening) => {
            "; it never called listen() (for an app that does not listen: --ready 2s)".to_owned()
        }
        Some(Evidence::Message) => "; it never called process.send('ready')".to_owned(),
        Some(Evidence::Notify) => "; it never sent READY=1 to NOTIFY_SOCKET".to_owned(),
        Some(Evidence::Http) | None => String::new(),
    }
}

/// `1 worker`, `2 workers`.
pub(super) fn plural(n: u32, word: &str) -> String {
    if n == 1 { word.to_owned() } else { format!("{word}s") }
}
