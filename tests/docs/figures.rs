//! The figures of the README and of the comparison are computed from the measured tables of the docs. `UPDATE=1 cargo test --test docs` writes them.
use crate::pages::{root, text};
use std::fs;

const BEGIN: &str = "<!-- figures -->\n";
const END: &str = "<!-- end of figures -->\n";

/// The rows of the first table behind these words, cell by cell, without its head.
fn table<'a>(page: &'a str, behind: &str) -> Vec<Vec<&'a str>> {
    let (_, rest) = page.split_once(behind).unwrap_or_else(|| panic!("no {behind:?}"));
    let lines = rest.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let rows: Vec<Vec<&str>> =
        lines.skip(2).map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect();
    assert!(!rows.is_empty(), "no table behind {behind:?}");
    rows
}

fn number(cell: &str) -> u64 {
    cell.replace(',', "").parse().unwrap_or_else(|_| panic!("{cell:?} is not a whole number"))
}

fn of_tool<'a, 'b>(rows: &'b [Vec<&'a str>], tool: &str) -> Vec<&'b Vec<&'a str>> {
    let found: Vec<_> = rows.iter().filter(|row| row[0].starts_with(tool)).collect();
    assert!(!found.is_empty(), "no row of {tool}");
    found
}

/// The sum of a column over the rows of a tool.
fn sum(rows: &[Vec<&str>], tool: &str, column: usize) -> u64 {
    of_tool(rows, tool).iter().map(|row| number(row[column])).sum()
}

/// As people read it: 359,711.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let from_behind: Vec<&[u8]> = digits.as_bytes().rchunks(3).rev().collect();
    from_behind.into_iter().map(|group| std::str::from_utf8(group).unwrap()).collect::<Vec<_>>().join(",")
}

/// `5.2 (5.0 to 5.3)`: the median.
fn median(cell: &str) -> &str {
    cell.split(' ').next().unwrap()
}

fn figures(performance: &str, reliability: &str) -> String {
    let proxied = table(performance, "32 clients of nginx");
    let failed = |tool| format!("{} of {}", grouped(sum(&proxied, tool, 3)), grouped(sum(&proxied, tool, 2)));

    let killed = table(performance, "**SIGKILL of the primary, daemon or master**");
    // Refused, reset, cut and hung.
    let lost: u64 = (4..=7).map(|column| sum(&killed, "clusterd", column)).sum();
    let silence = of_tool(&killed, "clusterd").iter().map(|row| number(row[9].trim_end_matches(" ms"))).max().unwrap();
    let ends = |tool| {
        let is_end = of_tool(&killed, tool).iter().all(|row| row[9] == "never again");
        assert!(is_end, "{tool} answers again: say here when");
        "nobody answers again"
    };
    let kills = table(reliability, "A thousand kills each");
    let total = |column: usize| kills.iter().map(|row| number(row[column])).sum::<u64>();

    let costs = table(performance, "**Short connections, hello, 2 workers**");
    let of = |tool, column: usize| median(of_tool(&costs, tool)[0][column]).to_owned();
    let cost = |tool| format!("{} µs, {} MiB", of(tool, 4), of(tool, 6));
    [
        "| | clusterd | Node's `cluster` | PM2 |".to_owned(),
        "|---|---|---|---|".to_owned(),
        format!(
            "| **Reloads** behind nginx, under load: answers that are a 502 | {} | {} | {} |",
            failed("clusterd"),
            failed("Node cluster"),
            failed("PM2")
        ),
        format!(
            "| **The master is killed** under load | {lost} requests lost, the next answer within {silence} ms; {} lost of {} in {} \
             kills | {} | {} |",
            total(3) + total(4) + total(5),
            grouped(total(2)),
            grouped(total(1)),
            ends("Node cluster"),
            ends("PM2")
        ),
        format!(
            "| **Cost**: CPU time of the master for a connection, and its memory | {} | {} | {} |",
            cost("clusterd, round-robin"),
            cost("Node cluster, round-robin"),
            cost("PM2")
        ),
    ]
    .map(|line| line + "\n")
    .concat()
}

#[test]
fn the_figures_on_the_pages_are_those_that_were_measured() {
    let wanted = figures(&text("docs/performance.md"), &text("docs/reliability.md"));
    for page in ["README.md", "docs/comparison.md"] {
        let is = text(page);
        let (before, rest) = is.split_once(BEGIN).unwrap();
        let (figures, after) = rest.split_once(END).unwrap();
        if std::env::var_os("UPDATE").is_some() {
            fs::write(root().join(page), format!("{before}{BEGIN}{wanted}{END}{after}")).unwrap();
        } else {
            assert_eq!(figures, wanted, "{page}: UPDATE=1 cargo test --test docs");
        }
    }
}

#[test]
fn a_table_is_read_and_added_up() {
    let page = "words\n\n| a | b |\n|---|---:|\n| x, one | 1200 |\n| x, two | 34 |\n| y | 5 |\n\n| z | 1 |\n";
    let rows = table(page, "words");
    assert_eq!((rows.len(), sum(&rows, "x", 1), sum(&rows, "y", 1)), (3, 1234, 5));
    assert_eq!([grouped(0), grouped(999), grouped(1234), grouped(1_234_567)], ["0", "999", "1,234", "1,234,567"]);
}
