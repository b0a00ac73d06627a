//! What every mechanism of the master works on: the time of this turn, the tables of apps and workers, the link to the
//! keeper, the reactor, and the events that wait for the rules. A mechanism gets it as an argument and keeps nothing of
//! it; what only one mechanism needs is in its own struct.
use super::app::App;
use super::checkpoint::Checkpoint;
use super::deployment::Deployment;
use super::keeper::Keeper;
use super::polls::Polls;
use super::table::Table;
use super::worker::Workers;
use crate::ids::AppIx;
use crate::os::clock;
use crate::supervisor::Event;
use std::collections::VecDeque;

/// The shared part of the master.
pub(super) struct Context {
    /// The monotonic clock at the beginning of this turn, in milliseconds.
    pub(super) now_ms: u64,
    /// The same in microseconds.
    pub(super) now_us: u64,
    /// What is true of the deployment as a whole.
    pub(super) deployment: Deployment,
    /// The apps of the deployment. Deleted ones keep their place.
    pub(super) apps: Table<AppIx, App>,
    /// Every process that lives and is ours.
    pub(super) workers: Workers,
    /// What the keeper holds about this master.
    pub(super) checkpoint: Checkpoint,
    /// The way to the keeper.
    pub(super) keeper: Keeper,
    /// What the loop waits for.
    pub(super) reactor: Polls,
    /// Events that wait for the rules of their app, in order.
    pub(super) events: VecDeque<(AppIx, Event)>,
}

impl Context {
    /// Nothing is known yet but the keeper.
    pub(super) fn new(keeper: Keeper, reactor: Polls) -> Context {
        let now_us = clock::monotonic_us();
        Context {
            now_ms: now_us / 1000,
            now_us,
            deployment: Deployment { started_ms: now_us / 1000, ..Deployment::default() },
            apps: Table::default(),
            workers: Workers::default(),
            checkpoint: Checkpoint::default(),
            keeper,
            reactor,
            events: VecDeque::new(),
        }
    }

    /// Reads the clock.
    pub(super) fn update_now(&mut self) {
        self.now_us = clock::monotonic_us();
        self.now_ms = self.now_us / 1000;
    }
}
