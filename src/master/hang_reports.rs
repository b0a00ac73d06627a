//! Ends workers whose event loop is stuck; where the configuration says so, after the worker has left a report.
//! `crate::reports` obtains the report.
use super::context::Context;
use super::output::Output;
use super::system::System;
use crate::config::inspect;
use crate::ids::WorkerId;
use crate::os::signal;
use crate::reports::{self, Ask, OpenInspector, Outcome};
use crate::worker::node::inspector::Written;
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};

/// Reports requested at the same time. Further workers get SIGABRT without one.
const HANG_REPORTS_AT_ONCE_MAX: usize = 4;

/// Reports that were requested.
pub(super) struct HangReports {
    /// How messages name each worker.
    open: BTreeMap<WorkerId, String>,
    /// Results from the threads, at most one for each open report.
    outcomes: (Sender<Outcome>, Receiver<Outcome>),
}

impl Default for HangReports {
    fn default() -> HangReports {
        HangReports { open: BTreeMap::new(), outcomes: channel() }
    }
}

impl HangReports {
    /// Aborts a worker whose event loop is stuck: it may leave a report first, and a core.
    pub(super) fn abort(&mut self, cx: &mut Context<impl System>, output: &Output, worker: WorkerId) {
        if !self.ask(cx, output, worker) {
            cx.keeper.signal(worker, signal::ABRT);
        }
    }

    /// Requests a report. Returns whether SIGABRT has to wait for it (for a bounded time).
    fn ask(&mut self, cx: &mut Context<impl System>, output: &Output, id: WorkerId) -> bool {
        let Some(worker) = cx.workers.find(id).and_then(|ix| cx.workers.get(ix)) else { return false };
        let Some(pid) = worker.pid else { return false };
        let app = &cx.apps[worker.app];
        let settings = app.generations.get(&worker.generation).unwrap_or_else(|| app.settings());
        let room = self.open.len() < HANG_REPORTS_AT_ONCE_MAX;
        if !settings.leaves_hang_reports() || !room {
            return false;
        }
        let slot = app.supervisor.worker(id).map_or_else(String::new, |w| format!("/{}", w.slot));
        let label = format!("{}{slot}: worker {id} (pid {pid})", app.name);
        let directory = settings.config.limits.hang_report_dir.clone();
        let open = inspect::is_open(&settings.config.command, &settings.node_options())
            .then(|| OpenInspector { not_ports: app.ports_and_paths().0 });
        // Before the signal: it tells it once.
        let ask = Ask { worker: id, pid, directory, said: output.listen(id), open };
        let (sender, wake) = (self.outcomes.0.clone(), std::sync::Arc::clone(&cx.wake));
        let started = reports::start(ask, move |outcome| {
            // Without a receiver the loop has ended, and the process with it.
            let _ = sender.send(outcome);
            wake();
        });
        if let Err(e) = started {
            log::warn!("{label}: cannot request a report: {e}");
            return false;
        }
        self.open.insert(id, label);
        cx.keeper.signal(id, signal::USR1);
        true
    }

    /// Handles finished reports, and aborts their workers.
    pub(super) fn take(&mut self, cx: &mut Context<impl System>) {
        while let Ok(Outcome { worker, left }) = self.outcomes.1.try_recv() {
            let label = self.open.remove(&worker).unwrap_or_default();
            match left {
                Err(why) => log::warn!("{label} left no report: {why}"),
                Ok(written) => log_report(&label, &written),
            }
            cx.keeper.signal(worker, signal::ABRT);
        }
    }
}

fn log_report(label: &str, written: &Written) {
    let Written { file, why, stack } = written;
    let stood = match stack.as_slice() {
        [] => " was stuck".to_owned(),
        [first] => format!(" was stuck in {first}"),
        [first, rest @ ..] => format!(" was stuck in {first}, called by {}", rest.join(", ")),
    };
    match (file, why) {
        (Some(file), _) => log::warn!("{label}{stood}; its report: {file}"),
        (None, Some(why)) => log::warn!("{label}{stood}; its report could not be written: {why}"),
        (None, None) => log::warn!("{label}{stood}; it wrote no report"),
    }
}
