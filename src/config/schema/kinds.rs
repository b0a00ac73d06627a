//! What a key may hold: each kind reads a value from TOML and from a word of the command line, writes it back, and describes
//! itself for the reference and for editors. The keys themselves are in `keys`.
use super::super::options::Options;
use super::super::problem::{At, Found, Spot};
use super::super::raw::{Entry, Walk, narrow};
use super::super::scaling::{WorkerRange, worker_range};
use super::super::value_error::ValueError;
use super::super::{Listen, Workers, log_time, parse};
use crate::limits::{LISTENERS_PER_APP_MAX, WATCH_PATHS_MAX};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::marker::PhantomData;
use std::ops::RangeInclusive;
use std::time::Duration;
use toml::de::DeValue;

/// One kind of value.
pub(crate) trait Kind {
    type Value;

    /// Reads the value of a key; `None` and a problem if it is invalid.
    fn read(&self, walk: &mut Walk<'_>, entry: &Entry<'_>) -> Option<At<Self::Value>>;

    /// Parses one word of the command line.
    fn parse(&self, word: &str) -> Result<Self::Value, ValueError> {
        Err(ValueError::OnlyInFile(word.to_owned()))
    }

    /// Parses all words of one option, at least one.
    fn parse_all(&self, words: &[String], option: &'static str, found: &mut Found) -> Option<At<Self::Value>> {
        found.keep(Spot::Option(option), self.parse(words.last()?))
    }

    /// A default as TOML; `None` where nothing is set.
    fn show(&self, _value: &Self::Value) -> Option<String> {
        None
    }

    /// The allowed values, for the reference.
    fn words(&self) -> String;

    /// The allowed values as a JSON schema.
    fn schema(&self) -> Value;

    /// Whether it is a table with its own header.
    fn is_table(&self) -> bool {
        false
    }

    /// Lays the command line over the keys of its table.
    fn overlay_table(&self, _: &mut Option<At<Self::Value>>, _: &Options, _several: bool, _: &mut Found) {}
}

/// One string.
pub(crate) struct Text<T> {
    pub(crate) wants: &'static str,
    pub(crate) parse: fn(&str) -> Result<T, ValueError>,
    pub(crate) words: &'static str,
    pub(crate) show: fn(&T) -> Option<String>,
    /// The allowed strings; empty if any is allowed.
    pub(crate) choices: &'static [&'static str],
}

impl<T> Kind for Text<T> {
    type Value = T;

    fn read(&self, walk: &mut Walk<'_>, entry: &Entry<'_>) -> Option<At<T>> {
        walk.text(entry, self.wants, self.parse)
    }

    fn parse(&self, word: &str) -> Result<T, ValueError> {
        (self.parse)(word)
    }

    fn show(&self, value: &T) -> Option<String> {
        (self.show)(value)
    }

    fn words(&self) -> String {
        match self.choices {
            [] => self.words.to_owned(),
            choices => choices.iter().map(|choice| format!("`\"{choice}\"`")).collect::<Vec<_>>().join(", "),
        }
    }

    fn schema(&self) -> Value {
        match self.choices {
            [] => json!({"type": "string"}),
            choices => json!({"enum": choices}),
        }
    }
}

/// A default that is never shown.
pub(crate) fn unset<T>(_: &T) -> Option<String> {
    None
}

/// A string of TOML. (It is written as one of JSON.)
pub(crate) fn quoted<T: Display>(value: &T) -> Option<String> {
    Some(Value::from(value.to_string()).to_string())
}

pub(crate) struct Time {
    pub(crate) parse: fn(&str) -> Result<Duration, ValueError>,
    pub(crate) words: &'static str,
}

impl Kind for Time {
    type Value = Duration;

    fn read(&self, walk: &mut Walk<'_>, entry: &Entry<'_>) -> Option<At<Duration>> {
        walk.duration(entry, self.parse)
    }

    fn parse(&self, word: &str) -> Result<Duration, ValueError> {
        (self.parse)(word)
    }

    fn show(&self, value: &Duration) -> Option<String> {
        let text = match value.as_millis() {
            0 => "0s".to_owned(),
            ms if ms % 3_600_000 == 0 => format!("{}h", ms / 3_600_000),
            ms if ms % 60_000 == 0 => format!("{}m", ms / 60_000),
            ms if ms % 1_000 == 0 => format!("{}s", ms / 1_000),
            ms => format!("{ms}ms"),
        };
        quoted(&text)
    }

    fn words(&self) -> String {
        self.words.to_owned()
    }

    fn schema(&self) -> Value {
        json!({"type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$"})
    }
}

/// A size in bytes.
pub(crate) struct Size;

impl Kind for Size {
    type Value = u64;

    fn read(&self, walk: &mut Walk<'_>, entry: &Entry<'_>) -> Option<At<u64>> {
        walk.size(entry)
    }

    fn parse(&self, word: &str) -> Result<u64, ValueError> {
        parse::size(word)
    }

    fn words(&self) -> String {
        "size, `\"512M\"`, `\"2G\"`, `\"65536K\"` (of 1024)".to_owned()
    }

    fn schema(&self) -> Value {
        json!({"type": "string", "pattern": "^[0-9]+[KMG]$"})
    }
}

/// Any kind that may be left unset.
pub(crate) struct Optional<K> {
    kind: K,
    /// The word with which its flag takes back what was set.
    off: Option<&'static str>,
}

/// Any kind that may be left unset.
pub(crate) const fn optional<K>(kind: K) -> Optional<K> {
    Optional { kind, off: None }
}

/// The same for what a flag can switch off again, with the word 0: PM2's `--cron-restart 0`.
pub(crate) const fn or_zero<K>(kind: K) -> Optional<K> {
    Optional { kind, off: Some("0") }
}

impl<K> Optional<K> {
    fn is_off(&self, word: &str) -> bool {
        self.off == Some(word)
    }
}

impl<K: Kind> Kind for Optional<K> {
    type Value = Option<K::Value>;

    fn read(&self, walk: &mut Walk<'_>, entry: &Entry<'_>) -> Option<At<Option<K::Value>>> {
        self.kind.read(walk, entry).map(|at| At { value: Some(at.value), spot: at.spot })
    }

    fn parse(&self, word: &str) -> Result<Option<K::Value>, ValueError> {
        if self.is_off(word) { Ok(None) } else { self.kind.parse(word).map(Some) }
    }

    fn parse_all(&self, words: &[String], option: &'static str, found: &mut Found) -> Option<At<Option<K::Value>>> {
        if words.last().is_some_and(|word| self.is_off(word)) {
            return Some(At { value: None, spot: Spot::Option(option) });
        }
        self.kind.parse_all(words, option, found).map(|at| At { value: Some(at.value), spot: at.spot })
    }

    fn show(&self, value: &Option<K::Value>) -> Option<String> {
        value.as_ref().and_then(|value| self.kind.show(value))
    }

    fn words(&self) -> String {
        self.kind.words()
    }

    fn schema(&self) -> Value {
        self.kind.schema()
    }
}

/// A whole number within bounds. `name` is that of the key.
pub(crate) struct Number<T> {
    pub(crate) name: &'static str,
    pub(crate) range: RangeInclusive<i64>,
    pub(crate) of: PhantomData<T>,
}

/// A whole number within bounds, for the key `name`.
pub(crate) const fn number<T>(name: &'static str, min: i64, max: i64) -> Number<T> {
    Number { name, range: min..=max, of: PhantomData }
}

impl<T: TryFrom<i64> + Default + Display> Kind for Number<T> {
    type Value = T;

    fn read(&self, walk: &mut Walk<'_>, entry: &Entry<'_>) -> Option<At<T>> {
        let rule = format!("{} must be a number from {} to {}", self.name, self.range.start(), self.range.end());
        walk.number(entry, &rule, self.range.clone()).map(|at| narrow(&at))
    }

    fn parse(&self, word: &str) -> Result<T, ValueError> {
        let number = word.parse::<i64>().ok().filter(|number| self.range.contains(number));
        let (min, max) = (self.range.start(), self.range.end());
        let wrong = || ValueError::Number { min: *min, max: *max, typed: word.to_owned() };
        number.and_then(|number| T::try_from(number).ok()).ok_or_else(wrong)
    }

    fn show(&self, value: &T) -> Option<String> {
        Some(value.to_string())
    }

    fn words(&self) -> String {
        if *self.range.end() == i64::MAX {
            return "number".to_owned();
        }
        format!("number from {} to {}", self.range.start(), self.range.end())
    }

    fn schema(&self) -> Value {
        json!({"type": "integer", "minimum": self.range.start(), "maximum": self.range.end()})
    }
}

/// A count, or a word for no bound.
pub(crate) struct CountOr {
    pub(crate) name: &'static str,
    pub(crate) most: u32,
    /// The words, the first of which is shown.
    pub(crate) unbounded: &'static [&'static str],
    /// Added after the word in messages.
    pub(crate) hint: &'static str,
}

impl CountOr {
    fn bounds(&self) -> String {
        format!("a number from 1 to {}, or \"{}\"{}", self.most, self.unbounded[0], self.hint)
    }
}

impl Kind for CountOr {
    type Value = Option<u32>;

    fn read(&self, walk: &mut Walk<'_>, entry: &Entry<'_>) -> Option<At<Option<u32>>> {
        let rule = format!("{} must be {}", self.name, self.bounds());
        match entry.value.as_str() {
            Some(word) if self.unbounded.contains(&word) => Some(At { value: None, spot: entry.spot }),
            Some(other) => walk.keep(entry.spot, Err(format!("{rule}, not \"{other}\""))),
            None => {
                let at = walk.number(entry, &rule, 1..=i64::from(self.most))?;
                Some(At { value: Some(narrow::<u32>(&at).value), spot: at.spot })
            }
        }
    }

    fn parse(&self, word: &str) -> Result<Option<u32>, ValueError> {
        if self.unbounded.contains(&word) {
            return Ok(None);
        }
        let number = parse::digits(word).filter(|number| (1..=self.most).contains(number)).map(Some);
        number.ok_or_else(|| ValueError::Count { allowed: self.bounds(), typed: word.to_owned() })
    }

    fn show(&self, value: &Option<u32>) -> Option<String> {
        value.map_or_else(|| quoted(&self.unbounded[0]), |count| Some(count.to_string()))
    }

    fn words(&self) -> String {
        format!("number from 1 to {}, or `\"{}\"`", self.most, self.unbounded[0])
    }

    fn schema(&self) -> Value {
        json!({"anyOf": [{"type": "integer", "minimum": 1, "maximum": self.most}, {"enum": self.unbounded}]})
    }
}

/// `true` or `false`.
pub(crate) struct Boolean;

impl Kind for Boolean {
    type Value = bool;

    fn read(&self, walk: &mut Walk<'_>, entry: &Entry<'_>) -> Option<At<bool>> {
        walk.boolean(entry)
    }

    fn parse(&self, word: &str) -> Result<bool, ValueError> {
        word.parse().map_err(|_| ValueError::Boolean(word.to_owned()))
    }

    fn show(&self, value: &bool) -> Option<String> {
        Some(value.to_string())
    }

    fn words(&self) -> String {
        "`true`, `false`".to_owned()
    }

    fn schema(&self) -> Value {
        json!({"type": "boolean"})
    }
}

pub(crate) struct WorkerCount;

impl Kind for WorkerCount {
    type Value = WorkerRange;

    fn read(&self, walk: &mut Walk<'_>, entry: &Entry<'_>) -> Option<At<WorkerRange>> {
        walk.worker_range(entry)
    }

    fn parse(&self, word: &str) -> Result<WorkerRange, ValueError> {
        worker_range(word)
    }

    fn show(&self, value: &WorkerRange) -> Option<String> {
        match value {
            WorkerRange { least: Workers::Exactly(count), most: None } => Some(count.to_string()),
            WorkerRange { .. } => quoted(value),
        }
    }

    fn words(&self) -> String {
        "number, `\"max\"`, `\"max-1\"`, `\"50%\"`, `\"2..8\"`".to_owned()
    }

    fn schema(&self) -> Value {
        let count = json!({"type": "integer", "minimum": 1, "maximum": crate::limits::WORKERS_MAX});
        let one = r"(max(-[0-9]+)?|[0-9]+%?)";
        json!({"anyOf": [count, {"type": "string", "pattern": format!(r"^{one}(\.\.{one})?$")}]})
    }
}

pub(crate) struct Port;

impl Kind for Port {
    type Value = u16;

    fn read(&self, walk: &mut Walk<'_>, entry: &Entry<'_>) -> Option<At<u16>> {
        walk.port(entry)
    }

    fn parse(&self, word: &str) -> Result<u16, ValueError> {
        let number = word.bytes().all(|b| b.is_ascii_digit()).then(|| word.parse().ok()).flatten();
        number.ok_or_else(|| ValueError::PortAlone(word.to_owned()))
    }

    fn words(&self) -> String {
        "number".to_owned()
    }

    fn schema(&self) -> Value {
        json!({"type": "integer", "minimum": 0, "maximum": u16::MAX})
    }
}

/// One string or several, each with its place.
pub(crate) struct Texts<T> {
    pub(crate) parse: fn(&str) -> Result<T, ValueError>,
    pub(crate) words: &'static str,
    /// The maximum number, and the message when it is exceeded.
    pub(crate) most: Option<(usize, &'static str)>,
    /// How an empty default is shown.
    pub(crate) empty: Option<&'static str>,
}

/// The complaint about too many addresses.
pub(crate) const TOO_MANY_ADDRESSES: Option<(usize, &str)> =
    Some((LISTENERS_PER_APP_MAX, "addresses to listen on are too many"));
/// The complaint about too many paths or patterns.
pub(crate) const TOO_MANY_ENTRIES: Option<(usize, &str)> = Some((WATCH_PATHS_MAX, "entries are too many"));

impl<T> Kind for Texts<T> {
    type Value = Vec<At<T>>;

    fn read(&self, walk: &mut Walk<'_>, entry: &Entry<'_>) -> Option<At<Vec<At<T>>>> {
        let count = entry.value.as_array().map_or(1, |array| array.len());
        if let Some((most, too_many)) = self.most
            && count > most
        {
            walk.add(entry.spot, format!("{count} {too_many}: {most} is the most"));
            return None;
        }
        Some(At { value: walk.strings(entry, self.parse), spot: entry.spot })
    }

    fn parse(&self, word: &str) -> Result<Vec<At<T>>, ValueError> {
        (self.parse)(word).map(|value| vec![At { value, spot: Spot::Whole }])
    }

    fn parse_all(&self, words: &[String], option: &'static str, found: &mut Found) -> Option<At<Vec<At<T>>>> {
        let spot = Spot::Option(option);
        let value = words.iter().filter_map(|word| found.keep(spot, (self.parse)(word))).collect();
        Some(At { value, spot })
    }

    fn show(&self, _: &Vec<At<T>>) -> Option<String> {
        self.empty.map(str::to_owned)
    }

    fn words(&self) -> String {
        self.words.to_owned()
    }

    fn schema(&self) -> Value {
        json!({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]})
    }
}

pub(crate) const ADDRESSES: Texts<Listen> =
    Texts { parse: parse::listen, words: "string, or array of strings", most: TOO_MANY_ADDRESSES, empty: None };

/// Program and arguments.
pub(crate) struct Command;

impl Kind for Command {
    type Value = Vec<String>;

    fn read(&self, walk: &mut Walk<'_>, entry: &Entry<'_>) -> Option<At<Vec<String>>> {
        walk.command(entry)
    }

    fn words(&self) -> String {
        "array of strings, or a string".to_owned()
    }

    fn schema(&self) -> Value {
        json!({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]})
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Variables {
    pub(crate) plain: BTreeMap<String, String>,
    /// The `env.NAME` tables.
    pub(crate) named: BTreeMap<String, BTreeMap<String, String>>,
}

/// Variables, and tables of them.
pub(crate) struct Environment;

impl Kind for Environment {
    type Value = Variables;

    fn read(&self, walk: &mut Walk<'_>, entry: &Entry<'_>) -> Option<At<Variables>> {
        walk.env(entry)
    }

    fn words(&self) -> String {
        "table".to_owned()
    }

    fn schema(&self) -> Value {
        let variable = json!({"type": ["string", "number", "boolean"]});
        let named = json!({"type": "object", "additionalProperties": variable});
        json!({"type": "object", "additionalProperties": {"anyOf": [variable, named]}})
    }

    fn is_table(&self) -> bool {
        true
    }
}

/// The name of a variable.
pub(crate) const fn variable(parse: fn(&str) -> Result<String, ValueError>) -> Text<String> {
    Text { wants: "a string", parse, words: "name of a variable", show: quoted, choices: &[] }
}

/// The name or number of a user or group.
pub(crate) struct Identity;

impl Kind for Identity {
    type Value = String;

    fn read(&self, walk: &mut Walk<'_>, entry: &Entry<'_>) -> Option<At<String>> {
        walk.identity(entry)
    }

    fn parse(&self, word: &str) -> Result<String, ValueError> {
        parse::identity(word)
    }

    fn words(&self) -> String {
        "name or number".to_owned()
    }

    fn schema(&self) -> Value {
        json!({"anyOf": [{"type": "string"}, {"type": "integer", "minimum": 0}]})
    }
}

/// Mode bits.
pub(crate) struct Umask;

impl Kind for Umask {
    type Value = u32;

    fn read(&self, walk: &mut Walk<'_>, entry: &Entry<'_>) -> Option<At<u32>> {
        walk.umask(entry)
    }

    fn words(&self) -> String {
        "octal digits, `\"027\"`".to_owned()
    }

    fn schema(&self) -> Value {
        json!({"type": "string", "pattern": "^[0-7]{1,4}$"})
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Watched {
    Nothing,
    Folder,
    /// These instead; never empty.
    Paths(Vec<String>),
}

/// `true`, `false`, or paths.
pub(crate) struct WatchedPaths;

impl Kind for WatchedPaths {
    type Value = Watched;

    fn read(&self, walk: &mut Walk<'_>, entry: &Entry<'_>) -> Option<At<Watched>> {
        let whole = |on: bool| if on { Watched::Folder } else { Watched::Nothing };
        if let Some(on) = entry.value.as_bool() {
            return Some(At { value: whole(on), spot: entry.spot });
        }
        if !entry.value.is_str() && !entry.value.is_array() {
            return walk.wrong_type(entry, "true, false, a path, or an array of paths");
        }
        let paths = Texts { parse: parse::path, words: "", most: TOO_MANY_ENTRIES, empty: None }.read(walk, entry)?;
        let paths: Vec<String> = paths.value.into_iter().map(|at| at.value).collect();
        let value = if paths.is_empty() { Watched::Nothing } else { Watched::Paths(paths) };
        Some(At { value, spot: entry.spot })
    }

    fn parse(&self, word: &str) -> Result<Watched, ValueError> {
        Boolean.parse(word).map(|on| if on { Watched::Folder } else { Watched::Nothing })
    }

    fn show(&self, value: &Watched) -> Option<String> {
        matches!(value, Watched::Nothing).then(|| "false".to_owned())
    }

    fn words(&self) -> String {
        "`true`, `false`, a path, or an array of paths".to_owned()
    }

    fn schema(&self) -> Value {
        let paths = json!({"type": "array", "items": {"type": "string"}});
        json!({"anyOf": [{"type": "boolean"}, {"type": "string"}, paths]})
    }
}

pub(crate) struct ExitCodes;

impl Kind for ExitCodes {
    type Value = Vec<i32>;

    fn read(&self, walk: &mut Walk<'_>, entry: &Entry<'_>) -> Option<At<Vec<i32>>> {
        let DeValue::Array(array) = entry.value else {
            return walk.wrong_type(entry, "an array of exit codes, such as [0, 3]");
        };
        let rule = format!("{} must be numbers from 0 to 255", entry.key);
        let mut codes = Vec::new();
        for item in array.iter() {
            let spot = Spot::File(item.span().start);
            let item = Entry { key: entry.key, key_spot: spot, value: item.get_ref(), spot };
            codes.extend(walk.number(&item, &rule, 0..=255).map(|at| narrow::<i32>(&at).value));
        }
        codes.sort_unstable();
        codes.dedup();
        Some(At { value: codes, spot: entry.spot })
    }

    fn parse(&self, word: &str) -> Result<Vec<i32>, ValueError> {
        let code = word.parse::<u8>().map_err(|_| ValueError::ExitCode(word.to_owned()))?;
        Ok(vec![i32::from(code)])
    }

    fn parse_all(&self, words: &[String], option: &'static str, found: &mut Found) -> Option<At<Vec<i32>>> {
        let spot = Spot::Option(option);
        let codes = words.iter().filter_map(|word| found.keep(spot, self.parse(word)));
        Some(At { value: codes.flat_map(|at| at.value).collect(), spot })
    }

    fn show(&self, value: &Vec<i32>) -> Option<String> {
        Some(Value::from(value.clone()).to_string())
    }

    fn words(&self) -> String {
        "array of numbers".to_owned()
    }

    fn schema(&self) -> Value {
        json!({"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 255}})
    }
}

/// Whether lines of a log get a time stamp, and of which form: strftime's.
pub(crate) struct TimeStamp;

impl Kind for TimeStamp {
    type Value = Option<String>;

    fn read(&self, walk: &mut Walk<'_>, entry: &Entry<'_>) -> Option<At<Option<String>>> {
        if let Some(wanted) = entry.value.as_bool() {
            return Some(At { value: wanted.then(|| log_time::DEFAULT.to_owned()), spot: entry.spot });
        }
        let wants = "true, false or a format such as \"%Y-%m-%d %H:%M:%S\"";
        walk.text(entry, wants, |text| log_time::strftime(text).map(Some))
    }

    fn parse(&self, word: &str) -> Result<Option<String>, ValueError> {
        match word {
            "true" => Ok(Some(log_time::DEFAULT.to_owned())),
            format => Ok(log_time::strftime(format).map(Some)?),
        }
    }

    fn show(&self, value: &Option<String>) -> Option<String> {
        value.is_none().then(|| "false".to_owned())
    }

    fn words(&self) -> String {
        "`true`, `false`, a format".to_owned()
    }

    fn schema(&self) -> Value {
        json!({"type": ["boolean", "string"]})
    }
}
