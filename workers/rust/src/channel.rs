//! Node's cluster protocol as a worker speaks it: JSON lines over an inherited socket, with file descriptors beside them. The
//! worker asks for an address, and gets either the listening socket (`--balance shared` and `kernel`), or one connection after
//! the other. The message `disconnect` is the end.
use super::server::Server;
use super::sockets;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use sendfd::RecvWithFd;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::error::Error;
use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

/// File descriptors that one read can bring. A read ends behind a message that has some.
const FDS_PER_READ_MAX: usize = 4;

/// Serves until clusterd says `disconnect`, or is gone.
///
/// # Errors
/// The address cannot be had, or the channel is no channel.
pub(crate) fn serve(server: &Arc<Server>, fd: RawFd) -> Result<(), Box<dyn Error>> {
    let mut channel = Channel::inherited(fd);
    let port: u16 = std::env::var("PORT")?.parse()?;
    channel.act("online", json!({}))?;
    let asked =
        json!({ "address": null, "port": port, "addressType": 4, "fd": null, "index": 0, "flags": 0, "data": null });
    let question = channel.act("queryServer", asked)?;
    let mut listener = None;
    let mut key = Value::Null;
    loop {
        if let Some(listener) = &listener {
            wait(&channel.socket, listener)?;
            sockets::accept(listener, server)?;
        }
        channel.read(listener.is_none())?;
        while let Some(Line { message, passed }) = channel.next()? {
            if message["ack"] == question {
                if message["errno"].as_i64().unwrap_or_default() != 0 {
                    return Err(format!("port {port} cannot be had: error {}", message["errno"]).into());
                }
                listener = passed.map(TcpListener::from);
                key = message["key"].clone();
                channel.act("listening", json!({ "address": null, "port": port, "addressType": 4 }))?;
            } else if message["act"] == "newconn" {
                let passed = passed.filter(|_| message["key"] == key);
                let is_taken = passed.is_some_and(|fd| server.take(TcpStream::from(fd)).is_ok());
                channel.send(&json!({ "cmd": "NODE_CLUSTER", "ack": message["seq"], "accepted": is_taken }))?;
            } else if message["act"] == "disconnect" {
                channel.act("close", json!({ "key": key }))?;
                return Ok(());
            }
        }
    }
}

/// Waits for a line or a connection.
fn wait(channel: &UnixStream, listener: &TcpListener) -> nix::Result<()> {
    let mut both = [channel.as_fd(), listener.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
    match poll(&mut both, PollTimeout::NONE) {
        Ok(_) | Err(nix::Error::EINTR) => Ok(()),
        Err(error) => Err(error),
    }
}

/// A message, with the file descriptor that came with it.
struct Line {
    message: Value,
    passed: Option<OwnedFd>,
}

struct Channel {
    socket: UnixStream,
    /// What was read and is not a whole line yet.
    received: Vec<u8>,
    /// The file descriptors that came, in the order of the lines that they belong to.
    passed: VecDeque<OwnedFd>,
    /// Counts our own messages.
    seq: u64,
}

impl Channel {
    fn inherited(fd: RawFd) -> Channel {
        // SAFETY: NODE_CHANNEL_FD says that this fd was opened for us; nothing else in this program owns it.
        let socket = unsafe { UnixStream::from_raw_fd(fd) };
        Channel { socket, received: Vec::new(), passed: VecDeque::new(), seq: 0 }
    }

    fn send(&mut self, message: &Value) -> io::Result<()> {
        self.socket.write_all(format!("{message}\n").as_bytes())
    }

    /// Tells clusterd that something happened, or asks for something. The number of the message, which the answer has.
    fn act(&mut self, act: &str, mut message: Value) -> io::Result<u64> {
        self.seq += 1;
        message["cmd"] = "NODE_CLUSTER".into();
        message["act"] = act.into();
        message["seq"] = self.seq.into();
        self.send(&message)?;
        Ok(self.seq)
    }

    /// Reads what is there; `waits` until there is something.
    fn read(&mut self, waits: bool) -> io::Result<()> {
        self.socket.set_nonblocking(!waits)?;
        let mut bytes = [0; 64 * 1024];
        let mut fds = [-1; FDS_PER_READ_MAX];
        let read = self.socket.recv_with_fd(&mut bytes, &mut fds);
        self.socket.set_nonblocking(false)?;
        match read {
            Ok((0, _)) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok((count, passed)) => {
                self.received.extend_from_slice(&bytes[..count]);
                // SAFETY: recvmsg has just made these fds for us.
                self.passed.extend(fds[..passed].iter().map(|fd| unsafe { OwnedFd::from_raw_fd(*fd) }));
                Ok(())
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The next whole line. Those of other workers and `"shutdown"` are for apps that want them.
    fn next(&mut self) -> Result<Option<Line>, Box<dyn Error>> {
        let Some(end) = self.received.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
        let line: Vec<u8> = self.received.drain(..=end).collect();
        let mut message: Value = serde_json::from_slice(&line)?;
        if message["cmd"] != "NODE_HANDLE" {
            return Ok(Some(Line { message, passed: None }));
        }
        let passed = self.passed.pop_front();
        let answer = if passed.is_some() { "NODE_HANDLE_ACK" } else { "NODE_HANDLE_NACK" };
        self.send(&json!({ "cmd": answer }))?;
        Ok(Some(Line { message: message["msg"].take(), passed }))
    }
}
