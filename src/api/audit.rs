//! The audit trail: a line in the log for each request over the control socket that changes something, with who asked.
use super::request::{Request, StopMode, Target};
use crate::os::signal;
use std::fmt;
use std::net::SocketAddr;

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// A process, as the kernel knows it (SO_PEERCRED).
    Process {
        /// User id.
        uid: u32,
        /// Pid, where the peer's is visible in our pid namespace.
        pid: Option<i32>,
    },
    /// A client over TCP, by its address.
    Tcp(SocketAddr),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Process { uid, pid: Some(pid) } => write!(f, "uid {uid}, pid {pid}"),
            Peer::Process { uid, pid: None } => write!(f, "uid {uid}"),
            Peer::Tcp(address) => address.fmt(f),
        }
    }
}

/// Notes a request, unless it changes nothing.
pub(super) fn note(request: &Request, peer: Peer) {
    if let Some(command) = describe(request) {
        log::info!("request from {peer}: {command}");
    }
}

/// The verb and its target; `None` for what changes nothing.
fn describe(request: &Request) -> Option<String> {
    let named = |app: &str| app.escape_debug().to_string();
    let of = |target: &Target| match target {
        Target::All => "all".to_owned(),
        Target::App(app) => named(app),
    };
    let now = |mode: &StopMode| if mode.is_now() { " now" } else { "" };
    Some(match request {
        Request::View(_) | Request::Ready | Request::Environment { .. } | Request::Releases { .. } => return None,
        Request::Rollback { app, to: None } => format!("roll back {}", named(app)),
        Request::Rollback { app, to: Some(to) } => format!("roll back {} to generation {to}", named(app)),
        Request::Reload { target, .. } => format!("reload {}", of(target)),
        Request::Start { app, .. } => format!("start {}", named(app)),
        Request::Restart { app, .. } => format!("restart {}", named(app)),
        Request::Stop { target, mode } => format!("stop {}{}", of(target), now(mode)),
        Request::Delete { app, mode } => format!("delete {}{}", named(app), now(mode)),
        Request::Scale { app, to } => format!("scale {} to {to}", named(app)),
        Request::ResetCounters { app } => format!("reset the counters of {}", named(app)),
        // Not what is sent: it may be a secret.
        Request::SendLine { app, slot: None, .. } => format!("send a line to {}", named(app)),
        Request::SendLine { app, slot: Some(slot), .. } => format!("send a line to {}/{slot}", named(app)),
        Request::Replace { app, slot } => format!("replace {}/{slot}", named(app)),
        Request::Signal { app, signal, slot: None } => format!("signal {} {}", named(app), signal::name(*signal)),
        Request::Signal { app, signal, slot: Some(slot) } => {
            format!("signal {}/{slot} {}", named(app), signal::name(*signal))
        }
        Request::Trigger { app, slot: None, action, .. } => format!("trigger {} {}", named(app), named(action)),
        Request::Trigger { app, slot: Some(slot), action, .. } => {
            format!("trigger {}/{slot} {}", named(app), named(action))
        }
        Request::Profile { app, what } => {
            let slot = what.slot.map_or_else(String::new, |slot| format!("/{slot}"));
            format!("profile {}{slot} ({})", named(app), what.kind.ending())
        }
        Request::ReopenLogs => "reopen the logs".to_owned(),
        Request::FlushLogs { target } => format!("flush the logs of {}", of(target)),
        Request::Upgrade { binary } => format!("upgrade to {}", named(binary)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::request::View;

    #[test]
    fn changes_are_described_and_looks_are_not() {
        let stop = Request::Stop { target: Target::All, mode: StopMode::Now };
        assert_eq!(describe(&stop).as_deref(), Some("stop all now"));
        let signal = Request::Signal { app: "we\nb".to_owned(), signal: 12, slot: None };
        assert_eq!(describe(&signal).as_deref(), Some("signal we\\nb SIGUSR2"));
        assert_eq!(describe(&Request::View(View::Deployment)), None);
        assert_eq!(Peer::Process { uid: 5, pid: Some(7) }.to_string(), "uid 5, pid 7");
    }
}
