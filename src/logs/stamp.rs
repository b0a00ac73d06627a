//! Timestamps: made once for all lines of a turn.
use super::render::push_json;
use crate::config::log_time::JSON_DEFAULT;
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// The current time in every format that is used.
pub(super) struct Stamps {
    zone: TimeZone,
    now: Timestamp,
    formats: Vec<Stamp>,
}

struct Stamp {
    format: String,
    made_at: Option<Timestamp>,
    /// As it appears before a line: with `: ` after it, as in PM2.
    plain: Vec<u8>,
    /// As a JSON string.
    json: Vec<u8>,
}

impl Stamps {
    pub(super) fn new(zone: TimeZone) -> Stamps {
        Stamps { zone, now: Timestamp::UNIX_EPOCH, formats: Vec::new() }
    }

    /// The number of a format; `None`: the default of JSON lines.
    pub(super) fn number(&mut self, format: Option<&str>) -> usize {
        let format = format.unwrap_or(JSON_DEFAULT);
        if let Some(number) = self.formats.iter().position(|stamp| stamp.format == format) {
            return number;
        }
        self.formats.push(Stamp { format: format.to_owned(), made_at: None, plain: Vec::new(), json: Vec::new() });
        self.formats.len() - 1
    }

    /// Sets the time.
    pub(super) fn set(&mut self, now: Timestamp) {
        self.now = now;
    }

    /// Makes the text of this format, if that was not done.
    pub(super) fn make(&mut self, number: usize) {
        let stamp = &mut self.formats[number];
        if stamp.made_at == Some(self.now) {
            return;
        }
        let time = self.now.to_zoned_datetime(self.zone.clone());
        // The format was checked when the configuration was parsed.
        let text = jiff::fmt::strtime::format(&stamp.format, &time).unwrap_or_else(|_| self.now.to_string());
        stamp.json.clear();
        push_json(&mut stamp.json, text.as_bytes());
        stamp.plain = text.into_bytes();
        stamp.plain.extend_from_slice(b": ");
        stamp.made_at = Some(self.now);
    }

    /// The text for the start of a line.
    pub(super) fn plain(&self, number: usize) -> &[u8] {
        &self.formats[number].plain
    }

    /// The text as a JSON string.
    pub(super) fn json(&self, number: usize) -> &[u8] {
        &self.formats[number].json
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn each_format_is_made_once_for_one_time() {
        let mut stamps = Stamps::new(TimeZone::UTC);
        let clock = stamps.number(Some("%H:%M \"%S\""));
        let json = stamps.number(None);
        assert_eq!(stamps.number(Some("%H:%M \"%S\"")), clock);
        stamps.set("2026-02-03T04:05:06.789Z".parse().unwrap());
        stamps.make(clock);
        stamps.make(json);
        assert_eq!(stamps.plain(clock), b"04:05 \"06\": ");
        assert_eq!(stamps.json(clock), br#""04:05 \"06\"""#);
        assert_eq!(stamps.json(json), br#""2026-02-03T04:05:06.789+00:00""#);
    }
}
