//! One typed value each: text to type, or a sentence that says what is allowed. The command line and the file share it.
use super::{Balance, Listen, Protocol, Ready, Said, Workers, defaults, env_file};
use crate::limits::{
    DURATION_MS_MAX, HANG_MS_MIN, HOST_BYTES_MAX, MEMORY_LIMIT_BYTES_MAX, NAME_CHARS_MAX, READY_PATH_BYTES_MAX,
    WORKERS_MAX, WORKERS_PERCENT_MAX,
};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// `4`, `max`, `max-1`, `50%`.
pub fn workers(text: &str) -> Result<Workers, String> {
    let wrong = || {
        let hint = match text.strip_prefix('-') {
            Some(less) if !less.is_empty() && less.bytes().all(|b| b.is_ascii_digit()) => {
                format!("; for all CPUs but {less}, write \"max-{less}\"")
            }
            _ if text == "0" => "; for all CPUs, write \"max\"".to_owned(),
            _ => String::new(),
        };
        format!("workers must be a number from 1 to {WORKERS_MAX}, \"max\", \"max-1\" or \"50%\", not \"{text}\"{hint}")
    };
    if text == "max" {
        return Ok(Workers::MaxMinus(0));
    }
    if let Some(less) = text.strip_prefix("max-") {
        return digits(less).filter(|less| *less < WORKERS_MAX).map(Workers::MaxMinus).ok_or_else(wrong);
    }
    if let Some(percent) = text.strip_suffix('%') {
        return match digits(percent) {
            Some(percent @ 1..=WORKERS_PERCENT_MAX) => Ok(Workers::Percent(percent)),
            Some(_) => Err(format!("a share of the CPUs must be from 1% to {WORKERS_PERCENT_MAX}%, not \"{text}\"")),
            None => Err(wrong()),
        };
    }
    digits(text).filter(|n| (1..=WORKERS_MAX).contains(n)).map(Workers::Exactly).ok_or_else(wrong)
}

/// Decimal digits alone: no sign, no space.
pub(crate) fn digits(text: &str) -> Option<u32> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// `30s`, `500ms`, `2m`, `1h`: whole numbers with their unit.
pub fn duration(text: &str) -> Result<Duration, String> {
    let number_ends = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(number_ends);
    if number.is_empty() {
        return Err(format!(
            "a time must be a whole number with its unit (\"500ms\", \"30s\", \"2m\", \"1h\"), not \"{text}\""
        ));
    }
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "" => {
            return Err(format!("{text} of what? Add a unit: \"{text}s\" for seconds, \"{text}ms\" for milliseconds"));
        }
        _ => {
            return Err(format!(
                "a time must be a whole number with the unit ms, s, m or h (\"500ms\", \"30s\"), not \"{text}\""
            ));
        }
    };
    let ms = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit_ms));
    ms.filter(|ms| *ms <= DURATION_MS_MAX)
        .map(Duration::from_millis)
        .ok_or_else(|| format!("{text} is too long: {} days is the most", DURATION_MS_MAX / 86_400_000))
}

/// A duration that makes no sense when it is zero.
pub fn duration_not_zero(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err(format!("{text} is no time at all: \"1ms\" is the least here")),
        time => Ok(time),
    }
}

/// Time after which an event loop that does not turn counts as hung.
pub fn hang(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    if time < Duration::from_millis(HANG_MS_MIN) {
        return Err(format!("{text} is too short: \"{HANG_MS_MIN}ms\" is the least here"));
    }
    Ok(time)
}

/// A time that may also be in days, `7d`, and is not zero.
pub fn age(text: &str) -> Result<Duration, String> {
    match text.strip_suffix('d').and_then(digits) {
        Some(days) => duration_not_zero(&format!("{}h", u64::from(days) * 24)).map_err(|message| {
            let hours = format!("{}h", u64::from(days) * 24);
            message.replacen(&hours, text, 1)
        }),
        None => duration_not_zero(text),
    }
}

/// What a line in a log file looks like.
pub fn log_format(text: &str) -> Result<super::log::Format, String> {
    match text {
        "plain" => Ok(super::log::Format::Plain),
        "json" => Ok(super::log::Format::Json),
        _ => Err(choice("format", text, &["plain", "json"])),
    }
}

/// `512M`, `2G`, `65536K`: whole numbers with their unit, in bytes.
pub fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("a size must be a whole number with the unit K, M or G (\"512M\", \"2G\"), not \"{text}\"");
    let number_ends = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(number_ends);
    let unit_bytes: u64 = match unit {
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        _ => return Err(wrong()),
    };
    if number.is_empty() {
        return Err(wrong());
    }
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit_bytes));
    match bytes.filter(|bytes| *bytes <= MEMORY_LIMIT_BYTES_MAX) {
        Some(0) => Err(format!("{text} is no memory at all")),
        Some(bytes) => Ok(bytes),
        None => Err(format!("{text} is too much: {}G is the most", MEMORY_LIMIT_BYTES_MAX >> 30)),
    }
}

/// What is not to be watched, as a line of a `.gitignore`.
pub fn pattern(text: &str) -> Result<String, String> {
    if text.trim().is_empty() || text.contains(['\n', '\0']) {
        return Err("a pattern is one line of a .gitignore, such as \"*.log\" or \"tmp/\"".into());
    }
    if text.starts_with('#') {
        return Err(format!("\"{text}\" would be a comment: write \"\\\\{text}\""));
    }
    Ok(text.to_owned())
}

/// The name of the variable that holds the slot.
pub fn instance_variable(text: &str) -> Result<String, String> {
    if text == defaults::INSTANCE_VAR { Ok(text.to_owned()) } else { own_variable(text) }
}

/// The name of a variable that clusterd does not set by itself.
pub fn own_variable(text: &str) -> Result<String, String> {
    env_file::check(text, "").map(|()| text.to_owned())
}

/// The name of a way to balance.
pub fn balance(text: &str) -> Result<Balance, String> {
    match text {
        "round-robin" => Ok(Balance::RoundRobin),
        "sticky" => Ok(Balance::Sticky),
        "shared" => Ok(Balance::Shared),
        "kernel" => Ok(Balance::Kernel),
        _ => Err(choice("balance", text, &["round-robin", "sticky", "shared", "kernel"])),
    }
}

/// The name of a protocol.
pub fn protocol(text: &str) -> Result<Protocol, String> {
    match text {
        "auto" => Ok(Protocol::Auto),
        "node" => Ok(Protocol::Node),
        "listen-fds" => Ok(Protocol::ListenFds),
        "none" => Ok(Protocol::None),
        _ => Err(choice("protocol", text, &["auto", "node", "listen-fds", "none"])),
    }
}

/// What makes a worker ready.
pub fn ready(text: &str) -> Result<Ready, String> {
    if let Some((said, time)) = text.split_once(" or ") {
        return ready_or(said.trim(), time.trim());
    }
    match text {
        "listening" => Ok(Ready::Listening),
        "message" => Ok(Ready::Message),
        "notify" => Ok(Ready::Notify),
        _ if text.starts_with("http:") || text.starts_with("https:") || text.starts_with('/') => ready_http(text),
        _ if text.starts_with(|c: char| c.is_ascii_digit()) => duration_not_zero(text).map(Ready::After),
        _ => Err(choice("ready", text, &["listening", "message", "notify"])
            + ", \"http:/healthz\", a time such as \"2s\", or both: \"listening or 2s\""),
    }
}

/// `http:/healthz`: the path that a worker is asked for.
fn ready_http(text: &str) -> Result<Ready, String> {
    if text.starts_with('/') {
        return Err(format!("ready \"{text}\": to have the worker asked for this path, write \"http:{text}\""));
    }
    let Some(path) = text.strip_prefix("http:") else {
        return Err(format!(
            "ready \"{text}\": workers are asked in plain HTTP, \"http:/healthz\"; one that speaks TLS alone is ready by \
             \"listening\", \"message\" or a time such as \"2s\""
        ));
    };
    if let Some(rest) = path.strip_prefix("//") {
        let path = rest.find('/').map_or("/", |at| &rest[at..]);
        return Err(format!(
            "ready \"{text}\": the new worker itself is asked, whatever the host: write \"http:{path}\""
        ));
    }
    match path.bytes().find(|b| !b.is_ascii_graphic() || *b == b'#') {
        _ if path.is_empty() => Err("ready \"http:\" names no path to ask for: write \"http:/healthz\"".to_owned()),
        _ if !path.starts_with('/') => {
            Err(format!("ready \"{text}\": a path begins with a slash: write \"http:/{path}\""))
        }
        Some(_) => {
            Err(format!("ready \"{text}\": a path is of ASCII letters, digits and signs, but #; write others as %20"))
        }
        None if path.len() > READY_PATH_BYTES_MAX => {
            Err(format!("ready \"http:...\": the path is longer than {READY_PATH_BYTES_MAX} bytes"))
        }
        None => Ok(Ready::Http(path.to_owned())),
    }
}

/// `listening or 3s`.
fn ready_or(said: &str, time: &str) -> Result<Ready, String> {
    let said = match said {
        "listening" => Said::Listening,
        "message" => Said::Message,
        "notify" => Said::Notify,
        _ if said.starts_with("http:") => {
            return Err(format!(
                "ready \"{said}\" goes with no other rule: a worker that answers badly must not get ready by waiting; \
                 ready_timeout says how long it has"
            ));
        }
        _ => return Err(choice("ready", said, &["listening", "message", "notify"])),
    };
    duration_not_zero(time).map(|time| Ready::Or(said, time))
}

/// "... must be one of these", with the nearest one named.
fn choice(what: &str, text: &str, allowed: &[&str]) -> String {
    let list = allowed.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
    let hint = nearest(text, allowed).map(|name| format!(" (did you mean \"{name}\"?)")).unwrap_or_default();
    format!("{what} \"{text}\" is not known{hint}; choose {list}")
}

/// The candidate that was most likely meant, where one is near enough.
pub fn nearest<'a>(typed: &str, candidates: &[&'a str]) -> Option<&'a str> {
    if typed.len() > NAME_CHARS_MAX {
        return None; // Nobody meant this, and to compare it takes its time.
    }
    let typed = typed.to_lowercase();
    candidates
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(&typed, candidate), *candidate))
        // Of a single letter nothing would be left.
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).max(1) && *distance < candidate.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// A path that the kernel could take.
pub fn path(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains('\0') {
        return Err("a path is empty or holds a zero byte".into());
    }
    Ok(text.to_owned())
}

/// The name or number of a user or group.
pub fn identity(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains([':', '\0', '\n']) {
        return Err(format!("\"{}\" is no name of a user or group", text.escape_debug()));
    }
    Ok(text.to_owned())
}

/// A file mode mask as octal digits: `027`.
pub fn umask(text: &str) -> Result<u32, String> {
    let octal = !text.is_empty() && text.len() <= 4 && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
    octal
        .then(|| u32::from_str_radix(text, 8).ok())
        .flatten()
        .filter(|mask| *mask <= 0o777)
        .ok_or_else(|| format!("umask must be octal digits from \"000\" to \"777\" such as \"027\", not \"{text}\""))
}

/// An address to listen on. A path of a Unix socket stays as typed.
///
/// `8080`, `127.0.0.1:8080`, `[::1]:8080`, `*:8080`, `localhost:8080`, `unix:/run/app.sock`, `/run/app.sock`.
pub fn listen(text: &str) -> Result<Listen, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return unix(path, text);
    }
    if text.starts_with('/') || text.starts_with("./") || text.starts_with("../") {
        return unix(text, text);
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        return Err(format!("\"{text}\": leave out \"{scheme}://\"; write \"{}\"", rest.trim_end_matches('/')));
    }
    if text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty() {
        return Ok(Listen::Any(port(text, text)?));
    }
    if text.parse::<std::net::Ipv6Addr>().is_ok() {
        return Err(format!("\"{text}\": an IPv6 address needs brackets and a port: \"[{text}]:8080\""));
    }
    let Some((host, port_text)) = text.rsplit_once(':') else {
        return Err(if text.is_empty() {
            "an address to listen on is empty; write a port (\"8080\"), \"127.0.0.1:8080\" or \"unix:/run/app.sock\""
                .into()
        } else {
            format!(
                "\"{text}\" has no port: write \"{text}:8080\" (or \"unix:{text}\" for a socket in the file system)"
            )
        });
    };
    let port = port(port_text, text)?;
    if host.is_empty() || host == "*" {
        return Ok(Listen::Any(port));
    }
    if let Some(inner) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return match inner.parse::<std::net::Ipv6Addr>() {
            Ok(ip) => Ok(Listen::Tcp(SocketAddr::new(ip.into(), port))),
            Err(_) => Err(format!("\"{text}\": \"{inner}\" is no IPv6 address")),
        };
    }
    if host.contains(':') {
        return Err(format!("\"{text}\": an IPv6 address needs brackets: \"[{host}]:{port}\""));
    }
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(Listen::Tcp(SocketAddr::new(ip, port)));
    }
    host_name(host).map_err(|why| format!("\"{text}\": {why}"))?;
    Ok(Listen::Host(host.to_owned(), port))
}

/// `--host` and `--port` together.
pub fn host_and_port(host: &str, port: u16) -> Result<Listen, String> {
    match host.parse::<std::net::Ipv6Addr>() {
        Ok(ip) => Ok(Listen::Tcp(SocketAddr::new(ip.into(), port))),
        Err(_) => listen(&format!("{host}:{port}")),
    }
}

/// A host that can be looked up (or an address).
fn host_name(host: &str) -> Result<(), String> {
    let like_an_address = host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if like_an_address {
        return Err(format!("\"{host}\" is no IPv4 address: it has four numbers from 0 to 255"));
    }
    let label_ok = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
    };
    if host.len() <= HOST_BYTES_MAX && host.trim_end_matches('.').split('.').all(label_ok) {
        return Ok(());
    }
    Err(format!("\"{host}\" is neither an address nor a host name"))
}

fn port(port: &str, whole: &str) -> Result<u16, String> {
    let range = "a port is a number from 0 to 65535 (0: any free one)";
    let shown = if port == whole { format!("\"{whole}\"") } else { format!("\"{port}\" in \"{whole}\"") };
    if port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("{shown} is no port: {range}"));
    }
    port.parse().map_err(|_| format!("port {shown} is out of range: {range}"))
}

fn unix(path: &str, whole: &str) -> Result<Listen, String> {
    if path.is_empty() || path.ends_with('/') {
        return Err(format!("\"{whole}\" names no socket: write \"unix:/run/app.sock\""));
    }
    if path.starts_with('@') {
        return Err(format!("\"{whole}\": abstract sockets are not available; use a path"));
    }
    if path.contains('\0') {
        return Err("a socket's path holds a zero byte".into());
    }
    Ok(Listen::Unix(PathBuf::from(path)))
}

/// A command typed as one string. Split by spaces when it is simple; what a shell would treat specially is refused.
pub fn command_line(text: &str) -> Result<Vec<String>, String> {
    let special = |c: char| "\"'\\$`*?[]{}()<>|&;!~#".contains(c) || (c.is_control() && c != '\t');
    if let Some(c) = text.chars().find(|c| special(*c)) {
        return Err(format!(
            "command holds {c:?}, and no shell reads it: write an array, one string for each argument \
             (with a shell: [\"sh\", \"-c\", \"...\"])"
        ));
    }
    let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    if words.is_empty() { Err(COMMAND_EMPTY.into()) } else { Ok(words) }
}

/// A command as an array.
pub fn command(words: &[String]) -> Result<(), String> {
    if words.first().is_none_or(String::is_empty) {
        return Err(COMMAND_EMPTY.into());
    }
    match words.iter().find(|word| word.contains('\0')) {
        Some(_) => Err("command holds a zero byte, which no argument can".into()),
        None => Ok(()),
    }
}

const COMMAND_EMPTY: &str = "command is empty: say what to run, for example [\"node\", \"app.js\"]";

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
