//! How a worker becomes ready: by the evidence of its rule or by its age, and then, where its app is warmed up, by having answered
//! the requests of that. `app` has what follows; the shell asks.
//!
//! A worker that is warmed up is still a starting one: it gets no clients, it has a time limit of its own (`ready_timeout_ms`, from
//! the moment when it was ready), and when it dies it has died before it was ready.
use super::app::{App, Cx};
use super::worker::Phase;
use super::{Action, Evidence, ReadyBy};
use crate::ids::WorkerId;

/// Why a worker is not ready while it is warmed up, until a request has failed.
const WARMS_UP: &str = "its warm-up has not ended";

impl App {
    pub(super) fn on_online(&mut self, worker: WorkerId) {
        let Some(w) = self.workers.get(&worker) else { return };
        if let Phase::Starting { deadline_ms, ready_at_ms, severed_at_ms, warming, .. } = w.phase {
            let online = true;
            self.set_phase(worker, Phase::Starting { deadline_ms, ready_at_ms, online, severed_at_ms, warming });
        }
    }

    pub(super) fn on_evidence(&mut self, cx: &mut Cx<'_>, worker: WorkerId, evidence: Evidence) {
        let Some(w) = self.workers.get(&worker) else { return };
        let wanted = self.policy(w.generation).rules(w.slot).ready.evidence;
        if matches!(w.phase, Phase::Starting { warming: None, .. }) && wanted == Some(evidence) {
            self.on_ready(cx, worker, ReadyBy::Evidence);
        }
    }

    /// A worker or an agent has met its rule.
    pub(super) fn on_ready(&mut self, cx: &mut Cx<'_>, worker: WorkerId, by: ReadyBy) {
        let Some(w) = self.workers.get(&worker) else { return };
        let Phase::Starting { online, severed_at_ms, .. } = w.phase else { return };
        let policy = self.policy(w.generation);
        if w.is_beside() || !policy.warms_up {
            return self.become_ready(cx, worker, by);
        }
        let deadline_ms = cx.now_ms + policy.ready_timeout_ms;
        let (ready_at_ms, warming) = (None, Some(by));
        self.set_phase(worker, Phase::Starting { deadline_ms, ready_at_ms, online, severed_at_ms, warming });
        self.begin_warm_up(cx, worker);
    }

    /// Begins the warm-up of a worker, or begins again what died with the previous master.
    pub(super) fn begin_warm_up(&mut self, cx: &mut Cx<'_>, worker: WorkerId) {
        self.on_not_yet(worker, WARMS_UP.to_owned());
        cx.act(Action::WarmUp { worker });
    }

    /// A worker has answered its warm-up.
    pub(super) fn on_warmed(&mut self, cx: &mut Cx<'_>, worker: WorkerId) {
        let phase = self.workers.get(&worker).map(|w| w.phase);
        if let Some(Phase::Starting { warming: Some(by), .. }) = phase {
            self.become_ready(cx, worker, by);
        }
    }
}
