//! The JSON schema of the configuration file, for editors: `clusterd schema`.
use super::keys::RawFile;
use super::{Raw, Setting};
use serde_json::{Map, Value, json};

/// The schema, draft 7 (the last that taplo knows).
pub fn schema() -> String {
    let mut whole = object(RawFile::SETTINGS);
    whole["$schema"] = json!("http://json-schema.org/draft-07/schema#");
    whole["title"] = json!("Configuration of clusterd");
    whole["required"] = json!(["app"]);
    format!("{whole:#}\n")
}

/// An object with these keys and no others.
pub(super) fn object(settings: &[Setting]) -> Value {
    let mut properties = Map::new();
    for setting in settings {
        let mut property = (setting.schema)();
        let more = if setting.more.is_empty() { String::new() } else { format!(" {}.", setting.more) };
        property["description"] = Value::from(format!("{}{more}", setting.help.trim()));
        if let Some(default) = (setting.default)().and_then(|text| value_of(&text)) {
            property["default"] = default;
        }
        properties.insert(setting.name.to_owned(), property);
    }
    let required: Vec<&str> =
        settings.iter().filter(|setting| setting.unset == Some("required")).map(|setting| setting.name).collect();
    let mut object = json!({"type": "object", "additionalProperties": false, "properties": properties});
    if !required.is_empty() {
        object["required"] = Value::from(required);
    }
    object
}

/// A default as JSON: what there is of TOML in it is the same.
fn value_of(toml: &str) -> Option<Value> {
    serde_json::from_str(toml).ok()
}
