//! Requests in HTTP: method, path and body of each, for the client that sends and the server that parses them.
use super::access::Rights;
use super::request::{EventQuery, LogQuery, Request, Role, ScaleError, StopMode, Target, View};
use super::types::{
    ReplaceRequest, RollbackRequest, ScaleRequest, SendRequest, SignalRequest, StopRequest, TriggerRequest,
    UpgradeRequest,
};
use crate::limits;
use crate::logs::reading::Kind;
use crate::os::signal;
use hyper::{Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// The meaning of a path, without its app and body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Endpoint {
    Deployment,
    App,
    ReloadAll,
    Reload,
    Releases,
    Rollback,
    Scale,
    ResetCounters,
    Start,
    Restart,
    Delete,
    Replace,
    Signal,
    SendLine,
    Trigger,
    Profile,
    WorkerEnvironment,
    AgentEnvironment,
    Ready,
    StopAll,
    Stop,
    Logs,
    ReopenLogs,
    FlushAllLogs,
    FlushLogs,
    Upgrade,
    Live,
    Readiness,
    AppReadiness,
    Metrics,
    Events,
}

/// Placeholder for an app's name in a path.
const NAME: &str = "NAME";

/// Every path.
const ROUTES: &[(Endpoint, Method, &str)] = &[
    (Endpoint::Deployment, Method::GET, "/v1/apps"),
    (Endpoint::App, Method::GET, "/v1/apps/NAME"),
    (Endpoint::ReloadAll, Method::POST, "/v1/reload"),
    (Endpoint::Reload, Method::POST, "/v1/apps/NAME/reload"),
    (Endpoint::Releases, Method::GET, "/v1/apps/NAME/releases"),
    (Endpoint::Rollback, Method::POST, "/v1/apps/NAME/rollback"),
    (Endpoint::Scale, Method::POST, "/v1/apps/NAME/scale"),
    (Endpoint::ResetCounters, Method::POST, "/v1/apps/NAME/reset"),
    (Endpoint::Start, Method::POST, "/v1/apps/NAME/start"),
    (Endpoint::Restart, Method::POST, "/v1/apps/NAME/restart"),
    (Endpoint::Delete, Method::POST, "/v1/apps/NAME/delete"),
    (Endpoint::Replace, Method::POST, "/v1/apps/NAME/replace"),
    (Endpoint::Signal, Method::POST, "/v1/apps/NAME/signal"),
    (Endpoint::SendLine, Method::POST, "/v1/apps/NAME/send"),
    (Endpoint::Trigger, Method::POST, "/v1/apps/NAME/trigger"),
    (Endpoint::Profile, Method::POST, "/v1/apps/NAME/profile"),
    (Endpoint::WorkerEnvironment, Method::GET, "/v1/apps/NAME/env"),
    (Endpoint::AgentEnvironment, Method::GET, "/v1/apps/NAME/agent/env"),
    (Endpoint::Ready, Method::POST, "/v1/ready"),
    (Endpoint::StopAll, Method::POST, "/v1/stop"),
    (Endpoint::Stop, Method::POST, "/v1/apps/NAME/stop"),
    (Endpoint::Logs, Method::GET, "/v1/logs"),
    (Endpoint::ReopenLogs, Method::POST, "/v1/logs/reopen"),
    (Endpoint::FlushAllLogs, Method::POST, "/v1/logs/flush"),
    (Endpoint::FlushLogs, Method::POST, "/v1/apps/NAME/logs/flush"),
    (Endpoint::Upgrade, Method::POST, "/v1/upgrade"),
    (Endpoint::Live, Method::GET, "/livez"),
    (Endpoint::Readiness, Method::GET, "/readyz"),
    (Endpoint::AppReadiness, Method::GET, "/readyz/NAME"),
    (Endpoint::Metrics, Method::GET, "/metrics"),
    (Endpoint::Events, Method::GET, "/v1/events"),
];

/// Why an HTTP request cannot be parsed.
#[derive(Debug, Error)]
pub(super) enum RouteError {
    #[error("no such path: {0}; the paths are {routes}", routes = all_routes())]
    NoSuchPath(String),
    /// The path wants another method.
    #[error("{path} needs {wanted}, not {used}")]
    WrongMethod { path: String, wanted: Method, used: Method },
    /// The name of the app is not text.
    #[error("the app's name is not UTF-8")]
    Name,
    /// The body has another form.
    #[error("the request body is not valid here: {0}")]
    Body(#[source] serde_json::Error),
    /// The body is missing; an example.
    #[error("the request body has to say {0}")]
    NoBody(&'static str),
    /// An unknown parameter in the query.
    #[error("unknown parameter {0:?}; the parameters are app=NAME, lines=15, follow=true, type=out, slot=0")]
    Query(String),
    /// The same of a query for events.
    #[error("unknown parameter {0:?}; the parameters are app=NAME, after=ID, follow=true")]
    EventQuery(String),
    #[error("unknown parameter {0:?}; the parameter is slot=0")]
    EnvironmentQuery(String),
    /// More lines than the limit of an answer.
    #[error("lines can be {max} at most", max = limits::LOGS_API_LINES_MAX)]
    TooManyLines,
    /// There is no such signal.
    #[error("there is no signal {0:?}")]
    Signal(String),
    /// Not a number of workers.
    #[error(transparent)]
    Scale(#[from] ScaleError),
}

impl RouteError {
    /// The status of the answer.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            RouteError::NoSuchPath(_) => StatusCode::NOT_FOUND,
            RouteError::WrongMethod { .. } => StatusCode::METHOD_NOT_ALLOWED,
            RouteError::Scale(_) => StatusCode::CONFLICT,
            RouteError::Name
            | RouteError::Body(_)
            | RouteError::NoBody(_)
            | RouteError::Query(_)
            | RouteError::EventQuery(_)
            | RouteError::EnvironmentQuery(_)
            | RouteError::TooManyLines
            | RouteError::Signal(_) => StatusCode::BAD_REQUEST,
        }
    }
}

fn all_routes() -> String {
    ROUTES.iter().map(|(_, method, path)| format!("{method} {path}")).collect::<Vec<_>>().join(", ")
}

/// An existing path with its method.
#[derive(Debug)]
pub(super) struct Route {
    endpoint: Endpoint,
    /// The app in the path; empty if it names none.
    app: String,
}

impl Route {
    /// Finds the route for a method and path.
    ///
    /// # Errors
    /// There is no such path, it needs another method, or the app's name is not text.
    pub(super) fn find(method: &Method, path: &str) -> Result<Route, RouteError> {
        let typed: Vec<&str> = path.trim_matches('/').split('/').collect();
        let app_in = |pattern: &str| {
            let parts: Vec<&str> = pattern.trim_matches('/').split('/').collect();
            let fits = parts.len() == typed.len() && parts.iter().zip(&typed).all(|(p, t)| *p == NAME || p == t);
            fits.then(|| parts.iter().zip(&typed).find(|(part, _)| **part == NAME).map_or("", |(_, typed)| typed))
        };
        let found = ROUTES.iter().find_map(|(endpoint, wanted, pattern)| Some((*endpoint, wanted, app_in(pattern)?)));
        let (endpoint, wanted, app) = found.ok_or_else(|| RouteError::NoSuchPath(path.to_owned()))?;
        let app = decode_percent(app).ok_or(RouteError::Name)?;
        if method != wanted {
            let (path, wanted, used) = (path.to_owned(), wanted.clone(), method.clone());
            return Err(RouteError::WrongMethod { path, wanted, used });
        }
        Ok(Route { endpoint, app })
    }

    pub(super) fn takes_body(&self) -> bool {
        match self.endpoint {
            Endpoint::ReloadAll
            | Endpoint::Reload
            | Endpoint::Rollback
            | Endpoint::Scale
            | Endpoint::Start
            | Endpoint::Restart
            | Endpoint::Delete
            | Endpoint::Signal
            | Endpoint::SendLine
            | Endpoint::Replace
            | Endpoint::Trigger
            | Endpoint::Profile
            | Endpoint::StopAll
            | Endpoint::Stop
            | Endpoint::Upgrade => true,
            Endpoint::Deployment
            | Endpoint::App
            | Endpoint::Releases
            | Endpoint::WorkerEnvironment
            | Endpoint::AgentEnvironment
            | Endpoint::Ready
            | Endpoint::Logs
            | Endpoint::ReopenLogs
            | Endpoint::FlushAllLogs
            | Endpoint::FlushLogs
            | Endpoint::ResetCounters
            | Endpoint::Live
            | Endpoint::Readiness
            | Endpoint::AppReadiness
            | Endpoint::Metrics
            | Endpoint::Events => false,
        }
    }

    /// Whether the answer may go on for as long as the client stays.
    pub(super) fn is_stream(&self) -> bool {
        matches!(self.endpoint, Endpoint::Logs | Endpoint::Events)
    }

    /// What a client over TCP needs for it.
    pub(super) fn rights(&self) -> Rights {
        match self.endpoint {
            Endpoint::Live | Endpoint::Readiness | Endpoint::AppReadiness => Rights::Probe,
            Endpoint::Deployment | Endpoint::App | Endpoint::Releases | Endpoint::Events | Endpoint::Metrics => {
                Rights::Look
            }
            Endpoint::Logs => Rights::Read,
            // Environments hold secrets.
            Endpoint::WorkerEnvironment | Endpoint::AgentEnvironment => Rights::Change,
            Endpoint::ReloadAll
            | Endpoint::Reload
            | Endpoint::Rollback
            | Endpoint::Scale
            | Endpoint::ResetCounters
            | Endpoint::Start
            | Endpoint::Restart
            | Endpoint::Delete
            | Endpoint::Signal
            | Endpoint::Ready
            | Endpoint::StopAll
            | Endpoint::Stop
            | Endpoint::ReopenLogs
            | Endpoint::FlushAllLogs
            | Endpoint::FlushLogs
            | Endpoint::SendLine
            | Endpoint::Trigger
            | Endpoint::Profile
            | Endpoint::Replace
            | Endpoint::Upgrade => Rights::Change,
        }
    }

    /// The request, from query and body.
    ///
    /// # Errors
    /// One of them cannot be parsed.
    pub(super) fn request(self, query: Option<&str>, body: &[u8]) -> Result<Request, RouteError> {
        let app = self.app;
        Ok(match self.endpoint {
            Endpoint::Deployment => Request::View(View::Deployment),
            Endpoint::App => Request::View(View::App(app)),
            Endpoint::Live => Request::View(View::Live),
            Endpoint::Readiness => Request::View(View::Ready),
            Endpoint::AppReadiness => Request::View(View::AppReady(app)),
            Endpoint::Metrics => Request::View(View::Metrics),
            Endpoint::Events => Request::View(View::Events(event_query(query)?)),
            Endpoint::Logs => Request::View(View::Logs(log_query(query)?)),
            Endpoint::Ready => Request::Ready,
            Endpoint::ReloadAll => Request::Reload { target: Target::All, change: or_default(body)? },
            Endpoint::Reload => Request::Reload { target: Target::App(app), change: or_default(body)? },
            Endpoint::Releases => Request::Releases { app },
            Endpoint::Rollback => {
                let RollbackRequest { to } = or_default(body)?;
                Request::Rollback { app, to }
            }
            Endpoint::Start => Request::Start { app, change: or_default(body)? },
            Endpoint::Restart => Request::Restart { app, change: or_default(body)? },
            Endpoint::StopAll => Request::Stop { target: Target::All, mode: stop_mode(body)? },
            Endpoint::Stop => Request::Stop { target: Target::App(app), mode: stop_mode(body)? },
            Endpoint::Delete => Request::Delete { app, mode: stop_mode(body)? },
            Endpoint::Scale => {
                let wanted: ScaleRequest = required(body, "how many: {\"workers\": \"4\"}")?;
                Request::Scale { app, to: wanted.workers.parse()? }
            }
            Endpoint::ResetCounters => Request::ResetCounters { app },
            Endpoint::Signal => {
                let wanted: SignalRequest = required(body, "which: {\"signal\": \"SIGUSR2\"}")?;
                let signal = signal::from_name(&wanted.signal).ok_or(RouteError::Signal(wanted.signal))?;
                Request::Signal { app, signal, slot: wanted.slot }
            }
            Endpoint::Replace => {
                let wanted: ReplaceRequest = required(body, "which worker: {\"slot\": 0}")?;
                Request::Replace { app, slot: wanted.slot }
            }
            Endpoint::WorkerEnvironment => {
                Request::Environment { app, of: Role::Worker { slot: environment_slot(query)? } }
            }
            Endpoint::SendLine => {
                let SendRequest { line, slot } = required(body, "what: {\"line\": \"hello\"}")?;
                Request::SendLine { app, slot, line }
            }
            Endpoint::Trigger => {
                let TriggerRequest { action, parameter, slot } = required(body, "which: {\"action\": \"clean\"}")?;
                Request::Trigger { app, slot, action, parameter }
            }
            Endpoint::Profile => Request::Profile {
                app,
                what: required(body, "what: {\"kind\": \"cpu\", \"time_ms\": 10000, \"slot\": 0}")?,
            },
            Endpoint::AgentEnvironment => Request::Environment { app, of: Role::Agent },
            Endpoint::ReopenLogs => Request::ReopenLogs,
            Endpoint::FlushAllLogs => Request::FlushLogs { target: Target::All },
            Endpoint::FlushLogs => Request::FlushLogs { target: Target::App(app) },
            Endpoint::Upgrade => {
                let wanted: UpgradeRequest = required(body, "which binary: {\"binary\": \"/usr/local/bin/clusterd\"}")?;
                Request::Upgrade { binary: wanted.binary }
            }
        })
    }
}

/// A request as a client sends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRequest {
    pub method: Method,
    /// The path with its query.
    pub path: String,
    /// The body; may be empty.
    pub body: Vec<u8>,
}

impl Request {
    /// The HTTP form of the request.
    pub fn to_http(&self) -> HttpRequest {
        let (endpoint, app, body) = match self {
            Request::View(View::Deployment) => (Endpoint::Deployment, None, None),
            Request::View(View::App(app)) => (Endpoint::App, Some(app), None),
            Request::View(View::Live) => (Endpoint::Live, None, None),
            Request::View(View::Ready) => (Endpoint::Readiness, None, None),
            Request::View(View::AppReady(app)) => (Endpoint::AppReadiness, Some(app), None),
            Request::View(View::Metrics) => (Endpoint::Metrics, None, None),
            Request::View(View::Events(_)) => (Endpoint::Events, None, None),
            Request::View(View::Logs(_)) => (Endpoint::Logs, None, None),
            Request::Ready => (Endpoint::Ready, None, None),
            Request::Reload { target: Target::All, change } => (Endpoint::ReloadAll, None, Some(json(change))),
            Request::Reload { target: Target::App(app), change } => (Endpoint::Reload, Some(app), Some(json(change))),
            Request::Releases { app } => (Endpoint::Releases, Some(app), None),
            Request::Rollback { app, to } => (Endpoint::Rollback, Some(app), Some(json(&RollbackRequest { to: *to }))),
            Request::Start { app, change } => (Endpoint::Start, Some(app), Some(json(change))),
            Request::Restart { app, change } => (Endpoint::Restart, Some(app), Some(json(change))),
            Request::Stop { target: Target::All, mode } => (Endpoint::StopAll, None, Some(stop_body(*mode))),
            Request::Stop { target: Target::App(app), mode } => (Endpoint::Stop, Some(app), Some(stop_body(*mode))),
            Request::Delete { app, mode } => (Endpoint::Delete, Some(app), Some(stop_body(*mode))),
            Request::ResetCounters { app } => (Endpoint::ResetCounters, Some(app), None),
            Request::Scale { app, to } => {
                (Endpoint::Scale, Some(app), Some(json(&ScaleRequest { workers: to.to_string() })))
            }
            Request::Replace { app, slot } => {
                (Endpoint::Replace, Some(app), Some(json(&ReplaceRequest { slot: *slot })))
            }
            Request::SendLine { app, slot, line } => {
                (Endpoint::SendLine, Some(app), Some(json(&SendRequest { line: line.clone(), slot: *slot })))
            }
            Request::Signal { app, signal, slot } => {
                let body = SignalRequest { signal: signal.to_string(), slot: *slot };
                (Endpoint::Signal, Some(app), Some(json(&body)))
            }
            Request::Environment { app, of: Role::Worker { .. } } => (Endpoint::WorkerEnvironment, Some(app), None),
            Request::Trigger { app, slot, action, parameter } => {
                let (action, parameter, slot) = (action.clone(), parameter.clone(), *slot);
                (Endpoint::Trigger, Some(app), Some(json(&TriggerRequest { action, parameter, slot })))
            }
            Request::Profile { app, what } => (Endpoint::Profile, Some(app), Some(json(what))),
            Request::Environment { app, of: Role::Agent } => (Endpoint::AgentEnvironment, Some(app), None),
            Request::ReopenLogs => (Endpoint::ReopenLogs, None, None),
            Request::FlushLogs { target: Target::All } => (Endpoint::FlushAllLogs, None, None),
            Request::FlushLogs { target: Target::App(app) } => (Endpoint::FlushLogs, Some(app), None),
            Request::Upgrade { binary } => {
                (Endpoint::Upgrade, None, Some(json(&UpgradeRequest { binary: binary.clone() })))
            }
        };
        let route = ROUTES.iter().find(|(other, ..)| *other == endpoint);
        let (method, pattern) = route.map_or((Method::GET, "/"), |(_, method, path)| (method.clone(), *path));
        let mut path = match app {
            Some(app) => pattern.replace(NAME, &encode_percent(app)),
            None => pattern.to_owned(),
        };
        if let Request::View(View::Events(query)) = self {
            path.push('?');
            path.push_str(&event_query_text(query));
        }
        if let Request::View(View::Logs(query)) = self {
            path.push('?');
            path.push_str(&query_text(query));
        }
        if let Request::Environment { of: Role::Worker { slot: slot @ 1.. }, .. } = self {
            path.push_str(&format!("?slot={slot}"));
        }
        HttpRequest { method, path, body: body.unwrap_or_default() }
    }
}

// ---- bodies ----

fn json<T: Serialize>(body: &T) -> Vec<u8> {
    // Keys are text and numbers are finite: serialization cannot fail.
    serde_json::to_vec(body).unwrap_or_default()
}

fn stop_body(mode: StopMode) -> Vec<u8> {
    json(&StopRequest { now: mode.is_now() })
}

fn stop_mode(body: &[u8]) -> Result<StopMode, RouteError> {
    or_default(body).map(|StopRequest { now }| StopMode::from_now(now))
}

/// The body, which may be empty.
fn or_default<T: DeserializeOwned + Default>(body: &[u8]) -> Result<T, RouteError> {
    if body.is_empty() { Ok(T::default()) } else { serde_json::from_slice(body).map_err(RouteError::Body) }
}

fn required<T: DeserializeOwned>(body: &[u8], example: &'static str) -> Result<T, RouteError> {
    if body.is_empty() {
        return Err(RouteError::NoBody(example));
    }
    serde_json::from_slice(body).map_err(RouteError::Body)
}

// ---- queries ----

/// The slot whose environment is wanted.
fn environment_slot(query: Option<&str>) -> Result<u32, RouteError> {
    let Some(word) = query.filter(|query| !query.is_empty()) else { return Ok(0) };
    let slot = word.strip_prefix("slot=").and_then(|slot| slot.parse().ok());
    slot.ok_or_else(|| RouteError::EnvironmentQuery(word.to_owned()))
}

fn log_query(text: Option<&str>) -> Result<LogQuery, RouteError> {
    let mut query = LogQuery::default();
    for word in text.unwrap_or_default().split('&').filter(|word| !word.is_empty()) {
        let bad = || RouteError::Query(word.to_owned());
        let (key, value) = word.split_once('=').ok_or_else(bad)?;
        match key {
            "app" => query.apps.push(decode_percent(value).ok_or_else(bad)?),
            "lines" => {
                query.lines = value.parse().map_err(|_| bad())?;
                if query.lines > limits::LOGS_API_LINES_MAX {
                    return Err(RouteError::TooManyLines);
                }
            }
            "follow" => query.follow = value.parse().map_err(|_| bad())?,
            "slot" => query.filter.slot = Some(value.parse().map_err(|_| bad())?),
            "type" => {
                let kind = [Kind::Out, Kind::Err].into_iter().find(|kind| kind.word() == value);
                query.filter.kind = Some(kind.ok_or_else(bad)?);
            }
            _ => return Err(bad()),
        }
    }
    Ok(query)
}

fn query_text(query: &LogQuery) -> String {
    let mut words: Vec<String> = query.apps.iter().map(|app| format!("app={}", encode_percent(app))).collect();
    words.push(format!("lines={}", query.lines));
    words.push(format!("follow={}", query.follow));
    words.extend(query.filter.kind.map(|kind| format!("type={}", kind.word())));
    words.extend(query.filter.slot.map(|slot| format!("slot={slot}")));
    words.join("&")
}

// ---- the query of events ----

fn event_query(text: Option<&str>) -> Result<EventQuery, RouteError> {
    let mut query = EventQuery::default();
    for word in text.unwrap_or_default().split('&').filter(|word| !word.is_empty()) {
        let bad = || RouteError::EventQuery(word.to_owned());
        match word.split_once('=').ok_or_else(bad)? {
            ("app", name) => query.apps.push(decode_percent(name).ok_or_else(bad)?),
            ("after", id) => query.after = Some(id.parse().map_err(|_| bad())?),
            ("follow", follow) => query.follow = follow.parse().map_err(|_| bad())?,
            _ => return Err(bad()),
        }
    }
    Ok(query)
}

fn event_query_text(query: &EventQuery) -> String {
    let mut words: Vec<String> = query.apps.iter().map(|app| format!("app={}", encode_percent(app))).collect();
    words.extend(query.after.map(|id| format!("after={id}")));
    words.push(format!("follow={}", query.follow));
    words.join("&")
}

// ---- names in paths ----

/// Decodes `%2F` and the like; `None` if the result is not UTF-8.
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

/// Encodes bytes that a path or query must not contain as `%2F` and the like.
fn encode_percent(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let byte = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(byte).collect()
}

#[cfg(test)]
#[path = "routes_tests.rs"]
mod tests;
