//! The master's side of the control API: its socket, the calls that come from its thread, and who waits for an answer.
use super::context::Context;
use super::waiters::Waiters;
use crate::api::{self, CallReceiver};
use crate::os::user;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The control API as the loop knows it.
#[derive(Default)]
pub(super) struct Control {
    /// What clients ask, once it is served.
    pub(super) calls: Option<CallReceiver>,
    server: Option<api::server::Server>,
    /// The socket's file, which is removed at the end.
    path: Option<PathBuf>,
    pub(super) waiters: Waiters,
}

impl Control {
    /// Serves the API on a thread of its own.
    pub(super) fn serve(&mut self, cx: &Context, socket: UnixListener) {
        self.path = socket.local_addr().ok().and_then(|at| at.as_pathname().map(Path::to_owned));
        let (sender, receiver) = api::channel(Arc::clone(&cx.wake));
        self.calls = Some(receiver);
        match api::server::start(socket, sender, user::own_uid()) {
            Ok(server) => self.server = Some(server),
            Err(e) => log::error!("the control socket cannot be served: {e}"),
        }
    }

    /// Lets answers that are under way go out.
    pub(super) fn drain(&self) {
        if let Some(server) = &self.server {
            server.drain();
        }
    }

    /// The socket's file, once: whoever takes it removes it.
    pub(super) fn take_path(&mut self) -> Option<PathBuf> {
        self.path.take()
    }
}
