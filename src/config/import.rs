//! PM2's configuration (an ecosystem file, a dump) as one of clusterd: data in, TOML text out, with what has no
//! counterpart here by name. Pure: the loader reads and evaluates the files.
//!
//! The text goes the way of every configuration file from there on, so that a restarted master resolves it again
//! without evaluating anything.
mod app;
mod dump;
mod fields;
mod keys;
mod write;

#[cfg(test)]
mod tests;

use crate::limits::{APPS_MAX, PROBLEM_CHARS_MAX};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// How a configuration file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// As clusterd's own.
    Toml,
    /// JavaScript that exports it.
    Script,
    /// JSON, or what PM2 takes for it: an expression of JavaScript.
    Json,
    /// YAML.
    Yaml,
}

impl Format {
    /// By the ending of its path; TOML where that says nothing.
    pub fn of(path: &str) -> Format {
        let ending = path.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase()).unwrap_or_default();
        match ending.as_str() {
            "js" | "cjs" | "mjs" => Format::Script,
            "json" | "json5" | "pm2" => Format::Json,
            "yaml" | "yml" => Format::Yaml,
            _ => Format::Toml,
        }
    }
}

/// Whether a path that was given to `start` is a configuration: a script may end in `.js` too.
pub fn is_configuration(path: &str) -> bool {
    let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
    let ecosystem = name.contains(".config.") || name.starts_with("ecosystem.");
    match Format::of(name) {
        Format::Toml => name.ends_with(".toml"),
        Format::Script => ecosystem,
        Format::Json | Format::Yaml => true,
    }
}

/// What the word in `script` names on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Script {
    /// No file that could be found.
    Missing,
    /// A command of PATH, and no file of the app's folder.
    InPath,
    /// A binary file.
    Binary,
    /// A text whose `#!` line names something else than Node.
    Itself,
    /// Any other text, or a folder.
    Text,
}

/// What the conversion has to know of the machine.
pub struct Surroundings<'a> {
    /// The file, as a person types it.
    pub file: &'a str,
    /// The environment to which the apps will add theirs: what a dump says of it too need not be written down.
    pub env: &'a BTreeMap<String, String>,
    /// Looks at a script in the folder of its app.
    pub look: &'a dyn Fn(Option<&str>, &str) -> Script,
}

/// A configuration that was converted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Converted {
    /// `cluster.toml`, explained.
    pub toml: String,
    /// One sentence for each setting that could not be converted: the app, the key, what to do instead.
    pub notes: Vec<String>,
}

/// What is said while an app is converted.
#[derive(Default)]
struct Words {
    notes: Vec<String>,
    problems: Vec<String>,
}

impl Words {
    fn note(&mut self, app: &str, text: impl AsRef<str>) {
        self.notes.push(one_line(app, text.as_ref()));
    }

    fn problem(&mut self, app: &str, text: impl AsRef<str>) {
        self.problems.push(one_line(app, text.as_ref()));
    }
}

fn one_line(app: &str, text: &str) -> String {
    let whole = if app.is_empty() { text.to_owned() } else { format!("{app}: {text}") };
    let line: String = whole.chars().map(|c| if c.is_control() { ' ' } else { c }).take(PROBLEM_CHARS_MAX).collect();
    line
}

/// Converts what a file of PM2 holds.
///
/// # Errors
/// What makes it no configuration that could run, one sentence each; never empty.
pub fn convert(value: &Value, around: &Surroundings<'_>) -> Result<Converted, Vec<String>> {
    let mut words = Words::default();
    let apps = match apps_of(value, &mut words) {
        Ok(apps) => apps,
        Err(why) => return Err(vec![why.to_string()]),
    };
    let is_dump = dump::is_dump(&apps);
    let apps = if is_dump { dump::as_apps(&apps, around.env) } else { apps.into_iter().cloned().collect() };
    if apps.len() > APPS_MAX {
        return Err(vec![format!("{} apps are too many: {APPS_MAX} is the most", apps.len())]);
    }
    let mut names = Vec::new();
    let sections: Vec<write::Section> = apps
        .iter()
        .enumerate()
        .map(|(index, app)| app::convert(app, index, is_dump, &mut names, around, &mut words))
        .collect();
    let Words { notes, problems } = words;
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(Converted { toml: write::file(around.file, &sections, &notes), notes })
}

/// Why a file is not a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum NoApps {
    #[error("it has no apps")]
    Empty,
    #[error("it is not a configuration: an app is an object")]
    NotAnObject,
}

/// The apps of a file: under `apps` (or `pm2`), a list of them, or one alone.
fn apps_of<'a>(value: &'a Value, words: &mut Words) -> Result<Vec<&'a Map<String, Value>>, NoApps> {
    let list = match value {
        Value::Object(whole) => {
            for (key, advice) in keys::OF_THE_FILE {
                if whole.contains_key(*key) {
                    words.note("", format!("{key}: {advice}"));
                }
            }
            whole.get("apps").or_else(|| whole.get("pm2")).unwrap_or(value)
        }
        _ => value,
    };
    let items = match list {
        Value::Array(items) => items.as_slice(),
        one => std::slice::from_ref(one),
    };
    if items.is_empty() {
        return Err(NoApps::Empty);
    }
    let app = |item: &'a Value| item.as_object().ok_or(NoApps::NotAnObject);
    items.iter().map(app).collect()
}
