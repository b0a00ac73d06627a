//! `clusterd restart`: stops apps and starts them; one that is stopped just starts.
use crate::api::{Change, Request};
use crate::cli::apply::{self, Concurrency};
use crate::cli::launch;
use clap::Args;
use std::path::Path;
use std::process::ExitCode;

/// Stop every worker, then start them again; connections wait meanwhile
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Restart {
    /// A name, an id, a namespace, "/a pattern/" or "all"
    #[arg(required = true, value_name = "TARGET")]
    pub targets: Vec<String>,
    /// With the environment of this command instead of that of the start
    #[arg(long)]
    pub update_env: bool,
}

impl Restart {
    pub(super) fn run(&self, home: Option<&Path>) -> ExitCode {
        apply::for_each_app(home, &self.targets, Concurrency::Parallel, |known, found| {
            let change = Change { env: self.update_env.then(launch::own_environment), sources: None };
            match found.view {
                Some(_) => launch::request_ready(found, &Request::Restart { app: found.app.clone(), change }),
                None => launch::revive(&known.home, &found.deployment, Some(&found.app), change),
            }
        })
    }
}
