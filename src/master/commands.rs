//! What the signals of the person, systemd or Docker mean (the keeper forwards them).
use super::Master;
use super::reading::{self, Input, Purpose};
use super::triggers::Trigger;
use crate::api::request::StopMode;
use crate::api::{self, Change};
use crate::ids::AppIx;
use crate::limits;
use crate::os::{cpu, signal};
use crate::supervisor::Event;

impl Master {
    pub(super) fn on_signal(&mut self, number: i32, value: Option<i32>) {
        match number {
            signal::TERM | signal::INT => {
                self.stop_all(StopMode::from_now(self.cx.deployment.stop_asked));
            }
            signal::QUIT => self.stop_all(StopMode::Now),
            signal::HUP => {
                let all = self.apps_that_run();
                self.reload_asked(&all, Change::default(), None);
            }
            signal::USR1 => self.output.files.reopen(None),
            signal::USR2 => self.scale_by_signal(value),
            signal::TTIN => self.scale_all(|now| now + 1),
            signal::TTOU => self.scale_all(|now| now.saturating_sub(1)),
            other => log::debug!("signal {other} is not ours"),
        }
    }

    /// SIGUSR2: with a value, that many workers; else what the configuration says now; where that is what there is
    /// already (or there is no file), one more.
    fn scale_by_signal(&mut self, value: Option<i32>) {
        if let Some(value) = value {
            match u32::try_from(value) {
                Ok(n) if (1..=limits::WORKERS_MAX).contains(&n) => self.scale_all(|_| n),
                Ok(_) | Err(_) => {
                    log::warn!("SIGUSR2 with the value {value}: say a number from 1 to {}", limits::WORKERS_MAX);
                }
            }
            return;
        }
        let change = Change::default();
        if reading::takes_long(&self.cx, &change) {
            return self.read_apart(Purpose::Scale, change);
        }
        self.scale_as_configured(Input::Change(change));
    }

    /// Has a thread read the configuration again, and carries on when it is there.
    pub(super) fn read_apart(&mut self, purpose: Purpose, change: Change) {
        for (purpose, input) in self.readings.begin(&self.cx, purpose, change) {
            self.was_read(purpose, input);
        }
    }

    /// Carries on with what was read meanwhile.
    pub(super) fn take_readings(&mut self) {
        for (purpose, input) in self.readings.take(&self.cx) {
            self.was_read(purpose, input);
        }
    }

    fn was_read(&mut self, purpose: Purpose, input: Input) {
        match purpose {
            Purpose::Reload { apps, reply } => self.reload_with(&apps, input, reply),
            Purpose::Start { app, restart, reply } => self.start_with(app, restart, input, reply),
            Purpose::Scale => self.scale_as_configured(input),
        }
    }

    /// The same with what was read.
    pub(super) fn scale_as_configured(&mut self, input: Input) {
        let configured = match self.configured_again(input) {
            Ok(config) => config,
            Err(reason) => {
                log::error!("SIGUSR2: {reason}; the number of workers stays");
                return;
            }
        };
        let cpus = cpu::available().count;
        let from_file = self.has_file();
        for ix in self.cx.apps.indices() {
            let now = self.cx.apps[ix].supervisor.slot_count();
            let name = &self.cx.apps[ix].name;
            let wanted = configured.apps.iter().find(|a| &a.name == name).map(|a| a.workers.count(cpus));
            let slots = match wanted {
                Some(wanted) if from_file && wanted != now => wanted,
                Some(_) | None => now + 1,
            };
            self.scale(ix, slots);
        }
    }

    fn scale_all(&mut self, to: impl Fn(u32) -> u32) {
        for ix in self.cx.apps.indices() {
            let slots = to(self.cx.apps[ix].supervisor.slot_count());
            self.scale(ix, slots);
        }
    }

    fn scale(&mut self, ix: AppIx, slots: u32) {
        if (1..=limits::WORKERS_MAX).contains(&slots) {
            self.cx.events.push_back((ix, Event::Scale { slots }));
        } else {
            let name = &self.cx.apps[ix].name;
            log::warn!("{name}: {slots} workers are not possible (1 to {}); nothing changes", limits::WORKERS_MAX);
        }
    }

    /// A rolling reload of an app, or a start where nothing of it is left, that nobody asked for by hand.
    pub(super) fn triggered(&mut self, trigger: Trigger) {
        let Trigger { app: ix, why, change } = trigger;
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
