//! Runs what was named in the background: apps that exist get it as their new configuration, the others a deployment of
//! their own. For `start`, and for `restart` and `reload` of a file.
use super::apply::{Outcome, behind, while_dependencies_succeed};
use super::commands::reload::reload_app;
use super::error::CommandError;
use super::launch::{self, Novelty};
use super::run_args::RunArgs;
use super::target::{Found, Known};
use crate::api::{Change, Request};
use crate::config::Config;
use crate::config::problem::Problems;
use crate::config::resolve::resolve;
use crate::config::sources::Sources;
use crate::home::{self, Entry};
use crate::loader;
use std::collections::BTreeMap;
use thiserror::Error;

/// How apps that run get their new configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Renewal {
    Reload,
    Restart,
}

/// Why nothing was started.
#[derive(Debug, Error)]
pub(super) enum RolloutError {
    /// A line for each problem.
    #[error("{0}")]
    Configuration(Problems),
    #[error(transparent)]
    Command(#[from] CommandError),
}

/// What happened, and the apps that it happened to.
pub(super) struct Done {
    pub(super) outcomes: Vec<Outcome>,
    pub(super) apps: Vec<String>,
}

/// Runs the apps of these sources, but for those that the caller looks after.
///
/// # Errors
/// The configuration is wrong, or an app of that name is there.
pub(super) fn run(known: &Known, sources: Sources, renewal: Renewal, but: &[String]) -> Result<Done, RolloutError> {
    let config = resolve(&sources).map_err(|problems| RolloutError::Configuration(Problems(problems)))?;
    let (_, explicit) = home::deployment_name(&sources, &config);
    let all = known.all();
    let there = |name: &str| all.iter().find(|found| found.app == name).filter(|_| explicit);
    let (old, new): (Vec<&str>, Vec<&str>) = config
        .apps
        .iter()
        .map(|app| app.name.as_str())
        .filter(|name| !but.iter().any(|other| other == name))
        .partition(|name| there(name).is_some());
    let mut done = Done { outcomes: Vec::new(), apps: old.iter().map(|name| (*name).to_owned()).collect() };
    let mut groups: BTreeMap<&str, Vec<&Found>> = BTreeMap::new();
    for found in old.iter().filter_map(|name| there(name)) {
        groups.entry(found.deployment.as_str()).or_default().push(found);
    }
    for (deployment, apps) in groups {
        done.outcomes.extend(replace(known, deployment, &apps, (&config, &sources), renewal));
    }
    if !new.is_empty() {
        let mut sources = sources;
        if new.len() < config.apps.len() {
            sources.overrides.only = new.iter().map(|name| (*name).to_owned()).collect();
        }
        launch_new(known, sources, &mut done)?;
    }
    Ok(done)
}

/// Gives new apps a name, an id and an entry each, and starts them.
fn launch_new(known: &Known, mut sources: Sources, done: &mut Done) -> Result<(), CommandError> {
    let registry = known.home.registry()?;
    let config =
        resolve(&sources).map_err(|_| CommandError::Configuration("the configuration has just changed".to_owned()))?;
    let (name, explicit) = home::deployment_name(&sources, &config);
    let names: Vec<String> = config.apps.iter().map(|app| app.name.clone()).collect();
    let mut planned = registry.plan(&name, explicit, &names)?;
    if let ([wanted], [got]) = (names.as_slice(), planned.apps.as_slice())
        && *wanted != got.name
    {
        sources.overrides.options.set("name", vec![got.name.clone()]);
    }
    done.apps.extend(planned.apps.iter().map(|app| app.name.clone()));
    for (planned, app) in planned.apps.iter_mut().zip(&config.apps) {
        planned.stopped = !app.autostart;
    }
    let entry = Entry { background: true, sources: Some(sources), ..planned };
    let outcome = launch::launch(registry, &known.home, &entry, Novelty::New, None);
    let stopped = entry.apps.iter().filter(|app| app.stopped).map(|app| not_started(&app.name));
    done.outcomes.push(outcome.map(|ready| {
        let lines: Vec<String> = Some(ready).filter(|text| !text.is_empty()).into_iter().chain(stopped).collect();
        lines.join("\n")
    }));
    Ok(())
}

/// What is said of an app with `autostart = false`.
pub(super) fn not_started(app: &str) -> String {
    format!("{app} is stopped, as autostart says; start it: clusterd start {app}")
}

/// Gives apps of one deployment a new configuration.
fn replace(
    known: &Known,
    deployment: &str,
    apps: &[&Found],
    (config, sources): (&Config, &Sources),
    renewal: Renewal,
) -> Vec<Outcome> {
    // A restart asks for the app by name, or for every one of the file.
    let starts =
        |name: &str| renewal == Renewal::Restart || config.apps.iter().any(|app| app.name == name && app.autostart);
    let mut sources = sources.clone();
    match together(known, deployment, &sources) {
        // The others are read from it too, at their next reload and by resurrect.
        Ok(names) if sources.file.is_some() => sources.overrides.only = names,
        Ok(_) => {}
        Err(error) => return vec![Err(error)],
    }
    let change = Change { env: None, sources: Some(Box::new(sources)) };
    if apps.iter().any(|found| found.view.is_none()) {
        return vec![launch::revive(&known.home, deployment, starts, change)];
    }
    let depends = |one: &Found, other: &Found| {
        config.apps.iter().any(|app| app.name == one.app && app.depends_on.contains(&other.app))
    };
    let renew_one = |found: &Found| {
        let outcome = match found.background {
            false => Err(CommandError::Foreground),
            true if found.is_idle() && !starts(&found.app) => Ok(not_started(&found.app)),
            true => renew(found, change.clone(), renewal),
        };
        outcome.map_err(|error| error.of(&found.app))
    };
    let sorted = behind(apps.to_vec(), |one, other| depends(one, other));
    match renewal {
        Renewal::Restart => sorted.into_iter().map(renew_one).collect(),
        Renewal::Reload => while_dependencies_succeed(sorted, depends, renew_one).collect(),
    }
}

/// The apps of a deployment, all of which the new sources have to have: a deployment has one configuration.
fn together(known: &Known, deployment: &str, sources: &Sources) -> Result<Vec<String>, CommandError> {
    let mut whole = sources.clone();
    whole.overrides.only.clear();
    let config = resolve(&whole).map_err(|problems| CommandError::Configuration(Problems(problems).to_string()))?;
    let all = known.all();
    let names = all.iter().filter(|found| found.deployment == deployment).map(|found| found.app.clone());
    let (here, missing): (Vec<String>, Vec<String>) =
        names.partition(|name| config.apps.iter().any(|app| app.name == *name));
    match (missing.is_empty(), here.first()) {
        (false, Some(app)) => Err(CommandError::NotTogether { app: app.clone(), others: missing.join(" ") }),
        _ => Ok(here),
    }
}

/// Gives an app a new configuration; one that is stopped is started with it.
fn renew(found: &Found, change: Change, renewal: Renewal) -> Outcome {
    match renewal {
        _ if found.is_idle() => launch::request_ready(found, &Request::Start { app: found.app.clone(), change }),
        Renewal::Reload => reload_app(found, change),
        Renewal::Restart => launch::request_ready(found, &Request::Restart { app: found.app.clone(), change }),
    }
}

/// Renews an app with what it has been run with, and these options over it.
pub(super) fn renew_with(known: &Known, found: &Found, run: &RunArgs, renewal: Renewal, update_env: bool) -> Outcome {
    if found.view.is_some() && !found.background {
        return Err(CommandError::Foreground);
    }
    let entry = known.home.entry(&found.deployment)?;
    let mut sources = entry.sources.ok_or(CommandError::NoSources)?;
    // Options are for the configuration as it is.
    sources.rolled_back.clear();
    if entry.apps.len() > 1 {
        let file = sources.file.map_or_else(|| "its file".to_owned(), |file| file.path);
        return Err(CommandError::OptionsOfSeveral(file));
    }
    let mut sources = loader::reload(&sources)?;
    let typed = run.overrides();
    if typed.options.get("name").is_some_and(|name| name != found.app) {
        return Err(CommandError::Renamed(found.app.clone()));
    }
    sources.overrides.options.lay_over(&typed.options);
    sources.overrides.env.extend(typed.env);
    sources.overrides.env_files.extend(typed.env_files);
    if !typed.env_names.is_empty() {
        sources.overrides.env_names = typed.env_names;
    }
    let mut sources = loader::reload(&sources)?;
    if update_env {
        sources.base_env = Some(launch::own_environment());
    }
    resolve(&sources).map_err(|problems| CommandError::Configuration(Problems(problems).to_string()))?;
    let change = Change { env: None, sources: Some(Box::new(sources)) };
    match found.view {
        Some(_) => renew(found, change, renewal),
        None => launch::revive(&known.home, &found.deployment, |app| app == found.app, change),
    }
}
