//! The HTTP server of the control API: one thread, one tokio runtime, hyper. It turns requests into [`Call`]s and
//! answers into responses; it knows nothing of workers.
use super::logs::{self, Content};
use super::usage;
use super::{Answer, Call, CallSender, Change, Request};
use crate::api::types::{
    App, ChangeRequest, Deployment, Done, Environment, Failure, ScaleRequest, SignalRequest, StopRequest,
    UpgradeRequest,
};
use crate::limits;
use crate::logs::Tail;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::convert::Infallible;
use std::io;
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::oneshot;

pub(super) type Reply = Response<Content>;

/// The path of log lines.
const LOGS: &str = "/v1/logs";

/// The routes, for people who ask for one that does not exist.
const ROUTES: &str = "GET /v1/apps, GET /v1/apps/NAME, POST /v1/reload, POST /v1/apps/NAME/reload, \
                      POST /v1/apps/NAME/scale, POST /v1/apps/NAME/start, POST /v1/apps/NAME/restart, \
                      POST /v1/apps/NAME/delete, POST /v1/apps/NAME/signal, GET /v1/apps/NAME/env, \
                      GET /v1/apps/NAME/agent/env, \
                      POST /v1/ready, POST /v1/stop, POST /v1/apps/NAME/stop, GET /v1/logs, POST /v1/logs/reopen, \
                      POST /v1/logs/flush, POST /v1/apps/NAME/logs/flush, POST /v1/upgrade, \
                      GET /livez, GET /readyz";

/// The running server. It ends with the process.
pub struct Server {
    open: Arc<AtomicUsize>,
}

impl Server {
    /// Waits (bounded) until the answers that were given are written: the process is about to end.
    pub fn drain(&self) {
        for _ in 0..limits::CONTROL_DRAIN_STEPS_MAX {
            if self.open.load(Ordering::Acquire) == 0 {
                return;
            }
            std::thread::sleep(Duration::from_millis(limits::CONTROL_DRAIN_STEP_MS));
        }
    }
}

/// Serves the control socket on a thread of its own. Only root and `owner_uid` are answered.
///
/// # Errors
/// When the thread or its runtime cannot be made.
pub fn start(listener: UnixListener, calls: CallSender, owner_uid: u32) -> io::Result<Server> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let open = Arc::new(AtomicUsize::new(0));
    let server = Server { open: Arc::clone(&open) };
    std::thread::Builder::new()
        .name("clusterd-api".to_owned())
        .stack_size(limits::CONTROL_STACK_BYTES)
        .spawn(move || runtime.block_on(serve(listener, calls, owner_uid, open)))?;
    Ok(server)
}

async fn serve(listener: UnixListener, calls: CallSender, owner_uid: u32, open: Arc<AtomicUsize>) {
    let listener = match tokio::net::UnixListener::from_std(listener) {
        Ok(listener) => listener,
        Err(e) => {
            log::error!("the control socket cannot be served: {e}");
            return;
        }
    };
    let connections = Arc::new(tokio::sync::Semaphore::new(limits::CONTROL_CONNECTIONS_MAX));
    let mut told = false;
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => {
                told = false;
                stream
            }
            Err(e) => {
                // Out of fds, most likely: wait a little instead of turning in a circle.
                if !std::mem::replace(&mut told, true) {
                    log::warn!("the control socket cannot accept: {e}");
                }
                tokio::time::sleep(Duration::from_millis(limits::ACCEPT_PAUSE_MS)).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&connections).try_acquire_owned() else {
            // Told in one write and closed: no task, no memory.
            let text = "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
            let _ = stream.try_write(text.as_bytes());
            continue;
        };
        let refusal = refusal(&stream, owner_uid);
        let counted = Counted::new(&open);
        let calls = calls.clone();
        tokio::spawn(async move {
            let _held = permit;
            connection(stream, calls, refusal, counted).await;
        });
    }
}

/// Why this peer is not answered, if it is not.
fn refusal(stream: &UnixStream, owner_uid: u32) -> Option<String> {
    match stream.peer_cred() {
        Ok(peer) => refuse_uid(peer.uid(), owner_uid),
        Err(e) => Some(format!("cannot tell who you are: {e}")),
    }
}

fn refuse_uid(uid: u32, owner_uid: u32) -> Option<String> {
    (uid != 0 && uid != owner_uid)
        .then(|| format!("this clusterd belongs to user {owner_uid}; you are user {uid}. Run as that user or as root"))
}

/// Counts the requests under way.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(open: &Arc<AtomicUsize>) -> Counted {
        open.fetch_add(1, Ordering::AcqRel);
        Counted(Arc::clone(open))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

async fn connection(stream: UnixStream, calls: CallSender, refusal: Option<String>, counted: Counted) {
    let counted = Mutex::new(Some(counted));
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let (calls, refusal, counted) = (calls.clone(), refusal.clone(), &counted);
        async move {
            if request.uri().path() == LOGS {
                // Whoever follows logs does not keep the master from ending.
                counted.lock().unwrap_or_else(PoisonError::into_inner).take();
            }
            Ok::<Reply, Infallible>(match refusal {
                Some(why) => failure(StatusCode::FORBIDDEN, why),
                None => answer(request, &calls).await,
            })
        }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(limits::CONTROL_HEAD_TIMEOUT_MS))
        .max_buf_size(limits::CONTROL_HEAD_BYTES_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(e) = served {
        log::debug!("a client of the control socket: {e}");
    }
    drop(counted);
}

/// What a path and method ask for.
enum Route {
    Apps,
    App(String),
    Live,
    Ready,
    Reload(Option<String>),
    Start(String),
    Restart(String),
    Delete(String),
    Signal(String),
    Environment(String, bool),
    AllReady,
    Scale(String),
    Stop(Option<String>),
    Upgrade,
    Logs(logs::Wanted),
    ReopenLogs,
    FlushLogs(Option<String>),
}

fn route(method: &Method, path: &str, query: Option<&str>) -> Result<Route, Box<Reply>> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let name = |text: &str| {
        let bad = || Box::new(failure(StatusCode::BAD_REQUEST, "the app's name is not UTF-8".to_owned()));
        decode_percent(text).ok_or_else(bad)
    };
    let (wanted, route) = match parts.as_slice() {
        ["v1", "apps"] => (Method::GET, Route::Apps),
        ["v1", "apps", app] => (Method::GET, Route::App(name(app)?)),
        ["livez"] => (Method::GET, Route::Live),
        ["readyz"] => (Method::GET, Route::Ready),
        ["v1", "reload"] => (Method::POST, Route::Reload(None)),
        ["v1", "apps", app, "reload"] => (Method::POST, Route::Reload(Some(name(app)?))),
        ["v1", "ready"] => (Method::POST, Route::AllReady),
        ["v1", "apps", app, "start"] => (Method::POST, Route::Start(name(app)?)),
        ["v1", "apps", app, "restart"] => (Method::POST, Route::Restart(name(app)?)),
        ["v1", "apps", app, "delete"] => (Method::POST, Route::Delete(name(app)?)),
        ["v1", "apps", app, "signal"] => (Method::POST, Route::Signal(name(app)?)),
        ["v1", "apps", app, "env"] => (Method::GET, Route::Environment(name(app)?, false)),
        ["v1", "apps", app, "agent", "env"] => (Method::GET, Route::Environment(name(app)?, true)),
        ["v1", "apps", app, "scale"] => (Method::POST, Route::Scale(name(app)?)),
        ["v1", "logs"] => match logs::Wanted::parse(query, decode_percent) {
            Ok(wanted) => (Method::GET, Route::Logs(wanted)),
            Err(why) => return Err(Box::new(failure(StatusCode::BAD_REQUEST, why))),
        },
        ["v1", "logs", "reopen"] => (Method::POST, Route::ReopenLogs),
        ["v1", "logs", "flush"] => (Method::POST, Route::FlushLogs(None)),
        ["v1", "apps", app, "logs", "flush"] => (Method::POST, Route::FlushLogs(Some(name(app)?))),
        ["v1", "upgrade"] => (Method::POST, Route::Upgrade),
        ["v1", "stop"] => (Method::POST, Route::Stop(None)),
        ["v1", "apps", app, "stop"] => (Method::POST, Route::Stop(Some(name(app)?))),
        _ => {
            let text = format!("nothing is at {path}; there is {ROUTES}");
            return Err(Box::new(failure(StatusCode::NOT_FOUND, text)));
        }
    };
    if *method != wanted {
        let mut reply = failure(StatusCode::METHOD_NOT_ALLOWED, format!("{path} wants {wanted}, not {method}"));
        let allowed = if wanted == Method::GET { "GET" } else { "POST" };
        reply.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
        return Err(Box::new(reply));
    }
    Ok(route)
}

async fn answer(request: hyper::Request<Incoming>, calls: &CallSender) -> Reply {
    let route = match route(request.method(), request.uri().path(), request.uri().query()) {
        Ok(route) => route,
        Err(reply) => return *reply,
    };
    let asked = match asked(&route, request, calls).await {
        Ok(asked) => asked,
        Err(reply) => return *reply,
    };
    let answered = match put(asked, calls) {
        Ok(answered) => answered,
        Err(reply) => return *reply,
    };
    let answered = if matches!(route, Route::Live) {
        let patience = Duration::from_millis(limits::CONTROL_LIVE_TIMEOUT_MS);
        match tokio::time::timeout(patience, answered).await {
            Ok(answered) => answered,
            Err(_) => return failure(StatusCode::SERVICE_UNAVAILABLE, "the master's loop does not turn".to_owned()),
        }
    } else {
        answered.await
    };
    if let Ok(Answer::Failed { said: Some(tail), .. }) = &answered {
        last_words(tail).await;
    }
    match (route, answered) {
        (Route::Logs(wanted), Ok(Answer::Deployment(deployment))) => logs::answer(wanted, &deployment, calls),
        (route @ (Route::Apps | Route::App(_)), Ok(Answer::Deployment(mut deployment))) => {
            usage::fill(&mut deployment);
            respond(route, Answer::Deployment(deployment))
        }
        (route, Ok(answer)) => respond(route, answer),
        (_, Err(_)) => failure(StatusCode::INTERNAL_SERVER_ERROR, "the master gave no answer".to_owned()),
    }
}

/// The question that a route and a body stand for.
async fn asked(route: &Route, request: hyper::Request<Incoming>, calls: &CallSender) -> Result<Request, Box<Reply>> {
    let missing = |text: &str| Box::new(failure(StatusCode::BAD_REQUEST, text.to_owned()));
    Ok(match route {
        Route::Apps | Route::App(_) | Route::Live | Route::Ready | Route::Logs(_) => Request::Deployment,
        Route::ReopenLogs => Request::ReopenLogs,
        Route::FlushLogs(app) => Request::FlushLogs { app: app.clone() },
        Route::AllReady => Request::Ready,
        Route::Reload(app) => Request::Reload { app: app.clone(), change: change(request).await? },
        Route::Start(app) => Request::Start { app: app.clone(), restart: false, change: change(request).await? },
        Route::Restart(app) => Request::Start { app: app.clone(), restart: true, change: change(request).await? },
        Route::Environment(app, agent) => Request::Environment { app: app.clone(), agent: *agent },
        Route::Delete(app) => {
            let now = body::<StopRequest>(request).await.map_err(Box::new)?.unwrap_or_default().now;
            Request::Delete { app: app.clone(), now }
        }
        Route::Signal(app) => {
            let wanted = body::<SignalRequest>(request).await.map_err(Box::new)?;
            let wanted = wanted.ok_or_else(|| missing("say which: {\"signal\": \"SIGUSR2\"}"))?;
            let signal = crate::os::signal::from_name(&wanted.signal);
            let signal = signal.ok_or_else(|| missing(&format!("there is no signal {:?}", wanted.signal)))?;
            Request::Signal { app: app.clone(), signal }
        }
        Route::Scale(app) => {
            let scale = body::<ScaleRequest>(request).await.map_err(Box::new)?;
            let scale = scale.ok_or_else(|| missing("say how many: {\"workers\": \"4\"}"))?;
            Request::Scale { app: app.clone(), workers: scale.workers }
        }
        Route::Upgrade => upgrade(request, calls).await?,
        Route::Stop(app) => {
            let now = body::<StopRequest>(request).await.map_err(Box::new)?.unwrap_or_default().now;
            Request::Stop { app: app.clone(), now }
        }
    })
}

async fn change(request: hyper::Request<Incoming>) -> Result<Change, Box<Reply>> {
    let wanted = body::<ChangeRequest>(request).await.map_err(Box::new)?.unwrap_or_default();
    Ok(Change { env: wanted.env, sources: wanted.sources.map(Box::new) })
}

/// Puts a question to the master's loop.
pub(super) fn put(request: Request, calls: &CallSender) -> Result<oneshot::Receiver<Answer>, Box<Reply>> {
    let (reply, answered) = oneshot::channel();
    match calls.push(Call { request, reply }) {
        Ok(()) => Ok(answered),
        Err(_) => {
            let text = "too many requests wait; try again in a moment";
            Err(Box::new(failure(StatusCode::SERVICE_UNAVAILABLE, text.to_owned())))
        }
    }
}

/// Has the new binary look at what it would find; then it is asked for.
async fn upgrade(request: hyper::Request<Incoming>, calls: &CallSender) -> Result<Request, Box<Reply>> {
    let refused = |text: String| Box::new(failure(StatusCode::CONFLICT, text));
    let asked = body::<UpgradeRequest>(request).await.map_err(Box::new)?;
    let Some(UpgradeRequest { binary: path }) = asked else {
        let text = "say which binary: {\"binary\": \"/usr/local/bin/clusterd\"}";
        return Err(Box::new(failure(StatusCode::BAD_REQUEST, text.to_owned())));
    };
    let snapshot = match put(Request::Snapshot, calls)?.await {
        Ok(Answer::Snapshot(fd)) => fd,
        Ok(Answer::Refused(why)) => return Err(refused(why)),
        Ok(_) | Err(_) => return Err(refused("the master gave no snapshot".to_owned())),
    };
    let checked = {
        let path = path.clone();
        tokio::task::spawn_blocking(move || super::upgrade::ask(&path, &snapshot)).await
    };
    match checked {
        Ok(Ok(binary)) => Ok(Request::Upgrade { path, binary: Arc::new(binary) }),
        Ok(Err(why)) => Err(refused(why)),
        Err(e) => Err(refused(format!("the check of {path} broke off: {e}"))),
    }
}

/// Waits (bounded) for what a worker wrote last: its end is often known before its words have been read.
async fn last_words(tail: &Tail) {
    for _ in 0..limits::TAIL_WAITS_MAX {
        if tail.has_ended() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(limits::TAIL_WAIT_MS)).await;
    }
}

fn respond(route: Route, answer: Answer) -> Reply {
    match (route, answer) {
        (Route::Live, Answer::Deployment(_)) => done("alive".to_owned()),
        (Route::Ready, Answer::Deployment(deployment)) => readiness(&deployment),
        (Route::App(name), Answer::Deployment(deployment)) => one_app(&name, &deployment),
        (_, Answer::Deployment(deployment)) => json(StatusCode::OK, &*deployment),
        (_, Answer::Environment(env)) => json(StatusCode::OK, &Environment { env }),
        (_, Answer::Snapshot(_)) => failure(StatusCode::INTERNAL_SERVER_ERROR, "not asked for".to_owned()),
        (_, Answer::Done(message)) => done(message),
        (_, Answer::NotFound(error)) => failure(StatusCode::NOT_FOUND, error),
        (_, Answer::Refused(error)) => failure(StatusCode::CONFLICT, error),
        (_, Answer::Failed { error, said }) => {
            let output = said.map(|tail| tail.lines()).unwrap_or_default();
            json(StatusCode::CONFLICT, &Failure { error, output })
        }
    }
}

fn one_app(name: &str, deployment: &Deployment) -> Reply {
    match deployment.apps.iter().find(|app| app.name == name) {
        Some(app) => json(StatusCode::OK, app),
        None => {
            let names: Vec<&str> = deployment.apps.iter().map(|app| app.name.as_str()).collect();
            failure(StatusCode::NOT_FOUND, format!("no app is called {name:?}; there is {}", names.join(", ")))
        }
    }
}

fn readiness(deployment: &Deployment) -> Reply {
    let waiting: Vec<&App> = deployment.apps.iter().filter(|app| app.workers_ready == 0).collect();
    if waiting.is_empty() {
        return done("ready".to_owned());
    }
    let names: Vec<String> = waiting.iter().map(|app| format!("{} ({})", app.name, app.status)).collect();
    failure(StatusCode::SERVICE_UNAVAILABLE, format!("no worker is ready of: {}", names.join(", ")))
}

/// The body as JSON; `None` for an empty one.
async fn body<T: DeserializeOwned>(request: hyper::Request<Incoming>) -> Result<Option<T>, Reply> {
    let limited = Limited::new(request.into_body(), limits::CONTROL_BODY_BYTES_MAX);
    let patience = Duration::from_millis(limits::CONTROL_BODY_TIMEOUT_MS);
    let Ok(collected) = tokio::time::timeout(patience, limited.collect()).await else {
        return Err(failure(StatusCode::REQUEST_TIMEOUT, "the body did not come in time".to_owned()));
    };
    let bytes = match collected {
        Ok(collected) => collected.to_bytes(),
        Err(e) if e.is::<http_body_util::LengthLimitError>() => {
            let text = format!("the body is over {} bytes", limits::CONTROL_BODY_BYTES_MAX);
            return Err(failure(StatusCode::PAYLOAD_TOO_LARGE, text));
        }
        Err(e) => return Err(failure(StatusCode::BAD_REQUEST, format!("the body broke off: {e}"))),
    };
    if bytes.is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|e| failure(StatusCode::BAD_REQUEST, format!("the body is not what is wanted here: {e}")))
}

fn done(message: String) -> Reply {
    json(StatusCode::OK, &Done { ok: true, message })
}

pub(super) fn failure(status: StatusCode, error: String) -> Reply {
    json(status, &Failure { error, output: Vec::new() })
}

fn json<T: Serialize>(status: StatusCode, value: &T) -> Reply {
    let mut bytes = serde_json::to_vec(value).unwrap_or_default();
    bytes.push(b'\n');
    let mut reply = Response::new(Content::Whole(Full::new(Bytes::from(bytes))));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}

/// `%2F` and the like to bytes; `None` when that is no UTF-8.
fn decode_percent(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = text.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_and_the_owner_are_answered() {
        assert_eq!(refuse_uid(0, 1000), None);
        assert_eq!(refuse_uid(1000, 1000), None);
        assert!(refuse_uid(1001, 1000).is_some_and(|why| why.contains("user 1000")));
    }

    #[test]
    fn names_are_percent_decoded() {
        assert_eq!(decode_percent("a%20b%2Fc%"), Some("a b/c%".to_owned()));
        assert_eq!(decode_percent("%ff"), None);
    }
}
