//! Reads the answers of `prom-client` (`getMetricsAsJSON()` of each registry of a worker).
use super::series::{self, Bound, Combine, Combined, Kind, Labels, Parsed, Part};
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

#[derive(serde::Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    metrics: Vec<Vec<&'a RawValue>>,
}

#[derive(serde::Deserialize)]
struct Metric<'a> {
    name: String,
    #[serde(default)]
    help: String,
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    aggregator: Option<String>,
    #[serde(default, borrow)]
    values: Vec<&'a RawValue>,
}

#[derive(serde::Deserialize)]
struct Sample {
    /// JSON has no NaN: it is null.
    value: Option<f64>,
    #[serde(default)]
    labels: BTreeMap<String, Value>,
    #[serde(default, rename = "metricName")]
    name: Option<String>,
}

/// Reads an answer; `None`: there is none in it.
pub(super) fn parse(line: &[u8]) -> Option<Parsed> {
    let answer: Answer<'_> = serde_json::from_slice(line).ok()?;
    let mut parsed = Parsed::default();
    for metric in answer.metrics.iter().flatten() {
        match serde_json::from_str::<Metric<'_>>(metric.get()) {
            Ok(metric) => take(&metric, &mut parsed),
            Err(_) => parsed.left_out += 1,
        }
    }
    Some(parsed)
}

fn take(metric: &Metric<'_>, parsed: &mut Parsed) {
    let combine = match metric.aggregator.as_deref() {
        None | Some("sum") => Combine::Sum,
        Some("min") => Combine::Min,
        Some("max") => Combine::Max,
        Some("average") => Combine::Average,
        Some("first") => Combine::First,
        Some("omit") => return,
        Some(_) => {
            parsed.left_out += metric.values.len() as u64;
            return;
        }
    };
    let kind = match metric.kind.as_str() {
        "counter" => Kind::Counter,
        "gauge" => Kind::Gauge,
        "histogram" => Kind::Histogram,
        "summary" => Kind::Summary,
        _ => Kind::Unknown,
    };
    for sample in &metric.values {
        let Ok(Sample { value, mut labels, name }) = serde_json::from_str(sample.get()) else {
            parsed.left_out += 1;
            continue;
        };
        let Some(value) = value else { continue };
        // Quantiles of several workers cannot be added up.
        if kind == Kind::Summary && labels.contains_key("quantile") {
            continue;
        }
        let part = match name.as_deref().map(|name| name.strip_prefix(metric.name.as_str())) {
            None | Some(Some("")) => Some(Part::Value),
            Some(Some("_bucket")) => {
                labels.remove("le").and_then(text).and_then(|bound| Bound::parse(&bound)).map(Part::Bucket)
            }
            Some(Some("_sum")) => Some(Part::Sum),
            Some(Some("_count")) => Some(Part::Count),
            Some(_) => None,
        };
        let family = (metric.name.as_str(), kind, combine, metric.help.as_str());
        match part {
            Some(part) => parsed.add(family, read_labels(labels), part, Combined::of(value, 0.0)),
            None => parsed.left_out += 1,
        }
    }
}

fn read_labels(typed: BTreeMap<String, Value>) -> Option<Labels> {
    let read: Option<Vec<(String, String)>> =
        typed.into_iter().map(|(name, value)| Some((name, text(value)?))).collect();
    series::labels(read?)
}

/// As JavaScript prints it.
fn text(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        Value::Number(_) | Value::Bool(_) | Value::Null => Some(value.to_string()),
        Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// As prom-client 15 prints it, shortened.
    const ANSWER: &str = r#"{"type":"prom-client:getMetricsRes","requestId":1,"metrics":[[
        {"help":"Requests.","name":"http_requests_total","type":"counter","values":[{"value":3,"labels":{"method":"GET","code":200}}],"aggregator":"sum"},
        {"help":"Lag.","name":"lag_seconds","type":"gauge","values":[{"value":0.5,"labels":{}}],"aggregator":"average"},
        {"name":"took_seconds","help":"Took.","type":"histogram","values":[
            {"labels":{"le":0.005,"path":"/"},"value":1,"metricName":"took_seconds_bucket","exemplar":null},
            {"labels":{"le":"+Inf","path":"/"},"value":2,"metricName":"took_seconds_bucket","exemplar":null},
            {"metricName":"took_seconds_sum","labels":{"path":"/"},"value":0.75},
            {"metricName":"took_seconds_count","labels":{"path":"/"},"value":2}],"aggregator":"sum"},
        {"name":"size","help":"Size.","type":"summary","values":[{"labels":{"quantile":0.5},"value":7},
            {"metricName":"size_sum","labels":{},"value":14},{"metricName":"size_count","labels":{},"value":2}],"aggregator":"sum"},
        {"name":"start","help":"Start.","type":"gauge","values":[{"value":9,"labels":{}}],"aggregator":"omit"},
        {"name":"nan","help":"NaN.","type":"gauge","values":[{"value":null,"labels":{}}],"aggregator":"sum"}],
        [{"help":"Requests.","name":"http_requests_total","type":"counter","values":[{"value":4,"labels":{"method":"GET","code":200}}]}]]}"#;

    #[test]
    fn every_kind_is_read_and_registries_of_a_worker_are_added_up() {
        let parsed = parse(ANSWER.as_bytes()).unwrap();
        assert_eq!(parsed.left_out, 0);
        assert_eq!(
            parsed.families.keys().collect::<Vec<_>>(),
            ["http_requests", "lag_seconds", "size", "took_seconds"]
        );
        let requests = &parsed.families["http_requests"];
        let (series, value) = requests.series.first_key_value().unwrap();
        assert_eq!(value.value(Combine::Sum), 7.0);
        let labels = [("code", "200"), ("method", "GET")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(series.labels, labels);
        let took: Vec<(Part, f64)> =
            parsed.families["took_seconds"].series.iter().map(|(s, v)| (s.part, v.value(Combine::Sum))).collect();
        let bucket = Part::Bucket(Bound::parse("0.005").unwrap());
        assert_eq!(took, [(bucket, 1.0), (Part::Bucket(Bound::INFINITE), 2.0), (Part::Sum, 0.75), (Part::Count, 2.0)]);
        let size: Vec<Part> = parsed.families["size"].series.keys().map(|series| series.part).collect();
        assert_eq!(size, [Part::Sum, Part::Count], "no quantiles");
    }

    #[test]
    fn what_is_no_metric_is_left_out_and_the_others_stay() {
        let answer = |metrics: &str| format!(r#"{{"type":"x","requestId":1,"metrics":[[{metrics}]]}}"#);
        let good = r#"{"name":"good","type":"gauge","values":[{"value":1}]}"#;
        for bad in [
            "7",
            "{}",
            r#"{"name":7,"values":[]}"#,
            r#"{"name":"a","type":"gauge","values":[{"value":"x"}]}"#,
            r#"{"name":"a","type":"gauge","values":[{"value":1,"labels":{"x":{}}}]}"#,
            r#"{"name":"a","type":"gauge","values":[{"value":1,"labels":{"x y":"z"}}]}"#,
            r#"{"name":"a","type":"gauge","values":[{"value":1}],"aggregator":"mine"}"#,
            r#"{"name":"a b","type":"gauge","values":[{"value":1}]}"#,
            r#"{"name":"a","type":"counter","values":[{"value":-1}]}"#,
            r#"{"name":"a","type":"histogram","values":[{"value":1,"labels":{"le":"x"},"metricName":"a_bucket"}]}"#,
            r#"{"name":"a","type":"histogram","values":[{"value":1,"labels":{},"metricName":"b_bucket"}]}"#,
        ] {
            let parsed = parse(answer(&format!("{bad},{good}")).as_bytes()).unwrap();
            assert_eq!((parsed.left_out, parsed.families.len()), (1, 1), "{bad}");
        }
        for none in ["", "7", "{}", r#"{"error":"x"}"#, r#"{"metrics":7}"#, r#"{"metrics":[{}]}"#] {
            assert!(parse(none.as_bytes()).is_none(), "{none}");
        }
    }
}
