//! Parsers for single values: text to type, or an error. Shared by command line and file.
use super::value_error::ValueError;
use super::{Balancing, Listen, Metrics, Protocol, Ready, Said, Workers, defaults, env_file, protocol};
use crate::limits::{
    DURATION_MS_MAX, HANG_MS_MIN, HOST_BYTES_MAX, MEMORY_LIMIT_BYTES_MAX, NAME_CHARS_MAX, READY_PATH_BYTES_MAX,
    WORKERS_MAX, WORKERS_PERCENT_MAX,
};
use crate::supervisor::Measure;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// `4`, `max`, `max-1`, `50%`.
pub fn workers(text: &str) -> Result<Workers, ValueError> {
    let wrong = || ValueError::Workers(text.to_owned());
    if text == "max" {
        return Ok(Workers::MaxMinus(0));
    }
    if let Some(less) = text.strip_prefix("max-") {
        return digits(less).filter(|less| *less < WORKERS_MAX).map(Workers::MaxMinus).ok_or_else(wrong);
    }
    if let Some(percent) = text.strip_suffix('%') {
        return match digits(percent) {
            Some(percent @ 1..=WORKERS_PERCENT_MAX) => Ok(Workers::Percent(percent)),
            Some(_) => Err(ValueError::WorkersShare(text.to_owned())),
            None => Err(wrong()),
        };
    }
    digits(text).filter(|n| (1..=WORKERS_MAX).contains(n)).map(Workers::Exactly).ok_or_else(wrong)
}

/// Decimal digits only: no sign, no space.
pub(crate) fn digits(text: &str) -> Option<u32> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// `30s`, `500ms`, `2m`, `1h`: whole numbers with their unit.
pub fn duration(text: &str) -> Result<Duration, ValueError> {
    let number_ends = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(number_ends);
    if number.is_empty() {
        return Err(ValueError::Time(text.to_owned()));
    }
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "" => return Err(ValueError::TimeWithoutUnit(text.to_owned())),
        _ => return Err(ValueError::TimeUnit(text.to_owned())),
    };
    let ms = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit_ms));
    let ms = ms.filter(|ms| *ms <= DURATION_MS_MAX);
    ms.map(Duration::from_millis).ok_or_else(|| ValueError::TimeTooLong(text.to_owned()))
}

/// A duration that must not be zero.
pub fn duration_not_zero(text: &str) -> Result<Duration, ValueError> {
    match duration(text)? {
        Duration::ZERO => Err(ValueError::TimeZero(text.to_owned())),
        time => Ok(time),
    }
}

/// Time after which a stuck event loop counts as hung.
pub fn hang(text: &str) -> Result<Duration, ValueError> {
    let time = duration(text)?;
    if time < Duration::from_millis(HANG_MS_MIN) {
        return Err(ValueError::HangTooShort(text.to_owned()));
    }
    Ok(time)
}

/// A duration that may be in days, `7d`, and must not be zero.
pub fn age(text: &str) -> Result<Duration, ValueError> {
    let Some(days) = text.strip_suffix('d').and_then(digits) else { return duration_not_zero(text) };
    duration_not_zero(&format!("{}h", u64::from(days) * 24)).map_err(|error| match error {
        ValueError::TimeZero(_) => ValueError::TimeZero(text.to_owned()),
        _ => ValueError::TimeTooLong(text.to_owned()),
    })
}

/// The library with which an app has metrics of its own.
pub fn metrics(text: &str) -> Result<Metrics, ValueError> {
    Metrics::named(text).ok_or_else(|| unknown("metrics", text, &Metrics::NAMES))
}

/// The format of a line in a log file.
pub fn log_format(text: &str) -> Result<super::log::Format, ValueError> {
    match text {
        "plain" => Ok(super::log::Format::Plain),
        "json" => Ok(super::log::Format::Json),
        _ => Err(unknown("format", text, &["plain", "json"])),
    }
}

/// `512M`, `2G`, `65536K`: whole numbers with their unit, in bytes.
pub fn size(text: &str) -> Result<u64, ValueError> {
    let number_ends = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(number_ends);
    let unit_bytes: u64 = match unit {
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        _ => return Err(ValueError::Size(text.to_owned())),
    };
    if number.is_empty() {
        return Err(ValueError::Size(text.to_owned()));
    }
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit_bytes));
    match bytes.filter(|bytes| *bytes <= MEMORY_LIMIT_BYTES_MAX) {
        Some(0) => Err(ValueError::SizeZero(text.to_owned())),
        Some(bytes) => Ok(bytes),
        None => Err(ValueError::SizeTooLarge(text.to_owned())),
    }
}

/// A line of a `.gitignore`.
pub fn pattern(text: &str) -> Result<String, ValueError> {
    if text.trim().is_empty() || text.contains(['\n', '\0']) {
        return Err(ValueError::Pattern);
    }
    if text.starts_with('#') {
        return Err(ValueError::PatternIsComment(text.to_owned()));
    }
    Ok(text.to_owned())
}

/// The name of the variable that holds the slot.
pub fn instance_variable(text: &str) -> Result<String, ValueError> {
    if text == defaults::INSTANCE_VAR { Ok(text.to_owned()) } else { own_variable(text) }
}

/// The name of a variable that clusterd does not set by itself.
pub fn own_variable(text: &str) -> Result<String, ValueError> {
    env_file::check(text, "")?;
    Ok(text.to_owned())
}

/// `auto`, or the name of a way to balance.
pub fn balance(text: &str) -> Result<Balancing, ValueError> {
    Balancing::named(text).ok_or_else(|| unknown("balance", text, &Balancing::NAMES))
}

/// What the number of workers follows.
pub fn measure(text: &str) -> Result<Measure, ValueError> {
    Measure::named(text).ok_or_else(|| unknown("by", text, &Measure::NAMES))
}

/// Signals that may ask a worker to end.
pub const STOP_SIGNALS: [&str; 6] = ["SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2"];

/// The signal that asks a worker to end, with or without `SIG`.
pub fn stop_signal(text: &str) -> Result<String, ValueError> {
    let upper = text.to_ascii_uppercase();
    let full = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    if STOP_SIGNALS.contains(&full.as_str()) { Ok(full) } else { Err(unknown("stop_signal", text, &STOP_SIGNALS)) }
}

/// The name of a protocol.
pub fn protocol(text: &str) -> Result<Protocol, ValueError> {
    Protocol::named(text).ok_or_else(|| unknown("protocol", text, &protocol::NAMES))
}

/// The rule for a worker's readiness.
pub fn ready(text: &str) -> Result<Ready, ValueError> {
    if let Some((said, time)) = text.split_once(" or ") {
        return ready_or(said.trim(), time.trim());
    }
    match text {
        "listening" => Ok(Ready::Listening),
        "message" => Ok(Ready::Message),
        "notify" => Ok(Ready::Notify),
        _ if text.starts_with("http:") || text.starts_with("https:") || text.starts_with('/') => ready_http(text),
        _ if text.starts_with(|c: char| c.is_ascii_digit()) => duration_not_zero(text).map(Ready::After),
        _ => Err(ValueError::Unknown {
            what: "ready",
            typed: text.to_owned(),
            choices: SAID,
            more: ", \"http:/healthz\", a time such as \"2s\", or both: \"listening or 2s\"",
        }),
    }
}

/// Evidence that a worker announces itself.
const SAID: &[&str] = &["listening", "message", "notify"];

/// `http:/healthz`: the path of a readiness probe.
fn ready_http(text: &str) -> Result<Ready, ValueError> {
    let typed = text.to_owned();
    if text.starts_with('/') {
        return Err(ValueError::ReadyPathAlone(typed));
    }
    let Some(path) = text.strip_prefix("http:") else { return Err(ValueError::ReadyHttps(typed)) };
    if let Some(rest) = path.strip_prefix("//") {
        let path = rest.find('/').map_or("/", |at| &rest[at..]).to_owned();
        return Err(ValueError::ReadyHost { typed, path });
    }
    match path.bytes().find(|b| !b.is_ascii_graphic() || *b == b'#') {
        _ if path.is_empty() => Err(ValueError::ReadyWithoutPath),
        _ if !path.starts_with('/') => Err(ValueError::ReadyWithoutSlash { typed, path: path.to_owned() }),
        Some(_) => Err(ValueError::ReadyCharacters(typed)),
        None if path.len() > READY_PATH_BYTES_MAX => Err(ValueError::ReadyTooLong),
        None => Ok(Ready::Http(path.to_owned())),
    }
}

/// `/healthz`: the path of a liveness probe.
///
/// # Errors
/// Not the path of a request.
pub fn http_path(text: &str) -> Result<String, ValueError> {
    let typed = || text.to_owned();
    if text.len() > READY_PATH_BYTES_MAX {
        return Err(ValueError::HttpPathTooLong);
    }
    if !text.starts_with('/') || text.bytes().any(|b| !b.is_ascii_graphic() || b == b'#') {
        return Err(ValueError::HttpPath(typed()));
    }
    Ok(typed())
}

/// `listening or 3s`.
fn ready_or(said: &str, time: &str) -> Result<Ready, ValueError> {
    let said = match said {
        "listening" => Said::Listening,
        "message" => Said::Message,
        "notify" => Said::Notify,
        _ if said.starts_with("http:") => return Err(ValueError::ReadyHttpAndTime(said.to_owned())),
        _ => return Err(unknown("ready", said, SAID)),
    };
    duration_not_zero(time).map(|time| Ready::Or(said, time))
}

fn unknown(what: &'static str, typed: &str, choices: &'static [&'static str]) -> ValueError {
    ValueError::Unknown { what, typed: typed.to_owned(), choices, more: "" }
}

/// The most similar candidate, if it is similar enough.
pub fn nearest<'a>(typed: &str, candidates: &[&'a str]) -> Option<&'a str> {
    if typed.len() > NAME_CHARS_MAX {
        return None; // Not a slip of the finger, and slow to compare.
    }
    let typed = typed.to_lowercase();
    candidates
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(&typed, candidate), *candidate))
        // With a single letter nothing would be left.
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).max(1) && *distance < candidate.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// A text that names of variables may contain.
pub fn variable_text(text: &str) -> Result<String, ValueError> {
    if text.is_empty() || text.contains(['=', '\0']) {
        return Err(env_file::VariableError::Name(text.to_owned()).into());
    }
    Ok(text.to_owned())
}

/// A path without a zero byte.
pub fn path(text: &str) -> Result<String, ValueError> {
    if text.is_empty() || text.contains('\0') {
        return Err(ValueError::Path);
    }
    Ok(text.to_owned())
}

/// The name or number of a user or group.
pub fn identity(text: &str) -> Result<String, ValueError> {
    if text.is_empty() || text.contains([':', '\0', '\n']) {
        return Err(ValueError::Identity(text.to_owned()));
    }
    Ok(text.to_owned())
}

/// A file mode mask as octal digits: `027`.
pub fn umask(text: &str) -> Result<u32, ValueError> {
    let octal = !text.is_empty() && text.len() <= 4 && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
    let mask = octal.then(|| u32::from_str_radix(text, 8).ok()).flatten();
    mask.filter(|mask| *mask <= 0o777).ok_or_else(|| ValueError::Umask(text.to_owned()))
}

/// The mode of a socket as octal digits: `0660`.
pub fn socket_mode(text: &str) -> Result<u32, ValueError> {
    umask(text).map_err(|_| ValueError::SocketMode(text.to_owned()))
}

/// An address to listen on. A path of a Unix socket stays as typed.
///
/// `8080`, `127.0.0.1:8080`, `[::1]:8080`, `*:8080`, `localhost:8080`, `unix:/run/app.sock`, `/run/app.sock`.
pub fn listen(text: &str) -> Result<Listen, ValueError> {
    let typed = || text.to_owned();
    if let Some(path) = text.strip_prefix("unix:") {
        return unix(path, text);
    }
    if text.starts_with('/') || text.starts_with("./") || text.starts_with("../") {
        return unix(text, text);
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        return Err(ValueError::Scheme { typed: typed(), scheme: scheme.to_owned(), rest: rest.to_owned() });
    }
    if text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty() {
        return Ok(Listen::Any(port(text, text)?));
    }
    if text.parse::<std::net::Ipv6Addr>().is_ok() {
        return Err(ValueError::Ipv6WithoutPort(typed()));
    }
    let Some((host, port_text)) = text.rsplit_once(':') else {
        return Err(if text.is_empty() { ValueError::AddressEmpty } else { ValueError::AddressWithoutPort(typed()) });
    };
    let port = port(port_text, text)?;
    if host.is_empty() || host == "*" {
        return Ok(Listen::Any(port));
    }
    if let Some(inner) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return match inner.parse::<std::net::Ipv6Addr>() {
            Ok(ip) => Ok(Listen::Tcp(SocketAddr::new(ip.into(), port))),
            Err(_) => Err(ValueError::Ipv6 { typed: typed(), inner: inner.to_owned() }),
        };
    }
    if host.contains(':') {
        return Err(ValueError::Ipv6WithoutBrackets { typed: typed(), host: host.to_owned(), port });
    }
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(Listen::Tcp(SocketAddr::new(ip, port)));
    }
    if host.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Err(ValueError::Ipv4 { typed: typed(), host: host.to_owned() });
    }
    if !is_host_name(host) {
        return Err(ValueError::Host { typed: typed(), host: host.to_owned() });
    }
    Ok(Listen::Host(host.to_owned(), port))
}

/// `--host` and `--port` together.
pub fn host_and_port(host: &str, port: u16) -> Result<Listen, ValueError> {
    match host.parse::<std::net::Ipv6Addr>() {
        Ok(ip) => Ok(Listen::Tcp(SocketAddr::new(ip.into(), port))),
        Err(_) => listen(&format!("{host}:{port}")),
    }
}

/// Whether this is a valid host name.
fn is_host_name(host: &str) -> bool {
    let label_ok = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
    };
    host.len() <= HOST_BYTES_MAX && host.trim_end_matches('.').split('.').all(label_ok)
}

fn port(port: &str, typed: &str) -> Result<u16, ValueError> {
    if port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) {
        return Err(ValueError::Port { port: port.to_owned(), typed: typed.to_owned() });
    }
    port.parse().map_err(|_| ValueError::PortRange { port: port.to_owned(), typed: typed.to_owned() })
}

fn unix(path: &str, typed: &str) -> Result<Listen, ValueError> {
    if path.is_empty() || path.ends_with('/') {
        return Err(ValueError::Socket(typed.to_owned()));
    }
    if path.starts_with('@') {
        return Err(ValueError::AbstractSocket(typed.to_owned()));
    }
    if path.contains('\0') {
        return Err(ValueError::SocketZeroByte);
    }
    Ok(Listen::Unix(PathBuf::from(path)))
}

/// A command in one string. Split at spaces if it is simple; characters that are special to a shell are refused.
pub fn command_line(text: &str) -> Result<Vec<String>, ValueError> {
    let special = |c: char| "\"'\\$`*?[]{}()<>|&;!~#".contains(c) || (c.is_control() && c != '\t');
    if let Some(c) = text.chars().find(|c| special(*c)) {
        return Err(ValueError::CommandForShell(c));
    }
    let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    if words.is_empty() { Err(ValueError::CommandEmpty) } else { Ok(words) }
}

/// A command as an array.
pub fn command(words: &[String]) -> Result<(), ValueError> {
    if words.first().is_none_or(String::is_empty) {
        return Err(ValueError::CommandEmpty);
    }
    match words.iter().find(|word| word.contains('\0')) {
        Some(_) => Err(ValueError::CommandZeroByte),
        None => Ok(()),
    }
}
