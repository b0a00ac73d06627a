//! Configuration: the samples in `config/` load, what is generated from the settings is up to date, every flag and verb is documented.
#![allow(clippy::unwrap_used)]
mod deploy;
mod parse;
mod resolve;
mod said;

use clusterd::cli::command_line;
use clusterd::cli::pm2::table;
use clusterd::config::resolve::resolve;
use clusterd::config::schema::{json, keys_of, reference, sample, settings};
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

/// Set to rewrite what is generated, instead of comparing it: UPDATE=1 cargo test --test config
fn is_update() -> bool {
    std::env::var_os("UPDATE").is_some()
}

/// Whether a file holds this text; with UPDATE it is written.
fn holds(path: &str, wanted: &str) {
    if is_update() {
        std::fs::write(project(path), wanted).unwrap();
    }
    let differs = read(path).lines().zip(wanted.lines()).position(|(is, wanted)| is != wanted);
    let same = read(path) == wanted;
    assert!(same, "{path} is not what the settings say (line {differs:?}): UPDATE=1 cargo test --test config");
}

/// How many verbs and options of PM2 work, are taken with a note, are refused: cargo test --test config pm2 -- --nocapture
#[test]
fn the_counts_of_pm2s_verbs_and_options_are_in_the_page() {
    let counts = table::counts();
    eprintln!("{counts}");
    assert!(read("docs/migrating.md").contains(&counts));
}

#[test]
fn what_is_generated_is_up_to_date() {
    holds("config/cluster.toml", &sample::sample());
    holds("config/cluster.schema.json", &json::schema());
    for path in ["docs/configuration.md", "docs/command-line.md"] {
        let page = read(path);
        holds(path, &reference::with_tables(&page).unwrap());
    }
    let page = read("docs/migrating.md");
    let (before, rest) = page.split_once("<!-- pm2 -->\n").unwrap();
    let after = rest.split_once("<!-- end -->\n").unwrap().1;
    holds("docs/migrating.md", &format!("{before}<!-- pm2 -->\n{}<!-- end -->\n{after}", table::markdown()));
    let page = read("docs/configuration.md");
    for place in reference::places() {
        assert!(page.contains(&format!("<!-- keys of {place} -->")), "docs/configuration.md has no table of {place}");
    }
    assert!(read("docs/command-line.md").contains("<!-- flags -->"));
}

#[test]
fn the_reference_shows_every_key_with_its_default() {
    let text = read("config/cluster.toml");
    for setting in settings() {
        let name = setting.name;
        let shown = match ((setting.is_table)(), setting.scope.path) {
            (true, "") => text.contains("[[app]]"),
            (true, _) => text.contains(&format!("[app.{name}]")),
            (false, _) => text.lines().any(|line| line.trim_start_matches("# ").starts_with(&format!("{name} = "))),
        };
        assert!(shown, "config/cluster.toml does not show {name}");
    }
    let reference = load(text).apps.remove(0);
    let minimal = load(read("config/minimal.toml")).apps.remove(0);
    assert_eq!(reference, App { listen: reference.listen.clone(), ..minimal });
}

#[test]
fn the_schema_names_every_key_and_no_other() {
    let schema: serde_json::Value = serde_json::from_str(&json::schema()).unwrap();
    let app = &schema["properties"]["app"]["items"];
    assert_eq!(app["required"], serde_json::json!(["command"]));
    for setting in settings().filter(|setting| !setting.scope.path.is_empty()) {
        let table = setting.scope.path.trim_start_matches("app").trim_start_matches('.');
        let of_app = setting.scope.path.split('.').next() == Some("app");
        let above = if of_app { app } else { &schema };
        let object = if table.is_empty() { app } else { &above["properties"][table] };
        let property = &object["properties"][setting.name];
        assert!(property["description"].is_string(), "{}", setting.name);
        assert_eq!(object["additionalProperties"], false);
    }
    assert_eq!(app["properties"]["restart"]["properties"]["max_restarts"]["default"], 16);
    assert_eq!(app["properties"]["reload"]["properties"]["settle"]["default"], "700ms");
}

#[test]
fn the_examples_in_the_reference_are_right() {
    let text = read("config/cluster.toml");
    let is_example = |line: &&str| {
        line.strip_prefix("# ").is_some_and(|rest| rest.starts_with('[') || rest.split(' ').nth(1) == Some("="))
    };
    let all_but = |way: &str| -> String {
        text.lines()
            .map(|line| if is_example(&line) { line.trim_start_matches("# ") } else { line })
            .filter(|line| !line.starts_with("env_file") && !line.starts_with("file =") && !line.starts_with(way))
            .fold(String::new(), |all, line| all + line + "\n")
    };
    // Two ways to ask whether a worker is well, of which an app has one.
    let asks = load(all_but("http =")).apps.remove(0);
    assert!(asks.alive.exec.is_some() && asks.alive.http.is_none());
    let app = load(all_but("exec =")).apps.remove(0);
    assert!(app.alive.http.is_some());
    assert_eq!((app.user.as_deref(), app.umask, app.listen.len()), (Some("www-data"), Some(0o027), 2));
    assert_eq!(app.hooks.len(), keys_of("app.hooks").len());
    assert!(app.log.has_file() && app.log.rotation.max_size.is_some(), "{:?}", app.log);
}

#[test]
fn every_flag_and_verb_is_documented() {
    let text = read("docs/command-line.md");
    let mut command = command_line::command();
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
