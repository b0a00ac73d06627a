//! The keeper's loop: waits for signals, orders, reports of starting children and deadlines, and keeps a master
//! running. `workers` handles children; `watchdog` decides when a master is started or given up.
use super::codec::{self, RecordError};
use super::delivery::Delivery;
use super::groups::Groups;
use super::protocol::{About, Notice, Order, OwnUpgrade, SpawnStep};
use super::reexec::{self, Reexec};
use super::service_manager::{News, ServiceManager};
use super::system::{Interest, SIGNALS, System};
use super::table::Table;
use super::watchdog::{AfterEnd, Hung, Watchdog};
use super::{ARGUMENTS, Launch, MASTER_ARGV0, MASTER_KEEPER_FD, inherited};
use crate::ids::WorkerId;
use crate::limits::{KEEPER_PACKET_BYTES_MAX, START_HEARTBEATS, STOP_NOW_GRACE_MS, STOP_WITHOUT_MASTER_MS};
use crate::os::argv::without_values;
use crate::os::attributes::Attributes;
use crate::os::errno::EMFILE;
use crate::os::guard;
use crate::os::packet::{FDS_LOST, Packet};
use crate::os::process::{self, FileLimit};
use crate::os::signal;
use crate::os::spawn::{Failure, Plan, Program, Report, Terminal};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsString;
use std::io;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStringExt;
use thiserror::Error;

/// Orders handled before the keeper checks its children again.
const KEEPER_ORDERS_PER_TURN_MAX: usize = 256;
/// Damaged or refused orders of one master that are logged; further ones are only counted.
const KEEPER_COMPLAINTS_MAX: u32 = 20;
/// The longest wait for the guard of a dead master, in milliseconds. It needs less than one, where it gets a CPU.
const GUARD_END_MS: u64 = 1_000;
/// Requested send buffer of keeper and master, in bytes.
const KEEPER_SOCKET_BUFFER_BYTES: usize = 1024 * 1024;

/// The variables by which systemd says which fds it passed. They are meant for the keeper alone, and for its first binary.
const PASSED_VARIABLES: [&str; 3] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];
/// The variables by which systemd says that it expects signs of life and stores files. They are meant for the keeper alone.
const OWN_VARIABLES: [&str; 3] = ["WATCHDOG_PID", "WATCHDOG_USEC", "FDSTORE"];

/// What the start of a master needs: both ends of its connection, the pipe for its report, and in the child copies of each.
const RESERVED_FDS: usize = 8;

/// A running master.
#[derive(Debug)]
pub(super) struct Master<F> {
    pub(super) pid: i32,
    pub(super) ours: F,
    /// A copy of the master's end: messages that the master had not read when it died can still be read from it.
    /// Because it stays open, only SIGCHLD reports the end of a master.
    pub(super) theirs: F,
    /// Where it reports a failed exec; `None` once the exec is known to have succeeded.
    pub(super) report: Option<F>,
    pub(super) delivery: Delivery,
    /// Why the keeper killed it, if it did.
    pub(super) killed_for: Option<String>,
}

/// The end of a master, to be logged together with the start of its successor.
#[derive(Debug)]
pub(super) struct Gap {
    story: String,
    since_ms: u64,
}

/// Why the keeper could not start.
#[derive(Debug, Error)]
#[error("{what}: {source}")]
pub struct StartError {
    what: &'static str,
    source: io::Error,
}

/// A forked master, and both ends of its connection.
struct Forked<F> {
    pid: i32,
    report: F,
    ours: F,
    theirs: F,
}

/// Why a master could not be forked.
#[derive(Debug, Error)]
enum ForkError {
    #[error("{0}")]
    Socket(io::Error),
    #[error("{0}")]
    Fork(Failure),
}

#[derive(Debug)]
pub(super) struct Keeper<S: System> {
    pub(super) system: S,
    pub(super) args: Vec<Vec<u8>>,
    pub(super) env: Vec<Vec<u8>>,
    pub(super) binary: S::Fd,
    pub(super) next_binary: Option<S::Fd>,
    /// The previous binary, until the master of an upgrade has proved itself.
    pub(super) previous_binary: Option<S::Fd>,
    pub(super) null: S::Fd,
    pub(super) file_limit: FileLimit,
    /// What the OOM killer thought of this process before it lowered its score: its children get that back.
    pub(super) original_oom_score_adj: Option<i32>,
    /// Apps that have stopped and of which processes may be left.
    pub(super) ended_apps: BTreeSet<String>,
    pub(super) groups: Groups,
    /// Files that are kept open so that a master can be started when there are no free fds: see [`RESERVED_FDS`].
    pub(super) reserve: Vec<S::Fd>,
    pub(super) table: Table<S::Fd>,
    /// Reports of children whose exec has neither failed nor succeeded yet.
    pub(super) reports: BTreeMap<WorkerId, S::Fd>,
    pub(super) watchdog: Watchdog,
    pub(super) service_manager: ServiceManager,
    pub(super) master: Option<Master<S::Fd>>,
    pub(super) previous_end: String,
    pub(super) gap: Option<Gap>,
    pub(super) complaints: u32,
    pub(super) heartbeats: u32,
    pub(super) buffer: Vec<u8>,
    pub(super) reexec: Reexec<S::Fd>,
    pub(super) about: About,
    /// Set when the keeper is to exit: the exit code.
    pub(super) over: Option<u8>,
}

/// What the process of the keeper has from its start.
pub(super) struct Own<F> {
    pub(super) binary: F,
    pub(super) null: F,
    pub(super) file_limit: FileLimit,
    pub(super) original_oom_score_adj: Option<i32>,
}

/// What the master said.
enum Heard<F> {
    Order(Order, VecDeque<F>),
    /// This worker is to start, and what it needs was lost. The master waits for it, so it has failed.
    SpawnWithoutFds(WorkerId),
}

impl<S: System> Keeper<S> {
    /// Sets up the keeper in this process.
    ///
    /// # Errors
    /// What failed, and why.
    pub(super) fn new(mut system: S, launch: Launch) -> Result<Keeper<S>, StartError> {
        let failed = |what| move |source| StartError { what, source };
        let mut table = Table::default();
        inherited::hold_inherited(&system, &mut table);
        inherited::hold_passed(&system, &mut table);
        system.close_on_exec_from(3).map_err(failed("closing inherited files"))?;
        system.watch_signals(&SIGNALS).map_err(failed("watching signals"))?;
        // A parent may have left SIGCHLD ignored; the kernel would then reap our children itself.
        system.reset_signal(signal::CHLD).map_err(failed("watching SIGCHLD"))?;
        let args = with_master_name(launch.args);
        let shown = without_values(&args);
        if shown != args {
            let all = args[1..].iter().flat_map(|arg| arg.iter().copied().chain([0])).collect::<Vec<u8>>();
            let file = system.file_with(ARGUMENTS, &all).map_err(failed("keeping the arguments"))?;
            // The bound of held fds is far away at the start.
            let _ = table.hold(ARGUMENTS.to_owned(), file);
        }
        system.become_subreaper();
        let own = Own {
            binary: system.own_binary().map_err(failed("opening /proc/self/exe (is /proc mounted?)"))?,
            null: system.null_device().map_err(failed("opening /dev/null"))?,
            file_limit: system.raise_file_limit().map_err(failed("raising the limit of open files"))?,
            original_oom_score_adj: system.lower_oom_score(),
        };
        let watchdog = Watchdog::new(system.now_ms());
        Ok(Keeper::with(system, shown, own, table, watchdog))
    }

    /// A keeper without a master.
    pub(super) fn with(
        system: S,
        args: Vec<Vec<u8>>,
        own: Own<S::Fd>,
        table: Table<S::Fd>,
        watchdog: Watchdog,
    ) -> Keeper<S> {
        let service_manager = ServiceManager::new(&system, &table);
        Keeper {
            args,
            env: environment(&system),
            binary: own.binary,
            next_binary: None,
            previous_binary: None,
            null: own.null,
            file_limit: own.file_limit,
            original_oom_score_adj: own.original_oom_score_adj,
            ended_apps: BTreeSet::new(),
            groups: Groups::default(),
            reserve: Vec::new(),
            table,
            reports: BTreeMap::new(),
            watchdog,
            about: reexec::about(OwnUpgrade::Open, &service_manager),
            service_manager,
            master: None,
            previous_end: String::new(),
            gap: None,
            complaints: 0,
            heartbeats: 0,
            buffer: vec![0; KEEPER_PACKET_BYTES_MAX],
            reexec: Reexec::None,
            over: None,
            system,
        }
    }

    /// Runs until the deployment is over. Returns the exit code.
    pub(super) fn run(mut self) -> u8 {
        loop {
            let now_ms = self.system.now_ms();
            if self.over.is_none() && self.watchdog.start_is_due(now_ms) {
                self.start_master(now_ms);
            }
            self.service_manager.send(&self.system, &self.table, now_ms);
            if let Some(code) = self.over {
                self.end_everything();
                return code;
            }
            self.advance_reexec(now_ms);
            self.flush(now_ms);
            let ready = self.wait(now_ms);
            self.turn(ready);
        }
    }

    /// Waits for an event. Returns the children whose reports are readable.
    fn wait(&self, now_ms: u64) -> Vec<WorkerId> {
        let paused = self.master.as_ref().and_then(|master| master.delivery.wake_at_ms());
        let due = [self.watchdog.wake_at_ms(), paused, self.reexec_wake_ms(now_ms), self.service_manager.wake_at_ms()];
        let wake_at_ms = due.into_iter().flatten().min();
        let mut interests = Vec::with_capacity(1 + self.reports.len());
        interests.extend(self.reports.values().map(|fd| Interest { fd, write: false, readable: false }));
        if let Some(master) = &self.master {
            interests.push(Interest { fd: &master.ours, write: master.delivery.waits_for_room(), readable: false });
        }
        if let Err(error) = self.system.wait(&mut interests, wake_at_ms.map(|at_ms| at_ms.saturating_sub(now_ms))) {
            self.system.say(&format!("clusterd: cannot wait for events: {error}"));
        }
        let reports = self.reports.keys().zip(&interests);
        reports.filter(|(_, interest)| interest.readable).map(|(worker, _)| *worker).collect()
    }

    /// Handles everything that is due.
    pub(super) fn turn(&mut self, reports: Vec<WorkerId>) {
        let now_ms = self.system.now_ms();
        self.service_manager.beat(&self.system, now_ms);
        self.read_signals(now_ms);
        let all_read = self.read_orders(now_ms);
        for worker in reports {
            self.settle_report(worker);
        }
        self.reap(now_ms);
        if all_read {
            match self.watchdog.tick(now_ms) {
                None => {}
                Some(Hung::Starting(ms)) => {
                    self.kill_master(format!("was not ready after {} s and was killed", ms / 1000))
                }
                Some(Hung::Serving(ms)) => {
                    self.kill_master(format!("sent no heartbeat for {} s and was killed", ms / 1000));
                }
            }
        }
        if self.over.is_none() && self.watchdog.stop_now_is_over(now_ms) {
            let seconds = STOP_NOW_GRACE_MS / 1000;
            self.system.say(&format!("clusterd: processes still run {seconds} s after the stop; killing them"));
            self.over = Some(1);
        }
        if self.over.is_none() && self.watchdog.stop_has_no_master(now_ms) {
            let seconds = STOP_WITHOUT_MASTER_MS / 1000;
            self.system.say(&format!(
                "clusterd: no master has served for {seconds} s to carry out the stop; ending everything"
            ));
            self.over = Some(1);
        }
    }

    /// Sends queued messages. Called last before each wait, so that a new master is served at once.
    fn flush(&mut self, now_ms: u64) {
        let flushed = match &mut self.master {
            Some(master) => master.delivery.flush(&self.system, &master.ours, &self.table, now_ms),
            None => Ok(()),
        };
        if let Err(error) = flushed {
            self.kill_master(format!("could not be sent messages ({error}) and was killed"));
        }
    }

    fn read_signals(&mut self, now_ms: u64) {
        loop {
            match self.system.next_signal() {
                Ok(Some(caught)) => {
                    match caught.signal {
                        signal::CHLD => continue,
                        signal::TERM | signal::INT => self.watchdog.stop_asked(now_ms),
                        signal::QUIT => self.watchdog.stop_now_asked(now_ms),
                        signal::HUP => self.service_manager.tell(&self.system, News::Reloading),
                        _ => {}
                    }
                    if [signal::TERM, signal::INT, signal::QUIT].contains(&caught.signal) {
                        self.service_manager.tell(&self.system, News::Stopping);
                    }
                    self.notify_master(Notice::Signal { signal: caught.signal, value: caught.value });
                }
                Ok(None) => return,
                Err(error) => return self.system.say(&format!("clusterd: cannot read signals: {error}")),
            }
        }
    }

    // ---- master ----

    fn start_master(&mut self, now_ms: u64) {
        self.reserve.clear();
        match self.fork_master() {
            Ok(Forked { pid, report, ours, theirs }) => {
                let incarnation = self.watchdog.started(now_ms);
                let (previous_end, about) = (self.previous_end.clone(), self.about.clone());
                let delivery = Delivery::new(incarnation, previous_end, about, self.table.take_waiting());
                self.master = Some(Master { pid, ours, theirs, report: Some(report), delivery, killed_for: None });
                self.complaints = 0;
                self.heartbeats = 0;
                self.fill_reserve();
            }
            Err(why) => match self.watchdog.start_failed(now_ms) {
                AfterEnd::GiveUp => {
                    self.system.say(&format!("clusterd: cannot start the master: {why}"));
                    self.over = Some(1);
                }
                AfterEnd::StartAfter(ms) => {
                    self.system.say(&format!("clusterd: cannot start the master: {why}; trying again in {ms} ms"));
                }
            },
        }
    }

    pub(super) fn fill_reserve(&mut self) {
        while self.reserve.len() < RESERVED_FDS
            && let Ok(fd) = self.system.null_device()
        {
            self.reserve.push(fd);
        }
    }

    fn fork_master(&self) -> Result<Forked<S::Fd>, ForkError> {
        let (ours, theirs) = self.system.pair(KEEPER_SOCKET_BUFFER_BYTES).map_err(ForkError::Socket)?;
        let started = self.system.start(&self.own_plan(&self.args, &[(&theirs, MASTER_KEEPER_FD)]));
        let started = started.map_err(ForkError::Fork)?;
        Ok(Forked { pid: started.pid, report: started.report, ours, theirs })
    }

    /// How a process of this binary is started: as the user's, with what clusterd was started with.
    pub(super) fn own_plan<'a>(&'a self, args: &'a [Vec<u8>], fds: &'a [(&'a S::Fd, RawFd)]) -> Plan<'a, S::Fd> {
        Plan {
            program: Program::Fd(&self.binary),
            args,
            env: &self.env,
            listen_pid: false,
            cwd: None,
            terminal: Terminal::Ours,
            identity: None,
            attributes: Attributes { oom_score_adj: self.original_oom_score_adj, ..Attributes::default() },
            intercept: None,
            cgroup: None,
            fds,
        }
    }

    /// Kills a master that does not work. Its exit arrives as SIGCHLD, like any other.
    fn kill_master(&mut self, reason: String) {
        if let Some(master) = &mut self.master {
            master.killed_for.get_or_insert(reason);
            // It is not reaped, so the pid is still its own. An error would mean that it is gone.
            let _ = self.system.kill(master.pid, signal::KILL);
            self.watchdog.condemned();
        }
    }

    /// Whether this pid is the current master's.
    pub(super) fn is_master(&self, pid: i32) -> bool {
        self.master.as_ref().is_some_and(|master| master.pid == pid)
    }

    /// A master has ended: waits until its guard has sent what the master had in hand. The guard ends by itself at once.
    pub(super) fn await_guard(&self) {
        let is_guard = |pid: &i32| {
            !self.is_master(*pid) && self.table.worker_of(*pid).is_none() && self.system.is_called(*pid, guard::NAME)
        };
        if let Some(pid) = self.system.children().into_iter().find(is_guard) {
            self.system.await_end(pid, GUARD_END_MS);
        }
    }

    /// The master was reaped: handles its last orders, saves what it had not read, decides what follows.
    pub(super) fn master_ended(&mut self, status: i32, now_ms: u64) {
        let Some(master) = self.master.take() else { return };
        while let Some(heard) = self.next_order(&master.ours) {
            self.on_heard(heard, now_ms);
        }
        self.save_unread(&master.theirs);
        let report = master.report.map_or(Report::Executed, |report| self.system.report(&report));
        let how = match (master.killed_for, report) {
            (Some(reason), _) => reason,
            (None, Report::Failed(failure)) => format!("could not be started: {failure}"),
            (None, Report::Executed | Report::Pending) => process::describe_status(status),
        };
        for notice in master.delivery.into_news() {
            self.keep(notice);
        }
        let proved = self.watchdog.is_proved(now_ms);
        let after = self.watchdog.ended(now_ms);
        if self.over.is_some() {
            return;
        }
        let story = format!("the master (pid {}) {how}", master.pid);
        if self.change_binary(proved, &story, now_ms) {
            self.previous_end = how;
            return;
        }
        self.previous_end = how;
        match after {
            AfterEnd::GiveUp => {
                self.system.say(&format!("clusterd: {story} before it was ready; giving up"));
                self.over = Some(1);
            }
            AfterEnd::StartAfter(ms) => {
                let kept = self.table.unreaped_count();
                if ms > 0 || self.gap.is_some() {
                    let again = if ms > 0 { format!("in {ms} ms") } else { "at once".to_owned() };
                    self.system
                        .say(&format!("clusterd: {story}; starting it again {again}, {} kept", workers_text(kept)));
                }
                self.service_manager.tell(&self.system, News::WithoutMaster(&self.previous_end));
                let since_ms = self.gap.take().map_or(now_ms, |gap| gap.since_ms);
                self.gap = Some(Gap { story, since_ms });
            }
        }
    }

    /// If the end of a master belongs to an upgrade, starts another binary at once.
    fn change_binary(&mut self, proved: bool, story: &str, now_ms: u64) -> bool {
        if let Some(next) = self.next_binary.take() {
            self.previous_binary = Some(std::mem::replace(&mut self.binary, next));
            self.begin_reexec();
        } else if let Some(previous) = self.previous_binary.take().filter(|_| !proved) {
            self.system.say(&format!("clusterd: {story} right after the upgrade; going back to the previous binary"));
            self.binary = previous;
            self.cancel_reexec();
        } else {
            return false;
        }
        self.watchdog.start_now(now_ms);
        self.gap = None;
        true
    }

    /// Reads what the dead master had not read, and keeps what no table holds.
    fn save_unread(&mut self, theirs: &S::Fd) {
        let mut fds = VecDeque::new();
        loop {
            match self.system.receive(theirs, &mut self.buffer, &mut fds) {
                Ok(Packet::Whole(length)) => {
                    if let Ok(notice) = codec::decode_notice(&self.buffer[..length]) {
                        self.keep(notice);
                    }
                }
                Ok(Packet::WithoutFds(_) | Packet::Damaged(_)) => {}
                Ok(Packet::End) | Err(_) => return,
            }
        }
    }

    fn keep(&mut self, notice: Notice) {
        self.table.keep_for_next_master(notice, |number| number == signal::TERM || number == signal::INT);
    }

    /// Sends a notice to the master, or keeps it for the next one.
    pub(super) fn notify_master(&mut self, notice: Notice) {
        let Some(master) = &mut self.master else { return self.keep(notice) };
        if master.delivery.push(notice.clone()).is_err() {
            self.keep(notice);
            self.kill_master("read none of its messages and was killed".to_owned());
        }
    }

    // ---- orders ----

    /// Handles orders, up to the limit per turn. Returns true when none is left.
    fn read_orders(&mut self, now_ms: u64) -> bool {
        for _ in 0..KEEPER_ORDERS_PER_TURN_MAX {
            // The socket is moved out for the call and put back, because an order may need the whole keeper.
            let Some(master) = self.master.take() else { return true };
            let next = self.next_order(&master.ours);
            self.master = Some(master);
            match next {
                Some(heard) => self.on_heard(heard, now_ms),
                None => return true,
            }
        }
        false
    }

    /// The next valid order; `None` when there is none.
    fn next_order(&mut self, socket: &S::Fd) -> Option<Heard<S::Fd>> {
        let mut fds = VecDeque::new();
        loop {
            let length = match self.system.receive(socket, &mut self.buffer, &mut fds) {
                Ok(Packet::Whole(length)) => length,
                Ok(Packet::WithoutFds(length)) => {
                    self.complain(&format!("ignored a packet from the master: {FDS_LOST}"));
                    match codec::decode_order(&self.buffer[..length]) {
                        Ok(Order::Spawn { worker }) => return Some(Heard::SpawnWithoutFds(worker)),
                        Ok(_) | Err(_) => continue,
                    }
                }
                Ok(Packet::Damaged(why)) => {
                    self.complain(&format!("ignored a packet from the master: {why}"));
                    continue;
                }
                // An end of file would mean that the master closed its socket and lives, which the watchdog handles.
                // Our copy of its end prevents it anyway.
                Ok(Packet::End) => return None,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) => {
                    self.complain(&format!("cannot read from the master: {error}"));
                    return None;
                }
            };
            match codec::decode_order(&self.buffer[..length]) {
                Ok(order) => return Some(Heard::Order(order, fds)),
                Err(RecordError::Unknown(kind)) => {
                    self.complain(&format!("ignored an order of the unknown kind {kind} (is the master newer?)"));
                }
                Err(error) => self.complain(&format!("ignored a damaged order from the master: {error}")),
            }
        }
    }

    fn on_heard(&mut self, heard: Heard<S::Fd>, now_ms: u64) {
        match heard {
            Heard::Order(order, fds) => self.obey(order, fds, now_ms),
            Heard::SpawnWithoutFds(worker) => {
                let step = SpawnStep::FileDescriptors;
                self.notify_master(Notice::SpawnFailed { worker, step, errno: EMFILE });
            }
        }
    }

    fn obey(&mut self, order: Order, mut fds: VecDeque<S::Fd>, now_ms: u64) {
        match order {
            Order::Hold { name } => match fds.pop_front() {
                None => self.complain(&format!("cannot hold \"{name}\": no file descriptor came with the order")),
                Some(fd) => match self.table.hold(name.clone(), fd) {
                    Err(refusal) => self.complain(&format!("cannot hold \"{name}\": {refusal}")),
                    Ok(previous) => {
                        // A new master has its listeners held again, which changes nothing.
                        let replaces = previous.is_some_and(|previous| {
                            let fd = self.table.held_as(&name).filter(|_| self.service_manager.stores(&name));
                            fd.is_some_and(|fd| !self.system.is_same_file(&previous, fd))
                        });
                        self.service_manager.store(&self.system, &name, replaces);
                    }
                },
            },
            Order::Release { name } => {
                if let Some(fd) = self.table.release(&name) {
                    self.system.close(fd);
                    self.service_manager.remove(&self.system, &self.table, &name);
                }
            }
            Order::Note { key, value } => {
                if let Err(refusal) = self.table.note(key.clone(), value) {
                    self.complain(&format!("cannot save the record \"{key}\": {refusal}"));
                }
            }
            Order::Forget { key } => self.table.forget(&key),
            Order::Spawn { worker } => self.spawn(worker, fds, now_ms),
            Order::Signal { worker, signal, group } => self.signal(worker, signal, group),
            Order::Look { worker, call, tid, address, bytes } => self.look(worker, call, tid, address, bytes),
            Order::CopyUntouched { worker, name } => self.copy_untouched(worker, &name),
            Order::ExitSeen { worker } => {
                // A repeated message, or one for a child that never ran: nothing is lost.
                let _ = self.table.exit_seen(worker);
            }
            Order::Heartbeat => {
                self.watchdog.heartbeat(now_ms);
                self.groups.look(&self.system, now_ms);
                self.end_strays();
                self.heartbeats = self.heartbeats.saturating_add(1);
                if self.heartbeats == START_HEARTBEATS {
                    self.system.forget_code();
                }
            }
            Order::Ready => {
                self.fill_reserve();
                self.service_manager.store_renamed(&self.system);
                if self.watchdog.ready(now_ms) {
                    self.log_gap(now_ms);
                }
            }
            Order::Group { base, app, limits } => self.groups.set(&self.system, &base, app, limits),
            Order::AppEnded { app } => self.app_ended(app),
            Order::Finish { code } => self.over = Some(code),
            Order::OwnLog => match fds.pop_front() {
                None => self.complain("cannot reopen its log: no file descriptor came with the order"),
                Some(fd) => self.system.take_stderr(fd),
            },
            Order::Serving => self.service_manager.tell(&self.system, News::Serving),
            Order::Upgrade => match fds.pop_front() {
                None => self.complain("cannot upgrade: no binary came with the order"),
                Some(binary) => {
                    self.cancel_reexec();
                    self.next_binary = Some(binary);
                }
            },
        }
    }

    /// A new master serves: logs once what happened.
    fn log_gap(&mut self, now_ms: u64) {
        if let Some(Gap { story, since_ms }) = self.gap.take() {
            let kept = workers_text(self.table.unreaped_count());
            let took_ms = now_ms.saturating_sub(since_ms);
            self.system.say(&format!("clusterd: {story}; started again in {took_ms} ms, {kept} kept"));
        }
    }

    /// Logs a problem with the master's orders, up to a limit per master.
    pub(super) fn complain(&mut self, text: &str) {
        self.complaints = self.complaints.saturating_add(1);
        if self.complaints <= KEEPER_COMPLAINTS_MAX {
            self.system.say(&format!("clusterd: keeper: {text}"));
        }
    }
}

fn workers_text(count: usize) -> String {
    if count == 1 { "1 worker".to_owned() } else { format!("{count} workers") }
}

/// The arguments of each master.
pub(super) fn with_master_name(args: Vec<OsString>) -> Vec<Vec<u8>> {
    let name = MASTER_ARGV0.as_bytes().to_vec();
    std::iter::once(name).chain(args.into_iter().map(OsStringExt::into_vec)).collect()
}

/// The keeper's environment, without the variables meant for it alone.
pub(super) fn environment(system: &impl System) -> Vec<Vec<u8>> {
    environment_without(system, &[PASSED_VARIABLES, OWN_VARIABLES].concat())
}

/// The environment of the keeper's next binary: the service manager expects of it what it expects of this one.
pub(super) fn keeper_environment(system: &impl System) -> Vec<Vec<u8>> {
    environment_without(system, &PASSED_VARIABLES)
}

fn environment_without(system: &impl System, left_out: &[&str]) -> Vec<Vec<u8>> {
    let variables = system.environment().into_iter();
    variables
        .filter(|(name, _)| !left_out.iter().any(|left_out| name == left_out))
        .map(|(name, value)| [name.into_vec(), value.into_vec()].join(&b'='))
        .collect()
}
