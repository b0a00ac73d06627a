//! Once a second: do the event loops of Node workers turn?
//!
//! A ping is a line that the worker ignores; whether it was read is asked of the kernel, so that no worker has to wake
//! the master. A worker that answers hand-offs needs no ping: how long they wait says the same.
use super::Master;
use super::worker::WorkerIx;
use crate::limits;
use crate::protocol::node;

impl Master {
    /// Pings every worker in one go.
    pub(super) fn look_at_workers(&mut self) {
        self.now();
        for ix in 0..self.workers.bound() {
            self.ping(ix);
        }
    }

    fn ping(&mut self, ix: WorkerIx) {
        if self.waits_for_ping(ix) {
            let Some(worker) = self.workers.get_mut(ix) else { return };
            worker.pulse.stuck = true;
            return self.refresh_eligibility(ix);
        }
        let Some(worker) = self.workers.get(ix) else { return };
        let Some(channel) = &worker.channel else { return };
        if !worker.admitted || worker.drain.is_some() || channel.closed {
            return;
        }
        let oldest = worker.member.and_then(|member| self.apps[worker.app].balancer.oldest_open_us(member));
        if oldest.is_some_and(|at| self.now_us.saturating_sub(at) <= limits::HANDOFF_SLOW_US) {
            return;
        }
        if !channel.is_blocked() {
            self.say(ix, node::PING);
        } // Else it has enough to read.
        if let Some(worker) = self.workers.get_mut(ix) {
            worker.pulse.pinged_us = Some(self.now_us);
            self.pinged = true;
        }
    }

    /// A moment later: who has not read its ping is watched until it does.
    pub(super) fn look_at_pings(&mut self) {
        for ix in 0..self.workers.bound() {
            if self.waits_for_ping(ix)
                && let Some(channel) = self.workers.get(ix).and_then(|w| w.channel.as_ref())
            {
                self.polls.channel_wants_write(ix, channel.as_fd());
            }
        }
    }

    /// Whether a ping to this worker was sent and is still not read.
    pub(super) fn waits_for_ping(&mut self, ix: WorkerIx) -> bool {
        let Some(worker) = self.workers.get_mut(ix) else { return false };
        let Some(pinged_us) = worker.pulse.pinged_us else { return false };
        if worker.channel.as_ref().is_some_and(|channel| !channel.closed && !channel.all_read()) {
            return true;
        }
        worker.pulse.delay_us = Some(self.now_us.saturating_sub(pinged_us));
        worker.pulse.pinged_us = None;
        if std::mem::take(&mut worker.pulse.stuck) {
            self.refresh_eligibility(ix);
        }
        false
    }
}
