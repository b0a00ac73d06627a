//! `clusterd trigger`: calls an action that workers offer with PM2's libraries, and prints what they answer.
use super::send::find;
use crate::api::Request;
use crate::cli::apply::{fail, print};
use crate::cli::client;
use crate::cli::error::CommandError;
use crate::cli::target::known;
use clap::Args;
use std::path::Path;
use std::process::ExitCode;

/// Call an action that an app offers (@pm2/io) and print what its workers
/// answer
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Trigger {
    /// A name or an id; with "/SLOT": the worker in this slot
    #[arg(value_name = "TARGET")]
    pub target: String,
    /// The name of the action; clusterd describe TARGET shows which there are
    #[arg(value_name = "ACTION")]
    pub action: String,
    /// Its parameter
    #[arg(value_name = "PARAM", allow_hyphen_values = true)]
    pub parameter: Option<String>,
}

impl Trigger {
    pub(super) fn run(&self, home: Option<&Path>) -> ExitCode {
        match self.call(home) {
            Ok(said) => print(&format!("{said}\n")),
            Err(error) => fail(error),
        }
    }

    fn call(&self, home: Option<&Path>) -> Result<String, CommandError> {
        let (apps, slot) = find(&known(home)?, &self.target)?;
        let [found] = apps.as_slice() else {
            let names: Vec<&str> = apps.iter().map(|found| found.app.as_str()).collect();
            return Err(CommandError::Ambiguous { word: self.target.clone(), apps: names.join(", ") });
        };
        found.living()?;
        let (action, parameter) = (self.action.clone(), self.parameter.clone());
        Ok(client::send(&found.socket, &Request::Trigger { app: found.app.clone(), slot, action, parameter })?)
    }
}
