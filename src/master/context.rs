//! What every mechanism of the master works on: the time of this turn, the tables of apps and workers, the link to the
//! keeper, the reactor, and the queued events. A mechanism gets it as an argument and keeps no part of it; state that
//! only one mechanism needs is in its own struct.
use super::app::App;
use super::checkpoint::Checkpoint;
use super::deployment::Deployment;
use super::eligibility::GroupChanges;
use super::keeper::Keeper;
use super::reactor::Reactor;
use super::system::System;
use super::table::Table;
use super::tasks::Task;
use super::timers::{Timer, Timers};
use super::unread::Unread;
use super::worker::Workers;
use crate::ids::{AppIx, ListenerIx};
use crate::supervisor::Event;
use std::collections::VecDeque;
use std::sync::Arc;

pub(super) struct Context<S: System> {
    pub(super) system: S,
    /// The monotonic clock at the beginning of this turn, in milliseconds.
    pub(super) now_ms: u64,
    /// The same clock in microseconds.
    pub(super) now_us: u64,
    /// State of the deployment as a whole.
    pub(super) deployment: Deployment,
    /// The apps of the deployment. Deleted ones keep their place.
    pub(super) apps: Table<AppIx, App>,
    /// Every living process of this deployment.
    pub(super) workers: Workers<S>,
    /// The records that the keeper holds for this master.
    pub(super) checkpoint: Checkpoint,
    /// The link to the keeper.
    pub(super) keeper: Keeper<S>,
    /// The fds that the loop waits for.
    pub(super) reactor: Reactor<S>,
    /// The deadlines of all mechanisms.
    pub(super) timers: Timers,
    /// Changes of reuseport groups that kernel mode has not handled yet.
    pub(super) group_changes: GroupChanges,
    /// Tasks that mechanisms leave for each other.
    pub(super) tasks: VecDeque<Task>,
    /// The id for the next process.
    pub(super) next_worker: u64,
    /// Wakes the loop, from any thread.
    pub(super) wake: Arc<dyn Fn() + Send + Sync>,
    /// Channels that are read a piece at a time.
    pub(super) unread: Unread,
    /// Events for the apps' supervisors, in order.
    pub(super) events: VecDeque<(AppIx, Event)>,
}

impl<S: System> Context<S> {
    /// An empty context: only the keeper is known.
    pub(super) fn new(
        system: S,
        keeper: Keeper<S>,
        reactor: Reactor<S>,
        incarnation: u32,
        wake: Arc<dyn Fn() + Send + Sync>,
    ) -> Context<S> {
        let now_us = system.now_us();
        Context {
            now_ms: now_us / 1000,
            now_us,
            deployment: Deployment {
                started_ms: now_us / 1000,
                incarnation,
                keeper_pid: system.keeper_pid(),
                on_terminal: system.is_on_terminal(),
                ..Deployment::default()
            },
            system,
            apps: Table::default(),
            workers: Workers::default(),
            checkpoint: Checkpoint::default(),
            keeper,
            reactor,
            timers: Timers::default(),
            group_changes: GroupChanges::default(),
            tasks: VecDeque::new(),
            next_worker: 1,
            wake,
            unread: Unread::default(),
            events: VecDeque::new(),
        }
    }

    /// Has the rules of an app hear of an event, unless it changes nothing: what a process repeats costs nobody else
    /// anything.
    pub(super) fn push_news(&mut self, app: AppIx, event: Event) {
        // What waits before it may change what it means.
        let is_repeated = match self.events.back() {
            Some((last_app, last)) => *last_app == app && *last == event,
            None => self.apps.get(app).is_some_and(|app| !app.supervisor.has_effect(&event)),
        };
        if !is_repeated {
            self.events.push_back((app, event));
        }
    }

    /// The program of this group has to be replaced.
    pub(super) fn needs_steering(&mut self, app: AppIx, listener: ListenerIx) {
        self.group_changes.add_unsteered(&mut self.timers, (app, listener));
    }

    /// The accept queues are checked in this turn of the loop.
    pub(super) fn look_at_queues_now(&mut self) {
        self.timers.set_earlier(Timer::AcceptQueues, self.now_ms);
    }

    /// Reads the clock.
    pub(super) fn update_now(&mut self) {
        self.now_us = self.system.now_us();
        self.now_ms = self.now_us / 1000;
    }
}
