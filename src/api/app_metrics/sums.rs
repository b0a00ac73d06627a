//! Adds up what the sources of an app have said. Counts of sources that are gone stay in the sums, as last seen: a sum that
//! fell with each worker that ends would look like a counter that began again. Gauges are those of who answered.
use super::series::{Combine, Combined, Family, Kind, Parsed, Series};
use crate::limits::APP_METRICS_SERIES_MAX;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The metrics of one app in one answer.
#[derive(Debug, Default)]
pub(in crate::api) struct AppMetrics {
    pub(in crate::api) app: String,
    pub(super) families: BTreeMap<String, Total>,
    /// Workers, or folders, that have said nothing.
    pub(in crate::api) missing: u64,
    /// Series that are not in the answer.
    pub(in crate::api) left_out: u64,
}

/// A family, added up.
#[derive(Clone, Debug)]
pub(super) struct Total {
    pub(super) kind: Kind,
    pub(super) help: String,
    pub(super) series: BTreeMap<Series, f64>,
}

/// What was seen of each app, by name.
static SEEN: Mutex<BTreeMap<String, Seen>> = Mutex::new(BTreeMap::new());

fn seen() -> MutexGuard<'static, BTreeMap<String, Seen>> {
    SEEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Forgets what was seen of all apps but these.
pub(super) fn forget_others(apps: &[&str]) {
    seen().retain(|app, _| apps.contains(&app.as_str()));
}

/// Adds up what the sources of an app have said now. `living`: all that are not gone.
pub(super) fn add_up(app: &str, said: Vec<(u64, Parsed)>, living: &BTreeSet<u64>, missing: u64) -> AppMetrics {
    let mut all = seen();
    let (families, left_out) = all.entry(app.to_owned()).or_default().add_up(said, living);
    AppMetrics { app: app.to_owned(), families, missing, left_out }
}

/// The counts of an app's sources as last seen.
#[derive(Debug, Default)]
struct Seen {
    scrapes: u64,
    families: BTreeMap<String, SeenFamily>,
}

#[derive(Debug)]
struct SeenFamily {
    kind: Kind,
    help: String,
    series: BTreeMap<Series, Counts>,
}

/// One series.
#[derive(Debug, Default)]
struct Counts {
    /// Of living sources, in the order of their numbers.
    shares: Vec<Share>,
    /// Of those that are gone.
    gone: Option<f64>,
}

impl Counts {
    fn total(&self) -> f64 {
        self.gone.unwrap_or(0.0) + self.shares.iter().map(|share| share.value).sum::<f64>()
    }
}

#[derive(Debug)]
struct Share {
    source: u64,
    value: f64,
    /// The scrape in which it was last said.
    scrape: u64,
}

impl Seen {
    fn add_up(&mut self, said: Vec<(u64, Parsed)>, living: &BTreeSet<u64>) -> (BTreeMap<String, Total>, u64) {
        self.scrapes += 1;
        let answered: BTreeSet<u64> = said.iter().map(|(source, _)| *source).collect();
        self.let_go(living);
        let mut left_out = 0;
        let mut totals = Totals::default();
        for (source, parsed) in said {
            left_out += parsed.left_out;
            for (name, family) in parsed.families {
                if family.kind.is_cumulative() && family.combine == Combine::Sum {
                    left_out += self.note(source, name, family);
                } else {
                    left_out += totals.add(name, family);
                }
            }
        }
        self.forget_what_was_not_said_again(&answered);
        let mut families = totals.finish();
        for (name, family) in &self.families {
            let series = family.series.iter().map(|(series, counts)| (series.clone(), counts.total()));
            // One of another kind is newer.
            families.entry(name.clone()).or_insert_with(|| Total {
                kind: family.kind,
                help: family.help.clone(),
                series: series.collect(),
            });
        }
        (families, left_out)
    }

    /// Sources that are gone will not say more.
    fn let_go(&mut self, living: &BTreeSet<u64>) {
        for counts in self.families.values_mut().flat_map(|family| family.series.values_mut()) {
            let Counts { shares, gone } = counts;
            shares.retain(|share| {
                let lives = living.contains(&share.source);
                if !lives {
                    *gone = Some(gone.unwrap_or(0.0) + share.value);
                }
                lives
            });
        }
    }

    /// Notes the counts of a family that a source has now. Returns how many series were too many.
    fn note(&mut self, source: u64, name: String, family: Family) -> u64 {
        let (scrape, how) = (self.scrapes, family.combine);
        if self.families.get(&name).is_some_and(|known| known.kind != family.kind) {
            self.families.remove(&name);
        }
        let mut count: usize = self.families.values().map(|family| family.series.len()).sum();
        if count + family.series.len() > APP_METRICS_SERIES_MAX {
            self.forget_the_gone();
            count = self.families.values().map(|family| family.series.len()).sum();
        }
        let empty = || SeenFamily { kind: family.kind, help: family.help.clone(), series: BTreeMap::new() };
        let known = self.families.entry(name).or_insert_with(empty);
        let mut left_out = 0;
        for (series, value) in family.series {
            if !known.series.contains_key(&series) {
                if count == APP_METRICS_SERIES_MAX {
                    left_out += 1;
                    continue;
                }
                count += 1;
            }
            let value = value.value(how);
            let shares = &mut known.series.entry(series).or_default().shares;
            match shares.binary_search_by_key(&source, |share| share.source) {
                Ok(at) => (shares[at].value, shares[at].scrape) = (value, scrape),
                Err(at) => shares.insert(at, Share { source, value, scrape }),
            }
        }
        left_out
    }

    /// A source that has answered has removed the series that it did not name.
    fn forget_what_was_not_said_again(&mut self, answered: &BTreeSet<u64>) {
        let scrape = self.scrapes;
        for family in self.families.values_mut() {
            family.series.retain(|_, counts| {
                counts.shares.retain(|share| share.scrape == scrape || !answered.contains(&share.source));
                !counts.shares.is_empty() || counts.gone.is_some()
            });
        }
        self.families.retain(|_, family| !family.series.is_empty());
    }

    /// Makes room: series that only sources had that are gone.
    fn forget_the_gone(&mut self) {
        for family in self.families.values_mut() {
            family.series.retain(|_, counts| !counts.shares.is_empty());
        }
        self.families.retain(|_, family| !family.series.is_empty());
    }
}

/// Families that are combined from what was said now.
#[derive(Default)]
struct Totals {
    families: BTreeMap<String, Family>,
    count: usize,
}

impl Totals {
    /// Returns how many series were left out.
    fn add(&mut self, name: String, family: Family) -> u64 {
        let Family { kind, combine, help, series } = family;
        let known =
            self.families.entry(name).or_insert_with(|| Family { kind, combine, help, series: BTreeMap::new() });
        if known.kind != kind {
            return series.len() as u64;
        }
        let mut left_out = 0;
        for (series, value) in series {
            match known.series.get_mut(&series) {
                Some(all) => all.add(value, known.combine),
                None if self.count == APP_METRICS_SERIES_MAX => left_out += 1,
                None => {
                    self.count += 1;
                    known.series.insert(series, value);
                }
            }
        }
        left_out
    }

    fn finish(self) -> BTreeMap<String, Total> {
        let total = |family: Family| {
            let how = family.combine;
            let series = family.series.into_iter().map(|(series, all)| (series, Combined::value(all, how)));
            Total { kind: family.kind, help: family.help, series: series.collect() }
        };
        self.families.into_iter().map(|(name, family)| (name, total(family))).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::series::{Labels, Part};
    use super::*;

    /// A worker with a counter, a gauge, and more series of that.
    fn said(count: f64, gauge: f64, how: Combine) -> Parsed {
        let mut parsed = Parsed::default();
        let mut add = |name, kind, how, value| {
            parsed.add((name, kind, how, "Help."), Some(Labels::new()), Part::Value, Combined::of(value, 0.0));
        };
        add("count_total", Kind::Counter, Combine::Sum, count);
        add("level", Kind::Gauge, how, gauge);
        parsed
    }

    fn values(families: &BTreeMap<String, Total>) -> Vec<(&str, f64)> {
        families.iter().map(|(name, family)| (name.as_str(), *family.series.first_key_value().unwrap().1)).collect()
    }

    fn living<const N: usize>(sources: [u64; N]) -> BTreeSet<u64> {
        sources.into()
    }

    #[test]
    fn counts_stay_when_workers_end_or_do_not_answer_and_gauges_do_not() {
        let mut seen = Seen::default();
        let both = vec![(1, said(10.0, 2.0, Combine::Sum)), (2, said(5.0, 3.0, Combine::Sum))];
        let (families, left_out) = seen.add_up(both, &living([1, 2]));
        assert_eq!((values(&families), left_out), (vec![("count", 15.0), ("level", 5.0)], 0));
        // One does not answer.
        let (families, _) = seen.add_up(vec![(2, said(6.0, 3.0, Combine::Sum))], &living([1, 2]));
        assert_eq!(values(&families), [("count", 16.0), ("level", 3.0)]);
        // It is gone, and another one has begun.
        let (families, _) =
            seen.add_up(vec![(2, said(7.0, 3.0, Combine::Sum)), (3, said(1.0, 4.0, Combine::Sum))], &living([2, 3]));
        assert_eq!(values(&families), [("count", 18.0), ("level", 7.0)]);
        let (families, _) = seen.add_up(Vec::new(), &living([]));
        assert_eq!(values(&families), [("count", 18.0)]);
    }

    #[test]
    fn a_series_that_a_worker_has_removed_is_gone() {
        let mut seen = Seen::default();
        seen.add_up(vec![(1, said(10.0, 2.0, Combine::Sum))], &living([1]));
        let (families, _) = seen.add_up(vec![(1, Parsed::default())], &living([1]));
        assert!(families.is_empty());
    }

    #[test]
    fn gauges_are_combined_as_the_app_says() {
        for (how, value) in [(Combine::Max, 3.0), (Combine::Min, 1.0), (Combine::Average, 2.0), (Combine::First, 1.0)] {
            let both = vec![(1, said(0.0, 1.0, how)), (2, said(0.0, 3.0, how))];
            let (families, _) = Seen::default().add_up(both, &living([1, 2]));
            assert_eq!(values(&families)[1], ("level", value), "{how:?}");
        }
    }

    #[test]
    fn a_worker_that_calls_a_gauge_a_counter_spoils_only_that() {
        let mut lies = Parsed::default();
        lies.add(("level", Kind::Counter, Combine::Max, ""), Some(Labels::new()), Part::Value, Combined::of(9.0, 0.0));
        let all = vec![(1, said(1.0, 2.0, Combine::Sum)), (2, lies), (3, said(1.0, 2.0, Combine::Sum))];
        let (families, left_out) = Seen::default().add_up(all, &living([1, 2, 3]));
        assert_eq!((values(&families), left_out), (vec![("count", 2.0), ("level", 4.0)], 1));
    }

    #[test]
    fn series_without_end_are_bounded_and_those_of_the_living_come_first() {
        let many = |from: usize, kind| {
            let mut parsed = Parsed::default();
            for n in from..from + APP_METRICS_SERIES_MAX {
                let labels = super::super::series::labels([("n".to_owned(), n.to_string())]);
                parsed.add(("many", kind, Combine::Sum, ""), labels, Part::Value, Combined::of(1.0, 0.0));
            }
            parsed
        };
        for kind in [Kind::Counter, Kind::Gauge] {
            let mut seen = Seen::default();
            let both = vec![(1, many(0, kind)), (2, many(APP_METRICS_SERIES_MAX / 2, kind))];
            let (families, left_out) = seen.add_up(both, &living([1, 2]));
            assert_eq!(families["many"].series.len(), APP_METRICS_SERIES_MAX);
            assert_eq!(left_out, APP_METRICS_SERIES_MAX as u64 / 2);
            let (families, left_out) = seen.add_up(vec![(3, many(5, kind))], &living([3]));
            assert_eq!((families["many"].series.len(), left_out), (APP_METRICS_SERIES_MAX, 0));
        }
    }
}
