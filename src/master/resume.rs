//! A master that goes on from what a former one left with the keeper: its notes, its sockets, its workers. A fresh start
//! is in `start`.
use super::app::App;
use super::keeper::Keeper;
use super::listener::{held_name, slot_name};
use super::memory::{AppNote, DeploymentNote, ListenerNote, ServesNote, SlotNote, WorkerNote};
use super::mend::{Ground, mend};
use super::output::Way;
use super::reload::resolve;
use super::settings::{Fixed, Settings};
use super::start::{BACKGROUND_FLAG, CONTROL_SOCKET, CommandLine, NOTIFY, StartError, launch};
use super::worker::Goodbye;
use super::{Master, notes, spawn};
use crate::config::Listen;
use crate::config::sources::Sources;
use crate::home::{self, Home};
use crate::ids::{AppIx, Generation, WorkerId};
use crate::keeper::link::{ChildInfo, Inheritance};
use crate::keeper::protocol::Order;
use crate::limits;
use crate::os::listen::{self, LocalAddress};
use crate::os::{cpu, memfd};
use crate::supervisor::{self, Action, Cx};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

impl Master {
    /// `typed` is for the case that nothing else says what is to run.
    pub(super) fn resume(
        link: Keeper,
        inherited: Inheritance,
        typed: &CommandLine,
    ) -> Result<Master, (Keeper, StartError)> {
        let mut master = Master::empty(link, &inherited)?;
        match master.resume_all(inherited, typed) {
            Ok(()) => Ok(master),
            Err(error) => {
                let error = master.cannot_go_on(error);
                Err((master.cx.keeper, error))
            }
        }
    }

    /// What to say of it, with the way out.
    fn cannot_go_on(&self, error: StartError) -> StartError {
        let StartError { message, code } = error;
        let keeper = self.keeper_pid;
        let message = format!(
            "{message}\nthe workers go on with what they have, and nobody accepts for them; the next try follows. To \
             end everything: kill -QUIT {keeper}"
        );
        StartError { message, code }
    }

    fn resume_all(&mut self, mut inherited: Inheritance, typed: &CommandLine) -> Result<(), StartError> {
        self.notes.inherit(inherited.notes.iter().map(|(key, value)| (key.clone(), value.clone())));
        self.resume_sources(&mut inherited);
        let background = typed.argv.get(1).is_some_and(|flag| flag == BACKGROUND_FLAG);
        if self.cx.deployment.sources.is_empty() {
            self.read_sources_again(&inherited, typed)?;
        }
        self.mend_notes(&mut inherited, background);
        let note = read_note::<DeploymentNote>(&inherited, notes::DEPLOYMENT)
            .ok_or_else(|| StartError::failed("the former master's notes cannot be read"))?;
        self.cx.deployment.name = note.name;
        self.cx.deployment.background = note.background;
        self.cx.deployment.home = note.home.and_then(|path| Home::find(Some(Path::new(&path))).ok());
        self.cx.deployment.ids = note.ids;
        self.cx.deployment.started_ms = note.started_ms;
        self.cx.deployment.stop_asked = note.stop_asked;
        self.cx.deployment.exit_code = note.exit_code;
        self.next_worker = note.worker_ids_below;
        self.cx.deployment.last_source = note.last_source;
        let previous_end = inherited.previous_end.clone();
        if let (Some(socket), Some(name)) = (inherited.fds.remove(NOTIFY), note.notify) {
            self.take_notify(socket, name);
        }
        if let Some(socket) = inherited.fds.remove(CONTROL_SOCKET) {
            self.serve_control(UnixListener::from(socket));
        }
        let mut actions = Vec::new();
        for ix in (0..limits::APPS_MAX).map(AppIx) {
            let Some(app) = read_note::<AppNote>(&inherited, &format!("{}{ix}", notes::APP)) else { break };
            actions.push(self.resume_app(ix, &app, &mut inherited)?);
        }
        self.resume_log_files(&mut inherited);
        self.kill_strangers(&inherited);
        self.resume_upgrade(note.upgrade, &previous_end);
        self.keeper_is(inherited.about.clone());
        self.release_unclaimed(&inherited);
        self.cx.keeper.send(Order::Ready);
        for (ix, actions) in self.cx.apps.indices().zip(actions) {
            self.carry_out(ix, actions);
        }
        for child in inherited.children.into_iter() {
            if let Some(status) = child.status {
                self.on_exited(child.worker, status, self.cx.now_ms);
            }
        }
        for ix in self.cx.workers.indices() {
            self.read_channel(ix, true);
        }
        self.ask_again();
        for ix in self.cx.apps.indices() {
            self.greet_all(ix);
        }
        Ok(())
    }

    /// Takes the configurations that can be read; what the keeper holds of others is given up.
    fn resume_sources(&mut self, inherited: &mut Inheritance) {
        let names: Vec<String> = inherited.fds.keys().filter(|name| name.starts_with("source/")).cloned().collect();
        for name in names {
            let Some(fd) = inherited.fds.remove(&name) else { continue };
            let Some(source) = name.strip_prefix("source/").and_then(|n| n.parse::<u32>().ok()) else { continue };
            let sources = memfd::contents(fd.as_fd(), limits::SOURCES_BYTES_MAX)
                .and_then(|json| serde_json::from_slice::<Sources>(&json).map_err(io::Error::other))
                .map_err(|e| e.to_string())
                .and_then(|sources| resolve(&sources).map(|_| sources));
            match sources {
                Ok(sources) => {
                    self.cx.deployment.sources.insert(source, sources);
                }
                Err(e) => {
                    log::error!("the former master's copy of the configuration ({name}) cannot be read: {e}");
                    self.cx.keeper.send(Order::Release { name });
                }
            }
        }
    }

    /// No copy can be read: what was typed, and the files that it names, as they are now.
    fn read_sources_again(&mut self, inherited: &Inheritance, typed: &CommandLine) -> Result<(), StartError> {
        let read = launch(typed).and_then(|(_, sources)| {
            resolve(&sources).map_err(StartError::failed)?;
            Ok(sources)
        });
        let sources = read.map_err(|e| {
            let message =
                format!("the former master left no readable configuration, and there is none now: {}", e.message);
            StartError { message, code: e.code }
        })?;
        let note = read_note::<DeploymentNote>(inherited, notes::DEPLOYMENT).unwrap_or_default();
        log::warn!("the configuration is read again: the former master left no readable copy of it");
        self.hold_sources(note.last_source + 1, sources);
        Ok(())
    }

    /// What cannot be read of the notes is made up, and the keeper gets it like that.
    fn mend_notes(&mut self, inherited: &mut Inheritance, background: bool) {
        let configs =
            self.cx.deployment.sources.iter().filter_map(|(number, sources)| Some((*number, resolve(sources).ok()?)));
        let ground = Ground {
            children: &inherited.children,
            held: inherited.fds.keys().cloned().collect(),
            configs: configs.collect(),
            cpus: cpu::available().count,
            now_ms: self.cx.now_ms,
        };
        let mended = mend(&mut inherited.notes, &ground, |last_source, above| {
            self.make_deployment(&inherited.fds, &inherited.children, last_source, above, background)
        });
        for line in mended.told.iter().take(limits::NOTES_TOLD_MAX) {
            log::error!("{line}");
        }
        if mended.told.len() > limits::NOTES_TOLD_MAX {
            log::error!("... and {} notes more", mended.told.len() - limits::NOTES_TOLD_MAX);
        }
        for key in mended.changed {
            let value = inherited.notes.get(&key).cloned();
            self.notes.replace(&mut self.cx.keeper, key, value);
        }
    }

    /// The deployment as a whole, from the control socket's path, the entry beside it, and the configuration.
    fn make_deployment(
        &self,
        fds: &HashMap<String, OwnedFd>,
        children: &[ChildInfo],
        last_source: u32,
        above: u64,
        background: bool,
    ) -> DeploymentNote {
        let control = fds.get(CONTROL_SOCKET).and_then(|fd| match listen::local_address(fd.as_fd()) {
            Ok(LocalAddress::Unix(path)) => Some(path),
            Ok(LocalAddress::Inet(_) | LocalAddress::Other) | Err(_) => None,
        });
        let by_socket = control.as_ref().and_then(|path| Some(path.file_stem()?.to_string_lossy().into_owned()));
        let by_config = || {
            let sources = self.cx.deployment.sources.get(&last_source)?;
            Some(home::deployment_name(sources, &resolve(sources).ok()?).0)
        };
        let name = by_socket.or_else(by_config).unwrap_or_default();
        let home = control.as_ref().and_then(|path| Some(path.parent()?.parent()?.to_owned()));
        let entry = home.as_ref().and_then(|home| Home::find(Some(home)).ok()?.entry(&name).ok());
        DeploymentNote {
            started_ms: children.iter().map(|child| child.started_ms).min().unwrap_or(self.cx.now_ms),
            worker_ids_below: above + limits::WORKER_IDS_RESERVED,
            last_source,
            notify: fds.get(NOTIFY).and_then(|fd| listen::abstract_name(fd.as_fd()).ok()),
            background,
            home: home.map(|home| home.to_string_lossy().into_owned()),
            ids: entry.map(|entry| entry.apps.into_iter().map(|app| (app.name, app.id)).collect()).unwrap_or_default(),
            name,
            ..DeploymentNote::default()
        }
    }

    fn resume_app(
        &mut self,
        ix: AppIx,
        note: &AppNote,
        inherited: &mut Inheritance,
    ) -> Result<Vec<Action>, StartError> {
        let mut generations = BTreeMap::new();
        for (&number, generation) in &note.generations {
            let Some(sources) = self.cx.deployment.sources.get(&generation.source) else { continue };
            let config = resolve(sources).map_err(StartError::failed)?;
            let Some(app) = config.apps.into_iter().find(|a| a.name == note.name) else { continue };
            let fixed = Fixed {
                cwd: PathBuf::from(&generation.cwd),
                program: PathBuf::from(&generation.program),
                agent_program: generation.agent_program.as_ref().map(PathBuf::from),
            };
            // A note that was made up does not know them.
            let fixed = Some(fixed).filter(|_| !generation.program.is_empty());
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
        let mut cx = Cx { now_ms: self.cx.now_ms, next_worker: &mut self.next_worker, actions: &mut actions };
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
        // The master before said so.
        app.steering_told = true;
        let mode = super::app::balance_mode(app.settings().config.balance);
        app.balancer.set_mode(mode);
        self.cx.apps.push(app);
        self.resume_listeners(ix, inherited);
        for worker in known {
            let Some(&pid) = pids.get(&worker.id) else { continue };
            let channel = inherited.fds.remove(&spawn::channel_name(worker.id)).map(|fd| (fd, true));
            self.add_worker(ix, worker.id, worker.slot, worker.generation, Some(pid), channel);
            self.resume_serves(ix, worker.id, inherited);
            let config = &self.cx.apps[ix].settings().config;
            let way = Way { config, slot: worker.slot, generation: worker.generation, tail: false };
            self.output.adopt(worker.id, &way, &mut inherited.fds);
        }
        self.resume_agent(ix, &pids, inherited);
        Ok(actions)
    }

    fn resume_log_files(&mut self, inherited: &mut Inheritance) {
        let pids: HashMap<WorkerId, i32> = inherited.children.iter().map(|c| (c.worker, c.pid)).collect();
        let apps = &self.cx.apps;
        let config_of = |name: &str, generation| {
            let (ix, app) = apps.entries().find(|(_, app)| app.name == name)?;
            Some((ix, &app.generations.get(&generation).unwrap_or_else(|| app.settings()).config))
        };
        let pid_of = |worker| pids.get(&worker).copied();
        self.output.files.resume(&mut self.cx.keeper, &mut inherited.fds, config_of, pid_of);
    }

    fn resume_listeners(&mut self, ix: AppIx, inherited: &mut Inheritance) {
        let name = self.cx.apps[ix].name.clone();
        let mut found = notes_of::<ListenerNote>(inherited, &format!("{}{name}/", notes::LISTENER));
        found.sort_by_key(|l| l.order);
        let configured: Vec<Listen> =
            self.cx.apps[ix].generations.values().flat_map(|s| s.config.listen.clone()).collect();
        for note in found {
            let Some(fd) = inherited.fds.remove(&held_name(&name, &note.key)) else { continue };
            let address = note.configured.and_then(|text| configured.iter().find(|l| l.to_string() == text).cloned());
            let sockets = (1..note.sockets).map_while(|n| inherited.fds.remove(&slot_name(&name, &note.key, n)));
            let sockets: Vec<OwnedFd> = sockets.collect();
            let listener = self.add_listener(ix, fd, note.key, address);
            self.cx.apps[ix].listeners[listener].data = note.data;
            if note.sockets > 0 {
                self.resume_group(ix, listener, sockets, note.full);
                self.note_listener(ix, listener);
            }
        }
    }

    /// The listeners that a worker served go on being its own.
    pub(super) fn resume_serves(&mut self, app_ix: AppIx, worker: WorkerId, inherited: &Inheritance) {
        let note: ServesNote = read_note(inherited, &format!("{}{worker}", notes::SERVES)).unwrap_or_default();
        let Some(ix) = self.cx.workers.find(worker) else { return };
        if let Some(worker) = self.cx.workers.get_mut(ix) {
            worker.taken_before = note.taken;
            worker.greeted = note.greeted;
            if note.goodbye {
                worker.goodbye = Goodbye::SaidBefore;
            }
        }
        for key in note.keys {
            if let Some(listener) = self.cx.apps[app_ix].listeners.find(|l| l.key == key) {
                self.join(ix, listener);
            }
        }
        self.note_serves(ix);
    }

    /// Processes that the notes do not know have no place: they are ended.
    fn kill_strangers(&mut self, inherited: &Inheritance) {
        for child in &inherited.children {
            if child.status.is_none() && self.cx.workers.find(child.worker).is_none() {
                log::warn!("worker {} (pid {}) is in no note of the former master; killed", child.worker, child.pid);
                self.kill(child.worker);
            }
        }
    }

    /// What a worker that is no more had with the keeper: the former master died before it could let go of it.
    fn release_unclaimed(&mut self, inherited: &Inheritance) {
        let ours = |name: &&String| ["channel/", "output/", "slot/"].iter().any(|kind| name.starts_with(kind));
        for name in inherited.fds.keys().filter(ours) {
            self.cx.keeper.send(Order::Release { name: name.clone() });
        }
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
