//! Listening sockets that are passed to the process (sd_listen_fds(3)): they are fds 3 and up, and SIGTERM is the end.
use super::server::Server;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use std::error::Error;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, FromRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;

const FIRST_FD: RawFd = 3;

/// Accepts until SIGTERM.
///
/// # Errors
/// No sockets were passed, or the system refuses what is needed.
pub(crate) fn serve(server: &Arc<Server>) -> Result<(), Box<dyn Error>> {
    let listeners = inherited()?;
    let until = at_sigterm()?;
    loop {
        let mut polled: Vec<PollFd<'_>> =
            listeners.iter().map(|one| PollFd::new(one.as_fd(), PollFlags::POLLIN)).collect();
        polled.push(PollFd::new(until.as_fd(), PollFlags::POLLIN));
        match poll(&mut polled, PollTimeout::NONE) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let is_over = polled.pop().and_then(|fd| fd.any()).unwrap_or_default();
        for listener in &listeners {
            accept(listener, server)?;
        }
        if is_over {
            return Ok(());
        }
    }
}

/// Takes every connection that waits.
pub(crate) fn accept(listener: &TcpListener, server: &Arc<Server>) -> io::Result<()> {
    loop {
        match listener.accept() {
            Ok((stream, _)) => server.take(stream)?,
            // Taken by another worker, where all have the same socket.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted) => {}
            Err(error) => return Err(error),
        }
    }
}

/// The sockets that were passed to this very process.
fn inherited() -> Result<Vec<TcpListener>, Box<dyn Error>> {
    let number = |name| std::env::var(name).ok().and_then(|value| value.parse::<i32>().ok());
    let count = number("LISTEN_FDS").filter(|_| number("LISTEN_PID") == i32::try_from(std::process::id()).ok());
    let count = count.filter(|count| *count > 0).ok_or("no socket was passed: run me under clusterd or systemd")?;
    let mut listeners = Vec::new();
    for fd in FIRST_FD..FIRST_FD + count {
        // SAFETY: LISTEN_PID says that these fds were opened for us; nothing else in this program owns them.
        let listener = unsafe { TcpListener::from_raw_fd(fd) };
        listener.set_nonblocking(true)?;
        listeners.push(listener);
    }
    Ok(listeners)
}

/// Readable once SIGTERM has come. Called before there are other threads, so that all of them leave the signal to this one.
fn at_sigterm() -> io::Result<UnixStream> {
    let signals = SigSet::from(Signal::SIGTERM);
    signals.thread_block()?;
    let (reader, writer) = UnixStream::pair()?;
    thread::Builder::new().spawn(move || {
        let _ = signals.wait();
        drop(writer);
    })?;
    Ok(reader)
}
