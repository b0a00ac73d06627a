//! `clusterd top`: the screen is in `cli/top`.
use crate::cli::top;
use clap::Args;
use std::path::Path;
use std::process::ExitCode;

/// Watch apps and their workers live, with keys to act (also: monit)
#[derive(Args, Clone, Debug, PartialEq)]
#[command(aliases = ["monit", "imonit", "dashboard", "dash"])]
pub struct Top {}

impl Top {
    pub(super) fn run(&self, home: Option<&Path>) -> ExitCode {
        top::top(home)
    }
}
