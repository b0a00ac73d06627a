//! The agent of an app: one process beside the workers, started before them, one at a time. It is started again when it
//! dies, and the workers stay.
//!
//! What is to be is computed anew after every step ([`App::reconcile_agent`]), so that it does not matter what led there:
//! a start, a death, a reload, a stop, or a master that was restored from its notes.
use super::app::{App, Cx};
use super::cause::cause_text;
use super::slot::SlotPhase;
use super::timers::TimerKey;
use super::{Action, Cause, Event, Evidence, Next, ReadyRule, Report};
use crate::ids::{Generation, WorkerId};
use crate::limits;
use std::collections::BTreeSet;

/// What the supervisor has to know of an agent's configuration. Times are in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentPolicy {
    /// What makes it ready.
    pub ready: ReadyRule,
    /// One that is not ready by then has failed.
    pub ready_timeout_ms: u64,
    /// SIGKILL follows SIGTERM after this.
    pub kill_timeout_ms: u64,
    /// Wait between its death and the next one; it doubles while it dies young.
    pub restart_delay_ms: u64,
}

/// Where an agent's process stands. Times are absolute milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentPhase {
    /// Spawned or about to be. `ready_at_ms`: when living so long is enough.
    Starting { deadline_ms: u64, ready_at_ms: Option<u64> },
    /// Workers may rely on it.
    Ready { since_ms: u64 },
    /// Was asked to end (SIGTERM).
    Stopping { kill_at_ms: u64 },
    /// Was killed (SIGKILL); only its exit is missing.
    Killed,
}

impl AgentPhase {
    /// When its patience ends: not ready in time, SIGKILL after SIGTERM.
    pub fn patience_ends_ms(&self) -> Option<u64> {
        match *self {
            AgentPhase::Starting { deadline_ms, .. } => Some(deadline_ms),
            AgentPhase::Stopping { kill_at_ms } => Some(kill_at_ms),
            AgentPhase::Ready { .. } | AgentPhase::Killed => None,
        }
    }

    /// Whether its end was asked for.
    pub fn is_leaving(&self) -> bool {
        matches!(self, AgentPhase::Stopping { .. } | AgentPhase::Killed)
    }

    fn timer(&self) -> Option<u64> {
        match *self {
            AgentPhase::Starting { deadline_ms, ready_at_ms } => {
                Some(ready_at_ms.map_or(deadline_ms, |at| at.min(deadline_ms)))
            }
            AgentPhase::Stopping { kill_at_ms } => Some(kill_at_ms),
            AgentPhase::Ready { .. } | AgentPhase::Killed => None,
        }
    }
}

/// An agent's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgentProcess {
    /// Its id; ids are shared with the workers.
    pub id: WorkerId,
    /// Its generation.
    pub generation: Generation,
    /// Its process, once it runs.
    pub pid: Option<i32>,
    /// When it was spawned (absolute milliseconds).
    pub spawned_at_ms: u64,
    /// Where it stands.
    pub phase: AgentPhase,
}

/// Everything about an app's agent; also what a later master has to know of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentMemory {
    /// The one process that there is, whatever it does.
    pub process: Option<AgentProcess>,
    /// No new one before this time (absolute milliseconds).
    pub waiting_until_ms: Option<u64>,
    /// Young failures in the window (absolute milliseconds).
    pub failures: Vec<u64>,
    /// Young failures in a row.
    pub consecutive: u32,
    /// How often it was started again after an end that nobody asked for.
    pub restarts: u64,
    /// The generations in which an agent was ready once: their workers wait no more.
    pub ready_in: BTreeSet<Generation>,
}

/// What is to be.
enum Want {
    /// An agent of this generation.
    One(Generation),
    /// The one that is there, if it is.
    NoNew,
    /// None.
    None,
}

impl App {
    /// The agent's process, with how often it was started again; `None` where the app has none and wants none.
    pub fn agent(&self) -> Option<&AgentMemory> {
        let has = self.agent.process.is_some() || self.policy(self.generation).agent.is_some();
        has.then_some(&self.agent)
    }

    /// Whether every slot was ready once since the app last had no ready worker.
    pub fn was_ready(&self) -> bool {
        self.told_ready
    }

    /// The agent that can be talked to.
    pub fn ready_agent(&self) -> Option<WorkerId> {
        let process = self.agent.process.filter(|p| matches!(p.phase, AgentPhase::Ready { .. }));
        process.map(|p| p.id)
    }

    /// Whether workers of this generation may be started: it has no agent, or its agent was ready once.
    pub(super) fn agent_lets_start(&self, generation: Generation) -> bool {
        self.policy(generation).agent.is_none() || self.agent.ready_in.contains(&generation)
    }

    pub(super) fn is_agent(&self, id: Option<WorkerId>) -> bool {
        id.is_some() && self.agent.process.map(|p| p.id) == id
    }

    /// A new generation comes: what went wrong before does not count.
    pub(super) fn agent_begins_anew(&mut self) {
        self.agent.waiting_until_ms = None;
        self.agent.failures.clear();
        self.agent.consecutive = 0;
    }

    fn agent_wanted(&self) -> Want {
        let one = |generation: Generation| match self.policy(generation).agent {
            Some(_) => Want::One(generation),
            None => Want::None,
        };
        if let Some(stopping) = self.stopping {
            // The workers need it to their end.
            return if stopping.now || self.workers.is_empty() { Want::None } else { Want::NoNew };
        }
        if let Some(reload) = &self.reload {
            let to = reload.failed.is_none() && self.policy(reload.to).agent.is_some();
            return one(if to { reload.to } else { reload.from });
        }
        let over = self.slots.iter().all(|s| matches!(s.phase, SlotPhase::Errored | SlotPhase::Stopped));
        if over && self.workers.is_empty() { Want::None } else { one(self.generation) }
    }

    /// Brings the agent nearer to what is to be: called after every step.
    pub(super) fn reconcile_agent(&mut self, cx: &mut Cx<'_>) {
        let none = self.agent.process.is_none() && self.policies.values().all(|policy| policy.agent.is_none());
        if none {
            return;
        }
        match (self.agent_wanted(), self.agent.process) {
            (_, Some(process)) if process.phase.is_leaving() => {}
            (Want::NoNew, _) | (Want::None, None) => self.agent.waiting_until_ms = None,
            (Want::One(generation), Some(process)) if process.generation == generation => {}
            (Want::One(_) | Want::None, Some(_)) => self.terminate_agent(cx),
            (Want::One(_), None) if self.agent.waiting_until_ms.is_some_and(|at| at > cx.now_ms) => {}
            (Want::One(generation), None) => self.spawn_agent(cx, generation),
        }
        let timer = match self.agent.process {
            Some(process) => process.phase.timer(),
            None => self.agent.waiting_until_ms,
        };
        self.timers.set(TimerKey::Agent, timer);
    }

    fn spawn_agent(&mut self, cx: &mut Cx<'_>, generation: Generation) {
        let Some(policy) = &self.policy(generation).agent else { return };
        let id = WorkerId(*cx.next_worker);
        *cx.next_worker += 1;
        let phase = AgentPhase::Starting { deadline_ms: cx.now_ms + policy.ready_timeout_ms, ready_at_ms: None };
        self.agent.waiting_until_ms = None;
        self.agent.process = Some(AgentProcess { id, generation, pid: None, spawned_at_ms: cx.now_ms, phase });
        cx.act(Action::SpawnAgent { agent: id, generation });
    }

    /// SIGTERM now, SIGKILL after its time-out.
    fn terminate_agent(&mut self, cx: &mut Cx<'_>) {
        let Some(process) = self.agent.process else { return };
        let policy = self.policy(process.generation).agent.as_ref();
        let patience_ms = match self.stopping {
            Some(stopping) if stopping.now => limits::STOP_NOW_KILL_MS,
            Some(_) | None => policy.map_or(0, |policy| policy.kill_timeout_ms),
        };
        self.set_agent_phase(AgentPhase::Stopping { kill_at_ms: cx.now_ms + patience_ms });
        cx.act(Action::Terminate { worker: process.id });
    }

    fn set_agent_phase(&mut self, phase: AgentPhase) {
        if let Some(process) = &mut self.agent.process {
            process.phase = phase;
        }
    }

    /// "Stop now" shortens the patience with an agent that was asked to end before.
    pub(super) fn hurry_agent(&mut self, cx: &mut Cx<'_>) {
        if let Some(AgentPhase::Stopping { kill_at_ms }) = self.agent.process.map(|p| p.phase) {
            let kill_at_ms = kill_at_ms.min(cx.now_ms + limits::STOP_NOW_KILL_MS);
            self.set_agent_phase(AgentPhase::Stopping { kill_at_ms });
        }
    }

    /// An event about the agent's process.
    pub(super) fn on_agent_event(&mut self, cx: &mut Cx<'_>, event: Event) {
        let Some(process) = self.agent.process else { return };
        match event {
            Event::Spawned { pid, .. } => self.agent_runs(cx, pid),
            Event::SpawnFailed { reason, .. } => {
                self.agent.process = None;
                self.agent_failed(cx, process, Cause::NotStarted(reason), cx.now_ms);
                self.tell_end(cx);
            }
            Event::Evidence { evidence, .. } => self.on_agent_evidence(cx, process, evidence),
            Event::Misbehaved { reason, .. } if !process.phase.is_leaving() => {
                self.agent_failed(cx, process, Cause::Misbehaved(reason), cx.now_ms);
                self.terminate_agent(cx);
            }
            Event::Exited { status, at_ms, .. } => {
                self.agent.process = None;
                if process.phase.is_leaving() {
                    let killed = matches!(process.phase, AgentPhase::Killed);
                    cx.report(Report::AgentLeft { agent: process.id, pid: process.pid, status, killed });
                } else {
                    self.agent_failed(cx, process, Cause::Ended(status), at_ms);
                }
                self.tell_end(cx);
            }
            // A Node agent may close its channel and live on; it gets no messages then. The rest is about workers.
            _ => {}
        }
    }

    fn agent_runs(&mut self, cx: &mut Cx<'_>, pid: i32) {
        let Some(process) = &mut self.agent.process else { return };
        process.pid = Some(pid);
        let (generation, phase) = (process.generation, process.phase);
        if let AgentPhase::Starting { deadline_ms, .. } = phase {
            let after_ms = self.policy(generation).agent.as_ref().and_then(|policy| policy.ready.after_ms);
            let ready_at_ms = after_ms.map(|after_ms| cx.now_ms + after_ms);
            self.set_agent_phase(AgentPhase::Starting { deadline_ms, ready_at_ms });
        }
    }

    fn on_agent_evidence(&mut self, cx: &mut Cx<'_>, process: AgentProcess, evidence: Evidence) {
        let wanted = self.policy(process.generation).agent.as_ref().and_then(|policy| policy.ready.evidence);
        if matches!(process.phase, AgentPhase::Starting { .. }) && wanted == Some(evidence) {
            self.agent_is_ready(cx, process);
        }
    }

    fn agent_is_ready(&mut self, cx: &mut Cx<'_>, process: AgentProcess) {
        self.set_agent_phase(AgentPhase::Ready { since_ms: cx.now_ms });
        let after_ms = cx.now_ms.saturating_sub(process.spawned_at_ms);
        cx.report(Report::AgentReady { agent: process.id, pid: process.pid, after_ms });
        let known = self.generations();
        self.agent.ready_in.retain(|generation| known.contains(generation));
        if !self.agent.ready_in.insert(process.generation) || self.stopping.is_some() {
            return;
        }
        // Its workers have waited for it.
        for index in 0..self.slots.len() as u32 {
            if self.waits_for_agent(index, process.generation) {
                self.fill(cx, index);
            }
        }
        self.step_reload(cx);
    }

    /// Whether a slot is empty because the agent of this generation was not ready yet.
    fn waits_for_agent(&self, index: u32, generation: Generation) -> bool {
        self.slots.get(index as usize).is_some_and(|slot| {
            slot.generation == generation
                && slot.phase == SlotPhase::Filled
                && slot.current.is_none()
                && slot.incoming.is_none()
        })
    }

    pub(super) fn on_agent_timer(&mut self, cx: &mut Cx<'_>) {
        let Some(process) = self.agent.process else { return };
        match process.phase {
            AgentPhase::Starting { ready_at_ms: Some(at), .. } if at <= cx.now_ms => self.agent_is_ready(cx, process),
            AgentPhase::Starting { .. } => {
                let waited_ms = self.policy(process.generation).agent.as_ref().map_or(0, |p| p.ready_timeout_ms);
                self.agent_failed(cx, process, Cause::NotReady { ms: waited_ms, why: None }, cx.now_ms);
                self.terminate_agent(cx);
            }
            AgentPhase::Stopping { .. } => {
                cx.report(Report::AgentOverdue { agent: process.id });
                self.set_agent_phase(AgentPhase::Killed);
                cx.act(Action::Kill { worker: process.id });
            }
            AgentPhase::Ready { .. } | AgentPhase::Killed => {}
        }
    }

    /// What the end of an agent means that nobody asked for: the failure of a reload, or the next try.
    fn agent_failed(&mut self, cx: &mut Cx<'_>, process: AgentProcess, cause: Cause, at_ms: u64) {
        let AgentProcess { id, generation, pid, spawned_at_ms, phase } = process;
        let lived_ms = at_ms.saturating_sub(spawned_at_ms);
        let min_uptime_ms = self.policy(generation).min_uptime_ms;
        let young = !matches!(phase, AgentPhase::Ready { .. }) || lived_ms < min_uptime_ms;
        let first = !self.agent.ready_in.contains(&generation);
        let onward = self.reload.as_ref().is_some_and(|r| r.failed.is_none() && r.to == generation);
        let back = self.reload.as_ref().is_some_and(|r| r.failed.is_some() && r.from == generation);
        let wanted = matches!(self.agent_wanted(), Want::One(wanted) if wanted == generation);
        let reason = cause_text("agent", &cause);
        let next = match wanted {
            true if !(onward && first) => self.next_agent(cx, generation, young, first),
            true | false => Next::None,
        };
        cx.report(Report::AgentDied { agent: id, pid, cause, lived_ms, next });
        if onward && first {
            self.fail_reload(cx, reason);
        } else if back && first {
            // What is gone back to has never worked: it is left as it was.
            self.end_roll_back(cx);
        }
    }

    /// When the next one is tried, or that none is: workers that never had one wait for nothing then.
    fn next_agent(&mut self, cx: &Cx<'_>, generation: Generation, young: bool, first: bool) -> Next {
        let policy = self.policy(generation).clone();
        let delay_ms = policy.agent.as_ref().map_or(0, |agent| agent.restart_delay_ms);
        let agent = &mut self.agent;
        agent.failures.retain(|&at| at + policy.window_ms >= cx.now_ms);
        if young {
            agent.consecutive = agent.consecutive.saturating_add(1);
            if agent.failures.len() == limits::FAILURES_REMEMBERED_MAX {
                agent.failures.remove(0);
            }
            agent.failures.push(cx.now_ms);
        } else {
            agent.consecutive = 0;
        }
        let failures = agent.failures.len() as u32;
        let doublings = agent.consecutive.saturating_sub(1);
        let ms = delay_ms
            .saturating_mul(1u64.checked_shl(doublings).unwrap_or(u64::MAX))
            .min(policy.backoff_max_ms.max(delay_ms));
        agent.waiting_until_ms = Some(cx.now_ms + ms);
        if first && young && policy.max_restarts.is_some_and(|max| failures >= max) {
            for index in 0..self.slots.len() as u32 {
                if self.waits_for_agent(index, generation) {
                    self.set_slot_phase(index, SlotPhase::Errored);
                }
            }
        }
        if matches!(self.agent_wanted(), Want::None) {
            return Next::Errored { failures };
        }
        self.agent.restarts += 1;
        Next::Waiting { ms, failures, max: policy.max_restarts.filter(|_| first) }
    }

    /// A slot that was noted for a start, or a reload, whose own note died with its master would wait for an agent that
    /// never comes: it goes back to what the app is.
    pub(super) fn keep_to_agent(&mut self, index: u32) {
        let generation = self.slots.get(index as usize).map(|slot| slot.generation);
        let strange = generation.is_some_and(|generation| !self.agent_lets_start(generation));
        let own = self.generation;
        if let Some(slot) = self.slot_mut(index).filter(|_| strange) {
            slot.generation = own;
        }
    }

    /// Goes on with an agent that a former master left. One that the keeper does not know was never started.
    pub(super) fn rejoin_agent(&mut self, cx: &mut Cx<'_>, known_pid: &dyn Fn(WorkerId) -> Option<i32>) {
        let Some(process) = &mut self.agent.process else { return };
        process.pid = known_pid(process.id);
        let AgentProcess { id, generation, pid, phase, .. } = *process;
        match (pid, phase) {
            (None, AgentPhase::Stopping { .. } | AgentPhase::Killed) => self.agent.process = None,
            (None, AgentPhase::Starting { .. } | AgentPhase::Ready { .. }) => {
                cx.act(Action::SpawnAgent { agent: id, generation });
            }
            // As with workers: noted before it was done.
            (Some(_), AgentPhase::Killed) => cx.act(Action::Kill { worker: id }),
            (Some(pid), AgentPhase::Starting { ready_at_ms: None, .. }) => self.agent_runs(cx, pid),
            (Some(_), AgentPhase::Starting { .. } | AgentPhase::Ready { .. } | AgentPhase::Stopping { .. }) => {}
        }
    }
}
