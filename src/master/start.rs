//! How a master starts: chooses between a takeover (`resume`) and a fresh start from the command line, which is here.
use super::app::App;
use super::context::Context;
use super::control::{self, Control, Tcp};
use super::given::{self, Bound, Given};
use super::keeper::Keeper;
use super::notify_sockets::NotifySockets;
use super::reactor::Reactor;
use super::relay::app_metrics;
use super::reload::resolve;
use super::settings::Settings;
use super::system::{Linux, System};
use super::timers::Timer;
use super::triggers::Triggers;
use super::upgrade::Upgrade;
use super::{
    Master, addresses, autoscale, cgroups, dependencies, in_hand, last_words, log_files, narration, orphans, output,
    releases, reload, resume, stop_report,
};
use crate::api;
use crate::api::request::StopMode;
use crate::config::sources::Sources;
use crate::config::{self, Config, Metrics};
use crate::home::{self, Home, HomeError};
use crate::ids::Generation;
use crate::keeper::ARGUMENTS;
use crate::keeper::link::Inheritance;
use crate::keeper::protocol::Order;
use crate::limits;
use crate::loader::{self, Request};
use crate::os::signal;
use crate::supervisor::{self, Cx};
use std::ffi::OsString;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::process::ExitCode;

/// Name in the keeper of the address of the control API.
pub(super) const CONTROL_TCP: &str = "control/tcp";
/// Name of the control socket in the keeper.
pub(super) const CONTROL_SOCKET: &str = "control/socket";
/// Name in the keeper of the lock on the deployment's name.
const CONTROL_LOCK: &str = "control/lock";

/// argv\[1\] of a deployment in the background; the home and the name of its entry follow.
pub const BACKGROUND_FLAG: &str = "--background-entry";

/// The command line. It is parsed only when nothing else says what to run.
pub struct CommandLine {
    /// The arguments; the program's name first.
    pub argv: Vec<OsString>,
    /// Parses a run in the foreground.
    pub read: fn(&[OsString]) -> Result<Run, String>,
}

/// A run in the foreground, as typed.
pub struct Run {
    pub request: Request,
    /// The home, if one was named.
    pub home: Option<PathBuf>,
}

/// Why a start failed: the message and the exit code.
pub(super) struct StartError {
    pub(super) message: String,
    pub(super) code: u8,
}

impl StartError {
    pub(super) fn failed(message: impl ToString) -> StartError {
        StartError { message: message.to_string(), code: 1 }
    }

    fn usage(message: impl ToString) -> StartError {
        StartError { message: message.to_string(), code: 2 }
    }
}

/// The error of a failed start, with the link, over which the keeper may have to be told.
pub(super) struct NotStarted<S: System> {
    system: S,
    link: Keeper<S>,
    error: StartError,
}

impl<S: System> NotStarted<S> {
    pub(super) fn new(system: S, link: Keeper<S>, error: StartError) -> Box<NotStarted<S>> {
        Box::new(NotStarted { system, link, error })
    }
}

/// Entry point of the master process.
pub fn run(typed: CommandLine) -> ExitCode {
    run_on(Linux::default(), typed)
}

/// The same on any system: `tests/system` puts a simulated one under it.
pub fn run_on(mut system: impl System, typed: CommandLine) -> ExitCode {
    system.set_name("clusterd-master");
    // A log file at its size limit is an error of that write. The signal would kill the master.
    if let Err(e) = system.ignore_signal(signal::XFSZ) {
        log::warn!("cannot ignore SIGXFSZ: {e}");
    }
    if let Err(e) = system.outlive_keeper() {
        log::warn!("cannot outlive the keeper: {e}; if the keeper is killed, processes that workers started may stay");
    }
    let mut link = match Keeper::new(&system) {
        Ok(link) => link,
        Err(e) => {
            log::error!("the master is started by the keeper, not by hand: {e}");
            return ExitCode::from(2);
        }
    };
    // Early: its memory is a copy of ours.
    if let Some(Err(e)) = in_hand::parcel().map(|parcel| system.guard(link.as_fd(), &parcel)) {
        log::debug!("no guard: a connection that a killed master has in hand is lost with it: {e}");
    }
    let inherited = match link.adopt() {
        Ok(inherited) => inherited,
        Err(e) => {
            log::error!("the keeper does not answer: {e}");
            return ExitCode::from(1);
        }
    };
    let typed = with_all_arguments(&system, typed, &inherited);
    // A later master never starts from the beginning: it would conflict with everything that runs.
    let fresh = inherited.incarnation <= 1;
    let begun = match fresh {
        true => Master::begin(system, link, inherited, &typed),
        false => resume::resume(system, link, inherited, &typed),
    };
    let mut master = match begun {
        Ok(master) => master,
        Err(failed) => {
            let NotStarted { system, mut link, error } = *failed;
            for line in error.message.lines() {
                log::error!("{line}");
            }
            if fresh {
                link.finish(&system, error.code);
            }
            // Otherwise workers are alive, and the keeper tries again: a master that cannot take over abandons nobody.
            return ExitCode::from(error.code);
        }
    };
    match master.turn() {
        Ok(()) => ExitCode::from(master.cx.deployment.exit_code),
        Err(e) => {
            log::error!("the master cannot continue: {e}");
            orphans::end(&master.cx);
            ExitCode::from(1)
        }
    }
}

impl<S: System> Master<S> {
    pub(super) fn empty(system: S, link: Keeper<S>, inherited: &Inheritance) -> Result<Master<S>, Box<NotStarted<S>>> {
        let made = Reactor::new(&system, &link).and_then(|reactor| Ok((reactor.waker()?, reactor)));
        let (wake, reactor) = match made {
            Ok(made) => made,
            Err(e) => {
                let error = StartError::failed(format!("cannot create an epoll instance: {e}"));
                return Err(NotStarted::new(system, link, error));
            }
        };
        let mut cx = Context::new(system, link, reactor, inherited.incarnation, wake);
        cx.deployment.has_store = inherited.about.has_store;
        if let Some(started_ms) = resume::started_ms(inherited) {
            cx.deployment.started_ms = started_ms;
        }
        api::events::begin(cx.deployment.events_follow());
        cx.timers.set(Timer::Heartbeat, cx.now_ms);
        cx.timers.set(Timer::OwnLog, cx.now_ms + limits::OWN_LOG_LOOK_MS);
        Ok(Master {
            cx,
            dispatch: Default::default(),
            upgrade: Upgrade::new(inherited.about.clone()),
            config_reads: Default::default(),
            triggers: Triggers::default(),
            control: Control::default(),
            notify: NotifySockets::default(),
            output: output::Output::default(),
            hooks: Default::default(),
            relay: Default::default(),
            http_probes: Default::default(),
            reports: Default::default(),
            liveness: Default::default(),
            drains: Default::default(),
            kernel_mode: Default::default(),
        })
    }

    // ---- the fresh start ----

    fn begin(
        system: S,
        link: Keeper<S>,
        inherited: Inheritance,
        typed: &CommandLine,
    ) -> Result<Master<S>, Box<NotStarted<S>>> {
        let mut master = Master::empty(system, link, &inherited)?;
        match master.begin_all(inherited, typed) {
            Ok(()) => Ok(master),
            Err(error) => {
                master.remove_files();
                Err(NotStarted::new(master.cx.system, master.cx.keeper, error))
            }
        }
    }

    fn begin_all(&mut self, inherited: Inheritance, typed: &CommandLine) -> Result<(), StartError> {
        let (launch, mut sources) = launch(typed)?;
        let mut config = resolve(&sources).map_err(StartError::usage)?;
        if matches!(launch, Launch::Foreground { .. }) && !config.apps.iter().any(|app| app.autostart) {
            return Err(StartError::usage("nothing to run: autostart is false for every app"));
        }
        let claimed = self.claim(&launch, &sources, &config)?;
        if let Some(name) = claimed.as_ref().and_then(|claimed| claimed.renamed.clone()) {
            sources.overrides.options.set("name", vec![name]);
            config = resolve(&sources).map_err(StartError::usage)?;
        }
        cgroups::end_leftovers(&self.cx);
        let mut given = Given::new(inherited.fds);
        let mut prepared = Vec::new();
        for app in &config.apps {
            let settings = Settings::prepare(&self.cx.system, app.clone(), 1, None).map_err(StartError::failed)?;
            log_files::check(&self.cx.system, &settings, app.workers_most(self.cx.system.cpus().count))
                .map_err(StartError::failed)?;
            prepared.push(settings);
        }
        // Bind every address before any process starts: a taken port is one clear error, and nothing has happened yet.
        let mut bound = Vec::new();
        for settings in &prepared {
            if launch.keeps_stopped(&settings.config) {
                bound.push(Vec::new());
                continue;
            }
            bound.push(given.bind_all(&self.cx.system, settings, config.apps.len() == 1)?);
        }
        let given_names = given.end(&self.cx.system);
        let tcp = config.control.clone().map(|control| Tcp::bind(&self.cx.system, control));
        let tcp = tcp.transpose().map_err(StartError::failed)?;
        let check = config.agent_check.map(|at| control::bind(&self.cx.system, at).map(|socket| (socket, at)));
        let check = check.transpose().map_err(StartError::failed)?;
        // Not earlier: whoever finds the socket may rely on the start.
        if let Some(claimed) = claimed {
            self.open_control(&claimed.claim);
        }
        if let Some(tcp) = tcp {
            self.control.serve_tcp(&mut self.cx, tcp);
        }
        if let Some((socket, address)) = check {
            self.control.serve_agent_check(&mut self.cx, socket, address);
        }
        reload::remember_sources(&mut self.cx, 1, sources);
        for (settings, bound) in prepared.into_iter().zip(bound) {
            let stopped = launch.keeps_stopped(&settings.config);
            let slots = launch.scaled(&settings.config.name);
            self.begin_app(settings, bound, slots);
            if let Some(app) = self.cx.apps.last_mut() {
                app.starting = !stopped;
            }
        }
        // The keeper holds by its own name what is used; the rest is closed.
        given_names.into_iter().for_each(|name| self.cx.keeper.send(Order::Release { name }));
        self.cx.keeper.send(Order::Ready);
        self.start_apps();
        stop_report::tell_at_start(&self.cx);
        Ok(())
    }

    fn begin_app(&mut self, settings: Settings, bound: Vec<Bound>, scaled: Option<u32>) {
        if let Some(advice) = &settings.advice {
            log::warn!("{}: {advice}", settings.config.name);
        }
        settings.warn_of_hooks();
        let slots = scaled.unwrap_or_else(|| settings.config.workers.count(self.cx.system.cpus().count));
        let slots = slots.clamp(1, limits::WORKERS_MAX);
        let rules = supervisor::App::new(Generation(1), settings.policy(), slots);
        let first_seq = self.cx.deployment.first_seq();
        let mut app = App::new(settings.config.name.clone(), rules, settings, first_seq);
        if scaled.is_some() {
            autoscale::start_by_hand(&mut app);
        }
        let ix = self.cx.apps.push(app);
        given::add_listeners(&mut self.cx, &mut self.kernel_mode.groups, ix, bound);
    }

    fn start_apps(&mut self) {
        let starting: Vec<_> = self.cx.apps.indices().filter(|ix| self.cx.apps[*ix].starting).collect();
        for ix in self.cx.apps.indices() {
            if !self.cx.apps[ix].starting {
                self.stop_app(ix, StopMode::Now);
                continue;
            }
            narration::log_start(&self.cx.apps[ix]);
            releases::begin(&mut self.cx, ix, Generation(1));
            if dependencies::depends(&self.cx, ix, Generation(1), &starting) {
                self.cx.apps[ix].supervisor.hold(Generation(1));
            }
            let mut actions = Vec::new();
            let mut cx = Cx { now_ms: self.cx.now_ms, next_worker: &mut self.cx.next_worker, actions: &mut actions };
            self.cx.apps[ix].supervisor.start(&mut cx);
            self.carry_out(ix, actions);
        }
    }

    /// Claims the deployment's name. `None` if there is no usable home.
    fn claim(&mut self, launch: &Launch, sources: &Sources, config: &Config) -> Result<Option<Claimed>, StartError> {
        match self.claim_name(launch, sources, config) {
            Ok((claim, entry)) => {
                self.cx.deployment.name.clone_from(&claim.name);
                self.cx.keeper.hold(CONTROL_LOCK.to_owned(), claim.lock.as_fd());
                self.cx.deployment.background = entry.background;
                self.cx.deployment.ids = entry.apps.iter().map(|app| (app.name.clone(), app.id)).collect();
                let renamed = match (config.apps.as_slice(), entry.apps.as_slice()) {
                    ([wanted], [got]) if wanted.name != got.name => Some(got.name.clone()),
                    _ => None,
                };
                Ok(Some(Claimed { claim, renamed }))
            }
            // In the background nothing but the control socket could end it again.
            Err(e) if e.is_unusable_home() && matches!(launch, Launch::Foreground { .. }) => {
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
                self.cx.keeper.hold(CONTROL_SOCKET.to_owned(), socket.as_fd());
                self.control.serve(&self.cx, socket);
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
            // The starter has planned the start and holds the registry.
            Launch::Background { home, entry } => {
                let home = Home::find(Some(home))?;
                let claim = home.claim(&entry.name)?;
                (home, (claim, home::Entry::clone(entry)))
            }
            Launch::Foreground { home } => {
                let (name, explicit) = home::deployment_name(sources, config);
                self.cx.deployment.name.clone_from(&name);
                let home = Home::find(home.as_deref())?;
                let names: Vec<String> = config.apps.iter().map(|app| app.name.clone()).collect();
                let registry = home.registry()?;
                let entry = registry.plan(&name, explicit, &names)?;
                let claim = registry.claim(&entry)?;
                drop(registry);
                (home, (claim, entry))
            }
        };
        self.cx.deployment.home = Some(home);
        Ok(claimed)
    }

    // ---- the end ----

    /// Ends the deployment: the keeper may exit.
    pub(super) fn finish(&mut self) {
        if self.cx.deployment.exit_code == 0 {
            log::info!("stopped");
        }
        self.cx.deployment.finished = true;
        self.hooks.finish(&self.cx.system);
        self.output.finish(&self.cx.system);
        last_words::finish(&mut self.cx);
        self.control.waiters.answer_settled(&mut self.cx);
        self.remove_files();
        self.control.drain();
        self.cx.keeper.finish(&self.cx.system, self.cx.deployment.exit_code);
    }

    /// Removes our socket files. The keeper holds the control socket's lock until it exits, so the path is still ours.
    fn remove_files(&mut self) {
        for ix in self.cx.apps.indices() {
            let who = self.cx.apps[ix].settings().credentials().cloned();
            for listener_ix in self.cx.apps[ix].listeners.indices() {
                if !addresses::outlives_us(&self.cx, ix, &self.cx.apps[ix].listeners[listener_ix]) {
                    self.cx.apps[ix].listeners[listener_ix].remove_file(&self.cx.system, who.as_ref());
                }
            }
        }
        for ix in self.cx.apps.indices() {
            let app = &self.cx.apps[ix];
            if app.settings().config.metrics == Metrics::Python {
                let names = app_metrics::names(&self.cx, ix);
                let home = self.cx.deployment.home.as_ref();
                self.cx.system.remove_metrics_folders(app.settings().credentials(), home, &names);
            }
        }
        for path in self.control.take_path().into_iter().chain(self.notify.files()) {
            // The file may have been removed already.
            let _ = self.cx.system.remove_file(&path);
        }
        if let Some(home) = self.cx.deployment.home.as_ref().filter(|_| self.started_by_us()) {
            home.remove_entry(&self.cx.deployment.name);
        }
    }

    /// Whether we remove the entry: after a failed start in the background the starter removes it.
    fn started_by_us(&self) -> bool {
        !self.cx.deployment.background || !self.cx.apps.is_empty()
    }
}

/// A claimed name.
struct Claimed {
    claim: home::Claim,
    /// The new name of the only app, if its own was taken.
    renamed: Option<String>,
}

/// How this deployment was started.
pub(super) enum Launch {
    /// By a person, a unit or a container.
    Foreground {
        /// The home, if one was named.
        home: Option<PathBuf>,
    },
    /// By `clusterd start`, which wrote the entry.
    Background { home: PathBuf, entry: Box<home::Entry> },
}

impl Launch {
    /// The number of workers to which an app was scaled.
    fn scaled(&self, app: &str) -> Option<u32> {
        match self {
            Launch::Foreground { .. } => None,
            Launch::Background { entry, .. } => entry.apps.iter().find(|a| a.name == app).and_then(|a| a.workers),
        }
    }

    /// Whether an app is kept without being started.
    fn keeps_stopped(&self, app: &config::App) -> bool {
        match self {
            Launch::Foreground { .. } => !app.autostart,
            Launch::Background { entry, .. } => entry.apps.iter().any(|a| a.name == app.name && a.stopped),
        }
    }
}

/// What was typed, with the values of variables that the command line lacks, for others read it.
fn with_all_arguments(system: &impl System, typed: CommandLine, inherited: &Inheritance) -> CommandLine {
    let Some(file) = inherited.fds.get(ARGUMENTS) else { return typed };
    match system.contents(file.as_fd(), limits::SOURCES_BYTES_MAX) {
        Ok(bytes) => {
            let args = bytes.strip_suffix(&[0]).unwrap_or(&bytes).split(|byte| *byte == 0);
            let args = args.map(|arg| OsString::from_vec(arg.to_vec()));
            CommandLine { argv: typed.argv.iter().take(1).cloned().chain(args).collect(), ..typed }
        }
        Err(e) => {
            log::error!("cannot read the command line that the keeper holds: {e}");
            typed
        }
    }
}

/// How the deployment was started, and from what.
pub(super) fn launch(typed: &CommandLine) -> Result<(Launch, Sources), StartError> {
    if let [_, flag, home, name] = typed.argv.as_slice()
        && flag == BACKGROUND_FLAG
    {
        let home = PathBuf::from(home);
        let entry = Home::find(Some(&home)).and_then(|home| home.entry(&name.to_string_lossy()));
        let mut entry = entry.map_err(StartError::failed)?;
        let no_sources = || StartError::failed("its entry does not say what to run");
        let mut sources = entry.sources.take().ok_or_else(no_sources)?;
        if sources.file.is_some() {
            // The file's apps, without deleted ones.
            sources.overrides.only = entry.apps.iter().map(|app| app.name.clone()).collect();
        }
        return Ok((Launch::Background { home, entry: Box::new(entry) }, sources));
    }
    let Run { request, home } = (typed.read)(&typed.argv).map_err(StartError::usage)?;
    let sources =
        loader::load(&request).map_err(|e| if e.is_usage() { StartError::usage(e) } else { StartError::failed(e) })?;
    loader::notes(&sources, None).iter().for_each(|note| log::warn!("{note}"));
    Ok((Launch::Foreground { home }, sources))
}
