//! Closing what came from others. The last close of a file can wait: a socket with SO_LINGER for its peer, a file of a
//! user's own file system (FUSE) for that user's program, a unix socket for all that lies unread in its queue. So such
//! files are closed on threads of their own, which start when there is something to close and end when there is nothing
//! more. A thread that waits is not waited for: another one goes on, up to a bound.
use super::interrupt;
use crate::limits::{CLOSE_WAIT_MS, CLOSER_IDLE_MS, CLOSER_QUEUE_MAX, CLOSER_STACK_BYTES, CLOSER_THREADS_MAX};
use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

struct State {
    waiting: VecDeque<OwnedFd>,
    threads: usize,
    idle: usize,
    /// Files that nobody can ever close: more waited than the bound allows.
    lost: u64,
}

static STATE: Mutex<State> = Mutex::new(State { waiting: VecDeque::new(), threads: 0, idle: 0, lost: 0 });
static NEWS: Condvar = Condvar::new();

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Closes `fd` on another thread, soon. Never waits. When [`CLOSER_QUEUE_MAX`] files wait already, because every thread
/// hangs in one, it stays open for good.
pub fn close(fd: OwnedFd) {
    close_all([fd]);
}

/// As [`close`], with one lock for all of them.
pub fn close_all(fds: impl IntoIterator<Item = OwnedFd>) {
    let mut state = state();
    for fd in fds {
        if state.waiting.len() < CLOSER_QUEUE_MAX {
            state.waiting.push_back(fd);
        } else {
            state.lost += 1;
            std::mem::forget(fd);
        }
    }
    if state.waiting.is_empty() {
        return;
    }
    NEWS.notify_one();
    // One that is idle may be woken by a push before this one and not have taken it yet: then there are more files than
    // idle threads.
    if state.idle < state.waiting.len().min(CLOSER_THREADS_MAX) && state.threads < CLOSER_THREADS_MAX {
        let thread = std::thread::Builder::new().name("clusterd-close".to_owned()).stack_size(CLOSER_STACK_BYTES);
        match thread.spawn(work) {
            Ok(_) => state.threads += 1,
            // There is none to be had: the caller's is better than an open file.
            Err(_) if state.threads == 0 => {
                let waiting = std::mem::take(&mut state.waiting);
                drop(state);
                waiting.into_iter().for_each(close_here);
            }
            Err(_) => {}
        }
    }
}

/// How many files wait to be closed, and how many never will be.
#[must_use]
pub fn backlog() -> (usize, u64) {
    let state = state();
    (state.waiting.len(), state.lost)
}

/// Closes `fd` on this thread; waits for [`CLOSE_WAIT_MS`] at most where what makes it wait is a socket.
pub fn close_here(fd: OwnedFd) {
    forget_linger(fd.as_fd());
    // Others may share the socket and set the option again, and a unix socket may hold other sockets.
    interrupt::within(CLOSE_WAIT_MS, || drop(fd));
}

/// Closes `fd`, a TCP socket that others may still share, on this thread. It waits only where one of them sets SO_LINGER
/// and closes its copy between two steps of ours: the caller is to have [`interrupt::Periodic`] going.
pub fn close_soon(fd: OwnedFd) {
    forget_linger(fd.as_fd());
    drop(fd);
}

/// Has a close of this socket not wait for its peer: what was written is still sent. One that is to be reset at its
/// close (a linger time of 0) stays so. Other files are left alone.
pub fn forget_linger(fd: BorrowedFd<'_>) {
    let mut linger = libc::linger { l_onoff: 0, l_linger: 0 };
    let mut length = size_of::<libc::linger>() as libc::socklen_t;
    let (number, name) = (fd.as_raw_fd(), libc::SO_LINGER);
    // SAFETY: `linger` is as long as `length` says, and both live until the call returns.
    let known = unsafe { libc::getsockopt(number, libc::SOL_SOCKET, name, (&raw mut linger).cast(), &raw mut length) };
    if known == 0 && linger.l_onoff != 0 && linger.l_linger != 0 {
        let off = libc::linger { l_onoff: 0, l_linger: 0 };
        // SAFETY: as above; the kernel only reads. A failure leaves a close that may wait, which is what was there.
        unsafe { libc::setsockopt(number, libc::SOL_SOCKET, name, (&raw const off).cast(), length) };
    }
}

fn work() {
    let mut state = state();
    loop {
        if let Some(fd) = state.waiting.pop_front() {
            drop(state);
            close_here(fd);
            state = self::state();
            continue;
        }
        state.idle += 1;
        let (back, wait) =
            NEWS.wait_timeout(state, Duration::from_millis(CLOSER_IDLE_MS)).unwrap_or_else(PoisonError::into_inner);
        state = back;
        state.idle -= 1;
        if wait.timed_out() && state.waiting.is_empty() {
            state.threads -= 1;
            return;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;
    use std::time::Instant;

    /// A socket with unsent data whose close waits for an hour, with what keeps its peer from reading.
    fn lingering() -> (OwnedFd, (TcpListener, TcpStream)) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        socket2::SockRef::from(&listener).set_recv_buffer_size(2048).unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (peer, _) = listener.accept().unwrap();
        client.set_nonblocking(true).unwrap();
        while client.write(&[b'x'; 65536]).is_ok() {}
        socket2::SockRef::from(&client).set_linger(Some(Duration::from_secs(3600))).unwrap();
        (client.into(), (listener, peer))
    }

    #[test]
    fn a_socket_that_lingers_is_closed_without_waiting_and_what_was_written_arrives() {
        let (socket, (_listener, mut peer)) = lingering();
        let from = Instant::now();
        forget_linger(socket.as_fd());
        drop(socket);
        assert!(from.elapsed() < Duration::from_secs(5));
        let mut all = Vec::new();
        peer.read_to_end(&mut all).unwrap();
        assert!(!all.is_empty());
    }

    #[test]
    fn what_lies_in_the_queue_of_a_unix_socket_holds_nobody_up() {
        let (socket, _peers) = lingering();
        let (left, right) = UnixStream::pair().unwrap();
        super::super::fdpass::send_with_fd(left.as_fd(), b"x", Some(socket.as_fd())).unwrap();
        drop((socket, left));
        let from = Instant::now();
        close_here(right.into());
        assert!(from.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn many_are_closed_on_other_threads() {
        let mut readers = Vec::new();
        for _ in 0..200 {
            let (read, write) = std::io::pipe().unwrap();
            close(write.into());
            readers.push(read);
        }
        for mut reader in readers {
            // The end comes only when the other side is closed.
            assert_eq!(reader.read(&mut [0; 1]).unwrap(), 0);
        }
        assert_eq!(backlog().1, 0);
    }
}
