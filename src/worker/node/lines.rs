//! Node's cluster protocol as the primary speaks it: one JSON value per line, decoded to types and encoded from them.
//! Facts: lib/internal/cluster/{primary,child,utils}.js and lib/internal/child_process.js of Node 16 to 26, checked by
//! experiment. The master interprets the lines.
use super::framing::shown;
use super::profiles::{self, Profiled};
use super::{preload_lines, prom_client};
use crate::limits;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;
use std::net::IpAddr;
use thiserror::Error;

/// Longest part of a reason in an error about a malformed line, in characters.
const BAD_LINE_REASON_CHARS_MAX: usize = 200;

/// Answer to a handle that arrived.
pub const HANDLE_ACK: &[u8] = b"{\"cmd\":\"NODE_HANDLE_ACK\"}\n";
/// Answer to a handle line whose fd did not arrive.
pub const HANDLE_NACK: &[u8] = b"{\"cmd\":\"NODE_HANDLE_NACK\"}\n";
/// A line that no Node reacts to: all that matters is that the event loop reads it. (`NODE_HANDLE` without a handle
/// would be answered, but a hand-off after it in the same read would lose its handle to it, and the worker throws.)
pub const PING: &[u8] = b"{\"cmd\":\"NODE_PING\"}\n";

/// A line of a worker.
#[derive(Clone, Debug, PartialEq)]
pub enum FromWorker {
    /// Node has started, before user code.
    Online { seq: u64 },
    /// `listen()` was called.
    QueryServer { seq: u64, query: Query },
    /// A server listens.
    Listening { seq: u64 },
    /// Answer to one of our messages; `accepted` where it was a hand-off.
    Answer { ack: u64, accepted: Option<bool> },
    /// A server was closed.
    Close { seq: u64, key: String },
    /// The worker is about to leave on purpose.
    ExitedAfterDisconnect { seq: u64 },
    /// The worker received a handle.
    HandleAck,
    /// A handle did not arrive at the worker.
    HandleNack,
    /// The worker sends a handle of this type.
    Handle { kind: String },
    /// The worker gives a connection back that is between two requests.
    Moved,
    /// The worker gives back an upgraded connection, with its state as JSON; `None`: the state is not valid, or too long.
    Upgraded { state: Option<Box<str>> },
    /// The worker takes connections that carry a state.
    Takes,
    /// Asks a new master whether it has read all that was sent before.
    Sync { nth: u32 },
    /// The preload is loaded.
    Hello,
    /// So many connections are kept by the worker.
    Kept { count: u32 },
    /// What became of a profile that was asked for.
    Profiled(Profiled),
    /// `process.send('ready')`.
    Ready,
    /// Any other `process.send()`.
    User,
    /// An internal message that a primary ignores.
    OtherInternal(String),
}

/// The kind of a requested socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressType {
    /// TCP over IPv4 (without an address: over any family).
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// A socket in the file system.
    Unix,
    /// UDP over IPv4.
    Udp4,
    /// UDP over IPv6.
    Udp6,
}

/// The arguments of `listen()` (or `bind()`).
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// Host or path; `None` means all interfaces.
    pub address: Option<String>,
    /// Port; -1 for paths.
    pub port: i64,
    /// Kind of socket.
    pub address_type: AddressType,
    /// An fd of the primary to listen on.
    pub fd: Option<i64>,
    /// libuv's flags of the bind.
    pub flags: i64,
    /// Every user may read from a socket in the file system, as far as its mode says.
    pub readable_all: bool,
    /// The same of writing, which is what connecting needs.
    pub writable_all: bool,
    /// The server speaks when it was spoken to (HTTP, TLS), as the preload says.
    pub client_first: bool,
    /// The server refuses connections beyond a number (`maxConnections`), as the preload says.
    pub refuses: bool,
    /// Length of the accept queue.
    pub backlog: Option<i64>,
    /// Tells servers of one worker on the same address apart.
    pub index: i64,
    /// Data of the first worker for the others, as JSON.
    pub data: Option<String>,
}

impl Query {
    /// The key as Node's primary builds it: `address:port:addressType:fd:index`.
    pub fn key(&self) -> String {
        let kind = match self.address_type {
            AddressType::Tcp4 => "4",
            AddressType::Tcp6 => "6",
            AddressType::Unix => "-1",
            AddressType::Udp4 => "udp4",
            AddressType::Udp6 => "udp6",
        };
        let address = self.address.as_deref().unwrap_or("null");
        let fd = self.fd.map_or_else(String::new, |fd| fd.to_string());
        format!("{address}:{}:{kind}:{fd}:{}", self.port, self.index)
    }

    /// Whether the socket shares its port with others of the same process (`reuseAddr` of a datagram socket).
    #[must_use]
    pub fn shares_its_port(&self) -> bool {
        // UV_UDP_REUSEADDR (libuv's uv.h).
        matches!(self.address_type, AddressType::Udp4 | AddressType::Udp6) && self.flags & 4 != 0
    }
}

/// A line that is not in the protocol; its Display shows the beginning.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("it sent a line that Node's protocol does not have ({reason}): {beginning}")]
pub struct BadLine {
    reason: String,
    beginning: String,
}

/// Fields of internal messages. Node leaves out what is undefined and writes null for null.
#[derive(serde::Deserialize)]
struct Internal<'a> {
    #[serde(default)]
    act: Option<String>,
    #[serde(default)]
    ack: Option<u64>,
    #[serde(default)]
    seq: Option<u64>,
    #[serde(default)]
    accepted: Option<bool>,
    #[serde(default)]
    key: Option<String>,
    #[serde(default)]
    address: Option<String>,
    #[serde(default, borrow)]
    port: Option<&'a RawValue>,
    #[serde(default, rename = "addressType", borrow)]
    address_type: Option<&'a RawValue>,
    #[serde(default)]
    fd: Option<i64>,
    #[serde(default)]
    flags: Option<i64>,
    #[serde(default, rename = "readableAll", borrow)]
    readable_all: Option<&'a RawValue>,
    #[serde(default, rename = "writableAll", borrow)]
    writable_all: Option<&'a RawValue>,
    #[serde(default, rename = "clientFirst", borrow)]
    client_first: Option<&'a RawValue>,
    #[serde(default, borrow)]
    refuses: Option<&'a RawValue>,
    #[serde(default, borrow)]
    backlog: Option<&'a RawValue>,
    #[serde(default)]
    index: Option<i64>,
    #[serde(default, borrow)]
    data: Option<&'a RawValue>,
    #[serde(default, rename = "type")]
    kind: Option<String>,
}

/// Distinguishes internal messages from the user's.
struct Envelope<'a> {
    cmd: Option<&'a RawValue>,
}

impl<'de> Deserialize<'de> for Envelope<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Envelope<'de>, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Envelope<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Envelope<'de>, A::Error> {
                let mut cmd = None;
                while let Some(IsCmd(is_cmd)) = fields.next_key()? {
                    if is_cmd {
                        cmd = Some(fields.next_value()?);
                    } else {
                        fields.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(Envelope { cmd })
            }
        }
        from.deserialize_map(Fields)
    }
}

/// Whether a key is `cmd`. Compared as bytes: a user's key may be half a surrogate pair, which `str` cannot hold.
struct IsCmd(bool);

impl<'de> Deserialize<'de> for IsCmd {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<IsCmd, D::Error> {
        struct Key;
        impl Visitor<'_> for Key {
            type Value = IsCmd;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_bytes<E>(self, key: &[u8]) -> Result<IsCmd, E> {
                Ok(IsCmd(key == b"cmd"))
            }
        }
        from.deserialize_bytes(Key)
    }
}

/// Decodes a line.
///
/// # Errors
/// Not JSON, or an internal message with invalid fields.
#[inline]
pub fn decode(line: &[u8]) -> Result<FromWorker, BadLine> {
    if let Some((ack, accepted)) = decode_answer(line) {
        return Ok(FromWorker::Answer { ack, accepted: Some(accepted) });
    }
    // This field comes before every such answer.
    if line == br#"{"cmd":"NODE_HANDLE_ACK"}"# {
        return Ok(FromWorker::HandleAck);
    }
    decode_other(line)
}

/// Decodes a line that no hand-off is answered by.
fn decode_other(line: &[u8]) -> Result<FromWorker, BadLine> {
    if let Some(message) = preload_lines::decode(line) {
        return Ok(message);
    }
    if let Some(profiled) = profiles::decode(line) {
        return Ok(FromWorker::Profiled(profiled));
    }
    // It may be long, and is parsed on another thread.
    if line.starts_with(prom_client::ANSWER) {
        return Ok(FromWorker::User);
    }
    // The reason may quote the line, which may be huge or contain terminal escapes.
    let bad = |reason: String| {
        let reason = reason.chars().filter(|c| !c.is_control()).take(BAD_LINE_REASON_CHARS_MAX).collect();
        BadLine { reason, beginning: shown(line) }
    };
    match line.first() {
        // `process.send` of something other than an object.
        Some(b'"') if line == b"\"ready\"" => return Ok(FromWorker::Ready),
        Some(b'{') => {}
        Some(_) => {
            return serde_json::from_slice::<IgnoredAny>(line)
                .map(|_| FromWorker::User)
                .map_err(|e| bad(e.to_string()));
        }
        None => return Err(bad("an empty line".to_owned())),
    }
    let envelope: Envelope<'_> = serde_json::from_slice(line).map_err(|e| bad(e.to_string()))?;
    let cmd = envelope.cmd.map_or("", RawValue::get);
    match cmd {
        "\"NODE_HANDLE_ACK\"" => return Ok(FromWorker::HandleAck),
        "\"NODE_HANDLE_NACK\"" => return Ok(FromWorker::HandleNack),
        "\"NODE_HANDLE\"" | "\"NODE_CLUSTER\"" => {}
        other if other.starts_with("\"NODE_") => return Ok(FromWorker::OtherInternal(other.to_owned())),
        _ => return Ok(FromWorker::User),
    }
    let internal: Internal<'_> = serde_json::from_slice(line).map_err(|e| bad(e.to_string()))?;
    if cmd == "\"NODE_HANDLE\"" {
        return Ok(FromWorker::Handle { kind: internal.kind.unwrap_or_default() });
    }
    decode_cluster(internal).map_err(|e| bad(e.to_string()))
}

/// Decodes the head of a line whose rest was dropped.
///
/// # Errors
/// Not the beginning of JSON, or of an internal message that must not be so long.
pub fn decode_head(head: &[u8]) -> Result<FromWorker, BadLine> {
    let bad = |reason: &str| BadLine { reason: reason.to_owned(), beginning: shown(head) };
    match head.first() {
        Some(b'{') => {}
        Some(b'"' | b'[' | b'-' | b'0'..=b'9') => return Ok(FromWorker::User),
        Some(_) | None => return Err(bad("expected value")),
    }
    let mut cmd = None;
    let mut json = serde_json::Deserializer::from_slice(head);
    match (&mut json).deserialize_map(HeadFields(&mut cmd)) {
        Err(e) if !e.is_eof() => return Err(bad("it is not JSON")),
        Ok(()) | Err(_) => {}
    }
    match cmd.map_or("", RawValue::get) {
        "\"NODE_HANDLE\"" => Ok(FromWorker::Handle { kind: String::new() }),
        "\"NODE_CLUSTER\"" => Err(bad("an internal message that is too long")),
        other if other.starts_with("\"NODE_") => Ok(FromWorker::OtherInternal(other.to_owned())),
        _ => Ok(FromWorker::User),
    }
}

/// Finds `cmd` in a truncated object.
struct HeadFields<'a, 'de>(&'a mut Option<&'de RawValue>);

impl<'de> Visitor<'de> for HeadFields<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        while let Some(IsCmd(is_cmd)) = fields.next_key()? {
            if is_cmd {
                *self.0 = Some(fields.next_value()?);
            } else {
                fields.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// An invalid field of an internal message.
#[derive(Debug, Error)]
enum BadField {
    #[error("close without a key")]
    CloseWithoutKey,
    #[error("unknown addressType {0}")]
    AddressType(String),
    #[error("an address or data that is too long")]
    TooLong,
}

fn decode_cluster(m: Internal<'_>) -> Result<FromWorker, BadField> {
    if let Some(ack) = m.ack {
        return Ok(FromWorker::Answer { ack, accepted: m.accepted });
    }
    let seq = m.seq.unwrap_or(0);
    match m.act.as_deref() {
        Some("online") => Ok(FromWorker::Online { seq }),
        Some("queryServer") => Ok(FromWorker::QueryServer { seq, query: decode_query(m)? }),
        Some("listening") => Ok(FromWorker::Listening { seq }),
        Some("close") => Ok(FromWorker::Close { seq, key: m.key.ok_or(BadField::CloseWithoutKey)? }),
        Some("exitedAfterDisconnect") => Ok(FromWorker::ExitedAfterDisconnect { seq }),
        Some(other) => Ok(FromWorker::OtherInternal(other.to_owned())),
        None => Ok(FromWorker::OtherInternal(String::new())),
    }
}

fn decode_query(m: Internal<'_>) -> Result<Query, BadField> {
    let address_type = match m.address_type.map_or("4", RawValue::get) {
        "4" | "null" => AddressType::Tcp4,
        "6" => AddressType::Tcp6,
        "-1" => AddressType::Unix,
        "\"udp4\"" => AddressType::Udp4,
        "\"udp6\"" => AddressType::Udp6,
        other => return Err(BadField::AddressType(other.to_owned())),
    };
    let data = m.data.map(RawValue::get).filter(|data| *data != "null").map(str::to_owned);
    let long = m.address.as_ref().map_or(0, String::len) > limits::LISTENER_KEY_BYTES_MAX;
    if long || data.as_ref().map_or(0, String::len) > limits::LISTENER_DATA_BYTES_MAX {
        return Err(BadField::TooLong);
    }
    Ok(Query {
        address: m.address,
        port: m.port.and_then(number).unwrap_or(0),
        address_type,
        fd: m.fd,
        flags: m.flags.unwrap_or(0),
        // As in Node, only `true` counts.
        readable_all: m.readable_all.is_some_and(|typed| typed.get() == "true"),
        writable_all: m.writable_all.is_some_and(|typed| typed.get() == "true"),
        client_first: m.client_first.is_some_and(|typed| typed.get() == "true"),
        refuses: m.refuses.is_some_and(|typed| typed.get() == "true"),
        backlog: m.backlog.and_then(number),
        index: m.index.unwrap_or(0),
        data,
    })
}

/// A number that Node passes on as the app typed it: `listen(80, "::1")` sends `"backlog":false`, and an app may put
/// its port in quotes. Anything but a number counts as missing.
fn number(typed: &RawValue) -> Option<i64> {
    let text = typed.get().trim_matches('"');
    text.parse().ok().or_else(|| text.parse::<f64>().ok().map(|n| n as i64))
}

/// The answer to a hand-off exactly as every Node prints it, without a parser:
/// `{"cmd":"NODE_CLUSTER","ack":5,"accepted":true,"seq":7}`.
#[inline]
fn decode_answer(line: &[u8]) -> Option<(u64, bool)> {
    let rest = line.strip_prefix(b"{\"cmd\":\"NODE_CLUSTER\",\"ack\":")?;
    let (ack, rest) = decode_number(rest)?;
    let rest = rest.strip_prefix(b",\"accepted\":")?;
    let (accepted, rest) = match rest.strip_prefix(b"true") {
        Some(rest) => (true, rest),
        None => (false, rest.strip_prefix(b"false")?),
    };
    let (_, rest) = decode_number(rest.strip_prefix(b",\"seq\":")?)?;
    (rest == b"}").then_some((ack, accepted))
}

/// Digits of 2^53, Node's largest exact integer.
const NUMBER_DIGITS_MAX: usize = 16;

#[inline]
pub(super) fn decode_number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    // Hand-off numbers have ten digits and more: every answer to a hand-off is decoded here.
    let first = bytes.first_chunk().and_then(|eight| eight_digits(*eight));
    let (mut value, mut digits) = first.map_or((0, 0), |value| (value, 8));
    for byte in &bytes[digits..] {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            break;
        }
        value = value * 10 + u64::from(digit);
        digits += 1;
        if digits > NUMBER_DIGITS_MAX {
            return None;
        }
    }
    (digits > 0).then(|| (value, &bytes[digits..]))
}

/// The number that these bytes are, if all of them are digits. The digits are added up in pairs, then in fours, then all.
#[inline]
fn eight_digits(bytes: [u8; 8]) -> Option<u64> {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let text = u64::from_le_bytes(bytes);
    // A digit has the high half 3, and keeps it when 6 is added. A carry out of another byte spoils that byte's own half.
    let high = EACH * 0xf0;
    if text & high != EACH * 0x30 || text.wrapping_add(EACH * 6) & high != EACH * 0x30 {
        return None;
    }
    let pairs = ((text & (EACH * 0x0f)).wrapping_mul(10 * 256 + 1) >> 8) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs.wrapping_mul(100 * 65_536 + 1) >> 16) & 0x0000_ffff_0000_ffff;
    Some(fours.wrapping_mul((10_000 << 32) + 1) >> 32)
}

/// The hand-off line of one listener, complete except for its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewconnLine {
    before: Vec<u8>,
}

impl NewconnLine {
    pub fn new(key: &str) -> NewconnLine {
        let mut before =
            br#"{"cmd":"NODE_HANDLE","type":"net.Native","msg":{"cmd":"NODE_CLUSTER","act":"newconn","key":"#.to_vec();
        push_string(&mut before, key);
        before.extend_from_slice(b",\"seq\":");
        NewconnLine { before }
    }

    /// The line of a connection that carries a state, which is JSON. Node ignores it, the worker's helper does not.
    pub fn with_state(&self, state: &str) -> NewconnLine {
        const SEQ: &[u8] = b",\"seq\":";
        let mut before = self.before.clone();
        before.truncate(before.len() - SEQ.len());
        before.extend_from_slice(b",\"clusterd\":");
        before.extend_from_slice(state.as_bytes());
        before.extend_from_slice(SEQ);
        NewconnLine { before }
    }

    /// Writes the line with this number to `out`, replacing its content.
    #[inline]
    pub fn render(&self, seq: u64, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(&self.before);
        push_number(out, seq);
        out.extend_from_slice(b"}}\n");
    }
}

/// The result of `server.address()`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SockName {
    /// IP address.
    pub address: IpAddr,
    /// Port.
    pub port: u16,
}

/// Answer to `queryServer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply<'a> {
    /// 0, or the error of `listen()` (negative).
    pub errno: i32,
    /// The listener's key.
    pub key: &'a str,
    /// Data of the first worker, as JSON.
    pub data: Option<&'a str>,
    /// The bound address.
    pub sockname: Option<&'a SockName>,
}

/// Appends the answer to `queryServer` number `ack`. With `handle` (its type) the listening fd must be attached to the
/// line: the worker then accepts by itself.
pub fn reply(out: &mut Vec<u8>, ack: u64, seq: u64, reply: &Reply<'_>, handle: Option<&str>) {
    if let Some(kind) = handle {
        out.extend_from_slice(b"{\"cmd\":\"NODE_HANDLE\",\"type\":");
        push_string(out, kind);
        out.extend_from_slice(b",\"msg\":");
    }
    out.extend_from_slice(b"{\"cmd\":\"NODE_CLUSTER\",\"errno\":");
    out.extend_from_slice(reply.errno.to_string().as_bytes());
    out.extend_from_slice(b",\"key\":");
    push_string(out, reply.key);
    out.extend_from_slice(b",\"ack\":");
    push_number(out, ack);
    out.extend_from_slice(b",\"data\":");
    out.extend_from_slice(reply.data.unwrap_or("null").as_bytes());
    if let Some(name) = reply.sockname {
        out.extend_from_slice(b",\"sockname\":{\"address\":");
        push_string(out, &name.address.to_string());
        out.extend_from_slice(b",\"family\":");
        push_string(out, if name.address.is_ipv4() { "IPv4" } else { "IPv6" });
        out.extend_from_slice(b",\"port\":");
        push_number(out, u64::from(name.port));
        out.push(b'}');
    }
    out.extend_from_slice(b",\"seq\":");
    push_number(out, seq);
    out.push(b'}');
    if handle.is_some() {
        out.push(b'}');
    }
    out.push(b'\n');
}

/// Appends a plain answer to message number `ack`.
pub fn ack(out: &mut Vec<u8>, ack: u64, seq: u64) {
    out.extend_from_slice(b"{\"cmd\":\"NODE_CLUSTER\",\"ack\":");
    push_number(out, ack);
    out.extend_from_slice(b",\"seq\":");
    push_number(out, seq);
    out.extend_from_slice(b"}\n");
}

/// Appends the order to close all servers, then the channel.
pub fn disconnect(out: &mut Vec<u8>, seq: u64) {
    out.extend_from_slice(b"{\"cmd\":\"NODE_CLUSTER\",\"act\":\"disconnect\",\"seq\":");
    push_number(out, seq);
    out.extend_from_slice(b"}\n");
}

/// Appends a message for the app itself: `process.on('message', ...)` sees this string.
pub fn user_string(out: &mut Vec<u8>, text: &str) {
    push_string(out, text);
    out.push(b'\n');
}

fn push_string(out: &mut Vec<u8>, text: &str) {
    // A string always has a JSON form, and writing to a Vec cannot fail.
    if serde_json::to_writer(&mut *out, text).is_err() {
        out.extend_from_slice(b"\"\"");
    }
}

pub(super) fn push_number(out: &mut Vec<u8>, n: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_length_are_read_and_nothing_else() {
        for digits in 1..=NUMBER_DIGITS_MAX {
            for text in ["9".repeat(digits), "1234567890123456"[..digits].to_owned(), "0".repeat(digits)] {
                let line = format!("{text},rest");
                assert_eq!(decode_number(line.as_bytes()), Some((text.parse().unwrap(), &b",rest"[..])), "{text}");
                assert_eq!(decode_number(text.as_bytes()), Some((text.parse().unwrap(), &b""[..])), "{text}");
            }
        }
        assert_eq!(decode_number("1".repeat(17).as_bytes()), None);
        assert_eq!(decode_number(b""), None);
        for byte in (0..=u8::MAX).filter(|byte| !byte.is_ascii_digit()) {
            for at in 0..8 {
                let mut bytes = *b"12345678";
                bytes[at] = byte;
                let before = (at > 0).then(|| ("12345678"[..at].parse().unwrap(), &bytes[at..]));
                assert_eq!(decode_number(&bytes), before, "{byte} at {at}");
            }
        }
    }

    #[test]
    fn answers_are_read_without_a_parser_and_with_one() {
        let plain = br#"{"cmd":"NODE_CLUSTER","ack":4294967297,"accepted":true,"seq":7}"#;
        assert_eq!(decode_answer(plain), Some((4_294_967_297, true)));
        let spaced = br#"{"cmd":"NODE_CLUSTER","accepted":false,"ack":5,"seq":7}"#;
        assert_eq!(decode_answer(spaced), None);
        assert_eq!(decode(spaced).unwrap(), FromWorker::Answer { ack: 5, accepted: Some(false) });
    }

    #[test]
    fn a_query_is_read_with_null_missing_and_odd_fields() {
        let line = br#"{"cmd":"NODE_CLUSTER","act":"queryServer","index":0,"data":null,"address":null,"port":0,"addressType":4,"fd":null,"flags":0,"backlog":511,"seq":2}"#;
        let FromWorker::QueryServer { seq: 2, query } = decode(line).unwrap() else { panic!("not a query") };
        assert_eq!((query.address.as_deref(), query.port, query.backlog), (None, 0, Some(511)));
        assert!(!query.client_first && !query.refuses);
        assert_eq!(query.key(), "null:0:4::0");
        let host = br#"{"cmd":"NODE_CLUSTER","act":"queryServer","index":0,"data":null,"address":"::1","port":"80","addressType":6,"backlog":false,"clientFirst":true,"refuses":true,"seq":2}"#;
        let FromWorker::QueryServer { query, .. } = decode(host).unwrap() else { panic!("not a query") };
        assert_eq!((query.key().as_str(), query.backlog), ("::1:80:6::0", None));
        assert!(query.client_first && query.refuses);
        let udp = br#"{"cmd":"NODE_CLUSTER","act":"queryServer","address":"0.0.0.0","port":53,"addressType":"udp4","flags":0,"data":{"a":1},"seq":3}"#;
        let FromWorker::QueryServer { query, .. } = decode(udp).unwrap() else { panic!("not a query") };
        assert_eq!((query.address_type, query.data.as_deref()), (AddressType::Udp4, Some("{\"a\":1}")));
        assert!(decode(br#"{"cmd":"NODE_CLUSTER","act":"queryServer","addressType":9,"seq":3}"#).is_err());
    }

    #[test]
    fn the_head_of_a_long_line_says_what_it_is() {
        assert_eq!(decode_head(b"{\"big\":\"xxx"), Ok(FromWorker::User));
        assert_eq!(decode_head(b"{\"cmd\":\"other\",\"big\":\"xxx\\"), Ok(FromWorker::User));
        assert_eq!(decode_head(b"[[1],[2"), Ok(FromWorker::User));
        assert_eq!(decode_head(b"\"xxx"), Ok(FromWorker::User));
        let handle = decode_head(b"{\"cmd\":\"NODE_HANDLE\",\"type\":\"net.Socket\",\"msg\":{\"big\":\"xxx");
        assert!(matches!(handle, Ok(FromWorker::Handle { .. })), "{handle:?}");
        let other = decode_head(b"{\"a\":{\"b\":[1]},\"cmd\":\"NODE_FOO\",\"big\":\"xxx");
        assert!(matches!(other, Ok(FromWorker::OtherInternal(_))), "{other:?}");
        let query = b"{\"cmd\":\"NODE_CLUSTER\",\"act\":\"queryServer\",\"x";
        for wrong in [&b"xxx"[..], b"", b"{xxx", b"{\"a\":x", query] {
            assert!(decode_head(wrong).is_err(), "{}", wrong.escape_ascii());
        }
    }

    #[test]
    fn user_messages_are_told_from_internal_ones() {
        assert_eq!(decode(b"\"ready\"").unwrap(), FromWorker::Ready);
        assert_eq!(decode(b"[1,2]").unwrap(), FromWorker::User);
        assert_eq!(decode(b"{\"cmd\":\"mine\"}").unwrap(), FromWorker::User);
        assert_eq!(decode(b"{\"cmd\":{\"x\":1}}").unwrap(), FromWorker::User);
        // A JavaScript string may contain half a surrogate pair.
        assert_eq!(decode(br#"{"\ud800":1}"#).unwrap(), FromWorker::User);
        assert_eq!(decode(b"{\"cmd\":\"NODE_HANDLE_ACK\"}").unwrap(), FromWorker::HandleAck);
        assert!(matches!(decode(b"{\"cmd\":\"NODE_OTHER\"}").unwrap(), FromWorker::OtherInternal(_)));
    }

    #[test]
    fn garbage_is_an_error_that_shows_the_beginning() {
        let error = decode(b"hello \x1b[31m there").unwrap_err().to_string();
        assert!(error.contains("\"hello \\x1b[31m there\""), "{error}");
        assert!(decode(b"").is_err());
        let quoted = format!(
            "{{\"cmd\":\"NODE_CLUSTER\",\"act\":\"queryServer\",\"addressType\":\"{}\"}}",
            "\u{9b}31m".repeat(9_999)
        );
        let error = decode(quoted.as_bytes()).unwrap_err().to_string();
        assert!(error.len() < 500 && !error.contains('\u{9b}'), "{error}");
        assert!(decode(b"{\"cmd\":\"NODE_CLUSTER\",\"act\":7}").is_err());
    }

    #[test]
    fn lines_are_what_node_expects() {
        let mut out = Vec::new();
        NewconnLine::new("a\"b").render(12, &mut out);
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value["msg"]["key"], "a\"b");
        assert_eq!(value["msg"]["seq"], 12);
        out.clear();
        let name = SockName { address: "::".parse().unwrap(), port: 80 };
        reply(&mut out, 3, 4, &Reply { errno: -98, key: "k", data: None, sockname: Some(&name) }, Some("net.Native"));
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value["msg"]["sockname"]["family"], "IPv6");
        assert_eq!((&value["msg"]["errno"], &value["msg"]["ack"]), (&(-98).into(), &3.into()));
        assert_eq!(out.iter().filter(|&&b| b == b'\n').count(), 1);
    }
}
