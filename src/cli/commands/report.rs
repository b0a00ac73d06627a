//! `clusterd report`: what a bug report needs. No environment, no arguments of apps: they may be secrets.
use crate::cli::apply::{fail, print};
use crate::cli::target::{Known, known};
use crate::os::{cpu, process, user};
use clap::Args;
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, ExitCode};

/// Print what a bug report needs: versions, limits, the state of apps; no secrets
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Report {}

impl Report {
    pub(super) fn run(&self, home: Option<&Path>) -> ExitCode {
        match known(home) {
            Ok(known) => print(&text(&known)),
            Err(error) => fail(error),
        }
    }
}

fn text(known: &Known) -> String {
    let first_line = |path: &str| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().next().unwrap_or_default().to_owned()
    };
    let os = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let os =
        os.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or_default().trim_matches('"').to_owned();
    let node = Command::new("node").arg("--version").output().ok();
    let node = node.and_then(|output| String::from_utf8(output.stdout).ok()).unwrap_or_default();
    let limit = process::file_limit().map_or_else(|e| e.to_string(), |limit| format!("{limit:?}"));
    let rows = [
        ("clusterd", env!("CARGO_PKG_VERSION").to_owned()),
        ("system", format!("{os}, Linux {}", first_line("/proc/sys/kernel/osrelease"))),
        ("CPUs", cpu::available().count.to_string()),
        ("node", node.trim().to_owned()),
        ("user id", user::own_uid().to_string()),
        ("open files", limit),
        ("home", known.home.path().display().to_string()),
    ];
    let mut text: String = rows.iter().map(|(label, value)| format!("{label:<12}{value}\n")).collect();
    for master in &known.masters {
        match &master.deployment {
            Err(error) => text.push_str(&format!("\n{}: {error}\n", master.name)),
            Ok(deployment) => {
                let (version, restarts) = (&deployment.version, deployment.master_restarts);
                // Writing to a String cannot fail.
                let _ = writeln!(text, "\n{}: version {version}, master started again {restarts} times", master.name);
                for app in &deployment.apps {
                    let _ = writeln!(
                        text,
                        "  {}: {}, {}/{} ready, {} {}{}, ready by {}, generation {}, restarts {}",
                        app.name,
                        app.status,
                        app.workers_ready,
                        app.workers_wanted,
                        app.protocol,
                        app.balance,
                        if app.balance_why.is_some() { " (auto)" } else { "" },
                        app.ready,
                        app.generation,
                        app.restarts
                    );
                }
            }
        }
    }
    text.extend(known.dead.iter().map(|entry| format!("\n{}: its keeper was killed\n", entry.name)));
    text
}
