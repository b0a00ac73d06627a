//! Listening sockets in the store of a service manager: they outlive the keeper, whether it is killed or stopped, and the next
//! start serves what came meanwhile.
use super::background::Home;
use super::client::get;
use super::cluster::{Cluster, Folder, command, kill, wait_end, wait_until};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use nix::sys::stat::fstat;
use std::collections::BTreeMap;
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const APP: &str =
    "require('http').createServer((q, a) => a.end(`${process.env.FDSTORE}`)).listen(process.env.PORT, '127.0.0.1')";

/// What the store takes at most.
const STORED_MAX: usize = 16;

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
        command.env("NOTIFY_SOCKET", self.folder.path().join("manager")).env("FDSTORE", STORED_MAX.to_string());
    }

    /// One message. What it says of the store is done.
    fn hear(&mut self) -> String {
        let (said, fd) = receive(&self.socket, MsgFlags::empty()).expect("a message in time");
        self.note(&said, fd);
        said
    }

    fn note(&mut self, said: &str, fd: Option<OwnedFd>) {
        if let Some(name) = said.strip_prefix("FDSTORE=1\nFDNAME=") {
            let fd = fd.expect("a file comes with it");
            // As systemd does, which asks the kernel whether two are the same (kcmp).
            if !self.stored.values().any(|known| inode(known) == inode(&fd)) {
                assert!(self.stored.len() < STORED_MAX, "{name}: {:?}", self.stored);
                self.stored.insert(name.to_owned(), fd);
            }
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

    /// Has a command get the stored sockets as from systemd: from 3 on, with the variables, by exec.
    fn pass_stored(&self, command: &mut Command, args: &[&str]) {
        let names: Vec<&str> = self.stored.keys().map(String::as_str).collect();
        let fds: Vec<i32> = self.stored.values().map(AsRawFd::as_raw_fd).collect();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let sent = sendmsg::<()>(
            ours.as_raw_fd(),
            &[IoSlice::new(b"x")],
            &[ControlMessage::ScmRights(&fds)],
            MsgFlags::empty(),
            None,
        );
        assert_eq!(sent, Ok(1));
        let again = self.folder.write(
            "again.py",
            "import fcntl, os, socket, sys\n\
             fds = socket.recv_fds(socket.socket(fileno=os.dup(0)), 1, 253)[1]\n\
             fds = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 300) for fd in fds]\n\
             for number, fd in enumerate(fds, 3): os.dup2(fd, number, True)\n\
             os.dup2(os.open('/dev/null', os.O_RDONLY), 0, True)\n\
             os.environ.update(LISTEN_FDS=str(len(fds)), LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES=sys.argv[1])\n\
             os.execv(sys.argv[2], sys.argv[2:])\n",
        );
        let mut python = Command::new("python3");
        python.args([&again, &names.join(":"), env!("CARGO_BIN_EXE_clusterd")]).args(args);
        python.current_dir(command.get_current_dir().unwrap());
        python.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        self.introduce(&mut python);
        python.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::piped()).stderr(Stdio::piped());
        *command = python;
    }

    fn start(&self, args: &[&str]) -> Cluster {
        Cluster::start_in(Folder::new(), args, |command| self.introduce(command))
    }

    fn start_with_stored(&self, args: &[&str]) -> Cluster {
        Cluster::start_in(Folder::new(), &[], |command| self.pass_stored(command, args))
    }
}

fn inode(fd: &OwnedFd) -> u64 {
    fstat(fd).unwrap().st_ino
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

/// Clients that wait in the queues of all slots, where the kernel spreads them by its program or by chance.
const WAITING_IN_SLOTS: usize = 24;

#[test]
fn what_waits_for_a_slot_of_balance_kernel_outlives_a_killed_keeper_and_a_stop() {
    let mut manager = Manager::new();
    let script = manager.folder.write("app.js", APP);
    let args = |address: &str| ["-w", "3", "-b", "kernel", "-l", address, "--", "node", &script].map(str::to_owned);
    let first = args("127.0.0.1:0");
    let mut cluster = manager.start(&first.each_ref().map(String::as_str));
    manager.hear_until("READY=1");
    let address = cluster.address();
    for is_killed in [true, false] {
        assert_eq!(manager.stored.len(), 3, "{:?}", manager.stored);
        // Nobody takes what comes from now on.
        let held = [vec![cluster.master_pid()], cluster.worker_pids()].concat();
        held.iter().for_each(|pid| kill(*pid, "STOP"));
        let waiting: Vec<Waiting> = (0..WAITING_IN_SLOTS).map(|_| Waiting::at(address)).collect();
        if is_killed {
            kill(cluster.keeper_pid(), "KILL");
            held.into_iter().for_each(wait_end);
            assert_eq!(cluster.wait_exit(), -1);
        } else {
            // The workers end first, with what they would take.
            held[1..].iter().for_each(|pid| kill(*pid, "KILL"));
            cluster.signal("TERM");
            kill(held[0], "CONT");
            assert_eq!(cluster.wait_exit(), 0);
        }
        manager.hear_the_rest();
        let again = args(&address.to_string());
        cluster = manager.start_with_stored(&again.each_ref().map(String::as_str));
        waiting.into_iter().for_each(Waiting::expect_answer);
        manager.hear_until("READY=1");
        manager.hear_the_rest();
    }
    // Each slot has its own again, and no other.
    assert_eq!(manager.stored.len(), 3, "{:?}", manager.stored);
    cluster.signal("TERM");
    assert_eq!(cluster.wait_exit(), 0);
}

#[test]
fn the_socket_of_a_renamed_app_stays_in_the_store() {
    let mut manager = Manager::new();
    let script = manager.folder.write("app.js", APP);
    let args =
        |name: &str, address: &str| ["-n", name, "-w", "1", "-l", address, "--", "node", &script].map(str::to_owned);
    let first = args("before", "127.0.0.1:0");
    let mut cluster = manager.start(&first.each_ref().map(String::as_str));
    manager.hear_until("READY=1");
    let address = cluster.address();
    cluster.signal("TERM");
    assert_eq!(cluster.wait_exit(), 0);
    manager.hear_the_rest();
    let second = args("after", &address.to_string());
    let mut next = manager.start_with_stored(&second.each_ref().map(String::as_str));
    manager.hear_until("READY=1");
    let names: Vec<&String> = manager.stored.keys().collect();
    assert!(matches!(names[..], [name] if name.starts_with("listen/after/")), "{names:?}");
    next.signal("TERM");
    assert_eq!(next.wait_exit(), 0);
}

#[test]
fn a_store_is_not_given_more_than_it_takes() {
    let mut manager = Manager::new();
    let script = manager.folder.write("app.js", APP);
    let workers = (STORED_MAX + 2).to_string();
    let args = ["-w", &workers, "-b", "kernel", "-l", "127.0.0.1:0", "--", "node", &script];
    let mut cluster = manager.start(&args);
    // All that fits in comes, however late it is read: the kernel keeps a few messages only.
    cluster.wait_ready(STORED_MAX as u32 + 2);
    manager.hear_until("READY=1");
    assert_eq!(manager.stored.len(), STORED_MAX);
    cluster.wait_line("the service manager: it takes no more than 16 files");
    cluster.signal("TERM");
    assert_eq!(cluster.wait_exit(), 0);
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
        let mut cluster = manager.start(&first.each_ref().map(String::as_str));
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
    let mut cluster = manager.start(&args);
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
