//! Once a second: do the event loops of Node workers turn, and has a worker passed a limit? What follows is the
//! supervisor's business.
//!
//! A ping is a line that the worker ignores; whether it was read is asked of the kernel, so that no worker has to wake
//! the master. A worker that answers hand-offs needs no ping: how long they wait says the same.
use super::{Master, checkpoint};
use crate::ids::WorkerIx;
use crate::limits;
use crate::os::procfs;
use crate::supervisor::{Event, Phase};
use crate::worker::node::lines;

impl Master {
    /// Pings every worker in one go, and compares it with its limits.
    pub(super) fn look_at_workers(&mut self) {
        self.cx.update_now();
        for ix in self.cx.workers.indices() {
            self.ping(ix);
            self.check_limits(ix);
        }
        self.check_hangs();
    }

    /// Whether a worker that serves has passed a limit; asked again as long as it lives.
    fn check_limits(&mut self, ix: WorkerIx) {
        let Some(worker) = self.cx.workers.get(ix) else { return };
        let (app_ix, id, taken) = (worker.app, worker.id, worker.taken_before + worker.taken);
        let app = &self.cx.apps[app_ix];
        let Some(limits) = app.generations.get(&worker.generation).map(super::settings::Settings::limits) else {
            return;
        };
        let Some(view) = app.supervisor.worker(id).filter(|w| matches!(w.phase, Phase::Ready { .. })) else { return };
        let memory = view.pid.filter(|_| limits.memory_bytes.is_some()).and_then(procfs::memory_bytes);
        let lived_ms = self.cx.now_ms.saturating_sub(view.spawned_at_ms);
        if let Some(excess) = limits.passed(id, lived_ms, memory, taken) {
            self.cx.events.push_back((app_ix, Event::Replace { worker: id, excess }));
        }
        if limits.max_connections.is_some() {
            // A later master goes on counting.
            checkpoint::save_serves(&mut self.cx, ix);
        }
    }

    /// Tells of event loops that have not turned for as long as their limit says.
    pub(super) fn check_hangs(&mut self) {
        self.next_hang_ms = None;
        for ix in self.cx.workers.indices() {
            let Some(worker) = self.cx.workers.get(ix).filter(|w| w.admitted && w.pulse.pinged_us.is_some()) else {
                continue;
            };
            let (app, id, pulse) = (worker.app, worker.id, worker.pulse);
            let settings = self.cx.apps[app].generations.get(&worker.generation);
            let Some(hang_ms) = settings.and_then(|s| s.limits().hang_ms) else { continue };
            if !self.waits_for_ping(ix) {
                continue;
            }
            let hung_at_ms = pulse.pinged_us.unwrap_or(self.cx.now_us) / 1000 + hang_ms;
            // When the whole machine stood still, no turn of ours was missed either.
            let missed = u64::from(pulse.missed) >= (hang_ms / limits::PING_EVERY_MS).saturating_sub(1);
            if hung_at_ms <= self.cx.now_ms && missed {
                self.cx.events.push_back((app, Event::Hung { worker: id }));
            } else if hung_at_ms > self.cx.now_ms {
                self.next_hang_ms = Some(self.next_hang_ms.map_or(hung_at_ms, |at| at.min(hung_at_ms)));
            } // Else at the next look.
        }
    }

    fn ping(&mut self, ix: WorkerIx) {
        if self.waits_for_ping(ix) {
            let Some(worker) = self.cx.workers.get_mut(ix) else { return };
            if worker.pulse.pinged_us.is_some_and(|at| self.cx.now_us.saturating_sub(at) < super::queues::STARVED_US) {
                // Sent because connections wait for it; it is too early to say anything.
                return;
            }
            worker.pulse.stuck = true;
            worker.pulse.missed = worker.pulse.missed.saturating_add(1);
            return self.refresh_eligibility(ix);
        }
        let Some(worker) = self.cx.workers.get(ix) else { return };
        let Some(channel) = &worker.channel else { return };
        if !worker.admitted || worker.drain.is_some() || channel.closed {
            return;
        }
        let oldest = worker.member.and_then(|member| self.cx.apps[worker.app].balancer.oldest_open_us(member));
        if oldest.is_some_and(|at| self.cx.now_us.saturating_sub(at) <= limits::HANDOFF_SLOW_US) {
            return;
        }
        self.ping_now(ix);
    }

    fn ping_now(&mut self, ix: WorkerIx) {
        self.send_ping(ix);
        self.pinged.push(ix);
        if let Some(worker) = self.cx.workers.get_mut(ix) {
            worker.pulse.timed = true;
        }
    }

    /// Sends a ping to a worker that has none to read.
    pub(super) fn send_ping(&mut self, ix: WorkerIx) {
        let Some(channel) = self.cx.workers.get(ix).and_then(|w| w.channel.as_ref()) else { return };
        if !channel.is_blocked() {
            self.say(ix, lines::PING);
        } // Else it has enough to read.
        if let Some(worker) = self.cx.workers.get_mut(ix) {
            worker.pulse.pinged_us = Some(self.cx.now_us);
            worker.pulse.missed = 0;
            worker.pulse.timed = false;
        }
    }

    /// A moment later: who has not read its ping is watched until it does.
    pub(super) fn look_at_pings(&mut self) {
        for ix in std::mem::take(&mut self.pinged) {
            if self.waits_for_ping(ix) {
                self.watch_ping(ix);
            }
        }
    }

    /// That it reads its ping will wake the loop.
    pub(super) fn watch_ping(&mut self, ix: WorkerIx) {
        let Some(worker) = self.cx.workers.get_mut(ix) else { return };
        worker.pulse.timed = true;
        if let Some(channel) = &worker.channel {
            self.cx.reactor.channel_wants_write(ix, channel.as_fd());
        }
    }

    /// Whether a ping to this worker was sent and is still not read.
    pub(super) fn waits_for_ping(&mut self, ix: WorkerIx) -> bool {
        let Some(worker) = self.cx.workers.get_mut(ix) else { return false };
        let Some(pinged_us) = worker.pulse.pinged_us else { return false };
        if worker.channel.as_ref().is_some_and(|channel| !channel.closed && !channel.all_read()) {
            return true;
        }
        if worker.pulse.timed {
            worker.pulse.delay_us = Some(self.cx.now_us.saturating_sub(pinged_us));
        }
        worker.pulse.pinged_us = None;
        let (stuck, suspect) = (worker.pulse.stuck, worker.pulse.suspect);
        (worker.pulse.stuck, worker.pulse.suspect, worker.pulse.unread_since) = (false, false, None);
        if stuck || suspect {
            self.refresh_eligibility(ix);
            self.look_for_someone();
        }
        false
    }
}
