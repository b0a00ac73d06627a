//! The terminal of a run in the foreground is closed, as when an ssh session ends.
use super::background::Home;
use super::cluster::{alive, kill, wait_until};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

/// Runs its arguments on a terminal of their own. At a line on stdin it closes the terminal; it tells the pid first, and the
/// exit status in the end.
const TERMINAL: &str = "
import os, pty, select, signal, sys
pid, terminal = pty.fork()
if pid == 0:
    # The tests themselves may run under nohup.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.execvp(sys.argv[1], sys.argv[1:])
print(pid, flush=True)
sources = [terminal, 0]
while 0 not in select.select(sources, [], [])[0]:
    try:
        os.read(terminal, 4096)
    except OSError:
        # Nobody has it open: nohup's output goes elsewhere.
        sources = [0]
os.close(terminal)
print('closed', flush=True)
print(os.waitpid(pid, 0)[1], flush=True)
";

struct OnTerminal {
    child: Child,
    out: BufReader<ChildStdout>,
    pid: i32,
}

impl OnTerminal {
    fn start(home: &Home, words: &[&str]) -> OnTerminal {
        let mut child = Command::new("python3");
        child.current_dir(home.folder.path()).env("CLUSTERD_HOME", home.folder.path().join("home"));
        child.args(["-c", TERMINAL]).args(words).arg(env!("CARGO_BIN_EXE_clusterd"));
        child.args(["-w", "1", "-n", "web", "--ready", "1ms", "--", "sleep", "1000"]);
        let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let pid = line(&mut out).parse().unwrap();
        wait_until("it runs", || home.run(&["ls", "-s"]).1.contains("1/1"));
        OnTerminal { child, out, pid }
    }

    fn close(&mut self) {
        self.child.stdin.take().unwrap().write_all(b"\n").unwrap();
        assert_eq!(line(&mut self.out), "closed");
    }
}

fn line(out: &mut BufReader<ChildStdout>) -> String {
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    line.trim().to_owned()
}

#[test]
fn a_terminal_that_is_closed_stops_the_run() {
    let home = Home::new();
    let mut run = OnTerminal::start(&home, &[]);
    let worker = home.app("web").workers[0].pid.unwrap();
    // Another's SIGHUP is a reload.
    kill(run.pid, "HUP");
    wait_until("its reload", || home.app("web").generation == 2);
    assert!(alive(run.pid));
    run.close();
    assert_eq!(line(&mut run.out), "0", "it stops as by SIGTERM");
    assert!(!alive(worker));
    run.child.wait().unwrap();
}

#[test]
fn a_run_under_nohup_outlives_its_terminal() {
    let home = Home::new();
    let mut run = OnTerminal::start(&home, &["nohup"]);
    run.close();
    // It came before these; one that is still pending takes the next one with it.
    wait_until("a reload", || {
        kill(run.pid, "HUP");
        home.app("web").generation > 1
    });
    kill(run.pid, "TERM");
    assert_eq!(line(&mut run.out), "0");
    run.child.wait().unwrap();
}
