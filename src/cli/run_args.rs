//! The flags of a run: defined for clap by the table of settings (`config::schema`), with their values as typed.
use crate::config::options::Options;
use crate::config::schema::{RunFlag, Takes, flags, pm2_instances};
use crate::config::sources::Overrides;
use crate::config::{defaults, parse};
use crate::loader::Request;
use clap::error::Error as ClapError;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use std::path::PathBuf;
use thiserror::Error;

/// Name of the words behind `--`.
const COMMAND: &str = "command";

/// The flags of a run, as typed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunArgs {
    /// Every flag but `--home`.
    pub options: Options,
    /// The command to run: everything after `--`.
    pub command: Vec<String>,
    /// `--home`, or `CLUSTERD_HOME`.
    pub home: Option<PathBuf>,
}

/// Arguments that name nothing to run, or too much.
#[derive(Debug, Error)]
pub(super) enum RunArgsError {
    #[error("nothing to run: give a command (clusterd -- node app.js) or a file (-c cluster.toml)")]
    Nothing,
    #[error("both a command and --config: give one of them")]
    CommandAndConfig,
    #[error("--config: the path is empty")]
    EmptyPath,
    #[error("the command after -- is empty")]
    EmptyCommand,
    #[error("--env \"{0}\": write NAME=VALUE, or the NAME of an env.NAME table")]
    Env(String),
}

impl RunArgs {
    /// `--config`.
    pub fn config(&self) -> Option<&str> {
        self.options.get("config")
    }

    /// Checks that the arguments name one thing to run.
    ///
    /// # Errors
    /// What is missing, or not allowed together.
    pub(super) fn validate(&self) -> Result<(), RunArgsError> {
        match (self.config(), self.command.first().map(String::as_str)) {
            (None, None) => Err(RunArgsError::Nothing),
            (Some(_), Some(_)) => Err(RunArgsError::CommandAndConfig),
            (Some(""), None) => Err(RunArgsError::EmptyPath),
            (None, Some("")) => Err(RunArgsError::EmptyCommand),
            _ => match self.options.all("env").iter().find(|word| word.is_empty() || word.starts_with('=')) {
                Some(word) => Err(RunArgsError::Env(word.to_string())),
                None => Ok(()),
            },
        }
    }

    /// The words of a command line that says the same, with this configuration or command.
    pub(super) fn words(&self, config: Option<&str>, command: &[String]) -> Vec<String> {
        let takes_nothing = |long: &str| flags().iter().any(|f| f.flag.long == long && f.flag.takes == Takes::Nothing);
        let mut words = Vec::new();
        words.extend(self.home.iter().map(|home| format!("--home={}", home.display())));
        for (long, values) in self.options.iter() {
            match takes_nothing(long) {
                true => words.push(format!("--{long}")),
                false => words.extend(values.iter().map(|value| format!("--{long}={value}"))),
            }
        }
        words.extend(config.map(|file| format!("--config={file}")));
        if !command.is_empty() {
            words.push("--".to_owned());
            words.extend_from_slice(command);
        }
        words
    }

    /// The part that the loader needs.
    pub(super) fn request(&self) -> Request {
        Request { config: self.config().map(str::to_owned), overrides: self.overrides() }
    }

    /// The settings of the command line, as plain data; paths of `--env-file` are as typed.
    pub(super) fn overrides(&self) -> Overrides {
        let mut options = self.options.clone();
        options.take("config");
        let only = options.take("only");
        let env_files = options.take("env-file");
        let (pairs, env_names): (Vec<String>, Vec<String>) =
            options.take("env").into_iter().partition(|word| word.contains('='));
        let pair = |word: &String| word.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        let env = pairs.iter().filter_map(pair).collect();
        if let [.., instances] = options.take("instances").as_slice() {
            options.set("workers", vec![pm2_instances(instances)]);
        }
        set_readiness(&mut options);
        if !options.take("time").is_empty() {
            options.set("log-date-format", vec!["true".to_owned()]);
        }
        if !options.take("disable-logs").is_empty() {
            // Also where the configuration names files.
            for flag in ["log", "output", "error"] {
                options.set(flag, vec!["NULL".to_owned()]);
            }
        }
        if !options.take("no-autorestart").is_empty() {
            options.set("max-runs", vec!["1".to_owned()]);
        }
        Overrides { command: self.command.clone(), only, env, env_names, env_files, options }
    }
}

/// PM2's `--wait-ready` and `--listen-timeout`. As there, a worker that never sends the message counts as ready after a time,
/// unless `--ready-timeout` says when it has failed.
fn set_readiness(options: &mut Options) {
    let waits = !options.take("wait-ready").is_empty();
    let time = options.take("listen-timeout").pop().filter(|time| parse::duration_not_zero(time).is_ok());
    if waits && options.has("ready-timeout") {
        options.set("ready", vec!["message".to_owned()]);
    } else if waits {
        let time = time.unwrap_or_else(|| format!("{}s", defaults::READY_TIMEOUT.as_secs()));
        options.set("ready", vec![format!("message or {time}")]);
    } else if let Some(time) = time
        && parse::duration(&time).is_ok_and(|time| time > defaults::READY_TIMEOUT)
    {
        // Without the message only a longer time is meant: what listens too late has failed here.
        options.set("ready-timeout", vec![time]);
    }
}

impl Args for RunArgs {
    fn augment_args(command: Command) -> Command {
        let with_flags = flags().into_iter().fold(command, |command, flag| command.arg(arg(flag)));
        with_flags.arg(Arg::new(COMMAND).last(true).value_name("COMMAND").num_args(1..).hide(true))
    }

    fn augment_args_for_update(command: Command) -> Command {
        RunArgs::augment_args(command)
    }
}

impl FromArgMatches for RunArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<RunArgs, ClapError> {
        let mut run = RunArgs::default();
        run.update_from_arg_matches(matches)?;
        Ok(run)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), ClapError> {
        let words = |name: &str| matches.get_many::<String>(name).into_iter().flatten().cloned().collect::<Vec<_>>();
        for RunFlag { flag, .. } in flags() {
            let typed = match flag.takes {
                Takes::Nothing if matches.get_flag(flag.long) => vec!["true".to_owned()],
                Takes::Nothing => Vec::new(),
                Takes::One | Takes::Several | Takes::List => words(flag.long),
            };
            self.options.set(flag.long, typed);
        }
        self.command = words(COMMAND);
        Ok(())
    }
}

/// A flag for clap. Its value is kept as typed, and parsed later together with the file.
fn arg(RunFlag { flag, help, check }: RunFlag) -> Arg {
    let arg = Arg::new(flag.long).long(flag.long).help(help).help_heading(flag.heading).hide(flag.hidden);
    let arg = match flag.takes {
        Takes::Nothing => arg.action(ArgAction::SetTrue),
        Takes::One => arg.action(ArgAction::Set),
        Takes::Several => arg.action(ArgAction::Append),
        Takes::List => arg.action(ArgAction::Append).value_delimiter(','),
    };
    let arg = match flag.takes {
        Takes::Nothing => arg,
        Takes::One | Takes::Several | Takes::List => {
            arg.value_name(flag.value).allow_hyphen_values(flag.hyphen).value_parser(move |text: &str| {
                let text = flag.written_out(text);
                check(&text).map(|()| text)
            })
        }
    };
    let arg = flag.short.map_or(arg.clone(), |short| arg.short(short));
    let arg = flag.alias.map_or(arg.clone(), |alias| arg.alias(alias));
    let arg = flag.conflicts.map_or(arg.clone(), |other| arg.conflicts_with(other));
    flag.requires.map_or(arg.clone(), |other| arg.requires(other))
}
