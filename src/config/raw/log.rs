//! `[app.log]` as typed.
use super::super::log::{Format, Target, target};
use super::super::problem::At;
use super::super::{log_time, parse};
use super::values::{Entry, entries, narrow};
use super::{LOG_KEYS, Walk};
use crate::limits::LOG_FILES_KEPT_MAX;
use std::time::Duration;

/// `[app.log]`.
#[derive(Debug, Default)]
pub(crate) struct RawLog {
    pub(crate) file: Option<At<Target>>,
    pub(crate) out: Option<At<Target>>,
    pub(crate) err: Option<At<Target>>,
    pub(crate) per_worker: Option<At<bool>>,
    pub(crate) format: Option<At<Format>>,
    /// As strftime's; `Some(None)`: off.
    pub(crate) time: Option<At<Option<String>>>,
    pub(crate) max_size: Option<At<u64>>,
    pub(crate) max_age: Option<At<Duration>>,
    pub(crate) keep: Option<At<u32>>,
    pub(crate) compress: Option<At<bool>>,
}

impl Walk<'_> {
    pub(super) fn log(&mut self, entry: &Entry<'_>) -> RawLog {
        let mut log = RawLog::default();
        let Some(table) = self.table(entry) else { return log };
        let path = "a path, or \"NULL\" to discard the output";
        for entry in entries(table) {
            match entry.key {
                "file" => log.file = self.text(&entry, path, target),
                "out" => log.out = self.text(&entry, path, target),
                "err" => log.err = self.text(&entry, path, target),
                "per_worker" => log.per_worker = self.boolean(&entry),
                "format" => log.format = self.text(&entry, "\"plain\" or \"json\"", parse::log_format),
                "time" => log.time = self.time_stamp(&entry),
                "max_size" => log.max_size = self.size(&entry),
                "max_age" => log.max_age = self.duration(&entry, parse::age),
                "keep" => {
                    let range = format!("keep must be a number from 1 to {LOG_FILES_KEPT_MAX}");
                    log.keep = self.number(&entry, &range, 1..=i64::from(LOG_FILES_KEPT_MAX)).map(|at| narrow(&at));
                }
                "compress" => log.compress = self.boolean(&entry),
                _ => self.unknown(&entry, LOG_KEYS, " in [app.log]"),
            }
        }
        log
    }

    /// `true`, `false`, or a format.
    fn time_stamp(&mut self, entry: &Entry<'_>) -> Option<At<Option<String>>> {
        if let Some(wanted) = entry.value.as_bool() {
            return Some(At { value: wanted.then(|| log_time::DEFAULT.to_owned()), spot: entry.spot });
        }
        self.text(entry, "true, false or a format such as \"%Y-%m-%d %H:%M:%S\"", |text| {
            log_time::strftime(text).map(Some)
        })
    }
}
