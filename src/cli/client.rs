//! The client of the control API: one request, one answer, over a unix socket. `commands` builds the requests.
use super::progress::{Progress, Wait};
use crate::api::request::View;
use crate::api::types::{Deployment, Done, Failure};
use crate::api::{HttpRequest, Request};
use crate::home::Home;
use http_body_util::{BodyExt, Full, Limited};
use hyper::StatusCode;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;

/// Pause between two queries of a waiting command, in milliseconds.
pub(super) const PROGRESS_EVERY_MS: u64 = 200;
/// Queries to a master that does not answer before a command gives up.
pub(super) const LOOK_TRIES_MAX: u32 = 50;

/// Looks at a master that has closed its connections, until it is there again or its deployment has ended.
const END_LOOKS_MAX: u32 = 100;

/// The pause between two of these looks, in milliseconds.
const END_LOOK_EVERY_MS: u64 = 20;

/// Time limit for a master's answer to a query, in milliseconds.
const CONTROL_ANSWER_TIMEOUT_MS: u64 = 5_000;

/// Time limit for a query about progress, in milliseconds.
const PROGRESS_LOOK_MS: u64 = 1_000;

/// Longest answer that is read, in bytes.
const CONTROL_ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Why there is no answer, or none that helps.
#[derive(Debug, Error)]
pub(super) enum ClientError {
    /// Nobody listens: the socket is left from a dead master.
    #[error("it has just ended")]
    Ended,
    /// The socket cannot be reached.
    #[error("cannot connect to {path}: {source}", path = .path.display())]
    Connect { path: PathBuf, source: io::Error },
    /// The connection failed after it was accepted.
    #[error("the connection broke: {0}")]
    Broken(#[source] hyper::Error),
    /// The answer is incomplete, or too long.
    #[error("the answer broke off: {0}")]
    Incomplete(Box<dyn std::error::Error + Send + Sync>),
    /// No answer in time; the pid of its keeper, where it is known.
    #[error("not answering{way_out}", way_out = end_by_force(*.keeper))]
    Silent { keeper: Option<i32> },
    #[error("{0}")]
    Refused(String),
    /// The answer has a format that this version does not know.
    #[error(transparent)]
    Unreadable(#[from] serde_json::Error),
    /// The request is not HTTP.
    #[error(transparent)]
    Request(#[from] hyper::http::Error),
    /// The client itself cannot run.
    #[error("cannot start: {0}")]
    Runtime(#[source] io::Error),
}

fn end_by_force(keeper: Option<i32>) -> String {
    keeper.map_or_else(String::new, |pid| format!(" (its keeper is pid {pid}; kill -QUIT {pid} ends it all)"))
}

/// A master and its answer about the deployment.
#[derive(Debug)]
pub(super) struct Master {
    pub(super) name: String,
    pub(super) path: PathBuf,
    /// The deployment; `Err`: the master is there but does not answer.
    pub(super) deployment: Result<Deployment, ClientError>,
}

/// Queries every master of a home, all at the same time, so that one that hangs does not delay the others. Deployments
/// whose keeper is gone are left out.
///
/// # Errors
/// The client itself cannot run.
pub(super) fn view_all(home: &Home) -> Result<Vec<Master>, ClientError> {
    let sockets = home.sockets();
    let runtime = runtime()?;
    runtime.block_on(async {
        let mut asked = Vec::new();
        for (name, path) in sockets {
            let (whose, home) = (name.clone(), home.clone());
            let task = tokio::spawn(async move {
                let deployment = view_or_end(&home, &name, &path).await?;
                Some(Master { name, path, deployment })
            });
            asked.push((task, whose));
        }
        let mut masters = Vec::new();
        for (mut one, name) in asked {
            let mut progress = Progress::new(Wait::Other, &name);
            let answered = loop {
                match tokio::time::timeout(pause(), &mut one).await {
                    Ok(answered) => break answered,
                    Err(_) => progress.tell("its master does not answer yet"),
                }
            };
            masters.extend(answered.ok().flatten());
        }
        Ok(masters)
    })
}

/// Queries a master until it answers or its deployment has ended (`None`). A process that ends closes its socket some
/// time before it lets go of the deployment's name: without the second look, a deployment would neither answer nor be
/// gone.
async fn view_or_end(home: &Home, name: &str, socket: &Path) -> Option<Result<Deployment, ClientError>> {
    for _ in 0..END_LOOKS_MAX {
        match view(socket).await {
            Err(ClientError::Ended | ClientError::Broken(_) | ClientError::Incomplete(_)) if !home.is_alive(name) => {
                return None;
            }
            Err(ClientError::Ended | ClientError::Broken(_) | ClientError::Incomplete(_)) => {}
            answered => return Some(answered),
        }
        tokio::time::sleep(Duration::from_millis(END_LOOK_EVERY_MS)).await;
    }
    Some(Err(ClientError::Silent { keeper: Home::keeper_of(socket) }))
}

/// The pause between two queries of a waiting command.
fn pause() -> Duration {
    Duration::from_millis(PROGRESS_EVERY_MS)
}

/// The result of a long request.
pub(super) enum Answered {
    /// The master's answer.
    Master(Result<String, ClientError>),
    /// The master died before it answered.
    Lost,
}

/// The deployment of a master.
///
/// # Errors
/// Why there is no answer after several tries: a restarted master needs a moment.
pub(super) fn look(socket: &Path) -> Result<Deployment, ClientError> {
    runtime()?.block_on(async {
        let mut last = ClientError::Silent { keeper: None };
        for _ in 0..LOOK_TRIES_MAX {
            match view(socket).await {
                Ok(deployment) => return Ok(deployment),
                Err(ClientError::Ended) => return Err(ClientError::Ended),
                Err(error) => last = error,
            }
            tokio::time::sleep(pause()).await;
        }
        Err(last)
    })
}

/// Queries a master once.
pub(super) async fn view(socket: &Path) -> Result<Deployment, ClientError> {
    view_within(socket, CONTROL_ANSWER_TIMEOUT_MS).await
}

async fn view_within(socket: &Path, time_ms: u64) -> Result<Deployment, ClientError> {
    let (status, body) =
        exchange(socket, &Request::View(View::Deployment), Some(Duration::from_millis(time_ms))).await?;
    parsed(status, &body)
}

/// Sends a request and waits without a limit; meanwhile `progress` follows the deployment.
pub(super) fn send_watched(socket: &Path, request: &Request, progress: &mut Progress) -> Answered {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(e) => return Answered::Master(Err(e)),
    };
    runtime.block_on(async {
        let mut answer = std::pin::pin!(exchange(socket, request, None));
        let answer = loop {
            if let Ok(answer) = tokio::time::timeout(pause(), answer.as_mut()).await {
                break answer;
            }
            match view_within(socket, PROGRESS_LOOK_MS).await {
                Ok(seen) => progress.look(Ok(&seen)),
                Err(ClientError::Silent { .. }) => progress.tell("its master does not answer yet"),
                Err(error) => progress.look(Err(&error.to_string())),
            }
        };
        match answer {
            Err(ClientError::Ended) => Answered::Master(Err(ClientError::Ended)),
            Err(_) => Answered::Lost,
            Ok((status, body)) => {
                if let Ok(deployment) = view(socket).await {
                    progress.look(Ok(&deployment));
                }
                Answered::Master(message(status, &body))
            }
        }
    })
}

/// Sends a request that changes something and waits without a limit; returns the message for people.
pub(super) fn send(socket: &Path, request: &Request) -> Result<String, ClientError> {
    let (status, body) = runtime()?.block_on(exchange(socket, request, None))?;
    message(status, &body)
}

/// Requests something that is shown unchanged.
pub(super) fn get<T: DeserializeOwned>(socket: &Path, request: &Request) -> Result<T, ClientError> {
    let time = Some(Duration::from_millis(CONTROL_ANSWER_TIMEOUT_MS));
    let (status, body) = runtime()?.block_on(exchange(socket, request, time))?;
    parsed(status, &body)
}

/// The runtime for asynchronous requests.
///
/// # Errors
/// The system refuses.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime, ClientError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ClientError::Runtime)
}

/// What was logged meanwhile, in answers of both kinds.
#[derive(Default, serde::Deserialize)]
struct Warned {
    #[serde(default)]
    warnings: Vec<String>,
}

fn message(status: StatusCode, body: &[u8]) -> Result<String, ClientError> {
    // An answer that is not JSON is reported below.
    let warned: Warned = serde_json::from_slice(body).unwrap_or_default();
    warned.warnings.iter().for_each(|warning| log::warn!("{warning}"));
    parsed::<Done>(status, body).map(|done| done.message)
}

fn parsed<T: DeserializeOwned>(status: StatusCode, body: &[u8]) -> Result<T, ClientError> {
    match status {
        StatusCode::OK => Ok(serde_json::from_slice(body)?),
        _ => Err(ClientError::Refused(failure_text(status, body))),
    }
}

fn failure_text(status: StatusCode, body: &[u8]) -> String {
    let Ok(failure) = serde_json::from_slice::<Failure>(body) else { return format!("it answered {status}") };
    let mut text = failure.error;
    if !failure.output.is_empty() {
        text.push_str("\nIts last words:");
        failure.output.iter().for_each(|line| text.extend(["\n  | ", line]));
    }
    text
}

async fn exchange(
    socket: &Path,
    request: &Request,
    time: Option<Duration>,
) -> Result<(StatusCode, Bytes), ClientError> {
    let whole = async {
        let stream = tokio::net::UnixStream::connect(socket).await.map_err(|source| match source.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => ClientError::Ended,
            _ => ClientError::Connect { path: socket.to_owned(), source },
        })?;
        talk(stream, request).await
    };
    match time {
        None => whole.await,
        Some(time) => match tokio::time::timeout(time, whole).await {
            Ok(done) => done,
            Err(_) => Err(ClientError::Silent { keeper: Home::keeper_of(socket) }),
        },
    }
}

async fn talk(stream: tokio::net::UnixStream, request: &Request) -> Result<(StatusCode, Bytes), ClientError> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(ClientError::Broken)?;
    // It ends with the exchange, which has the error.
    let driver = tokio::spawn(connection);
    let HttpRequest { method, path, body } = request.to_http();
    let request = hyper::Request::builder()
        .method(method)
        .uri(path)
        .header("host", "clusterd")
        .body(Full::new(Bytes::from(body)))?;
    let response = sender.send_request(request).await.map_err(ClientError::Broken)?;
    let status = response.status();
    let limited = Limited::new(response.into_body(), CONTROL_ANSWER_BYTES_MAX);
    let body = limited.collect().await.map_err(ClientError::Incomplete)?.to_bytes();
    driver.abort();
    Ok((status, body))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn a_deployment_that_ends_while_it_is_asked_is_waited_for() {
        let path = std::env::temp_dir().join(format!("clusterd-client-ends-{}", std::process::id()));
        let home = Home::find(Some(&path)).unwrap();
        let claim = home.claim("web").unwrap();
        let listener = claim.listen().unwrap();
        listener.set_nonblocking(false).unwrap();
        // It closes two connections without an answer, then its socket, and holds the name for that long.
        let ending = thread::spawn(move || {
            for _ in 0..2 {
                drop(listener.accept().unwrap());
            }
            drop((listener, claim));
        });
        let masters = view_all(&home).unwrap();
        assert!(masters.is_empty(), "{masters:?}");
        ending.join().unwrap();
        std::fs::remove_dir_all(path).unwrap();
    }
}
