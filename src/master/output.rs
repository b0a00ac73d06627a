//! Workers' output: inherited by default, or over pipes to `logs` when it is to be prefixed or its last lines are to be
//! shown. The keeper holds the reading ends, so that a worker never writes into a pipe that broke with the master.
use super::keeper::Keeper;
use crate::ids::{Slot, WorkerId};
use crate::keeper::protocol::Order;
use crate::logs::{Pump, Source, Stream, Tail};
use crate::os::pipe;
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// The pipes of workers.
#[derive(Default)]
pub(super) struct Output {
    /// Started with the first worker that needs it.
    pump: Option<Pump>,
    /// Of workers that a reload has started.
    tails: HashMap<WorkerId, Arc<Tail>>,
}

/// What is to happen to a worker's output.
#[derive(Clone, Debug)]
pub(super) struct Way {
    /// The app and the slot, for the prefix.
    pub(super) place: (String, Slot),
    /// Prefix each line.
    pub(super) prefix: bool,
    /// Keep the last lines.
    pub(super) tail: bool,
}

const STREAMS: [(Stream, &str); 2] = [(Stream::Out, "out"), (Stream::Err, "err")];

fn held_name(worker: WorkerId, stream: &str) -> String {
    format!("output/{worker}/{stream}")
}

impl Output {
    /// The ends that a new worker gets as stdout and stderr.
    ///
    /// # Errors
    /// A sentence: out of fds or threads.
    pub(super) fn pipes_for(
        &mut self,
        keeper: &mut Keeper,
        worker: WorkerId,
        way: &Way,
    ) -> Result<Vec<OwnedFd>, String> {
        let mut ends = Vec::new();
        let tail = way.tail.then(|| Arc::new(Tail::new(STREAMS.len())));
        if let Some(tail) = &tail {
            self.tails.insert(worker, Arc::clone(tail));
        }
        for (stream, name) in STREAMS {
            let (read, write) = pipe::pair().map_err(|e| format!("cannot make a pipe for its output: {e}"))?;
            keeper.hold(held_name(worker, name), read.as_fd());
            self.read(read, stream, way, tail.clone())?;
            ends.push(write);
        }
        Ok(ends)
    }

    fn read(&mut self, pipe: OwnedFd, stream: Stream, way: &Way, tail: Option<Arc<Tail>>) -> Result<(), String> {
        if self.pump.is_none() {
            let started = Pump::start().map_err(|e| format!("cannot start the output's thread: {e}"))?;
            self.pump = Some(started);
        }
        let (app, slot) = &way.place;
        let label = way.prefix.then(|| (format!("{app}/{slot}"), slot.0));
        if let Some(pump) = &self.pump {
            pump.read(Source::new(pipe, stream, label, tail));
        }
        Ok(())
    }

    /// The last lines of a worker that a reload started, for whoever asks why it failed.
    pub(super) fn take_tail(&mut self, worker: WorkerId) -> Option<Arc<Tail>> {
        self.tails.remove(&worker)
    }

    /// Goes on with the pipes of a worker that a former master started.
    pub(super) fn adopt(&mut self, worker: WorkerId, way: &Way, fds: &mut HashMap<String, OwnedFd>) {
        for (stream, name) in STREAMS {
            let Some(pipe) = fds.remove(&held_name(worker, name)) else { continue };
            if let Err(e) = self.read(pipe, stream, way, None) {
                log::error!("{}/{}: {e}", way.place.0, way.place.1);
            }
        }
    }

    /// The worker is gone; what it wrote last is still read.
    pub(super) fn release(&mut self, keeper: &mut Keeper, worker: WorkerId) {
        self.tails.remove(&worker);
        if self.pump.is_some() {
            for (_, name) in STREAMS {
                keeper.send(Order::Release { name: held_name(worker, name) });
            }
        }
    }

    /// Everything is over: what was written goes out.
    pub(super) fn finish(&mut self) {
        if let Some(pump) = &self.pump {
            pump.finish();
        }
    }
}
