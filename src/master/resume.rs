//! A master that takes over the checkpoint, sockets and workers of the previous one from the keeper. A fresh start is
//! in `start`.
use super::agent_check::AGENT_CHECK;
use super::app::App;
use super::autoscale::Autoscale;
use super::bind::{self, Intercepted};
use super::checkpoint::records::{
    APP, AppRecord, DEPLOYMENT, DeploymentRecord, LISTENER, ListenerRecord, RELEASES, ReleasesRecord, SERVES, SLOT,
    ServesRecord, UPGRADE, UpgradeRecord, WORKER, read,
};
use super::drains::Goodbye;
use super::given::address_of;
use super::history::History;
use super::keeper::Keeper;
use super::listener::{held_name, slot_name};
use super::output::Way;
use super::recovery::{self, Ground, Tag, recover};
use super::releases::{self, Releases};
use super::reload::resolve;
use super::settings::{Fixed, Settings};
use super::start::{BACKGROUND_FLAG, CONTROL_SOCKET, CONTROL_TCP, CommandLine, NotStarted, StartError, launch};
use super::system::System;
use super::tasks::Task;
use super::{
    Master, channels, checkpoint, in_hand, moves, overlap, reload, requests, spawn, stdin, stop_delay, stop_report,
};
use crate::config::Listen;
use crate::config::sources::Sources;
use crate::home::{self, Home};
use crate::ids::{AppIx, WorkerId};
use crate::keeper::link::{ChildInfo, Inheritance};
use crate::keeper::protocol::Order;
use crate::limits;
use crate::os::listen::LocalAddress;
use crate::record::Value;
use crate::supervisor::{self, Action, Cx, Event, SlotSnapshot, WorkerSnapshot};
use crate::worker::node::preload_lines;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// `typed` is used only when nothing else says what to run.
pub(super) fn resume<S: System>(
    system: S,
    link: Keeper<S>,
    inherited: Inheritance,
    typed: &CommandLine,
) -> Result<Master<S>, Box<NotStarted<S>>> {
    let mut master = Master::empty(system, link, &inherited)?;
    match resume_all(&mut master, inherited, typed) {
        Ok(()) => Ok(master),
        Err(error) => {
            let error = takeover_error(&master, error);
            Err(NotStarted::new(master.cx.system, master.cx.keeper, error))
        }
    }
}

/// Why a takeover failed, and what to do.
fn takeover_error(master: &Master<impl System>, error: StartError) -> StartError {
    let StartError { message, code } = error;
    let keeper = master.cx.deployment.keeper_pid;
    let message = format!(
        "{message}\nthe workers keep the connections that they have, and nobody accepts new ones; the next try follows. To \
         end everything: kill -QUIT {keeper}"
    );
    StartError { message, code }
}

fn resume_all(
    master: &mut Master<impl System>,
    mut inherited: Inheritance,
    typed: &CommandLine,
) -> Result<(), StartError> {
    master.cx.checkpoint.inherit(inherited.notes.iter().map(|(key, value)| (key.clone(), value.clone())));
    resume_sources(master, &mut inherited);
    let background = typed.argv.get(1).is_some_and(|flag| flag == BACKGROUND_FLAG);
    if master.cx.deployment.sources.is_empty() {
        read_sources_again(master, &inherited, typed)?;
    }
    recover_checkpoint(master, &mut inherited, background);
    let record = read_record::<DeploymentRecord>(&inherited, DEPLOYMENT)
        .ok_or_else(|| StartError::failed("the checkpoint names no deployment"))?;
    let deployment = &mut master.cx.deployment;
    deployment.name = record.name;
    deployment.background = record.background;
    deployment.home = record.home.and_then(|path| Home::find(Some(Path::new(&path))).ok());
    deployment.ids = record.ids;
    deployment.started_ms = record.started_ms;
    deployment.stop_asked = record.stop_asked;
    deployment.stop_asked_ms = record.stop_asked_ms;
    deployment.leaves_sockets = record.leaves_sockets;
    deployment.exit_code = record.exit_code;
    deployment.last_source = record.last_source;
    master.cx.next_worker = record.worker_ids_below;
    let previous_end = inherited.previous_end.clone();
    master.notify.adopt(&mut master.cx, &mut inherited.fds);
    if let Some(socket) = inherited.fds.remove(CONTROL_SOCKET) {
        master.control.serve(&master.cx, UnixListener::from(socket));
    }
    let (tcp, check) = (inherited.fds.remove(CONTROL_TCP), inherited.fds.remove(AGENT_CHECK));
    master.control.resume_tcp(&mut master.cx, tcp, check);
    let mut actions = Vec::new();
    for ix in (0..limits::APPS_MAX).map(AppIx) {
        let Some(app) = read_record::<AppRecord>(&inherited, &format!("{APP}{ix}")) else { break };
        actions.push(resume_app(master, ix, &app, &mut inherited)?);
    }
    resume_log_files(master, &mut inherited);
    kill_unknown_processes(master, &inherited);
    if let Some(record) = read_record::<UpgradeRecord>(&inherited, UPGRADE) {
        master.upgrade.resume(&mut master.cx, record, &previous_end);
    }
    master.upgrade.on_keeper_about(&mut master.cx, inherited.about.clone());
    release_unclaimed(master, &inherited);
    master.cx.keeper.send(Order::Ready);
    for (ix, actions) in master.cx.apps.indices().zip(actions) {
        master.carry_out(ix, actions);
    }
    for child in std::mem::take(&mut inherited.children) {
        if let Some(status) = child.status {
            let status = spawn::exit_status(status, child.out_of_memory);
            master.on_exited(child.worker, status, master.cx.now_ms);
        }
    }
    stop_delay::resume(&mut master.cx);
    stop_report::resume(&mut master.cx);
    in_hand::adopt(&mut master.cx, &mut inherited.fds);
    for ix in master.cx.workers.indices() {
        master.begin_interception(ix);
        master.read_channel(ix, true);
        // The previous master may have died before it acknowledged a connection that this worker gave back.
        if master.cx.workers.get(ix).is_some_and(|worker| worker.has_preload) {
            channels::send(&mut master.cx, ix, preload_lines::RESUMED);
        }
    }
    for ix in master.cx.workers.indices() {
        // The previous master may have been told that it listens, and may have probed it.
        let may_accept = spawn::may_accept(&master.cx, ix);
        let Some(worker) = master.cx.workers.get(ix) else { continue };
        let (app, worker, listens) = (worker.app, worker.id, !worker.serves.is_empty());
        if listens || may_accept {
            master.cx.push_news(app, Event::ServersOpen { worker });
        }
        if listens && requests::serves_too_little(&master.cx, ix).is_none() {
            master.http_probes.begin(&mut master.cx, ix);
        } else if !listens {
            master.http_probes.resume(&mut master.cx, ix);
        }
    }
    master.cx.tasks.push_back(Task::AdmitDependents);
    for ix in master.cx.apps.indices() {
        master.relay.greet_all(&mut master.cx, ix);
    }
    Ok(())
}

/// Takes the readable configurations, and has the keeper drop the others.
fn resume_sources(master: &mut Master<impl System>, inherited: &mut Inheritance) {
    let names: Vec<String> = inherited.fds.keys().filter(|name| name.starts_with("source/")).cloned().collect();
    for name in names {
        let Some(fd) = inherited.fds.remove(&name) else { continue };
        let Some(source) = name.strip_prefix("source/").and_then(|n| n.parse::<u32>().ok()) else { continue };
        let sources = master
            .cx
            .system
            .contents(fd.as_fd(), limits::SOURCES_BYTES_MAX)
            .and_then(|json| serde_json::from_slice::<Sources>(&json).map_err(io::Error::other))
            .map_err(|e| e.to_string())
            .and_then(|sources| resolve(&sources).map(|_| sources).map_err(|problems| problems.to_string()));
        match sources {
            Ok(sources) => {
                master.cx.deployment.sources.insert(source, sources);
            }
            Err(e) => {
                log::error!("cannot read {name}, a copy of the configuration: {e}");
                master.cx.keeper.send(Order::Release { name });
            }
        }
    }
}

/// No copy is readable: use the command line, and its files as they are now.
fn read_sources_again(
    master: &mut Master<impl System>,
    inherited: &Inheritance,
    typed: &CommandLine,
) -> Result<(), StartError> {
    let read = launch(typed).and_then(|(_, sources)| {
        resolve(&sources).map_err(StartError::failed)?;
        Ok(sources)
    });
    let sources = read.map_err(|e| {
        let message = format!(
            "the keeper holds no readable copy of the configuration, and it cannot be loaded again: {}",
            e.message
        );
        StartError { message, code: e.code }
    })?;
    let record = read_record::<DeploymentRecord>(inherited, DEPLOYMENT).unwrap_or_default();
    log::warn!("loaded the configuration again: the keeper holds no readable copy of it");
    reload::hold_sources(&mut master.cx, record.last_source.saturating_add(1), sources);
    Ok(())
}

/// Completes a damaged checkpoint, and saves what changed.
fn recover_checkpoint(master: &mut Master<impl System>, inherited: &mut Inheritance, background: bool) {
    let configs =
        master.cx.deployment.sources.iter().filter_map(|(number, sources)| Some((*number, resolve(sources).ok()?)));
    let ground = Ground {
        children: &inherited.children,
        held: inherited.fds.keys().cloned().collect(),
        configs: configs.collect(),
        cpus: master.cx.system.cpus().count,
        now_ms: master.cx.now_ms,
    };
    let recovered = recover(&mut inherited.notes, &ground, |last_source, above| {
        make_deployment(master, &inherited.fds, &inherited.children, last_source, above, background)
    });
    for line in recovered.repairs.iter().take(recovery::REPAIRS_LOGGED_MAX) {
        log::error!("{line}");
    }
    if recovered.repairs.len() > recovery::REPAIRS_LOGGED_MAX {
        log::error!("... and {} more", recovered.repairs.len() - recovery::REPAIRS_LOGGED_MAX);
    }
    for key in recovered.changed {
        let value = inherited.notes.get(&key).cloned();
        master.cx.checkpoint.replace(&mut master.cx.keeper, key, value);
    }
}

/// The deployment's record, from the control socket's path, the entry beside it, and the configuration.
fn make_deployment(
    master: &Master<impl System>,
    fds: &HashMap<String, OwnedFd>,
    children: &[ChildInfo],
    last_source: u32,
    above: u64,
    background: bool,
) -> DeploymentRecord {
    let control = fds.get(CONTROL_SOCKET).and_then(|fd| match master.cx.system.local_address(fd.as_fd()) {
        Ok(LocalAddress::Unix(path)) => Some(path),
        Ok(LocalAddress::Inet(_) | LocalAddress::Other) | Err(_) => None,
    });
    let by_socket = control.as_ref().and_then(|path| Some(path.file_stem()?.to_string_lossy().into_owned()));
    let by_config = || {
        let sources = master.cx.deployment.sources.get(&last_source)?;
        Some(home::deployment_name(sources, &resolve(sources).ok()?).0)
    };
    let name = by_socket.or_else(by_config).unwrap_or_default();
    let home = control.as_ref().and_then(|path| Some(path.parent()?.parent()?.to_owned()));
    let entry = home.as_ref().and_then(|home| Home::find(Some(home)).ok()?.entry(&name).ok());
    DeploymentRecord {
        started_ms: children.iter().map(|child| child.started_ms).min().unwrap_or(master.cx.now_ms),
        worker_ids_below: above + limits::WORKER_IDS_RESERVED,
        last_source,
        background,
        home: home.map(|home| home.to_string_lossy().into_owned()),
        ids: entry.map(|entry| entry.apps.into_iter().map(|app| (app.name, app.id)).collect()).unwrap_or_default(),
        name,
        ..DeploymentRecord::default()
    }
}

fn resume_app(
    master: &mut Master<impl System>,
    ix: AppIx,
    record: &AppRecord,
    inherited: &mut Inheritance,
) -> Result<Vec<Action>, StartError> {
    let mut generations = BTreeMap::new();
    for (&number, generation) in &record.generations {
        let Some(sources) = master.cx.deployment.sources.get(&generation.source) else { continue };
        let config = resolve(sources).map_err(StartError::failed)?;
        let Some(app) = config.apps.into_iter().find(|a| a.name == record.name) else { continue };
        let fixed = Fixed {
            cwd: PathBuf::from(&generation.cwd),
            program: PathBuf::from(&generation.program),
            agent_program: generation.agent_program.as_ref().map(PathBuf::from),
            balance: generation.balance.clone().map(|word| (word, generation.balance_why.clone())),
        };
        // A recovered record does not have them.
        let fixed = Some(fixed).filter(|_| !generation.program.is_empty());
        match Settings::prepare(&master.cx.system, app, generation.source, fixed) {
            Ok(settings) => {
                generations.insert(number, settings);
            }
            Err(e) => log::error!("{}: cannot restore generation {number}: {e}", record.name),
        }
    }
    let policies = generations.iter().map(|(&generation, settings)| (generation, settings.policy())).collect();
    let pids: HashMap<WorkerId, i32> = inherited.children.iter().map(|c| (c.worker, c.pid)).collect();
    let slots = records_of::<SlotSnapshot>(inherited, &format!("{SLOT}{ix}/"));
    let known = records_of::<WorkerSnapshot>(inherited, &format!("{WORKER}{ix}/"));
    let mut actions = Vec::new();
    let mut cx = Cx { now_ms: master.cx.now_ms, next_worker: &mut master.cx.next_worker, actions: &mut actions };
    let rules = supervisor::App::restore(
        record.rules.clone(),
        slots,
        known.clone(),
        policies,
        &|worker| pids.get(&worker).copied(),
        &mut cx,
    );
    let settings = generations.values().next_back().cloned();
    let Some(settings) = settings else {
        return Err(StartError::failed(format!("{}: no generation of it can be restored", record.name)));
    };
    let mut app = App::new(record.name.clone(), rules, settings, master.cx.deployment.first_seq());
    app.generations = generations;
    app.last_generation = record.last_generation;
    app.restarts = record.restarts;
    app.history = History::from_record(&record.history);
    let releases = read_record::<ReleasesRecord>(inherited, &format!("{RELEASES}{ix}"));
    let sources = &master.cx.deployment.sources;
    app.releases = Releases::from_record(releases.unwrap_or_default().releases, |source| sources.contains_key(&source));
    app.autoscale = Autoscale::from_record(&record.scale);
    app.spawned = record.spawned;
    app.closed = record.rules.stopping.is_some();
    app.stops_at_ms = record.stops_at_ms;
    app.deleted = record.deleted;
    // The previous master logged it.
    app.steering_reported = true;
    let mode = super::app::balance_mode(app.settings().balance.balance);
    app.balancer.set_mode(mode);
    master.cx.apps.push(app);
    resume_listeners(master, ix, inherited);
    overlap::refresh(&mut master.cx, ix);
    releases::resume(&mut master.cx, ix);
    let rules = &master.cx.apps[ix].supervisor;
    let beside = [rules.agent().and_then(|slot| slot.current), rules.before().and_then(|before| before.process)];
    let beside = beside.into_iter().flatten().map(|process| (process.id, process.slot, process.generation));
    for (id, slot, generation) in known.into_iter().map(|w| (w.id, w.slot, w.generation)).chain(beside) {
        let Some(&pid) = pids.get(&id) else { continue };
        let channel = inherited.fds.remove(&spawn::channel_name(id)).map(|fd| (fd, true));
        let tag = inherited.children.iter().find(|child| child.worker == id).and_then(|child| Tag::read(&child.tag));
        let socket_number = tag.and_then(|tag| tag.socket).unwrap_or(slot.0);
        let process = spawn::Process { app: ix, id, slot, generation, pid: Some(pid), socket_number };
        spawn::add_worker(&mut master.cx, &mut master.hooks, process, channel);
        let intercepted =
            inherited.fds.remove(&bind::held_name(id)).map(|held| Intercepted::new(&master.cx.system, held));
        let stdin = inherited.fds.remove(&stdin::held_name(id));
        if let Some(worker) = master.cx.workers.find(id).and_then(|ix| master.cx.workers.get_mut(ix)) {
            worker.intercepted = intercepted;
            worker.stdin = stdin;
        }
        resume_copies(master, id, inherited);
        resume_serves(master, ix, id, inherited);
        let app = &master.cx.apps[ix];
        let settings = app.generations.get(&generation).unwrap_or_else(|| app.settings());
        let way = Way { config: &settings.config, slot, generation, tail: false, heard: false };
        master.output.adopt(&master.cx.system, id, &way, &mut inherited.fds);
    }
    Ok(actions)
}

/// What a worker that is being killed did not read.
fn resume_copies(master: &mut Master<impl System>, id: WorkerId, inherited: &mut Inheritance) {
    let prefix = format!("{}{id}/", moves::COPIES);
    let names: Vec<String> = inherited.fds.keys().filter(|name| name.starts_with(&prefix)).cloned().collect();
    for name in names {
        if let Some(copy) = inherited.fds.remove(&name) {
            moves::keep_copy(&mut master.cx, name, copy);
        }
    }
}

fn resume_log_files(master: &mut Master<impl System>, inherited: &mut Inheritance) {
    let pids: HashMap<WorkerId, i32> = inherited.children.iter().map(|c| (c.worker, c.pid)).collect();
    let apps = &master.cx.apps;
    let settings_of = |name: &str, generation| {
        let (ix, app) = apps.entries().find(|(_, app)| app.name == name)?;
        Some((ix, app.generations.get(&generation).unwrap_or_else(|| app.settings())))
    };
    let pid_of = |worker| pids.get(&worker).copied();
    master.output.files.resume(&mut master.cx.keeper, &mut inherited.fds, settings_of, pid_of);
}

fn resume_listeners(master: &mut Master<impl System>, ix: AppIx, inherited: &mut Inheritance) {
    let name = master.cx.apps[ix].name.clone();
    let mut found = records_of::<ListenerRecord>(inherited, &format!("{LISTENER}{name}/"));
    found.sort_by_key(|l| l.order);
    let configured: Vec<Listen> =
        master.cx.apps[ix].generations.values().flat_map(|s| s.config.listen.clone()).collect();
    for record in found {
        let Some(fd) = inherited.fds.remove(&held_name(&name, &record.key)) else { continue };
        let of_configuration =
            record.configured.and_then(|text| configured.iter().find(|l| l.to_string() == text).cloned());
        // An app without configured addresses has those of the sockets that it was given.
        let address = match record.given {
            true => of_configuration.or_else(|| address_of(&master.cx.system, &fd)),
            false => of_configuration,
        };
        let sockets = (1..record.sockets).map_while(|n| inherited.fds.remove(&slot_name(&name, &record.key, n)));
        let sockets: Vec<OwnedFd> = sockets.collect();
        let listener = requests::add_unsaved_listener(&mut master.cx, ix, fd, record.key, address);
        master.cx.apps[ix].listeners[listener].data = record.data;
        if record.given {
            master.cx.apps[ix].listeners[listener].mark_given();
        }
        master.cx.apps[ix].listeners[listener].opened_ms = 0;
        if record.sockets > 0 {
            master.kernel_mode.groups.resume(&mut master.cx, ix, listener, sockets, record.full, &record.places);
        }
        // Not earlier: without its sockets and marks the record would have the next master release them.
        checkpoint::save_listener(&mut master.cx, ix, listener);
    }
}

/// A worker keeps the listeners that it served.
fn resume_serves(master: &mut Master<impl System>, app_ix: AppIx, worker: WorkerId, inherited: &Inheritance) {
    let record: ServesRecord = read_record(inherited, &format!("{SERVES}{worker}")).unwrap_or_default();
    let Some(ix) = master.cx.workers.find(worker) else { return };
    if let Some(worker) = master.cx.workers.get_mut(ix) {
        worker.taken_before = record.taken;
        worker.receiver.greeted = record.greeted;
        worker.custom.actions = record.actions;
        if record.goodbye {
            worker.goodbye = Goodbye::SaidBefore;
        }
    }
    for key in record.keys {
        if let Some(listener) = master.cx.apps[app_ix].listeners.find(|l| l.key == key) {
            if record.client_first.contains(&key)
                && let Some(worker) = master.cx.workers.get_mut(ix)
            {
                worker.client_first.insert(listener);
            }
            requests::join(&mut master.cx, ix, listener);
        }
    }
    checkpoint::save_serves(&mut master.cx, ix);
}

/// Kills processes that the checkpoint does not know.
fn kill_unknown_processes(master: &mut Master<impl System>, inherited: &Inheritance) {
    for child in &inherited.children {
        if child.status.is_none() && master.cx.workers.find(child.worker).is_none() {
            log::warn!("worker {} (pid {}) is not in the checkpoint; killed", child.worker, child.pid);
            spawn::kill(&mut master.cx, child.worker);
        }
    }
}

/// Releases what the keeper holds of workers that have ended: the previous master died before it could.
fn release_unclaimed(master: &mut Master<impl System>, inherited: &Inheritance) {
    let ours = |name: &&String| {
        ["channel/", "output/", "slot/", bind::HELD, stdin::HELD, moves::COPIES]
            .iter()
            .any(|kind| name.starts_with(kind))
    };
    for name in inherited.fds.keys().filter(ours) {
        master.cx.keeper.send(Order::Release { name: name.clone() });
    }
}

/// When the first master of this run started, if that was saved.
pub(super) fn started_ms(inherited: &Inheritance) -> Option<u64> {
    let record: DeploymentRecord = read(inherited.notes.get(DEPLOYMENT)?).ok()?;
    Some(record.started_ms)
}

fn read_record<T: Value>(inherited: &Inheritance, key: &str) -> Option<T> {
    let bytes = inherited.notes.get(key)?;
    match read(bytes) {
        Ok(record) => Some(record),
        Err(e) => {
            log::error!("cannot read the checkpoint record {key}: {e}");
            None
        }
    }
}

fn records_of<T: Value>(inherited: &Inheritance, prefix: &str) -> Vec<T> {
    let keys = inherited.notes.range(prefix.to_owned()..).map(|(key, _)| key).take_while(|key| key.starts_with(prefix));
    keys.filter_map(|key| read_record(inherited, key)).collect()
}
