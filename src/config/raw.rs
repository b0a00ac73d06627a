//! The configuration file as typed: every setting that is there, with its place; no default, no rule between settings.
//!
//! The TOML is walked by hand rather than through serde's derive, so that every problem of a file is found at once and
//! each has its line and column.
use super::hooks::HookEvent;
use super::parse;
use super::problem::{At, Found, Spot};
use super::{Balance, Listen, Protocol, Ready, Workers, env_file, name};
use crate::limits::{APPS_MAX, FAILURES_REMEMBERED_MAX, LISTENERS_PER_APP_MAX, PROBLEMS_MAX, WORKERS_MAX};
pub(crate) use log::RawLog;
use std::collections::BTreeMap;
use std::time::Duration;
use toml::de::{DeTable, DeValue};

mod log;

/// Keys of the whole file.
pub const FILE_KEYS: &[&str] = &["app"];
/// Keys of one `[[app]]`.
pub const APP_KEYS: &[&str] = &[
    "name",
    "command",
    "workers",
    "listen",
    "port",
    "balance",
    "protocol",
    "ready",
    "ready_timeout",
    "drain_timeout",
    "kill_timeout",
    "env",
    "env_file",
    "cwd",
    "user",
    "group",
    "umask",
    "prefix",
    "restart",
    "reload",
    "hooks",
    "limits",
    "log",
];
/// Keys of `[app.restart]`.
pub const RESTART_KEYS: &[&str] =
    &["min_uptime", "max_restarts", "window", "backoff_min", "backoff_max", "stop_exit_codes"];
/// Keys of `[app.reload]`.
pub const RELOAD_KEYS: &[&str] = &["canary", "drain_spread", "surge"];

/// Keys of `[app.hooks]`.
pub const HOOK_KEYS: &[&str] = &["worker_ready", "worker_exit", "reload_done", "reload_failed"];
/// Keys of `[app.limits]`.
pub const LIMITS_KEYS: &[&str] = &["memory", "lifetime", "max_connections", "hang", "hang_report"];
/// Keys of `[app.log]`.
pub const LOG_KEYS: &[&str] =
    &["file", "out", "err", "per_worker", "format", "time", "max_size", "max_age", "keep", "compress"];

/// Keys that have a meaning in a later release. To take them silently would be a lie.
const PLANNED_KEYS: &[&str] = &["agent", "control", "cron_restart", "metrics", "watch"];

/// What other tools call a setting, and what it is here.
const OTHER_NAMES: &[(&str, &str)] = &[
    ("address", "write listen = [\"127.0.0.1:8080\"]"),
    ("backoff", "write backoff_min and backoff_max"),
    ("args", "put the arguments into command, one string each"),
    ("bind", "write listen = [\"127.0.0.1:8080\"]"),
    ("cmd", "did you mean \"command\"?"),
    ("environment", "did you mean \"env\"?"),
    ("err_file", "write err in [app.log]"),
    ("error_file", "write err in [app.log]"),
    ("exec", "did you mean \"command\"?"),
    ("exec_mode", "leave it out: protocol = \"auto\" decides by the program"),
    ("gid", "did you mean \"group\"?"),
    ("hang", "put it into [app.limits]"),
    ("host", "write listen = [\"127.0.0.1:8080\"]"),
    ("instances", "did you mean \"workers\"?"),
    ("interpreter", "put it first into command: [\"node\", \"app.js\"]"),
    ("kill_signal", "the signals are fixed: SIGTERM, then SIGKILL after kill_timeout"),
    ("listen_timeout", "did you mean \"ready_timeout\"?"),
    ("lifetime", "put it into [app.limits]"),
    ("log_date_format", "write time in [app.log]"),
    ("log_file", "write file in [app.log]"),
    ("log_type", "write format in [app.log]"),
    ("max_connections", "put it into [app.limits]"),
    ("max_memory_restart", "write memory = \"512M\" in [app.limits]"),
    ("max_restarts", "put it into [app.restart]"),
    ("memory", "put it into [app.limits]"),
    ("min_uptime", "put it into [app.restart]"),
    ("node_args", "put them into command: [\"node\", \"--flag\", \"app.js\"]"),
    ("out_file", "write out in [app.log]"),
    ("script", "write command = [\"node\", \"app.js\"]"),
    ("stop_exit_codes", "put it into [app.restart]"),
    ("uid", "did you mean \"user\"?"),
    ("wait_ready", "write ready = \"message\""),
    ("working_directory", "did you mean \"cwd\"?"),
];

/// One `[[app]]`, or what the command line says of one.
#[derive(Debug, Default)]
pub(crate) struct RawApp {
    /// Place of its `[[app]]`.
    pub(crate) spot: Option<Spot>,
    pub(crate) name: Option<At<String>>,
    pub(crate) command: Option<At<Vec<String>>>,
    pub(crate) workers: Option<At<Workers>>,
    pub(crate) port: Option<At<u16>>,
    pub(crate) listen: Vec<At<Listen>>,
    pub(crate) balance: Option<At<Balance>>,
    pub(crate) protocol: Option<At<Protocol>>,
    pub(crate) ready: Option<At<Ready>>,
    pub(crate) ready_timeout: Option<At<Duration>>,
    pub(crate) drain_timeout: Option<At<Duration>>,
    pub(crate) kill_timeout: Option<At<Duration>>,
    pub(crate) env: BTreeMap<String, String>,
    /// The `env.NAME` tables.
    pub(crate) env_named: BTreeMap<String, BTreeMap<String, String>>,
    pub(crate) env_files: Vec<At<String>>,
    pub(crate) cwd: Option<At<String>>,
    pub(crate) user: Option<At<String>>,
    pub(crate) group: Option<At<String>>,
    pub(crate) umask: Option<At<u32>>,
    pub(crate) prefix: Option<At<bool>>,
    pub(crate) restart: RawRestart,
    pub(crate) reload: RawReload,
    pub(crate) hooks: BTreeMap<HookEvent, Vec<String>>,
    pub(crate) limits: RawLimits,
    pub(crate) log: RawLog,
    /// `command` was there but unusable: that it is missing is not said as well.
    pub(crate) command_bad: bool,
}

/// `[app.restart]`.
#[derive(Debug, Default)]
pub(crate) struct RawRestart {
    pub(crate) min_uptime: Option<At<Duration>>,
    /// `Some(None)`: never give up.
    pub(crate) max_restarts: Option<At<Option<u32>>>,
    pub(crate) window: Option<At<Duration>>,
    pub(crate) backoff_min: Option<At<Duration>>,
    pub(crate) backoff_max: Option<At<Duration>>,
    pub(crate) stop_exit_codes: Option<Vec<i32>>,
}

/// `[app.reload]`.
#[derive(Debug, Default)]
pub(crate) struct RawReload {
    pub(crate) surge: Option<At<u32>>,
    pub(crate) canary: Option<At<Duration>>,
    pub(crate) drain_spread: Option<At<Duration>>,
}

/// `[app.limits]`.
#[derive(Debug, Default)]
pub(crate) struct RawLimits {
    pub(crate) memory: Option<At<u64>>,
    pub(crate) lifetime: Option<At<Duration>>,
    pub(crate) max_connections: Option<At<u64>>,
    pub(crate) hang: Option<At<Duration>>,
    pub(crate) hang_report: Option<At<bool>>,
}

/// The apps of a configuration file. What is wrong goes to `found`; what is left can still be judged further.
pub(crate) fn parse_file(text: &str, found: &mut Found) -> Vec<RawApp> {
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
        return Vec::new(); // What the parser made of the rest is guesswork; more complaints would mislead.
    }
    let mut walk = Walk { found, text, bad_lines };
    walk.file(table.get_ref())
}

/// The parser's message in a user's words, and whether the rest of the file can be trusted.
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
    (format!("this is no TOML: {message}"), false)
}

struct Walk<'a> {
    found: &'a mut Found,
    text: &'a str,
    /// Lines that the parser complained of: nothing more is said about them.
    bad_lines: Vec<usize>,
}

/// A key with its value.
struct Entry<'a> {
    key: &'a str,
    key_spot: Spot,
    value: &'a DeValue<'a>,
    spot: Spot,
}

impl Walk<'_> {
    fn add(&mut self, spot: Spot, message: impl Into<String>) {
        if let Spot::File(offset) = spot
            && !self.bad_lines.is_empty()
            && !self.found.is_full()
            && self.bad_lines.contains(&super::problem::line_column(self.text, offset).0)
        {
            return;
        }
        self.found.add(spot, message);
    }

    fn keep<T>(&mut self, spot: Spot, result: Result<T, String>) -> Option<At<T>> {
        match result {
            Ok(value) => Some(At { value, spot }),
            Err(message) => {
                self.add(spot, message);
                None
            }
        }
    }

    fn file(&mut self, table: &DeTable<'_>) -> Vec<RawApp> {
        let mut apps = Vec::new();
        let mut any = false;
        for entry in entries(table) {
            match (entry.key, entry.value) {
                ("app", DeValue::Array(array)) if array.iter().all(|item| item.get_ref().is_table()) => {
                    any = true;
                    if array.len() > APPS_MAX {
                        self.add(entry.key_spot, format!("{} apps are too many: {APPS_MAX} is the most", array.len()));
                        continue;
                    }
                    for item in array.iter() {
                        let table = item.get_ref().as_table();
                        apps.extend(table.map(|table| self.app(table, Spot::File(item.span().start))));
                    }
                }
                ("app", _) => {
                    any = true;
                    self.add(entry.key_spot, "each app begins with [[app]], in double brackets");
                }
                (key, _) if APP_KEYS.contains(&key) => {
                    any = true;
                    self.add(entry.key_spot, format!("\"{key}\" belongs to an app: put it below a line [[app]]"));
                }
                _ => {
                    any |= entry.key.starts_with("app");
                    self.unknown(&entry, FILE_KEYS, "");
                }
            }
        }
        if !any {
            self.found.add(Spot::File(0), "no app is configured: begin with a line [[app]]");
        }
        apps
    }

    fn app(&mut self, table: &DeTable<'_>, spot: Spot) -> RawApp {
        let mut app = RawApp { spot: Some(spot), ..RawApp::default() };
        for entry in entries(table) {
            match entry.key {
                "name" => app.name = self.text(&entry, "a string", |text| name::check(text).map(|()| text.to_owned())),
                "command" => {
                    app.command = self.command(&entry);
                    app.command_bad = app.command.is_none();
                }
                "workers" => app.workers = self.workers(&entry),
                "port" => app.port = self.port(&entry),
                "listen" => app.listen = self.listen(&entry),
                "balance" => app.balance = self.text(&entry, "a string", parse::balance),
                "protocol" => app.protocol = self.text(&entry, "a string", parse::protocol),
                "ready" => app.ready = self.text(&entry, "a string", parse::ready),
                "ready_timeout" => app.ready_timeout = self.duration(&entry, parse::duration_not_zero),
                "drain_timeout" => app.drain_timeout = self.duration(&entry, parse::duration),
                "kill_timeout" => app.kill_timeout = self.duration(&entry, parse::duration),
                "env" => self.env(&entry, &mut app),
                "env_file" => app.env_files = self.strings(&entry, path_text),
                "cwd" => app.cwd = self.text(&entry, "a string", path_text),
                "user" => app.user = self.identity(&entry),
                "group" => app.group = self.identity(&entry),
                "umask" => app.umask = self.umask(&entry),
                "prefix" => app.prefix = self.boolean(&entry),
                "restart" => app.restart = self.restart(&entry),
                "reload" => app.reload = self.reload(&entry),
                "hooks" => app.hooks = self.hooks(&entry),
                "limits" => app.limits = self.limits(&entry),
                "log" => app.log = self.log(&entry),
                _ => self.unknown(&entry, APP_KEYS, ""),
            }
        }
        app
    }

    fn restart(&mut self, entry: &Entry<'_>) -> RawRestart {
        let mut restart = RawRestart::default();
        let Some(table) = self.table(entry) else { return restart };
        for entry in entries(table) {
            match entry.key {
                "min_uptime" => restart.min_uptime = self.duration(&entry, parse::duration),
                "max_restarts" => restart.max_restarts = self.max_restarts(&entry),
                "window" => restart.window = self.duration(&entry, parse::duration_not_zero),
                "backoff_min" => restart.backoff_min = self.duration(&entry, parse::duration_not_zero),
                "backoff_max" => restart.backoff_max = self.duration(&entry, parse::duration_not_zero),
                "stop_exit_codes" => restart.stop_exit_codes = self.exit_codes(&entry),
                _ => self.unknown(&entry, RESTART_KEYS, " in [app.restart]"),
            }
        }
        restart
    }

    fn reload(&mut self, entry: &Entry<'_>) -> RawReload {
        let mut reload = RawReload::default();
        let Some(table) = self.table(entry) else { return reload };
        for entry in entries(table) {
            match entry.key {
                "surge" => {
                    let range = format!("surge must be a number from 1 to {WORKERS_MAX}");
                    reload.surge = self.number(&entry, &range, 1..=i64::from(WORKERS_MAX)).map(|at| narrow(&at));
                }
                "canary" => reload.canary = self.duration(&entry, parse::duration),
                "drain_spread" => reload.drain_spread = self.duration(&entry, parse::duration),
                _ => self.unknown(&entry, RELOAD_KEYS, " in [app.reload]"),
            }
        }
        reload
    }

    fn hooks(&mut self, entry: &Entry<'_>) -> BTreeMap<HookEvent, Vec<String>> {
        let mut hooks = BTreeMap::new();
        let Some(table) = self.table(entry) else { return hooks };
        for entry in entries(table) {
            match HookEvent::ALL.into_iter().find(|event| event.key() == entry.key) {
                Some(event) => hooks.extend(self.command(&entry).map(|command| (event, command.value))),
                None => self.unknown(&entry, HOOK_KEYS, " in [app.hooks]"),
            }
        }
        hooks
    }

    fn limits(&mut self, entry: &Entry<'_>) -> RawLimits {
        let mut limits = RawLimits::default();
        let Some(table) = self.table(entry) else { return limits };
        for entry in entries(table) {
            match entry.key {
                "memory" => limits.memory = self.size(&entry),
                "lifetime" => limits.lifetime = self.duration(&entry, parse::duration_not_zero),
                "max_connections" => {
                    let most = i64::MAX;
                    let range = format!("max_connections must be a number from 1 to {most}");
                    limits.max_connections = self.number(&entry, &range, 1..=most).map(|at| narrow(&at));
                }
                "hang" => limits.hang = self.duration(&entry, parse::hang),
                "hang_report" => limits.hang_report = self.boolean(&entry),
                _ => self.unknown(&entry, LIMITS_KEYS, " in [app.limits]"),
            }
        }
        limits
    }

    fn size(&mut self, entry: &Entry<'_>) -> Option<At<u64>> {
        match integer(entry.value) {
            Some(number) => self.keep(
                entry.spot,
                Err(format!("{} is {number} of what? Add a unit, in quotes: \"{number}M\" for megabytes", entry.key)),
            ),
            None => self.text(entry, "a size with its unit, in quotes, such as \"512M\"", parse::size),
        }
    }

    fn unknown(&mut self, entry: &Entry<'_>, known: &[&str], table: &str) {
        if self.found.is_full() {
            return; // Looking for the nearest name takes its time.
        }
        let key = entry.key;
        let message = if PLANNED_KEYS.contains(&key) {
            format!("\"{key}\" is not available in this release; leave it out")
        } else if let Some((_, hint)) = OTHER_NAMES.iter().find(|(other, _)| *other == key) {
            format!("unknown key \"{key}\"{table}; {hint}")
        } else {
            format!("unknown key \"{}\"{table}{}", key.escape_debug(), name::did_you_mean(key, known))
        };
        self.add(entry.key_spot, message);
    }

    fn wrong_type<T>(&mut self, entry: &Entry<'_>, wants: &str) -> Option<T> {
        self.add(entry.spot, format!("{} must be {wants}, not {}", entry.key, type_name(entry.value)));
        None
    }

    fn table<'v>(&mut self, entry: &Entry<'v>) -> Option<&'v DeTable<'v>> {
        match entry.value {
            DeValue::Table(table) => Some(table),
            _ => self.wrong_type(entry, "a table"),
        }
    }

    fn text<T>(&mut self, entry: &Entry<'_>, wants: &str, read: impl Fn(&str) -> Result<T, String>) -> Option<At<T>> {
        match entry.value.as_str() {
            Some(text) => self.keep(entry.spot, read(text)),
            None => self.wrong_type(entry, wants),
        }
    }

    fn duration(&mut self, entry: &Entry<'_>, read: fn(&str) -> Result<Duration, String>) -> Option<At<Duration>> {
        match integer(entry.value) {
            Some(number) => self.keep(
                entry.spot,
                Err(format!(
                    "{} is {number} of what? Add a unit, in quotes: \"{number}s\" for seconds, \"{number}ms\" for milliseconds",
                    entry.key
                )),
            ),
            None => self.text(entry, "a time with its unit, in quotes, such as \"30s\"", read),
        }
    }

    fn number(&mut self, entry: &Entry<'_>, rule: &str, range: std::ops::RangeInclusive<i64>) -> Option<At<i64>> {
        match (entry.value, integer(entry.value)) {
            (_, Some(number)) if range.contains(&number) => Some(At { value: number, spot: entry.spot }),
            (DeValue::Integer(typed), _) => self.keep(entry.spot, Err(format!("{rule}, not {typed}"))),
            _ => self.keep(entry.spot, Err(format!("{rule}, not {}", type_name(entry.value)))),
        }
    }

    fn boolean(&mut self, entry: &Entry<'_>) -> Option<At<bool>> {
        match entry.value.as_bool() {
            Some(value) => Some(At { value, spot: entry.spot }),
            None => self.wrong_type(entry, "true or false"),
        }
    }

    fn workers(&mut self, entry: &Entry<'_>) -> Option<At<Workers>> {
        match entry.value {
            DeValue::Integer(typed) => self.keep(entry.spot, parse::workers(&typed.to_string())),
            _ => self.text(entry, "a number, \"max\", \"max-1\" or \"50%\"", parse::workers),
        }
    }

    fn port(&mut self, entry: &Entry<'_>) -> Option<At<u16>> {
        let rule = "port must be a number from 0 to 65535 (0: any free one)";
        self.number(entry, rule, 0..=65535).map(|at| narrow(&at))
    }

    /// One string, or an array of strings (a number is taken as a port).
    fn listen(&mut self, entry: &Entry<'_>) -> Vec<At<Listen>> {
        let count = entry.value.as_array().map_or(1, |array| array.len());
        if count > LISTENERS_PER_APP_MAX {
            let most = LISTENERS_PER_APP_MAX;
            self.add(entry.spot, format!("{count} addresses to listen on are too many: {most} is the most"));
            return Vec::new();
        }
        self.strings(entry, parse::listen)
    }

    fn strings<T>(&mut self, entry: &Entry<'_>, read: fn(&str) -> Result<T, String>) -> Vec<At<T>> {
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

    fn command(&mut self, entry: &Entry<'_>) -> Option<At<Vec<String>>> {
        let DeValue::Array(array) = entry.value else {
            let read = |text: &str| parse::command_line(text).map_err(|message| named(entry.key, message));
            return self.text(entry, "an array of strings, such as [\"node\", \"app.js\"]", read);
        };
        if let Some(item) = array.iter().find(|item| !item.get_ref().is_str()) {
            let wrong = format!("{} must hold strings only, not {}", entry.key, type_name(item.get_ref()));
            return self.keep(Spot::File(item.span().start), Err(wrong));
        }
        let words: Vec<String> = array.iter().filter_map(|item| item.get_ref().as_str().map(str::to_owned)).collect();
        let checked = parse::command(&words).map_err(|message| named(entry.key, message));
        self.keep(entry.spot, checked.map(|()| words))
    }

    /// `NAME = "value"`, and tables `NAME = { ... }` for `--env NAME`.
    fn env(&mut self, entry: &Entry<'_>, app: &mut RawApp) {
        let Some(table) = self.table(entry) else { return };
        for entry in entries(table) {
            if let DeValue::Table(named) = entry.value {
                let pairs = entries(named).into_iter().filter_map(|entry| self.variable(&entry)).collect();
                app.env_named.insert(entry.key.to_owned(), pairs);
            } else if let Some((name, value)) = self.variable(&entry) {
                app.env.insert(name, value);
            }
        }
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
    fn identity(&mut self, entry: &Entry<'_>) -> Option<At<String>> {
        match integer(entry.value) {
            Some(number) if (0..i64::from(u32::MAX)).contains(&number) => {
                Some(At { value: number.to_string(), spot: entry.spot })
            }
            _ => self.text(entry, "a name or a number", identity_text),
        }
    }

    fn umask(&mut self, entry: &Entry<'_>) -> Option<At<u32>> {
        match entry.value {
            // TOML's own octal form says what it is; a decimal number would be taken for octal by mistake.
            DeValue::Integer(typed) if typed.radix() == 8 => self.keep(entry.spot, parse::umask(typed.as_str())),
            DeValue::Integer(typed) => {
                let message = format!("umask must be octal digits in quotes, such as \"027\", not the number {typed}");
                self.keep(entry.spot, Err(message))
            }
            _ => self.text(entry, "octal digits in quotes, such as \"027\"", parse::umask),
        }
    }

    fn max_restarts(&mut self, entry: &Entry<'_>) -> Option<At<Option<u32>>> {
        let rule =
            format!("max_restarts must be a number from 1 to {FAILURES_REMEMBERED_MAX}, or \"never\" (never give up)");
        match entry.value.as_str() {
            Some("never" | "unlimited") => Some(At { value: None, spot: entry.spot }),
            Some(other) => self.keep(entry.spot, Err(format!("{rule}, not \"{other}\""))),
            None => {
                let at = self.number(entry, &rule, 1..=FAILURES_REMEMBERED_MAX as i64)?;
                let spot = at.spot;
                Some(At { value: Some(narrow::<u32>(&at).value), spot })
            }
        }
    }

    fn exit_codes(&mut self, entry: &Entry<'_>) -> Option<Vec<i32>> {
        let DeValue::Array(array) = entry.value else {
            return self.wrong_type(entry, "an array of exit codes, such as [0, 3]");
        };
        let rule = "stop_exit_codes must be numbers from 0 to 255";
        let mut codes = Vec::new();
        for item in array.iter() {
            let spot = Spot::File(item.span().start);
            let item = Entry { key: entry.key, key_spot: spot, value: item.get_ref(), spot };
            codes.extend(self.number(&item, rule, 0..=255).map(|at| narrow::<i32>(&at).value));
        }
        codes.sort_unstable();
        codes.dedup();
        Some(codes)
    }
}

/// What is wrong with a command, said of the key that holds it.
fn named(key: &str, message: String) -> String {
    message.strip_prefix("command ").map(|rest| format!("{key} {rest}")).unwrap_or(message)
}

/// A number whose range was checked, as a smaller type.
fn narrow<T: TryFrom<i64> + Default>(at: &At<i64>) -> At<T> {
    At { value: T::try_from(at.value).unwrap_or_default(), spot: at.spot }
}

fn entries<'v>(table: &'v DeTable<'_>) -> Vec<Entry<'v>> {
    let entry = |(key, value): (&'v toml::Spanned<toml::de::DeString<'_>>, &'v toml::Spanned<DeValue<'_>>)| Entry {
        key: key.get_ref(),
        key_spot: Spot::File(key.span().start),
        value: value.get_ref(),
        spot: Spot::File(value.span().start),
    };
    table.iter().map(entry).collect()
}

/// The value of an integer of any radix, where it fits.
fn integer(value: &DeValue<'_>) -> Option<i64> {
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

/// A path that the kernel could take.
pub(crate) fn path_text(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains('\0') {
        return Err("a path is empty or holds a zero byte".into());
    }
    Ok(text.to_owned())
}

/// The name or number of a user or group.
pub(crate) fn identity_text(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains([':', '\0', '\n']) {
        return Err(format!("\"{}\" is no name of a user or group", text.escape_debug()));
    }
    Ok(text.to_owned())
}
