//! The control API: HTTP/1.1 with JSON over the control socket, on a thread of its own. The master's loop answers
//! [`Call`]s and never waits for a client.
//!
//! `types` and `request` are shared by server, command line and master; `routes` alone maps requests to HTTP.
pub mod access;
pub(crate) mod agent_check;
pub mod app_metrics;
mod audit;
pub mod events;
mod handler;
mod logs;
mod metrics;
mod page;
mod reply;
pub mod request;
mod routes;
pub mod server;
pub mod tls;
pub mod types;
mod upgrade;
mod usage;
pub mod warnings;
pub(crate) mod write_timeout;

pub use request::Request;
pub use routes::HttpRequest;
pub use types::Change;
pub use upgrade::{CAN_TAKE_OVER, UPGRADE_ARGV0};

use crate::limits;
use crate::logs::Tail;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use thiserror::Error;
use tokio::sync::oneshot;

/// An order for the master's loop.
#[derive(Clone, Debug)]
pub enum Order {
    /// A client's request. [`Request::Upgrade`] is answered with a snapshot.
    Request(Request),
    /// The second part of an upgrade: this binary has checked the snapshot and can take over.
    TakeOver { path: String, binary: Arc<OwnedFd> },
    /// The deployment, and the metrics of its apps: workers are asked for theirs, and what they answer comes later.
    Scrape { answers: app_metrics::AnswerSender },
}

#[derive(Clone, Debug)]
pub enum Answer {
    /// To [`Request::View`].
    Deployment(Box<types::Deployment>),
    /// To [`Order::Scrape`]: where metrics of apps are too.
    Scrape(Box<types::Deployment>, Vec<app_metrics::Source>),
    /// To [`Request::Environment`].
    Environment(BTreeMap<String, String>),
    /// To [`Request::Releases`].
    Releases(Vec<types::Release>),
    /// To [`Request::Upgrade`]: a file with everything that a successor would find.
    Snapshot(Arc<OwnedFd>),
    /// It was done (or accepted); status 200.
    Done(String),
    /// No such app; status 404.
    NotFound(String),
    /// Not possible now or with these values; status 409.
    Refused(String),
    /// It was tried and failed; status 409. `said`: the last lines of the worker that made it fail.
    Failed { error: String, said: Option<Arc<Tail>> },
    /// One of the others, and what was logged as a warning meanwhile.
    Warned { answer: Box<Answer>, warnings: Vec<String> },
}

/// An order on its way to the master's loop. Dropping `reply` without an answer is an internal error (status 500).
#[derive(Debug)]
pub struct Call {
    pub order: Order,
    /// The sender of the answer. The client may have left by then.
    pub reply: ReplySender,
}

/// Sends the answer to a client.
pub type ReplySender = oneshot::Sender<Answer>;

/// For requests without a client.
pub fn unheard() -> ReplySender {
    oneshot::channel().0
}

/// The API's end of the queue: pushes calls and wakes the master's loop. Cheap to clone.
#[derive(Clone)]
pub struct CallSender {
    queue: SyncSender<Call>,
    wake: Arc<dyn Fn() + Send + Sync>,
}

/// The master's end of the queue.
pub struct CallReceiver {
    queue: Receiver<Call>,
}

/// Why an order does not reach the master's loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NotTaken {
    #[error("too many requests wait; try again in a moment")]
    Full,
    /// The process will end too, in a moment.
    #[error("the master has ended")]
    Ended,
}

/// A bounded queue of calls; `wake` is called after each push.
pub fn channel(wake: Arc<dyn Fn() + Send + Sync>) -> (CallSender, CallReceiver) {
    let (sender, receiver) = sync_channel(limits::CONTROL_QUEUE_MAX);
    (CallSender { queue: sender, wake }, CallReceiver { queue: receiver })
}

impl CallSender {
    /// Passes an order to the master's loop; the receiver gets the answer.
    ///
    /// # Errors
    /// The queue is full, or the master's loop has ended.
    pub fn order(&self, order: Order) -> Result<oneshot::Receiver<Answer>, NotTaken> {
        let (reply, answered) = oneshot::channel();
        match self.queue.try_send(Call { order, reply }) {
            Ok(()) => {
                (self.wake)();
                Ok(answered)
            }
            Err(TrySendError::Full(_)) => Err(NotTaken::Full),
            Err(TrySendError::Disconnected(_)) => Err(NotTaken::Ended),
        }
    }
}

impl CallReceiver {
    /// The next call, if there is one.
    pub fn try_next(&mut self) -> Option<Call> {
        self.queue.try_recv().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use request::View;

    #[test]
    fn a_full_queue_and_a_master_that_has_ended_are_told_apart() {
        let (calls, receiver) = channel(Arc::new(|| {}));
        let order = || calls.order(Order::Request(Request::View(View::Deployment))).map(drop);
        for _ in 0..limits::CONTROL_QUEUE_MAX {
            assert_eq!(order(), Ok(()));
        }
        assert_eq!(order(), Err(NotTaken::Full));
        drop(receiver);
        assert_eq!(order(), Err(NotTaken::Ended));
    }
}
