//! `clusterd resurrect`: starts saved deployments that are not there. Stopped apps stay stopped.
use crate::cli::apply::{self, Outcome, fail};
use crate::cli::launch::{self, Novelty};
use crate::cli::stay;
use crate::cli::store::Store;
use crate::cli::target::known;
use crate::home::{Entry, Home};
use crate::loader;
use clap::Args;
use std::path::Path;
use std::process::ExitCode;

/// Start what was saved and is not there
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Resurrect {
    /// Stay, and start again what was saved and loses its keeper: for systemd
    #[arg(long)]
    pub stay: bool,
}

impl Resurrect {
    pub(super) fn run(&self, home: Option<&Path>) -> ExitCode {
        let known = match known(home) {
            Ok(known) => known,
            Err(error) => return fail(error),
        };
        let store = if self.stay { Store::open(&known.home) } else { None };
        let store = store.as_deref();
        let (dump, damage) = match known.home.saved() {
            Ok(saved) => saved,
            Err(error) if self.stay => {
                log::error!("{error}");
                stay::stay(&known.home, store)
            }
            Err(error) => return fail(error),
        };
        if let Some(damage) = damage {
            log::warn!("{damage}");
        }
        if dump.deployments.is_empty() {
            log::info!("nothing was saved");
        }
        let code = apply::report(apply::parallel(&dump.deployments, |entry| resurrect(&known.home, entry, store)));
        if self.stay { stay::stay(&known.home, store) } else { code }
    }
}

/// Starts a saved deployment.
fn resurrect(home: &Home, saved: &Entry, store: Option<&Store>) -> Outcome {
    let runs_already = || Ok(format!("{} runs already", saved.name));
    if home.is_alive(&saved.name) {
        return runs_already();
    }
    let mut entry = saved.clone();
    let registry = home.registry()?;
    registry.admit(&mut entry)?;
    if home.is_alive(&entry.name) {
        return runs_already();
    }
    if let Some(sources) = &entry.sources {
        // Its files may have changed. If they are gone, the saved content is used.
        match loader::reload(sources) {
            Ok(again) => entry.sources = Some(again),
            Err(error) => log::warn!("{}: {error}; starting it as it was saved", entry.name),
        }
    }
    launch::launch(registry, home, &entry, Novelty::Known, store)
}
