//! Verbs that change something: find who runs the target, ask its master, say in one line what came of it.
use super::client::{self, Master};
use crate::config::name::did_you_mean;
use crate::limits;
use crate::protocol::control::{App, Deployment, ScaleRequest, StopRequest, Upgrade, UpgradeRequest};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// What a target means: one app of a deployment, or all of it.
pub(super) struct Found {
    pub(super) socket: PathBuf,
    pub(super) name: String,
    /// `None`: the whole deployment.
    pub(super) app: Option<String>,
}

/// `reload`.
pub(super) fn reload(home: Option<&Path>, targets: &[String]) -> ExitCode {
    each(home, targets, |found| {
        let path = match &found.app {
            Some(app) => format!("/v1/apps/{app}/reload"),
            None => "/v1/reload".to_owned(),
        };
        let before = client::look(&found.socket)?;
        let mut progress = Progress::new(&before, found.app.as_deref());
        match client::command_watched(&found.socket, &path, &mut |now| progress.tell(now)) {
            client::Outcome::Answered(answer) => answer,
            client::Outcome::Lost => after_the_loss(found, &before),
        }
    })
}

/// The master that had the command died: its successor goes on with the reload, so wait for the end of that.
fn after_the_loss(found: &Found, before: &Deployment) -> Result<String, String> {
    log::warn!("{}: its master was started again; the reload goes on", found.name);
    let ours = |app: &&App| found.app.as_ref().is_none_or(|name| *name == app.name);
    loop {
        let now = client::look(&found.socket)?;
        let apps: Vec<&App> = now.apps.iter().filter(ours).collect();
        if apps.iter().any(|app| app.status == "reloading") {
            std::thread::sleep(Duration::from_millis(limits::PROGRESS_EVERY_MS));
            continue;
        }
        let old = |app: &App| before.apps.iter().find(|b| b.name == app.name).map_or(0, |b| b.generation);
        let back: Vec<&str> =
            apps.iter().filter(|app| app.generation <= old(app)).map(|app| app.name.as_str()).collect();
        if back.is_empty() {
            return Ok(format!("reloaded {}", apps.iter().map(|a| a.name.as_str()).collect::<Vec<_>>().join(", ")));
        }
        return Err(format!("{}: the old generation serves; the log of clusterd says why", back.join(", ")));
    }
}

/// Says which slots have their new worker, as it happens.
struct Progress {
    /// (app, slot) to the generation that last served there.
    seen: BTreeMap<(String, u32), u32>,
}

impl Progress {
    fn new(before: &Deployment, app: Option<&str>) -> Progress {
        let apps = before.apps.iter().filter(|a| app.is_none_or(|name| name == a.name));
        let slots = apps.flat_map(|a| a.workers.iter().map(|w| ((a.name.clone(), w.slot), w.generation)));
        Progress { seen: slots.collect() }
    }

    fn tell(&mut self, now: &Deployment) {
        for app in &now.apps {
            for worker in app.workers.iter().filter(|w| w.state == "ready") {
                let Some(seen) = self.seen.get_mut(&(app.name.clone(), worker.slot)) else { continue };
                if worker.generation > *seen {
                    *seen = worker.generation;
                    let id = worker.id.unwrap_or_default();
                    log::info!("{}/{}: worker {id} of generation {} serves", app.name, worker.slot, worker.generation);
                }
            }
        }
    }
}

/// `upgrade`.
pub(super) fn upgrade(home: Option<&Path>, targets: &[String], binary: Option<&Path>) -> ExitCode {
    let binary = binary.map_or_else(std::env::current_exe, std::path::absolute);
    let binary = match binary {
        Ok(path) => path.display().to_string(),
        Err(e) => {
            log::error!("cannot find the new binary: {e}");
            return ExitCode::FAILURE;
        }
    };
    each(home, targets, |found| {
        let number = |deployment: &Deployment| deployment.upgrade.as_ref().map_or(0, |upgrade| upgrade.number);
        let before = number(&client::look(&found.socket)?);
        client::command(&found.socket, "/v1/upgrade", json(&UpgradeRequest { binary: binary.clone() })?)?;
        for _ in 0..limits::LOOK_TRIES_MAX {
            let now = client::look(&found.socket)?;
            match now.upgrade.filter(|upgrade| upgrade.number > before) {
                Some(Upgrade { ok: Some(true), message, .. }) => return Ok(message),
                Some(Upgrade { ok: Some(false), message, .. }) => return Err(message),
                Some(_) | None => std::thread::sleep(Duration::from_millis(limits::PROGRESS_EVERY_MS)),
            }
        }
        Err("the outcome is not known yet; clusterd ls says which version serves".to_owned())
    })
}

/// `stop`.
pub(super) fn stop(home: Option<&Path>, targets: &[String], now: bool) -> ExitCode {
    each(home, targets, |found| {
        let path = match &found.app {
            Some(app) => format!("/v1/apps/{app}/stop"),
            None => "/v1/stop".to_owned(),
        };
        client::command(&found.socket, &path, json(&StopRequest { now })?)
    })
}

/// `scale`.
pub(super) fn scale(home: Option<&Path>, target: &str, workers: &str) -> ExitCode {
    let targets = [target.to_owned()];
    each(home, &targets, |found| {
        let Some(app) = &found.app else {
            return Err("it runs several apps; name the one to scale".to_owned());
        };
        client::command(
            &found.socket,
            &format!("/v1/apps/{app}/scale"),
            json(&ScaleRequest { workers: workers.to_owned() })?,
        )
    })
}

fn json<T: Serialize>(value: &T) -> Result<Vec<u8>, String> {
    serde_json::to_vec(value).map_err(|e| e.to_string())
}

/// Does something with everything that the targets name. Fails when one of them names nothing or is refused.
pub(super) fn each(
    home: Option<&Path>,
    targets: &[String],
    act: impl Fn(&Found) -> Result<String, String>,
) -> ExitCode {
    let masters = match client::ask_all(home) {
        Ok(masters) => masters,
        Err(e) => {
            log::error!("{e}");
            return ExitCode::FAILURE;
        }
    };
    let mut failed = false;
    for target in targets {
        match find(&masters, target) {
            Err(why) => {
                log::error!("{why}");
                failed = true;
            }
            Ok(all) => {
                for found in all {
                    match act(&found) {
                        Ok(message) => log::info!("{message}"),
                        Err(why) => {
                            let name = found.app.as_ref().unwrap_or(&found.name);
                            let why = why.strip_prefix(&format!("{name}: ")).unwrap_or(&why);
                            log::error!("{name}: {why}");
                            failed = true;
                        }
                    }
                }
            }
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// A deployment by its name, an app by its own, or everything.
pub(super) fn find(masters: &[Master], target: &str) -> Result<Vec<Found>, String> {
    let mut found = Vec::new();
    let mut names = Vec::new();
    for master in masters {
        let apps = match &master.deployment {
            Ok(deployment) => deployment.apps.as_slice(),
            Err(why) if target == master.name => return Err(format!("{target}: {why}")),
            Err(_) => continue,
        };
        names.extend(apps.iter().map(|app| app.name.as_str()).chain([master.name.as_str()]));
        let (socket, name) = (master.path.clone(), master.name.clone());
        if target == "all" || target == master.name {
            // The only app of a deployment is the deployment, and can be scaled.
            let app = if let [app] = apps { Some(app.name.clone()) } else { None };
            found.push(Found { socket, name, app });
        } else if let Some(app) = apps.iter().find(|app| app.name == target) {
            found.push(Found { socket, name, app: Some(app.name.clone()) });
        }
    }
    if !found.is_empty() {
        return Ok(found);
    }
    if names.is_empty() {
        return Err("nothing runs here".to_owned());
    }
    names.sort_unstable();
    names.dedup();
    let hint = did_you_mean(target, &names);
    Err(format!("nothing here is called {target:?}{hint} (there is {})", names.join(", ")))
}
