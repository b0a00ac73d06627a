//! `clusterd signal`: sends a signal to every worker of apps, and their agents.
use crate::api::Request;
use crate::cli::apply::{self, Concurrency};
use crate::cli::client;
use crate::cli::error::CommandError;
use crate::os::signal;
use clap::Args;
use std::path::Path;
use std::process::ExitCode;

/// Send a signal to every worker (also: sendSignal)
#[derive(Args, Clone, Debug, PartialEq)]
#[command(alias = "sendSignal")]
pub struct Signal {
    /// SIGUSR2, USR2 or 12
    #[arg(value_name = "SIGNAL")]
    pub signal: String,
    /// A name, an id, a namespace, "/a pattern/" or "all"; one worker: web/0
    #[arg(required = true, value_name = "TARGET")]
    pub targets: Vec<String>,
}

impl Signal {
    pub(super) fn run(&self, home: Option<&Path>) -> ExitCode {
        apply::for_each_worker(home, &self.targets, Concurrency::Sequential, |_, found| {
            found.living()?;
            let signal = signal::from_name(&self.signal).ok_or_else(|| CommandError::Signal(self.signal.clone()))?;
            let request = Request::Signal { app: found.app.clone(), signal, slot: found.slot };
            Ok(client::send(&found.socket, &request)?)
        })
    }
}
