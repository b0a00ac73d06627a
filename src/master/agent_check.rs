//! The master's side of agent checks (`[control] agent_check`): the address, bound, held by the keeper, and served on a thread of its own.
//! What is answered is in `api::agent_check`.
use super::context::Context;
use super::system::System;
use crate::api::{CallSender, agent_check, server};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};

/// Name of its socket in the keeper.
pub(super) const AGENT_CHECK: &str = "control/agent-check";

/// The server, and the address that was configured when it was started.
#[derive(Default)]
pub(super) struct AgentCheck {
    serving: Option<(server::Server, SocketAddr)>,
}

impl AgentCheck {
    /// Serves on this socket, for which this address was configured.
    pub(super) fn serve(
        &mut self,
        cx: &mut Context<impl System>,
        socket: OwnedFd,
        address: SocketAddr,
        sender: CallSender,
    ) {
        cx.keeper.hold(AGENT_CHECK.to_owned(), socket.as_fd());
        let socket = TcpListener::from(socket);
        if let Ok(address) = socket.local_addr() {
            log::info!("agent checks are answered at {address}");
        }
        match agent_check::start(socket, sender) {
            Ok(server) => self.serving = Some((server, address)),
            Err(e) => log::error!("cannot answer agent checks: {e}"),
        }
    }

    /// The address that was configured, where it is served.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.serving.as_ref().map(|(_, address)| *address)
    }

    /// Waits until pending answers are sent.
    pub(super) fn drain(&self) {
        if let Some((server, _)) = &self.serving {
            server.drain();
        }
    }
}
