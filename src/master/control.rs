//! The master's side of the control API: its socket, the calls from its thread, and the clients that wait for an
//! answer.
use super::context::Context;
use super::start::CONTROL_SOCKET;
use super::system::System;
use super::waiters::Waiters;
use crate::api::{self, Call, CallReceiver, CallSender};
use crate::home;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Time that one turn of the loop spends on requests, in microseconds; one is always answered.
const CALLS_TURN_US: u64 = 2_000;

/// Pause after a turn that left requests unanswered, in milliseconds.
const CALLS_REST_MS: u64 = 1;

#[derive(Default)]
pub(super) struct Control {
    /// Requests of clients, once the API is served; and what its thread sends them with.
    calls: Option<CallReceiver>,
    sender: Option<CallSender>,
    /// Requests may wait.
    any_waits: bool,
    /// Requests are answered from this time on (monotonic milliseconds).
    rest_until_ms: u64,
    server: Option<api::server::Server>,
    /// Path of the socket, which is removed at the end.
    path: Option<PathBuf>,
    /// It was logged that the socket is missing and cannot be bound again.
    told_missing: bool,
    pub(super) waiters: Waiters,
}

impl Control {
    /// Serves the API on its own thread.
    pub(super) fn serve(&mut self, cx: &Context<impl System>, socket: UnixListener) {
        self.path = socket.local_addr().ok().and_then(|at| at.as_pathname().map(Path::to_owned));
        let sender = self.sender.take().unwrap_or_else(|| {
            let (sender, receiver) = api::channel(Arc::clone(&cx.wake));
            self.calls = Some(receiver);
            sender
        });
        self.sender = Some(sender.clone());
        if let Some(before) = self.server.take() {
            before.leave();
        }
        match api::server::start(socket, sender, cx.system.own_uid()) {
            Ok(server) => self.server = Some(server),
            Err(e) => log::error!("the control socket cannot be served: {e}"),
        }
    }

    /// Binds the socket again if its file is gone: whatever clears old files takes it for one. Nothing else could reach
    /// this run. (The keeper holds the lock on its name, so nobody else's socket is at the path.)
    pub(super) fn restore(&mut self, cx: &mut Context<impl System>) {
        let Some(path) = self.path.clone().filter(|path| cx.system.socket_file(path).is_none()) else { return };
        match home::bind_control(&path) {
            Ok(socket) => {
                log::warn!("{} was removed by somebody; it is there again", path.display());
                cx.keeper.hold(CONTROL_SOCKET.to_owned(), socket.as_fd());
                self.serve(cx, socket);
                self.told_missing = false;
            }
            Err(e) if !std::mem::replace(&mut self.told_missing, true) => {
                log::warn!("the control socket was removed by somebody, and cannot be bound again: {e}");
            }
            Err(_) => {}
        }
    }

    /// Requests may have come.
    pub(super) fn woke(&mut self) {
        self.any_waits = true;
    }

    /// When waiting requests are answered, in monotonic milliseconds.
    pub(super) fn due_ms(&self) -> Option<u64> {
        self.any_waits.then_some(self.rest_until_ms)
    }

    /// The next request, unless this turn, which began at `turn_us`, has answered enough of them.
    pub(super) fn next_call(&mut self, cx: &Context<impl System>, turn_us: u64) -> Option<Call> {
        if !self.any_waits || cx.now_ms < self.rest_until_ms {
            return None;
        }
        if cx.system.now_us() >= turn_us + CALLS_TURN_US {
            self.rest_until_ms = cx.now_ms + CALLS_REST_MS;
            return None;
        }
        let call = self.calls.as_mut().and_then(CallReceiver::try_next);
        self.any_waits = call.is_some();
        call
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
