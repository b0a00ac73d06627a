//! Listening sockets in the store of a service manager: they outlive the keeper, whether it is killed or stopped, and the next
//! start serves what came meanwhile.
use super::background::Home;
use super::client::get;
use super::cluster::{Cluster, Folder, command, kill, wait_end, wait_until};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use std::collections::BTreeMap;
use std::io::{IoSliceMut, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const APP: &str =
    "require('http').createServer((q, a) => a.end(`${process.env.FDSTORE}`)).listen(process.env.PORT, '127.0.0.1')";

/// A service manager with a store.
struct Manager {
    folder: Folder,
    socket: UnixDatagram,
    /// By the names that they were given.
    stored: BTreeMap<String, OwnedFd>,
}

impl Manager {
    fn new() -> Manager {
        let folder = Folder::new();
        let socket = UnixDatagram::bind(folder.path().join("manager")).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Manager { folder, socket, stored: BTreeMap::new() }
    }

    fn introduce(&self, command: &mut Command) {
        command.env("NOTIFY_SOCKET", self.folder.path().join("manager")).env("FDSTORE", "16");
    }

    /// One message. What it says of the store is done.
    fn hear(&mut self) -> String {
        let (said, fd) = receive(&self.socket, MsgFlags::empty()).expect("a message in time");
        self.note(&said, fd);
        said
    }

    fn note(&mut self, said: &str, fd: Option<OwnedFd>) {
        if let Some(name) = said.strip_prefix("FDSTORE=1\nFDNAME=") {
            self.stored.insert(name.to_owned(), fd.expect("a file comes with it"));
        } else if let Some(name) = said.strip_prefix("FDSTOREREMOVE=1\nFDNAME=") {
            assert!(self.stored.remove(name).is_some(), "{name}: {:?}", self.stored);
        }
    }

    fn hear_until(&mut self, wanted: &str) {
        while !self.hear().starts_with(wanted) {}
    }

    /// What was said and not heard yet.
    fn hear_the_rest(&mut self) {
        while let Some((said, fd)) = receive(&self.socket, MsgFlags::MSG_DONTWAIT) {
            self.note(&said, fd);
        }
    }

    /// Has a command get the stored socket as from systemd: at 3, with the variables, by exec.
    fn pass_stored(&self, command: &mut Command, args: &[&str]) {
        assert_eq!(self.stored.len(), 1, "{:?}", self.stored);
        let (name, socket) = self.stored.first_key_value().unwrap();
        let again = self.folder.write(
            "again.py",
            "import os, sys\n\
             os.dup2(0, 3, True)\n\
             os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES=sys.argv[1])\n\
             os.execv(sys.argv[2], sys.argv[2:])\n",
        );
        let mut python = Command::new("python3");
        python.args([&again, name, env!("CARGO_BIN_EXE_clusterd")]).args(args);
        python.current_dir(command.get_current_dir().unwrap());
        python.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        self.introduce(&mut python);
        python.stdin(Stdio::from(socket.try_clone().unwrap())).stdout(Stdio::piped()).stderr(Stdio::piped());
        *command = python;
    }

    fn start_with_stored(&self, args: &[&str]) -> Cluster {
        Cluster::start_in(Folder::new(), &[], |command| self.pass_stored(command, args))
    }
}

/// One datagram, and the file that came with it. `None`: there is none.
fn receive(manager: &UnixDatagram, flags: MsgFlags) -> Option<(String, Option<OwnedFd>)> {
    let mut buffer = [0; 256];
    let mut parts = [IoSliceMut::new(&mut buffer)];
    let mut space = nix::cmsg_space!([i32; 1]);
    let flags = flags | MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(manager.as_raw_fd(), &mut parts, Some(&mut space), flags).ok()?;
    let fd = message.cmsgs().unwrap().find_map(|control| match control {
        // SAFETY: the kernel has just given us this fd, and nobody else knows it.
        ControlMessageOwned::ScmRights(fds) => Some(unsafe { OwnedFd::from_raw_fd(fds[0]) }),
        _ => None,
    });
    let bytes = message.bytes;
    Some((String::from_utf8_lossy(&buffer[..bytes]).into_owned(), fd))
}

/// A client that asks while nobody serves.
struct Waiting(TcpStream);

impl Waiting {
    fn at(address: SocketAddr) -> Waiting {
        let mut client = TcpStream::connect(address).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        Waiting(client)
    }

    fn expect_answer(mut self) {
        let mut answer = String::new();
        self.0.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

#[test]
fn stored_sockets_outlive_a_killed_keeper() {
    let mut manager = Manager::new();
    let script = manager.folder.write("app.js", APP);
    let app = |name: &str| {
        format!("[[app]]\nname = {name:?}\ncommand = [\"node\", {script:?}]\nworkers = 1\nlisten = [\"127.0.0.1:0\"]\n")
    };
    let folder = Folder::new();
    let config = folder.write("cluster.toml", &(app("a") + &app("b")));
    let mut cluster = Cluster::start_in(folder, &["-c", &config], |command| manager.introduce(command));
    manager.hear_until("READY=1");
    assert_eq!(manager.stored.len(), 2, "{:?}", manager.stored);
    let address = cluster.address();
    assert!(get(address, "/").unwrap().ends_with("undefined"), "the store is the keeper's");

    // The socket of an app that stops is not kept.
    assert!(cluster.cli(&["stop", "b"]).status.success());
    manager.hear_until("FDSTOREREMOVE=1");
    assert!(manager.stored.keys().all(|name| name.contains("/a/")), "{:?}", manager.stored);

    let pids = [vec![cluster.keeper_pid(), cluster.master_pid()], cluster.worker_pids()].concat();
    kill(cluster.keeper_pid(), "KILL");
    // Until then somebody may accept, and die with the connection.
    pids.into_iter().for_each(wait_end);
    assert_eq!(cluster.wait_exit(), -1);
    let waiting = Waiting::at(address);
    let mut next = manager.start_with_stored(&["-w", "1", "-l", &address.to_string(), "--", "node", &script]);
    waiting.expect_answer();
    next.signal("TERM");
    assert_eq!(next.wait_exit(), 0);
}

#[test]
fn stored_sockets_outlive_a_stop() {
    let mut manager = Manager::new();
    let script = manager.folder.write("app.js", APP);
    let own_port = manager.folder.write("own.js", &APP.replace("process.env.PORT", "process.env.OWN"));
    // An address that is configured, and one that the app asks for by itself.
    let configured = |address: &str| ["-w", "1", "-l", address, "--", "node", &script].map(str::to_owned);
    let asked = |address: &str| {
        let port = format!("OWN={}", address.rsplit(':').next().unwrap());
        ["-w", "1", "-e", &port, "--", "node", &own_port].map(str::to_owned)
    };
    for args in [&configured as &dyn Fn(&str) -> [String; 7], &asked] {
        let first = args("127.0.0.1:0");
        let mut cluster = Cluster::start_in(Folder::new(), &first.each_ref().map(String::as_str), |command| {
            manager.introduce(command);
        });
        manager.hear_until("READY=1");
        let address = cluster.address();
        cluster.signal("TERM");
        assert_eq!(cluster.wait_exit(), 0);
        manager.hear_the_rest();
        let waiting = Waiting::at(address);
        let again = args(&address.to_string());
        let mut next = manager.start_with_stored(&again.each_ref().map(String::as_str));
        waiting.expect_answer();
        assert_eq!(next.address(), address);
        next.signal("TERM");
        assert_eq!(next.wait_exit(), 0);
        manager.hear_the_rest();
        manager.stored.clear();
    }
}

#[test]
fn a_stored_unix_socket_keeps_its_file() {
    let mut manager = Manager::new();
    let script =
        manager.folder.write("app.js", "require('http').createServer((q, a) => a.end()).listen(process.argv[2])");
    let at = manager.folder.path().join("app.sock");
    let path = at.to_str().unwrap();
    let listen = format!("unix:{path}");
    let args = ["-w", "1", "-l", &listen, "--", "node", &script, path];
    let mut cluster = Cluster::start_in(Folder::new(), &args, |command| manager.introduce(command));
    manager.hear_until("READY=1");
    cluster.signal("TERM");
    assert_eq!(cluster.wait_exit(), 0);
    UnixStream::connect(&at).unwrap();
    // Without a store the socket ends with clusterd, and so does its file.
    manager.hear_the_rest();
    manager.stored.clear();
    let mut other = Cluster::start_in(Folder::new(), &args, |_| {});
    other.wait_ready(1);
    other.signal("TERM");
    assert_eq!(other.wait_exit(), 0);
    assert!(!at.exists());
}

#[test]
fn what_the_service_manager_expects_is_expected_of_an_upgraded_keeper_too() {
    let mut manager = Manager::new();
    let script = manager.folder.write("app.js", APP);
    let args = ["-w", "1", "-l", "127.0.0.1:0", "--", "node", &script];
    let mut cluster = Cluster::start_in(Folder::new(), &args, |command| {
        manager.introduce(command);
        command.env("WATCHDOG_USEC", "200000");
    });
    manager.hear_until("READY=1");
    let upgraded = cluster.cli(&["upgrade"]);
    let said = String::from_utf8_lossy(&upgraded.stderr).into_owned();
    assert!(upgraded.status.success() && said.contains("the keeper has version"), "{said}");
    manager.hear_the_rest();
    manager.hear_until("WATCHDOG=1");
    let address = cluster.address();
    cluster.signal("TERM");
    assert_eq!(cluster.wait_exit(), 0);
    manager.hear_the_rest();
    TcpStream::connect(address).unwrap();
}

/// `resurrect --stay` of a unit, ended with the test.
struct Stayer(Child);

impl Drop for Stayer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Stayer {
    fn start(home: &Home, touch: impl FnOnce(&mut Command)) -> Stayer {
        let mut stayer = command(&home.folder);
        stayer.args(["resurrect", "--stay"]).stdin(Stdio::null());
        touch(&mut stayer);
        Stayer(stayer.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

#[test]
fn what_resurrect_keeps_outlives_a_killed_keeper_and_a_restart_of_the_unit() {
    let (home, mut manager) = (Home::new(), Manager::new());
    let script = home.folder.write("app.js", "require('http').createServer((q, a) => a.end()).listen(process.argv[2])");
    let at = home.folder.path().join("app.sock");
    let path = at.to_str().unwrap();
    home.ok(&["start", "-n", "web", "-w", "1", "-l", &format!("unix:{path}"), "--", "node", &script, path]);
    home.ok(&["save"]);
    home.ok(&["kill"]);
    let stayer = Stayer::start(&home, |command| manager.introduce(command));
    manager.hear_until("READY=1");
    assert_eq!(manager.stored.len(), 1, "{:?}", manager.stored);

    // Nobody is refused while a killed keeper is replaced.
    let keeper = home.deployments()[0].keeper_pid;
    kill(keeper, "KILL");
    wait_until("another keeper", || {
        UnixStream::connect(&at).unwrap();
        home.deployments()
            .first()
            .is_some_and(|d| d.keeper_pid > 0 && d.keeper_pid != keeper && d.apps[0].workers_ready == 1)
    });

    // What ExecStop does, and the end of the unit's process.
    home.ok(&["kill", "--keep-sockets"]);
    assert!(home.deployments().is_empty());
    drop(stayer);
    manager.hear_the_rest();
    let mut waiting = UnixStream::connect(&at).unwrap();
    waiting.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    waiting.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let _stayer = Stayer::start(&home, |command| manager.pass_stored(command, &["resurrect", "--stay"]));
    let mut answer = String::new();
    waiting.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

    // Who deletes an app closes its socket.
    home.ok(&["delete", "web"]);
    manager.hear_until("FDSTOREREMOVE=1");
    assert!(manager.stored.is_empty(), "{:?}", manager.stored);
    assert!(UnixStream::connect(&at).is_err());
}
