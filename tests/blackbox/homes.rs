//! Homes that are not as they should be: none, read-only, somebody else's, with sockets that nobody listens on.
use super::background::Home;
use super::cluster::{Folder, command, copy_program, wait_until};
use super::common::users::{NOBODY, is_root};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Output, Stdio};

fn said(output: &Output) -> (i32, String) {
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn without_a_home_every_verb_says_what_to_set() {
    let folder = Folder::new();
    for args in [&["ls"][..], &["start", "--", "sleep", "1"], &["stop", "all"], &["save"], &["kill"]] {
        let output = command(&folder).env_remove("CLUSTERD_HOME").env_remove("HOME").args(args).output().unwrap();
        let (code, err) = said(&output);
        assert_eq!(code, 1, "{args:?}: {err}");
        assert!(err.contains("set CLUSTERD_HOME"), "{args:?}: {err}");
    }
}

#[test]
fn a_home_that_cannot_be_written_starts_nothing_and_says_so() {
    let home = Home::new();
    // A file where the folder should be: nobody can make it, not even root.
    home.folder.write("home", "");
    let err = home.fails(&["start", "-w", "1", "--", "sleep", "1000"]);
    assert!(err.contains("home") && err.contains("CLUSTERD_HOME"), "{err}");
    assert!(home.run(&["ls"]).1.contains("nothing runs here"));
    fs::remove_file(home.folder.path().join("home")).unwrap();
}

#[test]
fn a_read_only_home_and_one_of_another_user_are_refused_with_the_way_out() {
    let home = Home::new();
    home.ok(&["start", "-n", "job", "-w", "1", "--ready", "1ms", "--", "sleep", "1000"]);
    // The binary is copied to where anybody may run it.
    let binary = home.folder.path().join("clusterd");
    copy_program(Path::new(env!("CARGO_BIN_EXE_clusterd")), &binary);
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(home.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let as_nobody = |clusterd_home: &str, args: &[&str]| {
        let mut run = std::process::Command::new(&binary);
        run.args(args).env("CLUSTERD_HOME", home.folder.path().join(clusterd_home)).current_dir("/");
        run.stdin(Stdio::null()).uid(NOBODY).gid(NOBODY);
        said(&run.output().unwrap())
    };
    if is_not_root() {
        return;
    }
    // The owner's home may not even be looked into.
    let (code, err) = as_nobody("home", &["start", "-w", "1", "--", "sleep", "1"]);
    assert!(code == 1 && err.contains("set CLUSTERD_HOME"), "{code}: {err}");
    // One that may be looked into is still not theirs.
    for part in ["home", "home/run"] {
        fs::set_permissions(home.folder.path().join(part), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let (code, err) = as_nobody("home", &["start", "-w", "1", "--", "sleep", "1"]);
    assert!(code == 1 && err.contains("belongs to user 0"), "{code}: {err}");
    let (code, err) = as_nobody("home", &["stop", "job"]);
    assert_eq!(code, 1, "{err}");
    assert_eq!(home.app("job").status, "running");
    // A read-only one.
    let empty = home.folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let (code, err) = as_nobody("empty", &["start", "-w", "1", "--", "sleep", "1"]);
    assert!(code == 1 && err.contains("ermission denied") && err.contains("CLUSTERD_HOME"), "{code}: {err}");
}

#[test]
fn in_a_home_that_became_read_only_verbs_work_or_say_what_they_could_not_do() {
    if is_not_root() {
        return;
    }
    let home = Home::new();
    let binary = home.folder.path().join("clusterd");
    copy_program(Path::new(env!("CARGO_BIN_EXE_clusterd")), &binary);
    for path in [binary.as_path(), home.folder.path()] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let own = home.folder.path().join("own");
    fs::create_dir(&own).unwrap();
    std::os::unix::fs::chown(&own, Some(NOBODY), Some(NOBODY)).unwrap();
    let as_nobody = |args: &[&str]| {
        let mut run = std::process::Command::new(&binary);
        run.args(args).env("CLUSTERD_HOME", own.join("home")).current_dir("/");
        let output = run.stdin(Stdio::null()).uid(NOBODY).gid(NOBODY).output().unwrap();
        let (code, err) = said(&output);
        (code, String::from_utf8_lossy(&output.stdout).into_owned(), err)
    };
    let writable = |mode| {
        for part in ["home", "home/run", "home/logs"] {
            fs::set_permissions(own.join(part), fs::Permissions::from_mode(mode)).unwrap();
        }
    };
    let (code, _, err) = as_nobody(&["start", "-n", "job", "-w", "1", "--ready", "1ms", "--", "sleep", "1000"]);
    assert_eq!(code, 0, "{err}");
    writable(0o500);
    for args in [&["ls"][..], &["scale", "job", "2"], &["reload", "job"], &["stop", "job"], &["start", "job"]] {
        let (code, _, err) = as_nobody(args);
        assert_eq!(code, 0, "{args:?}: {err}");
    }
    let (code, _, err) = as_nobody(&["save"]);
    assert!(code == 1 && err.contains("saved.json") && err.contains("cannot be written"), "{err}");
    let (code, _, err) = as_nobody(&["start", "-n", "two", "-w", "1", "--", "sleep", "1000"]);
    assert!(code == 1 && err.contains("set CLUSTERD_HOME to a folder that this user may write"), "{err}");
    // It ends, and that it is not forgotten is a failure.
    let (code, _, err) = as_nobody(&["delete", "job"]);
    assert!(code == 1 && err.contains("job.json cannot be removed"), "{err}");
    assert!(as_nobody(&["ls"]).1.contains("gone"));
    writable(0o700);
    assert_eq!(as_nobody(&["delete", "job"]).0, 0);
    assert!(as_nobody(&["ls"]).1.contains("nothing runs here"));
}

/// Only root may become somebody else.
fn is_not_root() -> bool {
    if !is_root() {
        eprintln!("not root: what other users are told was not looked at");
    }
    !is_root()
}

#[test]
fn what_a_dead_keeper_left_behind_is_in_nobodys_way() {
    let home = Home::new();
    home.ok(&["start", "-n", "job", "-w", "1", "--ready", "1ms", "--", "sleep", "1000"]);
    super::cluster::kill(home.deployments()[0].keeper_pid, "KILL");
    let socket = home.folder.path().join("home/run/job.sock");
    wait_until("its end", || std::os::unix::net::UnixStream::connect(&socket).is_err());
    assert!(socket.exists());
    assert!(home.run(&["ls"]).1.contains("gone"));
    home.ok(&["start", "-n", "other", "-w", "1", "--ready", "1ms", "--", "sleep", "1000"]);
    assert_eq!(home.app("other").id, Some(1), "the id of what can still be started is not given away");
    home.ok(&["delete", "job"]);
    home.ok(&["start", "-n", "job", "-w", "1", "--ready", "1ms", "--", "sleep", "1000"]);
    assert_eq!(home.app("job").status, "running");
    // A run in the foreground that died leaves nothing to start.
    let mut run = command(&home.folder);
    run.args(["-n", "front", "-w", "1", "--ready", "1ms", "--", "sleep", "1000"]).stderr(Stdio::null());
    let mut front = run.spawn().unwrap();
    wait_until("the run", || home.run(&["ls"]).1.contains("front"));
    front.kill().unwrap();
    front.wait().unwrap();
    wait_until("its end", || !home.run(&["ls"]).1.contains("front"));
    home.ok(&["start", "-n", "front", "-w", "1", "--ready", "1ms", "--", "sleep", "1000"]);
}

#[test]
fn ls_fails_when_a_control_api_refuses_and_shows_the_others() {
    let home = Home::new();
    home.ok(&["start", "-n", "job", "-w", "1", "--ready", "1ms", "--", "sleep", "1000"]);
    assert_eq!(home.run(&["ls"]).0, 0);
    // What a control API answers that has too much to do.
    let busy = UnixListener::bind(home.folder.path().join("home/run/busy.sock")).unwrap();
    std::thread::spawn(move || {
        for mut client in busy.incoming().map_while(Result::ok) {
            let _ = client.read(&mut [0; 1024]);
            let _ = client.write_all(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n");
        }
    });
    let shows =
        [(&["ls"][..], "503"), (&["ls", "--short"], "no answer"), (&["ls", "--json"], "503"), (&["jlist"], "503")];
    for (args, why) in shows {
        let (code, out, err) = home.run(args);
        assert_eq!(code, 1, "{args:?}: {out}{err}");
        assert!(out.contains("job"), "{args:?}: {out}");
        let said = out + &err;
        assert!(said.contains("busy") && said.contains(why), "{args:?}: {said}");
    }
}

#[test]
fn two_commands_at_once_both_end_well() {
    let home = Home::new();
    home.web("web", "2");
    let together = |one: &[&str], two: &[&str]| {
        let [mut one, mut two] =
            [one, two].map(|args| command(&home.folder).args(args).stderr(Stdio::null()).spawn().unwrap());
        [one.wait().unwrap().success(), two.wait().unwrap().success()]
    };
    assert_eq!(together(&["reload", "web"], &["reload", "web"]), [true, true]);
    assert!(together(&["restart", "web"], &["restart", "web"]).contains(&true));
    assert_eq!(together(&["stop", "web"], &["stop", "web"]), [true, true]);
    assert_eq!(together(&["start", "web"], &["start", "web"]), [true, true]);
    wait_until("both workers", || home.app("web").workers_ready == 2);
    assert!(together(&["delete", "web"], &["delete", "web"]).contains(&true));
    assert!(home.run(&["ls"]).1.contains("nothing runs here"));
}
