//! `clusterd profile`: has a Node worker write a profile of its CPU time, or a snapshot of its heap.
use super::send::find;
use crate::api::Request;
use crate::api::types::{ProfileKind, ProfileRequest};
use crate::cli::apply::{fail, print};
use crate::cli::client;
use crate::cli::error::CommandError;
use crate::cli::target::known;
use crate::config::parse;
use clap::Args;
use std::path::{Path, PathBuf, absolute};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Have a Node worker write a profile, which Chrome and VS Code open
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Profile {
    /// One worker: web/1; or a name or an id, where the app has one worker
    #[arg(value_name = "TARGET")]
    pub target: String,
    /// Where its CPU time goes for this time (.cpuprofile)
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time)]
    pub cpu: Duration,
    /// A snapshot of its heap instead (.heapsnapshot); it serves nobody
    /// while that is written
    #[arg(long, conflicts_with = "cpu")]
    pub heap: bool,
    /// The file, which the worker writes with its own rights; it must not
    /// be there [default: in this folder, or where the worker runs as
    /// another user in /tmp]
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

fn time(word: &str) -> Result<Duration, String> {
    parse::duration_not_zero(word).map_err(|error| error.to_string())
}

impl Profile {
    pub(super) fn run(&self, home: Option<&Path>) -> ExitCode {
        match self.take(home) {
            Ok(said) => print(&format!("{said}\n")),
            Err(error) => fail(error),
        }
    }

    fn take(&self, home: Option<&Path>) -> Result<String, CommandError> {
        let (apps, slot) = find(&known(home)?, &self.target)?;
        let [found] = apps.as_slice() else {
            let names: Vec<&str> = apps.iter().map(|found| found.app.as_str()).collect();
            return Err(CommandError::Ambiguous { word: self.target.clone(), apps: names.join(", ") });
        };
        let app = found.living()?;
        let kind = if self.heap { ProfileKind::Heap } else { ProfileKind::Cpu };
        let file = match &self.output {
            Some(path) => Some(path.clone()),
            None if app.user.is_none() => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
                let slot = slot.or_else(|| app.workers.first().map(|worker| worker.slot)).unwrap_or(0);
                Some(format!("{}-{slot}-{now}.{}", app.name, kind.ending()).into())
            }
            None => None,
        };
        let file = file.map(|path| absolute(&path).unwrap_or(path).to_string_lossy().into_owned());
        let time_ms = (!self.heap).then(|| u64::try_from(self.cpu.as_millis()).unwrap_or(u64::MAX));
        let what = ProfileRequest { kind, time_ms, slot, file };
        Ok(client::send(&found.socket, &Request::Profile { app: found.app.clone(), what })?)
    }
}
