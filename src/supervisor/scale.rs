//! Scaling: adds slots at the end, or removes them from the end. `reload` handles a scale during a reload.
use super::Report;
use super::app::{App, Cx};
use super::slot::{SlotPhase, SlotState};
use crate::limits;

impl App {
    /// Changes to this number of slots, at once or after the reload under way.
    pub(super) fn ask_scale(&mut self, cx: &mut Cx<'_>, slots: u32) {
        if self.stopping.is_some() {
            return;
        }
        if self.reload.is_some() {
            self.queued_scale = Some(slots);
            return;
        }
        let slots = slots.clamp(1, limits::WORKERS_MAX);
        for index in self.slots.len() as u32..slots {
            self.slots.push(SlotState::new(self.generation));
            self.fill(cx, index);
            self.reported_ready = false;
        }
        while self.slots.len() as u32 > slots {
            let index = self.slots.len() as u32 - 1;
            self.set_slot_phase(index, SlotPhase::Stopped);
            let leaving = self.slots.pop().map(|s| [s.current, s.incoming]);
            for worker in leaving.into_iter().flatten().flatten() {
                self.retire(cx, worker);
            }
        }
        cx.report(Report::Scaled { slots });
    }
}
