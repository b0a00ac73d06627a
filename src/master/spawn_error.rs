//! Why no process was started: the sentence, and whether another try may help. `spawn` and the keeper start processes.
use super::output::OutputError;
use super::settings::Settings;
use super::system::System;
use crate::config;
use crate::ids::Slot;
use crate::keeper::protocol::SpawnStep;
use crate::os::{attributes, errno, process};
use crate::supervisor::Obstacle;
use std::io;
use thiserror::Error;

/// Why no process was started.
#[derive(Debug, Error)]
pub(super) enum SpawnError {
    /// The process was an agent, and the configuration has none.
    #[error("no agent is configured")]
    NoAgent,
    /// No socket pair.
    #[error("cannot create its channel: {0}")]
    Channel(io::Error),
    /// A listening socket could not be duplicated.
    #[error("cannot duplicate the socket of {listener}: {error}")]
    Listener { listener: String, error: io::Error },
    /// No pipe or file for its output.
    #[error("{0}")]
    Output(#[source] OutputError),
    /// No pipe for its input.
    #[error("cannot create a pipe for its stdin: {0}")]
    Stdin(io::Error),
    /// The settings have no command before the workers.
    #[error("its settings have no command before the workers")]
    NoBefore,
    /// The order could not be sent to the keeper.
    #[error("cannot send the order to the keeper: {0}")]
    Order(io::Error),
    /// The keeper could not execute the program.
    #[error("cannot run {program}: {cause}{hint}")]
    Exec { program: String, cause: &'static str, hint: String },
    /// The working directory is gone, or not accessible to the user.
    #[error("cannot enter the folder {folder}: {cause}{hint}")]
    WorkingDirectory { folder: String, cause: &'static str, hint: &'static str },
    /// Too many processes.
    #[error("cannot fork: {cause} (see limits.pids_max, ulimit -u and the cgroup's pids.max)")]
    Fork { cause: &'static str },
    /// Not permitted to change the user.
    #[error("cannot run as {user}: {cause}{hint}")]
    User { user: String, cause: &'static str, hint: &'static str },
    /// An attribute of the process that the system does not let it have.
    #[error("cannot set {key}: {cause}{hint}")]
    Attribute { key: String, cause: &'static str, hint: &'static str },
    /// The spec is too large for the keeper.
    #[error("its command or environment is too large: {cause}")]
    Description { cause: &'static str },
    /// The app's cgroup could not be joined.
    #[error("cannot join the app's cgroup: {cause}")]
    Cgroup { cause: &'static str },
    /// Another step between fork and exec.
    #[error("cannot prepare its process ({step:?}): {cause}")]
    Prepare { step: SpawnStep, cause: &'static str },
}

impl SpawnError {
    /// With the key that asks for the attribute.
    fn attribute(system: &impl System, step: SpawnStep, cause: &'static str, app: &config::App) -> SpawnError {
        let typed =
            |key: &str, value: Option<i32>| value.map_or_else(|| key.to_owned(), |value| format!("{key} = {value}"));
        let (key, hint) = match step {
            SpawnStep::OomScoreAdj => (
                typed("oom_score_adj", app.oom_score_adj),
                " (a lower value than clusterd was started with needs root)",
            ),
            SpawnStep::Nice => (typed("nice", app.nice), " (a lower value than clusterd's own needs root)"),
            SpawnStep::CpuAffinity => ("cpu_affinity".to_owned(), " (clusterd may run on none of these CPUs)"),
            SpawnStep::NoNewPrivileges => ("new_privileges = false".to_owned(), ""),
            _ => (too_high_limits(system, app), " (a hard limit above clusterd's own needs root)"),
        };
        SpawnError::Attribute { key, cause, hint }
    }

    /// Whether another try may help, for an error that this process had.
    pub(super) fn obstacle(&self) -> Obstacle {
        match self {
            SpawnError::NoAgent | SpawnError::NoBefore => Obstacle::Lasting,
            // It does not fit into what the keeper accepts.
            SpawnError::Order(error) if error.kind() == io::ErrorKind::InvalidInput => Obstacle::Lasting,
            _ => Obstacle::Passing,
        }
    }

    /// The error for a spawn that failed at this step in the keeper.
    pub(super) fn at_step(
        system: &impl System,
        (step, code): (SpawnStep, i32),
        settings: &Settings,
        slot: Slot,
    ) -> SpawnError {
        let cause = process::describe_errno(code);
        match step {
            SpawnStep::Exec => {
                let beside = match slot {
                    Slot::AGENT => settings.agent.as_ref().map(|agent| &agent.program),
                    Slot::BEFORE => settings.before.as_ref(),
                    Slot(_) => None,
                };
                let program = beside.unwrap_or(&settings.program).display().to_string();
                let hint = exec_hint(&program, code);
                SpawnError::Exec { program, cause, hint }
            }
            SpawnStep::WorkingDirectory => {
                let hint = if code == errno::EACCES { " (the app's user may not enter it)" } else { "" };
                SpawnError::WorkingDirectory { folder: settings.cwd.display().to_string(), cause, hint }
            }
            SpawnStep::Fork => SpawnError::Fork { cause },
            SpawnStep::Cgroup => SpawnError::Cgroup { cause },
            SpawnStep::User | SpawnStep::Group | SpawnStep::SupplementaryGroups => {
                let user = settings.config.user.clone().unwrap_or_else(|| "the configured user".to_owned());
                let hint = if code == errno::EPERM {
                    " (only root may: leave out user and group, or start as root)"
                } else {
                    ""
                };
                SpawnError::User { user, cause, hint }
            }
            SpawnStep::ResourceLimits
            | SpawnStep::OomScoreAdj
            | SpawnStep::Nice
            | SpawnStep::CpuAffinity
            | SpawnStep::NoNewPrivileges => SpawnError::attribute(system, step, cause, &settings.config),
            SpawnStep::Description => SpawnError::Description { cause },
            SpawnStep::ProcessGroup | SpawnStep::FileDescriptors | SpawnStep::Signals | SpawnStep::ParentDeath => {
                SpawnError::Prepare { step, cause }
            }
        }
    }
}

/// What to do about a program that the kernel does not execute, in brackets; empty where the error says it.
fn exec_hint(program: &str, code: i32) -> String {
    match code {
        errno::ENOEXEC => format!(" (it is a program for another machine, or damaged: see file {program})"),
        errno::ENOENT => format!(" (it is gone, or needs a loader that is not installed: see ldd {program})"),
        errno::EACCES => " (the app's user may not execute it, or its file system is mounted noexec)".to_owned(),
        errno::E2BIG => " (its arguments and its environment are too long together)".to_owned(),
        _ => String::new(),
    }
}

/// Whether a spawn that failed at this step in the keeper may succeed later.
pub(super) fn obstacle(step: SpawnStep, code: i32) -> Obstacle {
    match step {
        // What clusterd or the system lacks for a moment.
        SpawnStep::Fork
        | SpawnStep::Cgroup
        | SpawnStep::ProcessGroup
        | SpawnStep::FileDescriptors
        | SpawnStep::Signals
        | SpawnStep::ParentDeath => Obstacle::Passing,
        SpawnStep::Description
        | SpawnStep::Exec
        | SpawnStep::WorkingDirectory
        | SpawnStep::User
        | SpawnStep::Group
        | SpawnStep::SupplementaryGroups
        | SpawnStep::ResourceLimits
        | SpawnStep::OomScoreAdj
        | SpawnStep::Nice
        | SpawnStep::CpuAffinity
        | SpawnStep::NoNewPrivileges => {
            if errno::is_lasting(code) {
                Obstacle::Lasting
            } else {
                Obstacle::Passing
            }
        }
    }
}

/// The limits of an app that go further than clusterd may by itself; all of them where none does.
fn too_high_limits(system: &impl System, app: &config::App) -> String {
    let is_above = |name: &str, hard: Option<u64>| {
        let most = attributes::resource(name).and_then(|resource| system.hard_limit(resource));
        most.is_some_and(|most| hard.unwrap_or(u64::MAX) > most)
    };
    let names = |all: bool| -> Vec<String> {
        let limits = app.rlimits.iter().filter(|(name, limit)| all || is_above(name, limit.hard));
        limits.map(|(name, _)| format!("rlimits.{name}")).collect()
    };
    let above = names(false);
    if above.is_empty() { names(true).join(", ") } else { above.join(", ") }
}
