//! Counts the lines that a stream carries, for as long as somebody wants to know.
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The lines of one stream since somebody asked for them.
#[derive(Debug, Default)]
pub struct LineCount(AtomicU64);

impl LineCount {
    /// Counts the ends of lines in these bytes.
    pub(super) fn add(&self, bytes: &[u8]) {
        let ends = bytes.iter().filter(|byte| **byte == b'\n').count();
        self.0.fetch_add(ends as u64, Ordering::Relaxed);
    }

    /// The lines so far; `None` where nobody reads the stream.
    pub fn so_far(self: &Arc<LineCount>) -> Option<u64> {
        is_wanted(self).then(|| self.0.load(Ordering::Relaxed))
    }
}

/// Whether somebody else holds the count.
pub(super) fn is_wanted(count: &Arc<LineCount>) -> bool {
    Arc::strong_count(count) > 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_while_the_stream_is_read() {
        let count = Arc::new(LineCount::default());
        assert_eq!(count.so_far(), None);
        let of_the_stream = Arc::clone(&count);
        of_the_stream.add(b"one\ntwo\nthr");
        of_the_stream.add(b"ee\n");
        assert_eq!(count.so_far(), Some(3));
        drop(of_the_stream);
        assert_eq!(count.so_far(), None);
    }
}
