//! Reloads of apps that do not run as they should, and upgrades to files that cannot take over: what is said, and that
//! the rest serves on.
use super::client::{Load, get};
use super::cluster::{Cluster, Folder, command, copy_program};
use clusterd::api::UPGRADE_ARGV0;
use clusterd::api::types::{App, Deployment};
use clusterd::record::{self, Bound};
use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

const GOOD: &str = "require('node:http').createServer((q, s) => s.end(JSON.stringify({ pid: process.pid }))).listen(process.env.PORT);";

/// `good` serves, `other` is as its file says; both in the foreground.
fn two_apps(other: &str) -> Cluster {
    let folder = Folder::new();
    folder.write("good.js", GOOD);
    folder.write("other.js", other);
    let app = |name: &str| {
        format!(
            "[[app]]\nname = \"{name}\"\ncommand = [\"node\", \"{name}.js\"]\nworkers = 2\nlisten = \"127.0.0.1:0\"\n\
             restart = {{ max_restarts = 2, backoff_min = \"10ms\", backoff_max = \"20ms\" }}\n"
        )
    };
    folder.write("c.toml", &format!("{}{}", app("good"), app("other")));
    let cluster = Cluster::start_in(folder, &["-c", "c.toml"], |_| {});
    cluster.wait_view("the good one", |view| view.apps.len() == 2 && view.apps[0].workers_ready == 2);
    cluster
}

fn other(view: &Deployment) -> &App {
    &view.apps[1]
}

fn address(app: &App) -> SocketAddr {
    app.listen[0].parse().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn loses_nothing(load: Load) {
    let seen = load.finish();
    assert_eq!((seen.refused, seen.cut, seen.hung, seen.wrong), (0, 0, 0, 0), "{seen:?}");
}

#[test]
fn an_app_that_gave_up_comes_back_with_a_reload_to_code_that_works() {
    let cluster = two_apps("throw new Error('no database');");
    let view = cluster.wait_view("an app that gave up", |view| other(view).status == "errored");
    let before = view.apps[0].workers.iter().map(|worker| worker.pid).collect::<Vec<_>>();
    let load = Load::start(address(&view.apps[0]), 4, false);
    load.wait_more(20);
    // Still the same code: the command fails with what it said, and the app stays what it was.
    let failed = cluster.cli(&["reload", "other"]);
    assert_eq!(failed.status.code(), Some(1), "{}", said(&failed));
    for words in ["no database", "nothing serves, as before"] {
        assert!(said(&failed).contains(words), "{}", said(&failed));
    }
    cluster.wait_view("what it was", |view| other(view).status == "errored" && other(view).workers_ready == 0);
    cluster.folder.write("other.js", GOOD);
    let done = cluster.cli(&["reload", "other"]);
    assert!(done.status.success(), "{}", said(&done));
    let view = cluster.wait_view("the app", |view| other(view).workers_ready == 2);
    assert_eq!(other(&view).status, "running");
    assert!(get(address(other(&view)), "/").unwrap().contains("pid"));
    let after = view.apps[0].workers.iter().map(|worker| worker.pid).collect::<Vec<_>>();
    assert_eq!(before, after, "its neighbour has nothing to do with it");
    load.wait_more(20);
    loses_nothing(load);
    cluster.stop();
}

#[test]
fn an_app_that_was_stopped_is_not_reloaded_and_its_neighbour_is() {
    let cluster = two_apps(GOOD);
    cluster.wait_view("both", |view| other(view).workers_ready == 2);
    assert!(cluster.cli(&["stop", "other"]).status.success());
    let refused = cluster.cli(&["reload", "other"]);
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    assert!(
        said(&refused).contains("other: is stopped") || said(&refused).contains("other is stopped"),
        "{}",
        said(&refused)
    );
    let view = cluster.wait_view("what it was", |view| other(view).status == "stopped");
    assert_eq!((other(&view).generation, other(&view).workers_ready), (1, 0));
    let load = Load::start(address(&view.apps[0]), 4, false);
    load.wait_more(20);
    // What means everything means everything that runs.
    cluster.signal("HUP");
    cluster.wait_view("the next generation", |view| view.apps[0].generation == 2 && view.apps[0].status == "running");
    let answer = http(&cluster, "c", "POST /v1/reload");
    assert!(answer.contains("200 OK") && answer.contains("reloaded good"), "{answer}");
    let view = cluster.wait_view("the third", |view| view.apps[0].generation == 3 && view.apps[0].workers_ready == 2);
    assert_eq!((other(&view).status.as_str(), other(&view).generation), ("stopped", 1));
    load.wait_more(20);
    loses_nothing(load);
    cluster.stop();
}

#[test]
fn an_app_that_nobody_knows_is_not_reloaded() {
    let cluster = two_apps(GOOD);
    for (word, hint) in
        [("goood", "did you mean \"good\""), ("9", "(here: c, good, other)"), ("/^x/", "(here: c, good, other)")]
    {
        let refused = cluster.cli(&["reload", word]);
        assert_eq!(refused.status.code(), Some(1), "{word}: {}", said(&refused));
        assert!(
            said(&refused).contains("nothing here is called") && said(&refused).contains(hint),
            "{}",
            said(&refused)
        );
    }
    let answer = http(&cluster, "c", "POST /v1/apps/goood/reload");
    assert!(answer.contains("404") && answer.contains("good, other"), "{answer}");
    // The other app may still be starting.
    let view = cluster.wait_view("all to run", |view| view.apps.iter().all(|app| app.status == "running"));
    assert!(view.apps.iter().all(|app| app.generation == 1));
    cluster.stop();
}

/// One request to the control socket; the whole answer.
fn http(cluster: &Cluster, name: &str, request: &str) -> String {
    use std::io::{Read, Write};
    let path = cluster.folder.path().join(format!("home/run/{name}.sock"));
    let mut stream = UnixStream::connect(path).unwrap();
    write!(stream, "{request} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

// ---- upgrade ----

/// Programs that are called like a clusterd in an upgrade; the name of the file says what they do.
const IMPOSTOR: &str = r#"
fn main() {
    let asked = std::env::args().next().unwrap().contains("take over");
    let name = std::env::current_exe().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
    match (name.as_str(), asked) {
        ("crashes-when-asked", true) => std::process::abort(),
        ("older", true) => {
            println!("clusterd: the note v2/app/0: of a kind that this version does not know: it is older than what runs");
            std::process::exit(1)
        }
        ("says-much", true) => loop { println!("clusterd: yes, but") },
        (_, true) => println!("clusterd 9.9.9 can take over 1 app"),
        ("crashes-at-start", false) => std::process::abort(),
        (_, false) => std::process::exit(3),
    }
}
"#;

fn impostors(cluster: &Cluster, names: &[&str]) -> Vec<PathBuf> {
    let source = cluster.folder.write("impostor.rs", IMPOSTOR);
    let folder = cluster.folder.path();
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let built =
        Command::new(rustc).args(["-o", &folder.join("impostor").display().to_string(), &source]).output().unwrap();
    assert!(built.status.success(), "{built:?}");
    let copy = |name: &&str| {
        copy_program(&folder.join("impostor"), &folder.join(name));
        folder.join(name)
    };
    names.iter().map(copy).collect()
}

#[test]
#[ignore = "a long load"]
fn upgrades_to_what_crashes_or_is_too_old_change_nothing() {
    let _turn = super::common::turns::turn();
    let cluster = Cluster::hello(2);
    let workers = cluster.worker_pids();
    let own = fs::read_link(format!("/proc/{}/exe", cluster.keeper_pid())).unwrap();
    let cases = [
        ("crashes-when-asked", "is not a clusterd that can take over (signal: 6"),
        (
            "older",
            "cannot take over: the note v2/app/0: of a kind that this version does not know: it is older than what runs",
        ),
        ("says-much", "gave no answer in 10 s"),
        ("crashes-at-start", "did not keep serving (was killed by SIGABRT"),
    ];
    let binaries = impostors(&cluster, &cases.map(|(name, _)| name));
    let load = Load::start(cluster.address(), 8, false);
    load.wait_more(20);
    for ((name, wanted), binary) in cases.iter().zip(binaries) {
        let refused = cluster.cli(&["upgrade", "--binary", &binary.display().to_string()]);
        assert_eq!(refused.status.code(), Some(1), "{name}: {}", said(&refused));
        assert!(said(&refused).contains(wanted) && said(&refused).contains(name), "{name}: {}", said(&refused));
        load.wait_more(20);
    }
    loses_nothing(load);
    assert_eq!(cluster.worker_pids(), workers);
    for pid in [cluster.keeper_pid(), cluster.master_pid()] {
        assert_eq!(fs::read_link(format!("/proc/{pid}/exe")).unwrap(), own);
    }
    cluster.stop();
}

#[test]
fn a_clusterd_that_is_asked_names_what_it_cannot_read() {
    let folder = Folder::new();
    let asked = |snapshot: &[u8]| {
        let path = folder.path().join("snapshot");
        fs::write(&path, snapshot).unwrap();
        let input = fs::File::open(path).unwrap();
        let output = command(&folder).arg0(UPGRADE_ARGV0).stdin(input).stderr(Stdio::null()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    // Tags as in the tables of the checkpoint: name and numbers of the deployment; name, rules and generations of the app.
    let fields = |fields: &[(u8, &[u8])]| {
        let mut record = Vec::new();
        for (tag, bytes) in fields {
            record::put(&mut record, *tag, "field", &bytes.to_vec(), Bound::None).unwrap();
        }
        record
    };
    let deployment = record::seal(&fields(&[(1, b"true"), (3, &[9]), (4, &[1])])).unwrap();
    let rules = fields(&[(1, &[1]), (2, &[1])]);
    let generation = fields(&[(1, &[1]), (2, &fields(&[(1, &[1]), (2, b"/"), (3, b"/bin/true")]))]);
    let generations = [&[generation.len() as u8][..], &generation].concat();
    let app = record::seal(&fields(&[(1, b"true"), (2, &rules), (3, &[1]), (4, &generations)])).unwrap();
    let source = br#"{"start_folder":"/","file":null,"env_files":[],"overrides":{"command":["true"]}}"#.to_vec();
    let snapshot = |more: Option<(&str, Vec<u8>)>| {
        let records = [("deployment", deployment.clone()), ("app/0", app.clone())].into_iter().chain(more);
        let records: BTreeMap<String, Vec<u8>> = records.map(|(key, value)| (key.to_owned(), value)).collect();
        let mut all = Vec::new();
        record::put(&mut all, 1, "records", &records, Bound::None).unwrap();
        record::put(&mut all, 2, "sources", &BTreeMap::from([(1_u32, source.clone())]), Bound::None).unwrap();
        record::seal(&all).unwrap()
    };
    assert_eq!(
        asked(&snapshot(None)),
        (Some(0), format!("clusterd {} can take over 1 app\n", env!("CARGO_PKG_VERSION")))
    );
    let mut newer = app.clone();
    newer[8] += 1;
    for (key, value, wanted) in [
        ("app/1", newer, "the record app/1: it has version 3; this binary reads up to 2"),
        ("slot/0/0", record::seal(&fields(&[(1, &[7])])).unwrap(), "the record slot/0/0: it has no generation"),
        ("worker/0/7", b"cut of".to_vec(), "the record worker/0/7: clusterd did not write it"),
    ] {
        let (code, text) = asked(&snapshot(Some((key, value))));
        assert!(code == Some(1) && text.contains(wanted), "{text}");
    }
    assert_eq!(asked(b"").0, Some(1));
    assert!(asked(b"{").1.contains("the snapshot is damaged"));
}
