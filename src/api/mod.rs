//! The control API: HTTP/1.1 with JSON over the control socket, on a thread of its own. The master's loop answers
//! [`Call`]s and never waits for a client.
mod logs;
pub mod server;
pub mod types;
mod upgrade;
mod usage;

pub use upgrade::{CAN_TAKE_OVER, UPGRADE_ARGV0};

use crate::config::sources::Sources;
use crate::limits;
use crate::logs::Tail;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use tokio::sync::oneshot;

/// What a client asks of the master.
#[derive(Clone, Debug)]
pub enum Request {
    /// `GET /v1/apps`, and `GET /v1/apps/NAME` (filtered by the API).
    Deployment,
    /// `POST /v1/apps/NAME/reload`; `None`: `POST /v1/reload`, every app. Answered when the reload has ended.
    Reload { app: Option<String>, change: Change },
    /// `POST /v1/ready`. Answered when every app is ready, or its start has failed.
    Ready,
    /// `POST /v1/apps/NAME/start` and `/restart`. Answered when the app is ready, or its start has failed.
    Start { app: String, restart: bool, change: Change },
    /// `POST /v1/apps/NAME/delete`. Answered when nothing of it is left.
    Delete { app: String, now: bool },
    /// `POST /v1/apps/NAME/signal`. Answered when it was asked for.
    Signal { app: String, signal: i32 },
    /// `GET /v1/apps/NAME/env`, and `GET /v1/apps/NAME/agent/env`.
    Environment { app: String, agent: bool },
    /// `POST /v1/apps/NAME/scale`. Answered when it is accepted.
    Scale { app: String, workers: String },
    /// `POST /v1/stop` (the whole deployment) or `POST /v1/apps/NAME/stop`. Answered when it has stopped.
    Stop { app: Option<String>, now: bool },
    /// `POST /v1/logs/reopen`. Answered when every file is open again.
    ReopenLogs,
    /// `POST /v1/apps/NAME/logs/flush`; `None`: `POST /v1/logs/flush`, every app. Answered when they are empty.
    FlushLogs { app: Option<String> },
    /// First part of `POST /v1/upgrade`: what a successor would find.
    Snapshot,
    /// The second: this binary says that it can take over.
    Upgrade { path: String, binary: Arc<OwnedFd> },
}

/// What a reload or a start is made from, where it is not what was typed at first.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// A new environment to which apps add theirs.
    pub env: Option<BTreeMap<String, String>>,
    /// Something else altogether.
    pub sources: Option<Box<Sources>>,
}

/// What the master answers.
#[derive(Clone, Debug)]
pub enum Answer {
    /// To [`Request::Deployment`].
    Deployment(Box<types::Deployment>),
    /// To [`Request::Environment`].
    Environment(BTreeMap<String, String>),
    /// To [`Request::Snapshot`]: a file with it.
    Snapshot(Arc<OwnedFd>),
    /// It was done (or accepted); status 200.
    Done(String),
    /// No such app; status 404.
    NotFound(String),
    /// It cannot be done now or with these values; status 409.
    Refused(String),
    /// It was tried and did not work; status 409. `said`: what the worker printed that made it fail.
    Failed { error: String, said: Option<Arc<Tail>> },
}

/// One question on its way to the master's loop. Dropping `reply` without an answer is an internal error (status 500).
#[derive(Debug)]
pub struct Call {
    /// The question.
    pub request: Request,
    /// Where the answer goes. The client may have left by then.
    pub reply: ReplySender,
}

/// The way of an answer to who asked.
pub type ReplySender = oneshot::Sender<Answer>;

/// For what nobody asked for.
pub fn unheard() -> ReplySender {
    oneshot::channel().0
}

/// The API's end: pushes calls and wakes the master's loop. Cheap to copy.
#[derive(Clone)]
pub struct CallSender {
    queue: SyncSender<Call>,
    wake: Arc<dyn Fn() + Send + Sync>,
}

/// The master's end.
pub struct CallReceiver {
    queue: Receiver<Call>,
}

/// A bounded queue of calls; `wake` is called after each push.
pub fn channel(wake: Arc<dyn Fn() + Send + Sync>) -> (CallSender, CallReceiver) {
    let (sender, receiver) = sync_channel(limits::CONTROL_QUEUE_MAX);
    (CallSender { queue: sender, wake }, CallReceiver { queue: receiver })
}

impl CallSender {
    /// Pushes a call; gives it back when the queue is full or the master is gone.
    ///
    /// # Errors
    /// The call itself.
    pub fn push(&self, call: Call) -> Result<(), Call> {
        self.queue.try_send(call).map_err(|e| match e {
            std::sync::mpsc::TrySendError::Full(call) | std::sync::mpsc::TrySendError::Disconnected(call) => call,
        })?;
        (self.wake)();
        Ok(())
    }
}

impl CallReceiver {
    /// The next call, if one waits.
    pub fn try_next(&mut self) -> Option<Call> {
        self.queue.try_recv().ok()
    }
}
