//! `clusterd kill`: ends every deployment of the home and forgets it.
use crate::api::Request;
use crate::api::request::{StopMode, Target};
use crate::cli::apply::{self, fail};
use crate::cli::ending;
use crate::cli::progress::{Progress, Wait};
use crate::cli::target::known;
use clap::Args;
use std::path::Path;
use std::process::ExitCode;

/// Stop everything that runs here, and forget it
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Kill {
    /// At once, without finishing what is open
    #[arg(long)]
    pub now: bool,
}

impl Kill {
    pub(super) fn run(&self, home: Option<&Path>) -> ExitCode {
        let known = match known(home) {
            Ok(known) => known,
            Err(error) => return fail(error),
        };
        known.dead.iter().for_each(|entry| known.home.remove_entry(&entry.name));
        let mode = StopMode::from_now(self.now);
        let request = Request::Stop { target: Target::All, mode };
        let ended = apply::parallel(&known.masters, |master| {
            let mut progress = Progress::new(Wait::End { mode }, &master.name);
            let message = ending::send_until_ended(&master.path, &request, &mut progress, |_| true)
                .map_err(|error| error.of(&master.name))?;
            let background = master.deployment.as_ref().is_ok_and(|view| view.background);
            ending::wait_for_keeper(&known.home, background, &master.name, &master.path, &mut progress);
            Ok(message)
        });
        if known.masters.is_empty() {
            log::info!("nothing runs here");
        }
        apply::report(ended)
    }
}
