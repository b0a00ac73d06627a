//! What an intercepted bind(2) asks for, from the caller's memory and `/proc`, on a thread of its own.
use crate::ids::WorkerId;
use crate::os::seccomp::Call;
use crate::os::tracee::{self, FdFlags, SocketKind};
use crate::worker::bind::Address;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

/// Stack of a thread that looks, in bytes.
const LOOK_STACK_BYTES: usize = 64 * 1024;

/// The arguments of a bind(2).
pub(super) struct Look {
    pub(super) call: Call,
    pub(super) fd: i32,
    pub(super) address: u64,
    pub(super) length: u32,
}

/// What was found.
pub(super) struct Looked {
    pub(super) worker: WorkerId,
    /// Identifies the call.
    pub(super) call: u64,
    pub(super) fd: i32,
    /// The thread that calls, and the place of the address in its memory.
    pub(super) tid: i32,
    pub(super) at: u64,
    pub(super) length: u32,
    /// The process that calls.
    pub(super) process: i32,
    /// `None`: none that concerns us, or unreadable.
    pub(super) address: Option<Address>,
    pub(super) kind: SocketKind,
    pub(super) flags: FdFlags,
    /// A copy of the program's own socket, where we may have one.
    pub(super) socket: Option<OwnedFd>,
    /// Why the address could not be read.
    pub(super) error: Option<io::Error>,
}

impl Look {
    /// Looks on a thread; the result goes to `done`, and `wake` is called.
    ///
    /// # Errors
    /// No thread can be started.
    pub(super) fn begin(
        self,
        worker: WorkerId,
        done: SyncSender<Looked>,
        wake: Arc<dyn Fn() + Send + Sync>,
    ) -> io::Result<()> {
        let thread = std::thread::Builder::new().name("look".to_owned()).stack_size(LOOK_STACK_BYTES);
        let started = thread.spawn(move || {
            // The receiver is gone when the master ends.
            if done.send(self.look(worker)).is_ok() {
                wake();
            }
        });
        started.map(|_| ())
    }

    fn look(self, worker: WorkerId) -> Looked {
        let (tid, fd) = (self.call.tid, self.fd);
        let flags = tracee::fd_flags(tid, fd).unwrap_or(FdFlags { nonblocking: false, close_on_exec: true });
        let kind = tracee::socket_kind(tid, fd).unwrap_or(SocketKind::Other);
        let mut looked = Looked {
            worker,
            call: self.call.id,
            fd,
            tid,
            at: self.address,
            length: self.length,
            process: tracee::process_of(tid).unwrap_or(tid),
            address: None,
            kind,
            flags,
            socket: None,
            error: None,
        };
        if kind == SocketKind::Other {
            return looked;
        }
        let length = usize::try_from(self.length).unwrap_or(usize::MAX);
        match tracee::read_memory(tid, self.address, length.min(tracee::ADDRESS_BYTES_MAX)) {
            Ok(bytes) => looked.address = Address::parse(&bytes),
            Err(e) => looked.error = Some(e),
        }
        if looked.address.is_some() {
            looked.socket = tracee::copy_fd(tid, fd).ok();
        }
        looked
    }
}

impl Looked {
    /// Whether the keeper, as the parent of the process, may see more.
    pub(super) fn is_for_the_keeper(&self) -> bool {
        self.error.as_ref().is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    }
}
