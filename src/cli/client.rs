//! The CLI as a client of the control API: one request, one answer, over a unix socket. What to ask is `list`'s and
//! `act`'s business.
use super::progress::{Progress, Wait};
use crate::api::request::View;
use crate::api::types::{Deployment, Done, Failure};
use crate::api::{self, HttpRequest};
use crate::home::Home;
use crate::limits;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A master that was asked what it runs.
#[derive(Debug)]
pub(super) struct Master {
    /// The name of its socket.
    pub(super) name: String,
    /// Its socket.
    pub(super) path: PathBuf,
    /// What it runs; `Err`: it is there but does not answer.
    pub(super) deployment: Result<Deployment, String>,
}

/// How an exchange failed.
#[derive(Debug)]
pub(super) enum Broken {
    /// Nobody listens: the socket was left behind.
    Dead,
    /// Somebody is there, but there was no whole answer.
    Failed(String),
}

impl Broken {
    fn why(&self) -> &str {
        match self {
            Broken::Dead => ENDED,
            Broken::Failed(why) => why,
        }
    }
}

/// Asks every master of a home, all at the same time: one that hangs holds up no other. Dead sockets are left out.
///
/// # Errors
/// When no home is known, or the client itself cannot start.
pub(super) fn ask_all(home: &Home) -> Result<Vec<Master>, String> {
    let sockets = home.sockets();
    let runtime = runtime()?;
    runtime.block_on(async {
        let mut asked = Vec::new();
        for (name, path) in sockets {
            let whose = name.clone();
            let task = tokio::spawn(async move {
                let deployment = match view(&path).await {
                    Err(Broken::Dead) => return None,
                    Err(Broken::Failed(why)) => Err(why),
                    Ok(deployment) => Ok(deployment),
                };
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
                    Err(_) => progress.tell("its master gives no answer yet"),
                }
            };
            masters.extend(answered.ok().flatten());
        }
        Ok(masters)
    })
}

/// Between two looks of a command that waits.
fn pause() -> Duration {
    Duration::from_millis(limits::PROGRESS_EVERY_MS)
}

/// Nobody listens any more.
pub(super) const ENDED: &str = "it has just ended";

/// What came of a command that takes long.
pub(super) enum Outcome {
    /// The master's answer.
    Answered(Result<String, String>),
    /// The master died before it answered.
    Lost,
}

/// What a master runs.
///
/// # Errors
/// Why there is no answer, also after trying for a while: a master that was just started again takes a moment.
pub(super) fn look(socket: &Path) -> Result<Deployment, String> {
    runtime()?.block_on(async {
        let mut last = String::new();
        for _ in 0..limits::LOOK_TRIES_MAX {
            match view(socket).await {
                Ok(deployment) => return Ok(deployment),
                Err(Broken::Dead) => return Err(ENDED.to_owned()),
                Err(Broken::Failed(why)) => last = why,
            }
            tokio::time::sleep(pause()).await;
        }
        Err(last)
    })
}

/// Asks a master once what it runs.
pub(super) async fn view(socket: &Path) -> Result<Deployment, Broken> {
    view_within(socket, limits::CONTROL_ANSWER_TIMEOUT_MS).await
}

async fn view_within(socket: &Path, patience_ms: u64) -> Result<Deployment, Broken> {
    let patience = Some(Duration::from_millis(patience_ms));
    match exchange(socket, &api::Request::View(View::Deployment), patience).await? {
        (StatusCode::OK, body) => serde_json::from_slice(&body).map_err(|e| Broken::Failed(e.to_string())),
        (status, body) => Err(Broken::Failed(failure_text(status, &body))),
    }
}

/// Sends a command and waits as long as it takes; meanwhile `progress` gets to see what runs.
pub(super) fn command_watched(socket: &Path, request: &api::Request, progress: &mut Progress) -> Outcome {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(e) => return Outcome::Answered(Err(e)),
    };
    runtime.block_on(async {
        let mut answer = std::pin::pin!(exchange(socket, request, None));
        let answer = loop {
            if let Ok(answer) = tokio::time::timeout(pause(), answer.as_mut()).await {
                break answer;
            }
            let seen = view_within(socket, limits::PROGRESS_LOOK_MS).await;
            progress.look(seen.as_ref().map_err(Broken::why));
        };
        match answer {
            Err(Broken::Dead) => Outcome::Answered(Err(ENDED.to_owned())),
            Err(Broken::Failed(_)) => Outcome::Lost,
            Ok((status, body)) => {
                if let Ok(deployment) = view(socket).await {
                    progress.look(Ok(&deployment));
                }
                Outcome::Answered(message(status, &body))
            }
        }
    })
}

fn message(status: StatusCode, body: &[u8]) -> Result<String, String> {
    match status {
        StatusCode::OK => serde_json::from_slice::<Done>(body).map(|done| done.message).map_err(|e| e.to_string()),
        _ => Err(failure_text(status, body)),
    }
}

/// Sends a command and waits as long as it takes. The message, or why it was refused.
pub(super) fn command(socket: &Path, request: &api::Request) -> Result<String, String> {
    let answer = runtime()?.block_on(exchange(socket, request, None));
    match answer {
        Err(Broken::Dead) => Err(ENDED.to_owned()),
        Err(Broken::Failed(why)) => Err(why),
        Ok((status, body)) => message(status, &body),
    }
}

/// Asks for something that is shown as it is.
pub(super) fn get<T: DeserializeOwned>(socket: &Path, request: &api::Request) -> Result<T, String> {
    let patience = Some(Duration::from_millis(limits::CONTROL_ANSWER_TIMEOUT_MS));
    match runtime()?.block_on(exchange(socket, request, patience)) {
        Err(Broken::Dead) => Err(ENDED.to_owned()),
        Err(Broken::Failed(why)) => Err(why),
        Ok((StatusCode::OK, body)) => serde_json::from_slice(&body).map_err(|e| e.to_string()),
        Ok((status, body)) => Err(failure_text(status, &body)),
    }
}

pub(super) fn runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| format!("cannot start: {e}"))
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
    request: &api::Request,
    patience: Option<Duration>,
) -> Result<(StatusCode, Bytes), Broken> {
    let whole = async {
        let stream = tokio::net::UnixStream::connect(socket).await.map_err(|e| match e.kind() {
            std::io::ErrorKind::ConnectionRefused | std::io::ErrorKind::NotFound => Broken::Dead,
            _ => Broken::Failed(format!("cannot connect to {}: {e}", socket.display())),
        })?;
        talk(stream, request).await.map_err(Broken::Failed)
    };
    match patience {
        None => whole.await,
        Some(time) => match tokio::time::timeout(time, whole).await {
            Ok(done) => done,
            Err(_) => {
                let way_out =
                    |keeper| format!("not answering (its keeper is pid {keeper}; kill -QUIT {keeper} ends it all)");
                Err(Broken::Failed(Home::keeper_of(socket).map_or_else(|| "not answering".to_owned(), way_out)))
            }
        },
    }
}

async fn talk(stream: tokio::net::UnixStream, request: &api::Request) -> Result<(StatusCode, Bytes), String> {
    let HttpRequest { method, path, body } = request.to_http();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    // It ends when the exchange does; its error is the exchange's.
    let driver = tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "clusterd")
        .body(Full::new(Bytes::from(body)))
        .map_err(|e| e.to_string())?;
    let response = sender.send_request(request).await.map_err(|e| format!("the connection broke: {e}"))?;
    let status = response.status();
    let limited = Limited::new(response.into_body(), limits::CONTROL_ANSWER_BYTES_MAX);
    let body = limited.collect().await.map_err(|e| format!("the answer broke off: {e}"))?.to_bytes();
    driver.abort();
    Ok((status, body))
}
