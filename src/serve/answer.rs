//! The answer to a request: which headers, and the bytes of a file piece by piece.
use super::content_type;
use super::files::{Found, Meant, Site};
use super::guard::Guard;
use super::range::{self, Wanted};
use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Bytes that are read from a file at a time.
const PIECE_BYTES_MAX: u64 = 64 * 1024;

/// Answers a request.
pub(super) fn answer<B>(request: &Request<B>, site: &Site, guard: Option<&Guard>) -> Response<Piecewise> {
    let headers = request.headers();
    let authorization = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    if guard.is_some_and(|guard| !guard.admits(authorization)) {
        return with(
            words(StatusCode::UNAUTHORIZED, "authentication is needed\n"),
            header::WWW_AUTHENTICATE,
            "Basic realm=\"clusterd\", charset=\"UTF-8\"",
        );
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return with(words(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n"), header::ALLOW, "GET, HEAD");
    }
    // Of the answer to a HEAD hyper sends the head alone.
    match site.find(request.uri().path()) {
        Ok(Meant::File(found)) => file(found, headers),
        Ok(Meant::Folder) => folder(request),
        Ok(Meant::Nothing(Some(page))) => whole(page, StatusCode::NOT_FOUND),
        Ok(Meant::Nothing(None)) => words(StatusCode::NOT_FOUND, "not found\n"),
        Err(error) => {
            log::warn!("{}: {error}", request.uri().path());
            words(StatusCode::SERVICE_UNAVAILABLE, "try again later\n")
        }
    }
}

/// A file, or what its client wants of it.
fn file(found: Found, headers: &HeaderMap) -> Response<Piecewise> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let tag = found.tag.clone();
    let has_it = |sent: &str| {
        sent.split(',').any(|one| matches!(one.trim().trim_start_matches("W/"), one if one == tag || one == "*"))
    };
    if text(header::IF_NONE_MATCH).is_some_and(has_it) {
        return with(empty(StatusCode::NOT_MODIFIED), header::ETAG, &tag);
    }
    // A part of another version would be of no use.
    let range = text(header::RANGE).filter(|_| text(header::IF_RANGE).is_none_or(|sent| sent == tag));
    let length = found.length;
    match range::read(range, length) {
        Wanted::Whole => whole(found, StatusCode::OK),
        Wanted::Outside => {
            with(empty(StatusCode::RANGE_NOT_SATISFIABLE), header::CONTENT_RANGE, &format!("bytes */{length}"))
        }
        Wanted::Part(part) => {
            let said = format!("bytes {}-{}/{length}", part.start, part.end - 1);
            let answer = whole(found, StatusCode::PARTIAL_CONTENT);
            let answer = answer.map(|body| Piecewise { at: part.start, end: part.end, ..body });
            with(answer, header::CONTENT_RANGE, &said)
        }
    }
}

fn whole(found: Found, status: StatusCode) -> Response<Piecewise> {
    let kind = content_type::of(&found.name);
    let body = Piecewise { source: Source::File(found.file), at: 0, end: found.length };
    let answer = with(with(plain(status, body), header::CONTENT_TYPE, kind), header::ETAG, &found.tag);
    // After a build a page has to name the files of that build.
    let answer = if kind.starts_with("text/html") { with(answer, header::CACHE_CONTROL, "no-cache") } else { answer };
    with(answer, header::ACCEPT_RANGES, "bytes")
}

/// A folder has its page below a path with a slash at its end.
fn folder<B>(request: &Request<B>) -> Response<Piecewise> {
    // One slash at the beginning: two would be the name of a machine.
    let path = request.uri().path().trim_start_matches('/');
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    with(empty(StatusCode::MOVED_PERMANENTLY), header::LOCATION, &format!("/{path}/{query}"))
}

fn words(status: StatusCode, text: &'static str) -> Response<Piecewise> {
    let body = Piecewise { source: Source::Words(text), at: 0, end: text.len() as u64 };
    with(plain(status, body), header::CONTENT_TYPE, "text/plain; charset=utf-8")
}

fn empty(status: StatusCode) -> Response<Piecewise> {
    plain(status, Piecewise { source: Source::Words(""), at: 0, end: 0 })
}

fn plain(status: StatusCode, body: Piecewise) -> Response<Piecewise> {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    // What an ending says is what it is: no browser guesses.
    with(answer, header::X_CONTENT_TYPE_OPTIONS, "nosniff")
}

/// With one more header; a value that cannot be one is left out.
fn with(mut answer: Response<Piecewise>, name: HeaderName, value: &str) -> Response<Piecewise> {
    if let Ok(value) = HeaderValue::from_str(value) {
        answer.headers_mut().insert(name, value);
    }
    answer
}

/// A body, read piece by piece.
pub(super) struct Piecewise {
    source: Source,
    at: u64,
    end: u64,
}

enum Source {
    File(File),
    Words(&'static str),
}

impl Body for Piecewise {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.at >= self.end {
            return Poll::Ready(None);
        }
        let from = self.at;
        let most = (self.end - from).min(PIECE_BYTES_MAX);
        let piece = match &self.source {
            Source::Words(text) => Ok(Bytes::from_static(text.as_bytes())),
            Source::File(file) => {
                let mut piece = vec![0; usize::try_from(most).unwrap_or_default()];
                file.read_at(&mut piece, from).and_then(|read| {
                    piece.truncate(read);
                    // The length was said: a client has to see that the rest is missing.
                    if read == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(Bytes::from(piece)) }
                })
            }
        };
        Poll::Ready(Some(piece.map(|piece| {
            self.at += piece.len() as u64;
            Frame::data(piece)
        })))
    }

    fn is_end_stream(&self) -> bool {
        self.at >= self.end
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.end.saturating_sub(self.at))
    }
}
