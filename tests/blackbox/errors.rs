//! Mistakes: each is one clear message, exit code 2 for what was typed, 1 for what the machine refuses.
use super::apps::hello;
use super::cluster::{Cluster, Folder, run};
use std::os::unix::fs::PermissionsExt;

/// Runs it to its end: the exit code, and all of these words on stderr.
fn fails(args: &[&str], code: i32, words: &[&str]) -> String {
    fails_in(&Folder::new(), args, code, words)
}

fn fails_in(folder: &Folder, args: &[&str], code: i32, words: &[&str]) -> String {
    let (got, out, err) = run(folder, args);
    assert_eq!(got, code, "{args:?}: {err}");
    for word in words {
        assert!(err.contains(word), "{args:?} should say {word:?}: {err}");
    }
    assert!(out.is_empty(), "{out}");
    assert!(!err.contains("panicked"), "{err}");
    err
}

#[test]
fn a_taken_port_names_its_holder() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    // A process of its own: a socket of these tests is for a moment that of each child that they start.
    let code = "import socket, sys; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); sys.stdin.read()";
    let mut holder =
        Command::new("python3").args(["-c", code]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut port = String::new();
    BufReader::new(holder.stdout.take().unwrap()).read_line(&mut port).unwrap();
    let port = port.trim();
    fails(
        &["--host", "127.0.0.1", "--port", port, "--", "node", &hello()],
        1,
        &[&format!("127.0.0.1:{port}"), "in use", &format!("pid {}", holder.id())],
    );
    drop(holder.stdin.take());
    holder.wait().unwrap();
}

#[test]
fn a_privileged_port_says_what_it_needs() {
    let folder = Folder::new();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    // As a user without rights; a test run by such a user needs no change of user.
    let args = ["--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all", "--"];
    let output = std::process::Command::new("setpriv")
        .args(if unprivileged() { &args[6..] } else { &args[..] })
        .arg(env!("CARGO_BIN_EXE_clusterd"))
        .args(["--host", "127.0.0.1", "--port", "81", "--protocol", "listen-fds", "--", "sleep", "1"])
        .current_dir(folder.path())
        .env("CLUSTERD_HOME", folder.path().join("home"))
        .output()
        .unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains("127.0.0.1:81") && err.contains("CAP_NET_BIND_SERVICE"), "{err}");
}

fn unprivileged() -> bool {
    std::fs::read_to_string("/proc/self/status")
        .unwrap()
        .lines()
        .any(|line| line.strip_prefix("Uid:").is_some_and(|ids| ids.split_whitespace().next() != Some("0")))
}

#[test]
fn commands_that_cannot_run_say_why() {
    fails(&["-w", "1", "--", "no-such-command-here"], 1, &["no-such-command-here", "PATH"]);
    let folder = Folder::new();
    let script = folder.write("tool.sh", "#!/bin/sh\n");
    fails_in(&folder, &["-w", "1", "--", &script], 1, &["not executable", "clusterd -- sh"]);
    let foreign = folder.write_executable("foreign", "\x7fELF\x02\x01\x01\0\0\0");
    let words = ["cannot run", "Exec format error", "another machine", "given up (errored): another try"];
    let said = fails_in(&folder, &["-w", "1", "--", &foreign], 1, &words);
    assert!(!said.contains("next try"), "{said}");
    let (code, out, err) = run(&folder, &["start", "-i", "1", "--name", "foreign", "--", &foreign]);
    assert!(code == 1 && err.contains("Exec format error") && !err.contains("trying again"), "{out} {err}");
    assert_eq!(run(&folder, &["delete", "foreign"]).0, 0);
    let no_first_line = folder.write_executable("app.py", "print(1)\n");
    fails_in(&folder, &["-w", "1", "--", &no_first_line], 1, &["no #! line", "clusterd -- python3"]);
    let folder_as_command = folder.path().display().to_string();
    fails_in(&folder, &["-w", "1", "--", &folder_as_command], 1, &["folder"]);
    fails(&["-w", "1", "--cwd", "/no/such/folder", "--", "sleep", "1"], 1, &["/no/such/folder"]);
    fails(&["-w", "1", "--user", "nobody-has-this-name", "--", "sleep", "1"], 1, &["nobody-has-this-name"]);
}

#[test]
fn options_that_make_no_sense_say_what_is_allowed() {
    fails(&["-w", "0", "--", "sleep", "1"], 2, &["0", "max", "50%"]);
    fails(&["-w", "100000", "--", "sleep", "1"], 2, &["100000", "4096"]);
    fails(&["-w", "many", "--", "sleep", "1"], 2, &["many", "max"]);
    fails(&["--prot", "80", "--", "sleep", "1"], 2, &["--prot"]);
    fails(&["--port", "70000", "--", "sleep", "1"], 2, &["70000"]);
    fails(&["app.js"], 2, &["--", "node"]);
    fails(&["-w", "1"], 2, &["--"]);
}

#[test]
fn a_bad_file_shows_every_mistake_with_its_place() {
    let folder = Folder::new();
    folder.write(
        "c.toml",
        "[[app]]\nname = \"a\"\ncommand = [\"sleep\", \"1\"]\nwokers = 2\nready_timeout = true\nlisten = [\"8080\"]\n\
         [[app]]\nname = \"b\"\ncommand = [\"sleep\", \"1\"]\nlisten = [\"127.0.0.1:8080\"]\nworkers = 0\n",
    );
    let places = ["c.toml:4:1", "\"workers\"", "c.toml:5:", "c.toml:10:", "8080", "c.toml:11:"];
    let err = fails_in(&folder, &["-c", "c.toml"], 2, &places);
    assert!(err.lines().count() >= 4, "{err}");
    assert_eq!(run(&folder, &["check", "-c", "c.toml"]).0, 2);
    fails_in(&folder, &["-c", "missing.toml"], 1, &["missing.toml", "no such file"]);
}

#[test]
fn a_home_that_cannot_be_written_costs_only_the_control_socket() {
    let folder = Folder::new();
    // A file where the folder should be: nobody can make it, not even root.
    folder.write("home", "");
    let cluster = Cluster::start_in(folder, &["-w", "1", "--ready", "50ms", "--", "sleep", "1000"], |_| {});
    cluster.wait_line("no control socket");
    cluster.wait_line("ready, 1 worker");
    cluster.stop();
}

#[test]
fn a_typed_name_that_runs_already_is_refused() {
    let first = Cluster::start(&["-w", "1", "--name", "one", "--ready", "50ms", "--", "sleep", "1000"]);
    first.wait_ready(1);
    fails_in(
        &first.folder,
        &["-w", "1", "--name", "one", "--", "sleep", "1"],
        1,
        &["\"one\"", "is there already", "keeper is pid"],
    );
    first.stop();
}
