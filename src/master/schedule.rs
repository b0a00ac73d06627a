//! Reloads that nobody asks for by hand: files that changed (`watch`), times that came (`cron_restart`). Both are looked
//! at once a second, so that whatever happened to an app in between, they follow its configuration.
use super::Master;
use super::app::App;
use crate::api::{self, Change};
use crate::config::cron;
use crate::home::Home;
use crate::ids::AppIx;
use crate::os::clock;
use crate::watch::{Spec, Watcher};
use jiff::ZonedDateTime;
use std::path::Path;
use std::sync::Arc;

/// What an app has of this.
#[derive(Default)]
pub(super) struct Schedule {
    watching: Option<(Spec, Option<Watcher>)>,
    /// The expression, and the next time that it names.
    next: Option<(String, Option<ZonedDateTime>)>,
}

impl App {
    /// Whether something that is to come may start it again.
    pub(super) fn comes_back(&self) -> bool {
        let config = &self.settings().config;
        let asks = config.cron_restart.is_some() || config.watch.is_some();
        asks && !self.deleted && !self.supervisor.is_stopping()
    }

    fn to_watch(&self, home: Option<&Path>) -> Option<Spec> {
        let settings = self.settings();
        let watch = settings.config.watch.as_ref().filter(|_| self.comes_back())?;
        let whole_folder = watch.paths.is_empty();
        let paths = if whole_folder { vec![settings.cwd.clone()] } else { watch.paths.clone() };
        let (app, ignore, delay) = (self.name.clone(), watch.ignore.clone(), watch.delay);
        Some(Spec { app, paths, whole_folder, ignore, apart: home.map(Path::to_owned), delay })
    }
}

impl Master {
    /// Watches what is to be watched, and looks whether a time has come.
    pub(super) fn follow_schedules(&mut self) {
        for ix in self.cx.apps.indices() {
            self.follow_files(ix);
        }
        if self.cx.apps.iter().any(|app| app.settings().config.cron_restart.is_some()) {
            let now = clock::local_time();
            self.cx.apps.indices().for_each(|ix| self.look_at_time(ix, &now));
        }
        self.last_look_at_time =
            Some(clock::local_time()).filter(|_| self.cx.apps.iter().any(|a| a.schedule.next.is_some()));
    }

    fn follow_files(&mut self, ix: AppIx) {
        let wanted = self.cx.apps[ix].to_watch(self.cx.deployment.home.as_ref().map(Home::path));
        if wanted.as_ref() == self.cx.apps[ix].schedule.watching.as_ref().map(|(spec, _)| spec) {
            return;
        }
        self.cx.apps[ix].schedule.watching = wanted.map(|spec| {
            let wake = Arc::clone(&self.wake);
            let watcher = Watcher::start(spec.clone(), move || wake());
            let watcher = watcher.map_err(|e| log::warn!("{}: cannot watch its files: {e}", spec.app)).ok();
            (spec, watcher)
        });
    }

    fn look_at_time(&mut self, ix: AppIx, now: &ZonedDateTime) {
        let app = &self.cx.apps[ix];
        let Some(text) = app.settings().config.cron_restart.clone().filter(|_| app.comes_back()) else {
            self.cx.apps[ix].schedule.next = None;
            return;
        };
        // A clock that was set back would have us wait for what is far away now.
        let set_back = self.last_look_at_time.as_ref().is_some_and(|last| last > now);
        let (due, known) = match &app.schedule.next {
            Some((known, next)) if *known == text && !set_back => (next.as_ref().is_some_and(|at| at <= now), true),
            Some(_) | None => (false, false),
        };
        if due || !known {
            self.cx.apps[ix].schedule.next = Some((text.clone(), cron::next(&text, now)));
        }
        if due && self.cx.apps[ix].supervisor.is_reloading() {
            log::info!("{}: it is time ({text}), and its workers are being replaced already", self.cx.apps[ix].name);
        } else if due {
            // What serves now, whatever its files say meanwhile: nobody is there to look what comes of it.
            let source = self.cx.apps[ix].settings().source;
            let sources = self.cx.deployment.sources.get(&source).cloned().map(Box::new);
            self.again(ix, &format!("it is time ({text})"), Change { sources, ..Change::default() });
        }
    }

    /// Files that have changed.
    pub(super) fn take_changes(&mut self) {
        for ix in self.cx.apps.indices() {
            let watcher = self.cx.apps[ix].schedule.watching.as_ref().and_then(|(_, watcher)| watcher.as_ref());
            let Some(change) = watcher.and_then(Watcher::take) else { continue };
            let cwd = &self.cx.apps[ix].settings().cwd;
            let shown = change.path.strip_prefix(cwd).unwrap_or(&change.path).display().to_string();
            let more = match change.others {
                0 => String::new(),
                others => format!(" and {others} more"),
            };
            self.again(ix, &format!("{shown}{more} changed"), Change::default());
        }
    }

    /// A rolling reload of an app, or a start where nothing of it is left.
    fn again(&mut self, ix: AppIx, why: &str, change: Change) {
        let app = &self.cx.apps[ix];
        if self.cx.deployment.stop_asked || self.has_handed_over() || !app.comes_back() {
            return;
        }
        if !app.supervisor.is_over() {
            log::info!("{}: {why}; reloading", app.name);
            return self.reload_asked(&[ix], change, None);
        }
        log::info!("{}: {why}; starting it again", app.name);
        self.start_asked(ix, false, change, api::unheard());
    }
}
