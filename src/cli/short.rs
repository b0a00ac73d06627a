//! `clusterd ls --short`: a row per app, also of those that are gone or whose master does not answer.
use super::list::colour;
use super::target::{Found, Known};
use super::units::{cpu_time, fit, size};
use crate::api::types::App;
use std::fmt::Write as _;

const HEADINGS: [&str; 9] = ["ID", "NAME", "NAMESPACE", "STATUS", "READY", "RESTARTS", "CPU", "MEMORY", "ADDRESS"];
/// Words stand to the left, numbers to the right.
const WORDS: [bool; 9] = [false, true, true, true, false, false, false, false, true];
/// Columns of texts that may be cut.
const ELASTIC: [usize; 3] = [1, 2, 8];
const STATUS: usize = 3;
/// Between two columns.
const GAP: usize = 2;
/// Narrower is no column cut.
const ELASTIC_MIN: usize = 4;

type Row = [String; 9];

/// The table; with `columns`, cut to fit a terminal as wide as that.
pub(super) fn table(known: &Known, columns: Option<usize>, colours: bool) -> String {
    let mut rows: Vec<Row> = known.all().iter().map(row).collect();
    rows.extend(known.silent().into_iter().map(|(id, name)| bare(id, name, "no answer")));
    lay_out(&rows, columns, colours)
}

fn row(found: &Found) -> Row {
    match &found.view {
        Some(app) => of(app),
        None => bare(found.id, found.app.clone(), "gone"),
    }
}

fn of(app: &App) -> Row {
    let sum = |number: fn(&crate::api::types::Worker) -> Option<u64>| {
        app.workers.iter().filter_map(number).reduce(|a, b| a + b)
    };
    let dash = || "-".to_owned();
    let address = match app.listen.as_slice() {
        [] => dash(),
        [one] => one.clone(),
        [first, rest @ ..] => format!("{first} +{}", rest.len()),
    };
    [
        app.id.map_or_else(dash, |id| id.to_string()),
        app.name.clone(),
        app.namespace.clone(),
        app.status.to_string(),
        format!("{}/{}", app.workers_ready, app.workers_wanted),
        app.restarts.to_string(),
        sum(|worker| worker.cpu_ms).map_or_else(dash, cpu_time),
        sum(|worker| worker.memory_bytes).map_or_else(dash, size),
        address,
    ]
}

/// An app of which no more is known.
fn bare(id: Option<u32>, name: String, status: &str) -> Row {
    let dash = || "-".to_owned();
    let id = id.map_or_else(dash, |id| id.to_string());
    [id, name, dash(), status.to_owned(), dash(), dash(), dash(), dash(), dash()]
}

fn lay_out(rows: &[Row], columns: Option<usize>, colours: bool) -> String {
    let mut widths = HEADINGS.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    if let Some(columns) = columns {
        narrow(&mut widths, columns);
    }
    let mut text = String::new();
    line(&mut text, &HEADINGS.map(str::to_owned), &widths, None);
    for row in rows {
        line(&mut text, row, &widths, colour(&row[STATUS]).filter(|_| colours));
    }
    text
}

/// Takes from the widest text until the rows fit, or no text can give more.
fn narrow(widths: &mut [usize; 9], columns: usize) {
    let total = |widths: &[usize; 9]| widths.iter().sum::<usize>() + GAP * (widths.len() - 1);
    while total(widths) > columns {
        let widest = ELASTIC.into_iter().max_by_key(|&n| widths[n]).unwrap_or(1);
        if widths[widest] <= ELASTIC_MIN {
            return;
        }
        widths[widest] -= 1;
    }
}

fn line(text: &mut String, row: &Row, widths: &[usize; 9], status: Option<&str>) {
    for (n, (cell, &width)) in row.iter().zip(widths).enumerate() {
        let cell = fit(cell, width, '~');
        let padded = if WORDS[n] { format!("{cell:<width$}") } else { format!("{cell:>width$}") };
        let gap = if n == 0 { 0 } else { GAP };
        // Writing to a String cannot fail.
        let _ = match status.filter(|_| n == STATUS) {
            Some(code) => write!(text, "{:gap$}\x1b[{code}m{padded}\x1b[0m", ""),
            None => write!(text, "{:gap$}{padded}", ""),
        };
    }
    text.truncate(text.trim_end_matches(' ').len());
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::samples;

    #[test]
    fn rows_are_aligned_and_fit_a_terminal() {
        let usual = [
            of(&samples::app("web", vec![samples::worker(0), samples::worker(1)])),
            bare(Some(7), "api".into(), "gone"),
        ];
        let text = lay_out(&usual, Some(80), false);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "ID  NAME  NAMESPACE  STATUS   READY  RESTARTS   CPU  MEMORY  ADDRESS",
                " 0  web   default    running    2/2         0  2.0s    100M  0.0.0.0:8080",
                " 7  api   -          gone         -         -     -       -  -",
            ]
        );
        assert!(lay_out(&usual, None, true).contains("\x1b[32mrunning\x1b[0m  "));
    }

    #[test]
    fn long_texts_are_cut_on_a_terminal_and_whole_elsewhere() {
        let mut app = samples::app(&"x".repeat(64), vec![samples::worker(0); 500]);
        app.namespace = "n".repeat(64);
        app.id = Some(1023);
        app.status = crate::api::types::AppStatus::Reloading;
        app.restarts = 12_345_678;
        app.listen = vec!["[2001:db8::1234:5678]:65535".to_owned(), "unix:/a".to_owned()];
        let text = lay_out(&[of(&app)], Some(80), false);
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
        for word in ["xxx~", "nnn~", "500/500", "12345678", "[200"] {
            assert!(text.contains(word), "{word}\n{text}");
        }
        let whole = lay_out(&[of(&app)], None, false);
        assert!(whole.contains(&app.name) && whole.contains("[2001:db8::1234:5678]:65535 +1"), "{whole}");
    }
}
