//! Node's inspector protocol, as far as needed to locate a stuck event loop: HTTP and WebSocket over one connection
//! each, and three messages. Pure: bytes in, bytes out, bounded; `reports` has the socket.
//!
//! A frame longer than any that is used here (the source map of a script) is skipped, not kept.
use serde::Deserialize;
use serde_json::{Value, json};

/// Longest message of the inspector that is parsed, in bytes; longer ones are skipped.
pub(crate) const INSPECTOR_FRAME_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Size of an inspector's answer over HTTP, in bytes.
pub(crate) const INSPECTOR_ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Calls of a stack that are logged.
pub const INSPECTOR_FRAMES_TOLD_MAX: usize = 4;

/// Requests the list of targets. Node answers it only where the user opened the inspector to all.
pub const LIST_REQUEST: &[u8] = b"GET /json/list HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";
/// Longest accepted target name, in bytes. Node's are UUIDs.
const TARGET_BYTES_MAX: usize = 64;

/// The state of an HTTP answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<T> {
    /// Incomplete.
    More,
    /// The result, and its length in bytes.
    Whole(T, usize),
    /// Not an inspector's answer.
    Foreign,
}

/// The body of an HTTP answer with this status, from its bytes so far.
fn body_of<'a>(bytes: &'a [u8], status: &str) -> Answer<&'a [u8]> {
    if bytes.len() > INSPECTOR_ANSWER_BYTES_MAX {
        return Answer::Foreign;
    }
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Answer::More };
    let Ok(head) = std::str::from_utf8(&bytes[..end]) else { return Answer::Foreign };
    let mut lines = head.split("\r\n");
    if lines.next().and_then(|line| line.split(' ').nth(1)) != Some(status) {
        return Answer::Foreign;
    }
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>())
    });
    let length = match length {
        None => 0,
        Some(Ok(length)) if length <= INSPECTOR_ANSWER_BYTES_MAX => length,
        Some(_) => return Answer::Foreign,
    };
    let start = end + 4;
    match bytes.get(start..start + length) {
        Some(body) => Answer::Whole(body, start + length),
        None => Answer::More,
    }
}

/// The first target in the answer to [`LIST_REQUEST`], from its bytes so far.
pub fn target(bytes: &[u8]) -> Answer<String> {
    #[derive(Deserialize)]
    struct Target {
        id: String,
    }
    let (body, length) = match body_of(bytes, "200") {
        Answer::Whole(body, length) => (body, length),
        Answer::More => return Answer::More,
        Answer::Foreign => return Answer::Foreign,
    };
    let first = serde_json::from_slice::<Vec<Target>>(body).ok().and_then(|all| all.into_iter().next());
    match first {
        Some(Target { id }) if is_target(&id) => Answer::Whole(id, length),
        _ => Answer::Foreign,
    }
}

/// The port and the target that Node names on stderr: `Debugger listening on ws://127.0.0.1:9229/UUID`.
#[must_use]
pub fn announced(line: &str) -> Option<(u16, String)> {
    let (host, target) = line.trim_end().strip_prefix("Debugger listening on ws://")?.split_once('/')?;
    let port = host.rsplit_once(':')?.1.parse().ok()?;
    is_target(target).then(|| (port, target.to_owned()))
}

fn is_target(id: &str) -> bool {
    !id.is_empty() && id.len() <= TARGET_BYTES_MAX && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// The request to connect to this target.
#[must_use]
pub fn upgrade_request(target: &str) -> Vec<u8> {
    // The key only shows that the other side speaks WebSocket; it is not a secret.
    format!(
        "GET /{target} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: Y2x1c3RlcmQtaGFuZy1sb29r\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    .into_bytes()
}

/// Whether the upgrade was accepted; frames follow.
#[must_use]
pub fn upgraded(bytes: &[u8]) -> Answer<()> {
    match body_of(bytes, "101") {
        Answer::Whole(_, length) => Answer::Whole((), length),
        Answer::More => Answer::More,
        Answer::Foreign => Answer::Foreign,
    }
}

// ---- messages ----

/// Pauses the program. The number of the answer does not matter.
#[must_use]
pub fn pause() -> Vec<u8> {
    let enable = frame(&json!({ "id": 1, "method": "Debugger.enable" }));
    let pause = frame(&json!({ "id": 2, "method": "Debugger.pause" }));
    [enable, pause].concat()
}

/// Number of the answer to [`write_report`].
const REPORT_ID: u64 = 3;

/// Requests a report, to be written where the program is paused: its file, and the call stack.
#[must_use]
pub fn write_report(call_frame: &str, directory: Option<&str>) -> Vec<u8> {
    // Left out where this version of Node supports it: secrets, and names that need a lookup.
    let code = format!(
        "(() => {{ const r = globalThis.process.report; const d = {}; let file = null, why = null; \
         const stack = String(new Error('stack').stack); try {{ if (d !== null) r.directory = d; r.excludeEnv = true; \
         r.excludeNetwork = true; file = r.writeReport(); }} catch (e) {{ why = String(e); }} \
         const cwd = globalThis.process.cwd(), at = r.directory || cwd; \
         return JSON.stringify({{ file, why, stack, directory: at[0] === '/' ? at : cwd + '/' + at }}); }})()",
        json!(directory)
    );
    let params = json!({ "callFrameId": call_frame, "expression": code, "silent": true, "returnByValue": true });
    frame(&json!({ "id": REPORT_ID, "method": "Debugger.evaluateOnCallFrame", "params": params }))
}

/// A message of the debugger, as far as it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// The program is paused, in this call.
    Paused(String),
    /// The report was written, or not.
    Report(Written),
    /// The debugger refused.
    Refused(String),
    /// Something else.
    Other,
}

/// The result of a report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Absolute path of the file.
    pub file: Option<String>,
    /// Why there is none.
    pub why: Option<String>,
    /// The call stack, innermost first: `blockingHandler (/srv/app.js:3:20)`.
    pub stack: Vec<String>,
}

/// Parses one message.
#[must_use]
pub fn said(text: &[u8]) -> Said {
    let Ok(message) = serde_json::from_slice::<Value>(text) else { return Said::Other };
    if message["method"] == "Debugger.paused" {
        return match message["params"]["callFrames"][0]["callFrameId"].as_str() {
            Some(frame) => Said::Paused(frame.to_owned()),
            None => Said::Refused("the program stands outside of JavaScript".to_owned()),
        };
    }
    if let Some(why) = message["error"]["message"].as_str() {
        return Said::Refused(tidy(why));
    }
    if message["id"] != REPORT_ID {
        return Said::Other;
    }
    let value = &message["result"]["result"]["value"];
    match value.as_str().and_then(|text| serde_json::from_str::<Value>(text).ok()) {
        Some(value) => Said::Report(written(&value)),
        None => Said::Refused("the report's code failed".to_owned()),
    }
}

fn written(value: &Value) -> Written {
    let text = |key: &str| value[key].as_str().map(tidy);
    let file = text("file").map(|file| match text("directory") {
        Some(directory) if !file.starts_with('/') => format!("{}/{file}", directory.trim_end_matches('/')),
        _ => file,
    });
    let stack = value["stack"].as_str().unwrap_or_default();
    // The frames above the program's own are ours.
    let calls = stack.lines().filter_map(|line| line.trim().strip_prefix("at "));
    let theirs: Vec<&str> =
        calls.filter(|call| !call.contains("<anonymous>:1:") && !call.starts_with("eval (eval at")).collect();
    let stack = without_opening(&theirs).iter().take(INSPECTOR_FRAMES_TOLD_MAX).map(|call| tidy(call)).collect();
    Written { file, why: text("why"), stack }
}

/// These calls without those of Node that tell the program of its new inspector: it interrupts the program for them, so
/// that a pause which comes at once stands in them (`Agent::StartIoThread` of Node's src/inspector_agent.cc emits
/// `internalMessage` on `process`, to which a worker of its cluster listens).
fn without_opening<'a>(calls: &'a [&'a str]) -> &'a [&'a str] {
    let nodes_own = calls.iter().take_while(|call| call.contains("(node:")).count();
    match calls[..nodes_own].iter().position(|call| call.starts_with("process.emit (node:events:")) {
        Some(emit) if emit + 1 < calls.len() => &calls[emit + 1..],
        _ => calls,
    }
}

/// Fits text into one line of a log.
fn tidy(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(crate::limits::HOOK_REASON_CHARS_MAX).collect()
}

// ---- frames ----

/// A message as a client's frame. The mask is zero: it would hide nothing from a peer on the same machine.
fn frame(message: &Value) -> Vec<u8> {
    let text = message.to_string();
    let mut out = vec![0x81];
    match u16::try_from(text.len()) {
        Ok(length @ 0..=125) => out.push(0x80 | length as u8),
        Ok(length) => {
            out.push(0x80 | 126);
            out.extend_from_slice(&length.to_be_bytes());
        }
        Err(_) => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(text.len() as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(text.as_bytes());
    out
}

/// Frames from the bytes of a connection.
#[derive(Debug, Default)]
pub struct Frames {
    bytes: Vec<u8>,
    /// What is left of a skipped frame.
    skip: u64,
}

/// The next frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A message.
    Text(Vec<u8>),
    /// The peer closed the connection, or broke the protocol.
    End,
}

impl Frames {
    /// Adds bytes. Holds at most one message and one read.
    pub fn push(&mut self, mut bytes: &[u8]) {
        let skipped = bytes.len().min(usize::try_from(self.skip).unwrap_or(usize::MAX));
        self.skip -= skipped as u64;
        bytes = &bytes[skipped..];
        self.bytes.extend_from_slice(bytes);
    }

    /// The next complete message; `None`: more bytes are needed.
    pub fn next_frame(&mut self) -> Option<Frame> {
        loop {
            let (&first, &second) = (self.bytes.first()?, self.bytes.get(1)?);
            // A server does not mask, and no extension was negotiated.
            if second & 0x80 != 0 || first & 0x70 != 0 {
                return Some(Frame::End);
            }
            let (length, head) = match second {
                126 => (u64::from(u16::from_be_bytes(self.array(2)?)), 4),
                127 => (u64::from_be_bytes(self.array(2)?), 10),
                short => (u64::from(short), 2),
            };
            let (whole, text) = (first & 0x80 != 0, first & 0x0f == 1);
            if first & 0x0f == 8 {
                return Some(Frame::End);
            }
            if length > INSPECTOR_FRAME_BYTES_MAX as u64 || !whole || !text {
                self.drop_front(head, length);
                continue;
            }
            let end = head + length as usize;
            if self.bytes.len() < end {
                return None;
            }
            let message = self.bytes[head..end].to_vec();
            self.bytes.drain(..end);
            return Some(Frame::Text(message));
        }
    }

    fn array<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.bytes.get(at..at + N)?.try_into().ok()
    }

    /// Skips a frame, including bytes that have not arrived yet.
    fn drop_front(&mut self, head: usize, length: u64) {
        let here = (self.bytes.len() - head) as u64;
        let now = here.min(length);
        self.bytes.drain(..head + now as usize);
        self.skip = length - now;
    }
}

#[cfg(test)]
#[path = "inspector_tests.rs"]
mod tests;
