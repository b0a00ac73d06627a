//! What an intercepted bind(2) asks for, from the caller's memory and `/proc`, on a thread of its own.
use crate::ids::WorkerId;
use crate::master::context::Context;
use crate::master::system::System;
use crate::os::tracee::{Caller, FdFlags, Seen, SocketKind};
use crate::worker::bind::Address;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

/// Stack of a thread that looks, in bytes.
const LOOK_STACK_BYTES: usize = 64 * 1024;

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

/// Looks at the caller of bind(2) on a thread; the result goes to `done`, and the loop is woken.
///
/// # Errors
/// No thread can be started.
pub(super) fn begin(
    cx: &Context<impl System>,
    worker: WorkerId,
    call: u64,
    caller: Caller,
    done: SyncSender<Looked>,
) -> io::Result<()> {
    let wake = Arc::clone(&cx.wake);
    cx.system.look_at_caller(caller, LOOK_STACK_BYTES, move |seen| {
        // The receiver is gone when the master ends.
        if done.send(Looked::new(worker, call, caller, seen)).is_ok() {
            wake();
        }
    })
}

impl Looked {
    fn new(worker: WorkerId, call: u64, caller: Caller, seen: Seen) -> Looked {
        let (address, error) = match seen.address {
            Ok(bytes) => (Address::parse(&bytes), None),
            Err(error) => (None, Some(error)),
        };
        Looked {
            worker,
            call,
            fd: caller.fd,
            tid: caller.tid,
            at: caller.address,
            length: caller.length,
            process: seen.process,
            kind: seen.kind,
            flags: seen.flags,
            socket: seen.socket.filter(|_| address.is_some()),
            address,
            error,
        }
    }

    /// Whether the keeper, as the parent of the process, may see more.
    pub(super) fn is_for_the_keeper(&self) -> bool {
        self.error.as_ref().is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    }
}
