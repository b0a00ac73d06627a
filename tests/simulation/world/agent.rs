//! The agent in a world: what its process does, and what has to hold of it.
use super::{Coming, Process, Sabotage, Says, World};
use crate::random::Random;
use clusterd::ids::{Generation, Slot, WorkerId};
use clusterd::supervisor::{AgentPolicy, App, Event, Evidence, ExitStatus, Obstacle, Phase, ReadyRule};

/// Half of all generations have an agent.
pub(super) fn policy(random: &mut Random) -> Option<AgentPolicy> {
    random.percent(50).then(|| AgentPolicy {
        ready: ReadyRule { evidence: Some(Evidence::Message), after_ms: None },
        ready_timeout_ms: 2_000,
        kill_timeout_ms: 500,
        restart_delay_ms: random.between(10, 1_000),
    })
}

/// Whether the rules know this process.
pub(super) fn knows(app: &App, id: WorkerId) -> bool {
    let beside = [app.agent().and_then(|slot| slot.current), app.before().and_then(|before| before.process)];
    app.worker(id).is_some() || beside.into_iter().flatten().any(|process| process.id == id)
}

impl World {
    pub(super) fn spawn_agent(&mut self, agent: WorkerId, generation: Generation) {
        let other = self.processes.iter().find(|(id, p)| **id != agent && p.slot == Slot::AGENT && p.ended.is_none());
        assert!(other.is_none(), "agent {agent} starts and agent {:?} lives", other.map(|(id, _)| id));
        self.check_before(agent, generation);
        self.begin_process(agent, Slot::AGENT, generation);
    }

    /// What an agent's process will do of itself.
    pub(super) fn plan_agent_life(&mut self, agent: WorkerId) {
        let bad = self.bad_agents.contains(&self.processes[&agent].generation);
        let trouble = self.trouble();
        let ready_in = self.random.between(5, 400);
        let ends = |status| Coming::Ends(agent, status);
        if bad || (trouble && self.random.percent(10)) {
            if self.random.percent(70) {
                self.plan(ready_in, ends(ExitStatus::Code(1)));
            } // Else it is never ready.
            return;
        }
        self.plan(ready_in, Coming::Says(agent, Says::Ready));
        if self.sabotage == Some(Sabotage::AgentReadyTooEarly) {
            let evidence = Evidence::Message;
            self.tell(Event::Evidence { worker: agent, evidence });
        }
        let later = ready_in + self.random.between(0, 20_000);
        if !trouble {
            return;
        }
        match self.random.between(0, 5) {
            0 | 1 => self.plan(later, ends(ExitStatus::Signal(9))),
            2 => self.plan(later, Coming::Says(agent, Says::Garbage)),
            3 => self.plan(later, Coming::Says(agent, Says::ChannelEnd)),
            _ => {}
        }
    }

    /// No worker starts before the agent of its generation was ready.
    pub(super) fn check_spawn(&self, worker: WorkerId, generation: Generation) {
        let waits = self.policies[&generation].agent.is_some() && !self.agents_ready.contains(&generation);
        assert!(!waits, "worker {worker} starts and the agent of generation {generation} was never ready");
        self.check_before(worker, generation);
    }

    /// In a graceful stop an agent that has not failed outlives the workers.
    pub(super) fn check_terminate(&self, id: WorkerId) {
        let is_agent = self.processes.get(&id).is_some_and(|p| p.slot == Slot::AGENT && p.listened);
        let graceful = self.master.as_ref().is_some_and(App::is_stopping) && !self.stopped_now;
        // That it was ready may have died with a master.
        if is_agent && graceful && self.deaths_of_master == 0 {
            let worker = self.processes.iter().find(|(_, p)| !p.slot.is_beside() && p.ended.is_none());
            assert!(worker.is_none(), "the agent is ended and worker {:?} lives", worker.map(|(id, _)| id));
        }
    }

    /// How many agents the world should have at rest; and that it is ready.
    pub(super) fn check_agent_at_rest(&self, app: &App) -> usize {
        let Some(agent) = app.agent() else { return 0 };
        let bad = self.bad_agents.contains(&app.generation()) || self.bad_befores.contains(&app.generation());
        match agent.current {
            Some(process) => {
                assert_eq!(process.generation, app.generation(), "an agent of another generation lives");
                let ready = matches!(process.phase, Phase::Ready { .. });
                assert!(ready || bad, "the agent is {:?}", process.phase);
                1
            }
            None => {
                assert!(bad || app.is_over(), "there is no agent: {agent:?}");
                0
            }
        }
    }

    /// Whether a slot may be empty: its agent never got ready, or the command before it never ended well.
    pub(super) fn may_wait(&self, generation: Generation) -> bool {
        let policy = &self.policies[&generation];
        (self.bad_agents.contains(&generation) && policy.agent.is_some())
            || (self.bad_befores.contains(&generation) && policy.before.is_some())
    }

    pub(super) fn begin_process(&mut self, id: WorkerId, slot: Slot, generation: Generation) {
        // A spawn that failed while the master died is tried again: nothing of it had run.
        let again = self.never_ran.remove(&id) && self.reaped.remove(&id);
        assert!(self.spawned.insert(id) || again, "worker {id} was spawned twice");
        self.next_pid += 1;
        let deaf = self.trouble() && self.random.percent(10);
        let process = Process {
            pid: self.next_pid,
            running: false,
            ended: None,
            deaf,
            listened: false,
            slot,
            generation,
            drain_began_ms: None,
            health: Default::default(),
            waiting: Vec::new(),
        };
        self.processes.insert(id, process);
        let bad = match slot {
            Slot::AGENT => &self.bad_agents,
            Slot::BEFORE => &self.bad_befores,
            Slot(_) => &self.bad,
        };
        let fails = bad.contains(&generation) && self.random.percent(20);
        let took = self.random.between(0, 20);
        self.plan(took, if fails { Coming::ExecFails(id) } else { Coming::ExecDone(id) });
    }
}

/// A spawn that failed: of every other process for a reason that may pass.
pub(super) fn cannot_start(worker: WorkerId) -> Event {
    let obstacle = if worker.0.is_multiple_of(2) { Obstacle::Passing } else { Obstacle::Lasting };
    Event::SpawnFailed { worker, reason: "no such file".to_owned(), obstacle }
}
