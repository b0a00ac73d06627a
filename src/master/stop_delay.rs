//! The time between the order to stop an app and its stop (`drain_delay`): its workers serve on while load balancers are told that it
//! leaves. Agent checks are answered with `drain`, `/readyz` with 503, and the app's status is `stopping`. For the supervisor nothing has
//! happened yet; the order is saved, so that the next master stops the app in time.
use super::app::App;
use super::checkpoint;
use super::context::Context;
use super::system::System;
use super::timers::Timer;
use crate::ids::AppIx;
use crate::text::elapsed;

impl App {
    /// Whether it stops, or is about to.
    pub(super) fn is_stopping(&self) -> bool {
        self.stops_at_ms.is_some() || self.supervisor.is_stopping()
    }
}

/// Puts off the stop of an app that serves, if its configuration says so. Returns whether the stop comes later.
pub(super) fn put_off(cx: &mut Context<impl System>, ix: AppIx) -> bool {
    let app = &mut cx.apps[ix];
    if app.stops_at_ms.is_some() {
        return true;
    }
    let delay_ms = app.settings().drain_delay_ms();
    let serves = !app.closed && !app.supervisor.is_stopping() && app.supervisor.serving_count() > 0;
    if delay_ms == 0 || !serves {
        return false;
    }
    log::info!("{}: stopping in {} (drain_delay); load balancers are told to drain it", app.name, elapsed(delay_ms));
    let at_ms = cx.now_ms.saturating_add(delay_ms);
    app.stops_at_ms = Some(at_ms);
    cx.timers.set_earlier(Timer::StopDelay, at_ms);
    checkpoint::save_app(cx, ix);
    true
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
    due
}

/// Waits on as the previous master did.
pub(super) fn resume(cx: &mut Context<impl System>) {
    if let Some(at_ms) = cx.apps.iter().filter_map(|app| app.stops_at_ms).min() {
        cx.timers.set_earlier(Timer::StopDelay, at_ms);
    }
}
