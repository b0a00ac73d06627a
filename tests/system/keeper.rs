//! The system under the keeper: files and packets are the real ones, processes, signals and time those of the world.
use crate::actor::{Me, Until};
use crate::bugs::Bug;
use crate::intercepted;
use crate::program;
use crate::world::{Exec, Newborn, Process};
use clusterd::keeper::KEEPER_CHECK_ARGV0;
use clusterd::keeper::system::{Interest, Linux, System};
use clusterd::os::connection;
use clusterd::os::packet::Packet;
use clusterd::os::process::{self, FileLimit};
use clusterd::os::signal::Caught;
use clusterd::os::spawn::{Failure, Plan, Program, Report, Started, Step};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

const ESRCH: i32 = 3;

#[derive(Debug)]
pub(crate) struct KeeperSystem {
    me: Me,
    linux: Linux,
    /// What stays open over an exec.
    kept: RefCell<BTreeSet<RawFd>>,
    /// What the binary before this one left, under its numbers.
    inherited: RefCell<BTreeMap<RawFd, OwnedFd>>,
}

impl KeeperSystem {
    pub(crate) fn new(me: Me) -> KeeperSystem {
        KeeperSystem { me, linux: Linux::default(), kept: RefCell::default(), inherited: RefCell::default() }
    }

    pub(crate) fn with_inherited(self, files: BTreeMap<RawFd, OwnedFd>) -> KeeperSystem {
        KeeperSystem { inherited: RefCell::new(files), ..self }
    }

    fn signalled(&self, name: &'static str, found: impl FnOnce(&mut crate::world::State) -> bool) -> io::Result<()> {
        self.me.call(name)?;
        if found(&mut self.me.world.state()) { Ok(()) } else { Err(io::Error::from_raw_os_error(ESRCH)) }
    }

    fn with_child<T>(&self, pid: i32, read: impl FnOnce(&Process) -> Option<T>) -> Option<T> {
        read(self.me.world.state().processes.get(&pid)?)
    }
}

impl System for KeeperSystem {
    type Fd = OwnedFd;

    fn now_ms(&self) -> u64 {
        self.me.world.now_us() / 1_000
    }

    fn say(&self, line: &str) {
        self.me.step("write");
        self.me.world.tell("keeper", line);
    }

    fn forget_code(&self) {}

    fn own_pid(&self) -> u32 {
        self.me.pid.unsigned_abs()
    }

    fn environment(&self) -> Vec<(OsString, OsString)> {
        vec![("PATH".into(), "/usr/bin:/bin".into())]
    }

    fn set_name(&self, _name: &str) {}

    fn own_binary(&self) -> io::Result<OwnedFd> {
        self.null_device()
    }

    fn null_device(&self) -> io::Result<OwnedFd> {
        self.me.call("open")?;
        self.linux.null_device()
    }

    fn raise_file_limit(&self) -> io::Result<FileLimit> {
        self.me.call("setrlimit")?;
        Ok(FileLimit { soft: 1_024, hard: 4_096 })
    }

    fn close_on_exec_from(&self, _first: RawFd) -> io::Result<()> {
        self.me.call("close_range")?;
        self.kept.borrow_mut().clear();
        Ok(())
    }

    fn keep_over_exec(&self, fd: &OwnedFd) -> io::Result<()> {
        self.me.call("fcntl")?;
        self.kept.borrow_mut().insert(fd.as_raw_fd());
        Ok(())
    }

    fn take_inherited(&self, number: RawFd) -> io::Result<OwnedFd> {
        self.me.call("fcntl")?;
        self.inherited.borrow_mut().remove(&number).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn close(&self, fd: OwnedFd) {
        self.me.step("close");
        if self.me.has_bug(Bug::keeps_file) {
            std::mem::forget(fd);
        }
    }

    fn is_open(&self, number: RawFd) -> bool {
        self.inherited.borrow().contains_key(&number)
    }

    fn number(&self, fd: &OwnedFd) -> RawFd {
        fd.as_raw_fd()
    }

    fn file_with(&self, name: &str, bytes: &[u8]) -> io::Result<OwnedFd> {
        self.me.call("memfd_create")?;
        self.linux.file_with(name, bytes)
    }

    fn contents(&self, fd: &OwnedFd, bytes_max: usize) -> io::Result<Vec<u8>> {
        self.me.call("pread")?;
        self.linux.contents(fd, bytes_max)
    }

    fn pipe(&self) -> io::Result<(OwnedFd, OwnedFd)> {
        self.me.call("pipe2")?;
        self.linux.pipe()
    }

    fn read_now(&self, fd: &OwnedFd, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        self.me.call("read")?;
        self.linux.read_now(fd, buffer)
    }

    fn pair(&self, buffer_bytes: usize) -> io::Result<(OwnedFd, OwnedFd)> {
        self.me.call("socketpair")?;
        self.linux.pair(buffer_bytes)
    }

    fn send(&self, socket: &OwnedFd, bytes: &[u8], fd: Option<&OwnedFd>) -> io::Result<()> {
        self.me.call(if fd.is_some() { "sendmsg with files" } else { "sendmsg" })?;
        self.linux.send(socket, bytes, fd)
    }

    fn receive(&self, socket: &OwnedFd, buffer: &mut [u8], fds: &mut VecDeque<OwnedFd>) -> io::Result<Packet> {
        self.me.call("recvmsg")?;
        self.linux.receive(socket, buffer, fds)
    }

    fn watch_signals(&mut self, _signals: &[i32]) -> io::Result<()> {
        self.me.call("signalfd")
    }

    fn reset_signal(&self, _signal: i32) -> io::Result<()> {
        self.me.call("sigaction")
    }

    fn next_signal(&mut self) -> io::Result<Option<Caught>> {
        self.me.call("read")?;
        Ok(self.me.world.state().processes.get_mut(&self.me.pid).and_then(|own| own.caught.pop_front()))
    }

    fn wait(&self, interests: &mut [Interest<'_, OwnedFd>], timeout_ms: Option<u64>) -> io::Result<()> {
        self.me.call("poll")?;
        let (mut read, mut write) = (Vec::new(), Vec::new());
        for interest in interests.iter() {
            read.push(interest.fd.as_raw_fd());
            if interest.write {
                write.push(interest.fd.as_raw_fd());
            }
        }
        let at_us = timeout_ms.map(|ms| self.me.world.now_us() + ms * 1_000);
        self.me.wait(Until::Ready { read, write, at_us });
        self.linux.wait(interests, Some(0))
    }

    fn kill(&self, pid: i32, signal: i32) -> io::Result<()> {
        self.me.world.state().check_is_ours(pid, signal);
        self.signalled("kill", |state| state.signal(pid, signal))
    }

    fn kill_group(&self, leader: i32, signal: i32) -> io::Result<()> {
        self.me.world.state().check_is_ours(leader, signal);
        self.signalled("kill", |state| state.signal_group(leader, signal))
    }

    fn start(&self, plan: &Plan<'_, OwnedFd>) -> Result<Started<OwnedFd>, Failure> {
        let failed = |error: io::Error| Failure { step: Step::Fork, errno: error.raw_os_error().unwrap_or(11) };
        self.me.call("fork").map_err(failed)?;
        let (report, report_write) = clusterd::os::pipe::pair().map_err(failed)?;
        let program = match plan.program {
            Program::Path(path) => path.to_vec(),
            Program::Fd(_) if plan.args.first().is_some_and(|arg| arg == KEEPER_CHECK_ARGV0.as_bytes()) => {
                program::CHECK.to_vec()
            }
            Program::Fd(_) => b"clusterd".to_vec(),
        };
        let binary = match plan.program {
            Program::Path(_) => None,
            Program::Fd(fd) => process::file_identity(fd.as_fd()).ok(),
        };
        let name = plan.args.first().map(|arg| String::from_utf8_lossy(arg).into_owned()).unwrap_or_default();
        let mut files = BTreeMap::new();
        for (fd, number) in plan.fds {
            files.insert(*number, fd.try_clone().map_err(failed)?);
        }
        let reaped = self.me.world.state().reaped.last().copied();
        if let Some(pid) = reaped.filter(|_| self.me.has_bug(Bug::signals_reused_pid)) {
            // It may have ended for good.
            let _ = self.kill_group(pid, crate::world::SIGKILL);
        }
        let mut state = self.me.world.state();
        let link = plan.intercept.as_ref().and_then(|wanted| files.remove(&wanted.socket));
        let filter = link.and_then(|link| intercepted::install(&mut state, &link));
        let pid = state.add_process(&name, self.me.pid);
        if let Some(process) = state.processes.get_mut(&pid) {
            process.files = files;
            process.env = plan.env.to_vec();
            process.binary = binary;
            process.filter = filter;
            if plan.listen_pid {
                process.env.push(format!("LISTEN_PID={pid}").into_bytes());
            }
        }
        state.tell("keeper", &format!("forks {name} as pid {pid}"));
        state.newborn.push(Newborn { pid, program, args: plan.args.to_vec(), report: report_write });
        Ok(Started { pid, report })
    }

    fn report(&self, report: &OwnedFd) -> Report {
        self.me.step("read");
        self.linux.report(report)
    }

    fn replace(&self, program: &OwnedFd, args: &[Vec<u8>], _env: &[Vec<u8>]) -> io::Error {
        if let Err(error) = self.me.call("execve") {
            return error;
        }
        let mut files = BTreeMap::new();
        for number in self.kept.borrow().iter() {
            // SAFETY: what is kept over an exec is open until then.
            match unsafe { BorrowedFd::borrow_raw(*number) }.try_clone_to_owned() {
                Ok(copy) => drop(files.insert(*number, copy)),
                Err(error) => return error,
            }
        }
        // What this one has not taken over from the one before it is open as it was.
        files.append(&mut self.inherited.borrow_mut());
        let mut state = self.me.world.state();
        state.tell("keeper", "executes another binary");
        state.count("keepers that executed another binary");
        if let Some(own) = state.processes.get_mut(&self.me.pid) {
            own.binary = process::file_identity(program.as_fd()).ok();
        }
        state.exec = Some(Exec { args: args.to_vec(), files });
        drop(state);
        self.me.execute()
    }

    fn children(&self) -> Vec<i32> {
        let state = self.me.world.state();
        state.processes.iter().filter(|(_, child)| child.parent == self.me.pid).map(|(pid, _)| *pid).collect()
    }

    fn is_called(&self, pid: i32, name: &str) -> bool {
        self.with_child(pid, |child| Some(child.name == name)).unwrap_or(false)
    }

    fn variable(&self, pid: i32, name: &str) -> Option<Vec<u8>> {
        let start = format!("{name}=");
        self.with_child(pid, |child| {
            child.env.iter().find_map(|entry| entry.strip_prefix(start.as_bytes()).map(<[u8]>::to_vec))
        })
    }

    fn read_memory(&self, tid: i32, _address: u64, _bytes: usize) -> io::Result<Vec<u8>> {
        self.me.call("process_vm_readv")?;
        self.me.world.state().intercepted.memory(tid)
    }

    fn copy_untouched(&self, pid: i32, most: usize) -> io::Result<Vec<OwnedFd>> {
        self.me.call("pidfd_getfd")?;
        let mut state = self.me.world.state();
        let living = state.processes.get(&pid).filter(|process| process.ended.is_none());
        let process = living.ok_or_else(|| io::Error::from_raw_os_error(ESRCH))?;
        let mut copies = Vec::new();
        for number in process.connections.values() {
            // SAFETY: the program lives in this process, and its connections are shown as long as they are open.
            let socket = unsafe { BorrowedFd::borrow_raw(*number) };
            if connection::look(socket).is_some_and(|seen| seen.is_alive && seen.is_untouched) && copies.len() < most {
                copies.push(socket.try_clone_to_owned()?);
            }
        }
        copies.iter().for_each(|_| state.count("connections copied from a worker that hangs"));
        Ok(copies)
    }

    fn ended_child(&self) -> io::Result<Option<i32>> {
        self.me.call("waitid")?;
        let state = self.me.world.state();
        Ok(state.processes.iter().find(|(_, p)| p.parent == self.me.pid && p.ended.is_some()).map(|(pid, _)| *pid))
    }

    fn reap(&self, pid: i32) -> io::Result<Option<i32>> {
        self.me.call("waitid")?;
        let mut state = self.me.world.state();
        let Some(status) = state.processes.get(&pid).and_then(|process| process.ended) else { return Ok(None) };
        state.processes.remove(&pid);
        state.reaped.insert(pid);
        Ok(Some(status))
    }
}
