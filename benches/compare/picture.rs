//! The main comparison as a picture (SVG) for the README: connections per second, and what the process that hands them
//! out uses of a CPU for each. Pure: data in, text out. Text stays text, and the picture brings its own ground, so it can
//! be read on light and on dark pages.
use super::data::{Connections, MAIN, Row};
use super::stats::{median, range};
use std::fmt::Write;

const WIDTH: f64 = 760.0;
const LABEL_WIDTH: f64 = 178.0;
const PANEL_WIDTH: f64 = 270.0;
const GAP: f64 = 18.0;
/// What a value needs behind its bar.
const VALUE_WIDTH: f64 = 62.0;
const TOP: f64 = 74.0;
const ROW_HEIGHT: f64 = 26.0;
const BAR_HEIGHT: f64 = 14.0;
const FOOT: f64 = 34.0;

const STYLE: &str = "\
    .ground { fill: #ffffff; stroke: #d5d9de; } text { fill: #24292f; font: 13px system-ui, -apple-system, 'Segoe UI', \
    sans-serif; }\n    .head { font-weight: 600; } .small { font-size: 11px; fill: #59636e; } .other { fill: #a4adb8; } \
    .ours { fill: #c2410c; }\n    .own { font-weight: 600; } .spread { stroke: #24292f; stroke-width: 1; opacity: .55; }\n    \
    @media (prefers-color-scheme: dark) {\n      .ground { fill: #0d1117; stroke: #30363d; } text { fill: #e6edf3; } \
    .small { fill: #9198a1; }\n      .other { fill: #6b7683; } .ours { fill: #f0883e; } .spread { stroke: #e6edf3; }\n    }\n";

/// One column of bars.
struct Panel {
    left: f64,
    head: &'static str,
    note: &'static str,
    values: Vec<Vec<f64>>,
    digits: usize,
}

/// The picture; `None` where nothing of the main setup was measured.
pub(crate) fn draw(part: &Connections) -> Option<String> {
    let rows: Vec<&Row> = part.rows.iter().filter(|row| row.setup == MAIN).collect();
    if rows.is_empty() {
        return None;
    }
    let height = TOP + rows.len() as f64 * ROW_HEIGHT + FOOT;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" role=\"img\" aria-labelledby=\"title\">\n  <title id=\"title\">{}</title>\n  \
         <style>\n{STYLE}  </style>\n  <rect class=\"ground\" x=\".5\" y=\".5\" width=\"{}\" height=\"{}\" \
         rx=\"8\"/>\n",
        escape(&in_words(&rows)),
        WIDTH - 1.0,
        height - 1.0
    );
    for (n, row) in rows.iter().enumerate() {
        let class = if is_ours(row) { " class=\"own\"" } else { "" };
        let (x, y) = (LABEL_WIDTH, middle(n) + 4.5);
        let _ = writeln!(svg, "  <text{class} x=\"{x}\" y=\"{y}\" text-anchor=\"end\">{}</text>", label(row));
    }
    for panel in panels(&rows) {
        svg += &bars(&rows, &panel);
    }
    let rounds = rows.iter().map(|row| row.rounds.len()).max().unwrap_or(0);
    let foot = format!(
        "{}, {} clients on the same machine; bars: median of {rounds} rounds in turns, lines: lowest to highest",
        MAIN.title(),
        part.clients
    );
    let _ = writeln!(svg, "  <text class=\"small\" x=\"16\" y=\"{}\">{}</text>\n</svg>", height - 14.0, escape(&foot));
    Some(svg)
}

fn panels(rows: &[&Row]) -> [Panel; 2] {
    let left = LABEL_WIDTH + 10.0;
    let of = |figure: fn(&super::data::Round) -> f64| -> Vec<Vec<f64>> {
        rows.iter().map(|row| row.rounds.iter().map(figure).collect()).collect()
    };
    [
        Panel {
            left,
            head: "Connections per second",
            note: "more is better",
            values: of(|round| round.rate),
            digits: 0,
        },
        Panel {
            left: left + PANEL_WIDTH + GAP,
            head: "Master CPU, µs per connection",
            note: "less is better",
            values: of(|round| round.cpu_us),
            digits: 1,
        },
    ]
}

fn bars(rows: &[&Row], panel: &Panel) -> String {
    let most = panel.values.iter().flatten().copied().fold(0.0, f64::max);
    let scale = if most > 0.0 { (PANEL_WIDTH - VALUE_WIDTH) / most } else { 0.0 };
    let mut svg = format!(
        "  <text class=\"head\" x=\"{0}\" y=\"30\">{1}</text>\n  <text class=\"small\" x=\"{0}\" y=\"48\">{2}</text>\n",
        panel.left, panel.head, panel.note
    );
    for (n, (row, values)) in rows.iter().zip(&panel.values).enumerate() {
        let (value, (low, high)) = (median(values), range(values));
        let (class, own) = if is_ours(row) { ("ours", " class=\"own\"") } else { ("other", "") };
        let (x, y, digits) = (panel.left, middle(n), panel.digits);
        let (low, high, long) = (x + low * scale, x + high * scale, (value * scale).max(1.0));
        let _ = writeln!(
            svg,
            "  <rect class=\"{class}\" x=\"{x}\" y=\"{:.1}\" width=\"{long:.1}\" height=\"{BAR_HEIGHT}\" rx=\"2\"/>",
            y - BAR_HEIGHT / 2.0,
        );
        if high - low >= 1.0 {
            let _ = writeln!(
                svg,
                "  <line class=\"spread\" x1=\"{low:.1}\" x2=\"{high:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>"
            );
        }
        let _ = writeln!(
            svg,
            "  <text{own} x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            high.max(x + long) + 6.0,
            y + 4.5,
            grouped(value, digits)
        );
    }
    svg
}

/// Middle of a row.
fn middle(n: usize) -> f64 {
    TOP + (n as f64 + 0.5) * ROW_HEIGHT
}

fn is_ours(row: &Row) -> bool {
    row.tool.name.starts_with("clusterd")
}

fn label(row: &Row) -> String {
    escape(&row.tool.label)
}

/// For those who do not see it.
fn in_words(rows: &[&Row]) -> String {
    let each: Vec<String> = rows
        .iter()
        .map(|row| {
            let rates: Vec<f64> = row.rounds.iter().map(|round| round.rate).collect();
            format!("{} {}", row.tool.label, grouped(median(&rates), 0))
        })
        .collect();
    format!("Connections per second: {}", each.join("; "))
}

/// Thousands apart.
fn grouped(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut out = String::new();
    for (n, digit) in whole.chars().enumerate() {
        if n > 0 && (whole.len() - n).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out + rest
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
