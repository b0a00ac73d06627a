//! `clusterd pid` and `clusterd id`: numbers of apps, for scripts.
use crate::cli::apply::{fail, print};
use crate::cli::target::{Found, known};
use clap::Args;
use std::path::Path;
use std::process::ExitCode;

/// Print the pids of workers, a line each
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Pid {
    /// A name, an id, a namespace, "/a pattern/" or "all"; one worker: web/0
    #[arg(default_value = "all", value_name = "TARGET")]
    pub targets: Vec<String>,
}

/// Print the ids of apps: [ 0, 1 ]
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Id {
    /// A name, an id, a namespace, "/a pattern/" or "all"
    #[arg(required = true, value_name = "TARGET")]
    pub targets: Vec<String>,
}

/// The apps that the targets name, in order.
fn named(home: Option<&Path>, targets: &[String]) -> Result<Vec<Found>, ExitCode> {
    let known = known(home).map_err(fail)?;
    let mut all = Vec::new();
    for target in targets {
        if !(target == "all" && known.all().is_empty()) {
            all.extend(known.find(target).map_err(fail)?);
        }
    }
    Ok(all)
}

impl Pid {
    pub(super) fn run(&self, home: Option<&Path>) -> ExitCode {
        let apps = match named(home, &self.targets) {
            Ok(apps) => apps,
            Err(code) => return code,
        };
        let pids: Vec<i32> = apps.iter().flat_map(Found::workers).filter_map(|worker| worker.pid).collect();
        print(&pids.iter().map(|pid| format!("{pid}\n")).collect::<String>())
    }
}

impl Id {
    pub(super) fn run(&self, home: Option<&Path>) -> ExitCode {
        let apps = match named(home, &self.targets) {
            Ok(apps) => apps,
            Err(code) => return code,
        };
        let ids: Vec<String> = apps.iter().filter_map(|found| found.id).map(|id| id.to_string()).collect();
        print(&format!("[ {} ]\n", ids.join(", ")))
    }
}
