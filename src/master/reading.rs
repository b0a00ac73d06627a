//! Configurations that take long to read, because node evaluates them: a thread does it while the loop turns, one
//! after the other, so that a later one never comes to serve before an earlier one.
use super::context::Context;
use crate::api::{Change, ReplySender};
use crate::config::sources::Sources;
use crate::ids::AppIx;
use crate::limits;
use crate::loader;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Stack of the thread on which a running deployment evaluates its configuration, in bytes.
const READING_STACK_BYTES: usize = 2 * 1024 * 1024;

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

impl Readings {
    /// Has a thread read the configuration again. What ended at once, because it could not be begun.
    pub(super) fn begin(&mut self, cx: &Context, purpose: Purpose, change: Change) -> Vec<(Purpose, Input)> {
        if self.open.len() >= limits::CONTROL_QUEUE_MAX {
            let too_many = Input::Read(Err("too many changes wait for the configuration to be read".to_owned()));
            return vec![(purpose, too_many)];
        }
        self.open.push_back((purpose, change));
        if self.open.len() == 1 { self.begin_next(cx) } else { Vec::new() }
    }

    /// What was read meanwhile, and what it is for.
    pub(super) fn take(&mut self, cx: &Context) -> Vec<(Purpose, Input)> {
        let mut ended = Vec::new();
        while let Ok(outcome) = self.receiver.try_recv() {
            ended.extend(self.end(cx, outcome));
            ended.extend(self.begin_next(cx));
        }
        ended
    }

    fn begin_next(&mut self, cx: &Context) -> Vec<(Purpose, Input)> {
        let mut failed = Vec::new();
        while let Some((_, change)) = self.open.front() {
            let previous = cx.deployment.current_sources().cloned().unwrap_or_default();
            let previous = Sources { base_env: change.env.clone().or(previous.base_env), ..previous };
            let (sender, wake) = (self.sender.clone(), Arc::clone(&cx.wake));
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
            match thread.stack_size(READING_STACK_BYTES).spawn(read) {
                Ok(_) => break,
                Err(e) => {
                    let why = format!("no thread can be had to read the configuration: {e}");
                    failed.extend(self.end(cx, Err(why)));
                }
            }
        }
        failed
    }

    fn end(&mut self, cx: &Context, outcome: Outcome) -> Option<(Purpose, Input)> {
        let (purpose, _) = self.open.pop_front()?;
        let read = outcome.map(|(sources, notes)| {
            notes.iter().for_each(|note| log::warn!("{note}"));
            Box::new(Sources { background: cx.deployment.background, ..sources })
        });
        Some((purpose, Input::Read(read)))
    }
}

/// Whether a change needs a thread to be read.
pub(super) fn takes_long(cx: &Context, change: &Change) -> bool {
    change.sources.is_none() && cx.deployment.current_sources().is_some_and(loader::takes_long)
}
