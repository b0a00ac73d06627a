//! `clusterd ls`: what every master of the home runs, as a table for people or as JSON for scripts.
use super::client::Master;
use super::short;
use super::target::known;
use super::units::{short_delay, short_number, short_time};
use crate::api::types::{Agent, App, AppStatus, Deployment, Worker};
use crate::home::Entry;
use crate::os::terminal;
use serde::Serialize;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::path::Path;
use std::process::ExitCode;

/// Prints it all.
pub(super) fn list(home: Option<&Path>, json: bool, short: bool) -> ExitCode {
    let known = match known(home) {
        Ok(known) => known,
        Err(e) => return super::act::fail(&e),
    };
    let text = if json {
        for master in &known.masters {
            if let Err(why) = &master.deployment {
                log::warn!("{}: {why}; it is left out", master.name);
            }
        }
        as_json(&known.masters, &known.dead)
    } else if known.masters.is_empty() && known.dead.is_empty() {
        NOTHING.to_owned()
    } else if short {
        short::table(&known, terminal::columns(io::stdout()), colours())
    } else {
        as_table(&known.masters, &known.dead, colours())
    };
    // A reader that has left (`clusterd ls | head`) is no failure.
    let _ = io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

const NOTHING: &str = "nothing runs here (clusterd -- COMMAND starts something)\n";

fn colours() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// A deployment whose keeper is gone, as far as its entry tells.
#[derive(Serialize)]
struct Gone<'a> {
    name: &'a str,
    background: bool,
    /// Why there is no more.
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

/// What is known of an app whose keeper is gone.
pub(super) fn gone_app(name: &str, id: Option<u32>) -> App {
    App { name: name.to_owned(), id, status: AppStatus::Gone, ..App::default() }
}

const HEADINGS: [&str; 10] = ["SLOT", "WORKER", "PID", "STATE", "UP", "RESTARTS", "CPU", "MEMORY", "OPEN", "DELAY"];

fn as_table(masters: &[Master], dead: &[Entry], colours: bool) -> String {
    let mut text = String::new();
    for master in masters {
        match &master.deployment {
            // Writing to a String cannot fail.
            Err(why) => drop(writeln!(text, "{}  {why}", master.name)),
            Ok(deployment) => deployment_table(&mut text, deployment, colours),
        }
    }
    for app in dead.iter().flat_map(|entry| &entry.apps) {
        let gone = if colours { "\x1b[31mgone\x1b[0m" } else { "gone" };
        let _ = writeln!(text, "[{}] {}  {gone}  its keeper was killed: clusterd start {}", app.id, app.name, app.name);
    }
    text
}

fn deployment_table(text: &mut String, deployment: &Deployment, colours: bool) {
    for app in &deployment.apps {
        let whole = if deployment.name == app.name { String::new() } else { format!("{}: ", deployment.name) };
        let _ = writeln!(text, "{whole}{}", headline(app, deployment, colours));
        worker_table(text, app, colours);
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
}

/// The workers of an app, a row for each.
pub(super) fn worker_table(text: &mut String, app: &App, colours: bool) {
    let agent = app.agent.as_ref().map(|agent| (agent_row(agent), agent.state.as_str()));
    let workers = app.workers.iter().map(|worker| (row(worker), worker.state.as_str()));
    let (rows, states): (Vec<[String; 10]>, Vec<&str>) = agent.into_iter().chain(workers).unzip();
    let widths: Vec<usize> = (0..HEADINGS.len())
        .map(|n| rows.iter().map(|row| row[n].chars().count()).chain([HEADINGS[n].len()]).max().unwrap_or(0))
        .collect();
    line(text, &HEADINGS.map(str::to_owned), &widths, None);
    for (row, state) in rows.iter().zip(states) {
        line(text, row, &widths, colours.then(|| colour(state)).flatten());
    }
}

fn headline(app: &App, deployment: &Deployment, colours: bool) -> String {
    let status = match colour(app.status.as_str()).filter(|_| colours) {
        Some(code) => format!("\x1b[{code}m{}\x1b[0m", app.status),
        None => app.status.to_string(),
    };
    let listen = if app.listen.is_empty() { "no address".to_owned() } else { app.listen.join(" ") };
    let id = app.id.map_or_else(String::new, |id| format!("[{id}] "));
    let steering = app.steering.as_ref().map_or(String::new(), |how| format!(" ({how})"));
    format!(
        "{id}{}  {status}  {}/{} ready  {listen}  {} {}{steering}  generation {}  keeper {}",
        app.name,
        app.workers_ready,
        app.workers_wanted,
        app.protocol,
        app.balance,
        app.generation,
        deployment.keeper_pid
    )
}

fn row(worker: &Worker) -> [String; 10] {
    let dash = || "-".to_owned();
    let [cpu, memory] = used(worker.cpu_ms, worker.memory_bytes);
    [
        worker.slot.to_string(),
        worker.id.map_or_else(dash, |id| id.to_string()),
        worker.pid.map_or_else(dash, |pid| pid.to_string()),
        worker.state.to_string(),
        worker.uptime_ms.map_or_else(dash, short_time),
        worker.restarts.to_string(),
        cpu,
        memory,
        worker.open_handoffs.to_string(),
        worker.loop_delay_ms.map_or_else(dash, short_delay),
    ]
}

/// CPU time and memory of a process, where they can be read.
fn used(cpu_ms: Option<u64>, memory_bytes: Option<u64>) -> [String; 2] {
    [
        cpu_ms.map(|ms| short_number(ms as f64 / 1000.0, "s")),
        memory_bytes.map(|bytes| short_number(bytes as f64 / 1_048_576.0, "M")),
    ]
    .map(|cell| cell.unwrap_or_else(|| "-".to_owned()))
}

/// The agent, which has no slot and takes no connections.
fn agent_row(agent: &Agent) -> [String; 10] {
    let dash = || "-".to_owned();
    let [cpu, memory] = used(agent.cpu_ms, agent.memory_bytes);
    [
        "agent".to_owned(),
        agent.id.map_or_else(dash, |id| id.to_string()),
        agent.pid.map_or_else(dash, |pid| pid.to_string()),
        agent.state.to_string(),
        agent.uptime_ms.map_or_else(dash, short_time),
        agent.restarts.to_string(),
        cpu,
        memory,
        dash(),
        dash(),
    ]
}

fn line(text: &mut String, cells: &[String; 10], widths: &[usize], colour: Option<&str>) {
    text.push_str("  ");
    for (n, (cell, &width)) in cells.iter().zip(widths).enumerate() {
        let gap = if n == 0 { "" } else { "  " };
        // Words to the left, numbers to the right.
        let padded = if n == 3 { format!("{cell:<width$}") } else { format!("{cell:>width$}") };
        let _ = match colour.filter(|_| n == 3) {
            Some(code) => write!(text, "{gap}\x1b[{code}m{padded}\x1b[0m"),
            None => write!(text, "{gap}{padded}"),
        };
    }
    while text.ends_with(' ') {
        text.pop();
    }
    text.push('\n');
}

/// The terminal's code for a state's colour.
pub(super) fn colour(state: &str) -> Option<&'static str> {
    match state {
        "ready" | "running" => Some("32"),
        "errored" | "gone" | "no answer" => Some("31"),
        "starting" | "online" | "waiting" | "draining" | "stopping" | "reloading" => Some("33"),
        _ => None,
    }
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
    fn rows_fit_eighty_columns() {
        let app = samples::app("web", (0..500).map(worker).collect());
        let mut deployment = samples::deployment("web", vec![app]);
        deployment.version = "0.2.0".to_owned();
        deployment.keeper_version = "0.1.0".to_owned();
        let mut text = String::new();
        deployment_table(&mut text, &deployment, false);
        assert_eq!(text.lines().count(), 503);
        assert!(text.ends_with("the keeper is of version 0.1.0, the master of 0.2.0\n"), "{text}");
        assert!(text.lines().skip(1).all(|line| line.len() <= 80), "{text}");
        assert_eq!(as_json(&[], &[]), "[]\n");
    }
}
