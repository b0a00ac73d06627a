//! Closes fds that came from others. The last close of a file can block: a socket with SO_LINGER waits for its peer, a
//! file on a user's own file system (FUSE) for that user's program, a unix socket for everything unread in its queue.
//! Such fds are closed on separate threads, which start when there is work and end when there is none. A blocked thread
//! is replaced by another one, up to a bound.
use super::interrupt;
use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Files queued to be closed on other threads; further ones stay open.
const CLOSER_QUEUE_MAX: usize = 1024;
/// Threads that close files. Each may be blocked.
const CLOSER_THREADS_MAX: usize = 8;
/// Idle time after which such a thread ends, in milliseconds.
const CLOSER_IDLE_MS: u64 = 2_000;
/// Stack of such a thread, in bytes.
const CLOSER_STACK_BYTES: usize = 64 * 1024;
/// Time limit for the close of one socket, in milliseconds.
pub(super) const CLOSE_WAIT_MS: u64 = 20;

struct State {
    waiting: VecDeque<OwnedFd>,
    threads: usize,
    idle: usize,
    /// Fds that will never be closed: the queue was full.
    lost: u64,
}

static STATE: Mutex<State> = Mutex::new(State { waiting: VecDeque::new(), threads: 0, idle: 0, lost: 0 });
static NEWS: Condvar = Condvar::new();

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Queues `fd` to be closed on another thread. Never blocks. When `CLOSER_QUEUE_MAX` fds are queued, because every
/// thread is blocked, it stays open for good.
pub fn close(fd: OwnedFd) {
    close_all([fd]);
}

/// Like [`close`], with one lock for all of them.
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
    // An idle thread may have been woken by an earlier push without having taken its fd: then there are more fds than
    // idle threads.
    if state.idle < state.waiting.len().min(CLOSER_THREADS_MAX) && state.threads < CLOSER_THREADS_MAX {
        let thread = std::thread::Builder::new().name("clusterd-close".to_owned()).stack_size(CLOSER_STACK_BYTES);
        match thread.spawn(work) {
            Ok(_) => state.threads += 1,
            // No thread is available: blocking the caller is better than a leaked fd.
            Err(_) if state.threads == 0 => {
                let waiting = std::mem::take(&mut state.waiting);
                drop(state);
                waiting.into_iter().for_each(close_here);
            }
            Err(_) => {}
        }
    }
}

/// How many fds are queued, and how many will never be closed.
#[must_use]
pub fn backlog() -> (usize, u64) {
    let state = state();
    (state.waiting.len(), state.lost)
}

/// Closes `fd` on this thread; for sockets blocks for at most `CLOSE_WAIT_MS`.
pub fn close_here(fd: OwnedFd) {
    forget_linger(fd.as_fd());
    // Others may share the socket and set the option again, and a unix socket may hold other sockets.
    interrupt::within(CLOSE_WAIT_MS, || drop(fd));
}

/// Closes `fd`, a TCP socket that others may share, on this thread. It blocks only if one of them sets SO_LINGER and
/// closes its copy between two of our steps: the caller must have [`interrupt::Periodic`] running.
pub fn close_soon(fd: OwnedFd) {
    forget_linger(fd.as_fd());
    drop(fd);
}

/// Keeps the close of this socket from waiting for its peer: written data is still sent. A socket that is to be reset
/// at its close (a linger time of 0) stays so. Other files are left alone.
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

    /// A socket with unsent data whose close would block for an hour, and the peer that does not read.
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
    #[cfg_attr(miri, ignore = "miri does not know sockets")]
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
    #[cfg_attr(miri, ignore = "miri does not know sockets")]
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
    #[cfg_attr(miri, ignore = "miri does not know sockets")]
    fn many_are_closed_on_other_threads() {
        let mut readers = Vec::new();
        for _ in 0..200 {
            let (read, write) = std::io::pipe().unwrap();
            close(write.into());
            readers.push(read);
        }
        for mut reader in readers {
            // The end of file comes only when the other side is closed.
            assert_eq!(reader.read(&mut [0; 1]).unwrap(), 0);
        }
        assert_eq!(backlog().1, 0);
    }
}
