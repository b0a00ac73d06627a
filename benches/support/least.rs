//! The least primary for Node workers: Node's own protocol as far as a hand-off needs it, and nothing else. No window, no
//! ledger, no supervision, one listener: answers are read to be thrown away. What it reaches in connections per second is
//! what any primary could reach in front of the same workers.
use clusterd::os::{fdpass, poll};
use clusterd::worker::node::lines::{self, FromWorker, NewconnLine, Reply, SockName};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command};
use std::time::Duration;

/// After a batch it rests so long, so that the next one is more than a connection.
const NAP: Duration = Duration::from_millis(1);
/// Of answers that are read at once.
const ANSWERS_BYTES_MAX: usize = 256 * 1024;
/// Of its one listener, in the protocol.
const KEY: &str = "least";

/// The command of it.
pub(crate) fn command(port: u16, workers: usize, app: &std::path::Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("own path"));
    command.args(["least", &port.to_string(), &workers.to_string()]).arg(app);
    command
}

pub(super) fn primary(port: u16, workers: usize, app: &str) -> ! {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("the port is free");
    listener.set_nonblocking(true).expect("a flag");
    let channels: Vec<(UnixStream, Child)> = (1..=workers).map(|id| worker(app, id, port)).collect();
    let line = NewconnLine::new(KEY);
    let (mut turn, mut seq, mut bytes, mut answers) = (0, 1, Vec::new(), vec![0; ANSWERS_BYTES_MAX]);
    loop {
        let mut some = false;
        loop {
            match listener.accept() {
                Ok((socket, _)) => {
                    line.render(seq, &mut bytes);
                    let (channel, _) = &channels[turn];
                    turn = (turn + 1) % channels.len();
                    seq += 1;
                    some = true;
                    fdpass::send_with_fd(channel.as_fd(), &bytes, Some(socket.as_fd())).expect("room in the channel");
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => panic!("{e}"),
            }
        }
        for (channel, _) in &channels {
            let _ = (&mut &*channel).read(&mut answers);
        }
        if some {
            std::thread::sleep(NAP);
        } else {
            poll::wait(&mut [poll::Interest::new(listener.as_fd(), false)], None).expect("poll");
        }
    }
}

/// A worker that listens.
fn worker(app: &str, id: usize, port: u16) -> (UnixStream, Child) {
    let (mut channel, theirs) = UnixStream::pair().expect("a socketpair");
    let child = Command::new("node")
        .arg(app)
        .env("NODE_CHANNEL_FD", "0")
        .env("NODE_UNIQUE_ID", id.to_string())
        .stdin(OwnedFd::from(theirs))
        .spawn()
        .expect("a worker");
    // Byte by byte, so that nothing is read that belongs to the loop.
    let mut line = Vec::new();
    loop {
        let mut byte = [0];
        channel.read_exact(&mut byte).expect("its channel");
        if byte != *b"\n" {
            line.push(byte[0]);
            continue;
        }
        match lines::decode(&line).expect("the protocol") {
            FromWorker::QueryServer { seq, .. } => {
                let sockname = SockName { address: Ipv4Addr::LOCALHOST.into(), port };
                let reply = Reply { errno: 0, key: KEY, data: None, sockname: Some(&sockname) };
                let mut bytes = Vec::new();
                lines::reply(&mut bytes, seq, 0, &reply, None);
                channel.write_all(&bytes).expect("its channel");
            }
            FromWorker::Listening { .. } => {
                channel.set_nonblocking(true).expect("a flag");
                return (channel, child);
            }
            _ => {}
        }
        line.clear();
    }
}
