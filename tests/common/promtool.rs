//! Prometheus' own programs, and what they say of `/metrics`.
use super::api;
use super::cluster::Cluster;
use std::io::Write;
use std::process::{Command, Stdio};

/// The path of a program of Debian's package prometheus, which is installed where it is missing. `None`: that is not possible.
pub(crate) fn program(name: &str) -> Option<String> {
    let find = || Some(format!("/usr/bin/{name}")).filter(|path| std::fs::exists(path).unwrap_or(false));
    if find().is_none() && nix::unistd::geteuid().is_root() {
        let apt = |args: &[&str]| {
            let done = Command::new("apt-get").args(args).env("DEBIAN_FRONTEND", "noninteractive").output();
            done.is_ok_and(|done| done.status.success())
        };
        let _ = apt(&["update", "-qq"]) && apt(&["install", "-y", "-qq", "--no-install-recommends", "prometheus"]);
    }
    let found = find();
    if found.is_none() {
        eprintln!("skipped: {name} is missing, and only root can install it");
    }
    found
}

/// `promtool check metrics` finds nothing wrong with what a deployment answers, but for the names of gauges of prom-client.
pub(crate) fn check_metrics(cluster: &Cluster) {
    let Some(promtool) = program("promtool") else { return };
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
