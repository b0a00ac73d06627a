//! Tables and the picture (SVG: latency by load) of `benches/latency`, and the places of docs/performance.md that they
//! go to. Pure, except for `write`.
use super::LEVELS;
use super::open::Mix;
use crate::support::servers::Tool;
use crate::support::stats::{median, spread};
use std::fmt::Write;
use std::fs;
use std::path::Path;

#[path = "../compare/page.rs"]
mod places;

/// One server at one level in one round.
pub(crate) struct Cell {
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) failed: u64,
    pub(crate) closed: u64,
}

/// One number of workers, mix of requests and kind of connection.
pub(crate) struct Table {
    pub(crate) workers: usize,
    pub(crate) mix: Mix,
    pub(crate) kept: bool,
    /// Requests a second at 100 per cent.
    pub(crate) most: f64,
    /// Of each level in each round.
    pub(crate) seconds: f64,
    /// Per server, its rounds; each has a cell per level.
    pub(crate) rows: Vec<(Tool, Vec<Vec<Cell>>)>,
}

impl Table {
    fn title(&self) -> String {
        let kind = if self.kept { "kept" } else { "short" };
        format!("{}, {kind} connections, {} workers", self.mix.title(), self.workers)
    }

    fn rounds(&self) -> usize {
        self.rows.iter().map(|(_, rounds)| rounds.len()).max().unwrap_or(0)
    }

    /// Median over the rounds of a row.
    fn of(&self, row: usize, level: usize, value: fn(&Cell) -> f64) -> Vec<f64> {
        self.rows[row].1.iter().filter_map(|round| round.get(level)).map(value).collect()
    }

    fn p99(&self, tool: Tool, level: usize) -> Option<f64> {
        let row = self.rows.iter().position(|(it, _)| *it == tool)?;
        Some(median(&self.of(row, level, |cell| cell.p99_ms)))
    }
}

/// p50 and p99 at each level, in milliseconds.
pub(crate) fn text(table: &Table) -> String {
    let mut text = format!("**{}**; 100 % are {:.0} requests a second\n\n| what |", table.title(), table.most);
    for level in LEVELS {
        let _ = write!(text, " {level} % |");
    }
    text += " failed |\n|---|";
    text += &"---:|".repeat(LEVELS.len() + 1);
    text.push('\n');
    for (row, (tool, rounds)) in table.rows.iter().enumerate() {
        let _ = write!(text, "| {} |", tool.label());
        for level in 0..LEVELS.len() {
            let (p50, p99) = (table.of(row, level, |cell| cell.p50_ms), table.of(row, level, |cell| cell.p99_ms));
            let _ = write!(text, " {:.2} / {:.2} ({}) |", median(&p50), median(&p99), spread(&p99, 2));
        }
        let cells = || rounds.iter().flatten();
        let (failed, closed) =
            (cells().map(|cell| cell.failed).sum::<u64>(), cells().map(|cell| cell.closed).sum::<u64>());
        let closed = if closed > 0 { format!(", {closed} closed at rest") } else { String::new() };
        let _ = writeln!(text, " {failed}{closed} |");
    }
    text
}

/// Each balance's p99 by the best of Node's primary, Node shared and PM2: the worst of its rows up to 70 %.
pub(crate) fn verdict(tables: &[Table]) -> String {
    const OTHERS: [Tool; 3] = [Tool::NodeRoundRobin, Tool::NodeShared, Tool::Pm2];
    let mut text =
        "p99 by the best of Node's primary, Node's shared and PM2, where measured, at 10 to 70 %:\n\n| what | rows | not over 1.1 \
                    | best | worst |\n|---|---:|---:|---:|---|\n"
            .to_owned();
    for tool in [Tool::RoundRobin, Tool::Sticky, Tool::Shared, Tool::Kernel] {
        let mut ratios = Vec::new();
        for table in tables {
            for (level, per_cent) in LEVELS.into_iter().enumerate().take(LEVELS.len() - 1) {
                let best = OTHERS.iter().filter_map(|&other| table.p99(other, level)).fold(f64::INFINITY, f64::min);
                if let Some(own) = table.p99(tool, level)
                    && best.is_finite()
                {
                    let kind = if table.kept { "kept" } else { "short" };
                    let mix = table.mix.name();
                    let row = format!("{mix}, {kind}, {} workers, {per_cent} %", table.workers);
                    ratios.push((own / best, row));
                }
            }
        }
        let Some(worst) = ratios.iter().max_by(|a, b| a.0.total_cmp(&b.0)) else { continue };
        let within = ratios.iter().filter(|(ratio, _)| *ratio <= 1.1).count();
        let best = ratios.iter().filter(|(ratio, _)| *ratio <= 1.0).count();
        let _ = writeln!(
            text,
            "| {} | {} | {within} | {best} | {:.2} ({}) |",
            tool.label(),
            ratios.len(),
            worst.0,
            worst.1
        );
    }
    text
}

/// Prints where the picture went; with `docs` puts everything into docs/performance.md.
///
/// # Errors
/// The file that could not be read or written.
pub(crate) fn write(tables: &[Table], docs: bool) -> Result<(), String> {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let picture = if docs { project.join("docs/latency.svg") } else { target.join("latency.svg") };
    fs::write(&picture, draw(tables)).map_err(|e| format!("{}: {e}", picture.display()))?;
    println!("written: {}", picture.display());
    if !docs {
        return Ok(());
    }
    let path = project.join("docs/performance.md");
    let page = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let (seconds, rounds) = tables.first().map_or((0.0, 0), |table| (table.seconds, table.rounds()));
    let mut all = format!(
        "{rounds} rounds of {seconds:.0} s for each level, in turns. p50 / p99 in milliseconds: medians of the rounds (p99: \
         lowest to highest).\n\n![p99 by load, of clusterd and other tools](latency.svg)\n\n{}\n<details><summary>The \
         tables</summary>\n\n",
        verdict(tables)
    );
    for table in tables {
        all += &text(table);
        all.push('\n');
    }
    all += "</details>";
    let page = places::fill(&page, "latency", &all).map_err(|e| format!("docs/performance.md: {e}"))?;
    fs::write(&path, page).map_err(|e| format!("{}: {e}", path.display()))
}

// ---- the picture ----

const PANEL_WIDTH: f64 = 330.0;
const PANEL_HEIGHT: f64 = 190.0;
const MARGIN: f64 = 46.0;
const TOP: f64 = 40.0;
const FOOT: f64 = 58.0;
/// Who is drawn, and how.
const DRAWN: [(Tool, &str); 6] = [
    (Tool::NodeRoundRobin, "node"),
    (Tool::NodeShared, "node-shared"),
    (Tool::Pm2, "pm2"),
    (Tool::RoundRobin, "rr"),
    (Tool::Kernel, "kernel"),
    (Tool::Shared, "shared"),
];
const STYLE: &str = "\
    .ground { fill: #ffffff; stroke: #d5d9de; } text { fill: #24292f; font: 12px system-ui, -apple-system, 'Segoe UI', \
    sans-serif; }\n    .head { font-weight: 600; } .small { font-size: 10px; fill: #59636e; } .axis { stroke: #8b949e; \
    stroke-width: .6; }\n    polyline { fill: none; stroke-width: 1.8; } .node { stroke: #6b7683; } .node-shared { stroke: \
    #6b7683; stroke-dasharray: 5 3; }\n    .pm2 { stroke: #8250df; } .rr { stroke: #c2410c; } .kernel { stroke: #0969da; } \
    .shared { stroke: #1a7f37; }\n    @media (prefers-color-scheme: dark) { .ground { fill: #0d1117; stroke: #30363d; } text \
    { fill: #e6edf3; } .small { fill: #9198a1; } }\n";

/// A panel for each table of the fewest workers; the axis of latency is logarithmic.
fn draw(tables: &[Table]) -> String {
    let workers = tables.iter().map(|table| table.workers).min().unwrap_or(0);
    let shown: Vec<&Table> = tables.iter().filter(|table| table.workers == workers).collect();
    let lines = shown.len().div_ceil(2);
    let (width, height) = (2.0 * (PANEL_WIDTH + MARGIN) + 24.0, lines as f64 * (PANEL_HEIGHT + FOOT) + TOP + 24.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         role=\"img\" aria-labelledby=\"title\">\n  <title id=\"title\">p99 by load, {workers} workers</title>\n  \
         <style>\n{STYLE}  </style>\n  <rect class=\"ground\" x=\".5\" y=\".5\" width=\"{}\" height=\"{}\" rx=\"8\"/>\n",
        width - 1.0,
        height - 1.0
    );
    let measured = |tool: Tool| shown.iter().any(|table| table.rows.iter().any(|(it, _)| *it == tool));
    for (n, (tool, class)) in DRAWN.iter().filter(|(tool, _)| measured(*tool)).enumerate() {
        let x = 20.0 + n as f64 * 124.0;
        let _ = writeln!(
            svg,
            "  <polyline class=\"{class}\" points=\"{x},20 {},20\"/><text x=\"{}\" y=\"24\">{}</text>",
            x + 20.0,
            x + 25.0,
            short(*tool)
        );
    }
    for (n, table) in shown.iter().enumerate() {
        let left = MARGIN + (n % 2) as f64 * (PANEL_WIDTH + MARGIN);
        let top = TOP + 24.0 + (n / 2) as f64 * (PANEL_HEIGHT + FOOT);
        panel(&mut svg, table, left, top);
    }
    svg + "</svg>\n"
}

fn short(tool: Tool) -> &'static str {
    match tool {
        Tool::NodeRoundRobin => "Node's primary",
        Tool::NodeShared => "Node shared",
        Tool::Pm2 => "PM2",
        Tool::RoundRobin => "round-robin",
        Tool::Kernel => "kernel",
        Tool::Shared => "shared",
        other => other.label(),
    }
}

fn panel(svg: &mut String, table: &Table, left: f64, top: f64) {
    let values = |tool: Tool| -> Vec<f64> { (0..LEVELS.len()).filter_map(|level| table.p99(tool, level)).collect() };
    let all: Vec<f64> = DRAWN.iter().flat_map(|(tool, _)| values(*tool)).filter(|value| value.is_finite()).collect();
    let low = all.iter().copied().fold(f64::INFINITY, f64::min).max(0.01).log10().floor();
    let high = all.iter().copied().fold(0.1, f64::max).log10().ceil().max(low + 1.0);
    let y = |ms: f64| top + PANEL_HEIGHT - (ms.max(0.01).log10() - low) / (high - low) * PANEL_HEIGHT;
    let x = |level: u32| left + f64::from(level) / 100.0 * PANEL_WIDTH;
    let title = format!("{}, {}", table.mix.name(), if table.kept { "kept connections" } else { "short connections" });
    let _ = writeln!(svg, "  <text class=\"head\" x=\"{left}\" y=\"{}\">{title}: p99, ms</text>", top - 8.0);
    let mut power = low;
    while power <= high {
        let (at, label) = (y(10_f64.powf(power)), 10_f64.powf(power));
        let _ = writeln!(
            svg,
            "  <line class=\"axis\" x1=\"{left}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/><text class=\"small\" x=\"{}\" \
             y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            left + PANEL_WIDTH,
            left - 5.0,
            at + 3.5
        );
        power += 1.0;
    }
    for level in LEVELS {
        let _ = writeln!(
            svg,
            "  <text class=\"small\" x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{level} %</text>",
            x(level),
            top + PANEL_HEIGHT + 14.0
        );
    }
    for (tool, class) in DRAWN {
        let points: Vec<String> =
            values(tool).iter().zip(LEVELS).map(|(&ms, level)| format!("{:.1},{:.1}", x(level), y(ms))).collect();
        if !points.is_empty() {
            let _ = writeln!(svg, "  <polyline class=\"{class}\" points=\"{}\"/>", points.join(" "));
        }
    }
}
