//! Automatic reloads: on changed files (`watch`) and at set times (`cron_restart`). Both are checked once a second
//! against the app's current configuration.
use super::app::App;
use super::context::Context;
use super::system::System;
use crate::api::Change;
use crate::config::cron;
use crate::home::Home;
use crate::ids::AppIx;
use crate::watch::{Spec, Watcher};
use jiff::ZonedDateTime;
use std::path::Path;
use std::sync::Arc;

/// An app's part of this.
#[derive(Default)]
pub(super) struct Schedule {
    watching: Option<(Spec, Option<Watcher>)>,
    /// The expression, and its next time.
    next: Option<(String, Option<ZonedDateTime>)>,
}

impl App {
    /// Whether a trigger may start the app again.
    pub(super) fn may_restart(&self) -> bool {
        let config = &self.settings().config;
        let asks = config.cron_restart.is_some() || config.watch.is_some();
        asks && !self.deleted && !self.is_stopping()
    }

    fn to_watch(&self, home: Option<&Path>) -> Option<Spec> {
        let settings = self.settings();
        let watch = settings.config.watch.as_ref().filter(|_| self.may_restart())?;
        let whole_folder = watch.paths.is_empty();
        let paths = if whole_folder { vec![settings.config.folder.clone()] } else { watch.paths.clone() };
        let (app, ignore, delay) = (self.name.clone(), watch.ignore.clone(), watch.delay);
        let mut apart = settings.config.log.files(self.supervisor.slot_count(), &settings.config.beside());
        apart.extend(home.map(Path::to_owned));
        Some(Spec { app, paths, whole_folder, ignore, apart, delay })
    }
}

/// A reload that a file or a time triggers; a start where nothing of the app is left.
pub(super) struct Trigger {
    pub(super) app: AppIx,
    /// The reason, for people.
    pub(super) why: String,
    pub(super) change: Change,
}

/// State shared by all apps.
#[derive(Default)]
pub(super) struct Triggers {
    last_look: Option<ZonedDateTime>,
}

impl Triggers {
    /// Updates what is watched. Returns the apps whose time has come.
    pub(super) fn look(&mut self, cx: &mut Context<impl System>) -> Vec<Trigger> {
        let mut due = Vec::new();
        for ix in cx.apps.indices() {
            follow_files(cx, ix);
        }
        if cx.apps.iter().any(|app| app.settings().config.cron_restart.is_some()) {
            let now = cx.system.local_time();
            due.extend(cx.apps.indices().filter_map(|ix| self.look_at_time(cx, ix, &now)));
        }
        self.last_look = Some(cx.system.local_time()).filter(|_| cx.apps.iter().any(|a| a.schedule.next.is_some()));
        due
    }

    fn look_at_time(&self, cx: &mut Context<impl System>, ix: AppIx, now: &ZonedDateTime) -> Option<Trigger> {
        let app = &mut cx.apps[ix];
        let Some(text) = app.settings().config.cron_restart.clone().filter(|_| app.may_restart()) else {
            app.schedule.next = None;
            return None;
        };
        // After a clock was set back, the stored time may be far in the future.
        let set_back = self.last_look.as_ref().is_some_and(|last| last > now);
        let (due, known) = match &app.schedule.next {
            Some((known, next)) if *known == text && !set_back => (next.as_ref().is_some_and(|at| at <= now), true),
            Some(_) | None => (false, false),
        };
        if due || !known {
            app.schedule.next = Some((text.clone(), cron::next(&text, now)));
        }
        if due && app.supervisor.is_reloading() {
            log::info!("{}: cron_restart ({text}) is due, but a reload is under way; skipped", app.name);
            return None;
        }
        // Use the current settings whatever the files say now: nobody is there to check the result.
        let sources = cx.deployment.sources.get(&app.settings().source).cloned().map(Box::new);
        due.then(|| Trigger {
            app: ix,
            why: format!("cron_restart ({text}) is due"),
            change: Change { sources, ..Change::default() },
        })
    }

    /// Apps whose files have changed since the last call.
    pub(super) fn take_changes(&self, cx: &Context<impl System>) -> Vec<Trigger> {
        let changed = |(app, state): (AppIx, &App)| {
            let (_, watcher) = state.schedule.watching.as_ref()?;
            let change = watcher.as_ref()?.take()?;
            let below =
                change.path.strip_prefix(&state.settings().cwd).ok().filter(|path| path.iter().next().is_some());
            let shown = below.unwrap_or(&change.path).display();
            let why = match change.others {
                0 => format!("{shown} changed"),
                others => format!("{shown} and {others} more changed"),
            };
            Some(Trigger { app, why, change: Change::default() })
        };
        cx.apps.entries().filter_map(changed).collect()
    }
}

/// An app is started: what changed before is what it starts with. Its files are watched from now on.
pub(super) fn watch_from_start(cx: &mut Context<impl System>, ix: AppIx) {
    cx.apps[ix].schedule.watching = None;
    follow_files(cx, ix);
}

fn follow_files(cx: &mut Context<impl System>, ix: AppIx) {
    let wanted = cx.apps[ix].to_watch(cx.deployment.home.as_ref().map(Home::path));
    let schedule = &mut cx.apps[ix].schedule;
    if wanted.as_ref() == schedule.watching.as_ref().map(|(spec, _)| spec) {
        return;
    }
    schedule.watching = wanted.map(|spec| {
        let wake = Arc::clone(&cx.wake);
        let watcher = Watcher::start(spec.clone(), move || wake());
        let watcher = watcher.map_err(|e| log::warn!("{}: cannot watch its files: {e}", spec.app)).ok();
        (spec, watcher)
    });
}
