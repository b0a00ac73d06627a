//! The last lines of a worker, kept for the case that it fails: whoever requested the reload sees them.
use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Lines kept of a new worker's output during its reload: an error may end in a long stack.
const TAIL_LINES_MAX: usize = 200;

/// Lines that are shown.
const SHOWN_LINES_MAX: usize = 20;

/// Of an error with more lines than are shown: the last ones, which in some languages say what it is.
const SHOWN_AT_END: usize = 5;

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

    /// The lines to show, oldest first, safe for a terminal: from the first line of the last error on, where there is one.
    pub fn lines(&self) -> Vec<String> {
        let lines = self.lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let last = lines.len().saturating_sub(SHOWN_LINES_MAX);
        let from = lines.iter().rposition(|line| begins_an_error(line)).map_or(last, |error| error.min(last));
        let found: Vec<String> = lines.iter().skip(from).cloned().collect();
        if found.len() <= SHOWN_LINES_MAX {
            return found;
        }
        let (head, end) = (SHOWN_LINES_MAX - SHOWN_AT_END - 1, found.len() - SHOWN_AT_END);
        let left_out = format!("... ({} lines)", end - head);
        found[..head].iter().cloned().chain([left_out]).chain(found[end..].iter().cloned()).collect()
    }
}

/// Whether a line looks like the first of an error, in the languages whose errors have many lines: `Error: ...`,
/// `TypeError: ...`, `Traceback (most ...`, `panic: ...`, `thread 'main' panicked at`, `Exception in thread`.
fn begins_an_error(line: &str) -> bool {
    let first = line.split([':', ' ']).next().unwrap_or_default();
    let is_name = first.ends_with("Error") || first.ends_with("Exception");
    let has_name = is_name && line[first.len()..].starts_with([':', ' ']);
    has_name || line.starts_with("Traceback (most") || line.starts_with("panic:") || line.contains("' panicked at ")
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
        assert_eq!(lines.len(), SHOWN_LINES_MAX);
        assert_eq!(lines[SHOWN_LINES_MAX - 2], "line 99 [31m");
        assert_eq!(lines[SHOWN_LINES_MAX - 1].len(), TAIL_LINE_CHARS_MAX);
        tail.stream_ended();
        assert!(!tail.has_ended());
        tail.stream_ended();
        assert!(tail.has_ended());
    }

    #[test]
    fn an_error_is_shown_from_its_first_line_on() {
        let tail = Tail::new(1);
        tail.push(b"starting");
        tail.push(b"Error: listen EADDRINUSE: address already in use :::8080");
        for n in 0..40 {
            tail.push(format!("    at frame {n}").as_bytes());
        }
        tail.push(b"Node.js v22.0.0");
        let lines = tail.lines();
        assert_eq!(lines.len(), SHOWN_LINES_MAX);
        assert_eq!(lines[0], "Error: listen EADDRINUSE: address already in use :::8080");
        assert!(lines.contains(&"... (23 lines)".to_owned()), "{lines:?}");
        assert_eq!(lines[SHOWN_LINES_MAX - 1], "Node.js v22.0.0");
        for line in ["Traceback (most recent call last):", "TypeError: x", "thread 'main' panicked at src/main.rs:2:5:"]
        {
            assert!(begins_an_error(line), "{line}");
        }
        for line in ["    Error: indented", "ErrorCode: 3", "no Error here", ""] {
            assert!(!begins_an_error(line), "{line}");
        }
    }
}
