//! How much of what a worker says is taken at a time. Each channel has a budget per millisecond; one that says more is
//! left with bytes in it and read on after a rest, so that its worker waits and nobody else does. What the lines mean is
//! `node`'s business; messages that are held up for their receiver are the relay's.
use super::context::Context;
use super::system::System;
use super::timers::Timer;
use crate::ids::{AppIx, WorkerIx};
use crate::limits;
use crate::worker::node::channel::{Channel, ChannelSocket};
use crate::worker::node::framing::CHANNEL_HEAD_BYTES;
use crate::worker::node::lines::FromWorker;
use std::collections::VecDeque;

/// Unfinished long lines of the workers of one app, in bytes; a line that goes beyond is not kept.
const CHANNELS_UNFINISHED_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The same over all apps, in bytes; one such line of each app is kept in any case.
const CHANNELS_UNFINISHED_ALL_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What is read of one channel in one millisecond, in bytes; the rest waits in the socket.
const BYTES_PER_MS_MAX: usize = 256 * 1024;

/// What is worked on of one channel in one millisecond, in small lines.
const LINES_PER_MS_MAX: u32 = 1_024;

/// How often one channel is read in one millisecond. A worker that writes each line by itself would else wake the loop for
/// each. More than the connections that a worker takes in that time, each with one answer.
const READS_PER_MS_MAX: u32 = 32;

/// So many small lines count as much as one that asks clusterd for something, or that is sent to somebody (a factor, without
/// a unit).
const REQUEST_LINES: u32 = 32;

/// So many bytes of a line count as much as one small line.
const LINE_SHARE_BYTES: usize = 256;

/// How much more than in one millisecond is read of the channel of a process that has ended (a factor, without a unit).
const LAST_WORDS_FACTOR: u32 = 32;

/// Pause before a channel that was left with bytes in it is read again, in milliseconds.
pub(super) const REST_MS: u64 = 1;

/// How often a channel is looked at whose worker has to read its answers first, in milliseconds. That it reads is an event
/// as well, which comes earlier.
pub(super) const OWED_LOOK_MS: u64 = 50;

/// Time that one turn spends on channels that were left with bytes in them, in microseconds; one is always read.
pub(super) const TURN_US: u64 = 500;

/// A budget that was not spent for this time ends a flood, in milliseconds: a worker that writes each line by itself leaves
/// the channel empty now and then.
const QUIET_MS: u64 = 10;

/// A worker that spent its budget all the time for so long, or that has not read its answers, is reported, in
/// milliseconds.
const FLOOD_MS: u64 = 2_000;

/// Warnings about one worker that are logged within `WARNINGS_EVERY_MS`.
const WARNINGS_AT_ONCE_MAX: u32 = 3;

/// After this, in milliseconds, as many more are logged, with the number of those that were left out.
const WARNINGS_EVERY_MS: u64 = 10_000;

/// Channels that were left with bytes in them, in the order in which they are read on.
#[derive(Default)]
pub(super) struct Unread {
    /// With the time from which each is read on (milliseconds).
    waiting: VecDeque<(u64, WorkerIx)>,
}

/// What one worker has said over its channel.
#[derive(Debug, Default)]
pub(super) struct Intake {
    /// The millisecond that the next three count for.
    at_ms: u64,
    bytes: usize,
    lines: u32,
    reads: u32,
    /// Its channel is on the list of those that are read on later.
    is_left: bool,
    /// The other side has closed, which no later event tells.
    to_end: bool,
    /// Since when it has spent its budget again and again (milliseconds), when last, and what was read since.
    behind_since_ms: Option<u64>,
    spent_ms: u64,
    behind_bytes: u64,
    behind_lines: u64,
    flood_told_ms: Option<u64>,
    /// Since when it has to read its answers (milliseconds), and whether that was logged.
    owes_since_ms: Option<u64>,
    owing_told: bool,
    /// Warnings about what it does.
    pub(super) warnings: Warnings,
}

/// Warnings that a worker can cause without end: some are logged, the others are counted.
#[derive(Debug, Default)]
pub(super) struct Warnings {
    since_ms: u64,
    logged: u32,
    left_out: u64,
}

impl Warnings {
    /// Whether one more is logged now; else it is counted.
    pub(super) fn admit(&mut self, now_ms: u64) -> bool {
        if self.logged > 0 && now_ms >= self.since_ms + WARNINGS_EVERY_MS && self.left_out == 0 {
            self.logged = 0;
        }
        if self.logged == 0 {
            self.since_ms = now_ms;
        }
        let is_admitted = self.logged < WARNINGS_AT_ONCE_MAX;
        if is_admitted {
            self.logged += 1;
        } else {
            self.left_out += 1;
        }
        is_admitted
    }

    /// How many were left out, once that can be told.
    fn take_left_out(&mut self, now_ms: u64) -> Option<u64> {
        if self.left_out == 0 || now_ms < self.since_ms + WARNINGS_EVERY_MS {
            return None;
        }
        self.logged = 0;
        Some(std::mem::take(&mut self.left_out))
    }
}

/// What may still be taken of one channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Budget {
    bytes: usize,
    lines: u32,
    reads: u32,
}

impl Budget {
    /// What a worker has left of this millisecond.
    pub(super) fn of(cx: &Context<impl System>, ix: WorkerIx) -> Budget {
        let full = Budget { bytes: BYTES_PER_MS_MAX, lines: LINES_PER_MS_MAX, reads: READS_PER_MS_MAX };
        let Some(intake) = cx.workers.get(ix).map(|w| &w.intake).filter(|intake| intake.at_ms == cx.now_ms) else {
            return full;
        };
        Budget {
            bytes: full.bytes.saturating_sub(intake.bytes),
            lines: full.lines.saturating_sub(intake.lines),
            reads: full.reads.saturating_sub(intake.reads),
        }
    }

    /// The last words of a process: as much as a socket may hold.
    pub(super) fn of_last_words() -> Budget {
        Budget {
            bytes: BYTES_PER_MS_MAX * LAST_WORDS_FACTOR as usize,
            lines: LINES_PER_MS_MAX * LAST_WORDS_FACTOR,
            // Each brings something, so that the bytes bound them.
            reads: u32::MAX,
        }
    }

    pub(super) fn is_spent(self) -> bool {
        self.bytes == 0 || self.lines == 0 || self.reads == 0
    }

    /// A read brought so many bytes.
    pub(super) fn read(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
        self.reads = self.reads.saturating_sub(1);
    }

    /// A line was passed on to so many receivers.
    pub(super) fn passed_on(&mut self, receivers: u32) {
        self.lines = self.lines.saturating_sub(receivers.saturating_mul(REQUEST_LINES));
    }

    /// A line of this length is worked on.
    pub(super) fn line(&mut self, length: usize, message: Option<&FromWorker>) {
        let asks = match message {
            Some(
                FromWorker::Online { .. }
                | FromWorker::QueryServer { .. }
                | FromWorker::Listening { .. }
                | FromWorker::Close { .. }
                | FromWorker::ExitedAfterDisconnect { .. }
                | FromWorker::Handle { .. }
                | FromWorker::Moved
                | FromWorker::Upgraded { .. },
            ) => REQUEST_LINES,
            Some(_) | None => 1,
        };
        self.lines = self.lines.saturating_sub(asks + (length / LINE_SHARE_BYTES) as u32);
    }
}

/// A channel is left with bytes in it, and read on after `wait_ms`.
pub(super) fn leave(cx: &mut Context<impl System>, ix: WorkerIx, to_end: bool, wait_ms: u64) {
    let at_ms = cx.now_ms + wait_ms;
    let Some(worker) = cx.workers.get_mut(ix) else { return };
    worker.intake.to_end |= to_end;
    if !std::mem::replace(&mut worker.intake.is_left, true) {
        cx.unread.waiting.push_back((at_ms, ix));
        cx.timers.set_earlier(Timer::Unread, at_ms);
    }
}

/// The number of channels that wait.
pub(super) fn count(cx: &Context<impl System>) -> usize {
    cx.unread.waiting.len()
}

/// The next channel that may be read on, and whether its other side has closed.
pub(super) fn take_due(cx: &mut Context<impl System>) -> Option<(WorkerIx, bool)> {
    while let Some(place) = cx.unread.waiting.iter().position(|(at_ms, _)| *at_ms <= cx.now_ms) {
        let Some((_, ix)) = cx.unread.waiting.remove(place) else { break };
        // The worker may be gone, and another one in its place.
        let Some(worker) = cx.workers.get_mut(ix).filter(|w| w.intake.is_left) else { continue };
        worker.intake.is_left = false;
        let to_end = std::mem::take(&mut worker.intake.to_end);
        if worker.channel.as_ref().is_some_and(|channel| !channel.is_read_out) {
            return Some((ix, to_end));
        }
    }
    None
}

/// Sets the time at which the next one is read on.
pub(super) fn set_timer(cx: &mut Context<impl System>) {
    let next_ms = cx.unread.waiting.iter().map(|(at_ms, _)| *at_ms).min();
    cx.timers.set_or_cancel(Timer::Unread, next_ms);
}

/// Whether a channel is on the list: its events wait as well. `ended`: the other side has closed.
pub(super) fn is_left(cx: &mut Context<impl System>, ix: WorkerIx, ended: bool) -> bool {
    let Some(worker) = cx.workers.get_mut(ix).filter(|w| w.intake.is_left) else { return false };
    worker.intake.to_end |= ended;
    true
}

/// Writes down what was taken of a channel. A worker that says more than is read for long is
/// reported.
pub(super) fn note(cx: &mut Context<impl System>, ix: WorkerIx, before: Budget, after: Budget) {
    let now_ms = cx.now_ms;
    let Some(worker) = cx.workers.get_mut(ix) else { return };
    let intake = &mut worker.intake;
    let (bytes, lines) = (before.bytes.saturating_sub(after.bytes), before.lines.saturating_sub(after.lines));
    let reads = before.reads.saturating_sub(after.reads);
    if intake.at_ms != now_ms {
        (intake.at_ms, intake.bytes, intake.lines, intake.reads) = (now_ms, 0, 0, 0);
    }
    (intake.bytes, intake.lines, intake.reads) = (intake.bytes + bytes, intake.lines + lines, intake.reads + reads);
    if after.is_spent() {
        intake.spent_ms = now_ms;
        intake.behind_since_ms.get_or_insert(now_ms);
    } else if now_ms > intake.spent_ms + QUIET_MS {
        (intake.behind_since_ms, intake.behind_bytes, intake.behind_lines) = (None, 0, 0);
    }
    let Some(since_ms) = intake.behind_since_ms else { return };
    intake.behind_bytes += bytes as u64;
    intake.behind_lines += u64::from(lines);
    let told = intake.flood_told_ms.is_some_and(|at_ms| now_ms < at_ms + WARNINGS_EVERY_MS);
    if told || now_ms < since_ms + FLOOD_MS {
        return;
    }
    intake.flood_told_ms = Some(now_ms);
    let (kib, lines, for_ms) = (intake.behind_bytes / 1024, intake.behind_lines, now_ms - since_ms);
    let who = if worker.is_beside { "agent".to_owned() } else { format!("worker {}", worker.id) };
    let name = &cx.apps[worker.app].name;
    log::warn!(
        "{name}: {who} floods its channel: {kib} KiB (about {lines} lines) in {for_ms} ms, and more is waiting; it is read \
         in pieces, so that nobody else waits for it"
    );
}

/// Writes down whether a worker has to read its answers before it is read itself.
pub(super) fn note_owed(cx: &mut Context<impl System>, ix: WorkerIx, owes: bool) {
    let now_ms = cx.now_ms;
    let Some(worker) = cx.workers.get_mut(ix) else { return };
    let intake = &mut worker.intake;
    if !owes {
        (intake.owes_since_ms, intake.owing_told) = (None, false);
        return;
    }
    let since_ms = *intake.owes_since_ms.get_or_insert(now_ms);
    if now_ms < since_ms + FLOOD_MS || std::mem::replace(&mut intake.owing_told, true) || !may_warn(cx, ix) {
        return;
    }
    let Some(worker) = cx.workers.get(ix) else { return };
    let waiting = worker.channel.as_ref().map_or(0, Channel::waiting_control_lines);
    let who = if worker.is_beside { "agent".to_owned() } else { format!("worker {}", worker.id) };
    let name = &cx.apps[worker.app].name;
    log::warn!(
        "{name}: {who} sends requests and does not read the answers: {waiting} are waiting; its channel is not read until it \
         has read them"
    );
}

/// A channel has sent some of its lines. It is read at once if that is what it waited for.
pub(super) fn has_paid(cx: &mut Context<impl System>, ix: WorkerIx) {
    let Some(worker) = cx.workers.get_mut(ix).filter(|w| w.intake.is_left && w.intake.owes_since_ms.is_some()) else {
        return;
    };
    if worker.channel.as_ref().is_some_and(Channel::owes_reading) {
        return;
    }
    for place in cx.unread.waiting.iter_mut().filter(|(_, left)| *left == ix) {
        place.0 = cx.now_ms;
    }
    cx.timers.set_earlier(Timer::Unread, cx.now_ms);
}

/// Tells how many warnings about each worker were left out of the log.
pub(super) fn tell_left_out(cx: &mut Context<impl System>) {
    let now_ms = cx.now_ms;
    for ix in cx.workers.indices() {
        let Some(worker) = cx.workers.get_mut(ix) else { continue };
        let Some(count) = worker.intake.warnings.take_left_out(now_ms) else { continue };
        let name = &cx.apps[worker.app].name;
        log::warn!("{name}: worker {}: {count} more warnings like these were left out", worker.id);
    }
}

/// Whether one more warning about a worker is logged now.
pub(super) fn may_warn(cx: &mut Context<impl System>, ix: WorkerIx) -> bool {
    let now_ms = cx.now_ms;
    cx.workers.get_mut(ix).is_none_or(|worker| worker.intake.warnings.admit(now_ms))
}

/// Whether lines of a worker were read that nobody has worked on yet: they would be lost with this master.
pub(super) fn has_lines(cx: &Context<impl System>) -> bool {
    cx.workers.iter().any(|(_, worker)| worker.channel.as_ref().is_some_and(|channel| channel.inbox.has_more()))
}

/// Keeps an unfinished long line only where somebody may get it, and as far as there is room; else its head. The channel
/// is being read, and so is in no table.
pub(super) fn bound_line(cx: &Context<impl System>, ix: WorkerIx, channel: &mut Channel<impl ChannelSocket>) {
    let unfinished = channel.inbox.unfinished_bytes();
    if unfinished <= CHANNEL_HEAD_BYTES {
        return;
    }
    let Some(worker) = cx.workers.get(ix) else { return };
    let app = &cx.apps[worker.app];
    let has_receivers = worker.is_beside || app.has_adapters || app.supervisor.agent().is_some();
    let of_messages = if has_receivers { limits::MESSAGE_BYTES_MAX } else { 0 };
    let of_metrics = if worker.custom.asked_ms.is_some() { limits::APP_METRICS_WORKER_BYTES_MAX } else { 0 };
    let is_kept =
        unfinished <= of_messages.max(of_metrics) && has_room(cx, worker.app, channel.inbox.long_line_bytes());
    if !is_kept {
        channel.inbox.skip_line();
    }
}

/// Whether an unfinished line of `bytes` may be kept beside those of the other workers. One of each app always may.
fn has_room(cx: &Context<impl System>, app: AppIx, bytes: usize) -> bool {
    let (mut of_app, mut of_all) = (0, 0);
    for (_, worker) in cx.workers.iter() {
        let held = worker.channel.as_ref().map_or(0, |channel| channel.inbox.long_line_bytes());
        of_all += held;
        of_app += if worker.app == app { held } else { 0 };
    }
    let fits = of_app + bytes <= CHANNELS_UNFINISHED_BYTES_MAX && of_all + bytes <= CHANNELS_UNFINISHED_ALL_BYTES_MAX;
    of_app == 0 || fits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_ask_for_something_and_long_ones_cost_more() {
        let mut budget = Budget { bytes: 1000, lines: 40, reads: 3 };
        budget.line(7, Some(&FromWorker::User));
        assert_eq!(budget.lines, 39);
        budget.line(70, Some(&FromWorker::Listening { seq: 1 }));
        assert_eq!(budget.lines, 39 - REQUEST_LINES);
        budget.line(2 * LINE_SHARE_BYTES, None);
        assert_eq!(budget.lines, 36 - REQUEST_LINES);
        assert!(!budget.is_spent());
        budget.line(limits::CHANNEL_LINE_BYTES_MAX, Some(&FromWorker::User));
        assert!(budget.is_spent());
        let mut budget = Budget { bytes: 1000, lines: 40, reads: 3 };
        budget.read(1001);
        assert!(budget.is_spent());
        let mut budget = Budget { bytes: 1000, lines: 40, reads: 2 };
        budget.read(1);
        assert!(!budget.is_spent());
        budget.read(1);
        assert!(budget.is_spent(), "small ones count too");
    }

    #[test]
    fn some_warnings_are_logged_and_the_others_are_counted() {
        let mut warnings = Warnings::default();
        let max = WARNINGS_AT_ONCE_MAX;
        assert_eq!((0..max + 5).filter(|_| warnings.admit(10)).count(), max as usize);
        assert_eq!(warnings.take_left_out(10), None, "it is too early");
        let later_ms = 10 + WARNINGS_EVERY_MS;
        assert_eq!(warnings.take_left_out(later_ms), Some(5));
        assert_eq!(warnings.take_left_out(later_ms), None);
        assert!(warnings.admit(later_ms));
    }

    #[test]
    fn a_warning_now_and_then_is_always_logged() {
        let mut warnings = Warnings::default();
        for n in 0..100 {
            assert!(warnings.admit(n * WARNINGS_EVERY_MS));
        }
        assert_eq!(warnings.take_left_out(u64::MAX), None);
    }
}
