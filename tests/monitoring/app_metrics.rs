//! Metrics of apps in `/metrics`, where workers answer, are silent, and send too much.
use super::cluster::{Cluster, Folder, kill};
use super::common::api;
use super::common::openmetrics::{Exposition, parse};
use super::common::wait::wait_until;
use std::time::Instant;

/// Answers as prom-client does, each slot in its own way.
const APP: &str = "process.on('message', (asked) => {
  if (asked.type !== 'prom-client:getMetricsReq') return;
  console.log(`asked ${process.env.CLUSTERD_SLOT}`);
  const say = (metrics) => process.send({ type: 'prom-client:getMetricsRes', requestId: asked.requestId, metrics });
  const counter = { name: 'jobs_total', help: 'Jobs.', type: 'counter', aggregator: 'sum' };
  switch (process.env.CLUSTERD_SLOT) {
    case '0': say([[{ ...counter, values: [{ value: 3, labels: { kind: 'a' } }] }]]); break;
    case '1': break;
    case '2': {
      const series = Array.from({ length: 3000 }, (_, n) => ({ value: 1, labels: { n } }));
      say([[{ ...counter, type: 'gauge', values: [{ value: 9, labels: { kind: 'a' } }] }],
        [{ ...counter, values: [{ value: 4, labels: { kind: 'a' } }, { value: -1, labels: { kind: 'b' } }] }],
        [{ name: 'clusterd_app_workers', type: 'gauge', values: [{ value: 99, labels: { app: 'other' } }] },
         { name: 'flood', type: 'gauge', values: series }]]);
      say([[{ ...counter, values: [{ value: 1e9, labels: { kind: 'a' } }] }]]);
      break;
    }
    case '3': say([[{ ...counter, help: 'x'.repeat(3 << 20), values: [{ value: 5, labels: { kind: 'a' } }] }]]); break;
  }
});
require('http').createServer((q, a) => a.end('x')).listen(process.env.PORT, '127.0.0.1');";

fn start(metrics: &str) -> Cluster {
    let folder = Folder::new();
    let app = folder.write("app.js", APP);
    let text = format!(
        "[[app]]\nname = \"web\"\ncommand = [\"node\", {app:?}]\nworkers = 4\nlisten = [\"127.0.0.1:0\"]\n{metrics}\n"
    );
    folder.write("cluster.toml", &text);
    let cluster = Cluster::start_in(folder, &["-c", "cluster.toml"], |_| {});
    cluster.wait_ready(4);
    cluster
}

fn scrape(cluster: &Cluster) -> Exposition {
    let (status, text) = api::get(&cluster.folder.path().join("home"), "/metrics");
    assert_eq!(status, 200, "{text}");
    parse(&text).unwrap_or_else(|why| panic!("{why}\n{text}"))
}

#[test]
fn workers_that_lie_flood_or_are_silent_cost_only_their_own_metrics() {
    let cluster = start("metrics = \"prom-client\"");
    let begun = Instant::now();
    let app = [("app", "web")];
    let check = || {
        let mut found = Exposition::default();
        // Each answer may come too late for one scrape.
        wait_until("all answers that can be had", || {
            found = scrape(&cluster);
            found.value("clusterd_app_metrics_missing", &app) == Some(2.0) && found.sum("flood", &app) > 0.0
        });
        assert_eq!(found.sum("jobs_total", &app), 7.0);
        assert_eq!(found.value("clusterd_app_workers", &[("app", "web"), ("state", "ready")]), Some(4.0));
        assert_eq!(found.value("app_clusterd_app_workers", &[("exported_app", "other")]), Some(99.0));
        assert_eq!(found.sum("flood", &app), 3000.0);
        // One is below zero, and the name of one is that of the counter's samples.
        assert_eq!(found.value("clusterd_app_metrics_left_out", &app), Some(2.0));
    };
    check();
    let asked = cluster.stdout().iter().filter(|line| line.contains("asked 1")).count() as u64;
    assert!((1..=1 + begun.elapsed().as_secs() / 30).contains(&asked), "asked {asked} times");
    // The next master asks as well.
    let master = cluster.master_pid();
    kill(master, "KILL");
    cluster.wait_view("the next master", |d| d.master_pid != master && d.apps[0].workers_ready == 4);
    check();
    cluster.stop();
}

#[test]
fn who_does_not_want_it_is_not_asked() {
    let cluster = start("");
    for _ in 0..3 {
        let found = scrape(&cluster);
        assert_eq!(found.value("clusterd_app_metrics_missing", &[("app", "web")]), None);
    }
    assert!(!cluster.stdout().iter().any(|line| line.contains("asked")));
    cluster.stop();
}
