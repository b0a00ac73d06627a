//! What docs/monitoring.md, the alerts and the dashboard say agrees with the metrics that there are.
use super::cluster::Folder;
use super::common::api;
use super::common::apps::project;
use super::common::openmetrics::parse;
use super::common::packages::program;
use super::tcp::Controlled;
use std::collections::BTreeSet;
use std::fs;
use std::process::{Child, Command, Stdio};

fn read(path: &str) -> String {
    fs::read_to_string(project(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every name of a metric in a text.
fn names_in(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, _) in text.match_indices("clusterd_") {
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if !text[..at].chars().next_back().is_some_and(is_part) {
            names.insert(text[at..].chars().take_while(|c| is_part(*c)).collect());
        }
    }
    names
}

/// The samples of a deployment, and those that only others have.
fn names_that_exist() -> BTreeSet<String> {
    let controlled = Controlled::start("");
    let (_, text) = api::get(&controlled.cluster.folder.path().join("home"), "/metrics");
    controlled.cluster.stop();
    let found = parse(&text).unwrap();
    let mut names: BTreeSet<String> = found.samples.into_iter().map(|(name, ..)| name).collect();
    // An agent, the kernel's own turns.
    for (name, suffix) in [("agent_up", ""), ("agent_restarts", "_total"), ("agent_cpu_seconds", "_total")] {
        names.insert(format!("clusterd_{name}{suffix}"));
    }
    names.insert("clusterd_agent_resident_memory_bytes".to_owned());
    names.insert("clusterd_slot_connections_steered_total".to_owned());
    // Workers that follow the load.
    for name in ["workers_min", "workers_max", "worker_load", "worker_load_target"] {
        names.insert(format!("clusterd_app_{name}"));
    }
    // Of apps with metrics of their own.
    for name in ["app_metrics_missing", "app_metrics_left_out", "worker_custom_metric"] {
        names.insert(format!("clusterd_{name}"));
    }
    // Known a moment after the start, or where the kernel tells.
    for name in ["worker_loop_delay_seconds", "worker_connections_open", "app_connections_open", "app_accept_queue"] {
        names.insert(format!("clusterd_{name}"));
    }
    names
}

#[test]
fn the_page_the_alerts_and_the_dashboard_name_metrics_that_exist() {
    let exist = names_that_exist();
    let plain: BTreeSet<String> = exist
        .iter()
        .map(|name| {
            let histogram = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            let name = histogram.filter(|name| name.ends_with("_seconds")).unwrap_or(name);
            name.trim_end_matches("_info").to_owned()
        })
        .collect();
    let page = read("docs/monitoring.md");
    let on_page: BTreeSet<String> = names_in(&page)
        .into_iter()
        .map(|name| name.trim_end_matches("_info").to_owned())
        .filter(|name| name != "clusterd_")
        .collect();
    assert_eq!(on_page.difference(&plain).collect::<Vec<_>>(), Vec::<&String>::new(), "on the page, and not there");
    assert_eq!(plain.difference(&on_page).collect::<Vec<_>>(), Vec::<&String>::new(), "there, and not on the page");
    for path in ["docs/monitoring/clusterd-alerts.yml", "docs/monitoring/grafana-dashboard.json"] {
        let named = names_in(&read(path));
        assert!(named.len() >= 8, "{path}: {named:?}");
        let unknown: Vec<&String> = named.difference(&exist).collect();
        assert!(unknown.is_empty(), "{path} names {unknown:?}");
        assert!(page.contains(path.trim_start_matches("docs/")), "the page does not name {path}");
    }
}

#[test]
fn the_dashboard_is_one_that_grafana_loads() {
    let dashboard: serde_json::Value = serde_json::from_str(&read("docs/monitoring/grafana-dashboard.json")).unwrap();
    assert!(dashboard["uid"].is_string() && dashboard["schemaVersion"].is_u64());
    let variables: Vec<&str> =
        dashboard["templating"]["list"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(variables, ["datasource", "instance", "app"]);
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(panels.len() >= 10);
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len());
    for panel in panels {
        let queries = panel["targets"].as_array().unwrap();
        assert!(!queries.is_empty() && panel["title"].is_string(), "{panel}");
        for query in queries {
            let text = query["expr"].as_str().unwrap();
            assert_eq!(text.matches('(').count(), text.matches(')').count(), "{text}");
            assert_eq!(text.matches('{').count(), text.matches('}').count(), "{text}");
        }
    }
}

/// Ended when dropped.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "installs Prometheus"]
fn a_real_prometheus_accepts_scrape_and_alerts() {
    let (Some(promtool), Some(prometheus)) = (program("promtool", "prometheus"), program("prometheus", "prometheus"))
    else {
        return;
    };
    let controlled = Controlled::start("");
    let old = controlled.raw(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\naccept: text/plain\r\n\r\n");
    let (_, text) = old.split_once("\r\n\r\n").unwrap();
    let folder = Folder::new();
    let file = folder.write("metrics.txt", text);
    let input = fs::File::open(file).unwrap();
    let checked = Command::new(&promtool).args(["check", "metrics"]).stdin(input).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let rules = project("docs/monitoring/clusterd-alerts.yml");
    let checked = Command::new(&promtool).args(["check", "rules"]).arg(&rules).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));

    let config = format!(
        "global: {{scrape_interval: 1s}}\nrule_files: [{:?}]\nscrape_configs:\n\
         - {{job_name: clusterd, static_configs: [{{targets: ['{}']}}]}}\n",
        rules.display().to_string(),
        controlled.address
    );
    let config = folder.write("prometheus.yml", &config);
    let port = super::common::ports::free_port();
    let child = Command::new(prometheus)
        .arg(format!("--config.file={config}"))
        .arg(format!("--storage.tsdb.path={}/data", folder.path().display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .stderr(Stdio::null())
        .spawn();
    let _ended = Ended(child.unwrap());
    let ask = |query: &str| {
        let answer = super::client::get(([127, 0, 0, 1], port).into(), &format!("/api/v1/query?query={query}"));
        answer.map(|text| format!("{text:?}")).unwrap_or_default()
    };
    super::common::wait::wait_until("Prometheus has scraped it", || {
        ask("clusterd_app_workers_ready").contains("hello") && ask("up").contains("clusterd")
    });
    controlled.cluster.stop();
}
