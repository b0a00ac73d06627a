//! `clusterd ping`: whether the masters of the home answer.
use crate::cli::apply::{fail, print};
use crate::cli::target::known;
use clap::Args;
use std::path::Path;
use std::process::ExitCode;

/// Say whether every deployment answers
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Ping {}

impl Ping {
    pub(super) fn run(&self, home: Option<&Path>) -> ExitCode {
        let known = match known(home) {
            Ok(known) => known,
            Err(error) => return fail(error),
        };
        for master in &known.masters {
            if let Err(error) = &master.deployment {
                log::error!("{}: {error}", master.name);
            }
        }
        let answering = known.masters.iter().filter(|master| master.deployment.is_ok()).count();
        for entry in &known.dead {
            log::error!("{}: its keeper was killed; clusterd start {} starts it again", entry.name, entry.name);
        }
        let all = known.masters.len() + known.dead.len();
        let printed = print(&format!("pong: {answering} of {all} deployments answer\n"));
        if answering == all { printed } else { ExitCode::FAILURE }
    }
}
