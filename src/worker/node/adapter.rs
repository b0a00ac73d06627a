//! Messages of socket.io's cluster adapter (`@socket.io/cluster-adapter`) between the workers of an app. Its `setupPrimary()`
//! would pass them on in a primary of Node; the master does that here. Only the fields that say where a message goes are read.
use serde_json::value::RawValue;
use std::borrow::Cow;

/// What the adapter writes into each of its messages.
const SOURCE: &[u8] = b"\"_sio_adapter\"";

/// The answers that one worker waits for: to `fetchSockets()`, and to `serverSideEmit()` with a callback. Others go to all.
const ANSWERS: [&str; 2] = ["8", "10"];

/// Longest id of an adapter that is remembered, in bytes.
const UID_BYTES_MAX: usize = 64;

/// A message of the adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdapterMessage<'a> {
    /// The adapter that sent it: one for each namespace of a worker.
    pub uid: Option<Cow<'a, str>>,
    /// The adapter that waits for it; `None`: it is for all others.
    pub receiver: Option<Cow<'a, str>>,
}

#[derive(serde::Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    source: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    uid: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "requesterUid")]
    requester: Option<Cow<'a, str>>,
}

/// Decodes a user's line; `None`: it is not one of the adapter's.
pub fn decode(line: &[u8]) -> Option<AdapterMessage<'_>> {
    // Most lines are not, and need not be parsed.
    memchr::memmem::find(line, SOURCE)?;
    let fields: Fields<'_> = serde_json::from_slice(line.trim_ascii()).ok()?;
    if fields.source.as_deref() != Some("_sio_adapter") {
        return None;
    }
    let is_answer = fields.kind.is_some_and(|kind| ANSWERS.contains(&kind.get()));
    let uid = fields.uid.filter(|uid| uid.len() <= UID_BYTES_MAX);
    Some(AdapterMessage { uid, receiver: fields.requester.filter(|_| is_answer) })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_broadcast_is_for_all_others_and_an_answer_for_who_waits() {
        let all = decode(br#"{"uid":"a1","nsp":"/","type":3,"data":{"x":1},"source":"_sio_adapter"}"#).unwrap();
        assert_eq!((all.uid.as_deref(), all.receiver), (Some("a1"), None));
        for kind in [8, 10] {
            let line =
                format!(r#"{{"uid":"b","type":{kind},"data":{{}},"source":"_sio_adapter","requesterUid":"a1"}}"#);
            assert_eq!(decode(line.as_bytes()).unwrap().receiver.as_deref(), Some("a1"));
        }
        // The adapter sends this answer to all: the one that waits picks it.
        let ack = decode(br#"{"uid":"b","type":12,"source":"_sio_adapter","requesterUid":"a1"}"#).unwrap();
        assert_eq!(ack.receiver, None);
        let long = format!(r#"{{"uid":"{}","type":2,"source":"_sio_adapter"}}"#, "x".repeat(UID_BYTES_MAX + 1));
        assert_eq!(decode(long.as_bytes()).unwrap().uid, None);
    }

    #[test]
    fn other_messages_are_left_alone() {
        for line in [
            r#"{"source":"other","type":3}"#,
            r#"{"type":3,"data":"_sio_adapter"}"#,
            r#"{"source":["_sio_adapter"],"type":3}"#,
            r#"{"source":"_sio_adapter""#,
            r#""_sio_adapter""#,
            "7",
        ] {
            assert_eq!(decode(line.as_bytes()), None, "{line}");
        }
    }
}
