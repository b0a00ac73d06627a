//! `clusterd logs`, `flush` and `reloadLogs`. Files are read here directly; which ones, the masters say.
mod follow;
mod show;

use super::act::{self, Order};
use super::client;
use super::target::{Found, Known, known};
use crate::config::log::slot_path;
use crate::config::log_time;
use crate::config::resolve::resolve;
use crate::ids::Slot;
use crate::limits;
use crate::os::{clock, cpu};
use crate::protocol::control::Log;
use clap::Args;
use follow::Follow;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use show::{Line, Origin, Style};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

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
        let done = client::command(&found.socket, &format!("/v1/apps/{}/logs/flush", found.app), Vec::new())?;
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
        let done = client::command(&found.socket, "/v1/logs/reopen", Vec::new())?;
        Ok(Some(format!("{}: {done}", found.deployment)))
    })
}

/// One file that is shown.
struct Shown {
    origin: Origin,
    follow: Follow,
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
        kind: if args.err { Some("err") } else { args.out.then_some("out") },
        slot: args.worker,
    };
    let files = match known(home).and_then(|known| wanted(&known, args, true)) {
        Ok(files) => files,
        Err(why) => {
            log::error!("{why}");
            return ExitCode::FAILURE;
        }
    };
    let mut shown: Vec<Shown> =
        files.into_iter().map(|(origin, path)| Shown { origin, follow: Follow::new(path) }).collect();
    let (zone, began) = (TimeZone::system(), clock::wall());
    let mut out = io::stdout().lock();
    // A reader that has left (`clusterd logs | head`) is no failure.
    if show_last(&shown, args.lines, &style, &zone, &mut out).is_err() || args.nostream {
        return ExitCode::SUCCESS;
    }
    let mut asked = Instant::now();
    loop {
        std::thread::sleep(Duration::from_millis(limits::LOGS_LOOK_MS));
        for Shown { origin, follow } in &mut shown {
            let mut written = Ok(());
            follow.look(&mut |line| {
                let line = show::parse(line, origin, &zone);
                if style.wants(&line, origin) && written.is_ok() {
                    written = out.write_all(&style.show(&line, origin, Some(Timestamp::now()), &zone));
                }
            });
            if written.and_then(|()| out.flush()).is_err() {
                return ExitCode::SUCCESS;
            }
        }
        if asked.elapsed() >= Duration::from_millis(limits::LOGS_ASK_MS) {
            asked = Instant::now();
            take_in_new(&mut shown, home, args, began);
        }
    }
}

/// Files that were not there before: a new worker's, a new app's, or those of a changed configuration.
fn take_in_new(shown: &mut Vec<Shown>, home: Option<&Path>, args: &LogsArgs, began: SystemTime) {
    let Ok(files) = known(home).and_then(|known| wanted(&known, args, false)) else { return };
    for (origin, path) in files {
        match shown.iter_mut().find(|shown| shown.follow.path() == path) {
            Some(known) => known.origin = origin,
            None => shown.push(Shown { origin, follow: Follow::since(path, began) }),
        }
    }
}

/// The last lines of every file, in the order of their times as far as these are known; else file by file, the one
/// that was written last at the end.
fn show_last(shown: &[Shown], count: usize, style: &Style, zone: &TimeZone, out: &mut impl Write) -> io::Result<()> {
    let mut all: Vec<(Option<Timestamp>, Line, &Origin)> = Vec::new();
    for Shown { origin, follow } in shown {
        let (lines, written) = follow.last_lines(count);
        let written = written.and_then(|time| Timestamp::try_from(time).ok());
        let lines: Vec<Line> = lines.iter().map(|line| show::parse(line, origin, zone)).collect();
        // A line without a time belongs to the one before it.
        let mut time = lines.iter().find_map(|line| line.time).or(written);
        for line in lines.into_iter().filter(|line| style.wants(line, origin)) {
            time = line.time.or(time);
            all.push((time, line, origin));
        }
    }
    all.sort_by_key(|(time, ..)| *time);
    for (_, line, origin) in &all {
        out.write_all(&style.show(line, origin, None, zone))?;
    }
    out.flush()
}

/// The files that the arguments ask for. `say`: what has none is told.
fn wanted(known: &Known, args: &LogsArgs, say: bool) -> Result<Vec<(Origin, PathBuf)>, String> {
    let mut files: Vec<(Origin, PathBuf)> = Vec::new();
    let mut without = Vec::new();
    for target in &args.targets {
        for found in known.find(target)? {
            let of_app = where_to(known, &found).and_then(|(log, slots)| files_of(&found.app, &log, &slots, args));
            match of_app {
                Ok(of_app) => of_app.into_iter().for_each(|file| add(&mut files, file)),
                Err(why) => without.push(format!("{}: {why}", found.app)),
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
        return Ok((app.log.clone(), slots));
    }
    let entry = known.dead.iter().find(|entry| entry.name == found.deployment);
    let sources = entry.and_then(|entry| entry.sources.as_ref()).ok_or("its entry does not say where it wrote to")?;
    let config =
        resolve(sources).map_err(|_| "the configuration that it was started with is not understood any more")?;
    let app = config.apps.into_iter().find(|app| app.name == found.app).ok_or("its configuration does not name it")?;
    let agent = app.agent.as_ref().map(|_| Slot::AGENT.0);
    Ok((app.log.view(), (0..app.workers.count(cpu::available().count)).chain(agent).collect()))
}

/// Adds a file. Several apps may write to it, or several targets mean it.
fn add(files: &mut Vec<(Origin, PathBuf)>, (origin, path): (Origin, PathBuf)) {
    match files.iter_mut().find(|(_, known)| *known == path) {
        None => files.push((origin, path)),
        Some((known, _)) => {
            known.kind = known.kind.filter(|kind| origin.kind == Some(kind));
            let new: Vec<String> = origin.apps.into_iter().filter(|app| !known.apps.contains(app)).collect();
            known.apps.extend(new);
        }
    }
}

/// The files of one app, or why there are none to show.
fn files_of(name: &str, log: &Log, slots: &[u32], args: &LogsArgs) -> Result<Vec<(Origin, PathBuf)>, String> {
    let path = |typed: &Option<String>| typed.as_ref().filter(|path| *path != "NULL").map(PathBuf::from);
    let (out, err) = (path(&log.out), path(&log.err));
    let json = log.format == "json";
    let origin = |kind| Origin { apps: vec![name.to_owned()], slot: None, kind, json, time: log.time.clone() };
    let one = out.is_some() && out == err;
    if one && !json && (args.out || args.err) {
        return Err(
            "stdout and stderr go to one file, whose lines do not say which they are; give them two files, or \
                    format = \"json\""
                .to_owned(),
        );
    }
    if args.worker.is_some() && !json && !log.per_worker {
        return Err("its lines do not say which worker they are of; set per_worker = true or format = \"json\" in \
                    [app.log]"
            .to_owned());
    }
    let streams = if one {
        vec![(origin(None), out)]
    } else {
        let out = (origin(Some("out")), out.filter(|_| !args.err));
        vec![out, (origin(Some("err")), err.filter(|_| !args.out))]
    };
    let mut files = Vec::new();
    for (origin, path) in streams {
        let Some(path) = path else { continue };
        if !log.per_worker {
            files.push((origin, path));
            continue;
        }
        for &slot in slots.iter().filter(|slot| args.worker.is_none_or(|wanted| wanted == **slot)) {
            files.push((Origin { slot: Some(slot), ..origin.clone() }, slot_path(&path, slot)));
        }
    }
    if files.is_empty() {
        let why = if log.out.is_none() || log.err.is_none() {
            "its output goes to the terminal (or wherever) that clusterd was started from, not to a file; [app.log] \
             makes one"
        } else {
            "what it prints there is not kept (NULL in [app.log]), or it has no such worker"
        };
        return Err(why.to_owned());
    }
    Ok(files)
}
