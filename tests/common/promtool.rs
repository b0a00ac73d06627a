//! What Prometheus' own check says of `/metrics`.
use super::api;
use super::cluster::Cluster;
use super::packages::program;
use std::io::Write;
use std::process::{Command, Stdio};

/// `promtool check metrics` finds nothing wrong with what a deployment answers, but for the names of gauges of prom-client.
pub(crate) fn check_metrics(cluster: &Cluster) {
    let Some(promtool) = program("promtool", "prometheus") else { return };
    let text = api::get_as(&cluster.folder.path().join("home"), "/metrics", "text/plain").1;
    let mut check = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    check.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let checked = check.wait_with_output().unwrap();
    let said = [checked.stdout, checked.stderr].concat();
    let is_known =
        |line: &str| line.starts_with("nodejs_active_") && line.ends_with("should not have \"_total\" suffix");
    let only_names = checked.status.code() == Some(3) && String::from_utf8_lossy(&said).lines().all(is_known);
    assert!(checked.status.success() || only_names, "{}\n{text}", String::from_utf8_lossy(&said));
}
