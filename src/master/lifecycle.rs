//! Start, restart and delete on demand: what the commands `start`, `restart` and `delete` ask of a deployment that is
//! there, and who waits for it. What starting means for the workers is the supervisor's business.
use super::app::App;
use super::control::{StartState, Wait};
use super::narration::{cause_words, plural};
use super::reading::{self, Input, Purpose};
use super::{Master, checkpoint, spawn};
use crate::api::request::{Role, StopMode};
use crate::api::{Answer, Change, ReplySender};
use crate::home::EntryApp;
use crate::ids::AppIx;
use crate::os::cpu;
use crate::supervisor::{Next, Report};
use std::collections::{BTreeMap, BTreeSet};

impl App {
    /// The number of workers, where it is not the configured one.
    fn scaled(&self) -> Option<u32> {
        let configured = self.settings().config.workers.count(cpu::available().count);
        Some(self.supervisor.slot_count()).filter(|count| *count != configured)
    }

    pub(super) fn start_state(&self) -> StartState {
        if let Some((why, said)) = &self.start_failure {
            return StartState::Failed(format!("{}: {why}", self.name), said.clone());
        }
        if self.starting {
            return StartState::Pending;
        }
        if self.supervisor.is_stopping() {
            return StartState::Failed(format!("{} was stopped", self.name), None);
        }
        if self.supervisor.is_over() && !self.supervisor.is_errored() {
            return StartState::Ready(format!("{}: it has finished", self.name));
        }
        let workers = self.supervisor.ready_count();
        let at = match self.addresses().join(" ") {
            none if none.is_empty() => none,
            at => format!(" on {at}"),
        };
        StartState::Ready(format!("{}: {workers} {} ready{at}", self.name, plural(workers, "worker")))
    }
}

impl Master {
    /// Starts an app that does not run; `restart`: or one that does, after a stop.
    pub(super) fn start_asked(&mut self, ix: AppIx, restart: bool, change: Change, reply: ReplySender) {
        if reading::takes_long(&self.cx, &change) {
            return self.read_apart(Purpose::Start { app: ix, restart, reply }, change);
        }
        self.start_with(ix, restart, Input::Change(change), reply);
    }

    /// The same with what was read.
    pub(super) fn start_with(&mut self, ix: AppIx, restart: bool, input: Input, reply: ReplySender) {
        let app = &self.cx.apps[ix];
        let idle = app.supervisor.is_stopped() || app.supervisor.is_over();
        let is_new = matches!(&input, Input::Change(change) if change.sources.is_some());
        let answer = if self.cx.deployment.stop_asked {
            Answer::Refused(format!("{} is being ended", self.cx.deployment.name))
        } else if !idle && !restart && !app.supervisor.is_stopping() && !is_new {
            // Somebody else was a moment faster: what they started is waited for.
            return self.wait_for(Wait::Start { open: BTreeSet::from([ix]) }, reply);
        } else if !idle && !restart && !app.supervisor.is_stopping() {
            Answer::Refused(format!("{} runs already; reload replaces its workers, restart stops it first", app.name))
        } else {
            match self.prepare_start(ix, input) {
                Ok(()) => {
                    self.note_states();
                    return self.wait_for(Wait::Start { open: BTreeSet::from([ix]) }, reply);
                }
                Err(why) => Answer::Refused(why),
            }
        };
        // The client may have left.
        let _ = reply.send(answer);
    }

    /// Answers when every app is ready, or one of its first workers has failed.
    pub(super) fn ready_asked(&mut self, reply: ReplySender) {
        // An app may have ended its start, well or badly, before anybody asked.
        let is_meant = |app: &App| app.starting || !(app.supervisor.is_stopping() || app.supervisor.is_stopped());
        let open = self.cx.apps.indices().filter(|&ix| is_meant(&self.cx.apps[ix]) && !self.cx.apps[ix].deleted);
        let open = open.collect();
        self.wait_for(Wait::Start { open }, reply);
    }

    /// Takes an app out of the deployment; what runs of it ends first.
    pub(super) fn delete_asked(&mut self, ix: AppIx, mode: StopMode, reply: ReplySender) {
        self.cx.apps[ix].deleted = true;
        checkpoint::save_app(&mut self.cx, ix);
        self.note_states();
        self.stop_app(ix, mode);
        self.wait_for(Wait::StopApp { app: ix }, reply);
    }

    /// Keeps what a successor in a later life has to know of each app in the entry: which there are and which run.
    pub(super) fn note_states(&self) {
        let Some(home) = self.cx.deployment.home.as_ref().filter(|_| self.cx.deployment.background) else { return };
        let mut entry = match home.entry(&self.cx.deployment.name) {
            Ok(entry) => entry,
            Err(e) => return log::warn!("the entry of {} is not what it should be: {e}", self.cx.deployment.name),
        };
        let stays = |app: &&App| !app.deleted;
        entry.apps = self
            .cx
            .apps
            .iter()
            .filter(stays)
            .map(|app| EntryApp {
                name: app.name.clone(),
                id: self.cx.deployment.ids.get(&app.name).copied().unwrap_or_default(),
                stopped: app.closed && !app.starting,
                workers: app.scaled(),
            })
            .collect();
        let serving = self.cx.apps.iter().filter(stays).map(|app| app.settings().source).max();
        entry.sources = serving.and_then(|source| self.cx.deployment.sources.get(&source)).cloned();
        if let Err(e) = home.write_entry(&entry) {
            log::warn!("{e}");
        }
    }

    /// What a report means for a start that is under way.
    pub(super) fn note_start(&mut self, ix: AppIx, report: &Report) {
        match report {
            Report::AppReady { .. } => {
                self.cx.apps[ix].starting = false;
                self.cx.apps[ix].start_failure = None;
                let ids: Vec<_> = self.cx.apps[ix].supervisor.workers().map(|w| w.id).collect();
                ids.into_iter().for_each(|id| drop(self.output.take_tail(id)));
            }
            Report::WorkerDied { next: Next::Stopped | Next::LastRun { failed: false, .. }, .. } => {}
            Report::WorkerDied { worker, cause, lived_ms, next, .. } => {
                let newest = self.cx.apps[ix].last_generation;
                let here = self.cx.workers.find(*worker).and_then(|w| self.cx.workers.get(w));
                let is_new = here.is_none_or(|w| w.generation == newest);
                if self.cx.apps[ix].starting && is_new && self.cx.apps[ix].start_failure.is_none() {
                    let said = self.cx.apps[ix].last_words.take().or_else(|| self.output.take_tail(*worker));
                    let lived = super::narration::human_ms(*lived_ms);
                    let again = matches!(next, Next::Replaced { .. } | Next::Waiting { .. });
                    let again = if again { "; it is tried again" } else { "" };
                    let why = format!("its first worker {} after {lived}{again}", cause_words(cause));
                    self.cx.apps[ix].start_failure = Some((why, said));
                }
            }
            Report::AgentDied { agent, cause, lived_ms, .. }
                if self.cx.apps[ix].starting && self.cx.apps[ix].start_failure.is_none() =>
            {
                let said = self.cx.apps[ix].last_words.take().or_else(|| self.output.take_tail(*agent));
                let lived = super::narration::human_ms(*lived_ms);
                let why = format!("its agent {} after {lived}; it is tried again", cause_words(cause));
                self.cx.apps[ix].start_failure = Some((why, said));
            }
            Report::StartDropped { .. } => {
                self.cx.apps[ix].start_failure = Some(("a stop came after the restart".to_owned(), None));
            }
            Report::Started { .. } => {
                self.cx.apps[ix].last_words = None;
                self.cx.apps[ix].closed = false;
                self.cx.deployment.exit_code = 0;
                self.drop_old_generations(ix);
            }
            Report::Scaled { .. } => self.note_states(),
            Report::AppErrored | Report::AppFinished | Report::AppStopped => self.cx.apps[ix].starting = false,
            _ => {}
        }
    }

    /// Sends a signal to every process of an app.
    pub(super) fn signal_asked(&mut self, ix: AppIx, signal: i32) -> Answer {
        let rules = &self.cx.apps[ix].supervisor;
        let workers: Vec<_> = rules.workers().filter(|w| w.pid.is_some()).map(|w| w.id).collect();
        let agent = rules.agent().and_then(|slot| slot.current).filter(|p| p.pid.is_some()).map(|p| p.id);
        for worker in workers.iter().chain(&agent) {
            self.cx.keeper.signal(*worker, signal);
        }
        let count = workers.len() as u32;
        let name = crate::os::signal::name(signal);
        let and_agent = if agent.is_some() { " and the agent" } else { "" };
        let workers = plural(count, "worker");
        Answer::Done(format!("{}: {name} sent to {count} {workers}{and_agent}", self.cx.apps[ix].name))
    }

    /// The variables that a worker of an app has now, as its first slot sees them.
    pub(super) fn environment_asked(&self, ix: AppIx, of: Role) -> Answer {
        let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        let env = match of {
            Role::Worker => Some(spawn::worker_environment(&self.cx, ix)),
            Role::Agent => spawn::agent_environment(&self.cx, &self.notify, ix),
        };
        let Some(env) = env else { return Answer::NotFound(format!("{} has no agent", self.cx.apps[ix].name)) };
        Answer::Environment(env.into_iter().map(|(k, v)| (text(k), text(v))).collect::<BTreeMap<_, _>>())
    }

    /// Whether a deployment stays although nothing of it runs: it can be started again, by somebody or by itself.
    pub(super) fn stays_when_over(&self) -> bool {
        !self.cx.deployment.stop_asked
            && self.cx.apps.iter().any(|app| app.comes_back() || (self.cx.deployment.background && !app.deleted))
    }
}
