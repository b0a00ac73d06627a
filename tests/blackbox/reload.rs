//! Reloads under load: the new beside the old, ready before the old one drains; and back when the new one is bad.
use super::client::{Load, get};
use super::cluster::{Cluster, Folder, wait_until};

const APP: &str = "require('node:http').createServer((q, s) => s.end(JSON.stringify({ pid: process.pid, version: VERSION }))).listen(process.env.PORT);";

fn app(folder: &Folder, version: &str) {
    folder.write("app.js", &APP.replace("VERSION", version));
}

fn start(folder: Folder) -> Cluster {
    let args = ["-w", "2", "--host", "127.0.0.1", "--port", "0", "--name", "web", "--", "node", "app.js"];
    let cluster = Cluster::start_in(folder, &args, |_| {});
    cluster.wait_ready(2);
    cluster
}

fn reload_under_load(keep_alive: bool) {
    let folder = Folder::new();
    app(&folder, "1");
    let cluster = start(folder);
    let address = cluster.address();
    let load = Load::start(address, 16, keep_alive);
    load.wait_more(100);
    for version in 2..5 {
        app(&cluster.folder, &version.to_string());
        let done = cluster.cli(&["reload", "web"]);
        assert!(done.status.success(), "{done:?}");
        // The command is done when the new generation serves alone.
        assert!(get(address, "/").unwrap().contains(&format!("\"version\":{version}")));
        load.wait_more(50);
    }
    let seen = load.finish();
    assert_eq!((seen.refused, seen.cut, seen.hung, seen.wrong), (0, 0, 0, 0), "{seen:?}");
    assert_eq!(cluster.app().generation, 4);
    cluster.stop();
}

#[test]
fn three_reloads_lose_no_short_connection() {
    reload_under_load(false);
}

#[test]
fn three_reloads_lose_no_kept_alive_request() {
    reload_under_load(true);
}

#[test]
fn sighup_replaces_every_worker_and_loses_nothing() {
    let cluster = Cluster::hello(2);
    let before = cluster.worker_pids();
    let load = Load::start(cluster.address(), 16, false);
    load.wait_more(100);
    cluster.signal("HUP");
    cluster.wait_line("generation 2 serves alone");
    let after = cluster.worker_pids();
    assert!(after.len() == 2 && after.iter().all(|pid| !before.contains(pid)), "{before:?} {after:?}");
    let seen = load.finish();
    assert_eq!((seen.refused, seen.cut, seen.hung, seen.wrong), (0, 0, 0, 0), "{seen:?}");
    cluster.stop();
}

/// A reload to this code fails, the old code serves on and nobody notices.
fn bad_deploy(code: &str, wanted: &str) {
    let folder = Folder::new();
    app(&folder, "1");
    let cluster = start(folder);
    let before = cluster.worker_pids();
    let load = Load::start(cluster.address(), 16, false);
    load.wait_more(50);
    cluster.folder.write("app.js", code);
    let refused = cluster.cli(&["reload", "web"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains(wanted), "{said}");
    load.wait_more(50);
    let seen = load.finish();
    assert_eq!((seen.refused, seen.cut, seen.hung, seen.wrong), (0, 0, 0, 0), "{seen:?}");
    assert_eq!(cluster.worker_pids(), before, "the old workers were never touched");
    cluster.stop();
}

#[test]
fn code_that_throws_at_start_never_replaces_a_healthy_worker() {
    bad_deploy("throw new Error('bad deploy')", "exited with code 1");
}

#[test]
fn code_that_does_not_parse_never_replaces_a_healthy_worker() {
    bad_deploy("this is no javascript", "exited with code 1");
}

#[test]
fn a_configuration_that_no_longer_parses_is_refused_and_changes_nothing() {
    let folder = Folder::new();
    app(&folder, "1");
    let config = "[[app]]\nname = \"web\"\ncommand = [\"node\", \"app.js\"]\nworkers = 2\nlisten = \"127.0.0.1:0\"\n";
    folder.write("cluster.toml", config);
    let cluster = Cluster::start_in(folder, &["-c", "cluster.toml"], |_| {});
    let before: Vec<_> = cluster.wait_ready(2).iter().map(|w| w.id).collect();
    cluster.folder.write("cluster.toml", &config.replace("workers", "wrokers"));
    let refused = cluster.cli(&["reload", "web"]);
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("cluster.toml:4:1") && said.contains("\"workers\""), "{said}");
    assert_eq!(cluster.wait_ready(2).iter().map(|w| w.id).collect::<Vec<_>>(), before);
    // And a good one with another number of workers is taken.
    cluster.folder.write("cluster.toml", &config.replace("workers = 2", "workers = 3"));
    assert!(cluster.cli(&["reload", "web"]).status.success());
    cluster.wait_ready(3);
    cluster.stop();
}

#[test]
fn a_reload_to_fewer_workers_gives_the_old_configuration_back() {
    let folder = Folder::new();
    app(&folder, "1");
    let config = "[[app]]\nname = \"web\"\ncommand = [\"node\", \"app.js\"]\nworkers = 2\nlisten = \"127.0.0.1:0\"\n";
    folder.write("cluster.toml", config);
    let cluster = Cluster::start_in(folder, &["-c", "cluster.toml"], |_| {});
    cluster.wait_ready(2);
    cluster.folder.write("cluster.toml", &config.replace("workers = 2", "workers = 1"));
    assert!(cluster.cli(&["reload", "web"]).status.success());
    cluster.wait_ready(1);
    let fds = format!("/proc/{}/fd", cluster.keeper_pid());
    let held = || {
        let links = std::fs::read_dir(&fds).unwrap().flatten().filter_map(|fd| std::fs::read_link(fd.path()).ok());
        links.filter(|link| link.to_string_lossy().contains("memfd:source")).count()
    };
    wait_until("one configuration is held", || held() == 1);
    cluster.stop();
}
