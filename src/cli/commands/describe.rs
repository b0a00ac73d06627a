//! `clusterd describe`: everything about apps, for people or as JSON for scripts.
use crate::api::types::{App, Autoscale, Deployment, ScaleBy};
use crate::cli::apply::{fail, print};
use crate::cli::commands::ls::status_words;
use crate::cli::table::Paint;
use crate::cli::target::{Found, Known, gone_app, known};
use crate::cli::units::{short_delay, short_time, size};
use crate::cli::worker_table::worker_table;
use crate::config::balancing;
use crate::text::visible;
use clap::Args;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::ExitCode;

/// Show everything about apps (also: show)
#[derive(Args, Clone, Debug, PartialEq)]
#[command(aliases = ["show", "desc", "info"])]
pub struct Describe {
    /// A name, an id, a namespace, "/a pattern/" or "all"; one worker: web/0
    #[arg(required = true, value_name = "TARGET")]
    pub targets: Vec<String>,
    /// As JSON, for scripts
    #[arg(long)]
    pub json: bool,
}

impl Describe {
    pub(super) fn run(&self, home: Option<&Path>) -> ExitCode {
        let known = match known(home) {
            Ok(known) => known,
            Err(error) => return fail(error),
        };
        let mut failed = false;
        let mut all: Vec<Found> = Vec::new();
        for target in &self.targets {
            match known.find(target) {
                Ok(found) => all.extend(found),
                Err(error) => {
                    log::error!("{error}");
                    failed = true;
                }
            }
        }
        let text = if self.json {
            let of = |found: &Found| found.shown().unwrap_or_else(|| gone_app(&found.app, found.id));
            let apps: Vec<App> = all.iter().map(of).collect();
            serde_json::to_string_pretty(&apps).unwrap_or_default() + "\n"
        } else {
            all.iter().map(|found| card(found, &known)).collect::<Vec<_>>().join("\n")
        };
        let printed = print(&text);
        if failed { ExitCode::FAILURE } else { printed }
    }
}

/// One app, one line per property.
fn card(found: &Found, known: &Known) -> String {
    let id = found.id.map_or_else(|| "-".to_owned(), |id| id.to_string());
    let Some(app) = found.shown() else {
        return format!(
            "{}\n  id            {id}\n  status        gone: its keeper was killed; clusterd start {} starts it again\n",
            found.app, found.app
        );
    };
    let deployment = known.masters.iter().find(|m| m.name == found.deployment).and_then(|m| m.deployment.as_ref().ok());
    let mut text = format!("{}\n", app.name);
    let of_deployment = deployment.map(|deployment| deployment_rows(known, deployment)).unwrap_or_default();
    for (label, value) in app_rows(id, &app).into_iter().chain(of_deployment) {
        text.push_str(&format!("  {label:<14}{}\n", visible(&value)));
    }
    text.push('\n');
    text.push_str(&worker_table(&app, Paint::Plain));
    text.push_str(&custom(&app));
    text.push_str(&notes(&app));
    text
}

fn app_rows(id: String, app: &App) -> Vec<(&'static str, String)> {
    let spares = match (app.spares_ready, app.spares_wanted) {
        (_, 0) => String::new(),
        (ready, wanted) => format!(", and {ready} of {wanted} spare"),
    };
    let mut rows = vec![
        ("id", id),
        ("namespace", app.namespace.clone()),
        (
            "status",
            format!("{}, {} of {} workers ready{spares}", status_words(app), app.workers_ready, app.workers_wanted),
        ),
        ("command", app.command.join(" ")),
        ("folder", app.cwd.clone()),
        ("listens on", if app.listen.is_empty() { "no address".to_owned() } else { app.listen.join(" ") }),
        ("protocol", app.protocol.to_string()),
        ("balance", balance_words(app)),
        ("ready by", app.ready.clone()),
        ("generation", app.generation.to_string()),
        ("restarts", app.restarts.to_string()),
        ("hand-offs", app.handoffs.to_string()),
    ];
    let watched = app.watch.as_ref().map(|paths| if paths.is_empty() { app.cwd.clone() } else { paths.join(" ") });
    let log = |path: &Option<String>| path.clone().unwrap_or_else(|| "where clusterd's own output goes".to_owned());
    rows.extend(app.scale.as_ref().map(|scale| ("follows load", scale_words(app, scale))));
    rows.extend(watched.map(|paths| ("watches", paths)));
    rows.extend(app.cron_restart.clone().map(|times| ("replaced at", times)));
    rows.extend(app.memory_limit_bytes.map(|bytes| ("memory limit", size(bytes))));
    rows.extend(limits(app).map(|limits| ("limits", limits)));
    rows.extend([("stdout", log(&app.log.out)), ("stderr", log(&app.log.err))]);
    rows.extend(app.log.both.clone().map(|path| ("both", path)));
    rows.extend(app.warning.clone().map(|warning| ("last warning", warning)));
    if let Some(agent) = &app.agent {
        rows.push(("agent", agent.command.join(" ")));
        rows.push(("", format!("{}, started again {} times", agent.state, agent.restarts)));
    }
    if !app.depends_on.is_empty() {
        rows.push(("depends on", app.depends_on.join(" ")));
    }
    if let Some(before) = &app.before {
        rows.push(("before", before.command.join(" ")));
        rows.push(("", format!("{}, generation {}", before.state, before.generation)));
    }
    rows
}

/// The balance; where it is `auto`, with the reason.
pub(super) fn balance_words(app: &App) -> String {
    app.balance_why.as_ref().map_or_else(|| app.balance.to_string(), |why| balancing::sentence(app.balance, why))
}

/// How the number of workers follows the load, and why it changed last.
pub(super) fn scale_words(app: &App, scale: &Autoscale) -> String {
    let load = |value: f64| match scale.by {
        ScaleBy::Queue => format!("{value:.1}"),
        ScaleBy::Cpu | ScaleBy::Loop | ScaleBy::Unknown => format!("{:.0}%", value * 100.0),
    };
    let how = match (scale.by_hand, scale.load) {
        (true, _) => format!("set by hand, until: clusterd scale {} auto", app.name),
        (false, Some(now)) => format!("{} {} of {}", scale.by, load(now), load(scale.target)),
        (false, None) => format!("by {}, target {}", scale.by, load(scale.target)),
    };
    let ago = scale.last_change_ms_ago.map_or_else(String::new, |ms| format!(" ({} ago)", short_time(ms)));
    let last = scale.last_change.as_ref().filter(|_| !scale.by_hand);
    let last = last.map_or_else(String::new, |last| format!("; {last}{ago}"));
    format!("{} of {}..{} workers, {how}{last}", app.workers_wanted, scale.min, scale.max)
}

/// The limits of a worker but for its memory; `None`: there are none.
pub(super) fn limits(app: &App) -> Option<String> {
    let limits = &app.limits;
    let lifetime = limits.lifetime_ms.map(|ms| format!("replaced after {}", short_time(ms)));
    let connections = limits.max_connections.map(|count| format!("replaced after {count} connections"));
    let hang = limits.hang_ms.map(|ms| format!("killed when stuck for {}", short_delay(ms as f64)));
    let restarts = limits.max_restarts.map(|count| format!("given up after {count} failures"));
    let all: Vec<String> = [lifetime, connections, hang, restarts].into_iter().flatten().collect();
    (!all.is_empty()).then(|| all.join(", "))
}

fn deployment_rows(known: &Known, deployment: &Deployment) -> Vec<(&'static str, String)> {
    let restarts = deployment.master_restarts;
    let own_log = known.home.log_path(&deployment.name).ok().filter(|_| deployment.background);
    let mut rows = vec![
        ("deployment", deployment.name.clone()),
        ("runs in the", if deployment.background { "background" } else { "foreground" }.to_owned()),
    ];
    rows.extend(deployment.config.iter().map(|path| ("configured by", path.clone())));
    rows.push(("keeper", format!("pid {}, up {}", deployment.keeper_pid, short_time(deployment.uptime_ms))));
    rows.push(("master", format!("pid {}, started again {restarts} times", deployment.master_pid)));
    rows.extend(own_log.map(|path| ("its own log", path.display().to_string())));
    rows.push(("clusterd", deployment.version.clone()));
    rows
}

/// The actions and metrics of an app's own, with the value of each worker in the order of slots.
fn custom(app: &App) -> String {
    let mut metrics: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (name, metric) in app.workers.iter().flat_map(|worker| &worker.custom_metrics) {
        let value = metric.value.as_str().map_or_else(|| metric.value.to_string(), str::to_owned);
        let unit = if metric.unit.is_empty() { String::new() } else { format!(" {}", metric.unit) };
        metrics.entry(name).or_default().push(format!("{value}{unit}"));
    }
    let wide = metrics.keys().map(|name| name.chars().count()).max().unwrap_or(0);
    let rows = metrics.iter().map(|(name, values)| format!("    {name:<wide$}  {}", values.join(" | ")));
    let mut lines: Vec<String> = if metrics.is_empty() { Vec::new() } else { vec!["  metrics".to_owned()] };
    lines.extend(rows);
    let actions: BTreeSet<&str> = app.workers.iter().flat_map(|worker| &worker.actions).map(String::as_str).collect();
    if !actions.is_empty() {
        lines.push(format!("  actions      {}", actions.into_iter().collect::<Vec<_>>().join(", ")));
    }
    lines.iter().map(|line| format!("{}\n", visible(line))).collect()
}

/// Notes about single workers and the agent.
fn notes(app: &App) -> String {
    let mut lines = Vec::new();
    for worker in &app.workers {
        lines.extend(
            worker.not_yet.iter().map(|why| format!("  slot {}: not ready yet: {}\n", worker.slot, visible(why))),
        );
    }
    for worker in &app.workers {
        lines.extend(worker.note.iter().map(|note| format!("  slot {}: {}\n", worker.slot, visible(note))));
    }
    let agent_note = app.agent.as_ref().and_then(|agent| agent.note.as_deref());
    let before_note = app.before.as_ref().and_then(|before| before.note.as_deref());
    lines.extend(before_note.map(|note| format!("  before: {}\n", visible(note))));
    lines.extend(agent_note.map(|note| format!("  agent: {}\n", visible(note))));
    for worker in app.workers.iter().filter(|w| w.messages_lost > 0) {
        let (slot, lost) = (worker.slot, worker.messages_lost);
        lines.push(format!("  slot {slot}: {lost} messages lost, as it did not read them\n"));
    }
    lines.concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::samples;

    #[test]
    fn a_number_that_follows_the_load_is_told_with_its_reason() {
        let app = samples::app("web", Vec::new());
        let scale = Autoscale {
            min: 2,
            max: 8,
            by: ScaleBy::Cpu,
            target: 0.7,
            load: Some(0.5),
            by_hand: false,
            last_change: Some("from 2 to 4 workers: cpu use 93%, target 70%".to_owned()),
            last_change_ms_ago: Some(5_000),
        };
        let words = |scale: &Autoscale| scale_words(&App { workers_wanted: 4, ..app.clone() }, scale);
        assert_eq!(
            words(&scale),
            "4 of 2..8 workers, cpu 50% of 70%; from 2 to 4 workers: cpu use 93%, target 70% (5s ago)"
        );
        let queue = Autoscale { by: ScaleBy::Queue, target: 4.0, load: Some(1.25), last_change: None, ..scale.clone() };
        assert_eq!(words(&queue), "4 of 2..8 workers, queue 1.2 of 4.0");
        let unknown = Autoscale { load: None, last_change: None, ..scale.clone() };
        assert_eq!(words(&unknown), "4 of 2..8 workers, by cpu, target 70%");
        let by_hand = Autoscale { by_hand: true, ..scale };
        assert_eq!(words(&by_hand), "4 of 2..8 workers, set by hand, until: clusterd scale web auto");
    }
}
