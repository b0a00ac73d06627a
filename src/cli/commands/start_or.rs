//! `startOrRestart` and `startOrReload` of PM2: the apps of a file get what it says, and those that are missing are started.
use crate::cli::renew::renew_file;
use crate::cli::rollout::Renewal;
use crate::cli::run_args::RunArgs;
use clap::Args;
use std::path::Path;
use std::process::ExitCode;

/// Start the apps of a file; those that run are restarted with it
#[derive(Args, Clone, Debug, PartialEq)]
#[command(hide = true)]
pub struct StartOrRestart {
    #[command(flatten)]
    pub args: FileArgs,
}

/// Start the apps of a file; those that run are reloaded with it, as with start
#[derive(Args, Clone, Debug, PartialEq)]
#[command(hide = true, alias = "startOrGracefulReload")]
pub struct StartOrReload {
    #[command(flatten)]
    pub args: FileArgs,
}

#[derive(Args, Clone, Debug, PartialEq)]
pub struct FileArgs {
    /// A configuration: .toml, or PM2's (.config.js, .json, .yaml)
    #[arg(value_name = "FILE")]
    pub file: String,
    #[command(flatten)]
    pub run: RunArgs,
}

impl StartOrRestart {
    pub(super) fn run(&self, home: Option<&Path>) -> ExitCode {
        self.args.run(home, Renewal::Restart)
    }
}

impl StartOrReload {
    pub(super) fn run(&self, home: Option<&Path>) -> ExitCode {
        self.args.run(home, Renewal::Reload)
    }
}

impl FileArgs {
    fn run(&self, home: Option<&Path>, renewal: Renewal) -> ExitCode {
        renew_file(home, &self.file, &self.run, renewal, &[]).map_or_else(|code| code, |_| ExitCode::SUCCESS)
    }
}
