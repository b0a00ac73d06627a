//! A command before the workers: once for each generation, and its failure stops the reload.
use super::client::get;
use super::cluster::{Cluster, Folder, kill, wait_until};

/// Answers with the number of the release; what `before.sh` does is up to each test.
const APP: &str =
    "require('node:http').createServer((q, s) => s.end(process.env.CLUSTERD_GENERATION)).listen(process.env.PORT);";

/// An app of four workers whose `before` notes each run in `runs`, and then does as the test says.
fn start(then: &str) -> Cluster {
    let folder = Folder::new();
    folder.write("app.js", APP);
    before(&folder, then);
    let file = folder.write(
        "cluster.toml",
        "[[app]]\nname = \"web\"\ncommand = [\"node\", \"app.js\"]\nworkers = 4\nlisten = [\"127.0.0.1:0\"]\n\
         before = [\"./before.sh\"]\n",
    );
    Cluster::start_in(folder, &["-c", &file], |_| {})
}

fn before(folder: &Folder, then: &str) {
    folder.write_executable("before.sh", &format!("#!/bin/sh\necho $CLUSTERD_GENERATION >> runs\n{then}\n"));
}

fn runs(cluster: &Cluster) -> String {
    std::fs::read_to_string(cluster.folder.path().join("runs")).unwrap_or_default()
}

#[test]
fn it_runs_once_for_each_generation_and_a_failure_leaves_the_old_workers() {
    let cluster = start("echo migrated");
    cluster.wait_ready(4);
    cluster.wait_out("web/before | migrated");
    assert_eq!(runs(&cluster), "1\n", "once for four workers");
    let address = cluster.address();
    // A worker that dies is replaced without it.
    let (old, restarts) = (cluster.worker_pids()[0], cluster.app().restarts);
    kill(old, "KILL");
    wait_until("the replacement", || cluster.app().restarts > restarts);
    cluster.wait_ready(4);
    assert_eq!(runs(&cluster), "1\n");

    before(&cluster.folder, "echo no such table >&2; exit 3");
    let failed = cluster.cli(&["reload", "web"]);
    let said = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert_eq!(failed.status.code(), Some(1), "{said}");
    for part in ["before exited with code 3", "the old generation serves", "no such table"] {
        assert!(said.contains(part), "{part} is missing: {said}");
    }
    assert_eq!(get(address, "/").unwrap().lines().last(), Some("1"));
    assert_eq!((cluster.app().generation, runs(&cluster).as_str()), (1, "1\n2\n"));

    before(&cluster.folder, "");
    assert!(cluster.cli(&["reload", "web"]).status.success());
    assert_eq!(get(address, "/").unwrap().lines().last(), Some("3"));
    assert_eq!(runs(&cluster), "1\n2\n3\n");
    cluster.stop();
}

#[test]
fn a_new_master_takes_a_running_one_over() {
    let cluster = start("while [ ! -e go ]; do sleep 0.01; done");
    wait_until("its run", || runs(&cluster) == "1\n");
    let master = cluster.master_pid();
    kill(master, "KILL");
    cluster.wait_view("the next master", |now| now.master_pid != master);
    let listed = String::from_utf8(cluster.cli(&["ls"]).stdout).unwrap();
    assert!(listed.contains("starting (before)"), "{listed}");
    cluster.folder.write("go", "");
    cluster.wait_ready(4);
    assert_eq!(runs(&cluster), "1\n", "it has not run again");
    cluster.stop();
}

#[test]
fn at_a_start_its_failure_is_that_of_the_start() {
    let cluster = start("exit 9");
    cluster.wait_line("before: the command");
    let listed = String::from_utf8(cluster.cli(&["describe", "web"]).stdout).unwrap();
    assert!(listed.contains("exited with code 9"), "{listed}");
    cluster.stop();
}
