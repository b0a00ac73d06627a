//! Liveness probes: do the event loops of Node workers turn? And once a second: has a worker passed a limit? What follows
//! is the supervisor's business.
//!
//! A ping is a line that the worker ignores; whether it was read is asked of the kernel, so that no worker has to wake
//! the master. A worker that answers hand-offs needs no ping: how long they wait says the same.
use super::checkpoint;
use super::context::Context;
use super::eligibility;
use super::tasks::Task;
use super::timers::Timer;
use crate::ids::WorkerIx;
use crate::limits;
use crate::os::procfs;
use crate::supervisor::{Event, Phase};
use crate::worker::node::lines;

/// How often the event loops of Node workers are pinged and the limits of workers are looked at, in milliseconds: with the
/// heartbeat, so that an idle machine is woken once. A ping that was not read when the next one is due takes the worker
/// out of the balance.
const PING_EVERY_MS: u64 = limits::HEARTBEAT_EVERY_MS;

/// First look at whether pings were read, after this, in milliseconds; an idle event loop needs less than one.
const PING_LOOK_MS: u64 = 1;

/// What is known of a Node worker's event loop.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Liveness {
    /// When the ping was sent that it has not read (microseconds).
    pub(super) pinged_us: Option<u64>,
    /// When it reads that is noticed at once; else at the next look, too late to say how long it took.
    timed: bool,
    /// It had not read it when the next one was due: it gets no connections.
    pub(super) stuck: bool,
    /// It was pinged because connections wait for it: until it has read that, it is handed none of others.
    pub(super) suspect: bool,
    /// When it was first seen not to have read that (microseconds), and how long it had waited for a CPU by then.
    pub(super) unread_since: Option<(u64, u64)>,
    /// Times that the next ping was due since.
    missed: u32,
    /// How long the last ping or hand-off waited for it, in microseconds.
    delay_us: Option<u64>,
}

impl Liveness {
    /// The last delay, or how long the present ping waits where that is longer; in milliseconds.
    pub(super) fn delay_ms(&self, now_us: u64) -> Option<f64> {
        let waits_us = self.pinged_us.map(|at| now_us.saturating_sub(at));
        self.delay_us.max(waits_us).map(|us| us as f64 / 1000.0)
    }

    /// It answered a hand-off after this time, and so has read a ping that was sent before. One that is stuck has more
    /// to read: that it is not any more is found out at its channel.
    pub(super) fn answered(&mut self, latency_us: u64, now_us: u64) {
        self.delay_us = Some(latency_us);
        if !self.stuck && !self.suspect && self.pinged_us.is_some_and(|pinged_us| pinged_us + latency_us <= now_us) {
            self.pinged_us = None;
        }
    }
}

/// The probes of all workers.
#[derive(Default)]
pub(super) struct LivenessProbes {
    /// Workers that were pinged and not looked at since.
    pinged: Vec<WorkerIx>,
}

impl LivenessProbes {
    /// Pings every worker in one go, and compares it with its limits.
    pub(super) fn probe_all(&mut self, cx: &mut Context) {
        cx.update_now();
        for ix in cx.workers.indices() {
            self.probe(cx, ix);
            check_limits(cx, ix);
        }
        self.find_hangs(cx);
    }

    fn probe(&mut self, cx: &mut Context, ix: WorkerIx) {
        if self.waits_for_ping(cx, ix) {
            let now_us = cx.now_us;
            let Some(worker) = cx.workers.get_mut(ix) else { return };
            let liveness = &mut worker.liveness;
            if liveness.pinged_us.is_some_and(|at| now_us.saturating_sub(at) < super::kernel_mode::monitor::STARVED_US)
            {
                // Sent because connections wait for it; it is too early to say anything.
                return;
            }
            liveness.stuck = true;
            liveness.missed = liveness.missed.saturating_add(1);
            return eligibility::refresh(cx, ix);
        }
        let Some(worker) = cx.workers.get(ix) else { return };
        let Some(channel) = &worker.channel else { return };
        if !worker.admitted || worker.drain.is_some() || channel.closed {
            return;
        }
        let oldest = worker.member.and_then(|member| cx.apps[worker.app].balancer.oldest_open_us(member));
        if oldest.is_some_and(|at| cx.now_us.saturating_sub(at) <= limits::HANDOFF_SLOW_US) {
            return;
        }
        self.ping(cx, ix);
        self.pinged.push(ix);
        cx.timers.set(Timer::PingLook, cx.now_ms + PING_LOOK_MS);
        if let Some(worker) = cx.workers.get_mut(ix) {
            worker.liveness.timed = true;
        }
    }

    /// Sends a ping to a worker that has none to read.
    pub(super) fn ping(&mut self, cx: &mut Context, ix: WorkerIx) {
        let Some(worker) = cx.workers.get_mut(ix) else { return };
        let Some(channel) = &mut worker.channel else { return };
        // One whose channel is blocked has enough to read.
        if !channel.is_blocked() {
            match channel.send_line(lines::PING, None) {
                Ok(()) if channel.is_blocked() => cx.tasks.push_back(Task::AwaitWritable(ix)),
                Ok(()) => {}
                Err(e) => cx.tasks.push_back(Task::Misbehaved { worker: worker.id, violation: e.into() }),
            }
        }
        worker.liveness.pinged_us = Some(cx.now_us);
        worker.liveness.missed = 0;
        worker.liveness.timed = false;
    }

    /// A moment after the pings: who has not read its own is watched until it does.
    pub(super) fn check_pings(&mut self, cx: &mut Context) {
        cx.timers.cancel(Timer::PingLook);
        for ix in std::mem::take(&mut self.pinged) {
            if self.waits_for_ping(cx, ix) {
                self.watch(cx, ix);
            }
        }
    }

    /// That the worker reads its ping will wake the loop.
    pub(super) fn watch(&mut self, cx: &mut Context, ix: WorkerIx) {
        let Some(worker) = cx.workers.get_mut(ix) else { return };
        worker.liveness.timed = true;
        if let Some(channel) = &worker.channel {
            cx.reactor.channel_wants_write(ix, channel.as_fd());
        }
    }

    /// Whether a ping to this worker was sent and is still not read.
    pub(super) fn waits_for_ping(&mut self, cx: &mut Context, ix: WorkerIx) -> bool {
        let Some(worker) = cx.workers.get_mut(ix) else { return false };
        let Some(pinged_us) = worker.liveness.pinged_us else { return false };
        if worker.channel.as_ref().is_some_and(|channel| !channel.closed && !channel.all_read()) {
            return true;
        }
        let liveness = &mut worker.liveness;
        if liveness.timed {
            liveness.delay_us = Some(cx.now_us.saturating_sub(pinged_us));
        }
        liveness.pinged_us = None;
        let (stuck, suspect) = (liveness.stuck, liveness.suspect);
        (liveness.stuck, liveness.suspect, liveness.unread_since) = (false, false, None);
        if stuck || suspect {
            eligibility::refresh(cx, ix);
            cx.tasks.push_back(Task::FindTaker);
        }
        false
    }

    /// Reports event loops that have not turned for as long as their limit says, when that is due.
    pub(super) fn check_hangs(&mut self, cx: &mut Context) {
        if cx.timers.take_due(Timer::Hang, cx.now_ms) {
            self.find_hangs(cx);
        }
    }

    fn find_hangs(&mut self, cx: &mut Context) {
        cx.timers.cancel(Timer::Hang);
        for ix in cx.workers.indices() {
            let Some(worker) = cx.workers.get(ix).filter(|w| w.admitted && w.liveness.pinged_us.is_some()) else {
                continue;
            };
            let (app, id, liveness) = (worker.app, worker.id, worker.liveness);
            let settings = cx.apps[app].generations.get(&worker.generation);
            let Some(hang_ms) = settings.and_then(|s| s.limits().hang_ms) else { continue };
            if !self.waits_for_ping(cx, ix) {
                continue;
            }
            let hung_at_ms = liveness.pinged_us.unwrap_or(cx.now_us) / 1000 + hang_ms;
            // When the whole machine stood still, no turn of ours was missed either.
            let missed = u64::from(liveness.missed) >= (hang_ms / PING_EVERY_MS).saturating_sub(1);
            if hung_at_ms <= cx.now_ms && missed {
                cx.events.push_back((app, Event::Hung { worker: id }));
            } else if hung_at_ms > cx.now_ms {
                cx.timers.set_earlier(Timer::Hang, hung_at_ms);
            } // Else at the next probe.
        }
    }
}

/// Whether a worker that serves has passed a limit; asked again as long as it lives.
fn check_limits(cx: &mut Context, ix: WorkerIx) {
    let Some(worker) = cx.workers.get(ix) else { return };
    let (app_ix, id, taken) = (worker.app, worker.id, worker.taken_before + worker.taken);
    let app = &cx.apps[app_ix];
    let Some(limits) = app.generations.get(&worker.generation).map(super::settings::Settings::limits) else {
        return;
    };
    let Some(view) = app.supervisor.worker(id).filter(|w| matches!(w.phase, Phase::Ready { .. })) else { return };
    let memory = view.pid.filter(|_| limits.memory_bytes.is_some()).and_then(procfs::memory_bytes);
    let lived_ms = cx.now_ms.saturating_sub(view.spawned_at_ms);
    if let Some(excess) = limits.passed(id, lived_ms, memory, taken) {
        cx.events.push_back((app_ix, Event::Replace { worker: id, excess }));
    }
    if limits.max_connections.is_some() {
        // A later master continues the count.
        checkpoint::save_serves(cx, ix);
    }
}
