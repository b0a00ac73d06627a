//! Upgrade in place: another binary takes over under load, and files that cannot are refused.
use super::client::{Load, get};
use super::cluster::{Cluster, kill};
use std::fs;
use std::os::unix::fs::PermissionsExt;

fn said(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn another_binary_takes_over_and_no_client_notices() {
    let cluster = Cluster::hello(2);
    let workers = cluster.worker_pids();
    // A file of its own: which binary runs is told by the file, not by its name or version.
    let binary = cluster.folder.path().join("clusterd-new");
    fs::copy(env!("CARGO_BIN_EXE_clusterd"), &binary).unwrap();
    let (short, kept) = (Load::start(cluster.address(), 16, false), Load::start(cluster.address(), 8, true));
    short.wait_more(100);
    let master = cluster.master_pid();
    let done = cluster.cli(&["upgrade", "--binary", &binary.display().to_string()]);
    assert!(done.status.success(), "{}", said(&done));
    assert!(said(&done).contains("clusterd-new (version"), "{}", said(&done));
    let view = cluster.wait_view("a new master", |view| view.master_pid != master);
    let exe = fs::read_link(format!("/proc/{}/exe", view.master_pid)).unwrap();
    assert_eq!(exe, binary);
    short.wait_more(100);
    // A new one that dies before it has proved itself is taken back.
    let before = view.master_restarts;
    kill(view.master_pid, "KILL");
    let view = cluster.wait_view("the former binary", |view| view.master_restarts == before + 1);
    assert_ne!(fs::read_link(format!("/proc/{}/exe", view.master_pid)).unwrap(), binary);
    assert_eq!(view.upgrade.unwrap().ok, Some(false));
    kept.wait_more(100);
    for (load, cut) in [(short, 1), (kept, 0)] {
        let seen = load.finish();
        assert_eq!((seen.refused, seen.hung, seen.wrong), (0, 0, 0), "{seen:?}");
        assert!(seen.cut <= cut, "{seen:?}");
    }
    assert_eq!(cluster.worker_pids(), workers);
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
fn a_binary_that_says_yes_and_does_not_serve_is_taken_back() {
    let cluster = Cluster::hello(2);
    let workers = cluster.worker_pids();
    let own = fs::read_link(format!("/proc/{}/exe", cluster.master_pid())).unwrap();
    // A program that gives the right answer and is no clusterd: what a broken build might be.
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
    assert!(said(&refused).contains("did not serve on (exited with code 3)"), "{}", said(&refused));
    load.wait_more(50);
    let seen = load.finish();
    assert_eq!((seen.refused, seen.hung, seen.wrong, seen.cut), (0, 0, 0, 0), "{seen:?}");
    assert_eq!(fs::read_link(format!("/proc/{}/exe", cluster.master_pid())).unwrap(), own);
    assert_eq!(cluster.worker_pids(), workers);
    cluster.stop();
}
