//! The control API: HTTP/1.1 with JSON over the control socket, on a thread of its own. The master's loop answers
//! [`Call`]s and never waits for a client.
use crate::protocol::control;
use tokio::sync::oneshot;

/// What a client asks of the master.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// `GET /v1/apps`, and `GET /v1/apps/NAME` (filtered by the API).
    Deployment,
    /// `POST /v1/apps/NAME/reload`; `None`: `POST /v1/reload`, every app. Answered when the reload has ended.
    Reload { app: Option<String> },
    /// `POST /v1/apps/NAME/scale`. Answered when it is accepted.
    Scale { app: String, workers: String },
    /// `POST /v1/stop` (the whole deployment) or `POST /v1/apps/NAME/stop`. Answered when it has stopped.
    Stop { app: Option<String>, now: bool },
}

/// What the master answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// To [`Request::Deployment`].
    Deployment(Box<control::Deployment>),
    /// It was done (or accepted); status 200.
    Done(String),
    /// No such app; status 404.
    NotFound(String),
    /// It cannot be done now or with these values; status 409.
    Refused(String),
}

/// One question on its way to the master's loop. Dropping `reply` without an answer is an internal error (status 500).
#[derive(Debug)]
pub struct Call {
    /// The question.
    pub request: Request,
    /// Where the answer goes. The client may have left by then.
    pub reply: oneshot::Sender<Answer>,
}
