//! What the world around does to clusterd: a stderr that takes nothing, a terminal that is stopped.
use super::apps::hello;
use super::client::get;
use super::cluster::{Folder, PATIENCE, command, kill, wait_until};
use clusterd::api::types::Deployment;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// One that runs with a stderr of the test's; killed when dropped.
struct Run {
    child: Child,
    folder: Folder,
}

impl Run {
    fn start(folder: Folder, mut command: Command, stderr: OwnedFd) -> Run {
        let out = stderr.try_clone().unwrap();
        let child = command.stdout(Stdio::from(out)).stderr(Stdio::from(stderr)).spawn().unwrap();
        Run { child, folder }
    }

    fn view(&self) -> Option<Deployment> {
        let listed = command(&self.folder).args(["ls", "--json"]).output().unwrap();
        let listed: Vec<Deployment> = serde_json::from_slice(&listed.stdout).ok()?;
        listed.into_iter().next()
    }

    /// Waits until both workers are ready; where they listen.
    fn wait_ready(&self) -> SocketAddr {
        let mut address = None;
        wait_until("two ready workers", || {
            let ready = self.view().filter(|view| view.apps[0].workers_ready == 2);
            address = ready.map(|view| view.apps[0].listen[0].parse().unwrap());
            address.is_some()
        });
        address.unwrap()
    }

    /// Loses a worker, which is a message, serves all the same, and ends when it is asked to.
    fn works_without_stderr(mut self, address: SocketAddr) {
        let before = self.view().unwrap();
        let lost = before.apps[0].workers[0].pid.unwrap();
        kill(lost, "KILL");
        wait_until("its successor", || {
            assert!(get(address, "/").is_ok());
            self.view().is_some_and(|view| {
                let app = &view.apps[0];
                app.workers_ready == 2 && app.workers.iter().all(|worker| worker.pid != Some(lost))
            })
        });
        let after = self.view().unwrap();
        assert_eq!((after.master_pid, after.master_restarts), (before.master_pid, 0));
        kill(self.child.id() as i32, "TERM");
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None => assert!(Instant::now() < deadline, "it did not end"),
            }
            std::thread::yield_now();
        };
        assert_eq!(status.code(), Some(0));
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const ARGS: [&str; 6] = ["-w", "2", "--host", "127.0.0.1", "--port", "0"];

#[test]
fn a_pipe_that_nobody_reads_as_stderr_stops_neither_work_nor_end() {
    let folder = Folder::new();
    let (_read, write) = std::io::pipe().unwrap();
    let full = write.try_clone().unwrap();
    let mut command = command(&folder);
    command.args(ARGS).args(["--", "node", &hello()]).stdin(Stdio::null());
    let run = Run::start(folder, command, write.into());
    let address = run.wait_ready();
    // The flag is the pipe's, so it is taken back before clusterd writes again.
    let blocking = |on: bool| clusterd::os::listen::set_nonblocking(full.as_fd(), !on).unwrap();
    blocking(false);
    for piece in [4096, 1] {
        loop {
            match (&full).write(&vec![b'x'; piece]) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
    blocking(true);
    run.works_without_stderr(address);
}

#[test]
fn a_terminal_that_was_stopped_as_stderr_stops_neither_work_nor_end() {
    let folder = Folder::new();
    let pty = nix::pty::openpty(None, None).unwrap();
    let mut command = command(&folder);
    command.args(ARGS).args(["--", "node", &hello()]).stdin(Stdio::null());
    let run = Run::start(folder, command, pty.slave);
    let address = run.wait_ready();
    let mut terminal = File::from(pty.master);
    // Ctrl-S.
    terminal.write_all(b"\x13").unwrap();
    run.works_without_stderr(address);
}

#[test]
fn a_worker_has_no_terminal_that_it_could_type_into() {
    let script = "import os\n\
                  try:\n    os.open('/dev/tty', os.O_RDWR)\n    how = 'has it'\n\
                  except OSError as error:\n    how = os.strerror(error.errno)\n\
                  print('TERMINAL', how, 'SESSION', os.getsid(0) == os.getpid(), flush=True)\n\
                  import signal; signal.pause()\n";
    let folder = Folder::new();
    folder.write("app.py", script);
    let pty = nix::pty::openpty(None, None).unwrap();
    let binary = command(&folder);
    let mut command = Command::new("setsid");
    command
        .arg("-c")
        .arg(binary.get_program())
        .current_dir(folder.path())
        .env("CLUSTERD_HOME", folder.path().join("home"));
    command.args(["-w", "1", "--protocol", "none", "--ready", "50ms", "--", "python3", "app.py"]);
    command.stdin(Stdio::from(pty.slave.try_clone().unwrap()));
    let _run = Run::start(folder, command, pty.slave);
    let (mut terminal, mut said) = (File::from(pty.master), String::new());
    while !said.contains("SESSION ") || !said.ends_with('\n') {
        let mut buffer = [0; 4096];
        let count = terminal.read(&mut buffer).unwrap();
        said.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    assert!(said.contains("TERMINAL No such device or address SESSION True"), "{said}");
}
