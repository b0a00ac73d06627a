//! What `restart` and `reload` have in common: apps as they are, apps with further options, and the apps of a file.
use super::apply::{self, Concurrency, Outcome, fail};
use super::commands::{logs, start};
use super::error::CommandError;
use super::exit::load_error_code;
use super::launch;
use super::one_worker;
use super::rollout::{self, Renewal};
use super::run_args::RunArgs;
use super::script::{self, InterpreterArgs};
use super::target::{Found, Known, known};
use crate::config::resolve::resolve;
use crate::config::sources::Sources;
use crate::config::{Config, import};
use crate::loader::{self, Request};
use clap::Args;
use std::path::Path;
use std::process::ExitCode;
use std::sync::OnceLock;

/// Which apps, and what they get.
#[derive(Args, Clone, Debug, Default, PartialEq)]
pub struct RenewArgs {
    /// A name, an id, a namespace, "/a pattern/" or "all"; one worker: web/0; or a configuration file:
    /// its apps get what it says, and those that are missing are started
    #[arg(required = true, value_name = "TARGET|FILE")]
    pub targets: Vec<String>,
    /// With the environment of this command instead of that of the start
    #[arg(short = 'a', long)]
    pub update_env: bool,
    /// Then show what it prints
    #[arg(long)]
    pub attach: bool,
    #[command(flatten)]
    pub run: RunArgs,
}

impl RenewArgs {
    /// Checks combinations of arguments.
    pub(super) fn validate(&self) -> Result<(), &'static str> {
        match self.run.command.is_empty() && self.run.config().is_none() {
            true => Ok(()),
            false => Err("arguments behind -- and --config go with start: delete the app, and start it with them"),
        }
    }

    /// Renews everything that was named; `plain` does it for an app without further options.
    pub(super) fn run(
        &self,
        home: Option<&Path>,
        renewal: Renewal,
        concurrency: Concurrency,
        plain: impl Fn(&Known, &Found) -> Outcome + Sync,
    ) -> ExitCode {
        let (files, targets): (Vec<String>, Vec<String>) =
            self.targets.iter().cloned().partition(|word| import::is_configuration(word) && Path::new(word).is_file());
        let mut worst = ExitCode::SUCCESS;
        let mut apps = targets.clone();
        for file in &files {
            // What was started from it is read again, with the options of its start.
            let of_it = if self.run == RunArgs::default() { apps_of(home, file) } else { Started::default() };
            let idle = OnceLock::new();
            let starts = |found: &Found| match renewal {
                Renewal::Restart => true,
                Renewal::Reload => !idle.get_or_init(|| without_autostart(file)).contains(&found.app),
            };
            let renew = |known: &Known, found: &Found| match (found.is_idle(), renewal) {
                (true, _) if !starts(found) => Ok(rollout::not_started(&found.app)),
                (true, Renewal::Reload) => launch::start(found),
                (true, Renewal::Restart) | (false, _) => plain(known, found),
            };
            if !of_it.apps.is_empty() && apply::for_each_app(home, &of_it.apps, concurrency, renew) != ExitCode::SUCCESS
            {
                worst = ExitCode::FAILURE;
            }
            apps.extend(of_it.apps.iter().cloned());
            if of_it.in_foreground {
                // What else is in the file belongs to the terminal or unit that runs it: its master refuses further apps.
                continue;
            }
            match renew_file(home, file, &self.run, renewal, &of_it.apps) {
                Ok(of_file) => apps.extend(of_file),
                Err(code) => worst = code,
            }
        }
        if !targets.is_empty() {
            let is_plain = self.run == RunArgs::default();
            let code = apply::for_each_worker(home, &targets, concurrency, |known, found| match found.slot {
                Some(slot) if is_plain && !self.update_env => one_worker::replace(found, slot),
                Some(_) => Err(CommandError::OneWorkerOptions(found.app.clone())),
                None if is_plain => plain(known, found),
                None => rollout::renew_with(known, found, &self.run, renewal, self.update_env),
            });
            worst = if code == ExitCode::SUCCESS { worst } else { code };
        }
        match self.attach && worst == ExitCode::SUCCESS {
            true => logs::follow(home, apps, None),
            false => worst,
        }
    }
}

/// What was started from a file.
#[derive(Debug, Default)]
struct Started {
    apps: Vec<String>,
    /// By a clusterd in the foreground: in a terminal, a container, or a unit.
    in_foreground: bool,
}

/// What was started from this file.
fn apps_of(home: Option<&Path>, file: &str) -> Started {
    let Ok(known) = known(home) else { return Started::default() };
    let path = std::fs::canonicalize(file).ok();
    let mut started = Started::default();
    for deployment in known.masters.iter().filter_map(|master| master.deployment.as_ref().ok()) {
        let its = deployment.config.as_ref().and_then(|its| std::fs::canonicalize(its).ok());
        if its.is_some() && its == path {
            started.apps.extend(deployment.apps.iter().map(|app| app.name.clone()));
            started.in_foreground |= !deployment.background;
        }
    }
    started
}

/// The configuration of a file, if it can be read: who starts the apps of the file says why it cannot.
fn read(file: &str) -> Option<Config> {
    let request = Request { config: Some(file.to_owned()), ..Request::default() };
    loader::load(&request).ok().and_then(|sources| resolve(&sources).ok())
}

/// The apps that a file does not start.
fn without_autostart(file: &str) -> Vec<String> {
    let apps = read(file).into_iter().flat_map(|config| config.apps);
    apps.filter(|app| !app.autostart).map(|app| app.name).collect()
}

/// Gives the apps of a file, but for these, what it says; those that are missing are started. Returns their names.
pub(super) fn renew_file(
    home: Option<&Path>,
    file: &str,
    run: &RunArgs,
    renewal: Renewal,
    but: &[String],
) -> Result<Vec<String>, ExitCode> {
    let known = known(home).map_err(fail)?;
    let sources = script::load(&[file.to_owned()], &InterpreterArgs::default(), run.request()).map_err(|error| {
        error.to_string().lines().for_each(|line| log::error!("{line}"));
        ExitCode::from(load_error_code(error.is_usage()))
    })?;
    let log_folder = Some(launch::log_folder(&known.home));
    let sources = Sources { base_env: Some(launch::own_environment()), background: true, log_folder, ..sources };
    loader::notes(&sources, None).iter().for_each(|note| log::warn!("{note}"));
    let done = rollout::run(&known, sources, renewal, but).map_err(|error| start::refused(&error))?;
    match apply::report(done.outcomes) {
        ExitCode::SUCCESS => Ok(done.apps),
        code => Err(code),
    }
}
