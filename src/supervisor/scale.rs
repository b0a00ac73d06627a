//! Scaling: adds slots at the end, or removes them from the end. `reload` handles a scale during a reload, `spares` who of
//! those that are left serves.
use super::Report;
use super::app::{App, Cx};
use super::slot::{SlotPhase, SlotState};
use super::spares::{clamp_wanted, with_spares};

impl App {
    /// Counts the restarts of every slot from zero. (Failures within the window stay counted.)
    pub fn reset_restarts(&mut self) {
        self.slots.iter_mut().for_each(|slot| slot.restarts = 0);
    }

    /// Changes to this number of workers, at once or after the reload under way.
    pub(super) fn ask_scale(&mut self, cx: &mut Cx<'_>, wanted: u32) {
        if self.stopping.is_some() {
            return;
        }
        if self.reload.is_some() {
            self.queued_scale = Some(wanted);
            return;
        }
        let policy = self.policy(self.generation);
        let wanted = clamp_wanted(wanted, policy);
        let slots = with_spares(wanted, policy);
        if wanted > self.wanted {
            self.reported_ready = false;
        }
        self.wanted = wanted;
        for index in self.slots.len() as u32..slots {
            self.slots.push(SlotState::new(self.generation));
            self.fill(cx, index);
        }
        while self.slots.len() as u32 > slots {
            let index = self.slots.len() as u32 - 1;
            self.set_slot_phase(index, SlotPhase::Stopped);
            let leaving = self.slots.pop().map(|s| [s.current, s.incoming]);
            for worker in leaving.into_iter().flatten().flatten() {
                self.retire(cx, worker);
            }
        }
        cx.report(Report::Scaled { slots: wanted });
    }
}
