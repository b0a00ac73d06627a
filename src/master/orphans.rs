//! What is left when the keeper was killed: workers end with it, and what they started does not. The master lives a moment
//! longer than the keeper to end that too.
use super::cgroups;
use super::context::Context;
use super::system::System;

/// The kernel names another parent a moment after it has closed the keeper's end of the link, in microseconds.
const LOOK_US: u64 = 1_000;
/// So often that is looked at. After that the keeper lives, and something else was wrong.
const LOOKS_MAX: u32 = 1_000;

/// Ends what workers and agents have started, if the keeper has ended: their process groups, and their apps' cgroups.
pub(super) fn end(cx: &Context<impl System>) {
    let has_ended = || cx.system.keeper_pid() != cx.deployment.keeper_pid;
    for _ in 0..LOOKS_MAX {
        if has_ended() {
            break;
        }
        cx.system.nap(LOOK_US);
    }
    if !has_ended() {
        return;
    }
    // A group exists as long as anybody is in it, so that its number belongs to nobody else.
    cx.workers.iter().filter_map(|(_, worker)| worker.pid).for_each(|leader| cx.system.kill_orphans(leader));
    cgroups::end_orphans(cx);
}
