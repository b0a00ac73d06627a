//! `clusterd save` writes down the deployments in the background, for `resurrect`; `clusterd cleardump` forgets them.
use crate::cli::apply::fail;
use crate::cli::target::known;
use crate::home::Entry;
use clap::Args;
use std::path::Path;
use std::process::ExitCode;

/// Write down what is in the background, for resurrect (also: dump)
#[derive(Args, Clone, Debug, PartialEq)]
#[command(alias = "dump")]
pub struct Save {}

impl Save {
    pub(super) fn run(&self, home: Option<&Path>) -> ExitCode {
        let known = match known(home) {
            Ok(known) => known,
            Err(error) => return fail(error),
        };
        let mut entries: Vec<Entry> = Vec::new();
        let mut foreground = Vec::new();
        let mut failed = false;
        for entry in known.home.entries() {
            match entry {
                Ok(entry) if entry.background => entries.push(entry),
                Ok(entry) => foreground.push(entry.name),
                Err(error) => {
                    log::error!("{error}");
                    failed = true;
                }
            }
        }
        if !foreground.is_empty() {
            log::info!("not saved, because it runs in the foreground: {}", foreground.join(", "));
        }
        let apps: usize = entries.iter().map(|entry| entry.apps.len()).sum();
        match known.home.save(entries) {
            Ok(path) => log::info!("saved {apps} {} in {}", if apps == 1 { "app" } else { "apps" }, path.display()),
            Err(error) => return fail(error),
        }
        if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}

/// Forget what was saved: resurrect then starts nothing
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Cleardump {}

impl Cleardump {
    pub(super) fn run(&self, home: Option<&Path>) -> ExitCode {
        match known(home).and_then(|known| Ok(known.home.save(Vec::new())?)) {
            Ok(path) => {
                log::info!("{} is empty", path.display());
                ExitCode::SUCCESS
            }
            Err(error) => fail(error),
        }
    }
}
