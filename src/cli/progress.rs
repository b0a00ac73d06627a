//! Shows what a command waits for, once it takes longer than a second: as one line that is rewritten on a terminal, as
//! a line from time to time elsewhere. Each verb does its own waiting.
use super::connections;
use crate::api::request::StopMode;
use crate::api::types::{App, AppStatus, BeforeState, Deployment, Worker, WorkerState};
use crate::os::terminal;
use crate::text::visible;
use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Progress is shown after this time, in milliseconds.
const PROGRESS_AFTER_MS: u64 = 1_000;

/// Interval for rewriting the line on a terminal, in milliseconds.
const PROGRESS_LINE_EVERY_MS: u64 = 1_000;

/// Interval for lines without a terminal, in milliseconds.
const PROGRESS_LOG_EVERY_MS: u64 = 10_000;

/// Assumed width of a terminal that does not tell.
const COLUMNS_UNKNOWN: usize = 80;

/// What a command waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Every worker of an app is ready, or the first has failed.
    Ready,
    /// A reload has ended.
    Reload,
    /// Nothing is left.
    End { mode: StopMode },
    /// Something that the API does not show; the verb has the words.
    Other,
}

/// An app (or deployment) that a command waits for. Dropping it removes its line.
#[derive(Debug)]
pub(super) struct Progress {
    name: String,
    wait: Wait,
    since: Instant,
    told: Option<Instant>,
    ticket: u64,
    on_terminal: bool,
    /// Of a reload: (app, slot) to the generation that last served there.
    slots: BTreeMap<(String, u32), u32>,
    /// Of a reload: nothing of it has been seen yet. Until then every slot has the newest generation that there is.
    is_ahead: bool,
}

impl Progress {
    /// `name`: of the app, or of the deployment.
    pub(super) fn new(wait: Wait, name: &str) -> Progress {
        Progress {
            name: name.to_owned(),
            wait,
            since: Instant::now(),
            told: None,
            ticket: board().ticket(),
            on_terminal: io::stderr().is_terminal(),
            slots: BTreeMap::new(),
            is_ahead: false,
        }
    }

    /// For a reload of one app in this state: reports slots as they get their new worker.
    pub(super) fn of_reload(before: &Deployment, app: &str) -> Progress {
        let apps = before.apps.iter().filter(|a| a.name == app);
        let mut progress = Progress::new(Wait::Reload, app);
        progress.slots =
            apps.flat_map(|a| a.workers.iter().map(|w| ((a.name.clone(), w.slot), w.generation))).collect();
        progress.is_ahead = true;
        progress
    }

    /// Updates from a view of the deployment, or from the reason for a missing answer.
    pub(super) fn look(&mut self, news: Result<&Deployment, &str>) {
        if let Ok(now) = news {
            self.note(now);
        }
        let is_ahead = self.is_ahead;
        self.say(|wait, name| match news {
            Ok(_) if is_ahead => "its reload has not begun yet".to_owned(),
            Ok(now) => {
                let apps: Vec<&App> = meant(now, name).collect();
                waits_for(wait, &apps, connections::held_by_draining(apps.iter().copied()))
            }
            Err(why) => format!("its master: {why}"),
        });
    }

    fn note(&mut self, now: &Deployment) {
        let moved = self.show_slots(now);
        let reloads = meant(now, &self.name).any(|app| app.status == AppStatus::Reloading);
        self.is_ahead &= !moved && !reloads;
    }

    /// Shows these words, if an update is due.
    pub(super) fn tell(&mut self, words: &str) {
        self.say(|_, _| words.to_owned());
    }

    fn say(&mut self, words: impl FnOnce(Wait, &str) -> String) {
        let every_ms = if self.on_terminal { PROGRESS_LINE_EVERY_MS } else { PROGRESS_LOG_EVERY_MS };
        let now = Instant::now();
        if !log::log_enabled!(log::Level::Info) || !is_due(self.since, self.told, now, every_ms) {
            return;
        }
        self.told = Some(now);
        let line = format!("{}: {}", self.name, words(self.wait, &self.name));
        if self.on_terminal {
            board().set(self.ticket, Some(line), now);
        } else {
            log::info!("{line}");
        }
    }

    /// Shows which slots have a new worker since the last look; whether there was one.
    fn show_slots(&mut self, now: &Deployment) -> bool {
        let mut any = false;
        for app in &now.apps {
            for worker in app.workers.iter().filter(|w| is_up(w)) {
                let Some(seen) = self.slots.get_mut(&(app.name.clone(), worker.slot)) else { continue };
                if worker.generation > *seen {
                    *seen = worker.generation;
                    any = true;
                    let id = worker.id.unwrap_or_default();
                    log::info!("{}/{}: worker {id} of generation {} serves", app.name, worker.slot, worker.generation);
                }
            }
        }
        any
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        board().set(self.ticket, None, Instant::now());
    }
}

/// The app of this name, or all of the deployment of this name.
fn meant<'a>(now: &'a Deployment, name: &str) -> impl Iterator<Item = &'a App> {
    now.apps.iter().filter(move |app| app.name == name || now.name == name)
}

/// Whether an update is due: not in the first moment, and not too often.
fn is_due(since: Instant, told: Option<Instant>, now: Instant, every_ms: u64) -> bool {
    match told {
        None => now.duration_since(since) >= Duration::from_millis(PROGRESS_AFTER_MS),
        Some(told) => now.duration_since(told) >= Duration::from_millis(every_ms),
    }
}

// ---- words ----

/// What these apps still wait for. `open`: the connections of their draining workers, if known.
pub(super) fn waits_for(wait: Wait, apps: &[&App], open: Option<usize>) -> String {
    let workers: Vec<&Worker> = apps.iter().flat_map(|app| &app.workers).collect();
    let mut phrases = Vec::new();
    match wait {
        Wait::Ready => {
            let ready: u32 = apps.iter().map(|app| app.workers_ready).sum();
            let wanted: u32 = apps.iter().map(|app| app.workers_wanted).sum();
            phrases.push(format!("{ready} of {wanted} workers ready"));
        }
        Wait::Reload => phrases.extend(apps.iter().map(|app| reloaded(app))),
        Wait::End { .. } | Wait::Other => {}
    }
    if wait == Wait::Reload {
        phrases.extend(counted(
            &workers,
            &[WorkerState::Starting, WorkerState::Online],
            ["worker starts", "workers start"],
        ));
    }
    phrases.extend(apps.iter().filter_map(|app| before(app)));
    phrases.extend(lacks(&workers));
    phrases.extend(counted(
        &workers,
        &[WorkerState::Waiting],
        ["slot waits for its next try", "slots wait for their next try"],
    ));
    let drain = counted(&workers, &[WorkerState::Draining], ["worker drains", "workers drain"]);
    let drains = drain.is_some();
    phrases.extend(drain.map(|words| words + &open_connections(open)));
    phrases.extend(counted(&workers, &[WorkerState::Stopping], ["worker ends", "workers end"]));
    let busy = |worker: &&&Worker| !is_up(worker);
    let most_ms = workers.iter().filter(busy).filter_map(|worker| worker.time_left_ms).max();
    phrases.extend(most_ms.map(|ms| format!("up to {}", span(ms))));
    let text = if phrases.is_empty() { "it is about to be done".to_owned() } else { phrases.join("; ") };
    if drains && wait == (Wait::End { mode: StopMode::Drain }) { text + " (--now ends at once)" } else { text }
}

/// The command before the workers, while it is what they wait for.
fn before(app: &App) -> Option<String> {
    let before = app.before.as_ref()?;
    match before.state {
        BeforeState::Running | BeforeState::Stopping => {
            Some(format!("{} runs before the workers", visible(&before.command.join(" "))))
        }
        BeforeState::Waiting => Some("the command before the workers waits for its next try".to_owned()),
        BeforeState::Done | BeforeState::Failed | BeforeState::Stopped | BeforeState::Unknown => None,
    }
}

/// The progress of a reload: `3 of 8 slots have their new worker`.
fn reloaded(app: &App) -> String {
    let newest = app.workers.iter().map(|worker| worker.generation).max().unwrap_or_default();
    let is_new = |worker: &&Worker| is_up(worker) && worker.generation == newest;
    let all_old = newest <= app.generation && app.workers.iter().all(|worker| worker.generation == newest);
    let new = if all_old && app.status == AppStatus::Reloading { 0 } else { app.workers.iter().filter(is_new).count() };
    format!("{new} of {} slots have their new worker", app.workers_wanted + app.spares_wanted)
}

/// Whether a worker has started.
fn is_up(worker: &Worker) -> bool {
    matches!(worker.state, WorkerState::Ready | WorkerState::Spare)
}

/// Why the first worker that is not ready is not: `slot 0: GET /healthz was answered with 503`.
fn lacks(workers: &[&Worker]) -> Option<String> {
    workers.iter().find_map(|worker| Some(format!("slot {}: {}", worker.slot, worker.not_yet.as_ref()?)))
}

fn counted(workers: &[&Worker], states: &[WorkerState], words: [&str; 2]) -> Option<String> {
    let count = workers.iter().filter(|worker| states.contains(&worker.state)).count();
    (count > 0).then(|| format!("{count} {}", words[usize::from(count != 1)]))
}

fn open_connections(open: Option<usize>) -> String {
    match open {
        None => String::new(),
        Some(1) => ", 1 connection open".to_owned(),
        Some(n) => format!(", {n} connections open"),
    }
}

/// `28 s`, `4 m 12 s`: rounded up, so that the wait is never longer than announced.
pub(super) fn span(ms: u64) -> String {
    match ms.div_ceil(1000) {
        s @ 0..=119 => format!("{s} s"),
        s @ 120..=3_599 => format!("{} m {} s", s / 60, s % 60),
        s => format!("{} h {} m", s / 3_600, s % 3_600 / 60),
    }
}

// ---- the line on the terminal ----

/// The line that is rewritten, shared by all waiting commands.
#[derive(Debug)]
struct Board {
    next_ticket: u64,
    lines: BTreeMap<u64, String>,
    drawn: Option<Instant>,
    /// Current width of the line; 0: no line.
    columns: usize,
}

static BOARD: Mutex<Board> = Mutex::new(Board { next_ticket: 0, lines: BTreeMap::new(), drawn: None, columns: 0 });

fn board() -> MutexGuard<'static, Board> {
    BOARD.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Board {
    fn ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        self.next_ticket
    }

    fn set(&mut self, ticket: u64, line: Option<String>, now: Instant) {
        match line {
            Some(line) => drop(self.lines.insert(ticket, line)),
            None if self.lines.remove(&ticket).is_none() => return,
            None => {}
        }
        let last = self.lines.is_empty();
        let rest = Duration::from_millis(PROGRESS_LINE_EVERY_MS);
        if !last && self.drawn.is_some_and(|at| now.duration_since(at) < rest) {
            return;
        }
        self.drawn = Some(now);
        let text = self.blank() + &self.draw(terminal::columns(io::stderr()).unwrap_or(COLUMNS_UNKNOWN));
        // A terminal that is gone needs no line.
        let _ = io::stderr().write_all(text.as_bytes());
    }

    /// Removes the line.
    fn blank(&mut self) -> String {
        match std::mem::take(&mut self.columns) {
            0 => String::new(),
            n => format!("\r{:n$}\r", ""),
        }
    }

    /// The line, cut to the terminal's width: a wrapped line cannot be rewritten.
    fn draw(&mut self, columns: usize) -> String {
        let Some(first) = self.lines.values().next() else { return String::new() };
        let more = match self.lines.len() - 1 {
            0 => String::new(),
            n => format!(" (and {n} more)"),
        };
        let room = columns.saturating_sub(1 + more.len());
        let mut text: String = first.chars().filter(|c| !c.is_control()).take(room).collect();
        text.push_str(&more);
        self.columns = text.chars().count();
        text
    }
}

/// To be written before a message on stderr, so that the message starts on a line of its own.
pub(super) fn make_room() -> String {
    board().blank()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::samples;

    fn worker(state: WorkerState, generation: u32) -> Worker {
        Worker { state, generation, ..samples::worker(0) }
    }

    fn draining(left_ms: u64) -> Worker {
        Worker { time_left_ms: Some(left_ms), ..worker(WorkerState::Draining, 1) }
    }

    fn words(wait: Wait, status: AppStatus, open: Option<usize>, workers: Vec<Worker>) -> String {
        let ready = workers.iter().filter(|w| w.state == WorkerState::Ready).count() as u32;
        let app = App { status, workers_ready: ready, workers_wanted: 3, ..samples::app("web", workers) };
        waits_for(wait, &[&app], open)
    }

    #[test]
    fn a_stop_says_what_drains_and_how_long_that_may_take() {
        let two = vec![draining(27_400), draining(3_000)];
        let said = words(Wait::End { mode: StopMode::Drain }, AppStatus::Stopping, Some(3), two);
        assert_eq!(said, "2 workers drain, 3 connections open; up to 28 s (--now ends at once)");
        let killed = Worker { time_left_ms: Some(900), ..worker(WorkerState::Stopping, 1) };
        assert_eq!(
            words(Wait::End { mode: StopMode::Now }, AppStatus::Stopping, None, vec![killed]),
            "1 worker ends; up to 1 s"
        );
        assert_eq!(
            words(Wait::End { mode: StopMode::Drain }, AppStatus::Stopped, None, vec![]),
            "it is about to be done"
        );
        let unknown = words(Wait::End { mode: StopMode::Drain }, AppStatus::Stopping, None, vec![draining(5_000)]);
        assert_eq!(unknown, "1 worker drains; up to 5 s (--now ends at once)");
    }

    #[test]
    fn a_start_counts_who_is_ready() {
        let starting = Worker { time_left_ms: Some(30_000), ..worker(WorkerState::Starting, 1) };
        let some = vec![
            worker(WorkerState::Ready, 1),
            starting,
            Worker { time_left_ms: Some(400), ..worker(WorkerState::Waiting, 1) },
        ];
        let said = words(Wait::Ready, AppStatus::Starting, None, some);
        assert_eq!(said, "1 of 3 workers ready; 1 slot waits for its next try; up to 30 s");
        let asked =
            Worker { not_yet: Some("GET / was answered with 503".to_owned()), ..worker(WorkerState::Online, 1) };
        let said =
            words(Wait::Ready, AppStatus::Starting, None, vec![worker(WorkerState::Ready, 1), asked.clone(), asked]);
        assert_eq!(said, "1 of 3 workers ready; slot 0: GET / was answered with 503");
    }

    #[test]
    fn a_reload_counts_slots_and_says_who_leaves() {
        let begun = words(
            Wait::Reload,
            AppStatus::Reloading,
            None,
            vec![worker(WorkerState::Ready, 1), worker(WorkerState::Ready, 1), worker(WorkerState::Ready, 1)],
        );
        assert_eq!(begun, "0 of 3 slots have their new worker");
        let first = vec![
            worker(WorkerState::Ready, 1),
            worker(WorkerState::Ready, 1),
            worker(WorkerState::Ready, 1),
            worker(WorkerState::Online, 2),
        ];
        let said = words(Wait::Reload, AppStatus::Reloading, None, first);
        assert_eq!(said, "0 of 3 slots have their new worker; 1 worker starts");
        let halfway = vec![worker(WorkerState::Ready, 2), worker(WorkerState::Ready, 1), draining(60_000 * 3)];
        let said = words(Wait::Reload, AppStatus::Reloading, Some(1), halfway);
        assert_eq!(said, "1 of 3 slots have their new worker; 1 worker drains, 1 connection open; up to 3 m 0 s");
    }

    #[test]
    fn a_reload_is_ahead_until_the_master_has_begun_it() {
        let deployment = |status, generation| {
            let workers = vec![worker(WorkerState::Ready, generation)];
            samples::deployment("web", vec![App { status, ..samples::app("web", workers) }])
        };
        for (status, generation) in [(AppStatus::Reloading, 1), (AppStatus::Running, 2)] {
            let mut progress = Progress::of_reload(&deployment(AppStatus::Running, 1), "web");
            progress.note(&deployment(AppStatus::Running, 1));
            assert!(progress.is_ahead);
            progress.note(&deployment(status, generation));
            assert!(!progress.is_ahead, "{status}");
        }
    }

    #[test]
    fn nothing_is_said_in_the_first_second_and_then_not_too_often() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert!(!is_due(start, None, at(PROGRESS_AFTER_MS - 1), 10_000));
        assert!(is_due(start, None, at(PROGRESS_AFTER_MS), 10_000));
        assert!(!is_due(start, Some(at(1_000)), at(10_999), 10_000));
        assert!(is_due(start, Some(at(1_000)), at(11_000), 10_000));
    }

    #[test]
    fn the_line_never_wraps_and_goes_away_whole() {
        let mut board = Board { next_ticket: 0, lines: BTreeMap::new(), drawn: None, columns: 0 };
        assert_eq!(board.blank() + &board.draw(80), "");
        board.lines.insert(1, format!("web: {}", "x".repeat(100)));
        let drawn = board.draw(80);
        assert_eq!(drawn.chars().count(), 79);
        assert_eq!(board.blank(), format!("\r{}\r", " ".repeat(79)));
        assert_eq!(board.blank(), "");
        board.lines.insert(2, "api: y".to_owned());
        assert!(board.draw(40).ends_with("x (and 1 more)"));
    }
}
