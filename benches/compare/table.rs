//! The report as Markdown. Pure: data in, text out.
use super::data::{Change, Changes, Connections, MAIN, Missing, Report, Round, Row, Seen, Setup};
use super::stats::{median, range};
use std::fmt::Write;

/// A figure of a round, and how it is written.
type Figure = (&'static str, fn(&Round) -> f64, fn(f64) -> String);

const FIGURES: [Figure; 7] = [
    ("per second", |round| round.rate, whole),
    ("p50 ms", |round| round.p50_ms, ms),
    ("p99 ms", |round| round.p99_ms, ms),
    ("master CPU µs", |round| round.cpu_us, tenth),
    ("workers CPU µs", |round| round.workers_cpu_us, tenth),
    ("master MiB", |round| round.memory_mib, tenth),
    ("least/most served", |round| round.fairness, hundredth),
];

/// The machine, for people.
pub(crate) fn machine(report: &Report) -> String {
    let facts: Vec<String> = report.machine.iter().map(|(name, value)| format!("{name} {value}")).collect();
    format!("Measured on: {}.\n", facts.join("; "))
}

/// The first part: the main table, its ratios, and the other setups.
pub(crate) fn connections(part: &Connections) -> String {
    let rounds = part.rows.iter().map(|row| row.rounds.len()).max().unwrap_or(0);
    let mut text = format!(
        "{} clients over loopback; {rounds} {} of {} s for each row, in turns. Median (lowest to highest).\n\n",
        part.clients,
        if rounds == 1 { "round" } else { "rounds" },
        part.seconds,
    );
    let _ = writeln!(text, "**{}**\n", capital(&MAIN.title()));
    text += &setup(part, MAIN);
    text += &ratios(part);
    text += &missing(&part.missing);
    let others = others(part);
    if !others.is_empty() {
        let _ = writeln!(text, "\n<details><summary>Other setups: {}</summary>", others.len());
        for other in others {
            let _ = write!(text, "\n**{}**\n\n{}", capital(&other.title()), setup(part, other));
        }
        text += "\n</details>\n";
    }
    text
}

/// Setups besides the main one, in the order in which they were measured.
fn others(part: &Connections) -> Vec<Setup> {
    let mut found: Vec<Setup> = Vec::new();
    for row in &part.rows {
        if row.setup != MAIN && !found.contains(&row.setup) {
            found.push(row.setup);
        }
    }
    found
}

/// One table: a row for each tool that was measured.
fn setup(part: &Connections, setup: Setup) -> String {
    let heads: Vec<&str> = FIGURES.iter().map(|(head, ..)| *head).collect();
    let mut text = format!("| what | {} | failed |\n|---|{}---:|\n", heads.join(" | "), "---:|".repeat(heads.len()));
    for row in part.rows.iter().filter(|row| row.setup == setup) {
        let cells: Vec<String> = FIGURES.iter().map(|(_, of, write)| figure(row, *of, *write)).collect();
        let failed: u64 = row.rounds.iter().map(|round| round.failed).sum();
        let _ = writeln!(text, "| {} | {} | {failed} |", row.tool.label, cells.join(" | "));
    }
    text
}

/// Median and spread; the latter only where there is one.
fn figure(row: &Row, of: fn(&Round) -> f64, write: fn(f64) -> String) -> String {
    let values: Vec<f64> = row.rounds.iter().map(of).filter(|value| value.is_finite()).collect();
    if values.is_empty() {
        return "–".to_owned();
    }
    let (low, high) = range(&values);
    let (middle, low, high) = (write(median(&values)), write(low), write(high));
    if low == high { middle } else { format!("{middle} ({low} to {high})") }
}

/// What the targets are put in, since absolute figures depend on the machine.
fn ratios(part: &Connections) -> String {
    let of = |name: &str, of: fn(&Round) -> f64| middle(part, name, of).filter(|value| *value > 0.0);
    let (rate, cpu) = (|round: &Round| round.rate, |round: &Round| round.cpu_us);
    let columns = [
        ("rate / Node round-robin", of("node", rate)),
        ("rate / Node shared", of("node-shared", rate)),
        ("rate / least primary", of("least", rate)),
        ("CPU / floor", of("floor", cpu)),
        ("CPU / Node round-robin", of("node", cpu)),
    ];
    let mut text = String::from("\nThe same as ratios of medians:\n\n| what |");
    columns.iter().for_each(|(head, _)| {
        let _ = write!(text, " {head} |");
    });
    let _ = write!(text, "\n|---|{}\n", "---:|".repeat(columns.len()));
    for row in part.rows.iter().filter(|row| row.setup == MAIN) {
        let own = [rate, rate, rate, cpu, cpu].map(|figure| of(&row.tool.name, figure));
        let _ = write!(text, "| {} |", row.tool.label);
        for (own, (_, base)) in own.iter().zip(&columns) {
            let cell = own.zip(*base).map_or("–".to_owned(), |(own, base)| hundredth(own / base));
            let _ = write!(text, " {cell} |");
        }
        text.push('\n');
    }
    text
}

/// A tool's median in the main setup.
fn middle(part: &Connections, name: &str, of: fn(&Round) -> f64) -> Option<f64> {
    let row = part.rows.iter().find(|row| row.setup == MAIN && row.tool.name == name)?;
    Some(median(&row.rounds.iter().map(of).collect::<Vec<f64>>()))
}

fn missing(all: &[Missing]) -> String {
    if all.is_empty() {
        return String::new();
    }
    let each: Vec<String> = all.iter().map(|one| format!("{} ({})", one.label, one.why)).collect();
    format!("\nNot measured: {}.\n", each.join("; "))
}

/// The second part: what clients saw.
pub(crate) fn changes(part: &Changes) -> String {
    let mut text = format!("{} clients, {} workers, a request at a time each.\n", part.clients, part.workers);
    for change in Change::ALL {
        let rows: Vec<&Seen> = part.seen.iter().filter(|seen| seen.change == change).collect();
        if rows.is_empty() {
            continue;
        }
        let _ = writeln!(text, "\n**{}**\n", capital(change.title()));
        text += "| what | connections | times | answered | refused | reset | cut | hung | closed at rest | longest \
                 silence |\n|---|---|---:|---:|---:|---:|---:|---:|---:|---:|\n";
        for seen in rows {
            let shape = if seen.kept { "kept-alive" } else { "short" };
            let silence = seen.silence_ms.map_or("never again".to_owned(), |silence| format!("{silence:.0} ms"));
            let _ = writeln!(
                text,
                "| {} | {shape} | {} | {} | {} | {} | {} | {} | {} | {silence} |",
                seen.tool.label, seen.times, seen.answered, seen.refused, seen.reset, seen.cut, seen.hung, seen.closed,
            );
        }
    }
    text += &missing(&part.missing);
    text
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

fn whole(value: f64) -> String {
    format!("{value:.0}")
}

fn tenth(value: f64) -> String {
    format!("{value:.1}")
}

fn hundredth(value: f64) -> String {
    format!("{value:.2}")
}

/// Milliseconds with three digits that mean something.
fn ms(value: f64) -> String {
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$}")
}
