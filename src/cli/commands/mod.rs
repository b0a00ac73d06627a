//! The verbs: one file each, with arguments, request and output. This file registers them; code that several of them
//! share (find apps, wait, start, end, tables) is one folder up.
mod attach;
mod check;
mod completions;
mod delete;
mod describe;
mod env;
mod events;
mod flush;
mod help;
mod import;
mod init;
mod inspect;
mod jlist;
mod kill;
pub(super) mod logs;
mod ls;
mod man;
mod open;
mod pid;
mod ping;
mod profile;
mod releases;
pub(super) mod reload;
mod reload_logs;
mod report;
mod reset;
mod restart;
mod resurrect;
mod rollback;
mod save;
pub(super) mod scale;
mod schema;
mod send;
mod serve;
mod signal;
pub(super) mod start;
mod start_or;
mod startup;
pub(super) mod stop;
mod top;
mod trigger;
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
    Jlist(jlist::Jlist),
    Prettylist(jlist::Prettylist),
    Top(top::Top),
    Describe(describe::Describe),
    Env(env::Env),
    Reload(Box<reload::Reload>),
    Releases(releases::Releases),
    Rollback(rollback::Rollback),
    Restart(Box<restart::Restart>),
    Stop(stop::Stop),
    Delete(delete::Delete),
    #[command(name = "startOrRestart")]
    StartOrRestart(Box<start_or::StartOrRestart>),
    #[command(name = "startOrReload")]
    StartOrReload(Box<start_or::StartOrReload>),
    Serve(Box<serve::Serve>),
    Scale(scale::Scale),
    Reset(reset::Reset),
    Pid(pid::Pid),
    Id(pid::Id),
    Signal(signal::Signal),
    Send(send::Send),
    Attach(attach::Attach),
    Trigger(trigger::Trigger),
    Logs(logs::Logs),
    Flush(flush::Flush),
    Events(events::Events),
    Open(open::Open),
    #[command(name = "reloadLogs")]
    ReloadLogs(reload_logs::ReloadLogs),
    Upgrade(upgrade::Upgrade),
    Save(save::Save),
    Cleardump(save::Cleardump),
    Resurrect(resurrect::Resurrect),
    Startup(startup::Startup),
    Unstartup(startup::Unstartup),
    Kill(kill::Kill),
    Inspect(inspect::Inspect),
    Profile(profile::Profile),
    Ping(ping::Ping),
    Report(report::Report),
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
    #[error("{0}")]
    Renew(&'static str),
    #[error("{0}")]
    Serve(&'static str),
}

impl Verb {
    /// Checks rules between arguments that clap does not know.
    ///
    /// # Errors
    /// The arguments that are missing or not allowed together.
    pub(super) fn validate(&self) -> Result<(), ArgumentsError> {
        match self {
            Verb::Start(verb) => Ok(verb.validate()?),
            Verb::Serve(verb) => verb.validate().map_err(ArgumentsError::Serve),
            Verb::Check(verb) => Ok(verb.run.validate()?),
            Verb::Restart(verb) => verb.renew.validate().map_err(ArgumentsError::Renew),
            Verb::Reload(verb) => verb.renew.validate().map_err(ArgumentsError::Renew),
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

    /// The arguments of the run in the foreground that it stands for (`start --no-daemon`), if it does.
    ///
    /// # Errors
    /// What it names cannot be run.
    pub(super) fn in_foreground(&self) -> Option<Result<Vec<std::ffi::OsString>, String>> {
        match self {
            Verb::Start(verb) => verb.in_foreground(),
            Verb::Serve(verb) => verb.in_foreground(),
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
            Verb::Releases(verb) => verb.run(home),
            Verb::Rollback(verb) => verb.run(home),
            Verb::Restart(verb) => verb.run(home),
            Verb::Stop(verb) => verb.run(home),
            Verb::Delete(verb) => verb.run(home),
            Verb::Serve(verb) => verb.run(home),
            Verb::Scale(verb) => verb.run(home),
            Verb::Signal(verb) => verb.run(home),
            Verb::Send(verb) => verb.run(home),
            Verb::Attach(verb) => verb.run(home),
            Verb::Trigger(verb) => verb.run(home),
            Verb::Logs(verb) => verb.run(home),
            Verb::Flush(verb) => verb.run(home),
            Verb::Events(verb) => verb.run(home),
            Verb::Open(verb) => verb.run(home),
            Verb::ReloadLogs(verb) => verb.run(home),
            Verb::Upgrade(verb) => verb.run(home),
            Verb::Save(verb) => verb.run(home),
            Verb::Resurrect(verb) => verb.run(home),
            Verb::Startup(verb) => verb.run(home),
            Verb::Unstartup(verb) => verb.run(home),
            Verb::Kill(verb) => verb.run(home),
            Verb::Prettylist(verb) => verb.run(home),
            Verb::StartOrRestart(verb) => verb.run(home),
            Verb::StartOrReload(verb) => verb.run(home),
            Verb::Reset(verb) => verb.run(home),
            Verb::Pid(verb) => verb.run(home),
            Verb::Id(verb) => verb.run(home),
            Verb::Cleardump(verb) => verb.run(home),
            Verb::Ping(verb) => verb.run(home),
            Verb::Report(verb) => verb.run(home),
            Verb::Inspect(verb) => verb.run(home),
            Verb::Profile(verb) => verb.run(home),
            Verb::Check(verb) => verb.run(),
            Verb::Init(verb) => verb.run(),
            Verb::Import(verb) => verb.run(),
            // Handled by `text`.
            Verb::Schema(_) | Verb::Completions(_) | Verb::Man(_) | Verb::Help(_) => ExitCode::SUCCESS,
        }
    }
}
