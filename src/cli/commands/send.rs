//! `clusterd send`: a line to the stdin of workers.
use crate::api::Request;
use crate::cli::apply::{fail, report};
use crate::cli::client;
use crate::cli::error::CommandError;
use crate::cli::target::{Found, Known, known};
use clap::Args;
use std::path::Path;
use std::process::ExitCode;

/// Send a line to the stdin of workers (for apps with stdin = true)
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Send {
    /// A name or an id, or one worker: web/1
    #[arg(value_name = "TARGET")]
    pub target: String,
    /// The line; several words are one line
    #[arg(required = true, value_name = "LINE", trailing_var_arg = true, allow_hyphen_values = true)]
    pub line: Vec<String>,
}

impl Send {
    pub(super) fn run(&self, home: Option<&Path>) -> ExitCode {
        let (apps, slot) = match known(home).and_then(|known| find(&known, &self.target)) {
            Ok(found) => found,
            Err(error) => return fail(error),
        };
        let line = self.line.join(" ");
        report(apps.iter().map(|found| send(found, slot, &line).map_err(|error| error.of(&found.app))))
    }
}

/// Sends one line.
///
/// # Errors
/// Not every worker got it: which, and why.
pub(super) fn send(found: &Found, slot: Option<u32>, line: &str) -> Result<String, CommandError> {
    found.living()?;
    let request = Request::SendLine { app: found.app.clone(), slot, line: line.to_owned() };
    Ok(client::send(&found.socket, &request)?)
}

/// The apps that a word names, and the slot behind the name (`web/2`), if there is one.
///
/// # Errors
/// Nothing has this name.
pub(super) fn find(known: &Known, word: &str) -> Result<(Vec<Found>, Option<u32>), CommandError> {
    let found = known.find(word)?;
    let slot = found.first().and_then(|found| found.slot);
    Ok((found, slot))
}
