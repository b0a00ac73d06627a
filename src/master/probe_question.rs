//! What a worker is asked by a probe, and why it may fail. `http_probes` asks.
use super::context::Context;
use super::system::System;
use crate::config::Alive;
use crate::config::warm_up::WarmUp;
use crate::hooks::Command;
use crate::ids::WorkerIx;
use crate::supervisor::Phase;
use crate::text::time_limit;
use crate::worker::http;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Time limit for the status of an answer, in milliseconds.
pub(super) const READY_ANSWER_MS: u64 = 5_000;

/// What a worker is asked for.
pub(super) enum Question<'a> {
    /// Whether it is ready: this path.
    Readiness(&'a str),
    /// The requests that it has to answer before clients reach it.
    WarmUp(&'a WarmUp),
    /// Whether it is still well, in one of three ways.
    Liveness(Way<'a>, &'a Alive),
}

/// How a worker that serves is asked.
#[derive(Clone, Copy)]
pub(super) enum Way<'a> {
    Http(&'a str),
    Tcp,
    Exec(&'a Arc<Command>),
}

impl Question<'_> {
    /// What is asked, in messages. `nth`: how many requests of the warm-up were answered.
    pub(super) fn name(&self, nth: u32) -> String {
        match self {
            Question::WarmUp(warm_up) => {
                let (path, all) = (warm_up.path(nth), warm_up.requests());
                format!("GET {path} (warm-up, {} of {all})", nth.saturating_add(1))
            }
            Question::Readiness(path) | Question::Liveness(Way::Http(path), _) => format!("GET {path}"),
            Question::Liveness(Way::Tcp, _) => "a connection".to_owned(),
            Question::Liveness(Way::Exec(command), _) => {
                let name = command.args.first().map_or_else(Vec::new, Clone::clone);
                String::from_utf8_lossy(&name).into_owned()
            }
        }
    }

    /// The request to send over the connection, after `nth` answers to a warm-up.
    pub(super) fn request(&self, nth: u32) -> Option<Vec<u8>> {
        match self {
            Question::WarmUp(warm_up) => Some(http::request(warm_up.path(nth))),
            Question::Readiness(path) | Question::Liveness(Way::Http(path), _) => Some(http::request(path)),
            Question::Liveness(Way::Tcp | Way::Exec(_), _) => None,
        }
    }

    /// Time limit for the status of an answer, in milliseconds.
    pub(super) fn answer_ms(&self) -> u64 {
        match self {
            Question::Readiness(_) | Question::WarmUp(_) => READY_ANSWER_MS,
            Question::Liveness(_, alive) => in_ms(alive.timeout),
        }
    }
}

pub(super) fn in_ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("was answered with {0}")]
    Status(u16),
    #[error("was not answered in HTTP/1, but with {0}")]
    NotHttp(String),
    #[error(
        "was not answered: the worker closed the connection (probes speak plain HTTP; a server that speaks TLS only closes it)"
    )]
    Closed,
    #[error("was not answered within {}", time_limit(*.0))]
    Late(u64),
    #[error("was not accepted within {}", time_limit(*.0))]
    NotTaken(u64),
    #[error("was refused: nothing listens")]
    Refused,
    #[error("{0}")]
    Command(String),
    #[error("was not run: {0}")]
    NotRun(String),
    #[error("is not answered yet")]
    Pending,
    #[error("is not sent yet: the worker does not read its channel")]
    Unread,
    #[error("is not sent: the worker listens on no TCP port and no Unix socket")]
    NoListener,
    #[error("is not sent yet: cannot connect: {0}")]
    NoConnection(#[from] io::Error),
}

impl Failure {
    /// Whether a worker that serves has to answer for it.
    pub(super) fn is_the_workers(&self) -> bool {
        match self {
            Failure::Status(_) | Failure::NotHttp(_) | Failure::Closed | Failure::Late(_) | Failure::Unread => true,
            Failure::NotTaken(_) | Failure::Refused | Failure::Command(_) => true,
            Failure::Pending | Failure::NoListener | Failure::NoConnection(_) | Failure::NotRun(_) => false,
        }
    }
}

/// What to ask a worker; `None` where it is leaving, or is not configured for probes.
pub(super) fn question(cx: &Context<impl System>, ix: WorkerIx) -> Option<Question<'_>> {
    let worker = cx.workers.get(ix).filter(|worker| !worker.is_beside && worker.drain.is_none())?;
    let app = &cx.apps[worker.app];
    let settings = app.generations.get(&worker.generation)?;
    let alive = &settings.config.alive;
    match app.supervisor.worker(worker.id)?.phase {
        Phase::Starting { warming: Some(_), .. } => settings.config.warm_up.as_ref().map(Question::WarmUp),
        Phase::Starting { warming: None, .. } => settings.path_to_ask().map(Question::Readiness),
        Phase::Ready { .. } => {
            let by_http = alive.http.as_deref().map(Way::Http);
            let by_tcp = alive.tcp.then_some(Way::Tcp);
            by_http.or(by_tcp).or(settings.alive_exec.as_ref().map(Way::Exec)).map(|way| Question::Liveness(way, alive))
        }
        _ => None,
    }
}
