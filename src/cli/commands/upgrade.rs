//! `clusterd upgrade`: has another binary take over whole deployments.
use crate::api::Request;
use crate::api::types::{Deployment, Upgrade as State};
use crate::cli::apply::{self, Outcome, fail};
use crate::cli::client::{self, Answered, LOOK_TRIES_MAX, PROGRESS_EVERY_MS};
use crate::cli::error::CommandError;
use crate::cli::progress::{Progress, Wait};
use crate::cli::target::Found;
use clap::Args;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Have another clusterd binary take over what runs, losing nothing
#[derive(Args, Clone, Debug, PartialEq)]
#[command(aliases = ["update", "updatePM2", "deepUpdate"])]
pub struct Upgrade {
    /// A name, an id, a namespace, "/a pattern/" or "all"
    #[arg(default_value = "all", value_name = "TARGET")]
    pub targets: Vec<String>,
    /// The new binary [default: the one that this command is]
    #[arg(long, value_name = "PATH")]
    pub binary: Option<PathBuf>,
}

impl Upgrade {
    pub(super) fn run(&self, home: Option<&Path>) -> ExitCode {
        let binary = self.binary.as_ref().map_or_else(std::env::current_exe, std::path::absolute);
        match binary {
            Ok(path) => {
                let binary = path.display().to_string();
                apply::for_each_deployment(home, &self.targets, |found| upgrade(found, &binary))
            }
            Err(error) => fail(CommandError::NoBinary(error)),
        }
    }
}

fn upgrade(found: &Found, binary: &str) -> Outcome {
    found.living()?;
    let number = |deployment: &Deployment| deployment.upgrade.as_ref().map_or(0, |upgrade| upgrade.number);
    let before = number(&client::look(&found.socket)?);
    let mut progress = Progress::new(Wait::Other, &found.deployment);
    let request = Request::Upgrade { binary: binary.to_owned() };
    match client::send_watched(&found.socket, &request, &mut progress) {
        Answered::Master(answer) => drop(answer?),
        // Its successor knows whether the upgrade began.
        Answered::Lost => {}
    }
    let mut serves = None;
    for _ in 0..LOOK_TRIES_MAX {
        let now = client::look(&found.socket)?;
        match now.upgrade.filter(|upgrade| upgrade.number > before) {
            Some(State { ok: Some(false), message, .. }) => return Err(CommandError::Upgrade(message)),
            // The keeper follows a moment later, unless its version cannot.
            Some(State { ok: Some(true), keeper: None, message, .. }) if !now.keeper_version.is_empty() => {
                serves = Some(message);
            }
            Some(State { ok: Some(true), message, .. }) => return Ok(message),
            Some(_) | None => progress.tell("the new binary takes over"),
        }
        std::thread::sleep(Duration::from_millis(PROGRESS_EVERY_MS));
    }
    match serves {
        Some(message) => Ok(format!("{message}; whether the keeper follows is not known yet")),
        None => Err(CommandError::UpgradeUnknown),
    }
}
