//! Whether two workers of an app may run in one slot at a time, where the configuration does not say.
use super::app::App;
use super::context::Context;
use super::listener::Listener;
use super::settings::Settings;
use super::system::System;
use crate::ids::AppIx;

/// One worker that holds nothing of ours holds it itself (a port, a session of a bot), or would work twice.
pub(super) fn may_overlap(app: &App, settings: &Settings, slots: u32) -> bool {
    settings.config.reload.overlap.unwrap_or_else(|| {
        let has_several = slots != 1 || settings.config.spares > 0;
        has_several || !settings.config.listen.is_empty() || !app.listeners.iter().all(Listener::is_retired)
    })
}

/// Decides it again for the generations of an app: before a worker is replaced, and when a worker begins to listen.
pub(super) fn refresh(cx: &mut Context<impl System>, app_ix: AppIx) {
    let app = &mut cx.apps[app_ix];
    let slots = app.supervisor.slot_count();
    let decided: Vec<_> =
        app.generations.iter().map(|(&generation, settings)| (generation, may_overlap(app, settings, slots))).collect();
    for (generation, overlap) in decided {
        app.supervisor.set_overlap(generation, overlap);
    }
}
