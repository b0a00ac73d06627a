//! `clusterd scale`: changes the number of workers.
use crate::api::Request;
use crate::api::request::{Scale as Workers, ScaleError};
use crate::cli::apply::{self, Concurrency, Outcome};
use crate::cli::client;
use crate::cli::target::Found;
use crate::config::value_error::ValueError;
use crate::config::{self, parse};
use clap::Args;
use std::path::Path;
use std::process::ExitCode;
use thiserror::Error;

/// Change the number of workers
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Scale {
    /// A name, an id, a namespace, "/a pattern/" or "all"
    #[arg(value_name = "TARGET")]
    pub target: String,
    /// How many (4), how many more (+2) or less (-1), max, max-1, 50%; auto: as the load needs
    #[arg(value_name = "N", allow_hyphen_values = true, value_parser = workers)]
    pub workers: Workers,
}

impl Scale {
    pub(super) fn run(&self, home: Option<&Path>) -> ExitCode {
        let targets = std::slice::from_ref(&self.target);
        apply::for_each_app(home, targets, Concurrency::Sequential, |_, found| {
            found.living()?;
            scale_app(found, self.workers.clone())
        })
    }
}

/// Changes the number of workers of an app.
pub(in crate::cli) fn scale_app(found: &Found, to: Workers) -> Outcome {
    Ok(client::send(&found.socket, &Request::Scale { app: found.app.clone(), to })?)
}

/// Why a text is not a number of workers.
#[derive(Debug, Error)]
enum WorkersError {
    #[error("\"{0}\" is not a change: write a number, such as \"+2\" or \"-1\"")]
    NotAChange(String),
    /// The sentence of the configuration's parser.
    #[error(transparent)]
    NotANumber(#[from] ValueError),
    #[error(transparent)]
    Scale(#[from] ScaleError),
}

/// What was typed; a change by nothing is a mistake.
fn workers(text: &str) -> Result<Workers, WorkersError> {
    let change = text.strip_prefix(['+', '-']);
    if text == "auto" {
        return Ok(Workers::Auto);
    }
    match (change, parse::workers(change.unwrap_or(text))) {
        (Some(_), Ok(config::Workers::Exactly(_))) | (None, Ok(_)) => Ok(text.parse()?),
        (Some(_), _) => Err(WorkersError::NotAChange(text.to_owned())),
        (None, Err(error)) => Err(error.into()),
    }
}
