//! How clusterd talks to a worker. [`WorkerProtocol`] is what a protocol decides: what a spawn needs, who accepts, how a worker
//! is told to leave. Each has a file: `node`, `bind`, `listen_fds`, `plain`. `notify` and `http` read what a worker says of itself, under
//! whatever protocol. What follows from all that is decided in the master; what settings go with a protocol is in
//! `config::protocol`.
pub mod bind;
pub mod http;
pub mod listen_fds;
pub mod node;
pub mod notify;
pub mod plain;

use crate::config::{self, Protocol, ProtocolKind, Said};
use crate::ids::Slot;
use crate::program::ProgramKind;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;

/// The environment of a process.
pub type Environment = BTreeMap<OsString, OsString>;

/// The first fd of a worker after its standard ones; others follow.
pub const FIRST_FD: i32 = 3;

/// The fds of a worker from [`FIRST_FD`] on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inherited {
    /// None.
    Nothing,
    /// Its end of a channel, over which it asks for sockets.
    Channel,
    /// The sockets of the configured addresses, in order.
    Listeners,
}

/// How a worker is told to leave once it gets no new connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// By lines over its channel; it then finishes its connections.
    Message,
    /// By SIGTERM.
    Signal,
}

/// The part of a spawn that a protocol needs.
#[derive(Clone, Copy, Debug)]
pub struct Spawn<'a> {
    /// The worker's app.
    pub app: &'a config::App,
    /// Counts the workers of the app, from 1: `cluster.worker.id`.
    pub number: u64,
    pub slot: Slot,
    /// Names of the sockets that it inherits.
    pub listen_names: &'a [String],
    /// Value of `NOTIFY_SOCKET`.
    pub notify: Option<&'a str>,
    /// The file of the script that it loads before the app.
    pub preload: Option<&'a str>,
}

/// The decisions of a protocol. No other code asks which protocol a worker has; an answer that depends on it is a
/// method here.
pub trait WorkerProtocol: fmt::Debug + Sync {
    /// Its entry in the configuration.
    fn kind(&self) -> ProtocolKind;

    // ---- spawn ----

    /// The fds of a worker in addition to its standard ones.
    fn inherited(&self) -> Inherited;

    /// Every variable that the protocol sets, so that none of them is inherited from clusterd's own environment.
    fn variables(&self) -> &'static [&'static str];

    /// Adds its variables.
    fn environment(&self, spawn: &Spawn<'_>, env: &mut Environment);

    /// The command line: as configured, unless the protocol adds something.
    fn arguments(&self, spawn: &Spawn<'_>, _env: &Environment) -> Vec<String> {
        spawn.app.command.clone()
    }

    /// Whether its calls of bind(2) and listen(2) are intercepted.
    fn intercepts(&self) -> bool {
        false
    }

    /// Whether the process needs `LISTEN_PID`.
    fn needs_listen_pid(&self) -> bool {
        false
    }

    /// Whether the worker gets a notify socket.
    fn has_notify_socket(&self) -> bool {
        self.kind().rules().evidence.contains(&Said::Notify)
    }

    /// Whether the worker can load a script before the app that gives connections back.
    fn has_preload(&self) -> bool {
        false
    }

    // ---- connections ----

    /// Whether the master can hand single connections to the worker, and so accept in its place in any balance mode.
    fn can_be_handed_connections(&self) -> bool {
        self.kind().rules().can_be_handed_connections
    }

    /// Whether workers accept connections of the configured addresses.
    fn takes_connections(&self) -> bool {
        self.kind().rules().takes_connections
    }

    /// Whether the sockets that it inherits block, as programs expect that never set O_NONBLOCK.
    fn wants_blocking_sockets(&self) -> bool {
        true
    }

    // ---- health and end ----

    /// Whether a worker that hangs can be asked where it stands.
    fn leaves_hang_reports(&self) -> bool {
        false
    }

    /// How it is told to leave.
    fn farewell(&self) -> Farewell {
        Farewell::Signal
    }
}

/// What speaks this protocol.
pub fn protocol(kind: ProtocolKind) -> &'static dyn WorkerProtocol {
    match kind {
        ProtocolKind::Node => &node::Node,
        ProtocolKind::Bind => &bind::Bind,
        ProtocolKind::ListenFds => &listen_fds::ListenFds,
        ProtocolKind::Plain => &plain::Plain,
    }
}

/// The protocol of an app: the typed one, or by its program.
pub fn decide(typed: Protocol, program: ProgramKind) -> ProtocolKind {
    match (typed, program) {
        (Protocol::Exactly(kind), _) => kind,
        (Protocol::Auto, ProgramKind::Node) => ProtocolKind::Node,
        (Protocol::Auto, _) => ProtocolKind::Bind,
    }
}

/// Whether a variable is one that a protocol sets: clusterd's own value of it is not the workers'.
pub fn is_variable(name: &OsString) -> bool {
    ProtocolKind::ALL.into_iter().any(|kind| protocol(kind).variables().iter().any(|own| name == own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_is_decided_by_the_program() {
        use ProtocolKind::{Bind, ListenFds, Node};
        let auto = |program| decide(Protocol::Auto, program);
        assert_eq!(auto(ProgramKind::Node), Node);
        assert_eq!(auto(ProgramKind::Python), Bind);
        assert_eq!(auto(ProgramKind::Other), Bind);
        assert_eq!(auto(ProgramKind::NodeWrapper("npm")), Bind);
        assert_eq!(decide(Protocol::Exactly(Node), ProgramKind::Other), Node);
        assert_eq!(decide(Protocol::Exactly(ListenFds), ProgramKind::Node), ListenFds);
    }

    #[test]
    fn each_protocol_is_found_by_its_kind_and_name() {
        for kind in ProtocolKind::ALL {
            assert_eq!(protocol(kind).kind(), kind);
            assert_eq!(Protocol::named(kind.rules().name), Some(Protocol::Exactly(kind)));
        }
    }

    #[test]
    fn what_is_handed_connections_has_a_channel_for_them() {
        for protocol in ProtocolKind::ALL.map(protocol) {
            let has_channel = protocol.inherited() == Inherited::Channel;
            assert_eq!(has_channel, protocol.kind().rules().has_channel);
            assert!(has_channel || !protocol.can_be_handed_connections());
            assert!(has_channel || protocol.farewell() == Farewell::Signal);
        }
    }
}
