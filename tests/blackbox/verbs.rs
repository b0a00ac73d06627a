//! Every verb as somebody types it who comes from PM2: all names of it, what it says of a target that is not there, and
//! the fields of `--json`, which are those of the documentation.
use super::apps::project;
use super::background::Home;
use super::cluster::{command, kill, run, wait_until};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Names of a verb, side by side.
const NAMES: [&[&str]; 40] = [
    &["start"],
    &["ls", "list", "status", "ps", "l"],
    &["jlist"],
    &["prettylist"],
    &["startOrRestart"],
    &["startOrReload", "startOrGracefulReload"],
    &["pid"],
    &["id"],
    &["reset"],
    &["inspect"],
    &["ping"],
    &["report"],
    &["cleardump"],
    &["top", "monit", "imonit", "dashboard", "dash"],
    &["describe", "show", "info", "desc"],
    &["stop"],
    &["restart"],
    &["reload", "gracefulReload"],
    &["delete", "del"],
    &["scale"],
    &["env"],
    &["signal", "sendSignal"],
    &["save", "dump"],
    &["resurrect"],
    &["startup"],
    &["unstartup"],
    &["init", "ecosystem"],
    &["kill"],
    &["completions"],
    &["man"],
    &["check"],
    &["logs"],
    &["flush"],
    &["reloadLogs", "reopen-logs"],
    &["import"],
    &["send"],
    &["attach"],
    &["trigger"],
    &["profile"],
    &["serve", "expose"],
];

#[test]
fn every_verb_has_the_names_that_people_know_and_help_that_is_documented() {
    let home = Home::new();
    let docs = fs::read_to_string(project("docs/command-line.md")).unwrap();
    for names in NAMES {
        let help = home.run(&["help", names[0]]);
        assert_eq!(help.0, 0, "{names:?}: {}", help.2);
        for name in names {
            assert_eq!(home.run(&["help", name]), help, "{name}");
            assert!(docs.contains(&format!("`{name}`")) || docs.contains(&format!("`{name} ")), "{name} in the docs");
        }
    }
}

#[test]
fn a_target_that_is_not_there_is_refused_by_every_verb_with_the_nearest_name() {
    let home = Home::new();
    for verb in ["describe", "env", "reload", "restart", "stop", "delete"] {
        assert!(home.fails(&[verb, "webshop"]).contains("nothing runs here"), "{verb}");
    }
    home.ok(&["start", "-n", "webshop", "-w", "1", "--ready", "1ms", "--", "sleep", "1000"]);
    let pid = home.app("webshop").workers[0].pid;
    let typed: [&[&str]; 14] = [
        &["start", "webshp"],
        &["describe", "webshp"],
        &["describe", "webshp", "--json"],
        &["env", "webshp"],
        &["reload", "webshp"],
        &["restart", "webshp"],
        &["stop", "webshp"],
        &["delete", "webshp"],
        &["scale", "webshp", "2"],
        &["signal", "SIGTERM", "webshp"],
        &["upgrade", "webshp"],
        &["logs", "webshp"],
        &["flush", "webshp"],
        &["reloadLogs", "webshp"],
    ];
    for args in typed {
        let said = home.fails(args);
        assert!(said.contains("did you mean \"webshop\"?"), "{args:?}: {said}");
    }
    // Of several words the others are carried out, and the command has failed all the same.
    assert!(home.fails(&["signal", "SIGWINCH", "webshp", "webshop"]).contains("sent to 1 worker"));
    assert_eq!(home.app("webshop").workers[0].pid, pid);
}

/// The names in the first column of the table that begins with this heading; `true`: it may be absent, as its row says.
fn documented(page: &str, heading: &str) -> BTreeMap<String, bool> {
    let text = fs::read_to_string(project(page)).unwrap();
    let table = text.split_once(heading).unwrap_or_else(|| panic!("{heading} in {page}")).1;
    let rows = table.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
    let mut names = BTreeMap::new();
    for row in rows.take_while(|line| line.starts_with('|')) {
        let cell = row.split('|').nth(1).unwrap_or_default();
        names.extend(cell.split('`').skip(1).step_by(2).map(|name| (name.to_owned(), row.contains("absent"))));
    }
    assert!(!names.is_empty(), "{heading} in {page} has no rows");
    names
}

/// What is printed is documented, and the other way round.
#[track_caller]
fn agree(printed: &BTreeSet<String>, documented: &BTreeMap<String, bool>) {
    let unknown: Vec<&String> = printed.iter().filter(|name| !documented.contains_key(*name)).collect();
    let missing: Vec<&String> = documented
        .iter()
        .filter(|(name, absent)| !**absent && !printed.contains(*name))
        .map(|(name, _)| name)
        .collect();
    assert!(unknown.is_empty() && missing.is_empty(), "not documented: {unknown:?}; not printed: {missing:?}");
}

/// The names that any of these objects has.
fn printed<'a>(objects: impl IntoIterator<Item = &'a Value>) -> BTreeSet<String> {
    objects.into_iter().flat_map(|object| object.as_object().unwrap().keys().cloned()).collect()
}

fn json(home: &Home, args: &[&str], code: i32) -> Value {
    let (got, out, err) = home.run(args);
    assert_eq!(got, code, "{args:?}: {err}");
    serde_json::from_str(&out).unwrap_or_else(|e| panic!("{args:?}: {e}\n{out}"))
}

fn all<'a>(values: &'a Value, field: &str) -> Vec<&'a Value> {
    values.as_array().unwrap().iter().flat_map(|value| value[field].as_array().unwrap()).collect()
}

/// Its control socket goes before its name is free.
#[test]
fn a_deployment_that_is_ending_is_there_or_gone_and_never_neither() {
    let home = Home::new();
    home.ok(&["start", "-n", "job", "-w", "1", "--ready", "1ms", "--", "sleep", "1000"]);
    let job = home.deployments().remove(0);
    let both = [job.keeper_pid, job.master_pid];
    both.iter().for_each(|&pid| kill(pid, "STOP"));
    fs::remove_file(home.folder.path().join("home/run/job.sock")).unwrap();
    let mut ls = command(&home.folder).args(["ls", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    // It waits, because the name is held. Without that it ends here, and has nothing to show.
    let until = Instant::now() + Duration::from_millis(200);
    while Instant::now() < until {
        assert_eq!(ls.try_wait().unwrap(), None, "it did not wait");
        std::thread::sleep(Duration::from_millis(5));
    }
    both.iter().for_each(|&pid| kill(pid, "KILL"));
    let listed: Value = serde_json::from_slice(&ls.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(all(&listed, "apps")[0]["status"], "gone", "{listed}");
}

#[test]
fn the_fields_of_json_are_those_that_are_documented() {
    let (cli, api) = ("docs/command-line.md", "docs/control-api.md");
    let home = Home::new();
    home.web("web", "1");
    home.folder.write(
        "talk.toml",
        "[[app]]\nname = \"talk\"\ncommand = [\"sh\", \"-c\", \"echo hello; exec sleep 1000\"]\nworkers = 1\n\
         ready = \"1ms\"\nbefore = [\"true\"]\n[app.log]\nformat = \"json\"\n[app.agent]\ncommand = [\"sleep\", \"1000\"]\nready = \"1ms\"\n",
    );
    home.ok(&["start", "talk.toml"]);
    home.ok(&["start", "-n", "job", "-w", "1", "--ready", "1ms", "--", "sleep", "1000"]);
    kill(home.deployments().iter().find(|d| d.name == "job").unwrap().keeper_pid, "KILL");
    wait_until("its end", || home.app("job").status == "gone");

    let listed = json(&home, &["ls", "--json"], 0);
    let deployments = documented(api, "**Deployment**").into_iter().chain(documented(cli, "| ls | |")).collect();
    agree(&printed(listed.as_array().unwrap()), &deployments);
    let apps = all(&listed, "apps");
    assert_eq!(apps.len(), 3);
    agree(&printed(apps.iter().copied()), &documented(api, "**App**"));
    let workers: Vec<&Value> = apps.iter().flat_map(|app| app["workers"].as_array().unwrap()).collect();
    agree(&printed(workers), &documented(api, "**Worker**"));

    let agents: Vec<&Value> = apps.iter().filter_map(|app| app.get("agent")).collect();
    agree(&printed(agents), &documented(api, "**Agent**"));
    let before: Vec<&Value> = apps.iter().filter_map(|app| app.get("before")).collect();
    agree(&printed(before), &documented(api, "**Before**"));

    let releases = json(&home, &["releases", "web", "--json"], 0);
    agree(&printed(releases.as_array().unwrap()), &documented(api, "**Release**"));

    let described = json(&home, &["describe", "all", "--json"], 0);
    assert_eq!(described.as_array().unwrap().len(), 3, "what is gone too");
    agree(&printed(described.as_array().unwrap()), &documented(api, "**App**"));

    let env = json(&home, &["env", "web", "--json"], 0);
    assert!(env.as_object().unwrap().values().all(Value::is_string));
    assert_eq!(env["CLUSTERD_APP"], "web");

    for (args, code) in [(&["-w", "2", "--", "sleep", "1"][..], 0), (&["--", "no-such-command"], 1)] {
        let checked = json(&home, &[&["check", "--json"], args].concat(), code);
        agree(&printed([&checked]), &documented(cli, "| check | |"));
        agree(&printed(checked["apps"].as_array().unwrap()), &documented(cli, "| app of check | |"));
        assert_eq!(checked["ok"], code == 0);
    }
    let unreadable = json(&home, &["check", "--json", "-c", "no.toml"], 1);
    assert!(unreadable["problems"][0].as_str().unwrap().contains("no such file"), "{unreadable}");

    let logs = || home.run(&["logs", "talk", "--json", "--nostream"]).1;
    wait_until("what it printed", || logs().contains("hello"));
    let lines: Vec<Value> = logs().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    agree(&printed(&lines), &documented(cli, "| logs | |"));

    for verb in ["startup", "unstartup"] {
        let shown = json(&home, &[verb, "--print", "--json"], 0);
        agree(&printed([&shown]), &documented(cli, "| startup | |"));
    }
    assert_eq!(run(&home.folder, &["startup", "--json"]).0, 2, "it prints nothing without --print");
}
