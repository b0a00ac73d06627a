//! Lines between the master and the preload (`preload.cjs`), in the form of Node's. `lines` has those of Node itself.
use super::lines::{FromWorker, decode_number, push_number};
use serde_json::value::RawValue;

/// Told to the preload: the worker leaves, and gives its connections to others.
pub const MOVE: &[u8] = b"{\"cmd\":\"NODE_CLUSTERD\",\"act\":\"move\"}\n";
/// Told to the preload: the worker ends its connections, because no other worker is left.
pub const END: &[u8] = b"{\"cmd\":\"NODE_CLUSTERD\",\"act\":\"end\"}\n";
/// Told to the preload by a new master, once it has read the channel: what was not acknowledged until then never will be, except what
/// was sent at that time, or was too much for one reading.
pub const RESUMED: &[u8] = b"{\"cmd\":\"NODE_CLUSTERD\",\"act\":\"resumed\"}\n";
/// Asks the preload how many connections the worker keeps.
pub const COUNT: &[u8] = b"{\"cmd\":\"NODE_CLUSTERD\",\"act\":\"count\"}\n";
/// How the preload answers that; the number and a brace follow.
const KEPT: &[u8] = br#"{"cmd":"NODE_CLUSTERD","act":"kept","count":"#;
/// How the preload sends a connection, with its fd.
const MOVED: &[u8] = br#"{"cmd":"NODE_HANDLE","type":"net.Native","msg":{"cmd":"NODE_CLUSTERD","act":"moved"}}"#;
/// Begin and end of the line with which it sends a connection that carries a state, which stands between them as JSON.
const UPGRADED: (&[u8], &[u8]) =
    (br#"{"cmd":"NODE_HANDLE","type":"net.Native","msg":{"cmd":"NODE_CLUSTERD","act":"moved","state":"#, b"}}");
/// How the preload says that the worker takes connections that carry a state.
const TAKES: &[u8] = br#"{"cmd":"NODE_CLUSTERD","act":"takes"}"#;
/// Told to the preload of a connection that carries a state: another worker has it.
pub const TAKEN: &[u8] = b"{\"cmd\":\"NODE_CLUSTERD\",\"act\":\"taken\"}\n";
/// The same where nobody can take it, and the worker keeps it.
pub const STAYS: &[u8] = b"{\"cmd\":\"NODE_CLUSTERD\",\"act\":\"stays\"}\n";
/// How the preload asks a new master whether it has read all that was sent before; the number and a brace follow.
const SYNC: &[u8] = br#"{"cmd":"NODE_CLUSTERD","act":"sync","nth":"#;
/// Largest state of a connection, in bytes of JSON: a hand-off with it is still one piece for the kernel (32 KiB and a page), and
/// is sent whole or not at all.
pub const STATE_BYTES_MAX: usize = 30 * 1024;
/// How the preload says that it is loaded.
const HELLO: &[u8] = br#"{"cmd":"NODE_CLUSTERD","act":"hello"}"#;

/// Decodes a line of the preload, exactly as Node prints it; `None`: it is somebody else's.
pub(super) fn decode(line: &[u8]) -> Option<FromWorker> {
    if line == MOVED {
        return Some(FromWorker::Moved);
    }
    if line == HELLO {
        return Some(FromWorker::Hello);
    }
    if line == TAKES {
        return Some(FromWorker::Takes);
    }
    if let Some(state) = line.strip_prefix(UPGRADED.0).and_then(|rest| rest.strip_suffix(UPGRADED.1)) {
        return Some(FromWorker::Upgraded { state: decode_state(state) });
    }
    if let Some(nth) = decode_count(SYNC, line) {
        return Some(FromWorker::Sync { nth });
    }
    decode_count(KEPT, line).map(|count| FromWorker::Kept { count })
}

/// The number at the end of a line that begins so, as the preload prints it.
fn decode_count(begin: &[u8], line: &[u8]) -> Option<u32> {
    let (count, rest) = decode_number(line.strip_prefix(begin)?)?;
    u32::try_from(count).ok().filter(|_| rest == b"}")
}

/// The state of a connection, if it is one JSON value of a size that can be handed on.
fn decode_state(state: &[u8]) -> Option<Box<str>> {
    if state.len() > STATE_BYTES_MAX {
        return None;
    }
    serde_json::from_slice::<Box<RawValue>>(state).ok().map(Box::<str>::from)
}

/// Tells the preload to give back `count` connections that rest, of the `of` oldest ones.
pub fn give(out: &mut Vec<u8>, count: u32, of: u32) {
    out.extend_from_slice(br#"{"cmd":"NODE_CLUSTERD","act":"give","count":"#);
    push_number(out, u64::from(count));
    out.extend_from_slice(br#","of":"#);
    push_number(out, u64::from(of));
    out.extend_from_slice(b"}\n");
}

/// Tells the preload that everything was read that it had sent before its question of this number, and answered.
pub fn synced(out: &mut Vec<u8>, nth: u32) {
    out.extend_from_slice(br#"{"cmd":"NODE_CLUSTERD","act":"synced","nth":"#);
    push_number(out, u64::from(nth));
    out.extend_from_slice(b"}\n");
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::lines;
    use super::*;

    #[test]
    fn a_connection_is_given_back_with_its_state() {
        let line = |state: &str| [UPGRADED.0, state.as_bytes(), UPGRADED.1].concat();
        let decoded = |state: &str| match lines::decode(&line(state)) {
            Ok(FromWorker::Upgraded { state }) => state,
            other => panic!("{other:?}"),
        };
        let state = r#"{"a":[1,"}}"]}"#;
        assert_eq!(decoded(state).as_deref(), Some(state));
        // What is no JSON could break the line of the next worker.
        assert_eq!((decoded(r#"1,"x":2"#), decoded("")), (None, None));
        let long = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
        assert!(decoded(&long(STATE_BYTES_MAX)).is_some() && decoded(&long(STATE_BYTES_MAX + 1)).is_none());
        assert_eq!(lines::decode(MOVED), Ok(FromWorker::Moved));
        assert_eq!(lines::decode(TAKES), Ok(FromWorker::Takes));
        let mut out = Vec::new();
        lines::NewconnLine::new("a\"b").with_state(state).render(12, &mut out);
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!((&value["msg"]["key"], &value["msg"]["seq"]), (&"a\"b".into(), &12.into()));
        assert_eq!(value["msg"]["clusterd"]["a"][1], "}}");
    }
}
