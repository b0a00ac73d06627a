//! `clusterd ls`: what every master of the home runs, as a table for people or as JSON for scripts.
use super::client::Master;
use super::target::known;
use crate::home::Entry;
use crate::protocol::control::{App, Deployment, Worker};
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::path::Path;
use std::process::ExitCode;

/// Prints it all.
pub(super) fn list(home: Option<&Path>, json: bool) -> ExitCode {
    let known = match known(home) {
        Ok(known) => known,
        Err(e) => return super::act::fail(&e),
    };
    let text = if json { as_json(&known.masters) } else { as_table(&known.masters, &known.dead, colours()) };
    // A reader that has left (`clusterd ls | head`) is no failure.
    let _ = io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

fn colours() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn as_json(masters: &[Master]) -> String {
    let deployments: Vec<&Deployment> = masters.iter().filter_map(|m| m.deployment.as_ref().ok()).collect();
    let mut text = serde_json::to_string_pretty(&deployments).unwrap_or_default();
    text.push('\n');
    text
}

const HEADINGS: [&str; 10] = ["SLOT", "WORKER", "PID", "STATE", "UP", "RESTARTS", "CPU", "MEMORY", "OPEN", "DELAY"];

fn as_table(masters: &[Master], dead: &[Entry], colours: bool) -> String {
    if masters.is_empty() && dead.is_empty() {
        return "nothing runs here (clusterd -- COMMAND starts something)\n".to_owned();
    }
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
    let rows: Vec<[String; 10]> = app.workers.iter().map(row).collect();
    let widths: Vec<usize> = (0..HEADINGS.len())
        .map(|n| rows.iter().map(|row| row[n].chars().count()).chain([HEADINGS[n].len()]).max().unwrap_or(0))
        .collect();
    line(text, &HEADINGS.map(str::to_owned), &widths, None);
    for (row, worker) in rows.iter().zip(&app.workers) {
        line(text, row, &widths, colours.then(|| colour(&worker.state)).flatten());
    }
}

fn headline(app: &App, deployment: &Deployment, colours: bool) -> String {
    let status = match colour(&app.status).filter(|_| colours) {
        Some(code) => format!("\x1b[{code}m{}\x1b[0m", app.status),
        None => app.status.clone(),
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
    [
        worker.slot.to_string(),
        worker.id.map_or_else(dash, |id| id.to_string()),
        worker.pid.map_or_else(dash, |pid| pid.to_string()),
        worker.state.clone(),
        worker.uptime_ms.map_or_else(dash, short_time),
        worker.restarts.to_string(),
        worker.cpu_ms.map_or_else(dash, |ms| short_number(ms as f64 / 1000.0, "s")),
        worker.memory_bytes.map_or_else(dash, |bytes| short_number(bytes as f64 / 1_048_576.0, "M")),
        worker.open_handoffs.to_string(),
        worker.loop_delay_ms.map_or_else(dash, short_delay),
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
fn colour(state: &str) -> Option<&'static str> {
    match state {
        "ready" | "running" => Some("32"),
        "errored" => Some("31"),
        "starting" | "online" | "waiting" | "draining" | "stopping" | "reloading" => Some("33"),
        _ => None,
    }
}

/// One digit behind the point, or none where the number is long.
fn short_number(number: f64, unit: &str) -> String {
    if number < 1000.0 { format!("{number:.1}{unit}") } else { format!("{number:.0}{unit}") }
}

/// `1ms`, `250ms`, `12s`.
fn short_delay(ms: f64) -> String {
    if ms < 999.5 { format!("{ms:.0}ms") } else { short_time(ms as u64) }
}

/// `5s`, `4m`, `3h`, `2d`: fits a column.
pub(super) fn short_time(ms: u64) -> String {
    let s = ms / 1000;
    match s {
        0..=119 => format!("{s}s"),
        120..=7_199 => format!("{}m", s / 60),
        7_200..=172_799 => format!("{}h", s / 3_600),
        _ => format!("{}d", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(slot: u32) -> Worker {
        Worker {
            slot,
            id: Some(u64::from(slot) + 1),
            pid: Some(4_000_000),
            state: "draining".to_owned(),
            generation: 1,
            uptime_ms: Some(86_400_000 * 30),
            restarts: 1234,
            open_handoffs: 64,
            handoffs: 0,
            steered: None,
            memory_bytes: Some(1_500_000_000),
            cpu_ms: Some(123_456_789),
            loop_delay_ms: Some(999.0),
            note: None,
        }
    }

    #[test]
    fn rows_fit_eighty_columns_and_nothing_is_said_so() {
        let app = App {
            name: "web".to_owned(),
            id: None,
            namespace: "default".to_owned(),
            cwd: "/".to_owned(),
            status: "running".to_owned(),
            command: vec![],
            workers_wanted: 500,
            workers_ready: 500,
            generation: 1,
            balance: "round-robin".to_owned(),
            steering: None,
            protocol: "node".to_owned(),
            listen: vec![],
            restarts: 0,
            handoffs: 0,
            workers: (0..500).map(worker).collect(),
        };
        let deployment = Deployment {
            name: "web".to_owned(),
            version: "0.2.0".to_owned(),
            keeper_pid: 1,
            keeper_version: "0.1.0".to_owned(),
            master_pid: 2,
            master_restarts: 0,
            uptime_ms: 0,
            upgrade: None,
            background: false,
            config: None,
            apps: vec![app],
        };
        let mut text = String::new();
        deployment_table(&mut text, &deployment, false);
        assert_eq!(text.lines().count(), 503);
        assert!(text.ends_with("the keeper is of version 0.1.0, the master of 0.2.0\n"), "{text}");
        assert!(text.lines().skip(1).all(|line| line.len() <= 80), "{text}");
        assert!(as_table(&[], &[], false).contains("nothing runs"));
        assert_eq!(as_json(&[]), "[]\n");
    }
}
