//! A master that does what a test tells it: the real link to the real keeper, and no will of its own. It connects to
//! the test's socket, says what it inherited, reports every notice, and obeys commands, one JSON value a line.
use clusterd::ids::WorkerId;
use clusterd::keeper::link::{Inheritance, Link};
use clusterd::keeper::protocol::{About, Credentials, Notice, Order, OwnUpgrade, SpawnSpec};
use clusterd::limits::HEARTBEAT_EVERY_MS;
use clusterd::os::poll::{self, Interest};
use clusterd::os::{clock, packet, process};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

/// Where the test listens.
pub(crate) const CONTROL_VARIABLE: &str = "CLUSTERD_KEEPER_TEST_CONTROL";

struct Master {
    link: Link,
    control: UnixStream,
    inheritance: Inheritance,
    lines: Vec<u8>,
    heartbeats: bool,
}

pub(crate) fn run() -> ExitCode {
    let mut link = Link::from_inherited().unwrap();
    let inheritance = link.adopt().unwrap();
    let control = UnixStream::connect(std::env::var_os(CONTROL_VARIABLE).unwrap()).unwrap();
    let mut master = Master { link, control, inheritance, lines: Vec::new(), heartbeats: true };
    master.introduce();
    let mut beat_at_ms = clock::monotonic_ms() + HEARTBEAT_EVERY_MS;
    loop {
        let now_ms = clock::monotonic_ms();
        if now_ms >= beat_at_ms && master.heartbeats {
            master.link.order(&Order::Heartbeat, &[]).unwrap();
            beat_at_ms = now_ms + HEARTBEAT_EVERY_MS;
        }
        while let Some(notice) = master.link.receive().unwrap() {
            master.report(&notice);
        }
        master.link.flush().unwrap();
        let mut interests = [
            Interest::new(master.link.as_fd(), master.link.wants_write()),
            Interest::new(master.control.as_fd(), false),
        ];
        poll::wait(&mut interests, Some(beat_at_ms.saturating_sub(now_ms))).unwrap();
        if interests[1].readable() {
            let mut chunk = [0; 65536];
            let got = master.control.read(&mut chunk).unwrap();
            if got == 0 {
                return ExitCode::FAILURE;
            }
            master.lines.extend_from_slice(&chunk[..got]);
        }
        while let Some(end) = master.lines.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = master.lines.drain(..=end).collect();
            if let Some(code) = master.obey(&serde_json::from_slice(&line).unwrap()) {
                return ExitCode::from(code);
            }
        }
    }
}

fn about_json(about: &About) -> Value {
    let (upgrade, why) = match &about.upgrade {
        OwnUpgrade::Open => ("open", ""),
        OwnUpgrade::Done => ("done", ""),
        OwnUpgrade::Stays { why } => ("stays", why.as_str()),
    };
    json!({"is": "keeper", "version": about.version, "upgrade": upgrade, "why": why})
}

impl Master {
    fn say(&mut self, value: &Value) {
        self.control.write_all(format!("{value}\n").as_bytes()).unwrap();
    }

    fn introduce(&mut self) {
        let inherited = &self.inheritance;
        let children: Vec<Value> = inherited
            .children
            .iter()
            .map(|child| {
                let tag = String::from_utf8_lossy(&child.tag);
                json!({"worker": child.worker.0, "pid": child.pid, "tag": tag, "status": child.status})
            })
            .collect();
        let identity = |fd: &OwnedFd| process::file_identity(fd.as_fd()).unwrap();
        let fds: serde_json::Map<_, _> =
            inherited.fds.iter().map(|(name, fd)| (name.clone(), json!(identity(fd)))).collect();
        let notes: serde_json::Map<_, _> =
            inherited.notes.iter().map(|(key, value)| (key.clone(), json!(String::from_utf8_lossy(value)))).collect();
        let args: Vec<_> = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
        let value = json!({
            "is": "master", "pid": std::process::id(), "incarnation": inherited.incarnation,
            "previous_end": inherited.previous_end, "children": children, "fds": fds, "notes": notes, "args": args,
            "about": about_json(&inherited.about),
        });
        self.say(&value);
    }

    fn report(&mut self, notice: &Notice) {
        let value = match notice {
            Notice::Spawned { worker, pid } => json!({"is": "spawned", "worker": worker.0, "pid": pid}),
            Notice::SpawnFailed { worker, step, errno } => {
                json!({"is": "spawn-failed", "worker": worker.0, "step": format!("{step:?}"), "errno": errno})
            }
            Notice::Exited { worker, status, .. } => json!({"is": "exited", "worker": worker.0, "status": status}),
            Notice::Signal { signal, value } => json!({"is": "signal", "signal": signal, "value": value}),
            Notice::Keeper { about } => about_json(about),
            other => json!({"is": "nonsense", "notice": format!("{other:?}")}),
        };
        self.say(&value);
    }

    fn order(&mut self, order: Order, fds: &[BorrowedFd<'_>]) {
        self.link.order(&order, fds).unwrap();
    }

    /// The exit code, when the master is to end.
    fn obey(&mut self, command: &Value) -> Option<u8> {
        let text = |key: &str| command[key].as_str().unwrap_or_default().to_owned();
        let worker = WorkerId(command["worker"].as_u64().unwrap_or_default());
        let number = |key: &str| command[key].as_i64().unwrap_or_default();
        match command["do"].as_str().unwrap() {
            "ready" => self.order(Order::Ready, &[]),
            "finish" => self.order(Order::Finish { code: number("code") as u8 }, &[]),
            "upgrade" => {
                let binary = File::open(text("binary")).unwrap();
                self.order(Order::Upgrade, &[binary.as_fd()]);
            }
            "exit" => return Some(number("code") as u8),
            "seen" => self.order(Order::ExitSeen { worker }, &[]),
            "note" => self.order(Order::Note { key: text("key"), value: text("value").into_bytes() }, &[]),
            "big-note" => {
                self.order(Order::Note { key: text("key"), value: vec![b'x'; number("bytes") as usize] }, &[])
            }
            "forget" => self.order(Order::Forget { key: text("key") }, &[]),
            "release" => self.order(Order::Release { name: text("name") }, &[]),
            "signal" => {
                let group = command["group"].as_bool().unwrap_or_default();
                self.order(Order::Signal { worker, signal: number("signal") as i32, group }, &[]);
            }
            "listen" => {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                self.order(Order::Hold { name: text("name") }, &[listener.as_fd()]);
                let identity = process::file_identity(listener.as_fd()).unwrap();
                let port = listener.local_addr().unwrap().port();
                self.say(&json!({"is": "listening", "port": port, "identity": identity}));
            }
            "serve" => {
                let listener = TcpListener::from(self.inheritance.fds[&text("name")].try_clone().unwrap());
                let (mut client, _) = listener.accept().unwrap();
                write!(client, "from master {}", self.inheritance.incarnation).unwrap();
            }
            "garbage" => {
                for bytes in
                    [&b"\x01\xff"[..], b"\xf0unknown", b"\x05\x01", b"\x01\x02\x00\x00\x00\xff\xfe", &[3; 65536]]
                {
                    packet::send(self.link.as_fd(), bytes, &[]).unwrap();
                }
                let null = process::null_device().unwrap();
                packet::send(self.link.as_fd(), b"\x08", &[null.as_fd(); 200]).unwrap();
                self.order(Order::Hold { name: "without fd".into() }, &[]);
                self.order(Order::Spawn { worker }, &[null.as_fd()]);
            }
            "spawn" => self.spawn(worker, command),
            "done?" => {
                while self.link.wants_write() {
                    poll::wait(&mut [Interest::new(self.link.as_fd(), true)], Some(100)).unwrap();
                    self.link.flush().unwrap();
                }
                self.say(&json!({"is": "done"}));
            }
            "no-heartbeats" => self.heartbeats = false,
            other => panic!("unknown command {other}"),
        }
        None
    }

    fn spawn(&mut self, worker: WorkerId, command: &Value) {
        let texts = |key: &str| -> Vec<Vec<u8>> {
            let list = command[key].as_array().cloned().unwrap_or_default();
            list.iter().map(|text| text.as_str().unwrap().as_bytes().to_vec()).collect()
        };
        let files = command["files"].as_array().cloned().unwrap_or_default();
        let opened: Vec<File> = files
            .iter()
            .map(|file| File::options().append(true).create(true).open(file[0].as_str().unwrap()).unwrap())
            .collect();
        let spec = SpawnSpec {
            app: command["app"].as_str().unwrap_or_default().to_owned(),
            tag: command["tag"].as_str().unwrap_or_default().as_bytes().to_vec(),
            program: command["program"].as_str().unwrap().as_bytes().to_vec(),
            args: texts("args"),
            env: texts("env"),
            listen_pid: command["listen_pid"].as_bool().unwrap_or_default(),
            cwd: command["cwd"].as_str().map(|cwd| cwd.as_bytes().to_vec()),
            umask: command["umask"].as_u64().map(|umask| umask as u32),
            credentials: command["credentials"].as_array().map(|ids| {
                let ids: Vec<u32> = ids.iter().map(|id| id.as_u64().unwrap() as u32).collect();
                Credentials { uid: ids[0], gid: ids[1], groups: ids[2..].to_vec() }
            }),
            rlimits: command["rlimits"]
                .as_array()
                .cloned()
                .unwrap_or_default()
                .iter()
                .map(|limit| {
                    (limit[0].as_i64().unwrap() as i32, limit[1].as_u64().unwrap(), limit[2].as_u64().unwrap())
                })
                .collect(),
            nice: command["nice"].as_i64().map(|nice| nice as i32),
            oom_score_adj: command["oom_score_adj"].as_i64().map(|score| score as i32),
            cpus: Vec::new(),
            no_new_privs: command["no_new_privs"].as_bool().unwrap_or_default(),
            intercept: None,
            may_give_up_privileges: false,
            placements: files.iter().map(|file| file[1].as_i64().unwrap() as i32).collect(),
        };
        let fds: Vec<BorrowedFd<'_>> = opened.iter().map(AsFd::as_fd).collect();
        self.link.spawn(worker, &spec, &fds).unwrap();
    }
}
