//! Reads the value of a key as the wanted type, or reports a problem.
use super::super::problem::{At, Spot, line_column};
use super::super::scaling::{WorkerRange, worker_range};
use super::super::schema::kinds::Variables;
use super::super::value_error::ValueError;
use super::super::{Workers, env_file, parse};
use super::Walk;
use std::fmt::Display;
use std::time::Duration;
use toml::de::{DeTable, DeValue};

/// A key with its value.
pub(crate) struct Entry<'a> {
    pub(crate) key: &'a str,
    pub(crate) key_spot: Spot,
    pub(crate) value: &'a DeValue<'a>,
    pub(crate) spot: Spot,
}

impl Walk<'_> {
    pub(crate) fn add(&mut self, spot: Spot, message: impl Into<String>) {
        if let Spot::File(offset) = spot
            && !self.bad_lines.is_empty()
            && !self.found.is_full()
            && self.bad_lines.contains(&line_column(self.text, offset).0)
        {
            return;
        }
        self.found.add(spot, message);
    }

    pub(crate) fn keep<T, E: Display>(&mut self, spot: Spot, result: Result<T, E>) -> Option<At<T>> {
        match result {
            Ok(value) => Some(At { value, spot }),
            Err(error) => {
                self.add(spot, error.to_string());
                None
            }
        }
    }

    pub(crate) fn wrong_type<T>(&mut self, entry: &Entry<'_>, wants: &str) -> Option<T> {
        self.add(entry.spot, format!("{} must be {wants}, not {}", entry.key, type_name(entry.value)));
        None
    }

    pub(crate) fn table<'v>(&mut self, entry: &Entry<'v>) -> Option<&'v DeTable<'v>> {
        match entry.value {
            DeValue::Table(table) => Some(table),
            _ => self.wrong_type(entry, "a table"),
        }
    }

    pub(crate) fn text<T, E: Display>(
        &mut self,
        entry: &Entry<'_>,
        wants: &str,
        read: impl Fn(&str) -> Result<T, E>,
    ) -> Option<At<T>> {
        match entry.value.as_str() {
            Some(text) => self.keep(entry.spot, read(text)),
            None => self.wrong_type(entry, wants),
        }
    }

    pub(crate) fn duration(
        &mut self,
        entry: &Entry<'_>,
        read: fn(&str) -> Result<Duration, ValueError>,
    ) -> Option<At<Duration>> {
        match integer(entry.value) {
            Some(number) => self.keep(
                entry.spot,
                Err(format!(
                    "{} has no unit: write \"{number}s\" for seconds or \"{number}ms\" for milliseconds, in quotes",
                    entry.key
                )),
            ),
            None => self.text(entry, "a time with its unit, in quotes, such as \"30s\"", read),
        }
    }

    pub(crate) fn number(
        &mut self,
        entry: &Entry<'_>,
        rule: &str,
        range: std::ops::RangeInclusive<i64>,
    ) -> Option<At<i64>> {
        match (entry.value, integer(entry.value)) {
            (_, Some(number)) if range.contains(&number) => Some(At { value: number, spot: entry.spot }),
            (DeValue::Integer(typed), _) => self.keep(entry.spot, Err(format!("{rule}, not {typed}"))),
            _ => self.keep(entry.spot, Err(format!("{rule}, not {}", type_name(entry.value)))),
        }
    }

    pub(crate) fn boolean(&mut self, entry: &Entry<'_>) -> Option<At<bool>> {
        match entry.value.as_bool() {
            Some(value) => Some(At { value, spot: entry.spot }),
            None => self.wrong_type(entry, "true or false"),
        }
    }

    pub(crate) fn workers(&mut self, entry: &Entry<'_>) -> Option<At<Workers>> {
        match entry.value {
            DeValue::Integer(typed) => self.keep(entry.spot, parse::workers(&typed.to_string())),
            _ => self.text(entry, "a number, \"max\", \"max-1\" or \"50%\"", parse::workers),
        }
    }

    /// The same, or bounds.
    pub(crate) fn worker_range(&mut self, entry: &Entry<'_>) -> Option<At<WorkerRange>> {
        match entry.value {
            DeValue::Integer(typed) => self.keep(entry.spot, worker_range(&typed.to_string())),
            _ => self.text(entry, "a number, \"max\", \"max-1\", \"50%\" or \"2..8\"", worker_range),
        }
    }

    pub(crate) fn port(&mut self, entry: &Entry<'_>) -> Option<At<u16>> {
        let rule = "port must be a number from 0 to 65535 (0: any free one)";
        self.number(entry, rule, 0..=65535).map(|at| narrow(&at))
    }

    /// One string, or an array of strings.
    pub(crate) fn strings<T>(&mut self, entry: &Entry<'_>, read: fn(&str) -> Result<T, ValueError>) -> Vec<At<T>> {
        let wants = "a string or an array of strings";
        match entry.value {
            DeValue::Array(array) => {
                let items = array.iter().map(|item| (item.get_ref(), Spot::File(item.span().start)));
                let items = items.map(|(value, spot)| Entry { key: entry.key, key_spot: spot, value, spot });
                items.filter_map(|item| self.text(&item, wants, read)).collect()
            }
            _ => self.text(entry, wants, read).into_iter().collect(),
        }
    }

    pub(crate) fn command(&mut self, entry: &Entry<'_>) -> Option<At<Vec<String>>> {
        let DeValue::Array(array) = entry.value else {
            let read = |text: &str| parse::command_line(text).map_err(|error| named(entry.key, &error));
            return self.text(entry, "an array of strings, such as [\"node\", \"app.js\"]", read);
        };
        if let Some(item) = array.iter().find(|item| !item.get_ref().is_str()) {
            let wrong = format!("{} must hold strings only, not {}", entry.key, type_name(item.get_ref()));
            return self.keep(Spot::File(item.span().start), Err(wrong));
        }
        let words: Vec<String> = array.iter().filter_map(|item| item.get_ref().as_str().map(str::to_owned)).collect();
        let checked = parse::command(&words).map_err(|error| named(entry.key, &error));
        self.keep(entry.spot, checked.map(|()| words))
    }

    pub(crate) fn size(&mut self, entry: &Entry<'_>) -> Option<At<u64>> {
        match integer(entry.value) {
            Some(number) => self.keep(
                entry.spot,
                Err(format!("{} has no unit: write \"{number}M\" for megabytes, in quotes", entry.key)),
            ),
            None => self.text(entry, "a size with its unit, in quotes, such as \"512M\"", parse::size),
        }
    }

    /// `NAME = "value"`, and tables `NAME = { ... }` for `--env NAME`.
    pub(crate) fn env(&mut self, entry: &Entry<'_>) -> Option<At<Variables>> {
        let mut variables = Variables::default();
        for entry in entries(self.table(entry)?) {
            if let DeValue::Table(named) = entry.value {
                let pairs = entries(named).into_iter().filter_map(|entry| self.variable(&entry)).collect();
                variables.named.insert(entry.key.to_owned(), pairs);
            } else if let Some((name, value)) = self.variable(&entry) {
                variables.plain.insert(name, value);
            }
        }
        Some(At { value: variables, spot: entry.spot })
    }

    fn variable(&mut self, entry: &Entry<'_>) -> Option<(String, String)> {
        let value = match entry.value {
            DeValue::String(text) => text.to_string(),
            DeValue::Boolean(value) => value.to_string(),
            DeValue::Float(number) => number.to_string(),
            DeValue::Integer(typed) => {
                integer(entry.value).map_or_else(|| typed.to_string(), |number| number.to_string())
            }
            other => {
                let name = entry.key;
                self.add(entry.spot, format!("the variable {name} must be a string, not {}", type_name(other)));
                return None;
            }
        };
        let checked = env_file::check(entry.key, &value);
        self.keep(entry.key_spot, checked).map(|_| (entry.key.to_owned(), value))
    }

    /// A name, or a number.
    pub(crate) fn identity(&mut self, entry: &Entry<'_>) -> Option<At<String>> {
        match integer(entry.value) {
            Some(number) if (0..i64::from(u32::MAX)).contains(&number) => {
                Some(At { value: number.to_string(), spot: entry.spot })
            }
            _ => self.text(entry, "a name or a number", parse::identity),
        }
    }

    pub(crate) fn umask(&mut self, entry: &Entry<'_>) -> Option<At<u32>> {
        self.mode(entry, "umask", parse::umask)
    }

    /// Permission bits, or a mask of them.
    pub(crate) fn mode(
        &mut self,
        entry: &Entry<'_>,
        what: &str,
        read: fn(&str) -> Result<u32, ValueError>,
    ) -> Option<At<u32>> {
        match entry.value {
            // TOML's own octal form says what it is; a decimal number would be taken for octal by mistake.
            DeValue::Integer(typed) if typed.radix() == 8 => self.keep(entry.spot, read(typed.as_str())),
            DeValue::Integer(typed) => {
                let message = format!("{what} must be octal digits in quotes, such as \"027\", not the number {typed}");
                self.keep(entry.spot, Err(message))
            }
            _ => self.text(entry, "octal digits in quotes, such as \"027\"", read),
        }
    }
}

/// What is wrong with a command, with the name of its key.
fn named(key: &str, error: &ValueError) -> String {
    let message = error.to_string();
    message.strip_prefix("command ").map(|rest| format!("{key} {rest}")).unwrap_or(message)
}

/// A number whose range was checked, as a smaller type.
pub(crate) fn narrow<T: TryFrom<i64> + Default>(at: &At<i64>) -> At<T> {
    At { value: T::try_from(at.value).unwrap_or_default(), spot: at.spot }
}

pub(crate) fn entries<'v>(table: &'v DeTable<'_>) -> Vec<Entry<'v>> {
    let entry = |(key, value): (&'v toml::Spanned<toml::de::DeString<'_>>, &'v toml::Spanned<DeValue<'_>>)| Entry {
        key: key.get_ref(),
        key_spot: Spot::File(key.span().start),
        value: value.get_ref(),
        spot: Spot::File(value.span().start),
    };
    table.iter().map(entry).collect()
}

/// The value of an integer of any radix, where it fits.
pub(crate) fn integer(value: &DeValue<'_>) -> Option<i64> {
    let typed = value.as_integer()?;
    i64::from_str_radix(typed.as_str(), typed.radix()).ok()
}

fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}
