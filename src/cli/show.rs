//! `clusterd describe` and `clusterd env`: everything about one app, for people or as JSON for scripts.
use super::act::fail;
use super::client;
use super::list;
use super::target::{Found, known};
use super::units::short_time;
use crate::api::Request;
use crate::api::request::Role;
use crate::api::types::{App, Environment};
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

/// `describe`.
pub(super) fn describe(home: Option<&Path>, targets: &[String], json: bool) -> ExitCode {
    let known = match known(home) {
        Ok(known) => known,
        Err(e) => return fail(&e),
    };
    let mut failed = false;
    let mut all: Vec<Found> = Vec::new();
    for word in targets {
        match known.find(word) {
            Ok(found) => all.extend(found),
            Err(why) => {
                log::error!("{why}");
                failed = true;
            }
        }
    }
    let text = if json {
        let of = |found: &Found| found.view.as_deref().cloned();
        let apps: Vec<App> =
            all.iter().map(|found| of(found).unwrap_or_else(|| list::gone_app(&found.app, found.id))).collect();
        serde_json::to_string_pretty(&apps).unwrap_or_default() + "\n"
    } else {
        all.iter().map(|found| card(found, &known)).collect::<Vec<_>>().join("\n")
    };
    // A reader that has left is no failure.
    let _ = io::stdout().write_all(text.as_bytes());
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// One app, a line for each thing.
fn card(found: &Found, known: &super::target::Known) -> String {
    let id = found.id.map_or_else(|| "-".to_owned(), |id| id.to_string());
    let Some(app) = &found.view else {
        return format!(
            "{}\n  id           {id}\n  status       gone: its keeper was killed; clusterd start {} starts it again\n",
            found.app, found.app
        );
    };
    let deployment = known.masters.iter().find(|m| m.name == found.deployment).and_then(|m| m.deployment.as_ref().ok());
    let mut rows: Vec<(&str, String)> = vec![
        ("id", id),
        ("namespace", app.namespace.clone()),
        ("status", format!("{}, {} of {} workers ready", app.status, app.workers_ready, app.workers_wanted)),
        ("command", app.command.join(" ")),
        ("folder", app.cwd.clone()),
        ("listens on", if app.listen.is_empty() { "no address".to_owned() } else { app.listen.join(" ") }),
        ("protocol", app.protocol.to_string()),
        ("balance", app.balance.to_string()),
        ("ready by", app.ready.clone()),
        ("generation", app.generation.to_string()),
        ("restarts", app.restarts.to_string()),
        ("hand-offs", app.handoffs.to_string()),
    ];
    if let Some(agent) = &app.agent {
        rows.push(("agent", agent.command.join(" ")));
        rows.push(("", format!("{}, started again {} times", agent.state, agent.restarts)));
    }
    if let Some(deployment) = deployment {
        rows.push(("deployment", deployment.name.clone()));
        rows.push(("runs in the", if deployment.background { "background" } else { "foreground" }.to_owned()));
        rows.extend(deployment.config.iter().map(|path| ("configured by", path.clone())));
        let restarts = deployment.master_restarts;
        let master = format!("pid {}, started again {restarts} times", deployment.master_pid);
        rows.push(("keeper", format!("pid {}, up {}", deployment.keeper_pid, short_time(deployment.uptime_ms))));
        rows.push(("master", master));
        rows.push(("clusterd", deployment.version.clone()));
    }
    let mut text = format!("{}\n", app.name);
    for (label, value) in rows {
        text.push_str(&format!("  {label:<13}{value}\n"));
    }
    text.push('\n');
    list::worker_table(&mut text, app, false);
    for worker in &app.workers {
        let lacks = worker.not_yet.iter().map(|why| format!("  slot {}: not ready yet: {why}\n", worker.slot));
        text.extend(lacks);
    }
    for worker in app.workers.iter().filter(|w| w.note.is_some()) {
        text.push_str(&format!("  slot {}: {}\n", worker.slot, worker.note.as_deref().unwrap_or_default()));
    }
    if let Some(note) = app.agent.as_ref().and_then(|agent| agent.note.as_deref()) {
        text.push_str(&format!("  agent: {note}\n"));
    }
    for worker in app.workers.iter().filter(|w| w.messages_lost > 0) {
        text.push_str(&format!(
            "  slot {}: {} messages lost, as it did not read them\n",
            worker.slot, worker.messages_lost
        ));
    }
    text
}

/// `env`.
pub(super) fn env(home: Option<&Path>, target: &str, agent: bool, json: bool) -> ExitCode {
    let of = if agent { Role::Agent } else { Role::Worker };
    let shown = known(home).and_then(|known| known.find(target)).and_then(|all| match all.as_slice() {
        [found] if found.view.is_none() => Err(format!("{}: its keeper is gone", found.app)),
        [found] => client::get::<Environment>(&found.socket, &Request::Environment { app: found.app.clone(), of }),
        several => {
            let names: Vec<&str> = several.iter().map(|found| found.app.as_str()).collect();
            Err(format!("{target:?} means {}; name one", names.join(", ")))
        }
    });
    let text = match shown {
        Err(why) => return fail(&why),
        Ok(shown) if json => serde_json::to_string_pretty(&shown.env).unwrap_or_default() + "\n",
        Ok(shown) => shown.env.iter().map(|(name, value)| format!("{name}={value}\n")).collect(),
    };
    // A reader that has left is no failure.
    let _ = io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}
