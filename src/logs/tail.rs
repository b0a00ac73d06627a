//! The last lines of a worker, kept for the case that it fails: whoever requested the reload sees them.
use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Lines kept of a new worker's output during its reload.
const TAIL_LINES_MAX: usize = 20;

/// Longest part of a line that is kept, in characters.
const TAIL_LINE_CHARS_MAX: usize = 500;

/// The last lines of one worker's output, from all its streams.
#[derive(Debug)]
pub struct Tail {
    lines: Mutex<VecDeque<String>>,
    open: AtomicUsize,
}

impl Tail {
    /// For a worker with this number of streams.
    pub fn new(streams: usize) -> Tail {
        Tail { lines: Mutex::default(), open: AtomicUsize::new(streams) }
    }

    /// Adds a line.
    pub fn push(&self, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        let shown = text.chars().filter(|c| !c.is_control() || *c == '\t').take(TAIL_LINE_CHARS_MAX).collect();
        // A thread that panicked with the lock has left whole lines behind.
        let mut lines = self.lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if lines.len() == TAIL_LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(shown);
    }

    pub(super) fn stream_ended(&self) {
        self.open.fetch_sub(1, Ordering::AcqRel);
    }

    /// Whether the worker can write no more.
    pub fn has_ended(&self) -> bool {
        self.open.load(Ordering::Acquire) == 0
    }

    /// The lines, oldest first, safe for a terminal.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner).iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_without_what_a_terminal_would_obey() {
        let tail = Tail::new(2);
        for n in 0..100 {
            tail.push(format!("line {n} \x1b[31m").as_bytes());
        }
        tail.push(&vec![b'x'; 10_000]);
        let lines = tail.lines();
        assert_eq!(lines.len(), TAIL_LINES_MAX);
        assert_eq!(lines[TAIL_LINES_MAX - 2], "line 99 [31m");
        assert_eq!(lines[TAIL_LINES_MAX - 1].len(), TAIL_LINE_CHARS_MAX);
        tail.stream_ended();
        assert!(!tail.has_ended());
        tail.stream_ended();
        assert!(tail.has_ended());
    }
}
