//! One keeper under test, its masters' reports, and waiting for things with a deadline.
use crate::common::wait::{PATIENCE, wait_end, wait_for};
use crate::master::CONTROL_VARIABLE;
use clusterd::os::poll::{self, Interest};
use clusterd::os::signal;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// First argument of a keeper under test.
pub(crate) const KEEPER_ROLE: &str = "--as-keeper";

static FIXTURES: AtomicU32 = AtomicU32::new(0);

pub(crate) struct Fixture {
    pub(crate) keeper: Child,
    pub(crate) dir: PathBuf,
    listener: UnixListener,
}

/// The test's connection to one scripted master.
pub(crate) struct Master {
    pub(crate) pid: i32,
    /// What it said about itself and what it inherited.
    pub(crate) hello: Value,
    reader: BufReader<UnixStream>,
    /// Reports that nobody asked for yet.
    kept: Vec<Value>,
}

impl Fixture {
    pub(crate) fn start() -> Fixture {
        let own = std::env::current_exe().unwrap();
        Fixture::start_as(|_| {
            let mut command = Command::new(&own);
            command.arg(KEEPER_ROLE).args(["--workers", "3 of them", ""]);
            command
        })
    }

    /// Starts a keeper with a command of the test's own, made for its folder.
    pub(crate) fn start_as(command: impl FnOnce(&Path) -> Command) -> Fixture {
        let number = FIXTURES.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("clusterd-keeper-{}-{number}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        // Workers of other users come in.
        fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        let control = dir.join("control");
        let listener = UnixListener::bind(&control).unwrap();
        listener.set_nonblocking(true).unwrap();
        let keeper = command(&dir)
            .env(CONTROL_VARIABLE, &control)
            .stdin(Stdio::null())
            .stderr(File::create(dir.join("stderr")).unwrap())
            .spawn()
            .unwrap();
        Fixture { keeper, dir, listener }
    }

    pub(crate) fn pid(&self) -> i32 {
        self.keeper.id() as i32
    }

    /// The next master that says hello.
    pub(crate) fn master(&self) -> Master {
        let stream = wait_for("a master", || match self.listener.accept() {
            Ok((stream, _)) => Some(stream),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                poll::wait(&mut [Interest::new(self.listener.as_fd(), false)], Some(100)).unwrap();
                None
            }
            Err(error) => panic!("{error}"),
        });
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut master = Master { pid: 0, hello: Value::Null, reader: BufReader::new(stream), kept: Vec::new() };
        master.hello = master.expect("master");
        master.pid = master.hello["pid"].as_i64().unwrap() as i32;
        master
    }

    /// The next master, after it has told the keeper that it serves.
    pub(crate) fn serving(&self) -> Master {
        let mut master = self.master();
        master.tell(json!({"do": "ready"}));
        master.sync();
        master
    }

    pub(crate) fn stderr(&self) -> String {
        fs::read_to_string(self.dir.join("stderr")).unwrap()
    }

    pub(crate) fn wait_stderr(&self, part: &str) {
        wait_for(part, || self.stderr().contains(part).then_some(()));
    }

    /// Lets no master live until the keeper has ended; its exit code.
    pub(crate) fn exit_code_without_masters(&mut self) -> Option<i32> {
        let status = wait_for("the keeper's end", || {
            while let Ok((stream, _)) = self.listener.accept() {
                // It ends when nobody tells it anything any more.
                drop(stream);
            }
            self.keeper.try_wait().unwrap()
        });
        status.code()
    }

    /// The keeper's exit code.
    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        wait_end(self.pid());
        self.keeper.wait().unwrap().code()
    }

    /// A worker's output file, once it ends with a line "end".
    pub(crate) fn output(&self, name: &str) -> String {
        wait_for(name, || {
            let text = fs::read_to_string(self.dir.join(name)).unwrap_or_default();
            text.strip_suffix("end\n").map(str::to_owned)
        })
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- stderr of the keeper:\n{}----", self.stderr());
        }
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Master {
    pub(crate) fn tell(&mut self, command: Value) {
        // One write: many small pieces would fill the socket's buffer.
        self.reader.get_mut().write_all(format!("{command}\n").as_bytes()).unwrap();
    }

    /// Runs a shell script as a worker, with `$OUT` the file to write to.
    pub(crate) fn script(&mut self, worker: u64, script: &str, out: &str) {
        self.tell(json!({"do": "spawn", "worker": worker, "program": "/bin/sh", "tag": format!("tag {worker}"),
            "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin", format!("OUT={out}")]}));
    }

    /// Waits until all orders so far have been sent.
    pub(crate) fn sync(&mut self) {
        self.tell(json!({"do": "done?"}));
        self.expect("done");
    }

    /// The next report of this kind.
    pub(crate) fn expect(&mut self, kind: &str) -> Value {
        self.expect_where(kind, |_| true)
    }

    /// The next report of this kind about this worker.
    pub(crate) fn expect_of(&mut self, kind: &str, worker: u64) -> Value {
        self.expect_where(kind, |value| value["worker"] == worker)
    }

    pub(crate) fn expect_where(&mut self, kind: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let fits = |value: &Value| value["is"] == kind && wanted(value);
        if let Some(index) = self.kept.iter().position(&fits) {
            return self.kept.remove(index);
        }
        loop {
            let mut line = String::new();
            match self.reader.read_line(&mut line) {
                Ok(length) if length > 0 => {}
                other => panic!("no \"{kind}\" from the master ({other:?}); it said {:?}", self.kept),
            }
            let value: Value = serde_json::from_str(&line).unwrap();
            if fits(&value) {
                return value;
            }
            self.kept.push(value);
        }
    }

    /// Every report that came and was not asked for.
    pub(crate) fn leftovers(&mut self) -> Vec<Value> {
        self.sync();
        std::mem::take(&mut self.kept)
    }

    pub(crate) fn kill(&self, number: i32) {
        signal::send(self.pid, number).unwrap();
    }
}

/// The processes whose parent is this one, zombies included.
pub(crate) fn children_of(parent: i32) -> Vec<i32> {
    let field = |pid: i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse::<i32>().ok()
    };
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| field(*pid) == Some(parent)).collect()
}
