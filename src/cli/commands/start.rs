//! `clusterd start`: runs a script, a command, a file, or stopped apps in the background. Returns when the app is ready
//! or has failed, and says which.
use super::reload::reload_app;
use crate::api::types::AppStatus;
use crate::api::{Change, Request};
use crate::cli::apply::{self, Concurrency, Outcome, fail};
use crate::cli::error::CommandError;
use crate::cli::exit::{EXIT_USAGE, load_error_code};
use crate::cli::launch::{self, Novelty, own_environment};
use crate::cli::run_args::{RunArgs, RunArgsError};
use crate::cli::script::{self, InterpreterArgs, ScriptError};
use crate::cli::target::{Found, Known, known};
use crate::config::problem::Problems;
use crate::config::resolve::resolve;
use crate::config::sources::Sources;
use crate::home::{self, Entry};
use crate::loader;
use clap::Args;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use thiserror::Error;

/// First lines of its help.
const USAGE: &str = "clusterd start [OPTIONS] SCRIPT [-- ARG...]
       clusterd start [OPTIONS] -- COMMAND [ARG]...
       clusterd start [OPTIONS] FILE
       clusterd start TARGET...";

/// Run something in the background, or start again what was stopped
#[derive(Args, Clone, Debug, Default, PartialEq)]
#[command(override_usage = USAGE)]
pub struct Start {
    /// A script, a configuration file (.toml, or PM2's: .config.js, .json,
    /// .yaml; -: standard input), or what was stopped: a name, an id, a namespace, "/a pattern/" or
    /// "all"
    #[arg(value_name = "SCRIPT|FILE|TARGET")]
    pub what: Vec<String>,
    /// Start again with the environment of this command
    #[arg(long, help_heading = "Surroundings")]
    pub update_env: bool,
    #[command(flatten)]
    pub interpreter: InterpreterArgs,
    #[command(flatten)]
    pub run: RunArgs,
}

/// Arguments that do not go together.
#[derive(Debug, Error)]
pub(in crate::cli) enum StartArgsError {
    #[error("nothing to start: name a script, a file, -- COMMAND, or an app that was stopped")]
    Nothing,
    #[error("a word and --config were given: give one of them")]
    WordAndConfig,
    /// The words behind `--` are the script's arguments.
    #[error("arguments behind -- go with one script")]
    SeveralScripts,
    #[error(transparent)]
    Run(#[from] RunArgsError),
}

/// Why nothing was started.
#[derive(Debug, Error)]
enum StartError {
    /// A line for each problem.
    #[error("{0}")]
    Configuration(Problems),
    #[error(transparent)]
    Command(#[from] CommandError),
}

impl Start {
    /// Checks combinations of arguments.
    pub(super) fn validate(&self) -> Result<(), StartArgsError> {
        match [!self.what.is_empty(), self.run.config().is_some(), !self.run.command.is_empty()] {
            [false, false, false] => Err(StartArgsError::Nothing),
            [true, true, _] => Err(StartArgsError::WordAndConfig),
            [true, false, true] if self.what.len() > 1 => Err(StartArgsError::SeveralScripts),
            [true, false, _] => Ok(()),
            [false, ..] => Ok(self.run.validate()?),
        }
    }

    pub(super) fn run(&self, home: Option<&Path>) -> ExitCode {
        let known = match known(home) {
            Ok(known) => known,
            Err(error) => return fail(error),
        };
        if !self.what.is_empty() && self.what.iter().all(|word| known.is_target(word)) {
            drop(known);
            return self.start_known(home);
        }
        let sources = match script::load(&self.what, &self.interpreter, self.run.request()) {
            Ok(sources) => {
                let log_folder = Some(launch::log_folder(&known.home));
                Sources { base_env: Some(own_environment()), background: true, log_folder, ..sources }
            }
            Err(error) => {
                let is_word = matches!(error, ScriptError::NotAScript { .. });
                let unknown = self.what.iter().find(|word| is_word && !known.is_target(word));
                let hint = unknown.map(|word| known.did_you_mean(word)).unwrap_or_default();
                format!("{error}{hint}").lines().for_each(|line| log::error!("{line}"));
                return ExitCode::from(load_error_code(error.is_usage()));
            }
        };
        loader::notes(&sources, None).iter().for_each(|note| log::warn!("{note}"));
        match start_new(&known, sources) {
            Ok(outcomes) => apply::report(outcomes),
            Err(error) => {
                error.to_string().lines().for_each(|line| log::error!("{line}"));
                match error {
                    StartError::Configuration(_) => ExitCode::from(EXIT_USAGE),
                    StartError::Command(_) => ExitCode::FAILURE,
                }
            }
        }
    }

    /// Starts existing apps.
    fn start_known(&self, home: Option<&Path>) -> ExitCode {
        apply::for_each_app(home, &self.what, Concurrency::Parallel, |known, found| {
            let change = Change { env: self.update_env.then(own_environment), sources: None };
            match &found.view {
                None => launch::revive(&known.home, &found.deployment, Some(&found.app), change),
                Some(view) => match view.status {
                    AppStatus::Stopped | AppStatus::Errored | AppStatus::Stopping => {
                        launch::request_ready(found, &Request::Start { app: found.app.clone(), change })
                    }
                    status => Ok(format!("{} runs already ({status})", found.app)),
                },
            }
        })
    }
}

/// Starts a command line. Existing apps get it as their new configuration; the others get a deployment of their own.
fn start_new(known: &Known, sources: Sources) -> Result<Vec<Outcome>, StartError> {
    let config = resolve(&sources).map_err(|problems| StartError::Configuration(Problems(problems)))?;
    let (_, explicit) = home::deployment_name(&sources, &config);
    let all = known.all();
    let there = |name: &str| all.iter().find(|found| found.app == name).filter(|_| explicit);
    let (old, new): (Vec<&str>, Vec<&str>) =
        config.apps.iter().map(|app| app.name.as_str()).partition(|name| there(name).is_some());
    let mut outcomes = Vec::new();
    let mut groups: BTreeMap<&str, Vec<&Found>> = BTreeMap::new();
    for found in old.iter().filter_map(|name| there(name)) {
        groups.entry(found.deployment.as_str()).or_default().push(found);
    }
    for (deployment, apps) in groups {
        outcomes.extend(replace(known, deployment, &apps, &sources));
    }
    if !new.is_empty() {
        let mut sources = sources;
        if !old.is_empty() {
            sources.overrides.only = new.iter().map(|name| (*name).to_owned()).collect();
        }
        outcomes.push(launch_new(known, sources)?);
    }
    Ok(outcomes)
}

/// Gives new apps a name, an id and an entry each, and starts them.
fn launch_new(known: &Known, mut sources: Sources) -> Result<Outcome, CommandError> {
    let registry = known.home.registry()?;
    let config =
        resolve(&sources).map_err(|_| CommandError::Configuration("the configuration changed its mind".to_owned()))?;
    let (name, explicit) = home::deployment_name(&sources, &config);
    let names: Vec<String> = config.apps.iter().map(|app| app.name.clone()).collect();
    let planned = registry.plan(&name, explicit, &names)?;
    if let ([wanted], [got]) = (names.as_slice(), planned.apps.as_slice())
        && *wanted != got.name
    {
        sources.overrides.options.set("name", vec![got.name.clone()]);
    }
    let entry = Entry { background: true, sources: Some(sources), ..planned };
    Ok(launch::launch(registry, &known.home, &entry, Novelty::New))
}

/// Gives apps of one deployment a new configuration; running ones by a reload.
fn replace(known: &Known, deployment: &str, apps: &[&Found], sources: &Sources) -> Vec<Outcome> {
    let mut sources = sources.clone();
    if sources.file.is_some() {
        sources.overrides.only = apps.iter().map(|found| found.app.clone()).collect();
    }
    let change = Change { env: None, sources: Some(Box::new(sources)) };
    let mut outcomes = Vec::new();
    for found in apps {
        let outcome = match &found.view {
            Some(_) if !found.background => Err(CommandError::Foreground),
            Some(view) if matches!(view.status, AppStatus::Stopped | AppStatus::Errored) => {
                launch::request_ready(found, &Request::Start { app: found.app.clone(), change: change.clone() })
            }
            Some(_) => reload_app(found, change.clone()),
            None => {
                return vec![launch::revive(&known.home, deployment, None, change)];
            }
        };
        outcomes.push(outcome.map_err(|error| error.of(&found.app)));
    }
    outcomes
}
