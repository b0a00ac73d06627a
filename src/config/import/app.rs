//! Converts one PM2 app to one `[[app]]`.
use super::super::{defaults, env_file, log, log_time};
use super::fields::{self, Fields};
use super::write::Section;
use super::{Script, Surroundings, Words, keys, serve};
use crate::config::defaults::SERVE_FLAG;
use crate::config::{Restart, cron, name, parse};
use crate::limits::{DURATION_MS_MAX, FAILURES_REMEMBERED_MAX, MEMORY_LIMIT_BYTES_MAX, WORKERS_MAX};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// How long PM2 waits for a worker to listen, in milliseconds.
const PM2_LISTEN_TIMEOUT_MS: u64 = 3_000;

/// What is said to who starts a `package.json`.
const IS_PACKAGE: &str =
    "script is missing: this is npm's description of a package; to run its start script: clusterd start -- npm start";

/// An app during its conversion.
struct Conversion<'a, 'w> {
    fields: Fields<'a>,
    /// Its name in messages.
    label: String,
    words: &'w mut Words,
    section: Section,
}

/// Converts one app. `names` are the names of the earlier apps.
pub(super) fn convert(
    app: &Map<String, Value>,
    index: usize,
    is_dump: bool,
    names: &mut Vec<String>,
    around: &Surroundings<'_>,
    words: &mut Words,
) -> Section {
    let mut it = Conversion { fields: Fields::new(app), label: String::new(), words, section: Section::default() };
    it.name(index, names);
    let cwd = it.text(&["cwd"]);
    let is_node = it.command(cwd.as_deref(), around);
    let is_fork = it.workers(is_node);
    if let Some(cwd) = &cwd {
        it.section.app.text("cwd", cwd, "");
    }
    it.identity();
    it.readiness(is_node, is_fork);
    it.time_to_end(is_node);
    it.restart();
    it.times_and_files();
    it.memory();
    it.environment();
    it.logs();
    it.rest(is_dump);
    it.section
}

impl Conversion<'_, '_> {
    fn note(&mut self, text: impl AsRef<str>) {
        self.words.note(&self.label, text);
    }

    /// The value under one of these names, in the wanted type. A value of another type is noted and left out.
    fn get<T>(&mut self, names: &[&str], wants: &str, read: fn(&Value) -> Option<T>) -> Option<T> {
        let (typed, value) = self.fields.take(names)?;
        let found = read(value);
        if found.is_none() {
            self.note(format!("{typed}: {value} is not {wants}; left out"));
        }
        found
    }

    fn text(&mut self, names: &[&str]) -> Option<String> {
        self.get(names, "text", fields::text).filter(|text| !text.is_empty() && !text.contains('\0'))
    }

    fn yes(&mut self, names: &[&str]) -> bool {
        self.get(names, "true or false", fields::boolean) == Some(true)
    }

    fn ms(&mut self, names: &[&str]) -> Option<u64> {
        let ms = self.get(names, "a number of milliseconds", fields::milliseconds)?;
        Some(ms.min(DURATION_MS_MAX))
    }

    // ---- name, command, workers ----

    /// PM2 allows any name, and duplicates.
    fn name(&mut self, index: usize, names: &mut Vec<String>) {
        self.label = format!("app {}", index + 1);
        let typed = self.text(&["name"]);
        let script = self.fields.take(&["script", "exec", "cmd", "command", "pm_exec_path"]);
        let script = script.and_then(|(_, value)| value.as_str()).unwrap_or_default();
        let wanted = typed.clone().unwrap_or_else(|| {
            let file = script.rsplit('/').next().unwrap_or_default();
            file.rsplit_once('.').map_or(file, |(stem, _)| stem).to_owned()
        });
        let fits = if name::check(&wanted).is_ok() { wanted.clone() } else { name::cleaned(&wanted) };
        let free = name::unique(&fits, |name| names.iter().any(|other| other == name));
        names.push(free.clone());
        if !wanted.is_empty() {
            self.label.clone_from(&free);
        }
        let why = if typed.is_none() { "from its script" } else { "" };
        self.section.app.text("name", &free, why);
        if typed.as_ref().is_some_and(|typed| *typed != free) {
            self.note(format!(
                "name: \"{wanted}\" is called {free} here: a name is unique, and one word of letters, digits and .-_"
            ));
        }
        if let Some(namespace) = self.text(&["namespace"]).filter(|namespace| namespace != "default") {
            match name::check(&namespace) {
                Ok(()) => self.section.app.text("namespace", &namespace, ""),
                Err(why) => self.note(format!("namespace: {why}; left out")),
            }
        }
    }

    /// Returns whether node runs it.
    fn command(&mut self, cwd: Option<&str>, around: &Surroundings<'_>) -> bool {
        let script = self.text(&["script", "exec", "cmd", "command", "pm_exec_path"]);
        let args = self.get(&["args"], "a string or a list", fields::words).unwrap_or_default();
        let typed = self.text(&["exec_interpreter", "interpreter"]);
        let flags = self.get(&["node_args", "interpreter_args"], "a string or a list", fields::words);
        let mut flags = flags.unwrap_or_default();
        let Some(script) = script else {
            let is_package = self.fields.take(&["scripts", "dependencies", "devDependencies"]).is_some();
            self.words.problem(&self.label, if is_package { IS_PACKAGE } else { "script is missing: say what to run" });
            return false;
        };
        if script == "serve" && self.serves_files(cwd, around) {
            return false;
        }
        if script.contains(char::is_whitespace) && (around.look)(cwd, &script) == Script::Missing {
            let command = ["bash", "-c", &script].map(str::to_owned);
            self.section.app.list("command", &command, "script is a line for a shell");
            self.note(format!(
                "script: a shell stands between clusterd and \"{script}\"; name the program itself, and for a Node app its script"
            ));
            return false;
        }
        let interpreter = match typed.as_deref() {
            Some("none") => None,
            Some(typed) if typed.starts_with("node@") => {
                self.note(format!(
                    "interpreter: {typed} is nvm's; the node of PATH is used: write its path to choose one"
                ));
                Some("node".to_owned())
            }
            Some(typed) => Some(typed.to_owned()),
            None => interpreter(&script, (around.look)(cwd, &script)).map(str::to_owned),
        };
        let runner = interpreter.as_deref().and_then(|program| program.rsplit('/').next()).unwrap_or_default();
        let is_node = matches!(runner, "node" | "nodejs");
        if self.yes(&["source_map_support"]) && is_node {
            flags.insert(0, "--enable-source-maps".to_owned());
        }
        // A word without a slash would be looked up in PATH.
        let own = interpreter.is_none() && !script.contains('/') && (around.look)(cwd, &script) != Script::InPath;
        let script = if own { format!("./{script}") } else { script };
        let flags = if interpreter.is_some() { flags } else { Vec::new() };
        let command: Vec<String> = interpreter.into_iter().chain(flags).chain([script]).chain(args).collect();
        if let Err(why) = parse::command(&command) {
            self.words.problem(&self.label, why.to_string());
            return false;
        }
        self.section.app.list("command", &command, "");
        is_node
    }

    /// PM2's file server, if the app is that: its settings are in the environment. A file of that name is a script.
    fn serves_files(&mut self, cwd: Option<&str>, around: &Surroundings<'_>) -> bool {
        let env = self.fields.take(&["env"]).and_then(|(_, value)| value.as_object());
        let is_set = env.is_some_and(|env| env.keys().any(|name| serve::is_setting(name)));
        if !is_set && !matches!((around.look)(cwd, "serve"), Script::Missing | Script::InPath) {
            return false;
        }
        self.section.app.list("command", &[around.program.to_owned(), SERVE_FLAG.to_owned()], "script: \"serve\"");
        self.section.app.list("listen", &[serve::address(env)], "PM2_SERVE_PORT");
        self.section.app.text("protocol", "listen-fds", "");
        self.section.app.text("ready", "notify", "");
        true
    }

    /// Whether the app binds its addresses itself in PM2.
    fn workers(&mut self, is_node: bool) -> bool {
        let mode = self.text(&["exec_mode"]);
        let typed = self.fields.take(&["instances"]);
        let (workers, why) = match typed {
            None => ("1".to_owned(), "PM2 runs one where nothing is said".to_owned()),
            Some((_, value)) => {
                let shown = format!("instances: {value}");
                match fields::integer(value).unwrap_or_default() {
                    0 => ("\"max\"".to_owned(), shown),
                    less @ ..0 => (format!("\"max-{}\"", less.unsigned_abs().min(u64::from(WORKERS_MAX - 1))), shown),
                    count if count > i64::from(WORKERS_MAX) => {
                        self.words.problem(
                            &self.label,
                            format!("instances: {count} are too many: {WORKERS_MAX} is the most"),
                        );
                        (WORKERS_MAX.to_string(), shown)
                    }
                    count => (count.to_string(), String::new()),
                }
            }
        };
        self.section.app.raw("workers", workers, why);
        match mode.as_deref() {
            Some("cluster" | "cluster_mode") => false,
            Some("fork" | "fork_mode") => true,
            Some(other) => {
                self.note(format!("exec_mode: \"{other}\" is neither cluster nor fork; left out"));
                typed.is_none()
            }
            None => typed.is_none() || !is_node,
        }
    }

    fn identity(&mut self) {
        if let Some(user) = self.text(&["uid", "user"]) {
            self.section.app.text("user", &user, "");
        }
        if let Some(group) = self.text(&["gid"]) {
            self.section.app.text("group", &group, "");
        }
    }

    // ---- restarts and time-outs ----

    fn readiness(&mut self, is_node: bool, is_fork: bool) {
        let wait = self.yes(&["wait_ready"]);
        let timeout = self.ms(&["listen_timeout"]);
        let default = ms(defaults::READY_TIMEOUT);
        if wait && is_node {
            // PM2's own default is so short that a slow start would replace workers that serve.
            let rule = format!("message or {}", duration(timeout.unwrap_or(default).max(1)));
            let why = "wait_ready; as in PM2, a worker that never sends it counts as ready then";
            self.section.app.text("ready", &rule, why);
        } else if is_node && (is_fork || timeout.is_some()) {
            let rule = format!("listening or {}", duration(timeout.unwrap_or(PM2_LISTEN_TIMEOUT_MS).max(1)));
            self.section.app.text("ready", &rule, "as in PM2, ready after this time also without listen()");
        }
        if wait && !is_node {
            self.note("wait_ready: only Node programs have process.send; ready = \"notify\" is for READY=1");
        }
        if let Some(timeout) = timeout.filter(|timeout| !is_node && *timeout > default) {
            self.section.app.text("ready_timeout", &duration(timeout), format!("listen_timeout: {timeout}"));
        }
    }

    fn time_to_end(&mut self, is_node: bool) {
        if !self.yes(&["shutdown_with_message"]) && is_node {
            self.section.app.text("stop_signal", "SIGINT", "PM2's; the message \"shutdown\" comes first");
        }
        let Some(timeout) = self.ms(&["kill_timeout"]) else { return };
        if timeout > ms(defaults::DRAIN_TIMEOUT) {
            self.section.app.text("drain_timeout", &duration(timeout), "the time to finish connections is apart here");
        }
        self.section.app.text("kill_timeout", &duration(timeout), "");
    }

    fn restart(&mut self) {
        if self.get(&["autostart"], "true or false", fields::boolean) == Some(false) {
            self.section.app.raw("autostart", "false", "");
        }
        if self.get(&["autorestart"], "true or false", fields::boolean) == Some(false) {
            self.section.restart.raw("max_runs", "1", "autorestart: false");
        }
        if let Some(delay) = self.ms(&["restart_delay"]).filter(|delay| *delay > 0) {
            self.section.restart.text("delay", &duration(delay), "restart_delay");
        }
        if let Some(uptime) = self.ms(&["min_uptime"]) {
            self.section.restart.text("min_uptime", &duration(uptime), "");
        }
        if let Some(max) = self.get(&["max_restarts"], "a number", fields::integer) {
            let most = FAILURES_REMEMBERED_MAX as i64;
            match max {
                ..=0 => self.section.restart.raw("max_restarts", "1", format!("max_restarts: {max}")),
                max if max > most => {
                    self.section.restart.text(
                        "max_restarts",
                        "never",
                        format!("max_restarts: {max}; {most} is the most"),
                    );
                }
                max => self.section.restart.raw("max_restarts", max.to_string(), ""),
            }
        }
        if let Some(delay) = self.ms(&["exp_backoff_restart_delay"]).filter(|delay| *delay > 0) {
            self.section.restart.text("backoff_min", &duration(delay), "exp_backoff_restart_delay; it doubles");
            let most = ms(Restart::default().backoff_max);
            if delay > most {
                self.section.restart.text("backoff_max", &duration(delay), "");
            }
        }
        let codes = self.get(&["stop_exit_codes"], "a list of exit codes", fields::exit_codes).unwrap_or_default();
        if !codes.is_empty() {
            self.section.restart.raw("stop_exit_codes", format!("[{}]", codes.join(", ")), "");
        }
    }

    /// Automatic replacement of workers.
    fn times_and_files(&mut self) {
        let text = |value: &Value| fields::text(value).filter(|text| !matches!(text.as_str(), "" | "0" | "false"));
        if let Some(text) = self.fields.take(&["cron_restart", "cron"]).and_then(|(_, value)| text(value)) {
            match cron::read(&text) {
                Ok(text) => self.section.app.text("cron_restart", &text, "local time; rolling"),
                Err(why) => self.words.problem(&self.label, format!("cron_restart: {why}")),
            }
        }
        let ignore = self.get(&["ignore_watch"], "a pattern or a list of them", fields::texts).unwrap_or_default();
        let delay = self.ms(&["watch_delay"]).filter(|delay| *delay > 0);
        let Some((_, value)) = self.fields.take(&["watch"]) else { return };
        match (fields::boolean(value), fields::texts(value)) {
            (Some(false), _) => return,
            (Some(true), _) => self.section.app.raw("watch", "true", ""),
            (None, Some(paths)) if !paths.is_empty() => self.section.app.list("watch", &paths, ""),
            (None, _) => return self.note(format!("watch: {value} is neither true nor a list of paths; left out")),
        }
        let ignore: Vec<String> = ignore.into_iter().filter_map(|pattern| self.ignored(&pattern)).collect();
        if !ignore.is_empty() {
            self.section.app.list("watch_ignore", &ignore, "");
        }
        if let Some(delay) = delay {
            self.section.app.text("watch_delay", &duration(delay), "");
        }
    }

    /// A PM2 pattern as a line of a `.gitignore`.
    fn ignored(&mut self, pattern: &str) -> Option<String> {
        let line = pattern.strip_prefix("./").map_or_else(|| pattern.to_owned(), |rest| format!("/{rest}"));
        let expression = pattern.contains(['\\', '^', '$', '|', '(']);
        if expression || parse::pattern(&line).is_err() {
            self.note(format!("ignore_watch: \"{pattern}\" is a regular expression; write a line of a .gitignore"));
            return None;
        }
        Some(line)
    }

    fn memory(&mut self) {
        let Some(bytes) = self.get(&["max_memory_restart"], "a size such as \"300M\"", fields::bytes) else { return };
        if bytes > 0 {
            self.section.limits.text("memory", &size(bytes.min(MEMORY_LIMIT_BYTES_MAX)), "max_memory_restart");
        }
    }

    // ---- environment ----

    fn environment(&mut self) {
        if let Some((_, value)) = self.fields.take(&["env"]) {
            self.section.env = self.variables("env", value);
        }
        if let Some(port) = self.get(&["port"], "a number", fields::integer) {
            self.section.env.insert("PORT".to_owned(), port.to_string());
        }
        match self.fields.take(&["filter_env"]) {
            Some((_, Value::Bool(true))) => {
                self.note("filter_env: true filters nothing in PM2; clean_env = true leaves all variables out");
            }
            Some((_, Value::Bool(false))) | None => {}
            Some((_, value)) => match fields::texts(value).filter(|texts| texts.iter().all(|text| !text.is_empty())) {
                Some(texts) => self.section.app.list("filter_env", &texts, ""),
                None => self.note(format!("filter_env: {value} is not a list of texts; left out")),
            },
        }
        self.slot_variables();
        let tables: Vec<(&str, &Value)> = self.fields.rest().filter(|(key, _)| key.starts_with("env_")).collect();
        for (key, value) in tables {
            self.fields.take(&[key]);
            let name = key.strip_prefix("env_").unwrap_or(key).to_owned();
            if self.section.env.contains_key(&name) {
                self.note(format!("{key}: there is a variable {name} too, and TOML keeps both in one place; left out"));
                continue;
            }
            let table = self.variables(key, value);
            self.section.named.insert(name, table);
        }
    }

    fn slot_variables(&mut self) {
        let instance = self.text(&["instance_var"]).filter(|name| name != defaults::INSTANCE_VAR);
        if let Some(name) = instance
            && self.fits("instance_var", &name)
        {
            if self.section.env.remove(&name).is_some() {
                self.note(format!("env: {name} holds the slot, as instance_var says"));
            }
            self.section.app.text("instance_var", &name, "");
        }
        if let Some(name) = self.text(&["increment_var"])
            && self.fits("increment_var", &name)
        {
            let first = self.section.env.get(&name).and_then(|value| value.parse::<i64>().ok()).unwrap_or_default();
            self.section.env.insert(name.clone(), first.to_string());
            self.section.app.text("increment_var", &name, "");
        }
    }

    /// Whether this variable can have its own value in each slot.
    fn fits(&mut self, key: &str, name: &str) -> bool {
        match env_file::check(name, "") {
            Ok(()) => true,
            Err(why) => {
                self.note(format!("{key}: {why}"));
                false
            }
        }
    }

    fn variables(&mut self, key: &str, value: &Value) -> BTreeMap<String, String> {
        let Some(object) = value.as_object() else {
            self.note(format!("{key}: it is not a list of variables; left out"));
            return BTreeMap::new();
        };
        let mut env = BTreeMap::new();
        for (name, value) in object.iter().filter(|(_, value)| !value.is_null()) {
            let text = fields::text(value).unwrap_or_else(|| value.to_string());
            match env_file::check(name, &text) {
                Ok(()) => drop(env.insert(name.clone(), text)),
                Err(why) => self.note(format!("{key}: {why}")),
            }
        }
        env
    }

    // ---- log files ----

    fn logs(&mut self) {
        let both = self.log_path(&["log_file", "log"]);
        let out = self.log_path(&["out_file", "out", "output", "out_log"]);
        let err = self.log_path(&["error_file", "error", "err", "err_file", "err_log"]);
        if self.yes(&["disable_logs"]) {
            self.section.log.text("file", "NULL", "disable_logs");
        } else {
            // `NULL` beside it leaves this file alone.
            let both = both.filter(|path| path != "NULL");
            for (key, path) in [("out", out), ("err", err)] {
                if let Some(path) = path.filter(|path| both.is_none() || path != "NULL") {
                    self.section.log.text(key, &path, "");
                }
            }
            if let Some(both) = both {
                self.section.log.text("file", &both, "log_file");
            }
        }
        let merge = &["merge_logs", "combine_logs"];
        if self.get(merge, "true or false", fields::boolean) == Some(false) {
            self.section.log.raw("per_worker", "true", "merge_logs: false");
        }
        if self.text(&["log_type"]).is_some_and(|kind| kind == "json") {
            self.section.log.text("format", "json", "log_type");
        }
        let stamped = self.yes(&["time"]);
        match self.text(&["log_date_format"]).map(|format| (log_time::strftime(&format), format)) {
            Some((Ok(_), format)) => self.section.log.text("time", &format, "log_date_format"),
            Some((Err(why), _)) => self.note(format!("log_date_format: {why}")),
            None if stamped => self.section.log.raw("time", "true", ""),
            None => {}
        }
    }

    /// The target of a stream; a value that is not a path is noted.
    fn log_path(&mut self, names: &[&str]) -> Option<String> {
        let typed = self.text(names).filter(|text| text != "true" && text != "false")?;
        match log::target(&typed) {
            Ok(log::Target::File(_)) => Some(typed),
            Ok(log::Target::Null | log::Target::Inherit) => Some("NULL".to_owned()),
            Err(why) => {
                self.note(format!("{}: {why}", names[0]));
                None
            }
        }
    }

    // ---- the rest ----

    fn rest(&mut self, is_dump: bool) {
        if let Some((typed, value)) = self.fields.take(&["pid_file", "pid"])
            && *value != Value::Bool(false)
        {
            self.lost(typed, "pid_file");
        }
        let rest: Vec<(&str, &Value)> = self.fields.rest().collect();
        for (key, value) in rest {
            let off = *value == Value::Bool(false) || *value == Value::String(String::new());
            let harmless = keys::HARMLESS.contains(&key) || off;
            if keys::LOST.iter().any(|(lost, _)| *lost == key) && !off {
                self.lost(key, key);
            } else if !harmless && !is_dump {
                self.note(format!("{key}: PM2 has no such key; left out"));
            }
        }
    }

    fn lost(&mut self, typed: &str, key: &str) {
        let advice = keys::LOST.iter().find(|(lost, _)| *lost == key).map_or("left out", |(_, advice)| advice);
        self.note(format!("{typed}: {advice}"));
    }
}

/// The interpreter of a script that has none configured.
fn interpreter(script: &str, kind: Script) -> Option<&'static str> {
    let file = script.rsplit('/').next().unwrap_or_default();
    match file.rsplit_once('.').map(|(_, ending)| ending) {
        Some("js" | "mjs" | "cjs" | "ts" | "mts" | "cts" | "tsx" | "jsx") => return Some("node"),
        Some("py") => return Some("python3"),
        Some("sh") => return Some("bash"),
        Some("rb") => return Some("ruby"),
        Some("php") => return Some("php"),
        Some("pl") => return Some("perl"),
        Some("coffee") => return Some("coffee"),
        Some("ls") => return Some("lsc"),
        Some(_) | None => {}
    }
    match kind {
        Script::InPath | Script::Binary | Script::Itself => None,
        // Such as bin/www: PM2 runs unknown files with node.
        Script::Text => Some("node"),
        Script::Missing => script.contains('/').then_some("node"),
    }
}

/// Milliseconds as a duration of a configuration.
fn duration(ms: u64) -> String {
    match ms {
        0 => "0s".to_owned(),
        ms if ms % 3_600_000 == 0 => format!("{}h", ms / 3_600_000),
        ms if ms % 60_000 == 0 => format!("{}m", ms / 60_000),
        ms if ms % 1_000 == 0 => format!("{}s", ms / 1_000),
        ms => format!("{ms}ms"),
    }
}

/// Bytes as a size of a configuration, rounded up to kibibytes.
fn size(bytes: u64) -> String {
    let kib = bytes.div_ceil(1 << 10).max(1);
    match kib {
        kib if kib % (1 << 20) == 0 => format!("{}G", kib >> 20),
        kib if kib % (1 << 10) == 0 => format!("{}M", kib >> 10),
        kib => format!("{kib}K"),
    }
}

fn ms(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
