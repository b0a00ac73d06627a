//! `clusterd ls`: the deployments of every master of the home, as a table for people or as JSON for scripts.
use crate::api::types::{App, AppStatus, BeforeState, Deployment, Worker};
use crate::cli::apply::{fail, print};
use crate::cli::client::Master;
use crate::cli::commands::describe::{balance_words, scale_words};
use crate::cli::error::CommandError;
use crate::cli::table::{Paint, Row, Table, Tone};
use crate::cli::target::{Found, Known, gone_app, known};
use crate::cli::units::{cpu_time, size};
use crate::cli::worker_table::worker_table;
use crate::home::Entry;
use crate::os::terminal;
use crate::text::visible;
use clap::Args;
use serde::Serialize;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::process::ExitCode;

/// Show apps and their workers (also: list, status)
#[derive(Args, Clone, Debug, PartialEq)]
#[command(aliases = ["list", "status", "l", "ps"])]
pub struct Ls {
    /// Only these: a name, an id, a namespace, "/a pattern/"
    #[arg(value_name = "TARGET")]
    pub targets: Vec<String>,
    /// As JSON, for scripts
    #[arg(long, conflicts_with = "short")]
    pub json: bool,
    /// A row per app, without the workers
    #[arg(short, long, visible_alias = "mini-list", visible_short_alias = 'm')]
    pub short: bool,
    /// In this order: name, id, status, restarts, cpu, memory, uptime; "memory:desc" turns it
    #[arg(long, value_name = "FIELD", value_parser = Order::read)]
    pub sort: Option<Order>,
}

impl Ls {
    pub(super) fn run(&self, home: Option<&Path>) -> ExitCode {
        let mut known = match known(home) {
            Ok(known) => known,
            Err(error) => return fail(error),
        };
        if let Err(error) = keep(&mut known, &self.targets) {
            return fail(error);
        }
        if let Some(order) = self.sort {
            order.sort(&mut known);
        }
        let text = if self.json {
            for master in &known.masters {
                if let Err(error) = &master.deployment {
                    log::warn!("{}: {error}; it is left out", master.name);
                }
            }
            as_json(&known.masters, &known.dead)
        } else if known.masters.is_empty() && known.dead.is_empty() {
            NOTHING.to_owned()
        } else if self.short {
            short_table(&known, self.sort, terminal::columns(io::stdout()), Paint::of_stdout())
        } else {
            as_tables(&known.masters, &known.dead, Paint::of_stdout())
        };
        let printed = print(&text);
        // What is listed is not everything: a script must not take it for that.
        match known.masters.iter().all(|master| master.deployment.is_ok()) {
            true => printed,
            false => ExitCode::FAILURE,
        }
    }
}

/// Leaves out the apps that no target names.
fn keep(known: &mut Known, targets: &[String]) -> Result<(), CommandError> {
    if targets.is_empty() {
        return Ok(());
    }
    let mut wanted = BTreeSet::new();
    for target in targets {
        wanted.extend(known.find_whole(target)?.into_iter().map(|found| (found.deployment, found.app)));
    }
    let is_wanted = |deployment: &str, app: &str| wanted.contains(&(deployment.to_owned(), app.to_owned()));
    for master in &mut known.masters {
        if let Ok(deployment) = &mut master.deployment {
            deployment.apps.retain(|app| is_wanted(&master.name, &app.name));
        }
    }
    known.masters.retain(|master| master.deployment.as_ref().is_ok_and(|deployment| !deployment.apps.is_empty()));
    for entry in &mut known.dead {
        entry.apps.retain(|app| is_wanted(&entry.name, &app.name));
    }
    known.dead.retain(|entry| !entry.apps.is_empty());
    Ok(())
}

/// The order of `--sort`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Order {
    field: Field,
    descending: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Field {
    Name,
    Id,
    Status,
    Restarts,
    Cpu,
    Memory,
    Uptime,
}

impl Order {
    fn read(text: &str) -> Result<Order, String> {
        let (field, way) = text.split_once(':').unwrap_or((text, "asc"));
        let field = match field {
            "name" => Field::Name,
            "id" | "pm_id" => Field::Id,
            "status" => Field::Status,
            "restarts" | "restart_time" => Field::Restarts,
            "cpu" => Field::Cpu,
            "memory" | "mem" => Field::Memory,
            "uptime" => Field::Uptime,
            _ => return Err("name, id, status, restarts, cpu, memory and uptime are the fields".to_owned()),
        };
        match way {
            "asc" | "desc" => Ok(Order { field, descending: way == "desc" }),
            _ => Err(format!("write {}:asc or {}:desc", text.split(':').next().unwrap_or_default(), "FIELD")),
        }
    }

    fn compare(self, a: Option<&App>, b: Option<&App>) -> Ordering {
        let sum = |app: &App, number: fn(&Worker) -> Option<u64>| app.workers.iter().filter_map(number).sum::<u64>();
        let longest = |app: &App| app.workers.iter().filter_map(|worker| worker.uptime_ms).max();
        let (Some(one), Some(other)) = (a, b) else { return b.is_some().cmp(&a.is_some()) };
        let order = match self.field {
            Field::Name => one.name.cmp(&other.name),
            Field::Id => one.id.cmp(&other.id),
            Field::Status => one.status.as_str().cmp(other.status.as_str()),
            Field::Restarts => one.restarts.cmp(&other.restarts),
            Field::Cpu => sum(one, |w| w.cpu_ms).cmp(&sum(other, |w| w.cpu_ms)),
            Field::Memory => sum(one, |w| w.memory_bytes).cmp(&sum(other, |w| w.memory_bytes)),
            Field::Uptime => longest(one).cmp(&longest(other)),
        };
        if self.descending { order.reverse() } else { order }
    }

    /// Sorts the apps of each deployment, and the deployments by their first app.
    fn sort(self, known: &mut Known) {
        for master in &mut known.masters {
            if let Ok(deployment) = &mut master.deployment {
                deployment.apps.sort_by(|a, b| self.compare(Some(a), Some(b)));
            }
        }
        let first =
            |master: &Master| master.deployment.as_ref().ok().and_then(|deployment| deployment.apps.first().cloned());
        known.masters.sort_by(|a, b| self.compare(first(a).as_ref(), first(b).as_ref()));
    }
}

const NOTHING: &str = "nothing runs here (clusterd -- COMMAND starts something)\n";

// ---- JSON ----

/// A deployment whose keeper is gone, from its entry.
#[derive(Serialize)]
struct Gone<'a> {
    name: &'a str,
    background: bool,
    /// Why nothing more is known.
    problem: &'static str,
    apps: Vec<App>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Listed<'a> {
    There(&'a Deployment),
    Gone(Gone<'a>),
}

fn as_json(masters: &[Master], dead: &[Entry]) -> String {
    let there = masters.iter().filter_map(|m| m.deployment.as_ref().ok()).map(Listed::There);
    let gone = dead.iter().map(|entry| {
        Listed::Gone(Gone {
            name: &entry.name,
            background: entry.background,
            problem: "its keeper was killed",
            apps: entry.apps.iter().map(|app| gone_app(&app.name, Some(app.id))).collect(),
        })
    });
    let mut text = serde_json::to_string_pretty(&there.chain(gone).collect::<Vec<_>>()).unwrap_or_default();
    text.push('\n');
    text
}

// ---- a table for each app ----

fn as_tables(masters: &[Master], dead: &[Entry], paint: Paint) -> String {
    let mut text = String::new();
    for master in masters {
        match &master.deployment {
            // Writing to a String cannot fail.
            Err(error) => drop(writeln!(text, "{}  {error}", master.name)),
            Ok(deployment) => text.push_str(&deployment_tables(deployment, paint)),
        }
    }
    for app in dead.iter().flat_map(|entry| &entry.apps) {
        let gone = paint.apply(AppStatus::Gone.as_str(), AppStatus::Gone.into());
        let _ = writeln!(text, "[{}] {}  {gone}  its keeper was killed: clusterd start {}", app.id, app.name, app.name);
    }
    text
}

fn deployment_tables(deployment: &Deployment, paint: Paint) -> String {
    let mut text = String::new();
    for app in &deployment.apps {
        let whole = if deployment.name == app.name { String::new() } else { format!("{}: ", deployment.name) };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{whole}{}", headline(app, deployment, paint));
        if let Some(scale) = &app.scale {
            let _ = writeln!(text, "  {}", scale_words(app, scale));
        }
        if app.balance_why.is_some() {
            let _ = writeln!(text, "  balance {}", balance_words(app));
        }
        text.push_str(&worker_table(app, paint));
    }
    let _ = match deployment.master_restarts {
        0 => Ok(()),
        1 => writeln!(text, "  the master was started again once"),
        n => writeln!(text, "  the master was started again {n} times"),
    };
    let (keeper, master) = (&deployment.keeper_version, &deployment.version);
    if !keeper.is_empty() && keeper != master {
        let _ = writeln!(text, "  the keeper is of version {keeper}, the master of {master}");
    }
    text
}

/// The status, and what it waits for: other apps, or the command before the workers.
pub(super) fn status_words(app: &App) -> String {
    if !app.waits_for.is_empty() {
        return format!("{} (waits for {})", app.status, app.waits_for.join(", "));
    }
    match app.before.as_ref().map(|before| before.state) {
        Some(BeforeState::Running | BeforeState::Waiting | BeforeState::Stopping) => format!("{} (before)", app.status),
        Some(BeforeState::Done | BeforeState::Failed | BeforeState::Stopped | BeforeState::Unknown) | None => {
            app.status.to_string()
        }
    }
}

fn headline(app: &App, deployment: &Deployment, paint: Paint) -> String {
    let status = paint.apply(&status_words(app), app.status.into());
    let listen =
        if app.listen.is_empty() { "no address".to_owned() } else { visible(&app.listen.join(" ")).into_owned() };
    let id = app.id.map_or_else(String::new, |id| format!("[{id}] "));
    let steering = app.steering.map_or_else(String::new, |how| format!(" ({how})"));
    let spares = match (app.spares_ready, app.spares_wanted) {
        (_, 0) => String::new(),
        (ready, wanted) => format!(" and {ready}/{wanted} spare"),
    };
    format!(
        "{id}{}  {status}  {}/{} ready{spares}  {listen}  {} {}{steering}  generation {}  keeper {}",
        app.name,
        app.workers_ready,
        app.workers_wanted,
        app.protocol,
        app.balance,
        app.generation,
        deployment.keeper_pid
    )
}

// ---- a row for each app ----

const SHORT: Table<9> = Table {
    headings: ["ID", "NAME", "NAMESPACE", "STATUS", "READY", "RESTARTS", "CPU", "MEMORY", "ADDRESS"],
    words: &[1, 2, 3, 8],
    elastic: &[1, 2, 8],
    state: 3,
    indent: 0,
};

/// Includes apps that are gone, or whose master does not answer.
fn short_table(known: &Known, order: Option<Order>, columns: Option<usize>, paint: Paint) -> String {
    let mut all = known.all();
    if let Some(order) = order {
        all.sort_by(|a, b| order.compare(a.view.as_deref(), b.view.as_deref()));
    }
    let mut rows: Vec<Row<9>> = all.iter().map(row).collect();
    rows.extend(known.silent().into_iter().map(|(id, name)| bare_row(id, name, "no answer")));
    SHORT.text(&rows, columns, paint)
}

fn dash() -> String {
    "-".to_owned()
}

fn row(found: &Found) -> Row<9> {
    match &found.view {
        Some(app) => app_row(app),
        None => bare_row(found.id, found.app.clone(), AppStatus::Gone.as_str()),
    }
}

fn app_row(app: &App) -> Row<9> {
    let sum = |number: fn(&Worker) -> Option<u64>| app.workers.iter().filter_map(number).reduce(|a, b| a + b);
    let address = match app.listen.as_slice() {
        [] => dash(),
        [one] => visible(one).into_owned(),
        [first, rest @ ..] => format!("{} +{}", visible(first), rest.len()),
    };
    let cells = [
        app.id.map_or_else(dash, |id| id.to_string()),
        app.name.clone(),
        app.namespace.clone(),
        status_words(app),
        format!("{}/{}", app.workers_ready, app.workers_wanted),
        app.restarts.to_string(),
        sum(|worker| worker.cpu_ms).map_or_else(dash, cpu_time),
        sum(|worker| worker.memory_bytes).map_or_else(dash, size),
        address,
    ];
    Row { cells, tone: app.status.into() }
}

/// An app of which nothing more is known.
fn bare_row(id: Option<u32>, name: String, status: &str) -> Row<9> {
    let id = id.map_or_else(dash, |id| id.to_string());
    let cells = [id, name, dash(), status.to_owned(), dash(), dash(), dash(), dash(), dash()];
    Row { cells, tone: Tone::Bad }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::types::WorkerState;
    use crate::cli::samples;

    fn worker(slot: u32) -> Worker {
        Worker {
            pid: Some(4_000_000),
            state: WorkerState::Draining,
            uptime_ms: Some(86_400_000 * 30),
            restarts: 1234,
            open_handoffs: 64,
            memory_bytes: Some(1_500_000_000),
            cpu_ms: Some(123_456_789),
            loop_delay_ms: Some(999.0),
            ..samples::worker(slot)
        }
    }

    #[test]
    fn rows_of_workers_fit_eighty_columns() {
        let app = samples::app("web", (0..500).map(worker).collect());
        let mut deployment = samples::deployment("web", vec![app]);
        deployment.version = "0.2.0".to_owned();
        deployment.keeper_version = "0.1.0".to_owned();
        let text = deployment_tables(&deployment, Paint::Plain);
        assert_eq!(text.lines().count(), 503);
        assert!(text.ends_with("the keeper is of version 0.1.0, the master of 0.2.0\n"), "{text}");
        assert!(text.lines().skip(1).all(|line| line.len() <= 80), "{text}");
        assert_eq!(as_json(&[], &[]), "[]\n");
    }

    #[test]
    fn a_headline_says_what_an_app_is() {
        let app = samples::app("web", vec![samples::worker(0)]);
        let line = headline(&app, &samples::deployment("web", Vec::new()), Paint::Colours);
        let expected =
            "[0] web  \x1b[32mrunning\x1b[0m  1/1 ready  0.0.0.0:8080  node round-robin  generation 1  keeper 100";
        assert_eq!(line, expected);
    }

    #[test]
    fn rows_of_apps_are_aligned_and_fit_a_terminal() {
        let usual = [
            app_row(&samples::app("web", vec![samples::worker(0), samples::worker(1)])),
            bare_row(Some(7), "api".into(), "gone"),
        ];
        let text = SHORT.text(&usual, Some(80), Paint::Plain);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "ID  NAME  NAMESPACE  STATUS   READY  RESTARTS   CPU  MEMORY  ADDRESS",
                " 0  web   default    running    2/2         0  2.0s    100M  0.0.0.0:8080",
                " 7  api   -          gone         -         -     -       -  -",
            ]
        );
        let coloured = SHORT.text(&usual, None, Paint::Colours);
        assert!(coloured.contains("\x1b[32mrunning\x1b[0m  ") && coloured.contains("\x1b[31mgone   \x1b[0m  "));
    }

    #[test]
    fn long_texts_are_cut_on_a_terminal_and_whole_elsewhere() {
        let mut app = samples::app(&"x".repeat(64), vec![samples::worker(0); 500]);
        app.namespace = "n".repeat(64);
        app.id = Some(1023);
        app.status = AppStatus::Reloading;
        app.restarts = 12_345_678;
        app.listen = vec!["[2001:db8::1234:5678]:65535".to_owned(), "unix:/a".to_owned()];
        let text = SHORT.text(&[app_row(&app)], Some(80), Paint::Plain);
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
        for word in ["xxx~", "nnn~", "500/500", "12345678", "[200"] {
            assert!(text.contains(word), "{word}\n{text}");
        }
        let whole = SHORT.text(&[app_row(&app)], None, Paint::Plain);
        assert!(whole.contains(&app.name) && whole.contains("[2001:db8::1234:5678]:65535 +1"), "{whole}");
    }
}
