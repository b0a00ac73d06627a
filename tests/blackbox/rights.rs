//! A worker, or another user of the machine, that wants to hurt those beside it.
use super::apps::{hello, misbehave};
use super::client::get;
use super::cluster::{Cluster, Folder, kill, run, wait_until};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;

fn lingers(way: &str, options: &[&str]) -> Cluster {
    let (script, way) = (misbehave("lingers.py"), format!("WAY={way}"));
    let mut args = vec!["-w", "1", "--host", "127.0.0.1", "--port", "0", "-e", &way];
    args.extend(options);
    args.extend(["--", "python3", &script]);
    Cluster::start(&args)
}

/// The same master has answered for all of it.
fn unharmed(cluster: Cluster) {
    let view = cluster.wait_view("the master", |_| true);
    assert_eq!(view.master_restarts, 0, "{view:#?}");
    cluster.stop();
}

/// A worker that leaves its sockets while the master does not look, so that the master has the last copies.
fn left_behind(way: &str, options: &[&str]) -> Cluster {
    let cluster = lingers(way, options);
    cluster.wait_ready(1);
    let master = cluster.master_pid();
    kill(master, "STOP");
    cluster.folder.write("go", "");
    wait_until("they are left", || cluster.folder.path().join("left").exists());
    kill(master, "CONT");
    cluster
}

#[test]
fn a_socket_that_lingers_on_the_notify_socket_stops_nobody() {
    let cluster = left_behind("notify", &["--ready", "notify", "--protocol", "listen-fds"]);
    cluster.wait_view("what was said after it", |view| {
        view.apps[0].workers.iter().any(|worker| worker.note.as_deref() == Some("done"))
    });
    unharmed(cluster);
}

#[test]
fn a_socket_that_lingers_on_a_channel_stops_nobody() {
    let cluster = left_behind("channel", &["--protocol", "node"]);
    assert!(get(cluster.address(), "/").is_ok());
    unharmed(cluster);
}

#[test]
fn a_socket_that_lingers_unread_on_a_channel_stops_neither_master_nor_keeper() {
    let cluster = left_behind("unread", &["--protocol", "node"]);
    cluster.wait_view("its successor", |view| {
        view.apps[0].workers_ready == 1 && view.apps[0].workers.iter().all(|worker| worker.id > Some(1))
    });
    assert!(get(cluster.address(), "/").is_ok());
    unharmed(cluster);
}

#[test]
fn a_connection_that_was_made_to_linger_stops_nobody() {
    let cluster = lingers("connection", &["--protocol", "node"]);
    cluster.wait_ready(1);
    let clients: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(cluster.address()).unwrap()).collect();
    cluster.wait_view("all of them handed over", |view| view.apps[0].workers[0].handoffs == 3);
    drop(clients);
    unharmed(cluster);
}

#[test]
fn the_notify_socket_is_for_the_user_of_the_app_alone() {
    let folder = Folder::new();
    folder.write("app.py", "import os, signal\nprint('AT ' + os.environ['NOTIFY_SOCKET'], flush=True)\nsignal.pause()");
    let cluster =
        Cluster::start_in(folder, &["-w", "1", "-p", "0", "--ready", "50ms", "--", "python3", "app.py"], |_| {});
    let line = cluster.wait_out("AT ");
    let path = line.split_once("AT ").unwrap().1.to_owned();
    let found = std::fs::symlink_metadata(&path).unwrap();
    assert!(found.file_type().is_socket(), "{path}");
    assert_eq!(found.mode() & 0o777, 0o600, "{path}");
    let above = std::fs::metadata(std::path::Path::new(&path).parent().unwrap()).unwrap();
    assert_eq!(above.mode() & 0o777, 0o700, "{path}");
    cluster.stop();
    assert!(!std::path::Path::new(&path).exists(), "it stays behind");
}

#[test]
fn what_a_worker_calls_its_address_cannot_act_on_the_terminal() {
    let folder = Folder::new();
    let name = "x\\x1b]0;PWN\\x07\\x1b[2J\\n[9] fake running";
    let script = format!(
        "import sys\nsys.path.insert(0, {:?})\nimport node_channel as node\nnode.become_ready()\n\
         print('ERRNO', node.query(address='{name}', port=-1, kind=-1)['errno'], flush=True)\n\
         for connection, taken in node.connections(): taken()\n",
        misbehave("")
    );
    folder.write("app.py", &script);
    let args = ["-w", "1", "--host", "127.0.0.1", "-p", "0", "--protocol", "node", "--", "python3", "app.py"];
    let cluster = Cluster::start_in(folder, &args, |command| {
        command.env("CLUSTERD_LOG", "debug");
    });
    cluster.wait_out("ERRNO 0");
    let listed = cluster.wait_view("the address", |view| view.apps[0].listen.len() == 2);
    assert!(listed.apps[0].listen[1].contains("x\x1b]0;PWN\x07"), "JSON says what it is: {listed:?}");
    for verb in [&["ls"][..], &["ls", "--short"], &["describe", "all"]] {
        let shown = cluster.cli(verb);
        let text = String::from_utf8(shown.stdout).unwrap();
        assert!(!text.contains(['\x1b', '\x07']), "{verb:?}: {text:?}");
        assert!(!text.lines().any(|line| line.trim_start().starts_with("[9]")), "{verb:?}: {text}");
    }
    let shown = String::from_utf8(cluster.cli(&["describe", "all"]).stdout).unwrap();
    assert!(shown.contains("\\x1b]0;PWN\\x07\\x1b[2J\\n[9] fake running"), "{shown}");
    let said = cluster.stderr();
    assert!(!said.iter().any(|line| line.contains('\x1b') || line.starts_with("[9]")), "{said:?}");
    cluster.stop();
}

#[test]
fn a_file_of_data_is_never_run() {
    let folder = Folder::new();
    let proof = folder.path().join("ran");
    let text = format!(
        "{{ \"apps\": [{{ \"script\": this.constructor.constructor(\"return process\")()\
         .mainModule.require('fs').writeFileSync({proof:?}, '') || \"a.js\" }}] }}"
    );
    folder.write("app.json", &text);
    for words in [&["check", "-c", "app.json"][..], &["import", "app.json"]] {
        let (code, _, said) = run(&folder, words);
        assert_eq!(code, 1, "{said}");
        assert!(said.contains("belongs into a .js file"), "{said}");
        assert!(!proof.exists(), "{words:?} ran it");
    }
}

#[test]
fn an_environment_file_that_is_a_pipe_without_a_writer_stops_no_reload() {
    let folder = Folder::new();
    let app = hello();
    folder.write("env", "A=1\n");
    let text = format!(
        "[[app]]\nname = \"web\"\ncommand = [\"node\", {app:?}]\nworkers = 1\nlisten = \"127.0.0.1:0\"\nenv_file = \"env\"\n"
    );
    folder.write("c.toml", &text);
    let cluster = Cluster::start_in(folder, &["-c", "c.toml"], |_| {});
    cluster.wait_ready(1);
    let env = cluster.folder.path().join("env");
    std::fs::remove_file(&env).unwrap();
    nix::unistd::mkfifo(&env, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let reload = cluster.cli(&["reload", "all"]);
    let said = String::from_utf8_lossy(&reload.stderr).into_owned();
    assert!(!reload.status.success() && said.contains("took longer than"), "{said}");
    assert!(get(cluster.address(), "/").is_ok());
    unharmed(cluster);
}

/// Nobody in particular, without an entry.
const SOMEBODY: u32 = 54_321;

#[test]
fn what_a_worker_of_another_user_asks_for_is_done_with_that_users_rights() {
    if clusterd::os::user::own_uid() != 0 {
        eprintln!("skipped: only root can run workers as another user");
        return;
    }
    let folder = Folder::new();
    std::fs::copy(misbehave("node_channel.py"), folder.path().join("node_channel.py")).unwrap();
    folder.write(
        "app.py",
        "import os\nimport node_channel as node\nnode.become_ready()\n\
         asks = [(None, 81, 4), ('0.0.0.0', 53, 'udp4'), ('/etc/clusterd-test.sock', -1, -1), ('closed/refused.sock', -1, -1),\n\
         ('own/given.sock', -1, -1), ('moved/precious', -1, -1)]\n\
         for address, port, kind in asks:\n    print('ASKED', port, address, node.query(address, port, kind)['errno'], flush=True)\n\
         os.rename('moved', 'away')\nos.symlink('kept', 'moved')\nprint('DONE', os.getuid(), flush=True)\n\
         for connection, taken in node.connections(): taken()\n",
    );
    for name in ["own", "moved", "kept", "."] {
        let path = folder.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        let owner = if name == "kept" { 0 } else { SOMEBODY };
        std::os::unix::fs::chown(&path, Some(owner), Some(owner)).unwrap();
    }
    // A socket of ours, under the name of one of the worker's.
    let _kept = std::os::unix::net::UnixListener::bind(folder.path().join("kept/precious")).unwrap();
    std::fs::create_dir(folder.path().join("closed")).unwrap();
    let somebody = SOMEBODY.to_string();
    let args =
        ["-w", "1", "--host", "127.0.0.1", "-p", "0", "--protocol", "node", "--user", &somebody, "--group", &somebody];
    let cluster = Cluster::start_in(folder, &[&args[..], &["--", "python3", "app.py"]].concat(), |command| {
        // Root's own programs are not for everybody.
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin");
    });
    cluster.wait_out(&format!("DONE {SOMEBODY}"));
    let said = cluster.stdout();
    let refused = -13;
    let unprivileged = clusterd::os::user::first_unprivileged_port();
    let below = |port: u32| if unprivileged > port { refused } else { 0 };
    for (ask, errno) in [
        ("81 None", below(81)),
        ("53 0.0.0.0", below(53)),
        ("-1 /etc/clusterd-test.sock", refused),
        ("-1 closed/refused.sock", refused),
        ("-1 own/given.sock", 0),
        ("-1 moved/precious", 0),
    ] {
        assert!(said.contains(&format!("ASKED {ask} {errno}")), "{ask} {errno}: {said:#?}");
    }
    let given = cluster.folder.path().join("own/given.sock");
    assert_eq!(std::fs::metadata(&given).unwrap().uid(), SOMEBODY);
    let kept = cluster.folder.path().join("kept/precious");
    let at = cluster.folder.path().to_owned();
    let mut cluster = cluster;
    cluster.signal("TERM");
    assert_eq!(cluster.wait_exit(), 0);
    assert!(!given.exists(), "its own socket stays");
    assert!(kept.exists(), "a socket of root's was removed through a link in {at:?}");
}

#[test]
fn workers_of_another_user_have_the_environment_of_that_user() {
    if clusterd::os::user::own_uid() != 0 {
        eprintln!("skipped: only root can run workers as another user");
        return;
    }
    let folder = Folder::new();
    let home = folder.path().join("home");
    let somebody = SOMEBODY.to_string();
    let args =
        ["-w", "1", "--protocol", "none", "--ready", "50ms", "--user", &somebody, "--group", &somebody, "-e", "OWN=1"];
    let script = "import os, signal\nprint('ENV', sorted(os.environ.items()), flush=True)\nsignal.pause()\n";
    let cluster = Cluster::start_in(folder, &[&args[..], &["--", "python3", "-c", script]].concat(), |command| {
        command.env_clear().env("CLUSTERD_HOME", home);
        command.env("PATH", "/root/bin:/usr/local/bin:/usr/bin:/bin").env("HOME", "/root").env("USER", "root");
        command.env("SUDO_USER", "x").env("KEPT", "1");
    });
    let said = cluster.wait_out("ENV ");
    for there in ["('HOME', '/')", "('KEPT', '1')", "('OWN', '1')", "('PATH', '/usr/local/bin:/usr/bin:/bin')"] {
        assert!(said.contains(there), "{there}: {said}");
    }
    for gone in ["'USER'", "'SUDO_USER'", "/root"] {
        assert!(!said.contains(gone), "{gone}: {said}");
    }
    cluster.stop();
}

/// A folder of root's with two others in it: one of that user with a script, and one of root's with keys.
fn folder_of_somebody(script: &str) -> (Folder, std::path::PathBuf, std::path::PathBuf) {
    let folder = Folder::new();
    let (theirs, precious) = (folder.path().join("theirs"), folder.path().join("precious"));
    std::fs::create_dir(&precious).unwrap();
    std::fs::write(precious.join("keys"), "SECRET=1\n").unwrap();
    std::fs::set_permissions(precious.join("keys"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    for path in [theirs.clone(), theirs.join("logs")] {
        std::fs::create_dir(&path).unwrap();
        std::os::unix::fs::chown(&path, Some(SOMEBODY), Some(SOMEBODY)).unwrap();
    }
    std::fs::write(theirs.join("app.py"), script).unwrap();
    (folder, theirs, precious)
}

/// The configuration of an app of that user, in that folder.
fn app_of_somebody(theirs: &std::path::Path, argument: &std::path::Path, more: &str) -> String {
    format!(
        "[[app]]\nname = \"web\"\ncommand = [\"python3\", \"app.py\", {argument:?}]\ncwd = {theirs:?}\nworkers = 1\n\
         protocol = \"none\"\nready = \"50ms\"\nuser = \"{SOMEBODY}\"\ngroup = \"{SOMEBODY}\"\n{more}\n"
    )
}

#[test]
fn log_files_in_a_folder_of_the_apps_user_are_handled_with_that_users_rights() {
    if clusterd::os::user::own_uid() != 0 {
        eprintln!("skipped: only root can run workers as another user");
        return;
    }
    // Its file, a rotated one and the next one lead to a file of root's.
    let (folder, at, precious) = folder_of_somebody(
        "import os, signal, sys, time\nprint('first', flush=True)\n\
         while not os.path.exists('logs/out.log') or not os.path.getsize('logs/out.log'): time.sleep(0.01)\n\
         os.symlink(sys.argv[1], 'logs/out-20200101T000000.000Z.log')\n\
         os.rename('logs/out.log', 'logs/mine')\nos.symlink(sys.argv[1], 'logs/out.log')\n\
         print('x' * 2000, flush=True)\nwhile not os.path.exists('go'): time.sleep(0.01)\n\
         os.remove('logs/out.log')\n\
         own = lambda name: name.startswith('out-') and '20200101' not in name\n\
         while not any(map(own, os.listdir('logs'))) or not os.path.exists('logs/out.log'):\n\
         \x20   print('y' * 90, flush=True)\n    time.sleep(0.01)\n\
         print('DONE', file=sys.stderr, flush=True)\nsignal.pause()\n",
    );
    let keys = precious.join("keys");
    let log = format!("[app.log]\nout = {:?}\nmax_size = \"1K\"\nkeep = 5\ncompress = true", at.join("logs/out.log"));
    let text = app_of_somebody(&at, &keys, &log);
    folder.write("c.toml", &text);
    let cluster = Cluster::start_in(folder, &["-c", "c.toml"], |command| {
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin");
    });
    wait_until("its log is a link", || at.join("logs/out.log").is_symlink());
    // It is opened again, and read back.
    let reopened = cluster.cli(&["reopen-logs"]);
    assert!(!reopened.status.success(), "{reopened:?}");
    assert!(String::from_utf8_lossy(&reopened.stderr).contains("Permission denied"), "{reopened:?}");
    for verb in [&["logs", "--nostream"][..], &["flush"]] {
        let shown = cluster.cli(verb);
        assert!(!String::from_utf8_lossy(&shown.stdout).contains("SECRET"), "{shown:?}");
    }
    std::fs::write(at.join("go"), "").unwrap();
    cluster.wait_line("DONE");
    let rotated = || {
        let names = std::fs::read_dir(at.join("logs")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(".log.gz")).collect::<Vec<_>>()
    };
    wait_until("its own files are compressed", || !rotated().is_empty());
    for name in rotated() {
        assert_eq!(std::fs::metadata(at.join("logs").join(&name)).unwrap().uid(), SOMEBODY, "{name}");
        assert!(name != "out-20200101T000000.000Z.log.gz", "root's file was compressed for the user");
    }
    assert_eq!(std::fs::metadata(at.join("logs/out.log")).unwrap().uid(), SOMEBODY);
    assert_eq!(std::fs::read(&keys).unwrap(), b"SECRET=1\n");
    unharmed(cluster);
}

#[test]
fn log_files_in_a_folder_of_roots_are_written_for_every_user() {
    if clusterd::os::user::own_uid() != 0 {
        eprintln!("skipped: only root can run workers as another user");
        return;
    }
    let (folder, at, precious) = folder_of_somebody("import signal\nprint('first', flush=True)\nsignal.pause()\n");
    let log = precious.join("new/out.log");
    let text = app_of_somebody(&at, &log, &format!("[app.log]\nout = {log:?}"));
    folder.write("c.toml", &text);
    let cluster = Cluster::start_in(folder, &["-c", "c.toml"], |command| {
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin");
    });
    wait_until("it is written", || std::fs::read(&log).is_ok_and(|text| text == b"first\n"));
    assert_eq!(std::fs::metadata(&log).unwrap().uid(), 0);
    let shown = cluster.cli(&["logs", "--nostream", "--raw"]);
    assert_eq!(String::from_utf8_lossy(&shown.stdout), "first\n");
    unharmed(cluster);
}

#[test]
fn environment_files_are_read_with_the_rights_of_the_apps_user() {
    if clusterd::os::user::own_uid() != 0 {
        eprintln!("skipped: only root can run workers as another user");
        return;
    }
    let script = "import os, signal\nprint('ENV', os.environ.get('SECRET'), os.environ.get('OWN'), flush=True)\nsignal.pause()\n";
    let (folder, at, precious) = folder_of_somebody(script);
    let keys = precious.join("keys");
    // Root's own file, in root's folder: root meant it. And one of theirs, through a link of theirs.
    std::fs::write(at.join("theirs"), "OWN=2\n").unwrap();
    std::os::unix::fs::symlink("theirs", at.join("env")).unwrap();
    let text = app_of_somebody(&at, &keys, &format!("env_file = [{keys:?}, {:?}]", at.join("env")));
    folder.write("c.toml", &text);
    let cluster = Cluster::start_in(folder, &["-c", "c.toml"], |command| {
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin");
    });
    cluster.wait_out("ENV 1 2");
    // Theirs becomes a link to root's.
    std::fs::remove_file(at.join("env")).unwrap();
    std::os::unix::fs::symlink(&keys, at.join("env")).unwrap();
    let reload = cluster.cli(&["reload", "all"]);
    let said = String::from_utf8_lossy(&reload.stderr).into_owned();
    assert!(!reload.status.success() && said.contains("cannot read theirs/env: as 54321: no permission"), "{said}");
    unharmed(cluster);
}

#[test]
fn who_may_connect_to_a_socket_file_is_said_by_the_configuration_or_the_app() {
    let folder = Folder::new();
    folder.write(
        "app.js",
        "const http = require('node:http');\nhttp.createServer((q, s) => s.end()).listen(process.env.SOCK);\n\
         http.createServer((q, s) => s.end()).listen({ path: 'asked.sock', readableAll: true, writableAll: true });\n",
    );
    let at = folder.path().to_owned();
    let is_root = clusterd::os::user::own_uid() == 0;
    let who = if is_root { format!("owner = {SOMEBODY}, group = {SOMEBODY}") } else { String::new() };
    let config = |mode: &str| {
        let socket = at.join("web.sock");
        let who = if who.is_empty() { String::new() } else { format!(", {who}") };
        format!(
            "[[app]]\nname = \"web\"\ncommand = [\"node\", \"app.js\"]\nworkers = 1\nenv.SOCK = {socket:?}\n\
             listen = [{{ address = \"unix:{}\", mode = \"{mode}\"{who} }}]\n",
            socket.display()
        )
    };
    folder.write("c.toml", &config("0660"));
    let cluster = Cluster::start_in(folder, &["-c", "c.toml"], |_| {});
    cluster.wait_ready(1);
    let look = |name: &str| {
        let found = std::fs::symlink_metadata(at.join(name)).unwrap();
        (found.mode() & 0o777, found.uid(), found.gid())
    };
    let (uid, gid) = if is_root { (SOMEBODY, SOMEBODY) } else { (look("web.sock").1, look("web.sock").2) };
    assert_eq!(look("web.sock"), (0o660, uid, gid));
    wait_until("what the app asked for", || at.join("asked.sock").exists());
    assert_eq!(look("asked.sock").0, 0o777);
    // Another mode in a reload; the socket stays.
    cluster.folder.write("c.toml", &config("0606"));
    let reload = cluster.cli(&["reload", "all"]);
    assert!(reload.status.success(), "{reload:?}");
    assert_eq!(look("web.sock"), (0o606, uid, gid));
    unharmed(cluster);
}

#[test]
fn the_socket_file_of_an_app_of_another_user_belongs_to_that_user() {
    if clusterd::os::user::own_uid() != 0 {
        eprintln!("skipped: only root can run workers as another user");
        return;
    }
    let (folder, theirs, precious) = folder_of_somebody("import signal\nsignal.pause()\n");
    let socket = precious.join("web.sock");
    let listen = format!("umask = \"007\"\nlisten = \"unix:{}\"", socket.display());
    let text = app_of_somebody(&theirs, &theirs, &listen).replace("protocol = \"none\"", "protocol = \"listen-fds\"");
    folder.write("c.toml", &text);
    let cluster = Cluster::start_in(folder, &["-c", "c.toml"], |command| {
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin");
    });
    cluster.wait_ready(1);
    let found = std::fs::symlink_metadata(&socket).unwrap();
    assert_eq!((found.mode() & 0o777, found.uid(), found.gid()), (0o770, SOMEBODY, SOMEBODY));
    unharmed(cluster);
    assert!(!socket.exists(), "it stays behind");
}

#[test]
fn values_of_variables_are_on_no_command_line() {
    let script = "import os, signal\nprint('TOKEN', os.environ['TOKEN'], flush=True)\nsignal.pause()\n";
    let args = ["-w", "1", "--protocol", "none", "--ready", "50ms", "-e", "TOKEN=geheim", "--env=OTHER=geheim"];
    let cluster = Cluster::start(&[&args[..], &["--", "python3", "-c", script]].concat());
    cluster.wait_out("TOKEN geheim");
    let shown = |pid: i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        String::from_utf8_lossy(&line).replace('\0', " ")
    };
    for pid in [cluster.keeper_pid(), cluster.master_pid()] {
        let line = shown(pid);
        assert!(line.contains("-e TOKEN=******") && !line.contains("geheim"), "{line}");
    }
    let first = cluster.master_pid();
    kill(first, "KILL");
    cluster.wait_view("the next master", |view| view.master_restarts == 1);
    assert!(!shown(cluster.master_pid()).contains("geheim"));
    let worker = cluster.worker_pids()[0];
    kill(worker, "KILL");
    wait_until("the next worker has it too", || {
        cluster.stdout().iter().filter(|line| line.contains("TOKEN geheim")).count() == 2
    });
    cluster.stop();
}

#[test]
fn root_starts_nothing_that_a_home_of_another_user_names() {
    if clusterd::os::user::own_uid() != 0 {
        eprintln!("skipped: only root is that careful");
        return;
    }
    let folder = Folder::new();
    let home = folder.path().join("home");
    std::fs::create_dir_all(&home).unwrap();
    std::fs::write(home.join("saved.json"), "{}").unwrap();
    std::os::unix::fs::chown(&home, Some(SOMEBODY), None).unwrap();
    let (code, _, said) = run(&folder, &["resurrect"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("belongs to user 54321, and clusterd runs as root"), "{said}");
    folder.write("app.js", "setInterval(() => {}, 1000)");
    let (code, _, said) = run(&folder, &["start", "app.js", "--ready", "50ms"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("that root alone can change"), "{said}");
}

#[test]
fn a_worker_that_shuts_down_the_shared_socket_ends_it_for_a_moment_only() {
    let script = misbehave("shuts.py");
    let cluster = Cluster::start(&["-w", "2", "--host", "127.0.0.1", "--port", "0", "--", "python3", &script]);
    cluster.wait_ready(2);
    assert!(get(cluster.address(), "/").is_ok());
    let view = cluster.wait_view("its pid", |view| view.apps[0].workers[0].pid.is_some());
    kill(view.apps[0].workers[0].pid.unwrap(), "USR2");
    cluster.wait_line("it listens again");
    for _ in 0..4 {
        assert_eq!(get(cluster.address(), "/").unwrap(), "ok");
    }
    unharmed(cluster);
}

#[test]
fn a_worker_that_shuts_down_a_shared_unix_socket_ends_it_for_a_moment_only() {
    let script = misbehave("shuts.py");
    let folder = Folder::new();
    let path = folder.path().join("web.sock");
    let address = format!("unix:{}", path.display());
    let cluster = Cluster::start_in(folder, &["-w", "2", "-l", &address, "--", "python3", &script], |_| {});
    let before = cluster.wait_ready(2);
    let ask = || -> std::io::Result<String> {
        let mut client = UnixStream::connect(&path)?;
        client.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")?;
        let mut answer = String::new();
        client.read_to_string(&mut answer)?;
        Ok(answer)
    };
    assert!(ask().unwrap().ends_with("ok"));
    kill(before[0].pid.unwrap(), "USR2");
    cluster.wait_line("it was bound again");
    cluster.wait_view("other workers", |view| {
        let app = &view.apps[0];
        let is_new = |pid: Option<i32>| pid.is_some() && before.iter().all(|worker| worker.pid != pid);
        app.workers_ready == 2 && app.workers.len() == 2 && app.workers.iter().all(|worker| is_new(worker.pid))
    });
    for _ in 0..4 {
        assert!(ask().unwrap().ends_with("ok"));
    }
    unharmed(cluster);
    assert!(!path.exists(), "it stays behind");
}

#[test]
fn a_stop_leaves_what_somebody_else_has_put_at_the_path_of_its_socket() {
    let place = Folder::new();
    let path = place.path().join("web.sock");
    let address = format!("unix:{}", path.display());
    let port = format!("PORT={}", path.display());
    let start = || Cluster::start(&["-w", "1", "-l", &address, "-e", &port, "--", "node", &hello()]);
    let cluster = start();
    cluster.wait_ready(1);
    std::fs::remove_file(&path).unwrap();
    let other = std::os::unix::net::UnixListener::bind(&path).unwrap();
    unharmed(cluster);
    UnixStream::connect(&path).expect("another server's socket is left");
    drop(other);
    std::fs::remove_file(&path).unwrap();
    // And a file that is none.
    let cluster = start();
    cluster.wait_ready(1);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "precious").unwrap();
    unharmed(cluster);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}
