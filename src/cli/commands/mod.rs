//! The verbs: one file each, with arguments, request and output. This file registers them; code that several of them
//! share (find apps, wait, start, end, tables) is one folder up.
mod check;
mod completions;
mod delete;
mod describe;
mod env;
mod flush;
mod help;
mod import;
mod init;
mod kill;
mod logs;
mod ls;
mod man;
pub(super) mod reload;
mod reload_logs;
mod restart;
mod resurrect;
mod save;
pub(super) mod scale;
mod schema;
mod signal;
mod start;
mod startup;
pub(super) mod stop;
mod top;
mod upgrade;

use super::run_args::RunArgsError;
use clap::{Command, Subcommand};
pub(super) use help::Text;
use std::path::Path;
use std::process::ExitCode;
use thiserror::Error;

/// A verb with its arguments, as typed, in the order of the help.
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub enum Verb {
    Start(Box<start::Start>),
    Ls(ls::Ls),
    Jlist(ls::Jlist),
    Top(top::Top),
    Describe(describe::Describe),
    Env(env::Env),
    Reload(reload::Reload),
    Restart(restart::Restart),
    Stop(stop::Stop),
    Delete(delete::Delete),
    Scale(scale::Scale),
    Signal(signal::Signal),
    Logs(logs::Logs),
    Flush(flush::Flush),
    #[command(name = "reloadLogs")]
    ReloadLogs(reload_logs::ReloadLogs),
    Upgrade(upgrade::Upgrade),
    Save(save::Save),
    Resurrect(resurrect::Resurrect),
    Startup(startup::Startup),
    Unstartup(startup::Unstartup),
    Kill(kill::Kill),
    Check(check::Check),
    Init(init::Init),
    Schema(schema::Schema),
    Import(import::Import),
    Completions(completions::Completions),
    Man(man::Man),
    Help(help::Help),
}

/// Missing arguments, or a combination that is not allowed.
#[derive(Debug, Error)]
pub(super) enum ArgumentsError {
    #[error(transparent)]
    Start(#[from] start::StartArgsError),
    #[error(transparent)]
    Run(#[from] RunArgsError),
}

impl Verb {
    /// Checks rules between arguments that clap does not know.
    ///
    /// # Errors
    /// The arguments that are missing or not allowed together.
    pub(super) fn validate(&self) -> Result<(), ArgumentsError> {
        match self {
            Verb::Start(verb) => Ok(verb.validate()?),
            Verb::Check(verb) => Ok(verb.run.validate()?),
            _ => Ok(()),
        }
    }

    /// The text of a verb about the command line itself (`whole`); `None` for other verbs.
    pub(super) fn text(&self, whole: impl FnOnce() -> Command) -> Option<std::io::Result<Text>> {
        match self {
            Verb::Completions(verb) => Some(Ok(Text::Print(verb.text(whole())))),
            Verb::Schema(verb) => Some(Ok(Text::Print(verb.text()))),
            Verb::Man(verb) => Some(verb.text(whole()).map(Text::Print)),
            Verb::Help(verb) => Some(Ok(verb.text(whole()))),
            _ => None,
        }
    }

    /// Runs the verb. `home`: `--home`, or `CLUSTERD_HOME`.
    pub(super) fn run(&self, home: Option<&Path>) -> ExitCode {
        match self {
            Verb::Start(verb) => verb.run(home),
            Verb::Ls(verb) => verb.run(home),
            Verb::Jlist(verb) => verb.run(home),
            Verb::Top(verb) => verb.run(home),
            Verb::Describe(verb) => verb.run(home),
            Verb::Env(verb) => verb.run(home),
            Verb::Reload(verb) => verb.run(home),
            Verb::Restart(verb) => verb.run(home),
            Verb::Stop(verb) => verb.run(home),
            Verb::Delete(verb) => verb.run(home),
            Verb::Scale(verb) => verb.run(home),
            Verb::Signal(verb) => verb.run(home),
            Verb::Logs(verb) => verb.run(home),
            Verb::Flush(verb) => verb.run(home),
            Verb::ReloadLogs(verb) => verb.run(home),
            Verb::Upgrade(verb) => verb.run(home),
            Verb::Save(verb) => verb.run(home),
            Verb::Resurrect(verb) => verb.run(home),
            Verb::Startup(verb) => verb.run(home),
            Verb::Unstartup(verb) => verb.run(home),
            Verb::Kill(verb) => verb.run(home),
            Verb::Check(verb) => verb.run(),
            Verb::Init(verb) => verb.run(),
            Verb::Import(verb) => verb.run(),
            // Handled by `text`.
            Verb::Schema(_) | Verb::Completions(_) | Verb::Man(_) | Verb::Help(_) => ExitCode::SUCCESS,
        }
    }
}
