//! `clusterd flush`: empties the log files of apps.
use crate::api::Request;
use crate::api::request::Target;
use crate::cli::apply::{self, Concurrency};
use crate::cli::client;
use clap::Args;
use std::path::Path;
use std::process::ExitCode;

/// Empty log files
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Flush {
    /// A name, an id, a namespace, "/a pattern/" or "all"
    #[arg(default_value = "all", value_name = "TARGET")]
    pub targets: Vec<String>,
}

impl Flush {
    pub(super) fn run(&self, home: Option<&Path>) -> ExitCode {
        apply::for_each_app(home, &self.targets, Concurrency::Sequential, |_, found| {
            found.living()?;
            let request = Request::FlushLogs { target: Target::App(found.app.clone()) };
            let done = client::send(&found.socket, &request)?;
            Ok(format!("{}: {done}", found.app))
        })
    }
}
