//! Releases behind a link `current`, and the way back from a bad one.
use super::client::{Load, get};
use super::cluster::{Cluster, Folder, kill};
use std::os::unix::fs::symlink;
use std::path::Path;

/// Answers with its release, as the client of a load expects.
const APP: &str = "require('node:http').createServer((q, s) => s.end(JSON.stringify({ pid: process.pid, of: 'RELEASE' }))).listen(process.env.PORT);";

fn release(folder: &Folder, name: &str) {
    folder.write(&format!("releases/{name}/app.js"), &APP.replace("RELEASE", name));
}

/// Lets `current` lead to a release.
fn link(folder: &Path, name: &str) {
    let new = folder.join("current.new");
    symlink(format!("releases/{name}"), &new).unwrap();
    std::fs::rename(new, folder.join("current")).unwrap();
}

/// Releases `a` and `b`; `a` serves, on two workers.
fn start() -> Cluster {
    let folder = Folder::new();
    release(&folder, "a");
    release(&folder, "b");
    link(folder.path(), "a");
    configure(&folder, 2);
    let file = folder.path().join("cluster.toml").display().to_string();
    let cluster = Cluster::start_in(folder, &["-c", &file], |_| {});
    cluster.wait_ready(2);
    cluster
}

fn configure(folder: &Folder, workers: u32) {
    let text = format!(
        "[[app]]\nname = \"web\"\ncommand = [\"node\", \"app.js\"]\ncwd = \"{}/current\"\nworkers = {workers}\n\
         listen = [\"127.0.0.1:0\"]\n[app.reload]\nsettle = \"10ms\"\n",
        folder.path().display()
    );
    folder.write("cluster.toml", &text);
}

fn ok(cluster: &Cluster, args: &[&str]) -> String {
    let done = cluster.cli(args);
    assert!(done.status.success(), "{args:?}: {done:?}");
    format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr))
}

fn refused(cluster: &Cluster, args: &[&str]) -> String {
    let done = cluster.cli(args);
    assert_eq!(done.status.code(), Some(1), "{args:?}: {done:?}");
    String::from_utf8_lossy(&done.stderr).into_owned()
}

fn serves(cluster: &Cluster) -> String {
    let answer = get(cluster.address(), "/").unwrap();
    let release = answer.split("\"of\":\"").nth(1).and_then(|rest| rest.split('"').next());
    release.unwrap_or_default().to_owned()
}

fn states(cluster: &Cluster) -> Vec<(u64, String)> {
    let listed: serde_json::Value = serde_json::from_str(&ok(cluster, &["releases", "web", "--json"])).unwrap();
    let state = |release: &serde_json::Value| {
        (release["generation"].as_u64().unwrap(), release["state"].as_str().unwrap().to_owned())
    };
    listed.as_array().unwrap().iter().map(state).collect()
}

#[test]
fn a_roll_back_goes_to_the_folder_before_and_stays_there_until_a_reload() {
    let cluster = start();
    let said = refused(&cluster, &["rollback", "web"]);
    assert!(said.contains("no generation served before generation 1"), "{said}");
    link(cluster.folder.path(), "b");
    ok(&cluster, &["reload", "web"]);
    assert_eq!(serves(&cluster), "b");
    // The file has changed since, and is not asked.
    configure(&cluster.folder, 1);
    let load = Load::start(cluster.address(), 4, true);
    load.wait_more(20);
    let said = ok(&cluster, &["rollback", "web"]);
    load.wait_more(20);
    let seen = load.finish();
    assert_eq!((seen.refused, seen.cut, seen.hung, seen.wrong), (0, 0, 0, 0), "{seen:?}");
    assert!(said.contains("back to generation 1") && said.contains("releases/a"), "{said}");
    assert_eq!((serves(&cluster).as_str(), cluster.app().workers_wanted), ("a", 2));

    let master = cluster.master_pid();
    kill(master, "KILL");
    cluster.wait_view("the next master", |now| now.master_pid != master);
    let of = |number, state: &str| (number, state.to_owned());
    assert_eq!(states(&cluster), [of(3, "serving"), of(2, "rolled_back"), of(1, "served")]);
    kill(cluster.worker_pids()[0], "KILL");
    cluster.wait_view("its replacement", |now| now.apps[0].restarts > 0);
    cluster.wait_ready(2);
    assert_eq!(serves(&cluster), "a", "also what is started now");

    ok(&cluster, &["rollback", "web", "--to", "2"]);
    assert_eq!(serves(&cluster), "b", "forward again");
    ok(&cluster, &["reload", "web"]);
    assert_eq!((serves(&cluster).as_str(), cluster.app().workers_wanted), ("b", 1), "by the file again");
    cluster.stop();
}

#[test]
fn a_roll_back_into_a_folder_that_is_gone_is_refused_and_says_so() {
    let cluster = start();
    link(cluster.folder.path(), "b");
    ok(&cluster, &["reload", "web"]);
    std::fs::remove_dir_all(cluster.folder.path().join("releases/a")).unwrap();
    let said = refused(&cluster, &["rollback", "web"]);
    assert!(said.contains("the folder of generation 1 is gone") && said.contains("--to"), "{said}");
    assert_eq!((serves(&cluster).as_str(), cluster.app().generation), ("b", 2));
    cluster.stop();
}
