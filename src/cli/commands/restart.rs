//! `clusterd restart`: stops apps and starts them; one that is stopped just starts.
use crate::api::{Change, Request};
use crate::cli::apply::Concurrency;
use crate::cli::launch;
use crate::cli::renew::RenewArgs;
use crate::cli::rollout::Renewal;
use clap::Args;
use std::path::Path;
use std::process::ExitCode;

/// Stop every worker, then start them again; connections wait meanwhile
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Restart {
    #[command(flatten)]
    pub renew: RenewArgs,
}

impl Restart {
    pub(super) fn run(&self, home: Option<&Path>) -> ExitCode {
        self.renew.run(home, Renewal::Restart, Concurrency::Parallel, |known, found| {
            let change = Change { env: self.renew.update_env.then(launch::own_environment), sources: None };
            match found.view {
                Some(_) => launch::request_ready(found, &Request::Restart { app: found.app.clone(), change }),
                None => launch::revive(&known.home, &found.deployment, |app| app == found.app, change),
            }
        })
    }
}
