//! Text of others on its way to a terminal or a log: nothing in it may act on the terminal or pass for a line of ours.
use std::borrow::Cow;
use std::fmt::Write as _;

/// The same text with every character written out that a terminal would obey and not show: controls (escape sequences,
/// line ends), and those that change the direction of what stands beside them.
#[must_use]
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' => shown.push_str("\\n"),
            '\r' => shown.push_str("\\r"),
            '\t' => shown.push_str("\\t"),
            // Writing to a String cannot fail.
            c if is_hidden(c) && u32::from(c) < 0x100 => drop(write!(shown, "\\x{:02x}", u32::from(c))),
            c if is_hidden(c) => drop(write!(shown, "\\u{{{:x}}}", u32::from(c))),
            c => shown.push(c),
        }
    }
    Cow::Owned(shown)
}

fn is_hidden(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_written_out_and_the_rest_stays() {
        assert_eq!(visible("unix:/tmp/größe.sock"), "unix:/tmp/größe.sock");
        assert!(matches!(visible("plain"), Cow::Borrowed(_)));
        assert_eq!(visible("a\x1b]0;PWN\x07\x1b[2Jb\n[9] c\r\t"), "a\\x1b]0;PWN\\x07\\x1b[2Jb\\n[9] c\\r\\t");
        assert_eq!(visible("x\u{9b}31m\u{202e}y"), "x\\x9b31m\\u{202e}y");
    }
}
