//! Keeps shared listening sockets listening. A worker that has one can end the listening of all with shutdown(2): the
//! socket stays bound, clients are refused, and nobody else notices. So each is asked once a second, and listens again.
//! Unix sockets are not covered: the kernel offers no way back for one that was shut down.
use super::context::Context;
use super::system::System;
use crate::limits;
use crate::os::listen::LocalAddress;
use std::os::fd::BorrowedFd;

/// What happened to the listening of a listener's sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Listening {
    /// It listens, as far as is known.
    #[default]
    Yes,
    /// A worker ended it before, which was logged.
    Restored,
    /// The master ended it.
    Stopped,
    /// It is bound, and listens once a worker of its generation serves: until then its clients are for another socket of
    /// the app.
    Later,
}

impl Listening {
    /// The state of a stream socket that was taken over, or bound just now.
    pub(super) fn of(system: &impl System, socket: BorrowedFd<'_>) -> Listening {
        if system.is_listening(socket) { Listening::Yes } else { Listening::Later }
    }
}

/// Has sockets whose listening a worker has ended listen again. The first time is logged for each listener.
pub(super) fn restore(cx: &mut Context<impl System>) {
    for app in cx.apps.iter_mut().filter(|app| !app.closed) {
        for listener in &mut app.listeners {
            let LocalAddress::Inet(address) = listener.local else { continue };
            if listener.datagram || matches!(listener.listening, Listening::Stopped | Listening::Later) {
                continue;
            }
            let ended = listener.sockets().filter(|socket| !cx.system.is_listening(*socket));
            let restored: Result<Vec<()>, _> =
                ended.map(|socket| cx.system.listen_again(socket, address, limits::LISTEN_BACKLOG)).collect();
            let told = listener.listening == Listening::Restored;
            match restored {
                Ok(none) if none.is_empty() => {}
                Ok(_) if told => listener.readable = true,
                Ok(_) => {
                    listener.readable = true;
                    listener.listening = Listening::Restored;
                    log::warn!(
                        "{}: a worker shut down the listening socket of {listener}, which all of them share; it listens \
                         again (clients were refused for up to a second)",
                        app.name
                    );
                }
                Err(_) if told => {}
                Err(e) => {
                    listener.listening = Listening::Restored;
                    log::error!(
                        "{}: a worker shut down the listening socket of {listener}, and it cannot listen again: {e}; \
                         restart the app",
                        app.name
                    );
                }
            }
        }
    }
}
