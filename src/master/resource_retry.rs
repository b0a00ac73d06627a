//! Channels with queued lines that wait for the worker to read, which the reactor reports, or for the system to have
//! descriptors or memory again, which nothing reports. The latter are retried by a timer only: registering them would
//! raise an event for each failure.
use super::context::Context;
use super::eligibility;
use super::system::System;
use super::timers::Timer;
use crate::ids::WorkerIx;
use crate::limits;

/// Channels that wait for a resource of the system.
#[derive(Default)]
pub(super) struct ResourceRetry {
    workers: Vec<WorkerIx>,
}

impl ResourceRetry {
    /// Sends queued lines when the worker reads again, or after a pause where the system is out of a resource.
    pub(super) fn await_writable(&mut self, cx: &mut Context<impl System>, ix: WorkerIx) {
        let Some(channel) = cx.workers.get(ix).and_then(|w| w.channel.as_ref()) else { return };
        if channel.lacks_resources() {
            cx.reactor.channel_writable_done(ix, channel.as_fd());
            self.workers.push(ix);
            cx.timers.set_earlier(Timer::ResourceRetry, cx.now_ms + limits::ACCEPT_PAUSE_MS);
        } else {
            cx.reactor.channel_wants_write(ix, channel.as_fd());
        }
        eligibility::refresh(cx, ix);
    }

    /// Retries, when that is due.
    pub(super) fn retry(&mut self, cx: &mut Context<impl System>) {
        if !cx.timers.take_due(Timer::ResourceRetry, cx.now_ms) {
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
