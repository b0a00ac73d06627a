//! `clusterd env`: shows the environment of an app's workers, or its agent.
use crate::api::Request;
use crate::api::request::Role;
use crate::api::types::Environment;
use crate::cli::apply::{fail, print};
use crate::cli::client;
use crate::cli::error::CommandError;
use crate::cli::target::{Found, known};
use clap::Args;
use std::path::Path;
use std::process::ExitCode;

/// Show the environment of an app's workers
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Env {
    /// A name or an id, or one worker: web/1
    #[arg(value_name = "TARGET")]
    pub target: String,
    /// Of its agent instead
    #[arg(long)]
    pub agent: bool,
    /// As JSON, for scripts
    #[arg(long)]
    pub json: bool,
}

impl Env {
    pub(super) fn run(&self, home: Option<&Path>) -> ExitCode {
        let shown = match self.ask(home) {
            Ok(shown) => shown,
            Err(error) => return fail(error),
        };
        let text = if self.json {
            serde_json::to_string_pretty(&shown.env).unwrap_or_default() + "\n"
        } else {
            shown.env.iter().map(|(name, value)| format!("{name}={value}\n")).collect()
        };
        print(&text)
    }

    fn ask(&self, home: Option<&Path>) -> Result<Environment, CommandError> {
        let of = |found: &Found| match self.agent {
            true => Role::Agent,
            false => Role::Worker { slot: found.slot.unwrap_or(0) },
        };
        match known(home)?.find(&self.target)?.as_slice() {
            [found] if found.view.is_none() => Err(CommandError::NoKeeper(found.app.clone())),
            [found] => Ok(client::get(&found.socket, &Request::Environment { app: found.app.clone(), of: of(found) })?),
            several => {
                let names: Vec<&str> = several.iter().map(|found| found.app.as_str()).collect();
                Err(CommandError::Ambiguous { word: self.target.clone(), apps: names.join(", ") })
            }
        }
    }
}
