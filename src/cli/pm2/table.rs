//! Every verb and option of PM2 7, as its `--help` lists them, with what becomes of it here. `docs/migrating.md` has the
//! table, the command line reads from it what it takes with a note and what it refuses.

/// What a verb or an option of PM2 is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It does what it does in PM2, in these words if that has to be said.
    Works(&'static str),
    /// It is taken, and does nothing: why.
    Note(&'static str),
    /// It is refused: what to use.
    Refused(&'static str),
}

/// A verb of PM2.
#[derive(Clone, Copy, Debug)]
pub struct Verb {
    /// Its names.
    pub names: &'static [&'static str],
    pub outcome: Outcome,
    /// Words behind it that make it complete.
    pub example: &'static str,
}

/// An option of PM2.
#[derive(Clone, Copy, Debug)]
pub struct Opt {
    /// Without its dashes.
    pub long: &'static str,
    pub short: Option<char>,
    /// What its value is called; empty: it has none.
    pub value: &'static str,
    pub outcome: Outcome,
    /// A command line with it, behind the name of the program.
    pub example: &'static str,
}

use Outcome::{Note, Refused, Works};

const fn verb(names: &'static [&'static str], example: &'static str, outcome: Outcome) -> Verb {
    Verb { names, outcome, example }
}

const NO_MODULES: Outcome = Refused("there are no modules: run the program as an app, with clusterd start");
const NO_DASHBOARD: Outcome = Refused(
    "there is no dashboard to log in to: clusterd top shows everything here, and clusterd ls --json is for scripts",
);
const NO_SETTINGS: Outcome =
    Refused("settings are in the configuration of each app: clusterd init writes it, explained");
const NO_CODE: Outcome = Refused(
    "clusterd fetches no code: run git yourself, then clusterd reload NAME; clusterd rollback NAME goes back to the release before",
);
const PROFILE: Outcome =
    Refused("clusterd itself has no heap to look at; for a worker: clusterd profile web/0 --cpu 10s, or --heap");
const UPGRADE: Outcome = Works("`upgrade`: the new binary takes over sockets and workers");

/// Every verb, in the order of PM2's help.
pub const VERBS: &[Verb] = &[
    verb(&["start"], "app.js", Works("")),
    verb(
        &["trigger"],
        "web act",
        Works("actions and metrics of `@pm2/io` and `tx2`; `describe` and `ls --json` show them"),
    ),
    verb(
        &["deploy"],
        "production",
        Refused("clusterd copies no code to machines: end your own deployment with clusterd reload NAME"),
    ),
    verb(&["startOrRestart"], "ecosystem.config.js", Works("")),
    verb(&["startOrReload"], "ecosystem.config.js", Works("")),
    verb(&["pid"], "web", Works("")),
    verb(&["create"], "", Refused("clusterd init writes a configuration")),
    verb(&["startOrGracefulReload"], "ecosystem.config.js", Works("")),
    verb(&["stop"], "web", Works("")),
    verb(&["restart"], "web", Works("")),
    verb(&["scale"], "web 4", Works("")),
    verb(&["profile:mem", "profile:cpu"], "", PROFILE),
    verb(&["reload"], "web", Works("")),
    verb(&["id"], "web", Works("")),
    verb(
        &["inspect"],
        "web",
        Works("opens the inspector of the first worker on the loopback address, and prints where"),
    ),
    verb(&["delete", "del"], "web", Works("")),
    verb(&["sendSignal"], "SIGUSR2 web", Works("")),
    verb(&["ping"], "", Works("`pong` and how many deployments answer; there is no daemon to launch")),
    verb(&["updatePM2", "update", "deepUpdate"], "", UPGRADE),
    verb(
        &[
            "install",
            "module:install",
            "module:update",
            "module:generate",
            "uninstall",
            "module:uninstall",
            "package",
            "publish",
            "module:publish",
            "autoinstall",
        ],
        "pm2-logrotate",
        NO_MODULES,
    ),
    verb(&["install-otel", "uninstall-otel"], "", NO_MODULES),
    verb(&["set", "multiset", "get", "conf", "config", "unset"], "key value", NO_SETTINGS),
    verb(&["open"], "", Works("prints the address of the page for browsers (`[control] page = true`)")),
    verb(&["report"], "", Works("")),
    verb(&["link", "unlink", "monitor", "unmonitor", "plus", "register", "login", "logout"], "web", NO_DASHBOARD),
    verb(&["dump", "save"], "", Works("")),
    verb(&["cleardump"], "", Works("")),
    verb(
        &["send"],
        "0 line",
        Works("for an app with `stdin = true` (`--stdin`); `web/2` is one worker, a name all of them"),
    ),
    verb(&["attach"], "0", Works("what is typed needs `stdin = true` (`--stdin`); Ctrl-C leaves the worker running")),
    verb(&["resurrect"], "", Works("")),
    verb(&["unstartup"], "", Works("")),
    verb(&["startup"], "", Works("systemd; `-u USER` is `--system USER`, `--hp` is not needed")),
    verb(
        &["logrotate"],
        "",
        Refused("max_size, max_age and keep in [app.log] rotate; your own logrotate calls clusterd reloadLogs"),
    ),
    verb(&["ecosystem", "init"], "", Works("writes `cluster.toml`, with every key explained")),
    verb(&["reset"], "web", Works("")),
    verb(&["describe", "desc", "info", "show"], "web", Works("")),
    verb(&["env"], "0", Works("")),
    verb(&["list", "ls", "l", "ps", "status"], "", Works("")),
    verb(&["jlist"], "", Works("the fields of PM2's that scripts read; `ls --json` has clusterd's own")),
    verb(
        &["slist", "sysinfos"],
        "",
        Refused("for the machine use its own tools (vmstat, top); for the apps: clusterd ls --json"),
    ),
    verb(&["prettylist"], "", Works("as `jlist`, in lines")),
    verb(&["monit", "imonit", "dashboard", "dash"], "", Works("`top`")),
    verb(&["flush"], "", Works("")),
    verb(&["reloadLogs"], "", Works("")),
    verb(&["logs"], "web", Works("")),
    verb(&["kill"], "", Works("")),
    verb(&["pull", "forward", "backward"], "web", NO_CODE),
    verb(&["serve", "expose"], ". 8080", Works("workers of clusterd's own; `--port` and `--name` as with `start`")),
    verb(&["examples"], "", Refused("clusterd --help has examples, and so has clusterd help start")),
];

/// Verbs of other managers (forever, supervisorctl, systemctl, docker compose) that are none here.
pub const VERBS_ELSEWHERE: &[Verb] = &[
    verb(&["stopall"], "", Refused("use clusterd stop all")),
    verb(&["restartall"], "", Refused("use clusterd restart all")),
    verb(&["cleanlogs"], "", Refused("use clusterd flush")),
    verb(&["columns"], "", Refused("use clusterd ls --json, and jq chooses the columns")),
    verb(&["tail", "maintail", "fg"], "web", Refused("use clusterd logs NAME")),
    verb(&["clear"], "web", Refused("use clusterd flush NAME")),
    verb(
        &["reread", "avail", "add"],
        "web",
        Refused("clusterd start FILE starts what is new in a file, and gives the others their new settings"),
    ),
    verb(&["remove"], "web", Refused("use clusterd delete NAME")),
    verb(&["shutdown"], "", Refused("use clusterd kill")),
    verb(&["version"], "", Refused("use clusterd --version")),
    verb(&["up"], "", Refused("use clusterd start FILE")),
    verb(&["down"], "", Refused("use clusterd kill")),
    verb(
        &["run", "exec"],
        "web",
        Refused("clusterd start runs it in the background, clusterd -- COMMAND in the foreground"),
    ),
    verb(&["enable"], "web", Refused("use clusterd save and clusterd startup")),
    verb(&["disable"], "web", Refused("use clusterd unstartup")),
    verb(&["daemon-reload"], "", Refused("use clusterd reload NAME, which reads the configuration again")),
    verb(&["exit", "quit"], "", Refused("there is no shell to leave: each verb is a command of its own")),
];

const fn opt(
    option: &'static str,
    short: Option<char>,
    value: &'static str,
    example: &'static str,
    outcome: Outcome,
) -> Opt {
    let (_, long) = option.split_at(2);
    Opt { long, short, value, outcome, example }
}

const AS_SOMEBODY: &str = "serve . 8080 --basic-auth-username web --basic-auth-password secret";

const NO_AGENT: Outcome =
    Note("there is no agent in the app; clusterd ls shows the delay of every event loop by itself");
const NO_CONTAINER: Outcome = Refused("clusterd builds no images: put it into your own, as the command that is run");

/// Every option, in the order of PM2's help.
pub const OPTIONS: &[Opt] = &[
    opt("--version", Some('V'), "", "--version", Works("")),
    opt("--version", Some('v'), "", "-v", Works("")),
    opt("--silent", Some('s'), "", "restart web -s", Works("errors are still printed; `ls -s` is `ls --short`")),
    opt(
        "--ext",
        None,
        "EXTENSIONS",
        "start app.js --ext js",
        Note("--ext is left out: --watch-ignore names what is not to be watched"),
    ),
    opt("--name", Some('n'), "NAME", "start app.js --name web", Works("")),
    opt("--mini-list", Some('m'), "", "ls -m", Works("`--short`")),
    opt("--interpreter", None, "PROGRAM", "start app.py --interpreter python3", Works("")),
    opt("--interpreter-args", None, "ARGS", "start app.js --interpreter-args --inspect", Works("")),
    opt("--node-args", None, "ARGS", "start app.js --node-args --inspect", Works("")),
    opt("--output", Some('o'), "FILE", "start app.js -o out.log", Works("")),
    opt("--error", Some('e'), "FILE", "start app.js -e ./err.log", Works("`-e` with a path; `-e K=V` sets a variable")),
    opt("--log", Some('l'), "FILE", "start app.js -l ./all.log", Works("`-l` with a path; `-l ADDRESS` listens")),
    opt(
        "--filter-env",
        None,
        "TEXTS",
        "start app.js --filter-env SECRET,TOKEN",
        Works("variables whose names contain one of these"),
    ),
    opt("--log-type", None, "FORMAT", "start app.js --log-type json", Works("`--log-format`")),
    opt("--log-date-format", None, "FORMAT", "start app.js --log-date-format YYYY-MM-DD", Works("")),
    opt("--time", None, "", "start app.js --time", Works("")),
    opt("--disable-logs", None, "", "start app.js --disable-logs", Works("")),
    opt("--env", None, "NAME", "start ecosystem.config.js --env production", Works("")),
    opt("--update-env", Some('a'), "", "restart web -a", Works("")),
    opt("--force", Some('f'), "", "start app.js -f", Works("")),
    opt("--instances", Some('i'), "N", "start app.js -i max", Works("")),
    opt(
        "--parallel",
        None,
        "N",
        "restart all --parallel 2",
        Note("--parallel is left out: restarts run beside each other, and a reload goes app by app"),
    ),
    opt(
        "--shutdown-with-message",
        None,
        "",
        "start app.js --shutdown-with-message",
        Note("--shutdown-with-message is left out: the message is always sent, before the signal"),
    ),
    opt(
        "--pid",
        Some('p'),
        "FILE",
        "start app.js -p web.pid",
        Note("--pid is left out: clusterd pid NAME prints the pids; -p NUMBER is a port"),
    ),
    opt("--kill-timeout", Some('k'), "MS", "start app.js -k 3000", Works("")),
    opt(
        "--listen-timeout",
        None,
        "MS",
        "start app.js --listen-timeout 60000",
        Works(
            "with `--wait-ready` the time after which a worker counts as ready, else `--ready-timeout`, where it is \
             longer than 30 s",
        ),
    ),
    opt("--max-memory-restart", None, "SIZE", "start app.js --max-memory-restart 300M", Works("")),
    opt("--restart-delay", None, "MS", "start app.js --restart-delay 1000", Works("")),
    opt(
        "--exp-backoff-restart-delay",
        None,
        "MS",
        "start app.js --exp-backoff-restart-delay 100",
        Works("`--backoff-min`; it doubles"),
    ),
    opt(
        "--execute-command",
        Some('x'),
        "",
        "start app.js -x",
        Note("-x is left out: a Node program is a worker of the cluster, any other runs as it is"),
    ),
    opt("--max-restarts", None, "N", "start app.js --max-restarts 5", Works("in five minutes")),
    opt(
        "--user",
        Some('u'),
        "USER",
        "startup -u web",
        Works("of `startup`: `--system USER`; of `start`: who workers run as"),
    ),
    opt("--uid", None, "USER", "start app.js --uid web", Works("`--user`")),
    opt("--gid", None, "GROUP", "start app.js --gid web", Works("`--group`")),
    opt("--namespace", None, "NAME", "start app.js --namespace shop", Works("")),
    opt("--cwd", None, "DIR", "start app.js --cwd /srv", Works("")),
    opt("--hp", None, "DIR", "startup --hp /home/web", Note("--hp is left out: the unit has the home of its user")),
    opt(
        "--wait-ip",
        None,
        "",
        "startup --wait-ip",
        Note("--wait-ip is left out: the unit waits for network-online.target"),
    ),
    opt(
        "--service-name",
        None,
        "NAME",
        "startup --service-name web",
        Note("--service-name is left out: the unit is clusterd.service, or clusterd-USER.service"),
    ),
    opt(
        "--cron",
        Some('c'),
        "CRON",
        "start app.js --cron @daily",
        Works("`-c` with an expression of five fields; `-c FILE` is a configuration"),
    ),
    opt("--cron-restart", Some('c'), "CRON", "start app.js --cron-restart @daily", Works("")),
    opt(
        "--write",
        Some('w'),
        "",
        "start app.js --write",
        Note("--write is left out: clusterd init writes a configuration; -w is the number of workers"),
    ),
    opt("--no-daemon", None, "", "start app.js --no-daemon", Works("runs it in the foreground")),
    opt(
        "--source-map-support",
        None,
        "",
        "start app.js --source-map-support",
        Works("Node's own `--enable-source-maps`"),
    ),
    opt("--only", None, "NAME", "start ecosystem.config.js --only web", Works("")),
    opt(
        "--disable-source-map-support",
        None,
        "",
        "start app.js --disable-source-map-support",
        Note("--disable-source-map-support is left out: it is off unless --source-map-support is given"),
    ),
    opt(
        "--wait-ready",
        None,
        "",
        "start app.js --wait-ready",
        Works(
            "`--ready \"message or 30s\"`: as in PM2, a worker that never sends it counts as ready then, with a warning; \
             `--ready message` is strict",
        ),
    ),
    opt(
        "--merge-logs",
        None,
        "",
        "start app.js --merge-logs",
        Note("--merge-logs is left out: all workers of an app write into the same files, unless per_worker is set"),
    ),
    opt("--watch", None, "DIR", "start app.js --watch", Works("a rolling reload; `--watch DIR`, `--watch-path`")),
    opt("--ignore-watch", None, "PATTERN", "start app.js --watch --ignore-watch tmp", Works("")),
    opt("--watch-delay", None, "TIME", "start app.js --watch --watch-delay 4", Works("")),
    opt(
        "--no-color",
        None,
        "",
        "ls --no-color",
        Note("--no-color is left out: NO_COLOR=1 does that, and files and pipes get no colours"),
    ),
    opt(
        "--no-vizion",
        None,
        "",
        "start app.js --no-vizion",
        Note("--no-vizion is left out: clusterd does not look for a repository"),
    ),
    opt("--no-autostart", None, "", "start app.js --no-autostart", Works("")),
    opt("--no-autorestart", None, "", "start app.js --no-autorestart", Works("")),
    opt("--stop-exit-codes", None, "CODES", "start app.js --stop-exit-codes 1 2", Works("")),
    opt(
        "--no-treekill",
        None,
        "",
        "start app.js --no-treekill",
        Note(
            "--no-treekill is left out: what a worker started ends with it; run what has to stay as an app of its own",
        ),
    ),
    opt("--no-pmx", None, "", "start app.js --no-pmx", NO_AGENT),
    opt("--no-automation", None, "", "start app.js --no-automation", NO_AGENT),
    opt("--trace", None, "", "start app.js --trace", NO_AGENT),
    opt("--disable-trace", None, "", "start app.js --disable-trace", NO_AGENT),
    opt("--sort", None, "FIELD", "ls --sort memory:desc", Works("")),
    opt("--attach", None, "", "restart web --attach", Works("")),
    opt("--port", None, "PORT", "serve . --port 8080", Works("")),
    opt("--spa", None, "", "serve . 8080 --spa", Works("")),
    opt("--ftp", None, "", "serve . 8080 --ftp", Refused("clusterd serves files over HTTP alone")),
    opt("--basic-auth-username", None, "NAME", AS_SOMEBODY, Works("")),
    opt("--basic-auth-password", None, "PASSWORD", AS_SOMEBODY, Works("")),
    opt("--monitor", None, "", "serve . 8080 --monitor", Refused("clusterd changes no page that it serves")),
    opt("--v8", None, "", "start app.js --v8", NO_AGENT),
    opt("--event-loop-inspector", None, "", "start app.js --event-loop-inspector", NO_AGENT),
    opt("--deep-monitoring", None, "", "start app.js --deep-monitoring", NO_AGENT),
    opt("--help", Some('h'), "", "--help", Works("")),
    opt("--json", None, "", "logs web --json", Works("")),
    opt("--format", None, "", "logs web --format", Note("--format is left out: --json has the same fields")),
    opt("--raw", None, "", "logs web --raw", Works("")),
    opt("--err", None, "", "logs web --err", Works("")),
    opt("--out", None, "", "logs web --out", Works("")),
    opt("--lines", None, "N", "logs web --lines 50", Works("")),
    opt("--timestamp", None, "FORMAT", "logs web --timestamp HH:mm:ss", Works("")),
    opt("--nostream", None, "", "logs web --nostream", Works("")),
    opt("--highlight", None, "WORD", "logs web --highlight error", Works("")),
    opt("--fresh", None, "", "start app.js --fresh", NO_CONTAINER),
    opt("--daemon", None, "", "start app.js --daemon", NO_CONTAINER),
    opt("--container", None, "", "start app.js --container", NO_CONTAINER),
    opt("--dist", None, "", "start app.js --dist", NO_CONTAINER),
    opt("--image-name", None, "NAME", "start app.js --image-name web", NO_CONTAINER),
    opt("--node-version", None, "MAJOR", "start app.js --node-version 20", NO_CONTAINER),
    opt("--dockerdaemon", None, "", "start app.js --dockerdaemon", NO_CONTAINER),
];

/// The verb of this name, of PM2 or another process manager.
pub fn verb_called(name: &str) -> Option<&'static Verb> {
    VERBS.iter().chain(VERBS_ELSEWHERE).find(|verb| verb.names.contains(&name))
}

/// The option that a word names, with one dash or two.
pub fn option_called(word: &str) -> Option<&'static Opt> {
    match word.strip_prefix("--") {
        Some(long) => {
            let long = long.split('=').next().unwrap_or_default();
            OPTIONS.iter().find(|option| option.long == long)
        }
        None => {
            let mut letters = word.strip_prefix('-')?.chars();
            let letter = letters.next().filter(|_| letters.next().is_none());
            OPTIONS.iter().find(|option| option.short.is_some() && option.short == letter)
        }
    }
}

/// How many verbs and options there are of each outcome, in a sentence.
pub fn counts() -> String {
    let verbs: Vec<Outcome> = VERBS.iter().flat_map(|verb| verb.names.iter().map(|_| verb.outcome)).collect();
    let options: Vec<Outcome> = OPTIONS.iter().map(|option| option.outcome).collect();
    let of = |what: &str, all: &[Outcome]| {
        let count = |is: fn(&Outcome) -> bool| all.iter().filter(|outcome| is(outcome)).count();
        let works = count(|outcome| matches!(outcome, Works(_)));
        let notes = count(|outcome| matches!(outcome, Note(_)));
        let refused = count(|outcome| matches!(outcome, Refused(_)));
        format!("{works} of {} {what} work, {notes} are taken with a note, {refused} are refused", all.len())
    };
    format!("{}; {}. A refusal says what to use.", of("verbs", &verbs), of("options", &options))
}

/// Both tables as Markdown, for `docs/migrating.md`.
pub fn markdown() -> String {
    let said = |outcome: Outcome| match outcome {
        Works("") => "works".to_owned(),
        Works(how) => format!("works: {how}"),
        Note(why) => format!("taken with a note: {why}"),
        Refused(instead) => format!("refused: {instead}"),
    };
    let mut text = format!("{}\n\n| verb of PM2 | here |\n|---|---|\n", counts());
    for verb in VERBS {
        let names: Vec<String> = verb.names.iter().map(|name| format!("`{name}`")).collect();
        text.push_str(&format!("| {} | {} |\n", names.join(", "), said(verb.outcome).replace('|', "\\|")));
    }
    text.push_str("\n| option of PM2 | here |\n|---|---|\n");
    for option in OPTIONS {
        let short = option.short.map_or_else(String::new, |short| format!("`-{short}`, "));
        let value = if option.value.is_empty() { String::new() } else { format!(" {}", option.value) };
        text.push_str(&format!(
            "| {short}`--{}{value}` | {} |\n",
            option.long,
            said(option.outcome).replace('|', "\\|")
        ));
    }
    text
}
