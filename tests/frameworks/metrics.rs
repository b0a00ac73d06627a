//! Metrics of real `prom-client` and `prometheus_client`, added up in `/metrics`, and what Prometheus' own tool says of it.
use super::install;
use super::support::{NODE, app};
use crate::cluster::{Cluster, Folder, kill};
use crate::common::api;
use crate::common::openmetrics::{Exposition, parse};
use crate::common::promtool::check_metrics;
use crate::common::wait::wait_until;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Two workers of an app that counts each request as an order.
fn shop(metrics: &str, command: &[&str], env: &str) -> Cluster {
    let folder = Folder::new();
    let text = format!(
        "[[app]]\nname = \"web\"\ncommand = {command:?}\nworkers = 2\nlisten = [\"127.0.0.1:0\"]\n\
         metrics = {metrics:?}\nenv = {{ {env} }}\n"
    );
    folder.write("cluster.toml", &text);
    let cluster = Cluster::start_in(folder, &["-c", "cluster.toml"], |_| {});
    cluster.wait_ready(2);
    cluster
}

fn scrape(cluster: &Cluster) -> Exposition {
    let (status, text) = api::get(&cluster.folder.path().join("home"), "/metrics");
    assert_eq!(status, 200, "{text}");
    parse(&text).unwrap_or_else(|why| panic!("{why}\n{text}"))
}

fn order(address: SocketAddr, count: usize) {
    for _ in 0..count {
        assert!(crate::client::get(address, "/").unwrap().contains("ordered"));
    }
}

/// The worker of slot 0 is killed, and another one takes its place.
fn kill_first(cluster: &Cluster) {
    let victim = cluster.wait_ready(2)[0].clone();
    kill(victim.pid.unwrap(), "KILL");
    cluster.wait_view("a replacement", |view| {
        view.apps[0].workers_ready == 2 && view.apps[0].workers.iter().all(|worker| worker.id != victim.id)
    });
}

/// All these orders are counted, in every way.
fn counted(found: &Exposition, orders: f64) {
    let value = |name: &str, labels: &[(&str, &str)]| found.value(name, &[&[("app", "web")], labels].concat());
    assert_eq!(value("shop_orders_total", &[("kind", "book")]), Some(orders));
    assert_eq!(value("shop_took_seconds_bucket", &[("le", "0.1")]), Some(0.0));
    assert_eq!(value("shop_took_seconds_bucket", &[("le", "1")]), Some(orders));
    assert_eq!(value("shop_took_seconds_count", &[]), Some(orders));
    assert_eq!(value("shop_took_seconds_sum", &[]), Some(orders / 2.0));
    assert_eq!(value("shop_size_bytes_sum", &[]), Some(orders * 10.0));
    assert_eq!(value("clusterd_app_metrics_missing", &[]), Some(0.0));
    assert_eq!(value("clusterd_app_metrics_left_out", &[]), Some(0.0));
}

#[test]
#[ignore = "installs frameworks and versions of Node"]
fn prom_client_in_workers_is_added_up() {
    let path = format!("NODE_PATH = {:?}", install::apart("metrics").display().to_string());
    let cluster = shop("prom-client", &[&install::node(NODE), &app("prom_client.js")], &path);
    order(cluster.address(), 20);
    let found = scrape(&cluster);
    counted(&found, 20.0);
    assert_eq!(found.value("shop_orders_total", &[("exported_app", "mine")]), Some(20.0));
    assert_eq!(found.value("shop_level", &[]), Some(1.0), "the highest slot");
    assert!(found.sum("process_cpu_seconds_total", &[("app", "web")]) > 0.0);
    assert!(found.value("nodejs_eventloop_lag_seconds", &[("app", "web")]).is_some());
    check_metrics(&cluster);

    // What a worker has counted stays when it ends, and when all are replaced.
    kill_first(&cluster);
    counted(&scrape(&cluster), 20.0);
    order(cluster.address(), 10);
    counted(&scrape(&cluster), 30.0);
    assert!(cluster.cli(&["reload", "web"]).status.success());
    counted(&scrape(&cluster), 30.0);
    cluster.stop();
}

/// prometheus_client, in a folder for PYTHONPATH.
fn python_path() -> PathBuf {
    install::install("metrics-python", &["metrics/requirements.txt"], "", |folder| {
        let args = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--target"];
        let mut pip = std::process::Command::new("python3");
        install::run(pip.args(args).arg(folder).arg("-r").arg(install::source("metrics/requirements.txt")));
    })
}

/// Folders for metrics in the home.
fn folders(cluster: &Cluster) -> usize {
    let names = fs::read_dir(cluster.folder.path().join("home/run")).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().starts_with("metrics+")).count()
}

#[test]
#[ignore = "installs frameworks and versions of Node"]
fn prometheus_client_in_workers_is_added_up() {
    let path = format!("PYTHONPATH = {:?}, PYTHONDONTWRITEBYTECODE = 1", python_path().display().to_string());
    let mut cluster = shop("python", &["python3", &app("prometheus_app.py")], &path);
    order(cluster.address(), 20);
    let found = scrape(&cluster);
    counted(&found, 20.0);
    assert_eq!(found.value("shop_alive", &[]), Some(2.0));
    let pids: Vec<String> = cluster.worker_pids().iter().map(ToString::to_string).collect();
    let slots: Vec<Option<f64>> = pids.iter().map(|pid| found.value("shop_slot", &[("pid", pid)])).collect();
    assert_eq!(slots, [Some(0.0), Some(1.0)]);
    check_metrics(&cluster);

    // What counts of a killed worker stays, and what lives does not.
    kill_first(&cluster);
    wait_until("the new worker writes", || scrape(&cluster).value("shop_alive", &[]) == Some(2.0));
    order(cluster.address(), 10);
    counted(&scrape(&cluster), 30.0);
    assert_eq!(folders(&cluster), 1);
    // Each generation has a folder of its own; of one that is over, the counts stay.
    assert!(cluster.cli(&["reload", "web"]).status.success());
    cluster.wait_view("the old workers are gone", |view| view.apps[0].workers.len() == 2);
    let found = scrape(&cluster);
    counted(&found, 30.0);
    assert_eq!((found.value("shop_alive", &[]), folders(&cluster)), (Some(2.0), 1));
    cluster.signal("TERM");
    assert_eq!((cluster.wait_exit(), folders(&cluster)), (0, 0));
}
