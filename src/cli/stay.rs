//! `resurrect --stay`: what a service manager watches. It starts again what was saved and lost its keeper, for as long as it
//! runs; that it ends changes nothing for the deployments.
use super::error::CommandError;
use super::launch::{self, Novelty, START_LOOK_MS};
use super::store::Store;
use crate::home::{Entry, Home};
use crate::loader;
use crate::os::{clock, notify, poll, process};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};

/// How often `resurrect --stay` checks at least whether saved deployments have keepers.
const STAY_LOOK_MS: u64 = 10_000;
/// First pause before a failed start of a deployment is repeated; it doubles.
const STAY_RETRY_MIN_MS: u64 = 1_000;
/// The longest such pause.
const STAY_RETRY_MAX_MS: u64 = 60_000;

/// A deployment that could not be started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Failed {
    again_at_ms: u64,
    wait_ms: u64,
}

impl Failed {
    /// The wait doubles with each failure, up to a bound.
    fn after(before: Option<Failed>, now_ms: u64) -> Failed {
        let wait_ms = before.map_or(STAY_RETRY_MIN_MS, |failed| failed.wait_ms * 2);
        let wait_ms = wait_ms.min(STAY_RETRY_MAX_MS);
        Failed { again_at_ms: now_ms + wait_ms, wait_ms }
    }
}

/// Stays, and starts again what was saved and loses its keeper. Whoever ends a deployment by a command has its entry
/// removed, so it stays ended.
pub(super) fn stay(home: &Home, store: Option<&Store>) -> ! {
    tell_ready();
    let mut failed: BTreeMap<String, Failed> = BTreeMap::new();
    loop {
        reap();
        // An error was said by the start; nothing can be done until somebody saves again.
        let saved = home.saved().map(|(dump, _)| dump.deployments).unwrap_or_default();
        if let Some(store) = store {
            let mut entries: Vec<Entry> = home.entries().into_iter().flatten().collect();
            entries.retain(|entry| saved.iter().any(|s| s.name == entry.name) || home.is_alive(&entry.name));
            store.keep_only(|app| entries.iter().flat_map(|entry| &entry.apps).any(|its| its.name == app));
        }
        let names: Vec<String> = saved.into_iter().map(|entry| entry.name).collect();
        failed.retain(|name, _| names.contains(name));
        for name in &names {
            if home.is_alive(name) {
                failed.remove(name);
                continue;
            }
            let before = failed.get(name).copied();
            let now_ms = clock::monotonic_ms();
            if home.entry(name).is_err() || before.is_some_and(|failed| now_ms < failed.again_at_ms) {
                continue;
            }
            log::warn!("{name}: its keeper was killed; starting it again");
            match start_again(home, name, store) {
                Ok(message) => {
                    message.lines().for_each(|line| log::info!("{line}"));
                    failed.remove(name);
                }
                Err(error) => {
                    log::error!("{name}: {error}");
                    failed.insert(name.clone(), Failed::after(before, clock::monotonic_ms()));
                }
            }
        }
        wait_for_an_end(home, &names, failed.values().map(|failed| failed.again_at_ms).min());
    }
}

/// Starts a deployment whose keeper is gone; what was stopped of it stays so.
fn start_again(home: &Home, name: &str, store: Option<&Store>) -> Result<String, CommandError> {
    let registry = home.registry()?;
    let mut entry: Entry = home.entry(name)?;
    if home.is_alive(name) {
        return Ok(format!("{name} runs already"));
    }
    if let Some(sources) = &entry.sources {
        // Its files may say something else by now. Where they are gone, what it ran with is good enough.
        match loader::reload(sources) {
            Ok(again) => entry.sources = Some(again),
            Err(error) => log::warn!("{name}: {error}; starting it as it was"),
        }
    }
    launch::launch(registry, home, &entry, Novelty::Known, store)
}

/// Waits until one of the keepers ends, or it is time to look again.
fn wait_for_an_end(home: &Home, names: &[String], again_at_ms: Option<u64>) {
    let keepers =
        names.iter().filter(|name| home.is_alive(name)).filter_map(|name| Home::keeper_of(&home.socket_path(name)));
    // Kernels before 5.3 have no pidfd, and one that has ended has none any more: then the look is what finds out.
    let keepers: Vec<OwnedFd> = keepers.filter_map(|pid| process::pidfd(pid).ok()).collect();
    let mut interests: Vec<poll::Interest<'_>> =
        keepers.iter().map(|keeper| poll::Interest::new(keeper.as_fd(), false)).collect();
    let now_ms = clock::monotonic_ms();
    let due_ms = again_at_ms.map_or(STAY_LOOK_MS, |at_ms| at_ms.saturating_sub(now_ms));
    if poll::wait(&mut interests, Some(due_ms.clamp(1, STAY_LOOK_MS))).is_err() {
        std::thread::sleep(std::time::Duration::from_millis(STAY_RETRY_MIN_MS));
    }
    if interests.iter().any(poll::Interest::readable) {
        // The lock of a keeper that has ended is free a moment after its pidfd says so.
        std::thread::sleep(std::time::Duration::from_millis(START_LOOK_MS));
    }
}

/// Those that were started here are our children.
fn reap() {
    while let Ok(Some(pid)) = process::peek_ended() {
        if process::reap(pid).is_err() {
            return;
        }
    }
}

/// Tells the service manager that what was saved runs, where there is one that wants to know (sd_notify(3)).
fn tell_ready() {
    let Some(address) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = notify::tell(&address, "READY=1", None) {
        log::warn!("cannot send READY=1 to the service manager at {}: {error}", address.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_after_failures_doubles_up_to_a_bound() {
        let mut failed = None;
        let mut waits = Vec::new();
        for _ in 0..10 {
            failed = Some(Failed::after(failed, 1_000));
            waits.extend(failed.map(|failed| failed.wait_ms));
        }
        assert_eq!(waits[..3], [1_000, 2_000, 4_000]);
        assert_eq!(waits.last(), Some(&STAY_RETRY_MAX_MS));
        assert_eq!(failed.map(|failed| failed.again_at_ms), Some(1_000 + STAY_RETRY_MAX_MS));
    }
}
