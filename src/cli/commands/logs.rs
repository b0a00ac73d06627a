//! `clusterd logs`: the last lines of log files, then new ones. The files are read here directly; the masters say
//! which.
use crate::cli::error::CommandError;
use crate::cli::target::{Found, Known, known};
use crate::config::log::Log;
use crate::config::log_time;
use crate::config::resolve::resolve;
use crate::ids::Slot;
use crate::limits;
use crate::logs::reading::{Files, Filter, Kind, LOGS_ASK_MS, LOGS_LOOK_MS, NoFiles, Reader, Style};
use crate::os::cpu;
use crate::os::user::{self, Credentials};
use clap::Args;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Show what workers print, and what clusterd itself has logged about them in the
/// background: the last lines of log files, then what comes
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Logs {
    /// A name, an id, a namespace, "/a pattern/" or "all"; one worker: web/1
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
    /// Wait for more lines: the default, as with tail
    #[arg(short, long, conflicts_with = "nostream", hide = true)]
    pub follow: bool,
    /// Only the last lines: do not wait for more
    #[arg(long)]
    pub nostream: bool,
}

/// Shows what apps print from now on, for `--attach` and `attach`; `worker`: only of this slot.
pub(in crate::cli) fn follow(home: Option<&Path>, targets: Vec<String>, worker: Option<u32>) -> ExitCode {
    let shown = Logs {
        targets,
        lines: limits::LOGS_LINES_DEFAULT,
        err: false,
        out: false,
        worker,
        json: false,
        raw: false,
        timestamp: None,
        highlight: None,
        follow: true,
        nostream: false,
    };
    shown.run(home)
}

impl Logs {
    pub(super) fn run(&self, home: Option<&Path>) -> ExitCode {
        let terminal = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let style = Style {
            json: self.json,
            raw: self.raw,
            time: self.timestamp.clone(),
            highlight: self.highlight.clone(),
            colours: terminal,
        };
        let (files, without) = match known(home).and_then(|known| self.files(&known)) {
            Ok(found) => found,
            Err(error) => {
                error.to_string().lines().for_each(|line| log::error!("{line}"));
                return ExitCode::FAILURE;
            }
        };
        without.iter().for_each(|why| log::warn!("{why}"));
        let mut reader = Reader::new(files, style, self.filter());
        let mut out = BufWriter::new(io::stdout().lock());
        // A reader that has left (`clusterd logs | head`) is not an error.
        if out.write_all(&reader.last(self.lines)).and_then(|()| out.flush()).is_err() || self.nostream {
            return ExitCode::SUCCESS;
        }
        self.follow(home, &mut reader, &mut out);
        ExitCode::SUCCESS
    }

    fn filter(&self) -> Filter {
        let kind = if self.err { Some(Kind::Err) } else { self.out.then_some(Kind::Out) };
        Filter { kind, slot: self.worker }
    }

    /// Prints new lines until nobody reads them.
    fn follow(&self, home: Option<&Path>, reader: &mut Reader, out: &mut impl Write) {
        let mut asked = Instant::now();
        loop {
            std::thread::sleep(Duration::from_millis(LOGS_LOOK_MS));
            let mut written = Ok(());
            reader.look(&mut |line| {
                written = out.write_all(line);
                written.is_ok()
            });
            if written.and_then(|()| out.flush()).is_err() {
                return;
            }
            if asked.elapsed() >= Duration::from_millis(LOGS_ASK_MS) {
                asked = Instant::now();
                // No master may be there for a moment: keep the files.
                if let Ok((files, _)) = known(home).and_then(|known| self.files(&known)) {
                    reader.take_in(files);
                }
            }
        }
    }

    /// The requested files; and for apps without files, why.
    fn files(&self, known: &Known) -> Result<(Files, Vec<String>), CommandError> {
        let filter = self.filter();
        let mut files = Files::default();
        let mut without = Vec::new();
        for target in &self.targets {
            for found in known.find(target)? {
                let filter = Filter { slot: found.slot.or(filter.slot), ..filter.clone() };
                let added = place(known, &found)
                    .and_then(|(log, user, slots)| files.add_app(&found.app, &log, user.as_ref(), &slots, &filter));
                if let Err(why) = added {
                    without.push(format!("{}: {why}", found.app));
                }
                if filter == Filter::default() && !self.raw {
                    add_own(known, &found, &mut files);
                }
            }
        }
        if files.is_empty() { Err(CommandError::NoLogs(without.join("\n"))) } else { Ok((files, without)) }
    }
}

/// Adds what clusterd itself logs about an app in the background.
fn add_own(known: &Known, found: &Found, files: &mut Files) {
    if found.background
        && let Ok(path) = known.home.log_path(&found.deployment)
    {
        let beside = known.all().into_iter().filter(|other| other.deployment == found.deployment);
        files.add_own(path, beside.map(|other| other.app).filter(|app| *app != found.app).collect());
    }
}

/// The targets of an app's output, whose rights they are read with, and its slots. For an app whose keeper is gone, from
/// its entry.
fn place(known: &Known, found: &Found) -> Result<(Log, Option<Credentials>, Vec<u32>), NoFiles> {
    // Others than root have their own rights, and no more.
    let is_root = user::own_uid() == 0;
    if let Some(app) = &found.view {
        let mut slots: Vec<u32> = app.workers.iter().map(|worker| worker.slot).collect();
        slots.dedup();
        slots.extend(app.agent.as_ref().map(|_| Slot::AGENT.0));
        slots.extend(app.before.as_ref().map(|_| Slot::BEFORE.0));
        let user = app.user.as_ref().filter(|_| is_root).map(Credentials::from);
        return Ok(((&app.log).into(), user, slots));
    }
    let entry = known.dead.iter().find(|entry| entry.name == found.deployment);
    let sources = entry.and_then(|entry| entry.sources.as_ref()).ok_or(NoFiles::NoSources)?;
    let config = resolve(sources).map_err(|_| NoFiles::Unreadable)?;
    let app = config.apps.into_iter().find(|app| app.name == found.app).ok_or(NoFiles::NoApp)?;
    let beside: Vec<u32> = app.beside().into_iter().map(|slot| slot.0).collect();
    let user = user::resolve(app.user.as_deref(), app.group.as_deref());
    let user = if is_root { user.map_err(NoFiles::User)? } else { None };
    Ok((app.log, user, (0..app.workers.count(cpu::available().count)).chain(beside).collect()))
}
