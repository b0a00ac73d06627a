//! Clients: each connects, asks, and notes what becomes of it.
use crate::server;
use crate::world::State;
use clusterd::os::{fdpass, process};
use socket2::{Domain, SockAddr, Socket, Type};
use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::PathBuf;
use std::time::Duration;

/// A client that gets no answer for so long hangs.
const PATIENCE_US: u64 = 90_000_000;

/// A client whom the queue has no room for tries again after this time, in microseconds.
const AGAIN_US: u64 = 10_000;

/// Where an app listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// What became of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fortune {
    Waits,
    Served,
    /// It has left by itself, and expected nothing.
    Left,
    Refused,
    /// The connection ended without the answer.
    Cut,
    /// Between two requests.
    Closed,
    Hung,
}

/// What kind of client it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// Asks so often as it was told, on one connection.
    Usual,
    /// The same as a proxy does: connects again when its connection was closed at rest.
    Pool,
    /// Says nothing, and leaves after this time.
    Silent(u64),
    /// Sends half a request, and resets the connection after this time.
    Half(u64),
    /// Sends nothing more after its request.
    HalfClose,
}

pub(crate) struct Client {
    pub(crate) name: u64,
    pub(crate) at_us: u64,
    to: Target,
    from: Option<IpAddr>,
    style: Style,
    socket: Option<Socket>,
    local: Option<String>,
    /// Connections so far.
    connections: u64,
    /// Requests that are left, and the pause between two.
    requests: u64,
    pause_us: u64,
    is_kept: bool,
    asked_us: Option<u64>,
    /// When it leaves.
    leaves_us: Option<u64>,
    /// When it connected, or had its last answer.
    since_us: u64,
    ended_us: u64,
    nth: u64,
    pub(crate) fortune: Fortune,
}

impl Client {
    pub(crate) fn new(name: u64, at_us: u64, to: Target, requests: u64, pause_us: u64) -> Client {
        Client {
            name,
            at_us,
            to,
            from: None,
            style: Style::Usual,
            socket: None,
            local: None,
            connections: 0,
            requests: requests.max(1),
            pause_us,
            is_kept: requests > 1,
            asked_us: None,
            leaves_us: None,
            since_us: at_us,
            ended_us: at_us,
            nth: 0,
            fortune: Fortune::Waits,
        }
    }

    pub(crate) fn with(self, style: Style, from: Option<IpAddr>) -> Client {
        Client { style, from, ..self }
    }

    pub(crate) fn reads(&self) -> Option<RawFd> {
        self.socket.as_ref().map(AsRawFd::as_raw_fd)
    }

    pub(crate) fn due_us(&self) -> Option<u64> {
        match (self.fortune, self.asked_us) {
            (Fortune::Waits, _) if self.leaves_us.is_some() => self.leaves_us,
            (Fortune::Waits, None) => Some(self.at_us),
            (Fortune::Waits, Some(at_us)) => Some(at_us + PATIENCE_US),
            _ => None,
        }
    }

    fn request(&self) -> String {
        format!("{} {}.{}", if self.is_kept { "kept" } else { "once" }, self.name, self.nth)
    }

    pub(crate) fn has_been_served(&self) -> bool {
        self.nth > 0
    }

    /// Whether it has asked, and has no answer.
    pub(crate) fn is_waiting(&self) -> bool {
        self.asked_us.is_some()
    }

    /// Its address, once it is connected.
    pub(crate) fn local(&self) -> Option<&str> {
        self.local.as_deref()
    }

    pub(crate) fn since_us(&self) -> u64 {
        self.since_us
    }

    pub(crate) fn ended_us(&self) -> u64 {
        self.ended_us
    }

    pub(crate) fn last_request(&self) -> String {
        self.request()
    }

    pub(crate) fn step(&mut self, state: &mut State) {
        if self.fortune != Fortune::Waits {
            return;
        }
        if self.leaves_us.is_some_and(|at_us| at_us <= state.now_us) {
            return self.leave(state);
        }
        if self.asked_us.is_none() && self.leaves_us.is_none() && self.at_us <= state.now_us {
            self.ask(state);
        }
        self.read(state);
        if self.fortune == Fortune::Waits && self.asked_us.is_some_and(|at_us| at_us + PATIENCE_US <= state.now_us) {
            self.end(Fortune::Hung, state);
        }
    }

    fn connect(&mut self) -> io::Result<()> {
        self.connections += 1;
        let socket = match &self.to {
            Target::Tcp(to) => {
                let socket = Socket::new(Domain::for_address(*to), Type::STREAM, None)?;
                if let Some(from) = self.from {
                    socket.bind(&SocketAddr::new(from, 0).into())?;
                }
                // On the loopback this ends at once: with a connection, or refused.
                socket.connect(&(*to).into())?;
                socket
            }
            Target::Unix(path) => {
                let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
                // A name, by which its connection is known.
                let name = format!("\0client-{}-{}-{}", std::process::id(), self.name, self.connections);
                socket.bind(&SockAddr::unix(name)?)?;
                socket.set_nonblocking(true)?;
                socket.connect(&SockAddr::unix(path)?)?;
                socket
            }
        };
        socket.set_nonblocking(true)?;
        self.local = socket.local_addr().ok().and_then(|address| server::name(&address));
        self.socket = Some(socket);
        Ok(())
    }

    fn ask(&mut self, state: &mut State) {
        if self.socket.is_none()
            && let Err(error) = self.connect()
        {
            if error.kind() == io::ErrorKind::WouldBlock {
                self.at_us = state.now_us + AGAIN_US;
                return state.count("clients that found a full queue");
            }
            return self.end(Fortune::Refused, state);
        }
        let Some(socket) = &self.socket else { return };
        let line = match self.style {
            Style::Silent(_) => String::new(),
            Style::Half(_) => self.request(),
            Style::Usual | Style::Pool | Style::HalfClose => format!("{}\n", self.request()),
        };
        let sent = if line.is_empty() { Ok(0) } else { fdpass::send_with_fd(socket.as_fd(), line.as_bytes(), None) };
        match self.style {
            Style::Silent(us) | Style::Half(us) => self.leaves_us = Some(state.now_us + us),
            Style::HalfClose => drop(socket.shutdown(Shutdown::Write)),
            Style::Usual | Style::Pool => {}
        }
        match sent {
            Ok(_) => self.asked_us = Some(state.now_us),
            Err(_) => self.lost(if self.nth == 0 { Fortune::Cut } else { Fortune::Closed }, state),
        }
    }

    fn read(&mut self, state: &mut State) {
        let Some(socket) = &self.socket else { return };
        let mut buffer = [0; 256];
        match process::read_now(socket.as_fd(), &mut buffer) {
            Ok(None) => {}
            Ok(Some(0)) | Err(_) => {
                let fortune = if self.asked_us.is_some() { Fortune::Cut } else { Fortune::Closed };
                self.lost(fortune, state);
            }
            Ok(Some(length)) => {
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                if !text.starts_with(&self.request()) || self.asked_us.is_none() || self.leaves_us.is_some() {
                    state.violated(format!("client {} asked {:?} and got {text:?}", self.name, self.request()));
                }
                self.asked_us = None;
                state.counts.answers += 1;
                self.since_us = state.now_us;
                self.nth += 1;
                self.at_us = state.now_us + self.pause_us;
                if self.nth == self.requests {
                    self.end(Fortune::Served, state);
                }
            }
        }
    }

    /// The connection has ended.
    fn lost(&mut self, fortune: Fortune, state: &mut State) {
        if self.leaves_us.is_some() {
            state.count("clients who expect nothing were closed");
            return self.end(Fortune::Left, state);
        }
        if self.style == Style::Pool && fortune == Fortune::Closed {
            state.count("connections of pools closed at rest");
            self.socket = None;
            self.since_us = state.now_us;
            self.at_us = state.now_us;
            return;
        }
        self.end(fortune, state);
    }

    /// Goes away without an answer.
    fn leave(&mut self, state: &mut State) {
        if let (Style::Half(_), Some(socket)) = (self.style, &self.socket) {
            // Its end is a reset then.
            let set = socket.set_linger(Some(Duration::ZERO));
            state.count(if set.is_ok() { "clients reset" } else { "clients closed" });
        } else {
            state.count("clients left in silence");
        }
        self.end(Fortune::Left, state);
    }

    fn end(&mut self, fortune: Fortune, state: &mut State) {
        self.fortune = fortune;
        self.ended_us = state.now_us;
        match fortune {
            Fortune::Served => state.counts.served += 1,
            Fortune::Left => {}
            Fortune::Closed => state.counts.closed += 1,
            _ => state.counts.cut += 1,
        }
        self.socket = None;
        if fortune != Fortune::Served && fortune != Fortune::Left {
            let request = self.request();
            state.tell(&format!("client {}", self.name), &format!("is {fortune:?} at {request}"));
        }
    }
}
