//! The master: listens, hands off, supervises, reloads. A child of the keeper; may die at any instant. This file is its
//! event loop: readiness of fds becomes events, the supervisors' actions become system calls.
//!
//! Decisions are made in `supervisor` and `balance`; `worker` knows the protocols.
mod address_in_use;
mod addresses;
mod agent;
mod agent_check;
mod app;
mod autoscale;
mod balance_fallback;
mod before;
mod bind;
mod canary;
mod cgroups;
mod channels;
mod checkpoint;
mod commands;
mod config_reads;
pub mod connections;
mod context;
mod control;
mod dependencies;
mod deployment;
mod dispatch;
mod drains;
mod eligibility;
mod environment;
mod events;
mod exec_probes;
mod given;
pub mod handoff;
mod hang_reports;
mod history;
mod hooks;
mod http_probes;
mod in_hand;
mod keeper;
mod kernel_mode;
mod last_words;
mod lifecycle;
mod listener;
mod listening;
mod liveness;
mod log_files;
pub mod metrics_folders;
mod moves;
mod narration;
mod notify_sockets;
mod one_worker;
mod orphans;
mod output;
mod overlap;
mod preload;
mod probe_question;
mod reactor;
mod recovery;
mod relay;
mod releases;
mod reload;
mod requests;
mod resource_retry;
mod resume;
mod settings;
mod spawn;
mod spawn_error;
mod start;
mod stdin;
mod stop_delay;
mod stop_report;
pub mod system;
mod table;
mod tasks;
pub mod time_counts;
mod timers;
mod triggers;
mod typescript;
mod unread;
mod upgrade;
mod upgraded_moves;
mod view;
mod waiters;
mod waiting_connections;
mod warm_up;
mod worker;

pub use start::{BACKGROUND_FLAG, CommandLine, Run, run, run_on};
pub use upgrade::check as check_upgrade;

use crate::api;
use crate::ids::{AppIx, Generation, Slot, WorkerId, WorkerIx};
use crate::keeper::protocol::{Notice, Order};
use crate::limits;
use crate::os::listen::LocalAddress;
use crate::supervisor::{Action, Cx, Event, ExitStatus, Obstacle, Report};
use context::Context;
use control::Control;
use deployment::Told;
use kernel_mode::KernelMode;
use reactor::Ready;
use spawn_error::SpawnError;
use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use system::System;
use tasks::Task;
use timers::Timer;
use triggers::Triggers;

/// The state of the master.
struct Master<S: System> {
    /// The part that all mechanisms work on.
    cx: Context<S>,
    dispatch: dispatch::Dispatch,
    config_reads: config_reads::ConfigReads,
    /// Reloads by file changes and at set times.
    triggers: Triggers,
    /// The control API and its waiting clients.
    control: Control,
    notify: notify_sockets::NotifySockets,
    output: output::Output,
    upgrade: upgrade::Upgrade,
    hooks: hooks::HookRuns,
    relay: relay::Relay,
    reports: hang_reports::HangReports,
    http_probes: http_probes::HttpProbes,
    liveness: liveness::LivenessProbes,
    drains: drains::Drains,
    kernel_mode: KernelMode,
}

impl<S: System> Master<S> {
    /// Turns until the deployment is over or the keeper is gone.
    fn turn(&mut self) -> io::Result<()> {
        let mut ready = Vec::new();
        loop {
            self.cx.update_now();
            self.settle()?;
            if self.cx.deployment.finished && !self.cx.keeper.has_more() {
                return Ok(());
            }
            if self.has_handed_over() && !self.cx.keeper.has_more() {
                self.control.drain();
                return Ok(());
            }
            let timeout_ms =
                self.cx.timers.next_ms().map_or(limits::HEARTBEAT_EVERY_MS, |at| at.saturating_sub(self.cx.now_ms));
            let nap_us = self.dispatch.nap_us(&self.cx);
            let any_open = dispatch::has_open(&self.cx);
            if nap_us > 0 {
                // Even if fds are ready, so that more are.
                self.cx.system.nap(nap_us);
            }
            self.cx.reactor.wait(timeout_ms, any_open, &mut ready)?;
            self.cx.update_now();
            self.notify.take_messages(&mut self.cx);
            self.read_on();
            self.answer_calls();
            self.liveness.check_pings(&mut self.cx);
            self.work_on_tasks();
            for event in ready.drain(..) {
                match event {
                    Ready::Keeper => self.read_keeper()?,
                    Ready::Listener { app, listener } => self.dispatch.listener_ready(&mut self.cx, app, listener),
                    Ready::Channel { worker, writable, ended } => self.channel_ready(worker, writable, ended),
                    Ready::Woken => {
                        self.take_config_reads();
                        let KernelMode { groups, interception, .. } = &mut self.kernel_mode;
                        interception.take_looks(&mut self.cx, groups);
                        self.control.woke(&mut self.cx);
                        self.answer_calls();
                        self.reports.take(&mut self.cx);
                        self.http_probes.take_ended(&mut self.cx);
                        for trigger in self.triggers.take_changes(&self.cx) {
                            self.triggered(trigger);
                        }
                    }
                    Ready::Notify => self.notify.woke(&mut self.cx),
                    Ready::Queues => self.kernel_mode.monitor.woke(&mut self.cx),
                    Ready::Intercepted { worker } => self.kernel_mode.interception.read(&mut self.cx, worker),
                    Ready::Answer { worker } => self.http_probes.answer_came(&mut self.cx, worker),
                }
            }
        }
    }

    /// Handles everything that follows from the events of this turn, until nothing is left.
    fn settle(&mut self) -> io::Result<()> {
        self.advance_timers();
        self.dispatch.resource_retry.retry(&mut self.cx);
        if self.upgrade.is_handing_over() {
            self.http_probes.postpone(&mut self.cx);
        } else {
            self.http_probes.advance(&mut self.cx);
        }
        loop {
            self.work_on_events();
            self.work_on_tasks();
            self.dispatch.hand_off_waiting(&mut self.cx);
            upgraded_moves::hand_off_waiting(&mut self.cx, &mut self.dispatch);
            if !self.upgrade.is_handing_over() {
                self.dispatch.accept_all(&mut self.cx);
            }
            if self.cx.events.is_empty() && self.cx.tasks.is_empty() {
                break;
            }
        }
        if self.cx.timers.take_due(Timer::Heartbeat, self.cx.now_ms) {
            if self.cx.keeper.heartbeat() == limits::START_HEARTBEATS {
                self.cx.system.forget_code();
            }
            self.cx.timers.set(Timer::Heartbeat, self.cx.now_ms + limits::HEARTBEAT_EVERY_MS);
            self.liveness.probe_all(&mut self.cx);
            moves::rebalance(&mut self.cx);
            self.cx.group_changes.has_closed = true;
            self.control.restore(&mut self.cx);
            unread::tell_left_out(&mut self.cx);
            autoscale::arm(&mut self.cx);
            if self.cx.timers.take_due(Timer::OwnLog, self.cx.now_ms) {
                self.cx.deployment.bound_own_log(&self.cx.system);
                self.cx.timers.set(Timer::OwnLog, self.cx.now_ms + limits::OWN_LOG_LOOK_MS);
            }
            for trigger in self.triggers.look(&mut self.cx) {
                self.triggered(trigger);
            }
            self.output.files.release_finished(&mut self.cx.keeper);
        }
        if self.cx.timers.take_due(Timer::Balance, self.cx.now_ms) {
            moves::rebalance(&mut self.cx);
        }
        if self.upgrade.is_handing_over() {
            // The next master decides.
            self.cx.timers.cancel(Timer::Autoscale);
        } else {
            autoscale::look(&mut self.cx);
        }
        self.kernel_mode.interception.read_left(&mut self.cx);
        self.stop_due_apps();
        stop_report::look(&mut self.cx);
        self.drains.end_delays(&mut self.cx);
        self.kernel_mode.accept_probes.look(&mut self.cx);
        self.drains.check(&mut self.cx);
        self.relay.actions.look(&mut self.cx);
        self.relay.profiles.look(&mut self.cx);
        if last_words::look(&mut self.cx) {
            self.control.waiters.answer_settled(&mut self.cx);
        }
        self.liveness.check_hangs(&mut self.cx);
        self.work_on_tasks();
        self.kernel_mode.groups.steer(&mut self.cx);
        self.look_at_queues();
        let again = self.cx.timers.take_due(Timer::Listening, self.cx.now_ms);
        if std::mem::take(&mut self.cx.group_changes.has_closed) || again {
            for app in listening::restore(&mut self.cx) {
                self.replace_workers(app);
            }
        }
        while !self.cx.tasks.is_empty() || !self.cx.events.is_empty() {
            self.work_on_tasks();
            self.work_on_events();
        }
        if self.cx.deployment.told != Told::Serving && !self.config_reads.is_busy() {
            lifecycle::tell_when_all_serve(&mut self.cx);
        }
        dispatch::rest(&mut self.cx);
        in_hand::keep_waiting(&mut self.cx);
        self.finish_if_over();
        self.cx.keeper.flush(self.cx.now_ms)?;
        self.cx.timers.set_or_cancel(Timer::KeeperRetry, self.cx.keeper.retry_at_ms());
        self.kernel_mode.interception.give_held(&mut self.cx);
        self.cx.reactor.keeper_interest(&self.cx.keeper)
    }

    /// Whether this master ends now for the next one. It waits a moment for open work.
    fn has_handed_over(&self) -> bool {
        let Some(ends_at_ms) = self.upgrade.ends_at_ms() else { return false };
        let any_waits = self.cx.apps.iter().any(|app| !app.waiting.is_empty());
        let in_hand =
            any_waits || unread::has_lines(&self.cx) || dispatch::has_open(&self.cx) || relay::has_cut_lines(&self.cx);
        !in_hand || self.cx.now_ms >= ends_at_ms
    }

    fn advance_timers(&mut self) {
        for ix in self.cx.apps.indices() {
            if self.cx.timers.take_due(Timer::Rules(ix), self.cx.now_ms) {
                let mut actions = Vec::new();
                let mut cx =
                    Cx { now_ms: self.cx.now_ms, next_worker: &mut self.cx.next_worker, actions: &mut actions };
                self.cx.apps[ix].supervisor.advance(&mut cx);
                self.carry_out(ix, actions);
            }
        }
    }

    fn work_on_events(&mut self) {
        while let Some((ix, event)) = self.cx.events.pop_front() {
            let Some(app) = self.cx.apps.get_mut(ix) else { continue };
            let mut actions = Vec::new();
            let mut cx = Cx { now_ms: self.cx.now_ms, next_worker: &mut self.cx.next_worker, actions: &mut actions };
            app.supervisor.handle(&mut cx, event);
            self.carry_out(ix, actions);
        }
    }

    /// Performs the tasks that mechanisms left for each other.
    fn work_on_tasks(&mut self) {
        while let Some(task) = self.cx.tasks.pop_front() {
            match task {
                Task::FindTaker => self.kernel_mode.monitor.find_taker(&mut self.cx),
                Task::AwaitWritable(ix) => self.dispatch.resource_retry.await_writable(&mut self.cx, ix),
                Task::ServerClosed { worker, key } => {
                    if let Some(ix) = self.cx.workers.find(worker) {
                        requests::on_close(&mut self.cx, ix, &key);
                        checkpoint::save_serves(&mut self.cx, ix);
                    }
                }
                Task::ListenerUnserved { app, listener } => {
                    addresses::close_if_unserved(&mut self.cx, &mut self.kernel_mode.groups, app, listener);
                }
                Task::Misbehaved { worker, violation } => {
                    if let Some(ix) = self.cx.workers.find(worker) {
                        channels::fail(&mut self.cx, ix, &violation);
                    }
                }
                Task::AdmitDependents => dependencies::look(&mut self.cx),
                Task::DrainStep(ix) => self.drains.step(&mut self.cx, ix),
                Task::AwaitEmptyQueue(ix) => self.kernel_mode.monitor.await_empty_queue(&mut self.cx, ix),
                Task::SayGoodbye(worker) => channels::say_goodbye(&mut self.cx, worker),
                Task::Terminate(worker) => spawn::terminate(&mut self.cx, worker),
            }
        }
    }

    /// Begins a worker's drain, on the supervisor's order.
    fn begin_drain(&mut self, ix: WorkerIx) {
        let left = drains::listeners_left_by(&self.cx, ix);
        if let Some(worker) = self.cx.workers.get_mut(ix) {
            worker.is_last |= !left.is_empty();
        }
        for (app, listener) in left {
            self.dispatch.accept_for_last(&mut self.cx, app, listener, ix);
            kernel_mode::groups::stop_listening(&mut self.cx, app, listener);
            // The kernel resets what has come to a TCP socket since then; a Unix socket keeps it.
            if matches!(self.cx.apps[app].listeners[listener].local, LocalAddress::Unix(_)) {
                self.dispatch.accept_for_last(&mut self.cx, app, listener, ix);
            }
        }
        self.drains.begin(&mut self.cx, ix);
        self.work_on_tasks();
    }

    /// Takes the listener of a worker's filter, where it has one.
    fn begin_interception(&mut self, ix: WorkerIx) {
        self.kernel_mode.interception.begin(&mut self.cx, ix);
        self.kernel_mode.accept_probes.expect(&mut self.cx);
    }

    /// Whether a ping to this worker is unread.
    fn waits_for_ping(&mut self, ix: WorkerIx) -> bool {
        let waits = self.liveness.waits_for_ping(&mut self.cx, ix);
        self.work_on_tasks();
        waits
    }

    /// Saves what changed, then performs the actions: a successor must know every process from the checkpoint.
    fn carry_out(&mut self, app: AppIx, actions: Vec<Action>) {
        self.cx.timers.set_or_cancel(Timer::Rules(app), self.cx.apps[app].supervisor.next_deadline_ms());
        checkpoint::save_changes(&mut self.cx, app);
        for action in actions {
            match action {
                Action::Spawn { worker, slot, generation } => self.spawn(app, worker, slot, generation),
                Action::WarmUp { worker } => {
                    if let Some(ix) = self.cx.workers.find(worker) {
                        self.http_probes.warm_up(&mut self.cx, ix);
                    }
                }
                Action::Serve { worker } => spawn::serve(&mut self.cx, worker),
                Action::WatchCanary { worker } => canary::watch(&mut self.cx, &self.output, app, worker),
                Action::JudgeCanary { worker } => canary::judge(&mut self.cx, &mut self.output, app, worker),
                Action::Drain { worker } => {
                    if let Some(ix) = self.cx.workers.find(worker) {
                        self.begin_drain(ix);
                    }
                }
                Action::Terminate { worker } => spawn::terminate(&mut self.cx, worker),
                Action::Abort { worker } => {
                    moves::keep_untouched(&mut self.cx, worker);
                    self.reports.abort(&mut self.cx, &self.output, worker);
                    spawn::withdraw(&mut self.cx, worker);
                }
                Action::Kill { worker } => {
                    moves::keep_untouched(&mut self.cx, worker);
                    spawn::kill(&mut self.cx, worker);
                }
                Action::Report(report) => self.on_report(app, &report),
            }
        }
    }

    /// Passes a report to the log, the agent, hooks, and waiting clients.
    fn on_report(&mut self, app: AppIx, report: &Report) {
        lifecycle::note_last_run(&mut self.cx.apps[app], report);
        events::announce(&self.cx, app, report);
        api::events::told_otherwise(|| narration::narrate(&mut self.cx, app, report));
        if history::is_restart(report) {
            self.cx.apps[app].restarts += 1;
        }
        if self.cx.apps[app].history.note(report) {
            checkpoint::save_app(&mut self.cx, app);
        }
        releases::note(&mut self.cx, app, report);
        dependencies::note(&mut self.cx, report);
        stop_delay::note(&mut self.cx, report);
        self.relay.announce(&mut self.cx, app, report);
        self.hooks.run(&self.cx, app, report);
        self.after_report(app, report);
    }

    fn read_keeper(&mut self) -> io::Result<()> {
        while let Some((notice, fds)) = self.cx.keeper.receive()? {
            self.on_notice(notice, fds);
        }
        Ok(())
    }

    fn on_notice(&mut self, notice: Notice, mut fds: VecDeque<OwnedFd>) {
        match notice {
            Notice::Spawned { worker, pid } => {
                spawn::on_spawned(&mut self.cx, &mut self.output, worker, pid);
                if let Some(ix) = self.cx.workers.find(worker) {
                    self.begin_interception(ix);
                }
            }
            Notice::SpawnFailed { worker, step, errno } => {
                if let Some((app, error, obstacle)) = spawn::failure(&self.cx, worker, step, errno) {
                    self.spawn_failed(app, worker, &error, obstacle);
                }
            }
            Notice::Exited { worker, status, at_ms, out_of_memory } => {
                self.on_exited(worker, spawn::exit_status(status, out_of_memory), at_ms);
            }
            Notice::Looked { worker, call, bytes, errno } => {
                let KernelMode { groups, interception, .. } = &mut self.kernel_mode;
                let answer = bind::KeeperLooked { worker, call, bytes, errno };
                interception.keeper_looked(&mut self.cx, groups, answer);
            }
            Notice::Held { name } => {
                if let Some(fd) = fds.pop_front() {
                    moves::keep_copy(&mut self.cx, name, fd);
                }
            }
            Notice::Signal { signal, value } => self.on_signal(signal, value),
            Notice::Keeper { about } => self.upgrade.on_keeper_about(&mut self.cx, about),
            // Sent only at the start, and read by `adopt`.
            Notice::Hello { .. } | Notice::Child { .. } | Notice::Noted { .. } | Notice::Begin => {}
        }
    }

    /// Checks the accept queues of slots, when that is due.
    fn look_at_queues(&mut self) {
        if self.upgrade.is_handing_over() {
            // The next master checks all queues.
            return self.cx.timers.cancel(Timer::AcceptQueues);
        }
        if !self.cx.timers.take_due(Timer::AcceptQueues, self.cx.now_ms) {
            return;
        }
        self.kernel_mode.monitor.check_pings(&mut self.cx, &mut self.liveness);
        self.work_on_tasks();
        self.kernel_mode.monitor.look(&mut self.cx, &mut self.liveness, &mut self.dispatch);
    }

    /// Reads one channel until it is empty and handles every line.
    fn read_channel(&mut self, ix: WorkerIx, to_end: bool) {
        self.channel_reader().read(ix, to_end);
    }

    fn channel_reader(&mut self) -> channels::ChannelReader<'_, S> {
        channels::ChannelReader {
            cx: &mut self.cx,
            dispatch: &mut self.dispatch,
            groups: &mut self.kernel_mode.groups,
            http_probes: &mut self.http_probes,
            relay: &mut self.relay,
        }
    }

    /// Reads on in channels that were left with bytes in them, as far as a turn's time for them goes.
    fn read_on(&mut self) {
        if !self.cx.timers.take_due(Timer::Unread, self.cx.now_ms) {
            return;
        }
        let end_us = self.cx.now_us + unread::TURN_US;
        for _ in 0..unread::count(&self.cx) {
            let Some((ix, to_end)) = unread::take_due(&mut self.cx) else { break };
            self.read_channel(ix, to_end);
            if self.cx.system.now_us() >= end_us {
                break;
            }
        }
        unread::set_timer(&mut self.cx);
    }

    /// Has the keeper start a worker, or a process beside the workers. An error here becomes the same event as a failure in the keeper.
    fn spawn(&mut self, app: AppIx, worker: WorkerId, slot: Slot, generation: Generation) {
        let mut spawner = spawn::Spawner {
            cx: &mut self.cx,
            groups: &mut self.kernel_mode.groups,
            output: &mut self.output,
            hooks: &mut self.hooks,
            notify: &mut self.notify,
        };
        if let Err(error) = spawner.start(app, worker, slot, generation) {
            self.spawn_failed(app, worker, &error, error.obstacle());
        }
    }

    fn spawn_failed(&mut self, app: AppIx, worker: WorkerId, error: &SpawnError, obstacle: Obstacle) {
        spawn::remove(&mut self.cx, &mut self.drains, &mut self.output, worker);
        self.cx.events.push_back((app, Event::SpawnFailed { worker, reason: error.to_string(), obstacle }));
    }

    fn on_exited(&mut self, id: WorkerId, status: ExitStatus, at_ms: u64) {
        if let Some(ix) = self.cx.workers.find(id)
            && let Some(app) = self.cx.workers.get(ix).map(|worker| worker.app)
        {
            // Read the last lines first: an answer that is still in the channel says that a connection was taken.
            self.channel_reader().read_last_words(ix);
            if let Some(worker) = self.cx.workers.get_mut(ix) {
                worker.ended = true;
            }
            // Keep the order of events: the lines come before the exit.
            self.cx.events.push_back((app, Event::Exited { worker: id, status, at_ms }));
            self.work_on_events();
            spawn::keep_last_words(&mut self.cx, &mut self.output, app, id);
            spawn::remove(&mut self.cx, &mut self.drains, &mut self.output, id);
            self.relay.actions.worker_gone(&mut self.cx, id);
            self.relay.metrics.worker_gone(id);
            self.relay.profiles.worker_gone(&mut self.cx, id);
            // Workers that a reload did not replace may outlive it, if the reload scaled them away.
            if self.cx.apps[app].generations.len() > 1 && !self.cx.apps[app].supervisor.is_reloading() {
                self.drop_old_generations(app);
            }
        }
        self.cx.keeper.send(Order::ExitSeen { worker: id });
    }

    fn channel_ready(&mut self, ix: WorkerIx, writable: bool, ended: bool) {
        if writable {
            let Some(channel) = self.cx.workers.get_mut(ix).and_then(|w| w.channel.as_mut()) else { return };
            let waited = channel.lacks_resources();
            let any_read = !waited && channel.flush();
            let (blocked, scarce) = (channel.is_blocked(), channel.lacks_resources());
            if any_read && let Some(worker) = self.cx.workers.get_mut(ix) {
                worker.receiver.has_read(self.cx.now_ms);
                unread::has_paid(&mut self.cx, ix);
            }
            let waits = self.waits_for_ping(ix);
            if scarce && !waited {
                self.dispatch.resource_retry.await_writable(&mut self.cx, ix);
            } else if !blocked {
                eligibility::refresh(&mut self.cx, ix);
            }
            if !blocked
                && !waits
                && let Some(channel) = self.cx.workers.get(ix).and_then(|w| w.channel.as_ref())
            {
                self.cx.reactor.channel_writable_done(ix, channel.as_fd());
            }
        }
        if !unread::is_left(&mut self.cx, ix, ended) {
            self.read_channel(ix, ended);
        }
    }
}
