//! PM2's `dump.pm2`: one entry per process, with PM2's whole state. Entries of one name become one app again; of their
//! environment, what came from the shell that started them is left out.
use super::fields;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Variables of a session or of PM2, not of an app.
const NOT_THE_APPS: &[&str] = &[
    "COLORTERM",
    "COLUMNS",
    "DBUS_SESSION_BUS_ADDRESS",
    "DISPLAY",
    "LINES",
    "LS_COLORS",
    "MAIL",
    "NODE_APP_INSTANCE",
    "NODE_CHANNEL_FD",
    "NODE_CHANNEL_SERIALIZATION_MODE",
    "NODE_UNIQUE_ID",
    "OLDPWD",
    "PWD",
    "SHLVL",
    "SSH_AUTH_SOCK",
    "SSH_CLIENT",
    "SSH_CONNECTION",
    "SSH_TTY",
    "SUDO_COMMAND",
    "SUDO_GID",
    "SUDO_UID",
    "SUDO_USER",
    "TERM",
    "TERM_PROGRAM",
    "TERM_PROGRAM_VERSION",
    "TMUX",
    "TMUX_PANE",
    "WINDOWID",
    "XDG_RUNTIME_DIR",
    "XDG_SESSION_CLASS",
    "XDG_SESSION_ID",
    "XDG_SESSION_TYPE",
    "_",
    "io",
    "pm_id",
    "unique_id",
];

/// Prefixes of such variables.
const NOT_THE_APPS_PREFIXES: &[&str] =
    &["PM2_", "npm_config_", "npm_lifecycle_", "npm_package_", "npm_command", "npm_execpath", "npm_node_execpath"];

/// Variables that npm sets as well, if PM2 was started through it.
const NPMS_OWN: &[&str] = &["COLOR", "EDITOR", "INIT_CWD", "NODE"];

/// Keys of an entry that come from the app's configuration.
const KEPT: &[&str] = &[
    "args",
    "autorestart",
    "cron_restart",
    "cwd",
    "disable_logs",
    "exec_mode",
    "exp_backoff_restart_delay",
    "filter_env",
    "ignore_watch",
    "increment_var",
    "instance_var",
    "kill_timeout",
    "listen_timeout",
    "log_date_format",
    "log_type",
    "max_memory_restart",
    "max_restarts",
    "min_uptime",
    "name",
    "namespace",
    "node_args",
    "pm_exec_path",
    "restart_delay",
    "shutdown_with_message",
    "source_map_support",
    "stop_exit_codes",
    "uid",
    "gid",
    "wait_ready",
    "watch",
    "watch_delay",
];

/// Whether these are a dump's entries.
pub(super) fn is_dump(items: &[&Map<String, Value>]) -> bool {
    items.iter().all(|item| item.contains_key("pm_exec_path") && !item.contains_key("script"))
}

/// The apps behind a dump's entries. `own`: the environment that apps get anyway.
pub(super) fn as_apps(items: &[&Map<String, Value>], own: &BTreeMap<String, String>) -> Vec<Map<String, Value>> {
    let mut apps: Vec<Map<String, Value>> = Vec::new();
    for item in items {
        let same = |app: &&mut Map<String, Value>| {
            ["name", "namespace", "pm_exec_path"].iter().all(|key| app.get(*key) == item.get(*key))
        };
        match apps.iter_mut().find(same) {
            Some(app) => {
                let count = app.get("instances").and_then(Value::as_u64).unwrap_or(1);
                app.insert("instances".to_owned(), json!(count + 1));
                if !is_stopped(item) {
                    app.remove("autostart");
                }
            }
            None => {
                let mut app = as_app(item, own);
                if is_stopped(item) {
                    app.insert("autostart".to_owned(), json!(false));
                }
                apps.push(app);
            }
        }
    }
    apps
}

/// Whether a process was stopped by somebody when the dump was written: `pm2 resurrect` leaves it stopped.
fn is_stopped(item: &Map<String, Value>) -> bool {
    item.get("status").and_then(Value::as_str) == Some("stopped")
}

fn as_app(item: &Map<String, Value>, own: &BTreeMap<String, String>) -> Map<String, Value> {
    let named = |key: &str, value: &Value| key.starts_with("env_") && value.is_object();
    let kept = item.iter().filter(|(key, value)| KEPT.contains(&key.as_str()) || named(key, value));
    let mut app: Map<String, Value> = kept.map(|(key, value)| (key.clone(), value.clone())).collect();
    app.insert("instances".to_owned(), json!(1));
    if let Some(cwd) = item.get("pm_cwd") {
        app.insert("cwd".to_owned(), cwd.clone());
    }
    if app.get("instance_var").and_then(Value::as_str) == Some("NODE_APP_INSTANCE") {
        app.remove("instance_var");
    }
    let interpreter = item.get("exec_interpreter").and_then(Value::as_str);
    if let Some(interpreter) = interpreter {
        app.insert("exec_interpreter".to_owned(), json!(interpreter));
    }
    let env = item.get("env").and_then(Value::as_object);
    let by_npm = env.is_some_and(|env| env.contains_key("npm_execpath"));
    let name = item.get("name").and_then(Value::as_str).unwrap_or_default();
    let own_word = |key: &str| {
        NOT_THE_APPS.contains(&key)
            || NOT_THE_APPS_PREFIXES.iter().any(|prefix| key.starts_with(prefix))
            || (by_npm && NPMS_OWN.contains(&key))
            // PM2 puts an object of each app's name into its environment.
            || key == name
    };
    let same = |key: &str, value: &Value| own.get(key).is_some_and(|own| fields::text(value).as_ref() == Some(own));
    let env: Map<String, Value> = env
        .into_iter()
        .flatten()
        .filter(|(key, value)| !own_word(key) && !same(key, value))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    app.insert("env".to_owned(), Value::Object(env));
    app
}
