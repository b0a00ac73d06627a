//! What happened between two looks at a deployment, per second: CPU and connections. Pure.
use crate::api::types::{App, Balance, Deployment, Protocol, Worker};
use std::collections::BTreeMap;

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct AppRates {
    /// Of all its workers together.
    pub(super) all: Rates,
    /// Of each worker, by id.
    pub(super) workers: BTreeMap<u64, Rates>,
}

/// What is known of one worker, or of an app.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rates {
    /// CPU time in percent of one CPU.
    pub(super) cpu_percent: Option<f64>,
    /// Connections that the master handed over, per second; `None` where it counts none.
    pub(super) connections_per_s: Option<f64>,
}

/// The rates of every app, by name; `None`: the two looks do not compare.
pub(super) fn between(before: &Deployment, now: &Deployment) -> Option<BTreeMap<String, AppRates>> {
    let ms = now.uptime_ms.checked_sub(before.uptime_ms).filter(|&ms| ms > 0)?;
    if now.keeper_pid != before.keeper_pid {
        return None;
    }
    // A new master counts from nothing.
    let same_master = now.master_pid == before.master_pid;
    let mut all = BTreeMap::new();
    for app in &now.apps {
        let Some(earlier) = before.apps.iter().find(|earlier| earlier.name == app.name) else { continue };
        all.insert(app.name.clone(), of_app(earlier, app, ms, same_master && counts_connections(app)));
    }
    Some(all)
}

/// Whether connections pass through the master; elsewhere workers accept them by themselves.
fn counts_connections(app: &App) -> bool {
    app.protocol == Protocol::Node
        && !matches!(app.balance, Balance::Shared | Balance::Kernel | Balance::Auto | Balance::Unknown)
}

fn of_app(before: &App, now: &App, ms: u64, counted: bool) -> AppRates {
    let earlier: BTreeMap<u64, &Worker> = before.workers.iter().filter_map(|w| Some((w.id?, w))).collect();
    let per_s = |was: u64, is: u64| is.checked_sub(was).map(|more| more as f64 * 1000.0 / ms as f64);
    let mut workers = BTreeMap::new();
    for worker in &now.workers {
        let Some(id) = worker.id else { continue };
        let was = earlier.get(&id);
        // One that is new began after the last look, with nothing.
        let cpu_was = was.map_or(Some(0), |was| was.cpu_ms);
        let cpu = worker.cpu_ms.zip(cpu_was).and_then(|(is, was)| per_s(was, is));
        let connections = per_s(was.map_or(0, |was| was.handoffs), worker.handoffs).filter(|_| counted);
        workers.insert(id, Rates { cpu_percent: cpu.map(|ms_per_s| ms_per_s / 10.0), connections_per_s: connections });
    }
    let all = Rates {
        cpu_percent: workers.values().filter_map(|rates| rates.cpu_percent).reduce(|a, b| a + b),
        connections_per_s: per_s(before.handoffs, now.handoffs).filter(|_| counted),
    };
    AppRates { all, workers }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::cli::samples;

    fn worker(id: u64, cpu_ms: u64, handoffs: u64) -> Worker {
        Worker { id: Some(id), cpu_ms: Some(cpu_ms), handoffs, ..samples::worker(0) }
    }

    fn at(uptime_ms: u64, handoffs: u64, workers: Vec<Worker>) -> Deployment {
        let app = App { handoffs, ..samples::app("web", workers) };
        Deployment { uptime_ms, ..samples::deployment("web", vec![app]) }
    }

    #[test]
    fn a_second_apart() {
        let before = at(10_000, 100, vec![worker(1, 5_000, 60), worker(2, 0, 40)]);
        let now = at(12_000, 160, vec![worker(1, 6_000, 80), worker(3, 100, 40)]);
        let web = &between(&before, &now).unwrap()["web"];
        assert_eq!(web.workers[&1], Rates { cpu_percent: Some(50.0), connections_per_s: Some(10.0) });
        assert_eq!(web.workers[&3], Rates { cpu_percent: Some(5.0), connections_per_s: Some(20.0) });
        assert_eq!(web.all, Rates { cpu_percent: Some(55.0), connections_per_s: Some(30.0) });
    }

    #[test]
    fn a_new_master_has_counted_nothing_yet() {
        let before = at(10_000, 100, vec![worker(1, 5_000, 60)]);
        let mut now = at(11_000, 3, vec![worker(1, 5_100, 3)]);
        now.master_pid += 1;
        let web = &between(&before, &now).unwrap()["web"];
        assert_eq!(web.all, Rates { cpu_percent: Some(10.0), connections_per_s: None });
        now.keeper_pid += 1;
        assert_eq!(between(&before, &now), None);
        assert_eq!(between(&before, &before), None, "the same look twice");
    }

    #[test]
    fn nothing_is_counted_where_workers_accept_by_themselves() {
        for (protocol, balance) in [
            (Protocol::Node, Balance::Shared),
            (Protocol::Node, Balance::Kernel),
            (Protocol::ListenFds, Balance::RoundRobin),
        ] {
            let with = |mut deployment: Deployment| {
                deployment.apps[0].protocol = protocol;
                deployment.apps[0].balance = balance;
                deployment
            };
            let before = with(at(10_000, 0, vec![worker(1, 0, 0)]));
            let now = with(at(11_000, 0, vec![worker(1, 10, 0)]));
            assert_eq!(between(&before, &now).unwrap()["web"].all.connections_per_s, None);
        }
    }
}
