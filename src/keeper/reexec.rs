//! The keeper's own part in an upgrade. Once the new master has proved itself, the new binary is asked, as a child,
//! whether it can take over everything that the keeper holds; then this process becomes that binary. Pid, children,
//! their parent-death signals, pending signals, limits and open files stay; the rest is encoded (`state`). A failure
//! before the exec costs nothing: the keeper stays as it is and logs the reason.
use super::delivery::Delivery;
use super::event_loop::{Keeper, Master, Own, keeper_environment, with_master_name};
use super::groups::Groups;
use super::protocol::{About, Notice, OwnUpgrade};
use super::service_manager::ServiceManager;
use super::state::{self, KEEPER_STATE_BYTES_MAX, State, View};
use super::system::{SIGNALS, System};
use super::watchdog::Watchdog;
use super::{CAN_BE_KEEPER, KEEPER_ARGV0, KEEPER_CHECK_ARGV0};
use crate::limits::UPGRADE_ANSWER_BYTES_MAX;
use crate::os::process::{self, FileLimit};
use crate::os::spawn::{Failure, Report};
use crate::os::{memfd, signal};
use crate::record::RecordError;
use std::borrow::Cow;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;
use thiserror::Error;

/// Time limit for a new binary to say whether it can be the keeper, in milliseconds.
const KEEPER_CHECK_MS: u64 = 5_000;

/// Why the keeper does not become another binary, or another binary cannot be the keeper.
#[derive(Debug, Error)]
pub enum ReexecError {
    /// The state cannot be encoded.
    #[error("cannot encode its state: {0}")]
    State(#[from] RecordError),
    /// The state cannot be stored.
    #[error("cannot write its state: {0}")]
    Store(io::Error),
    /// The state cannot be read.
    #[error("cannot read the keeper's state: {0}")]
    Read(io::Error),
    /// The state is invalid.
    #[error("the keeper's state cannot be used: {0}")]
    Decode(RecordError),
    /// The child that checks the binary could not be started.
    #[error("the new binary cannot be asked: {0}")]
    Ask(io::Error),
    /// The child did not answer in time.
    #[error("the new binary gave no answer in {} s", KEEPER_CHECK_MS / 1000)]
    Silent,
    /// The binary could not be executed.
    #[error("the new binary cannot be run: {0}")]
    Run(Failure),
    /// The child refused.
    #[error("the new binary cannot take over from it{0}")]
    Refused(String),
    /// The child is another program.
    #[error("the new binary is not a clusterd that can take over (it {0})")]
    Foreign(String),
    /// The previous binary cannot be kept open for a way back.
    #[error("cannot open /proc/self/exe: {0}")]
    OwnBinary(io::Error),
    /// A held fd would not survive the exec.
    #[error("cannot hand over the open files: {0}")]
    HandOver(io::Error),
    /// The exec failed.
    #[error("the new binary cannot be executed: {0}")]
    Execute(io::Error),
    #[error("file {0} is not open")]
    NotOpen(RawFd),
    /// An fd of the state cannot be taken over.
    #[error("cannot take over files: {0}")]
    Take(io::Error),
    /// Signals cannot be blocked.
    #[error("cannot watch signals: {0}")]
    Signals(io::Error),
}

/// The stage of a reexec.
#[derive(Debug, Default)]
pub(super) enum Reexec<F> {
    #[default]
    None,
    /// There is a new binary; its master has to prove itself first.
    Waiting,
    /// The new binary checks what it would take over.
    Asked(Question<F>),
    /// The new binary can take over.
    Agreed,
}

/// A new binary that is being checked.
#[derive(Debug)]
pub(super) struct Question<F> {
    pid: i32,
    report: F,
    answer: F,
    until_ms: u64,
    late: bool,
}

/// This keeper's description of itself.
pub(super) fn about(upgrade: OwnUpgrade, service_manager: &ServiceManager) -> About {
    About { version: env!("CARGO_PKG_VERSION").to_owned(), upgrade, has_store: service_manager.has_store() }
}

/// The check of a new binary: whether it could take over from the state on its standard input.
///
/// # Errors
/// The part that it cannot read.
pub fn check() -> Result<String, ReexecError> {
    // This process only checks; it is not a keeper.
    let bytes = memfd::contents(io::stdin().as_fd(), KEEPER_STATE_BYTES_MAX).map_err(ReexecError::Read)?;
    let state = state::decode(&bytes).map_err(ReexecError::Decode)?;
    let (version, processes) = (env!("CARGO_PKG_VERSION"), state.table.unreaped_count());
    Ok(format!("{CAN_BE_KEEPER} of version {version} can take over {processes} processes"))
}

impl<S: System> Keeper<S> {
    /// A master of a new binary is about to be started.
    pub(super) fn begin_reexec(&mut self) {
        self.cancel_reexec();
        self.reexec = Reexec::Waiting;
        self.about = about(OwnUpgrade::Open, &self.service_manager);
    }

    pub(super) fn cancel_reexec(&mut self) {
        if let Reexec::Asked(question) = std::mem::take(&mut self.reexec) {
            // It is not reaped, so the pid is still its own. It will be reaped as an unknown process.
            let _ = self.system.kill(question.pid, signal::KILL);
        }
    }

    /// When the next step may be due without an event.
    pub(super) fn reexec_wake_ms(&self, now_ms: u64) -> Option<u64> {
        match &self.reexec {
            Reexec::Waiting | Reexec::Agreed => self.watchdog.proved_at_ms().filter(|at_ms| *at_ms > now_ms),
            Reexec::Asked(Question { until_ms, late: false, .. }) => Some(*until_ms),
            Reexec::Asked(_) | Reexec::None => None,
        }
    }

    /// The pid of a new binary that is being checked.
    pub(super) fn asked_pid(&self) -> Option<i32> {
        match &self.reexec {
            Reexec::Asked(question) => Some(question.pid),
            Reexec::None | Reexec::Waiting | Reexec::Agreed => None,
        }
    }

    /// Takes the next step, if it is due. Does not return if that step is the exec of the new binary.
    pub(super) fn advance_reexec(&mut self, now_ms: u64) {
        match &mut self.reexec {
            Reexec::None => {}
            Reexec::Waiting => {
                if self.watchdog.is_proved(now_ms)
                    && let Some(asked) = self.view().map(|view| self.ask(&view, now_ms))
                {
                    // A roll-back is no longer possible.
                    self.previous_binary = None;
                    match asked {
                        Ok(question) => self.reexec = Reexec::Asked(question),
                        Err(why) => self.stay(&why),
                    }
                }
            }
            Reexec::Asked(question) => {
                if now_ms >= question.until_ms && !question.late {
                    question.late = true;
                    let _ = self.system.kill(question.pid, signal::KILL);
                }
            }
            Reexec::Agreed => {
                if self.watchdog.is_proved(now_ms)
                    && let Some(why) = self.view().map(|view| self.execute_new(&view))
                {
                    self.stay(&why);
                }
            }
        }
    }

    /// Everything to hand over; `None` while the master does not serve or has not received everything.
    fn view(&self) -> Option<View<'_, S::Fd>> {
        let Master { pid, ours, theirs, delivery, .. } = self.master.as_ref()?;
        Some(View {
            file_limit: (self.file_limit.soft, self.file_limit.hard),
            original_oom_score_adj: self.original_oom_score_adj,
            null: &self.null,
            binary: &self.binary,
            watchdog: self.watchdog.state()?,
            master_pid: *pid,
            ours,
            theirs,
            news: delivery.only_news()?,
            table: &self.table,
            reports: &self.reports,
            groups: Cow::Owned(self.groups.state()),
        })
    }

    fn ask(&self, view: &View<'_, S::Fd>, now_ms: u64) -> Result<Question<S::Fd>, ReexecError> {
        let state = self.store(view)?;
        let (answer, said) = self.system.pipe().map_err(ReexecError::Ask)?;
        let args = [KEEPER_CHECK_ARGV0.as_bytes().to_vec()];
        let started = self.system.start(&self.own_plan(&args, &[(&state, 0), (&said, 1), (&self.null, 2)]));
        let started = started.map_err(|failure| ReexecError::Ask(io::Error::from_raw_os_error(failure.errno)))?;
        let until_ms = now_ms + KEEPER_CHECK_MS;
        Ok(Question { pid: started.pid, report: started.report, answer, until_ms, late: false })
    }

    /// The state, in a file for another binary.
    fn store(&self, view: &View<'_, S::Fd>) -> Result<S::Fd, ReexecError> {
        let bytes = state::encode(view, |fd| self.system.number(fd))?;
        self.system.file_with("clusterd-keeper", &bytes).map_err(ReexecError::Store)
    }

    /// The process that checked the new binary has ended.
    pub(super) fn answered(&mut self, status: i32) {
        let Reexec::Asked(question) = std::mem::take(&mut self.reexec) else { return };
        match verdict(&self.system, &question, status) {
            Ok(()) => self.reexec = Reexec::Agreed,
            Err(why) => self.stay(&why),
        }
    }

    /// Executes the new binary. Returns only if that failed, with the reason.
    fn execute_new(&self, view: &View<'_, S::Fd>) -> ReexecError {
        let prepared = self.store(view).and_then(|state| {
            let previous = self.system.own_binary().map_err(ReexecError::OwnBinary)?;
            for fd in view.fds().chain([&state, &previous]) {
                self.system.keep_over_exec(fd).map_err(ReexecError::HandOver)?;
            }
            Ok((state, previous))
        });
        let why = match prepared {
            Ok((state, previous)) => {
                let back = self.system.number(&previous).to_string().into_bytes();
                let env = keeper_environment(&self.system);
                let error = execute(&self.system, &self.binary, &state, back, &self.args[1..], &env);
                ReexecError::Execute(error)
            }
            Err(why) => why,
        };
        if let Err(error) = self.system.close_on_exec_from(3) {
            // Workers that start from now on would inherit the keeper's fds.
            self.system.say(&format!(
                "clusterd: keeper: cannot set close-on-exec on its files again: {error}; new workers inherit them"
            ));
        }
        why
    }

    /// The keeper keeps its binary, and tells everybody why.
    fn stay(&mut self, why: &ReexecError) {
        self.reexec = Reexec::None;
        self.system.say(&format!("clusterd: the keeper stays at version {}: {why}", env!("CARGO_PKG_VERSION")));
        self.about = about(OwnUpgrade::Stays { why: why.to_string() }, &self.service_manager);
        self.notify_master(Notice::Keeper { about: self.about.clone() });
    }
}

// ---- the new binary ----

/// The binary before this one.
enum Previous<F> {
    Binary(F),
    /// It could not be the keeper, and executed this one again: why.
    Declined(String),
}

/// What the previous binary left in the arguments.
struct Left<F> {
    state: F,
    previous: Previous<F>,
    args: Vec<OsString>,
}

fn left<S: System>(system: &S, args: Vec<OsString>) -> Option<Left<S::Fd>> {
    let mut args = args.into_iter();
    let number = |text: OsString| text.to_str().and_then(|text| text.parse::<RawFd>().ok());
    let state = system.take_inherited(number(args.next()?)?).ok()?;
    let way = args.next()?;
    let previous = match number(way.clone()) {
        Some(binary) => Previous::Binary(system.take_inherited(binary).ok()?),
        None => Previous::Declined(way.to_string_lossy().into_owned()),
    };
    Some(Left { state, previous, args: args.collect() })
}

/// Takes over as the keeper that this process was. `args`: argv without its first.
pub(super) fn resume<S: System>(system: S, args: Vec<OsString>) -> ExitCode {
    system.set_name("clusterd");
    let Some(left) = left(&system, args) else {
        system.say("clusterd: cannot start: only an upgrade of clusterd starts this role");
        return ExitCode::from(2);
    };
    match Keeper::restored(system, &left) {
        Ok(mut keeper) => {
            drop(left);
            // First handle what happened meanwhile: ended children and reports.
            let reports = keeper.reports.keys().copied().collect();
            keeper.turn(reports);
            ExitCode::from(keeper.run())
        }
        Err((system, why)) => send_back(&system, &left, &why.to_string()),
    }
}

/// Executes the previous binary again: this one cannot be the keeper although its check passed.
pub(super) fn decline<S: System>(system: &S, args: Vec<OsString>, why: &str) -> ExitCode {
    left(system, args).map_or(ExitCode::from(2), |left| send_back(system, &left, why))
}

fn send_back<S: System>(system: &S, left: &Left<S::Fd>, why: &str) -> ExitCode {
    let failed = match &left.previous {
        Previous::Binary(previous) => {
            system.say(&format!("clusterd: the new binary cannot be the keeper ({why}); the previous one continues"));
            let reason = format!("the new binary said that it can take over, and could not: {why}").into_bytes();
            let args: Vec<Vec<u8>> = left.args.iter().map(|arg| arg.clone().into_vec()).collect();
            match system.keep_over_exec(&left.state) {
                Ok(()) => {
                    execute(system, previous, &left.state, reason, &args, &keeper_environment(system)).to_string()
                }
                Err(error) => error.to_string(),
            }
        }
        Previous::Declined(_) => why.to_owned(),
    };
    system.say(&format!("clusterd: the keeper cannot continue ({failed}): the master and all workers end"));
    ExitCode::FAILURE
}

impl<S: System> Keeper<S> {
    /// Takes over the state. No fd of it is touched until that is certain to work.
    fn restored(mut system: S, left: &Left<S::Fd>) -> Result<Keeper<S>, (S, ReexecError)> {
        let state = match take_state(&mut system, left) {
            Ok(state) => state,
            Err(why) => return Err((system, why)),
        };
        // The binary before this one may have been none.
        system.become_subreaper();
        let now_ms = system.now_ms();
        let State { file_limit: (soft, hard), null, binary, table, reports, .. } = state;
        let delivery = Delivery::resume(state.watchdog.incarnation, state.news);
        let own_part = match &left.previous {
            Previous::Binary(_) => OwnUpgrade::Done,
            Previous::Declined(why) => OwnUpgrade::Stays { why: why.clone() },
        };
        let own = Own {
            binary,
            null,
            file_limit: FileLimit { soft, hard },
            original_oom_score_adj: state.original_oom_score_adj,
        };
        let watchdog = Watchdog::resume(state.watchdog, now_ms);
        let mut keeper = Keeper::with(system, with_master_name(left.args.clone()), own, table, watchdog);
        keeper.reports = reports;
        keeper.fill_reserve();
        keeper.groups = Groups::resume(&keeper.system, state.groups);
        keeper.master = Some(Master {
            pid: state.master_pid,
            ours: state.ours,
            theirs: state.theirs,
            report: None,
            delivery,
            killed_for: None,
        });
        keeper.about = about(own_part, &keeper.service_manager);
        keeper.notify_master(Notice::Keeper { about: keeper.about.clone() });
        Ok(keeper)
    }
}

fn take_state<S: System>(system: &mut S, left: &Left<S::Fd>) -> Result<State<S::Fd>, ReexecError> {
    let state = system.contents(&left.state, KEEPER_STATE_BYTES_MAX).map_err(ReexecError::Read)?;
    let state = state::decode(&state).map_err(ReexecError::Decode)?;
    if let Some(missing) = state.view().fds().find(|number| !system.is_open(**number)) {
        return Err(ReexecError::NotOpen(*missing));
    }
    system.watch_signals(&SIGNALS).map_err(ReexecError::Signals)?;
    state.try_map(|number| system.take_inherited(number)).map_err(ReexecError::Take)
}

/// Executes `binary`, with the state and the way back in its first two arguments.
fn execute<S: System>(
    system: &S,
    binary: &S::Fd,
    state: &S::Fd,
    back: Vec<u8>,
    args: &[Vec<u8>],
    env: &[Vec<u8>],
) -> io::Error {
    let mut all = vec![KEEPER_ARGV0.as_bytes().to_vec(), system.number(state).to_string().into_bytes(), back];
    all.extend_from_slice(args);
    system.replace(binary, &all, env)
}

/// The result of the check.
fn verdict<S: System>(system: &S, question: &Question<S::Fd>, status: i32) -> Result<(), ReexecError> {
    if question.late {
        return Err(ReexecError::Silent);
    }
    if let Report::Failed(failure) = system.report(&question.report) {
        return Err(ReexecError::Run(failure));
    }
    let mut said = vec![0; UPGRADE_ANSWER_BYTES_MAX as usize];
    let length = system.read_now(&question.answer, &mut said).ok().flatten().unwrap_or(0);
    let said: String = String::from_utf8_lossy(&said[..length]).chars().filter(|c| !c.is_control()).collect();
    match said.strip_prefix(CAN_BE_KEEPER) {
        Some(_) if process::exit_code(status) == Some(0) => Ok(()),
        Some(why) => Err(ReexecError::Refused(why.to_owned())),
        None => Err(ReexecError::Foreign(process::describe_status(status))),
    }
}
