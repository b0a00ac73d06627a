//! Why a worker is lost, in words: the log, the API, hooks and the reason of a failed reload have them from here.
use super::app::App;
use super::worker::{Phase, Worker};
use super::{Cause, Evidence, ExitStatus};
use crate::ids::WorkerId;
use crate::text::{elapsed, signal_name, time_limit};
use std::fmt;

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
        let never_asked = || "it never called listen(), so it was not asked".to_owned();
        let asked = rules.ready.evidence == Some(Evidence::Http);
        let why = w.not_yet.clone().or_else(|| asked.then(never_asked));
        Cause::NotReady { ms: rules.ready_timeout_ms, why }
    }
}

/// How a process ended: `exited with code 1`, `was killed by SIGKILL`.
impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExitStatus::Code(code) => write!(f, "exited with code {code}"),
            ExitStatus::Signal(number) => write!(f, "was killed by {}", signal_name(*number)),
            ExitStatus::OutOfMemory => f.write_str("was killed by the kernel: the app reached limits.memory_max"),
        }
    }
}

/// What happened to the process, behind its name: `was not ready after 30 s`.
impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Ended(status) => status.fmt(f),
            Cause::NotStarted { reason, .. } => write!(f, "could not be started: {reason}"),
            Cause::NotReady { ms, why: None } => write!(f, "was not ready after {}", time_limit(*ms)),
            Cause::NotReady { ms, why: Some(why) } => write!(f, "was not ready after {}: {why}", time_limit(*ms)),
            Cause::Misbehaved(reason) => write!(f, "failed: {reason}"),
            Cause::Hung(ms) => write!(f, "was killed: its event loop did not answer for {}", time_limit(*ms)),
            Cause::Overran(ms) => write!(f, "did not end within {}", time_limit(*ms)),
        }
    }
}

impl Cause {
    /// The same with the time that the process lived, where the cause does not tell it.
    pub fn with_age(&self, lived_ms: u64) -> String {
        match self {
            Cause::Ended(_) => format!("{self} after {}", elapsed(lived_ms)),
            Cause::NotStarted { .. }
            | Cause::NotReady { .. }
            | Cause::Misbehaved(_)
            | Cause::Hung(_)
            | Cause::Overran(_) => self.to_string(),
        }
    }

    /// The reason of a failed reload; `who` is the new process.
    pub(super) fn of_the_new(&self, who: &str) -> String {
        format!("the new {who} {self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_reads_the_same_in_the_log_and_as_the_reason_of_a_reload() {
        let killed = Cause::Ended(ExitStatus::Signal(11));
        assert_eq!(killed.with_age(1_250), "was killed by SIGSEGV after 1.2 s");
        assert_eq!(killed.of_the_new("worker"), "the new worker was killed by SIGSEGV");
        let late = Cause::NotReady { ms: 30_000, why: Some("GET / was answered with 500".to_owned()) };
        assert_eq!(late.with_age(30_001), "was not ready after 30 s: GET / was answered with 500");
        assert_eq!(Cause::Hung(2_500).with_age(9), "was killed: its event loop did not answer for 2.5 s");
    }
}
