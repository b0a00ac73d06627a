//! Warm-up: how far a worker is with the requests that it has to answer before clients reach it. `http_probes` sends them, one after
//! the other, each over a connection that is handed to that worker alone; when a worker is to be warmed up, and what becomes of one
//! that is not warm in time, is decided in the supervisor.
//!
//! A request counts when its answer is over, whatever its status: a path that needs a login warms the code up to there. One that is
//! not answered is sent again.
use super::context::Context;
use super::probe_question::{Question, question};
use super::system::System;
use crate::ids::{AppIx, Generation, WorkerIx};
use crate::supervisor::Event;
use std::collections::BTreeSet;

/// How far one worker is.
#[derive(Default)]
pub(super) struct Warming {
    /// Requests that were answered.
    pub(super) answered: u32,
    /// The status of the last answer, where it was neither 2xx nor 3xx.
    pub(super) bad_status: Option<u16>,
}

/// Paths that were answered with such a status, by their number: each is told once.
#[derive(Default)]
pub(super) struct BadPaths(BTreeSet<(AppIx, Generation, usize)>);

impl Warming {
    /// An answer is over. Returns whether it was the last one, which the supervisor is told.
    pub(super) fn count(&mut self, cx: &mut Context<impl System>, ix: WorkerIx, bad: &mut BadPaths) -> bool {
        let bad_status = self.bad_status.take();
        let Some(Question::WarmUp(warm_up)) = question(cx, ix) else { return false };
        let nth = self.answered;
        self.answered = nth.saturating_add(1);
        let is_warm = self.answered >= warm_up.requests();
        if let Some(status) = bad_status {
            bad.tell(cx, ix, warm_up.number(nth), &format!("GET {} was answered with {status}", warm_up.path(nth)));
        }
        if let Some(worker) = cx.workers.get(ix).filter(|_| is_warm) {
            let (app, event) = (worker.app, Event::Warmed { worker: worker.id });
            cx.events.push_back((app, event));
        }
        is_warm
    }
}

impl BadPaths {
    fn tell(&mut self, cx: &Context<impl System>, ix: WorkerIx, number: usize, what: &str) {
        let Some(worker) = cx.workers.get(ix) else { return };
        // Those of generations that are gone would add up.
        self.0.retain(|(app, generation, _)| cx.apps.get(*app).is_some_and(|a| a.generations.contains_key(generation)));
        if self.0.insert((worker.app, worker.generation, number)) {
            let name = &cx.apps[worker.app].name;
            log::warn!("{name}/{}: worker {}: {what}, in its warm-up", worker.slot, worker.id);
        }
    }
}
