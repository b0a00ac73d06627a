//! `GET /v1/logs`: log files as JSON lines, their last ones and (`follow=true`) what comes, as long as the client stays.
//! Files are read on threads of their own; a client that reads slowly holds up its own alone.
use super::server::{Reply, failure, put};
use super::{Answer, CallSender, Request};
use crate::api::types::Deployment;
use crate::ids::Slot;
use crate::limits;
use crate::logs::reading::{Files, Filter, Kind, Reader, Style};
use http_body_util::Full;
use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Those who follow now.
static FOLLOWERS: AtomicUsize = AtomicUsize::new(0);

/// What an answer consists of.
pub(super) enum Content {
    /// All of it.
    Whole(Full<Bytes>),
    /// What comes.
    Coming(mpsc::Receiver<Bytes>),
}

impl Body for Content {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Content::Whole(full) => Pin::new(full).poll_frame(cx),
            Content::Coming(pieces) => pieces.poll_recv(cx).map(|piece| piece.map(|piece| Ok(Frame::data(piece)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Content::Whole(full) => full.is_end_stream(),
            Content::Coming(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Content::Whole(full) => full.size_hint(),
            Content::Coming(_) => SizeHint::default(),
        }
    }
}

/// What is wanted.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Wanted {
    apps: Vec<String>,
    lines: usize,
    pub(super) follow: bool,
    filter: Filter,
}

impl Wanted {
    /// From the words behind the `?`.
    ///
    /// # Errors
    /// Which of them means nothing.
    pub(super) fn parse(query: Option<&str>, decode: impl Fn(&str) -> Option<String>) -> Result<Wanted, String> {
        let mut wanted =
            Wanted { apps: Vec::new(), lines: limits::LOGS_LINES_DEFAULT, follow: false, filter: Filter::default() };
        for word in query.unwrap_or_default().split('&').filter(|word| !word.is_empty()) {
            let bad =
                || format!("{word:?} means nothing here; there is app=NAME, lines=15, follow=true, type=out, slot=0");
            let (key, value) = word.split_once('=').ok_or_else(bad)?;
            match key {
                "app" => wanted.apps.push(decode(value).ok_or_else(bad)?),
                "lines" => {
                    wanted.lines = value.parse().map_err(|_| bad())?;
                    if wanted.lines > limits::LOGS_API_LINES_MAX {
                        return Err(format!("lines can be {} at most", limits::LOGS_API_LINES_MAX));
                    }
                }
                "follow" => wanted.follow = value.parse().map_err(|_| bad())?,
                "slot" => wanted.filter.slot = Some(value.parse().map_err(|_| bad())?),
                "type" => {
                    let kind = [Kind::Out, Kind::Err].into_iter().find(|kind| kind.word() == value);
                    wanted.filter.kind = Some(kind.ok_or_else(bad)?);
                }
                _ => return Err(bad()),
            }
        }
        Ok(wanted)
    }

    /// The files; an error is a status and a sentence.
    fn files(&self, deployment: &Deployment) -> Result<Files, (StatusCode, String)> {
        let mut files = Files::default();
        let mut without = Vec::new();
        if let Some(name) = self.apps.iter().find(|name| deployment.apps.iter().all(|app| app.name != **name)) {
            return Err((StatusCode::NOT_FOUND, format!("no app is called {name:?}")));
        }
        for app in deployment.apps.iter().filter(|app| self.apps.is_empty() || self.apps.contains(&app.name)) {
            let mut slots: Vec<u32> = app.workers.iter().map(|worker| worker.slot).collect();
            slots.dedup();
            slots.extend(app.agent.as_ref().map(|_| Slot::AGENT.0));
            if let Err(why) = files.add_app(&app.name, &(&app.log).into(), &slots, &self.filter) {
                without.push(format!("{}: {why}", app.name));
            }
        }
        if files.is_empty() { Err((StatusCode::CONFLICT, without.join("\n"))) } else { Ok(files) }
    }
}

/// One who follows.
struct Follower;

impl Follower {
    /// `None`: there are too many.
    fn new() -> Option<Follower> {
        let before = FOLLOWERS.fetch_add(1, Ordering::AcqRel);
        // Dropped when it is one too many.
        let follower = Follower;
        (before < limits::LOGS_API_FOLLOWERS_MAX).then_some(follower)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        FOLLOWERS.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The answer.
pub(super) fn answer(wanted: Wanted, deployment: &Deployment, calls: &CallSender) -> Reply {
    let files = match wanted.files(deployment) {
        Ok(files) => files,
        Err((status, why)) => return failure(status, why),
    };
    let Some(follower) = Follower::new() else {
        let text = format!("{} clients read logs already; that is the most", limits::LOGS_API_FOLLOWERS_MAX);
        return failure(StatusCode::SERVICE_UNAVAILABLE, text);
    };
    let (pieces, coming) = mpsc::channel(limits::LOGS_API_PIECES_MAX);
    let calls = calls.clone();
    tokio::task::spawn_blocking(move || {
        let _follower = follower;
        read(&wanted, files, &calls, &pieces);
    });
    let mut reply = Response::new(Content::Coming(coming));
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    reply
}

/// Reads until the client has left, or has what it wanted.
fn read(wanted: &Wanted, files: Files, calls: &CallSender, pieces: &mpsc::Sender<Bytes>) {
    let style = Style { json: true, ..Style::default() };
    let mut reader = Reader::new(files, style, wanted.filter.clone());
    let mut text = reader.last(wanted.lines);
    let mut asked = Instant::now();
    loop {
        for piece in text.chunks(limits::LOGS_API_PIECE_BYTES) {
            if pieces.blocking_send(Bytes::copy_from_slice(piece)).is_err() {
                return;
            }
        }
        text.clear();
        if !wanted.follow || pieces.is_closed() {
            return;
        }
        std::thread::sleep(Duration::from_millis(limits::LOGS_LOOK_MS));
        reader.look(&mut |line| {
            text.extend_from_slice(line);
            text.len() < limits::LOGS_API_PIECE_BYTES || {
                let piece = Bytes::from(std::mem::take(&mut text));
                pieces.blocking_send(piece).is_ok()
            }
        });
        if asked.elapsed() >= Duration::from_millis(limits::LOGS_ASK_MS) {
            asked = Instant::now();
            let answered = put(Request::Deployment, calls).ok().and_then(|answered| answered.blocking_recv().ok());
            if let Some(Answer::Deployment(deployment)) = answered
                && let Ok(files) = wanted.files(&deployment)
            {
                reader.take_in(files);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn parsed(query: &str) -> Result<Wanted, String> {
        Wanted::parse(Some(query), |text| Some(text.to_owned()))
    }

    #[test]
    fn what_is_wanted_is_read_from_the_query() {
        let all = Wanted::parse(None, |_| None).unwrap();
        assert_eq!((all.lines, all.follow, all.apps.len()), (limits::LOGS_LINES_DEFAULT, false, 0));
        let wanted = parsed("app=web&app=api&lines=3&follow=true&type=err&slot=2").unwrap();
        assert_eq!(wanted.apps, ["web", "api"]);
        assert_eq!((wanted.lines, wanted.follow), (3, true));
        assert_eq!(wanted.filter, Filter { kind: Some(Kind::Err), slot: Some(2) });
        for bad in ["lines", "lines=x", "follow=maybe", "type=both", "slot=-1", "colour=red"] {
            assert!(parsed(bad).unwrap_err().contains("there is app=NAME"), "{bad}");
        }
        assert!(parsed("lines=10000000").unwrap_err().contains("at most"));
    }
}
