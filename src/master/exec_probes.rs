//! Liveness probes by a command (`alive.exec`): runs it for a worker, and brings its result back to the loop. When it runs, and what a
//! failure means, is decided in `http_probes`; `crate::hooks` runs it.
use super::context::Context;
use super::system::System;
use crate::hooks::{Command, Hooks, Trouble};
use crate::ids::{WorkerId, WorkerIx};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

/// Commands that run at the same time, over all apps; further ones wait.
const EXEC_PROBES_AT_ONCE_MAX: usize = 8;

/// The result for a worker: why the command failed, if it did.
pub(super) type Ended = (WorkerId, Result<(), Trouble>);

/// The master's side of the thread that runs the commands.
pub(super) struct ExecProbes {
    /// Started for the first command.
    runs: Option<Hooks>,
    ended: (Sender<Ended>, Receiver<Ended>),
}

impl Default for ExecProbes {
    fn default() -> ExecProbes {
        ExecProbes { runs: None, ended: channel() }
    }
}

impl ExecProbes {
    /// Runs the command for a worker.
    ///
    /// # Errors
    /// There is no thread to run it.
    pub(super) fn start(
        &mut self,
        cx: &Context<impl System>,
        ix: WorkerIx,
        command: &Arc<Command>,
        timeout_ms: u64,
    ) -> std::io::Result<()> {
        let Some(worker) = cx.workers.get(ix) else { return Ok(()) };
        let runs = match &mut self.runs {
            Some(runs) => runs,
            none => {
                let begin = |name, stack_bytes, runner| cx.system.in_background(name, stack_bytes, runner);
                none.insert(Hooks::start(EXEC_PROBES_AT_ONCE_MAX, begin)?)
            }
        };
        let variables = [
            ("CLUSTERD_EVENT", "alive".to_owned()),
            ("CLUSTERD_APP", cx.apps[worker.app].name.clone()),
            ("CLUSTERD_SLOT", worker.slot.to_string()),
            ("CLUSTERD_WORKER", worker.id.to_string()),
            ("CLUSTERD_PID", worker.pid.map_or_else(String::new, |pid| pid.to_string())),
            ("CLUSTERD_GENERATION", worker.generation.to_string()),
        ];
        let variables = variables.into_iter().map(|(name, value)| format!("{name}={value}").into_bytes()).collect();
        let (id, sender, wake) = (worker.id, self.ended.0.clone(), Arc::clone(&cx.wake));
        let on_end = Box::new(move |outcome| {
            // Without a receiver the loop has ended, and the process with it.
            let _ = sender.send((id, outcome));
            wake();
        });
        runs.push_and_tell(Arc::clone(command), variables, timeout_ms, on_end);
        Ok(())
    }

    /// The next result.
    pub(super) fn take(&mut self) -> Option<Ended> {
        self.ended.1.try_recv().ok()
    }
}
