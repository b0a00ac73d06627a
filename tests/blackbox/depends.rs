//! Apps that depend on others: the order of a start, of a reload and of a stop.
use super::background::Home;
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

/// `web` depends on `api`, and `api` on `db`. On SIGTERM, which a new master repeats, each notes it in `order` and ends, `web` when it
/// finds the file `go`.
fn chain(folder: &Folder, options: &str) -> String {
    let app = |name: &str, wait: &str| {
        let script = format!(
            "trap 'trap \"\" TERM; echo {name} is told >> order; {wait} echo {name} ends >> order; exit' TERM\n\
             echo {name} $CLUSTERD_GENERATION >> order\nwhile :; do sleep 0.01; done\n"
        );
        folder.write(&format!("{name}.sh"), &script);
    };
    app("web", "while [ ! -e go ]; do sleep 0.01; done;");
    app("api", "");
    app("db", "");
    let table = |name: &str, on: &str| {
        format!(
            "[[app]]\nname = \"{name}\"\ncommand = [\"sh\", \"{name}.sh\"]\nworkers = 1\nready = \"1ms\"\n{on}\n{options}\n"
        )
    };
    let tables =
        [table("db", ""), table("web", "depends_on = [\"api\"]"), table("api", "depends_on = [\"db\"]")].concat();
    folder.write("cluster.toml", &tables)
}

const STOPPED: &str = "web is told\nweb ends\napi is told\napi ends\ndb is told\ndb ends\n";

/// What was noted since the first line that somebody was told to end.
fn told(folder: &Folder) -> String {
    let all = fs::read_to_string(folder.path().join("order")).unwrap_or_default();
    all.find("web is told").map(|at| all[at..].to_owned()).unwrap_or(all)
}

#[test]
fn a_stop_ends_each_app_when_those_that_depend_on_it_have_ended_also_under_another_master() {
    let folder = Folder::new();
    let file = chain(&folder, "");
    let mut cluster = Cluster::start_in(folder, &["-c", &file], |_| {});
    cluster.wait_view("all", |now| now.apps.iter().all(|app| app.workers_ready == 1));
    cluster.signal("TERM");
    cluster.wait_line("api: stopping when web has stopped (depends_on)");
    cluster.wait_line("db: stopping when api has stopped (depends_on)");
    wait_until("the order to web", || told(&cluster.folder) == "web is told\n");
    let listed = String::from_utf8(cluster.cli(&["ls"]).stdout).unwrap();
    assert!(listed.contains("stopping (waits for web)"), "{listed}");
    let refused = cluster.cli(&["reload", "api"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let master = cluster.master_pid();
    kill(master, "KILL");
    let view = cluster.wait_view("the next master", |now| now.master_pid != master);
    let ready: u32 = view.apps.iter().filter(|app| app.name != "web").map(|app| app.workers_ready).sum();
    assert_eq!(ready, 2, "the others serve on: {view:#?}");
    assert_eq!(told(&cluster.folder), "web is told\n");
    cluster.folder.write("go", "");
    assert_eq!(cluster.wait_exit(), 0);
    assert_eq!(told(&cluster.folder), STOPPED);
}

#[test]
fn a_second_signal_waits_for_nobody() {
    let folder = Folder::new();
    let file = chain(&folder, "kill_timeout = \"200ms\"");
    let mut cluster = Cluster::start_in(folder, &["-c", &file], |_| {});
    cluster.wait_view("all", |now| now.apps.iter().all(|app| app.workers_ready == 1));
    cluster.signal("TERM");
    wait_until("the order to web", || told(&cluster.folder) == "web is told\n");
    cluster.signal("TERM");
    assert_eq!(cluster.wait_exit(), 0);
    let told = told(&cluster.folder);
    assert!(told.contains("api ends") && told.contains("db ends") && !told.contains("web ends"), "{told}");
}

#[test]
fn apps_that_are_stopped_or_deleted_together_end_in_that_order() {
    let home = Home::new();
    let file = chain(&home.folder, "");
    for verb in ["stop", "delete"] {
        let _ = fs::remove_file(home.folder.path().join("order"));
        home.ok(&["start", &file]);
        home.folder.write("go", "");
        home.ok(&[verb, "db", "web", "api"]);
        assert_eq!(told(&home.folder), STOPPED, "{verb}");
    }
    home.ok(&["start", &file]);
    home.ok(&["stop", "db"]);
    let states: Vec<String> = ["web", "api", "db"].map(|name| home.app(name).status.as_str().to_owned()).into();
    assert_eq!(states, ["running", "running", "stopped"], "one alone waits for nobody");
    home.ok(&["delete", "all"]);
}

#[test]
fn what_depends_on_an_app_that_was_not_reloaded_is_not_reloaded_either() {
    let home = Home::new();
    let file = chain(&home.folder, "before = [\"sh\", \"-c\", \"test $CLUSTERD_APP != api -o ! -e broken\"]");
    home.ok(&["start", &file]);
    home.folder.write("go", "");
    home.folder.write("broken", "");
    for target in ["all", &file] {
        let said = home.fails(&["reload", target]);
        assert!(said.contains("reloaded db"), "{said}");
        assert!(said.contains("web: not reloaded: api, on which it depends, was not reloaded"), "{said}");
    }
    let generations = ["db", "api", "web"].map(|name| home.app(name).generation);
    assert_eq!(generations, [3, 1, 1]);
    home.ok(&["delete", "all"]);
}
