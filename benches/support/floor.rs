//! The floor: the least that a primary can do. A bare accept4 + sendmsg + close loop that gives connections in turn to
//! workers which read the request and answer. No protocol, no answers from workers, no supervision, and one request per
//! connection.
use clusterd::os::fdpass;
use nix::time::{ClockId, clock_gettime};
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command};
use std::time::Duration;

/// CPU time of the job at /job, as in apps/web.js.
const JOB: Duration = Duration::from_millis(5);

/// The command of its primary.
pub(crate) fn command(port: u16, workers: usize) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("own path"));
    command.args(["floor", &port.to_string(), &workers.to_string()]);
    command
}

pub(super) fn primary(port: u16, workers: usize) -> ! {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("the port is free");
    let mut channels = Vec::new();
    for _ in 0..workers {
        let (ours, theirs) = UnixStream::pair().expect("a socketpair");
        channels.push((ours, spawn_worker(theirs)));
    }
    let mut turn = 0;
    loop {
        let Ok((socket, _)) = listener.accept() else { continue };
        let (channel, _) = &channels[turn];
        turn = (turn + 1) % channels.len();
        // A full channel waits: nothing here measures overload.
        while fdpass::send_with_fd(channel.as_fd(), b"x", Some(socket.as_fd())).is_err() {
            std::thread::yield_now();
        }
    }
}

fn spawn_worker(channel: UnixStream) -> Child {
    Command::new(std::env::current_exe().expect("own path"))
        .arg("floor-worker")
        .stdin(OwnedFd::from(channel))
        .spawn()
        .expect("a worker")
}

/// A worker: its channel is its stdin.
pub(super) fn worker() -> ! {
    let stdin = std::io::stdin();
    let channel: BorrowedFd<'_> = stdin.as_fd();
    let mut fds = VecDeque::new();
    let mut buffer = [0u8; 512];
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: 6\r\nx-worker: {}\r\ndate: Thu, 01 Jan 2026 00:00:00 GMT\r\nconnection: \
         close\r\n\r\nhello\n",
        std::process::id()
    );
    loop {
        match wait_and_receive(channel, &mut buffer, &mut fds) {
            Ok(0) | Err(_) => std::process::exit(0),
            Ok(_) => {}
        }
        while let Some(fd) = fds.pop_front() {
            let mut socket = TcpStream::from(fd);
            let mut request = [0u8; 1024];
            let _ = socket.read(&mut request);
            if request.starts_with(b"GET /job ") {
                job();
            }
            let _ = socket.write_all(answer.as_bytes());
        }
    }
}

fn job() {
    let used = || Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("a clock"));
    let start = used();
    while used() - start < JOB {}
}

fn wait_and_receive(channel: BorrowedFd<'_>, buffer: &mut [u8], fds: &mut VecDeque<OwnedFd>) -> std::io::Result<usize> {
    loop {
        match fdpass::recv_with_fds(channel, buffer, fds) {
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                let mut interest = [clusterd::os::poll::Interest::new(channel, false)];
                clusterd::os::poll::wait(&mut interest, None)?;
            }
            other => return other.map(|received| received.bytes),
        }
    }
}
