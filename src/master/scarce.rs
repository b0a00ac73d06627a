//! Channels whose lines wait: for the worker to read, which the reactor tells, or for the system to have more descriptors
//! or memory, which nobody tells. The latter are tried again by time alone: each try that fails would be an event.
use super::context::Context;
use super::eligibility;
use super::timers::Timer;
use crate::ids::WorkerIx;
use crate::limits;

/// The channels that wait for the system.
#[derive(Default)]
pub(super) struct ScarceChannels {
    workers: Vec<WorkerIx>,
}

impl ScarceChannels {
    /// Sends what waits in a worker's channel when the worker reads again, or in a while where that is no help.
    pub(super) fn await_writable(&mut self, cx: &mut Context, ix: WorkerIx) {
        let Some(channel) = cx.workers.get(ix).and_then(|w| w.channel.as_ref()) else { return };
        if channel.is_scarce() {
            cx.reactor.channel_writable_done(ix, channel.as_fd());
            self.workers.push(ix);
            cx.timers.set_earlier(Timer::ScarceChannels, cx.now_ms + limits::ACCEPT_PAUSE_MS);
        } else {
            cx.reactor.channel_wants_write(ix, channel.as_fd());
        }
        eligibility::refresh(cx, ix);
    }

    /// Tries again, when that is due.
    pub(super) fn retry(&mut self, cx: &mut Context) {
        if !cx.timers.take_due(Timer::ScarceChannels, cx.now_ms) {
            return;
        }
        let mut waiting = std::mem::take(&mut self.workers);
        waiting.sort_unstable();
        waiting.dedup();
        for ix in waiting {
            let Some(channel) = cx.workers.get_mut(ix).and_then(|w| w.channel.as_mut()) else { continue };
            channel.flush();
            if channel.is_blocked() {
                self.await_writable(cx, ix);
            } else {
                eligibility::refresh(cx, ix);
            }
        }
    }
}
