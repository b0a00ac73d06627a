//! Commands: what the control API asks, what waits for an answer, and what the signals share with it.
use super::app::App;
use super::reading::{self, Input, Purpose};
use super::{Master, checkpoint, upgrade};
use crate::api::request::{Scale, StopMode, Target};
use crate::api::types as wire;
use crate::api::{Answer, Call, Change, Order, ReplySender, Request};
use crate::config::Balance;
use crate::ids::{AppIx, Generation};
use crate::limits;
use crate::logs::{Reply, Tail};
use crate::os::cpu;
use crate::reuseport::program::Steering;
use crate::supervisor::{Event, Next, Phase, Report, SlotPhase};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

/// A client that is answered when something has ended.
pub(super) struct Waiter {
    what: Wait,
    reply: Option<ReplySender>,
    /// What the worker printed that made it fail.
    said: Option<Arc<Tail>>,
}

/// What has to end.
pub(super) enum Wait {
    /// These reloads (app index to generation); the text of those that failed.
    Reload { open: BTreeMap<AppIx, Generation>, failures: Vec<String>, done: Vec<String> },
    /// The start of these apps.
    Start { open: BTreeSet<AppIx> },
    /// The stop of one app.
    StopApp { app: AppIx },
    /// The stop of everything.
    StopAll,
}

/// What came of a start, as far as it is known.
pub(super) enum StartState {
    /// Nothing yet.
    Pending,
    /// Every worker is ready.
    Ready(String),
    /// One of its first workers failed; what it printed.
    Failed(String, Option<Arc<Tail>>),
}

impl Master {
    pub(super) fn answer_calls(&mut self) {
        for _ in 0..limits::CONTROL_QUEUE_MAX {
            let Some(call) = self.calls.as_mut().and_then(|c| c.try_next()) else { return };
            self.answer_call(call);
        }
    }

    fn answer_call(&mut self, call: Call) {
        let Call { order, reply } = call;
        let request = match order {
            Order::Request(request) => request,
            Order::TakeOver { path, binary } => {
                // The client may have left.
                let _ = reply.send(self.upgrade.begin(&mut self.cx, &path, &binary));
                return;
            }
        };
        let answer = match request {
            Request::View(_) => Answer::Deployment(Box::new(self.deployment())),
            Request::Upgrade { binary: _ } => upgrade::snapshot(&self.cx),
            Request::ReopenLogs => return self.output.files.reopen(Some(told(reply))),
            Request::Ready => return self.ready_asked(reply),
            Request::FlushLogs { target } => match self.apps_meant(&target) {
                Err(answer) => answer,
                Ok(apps) => return self.output.files.empty(self.log_paths(&apps), told(reply)),
            },
            Request::Reload { target: Target::All, change } => {
                return self.reload_asked(&self.apps_that_run(), change, Some(reply));
            }
            Request::Reload { target: Target::App(name), change } => match self.app_named(&name) {
                Err(answer) => answer,
                Ok(ix) => return self.reload_asked(&[ix], change, Some(reply)),
            },
            Request::Start { app, change } => match self.app_named(&app) {
                Err(answer) => answer,
                Ok(ix) => return self.start_asked(ix, false, change, reply),
            },
            Request::Restart { app, change } => match self.app_named(&app) {
                Err(answer) => answer,
                Ok(ix) => return self.start_asked(ix, true, change, reply),
            },
            Request::Delete { app, mode } => match self.app_named(&app) {
                Err(answer) => answer,
                Ok(ix) => return self.delete_asked(ix, mode, reply),
            },
            Request::Scale { app, to } => match self.app_named(&app) {
                Err(answer) => answer,
                Ok(ix) => self.scale_asked(ix, &to),
            },
            Request::Signal { app, signal } => match self.app_named(&app) {
                Err(answer) => answer,
                Ok(ix) => self.signal_asked(ix, signal),
            },
            Request::Environment { app, of } => match self.app_named(&app) {
                Err(answer) => answer,
                Ok(ix) => self.environment_asked(ix, of),
            },
            Request::Stop { target: Target::All, mode } => {
                self.stop_all(mode);
                return self.wait_for(Wait::StopAll, reply);
            }
            Request::Stop { target: Target::App(name), mode } => match self.app_named(&name) {
                Err(answer) => answer,
                Ok(app) => {
                    self.stop_app(app, mode);
                    self.note_states();
                    return self.wait_for(Wait::StopApp { app }, reply);
                }
            },
        };
        // The client may have left.
        let _ = reply.send(answer);
    }

    /// Has a client wait; it is answered at once when there is nothing to wait for.
    pub(super) fn wait_for(&mut self, what: Wait, reply: ReplySender) {
        self.waiters.push(Waiter { what, reply: Some(reply), said: None });
        self.settle_waiters();
    }

    /// "Everything" means what is not stopped.
    pub(super) fn apps_that_run(&self) -> Vec<AppIx> {
        self.cx.apps.indices().filter(|ix| !self.cx.apps[*ix].supervisor.is_stopping()).collect()
    }

    fn apps_meant(&self, target: &Target) -> Result<Vec<AppIx>, Answer> {
        match target {
            Target::All => Ok(self.cx.apps.indices().filter(|&ix| !self.cx.apps[ix].deleted).collect()),
            Target::App(name) => self.app_named(name).map(|ix| vec![ix]),
        }
    }

    fn app_named(&self, name: &str) -> Result<AppIx, Answer> {
        let apps = &self.cx.apps;
        apps.indices().find(|&ix| !apps[ix].deleted && apps[ix].name == name).ok_or_else(|| {
            let names: Vec<&str> = apps.iter().filter(|a| !a.deleted).map(|a| a.name.as_str()).collect();
            Answer::NotFound(format!("no app is called {name:?}; there is {}", names.join(", ")))
        })
    }

    /// The log files of these apps.
    fn log_paths(&self, apps: &[AppIx]) -> Vec<PathBuf> {
        let apps = apps.iter().map(|&ix| &self.cx.apps[ix]);
        let paths = apps.flat_map(|app| {
            let config = &app.settings().config;
            config.log.files(app.supervisor.slot_count(), config.agent.is_some())
        });
        let mut paths: Vec<PathBuf> = paths.collect();
        paths.sort();
        paths.dedup();
        paths
    }

    fn scale_asked(&mut self, ix: AppIx, to: &Scale) -> Answer {
        let now = self.cx.apps[ix].supervisor.slot_count();
        if let Some(why) = self.refusal_while_stopped(ix) {
            return Answer::Refused(why);
        }
        match to.resolve(now, cpu::available().count) {
            Err(error) => Answer::Refused(error.to_string()),
            Ok(slots) => {
                self.cx.events.push_back((ix, Event::Scale { slots }));
                let name = &self.cx.apps[ix].name;
                Answer::Done(format!("{name}: from {now} to {slots} {}", super::narration::plural(slots, "worker")))
            }
        }
    }

    /// Why nothing can be done with an app that is not meant to run, if it is not.
    pub(super) fn refusal_while_stopped(&self, ix: AppIx) -> Option<String> {
        let app = &self.cx.apps[ix];
        if !app.supervisor.is_stopping() {
            return None;
        }
        let state = if app.supervisor.is_stopped() { "stopped" } else { "stopping" };
        Some(match self.cx.deployment.background {
            true => format!("{} is {state}; start it: clusterd start {}", app.name, app.name),
            false => format!("{} is {state}", app.name),
        })
    }

    /// Reads the configuration again and reloads these apps; the client is answered at the end.
    pub(super) fn reload_asked(&mut self, apps: &[AppIx], change: Change, reply: Option<ReplySender>) {
        if reading::takes_long(&self.cx, &change) {
            return self.read_apart(Purpose::Reload { apps: apps.to_vec(), reply }, change);
        }
        self.reload_with(apps, Input::Change(change), reply);
    }

    /// The same with what was read.
    pub(super) fn reload_with(&mut self, apps: &[AppIx], input: Input, reply: Option<ReplySender>) {
        let mut open = BTreeMap::new();
        let mut failures = Vec::new();
        match self.prepare_reload(apps, input) {
            Err(reason) => failures.push(reason),
            Ok(events) => {
                for (ix, to, event) in events {
                    open.insert(ix, to);
                    self.cx.events.push_back((ix, event));
                }
            }
        }
        for failure in &failures {
            log::error!("reload refused: {failure}; the running configuration serves on");
            apps.iter().for_each(|&app| self.hooks.run_for_refusal(&self.cx, app, failure));
        }
        self.waiters.push(Waiter { what: Wait::Reload { open, failures, done: Vec::new() }, reply, said: None });
        self.settle_waiters();
    }

    pub(super) fn stop_all(&mut self, mode: StopMode) {
        match mode {
            StopMode::Now => log::info!("stopping now"),
            StopMode::Drain if !self.cx.deployment.stop_asked => {
                log::info!("stopping; a second signal stops at once");
            }
            StopMode::Drain => {}
        }
        self.cx.deployment.stop_asked = true;
        checkpoint::save_deployment(&mut self.cx);
        for ix in self.cx.apps.indices() {
            self.stop_app(ix, mode);
        }
        self.settle_waiters();
    }

    pub(super) fn stop_app(&mut self, ix: AppIx, mode: StopMode) {
        let app = &mut self.cx.apps[ix];
        app.closed = true;
        app.starting = false;
        for listener in &mut app.listeners {
            listener.leave_poll(&self.cx.reactor);
        }
        let now = mode.is_now();
        self.relay.inform_agent(&mut self.cx, ix, "stopping", serde_json::json!({ "now": now }));
        self.cx.events.push_back((ix, Event::Stop { now }));
    }

    /// Looks whether a report is what somebody waits for, and whether everything is over.
    pub(super) fn after_report(&mut self, app_ix: AppIx, report: &Report) {
        let name = self.cx.apps[app_ix].name.clone();
        self.note_start(app_ix, report);
        if let Report::WorkerDied { worker, next: Next::None, .. }
        | Report::AgentDied { agent: worker, next: Next::None, .. } = report
        {
            let tail = self.output.take_tail(*worker);
            let last_words = &mut self.cx.apps[app_ix].last_words;
            *last_words = last_words.take().or(tail);
        }
        let mut said = None;
        if matches!(report, Report::ReloadFailed { .. } | Report::ReloadDone { .. }) {
            said = self.cx.apps[app_ix].last_words.take();
            let ids: Vec<_> = self.cx.apps[app_ix].supervisor.workers().map(|w| w.id).collect();
            ids.into_iter().for_each(|id| drop(self.output.take_tail(id)));
        }
        for waiter in &mut self.waiters {
            let Wait::Reload { open, failures, done } = &mut waiter.what else { continue };
            match report {
                Report::ReloadDone { to } if open.get(&app_ix) == Some(to) => {
                    open.remove(&app_ix);
                    done.push(name.clone());
                }
                Report::ReloadFailed { to, reason } if open.get(&app_ix) == Some(to) => {
                    open.remove(&app_ix);
                    failures.push(format!("{name}: {reason}; {}", self.cx.apps[app_ix].serves_still()));
                    waiter.said = waiter.said.take().or_else(|| said.clone());
                }
                Report::ReloadSuperseded { to, by } if open.get(&app_ix) == Some(to) => {
                    // The later one brings whatever this one was to bring.
                    open.insert(app_ix, *by);
                }
                _ => {}
            }
        }
        if matches!(report, Report::ReloadFailed { .. }) {
            self.forget_failed_sources();
        }
        if matches!(report, Report::ReloadDone { .. }) && !self.cx.apps.iter().any(|app| app.supervisor.is_errored()) {
            // What had given up is back.
            self.cx.deployment.exit_code = 0;
        }
        if matches!(report, Report::ReloadDone { .. } | Report::ReloadFailed { .. }) {
            self.note_states();
            self.drop_old_generations(app_ix);
        }
        if matches!(report, Report::AppStopped | Report::AppErrored | Report::AppFinished) {
            self.close_app(app_ix, matches!(report, Report::AppStopped));
            self.cx.deployment.exit_code =
                self.cx.deployment.exit_code.max(u8::from(matches!(report, Report::AppErrored)));
        }
        self.settle_waiters();
    }

    /// Answers those whose matter has ended.
    fn settle_waiters(&mut self) {
        let apps = &self.cx.apps;
        for waiter in &mut self.waiters {
            let answer = match &waiter.what {
                Wait::Reload { open, .. } if !open.is_empty() => continue,
                Wait::Reload { failures, done, .. } if failures.is_empty() => {
                    Answer::Done(format!("reloaded {}", done.join(", ")))
                }
                Wait::Reload { failures, .. } => {
                    Answer::Failed { error: failures.join("; "), said: waiter.said.take() }
                }
                Wait::Start { open } => {
                    let states: Vec<StartState> = open.iter().map(|&ix| apps[ix].start_state()).collect();
                    match outcome(states) {
                        Some(answer) => answer,
                        None => continue,
                    }
                }
                Wait::StopApp { app } if apps[*app].supervisor.is_stopped() => {
                    let what = if apps[*app].deleted { "is deleted" } else { "has stopped" };
                    Answer::Done(format!("{} {what}", apps[*app].name))
                }
                Wait::StopAll if apps.iter().all(|a| a.supervisor.is_stopped()) => {
                    Answer::Done(format!("{} has stopped", self.cx.deployment.name))
                }
                Wait::StopApp { .. } | Wait::StopAll => continue,
            };
            if let Some(reply) = waiter.reply.take() {
                // The client may have left.
                let _ = reply.send(answer);
            }
        }
        self.waiters.retain(|w| w.reply.is_some() || matches!(&w.what, Wait::Reload { open, .. } if !open.is_empty()));
    }

    /// Nothing of this app will run again (until a reload): whoever waits to connect is refused instead of left hanging.
    fn close_app(&mut self, ix: AppIx, stopped: bool) {
        if !stopped {
            return;
        }
        for listener_ix in self.cx.apps[ix].listeners.indices() {
            self.kernel_mode.groups.release_listener(&mut self.cx, ix, listener_ix);
            if let Some(path) = self.cx.apps[ix].listeners[listener_ix].unlink.take() {
                // Somebody may have removed it before us.
                let _ = std::fs::remove_file(path);
            }
            self.cx.apps[ix].listeners[listener_ix].retire();
        }
        self.cx.apps[ix].waiting.queue.clear();
    }

    fn deployment(&self) -> wire::Deployment {
        wire::Deployment {
            name: self.cx.deployment.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            keeper_pid: self.cx.deployment.keeper_pid,
            keeper_version: self.upgrade.keeper_version().to_owned(),
            master_pid: std::process::id() as i32,
            master_restarts: self.cx.deployment.incarnation.saturating_sub(1),
            uptime_ms: self.cx.now_ms.saturating_sub(self.cx.deployment.started_ms),
            upgrade: self.upgrade.view(),
            background: self.cx.deployment.background,
            config: self
                .cx
                .deployment
                .sources
                .get(&self.cx.deployment.last_source)
                .and_then(|s| s.file.as_ref())
                .map(|file| file.path.clone()),
            apps: self.cx.apps.indices().filter(|&ix| !self.cx.apps[ix].deleted).map(|ix| self.app_view(ix)).collect(),
        }
    }

    fn app_view(&self, index: AppIx) -> wire::App {
        let app = &self.cx.apps[index];
        let settings = app.settings();
        let left = |until_ms: u64| until_ms.saturating_sub(self.cx.now_ms);
        let steered = app.steered();
        let mut workers: Vec<wire::Worker> = app
            .supervisor
            .workers()
            .map(|w| {
                let here = self.cx.workers.find(w.id).and_then(|ix| self.cx.workers.get(ix));
                let open = here.and_then(|h| h.member).map_or(0, |m| app.balancer.open_count(m));
                let restarts = app.supervisor.slot(w.slot).map_or(0, |s| s.restarts);
                wire::Worker {
                    slot: w.slot.0,
                    id: Some(w.id.0),
                    pid: w.pid,
                    state: worker_state(&w.phase),
                    generation: w.generation.0,
                    uptime_ms: Some(self.cx.now_ms.saturating_sub(w.spawned_at_ms)),
                    restarts,
                    open_handoffs: open,
                    handoffs: here.map_or(0, |h| h.taken),
                    time_left_ms: w.phase.patience_ends_ms().map(left),
                    steered: steered.get(&w.slot.0).copied(),
                    // The API reads them.
                    memory_bytes: None,
                    cpu_ms: None,
                    loop_delay_ms: here.and_then(|h| h.liveness.delay_ms(self.cx.now_us)),
                    messages_lost: here.map_or(0, |h| h.receiver.lost),
                    not_yet: app.supervisor.not_yet(w.id).map(str::to_owned),
                    note: here.and_then(|h| h.status_text.clone()).or_else(|| app.slot_notes.get(&w.slot.0).cloned()),
                }
            })
            .collect();
        let filled: BTreeSet<u32> = workers.iter().map(|w| w.slot).collect();
        for (number, slot) in app.supervisor.slots().enumerate() {
            let number = number as u32;
            let (state, time_left_ms) = match slot.phase {
                SlotPhase::Filled => continue,
                SlotPhase::Waiting { until_ms } => (wire::WorkerState::Waiting, Some(left(until_ms))),
                SlotPhase::Errored => (wire::WorkerState::Errored, None),
                SlotPhase::Stopped => (wire::WorkerState::Stopped, None),
            };
            if filled.contains(&number) {
                continue;
            }
            workers.push(wire::Worker {
                slot: number,
                id: None,
                pid: None,
                state,
                generation: app.supervisor.generation().0,
                uptime_ms: None,
                restarts: slot.restarts,
                open_handoffs: 0,
                handoffs: 0,
                time_left_ms,
                steered: steered.get(&number).copied(),
                memory_bytes: None,
                cpu_ms: None,
                loop_delay_ms: None,
                messages_lost: 0,
                not_yet: None,
                note: app.slot_notes.get(&number).cloned(),
            });
        }
        workers.sort_by_key(|w| (w.slot, w.id));
        wire::App {
            name: app.name.clone(),
            id: self.cx.deployment.ids.get(&app.name).copied(),
            namespace: settings.config.namespace.clone(),
            cwd: settings.cwd.to_string_lossy().into_owned(),
            status: status(app),
            command: settings.config.command.clone(),
            workers_wanted: app.supervisor.slot_count(),
            workers_ready: app.supervisor.ready_count(),
            generation: app.supervisor.generation().0,
            balance: balance(settings.config.balance),
            steering: app.steering().map(steering),
            protocol: wire::Protocol::from_word(settings.protocol.kind().rules().name),
            ready: settings.ready_words(),
            listen: app.addresses(),
            restarts: app.restarts,
            handoffs: app.handoffs,
            log: (&settings.config.log).into(),
            log_lines_dropped: self.output.files.lost(index),
            workers,
            agent: super::agent::view(&self.cx, index),
        }
    }

    /// Ends the deployment when nothing is left to run.
    pub(super) fn finish_if_over(&mut self) {
        let over = self.cx.apps.iter().all(|a| a.supervisor.is_stopped() || a.supervisor.is_over());
        if !over || !self.cx.events.is_empty() || self.stays_when_over() {
            self.hooks.goes_on();
        } else if !self.cx.deployment.finished && self.hooks.may_end(self.cx.now_ms) {
            self.finish();
        }
    }
}

/// Has a client told what the log's thread says.
fn told(reply: ReplySender) -> Reply {
    Box::new(move |result| {
        // The client may have left.
        let _ = reply.send(match result {
            Ok(text) => Answer::Done(text),
            Err(text) => Answer::Refused(text),
        });
    })
}

/// What came of several starts, once it is known of all, or one has failed.
fn outcome(states: Vec<StartState>) -> Option<Answer> {
    let mut ready = Vec::new();
    let mut pending = false;
    for state in states {
        match state {
            StartState::Failed(error, said) => return Some(Answer::Failed { error, said }),
            StartState::Ready(text) => ready.push(text),
            StartState::Pending => pending = true,
        }
    }
    (!pending).then(|| Answer::Done(ready.join("\n")))
}

fn status(app: &App) -> wire::AppStatus {
    let s = &app.supervisor;
    if s.is_stopped() {
        wire::AppStatus::Stopped
    } else if s.is_restarting() {
        wire::AppStatus::Starting
    } else if s.is_stopping() {
        wire::AppStatus::Stopping
    } else if s.is_errored() {
        wire::AppStatus::Errored
    } else if s.is_over() {
        wire::AppStatus::Stopped
    } else if s.is_reloading() {
        wire::AppStatus::Reloading
    } else if s.workers().any(|w| matches!(w.phase, Phase::Ready { .. })) {
        wire::AppStatus::Running
    } else {
        wire::AppStatus::Starting
    }
}

fn worker_state(phase: &Phase) -> wire::WorkerState {
    match phase {
        Phase::Starting { online: false, .. } => wire::WorkerState::Starting,
        Phase::Starting { online: true, .. } => wire::WorkerState::Online,
        Phase::Ready { .. } => wire::WorkerState::Ready,
        Phase::Draining { .. } => wire::WorkerState::Draining,
        Phase::Stopping { .. } | Phase::Killed => wire::WorkerState::Stopping,
    }
}

fn balance(balance: Balance) -> wire::Balance {
    match balance {
        Balance::RoundRobin => wire::Balance::RoundRobin,
        Balance::Sticky => wire::Balance::Sticky,
        Balance::Shared => wire::Balance::Shared,
        Balance::Kernel => wire::Balance::Kernel,
    }
}

fn steering(steering: Steering) -> wire::Steering {
    match steering {
        Steering::Turns => wire::Steering::Turns,
        Steering::Random => wire::Steering::Random,
        Steering::Hash => wire::Steering::Hash,
    }
}
