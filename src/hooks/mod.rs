//! Runs commands beside the workers, hooks and liveness probes: a queue and one thread that starts them, waits for them and kills
//! those that take too long. The caller decides when to run which.
use crate::keeper::protocol::Credentials;
use crate::limits;
use crate::os::attributes::Attributes;
use crate::os::background::{Background, Wait};
use crate::os::spawn::{self, Identity, Plan, Program, Report, Terminal};
use crate::os::{clock, pipe, poll, process, signal};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;
use thiserror::Error;

/// Hooks that run at the same time.
pub(crate) const HOOKS_RUNNING_MAX: usize = 4;

/// Hooks that wait for those; further ones are dropped.
const HOOKS_QUEUED_MAX: usize = 1024;

/// Pause between two checks of a hook without a pidfd, in milliseconds.
pub(crate) const HOOKS_LOOK_MS: u64 = 10;

/// How long `finish` waits for hooks that were killed, in milliseconds.
const HOOKS_KILL_WAIT_MS: u64 = 200;

/// A hook's soft limit on open files (a program that uses select(2) is safe below it).
const HOOK_OPEN_FILES: u64 = 1024;

/// Stack of the hook thread, in bytes.
const HOOKS_STACK_BYTES: usize = 256 * 1024;

/// A command that can be started any number of times.
#[derive(Clone, Debug)]
pub struct Command {
    /// Its name in messages: `web: hook worker_exit`.
    pub label: String,
    /// Absolute path of the program.
    pub program: Vec<u8>,
    /// argv, with argv\[0\].
    pub args: Vec<Vec<u8>>,
    /// Its environment, each entry `NAME=value`, without the variables of a run.
    pub env: Vec<Vec<u8>>,
    /// Its working directory.
    pub cwd: Vec<u8>,
    /// `None`: ours.
    pub umask: Option<u32>,
    /// `None`: ours.
    pub credentials: Option<Credentials>,
    /// It gains nothing by executing programs with setuid bits or file capabilities.
    pub no_new_privs: bool,
}

/// Why a run brought nothing good.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Trouble {
    /// The command did not run, which is not its fault.
    #[error("{0}")]
    NotRun(String),
    /// It failed, or took too long.
    #[error("{0}")]
    Failed(String),
}

/// Gets the result of a run. Called on the thread of the runs, or at once where there is no room for it.
pub type OnEnd = Box<dyn FnOnce(Result<(), Trouble>) + Send>;

/// One run of a command.
struct Order {
    command: Arc<Command>,
    /// `NAME=value`, added to the environment.
    variables: Vec<Vec<u8>>,
    timeout_ms: u64,
    /// `None`: a failure is logged.
    on_end: Option<OnEnd>,
}

/// The handle of the hook thread. Dropping it kills running hooks and ends the thread.
pub struct Hooks {
    orders: SyncSender<Order>,
    wake: OwnedFd,
    /// Runs that were requested and have not ended.
    open: Arc<AtomicUsize>,
    /// Disconnected when the thread has ended.
    ended: Receiver<()>,
    lost: u64,
}

impl Hooks {
    /// Starts the thread, for commands of which `at_once` run at the same time; `begin` does it, given its name, its stack and its loop.
    ///
    /// # Errors
    /// No thread, pipe or `/dev/null` is available.
    pub fn start(
        at_once: usize,
        begin: impl FnOnce(&'static str, usize, Runner) -> io::Result<()>,
    ) -> io::Result<Hooks> {
        let (woken, wake) = pipe::pair()?;
        let null = process::null_device()?;
        let (orders, received) = sync_channel(HOOKS_QUEUED_MAX);
        let (ending, ended) = sync_channel(1);
        let open = Arc::new(AtomicUsize::new(0));
        let running = Vec::new();
        let (open_runs, _ending) = (Arc::clone(&open), ending);
        let runner = Runner { orders: received, woken, null, open: open_runs, running, at_once, _ending };
        begin("clusterd-hooks", HOOKS_STACK_BYTES, runner)?;
        Ok(Hooks { orders, wake, open, ended, lost: 0 })
    }

    /// Runs the command as soon as there is room. Never blocks: when the queue is full, the run is dropped.
    pub fn push(&mut self, command: Arc<Command>, variables: Vec<Vec<u8>>) {
        self.queue(Order { command, variables, timeout_ms: limits::HOOK_TIMEOUT_MS, on_end: None });
    }

    /// The same for a command whose result somebody waits for; what it prints to stdout is discarded.
    pub fn push_and_tell(&mut self, command: Arc<Command>, variables: Vec<Vec<u8>>, timeout_ms: u64, on_end: OnEnd) {
        self.queue(Order { command, variables, timeout_ms, on_end: Some(on_end) });
    }

    fn queue(&mut self, order: Order) {
        self.open.fetch_add(1, Ordering::Relaxed);
        let order = match self.orders.try_send(order) {
            Ok(()) => {
                // The pipe never fills up: its capacity is above that of the queue.
                pipe::write_byte(self.wake.as_fd());
                return;
            }
            Err(TrySendError::Full(order) | TrySendError::Disconnected(order)) => order,
        };
        self.open.fetch_sub(1, Ordering::Relaxed);
        if let Some(on_end) = order.on_end {
            return on_end(Err(Trouble::NotRun(format!("{HOOKS_QUEUED_MAX} others are waiting to run"))));
        }
        self.lost += 1;
        if self.lost == 1 {
            log::warn!("{} hooks are waiting to run; further ones are dropped", HOOKS_QUEUED_MAX);
        }
    }

    /// Whether any run has not ended yet.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.open.load(Ordering::Relaxed) > 0
    }

    /// Kills running hooks, and has `wait` wait for them, for at most so many milliseconds.
    pub fn finish(self, wait: impl FnOnce(&Receiver<()>, u64)) {
        if self.lost > 0 {
            log::warn!("{} hooks were dropped, because too many were waiting", self.lost);
        }
        let Hooks { orders, wake, ended, .. } = self;
        drop((orders, wake));
        wait(&ended, HOOKS_KILL_WAIT_MS);
    }
}

/// A running command.
struct Running {
    command: Arc<Command>,
    pid: i32,
    report: OwnedFd,
    /// Readable when it has ended. Kernels before 5.3 have no pidfd; the process is then polled.
    pidfd: Option<OwnedFd>,
    timeout_ms: u64,
    kill_at_ms: u64,
    killed: bool,
    on_end: Option<OnEnd>,
}

/// The loop of the hook thread.
pub struct Runner {
    orders: Receiver<Order>,
    woken: OwnedFd,
    null: OwnedFd,
    open: Arc<AtomicUsize>,
    running: Vec<Running>,
    /// The most that run at the same time.
    at_once: usize,
    /// Disconnected with the end of the loop.
    _ending: SyncSender<()>,
}

impl Background for Runner {
    fn files(&self) -> Vec<BorrowedFd<'_>> {
        let pidfds = self.running.iter().filter_map(|running| running.pidfd.as_ref());
        [self.woken.as_fd()].into_iter().chain(pidfds.map(AsFd::as_fd)).collect()
    }

    fn turn(&mut self, wait: Wait) -> bool {
        let mut interests: Vec<poll::Interest<'_>> =
            self.files().into_iter().map(|file| poll::Interest::new(file, false)).collect();
        let timeout_ms = if wait == Wait::No { Some(0) } else { self.timeout_ms() };
        if poll::wait(&mut interests, timeout_ms).is_err() {
            std::thread::sleep(Duration::from_millis(HOOKS_LOOK_MS));
        }
        let mut buffer = [0_u8; 256];
        let over = loop {
            match process::read_now(self.woken.as_fd(), &mut buffer) {
                Ok(Some(0)) | Err(_) => break true,
                Ok(Some(_)) => {}
                Ok(None) => break false,
            }
        };
        self.reap();
        if over {
            self.end();
            return false;
        }
        while self.running.len() < self.at_once
            && let Ok(order) = self.orders.try_recv()
        {
            self.start(order);
        }
        true
    }
}

impl Runner {
    fn timeout_ms(&self) -> Option<u64> {
        let now_ms = clock::monotonic_ms();
        let wait = |running: &Running| {
            let until_kill = running.kill_at_ms.saturating_sub(now_ms);
            let looks = running.killed || running.pidfd.is_none();
            if looks { until_kill.clamp(1, HOOKS_LOOK_MS) } else { until_kill }
        };
        self.running.iter().map(wait).min()
    }

    fn start(&mut self, order: Order) {
        let Order { command, variables, timeout_ms, on_end } = order;
        let env = [command.env.as_slice(), &variables].concat();
        let limit = process::file_limit().ok();
        let files = limit.map(|l| (process::RLIMIT_NOFILE, l.hard.min(HOOK_OPEN_FILES), l.hard));
        let fds = [(&self.null, 0), (&self.null, 1)];
        let started = spawn::start(&Plan {
            program: Program::Path(&command.program),
            args: &command.args,
            env: &env,
            listen_pid: false,
            cwd: Some(&command.cwd),
            terminal: Terminal::None,
            identity: command.credentials.as_ref().map(|who| Identity {
                uid: who.uid,
                gid: who.gid,
                groups: &who.groups,
            }),
            attributes: Attributes {
                umask: command.umask,
                rlimits: files.as_slice(),
                no_new_privs: command.no_new_privs,
                ..Attributes::default()
            },
            intercept: None,
            cgroup: None,
            fds: if on_end.is_some() { &fds } else { &fds[..1] },
        });
        match started {
            Ok(started) => self.running.push(Running {
                command,
                pid: started.pid,
                report: started.report,
                pidfd: process::pidfd(started.pid).ok(),
                timeout_ms,
                kill_at_ms: clock::monotonic_ms() + timeout_ms,
                killed: false,
                on_end,
            }),
            Err(failure) => {
                self.open.fetch_sub(1, Ordering::Relaxed);
                tell(&command.label, on_end, Err(Trouble::NotRun(format!("could not be started: {failure}"))));
            }
        }
    }

    /// Reaps hooks that have ended and kills those that take too long.
    fn reap(&mut self) {
        let now_ms = clock::monotonic_ms();
        let before = self.running.len();
        self.running.retain_mut(|running| {
            match process::reap(running.pid) {
                Ok(None) => {}
                Ok(Some(status)) => {
                    tell(&running.command.label, running.on_end.take(), running.outcome(status));
                    return false;
                }
                Err(_) => {
                    tell(&running.command.label, running.on_end.take(), Err(Trouble::NotRun("was lost".to_owned())));
                    return false;
                }
            }
            if now_ms >= running.kill_at_ms && !running.killed {
                running.kill();
            }
            true
        });
        self.open.fetch_sub(before - self.running.len(), Ordering::Relaxed);
    }

    /// Kills running hooks.
    fn end(&mut self) {
        for running in &mut self.running {
            log::warn!("{}: still running when clusterd ended; killed", running.command.label);
            running.kill();
        }
        let until_ms = clock::monotonic_ms() + HOOKS_KILL_WAIT_MS;
        while !self.running.is_empty() && clock::monotonic_ms() < until_ms {
            self.running.retain(|running| matches!(process::reap(running.pid), Ok(None)));
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Running {
    /// Kills the process group. The leader is not reaped yet, so the number is still its own.
    fn kill(&mut self) {
        self.killed = true;
        self.kill_at_ms = u64::MAX;
        // It may have ended meanwhile, and has no group before its first steps.
        let _ = signal::send_group(self.pid, signal::KILL);
        let _ = signal::send(self.pid, signal::KILL);
    }

    /// What became of it, given the status that its parent gets.
    fn outcome(&self, status: i32) -> Result<(), Trouble> {
        if let Report::Failed(failure) = spawn::read_report(self.report.as_fd()) {
            let program = String::from_utf8_lossy(&self.command.program);
            Err(Trouble::NotRun(format!("cannot run {program}: {failure}")))
        } else if self.killed {
            Err(Trouble::Failed(format!("did not end within {} s and was killed", self.timeout_ms as f64 / 1000.0)))
        } else if process::exit_code(status) == Some(0) {
            Ok(())
        } else {
            Err(Trouble::Failed(process::describe_status(status)))
        }
    }
}

/// Tells the result of a run to who waits for it; else a failure is logged.
fn tell(label: &str, on_end: Option<OnEnd>, outcome: Result<(), Trouble>) {
    match (on_end, outcome) {
        (Some(on_end), outcome) => on_end(outcome),
        (None, Err(why)) => log::warn!("{label}: {why}"),
        (None, Ok(())) => {}
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::os::background;
    use std::time::Instant;

    fn wait(ended: &Receiver<()>, ms: u64) {
        let _ = ended.recv_timeout(Duration::from_millis(ms));
    }

    fn shell(script: &str) -> Arc<Command> {
        Arc::new(Command {
            label: "test".to_owned(),
            program: b"/bin/sh".to_vec(),
            args: ["sh", "-c", script].iter().map(|word| word.as_bytes().to_vec()).collect(),
            env: vec![b"PATH=/usr/bin:/bin".to_vec()],
            cwd: b"/".to_vec(),
            umask: None,
            credentials: None,
            no_new_privs: false,
        })
    }

    fn wait_idle(hooks: &Hooks) {
        let begun = Instant::now();
        while hooks.is_busy() {
            assert!(begun.elapsed() < Duration::from_secs(20), "a hook never ended");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn who_waits_for_a_result_is_told_and_one_that_takes_too_long_is_killed() {
        let mut hooks = Hooks::start(2, background::on_thread).unwrap();
        let (said, heard) = std::sync::mpsc::channel();
        for (n, (script, timeout_ms)) in
            [("exit 0", 60_000), ("exit 3", 60_000), ("sleep 1000", 50)].into_iter().enumerate()
        {
            let said = said.clone();
            let on_end: OnEnd = Box::new(move |outcome| said.send((n, outcome)).unwrap());
            hooks.push_and_tell(shell(script), Vec::new(), timeout_ms, on_end);
        }
        let mut all: Vec<_> = (0..3).map(|_| heard.recv_timeout(Duration::from_secs(20)).unwrap()).collect();
        all.sort_by_key(|(n, _)| *n);
        assert_eq!(all[0].1, Ok(()));
        assert!(matches!(&all[1].1, Err(Trouble::Failed(why)) if why.contains('3')), "{all:?}");
        assert_eq!(all[2].1, Err(Trouble::Failed("did not end within 0.05 s and was killed".to_owned())));
        hooks.finish(wait);
    }

    #[test]
    fn all_that_were_taken_run_and_the_rest_is_counted() {
        let file = std::env::temp_dir().join(format!("clusterd-hooks-{}", std::process::id()));
        let mut hooks = Hooks::start(HOOKS_RUNNING_MAX, background::on_thread).unwrap();
        let script = format!("echo $WORD >> {}", file.display());
        for _ in 0..20 {
            hooks.push(shell(&script), vec![b"WORD=ran".to_vec()]);
        }
        // A hook that ends at once does not stop the thread.
        hooks.push(Arc::new(Command { program: b"/no/such/program".to_vec(), ..(*shell("")).clone() }), Vec::new());
        wait_idle(&hooks);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "ran\n".repeat(20));
        std::fs::remove_file(&file).unwrap();
        let many = HOOKS_QUEUED_MAX + HOOKS_RUNNING_MAX;
        for _ in 0..many + 10 {
            hooks.push(shell("sleep 1000"), Vec::new());
        }
        assert!(hooks.lost >= 10, "{}", hooks.lost);
        let begun = Instant::now();
        hooks.finish(wait);
        assert!(begun.elapsed() < Duration::from_secs(5), "what runs is killed, not waited for");
    }
}
