//! Formats the bytes of a stream as lines of a file: unchanged, after a timestamp, or as JSON. Pure.
use super::tail::Tail;
use memchr::{memchr, memchr_iter, memrchr};

/// Longest line that is written whole, in bytes; a longer one is split.
pub(super) const LOG_LINE_BYTES_MAX: usize = 1024 * 1024;

/// The format of a line.
#[derive(Clone, Copy, Debug)]
pub(super) enum Look<'a> {
    /// Dropped.
    Nothing,
    /// Unchanged.
    Plain,
    /// After these bytes.
    Stamped(&'a [u8]),
    /// A JSON object: the message, the timestamp (a JSON string), the rest of the object with the newline.
    Json { stamp: &'a [u8], rest: &'a [u8] },
}

/// The available bytes of a stream: the rest of a line, and the bytes after it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Input<'a> {
    pub(super) first: &'a [u8],
    pub(super) second: &'a [u8],
    /// A rest without a newline counts as a line.
    pub(super) closed: bool,
}

/// Writes lines to `out` until it holds `bytes_max` or more. Returns how many bytes of the input were used; 0 if there
/// is no whole line. Call it again until it returns 0.
pub(super) fn fill(
    out: &mut Vec<u8>,
    input: Input<'_>,
    look: Look<'_>,
    tail: Option<&Tail>,
    bytes_max: usize,
) -> usize {
    let Input { first, second, closed } = input;
    let (one, only) = if first.is_empty() { (second, true) } else { (first, second.is_empty()) };
    if let Some(last) = memrchr(b'\n', one) {
        return whole_lines(out, &one[..=last], look, tail, bytes_max);
    }
    // No newline in the first part: at most one line, and its bytes may be in both parts.
    let more = if only { &[] } else { second };
    let newline = memchr(b'\n', more);
    let rest = &more[..newline.unwrap_or(more.len())];
    let length = one.len() + rest.len();
    if newline.is_some() {
        glued(out, one, rest, look, tail);
        length + 1
    } else if length >= LOG_LINE_BYTES_MAX {
        let keep = LOG_LINE_BYTES_MAX;
        let (one, rest) = (&one[..one.len().min(keep)], &rest[..rest.len().min(keep - one.len().min(keep))]);
        let cut = if rest.is_empty() { between_characters(one) } else { one.len() + between_characters(rest) };
        glued(out, &one[..one.len().min(cut)], &rest[..cut.saturating_sub(one.len())], look, tail);
        cut
    } else if closed && length > 0 {
        glued(out, one, rest, look, tail);
        length
    } else {
        0
    }
}

/// A place to cut at which no UTF-8 character is cut in two.
fn between_characters(text: &[u8]) -> usize {
    let is_inside = |byte: u8| byte & 0b1100_0000 == 0b1000_0000;
    // The last character may be complete: moving it to the next piece does no harm.
    let back = text.iter().rev().take(4).position(|byte| !is_inside(*byte));
    match back {
        Some(back) if text.len() > back + 1 && text[text.len() - back - 1] >= 0b1100_0000 => text.len() - back - 1,
        Some(_) | None => text.len(),
    }
}

fn glued(out: &mut Vec<u8>, first: &[u8], second: &[u8], look: Look<'_>, tail: Option<&Tail>) {
    if second.is_empty() {
        line(out, first, look, tail);
    } else {
        line(out, &[first, second].concat(), look, tail);
    }
}

/// `lines` ends with a newline.
fn whole_lines(out: &mut Vec<u8>, lines: &[u8], look: Look<'_>, tail: Option<&Tail>, bytes_max: usize) -> usize {
    if let (Look::Plain | Look::Nothing, None) = (look, tail) {
        // Only the last newline that fits has to be found.
        let room = bytes_max.saturating_sub(out.len());
        let end = match lines.get(..room).and_then(|fits| memrchr(b'\n', fits)) {
            _ if lines.len() <= room => lines.len(),
            Some(last) => last + 1,
            None => memchr(b'\n', lines).map_or(lines.len(), |first| first + 1),
        };
        if matches!(look, Look::Plain) {
            out.extend_from_slice(&lines[..end]);
        }
        return end;
    }
    let mut start = 0;
    for end in memchr_iter(b'\n', lines) {
        line(out, &lines[start..end], look, tail);
        start = end + 1;
        if out.len() >= bytes_max {
            break;
        }
    }
    start
}

/// One line, without its newline.
fn line(out: &mut Vec<u8>, text: &[u8], look: Look<'_>, tail: Option<&Tail>) {
    if let Some(tail) = tail {
        tail.push(text);
    }
    match look {
        Look::Nothing => {}
        Look::Plain => {
            out.extend_from_slice(text);
            out.push(b'\n');
        }
        Look::Stamped(stamp) => {
            out.extend_from_slice(stamp);
            out.extend_from_slice(text);
            out.push(b'\n');
        }
        Look::Json { stamp, rest } => {
            out.extend_from_slice(b"{\"message\":");
            push_json(out, text);
            out.extend_from_slice(b",\"timestamp\":");
            out.extend_from_slice(stamp);
            out.extend_from_slice(rest);
        }
    }
}

/// Text as a JSON string; invalid UTF-8 is replaced.
pub(super) fn push_json(out: &mut Vec<u8>, text: &[u8]) {
    let written = match std::str::from_utf8(text) {
        Ok(text) => serde_json::to_writer(&mut *out, text),
        Err(_) => serde_json::to_writer(&mut *out, &String::from_utf8_lossy(text)),
    };
    // Writing a string to a Vec cannot fail.
    debug_assert!(written.is_ok());
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// The output for this text, split at `cut`, with this limit.
    fn all(text: &[u8], cut: usize, closed: bool, look: Look<'_>, bytes_max: usize) -> (String, usize) {
        let mut whole = Vec::new();
        let mut at = 0;
        loop {
            let (first, second) = if at < cut { (&text[at..cut], &text[cut..]) } else { (&[][..], &text[at..]) };
            let mut out = Vec::new();
            let used = fill(&mut out, Input { first, second, closed }, look, None, bytes_max);
            if used == 0 {
                return (String::from_utf8(whole).unwrap(), at);
            }
            at += used;
            whole.extend(out);
        }
    }

    #[test]
    fn lines_are_whole_wherever_the_bytes_are_cut() {
        let text = b"one\ntwo\n\nthree\nfour";
        for cut in 0..text.len() {
            for bytes_max in [1, 5, 1000] {
                let (got, used) = all(text, cut, false, Look::Plain, bytes_max);
                assert_eq!((got.as_str(), used), ("one\ntwo\n\nthree\n", 15), "{cut} {bytes_max}");
                let (got, _) = all(text, cut, true, Look::Plain, bytes_max);
                assert_eq!(got, "one\ntwo\n\nthree\nfour\n");
                let (got, _) = all(text, cut, true, Look::Stamped(b"T: "), bytes_max);
                assert_eq!(got, "T: one\nT: two\nT: \nT: three\nT: four\n");
                let (got, used) = all(text, cut, true, Look::Nothing, bytes_max);
                assert_eq!((got.as_str(), used), ("", text.len()));
            }
        }
    }

    #[test]
    fn json_lines_can_be_read_back() {
        let text = b"say \"hi\"\\\n\x1b[31mred\t\xff\xfe\n";
        let look = Look::Json { stamp: b"\"now\"", rest: b",\"slot\":1}\n" };
        let (got, _) = all(text, 3, false, look, 1000);
        let read: Vec<serde_json::Value> = got.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(read[0]["message"], "say \"hi\"\\");
        assert_eq!(read[1]["message"], "\u{1b}[31mred\t\u{fffd}\u{fffd}");
        assert_eq!((&read[1]["timestamp"], &read[1]["slot"]), (&"now".into(), &1.into()));
    }

    #[test]
    fn a_line_without_end_comes_in_pieces_between_characters() {
        // One byte first, so that the limit falls into a character.
        let text = format!("x{}", "ü".repeat(LOG_LINE_BYTES_MAX));
        for cut in [0, 1, LOG_LINE_BYTES_MAX - 2, LOG_LINE_BYTES_MAX + 2] {
            let (got, used) = all(text.as_bytes(), cut, true, Look::Plain, 10);
            assert_eq!(used, text.len(), "{cut}");
            assert!(got.lines().all(|line| line.len() <= LOG_LINE_BYTES_MAX));
            assert_eq!(got.replace('\n', ""), text);
        }
    }
}
