//! The keys of `[app.reload]`.
use super::keys::{TIME, scope};
use super::kinds::{Boolean, Kind, number, optional};
use super::{Flag, Raw, Scope, Setting, raw_table, resolved_table, table, value_or};
use crate::config::options::Options;
use crate::config::problem::{At, Found, Spot};
use crate::config::raw::{Entry, Walk};
use crate::limits::WORKERS_MAX;
use std::time::Duration;

/// `[app.reload]`.
pub(super) const RELOAD: Scope = scope("app.reload", "How a reload replaces the workers.");

/// The largest factor by which a canary may be worse.
const CANARY_FACTOR_MAX: i64 = 1_000;

table! {
    in RELOAD;
    raw RawReload;
    /// How a reload replaces the workers.
    resolved Reload;

    /// How many slots are replaced at a time: each needs memory for two workers.
    surge: plain(u32 = 1), number::<u32>("surge", 1, WORKERS_MAX as i64),
        more "The new worker starts beside the old one. The next slot follows when the old worker is gone, or after 150 ms";
    /// Whether a new worker may start while the old one of its slot runs; if not, the old one ends first.
    overlap: plain(Option<bool> = None), optional(Boolean), unset "`true`; `false` in a reload of one worker without sockets",
        example "false",
        more "For programs that hold a port of their own or must not work twice (bots, queue workers). Without it their service \
              pauses during a reload, and when a limit or `cron_restart` replaces a worker. A reload that fails starts the old \
              code again";
    /// Watch the first new worker for this time, beside the old one, before the others follow; if it dies, the old ones stay.
    canary: plain(Duration = Duration::ZERO), TIME,
        more "If it dies or leaves by then, or is worse than the old workers (`canary_max`), the reload has failed and nothing \
              else was touched";
    /// The canary fails if by any figure it has more than this many times as much as the old workers. 0: figures are not compared.
    canary_max: plain(u32 = 3), number::<u32>("canary_max", 0, CANARY_FACTOR_MAX),
        more "See [The canary](#the-canary)";
    // A Node worker has compiled most of what it needs after half a second under load (measured).
    /// Wait before the next worker while the clients of a replaced one come back; without clients there is no wait.
    settle: plain(Duration = Duration::from_millis(700)), TIME,
        more "From the old worker's drain to the start of the next new worker: its clients come back to code that is cold, \
              and should not wait for one more start as well. `\"0s\"`: never, which is the default with `warmup`";
    /// Let the old workers' drain time-outs end one after the other over this time, for apps with long-lived connections.
    drain_spread: plain(Duration = Duration::ZERO), TIME,
        more "Their clients then do not all come back at once";
}
