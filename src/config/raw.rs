//! The configuration file as typed: every key with its place; no defaults, no rules between settings. `schema` defines
//! the keys.
//!
//! The TOML is walked by hand rather than with serde's derive, so that every problem of a file is found at once, each
//! with its line and column.
use super::name;
use super::problem::{Found, Spot};
use super::schema::keys::{RawApp, RawFile};
use super::schema::{Raw, Scope, Setting, read_table};
use crate::limits::PROBLEMS_MAX;
use toml::de::DeTable;
pub(crate) use values::{Entry, entries, integer, narrow};

mod values;

/// Names of settings in other tools, with the names here.
const OTHER_NAMES: &[(&str, &str)] = &[
    ("address", "write listen = [\"127.0.0.1:8080\"]"),
    ("backoff", "write backoff_min and backoff_max"),
    ("args", "put the arguments into command, one string each"),
    ("bind", "write listen = [\"127.0.0.1:8080\"]"),
    ("affinity", "did you mean \"cpu_affinity\"?"),
    ("autorestart", "write max_runs = 1 in [app.restart]"),
    ("cmd", "did you mean \"command\"?"),
    ("cron", "did you mean \"cron_restart\"?"),
    ("environment", "did you mean \"env\"?"),
    ("err_file", "write err in [app.log]"),
    ("error_file", "write err in [app.log]"),
    ("exec", "did you mean \"command\"?"),
    ("exec_mode", "leave it out: protocol = \"auto\" decides by the program"),
    ("gid", "did you mean \"group\"?"),
    ("hang", "put it into [app.limits]"),
    ("host", "write listen = [\"127.0.0.1:8080\"]"),
    ("ignore_watch", "did you mean \"watch_ignore\"?"),
    ("instances", "did you mean \"workers\"?"),
    ("interpreter", "put it first into command: [\"node\", \"app.js\"]"),
    ("kill_signal", "did you mean \"stop_signal\"?"),
    ("listen_timeout", "did you mean \"ready_timeout\"?"),
    ("lifetime", "put it into [app.limits]"),
    ("log_date_format", "write time in [app.log]"),
    ("log_file", "write file in [app.log]"),
    ("log_type", "write format in [app.log]"),
    ("max_connections", "put it into [app.limits]"),
    ("max_memory_restart", "write memory = \"512M\" in [app.limits]"),
    ("max_runs", "put it into [app.restart]"),
    ("max_restarts", "put it into [app.restart]"),
    ("memory", "put it into [app.limits]"),
    ("min_uptime", "put it into [app.restart]"),
    ("no_new_privileges", "write new_privileges = false"),
    ("nofile", "put it into [app.rlimits]"),
    ("node_args", "put them into command: [\"node\", \"--flag\", \"app.js\"]"),
    ("out_file", "write out in [app.log]"),
    ("priority", "did you mean \"nice\"?"),
    ("restart_delay", "write delay in [app.restart]"),
    ("script", "write command = [\"node\", \"app.js\"]"),
    ("stop_exit_codes", "put it into [app.restart]"),
    ("ulimit", "did you mean \"rlimits\"?"),
    ("uid", "did you mean \"user\"?"),
    ("wait_ready", "write ready = \"message\""),
    ("working_directory", "did you mean \"cwd\"?"),
];

/// Parses a configuration file. Problems go to `found`; the rest can still be checked.
pub(crate) fn parse_file(text: &str, found: &mut Found) -> RawFile {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut bad_lines = Vec::new();
    let mut readable = true;
    for error in errors.into_iter().take(PROBLEMS_MAX) {
        let span = error.span().unwrap_or_default();
        let (message, harmless) = syntax_message(error.message(), text.get(span.clone()).unwrap_or_default());
        readable &= harmless;
        bad_lines.push(super::problem::line_column(text, span.start).0);
        found.add(Spot::File(span.start), message);
    }
    if !readable {
        return RawFile::default(); // What the parser made of the rest is guesswork; more complaints would mislead.
    }
    let mut walk = Walk { found, text, bad_lines };
    walk.file(table.get_ref())
}

/// The parser's message in a user's terms, and whether the rest of the file is usable.
fn syntax_message(message: &str, typed: &str) -> (String, bool) {
    if message.starts_with("duplicate key") {
        return (format!("duplicate key \"{}\"", typed.trim_matches('"')), true);
    }
    if message.starts_with("string values must be quoted") {
        return match typed {
            "" => ("a value is missing".into(), true),
            _ => (format!("text must stand in quotes: \"{typed}\""), true),
        };
    }
    if message.starts_with("cannot extend value of type inline table") {
        let hint = "what was written as { ... } cannot be added to; use dotted keys (env.NAME = \"value\") or a table ([app.env])";
        return (format!("\"{typed}\": {hint}"), true);
    }
    (format!("this is not TOML: {message}"), false)
}

/// Walks a file and collects problems.
pub(crate) struct Walk<'a> {
    found: &'a mut Found,
    text: &'a str,
    /// Lines with a syntax error: no further problems are reported there.
    bad_lines: Vec<usize>,
}

impl Walk<'_> {
    fn file(&mut self, table: &DeTable<'_>) -> RawFile {
        let file: RawFile = read_table(self, table, Spot::File(0));
        // A misspelled "app", and keys outside of an app, are reported already.
        let meant = |key: &str| key.starts_with("app") || RawApp::SETTINGS.iter().any(|setting| setting.name == key);
        if !entries(table).iter().any(|entry| meant(entry.key)) {
            self.found.add(Spot::File(0), "no app is configured: begin with a line [[app]]");
        }
        file
    }

    /// Reports an unknown key of a table.
    pub(super) fn unknown(&mut self, entry: &Entry<'_>, scope: &Scope, known: &[Setting]) {
        if self.found.is_full() {
            return; // Looking for the nearest name takes its time.
        }
        let key = entry.key;
        let table = if scope.path.contains('.') { format!(" in [{}]", scope.path) } else { String::new() };
        let message = if scope.path.is_empty() && RawApp::SETTINGS.iter().any(|setting| setting.name == key) {
            format!("\"{key}\" belongs to an app: put it below a line [[app]]")
        } else if let Some((_, hint)) = OTHER_NAMES.iter().find(|(other, _)| *other == key) {
            format!("unknown key \"{key}\"{table}; {hint}")
        } else {
            let known: Vec<&str> = known.iter().map(|setting| setting.name).collect();
            format!("unknown key \"{}\"{table}{}", key.escape_debug(), name::did_you_mean(key, &known))
        };
        self.add(entry.key_spot, message);
    }
}
