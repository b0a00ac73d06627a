//! Liveness probes: checks that the event loops of Node workers turn. Once a second it also checks the workers' limits.
//! The supervisor decides what follows.
//!
//! A ping is a line that the worker ignores; the kernel knows whether it was read, so no worker has to wake the master.
//! A worker that answers hand-offs needs no ping: the time to its answers says the same.
use super::checkpoint;
use super::context::Context;
use super::eligibility;
use super::overlap;
use super::system::System;
use super::tasks::Task;
use super::timers::Timer;
use super::worker::Worker;
use crate::ids::WorkerIx;
use crate::limits;
use crate::supervisor::{Event, Phase};
use crate::worker::node::lines;

/// How often Node workers are pinged and the limits of workers are checked, in milliseconds: together with the
/// heartbeat, so that an idle machine is woken once. A worker whose ping is unread when the next one is due leaves the
/// balancer.
const PING_EVERY_MS: u64 = limits::HEARTBEAT_EVERY_MS;

/// Delay of the first check for unread pings, in milliseconds; an idle event loop needs less than one.
const PING_LOOK_MS: u64 = 1;

/// A worker that mostly waited for a CPU counts as stuck only after its ping was unread for this time, in microseconds:
/// another worker would not have had a CPU either.
pub(super) const STARVED_US: u64 = 100_000;

/// Liveness of a Node worker's event loop.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Liveness {
    /// When the unread ping was sent (microseconds).
    pub(super) pinged_us: Option<u64>,
    /// The reactor reports when the ping is read; otherwise the next check sees it, too late to measure the delay.
    timed: bool,
    /// The ping was unread when the next one was due: the worker gets no connections.
    pub(super) stuck: bool,
    /// Pinged because connections wait for it: until the ping is read, the worker is handed no connections of others.
    pub(super) suspect: bool,
    /// When the ping was first seen unread (microseconds), and how long the worker had waited for a CPU by then.
    pub(super) unread_since: Option<(u64, u64)>,
    /// Pings that were due since then.
    missed: u32,
    /// How long the worker took to read the last ping or answer the last hand-off, in microseconds.
    delay_us: Option<u64>,
    /// The sum of its delays, one each second, in microseconds, and their number.
    pub(super) delays: (u64, u64),
    /// Probes of `[app.alive]` that it failed.
    pub(super) failed_probes: u64,
}

impl Liveness {
    /// The last delay, or the age of the unread ping where that is longer; in milliseconds.
    pub(super) fn delay_ms(&self, now_us: u64) -> Option<f64> {
        let waits_us = self.pinged_us.map(|at| now_us.saturating_sub(at));
        self.delay_us.max(waits_us).map(|us| us as f64 / 1000.0)
    }

    /// The worker answered a hand-off after this time, and so has read any ping sent before it. A stuck worker has more
    /// to read: its channel shows when it is no longer stuck.
    pub(super) fn answered(&mut self, latency_us: u64, now_us: u64) {
        self.delay_us = Some(latency_us);
        if !self.stuck && !self.suspect && self.pinged_us.is_some_and(|pinged_us| pinged_us + latency_us <= now_us) {
            self.pinged_us = None;
        }
    }
}

/// The liveness probes of all workers.
#[derive(Default)]
pub(super) struct LivenessProbes {
    /// Pinged workers that were not checked since.
    pinged: Vec<WorkerIx>,
}

impl LivenessProbes {
    /// Pings every worker, and compares it with its limits.
    pub(super) fn probe_all(&mut self, cx: &mut Context<impl System>) {
        cx.update_now();
        for ix in cx.workers.indices() {
            self.probe(cx, ix);
            check_limits(cx, ix);
        }
        self.find_hangs(cx);
    }

    fn probe(&mut self, cx: &mut Context<impl System>, ix: WorkerIx) {
        if self.waits_for_ping(cx, ix) {
            let now_us = cx.now_us;
            let Some(worker) = cx.workers.get_mut(ix) else { return };
            let liveness = &mut worker.liveness;
            if liveness.pinged_us.is_some_and(|at| now_us.saturating_sub(at) < STARVED_US) {
                // This ping was sent because connections wait; it is too early to judge.
                return;
            }
            liveness.stuck = true;
            liveness.missed = liveness.missed.saturating_add(1);
            return eligibility::refresh(cx, ix);
        }
        let Some(worker) = cx.workers.get(ix) else { return };
        let Some(channel) = &worker.channel else { return };
        if !is_up(cx, worker) || worker.drain.is_some() || channel.closed {
            return;
        }
        // Since the last probe a ping was read, or hand-offs were answered in its place.
        let (app, member, delay_us) = (worker.app, worker.member, worker.liveness.delay_us);
        if let Some(us) = delay_us {
            cx.apps[app].loop_delays.add(us);
            if let Some(worker) = cx.workers.get_mut(ix) {
                let (sum_us, count) = &mut worker.liveness.delays;
                (*sum_us, *count) = (sum_us.saturating_add(us), *count + 1);
            }
        }
        let oldest = member.and_then(|member| cx.apps[app].balancer.oldest_open_us(member));
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

    /// Sends a ping to a worker, unless one is unread.
    pub(super) fn ping(&mut self, cx: &mut Context<impl System>, ix: WorkerIx) {
        let Some(worker) = cx.workers.get_mut(ix) else { return };
        let Some(channel) = &mut worker.channel else { return };
        // A worker with a blocked channel has enough to read.
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

    /// Soon after the pings: workers with an unread ping are watched until they read it.
    pub(super) fn check_pings(&mut self, cx: &mut Context<impl System>) {
        cx.timers.cancel(Timer::PingLook);
        for ix in std::mem::take(&mut self.pinged) {
            if self.waits_for_ping(cx, ix) {
                self.watch(cx, ix);
            }
        }
    }

    /// Registers the worker so that the loop wakes when it reads its ping.
    pub(super) fn watch(&mut self, cx: &mut Context<impl System>, ix: WorkerIx) {
        let Some(worker) = cx.workers.get_mut(ix) else { return };
        worker.liveness.timed = true;
        if let Some(channel) = &worker.channel {
            cx.reactor.channel_wants_write(ix, channel.as_fd());
        }
    }

    /// Whether a ping to this worker is unread.
    pub(super) fn waits_for_ping(&mut self, cx: &mut Context<impl System>, ix: WorkerIx) -> bool {
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

    /// Reports event loops that have been stuck for longer than their limit, when the check is due.
    pub(super) fn check_hangs(&mut self, cx: &mut Context<impl System>) {
        if cx.timers.take_due(Timer::Hang, cx.now_ms) {
            self.find_hangs(cx);
        }
    }

    fn find_hangs(&mut self, cx: &mut Context<impl System>) {
        cx.timers.cancel(Timer::Hang);
        for ix in cx.workers.indices() {
            // A snapshot of the heap takes its time.
            let may_hang = |w: &&Worker<_>| is_up(cx, w) && w.liveness.pinged_us.is_some() && !w.custom.writes_snapshot;
            let Some(worker) = cx.workers.get(ix).filter(may_hang) else { continue };
            let (app, id, liveness) = (worker.app, worker.id, worker.liveness);
            let settings = cx.apps[app].generations.get(&worker.generation);
            let Some(hang_ms) = settings.and_then(|s| s.limits().hang_ms) else { continue };
            if !self.waits_for_ping(cx, ix) {
                continue;
            }
            let hung_at_ms = liveness.pinged_us.unwrap_or(cx.now_us) / 1000 + hang_ms;
            // If the whole machine was suspended, the master's own turns did not miss a ping either.
            let missed = u64::from(liveness.missed) >= (hang_ms / PING_EVERY_MS).saturating_sub(1);
            if hung_at_ms <= cx.now_ms && missed {
                cx.events.push_back((app, Event::Hung { worker: id }));
            } else if hung_at_ms > cx.now_ms {
                cx.timers.set_earlier(Timer::Hang, hung_at_ms);
            } // Else at the next probe.
        }
    }
}

/// Whether the worker should read its channel: it serves, or is a spare.
fn is_up<S: System>(cx: &Context<S>, worker: &Worker<S>) -> bool {
    worker.admitted || cx.apps[worker.app].supervisor.worker(worker.id).is_some_and(|w| w.is_held_back())
}

/// Checks whether a serving worker has passed a limit; repeated as long as it lives.
fn check_limits(cx: &mut Context<impl System>, ix: WorkerIx) {
    let Some(worker) = cx.workers.get(ix) else { return };
    let (app_ix, id, taken) = (worker.app, worker.id, worker.taken_before + worker.taken);
    let app = &cx.apps[app_ix];
    let Some(limits) = app.generations.get(&worker.generation).map(super::settings::Settings::limits) else {
        return;
    };
    let Some(view) = app.supervisor.worker(id).filter(|w| matches!(w.phase, Phase::Ready { .. })) else { return };
    let memory = view.pid.filter(|_| limits.memory_bytes.is_some()).and_then(|pid| cx.system.memory_bytes(pid));
    let lived_ms = cx.now_ms.saturating_sub(view.spawned_at_ms);
    if let Some(excess) = limits.passed(id, lived_ms, memory, taken) {
        overlap::refresh(cx, app_ix);
        cx.events.push_back((app_ix, Event::Replace { worker: id, excess }));
    }
    if limits.max_connections.is_some() {
        // The next master continues the count.
        checkpoint::save_serves(cx, ix);
    }
}
