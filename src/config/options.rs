//! The values of a run's flags, as typed; `schema` has their meaning. Their JSON goes to the master, into entries, and
//! from one version to another, so its form is fixed: flags of the first version are fields, the others are in
//! `options`.
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The values of each flag, by its name without dashes. A flag without a value has the value `true`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options(BTreeMap<String, Vec<String>>);

impl Options {
    /// Every value of a flag, in order; empty if it was not given.
    pub fn all(&self, flag: &str) -> &[String] {
        self.0.get(flag).map_or(&[], Vec::as_slice)
    }

    /// The last value of a flag.
    pub fn get(&self, flag: &str) -> Option<&str> {
        self.all(flag).last().map(String::as_str)
    }

    /// Whether a flag was given.
    pub fn has(&self, flag: &str) -> bool {
        !self.all(flag).is_empty()
    }

    /// Replaces the values of a flag.
    pub fn set(&mut self, flag: &str, words: Vec<String>) {
        if words.is_empty() { drop(self.0.remove(flag)) } else { drop(self.0.insert(flag.to_owned(), words)) }
    }

    /// Replaces the values of every flag that `typed` has.
    pub fn lay_over(&mut self, typed: &Options) {
        self.0.extend(typed.0.clone());
    }

    /// Every flag that was given, with its values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.0.iter().map(|(flag, words)| (flag.as_str(), words.as_slice()))
    }

    /// Removes a flag.
    pub fn take(&mut self, flag: &str) -> Vec<String> {
        self.0.remove(flag).unwrap_or_default()
    }

    /// Whether no flag was given.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Options {
    fn from(words: [(&str, &str); N]) -> Options {
        let mut options = Options::default();
        for (flag, word) in words {
            options.0.entry(flag.to_owned()).or_default().push(word.to_owned());
        }
        options
    }
}

/// The form of a flag in the first version.
#[derive(Clone, Copy)]
enum Form {
    Text,
    Texts,
    Number,
    Numbers,
    Boolean,
}

/// The flags of the first version.
const FIRST: &[(&str, Form)] = &[
    ("namespace", Form::Text),
    ("workers", Form::Text),
    ("port", Form::Number),
    ("host", Form::Text),
    ("listen", Form::Texts),
    ("name", Form::Text),
    ("balance", Form::Text),
    ("protocol", Form::Text),
    ("cwd", Form::Text),
    ("user", Form::Text),
    ("group", Form::Text),
    ("prefix", Form::Boolean),
    ("ready", Form::Text),
    ("ready-timeout", Form::Text),
    ("drain-timeout", Form::Text),
    ("kill-timeout", Form::Text),
];
/// Those in `habits`.
const HABITS: &[(&str, Form)] = &[
    ("max-runs", Form::Text),
    ("max-restarts", Form::Text),
    ("min-uptime", Form::Text),
    ("spin-sleep", Form::Text),
    ("restart-delay", Form::Text),
    ("stop-exit-codes", Form::Numbers),
    ("max-memory", Form::Text),
    ("cron-restart", Form::Text),
    ("watch", Form::Boolean),
    ("watch-ignore", Form::Texts),
    ("watch-delay", Form::Text),
];

fn field(flag: &str) -> String {
    flag.replace('-', "_")
}

fn to_json(words: &[String], form: Form) -> Value {
    let number = |word: &String| word.parse::<u64>().map_or_else(|_| Value::from(word.as_str()), Value::from);
    let last = words.last();
    match form {
        Form::Text => last.map_or(Value::Null, |word| Value::from(word.as_str())),
        Form::Number => last.map_or(Value::Null, number),
        Form::Boolean => last.map_or(Value::Null, |word| Value::from(word == "true")),
        Form::Texts => Value::from(words.to_vec()),
        Form::Numbers => words.iter().map(number).collect(),
    }
}

fn from_json(value: &Value) -> Option<Vec<String>> {
    match value {
        // `false` means that the flag was not given.
        Value::Null | Value::Bool(false) => Some(Vec::new()),
        Value::Bool(true) => Some(vec!["true".to_owned()]),
        Value::Number(number) => Some(vec![number.to_string()]),
        Value::String(text) => Some(vec![text.clone()]),
        Value::Array(items) => items.iter().map(from_json).collect::<Option<Vec<_>>>().map(|items| items.concat()),
        Value::Object(_) => None,
    }
}

impl Serialize for Options {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut rest = self.0.clone();
        let mut fields = |known: &[(&str, Form)]| -> Map<String, Value> {
            let typed =
                known.iter().filter_map(|(flag, form)| Some((field(flag), to_json(&rest.remove(*flag)?, *form))));
            typed.collect()
        };
        let (mut whole, habits) = (fields(FIRST), fields(HABITS));
        if !habits.is_empty() {
            whole.insert("habits".to_owned(), Value::Object(habits));
        }
        if !rest.is_empty() {
            let rest = rest.iter().map(|(flag, words)| (flag.clone(), Value::from(words.clone()))).collect();
            whole.insert("options".to_owned(), Value::Object(rest));
        }
        whole.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Options {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Options, D::Error> {
        let mut options = Options::default();
        let mut take = |name: &str, value: &Value, known: &[(&str, Form)]| {
            let flag = known.iter().find(|(flag, _)| field(flag) == name);
            let (flag, _) = flag.ok_or_else(|| Error::custom(format!("unknown field `{name}`")))?;
            let words = from_json(value).ok_or_else(|| Error::custom(format!("bad value of `{name}`")))?;
            options.set(flag, words);
            Ok(())
        };
        let mut rest = Map::new();
        for (name, value) in Map::<String, Value>::deserialize(deserializer)? {
            match (name.as_str(), value) {
                ("habits", Value::Object(habits)) => {
                    habits.iter().try_for_each(|(name, value)| take(name, value, HABITS))?;
                }
                ("options", Value::Object(further)) => rest = further,
                (_, value) => take(&name, &value, FIRST)?,
            }
        }
        for (flag, value) in rest {
            options.set(&flag, from_json(&value).ok_or_else(|| Error::custom(format!("bad value of `{flag}`")))?);
        }
        Ok(options)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_json_is_that_of_the_first_version() {
        let text = r#"{"habits":{"stop_exit_codes":[0,3],"watch":true},"listen":["a","b"],"name":"web","port":80,"prefix":true}"#;
        let options = Options::from([
            ("port", "80"),
            ("listen", "a"),
            ("listen", "b"),
            ("name", "web"),
            ("prefix", "true"),
            ("watch", "true"),
            ("stop-exit-codes", "0"),
            ("stop-exit-codes", "3"),
        ]);
        let sorted: BTreeMap<String, Value> = serde_json::from_str(&serde_json::to_string(&options).unwrap()).unwrap();
        assert_eq!(serde_json::to_string(&sorted).unwrap(), text);
        assert_eq!(serde_json::from_str::<Options>(text).unwrap(), options);
        let written =
            r#"{"namespace":null,"listen":[],"port":null,"prefix":null,"habits":{"watch":false,"max_runs":null}}"#;
        assert!(serde_json::from_str::<Options>(written).unwrap().is_empty());
        assert!(serde_json::from_str::<Options>(r#"{"nam":"web"}"#).is_err());
    }

    #[test]
    fn flags_of_later_versions_have_a_place() {
        let options = Options::from([("name", "web"), ("canary", "10s")]);
        let json = serde_json::to_value(&options).unwrap();
        assert_eq!(json["options"]["canary"], serde_json::json!(["10s"]));
        assert_eq!(serde_json::from_value::<Options>(json).unwrap(), options);
    }
}
