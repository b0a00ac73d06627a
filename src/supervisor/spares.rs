//! Spares: workers that are started and ready, but get no connections until a worker that serves is lost.
//!
//! An app has a slot for each wanted worker and for each spare. Which of them serve is decided by who is ready: the first
//! `wanted` workers serve, the others are held back. When one of the former is lost, a spare serves at once, in its own
//! slot, and the next worker of the slot that became empty is the next spare. So slots, failures and backoff are the same
//! for all, and no process changes its slot, of whose number it was told at its start.
use super::app::{App, Cx, Role};
use super::slot::SlotState;
use super::worker::Worker;
use super::{Action, Policy, Report};
use crate::ids::WorkerId;
use crate::limits;
use std::collections::VecDeque;

/// The number of slots for so many workers under this policy.
pub(super) fn with_spares(wanted: u32, policy: &Policy) -> u32 {
    wanted.saturating_add(policy.spares).min(limits::WORKERS_MAX)
}

/// A number of workers that leaves room for the spares.
pub(super) fn clamp_wanted(wanted: u32, policy: &Policy) -> u32 {
    wanted.clamp(1, limits::WORKERS_MAX.saturating_sub(policy.spares).max(1))
}

impl App {
    /// How many workers shall serve.
    pub fn wanted_count(&self) -> u32 {
        self.wanted
    }

    /// Ready workers that get connections.
    pub fn serving_count(&self) -> u32 {
        self.workers.serving()
    }

    /// Ready workers that are held back.
    pub fn spare_count(&self) -> u32 {
        self.workers.spares()
    }

    /// How many spares there shall be.
    pub fn spares_wanted(&self) -> u32 {
        self.slot_count().saturating_sub(self.wanted)
    }

    /// Whether a worker that becomes ready is held back: enough others serve. One that takes over a slot does what the
    /// worker there did.
    pub(super) fn is_surplus(&self, worker: WorkerId) -> bool {
        if self.spares_wanted() == 0 {
            return false;
        }
        let before = match self.role(worker) {
            Role::Incoming(index) => self.current_of(index).filter(|current| current.is_ready()),
            Role::Current(_) | Role::Leaving | Role::Gone => None,
        };
        before.map_or(self.workers.serving() >= self.wanted, |before| before.spare)
    }

    /// Has spares serve in the place of workers that were lost. Where more serve than are wanted (a spare's slot was
    /// removed), the last one leaves, and its slot gets a spare.
    pub(super) fn use_spares(&mut self, cx: &mut Cx<'_>) {
        self.admit_spares(cx, None);
        if self.spares_wanted() == 0 || self.reload.is_some() || self.stopping.is_some() {
            return;
        }
        while self.workers.serving() > self.wanted {
            let serving =
                |slot: &SlotState| slot.current.filter(|id| self.workers.get(id).is_some_and(Worker::is_serving));
            let last = self.slots.iter().enumerate().rev().find_map(|(index, slot)| Some((index, serving(slot)?)));
            let Some((index, worker)) = last else { break };
            self.detach(index as u32, worker);
            self.retire(cx, worker);
            self.fill(cx, index as u32);
        }
    }

    /// Has spares serve while too few workers do. `lost` is about to be removed and does not count.
    pub(super) fn admit_spares(&mut self, cx: &mut Cx<'_>, lost: Option<WorkerId>) {
        let is_serving = |id| self.workers.get(&id).is_some_and(Worker::is_serving);
        let wanted = self.wanted.saturating_add(u32::from(lost.is_some_and(is_serving)));
        while self.stopping.is_none() && self.workers.spares() > 0 && self.workers.serving() < wanted {
            let held_back = |slot: &SlotState| slot.current.filter(|id| self.is_held_back(*id));
            let Some(worker) = self.slots.iter().find_map(held_back) else { break };
            self.admit(cx, worker);
        }
    }

    /// Reports `AppReady` once all wanted workers serve.
    pub(super) fn report_ready(&mut self, cx: &mut Cx<'_>) {
        if self.reported_ready || self.stopping.is_some() || self.workers.serving() < self.wanted {
            return;
        }
        let serving =
            |slot: &&SlotState| slot.current.and_then(|id| self.workers.get(&id)).is_some_and(Worker::is_serving);
        if self.slots.iter().filter(serving).count() as u32 >= self.wanted {
            self.reported_ready = true;
            self.reported_end = false;
            cx.report(Report::AppReady { workers: self.wanted });
        }
    }

    /// The order in which a reload replaces the first `slots` slots: those of spares last, so that the first new worker
    /// is one that serves.
    pub(super) fn order_of_replacement(&self, slots: u32) -> VecDeque<u32> {
        let mut order: Vec<u32> = (0..slots.min(self.slot_count())).collect();
        order.sort_by_key(|index| self.current_of(*index).is_some_and(Worker::is_held_back));
        order.into()
    }

    fn admit(&mut self, cx: &mut Cx<'_>, worker: WorkerId) {
        let Some(slot) = self.workers.get(&worker).map(|w| w.slot) else { return };
        self.workers.set_spare(&worker, false);
        self.touched_workers.insert(worker);
        cx.act(Action::Serve { worker });
        cx.report(Report::SpareServes { worker, slot });
        self.report_ready(cx);
    }

    fn is_held_back(&self, worker: WorkerId) -> bool {
        self.workers.get(&worker).is_some_and(Worker::is_held_back)
    }

    fn current_of(&self, index: u32) -> Option<&Worker> {
        self.slots.get(index as usize).and_then(|slot| slot.current).and_then(|id| self.workers.get(&id))
    }
}
