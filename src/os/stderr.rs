//! Messages to stderr that never block the process. Stderr may be a pipe without a reader or a stopped terminal
//! (Ctrl-S), and its flags are shared, so it cannot be made non-blocking. Lines are queued here, up to a bound; further
//! lines are counted, and the count is written in their place.
//!
//! A process that may have threads writes on one ([`start_thread`]). Another one writes when poll(2) reports room,
//! under a timer: other processes may fill the room in between.
use super::{interrupt, poll};
use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Messages queued for stderr, in bytes; further ones are only counted.
const STDERR_BYTES_MAX: usize = 64 * 1024;
/// Length of one line of the keeper, in bytes.
const STDERR_LINE_BYTES_MAX: usize = 4 * 1024;
/// Time limit for a write to stderr that was expected not to block, in milliseconds.
const STDERR_WAIT_MS: u64 = 20;
/// Pause after a write to stderr that blocked, in milliseconds.
const STDERR_PAUSE_MS: u64 = 1_000;
/// How long the process waits at its end for queued messages, in milliseconds.
const STDERR_END_WAIT_MS: u64 = 200;

/// A pipe with room takes this many bytes in one piece (PIPE_BUF).
const PIECE_BYTES_MAX: usize = 4096;

/// The queued lines.
#[derive(Debug)]
struct Backlog {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Lines dropped since the last queued one.
    lost: u64,
}

impl Backlog {
    const fn new() -> Backlog {
        Backlog { lines: VecDeque::new(), bytes: 0, lost: 0 }
    }

    fn push(&mut self, line: &[u8]) {
        let note = self.note();
        if self.bytes + note.len() + line.len() > STDERR_BYTES_MAX {
            self.lost += 1;
            return;
        }
        self.lost = 0;
        self.bytes += note.len() + line.len();
        self.lines.extend([note, line.to_vec()].into_iter().filter(|line| !line.is_empty()));
    }

    fn note(&self) -> Vec<u8> {
        match self.lost {
            0 => Vec::new(),
            lost => format!("clusterd: {lost} messages are missing here: stderr was not read\n").into_bytes(),
        }
    }

    /// The next piece to write.
    fn front(&mut self) -> Option<&[u8]> {
        if self.lines.is_empty() && self.lost > 0 {
            let note = self.note();
            self.lost = 0;
            self.bytes += note.len();
            self.lines.push_back(note);
        }
        self.lines.front().map(|line| &line[..line.len().min(PIECE_BYTES_MAX)])
    }

    /// This many bytes of the front were written.
    fn written(&mut self, count: usize) {
        let Some(line) = self.lines.front_mut() else { return };
        let count = count.min(line.len());
        line.drain(..count);
        self.bytes -= count;
        if line.is_empty() {
            self.lines.pop_front();
        }
    }

    fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.lost == 0
    }
}

struct State {
    backlog: Backlog,
    /// A thread writes.
    threaded: bool,
    /// A write blocked unexpectedly: no further one before this time.
    paused_until: Option<Instant>,
}

static STATE: Mutex<State> = Mutex::new(State { backlog: Backlog::new(), threaded: false, paused_until: None });
/// There is something to write.
static NEWS: Condvar = Condvar::new();
/// Something was written.
static WRITTEN: Condvar = Condvar::new();

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has stderr go to this file: what is written from now on, also by processes that are started later.
///
/// # Errors
/// Those of dup2(2).
pub fn replace(file: BorrowedFd<'_>) -> io::Result<()> {
    Ok(nix::unistd::dup2_stderr(file)?)
}

/// Writes one line, now or as soon as stderr takes it. Never blocks.
pub fn say(line: &str) {
    let mut bytes = Vec::with_capacity(line.len() + 1);
    bytes.extend_from_slice(&line.as_bytes()[..line.len().min(STDERR_LINE_BYTES_MAX)]);
    bytes.push(b'\n');
    push(&bytes);
}

fn push(bytes: &[u8]) {
    let mut state = state();
    state.backlog.push(bytes);
    if state.threaded {
        NEWS.notify_one();
    } else {
        write_now(&mut state);
    }
}

/// Whether [`write_waiting`] has lines to write when stderr has room.
#[must_use]
pub fn is_waiting() -> bool {
    let state = state();
    !state.threaded && !state.backlog.is_empty() && state.paused_until.is_none()
}

/// Writes queued lines, as far as stderr takes them at once.
pub fn write_waiting() {
    let mut state = state();
    if !state.threaded {
        write_now(&mut state);
    }
}

fn write_now(state: &mut State) {
    if state.backlog.is_empty() || state.paused_until.is_some_and(|until| until > Instant::now()) {
        return;
    }
    state.paused_until = None;
    let stderr = io::stderr();
    while poll::writable_now(stderr.as_fd())
        && let Some(piece) = state.backlog.front()
    {
        match interrupt::within(STDERR_WAIT_MS, || write(stderr.as_fd(), piece)) {
            Ok(count) => state.backlog.written(count),
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {
                state.paused_until = Some(Instant::now() + Duration::from_millis(STDERR_PAUSE_MS));
                return;
            }
            // A closed stderr is ignored.
            Err(_) => state.backlog = Backlog::new(),
        }
    }
}

fn write(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: the bytes live until the call returns, and the kernel only reads them.
    let written = unsafe { libc::write(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) };
    usize::try_from(written).map_err(|_| io::Error::last_os_error())
}

/// Starts a thread that does all writing from now on; only it blocks.
///
/// # Errors
/// No thread is available: [`say`] works as before.
pub fn start_thread(stack_bytes: usize) -> io::Result<()> {
    let thread = std::thread::Builder::new().name("clusterd-stderr".to_owned()).stack_size(stack_bytes);
    state().threaded = true;
    let started = thread.spawn(write_for_ever);
    if started.is_err() {
        state().threaded = false;
    }
    started.map(drop)
}

fn write_for_ever() {
    let mut state = state();
    loop {
        let Some(piece) = state.backlog.front().map(<[u8]>::to_vec) else {
            WRITTEN.notify_all();
            state = NEWS.wait(state).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        drop(state);
        let stderr = io::stderr();
        let result = write(stderr.as_fd(), &piece);
        if matches!(&result, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
            // Another process that shares it made it non-blocking.
            poll::wait_writable(stderr.as_fd(), STDERR_PAUSE_MS);
        }
        state = self::state();
        match result {
            Ok(count) => state.backlog.written(count),
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
            Err(_) => state.backlog = Backlog::new(),
        }
    }
}

/// Waits until the queue is written, for at most `STDERR_END_WAIT_MS`. Call it before the process ends.
pub fn finish() {
    let until = Instant::now() + Duration::from_millis(STDERR_END_WAIT_MS);
    loop {
        let mut state = state();
        let left = until.saturating_duration_since(Instant::now());
        if state.backlog.is_empty() || left.is_zero() {
            return;
        }
        if state.threaded {
            drop(WRITTEN.wait_timeout(state, left));
        } else {
            state.paused_until = None;
            write_now(&mut state);
            let waits = !state.backlog.is_empty();
            drop(state);
            if waits {
                poll::wait_writable(io::stderr().as_fd(), u64::try_from(left.as_millis()).unwrap_or(0).max(1));
            }
        }
    }
}

/// A writer for a logger: each write is one message.
#[derive(Clone, Copy, Debug)]
pub struct Lines;

impl Write for Lines {
    fn write(&mut self, message: &[u8]) -> io::Result<usize> {
        push(message);
        Ok(message.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know pipes and poll")]
    fn lines_wait_up_to_a_bound_and_what_is_missing_is_said_in_its_place() {
        let mut backlog = Backlog::new();
        let line = vec![b'x'; 1000];
        let mut kept = 0;
        for _ in 0..STDERR_BYTES_MAX / 1000 + 5 {
            backlog.push(&line);
            kept = backlog.lines.len();
        }
        assert!(backlog.bytes <= STDERR_BYTES_MAX && backlog.lost >= 5, "{} {}", backlog.bytes, backlog.lost);
        let lost = backlog.lost;
        for _ in 0..2 {
            let count = backlog.front().unwrap().len();
            backlog.written(count);
        }
        backlog.push(b"again\n");
        let said: Vec<String> = backlog.lines.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect();
        assert_eq!(said.len(), kept);
        assert!(said[kept - 2].contains(&format!("{lost} messages are missing")), "{}", said[kept - 2]);
        assert_eq!(said[kept - 1], "again\n");
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri does not know pipes and poll")]
    fn a_long_line_goes_out_in_pieces_and_the_last_loss_is_told_without_another_line() {
        let mut backlog = Backlog::new();
        backlog.push(&vec![b'y'; PIECE_BYTES_MAX + 10]);
        assert_eq!(backlog.front().unwrap().len(), PIECE_BYTES_MAX);
        backlog.written(PIECE_BYTES_MAX);
        assert_eq!(backlog.front().unwrap().len(), 10);
        backlog.written(10);
        assert!(backlog.is_empty() && backlog.front().is_none());
        backlog.lost = 3;
        assert!(!backlog.is_empty());
        assert!(String::from_utf8_lossy(backlog.front().unwrap()).contains("3 messages"));
    }
}
