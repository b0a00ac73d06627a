//! Loops beside the caller's: each waits for its files, takes a turn, and waits again. On Linux each has a thread of its own; a
//! simulated system gives them their turns itself. What a loop does is not here.
use std::io;
use std::os::fd::BorrowedFd;

/// Whether a turn waits first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Until one of the files is readable, or something is due.
    UntilReady,
    /// Not at all.
    No,
}

/// A loop that runs beside the caller's.
pub trait Background: Send + 'static {
    /// The files that it waits for.
    fn files(&self) -> Vec<BorrowedFd<'_>>;

    /// One turn. Returns whether another one follows.
    fn turn(&mut self, wait: Wait) -> bool;
}

/// Runs a loop on a thread of its own.
///
/// # Errors
/// No thread can be started.
pub fn on_thread(name: &'static str, stack_bytes: usize, mut work: impl Background) -> io::Result<()> {
    let thread = std::thread::Builder::new().name(name.to_owned()).stack_size(stack_bytes);
    thread.spawn(move || while work.turn(Wait::UntilReady) {}).map(drop)
}
