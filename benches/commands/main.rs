//! What commands cost beside PM2: `cargo bench --bench commands [-- --quick]`.
//!
//! `start`, `ls` and `restart all` with 1, 20 and 100 apps, in turns with PM2 in one run. Every app is `sleep`, so that what is
//! measured is the manager. Beside the time of the command stands the CPU time of everything that runs meanwhile: the command,
//! its manager and the apps. A deployment of clusterd has at most 64 apps, so 100 of them are two files; PM2 gets the same
//! two. PM2 comes from npm, into `bench-deps` below the target folder. Bounded, and ends by itself.
#![allow(clippy::print_stdout)] // The table is the point.
#[path = "../support/mod.rs"]
#[allow(dead_code)]
mod support;

use nix::sys::resource::{UsageWho, getrusage};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::processes;
use support::servers::new_folder;
use support::stats::{median, spread};

/// Apps of one file.
const APPS_PER_FILE: usize = 50;
/// How long a manager has to come to rest after a command.
const REST: Duration = Duration::from_millis(500);
/// Commands that are measured, in the order in which they run.
const COMMANDS: [&str; 3] = ["start", "ls", "restart"];
/// `ls` is short, and is run so many times.
const LS_RUNS: usize = 5;

/// Who runs the apps.
#[derive(Clone)]
enum Manager {
    Clusterd,
    Pm2(PathBuf),
}

impl Manager {
    fn name(&self) -> &'static str {
        match self {
            Manager::Clusterd => "clusterd",
            Manager::Pm2(_) => "PM2",
        }
    }

    fn command(&self, home: &Path, args: &[&str]) -> Command {
        let mut command = match self {
            Manager::Clusterd => Command::new(env!("CARGO_BIN_EXE_clusterd")),
            Manager::Pm2(program) => {
                let mut node = Command::new("node");
                node.arg(program);
                node
            }
        };
        command.args(args).env("CLUSTERD_HOME", home).env("PM2_HOME", home).current_dir(home);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    /// Runs a command that has to work.
    fn run(&self, home: &Path, args: &[&str]) {
        let ended = self.command(home, args).output().expect("the command");
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.success(), "{} {args:?}: {said}", self.name());
    }

    /// Writes the files of so many apps; their names.
    fn write_files(&self, home: &Path, apps: usize) -> Vec<String> {
        let all: Vec<usize> = (0..apps).collect();
        let write = |(number, some): (usize, &[usize])| {
            let (name, text) = match self {
                Manager::Clusterd => {
                    let app = |n: &usize| {
                        format!("[[app]]\nname = \"app-{n}\"\ncommand = [\"sleep\", \"100000\"]\nready = \"1ms\"\n")
                    };
                    (format!("apps-{number}.toml"), some.iter().map(app).collect::<String>())
                }
                Manager::Pm2(_) => {
                    let app = |n: &usize| {
                        serde_json::json!({ "name": format!("app-{n}"), "script": "sleep", "args": "100000",
                            "interpreter": "none" })
                    };
                    let apps: Vec<_> = some.iter().map(app).collect();
                    (format!("apps-{number}.json"), serde_json::json!({ "apps": apps }).to_string())
                }
            };
            fs::write(home.join(&name), text).expect("a file");
            name
        };
        all.chunks(APPS_PER_FILE).enumerate().map(write).collect()
    }
}

/// What one command has cost, in milliseconds.
#[derive(Clone, Copy)]
struct Cost {
    time_ms: f64,
    cpu_ms: f64,
}

/// The CPU time of everything below this process, what has ended included, in milliseconds.
fn cpu_ms() -> f64 {
    let ended = getrusage(UsageWho::RUSAGE_CHILDREN).expect("the usage of children");
    let ms = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 * 1e3 + time.tv_usec() as f64 / 1e3;
    let living = processes::cpu_us(&processes::below(std::process::id() as i32));
    ms(ended.user_time()) + ms(ended.system_time()) + living / 1e3
}

/// Measures `act`, `times` times; the cost of one.
fn measure(times: usize, act: impl Fn()) -> Cost {
    let (cpu, start) = (cpu_ms(), Instant::now());
    (0..times).for_each(|_| act());
    let time_ms = start.elapsed().as_secs_f64() * 1e3 / times as f64;
    std::thread::sleep(REST);
    Cost { time_ms, cpu_ms: (cpu_ms() - cpu) / times as f64 }
}

/// One manager with so many apps: the cost of each of [`COMMANDS`].
fn round(manager: &Manager, apps: usize) -> [Cost; 3] {
    let home = new_folder().expect("a folder");
    let files = manager.write_files(&home, apps);
    let start = measure(1, || files.iter().for_each(|file| manager.run(&home, &["start", file])));
    let ls = measure(LS_RUNS, || manager.run(&home, &["ls"]));
    let restart = measure(1, || manager.run(&home, &["restart", "all"]));
    manager.run(&home, &["kill"]);
    processes::end_all();
    let _ = fs::remove_dir_all(&home);
    [start, ls, restart]
}

fn main() {
    let quick = std::env::args().any(|arg| arg == "--quick");
    let (counts, rounds): (&[usize], usize) = if quick { (&[1, 3], 1) } else { (&[1, 20, 100], 3) };
    let _all = processes::end_together();
    let mut managers = vec![Manager::Clusterd];
    match support::pm2::install() {
        Ok(program) => managers.push(Manager::Pm2(program)),
        Err(why) => println!("PM2: {why}; its rows are left out"),
    }
    println!("medians of {rounds}, with their spread; CPU time of everything that runs\n");
    for &apps in counts {
        let mut costs: Vec<Vec<[Cost; 3]>> = vec![Vec::new(); managers.len()];
        for _ in 0..rounds {
            managers.iter().zip(&mut costs).for_each(|(manager, all)| all.push(round(manager, apps)));
        }
        for (at, command) in COMMANDS.iter().enumerate() {
            let mut first = None;
            for (manager, costs) in managers.iter().zip(&costs) {
                let times: Vec<f64> = costs.iter().map(|all| all[at].time_ms).collect();
                let cpu: Vec<f64> = costs.iter().map(|all| all[at].cpu_ms).collect();
                let own = *first.get_or_insert(median(&times));
                let against = match manager {
                    Manager::Clusterd => String::new(),
                    Manager::Pm2(_) => format!("; {:.1} times clusterd's time", median(&times) / own),
                };
                let (name, times, cpu) = (manager.name(), spread(&times, 0), spread(&cpu, 0));
                println!("  {command:<8} {apps:>3} apps  {name:<9} {times:>18} ms, CPU {cpu:>18} ms{against}");
            }
        }
    }
}
