//! Words for a terminal or a log: text of others, in which nothing may act on the terminal or pass for a line of ours; times;
//! names of signals.
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

/// A time that passed: `3 ms`, `12.3 s`, `4 m 12 s`, `2 h 5 m`, `3 d 4 h`.
#[must_use]
pub fn elapsed(ms: u64) -> String {
    let s = ms / 1000;
    match ms {
        0..=999 => format!("{ms} ms"),
        1_000..=59_999 => format!("{}.{} s", s, ms % 1000 / 100),
        60_000..=3_599_999 => format!("{} m {} s", s / 60, s % 60),
        3_600_000..=86_399_999 => format!("{} h {} m", s / 3600, s % 3600 / 60),
        _ => format!("{} d {} h", s / 86_400, s % 86_400 / 3600),
    }
}

/// A time that was set: `30 s`, `300 ms`.
#[must_use]
pub fn time_limit(ms: u64) -> String {
    if ms.is_multiple_of(1_000) { format!("{} s", ms / 1_000) } else { elapsed(ms) }
}

/// Linux' signals in the order of their numbers, from 1.
const SIGNALS: [&str; 31] = [
    "SIGHUP",
    "SIGINT",
    "SIGQUIT",
    "SIGILL",
    "SIGTRAP",
    "SIGABRT",
    "SIGBUS",
    "SIGFPE",
    "SIGKILL",
    "SIGUSR1",
    "SIGSEGV",
    "SIGUSR2",
    "SIGPIPE",
    "SIGALRM",
    "SIGTERM",
    "SIGSTKFLT",
    "SIGCHLD",
    "SIGCONT",
    "SIGSTOP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGXCPU",
    "SIGXFSZ",
    "SIGVTALRM",
    "SIGPROF",
    "SIGWINCH",
    "SIGIO",
    "SIGPWR",
    "SIGSYS",
];

/// `SIGKILL` for 9, `signal 40` for a number without a name.
#[must_use]
pub fn signal_name(signal: i32) -> Cow<'static, str> {
    let known = usize::try_from(signal).ok().and_then(|number| SIGNALS.get(number.checked_sub(1)?));
    known.map_or_else(|| Cow::Owned(format!("signal {signal}")), |name| Cow::Borrowed(*name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_like_speech() {
        let spans =
            [(3, "3 ms"), (1_250, "1.2 s"), (252_000, "4 m 12 s"), (7_500_000, "2 h 5 m"), (273_600_000, "3 d 4 h")];
        for (ms, words) in spans {
            assert_eq!(elapsed(ms), words);
        }
        assert_eq!([30_000, 300, 1_500, 90_000].map(time_limit), ["30 s", "300 ms", "1.5 s", "90 s"]);
    }

    #[test]
    fn what_a_terminal_would_obey_is_written_out_and_the_rest_stays() {
        assert_eq!(visible("unix:/tmp/größe.sock"), "unix:/tmp/größe.sock");
        assert!(matches!(visible("plain"), Cow::Borrowed(_)));
        assert_eq!(visible("a\x1b]0;PWN\x07\x1b[2Jb\n[9] c\r\t"), "a\\x1b]0;PWN\\x07\\x1b[2Jb\\n[9] c\\r\\t");
        assert_eq!(visible("x\u{9b}31m\u{202e}y"), "x\\x9b31m\\u{202e}y");
    }
}
