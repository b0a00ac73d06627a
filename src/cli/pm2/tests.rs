//! Every row of the table is as it says, and the words around them.
#![allow(clippy::unwrap_used)]
use super::table::{OPTIONS, Outcome, VERBS, VERBS_ELSEWHERE};
use super::*;
use crate::cli::command_line::{Invocation, UsageError, command, parse};

fn words(line: &str) -> Vec<String> {
    std::iter::once("clusterd").chain(line.split_whitespace()).map(str::to_owned).collect()
}

fn typed(line: &str) -> Result<Invocation, UsageError> {
    parse(words(line))
}

/// The words for clap.
fn argv(words: &[&str]) -> Vec<String> {
    let argv: Vec<String> = std::iter::once(&"clusterd").chain(words).map(|word| (*word).to_owned()).collect();
    read(&argv, &command()).argv[1..].to_vec()
}

#[test]
fn every_verb_of_pm2_works_or_says_what_to_use() {
    for verb in VERBS.iter().chain(VERBS_ELSEWHERE) {
        for name in verb.names {
            let line = format!("{name} {}", verb.example);
            match (verb.outcome, typed(&line)) {
                (Outcome::Works(_), Ok(Invocation::Verb { .. })) => {}
                (Outcome::Refused(instead), Err(error)) => {
                    assert!(error.message.contains(instead), "{line}: {}", error.message);
                    assert!(!error.message.contains("put --"), "{line}: {}", error.message);
                }
                (outcome, result) => panic!("{line}: {outcome:?}, and it was {result:?}"),
            }
            let help = typed(&format!("help {name}"));
            assert_eq!(help.is_ok(), matches!(verb.outcome, Outcome::Works(_)), "help {name}: {help:?}");
        }
    }
}

#[test]
fn every_option_of_pm2_works_or_says_what_becomes_of_it() {
    for option in OPTIONS {
        let line = option.example;
        let short = option.short.map(|short| format!("-{short}"));
        let long = format!("--{}", option.long);
        let has = |word: &str| word == long || Some(word) == short.as_deref();
        assert!(line.split_whitespace().any(has), "{line} is no example of {long}");
        match (option.outcome, typed(line)) {
            (Outcome::Works(_), Ok(Invocation::Print(_))) => {}
            (Outcome::Works(_), Ok(Invocation::Verb { notes, .. })) => assert!(notes.is_empty(), "{line}: {notes:?}"),
            (Outcome::Note(note), Ok(Invocation::Verb { notes, .. })) => assert_eq!(notes, [note], "{line}"),
            (Outcome::Refused(instead), Err(error)) => {
                assert!(error.message.contains(instead), "{line}: {}", error.message);
            }
            (outcome, result) => panic!("{line}: {outcome:?}, and it was {result:?}"),
        }
    }
}

#[test]
fn letters_mean_what_their_value_fits() {
    let cases: [(&[&str], &[&str]); 14] = [
        (&["start", "a.js", "-c", "0 3 * * *"], &["start", "a.js", "--cron-restart", "0 3 * * *"]),
        (&["start", "-c", "a.toml"], &["start", "-c", "a.toml"]),
        (&["start", "a.js", "-e", "./e.log"], &["start", "a.js", "--error", "./e.log"]),
        (&["start", "a.js", "-e", "A=/b"], &["start", "a.js", "-e", "A=/b"]),
        (&["start", "a.js", "-l", "/var/a.log"], &["start", "a.js", "--log", "/var/a.log"]),
        (&["start", "a.js", "-l", "unix:/run/a"], &["start", "a.js", "-l", "unix:/run/a"]),
        (&["start", "a.js", "-p", "80"], &["start", "a.js", "-p", "80"]),
        (&["start", "a.js", "-p", "/run/a.pid", "-i", "2"], &["start", "a.js", "-i", "2"]),
        (&["start", "a.js", "--stop-exit-codes", "1", "2"], &["start", "a.js", "--stop-exit-codes", "1,2"]),
        (&["start", "a.js", "--", "--no-vizion", "-s"], &["start", "a.js", "--", "--no-vizion", "-s"]),
        (&["start", "a.js", "--name", "x", "-s", "--parallel", "3"], &["start", "a.js", "--name", "x"]),
        (&["logs", "web", "--timestamp", "HH:mm"], &["logs", "web", "--timestamp=HH:mm"]),
        (&["logs", "--timestamp", "web"], &["logs", "--timestamp", "web"]),
        (&["startup", "systemd", "-u", "web", "--hp", "/home/web"], &["startup", "systemd", "--system", "web"]),
    ];
    for (typed, read) in cases {
        assert_eq!(argv(typed), read, "{typed:?}");
    }
    assert_eq!(argv(&["ls", "-s"]), ["ls", "-s"], "that is --short");
    assert_eq!(argv(&["init", "simple"]), ["init"], "no file of that name is written");
    assert_eq!(argv(&["ecosystem", "simple"]), ["ecosystem"]);
    assert_eq!(argv(&["-w", "2", "--", "ls", "--no-vizion"]), ["-w", "2", "--", "ls", "--no-vizion"]);
    assert_eq!(argv(&["--home", "/h", "restart", "web", "-f"]), ["--home", "/h", "restart", "web"]);
    let folder = std::env::temp_dir().display().to_string();
    let watched = ["start", "a.js", "--watch", "--watch-path", &folder];
    assert_eq!(argv(&["start", "a.js", "--watch", &folder]), watched);
    assert_eq!(argv(&watched), watched, "read twice, it is the same");
}

#[test]
fn a_process_file_alone_runs_in_the_foreground() {
    assert_eq!(argv(&["ecosystem.config.js", "--only", "web"]), ["--config", "ecosystem.config.js", "--only", "web"]);
    assert_eq!(argv(&["app.js"]), ["app.js"]);
}

#[test]
fn numbers_have_the_unit_that_pm2_has_for_them() {
    let line = "start a.js -k 3000 --restart-delay 100 --max-memory-restart 300000 --watch-delay 4 --min-uptime 50";
    let Ok(Invocation::Verb { verb: crate::cli::commands::Verb::Start(start), .. }) = typed(line) else {
        panic!("{line}")
    };
    let options = start.run.overrides().options;
    for (flag, value) in [
        ("kill-timeout", "3000ms"),
        ("restart-delay", "100ms"),
        ("max-memory", "293K"),
        ("watch-delay", "4s"),
        ("min-uptime", "50ms"),
    ] {
        assert_eq!(options.get(flag), Some(value), "{flag}");
    }
}
