//! Workers' output: inherited by default; to log files where they are configured; or over pipes to our own stdout and
//! stderr when lines get a prefix or the last lines are kept. The keeper holds the reading ends, so that no worker ever
//! writes into a pipe that broke with the master.
use super::keeper::Keeper;
use super::log_files::{self, LogFiles, Place};
use super::system::System;
use crate::config::log::Target;
use crate::config::{self};
use crate::ids::{Generation, Slot, WorkerId};
use crate::keeper::protocol::Order;
use crate::logs::{LineCount, PassedOn, Pump, Stream, Tail, WriterError};
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use thiserror::Error;

/// Why a worker's output goes nowhere.
#[derive(Debug, Error)]
pub(super) enum OutputError {
    #[error("cannot create a pipe for its output: {0}")]
    Pipe(#[source] io::Error),
    #[error("cannot open /dev/null for its output: {0}")]
    NullDevice(#[source] io::Error),
    #[error("cannot start the thread that reads output: {0}")]
    Thread(#[source] io::Error),
    #[error(transparent)]
    Writer(#[from] WriterError),
}

/// The pipes of workers.
#[derive(Default)]
pub(super) struct Output {
    /// Started for the first worker that needs it.
    pump: Option<Pump>,
    /// The last lines of workers that a reload or a start waits for.
    tails: HashMap<WorkerId, Arc<Tail>>,
    pub(super) files: LogFiles,
}

/// Where a worker's output goes.
pub(super) struct Way<'a> {
    pub(super) config: &'a config::App,
    pub(super) slot: Slot,
    pub(super) generation: Generation,
    /// Keep the last lines.
    pub(super) tail: bool,
    /// It may have to be heard on stderr: [`Output::listen`].
    pub(super) heard: bool,
}

impl Way<'_> {
    /// Whether its lines say whose they are; those of a migration always do, as nobody expects them among a worker's.
    fn has_prefix(&self) -> bool {
        self.config.prefix || self.slot == Slot::BEFORE
    }
}

const STREAMS: [(Stream, &str); 2] = [(Stream::Out, "out"), (Stream::Err, "err")];

fn held_name(worker: WorkerId, stream: &str) -> String {
    format!("output/{worker}/{stream}")
}

impl Output {
    /// The pipes for a new worker's stdout and stderr, with their fd numbers; a stream that is not listed is inherited.
    ///
    /// # Errors
    /// Out of fds or threads.
    pub(super) fn for_worker(
        &mut self,
        system: &impl System,
        keeper: &mut Keeper<impl System>,
        worker: WorkerId,
        way: &Way<'_>,
    ) -> Result<Vec<(i32, OwnedFd)>, OutputError> {
        let mut ends = Vec::new();
        let tail = way.tail.then(|| Arc::new(Tail::new(STREAMS.len())));
        if let Some(tail) = &tail {
            self.tails.insert(worker, Arc::clone(tail));
        }
        for (stream, name) in STREAMS {
            let (number, target) = match stream {
                Stream::Out => (1, &way.config.log.out),
                Stream::Err => (2, &way.config.log.err),
            };
            let read = way.tail || (way.heard && stream == Stream::Err);
            let end = match target {
                Target::Inherit if !way.has_prefix() && !read => continue,
                Target::Inherit => {
                    let (end, write) = system.pipe().map_err(OutputError::Pipe)?;
                    keeper.hold(held_name(worker, name), end.as_fd());
                    if let Err(error) = self.read(system, worker, end, stream, way, tail.clone()) {
                        keeper.send(Order::Release { name: held_name(worker, name) });
                        return Err(error);
                    }
                    write
                }
                Target::Null if !read => system.null_device().map_err(OutputError::NullDevice)?,
                Target::Null | Target::File(_) => {
                    let Way { slot, generation, .. } = *way;
                    let place = Place { worker, stream, app: way.config.name.clone(), slot, generation };
                    self.files.pipe_for(system, keeper, place, tail.clone())?
                }
            };
            ends.push((number, end));
        }
        Ok(ends)
    }

    fn read(
        &mut self,
        system: &impl System,
        worker: WorkerId,
        pipe: OwnedFd,
        stream: Stream,
        way: &Way<'_>,
        tail: Option<Arc<Tail>>,
    ) -> Result<(), OutputError> {
        if self.pump.is_none() {
            let begin = |name, stack_bytes, reader| system.in_background(name, stack_bytes, reader);
            let started = Pump::start(begin).map_err(OutputError::Thread)?;
            self.pump = Some(started);
        }
        let label = way.has_prefix().then(|| (format!("{}/{}", way.config.name, way.slot), way.slot.0));
        if let Some(pump) = &self.pump {
            pump.read(PassedOn::new(log_files::key(worker, stream), pipe, stream, label, tail));
        }
        Ok(())
    }

    /// What a worker prints to stderr from now on, where that is read.
    pub(super) fn listen(&self, worker: WorkerId) -> Arc<Tail> {
        if let Some(tail) = self.tails.get(&worker) {
            return Arc::clone(tail);
        }
        let (tail, key) = (Arc::new(Tail::new(1)), log_files::key(worker, Stream::Err));
        if let Some(pump) = &self.pump {
            pump.listen(key, Arc::clone(&tail));
        }
        if let Err(e) = self.files.listen(key, Arc::clone(&tail)) {
            log::warn!("cannot follow the output of worker {worker}: {e}");
        }
        tail
    }

    /// The lines that a worker prints to stderr from now on, where that is read.
    pub(super) fn count_errors(&self, worker: WorkerId) -> Arc<LineCount> {
        let (count, key) = (Arc::new(LineCount::default()), log_files::key(worker, Stream::Err));
        if let Some(pump) = &self.pump {
            pump.count(key, Arc::clone(&count));
        }
        if let Err(e) = self.files.count(key, Arc::clone(&count)) {
            log::warn!("cannot count the lines of worker {worker}: {e}");
        }
        count
    }

    /// The last lines of a worker, for the reason why its start failed.
    pub(super) fn take_tail(&mut self, worker: WorkerId) -> Option<Arc<Tail>> {
        self.tails.remove(&worker)
    }

    /// Continues the pipes of a worker that a previous master started. `LogFiles` resumes its own.
    pub(super) fn adopt(
        &mut self,
        system: &impl System,
        worker: WorkerId,
        way: &Way<'_>,
        fds: &mut HashMap<String, OwnedFd>,
    ) {
        for (stream, name) in STREAMS {
            let Some(pipe) = fds.remove(&held_name(worker, name)) else { continue };
            if let Err(e) = self.read(system, worker, pipe, stream, way, None) {
                log::error!("{}/{}: {e}", way.config.name, way.slot);
            }
        }
    }

    /// Releases the pipes of a worker that is gone; its last output is still read.
    pub(super) fn release(&mut self, keeper: &mut Keeper<impl System>, worker: WorkerId) {
        self.tails.remove(&worker);
        self.files.spawn_failed(keeper, worker);
        if self.pump.is_some() {
            for (_, name) in STREAMS {
                keeper.send(Order::Release { name: held_name(worker, name) });
            }
        }
    }

    /// Writes what is left, at the end of the deployment.
    pub(super) fn finish(&mut self, system: &impl System) {
        if let Some(pump) = &self.pump {
            pump.finish(|is_done, ms| system.await_background(is_done, ms));
        }
        self.files.finish();
    }
}
