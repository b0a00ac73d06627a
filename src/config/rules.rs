//! What goes with which protocol: readiness, balancing, listening. Used when a protocol was typed, and again when
//! `auto` has been decided by looking at the program.
use super::{Balance, Limits, Protocol, Ready, defaults};

/// Settings that do not go together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// A rule that can never come true.
    #[error("ready \"{rule}\" never comes with protocol \"{protocol}\": {way_out}")]
    NeverReady {
        /// As typed.
        rule: String,
        /// The protocol that was decided.
        protocol: Protocol,
        /// What to use instead.
        way_out: &'static str,
    },
    /// The same of an agent.
    #[error("agent.ready \"{rule}\" never comes here: {way_out}")]
    AgentNeverReady {
        /// As typed.
        rule: String,
        /// What to use instead.
        way_out: &'static str,
    },
    /// A request to one of several workers that accept from one socket.
    #[error(
        "ready \"{rule}\" needs protocol \"node\": with \"{protocol}\" any worker may take a connection, so none can be \
         asked by itself; use \"notify\" (the program says READY=1 when it serves) or a time such as \"2s\""
    )]
    HttpListenFds {
        /// As typed.
        rule: String,
        /// The protocol that was decided.
        protocol: Protocol,
    },
    /// A request to an address that is not known.
    #[error(
        "ready \"{rule}\" needs protocol \"node\": with \"{protocol}\" the program binds an address that clusterd does not \
         know, and in a reload the old worker may answer there; use a time such as \"2s\""
    )]
    HttpNone {
        /// As typed.
        rule: String,
        /// The protocol that was decided.
        protocol: Protocol,
    },
    /// Connections that clusterd does not hand over.
    #[error("balance \"sticky\" needs protocol \"node\": with \"listen-fds\" the workers accept by themselves")]
    StickyNeedsNode,
    /// Addresses for workers that get no socket.
    #[error(
        "nobody would take connections here: with protocol \"none\" a worker gets no socket (to tell it a port of its own, \
         set a variable: env.PORT = \"8080\")"
    )]
    NobodyAccepts,
    /// A limit on an event loop that does not exist.
    #[error("limits.hang needs protocol \"node\": with \"{0}\" there is no event loop to ask")]
    HangNeedsNode(Protocol),
    /// A limit on connections that are not counted.
    #[error(
        "limits.max_connections needs protocol \"node\" and balance \"round-robin\" or \"sticky\": connections that workers \
         accept by themselves are not counted"
    )]
    ConnectionsUncounted,
}

/// What makes a worker ready under a decided protocol. Without a typed rule: `listening` for Node; for other programs
/// one second of life (`READY=1` on `NOTIFY_SOCKET` counts earlier where there is one).
///
/// # Errors
/// The typed rule can never come true under this protocol.
pub fn ready(protocol: Protocol, typed: Option<&Ready>) -> Result<Ready, RuleError> {
    match (protocol, typed) {
        (_, Some(Ready::After(time))) => Ok(Ready::After(*time)),
        (_, Some(Ready::Or(said, time))) => ready(protocol, Some(&said.alone())).map(|_| Ready::Or(*said, *time)),
        (Protocol::Node, None) => Ok(Ready::Listening),
        (Protocol::Node, Some(rule @ (Ready::Listening | Ready::Message | Ready::Http(_)))) => Ok(rule.clone()),
        (Protocol::Auto | Protocol::ListenFds | Protocol::None, None) => Ok(Ready::After(defaults::READY_AFTER)),
        (Protocol::Auto, Some(rule)) => Ok(rule.clone()),
        (Protocol::ListenFds, Some(Ready::Notify)) => Ok(Ready::Notify),
        (Protocol::Node, Some(rule @ Ready::Notify)) => {
            Err(never(rule, protocol, "use \"listening\", \"message\" or a time"))
        }
        (Protocol::ListenFds, Some(rule @ (Ready::Listening | Ready::Message))) => {
            Err(never(rule, protocol, "use \"notify\" or a time such as \"2s\""))
        }
        (Protocol::None, Some(rule @ (Ready::Listening | Ready::Message | Ready::Notify))) => {
            Err(never(rule, protocol, "use a time such as \"2s\""))
        }
        (Protocol::ListenFds, Some(rule @ Ready::Http(_))) => {
            Err(RuleError::HttpListenFds { rule: rule.to_string(), protocol })
        }
        (Protocol::None, Some(rule @ Ready::Http(_))) => Err(RuleError::HttpNone { rule: rule.to_string(), protocol }),
    }
}

fn never(rule: &Ready, protocol: Protocol, way_out: &'static str) -> RuleError {
    RuleError::NeverReady { rule: rule.to_string(), protocol, way_out }
}

/// How connections reach the workers under a decided protocol. A program that takes the listening socket itself shares it,
/// or has the one of its slot.
///
/// # Errors
/// The typed way cannot be had under this protocol.
pub fn balance(protocol: Protocol, typed: Balance) -> Result<Balance, RuleError> {
    match (protocol, typed) {
        (Protocol::ListenFds, Balance::Sticky) => Err(RuleError::StickyNeedsNode),
        (Protocol::ListenFds | Protocol::None, Balance::RoundRobin | Balance::Shared) => Ok(Balance::Shared),
        (Protocol::Auto | Protocol::Node, _) | (_, Balance::Kernel) | (Protocol::None, Balance::Sticky) => Ok(typed),
    }
}

/// Whether addresses to listen on make sense under a decided protocol.
///
/// # Errors
/// Nobody would ever take a connection.
pub fn listen(protocol: Protocol, any: bool) -> Result<(), RuleError> {
    if protocol == Protocol::None && any {
        return Err(RuleError::NobodyAccepts);
    }
    Ok(())
}

/// Whether these limits can be watched under a decided protocol.
///
/// # Errors
/// One of them would silently do nothing.
pub fn limits(protocol: Protocol, balance: Balance, limits: &Limits) -> Result<(), RuleError> {
    let node = matches!(protocol, Protocol::Node | Protocol::Auto);
    if limits.hang.is_some() && !node {
        return Err(RuleError::HangNeedsNode(protocol));
    }
    if limits.max_connections.is_some() && (!node || matches!(balance, Balance::Shared | Balance::Kernel)) {
        return Err(RuleError::ConnectionsUncounted);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Said;
    use super::*;
    use std::time::Duration;

    #[test]
    fn readiness_has_a_default_for_every_protocol() {
        assert_eq!(ready(Protocol::Node, None), Ok(Ready::Listening));
        assert_eq!(ready(Protocol::ListenFds, None), Ok(Ready::After(Duration::from_secs(1))));
        assert_eq!(ready(Protocol::None, None), Ok(Ready::After(Duration::from_secs(1))));
    }

    #[test]
    fn a_rule_that_never_comes_true_is_refused() {
        for (protocol, rule) in [
            (Protocol::Node, Ready::Notify),
            (Protocol::ListenFds, Ready::Listening),
            (Protocol::ListenFds, Ready::Message),
            (Protocol::None, Ready::Notify),
            (Protocol::ListenFds, Ready::Http("/healthz".to_owned())),
            (Protocol::None, Ready::Http("/healthz".to_owned())),
        ] {
            assert!(ready(protocol, Some(&rule)).is_err(), "{protocol} {rule}");
        }
        assert_eq!(ready(Protocol::Auto, Some(&Ready::Notify)), Ok(Ready::Notify));
        let either = Ready::Or(Said::Listening, Duration::from_secs(3));
        assert_eq!(ready(Protocol::Node, Some(&either)), Ok(either.clone()));
        assert!(ready(Protocol::None, Some(&either)).is_err());
    }

    #[test]
    fn a_program_with_the_socket_shares_it() {
        assert_eq!(balance(Protocol::ListenFds, Balance::RoundRobin), Ok(Balance::Shared));
        assert!(balance(Protocol::ListenFds, Balance::Sticky).is_err());
        assert_eq!(balance(Protocol::Node, Balance::Sticky), Ok(Balance::Sticky));
        assert_eq!(balance(Protocol::ListenFds, Balance::Kernel), Ok(Balance::Kernel));
        assert!(listen(Protocol::None, true).is_err());
    }

    #[test]
    fn limits_that_nobody_could_watch_are_refused() {
        let hang = Limits { hang: Some(Duration::from_secs(1)), ..Limits::default() };
        let connections = Limits { max_connections: Some(1), ..Limits::default() };
        let memory = Limits { memory: Some(1), lifetime: Some(Duration::from_secs(1)), ..Limits::default() };
        assert!(limits(Protocol::ListenFds, Balance::Shared, &hang).is_err());
        assert!(limits(Protocol::Node, Balance::Shared, &connections).is_err());
        assert!(limits(Protocol::Node, Balance::Kernel, &connections).is_err());
        for fine in [&hang, &memory] {
            assert_eq!(limits(Protocol::Node, Balance::Shared, fine), Ok(()));
        }
        assert_eq!(limits(Protocol::None, Balance::Shared, &memory), Ok(()));
        assert_eq!(limits(Protocol::Node, Balance::Sticky, &connections), Ok(()));
    }
}
