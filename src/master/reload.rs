//! The shell's part of a reload: read the configuration again, look everything up, bind what is new. All of it happens
//! before the first worker is touched, so that a mistake costs nothing. The rolling itself is the supervisor's.
use super::Master;
use super::app::balance_mode;
use super::kernel_mode::groups::{self, prepare_for_workers};
use super::reading::Input;
use super::settings::Settings;
use super::{checkpoint, listener, log_files, requests};
use crate::config::sources::Sources;
use crate::config::{self, Config, Listen};
use crate::ids::{AppIx, Generation, ListenerIx};
use crate::keeper::protocol::Order;
use crate::loader;
use crate::os::{cpu, memfd};
use crate::supervisor::{Event, Policy};
use crate::worker::WorkerProtocol;
use std::os::fd::{AsFd, OwnedFd};

/// The name under which the keeper holds what a generation was made from.
fn source_name(source: u32) -> String {
    format!("source/{source}")
}

/// A generation that is ready to be: the app, its number, its policy and its number of slots.
type Prepared = (AppIx, Generation, Policy, u32);

impl Master {
    /// What the configuration says now, without doing anything about it.
    pub(super) fn configured_again(&self, input: Input) -> Result<Config, String> {
        resolve(&self.sources_again(input)?)
    }

    /// Whether the deployment came from a file.
    pub(super) fn has_file(&self) -> bool {
        self.cx.deployment.sources.get(&self.cx.deployment.last_source).is_some_and(|s| s.file.is_some())
    }

    /// What was typed, its files read again, or what is to take its place.
    fn sources_again(&self, input: Input) -> Result<Sources, String> {
        let change = match input {
            Input::Read(read) => return read.map(|sources| *sources),
            Input::Change(change) => change,
        };
        if let Some(sources) = change.sources {
            return Ok(Sources { background: self.cx.deployment.background, ..*sources });
        }
        let previous = self
            .cx
            .deployment
            .sources
            .get(&self.cx.deployment.last_source)
            .ok_or("the configuration it runs from is not known")?;
        let again = loader::reload(previous).map_err(|e| e.to_string())?;
        Ok(Sources { base_env: change.env.or(again.base_env), ..again })
    }

    /// Gets a new generation ready for each of these apps. Nothing has changed when this fails.
    pub(super) fn prepare_reload(
        &mut self,
        apps: &[AppIx],
        input: Input,
    ) -> Result<Vec<(AppIx, Generation, Event)>, String> {
        if let Some(why) = apps.iter().find_map(|&ix| self.refusal_while_stopped(ix)) {
            return Err(why);
        }
        let prepared = self.prepare_generations(apps, input)?;
        let reload = |(ix, to, policy, slots)| (ix, to, Event::Reload { to, policy, slots });
        Ok(prepared.into_iter().map(reload).collect())
    }

    /// Gets the start of an app ready: what it needs is looked up and bound anew. Nothing has changed when this fails.
    pub(super) fn prepare_start(&mut self, ix: AppIx, input: Input) -> Result<(), String> {
        let prepared = self.prepare_generations(&[ix], input)?;
        for (ix, to, policy, slots) in prepared {
            self.cx.apps[ix].starting = true;
            self.cx.apps[ix].start_failure = None;
            self.cx.events.push_back((ix, Event::Start { to, policy, slots }));
        }
        Ok(())
    }

    fn prepare_generations(&mut self, apps: &[AppIx], input: Input) -> Result<Vec<Prepared>, String> {
        let is_new = matches!(&input, Input::Change(change) if change.sources.is_some());
        let sources = self.sources_again(input)?;
        let config = resolve(&sources)?;
        self.refuse_other_apps(&config)?;
        // A file that is read again has the last word; a command line cannot have changed since somebody scaled.
        let keeps_scale = sources.file.is_none() && !is_new;
        let source = self.cx.deployment.sources.keys().next_back().map_or(1, |last| last + 1);
        let mut prepared = Vec::new();
        for &ix in apps {
            let name = &self.cx.apps[ix].name;
            let app = config.apps.iter().find(|a| &a.name == name).cloned();
            let app = app.ok_or_else(|| format!("{name} is no longer in the configuration"))?;
            let settings = Settings::prepare(app, source, None).map_err(|e| format!("{name}: {e}"))?;
            log_files::check(&settings.config, settings.config.workers.count(cpu::available().count))?;
            settings.warn_of_hooks();
            let bound = self.bind_new(ix, &settings.config.listen)?;
            prepared.push((ix, settings, bound));
        }
        self.remember_sources(source, sources);
        Ok(prepared
            .into_iter()
            .map(|(ix, settings, bound)| self.commit_generation(ix, settings, bound, keeps_scale))
            .collect())
    }

    /// Apps that came or went need a start of their own: a reload replaces what runs.
    fn refuse_other_apps(&self, config: &Config) -> Result<(), String> {
        let unknown: Vec<&str> = config
            .apps
            .iter()
            .map(|a| a.name.as_str())
            .filter(|name| !self.cx.apps.iter().any(|a| a.name == *name))
            .collect();
        if unknown.is_empty() {
            return Ok(());
        }
        Err(format!(
            "the configuration names {} that did not run before; a reload replaces apps that run: restart clusterd to \
             add one",
            unknown.join(", ")
        ))
    }

    /// Binds the addresses that an app does not hold yet.
    fn bind_new(&self, ix: AppIx, wanted: &[Listen]) -> Result<Vec<(Listen, OwnedFd)>, String> {
        let app = &self.cx.apps[ix];
        let mut bound = Vec::new();
        for address in wanted {
            if !app.listeners.iter().any(|l| l.serves(address)) {
                let fd = listener::bind_configured(address).map_err(|e| format!("{}: {e}", app.name))?;
                bound.push((address.clone(), fd));
            }
        }
        Ok(bound)
    }

    fn commit_generation(
        &mut self,
        ix: AppIx,
        settings: Settings,
        bound: Vec<(Listen, OwnedFd)>,
        keeps_scale: bool,
    ) -> Prepared {
        let first_seq = self.cx.deployment.first_seq();
        let app = &mut self.cx.apps[ix];
        let to = Generation(app.last_generation.0 + 1);
        app.last_generation = to;
        if app.supervisor.is_stopped() {
            app.forget_past(first_seq);
        }
        for (address, fd) in bound {
            self.add_configured_listener(ix, address, fd, settings.protocol);
        }
        let app = &mut self.cx.apps[ix];
        let slots = match keeps_scale {
            true => app.supervisor.slot_count(),
            false => settings.config.workers.count(cpu::available().count),
        };
        let policy = settings.policy();
        app.balancer.set_mode(balance_mode(settings.config.balance));
        app.generations.insert(to, settings);
        (ix, to, policy, slots)
    }

    /// Takes a configured address into the app.
    pub(super) fn add_configured_listener(
        &mut self,
        ix: AppIx,
        address: Listen,
        fd: OwnedFd,
        protocol: &dyn WorkerProtocol,
    ) -> ListenerIx {
        let key = format!("{}#{}", address, self.cx.apps[ix].listeners.len());
        let blocking = protocol.wants_blocking_sockets();
        let no_tcp = matches!(address, Listen::Unix(_));
        if let Err(e) = prepare_for_workers(fd.as_fd(), blocking, no_tcp) {
            log::warn!("cannot make {address} blocking, or set TCP_NODELAY on it: {e}");
        }
        let listener_ix = requests::add_listener(&mut self.cx, ix, fd, key, Some(address));
        let app = &self.cx.apps[ix];
        log::info!("{}: listening on {}", app.name, app.listeners[listener_ix]);
        listener_ix
    }

    /// Keeps what a generation was made from where a successor finds it.
    pub(super) fn remember_sources(&mut self, source: u32, sources: Sources) {
        self.hold_sources(source, sources);
        self.cx.deployment.last_source = source;
        checkpoint::save_deployment(&mut self.cx);
    }

    /// The same, without a word of it in the notes.
    pub(super) fn hold_sources(&mut self, source: u32, sources: Sources) {
        match serde_json::to_vec(&sources)
            .map_err(std::io::Error::other)
            .and_then(|json| memfd::with_contents("source", &json))
        {
            Ok(fd) => self.cx.keeper.hold(source_name(source), fd.as_fd()),
            Err(e) => log::error!("cannot keep a copy of the configuration for a later master: {e}"),
        }
        self.cx.deployment.sources.insert(source, sources);
    }

    /// A reload has failed: the next one begins with what serves, not with what did not.
    pub(super) fn forget_failed_sources(&mut self) {
        let serving = self.cx.apps.iter().filter(|app| !app.deleted).map(|app| app.settings().source).max();
        if let Some(source) = serving.filter(|source| self.cx.deployment.sources.contains_key(source)) {
            self.cx.deployment.last_source = source;
            checkpoint::save_deployment(&mut self.cx);
        }
    }

    /// After a reload: settings, sources and addresses that nothing uses any more.
    pub(super) fn drop_old_generations(&mut self, ix: AppIx) {
        // A reload that was asked for a moment ago is not yet known to the supervisor.
        let asked = self.cx.events.iter().filter_map(|(app, event)| match event {
            Event::Reload { to, .. } | Event::Start { to, .. } if *app == ix => Some(*to),
            _ => None,
        });
        let app = &mut self.cx.apps[ix];
        let mut used = app.supervisor.generations();
        used.extend(asked);
        app.generations.retain(|generation, _| used.contains(generation));
        let wanted = app.settings().config.listen.clone();
        let accepts = app.master_accepts();
        for listener_ix in app.listeners.indices() {
            let app = &mut self.cx.apps[ix];
            let listener = &mut app.listeners[listener_ix];
            if listener.configured.is_some() && !wanted.iter().any(|address| listener.serves(address)) {
                log::info!("{}: no longer listening on {listener}", app.name);
                self.kernel_mode.groups.release_listener(&mut self.cx, ix, listener_ix);
                self.cx.apps[ix].listeners[listener_ix].retire();
            } else if !accepts {
                listener.leave_poll(&self.cx.reactor);
            } else if !listener.present.is_empty() {
                requests::poll_listener(&mut self.cx, ix, listener_ix);
            }
        }
        groups::steer_again(&mut self.cx, ix);
        let in_use: Vec<u32> = self.cx.apps.iter().flat_map(|a| a.generations.values().map(|s| s.source)).collect();
        let last = self.cx.deployment.last_source;
        let unused: Vec<u32> = self
            .cx
            .deployment
            .sources
            .keys()
            .copied()
            .filter(|source| *source != last && !in_use.contains(source))
            .collect();
        for source in unused {
            self.cx.deployment.sources.remove(&source);
            self.cx.keeper.send(Order::Release { name: source_name(source) });
        }
        checkpoint::save_app(&mut self.cx, ix);
    }
}

/// The configuration of these sources, or every problem in it.
pub(super) fn resolve(sources: &Sources) -> Result<Config, String> {
    config::resolve::resolve(sources)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
}
