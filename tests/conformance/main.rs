//! Conformance: each case is an app that plays its part in two workers, once under Node's own cluster and once under
//! clusterd. What the workers wrote down, slot by slot, has to be the same.
#![allow(clippy::unwrap_used)]
#[path = "../common/mod.rs"]
mod common;

use common::cluster;
use common::cluster::{Cluster, Folder, PATIENCE};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Instant;

/// The Node that plays, `node` unless CONFORMANCE_NODE names another.
fn node() -> String {
    std::env::var("CONFORMANCE_NODE").unwrap_or_else(|_| "node".to_owned())
}

/// Workers of a case.
const SLOTS: usize = 2;

/// What each slot wrote.
type Transcript = BTreeMap<String, Vec<String>>;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance").join(name)
}

/// Sorts one line into its slot.
fn take(transcript: &mut Transcript, line: &str) {
    let (slot, said) = line.split_once(' ').unwrap_or(("?", line));
    transcript.entry(slot.to_owned()).or_default().push(said.to_owned());
}

fn finished(transcript: &Transcript) -> bool {
    let done = |said: &Vec<String>| said.last().is_some_and(|last| last == "[\"done\"]");
    transcript.len() == SLOTS && transcript.values().all(done)
}

/// What a case needs from outside.
#[derive(Clone, Copy, Default)]
struct Scene {
    shared: bool,
    /// Once this was said, the primary sends its workers away.
    leave_at: Option<&'static str>,
    /// A listening socket at fd 3.
    inherits: bool,
}

/// Started under Node's primary; ended by its drop.
struct Reference(Child);

impl Drop for Reference {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The command, behind a small script that puts `socket` at fd 3 as systemd does, where there is one.
fn with_socket(command: &mut Command, socket: Option<&TcpListener>) -> Command {
    let mut wrapped = Command::new("python3");
    match socket {
        None => {
            wrapped = Command::new(command.get_program());
            wrapped.args(command.get_args());
        }
        Some(socket) => {
            let script = "import os, sys\n\
                          os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()))\n\
                          os.dup2(0, 3)\n\
                          os.set_inheritable(3, True)\n\
                          os.dup2(os.open('/dev/null', os.O_RDONLY), 0)\n\
                          os.execvp(sys.argv[1], sys.argv[1:])\n";
            let port = socket.local_addr().unwrap().port();
            wrapped.args(["-c", script]).arg(command.get_program()).args(command.get_args());
            wrapped.env("INHERITED_PORT", port.to_string());
            wrapped.stdin(Stdio::from(socket.as_fd().try_clone_to_owned().unwrap()));
        }
    }
    if let Some(folder) = command.get_current_dir() {
        wrapped.current_dir(folder);
    }
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    wrapped
}

fn socket(scene: Scene) -> Option<TcpListener> {
    scene.inherits.then(|| TcpListener::bind("127.0.0.1:0").unwrap())
}

fn under_node(case: &str, scene: Scene) -> Transcript {
    let folder = Folder::new();
    let policy = if scene.shared { "shared" } else { "rr" };
    let mut command = Command::new(node());
    command.arg(file("primary.js")).args([policy, &SLOTS.to_string(), case]).current_dir(folder.path());
    let mut command = with_socket(&mut command, socket(scene).as_ref());
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let child = Reference(child);
    let (sender, receiver) = mpsc::channel();
    let reader = std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
    let mut transcript = Transcript::new();
    let deadline = Instant::now() + PATIENCE;
    while !finished(&transcript) {
        let left = deadline.saturating_duration_since(Instant::now());
        let Ok(line) = receiver.recv_timeout(left) else {
            panic!("under Node the case stands still at {transcript:#?}")
        };
        if scene.leave_at.is_some_and(|at| line.contains(at)) {
            cluster::kill(child.0.id() as i32, "USR2");
        }
        take(&mut transcript, &line);
    }
    drop(child);
    drop(receiver);
    let _ = reader.join();
    transcript
}

fn under_clusterd(case: &str, scene: Scene, balance: &str) -> Transcript {
    let worker = file("worker.js").display().to_string();
    let mut args = vec!["-w", "2", "--balance", balance];
    let node = node();
    args.extend(["--", &node, &worker, case]);
    let cluster = Cluster::start_in(Folder::new(), &[], |command| {
        command.args(&args);
        *command = with_socket(command, socket(scene).as_ref());
        if !scene.inherits {
            command.stdin(Stdio::null());
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
    });
    if let Some(at) = scene.leave_at {
        cluster.wait_out(at);
        // Who is not ready yet is ended, not drained, and a worker may serve before its master has read that it listens.
        cluster.wait_line("ready, 2 workers");
        cluster.signal("TERM");
    }
    cluster.wait_in_out("the end of the case under clusterd", |lines| {
        let mut transcript = Transcript::new();
        lines.iter().for_each(|line| take(&mut transcript, line));
        finished(&transcript).then_some(transcript)
    })
}

fn same(case: &str, scene: Scene) {
    let expected = under_node(case, scene);
    // For the app a socket of its own is the same as the one that all share.
    let ways: &[&str] = if scene.shared { &["shared", "kernel"] } else { &["round-robin"] };
    for balance in ways {
        let seen = under_clusterd(case, scene, balance);
        for (slot, expected) in &expected {
            let seen = seen.get(slot).cloned().unwrap_or_default();
            assert_eq!(&seen, expected, "{case}, {balance}, slot {slot}: clusterd on the left, Node on the right");
        }
    }
}

macro_rules! cases {
    ($($name:ident: $scene:expr;)*) => {
        $(#[test]
        fn $name() {
            same(stringify!($name), $scene);
        })*

        #[test]
        fn every_case_is_played() {
            let mut files: Vec<String> = std::fs::read_dir(file("cases")).unwrap()
                .map(|entry| entry.unwrap().file_name().to_string_lossy().replace(".js", "")).collect();
            files.sort();
            let mut named = vec![$(stringify!($name).to_owned()),*];
            named.sort();
            assert_eq!(files, named);
        }
    };
}

cases! {
    datagrams: Scene::default();
    errors: Scene::default();
    errors_twice: Scene::default();
    exclusive: Scene::default();
    families: Scene::default();
    freed: Scene::default();
    identity: Scene::default();
    inherited_fd: Scene { inherits: true, ..Scene::default() };
    leave_disconnect: Scene::default();
    leave_kill: Scene::default();
    leave_process_disconnect: Scene::default();
    max_connections: Scene::default();
    messages: Scene::default();
    ports: Scene::default();
    sockets: Scene::default();
    threads: Scene::default();
    tickets: Scene::default();
    told_to_leave: Scene { leave_at: Some("please"), ..Scene::default() };
    unix: Scene::default();
    web: Scene::default();
}

/// Cases that do not depend on turns are the same when the workers accept by themselves.
mod shared {
    use super::{Scene, same};

    const SHARED: Scene = Scene { shared: true, leave_at: None, inherits: false };

    #[test]
    #[ignore = "long: each is three more runs"]
    fn datagrams() {
        same("datagrams", SHARED);
    }

    #[test]
    fn sockets() {
        same("sockets", SHARED);
    }

    #[test]
    #[ignore = "long: each is three more runs"]
    fn messages() {
        same("messages", SHARED);
    }

    #[test]
    #[ignore = "long: each is three more runs"]
    fn leave_process_disconnect() {
        same("leave_process_disconnect", SHARED);
    }

    #[test]
    fn leave_kill() {
        same("leave_kill", SHARED);
    }

    #[test]
    #[ignore = "long: each is three more runs"]
    fn errors() {
        same("errors", SHARED);
    }

    #[test]
    fn identity() {
        same("identity", SHARED);
    }

    #[test]
    #[ignore = "long: each is three more runs"]
    fn exclusive() {
        same("exclusive", SHARED);
    }

    #[test]
    #[ignore = "long: each is three more runs"]
    fn tickets() {
        same("tickets", SHARED);
    }

    #[test]
    #[ignore = "long: each is three more runs"]
    fn leave_disconnect() {
        same("leave_disconnect", SHARED);
    }

    #[test]
    #[ignore = "long: each is three more runs"]
    fn told_to_leave() {
        same("told_to_leave", Scene { leave_at: Some("please"), ..SHARED });
    }
}
