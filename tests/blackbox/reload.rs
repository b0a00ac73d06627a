//! Reloads under load: the new beside the old, ready before the old one drains; and back when the new one is bad.
use super::client::{Load, get};
use super::cluster::{Cluster, Folder, wait_until};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

const APP: &str = "require('node:http').createServer((q, s) => s.end(JSON.stringify({ pid: process.pid, version: VERSION }))).listen(process.env.PORT);";

fn app(folder: &Folder, version: &str) {
    folder.write("app.js", &APP.replace("VERSION", version));
}

fn start(folder: Folder) -> Cluster {
    start_with(folder, &[])
}

fn start_with(folder: Folder, options: &[&str]) -> Cluster {
    let fixed = ["-w", "2", "--host", "127.0.0.1", "--port", "0", "--name", "web"];
    let args = [&fixed, options, &["--", "node", "app.js"]].concat();
    let cluster = Cluster::start_in(folder, &args, |_| {});
    cluster.wait_ready(2);
    cluster
}

fn reload_under_load(keep_alive: bool) {
    let folder = Folder::new();
    app(&folder, "1");
    let cluster = start(folder);
    let address = cluster.address();
    let load = Load::start(address, 16, keep_alive);
    load.wait_more(100);
    for version in 2..5 {
        app(&cluster.folder, &version.to_string());
        let done = cluster.cli(&["reload", "web"]);
        assert!(done.status.success(), "{done:?}");
        // The command is done when the new generation serves alone.
        assert!(get(address, "/").unwrap().contains(&format!("\"version\":{version}")));
        load.wait_more(50);
    }
    let seen = load.finish();
    assert_eq!((seen.refused, seen.cut, seen.hung, seen.wrong), (0, 0, 0, 0), "{seen:?}");
    assert_eq!(cluster.app().generation, 4);
    cluster.stop();
}

#[test]
#[ignore = "a long load"]
fn three_reloads_lose_no_short_connection() {
    let _turn = super::common::turns::turn();
    reload_under_load(false);
}

#[test]
#[ignore = "a long load"]
fn three_reloads_lose_no_kept_alive_request() {
    let _turn = super::common::turns::turn();
    reload_under_load(true);
}

#[test]
fn sighup_replaces_every_worker_and_loses_nothing() {
    let cluster = Cluster::hello(2);
    let before = cluster.worker_pids();
    let load = Load::start(cluster.address(), 16, false);
    load.wait_more(100);
    cluster.signal("HUP");
    cluster.wait_line("generation 2 serves alone");
    let after = cluster.worker_pids();
    assert!(after.len() == 2 && after.iter().all(|pid| !before.contains(pid)), "{before:?} {after:?}");
    let seen = load.finish();
    assert_eq!((seen.refused, seen.cut, seen.hung, seen.wrong), (0, 0, 0, 0), "{seen:?}");
    cluster.stop();
}

#[test]
#[ignore = "a long load"]
fn a_reload_gives_new_workers_time_where_there_are_clients() {
    let _turn = super::common::turns::turn();
    let started = |settle: &str| {
        let folder = Folder::new();
        app(&folder, "1");
        let listen = "name = \"web\"\ncommand = [\"node\", \"app.js\"]\nworkers = 2\nlisten = [\"127.0.0.1:0\"]";
        let file = folder.write("cluster.toml", &format!("[[app]]\n{listen}\n[app.reload]\nsettle = \"{settle}\"\n"));
        let cluster = Cluster::start_in(folder, &["-c", &file], |_| {});
        cluster.wait_ready(2);
        cluster
    };
    let idle = started("1h");
    let done = idle.cli(&["reload", "web"]);
    assert!(done.status.success(), "nobody was there to wait for: {done:?}");
    idle.stop();

    let busy = started("1500ms");
    let mut kept = TcpStream::connect(busy.address()).unwrap();
    kept.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    assert!(kept.read(&mut [0; 1024]).unwrap() > 0);
    let from = Instant::now();
    let done = busy.cli(&["reload", "web"]);
    assert!(done.status.success(), "{done:?}");
    assert!(from.elapsed() >= Duration::from_millis(1500), "{:?}", from.elapsed());
    busy.stop();
}

/// A reload to this code fails, the old code serves on and nobody notices.
fn bad_deploy(code: &str, wanted: &[&str]) {
    let folder = Folder::new();
    app(&folder, "1");
    let cluster = start(folder);
    let before = cluster.worker_pids();
    let load = Load::start(cluster.address(), 16, false);
    load.wait_more(50);
    cluster.folder.write("app.js", code);
    let refused = cluster.cli(&["reload", "web"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    for word in wanted {
        assert!(said.contains(word), "{word}: {said}");
    }
    load.wait_more(50);
    let seen = load.finish();
    assert_eq!((seen.refused, seen.cut, seen.hung, seen.wrong), (0, 0, 0, 0), "{seen:?}");
    assert_eq!(cluster.worker_pids(), before, "the old workers were never touched");
    cluster.stop();
}

#[test]
fn code_that_throws_at_start_never_replaces_a_healthy_worker() {
    bad_deploy("throw new Error('bad deploy')", &["exited with code 1", "Its last words", "| Error: bad deploy"]);
}

#[test]
fn code_that_does_not_parse_never_replaces_a_healthy_worker() {
    bad_deploy("this is no javascript", &["exited with code 1", "| SyntaxError"]);
}

#[test]
#[ignore = "long: a variant of what quicker tests show"]
fn a_module_that_throws_or_an_unhandled_rejection_never_replaces_a_healthy_worker() {
    bad_deploy("import('data:text/javascript,throw new Error(%22bad module%22)')", &["| Error: bad module"]);
    bad_deploy("Promise.reject(new Error('nobody caught me'))", &["exited with code 1", "nobody caught me"]);
}

#[test]
#[ignore = "long: a variant of what quicker tests show"]
fn code_that_exits_or_dies_quietly_never_replaces_a_healthy_worker() {
    bad_deploy("process.exit(7)", &["exited with code 7"]);
    bad_deploy("process.kill(process.pid, 'SIGKILL')", &["killed by"]);
}

#[test]
#[ignore = "long: a variant of what quicker tests show"]
fn code_that_is_never_ready_never_replaces_a_healthy_worker() {
    let folder = Folder::new();
    app(&folder, "1");
    let cluster = start_with(folder, &["--ready-timeout", "3s"]);
    let before = cluster.worker_pids();
    cluster.folder.write("app.js", "console.log('thinking'); setInterval(() => {}, 1000)");
    let refused = cluster.cli(&["reload", "web"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("not ready after 3 s") && said.contains("| thinking"), "{said}");
    assert_eq!(cluster.worker_pids(), before);
    cluster.stop();
}

#[test]
fn a_reload_outlives_the_master_that_began_it_and_its_command_too() {
    let folder = Folder::new();
    app(&folder, "1");
    let cluster = start(folder);
    let load = Load::start(cluster.address(), 8, false);
    // Ready when told, so that the master dies in the middle.
    let gate = cluster.folder.path().join("gate").display().to_string();
    std::fs::create_dir(&gate).unwrap();
    let late = format!(
        "const go = () => {};\nif (require('node:fs').readdirSync({gate:?}).length) go();\n\
        else require('node:fs').watch({gate:?}, go);",
        APP.replace("VERSION", "2")
    );
    cluster.folder.write("app.js", &late);
    let mut asked = super::cluster::command(&cluster.folder);
    let asked = asked.args(["reload", "web"]).stderr(std::process::Stdio::piped()).spawn().unwrap();
    cluster.wait_view("a new worker", |view| {
        view.apps[0].workers.iter().any(|w| w.generation == 2 && w.state == "online")
    });
    super::cluster::kill(cluster.master_pid(), "KILL");
    cluster.wait_view("the next master", |view| view.master_restarts == 1);
    cluster.folder.write("gate/open", "");
    let done = asked.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success() && said.contains("the reload continues") && said.contains("reloaded web"), "{said}");
    assert!(get(cluster.address(), "/").unwrap().contains("\"version\":2"));
    let seen = load.finish();
    assert_eq!((seen.refused, seen.hung, seen.wrong), (0, 0, 0), "{seen:?}");
    assert!(seen.cut <= 1, "{seen:?}");
    cluster.stop();
}

/// `app.js` with so many workers at a path of the folder, which they find in `AT`.
fn at_path(folder: &Folder, name: &str, workers: u32) -> String {
    let path = folder.path().join(name).display().to_string();
    format!(
        "[[app]]\nname = \"web\"\ncommand = [\"node\", \"app.js\"]\nworkers = {workers}\nlisten = \"unix:{path}\"\n\
         env = {{ AT = \"{path}\" }}\n"
    )
}

#[test]
fn a_changed_list_of_addresses_opens_the_new_one_and_drains_the_old_one() {
    let folder = Folder::new();
    let code = "const app = (q, s) => s.end(JSON.stringify({ pid: process.pid }));\n\
                for (const path of process.env.AT.split(' ')) require('node:http').createServer(app).listen(path);";
    folder.write("app.js", code);
    let (one, two) = (at_path(&folder, "one.sock", 2), at_path(&folder, "two.sock", 2));
    folder.write("cluster.toml", &one);
    let cluster = Cluster::start_in(folder, &["-c", "cluster.toml"], |_| {});
    cluster.wait_ready(2);
    let ask = |name: &str| {
        use std::io::{Read, Write};
        let mut stream = std::os::unix::net::UnixStream::connect(cluster.folder.path().join(name)).ok()?;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").ok();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok();
        Some(answer)
    };
    // Somebody asks at the old address all the time: whoever is let in gets an answer.
    let done = std::sync::atomic::AtomicBool::new(false);
    let broken = std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let mut broken = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let Some(answer) = ask("one.sock") else { break };
                broken += usize::from(!answer.contains("pid"));
            }
            broken
        });
        cluster.folder.write("cluster.toml", &two);
        let reloaded = cluster.cli(&["reload", "web"]);
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(reloaded.status.success(), "{reloaded:?}");
        client.join().unwrap()
    });
    assert_eq!(broken, 0);
    assert!(ask("two.sock").unwrap().contains("pid"));
    assert!(ask("one.sock").is_none(), "nobody is at the old address any more");
    cluster.stop();
}

#[test]
fn who_waits_at_an_address_that_closes_is_answered_by_its_last_worker_however_slow() {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    let folder = Folder::new();
    let code = "const fs = require('node:fs');\n\
                require('node:http').createServer((q, s) => {\n\
                  if (q.url === '/block') while (!fs.existsSync('go'))\n\
                    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20);\n\
                  s.end('answered');\n\
                }).listen(process.env.AT);";
    folder.write("app.js", code);
    let (one, two) = (at_path(&folder, "one.sock", 1), at_path(&folder, "two.sock", 1));
    folder.write("cluster.toml", &one);
    let cluster = Cluster::start_in(folder, &["-c", "cluster.toml"], |_| {});
    cluster.wait_ready(1);
    let ask = |path: &str| {
        let mut stream = UnixStream::connect(cluster.folder.path().join("one.sock")).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        stream
    };
    let mut blocked = ask("/block");
    cluster.wait_view("a stuck loop", |view| view.apps[0].workers[0].loop_delay_ms.unwrap_or(0.0) > 900.0);
    // More than a worker gets before it has answered: the others stay in the kernel's queue.
    let handed = cluster.app().handoffs;
    let mut others: Vec<UnixStream> = (0..80).map(|_| ask("/")).collect();
    cluster.folder.write("cluster.toml", &two);
    std::thread::scope(|scope| {
        let reload = scope.spawn(|| cluster.cli(&["reload", "web"]));
        cluster.wait_view("the old worker's drain", |view| {
            view.apps[0].workers.iter().any(|w| w.state == clusterd::api::types::WorkerState::Draining)
        });
        assert_eq!(cluster.app().handoffs, handed, "nothing was answered yet");
        cluster.folder.write("go", "");
        let reloaded = reload.join().unwrap();
        assert!(reloaded.status.success(), "{reloaded:?}");
    });
    for stream in std::iter::once(&mut blocked).chain(&mut others) {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("answered"), "{answer:?}");
    }
    cluster.stop();
}

#[test]
fn code_that_listens_on_the_wrong_port_never_replaces_a_healthy_worker() {
    let folder = Folder::new();
    app(&folder, "1");
    let cluster = start_with(folder, &["--ready-timeout", "4s"]);
    let load = Load::start(cluster.address(), 8, false);
    cluster.folder.write("app.js", &APP.replace("process.env.PORT", "0"));
    let refused = cluster.cli(&["reload", "web"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let line = cluster.wait_line("is not ready: it listens on ");
    assert!(line.contains(&cluster.address().to_string()), "{line}");
    let seen = load.finish();
    assert_eq!((seen.refused, seen.cut, seen.hung, seen.wrong), (0, 0, 0, 0), "{seen:?}");
    cluster.stop();
}

#[test]
fn a_command_that_vanished_never_replaces_a_healthy_worker() {
    let folder = Folder::new();
    app(&folder, "1");
    folder.write("run.sh", "#!/bin/sh\nexec node app.js\n");
    std::fs::set_permissions(folder.path().join("run.sh"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    let args = ["-w", "2", "--port", "0", "--name", "web", "--protocol", "node", "--", "./run.sh"];
    let cluster = Cluster::start_in(folder, &args, |_| {});
    cluster.wait_ready(2);
    let before = cluster.worker_pids();
    std::fs::remove_file(cluster.folder.path().join("run.sh")).unwrap();
    let refused = cluster.cli(&["reload", "web"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && said.contains("run.sh"), "{said}");
    assert_eq!(cluster.worker_pids(), before);
    cluster.stop();
}

#[test]
fn a_release_that_dies_in_its_canary_time_is_taken_back_and_nobody_was_drained() {
    let folder = Folder::new();
    app(&folder, "1");
    let config = "[[app]]\nname = \"web\"\ncommand = [\"node\", \"app.js\"]\nworkers = 2\nlisten = \"127.0.0.1:0\"\n\
                  [app.reload]\ncanary = \"30s\"\n";
    folder.write("cluster.toml", config);
    let cluster = Cluster::start_in(folder, &["-c", "cluster.toml"], |_| {});
    cluster.wait_ready(2);
    let before = cluster.worker_pids();
    let (socket, home) = (cluster.folder.path().join("die"), cluster.folder.path().join("home"));
    // It serves, and dies at a word.
    let code = format!(
        "{}\nrequire('node:fs').watch({:?}, () => {{ console.error('watched'); process.exit(9); }});",
        APP.replace("VERSION", "2"),
        socket.display().to_string()
    );
    std::fs::create_dir(&socket).unwrap();
    cluster.folder.write("app.js", &code);
    let mut asked = std::process::Command::new(env!("CARGO_BIN_EXE_clusterd"));
    let asked = asked.args(["reload", "web"]).env("CLUSTERD_HOME", home).stderr(std::process::Stdio::piped());
    let asked = asked.spawn().unwrap();
    cluster.wait_line("of the new generation for 30");
    // Beside the others it gets its share.
    let address = cluster.address();
    let seen: Vec<String> = (0..6).map(|_| get(address, "/").unwrap()).collect();
    assert_eq!(seen.iter().filter(|answer| answer.contains("\"version\":2")).count(), 2, "{seen:?}");
    cluster.folder.write("die/now", "");
    let refused = asked.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && said.contains("code 9") && said.contains("| watched"), "{said}");
    assert_eq!(cluster.worker_pids(), before);
    cluster.stop();
}

#[test]
fn a_link_to_the_current_release_is_followed_again_and_a_bad_one_rolls_back() {
    let folder = Folder::new();
    for (release, code) in
        [("1", APP.replace("VERSION", "1")), ("2", APP.replace("VERSION", "2")), ("3", "oops".into())]
    {
        folder.write(&format!("releases/{release}/app.js"), &code);
    }
    let link = folder.path().join("current");
    let point = |to: &str| {
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(format!("releases/{to}"), &link).unwrap();
    };
    point("1");
    let cluster = start_with(folder, &["--cwd", "current"]);
    let version = || get(cluster.address(), "/").unwrap();
    assert!(version().contains("\"version\":1"));
    point("2");
    assert!(cluster.cli(&["reload", "web"]).status.success());
    assert!(version().contains("\"version\":2"));
    point("3");
    assert_eq!(cluster.cli(&["reload", "web"]).status.code(), Some(1));
    // A crash now starts the folder of the release that serves, wherever the link points.
    let victim = cluster.worker_pids()[0];
    super::cluster::kill(victim, "KILL");
    wait_until("the end of it", || !super::cluster::alive(victim));
    cluster.wait_ready(2);
    for _ in 0..4 {
        assert!(version().contains("\"version\":2"));
    }
    cluster.stop();
}

#[test]
fn a_configuration_that_no_longer_parses_is_refused_and_changes_nothing() {
    let folder = Folder::new();
    app(&folder, "1");
    let config = "[[app]]\nname = \"web\"\ncommand = [\"node\", \"app.js\"]\nworkers = 2\nlisten = \"127.0.0.1:0\"\n";
    folder.write("cluster.toml", config);
    let cluster = Cluster::start_in(folder, &["-c", "cluster.toml"], |_| {});
    let before: Vec<_> = cluster.wait_ready(2).iter().map(|w| w.id).collect();
    cluster.folder.write("cluster.toml", &config.replace("workers", "wrokers"));
    let refused = cluster.cli(&["reload", "web"]);
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("cluster.toml:4:1") && said.contains("\"workers\""), "{said}");
    assert_eq!(cluster.wait_ready(2).iter().map(|w| w.id).collect::<Vec<_>>(), before);
    // And a good one with another number of workers is taken.
    cluster.folder.write("cluster.toml", &config.replace("workers = 2", "workers = 3"));
    assert!(cluster.cli(&["reload", "web"]).status.success());
    cluster.wait_ready(3);
    cluster.stop();
}

#[test]
fn configurations_are_held_for_a_roll_back_and_no_longer() {
    let folder = Folder::new();
    app(&folder, "1");
    let config = "[[app]]\nname = \"web\"\ncommand = [\"node\", \"app.js\"]\nworkers = 2\nlisten = \"127.0.0.1:0\"\n";
    folder.write("cluster.toml", config);
    let cluster = Cluster::start_in(folder, &["-c", "cluster.toml"], |_| {});
    cluster.wait_ready(2);
    cluster.folder.write("cluster.toml", &config.replace("workers = 2", "workers = 1"));
    assert!(cluster.cli(&["reload", "web"]).status.success());
    cluster.wait_ready(1);
    let fds = format!("/proc/{}/fd", cluster.keeper_pid());
    let held = || {
        let links = std::fs::read_dir(&fds).unwrap().flatten().filter_map(|fd| std::fs::read_link(fd.path()).ok());
        links.filter(|link| link.to_string_lossy().contains("memfd:source")).count()
    };
    wait_until("that of each generation", || held() == 2);
    assert!(cluster.cli(&["reload", "web"]).status.success());
    wait_until("those of two that are the same count once", || held() == 2 && cluster.app().generation == 3);
    cluster.stop();
}
