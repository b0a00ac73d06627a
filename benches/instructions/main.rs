//! A guard: how many instructions of our own a hand-off takes. `cargo bench -p instructions [-- --record]`.
//!
//! `script` hands connections off without a system, so the count depends on the code and its compiler alone and is the
//! same each time. It runs under valgrind's callgrind at two lengths; their difference, divided, is one hand-off without
//! the start. More than `GROWTH_MAX_PERCENT` above the figure in `recorded.txt` fails. What the kernel does is not seen here:
//! that is `cargo bench --bench handoff`.
#![allow(clippy::print_stdout)] // The figures are the point.
mod script;

use script::{App, CASES, Case};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Growth that passes, in percent.
const GROWTH_MAX_PERCENT: f64 = 5.0;
/// Hand-offs of the two runs of each case. As many digits each, so that the arguments are equally long.
const COUNTS: [u64; 2] = [20_000, 80_000];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["script", name, count] => play(name, count),
        [] => report(false),
        ["--record"] => report(true),
        _ => Err(format!("what is {args:?}? Known: --record")),
    }
    .unwrap_or_else(|problem| {
        println!("{problem}");
        ExitCode::FAILURE
    })
}

/// What runs under callgrind.
fn play(name: &str, count: &str) -> Result<ExitCode, String> {
    let case = CASES.iter().find(|case| case.name == name).ok_or("no such case")?;
    let count = count.parse().map_err(|e| format!("{count}: {e}"))?;
    let closed = App::new(case).run_to(count);
    if closed == count { Ok(ExitCode::SUCCESS) } else { Err(format!("{closed} of {count} hand-offs were closed")) }
}

fn report(record: bool) -> Result<ExitCode, String> {
    let compiler = compiler()?;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("recorded.txt");
    let mut recorded = Recorded::read(&path)?;
    let mut failed = Vec::new();
    println!("instructions per hand-off, {compiler}\n");
    println!("| what | recorded | now | |\n|---|---|---|---|");
    for case in &CASES {
        let now = per_handoff(case)?;
        let key = format!("{compiler} {}", case.name);
        let before = recorded.figures.insert(key, now);
        let said = match before {
            Some(before) => {
                let percent = (now / before - 1.0) * 100.0;
                if percent > GROWTH_MAX_PERCENT {
                    failed.push(format!("{} takes {percent:.1} % more instructions than recorded", case.name));
                }
                format!("{before:.1} | {now:.1} | {percent:+.1} %")
            }
            None => {
                failed.push(format!("no figure of {} is recorded for {compiler}", case.name));
                format!("none | {now:.1} |")
            }
        };
        println!("| {} | {said} |", case.name);
    }
    if record {
        return recorded.write(&path).map(|()| ExitCode::SUCCESS);
    }
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    Err(format!(
        "\n{}.\nWhere they are: callgrind_annotate {}/*.out. If they are worth it (or the compiler is a new one): cargo \
         bench -p instructions -- --record",
        failed.join("; "),
        folder()?.display()
    ))
}

/// Instructions of one hand-off.
fn per_handoff(case: &Case) -> Result<f64, String> {
    let [short, long] = COUNTS;
    let more = instructions(case, long)?.checked_sub(instructions(case, short)?);
    let more = more.ok_or("the longer run took fewer instructions")?;
    // One digit: what a figure in a file of a repository is good for.
    Ok((more as f64 / (long - short) as f64 * 10.0).round() / 10.0)
}

/// Instructions of a whole run.
fn instructions(case: &Case, count: u64) -> Result<u64, String> {
    let out = folder()?.join(format!("{}-{count}.out", case.name));
    let mut to_file = std::ffi::OsString::from("--callgrind-out-file=");
    to_file.push(&out);
    let own = std::env::current_exe().map_err(|e| format!("own path: {e}"))?;
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--quiet"]).arg(to_file).arg(own).args(["script", case.name, &count.to_string()]);
    // The size of the environment moves the stack, and with it how memory is copied.
    let path = std::env::var_os("PATH").unwrap_or_default();
    let run = command.env_clear().env("PATH", path).output();
    let run = run.map_err(|e| format!("cannot run valgrind: {e} (Debian: apt-get install valgrind)"))?;
    if !run.status.success() {
        return Err(format!("valgrind: {}\n{}", run.status, String::from_utf8_lossy(&run.stderr)));
    }
    let text = std::fs::read_to_string(&out).map_err(|e| format!("{}: {e}", out.display()))?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals: ")).and_then(|n| n.trim().parse().ok());
    total.ok_or_else(|| format!("{} names no total", out.display()))
}

/// Where callgrind's files go.
fn folder() -> Result<PathBuf, String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("instructions");
    std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    Ok(folder)
}

/// Version and target of the compiler: each has figures of its own.
fn compiler() -> Result<String, String> {
    let said = Command::new("rustc").arg("-vV").output().map_err(|e| format!("cannot run rustc: {e}"))?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let field = |name: &str| said.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    match (field("release:"), field("host:")) {
        (Some(release), Some(host)) => Ok(format!("{release} {host}")),
        _ => Err(format!("rustc -vV says: {said}")),
    }
}

/// The file of figures: compiler, target, case, instructions.
struct Recorded {
    figures: BTreeMap<String, f64>,
}

impl Recorded {
    fn read(path: &Path) -> Result<Recorded, String> {
        let text = match std::fs::read_to_string(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            other => other.map_err(|e| format!("{}: {e}", path.display()))?,
        };
        let mut figures = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let figure = line.rsplit_once(' ').and_then(|(key, figure)| Some((key.to_owned(), figure.parse().ok()?)));
            let (key, figure) = figure.ok_or_else(|| format!("{}: what is \"{line}\"?", path.display()))?;
            figures.insert(key, figure);
        }
        Ok(Recorded { figures })
    }

    fn write(&self, path: &Path) -> Result<(), String> {
        let mut text = "# Instructions per hand-off by compiler, target and case. Written by\n\
                        # cargo bench -p instructions -- --record\n"
            .to_owned();
        for (key, figure) in &self.figures {
            text.push_str(&format!("{key} {figure:.1}\n"));
        }
        std::fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
    }
}
