//! `clusterd kill`: ends every deployment of the home and forgets it.
use crate::api::Request;
use crate::api::request::{StopMode, Target};
use crate::cli::apply::{self, Outcome, fail};
use crate::cli::client::{Master, PROGRESS_EVERY_MS};
use crate::cli::ending;
use crate::cli::error::CommandError;
use crate::cli::progress::{Progress, Wait};
use crate::cli::store::Store;
use crate::cli::target::known;
use crate::home::Home;
use crate::os::signal;
use clap::Args;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// Stop everything that runs here, and forget it
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Kill {
    /// At once, without finishing what is open
    #[arg(long)]
    pub now: bool,
    /// As a service manager does before a restart: listening sockets stay
    /// open with `resurrect --stay`
    #[arg(long, hide = true, conflicts_with = "now")]
    pub keep_sockets: bool,
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
        if self.keep_sockets {
            Store::announce_stop(&known.home);
        }
        let ended = apply::parallel(&known.masters, |master| {
            if self.keep_sockets {
                return end_by_signal(&known.home, master);
            }
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

/// Has a keeper end its deployment, and waits for that: as long as its apps may drain.
fn end_by_signal(home: &Home, master: &Master) -> Outcome {
    let mut progress = Progress::new(Wait::End { mode: StopMode::Drain }, &master.name);
    if let Some(keeper) = Home::keeper_of(&master.path) {
        signal::send(keeper, signal::TERM).map_err(|error| CommandError::NotSignalled { pid: keeper, error })?;
    }
    while home.is_alive(&master.name) {
        progress.tell("waits for its keeper");
        std::thread::sleep(Duration::from_millis(PROGRESS_EVERY_MS));
    }
    Ok(format!("{}: stopped", master.name))
}
