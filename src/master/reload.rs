//! The shell's part of a reload: reads the configuration again, looks everything up, binds new addresses. All of it
//! happens before the first worker is touched, so that a mistake costs nothing. The supervisor replaces the workers.
use super::addresses::{AddressError, Wanted};
use super::app::{App, balance_mode};
use super::config_reads::Input;
use super::context::Context;
use super::kernel_mode::groups::prepare_for_workers;
use super::lifecycle::refusal_while_stopped;
use super::log_files::LogFileError;
use super::overlap::may_overlap;
use super::settings::{Settings, SettingsError};
use super::system::System;
use super::{addresses, autoscale, checkpoint, log_files, releases, requests};
use crate::api::warnings;
use crate::config::problem::Problems;
use crate::config::sources::Sources;
use crate::config::{self, Config, Listen};
use crate::ids::{AppIx, Generation, ListenerIx};
use crate::keeper::protocol::Order;
use crate::loader::{self, LoadError};
use crate::supervisor::{Event, Policy};
use crate::worker::WorkerProtocol;
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use thiserror::Error;

/// Why an app cannot be reloaded or started; nothing was touched.
#[derive(Debug, Error)]
pub(super) enum ReloadError {
    /// It stops, or has stopped.
    #[error("{0}")]
    Stopped(String),
    /// Nothing says what the deployment was started with.
    #[error("the configuration it runs from is not known")]
    NoSources,
    /// A file cannot be read.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// What the files say is wrong.
    #[error(transparent)]
    Configuration(#[from] Problems),
    /// The file has lost the app.
    #[error("{0} is no longer in the configuration")]
    NoApp(String),
    /// The file has apps that do not run.
    #[error(
        "the configuration names {} that did not run before; a reload replaces apps that run: restart clusterd to add one",
        .0.join(", ")
    )]
    OtherApps(Vec<String>),
    /// Something that the app needs is missing.
    #[error("{app}: {why}")]
    Settings { app: String, why: SettingsError },
    /// A log file cannot be opened.
    #[error(transparent)]
    LogFile(#[from] LogFileError),
    /// An address cannot be had.
    #[error("{app}: {why}")]
    Address { app: String, why: AddressError },
    /// Too many changes wait for the thread that reads.
    #[error("too many reloads are waiting; try again in a moment")]
    Busy,
    /// There is no thread to read on.
    #[error("cannot start a thread to read the configuration: {0}")]
    Thread(#[source] io::Error),
}

/// The name in the keeper of a generation's sources.
fn source_name(source: u32) -> String {
    format!("source/{source}")
}

/// A prepared generation: the app, its number, its policy and its number of slots.
type Prepared = (AppIx, Generation, Policy, u32);

/// The configuration as it is now; changes nothing.
pub(super) fn configured_again(cx: &Context<impl System>, input: Input) -> Result<Config, ReloadError> {
    Ok(resolve(&sources_again(cx, input)?)?)
}

/// Whether the deployment has a configuration file.
pub(super) fn has_file(cx: &Context<impl System>) -> bool {
    cx.deployment.sources.get(&cx.deployment.last_source).is_some_and(|s| s.file.is_some())
}

/// The sources typed, their files read again, or their replacement.
fn sources_again(cx: &Context<impl System>, input: Input) -> Result<Sources, ReloadError> {
    let change = match input {
        Input::Read(read) => return Ok(*read?),
        Input::Change(change) => change,
    };
    if let Some(sources) = change.sources {
        return Ok(Sources { background: cx.deployment.background, ..*sources });
    }
    let previous = cx.deployment.current_sources().ok_or(ReloadError::NoSources)?;
    let again = loader::reload(previous)?;
    Ok(Sources { base_env: change.env.or(again.base_env), ..again })
}

/// Prepares a new generation for each of these apps. Changes nothing if it fails.
pub(super) fn prepare_reload(
    cx: &mut Context<impl System>,
    apps: &[AppIx],
    input: Input,
) -> Result<Vec<(AppIx, Generation, Event)>, ReloadError> {
    if let Some(why) = apps.iter().find_map(|&ix| refusal_while_stopped(cx, ix)) {
        return Err(ReloadError::Stopped(why));
    }
    let prepared = prepare_generations(cx, apps, input)?;
    let reload = |(ix, to, policy, slots)| (ix, to, Event::Reload { to, policy, slots });
    Ok(prepared.into_iter().map(reload).collect())
}

/// Prepares the start of an app: looks up and binds what it needs. Changes nothing if it fails.
pub(super) fn prepare_start(cx: &mut Context<impl System>, ix: AppIx, input: Input) -> Result<(), ReloadError> {
    let prepared = prepare_generations(cx, &[ix], input)?;
    for (ix, to, policy, slots) in prepared {
        cx.apps[ix].starting = true;
        cx.apps[ix].start_failure = None;
        cx.events.push_back((ix, Event::Start { to, policy, slots }));
    }
    Ok(())
}

fn prepare_generations(
    cx: &mut Context<impl System>,
    apps: &[AppIx],
    input: Input,
) -> Result<Vec<Prepared>, ReloadError> {
    for &ix in apps {
        cx.apps[ix].warned_before = warnings::count();
    }
    let is_new = matches!(&input, Input::Change(change) if change.sources.is_some());
    let mut sources = sources_again(cx, input)?;
    if !is_new {
        // The configuration has the last word again, for these apps.
        sources.rolled_back.retain(|name, _| apps.iter().all(|&ix| cx.apps[ix].name != *name));
    }
    let config = resolve(&sources)?;
    refuse_other_apps(cx, &config)?;
    // A file has the last word when it is read again; a command line cannot have changed since the app was scaled.
    let from_file = sources.file.is_some();
    let returned: BTreeSet<String> = sources.rolled_back.keys().cloned().collect();
    let source = cx.deployment.sources.keys().next_back().map_or(1, |last| last + 1);
    let mut prepared = Vec::new();
    for &ix in apps {
        let name = &cx.apps[ix].name;
        let app = config.apps.iter().find(|a| &a.name == name).cloned();
        let app = app.ok_or_else(|| ReloadError::NoApp(name.clone()))?;
        let settings = Settings::prepare(&cx.system, app, source, None)
            .map_err(|why| ReloadError::Settings { app: name.clone(), why })?;
        log_files::check(&cx.system, &settings, settings.config.workers_most(cx.system.cpus().count))?;
        settings.warn_of_hooks();
        let new =
            addresses::bind_new(cx, ix, &settings).map_err(|why| ReloadError::Address { app: name.clone(), why })?;
        prepared.push((ix, settings, new));
    }
    remember_sources(cx, source, sources);
    let commit = |(ix, settings, new): (AppIx, Settings, Vec<Wanted>)| {
        let keeps_scale = !from_file && (!is_new || returned.contains(&settings.config.name));
        commit_generation(cx, ix, settings, new, keeps_scale)
    };
    Ok(prepared.into_iter().map(commit).collect())
}

/// Refuses added and removed apps: a reload replaces only running apps.
fn refuse_other_apps(cx: &Context<impl System>, config: &Config) -> Result<(), ReloadError> {
    let names = config.apps.iter().map(|app| &app.name);
    let unknown: Vec<String> = names.filter(|name| cx.apps.iter().all(|app| app.name != **name)).cloned().collect();
    if unknown.is_empty() { Ok(()) } else { Err(ReloadError::OtherApps(unknown)) }
}

fn commit_generation(
    cx: &mut Context<impl System>,
    ix: AppIx,
    settings: Settings,
    new: Vec<Wanted>,
    keeps_scale: bool,
) -> Prepared {
    let first_seq = cx.deployment.first_seq();
    let app = &mut cx.apps[ix];
    let to = Generation(app.last_generation.0 + 1);
    app.last_generation = to;
    if app.supervisor.is_stopped() {
        app.forget_past(first_seq);
    }
    add_addresses(cx, ix, new, &settings);
    let app = &mut cx.apps[ix];
    let slots = autoscale::workers_for(app, to, &settings, keeps_scale, cx.system.cpus().count);
    let mut policy = settings.policy();
    if !app.supervisor.is_stopped() {
        policy.overlap = may_overlap(app, &settings, slots);
    }
    app.balancer.set_mode(balance_mode(settings.balance.balance));
    app.generations.insert(to, settings);
    releases::begin(cx, ix, to);
    (ix, to, policy, slots)
}

/// Adds the addresses of a new generation to the app.
fn add_addresses(cx: &mut Context<impl System>, ix: AppIx, new: Vec<Wanted>, settings: &Settings) {
    for wanted in new {
        match wanted {
            Wanted::Bound(address, fd) => {
                add_configured_listener(cx, ix, address, fd, settings.protocol);
            }
            Wanted::Adopted(address, listener_ix) => {
                cx.apps[ix].listeners[listener_ix].configured = Some(address);
                checkpoint::save_listener(cx, ix, listener_ix);
            }
        }
    }
}

/// Adds a configured address to the app.
pub(super) fn add_configured_listener(
    cx: &mut Context<impl System>,
    ix: AppIx,
    address: Listen,
    fd: OwnedFd,
    protocol: &dyn WorkerProtocol,
) -> ListenerIx {
    let key = format!("{}#{}", address, cx.apps[ix].listeners.len());
    let blocking = protocol.wants_blocking_sockets();
    let no_tcp = matches!(address, Listen::Unix(_));
    if let Err(e) = prepare_for_workers(&cx.system, fd.as_fd(), blocking, no_tcp) {
        log::warn!("cannot make {address} blocking, or set TCP_NODELAY on it: {e}");
    }
    let listener_ix = requests::add_listener(cx, ix, fd, key, Some(address));
    let app = &cx.apps[ix];
    log::info!("{}: listening on {}", app.name, app.listeners[listener_ix]);
    listener_ix
}

/// Gives the sources of a generation to the keeper, for a successor.
pub(super) fn remember_sources(cx: &mut Context<impl System>, source: u32, sources: Sources) {
    hold_sources(cx, source, sources);
    cx.deployment.last_source = source;
    checkpoint::save_deployment(cx);
}

/// The same, without saving the deployment's record.
pub(super) fn hold_sources(cx: &mut Context<impl System>, source: u32, sources: Sources) {
    match serde_json::to_vec(&sources).map_err(io::Error::other).and_then(|json| cx.system.file_with("source", &json)) {
        Ok(fd) => cx.keeper.hold(source_name(source), fd.as_fd()),
        Err(e) => log::error!("cannot save a copy of the configuration for a later master: {e}"),
    }
    cx.deployment.sources.insert(source, sources);
}

/// Drops the sources of a failed reload: the next one starts from what serves.
pub(super) fn forget_failed_sources(cx: &mut Context<impl System>) {
    let serving = cx.apps.iter().filter(|app| !app.deleted).map(|app| app.settings().source).max();
    if let Some(source) = serving.filter(|source| cx.deployment.sources.contains_key(source)) {
        cx.deployment.last_source = source;
        checkpoint::save_deployment(cx);
    }
}

/// Drops sources that no generation of any app uses and no roll-back may need, except those that the next reload starts from.
pub(super) fn drop_unused_sources(cx: &mut Context<impl System>) {
    let of_app = |app: &App| -> Vec<u32> {
        app.generations.values().map(|settings| settings.source).chain(app.releases.sources()).collect()
    };
    let in_use: Vec<u32> = cx.apps.iter().filter(|app| !app.deleted).flat_map(of_app).collect();
    let last = cx.deployment.last_source;
    let sources = &mut cx.deployment.sources;
    let unused: Vec<u32> =
        sources.keys().copied().filter(|source| *source != last && !in_use.contains(source)).collect();
    for source in unused {
        sources.remove(&source);
        cx.keeper.send(Order::Release { name: source_name(source) });
    }
}

/// The configuration of these sources, or every problem in it.
pub(super) fn resolve(sources: &Sources) -> Result<Config, Problems> {
    config::resolve::resolve(sources).map_err(Problems)
}
