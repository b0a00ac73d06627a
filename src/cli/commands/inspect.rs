//! `clusterd inspect`: has a Node worker open its inspector, and says where.
use crate::api::types::{Protocol, Worker, WorkerState};
use crate::cli::apply::{fail, print};
use crate::cli::error::CommandError;
use crate::cli::target::known;
use crate::os::{procfs, signal};
use clap::Args;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How long a worker may take to open its inspector, in milliseconds: its event loop has to turn.
const INSPECTOR_WAIT_MS: u64 = 5_000;
/// Pause between two looks at its ports, in milliseconds.
const INSPECTOR_LOOK_MS: u64 = 20;

/// Have a Node worker open its inspector on the loopback address: this one
/// (web/1), or the first of an app
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Inspect {
    /// A name or an id, or one worker: web/1
    #[arg(value_name = "TARGET")]
    pub target: String,
}

impl Inspect {
    pub(super) fn run(&self, home: Option<&Path>) -> ExitCode {
        match self.open(home) {
            Ok(said) => print(&said),
            Err(error) => fail(error),
        }
    }

    fn open(&self, home: Option<&Path>) -> Result<String, CommandError> {
        let all = known(home)?.find(&self.target)?;
        let [found] = all.as_slice() else {
            let names: Vec<&str> = all.iter().map(|found| found.app.as_str()).collect();
            return Err(CommandError::Ambiguous { word: self.target.clone(), apps: names.join(", ") });
        };
        let app = found.living()?;
        let of = |error: CommandError| error.of(&app.name);
        if app.protocol != Protocol::Node {
            return Err(of(CommandError::NoInspector("only Node workers have an inspector")));
        }
        let ready = |worker: &&Worker| worker.state == WorkerState::Ready;
        let worker = found.workers().find(ready);
        let Some((worker, pid)) = worker.and_then(|worker| Some((worker, worker.pid?))) else {
            return Err(of(CommandError::NoInspector("no worker is ready")));
        };
        // Its inspector may be open already; then the signal does nothing, and there is no new port.
        let before = procfs::listening_ports(pid);
        signal::send(pid, signal::USR1).map_err(|error| of(CommandError::NotSignalled { pid, error }))?;
        let until = Instant::now() + Duration::from_millis(INSPECTOR_WAIT_MS);
        while Instant::now() < until {
            if let Some(port) = procfs::listening_ports(pid).into_iter().find(|port| !before.contains(port)) {
                let slot = worker.slot;
                let name = &app.name;
                return Ok(format!(
                    "{name}/{slot} (pid {pid}): 127.0.0.1:{port}; open chrome://inspect, or node inspect -p {pid}\n"
                ));
            }
            std::thread::sleep(Duration::from_millis(INSPECTOR_LOOK_MS));
        }
        Err(of(CommandError::NoInspector(
            "it has opened no port: its inspector is open already, or another process has the port (9229)",
        )))
    }
}
