//! The kind of value of `listen`: addresses, and who may connect to those that are files.
use super::kinds::{ADDRESSES, Kind};
use crate::config::problem::{At, Found, Spot};
use crate::config::raw::{Entry, Walk, entries};
use crate::config::value_error::ValueError;
use crate::config::{Listen, SocketAccess, name, parse};
use serde_json::{Value, json};
use toml::de::DeValue;

/// One entry of `listen`.
#[derive(Clone, Debug)]
pub(crate) struct ListenEntry {
    pub(crate) address: Listen,
    /// Nothing but the defaults, unless the address is a file.
    pub(crate) access: SocketAccess,
}

impl From<Listen> for ListenEntry {
    fn from(address: Listen) -> ListenEntry {
        ListenEntry { address, access: SocketAccess::default() }
    }
}

/// The keys of an entry in the form of a table.
const KEYS: [&str; 4] = ["address", "mode", "owner", "group"];
const WANTS: &str = "a string, a table with an address, or an array of these";

/// Addresses to listen on, as words or tables.
pub(crate) struct Addresses;

impl Kind for Addresses {
    type Value = Vec<At<ListenEntry>>;

    fn read(&self, walk: &mut Walk<'_>, entry: &Entry<'_>) -> Option<At<Vec<At<ListenEntry>>>> {
        let DeValue::Array(array) = entry.value else {
            return Some(At { value: read_one(walk, entry).into_iter().collect(), spot: entry.spot });
        };
        if let Some((most, too_many)) = ADDRESSES.most.filter(|(most, _)| array.len() > *most) {
            walk.add(entry.spot, format!("{} {too_many}: {most} is the most", array.len()));
            return None;
        }
        let items = array.iter().map(|item| (item.get_ref(), Spot::File(item.span().start)));
        let items = items.map(|(value, spot)| Entry { key: entry.key, key_spot: spot, value, spot });
        let value = items.filter_map(|item| read_one(walk, &item)).collect();
        Some(At { value, spot: entry.spot })
    }

    fn parse(&self, word: &str) -> Result<Vec<At<ListenEntry>>, ValueError> {
        ADDRESSES.parse(word).map(without_access)
    }

    fn parse_all(&self, words: &[String], option: &'static str, found: &mut Found) -> Option<At<Self::Value>> {
        let At { value, spot } = ADDRESSES.parse_all(words, option, found)?;
        Some(At { value: without_access(value), spot })
    }

    fn words(&self) -> String {
        "string, table, or array of these".to_owned()
    }

    fn schema(&self) -> Value {
        let who = json!({"anyOf": [{"type": "string"}, {"type": "integer", "minimum": 0}]});
        let table = json!({
            "type": "object",
            "properties": {
                "address": {"type": "string"},
                "mode": {"type": "string", "pattern": "^[0-7]{1,4}$"},
                "owner": who,
                "group": who,
            },
            "required": ["address"],
            "additionalProperties": false,
        });
        let one = json!({"anyOf": [{"type": "string"}, table]});
        json!({"anyOf": [{"type": "string"}, table, {"type": "array", "items": one}]})
    }
}

fn without_access(addresses: Vec<At<Listen>>) -> Vec<At<ListenEntry>> {
    addresses.into_iter().map(|at| At { value: at.value.into(), spot: at.spot }).collect()
}

fn read_one(walk: &mut Walk<'_>, entry: &Entry<'_>) -> Option<At<ListenEntry>> {
    let DeValue::Table(table) = entry.value else {
        return walk.text(entry, WANTS, parse::listen).map(|at| At { value: at.value.into(), spot: at.spot });
    };
    let (mut address, mut access, mut said) = (None, SocketAccess::default(), None);
    for entry in entries(table) {
        match entry.key {
            "address" => address = walk.text(&entry, "a string", parse::listen),
            "mode" => access.mode = walk.mode(&entry, "mode", parse::socket_mode).map(|at| at.value),
            "owner" => access.owner = walk.identity(&entry).map(|at| at.value),
            "group" => access.group = walk.identity(&entry).map(|at| at.value),
            other => {
                let hint = name::did_you_mean(other, &KEYS);
                let text =
                    format!("listen knows no key \"{}\"{hint}; there is {}", other.escape_debug(), KEYS.join(", "));
                walk.add(entry.key_spot, text);
            }
        }
        if entry.key != "address" {
            said = Some(entry.key_spot);
        }
    }
    let Some(address) = address else {
        if !entries(table).iter().any(|entry| entry.key == "address") {
            walk.add(
                entry.spot,
                "address is missing: say where to listen, for example address = \"unix:/run/app.sock\"",
            );
        }
        return None;
    };
    if let Some(spot) = said.filter(|_| !matches!(address.value, Listen::Unix(_))) {
        walk.add(spot, "mode, owner and group are for sockets in the file system: address = \"unix:/run/app.sock\"");
    }
    Some(At { value: ListenEntry { address: address.value, access }, spot: address.spot })
}

impl ListenEntry {
    /// An entry that has a place of its own.
    pub(crate) fn at(address: Listen, spot: Spot) -> At<ListenEntry> {
        At { value: address.into(), spot }
    }
}
