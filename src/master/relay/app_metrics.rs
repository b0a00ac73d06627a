//! Metrics that apps have of their own, for one scrape at a time: asks the workers whose app uses `prom-client`, and passes
//! each answer on as it came; names the folders of Python's `prometheus_client`. `api::app_metrics` reads and adds up.
use super::{Relay, can_read};
use crate::api::app_metrics::{AnswerSender, Folder, Place, Source, Sources};
use crate::config::Metrics;
use crate::ids::{AppIx, Generation, WorkerId, WorkerIx};
use crate::limits::{APP_METRICS_ASKED_MAX, APP_METRICS_BYTES_MAX, APP_METRICS_WORKER_BYTES_MAX};
use crate::master::context::Context;
use crate::master::metrics_folders::Names;
use crate::master::settings::Settings;
use crate::master::system::System;
use crate::worker::node::framing::Line;
use crate::worker::node::prom_client;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// A worker that has left a question unanswered is asked again after this, in milliseconds: until then no scrape waits for it.
const ASK_AGAIN_MS: u64 = 30_000;

/// The scrape under way.
#[derive(Default)]
pub(in crate::master) struct Collection {
    /// Scrapes of this master. Their questions have numbers of their own, above those of earlier masters.
    last: u64,
    open: Option<Open>,
    /// Apps of which it was logged that a worker has never answered.
    told: BTreeSet<AppIx>,
}

struct Open {
    number: u64,
    /// Workers that were asked and have not answered.
    waiting: BTreeSet<WorkerId>,
    /// What all answers may still have together, in bytes.
    room_bytes: usize,
    answers: AnswerSender,
}

impl Relay {
    /// Begins a scrape: asks the workers, and returns where else metrics are. A scrape that was under way gets no more answers.
    pub(in crate::master) fn collect_metrics(
        &mut self,
        cx: &mut Context<impl System>,
        answers: AnswerSender,
    ) -> Vec<Source> {
        let number = cx.deployment.first_seq() + self.metrics.last;
        self.metrics.last += 1;
        let mut waiting = BTreeSet::new();
        let mut sources = Vec::new();
        for ix in cx.apps.indices().filter(|&ix| !cx.apps[ix].deleted).collect::<Vec<_>>() {
            let metrics = cx.apps[ix].settings().config.metrics;
            let found = match metrics {
                Metrics::None => continue,
                Metrics::PromClient => self.ask_workers(cx, ix, number, &mut waiting),
                Metrics::Python => match folder(cx, ix) {
                    Some(folder) => Sources::Folder(folder),
                    None => continue,
                },
            };
            sources.push(Source { app: cx.apps[ix].name.clone(), found });
        }
        self.metrics.open =
            (!waiting.is_empty()).then_some(Open { number, waiting, room_bytes: APP_METRICS_BYTES_MAX, answers });
        sources
    }

    fn ask_workers(
        &mut self,
        cx: &mut Context<impl System>,
        app: AppIx,
        number: u64,
        waiting: &mut BTreeSet<WorkerId>,
    ) -> Sources {
        let workers: Vec<(WorkerIx, WorkerId)> =
            cx.workers.iter().filter(|(_, w)| w.app == app && !w.is_beside).map(|(ix, w)| (ix, w.id)).collect();
        let (mut asked, mut not_asked) = (Vec::new(), 0);
        let mut line = Vec::new();
        prom_client::ask(&mut line, number);
        let now_ms = cx.now_ms;
        for &(ix, id) in &workers {
            let Some(worker) = cx.workers.get(ix).filter(|worker| worker.admitted && can_read(worker)) else {
                continue;
            };
            let of_app = &cx.apps[app];
            if of_app.generations.get(&worker.generation).is_some_and(|s| s.config.metrics != Metrics::PromClient) {
                continue;
            }
            let is_silent = worker.custom.asked_ms.is_some_and(|at_ms| now_ms < at_ms + ASK_AGAIN_MS);
            let is_behind = worker.channel.as_ref().is_none_or(|channel| channel.is_blocked());
            if is_silent || is_behind || waiting.len() >= APP_METRICS_ASKED_MAX || !self.send(cx, ix, &line) {
                not_asked += 1;
                continue;
            }
            if let Some(worker) = cx.workers.get_mut(ix) {
                let is_ignored = worker.custom.asked_ms.replace(now_ms).is_some() && !worker.custom.answers;
                if is_ignored && self.metrics.told.insert(app) {
                    let (name, slot) = (&cx.apps[app].name, worker.slot);
                    log::warn!(
                        "{name}/{slot}: worker {id} does not answer for its metrics; for metrics = \"prom-client\" it has to \
                         call new AggregatorRegistry() of prom-client"
                    );
                }
            }
            waiting.insert(id);
            asked.push(id.0);
        }
        Sources::Workers { living: workers.into_iter().map(|(_, id)| id.0).collect(), asked, not_asked }
    }

    /// Passes an answer on. Returns whether the line was one.
    pub(super) fn hear_metrics(&mut self, cx: &mut Context<impl System>, ix: WorkerIx, line: Line<'_>) -> bool {
        if !line.bytes.starts_with(prom_client::ANSWER) {
            return false;
        }
        let Some(worker) = cx.workers.get_mut(ix) else { return true };
        (worker.custom.asked_ms, worker.custom.answers) = (None, true);
        let id = worker.id;
        let number = prom_client::answered(line.bytes);
        let Some(open) = self.metrics.open.as_mut().filter(|open| number == Some(open.number)) else { return true };
        if open.waiting.remove(&id) {
            let fits = !line.is_cut && line.bytes.len() <= APP_METRICS_WORKER_BYTES_MAX.min(open.room_bytes);
            open.room_bytes -= if fits { line.bytes.len() } else { 0 };
            open.answers.pass(id.0, fits.then(|| line.bytes.into()));
        }
        self.metrics.finish();
        true
    }
}

impl Collection {
    /// A worker is gone: nobody waits for it any more.
    pub(in crate::master) fn worker_gone(&mut self, worker: WorkerId) {
        if let Some(open) = &mut self.open
            && open.waiting.remove(&worker)
        {
            open.answers.pass(worker.0, None);
            self.finish();
        }
    }

    fn finish(&mut self) {
        self.open.take_if(|open| open.waiting.is_empty() || open.answers.is_closed());
    }
}

/// Where the workers of an app write, as far as some live.
fn folder(cx: &Context<impl System>, app: AppIx) -> Option<Folder> {
    let living: BTreeSet<Generation> =
        cx.workers.iter().filter(|(_, w)| w.app == app && !w.is_beside).map(|(_, w)| w.generation).collect();
    let newest = *living.last()?;
    let of_app = &cx.apps[app];
    let settings = of_app.generations.get(&newest).unwrap_or_else(|| of_app.settings());
    let place = match settings.metrics_folder_typed() {
        Some(path) => Place::Typed(path),
        None => Place::Made {
            base: made_folder(cx, app, settings, newest).ok()?.parent()?.to_owned(),
            prefix: names(cx, app).of_app().to_owned(),
            living: living.into_iter().map(|generation| generation.0).collect(),
        },
    };
    Some(Folder { place, who: settings.credentials().cloned() })
}

/// The folder of a generation's metrics, for the environment of its workers. It is made where it is missing.
pub(in crate::master) fn folder_for(
    cx: &mut Context<impl System>,
    app: AppIx,
    settings: &Settings,
    generation: Generation,
) -> Option<PathBuf> {
    if settings.config.metrics != Metrics::Python || settings.metrics_folder_typed().is_some() {
        return None;
    }
    let made = made_folder(cx, app, settings, generation);
    if let Err(e) = &made {
        log::warn!(
            "{}: cannot make a folder for the metrics of its workers: {e}; they are not in /metrics",
            settings.config.name
        );
    }
    made.ok()
}

fn made_folder(
    cx: &Context<impl System>,
    app: AppIx,
    settings: &Settings,
    generation: Generation,
) -> std::io::Result<PathBuf> {
    let home = cx.deployment.home.as_ref();
    cx.system.metrics_folder(settings.credentials(), home, &names(cx, app), generation.0)
}

/// Names of an app's folders: no other run of clusterd has the same.
pub(in crate::master) fn names(cx: &Context<impl System>, app: AppIx) -> Names {
    let deployment = &cx.deployment;
    let home = deployment.home.as_ref().and_then(|home| cx.system.home_mark(home));
    Names::of(home, &deployment.name, (deployment.keeper_pid, deployment.started_ms), &cx.apps[app].name)
}
