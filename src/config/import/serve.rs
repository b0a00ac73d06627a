//! PM2's file server in a file: apps with `script: "serve"`, and `static` beside the apps. What it serves is in the
//! environment of the app, which the workers of `clusterd serve` read too.
use super::fields;
use serde_json::{Map, Value};

const PORT: &str = "PM2_SERVE_PORT";
const HOST: &str = "PM2_SERVE_HOST";
const PORT_DEFAULT: &str = "8080";

/// Whether a variable belongs to the file server.
pub(super) fn is_setting(name: &str) -> bool {
    name.starts_with("PM2_SERVE_")
}

/// The address to listen on.
pub(super) fn address(env: Option<&Map<String, Value>>) -> String {
    let text = |name: &str| env.and_then(|env| env.get(name)).and_then(fields::text).filter(|text| !text.is_empty());
    let port = text(PORT).unwrap_or_else(|| PORT_DEFAULT.to_owned());
    match text(HOST) {
        Some(host) if host.contains(':') => format!("[{host}]:{port}"),
        Some(host) => format!("{host}:{port}"),
        None => port,
    }
}

/// An entry of `static` as an app; `Err`: what it is not.
pub(super) fn of_static(entry: &Value) -> Result<Map<String, Value>, &'static str> {
    let entry = entry.as_object().ok_or("an entry is an object with path and port")?;
    let mut env = Map::new();
    let mut set = |variable: &str, value: Option<&Value>| {
        if let Some(text) = value.and_then(fields::text) {
            env.insert(variable.to_owned(), text.into());
        }
    };
    set(PORT, Some(entry.get("port").unwrap_or(&PORT_DEFAULT.into())));
    set(HOST, entry.get("host"));
    set("PM2_SERVE_PATH", entry.get("path"));
    set("PM2_SERVE_SPA", entry.get("spa"));
    set("PM2_SERVE_HOMEPAGE", entry.get("homepage"));
    let auth = entry.get("basic_auth");
    set("PM2_SERVE_BASIC_AUTH_USERNAME", auth.and_then(|auth| auth.get("username")));
    set("PM2_SERVE_BASIC_AUTH_PASSWORD", auth.and_then(|auth| auth.get("password")));
    let port = env.get(PORT).and_then(fields::text).unwrap_or_default();
    let name = entry.get("name").and_then(fields::text).unwrap_or_else(|| format!("static-page-server-{port}"));
    let mut app = Map::new();
    app.insert("name".to_owned(), name.into());
    app.insert("script".to_owned(), "serve".into());
    app.insert("env".to_owned(), Value::Object(env));
    Ok(app)
}
