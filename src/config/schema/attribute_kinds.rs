//! Kinds of value of the attributes of processes: limits of resources, CPUs.
use super::kinds::Kind;
use crate::config::attributes::{self, RESOURCES, Resource, ResourceLimit, ResourceLimits};
use crate::config::name;
use crate::config::problem::{At, Spot};
use crate::config::raw::{Entry, Walk, entries, integer};
use crate::config::value_error::ValueError;
use serde_json::{Value, json};
use toml::de::DeValue;

/// A table of limits, each by the name of its resource.
pub(crate) struct ResourceTable;

impl Kind for ResourceTable {
    type Value = ResourceLimits;

    fn read(&self, walk: &mut Walk<'_>, entry: &Entry<'_>) -> Option<At<ResourceLimits>> {
        let mut limits = ResourceLimits::new();
        for entry in entries(walk.table(entry)?) {
            match Resource::named(entry.key) {
                Some(resource) => limits.extend(read_limit(walk, &entry, resource).map(|limit| (resource.name, limit))),
                None => {
                    let known: Vec<&str> = RESOURCES.iter().map(|resource| resource.name).collect();
                    let hint = name::did_you_mean(entry.key, &known);
                    let text = format!(
                        "rlimits knows no resource \"{}\"{hint}; there is {}",
                        entry.key.escape_debug(),
                        known.join(", ")
                    );
                    walk.add(entry.key_spot, text);
                }
            }
        }
        Some(At { value: limits, spot: entry.spot })
    }

    fn words(&self) -> String {
        "table".to_owned()
    }

    fn schema(&self) -> Value {
        let one = json!({"type": ["integer", "string"]});
        let limit = json!({"anyOf": [one, {"type": "array", "items": one, "minItems": 2, "maxItems": 2}]});
        let all = RESOURCES.iter().map(|resource| (resource.name.to_owned(), limit.clone()));
        json!({"type": "object", "properties": all.collect::<serde_json::Map<_, _>>(), "additionalProperties": false})
    }

    fn is_table(&self) -> bool {
        true
    }
}

fn read_limit(walk: &mut Walk<'_>, entry: &Entry<'_>, resource: &Resource) -> Option<ResourceLimit> {
    let DeValue::Array(array) = entry.value else {
        let both = read_bound(walk, entry, resource)?;
        return Some(ResourceLimit { soft: both, hard: both });
    };
    let bounds: Vec<Entry<'_>> = array
        .iter()
        .map(|item| {
            let spot = Spot::File(item.span().start);
            Entry { key: entry.key, key_spot: spot, value: item.get_ref(), spot }
        })
        .collect();
    let [soft, hard] = bounds.as_slice() else { return walk.wrong_type(entry, resource.wants()) };
    let (soft, hard) = (read_bound(walk, soft, resource)?, read_bound(walk, hard, resource)?);
    if soft.unwrap_or(u64::MAX) > hard.unwrap_or(u64::MAX) {
        walk.add(entry.spot, format!("rlimits.{}: the soft limit is above the hard one", entry.key));
        return None;
    }
    Some(ResourceLimit { soft, hard })
}

fn read_bound(walk: &mut Walk<'_>, entry: &Entry<'_>, resource: &Resource) -> Option<Option<u64>> {
    if let Some(number) = integer(entry.value) {
        return match resource.number(number) {
            Some(bound) => Some(bound),
            None => {
                walk.add(entry.spot, format!("rlimits.{} must be {}, not {number}", entry.key, resource.wants()));
                None
            }
        };
    }
    walk.text(entry, resource.wants(), |typed| resource.text(typed)).map(|at| at.value)
}

/// A share of CPU time, in percent of one CPU.
pub(crate) struct CpuShare;

impl Kind for CpuShare {
    type Value = u32;

    fn read(&self, walk: &mut Walk<'_>, entry: &Entry<'_>) -> Option<At<u32>> {
        match integer(entry.value) {
            Some(number) => walk.keep(entry.spot, attributes::cpu_share(&number.to_string())),
            None => walk.text(entry, "a share such as \"150%\", or a number of CPUs", attributes::cpu_share),
        }
    }

    fn parse(&self, word: &str) -> Result<u32, ValueError> {
        attributes::cpu_share(word)
    }

    fn words(&self) -> String {
        "share, `\"150%\"`, or number of CPUs".to_owned()
    }

    fn schema(&self) -> Value {
        json!({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": "^[0-9]+%?$"}]})
    }
}

pub(crate) struct Cpus;

impl Kind for Cpus {
    type Value = Vec<u32>;

    fn read(&self, walk: &mut Walk<'_>, entry: &Entry<'_>) -> Option<At<Vec<u32>>> {
        match integer(entry.value) {
            Some(number) => walk.keep(entry.spot, attributes::cpus(&number.to_string())),
            None => walk.text(entry, "a list of CPUs such as \"0-3,8\"", attributes::cpus),
        }
    }

    fn parse(&self, word: &str) -> Result<Vec<u32>, ValueError> {
        attributes::cpus(word)
    }

    fn words(&self) -> String {
        "list, `\"0-3,8\"`".to_owned()
    }

    fn schema(&self) -> Value {
        json!({"type": ["string", "integer"]})
    }
}
