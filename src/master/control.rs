//! The master's side of the control API: its socket, the calls from its thread, and the clients that wait for an
//! answer.
use super::agent_check::AgentCheck;
use super::context::Context;
use super::reload::resolve;
use super::start::{CONTROL_SOCKET, CONTROL_TCP};
use super::system::System;
use super::timers::Timer;
use super::waiters::Waiters;
use crate::api::access::{Access, AccessError};
use crate::api::tls::{Tls, TlsError};
use crate::api::{self, Call, CallReceiver, CallSender};
use crate::config::Listen;
use crate::config::control::Control as Settings;
use crate::home;
use crate::limits;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;

/// Time that one turn of the loop spends on requests, in microseconds; one is always answered.
const CALLS_TURN_US: u64 = 2_000;

/// Pause after a turn that left requests unanswered, in milliseconds.
const CALLS_REST_MS: u64 = 1;

#[derive(Default)]
pub(super) struct Control {
    /// Requests of clients, once the API is served; and what its thread sends them with.
    calls: Option<CallReceiver>,
    sender: Option<CallSender>,
    /// Requests are answered from this time on (monotonic milliseconds).
    rest_until_ms: u64,
    server: Option<api::server::Server>,
    /// The server over TCP, and what it was started with.
    tcp: Option<(api::server::Server, Settings)>,
    agent_check: AgentCheck,
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
        let sender = self.sender(cx);
        if let Some(before) = self.server.take() {
            before.leave();
        }
        match cx.system.serve_control(socket, sender) {
            Ok(server) => self.server = Some(server),
            Err(e) => {
                log::error!("cannot serve the control socket: {e}; ls, reload, scale and stop cannot reach this run")
            }
        }
    }

    fn sender(&mut self, cx: &Context<impl System>) -> CallSender {
        let sender = self.sender.get_or_insert_with(|| {
            let (sender, receiver) = api::channel(Arc::clone(&cx.wake));
            self.calls = Some(receiver);
            sender
        });
        sender.clone()
    }

    /// Serves the API over TCP, on another thread.
    pub(super) fn serve_tcp(&mut self, cx: &mut Context<impl System>, tcp: Tcp) {
        let Tcp { socket, access, tls, settings } = tcp;
        cx.keeper.hold(CONTROL_TCP.to_owned(), socket.as_fd());
        let socket = TcpListener::from(socket);
        if let Ok(address) = socket.local_addr() {
            let at = TcpAddress { address, is_tls: tls.is_some(), has_page: settings.page };
            log::info!("the control API is at {}", at.url());
            cx.deployment.control = Some(at);
        }
        if !settings.is_loopback() && tls.is_none() {
            log::warn!(
                "the control API at {} is not encrypted: tokens cross the network in clear text; set tls_cert and tls_key (docs/monitoring.md)",
                settings.listen
            );
        }
        let sender = self.sender(cx);
        match api::server::start_tcp(socket, sender, access, tls) {
            Ok(server) => self.tcp = Some((server, settings)),
            Err(e) => log::error!("cannot serve the control API over TCP: {e}"),
        }
    }

    /// Answers agent checks on this socket, for which this address was configured.
    pub(super) fn serve_agent_check(&mut self, cx: &mut Context<impl System>, socket: OwnedFd, address: SocketAddr) {
        let sender = self.sender(cx);
        self.agent_check.serve(cx, socket, address, sender);
    }

    /// Continues to serve over TCP what the previous master did; binds an address whose socket is not held.
    pub(super) fn resume_tcp(&mut self, cx: &mut Context<impl System>, held: Option<OwnedFd>, check: Option<OwnedFd>) {
        let config = cx.deployment.current_sources().and_then(|sources| resolve(sources).ok());
        let Some(config) = config else { return };
        if let Some(address) = config.agent_check {
            match check.map_or_else(|| bind(&cx.system, address), Ok) {
                Ok(socket) => self.serve_agent_check(cx, socket, address),
                Err(e) => log::error!("{e}"),
            }
        }
        let Some(settings) = config.control else { return };
        let tcp = match held {
            Some(socket) => Tcp::with(socket, settings),
            None => Tcp::bind(&cx.system, settings),
        };
        match tcp {
            Ok(tcp) => self.serve_tcp(cx, tcp),
            Err(e) => log::error!("{e}"),
        }
    }

    /// Says that a changed `[control]` waits for the next start.
    pub(super) fn compare(&self, cx: &Context<impl System>) {
        let config = cx.deployment.current_sources().and_then(|sources| resolve(sources).ok());
        let (wanted, agent_check) = config.map_or((None, None), |config| (config.control, config.agent_check));
        let serves = self.tcp.as_ref().map(|(_, settings)| settings);
        if serves != wanted.as_ref() || self.agent_check.address() != agent_check {
            log::warn!("[control] has changed, which takes effect when clusterd is started again");
        }
    }

    /// Binds the socket again if its file is gone: whatever clears old files takes it for one. Nothing else could reach
    /// this run. (The keeper holds the lock on its name, so nobody else's socket is at the path.)
    pub(super) fn restore(&mut self, cx: &mut Context<impl System>) {
        let Some(path) = self.path.clone().filter(|path| cx.system.socket_file(path).is_none()) else { return };
        match home::bind_control(&path) {
            Ok(socket) => {
                log::warn!("{} was removed; it was bound again", path.display());
                cx.keeper.hold(CONTROL_SOCKET.to_owned(), socket.as_fd());
                self.serve(cx, socket);
                self.told_missing = false;
            }
            Err(e) if !std::mem::replace(&mut self.told_missing, true) => {
                log::warn!(
                    "the control socket was removed and cannot be bound again: {e}; ls, reload, scale and stop cannot reach this run"
                );
            }
            Err(_) => {}
        }
    }

    /// Requests may have come.
    pub(super) fn woke(&self, cx: &mut Context<impl System>) {
        cx.timers.set(Timer::Calls, self.rest_until_ms.max(cx.now_ms));
    }

    /// The next request, unless this turn, which began at `turn_us`, has answered enough of them.
    pub(super) fn next_call(&mut self, cx: &mut Context<impl System>, turn_us: u64) -> Option<Call> {
        if cx.system.now_us() >= turn_us + CALLS_TURN_US {
            self.rest_until_ms = cx.now_ms + CALLS_REST_MS;
            cx.timers.set(Timer::Calls, self.rest_until_ms);
            return None;
        }
        self.calls.as_mut().and_then(CallReceiver::try_next)
    }

    /// Waits until pending answers are sent.
    pub(super) fn drain(&self) {
        for server in self.server.iter().chain(self.tcp.iter().map(|(server, _)| server)) {
            server.drain();
        }
        self.agent_check.drain();
    }

    /// Path of the socket, for the caller to remove; returned once.
    pub(super) fn take_path(&mut self) -> Option<PathBuf> {
        self.path.take()
    }
}

/// Why the control API cannot be had over TCP.
#[derive(Debug, Error)]
pub(super) enum ControlError {
    #[error("[control] cannot listen on {address}: {}", holder.clone().unwrap_or_else(|| source.to_string()))]
    Bind { address: Listen, source: io::Error, holder: Option<String> },
    #[error("[control]: {0}")]
    Access(#[from] AccessError),
    #[error("[control]: {0}")]
    Tls(#[from] TlsError),
}

/// Binds an address of `[control]`.
///
/// # Errors
/// It is taken or not allowed.
pub(super) fn bind(system: &impl System, address: SocketAddr) -> Result<OwnedFd, ControlError> {
    system.bind_tcp(address, true, limits::LISTEN_BACKLOG).map_err(|source| {
        let in_use = source.kind() == io::ErrorKind::AddrInUse;
        let holder = in_use.then(|| super::address_in_use::in_use(system.tcp_port_holder(address).as_ref()));
        ControlError::Bind { address: Listen::Tcp(address), source, holder }
    })
}

/// The address of the control API, bound, with its rules.
pub(super) struct Tcp {
    socket: OwnedFd,
    access: Access,
    tls: Option<Tls>,
    settings: Settings,
}

/// Where the control API is over TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TcpAddress {
    address: SocketAddr,
    is_tls: bool,
    pub(super) has_page: bool,
}

impl TcpAddress {
    pub(super) fn url(self) -> String {
        let scheme = if self.is_tls { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }
}

impl Tcp {
    /// Binds the address and prepares the tokens.
    ///
    /// # Errors
    /// The address is taken or not allowed; a token's file cannot be used.
    pub(super) fn bind(system: &impl System, settings: Settings) -> Result<Tcp, ControlError> {
        let socket = bind(system, settings.listen)?;
        Tcp::with(socket, settings)
    }

    fn with(socket: OwnedFd, settings: Settings) -> Result<Tcp, ControlError> {
        let tls = settings.tls.as_ref().map(|(certificate, key)| Tls::new(certificate, key)).transpose()?;
        Ok(Tcp { socket, access: Access::prepare(&settings)?, tls, settings })
    }
}
