//! Cuts the bytes of one stream into lines of bounded length; a longer line is returned in pieces. Pure.

/// Longest line of a worker's output that is kept whole, in bytes; a longer one is split.
const OUTPUT_LINE_BYTES_MAX: usize = 64 * 1024;

/// The unfinished line of one stream.
#[derive(Debug)]
pub(super) struct Lines {
    partial: Vec<u8>,
    bytes_max: usize,
}

impl Default for Lines {
    fn default() -> Lines {
        Lines::bounded(OUTPUT_LINE_BYTES_MAX)
    }
}

impl Lines {
    /// Lines longer than this are returned in pieces.
    pub(super) fn bounded(bytes_max: usize) -> Lines {
        Lines { partial: Vec::new(), bytes_max }
    }

    /// Adds bytes, and passes every completed line to `out`, without its newline.
    pub(super) fn push(&mut self, mut bytes: &[u8], mut out: impl FnMut(&[u8])) {
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            if self.partial.is_empty() {
                out(&bytes[..end]);
            } else {
                self.partial.extend_from_slice(&bytes[..end]);
                out(&self.partial);
                self.partial.clear();
            }
            bytes = &bytes[end + 1..];
        }
        self.partial.extend_from_slice(bytes);
        if self.partial.len() >= self.bytes_max {
            out(&self.partial);
            self.partial.clear();
        }
    }

    /// The stream has ended: the rest is a line, too.
    pub(super) fn finish(&mut self, mut out: impl FnMut(&[u8])) {
        if !self.partial.is_empty() {
            out(&self.partial);
            self.partial.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_however_the_bytes_come_and_the_last_needs_no_end() {
        let text = b"one\ntwo\n\nthree";
        for cut in 0..text.len() {
            let mut lines = Lines::default();
            let mut got = Vec::new();
            for part in [&text[..cut], &text[cut..]] {
                lines.push(part, |line| got.push(line.to_vec()));
            }
            lines.finish(|line| got.push(line.to_vec()));
            assert_eq!(got, [&b"one"[..], b"two", b"", b"three"]);
        }
    }

    #[test]
    fn a_line_without_end_comes_in_pieces() {
        let mut lines = Lines::default();
        let mut pieces = 0;
        for _ in 0..10 {
            lines.push(&[b'x'; 16 * 1024], |line| {
                pieces += 1;
                assert!(line.len() <= OUTPUT_LINE_BYTES_MAX);
            });
        }
        assert_eq!(pieces, 2);
    }
}
