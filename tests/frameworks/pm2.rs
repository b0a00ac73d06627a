//! PM2's libraries for apps in workers of clusterd, and PM2's own help against the table of what becomes of its verbs and
//! options here (`src/cli/pm2/table.rs`).
use super::install;
use super::support::NODE;
use crate::cluster::{Cluster, Folder};
use crate::common::api;
use crate::common::openmetrics::parse;
use clusterd::cli::pm2::table::{OPTIONS, Outcome, VERBS};
use serde_json::Value;
use std::process::{Command, Output};

/// An app with actions and metrics of both libraries.
const APP: &str = "const io = require('@pm2/io'); const tx2 = require('tx2');\n\
    io.action('hello', (reply) => reply({ from: 'io' }));\n\
    io.action('echo', (param, reply) => reply('got ' + param));\n\
    io.metric({ name: 'Users', unit: 'u', value: () => 3 });\n\
    tx2.action('clean', (reply) => reply({ from: 'tx2' }));\n\
    tx2.metric('State', () => 'good');\n\
    require('http').createServer((q, a) => a.end()).listen(process.env.PORT)";

#[test]
#[ignore = "installs frameworks and versions of Node"]
fn actions_and_metrics_of_pm2s_libraries_work() {
    let folder = Folder::new();
    folder.write("app.js", APP);
    let (path, node) = (format!("NODE_PATH={}", install::apart("pm2").display()), install::node(NODE));
    let options = ["-n", "web", "-w", "2", "--host", "127.0.0.1", "--port", "0", "-e", &path, "--", &node, "app.js"];
    let cluster = Cluster::start_in(folder, &options, |_| {});
    cluster.wait_ready(2);
    let offers = |worker: &clusterd::api::types::Worker, name: &str| worker.actions.iter().any(|known| known == name);
    cluster.wait_view("actions and metrics of both workers", |view| {
        view.apps[0].workers.iter().all(|worker| {
            let measured = |name: &str| worker.custom_metrics.get(name).map(|metric| metric.value.clone());
            ["hello", "echo", "clean"].iter().all(|name| offers(worker, name))
                && measured("Users") == Some(Value::from(3))
                && measured("State") == Some(Value::from("good"))
        })
    });
    let (_, text) = api::get(&cluster.folder.path().join("home"), "/metrics");
    let found = parse(&text).unwrap_or_else(|why| panic!("{why}\n{text}"));
    let value = |name| found.sum("clusterd_worker_custom_metric", &[("app", "web"), ("name", name)]);
    assert_eq!((value("Users"), value("State")), (6.0, 0.0), "a text is no number");
    let answers = |args: &[&str]| {
        let ended = cluster.cli(&[&["trigger", "web"], args].concat());
        assert!(ended.status.success(), "{ended:?}");
        String::from_utf8(ended.stdout).unwrap()
    };
    assert_eq!(answers(&["hello"]), "web/0: {\"from\":\"io\"}\nweb/1: {\"from\":\"io\"}\n");
    assert_eq!(answers(&["echo", "x"]), "web/0: got x\nweb/1: got x\n");
    assert_eq!(answers(&["clean"]), "web/0: {\"from\":\"tx2\"}\nweb/1: {\"from\":\"tx2\"}\n");
    cluster.stop();
}

/// PM2 with a home of its own; its daemon, which even `--help` starts, ends with it.
struct Pm2 {
    folder: Folder,
}

impl Pm2 {
    fn run(&self, args: &[&str]) -> Output {
        let program = install::apart("pm2").join("pm2/bin/pm2");
        let mut pm2 = Command::new(install::node(NODE));
        pm2.arg(program).args(args).env("PM2_HOME", self.folder.path().join("pm2")).output().unwrap()
    }

    fn help(&self, args: &[&str]) -> String {
        let ended = self.run(&[args, &["--help"]].concat());
        assert!(ended.status.success(), "{args:?}: {ended:?}");
        String::from_utf8_lossy(&ended.stdout).into_owned()
    }
}

impl Drop for Pm2 {
    fn drop(&mut self) {
        self.run(&["kill"]);
    }
}

/// The lines of a section of a help text.
fn section<'a>(help: &'a str, title: &str) -> impl Iterator<Item = &'a str> {
    let behind = help.split_once(&format!("\n  {title}:")).map(|(_, behind)| behind).unwrap_or_default();
    behind.lines().skip_while(|line| line.trim().is_empty()).take_while(|line| line.starts_with("    "))
}

/// The long options of a help text.
fn options(help: &str) -> Vec<String> {
    let words =
        |line: &str| line.split_whitespace().take_while(|word| word.starts_with('-')).map(str::to_owned).collect();
    let named: Vec<Vec<String>> = section(help, "Options").map(words).collect();
    named
        .into_iter()
        .flatten()
        .filter_map(|word| Some(word.strip_prefix("--")?.trim_end_matches(',').to_owned()))
        .collect()
}

#[test]
#[ignore = "installs frameworks and versions of Node"]
fn every_verb_and_option_that_pm2s_help_names_has_a_row() {
    let pm2 = Pm2 { folder: Folder::new() };
    let help = pm2.help(&[]);
    let named = options(&help);
    let verbs: Vec<&str> = section(&help, "Commands").map(str::trim).filter(|line| !line.starts_with('*')).collect();
    // That it was read at all.
    assert!(named.len() > 60 && verbs.len() > 70, "{} {}: {help}", named.len(), verbs.len());
    let mut missing = Vec::new();
    let mut look = |of: &str, named: Vec<String>| {
        let unknown = named.into_iter().filter(|name| !OPTIONS.iter().any(|option| option.long == name));
        missing.extend(unknown.map(|name| format!("{of} --{name}")));
    };
    look("pm2", named);
    let mut without = Vec::new();
    for line in verbs {
        let names: Vec<&str> = line.split(' ').next().unwrap_or_default().split('|').collect();
        for name in &names {
            match VERBS.iter().find(|verb| verb.names.contains(name)) {
                None => without.push((*name).to_owned()),
                // Its options are refused with it.
                Some(verb) if matches!(verb.outcome, Outcome::Refused(_)) => {}
                Some(_) if line.contains("[options]") => look(name, options(&pm2.help(&[name]))),
                Some(_) => {}
            }
        }
    }
    assert!(missing.is_empty() && without.is_empty(), "no row for the verbs {without:?}, the options {missing:?}");
}
