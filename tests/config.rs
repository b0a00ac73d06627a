//! The samples in `config/` load, and every key and flag is documented.
#![allow(clippy::unwrap_used)]
use clusterd::cli::args;
use clusterd::config::raw::{
    AGENT_KEYS, APP_KEYS, FILE_KEYS, HOOK_KEYS, LIMITS_KEYS, LOG_KEYS, RELOAD_KEYS, RESTART_KEYS,
};
use clusterd::config::resolve::resolve;
use clusterd::config::sources::{FileSource, Sources};
use clusterd::config::{App, Config};
use std::path::{Path, PathBuf};

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(project(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn load(text: String) -> Config {
    let file = Some(FileSource { path: "/srv/sample.toml".into(), text, notes: Vec::new() });
    let sources = Sources { start_folder: "/srv".into(), file, ..Sources::default() };
    resolve(&sources).unwrap_or_else(|problems| {
        panic!("{}", problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    })
}

#[test]
fn every_sample_loads() {
    let mut count = 0;
    for entry in std::fs::read_dir(project("config")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "toml") {
            load(std::fs::read_to_string(&path).unwrap());
            count += 1;
        }
    }
    assert!(count >= 2, "{count} samples");
}

#[test]
fn the_reference_shows_every_key_with_its_default() {
    let text = read("config/cluster.toml");
    let tables = ["env", "restart", "reload", "limits", "hooks", "log", "agent"];
    for key in APP_KEYS.iter().filter(|key| !tables.contains(*key)).chain(LIMITS_KEYS) {
        let shown = text.lines().any(|line| line.trim_start_matches("# ").starts_with(&format!("{key} = ")));
        assert!(shown, "config/cluster.toml does not show {key}");
    }
    for key in RESTART_KEYS.iter().chain(RELOAD_KEYS) {
        assert!(text.lines().any(|line| line.starts_with(&format!("{key} = "))), "config/cluster.toml: {key}");
    }
    for key in HOOK_KEYS.iter().chain(AGENT_KEYS) {
        assert!(text.lines().any(|line| line.starts_with(&format!("# {key} = "))), "config/cluster.toml: {key}");
    }
    for key in LOG_KEYS {
        assert!(text.contains(&format!(" {key} = ")), "config/cluster.toml: {key}");
    }
    let tables = ["env", "env.production", "restart", "reload", "limits", "hooks", "log", "agent"]
        .map(|name| format!("[app.{name}]"));
    for table in &tables {
        assert!(text.contains(table), "config/cluster.toml: {table}");
    }
    let reference = load(text).apps.remove(0);
    let minimal = load(read("config/minimal.toml")).apps.remove(0);
    assert_eq!(reference, App { listen: reference.listen.clone(), ..minimal });
}

#[test]
fn the_examples_in_the_reference_are_right() {
    let text = read("config/cluster.toml");
    let is_example = |line: &&str| {
        line.strip_prefix("# ").is_some_and(|rest| rest.starts_with('[') || rest.split(' ').nth(1) == Some("="))
    };
    let all: String = text
        .lines()
        .map(|line| if is_example(&line) { line.trim_start_matches("# ") } else { line })
        .filter(|line| !line.starts_with("env_file"))
        .fold(String::new(), |all, line| all + line + "\n");
    let app = load(all).apps.remove(0);
    assert_eq!((app.user.as_deref(), app.umask, app.listen.len()), (Some("www-data"), Some(0o027), 2));
    assert_eq!(app.hooks.len(), HOOK_KEYS.len());
    assert!(app.log.has_file() && app.log.rotation.max_size.is_some(), "{:?}", app.log);
}

#[test]
fn every_key_is_documented() {
    let text = read("docs/configuration.md");
    let tables = [RESTART_KEYS, RELOAD_KEYS, LIMITS_KEYS, HOOK_KEYS, LOG_KEYS, AGENT_KEYS].concat();
    for key in FILE_KEYS.iter().chain(APP_KEYS).chain(&tables) {
        assert!(text.contains(&format!("`{key}`")), "docs/configuration.md does not name `{key}`");
    }
}

#[test]
fn every_flag_and_verb_is_documented() {
    let text = read("docs/command-line.md");
    let mut command = args::command();
    command.build();
    let verbs: Vec<&clap::Command> = command.get_subcommands().collect();
    for verb in &verbs {
        assert!(text.contains(&format!("`{}", verb.get_name())), "docs/command-line.md: verb {}", verb.get_name());
        for alias in verb.get_all_aliases() {
            assert!(text.contains(&format!("`{alias}`")), "docs/command-line.md: verb {alias}");
        }
    }
    for command in verbs.into_iter().chain([&command]) {
        for arg in command.get_arguments().filter(|arg| !arg.is_positional()) {
            let long = format!("--{}", arg.get_long().unwrap());
            assert!(text.contains(&long), "docs/command-line.md does not name {long}");
            if let Some(short) = arg.get_short() {
                assert!(text.contains(&format!("`-{short}")), "docs/command-line.md does not name -{short}");
            }
        }
    }
}
