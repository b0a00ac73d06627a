//! `clusterd attach`: shows what one worker prints, and sends what is typed to its stdin.
use super::logs;
use super::send::{find, send};
use crate::api::types::LogFormat;
use crate::cli::apply::fail;
use crate::cli::error::CommandError;
use crate::cli::target::{Found, known};
use clap::Args;
use std::io::BufRead as _;
use std::path::Path;
use std::process::ExitCode;

/// Show what a worker prints and send what is typed to its stdin; Ctrl-C
/// leaves it running
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Attach {
    /// A name or an id, with "/SLOT" where there are several workers
    #[arg(value_name = "TARGET")]
    pub target: String,
}

impl Attach {
    pub(super) fn run(&self, home: Option<&Path>) -> ExitCode {
        let (found, slot) = match self.worker(home) {
            Ok(worker) => worker,
            Err(error) => return fail(error),
        };
        let target = found.app.clone();
        let is_told_apart =
            found.view.as_ref().is_some_and(|app| app.log.per_worker || app.log.format == LogFormat::Json);
        if slot.is_some() && !is_told_apart {
            log::warn!("{target}: the workers write to the same files, so the output of all of them is shown");
        }
        // The thread ends with the process: when nobody reads the output any more, or at Ctrl-C.
        let typed = std::thread::Builder::new().spawn(move || {
            for line in std::io::stdin().lock().lines().map_while(Result::ok) {
                if let Err(error) = send(&found, slot, &line) {
                    log::error!("{}", error.of(&found.app));
                }
            }
        });
        if let Err(error) = typed {
            return fail(format_args!("cannot start a thread for what is typed: {error}"));
        }
        logs::follow(home, vec![target], slot.filter(|_| is_told_apart))
    }

    /// The worker: its app, and its slot where its output can be told from that of others.
    fn worker(&self, home: Option<&Path>) -> Result<(Found, Option<u32>), CommandError> {
        let (apps, slot) = find(&known(home)?, &self.target)?;
        let [found] = apps.as_slice() else {
            let names: Vec<&str> = apps.iter().map(|found| found.app.as_str()).collect();
            return Err(CommandError::Ambiguous { word: self.target.clone(), apps: names.join(", ") });
        };
        let app = found.living()?;
        if slot.is_none() && app.workers_wanted > 1 {
            let (word, workers) = (self.target.clone(), app.workers_wanted);
            return Err(CommandError::SeveralWorkers { word, workers });
        }
        if !app.stdin {
            log::warn!(
                "{}: nothing reads what is typed: the workers have no stdin (stdin = true, or --stdin, gives them one)",
                app.name
            );
        }
        Ok((found.clone(), slot))
    }
}
