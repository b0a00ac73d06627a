//! Which settings a protocol allows: readiness, balance, listening, limits. Checked when a protocol was typed, and
//! again when `auto` is decided. `protocol` has the table.
use super::protocol::ProtocolKind;
use super::{Alive, App, Balance, Limits, Listen, Metrics, Ready, Said, defaults};
use crate::balance::Mode;
use thiserror::Error;

/// A setting that the protocol does not allow.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RuleError {
    /// Workers of this protocol cannot announce this.
    #[error("ready \"{rule}\" never comes with protocol \"{protocol}\": {}", protocol.rules().use_instead)]
    Never {
        /// The rule as typed.
        rule: Ready,
        /// The worker's protocol.
        protocol: ProtocolKind,
    },
    /// Agents cannot announce this.
    #[error("agent.ready \"{rule}\" never comes here: {way_out}")]
    AgentNever {
        /// The rule as typed.
        rule: Ready,
        /// What to use instead.
        way_out: &'static str,
    },
    /// Single workers cannot be probed.
    #[error("ready \"{rule}\" needs protocol \"node\": with \"{protocol}\" {why}")]
    CannotBeAsked {
        /// The rule as typed.
        rule: Ready,
        /// The worker's protocol.
        protocol: ProtocolKind,
        /// The reason and what to do.
        why: &'static str,
    },
    /// As for readiness, while it serves.
    #[error(
        "alive.{key} needs protocol \"node\": with \"{protocol}\" workers accept by themselves, and nobody can choose which one is \
         asked; alive.exec works with every protocol"
    )]
    Alive {
        /// The key.
        key: &'static str,
        /// The worker's protocol.
        protocol: ProtocolKind,
    },
    /// The master cannot choose the worker.
    #[error("balance \"{name}\" needs protocol \"node\": with \"{1}\" the workers accept by themselves", name = .0.name())]
    Strategy(Mode, ProtocolKind),
    /// Addresses, and nobody who listens on them.
    #[error(
        "nobody would take connections here: with protocol \"{0}\" a worker gets no socket (to tell it a port of its own, \
         set a variable: env.PORT = \"8080\")"
    )]
    Listen(ProtocolKind),
    /// There is no event loop to watch.
    #[error("limits.hang needs protocol \"node\": with \"{0}\" there is no event loop to ask")]
    Hang(ProtocolKind),
    /// There is no channel to ask over.
    #[error(
        "metrics \"prom-client\" needs protocol \"node\": with \"{0}\" there is no channel over which workers can be asked \
         for them"
    )]
    Metrics(ProtocolKind),
    /// Nobody counts.
    #[error(
        "limits.max_connections needs protocol \"node\" and balance \"round-robin\" or \"sticky\": connections that workers \
         accept by themselves are not counted"
    )]
    MaxConnections,
    /// Single workers cannot be asked.
    #[error(
        "warmup needs protocol \"node\": with \"{0}\" workers accept by themselves, and nobody can choose which one is asked; a \
         program that warms itself up can say READY=1 after that (ready = \"notify\")"
    )]
    WarmUp(ProtocolKind),
    /// They would have clients before they are warm.
    #[error("warmup needs workers that get no connections until they are told to: {0}")]
    WarmUpServes(NoSpares),
    /// Workers that accept by themselves cannot be held back.
    #[error("spares need workers that get no connections until they are told to: {0}")]
    Spares(NoSpares),
}

/// Why a worker cannot be held back, and what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NoSpares {
    /// Every worker that listens accepts.
    #[error("with balance \"shared\" each one accepts as soon as it listens; use \"{0}\"")]
    Shared(&'static str),
    /// The program binds where it wants.
    #[error("with protocol \"none\" a program serves wherever it binds; configure a port, and protocol \"bind\"")]
    OwnPort,
    /// Only an address with a port has a socket for each worker.
    #[error("with protocol \"{0}\" only a configured port has a socket for each worker; add --port or listen")]
    NoPort(ProtocolKind),
    /// A unix socket is one for all.
    #[error(
        "workers that accept by themselves share a unix socket; listen on a port, or use protocol \"node\" and balance \"round-robin\""
    )]
    UnixSocket,
    /// The old worker has to end before the new one starts.
    #[error("reload.overlap = false says that two workers must not run together; leave out one of them")]
    NoOverlap,
}

/// The rule for readiness under a decided protocol. Default: that the worker listens, where that can be seen; without an
/// address (`has_listeners`) an age counts too, because a program that never listens is in order. For other programs an age
/// of one second.
///
/// # Errors
/// The typed rule can never be met under this protocol.
pub fn ready(protocol: ProtocolKind, typed: Option<&Ready>, has_listeners: bool) -> Result<Ready, RuleError> {
    let rules = protocol.rules();
    let said = match typed {
        None => {
            return Ok(match rules.default_evidence {
                Some(said) if has_listeners => said.alone(),
                Some(said) => Ready::Or(said, defaults::READY_WITHOUT_LISTENING),
                None => Ready::After(defaults::READY_AFTER),
            });
        }
        Some(Ready::After(time)) => return Ok(Ready::After(*time)),
        Some(rule @ Ready::Http(_)) => {
            return match rules.http_unfit {
                None => Ok(rule.clone()),
                Some(why) => Err(RuleError::CannotBeAsked { rule: rule.clone(), protocol, why }),
            };
        }
        Some(Ready::Listening) => Said::Listening,
        Some(Ready::Message) => Said::Message,
        Some(Ready::Notify) => Said::Notify,
        Some(Ready::Or(said, _)) => *said,
    };
    match typed {
        Some(rule) if rules.evidence.contains(&said) => Ok(rule.clone()),
        _ => Err(RuleError::Never { rule: said.alone(), protocol }),
    }
}

/// Whether it can be seen that a worker listens on one of these addresses.
pub fn is_seen_to_listen(protocol: ProtocolKind, listen: &[Listen]) -> bool {
    // Node tells. Of a unix socket that a program inherited, nobody sees whether it is accepted from.
    listen.iter().any(|address| protocol.rules().has_channel || !matches!(address, Listen::Unix(_)))
}

/// The balance mode under a decided protocol. A program that takes the listening socket itself shares it, or has its
/// slot's own.
///
/// # Errors
/// The typed mode is not possible under this protocol.
pub fn balance(protocol: ProtocolKind, typed: Balance) -> Result<Balance, RuleError> {
    let rules = protocol.rules();
    match typed {
        _ if rules.can_be_handed_connections => Ok(typed),
        Balance::Strategy(Mode::RoundRobin) => Ok(rules.own_balance),
        Balance::Shared => Ok(Balance::Shared),
        Balance::Strategy(mode) if rules.takes_connections => Err(RuleError::Strategy(mode, protocol)),
        Balance::Kernel | Balance::Strategy(_) => Ok(typed),
    }
}

/// Checks that listen addresses make sense under a decided protocol.
///
/// # Errors
/// No worker would ever take a connection.
pub fn listen(protocol: ProtocolKind, any: bool) -> Result<(), RuleError> {
    if any && !protocol.rules().takes_connections { Err(RuleError::Listen(protocol)) } else { Ok(()) }
}

/// Checks that these limits can be enforced under a decided protocol.
///
/// # Errors
/// One of them would silently have no effect.
pub fn limits(protocol: ProtocolKind, balance: Balance, limits: &Limits) -> Result<(), RuleError> {
    let rules = protocol.rules();
    if limits.hang.is_some() && !rules.has_event_loop {
        return Err(RuleError::Hang(protocol));
    }
    let counted = rules.can_be_handed_connections && !matches!(balance, Balance::Shared | Balance::Kernel);
    if limits.max_connections.is_some() && !counted {
        return Err(RuleError::MaxConnections);
    }
    Ok(())
}

/// Checks that single workers can be asked under a decided protocol, where that is configured.
///
/// # Errors
/// They cannot.
pub fn alive(protocol: ProtocolKind, alive: &Alive) -> Result<(), RuleError> {
    let key = if alive.http.is_some() { "http" } else { "tcp" };
    let needs_one = alive.http.is_some() || alive.tcp;
    let cannot = needs_one && protocol.rules().http_unfit.is_some();
    if cannot { Err(RuleError::Alive { key, protocol }) } else { Ok(()) }
}

/// Checks that the app's own metrics can be had under a decided protocol.
///
/// # Errors
/// Nobody could be asked.
pub fn metrics(protocol: ProtocolKind, metrics: Metrics) -> Result<(), RuleError> {
    let cannot = metrics == Metrics::PromClient && !protocol.rules().has_channel;
    if cannot { Err(RuleError::Metrics(protocol)) } else { Ok(()) }
}

/// The protocol and the balance of an app, as far as what was typed says them whatever its program is.
pub(super) fn typed(app: &App) -> Option<(ProtocolKind, Balance)> {
    let typed = app.balance.least();
    let protocol = app.protocol.exactly().or((typed == Balance::Shared).then_some(ProtocolKind::Node))?;
    Some((protocol, balance(protocol, typed).ok()?))
}

/// Checks that a new worker can be asked, and held back meanwhile, under a decided protocol and balance, if the app has a warm-up.
///
/// # Errors
/// It cannot.
pub fn warm_up(protocol: ProtocolKind, balance: Balance, app: &App) -> Result<(), RuleError> {
    let is_unix = |address: &Listen| matches!(address, Listen::Unix(_));
    if app.warm_up.is_none() {
        return Ok(());
    }
    if protocol.rules().http_unfit.is_some() {
        return Err(RuleError::WarmUp(protocol));
    }
    match balance {
        Balance::Shared => Err(RuleError::WarmUpServes(NoSpares::Shared("round-robin"))),
        Balance::Kernel if app.listen.iter().any(is_unix) => Err(RuleError::WarmUpServes(NoSpares::UnixSocket)),
        Balance::Kernel | Balance::Strategy(_) => Ok(()),
    }
}

/// Checks that a worker can be held back under a decided protocol and balance, if the app is to have spares.
///
/// # Errors
/// Spares would serve like all others.
pub fn spares(protocol: ProtocolKind, balance: Balance, app: &App) -> Result<(), RuleError> {
    let rules = protocol.rules();
    let is_unix = |address: &Listen| matches!(address, Listen::Unix(_));
    let reason = match balance {
        _ if app.spares == 0 => return Ok(()),
        _ if app.reload.overlap == Some(false) => NoSpares::NoOverlap,
        _ if !rules.takes_connections => NoSpares::OwnPort,
        Balance::Shared if rules.can_be_handed_connections => NoSpares::Shared("round-robin"),
        Balance::Shared => NoSpares::Shared("kernel"),
        Balance::Strategy(_) => return Ok(()),
        Balance::Kernel if app.listen.iter().any(is_unix) => NoSpares::UnixSocket,
        Balance::Kernel if app.listen.is_empty() && !rules.can_be_handed_connections => NoSpares::NoPort(protocol),
        Balance::Kernel => return Ok(()),
    };
    Err(RuleError::Spares(reason))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn readiness_has_a_default_for_every_protocol() {
        assert_eq!(ready(ProtocolKind::Node, None, true), Ok(Ready::Listening));
        assert_eq!(ready(ProtocolKind::ListenFds, None, true), Ok(Ready::Listening));
        assert_eq!(ready(ProtocolKind::Bind, None, true), Ok(Ready::Listening));
        let never_listens = Ready::Or(Said::Listening, Duration::from_secs(3));
        assert_eq!(ready(ProtocolKind::Bind, None, false), Ok(never_listens.clone()));
        assert_eq!(ready(ProtocolKind::Node, None, false), Ok(never_listens));
        assert_eq!(ready(ProtocolKind::Plain, None, true), Ok(Ready::After(Duration::from_secs(1))));
    }

    #[test]
    fn a_rule_that_never_comes_true_is_refused() {
        for (protocol, rule) in [
            (ProtocolKind::Node, Ready::Notify),
            (ProtocolKind::Bind, Ready::Message),
            (ProtocolKind::Bind, Ready::Http("/healthz".to_owned())),
            (ProtocolKind::ListenFds, Ready::Message),
            (ProtocolKind::Plain, Ready::Notify),
            (ProtocolKind::ListenFds, Ready::Http("/healthz".to_owned())),
            (ProtocolKind::Plain, Ready::Http("/healthz".to_owned())),
        ] {
            assert!(ready(protocol, Some(&rule), true).is_err(), "{protocol} {rule}");
        }
        let either = Ready::Or(Said::Listening, Duration::from_secs(3));
        assert_eq!(ready(ProtocolKind::Node, Some(&either), true), Ok(either.clone()));
        assert!(ready(ProtocolKind::Plain, Some(&either), true).is_err());
    }

    #[test]
    fn a_program_with_the_socket_shares_it() {
        assert_eq!(balance(ProtocolKind::ListenFds, Balance::Strategy(Mode::RoundRobin)), Ok(Balance::Shared));
        assert_eq!(balance(ProtocolKind::Bind, Balance::Strategy(Mode::RoundRobin)), Ok(Balance::Kernel));
        assert_eq!(balance(ProtocolKind::Bind, Balance::Shared), Ok(Balance::Shared));
        assert!(balance(ProtocolKind::Bind, Balance::Strategy(Mode::Sticky)).is_err());
        assert!(balance(ProtocolKind::ListenFds, Balance::Strategy(Mode::Sticky)).is_err());
        assert_eq!(balance(ProtocolKind::Node, Balance::Strategy(Mode::Sticky)), Ok(Balance::Strategy(Mode::Sticky)));
        assert_eq!(balance(ProtocolKind::ListenFds, Balance::Kernel), Ok(Balance::Kernel));
        assert!(listen(ProtocolKind::Plain, true).is_err());
    }

    #[test]
    fn limits_that_nobody_could_watch_are_refused() {
        let hang = Limits { hang: Some(Duration::from_secs(1)), ..Limits::default() };
        let connections = Limits { max_connections: Some(1), ..Limits::default() };
        let memory = Limits { memory: Some(1), lifetime: Some(Duration::from_secs(1)), ..Limits::default() };
        assert!(limits(ProtocolKind::ListenFds, Balance::Shared, &hang).is_err());
        assert!(limits(ProtocolKind::Node, Balance::Shared, &connections).is_err());
        assert!(limits(ProtocolKind::Node, Balance::Kernel, &connections).is_err());
        for fine in [&hang, &memory] {
            assert_eq!(limits(ProtocolKind::Node, Balance::Shared, fine), Ok(()));
        }
        assert_eq!(limits(ProtocolKind::Plain, Balance::Shared, &memory), Ok(()));
        assert_eq!(limits(ProtocolKind::Node, Balance::Strategy(Mode::Sticky), &connections), Ok(()));
    }
}
