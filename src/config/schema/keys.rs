//! The table of settings: every key of the configuration file, once.
//!
//! An entry is
//!
//! ```text
//! /// What it does, in one line: for the reference, `init`, the schema, and --help.
//! key: plain(Type = default), KIND,
//!     unset "..."       the default in words, where it is not a value
//!     example "..."     a value as TOML, for a key that `init` leaves unset
//!     initial "..."     what `init` sets it to, where that is not the default
//!     section "..."     the part of the reference that lists it
//!     flag FLAG         the same on the command line
//!     more "...";       what else the reference says of it
//! ```
//!
//! with the optional parts in this order, separated by commas. `plain` keys come into the resolved struct as they are. Of a
//! `raw(Type)` key `resolve` makes something else. Strings are as Markdown.
use super::addresses::{Addresses, ListenEntry};
use super::attribute_kinds::{CpuShare, Cpus, ResourceTable};
use super::flags::{OUTPUT, SOCKETS, STARTING_AGAIN, SURROUNDINGS, Takes, WORKERS, bytes, flag, milliseconds, seconds};
use super::kinds::{
    Boolean, Command, CountOr, Environment, ExitCodes, Identity, Kind, Port, Size, TOO_MANY_ENTRIES, Text, Texts, Time,
    TimeStamp, Umask, Variables, Watched, WatchedPaths, WorkerCount, number, optional, or_zero, quoted, unset,
    variable,
};
use super::nested::{Table, Tables};
use super::reload_keys::{RawReload, Reload};
use super::scale_keys::RawScale;
use super::{Flag, Raw, Scope, Setting, overlay, raw_table, resolved_table, table, value_or};
use crate::config::SocketAccess;
use crate::config::attributes::ResourceLimits;
use crate::config::control;
use crate::config::hooks::HookEvent;
use crate::config::log::{self, Format, Target};
use crate::config::options::Options;
use crate::config::problem::{At, Found, Spot};
use crate::config::raw::{Entry, Walk};
use crate::config::scaling::{Scaling, WorkerRange};
use crate::config::warm_up::{self, WarmUp};
use crate::config::{
    Balancing, Listen, Metrics, Protocol, Ready, Watch, Workers, cron, defaults, name, parse, protocol,
};
use crate::limits::{FAILURES_REMEMBERED_MAX, LOG_FILES_KEPT_MAX, PIDS_MAX, RUNS_MAX, SPARES_MAX};
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Every table, in the order of the reference.
pub(super) const TABLES: [&[Setting]; 11] = [
    RawFile::SETTINGS,
    RawControl::SETTINGS,
    RawApp::SETTINGS,
    RawRestart::SETTINGS,
    RawReload::SETTINGS,
    RawScale::SETTINGS,
    RawAlive::SETTINGS,
    RawHooks::SETTINGS,
    RawLimits::SETTINGS,
    RawLog::SETTINGS,
    RawAgent::SETTINGS,
];

pub(super) const fn scope(path: &'static str, help: &'static str) -> Scope {
    Scope { path, help, optional: false }
}

/// The file itself.
pub(super) const DEPLOYMENT: Scope = scope("", "");
/// `[control]`.
pub(super) const CONTROL: Scope = Scope {
    path: "control",
    help: "The control API over TCP, beside the control socket: docs/monitoring.md.",
    optional: true,
};
/// `[[app]]`.
pub(super) const APP: Scope = scope("app", "One app; write [[app]] again for the next one.");
/// `[app.restart]`.
pub(super) const RESTART: Scope = scope("app.restart", "What happens when a worker dies.");
/// `[app.reload]`.
/// `[app.alive]`.
pub(super) const ALIVE: Scope = scope("app.alive", "How workers are asked, while they serve, whether they are well.");
/// `[app.hooks]`.
pub(super) const HOOKS: Scope =
    scope("app.hooks", "Commands to run at events, told in CLUSTERD_EVENT and other variables.");
/// `[app.limits]`.
pub(super) const LIMITS: Scope =
    scope("app.limits", "What a worker may use (one that passes a limit is replaced), and what the whole app may use.");
/// `[app.log]`.
pub(super) const LOG: Scope = scope("app.log", "Where output goes. Default: where clusterd's own goes.");
/// `[app.agent]`.
pub(super) const AGENT: Scope = Scope {
    path: "app.agent",
    help: "One process beside the workers, started before them: docs/agent.md.",
    optional: true,
};

table! {
    in DEPLOYMENT;
    raw RawFile;
    /// The apps of the file.
    app: raw(Vec<RawApp>), Tables::<RawApp>(PhantomData);
    /// The control API over TCP.
    control: raw(RawControl), Table::<RawControl>(PhantomData);
}

table! {
    in CONTROL;
    raw RawControl;

    /// Address of the control API. Reading needs no token on a loopback address.
    listen: raw(SocketAddr), control::ADDRESS, unset "none", example r#""127.0.0.1:9615""#,
        more "A port alone means 127.0.0.1. Other addresses than loopback need `token_file`";
    /// File with the token for requests that change something, mode 0600; made with a random one if missing.
    token_file: raw(String), PATH, unset "nothing can be changed over TCP", example r#""control.token""#;
    /// File with a token that only reads.
    read_token_file: raw(String), PATH, unset "none", example r#""metrics.token""#;
    /// File with the certificate for TLS (PEM, with what leads to its root); clients use https:// then.
    tls_cert: raw(String), PATH, unset "no TLS", example r#""control.crt""#,
        more "Read again when it changes";
    /// File with the private key of `tls_cert` (PEM), which other users cannot read.
    tls_key: raw(String), PATH, unset "no TLS", example r#""control.key""#;
    /// Names by which clients may call the address, beside localhost and IP addresses.
    hosts: raw(Vec<At<String>>), control::HOSTS, unset "none", example r#"["metrics.internal"]"#,
        more "Any other `Host` is refused, so that no web page can reach the API by a name of its own (DNS rebinding)";
    /// Serve a page for browsers at /.
    page: raw(bool = false), Boolean, example "true";
    /// Address for the agent checks of HAProxy: one line says how many workers serve, and `drain` before a stop.
    agent_check: raw(SocketAddr), control::ADDRESS, unset "none", example r#""127.0.0.1:9616""#,
        more "A port alone means 127.0.0.1. It needs no `listen` and no token: whoever can connect may ask. docs/proxies.md";
}

table! {
    in APP;
    raw RawApp;
    /// One app: a command with its workers, listeners and settings. Every default is decided.
    resolved App, with
    /// What `resolve` decides from several keys, or from more than the file.
    AppRest {
        /// Unique in the deployment.
        name: String,
        /// Program and arguments; never empty.
        command: Vec<String>,
        /// How many workers; the least where the number follows the load.
        workers: Workers,
        /// How the number of workers follows the load, where it does.
        scale: Option<Scaling>,
        /// Addresses bound before anything is forked, in the order of `LISTEN_FDS`.
        listen: Vec<Listen>,
        /// Who may connect to those of them that are files, where that is said.
        socket_access: BTreeMap<PathBuf, SocketAccess>,
        /// Added to the environment of clusterd itself (or `base_env`); the chosen `env.NAME` table is already laid over.
        env: BTreeMap<String, String>,
        /// What `env` is added to, where it is not the environment of clusterd itself.
        base_env: Option<BTreeMap<String, String>>,
        /// Names of the apps that have to be ready first.
        depends_on: Vec<String>,
        /// Texts of variables of `base_env` (or of clusterd itself) that are left out.
        filter_env: Vec<String>,
        /// What a new worker is asked for before clients reach it.
        warm_up: Option<WarmUp>,
        /// `cwd`, made absolute.
        cwd: Option<PathBuf>,
        /// `cwd`, or the folder of the start. As typed: each generation looks it up again, with its links.
        folder: PathBuf,
        /// Files whose change has every worker replaced.
        watch: Option<Watch>,
        /// What happens when a worker dies.
        restart: Restart,
        /// How a reload replaces the workers.
        reload: Reload,
        /// How serving workers are asked whether they are well.
        alive: Alive,
        /// Commands to run at events; none is empty.
        hooks: BTreeMap<HookEvent, Vec<String>>,
        /// What a worker may use.
        limits: Limits,
        /// The process beside the workers.
        agent: Option<Agent>,
        /// Where output goes.
        log: log::Log,
    }

    /// What to run: program and arguments. No shell reads it.
    command: raw(Vec<String>), Command, unset "required", initial r#"["node", "workers/node/hello.js"]"#, section "run",
        more "A string is split at spaces, and refused when it holds anything a shell would treat specially. The program is \
              searched in the worker's `PATH`";
    /// Name of the app in commands and logs, unique in the file.
    name: raw(String), NAME, unset "from the script", example r#""hello""#, section "run",
        flag flag("--name", WORKERS, "NAME").short('n').for_one_app().help("Name of the app"),
        more "Letters, digits, `.`, `_`, `-`, at most 64. Without one: the script's name without its ending, or its folder's \
              where the script is `index`, `main`, `server` or `app` (`api/index.js` is `api`); a number is added where the \
              name is taken";
    /// Group that commands may name instead of each app.
    namespace: plain(String = defaults::NAMESPACE.to_owned()), NAME, section "run",
        flag flag("--namespace", WORKERS, "NAMESPACE");
    /// Whether the app is started with its file; `false`: it is there, stopped, until `clusterd start NAME`.
    autostart: plain(bool = true), Boolean, section "run",
        flag flag("--autostart", WORKERS, "BOOL").hidden(),
        more "`clusterd start --no-autostart` says it of every app that it starts. `resurrect` does not ask: it starts what ran \
              when it was saved. A run in the foreground needs one app that starts";
    /// Apps of the file that have to be ready before the workers of this one start.
    depends_on: raw(Vec<At<String>> = Vec::new()), APP_NAMES, section "run",
        more "`[\"api\"]`. At the first start of the file, and in the same order at a reload of several apps: `SIGHUP`, `reload all`; at a stop of several the \
              other way. What happens to one of them alone has no effect. See [Deploying](deploying.md#apps-that-need-each-other)";
    /// Command to run once before the workers of each start and reload: a migration. When it fails, the old workers serve on.
    before: plain(Option<Vec<String>> = None), optional(Command), unset "none", example r#"["npm", "run", "migrate"]"#,
        section "run",
        more "In the folder, with the variables and as the user of the workers, whatever their number. Not when a worker is \
              replaced, nor for an upgrade of clusterd. See [Deploying](deploying.md#a-command-before-the-workers)";
    /// A command that has not ended by then has failed.
    before_timeout: plain(Duration = defaults::BEFORE_TIMEOUT), TIME_NOT_ZERO, section "run";
    /// How many workers: a number, "max" (the CPUs that clusterd may really use), "max-1" or "50%"; "2..8" follows the load.
    workers: raw(WorkerRange), WorkerCount, unset "max where there is an address to listen on, else 1", example r#""2..8""#,
        section "run",
        flag flag("--workers", WORKERS, "N").short('w').hyphen()
            .help("A number, \"max\" (the CPUs that clusterd may really use), \"max-1\" or \"50%\"; \"2..8\" follows the load"),
        more "1 to 4096. One is the default without an address: a second bot or job would do the work twice. `max`: its affinity mask, and the CPU quota of its cgroup and every cgroup above (v1 and v2), \
              rounded up. A share is rounded up; there is always one worker. With two of these between dots the number follows \
              the load (`[app.scale]`); where a machine makes the upper bound the smaller one, the lower one holds";
    /// Workers that are started and ready but get no connections until another one dies; they serve at once then.
    spares: plain(u32 = 0), number::<u32>("spares", 0, SPARES_MAX as i64), section "run",
        flag flag("--spares", WORKERS, "N").help("Ready workers without connections, for when another one dies"),
        more "In addition to `workers`, so a crash costs no capacity where a start takes long. The next worker of the slot \
              that lost its own is the next spare. A spare has a slot and its number (`CLUSTERD_SLOT`), and runs all of the \
              app but its requests. Not with `shared` and `none`, nor without overlap; with `bind` and `listen-fds`, with \
              balance `kernel` and an address with a port";
    /// Folder of the workers. Looked up again, with its links, at each reload and start.
    cwd: raw(String), PATH, unset "where clusterd was started", example r#""/srv/hello/current""#, section "run",
        flag flag("--cwd", SURROUNDINGS, "DIR").for_one_app().help("Folder of the workers");
    /// Run workers as this user (clusterd must be root).
    user: plain(Option<String> = None), optional(Identity), unset "as clusterd", example r#""www-data""#, section "run",
        flag flag("--user", SURROUNDINGS, "USER").alias("uid").help("Run workers as this user (name or number)"),
        more "Supplementary groups are the user's";
    /// Run workers as this group (clusterd must be root).
    group: plain(Option<String> = None), optional(Identity), unset "the user's own, or as clusterd",
        example r#""www-data""#, section "run",
        flag flag("--group", SURROUNDINGS, "GROUP").alias("gid").help("Run workers as this group (name or number)");
    /// Mode bits that files made by workers do not get, as octal digits in quotes.
    umask: plain(Option<u32> = None), optional(Umask), unset "as clusterd", example r#""027""#, section "process";
    /// Priority of the processes: -20 (first) to 19; less than clusterd's own needs root.
    nice: plain(Option<i32> = None), optional(number::<i32>("nice", -20, 19)), unset "as clusterd", example "5",
        section "process";
    /// How readily the kernel kills the processes when memory runs out: -1000 (never) to 1000 (first).
    oom_score_adj: plain(Option<i32> = None), optional(number::<i32>("oom_score_adj", -1000, 1000)),
        unset "what clusterd was started with", example "500", section "process",
        more "Less than that needs root. The keeper sets its own to -900 where it may; master and workers have what clusterd \
              was started with";
    /// CPUs that the processes may run on.
    cpu_affinity: plain(Option<Vec<u32>> = None), optional(Cpus), unset "as clusterd", example r#""0-3""#,
        section "process",
        more "`workers = \"max\"` still counts the CPUs of clusterd itself";
    /// Whether the processes may gain privileges by executing programs with setuid bits or file capabilities (sudo).
    new_privileges: plain(Option<bool> = None), optional(Boolean), unset "`true`; `false` where `user` is another user",
        example "true", section "process",
        more "`false` sets the kernel's no_new_privs, for hooks too";
    /// Limits of the processes, as in ulimit: a table of as, core, cpu, data, fsize, locks, memlock, msgqueue, nofile, nproc, rtprio, rttime, sigpending, stack.
    rlimits: plain(ResourceLimits = ResourceLimits::new()), ResourceTable, unset "as clusterd", section "process",
        more "Each a number, or a size (`as`, `core`, `data`, `fsize`, `memlock`, `msgqueue`, `stack`), or `\"unlimited\"`: both \
              the soft and the hard limit; `[soft, hard]` sets them apart. A hard limit above clusterd's own needs root. \
              `nproc` counts all processes of the user, not the app's";
    /// The library with which the app has metrics of its own, which are added up in /metrics: "prom-client", "python", "none".
    metrics: plain(Metrics = Metrics::None), METRICS, section "run",
        more "`prom-client`: Node workers are asked over their channel, as its `AggregatorRegistry` would. `python`: \
              `prometheus_client` gets an empty folder for each generation in `PROMETHEUS_MULTIPROC_DIR`, unless that is set. \
              See [Monitoring](monitoring.md#metrics-of-apps)";
    /// Put "name/slot | " before each line that workers print.
    prefix: plain(bool = false), Boolean, section "run",
        flag flag("--prefix", SURROUNDINGS, "").takes(Takes::Nothing);

    /// Give workers a pipe for stdin, into which `clusterd send` and `clusterd attach` write lines; else it is /dev/null.
    stdin: plain(bool = false), Boolean, section "run",
        flag flag("--stdin", SURROUNDINGS, "").takes(Takes::Nothing)
            .help("Give workers a stdin, for clusterd send and clusterd attach"),
        more "A line has at most 4095 bytes. What a worker does not read waits in the pipe (64 KiB); beyond that, `send` \
              fails and nothing else";

    /// Where to listen: "8080", "127.0.0.1:8080", "[::1]:8080", "localhost:8080", "unix:/run/app.sock".
    listen: raw(Vec<At<ListenEntry>>), Addresses, unset "none", initial r#"["0.0.0.0:8080"]"#, section "sockets",
        flag flag("--listen", SOCKETS, "ADDRESS").short('l').takes(Takes::Several).for_one_app()
            .help("8080, 127.0.0.1:8080, [::1]:8080, unix:/run/app.sock; may repeat"),
        more "`\"8080\"` and `\"*:8080\"`: every address, IPv6 and IPv4. Port 0: any free one, the same for all workers. At \
              most 128. Bound before any worker starts. A socket in the file system as a table says who may connect: \
              `{ address = \"unix:/run/app.sock\", mode = \"0660\", owner = \"web\", group = \"www-data\" }`, see below";
    /// One more listen address, before the others: this port of every address of the machine.
    port: raw(u16), Port, unset "none", example "8081", section "sockets",
        flag flag("--port", SOCKETS, "PORT").short('p').for_one_app().help("Listen on this port; 0: any free one");
    /// Who gets the next connection: "auto" (by the app), "round-robin", "sticky" (by client address), "shared" (whoever accepts first), "kernel" (each slot has a socket of its own and the kernel chooses).
    balance: plain(Balancing = defaults::BALANCE), BALANCE, section "sockets",
        flag flag("--balance", SOCKETS, "WAY").short('b')
            .help("Who gets the next connection: auto (by the app), round-robin, sticky (by client address), shared (whoever \
                   accepts first), kernel (a socket for each worker)"),
        more "`auto`: see below; `ls` says what it means for an app, and why. `round-robin`: clusterd accepts, and hands the connection to the worker with the fewest that it has not yet \
              taken. `sticky`: the same client address goes to the same slot, and waits for its worker while that is busy; it moves only when the worker is gone or stuck, and stays. `shared`: workers accept from the one socket by \
              themselves. `kernel`: every slot has a listening socket of its own, see below. With `bind` it is `kernel` \
              unless it is `shared`, with `listen-fds` `shared` unless it is `kernel`";
    /// How the command takes its sockets: "auto" (by the program), "node", "bind", "listen-fds", "none".
    protocol: plain(Protocol = defaults::PROTOCOL), PROTOCOL, section "sockets",
        flag flag("--protocol", SOCKETS, "NAME")
            .help("How the program takes its sockets: auto, node, bind, listen-fds, none"),
        more "`node`: Node's own cluster protocol. `bind`: the program, or whatever it starts, binds its port by itself and \
              gets its slot's socket there. `listen-fds`: the sockets are inherited from fd 3 up, as with systemd \
              (blocking; TCP_NODELAY is set for their connections). `none`: no socket. `auto`: `node` where the program is \
              Node (by its name, the file behind links, or its `#!` line) and serves itself, else `bind`: for other programs, \
              and for Node where it starts another process (`npm`, `tsx`, `nodemon`, `node --watch`) or has no script (`node -e`). docs/bind.md";

    /// Whether Node workers load a small script that lets connections move to other workers instead of being closed.
    preload: plain(bool = true), Boolean, section "sockets",
        more "See [Moves](moves.md). `false`: workers close what they keep when they leave";

    /// Whether kept connections move to workers that keep fewer, after a scale up or a replacement and when shares drift apart.
    rebalance: plain(bool = true), Boolean, section "sockets",
        more "Only between two requests, at most once in 10 s for each connection, and never with `sticky`. It needs `preload`";

    /// What makes a worker ready: "listening", "message", "notify", "http:/healthz" (it answers that with 2xx or 3xx), a time, "listening or 3s".
    ready: plain(Option<Ready> = None), optional(READY), unset "as the protocol has it", example r#""listening""#,
        section "readiness",
        flag flag("--ready", WORKERS, "RULE")
            .help("What makes a worker ready: listening, message, notify, http:/PATH, or a time (\"2s\")"),
        more "See below";
    /// A worker that is not ready after this has failed.
    ready_timeout: plain(Duration = defaults::READY_TIMEOUT), TIME_NOT_ZERO, section "readiness",
        flag flag("--ready-timeout", WORKERS, "TIME");
    /// Paths that a new worker has to answer before clients reach it, so that they meet code that is compiled and caches that are full.
    warmup: raw(Vec<At<String>> = Vec::new()), warm_up::PATHS, example r#"["/", "/api/items"]"#, section "readiness",
        more "Asked one after the other of a worker that is ready, whatever started it; see below";
    /// How often each of them is asked for.
    warmup_times: raw(u32 = warm_up::TIMES), number::<u32>("warmup_times", 1, warm_up::TIMES_MAX), section "readiness";
    /// Time to finish open connections before SIGTERM.
    drain_timeout: plain(Duration = defaults::DRAIN_TIMEOUT), TIME, section "readiness",
        flag flag("--drain-timeout", WORKERS, "TIME"),
        more "`\"0s\"`: at once";
    /// Time for proxies to learn that workers leave: an app that is to stop serves on for it.
    drain_delay: plain(Duration = Duration::ZERO), TIME, section "readiness",
        flag flag("--drain-delay", WORKERS, "TIME"),
        more "Meanwhile agent checks are answered with `drain` and `/readyz` with 503; docs/proxies.md. Workers other than \
              Node's that a reload or a scale down replaces get SIGTERM, at which they close what they keep, so long after \
              their last new connection; that is part of `drain_timeout`";
    /// The signal that asks a worker to end: "SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2".
    stop_signal: plain(Option<String> = None), optional(STOP_SIGNAL), unset "`\"SIGTERM\"`", example r#""SIGINT""#,
        section "readiness",
        flag flag("--stop-signal", WORKERS, "SIGNAL").help("The signal that asks a worker to end [default: SIGTERM]"),
        more "Where it is set, a Node worker's listeners of it are called at every stop and reload, once its connections are \
              finished, also if it would have ended by itself";
    /// Time between SIGTERM and SIGKILL.
    kill_timeout: plain(Duration = defaults::KILL_TIMEOUT), TIME, section "readiness",
        flag flag("--kill-timeout", WORKERS, "TIME").short('k').bare(milliseconds);

    /// Variables, added to those of clusterd itself.
    env: raw(Variables), Environment, unset "empty", section "environment",
        flag flag("--env", SURROUNDINGS, "K=V|NAME").short('e').takes(Takes::Several).apart()
            .help("Set a variable (K=V); or use the env.NAME table of the file (NAME); may repeat"),
        more "Strings, numbers and booleans. A table inside, `env.NAME`, is used with `--env NAME`";
    /// Files of NAME=value lines; what env says wins over them.
    env_file: raw(Vec<At<String>>), ENV_FILES, unset "none", example r#"[".env"]"#, section "environment",
        flag flag("--env-file", SURROUNDINGS, "FILE").takes(Takes::Several).apart()
            .help("Read variables from a file of K=V lines; may repeat"),
        more "`#` begins a comment, `export ` is skipped, values may be quoted; nothing is expanded. With `user`, that user has \
              to be able to read the file, except in folders that only root can change";
    /// Take nothing over from clusterd's own variables but PATH, LANG, LC_*, TZ and TERM.
    clean_env: plain(bool = false), Boolean, section "environment",
        more "With `user`, HOME, USER, LOGNAME and SHELL are always the user's";
    /// Have Node 22 and later keep the compiled code of the app, so that workers start with less CPU time.
    compile_cache: plain(bool = false), Boolean, section "environment",
        more "In `~/.cache/clusterd/node` of the user that the workers run as: NODE_COMPILE_CACHE is set to that, unless it is set \
              already. A worker writes what it compiled when it ends";
    /// Leave out those of clusterd's own variables whose names contain one of these texts.
    filter_env: raw(Vec<At<String>> = Vec::new()), VARIABLE_TEXTS, section "environment",
        more "`[\"SECRET\", \"AWS_\"]`. What `env` and `env_file` set stays";
    /// The variable that holds a worker's slot, from 0.
    instance_var: plain(String = defaults::INSTANCE_VAR.to_owned()), variable(parse::instance_variable),
        section "environment";
    /// A number in env to which each worker's slot is added: a port of its own for each.
    increment_var: plain(Option<String> = None), optional(variable(parse::own_variable)), unset "none",
        example r#""METRICS_PORT""#, section "environment",
        more "A whole number: with `METRICS_PORT = \"9100\"`, slot 2 has 9102";

    /// Replace the workers, one after the other, at these times (minute, hour, day, month, weekday; local time).
    cron_restart: plain(Option<String> = None), or_zero(CRON), unset "none", example r#""0 3 * * *""#, section "replaced",
        flag flag("--cron-restart", STARTING_AGAIN, "CRON").alias("cron")
            .help("Replace the workers at these times: \"0 3 * * *\"; 0: at none"),
        more "As by `clusterd reload`, but with the configuration and environment that serve (`\"0 3 * * *\"`, \
              `\"*/30 9-17 * * MON-FRI\"`, `\"@daily\"`); with six fields the first one is the second. Local time of clusterd \
              (`TZ`). Looked at once a second. Times that passed while the machine slept count once";
    /// Replace the workers when files change: true (the app's folder), or paths; not what .gitignore names, hidden files, node_modules.
    watch: raw(Watched = Watched::Nothing), WatchedPaths, section "replaced",
        flag flag("--watch", STARTING_AGAIN, "").takes(Takes::Nothing)
            .help("Replace the workers when files in the app's folder change"),
        more "As by `clusterd reload`: the configuration is read again, and code that does not come up leaves the old one \
              serving. `true`: the folder of the app, links resolved. One watcher for the app, however many workers; nothing \
              is polled";
    /// What is not to be watched either: lines of a .gitignore.
    watch_ignore: raw(Vec<At<String>> = Vec::new()), PATTERNS, section "replaced",
        flag flag("--watch-ignore", STARTING_AGAIN, "PATTERN").alias("ignore-watch").takes(Takes::Several)
            .help("Do not watch these: a line of a .gitignore; may repeat"),
        more "At the watched folder (`\"*.log\"`, `\"tmp/\"`, `\"!.env\"`)";
    /// Act on a change once no other has followed for this time.
    watch_delay: raw(Duration = defaults::WATCH_DELAY), TIME_NOT_ZERO, section "replaced",
        flag flag("--watch-delay", STARTING_AGAIN, "TIME").bare(seconds),
        more "After ten times that at the latest";

    /// What happens when a worker dies.
    restart: raw(RawRestart), Table::<RawRestart>(PhantomData);
    /// How a reload replaces the workers.
    reload: raw(RawReload), Table::<RawReload>(PhantomData);
    /// How workers are asked, while they serve, whether they are well.
    alive: raw(RawAlive), Table::<RawAlive>(PhantomData);
    /// How the number of workers follows the load.
    scale: raw(RawScale), Table::<RawScale>(PhantomData);
    /// Commands to run at events.
    hooks: raw(RawHooks), Table::<RawHooks>(PhantomData);
    /// What a worker may use.
    limits: raw(RawLimits), Table::<RawLimits>(PhantomData);
    /// Where output goes.
    log: raw(RawLog), Table::<RawLog>(PhantomData);
    /// One process beside the workers.
    agent: raw(RawAgent), Table::<RawAgent>(PhantomData);
}

// Sixteen failures within five minutes end a slot. With this backoff they take about two minutes, so that a database that
// is away for a minute takes no service down for good.
table! {
    in RESTART;
    raw RawRestart;
    /// What happens when a worker dies. Failures are counted per slot in a sliding window.
    resolved Restart;

    /// A worker that lived shorter failed at its start; its slot waits before the next one.
    min_uptime: plain(Duration = Duration::from_secs(1)), TIME,
        flag flag("--min-uptime", STARTING_AGAIN, "TIME").bare(milliseconds).help("A worker that lived shorter failed at its start");
    /// Failures within the window that make a slot errored; "never": it never gives up.
    max_restarts: plain(Option<u32> = Some(16)), MAX_RESTARTS,
        flag flag("--max-restarts", STARTING_AGAIN, "N")
            .help("Failures in 5 minutes that end a slot; never: it does not give up"),
        more "An errored slot is left empty. A program that cannot be executed is given up at once, where it has not served before. `\"unlimited\"` is the same as `\"never\"`";
    /// Length of the sliding window.
    window: plain(Duration = Duration::from_secs(5 * 60)), TIME_NOT_ZERO;
    /// The wait after the first failure in a row.
    backoff_first: plain(Duration = Duration::ZERO), TIME;
    /// The wait after the second failure; it doubles.
    backoff_min: plain(Duration = Duration::from_millis(100)), TIME_NOT_ZERO,
        flag flag("--backoff-min", STARTING_AGAIN, "TIME").alias("exp-backoff-restart-delay").bare(milliseconds)
            .help("The wait after the second failure in a row; it doubles");
    /// The longest wait.
    backoff_max: plain(Duration = Duration::from_secs(15)), TIME_NOT_ZERO;
    /// The least wait before any worker that follows one that ended by itself, however long that one lived.
    delay: plain(Duration = Duration::ZERO), TIME,
        flag flag("--restart-delay", STARTING_AGAIN, "TIME").bare(milliseconds).help("Least wait before a worker follows another");
    /// How often a slot's worker may end by itself, well or not; then the slot is left empty. 1: it runs once.
    max_runs: plain(Option<u32> = None), MAX_RUNS,
        flag flag("--max-runs", STARTING_AGAIN, "N").help("How often it may run"),
        more "Counted since its start or last reload. The empty slot is `stopped` where the last worker exited with 0, else \
              `errored`";
    /// A worker that exits with one of these codes is not started again.
    stop_exit_codes: plain(Vec<i32> = Vec::new()), ExitCodes,
        flag flag("--stop-exit-codes", STARTING_AGAIN, "CODE").takes(Takes::List)
            .help("Exit codes after which it is not started again; may repeat, or list: 0,3");
}

table! {
    in ALIVE;
    raw RawAlive;
    /// How workers are asked, while they serve, whether they are well.
    resolved Alive;

    /// A path that every worker has to answer with 2xx or 3xx, in plain HTTP; one that does not is replaced.
    http: plain(Option<String> = None), optional(ALIVE_PATH), unset "none", example r#""/healthz""#,
        more "Only with protocol `node`: each request is handed to the worker that it is about. The new worker starts beside the \
              old one, which serves until that one is ready";
    /// Whether every worker has to take a connection; one that does not is replaced.
    tcp: plain(bool = false), Boolean,
        more "Only with protocol `node`: the connection is handed to the worker that it is about, and closed soon after it has taken it";
    /// A command that has to end with 0, run for every worker; one for which it does not is replaced.
    exec: plain(Option<Vec<String>> = None), optional(Command), unset "none", example r#"["./check.sh"]"#,
        more "With any protocol. It runs as the app's user in its folder, at most once at a time for a worker, and is killed with its \
              process group after `timeout`. Told: slot, worker, pid, generation, in the variables of hooks; its stdout is discarded";
    /// How often each worker is asked.
    every: plain(Duration = Duration::from_secs(10)), TIME_NOT_ZERO;
    /// A request that has no answer after this has failed, and a command that has not ended.
    timeout: plain(Duration = Duration::from_secs(5)), TIME_NOT_ZERO;
    /// How many times in a row that has to fail before the worker is replaced.
    failures: plain(u32 = 3), number::<u32>("failures", 1, ALIVE_FAILURES_MAX);
}

table! {
    in HOOKS;
    raw RawHooks;

    /// A worker became ready.
    worker_ready: raw(Vec<String>), Command, unset "none", example r#"["./hooks/notify.sh", "--quiet"]"#,
        more "Told: slot, worker, pid, generation, uptime (the time that it took)";
    /// A worker's process is gone for whatever reason, or could not be started.
    worker_exit: raw(Vec<String>), Command, unset "none", example r#"["./hooks/notify.sh"]"#,
        more "Told: slot, worker, pid, generation, exit code or signal, uptime, reason";
    /// A new generation serves alone.
    reload_done: raw(Vec<String>), Command, unset "none", example r#"["./hooks/notify.sh"]"#,
        more "Told: generation";
    /// A reload failed, or was refused because the configuration is wrong; the old generation serves.
    reload_failed: raw(Vec<String>), Command, unset "none", example r#"["./hooks/notify.sh"]"#,
        more "Told: generation (not when it was refused), reason";
}

table! {
    in LIMITS;
    raw RawLimits;
    /// What a worker may use before it is replaced, or killed (`hang`). `None`: no limit.
    resolved Limits;

    /// Resident memory of a worker.
    memory: plain(Option<u64> = None), optional(Size), unset "none", example r#""512M""#,
        flag flag("--max-memory", STARTING_AGAIN, "SIZE").alias("max-memory-restart").bare(bytes)
            .help("Replace a worker that uses more memory: \"512M\""),
        more "Read once a second";
    /// Time since its start, less up to a tenth, so that workers do not leave together.
    lifetime: plain(Option<Duration> = None), optional(TIME_NOT_ZERO), unset "none", example r#""24h""#;
    /// Connections that were handed to it.
    max_connections: plain(Option<u64> = None), optional(number::<u64>("max_connections", 1, i64::MAX)), unset "none",
        example "100000",
        more "With `balance = \"shared\"` and `\"kernel\"` clusterd cannot count them";
    /// A Node worker whose event loop does not turn for this time is killed and replaced.
    hang: plain(Option<Duration> = None), optional(HANG), unset "none", example r#""10s""#;
    /// A hung worker first leaves a Node report, and gets SIGABRT before SIGKILL, so that a core is left.
    hang_report: plain(bool = false), Boolean,
        more "A core is written where the system writes them (`ulimit -c`); SIGKILL comes after `kill_timeout`. See below";
    /// Where the report goes: a folder, as the worker finds it.
    hang_report_dir: plain(Option<String> = None), optional(PATH),
        unset "where Node puts reports: `--report-directory`, else the worker's folder", example r#""/var/log/web""#,
        more "It has to exist, and the worker's user has to be able to write there";
    /// Memory of all processes of the app together; where they need more, the kernel kills one of them.
    memory_max: plain(Option<u64> = None), optional(Size), unset "none", example r#""2G""#,
        more "A killed worker is told as that in the log and by `ls`, and replaced";
    /// Memory of all processes of the app together above which the kernel slows them down and takes memory back.
    memory_high: plain(Option<u64> = None), optional(Size), unset "none", example r#""1500M""#,
        more "Only with cgroups of version 2";
    /// CPU time of all processes of the app together: "150%" is one and a half CPUs.
    cpu_max: plain(Option<u32> = None), optional(CpuShare), unset "none", example r#""150%""#,
        more "A whole number is that many CPUs. `workers = \"max\"` still counts the CPUs of clusterd itself";
    /// Processes and threads of the app together; where it has as many, making another one fails.
    pids_max: plain(Option<u32> = None), optional(number::<u32>("pids_max", 1, PIDS_MAX as i64)), unset "none",
        example "200",
        more "A Node worker has about 11 threads. During a reload old and new workers count";
}

table! {
    in LOG;
    raw RawLog;

    /// Where stdout goes: a file, relative to cwd; "NULL" discards it.
    out: raw(Target), TARGET, unset "where clusterd's own goes", example r#""logs/hello-out.log""#,
        flag flag("--output", OUTPUT, "FILE").short('o').alias("out-file").help("Where stdout goes; NULL discards it"),
        more "Folders that are missing are made, files get mode 0640. The same path for `out` and `err`: one file";
    /// Where stderr goes, likewise.
    err: raw(Target), TARGET, unset "where clusterd's own goes", example r#""logs/hello-error.log""#,
        flag flag("--error", OUTPUT, "FILE").alias("error-file").help("Where stderr goes; NULL discards it");
    /// One file for both streams: instead of out and err, or beside them.
    file: raw(Target), TARGET, unset "none", example r#""logs/hello.log""#,
        flag flag("--log", OUTPUT, "FILE").alias("log-file").help("One file for stdout and stderr, beside files of their own"),
        more "A stream that has no file of its own, or \"NULL\", is in this one alone. A master that is killed in the middle of a \
              write may leave a line out of the third file, never out of the other two";
    /// Files for each worker, with its slot before the ending: hello-out-0.log.
    per_worker: raw(bool = false), Boolean, example "true",
        more "The file of the agent is `hello-out-agent.log`";
    /// What a line looks like.
    format: raw(Format = Format::Plain), FORMAT, example r#""json""#,
        flag flag("--log-format", OUTPUT, "FORMAT").alias("log-type").help("plain, or json: one object a line"),
        more "`json`: one object a line, see below";
    /// Time stamps: true, or a format: "%Y-%m-%d %H:%M:%S", "YYYY-MM-DD HH:mm:ss.SSS".
    time: raw(Option<String> = None), TimeStamp, example "true",
        flag flag("--log-date-format", OUTPUT, "FORMAT")
            .help("Put the time before each line, in this format: \"YYYY-MM-DD HH:mm:ss\""),
        more "Before each line: `2026-01-31T12:00:00: text`. The format is strftime's (`\"%Y-%m-%d %H:%M:%S%.3f\"`) or in PM2's \
              tokens (text in `[...]` stays), local time";
    /// Move a file aside before it becomes larger.
    max_size: raw(u64), Size, unset "never", example r#""10M""#;
    /// Move a file aside when it was begun longer ago and the next line comes.
    max_age: raw(Duration), AGE, unset "never", example r#""1d""#;
    /// How many files that were moved aside are kept.
    keep: raw(u32 = defaults::LOG_KEEP), number::<u32>("keep", 1, LOG_FILES_KEPT_MAX as i64), example "30";
    /// Compress those with gzip.
    compress: raw(bool = false), Boolean, example "true";
}

table! {
    in AGENT;
    raw RawAgent;
    /// An app's agent. Environment, folder and user are the workers'.
    resolved Agent, with
    /// What `resolve` makes sure of.
    AgentRest {
        /// Program and arguments; never empty.
        command: Vec<String>,
    }

    /// What it runs: program and arguments.
    command: raw(Vec<String>), Command, unset "required", example r#"["node", "agent.js"]"#;
    /// Whether it gets a channel for messages: "auto" (a Node program does), "node", "none".
    protocol: plain(Protocol = Protocol::Auto), AGENT_PROTOCOL,
        more "`node`: as from Node's `child_process.fork`. `none`: it gets none, and may say `READY=1` to `NOTIFY_SOCKET`. \
              `auto`: `node` where the program is Node";
    /// What makes it ready: "message" (process.send('ready'), or egg's agent-start), "notify" (READY=1), or a time.
    ready: plain(Option<Ready> = None), optional(AGENT_READY),
        unset "`\"message\"` for Node, else `\"1s\"` (or `READY=1` before)", example r#""message""#;
    /// One that is not ready after this has failed.
    ready_timeout: plain(Duration = defaults::READY_TIMEOUT), TIME_NOT_ZERO;
    /// Time between SIGTERM and SIGKILL.
    kill_timeout: plain(Duration = defaults::KILL_TIMEOUT), TIME;
    /// Wait between its death and the next one; it doubles while it dies young.
    restart_delay: plain(Duration = defaults::AGENT_RESTART_DELAY), TIME_NOT_ZERO,
        more "It doubles up to `backoff_max` of `[app.restart]`, while the agent dies before its `min_uptime`";
}

// ---- kinds with a rule of their own ----

pub(super) const TIME: Time = Time { parse: parse::duration, words: "time" };
pub(super) const TIME_NOT_ZERO: Time = Time { parse: parse::duration_not_zero, words: "time" };
const HANG: Time = Time { parse: parse::hang, words: "time, `\"1s\"` at least" };
const AGE: Time = Time { parse: parse::age, words: "time, also in days: `\"1d\"`" };
const NAME: Text<String> = Text {
    wants: "a string",
    parse: |text| Ok(name::check(text).map(|()| text.to_owned())?),
    words: "string",
    show: quoted,
    choices: &[],
};
const PATH: Text<String> = Text { wants: "a string", parse: parse::path, words: "path", show: quoted, choices: &[] };
pub(super) const CRON: Text<String> = Text {
    wants: "a string",
    parse: |text| Ok(cron::read(text)?),
    words: "cron expression",
    show: quoted,
    choices: &[],
};
const ENV_FILES: Texts<String> =
    Texts { parse: parse::path, words: "path, or array of paths", most: None, empty: None };
const VARIABLE_TEXTS: Texts<String> = Texts {
    parse: parse::variable_text,
    words: "string, or array of strings",
    most: TOO_MANY_ENTRIES,
    empty: Some("[]"),
};
const APP_NAMES: Texts<String> = Texts {
    parse: |text| Ok(name::check(text).map(|()| text.to_owned())?),
    words: "name, or array of names",
    most: TOO_MANY_ENTRIES,
    empty: Some("[]"),
};
const PATTERNS: Texts<String> =
    Texts { parse: parse::pattern, words: "string, or array of strings", most: TOO_MANY_ENTRIES, empty: Some("[]") };
const BALANCE: Text<Balancing> =
    Text { wants: "a string", parse: parse::balance, words: "", show: quoted, choices: &Balancing::NAMES };
const PROTOCOL: Text<Protocol> =
    Text { wants: "a string", parse: parse::protocol, words: "", show: quoted, choices: &protocol::NAMES };
const STOP_SIGNAL: Text<String> =
    Text { wants: "a string", parse: parse::stop_signal, words: "", show: quoted, choices: &parse::STOP_SIGNALS };
const AGENT_PROTOCOL: Text<Protocol> = Text { choices: &["auto", "node", "none"], ..PROTOCOL };
/// Failures in a row beyond which nobody would wait.
const ALIVE_FAILURES_MAX: i64 = 1_000;

const ALIVE_PATH: Text<String> =
    Text { wants: "a string", parse: parse::http_path, words: "path", show: quoted, choices: &[] };

const READY: Text<Ready> = Text {
    wants: "a string",
    parse: parse::ready,
    words: "`\"listening\"`, `\"message\"`, `\"notify\"`, `\"http:/path\"`, a time, or a time with one of the first three",
    show: unset,
    choices: &[],
};
const AGENT_READY: Text<Ready> = Text { words: "`\"message\"`, `\"notify\"`, a time, `\"message or 3s\"`", ..READY };
const TARGET: Text<Target> = Text {
    wants: "a path, or \"NULL\" to discard the output",
    parse: |text| Ok(log::target(text)?),
    words: "path, or `\"NULL\"`",
    show: unset,
    choices: &[],
};
const METRICS: Text<Metrics> =
    Text { wants: "a string", parse: parse::metrics, words: "", show: quoted, choices: &Metrics::NAMES };
const FORMAT: Text<Format> = Text {
    wants: "\"plain\" or \"json\"",
    parse: parse::log_format,
    words: "",
    show: quoted,
    choices: &["plain", "json"],
};
const MAX_RESTARTS: CountOr = CountOr {
    name: "max_restarts",
    most: FAILURES_REMEMBERED_MAX as u32,
    unbounded: &["never", "unlimited"],
    hint: " (never give up)",
};
const MAX_RUNS: CountOr = CountOr { name: "max_runs", most: RUNS_MAX, unbounded: &["unlimited"], hint: "" };
