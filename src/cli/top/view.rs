//! What stands on the screen, as plain text with tones: from the model, for a terminal of this size. Pure. Which colour a
//! tone has is decided in `draw`.
use super::columns::{Column, Kind, columns};
use super::follow::Voice;
use super::model::{Item, Model, Pending, RowKey, Verb};
use super::rates::Rates;
use crate::api::request::StopMode;
use crate::api::types::{App, AppStatus, Worker, WorkerState};
use crate::cli::progress::{Wait, waits_for};
use crate::cli::units::{count, fit, short_delay, short_time, size};
use crate::text::visible;

/// A loop delay that is worth a colour, in milliseconds.
const TOP_DELAY_BUSY_MS: u64 = 100;

/// A loop delay that is worth a louder one, in milliseconds.
const TOP_DELAY_BAD_MS: u64 = 1_000;

/// A terminal with fewer columns sees the time of day of a log's line, not its date.
const TOP_WIDE_COLUMNS: usize = 100;

/// How a text is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Dim,
    Good,
    Busy,
    Bad,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// An app whose workers are shown, or not; a worker.
    pub(super) mark: Mark,
    pub(super) cells: Vec<(String, Tone)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    Open,
    Folded,
    None,
}

/// Everything that is drawn.
#[derive(Debug)]
pub(super) struct Screen {
    pub(super) title: [String; 2],
    pub(super) columns: Vec<Column>,
    pub(super) rows: Vec<Row>,
    /// Which of them is selected.
    pub(super) selected: Option<usize>,
    pub(super) heights: Heights,
    /// Instead of rows.
    pub(super) empty: Option<&'static str>,
    pub(super) detail_title: [String; 2],
    pub(super) detail: Vec<(Tone, String)>,
    pub(super) log_title: String,
    pub(super) log: Vec<(Tone, String)>,
    pub(super) status: Vec<(Tone, String)>,
    pub(super) keys: Vec<(&'static str, &'static str)>,
    pub(super) help: bool,
}

/// Lines of each part; 0: it is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Heights {
    pub(super) table: usize,
    pub(super) detail: usize,
    pub(super) log: usize,
    pub(super) status: usize,
}

/// Title, headings, keys.
const FIXED_LINES: usize = 3;
/// A line above, and two of text.
const DETAIL_LINES: usize = 3;
/// A line above, and some of the log.
const LOG_LINES_MIN: usize = 5;
const TABLE_LINES_MIN: usize = 4;
/// More of what failed is not shown.
const STATUS_LINES_MAX: usize = 8;

/// Rows, details and log share what there is; the log gets a third of it, and what the rows do not need.
fn heights(height: usize, rows: usize, status: usize, log: bool) -> Heights {
    let status = status.clamp(1, STATUS_LINES_MAX).min(height.saturating_sub(FIXED_LINES + 1));
    let rest = height.saturating_sub(FIXED_LINES + status);
    let detail = if rest >= DETAIL_LINES + TABLE_LINES_MIN { DETAIL_LINES } else { 0 };
    let rest = rest - detail;
    let log = match log && rest >= LOG_LINES_MIN + TABLE_LINES_MIN {
        true => LOG_LINES_MIN.max(rest / 3).max(rest.saturating_sub(rows.max(TABLE_LINES_MIN))),
        false => 0,
    };
    Heights { table: rest - log, detail, log, status }
}

/// How many lines each part gets now.
fn room(model: &Model, height: usize) -> Heights {
    heights(height, model.items().len(), status(model).len(), !model.log_hidden)
}

/// Has the selected row among those that are shown on so many lines.
pub(super) fn settle(model: &mut Model, height: usize) {
    let most = heights(height, usize::MAX, status(model).len(), !model.log_hidden).table;
    let room = room(model, height).table;
    model.settle(room, most);
}

/// The screen. `home`: how the home is called; `log_title`: what the log is.
pub(super) fn view(model: &Model, home: &str, log_title: &str, size: (u16, u16), now_ms: u64) -> Screen {
    let (width, height) = (usize::from(size.0), usize::from(size.1));
    let items = model.items();
    let heights = room(model, height);
    let columns = columns(width, items.iter().map(|(_, item)| name_of(item).len()).max().unwrap_or_default());
    let shown = items.iter().skip(model.offset).take(heights.table);
    let rows: Vec<Row> = shown.map(|(_, item)| row(item, &columns, now_ms)).collect();
    let above = format!("{}-{} of {}", model.offset + 1, model.offset + rows.len(), items.len());
    let detail = items.get(model.selected).map(|(key, item)| detail(key, item, now_ms));
    let (title, detail) = detail.unwrap_or_default();
    let log_lines = heights.log.saturating_sub(1);
    let log = model.log.iter().skip(model.log.len().saturating_sub(log_lines));
    Screen {
        title: [format!("clusterd top  {home}"), totals(model)],
        selected: (!items.is_empty()).then(|| model.selected.saturating_sub(model.offset)),
        empty: match (items.is_empty(), model.looked) {
            (false, _) => None,
            (true, false) => Some("looking ..."),
            (true, true) => Some("nothing runs here (clusterd start SCRIPT starts something)"),
        },
        detail_title: [title, if rows.len() < items.len() { above } else { String::new() }],
        columns,
        rows,
        heights,
        detail,
        log_title: log_title.to_owned(),
        log: log.map(|(voice, line)| (spoken(*voice), stamped(line, width))).collect(),
        status: status(model),
        keys: keys(width),
        help: model.help,
    }
}

fn spoken(voice: Voice) -> Tone {
    match voice {
        Voice::Out => Tone::Plain,
        Voice::Err => Tone::Busy,
        Voice::Clusterd => Tone::Dim,
    }
}

fn totals(model: &Model) -> String {
    let (mut apps, mut ready, mut wanted, mut memory) = (model.gone_count(), 0, 0, 0);
    let (mut cpu, mut connections) = (None, None);
    for (app, rates) in model.apps() {
        apps += 1;
        ready += app.workers_ready;
        wanted += app.workers_wanted;
        memory += app.workers.iter().filter_map(|worker| worker.memory_bytes).sum::<u64>();
        cpu = rates.cpu_percent.map_or(cpu, |more| Some(cpu.unwrap_or(0.0) + more));
        connections = rates.connections_per_s.map_or(connections, |more| Some(connections.unwrap_or(0.0) + more));
    }
    let mut text = format!("{apps} {}  {ready}/{wanted} ready", if apps == 1 { "app" } else { "apps" });
    text.extend(cpu.map(|cpu| format!("  CPU {}", percent(cpu))));
    text.push_str(&format!("  {}", size(memory)));
    text.extend(connections.map(|per_s| format!("  {} conn/s", rate(per_s))));
    text
}

// ---- rows ----

fn name_of(item: &Item<'_>) -> String {
    match item {
        Item::App { app, .. } => app.name.clone(),
        Item::Bare { name, .. } => (*name).to_owned(),
        Item::Worker { worker, .. } => worker.pid.map_or_else(|| "no process".to_owned(), |pid| format!("pid {pid}")),
    }
}

fn row(item: &Item<'_>, columns: &[Column], now_ms: u64) -> Row {
    let mark = match item {
        Item::App { open: true, .. } => Mark::Open,
        Item::App { open: false, .. } | Item::Bare { .. } => Mark::Folded,
        Item::Worker { .. } => Mark::None,
    };
    let cells = columns.iter().map(|column| {
        let (text, tone) = match item {
            Item::App { app, master, rates, .. } => {
                let silent = master.silence(now_ms).is_some();
                let (text, tone) = app_cell(column.kind, app, rates);
                match (silent, column.kind) {
                    (false, _) => (text, tone),
                    (true, Kind::Status) => ("no answer".to_owned(), Tone::Bad),
                    (true, _) => (text, Tone::Dim),
                }
            }
            Item::Worker { worker, app, master, rates } => {
                let (text, tone) = worker_cell(column.kind, worker, app, rates);
                (text, if master.silence(now_ms).is_some() { Tone::Dim } else { tone })
            }
            Item::Bare { id, name, master } => {
                let status = match master {
                    None => ("gone", Tone::Bad),
                    Some(master) if master.silence(now_ms).is_some() => ("no answer", Tone::Bad),
                    Some(_) => ("...", Tone::Dim),
                };
                bare_cell(column.kind, *id, name, status)
            }
        };
        (column.fill(&text), tone)
    });
    Row { mark, cells: cells.collect() }
}

fn dash() -> String {
    "-".to_owned()
}

fn app_cell(kind: Kind, app: &App, rates: &Rates) -> (String, Tone) {
    let sum = |of: fn(&Worker) -> Option<u64>| app.workers.iter().filter_map(of).reduce(|a, b| a + b);
    let plain = |text| (text, Tone::Plain);
    match kind {
        Kind::Id => plain(app.id.map_or_else(dash, |id| id.to_string())),
        Kind::Name => plain(app.name.clone()),
        Kind::Status => (app.status.to_string(), app_tone(app.status)),
        Kind::Ready => {
            let tone = if app.workers_ready < app.workers_wanted { Tone::Busy } else { Tone::Plain };
            (format!("{}/{}", app.workers_ready, app.workers_wanted), tone)
        }
        Kind::Cpu => plain(rates.cpu_percent.map_or_else(dash, percent)),
        Kind::Memory => plain(sum(|worker| worker.memory_bytes).map_or_else(dash, size)),
        Kind::Delay => delay(app.workers.iter().filter_map(|worker| worker.loop_delay_ms).reduce(f64::max)),
        Kind::Rate => plain(rates.connections_per_s.map_or_else(dash, rate)),
        Kind::Open => plain(count(app.workers.iter().map(|worker| u64::from(worker.open_handoffs)).sum())),
        Kind::Restarts => plain(count(app.restarts)),
        Kind::Up => plain(app.workers.iter().filter_map(|w| w.uptime_ms).max().map_or_else(dash, short_time)),
        Kind::Where => plain(addresses(app)),
    }
}

fn worker_cell(kind: Kind, worker: &Worker, app: &App, rates: &Rates) -> (String, Tone) {
    let plain = |text| (text, Tone::Plain);
    match kind {
        Kind::Id => (format!("/{}", worker.slot), Tone::Dim),
        Kind::Name => plain(worker.pid.map_or_else(|| "no process".to_owned(), |pid| format!("pid {pid}"))),
        Kind::Status => (worker.state.to_string(), worker_tone(worker.state)),
        Kind::Ready => {
            let tone = if worker.generation == app.generation { Tone::Dim } else { Tone::Busy };
            (format!("gen {}", worker.generation), tone)
        }
        Kind::Cpu => plain(rates.cpu_percent.map_or_else(dash, percent)),
        Kind::Memory => plain(worker.memory_bytes.map_or_else(dash, size)),
        Kind::Delay => delay(worker.loop_delay_ms),
        Kind::Rate => plain(rates.connections_per_s.map_or_else(dash, rate)),
        Kind::Open => plain(count(u64::from(worker.open_handoffs))),
        Kind::Restarts => plain(count(worker.restarts)),
        Kind::Up => plain(worker.uptime_ms.map_or_else(dash, short_time)),
        Kind::Where => (visible(worker.note.as_deref().unwrap_or_default()).into_owned(), Tone::Dim),
    }
}

fn bare_cell(kind: Kind, id: Option<u32>, name: &str, status: (&str, Tone)) -> (String, Tone) {
    match kind {
        Kind::Id => (id.map_or_else(dash, |id| id.to_string()), Tone::Plain),
        Kind::Name => (name.to_owned(), Tone::Plain),
        Kind::Status => (status.0.to_owned(), status.1),
        _ => (dash(), Tone::Dim),
    }
}

fn app_tone(status: AppStatus) -> Tone {
    match status {
        AppStatus::Running => Tone::Good,
        AppStatus::Errored => Tone::Bad,
        AppStatus::Stopped => Tone::Dim,
        AppStatus::Starting | AppStatus::Reloading | AppStatus::Stopping | AppStatus::Gone | AppStatus::Unknown => {
            Tone::Busy
        }
    }
}

fn worker_tone(state: WorkerState) -> Tone {
    match state {
        WorkerState::Ready | WorkerState::Spare => Tone::Good,
        WorkerState::Errored => Tone::Bad,
        WorkerState::Stopped => Tone::Dim,
        WorkerState::Starting
        | WorkerState::Online
        | WorkerState::Draining
        | WorkerState::Stopping
        | WorkerState::Waiting
        | WorkerState::Unknown => Tone::Busy,
    }
}

fn delay(ms: Option<f64>) -> (String, Tone) {
    let tone = match ms {
        Some(ms) if ms >= TOP_DELAY_BAD_MS as f64 => Tone::Bad,
        Some(ms) if ms >= TOP_DELAY_BUSY_MS as f64 => Tone::Busy,
        Some(_) | None => Tone::Plain,
    };
    (ms.map_or_else(dash, short_delay), tone)
}

/// `0.3%`, `12%`, `410k%`: at most five characters.
fn percent(number: f64) -> String {
    match number {
        n if n < 9.95 => format!("{n:.1}%"),
        n if n < 9999.5 => format!("{n:.0}%"),
        n => format!("{:.0}k%", n / 1000.0),
    }
}

fn rate(per_s: f64) -> String {
    if per_s > 0.0 && per_s < 9.95 { format!("{per_s:.1}") } else { count(per_s.round() as u64) }
}

fn addresses(app: &App) -> String {
    if app.listen.is_empty() { "no address".to_owned() } else { visible(&app.listen.join(" ")).into_owned() }
}

// ---- the other parts ----

/// The name of the selected row and two lines about it.
fn detail(key: &RowKey, item: &Item<'_>, now_ms: u64) -> (String, Vec<(Tone, String)>) {
    let plain = |text: String| (Tone::Plain, text);
    let name = &key.app().1;
    match item {
        Item::App { app, master, .. } => {
            let mut first = format!(
                "{}   {} {}   generation {}   namespace {}",
                addresses(app),
                app.protocol,
                app.balance,
                app.generation,
                app.namespace
            );
            if let Some(agent) = &app.agent {
                let pid = agent.pid.map_or_else(String::new, |pid| format!(" (pid {pid})"));
                first.push_str(&format!("   agent {}{pid}", agent.state));
            }
            let second = match master.silence(now_ms) {
                Some(silence) => (Tone::Bad, silence),
                None => (Tone::Dim, app.command.join(" ")),
            };
            (name.clone(), vec![plain(first), second])
        }
        Item::Worker { worker, master, .. } => {
            let id = worker.id.map_or_else(|| "no worker".to_owned(), |id| format!("worker {id}"));
            let mut first = format!(
                "{id}   {}   generation {}   {} connections taken, {} not answered yet",
                worker.state, worker.generation, worker.handoffs, worker.open_handoffs
            );
            first.extend(worker.time_left_ms.map(|ms| format!("   {} left", short_time(ms))));
            let second = match master.silence(now_ms) {
                Some(silence) => (Tone::Bad, silence),
                None => plain(visible(worker.note.as_deref().unwrap_or_default()).into_owned()),
            };
            (format!("{name}/{}", worker.slot), vec![plain(first), second])
        }
        Item::Bare { master: Some(master), .. } => {
            let silence = master.silence(now_ms).unwrap_or_else(|| "its master has not answered yet".to_owned());
            (name.clone(), vec![(Tone::Bad, silence)])
        }
        Item::Bare { master: None, .. } => {
            (name.clone(), vec![(Tone::Bad, "its keeper was killed; s starts it again".to_owned())])
        }
    }
}

/// The question, the commands that run, or the result of the last one.
fn status(model: &Model) -> Vec<(Tone, String)> {
    if let Some(order) = &model.question {
        let app = &order.target.app;
        let text = match order.verb {
            Verb::Restart => format!("restart {app}? Its workers stop, then start again; r would reload (y/n)"),
            _ => format!("stop {app}? (y/n)"),
        };
        return vec![(Tone::Busy, text)];
    }
    if let Some(pending) = model.pending.last() {
        let more = match model.pending.len() - 1 {
            0 => String::new(),
            n => format!(" (and {n} more)"),
        };
        return vec![(Tone::Busy, doing(model, pending) + &more)];
    }
    if let Some(said) = &model.said {
        let tone = if said.ok { Tone::Good } else { Tone::Bad };
        return shortened(&said.text).into_iter().map(|line| (tone, line.to_owned())).collect();
    }
    model.wrong.iter().take(1).map(|why| (Tone::Bad, why.clone())).collect()
}

/// As many lines as there is room for: of a worker's last words, what it printed counts more than where it happened; the
/// first line and the last ones stay.
fn shortened(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    if lines.len() > STATUS_LINES_MAX {
        let is_frame = |line: &str| {
            let said = line.trim_start_matches([' ', '|']);
            said.is_empty() || said == "^" || said.starts_with("at ")
        };
        lines.retain(|line| !is_frame(line));
    }
    if lines.len() > STATUS_LINES_MAX {
        lines.drain(1..=lines.len() - STATUS_LINES_MAX);
    }
    lines
}

/// How far a command has come: `reloading web: 3 of 8 slots have their new worker; ...`.
fn doing(model: &Model, pending: &Pending) -> String {
    let (word, wait) = match pending.verb {
        Verb::Reload => ("reloading", Wait::Reload),
        Verb::Restart => ("restarting", Wait::Ready),
        Verb::Start => ("starting", Wait::Ready),
        Verb::Stop => ("stopping", Wait::End { mode: StopMode::Now }),
        Verb::More | Verb::Less => return format!("scaling {} ...", pending.app.1),
    };
    let name = &pending.app.1;
    match model.find(&pending.app) {
        // The last look at it is from before the command.
        Some((_, app)) if wait == Wait::Reload && app.status != AppStatus::Reloading => format!("{word} {name} ..."),
        Some((seen, app)) => format!("{word} {name}: {}", waits_for(wait, &[app], seen.held.get(name).copied())),
        None => format!("{word} {name} ..."),
    }
}

/// `2026-11-24T10:11:12.123Z` takes a third of a narrow screen: there its time of day is enough.
fn stamped(line: &str, width: usize) -> String {
    let is_stamp = |stamp: &str| {
        let mut all = stamp.chars().zip("dddd-dd-ddTdd:dd:dd".chars());
        stamp.len() == 19 && all.all(|(c, form)| if form == 'd' { c.is_ascii_digit() } else { c == form })
    };
    let (Some(stamp), true) = (line.get(..19), width < TOP_WIDE_COLUMNS) else { return line.to_owned() };
    match line[19..].split_once(' ') {
        Some((_, rest)) if is_stamp(stamp) => format!("{} {rest}", &stamp[11..]),
        Some(_) | None => line.to_owned(),
    }
}

/// The keys of the last line, those that are needed least first.
const KEYS: [(&str, &str); 10] = [
    ("jk", "select"),
    ("g G", "ends"),
    ("Enter", "workers"),
    ("r", "reload"),
    ("R", "restart"),
    ("+-", "scale"),
    ("s", "stop"),
    ("l", "log"),
    ("?", "help"),
    ("q", "quit"),
];

/// Those that fit.
fn keys(width: usize) -> Vec<(&'static str, &'static str)> {
    let length = |keys: &[(&str, &str)]| keys.iter().map(|(key, word)| key.len() + word.len() + 3).sum::<usize>();
    let first = (0..KEYS.len()).find(|&first| length(&KEYS[first..]) <= width).unwrap_or(KEYS.len() - 1);
    KEYS[first..].to_vec()
}

/// A path that starts in the person's own folder, as they write it; its end counts most.
pub(super) fn tilde(path: &str, own: Option<&str>, columns: usize) -> String {
    let inside = own.filter(|own| !own.is_empty()).and_then(|own| path.strip_prefix(own));
    let short = match inside {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("~{rest}"),
        _ => path.to_owned(),
    };
    let length = short.chars().count();
    match length > columns {
        true => "..".chars().chain(short.chars().skip(length + 2 - columns.max(2))).collect(),
        false => fit(&short, columns, '~'),
    }
}
