//! Why a command failed. The sentences are for people; `commands` puts the app's name before them.
use super::client::ClientError;
use crate::home::HomeError;
use crate::loader::LoadError;
use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// Why a command failed.
#[derive(Debug, Error)]
pub(super) enum CommandError {
    /// The home cannot be used.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// A master gave no answer, or refused.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A file cannot be read.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The configuration is wrong; one line per problem.
    #[error("{0}")]
    Configuration(String),
    /// No app has this name or id, and none is in this file.
    #[error("{0}")]
    Unknown(String),
    /// A pattern cannot be read.
    #[error("{word} is not a pattern: {why}")]
    Pattern { word: String, why: regex_lite::Error },
    /// A word means several apps where one is wanted.
    #[error("{word:?} means {apps}; name one")]
    Ambiguous { word: String, apps: String },
    /// A word means several workers where one is wanted.
    #[error("{word} has {workers} workers; name one: {word}/0")]
    SeveralWorkers { word: String, workers: u32 },
    /// One worker where a verb acts on whole apps.
    #[error("{word} is one worker; this verb acts on whole apps: name {app}")]
    OneWorker { word: String, app: String },
    /// The same, of `stop` and `delete`.
    #[error(
        "a single worker does not stay stopped: clusterd scale {0} -1 ends the last one, clusterd stop {0} ends all"
    )]
    OneWorkerStops(String),
    /// The same, with options that change an app.
    #[error("options change whole apps: name {0}, or leave them out")]
    OneWorkerOptions(String),
    #[error("{app} has no worker {slot}{those}", those = .last.map_or_else(String::new, |last| match last {
        0 => format!(", only {app}/0"),
        _ => format!(", only {app}/0 to {app}/{last}"),
    }))]
    NoWorker { app: String, slot: u32, last: Option<u32> },
    /// A worker that has no inspector, or does not open it.
    #[error("{0}")]
    NoInspector(&'static str),
    #[error("cannot send a signal to pid {pid}: {error}")]
    NotSignalled { pid: i32, error: io::Error },
    /// There is no such signal.
    #[error("there is no signal {0:?}")]
    Signal(String),
    /// A background deployment without a keeper.
    #[error("its keeper is gone; clusterd start {0} starts it again")]
    KeeperGone(String),
    /// The same, for a command that needs a running app.
    #[error("{0}: its keeper is gone")]
    NoKeeper(String),
    /// The app was deleted meanwhile.
    #[error("it is gone")]
    Gone,
    /// A reload failed while the master was replaced.
    #[error("the old generation serves; the log of clusterd says why")]
    NotReloaded,
    /// It was left out of a reload of several apps.
    #[error("not reloaded: {0}, on which it depends, was not reloaded")]
    DependencyFailed(String),
    /// Every attempt met a new master.
    #[error("its master keeps crashing")]
    MasterDies,
    /// The new master's report on an upgrade.
    #[error("{0}")]
    Upgrade(String),
    /// An upgrade took too long.
    #[error("the outcome is not known yet; clusterd ls says which version serves")]
    UpgradeUnknown,
    /// The path of this command's binary is unknown.
    #[error("cannot find the new binary: {0}")]
    NoBinary(#[source] io::Error),
    /// A foreground deployment cannot get a new configuration.
    #[error("it runs in the foreground; stop it first")]
    Foreground,
    /// Options for one app of a file with several.
    #[error("its file has several apps: write the options into {0}, then reload")]
    OptionsOfSeveral(String),
    /// A configuration for some apps of a deployment.
    #[error(
        "{app} shares its configuration with {others}, which this one does not have: add what is missing, \
         or: clusterd delete {others}"
    )]
    NotTogether { app: String, others: String },
    #[error("a running app keeps its name; start it again under another one, then: clusterd delete {0}")]
    Renamed(String),
    /// An entry of an older version.
    #[error("its entry does not say what to run; delete it and start it again")]
    NoSources,
    #[error("{name} was not started: {why}")]
    NotStarted { name: String, why: KeeperError },
    /// Any of these, with the name of the app or deployment.
    #[error("{name}: {error}")]
    Of { name: String, error: Box<CommandError> },
    /// The entry is in a folder that this user cannot write to.
    #[error("it does not run, but {path} cannot be removed; let this user write there", path = .0.display())]
    EntryStays(PathBuf),
    /// The log files of apps are unknown; one line each.
    #[error("{0}")]
    NoLogs(String),
    /// A thread of this command panicked.
    #[error("a thread of this command panicked")]
    Panicked,
}

/// Why a new keeper does not serve.
#[derive(Debug, Error)]
pub(super) enum KeeperError {
    /// The home has no absolute path.
    #[error(transparent)]
    Home(#[from] io::Error),
    /// Its process was not started.
    #[error("cannot start a keeper in {folder}: {source}")]
    NotStarted { folder: String, source: io::Error },
    /// It has ended; the last lines of its log.
    #[error("{0}")]
    Ended(String),
    /// It runs, but has no control socket.
    #[error("its keeper (pid {pid}) does not answer; see {log}", log = .log.display())]
    Silent { pid: u32, log: PathBuf },
}

impl CommandError {
    /// Adds the name of the app or deployment, once.
    pub(super) fn of(self, name: &str) -> CommandError {
        let said = self.to_string();
        if said.strip_prefix(name).is_some_and(|rest| rest.starts_with(": ") || rest.starts_with(' ')) {
            return self;
        }
        CommandError::Of { name: name.to_owned(), error: Box::new(self) }
    }

    /// Whether the keeper has exited, or was never started.
    pub(super) fn is_dead(&self) -> bool {
        matches!(self, CommandError::Client(ClientError::Ended))
    }
}
