//! Reads the loosely typed values of one app: numbers as text, lists as one string, and every key under its aliases.
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// The keys of one app, and which of them were read.
pub(super) struct Fields<'a> {
    map: &'a Map<String, Value>,
    read: BTreeSet<String>,
}

impl<'a> Fields<'a> {
    pub(super) fn new(map: &'a Map<String, Value>) -> Fields<'a> {
        Fields { map, read: BTreeSet::new() }
    }

    /// The value under the first of these names that exists, and the name as typed. Marks all of them as read.
    pub(super) fn take(&mut self, names: &[&str]) -> Option<(&'a str, &'a Value)> {
        let all: Vec<String> = names.iter().flat_map(|name| [(*name).to_owned(), camel_case(name)]).collect();
        self.read.extend(all.iter().cloned());
        let there = |name: &String| self.map.get_key_value(name).filter(|(_, value)| !value.is_null());
        all.iter().find_map(there).map(|(name, value)| (name.as_str(), value))
    }

    /// Keys that were not read.
    pub(super) fn rest(&self) -> impl Iterator<Item = (&'a str, &'a Value)> + '_ {
        let unread = |(name, value): &(&String, &Value)| !self.read.contains(*name) && !value.is_null();
        self.map.iter().filter(unread).map(|(name, value)| (name.as_str(), value))
    }
}

/// `max_restarts` as `maxRestarts`.
fn camel_case(name: &str) -> String {
    let mut parts = name.split('_');
    let mut all = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let mut letters = part.chars();
        all.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        all.extend(letters);
    }
    all
}

/// A scalar as text.
pub(super) fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// `true`, `"true"`, `1`.
pub(super) fn boolean(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(value) => Some(*value),
        Value::String(text) if text == "true" => Some(true),
        Value::String(text) if text == "false" => Some(false),
        Value::Number(number) => number.as_f64().map(|number| number != 0.0),
        _ => None,
    }
}

/// A number, or its digits as text; a fraction is truncated.
pub(super) fn integer(value: &Value) -> Option<i64> {
    let number = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.trim().parse::<f64>().ok()?,
        _ => return None,
    };
    // Whole numbers up to 2^53 are exact in a double; nothing here is larger.
    (number.is_finite() && number.abs() < 9e15).then_some(number.trunc() as i64)
}

/// Milliseconds, or `"10s"`, `"2m"`, `"1h"`, `"500ms"`.
pub(super) fn milliseconds(value: &Value) -> Option<u64> {
    if let Some(number) = integer(value) {
        return u64::try_from(number).ok();
    }
    let text = value.as_str()?.trim();
    let (number, unit_ms) = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)]
        .into_iter()
        .find_map(|(unit, ms)| Some((text.strip_suffix(unit)?.parse::<f64>().ok()?, ms)))?;
    (0.0..9e9).contains(&number).then_some((number * f64::from(unit_ms)) as u64)
}

/// Bytes, or `"300M"`, `"1G"`, `"500K"`.
pub(super) fn bytes(value: &Value) -> Option<u64> {
    if let Some(number) = integer(value) {
        return u64::try_from(number).ok();
    }
    let text = value.as_str()?.trim().trim_end_matches(['B', 'b']);
    let (number, unit) = text.split_at(text.len().checked_sub(1)?);
    let unit: u64 = match unit {
        "K" | "k" => 1 << 10,
        "M" | "m" => 1 << 20,
        "G" | "g" => 1 << 30,
        _ => return None,
    };
    let number = number.parse::<f64>().ok().filter(|number| (0.0..9e6).contains(number))?;
    Some((number * unit as f64) as u64)
}

/// A list of strings, or a single one.
pub(super) fn texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Array(items) => items.iter().map(|item| item.as_str().map(str::to_owned)).collect(),
        Value::String(one) => Some(vec![one.clone()]),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
    }
}

/// A list of scalars, or one string of words; quoted parts stay together.
pub(super) fn words(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Array(items) => items.iter().map(text).collect(),
        Value::String(line) => Some(split(line)),
        other => text(other).map(|one| vec![one]),
    }
}

/// A list of scalars, or a single one.
pub(super) fn list(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Array(items) => items.iter().map(text).collect(),
        other => text(other).map(|one| vec![one]),
    }
}

/// Exit codes, as numbers or text.
pub(super) fn exit_codes(value: &Value) -> Option<Vec<String>> {
    let codes = list(value)?;
    codes.iter().all(|code| code.parse::<u8>().is_ok()).then_some(codes)
}

/// Splits words as PM2 does: quotes around a whole word are removed, those of `NAME="a b"` stay.
fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    for c in line.chars() {
        match quote {
            Some(open) => {
                word.push(c);
                if c == open {
                    quote = None;
                }
            }
            None if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            None => {
                if (c == '"' || c == '\'') && (word.is_empty() || word.ends_with('=')) {
                    quote = Some(c);
                }
                word.push(c);
            }
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words.into_iter().map(unquoted).collect()
}

fn unquoted(word: String) -> String {
    let inner = ['"', '\''].into_iter().find_map(|quote| word.strip_prefix(quote)?.strip_suffix(quote));
    match inner {
        Some(inner) => inner.to_owned(),
        None => word,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_are_found_under_all_their_names_once() {
        let value = json!({ "maxRestarts": 3, "err": null, "error": "e.log", "watch": true });
        let mut fields = Fields::new(value.as_object().expect("an object"));
        assert_eq!(fields.take(&["max_restarts"]), Some(("maxRestarts", &json!(3))));
        assert_eq!(fields.take(&["error_file", "error", "err"]), Some(("error", &json!("e.log"))));
        assert_eq!(fields.take(&["script"]), None);
        assert_eq!(fields.rest().map(|(name, _)| name).collect::<Vec<_>>(), ["watch"]);
    }

    #[test]
    fn numbers_come_in_many_clothes() {
        assert_eq!(integer(&json!("4")), Some(4));
        assert_eq!(integer(&json!(-1)), Some(-1));
        assert_eq!(integer(&json!(2.9)), Some(2));
        assert_eq!(integer(&json!("max")), None);
        assert_eq!(milliseconds(&json!(1500)), Some(1500));
        assert_eq!(milliseconds(&json!("10s")), Some(10_000));
        assert_eq!(milliseconds(&json!("2.5m")), Some(150_000));
        assert_eq!(milliseconds(&json!("200ms")), Some(200));
        assert_eq!(milliseconds(&json!(-5)), None);
        assert_eq!(milliseconds(&json!("soon")), None);
        assert_eq!(bytes(&json!("300M")), Some(300 << 20));
        assert_eq!(bytes(&json!("1.5G")), Some(3 << 29));
        assert_eq!(bytes(&json!(314_572_800)), Some(300 << 20));
        assert_eq!(bytes(&json!("lots")), None);
        assert_eq!(boolean(&json!("false")), Some(false));
        assert_eq!(boolean(&json!([])), None);
    }

    #[test]
    fn a_line_of_arguments_is_split_as_pm2_does() {
        assert_eq!(words(&json!("a  \"b c\" 'd e' f")), Some(vec!["a".into(), "b c".into(), "d e".into(), "f".into()]));
        assert_eq!(words(&json!("--name=\"b c\" it's")), Some(vec!["--name=\"b c\"".into(), "it's".into()]));
        assert_eq!(words(&json!(["a b", 3, true])), Some(vec!["a b".into(), "3".into(), "true".into()]));
        assert_eq!(words(&json!([{}])), None);
        assert_eq!(words(&json!("   ")), Some(Vec::new()));
    }
}
