//! Waits for what a failed worker printed last: its exit is often known before its output was read. Until then the
//! clients that wait for its start or reload are not answered, and its last lines are not explained. `output` reads them.
use super::address_in_use;
use super::context::Context;
use super::system::System;
use super::timers::Timer;
use super::typescript;
use crate::ids::AppIx;
use crate::logs::Tail;
use std::sync::Arc;

/// Longest wait, in milliseconds: a process that the worker left behind may keep its output open.
const LAST_WORDS_MS_MAX: u64 = 1_000;

/// Pause between two checks, in milliseconds.
const LAST_WORDS_LOOK_MS: u64 = 5;

/// The last lines of a worker that has ended, not completely read yet.
pub(super) struct Awaited {
    tail: Arc<Tail>,
    until_ms: u64,
}

/// A worker of the app has failed: its last lines are explained once they are there.
pub(super) fn expect(cx: &mut Context<impl System>, ix: AppIx, tail: &Arc<Tail>) {
    // Of several workers that fail, the first counts.
    if cx.apps[ix].awaited.is_none() {
        cx.apps[ix].awaited = Some(Awaited { tail: Arc::clone(tail), until_ms: cx.now_ms + LAST_WORDS_MS_MAX });
        look_at(cx, ix, cx.now_ms);
    }
}

/// Explains the last lines that have come since the last call. Returns whether any have: clients may wait for them.
pub(super) fn look(cx: &mut Context<impl System>) -> bool {
    let now_ms = cx.now_ms;
    cx.timers.take_due(Timer::LastWords, now_ms) && look_at_all(cx, now_ms)
}

/// Explains all last lines, at the end of the deployment, whatever of them has come.
pub(super) fn finish(cx: &mut Context<impl System>) {
    look_at_all(cx, u64::MAX);
}

fn look_at_all(cx: &mut Context<impl System>, now_ms: u64) -> bool {
    cx.apps.indices().filter(|ix| look_at(cx, *ix, now_ms)).count() > 0
}

fn look_at(cx: &mut Context<impl System>, ix: AppIx, now_ms: u64) -> bool {
    let Some(awaited) = cx.apps[ix].awaited.take_if(|one| one.tail.has_ended() || one.until_ms <= now_ms) else {
        if cx.apps[ix].awaited.is_some() {
            cx.timers.set_earlier(Timer::LastWords, now_ms + LAST_WORDS_LOOK_MS);
        }
        return false;
    };
    let lines = awaited.tail.lines();
    address_in_use::explain_end(cx, ix, &lines);
    typescript::explain_end(cx, ix, &lines);
    true
}
