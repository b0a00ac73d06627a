//! Every text of the command line, whole: the help of each verb, and what is said of each command line that is wrong. The files
//! are in `said/`; a change of a text shows in a review. UPDATE=1 cargo test --test config
use super::{holds, is_update, project};
use clusterd::cli::command_line::{self, Invocation};
use std::collections::BTreeSet;

/// What a command line says; `Err`: that it is wrong.
fn said(line: &[&str]) -> Result<String, String> {
    match command_line::parse(std::iter::once("clusterd").chain(line.iter().copied())) {
        Ok(Invocation::Print(text)) => Ok(text),
        Ok(_) => Ok(String::new()),
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn the_help_of_every_verb_is_what_its_file_says() {
    let command = command_line::command();
    let mut names: BTreeSet<String> = command.get_subcommands().map(|verb| verb.get_name().to_owned()).collect();
    names.insert(String::new());
    for name in &names {
        let line: Vec<&str> = [name.as_str(), "--help"].into_iter().filter(|word| !word.is_empty()).collect();
        let file = if name.is_empty() { "clusterd" } else { name };
        holds(&format!("tests/config/said/help/{file}.txt"), &said(&line).unwrap());
    }
    let folder = project("tests/config/said/help");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        let known = stem == "clusterd" || names.contains(&stem);
        if is_update() && !known {
            std::fs::remove_file(path).unwrap();
        } else {
            assert!(known, "there is no verb {stem}");
        }
    }
}

/// Command lines that are wrong, each in its own way.
const WRONG: &[&[&str]] = &[
    // What is to be run.
    &[],
    &["-w", "2"],
    &["start"],
    &["start", "a.js", "-c", "cluster.toml"],
    &["start", "a.js", "b.js", "--", "x"],
    &["start", "a.js", "b.js", "-n", "web"],
    &["-c", "cluster.toml", "--", "node", "app.js"],
    &["-c", ""],
    &["--", ""],
    &["check"],
    &["serve", "dist", "--", "x"],
    &["serve", "dist", "--basic-auth-username", "me"],
    &["restart", "web", "--", "x"],
    &["reload", "web", "-c", "cluster.toml"],
    &["-w", "1", "ls"],
    // Words that are none here.
    &["node", "app.js"],
    &["app.js"],
    &["./server", "--port", "1"],
    &["relod", "web"],
    &["help", "nosuch"],
    &["kill", "x"],
    &["install", "pm2-logrotate"],
    &["logrotate"],
    &["link"],
    &["set", "a", "b"],
    &["pull", "web"],
    &["deploy", "production"],
    &["slist"],
    &["examples"],
    &["tail", "web"],
    &["shutdown"],
    &["start", "a.js", "--container"],
    &["--wrokers", "2", "--", "a"],
    &["start", "a.js", "--completely-unknown"],
    &["ls", "-z"],
    // What is missing.
    &["stop"],
    &["scale", "web"],
    &["signal"],
    &["send", "web"],
    &["-p"],
    // Values.
    &["-w", "0", "--", "a"],
    &["-w", "-1", "--", "a"],
    &["-w", "0%", "--", "a"],
    &["-i", "-x", "--", "a"],
    &["-w", "1", "-i", "1", "--", "a"],
    &["-p", "65536", "--", "a"],
    &["-p", "http", "--", "a"],
    &["--host", "x", "--", "a"],
    &["-l", "localhost", "--", "a"],
    &["-l", "unix:", "--", "a"],
    &["-b", "kernal", "--", "a"],
    &["-b", "fair", "--", "a"],
    &["--protocol", "nod", "--", "a"],
    &["--ready", "http://h/x", "--", "a"],
    &["--ready", "soon", "--", "a"],
    &["--ready-timeout", "5", "--", "a"],
    &["--ready-timeout", "0s", "--", "a"],
    &["--ready-timeout", "5 parsecs", "--", "a"],
    &["--ready-timeout", "99999h", "--", "a"],
    &["--stop-signal", "SIGKIL", "--", "a"],
    &["-n", "a/b", "--", "a"],
    &["-n", "", "--", "a"],
    &["-e", "=x", "--", "a"],
    &["--log", "logs/", "--", "a"],
    &["--log", "web-%d.log", "--", "a"],
    &["--log-format", "jsn", "--", "a"],
    &["--log-date-format", "in UTC", "--", "a"],
    &["--cron-restart", "0 3 * *", "--", "a"],
    &["--cron-restart", "61 3 * * *", "--", "a"],
    &["--watch-ignore", "", "--", "a"],
    &["--max-memory", "lots", "--", "a"],
    &["--max-restarts", "x", "--", "a"],
    &["--max-runs", "0", "--", "a"],
    &["--stop-exit-codes", "300", "--", "a"],
    &["--spares", "65", "--", "a"],
    &["--user", "", "--", "a"],
    &["--autostart", "perhaps", "--", "a"],
    &["scale", "web", "0"],
    &["scale", "web", "+max"],
    &["ls", "--sort", "colour"],
    &["logs", "--lines", "x"],
    &["logs", "--err", "--out"],
    &["logs", "--timestamp=never"],
    &["completions", "tcsh"],
    &["import"],
    &["import", "a.js", "--force"],
];

#[test]
fn what_is_said_of_a_wrong_command_line_is_what_its_file_says() {
    let mut text = String::new();
    for line in WRONG {
        let typed: Vec<String> = line
            .iter()
            .map(|word| match word.is_empty() || word.contains(' ') {
                true => format!("'{word}'"),
                false => (*word).to_owned(),
            })
            .collect();
        let error = said(line).expect_err(&typed.join(" "));
        // The first line alone is what differs.
        let error = error.replace("\nFor more, try 'clusterd --help'.", "");
        assert!(error.starts_with("error: ") && !error.contains("\n\n"), "{typed:?}: {error}");
        text.push_str(&format!("$ clusterd {}\n{error}\n\n", typed.join(" ")));
    }
    holds("tests/config/said/wrong.txt", text.trim_end());
}
