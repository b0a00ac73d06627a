//! The agent of an app, the master's side: its process, and what people are shown and told of it. When it starts and ends
//! is the supervisor's business; what agent and workers are told of each other is in `relay`.
use super::context::Context;
use super::narration::{cause_words, human_ms};
use super::output::Way;
use super::recovery::agent_tag_bytes;
use super::settings::SpawnPlace;
use super::spawn::channel_name;
use super::{Master, resume};
use crate::api::types as wire;
use crate::ids::{AppIx, Generation, Slot, WorkerId};
use crate::keeper::link::Inheritance;
use crate::os::listen;
use crate::supervisor::{AgentPhase, Cause, Event, Evidence, Report};
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};

impl Master {
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
}

/// What is shown of it; `None`: the app has none.
pub(super) fn view(cx: &Context, app_ix: AppIx) -> Option<wire::Agent> {
    let app = &cx.apps[app_ix];
    let memory = app.supervisor.agent()?;
    let settings = app.settings();
    let here = memory.process.and_then(|p| cx.workers.find(p.id)).and_then(|ix| cx.workers.get(ix));
    let left = |at_ms: u64| at_ms.saturating_sub(cx.now_ms);
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
        uptime_ms: memory.process.map(|process| cx.now_ms.saturating_sub(process.spawned_at_ms)),
        restarts: memory.restarts,
        time_left_ms: match &memory.process {
            Some(process) => process.phase.patience_ends_ms().map(left),
            None => memory.waiting_until_ms.map(left),
        },
        memory_bytes: None,
        cpu_ms: None,
        messages_lost: here.map_or(0, |here| here.receiver.lost),
        note: here.and_then(|here| here.status_text.clone()).or_else(|| app.slot_notes.get(&Slot::AGENT.0).cloned()),
    })
}

/// Tells people what became of it.
pub(super) fn log_report(cx: &mut Context, app_ix: AppIx, report: &Report) {
    let name = cx.apps[app_ix].name.clone();
    let pid = |pid: &Option<i32>| pid.map_or(String::new(), |pid| format!(" (pid {pid})"));
    match report {
        Report::AgentReady { pid: known, after_ms, .. } => {
            log::info!("{name}/agent: ready{} after {}", pid(known), human_ms(*after_ms));
        }
        Report::AgentDied { pid: known, cause, lived_ms, next, .. } => {
            let lived = match cause {
                Cause::Ended(_) => format!(" after {}", human_ms(*lived_ms)),
                _ => String::new(),
            };
            let text = format!("agent{} {}{lived}", pid(known), cause_words(cause));
            cx.apps[app_ix].slot_notes.insert(Slot::AGENT.0, text.clone());
            log::warn!("{name}/agent: {text}{}{}", super::narration::next_words(*next), advice(cx, app_ix, cause));
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

fn advice(cx: &Context, app_ix: AppIx, cause: &Cause) -> &'static str {
    if !matches!(cause, Cause::NotReady { .. }) {
        return "";
    }
    let policy = cx.apps[app_ix].settings().policy().agent;
    match policy.and_then(|policy| policy.ready.evidence) {
        Some(Evidence::Message) => "; it never called process.send('ready') (or give it agent.ready = \"2s\")",
        Some(Evidence::Notify) => "; it never sent READY=1 to NOTIFY_SOCKET",
        Some(Evidence::Listening | Evidence::Http) | None => "",
    }
}

fn state(phase: &AgentPhase) -> wire::AgentState {
    match phase {
        AgentPhase::Starting { .. } => wire::AgentState::Starting,
        AgentPhase::Ready { .. } => wire::AgentState::Ready,
        AgentPhase::Stopping { .. } | AgentPhase::Killed => wire::AgentState::Stopping,
    }
}
