//! How a worker gets its connections: `protocol` as typed, the protocols, and the settings that each of them allows.
//! `worker` implements the protocols.
use super::{Balance, Said};
use std::fmt;

/// `protocol`, as typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// By the program, when a generation is prepared (`worker::decide`).
    Auto,
    /// This one.
    Exactly(ProtocolKind),
}

/// A protocol, once it is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolKind {
    /// Node's cluster protocol.
    Node,
    /// Its slot's socket in the place of the one that it binds.
    Bind,
    /// systemd's socket passing.
    ListenFds,
    /// No socket at all.
    Plain,
}

/// The settings that a protocol allows.
#[derive(Debug)]
pub struct Rules {
    /// Its name in the configuration.
    pub name: &'static str,
    /// Evidence with which a worker can announce its readiness.
    pub evidence: &'static [Said],
    /// The default evidence; `None`: an age of one second.
    pub default_evidence: Option<Said>,
    /// The balance mode where workers accept by themselves and no other mode was typed.
    pub own_balance: Balance,
    /// What to use in place of a rule that can never be met.
    pub use_instead: &'static str,
    /// Why single workers cannot be probed by HTTP; `None`: they can.
    pub http_unfit: Option<&'static str>,
    /// Workers take connections of the configured addresses.
    pub takes_connections: bool,
    /// The master can hand a connection to a certain worker, so it can choose and count.
    pub can_be_handed_connections: bool,
    /// Workers have an event loop that can be pinged.
    pub has_event_loop: bool,
    /// A channel for messages connects worker and master. For an agent this is the only difference between protocols.
    pub has_channel: bool,
    /// Agents can use it.
    pub is_for_agents: bool,
}

const NODE: &Rules = &Rules {
    name: "node",
    evidence: &[Said::Listening, Said::Message],
    default_evidence: Some(Said::Listening),
    own_balance: Balance::Shared,
    use_instead: "use \"listening\", \"message\" or a time",
    http_unfit: None,
    takes_connections: true,
    can_be_handed_connections: true,
    has_event_loop: true,
    has_channel: true,
    is_for_agents: true,
};

const BIND: &Rules = &Rules {
    name: "bind",
    evidence: &[Said::Listening, Said::Notify],
    default_evidence: Some(Said::Listening),
    own_balance: Balance::Kernel,
    use_instead: "use \"listening\", \"notify\" or a time such as \"2s\"",
    http_unfit: Some(
        "any worker may take a connection, so none can be asked by itself; leave it out (a program is ready when it listens), \
         or use \"notify\" or a time such as \"2s\"",
    ),
    takes_connections: true,
    can_be_handed_connections: false,
    has_event_loop: false,
    has_channel: false,
    is_for_agents: false,
};

const LISTEN_FDS: &Rules = &Rules {
    name: "listen-fds",
    evidence: &[Said::Listening, Said::Notify],
    default_evidence: Some(Said::Listening),
    own_balance: Balance::Shared,
    use_instead: "use \"listening\", \"notify\" or a time such as \"2s\"",
    http_unfit: Some(
        "any worker may take a connection, so none can be asked by itself; use \"notify\" (the program says READY=1 when it \
         serves) or a time such as \"2s\"",
    ),
    takes_connections: true,
    can_be_handed_connections: false,
    has_event_loop: false,
    has_channel: false,
    is_for_agents: false,
};

const PLAIN: &Rules = &Rules {
    name: "none",
    evidence: &[],
    default_evidence: None,
    own_balance: Balance::Shared,
    use_instead: "use a time such as \"2s\"",
    http_unfit: Some(
        "the program binds an address that clusterd does not know, and in a reload the old worker may answer there; use a \
         time such as \"2s\"",
    ),
    takes_connections: false,
    can_be_handed_connections: false,
    has_event_loop: false,
    has_channel: false,
    is_for_agents: true,
};

/// The allowed words: `auto`, then every protocol's name.
pub const NAMES: [&str; ProtocolKind::ALL.len() + 1] = {
    let mut names = ["auto"; ProtocolKind::ALL.len() + 1];
    let mut n = 0;
    while n < ProtocolKind::ALL.len() {
        names[n + 1] = ProtocolKind::ALL[n].rules().name;
        n += 1;
    }
    names
};

impl ProtocolKind {
    /// Every protocol.
    pub const ALL: [ProtocolKind; 4] =
        [ProtocolKind::Node, ProtocolKind::Bind, ProtocolKind::ListenFds, ProtocolKind::Plain];

    pub const fn rules(self) -> &'static Rules {
        match self {
            ProtocolKind::Node => NODE,
            ProtocolKind::Bind => BIND,
            ProtocolKind::ListenFds => LISTEN_FDS,
            ProtocolKind::Plain => PLAIN,
        }
    }
}

impl Protocol {
    pub fn named(name: &str) -> Option<Protocol> {
        if name == NAMES[0] {
            return Some(Protocol::Auto);
        }
        ProtocolKind::ALL.into_iter().find(|kind| kind.rules().name == name).map(Protocol::Exactly)
    }

    /// The protocol, if one was typed.
    pub fn exactly(self) -> Option<ProtocolKind> {
        match self {
            Protocol::Auto => None,
            Protocol::Exactly(kind) => Some(kind),
        }
    }
}

impl fmt::Display for ProtocolKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.rules().name)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Protocol::Auto => f.write_str(NAMES[0]),
            Protocol::Exactly(kind) => kind.fmt(f),
        }
    }
}
