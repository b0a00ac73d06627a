//! The end of a worker whose event loop is stuck: where the configuration wants it, it first leaves a report. How it is
//! asked for one is `crate::reports`' business.
use super::Master;
use crate::ids::WorkerId;
use crate::limits;
use crate::os::signal;
use crate::reports::{self, Ask, Told};
use crate::worker::node::inspector::Written;
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};

/// Reports that are waited for.
pub(super) struct Reports {
    /// How messages name the worker.
    open: BTreeMap<WorkerId, String>,
    /// At most one for each that is open.
    told: (Sender<Told>, Receiver<Told>),
}

impl Default for Reports {
    fn default() -> Reports {
        Reports { open: BTreeMap::new(), told: channel() }
    }
}

impl Master {
    /// As [`Master::terminate`], for a worker whose event loop does not turn: it may leave a report, and a core.
    pub(super) fn abort(&mut self, worker: WorkerId) {
        if !self.ask_for_report(worker) {
            self.send_signal(worker, signal::ABRT, false);
        }
        self.admit_no_more(worker);
    }

    /// Whether a report was asked for: SIGABRT waits until it is there, for a bounded time.
    fn ask_for_report(&mut self, id: WorkerId) -> bool {
        let Some(worker) = self.cx.workers.find(id).and_then(|ix| self.cx.workers.get(ix)) else { return false };
        let Some(pid) = worker.pid else { return false };
        let app = &self.cx.apps[worker.app];
        let settings = app.generations.get(&worker.generation).unwrap_or_else(|| app.settings());
        let room = self.reports.open.len() < limits::HANG_REPORTS_AT_ONCE_MAX;
        if !settings.protocol.leaves_hang_reports() || !settings.config.limits.hang_report || !room {
            return false;
        }
        let slot = app.supervisor.worker(id).map_or_else(String::new, |w| format!("/{}", w.slot));
        let label = format!("{}{slot}: worker {id} (pid {pid})", app.name);
        let directory = settings.config.limits.hang_report_dir.clone();
        let ask = Ask { worker: id, pid, directory, not_ports: app.ports_and_paths().0 };
        let (sender, wake) = (self.reports.told.0.clone(), std::sync::Arc::clone(&self.cx.wake));
        let started = reports::start(ask, move |told| {
            // Without a receiver the loop is gone, and the process with it.
            let _ = sender.send(told);
            wake();
        });
        if let Err(e) = started {
            log::warn!("{label}: cannot ask it for a report: {e}");
            return false;
        }
        self.reports.open.insert(id, label);
        self.send_signal(id, signal::USR1, false);
        true
    }

    /// Reports that are there, or will not come: their workers have no other use.
    pub(super) fn take_reports(&mut self) {
        while let Ok(Told { worker, left }) = self.reports.told.1.try_recv() {
            let label = self.reports.open.remove(&worker).unwrap_or_default();
            match left {
                Err(why) => log::warn!("{label} left no report: {why}"),
                Ok(written) => tell(&label, &written),
            }
            self.send_signal(worker, signal::ABRT, false);
        }
    }
}

fn tell(label: &str, written: &Written) {
    let Written { file, why, stack } = written;
    let stood = match stack.as_slice() {
        [] => String::new(),
        [first] => format!(" was stuck in {first}"),
        [first, rest @ ..] => format!(" was stuck in {first}, called by {}", rest.join(", ")),
    };
    match (file, why) {
        (Some(file), _) => log::warn!("{label}{stood}; its report: {file}"),
        (None, Some(why)) => log::warn!("{label}{stood}; its report could not be written: {why}"),
        (None, None) => log::warn!("{label}{stood}; it wrote no report"),
    }
}
