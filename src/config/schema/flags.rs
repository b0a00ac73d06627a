//! The flags of a run as data: those of keys come from `keys`, the others are listed here. `cli` gives them to clap.
use super::settings;
use crate::config::parse;
use crate::config::scaling::worker_range;
use crate::config::value_error::ValueError;

/// How many words a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// None: it is there or not.
    Nothing,
    /// One; the last one counts.
    One,
    /// One each time, and it may be repeated.
    Several,
    /// The same, and one word may hold several, with commas between them.
    List,
}

/// A flag of a run.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// Without its dashes.
    pub long: &'static str,
    /// As problems name it: with its dashes.
    pub option: &'static str,
    /// One letter for the same.
    pub short: Option<char>,
    /// Another name for the same.
    pub alias: Option<&'static str>,
    /// What its value is called.
    pub value: &'static str,
    /// How many words it takes.
    pub takes: Takes,
    /// The part of `--help` that lists it.
    pub heading: &'static str,
    /// What it does, where the help of its key does not fit.
    pub help: &'static str,
    /// A flag that it cannot be given with.
    pub conflicts: Option<&'static str>,
    /// A flag that it needs.
    pub requires: Option<&'static str>,
    /// Its value may begin with a dash.
    pub hyphen: bool,
    /// It fits only a file with one app.
    pub for_one_app: bool,
    /// Writes out a number without a unit, where PM2 and forever have one for it.
    pub bare: Option<fn(&str) -> String>,
    /// A habit from PM2 alone: left out of `--help`.
    pub hidden: bool,
    /// It is more than another way to write its key: `resolve` reads it.
    pub apart: bool,
    /// Whether a word can be its value, where it has no key.
    pub check: fn(&str) -> Result<(), ValueError>,
}

/// The parts of `--help`, in order.
const HEADINGS: [&str; 6] = [WORKERS, SOCKETS, SURROUNDINGS, OUTPUT, STARTING_AGAIN, OTHER];
pub(crate) const WORKERS: &str = "Workers";
pub(crate) const SOCKETS: &str = "Sockets";
pub(crate) const SURROUNDINGS: &str = "Surroundings";
pub(crate) const OUTPUT: &str = "Output";
pub(crate) const STARTING_AGAIN: &str = "Starting again";
pub(crate) const OTHER: &str = "Other";

/// A flag that takes one word. `option` is the flag with its dashes.
pub(crate) const fn flag(option: &'static str, heading: &'static str, value: &'static str) -> Flag {
    let (_, long) = option.split_at(2);
    Flag {
        long,
        option,
        short: None,
        alias: None,
        value,
        takes: Takes::One,
        heading,
        help: "",
        conflicts: None,
        requires: None,
        hyphen: false,
        for_one_app: false,
        bare: None,
        hidden: false,
        apart: false,
        check: |_| Ok(()),
    }
}

impl Flag {
    pub(crate) const fn short(self, short: char) -> Flag {
        Flag { short: Some(short), ..self }
    }

    pub(crate) const fn alias(self, alias: &'static str) -> Flag {
        Flag { alias: Some(alias), ..self }
    }

    pub(crate) const fn takes(self, takes: Takes) -> Flag {
        Flag { takes, ..self }
    }

    pub(crate) const fn help(self, help: &'static str) -> Flag {
        Flag { help, ..self }
    }

    pub(crate) const fn conflicts(self, flag: &'static str) -> Flag {
        Flag { conflicts: Some(flag), ..self }
    }

    pub(crate) const fn requires(self, flag: &'static str) -> Flag {
        Flag { requires: Some(flag), ..self }
    }

    pub(crate) const fn hyphen(self) -> Flag {
        Flag { hyphen: true, ..self }
    }

    pub(crate) const fn for_one_app(self) -> Flag {
        Flag { for_one_app: true, ..self }
    }

    pub(crate) const fn bare(self, write_out: fn(&str) -> String) -> Flag {
        Flag { bare: Some(write_out), ..self }
    }

    pub(crate) const fn hidden(self) -> Flag {
        Flag { hidden: true, ..self }
    }

    pub(crate) const fn apart(self) -> Flag {
        Flag { apart: true, ..self }
    }

    /// A word as it is read: a number without a unit gets the one that people are used to.
    pub fn written_out(&self, word: &str) -> String {
        let is_number = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
        self.bare.filter(|_| is_number).map_or_else(|| word.to_owned(), |write_out| write_out(word))
    }

    const fn check(self, check: fn(&str) -> Result<(), ValueError>) -> Flag {
        Flag { check, ..self }
    }
}

pub(crate) fn milliseconds(number: &str) -> String {
    format!("{number}ms")
}

pub(crate) fn seconds(number: &str) -> String {
    format!("{number}s")
}

/// Bytes, rounded up to a unit.
pub(crate) fn bytes(number: &str) -> String {
    number.parse::<u64>().map_or_else(|_| number.to_owned(), |bytes| format!("{}K", bytes.div_ceil(1024)))
}

/// Flags without a key, each with the flag that it follows in `--help`; `resolve` and `cli` read them.
const WITHOUT_KEY: &[(&str, Flag)] = &[
    (
        "workers",
        flag("--instances", WORKERS, "N")
            .short('i')
            .hyphen()
            .conflicts("workers")
            .check(|text| worker_range(&pm2_instances(text)).map(drop))
            .help("The same as --workers, as PM2 counts (0: max, -1: max-1)"),
    ),
    (
        "port",
        flag("--host", SOCKETS, "HOST")
            .requires("port")
            .for_one_app()
            .help("Address for --port [default: all, IPv6 and IPv4]"),
    ),
    (
        "ready",
        flag("--wait-ready", WORKERS, "")
            .takes(Takes::Nothing)
            .conflicts("ready")
            .hidden()
            .help("The same as --ready \"message or 30s\""),
    ),
    (
        "ready-timeout",
        flag("--listen-timeout", WORKERS, "TIME")
            .bare(milliseconds)
            .check(|text| parse::duration(text).map(drop))
            .conflicts("ready-timeout")
            .hidden()
            .help("With --wait-ready the time of its rule, else --ready-timeout where it is longer than the default"),
    ),
    (
        "log-date-format",
        flag("--time", OUTPUT, "")
            .takes(Takes::Nothing)
            .conflicts("log-date-format")
            .help("Put the time before each line"),
    ),
    (
        "log",
        flag("--disable-logs", OUTPUT, "")
            .takes(Takes::Nothing)
            .conflicts("log")
            .help("Discard what workers print: the same as --log NULL"),
    ),
    (
        "watch",
        flag("--watch-path", STARTING_AGAIN, "PATH")
            .takes(Takes::Several)
            .help("Replace the workers when this folder or file changes; may repeat"),
    ),
    (
        "max-restarts",
        flag("--spin-sleep", STARTING_AGAIN, "TIME")
            .check(|text| parse::duration_not_zero(text).map(drop))
            .bare(milliseconds)
            .help("Wait this time after each failure, instead of ever longer"),
    ),
    (
        "max-runs",
        flag("--no-autorestart", STARTING_AGAIN, "")
            .takes(Takes::Nothing)
            .conflicts("max-runs")
            .help("Run it once: the same as --max-runs 1"),
    ),
    (
        "",
        flag("--config", OTHER, "FILE")
            .short('c')
            .help("Run what this file says: clusterd's own (TOML), or one of PM2 (.js, .json, .yaml)"),
    ),
    (
        "",
        flag("--only", OTHER, "APP")
            .takes(Takes::List)
            .help("Of the file, this app alone; may repeat, or list them: a,b"),
    ),
];

/// A number of instances as PM2 counts: `0` is `max`, `-1` is `max-1`.
pub fn pm2_instances(text: &str) -> String {
    match text.strip_prefix('-') {
        Some(less) => format!("max-{less}"),
        None if text == "0" => "max".to_owned(),
        None => text.to_owned(),
    }
}

/// A flag as the command line has it.
pub struct RunFlag {
    pub flag: Flag,
    /// What it does, with the default.
    pub help: String,
    /// Whether a word can be its value.
    pub check: fn(&str) -> Result<(), ValueError>,
}

/// Every flag of a run, in the order of `--help`.
pub fn flags() -> Vec<RunFlag> {
    let without_key = |after: &'static str| {
        let flags = WITHOUT_KEY.iter().filter(move |(place, _)| *place == after);
        flags.map(|(_, flag)| RunFlag { flag: *flag, help: flag.help.to_owned(), check: flag.check })
    };
    let mut flags = Vec::new();
    for setting in settings() {
        let Some(flag) = setting.flag else { continue };
        let help = if flag.help.is_empty() { setting.help.trim() } else { flag.help };
        let default = (setting.default)().or(setting.unset.map(str::to_owned)).filter(|text| text != "none");
        let default = default.filter(|_| flag.takes == Takes::One && !help.contains("[default"));
        let default = default.map_or_else(String::new, |text| format!(" [default: {}]", text.trim_matches('"')));
        let check = if flag.apart && flag.takes != Takes::One { flag.check } else { setting.check };
        let help = help.strip_suffix('.').unwrap_or(help);
        flags.push(RunFlag { flag, help: format!("{help}{default}"), check });
        flags.extend(without_key(flag.long));
    }
    flags.extend(without_key(""));
    flags.sort_by_key(|flag| HEADINGS.iter().position(|heading| *heading == flag.flag.heading));
    flags
}
