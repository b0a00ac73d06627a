//! Writes the supervisor's reports to the log, one line each. `waiters` answers the clients that wait for them.
use super::app::App;
use super::context::Context;
use super::system::System;
use crate::ids::AppIx;
use crate::os::signal;
use crate::supervisor::{Cause, Excess, ExitStatus, Next, Report};

/// A time span for people: `3 ms`, `12.3 s`, `4 m 12 s`, `2 h 5 m`, `3 d 4 h`.
pub(super) fn human_ms(ms: u64) -> String {
    let s = ms / 1000;
    match ms {
        0..=999 => format!("{ms} ms"),
        1_000..=59_999 => format!("{}.{} s", s, ms % 1000 / 100),
        60_000..=3_599_999 => format!("{} m {} s", s / 60, s % 60),
        3_600_000..=86_399_999 => format!("{} h {} m", s / 3600, s % 3600 / 60),
        _ => format!("{} d {} h", s / 86_400, s % 86_400 / 3600),
    }
}

/// How a process ended: `exited with code 1`, `was killed by SIGKILL`.
pub(super) fn ended(status: ExitStatus) -> String {
    match status {
        ExitStatus::Code(code) => format!("exited with code {code}"),
        ExitStatus::Signal(number) => format!("was killed by {}", signal::name(number)),
        ExitStatus::OutOfMemory => "was killed by the kernel: the app reached limits.memory_max".to_owned(),
    }
}

pub(super) fn cause_words(cause: &Cause) -> String {
    match cause {
        Cause::Ended(status) => ended(*status),
        Cause::NotStarted { reason, .. } => format!("could not be started: {reason}"),
        Cause::NotReady { ms, why } => {
            let why = why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            format!("was not ready after {}{why}", human_ms(*ms))
        }
        Cause::Misbehaved(reason) => format!("was failed: {reason}"),
        Cause::Hung(ms) => format!("was killed: its event loop did not answer for {} s", *ms as f64 / 1000.0),
    }
}

/// The same with the time that the process lived, where the cause does not say it.
pub(super) fn cause_and_age(cause: &Cause, lived_ms: u64) -> String {
    let age = match cause {
        Cause::Ended(_) => format!(" after {}", human_ms(lived_ms)),
        Cause::NotStarted { .. } | Cause::NotReady { .. } | Cause::Misbehaved(_) | Cause::Hung(_) => String::new(),
    };
    format!("{}{age}", cause_words(cause))
}

fn excess_words(excess: Excess) -> String {
    match excess {
        Excess::Memory { used, allowed } => {
            format!("uses {} MB of {} MB allowed", used.div_ceil(1 << 20), allowed >> 20)
        }
        Excess::Lifetime { lived_ms } => format!("has lived {}", human_ms(lived_ms)),
        Excess::Connections { taken } => format!("has taken {taken} connections"),
        Excess::Unwell { failures: 1 } => "has failed a liveness probe".to_owned(),
        Excess::Unwell { failures } => format!("has failed {failures} liveness probes in a row"),
        Excess::Asked => "is replaced on request".to_owned(),
    }
}

pub(super) fn next_words(next: Next) -> String {
    match next {
        Next::Replaced { after_ms } => format!("; replaced in {}", human_ms(after_ms)),
        Next::Waiting { ms, failures, max: Some(max) } if failures > 0 => {
            format!("; next try in {} (failure {failures} of {max})", human_ms(ms))
        }
        Next::Waiting { ms, .. } => format!("; next try in {}", human_ms(ms)),
        Next::Errored { failures } => format!("; failed {failures} times, given up (errored)"),
        Next::GivenUp => "; given up (errored), as another try would fail too".to_owned(),
        Next::Stopped => "; not restarted, as its exit code asks".to_owned(),
        Next::LastRun { runs: 1, .. } => "; not restarted, as max_runs asks".to_owned(),
        Next::LastRun { runs, .. } => format!("; not restarted after {runs} runs, as max_runs asks"),
        Next::None => String::new(),
    }
}

/// Logs a report, and keeps what `ls` shows of it.
pub(super) fn narrate(cx: &mut Context<impl System>, app_ix: AppIx, report: &Report) {
    let name = cx.apps[app_ix].name.clone();
    match report {
        Report::WorkerReady { worker, slot, after_ms, spare } => {
            let role = if *spare { " as a spare" } else { "" };
            log::debug!("{name}/{slot}: worker {worker} is ready{role} after {}", human_ms(*after_ms));
        }
        Report::SpareServes { worker, slot } => {
            let pid = cx.workers.pid_of(*worker).map_or(String::new(), |pid| format!(" (pid {pid})"));
            log::info!("{name}/{slot}: worker {worker}{pid}, a spare until now, serves");
        }
        Report::AppReady { workers } => log_ready(&cx.apps[app_ix], *workers),
        Report::WorkerDied { worker, slot, pid, cause, lived_ms, next } => {
            let pid = pid.map_or(String::new(), |pid| format!(" (pid {pid})"));
            let text = format!("worker {worker}{pid} {}", cause_and_age(cause, *lived_ms));
            let advice = advice_on(&cx.apps[app_ix], cause);
            log::warn!("{name}/{slot}: {text}{}{advice}", next_words(*next));
            cx.apps[app_ix].slot_notes.insert(slot.0, text);
        }
        Report::WorkerLeft { worker, slot, pid, status, killed: false, by_itself: true, .. }
            if *status != ExitStatus::Code(0) =>
        {
            let pid = pid.map_or(String::new(), |pid| format!(" (pid {pid})"));
            log::warn!("{name}/{slot}: worker {worker}{pid}, which left by itself, has crashed: {}", ended(*status));
        }
        Report::WorkerLeft { worker, slot, pid, status, killed, .. } => {
            let pid = pid.map_or(String::new(), |pid| format!(" (pid {pid})"));
            let overdue = if *killed { " (it did not end by itself)" } else { "" };
            log::debug!("{name}/{slot}: worker {worker}{pid} has left: {}{overdue}", ended(*status));
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
            log::warn!("{name}/{slot}: worker {worker} has not finished in time; SIGTERM");
        }
        Report::Overdue { worker, slot, kill: true } => {
            log::warn!("{name}/{slot}: worker {worker} has not ended in time; SIGKILL");
        }
        Report::AgentReady { .. }
        | Report::AgentDied { .. }
        | Report::AgentLeft { .. }
        | Report::AgentOverdue { .. } => super::agent::log_report(cx, app_ix, report),
        Report::ReloadStarted { to } => log::info!("{name}: reloading, generation {to}"),
        Report::CanaryWatched { worker, for_ms, .. } => {
            log::info!("{name}: worker {worker} of the new generation is watched for {}", human_ms(*for_ms));
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
        Report::Scaled { slots } => log::info!("{name}: {slots} {} from now on", plural(*slots, "worker")),
        Report::AppErrored if cx.apps[app_ix].last_run_code > 0 => {
            log::error!("{name}: every worker has ended, and a last run failed");
        }
        Report::AppErrored => log::error!("{name}: every worker has failed; nothing serves any more"),
        Report::AppFinished => log::info!("{name}: every worker has finished"),
        Report::AppStopped => log::info!("{name}: stopped"),
        Report::Started { .. } => log_start(&cx.apps[app_ix]),
        Report::StartDropped { .. } => log::info!("{name}: it stays stopped: a stop came after the restart"),
        Report::StartSuperseded { to } => {
            log::info!("{name}: start of generation {to} was replaced by a later one")
        }
    }
}

/// Logs that the workers of an app are starting.
pub(super) fn log_start(app: &App) {
    log::info!(
        "{}: starting {} {} of: {}",
        app.name,
        app.supervisor.wanted_count(),
        plural(app.supervisor.wanted_count(), "worker"),
        app.settings().config.command.join(" ")
    );
}

fn log_ready(app: &App, workers: u32) {
    log::info!("{}: ready, {workers} {}", app.name, plural(workers, "worker"));
    if !app.master_accepts() {
        return;
    }
    for listener in app.listeners.iter().filter(|l| l.configured.is_some()) {
        if listener.present.is_empty() {
            log::warn!(
                "{}: no worker listens on {listener}, so connections to it wait; the app should listen on \
                     process.env.PORT",
                app.name
            );
        }
    }
}

/// Advice for a worker that did not become ready.
fn advice_on(app: &App, cause: &Cause) -> String {
    use crate::supervisor::Evidence;
    // A more specific message was logged before.
    if !matches!(cause, Cause::NotReady { why: None, .. }) {
        return String::new();
    }
    match app.settings().policy().ready.evidence {
        Some(Evidence::Listening) => {
            "; it never called listen() (an app that does not listen wants --ready 2s)".to_owned()
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

#[cfg(test)]
mod tests {
    use super::human_ms;

    #[test]
    fn time_spans_read_like_speech() {
        let spans = [(3, "3 ms"), (1_250, "1.2 s"), (252_000, "4 m 12 s"), (7_500_000, "2 h 5 m")];
        for (ms, words) in spans {
            assert_eq!(human_ms(ms), words);
        }
        assert_eq!(human_ms(273_600_000), "3 d 4 h");
    }
}
