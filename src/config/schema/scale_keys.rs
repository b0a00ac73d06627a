//! The keys of `[app.scale]`, and the kinds of value that only this table has.
use super::keys::{CRON, TIME, TIME_NOT_ZERO};
use super::kinds::{Kind, Text, quoted};
use super::{Flag, Raw, Scope, Setting, raw_table, resolved_table, table, value_or};
use crate::config::options::Options;
use crate::config::problem::{At, Found, Spot};
use crate::config::raw::{Entry, Walk, entries, narrow};
use crate::config::scaling::{ScheduleEntry, TARGET_PERCENT_MAX, Target, target};
use crate::config::value_error::ValueError;
use crate::config::{Workers, name, parse};
use crate::limits::{SCALE_WAITING_MAX, SCHEDULE_ENTRIES_MAX};
use crate::supervisor::Measure;
use serde_json::{Value, json};
use std::time::Duration;
use toml::de::DeValue;

/// `[app.scale]`.
pub(super) const SCALE: Scope = Scope {
    path: "app.scale",
    help: "How the number of workers follows the load, where workers has bounds: workers = \"2..8\".",
    optional: true,
};

table! {
    in SCALE;
    raw RawScale;
    /// How the number of workers follows the load.
    resolved Scaling, with
    /// What `resolve` decides from several keys.
    ScalingRest {
        /// The upper bound. `App::workers` is the lower one.
        most: Workers,
        /// The load that one worker should have, in thousandths: of a CPU, or of a waiting connection.
        target_milli: u64,
    }

    /// What is measured.
    by: plain(Measure = Measure::Cpu), BY,
        more "`cpu`: the CPU time of each worker and of its children. `loop`: that of its main thread alone, so that helper \
              threads do not count. `queue`: connections that wait to be taken, for workers that are busy without using a CPU";
    /// The load that one worker should have.
    target: raw(Target), TargetLoad, unset "\"70%\"; 4 by queue", example r#""70%""#,
        more "There are as many workers as it takes. By `queue`: the number of waiting connections for each worker";
    /// For so long the load has to need more workers before there are more.
    grow_after: plain(Duration = Duration::from_secs(1)), TIME,
        more "Measured twice a second";
    /// For so long the load has to need fewer workers before there are fewer.
    cooldown: plain(Duration = Duration::from_secs(300)), TIME_NOT_ZERO,
        more "With a margin: fewer workers are enough if each had at most 80% of `target`";
    /// At these times the lower bound changes.
    schedule: plain(Vec<ScheduleEntry> = Vec::new()), Schedule, unset "none",
        example r#"[{ cron = "0 8 * * 1-5", workers = 4 }, { cron = "0 20 * * *", workers = 2 }]"#,
        more "An entry holds until the time of the next one comes, in local time. More load than that still brings more workers, up to \
              the upper bound";
}

const BY: Text<Measure> = Text {
    wants: "a string",
    parse: parse::measure,
    words: "",
    show: |by| quoted(&by.name()),
    choices: &Measure::NAMES,
};

/// A share of a CPU, or a number of waiting connections.
struct TargetLoad;

impl Kind for TargetLoad {
    type Value = Target;

    fn read(&self, walk: &mut Walk<'_>, entry: &Entry<'_>) -> Option<At<Target>> {
        if entry.value.is_str() {
            return walk.text(entry, "a share such as \"70%\"", target);
        }
        let rule =
            format!("target must be a share such as \"70%\", or a number of connections from 1 to {SCALE_WAITING_MAX}");
        let count = walk.number(entry, &rule, 1..=i64::from(SCALE_WAITING_MAX))?;
        Some(At { value: Target::Waiting(narrow::<u32>(&count).value), spot: entry.spot })
    }

    fn words(&self) -> String {
        format!("share from `\"1%\"` to `\"{TARGET_PERCENT_MAX}%\"`; by `queue`: number from 1 to {SCALE_WAITING_MAX}")
    }

    fn schema(&self) -> Value {
        let count = json!({"type": "integer", "minimum": 1, "maximum": SCALE_WAITING_MAX});
        json!({"anyOf": [{"type": "string", "pattern": "^[0-9]+%$"}, count]})
    }
}

/// Lower bounds, each with its time.
struct Schedule;

const SCHEDULE_KEYS: [&str; 2] = ["cron", "workers"];

impl Kind for Schedule {
    type Value = Vec<ScheduleEntry>;

    fn read(&self, walk: &mut Walk<'_>, entry: &Entry<'_>) -> Option<At<Vec<ScheduleEntry>>> {
        let DeValue::Array(array) = entry.value else {
            return walk.wrong_type(entry, "an array of tables such as [{ cron = \"0 8 * * 1-5\", workers = 4 }]");
        };
        if array.len() > SCHEDULE_ENTRIES_MAX {
            walk.add(entry.spot, format!("{} entries are too many: {SCHEDULE_ENTRIES_MAX} is the most", array.len()));
            return None;
        }
        let items = array.iter().map(|item| (item.get_ref(), Spot::File(item.span().start)));
        let items = items.map(|(value, spot)| Entry { key: entry.key, key_spot: spot, value, spot });
        let value = items.filter_map(|item| read_one(walk, &item)).collect();
        Some(At { value, spot: entry.spot })
    }

    fn parse(&self, word: &str) -> Result<Vec<ScheduleEntry>, ValueError> {
        Err(ValueError::OnlyInFile(word.to_owned()))
    }

    fn words(&self) -> String {
        "array of tables with `cron` and `workers`".to_owned()
    }

    fn schema(&self) -> Value {
        let entry = json!({
            "type": "object",
            "properties": {"cron": {"type": "string"}, "workers": {"type": ["integer", "string"]}},
            "required": SCHEDULE_KEYS,
            "additionalProperties": false,
        });
        json!({"type": "array", "items": entry, "maxItems": SCHEDULE_ENTRIES_MAX})
    }
}

fn read_one(walk: &mut Walk<'_>, entry: &Entry<'_>) -> Option<ScheduleEntry> {
    let (mut cron, mut workers) = (None, None);
    let table = walk.table(entry)?;
    for entry in entries(table) {
        match entry.key {
            "cron" => cron = CRON.read(walk, &entry),
            "workers" => workers = walk.workers(&entry),
            other => {
                let hint = name::did_you_mean(other, &SCHEDULE_KEYS);
                let text = format!(
                    "schedule knows no key \"{}\"{hint}; there is {}",
                    other.escape_debug(),
                    SCHEDULE_KEYS.join(", ")
                );
                walk.add(entry.key_spot, text);
            }
        }
    }
    for key in SCHEDULE_KEYS {
        if !entries(table).iter().any(|entry| entry.key == key) {
            walk.add(entry.spot, format!("{key} is missing: an entry is {{ cron = \"0 8 * * 1-5\", workers = 4 }}"));
        }
    }
    Some(ScheduleEntry { cron: cron?.value, workers: workers?.value })
}
