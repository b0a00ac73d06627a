//! One generation of one app, made ready to spawn: program found, folder and user resolved, protocol decided. What is
//! looked up here is looked up once per generation, so that a deploy under way never mixes two.
use super::environment::base_environment;
use super::hooks::{self, RunsAs};
use super::system::System;
use crate::config::balancing::{self, Decided, Known};
use crate::config::{self, Balance, Listen, Protocol, ProtocolKind, Ready, Said, inspect, node_command, rules};
use crate::ids::Slot;
use crate::keeper::protocol::{CPU_PERIOD_US, Credentials, GroupLimits, SpawnSpec};
use crate::limits;
use crate::os::listen::Access;
use crate::os::{attributes, signal, user};
use crate::program::{self, ProgramKind};
use crate::reuseport::group::Abilities;
use crate::supervisor::{AgentPolicy, BeforePolicy, Evidence, Limits, Policy, ReadyRule};
use crate::worker::{self, FIRST_FD, Inherited, WorkerProtocol};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;

/// Words in the names of variables that tell a program where to listen.
const ADDRESS_WORDS: [&str; 6] = ["PORT", "HOST", "LISTEN", "ADDR", "BIND", "SOCKET"];

/// The variable in which Python's `prometheus_client` finds its folder.
const METRICS_FOLDER: &str = "PROMETHEUS_MULTIPROC_DIR";

/// Why a generation cannot be made ready to spawn.
#[derive(Debug, Error)]
pub(super) enum SettingsError {
    #[error(transparent)]
    User(#[from] user::UserError),
    #[error(transparent)]
    Program(#[from] program::ProgramError),
    #[error("its agent: {0}")]
    Agent(#[source] program::ProgramError),
    #[error("before: {0}")]
    Before(#[source] program::ProgramError),
    #[error(transparent)]
    Rule(#[from] rules::RuleError),
    /// It runs code of its command line, or of its standard input.
    #[error(
        "Node makes a cluster worker only of a process that has a script or an argument: put the code into a file, add an \
         argument ({} x), or leave out protocol = \"node\", so that it binds its port by itself",
        .0.join(" ")
    )]
    NoArgument(Vec<String>),
    #[error("cannot use the folder {}: {source}", path.display())]
    Folder { path: PathBuf, source: io::Error },
    #[error(
        "its folder {} does not exist any more; put it back, or start the app from its new folder under the same name \
         (cd NEW_FOLDER && clusterd start ... --name NAME)",
        .0.display()
    )]
    NoFolder(PathBuf),
    #[error("cannot use {} as the folder of the app: it is not a folder", .0.display())]
    NotAFolder(PathBuf),
}

/// The kind of an app's program, where Node can make a worker of it; else it is as any other.
fn as_worker(kind: ProgramKind, config: &config::App) -> Result<ProgramKind, SettingsError> {
    if kind != ProgramKind::Node || !node_command::has_no_argument(&config.command) {
        return Ok(kind);
    }
    match config.protocol {
        Protocol::Exactly(ProtocolKind::Node) => Err(SettingsError::NoArgument(config.command.clone())),
        Protocol::Exactly(_) | Protocol::Auto => Ok(ProgramKind::Other),
    }
}

/// A generation, ready to spawn.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) config: config::App,
    /// Who may connect to its configured sockets in the file system.
    socket_access: BTreeMap<PathBuf, Access>,
    /// Number of its sources (`Sources`).
    pub(super) source: u32,
    pub(super) program: PathBuf,
    pub(super) protocol: &'static dyn WorkerProtocol,
    /// Of this generation; `config` has what was typed.
    pub(super) balance: Decided,
    /// The working directory: absolute, links resolved.
    pub(super) cwd: PathBuf,
    ready: ReadyRule,
    /// The user that clusterd runs as.
    own_uid: u32,
    credentials: Option<Credentials>,
    /// Their account, where that is not ours.
    account: Option<user::Account>,
    /// A word of advice for the operator, found while looking at the command.
    pub(super) advice: Option<String>,
    pub(super) hooks: hooks::Prepared,
    /// Sentences about hooks whose command is missing.
    hook_problems: Vec<String>,
    /// The command that says of a worker whether it is well.
    pub(super) alive_exec: Option<Arc<crate::hooks::Command>>,
    pub(super) agent: Option<AgentSettings>,
    /// The program of the command before the workers.
    pub(super) before: Option<PathBuf>,
}

/// What was looked up for the agent of a generation.
#[derive(Clone, Debug)]
pub(super) struct AgentSettings {
    pub(super) program: PathBuf,
    /// The agent gets a channel as Node's `child_process.fork` makes it.
    pub(super) has_channel: bool,
    ready: ReadyRule,
}

/// What a previous master looked up for a generation.
pub(super) struct Fixed {
    pub(super) cwd: PathBuf,
    pub(super) program: PathBuf,
    pub(super) agent_program: Option<PathBuf>,
    /// The word of its balance and why, where that was `auto`.
    pub(super) balance: Option<(String, String)>,
}

/// What a spawn needs in addition to the settings.
pub(super) struct SpawnPlace<'a> {
    /// Counts the workers of the app, from 1.
    pub(super) number: u64,
    pub(super) slot: Slot,
    pub(super) generation: u32,
    /// `PORT`, if a TCP port is configured.
    pub(super) port: Option<u16>,
    /// Names of the listeners that a `listen-fds` program gets.
    pub(super) listen_names: Vec<String>,
    /// Value of `NOTIFY_SOCKET`.
    pub(super) notify: Option<&'a str>,
    /// The file of the preload, where the worker loads it.
    pub(super) preload: Option<&'a str>,
    /// The folder of the workers' metrics, where they write them to files.
    pub(super) metrics: Option<&'a Path>,
    /// Which of stdout (1) and stderr (2) are redirected; their fds come first.
    pub(super) stdio: Vec<i32>,
}

impl Settings {
    /// Looks everything up. `fixed` is what a previous master found for this generation.
    ///
    /// # Errors
    /// What is missing, and what to do.
    pub(super) fn prepare(
        system: &impl System,
        config: config::App,
        source: u32,
        fixed: Option<Fixed>,
    ) -> Result<Settings, SettingsError> {
        let own_uid = system.own_uid();
        let user = system.credentials(config.user.as_deref(), config.group.as_deref())?;
        let path = path_variable(&config);
        let is_fixed = fixed.is_some();
        let (cwd, program, agent_program, recorded) = match fixed {
            Some(Fixed { cwd, program, agent_program, balance }) => (cwd, Some(program), agent_program, balance),
            None => (resolve_cwd(system, &config.folder)?, None, None, None),
        };
        let found = find_program(&config.command[0], program, &path, &cwd)?;
        let agent = AgentSettings::prepare(&config, agent_program, &path, &cwd)?;
        let before = config.before.as_ref().map(|words| find_before(&words[0], is_fixed, &path, &cwd)).transpose()?;
        let program_kind = program::kind_of(&found, &config.command);
        let program_kind = as_worker(program_kind, &config)?;
        let kind = worker::decide(config.protocol, program_kind);
        let balance = if is_fixed {
            let record = recorded.as_ref().map(|(word, why)| (word.as_str(), why.as_str()));
            Decided::recorded(config.balance, kind, record)?
        } else {
            let known = Known { app: &config, protocol: kind, workers: config.workers_most(system.cpus().count) };
            balancing::decide(&known, || Abilities::default().best(system))?
        };
        let ready = check(kind, balance.balance, &config)?;
        let may_speak = kind.rules().evidence.contains(&Said::Notify);
        let ready = ready_rule(config.ready.is_none() && may_speak, &ready);
        let advice =
            if kind == ProtocolKind::Bind { None } else { program::advice(program_kind, &config.command, &cwd) };
        let account = user.as_ref().filter(|who| who.uid != own_uid).map(|who| system.account(who.uid));
        let runs_as = RunsAs {
            credentials: user.as_ref(),
            account: account.as_ref(),
            no_new_privs: no_new_privs(&config, own_uid, user.as_ref()),
        };
        let (hooks, mut hook_problems) = hooks::prepare(&config, &cwd, &path, &runs_as);
        let alive_exec = config.alive.exec.as_ref().and_then(|words| {
            let command = hooks::command(&config, "alive.exec", words, &cwd, &path, &runs_as);
            command.map_err(|error| hook_problems.push(format!("alive.exec will not run: {error}"))).ok().map(Arc::new)
        });
        let socket_access = socket_access(system, &config, user.as_ref())?;
        Ok(Settings {
            config,
            socket_access,
            source,
            program: found.path,
            protocol: worker::protocol(kind),
            balance,
            cwd,
            ready,
            own_uid,
            credentials: user,
            account,
            advice,
            hooks,
            alive_exec,
            hook_problems,
            agent,
            before,
        })
    }

    /// The workers' credentials; `None`: our own.
    pub(super) fn credentials(&self) -> Option<&Credentials> {
        self.credentials.as_ref()
    }

    /// The mode of sockets in the file system where only the umask says it; `None`: by our own umask.
    pub(super) fn socket_mode(&self) -> Option<u32> {
        self.config.umask.map(|mask| 0o777 & !mask)
    }

    /// Who may connect to the configured socket at this path.
    pub(super) fn socket_access(&self, path: &Path) -> Access {
        self.socket_access.get(path).cloned().unwrap_or_default()
    }

    /// A worker whose event loop is stuck is to leave a report.
    pub(super) fn leaves_hang_reports(&self) -> bool {
        let limits = &self.config.limits;
        limits.hang.is_some() && limits.hang_report && self.protocol.leaves_hang_reports()
    }

    /// Whether the first new worker of a reload is compared with the others, for which their stderr is read.
    pub(super) fn compares_canary(&self) -> bool {
        let reload = &self.config.reload;
        !reload.canary.is_zero() && reload.canary_max > 0
    }

    /// `NODE_OPTIONS` as the user set it.
    pub(super) fn node_options(&self) -> String {
        let own = || {
            std::env::var("NODE_OPTIONS")
                .ok()
                .filter(|_| !self.config.clean_env && !self.config.leaves_out("NODE_OPTIONS"))
        };
        self.config.env.get("NODE_OPTIONS").cloned().or_else(own).unwrap_or_default()
    }

    pub(super) fn uid(&self) -> u32 {
        self.credentials.as_ref().map_or(self.own_uid, |who| who.uid)
    }

    /// Logs which hooks cannot run. The app runs without them.
    pub(super) fn warn_of_hooks(&self) {
        for problem in &self.hook_problems {
            log::warn!("{}: {problem}", self.config.name);
        }
    }

    /// The rule for readiness, as configured.
    pub(super) fn ready_words(&self) -> String {
        rules::ready(
            self.protocol.kind(),
            self.config.ready.as_ref(),
            rules::is_seen_to_listen(self.protocol.kind(), &self.config.listen),
        )
        .map_or_else(|_| String::new(), |rule| rule.to_string())
    }

    /// The path of the readiness probe, if there is one.
    pub(super) fn path_to_ask(&self) -> Option<&str> {
        match &self.config.ready {
            Some(Ready::Http(path)) => Some(path),
            _ => None,
        }
    }

    /// The signal that asks a worker to end.
    pub(super) fn stop_signal(&self) -> i32 {
        self.config.stop_signal.as_deref().and_then(signal::from_name).unwrap_or(signal::TERM)
    }

    /// How long a program that ends on SIGTERM serves what it keeps before that, in milliseconds.
    pub(super) fn drain_delay_ms(&self) -> u64 {
        ms(self.config.drain_delay)
    }

    /// Whether the master accepts for the workers, instead of passing them the listening socket.
    pub(super) fn master_accepts(&self) -> bool {
        self.protocol.can_be_handed_connections() && !matches!(self.balance.balance, Balance::Shared | Balance::Kernel)
    }

    /// Whether each slot has a listening socket of its own.
    pub(super) fn has_own_sockets(&self) -> bool {
        self.balance.balance == Balance::Kernel && self.protocol.takes_connections()
    }

    /// Whether a program without configured addresses was told to listen somewhere else than that of another
    /// generation: by its command line or by a variable such as `PORT`.
    pub(super) fn listens_elsewhere(&self, other: &Settings) -> bool {
        let told = |settings: &Settings| -> BTreeMap<OsString, OsString> {
            let mut env = base_environment(&settings.config, settings.account.as_ref());
            env.retain(|name, _| {
                name.to_str().is_some_and(|name| ADDRESS_WORDS.iter().any(|word| name.contains(word)))
            });
            env
        };
        self.config.command != other.config.command || told(self) != told(other)
    }

    /// The part of the settings that the supervisor needs.
    pub(super) fn policy(&self) -> Policy {
        let c = &self.config;
        Policy {
            ready: self.ready.clone(),
            // How long somebody debugs is up to them.
            ready_timeout_ms: match self.waits_for_debugger() {
                true => limits::DURATION_MS_MAX,
                false => ms(c.ready_timeout.max(c.ready.as_ref().map_or(Duration::ZERO, Ready::age))),
            },
            warms_up: c.warm_up.is_some(),
            drain_timeout_ms: ms(c.drain_timeout),
            kill_timeout_ms: ms(c.kill_timeout),
            min_uptime_ms: ms(c.restart.min_uptime),
            max_restarts: c.restart.max_restarts,
            window_ms: ms(c.restart.window),
            backoff_first_ms: ms(c.restart.backoff_first),
            backoff_min_ms: ms(c.restart.backoff_min),
            backoff_max_ms: ms(c.restart.backoff_max),
            restart_delay_ms: ms(c.restart.delay),
            max_runs: c.restart.max_runs,
            stop_exit_codes: c.restart.stop_exit_codes.clone(),
            spares: c.spares,
            surge: c.reload.surge,
            overlap: c.reload.overlap.unwrap_or(true),
            canary_ms: ms(c.reload.canary),
            settle_ms: ms(c.reload.settle),
            drain_spread_ms: ms(c.reload.drain_spread),
            limits: self.limits(),
            agent: self.agent_policy(),
            before: self
                .before
                .as_ref()
                .map(|_| BeforePolicy { timeout_ms: ms(c.before_timeout), kill_timeout_ms: ms(c.kill_timeout) }),
        }
    }

    fn waits_for_debugger(&self) -> bool {
        self.protocol.kind() == ProtocolKind::Node && inspect::waits(&self.config.command, &self.node_options())
    }

    fn agent_policy(&self) -> Option<AgentPolicy> {
        let (config, found) = (self.config.agent.as_ref()?, self.agent.as_ref()?);
        Some(AgentPolicy {
            ready: found.ready.clone(),
            ready_timeout_ms: ms(config.ready_timeout),
            kill_timeout_ms: ms(config.kill_timeout),
            restart_delay_ms: ms(config.restart_delay),
        })
    }

    /// Resource limits of each worker.
    pub(super) fn limits(&self) -> Limits {
        let limits = &self.config.limits;
        Limits {
            memory_bytes: limits.memory,
            lifetime_ms: limits.lifetime.map(ms),
            max_connections: limits.max_connections,
            hang_ms: limits.hang.map(ms),
            hang_report: limits.hang_report,
        }
    }

    /// What the app's processes may use together.
    pub(super) fn group_limits(&self) -> GroupLimits {
        let limits = &self.config.limits;
        GroupLimits {
            memory_max: limits.memory_max,
            memory_high: limits.memory_high,
            // A hundredth of a CPU for a hundredth of each period.
            cpu_max: limits.cpu_max.map(|percent| u64::from(percent) * CPU_PERIOD_US / 100),
            pids_max: limits.pids_max.map(u64::from),
        }
    }

    /// The spec of a worker's process. Order of the fds: stdout and stderr where they are not inherited, then those of
    /// the protocol.
    pub(super) fn spawn_spec(&self, place: &SpawnPlace<'_>, tag: Vec<u8>) -> SpawnSpec {
        let inherited = match self.protocol.inherited() {
            Inherited::Nothing => 0,
            Inherited::Channel => 1,
            Inherited::Listeners => place.listen_names.len() as i32,
        };
        let intercept = self.protocol.intercepts().then_some(FIRST_FD + inherited);
        let placements = place.stdio.iter().copied().chain(FIRST_FD..FIRST_FD + inherited).chain(intercept).collect();
        let env = self.environment(place);
        SpawnSpec {
            tag,
            program: self.program.as_os_str().as_bytes().to_vec(),
            args: self.protocol.arguments(&self.spawn(place), &env).into_iter().map(String::into_bytes).collect(),
            env: env.into_iter().map(|(name, value)| entry(name, &value)).collect(),
            listen_pid: self.protocol.needs_listen_pid() && !place.listen_names.is_empty(),
            cwd: Some(self.cwd.as_os_str().as_bytes().to_vec()),
            placements,
            intercept,
            may_give_up_privileges: self.config.new_privileges != Some(true),
            ..self.process_spec()
        }
    }

    /// What every process of the app has.
    fn process_spec(&self) -> SpawnSpec {
        let config = &self.config;
        let rlimits = config.rlimits.iter().filter_map(|(name, limit)| {
            let most = |bound: Option<u64>| bound.unwrap_or(u64::MAX);
            Some((attributes::resource(name)?, most(limit.soft), most(limit.hard)))
        });
        SpawnSpec {
            app: config.name.clone(),
            umask: config.umask,
            credentials: self.credentials.clone(),
            // The keeper restores the limit on open files that clusterd raised for itself.
            rlimits: rlimits.collect(),
            nice: config.nice,
            oom_score_adj: config.oom_score_adj,
            cpus: config.cpu_affinity.clone().unwrap_or_default(),
            no_new_privs: no_new_privs(config, self.own_uid, self.credentials.as_ref()),
            ..SpawnSpec::default()
        }
    }

    fn spawn<'a>(&'a self, place: &'a SpawnPlace<'_>) -> worker::Spawn<'a> {
        worker::Spawn {
            app: &self.config,
            number: place.number,
            slot: place.slot,
            listen_names: &place.listen_names,
            notify: place.notify,
            preload: place.preload,
        }
    }

    /// The folder of the workers' metrics as the user has set it.
    pub(super) fn metrics_folder_typed(&self) -> Option<PathBuf> {
        let env = base_environment(&self.config, self.account.as_ref());
        env.get(OsStr::new(METRICS_FOLDER)).map(|folder| self.cwd.join(folder))
    }

    /// The environment of a worker.
    pub(super) fn environment(&self, place: &SpawnPlace<'_>) -> BTreeMap<OsString, OsString> {
        let mut env = base_environment(&self.config, self.account.as_ref());
        if let Some(port) = place.port {
            env.entry("PORT".into()).or_insert_with(|| port.to_string().into());
        }
        if let Some(folder) = place.metrics {
            env.entry(METRICS_FOLDER.into()).or_insert_with(|| folder.into());
        }
        let mut set = |name: &str, value: String| env.insert(name.into(), value.into());
        set(&self.config.instance_var, place.slot.to_string());
        if let Some((name, first)) = self.config.first_of_increment() {
            set(name, first.saturating_add(i64::from(place.slot.0)).to_string());
        }
        set("CLUSTERD_SLOT", place.slot.to_string());
        set("CLUSTERD_APP", self.config.name.clone());
        set("CLUSTERD_GENERATION", place.generation.to_string());
        self.protocol.environment(&self.spawn(place), &mut env);
        env
    }
}

/// Who may connect to the configured sockets in the file system. The app's user owns them where nothing else is said.
fn socket_access(
    system: &impl System,
    config: &config::App,
    own: Option<&Credentials>,
) -> Result<BTreeMap<PathBuf, Access>, SettingsError> {
    let mut all = BTreeMap::new();
    for address in &config.listen {
        let Listen::Unix(path) = address else { continue };
        let said = config.socket_access.get(path).cloned().unwrap_or_default();
        let owner = said.owner.as_deref().map(|name| system.user_id(name)).transpose()?;
        let group = said.group.as_deref().map(|name| system.group_id(name)).transpose()?;
        let access = Access {
            mode: said.mode.or(config.umask.map(|mask| 0o777 & !mask)),
            added: 0,
            uid: owner.or(own.map(|own| own.uid)),
            gid: group.or(own.map(|own| own.gid)),
        };
        all.insert(path.clone(), access);
    }
    Ok(all)
}

impl AgentSettings {
    fn prepare(
        app: &config::App,
        fixed: Option<PathBuf>,
        path: &OsStr,
        cwd: &Path,
    ) -> Result<Option<AgentSettings>, SettingsError> {
        let Some(agent) = &app.agent else { return Ok(None) };
        let found = find_program(&agent.command[0], fixed, path, cwd).map_err(SettingsError::Agent)?;
        let kind = program::kind_of(&found, &agent.command);
        let has_channel = worker::decide(agent.protocol, kind).rules().has_channel;
        let ready = config::agent::ready(has_channel, agent.ready.as_ref())?;
        let ready = ready_rule(agent.ready.is_none() && !has_channel, &ready);
        Ok(Some(AgentSettings { program: found.path, has_channel, ready }))
    }
}

impl Settings {
    /// The fds that the agent inherits.
    pub(super) fn agent_inherits(&self) -> Inherited {
        let has_channel = self.agent.as_ref().is_some_and(|agent| agent.has_channel);
        if has_channel { Inherited::Channel } else { Inherited::Nothing }
    }

    /// The spec of the agent's process; `None` if there is no agent. Order of the fds as for workers.
    pub(super) fn agent_spec(&self, place: &SpawnPlace<'_>, tag: Vec<u8>) -> Option<SpawnSpec> {
        let (config, found) = (self.config.agent.as_ref()?, self.agent.as_ref()?);
        let mut placements = place.stdio.clone();
        placements.extend(found.has_channel.then_some(FIRST_FD));
        Some(SpawnSpec {
            tag,
            program: found.program.as_os_str().as_bytes().to_vec(),
            args: config.command.iter().cloned().map(String::into_bytes).collect(),
            env: self.agent_environment(place).into_iter().map(|(name, value)| entry(name, &value)).collect(),
            listen_pid: false,
            cwd: Some(self.cwd.as_os_str().as_bytes().to_vec()),
            placements,
            ..self.process_spec()
        })
    }

    /// The spec of the command before the workers; `None` if there is none.
    pub(super) fn before_spec(&self, place: &SpawnPlace<'_>, tag: Vec<u8>) -> Option<SpawnSpec> {
        let (words, program) = (self.config.before.as_ref()?, self.before.as_ref()?);
        let mut env = base_environment(&self.config, self.account.as_ref());
        if let Some(port) = place.port {
            env.entry("PORT".into()).or_insert_with(|| port.to_string().into());
        }
        let mut set = |name: &str, value: String| env.insert(name.into(), value.into());
        set("CLUSTERD_EVENT", Slot::BEFORE.to_string());
        set("CLUSTERD_APP", self.config.name.clone());
        set("CLUSTERD_GENERATION", place.generation.to_string());
        Some(SpawnSpec {
            tag,
            program: program.as_os_str().as_bytes().to_vec(),
            args: words.iter().cloned().map(String::into_bytes).collect(),
            env: env.into_iter().map(|(name, value)| entry(name, &value)).collect(),
            listen_pid: false,
            cwd: Some(self.cwd.as_os_str().as_bytes().to_vec()),
            placements: place.stdio.clone(),
            ..self.process_spec()
        })
    }

    /// The agent's environment: the workers', without the variables of a slot.
    pub(super) fn agent_environment(&self, place: &SpawnPlace<'_>) -> BTreeMap<OsString, OsString> {
        let mut env = base_environment(&self.config, self.account.as_ref());
        if let Some(port) = place.port {
            env.entry("PORT".into()).or_insert_with(|| port.to_string().into());
        }
        let mut set = |name: &str, value: String| env.insert(name.into(), value.into());
        set("CLUSTERD_AGENT", "1".to_owned());
        set("CLUSTERD_APP", self.config.name.clone());
        set("CLUSTERD_GENERATION", place.generation.to_string());
        if self.agent.as_ref().is_some_and(|agent| agent.has_channel) {
            worker::node::channel_environment(&mut env);
        } else if let Some(notify) = place.notify {
            set("NOTIFY_SOCKET", notify.to_owned());
        }
        env
    }
}

/// Whether the processes of an app are kept from gaining privileges.
pub(super) fn no_new_privs(app: &config::App, own_uid: u32, credentials: Option<&Credentials>) -> bool {
    let is_another = credentials.is_some_and(|who| who.uid != own_uid);
    !app.new_privileges.unwrap_or(!is_another)
}

/// What protocol and balance make of readiness; refuses what they do not allow.
fn check(kind: ProtocolKind, balance: Balance, config: &config::App) -> Result<Ready, rules::RuleError> {
    rules::listen(kind, !config.listen.is_empty())?;
    rules::limits(kind, balance, &config.limits)?;
    rules::alive(kind, &config.alive)?;
    rules::metrics(kind, config.metrics)?;
    rules::spares(kind, balance, config)?;
    rules::warm_up(kind, balance, config)?;
    rules::ready(kind, config.ready.as_ref(), rules::is_seen_to_listen(kind, &config.listen))
}

/// The rule in the supervisor's terms. `may_speak`: the program may send `READY=1` before the time is over.
fn ready_rule(may_speak: bool, ready: &Ready) -> ReadyRule {
    let evidence = |evidence| ReadyRule { evidence: Some(evidence), after_ms: None };
    match ready {
        Ready::Listening => evidence(Evidence::Listening),
        Ready::Message => evidence(Evidence::Message),
        Ready::Notify => evidence(Evidence::Notify),
        Ready::Http(_) => evidence(Evidence::Http),
        Ready::Or(said, time) => ReadyRule { after_ms: Some(ms(*time)), ..ready_rule(may_speak, &said.alone()) },
        Ready::After(time) => ReadyRule { evidence: may_speak.then_some(Evidence::Notify), after_ms: Some(ms(*time)) },
    }
}

fn entry(name: OsString, value: &OsStr) -> Vec<u8> {
    let mut bytes = name.into_vec();
    bytes.push(b'=');
    bytes.extend_from_slice(value.as_bytes());
    bytes
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The PATH for the command: the app's own where it sets one.
fn path_variable(app: &config::App) -> OsString {
    let typed = app.env.get("PATH").or_else(|| app.base_env.as_ref().and_then(|base| base.get("PATH")));
    typed.map(OsString::from).or_else(|| std::env::var_os("PATH")).unwrap_or_default()
}

/// The program of a command; `fixed`: what a previous master found.
fn find_program(
    name: &str,
    fixed: Option<PathBuf>,
    path: &OsStr,
    cwd: &Path,
) -> Result<program::Program, program::ProgramError> {
    match fixed {
        None => program::find(name, path, Some(cwd)),
        Some(fixed) => {
            let found = program::find(&fixed.to_string_lossy(), path, Some(cwd));
            Ok(found.unwrap_or(program::Program { path: fixed, kind: ProgramKind::Other }))
        }
    }
}

/// The program of the command before the workers. `is_fixed`: its generation runs, whether the program is there or not.
fn find_before(name: &str, is_fixed: bool, path: &OsStr, cwd: &Path) -> Result<PathBuf, SettingsError> {
    match program::find(name, path, Some(cwd)) {
        Ok(found) => Ok(found.path),
        Err(_) if is_fixed => Ok(PathBuf::from(name)),
        Err(error) => Err(SettingsError::Before(error)),
    }
}

/// The folder with its links resolved, so that `current -> releases/42` does not change within a generation.
fn resolve_cwd(system: &impl System, asked: &Path) -> Result<PathBuf, SettingsError> {
    let found = system.real_path(asked).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => SettingsError::NoFolder(asked.to_owned()),
        _ => SettingsError::Folder { path: asked.to_owned(), source },
    })?;
    if !system.is_folder(&found) {
        return Err(SettingsError::NotAFolder(found));
    }
    Ok(found)
}
