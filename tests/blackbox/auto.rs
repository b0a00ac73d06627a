//! `balance = "auto"`: what it means for an app and where that is said, what a worker may show that speaks against it, and reloads
//! that change the balance. What the table prefers is not repeated here: the tests hold for each of its values.
use super::client::{Load, Tally, get, who};
use super::cluster::{Cluster, Folder, kill, run, wait_until};
use clusterd::api::types::App;
use clusterd::config::balancing::{Balance, ROUND_ROBIN, TABLE};
use std::collections::BTreeSet;

const APP: &str = "require('node:http').createServer((q, s) => s.end(JSON.stringify({ pid: process.pid }))).listen(process.env.PORT);";

/// With a file that can be changed.
fn start_with(balance: &str, keys: &str) -> Cluster {
    let folder = Folder::new();
    folder.write("app.js", APP);
    write(&folder, balance, keys);
    let cluster = Cluster::start_in(folder, &["-c", "c.toml"], |_| {});
    cluster.wait_ready(2);
    cluster
}

fn write(folder: &Folder, balance: &str, keys: &str) {
    let text = format!(
        "[[app]]\nname = \"web\"\ncommand = [\"node\", \"app.js\"]\nworkers = 2\nlisten = \"127.0.0.1:0\"\nbalance = \"{balance}\"\n{keys}"
    );
    folder.write("c.toml", &text);
}

fn nothing_lost(seen: &Tally) {
    assert_eq!((seen.refused, seen.cut, seen.hung, seen.wrong), (0, 0, 0, 0), "{seen:?}");
}

fn why(app: &App) -> String {
    assert_eq!(app.balance_typed.as_str(), "auto");
    app.balance_why.clone().expect("a reason")
}

#[test]
fn what_auto_means_is_said_with_the_reason() {
    let folder = Folder::new();
    folder.write("app.js", APP);
    let args = ["-w", "2", "--name", "web", "--port", "0", "--", "node", "app.js"];
    let (code, checked, _) = run(&folder, &[&["check"], &args[..]].concat());
    let cluster = Cluster::start_in(folder, &args, |_| {});
    cluster.wait_ready(2);
    let app = cluster.app();
    let sentence = format!("auto: {}, since {}", app.balance, why(&app));
    cluster.wait_line(&format!("web: balance {sentence}"));
    assert!(code == 0 && checked.contains(&sentence), "{checked}");
    for verb in [&["ls"][..], &["describe", "web"]] {
        let said = String::from_utf8(cluster.cli(verb).stdout).unwrap();
        assert!(said.contains(&sentence), "{said}");
    }
    cluster.stop();
}

#[test]
fn a_balance_that_was_typed_needs_no_reason() {
    let cluster = start_with("round-robin", "");
    let app = cluster.app();
    assert_eq!(
        (app.balance.as_str(), app.balance_typed.as_str(), app.balance_why),
        ("round-robin", "round-robin", None)
    );
    for verb in [&["ls"][..], &["describe", "web"]] {
        let said = String::from_utf8(cluster.cli(verb).stdout).unwrap();
        assert!(!said.contains("since"), "{said}");
    }
    cluster.stop();
}

#[test]
fn settings_that_need_hand_offs_get_them() {
    for (keys, reason) in [
        ("limits.max_connections = 1000\n", "max_connections"),
        ("preload = false\n", "preload = false"),
        ("ready = \"http:/\"\n", "http:/"),
    ] {
        let cluster = start_with("auto", keys);
        let app = cluster.app();
        assert_eq!(app.balance.as_str(), "round-robin");
        assert!(TABLE.several_workers == ROUND_ROBIN || why(&app).contains(reason), "{}", why(&app));
        who(cluster.address());
        cluster.wait_view("a hand-off", |view| view.apps[0].handoffs > 0);
        cluster.stop();
    }
}

/// It is handed connections, says why, and the next master and the next generation say the same.
fn falls_back(cluster: &Cluster, reason: &str) {
    let is_said = |app: &App| TABLE.several_workers == ROUND_ROBIN || why(app).contains(reason);
    for turn in 0..3 {
        let app = cluster.app();
        assert!(app.balance.as_str() == "round-robin" && is_said(&app), "{turn}: {:?}", app.balance_why);
        let before = app.handoffs;
        let load = Load::start(cluster.address(), 4, false);
        load.wait_more(100);
        nothing_lost(&load.finish());
        cluster.wait_view("as many hand-offs as answers", |view| view.apps[0].handoffs >= before + 100);
        match turn {
            0 => {
                let master = cluster.master_pid();
                kill(master, "KILL");
                cluster.wait_view("another master", |view| view.master_pid != master);
                cluster.wait_ready(2);
            }
            _ => assert!(cluster.cli(&["reload", "all"]).status.success()),
        }
    }
}

#[test]
fn what_one_worker_refuses_another_serves() {
    let folder = Folder::new();
    let app = "const s = require('node:http').createServer((q, r) => r.end('pid=' + process.pid));\n\
               s.maxConnections = 2;\ns.listen(process.env.PORT);";
    folder.write("app.js", app);
    let args = ["-w", "2", "--host", "127.0.0.1", "--port", "0", "--", "node", "app.js"];
    let cluster = Cluster::start_in(folder, &args, |_| {});
    cluster.wait_ready(2);
    falls_back(&cluster, "maxConnections");
    cluster.stop();
}

#[test]
fn a_program_that_runs_without_the_preload_is_handed_its_connections() {
    let folder = Folder::new();
    folder.write("app.js", APP);
    folder.write_executable("start", "#!/bin/sh\nunset NODE_OPTIONS\nexec node \"$@\"\n");
    let args = ["-w", "2", "--protocol", "node", "--host", "127.0.0.1", "--port", "0", "--", "./start", "app.js"];
    let cluster = Cluster::start_in(folder, &args, |_| {});
    cluster.wait_ready(2);
    falls_back(&cluster, "without the preload");
    cluster.stop();
}

#[test]
fn a_unix_socket_that_only_the_app_names_is_no_reason_for_uneven_shares() {
    let folder = Folder::new();
    folder.write("app.js", "require('node:http').createServer((q, r) => r.end('x')).listen('app.sock');");
    let cluster = Cluster::start_in(folder, &["-w", "2", "--", "node", "app.js"], |_| {});
    cluster.wait_ready(2);
    let app = cluster.app();
    assert_ne!(app.balance.as_str(), "kernel");
    assert!(TABLE.several_workers != Balance::Kernel || why(&app).contains("unix socket"), "{}", why(&app));
    cluster.stop();
}

#[test]
fn one_server_of_several_that_nobody_opens_is_told_of() {
    let folder = Folder::new();
    let app = "require('node:http').createServer((q, r) => r.end('pid=' + process.pid)).listen(process.env.PORT);";
    folder.write("app.js", app);
    let args = ["-w", "2", "--listen", "127.0.0.1:0", "--listen", "[::1]:0", "--", "node", "app.js"];
    let cluster = Cluster::start_in(folder, &args, |_| {});
    cluster.wait_ready(2);
    cluster.wait_line("no worker listens on [::1]:");
    assert!(get(cluster.address(), "/").unwrap().starts_with("pid="));
    cluster.stop();
}

fn reloads_lose_nothing(balances: &[&str], keep_alive: bool) {
    let keys = "reload.settle = \"0s\"\n";
    let cluster = start_with(balances[0], keys);
    let load = Load::start(cluster.address(), 8, keep_alive);
    load.wait_more(50);
    for balance in &balances[1..] {
        write(&cluster.folder, balance, keys);
        let done = cluster.cli(&["reload", "web"]);
        assert!(done.status.success(), "{done:?}");
        let app = cluster.app();
        let used = if *balance == "auto" { TABLE.several_workers.name() } else { balance };
        assert_eq!((app.balance_typed.as_str(), app.balance.as_str()), (*balance, used));
        load.wait_more(50);
    }
    nothing_lost(&load.finish());
    cluster.stop();
}

#[test]
fn a_reload_from_round_robin_to_kernel_and_back_loses_no_connection() {
    reloads_lose_nothing(&["round-robin", "kernel", "round-robin"], false);
}

#[test]
#[ignore = "a long load"]
fn a_reload_may_change_the_balance_to_any_other_and_loses_no_connection() {
    let _turn = super::common::turns::turn();
    let all = ["auto", "kernel", "shared", "round-robin", "sticky"];
    for keep_alive in [false, true] {
        for from in all {
            let there_and_back: Vec<&str> = all.iter().filter(|to| **to != from).flat_map(|to| [from, to]).collect();
            reloads_lose_nothing(&[&there_and_back[..], &[from]].concat(), keep_alive);
        }
    }
}

/// While the first new worker is watched, both generations serve.
fn both_serve_in_between(from: &str, to: &str) {
    let keys = "reload.canary = \"3s\"\nreload.canary_max = 0\nreload.settle = \"0s\"\n";
    let cluster = start_with(from, keys);
    let old: BTreeSet<i32> = cluster.worker_pids().into_iter().collect();
    write(&cluster.folder, to, keys);
    let address = cluster.address();
    std::thread::scope(|scope| {
        let reload = scope.spawn(|| cluster.cli(&["reload", "web"]));
        cluster.wait_line("(canary)");
        let mut seen = BTreeSet::new();
        wait_until("both generations to answer", || {
            seen.insert(old.contains(&who(address)));
            seen.len() == 2
        });
        // The watch is not over: the others of the old generation were not replaced meanwhile.
        assert!(cluster.worker_pids().iter().any(|pid| old.contains(pid)), "{from} to {to}");
        let done = reload.join().unwrap();
        assert!(done.status.success(), "{done:?}");
    });
    assert_eq!(cluster.app().balance.as_str(), to);
    cluster.stop();
}

#[test]
fn in_a_reload_that_changes_the_balance_both_generations_serve() {
    for (from, to) in [("kernel", "round-robin"), ("round-robin", "kernel"), ("shared", "kernel"), ("kernel", "shared")]
    {
        both_serve_in_between(from, to);
    }
}
