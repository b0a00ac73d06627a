//! `clusterd reset`: counts the restarts of apps from zero.
use crate::api::Request;
use crate::cli::apply::{self, Concurrency};
use crate::cli::client;
use clap::Args;
use std::path::Path;
use std::process::ExitCode;

/// Count restarts from zero again
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Reset {
    /// A name, an id, a namespace, "/a pattern/" or "all"
    #[arg(required = true, value_name = "TARGET")]
    pub targets: Vec<String>,
}

impl Reset {
    pub(super) fn run(&self, home: Option<&Path>) -> ExitCode {
        apply::for_each_app(home, &self.targets, Concurrency::Sequential, |_, found| {
            found.living()?;
            Ok(client::send(&found.socket, &Request::ResetCounters { app: found.app.clone() })?)
        })
    }
}
