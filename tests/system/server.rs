//! The serving part of every simulated worker: its connections, their requests of one line (or of HTTP, as clusterd itself asks), and the
//! answers. How the worker gets its connections, and when it leaves, is its protocol's matter.
use crate::program::Wants;
use crate::world::{LetGo, State};
use clusterd::os::{connection, fdpass, listen, poll, process};
use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Connections accepted in one turn of the worker's loop.
const ACCEPTS_MAX: usize = 16;
/// The answer to a probe.
const HTTP_ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// What ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    ByClient,
    /// It had its last answer.
    Done,
    ByWorker,
}

pub(crate) struct Connection {
    pub(crate) socket: OwnedFd,
    pub(crate) peer: Option<String>,
    inode: u64,
    /// What was read of a request.
    request: Vec<u8>,
    /// The head of an HTTP request is being read.
    is_http: bool,
    /// Requests that get their answers, and when.
    due: VecDeque<(u64, String)>,
    /// It had an answer.
    served: bool,
    end: Option<End>,
    rests_since_us: u64,
}

impl Connection {
    /// Between two requests.
    pub(crate) fn can_move(&self) -> bool {
        self.end.is_none() && self.due.is_empty() && self.request.is_empty() && !self.is_http
    }

    fn is_idle(&self) -> bool {
        self.served && self.can_move()
    }
}

/// All connections of a worker, in the order in which they came.
#[derive(Default)]
pub(crate) struct Server {
    pub(crate) connections: Vec<Connection>,
    /// From a request to its answer.
    pub(crate) answer_us: u64,
    /// Memory that each request leaves.
    pub(crate) leak_bytes: u64,
    /// Keeps what has ended instead of closing it.
    pub(crate) keeps_ended: bool,
    /// Those.
    pub(crate) ended: Vec<OwnedFd>,
}

impl Server {
    pub(crate) fn add(&mut self, socket: OwnedFd, now_us: u64) {
        // As Node and others do; one that the master has made is so already, for all its holders.
        let _ = socket2::SockRef::from(&socket).set_nonblocking(true);
        let peer = peer(&socket);
        let inode = connection::inode(socket.as_fd()).unwrap_or_default();
        let (request, due) = (Vec::new(), VecDeque::new());
        let connection = Connection {
            socket,
            peer,
            inode,
            request,
            is_http: false,
            due,
            served: false,
            end: None,
            rests_since_us: now_us,
        };
        self.connections.push(connection);
    }

    /// Accepts from a socket, which may block.
    pub(crate) fn accept(&mut self, listener: &OwnedFd, now_us: u64) {
        for _ in 0..ACCEPTS_MAX {
            let mut interest = [poll::Interest::new(listener.as_fd(), false)];
            if poll::wait(&mut interest, Some(0)).is_err() || !interest[0].has_input() {
                return;
            }
            let Ok(socket) = listen::accept(listener.as_fd()) else { return };
            self.add(socket, now_us);
        }
    }

    /// Reads requests and writes the answers that are due. Connections that have rested for `rest_us` are closed, where that is given.
    pub(crate) fn serve(&mut self, state: &mut State, pid: i32, rest_us: Option<u64>) {
        let now_us = state.now_us;
        for connection in &mut self.connections {
            read(connection, state, pid, self.answer_us);
            while connection.due.front().is_some_and(|(at_us, _)| *at_us <= now_us) {
                let Some((_, text)) = connection.due.pop_front() else { break };
                let answer = if text == HTTP_ANSWER { text.clone() } else { format!("{text} {pid}\n") };
                // A client that is gone takes no answer.
                let _ = fdpass::send_with_fd(connection.socket.as_fd(), answer.as_bytes(), None);
                state.works(pid, self.answer_us, self.leak_bytes);
                connection.served = true;
                connection.rests_since_us = now_us;
                if text == HTTP_ANSWER || text.starts_with("once") {
                    connection.end.get_or_insert(End::Done);
                }
            }
            if rest_us.is_some_and(|us| connection.can_move() && connection.rests_since_us + us <= now_us) {
                connection.end = Some(End::ByWorker);
            }
        }
        let is_over = |connection: &Connection| connection.end.is_some() && connection.due.is_empty();
        let mut n = 0;
        while n < self.connections.len() {
            if !is_over(&self.connections[n]) {
                n += 1;
                continue;
            }
            let connection = self.connections.remove(n);
            if connection.end == Some(End::ByWorker) {
                state.let_go(connection.peer.clone(), LetGo::Closed);
            }
            if self.keeps_ended {
                let _ = socket2::SockRef::from(&connection.socket).shutdown(std::net::Shutdown::Both);
                self.ended.push(connection.socket);
            }
        }
    }

    /// What /proc shows of it: its connections and listening sockets, and whether it waits for more at these.
    pub(crate) fn show(&self, state: &mut State, pid: i32, listeners: &[OwnedFd], waits: bool) {
        if let Some(process) = state.processes.get_mut(&pid) {
            let shown = self.connections.iter().map(|connection| (connection.inode, connection.socket.as_raw_fd()));
            process.connections = shown.collect();
            process.listens = listeners.iter().filter_map(|listener| connection::inode(listener.as_fd())).collect();
            process.waits_at = if waits { process.listens.clone() } else { Default::default() };
        }
    }

    /// Connections that have ended and were kept.
    pub(crate) fn take_ended(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.ended)
    }

    /// Closes connections that rest after an answer.
    pub(crate) fn close_idle(&mut self, state: &mut State) {
        for connection in self.connections.iter().filter(|connection| connection.is_idle()) {
            state.let_go(connection.peer.clone(), LetGo::Closed);
        }
        self.connections.retain(|connection| !connection.is_idle());
    }

    pub(crate) fn wants(&self, rest_us: Option<u64>, wants: &mut Wants) {
        for connection in &self.connections {
            if connection.end.is_none() {
                wants.read.push(connection.socket.as_raw_fd());
            }
            let rests = rest_us.filter(|_| connection.can_move()).map(|us| connection.rests_since_us + us);
            let due = connection.due.front().map(|(at_us, _)| *at_us).or(rests);
            wants.at_us = wants.at_us.into_iter().chain(due).min();
        }
    }

    /// The clients whose connections end with the worker.
    pub(crate) fn holds(&self) -> Vec<String> {
        self.connections.iter().filter_map(|connection| connection.peer.clone()).collect()
    }
}

/// The other end of a connection.
pub(crate) fn peer(socket: &OwnedFd) -> Option<String> {
    name(&socket2::SockRef::from(socket).peer_addr().ok()?)
}

/// The name of a client's address. A Unix socket without one has none.
pub(crate) fn name(address: &socket2::SockAddr) -> Option<String> {
    let inet = address.as_socket().map(|address| address.to_string());
    inet.or_else(|| Some(String::from_utf8_lossy(address.as_abstract_namespace()?).into_owned()))
}

fn read(connection: &mut Connection, state: &mut State, pid: i32, answer_us: u64) {
    let mut buffer = [0; 1024];
    while connection.end.is_none() {
        match process::read_now(connection.socket.as_fd(), &mut buffer) {
            Ok(Some(0)) | Err(_) => connection.end = Some(End::ByClient),
            Ok(Some(length)) => connection.request.extend_from_slice(&buffer[..length]),
            Ok(None) => break,
        }
    }
    while let Some(end) = connection.request.iter().position(|byte| *byte == b'\n') {
        let line: Vec<u8> = connection.request.drain(..=end).collect();
        let text = String::from_utf8_lossy(&line).trim().to_owned();
        if connection.is_http || text.starts_with("GET ") {
            connection.is_http = !text.is_empty();
            if !connection.is_http {
                connection.due.push_back((state.now_us + answer_us, HTTP_ANSWER.to_owned()));
                state.count("requests of clusterd itself");
            }
            continue;
        }
        state.reads.entry(text.clone()).or_default().push(pid);
        connection.due.push_back((state.now_us + answer_us, text));
    }
}
