//! Simulated programs that bind their ports by themselves (`protocol = "bind"`), and the filter that tells of it. A pipe stands for the
//! filter's listener: the number of each call goes through it, and what is called, and answered, is in the world.
use crate::listen_fds::ListenFds;
use crate::manner::Manner;
use crate::program::{Program, Wants, exited};
use crate::world::{SIGTERM, State};
use clusterd::os::seccomp::{Answer, Call, What};
use clusterd::os::tracee::{Caller, FdFlags, Seen, SocketKind};
use clusterd::os::{fdpass, pipe, process};
use socket2::{Domain, Socket, Type};
use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Arc, OnceLock};

/// The number of the first socket that such a program opens.
const SOCKET_FIRST: RawFd = 50;
/// Where in its memory the address is.
const ADDRESS_AT: u64 = 0x1000;
const BACKLOG: i32 = 128;
const EINVAL: i32 = 22;
const INET: u16 = 2;

/// A call that waits for its answer.
pub(crate) struct Waiting {
    pid: i32,
    what: What,
    address: SocketAddr,
    answer: Arc<OnceLock<Answer>>,
}

/// The calls of a world.
#[derive(Default)]
pub(crate) struct Calls {
    so_far: u64,
    waiting: BTreeMap<u64, Waiting>,
}

impl Calls {
    /// Calls of a process that has ended.
    pub(crate) fn forget(&mut self, pid: i32) {
        self.waiting.retain(|_, call| call.pid != pid);
    }

    /// The next call of a filter that nobody has taken.
    pub(crate) fn next(&self, filter: BorrowedFd<'_>) -> io::Result<Option<Call>> {
        let mut number = [0; 8];
        match process::read_now(filter, &mut number)? {
            Some(length) if length == number.len() => {
                let id = u64::from_le_bytes(number);
                let found = self.waiting.get(&id).ok_or(io::ErrorKind::NotFound)?;
                Ok(Some(Call { id, tid: found.pid, what: found.what }))
            }
            Some(_) | None => Ok(None),
        }
    }

    pub(crate) fn is_waiting(&self, id: u64) -> bool {
        self.waiting.contains_key(&id)
    }

    pub(crate) fn answer(&mut self, id: u64, answer: Answer) -> io::Result<()> {
        let call = self.waiting.remove(&id).ok_or(io::ErrorKind::NotFound)?;
        // Each is answered once.
        let _ = call.answer.set(answer);
        Ok(())
    }

    /// The process that makes this call.
    pub(crate) fn caller(&self, id: u64) -> io::Result<i32> {
        self.waiting.get(&id).map(|call| call.pid).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// What a process has in its memory where it calls bind(2).
    pub(crate) fn memory(&self, pid: i32) -> io::Result<Vec<u8>> {
        let call = self.waiting.values().find(|call| call.pid == pid).ok_or(io::ErrorKind::NotFound)?;
        let SocketAddr::V4(address) = call.address else { return Err(io::ErrorKind::Unsupported.into()) };
        let family = INET.to_ne_bytes();
        Ok([&family[..], &address.port().to_be_bytes(), &address.ip().octets(), &[0; 8]].concat())
    }
}

/// The kernel gives a new process its filter, and sends its listener over this socket, or refuses. Returns the process's side.
pub(crate) fn install(state: &mut State, socket: &OwnedFd) -> Option<OwnedFd> {
    if state.random.percent(10) {
        state.count("filters refused");
        let _ = fdpass::send_with_fd(socket.as_fd(), &EINVAL.to_le_bytes(), None);
        return None;
    }
    let (listener, calls) = pipe::pair().ok()?;
    fdpass::send_with_fd(socket.as_fd(), &0_i32.to_le_bytes(), Some(listener.as_fd())).ok()?;
    Some(calls)
}

/// What a look at the caller shows.
pub(crate) fn look(state: &mut State, caller: Caller) -> Seen {
    let denied = state.random.percent(20);
    let socket = state.processes.get(&caller.tid).and_then(|process| process.files.get(&caller.fd));
    let socket = socket.and_then(|socket| socket.try_clone().ok());
    let address = match denied {
        true => Err(io::ErrorKind::PermissionDenied.into()),
        false => state.intercepted.memory(caller.tid),
    };
    let flags = FdFlags { nonblocking: true, close_on_exec: true };
    Seen { process: caller.tid, kind: SocketKind::Tcp, flags, address, socket: socket.filter(|_| !denied) }
}

enum Phase {
    Starting { at_us: u64 },
    Called(Arc<OnceLock<Answer>>, What),
    Serving(Box<ListenFds>),
}

/// A program that binds its addresses, one after the other.
pub(crate) struct Binder {
    manner: Manner,
    phase: Phase,
    notify: Option<OsString>,
    addresses: VecDeque<SocketAddr>,
    /// Sockets that it has bound.
    bound: RawFd,
    listeners: Vec<OwnedFd>,
}

impl Binder {
    pub(crate) fn new(
        manner: Manner,
        addresses: impl IntoIterator<Item = SocketAddr>,
        notify: Option<OsString>,
        now_us: u64,
    ) -> Binder {
        let phase = Phase::Starting { at_us: now_us + manner.start_us };
        Binder { manner, phase, notify, addresses: addresses.into_iter().collect(), bound: 0, listeners: Vec::new() }
    }

    fn number(&self) -> RawFd {
        SOCKET_FIRST + self.bound
    }

    /// Makes a call, which the filter intercepts.
    fn call(&mut self, state: &mut State, pid: i32, what: What) -> Option<i32> {
        let Some(address) = self.addresses.front().copied() else { return Some(exited(1)) };
        let answer = Arc::new(OnceLock::new());
        state.intercepted.so_far += 1;
        let id = state.intercepted.so_far;
        state.intercepted.waiting.insert(id, Waiting { pid, what, address, answer: Arc::clone(&answer) });
        self.phase = Phase::Called(answer, what);
        state.count("calls intercepted");
        let calls = state.processes.get(&pid).and_then(|process| process.filter.as_ref()).map(OwnedFd::try_clone);
        let told = calls.map(|calls| std::fs::File::from(calls?).write_all(&id.to_le_bytes()));
        // Without a reader the call fails with ENOSYS.
        told.is_none_or(|told| told.is_err()).then(|| exited(12))
    }

    /// Begins with the next address, or serves.
    fn next(&mut self, state: &mut State, pid: i32) -> Option<i32> {
        if self.addresses.is_empty() {
            let manner = Manner { start_us: 0, ..self.manner.clone() };
            let listeners = std::mem::take(&mut self.listeners);
            let program = ListenFds::new(manner, listeners, self.notify.take(), state.now_us);
            self.phase = Phase::Serving(Box::new(program));
            return None;
        }
        let Ok(socket) = Socket::new(Domain::IPV4, Type::STREAM, None) else { return Some(exited(13)) };
        let number = self.number();
        state.processes.get_mut(&pid)?.files.insert(number, socket.into());
        self.call(state, pid, What::Bind { fd: number, address: ADDRESS_AT, length: 16 })
    }

    /// A call has its answer.
    fn answered(&mut self, state: &mut State, pid: i32, what: What, answer: Answer) -> Option<i32> {
        let number = self.number();
        let file = state.processes.get(&pid)?.files.get(&number)?.try_clone().ok()?;
        let address = self.addresses.front().copied()?;
        let socket = Socket::from(file);
        let carried_out = match (answer, what) {
            (Answer::Done, _) => true,
            (Answer::Fail(_), _) => false,
            (Answer::Continue, What::Bind { .. }) => socket.bind(&address.into()).is_ok(),
            (Answer::Continue, _) => socket.listen(BACKLOG).is_ok(),
        };
        if answer == Answer::Continue {
            state.count("calls carried out by the kernel");
        }
        match what {
            _ if !carried_out => Some(exited(14)),
            What::Bind { .. } => self.call(state, pid, What::Listen { fd: number, backlog: BACKLOG }),
            _ => {
                self.listeners.push(socket.into());
                self.addresses.pop_front();
                self.bound += 1;
                self.next(state, pid)
            }
        }
    }
}

impl Program for Binder {
    fn wants(&self, now_us: u64) -> Wants {
        match &self.phase {
            Phase::Starting { at_us } => Wants { at_us: Some(*at_us), ..Wants::default() },
            Phase::Called(answer, _) => Wants { at_us: answer.get().map(|_| 0), ..Wants::default() },
            Phase::Serving(program) => program.wants(now_us),
        }
    }

    fn step(&mut self, state: &mut State, pid: i32) -> Option<i32> {
        match &mut self.phase {
            Phase::Serving(program) => return program.step(state, pid),
            Phase::Starting { .. } | Phase::Called(..) => {}
        }
        while let Some(caught) = state.processes.get_mut(&pid)?.caught.pop_front() {
            if caught.signal == SIGTERM {
                return Some(SIGTERM);
            }
        }
        match &self.phase {
            Phase::Starting { at_us } if *at_us <= state.now_us => {
                if let Some(code) = self.manner.fails {
                    return Some(exited(code));
                }
                if self.manner.never_listens {
                    self.phase = Phase::Starting { at_us: u64::MAX };
                    return None;
                }
                self.next(state, pid)
            }
            Phase::Called(answer, what) => {
                let (answer, what) = (answer.get().copied()?, *what);
                self.answered(state, pid, what, answer)
            }
            Phase::Starting { .. } | Phase::Serving(_) => None,
        }
    }

    fn holds(&self) -> Vec<String> {
        match &self.phase {
            Phase::Serving(program) => program.holds(),
            Phase::Starting { .. } | Phase::Called(..) => Vec::new(),
        }
    }

    fn serves(&self) -> bool {
        matches!(&self.phase, Phase::Serving(program) if program.serves())
    }
}
