//! The state machine of one app: slots, their processes, deaths and scale. Reloads are in `reload`, stop and start in
//! `start`, the agent's slot in `agent`.
use super::agent::AgentSlot;
use super::before::BeforeSlot;
use super::reload::{Queued, Reload};
use super::slot::{Death, SlotPhase, SlotState, SlotView, died};
use super::spares::with_spares;
use super::timers::{TimerKey, Timers};
use super::worker::{CHANNEL_CLOSED_STARTING_MS, Crew, Phase, Worker, WorkerView, phase_timer};
use super::{Action, Cause, Event, ExitStatus, Next, Policy, ReadyBy, Report};
use crate::ids::{Generation, Slot, WorkerId};
use crate::limits;
use std::collections::{BTreeMap, BTreeSet};

/// What a step needs from outside: the time, the counter of worker ids, and a place for actions.
pub struct Cx<'a> {
    /// The current time, in milliseconds.
    pub now_ms: u64,
    /// The next worker id; incremented by every spawn, shared by all apps of a deployment.
    pub next_worker: &'a mut u64,
    /// Actions for the shell, in order.
    pub actions: &'a mut Vec<Action>,
}

impl Cx<'_> {
    pub(super) fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    pub(super) fn report(&mut self, report: Report) {
        self.actions.push(Action::Report(report));
    }
}

/// What is known of a worker that left before it was ready.
const LEFT_EARLY: &str = "it closed its channel before it was ready";

/// One app under supervision.
#[derive(Clone, Debug)]
pub struct App {
    pub(super) policies: BTreeMap<Generation, Policy>,
    /// The current generation; new slots belong to it.
    pub(super) generation: Generation,
    pub(super) slots: Vec<SlotState>,
    /// How many workers shall serve; the other slots are for spares.
    pub(super) wanted: u32,
    pub(super) workers: Crew,
    pub(super) timers: Timers,
    pub(super) reload: Option<Reload>,
    pub(super) queued: Option<Queued>,
    pub(super) queued_scale: Option<u32>,
    pub(super) stopping: Option<Stopping>,
    /// The start that follows the stop.
    pub(super) then_start: Option<Queued>,
    pub(super) agent: AgentSlot,
    pub(super) before: BeforeSlot,
    /// Nothing of this generation starts before it is admitted.
    pub(super) held: Option<Generation>,
    /// Whether `AppReady` was reported since the app last had no ready worker.
    pub(super) reported_ready: bool,
    /// Whether the end (`AppErrored`, `AppFinished`, `AppStopped`) was reported.
    pub(super) reported_end: bool,
    /// Slots and workers that changed since the shell last called `take_changes`.
    pub(super) touched_slots: BTreeSet<u32>,
    pub(super) touched_workers: BTreeSet<WorkerId>,
}

/// How the app is being stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stopping {
    pub(super) now: bool,
}

impl App {
    /// An app with empty slots for `wanted` workers, and for its spares. Nothing is spawned before [`App::start`].
    pub fn new(generation: Generation, policy: Policy, wanted: u32) -> App {
        let slots = with_spares(wanted, &policy);
        App {
            policies: BTreeMap::from([(generation, policy)]),
            generation,
            slots: (0..slots).map(|_| SlotState::new(generation)).collect(),
            wanted,
            workers: Crew::default(),
            timers: Timers::default(),
            reload: None,
            queued: None,
            queued_scale: None,
            stopping: None,
            then_start: None,
            agent: AgentSlot::new(generation),
            before: BeforeSlot::new(generation),
            held: None,
            reported_ready: false,
            reported_end: false,
            touched_slots: (0..slots).collect(),
            touched_workers: BTreeSet::new(),
        }
    }

    /// Fills every slot of a new app; once its command before the workers has ended well and its agent is ready, if it has them.
    pub fn start(&mut self, cx: &mut Cx<'_>) {
        for index in 0..self.slots.len() as u32 {
            self.fill(cx, index);
        }
        self.reconcile(cx);
        if let Some(generation) = self.held {
            cx.report(Report::Held { generation });
        }
    }

    /// Moves the slots beside those of the workers towards their intended state.
    pub(super) fn reconcile(&mut self, cx: &mut Cx<'_>) {
        self.reconcile_before(cx);
        self.reconcile_agent(cx);
    }

    /// Handles one event. Events about workers that no longer exist are ignored: they crossed an exit.
    pub fn handle(&mut self, cx: &mut Cx<'_>, event: Event) {
        let is_beside = event.worker().is_some_and(|id| self.is_agent(id) || self.is_before(id));
        match event {
            // What is beside the workers serves nothing. A Node agent may close its channel and live on; it gets no messages then.
            Event::Online { .. }
            | Event::NotYet { .. }
            | Event::Warmed { .. }
            | Event::ServersClosed { .. }
            | Event::ServersOpen { .. }
            | Event::ChannelClosed { .. }
            | Event::Leaving { .. }
            | Event::Replace { .. }
            | Event::Hung { .. }
            | Event::HasClients { .. }
            | Event::Drained { .. }
            | Event::CanaryJudged { .. }
                if is_beside => {}
            Event::Spawned { worker, pid } => self.on_spawned(cx, worker, pid),
            Event::SpawnFailed { worker, reason, obstacle } => self.on_spawn_failed(cx, worker, reason, obstacle),
            Event::Online { worker } => self.on_online(worker),
            Event::Evidence { worker, evidence } => self.on_evidence(cx, worker, evidence),
            Event::NotYet { worker, why } => self.on_not_yet(worker, why),
            Event::Warmed { worker } => self.on_warmed(cx, worker),
            Event::ServersClosed { worker } => self.on_servers(worker, Some(cx.now_ms)),
            Event::ServersOpen { worker } => self.on_servers(worker, None),
            Event::ChannelClosed { worker } => self.on_channel_closed(cx, worker),
            Event::Leaving { worker } => self.on_leaving(cx, worker),
            Event::Misbehaved { worker, reason } => self.on_misbehaved(cx, worker, reason),
            Event::Replace { worker, excess } => self.on_replace(cx, worker, excess),
            Event::Hung { worker } => self.on_hung(cx, worker),
            Event::HasClients { worker } => self.on_clients(cx, worker),
            Event::Drained { worker } => self.on_drained(cx, worker),
            Event::CanaryJudged { worker, worse } => self.on_canary_judged(cx, worker, worse),
            Event::Exited { worker, status, at_ms } => self.on_exited(cx, worker, status, at_ms),
            Event::Reload { to, policy, slots } => self.ask_reload(cx, Queued { to, policy, slots }),
            Event::Hold { generation } => self.hold(generation),
            Event::Admit { generation } => self.admit_generation(cx, generation),
            Event::Abandon { generation, reason } => self.abandon_generation(cx, generation, reason),
            Event::Scale { slots } => self.ask_scale(cx, slots),
            Event::Start { to, policy, slots } => self.ask_start(cx, Queued { to, policy, slots }),
            Event::Stop { now } => self.ask_stop(cx, now),
        }
        self.use_spares(cx);
        self.reconcile(cx);
    }

    /// The latest time for the next call of [`App::advance`].
    pub fn next_deadline_ms(&self) -> Option<u64> {
        self.timers.next()
    }

    /// Handles every deadline that has passed.
    pub fn advance(&mut self, cx: &mut Cx<'_>) {
        while let Some(key) = self.timers.take_due(cx.now_ms) {
            match key {
                TimerKey::Slot(index) => self.on_slot_timer(cx, index),
                TimerKey::Worker(worker) => self.on_worker_timer(cx, worker),
                TimerKey::Canary => self.end_canary(cx),
                TimerKey::Settling => self.settle(cx),
            }
            self.use_spares(cx);
            self.reconcile(cx);
        }
    }

    /// The current generation, or the one that a roll-back returns to.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Whether a reload (or its roll-back) is under way.
    pub fn is_reloading(&self) -> bool {
        self.reload.is_some()
    }

    /// Slots, those of spares included.
    pub fn slot_count(&self) -> u32 {
        self.slots.len() as u32
    }

    /// The slots in order.
    pub fn slots(&self) -> impl Iterator<Item = SlotView> + '_ {
        self.slots.iter().map(|slot| self.view(slot))
    }

    fn view(&self, slot: &SlotState) -> SlotView {
        SlotView {
            generation: slot.generation,
            phase: slot.phase,
            current: slot.current.and_then(|id| self.workers.get(&id)).map(Worker::view),
            restarts: slot.restarts,
        }
    }

    pub fn slot(&self, slot: Slot) -> Option<SlotView> {
        self.slots.get(slot.0 as usize).map(|slot| self.view(slot))
    }

    /// Every worker, by id.
    pub fn workers(&self) -> impl Iterator<Item = WorkerView> + '_ {
        self.workers.values().map(Worker::view)
    }

    pub fn worker(&self, id: WorkerId) -> Option<WorkerView> {
        self.workers.get(&id).filter(|w| !w.is_beside()).map(Worker::view)
    }

    /// Workers that are ready to serve, spares included.
    pub fn ready_count(&self) -> u32 {
        self.workers.ready()
    }

    // ---- common steps ----

    pub(super) fn policy(&self, generation: Generation) -> &Policy {
        // Policies are dropped only when `generations` no longer names them, so the fallback is never used in practice;
        // with a damaged snapshot it avoids a panic.
        self.policies
            .get(&generation)
            .or_else(|| self.policies.get(&self.generation))
            .or_else(|| self.policies.values().next())
            .unwrap_or(&super::snapshot::FALLBACK_POLICY)
    }

    pub(super) fn set_phase(&mut self, worker: WorkerId, phase: Phase) {
        if !self.workers.set_phase(&worker, phase) {
            return;
        }
        let timer = phase_timer(&phase);
        self.timers.set(TimerKey::Worker(worker), timer);
        self.touched_workers.insert(worker);
    }

    pub(super) fn slot_state(&self, index: u32) -> Option<&SlotState> {
        match Slot(index) {
            Slot::AGENT => Some(&self.agent.slot),
            Slot::BEFORE => Some(&self.before.slot),
            Slot(index) => self.slots.get(index as usize),
        }
    }

    pub(super) fn slot_mut(&mut self, index: u32) -> Option<&mut SlotState> {
        // Those beside the workers are saved with the app.
        match Slot(index) {
            Slot::AGENT => return Some(&mut self.agent.slot),
            Slot::BEFORE => return Some(&mut self.before.slot),
            Slot(_) => {}
        }
        self.touched_slots.insert(index);
        self.slots.get_mut(index as usize)
    }

    pub(super) fn set_slot_phase(&mut self, index: u32, phase: SlotPhase) {
        let timer = match phase {
            SlotPhase::Waiting { until_ms } => Some(until_ms),
            SlotPhase::Filled | SlotPhase::Errored | SlotPhase::Stopped => None,
        };
        self.timers.set(TimerKey::Slot(index), timer);
        if let Some(slot) = self.slot_mut(index) {
            slot.phase = phase;
        }
    }

    /// Spawns a process of `generation` for the slot; the caller decides on its role.
    pub(super) fn spawn(&mut self, cx: &mut Cx<'_>, index: u32, generation: Generation) -> WorkerId {
        let worker = WorkerId(*cx.next_worker);
        *cx.next_worker += 1;
        let slot = Slot(index);
        let deadline_ms = cx.now_ms + self.policy(generation).rules(slot).ready_timeout_ms;
        let phase =
            Phase::Starting { deadline_ms, ready_at_ms: None, online: false, severed_at_ms: None, warming: None };
        self.workers.insert(Worker::new(worker, slot, generation, cx.now_ms, phase));
        self.set_phase(worker, phase);
        cx.act(Action::Spawn { worker, slot, generation });
        worker
    }

    /// Gives an empty slot a worker of the generation that last served there, as soon as that may start.
    pub(super) fn fill(&mut self, cx: &mut Cx<'_>, index: u32) {
        let Some(generation) = self.slots.get(index as usize).map(|s| s.generation) else { return };
        self.set_slot_phase(index, SlotPhase::Filled);
        if !self.may_start(generation) || self.must_wait_for_old(index, generation) {
            return;
        }
        let worker = self.spawn(cx, index, generation);
        if let Some(slot) = self.slot_mut(index) {
            slot.current = Some(worker);
        }
    }

    /// Drains a worker that serves (or is about to); one that has never listened is ended at once. Who listens and is not ready
    /// yet may have accepted connections already.
    pub(super) fn retire(&mut self, cx: &mut Cx<'_>, worker: WorkerId) {
        let Some(w) = self.workers.get(&worker) else { return };
        match w.phase {
            Phase::Starting { .. } if !w.serves => self.terminate(cx, worker),
            Phase::Starting { .. } | Phase::Ready { .. } => {
                let deadline_ms = cx.now_ms + self.policy(w.generation).drain_timeout_ms;
                self.set_phase(worker, Phase::Draining { deadline_ms });
                cx.act(Action::Drain { worker });
            }
            Phase::Draining { .. } | Phase::Stopping { .. } | Phase::Killed => {}
        }
    }

    /// SIGTERM now, SIGKILL after the kill time-out.
    pub(super) fn terminate(&mut self, cx: &mut Cx<'_>, worker: WorkerId) {
        let Some(w) = self.workers.get(&worker) else { return };
        let patience_ms = match self.stopping {
            Some(Stopping { now: true }) => limits::STOP_NOW_KILL_MS,
            Some(Stopping { now: false }) | None => self.policy(w.generation).rules(w.slot).kill_timeout_ms,
        };
        self.set_phase(worker, Phase::Stopping { kill_at_ms: cx.now_ms + patience_ms });
        cx.act(Action::Terminate { worker });
    }

    pub(super) fn role(&self, worker: WorkerId) -> Role {
        let Some(w) = self.workers.get(&worker) else { return Role::Gone };
        match self.slot_state(w.slot.0) {
            Some(slot) if slot.current == Some(worker) => Role::Current(w.slot.0),
            Some(slot) if slot.incoming == Some(worker) => Role::Incoming(w.slot.0),
            Some(_) | None => Role::Leaving,
        }
    }

    // ---- events ----

    fn on_spawned(&mut self, cx: &mut Cx<'_>, worker: WorkerId, pid: i32) {
        let Some(w) = self.workers.get_mut(&worker) else { return };
        w.pid = Some(pid);
        let (phase, generation, slot) = (w.phase, w.generation, w.slot);
        if let Phase::Starting { deadline_ms, online, severed_at_ms, warming: None, .. } = phase {
            let rules = self.policy(generation).rules(slot);
            let ready_at_ms = rules.ready.after_ms.map(|age| cx.now_ms + age);
            // However long the spawn took, an age that is within the time to get ready comes first.
            let age_ms = rules.ready.after_ms.filter(|age| *age <= rules.ready_timeout_ms);
            let deadline_ms = deadline_ms.max(age_ms.map_or(0, |age| cx.now_ms + age));
            self.set_phase(worker, Phase::Starting { deadline_ms, ready_at_ms, online, severed_at_ms, warming: None });
        }
        self.touched_workers.insert(worker);
        if let Some(death) = self.slot_mut(slot.0).and_then(|s| s.death.take()) {
            let next = Next::Replaced { after_ms: cx.now_ms.saturating_sub(death.at_ms) };
            cx.report(died(death, slot, next));
        }
    }

    pub(super) fn become_ready(&mut self, cx: &mut Cx<'_>, worker: WorkerId, by: ReadyBy) {
        let Some(w) = self.workers.get(&worker) else { return };
        let (slot, after_ms) = (w.slot, cx.now_ms.saturating_sub(w.spawned_at_ms));
        let (pid, generation) = (w.pid, w.generation);
        let spare = !slot.is_beside() && self.is_surplus(worker);
        self.workers.set_spare(&worker, spare);
        self.set_phase(worker, Phase::Ready { since_ms: cx.now_ms, idle_since_ms: None, severed_at_ms: None });
        if slot == Slot::AGENT {
            cx.report(Report::AgentReady { agent: worker, pid, after_ms });
            return self.agent_is_ready(cx, generation);
        }
        if let Some(slot) = self.slot_mut(slot.0) {
            slot.prove(generation);
        }
        if !spare {
            cx.act(Action::Serve { worker });
        }
        cx.report(Report::WorkerReady { worker, slot, after_ms, spare, by });
        if let Role::Incoming(index) = self.role(worker) {
            self.incoming_serves(cx, index, worker);
        }
        self.report_ready(cx);
    }

    fn on_servers(&mut self, worker: WorkerId, closed_at_ms: Option<u64>) {
        let Some(w) = self.workers.get_mut(&worker) else { return };
        match w.phase {
            Phase::Starting { .. } => w.serves = closed_at_ms.is_none() && !w.is_beside(),
            Phase::Ready { since_ms, severed_at_ms, .. } => {
                self.set_phase(worker, Phase::Ready { since_ms, idle_since_ms: closed_at_ms, severed_at_ms });
            }
            Phase::Draining { .. } | Phase::Stopping { .. } | Phase::Killed => {}
        }
    }

    fn on_channel_closed(&mut self, cx: &mut Cx<'_>, worker: WorkerId) {
        let Some(w) = self.workers.get(&worker) else { return };
        // The exit of a crashed worker follows within moments and says more: wait for it briefly.
        let severed_at_ms = Some(cx.now_ms);
        match w.phase {
            Phase::Ready { since_ms, idle_since_ms, .. } => {
                self.set_phase(worker, Phase::Ready { since_ms, idle_since_ms, severed_at_ms });
            }
            Phase::Starting { deadline_ms, ready_at_ms, online, warming, .. } => {
                self.set_phase(worker, Phase::Starting { deadline_ms, ready_at_ms, online, severed_at_ms, warming });
            }
            Phase::Draining { .. } | Phase::Stopping { .. } | Phase::Killed => {}
        }
    }

    fn on_leaving(&mut self, cx: &mut Cx<'_>, worker: WorkerId) {
        let Some(w) = self.workers.get(&worker) else { return };
        let (slot, generation) = (w.slot, w.generation);
        match (w.phase, self.role(worker)) {
            (Phase::Ready { .. }, Role::Current(index)) => {
                let young = self.is_young(worker, cx.now_ms);
                self.detach(index, worker);
                let deadline_ms = cx.now_ms + self.policy(generation).drain_timeout_ms;
                self.workers.note_own_leave(&worker);
                self.set_phase(worker, Phase::Draining { deadline_ms });
                cx.act(Action::Drain { worker });
                cx.report(Report::WorkerLeaving { worker, slot });
                self.admit_spares(cx, None);
                self.refill(cx, index, young);
            }
            // A canary. It has connections, so it is drained first.
            (Phase::Ready { .. }, Role::Incoming(index)) => {
                self.retire(cx, worker);
                self.incoming_failed(cx, index, "the new worker left by itself in the time of its canary".to_owned());
            }
            (Phase::Ready { .. }, Role::Leaving | Role::Gone) => self.retire(cx, worker),
            // A program that need not listen may end its work before it counts as ready: its exit code tells how it went.
            (Phase::Starting { deadline_ms, online, .. }, _) if self.may_end(worker) => {
                let own_ms = cx.now_ms + self.policy(generation).drain_timeout_ms;
                let deadline_ms = deadline_ms.min(own_ms);
                let (ready_at_ms, severed_at_ms, warming) = (None, None, None);
                self.set_phase(worker, Phase::Starting { deadline_ms, ready_at_ms, online, severed_at_ms, warming });
                self.on_not_yet(worker, LEFT_EARLY.to_owned());
            }
            // It left before it was ready: a failure, reported once it has ended.
            (Phase::Starting { .. }, _) => {
                self.fail_alive(cx, worker, Cause::Misbehaved(LEFT_EARLY.to_owned()));
            }
            (Phase::Draining { .. } | Phase::Stopping { .. } | Phase::Killed, _) => {}
        }
    }

    fn on_misbehaved(&mut self, cx: &mut Cx<'_>, worker: WorkerId, reason: String) {
        let Some(w) = self.workers.get(&worker) else { return };
        if !w.phase.is_leaving() {
            self.fail_alive(cx, worker, Cause::Misbehaved(reason));
        }
    }

    /// Ends a worker that has failed but lives, and treats its slot as after a death.
    fn fail_alive(&mut self, cx: &mut Cx<'_>, worker: WorkerId, cause: Cause) {
        let role = self.role(worker);
        self.count_failure(cx, worker, role, cause, cx.now_ms);
        self.terminate(cx, worker);
    }

    fn on_drained(&mut self, cx: &mut Cx<'_>, worker: WorkerId) {
        let Some(w) = self.workers.get(&worker) else { return };
        // What a worker that left by itself still does (it flushes, it tells somebody of its error) cannot be seen.
        let is_awaited = self.stopping.is_some() || self.reload.is_some();
        if matches!(w.phase, Phase::Draining { .. }) && (is_awaited || !w.by_itself) {
            self.terminate(cx, worker);
        }
    }

    fn on_exited(&mut self, cx: &mut Cx<'_>, worker: WorkerId, status: ExitStatus, at_ms: u64) {
        let Some(w) = self.workers.get(&worker) else { return };
        if w.phase.is_leaving() {
            let killed = matches!(w.phase, Phase::Killed);
            let lived_ms = at_ms.saturating_sub(w.spawned_at_ms);
            let (slot, pid, by_itself) = (w.slot, w.pid, w.by_itself);
            match slot {
                Slot::AGENT => cx.report(Report::AgentLeft { agent: worker, pid, status, killed }),
                // Why it was ended has been reported.
                Slot::BEFORE => {}
                _ => cx.report(Report::WorkerLeft { worker, slot, pid, status, killed, lived_ms, by_itself }),
            }
            self.remove(cx, worker);
        } else if w.slot == Slot::BEFORE && status == ExitStatus::Code(0) {
            self.before_has_ended(cx, worker, at_ms);
        } else {
            self.lose(cx, worker, Cause::Ended(status), at_ms);
        }
    }

    /// The current worker of a slot is gone without having been asked to end.
    pub(super) fn lose(&mut self, cx: &mut Cx<'_>, worker: WorkerId, cause: Cause, at_ms: u64) {
        let role = self.role(worker);
        self.count_failure(cx, worker, role, cause, at_ms);
        self.remove(cx, worker);
    }

    /// Handles a failure for the slot: the next try, the end of the slot, or the failure of a reload.
    pub(super) fn count_failure(&mut self, cx: &mut Cx<'_>, worker: WorkerId, role: Role, cause: Cause, at_ms: u64) {
        let Some(w) = self.workers.get(&worker) else { return };
        let lived_ms = at_ms.saturating_sub(w.spawned_at_ms);
        let death = Death { worker, pid: w.pid, cause, lived_ms, at_ms };
        let (slot, generation) = (w.slot, w.generation);
        match role {
            Role::Gone | Role::Leaving => cx.report(died(death, slot, Next::None)),
            Role::Incoming(index) => {
                let reason = death.cause.of_the_new("worker");
                cx.report(died(death, slot, Next::None));
                self.incoming_failed(cx, index, reason);
            }
            Role::Current(index) => {
                let young = self.is_young(worker, at_ms) && !matches!(death.cause, Cause::Hung(_));
                self.detach(index, worker);
                match slot {
                    Slot::AGENT => return self.agent_failed(cx, death, generation, young),
                    Slot::BEFORE => return self.before_failed(cx, death, generation),
                    Slot(_) => {}
                }
                // Before the next worker is spawned: clients wait for nothing.
                self.admit_spares(cx, Some(worker));
                let stop = matches!(&death.cause, Cause::Ended(ExitStatus::Code(code))
                    if self.policy(generation).stop_exit_codes.contains(code));
                let has_incoming = self.slots.get(index as usize).is_some_and(|s| s.incoming.is_some());
                if (has_incoming && self.reload.is_some()) || self.stopping.is_some() {
                    cx.report(died(death, slot, Next::None));
                } else if stop {
                    self.set_slot_phase(index, SlotPhase::Stopped);
                    cx.report(died(death, slot, Next::Stopped));
                    if let Some(incoming) = self.slot_mut(index).and_then(|s| s.incoming.take()) {
                        self.retire(cx, incoming);
                    }
                } else if let Some(s) = self.slot_mut(index) {
                    s.death = Some(death);
                    self.refill(cx, index, young);
                }
            }
        }
    }

    /// Whether a worker died (or left) before `min_uptime`, or without ever being ready. Where age alone makes it ready, its own times
    /// decide: a busy master may learn of its start and of its end in the same moment.
    fn is_young(&self, worker: WorkerId, at_ms: u64) -> bool {
        self.workers.get(&worker).is_some_and(|w| {
            let lived_ms = at_ms.saturating_sub(w.spawned_at_ms);
            let rules = self.policy(w.generation).rules(w.slot);
            let was_ready_by_age = rules.ready.after_ms.is_some_and(|age| age <= lived_ms.min(rules.ready_timeout_ms));
            let was_never_ready = matches!(w.phase, Phase::Starting { .. }) && !was_ready_by_age;
            was_never_ready || lived_ms < self.policy(w.generation).min_uptime_ms
        })
    }

    /// Takes a worker out of its slot; it may live on as a leaving worker.
    pub(super) fn detach(&mut self, index: u32, worker: WorkerId) {
        if let Some(slot) = self.slot_mut(index).filter(|slot| slot.current == Some(worker)) {
            slot.current = None;
        }
        if Slot(index).is_beside() {
            return;
        }
        let itself = u32::from(self.workers.get(&worker).is_some_and(Worker::is_ready));
        if self.workers.ready() == itself {
            self.reported_ready = false;
        }
    }

    /// Plans the next worker for a slot that lost its own: at once, after a pause, or never.
    fn refill(&mut self, cx: &mut Cx<'_>, index: u32, young: bool) {
        if self.promote(cx, index, young) {
            return;
        }
        let Some(generation) = self.slots.get(index as usize).map(|s| s.generation) else { return };
        let policy = self.policy(generation).clone();
        let now_ms = cx.now_ms;
        let Some(slot) = self.slot_mut(index) else { return };
        if slot.count_run(&policy) {
            return self.end_last_run(cx, index);
        }
        let Some(slot) = self.slot_mut(index) else { return };
        let failures = slot.count_death(&policy, young, now_ms);
        let hopeless =
            self.is_hopeless(generation, self.slots.get(index as usize).and_then(|slot| slot.death.as_ref()));
        if hopeless || (young && policy.max_restarts.is_some_and(|max| failures >= max)) {
            let next = if hopeless { Next::GivenUp } else { Next::Errored { failures } };
            return self.give_up(cx, index, next);
        }
        let Some(slot) = self.slot_mut(index) else { return };
        slot.restarts += 1;
        let wait_ms = slot.backoff_ms(&policy.rules(Slot(index)).backoff);
        if wait_ms == 0 {
            self.fill(cx, index);
            return;
        }
        let death = slot.death.take();
        self.set_slot_phase(index, SlotPhase::Waiting { until_ms: now_ms + wait_ms });
        if let Some(death) = death {
            let next = Next::Waiting { ms: wait_ms, failures, max: policy.max_restarts };
            cx.report(died(death, Slot(index), next));
        }
    }

    /// Removes a process that is gone, and resumes what waited for that.
    fn remove(&mut self, cx: &mut Cx<'_>, worker: WorkerId) {
        let is_beside = self.is_agent(worker) || self.is_before(worker);
        self.forget(worker);
        if !is_beside {
            self.after_removal(cx);
        }
        self.report_end(cx);
    }

    pub(super) fn forget(&mut self, worker: WorkerId) {
        self.workers.remove(&worker);
        self.timers.set(TimerKey::Worker(worker), None);
        self.touched_workers.insert(worker);
    }

    /// Reports once that nothing will run any more.
    pub(super) fn report_end(&mut self, cx: &mut Cx<'_>) {
        if self.reported_end {
            return;
        }
        if self.is_stopped() && self.then_start.is_some() {
            return self.begin_start(cx);
        }
        if self.is_stopped() {
            cx.report(Report::AppStopped);
        } else if self.stopping.is_none() && self.reload.is_none() && self.is_over() {
            let errored = self.slots.iter().any(|s| s.phase == SlotPhase::Errored);
            cx.report(if errored { Report::AppErrored } else { Report::AppFinished });
        } else {
            return;
        }
        self.reported_end = true;
        self.reported_ready = false;
    }

    // ---- timers ----

    fn on_slot_timer(&mut self, cx: &mut Cx<'_>, index: u32) {
        let waits = self.slot_state(index).is_some_and(|s| matches!(s.phase, SlotPhase::Waiting { .. }));
        if waits && Slot(index).is_beside() {
            // The slot is reconciled after each step.
            self.set_slot_phase(index, SlotPhase::Filled);
        } else if waits && self.stopping.is_none() {
            self.fill(cx, index);
        }
    }

    fn on_worker_timer(&mut self, cx: &mut Cx<'_>, worker: WorkerId) {
        let Some(w) = self.workers.get(&worker) else { return };
        let (slot, now_ms) = (w.slot, cx.now_ms);
        match w.phase {
            Phase::Starting { ready_at_ms: Some(at), .. } if at <= now_ms => {
                self.on_ready(cx, worker, ReadyBy::Age);
            }
            Phase::Starting { severed_at_ms: Some(at), .. } if at + CHANNEL_CLOSED_STARTING_MS <= now_ms => {
                self.on_leaving(cx, worker);
            }
            Phase::Starting { .. } => {
                let cause = if slot == Slot::BEFORE { self.overran(w.generation) } else { self.not_ready(w) };
                self.fail_alive(cx, worker, cause);
            }
            Phase::Ready { .. } => self.on_leaving(cx, worker),
            Phase::Draining { .. } => {
                cx.report(Report::Overdue { worker, slot, kill: false });
                self.terminate(cx, worker);
            }
            Phase::Stopping { .. } => {
                match slot {
                    Slot::AGENT => cx.report(Report::AgentOverdue { agent: worker }),
                    Slot::BEFORE => {}
                    _ => cx.report(Report::Overdue { worker, slot, kill: true }),
                }
                self.set_phase(worker, Phase::Killed);
                cx.act(Action::Kill { worker });
            }
            Phase::Killed => {}
        }
    }
}

/// The role of a worker in its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It fills the slot.
    Current(u32),
    /// It is about to take the slot over.
    Incoming(u32),
    /// It has left the slot (or the slot is gone).
    Leaving,
    /// No such worker.
    Gone,
}
