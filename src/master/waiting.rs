//! The connections of an app that were accepted and have no worker: theirs died or refused them, or none can take them now.
use crate::balance::ConnIx;
use crate::balance::starvation::Starvation;
use std::collections::VecDeque;

/// Connections that wait for a worker, the first to go at the front.
#[derive(Default)]
pub(super) struct WaitingClients {
    pub(super) queue: VecDeque<ConnIx>,
    /// How long those in the queue have waited; `None` while there are none.
    pub(super) starvation: Option<Starvation>,
}

impl WaitingClients {
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether they have waited for too long: they starve.
    pub(super) fn starve(&mut self, now_us: u64) -> bool {
        self.starvation.get_or_insert_default().is_reached(now_us)
    }
}
