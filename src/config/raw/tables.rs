//! The tables of an app, as typed: `[app.restart]`, `[app.reload]`, `[app.hooks]`, `[app.limits]`.
use super::super::hooks::HookEvent;
use super::super::parse;
use super::super::problem::{At, Spot};
use super::{Entry, HOOK_KEYS, LIMITS_KEYS, RELOAD_KEYS, RESTART_KEYS, Walk, entries, narrow, path_text};
use crate::limits::{FAILURES_REMEMBERED_MAX, RUNS_MAX, WATCH_PATHS_MAX, WORKERS_MAX};
use std::collections::BTreeMap;
use std::time::Duration;
use toml::de::DeValue;

/// `[app.restart]`.
#[derive(Debug, Default)]
pub(crate) struct RawRestart {
    pub(crate) min_uptime: Option<At<Duration>>,
    /// `Some(None)`: never give up.
    pub(crate) max_restarts: Option<At<Option<u32>>>,
    pub(crate) window: Option<At<Duration>>,
    pub(crate) backoff_first: Option<At<Duration>>,
    pub(crate) backoff_min: Option<At<Duration>>,
    pub(crate) backoff_max: Option<At<Duration>>,
    pub(crate) delay: Option<At<Duration>>,
    /// `Some(None)`: no number of runs.
    pub(crate) max_runs: Option<At<Option<u32>>>,
    pub(crate) stop_exit_codes: Option<Vec<i32>>,
}

/// `[app.reload]`.
#[derive(Debug, Default)]
pub(crate) struct RawReload {
    pub(crate) surge: Option<At<u32>>,
    pub(crate) canary: Option<At<Duration>>,
    pub(crate) settle: Option<At<Duration>>,
    pub(crate) drain_spread: Option<At<Duration>>,
}

/// `[app.limits]`.
#[derive(Debug, Default)]
pub(crate) struct RawLimits {
    pub(crate) memory: Option<At<u64>>,
    pub(crate) lifetime: Option<At<Duration>>,
    pub(crate) max_connections: Option<At<u64>>,
    pub(crate) hang: Option<At<Duration>>,
    pub(crate) hang_report: Option<At<bool>>,
    pub(crate) hang_report_dir: Option<At<String>>,
}

/// `watch`, `watch_ignore` and `watch_delay`.
#[derive(Debug, Default)]
pub(crate) struct RawWatch {
    /// `false`: nothing; `true`: the app's folder.
    pub(crate) on: Option<bool>,
    /// What to watch instead of the app's folder.
    pub(crate) paths: Vec<String>,
    pub(crate) ignore: Option<Vec<At<String>>>,
    pub(crate) delay: Option<At<Duration>>,
}

impl Walk<'_> {
    pub(super) fn watch(&mut self, entry: &Entry<'_>, watch: &mut RawWatch) {
        match entry.value.as_bool() {
            Some(on) => watch.on = Some(on),
            None if entry.value.is_str() || entry.value.is_array() => {
                watch.paths = self.few(entry, path_text).into_iter().map(|at| at.value).collect();
                watch.on = Some(!watch.paths.is_empty());
            }
            None => drop(self.wrong_type::<()>(entry, "true, false, a path, or an array of paths")),
        }
    }

    pub(super) fn patterns(&mut self, entry: &Entry<'_>) -> Vec<At<String>> {
        self.few(entry, parse::pattern)
    }

    fn few(&mut self, entry: &Entry<'_>, read: fn(&str) -> Result<String, String>) -> Vec<At<String>> {
        let count = entry.value.as_array().map_or(1, |array| array.len());
        if count > WATCH_PATHS_MAX {
            self.add(entry.spot, format!("{count} entries are too many: {WATCH_PATHS_MAX} is the most"));
            return Vec::new();
        }
        self.strings(entry, read)
    }

    pub(super) fn restart(&mut self, entry: &Entry<'_>) -> RawRestart {
        let mut restart = RawRestart::default();
        let Some(table) = self.table(entry) else { return restart };
        for entry in entries(table) {
            match entry.key {
                "min_uptime" => restart.min_uptime = self.duration(&entry, parse::duration),
                "max_restarts" => restart.max_restarts = self.max_restarts(&entry),
                "window" => restart.window = self.duration(&entry, parse::duration_not_zero),
                "backoff_first" => restart.backoff_first = self.duration(&entry, parse::duration),
                "backoff_min" => restart.backoff_min = self.duration(&entry, parse::duration_not_zero),
                "backoff_max" => restart.backoff_max = self.duration(&entry, parse::duration_not_zero),
                "delay" => restart.delay = self.duration(&entry, parse::duration),
                "max_runs" => restart.max_runs = self.max_runs(&entry),
                "stop_exit_codes" => restart.stop_exit_codes = self.exit_codes(&entry),
                _ => self.unknown(&entry, RESTART_KEYS, " in [app.restart]"),
            }
        }
        restart
    }

    pub(super) fn reload(&mut self, entry: &Entry<'_>) -> RawReload {
        let mut reload = RawReload::default();
        let Some(table) = self.table(entry) else { return reload };
        for entry in entries(table) {
            match entry.key {
                "surge" => {
                    let range = format!("surge must be a number from 1 to {WORKERS_MAX}");
                    reload.surge = self.number(&entry, &range, 1..=i64::from(WORKERS_MAX)).map(|at| narrow(&at));
                }
                "canary" => reload.canary = self.duration(&entry, parse::duration),
                "settle" => reload.settle = self.duration(&entry, parse::duration),
                "drain_spread" => reload.drain_spread = self.duration(&entry, parse::duration),
                _ => self.unknown(&entry, RELOAD_KEYS, " in [app.reload]"),
            }
        }
        reload
    }

    pub(super) fn hooks(&mut self, entry: &Entry<'_>) -> BTreeMap<HookEvent, Vec<String>> {
        let mut hooks = BTreeMap::new();
        let Some(table) = self.table(entry) else { return hooks };
        for entry in entries(table) {
            match HookEvent::ALL.into_iter().find(|event| event.key() == entry.key) {
                Some(event) => hooks.extend(self.command(&entry).map(|command| (event, command.value))),
                None => self.unknown(&entry, HOOK_KEYS, " in [app.hooks]"),
            }
        }
        hooks
    }

    pub(super) fn limits(&mut self, entry: &Entry<'_>) -> RawLimits {
        let mut limits = RawLimits::default();
        let Some(table) = self.table(entry) else { return limits };
        for entry in entries(table) {
            match entry.key {
                "memory" => limits.memory = self.size(&entry),
                "lifetime" => limits.lifetime = self.duration(&entry, parse::duration_not_zero),
                "max_connections" => {
                    let most = i64::MAX;
                    let range = format!("max_connections must be a number from 1 to {most}");
                    limits.max_connections = self.number(&entry, &range, 1..=most).map(|at| narrow(&at));
                }
                "hang" => limits.hang = self.duration(&entry, parse::hang),
                "hang_report" => limits.hang_report = self.boolean(&entry),
                "hang_report_dir" => limits.hang_report_dir = self.text(&entry, "a string", path_text),
                _ => self.unknown(&entry, LIMITS_KEYS, " in [app.limits]"),
            }
        }
        limits
    }

    fn max_restarts(&mut self, entry: &Entry<'_>) -> Option<At<Option<u32>>> {
        let rule =
            format!("max_restarts must be a number from 1 to {FAILURES_REMEMBERED_MAX}, or \"never\" (never give up)");
        match entry.value.as_str() {
            Some("never" | "unlimited") => Some(At { value: None, spot: entry.spot }),
            Some(other) => self.keep(entry.spot, Err(format!("{rule}, not \"{other}\""))),
            None => {
                let at = self.number(entry, &rule, 1..=FAILURES_REMEMBERED_MAX as i64)?;
                let spot = at.spot;
                Some(At { value: Some(narrow::<u32>(&at).value), spot })
            }
        }
    }

    fn max_runs(&mut self, entry: &Entry<'_>) -> Option<At<Option<u32>>> {
        let rule = format!("max_runs must be a number from 1 to {RUNS_MAX}, or \"unlimited\"");
        match entry.value.as_str() {
            Some("unlimited") => Some(At { value: None, spot: entry.spot }),
            Some(other) => self.keep(entry.spot, Err(format!("{rule}, not \"{other}\""))),
            None => {
                let at = self.number(entry, &rule, 1..=i64::from(RUNS_MAX))?;
                let spot = at.spot;
                Some(At { value: Some(narrow::<u32>(&at).value), spot })
            }
        }
    }

    fn exit_codes(&mut self, entry: &Entry<'_>) -> Option<Vec<i32>> {
        let DeValue::Array(array) = entry.value else {
            return self.wrong_type(entry, "an array of exit codes, such as [0, 3]");
        };
        let rule = "stop_exit_codes must be numbers from 0 to 255";
        let mut codes = Vec::new();
        for item in array.iter() {
            let spot = Spot::File(item.span().start);
            let item = Entry { key: entry.key, key_spot: spot, value: item.get_ref(), spot };
            codes.extend(self.number(&item, rule, 0..=255).map(|at| narrow::<i32>(&at).value));
        }
        codes.sort_unstable();
        codes.dedup();
        Some(codes)
    }
}
