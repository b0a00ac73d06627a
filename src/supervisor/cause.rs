//! Why a worker is lost, in words: reasons why a worker is not ready, and causes as the reason of a failed reload.
use super::app::App;
use super::worker::{Phase, Worker};
use super::{Cause, Evidence, ExitStatus};
use crate::ids::WorkerId;

impl App {
    /// Remembers why a worker is not ready; the last reason counts.
    pub(super) fn on_not_yet(&mut self, worker: WorkerId, why: String) {
        if let Some(w) = self.workers.get_mut(&worker).filter(|w| matches!(w.phase, Phase::Starting { .. })) {
            w.not_yet = Some(why);
        }
    }

    /// Why a worker is not ready yet, if that is known.
    pub fn not_yet(&self, worker: WorkerId) -> Option<&str> {
        let w = self.workers.get(&worker).filter(|w| matches!(w.phase, Phase::Starting { .. }))?;
        w.not_yet.as_deref()
    }

    /// Whether time alone makes the worker ready, as that of an app without a port.
    pub(super) fn may_end(&self, worker: WorkerId) -> bool {
        let rules = |w: &Worker| self.policy(w.generation).rules(w.slot).ready.after_ms;
        self.workers.get(&worker).is_some_and(|w| rules(w).is_some())
    }

    /// The cause for a worker whose time to get ready is over.
    pub(super) fn not_ready(&self, w: &Worker) -> Cause {
        let rules = self.policy(w.generation).rules(w.slot);
        // The probe begins when its server listens.
        let never_asked = || "it has not called listen() yet, and was not asked".to_owned();
        let asked = rules.ready.evidence == Some(Evidence::Http);
        let why = w.not_yet.clone().or_else(|| asked.then(never_asked));
        Cause::NotReady { ms: rules.ready_timeout_ms, why }
    }
}

/// A cause in a few words, for the reason of a failed reload; `who` names the new process.
pub(super) fn cause_text(who: &str, cause: &Cause) -> String {
    match cause {
        Cause::Ended(ExitStatus::Code(code)) => format!("the new {who} exited with code {code}"),
        Cause::Ended(ExitStatus::Signal(signal)) => format!("the new {who} was killed by signal {signal}"),
        Cause::Ended(ExitStatus::OutOfMemory) => {
            format!("the new {who} was killed by the kernel: the app reached limits.memory_max")
        }
        Cause::NotStarted { reason, .. } => format!("the new {who} could not be started: {reason}"),
        Cause::NotReady { ms, why } => {
            let why = why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            format!("the new {who} was not ready after {} s{why}", *ms as f64 / 1000.0)
        }
        Cause::Misbehaved(reason) => format!("the new {who} failed: {reason}"),
        Cause::Hung(ms) => format!("the new {who}'s event loop did not answer for {} s", *ms as f64 / 1000.0),
    }
}
