//! Answers of the control API for tests of what is shown.
use crate::api::types::{App, AppStatus, Balance, Deployment, Protocol, Worker, WorkerState};

/// A worker with nothing special about it.
pub(super) fn worker(slot: u32) -> Worker {
    Worker {
        slot,
        id: Some(u64::from(slot) + 1),
        pid: Some(4_000 + slot as i32),
        state: WorkerState::Ready,
        generation: 1,
        uptime_ms: Some(65_000),
        restarts: 0,
        open_handoffs: 0,
        handoffs: 0,
        steered: None,
        time_left_ms: None,
        memory_bytes: Some(50 << 20),
        cpu_ms: Some(1_000),
        loop_delay_ms: Some(1.0),
        messages_lost: 0,
        actions: Vec::new(),
        custom_metrics: Default::default(),
        not_yet: None,
        note: None,
    }
}

/// A Node app that runs.
pub(super) fn app(name: &str, workers: Vec<Worker>) -> App {
    App {
        name: name.to_owned(),
        id: Some(0),
        namespace: "default".to_owned(),
        cwd: "/srv".to_owned(),
        status: AppStatus::Running,
        command: vec!["node".to_owned(), "app.js".to_owned()],
        workers_wanted: workers.len() as u32,
        workers_ready: workers.iter().filter(|worker| worker.state == WorkerState::Ready).count() as u32,
        spares_wanted: 0,
        spares_ready: workers.iter().filter(|worker| worker.state == WorkerState::Spare).count() as u32,
        scale: None,
        generation: 1,
        balance: Balance::RoundRobin,
        balance_typed: Balance::RoundRobin,
        balance_why: None,
        steering: None,
        protocol: Protocol::Node,
        ready: "listening".to_owned(),
        listen: vec!["0.0.0.0:8080".to_owned()],
        restarts: 0,
        handoffs: 0,
        moved: 0,
        counters: Default::default(),
        watch: None,
        cron_restart: None,
        memory_limit_bytes: None,
        stdin: false,
        limits: Default::default(),
        warning: None,
        log: Default::default(),
        user: None,
        log_lines_dropped: 0,
        workers,
        agent: None,
        before: None,
        depends_on: Vec::new(),
        waits_for: Vec::new(),
    }
}

/// A deployment in the background.
pub(super) fn deployment(name: &str, apps: Vec<App>) -> Deployment {
    Deployment {
        name: name.to_owned(),
        version: "0.1.0".to_owned(),
        keeper_pid: 100,
        keeper_version: String::new(),
        master_pid: 101,
        master_restarts: 0,
        uptime_ms: 100_000,
        upgrade: None,
        background: true,
        config: None,
        control: None,
        page: false,
        apps,
    }
}
