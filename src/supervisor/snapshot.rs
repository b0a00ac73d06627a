//! What a new master needs to take over an app: plain data out of [`App`] and back in. The shell chooses the format.
use super::agent::AgentSlot;
use super::app::{App, Cx, Role, Stopping};
use super::before::BeforeSlot;
use super::reload::{Queued, Reload};
use super::slot::{SlotPhase, SlotState};
use super::timers::{TimerKey, Timers};
use super::worker::{Crew, Phase, Worker, phase_timer};
use super::{Action, Limits, Policy, ReadyRule};
use crate::ids::{Generation, Slot, WorkerId};
use crate::limits;
use std::collections::{BTreeMap, BTreeSet};

/// For a damaged snapshot that names an unknown generation.
pub(crate) static FALLBACK_POLICY: Policy = Policy {
    ready: ReadyRule { evidence: None, after_ms: Some(1_000) },
    ready_timeout_ms: 30_000,
    warms_up: false,
    drain_timeout_ms: 30_000,
    kill_timeout_ms: 5_000,
    min_uptime_ms: 1_000,
    max_restarts: None,
    window_ms: 60_000,
    backoff_first_ms: 0,
    backoff_min_ms: 100,
    backoff_max_ms: 15_000,
    restart_delay_ms: 0,
    max_runs: None,
    stop_exit_codes: Vec::new(),
    spares: 0,
    surge: 1,
    overlap: true,
    canary_ms: 0,
    settle_ms: 0,
    drain_spread_ms: 0,
    limits: Limits::NONE,
    agent: None,
    before: None,
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppSnapshot {
    /// The current generation.
    pub generation: Generation,
    /// Slots, those of spares included.
    pub slots: u32,
    /// How many workers shall serve; 0, of a master without spares: one in each slot.
    pub wanted: u32,
    /// The reload under way.
    pub reload: Option<ReloadSnapshot>,
    /// The waiting reload: its generation and number of slots.
    pub queued: Option<(Generation, u32)>,
    /// A scale that waits for the reload to end.
    pub queued_scale: Option<u32>,
    /// `Some(now)` while stopping.
    pub stopping: Option<bool>,
    /// The start that follows the stop: its generation and number of slots.
    pub then_start: Option<(Generation, u32)>,
    /// Whether all slots were ready once.
    pub reported_ready: bool,
    pub agent: AgentSnapshot,
    pub before: BeforeSnapshot,
    /// The generation of which nothing starts before it is admitted.
    pub held: Option<Generation>,
}

/// An app's agent and its slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentSnapshot {
    /// Its one process, in any state.
    pub process: Option<WorkerSnapshot>,
    /// Earliest time of the next start (absolute milliseconds).
    pub waiting_until_ms: Option<u64>,
    /// Young failures in the window (absolute milliseconds).
    pub failures: Vec<u64>,
    /// Young failures in a row.
    pub consecutive: u32,
    /// Restarts after an unrequested end.
    pub restarts: u64,
    /// The generations in which an agent was ready once: their workers no longer wait.
    pub ready_in: BTreeSet<Generation>,
}

/// The command before the workers, and its slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BeforeSnapshot {
    /// Its one process, in any state.
    pub process: Option<WorkerSnapshot>,
    /// Earliest time of the next try (absolute milliseconds).
    pub waiting_until_ms: Option<u64>,
    /// Failures in the window (absolute milliseconds).
    pub failures: Vec<u64>,
    /// Failures in a row.
    pub consecutive: u32,
    /// The generations whose command has ended well.
    pub done: BTreeSet<Generation>,
}

/// A reload under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReloadSnapshot {
    /// The old generation.
    pub from: Generation,
    /// The new one.
    pub to: Generation,
    /// Number of slots after the reload.
    pub slots: u32,
    /// Slots still to be replaced.
    pub pending: Vec<u32>,
    /// Slots whose new worker is starting.
    pub starting: Vec<u32>,
    /// Slots that were replaced.
    pub done: Vec<u32>,
    /// Why it failed, during a roll-back.
    pub failed: Option<String>,
    /// Until when the first new worker is watched (absolute milliseconds).
    pub canary_until_ms: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotSnapshot {
    pub index: u32,
    /// The generation that last served here.
    pub generation: Generation,
    pub phase: SlotPhase,
    pub current: Option<WorkerId>,
    /// The worker that is about to take it over.
    pub incoming: Option<WorkerId>,
    /// Young failures in the window (absolute milliseconds).
    pub failures: Vec<u64>,
    /// Young failures in a row.
    pub consecutive: u32,
    /// Refills so far.
    pub restarts: u64,
    /// Unrequested ends, for `max_runs`.
    pub runs: u32,
    /// A worker of this generation was ready here.
    pub proven: bool,
    /// Earliest time of the next replacement for a passed limit (absolute milliseconds).
    pub replace_after_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerSnapshot {
    pub id: WorkerId,
    pub slot: Slot,
    pub generation: Generation,
    /// Its pid, once it runs.
    pub pid: Option<i32>,
    /// When it was spawned (absolute milliseconds).
    pub spawned_at_ms: u64,
    pub phase: Phase,
    /// It left by itself.
    pub by_itself: bool,
    /// Once ready, it is held back.
    pub spare: bool,
}

impl App {
    /// The state of the app as a whole.
    pub fn snapshot(&self) -> AppSnapshot {
        AppSnapshot {
            generation: self.generation,
            slots: self.slots.len() as u32,
            wanted: self.wanted,
            reload: self.reload.as_ref().map(|r| ReloadSnapshot {
                from: r.from,
                to: r.to,
                slots: r.slots,
                pending: r.pending.iter().copied().collect(),
                starting: r.starting.clone(),
                done: r.done.clone(),
                failed: r.failed.clone(),
                canary_until_ms: r.canary_until_ms,
            }),
            queued: self.queued.as_ref().map(|q| (q.to, q.slots)),
            queued_scale: self.queued_scale,
            stopping: self.stopping.map(|s| s.now),
            then_start: self.then_start.as_ref().map(|q| (q.to, q.slots)),
            reported_ready: self.reported_ready,
            agent: self.agent_snapshot(),
            before: self.before_snapshot(),
            held: self.held,
        }
    }

    /// The slots and workers that changed since the last call; those that no longer exist come with `None`.
    #[allow(clippy::type_complexity)]
    pub fn take_changes(&mut self) -> (Vec<(u32, Option<SlotSnapshot>)>, Vec<(WorkerId, Option<WorkerSnapshot>)>) {
        let slots = std::mem::take(&mut self.touched_slots);
        let workers = std::mem::take(&mut self.touched_workers);
        (
            slots.into_iter().map(|index| (index, self.slot_snapshot(index))).collect(),
            workers.into_iter().map(|id| (id, self.worker_snapshot(id))).collect(),
        )
    }

    fn slot_snapshot(&self, index: u32) -> Option<SlotSnapshot> {
        let slot = self.slots.get(index as usize)?;
        Some(SlotSnapshot {
            index,
            generation: slot.generation,
            phase: slot.phase,
            current: slot.current,
            incoming: slot.incoming,
            failures: slot.failures.iter().copied().collect(),
            consecutive: slot.consecutive,
            restarts: slot.restarts,
            runs: slot.runs,
            proven: slot.proven,
            replace_after_ms: slot.replace_after_ms,
        })
    }

    fn worker_snapshot(&self, id: WorkerId) -> Option<WorkerSnapshot> {
        // What is beside the workers is saved with the app.
        self.workers.get(&id).filter(|w| !w.is_beside()).map(process_snapshot)
    }

    fn agent_snapshot(&self) -> AgentSnapshot {
        let AgentSlot { slot, ready_in } = &self.agent;
        let waiting_until_ms = match slot.phase {
            SlotPhase::Waiting { until_ms } => Some(until_ms),
            SlotPhase::Filled | SlotPhase::Errored | SlotPhase::Stopped => None,
        };
        AgentSnapshot {
            process: self.workers.agent().map(process_snapshot),
            waiting_until_ms,
            failures: slot.failures.iter().copied().collect(),
            consecutive: slot.consecutive,
            restarts: slot.restarts,
            ready_in: ready_in.clone(),
        }
    }

    fn before_snapshot(&self) -> BeforeSnapshot {
        let BeforeSlot { slot, done } = &self.before;
        let waiting_until_ms = match slot.phase {
            SlotPhase::Waiting { until_ms } => Some(until_ms),
            SlotPhase::Filled | SlotPhase::Errored | SlotPhase::Stopped => None,
        };
        BeforeSnapshot {
            process: self.workers.before().map(process_snapshot),
            waiting_until_ms,
            failures: slot.failures.iter().copied().collect(),
            consecutive: slot.consecutive,
            done: done.clone(),
        }
    }

    /// An app as another master left it. Workers that the keeper does not know were never started: their spawn is
    /// requested again. The caller then passes the exits that happened meanwhile as events.
    pub fn restore(
        snapshot: AppSnapshot,
        slots: Vec<SlotSnapshot>,
        workers: Vec<WorkerSnapshot>,
        policies: BTreeMap<Generation, Policy>,
        known_pid: &dyn Fn(WorkerId) -> Option<i32>,
        cx: &mut Cx<'_>,
    ) -> App {
        let mut app = App {
            policies,
            generation: snapshot.generation,
            slots: Vec::new(),
            wanted: if snapshot.wanted == 0 { snapshot.slots } else { snapshot.wanted },
            workers: Crew::default(),
            timers: Timers::default(),
            reload: snapshot.reload.map(|r| Reload {
                from: r.from,
                to: r.to,
                slots: r.slots,
                pending: r.pending.into(),
                starting: r.starting,
                done: r.done,
                failed: r.failed,
                canary_until_ms: r.canary_until_ms,
                settling: Vec::new(),
            }),
            queued: None,
            queued_scale: snapshot.queued_scale,
            stopping: snapshot.stopping.map(|now| Stopping { now }),
            then_start: None,
            agent: AgentSlot::new(snapshot.generation),
            before: BeforeSlot::new(snapshot.generation),
            held: snapshot.held,
            reported_ready: snapshot.reported_ready,
            reported_end: false,
            touched_slots: BTreeSet::new(),
            touched_workers: BTreeSet::new(),
        };
        app.queued = snapshot.queued.map(|(to, slots)| Queued { to, slots, policy: app.policy(to).clone() });
        app.then_start = snapshot.then_start.map(|(to, slots)| Queued { to, slots, policy: app.policy(to).clone() });
        let beside = [snapshot.agent.process, snapshot.before.process];
        let beside = beside.into_iter().flatten().map(|process| process.id);
        let restored: Vec<WorkerId> = beside.chain(workers.iter().map(|w| w.id)).collect();
        app.restore_before(snapshot.before, known_pid);
        app.restore_agent(snapshot.agent, known_pid);
        app.restore_workers(workers, known_pid);
        app.restore_slots(snapshot.slots, slots, cx);
        for id in restored {
            app.rejoin(cx, id);
        }
        app.resume_reload(cx);
        app.resume_start(cx);
        app.use_spares(cx);
        app.reconcile(cx);
        app
    }

    fn restore_workers(&mut self, workers: Vec<WorkerSnapshot>, known_pid: &dyn Fn(WorkerId) -> Option<i32>) {
        for w in workers {
            let pid = known_pid(w.id);
            let WorkerSnapshot { id, slot, generation, spawned_at_ms, phase, by_itself, spare, .. } = w;
            let (serves, not_yet) = (false, None);
            let worker = Worker { id, slot, generation, pid, spawned_at_ms, phase, by_itself, spare, serves, not_yet };
            self.workers.insert(worker);
            self.timers.set(TimerKey::Worker(id), phase_timer(&phase));
        }
    }

    fn restore_before(&mut self, before: BeforeSnapshot, known_pid: &dyn Fn(WorkerId) -> Option<i32>) {
        if let Some(until_ms) = before.waiting_until_ms {
            self.set_slot_phase(Slot::BEFORE.0, SlotPhase::Waiting { until_ms });
        }
        let BeforeSlot { slot, done } = &mut self.before;
        *done = before.done;
        slot.failures = before.failures.into();
        slot.consecutive = before.consecutive;
        if let Some(process) = before.process {
            slot.generation = process.generation;
            slot.current = Some(process.id).filter(|_| !process.phase.is_leaving());
            self.restore_workers(vec![WorkerSnapshot { slot: Slot::BEFORE, ..process }], known_pid);
        }
    }

    fn restore_agent(&mut self, agent: AgentSnapshot, known_pid: &dyn Fn(WorkerId) -> Option<i32>) {
        if let Some(until_ms) = agent.waiting_until_ms {
            self.set_slot_phase(Slot::AGENT.0, SlotPhase::Waiting { until_ms });
        }
        let AgentSlot { slot, ready_in } = &mut self.agent;
        *ready_in = agent.ready_in;
        slot.failures = agent.failures.into();
        slot.consecutive = agent.consecutive;
        slot.restarts = agent.restarts;
        if let Some(process) = agent.process {
            slot.generation = process.generation;
            slot.current = Some(process.id).filter(|_| !process.phase.is_leaving());
            self.restore_workers(vec![WorkerSnapshot { slot: Slot::AGENT, ..process }], known_pid);
        }
    }

    /// Restores a worker's place. The previous master may have died between the records of one step, so a worker's
    /// record may still say that it serves while its slot's record says that it left: then the slot is right.
    fn rejoin(&mut self, cx: &mut Cx<'_>, id: WorkerId) {
        let Some(w) = self.workers.get(&id) else { return };
        let (pid, phase, slot, generation, spare) = (w.pid, w.phase, w.slot, w.generation, w.spare);
        let belongs = self.role(id) != Role::Leaving;
        match (pid, phase) {
            (None, _) if phase.is_leaving() || !belongs => {
                self.forget(id);
            }
            (None, _) => cx.act(Action::Spawn { worker: id, slot, generation }),
            (Some(_), Phase::Draining { .. }) => cx.act(Action::Drain { worker: id }),
            // Saved before it was done, so perhaps never done: a second SIGKILL does no harm. A second SIGTERM may; the
            // deadline covers the case that the first was never sent.
            (Some(_), Phase::Killed) => cx.act(Action::Kill { worker: id }),
            (Some(_), Phase::Stopping { .. }) => {}
            (Some(_), _) if !belongs => self.retire(cx, id),
            (Some(_), Phase::Ready { .. }) if slot.is_beside() => {}
            (Some(_), Phase::Ready { .. }) => {
                if !spare {
                    cx.act(Action::Serve { worker: id });
                }
                self.rejoin_incoming(cx, id);
            }
            (Some(_), Phase::Starting { warming: Some(_), .. }) => self.begin_warm_up(cx, id),
            (Some(pid), Phase::Starting { ready_at_ms: None, .. }) => {
                self.handle(cx, super::Event::Spawned { worker: id, pid });
            }
            (Some(_), Phase::Starting { .. }) => {}
        }
    }

    fn restore_slots(&mut self, count: u32, slots: Vec<SlotSnapshot>, cx: &mut Cx<'_>) {
        let count = count.clamp(1, limits::WORKERS_MAX);
        self.slots = (0..count).map(|_| SlotState::new(self.generation)).collect();
        for s in slots {
            let Some(slot) = self.slots.get_mut(s.index as usize) else { continue };
            slot.generation = s.generation;
            // A worker that was told to leave, or was never started, no longer fills a slot.
            let counts =
                |id: &WorkerId| self.workers.get(id).is_some_and(|w| !w.phase.is_leaving() && self.stopping.is_none());
            slot.current = s.current.filter(counts);
            // A slot is saved before the reload: if the reload's record does not name the slot, the reload begins here
            // again. In the same generation, and without a reload, the worker is a replacement for one that passed a
            // limit.
            let starting = self.reload.as_ref().is_some_and(|reload| reload.starting.contains(&s.index));
            let same = |id: &WorkerId| self.workers.get(id).is_some_and(|w| w.generation == s.generation);
            let replaces = |id: &WorkerId| self.reload.is_none() && same(id);
            slot.incoming = s.incoming.filter(counts).filter(|id| starting || replaces(id));
            if slot.current.is_none() && self.reload.is_none() {
                slot.current = slot.incoming.take();
            }
            slot.replace_after_ms = s.replace_after_ms;
            slot.failures = s.failures.into_iter().collect();
            slot.consecutive = s.consecutive;
            slot.restarts = s.restarts;
            slot.runs = s.runs;
            slot.proven = s.proven;
            // Of a start that died with its master perhaps only the slots were saved.
            let phase = if self.stopping.is_some() { SlotPhase::Stopped } else { s.phase };
            self.set_slot_phase(s.index, phase);
        }
        // A slot that should have a worker, and lost it between two records, gets a new one.
        for index in 0..count {
            let empty = self
                .slots
                .get(index as usize)
                .is_some_and(|s| s.phase == SlotPhase::Filled && s.current.is_none() && s.incoming.is_none());
            if empty && self.stopping.is_none() {
                self.keep_to_agent(index);
                self.fill(cx, index);
            }
        }
    }
}

fn process_snapshot(w: &Worker) -> WorkerSnapshot {
    WorkerSnapshot {
        id: w.id,
        slot: w.slot,
        generation: w.generation,
        pid: w.pid,
        spawned_at_ms: w.spawned_at_ms,
        phase: w.phase,
        by_itself: w.by_itself,
        spare: w.spare,
    }
}
