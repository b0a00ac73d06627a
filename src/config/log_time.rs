//! The format of timestamps: strftime's, or PM2's tokens, converted to strftime's. Pure.
use crate::limits::LOG_TIME_CHARS_MAX;
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// The meaning of `time = true`.
pub const DEFAULT: &str = "%Y-%m-%dT%H:%M:%S";

/// The format in JSON lines without a configured one.
pub const JSON_DEFAULT: &str = "%Y-%m-%dT%H:%M:%S%.3f%:z";

/// PM2's tokens in strftime's terms; of two with the same prefix the longer one comes first.
const TOKENS: [(&str, &str); 31] = [
    ("YYYY", "%Y"),
    ("YY", "%y"),
    ("MMMM", "%B"),
    ("MMM", "%b"),
    ("MM", "%m"),
    ("M", "%-m"),
    ("DDDD", "%j"),
    ("DDD", "%-j"),
    ("DD", "%d"),
    ("D", "%-d"),
    ("dddd", "%A"),
    ("ddd", "%a"),
    ("HH", "%H"),
    ("H", "%-H"),
    ("hh", "%I"),
    ("h", "%-I"),
    ("mm", "%M"),
    ("m", "%-M"),
    ("SSSSSSSSS", "%9f"),
    ("SSSSSS", "%6f"),
    ("SSS", "%3f"),
    ("SS", "%2f"),
    ("S", "%1f"),
    ("ss", "%S"),
    ("s", "%-S"),
    ("ZZ", "%z"),
    ("Z", "%:z"),
    ("A", "%p"),
    ("a", "%P"),
    ("X", "%s"),
    ("x", "%s%3f"),
];

/// Why a text is not a valid format of timestamps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimeFormatError {
    /// More than one line, or too long.
    #[error("time must be one line of at most {LOG_TIME_CHARS_MAX} bytes; {HINT}")]
    NotALine,
    /// strftime cannot read it.
    #[error("time \"{}\" cannot be used: {why}; {HINT}", typed.escape_debug())]
    Unusable { typed: String, why: String },
    /// It has no directive.
    #[error("time \"{}\" holds no time; {HINT}", .0.escape_debug())]
    NoTime(String),
}

const HINT: &str = "write it as in \"%Y-%m-%d %H:%M:%S%.3f\" or \"YYYY-MM-DD HH:mm:ss.SSS\"";

/// Converts a format as typed to strftime's. Text without `%` has PM2's tokens; text in `[...]` is taken literally.
///
/// # Errors
/// What is wrong, and what to do.
pub fn strftime(typed: &str) -> Result<String, TimeFormatError> {
    if typed.len() > LOG_TIME_CHARS_MAX || typed.chars().any(char::is_control) {
        return Err(TimeFormatError::NotALine);
    }
    let format = if typed.contains('%') { typed.to_owned() } else { from_tokens(typed) };
    let sample = Timestamp::UNIX_EPOCH.to_zoned_datetime(TimeZone::UTC);
    match jiff::fmt::strtime::format(&format, &sample) {
        Err(e) => Err(TimeFormatError::Unusable { typed: typed.to_owned(), why: e.to_string() }),
        Ok(text) if text == typed => Err(TimeFormatError::NoTime(typed.to_owned())),
        Ok(_) => Ok(format),
    }
}

fn from_tokens(typed: &str) -> String {
    let mut format = String::with_capacity(2 * typed.len());
    let mut rest = typed;
    while let Some(first) = rest.chars().next() {
        if let Some((literal, after)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            format.push_str(literal);
            rest = after;
        } else if let Some((token, directive)) = TOKENS.iter().find(|(token, _)| rest.starts_with(token)) {
            format.push_str(directive);
            rest = &rest[token.len()..];
        } else {
            format.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    format
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn shown(typed: &str) -> String {
        let format = strftime(typed).unwrap();
        let time: Timestamp = "2026-02-03T04:05:06.789Z".parse().unwrap();
        jiff::fmt::strtime::format(&format, &time.to_zoned_datetime(TimeZone::UTC)).unwrap()
    }

    #[test]
    fn tokens_of_pm2_and_strftime_say_the_same() {
        assert_eq!(shown("YYYY-MM-DD HH:mm:ss.SSS"), "2026-02-03 04:05:06.789");
        assert_eq!(shown("%Y-%m-%d %H:%M:%S%.3f"), "2026-02-03 04:05:06.789");
        assert_eq!(shown("YYYY-MM-DDTHH:mm:ss.SSSZ"), "2026-02-03T04:05:06.789+00:00");
        assert_eq!(shown("D. MMMM YY, h:mm A [Dublin]"), "3. February 26, 4:05 AM Dublin");
        assert_eq!(shown("MM-DD HH:mm Z"), "02-03 04:05 +00:00");
        assert_eq!(shown("x"), "1770091506789");
        assert_eq!(shown(DEFAULT), "2026-02-03T04:05:06");
    }

    #[test]
    fn what_is_no_format_is_refused_with_an_example() {
        for bad in ["", "on", "---", "%", "%!", "a\nb", &"Y".repeat(1000)] {
            let message = strftime(bad).unwrap_err().to_string();
            assert!(message.contains("YYYY-MM-DD HH:mm:ss.SSS"), "{bad:?}: {message}");
        }
    }
}
