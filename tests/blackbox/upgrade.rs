//! Upgrade in place: another binary takes over under load, and files that cannot are refused.
use super::client::{Load, get};
use super::cluster::{Cluster, copy_program, kill, wait_end, wait_until};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A file of its own: which binary runs is told by the file, not by its name or version.
fn copy(cluster: &Cluster, name: &str) -> PathBuf {
    let binary = cluster.folder.path().join(name);
    copy_program(Path::new(env!("CARGO_BIN_EXE_clusterd")), &binary);
    binary
}

fn exe(pid: i32) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/exe")).unwrap()
}

fn upgrade(cluster: &Cluster, binary: &Path) -> Output {
    cluster.cli(&["upgrade", "--binary", &binary.display().to_string()])
}

#[test]
fn another_binary_takes_over_keeper_and_master_and_no_client_notices() {
    let cluster = Cluster::hello(2);
    let workers = cluster.worker_pids();
    let (short, kept) = (Load::start(cluster.address(), 16, false), Load::start(cluster.address(), 8, true));
    short.wait_more(100);
    // And a second time, from a binary that was come to by an upgrade.
    for name in ["clusterd-new", "clusterd-newer"] {
        let (binary, master) = (copy(&cluster, name), cluster.master_pid());
        let done = upgrade(&cluster, &binary);
        assert!(done.status.success(), "{}", said(&done));
        let version = env!("CARGO_PKG_VERSION");
        let wanted = format!("{name} (version {version}) serves; the keeper has version {version} too");
        assert!(said(&done).contains(&wanted), "{}", said(&done));
        let view = cluster.wait_view("a new master", |view| view.master_pid != master);
        assert_eq!((exe(view.master_pid), exe(cluster.keeper_pid())), (binary.clone(), binary));
        assert_eq!((view.keeper_pid, view.keeper_version.as_str()), (cluster.keeper_pid(), version));
        assert_eq!(view.upgrade.map(|upgrade| (upgrade.ok, upgrade.keeper)), Some((Some(true), Some(true))));
        short.wait_more(100);
        kept.wait_more(100);
    }
    for load in [short, kept] {
        let seen = load.finish();
        let lost = (seen.refused, seen.hung, seen.wrong, seen.cut, seen.idle_closed);
        assert_eq!(lost, (0, 0, 0, 0, 0), "{seen:?}");
    }
    assert_eq!(cluster.worker_pids(), workers);
    // The new keeper keeps: a dead master comes back, a dead worker too, and nothing outlives it.
    kill(cluster.master_pid(), "KILL");
    let view = cluster.wait_view("the next master", |view| view.master_restarts == 3);
    assert_eq!(exe(view.master_pid), exe(cluster.keeper_pid()));
    kill(workers[0], "KILL");
    cluster.wait_view("another worker", |view| {
        let app = &view.apps[0];
        app.workers_ready == 2 && app.workers.iter().all(|worker| worker.pid != Some(workers[0]))
    });
    let mut family = cluster.worker_pids();
    family.push(cluster.master_pid());
    kill(cluster.keeper_pid(), "KILL");
    family.iter().for_each(|&pid| wait_end(pid));
}

#[test]
fn a_new_master_that_dies_before_it_has_proved_itself_is_taken_back() {
    let cluster = Cluster::hello(2);
    let (workers, own) = (cluster.worker_pids(), exe(cluster.keeper_pid()));
    let binary = copy(&cluster, "clusterd-new");
    let load = Load::start(cluster.address(), 16, false);
    load.wait_more(100);
    let done = std::thread::scope(|scope| {
        let command = scope.spawn(|| upgrade(&cluster, &binary));
        let children = format!("/proc/{0}/task/{0}/children", cluster.keeper_pid());
        let of_new = || {
            let pids = fs::read_to_string(&children).unwrap_or_default();
            let mut pids = pids.split_ascii_whitespace().map(|pid| pid.parse::<i32>().unwrap());
            pids.find(|pid| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == binary))
        };
        wait_until("a master of the new binary", || of_new().is_some());
        // Before it has lived for a second.
        kill(of_new().unwrap(), "KILL");
        command.join().unwrap()
    });
    assert_eq!(done.status.code(), Some(1), "{}", said(&done));
    assert!(said(&done).contains("did not keep serving (was killed by SIGKILL)"), "{}", said(&done));
    let view = cluster.wait_view("the previous binary", |view| view.apps[0].workers_ready == 2);
    assert_eq!((exe(view.master_pid), exe(cluster.keeper_pid())), (own.clone(), own));
    assert_eq!(view.upgrade.map(|upgrade| (upgrade.ok, upgrade.keeper)), Some((Some(false), None)));
    load.wait_more(100);
    let seen = load.finish();
    assert_eq!((seen.refused, seen.hung, seen.wrong), (0, 0, 0), "{seen:?}");
    // The one connection that a killed master may have in hand.
    assert!(seen.cut <= 1, "{seen:?}");
    assert_eq!(cluster.worker_pids(), workers);
    cluster.stop();
}

#[test]
#[ignore = "long: a variant of what quicker tests show"]
fn workers_that_die_while_the_keeper_changes_are_reaped_and_replaced() {
    let cluster = Cluster::hello(3);
    let binary = copy(&cluster, "clusterd-new");
    let load = Load::start(cluster.address(), 8, false);
    load.wait_more(50);
    let killed = std::thread::scope(|scope| {
        let command = scope.spawn(|| upgrade(&cluster, &binary));
        let mut killed = Vec::new();
        while exe(cluster.keeper_pid()) != binary {
            // One at a time, so that somebody serves; the last one about when the keeper changes.
            let view = cluster.try_view();
            let workers = view.map(|view| view.apps[0].workers.clone()).unwrap_or_default();
            let ready: Vec<i32> = workers.iter().filter(|w| w.state == "ready").filter_map(|w| w.pid).collect();
            // One that was killed counts as ready until the keeper has reaped it.
            if ready.len() == 3 && ready.iter().all(|pid| !killed.contains(pid)) {
                let pid = ready[killed.len() % 3];
                kill(pid, "KILL");
                killed.push(pid);
            }
            assert!(!command.is_finished() || exe(cluster.keeper_pid()) == binary);
        }
        let view = cluster.wait_view("three workers that live", |view| {
            let app = &view.apps[0];
            app.workers_ready == 3 && app.workers.iter().all(|w| w.pid.is_some_and(|pid| !killed.contains(&pid)))
        });
        killed.push(view.apps[0].workers[0].pid.unwrap());
        kill(killed[killed.len() - 1], "KILL");
        let done = command.join().unwrap();
        assert!(done.status.success(), "{}", said(&done));
        killed
    });
    cluster.wait_view("three workers, all of them new", |view| {
        let app = &view.apps[0];
        app.workers_ready == 3 && app.workers.iter().all(|w| w.pid.is_some_and(|pid| !killed.contains(&pid)))
    });
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", cluster.keeper_pid())).unwrap();
    assert_eq!(children.split_ascii_whitespace().count(), 4, "a zombie is left: {children}");
    load.wait_more(50);
    let seen = load.finish();
    assert_eq!((seen.refused, seen.hung, seen.wrong), (0, 0, 0), "{seen:?}");
    assert!(seen.cut <= 8 * killed.len() as u64, "{seen:?} after {} kills", killed.len());
    cluster.stop();
}

#[test]
fn files_that_cannot_take_over_are_refused_and_nothing_is_touched() {
    let cluster = Cluster::hello(1);
    let master = cluster.master_pid();
    let folder = cluster.folder.path();
    let script = cluster.folder.write("script", "#!/bin/sh\necho clusterd 9.9.9 can take over\n");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let text = cluster.folder.write("text", "not a program\n");
    let cases = [
        (folder.join("absent").display().to_string(), "cannot open"),
        (text, "cannot run"),
        ("/bin/true".to_owned(), "is not a clusterd"),
        ("/bin/cat".to_owned(), "is not a clusterd"),
        (script, "is not a clusterd"),
        (folder.display().to_string(), "cannot run"),
    ];
    for (path, wanted) in cases {
        let refused = cluster.cli(&["upgrade", "hello", "--binary", &path]);
        assert_eq!(refused.status.code(), Some(1), "{path}");
        assert!(said(&refused).contains(wanted), "{path}: {}", said(&refused));
    }
    assert_eq!(cluster.master_pid(), master);
    assert!(get(cluster.address(), "/").unwrap().contains("hello"));
    cluster.stop();
}

#[test]
#[ignore = "long: a variant of what quicker tests show"]
fn a_binary_that_says_yes_and_does_not_serve_is_taken_back() {
    let cluster = Cluster::hello(2);
    let workers = cluster.worker_pids();
    let own = fs::read_link(format!("/proc/{}/exe", cluster.master_pid())).unwrap();
    // A program that gives the right answer and is not clusterd, as a broken build might be.
    let source = cluster.folder.write(
        "liar.rs",
        "fn main() { if std::env::args().next().unwrap().contains(\"take over\") { println!(\"clusterd 9.9.9 can\") } \
         else { std::process::exit(3) } }",
    );
    let liar = cluster.folder.path().join("liar");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let built = std::process::Command::new(rustc).args(["-o", &liar.display().to_string(), &source]).output().unwrap();
    assert!(built.status.success(), "{built:?}");
    let load = Load::start(cluster.address(), 16, false);
    load.wait_more(50);
    let refused = cluster.cli(&["upgrade", "--binary", &liar.display().to_string()]);
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    assert!(said(&refused).contains("did not keep serving (exited with code 3)"), "{}", said(&refused));
    load.wait_more(50);
    let seen = load.finish();
    assert_eq!((seen.refused, seen.hung, seen.wrong, seen.cut), (0, 0, 0, 0), "{seen:?}");
    assert_eq!(fs::read_link(format!("/proc/{}/exe", cluster.master_pid())).unwrap(), own);
    assert_eq!(cluster.worker_pids(), workers);
    cluster.stop();
}
