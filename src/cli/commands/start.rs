//! `clusterd start`: runs scripts, commands, files, or stopped apps in the background. Returns when the app is ready or has
//! failed, and says which.
use super::logs;
use crate::api::types::App;
use crate::api::{Change, Request};
use crate::cli::apply::{self, Concurrency, fail};
use crate::cli::exit::{EXIT_USAGE, load_error_code};
use crate::cli::launch::{self, own_environment};
use crate::cli::rollout::{self, Renewal, RolloutError};
use crate::cli::run_args::{RunArgs, RunArgsError};
use crate::cli::script::{self, InterpreterArgs, ScriptError};
use crate::cli::target::{Known, known};
use crate::cli::units::size;
use crate::config::import;
use crate::config::sources::Sources;
use crate::loader::{self, STDIN};
use clap::Args;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use thiserror::Error;

/// Apps of one command whose settings are printed.
const SETTINGS_SHOWN_MAX: usize = 8;

/// First lines of its help.
const USAGE: &str = "clusterd start [OPTIONS] SCRIPT... [-- ARG...]
       clusterd start [OPTIONS] -- COMMAND [ARG]...
       clusterd start [OPTIONS] FILE
       clusterd start TARGET...";

/// Run something in the background, or start again what was stopped
#[derive(Args, Clone, Debug, Default, PartialEq)]
#[command(override_usage = USAGE)]
pub struct Start {
    /// A script, a command in quotes, a configuration file (.toml, or PM2's: .config.js,
    /// .json, .yaml; -: standard input), or what was stopped: a name, an id, a namespace,
    /// "/a pattern/" or "all"
    #[arg(value_name = "SCRIPT|FILE|TARGET")]
    pub what: Vec<String>,
    /// Start again with the environment of this command
    #[arg(short = 'a', long, help_heading = "Surroundings")]
    pub update_env: bool,
    /// Leave out variables of this command whose names contain one of these
    #[arg(long, value_name = "TEXT", value_delimiter = ',', help_heading = "Surroundings")]
    pub filter_env: Vec<String>,
    /// Another app of a script that runs already
    #[arg(short, long, help_heading = "Other")]
    pub force: bool,
    /// Make the app and leave it stopped
    #[arg(long, help_heading = "Other")]
    pub no_autostart: bool,
    /// In the foreground
    #[arg(long, help_heading = "Other")]
    pub no_daemon: bool,
    /// Then show what it prints
    #[arg(long, conflicts_with = "no_daemon", help_heading = "Other")]
    pub attach: bool,
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
    #[error("both a script and --config: give one of them")]
    WordAndConfig,
    /// The words behind `--` are the script's arguments.
    #[error("arguments behind -- go with one script")]
    SeveralScripts,
    #[error("--name goes with one script")]
    SeveralNamed,
    #[error(transparent)]
    Run(#[from] RunArgsError),
}

impl Start {
    /// Checks combinations of arguments.
    pub(super) fn validate(&self) -> Result<(), StartArgsError> {
        let several = self.what.len() > 1;
        match [!self.what.is_empty(), self.run.config().is_some(), !self.run.command.is_empty()] {
            [false, false, false] => Err(StartArgsError::Nothing),
            [true, true, _] => Err(StartArgsError::WordAndConfig),
            [true, false, true] if several => Err(StartArgsError::SeveralScripts),
            [true, false, _] if several && self.run.options.has("name") => Err(StartArgsError::SeveralNamed),
            [true, false, _] => Ok(()),
            [false, ..] => Ok(self.run.validate()?),
        }
    }

    /// With `--no-daemon`: the arguments of the same run in the foreground.
    ///
    /// # Errors
    /// What is named cannot be run.
    pub(super) fn in_foreground(&self) -> Option<Result<Vec<OsString>, String>> {
        if !self.no_daemon {
            return None;
        }
        let args = match self.what.as_slice() {
            [] => self.run.words(None, &self.run.command),
            [file] if import::is_configuration(file) || file == STDIN => self.run.words(Some(file), &[]),
            [script] => match script::command(script, &self.interpreter, &self.run.command) {
                Ok(command) => self.run.words(None, &command),
                Err(error) => return Some(Err(error.to_string())),
            },
            [..] => return Some(Err("--no-daemon goes with one script or file".to_owned())),
        };
        Some(Ok(args.into_iter().map(OsString::from).collect()))
    }

    pub(super) fn run(&self, home: Option<&Path>) -> ExitCode {
        let known = match known(home) {
            Ok(known) => known,
            Err(error) => return fail(error),
        };
        let (targets, new): (Vec<String>, Vec<String>) =
            self.what.iter().cloned().partition(|word| self.is_target(&known, word));
        let (mut started, mut new_apps) = (Vec::new(), Vec::new());
        let mut worst = ExitCode::SUCCESS;
        if !targets.is_empty() {
            worst = self.start_known(home, &targets);
            started.extend(targets.iter().cloned());
        }
        let groups: Vec<&[String]> = match new.as_slice() {
            [] if targets.is_empty() => vec![&[]],
            [] => Vec::new(),
            scripts => scripts.chunks(1).collect(),
        };
        for words in groups {
            match self.start_named(&known, words) {
                Ok(apps) => new_apps.extend(apps),
                Err(code) => worst = code,
            }
        }
        show_settings(home, &new_apps);
        started.append(&mut new_apps);
        match self.attach && worst == ExitCode::SUCCESS {
            true => logs::follow(home, started, None),
            false => worst,
        }
    }

    /// Whether a word means apps that are there: by a name, or as the script of one that was named after it.
    fn is_target(&self, known: &Known, word: &str) -> bool {
        let new = self.force || !self.run.command.is_empty() || self.run != RunArgs::default();
        known.is_target(word) || !new && self.interpreter == InterpreterArgs::default() && known.is_script(word)
    }

    /// Starts what one word names, or what is behind `--`. Returns the apps.
    fn start_named(&self, known: &Known, words: &[String]) -> Result<Vec<String>, ExitCode> {
        let mut request = self.run.request();
        if self.no_autostart {
            request.overrides.options.set("autostart", vec!["false".to_owned()]);
        }
        let sources = match script::load(words, &self.interpreter, request) {
            Ok(sources) => {
                let log_folder = Some(launch::log_folder(&known.home));
                Sources { base_env: Some(self.environment()), background: true, log_folder, ..sources }
            }
            Err(error) => {
                let is_word = matches!(error, ScriptError::NotAScript { .. });
                let unknown = words.iter().find(|word| is_word && !known.is_target(word));
                let hint = unknown.map(|word| known.did_you_mean(word)).unwrap_or_default();
                format!("{error}{hint}").lines().for_each(|line| log::error!("{line}"));
                return Err(ExitCode::from(load_error_code(error.is_usage())));
            }
        };
        loader::notes(&sources, None).iter().for_each(|note| log::warn!("{note}"));
        match rollout::run(known, sources, Renewal::Reload, &[]) {
            Ok(done) => match apply::report(done.outcomes) {
                ExitCode::SUCCESS => Ok(done.apps),
                code => Err(code),
            },
            Err(error) => Err(refused(&error)),
        }
    }

    /// The environment for new apps.
    fn environment(&self) -> std::collections::BTreeMap<String, String> {
        let mut env = own_environment();
        env.retain(|name, _| !self.filter_env.iter().any(|text| !text.is_empty() && name.contains(text)));
        env
    }

    /// Starts existing apps.
    fn start_known(&self, home: Option<&Path>, targets: &[String]) -> ExitCode {
        apply::for_each_app(home, targets, Concurrency::Parallel, |known, found| {
            let change = Change { env: self.update_env.then(own_environment), sources: None };
            match &found.view {
                None => launch::revive(&known.home, &found.deployment, |app| app == found.app, change),
                Some(_) if found.is_idle() => {
                    launch::request_ready(found, &Request::Start { app: found.app.clone(), change })
                }
                Some(view) => Ok(format!("{} runs already ({}); -f starts another", found.app, view.status)),
            }
        })
    }
}

/// Prints where the output of apps that were started goes, and when their workers are replaced by themselves.
fn show_settings(home: Option<&Path>, started: &[String]) {
    if started.is_empty() || started.len() > SETTINGS_SHOWN_MAX || !log::log_enabled!(log::Level::Info) {
        return;
    }
    // What cannot be asked is not worth an error: the start has been reported.
    let Ok(known) = known(home) else { return };
    for app in started.iter().filter_map(|name| known.find(name).ok()).flatten().filter_map(|found| found.view) {
        log::info!("{}: {}", app.name, settings(&app));
    }
}

/// `stdout in /logs/web-out.log, stderr in /logs/web-error.log; watches /srv/web`.
fn settings(app: &App) -> String {
    let place = |stream: &str, path: &Option<String>| match path.as_deref() {
        None => format!("{stream} goes where clusterd's own goes"),
        Some("NULL") => format!("{stream} is not kept"),
        Some(path) => format!("{stream} in {path}"),
    };
    let mut parts = vec![match app.log.out == app.log.err {
        true => place("output", &app.log.out),
        false => format!("{}, {}", place("stdout", &app.log.out), place("stderr", &app.log.err)),
    }];
    parts.extend(app.log.both.as_ref().map(|path| format!("both in {path}")));
    let watched = app.watch.as_ref().map(|paths| if paths.is_empty() { app.cwd.clone() } else { paths.join(" ") });
    parts.extend(watched.map(|paths| format!("watches {paths}")));
    parts.extend(app.cron_restart.as_ref().map(|times| format!("workers replaced at \"{times}\"")));
    parts.extend(app.memory_limit_bytes.map(|bytes| format!("worker replaced above {} of memory", size(bytes))));
    parts.join("; ")
}

/// Prints why nothing was started; the exit code.
pub(in crate::cli) fn refused(error: &RolloutError) -> ExitCode {
    error.to_string().lines().for_each(|line| log::error!("{line}"));
    match error {
        RolloutError::Configuration(_) => ExitCode::from(EXIT_USAGE),
        RolloutError::Command(_) => ExitCode::FAILURE,
    }
}
