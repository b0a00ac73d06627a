//! Lines on a stream: bytes in, complete lines out, and the queue of lines that wait to be written. Bounded; what a
//! line says is not looked at.
use crate::limits;
use std::collections::VecDeque;
use thiserror::Error;

/// Bytes per read of a channel.
pub const CHANNEL_READ_BYTES: usize = 64 * 1024;
/// Part of a long, discarded line that is kept, in bytes: enough to identify it.
pub const CHANNEL_HEAD_BYTES: usize = 64 * 1024;

/// How much of a malformed line an error message shows, in bytes.
const BAD_LINE_SHOWN_BYTES: usize = 80;

/// From here on an agent's messages to a receiver that reads are left in the agent's channel.
const MESSAGES_HIGH_WATER: usize = 1024;

/// The same in bytes. One read, and one message more, still fit.
const MESSAGES_HIGH_WATER_BYTES: usize = 512 * 1024;

/// Lines that are written together, in bytes.
const WRITE_BYTES_MAX: usize = 16 * 1024;

/// Bytes as they were read, cut into lines. The cost of a line of megabytes is linear: no byte is searched twice.
#[derive(Debug, Default)]
pub struct LineBuffer {
    bytes: Vec<u8>,
    /// Start of what was not yet given out.
    start: usize,
    /// End of what was filled in (the rest of `bytes` is spare room).
    end: usize,
    /// Everything before this was searched for the end of a line.
    searched: usize,
    /// The next line may be the tail of one that another master began to read.
    resumed: bool,
    /// Only the head of the unfinished line is kept: how many of its bytes were let go by.
    skipped: Option<usize>,
}

/// One line, without its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    pub bytes: &'a [u8],
    /// They are only its first [`CHANNEL_HEAD_BYTES`]: nobody wanted the rest.
    pub is_cut: bool,
    /// It may be only the tail of a line.
    pub resumed: bool,
}

/// A line is longer than any that is taken; carries its beginning.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "it sent a message of more than {} MiB, beginning with {beginning}",
    limits::CHANNEL_LINE_BYTES_MAX / (1024 * 1024)
)]
pub struct Oversize {
    beginning: String,
}

/// The beginning of a line, fit for a terminal.
pub fn shown(line: &[u8]) -> String {
    let cut = &line[..line.len().min(BAD_LINE_SHOWN_BYTES)];
    let more = if cut.len() < line.len() { "..." } else { "" };
    format!("\"{}{more}\"", cut.escape_ascii())
}

impl LineBuffer {
    /// An empty buffer at the beginning of a line.
    pub fn new() -> LineBuffer {
        LineBuffer::default()
    }

    /// A buffer for a stream that somebody else has read from: its first line may be a piece of one.
    pub fn resumed() -> LineBuffer {
        LineBuffer { resumed: true, ..LineBuffer::default() }
    }

    /// Room to read `wanted` bytes into; say with [`LineBuffer::filled`] how many came.
    #[inline]
    pub fn spare(&mut self, wanted: usize) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end, self.searched) = (0, 0, 0);
            // A line of megabytes leaves no megabytes behind.
            if self.bytes.len() > 2 * wanted {
                self.bytes.truncate(wanted);
                self.bytes.shrink_to_fit();
            }
        } else if self.start > 0 && self.bytes.len() - self.end < wanted {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.searched -= self.start;
            self.start = 0;
        }
        if self.bytes.len() - self.end < wanted {
            let most = limits::CHANNEL_LINE_BYTES_MAX + wanted;
            let grown = (self.end + wanted).max(most.min(self.bytes.len() * 2));
            if self.bytes.is_empty() {
                // Zeroed by the allocator: what is never read into takes no memory, in none of a thousand channels.
                self.bytes = vec![0; grown];
            } else {
                self.bytes.reserve_exact(grown - self.bytes.len());
                self.bytes.resize(grown, 0);
            }
        }
        &mut self.bytes[self.end..self.end + wanted]
    }

    /// `count` bytes were read into the spare room.
    #[inline]
    pub fn filled(&mut self, count: usize) {
        self.end = (self.end + count).min(self.bytes.len());
    }

    /// The next complete line.
    ///
    /// # Errors
    /// When what has come of a line is longer than a line may be; from then on always.
    #[inline]
    pub fn next_line(&mut self) -> Result<Option<Line<'_>>, Oversize> {
        let found = memchr::memchr(b'\n', &self.bytes[self.searched..self.end]);
        let to = found.map_or(self.end, |offset| self.searched + offset);
        if self.skipped.is_some() {
            return self.next_cut_line(to, found.is_some());
        }
        let from = self.start;
        self.searched = to;
        if to - from > limits::CHANNEL_LINE_BYTES_MAX {
            return Err(Oversize { beginning: shown(&self.bytes[from..to]) });
        }
        if found.is_none() {
            return Ok(None);
        }
        self.start = to + 1;
        self.searched = self.start;
        let resumed = std::mem::take(&mut self.resumed);
        Ok(Some(Line { bytes: &self.bytes[from..to], is_cut: false, resumed }))
    }

    /// The same where only the head of the line is kept: what follows it is let go by.
    fn next_cut_line(&mut self, to: usize, is_complete: bool) -> Result<Option<Line<'_>>, Oversize> {
        let (from, head_end) = (self.start, self.start + CHANNEL_HEAD_BYTES);
        let length = self.skipped.unwrap_or(0) + (to - from);
        if length > limits::CHANNEL_LINE_BYTES_MAX {
            return Err(Oversize { beginning: shown(&self.bytes[from..head_end]) });
        }
        if !is_complete {
            self.skipped = Some(length - CHANNEL_HEAD_BYTES);
            (self.end, self.searched) = (head_end, head_end);
            return Ok(None);
        }
        self.skipped = None;
        self.start = to + 1;
        self.searched = self.start;
        let resumed = std::mem::take(&mut self.resumed);
        Ok(Some(Line { bytes: &self.bytes[from..head_end], is_cut: true, resumed }))
    }

    /// Whether bytes wait in which no line was looked for yet.
    pub fn has_more(&self) -> bool {
        self.searched < self.end
    }

    /// Bytes in which no line was looked for yet.
    pub fn unread_bytes(&self) -> usize {
        self.end - self.searched
    }

    /// How much of an unfinished line is kept, in bytes.
    pub fn unfinished_bytes(&self) -> usize {
        if self.has_more() { 0 } else { self.end - self.start }
    }

    /// What an unfinished line takes that is longer than a head, in bytes.
    pub fn long_line_bytes(&self) -> usize {
        if self.unfinished_bytes() > CHANNEL_HEAD_BYTES { self.bytes.len() } else { 0 }
    }

    /// Nobody wants more of the unfinished line than its head: the rest of it takes no memory.
    pub fn skip_line(&mut self) {
        let unfinished = self.unfinished_bytes();
        if self.skipped.is_some() || unfinished <= CHANNEL_HEAD_BYTES {
            return;
        }
        self.skipped = Some(unfinished - CHANNEL_HEAD_BYTES);
        self.bytes.copy_within(self.start..self.start + CHANNEL_HEAD_BYTES, 0);
        self.start = 0;
        (self.end, self.searched) = (CHANNEL_HEAD_BYTES, CHANNEL_HEAD_BYTES);
        self.bytes.truncate(CHANNEL_HEAD_BYTES + CHANNEL_READ_BYTES);
        self.bytes.shrink_to_fit();
    }

    /// Gives back what a line of megabytes took, once it was taken.
    pub fn shrink(&mut self) {
        if self.start == self.end && self.bytes.len() > 2 * CHANNEL_READ_BYTES {
            self.bytes = Vec::new();
            (self.start, self.end, self.searched) = (0, 0, 0);
        }
    }
}

/// More lines wait than a peer may leave unread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutboxFull;

#[derive(Debug)]
struct Waiting {
    line: Vec<u8>,
    attachment: Option<u32>,
    is_message: bool,
}

/// Lines that wait to be written. A line may carry an attachment (the shell's business), which belongs to its first
/// byte.
#[derive(Debug, Default)]
pub struct Outbox {
    lines: VecDeque<Waiting>,
    /// Messages among them, and their bytes.
    messages: usize,
    message_bytes: usize,
    /// Bytes of the first line that were written.
    written: usize,
}

impl Outbox {
    /// An empty one.
    pub fn new() -> Outbox {
        Outbox::default()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Adds a line at the end.
    ///
    /// # Errors
    /// When too many wait already.
    pub fn push(&mut self, line: &[u8], attachment: Option<u32>) -> Result<(), OutboxFull> {
        if self.control_lines() >= limits::CHANNEL_OUTBOX_LINES_MAX {
            return Err(OutboxFull);
        }
        self.lines.push_back(Waiting { line: line.to_vec(), attachment, is_message: false });
        Ok(())
    }

    /// Adds a message that others sent, at the end. It takes nothing from the room that [`Outbox::push`] has.
    ///
    /// # Errors
    /// When too many wait already, or they are too large together.
    pub fn push_message(&mut self, line: &[u8]) -> Result<(), OutboxFull> {
        let bytes = self.message_bytes + line.len();
        if self.messages >= limits::MESSAGES_WAITING_MAX || bytes > limits::MESSAGES_WAITING_BYTES_MAX {
            return Err(OutboxFull);
        }
        (self.messages, self.message_bytes) = (self.messages + 1, bytes);
        self.lines.push_back(Waiting { line: line.to_vec(), attachment: None, is_message: true });
        Ok(())
    }

    /// The size of the messages that wait.
    pub fn message_bytes(&self) -> usize {
        self.message_bytes
    }

    /// Whether so many messages wait that their senders should wait too.
    pub fn is_high(&self) -> bool {
        self.messages >= MESSAGES_HIGH_WATER || self.message_bytes >= MESSAGES_HIGH_WATER_BYTES
    }

    /// Control lines that wait: all that are not messages.
    pub fn control_lines(&self) -> usize {
        self.lines.len() - self.messages
    }

    /// Whether a line was written in part.
    pub fn is_cut(&self) -> bool {
        self.written > 0
    }

    /// What is to be written next, with the attachment while it has not gone out.
    pub fn front(&self) -> Option<(&[u8], Option<u32>)> {
        let Waiting { line, attachment, .. } = self.lines.front()?;
        Some((&line[self.written..], attachment.filter(|_| self.written == 0)))
    }

    /// As [`Outbox::front`], together with the lines behind it that can go out by the same write: those without an attachment
    /// behind one without, which are copied into `together`. A peer that gets many lines wakes up for each write.
    pub fn front_lines<'a>(&'a self, together: &'a mut Vec<u8>) -> Option<(&'a [u8], Option<u32>)> {
        let (first, attachment) = self.front()?;
        let is_alone = |waiting: &Waiting| waiting.attachment.is_some();
        if attachment.is_some() || self.lines.get(1).is_none_or(is_alone) || first.len() >= WRITE_BYTES_MAX {
            return Some((first, attachment));
        }
        together.clear();
        together.extend_from_slice(first);
        for waiting in self.lines.iter().skip(1).take_while(|waiting| !is_alone(waiting)) {
            if together.len() + waiting.line.len() > WRITE_BYTES_MAX {
                break;
            }
            together.extend_from_slice(&waiting.line);
        }
        Some((together, None))
    }

    /// `count` bytes of [`Outbox::front_lines`] were written.
    pub fn written(&mut self, count: usize) {
        self.written += count;
        while self.lines.front().is_some_and(|waiting| self.written >= waiting.line.len()) {
            let Some(done) = self.lines.pop_front() else { return };
            self.written -= done.line.len();
            if done.is_message {
                self.messages -= 1;
                self.message_bytes -= done.line.len();
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn feed(buffer: &mut LineBuffer, bytes: &[u8]) {
        buffer.spare(bytes.len())[..bytes.len()].copy_from_slice(bytes);
        buffer.filled(bytes.len());
    }

    fn take(buffer: &mut LineBuffer) -> Option<Vec<u8>> {
        buffer.next_line().unwrap().map(|line| line.bytes.to_vec())
    }

    #[test]
    fn lines_come_out_whole_however_they_were_cut() {
        let text = "{\"a\":\"\u{2028}\"}\n\n{\"b\":1}\nrest".as_bytes();
        for cut in 0..text.len() {
            let mut buffer = LineBuffer::new();
            let mut lines = Vec::new();
            for part in [&text[..cut], &text[cut..]] {
                feed(&mut buffer, part);
                while let Some(line) = take(&mut buffer) {
                    lines.push(line);
                }
            }
            assert_eq!(lines, ["{\"a\":\"\u{2028}\"}".as_bytes(), b"", b"{\"b\":1}"]);
        }
    }

    #[test]
    fn a_line_of_megabytes_passes_and_leaves_no_megabytes_behind() {
        let mut buffer = LineBuffer::new();
        let chunk = vec![b'x'; 64 * 1024];
        for _ in 0..80 {
            feed(&mut buffer, &chunk);
            assert_eq!(take(&mut buffer), None);
        }
        feed(&mut buffer, b"\n");
        assert_eq!(take(&mut buffer).unwrap().len(), 80 * 64 * 1024);
        feed(&mut buffer, b"y\n");
        buffer.spare(64 * 1024);
        assert_eq!(take(&mut buffer).unwrap(), b"y");
        buffer.spare(64 * 1024);
        assert!(buffer.bytes.capacity() <= 2 * 64 * 1024);
    }

    #[test]
    fn an_oversize_line_is_an_error_that_shows_its_beginning() {
        let mut buffer = LineBuffer::new();
        let chunk = vec![b'z'; 1024 * 1024];
        let error = loop {
            feed(&mut buffer, &chunk);
            if let Err(e) = buffer.next_line() {
                break e;
            }
        };
        assert!(error.to_string().contains("64 MiB, beginning with \"zzz"), "{error}");
    }

    #[test]
    fn the_bound_holds_when_the_end_of_the_line_came_too() {
        let mut buffer = LineBuffer::new();
        let mut line = vec![b'z'; limits::CHANNEL_LINE_BYTES_MAX + 1];
        line.push(b'\n');
        feed(&mut buffer, &line[1..]);
        assert_eq!(take(&mut buffer).unwrap().len(), limits::CHANNEL_LINE_BYTES_MAX);
        feed(&mut buffer, &line);
        assert!(buffer.next_line().is_err());
        feed(&mut buffer, b"{}\n");
        assert!(buffer.next_line().is_err(), "it says so again");
    }

    #[test]
    fn of_a_line_that_nobody_wants_only_the_head_is_kept() {
        let mut buffer = LineBuffer::new();
        let chunk = vec![b'h'; 48 * 1024];
        feed(&mut buffer, b"{}\n");
        assert_eq!(take(&mut buffer).unwrap(), b"{}");
        feed(&mut buffer, &chunk);
        assert_eq!(take(&mut buffer), None);
        buffer.skip_line();
        assert_eq!(buffer.skipped, None, "it is shorter than a head");
        for _ in 0..200 {
            feed(&mut buffer, &chunk);
            assert_eq!(take(&mut buffer), None);
            buffer.skip_line();
            assert!(buffer.unfinished_bytes() < CHANNEL_HEAD_BYTES + chunk.len());
            assert!(buffer.bytes.capacity() <= CHANNEL_HEAD_BYTES + 2 * CHANNEL_READ_BYTES);
        }
        feed(&mut buffer, b"xyz\n\"next\"\n");
        let line = buffer.next_line().unwrap().unwrap();
        assert!(line.is_cut && line.bytes == vec![b'h'; CHANNEL_HEAD_BYTES]);
        let next = buffer.next_line().unwrap().unwrap();
        assert!(!next.is_cut && next.bytes == b"\"next\"");
        assert_eq!(take(&mut buffer), None);
    }

    #[test]
    fn the_bound_of_a_line_holds_for_one_that_nobody_wants() {
        let mut buffer = LineBuffer::new();
        let chunk = vec![b'h'; 1024 * 1024];
        let mut fed = 0;
        let error = loop {
            feed(&mut buffer, &chunk);
            fed += chunk.len();
            match buffer.next_line() {
                Ok(_) => buffer.skip_line(),
                Err(error) => break error,
            }
        };
        assert_eq!(fed, limits::CHANNEL_LINE_BYTES_MAX + chunk.len());
        assert!(error.to_string().contains("64 MiB, beginning with \"hhh"), "{error}");
    }

    #[test]
    fn only_the_first_line_of_a_resumed_stream_is_doubtful() {
        let mut buffer = LineBuffer::resumed();
        feed(&mut buffer, b"tail\"}\n{}\n");
        assert!(buffer.next_line().unwrap().unwrap().resumed);
        assert!(!buffer.next_line().unwrap().unwrap().resumed);
    }

    #[test]
    fn the_outbox_keeps_order_attachments_and_its_bound() {
        let mut outbox = Outbox::new();
        outbox.push(b"first\n", Some(7)).unwrap();
        outbox.push(b"second\n", None).unwrap();
        assert_eq!(outbox.front(), Some((&b"first\n"[..], Some(7))));
        outbox.written(2);
        assert_eq!(outbox.front(), Some((&b"rst\n"[..], None)));
        outbox.written(4);
        assert_eq!(outbox.front(), Some((&b"second\n"[..], None)));
        outbox.push_message(b"third\n").unwrap();
        outbox.push(b"fourth\n", Some(8)).unwrap();
        outbox.push(b"fifth\n", None).unwrap();
        let mut together = Vec::new();
        assert_eq!(outbox.front_lines(&mut together), Some((&b"second\nthird\n"[..], None)));
        outbox.written(9);
        assert_eq!((outbox.is_cut(), outbox.message_bytes()), (true, 6));
        assert_eq!(outbox.front_lines(&mut together), Some((&b"ird\n"[..], None)));
        outbox.written(4);
        assert_eq!((outbox.is_cut(), outbox.message_bytes()), (false, 0));
        assert_eq!(outbox.front_lines(&mut together), Some((&b"fourth\n"[..], Some(8))), "it ends with its own line");
        outbox.written(7);
        for _ in 1..limits::CHANNEL_OUTBOX_LINES_MAX {
            outbox.push(b"x", None).unwrap();
        }
        assert_eq!(outbox.push(b"x", None), Err(OutboxFull));
    }
}
