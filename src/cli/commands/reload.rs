//! `clusterd reload`: replaces every worker, one app after the other, and none of an app that depends on one that was not reloaded.
use crate::api::request::Target;
use crate::api::types::{AppStatus, Deployment};
use crate::api::{Change, Request};
use crate::cli::apply::{Concurrency, Outcome};
use crate::cli::client::{self, Answered, PROGRESS_EVERY_MS};
use crate::cli::error::CommandError;
use crate::cli::launch;
use crate::cli::progress::Progress;
use crate::cli::renew::RenewArgs;
use crate::cli::rollout::Renewal;
use crate::cli::target::Found;
use clap::Args;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// Replace every worker, one at a time, losing no connection
#[derive(Args, Clone, Debug, PartialEq)]
#[command(aliases = ["gracefulReload", "graceful-reload"])]
pub struct Reload {
    #[command(flatten)]
    pub renew: RenewArgs,
}

impl Reload {
    pub(super) fn run(&self, home: Option<&Path>) -> ExitCode {
        self.renew.run(home, Renewal::Reload, Concurrency::WhileDependenciesSucceed, |_, found| {
            found.living()?;
            let env = self.renew.update_env.then(launch::own_environment);
            reload_app(found, Change { env, sources: None })
        })
    }
}

/// Reloads an app and waits for the end.
pub(in crate::cli) fn reload_app(found: &Found, change: Change) -> Outcome {
    let before = client::look(&found.socket)?;
    let mut progress = Progress::of_reload(&before, &found.app);
    let request = Request::Reload { target: Target::App(found.app.clone()), change };
    reload_by(found, &before, &mut progress, &request)
}

/// Sends a request that reloads an app, and waits for the end.
pub(super) fn reload_by(found: &Found, before: &Deployment, progress: &mut Progress, request: &Request) -> Outcome {
    match client::send_watched(&found.socket, request, progress) {
        Answered::Master(answer) => Ok(answer?),
        Answered::Lost => follow_successor(found, before, progress),
    }
}

/// The master with the request died: its successor continues the reload, so wait for that.
fn follow_successor(found: &Found, before: &Deployment, progress: &mut Progress) -> Outcome {
    log::warn!("{}: its master crashed and was started again; the reload continues", found.app);
    let state = |deployment: &Deployment| {
        deployment.apps.iter().find(|app| app.name == found.app).map(|app| (app.status, app.generation))
    };
    let generation_before = state(before).map(|(_, generation)| generation);
    loop {
        let now = client::look(&found.socket)?;
        progress.look(Ok(&now));
        match state(&now) {
            Some((AppStatus::Reloading, _)) => std::thread::sleep(Duration::from_millis(PROGRESS_EVERY_MS)),
            Some((_, generation)) if generation_before.is_none_or(|before| generation > before) => {
                return Ok(format!("reloaded {}", found.app));
            }
            Some(_) => return Err(CommandError::NotReloaded),
            None => return Err(CommandError::Gone),
        }
    }
}
