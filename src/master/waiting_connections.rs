//! Accepted connections of an app without a worker: their worker died or refused them, or no worker can take them now.
use crate::balance::ConnIx;
use crate::balance::starvation::Starvation;
use crate::balance::upgraded;
use std::collections::VecDeque;

/// Connections that wait for a worker, the oldest at the front.
#[derive(Default)]
pub(super) struct WaitingConnections {
    pub(super) queue: VecDeque<ConnIx>,
    /// Those that carry a state: `upgraded_moves` gives them to workers.
    pub(super) upgraded: upgraded::Waiting,
    /// How long the queue has not been empty; `None` while it is.
    pub(super) starvation: Option<Starvation>,
}

impl WaitingConnections {
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.upgraded.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.queue.clear();
        self.upgraded.clear();
    }

    /// How many wait for any worker.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether connections have waited too long.
    pub(super) fn starve(&mut self, now_us: u64) -> bool {
        self.starvation.get_or_insert_default().is_reached(now_us)
    }
}
