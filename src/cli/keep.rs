//! What survives a reboot: `save` and `resurrect`.
use super::act;
use super::start;
use super::target::known;
use crate::home::Entry;
use std::path::Path;
use std::process::ExitCode;

/// `save`: writes down what is in the background.
pub(super) fn save(home: Option<&Path>) -> ExitCode {
    let known = match known(home) {
        Ok(known) => known,
        Err(e) => return act::fail(&e),
    };
    let mut entries: Vec<Entry> = Vec::new();
    let mut foreground = Vec::new();
    let mut failed = false;
    for entry in known.home.entries() {
        match entry {
            Ok(entry) if entry.background => entries.push(entry),
            Ok(entry) => foreground.push(entry.name),
            Err(e) => {
                log::error!("{e}");
                failed = true;
            }
        }
    }
    if !foreground.is_empty() {
        log::info!("not saved, because it runs in the foreground: {}", foreground.join(", "));
    }
    let apps: usize = entries.iter().map(|entry| entry.apps.len()).sum();
    match known.home.save(entries) {
        Ok(path) => log::info!("saved {apps} apps in {}", path.display()),
        Err(e) => return act::fail(&e.to_string()),
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// `resurrect`: starts what was saved and is not there. What was stopped stays so.
pub(super) fn resurrect(home: Option<&Path>) -> ExitCode {
    let known = match known(home) {
        Ok(known) => known,
        Err(e) => return act::fail(&e),
    };
    let (dump, wrong) = match known.home.saved() {
        Ok(saved) => saved,
        Err(e) => return act::fail(&e.to_string()),
    };
    if let Some(wrong) = wrong {
        log::warn!("{wrong}");
    }
    if dump.deployments.is_empty() {
        log::info!("nothing was saved");
    }
    act::say_all(act::together(&dump.deployments, |entry| {
        if known.home.is_alive(&entry.name) {
            return Ok(format!("{} runs already", entry.name));
        }
        start::resurrect(&known.home, entry)
    }))
}
