//! The configuration file as typed: every setting that is there, with its place; no default, no rule between settings.
//!
//! The TOML is walked by hand rather than through serde's derive, so that every problem of a file is found at once and
//! each has its line and column.
use super::hooks::HookEvent;
use super::parse;
use super::problem::{At, Found, Spot};
use super::{Balance, Listen, Protocol, Ready, Workers, cron, name};
use crate::limits::{APPS_MAX, PROBLEMS_MAX};
pub(crate) use agent::RawAgent;
pub(crate) use log::RawLog;
use std::collections::BTreeMap;
use std::time::Duration;
pub(crate) use tables::{RawLimits, RawReload, RawRestart, RawWatch};
use toml::de::{DeTable, DeValue};
use values::{Entry, entries, narrow};

mod agent;
mod log;
mod tables;
mod values;

/// Keys of the whole file.
pub const FILE_KEYS: &[&str] = &["app"];
/// Keys of one `[[app]]`.
pub const APP_KEYS: &[&str] = &[
    "name",
    "namespace",
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
    "instance_var",
    "increment_var",
    "cwd",
    "user",
    "group",
    "umask",
    "prefix",
    "cron_restart",
    "watch",
    "watch_ignore",
    "watch_delay",
    "restart",
    "reload",
    "hooks",
    "limits",
    "agent",
    "log",
];
/// Keys of `[app.restart]`.
pub const RESTART_KEYS: &[&str] = &[
    "min_uptime",
    "max_restarts",
    "window",
    "backoff_first",
    "backoff_min",
    "backoff_max",
    "delay",
    "max_runs",
    "stop_exit_codes",
];
/// Keys of `[app.reload]`.
pub const RELOAD_KEYS: &[&str] = &["canary", "drain_spread", "settle", "surge"];

/// Keys of `[app.hooks]`.
pub const HOOK_KEYS: &[&str] = &["worker_ready", "worker_exit", "reload_done", "reload_failed"];
/// Keys of `[app.limits]`.
pub const LIMITS_KEYS: &[&str] = &["memory", "lifetime", "max_connections", "hang", "hang_report", "hang_report_dir"];
/// Keys of `[app.log]`.
pub const LOG_KEYS: &[&str] =
    &["file", "out", "err", "per_worker", "format", "time", "max_size", "max_age", "keep", "compress"];

/// Keys of `[app.agent]`.
pub const AGENT_KEYS: &[&str] = &["command", "protocol", "ready", "ready_timeout", "kill_timeout", "restart_delay"];

/// Keys that have a meaning in a later release. To take them silently would be a lie.
const PLANNED_KEYS: &[&str] = &["control", "metrics"];

/// What other tools call a setting, and what it is here.
const OTHER_NAMES: &[(&str, &str)] = &[
    ("address", "write listen = [\"127.0.0.1:8080\"]"),
    ("backoff", "write backoff_min and backoff_max"),
    ("args", "put the arguments into command, one string each"),
    ("bind", "write listen = [\"127.0.0.1:8080\"]"),
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
    ("kill_signal", "the signals are fixed: SIGTERM, then SIGKILL after kill_timeout"),
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
    ("node_args", "put them into command: [\"node\", \"--flag\", \"app.js\"]"),
    ("out_file", "write out in [app.log]"),
    ("restart_delay", "write delay in [app.restart]"),
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
    pub(crate) namespace: Option<At<String>>,
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
    pub(crate) instance_var: Option<At<String>>,
    pub(crate) increment_var: Option<At<String>>,
    pub(crate) cwd: Option<At<String>>,
    pub(crate) user: Option<At<String>>,
    pub(crate) group: Option<At<String>>,
    pub(crate) umask: Option<At<u32>>,
    pub(crate) prefix: Option<At<bool>>,
    pub(crate) cron_restart: Option<At<String>>,
    pub(crate) watch: RawWatch,
    pub(crate) restart: RawRestart,
    pub(crate) reload: RawReload,
    pub(crate) hooks: BTreeMap<HookEvent, Vec<String>>,
    pub(crate) limits: RawLimits,
    pub(crate) agent: Option<RawAgent>,
    pub(crate) log: RawLog,
    /// `command` was there but unusable: that it is missing is not said as well.
    pub(crate) command_bad: bool,
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

impl Walk<'_> {
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
                "namespace" => {
                    app.namespace = self.text(&entry, "a string", |text| name::check(text).map(|()| text.to_owned()));
                }
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
                "instance_var" => app.instance_var = self.text(&entry, "a string", parse::instance_variable),
                "increment_var" => app.increment_var = self.text(&entry, "a string", parse::own_variable),
                "cwd" => app.cwd = self.text(&entry, "a string", path_text),
                "user" => app.user = self.identity(&entry),
                "group" => app.group = self.identity(&entry),
                "umask" => app.umask = self.umask(&entry),
                "prefix" => app.prefix = self.boolean(&entry),
                "cron_restart" => app.cron_restart = self.text(&entry, "a string", cron::read),
                "watch" => self.watch(&entry, &mut app.watch),
                "watch_ignore" => app.watch.ignore = Some(self.patterns(&entry)),
                "watch_delay" => app.watch.delay = self.duration(&entry, parse::duration_not_zero),
                "restart" => app.restart = self.restart(&entry),
                "reload" => app.reload = self.reload(&entry),
                "hooks" => app.hooks = self.hooks(&entry),
                "limits" => app.limits = self.limits(&entry),
                "agent" => app.agent = self.agent(&entry),
                "log" => app.log = self.log(&entry),
                _ => self.unknown(&entry, APP_KEYS, ""),
            }
        }
        app
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
