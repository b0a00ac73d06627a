//! A command line as people of PM2 type it, in words that clap knows here. What is taken and does nothing is left out, with a
//! note; what is refused stays, and `command_line` says what to use. The words themselves are in `table`.
pub mod table;

use crate::config::import;
use clap::Command;
use std::path::Path;
use table::Outcome;

/// Files that `start` looks for where nothing is named, in this order.
const ECOSYSTEMS: &[&str] = &[
    "ecosystem.config.js",
    "ecosystem.config.cjs",
    "ecosystem.config.mjs",
    "ecosystem.config.ts",
    "ecosystem.json",
    "ecosystem.config.json",
    "pm2.config.js",
    "pm2.config.cjs",
    "process.json",
];
/// What a time format has, and hardly a name.
const TIME_LETTERS: [&str; 4] = ["YYYY", "DD", "HH", "mm"];
/// Fields of a cron expression.
const CRON_FIELDS: std::ops::RangeInclusive<usize> = 5..=6;

/// A command line that was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Typed {
    /// For clap; the program's name first.
    pub(super) argv: Vec<String>,
    /// One line for each word that was left out.
    pub(super) notes: Vec<&'static str>,
    /// `--silent`: only errors are printed.
    pub(super) silent: bool,
}

/// Reads a command line, program name first. `command` knows the verbs and their options.
pub(super) fn read(argv: &[String], command: &Command) -> Typed {
    let dashes = argv.iter().position(|word| word == "--").unwrap_or(argv.len());
    let (typed, behind) = argv.split_at(dashes);
    let mut typed = typed.to_vec();
    match typed.get(1).map(String::as_str) {
        Some("-v") => typed[1] = "--version".to_owned(),
        // As pm2-runtime: in the foreground.
        Some(word) if import::is_configuration(word) => typed.insert(1, "--config".to_owned()),
        Some(_) | None => {}
    }
    let mut it = Typed { argv: Vec::with_capacity(argv.len()), ..Typed::default() };
    match verb_of(&typed, command) {
        Some((at, verb)) => {
            it.argv.extend_from_slice(&typed[..=at]);
            it.read_verb(verb, &typed[at + 1..]);
            if verb.get_name() == "start" && behind.is_empty() {
                it.add_ecosystem(at, verb);
            }
        }
        None => it.argv.append(&mut typed),
    }
    it.argv.extend_from_slice(behind);
    it
}

/// The verb, and its place: the first word that is no option, nor the value of `--home`.
fn verb_of<'a>(typed: &[String], command: &'a Command) -> Option<(usize, &'a Command)> {
    let mut words = typed.iter().enumerate().skip(1);
    while let Some((at, word)) = words.next() {
        match word.as_str() {
            "--home" => drop(words.next()),
            option if option.starts_with("--home=") => {}
            option if option.starts_with('-') => return None,
            verb => return command.find_subcommand(verb).map(|verb| (at, verb)),
        }
    }
    None
}

/// Whether an option of a verb takes a value; `None`: the verb has no such option.
fn takes_value(verb: &Command, word: &str) -> Option<bool> {
    let mut all = verb.get_arguments().filter(|arg| !arg.is_positional());
    let found = match word.strip_prefix("--") {
        Some("help" | "home" | "version") => return Some(word == "--home"),
        Some(long) => {
            let long = long.split('=').next().unwrap_or_default();
            let called = |arg: &&clap::Arg| {
                arg.get_long() == Some(long) || arg.get_all_aliases().is_some_and(|aliases| aliases.contains(&long))
            };
            all.find(called)
        }
        None => {
            let letter = word.strip_prefix('-')?.chars().next()?;
            if letter == 'h' {
                return Some(false);
            }
            all.find(|arg| arg.get_short() == Some(letter))
        }
    }?;
    let with_rest = if word.starts_with("--") { word.contains('=') } else { word.len() > 2 };
    let optional = found.get_num_args().is_some_and(|count| count.min_values() == 0);
    Some(found.get_action().takes_values() && !with_rest && !optional)
}

impl Typed {
    fn read_verb(&mut self, verb: &Command, words: &[String]) {
        let mut words = words.iter().peekable();
        while let Some(word) = words.next() {
            let next = words.peek().map(|next| next.as_str()).unwrap_or_default();
            if !word.starts_with('-') || word.len() < 2 {
                match verb.get_name() == "init" && word == "simple" {
                    true => {
                        self.notes.push("simple is left out: there is one form of the file, with every key explained")
                    }
                    false => self.argv.push(word.clone()),
                }
                continue;
            }
            if let Some(other) = other_meaning(verb, word, next) {
                match other {
                    Meaning::Option(option) => self.argv.push(option.to_owned()),
                    Meaning::Note(note) => {
                        self.notes.push(note);
                        words.next();
                        continue;
                    }
                }
                self.argv.extend(words.next().cloned());
                continue;
            }
            match takes_value(verb, word) {
                Some(with_value) => {
                    self.argv.push(word.clone());
                    if word == "--stop-exit-codes" {
                        let codes: Vec<String> =
                            std::iter::from_fn(|| words.next_if(|word| word.parse::<u8>().is_ok()).cloned()).collect();
                        self.argv.extend((!codes.is_empty()).then(|| codes.join(",")));
                    } else if word == "--timestamp" && TIME_LETTERS.iter().any(|letters| next.contains(letters)) {
                        self.argv.pop();
                        self.argv.push(format!("--timestamp={next}"));
                        words.next();
                    } else if word == "--watch" && Path::new(next).is_dir() {
                        self.argv.push("--watch-path".to_owned());
                        self.argv.extend(words.next().cloned());
                    } else if let Some(path) = word.strip_prefix("--watch=") {
                        self.argv.pop();
                        self.argv.extend(["--watch".to_owned(), format!("--watch-path={path}")]);
                    } else if with_value {
                        self.argv.extend(words.next().cloned());
                    }
                }
                None => self.read_unknown(word, &mut words),
            }
        }
    }

    /// An option that the verb does not have.
    fn read_unknown<'a>(&mut self, word: &str, words: &mut std::iter::Peekable<impl Iterator<Item = &'a String>>) {
        let option = table::option_called(word);
        if matches!(word, "-s" | "--silent") {
            self.silent = true;
        } else if let Some(table::Opt { outcome: Outcome::Note(note), value, .. }) = option {
            self.notes.push(note);
            if !value.is_empty() && !word.contains('=') {
                words.next();
            }
        } else if matches!(word, "-f" | "--force" | "-a") {
            // There is nothing to force here, nor an environment to update.
        } else {
            self.argv.push(word.to_owned());
        }
    }

    /// `start` alone starts what the folder's ecosystem file says.
    fn add_ecosystem(&mut self, at: usize, verb: &Command) {
        let mut words = self.argv[at + 1..].iter();
        while let Some(word) = words.next() {
            if matches!(word.as_str(), "-c" | "--config" | "-h" | "--help") || !word.starts_with('-') {
                return;
            }
            if takes_value(verb, word) == Some(true) {
                words.next();
            }
        }
        let found = ECOSYSTEMS.iter().find(|file| Path::new(file).is_file());
        self.argv.extend(found.map(|file| (*file).to_owned()));
    }
}

/// What a short option means where its value fits PM2's meaning alone.
enum Meaning {
    /// This option, with the value that follows.
    Option(&'static str),
    /// Nothing; the value is left out too.
    Note(&'static str),
}

fn other_meaning(verb: &Command, word: &str, value: &str) -> Option<Meaning> {
    let is_path = value.contains('/') && !value.contains([':', '=']) || value.ends_with(".log");
    if verb.get_name() == "startup" || verb.get_name() == "unstartup" {
        return matches!(word, "-u" | "--user").then_some(Meaning::Option("--system"));
    }
    takes_value(verb, word)?;
    match word {
        "-c" if CRON_FIELDS.contains(&value.split_whitespace().count()) || value.starts_with('@') => {
            Some(Meaning::Option("--cron-restart"))
        }
        "-e" if is_path => Some(Meaning::Option("--error")),
        "-l" if is_path && !value.starts_with("unix:") => Some(Meaning::Option("--log")),
        "-p" if !value.is_empty() && value.parse::<u32>().is_err() && (is_path || value.ends_with(".pid")) => {
            match table::option_called("-p")?.outcome {
                Outcome::Note(note) => Some(Meaning::Note(note)),
                Outcome::Works(_) | Outcome::Refused(_) => None,
            }
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
