//! Parses the command line: a run, a verb, or a text to print; and explains errors. The flags of a run are in
//! `run_args`, the verbs and their arguments in `commands`.
use super::commands::{Text, Verb};
use super::help;
use super::pm2::table::{self, Outcome};
use super::pm2::{self, Typed};
use super::run_args::RunArgs;
use super::script;
use crate::config::name;
use crate::master;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, CommandFactory, FromArgMatches, Parser};
use std::error::Error;
use std::ffi::OsString;
use std::num::ParseIntError;
use std::path::{Path, PathBuf};

/// The parsed command line.
#[derive(Clone, Debug, PartialEq)]
pub enum Invocation {
    /// Run a deployment in the foreground.
    Run(Box<RunArgs>),
    Verb {
        /// With its arguments.
        verb: Verb,
        /// `--home`, or `CLUSTERD_HOME`.
        home: Option<PathBuf>,
        /// One line for each word that does nothing here.
        notes: Vec<&'static str>,
        /// Only errors are printed.
        silent: bool,
    },
    /// `--help`, `--version`, `help`: text for stdout; exit code 0.
    Print(String),
}

/// An invalid command line. Exit code 2.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", message.trim_end())]
pub struct UsageError {
    /// For stderr, complete lines.
    pub message: String,
}

#[derive(Debug, Parser)]
#[command(
    name = "clusterd",
    version,
    about = "Runs N copies of a program behind one listening socket and keeps them running.",
    override_usage = help::USAGE,
    after_help = help::AFTER,
    disable_help_subcommand = true,
    subcommand_help_heading = "Verbs (to a deployment that runs)",
    term_width = 80
)]
struct Cli {
    #[command(flatten)]
    run: RunArgs,
    /// Folder of the control sockets (default: $CLUSTERD_HOME, or ~/.clusterd)
    #[arg(long, global = true, value_name = "DIR", help_heading = "Other")]
    home: Option<PathBuf>,
    #[command(subcommand)]
    verb: Option<Verb>,
}

/// Parses argv, program name first. Uses `CLUSTERD_HOME` if `--home` is not given.
///
/// # Errors
/// What is wrong, and what to do.
pub fn parse<I, T>(argv: I) -> Result<Invocation, UsageError>
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let argv: Vec<OsString> = argv.into_iter().map(Into::into).collect();
    if let Some(bad) = argv.iter().find(|word| word.to_str().is_none()) {
        return Err(usage(format!("\"{}\" is not UTF-8; clusterd takes only UTF-8 arguments", bad.to_string_lossy())));
    }
    let argv: Vec<String> = argv.into_iter().filter_map(|word| word.into_string().ok()).collect();
    let mut command = command();
    let Typed { argv, notes, silent } = pm2::read(&argv, &command);
    let matches = match command.try_get_matches_from_mut(&argv) {
        Ok(matches) => matches,
        Err(error) => return explain(&error, &argv),
    };
    let mut cli = Cli::from_arg_matches(&matches).map_err(usage)?;
    let home =
        cli.home.or_else(|| std::env::var_os("CLUSTERD_HOME").filter(|home| !home.is_empty()).map(PathBuf::from));
    if cli.verb.is_some() && cli.run != RunArgs::default() {
        return Err(usage("options of a run stand before a verb; write them behind it (check), or leave them out"));
    }
    let Some(verb) = cli.verb else {
        cli.run.validate().map_err(usage)?;
        cli.run.home = home;
        return Ok(Invocation::Run(Box::new(cli.run)));
    };
    verb.validate().map_err(usage)?;
    match verb.text(self::command).transpose().map_err(usage)? {
        None => Ok(Invocation::Verb { verb, home, notes, silent }),
        Some(Text::Print(text)) => Ok(Invocation::Print(text)),
        Some(Text::UnknownVerb(word)) => Err(usage(elsewhere(&word).unwrap_or_else(|| {
            let hint = name::did_you_mean(&word, &verbs(&command));
            format!("unknown verb \"{word}\"{hint}; clusterd --help lists the verbs")
        }))),
    }
}

/// Parses the command line of a deployment again, in the master: the keeper does not parse it.
///
/// # Errors
/// As [`parse`].
pub fn read_run(argv: &[OsString]) -> Result<master::Run, String> {
    match parse(argv) {
        Ok(Invocation::Run(run)) => Ok(master::Run { request: run.request(), home: run.home }),
        Ok(_) => Err("the master runs deployments only".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// The clap command, for tests that compare it with its documentation.
pub fn command() -> Command {
    Cli::command()
}

fn usage(message: impl std::fmt::Display) -> UsageError {
    UsageError { message: format!("error: {message}\nFor more, try 'clusterd --help'.\n") }
}

/// Every verb, by each of its names.
fn verbs(command: &Command) -> Vec<&str> {
    command.get_subcommands().flat_map(|verb| std::iter::once(verb.get_name()).chain(verb.get_all_aliases())).collect()
}

/// clap's error in words that fit the case.
fn explain(error: &clap::Error, argv: &[String]) -> Result<Invocation, UsageError> {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => return Ok(Invocation::Print(error.to_string())),
        ErrorKind::InvalidSubcommand | ErrorKind::UnknownArgument => {
            let typed = context(ContextKind::InvalidSubcommand).or_else(|| context(ContextKind::InvalidArg));
            if let Some(Outcome::Refused(instead)) =
                typed.as_deref().and_then(table::option_called).map(|option| option.outcome)
            {
                let word = typed.unwrap_or_default();
                return Err(usage(format!("clusterd has no option {word}; {instead}")));
            }
            if let Some(word) = typed.filter(|word| !word.starts_with('-')) {
                let command = command();
                let verbs = verbs(&command);
                let after = argv.iter().position(|other| *other == word).unwrap_or(argv.len());
                if let Some(verb) = argv[..after].iter().find(|word| verbs.contains(&word.as_str())) {
                    return Err(usage(format!("unexpected argument \"{word}\"; see: clusterd help {verb}")));
                }
                let rest: Vec<&str> = argv[after..].iter().map(String::as_str).collect();
                return Err(usage(unknown_verb(&command, &word, &rest)));
            }
        }
        // The reason names what was typed.
        ErrorKind::ValueValidation => {
            if let (Some(arg), Some(why)) = (context(ContextKind::InvalidArg), error.source()) {
                let why = match why.downcast_ref::<ParseIntError>() {
                    Some(_) => "write a whole number".to_owned(),
                    None => why.to_string(),
                };
                return Err(usage(format!("{arg}: {why}")));
            }
        }
        _ => (),
    }
    // The usage lines are in --help; here they would hide the error.
    let text = error.to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let text = text.split("\n\nUsage:").next().and_then(|text| text.split("\n\nFor more").next()).unwrap_or_default();
    let is_noise = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with("tip: to pass");
    Err(usage(text.lines().filter(is_noise).collect::<Vec<_>>().join("\n")))
}

/// What to use for a verb of another process manager; `None`: nobody has it, or it is one here.
fn elsewhere(word: &str) -> Option<String> {
    match table::verb_called(word)?.outcome {
        Outcome::Refused(instead) | Outcome::Works(instead) => {
            Some(format!("clusterd has no verb \"{word}\"; {instead}"))
        }
        Outcome::Note(_) => None,
    }
}

/// A first word that is not a verb: a typo, or a command without `--`.
fn unknown_verb(command: &Command, word: &str, rest: &[&str]) -> String {
    let is_script = [".js", ".mjs", ".cjs", ".ts"].iter().any(|ending| word.ends_with(ending));
    let verbs = verbs(command);
    if let Some(instead) = elsewhere(word) {
        return instead;
    }
    let hint = name::did_you_mean(word, &verbs);
    if !hint.is_empty() && !is_script && !verbs.contains(&word) {
        return format!("unknown verb \"{word}\"{hint} (to run a command, put -- before it: clusterd -- {word})");
    }
    if !is_script && !word.contains('/') && !Path::new(word).exists() && !script::is_program(word) {
        return format!("unknown verb \"{word}\"; clusterd --help lists the verbs");
    }
    let command = if rest.is_empty() { word.to_owned() } else { rest.join(" ") };
    format!("put -- before the command: clusterd -- {}{command}", if is_script { "node " } else { "" })
}

#[cfg(test)]
#[path = "command_line_tests.rs"]
mod tests;
