//! Converts PM2's configuration (an ecosystem file, a dump) to one of clusterd: data in, TOML text out, with notes on
//! everything that has no counterpart. Pure: the loader reads and evaluates the files.
//!
//! From there on the text is treated as any configuration file, so that a restarted master resolves it without
//! evaluating anything.
mod app;
mod dump;
mod fields;
mod keys;
mod serve;
mod write;

#[cfg(test)]
mod tests;

use crate::limits::{APPS_MAX, PROBLEM_CHARS_MAX};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The format of a configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// clusterd's own.
    Toml,
    /// JavaScript or TypeScript that exports it.
    Script,
    /// JSON, or what PM2 takes for it: an expression of JavaScript.
    Json,
    Yaml,
}

impl Format {
    /// By the ending of the path; TOML for other endings.
    pub fn of(path: &str) -> Format {
        let ending = path.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase()).unwrap_or_default();
        match ending.as_str() {
            "js" | "cjs" | "mjs" | "ts" | "cts" | "mts" => Format::Script,
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

/// What `script` names on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Script {
    /// A file that does not exist.
    Missing,
    /// A command in PATH, not a file in the app's folder.
    InPath,
    Binary,
    /// A text whose `#!` line names something other than Node.
    Itself,
    /// Any other text, or a folder.
    Text,
}

/// Facts about the machine that the conversion needs.
pub struct Surroundings<'a> {
    /// The path of the file, as typed.
    pub file: &'a str,
    /// The environment to which the apps add theirs: variables of a dump that are also here are left out.
    pub env: &'a BTreeMap<String, String>,
    /// The path of this program, for apps that it serves itself.
    pub program: &'a str,
    /// Looks up a script in the folder of its app.
    pub look: &'a dyn Fn(Option<&str>, &str) -> Script,
}

/// A converted configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Converted {
    /// `cluster.toml`, with comments.
    pub toml: String,
    /// One sentence for each setting that was not converted: the app, the key, what to do instead.
    pub notes: Vec<String>,
}

/// Notes and problems of a conversion.
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

/// Converts the content of a PM2 file.
///
/// # Errors
/// Why it is not a usable configuration, one sentence each; never empty.
pub fn convert(value: &Value, around: &Surroundings<'_>) -> Result<Converted, Vec<String>> {
    let mut words = Words::default();
    let apps = match apps_of(value, &mut words) {
        Ok(apps) => apps,
        Err(why) => return Err(vec![why.to_string()]),
    };
    let is_dump = !apps.is_empty() && dump::is_dump(&apps);
    let mut apps = if is_dump { dump::as_apps(&apps, around.env) } else { apps.into_iter().cloned().collect() };
    apps.extend(file_servers(value, &mut words));
    if apps.is_empty() && words.problems.is_empty() {
        return Err(vec![NoApps::Empty.to_string()]);
    }
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

/// The apps of `static` beside the others: folders whose files are served.
fn file_servers(value: &Value, words: &mut Words) -> Vec<Map<String, Value>> {
    let entries = match value.get("static") {
        Some(Value::Array(entries)) => entries.as_slice(),
        Some(entry) => std::slice::from_ref(entry),
        None => &[],
    };
    let mut apps = Vec::new();
    for entry in entries {
        match serve::of_static(entry) {
            Ok(app) => apps.push(app),
            Err(why) => words.problem("static", why),
        }
    }
    apps
}

/// The apps of a file: under `apps` (or `pm2`), as a list, or a single one.
fn apps_of<'a>(value: &'a Value, words: &mut Words) -> Result<Vec<&'a Map<String, Value>>, NoApps> {
    let list = match value {
        Value::Object(whole) => {
            for (key, advice) in keys::OF_THE_FILE {
                if whole.contains_key(*key) {
                    words.note("", format!("{key}: {advice}"));
                }
            }
            match whole.get("apps").or_else(|| whole.get("pm2")) {
                Some(apps) => apps,
                None if whole.contains_key("static") => return Ok(Vec::new()),
                None => value,
            }
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
