//! The text of apps' metrics, read by a strict parser.
#![allow(clippy::unwrap_used)]
use super::super::series::labels;
use super::*;
use crate::api::metrics::tests::openmetrics::{Exposition, parse};

fn series(pairs: &[(&str, &str)], part: Part) -> Series {
    let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Series { labels: labels(pairs).unwrap(), part }
}

fn total(kind: Kind, values: impl IntoIterator<Item = (Series, f64)>) -> Total {
    Total { kind, help: "Some \"help\",\nin \\ lines.".to_owned(), series: values.into_iter().collect() }
}

fn one(kind: Kind, value: f64) -> Total {
    let part = if kind == Kind::Summary { Part::Count } else { Part::Value };
    total(kind, [(series(&[], part), value)])
}

fn app<const N: usize>(name: &str, families: [(&str, Total); N]) -> AppMetrics {
    let families = families.into_iter().map(|(name, total)| (name.to_owned(), total)).collect();
    AppMetrics { app: name.to_owned(), families, ..AppMetrics::default() }
}

fn written(apps: &mut [AppMetrics]) -> Exposition {
    let text = write(apps, Format::OpenMetrics).unwrap() + "# EOF\n";
    parse(&text).unwrap_or_else(|why| panic!("{why}\n{text}"))
}

#[test]
fn what_apps_call_the_same_is_one_family_with_their_names() {
    let mut apps = [
        app("web", [("hits", one(Kind::Counter, 3.0)), ("size", one(Kind::Summary, 2.0))]),
        app("api \"2\"", [("hits", one(Kind::Counter, 4.0)), ("other", one(Kind::Unknown, -1.5))]),
    ];
    let found = written(&mut apps);
    assert_eq!(found.value("hits_total", &[("app", "web")]), Some(3.0));
    assert_eq!(found.value("hits_total", &[("app", "api \"2\"")]), Some(4.0));
    assert_eq!(found.value("size_count", &[("app", "web")]), Some(2.0));
    assert_eq!(found.value("other", &[]), Some(-1.5));
    let old = write(&mut apps, Format::Prometheus).unwrap();
    let head =
        "# HELP hits_total Some \"help\",\\nin \\\\ lines.\n# TYPE hits_total counter\nhits_total{app=\"web\"} 3\n";
    assert!(old.contains(head) && old.contains("# TYPE other untyped\n"), "{old}");
}

#[test]
fn names_that_clash_are_left_out_and_counted() {
    let buckets = |n| [(series(&[], Part::Bucket(Bound::INFINITE)), n), (series(&[], Part::Sum), n)];
    let mut apps = [
        app("web", [("a", one(Kind::Counter, 1.0)), ("x", total(Kind::Histogram, buckets(3.0)))]),
        app(
            "api",
            [
                ("a", one(Kind::Gauge, 2.0)),
                ("a_total", one(Kind::Gauge, 2.0)),
                ("x_count", one(Kind::Gauge, 2.0)),
                ("x_sum", one(Kind::Counter, 2.0)),
                ("fine", one(Kind::Gauge, 2.0)),
            ],
        ),
    ];
    let found = written(&mut apps);
    assert_eq!(found.families.keys().collect::<Vec<_>>(), ["a", "fine", "x"]);
    assert_eq!(found.value("a_total", &[]), Some(1.0));
    assert_eq!([apps[0].left_out, apps[1].left_out], [0, 4]);
}

#[test]
fn histograms_add_up_whatever_a_worker_says() {
    let bound = |text| Part::Bucket(Bound::parse(text).unwrap());
    let of = |path: &'static str| move |(part, value)| (series(&[("path", path)], part), value);
    let falls = [(bound("0.1"), 5.0), (bound("1"), 2.0), (bound("-2"), 1.0), (Part::Sum, 1.0), (Part::Count, 3.0)];
    let whole = [(bound("0.1"), 1.0), (Part::Count, 9.0), (bound("+Inf"), 4.0), (Part::Sum, 1.5)];
    let no_buckets = [(Part::Count, 2.0), (Part::Sum, 1.0)];
    let no_sum = [(bound("1"), 2.0), (Part::Count, 2.0)];
    let all = falls.map(of("/falls")).into_iter().chain(whole.map(of("/whole")));
    let all = all.chain(no_buckets.map(of("/none"))).chain(no_sum.map(of("/sum")));
    let mut apps = [app("web", [("took", total(Kind::Histogram, all))])];
    let found = written(&mut apps);
    let value = |name, path| found.value(name, &[("app", "web"), ("path", path)]);
    assert_eq!([value("took_count", "/falls"), value("took_count", "/whole")], [Some(5.0), Some(4.0)]);
    assert_eq!([value("took_count", "/none"), value("took_count", "/sum")], [Some(2.0), None]);
    let bucket = |le| found.value("took_bucket", &[("path", "/falls"), ("le", le)]);
    assert_eq!([bucket("-2"), bucket("0.1"), bucket("1"), bucket("+Inf")], [1.0, 5.0, 5.0, 5.0].map(Some));
    assert_eq!(apps[0].left_out, 2);
}

#[test]
fn the_text_is_bounded_and_small_metrics_stay() {
    let long = "x\\\"".repeat(340);
    let many = (0..10_000).map(|n| (series(&[("n", &n.to_string()), ("long", &long)], Part::Value), 1.0));
    let many = total(Kind::Gauge, many);
    let mut apps = [
        app("web", [("many", many), ("small", one(Kind::Gauge, 1.0))]),
        app("api", [("small", one(Kind::Gauge, 2.0))]),
    ];
    let found = written(&mut apps);
    assert_eq!([apps[0].left_out, apps[1].left_out], [10_000, 0]);
    assert_eq!((found.samples.len(), found.sum("small", &[])), (2, 3.0));
}
