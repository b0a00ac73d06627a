//! Messages of PM2's libraries for apps (`@pm2/io`, `tx2`): actions that a worker offers, its own metrics, and answers of
//! actions. Both write `type` first, so that other lines are told apart without being parsed.
use crate::limits::{
    ACTION_REPLY_BYTES_MAX, ACTIONS_PER_WORKER_MAX, CUSTOM_NAME_BYTES_MAX, CUSTOM_VALUE_BYTES_MAX,
    METRICS_PER_WORKER_MAX,
};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// How each of their lines begins.
const HEAD: &[u8] = br#"{"type":"axm:"#;

/// A value that an app measures itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// A number, a text or a boolean.
    pub value: serde_json::Value,
    /// As the app names it; may be empty.
    pub unit: String,
}

/// A message of these libraries.
#[derive(Clone, Debug, PartialEq)]
pub enum AppMessage {
    /// An action of this name can be called.
    Action(String),
    /// All metrics as they are now. `left_out`: so many are more than a worker may have.
    Metrics { all: BTreeMap<String, Metric>, left_out: usize },
    /// What an action has returned, as JSON; empty: nothing.
    Reply { action: String, value: String },
    /// Another message of theirs, which means nothing here.
    Other,
}

#[derive(serde::Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(default, borrow)]
    data: Option<&'a RawValue>,
}

#[derive(serde::Deserialize)]
struct Action {
    action_name: String,
}

#[derive(serde::Deserialize)]
struct Reply<'a> {
    action_name: String,
    #[serde(default, rename = "return", borrow)]
    value: Option<&'a RawValue>,
}

#[derive(serde::Deserialize)]
struct Measured {
    #[serde(default)]
    value: serde_json::Value,
    #[serde(default)]
    unit: Option<String>,
}

/// Decodes a user's line; `None`: it is not one of theirs.
pub fn decode(line: &[u8]) -> Option<AppMessage> {
    if !line.starts_with(HEAD) {
        return None;
    }
    let Ok(Envelope { kind, data: Some(data) }) = serde_json::from_slice::<Envelope<'_>>(line) else {
        return Some(AppMessage::Other);
    };
    let message = match kind.as_ref() {
        "axm:action" => action(data),
        "axm:monitor" => metrics(data),
        "axm:reply" => reply(data),
        _ => None,
    };
    Some(message.unwrap_or(AppMessage::Other))
}

fn action(data: &RawValue) -> Option<AppMessage> {
    let Action { action_name } = serde_json::from_str(data.get()).ok()?;
    is_name(&action_name).then_some(AppMessage::Action(action_name))
}

fn metrics(data: &RawValue) -> Option<AppMessage> {
    let measured: BTreeMap<String, Measured> = serde_json::from_str(data.get()).ok()?;
    let mut all = BTreeMap::new();
    let mut left_out = 0;
    for (name, Measured { value, unit }) in measured {
        let value = match value {
            serde_json::Value::String(text) => cut(text, CUSTOM_VALUE_BYTES_MAX).into(),
            value if value.is_number() || value.is_boolean() => value,
            _ => continue,
        };
        if all.len() == METRICS_PER_WORKER_MAX || !is_name(&name) {
            left_out += 1;
            continue;
        }
        let unit = cut(unit.unwrap_or_default(), CUSTOM_VALUE_BYTES_MAX);
        all.insert(name, Metric { value, unit });
    }
    Some(AppMessage::Metrics { all, left_out })
}

fn reply(data: &RawValue) -> Option<AppMessage> {
    let Reply { action_name: action, value } = serde_json::from_str(data.get()).ok()?;
    let text = value.map_or("", RawValue::get);
    // A text is shown as it is.
    let value = serde_json::from_str::<String>(text).unwrap_or_else(|_| text.to_owned());
    Some(AppMessage::Reply { action, value: cut(value, ACTION_REPLY_BYTES_MAX) })
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= CUSTOM_NAME_BYTES_MAX
}

/// The text, or so much of it.
fn cut(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        let end = (0..=bytes_max).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

/// Adds an action to those of a worker. Returns whether they have changed.
pub fn add_action(known: &mut Vec<String>, name: String) -> bool {
    let is_new = known.len() < ACTIONS_PER_WORKER_MAX && !known.contains(&name);
    if is_new {
        known.push(name);
    }
    is_new
}

/// Appends the line that calls an action, as PM2 sends it: its name alone, or an object with its parameter.
pub fn call(out: &mut Vec<u8>, action: &str, parameter: Option<&str>, slot: u32) {
    let line = match parameter {
        None => serde_json::json!(action),
        Some(parameter) => serde_json::json!({ "id": slot, "msg": action, "opts": parameter }),
    };
    out.extend_from_slice(line.to_string().as_bytes());
    out.push(b'\n');
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_pm2s_libraries_send_is_understood() {
        let action = br#"{"type":"axm:action","data":{"action_name":"db:clean","action_type":"custom","arity":1}}"#;
        assert_eq!(decode(action), Some(AppMessage::Action("db:clean".to_owned())));
        let monitor = br#"{"type":"axm:monitor","data":{"Users":{"historic":true,"unit":"u","type":"x","value":3.5},
            "State":{"value":"good"},"On":{"value":true},"No":{"value":null},"Deep":{"value":{}}}}"#;
        let Some(AppMessage::Metrics { all, left_out: 0 }) = decode(monitor) else { panic!() };
        let shown: Vec<String> = all.iter().map(|(name, m)| format!("{name}={} {}", m.value, m.unit)).collect();
        assert_eq!(shown, ["On=true ", "State=\"good\" ", "Users=3.5 u"]);
        let reply = |value: &str| {
            let line = format!(r#"{{"type":"axm:reply","data":{{"at":1,"action_name":"x"{value}}}}}"#);
            match decode(line.as_bytes()) {
                Some(AppMessage::Reply { action, value }) if action == "x" => value,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(reply(r#","return":{"a":[1]}"#), r#"{"a":[1]}"#);
        assert_eq!(reply(r#","return":"two\nlines""#), "two\nlines");
        assert_eq!(reply(""), "");
        for other in [
            &br#"{"type":"axm:option:configuration","data":{}}"#[..],
            b"{\"type\":\"axm:",
            b"{\"type\":\"axm:action\"}",
        ] {
            assert_eq!(decode(other), Some(AppMessage::Other));
        }
        for none in [&b"\"axm:action\""[..], br#"{"type":"process:msg","data":{}}"#, b"{}", b""] {
            assert_eq!(decode(none), None);
        }
    }

    #[test]
    fn names_values_and_their_number_are_bounded() {
        let many: Vec<String> = (0..200).map(|n| format!("\"m{n:03}\":{{\"value\":{n}}}")).collect();
        let line = format!(r#"{{"type":"axm:monitor","data":{{{}}}}}"#, many.join(","));
        let Some(AppMessage::Metrics { all, left_out }) = decode(line.as_bytes()) else { panic!() };
        assert_eq!((all.len(), left_out), (METRICS_PER_WORKER_MAX, 200 - METRICS_PER_WORKER_MAX));
        let long = "ü".repeat(CUSTOM_VALUE_BYTES_MAX);
        let line = format!(r#"{{"type":"axm:monitor","data":{{"a":{{"value":"{long}","unit":"{long}"}}}}}}"#);
        let Some(AppMessage::Metrics { all, .. }) = decode(line.as_bytes()) else { panic!() };
        assert!(all["a"].value.as_str().unwrap().len() <= CUSTOM_VALUE_BYTES_MAX + '…'.len_utf8());
        assert!(all["a"].unit.len() <= CUSTOM_VALUE_BYTES_MAX + '…'.len_utf8());
        let line = format!(r#"{{"type":"axm:action","data":{{"action_name":"{long}"}}}}"#);
        assert_eq!(decode(line.as_bytes()), Some(AppMessage::Other));
        let mut known = Vec::new();
        let added = (0..200).filter(|n| add_action(&mut known, (n % 100).to_string())).count();
        assert_eq!((added, known.len()), (ACTIONS_PER_WORKER_MAX, ACTIONS_PER_WORKER_MAX));
    }

    #[test]
    fn a_call_is_a_name_or_an_object() {
        let line = |parameter| {
            let mut out = Vec::new();
            call(&mut out, "db\"", parameter, 2);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(line(None), "\"db\\\"\"\n");
        assert_eq!(line(Some("x\n")), "{\"id\":2,\"msg\":\"db\\\"\",\"opts\":\"x\\n\"}\n");
    }
}
