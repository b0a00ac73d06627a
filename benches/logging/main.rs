//! Lines of output per second of CPU time, beside PM2: `cargo bench --bench logging [-- --quick]`.
//!
//! The same Node app prints the same lines at the same pace below PM2 (cluster and fork mode) and below clusterd, in
//! turns; into log files, plain and with time stamps. What it costs is the CPU time of everything that runs, the app
//! too: PM2's cluster mode writes its files in the app's own process. Beside it stands the app alone, into /dev/null. PM2 comes from
//! npm, into `bench-deps` below the target folder. Bounded, and ends by itself.
#![allow(clippy::print_stdout)] // The table is the point.
#[path = "../support/mod.rs"]
#[allow(dead_code)]
mod support;

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::processes;
use support::servers::new_folder;
use support::stats::{median, spread};

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// Who writes the lines.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Writer {
    /// Nobody: /dev/null.
    Alone,
    Pm2Cluster,
    Pm2Fork,
    Clusterd,
}

impl Writer {
    fn name(self) -> &'static str {
        match self {
            Writer::Alone => "the app alone, to /dev/null",
            Writer::Pm2Cluster => "PM2, cluster mode",
            Writer::Pm2Fork => "PM2, fork mode",
            Writer::Clusterd => "clusterd",
        }
    }
}

/// How much is printed, and how often it is done again.
#[derive(Clone, Copy)]
struct Plan {
    lines: usize,
    lines_per_ms: usize,
    rounds: usize,
}

fn main() {
    let quick = std::env::args().any(|arg| arg == "--quick");
    let plan = if quick {
        Plan { lines: 20_000, lines_per_ms: 10, rounds: 1 }
    } else {
        Plan { lines: 100_000, lines_per_ms: 10, rounds: 5 }
    };
    let _all = processes::end_together();
    let pm2 = support::pm2::install();
    if let Err(why) = &pm2 {
        println!("PM2: {why}; its rows are left out");
    }
    println!("{} lines of 100 bytes, one worker; medians of {}, with their spread\n", plan.lines, plan.rounds);
    for stamped in [false, true] {
        table(plan, pm2.as_deref().ok(), stamped);
    }
}

/// All writers in turns; then a row of each.
fn table(plan: Plan, pm2: Option<&Path>, stamped: bool) {
    let mut writers = vec![Writer::Alone, Writer::Clusterd];
    if pm2.is_some() {
        writers.extend([Writer::Pm2Cluster, Writer::Pm2Fork]);
    }
    let mut cost_us: Vec<Vec<f64>> = vec![Vec::new(); writers.len()];
    for _ in 0..plan.rounds {
        for (writer, costs) in writers.iter().zip(&mut cost_us) {
            costs.push(round(*writer, pm2, plan, stamped));
        }
    }
    println!("{}", if stamped { "with time stamps" } else { "plain" });
    let alone = median(&cost_us[0]);
    let own = median(&cost_us[1]);
    for (writer, costs) in writers.iter().zip(&cost_us) {
        let cost = median(costs);
        let all: Vec<f64> = costs.iter().map(|cost| cost / 1000.0).collect();
        print!(
            "  {:<28} {:>8.0} lines per CPU second ({} ms in all)",
            writer.name(),
            plan.lines as f64 / cost * 1e6,
            spread(&all, 0)
        );
        if *writer != Writer::Alone {
            print!("; {:.0} ms more than the app alone", (cost - alone) / 1000.0);
        }
        if matches!(writer, Writer::Pm2Cluster | Writer::Pm2Fork) {
            print!("; clusterd: {:.1} times its lines (goal: 3)", cost / own);
        }
        println!();
    }
}

/// One run; the CPU time of everything, in microseconds, from the first line to the last one in its file.
fn round(writer: Writer, pm2: Option<&Path>, plan: Plan, stamped: bool) -> f64 {
    let folder = new_folder().expect("a folder");
    let (go, log) = (folder.join("go"), folder.join("app.log"));
    let app = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/apps/lines.js");
    let mut command = match writer {
        Writer::Alone => {
            let mut node = Command::new("node");
            node.arg(&app);
            node
        }
        Writer::Clusterd => {
            let text = format!(
                "[[app]]\nname = \"lines\"\ncommand = [\"node\", \"{}\"]\nworkers = 1\nready = \"1ms\"\n\
                 [app.log]\nfile = \"{}\"\ntime = {stamped}\n",
                app.display(),
                log.display()
            );
            let file = folder.join("c.toml");
            fs::write(&file, text).expect("a configuration");
            let mut clusterd = Command::new(env!("CARGO_BIN_EXE_clusterd"));
            clusterd.arg("-c").arg(file).env("CLUSTERD_HOME", &folder);
            clusterd
        }
        Writer::Pm2Cluster | Writer::Pm2Fork => {
            let mut node = Command::new("node");
            node.arg(pm2.expect("PM2")).env("PM2_HOME", &folder).env("PM2_DISABLE_VERSION_CHECK", "true");
            node.arg("start").arg(&app).args(["--merge-logs", "-o"]).arg(&log).arg("-e").arg(folder.join("err"));
            if writer == Writer::Pm2Cluster {
                node.args(["-i", "1"]);
            }
            if stamped {
                node.arg("--time");
            }
            node
        }
    };
    command.env("LINES", plan.lines.to_string()).env("LINES_PER_MS", plan.lines_per_ms.to_string()).env("GO", &go);
    let said = File::create(folder.join("said")).expect("a file");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said);
    let mut child = command.spawn().unwrap_or_else(|e| panic!("{}: {e}", writer.name()));
    if matches!(writer, Writer::Pm2Cluster | Writer::Pm2Fork) {
        let ended = child.wait().expect("an end of pm2 start");
        assert!(ended.success(), "pm2 start: {}", fs::read_to_string(folder.join("said")).unwrap_or_default());
    }
    // Started, and at rest: what the start costs is another question.
    std::thread::sleep(Duration::from_secs(2));
    let own = std::process::id() as i32;
    let before = processes::cpu_us(&processes::below(own));
    File::create(&go).expect("a file");
    wait_for_lines(writer, &log, plan);
    let used = processes::cpu_us(&processes::below(own)) - before;
    processes::end_all();
    // Reaped already, most likely.
    let _ = child.wait();
    // It can be looked at as long as it is there; then it only takes space.
    let _ = fs::remove_dir_all(&folder);
    used
}

/// Until every line is in its file; of the app alone, whose lines nobody sees, as long as it takes to print them.
fn wait_for_lines(writer: Writer, log: &Path, plan: Plan) {
    let until = Instant::now() + PATIENCE;
    if writer == Writer::Alone {
        // Twice the time that its pace asks for: afterwards it costs nothing.
        std::thread::sleep(Duration::from_millis(1000 + 3 * (plan.lines / plan.lines_per_ms) as u64));
        return;
    }
    loop {
        std::thread::sleep(Duration::from_millis(100));
        let length = fs::metadata(log).map_or(0, |metadata| metadata.len());
        if length >= (plan.lines * 100) as u64 {
            let lines = fs::read(log).map_or(0, |text| text.iter().filter(|byte| **byte == b'\n').count());
            if lines >= plan.lines {
                return;
            }
        }
        assert!(Instant::now() < until, "{}: {length} bytes of log after {PATIENCE:?}", writer.name());
    }
}
