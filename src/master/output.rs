//! Workers' output: passed through untouched by default, or over pipes to `logs` when it is to be prefixed. The keeper
//! holds the reading ends, so that a worker never writes into a pipe that broke with the master.
use super::keeper::Keeper;
use crate::ids::{Slot, WorkerId};
use crate::keeper::protocol::Order;
use crate::logs::{Prefixer, Stream};
use crate::os::pipe;
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};

/// The pipes of workers whose output is prefixed.
#[derive(Default)]
pub(super) struct Output {
    /// Started with the first worker that needs it.
    prefixer: Option<Prefixer>,
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
        app: &str,
        slot: Slot,
        worker: WorkerId,
    ) -> Result<Vec<OwnedFd>, String> {
        let mut ends = Vec::new();
        for (stream, name) in STREAMS {
            let (read, write) = pipe::pair().map_err(|e| format!("cannot make a pipe for its output: {e}"))?;
            keeper.hold(held_name(worker, name), read.as_fd());
            self.read(read, app, slot, stream)?;
            ends.push(write);
        }
        Ok(ends)
    }

    fn read(&mut self, pipe: OwnedFd, app: &str, slot: Slot, stream: Stream) -> Result<(), String> {
        if self.prefixer.is_none() {
            let started = Prefixer::start().map_err(|e| format!("cannot start the output's thread: {e}"))?;
            self.prefixer = Some(started);
        }
        if let Some(prefixer) = &self.prefixer {
            prefixer.read(pipe, format!("{app}/{slot}"), slot.0, stream);
        }
        Ok(())
    }

    /// Goes on with the pipes of a worker that a former master started.
    pub(super) fn adopt(&mut self, worker: WorkerId, app: &str, slot: Slot, fds: &mut HashMap<String, OwnedFd>) {
        for (stream, name) in STREAMS {
            let Some(pipe) = fds.remove(&held_name(worker, name)) else { continue };
            if let Err(e) = self.read(pipe, app, slot, stream) {
                log::error!("{app}/{slot}: {e}");
            }
        }
    }

    /// The worker is gone; what it wrote last is still read.
    pub(super) fn release(&mut self, keeper: &mut Keeper, worker: WorkerId) {
        if self.prefixer.is_some() {
            for (_, name) in STREAMS {
                keeper.send(Order::Release { name: held_name(worker, name) });
            }
        }
    }

    /// Everything is over: what was written goes out.
    pub(super) fn finish(&mut self) {
        if let Some(prefixer) = &self.prefixer {
            prefixer.finish();
        }
    }
}
