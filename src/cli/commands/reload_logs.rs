//! `clusterd reloadLogs`: opens the log files of whole deployments again.
use crate::api::Request;
use crate::cli::{apply, client};
use clap::Args;
use std::path::Path;
use std::process::ExitCode;

/// Open log files again, for a logrotate of your own (also: reopen-logs)
#[derive(Args, Clone, Debug, PartialEq)]
#[command(aliases = ["reopen-logs"])]
pub struct ReloadLogs {
    /// A name, an id, a namespace, "/a pattern/" or "all"
    #[arg(default_value = "all", value_name = "TARGET")]
    pub targets: Vec<String>,
}

impl ReloadLogs {
    pub(super) fn run(&self, home: Option<&Path>) -> ExitCode {
        apply::for_each_deployment(home, &self.targets, |found| {
            found.living()?;
            let done = client::send(&found.socket, &Request::ReopenLogs)?;
            Ok(format!("{}: {done}", found.deployment))
        })
    }
}
