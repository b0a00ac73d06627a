//! Messages between an app's agent and its workers: decodes the receiver of a line, and encodes the line for the
//! receiver. Two formats: egg's (`{action, data, to}` or `{action, data, receiverPid}`), and clusterd's own
//! (`{clusterd: {to}, message}`). The master delivers them.
use crate::limits;
use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;

/// The receiver of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    Agent,
    /// Every worker of the app.
    Workers,
    /// One ready worker, in turn.
    Random,
    Slot(u32),
    /// The process with this pid.
    Pid(i32),
    /// egg's `master` or `parent`: ignored, except for [`Message::is_agent_start`].
    Master,
}

/// The sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    Agent,
    Worker {
        slot: u32,
        /// Its process.
        pid: i32,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Its receiver.
    pub to: To,
    form: Form<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form<'a> {
    /// The line as received.
    Egg { line: &'a [u8], action: &'a str },
    /// Its JSON, and the id that the sender gave it.
    Own { message: &'a str, id: Option<&'a str> },
}

/// An invalid message in clusterd's format; the sender is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadMessage<'a> {
    why: &'static str,
    id: Option<&'a str>,
}

impl fmt::Display for BadMessage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.why)
    }
}

/// The fields of both formats that are used. Others are passed on in egg's format.
#[derive(serde::Deserialize)]
struct Fields<'a> {
    #[serde(default, borrow)]
    cmd: Option<&'a RawValue>,
    #[serde(default, borrow)]
    action: Option<&'a RawValue>,
    #[serde(default, borrow)]
    to: Option<&'a RawValue>,
    #[serde(default, rename = "receiverPid", borrow)]
    receiver_pid: Option<&'a RawValue>,
    #[serde(default, borrow)]
    clusterd: Option<&'a RawValue>,
    #[serde(default, borrow)]
    message: Option<&'a RawValue>,
}

/// `clusterd` in clusterd's own format.
#[derive(serde::Deserialize)]
struct Own<'a> {
    #[serde(default, borrow)]
    to: Option<&'a RawValue>,
    #[serde(default, borrow)]
    id: Option<&'a RawValue>,
}

/// One process, in clusterd's format.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct One {
    slot: Option<u32>,
    pid: Option<i32>,
}

/// Decodes a user's line as a message; `None` if it is not one. `from_agent`: egg's messages without a receiver go to
/// the other side.
///
/// # Errors
/// An invalid message in clusterd's format.
pub fn decode(line: &[u8], from_agent: bool) -> Option<Result<Message<'_>, BadMessage<'_>>> {
    let line = line.trim_ascii();
    if line.first() != Some(&b'{') {
        return None;
    }
    let fields: Fields<'_> = serde_json::from_slice(line).ok()?;
    // However it is escaped, Node would read it as an internal message, and the receiver as one of the master's.
    let is_text = |raw: &&RawValue| raw.get().starts_with('"');
    if let Some(cmd) = fields.cmd.filter(is_text)
        && serde_json::from_str::<String>(cmd.get()).map_or(true, |cmd| cmd.starts_with("NODE_"))
    {
        return None;
    }
    if let Some(own) = fields.clusterd {
        return Some(decode_own(own, fields.message));
    }
    let action = fields.action.map(RawValue::get).filter(|action| action.starts_with('"'))?;
    let to = match (fields.receiver_pid.map(RawValue::get), fields.to.map(RawValue::get)) {
        (Some(pid), _) if pid != "null" => match pid.trim_matches('"').parse() {
            Ok(pid) => To::Pid(pid),
            Err(_) => return None,
        },
        (_, Some("\"agent\"")) => To::Agent,
        (_, Some("\"app\"")) => To::Workers,
        (_, None | Some("null" | "\"\"")) if from_agent => To::Workers,
        (_, None | Some("null" | "\"\"")) => To::Agent,
        (_, Some(_)) => To::Master,
    };
    Some(Ok(Message { to, form: Form::Egg { line, action } }))
}

/// The same for the head of a line that is too long to relay: only a sender that wants an answer matters, and only if
/// it says so before the message.
pub fn decode_head(head: &[u8]) -> Option<Result<Message<'_>, BadMessage<'_>>> {
    let mut own = None;
    let mut json = serde_json::Deserializer::from_slice(head);
    // The line is truncated, so an error is expected.
    let _ = (&mut json).deserialize_map(HeadFields(&mut own));
    own.map(|own| decode_own(own, None))
}

/// Finds `clusterd` in a truncated object.
struct HeadFields<'a, 'de>(&'a mut Option<&'de RawValue>);

impl<'de> Visitor<'de> for HeadFields<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        while let Some(key) = fields.next_key::<String>()? {
            if key == "clusterd" {
                *self.0 = Some(fields.next_value()?);
            } else {
                fields.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

fn decode_own<'a>(own: &'a RawValue, message: Option<&'a RawValue>) -> Result<Message<'a>, BadMessage<'a>> {
    const WHERE: &str = "clusterd.to must be \"agent\", \"all\", \"random\", {\"slot\": N} or {\"pid\": N}";
    let bad = |why, id| BadMessage { why, id };
    let own: Own<'_> = serde_json::from_str(own.get()).map_err(|_| bad(WHERE, None))?;
    let id = own.id.map(RawValue::get).filter(|id| id.len() <= limits::MESSAGE_ID_BYTES_MAX);
    let to = match own.to.map_or("", RawValue::get) {
        "\"agent\"" => To::Agent,
        "\"all\"" => To::Workers,
        "\"random\"" => To::Random,
        other => match serde_json::from_str(other) {
            Ok(One { slot: Some(slot), pid: None }) => To::Slot(slot),
            Ok(One { slot: None, pid: Some(pid) }) => To::Pid(pid),
            Ok(One { .. }) | Err(_) => return Err(bad(WHERE, id)),
        },
    };
    Ok(Message { to, form: Form::Own { message: message.map_or("null", RawValue::get), id } })
}

impl<'a> Message<'a> {
    /// Whether egg's agent announces that it is ready.
    pub fn is_agent_start(&self) -> bool {
        matches!(self.form, Form::Egg { action: "\"agent-start\"", .. }) && self.to == To::Master
    }

    /// Whether the sender wants to know that it reached nobody: true for clusterd's format.
    pub fn wants_answer(&self) -> bool {
        matches!(self.form, Form::Own { .. })
    }

    /// Appends the line for the receiver. The sender in it is the real one, whatever the message says.
    pub fn render(&self, from: From, out: &mut Vec<u8>) {
        match self.form {
            Form::Egg { line, .. } => {
                // It is an object that has at least the action.
                out.extend_from_slice(line.strip_suffix(b"}").unwrap_or(line));
                out.extend_from_slice(match from {
                    From::Agent => b",\"from\":\"agent\"}\n",
                    From::Worker { .. } => b",\"from\":\"app\"}\n",
                });
            }
            Form::Own { message, .. } => {
                out.extend_from_slice(b"{\"clusterd\":{\"from\":");
                let from = match from {
                    From::Agent => "\"agent\"".to_owned(),
                    From::Worker { slot, pid } => format!("{{\"slot\":{slot},\"pid\":{pid}}}"),
                };
                out.extend_from_slice(from.as_bytes());
                out.extend_from_slice(b"},\"message\":");
                out.extend_from_slice(message.as_bytes());
                out.extend_from_slice(b"}\n");
            }
        }
    }

    /// Appends the line that tells the sender how many receivers missed the message.
    pub fn render_undelivered(&self, missed: usize, why: &str, out: &mut Vec<u8>) {
        let id = match self.form {
            Form::Own { id, .. } => id,
            Form::Egg { .. } => None,
        };
        undelivered(missed, why, id, out);
    }
}

impl BadMessage<'_> {
    /// Appends the line that tells the sender.
    pub fn render(&self, out: &mut Vec<u8>) {
        undelivered(0, self.why, self.id, out);
    }
}

fn undelivered(missed: usize, why: &str, id: Option<&str>, out: &mut Vec<u8>) {
    let id = id.map_or_else(String::new, |id| format!("\"id\":{id},"));
    out.extend_from_slice(format!("{{\"clusterd\":{{{id}\"undelivered\":{missed},\"reason\":").as_bytes());
    out.extend_from_slice(serde_json::Value::from(why).to_string().as_bytes());
    out.extend_from_slice(b"}}\n");
}

/// Appends a message of the master in egg's format; `data` is JSON.
pub fn egg_action(action: &str, data: &serde_json::Value, out: &mut Vec<u8>) {
    let line = serde_json::json!({ "action": action, "data": data, "from": "master" });
    out.extend_from_slice(line.to_string().as_bytes());
    out.push(b'\n');
}

/// Appends an event in clusterd's format; `about` has its fields.
pub fn event(name: &str, about: serde_json::Value, out: &mut Vec<u8>) {
    let mut fields = match about {
        serde_json::Value::Object(fields) => fields,
        _ => serde_json::Map::new(),
    };
    fields.insert("event".to_owned(), name.into());
    out.extend_from_slice(serde_json::json!({ "clusterd": fields }).to_string().as_bytes());
    out.push(b'\n');
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn to(line: &str, from_agent: bool) -> Option<To> {
        decode(line.as_bytes(), from_agent).map(|message| message.unwrap().to)
    }

    fn passed_on(line: &str, from: From) -> serde_json::Value {
        let mut out = Vec::new();
        decode(line.as_bytes(), from == From::Agent).unwrap().unwrap().render(from, &mut out);
        assert_eq!(out.iter().filter(|&&b| b == b'\n').count(), 1);
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn eggs_shape_names_a_side_or_a_pid() {
        assert_eq!(to(r#"{"action":"a","data":1,"to":"app"}"#, false), Some(To::Workers));
        assert_eq!(to(r#"{"action":"a","to":"agent"}"#, false), Some(To::Agent));
        assert_eq!(to(r#"{"action":"a","data":{"to":"agent"},"receiverPid":"42"}"#, false), Some(To::Pid(42)));
        assert_eq!(to(r#"{"action":"a","to":"app","receiverPid":42}"#, false), Some(To::Pid(42)));
        assert_eq!(to(r#"{"action":"a","data":[]}"#, true), Some(To::Workers));
        assert_eq!(to(r#"{"action":"a","data":[]}"#, false), Some(To::Agent));
        let start = decode(br#"{"action":"agent-start","to":"master"}"#, true).unwrap().unwrap();
        assert!(start.is_agent_start());
    }

    #[test]
    fn what_is_no_message_is_left_alone() {
        for line in [r#""ready""#, "[1]", "{}", r#"{"type":"x"}"#, r#"{"action":7,"to":"app"}"#, "{", "nonsense"] {
            assert_eq!(decode(line.as_bytes(), true), None, "{line}");
        }
        assert_eq!(to(r#"{"action":"x","receiverPid":"none"}"#, true), None);
        // Nobody may send as the master.
        assert_eq!(to(r#"{"cmd":"\u004eODE_CLUSTER","act":"disconnect","action":"x","to":"app"}"#, false), None);
    }

    #[test]
    fn our_own_shape_names_one_process_or_all() {
        let all = [
            (r#""agent""#, To::Agent),
            (r#""all""#, To::Workers),
            (r#""random""#, To::Random),
            (r#"{"slot":3}"#, To::Slot(3)),
            (r#"{"pid":9}"#, To::Pid(9)),
        ];
        for (text, meant) in all {
            assert_eq!(to(&format!(r#"{{"clusterd":{{"to":{text}}},"message":1}}"#), true), Some(meant));
        }
        for wrong in [r#""app""#, "7", "{}", r#"{"slot":1,"pid":2}"#, r#"{"slot":-1}"#, "null"] {
            let line = format!(r#"{{"clusterd":{{"to":{wrong},"id":"x"}},"message":1}}"#);
            let bad = decode(line.as_bytes(), true).unwrap().unwrap_err();
            let mut out = Vec::new();
            bad.render(&mut out);
            let told: serde_json::Value = serde_json::from_slice(&out).unwrap();
            assert_eq!((&told["clusterd"]["id"], &told["clusterd"]["undelivered"]), (&"x".into(), &0.into()), "{line}");
        }
    }

    #[test]
    fn the_head_of_a_line_that_is_too_long_says_who_wants_an_answer() {
        let head = br#"{"clusterd":{"to":"all","id":7},"message":"xxxxxx"#;
        let message = decode_head(head).unwrap().unwrap();
        assert_eq!(message.to, To::Workers);
        let mut out = Vec::new();
        message.render_undelivered(2, "the message is too large", &mut out);
        let told: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!((&told["clusterd"]["id"], &told["clusterd"]["undelivered"]), (&7.into(), &2.into()));
        assert_eq!(decode_head(br#"{"message":"xxxxxx"#), None);
        assert_eq!(decode_head(b"\"xxxxxx"), None);
        assert_eq!(decode_head(b"{\"a\xff"), None);
    }

    #[test]
    fn the_receiver_learns_who_sent_it() {
        let value = passed_on(r#"{"action":"a","data":{"x":[1]},"to":"app","from":"master"}"#, From::Agent);
        assert_eq!((&value["from"], &value["data"]["x"][0]), (&"agent".into(), &1.into()));
        let worker = From::Worker { slot: 2, pid: 77 };
        let value = passed_on(r#"{"clusterd":{"to":"agent"},"message":{"a":"b"}}"#, worker);
        assert_eq!((&value["clusterd"]["from"]["slot"], &value["message"]["a"]), (&2.into(), &"b".into()));
        assert_eq!(passed_on(r#"{"clusterd":{"to":"agent"}}"#, worker)["message"], serde_json::Value::Null);
    }
}
