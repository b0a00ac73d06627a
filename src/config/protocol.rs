//! How a worker gets its connections: `protocol` as it is typed, the protocols that exist, and what settings each of
//! them can have. How a protocol is spoken is in `worker`.
use super::Said;
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
    /// systemd's socket passing.
    ListenFds,
    /// No socket at all.
    Plain,
}

/// What settings go with a protocol.
#[derive(Debug)]
pub struct Rules {
    /// What is typed.
    pub name: &'static str,
    /// What a worker can say of itself that makes it ready.
    pub evidence: &'static [Said],
    /// The one that makes it ready where no rule is typed; `None`: it has lived for a second.
    pub default_evidence: Option<Said>,
    /// What to type in place of a rule that never comes true.
    pub use_instead: &'static str,
    /// Why one worker cannot be asked by HTTP whether it is ready; `None`: it can.
    pub http_unfit: Option<&'static str>,
    /// Workers take connections of the configured addresses.
    pub takes_connections: bool,
    /// The master can give one connection to one worker, so it can choose the worker and count.
    pub can_be_handed_connections: bool,
    /// There is an event loop that shows whether it turns.
    pub has_event_loop: bool,
    /// A channel for messages connects worker and master. An agent has no other protocol than with a channel or without.
    pub has_channel: bool,
    /// An agent can be told to speak it.
    pub is_for_agents: bool,
}

const NODE: &Rules = &Rules {
    name: "node",
    evidence: &[Said::Listening, Said::Message],
    default_evidence: Some(Said::Listening),
    use_instead: "use \"listening\", \"message\" or a time",
    http_unfit: None,
    takes_connections: true,
    can_be_handed_connections: true,
    has_event_loop: true,
    has_channel: true,
    is_for_agents: true,
};

const LISTEN_FDS: &Rules = &Rules {
    name: "listen-fds",
    evidence: &[Said::Notify],
    default_evidence: None,
    use_instead: "use \"notify\" or a time such as \"2s\"",
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

/// What may be typed: `auto`, then every protocol's name.
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
    pub const ALL: [ProtocolKind; 3] = [ProtocolKind::Node, ProtocolKind::ListenFds, ProtocolKind::Plain];

    /// What settings go with it.
    pub const fn rules(self) -> &'static Rules {
        match self {
            ProtocolKind::Node => NODE,
            ProtocolKind::ListenFds => LISTEN_FDS,
            ProtocolKind::Plain => PLAIN,
        }
    }
}

impl Protocol {
    /// The protocol of this name.
    pub fn named(name: &str) -> Option<Protocol> {
        if name == NAMES[0] {
            return Some(Protocol::Auto);
        }
        ProtocolKind::ALL.into_iter().find(|kind| kind.rules().name == name).map(Protocol::Exactly)
    }

    /// The protocol, where one was typed.
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
