//! Configurations that take long to read, because node evaluates them: a thread does it while the loop turns, one
//! after the other, so that a later one never comes to serve before an earlier one.
use super::Master;
use crate::api::{Change, ReplySender};
use crate::config::sources::Sources;
use crate::ids::AppIx;
use crate::limits;
use crate::loader;
use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// What a generation is to be made from.
pub(super) enum Input {
    /// What was typed, its files read again, or what takes its place.
    Change(Change),
    /// It was read on a thread.
    Read(Result<Box<Sources>, String>),
}

/// What a reading is for.
pub(super) enum Purpose {
    /// A reload of these apps.
    Reload { apps: Vec<AppIx>, reply: Option<ReplySender> },
    /// A start, or a restart, of this app.
    Start { app: AppIx, restart: bool, reply: ReplySender },
    /// The number of workers.
    Scale,
}

/// What came of a reading, and what could not be taken over this time.
type Outcome = Result<(Sources, Vec<String>), String>;

/// Readings under way and waiting.
pub(super) struct Readings {
    sender: SyncSender<Outcome>,
    receiver: Receiver<Outcome>,
    /// The first one is being read.
    open: VecDeque<(Purpose, Change)>,
}

impl Default for Readings {
    fn default() -> Readings {
        let (sender, receiver) = sync_channel(1);
        Readings { sender, receiver, open: VecDeque::new() }
    }
}

impl Master {
    /// Whether a change needs a thread to be read.
    pub(super) fn takes_long(&self, change: &Change) -> bool {
        change.sources.is_none()
            && self.cx.deployment.sources.get(&self.cx.deployment.last_source).is_some_and(loader::takes_long)
    }

    /// Has a thread read the configuration again; it goes on in [`Master::take_readings`].
    pub(super) fn read_apart(&mut self, purpose: Purpose, change: Change) {
        if self.readings.open.len() >= limits::CONTROL_QUEUE_MAX {
            let too_many = Input::Read(Err("too many changes wait for the configuration to be read".to_owned()));
            return self.go_on(purpose, too_many);
        }
        self.readings.open.push_back((purpose, change));
        if self.readings.open.len() == 1 {
            self.begin_reading();
        }
    }

    fn begin_reading(&mut self) {
        while let Some((_, change)) = self.readings.open.front() {
            let previous = self.cx.deployment.sources.get(&self.cx.deployment.last_source).cloned().unwrap_or_default();
            let previous = Sources { base_env: change.env.clone().or(previous.base_env), ..previous };
            let (sender, wake) = (self.readings.sender.clone(), std::sync::Arc::clone(&self.wake));
            let read = move || {
                let read = loader::reload(&previous).map_err(|e| e.to_string());
                let outcome = read.map(|sources| {
                    let notes = loader::notes(&sources, Some(&previous));
                    (sources, notes)
                });
                // The master takes it, unless it ends.
                let _ = sender.send(outcome);
                wake();
            };
            let thread = std::thread::Builder::new().name("clusterd-config".to_owned());
            match thread.stack_size(limits::READING_STACK_BYTES).spawn(read) {
                Ok(_) => return,
                Err(e) => self.end_reading(Err(format!("no thread can be had to read the configuration: {e}"))),
            }
        }
    }

    /// Goes on with what was read meanwhile.
    pub(super) fn take_readings(&mut self) {
        while let Ok(outcome) = self.readings.receiver.try_recv() {
            self.end_reading(outcome);
            self.begin_reading();
        }
    }

    fn end_reading(&mut self, outcome: Outcome) {
        let Some((purpose, _)) = self.readings.open.pop_front() else { return };
        let read = outcome.map(|(sources, notes)| {
            notes.iter().for_each(|note| log::warn!("{note}"));
            Box::new(Sources { background: self.cx.deployment.background, ..sources })
        });
        self.go_on(purpose, Input::Read(read));
    }

    fn go_on(&mut self, purpose: Purpose, input: Input) {
        match purpose {
            Purpose::Reload { apps, reply } => self.reload_with(&apps, input, reply),
            Purpose::Start { app, restart, reply } => self.start_with(app, restart, input, reply),
            Purpose::Scale => self.scale_as_configured(input),
        }
    }
}
