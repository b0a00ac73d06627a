//! Answers in HTTP: complete JSON, or log lines as they arrive.
use super::Answer;
use super::routes::RouteError;
use super::types::{Done, Environment, Failure, Releases};
use http_body_util::Full;
use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Response, StatusCode};
use serde::Serialize;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::mpsc;

pub(super) type Reply = Response<Content>;

/// The body of an answer.
pub(super) enum Content {
    /// Complete.
    Whole(Full<Bytes>),
    /// Pieces that arrive later.
    Stream(mpsc::Receiver<Bytes>),
}

impl Body for Content {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Content::Whole(full) => Pin::new(full).poll_frame(cx),
            Content::Stream(pieces) => pieces.poll_recv(cx).map(|piece| piece.map(|piece| Ok(Frame::data(piece)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Content::Whole(full) => full.is_end_stream(),
            Content::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Content::Whole(full) => full.size_hint(),
            Content::Stream(_) => SizeHint::default(),
        }
    }
}

pub(super) fn done(message: impl Into<String>) -> Reply {
    json(StatusCode::OK, &Done { ok: true, message: message.into(), warnings: Vec::new() })
}

pub(super) fn failure(status: StatusCode, error: impl ToString) -> Reply {
    json(status, &Failure { error: error.to_string(), output: Vec::new(), warnings: Vec::new() })
}

pub(super) fn not_routed(error: &RouteError) -> Reply {
    let mut reply = failure(error.status(), error);
    if let RouteError::WrongMethod { wanted, .. } = error {
        let allowed = if *wanted == Method::GET { "GET" } else { "POST" };
        reply.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    }
    reply
}

pub(super) fn json<T: Serialize>(status: StatusCode, value: &T) -> Reply {
    let mut bytes = serde_json::to_vec(value).unwrap_or_default();
    bytes.push(b'\n');
    let mut reply = Response::new(Content::Whole(Full::new(Bytes::from(bytes))));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}

/// Complete text.
pub(super) fn text(kind: &'static str, text: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Content::Whole(Full::new(text.into())));
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    reply
}

/// JSON lines, as they arrive.
pub(super) fn json_lines(pieces: mpsc::Receiver<Bytes>) -> Reply {
    stream("application/x-ndjson", pieces)
}

/// Text, as it arrives.
pub(super) fn stream(kind: &'static str, pieces: mpsc::Receiver<Bytes>) -> Reply {
    let mut reply = Response::new(Content::Stream(pieces));
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    reply
}

/// The master's answer, unchanged.
pub(super) fn of(answer: Answer) -> Reply {
    let (answer, warnings) = match answer {
        Answer::Warned { answer, warnings } => (*answer, warnings),
        answer => (answer, Vec::new()),
    };
    match answer {
        Answer::Warned { answer, .. } => of(*answer),
        Answer::Deployment(deployment) => json(StatusCode::OK, &*deployment),
        Answer::Releases(releases) => json(StatusCode::OK, &Releases { releases }),
        Answer::Environment(env) => json(StatusCode::OK, &Environment { env }),
        Answer::Snapshot(_) | Answer::Scrape(..) => failure(StatusCode::INTERNAL_SERVER_ERROR, "not asked for"),
        Answer::Done(message) => json(StatusCode::OK, &Done { ok: true, message, warnings }),
        Answer::NotFound(error) => failure(StatusCode::NOT_FOUND, error),
        Answer::Refused(error) => failure(StatusCode::CONFLICT, error),
        Answer::Failed { error, said } => {
            let output = said.map(|tail| tail.lines()).unwrap_or_default();
            json(StatusCode::CONFLICT, &Failure { error, output, warnings })
        }
    }
}
