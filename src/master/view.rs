//! The deployment as the control API shows it: apps, workers and slots, in wire types. Read-only. The API's own thread
//! adds memory and CPU use.
use super::agent;
use super::app::App;
use super::autoscale;
use super::before;
use super::context::Context;
use super::control::TcpAddress;
use super::dependencies;
use super::history;
use super::log_files::LogFiles;
use super::relay::Custom;
use super::settings::Settings;
use super::system::System;
use super::time_counts::TimeCounts;
use super::upgrade::Upgrade;
use crate::api::{types as wire, warnings};
use crate::ids::AppIx;
use crate::limits::CUSTOM_SHOWN_MAX;
use crate::reuseport::program::Steering;
use crate::supervisor::{Phase, SlotPhase, WorkerView};
use crate::worker::node::actions::Metric;
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn deployment(cx: &Context<impl System>, upgrade: &Upgrade, files: &LogFiles) -> wire::Deployment {
    let mut room = CUSTOM_SHOWN_MAX;
    wire::Deployment {
        name: cx.deployment.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        keeper_pid: cx.deployment.keeper_pid,
        keeper_version: upgrade.keeper_version().to_owned(),
        master_pid: cx.system.own_pid(),
        master_restarts: cx.deployment.incarnation.saturating_sub(1),
        uptime_ms: cx.now_ms.saturating_sub(cx.deployment.started_ms),
        upgrade: upgrade.view(),
        background: cx.deployment.background,
        config: cx.deployment.current_sources().and_then(|s| s.file.as_ref()).map(|file| file.path.clone()),
        control: cx.deployment.control.map(TcpAddress::url),
        page: cx.deployment.control.is_some_and(|at| at.has_page),
        apps: cx.apps.indices().filter(|&ix| !cx.apps[ix].deleted).map(|ix| app(cx, files, ix, &mut room)).collect(),
    }
}

/// `room`: how many actions and metrics of workers may still be shown.
fn app(cx: &Context<impl System>, files: &LogFiles, index: AppIx, room: &mut usize) -> wire::App {
    let app = &cx.apps[index];
    let settings = app.settings();
    let left = |until_ms: u64| until_ms.saturating_sub(cx.now_ms);
    let of_workers = cx.workers.iter().filter(|(_, w)| w.app == index && !w.is_beside).map(|(_, w)| w.socket_number);
    let numbers: BTreeSet<u32> = of_workers.chain(0..app.supervisor.slot_count()).collect();
    let steered = app.steered(numbers.iter().copied());
    let mut workers: Vec<wire::Worker> = app
        .supervisor
        .workers()
        .map(|w| {
            let here = cx.workers.find(w.id).and_then(|ix| cx.workers.get(ix));
            let open = here.and_then(|h| h.member).map_or(0, |m| app.balancer.open_count(m));
            let restarts = app.supervisor.slot(w.slot).map_or(0, |s| s.restarts);
            let (actions, custom_metrics) = here.map(|h| custom(&h.custom, room)).unwrap_or_default();
            wire::Worker {
                slot: w.slot.0,
                id: Some(w.id.0),
                pid: w.pid,
                state: worker_state(&w),
                generation: w.generation.0,
                uptime_ms: Some(cx.now_ms.saturating_sub(w.spawned_at_ms)),
                restarts,
                open_handoffs: open,
                handoffs: here.map_or(0, |h| h.taken),
                time_left_ms: w.phase.deadline_ms().map(left),
                steered: steered.get(&here.map_or(w.slot.0, |h| h.socket_number)).copied(),
                // The API's thread reads memory and CPU.
                memory_bytes: None,
                cpu_ms: None,
                loop_delay_ms: here.and_then(|h| h.liveness.delay_ms(cx.now_us)),
                messages_lost: here.map_or(0, |h| h.receiver.lost),
                actions,
                custom_metrics,
                not_yet: app.supervisor.not_yet(w.id).map(str::to_owned),
                note: here.and_then(|h| h.status_text.clone()).or_else(|| app.slot_notes.get(&w.slot.0).cloned()),
            }
        })
        .collect();
    let filled: BTreeSet<u32> = workers.iter().map(|w| w.slot).collect();
    for (number, slot) in app.supervisor.slots().enumerate() {
        let number = number as u32;
        let (state, time_left_ms) = match slot.phase {
            SlotPhase::Filled => continue,
            SlotPhase::Waiting { until_ms } => (wire::WorkerState::Waiting, Some(left(until_ms))),
            SlotPhase::Errored => (wire::WorkerState::Errored, None),
            SlotPhase::Stopped => (wire::WorkerState::Stopped, None),
        };
        if filled.contains(&number) {
            continue;
        }
        workers.push(wire::Worker {
            slot: number,
            id: None,
            pid: None,
            state,
            generation: app.supervisor.generation().0,
            uptime_ms: None,
            restarts: slot.restarts,
            open_handoffs: 0,
            handoffs: 0,
            time_left_ms,
            steered: steered.get(&number).copied(),
            memory_bytes: None,
            cpu_ms: None,
            loop_delay_ms: None,
            messages_lost: 0,
            actions: Vec::new(),
            custom_metrics: BTreeMap::new(),
            not_yet: None,
            note: app.slot_notes.get(&number).cloned(),
        });
    }
    workers.sort_by_key(|w| (w.slot, w.id));
    wire::App {
        name: app.name.clone(),
        id: cx.deployment.ids.get(&app.name).copied(),
        namespace: settings.config.namespace.clone(),
        cwd: settings.cwd.to_string_lossy().into_owned(),
        status: status(app),
        command: settings.config.command.clone(),
        workers_wanted: app.supervisor.wanted_count(),
        workers_ready: app.supervisor.serving_count(),
        scale: autoscale::view(cx, index),
        spares_wanted: app.supervisor.spares_wanted(),
        spares_ready: app.supervisor.spare_count(),
        generation: app.supervisor.generation().0,
        balance: wire::Balance::from_word(settings.balance.balance.name()),
        balance_typed: wire::Balance::from_word(settings.config.balance.name()),
        balance_why: settings.balance.why.as_ref().map(ToString::to_string),
        steering: app.steering().map(steering),
        protocol: wire::Protocol::from_word(settings.protocol.kind().rules().name),
        ready: settings.ready_words(),
        listen: app.addresses(),
        restarts: app.restarts,
        handoffs: app.handoffs,
        moved: app.moved,
        counters: counters(app, files.written(index)),
        user: settings.credentials().map(Into::into),
        watch: settings
            .config
            .watch
            .as_ref()
            .map(|watch| watch.paths.iter().map(|p| p.display().to_string()).collect()),
        cron_restart: settings.config.cron_restart.clone(),
        memory_limit_bytes: settings.config.limits.memory,
        stdin: settings.config.stdin,
        limits: limits(settings),
        warning: warnings::last_about(&app.name),
        log: (&settings.config.log).into(),
        log_lines_dropped: files.lost(index),
        workers,
        agent: agent::view(cx, index),
        before: before::view(cx, index),
        depends_on: settings.config.depends_on.clone(),
        waits_for: dependencies::waits_for(cx, index),
    }
}

fn counters(app: &App, log_bytes: u64) -> wire::Counters {
    let by_word = |kinds: &[(history::Counted, &str)]| {
        kinds.iter().map(|(kind, word)| ((*word).to_owned(), app.history.count(*kind))).collect()
    };
    wire::Counters {
        accepted: app.accepted,
        refused: app.refused,
        rescued: app.rescued,
        waiting: app.waiting.len() as u64,
        handover: app.master_accepts().then(|| histogram(&app.handover_times)),
        loop_delay: app.settings().protocol.kind().rules().has_event_loop.then(|| histogram(&app.loop_delays)),
        log_bytes,
        restarts: by_word(&history::CAUSES),
        replaced: by_word(&history::LIMITS),
        reloads: by_word(&history::OUTCOMES),
    }
}

fn histogram(times: &TimeCounts) -> wire::Histogram {
    wire::Histogram {
        bounds_us: TimeCounts::bounds_us().to_vec(),
        counts: times.counts().to_vec(),
        sum_us: times.sum_us(),
    }
}

fn limits(settings: &Settings) -> wire::Limits {
    let limits = settings.limits();
    wire::Limits {
        lifetime_ms: limits.lifetime_ms,
        max_connections: limits.max_connections,
        hang_ms: limits.hang_ms,
        max_restarts: settings.config.restart.max_restarts,
    }
}

/// What a worker offers and measures, as far as there is room.
fn custom(custom: &Custom, room: &mut usize) -> (Vec<String>, BTreeMap<String, wire::CustomMetric>) {
    let actions: Vec<String> = custom.actions.iter().take(*room).cloned().collect();
    *room -= actions.len();
    let metric = |m: &Metric| wire::CustomMetric { value: m.value.clone(), unit: m.unit.clone() };
    let metrics: BTreeMap<_, _> =
        custom.metrics.iter().take(*room).map(|(name, m)| (name.clone(), metric(m))).collect();
    *room -= metrics.len();
    (actions, metrics)
}

fn status(app: &App) -> wire::AppStatus {
    let s = &app.supervisor;
    if s.is_stopped() {
        wire::AppStatus::Stopped
    } else if s.is_restarting() {
        wire::AppStatus::Starting
    } else if app.is_stopping() {
        wire::AppStatus::Stopping
    } else if s.is_errored() {
        wire::AppStatus::Errored
    } else if s.is_over() {
        wire::AppStatus::Stopped
    } else if s.is_reloading() {
        wire::AppStatus::Reloading
    } else if s.workers().any(|w| matches!(w.phase, Phase::Ready { .. })) {
        wire::AppStatus::Running
    } else {
        wire::AppStatus::Starting
    }
}

fn worker_state(worker: &WorkerView) -> wire::WorkerState {
    match worker.phase {
        Phase::Starting { online: false, .. } => wire::WorkerState::Starting,
        Phase::Starting { online: true, .. } => wire::WorkerState::Online,
        Phase::Ready { .. } if worker.spare => wire::WorkerState::Spare,
        Phase::Ready { .. } => wire::WorkerState::Ready,
        Phase::Draining { .. } => wire::WorkerState::Draining,
        Phase::Stopping { .. } | Phase::Killed => wire::WorkerState::Stopping,
    }
}

fn steering(steering: Steering) -> wire::Steering {
    match steering {
        Steering::Turns => wire::Steering::Turns,
        Steering::Random => wire::Steering::Random,
        Steering::Hash => wire::Steering::Hash,
    }
}
