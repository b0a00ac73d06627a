//! Follows the start of apps, and keeps their state for a later run of the deployment. How workers start is up to the
//! supervisor.
use super::app::App;
use super::context::Context;
use super::deployment::Told;
use super::last_words;
use super::narration::plural;
use super::output::Output;
use super::system::System;
use super::waiters::StartState;
use crate::home::EntryApp;
use crate::ids::AppIx;
use crate::keeper::protocol::Order;
use crate::supervisor::{Cause, ExitStatus, Next, Report};

const SIGKILL: u8 = 9;

impl App {
    /// The number of workers, where somebody set another one than the configuration.
    fn scaled(&self, system: &impl System) -> Option<u32> {
        if self.scaling().is_some() {
            return Some(self.supervisor.wanted_count()).filter(|_| self.autoscale.is_by_hand());
        }
        let configured = self.settings().config.workers.count(system.cpus().count);
        Some(self.supervisor.wanted_count()).filter(|count| *count != configured)
    }

    pub(super) fn start_state(&self) -> StartState {
        if let Some((why, said)) = &self.start_failure {
            return StartState::Failed(format!("{}: {why}", self.name), said.clone());
        }
        if self.starting {
            return StartState::Pending;
        }
        // `closed`: the supervisor gets to know of the stop with the next events.
        if self.closed || self.supervisor.is_stopping() {
            return StartState::Failed(format!("{} was stopped", self.name), None);
        }
        if self.supervisor.is_over() && !self.supervisor.is_errored() {
            return StartState::Ready(format!("{}: finished", self.name));
        }
        let workers = self.supervisor.serving_count();
        let at = match self.addresses().join(" ") {
            none if none.is_empty() => none,
            at => format!(" on {at}"),
        };
        StartState::Ready(format!("{}: {workers} {} ready{at}", self.name, plural(workers, "worker")))
    }
}

/// Saves in the entry what a later run has to know of each app: that it exists, and whether it runs.
pub(super) fn save_states(cx: &Context<impl System>) {
    let Some(home) = cx.deployment.home.as_ref().filter(|_| cx.deployment.background) else { return };
    let mut entry = match home.entry(&cx.deployment.name) {
        Ok(entry) => entry,
        Err(e) => return log::warn!("cannot save the state of {}: {e}", cx.deployment.name),
    };
    let stays = |app: &&App| !app.deleted;
    entry.apps = cx
        .apps
        .iter()
        .filter(stays)
        .map(|app| EntryApp {
            name: app.name.clone(),
            id: cx.deployment.ids.get(&app.name).copied().unwrap_or_default(),
            stopped: (app.closed || app.stops_at_ms.is_some()) && !app.starting,
            workers: app.scaled(&cx.system),
        })
        .collect();
    let serving = cx.apps.iter().filter(stays).map(|app| app.settings().source).max();
    entry.sources = serving.and_then(|source| cx.deployment.sources.get(&source)).cloned();
    if let Err(e) = home.write_entry(&entry) {
        log::warn!("cannot save the state of {}: {e}", cx.deployment.name);
    }
}

/// Keeps the exit code of a last run: it becomes clusterd's own when nothing is left to run.
pub(super) fn note_last_run(app: &mut App, report: &Report) {
    match report {
        Report::WorkerDied { cause, next: Next::LastRun { .. }, .. } => {
            app.last_run_code = app.last_run_code.max(exit_code(cause));
        }
        // It had closed its channel or its servers before.
        Report::WorkerLeft { status, by_itself: true, .. } if app.settings().config.restart.max_runs.is_some() => {
            app.last_run_code = app.last_run_code.max(exit_code(&Cause::Ended(*status)));
        }
        Report::Started { .. } | Report::ReloadStarted { .. } => app.last_run_code = 0,
        _ => {}
    }
}

/// The exit code for the end of a process, as a shell would give it.
fn exit_code(cause: &Cause) -> u8 {
    match cause {
        Cause::Ended(ExitStatus::Code(code)) => u8::try_from(*code).unwrap_or(1),
        Cause::Ended(ExitStatus::Signal(number)) => u8::try_from(128 + number).unwrap_or(1),
        Cause::Ended(ExitStatus::OutOfMemory) => 128 + SIGKILL,
        Cause::NotStarted { .. }
        | Cause::NotReady { .. }
        | Cause::Misbehaved(_)
        | Cause::Hung(_)
        | Cause::Overran(_) => 1,
    }
}

/// Has the keeper tell the service manager that no app is starting any more: once, and after each reload of which it was told.
pub(super) fn tell_when_all_serve(cx: &mut Context<impl System>) {
    let busy = |app: &App| app.starting || app.supervisor.is_reloading();
    if cx.deployment.told == Told::Serving || cx.deployment.stop_asked || cx.apps.iter().any(busy) {
        return;
    }
    cx.deployment.told = Told::Serving;
    cx.keeper.send(Order::Serving);
}

/// Updates a start that is under way by a report.
pub(super) fn note_start(cx: &mut Context<impl System>, output: &mut Output, ix: AppIx, report: &Report) {
    match report {
        Report::AppReady { .. } => {
            cx.apps[ix].starting = false;
            cx.apps[ix].start_failure = None;
            let ids: Vec<_> = cx.apps[ix].supervisor.workers().map(|w| w.id).collect();
            ids.into_iter().for_each(|id| drop(output.take_tail(id)));
        }
        Report::WorkerDied { next: Next::Stopped | Next::LastRun { failed: false, .. }, .. } => {}
        Report::WorkerDied { worker, cause, lived_ms, next, .. } => {
            let newest = cx.apps[ix].last_generation;
            let here = cx.workers.find(*worker).and_then(|w| cx.workers.get(w));
            let is_new = here.is_none_or(|w| w.generation == newest);
            if cx.apps[ix].starting && is_new && cx.apps[ix].start_failure.is_none() {
                let said = cx.apps[ix].last_words.take().or_else(|| output.take_tail(*worker));
                if let Some(said) = &said {
                    last_words::expect(cx, ix, said);
                }
                let again = matches!(next, Next::Replaced { .. } | Next::Waiting { .. });
                let again = if again { "; trying again" } else { "" };
                let why = format!("its first worker {}{again}", cause.with_age(*lived_ms));
                cx.apps[ix].start_failure = Some((why, said));
            }
        }
        Report::AgentDied { agent, cause, lived_ms, .. }
            if cx.apps[ix].starting && cx.apps[ix].start_failure.is_none() =>
        {
            let said = cx.apps[ix].last_words.take().or_else(|| output.take_tail(*agent));
            if let Some(said) = &said {
                last_words::expect(cx, ix, said);
            }
            let why = format!("its agent {}; trying again", cause.with_age(*lived_ms));
            cx.apps[ix].start_failure = Some((why, said));
        }
        Report::BeforeFailed { process, cause, lived_ms, next, .. }
            if cx.apps[ix].starting && cx.apps[ix].start_failure.is_none() =>
        {
            let said = cx.apps[ix].last_words.take().or_else(|| output.take_tail(*process));
            if let Some(said) = &said {
                last_words::expect(cx, ix, said);
            }
            let again = if matches!(next, Next::Waiting { .. }) { "; trying again" } else { "" };
            let why = format!("before {}{again}", cause.with_age(*lived_ms));
            cx.apps[ix].start_failure = Some((why, said));
        }
        Report::StartDropped { .. } => {
            cx.apps[ix].start_failure = Some(("a stop followed the restart".to_owned(), None));
        }
        Report::Started { .. } => {
            cx.apps[ix].last_words = None;
            cx.apps[ix].closed = false;
            cx.deployment.exit_code = 0;
        }
        Report::Scaled { .. } => save_states(cx),
        Report::AppErrored | Report::AppFinished | Report::AppStopped => cx.apps[ix].starting = false,
        _ => {}
    }
}

/// Whether a deployment stays although nothing of it runs: somebody, or a trigger, can start it again.
pub(super) fn stays_when_over(cx: &Context<impl System>) -> bool {
    !cx.deployment.stop_asked
        && cx.apps.iter().any(|app| app.may_restart() || (cx.deployment.background && !app.deleted))
}

/// Why a command is refused for an app that is stopped; `None` if the app is meant to run.
pub(super) fn refusal_while_stopped(cx: &Context<impl System>, ix: AppIx) -> Option<String> {
    let app = &cx.apps[ix];
    if !app.is_stopping() {
        return None;
    }
    let state = if app.supervisor.is_stopped() { "stopped" } else { "stopping" };
    Some(match cx.deployment.background {
        true => format!("{} is {state}; start it: clusterd start {}", app.name, app.name),
        false => format!("{} is {state}", app.name),
    })
}
