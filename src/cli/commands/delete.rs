//! `clusterd delete`: stops apps and forgets them.
use crate::api::Request;
use crate::api::request::StopMode;
use crate::cli::apply::{self, Concurrency};
use crate::cli::ending;
use crate::cli::error::CommandError;
use crate::cli::target::Found;
use crate::home::{Entry, Home};
use clap::Args;
use std::path::Path;
use std::process::ExitCode;

/// Stop apps and forget them
#[derive(Args, Clone, Debug, PartialEq)]
#[command(alias = "del")]
pub struct Delete {
    /// A name, an id, a namespace, "/a pattern/" or "all"
    #[arg(required = true, value_name = "TARGET")]
    pub targets: Vec<String>,
    /// At once, without finishing what is open
    #[arg(long)]
    pub now: bool,
}

impl Delete {
    pub(super) fn run(&self, home: Option<&Path>) -> ExitCode {
        let mode = StopMode::from_now(self.now);
        apply::for_each_worker(home, &self.targets, Concurrency::of_stop(mode), |known, found| {
            if found.slot.is_some() {
                return Err(super::stop::one_worker(found));
            }
            let message = match &found.view {
                Some(_) => {
                    let request = Request::Delete { app: found.app.clone(), mode };
                    ending::end_app(&known.home, found, mode, &request)?
                }
                None => format!("{} is deleted", found.app),
            };
            forget(&known.home, found)?;
            Ok(message)
        })
    }
}

/// Removes an app from its entry, if its master has not: the master is gone, or may not write to the home.
fn forget(home: &Home, found: &Found) -> Result<(), CommandError> {
    if entry_with(home, found).is_none() {
        return Ok(());
    }
    let registry = home.registry()?;
    let Some(mut entry) = entry_with(home, found) else { return Ok(()) };
    entry.apps.retain(|app| app.name != found.app);
    match entry.apps.as_slice() {
        [] => home.remove_entry(&entry.name),
        [_, ..] => home.write_entry(&entry)?,
    }
    drop(registry);
    match entry_with(home, found) {
        None => Ok(()),
        Some(_) => Err(CommandError::EntryStays(home.entry_path(&found.deployment))),
    }
}

/// The entry of a background deployment, while it contains the app.
fn entry_with(home: &Home, found: &Found) -> Option<Entry> {
    let entry = home.entry(&found.deployment).ok()?;
    (found.background && entry.apps.iter().any(|app| app.name == found.app)).then_some(entry)
}
