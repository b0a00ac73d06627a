//! Configurations that take long to read, because node evaluates them: a thread reads them while the loop turns. One at
//! a time, so that a later one is never served before an earlier one.
use super::context::Context;
use super::reload::ReloadError;
use super::system::System;
use crate::api::{Change, ReplySender};
use crate::config::sources::Sources;
use crate::ids::AppIx;
use crate::limits;
use crate::loader;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Stack of the thread that evaluates a configuration, in bytes.
const READING_STACK_BYTES: usize = 2 * 1024 * 1024;

/// The input of a new generation.
pub(super) enum Input {
    /// The sources typed, their files read again, or their replacement.
    Change(Change),
    /// Sources that a thread has read.
    Read(Result<Box<Sources>, ReloadError>),
}

/// What a configuration is read for.
pub(super) enum Purpose {
    Reload {
        apps: Vec<AppIx>,
        reply: Option<ReplySender>,
    },
    /// A start of this app, or a restart.
    Start {
        app: AppIx,
        restart: bool,
        reply: ReplySender,
    },
    /// Scaling to the configured number of workers.
    Scale,
}

/// The sources, with warnings about those that could not be replaced this time; or why reading failed.
type Outcome = Result<(Sources, Vec<String>), ReloadError>;

/// The configuration that is being read, and those that wait.
pub(super) struct ConfigReads {
    sender: SyncSender<Outcome>,
    receiver: Receiver<Outcome>,
    /// The first one is being read.
    open: VecDeque<(Purpose, Change)>,
}

impl Default for ConfigReads {
    fn default() -> ConfigReads {
        let (sender, receiver) = sync_channel(1);
        ConfigReads { sender, receiver, open: VecDeque::new() }
    }
}

impl ConfigReads {
    /// Reads the configuration again on a thread. Returns what failed before it could begin.
    pub(super) fn begin(
        &mut self,
        cx: &Context<impl System>,
        purpose: Purpose,
        change: Change,
    ) -> Vec<(Purpose, Input)> {
        if self.open.len() >= limits::CONTROL_QUEUE_MAX {
            let too_many = Input::Read(Err(ReloadError::Busy));
            return vec![(purpose, too_many)];
        }
        self.open.push_back((purpose, change));
        if self.open.len() == 1 { self.begin_next(cx) } else { Vec::new() }
    }

    /// Whether a configuration is being read.
    pub(super) fn is_busy(&self) -> bool {
        !self.open.is_empty()
    }

    /// The configurations read since the last call, with their purposes.
    pub(super) fn take(&mut self, cx: &Context<impl System>) -> Vec<(Purpose, Input)> {
        let mut ended = Vec::new();
        while let Ok(outcome) = self.receiver.try_recv() {
            ended.extend(self.end(cx, outcome));
            ended.extend(self.begin_next(cx));
        }
        ended
    }

    fn begin_next(&mut self, cx: &Context<impl System>) -> Vec<(Purpose, Input)> {
        let mut failed = Vec::new();
        while let Some((_, change)) = self.open.front() {
            let previous = cx.deployment.current_sources().cloned().unwrap_or_default();
            let previous = Sources { base_env: change.env.clone().or(previous.base_env), ..previous };
            let (sender, wake) = (self.sender.clone(), Arc::clone(&cx.wake));
            let read = move || {
                let read = loader::reload(&previous).map_err(ReloadError::Load);
                let outcome = read.map(|sources| {
                    let notes = loader::notes(&sources, Some(&previous));
                    (sources, notes)
                });
                // The master takes the result, unless it ends first.
                let _ = sender.send(outcome);
                wake();
            };
            match cx.system.on_thread("clusterd-config", READING_STACK_BYTES, read) {
                Ok(()) => break,
                Err(error) => failed.extend(self.end(cx, Err(ReloadError::Thread(error)))),
            }
        }
        failed
    }

    fn end(&mut self, cx: &Context<impl System>, outcome: Outcome) -> Option<(Purpose, Input)> {
        let (purpose, _) = self.open.pop_front()?;
        let read = outcome.map(|(sources, notes)| {
            notes.iter().for_each(|note| log::warn!("{note}"));
            Box::new(Sources { background: cx.deployment.background, ..sources })
        });
        Some((purpose, Input::Read(read)))
    }
}

/// Whether a change is read on a thread.
pub(super) fn takes_long(cx: &Context<impl System>, change: &Change) -> bool {
    change.sources.is_none() && cx.deployment.current_sources().is_some_and(loader::takes_long)
}
