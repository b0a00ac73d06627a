//! The recording on the README: `recording.md` beside this file is run like a page, and drawn as a terminal in which one command
//! comes after the other. `UPDATE=1 cargo test --test docs -- --ignored` runs it and draws it.
use crate::lines::typed;
use crate::markdown::Page;
use crate::pages::{root, text};
use crate::sessions;
use std::fmt::Write;
use std::fs;

pub(crate) const SESSION: &str = "tests/docs/recording.md";
const PICTURE: &str = "docs/recording.svg";

const COLUMNS: usize = 100;
const COLUMN_PX: f64 = 7.83;
const LINE_PX: usize = 19;
const MARGIN_PX: usize = 16;
/// From a command to what it prints, and from there to the next command, for a line each that has to be read.
const RUNS_S: f64 = 0.7;
const STEP_S: f64 = 0.9;
const LINE_READ_S: f64 = 0.25;

const STYLE: &str = "\
  text { font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace; fill: #c9d1d9; white-space: pre; }
  .typed { fill: #ffffff; font-weight: 600; }
  .why { fill: #8b949e; font-weight: 400; }
  .prompt { fill: #3fb950; }
  .late { animation: show 0.01s both; }
  @keyframes show { from { visibility: hidden; } to { visibility: visible; } }
  @media (prefers-reduced-motion: reduce) { .late { animation: none; } }
";

struct Line {
    text: String,
    is_typed: bool,
    /// When it appears, in seconds from the beginning.
    at: f64,
}

/// The lines of a session, with their times.
fn lines(page: &Page) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut now = 0.3;
    for block in page.blocks.iter().filter(|block| block.language() == "console") {
        let commands: Vec<usize> = typed(block).into_iter().map(|(line, _)| line - block.line).collect();
        let mut printed = 0;
        for (n, text) in block.lines.iter().enumerate() {
            let is_typed = commands.contains(&n);
            if is_typed {
                now += if lines.is_empty() { 0.0 } else { STEP_S + LINE_READ_S * f64::from(printed) };
                printed = 0;
            } else if printed == 0 {
                now += RUNS_S;
            }
            printed += i32::from(!is_typed);
            // As a terminal does with a line that is too long.
            let all: Vec<char> = text.chars().collect();
            let parts = all.chunks(COLUMNS).enumerate();
            lines.extend(parts.map(|(n, part)| Line {
                text: part.iter().collect(),
                is_typed: is_typed && n == 0,
                at: now,
            }));
        }
    }
    lines
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn draw(page: &Page) -> String {
    let lines = lines(page);
    let width = (COLUMNS as f64 * COLUMN_PX) as usize + 2 * MARGIN_PX;
    let height = lines.len() * LINE_PX + 2 * MARGIN_PX;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         role=\"img\" aria-label=\"A terminal with clusterd\">\n<style>\n{STYLE}</style>\n\
         <rect width=\"{width}\" height=\"{height}\" rx=\"8\" fill=\"#0d1117\"/>\n"
    );
    for (n, line) in lines.iter().enumerate() {
        let y = MARGIN_PX + n * LINE_PX + 13;
        let text = match (line.is_typed, line.text.strip_prefix("$ ")) {
            (true, Some(command)) => {
                let (command, why) = command.split_once("  # ").unwrap_or((command, ""));
                let why = if why.is_empty() {
                    String::new()
                } else {
                    format!("  <tspan class=\"why\"># {}</tspan>", escaped(why))
                };
                format!("<tspan class=\"prompt\">$ </tspan><tspan class=\"typed\">{}{why}</tspan>", escaped(command))
            }
            _ => escaped(&line.text),
        };
        let at = line.at;
        writeln!(
            svg,
            "<text class=\"late\" style=\"animation-delay: {at:.2}s\" x=\"{MARGIN_PX}\" y=\"{y}\" xml:space=\"preserve\">{text}</text>"
        )
        .unwrap();
    }
    svg + "</svg>\n"
}

/// Compares the picture with the session; with UPDATE it is drawn.
fn check_picture() {
    let drawn = draw(&Page::read(&text(SESSION)));
    if std::env::var_os("UPDATE").is_some() {
        fs::write(root().join(PICTURE), &drawn).unwrap();
    }
    assert!(text(PICTURE) == drawn, "{PICTURE} is not what {SESSION} says: UPDATE=1 cargo test --test docs");
}

#[test]
fn the_picture_is_drawn_from_the_session() {
    check_picture();
}

#[test]
fn a_line_that_is_too_long_is_wrapped() {
    let page = Page::read(&format!("```console\n$ one\n{}\n```\n", "x".repeat(COLUMNS + 1)));
    let lengths: Vec<usize> = lines(&page).iter().map(|line| line.text.len()).collect();
    assert_eq!(lengths, [5, COLUMNS, 1]);
}

#[test]
fn a_line_appears_after_the_one_above_it() {
    let page = Page::read("```console\n$ one <x>  # why\n1\n2\n$ two\n```\n");
    let lines = lines(&page);
    let times: Vec<f64> = lines.iter().map(|line| line.at).collect();
    assert!(times.is_sorted() && times[1] > times[0] && times[2] <= times[1] && times[3] > times[2], "{times:?}");
    let svg = draw(&page);
    assert!(svg.contains(">one &lt;x&gt;  <tspan class=\"why\"># why</tspan></tspan></text>"), "{svg}");
    assert_eq!(svg.matches("<text").count(), 4);
}

#[test]
#[ignore = "runs the session, which takes seconds"]
fn the_session_prints_what_the_picture_shows() {
    sessions::check(SESSION);
    check_picture();
}
