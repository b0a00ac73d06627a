//! clusterd beside the tools that people use today: `benches/run`, which installs them and runs this.
//!
//! Two parts: what a connection costs (`connections.rs`), and what clients see when something changes (`changes.rs`).
//! Everything is measured in turns, because ratios within one run count; absolute figures depend on the machine. A whole
//! run writes `docs/performance.md`, `docs/comparison.svg` and the README's place for it, from data that it also leaves
//! below `target/`. Loopback only, bounded, ends by itself and with everything that it started.
#![allow(clippy::print_stdout)] // The table is the point.
mod changes;
mod connections;
mod data;
mod page;
mod picture;
mod plan;
mod programs;
#[path = "../support/mod.rs"]
#[allow(dead_code)]
mod support;
mod table;

use data::Report;
use plan::{Plan, Wanted};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;
use support::servers::Tool;
use support::{processes, stats};

/// What the second part is about; the others hand nothing out, or cannot do these things.
const CHANGED: [Tool; 4] = [Tool::NodeRoundRobin, Tool::Pm2, Tool::RoundRobin, Tool::Kernel];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    support::be_one_of_them(&args);
    let wanted = Wanted::parse(&args).unwrap_or_else(|why| {
        eprintln!("{why}\n{}", plan::USAGE);
        std::process::exit(2);
    });
    if let Err(why) = run(&wanted) {
        eprintln!("{why}");
        std::process::exit(1);
    }
}

fn run(wanted: &Wanted) -> Result<(), String> {
    let kept = kept_folder()?.join("report.json");
    if wanted.draw {
        let text = fs::read_to_string(&kept)
            .map_err(|e| format!("{}: {e}: a whole run leaves its figures there; start one first", kept.display()))?;
        let report = serde_json::from_str(&text).map_err(|e| format!("{}: {e}", kept.display()))?;
        return write(&report, true);
    }
    let report = measured(wanted);
    let shown = texts(&report);
    shown.iter().for_each(|(_, text)| println!("\n{text}"));
    if wanted.for_docs() {
        let text = serde_json::to_string(&report).map_err(|e| e.to_string())?;
        fs::write(&kept, text).map_err(|e| format!("{}: {e}", kept.display()))?;
    }
    write(&report, wanted.for_docs())
}

fn measured(wanted: &Wanted) -> Report {
    let _end = processes::end_together();
    let start = Instant::now();
    let plan = if wanted.quick { Plan::quick() } else { Plan::full() };
    let programs = programs::find();
    let mut report = Report { machine: programs::machine(&programs), ..Report::default() };
    if programs::busy() > 0.5 {
        println!(
            "other work is running on this machine (load {:.1}): the figures will not be worth much",
            programs::busy()
        );
    }
    if wanted.has("connections") {
        report.connections = Some(connections::run(&plan, &wanted.among(&Tool::ALL), &programs));
    }
    if wanted.has("changes") {
        report.changes = Some(changes::run(&plan, &wanted.among(&CHANGED), &programs));
    }
    println!("measured in {:.0} s", start.elapsed().as_secs_f64());
    report
}

/// The places of the page, and what goes there.
fn texts(report: &Report) -> Vec<(&'static str, String)> {
    let machine = table::machine(report);
    let connections = report.connections.as_ref().map(|part| ("connections", table::connections(part)));
    let changes = report.changes.as_ref().map(|part| ("changes", table::changes(part)));
    connections.into_iter().chain(changes).map(|(name, text)| (name, format!("{machine}\n{text}"))).collect()
}

/// Fills the pages in: those of the project, or copies of them below `target/`.
fn write(report: &Report, for_docs: bool) -> Result<(), String> {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let to = if for_docs { project.to_owned() } else { kept_folder()? };
    let put = |name: &str, text: &str| -> Result<(), String> {
        let path = to.join(name);
        fs::create_dir_all(path.parent().unwrap_or(&to)).map_err(|e| format!("{}: {e}", path.display()))?;
        fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
        println!("written: {}", path.display());
        Ok(())
    };
    let filled = |name: &str, texts: &[(&str, String)]| -> Result<String, String> {
        let mut page = fs::read_to_string(project.join(name)).map_err(|e| format!("{name}: {e}"))?;
        for (place, text) in texts {
            page = page::fill(&page, place, text).map_err(|e| format!("{name}: {e}"))?;
        }
        Ok(page)
    };
    let mut places = texts(report);
    if let Some(svg) = report.connections.as_ref().and_then(picture::draw) {
        put("docs/comparison.svg", &svg)?;
        put("README.md", &filled("README.md", &[("picture", shown("docs/comparison.svg"))])?)?;
        places.push(("picture", shown("comparison.svg")));
    }
    put("docs/performance.md", &filled("docs/performance.md", &places)?)
}

fn shown(path: &str) -> String {
    format!("![Connections per second, and CPU time per connection, of clusterd and other tools]({path})")
}

/// Where figures and trial pages are kept.
fn kept_folder() -> Result<PathBuf, String> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap_or(Path::new("target"));
    let folder = target.join("compare");
    fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    Ok(folder)
}
