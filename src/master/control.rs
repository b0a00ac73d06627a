//! The master's side of the control API: its socket, the calls from its thread, and the clients that wait for an
//! answer.
use super::context::Context;
use super::waiters::Waiters;
use crate::api::{self, CallReceiver};
use crate::os::user;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Default)]
pub(super) struct Control {
    /// Requests of clients, once the API is served.
    pub(super) calls: Option<CallReceiver>,
    server: Option<api::server::Server>,
    /// Path of the socket, which is removed at the end.
    path: Option<PathBuf>,
    pub(super) waiters: Waiters,
}

impl Control {
    /// Serves the API on its own thread.
    pub(super) fn serve(&mut self, cx: &Context, socket: UnixListener) {
        self.path = socket.local_addr().ok().and_then(|at| at.as_pathname().map(Path::to_owned));
        let (sender, receiver) = api::channel(Arc::clone(&cx.wake));
        self.calls = Some(receiver);
        match api::server::start(socket, sender, user::own_uid()) {
            Ok(server) => self.server = Some(server),
            Err(e) => log::error!("the control socket cannot be served: {e}"),
        }
    }

    /// Waits until pending answers are sent.
    pub(super) fn drain(&self) {
        if let Some(server) = &self.server {
            server.drain();
        }
    }

    /// Path of the socket, for the caller to remove; returned once.
    pub(super) fn take_path(&mut self) -> Option<PathBuf> {
        self.path.take()
    }
}
