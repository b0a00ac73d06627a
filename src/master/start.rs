//! The master's two ways to start: fresh, from what was typed, or over what a former master left with the keeper.
use super::app::App;
use super::keeper::Keeper;
use super::listener::{self, held_name};
use super::memory::{AppNote, DeploymentNote, ListenerNote, ServesNote, SlotNote, WorkerNote};
use super::output::Way;
use super::polls::Polls;
use super::reload::{resolve, source_name};
use super::settings::Settings;
use super::worker::Goodbye;
use super::{Master, notes, output, spawn};
use crate::api;
use crate::cli::{args, load};
use crate::config::sources::Sources;
use crate::config::{Config, Listen};
use crate::home::{self, Home, HomeError};
use crate::ids::{Generation, WorkerId};
use crate::keeper::link::Inheritance;
use crate::keeper::protocol::Order;
use crate::limits;
use crate::os::listen::{self, LocalAddress};
use crate::os::{clock, cpu, memfd, process, user};
use crate::supervisor::{self, Action, Cx};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ffi::OsString;
use std::io;
use std::io::IsTerminal as _;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// Name of the control socket in the keeper.
const CONTROL_SOCKET: &str = "control/socket";
/// Name of the lock on the deployment's name in the keeper.
const CONTROL_LOCK: &str = "control/lock";
/// Name of the notify socket in the keeper.
const NOTIFY: &str = "notify";

/// Why a start failed: what to say, and the exit code.
struct StartError {
    message: String,
    code: u8,
}

impl StartError {
    fn failed(message: impl ToString) -> StartError {
        StartError { message: message.to_string(), code: 1 }
    }

    fn usage(message: impl ToString) -> StartError {
        StartError { message: message.to_string(), code: 2 }
    }
}

/// Entry point of the master's role: `argv` is what the person typed.
pub fn run(argv: Vec<OsString>) -> ExitCode {
    process::set_name("clusterd-master");
    let mut link = match Keeper::new() {
        Ok(link) => link,
        Err(e) => {
            log::error!("the master is started by the keeper, not by hand: {e}");
            return ExitCode::from(2);
        }
    };
    let inherited = match link.adopt() {
        Ok(inherited) => inherited,
        Err(e) => {
            log::error!("the keeper does not answer: {e}");
            return ExitCode::from(1);
        }
    };
    let fresh = !inherited.notes.contains_key(notes::DEPLOYMENT);
    let begun = if fresh { Master::begin(link, inherited, argv) } else { Master::resume(link, inherited) };
    let mut master = match begun {
        Ok(master) => master,
        Err((mut link, error)) => {
            for line in error.message.lines() {
                log::error!("{line}");
            }
            if fresh {
                link.finish(error.code);
            }
            // Else workers live, and the keeper tries again: a master that cannot go on gives nobody up.
            return ExitCode::from(error.code);
        }
    };
    match master.turn() {
        Ok(()) => ExitCode::from(master.exit_code),
        Err(e) => {
            log::error!("the master cannot go on: {e}");
            ExitCode::from(1)
        }
    }
}

impl Master {
    fn empty(link: Keeper, inherited: &Inheritance) -> Result<Master, (Keeper, StartError)> {
        let polls = match Polls::new(&link) {
            Ok(polls) => polls,
            Err(e) => return Err((link, StartError::failed(format!("cannot make an epoll: {e}")))),
        };
        let waker = match polls.waker() {
            Ok(waker) => waker,
            Err(e) => return Err((link, StartError::failed(format!("cannot make a waker: {e}")))),
        };
        let now_us = clock::monotonic_us();
        Ok(Master {
            link,
            polls,
            name: String::new(),
            background: false,
            home: None,
            ids: BTreeMap::new(),
            incarnation: inherited.incarnation,
            started_ms: now_us / 1000,
            keeper_pid: std::os::unix::process::parent_id() as i32,
            apps: Vec::new(),
            workers: Default::default(),
            next_worker: 1,
            sources: BTreeMap::new(),
            last_source: 0,
            events: VecDeque::new(),
            ready_listeners: Vec::new(),
            open_handoffs: 0,
            behind: 0,
            upgrade: Default::default(),
            handing_over_since_ms: None,
            on_terminal: io::stderr().is_terminal(),
            notes: Default::default(),
            // A failed wake-up means that the loop is gone, and the process with it.
            wake: Arc::new(move || drop(waker.wake())),
            readings: Default::default(),
            calls: None,
            api: None,
            control_path: None,
            waiters: Vec::new(),
            notify: None,
            output: output::Output::default(),
            hooks: Default::default(),
            now_ms: now_us / 1000,
            now_us,
            next_heartbeat_ms: 0,
            next_log_look_ms: now_us / 1000 + limits::OWN_LOG_LOOK_MS,
            pinged: false,
            next_hang_ms: None,
            drains_due: Vec::new(),
            next_drain_check_ms: None,
            drain_check_every_ms: limits::DRAIN_CHECK_MIN_MS,
            stop_asked: false,
            exit_code: 0,
            finished: false,
            line: Vec::with_capacity(512),
            taken_back: Vec::new(),
        })
    }

    // ---- fresh ----

    fn begin(link: Keeper, inherited: Inheritance, argv: Vec<OsString>) -> Result<Master, (Keeper, StartError)> {
        let mut master = Master::empty(link, &inherited)?;
        match master.begin_all(inherited, argv) {
            Ok(()) => Ok(master),
            Err(error) => {
                master.remove_files();
                Err((master.link, error))
            }
        }
    }

    fn begin_all(&mut self, inherited: Inheritance, argv: Vec<OsString>) -> Result<(), StartError> {
        let (launch, mut sources) = typed(argv)?;
        let mut config = resolve(&sources).map_err(StartError::usage)?;
        let claimed = self.claim(&launch, &sources, &config)?;
        if let Some(name) = claimed.as_ref().and_then(|claimed| claimed.renamed.clone()) {
            sources.overrides.name = Some(name);
            config = resolve(&sources).map_err(StartError::usage)?;
        }
        let mut given = given_sockets(inherited.fds);
        let mut prepared = Vec::new();
        for app in &config.apps {
            let settings = Settings::prepare(app.clone(), 1, None).map_err(StartError::failed)?;
            prepared.push(settings);
        }
        // Every address before any process: a taken port is one clear error and nothing has happened yet.
        let mut bound = Vec::new();
        for settings in &prepared {
            if launch.keeps_stopped(&settings.config.name) {
                bound.push(Vec::new());
                continue;
            }
            bound.push(bind_all(settings, &mut given, config.apps.len() == 1)?);
        }
        for name in given.iter().map(|(name, _)| name) {
            log::warn!("the inherited socket {name} matches no configured address; it is not used");
        }
        // Not before: whoever finds the socket may rely on the start.
        if let Some(claimed) = claimed {
            self.open_control(&claimed.claim);
        }
        self.open_notify();
        self.remember_sources(1, sources);
        for (settings, bound) in prepared.into_iter().zip(bound) {
            let stopped = launch.keeps_stopped(&settings.config.name);
            let slots = launch.scaled(&settings.config.name);
            self.begin_app(settings, bound, slots);
            if let Some(app) = self.apps.last_mut() {
                app.starting = !stopped;
            }
        }
        self.link.send(Order::Ready);
        self.start_apps();
        Ok(())
    }

    fn begin_app(&mut self, settings: Settings, bound: Vec<(Listen, OwnedFd)>, scaled: Option<u32>) {
        if let Some(advice) = &settings.advice {
            log::warn!("{}: {advice}", settings.config.name);
        }
        settings.warn_of_hooks();
        let slots = scaled.unwrap_or_else(|| settings.config.workers.count(cpu::available().count));
        let slots = slots.clamp(1, limits::WORKERS_MAX);
        let rules = supervisor::App::new(Generation(1), settings.policy(), slots);
        let first_seq = self.first_seq();
        let app = App::new(settings.config.name.clone(), rules, settings, first_seq);
        self.apps.push(app);
        let ix = self.apps.len() - 1;
        for (address, fd) in bound {
            let protocol = self.apps[ix].settings().protocol;
            self.add_configured_listener(ix, address, fd, protocol);
        }
    }

    /// Numbers of hand-offs start above any that a former master may still be answered for.
    pub(super) fn first_seq(&self) -> u64 {
        // Node keeps them in a double: 2^53 leaves room for 2^21 masters of 2^32 hand-offs each.
        (u64::from(self.incarnation) << 32) % (1 << 53) + 1
    }

    fn start_apps(&mut self) {
        for ix in 0..self.apps.len() {
            if !self.apps[ix].starting {
                self.stop_app(ix, true);
                continue;
            }
            self.tell_start(ix);
            let mut actions = Vec::new();
            let mut cx = Cx { now_ms: self.now_ms, next_worker: &mut self.next_worker, actions: &mut actions };
            self.apps[ix].supervisor.start(&mut cx);
            self.carry_out(ix, actions);
        }
    }

    /// Claims the deployment's name. `None`: there is no home that could be used.
    fn claim(&mut self, launch: &Launch, sources: &Sources, config: &Config) -> Result<Option<Claimed>, StartError> {
        match self.claim_name(launch, sources, config) {
            Ok((claim, entry)) => {
                self.name.clone_from(&claim.name);
                self.link.hold(CONTROL_LOCK.to_owned(), claim.lock.as_fd());
                self.background = entry.background;
                self.ids = entry.apps.iter().map(|app| (app.name.clone(), app.id)).collect();
                let renamed = match (config.apps.as_slice(), entry.apps.as_slice()) {
                    ([wanted], [got]) if wanted.name != got.name => Some(got.name.clone()),
                    _ => None,
                };
                Ok(Some(Claimed { claim, renamed }))
            }
            Err(e) if e.is_unusable_home() => {
                self.warn_of_home(&e);
                Ok(None)
            }
            Err(e) => Err(StartError::failed(e)),
        }
    }

    fn warn_of_home(&self, why: &HomeError) {
        log::warn!("no control socket (ls, reload, scale and stop cannot reach this run): {why}");
    }

    fn open_control(&mut self, claim: &home::Claim) {
        match claim.listen() {
            Ok(socket) => {
                self.link.hold(CONTROL_SOCKET.to_owned(), socket.as_fd());
                self.serve_control(socket);
            }
            Err(e) => self.warn_of_home(&e),
        }
    }

    fn claim_name(
        &mut self,
        launch: &Launch,
        sources: &Sources,
        config: &Config,
    ) -> Result<(home::Claim, home::Entry), HomeError> {
        let (home, claimed) = match launch {
            // Who started us has planned it all and holds the registry.
            Launch::Background { home, entry } => {
                let home = Home::find(Some(home))?;
                let claim = home.claim(&entry.name)?;
                (home, (claim, home::Entry::clone(entry)))
            }
            Launch::Foreground(run) => {
                let (name, explicit) = home::deployment_name(sources, config);
                self.name.clone_from(&name);
                let home = Home::find(run.home.as_deref())?;
                let names: Vec<String> = config.apps.iter().map(|app| app.name.clone()).collect();
                let registry = home.registry()?;
                let entry = registry.plan(&name, explicit, &names)?;
                let claim = registry.claim(&entry)?;
                drop(registry);
                (home, (claim, entry))
            }
        };
        self.home = Some(home);
        Ok(claimed)
    }

    fn serve_control(&mut self, socket: UnixListener) {
        self.control_path = socket.local_addr().ok().and_then(|at| at.as_pathname().map(Path::to_owned));
        let (sender, receiver) = api::channel(Arc::clone(&self.wake));
        self.calls = Some(receiver);
        match api::server::start(socket, sender, user::own_uid()) {
            Ok(server) => self.api = Some(server),
            Err(e) => log::error!("the control socket cannot be served: {e}"),
        }
    }

    fn open_notify(&mut self) {
        match listen::bind_notify_abstract() {
            Ok((socket, name)) => {
                self.link.hold(NOTIFY.to_owned(), socket.as_fd());
                self.take_notify(socket, name);
            }
            Err(e) => log::warn!("no notify socket (READY=1 cannot be received): {e}"),
        }
    }

    fn take_notify(&mut self, socket: OwnedFd, name: String) {
        if let Err(e) = self.polls.add_notify(&socket) {
            log::warn!("the notify socket cannot be polled: {e}");
        }
        self.notify = Some((socket, name));
    }

    // ---- over what a former master left ----

    fn resume(link: Keeper, inherited: Inheritance) -> Result<Master, (Keeper, StartError)> {
        let mut master = Master::empty(link, &inherited)?;
        match master.resume_all(inherited) {
            Ok(()) => Ok(master),
            Err(error) => Err((master.link, error)),
        }
    }

    fn resume_all(&mut self, mut inherited: Inheritance) -> Result<(), StartError> {
        let note = read_note::<DeploymentNote>(&inherited, notes::DEPLOYMENT)
            .ok_or_else(|| StartError::failed("the former master's notes cannot be read"))?;
        self.name = note.name;
        self.background = note.background;
        self.home = note.home.and_then(|path| Home::find(Some(Path::new(&path))).ok());
        self.ids = note.ids;
        self.started_ms = note.started_ms;
        self.stop_asked = note.stop_asked;
        self.exit_code = note.exit_code;
        self.next_worker = note.worker_ids_below;
        self.last_source = note.last_source;
        let previous_end = inherited.previous_end.clone();
        self.notes.inherit(inherited.notes.iter().map(|(key, value)| (key.clone(), value.clone())));
        self.resume_sources(&mut inherited)?;
        if let (Some(socket), Some(name)) = (inherited.fds.remove(NOTIFY), note.notify) {
            self.take_notify(socket, name);
        }
        if let Some(socket) = inherited.fds.remove(CONTROL_SOCKET) {
            self.serve_control(UnixListener::from(socket));
        }
        let mut actions = Vec::new();
        for ix in 0..limits::APPS_MAX {
            let Some(app) = read_note::<AppNote>(&inherited, &format!("{}{ix}", notes::APP)) else { break };
            actions.push(self.resume_app(ix, &app, &mut inherited)?);
        }
        self.kill_strangers(&inherited);
        self.resume_upgrade(note.upgrade, &previous_end);
        self.release_unclaimed(&inherited);
        self.link.send(Order::Ready);
        for (ix, actions) in actions.into_iter().enumerate() {
            self.carry_out(ix, actions);
        }
        for child in inherited.children.into_iter() {
            if let Some(status) = child.status {
                self.on_exited(child.worker, status, self.now_ms);
            }
        }
        for ix in 0..self.workers.bound() {
            self.read_channel(ix, true);
        }
        Ok(())
    }

    fn resume_sources(&mut self, inherited: &mut Inheritance) -> Result<(), StartError> {
        let names: Vec<String> = inherited.fds.keys().filter(|name| name.starts_with("source/")).cloned().collect();
        for name in names {
            let Some(fd) = inherited.fds.remove(&name) else { continue };
            let Some(source) = name.strip_prefix("source/").and_then(|n| n.parse::<u32>().ok()) else { continue };
            let sources = memfd::contents(fd.as_fd(), limits::SOURCES_BYTES_MAX)
                .and_then(|json| serde_json::from_slice::<Sources>(&json).map_err(io::Error::other));
            match sources {
                Ok(sources) => {
                    self.sources.insert(source, sources);
                }
                Err(e) => log::error!("the former master's copy of the configuration ({name}) cannot be read: {e}"),
            }
        }
        if self.sources.contains_key(&self.last_source) {
            return Ok(());
        }
        let wanted = source_name(self.last_source);
        Err(StartError::failed(format!("the former master left no readable configuration ({wanted})")))
    }

    fn resume_app(
        &mut self,
        ix: usize,
        note: &AppNote,
        inherited: &mut Inheritance,
    ) -> Result<Vec<Action>, StartError> {
        let mut generations = BTreeMap::new();
        for (&number, generation) in &note.generations {
            let Some(sources) = self.sources.get(&generation.source) else { continue };
            let config = resolve(sources).map_err(StartError::failed)?;
            let Some(app) = config.apps.into_iter().find(|a| a.name == note.name) else { continue };
            let fixed = Some((PathBuf::from(&generation.cwd), PathBuf::from(&generation.program)));
            match Settings::prepare(app, generation.source, fixed) {
                Ok(settings) => {
                    generations.insert(Generation(number), settings);
                }
                Err(e) => log::error!("{}: generation {number} cannot be used any more: {e}", note.name),
            }
        }
        let policies = generations.iter().map(|(&generation, settings)| (generation, settings.policy())).collect();
        let pids: HashMap<WorkerId, i32> = inherited.children.iter().map(|c| (c.worker, c.pid)).collect();
        let slots = notes_of::<SlotNote>(inherited, &format!("{}{ix}/", notes::SLOT));
        let workers = notes_of::<WorkerNote>(inherited, &format!("{}{ix}/", notes::WORKER));
        let known: Vec<supervisor::WorkerMemory> = workers.into_iter().map(Into::into).collect();
        let mut actions = Vec::new();
        let mut cx = Cx { now_ms: self.now_ms, next_worker: &mut self.next_worker, actions: &mut actions };
        let rules = supervisor::App::restore(
            note.memory(),
            slots.into_iter().map(Into::into).collect(),
            known.clone(),
            policies,
            &|worker| pids.get(&worker).copied(),
            &mut cx,
        );
        let settings = generations.values().next_back().cloned();
        let Some(settings) = settings else {
            return Err(StartError::failed(format!("{}: no generation of it can be restored", note.name)));
        };
        let mut app = App::new(note.name.clone(), rules, settings, self.first_seq());
        app.generations = generations;
        app.last_generation = Generation(note.last_generation);
        app.restarts = note.restarts;
        app.closed = note.stopping.is_some();
        app.deleted = note.deleted;
        let mode = super::app::balance_mode(app.settings().config.balance);
        app.balancer.set_mode(mode);
        self.apps.push(app);
        self.resume_listeners(ix, inherited);
        for worker in known {
            let Some(&pid) = pids.get(&worker.id) else { continue };
            let channel = inherited.fds.remove(&spawn::channel_name(worker.id)).map(|fd| (fd, true));
            self.add_worker(ix, worker.id, worker.slot, worker.generation, Some(pid), channel);
            self.resume_serves(ix, worker.id, inherited);
            let way = Way {
                place: (note.name.clone(), worker.slot),
                prefix: self.apps[ix].settings().config.prefix,
                tail: false,
            };
            self.output.adopt(worker.id, &way, &mut inherited.fds);
        }
        Ok(actions)
    }

    fn resume_listeners(&mut self, ix: usize, inherited: &mut Inheritance) {
        let name = self.apps[ix].name.clone();
        let mut found = notes_of::<ListenerNote>(inherited, &format!("{}{name}/", notes::LISTENER));
        found.sort_by_key(|l| l.order);
        let configured: Vec<Listen> =
            self.apps[ix].generations.values().flat_map(|s| s.config.listen.clone()).collect();
        for note in found {
            let Some(fd) = inherited.fds.remove(&held_name(&name, &note.key)) else { continue };
            let address = note.configured.and_then(|text| configured.iter().find(|l| l.to_string() == text).cloned());
            let listener = self.add_listener(ix, fd, note.key, address);
            self.apps[ix].listeners[listener].data = note.data;
        }
    }

    /// The listeners that a worker served go on being its own.
    fn resume_serves(&mut self, app_ix: usize, worker: WorkerId, inherited: &Inheritance) {
        let note: ServesNote = read_note(inherited, &format!("{}{worker}", notes::SERVES)).unwrap_or_default();
        let Some(ix) = self.workers.find(worker) else { return };
        if let Some(worker) = self.workers.get_mut(ix) {
            worker.taken_before = note.taken;
            if note.goodbye {
                worker.goodbye = Goodbye::SaidBefore;
            }
        }
        for key in note.keys {
            if let Some(listener) = self.apps[app_ix].listeners.iter().position(|l| l.key == key) {
                self.join(ix, listener);
            }
        }
    }

    /// Processes that the notes do not know have no place: they are ended.
    fn kill_strangers(&mut self, inherited: &Inheritance) {
        for child in &inherited.children {
            if child.status.is_none() && self.workers.find(child.worker).is_none() {
                log::warn!("worker {} (pid {}) is in no note of the former master; killed", child.worker, child.pid);
                self.kill(child.worker);
            }
        }
    }

    /// What a worker that is no more had with the keeper: the former master died before it could let go of it.
    fn release_unclaimed(&mut self, inherited: &Inheritance) {
        for name in inherited.fds.keys().filter(|name| name.starts_with("channel/") || name.starts_with("output/")) {
            self.link.send(Order::Release { name: name.clone() });
        }
    }

    // ---- the end ----

    /// Everything is done: the keeper may end.
    pub(super) fn finish(&mut self) {
        if self.exit_code == 0 {
            log::info!("stopped");
        }
        self.finished = true;
        self.hooks.finish();
        self.output.finish();
        self.remove_files();
        if let Some(api) = &self.api {
            api.drain();
        }
        self.link.finish(self.exit_code);
    }

    /// Socket files that are ours. The keeper holds the control socket's lock until it ends, so nobody else has that path.
    fn remove_files(&mut self) {
        let listeners = self.apps.iter_mut().flat_map(|a| &mut a.listeners).filter_map(|l| l.unlink.take());
        for path in listeners.chain(self.control_path.take()) {
            // Somebody may have removed it before us.
            let _ = std::fs::remove_file(path);
        }
        if let Some(home) = self.home.as_ref().filter(|_| self.started_by_us()) {
            home.remove_entry(&self.name);
        }
    }

    /// Whether the entry is ours to remove: the one of a start in the background that failed is its starter's.
    fn started_by_us(&self) -> bool {
        !self.background || !self.apps.is_empty()
    }
}

/// A name that is ours.
struct Claimed {
    claim: home::Claim,
    /// What the only app has to be called, where its name was taken.
    renamed: Option<String>,
}

/// How this deployment was started.
enum Launch {
    /// By a person, a unit, a container.
    Foreground(Box<args::RunArgs>),
    /// By `clusterd start`, which has written the entry.
    Background {
        /// The home.
        home: PathBuf,
        /// What the entry says.
        entry: Box<home::Entry>,
    },
}

impl Launch {
    /// The number of workers to which an app had been scaled.
    fn scaled(&self, app: &str) -> Option<u32> {
        match self {
            Launch::Foreground(_) => None,
            Launch::Background { entry, .. } => entry.apps.iter().find(|a| a.name == app).and_then(|a| a.workers),
        }
    }

    /// Whether an app is there to be started later.
    fn keeps_stopped(&self, app: &str) -> bool {
        match self {
            Launch::Foreground(_) => false,
            Launch::Background { entry, .. } => entry.apps.iter().any(|a| a.name == app && a.stopped),
        }
    }
}

fn typed(argv: Vec<OsString>) -> Result<(Launch, Sources), StartError> {
    if let [_, flag, home, name] = argv.as_slice()
        && flag == crate::cli::BACKGROUND_FLAG
    {
        let home = PathBuf::from(home);
        let entry = Home::find(Some(&home)).and_then(|home| home.entry(&name.to_string_lossy()));
        let mut entry = entry.map_err(StartError::failed)?;
        let no_sources = || StartError::failed("its entry does not say what to run");
        let mut sources = entry.sources.take().ok_or_else(no_sources)?;
        if sources.file.is_some() {
            // Of its file, what was not deleted.
            sources.overrides.only = entry.apps.iter().map(|app| app.name.clone()).collect();
        }
        return Ok((Launch::Background { home, entry: Box::new(entry) }, sources));
    }
    let args::Invocation::Run(run) = args::parse(argv).map_err(StartError::usage)? else {
        return Err(StartError::usage("the master runs deployments only"));
    };
    let sources = load::load(&run).map_err(|e| StartError { code: e.code(), message: e.to_string() })?;
    load::notes(&sources, None).iter().for_each(|note| log::warn!("{note}"));
    Ok((Launch::Foreground(Box::new(run)), sources))
}

/// Sockets that systemd (or whoever started the keeper) passed, with their names.
fn given_sockets(fds: HashMap<String, OwnedFd>) -> Vec<(String, OwnedFd)> {
    let mut given: Vec<(String, OwnedFd)> =
        fds.into_iter().filter(|(name, _)| name.starts_with("inherited/")).collect();
    given.sort_by(|a, b| a.0.cmp(&b.0));
    given
}

/// The listeners of one app: inherited where the address is the same, else bound. An app without configured addresses,
/// alone in its deployment, takes every inherited socket.
fn bind_all(
    settings: &Settings,
    given: &mut Vec<(String, OwnedFd)>,
    alone: bool,
) -> Result<Vec<(Listen, OwnedFd)>, StartError> {
    let mut bound = Vec::new();
    for address in &settings.config.listen {
        let inherited = given.iter().position(|(_, fd)| is_address(fd, address));
        let fd = match inherited {
            Some(n) => given.remove(n).1,
            None => listener::bind_configured(address)
                .map_err(|e| StartError::failed(format!("{}: {e}", settings.config.name)))?,
        };
        bound.push((address.clone(), fd));
    }
    if settings.config.listen.is_empty() && alone {
        for (_, fd) in given.drain(..) {
            let address = match listen::local_address(fd.as_fd()) {
                Ok(LocalAddress::Inet(address)) => Listen::Tcp(address),
                Ok(LocalAddress::Unix(path)) => Listen::Unix(path),
                Ok(LocalAddress::Other) | Err(_) => continue,
            };
            bound.push((address, fd));
        }
    }
    Ok(bound)
}

fn is_address(fd: &OwnedFd, address: &Listen) -> bool {
    match (listen::local_address(fd.as_fd()), address) {
        (Ok(LocalAddress::Inet(local)), Listen::Tcp(wanted)) => local == *wanted,
        (Ok(LocalAddress::Inet(local)), Listen::Any(port)) => local.port() == *port && local.ip().is_unspecified(),
        (Ok(LocalAddress::Inet(local)), Listen::Host(_, port)) => local.port() == *port,
        (Ok(LocalAddress::Unix(local)), Listen::Unix(wanted)) => local == *wanted,
        _ => false,
    }
}

fn read_note<T: serde::de::DeserializeOwned>(inherited: &Inheritance, key: &str) -> Option<T> {
    let bytes = inherited.notes.get(key)?;
    match serde_json::from_slice(bytes) {
        Ok(note) => Some(note),
        Err(e) => {
            log::error!("the former master's note {key} cannot be read: {e}");
            None
        }
    }
}

fn notes_of<T: serde::de::DeserializeOwned>(inherited: &Inheritance, prefix: &str) -> Vec<T> {
    let keys = inherited.notes.range(prefix.to_owned()..).map(|(key, _)| key).take_while(|key| key.starts_with(prefix));
    keys.filter_map(|key| read_note(inherited, key)).collect()
}
