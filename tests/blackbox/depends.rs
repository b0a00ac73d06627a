//! Apps that depend on others: the order of a start and of a reload.
use super::cluster::{Cluster, Folder, kill, wait_until};
use std::fs;

/// `web` depends on `api`, which is ready when the file `go` is there. Each notes its start in `order`.
fn start(api: &str, after: &str) -> Cluster {
    let folder = Folder::new();
    let app = |name: &str, then: &str| format!("#!/bin/sh\necho {name} $CLUSTERD_GENERATION >> order\n{then}\n");
    folder.write("api.sh", &app("api", api));
    folder.write("web.sh", &app("web", "exec sleep 1000"));
    let file = folder.write(
        "cluster.toml",
        &format!(
            "[[app]]\nname = \"web\"\ncommand = [\"sh\", \"web.sh\"]\nworkers = 1\nready = \"1ms\"\ndepends_on = [\"api\"]\n\
             [[app]]\nname = \"api\"\ncommand = [\"sh\", \"api.sh\"]\nworkers = 1\n{after}\n"
        ),
    );
    Cluster::start_in(folder, &["-c", &file], |_| {})
}

/// Ready once the file `go` is there.
const NOTIFY: &str = "while [ ! -e go ]; do sleep 0.01; done\nrm go\nexec python3 -c 'import os, socket, time\n\
    to = os.environ[\"NOTIFY_SOCKET\"].replace(\"@\", \"\\0\")\n\
    socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b\"READY=1\", to)\ntime.sleep(1000)'";

fn order(cluster: &Cluster) -> String {
    fs::read_to_string(cluster.folder.path().join("order")).unwrap_or_default()
}

#[test]
fn an_app_starts_when_what_it_depends_on_is_ready_and_is_reloaded_after_it() {
    let cluster = start(NOTIFY, "ready = \"notify\"");
    cluster.wait_line("web: waits for api");
    wait_until("the start of api", || order(&cluster) == "api 1\n");
    let master = cluster.master_pid();
    kill(master, "KILL");
    cluster.wait_view("the next master", |now| now.master_pid != master);
    let listed = String::from_utf8(cluster.cli(&["ls"]).stdout).unwrap();
    assert!(listed.contains("starting (waits for api)"), "{listed}");
    assert_eq!(order(&cluster), "api 1\n");
    cluster.folder.write("go", "");
    cluster.wait_view("both", |now| now.apps.iter().all(|app| app.workers_ready == 1));
    wait_until("the start of web", || order(&cluster) == "api 1\nweb 1\n");

    cluster.signal("HUP");
    cluster.wait_view("the reload of both", |now| now.apps.iter().all(|app| app.status.as_str() == "reloading"));
    cluster.folder.write("go", "");
    cluster.wait_view("its end", |now| now.apps.iter().all(|app| app.generation == 2 && app.workers_ready == 1));
    wait_until("the start of its successor", || order(&cluster) == "api 1\nweb 1\napi 2\nweb 2\n");
    cluster.stop();
}

#[test]
fn an_app_does_not_start_where_what_it_depends_on_has_failed() {
    let mut cluster = start("exit 3", "[app.restart]\nmax_restarts = 1");
    cluster.wait_line("web: not started: api, on which it depends, has failed to start");
    assert_eq!(cluster.wait_exit(), 1);
    assert_eq!(order(&cluster), "api 1\n");
}
