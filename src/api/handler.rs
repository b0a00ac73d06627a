//! One HTTP request: routes it, passes it to the master's loop, answers. Knows nothing about workers.
use super::app_metrics::{self, Gathered};
use super::audit::Peer;
use super::events::{self, Form};
use super::metrics::{Format, Scrape};
use super::reply::{self, Reply, done, failure, json};
use super::request::{Request, View};
use super::routes::Route;
use super::types::{App, AppStatus, Deployment};
use super::{Answer, CallSender, NotTaken, Order, audit, logs, upgrade, usage};
use crate::limits;
use http_body_util::{BodyExt, Limited};
use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, HeaderName, HeaderValue};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::sync::oneshot;

/// The id of the last event that a browser got, after a break.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Time limit for the body of a request, in milliseconds.
const CONTROL_BODY_TIMEOUT_MS: u64 = 5_000;

/// Time within which the master's loop must answer to count as alive, in milliseconds.
const CONTROL_LIVE_TIMEOUT_MS: u64 = 1_000;

/// Why a body cannot be used.
#[derive(Debug, Error)]
enum BodyError {
    #[error("the request body did not arrive in time")]
    Late,
    #[error("the request body is larger than {max} bytes", max = limits::CONTROL_BODY_BYTES_MAX)]
    TooLarge,
    #[error("the request body broke off: {0}")]
    Broken(Box<dyn std::error::Error + Send + Sync>),
}

impl BodyError {
    fn status(&self) -> StatusCode {
        match self {
            BodyError::Late => StatusCode::REQUEST_TIMEOUT,
            BodyError::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            BodyError::Broken(_) => StatusCode::BAD_REQUEST,
        }
    }
}

/// Answers an HTTP request with a known path.
pub(super) async fn answer(route: Route, request: hyper::Request<Incoming>, calls: &CallSender, peer: Peer) -> Reply {
    let query = request.uri().query().map(str::to_owned);
    let header = |name| request.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let (format, form) = (Format::of(header(ACCEPT)), Form::of(header(ACCEPT)));
    let last_event = header(LAST_EVENT_ID).and_then(|id| id.parse().ok());
    let body = match if route.takes_body() { body(request).await } else { Ok(Vec::new()) } {
        Ok(body) => body,
        Err(error) => return failure(error.status(), error),
    };
    let wanted = route.request(query.as_deref(), &body);
    if let Ok(request) = &wanted {
        audit::note(request, peer);
    }
    match wanted {
        Ok(Request::View(View::Events(query))) => events::answer(query, form, last_event),
        Ok(Request::View(View::Metrics)) => metrics(format, calls).await,
        Ok(Request::View(view)) => show(view, calls).await,
        Ok(Request::Upgrade { binary }) => upgrade(binary, calls).await,
        Ok(request) => carry_out(Order::Request(request), calls).await,
        Err(error) => reply::not_routed(&error),
    }
}

async fn body(request: hyper::Request<Incoming>) -> Result<Vec<u8>, BodyError> {
    let limited = Limited::new(request.into_body(), limits::CONTROL_BODY_BYTES_MAX);
    let time = Duration::from_millis(CONTROL_BODY_TIMEOUT_MS);
    match tokio::time::timeout(time, limited.collect()).await {
        Err(_) => Err(BodyError::Late),
        Ok(Ok(collected)) => Ok(collected.to_bytes().to_vec()),
        Ok(Err(e)) if e.is::<http_body_util::LengthLimitError>() => Err(BodyError::TooLarge),
        Ok(Err(e)) => Err(BodyError::Broken(e)),
    }
}

/// Passes an order to the master's loop and waits for its answer.
async fn carry_out(order: Order, calls: &CallSender) -> Reply {
    let answered = match calls.order(order) {
        Ok(answered) => answered,
        Err(error) => return not_taken(error),
    };
    match answered.await {
        Ok(answer) => reply::of(answer),
        Err(_) => no_answer(),
    }
}

/// Answers a read-only request.
async fn show(view: View, calls: &CallSender) -> Reply {
    let answered = match calls.order(Order::Request(Request::View(View::Deployment))) {
        Ok(answered) => answered,
        Err(error) => return not_taken(error),
    };
    let mut deployment = match await_view(&view, answered).await {
        Ok(deployment) => deployment,
        Err(reply) => return *reply,
    };
    match view {
        View::Live => done("alive"),
        View::Ready => readiness(&deployment.apps),
        View::AppReady(name) => match named(&name, &deployment) {
            Ok(app) => readiness(std::slice::from_ref(app)),
            Err(reply) => *reply,
        },
        View::Logs(query) => logs::answer(query, &deployment, calls),
        // Answered without the master.
        View::Events(query) => events::answer(query, Form::Lines, None),
        View::Metrics => metrics(Format::OpenMetrics, calls).await,
        View::Deployment => {
            usage::fill(&mut deployment);
            json(StatusCode::OK, &*deployment)
        }
        View::App(name) => {
            usage::fill(&mut deployment);
            one_app(&name, &deployment)
        }
    }
}

/// The master's view of the deployment. For `/livez` the wait is short.
async fn await_view(view: &View, answered: oneshot::Receiver<Answer>) -> Result<Box<Deployment>, Box<Reply>> {
    let answer = if *view == View::Live {
        let time = Duration::from_millis(CONTROL_LIVE_TIMEOUT_MS);
        match tokio::time::timeout(time, answered).await {
            Ok(answer) => answer,
            Err(_) => {
                return Err(Box::new(failure(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "the master's event loop does not respond",
                )));
            }
        }
    } else {
        answered.await
    };
    match answer {
        Ok(Answer::Deployment(deployment)) => Ok(deployment),
        Ok(other) => Err(Box::new(reply::of(other))),
        Err(_) => Err(Box::new(no_answer())),
    }
}

/// Workers answer one scrape after the other.
static SCRAPE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Reads what the kernel knows, and adds up what apps say, on a thread that may block: other clients do not wait for it.
async fn metrics(format: Format, calls: &CallSender) -> Reply {
    let one = SCRAPE.lock().await;
    let (sender, answers) = app_metrics::channel();
    let answered = match calls.order(Order::Scrape { answers: sender }) {
        Ok(answered) => answered,
        Err(error) => return not_taken(error),
    };
    let (deployment, sources) = match answered.await {
        Ok(Answer::Scrape(deployment, sources)) => (deployment, sources),
        Ok(other) => return reply::of(other),
        Err(_) => return no_answer(),
    };
    let gathered = Gathered::of(sources, answers).await;
    drop(one);
    let text = tokio::task::spawn_blocking(move || Scrape::gather(*deployment, gathered).render(format)).await;
    match text {
        Ok(Ok(text)) => reply::text(format.content_type(), text),
        Ok(Err(_)) | Err(_) => failure(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written"),
    }
}

fn one_app(name: &str, deployment: &Deployment) -> Reply {
    named(name, deployment).map_or_else(|reply| *reply, |app| json(StatusCode::OK, app))
}

fn named<'a>(name: &str, deployment: &'a Deployment) -> Result<&'a App, Box<Reply>> {
    deployment.apps.iter().find(|app| app.name == name).ok_or_else(|| {
        let names: Vec<&str> = deployment.apps.iter().map(|app| app.name.as_str()).collect();
        let why = format!("no app is called {name:?}; the apps are: {}", names.join(", "));
        Box::new(failure(StatusCode::NOT_FOUND, why))
    })
}

/// An app that is about to stop serves on for a while (`drain_delay`), and gets nothing new from who asks here.
fn readiness(apps: &[App]) -> Reply {
    let waits = |app: &&App| app.workers_ready == 0 || app.status == AppStatus::Stopping;
    let waiting: Vec<&App> = apps.iter().filter(waits).collect();
    if waiting.is_empty() {
        return done("ready");
    }
    let names: Vec<String> = waiting.iter().map(|app| format!("{} ({})", app.name, app.status)).collect();
    failure(StatusCode::SERVICE_UNAVAILABLE, format!("no worker is ready in: {}", names.join(", ")))
}

/// Has the new binary check the snapshot, then orders the upgrade.
async fn upgrade(path: String, calls: &CallSender) -> Reply {
    let answered = match calls.order(Order::Request(Request::Upgrade { binary: path.clone() })) {
        Ok(answered) => answered,
        Err(error) => return not_taken(error),
    };
    let snapshot = match answered.await {
        Ok(Answer::Snapshot(fd)) => fd,
        Ok(Answer::Refused(why)) => return failure(StatusCode::CONFLICT, why),
        Ok(_) | Err(_) => return failure(StatusCode::CONFLICT, "the master gave no snapshot"),
    };
    let checked = {
        let path = path.clone();
        tokio::task::spawn_blocking(move || upgrade::check(&path, &snapshot)).await
    };
    match checked {
        Ok(Ok(binary)) => carry_out(Order::TakeOver { path, binary: Arc::new(binary) }, calls).await,
        Ok(Err(error)) => failure(StatusCode::CONFLICT, error),
        Err(e) => failure(StatusCode::CONFLICT, format!("the check of {path} broke off: {e}")),
    }
}

/// Where the master has ended, the server closes the connection in place of this answer, as the end of the process would.
fn not_taken(error: NotTaken) -> Reply {
    let mut reply = failure(StatusCode::SERVICE_UNAVAILABLE, error);
    if error == NotTaken::Ended {
        reply.extensions_mut().insert(error);
    }
    reply
}

/// The loop took the request and ended without an answer to it.
fn no_answer() -> Reply {
    not_taken(NotTaken::Ended)
}
