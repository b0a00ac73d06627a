//! The time between the order to stop an app and its stop: `drain_delay`, in which load balancers are told that it leaves, and until the
//! apps that depend on it have stopped, where they are to stop too (`depends_on`). Its workers serve on. Agent checks are answered with
//! `drain`, `/readyz` with 503, and the app's status is `stopping`. For the supervisor nothing has happened yet; the order is saved, so
//! that the next master stops the app in time.
//!
//! The wait for others is bounded by their own stops (`drain_timeout`, `kill_timeout`), since only an app that is stopping is waited for.
use super::app::App;
use super::checkpoint;
use super::context::Context;
use super::system::System;
use super::timers::Timer;
use crate::ids::AppIx;
use crate::supervisor::Report;
use crate::text::elapsed;

impl App {
    /// Whether it stops, or is about to.
    pub(super) fn is_stopping(&self) -> bool {
        self.stops_at_ms.is_some() || self.supervisor.is_stopping()
    }

    /// Whether it was told to stop for good, and something of it may still run.
    fn is_ending(&self) -> bool {
        let told = self.closed || self.is_stopping();
        told && !self.supervisor.is_stopped() && !self.supervisor.is_restarting()
    }
}

/// The apps that depend on this one and are still stopping.
pub(super) fn waits_for(cx: &Context<impl System>, ix: AppIx) -> Vec<String> {
    let name = &cx.apps[ix].name;
    let waits = |other: &&App| other.is_ending() && other.settings().config.depends_on.contains(name);
    cx.apps.iter().filter(waits).map(|other| other.name.clone()).collect()
}

/// Puts off the stop of an app, if its configuration says so or others depend on it that are still stopping. Returns whether the stop
/// comes later.
pub(super) fn put_off(cx: &mut Context<impl System>, ix: AppIx) -> bool {
    let app = &cx.apps[ix];
    if app.stops_at_ms.is_some() {
        return true;
    }
    if app.closed || app.supervisor.is_stopping() || app.supervisor.is_over() {
        return false;
    }
    let delay_ms = if app.supervisor.serving_count() > 0 { app.settings().drain_delay_ms() } else { 0 };
    let others = waits_for(cx, ix);
    if delay_ms > 0 {
        let delay = elapsed(delay_ms);
        log::info!("{}: stopping in {delay} (drain_delay); load balancers are told to drain it", app.name);
    }
    if !others.is_empty() {
        log::info!("{}: stopping when {} has stopped (depends_on)", app.name, others.join(", "));
    } else if delay_ms == 0 {
        return false;
    }
    let at_ms = cx.now_ms.saturating_add(delay_ms);
    cx.apps[ix].stops_at_ms = Some(at_ms);
    cx.timers.set_earlier(Timer::StopDelay, at_ms);
    checkpoint::save_app(cx, ix);
    true
}

/// Has the apps looked at that wait for others, where what happened to one may end their wait.
pub(super) fn note(cx: &mut Context<impl System>, report: &Report) {
    let concerns = matches!(report, Report::AppStopped | Report::Started { .. });
    if concerns && cx.apps.iter().any(|app| app.stops_at_ms.is_some_and(|at_ms| at_ms <= cx.now_ms)) {
        cx.timers.set_earlier(Timer::StopDelay, cx.now_ms);
    }
}

/// The apps whose stop is due.
pub(super) fn take_due(cx: &mut Context<impl System>) -> Vec<AppIx> {
    if !cx.timers.take_due(Timer::StopDelay, cx.now_ms) {
        return Vec::new();
    }
    let is_due = |ix: &AppIx| cx.apps[*ix].stops_at_ms.is_some_and(|at_ms| at_ms <= cx.now_ms);
    let due: Vec<AppIx> = cx.apps.indices().filter(is_due).collect();
    let later = cx.apps.iter().filter_map(|app| app.stops_at_ms).filter(|at_ms| *at_ms > cx.now_ms).min();
    cx.timers.set_or_cancel(Timer::StopDelay, later);
    let free: Vec<AppIx> = due.iter().copied().filter(|&ix| waits_for(cx, ix).is_empty()).collect();
    let others_end = || cx.apps.entries().any(|(ix, app)| app.is_ending() && !due.contains(&ix));
    // After reloads of single apps, two generations may depend on each other.
    if free.is_empty() && !others_end() { due } else { free }
}

/// Waits on as the previous master did.
pub(super) fn resume(cx: &mut Context<impl System>) {
    if let Some(at_ms) = cx.apps.iter().filter_map(|app| app.stops_at_ms).min() {
        cx.timers.set_earlier(Timer::StopDelay, at_ms);
    }
}
