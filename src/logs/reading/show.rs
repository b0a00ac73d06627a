//! Formats a line of a log: after the app's name, as JSON, in colour, with its time.
use super::super::render::push_json;
use super::{Filter, Kind};
use crate::config::log_time;
use crate::ids::Slot;
use jiff::Timestamp;
use jiff::fmt::strtime::BrokenDownTime;
use jiff::tz::TimeZone;
use serde::Deserialize;
use serde_json::value::RawValue;

/// Name and type of clusterd's own lines.
const OWN: &str = "clusterd";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Origin {
    /// The requested apps that write to the file, at least one.
    pub(super) apps: Vec<String>,
    /// The slot, if the file is one worker's.
    pub(super) slot: Option<u32>,
    /// The stream, if the file is for one only.
    pub(super) kind: Option<Kind>,
    pub(super) json: bool,
    /// Format of the time stamps before its lines.
    pub(super) time: Option<String>,
    /// Only the lines of the workers in these slots; empty: of all.
    pub(super) only: Vec<u32>,
    /// It is the log of clusterd itself.
    pub(super) own: bool,
    /// In clusterd's own log: the apps whose lines are not wanted.
    pub(super) others: Vec<String>,
}

/// The format of the output.
#[derive(Clone, Debug, Default)]
pub struct Style {
    /// One JSON object per line.
    pub json: bool,
    /// Nothing before the line.
    pub raw: bool,
    /// Show the time, in this format (strftime's).
    pub time: Option<String>,
    /// A word to highlight.
    pub highlight: Option<String>,
    /// Use colours.
    pub colours: bool,
}

/// A parsed line.
#[derive(Debug, PartialEq)]
pub(super) struct Line {
    pub(super) time: Option<Timestamp>,
    app: Option<String>,
    slot: Option<u32>,
    kind: Option<String>,
    message: Vec<u8>,
    /// The line as it is in its file, if that is JSON.
    json: Option<Vec<u8>>,
}

/// The fields of a JSON line that are used here.
#[derive(Deserialize)]
struct Fields<'a> {
    message: String,
    #[serde(borrow)]
    timestamp: Option<&'a RawValue>,
    #[serde(rename = "type")]
    kind: Option<String>,
    app_name: Option<String>,
    slot: Option<u32>,
}

/// Parses a line.
pub(super) fn parse(line: &[u8], origin: &Origin, zone: &TimeZone) -> Line {
    let plain = |time, message: &[u8]| Line {
        time,
        app: None,
        slot: origin.slot,
        kind: origin.kind.map(|kind| kind.word().to_owned()),
        message: message.to_vec(),
        json: None,
    };
    if origin.own {
        let (stamp, message) = match memchr::memmem::find(line, b" clusterd: ") {
            Some(at) => (String::from_utf8_lossy(&line[..at]).into_owned(), &line[at + " clusterd: ".len()..]),
            None => (String::new(), line),
        };
        return Line {
            kind: Some(OWN.to_owned()),
            ..plain(time_of(&stamp, None, zone).map(|(time, _)| time), message)
        };
    }
    if origin.json {
        let Ok(fields) = serde_json::from_slice::<Fields<'_>>(line) else { return plain(None, line) };
        let stamp = fields.timestamp.and_then(|raw| serde_json::from_str::<String>(raw.get()).ok());
        return Line {
            time: stamp.and_then(|text| time_of(&text, origin.time.as_deref(), zone).map(|(time, _)| time)),
            app: fields.app_name,
            slot: fields.slot,
            kind: fields.kind,
            message: fields.message.into_bytes(),
            json: Some(line.to_vec()),
        };
    }
    let Some(format) = &origin.time else { return plain(None, line) };
    // Timestamps are short; this cuts no UTF-8 character in two.
    let head = String::from_utf8_lossy(&line[..line.len().min(4 * crate::limits::LOG_TIME_CHARS_MAX)]);
    match time_of(&head, Some(format), zone) {
        Some((time, length)) => plain(Some(time), line[length..].strip_prefix(b": ").unwrap_or(&line[length..])),
        None => plain(None, line),
    }
}

/// The time at the start of a text, and its length in bytes.
fn time_of(text: &str, format: Option<&str>, zone: &TimeZone) -> Option<(Timestamp, usize)> {
    let Some(format) = format else { return text.parse().ok().map(|time| (time, text.len())) };
    let (parts, length) = BrokenDownTime::parse_prefix(format, text).ok()?;
    let with_offset = parts.to_timestamp().ok();
    let time = with_offset.or_else(|| zone.to_timestamp(parts.to_datetime().ok()?).ok())?;
    Some((time, length))
}

impl Line {
    /// Whether the filter matches this line.
    pub(super) fn is_wanted(&self, origin: &Origin, filter: &Filter) -> bool {
        let app = self.app.as_ref().is_none_or(|app| origin.apps.contains(app));
        let kind = filter.kind.is_none_or(|wanted| self.kind.as_deref() == Some(wanted.word()));
        let slot = filter.slot.is_none_or(|wanted| self.slot == Some(wanted));
        let only = origin.only.is_empty() || self.slot.is_some_and(|slot| origin.only.contains(&slot));
        app && kind && slot && only && !origin.others.iter().any(|app| self.is_about(app))
    }

    /// Whether a line of clusterd's own is about this app: `web: ready`, `web/0: worker 3 died`.
    fn is_about(&self, app: &str) -> bool {
        let rest = self.message.strip_prefix(app.as_bytes());
        rest.is_some_and(|rest| rest.starts_with(b": ") || rest.starts_with(b"/"))
    }

    fn app_name(&self, origin: &Origin) -> String {
        self.app.clone().unwrap_or_else(|| origin.apps.join("+"))
    }
}

impl Style {
    /// The formatted line with its newline. `seen`: when it was read, for lines without a time of their own.
    pub(super) fn show(&self, line: &Line, origin: &Origin, seen: Option<Timestamp>, zone: &TimeZone) -> Vec<u8> {
        let time = line.time.or(seen);
        let mut out = Vec::with_capacity(line.message.len() + 64);
        if self.json {
            self.show_json(line, origin, time, zone, &mut out);
            out.push(b'\n');
            return out;
        }
        if !self.raw {
            if let Some(time) = self.time.as_ref().and_then(|format| text_of(time?, format, zone)) {
                out.extend_from_slice(time.as_bytes());
                out.push(b' ');
            }
            let slot = line.slot.map(|slot| format!("/{}", Slot(slot))).unwrap_or_default();
            let colour = match line.kind.as_deref() {
                Some("err") => "31",
                Some(OWN) => "36",
                Some(_) => "32",
                None => "36",
            };
            let name = format!("{}{slot} |", line.app_name(origin));
            let name = if self.colours { format!("\x1b[{colour}m{name}\x1b[0m ") } else { format!("{name} ") };
            out.extend_from_slice(name.as_bytes());
        }
        match self.highlight.as_ref().filter(|word| self.colours && !word.is_empty()) {
            Some(word) => {
                let mut rest = &line.message[..];
                while let Some(at) = memchr::memmem::find(rest, word.as_bytes()) {
                    out.extend_from_slice(&rest[..at]);
                    out.extend([b"\x1b[30;43m", word.as_bytes(), b"\x1b[0m"].concat());
                    rest = &rest[at + word.len()..];
                }
                out.extend_from_slice(rest);
            }
            None => out.extend_from_slice(&line.message),
        }
        out.push(b'\n');
        out
    }

    fn show_json(&self, line: &Line, origin: &Origin, time: Option<Timestamp>, zone: &TimeZone, out: &mut Vec<u8>) {
        if let Some(json) = &line.json {
            out.extend_from_slice(json);
            return;
        }
        out.extend_from_slice(b"{\"message\":");
        push_json(out, &line.message);
        let format = self.time.as_deref().unwrap_or(log_time::JSON_DEFAULT);
        let mut field = |name: &str, text: &str| {
            out.extend_from_slice(format!(",\"{name}\":").as_bytes());
            push_json(out, text.as_bytes());
        };
        if let Some(time) = time.and_then(|time| text_of(time, format, zone)) {
            field("timestamp", &time);
        }
        if let Some(kind) = &line.kind {
            field("type", kind);
        }
        field("app_name", &line.app_name(origin));
        if let Some(slot) = line.slot.filter(|slot| !Slot(*slot).is_beside()) {
            out.extend_from_slice(format!(",\"slot\":{slot}").as_bytes());
        }
        out.push(b'}');
    }
}

fn text_of(time: Timestamp, format: &str, zone: &TimeZone) -> Option<String> {
    jiff::fmt::strtime::format(format, &time.to_zoned_datetime(zone.clone())).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn origin(json: bool, time: Option<&str>) -> Origin {
        Origin {
            apps: vec!["web".into(), "api".into()],
            slot: None,
            kind: Some(Kind::Out),
            json,
            time: time.map(str::to_owned),
            ..Origin::default()
        }
    }

    fn shown(style: &Style, line: &str, origin: &Origin) -> String {
        let line = parse(line.as_bytes(), origin, &TimeZone::UTC);
        String::from_utf8(style.show(&line, origin, None, &TimeZone::UTC)).unwrap()
    }

    #[test]
    fn a_time_is_known_from_its_stamp_and_shown_when_asked_for() {
        let stamped = origin(false, Some("%Y-%m-%d %H:%M:%S%.3f"));
        let line = "2026-02-03 04:05:06.789: hello: you";
        let style = Style { time: Some("%H.%M".into()), ..Style::default() };
        assert_eq!(shown(&style, line, &stamped), "04.05 web+api | hello: you\n");
        assert_eq!(shown(&Style::default(), "no stamp", &stamped), "web+api | no stamp\n");
        let json = origin(true, None);
        let text = r#"{"message":"hi\n\"x\"","timestamp":"2026-02-03T04:05:06.789+00:00","type":"err","app_name":"web","slot":3}"#;
        assert_eq!(shown(&style, text, &json), "04.05 web/3 | hi\n\"x\"\n");
        assert_eq!(shown(&Style { json: true, ..style.clone() }, text, &json), format!("{text}\n"));
        assert_eq!(
            shown(&Style { json: true, ..Style::default() }, line, &stamped),
            "{\"message\":\"hello: you\",\"timestamp\":\"2026-02-03T04:05:06.789+00:00\",\"type\":\"out\",\"app_name\":\"web+api\"}\n"
        );
    }

    #[test]
    fn lines_of_clusterd_itself_have_its_name_and_concern_the_apps_that_are_shown() {
        let own = Origin { apps: vec!["clusterd".into()], own: true, others: vec!["api".into()], ..Origin::default() };
        let line = "2026-02-03T04:05:06.789Z clusterd: web/0: worker 1 exited with code 1";
        let timed = Style { time: Some("%H.%M".into()), ..Style::default() };
        assert_eq!(shown(&timed, line, &own), "04.05 clusterd | web/0: worker 1 exited with code 1\n");
        assert_eq!(shown(&timed, "panicked at", &own), "clusterd | panicked at\n");
        let wanted = |text: &str, filter: &Filter| {
            parse(format!("2026-02-03T04:05:06.789Z clusterd: {text}").as_bytes(), &own, &TimeZone::UTC)
                .is_wanted(&own, filter)
        };
        assert!(wanted("web: ready", &Filter::default()) && wanted("apis: ready", &Filter::default()));
        assert!(!wanted("api: ready", &Filter::default()) && !wanted("api/3: left", &Filter::default()));
        assert!(!wanted("web: ready", &Filter { kind: Some(Kind::Err), slot: None }));
        assert!(!wanted("web: ready", &Filter { kind: None, slot: Some(0) }));
    }

    #[test]
    fn lines_are_filtered_coloured_and_marked() {
        let json = origin(true, None);
        let line = |text: &str| parse(text.as_bytes(), &json, &TimeZone::UTC);
        let err = line(r#"{"message":"bad","type":"err","slot":1,"app_name":"api"}"#);
        assert!(err.is_wanted(&json, &Filter { kind: Some(Kind::Err), slot: Some(1) }));
        assert!(!err.is_wanted(&json, &Filter { kind: Some(Kind::Out), slot: None }));
        assert!(!err.is_wanted(&json, &Filter { kind: None, slot: Some(2) }));
        let other = line(r#"{"message":"bad","app_name":"cron"}"#);
        assert!(!other.is_wanted(&json, &Filter::default()), "another app writes to the same file");
        let style = Style { colours: true, highlight: Some("a".into()), ..Style::default() };
        assert_eq!(
            shown(&style, r#"{"message":"bad","type":"err","slot":1,"app_name":"web"}"#, &json),
            "\u{1b}[31mweb/1 |\u{1b}[0m b\u{1b}[30;43ma\u{1b}[0md\n"
        );
        assert_eq!(shown(&Style { raw: true, ..Style::default() }, "as it is", &json), "as it is\n");
    }
}
