//! Options of a run and a start that say when and how often an app is started again, as typed.
use super::args::checked;
use crate::config::{cron, parse, sources::Habits};
use clap::Args;

const HEADING: &str = "Starting again";

/// These options.
#[derive(Args, Clone, Debug, Default, PartialEq)]
pub struct HabitArgs {
    /// Replace the workers when files in the app's folder change
    #[arg(long, help_heading = HEADING)]
    pub watch: bool,
    /// Do not watch these: a line of a .gitignore; may repeat
    #[arg(long, alias = "ignore-watch", value_name = "PATTERN", value_parser = checked(parse::pattern))]
    #[arg(help_heading = HEADING)]
    pub watch_ignore: Vec<String>,
    /// Act on a change when no other followed for so long [default: 300ms]
    #[arg(long, value_name = "TIME", value_parser = checked(parse::duration_not_zero), help_heading = HEADING)]
    pub watch_delay: Option<String>,
    /// Replace the workers at these times: "0 3 * * *"
    #[arg(long, alias = "cron", value_name = "CRON", value_parser = checked(cron::read), help_heading = HEADING)]
    pub cron_restart: Option<String>,
    /// Replace a worker that uses more memory: "512M"
    #[arg(long, alias = "max-memory-restart", value_name = "SIZE", value_parser = checked(parse::size))]
    #[arg(help_heading = HEADING)]
    pub max_memory: Option<String>,
    /// A worker that lived shorter failed at its start [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = checked(parse::duration), help_heading = HEADING)]
    pub min_uptime: Option<String>,
    /// So many failures in 5 minutes end a slot; never: it goes on [default: 16]
    #[arg(long, value_name = "N", value_parser = checked(parse::max_restarts), help_heading = HEADING)]
    pub max_restarts: Option<String>,
    /// After each failure wait so long, instead of ever longer
    #[arg(long, value_name = "TIME", value_parser = checked(parse::duration_not_zero), help_heading = HEADING)]
    pub spin_sleep: Option<String>,
    /// Wait at least so long before a worker follows another
    #[arg(long, value_name = "TIME", value_parser = checked(parse::duration), help_heading = HEADING)]
    pub restart_delay: Option<String>,
    /// Run it so often and no more
    #[arg(long, value_name = "N", value_parser = checked(parse::max_runs), help_heading = HEADING)]
    pub max_runs: Option<String>,
    /// Run it once: the same as --max-runs 1
    #[arg(long, conflicts_with = "max_runs", help_heading = HEADING)]
    pub no_autorestart: bool,
    /// Exit codes after which it is not started again; may repeat, or list: 0,3
    #[arg(long, value_name = "CODE", value_delimiter = ',', help_heading = HEADING)]
    pub stop_exit_codes: Vec<u8>,
}

impl HabitArgs {
    /// As plain data.
    pub(super) fn habits(&self) -> Habits {
        Habits {
            max_runs: self.max_runs.clone().or_else(|| self.no_autorestart.then(|| "1".to_owned())),
            max_restarts: self.max_restarts.clone(),
            min_uptime: self.min_uptime.clone(),
            spin_sleep: self.spin_sleep.clone(),
            restart_delay: self.restart_delay.clone(),
            stop_exit_codes: self.stop_exit_codes.clone(),
            max_memory: self.max_memory.clone(),
            cron_restart: self.cron_restart.clone(),
            watch: self.watch,
            watch_ignore: self.watch_ignore.clone(),
            watch_delay: self.watch_delay.clone(),
        }
    }
}
