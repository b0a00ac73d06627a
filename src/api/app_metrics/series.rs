//! Metrics of one source (a worker, a file) in one form, whatever library they come from. Whatever could not be written in
//! OpenMetrics is left out here, and counted.
use crate::limits::{
    APP_METRICS_LABELS_MAX, APP_METRICS_NAME_BYTES_MAX, APP_METRICS_SERIES_MAX, APP_METRICS_VALUE_BYTES_MAX,
};
use std::cmp::Ordering;
use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
    Summary,
    Unknown,
}

impl Kind {
    /// Whether its values only grow, and those of workers that are gone still count.
    pub(super) fn is_cumulative(self) -> bool {
        matches!(self, Kind::Counter | Kind::Histogram | Kind::Summary)
    }
}

/// What becomes of the values that several workers have for one series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Combine {
    Sum,
    Min,
    Max,
    Average,
    First,
    /// The one that was set last.
    Latest,
}

/// The upper bound of a bucket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound(f64);

impl Bound {
    /// From the label `le`.
    pub(super) fn parse(text: &str) -> Option<Bound> {
        let value: f64 = text.parse().ok().filter(|value: &f64| !value.is_nan())?;
        Some(Bound(value + 0.0)) // There is one zero.
    }

    pub(super) const INFINITE: Bound = Bound(f64::INFINITY);

    pub(super) fn value(self) -> f64 {
        self.0
    }
}

impl Ord for Bound {
    fn cmp(&self, other: &Bound) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Bound {
    fn partial_cmp(&self, other: &Bound) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Bound {
    fn eq(&self, other: &Bound) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Bound {}

/// What a value is of its family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// All there is, of a counter or a gauge.
    Value,
    /// A bucket of a histogram, with all that is below.
    Bucket(Bound),
    Sum,
    Count,
}

/// In the order of their names.
pub(super) type Labels = Vec<(String, String)>;

/// Buckets of one histogram follow each other in their order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Series {
    pub(super) labels: Labels,
    pub(super) part: Part,
}

/// Values of one series, put together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Combined {
    value: f64,
    count: u32,
    at: f64,
}

impl Combined {
    /// `at`: when it was set, in seconds, where that is known.
    pub(super) fn of(value: f64, at: f64) -> Combined {
        Combined { value, count: 1, at }
    }

    pub(super) fn add(&mut self, other: Combined, how: Combine) {
        match how {
            Combine::Sum | Combine::Average => self.value += other.value,
            Combine::Min => self.value = self.value.min(other.value),
            Combine::Max => self.value = self.value.max(other.value),
            Combine::Latest if other.at > self.at => (self.value, self.at) = (other.value, other.at),
            Combine::First | Combine::Latest => {}
        }
        self.count = self.count.saturating_add(other.count);
    }

    pub(super) fn value(self, how: Combine) -> f64 {
        if how == Combine::Average { self.value / f64::from(self.count) } else { self.value }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Family {
    pub(super) kind: Kind,
    pub(super) combine: Combine,
    pub(super) help: String,
    pub(super) series: BTreeMap<Series, Combined>,
}

/// What one source has said.
#[derive(Clone, Debug, Default)]
pub(super) struct Parsed {
    pub(super) families: BTreeMap<String, Family>,
    /// Series that are not among them.
    pub(super) left_out: u64,
    series: usize,
}

impl Parsed {
    /// Adds a value. `name`: of the family, as the library has it.
    pub(super) fn add(
        &mut self,
        (name, kind, combine, help): (&str, Kind, Combine, &str),
        labels: Option<Labels>,
        part: Part,
        value: Combined,
    ) {
        let fits = match kind {
            Kind::Counter => part == Part::Value && is_count(value.value),
            Kind::Gauge | Kind::Unknown => part == Part::Value && !value.value.is_nan(),
            Kind::Histogram => {
                part != Part::Value && (is_count(value.value) || (part == Part::Sum && value.value.is_finite()))
            }
            Kind::Summary => matches!(part, Part::Sum | Part::Count) && value.value.is_finite(),
        };
        let named = family_name(name, kind).zip(labels.filter(|_| fits));
        let Some((name, labels)) = named.filter(|_| self.series < APP_METRICS_SERIES_MAX) else {
            self.left_out += 1;
            return;
        };
        let family = self.families.entry(name).or_insert_with(|| {
            let help = help.chars().filter(|c| !c.is_control() || *c == '\n').take(APP_METRICS_VALUE_BYTES_MAX / 4);
            Family { kind, combine, help: help.collect(), series: BTreeMap::new() }
        });
        if family.kind != kind {
            self.left_out += 1;
            return;
        }
        let combine = family.combine;
        let mut is_new = false;
        let series = family.series.entry(Series { labels, part });
        series.and_modify(|known| known.add(value, combine)).or_insert_with(|| {
            is_new = true;
            value
        });
        self.series += usize::from(is_new);
    }

    /// The buckets of each histogram have what is below them as well, and the last one is the count.
    pub(super) fn accumulate_buckets(&mut self) {
        for family in self.families.values_mut().filter(|family| family.kind == Kind::Histogram) {
            let mut counts: BTreeMap<Labels, f64> = BTreeMap::new();
            for (series, value) in &mut family.series {
                if let Part::Bucket(_) = series.part {
                    let below = counts.entry(series.labels.clone()).or_default();
                    *below += value.value;
                    value.value = *below;
                }
            }
            let all =
                counts.into_iter().map(|(labels, all)| (Series { labels, part: Part::Count }, Combined::of(all, 0.0)));
            family.series.extend(all);
        }
    }
}

fn is_count(value: f64) -> bool {
    value.is_finite() && value >= 0.0
}

/// The name of the family as it is written: none of clusterd's own.
fn family_name(name: &str, kind: Kind) -> Option<String> {
    let name = if kind == Kind::Counter { name.strip_suffix("_total").unwrap_or(name) } else { name };
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == ':');
    let is_name = starts && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':');
    if !is_name || name.len() > APP_METRICS_NAME_BYTES_MAX {
        return None;
    }
    Some(if name.starts_with("clusterd") { format!("app_{name}") } else { name.to_owned() })
}

/// The labels of a series; `None`: it cannot have them. `app` is clusterd's.
pub(super) fn labels(typed: impl IntoIterator<Item = (String, String)>) -> Option<Labels> {
    let mut labels = Labels::new();
    for (mut name, value) in typed {
        let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && !name.starts_with("__");
        let is_name = starts && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        let is_text = !value.chars().any(|c| c.is_control() && c != '\n');
        let fits = name.len() <= APP_METRICS_NAME_BYTES_MAX && value.len() <= APP_METRICS_VALUE_BYTES_MAX && is_text;
        if !is_name || !fits || labels.len() == APP_METRICS_LABELS_MAX {
            return None;
        }
        if name == "app" || name.ends_with("exported_app") {
            name.insert_str(0, "exported_");
        }
        labels.push((name, value));
    }
    labels.sort_unstable();
    let is_twice = labels.windows(2).any(|pair| pair[0].0 == pair[1].0);
    (!is_twice).then_some(labels)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn names_that_could_be_mistaken_are_others_or_none() {
        assert_eq!(family_name("http_requests_total", Kind::Counter).as_deref(), Some("http_requests"));
        assert_eq!(family_name("x_total", Kind::Gauge).as_deref(), Some("x_total"));
        assert_eq!(family_name("clusterd_app_workers", Kind::Gauge).as_deref(), Some("app_clusterd_app_workers"));
        for bad in ["", "_total", "1x", "a b", "a\n", "ü", &"x".repeat(APP_METRICS_NAME_BYTES_MAX + 1)] {
            assert_eq!(family_name(bad, Kind::Counter), None, "{bad}");
        }
    }

    #[test]
    fn labels_are_in_order_and_clusterds_own_is_free() {
        let found = labels(pairs(&[("b", "2"), ("app", "x"), ("exported_app", "y")])).unwrap();
        assert_eq!(found, pairs(&[("b", "2"), ("exported_app", "x"), ("exported_exported_app", "y")]));
        let long = "x".repeat(APP_METRICS_VALUE_BYTES_MAX + 1);
        let many: Vec<(String, String)> =
            (0..=APP_METRICS_LABELS_MAX).map(|n| (format!("l{n}"), String::new())).collect();
        for bad in [
            pairs(&[("a", "x\0")]),
            pairs(&[("__name__", "x")]),
            pairs(&[("a-b", "x")]),
            pairs(&[("", "x")]),
            pairs(&[("a", &long)]),
            many,
        ] {
            assert_eq!(labels(bad), None);
        }
    }

    #[test]
    fn values_that_a_kind_cannot_have_are_left_out_and_counted() {
        let mut parsed = Parsed::default();
        let mut add = |kind, part, value: f64| {
            parsed.add(("x", kind, Combine::Sum, "X."), Some(Labels::new()), part, Combined::of(value, 0.0));
            parsed.left_out
        };
        assert_eq!(add(Kind::Counter, Part::Value, -1.0), 1);
        assert_eq!(add(Kind::Counter, Part::Value, f64::INFINITY), 2);
        assert_eq!(add(Kind::Gauge, Part::Value, f64::NAN), 3);
        assert_eq!(add(Kind::Histogram, Part::Value, 1.0), 4);
        assert_eq!(add(Kind::Summary, Part::Bucket(Bound::INFINITE), 1.0), 5);
        assert_eq!(add(Kind::Counter, Part::Value, 1.0), 5);
        assert_eq!(add(Kind::Gauge, Part::Value, 1.0), 6, "it is a counter");
        for n in 0..APP_METRICS_SERIES_MAX + 5 {
            let labels = labels([("n".to_owned(), n.to_string())]);
            parsed.add(("y", Kind::Gauge, Combine::Sum, ""), labels, Part::Value, Combined::of(1.0, 0.0));
        }
        assert_eq!(parsed.left_out, 12);
        let series: usize = parsed.families.values().map(|family| family.series.len()).sum();
        assert_eq!(series, APP_METRICS_SERIES_MAX);
    }

    #[test]
    fn values_are_combined_as_was_asked() {
        for (how, value) in [
            (Combine::Sum, 9.0),
            (Combine::Min, 1.0),
            (Combine::Max, 5.0),
            (Combine::Average, 3.0),
            (Combine::First, 3.0),
            (Combine::Latest, 5.0),
        ] {
            let mut all = Combined::of(3.0, 1.0);
            all.add(Combined::of(5.0, 7.0), how);
            all.add(Combined::of(1.0, 2.0), how);
            assert_eq!(all.value(how), value, "{how:?}");
        }
    }
}
