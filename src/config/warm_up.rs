//! `warmup`: the requests that a worker has to answer before clients reach it.
use super::problem::{Found, Spot};
use super::rules;
use super::schema::keys::RawApp;
use super::schema::kinds::Texts;
use super::{App, parse};
use crate::limits::{WARMUP_PATHS_MAX, WARMUP_TIMES_MAX};

/// How often each path is asked for, unless `warmup_times` says something else.
pub(super) const TIMES: u32 = 10;

pub(super) const TIMES_MAX: i64 = WARMUP_TIMES_MAX as i64;

pub(super) const PATHS: Texts<String> = Texts {
    parse: parse::http_path,
    words: "path, or array of paths",
    most: Some((WARMUP_PATHS_MAX, "paths are too many")),
    empty: Some("[]"),
};

/// What a new worker is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WarmUp {
    /// Never empty; asked for in turn.
    paths: Vec<String>,
    /// How often each of them.
    times: u32,
}

impl WarmUp {
    /// The number of requests in all.
    pub fn requests(&self) -> u32 {
        self.times.saturating_mul(self.paths.len() as u32)
    }

    /// The path of a request, counted from 0.
    pub fn path(&self, nth: u32) -> &str {
        let at = nth as usize % self.paths.len().max(1);
        self.paths.get(at).map_or("/", String::as_str)
    }

    /// The number of that path, counted from 0.
    pub fn number(&self, nth: u32) -> usize {
        nth as usize % self.paths.len().max(1)
    }
}

/// `None` without a path.
pub(super) fn decide(raw: &mut RawApp, found: &mut Found) -> Option<WarmUp> {
    let times = raw.warmup_times.take();
    let paths: Vec<String> = raw.warmup.take().into_iter().flat_map(|at| at.value).map(|at| at.value).collect();
    if paths.is_empty() {
        // The default may be written.
        if let Some(at) = times.filter(|at| at.value != TIMES && !raw.bad.contains(&"warmup")) {
            found.add(at.spot, "nothing is asked: warmup (paths such as [\"/\"]) is missing");
        }
        return None;
    }
    Some(WarmUp { paths, times: times.map_or(TIMES, |at| at.value) })
}

/// Reports a warm-up that the typed protocol, or the typed balance with any protocol, does not allow.
pub(super) fn check(app: &App, spot: Option<Spot>, found: &mut Found) {
    let Some(((protocol, balance), spot)) = rules::typed(app).zip(spot) else { return };
    if let Err(message) = rules::warm_up(protocol, balance, app) {
        found.add(spot, message.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_asked_for_in_turn() {
        let warm_up = WarmUp { paths: vec!["/".to_owned(), "/api".to_owned()], times: 2 };
        let asked: Vec<&str> = (0..warm_up.requests()).map(|nth| warm_up.path(nth)).collect();
        assert_eq!(asked, ["/", "/api", "/", "/api"]);
        assert_eq!(warm_up.number(3), 1);
    }
}
