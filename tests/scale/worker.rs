//! A worker of Node's cluster protocol that costs next to nothing, so that there can be a thousand: it listens on every
//! address in ADDRESSES, answers each request with its pid, and keeps connections open that want to be kept. One thread.
use clusterd::os::{fdpass, process};
use clusterd::worker::node::framing::LineBuffer;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Value, json};
use std::collections::{HashMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

const CHANNEL: Token = Token(0);
/// Listening sockets count from here, connections after them.
const LISTENER_FIRST: usize = 1;
const CONNECTION_FIRST: usize = 10_000;

struct Worker {
    channel: Option<OwnedFd>,
    poll: Poll,
    seq: u64,
    addresses: Vec<SocketAddr>,
    /// Which address each request was for.
    asked: HashMap<u64, usize>,
    fds: VecDeque<OwnedFd>,
    listeners: Vec<TcpListener>,
    connections: HashMap<usize, (TcpStream, Vec<u8>)>,
    next: usize,
}

/// Plays the worker until it is told to leave and its last connection is closed, or its primary is gone.
pub(crate) fn run() {
    let number = std::env::var("NODE_CHANNEL_FD").unwrap().parse().unwrap();
    let channel = process::take_inherited_fd(number).unwrap();
    let addresses = std::env::var("ADDRESSES").unwrap().split(',').map(|text| text.parse().unwrap()).collect();
    let poll = Poll::new().unwrap();
    poll.registry().register(&mut SourceFd(&channel.as_raw_fd()), CHANNEL, Interest::READABLE).unwrap();
    let mut worker = Worker {
        channel: Some(channel),
        poll,
        seq: 0,
        addresses,
        asked: HashMap::new(),
        fds: VecDeque::new(),
        listeners: Vec::new(),
        connections: HashMap::new(),
        next: CONNECTION_FIRST,
    };
    worker.say(json!({ "act": "online" }));
    for n in 0..worker.addresses.len() {
        let address = worker.addresses[n];
        worker.asked.insert(worker.seq + 1, n);
        worker.say(json!({ "act": "queryServer", "address": address.ip(), "port": address.port(), "addressType": 4,
                           "fd": null, "index": 0, "data": null, "flags": 0 }));
    }
    worker.turn();
}

/// Waits until the primary has read from a full channel, or is gone.
fn wait_for_room(channel: BorrowedFd<'_>) {
    let _ = poll(&mut [PollFd::new(channel, PollFlags::POLLOUT)], PollTimeout::NONE);
}

impl Worker {
    fn turn(&mut self) {
        let mut events = Events::with_capacity(1024);
        let mut inbox = LineBuffer::new();
        while self.channel.is_some() || !self.connections.is_empty() {
            if self.poll.poll(&mut events, None).is_err() {
                continue;
            }
            for event in &events {
                match event.token() {
                    CHANNEL => self.read_channel(&mut inbox),
                    Token(n) if n < CONNECTION_FIRST => self.accept(n - LISTENER_FIRST),
                    Token(n) => self.serve(n),
                }
            }
        }
    }

    fn say(&mut self, mut message: Value) {
        self.seq += 1;
        message["cmd"] = "NODE_CLUSTER".into();
        message["seq"] = self.seq.into();
        self.send(&format!("{message}\n"));
    }

    fn send(&mut self, line: &str) {
        let Some(channel) = &self.channel else { return };
        let mut rest = line.as_bytes();
        while !rest.is_empty() {
            match fdpass::send_with_fd(channel.as_fd(), rest, None) {
                Ok(sent) => rest = &rest[sent..],
                Err(e) if e.kind() == ErrorKind::WouldBlock => wait_for_room(channel.as_fd()),
                Err(_) => return self.channel = None,
            }
        }
    }

    fn read_channel(&mut self, inbox: &mut LineBuffer) {
        while let Some(channel) = &self.channel {
            match fdpass::recv_with_fds(channel.as_fd(), inbox.spare(8 * 1024), &mut self.fds) {
                Ok(got) if got.bytes == 0 => std::process::exit(0),
                Ok(got) => inbox.filled(got.bytes),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(_) => std::process::exit(0),
            }
            while let Ok(Some(line)) = inbox.next_line() {
                let message = serde_json::from_slice(line.bytes).unwrap();
                self.take(message);
            }
        }
    }

    fn take(&mut self, message: Value) {
        let handle = message["cmd"] == "NODE_HANDLE";
        let fd = if handle { self.fds.pop_front() } else { None };
        let inner = if handle { &message["msg"] } else { &message };
        if handle {
            self.send("{\"cmd\":\"NODE_HANDLE_ACK\"}\n");
        }
        if inner["act"] == "newconn" {
            self.say(json!({ "ack": inner["seq"], "accepted": true }));
            self.connected(TcpStream::from(fd.unwrap()));
        } else if inner["act"] == "disconnect" {
            self.listeners.clear();
            self.channel = None;
        } else if let Some(n) = inner["ack"].as_u64().and_then(|ack| self.asked.remove(&ack)) {
            if let Some(fd) = fd {
                let listener = TcpListener::from(fd);
                let token = Token(LISTENER_FIRST + self.listeners.len());
                self.poll.registry().register(&mut SourceFd(&listener.as_raw_fd()), token, Interest::READABLE).unwrap();
                self.listeners.push(listener);
            }
            let address = self.addresses[n];
            self.say(json!({ "act": "listening", "address": address.ip(), "port": address.port(), "addressType": 4 }));
        }
    }

    fn accept(&mut self, listener: usize) {
        while let Some(Ok((stream, _))) = self.listeners.get(listener).map(TcpListener::accept) {
            self.connected(stream);
        }
    }

    fn connected(&mut self, stream: TcpStream) {
        stream.set_nonblocking(true).unwrap();
        let interest = Interest::READABLE;
        self.poll.registry().register(&mut SourceFd(&stream.as_raw_fd()), Token(self.next), interest).unwrap();
        self.connections.insert(self.next, (stream, Vec::new()));
        self.next += 1;
    }

    fn serve(&mut self, n: usize) {
        let Some((stream, asked)) = self.connections.get_mut(&n) else { return };
        let mut buffer = [0; 1024];
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(got) => asked.extend_from_slice(&buffer[..got]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(_) => break,
            }
            if !asked.ends_with(b"\r\n\r\n") {
                continue;
            }
            let keep = String::from_utf8_lossy(asked).contains("keep-alive");
            asked.clear();
            let body = format!("{{\"pid\":{}}}\n", std::process::id());
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            if stream.write_all(answer.as_bytes()).is_err() || !keep {
                break;
            }
        }
        self.connections.remove(&n);
    }
}
