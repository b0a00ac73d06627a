//! Whole deployments from a file: several apps side by side, other users, what `check` says of them, debuggers.
use super::apps::{hello, project};
use super::client::get;
use super::cluster::{Cluster, Folder, kill, run, wait_until};
use std::fs;
use std::net::{SocketAddr, TcpListener};

fn two_apps(folder: &Folder) {
    let python = project("workers/python/listen_fds.py");
    let text = format!(
        "[[app]]\nname = \"web\"\ncommand = [\"node\", \"{}\"]\nlisten = [\"127.0.0.1:0\"]\nworkers = 2\n\
         [app.env]\nWORD = \"one\"\n\
         [[app]]\nname = \"api\"\ncommand = [\"python3\", \"{}\"]\nlisten = [\"127.0.0.1:0\"]\nworkers = 1\n\
         ready = \"notify\"\n",
        hello(),
        python.display()
    );
    folder.write("site.toml", &text);
}

#[test]
fn two_apps_of_a_file_live_side_by_side() {
    let folder = Folder::new();
    two_apps(&folder);
    let cluster = Cluster::start_in(folder, &["-c", "site.toml"], |_| {});
    let view = cluster.wait_view("two apps", |view| {
        view.apps.len() == 2 && view.apps[0].workers_ready == 2 && view.apps[1].workers_ready == 1
    });
    assert_eq!((view.name.as_str(), view.apps[0].protocol.as_str()), ("site", "node"));
    assert_eq!(view.apps[1].protocol, "bind");
    let address = |n: usize| view.apps[n].listen[0].parse::<SocketAddr>().unwrap();
    assert!(get(address(0), "/").unwrap().contains("hello"));
    assert!(get(address(1), "/").is_ok());
    // A reload of one leaves the other alone.
    let api = view.apps[1].workers[0].pid;
    let done = cluster.cli(&["reload", "web"]);
    assert!(done.status.success(), "{done:?}");
    let view = cluster.wait_view("one reload", |view| view.apps[0].generation == 2);
    assert_eq!((view.apps[1].generation, view.apps[1].workers[0].pid), (1, api));
    // The end of one leaves the other alone, and a dead master changes nothing of that.
    assert!(cluster.cli(&["stop", "web"]).status.success());
    kill(cluster.master_pid(), "KILL");
    let view = cluster.wait_view("the next master", |view| view.master_restarts == 1);
    assert_eq!((view.apps[0].status.as_str(), view.apps[1].workers[0].pid), ("stopped", api));
    assert!(get(address(0), "/").is_err());
    assert!(get(address(1), "/").is_ok());
    cluster.stop();
}

#[test]
fn check_says_what_would_run_and_runs_nothing() {
    let folder = Folder::new();
    two_apps(&folder);
    let (code, out, err) = run(&folder, &["check", "-c", "site.toml"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    for word in ["site.toml is fine: 2 apps", "web", "api", "node (auto)", "bind (auto)", "notify"] {
        assert!(out.contains(word), "{word}: {out}");
    }
    assert!(!folder.path().join("home").exists());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    folder.write(
        "same.toml",
        &format!(
            "[[app]]\nname = \"a\"\ncommand = [\"true\"]\nlisten = [\"127.0.0.1:{port}\"]\n\
         [[app]]\nname = \"b\"\ncommand = [\"true\"]\nlisten = [\"127.0.0.1:{port}\"]\n"
        ),
    );
    let (code, _, err) = run(&folder, &["check", "-c", "same.toml"]);
    assert_eq!(code, 2);
    assert!(
        err.contains("same.toml:8") && err.contains(&format!("127.0.0.1:{port}")) && err.contains("app \"a\""),
        "{err}"
    );
}

#[test]
fn the_samples_of_the_project_are_right() {
    for name in ["config/cluster.toml", "config/minimal.toml"] {
        let text = fs::read_to_string(project(name)).unwrap();
        let folder = Folder::new();
        folder.write("sample.toml", &text);
        let (code, out, err) = run(&folder, &["check", "-c", "sample.toml"]);
        // What the sample's commands and folders name need not be here; what it says has to be understood.
        assert!(code != 2, "{name}: {out}{err}");
    }
}

/// Needs root, as changing the user does; without it the refusal is the test.
#[test]
fn workers_run_as_another_user() {
    let folder = Folder::new();
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let script = "grep -E '^(Uid|Gid|Groups):' /proc/self/status; exec sleep 1000";
    let args = ["-w", "1", "--user", "65534", "--group", "65533", "--ready", "10ms", "--", "sh", "-c", script];
    let mut cluster = Cluster::start_in(folder, &args, |_| {});
    if fs::read_to_string("/proc/self/status").unwrap().lines().any(|line| line.starts_with("Uid:\t0\t")) {
        cluster.wait_ready(1);
        wait_until("three lines", || cluster.stdout().len() == 3);
        let said: Vec<String> = cluster.stdout().iter().map(|line| line.trim().replace('\t', " ")).collect();
        assert_eq!(said[..2], ["Uid: 65534 65534 65534 65534", "Gid: 65533 65533 65533 65533"]);
        assert!(!said[2].split(' ').any(|group| group == "0"), "{said:?}");
        cluster.stop();
    } else {
        assert_ne!(cluster.wait_exit(), 0);
        assert!(cluster.stderr().join("\n").contains("root"), "{:?}", cluster.stderr());
    }
}

/// A port with so many free ones after it, at this moment.
fn free_ports(count: u16) -> u16 {
    (20_000..30_000)
        .step_by(usize::from(count))
        .skip(std::process::id() as usize % 500)
        .find(|&first| (first..first + count).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()))
        .unwrap()
}

#[test]
fn every_slot_has_a_debugger_of_its_own_and_keeps_it() {
    let first = free_ports(4);
    let inspect = format!("--inspect=127.0.0.1:{first}");
    let cluster = Cluster::start(&["-w", "2", "--port", "0", "--host", "127.0.0.1", "--", "node", &inspect, &hello()]);
    let workers = cluster.wait_ready(2);
    let opened = |port: u16| {
        let wanted = format!("Debugger listening on ws://127.0.0.1:{port}/");
        cluster.stderr().iter().filter(|line| line.starts_with(&wanted)).count()
    };
    wait_until("two debuggers", || opened(first) == 1 && opened(first + 1) == 1);
    kill(workers[1].pid.unwrap(), "KILL");
    wait_until("the same port again", || opened(first + 1) == 2);
    assert_eq!(opened(first), 1);
    cluster.stop();
}
