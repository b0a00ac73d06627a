//! The figures of a canary, the first new worker of a reload, and of the workers beside it: takes them at both ends of
//! the canary time. `supervisor::canary` compares them.
//!
//! They die with the master; the next one watches the canary for its whole time again.
use super::app::App;
use super::context::Context;
use super::narration::plural;
use super::output::Output;
use super::settings::Settings;
use super::system::System;
use super::worker::Worker;
use crate::ids::{AppIx, WorkerId};
use crate::logs::LineCount;
use crate::supervisor::{
    CanaryAmount, CanaryFigure, CanaryFigures, CanaryVerdict, Event, Phase, WorkerView, judge_canary,
};
use std::sync::Arc;

/// Workers that a canary is compared with, at most: each costs a few readings of /proc in one turn of the loop.
const OTHERS_MAX: usize = 16;

/// A canary under way.
pub(super) struct Canary {
    worker: Watched,
    others: Vec<Watched>,
}

/// A worker, with what it had when the canary time began.
struct Watched {
    id: WorkerId,
    before: Counts,
    stderr_lines: Arc<LineCount>,
}

/// What a worker has counted since its start.
#[derive(Clone, Copy)]
struct Counts {
    taken: u64,
    refused: u64,
    cpu_ms: Option<u64>,
    /// The sum of its loop delays in microseconds, and their number.
    delays: (u64, u64),
    failed_probes: u64,
}

impl Counts {
    fn of<S: System>(cx: &Context<S>, worker: &Worker<S>) -> Counts {
        Counts {
            taken: worker.taken,
            refused: worker.refused,
            cpu_ms: worker.pid.and_then(|pid| cx.system.tree_cpu_ms(pid)),
            delays: worker.liveness.delays,
            failed_probes: worker.liveness.failed_probes,
        }
    }
}

/// What is measured of an app's workers.
#[derive(Clone, Copy)]
struct Measured {
    /// Who takes which connection.
    connections: bool,
    probes: bool,
}

impl Watched {
    fn begin<S: System>(cx: &Context<S>, output: &Output, id: WorkerId) -> Option<Watched> {
        let worker = cx.workers.get(cx.workers.find(id)?)?;
        Some(Watched { id, before: Counts::of(cx, worker), stderr_lines: output.count_errors(id) })
    }

    /// What it did since; `None` if it is gone.
    fn figures(&self, cx: &Context<impl System>, measured: Measured) -> Option<CanaryFigures> {
        let worker = cx.workers.get(cx.workers.find(self.id)?)?;
        let (before, now) = (self.before, Counts::of(cx, worker));
        let since = |before: u64, now: u64| now.saturating_sub(before);
        let taken = since(before.taken, now.taken);
        let refused = since(before.refused, now.refused);
        let by_connection = |sum: Option<u64>, units: u64| {
            let units = measured.connections.then_some(units);
            sum.zip(units).map(|(sum, units)| CanaryAmount { sum, units })
        };
        // A child that ended in between took its time with it.
        let cpu_ms = now.cpu_ms.zip(before.cpu_ms).and_then(|(now, before)| now.checked_sub(before));
        let delays =
            CanaryAmount { sum: since(before.delays.0, now.delays.0), units: since(before.delays.1, now.delays.1) };
        let probes = CanaryAmount { sum: since(before.failed_probes, now.failed_probes), units: 1 };
        Some(CanaryFigures {
            // What old workers do for connections that they keep counts too, which is in favour of the canary.
            stderr_lines: by_connection(self.stderr_lines.so_far(), taken),
            cpu_ms: by_connection(cpu_ms, taken),
            refused: by_connection(Some(refused), taken + refused),
            loop_delay_us: Some(delays),
            failed_probes: measured.probes.then_some(probes),
        })
    }
}

/// The canary time begins.
pub(super) fn watch(cx: &mut Context<impl System>, output: &Output, ix: AppIx, worker: WorkerId) {
    cx.apps[ix].canary = begin(cx, output, ix, worker);
}

fn begin<S: System>(cx: &Context<S>, output: &Output, ix: AppIx, id: WorkerId) -> Option<Canary> {
    let app = &cx.apps[ix];
    factor(app, id)?;
    let generation = app.supervisor.worker(id)?.generation;
    let compares =
        |w: &WorkerView| matches!(w.phase, Phase::Ready { .. }) && !w.spare && w.generation != generation && w.id != id;
    let others = app.supervisor.workers().filter(compares).take(OTHERS_MAX);
    let others = others.filter_map(|other| Watched::begin(cx, output, other.id)).collect();
    Some(Canary { worker: Watched::begin(cx, output, id)?, others })
}

/// How many times as much a canary may have; `None`: figures are not compared.
fn factor(app: &App, canary: WorkerId) -> Option<u32> {
    let settings = app.generations.get(&app.supervisor.worker(canary)?.generation)?;
    settings.compares_canary().then_some(settings.config.reload.canary_max)
}

/// The canary time is over: tells the supervisor how the worker compares.
pub(super) fn judge(cx: &mut Context<impl System>, output: &mut Output, ix: AppIx, worker: WorkerId) {
    let canary = cx.apps[ix].canary.take().filter(|canary| canary.worker.id == worker);
    let worse = canary.and_then(|canary| {
        let verdict = compare(cx, ix, &canary)?;
        log_pass(cx, ix, &canary, &verdict);
        verdict.worse
    });
    if worse.is_some() {
        // Whoever requested the reload sees what it printed.
        cx.apps[ix].last_words = output.take_tail(worker);
    }
    cx.events.push_back((ix, Event::CanaryJudged { worker, worse }));
}

fn compare(cx: &Context<impl System>, ix: AppIx, canary: &Canary) -> Option<CanaryVerdict> {
    let app = &cx.apps[ix];
    let factor = factor(app, canary.worker.id)?;
    let alive = &app.settings().config.alive;
    let probes = alive.http.is_some() || alive.tcp || alive.exec.is_some();
    let connections = app.generations.values().all(Settings::master_accepts);
    let measured = Measured { connections, probes };
    let mut others = CanaryFigures::default();
    for figures in canary.others.iter().filter_map(|other| other.figures(cx, measured)) {
        others.add(&figures);
    }
    Some(judge_canary(&canary.worker.figures(cx, measured)?, &others, factor))
}

/// Says by what a canary was compared that may stay.
fn log_pass(cx: &Context<impl System>, ix: AppIx, canary: &Canary, verdict: &CanaryVerdict) {
    if verdict.worse.is_some() {
        return;
    }
    let (name, id) = (&cx.apps[ix].name, canary.worker.id);
    let list = |figures: &[CanaryFigure]| figures.iter().map(|figure| figure.name()).collect::<Vec<_>>().join(", ");
    let left_out = match verdict.unjudged.as_slice() {
        [] => String::new(),
        unjudged => format!("; too little to compare by {}", list(unjudged)),
    };
    if verdict.judged.is_empty() {
        log::info!("{name}: the canary time of worker {id} is over{left_out}");
    } else {
        let others = canary.others.len();
        let workers = plural(others as u32, "worker");
        let judged = list(&verdict.judged);
        log::info!("{name}: canary {id} is no worse than {others} old {workers} by {judged}{left_out}");
    }
}
