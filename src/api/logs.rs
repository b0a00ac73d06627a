//! `GET /v1/logs`: log files as JSON lines: the last ones and (`follow=true`) new ones, as long as the client stays.
//! Files are read on threads of their own; a slow client holds up only its own.
use super::reply::{Reply, failure, json_lines};
use super::request::{LogQuery, Request, View};
use super::types::Deployment;
use super::{Answer, CallSender, Order};
use crate::ids::Slot;
use crate::logs::reading::{Files, LOGS_ASK_MS, LOGS_LOOK_MS, Reader, Style};
use crate::os::user::Credentials;
use hyper::StatusCode;
use hyper::body::Bytes;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use thiserror::Error;
use tokio::sync::mpsc;

/// Clients of the control API that follow logs at the same time.
const LOGS_API_FOLLOWERS_MAX: usize = 16;

/// Pieces of text queued for a client before its files are read further.
const LOGS_API_PIECES_MAX: usize = 16;

/// Size of a piece, in bytes; one more line may be added.
const LOGS_API_PIECE_BYTES: usize = 64 * 1024;

/// Clients that follow logs now.
static FOLLOWERS: AtomicUsize = AtomicUsize::new(0);

/// Why there are no lines.
#[derive(Debug, Error)]
enum LogsError {
    #[error("no app is called {0:?}")]
    NoSuchApp(String),
    /// Why each app has no file, one line each.
    #[error("{0}")]
    NoFiles(String),
    #[error("the limit of {max} clients that read logs is reached", max = LOGS_API_FOLLOWERS_MAX)]
    TooManyClients,
}

impl LogsError {
    fn status(&self) -> StatusCode {
        match self {
            LogsError::NoSuchApp(_) => StatusCode::NOT_FOUND,
            LogsError::NoFiles(_) => StatusCode::CONFLICT,
            LogsError::TooManyClients => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

fn files(query: &LogQuery, deployment: &Deployment) -> Result<Files, LogsError> {
    let mut files = Files::default();
    let mut without = Vec::new();
    if let Some(name) = query.apps.iter().find(|name| deployment.apps.iter().all(|app| app.name != **name)) {
        return Err(LogsError::NoSuchApp(name.clone()));
    }
    for app in deployment.apps.iter().filter(|app| query.apps.is_empty() || query.apps.contains(&app.name)) {
        let mut slots: Vec<u32> = app.workers.iter().map(|worker| worker.slot).collect();
        slots.dedup();
        slots.extend(app.agent.as_ref().map(|_| Slot::AGENT.0));
        slots.extend(app.before.as_ref().map(|_| Slot::BEFORE.0));
        let user = app.user.as_ref().map(Credentials::from);
        if let Err(why) = files.add_app(&app.name, &(&app.log).into(), user.as_ref(), &slots, &query.filter) {
            without.push(format!("{}: {why}", app.name));
        }
    }
    if files.is_empty() { Err(LogsError::NoFiles(without.join("\n"))) } else { Ok(files) }
}

/// Counts a client that follows, until it is dropped.
struct Follower;

impl Follower {
    fn new() -> Result<Follower, LogsError> {
        let before = FOLLOWERS.fetch_add(1, Ordering::AcqRel);
        // Dropped if the limit is exceeded.
        let follower = Follower;
        if before < LOGS_API_FOLLOWERS_MAX { Ok(follower) } else { Err(LogsError::TooManyClients) }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        FOLLOWERS.fetch_sub(1, Ordering::AcqRel);
    }
}

pub(super) fn answer(query: LogQuery, deployment: &Deployment, calls: &CallSender) -> Reply {
    let begun = files(&query, deployment).and_then(|files| Ok((files, Follower::new()?)));
    let (files, follower) = match begun {
        Ok(begun) => begun,
        Err(error) => return failure(error.status(), error),
    };
    let (pieces, stream) = mpsc::channel(LOGS_API_PIECES_MAX);
    let calls = calls.clone();
    tokio::task::spawn_blocking(move || {
        let _follower = follower;
        read(&query, files, &calls, &pieces);
    });
    json_lines(stream)
}

/// Reads until the client has left, or has received everything.
fn read(query: &LogQuery, found: Files, calls: &CallSender, pieces: &mpsc::Sender<Bytes>) {
    let style = Style { json: true, ..Style::default() };
    let mut reader = Reader::new(found, style, query.filter.clone());
    let mut text = reader.last(query.lines);
    let mut asked = Instant::now();
    loop {
        for piece in text.chunks(LOGS_API_PIECE_BYTES) {
            if pieces.blocking_send(Bytes::copy_from_slice(piece)).is_err() {
                return;
            }
        }
        text.clear();
        if !query.follow || pieces.is_closed() {
            return;
        }
        std::thread::sleep(Duration::from_millis(LOGS_LOOK_MS));
        reader.look(&mut |line| {
            text.extend_from_slice(line);
            text.len() < LOGS_API_PIECE_BYTES || {
                let piece = Bytes::from(std::mem::take(&mut text));
                pieces.blocking_send(piece).is_ok()
            }
        });
        if asked.elapsed() >= Duration::from_millis(LOGS_ASK_MS) {
            asked = Instant::now();
            let answered = calls.order(Order::Request(Request::View(View::Deployment)));
            if let Some(Answer::Deployment(deployment)) =
                answered.ok().and_then(|answered| answered.blocking_recv().ok())
                && let Ok(files) = files(query, &deployment)
            {
                reader.take_in(files);
            }
        }
    }
}
