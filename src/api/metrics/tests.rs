//! The text of an answer, read by a strict parser.
#![allow(clippy::unwrap_used)]
use super::*;
use crate::api::types::{Agent, AgentState, App, AppStatus, Counters, Histogram, Protocol, Worker, WorkerState};
use openmetrics::{Exposition, parse};
use std::collections::BTreeMap;

#[path = "../../../tests/common/openmetrics.rs"]
#[allow(dead_code)] // Other tests use more of it.
pub(in crate::api) mod openmetrics;

fn worker(slot: u32, id: Option<u64>, state: WorkerState) -> Worker {
    Worker { slot, id, state, loop_delay_ms: Some(1.5), restarts: 3, ..Worker::default() }
}

fn app(name: &str) -> App {
    let counters = Counters {
        accepted: 7,
        handover: Some(Histogram { bounds_us: vec![64, 128], counts: vec![3, 0, 1], sum_us: 5_000 }),
        restarts: BTreeMap::from([("exit".to_owned(), 3), ("hung".to_owned(), 0)]),
        ..Counters::default()
    };
    let rows = [
        worker(0, Some(1), WorkerState::Draining),
        worker(0, Some(3), WorkerState::Starting),
        worker(1, Some(2), WorkerState::Ready),
        worker(2, None, WorkerState::Waiting),
    ];
    let agent = Agent {
        command: Vec::new(),
        protocol: Protocol::Node,
        id: Some(9),
        pid: None,
        state: AgentState::Ready,
        generation: 1,
        uptime_ms: None,
        restarts: 1,
        time_left_ms: None,
        memory_bytes: None,
        cpu_ms: None,
        messages_lost: 0,
        note: None,
    };
    App {
        name: name.to_owned(),
        status: AppStatus::Reloading,
        counters,
        workers: rows.into(),
        agent: Some(agent),
        ..App::default()
    }
}

fn scrape(deployment: Deployment) -> String {
    Scrape::gather(deployment, Gathered::default()).render(Format::OpenMetrics).unwrap()
}

fn parsed(text: &str) -> Exposition {
    parse(text).unwrap_or_else(|why| panic!("{why}\n{text}"))
}

#[test]
fn an_answer_is_open_metrics_whatever_apps_are_called() {
    let names = ["web", "a \"quoted\\name\"\n", "süß"];
    let deployment = Deployment { apps: names.map(app).into(), version: "1.2".to_owned(), ..Deployment::default() };
    let found = parsed(&scrape(deployment));
    for name in names {
        let value = |metric: &str, label: (&str, &str)| found.value(metric, &[("app", name), label]);
        let all = |metric: &str| found.value(metric, &[("app", name)]);
        assert_eq!(all("clusterd_app_connections_accepted_total"), Some(7.0));
        assert_eq!(value("clusterd_app_restarts_total", ("cause", "exit")), Some(3.0));
        assert_eq!(value("clusterd_app_handover_seconds_bucket", ("le", "0.000128")), Some(3.0));
        assert_eq!(all("clusterd_app_handover_seconds_count"), Some(4.0));
        assert_eq!(all("clusterd_app_handover_seconds_sum"), Some(0.005));
        assert_eq!(value("clusterd_app_status", ("status", "reloading")), Some(1.0));
        assert_eq!(value("clusterd_app_status", ("status", "running")), Some(0.0));
        assert_eq!(value("clusterd_app_workers", ("state", "waiting")), Some(1.0));
        assert_eq!(value("clusterd_worker_loop_delay_seconds", ("worker", "2")), Some(0.0015));
        assert_eq!(value("clusterd_worker_state", ("worker", "1")), Some(1.0));
        assert_eq!(value("clusterd_slot_restarts_total", ("slot", "0")), Some(3.0), "one sample of two rows");
        assert_eq!(all("clusterd_agent_up"), Some(1.0));
        // What is not known is left out.
        assert_eq!(all("clusterd_agent_cpu_seconds_total"), None);
        assert_eq!(all("clusterd_app_accept_queue"), None);
    }
    assert_eq!(found.value("clusterd_build_info", &[("version", "1.2")]), Some(1.0));
    parsed(&scrape(Deployment::default()));
}

#[test]
fn an_answer_for_many_workers_stays_below_a_megabyte_and_has_no_unbounded_label() {
    let many = |n: u32| {
        let rows = (0..4).map(|slot| worker(slot, Some(u64::from(n * 4 + slot)), WorkerState::Ready));
        App { workers: rows.collect(), ..app(&format!("app-{n}")) }
    };
    let text = scrape(Deployment { apps: (0..50).map(many).collect(), ..Deployment::default() });
    assert!(text.len() < 1_000_000, "{} bytes", text.len());
    let known = ["app", "slot", "worker", "state", "status", "cause", "limit", "outcome", "process", "version", "le"];
    for (name, labels, _) in &parsed(&text).samples {
        assert!(labels.keys().all(|label| known.contains(&label.as_str())), "{name} {labels:?}");
    }
}

#[test]
fn the_older_format_is_only_for_who_asks_for_it() {
    assert_eq!(Format::of(None), Format::OpenMetrics);
    assert_eq!(Format::of(Some("*/*")), Format::OpenMetrics);
    assert_eq!(Format::of(Some("text/plain;version=0.0.4")), Format::Prometheus);
    assert_eq!(Format::of(Some("application/openmetrics-text;version=1.0.0,text/plain;q=0.5")), Format::OpenMetrics);
    let text = Scrape::gather(Deployment { apps: vec![app("web")], ..Deployment::default() }, Gathered::default());
    let text = text.render(Format::Prometheus).unwrap();
    assert!(text.contains("# TYPE clusterd_app_connections_accepted_total counter\n"), "{text}");
    assert!(!text.contains("# EOF") && !text.contains("# UNIT"));
}
