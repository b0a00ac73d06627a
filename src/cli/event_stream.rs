//! Reads the events of several deployments at a time. After a break, as when a master is replaced, it goes on after the
//! last event that came.
use super::client::{self, ClientError};
use crate::api::request::{EventQuery, View};
use crate::api::types::Event;
use crate::api::{HttpRequest, Request};
use http_body_util::{BodyExt, Empty};
use hyper::StatusCode;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::mpsc;

/// Events queued for the terminal.
const QUEUED_MAX: usize = 256;

/// Longest line of an event, in bytes.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// Breaks in a row, without an event in between, after which a deployment is given up.
const BREAKS_MAX: u32 = 50;

/// Pause after a break, in milliseconds.
const AFTER_BREAK_MS: u64 = 200;

/// Passes events to `show` until there are none left, or it returns `false`.
///
/// # Errors
/// The client itself cannot run.
pub(super) fn read(
    sockets: Vec<(String, PathBuf)>,
    query: &EventQuery,
    mut show: impl FnMut(Event) -> bool,
) -> Result<(), ClientError> {
    client::runtime()?.block_on(async {
        let (sender, mut came) = mpsc::channel(QUEUED_MAX);
        for (name, path) in sockets {
            tokio::spawn(deployment(name, path, query.clone(), sender.clone()));
        }
        drop(sender);
        while let Some(event) = came.recv().await {
            if !show(event) {
                break;
            }
        }
    });
    Ok(())
}

/// How a stream ended.
enum End {
    /// The deployment has ended, or everything was read.
    Over,
    /// The connection broke.
    Broken,
    /// The master does not answer as expected.
    Refused(StatusCode),
}

async fn deployment(name: String, socket: PathBuf, mut query: EventQuery, events: mpsc::Sender<Event>) {
    let mut breaks = 0;
    while breaks < BREAKS_MAX {
        let before = query.after;
        match stream(&socket, &mut query, &events).await {
            End::Over => return,
            End::Refused(status) => return log::error!("{name}: it answered {status}"),
            End::Broken => {}
        }
        breaks = if query.after == before { breaks + 1 } else { 0 };
        tokio::time::sleep(Duration::from_millis(AFTER_BREAK_MS)).await;
    }
}

/// Reads one stream to its end; `query` goes on after the last event.
async fn stream(socket: &Path, query: &mut EventQuery, events: &mpsc::Sender<Event>) -> End {
    // Nobody listens: it has ended.
    let Ok(stream) = UnixStream::connect(socket).await else { return End::Over };
    let Ok((mut sender, connection)) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await else {
        return End::Broken;
    };
    // It ends with the exchange, which has the error.
    tokio::spawn(connection);
    let HttpRequest { method, path, .. } = Request::View(View::Events(query.clone())).to_http();
    let request = hyper::Request::builder().method(method).uri(path).header("host", "clusterd");
    let Ok(request) = request.body(Empty::<Bytes>::new()) else { return End::Over };
    let Ok(response) = sender.send_request(request).await else { return End::Broken };
    if response.status() != StatusCode::OK {
        return End::Refused(response.status());
    }
    let mut body = response.into_body();
    let mut rest = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return End::Broken };
        rest.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            // A line that a newer master writes otherwise is left out.
            let Ok(event) = serde_json::from_slice::<Event>(&line) else { continue };
            query.after = Some(event.id);
            if events.send(event).await.is_err() {
                return End::Over;
            }
        }
        if rest.len() > LINE_BYTES_MAX {
            return End::Broken;
        }
    }
    if query.follow { End::Broken } else { End::Over }
}
