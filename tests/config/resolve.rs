//! Resolution: what a file and a command line become, and what is said of bad ones.
use clusterd::balance::Mode;
use clusterd::config::resolve::{env_files_wanted, resolve};
use clusterd::config::schema::{Setting, settings};
use clusterd::config::sources::{EnvFileSource, FileSource, FileUser, Overrides, Sources};
use clusterd::config::{App, Restart};
use clusterd::config::{Balance, Balancing, Limits, Ready, Workers};
use clusterd::supervisor::Measure;
use std::path::PathBuf;
use std::time::Duration;

pub(super) fn file(text: &str) -> Sources {
    Sources {
        start_folder: "/srv".into(),
        file: Some(FileSource { path: "/srv/c.toml".into(), text: text.into(), notes: Vec::new() }),
        ..Sources::default()
    }
}

fn command(words: &[&str]) -> Sources {
    let command = words.iter().map(|word| (*word).to_owned()).collect();
    Sources {
        start_folder: "/srv".into(),
        overrides: Overrides { command, ..Overrides::default() },
        ..Sources::default()
    }
}

pub(super) fn said(sources: &Sources) -> Vec<String> {
    resolve(sources).unwrap_err().iter().map(ToString::to_string).collect()
}

/// The single app of a file that is fine.
fn app(text: &str) -> App {
    let mut config = resolve(&file(text)).unwrap();
    assert_eq!(config.apps.len(), 1);
    config.apps.remove(0)
}

/// What is said of one line in an app that is fine otherwise; the line is the third.
fn said_of(line: &str) -> Vec<String> {
    said(&file(&format!("[[app]]\ncommand = \"node a.js\"\n{line}\n")))
}

#[track_caller]
fn says(line: &str, wants: &str) {
    let said = said_of(line);
    assert_eq!(said.len(), 1, "{line}: {said:?}");
    assert!(said[0].starts_with("c.toml:3:"), "{line}: {said:?}");
    assert!(said[0].contains(wants), "{line}: {said:?}");
}

#[test]
fn an_address_may_be_a_table_that_says_who_may_connect() {
    let text = "[[app]]\ncommand = \"a\"\nlisten = [\"8080\", { address = \"unix:/a\", mode = \"0660\", owner = 33, group = \"www\" }]\n\
                [[app]]\ncommand = \"a\"\nlisten = { address = \"b.sock\", mode = 0o600 }\n\
                [[app]]\ncommand = \"a\"\nlisten = { address = \"9090\" }\n";
    let text = text.replace("b.sock", "./b.sock");
    let config = resolve(&file(&text)).unwrap();
    let access =
        |n: usize| config.apps[n].socket_access.iter().map(|(path, a)| (path.display().to_string(), a.clone()));
    let (path, first) = access(0).next().unwrap();
    assert_eq!(
        (path.as_str(), first.mode, first.owner.as_deref(), first.group.as_deref()),
        ("/a", Some(0o660), Some("33"), Some("www"))
    );
    let (path, second) = access(1).next().unwrap();
    assert_eq!((path.as_str(), second.mode, second.owner), ("/srv/b.sock", Some(0o600), None));
    assert_eq!(config.apps[2].listen[0].to_string(), "*:9090");
    assert_eq!(access(2).count(), 0);
    says("listen = { mode = \"0660\" }", "address is missing");
    says("listen = { address = \"unix:/a\", mode = \"888\" }", "mode must be octal digits");
    says("listen = { address = \"unix:/a\", mode = 660 }", "mode must be octal digits in quotes");
    says("listen = { address = \"unix:/a\", owners = 1 }", "did you mean \"owner\"?");
    says("listen = [{ address = \"8080\", group = \"www\" }]", "for sockets in the file system");
    says("listen = [7]", "a string, a table with an address");
}

#[test]
fn log_settings_are_decided_together() {
    use clusterd::config::log::{Format, Target};
    let log = |text: &str| app(&format!("[[app]]\ncommand = \"node web.js\"\n{text}")).log;
    assert_eq!(log(""), Default::default());
    let both = log("cwd = \"site\"\nlog.file = \"logs/./web.log\"\n");
    assert_eq!((&both.out, &both.err), (&Target::File("/srv/site/logs/web.log".into()), &both.out));
    let full = log(
        "[app.log]\nout = \"/var/log/o\"\nerr = \"NULL\"\nformat = \"json\"\ntime = \"HH:mm\"\nmax_size = \"10M\"\n\
         max_age = \"7d\"\nkeep = 3\ncompress = true\nper_worker = true\n",
    );
    assert_eq!((full.out.clone(), full.err.clone()), (Target::File("/var/log/o".into()), Target::Null));
    assert_eq!((full.format, full.time.as_deref(), full.per_worker), (Format::Json, Some("%H:%M"), true));
    assert_eq!(full.rotation.max_age, Some(Duration::from_secs(7 * 86_400)));
    assert_eq!((full.rotation.max_size, full.rotation.keep, full.rotation.compress), (Some(10 << 20), 3, true));
    assert_eq!(full.files(2, &[]), [PathBuf::from("/var/log/o-0"), PathBuf::from("/var/log/o-1")]);

    let three = log("log = { file = \"all\", out = \"o\", err = \"NULL\" }");
    assert_eq!((&three.out, &three.err), (&Target::File("/srv/o".into()), &Target::File("/srv/all".into())));
    assert_eq!(three.both, Some(PathBuf::from("/srv/all")));
    assert_eq!(log("log = { file = \"all\", out = \"NULL\" }").both, None);

    says("log.out = \"logs/\"", "add the name of the file");
    says("log.out = \"web-%d.log\"", "per_worker = true");
    says("log = { file = \"NULL\", time = true }", "time does nothing: both out and err are discarded");
    says("log.keep = 3", "keep does nothing without max_size or max_age");
    says("log = { file = \"a\", keep = 3 }", "keep does nothing without max_size or max_age");
    says("log = { file = \"a\", keep = 0, max_size = \"1K\" }", "from 1 to 1000");
    says("log = { file = \"a\", max_age = \"0d\" }", "0d is zero");
    says("log = { file = \"a\", max_age = \"45d\" }", "45d is too long: 30 days");
    says("log = { file = \"a\", max_size = 10 }", "\"10M\" for megabytes");
    says("log = { file = \"a\", format = \"jsn\" }", "did you mean \"json\"");
    says("log = { file = \"a\", time = \"in UTC\" }", "holds no time");
    says("log = { files = \"a\" }", "did you mean \"file\"");
    says("error_file = \"a\"", "write err in [app.log]");
}

#[test]
fn an_app_in_the_background_has_log_files() {
    use clusterd::config::log::Target;
    let mut sources = command(&["node", "web.js"]);
    sources.background = true;
    sources.log_folder = Some("/home/logs".into());
    let log = resolve(&sources).unwrap().apps.remove(0).log;
    assert_eq!(log.out, Target::File("/home/logs/web-out.log".into()));
    assert_eq!(log.err, Target::File("/home/logs/web-error.log".into()));
    let json = serde_json::to_string(&sources).unwrap();
    assert_eq!(serde_json::from_str::<Sources>(&json).unwrap(), sources);
}

#[test]
fn a_command_alone_gets_every_default() {
    let config = resolve(&command(&["node", "web.js"])).unwrap();
    let app = &config.apps[0];
    assert_eq!(app.name, "web");
    assert_eq!(app.command, ["node", "web.js"]);
    assert_eq!(app.workers, Workers::Exactly(1), "without an address");
    assert_eq!(app.ready, None);
    assert_eq!(app.ready_timeout, Duration::from_secs(30));
    assert_eq!(app.kill_timeout, Duration::from_secs(5));
    assert_eq!(app.restart, Restart::default());
    assert_eq!(app.reload.surge, 1);
    assert!(app.listen.is_empty() && !app.prefix && app.env.is_empty() && app.cwd.is_none());
}

#[test]
fn every_key_of_a_file_arrives() {
    let app = app(r#"
[[app]]
name = "shop"
command = ["node", "a b.js"]
workers = "max-1"
listen = ["127.0.0.1:80", "unix:run/a.sock"]
port = 8_080
balance = "sticky"
protocol = "node"
ready = "message"
ready_timeout = "1m"
drain_timeout = "0s"
kill_timeout = "500ms"
env = { A = "1", B = 2, C = true, D = 1.5, E = 0x10 }
cwd = "./code"
user = 33
group = "www-data"
umask = "027"
prefix = true
instance_var = "SLOT"
increment_var = "B"
[app.restart]
min_uptime = "2s"
max_restarts = "never"
window = "1h"
backoff_min = "1s"
backoff_max = "1s"
stop_exit_codes = [3, 0, 3]
[app.reload]
surge = 2
canary = "10s"
settle = "2s"
drain_spread = "1m"
"#);
    assert_eq!(app.name, "shop");
    assert_eq!(app.workers, Workers::MaxMinus(1));
    let listen: Vec<String> = app.listen.iter().map(ToString::to_string).collect();
    assert_eq!(listen, ["*:8080", "127.0.0.1:80", "unix:/srv/run/a.sock"]);
    assert_eq!(app.balance, Balancing::Exactly(Balance::Strategy(Mode::Sticky)));
    assert_eq!(app.ready, Some(Ready::Message));
    assert_eq!(app.drain_timeout, Duration::ZERO);
    let env: Vec<_> = app.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(env, ["A=1", "B=2", "C=true", "D=1.5", "E=16"]);
    assert_eq!(app.cwd, Some(PathBuf::from("/srv/code")));
    assert_eq!((app.user.as_deref(), app.group.as_deref()), (Some("33"), Some("www-data")));
    assert_eq!(app.umask, Some(0o027));
    assert!(app.prefix);
    assert_eq!((app.instance_var.as_str(), app.first_of_increment()), ("SLOT", Some(("B", 2))));
    assert_eq!(app.restart.max_restarts, None);
    assert_eq!(app.restart.stop_exit_codes, [0, 3]);
    assert_eq!(app.reload.surge, 2);
    assert_eq!(app.reload.settle, Duration::from_secs(2));
    assert_eq!((app.reload.canary.as_secs(), app.reload.drain_spread.as_secs()), (10, 60));
}

#[test]
fn every_known_key_is_read() {
    for setting in settings().filter(|setting| !setting.scope.path.is_empty()) {
        let table = setting.scope.path.trim_start_matches("app").trim_start_matches('.');
        let key = if table.is_empty() { setting.name.to_owned() } else { format!("{table}.{}", setting.name) };
        let command = if key == "command" { "" } else { "command = \"node a.js\"\n" };
        let said = match setting.scope.path.split('.').next() {
            Some("app") => said_or_nothing(&format!("[[app]]\n{command}{key} = 1979-05-27\n")),
            _ => said_or_nothing(&format!("{table}.{} = 1979-05-27\n[[app]]\n{command}", setting.name)),
        };
        assert!(said.iter().all(|line| !line.contains("unknown key")), "{key}: {said:?}");
        assert!(said.iter().any(|line| line.contains("a date")), "{key} took a date: {said:?}");
    }
}

#[test]
fn every_default_is_one_that_may_be_written() {
    let typed = |setting: &Setting, value: &str| {
        let table = format!("[{}]", setting.scope.path).replace("[app]", "");
        let line = format!("{} = {value}", setting.name);
        let command = if setting.name == "command" && table.is_empty() { "" } else { "command = \"node a.js\"\n" };
        let agent = if table == "[app.agent]" && setting.name != "command" { "\ncommand = \"a\"" } else { "" };
        said_or_nothing(&format!("[[app]]\n{command}{table}{agent}\n{line}\n"))
    };
    for setting in settings().filter(|setting| !setting.scope.path.is_empty()) {
        for value in [(setting.default)(), setting.example.map(str::to_owned), setting.initial.map(str::to_owned)] {
            let said = value.as_ref().map(|value| typed(setting, value)).unwrap_or_default();
            let needs_another = ["does nothing", "counts from", "was not read", "there is no app"];
            let alone = said.iter().all(|line| needs_another.iter().any(|words| line.contains(words)));
            assert!(alone, "{} = {value:?}: {said:?}", setting.name);
        }
    }
}

fn said_or_nothing(text: &str) -> Vec<String> {
    resolve(&file(text)).err().unwrap_or_default().iter().map(ToString::to_string).collect()
}

#[test]
fn the_command_line_lies_over_the_file() {
    let mut sources = file(
        "[[app]]\ncommand = \"node a.js\"\nport = 1\nlisten = \"/a\"\nworkers = 3\nready = \"message\"\n\
         env.A = \"file\"\nenv.B = \"file\"\nenv.C = \"file\"\nenv.production = { B = \"named\", C = \"named\" }\n",
    );
    sources.overrides = Overrides {
        env: vec![("C".into(), "typed".into())],
        env_names: vec!["production".into()],
        options: [
            ("workers", "2"),
            ("port", "9"),
            ("host", "127.0.0.1"),
            ("listen", "unix:x"),
            ("name", "b"),
            ("cwd", "/else"),
            ("prefix", "true"),
            ("ready", "2s"),
        ]
        .into(),
        ..Overrides::default()
    };
    let app = &resolve(&sources).unwrap().apps[0];
    assert_eq!(app.workers, Workers::Exactly(2));
    let listen: Vec<String> = app.listen.iter().map(ToString::to_string).collect();
    assert_eq!(listen, ["127.0.0.1:9", "unix:/srv/x"]);
    let env: Vec<_> = app.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(env, ["A=file", "B=named", "C=typed"]);
    assert_eq!((app.name.as_str(), app.prefix), ("b", true));
    assert_eq!(app.cwd, Some(PathBuf::from("/else")));
    assert_eq!(app.ready, Some(Ready::After(Duration::from_secs(2))));
}

#[test]
fn bad_options_are_named() {
    let mut sources = command(&["node", "a.js"]);
    sources.overrides.options = [("workers", "0"), ("host", "localhost"), ("listen", "x"), ("name", "a/b")].into();
    sources.overrides.env = vec![("NODE_UNIQUE_ID".into(), "1".into())];
    sources.overrides.env_names = vec!["production".into()];
    let said = said(&sources).join("\n");
    for start in ["--workers: workers must be", "--host: --host goes with", "--listen: \"x\" has no port", "--name: "] {
        assert!(said.contains(start), "{said}");
    }
    assert!(said.contains("--env: NODE_UNIQUE_ID is set by clusterd"), "{said}");
    assert!(said.contains("for a variable write --env NODE_ENV=production"), "{said}");
}

#[test]
fn options_for_one_app_are_refused_for_several() {
    let mut sources = file("[[app]]\ncommand=\"a\"\n[[app]]\ncommand=\"b\"\n");
    sources.overrides.options = [("port", "1"), ("workers", "none")].into();
    let lines = said(&sources);
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with("--port: the file has 2 apps"), "{lines:?}");
    sources.overrides = Overrides { options: [("workers", "3")].into(), ..Overrides::default() };
    let config = resolve(&sources).unwrap();
    assert!(config.apps.iter().all(|app| app.workers == Workers::Exactly(3)));
}

#[test]
fn nothing_to_run_and_too_much_to_run() {
    assert!(said(&Sources::default())[0].contains("nothing to run"));
    let mut sources = file("[[app]]\ncommand=\"a\"\n");
    sources.overrides.command = vec!["b".into()];
    assert!(said(&sources)[0].contains("give one of them"));
    assert_eq!(said(&file(""))[0], "c.toml:1:1: no app is configured: begin with a line [[app]]");
    assert_eq!(
        said(&file("\n [[app]]\n"))[0],
        "c.toml:2:2: command is missing: say what to run, for example command = [\"node\", \"app.js\"]"
    );
}

#[test]
fn unknown_keys_get_the_nearest_name() {
    assert_eq!(said_of("  worker = 2"), ["c.toml:3:3: unknown key \"worker\"; did you mean \"workers\"?"]);
    says("drain_timout = \"1s\"", "did you mean \"drain_timeout\"?");
    says("instances = 2", "did you mean \"workers\"?");
    says("script = \"a.js\"", "write command =");
    says("zzz = 1", "unknown key \"zzz\"");
    says("restart.max_restart = 2", "unknown key \"max_restart\" in [app.restart]; did you mean \"max_restarts\"?");
    says("min_uptime = \"1s\"", "put it into [app.restart]");
    says("metrics = \"python3\"", "did you mean \"python\"?");
    says("metrics = \"prom-client\"\nprotocol = \"none\"", "metrics \"prom-client\" needs protocol \"node\"");
    says("limits.memry = \"1G\"", "unknown key \"memry\" in [app.limits]; did you mean \"memory\"?");
    says("max_memory_restart = \"1G\"", "write memory = \"512M\" in [app.limits]");
    let lines = said(&file("workers = 2\n[[apps]]\ncommand=\"a\"\n"));
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].contains("below a line [[app]]"), "{lines:?}");
    assert!(lines[1].contains("did you mean \"app\"?"), "{lines:?}");
    assert!(said(&file("[app]\ncommand=\"a\"\n"))[0].contains("double brackets"));
}

#[test]
fn values_of_a_wrong_type_say_what_is_wanted() {
    says("workers = true", "workers must be a number, \"max\", \"max-1\", \"50%\" or \"2..8\", not a boolean");
    says("workers = 0", "not \"0\"");
    says("workers = 100000", "from 1 to 4096");
    says("workers = 1.5", "not a number with a fraction");
    says("port = \"80\"", "port must be a number from 0 to 65535");
    says("port = 65536", "not 65536");
    says("port = 99999999999999999999999", "not 99999999999999999999999");
    says("listen = [80]", "must be a string, a table with an address, or an array of these, not a number");
    says("drain_timeout = 30", "has no unit: write \"30s\" for seconds");
    says("ready_timeout = \"0s\"", "is zero");
    says("kill_timeout = \"5\"", "\"5\" has no unit");
    says("prefix = \"yes\"", "must be true or false, not a string");
    says("env = []", "must be a table");
    says("env.A = []", "the variable A must be a string, not an array");
    says("env.\"A B\" = \"\"", "cannot be the name of a variable");
    says("env.LISTEN_FDS = \"3\"", "set by clusterd");
    says("umask = 27", "octal digits in quotes");
    says("umask = \"888\"", "octal");
    says("user = -1", "must be a name or a number");
    says("name = \"a/b\"", "cannot be a name");
    says("cwd = \"\"", "empty");
    says("ready = \"http:healthz\"", "write \"http:/healthz\"");
    says("restart = 1", "restart must be a table");
    says("restart.max_restarts = 0", "from 1 to 256, or \"never\"");
    says("restart.max_restarts = \"none\"", "not \"none\"");
    says("restart.stop_exit_codes = [1, 256]", "from 0 to 255, not 256");
    says("restart.window = \"0s\"", "is zero");
    says("restart.backoff_min = \"1m\"", "longer than backoff_max (15s)");
    says("reload.surge = 0", "from 1 to 4096");
    says("spares = 65", "from 0 to 64");
}

#[test]
fn workers_follow_the_load_between_two_bounds() {
    let fixed = app("[[app]]\ncommand = \"a\"\nworkers = 3\n");
    assert_eq!((fixed.workers, fixed.scale.is_some(), fixed.workers_most(8)), (Workers::Exactly(3), false, 3));
    let plain = app("[[app]]\ncommand = \"a\"\nworkers = \"2..max\"\n");
    let scale = plain.scale.as_ref().unwrap();
    assert_eq!((plain.workers, scale.most), (Workers::Exactly(2), Workers::MaxMinus(0)));
    assert_eq!((scale.by, scale.target_milli, scale.cooldown.as_secs()), (Measure::Cpu, 700, 300));
    assert_eq!((plain.workers_most(8), plain.workers_most(1)), (8, 2), "the lower bound holds on a small machine");
    let typed = app("[[app]]\ncommand = \"a\"\nworkers = \"25%..max-1\"\n[app.scale]\nby = \"queue\"\ntarget = 2\n\
                     schedule = [{ cron = \"0 8 * * 1-5\", workers = \"50%\" }]\n");
    let scale = typed.scale.unwrap();
    assert_eq!((scale.by, scale.target_milli), (Measure::Queue, 2_000));
    assert_eq!((scale.schedule[0].cron.as_str(), scale.schedule[0].workers), ("0 8 * * 1-5", Workers::Percent(50)));
    let queue = app("[[app]]\ncommand = \"a\"\nworkers = \"1..2\"\nscale.by = \"queue\"\n");
    assert_eq!(queue.scale.unwrap().target_milli, 4_000);
}

#[test]
fn bounds_and_targets_that_cannot_be_are_named() {
    for bounds in ["8..2", "4..4", "max..max", "max-1..max-2", "50%..10%"] {
        says(&format!("workers = \"{bounds}\""), "leaves no room: write the smaller number first");
    }
    says("workers = \"2...8\"", "not \".8\"");
    says("workers = \"..8\"", "not \"\"");
    says("workers = \"0..8\"", "from 1 to 4096");
    says("scale.cooldown = \"1m\"", "does nothing without bounds for the number of workers");
    let with_bounds = |line: &str, wants: &str| {
        let said = said(&file(&format!("[[app]]\ncommand = \"node a.js\"\n{line}\nworkers = \"2..8\"\n")));
        assert!(said.len() == 1 && said[0].starts_with("c.toml:3:"), "{line}: {said:?}");
        assert!(said[0].contains(wants), "{line}: {said:?}");
    };
    with_bounds("scale.by = \"memory\"", "\"memory\" is not known; choose \"cpu\", \"loop\", \"queue\"");
    with_bounds("scale.target = \"70\"", "must be a share of a CPU from 1% to 10000%, not \"70\"");
    with_bounds("scale.target = 4", "with by = \"cpu\" a share of a CPU");
    with_bounds("scale = { by = \"queue\", target = \"70%\" }", "with by = \"queue\" a number of connections");
    with_bounds("scale = { by = \"loop\", target = \"170%\" }", "at most 100%");
    with_bounds("scale.target = 0", "from 1 to 10000, not 0");
    with_bounds("scale.cooldown = \"0s\"", "is zero");
    with_bounds("scale.schedule = [{ cron = \"0 8 * *\", workers = 4 }]", "has 4 fields");
    with_bounds("scale.schedule = [{ cron = \"0 8 * * *\" }]", "workers is missing");
    with_bounds("scale.schedule = [{ cron = \"0 8 * * *\", worker = 1, workers = 2 }]", "did you mean \"workers\"?");
    with_bounds("scale.schedule = [{ cron = \"0 8 * * *\", workers = \"2..4\" }]", "not \"2..4\"; bounds stand in");
    with_bounds("scale.schedule = \"0 8 * * *\"", "an array of tables");
    let none = "[[app]]\ncommand = \"a\"\nprotocol = \"none\"\nworkers = \"1..2\"\nscale.by = \"queue\"\n";
    assert!(said(&file(none))[0].contains("protocol \"none\" has none"));
}

#[test]
fn settings_that_contradict_each_other() {
    for (lines, wants) in [
        ("listen = \"80\"\nprotocol = \"none\"", "nobody would take connections"),
        ("spares = 1\nbalance = \"shared\"", "use \"round-robin\""),
        ("spares = 1\nprotocol = \"none\"", "spares need"),
        ("spares = 1\nprotocol = \"node\"\nreload.overlap = false", "must not run together"),
        ("spares = 1\nprotocol = \"bind\"", "add --port or listen"),
        ("ready = \"message\"\nprotocol = \"listen-fds\"", "never comes"),
        ("ready = \"notify\"\nprotocol = \"node\"", "never comes"),
        ("balance = \"sticky\"\nprotocol = \"listen-fds\"", "needs protocol \"node\""),
        ("instance_var = \"CLUSTERD_SLOT\"", "is set by clusterd"),
        ("instance_var = \"A\"\nenv = { A = 1 }", "env sets A too"),
        ("increment_var = \"A\"\ninstance_var = \"A\"", "holds the slot already"),
        ("increment_var = \"NODE_APP_INSTANCE\"", "is set by clusterd"),
        ("increment_var = \"A\"", "counts from the value of A"),
        ("increment_var = \"A\"\nenv = { A = 1.5 }", "no whole number"),
    ] {
        says(lines, wants);
    }
}

#[test]
fn all_problems_of_a_file_are_said_at_once_in_order() {
    let text =
        "[[app]]\nname = \"a\"\nworker = 1\nworkers = false\ncommand = \"a | b\"\n[[app]]\nname = \"a\"\nport = -1\n";
    let lines = said(&file(text));
    let starts: Vec<&str> = lines.iter().map(|line| line.split(": ").next().unwrap()).collect();
    assert_eq!(starts, ["c.toml:3:1", "c.toml:4:11", "c.toml:5:11", "c.toml:6:1", "c.toml:7:8", "c.toml:8:8"]);
    assert!(lines[4].contains("the name \"a\" is taken (line 2)"));
}

#[test]
fn duplicate_keys_and_bad_toml_have_their_place() {
    assert_eq!(
        said(&file("[[app]]\ncommand = \"a\"\nworkers = 1\nworkers = 2\nfoo = 1\n")),
        ["c.toml:4:1: duplicate key \"workers\"", "c.toml:5:1: unknown key \"foo\""]
    );
    assert_eq!(
        said(&file("[[app]]\ncommand = \"a\"\nworkers = max\n")),
        ["c.toml:3:11: text must stand in quotes: \"max\""]
    );
    assert_eq!(said(&file("[[app]]\ncommand =\n")), ["c.toml:2:10: a value is missing"]);
    assert!(said(&file("[[app]]\ncommand = \"a\n"))[0].starts_with("c.toml:2:13: this is not TOML: "));
    let lines = said(&file("[[app]]\ncommand = \"a\"\nenv = { A = \"1\" }\nenv.production = { A = \"2\" }\n"));
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("use dotted keys"), "{lines:?}");
}

#[test]
fn garbage_never_panics() {
    let seeds = [
        "[[app]]\nenv={A={B={}}}\n",
        "\0\u{feff}[[",
        "a=[[[[[",
        "[[app]]\n[[app.env]]\n",
        "app=1",
        "app=[{},1]",
        "'''",
    ];
    for seed in seeds {
        for end in 0..=seed.len() {
            if let Some(part) = seed.get(..end) {
                let _ = resolve(&file(part));
                let _ = env_files_wanted(part, "/", &Overrides::default());
            }
        }
    }
    assert!(resolve(&file(&format!("a={}", "[".repeat(100_000)))).is_err());
    let apps = "[[app]]\ncommand=\"a\"\n".repeat(65);
    assert!(said(&file(&apps))[0].contains("64 is the most"));
}

#[test]
fn a_damaged_file_never_panics() {
    let sample = include_str!("../../config/cluster.toml");
    let mut seed = 0x2545_f491_u32;
    let mut random = move |below: usize| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        seed as usize / 7 % below
    };
    let pieces: Vec<char> = "\"'[]{}=,.#\n\\0-é\u{0}".chars().collect();
    for _ in 0..500 {
        let mut text: Vec<char> = sample.replace("\n# ", "\n").chars().collect();
        for _ in 0..=random(4) {
            let at = random(text.len());
            match random(3) {
                0 => drop(text.remove(at)),
                1 => text.insert(at, pieces[random(pieces.len())]),
                _ => text[at] = pieces[random(pieces.len())],
            }
        }
        let _ = resolve(&file(&text.into_iter().collect::<String>()));
    }
}

#[test]
fn a_file_full_of_mistakes_is_told_in_bounds() {
    let lines = said(&file(&"a\n".repeat(200_000)));
    assert_eq!(lines.len(), 101);
    assert_eq!(lines[100], "more problems than these 100 are not shown");
    let again = said(&file(&format!("[[app]]\ncommand=\"a\"\nenv = {{{}\n", "= {".repeat(200))));
    assert_eq!(*again.last().unwrap(), format!("more problems than these {} are not shown", again.len() - 1));
    let keys: String = (0..50_000).map(|n| format!("key{n} = 1\n")).collect();
    assert_eq!(said(&file(&format!("[[app]]\n{keys}"))).len(), 101);
    let long = "ü".repeat(100_000);
    for line in said(&file(&format!("[[app]]\n\"{long}\" = 1\nworkers = \"{long}\"\ncommand=\"a\"\n"))) {
        assert!(line.chars().count() < 600, "{line}");
    }
}

#[test]
fn addresses_are_taken_once() {
    let lines = said(&file(
        "[[app]]\nname=\"web\"\ncommand=\"a\"\nlisten=[\"0.0.0.0:80\", \"127.0.0.1:80\"]\n[[app]]\ncommand=\"b\"\nport=80\n",
    ));
    assert_eq!(
        lines,
        [
            "c.toml:4:23: 127.0.0.1:80 is taken by 0.0.0.0:80 of the same app (line 4)",
            "c.toml:7:6: *:80 is taken by 0.0.0.0:80 of app \"web\" (line 4)",
        ]
    );
    let lines = said(&file("[[app]]\ncommand=\"a\"\nlisten=[\"unix:a\", \"/srv/./a\"]\n"));
    assert!(lines[0].contains("unix:/srv/a is taken"), "{lines:?}");
    let long = format!("[[app]]\ncommand=\"a\"\nlisten=\"/{}\"\n", "x".repeat(107));
    assert!(said(&file(&long))[0].contains("has 108 bytes"));
    let many: Vec<String> = (1..=129).map(|port| format!("\"{port}\"")).collect();
    assert!(
        said(&file(&format!("[[app]]\ncommand=\"a\"\nlisten=[{}]\n", many.join(","))))[0].contains("128 is the most")
    );
}

#[test]
fn default_names_are_unique() {
    let text = "[[app]]\nname=\"a\"\ncommand=\"x\"\n[[app]]\ncommand=\"node a.js\"\n[[app]]\ncommand=\"node a.js\"\n";
    let config = resolve(&file(text)).unwrap();
    let names: Vec<&str> = config.apps.iter().map(|app| app.name.as_str()).collect();
    assert_eq!(names, ["a", "a-2", "a-3"]);
}

#[test]
fn environment_files_lie_under_env() {
    let text = "[[app]]\ncommand=\"a\"\nenv_file=[\".env\", \"/etc/b\"]\nenv.B=\"table\"\n";
    let own = |path: &str| (path.to_owned(), FileUser::default());
    assert_eq!(env_files_wanted(text, "/srv", &Overrides::default()), [own("/srv/.env"), own("/etc/b")]);
    let mut sources = file(text);
    sources.overrides.env_files = vec!["/srv/typed".into()];
    let read =
        |path: &str, text: &str| EnvFileSource { path: path.into(), user: FileUser::default(), text: Ok(text.into()) };
    sources.env_files = vec![read("/srv/.env", "A=1\nB=1\nC=1"), read("/etc/b", "C=2\nD=2"), read("/srv/typed", "D=3")];
    let env = resolve(&sources).unwrap().apps.remove(0).env;
    let env: Vec<_> = env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(env, ["A=1", "B=table", "C=2", "D=3"]);

    sources.env_files[0].text = Err("no such file".into());
    sources.env_files[1].text = Ok("A=1\noops\n".into());
    sources.env_files.pop();
    assert_eq!(
        said(&sources),
        [
            "c.toml:3:11: cannot read .env: no such file",
            "c.toml:3:19: /etc/b, line 2: is not NAME=value",
            "--env-file: typed was not read",
        ]
    );
}

#[test]
fn environment_files_are_those_of_the_user_who_runs_the_app() {
    let app = |user: &str| format!("[[app]]\ncommand=\"a\"\nenv_file=\".env\"\n{user}\n");
    let text = [app("user=\"a\""), app("user=\"b\"\ngroup=\"g\"")].concat();
    let of = |user: &str, group: Option<&str>| FileUser { user: Some(user.into()), group: group.map(str::to_owned) };
    let wanted = env_files_wanted(&text, "/srv", &Overrides::default());
    assert_eq!(wanted, [("/srv/.env".to_owned(), of("a", None)), ("/srv/.env".to_owned(), of("b", Some("g")))]);
    let mut sources = file(&text);
    let read = |user, text: Result<&str, &str>| EnvFileSource {
        path: "/srv/.env".into(),
        user,
        text: text.map(str::to_owned).map_err(str::to_owned),
    };
    sources.env_files = vec![read(of("a", None), Ok("A=1")), read(of("b", Some("g")), Err("no permission"))];
    assert_eq!(said(&sources), ["c.toml:7:10: cannot read .env: no permission"]);
    // The command line has the last word.
    let typed = Overrides { options: [("user", "c")].into(), ..Overrides::default() };
    assert_eq!(env_files_wanted(&app("user=\"a\""), "/srv", &typed), [("/srv/.env".to_owned(), of("c", None))]);
}

#[test]
fn a_wanted_env_table_must_be_there() {
    let mut sources = file("[[app]]\ncommand=\"a\"\nenv.production.A=\"1\"\n[[app]]\ncommand=\"b\"\n");
    sources.overrides.env_names = vec!["production".into()];
    let config = resolve(&sources).unwrap();
    assert_eq!((config.apps[0].env.len(), config.apps[1].env.len()), (1, 0));
    sources.overrides.env_names = vec!["prodction".into()];
    assert!(said(&sources)[0].contains("did you mean \"production\"?"));
}

#[test]
fn the_same_sources_give_the_same_configuration() {
    let sources = file("[[app]]\ncommand=\"b\"\nenv={Z=\"1\",A=\"2\"}\n[[app]]\ncommand=\"a\"\n");
    let json = serde_json::to_string(&sources).unwrap();
    assert_eq!(resolve(&serde_json::from_str(&json).unwrap()), resolve(&sources));
}

#[test]
fn limits_are_unset_unless_typed() {
    let limits = |text: &str| {
        let config = resolve(&file(&format!("[[app]]\ncommand = \"a\"\n{text}"))).unwrap();
        config.apps[0].limits.clone()
    };
    assert_eq!(limits(""), Limits::default());
    let all = "[app.limits]\nmemory = \"2G\"\nlifetime = \"24h\"\nmax_connections = 7\nhang = \"10s\"\nhang_report = true\nhang_report_dir = \"reports\"\n\
               memory_max = \"3G\"\nmemory_high = \"2G\"\ncpu_max = \"150%\"\npids_max = 99";
    let wanted = Limits {
        memory: Some(2 << 30),
        lifetime: Some(Duration::from_secs(86_400)),
        max_connections: Some(7),
        hang: Some(Duration::from_secs(10)),
        hang_report: true,
        hang_report_dir: Some("reports".to_owned()),
        memory_max: Some(3 << 30),
        memory_high: Some(2 << 30),
        cpu_max: Some(150),
        pids_max: Some(99),
    };
    assert_eq!(limits(all), wanted);
    says("limits = 1", "limits must be a table");
    says("limits.memory = 512", "has no unit: write \"512M\" for megabytes");
    says("limits.memory = \"512MB\"", "a size must be a whole number with the unit K, M or G");
    says("limits.memory = \"0M\"", "is zero");
    says("limits.memory = \"99999999999999G\"", "1024G is the most");
    says("limits.hang = \"500ms\"", "\"1000ms\" is the least here");
    says("limits.lifetime = \"0s\"", "is zero");
    says("limits.max_connections = 0", "max_connections must be a number from 1");
    says("limits.hang_report = true", "does nothing without hang");
    says("limits.hang = \"1s\"\nprotocol = \"listen-fds\"", "limits.hang needs protocol \"node\"");
    for way in ["shared", "kernel"] {
        let lines = format!("limits.max_connections = 1\nbalance = \"{way}\"\nprotocol = \"node\"");
        says(&lines, "limits.max_connections needs");
    }
}

#[test]
fn flags_of_every_table_lie_over_the_file() {
    let mut sources = file(
        "[[app]]\ncommand = \"a\"\nwatch = [\"src\"]\n[app.restart]\nmin_uptime = \"9s\"\nbackoff_min = \"9s\"\n\
         [app.limits]\nmemory = \"1G\"\n",
    );
    sources.overrides.options = [
        ("min-uptime", "2s"),
        ("max-restarts", "never"),
        ("max-runs", "3"),
        ("restart-delay", "4s"),
        ("spin-sleep", "5s"),
        ("stop-exit-codes", "0"),
        ("stop-exit-codes", "3"),
        ("max-memory", "2G"),
        ("cron-restart", "@daily"),
        ("watch", "true"),
        ("watch-ignore", "*.log"),
        ("watch-delay", "1s"),
    ]
    .into();
    let app = resolve(&sources).unwrap().apps.remove(0);
    let restart = Restart {
        min_uptime: Duration::from_secs(2),
        max_restarts: None,
        max_runs: Some(3),
        delay: Duration::from_secs(4),
        backoff_first: Duration::from_secs(5),
        backoff_min: Duration::from_secs(5),
        backoff_max: Duration::from_secs(5),
        stop_exit_codes: vec![0, 3],
        ..Restart::default()
    };
    assert_eq!(app.restart, restart);
    assert_eq!((app.limits.memory, app.cron_restart.is_some()), (Some(2 << 30), true));
    let watch = app.watch.unwrap();
    assert_eq!((watch.paths, watch.ignore), (vec![PathBuf::from("/srv/src")], vec!["*.log".to_owned()]));
    sources.overrides.options = [("watch", "true")].into();
    sources.file = None;
    sources.overrides.command = vec!["a".into()];
    assert!(resolve(&sources).unwrap().apps[0].watch.as_ref().unwrap().paths.is_empty());
}
