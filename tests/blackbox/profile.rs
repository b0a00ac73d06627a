//! `clusterd profile`: what a worker writes is what Chrome and VS Code open, nobody else can read it, and what cannot be
//! profiled is refused.
use super::background::Home;
use super::cluster::{kill, wait_until};
use super::common::users::{NOBODY, is_root};
use serde::de::IgnoredAny;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::thread;

/// Half of its time is spent in one function.
const APP: &str = "function hotSpot(until) { while (Date.now() < until) {} }\n\
    setInterval(() => hotSpot(Date.now() + 10), 20);\n\
    require('http').createServer((q, a) => a.end('x')).listen(process.env.PORT, '127.0.0.1')";

/// A profile that a command has said it wrote.
fn taken(home: &Home, args: &[&str]) -> String {
    let (code, out, err) = home.run(&[&["profile"], args].concat());
    assert_eq!(code, 0, "{err}");
    let path = out.trim().strip_prefix("web/0: ").unwrap_or_else(|| panic!("{out}")).to_owned();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    path
}

#[test]
fn a_worker_writes_profiles_of_its_cpu_time_and_its_heap() {
    let home = Home::new();
    home.folder.write("app.js", APP);
    home.ok(&["start", "app.js", "-n", "web", "-i", "1", "--host", "127.0.0.1", "--port", "0"]);
    let first = home.folder.path().join("first.cpuprofile");
    assert_eq!(taken(&home, &["web", "--cpu", "500ms", "-o", first.to_str().unwrap()]), first.to_str().unwrap());
    let profile: Value = serde_json::from_slice(&fs::read(&first).unwrap()).unwrap();
    let nodes = profile["nodes"].as_array().unwrap();
    let hot = nodes.iter().find(|node| node["callFrame"]["functionName"] == "hotSpot").unwrap();
    let samples = profile["samples"].as_array().unwrap();
    let in_it = samples.iter().filter(|sample| **sample == hot["id"]).count();
    assert!(in_it > 0 && profile["timeDeltas"].as_array().unwrap().len() == samples.len(), "{in_it}");

    let heap = taken(&home, &["web/0", "--heap"]);
    assert!(heap.ends_with(".heapsnapshot") && Path::new(&heap).parent() == Some(home.folder.path()), "{heap}");
    let text = fs::read(&heap).unwrap();
    serde_json::from_slice::<IgnoredAny>(&text).unwrap();
    assert!(text.starts_with(b"{\"snapshot\":{\"meta\":"), "{}", text[..40].escape_ascii());

    // A file that is there is not touched.
    let there = home.folder.write("there", "x");
    let said = home.fails(&["profile", "web", "--cpu", "1ms", "-o", &there]);
    assert!(said.contains("web/0: EEXIST") && fs::read_to_string(&there).unwrap() == "x", "{said}");
    let said = home.fails(&["profile", "web", "--cpu", "1ms", "-o", "/nosuch/file"]);
    assert!(said.contains("web/0: ENOENT"), "{said}");
    assert!(home.fails(&["profile", "web", "--cpu", "1h"]).contains("a profile takes 1 ms to 300 s"));
}

#[test]
fn one_profile_of_a_worker_is_taken_at_a_time_and_ends_with_it() {
    let home = Home::new();
    home.folder.write("app.js", APP);
    home.ok(&["start", "app.js", "-n", "web", "-i", "1", "--host", "127.0.0.1", "--port", "0"]);
    let file = home.folder.path().join("long.cpuprofile");
    thread::scope(|scope| {
        let long = scope.spawn(|| home.fails(&["profile", "web", "--cpu", "300s", "-o", file.to_str().unwrap()]));
        wait_until("the profile is begun", || file.exists());
        let said = home.fails(&["profile", "web/0", "--cpu", "10ms"]);
        assert!(said.contains("a profile of web/0 is being taken already"), "{said}");
        kill(home.app("web").workers[0].pid.unwrap(), "KILL");
        let said = long.join().unwrap();
        assert!(said.contains("web/0: it ended before its profile was written"), "{said}");
    });
}

#[test]
#[ignore = "long: a snapshot that takes longer than a worker may hang"]
fn a_worker_that_writes_a_snapshot_does_not_hang() {
    let home = Home::new();
    let many = "global.kept = Array.from({ length: 200000 }, (_, n) => ({ n, text: `t${n}` }));";
    home.folder.write("app.js", &format!("{many}\n{APP}"));
    let text = "[[app]]\nname = \"web\"\ncommand = [\"node\", \"app.js\"]\nworkers = 1\nlisten = [\"127.0.0.1:0\"]\n\
                limits = { hang = \"1s\" }\n";
    home.folder.write("web.toml", text);
    home.ok(&["start", "web.toml"]);
    let before = home.app("web").workers[0].pid;
    taken(&home, &["web", "--heap"]);
    let app = home.app("web");
    assert_eq!((app.workers[0].pid, app.restarts), (before, 0));
}

#[test]
fn a_worker_of_another_user_writes_with_its_own_rights() {
    if !is_root() {
        return eprintln!("skipped: only root can run workers as somebody else");
    }
    let home = Home::new();
    home.folder.write("app.js", APP);
    fs::set_permissions(home.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let nobody = NOBODY.to_string();
    let options = ["-n", "web", "-i", "1", "--host", "127.0.0.1", "--port", "0", "--user", &nobody, "--group", &nobody];
    home.ok(&[&["start", "app.js"], &options[..]].concat());
    let path = taken(&home, &["web", "--cpu", "20ms"]);
    assert_eq!(fs::metadata(&path).unwrap().uid(), NOBODY);
    fs::remove_file(path).unwrap();
    let here = home.folder.path().join("here.cpuprofile");
    let said = home.fails(&["profile", "web", "--cpu", "20ms", "-o", here.to_str().unwrap()]);
    assert!(said.contains("web/0: EACCES") && !here.exists(), "{said}");
}

#[test]
fn what_cannot_be_profiled_is_refused_with_the_reason() {
    let home = Home::new();
    home.folder.write("app.js", APP);
    let text = "[[app]]\nname = \"two\"\ncommand = [\"node\", \"app.js\"]\nworkers = 2\nlisten = [\"127.0.0.1:0\"]\n\
                [[app]]\nname = \"bare\"\ncommand = [\"node\", \"app.js\"]\nworkers = 1\nlisten = [\"127.0.0.1:0\"]\n\
                preload = false\n\
                [[app]]\nname = \"job\"\ncommand = [\"sleep\", \"1000\"]\nready = \"1ms\"\n";
    home.folder.write("apps.toml", text);
    home.ok(&["start", "apps.toml"]);
    for (target, said) in [
        ("two", "two has 2 workers; choose one of them, as two/0"),
        ("bare", "bare/0 has not loaded clusterd's preload, which takes profiles (preload = false)"),
        ("job", "job has protocol \"bind\": only workers with protocol \"node\" can be asked for a profile"),
        ("two/7", "two has no worker 7, only two/0 to two/1"),
        ("nosuch", "nothing here is called"),
    ] {
        let found = home.fails(&["profile", target, "--cpu", "1ms"]);
        assert!(found.contains(said), "{target}: {found}");
    }
}
