//! `clusterd open`: where the page for browsers is.
use crate::cli::apply::{fail, print};
use crate::cli::target::known;
use clap::Args;
use std::path::Path;
use std::process::ExitCode;

/// Print the address of the page for browsers
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Open {}

impl Open {
    pub(super) fn run(&self, home: Option<&Path>) -> ExitCode {
        let known = match known(home) {
            Ok(known) => known,
            Err(error) => return fail(error),
        };
        let deployments = known.masters.iter().filter_map(|master| master.deployment.as_ref().ok());
        let pages: String = deployments
            .filter(|deployment| deployment.page)
            .filter_map(|deployment| Some(format!("{}/\n", deployment.control.as_ref()?)))
            .collect();
        if pages.is_empty() {
            return fail(
                "no deployment has a page: set listen = \"127.0.0.1:9615\" and page = true in [control] of its \
                 configuration file, and start it again",
            );
        }
        print(&pages)
    }
}
