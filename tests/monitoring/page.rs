//! The page of the control API in a real browser: `page.mjs` drives Chromium.
use super::cluster::{Cluster, Folder};
use super::common::apps::project;
use super::common::packages::program;
use std::fs;
use std::process::Command;

const CONFIG: &str = r#"[control]
listen = "127.0.0.1:0"
page = true
token_file = "all.token"
[[app]]
name = "hello"
command = ["node", "app.js"]
workers = 1
listen = "127.0.0.1:0"
log = { out = "hello.log" }
[[app]]
name = "api"
command = ["node", "app.js"]
workers = 1
listen = "127.0.0.1:0"
log = { out = "api.log" }
"#;

const APP: &str = "console.log('started <b>as text</b>');
require('http').createServer((q, a) => a.end('hello')).listen(process.env.PORT);
";

#[test]
#[ignore = "installs Chromium"]
fn a_browser_shows_and_changes_a_deployment() {
    let Some(chromium) = program("chromium", "chromium") else { return };
    let folder = Folder::new();
    folder.write("c.toml", CONFIG);
    folder.write("app.js", APP);
    let cluster = Cluster::start_in(folder, &["-c", "c.toml"], |_| {});
    let line = cluster.wait_line("the control API is at http://");
    let (_, address) = line.split_once("http://").unwrap();
    cluster.wait_view("both apps", |view| view.apps.len() == 2 && view.apps.iter().all(|app| app.workers_ready == 1));
    let token = fs::read_to_string(cluster.folder.path().join("all.token")).unwrap();
    let mut browser = Command::new("node");
    browser.arg(project("tests/monitoring/page.mjs"));
    browser.args([&chromium, &format!("http://{}/", address.trim()), token.trim()]);
    let done = browser.output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    cluster.stop();
}
