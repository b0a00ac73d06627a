//! `clusterd logs`, `flush` and `reloadLogs`. Files are read here directly; which ones, the masters say.
use super::act::{self, Order};
use super::client;
use super::target::{Found, Known, known};
use crate::api::Request;
use crate::api::request::Target;
use crate::config::log::Log;
use crate::config::log_time;
use crate::config::resolve::resolve;
use crate::ids::Slot;
use crate::limits;
use crate::logs::reading::{Files, Filter, Kind, Reader, Style};
use crate::os::cpu;
use clap::Args;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Options of `logs`, as typed.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct LogsArgs {
    /// A name, an id, a namespace, "/a pattern/" or "all"
    #[arg(default_value = "all", value_name = "TARGET")]
    pub targets: Vec<String>,
    /// So many of the last lines of each file first
    #[arg(long, value_name = "N", default_value_t = limits::LOGS_LINES_DEFAULT)]
    pub lines: usize,
    /// Only what was printed to stderr
    #[arg(long, conflicts_with = "out")]
    pub err: bool,
    /// Only what was printed to stdout
    #[arg(long)]
    pub out: bool,
    /// Only of the worker in this slot (log files of their own, or JSON)
    #[arg(long, value_name = "SLOT")]
    pub worker: Option<u32>,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
    /// The lines as they were printed, with nothing before them
    #[arg(long, conflicts_with = "json")]
    pub raw: bool,
    /// Show when a line was written [default format: YYYY-MM-DDTHH:mm:ss]
    #[arg(long, value_name = "FORMAT", num_args = 0..=1, require_equals = true, default_missing_value = "%Y-%m-%dT%H:%M:%S")]
    #[arg(value_parser = log_time::strftime)]
    pub timestamp: Option<String>,
    /// Mark this word, on a terminal
    #[arg(long, value_name = "WORD")]
    pub highlight: Option<String>,
    /// Only the last lines: do not wait for more
    #[arg(long)]
    pub nostream: bool,
}

/// `flush`.
pub(super) fn flush(home: Option<&Path>, targets: &[String]) -> ExitCode {
    act::each(home, targets, Order::OneByOne, |_, found| {
        act::alive(found)?;
        let done = client::command(&found.socket, &Request::FlushLogs { target: Target::App(found.app.clone()) })?;
        Ok(format!("{}: {done}", found.app))
    })
}

/// `reloadLogs`: of whole deployments.
pub(super) fn reopen(home: Option<&Path>, targets: &[String]) -> ExitCode {
    let seen = RefCell::new(BTreeSet::new());
    act::one_by_one(home, targets, |found| {
        if !seen.borrow_mut().insert(found.deployment.clone()) {
            return Ok(None);
        }
        act::alive(found)?;
        let done = client::command(&found.socket, &Request::ReopenLogs)?;
        Ok(Some(format!("{}: {done}", found.deployment)))
    })
}

/// `logs`.
pub(super) fn logs(home: Option<&Path>, args: &LogsArgs) -> ExitCode {
    let terminal = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let style = Style {
        json: args.json,
        raw: args.raw,
        time: args.timestamp.clone(),
        highlight: args.highlight.clone(),
        colours: terminal,
    };
    let kind = if args.err { Some(Kind::Err) } else { args.out.then_some(Kind::Out) };
    let filter = Filter { kind, slot: args.worker };
    let files = match known(home).and_then(|known| wanted(&known, args, &filter, true)) {
        Ok(files) => files,
        Err(why) => {
            why.lines().for_each(|line| log::error!("{line}"));
            return ExitCode::FAILURE;
        }
    };
    let mut reader = Reader::new(files, style, filter.clone());
    let mut out = BufWriter::new(io::stdout().lock());
    // A reader that has left (`clusterd logs | head`) is no failure.
    if out.write_all(&reader.last(args.lines)).and_then(|()| out.flush()).is_err() || args.nostream {
        return ExitCode::SUCCESS;
    }
    let mut asked = Instant::now();
    loop {
        std::thread::sleep(Duration::from_millis(limits::LOGS_LOOK_MS));
        let mut written = Ok(());
        reader.look(&mut |line| {
            written = out.write_all(line);
            written.is_ok()
        });
        if written.and_then(|()| out.flush()).is_err() {
            return ExitCode::SUCCESS;
        }
        if asked.elapsed() >= Duration::from_millis(limits::LOGS_ASK_MS) {
            asked = Instant::now();
            // Nobody may be there for a moment: what is followed stays.
            if let Ok(files) = known(home).and_then(|known| wanted(&known, args, &filter, false)) {
                reader.take_in(files);
            }
        }
    }
}

/// The files that the arguments ask for. `say`: what has none is told.
fn wanted(known: &Known, args: &LogsArgs, filter: &Filter, say: bool) -> Result<Files, String> {
    let mut files = Files::default();
    let mut without = Vec::new();
    for target in &args.targets {
        for found in known.find(target)? {
            let added =
                where_to(known, &found).and_then(|(log, slots)| files.add_app(&found.app, &log, &slots, filter));
            if let Err(why) = added {
                without.push(format!("{}: {why}", found.app));
            }
        }
    }
    if files.is_empty() {
        return Err(without.join("\n"));
    }
    if say {
        without.iter().for_each(|why| log::warn!("{why}"));
    }
    Ok(files)
}

/// Where an app's output goes, and its slots. One whose keeper is gone is looked up in its entry.
fn where_to(known: &Known, found: &Found) -> Result<(Log, Vec<u32>), String> {
    if let Some(app) = &found.view {
        let mut slots: Vec<u32> = app.workers.iter().map(|worker| worker.slot).collect();
        slots.dedup();
        slots.extend(app.agent.as_ref().map(|_| Slot::AGENT.0));
        return Ok(((&app.log).into(), slots));
    }
    let entry = known.dead.iter().find(|entry| entry.name == found.deployment);
    let sources = entry.and_then(|entry| entry.sources.as_ref()).ok_or("its entry does not say where it wrote to")?;
    let config =
        resolve(sources).map_err(|_| "the configuration that it was started with is not understood any more")?;
    let app = config.apps.into_iter().find(|app| app.name == found.app).ok_or("its configuration does not name it")?;
    let agent = app.agent.as_ref().map(|_| Slot::AGENT.0);
    Ok((app.log, (0..app.workers.count(cpu::available().count)).chain(agent).collect()))
}
