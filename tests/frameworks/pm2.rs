//! PM2's libraries for apps in workers of clusterd, and PM2's own help against the table of what becomes of its verbs and
//! options here (`src/cli/pm2/table.rs`).
use super::install;
use super::support::NODE;
use crate::cluster::{Cluster, Folder};
use serde_json::Value;

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
