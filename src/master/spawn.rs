//! Starting, signalling and burying workers: the master's side of what the keeper does.
use super::context::Context;
use super::drains::Goodbye;
use super::liveness::Liveness;
use super::notify_sockets::Heard;
use super::output::Way;
use super::recovery::{Tag, agent_tag_bytes};
use super::relay::Receiver;
use super::settings::{Settings, SpawnPlace};
use super::worker::Worker;
use super::{Master, checkpoint, dispatch, eligibility};
use crate::ids::{AppIx, Generation, ListenerIx, Slot, WorkerId, WorkerIx};
use crate::keeper::protocol::{Order, SpawnStep};
use crate::os::{closer, listen, process, procfs, signal};
use crate::supervisor::{Event, Evidence, ExitStatus};
use crate::worker::node::channel::Channel;
use crate::worker::{Inherited, listen_fds};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use thiserror::Error;

/// The name under which the keeper holds our end of a worker's channel.
pub(super) fn channel_name(worker: WorkerId) -> String {
    format!("channel/{worker}")
}

impl Master {
    /// Has the keeper start a worker, or the agent. What goes wrong here is an event like a failure there.
    pub(super) fn spawn(&mut self, app: AppIx, worker: WorkerId, slot: Slot, generation: Generation) {
        if let Err(error) = self.try_spawn(app, worker, slot, generation) {
            let reason = error.to_string();
            self.bury(worker);
            self.cx.events.push_back((app, Event::SpawnFailed { worker, reason }));
        }
    }

    fn try_spawn(
        &mut self,
        app_ix: AppIx,
        worker: WorkerId,
        slot: Slot,
        generation: Generation,
    ) -> Result<(), SpawnError> {
        let app = &self.cx.apps[app_ix];
        let settings = app.generations.get(&generation).unwrap_or_else(|| app.settings()).clone();
        let is_agent = slot == Slot::AGENT;
        // An agent serves nothing.
        let configured = app.listeners.entries().filter(|(_, l)| l.configured.is_some() && !is_agent);
        let given: Vec<ListenerIx> = configured.map(|(ix, _)| ix).collect();
        if settings.has_own_sockets() {
            for &listener in &given {
                self.kernel_mode.groups.give_slot_a_socket(&mut self.cx, app_ix, listener, slot.0);
            }
        }
        let inherited = if is_agent { settings.agent_inherits() } else { settings.protocol.inherited() };
        let speaks = match is_agent {
            true => inherited == Inherited::Nothing,
            false => settings.protocol.variables().contains(&"NOTIFY_SOCKET"),
        };
        let notify = speaks.then(|| self.notify_address(&settings)).flatten();
        let app = &self.cx.apps[app_ix];
        // Whoever asked for a reload or a start wants to see why it failed, unless it is on the terminal before them anyway.
        let watched = app.supervisor.is_reloading() || (app.starting && self.cx.deployment.background);
        let tail = watched && !self.cx.deployment.on_terminal;
        let way = Way { config: &settings.config, slot, generation, tail };
        let output = self.output.for_worker(&mut self.cx.keeper, worker, &way).map_err(SpawnError::Output)?;
        let (stdio, mut fds): (Vec<i32>, Vec<OwnedFd>) = output.into_iter().unzip();
        let mut listen_names = Vec::new();
        let mut channel = None;
        match inherited {
            Inherited::Channel => {
                let (ours, theirs) = listen::channel_pair().map_err(SpawnError::Channel)?;
                fds.push(theirs);
                channel = Some(ours);
            }
            Inherited::Listeners => {
                for listener in given.iter().filter_map(|ix| app.listeners.get(*ix)) {
                    let copy = listener.socket_of(slot.0).try_clone_to_owned();
                    fds.push(copy.map_err(|error| SpawnError::Listener { listener: listener.to_string(), error })?);
                    listen_names.push(listen_fds::escape_name(&listener.to_string()));
                }
            }
            Inherited::Nothing => {}
        }
        let place = SpawnPlace {
            worker,
            slot,
            generation: generation.0,
            port: app.port(),
            listen_names,
            notify: notify.as_deref(),
            stdio,
        };
        let spec = if is_agent {
            settings.agent_spec(&place, agent_tag_bytes(&app.name, generation)).ok_or(SpawnError::NoAgent)?
        } else {
            let tag = Tag { app: app.name.clone(), slot, generation };
            settings.spawn_spec(&place, tag.to_bytes())
        };
        if let Some(ours) = &channel {
            self.cx.keeper.hold(channel_name(worker), ours.as_fd());
        }
        let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        self.cx.keeper.spawn(worker, &spec, &borrowed).map_err(SpawnError::Order)?;
        let has_channel = channel.is_some();
        let ix = self.add_worker(app_ix, worker, slot, generation, None, channel.map(|fd| (fd, false)));
        if !has_channel && !is_agent && settings.has_own_sockets() {
            // What a Node worker asks for later, others have from the start.
            given.into_iter().for_each(|listener| self.join(ix, listener));
            checkpoint::save_serves(&mut self.cx, ix);
        }
        Ok(())
    }

    /// The variables that a worker in the first slot of an app has.
    pub(super) fn worker_environment(&self, app_ix: AppIx) -> BTreeMap<OsString, OsString> {
        let app = &self.cx.apps[app_ix];
        let first = app.supervisor.workers().find(|w| w.slot == Slot(0));
        let place = SpawnPlace {
            worker: first.as_ref().map_or(WorkerId(0), |w| w.id),
            slot: Slot(0),
            generation: app.supervisor.generation().0,
            port: app.port(),
            listen_names: Vec::new(),
            notify: None,
            stdio: Vec::new(),
        };
        app.settings().environment(&place)
    }

    /// The variables that the agent of an app has; `None`: it has none.
    pub(super) fn agent_environment(&self, app_ix: AppIx) -> Option<BTreeMap<OsString, OsString>> {
        let app = &self.cx.apps[app_ix];
        app.settings().agent.as_ref()?;
        let slot = app.supervisor.agent();
        let place = SpawnPlace {
            worker: slot.as_ref().and_then(|slot| slot.current).map_or(WorkerId(0), |process| process.id),
            slot: Slot::AGENT,
            generation: slot.map_or(app.supervisor.generation(), |slot| slot.generation).0,
            port: app.port(),
            listen_names: Vec::new(),
            notify: self.notify.address_of(app.settings().uid()),
            stdio: Vec::new(),
        };
        Some(app.settings().agent_environment(&place))
    }

    /// Takes a worker into the tables, with its channel when it has one (`resumed`: from a former master).
    pub(super) fn add_worker(
        &mut self,
        app: AppIx,
        id: WorkerId,
        slot: Slot,
        generation: Generation,
        pid: Option<i32>,
        channel: Option<(OwnedFd, bool)>,
    ) -> WorkerIx {
        let is_agent = slot == Slot::AGENT;
        if !is_agent {
            self.hooks.know(id, generation);
        }
        let settings = self.cx.apps[app].generations.get(&generation);
        // An agent is no slot.
        let own_socket = !is_agent && settings.is_some_and(Settings::has_own_sockets);
        let channel = channel.map(|(fd, resumed)| Channel::new(fd, resumed));
        let has_channel = channel.is_some();
        let ix = self.cx.workers.insert(Worker {
            id,
            app,
            slot: slot.0,
            generation,
            is_agent,
            pid,
            channel,
            member: None,
            serves: BTreeSet::new(),
            unnoted: false,
            present: BTreeSet::new(),
            own_socket,
            takes: BTreeSet::new(),
            admitted: false,
            drain: None,
            goodbye: Goodbye::Unsaid,
            severed_ms: None,
            taken: 0,
            taken_before: 0,
            liveness: Liveness::default(),
            status_text: None,
            receiver: Receiver::default(),
            readiness_probe: None,
        });
        if is_agent {
            if let Some(channel) = self.cx.workers.get(ix).and_then(|w| w.channel.as_ref()) {
                self.cx.reactor.add_channel(ix, channel.as_fd());
            }
        } else if has_channel {
            let app = &mut self.cx.apps[app];
            let member = app.balancer.add_member(slot.0);
            let place = member.0 as usize;
            if app.by_member.len() <= place {
                app.by_member.resize(place + 1, ix);
            }
            app.by_member[place] = ix;
            if let Some(worker) = self.cx.workers.get_mut(ix) {
                worker.member = Some(member);
                if let Some(channel) = &worker.channel {
                    self.cx.reactor.add_channel(ix, channel.as_fd());
                }
            }
            eligibility::refresh(&mut self.cx, ix);
        }
        ix
    }

    pub(super) fn serve(&mut self, worker: WorkerId) {
        let Some(ix) = self.cx.workers.find(worker) else { return };
        if let Some(worker) = self.cx.workers.get_mut(ix) {
            worker.admitted = true;
        }
        eligibility::refresh(&mut self.cx, ix);
    }

    pub(super) fn terminate(&mut self, worker: WorkerId) {
        self.cx.keeper.signal(worker, signal::TERM);
        self.admit_no_more(worker);
    }

    pub(super) fn admit_no_more(&mut self, worker: WorkerId) {
        if let Some(ix) = self.cx.workers.find(worker) {
            // Whatever made it end, it gets nothing more.
            if let Some(w) = self.cx.workers.get_mut(ix) {
                w.admitted = false;
            }
            eligibility::refresh(&mut self.cx, ix);
        }
    }

    pub(super) fn kill(&mut self, worker: WorkerId) {
        self.cx.keeper.signal_group(worker, signal::KILL);
        self.admit_no_more(worker);
    }

    pub(super) fn on_spawned(&mut self, id: WorkerId, pid: i32) {
        let Some(ix) = self.cx.workers.find(id) else { return };
        self.cx.workers.set_pid(ix, pid);
        let Some(worker) = self.cx.workers.get(ix) else { return };
        let (app, generation) = (&self.cx.apps[worker.app], worker.generation);
        let settings = app.generations.get(&generation).unwrap_or_else(|| app.settings());
        self.output.files.spawned(id, pid, worker.app, &settings.config);
        self.cx.events.push_back((worker.app, Event::Spawned { worker: id, pid }));
    }

    pub(super) fn on_spawn_failed(&mut self, id: WorkerId, step: SpawnStep, code: i32) {
        let Some(worker) = self.cx.workers.find(id).and_then(|ix| self.cx.workers.get(ix)) else { return };
        let app = worker.app;
        let settings =
            self.cx.apps[app].generations.get(&worker.generation).unwrap_or_else(|| self.cx.apps[app].settings());
        let reason = SpawnError::at_step(step, code, settings, worker.is_agent).to_string();
        self.bury(id);
        self.cx.events.push_back((app, Event::SpawnFailed { worker: id, reason }));
    }

    pub(super) fn on_exited(&mut self, id: WorkerId, raw_status: i32, at_ms: u64) {
        if let Some(ix) = self.cx.workers.find(id)
            && let Some(app) = self.cx.workers.get(ix).map(|worker| worker.app)
        {
            // Its last words count: an answer that is still in the channel says that a connection was taken.
            self.read_channel(ix, true);
            let status = match process::end_signal(raw_status) {
                Some(signal) => ExitStatus::Signal(signal),
                None => ExitStatus::Code(process::exit_code(raw_status).unwrap_or(-1)),
            };
            // In the order in which they happened: what the lines said comes before the exit.
            self.cx.events.push_back((app, Event::Exited { worker: id, status, at_ms }));
            self.work_on_events();
            self.keep_last_words(app, id);
            self.bury(id);
            // Workers that a reload did not replace may outlive it: those that were scaled away with it.
            if self.cx.apps[app].generations.len() > 1 && !self.cx.apps[app].supervisor.is_reloading() {
                self.drop_old_generations(app);
            }
        }
        self.cx.keeper.send(Order::ExitSeen { worker: id });
    }

    /// What a worker said whose end makes a start fail: that is told once its replacement runs.
    fn keep_last_words(&mut self, app: AppIx, id: WorkerId) {
        let app = &mut self.cx.apps[app];
        if app.starting && app.start_failure.is_none() && app.last_words.is_none() {
            app.last_words = self.output.take_tail(id);
        }
    }

    /// Lets go of everything that belonged to a process that is gone.
    pub(super) fn bury(&mut self, id: WorkerId) {
        if let Some(ix) = self.cx.workers.find(id) {
            self.forget_channel_poll(ix);
            self.admit_no_more(id);
            dispatch::take_back(&mut self.cx, ix);
            self.drains.remove(ix);
            if let Some(channel) = self.cx.workers.remove(ix).and_then(|worker| worker.channel) {
                closer::close_all(channel.into_fds());
            }
        }
        self.cx.keeper.send(Order::Release { name: channel_name(id) });
        self.output.release(&mut self.cx.keeper, id);
        checkpoint::forget_serves(&mut self.cx, id);
    }

    /// Words of `listen-fds` programs about themselves. The sender is found by its pid, or by its process group when a
    /// helper such as systemd-notify speaks for it.
    pub(super) fn read_notify(&mut self) {
        if !self.notify.has_unread() {
            return;
        }
        let workers = &self.cx.workers;
        for Heard { pid, said } in self.notify.read(|pid| workers.find_pid(pid).is_some()) {
            // Workers lead process groups of their own.
            let found = self.cx.workers.find_pid(pid);
            let found = found.or_else(|| self.cx.workers.find_pid(procfs::process_group(pid)?));
            let Some(worker) = found.and_then(|ix| self.cx.workers.get_mut(ix)) else { continue };
            if let Some(text) = said.status {
                worker.status_text = Some(text);
            }
            if said.ready {
                let event = Event::Evidence { worker: worker.id, evidence: Evidence::Notify };
                self.cx.events.push_back((worker.app, event));
            }
        }
    }

    /// What workers with these settings find in `NOTIFY_SOCKET`, where they are told of it.
    pub(super) fn notify_address(&mut self, settings: &Settings) -> Option<String> {
        let Context { deployment, keeper, reactor, .. } = &mut self.cx;
        self.notify.address_for(settings.uid(), deployment.home.as_ref(), &deployment.name, keeper, reactor)
    }
}

/// Why no process was made.
#[derive(Debug, Error)]
pub(super) enum SpawnError {
    /// It is the agent's, and the configuration has none.
    #[error("no agent is configured")]
    NoAgent,
    /// No socket pair.
    #[error("cannot make its channel: {0}")]
    Channel(io::Error),
    /// No copy of a listening socket.
    #[error("cannot pass {listener} on: {error}")]
    Listener { listener: String, error: io::Error },
    /// No pipe, or no file, for what it prints.
    #[error("{0}")]
    Output(String),
    /// The keeper cannot be asked.
    #[error("cannot ask for the process: {0}")]
    Order(io::Error),
    /// The keeper could not run it.
    #[error("cannot run {program}: {cause}")]
    Exec { program: String, cause: &'static str },
    /// Its folder is gone, or closed to its user.
    #[error("cannot enter the folder {folder}: {cause}")]
    WorkingDirectory { folder: String, cause: &'static str },
    /// Too many processes.
    #[error("cannot make a process: {cause} (see ulimit -u and the cgroup's pids.max)")]
    Fork { cause: &'static str },
    /// No right to change the user.
    #[error("cannot become {user}: {cause}")]
    User { user: String, cause: &'static str },
    /// No right to change the limit.
    #[error("cannot set its limit on open files: {cause}")]
    ResourceLimits { cause: &'static str },
    /// The keeper takes no description of that size.
    #[error("its command or environment is too large: {cause}")]
    Description { cause: &'static str },
    /// A step between fork and exec.
    #[error("cannot prepare its process ({step:?}): {cause}")]
    Prepare { step: SpawnStep, cause: &'static str },
}

impl SpawnError {
    /// What the keeper says of a spawn that failed at this step.
    fn at_step(step: SpawnStep, errno: i32, settings: &Settings, is_agent: bool) -> SpawnError {
        let cause = process::describe_errno(errno);
        let agent = settings.agent.as_ref().filter(|_| is_agent);
        match step {
            SpawnStep::Exec => {
                let program = agent.map_or(&settings.program, |agent| &agent.program).display().to_string();
                SpawnError::Exec { program, cause }
            }
            SpawnStep::WorkingDirectory => {
                SpawnError::WorkingDirectory { folder: settings.cwd.display().to_string(), cause }
            }
            SpawnStep::Fork => SpawnError::Fork { cause },
            SpawnStep::User | SpawnStep::Group | SpawnStep::SupplementaryGroups => {
                let user = settings.config.user.clone().unwrap_or_else(|| "the configured user".to_owned());
                SpawnError::User { user, cause }
            }
            SpawnStep::ResourceLimits => SpawnError::ResourceLimits { cause },
            SpawnStep::Description => SpawnError::Description { cause },
            SpawnStep::ProcessGroup | SpawnStep::FileDescriptors | SpawnStep::Signals | SpawnStep::ParentDeath => {
                SpawnError::Prepare { step, cause }
            }
        }
    }
}
