//! The agent of an app, the master's side: its process, and what it and the workers are told of each other. When it
//! starts and ends is the supervisor's business; messages that they send are passed on in `mail`.
use super::narration::{cause_words, human_ms};
use super::output::Way;
use super::recovery::agent_tag_bytes;
use super::settings::SpawnPlace;
use super::spawn::channel_name;
use super::{Master, checkpoint, resume};
use crate::api::types as wire;
use crate::ids::{AppIx, Generation, Slot, WorkerId, WorkerIx};
use crate::keeper::link::Inheritance;
use crate::os::listen;
use crate::supervisor::{AgentPhase, Event, Phase, Report, WorkerView};
use crate::worker::node::messages;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};

impl Master {
    // ---- its process ----

    /// Has the keeper start an agent. What goes wrong here is an event like a failure there.
    pub(super) fn spawn_agent(&mut self, app: AppIx, agent: WorkerId, generation: Generation) {
        if let Err(reason) = self.try_spawn_agent(app, agent, generation) {
            self.bury(agent);
            self.cx.events.push_back((app, Event::SpawnFailed { worker: agent, reason }));
        }
    }

    fn try_spawn_agent(&mut self, app_ix: AppIx, agent: WorkerId, generation: Generation) -> Result<(), String> {
        let app = &self.cx.apps[app_ix];
        let settings = app.generations.get(&generation).unwrap_or_else(|| app.settings()).clone();
        let watched = app.supervisor.is_reloading() || (app.starting && self.cx.deployment.background);
        let tail = watched && !self.cx.deployment.on_terminal;
        let way = Way { config: &settings.config, slot: Slot::AGENT, generation, tail };
        let output = self.output.for_worker(&mut self.cx.keeper, agent, &way)?;
        let (stdio, mut fds): (Vec<i32>, Vec<OwnedFd>) = output.into_iter().unzip();
        let has_channel = settings.agent.as_ref().is_some_and(|agent| agent.has_channel);
        let mut channel = None;
        if has_channel {
            let (ours, theirs) = listen::channel_pair().map_err(|e| format!("cannot make its channel: {e}"))?;
            fds.push(theirs);
            channel = Some(ours);
        }
        let notify = (!has_channel).then(|| self.notify_address(&settings)).flatten();
        let place = SpawnPlace { notify: notify.as_deref(), ..self.agent_place(app_ix, agent, generation, stdio) };
        let tag = agent_tag_bytes(&self.cx.apps[app_ix].name, generation);
        let spec = settings.agent_spec(&place, tag).ok_or("no agent is configured")?;
        if let Some(ours) = &channel {
            self.cx.keeper.hold(channel_name(agent), ours.as_fd());
        }
        let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        self.cx.keeper.spawn(agent, &spec, &borrowed).map_err(|e| format!("cannot ask for the process: {e}"))?;
        self.add_worker(app_ix, agent, Slot::AGENT, generation, None, channel.map(|fd| (fd, false)));
        Ok(())
    }

    fn agent_place(&self, app_ix: AppIx, agent: WorkerId, generation: Generation, stdio: Vec<i32>) -> SpawnPlace<'_> {
        SpawnPlace {
            worker: agent,
            slot: Slot::AGENT,
            generation: generation.0,
            port: self.cx.apps[app_ix].port(),
            listen_names: Vec::new(),
            notify: None,
            stdio,
        }
    }

    /// Goes on with the agent that a former master started.
    pub(super) fn resume_agent(&mut self, ix: AppIx, pids: &HashMap<WorkerId, i32>, inherited: &mut Inheritance) {
        let Some(process) = self.cx.apps[ix].supervisor.agent().and_then(|agent| agent.process) else { return };
        let Some(&pid) = pids.get(&process.id) else { return };
        let channel = inherited.fds.remove(&channel_name(process.id)).map(|fd| (fd, true));
        self.add_worker(ix, process.id, Slot::AGENT, process.generation, Some(pid), channel);
        resume::resume_serves(self, ix, process.id, inherited);
        let app = &self.cx.apps[ix];
        let settings = app.generations.get(&process.generation).unwrap_or_else(|| app.settings());
        let way = Way { config: &settings.config, slot: Slot::AGENT, generation: process.generation, tail: false };
        self.output.adopt(process.id, &way, &mut inherited.fds);
    }

    /// The variables that the agent of an app has; `None`: it has none.
    pub(super) fn agent_environment(&self, app_ix: AppIx) -> Option<BTreeMap<OsString, OsString>> {
        let app = &self.cx.apps[app_ix];
        app.settings().agent.as_ref()?;
        let process = app.supervisor.agent().and_then(|agent| agent.process);
        let (id, generation) =
            process.map_or((WorkerId(0), app.supervisor.generation()), |process| (process.id, process.generation));
        let notify = self.notify.address_of(app.settings().uid());
        let place = SpawnPlace { notify, ..self.agent_place(app_ix, id, generation, Vec::new()) };
        Some(app.settings().agent_environment(&place))
    }

    /// What is shown of it; `None`: the app has none.
    pub(super) fn agent_view(&self, app_ix: AppIx) -> Option<wire::Agent> {
        let app = &self.cx.apps[app_ix];
        let memory = app.supervisor.agent()?;
        let settings = app.settings();
        let here = memory.process.and_then(|p| self.cx.workers.find(p.id)).and_then(|ix| self.cx.workers.get(ix));
        let left = |at_ms: u64| at_ms.saturating_sub(self.cx.now_ms);
        let state = match (&memory.process, memory.waiting_until_ms) {
            (Some(process), _) => state(&process.phase),
            (None, Some(_)) => wire::AgentState::Waiting,
            (None, None) => wire::AgentState::Stopped,
        };
        let pid = memory.process.and_then(|process| process.pid);
        let has_channel = settings.agent.as_ref().is_some_and(|agent| agent.has_channel);
        Some(wire::Agent {
            command: settings.config.agent.as_ref().map(|agent| agent.command.clone()).unwrap_or_default(),
            protocol: if has_channel { wire::Protocol::Node } else { wire::Protocol::None },
            id: memory.process.map(|process| process.id.0),
            pid,
            state,
            generation: memory.process.map_or(app.supervisor.generation(), |process| process.generation).0,
            uptime_ms: memory.process.map(|process| self.cx.now_ms.saturating_sub(process.spawned_at_ms)),
            restarts: memory.restarts,
            time_left_ms: match &memory.process {
                Some(process) => process.phase.patience_ends_ms().map(left),
                None => memory.waiting_until_ms.map(left),
            },
            memory_bytes: None,
            cpu_ms: None,
            messages_lost: here.map_or(0, |here| here.mail.lost),
            note: here
                .and_then(|here| here.status_text.clone())
                .or_else(|| app.slot_notes.get(&Slot::AGENT.0).cloned()),
        })
    }

    // ---- what people are told ----

    /// Tells people what became of it.
    pub(super) fn tell_of_agent(&mut self, app_ix: AppIx, report: &Report) {
        let name = self.cx.apps[app_ix].name.clone();
        let pid = |pid: &Option<i32>| pid.map_or(String::new(), |pid| format!(" (pid {pid})"));
        match report {
            Report::AgentReady { pid: known, after_ms, .. } => {
                log::info!("{name}/agent: ready{} after {}", pid(known), human_ms(*after_ms));
            }
            Report::AgentDied { pid: known, cause, lived_ms, next, .. } => {
                let lived = match cause {
                    crate::supervisor::Cause::Ended(_) => format!(" after {}", human_ms(*lived_ms)),
                    _ => String::new(),
                };
                let text = format!("agent{} {}{lived}", pid(known), cause_words(cause));
                self.cx.apps[app_ix].slot_notes.insert(Slot::AGENT.0, text.clone());
                log::warn!(
                    "{name}/agent: {text}{}{}",
                    super::narration::next_words(*next),
                    self.agent_advice(app_ix, cause)
                );
            }
            Report::AgentLeft { pid: known, status, killed, .. } => {
                let overdue = if *killed { " (it did not end by itself)" } else { "" };
                let ended = super::narration::ended(*status);
                log::debug!("{name}/agent: agent{} has left: {ended}{overdue}", pid(known));
            }
            Report::AgentOverdue { .. } => log::warn!("{name}/agent: it has not ended in time; SIGKILL"),
            _ => {}
        }
    }

    fn agent_advice(&self, app_ix: AppIx, cause: &crate::supervisor::Cause) -> &'static str {
        use crate::supervisor::Evidence;
        if !matches!(cause, crate::supervisor::Cause::NotReady { .. }) {
            return "";
        }
        let policy = self.cx.apps[app_ix].settings().policy().agent;
        match policy.and_then(|policy| policy.ready.evidence) {
            Some(Evidence::Message) => "; it never called process.send('ready') (or give it agent.ready = \"2s\")",
            Some(Evidence::Notify) => "; it never sent READY=1 to NOTIFY_SOCKET",
            Some(Evidence::Listening | Evidence::Http) | None => "",
        }
    }

    // ---- what agent and workers are told ----

    /// Whether the app has an agent, now or at its next start.
    fn has_agent(&self, app_ix: AppIx) -> bool {
        self.cx.apps.get(app_ix).is_some_and(|app| app.supervisor.agent().is_some())
    }

    pub(super) fn ready_agent_ix(&self, app_ix: AppIx) -> Option<WorkerIx> {
        self.cx.apps[app_ix].supervisor.ready_agent().and_then(|agent| self.cx.workers.find(agent))
    }

    fn ready_workers(&self, app_ix: AppIx) -> Vec<WorkerView> {
        let workers = self.cx.apps[app_ix].supervisor.workers();
        workers.filter(|w| matches!(w.phase, Phase::Ready { .. })).collect()
    }

    /// Tells the agent, and the workers where it matters to them, what has just happened.
    pub(super) fn agent_hears(&mut self, app_ix: AppIx, report: &Report) {
        if !self.has_agent(app_ix) {
            return;
        }
        let about = |worker: &WorkerId, slot: &Slot, pid: Option<i32>| {
            let generation = self.cx.apps[app_ix].supervisor.worker(*worker).map(|view| view.generation.0);
            json!({ "worker": worker.0, "slot": slot.0, "pid": pid, "generation": generation })
        };
        let pid_of = |worker: &WorkerId| self.cx.apps[app_ix].supervisor.worker(*worker).and_then(|view| view.pid);
        match report {
            Report::AgentReady { .. } => self.introduce_agent(app_ix),
            Report::WorkerReady { worker, slot, .. } => {
                let about = about(worker, slot, pid_of(worker));
                if self.cx.apps[app_ix].supervisor.was_ready()
                    && let Some(ix) = self.cx.workers.find(*worker)
                {
                    self.greet(app_ix, ix);
                }
                self.tell_agent(app_ix, "worker_ready", about);
                self.tell_pids(app_ix);
            }
            Report::AppReady { workers } => {
                self.tell_agent(app_ix, "app_ready", json!({ "workers": workers }));
                self.greet_all(app_ix);
            }
            Report::WorkerDied { worker, slot, pid, cause, .. } => {
                let mut about = about(worker, slot, *pid);
                about["reason"] = cause_words(cause).into();
                self.tell_agent(app_ix, "worker_exit", about);
                self.tell_pids(app_ix);
            }
            Report::WorkerLeft { worker, slot, pid, .. } => {
                let about = about(worker, slot, *pid);
                self.tell_agent(app_ix, "worker_exit", about);
                self.tell_pids(app_ix);
            }
            Report::WorkerLeaving { worker, slot } => {
                let about = about(worker, slot, pid_of(worker));
                self.tell_agent(app_ix, "worker_leaving", about);
                self.tell_pids(app_ix);
            }
            Report::Scaled { slots } => self.tell_agent(app_ix, "scaled", json!({ "workers": slots })),
            Report::ReloadStarted { to } => self.tell_agent(app_ix, "reload_started", json!({ "generation": to.0 })),
            Report::ReloadDone { to } => self.tell_agent(app_ix, "reload_done", json!({ "generation": to.0 })),
            Report::ReloadFailed { to, reason } => {
                self.tell_agent(app_ix, "reload_failed", json!({ "generation": to.0, "reason": reason }));
            }
            _ => {}
        }
    }

    /// Tells a ready agent what happened, in our own shape.
    pub(super) fn tell_agent(&mut self, app_ix: AppIx, event: &str, about: Value) {
        let Some(agent) = self.ready_agent_ix(app_ix) else { return };
        let mut line = Vec::new();
        messages::event(event, about, &mut line);
        self.post(agent, &line);
    }

    /// egg's list of the workers that serve.
    fn tell_pids(&mut self, app_ix: AppIx) {
        let Some(agent) = self.ready_agent_ix(app_ix) else { return };
        let pids: Vec<i32> = self.ready_workers(app_ix).iter().filter_map(|w| w.pid).collect();
        let mut line = Vec::new();
        messages::egg_action("egg-pids", &json!(pids), &mut line);
        self.post(agent, &line);
    }

    /// A new agent learns who is there; the workers learn its pid.
    fn introduce_agent(&mut self, app_ix: AppIx) {
        let workers = self.ready_workers(app_ix);
        let list: Vec<Value> = workers
            .iter()
            .map(|w| json!({ "worker": w.id.0, "slot": w.slot.0, "pid": w.pid, "generation": w.generation.0 }))
            .collect();
        let app = &self.cx.apps[app_ix];
        let about = json!({
            "app": app.name,
            "generation": app.supervisor.generation().0,
            "wanted": app.supervisor.slot_count(),
            "workers": list,
        });
        self.tell_agent(app_ix, "state", about);
        self.tell_pids(app_ix);
        let mut line = self.agents_pid(app_ix).unwrap_or_default();
        messages::egg_action("agent-start", &Value::Null, &mut line);
        for ix in self.cx.workers.indices() {
            if self.cx.workers.get(ix).is_some_and(|w| w.app == app_ix && !w.is_agent) {
                for line in line.split_inclusive(|&b| b == b'\n') {
                    self.post(ix, line);
                }
            }
        }
        self.greet_all(app_ix);
    }

    /// The line from which a worker learns the pid of an agent that is ready.
    pub(super) fn agents_pid(&self, app_ix: AppIx) -> Option<Vec<u8>> {
        let pid = self.ready_agent_ix(app_ix).and_then(|agent| self.cx.workers.get(agent)?.pid)?;
        let mut line = Vec::new();
        messages::egg_action("egg-pids", &json!([pid]), &mut line);
        Some(line)
    }

    /// Every worker was ready once: whoever has not heard of it does now.
    pub(super) fn greet_all(&mut self, app_ix: AppIx) {
        if !self.has_agent(app_ix) || !self.cx.apps[app_ix].supervisor.was_ready() {
            return;
        }
        let workers: Vec<WorkerId> = self.ready_workers(app_ix).iter().map(|w| w.id).collect();
        for worker in workers {
            if let Some(ix) = self.cx.workers.find(worker) {
                self.greet(app_ix, ix);
            }
        }
        if let Some(agent) = self.ready_agent_ix(app_ix) {
            self.greet(app_ix, agent);
        }
    }

    fn greet(&mut self, app_ix: AppIx, ix: WorkerIx) {
        if self.cx.workers.get(ix).is_none_or(|worker| worker.greeted) {
            return;
        }
        let app = &self.cx.apps[app_ix];
        let data = json!({ "port": app.port(), "workers": app.supervisor.slot_count(), "name": app.name });
        let mut line = Vec::new();
        messages::egg_action("egg-ready", &data, &mut line);
        self.post(ix, &line);
        if let Some(worker) = self.cx.workers.get_mut(ix) {
            worker.greeted = true;
        }
        checkpoint::save_serves(&mut self.cx, ix);
    }
}

fn state(phase: &AgentPhase) -> wire::AgentState {
    match phase {
        AgentPhase::Starting { .. } => wire::AgentState::Starting,
        AgentPhase::Ready { .. } => wire::AgentState::Ready,
        AgentPhase::Stopping { .. } | AgentPhase::Killed => wire::AgentState::Stopping,
    }
}
