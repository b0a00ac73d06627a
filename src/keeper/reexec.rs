//! The keeper's own part in an upgrade. Once the new master has proved itself, the new binary is asked, as a child,
//! whether it can go on from everything that the keeper holds; then this process becomes that binary. Its pid, its
//! children, their parent-death signals, the signals that wait, limits and open files stay; the rest is written down
//! (`state`). Whatever goes wrong before that costs nothing: the keeper stays what it is and says why.
use super::delivery::Delivery;
use super::event_loop::{Keeper, Master, SIGNALS, environment, with_master_name};
use super::protocol::{About, Notice, OwnUpgrade};
use super::state::{self, State, View};
use super::watchdog::Watchdog;
use super::{CAN_BE_KEEPER, KEEPER_ARGV0, KEEPER_CHECK_ARGV0};
use crate::limits::{KEEPER_CHECK_MS, KEEPER_PACKET_BYTES_MAX, KEEPER_STATE_BYTES_MAX, UPGRADE_ANSWER_BYTES_MAX};
use crate::os::process::{self, FileLimit, say};
use crate::os::spawn::{self, Plan, Program, Report};
use crate::os::{clock, memfd, pipe, signal};
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;

/// How far it is.
#[derive(Debug, Default)]
pub(super) enum Reexec {
    /// There is nothing to become.
    #[default]
    None,
    /// A new binary came; its master has to prove itself first.
    Waiting,
    /// The new binary looks at what it would be given.
    Asked(Question),
    /// It said that it can go on.
    Agreed,
}

/// A new binary that is being asked.
#[derive(Debug)]
pub(super) struct Question {
    pid: i32,
    report: OwnedFd,
    answer: OwnedFd,
    until_ms: u64,
    late: bool,
}

/// What this binary says of itself.
pub(super) fn about(upgrade: OwnUpgrade) -> About {
    About { version: env!("CARGO_PKG_VERSION").to_owned(), upgrade }
}

/// This binary's own answer: whether it could go on from the state that is its standard input.
///
/// # Errors
/// What it cannot read.
pub fn check() -> Result<String, String> {
    let bytes = memfd::contents(io::stdin().as_fd(), KEEPER_STATE_BYTES_MAX)
        .map_err(|error| format!("cannot read the keeper's state: {error}"))?;
    let state = state::decode(&bytes).map_err(|error| error.to_string())?;
    let (version, processes) = (env!("CARGO_PKG_VERSION"), state.table.unreaped_count());
    Ok(format!("{CAN_BE_KEEPER} of version {version} can go on with {processes} processes"))
}

impl Keeper {
    /// A master of a new binary is about to be started.
    pub(super) fn begin_reexec(&mut self) {
        self.cancel_reexec();
        self.reexec = Reexec::Waiting;
        self.about = about(OwnUpgrade::Open);
    }

    /// There is nothing to become any more.
    pub(super) fn cancel_reexec(&mut self) {
        if let Reexec::Asked(question) = std::mem::take(&mut self.reexec) {
            // It is not reaped: the pid is its own. It will be, as a process that nobody knows.
            let _ = signal::send(question.pid, signal::KILL);
        }
    }

    /// When the next step may be due without any event.
    pub(super) fn reexec_wake_ms(&self, now_ms: u64) -> Option<u64> {
        match &self.reexec {
            Reexec::Waiting | Reexec::Agreed => self.watchdog.proved_at_ms().filter(|at_ms| *at_ms > now_ms),
            Reexec::Asked(Question { until_ms, late: false, .. }) => Some(*until_ms),
            Reexec::Asked(_) | Reexec::None => None,
        }
    }

    /// The pid of a new binary that is being asked.
    pub(super) fn asked_pid(&self) -> Option<i32> {
        match &self.reexec {
            Reexec::Asked(question) => Some(question.pid),
            Reexec::None | Reexec::Waiting | Reexec::Agreed => None,
        }
    }

    /// Takes the next step, if it is due. Does not return when that is to become the new binary.
    pub(super) fn advance_reexec(&mut self, now_ms: u64) {
        match &mut self.reexec {
            Reexec::None => {}
            Reexec::Waiting => {
                if self.watchdog.is_proved(now_ms)
                    && let Some(asked) = self.view().map(|view| self.ask(&view, now_ms))
                {
                    // Nobody goes back any more.
                    self.former_binary = None;
                    match asked {
                        Ok(question) => self.reexec = Reexec::Asked(question),
                        Err(why) => self.stay(why),
                    }
                }
            }
            Reexec::Asked(question) => {
                if now_ms >= question.until_ms && !question.late {
                    question.late = true;
                    let _ = signal::send(question.pid, signal::KILL);
                }
            }
            Reexec::Agreed => {
                if self.watchdog.is_proved(now_ms)
                    && let Some(why) = self.view().map(|view| self.become_new(&view))
                {
                    self.stay(why);
                }
            }
        }
    }

    /// Everything that there is to hand over; `None` while the master does not serve or has not been told everything.
    fn view(&self) -> Option<View<'_, OwnedFd>> {
        let Master { pid, ours, theirs, delivery, .. } = self.master.as_ref()?;
        Some(View {
            file_limit: (self.file_limit.soft, self.file_limit.hard),
            null: &self.null,
            binary: &self.binary,
            watchdog: self.watchdog.state()?,
            master_pid: *pid,
            ours,
            theirs,
            news: delivery.only_news()?,
            table: &self.table,
            reports: &self.reports,
        })
    }

    fn ask(&self, view: &View<'_, OwnedFd>, now_ms: u64) -> Result<Question, String> {
        let state = written(view)?;
        let broken = |error: io::Error| format!("the new binary cannot be asked: {error}");
        let (answer, said) = pipe::pair().map_err(broken)?;
        let started = spawn::start(&Plan {
            program: Program::Fd(self.binary.as_fd()),
            args: &[KEEPER_CHECK_ARGV0.as_bytes().to_vec()],
            env: &self.env,
            listen_pid: false,
            cwd: None,
            umask: None,
            identity: None,
            rlimits: &[],
            fds: &[(state.as_fd(), 0), (said.as_fd(), 1), (self.null.as_fd(), 2)],
        });
        let started = started.map_err(|failure| broken(io::Error::from_raw_os_error(failure.errno)))?;
        let until_ms = now_ms + KEEPER_CHECK_MS;
        Ok(Question { pid: started.pid, report: started.report, answer, until_ms, late: false })
    }

    /// The new binary that was asked has ended.
    pub(super) fn answered(&mut self, status: i32) {
        let Reexec::Asked(question) = std::mem::take(&mut self.reexec) else { return };
        match verdict(&question, status) {
            Ok(()) => self.reexec = Reexec::Agreed,
            Err(why) => self.stay(why),
        }
    }

    /// Becomes the new binary. Returns only when that failed: why.
    fn become_new(&self, view: &View<'_, OwnedFd>) -> String {
        let prepared = written(view).and_then(|state| {
            let former = process::own_binary().map_err(|error| format!("opening /proc/self/exe: {error}"))?;
            let kept = view.fds().chain([&state, &former]);
            kept.map(AsFd::as_fd)
                .try_for_each(process::keep_over_exec)
                .map_err(|error| format!("handing over the open files: {error}"))?;
            Ok((state, former))
        });
        let why = match &prepared {
            Ok((state, former)) => {
                let back = former.as_raw_fd().to_string().into_bytes();
                let error = execute(self.binary.as_fd(), state, back, &self.args[1..], &self.env);
                format!("the new binary cannot be executed: {error}")
            }
            Err(why) => why.clone(),
        };
        if let Err(error) = process::close_on_exec_from(3) {
            // Workers that start from now on inherit what is not theirs.
            say(&format!("clusterd: keeper: cannot mark its files as its own again: {error}"));
        }
        why
    }

    /// Nothing changes, and everybody hears why.
    fn stay(&mut self, why: String) {
        self.reexec = Reexec::None;
        say(&format!("clusterd: the keeper stays at version {}: {why}", env!("CARGO_PKG_VERSION")));
        self.about = about(OwnUpgrade::Stays { why });
        self.tell(Notice::Keeper { about: self.about.clone() });
    }
}

// ---- the new binary ----

/// What the binary before this one left in the arguments.
struct Left {
    state: OwnedFd,
    /// The binary before; or why that is this one, which was sent back to.
    former: Result<OwnedFd, String>,
    args: Vec<OsString>,
}

fn left(args: Vec<OsString>) -> Option<Left> {
    let mut args = args.into_iter();
    let number = |text: OsString| text.to_str().and_then(|text| text.parse::<RawFd>().ok());
    let state = process::take_inherited_fd(number(args.next()?)?).ok()?;
    let way = args.next()?;
    let former = match number(way.clone()) {
        Some(former) => Ok(process::take_inherited_fd(former).ok()?),
        None => Err(way.to_string_lossy().into_owned()),
    };
    Some(Left { state, former, args: args.collect() })
}

/// Goes on as the keeper that this process was. `args`: argv without its first.
pub(super) fn resume(args: Vec<OsString>) -> ExitCode {
    process::set_name("clusterd");
    let Some(left) = left(args) else {
        say("clusterd: cannot start: this role is for clusterd alone, in an upgrade");
        return ExitCode::from(2);
    };
    match Keeper::restored(&left) {
        Ok(mut keeper) => {
            drop(left);
            // Before anything else: who ended meanwhile, and whose report came.
            let reports = keeper.reports.keys().copied().collect();
            keeper.turn(reports);
            ExitCode::from(keeper.run())
        }
        Err(why) => send_back(&left, &why),
    }
}

/// What becomes of a process whose binary cannot be the keeper although it said so: the binary before is it again.
pub(super) fn decline(args: Vec<OsString>, why: &str) -> ExitCode {
    left(args).map_or(ExitCode::from(2), |left| send_back(&left, why))
}

fn send_back(left: &Left, why: &str) -> ExitCode {
    let failed = match &left.former {
        Ok(former) => {
            say(&format!("clusterd: the new binary cannot be the keeper ({why}); the former one goes on"));
            let reason = format!("the new binary said that it can go on, and could not: {why}").into_bytes();
            let args: Vec<Vec<u8>> = left.args.iter().map(|arg| arg.clone().into_vec()).collect();
            match process::keep_over_exec(left.state.as_fd()) {
                Ok(()) => execute(former.as_fd(), &left.state, reason, &args, &environment()).to_string(),
                Err(error) => error.to_string(),
            }
        }
        Err(_) => why.to_owned(),
    };
    say(&format!("clusterd: the keeper cannot go on ({failed}): the master and all workers end"));
    ExitCode::FAILURE
}

impl Keeper {
    /// Takes over what is left. Until that is certain to work no fd of it is touched.
    fn restored(left: &Left) -> Result<Keeper, String> {
        let state = memfd::contents(left.state.as_fd(), KEEPER_STATE_BYTES_MAX)
            .map_err(|error| format!("cannot read the state: {error}"))?;
        let state = state::decode(&state).map_err(|error| error.to_string())?;
        if let Some(missing) = state.view().fds().find(|number| !process::is_open(**number)) {
            return Err(format!("file {missing} is not open"));
        }
        let signals = signal::Watch::new(&SIGNALS).map_err(|error| format!("watching signals: {error}"))?;
        signal::ignore(signal::PIPE).map_err(|error| format!("ignoring SIGPIPE: {error}"))?;
        let state = state.try_map(process::take_inherited_fd).map_err(|error| format!("taking files: {error}"))?;
        let now_ms = clock::monotonic_ms();
        let State { file_limit: (soft, hard), null, binary, table, reports, .. } = state;
        let delivery = Delivery::resume(state.watchdog.incarnation, state.news);
        let mut keeper = Keeper {
            args: with_master_name(left.args.clone()),
            env: environment(),
            binary,
            next_binary: None,
            former_binary: None,
            null,
            file_limit: FileLimit { soft, hard },
            signals,
            table,
            reports,
            watchdog: Watchdog::resume(state.watchdog, now_ms),
            master: Some(Master {
                pid: state.master_pid,
                ours: state.ours,
                theirs: state.theirs,
                report: None,
                delivery,
                killed_for: None,
            }),
            previous_end: String::new(),
            gap: None,
            complaints: 0,
            heartbeats: 0,
            buffer: vec![0; KEEPER_PACKET_BYTES_MAX],
            reexec: Reexec::None,
            about: about(OwnUpgrade::Done),
            over: None,
        };
        if let Err(why) = &left.former {
            keeper.about = about(OwnUpgrade::Stays { why: why.clone() });
        }
        keeper.tell(Notice::Keeper { about: keeper.about.clone() });
        Ok(keeper)
    }
}

fn written(view: &View<'_, OwnedFd>) -> Result<OwnedFd, String> {
    let bytes = state::encode(view, AsRawFd::as_raw_fd).map_err(|error| format!("what it holds: {error}"))?;
    memfd::with_contents("clusterd-keeper", &bytes).map_err(|error| format!("writing down what it holds: {error}"))
}

/// Becomes `binary`, which finds the state and the way back in its first two arguments.
fn execute(binary: BorrowedFd<'_>, state: &OwnedFd, back: Vec<u8>, args: &[Vec<u8>], env: &[Vec<u8>]) -> io::Error {
    let mut all = vec![KEEPER_ARGV0.as_bytes().to_vec(), state.as_raw_fd().to_string().into_bytes(), back];
    all.extend_from_slice(args);
    spawn::replace(binary, &all, env)
}

/// What the answer means.
fn verdict(question: &Question, status: i32) -> Result<(), String> {
    if question.late {
        return Err(format!("the new binary gave no answer in {} s", KEEPER_CHECK_MS / 1000));
    }
    if let Report::Failed(failure) = spawn::read_report(question.report.as_fd()) {
        return Err(format!("the new binary cannot be run: {}", process::describe_errno(failure.errno)));
    }
    let mut said = vec![0; UPGRADE_ANSWER_BYTES_MAX as usize];
    let length = process::read_now(question.answer.as_fd(), &mut said).ok().flatten().unwrap_or(0);
    let said: String = String::from_utf8_lossy(&said[..length]).chars().filter(|c| !c.is_control()).collect();
    match said.strip_prefix(CAN_BE_KEEPER) {
        Some(_) if process::exit_code(status) == Some(0) => Ok(()),
        Some(why) => Err(format!("the new binary cannot go on from it{why}")),
        None => Err(format!("the new binary is no clusterd that can (it {})", process::describe_status(status))),
    }
}
