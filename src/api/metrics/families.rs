//! The families of metrics: name, help and samples of each. docs/monitoring.md describes them; names stay.
use super::Scrape;
use super::sockets::AppSockets;
use crate::api::app_metrics::AppMetrics;
use crate::api::types::{AgentState, App, AppStatus, Deployment, Histogram, Worker, WorkerState};
use prometheus_client::encoding::{DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;
use std::collections::BTreeMap;
use std::fmt;

type Labels = Vec<(&'static str, String)>;

/// A sample of a value that may be unknown; unknown ones are left out.
type Sample<T> = (Labels, Option<T>);

struct Families<'a>(DescriptorEncoder<'a>);

impl Families<'_> {
    /// A family whose known samples `encode` writes; without any there is no family.
    fn family<T>(
        &mut self,
        (name, unit): (&str, Option<Unit>),
        help: &str,
        kind: MetricType,
        samples: impl IntoIterator<Item = Sample<T>>,
        encode: impl Fn(MetricEncoder<'_>, T) -> fmt::Result,
    ) -> fmt::Result {
        let mut known = samples.into_iter().filter_map(|(labels, value)| Some((labels, value?))).peekable();
        if known.peek().is_none() {
            return Ok(());
        }
        let mut family = self.0.encode_descriptor(name, help, unit.as_ref(), kind)?;
        known.try_for_each(|(labels, value)| encode(family.encode_family(&labels)?, value))
    }

    fn gauge<T: EncodeGaugeValue>(
        &mut self,
        name: (&str, Option<Unit>),
        help: &str,
        samples: impl IntoIterator<Item = Sample<T>>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Gauge, samples, |mut sample, value| sample.encode_gauge(&value))
    }

    fn counter<T: EncodeCounterValue>(
        &mut self,
        name: (&str, Option<Unit>),
        help: &str,
        samples: impl IntoIterator<Item = Sample<T>>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Counter, samples, |mut sample, value| {
            sample.encode_counter::<NoLabelSet, T, f64>(&value, None)
        })
    }

    fn histogram(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = Sample<Histogram>>,
    ) -> fmt::Result {
        self.family(in_seconds(name), help, MetricType::Histogram, samples, |mut sample, histogram| {
            let bounds = histogram.bounds_us.iter().map(|us| *us as f64 / 1e6).chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = bounds.zip(histogram.counts.iter().copied()).collect();
            let count = histogram.counts.iter().sum();
            let sum = histogram.sum_us as f64 / 1e6;
            sample.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
        })
    }
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1e3
}

/// A family without a unit.
fn plain(name: &str) -> (&str, Option<Unit>) {
    (name, None)
}

fn in_seconds(name: &str) -> (&str, Option<Unit>) {
    (name, Some(Unit::Seconds))
}

fn in_bytes(name: &str) -> (&str, Option<Unit>) {
    (name, Some(Unit::Bytes))
}

pub(super) fn encode(scrape: &Scrape, encoder: DescriptorEncoder<'_>) -> fmt::Result {
    let mut families = Families(encoder);
    let Scrape { deployment, .. } = scrape;
    of_clusterd(&mut families, scrape)?;
    of_apps(&mut families, deployment)?;
    of_connections(&mut families, scrape)?;
    of_metrics(&mut families, scrape)?;
    of_agents(&mut families, deployment)?;
    of_slots(&mut families, deployment)?;
    of_workers(&mut families, scrape)
}

/// Keeper, master, and the scrape itself.
fn of_clusterd(families: &mut Families<'_>, scrape: &Scrape) -> fmt::Result {
    let Scrape { deployment, own, took, .. } = scrape;
    let version = vec![("version", deployment.version.clone())];
    let mut info = families.0.encode_descriptor("build", "The version of the master.", None, MetricType::Info)?;
    info.encode_info(&version)?;
    families.gauge(
        in_seconds("uptime"),
        "Time since the deployment started, across masters.",
        [(Labels::new(), Some(seconds(deployment.uptime_ms)))],
    )?;
    families.counter(
        plain("master_restarts"),
        "Times that a master was started again.",
        [(Labels::new(), Some(deployment.master_restarts))],
    )?;
    let role = |process: &super::Process| vec![("process", process.role.to_owned())];
    families.counter(
        in_seconds("process_cpu"),
        "CPU time of keeper and master.",
        own.iter().map(|process| (role(process), process.cpu_ms.map(seconds))),
    )?;
    families.gauge(
        in_bytes("process_resident_memory"),
        "Resident memory of keeper and master.",
        own.iter().map(|process| (role(process), process.memory_bytes)),
    )?;
    families.gauge(
        plain("process_open_fds"),
        "Files that keeper and master have open.",
        own.iter().map(|process| (role(process), process.open_fds)),
    )?;
    families.gauge(
        in_seconds("scrape"),
        "Time that it took to read what these metrics tell of processes and sockets.",
        [(Labels::new(), Some(took.as_secs_f64()))],
    )
}

fn app_label(app: &App) -> Labels {
    vec![("app", app.name.clone())]
}

/// One sample for each app.
fn each_app<'a, T>(
    deployment: &'a Deployment,
    value: impl Fn(&'a App) -> T + 'a,
) -> impl Iterator<Item = Sample<T>> + 'a {
    deployment.apps.iter().map(move |app| (app_label(app), Some(value(app))))
}

/// One sample for each app and word that counts something.
fn each_word<'a>(
    deployment: &'a Deployment,
    label: &'static str,
    counts: impl Fn(&'a App) -> &'a BTreeMap<String, u64> + 'a,
) -> impl Iterator<Item = Sample<u64>> + 'a {
    deployment.apps.iter().flat_map(move |app| {
        counts(app).iter().map(move |(word, count)| {
            let mut labels = app_label(app);
            labels.push((label, word.clone()));
            (labels, Some(*count))
        })
    })
}

fn of_apps(families: &mut Families<'_>, deployment: &Deployment) -> fmt::Result {
    let with = |app: &App, label, word: &str| {
        let mut labels = app_label(app);
        labels.push((label, word.to_owned()));
        labels
    };
    let statuses = deployment.apps.iter().flat_map(|app| {
        let known = AppStatus::ALL.iter().filter(|status| **status != AppStatus::Gone);
        known.map(move |status| (with(app, "status", status.as_str()), Some(u32::from(app.status == *status))))
    });
    families.gauge(plain("app_status"), "1 for the status that the app has, 0 for every other.", statuses)?;
    let states = deployment.apps.iter().flat_map(|app| {
        WorkerState::ALL.iter().map(move |state| {
            let count = app.workers.iter().filter(|worker| worker.state == *state).count() as u64;
            (with(app, "state", state.as_str()), Some(count))
        })
    });
    families.gauge(plain("app_workers"), "Workers, and slots without one, by state.", states)?;
    families.gauge(
        plain("app_workers_wanted"),
        "Workers that should serve.",
        each_app(deployment, |app| app.workers_wanted),
    )?;
    families.gauge(plain("app_workers_ready"), "Workers that serve.", each_app(deployment, |app| app.workers_ready))?;
    of_scale(families, deployment)?;
    families.gauge(
        plain("app_spares_wanted"),
        "Spares that should be ready.",
        each_app(deployment, |app| app.spares_wanted),
    )?;
    families.gauge(
        plain("app_spares_ready"),
        "Spares that are ready.",
        each_app(deployment, |app| app.spares_ready),
    )?;
    families.gauge(plain("app_generation"), "Counts reloads, from 1.", each_app(deployment, |app| app.generation))?;
    families.counter(
        plain("app_restarts"),
        "Workers that were replaced after an end that nobody had asked for, by cause.",
        each_word(deployment, "cause", |app| &app.counters.restarts),
    )?;
    families.counter(
        plain("app_replaced"),
        "Workers that were replaced because they passed a limit.",
        each_word(deployment, "limit", |app| &app.counters.replaced),
    )?;
    families.counter(
        plain("app_reloads"),
        "Reloads by outcome.",
        each_word(deployment, "outcome", |app| &app.counters.reloads),
    )?;
    families.counter(
        in_bytes("app_log_written"),
        "Output that this master wrote to log files.",
        each_app(deployment, |app| app.counters.log_bytes),
    )?;
    families.counter(
        plain("app_log_lines_dropped"),
        "Lines of output that could not be written.",
        each_app(deployment, |app| app.log_lines_dropped),
    )
}

/// How the numbers of workers follow the load.
fn of_scale(families: &mut Families<'_>, deployment: &Deployment) -> fmt::Result {
    let scales = || deployment.apps.iter().filter_map(|app| Some((app_label(app), app.scale.as_ref()?)));
    families.gauge(
        plain("app_workers_min"),
        "The least number of workers, where it follows the load.",
        scales().map(|(labels, scale)| (labels, Some(scale.min))),
    )?;
    families.gauge(
        plain("app_workers_max"),
        "The largest number of workers, where it follows the load.",
        scales().map(|(labels, scale)| (labels, Some(scale.max))),
    )?;
    families.gauge(
        plain("app_worker_load"),
        "Load of one worker, on average: a share of a CPU, or waiting connections.",
        scales().map(|(labels, scale)| (labels, scale.load)),
    )?;
    families.gauge(
        plain("app_worker_load_target"),
        "The load that one worker should have.",
        scales().map(|(labels, scale)| (labels, Some(scale.target))),
    )
}

fn of_connections(families: &mut Families<'_>, scrape: &Scrape) -> fmt::Result {
    let Scrape { deployment, sockets, .. } = scrape;
    families.counter(
        plain("app_connections_accepted"),
        "Connections that this master accepted.",
        each_app(deployment, |app| app.counters.accepted),
    )?;
    families.counter(
        plain("app_connections_handed"),
        "Connections that workers took from this master.",
        each_app(deployment, |app| app.handoffs),
    )?;
    families.counter(
        plain("app_connections_moved"),
        "Kept connections that went from one worker to another under this master.",
        each_app(deployment, |app| app.moved),
    )?;
    families.counter(
        plain("app_connections_rescued"),
        "Connections taken from a stuck worker's queue or a killed process, for other workers.",
        each_app(deployment, |app| app.counters.rescued),
    )?;
    families.counter(
        plain("app_connections_refused"),
        "Connections that a worker refused and another one got.",
        each_app(deployment, |app| app.counters.refused),
    )?;
    families.gauge(
        plain("app_connections_waiting"),
        "Connections that wait in the master for a worker.",
        each_app(deployment, |app| app.counters.waiting),
    )?;
    let of = |app: &App| sockets.apps.get(&app.name).copied().unwrap_or_default();
    let known =
        |value: fn(AppSockets) -> Option<u64>| deployment.apps.iter().map(move |app| (app_label(app), value(of(app))));
    families.gauge(plain("app_connections_open"), "Connections that are open.", known(|found| found.open))?;
    families.gauge(
        plain("app_accept_queue"),
        "Connections over TCP in the kernel's queues that nobody has accepted.",
        known(|found| found.queued),
    )?;
    families.histogram(
        "app_handover",
        "Time from the accept of a connection to the worker that took it.",
        deployment.apps.iter().map(|app| (app_label(app), app.counters.handover.clone())),
    )?;
    families.histogram(
        "app_loop_delay",
        "How long event loops let a ping or hand-off wait, once a second for each worker (Node).",
        deployment.apps.iter().map(|app| (app_label(app), app.counters.loop_delay.clone())),
    )
}

/// About the metrics that apps have of their own, which follow; and those of PM2's libraries.
fn of_metrics(families: &mut Families<'_>, scrape: &Scrape) -> fmt::Result {
    let apps = |count: fn(&AppMetrics) -> u64| {
        scrape.apps.iter().map(move |app| (vec![("app", app.app.clone())], Some(count(app))))
    };
    families.gauge(
        plain("app_metrics_missing"),
        "Workers, or folders of files, whose own metrics could not be had for this answer.",
        apps(|app| app.missing),
    )?;
    families.gauge(
        plain("app_metrics_left_out"),
        "Series of the app's own metrics that are not in this answer: too many, invalid, or with a name that is taken.",
        apps(|app| app.left_out),
    )?;
    let measured = scrape.deployment.apps.iter().flat_map(|app| {
        app.workers.iter().flat_map(move |worker| {
            let is_text = |text: &str| !text.chars().any(char::is_control);
            worker.custom_metrics.iter().filter_map(move |(name, metric)| {
                if !is_text(name) || !is_text(&metric.unit) {
                    return None;
                }
                let mut labels = app_label(app);
                labels.push(("slot", worker.slot.to_string()));
                labels.push(("worker", worker.id?.to_string()));
                labels.push(("name", name.clone()));
                labels.push(("unit", metric.unit.clone()));
                Some((labels, number(&metric.value)))
            })
        })
    });
    families.gauge(plain("worker_custom_metric"), "What the app measures with @pm2/io or tx2, by name.", measured)
}

/// A number, however the app writes it; a text has none.
fn number(value: &serde_json::Value) -> Option<f64> {
    let number = match value {
        serde_json::Value::Number(number) => number.as_f64()?,
        serde_json::Value::Bool(is) => f64::from(u8::from(*is)),
        serde_json::Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    number.is_finite().then_some(number)
}

fn of_agents(families: &mut Families<'_>, deployment: &Deployment) -> fmt::Result {
    let agents = || deployment.apps.iter().filter_map(|app| Some((app_label(app), app.agent.as_ref()?)));
    families.gauge(
        plain("agent_up"),
        "Whether the app's agent is ready.",
        agents().map(|(labels, agent)| (labels, Some(u32::from(agent.state == AgentState::Ready)))),
    )?;
    families.counter(
        plain("agent_restarts"),
        "Restarts of the agent after an end that nobody had asked for.",
        agents().map(|(labels, agent)| (labels, Some(agent.restarts))),
    )?;
    families.counter(
        in_seconds("agent_cpu"),
        "CPU time of the agent.",
        agents().map(|(labels, agent)| (labels, agent.cpu_ms.map(seconds))),
    )?;
    families.gauge(
        in_bytes("agent_resident_memory"),
        "Resident memory of the agent.",
        agents().map(|(labels, agent)| (labels, agent.memory_bytes)),
    )
}

/// What is counted by slot, across its workers.
fn of_slots(families: &mut Families<'_>, deployment: &Deployment) -> fmt::Result {
    // A slot whose worker is being replaced has two rows with the same numbers.
    let slots = || {
        deployment.apps.iter().flat_map(|app| {
            let by_slot: BTreeMap<u32, &Worker> = app.workers.iter().map(|worker| (worker.slot, worker)).collect();
            by_slot.into_values().map(move |worker| {
                let mut labels = app_label(app);
                labels.push(("slot", worker.slot.to_string()));
                (labels, worker)
            })
        })
    };
    families.counter(
        plain("slot_restarts"),
        "Workers of the slot that were replaced after an end that nobody had asked for.",
        slots().map(|(labels, worker)| (labels, Some(worker.restarts))),
    )?;
    families.counter(
        plain("slot_connections_steered"),
        "Connections that the kernel gave to the slot under this master (balance kernel, in turns).",
        slots().map(|(labels, worker)| (labels, worker.steered)),
    )
}

/// What is known of each living worker. The id tells a new worker of a slot from the old one.
fn of_workers(families: &mut Families<'_>, scrape: &Scrape) -> fmt::Result {
    let Scrape { deployment, sockets, .. } = scrape;
    let workers = || {
        deployment.apps.iter().flat_map(|app| {
            app.workers.iter().filter_map(move |worker| {
                let mut labels = app_label(app);
                labels.push(("slot", worker.slot.to_string()));
                labels.push(("worker", worker.id?.to_string()));
                Some((labels, worker))
            })
        })
    };
    let states = workers().map(|(mut labels, worker)| {
        labels.push(("state", worker.state.as_str().to_owned()));
        (labels, Some(1_u32))
    });
    families.gauge(plain("worker_state"), "1; the label has the state of the worker.", states)?;
    families.gauge(
        in_seconds("worker_uptime"),
        "Time since the worker was spawned.",
        workers().map(|(labels, worker)| (labels, worker.uptime_ms.map(seconds))),
    )?;
    families.counter(
        in_seconds("worker_cpu"),
        "CPU time of the worker's process.",
        workers().map(|(labels, worker)| (labels, worker.cpu_ms.map(seconds))),
    )?;
    families.gauge(
        in_bytes("worker_resident_memory"),
        "Resident memory of the worker's process.",
        workers().map(|(labels, worker)| (labels, worker.memory_bytes)),
    )?;
    families.gauge(
        in_seconds("worker_loop_delay"),
        "How long the event loop let the last ping or hand-off wait (Node).",
        workers().map(|(labels, worker)| (labels, worker.loop_delay_ms.map(|ms| ms / 1e3))),
    )?;
    families.counter(
        plain("worker_connections_handed"),
        "Connections that the worker took from this master.",
        workers().map(|(labels, worker)| (labels, Some(worker.handoffs))),
    )?;
    families.gauge(
        plain("worker_handoffs_open"),
        "Connections sent to the worker and not answered yet.",
        workers().map(|(labels, worker)| (labels, Some(worker.open_handoffs))),
    )?;
    families.gauge(
        plain("worker_connections_open"),
        "Connections of clients that the worker holds.",
        workers().map(|(labels, worker)| (labels, worker.pid.and_then(|pid| sockets.workers.get(&pid).copied()))),
    )?;
    families.counter(
        plain("worker_messages_lost"),
        "Messages that the worker missed since this master began, because it did not read.",
        workers().map(|(labels, worker)| (labels, Some(worker.messages_lost))),
    )
}
