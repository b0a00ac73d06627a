//! Writes the metrics of apps, each with the label `app`. What apps call the same is one family. Whatever would make the
//! answer invalid (another type for the same name, a name that another family uses up, a histogram that does not add up) is
//! left out or put right.
use super::series::{Bound, Kind, Labels, Part, Series};
use super::sums::{AppMetrics, Total};
use crate::api::metrics::Format;
use crate::limits::APP_METRICS_TEXT_BYTES_MAX;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};

/// The text of all; what does not fit is counted with its app.
///
/// # Errors
/// None of its own: text can always be added to.
pub(in crate::api) fn write(apps: &mut [AppMetrics], format: Format) -> Result<String, fmt::Error> {
    let mut by_name: BTreeMap<&str, Vec<(usize, &Total)>> = BTreeMap::new();
    for (n, app) in apps.iter().enumerate() {
        for (name, total) in &app.families {
            by_name.entry(name).or_default().push((n, total));
        }
    }
    let mut out = String::new();
    let mut used_up = BTreeSet::new();
    let mut left_out = vec![0_u64; apps.len()];
    for (name, totals) in by_name {
        let kind = totals[0].1.kind;
        let names = names(name, kind);
        let clashes = names.iter().any(|name| used_up.contains(name));
        let mut text = String::new();
        for (n, total) in totals.iter().copied() {
            if clashes || total.kind != kind {
                left_out[n] += total.series.len() as u64;
                continue;
            }
            let before = text.len();
            left_out[n] += samples(&mut text, name, total, &apps[n].app)?;
            if out.len() + text.len() > APP_METRICS_TEXT_BYTES_MAX {
                text.truncate(before);
                left_out[n] += total.series.len() as u64;
            }
        }
        if !text.is_empty() {
            used_up.extend(names);
            head(&mut out, name, totals[0].1, format)?;
            out.push_str(&text);
        }
    }
    for (app, left_out) in apps.iter_mut().zip(left_out) {
        app.left_out += left_out;
    }
    Ok(out)
}

/// The names that a family uses: its own, and those of its samples.
fn names(name: &str, kind: Kind) -> Vec<String> {
    let suffixes: &[&str] = match kind {
        Kind::Counter => &["", "_total", "_created"],
        Kind::Histogram => &["", "_bucket", "_sum", "_count", "_created"],
        Kind::Summary => &["", "_sum", "_count", "_created"],
        Kind::Gauge | Kind::Unknown => &[""],
    };
    suffixes.iter().map(|suffix| format!("{name}{suffix}")).collect()
}

fn head(out: &mut String, name: &str, total: &Total, format: Format) -> fmt::Result {
    // The older format has the names of samples.
    let suffix = if total.kind == Kind::Counter && format == Format::Prometheus { "_total" } else { "" };
    let kind = match (total.kind, format) {
        (Kind::Counter, _) => "counter",
        (Kind::Gauge, _) => "gauge",
        (Kind::Histogram, _) => "histogram",
        (Kind::Summary, _) => "summary",
        (Kind::Unknown, Format::OpenMetrics) => "unknown",
        (Kind::Unknown, Format::Prometheus) => "untyped",
    };
    let help = if total.help.is_empty() { "A metric of the app." } else { &total.help };
    write!(out, "# HELP {name}{suffix} ")?;
    match format {
        Format::OpenMetrics => escape(out, help),
        Format::Prometheus => out.push_str(&help.replace('\\', "\\\\").replace('\n', "\\n")),
    }
    writeln!(out, "\n# TYPE {name}{suffix} {kind}")
}

/// Writes the samples of one app, as far as any text may be. Returns how many series were left out.
fn samples(out: &mut String, name: &str, total: &Total, app: &str) -> Result<u64, fmt::Error> {
    if total.kind == Kind::Histogram {
        return histograms(out, name, total, app);
    }
    for (series, value) in &total.series {
        let suffix = match (total.kind, series.part) {
            (Kind::Counter, _) => "_total",
            (_, Part::Sum) => "_sum",
            (_, Part::Count) => "_count",
            (_, Part::Value | Part::Bucket(_)) => "",
        };
        sample(out, (name, suffix), app, &series.labels, None, *value)?;
        if out.len() > APP_METRICS_TEXT_BYTES_MAX {
            break;
        }
    }
    Ok(0)
}

/// Each bucket has at least what the ones before it have, and the last one has all.
fn histograms(out: &mut String, name: &str, total: &Total, app: &str) -> Result<u64, fmt::Error> {
    let mut left_out = 0;
    let all: Vec<(&Series, f64)> = total.series.iter().map(|(series, value)| (series, *value)).collect();
    for one in all.chunk_by(|a, b| a.0.labels == b.0.labels) {
        if out.len() > APP_METRICS_TEXT_BYTES_MAX {
            break;
        }
        let labels = &one[0].0.labels;
        let part = |wanted: Part| one.iter().find(|(series, _)| series.part == wanted).map(|(_, value)| *value);
        let mut below = 0.0;
        let mut last = None;
        let mut text = String::new();
        for (series, value) in one {
            let Part::Bucket(bound) = series.part else { continue };
            below = value.max(below);
            last = Some(bound);
            sample(&mut text, (name, "_bucket"), app, labels, Some(bound), below)?;
        }
        let count = part(Part::Count).unwrap_or(0.0);
        if last != Some(Bound::INFINITE) {
            below = count.max(below);
            sample(&mut text, (name, "_bucket"), app, labels, Some(Bound::INFINITE), below)?;
        }
        match part(Part::Sum) {
            Some(sum) => {
                sample(&mut text, (name, "_sum"), app, labels, None, sum)?;
                sample(&mut text, (name, "_count"), app, labels, None, below)?;
                out.push_str(&text);
            }
            None => left_out += one.len() as u64,
        }
    }
    Ok(left_out)
}

fn sample(
    out: &mut String,
    (name, suffix): (&str, &str),
    app: &str,
    labels: &Labels,
    bound: Option<Bound>,
    value: f64,
) -> fmt::Result {
    write!(out, "{name}{suffix}{{app=\"")?;
    escape(out, app);
    out.push('"');
    for (label, value) in labels {
        write!(out, ",{label}=\"")?;
        escape(out, value);
        out.push('"');
    }
    if let Some(bound) = bound {
        out.push_str(",le=\"");
        number(out, bound.value())?;
        out.push('"');
    }
    out.push_str("} ");
    number(out, value)?;
    out.push('\n');
    Ok(())
}

fn number(out: &mut String, value: f64) -> fmt::Result {
    if value.is_infinite() {
        out.push_str(if value > 0.0 { "+Inf" } else { "-Inf" });
        return Ok(());
    }
    write!(out, "{value}")
}

fn escape(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
#[path = "text_tests.rs"]
mod tests;
