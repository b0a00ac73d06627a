//! `clusterd stop`: ends the workers of apps; in the background they can be started again.
use crate::api::Request;
use crate::api::request::{StopMode, Target};
use crate::api::types::AppStatus;
use crate::cli::apply::{self, Concurrency, Outcome};
use crate::cli::ending;
use crate::cli::error::CommandError;
use crate::cli::target::Found;
use crate::home::Home;
use clap::Args;
use std::path::Path;
use std::process::ExitCode;

/// Stop apps: no new connections, finish the open ones, then end. What
/// runs in the background can be started again
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Stop {
    /// A name, an id, a namespace, "/a pattern/" or "all"
    #[arg(required = true, value_name = "TARGET")]
    pub targets: Vec<String>,
    /// At once, without finishing what is open
    #[arg(long)]
    pub now: bool,
}

impl Stop {
    pub(super) fn run(&self, home: Option<&Path>) -> ExitCode {
        let mode = StopMode::from_now(self.now);
        apply::for_each_worker(home, &self.targets, Concurrency::of_stop(mode), |known, found| match &found.view {
            _ if found.slot.is_some() => Err(one_worker(found)),
            Some(view) if view.status == AppStatus::Stopped && found.background => {
                Ok(format!("{} has stopped already", found.app))
            }
            Some(_) => stop_app(&known.home, found, mode),
            None => Ok(format!("{} does not run: its keeper is gone", found.app)),
        })
    }
}

/// Why one worker is not stopped.
pub(super) fn one_worker(found: &Found) -> CommandError {
    CommandError::OneWorkerStops(found.app.clone())
}

/// Stops an app and waits for that.
pub(in crate::cli) fn stop_app(home: &Home, found: &Found, mode: StopMode) -> Outcome {
    ending::end_app(home, found, mode, &Request::Stop { target: Target::App(found.app.clone()), mode })
}
