//! Commands of control API clients, signals and triggers, and their effect on all mechanisms.
use super::app::App;
use super::config_reads::{self, Input, Purpose};
use super::deployment::Told;
use super::kernel_mode::{deferral, groups};
use super::narration::plural;
use super::system::System;
use super::timers::Timer;
use super::triggers::Trigger;
use super::waiters::Wait;
use super::{
    Master, addresses, autoscale, cgroups, checkpoint, dependencies, last_words, lifecycle, listener, one_worker,
    relay, releases, reload, spawn, stdin, stop_delay, stop_report, triggers, upgrade, view,
};
use crate::api::request::{Role, StopMode, Target};
use crate::api::types::ProfileKind;
use crate::api::{self, Answer, Call, Change, Order, ReplySender, Request};
use crate::ids::{AppIx, Slot};
use crate::limits;
use crate::logs::{LogPath, Reply};
use crate::os::signal;
use crate::supervisor::{Event, Next, Report};
use crate::worker::node::profiles::Kind;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;

impl<S: System> Master<S> {
    // ---- commands of clients ----

    pub(super) fn answer_calls(&mut self) {
        if !self.cx.timers.take_due(Timer::Calls, self.cx.now_ms) {
            return;
        }
        let turn_us = self.cx.system.now_us();
        while let Some(call) = self.control.next_call(&mut self.cx, turn_us) {
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
            Order::Scrape { answers } => {
                let sources = self.relay.collect_metrics(&mut self.cx, answers);
                let shown = view::deployment(&self.cx, &self.upgrade, &self.output.files);
                let _ = reply.send(Answer::Scrape(Box::new(shown), sources));
                return;
            }
        };
        let answer = match request {
            Request::View(_) => {
                let shown = view::deployment(&self.cx, &self.upgrade, &self.output.files);
                Answer::Deployment(Box::new(shown))
            }
            Request::Upgrade { binary: _ } => upgrade::snapshot(&self.cx),
            Request::ReopenLogs => {
                self.reopen_own_log();
                return self.output.files.reopen(Some(log_reply(reply)));
            }
            Request::Ready => return self.answer_when_ready(reply),
            Request::FlushLogs { target } => match self.apps_meant(&target) {
                Err(answer) => answer,
                Ok(apps) => {
                    self.empty_own_log();
                    return self.output.files.empty(self.log_paths(&apps), log_reply(reply));
                }
            },
            Request::Reload { target: Target::All, change } => {
                return self.reload_apps(&self.apps_that_run(), change, Some(reply));
            }
            Request::Reload { target: Target::App(name), change } => match self.app_named(&name) {
                Err(answer) => answer,
                Ok(ix) => return self.reload_apps(&[ix], change, Some(reply)),
            },
            Request::Releases { app } => match self.app_named(&app) {
                Err(answer) => answer,
                Ok(ix) => Answer::Releases(releases::view(&self.cx.apps[ix])),
            },
            Request::Rollback { app, to } => {
                let found = self.app_named(&app).and_then(|ix| Ok((ix, releases::way_back(&self.cx, ix, to)?)));
                match found {
                    Err(answer) => answer,
                    Ok((ix, sources)) => {
                        let change = Change { sources: Some(Box::new(sources)), ..Change::default() };
                        return self.reload_apps(&[ix], change, Some(reply));
                    }
                }
            }
            Request::Start { app, change } => match self.app_named(&app) {
                Err(answer) => answer,
                Ok(ix) => return self.start_app(ix, false, change, reply),
            },
            Request::Restart { app, change } => match self.app_named(&app) {
                Err(answer) => answer,
                Ok(ix) => return self.start_app(ix, true, change, reply),
            },
            Request::Delete { app, mode } => match self.app_named(&app) {
                Err(answer) => answer,
                Ok(ix) => return self.delete_app(ix, mode, reply),
            },
            Request::Scale { app, to } => match self.app_named(&app) {
                Err(answer) => answer,
                Ok(ix) => autoscale::scale(&mut self.cx, ix, &to),
            },
            Request::Replace { app, slot } => {
                let begun = self.app_named(&app).and_then(|ix| one_worker::replace(&mut self.cx, ix, Slot(slot)));
                match begun {
                    Err(answer) => answer,
                    Ok(wait) => return self.control.waiters.add(&mut self.cx, wait, Some(reply)),
                }
            }
            Request::Signal { app, signal, slot } => match (self.app_named(&app), slot) {
                (Err(answer), _) => answer,
                (Ok(ix), None) => self.signal_app(ix, signal),
                (Ok(ix), Some(slot)) => one_worker::signal(&mut self.cx, ix, Slot(slot), signal),
            },
            Request::SendLine { app, slot, line } => match self.app_named(&app) {
                Err(answer) => answer,
                Ok(ix) => stdin::send(&self.cx, ix, slot, &line),
            },
            Request::Trigger { app, slot, action, parameter } => match self.app_named(&app) {
                Err(answer) => answer,
                Ok(app) => {
                    let call = relay::Call { app, slot, action, parameter };
                    return self.relay.call_action(&mut self.cx, call, reply);
                }
            },
            Request::Profile { app, what } => match self.app_named(&app) {
                Err(answer) => answer,
                Ok(app) => {
                    let kind = match what.kind {
                        ProfileKind::Cpu => Kind::Cpu { time_ms: what.time_ms.unwrap_or_default() },
                        ProfileKind::Heap => Kind::Heap,
                    };
                    let wanted = relay::Wanted { app, slot: what.slot, kind, file: what.file };
                    return self.relay.profile(&mut self.cx, &wanted, reply);
                }
            },
            Request::ResetCounters { app } => match self.app_named(&app) {
                Err(answer) => answer,
                Ok(ix) => {
                    self.cx.apps[ix].restarts = 0;
                    self.cx.apps[ix].history.reset_restarts();
                    self.cx.apps[ix].supervisor.reset_restarts();
                    checkpoint::save_app(&mut self.cx, ix);
                    Answer::Done(format!("the restarts of {} are counted from 0", self.cx.apps[ix].name))
                }
            },
            Request::Environment { app, of } => match self.app_named(&app) {
                Err(answer) => answer,
                Ok(ix) => self.environment_of(ix, of),
            },
            Request::Stop { target: Target::All, mode } => {
                self.stop_all(mode);
                return self.control.waiters.add(&mut self.cx, Wait::StopAll, Some(reply));
            }
            Request::Stop { target: Target::App(name), mode } => match self.app_named(&name) {
                Err(answer) => answer,
                Ok(app) => {
                    self.stop_app(app, mode);
                    lifecycle::save_states(&self.cx);
                    return self.control.waiters.add(&mut self.cx, Wait::StopApp { app }, Some(reply));
                }
            },
        };
        // The client may have left.
        let _ = reply.send(answer);
    }

    /// The apps that "everything" means: those that are not stopped.
    pub(super) fn apps_that_run(&self) -> Vec<AppIx> {
        self.cx.apps.indices().filter(|ix| !self.cx.apps[*ix].is_stopping()).collect()
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
            Answer::NotFound(format!("no app is called {name:?}; the apps are: {}", names.join(", ")))
        })
    }

    /// Opens the log of clusterd itself again, which others may have moved: for this process and the keeper.
    fn reopen_own_log(&mut self) {
        let Some(path) = self.cx.deployment.own_log() else { return };
        match self.cx.system.reopen_own_log(&path) {
            Ok(file) => self.cx.keeper.own_log(file.as_fd()),
            Err(e) => log::warn!("cannot reopen {}: {e}", path.display()),
        }
    }

    fn empty_own_log(&self) {
        let Some(path) = self.cx.deployment.own_log() else { return };
        if let Err(e) = self.cx.system.empty_own_log(&path) {
            log::warn!("cannot empty {}: {e}", path.display());
        }
    }

    fn log_paths(&self, apps: &[AppIx]) -> Vec<LogPath> {
        let apps = apps.iter().map(|&ix| &self.cx.apps[ix]);
        let paths = apps.flat_map(|app| {
            let settings = app.settings();
            let paths = settings.config.log.files(app.supervisor.slot_count(), &settings.config.beside());
            paths.into_iter().map(|path| LogPath { path, user: settings.credentials().cloned() })
        });
        let mut paths: Vec<LogPath> = paths.collect();
        paths.sort();
        paths.dedup();
        paths
    }

    /// Reads the configuration again and reloads these apps. The client is answered when the reload has ended.
    pub(super) fn reload_apps(&mut self, apps: &[AppIx], change: Change, reply: Option<ReplySender>) {
        if config_reads::takes_long(&self.cx, &change) {
            return self.read_on_thread(Purpose::Reload { apps: apps.to_vec(), reply }, change);
        }
        self.reload_with(apps, Input::Change(change), reply);
    }

    /// Reloads from a configuration that was read on a thread.
    pub(super) fn reload_with(&mut self, apps: &[AppIx], input: Input, reply: Option<ReplySender>) {
        let mut open = BTreeMap::new();
        let mut failures = Vec::new();
        match reload::prepare_reload(&mut self.cx, apps, input) {
            Err(error) => failures.push(error.to_string()),
            Ok(events) => {
                let events = dependencies::sort(&self.cx, events, |(ix, to, _)| (*ix, *to));
                let all: Vec<AppIx> = events.iter().map(|(ix, ..)| *ix).collect();
                for (ix, to, event) in events {
                    if dependencies::depends(&self.cx, ix, to, &all) {
                        self.cx.events.push_back((ix, Event::Hold { generation: to }));
                    }
                    open.insert(ix, to);
                    self.cx.events.push_back((ix, event));
                }
                self.control.compare(&self.cx);
            }
        }
        for failure in &failures {
            log::error!("reload refused: {failure}; the running configuration stays");
            apps.iter().for_each(|&app| self.hooks.run_for_refusal(&self.cx, app, failure));
        }
        self.control.waiters.add(
            &mut self.cx,
            Wait::Reload { open, growing: BTreeSet::new(), failures, done: Vec::new() },
            reply,
        );
    }

    /// Replaces the workers of an app by others with the same settings.
    pub(super) fn replace_workers(&mut self, app: AppIx) {
        if !self.cx.deployment.stop_asked && !self.has_handed_over() {
            let sources = self.cx.deployment.sources.get(&self.cx.apps[app].settings().source).cloned().map(Box::new);
            self.reload_apps(&[app], Change { sources, ..Change::default() }, None);
        }
    }

    pub(super) fn stop_all(&mut self, mode: StopMode) {
        match mode {
            StopMode::Now => log::info!("stopping now"),
            StopMode::Drain if !self.cx.deployment.stop_asked => {
                log::info!("stopping; a second signal stops at once");
            }
            StopMode::Drain => {}
        }
        if !std::mem::replace(&mut self.cx.deployment.stop_asked, true) {
            self.cx.deployment.stop_asked_ms = self.cx.now_ms;
        }
        checkpoint::save_deployment(&mut self.cx);
        for ix in dependencies::dependents_first(&self.cx) {
            self.stop_app(ix, mode);
        }
        self.control.waiters.answer_settled(&mut self.cx);
    }

    /// Stops an app: at once, or when load balancers have had time to learn of it and what depends on it has stopped.
    pub(super) fn stop_app(&mut self, ix: AppIx, mode: StopMode) {
        if mode == StopMode::Now || !stop_delay::put_off(&mut self.cx, ix) {
            self.begin_stop(ix, mode);
        }
    }

    /// Stops the apps whose stop was put off until now.
    pub(super) fn stop_due_apps(&mut self) {
        for ix in stop_delay::take_due(&mut self.cx) {
            self.begin_stop(ix, StopMode::Drain);
        }
    }

    fn begin_stop(&mut self, ix: AppIx, mode: StopMode) {
        let app = &mut self.cx.apps[ix];
        app.stops_at_ms = None;
        app.closed = true;
        app.starting = false;
        for listener in &mut app.listeners {
            listener.leave_poll(&self.cx.reactor);
        }
        let now = mode.is_now();
        self.relay.inform_agent(&mut self.cx, ix, "stopping", serde_json::json!({ "now": now }));
        self.cx.events.push_back((ix, Event::Stop { now }));
    }

    /// Answers waiters that a report concerns, and checks whether the deployment is over.
    pub(super) fn after_report(&mut self, app_ix: AppIx, report: &Report) {
        lifecycle::note_start(&mut self.cx, &mut self.output, app_ix, report);
        autoscale::note(&mut self.cx.apps[app_ix], report);
        if let Report::WorkerDied { worker, next: Next::None, .. }
        | Report::AgentDied { agent: worker, next: Next::None, .. }
        | Report::BeforeFailed { process: worker, next: Next::None, .. } = report
        {
            let tail = self.output.take_tail(*worker);
            let last_words = &mut self.cx.apps[app_ix].last_words;
            *last_words = last_words.take().or(tail);
            if let Some(said) = last_words.clone() {
                last_words::expect(&mut self.cx, app_ix, &said);
            }
        }
        let mut said = None;
        if matches!(report, Report::ReloadFailed { .. } | Report::ReloadDone { .. }) {
            said = self.cx.apps[app_ix].last_words.take();
            let ids: Vec<_> = self.cx.apps[app_ix].supervisor.workers().map(|w| w.id).collect();
            ids.into_iter().for_each(|id| drop(self.output.take_tail(id)));
        }
        if let Report::WorkerReady { worker, .. } = report {
            let app = &self.cx.apps[app_ix];
            if !app.supervisor.is_reloading() && !app.starting {
                // Nobody waits to hear why it failed.
                drop(self.output.take_tail(*worker));
            }
            addresses::close_unserved(&mut self.cx, &mut self.kernel_mode.groups, app_ix);
            if let Some(ix) = self.cx.workers.find(*worker) {
                self.http_probes.begin(&mut self.cx, ix);
            }
        }
        self.control.waiters.on_report(&self.cx, app_ix, report, said.as_ref());
        if matches!(report, Report::Started { .. }) {
            self.drop_old_generations(app_ix);
        }
        if matches!(report, Report::ReloadFailed { .. }) {
            reload::forget_failed_sources(&mut self.cx);
            // The new generation may have had other ones.
            let limits = self.cx.apps[app_ix].settings().group_limits();
            cgroups::limit(&mut self.cx, app_ix, limits);
        }
        if matches!(report, Report::ReloadDone { .. }) && !self.cx.apps.iter().any(|app| app.supervisor.is_errored()) {
            // A slot that had given up is running again.
            self.cx.deployment.exit_code = 0;
        }
        if matches!(report, Report::ReloadDone { .. } | Report::ReloadFailed { .. }) {
            lifecycle::save_states(&self.cx);
            self.drop_old_generations(app_ix);
        }
        if matches!(report, Report::AppStopped | Report::AppErrored | Report::AppFinished) {
            self.close_app(app_ix, matches!(report, Report::AppStopped));
            let failed = u8::from(matches!(report, Report::AppErrored));
            let own = self.cx.apps[app_ix].last_run_code.max(failed);
            self.cx.deployment.exit_code = self.cx.deployment.exit_code.max(own);
        }
        self.control.waiters.answer_settled(&mut self.cx);
    }

    /// Closes an app of which nothing will run until the next start or reload: clients that wait to connect are refused
    /// instead of left hanging.
    fn close_app(&mut self, ix: AppIx, stopped: bool) {
        addresses::close_all(&mut self.cx, &mut self.kernel_mode.groups, ix);
        if !stopped {
            return;
        }
        self.cx.apps[ix].waiting.clear();
        cgroups::end(&mut self.cx, ix);
    }

    /// Ends the deployment when nothing is left to run.
    pub(super) fn finish_if_over(&mut self) {
        let over = self.cx.apps.iter().all(|a| a.supervisor.is_stopped() || a.supervisor.is_over());
        if !over || !self.cx.events.is_empty() || lifecycle::stays_when_over(&self.cx) {
            self.hooks.cancel_end(&mut self.cx);
        } else if !self.cx.deployment.finished && self.hooks.may_end(&mut self.cx) {
            self.finish();
        }
    }

    /// Starts an app that is not running; with `restart`, stops a running one first.
    pub(super) fn start_app(&mut self, ix: AppIx, restart: bool, change: Change, reply: ReplySender) {
        if config_reads::takes_long(&self.cx, &change) {
            return self.read_on_thread(Purpose::Start { app: ix, restart, reply }, change);
        }
        self.start_with(ix, restart, Input::Change(change), reply);
    }

    /// Starts from a configuration that was read on a thread.
    pub(super) fn start_with(&mut self, ix: AppIx, restart: bool, input: Input, reply: ReplySender) {
        let app = &self.cx.apps[ix];
        let is_stopping = app.is_stopping();
        let idle = app.supervisor.is_stopped() || app.supervisor.is_over();
        let is_new = matches!(&input, Input::Change(change) if change.sources.is_some());
        let answer = if self.cx.deployment.stop_asked {
            Answer::Refused(format!("{} is stopping", self.cx.deployment.name))
        } else if !idle && !restart && !is_stopping && !is_new {
            // Another client was faster: wait for the start that it requested.
            return self.control.waiters.add(&mut self.cx, Wait::Start { open: BTreeSet::from([ix]) }, Some(reply));
        } else if !idle && !restart && !is_stopping {
            Answer::Refused(format!("{} runs already; reload replaces its workers, restart stops it first", app.name))
        } else {
            if self.cx.apps[ix].stops_at_ms.is_some() {
                // The start follows the stop, which comes now.
                self.begin_stop(ix, StopMode::Drain);
            }
            match reload::prepare_start(&mut self.cx, ix, input) {
                Ok(()) => {
                    triggers::watch_from_start(&mut self.cx, ix);
                    lifecycle::save_states(&self.cx);
                    return self.control.waiters.add(
                        &mut self.cx,
                        Wait::Start { open: BTreeSet::from([ix]) },
                        Some(reply),
                    );
                }
                Err(error) => Answer::Refused(error.to_string()),
            }
        };
        // The client may have left.
        let _ = reply.send(answer);
    }

    /// Answers when every app is ready, or when one of its first workers has failed.
    pub(super) fn answer_when_ready(&mut self, reply: ReplySender) {
        // An app may have finished or failed its start before the request came.
        let is_meant = |app: &App| app.starting || !(app.supervisor.is_stopping() || app.supervisor.is_stopped());
        let open = self.cx.apps.indices().filter(|&ix| is_meant(&self.cx.apps[ix]) && !self.cx.apps[ix].deleted);
        let open = open.collect();
        self.control.waiters.add(&mut self.cx, Wait::Start { open }, Some(reply));
    }

    /// Deletes an app from the deployment after its processes have ended.
    pub(super) fn delete_app(&mut self, ix: AppIx, mode: StopMode, reply: ReplySender) {
        self.cx.apps[ix].deleted = true;
        checkpoint::save_app(&mut self.cx, ix);
        lifecycle::save_states(&self.cx);
        self.stop_app(ix, mode);
        self.control.waiters.add(&mut self.cx, Wait::StopApp { app: ix }, Some(reply));
    }

    /// Sends a signal to every process of an app.
    pub(super) fn signal_app(&mut self, ix: AppIx, signal: i32) -> Answer {
        let rules = &self.cx.apps[ix].supervisor;
        let workers: Vec<_> = rules.workers().filter(|w| w.pid.is_some()).map(|w| w.id).collect();
        let agent = rules.agent().and_then(|slot| slot.current).filter(|p| p.pid.is_some()).map(|p| p.id);
        for worker in workers.iter().chain(&agent) {
            self.cx.keeper.signal(*worker, signal);
        }
        let count = workers.len() as u32;
        let name = signal::name(signal);
        let and_agent = if agent.is_some() { " and the agent" } else { "" };
        let workers = plural(count, "worker");
        Answer::Done(format!("{}: {name} sent to {count} {workers}{and_agent}", self.cx.apps[ix].name))
    }

    /// The environment of a worker of an app, or its agent, as it is now.
    pub(super) fn environment_of(&self, ix: AppIx, of: Role) -> Answer {
        let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        let env = match of {
            Role::Worker { slot } => match one_worker::check_slot(&self.cx, ix, Slot(slot)) {
                Ok(()) => Some(spawn::worker_environment(&self.cx, ix, Slot(slot))),
                Err(answer) => return answer,
            },
            Role::Agent => spawn::agent_environment(&self.cx, &self.notify, ix),
        };
        let Some(env) = env else { return Answer::NotFound(format!("{} has no agent", self.cx.apps[ix].name)) };
        Answer::Environment(env.into_iter().map(|(k, v)| (text(k), text(v))).collect::<BTreeMap<_, _>>())
    }

    /// Drops settings, sources and addresses that nothing uses after a reload.
    pub(super) fn drop_old_generations(&mut self, ix: AppIx) {
        let mut used = addresses::coming_generations(&self.cx, ix);
        let app = &mut self.cx.apps[ix];
        used.extend(app.supervisor.generations());
        app.generations.retain(|generation, _| used.contains(generation));
        addresses::close_unwanted(&mut self.cx, &mut self.kernel_mode.groups, ix);
        addresses::close_unserved(&mut self.cx, &mut self.kernel_mode.groups, ix);
        let accepts = self.cx.apps[ix].master_accepts();
        for listener_ix in self.cx.apps[ix].listeners.indices() {
            let listener = &mut self.cx.apps[ix].listeners[listener_ix];
            if !accepts {
                listener.leave_poll(&self.cx.reactor);
            } else if !listener.present.is_empty() {
                listener::poll(&mut self.cx, ix, listener_ix);
            }
        }
        groups::steer_again(&mut self.cx, ix);
        deferral::refresh_all(&self.cx, ix);
        reload::drop_unused_sources(&mut self.cx);
        checkpoint::save_app(&mut self.cx, ix);
    }

    // ---- signals ----

    pub(super) fn on_signal(&mut self, number: i32, value: Option<i32>) {
        match number {
            signal::TERM | signal::INT => {
                let is_first = !self.cx.deployment.stop_asked;
                self.cx.deployment.leaves_sockets |= is_first && self.cx.deployment.has_store;
                self.stop_all(StopMode::from_now(!is_first));
                if is_first && number == signal::TERM {
                    stop_report::begin(&mut self.cx);
                }
            }
            signal::QUIT => {
                self.cx.deployment.leaves_sockets |= !self.cx.deployment.stop_asked && self.cx.deployment.has_store;
                self.stop_all(StopMode::Now);
            }
            signal::HUP => {
                // The keeper has said that a reload begins.
                self.cx.deployment.told = Told::Reloading;
                let all = self.apps_that_run();
                self.reload_apps(&all, Change::default(), None);
            }
            signal::USR1 => {
                self.reopen_own_log();
                self.output.files.reopen(None);
            }
            signal::USR2 => self.scale_by_signal(value),
            signal::TTIN => self.scale_all(|now| now + 1),
            signal::TTOU => self.scale_all(|now| now.saturating_sub(1)),
            other => log::debug!("signal {other} is not ours"),
        }
    }

    /// SIGUSR2: scales to the signal's value where there is one, else to the number in the configuration; adds one
    /// worker where that is the current number (or there is no file).
    fn scale_by_signal(&mut self, value: Option<i32>) {
        if let Some(value) = value {
            match u32::try_from(value) {
                Ok(n) if (1..=limits::WORKERS_MAX).contains(&n) => self.scale_all(|_| n),
                Ok(_) | Err(_) => {
                    log::warn!(
                        "ignored SIGUSR2 with the value {value}: it must be a number of workers from 1 to {}",
                        limits::WORKERS_MAX
                    );
                }
            }
            return;
        }
        let change = Change::default();
        if config_reads::takes_long(&self.cx, &change) {
            return self.read_on_thread(Purpose::Scale, change);
        }
        self.scale_as_configured(Input::Change(change));
    }

    /// Reads the configuration again on a thread; [`Master::continue_reading`] handles the result.
    pub(super) fn read_on_thread(&mut self, purpose: Purpose, change: Change) {
        for (purpose, input) in self.config_reads.begin(&self.cx, purpose, change) {
            self.on_read(purpose, input);
        }
    }

    /// Handles configurations that a thread has read since the last call.
    pub(super) fn take_config_reads(&mut self) {
        for (purpose, input) in self.config_reads.take(&self.cx) {
            self.on_read(purpose, input);
        }
    }

    fn on_read(&mut self, purpose: Purpose, input: Input) {
        match purpose {
            Purpose::Reload { apps, reply } => self.reload_with(&apps, input, reply),
            Purpose::Start { app, restart, reply } => self.start_with(app, restart, input, reply),
            Purpose::Scale => self.scale_as_configured(input),
        }
    }

    /// Scales from a configuration that was read on a thread.
    pub(super) fn scale_as_configured(&mut self, input: Input) {
        let configured = match reload::configured_again(&self.cx, input) {
            Ok(config) => config,
            Err(reason) => {
                log::error!("SIGUSR2: {reason}; the number of workers stays as it is");
                return;
            }
        };
        let cpus = self.cx.system.cpus().count;
        let from_file = reload::has_file(&self.cx);
        for ix in self.cx.apps.indices() {
            let now = self.cx.apps[ix].supervisor.wanted_count();
            if autoscale::follow_again(&mut self.cx, ix) {
                continue;
            }
            let name = &self.cx.apps[ix].name;
            let wanted = configured.apps.iter().find(|a| &a.name == name).map(|a| a.workers.count(cpus));
            let slots = match wanted {
                Some(wanted) if from_file && wanted != now => wanted,
                Some(_) | None => now + 1,
            };
            self.scale(ix, slots);
        }
    }

    fn scale_all(&mut self, to: impl Fn(u32) -> u32) {
        for ix in self.cx.apps.indices() {
            let slots = to(self.cx.apps[ix].supervisor.wanted_count());
            self.scale(ix, slots);
        }
    }

    fn scale(&mut self, ix: AppIx, slots: u32) {
        if (1..=limits::WORKERS_MAX).contains(&slots) {
            autoscale::set_by_hand(&mut self.cx, ix, slots);
            self.cx.events.push_back((ix, Event::Scale { slots }));
        } else {
            let name = &self.cx.apps[ix].name;
            log::warn!("{name}: cannot scale to {slots} workers: an app has 1 to {}", limits::WORKERS_MAX);
        }
    }

    /// A rolling reload of an app by itself, or a start where nothing of the app is left.
    pub(super) fn triggered(&mut self, trigger: Trigger) {
        let Trigger { app: ix, why, change } = trigger;
        let app = &self.cx.apps[ix];
        if self.cx.deployment.stop_asked || self.has_handed_over() || !app.may_restart() {
            return;
        }
        if !app.supervisor.is_over() {
            log::info!("{}: {why}; reloading", app.name);
            return self.reload_apps(&[ix], change, None);
        }
        log::info!("{}: {why}; starting it again", app.name);
        self.start_app(ix, false, change, api::unheard());
    }
}

/// A reply that passes the log writer's answer to a client.
fn log_reply(reply: ReplySender) -> Reply {
    Box::new(move |result| {
        // The client may have left.
        let _ = reply.send(match result {
            Ok(text) => Answer::Done(text),
            Err(text) => Answer::Refused(text),
        });
    })
}
