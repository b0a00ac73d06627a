//! `clusterd rollback`: goes back to the folder and configuration of an earlier generation.
use super::reload::reload_by;
use crate::api::Request;
use crate::cli::apply::{self, Concurrency};
use crate::cli::client;
use crate::cli::progress::Progress;
use clap::Args;
use std::path::Path;
use std::process::ExitCode;

/// Go back to the release before, by a rolling reload
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Rollback {
    /// A name, an id, a namespace, "/a pattern/" or "all"
    #[arg(required = true, value_name = "TARGET")]
    pub targets: Vec<String>,
    /// To this generation of clusterd releases, not the one before
    #[arg(long, value_name = "GENERATION")]
    pub to: Option<u32>,
}

impl Rollback {
    pub(super) fn run(&self, home: Option<&Path>) -> ExitCode {
        apply::for_each_app(home, &self.targets, Concurrency::Sequential, |_, found| {
            found.living()?;
            let before = client::look(&found.socket)?;
            let mut progress = Progress::of_reload(&before, &found.app);
            let request = Request::Rollback { app: found.app.clone(), to: self.to };
            reload_by(found, &before, &mut progress, &request)
        })
    }
}
