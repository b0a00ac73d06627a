//! Metrics that apps have of their own, added up over the workers of each app for `GET /metrics`: answers of `prom-client`,
//! which the master's loop passes on, and files of Python's `prometheus_client`. All of it is read and added up here, on a
//! thread of the API; what a worker says is bounded and checked, because it may lie.
//!
//! `series` has the one form of all, `prom_client` and `files` read theirs, `sums` adds up, `text` writes.
mod files;
mod prom_client;
mod series;
mod sums;
mod text;

pub(super) use sums::AppMetrics;
pub(super) use text::write;

use crate::limits::{APP_METRICS_ASKED_MAX, APP_METRICS_WAIT_MS};
use crate::os::user::Credentials;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::mpsc;

/// Passes answers of workers from the master's loop; never waits.
#[derive(Clone, Debug)]
pub struct AnswerSender(mpsc::Sender<Answered>);

/// A worker (by id) and its line; `None`: the line was too long, or the worker has ended.
type Answered = (u64, Option<Box<[u8]>>);

/// Answers of workers as they come.
pub(super) struct Answers(mpsc::Receiver<Answered>);

pub(super) fn channel() -> (AnswerSender, Answers) {
    // Each worker that is asked answers once.
    let (sender, receiver) = mpsc::channel(APP_METRICS_ASKED_MAX);
    (AnswerSender(sender), Answers(receiver))
}

impl AnswerSender {
    /// For answers that nobody waits for.
    pub fn unheard() -> AnswerSender {
        channel().0
    }

    pub fn pass(&self, worker: u64, line: Option<Box<[u8]>>) {
        // The client may have left.
        let _ = self.0.try_send((worker, line));
    }

    /// Nobody waits for answers any more.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

/// Where the metrics of an app come from.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its name.
    pub app: String,
    pub found: Sources,
}

#[derive(Clone, Debug)]
pub enum Sources {
    /// These of the living workers (by id) were asked, so many others were not: they have left earlier questions open.
    Workers {
        living: BTreeSet<u64>,
        asked: Vec<u64>,
        not_asked: u64,
    },
    Folder(Folder),
}

/// Folders with files of Python's `prometheus_client`.
#[derive(Clone, Debug)]
pub struct Folder {
    pub place: Place,
    /// Whose rights apply; `None`: our own.
    pub who: Option<Credentials>,
}

#[derive(Clone, Debug)]
pub enum Place {
    /// As the user set it. Nothing in it is changed.
    Typed(PathBuf),
    /// Below `base`, with names that begin with `prefix` and end with a generation. Those of generations without workers
    /// are over.
    Made { base: PathBuf, prefix: String, living: BTreeSet<u32> },
}

/// Everything that was gathered for one scrape.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    sources: Vec<Source>,
    lines: BTreeMap<u64, Box<[u8]>>,
}

impl Gathered {
    /// Waits until every worker that was asked has answered, for a bounded time.
    pub(super) async fn of(sources: Vec<Source>, mut answers: Answers) -> Gathered {
        let asked = |source: &Source| match &source.found {
            Sources::Workers { asked, .. } => asked.len(),
            Sources::Folder(_) => 0,
        };
        let mut open: usize = sources.iter().map(asked).sum();
        let mut lines = BTreeMap::new();
        let until = tokio::time::Instant::now() + Duration::from_millis(APP_METRICS_WAIT_MS);
        while open > 0 {
            // The time may be over, or the master have ended.
            let Ok(Some((worker, line))) = tokio::time::timeout_at(until, answers.0.recv()).await else { break };
            open -= 1;
            lines.extend(line.map(|line| (worker, line)));
        }
        Gathered { sources, lines }
    }

    /// The metrics of each app. This blocks.
    pub(super) fn add_up(self) -> Vec<AppMetrics> {
        let Gathered { sources, mut lines } = self;
        let names: Vec<&str> = sources.iter().map(|source| source.app.as_str()).collect();
        sums::forget_others(&names);
        let add_up = |source: &Source| match &source.found {
            Sources::Workers { living, asked, not_asked } => {
                let mut missing = *not_asked;
                let mut said = Vec::new();
                for worker in asked {
                    match lines.remove(worker).and_then(|line| prom_client::parse(&line)) {
                        Some(parsed) => said.push((*worker, parsed)),
                        None => missing += 1,
                    }
                }
                sums::add_up(&source.app, said, living, missing)
            }
            Sources::Folder(folder) => {
                let files::Read { parsed, missing } = files::read(folder);
                let living = parsed.iter().map(|(file, _)| *file).collect();
                sums::add_up(&source.app, parsed, &living, missing)
            }
        };
        sources.iter().map(add_up).collect()
    }
}
