//! egg itself, unmodified: its own agent and workers, with clusterd in the place of its master, and its own messenger.
use super::apps::project;
use super::client::get;
use super::cluster::{Cluster, Folder, kill, wait_until};
use super::common::ports::free_port;
use super::install;
use serde_json::{Value, json};
use std::fs;

/// Two workers and the agent of `apps/egg`.
fn start() -> Cluster {
    let folder = Folder::new();
    for name in ["package.json", "config/config.default.js", "app/router.js", "app.js", "agent.js"] {
        let text = fs::read_to_string(project("tests/frameworks/apps/egg").join(name)).unwrap();
        folder.write(&format!("shop/{name}"), &text);
    }
    let (modules, port) = (install::egg(), free_port());
    let options = json!({
        "framework": modules.join("egg"),
        "baseDir": folder.path().join("shop"),
        "port": port,
        "workers": 2,
        "clusterPort": free_port(),
    });
    let command = |script: &str| {
        let script = modules.join("egg-cluster/lib").join(script);
        format!("command = [\"node\", \"{}\", '{options}']\n", script.display())
    };
    let config = format!(
        "[[app]]\nname = \"shop\"\n{}workers = 2\nlisten = \"127.0.0.1:{port}\"\nready_timeout = \"90s\"\n\
         [app.env]\nEGG_SERVER_ENV = \"prod\"\nHOME = \"{}\"\n\
         [app.agent]\n{}ready_timeout = \"90s\"\nrestart_delay = \"50ms\"\n",
        command("app_worker.js"),
        folder.path().display(),
        command("agent_worker.js")
    );
    folder.write("c.toml", &config);
    let cluster = Cluster::start_in(folder, &["-c", "c.toml"], |_| {});
    cluster.wait_line("shop/agent: ready");
    cluster.wait_line("shop: ready, 2 workers");
    cluster
}

fn ask(cluster: &Cluster, path: &str) -> Value {
    serde_json::from_str(&get(cluster.address(), path).unwrap()).unwrap()
}

/// Asks until some worker, or the one with this pid, has seen something.
fn wait_seen(cluster: &Cluster, pid: Option<&Value>, name: &str, wanted: impl Fn(&Value) -> bool) {
    wait_until(&format!("{name} in {pid:?}"), || {
        let answer = ask(cluster, "/");
        let meant = pid.is_none_or(|pid| answer["pid"] == *pid);
        meant && answer["seen"][name].as_array().is_some_and(|seen| seen.iter().any(&wanted))
    });
}

#[test]
#[ignore = "installs frameworks and versions of Node"]
fn eggs_own_messenger_works_as_under_its_own_master() {
    let cluster = start();
    let pids: Vec<Value> = cluster.wait_ready(2).iter().map(|worker| json!(worker.pid)).collect();
    let agent = cluster.app().agent.unwrap().pid;
    for pid in &pids {
        wait_seen(&cluster, Some(pid), "ready", |seen| seen == "app");
        wait_seen(&cluster, Some(pid), "ready", |seen| seen == "agent");
    }
    assert_eq!(ask(&cluster, "/")["others"], json!([agent]));
    for how in ["sendToAgent", "sendRandom", "broadcast"] {
        let sender = ask(&cluster, &format!("/send/{how}"))["pid"].clone();
        wait_seen(&cluster, Some(&sender), "back", |seen| seen == how);
    }
    wait_seen(&cluster, None, "any", |seen| seen == "sendToAgent");
    ask(&cluster, "/send/sendToApp");
    for pid in &pids {
        wait_seen(&cluster, Some(pid), "across", |seen| seen["how"] == "sendToApp");
        wait_seen(&cluster, Some(pid), "all", |seen| seen["how"] == "broadcast");
    }
    cluster.stop();
}

#[test]
#[ignore = "installs frameworks and versions of Node"]
fn egg_goes_on_when_its_agent_or_the_master_is_killed_and_through_a_reload() {
    let cluster = start();
    let workers = cluster.worker_pids();
    let agent = cluster.app().agent.unwrap().pid.unwrap();
    kill(agent, "KILL");
    let view = cluster.wait_view("the next agent", |view| {
        view.apps[0].agent.as_ref().is_some_and(|a| a.state == "ready" && a.pid != Some(agent))
    });
    kill(cluster.master_pid(), "KILL");
    cluster.wait_view("the next master", |view| view.master_restarts == 1 && view.apps[0].workers_ready == 2);
    assert_eq!(cluster.worker_pids(), workers);
    let next = view.apps[0].agent.as_ref().unwrap().pid;
    wait_until("both workers know the agent", || ask(&cluster, "/")["others"] == json!([next]));
    let sender = ask(&cluster, "/send/sendRandom")["pid"].clone();
    wait_seen(&cluster, Some(&sender), "back", |seen| seen == "sendRandom");
    let done = cluster.cli(&["reload", "shop"]);
    assert!(done.status.success(), "{done:?}");
    let sender = ask(&cluster, "/send/sendToAgent")["pid"].clone();
    wait_seen(&cluster, Some(&sender), "back", |seen| seen == "sendToAgent");
    cluster.stop();
}
