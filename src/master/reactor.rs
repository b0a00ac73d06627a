//! The reactor: which fds the master waits for, and how. Three epolls, so that answers can be read in batches:
//!
//! ```text
//! all ─┬─ urgent     keeper, listeners, control API, notify socket, answers to probes
//!      │   └ queues   the listening sockets of slots (balance "kernel"), while nothing happens there
//!      └─ channels   the workers' channels
//! ```
//!
//! While no hand-off is open the loop sleeps on `all`. While some are, it sleeps on `urgent` alone, at most
//! `ANSWER_BATCH_WAIT_MS`, and then checks the channels: answers are read at the next accept instead of with one
//! wake-up each, which is half of the cost of a connection.
//!
//! When every worker is behind, a new connection would wait in a worker's queue: the loop then naps for a moment and
//! takes several at once. That is half of the remaining cost.
//!
//! Workers with listening sockets of their own take connections without the master. The first connection after an idle
//! time is reported once; from then on `queues` is checked periodically (`take_queues`), until it is idle again.
use super::keeper::Keeper;
use super::system::{Epoll, Interest, Readiness, System};
use crate::ids::{AppIx, ListenerIx, WorkerIx};
use crate::limits;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// Longest wait before answers are read while hand-offs are open, in milliseconds.
const ANSWER_BATCH_WAIT_MS: u64 = 1;

/// Waits of `ANSWER_BATCH_WAIT_MS` in a row without an event, after which the loop sleeps until something happens.
const QUIET_WAITS_MAX: u32 = 3;

const KEEPER: usize = 0;
const WAKER: usize = 1;
const NOTIFY: usize = 2;
const QUEUES: usize = 3;
/// First token of a listener; the token encodes app and listener.
const LISTENER_FIRST: usize = 16;
/// First token of a worker: its HTTP probe has the even ones, its intercepted calls the odd ones.
const WORKER_FIRST: usize = LISTENER_FIRST + limits::APPS_MAX * limits::LISTENER_KEYS_PER_APP_MAX;
const GROUP: usize = limits::GROUP_SOCKETS_MAX as usize;

/// An fd that is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ready {
    Keeper,
    /// Another thread woke the loop: a call of the control API, a result.
    Woken,
    Notify,
    /// A connection arrived at a slot's socket.
    Queues,
    Listener {
        app: AppIx,
        listener: ListenerIx,
    },
    /// Intercepted system calls of this worker wait.
    Intercepted {
        worker: WorkerIx,
    },
    /// An answer to the HTTP probe of this worker.
    Answer {
        worker: WorkerIx,
    },
    /// `ended`: the peer has closed; its last bytes are still to be read.
    Channel {
        worker: WorkerIx,
        writable: bool,
        ended: bool,
    },
}

/// The listening socket of a slot: app, listener, number in its group.
pub(super) type QueueIx = (AppIx, ListenerIx, u32);

/// The epolls.
pub(super) struct Reactor<S: System> {
    all: S::Epoll,
    urgent: S::Epoll,
    channels: S::Epoll,
    queues: S::Epoll,
    /// Events on `queues` wake the loop.
    queues_wake: bool,
    keeper_writes: bool,
    /// Waits in a row without an event: a stuck worker must not keep the loop turning.
    quiet_waits: u32,
}

impl<S: System> Reactor<S> {
    pub(super) fn new(system: &S, link: &Keeper<S>) -> io::Result<Reactor<S>> {
        let (all, urgent, channels, queues) = (system.epoll()?, system.epoll()?, system.epoll()?, system.epoll()?);
        for (n, inner) in [&urgent, &channels].into_iter().enumerate() {
            all.add_set(inner, n)?;
        }
        urgent.add(link.as_fd(), KEEPER, Interest::Read)?;
        let (queues_wake, keeper_writes, quiet_waits) = (false, false, 0);
        Ok(Reactor { all, urgent, channels, queues, queues_wake, keeper_writes, quiet_waits })
    }

    /// Wakes the loop from another thread. There can be only one; threads share it (`Context::wake`).
    pub(super) fn waker(&self) -> io::Result<Arc<dyn Fn() + Send + Sync>> {
        self.urgent.waker(WAKER)
    }

    pub(super) fn add_notify(&self, socket: &OwnedFd) -> io::Result<()> {
        self.urgent.add(socket.as_fd(), NOTIFY, Interest::Read)
    }

    /// Sleeps for at most `timeout_ms`, then returns what is ready.
    pub(super) fn wait(&mut self, timeout_ms: u64, open_handoffs: bool, ready: &mut Vec<Ready>) -> io::Result<()> {
        if open_handoffs && self.quiet_waits < QUIET_WAITS_MAX {
            let timeout_ms = timeout_ms.min(ANSWER_BATCH_WAIT_MS);
            self.urgent.wait(timeout_ms, |event| ready.push(urgent_event(event)))?;
        } else {
            self.all.wait(timeout_ms, |_| {})?;
            self.urgent.wait(0, |event| ready.push(urgent_event(event)))?;
        }
        self.channels.wait(0, |event| ready.push(channel_event(event)))?;
        self.quiet_waits = if ready.is_empty() { self.quiet_waits.saturating_add(1) } else { 0 };
        Ok(())
    }

    /// Watches the keeper's socket for writing while orders are queued.
    pub(super) fn keeper_interest(&mut self, link: &Keeper<S>) -> io::Result<()> {
        let wanted = link.wants_write();
        if wanted != self.keeper_writes {
            let interest = if wanted { Interest::ReadAndWrite } else { Interest::Read };
            self.urgent.change(link.as_fd(), KEEPER, interest)?;
            self.keeper_writes = wanted;
        }
        Ok(())
    }

    /// Returns whether it worked; a failure is logged.
    pub(super) fn add_listener(&self, app: AppIx, listener: ListenerIx, fd: &OwnedFd) -> bool {
        added(&self.urgent, fd.as_fd(), LISTENER_FIRST + place(app, listener))
    }

    pub(super) fn remove_listener(&self, fd: &OwnedFd) {
        // The fd may be out of the epoll already.
        let _ = self.urgent.remove(fd.as_fd());
    }

    /// Returns whether it worked; a failure is logged. Closing the fd removes it.
    pub(super) fn add_probe(&self, worker: WorkerIx, fd: &OwnedFd) -> bool {
        added(&self.urgent, fd.as_fd(), WORKER_FIRST + 2 * worker.0)
    }

    /// Returns whether it worked; a failure is logged. Closing the fd removes it.
    pub(super) fn add_calls(&self, worker: WorkerIx, listener: &OwnedFd) -> bool {
        added(&self.urgent, listener.as_fd(), WORKER_FIRST + 2 * worker.0 + 1)
    }

    /// Returns whether it worked; a failure is logged.
    pub(super) fn add_queue(&self, (app, listener, socket): QueueIx, fd: BorrowedFd<'_>) -> bool {
        added(&self.queues, fd, place(app, listener) * GROUP + socket as usize)
    }

    pub(super) fn remove_queue(&self, fd: BorrowedFd<'_>) {
        // The fd may be out of the epoll already.
        let _ = self.queues.remove(fd);
    }

    /// Sets whether a connection at a slot's socket wakes the loop.
    pub(super) fn wake_for_queues(&mut self, wanted: bool) {
        if self.queues_wake == wanted {
            return;
        }
        let done = match wanted {
            true => self.urgent.add_set(&self.queues, QUEUES),
            false => self.urgent.remove_set(&self.queues),
        };
        match done {
            Ok(()) => self.queues_wake = wanted,
            // The next call tries again.
            Err(e) => log::error!("cannot poll the accept queues: {e}"),
        }
    }

    /// Collects the sockets of slots to which connections came since the last call and still wait.
    pub(super) fn take_queues(&mut self, news: &mut Vec<QueueIx>) -> io::Result<()> {
        self.queues.wait(0, |event| {
            let (app, listener) = at_place(event.token / GROUP);
            news.push((app, listener, (event.token % GROUP) as u32));
        })
    }

    /// Returns whether it worked; a failure is logged.
    pub(super) fn add_channel(&self, worker: WorkerIx, fd: BorrowedFd<'_>) -> bool {
        added(&self.channels, fd, worker.0)
    }

    pub(super) fn remove_channel(&self, fd: BorrowedFd<'_>) {
        // The fd may be out of the epoll already.
        let _ = self.channels.remove(fd);
    }

    pub(super) fn channel_wants_write(&self, worker: WorkerIx, fd: BorrowedFd<'_>) {
        self.channel_interest(worker, fd, Interest::ReadAndWrite);
    }

    pub(super) fn channel_writable_done(&self, worker: WorkerIx, fd: BorrowedFd<'_>) {
        // Only while lines wait: otherwise every read by the worker would wake the loop.
        self.channel_interest(worker, fd, Interest::Read);
    }

    fn channel_interest(&self, worker: WorkerIx, fd: BorrowedFd<'_>, interest: Interest) {
        if let Err(e) = self.channels.change(fd, worker.0, interest) {
            log::debug!("cannot change the poll of a channel: {e}");
        }
    }
}

/// The number of a listener over all apps.
fn place(app: AppIx, listener: ListenerIx) -> usize {
    app.0 * limits::LISTENER_KEYS_PER_APP_MAX + listener.0
}

fn at_place(place: usize) -> (AppIx, ListenerIx) {
    let per_app = limits::LISTENER_KEYS_PER_APP_MAX;
    (AppIx(place / per_app), ListenerIx(place % per_app))
}

fn added(epoll: &impl Epoll, fd: BorrowedFd<'_>, token: usize) -> bool {
    match epoll.add(fd, token, Interest::Read) {
        Ok(()) => true,
        Err(e) => {
            log::error!("cannot poll fd {}: {e}", fd.as_raw_fd());
            false
        }
    }
}

fn urgent_event(event: Readiness) -> Ready {
    match event.token {
        KEEPER => Ready::Keeper,
        WAKER => Ready::Woken,
        NOTIFY => Ready::Notify,
        QUEUES => Ready::Queues,
        n if n >= WORKER_FIRST => {
            let worker = WorkerIx((n - WORKER_FIRST) / 2);
            if (n - WORKER_FIRST).is_multiple_of(2) { Ready::Answer { worker } } else { Ready::Intercepted { worker } }
        }
        n => {
            let (app, listener) = at_place(n - LISTENER_FIRST);
            Ready::Listener { app, listener }
        }
    }
}

fn channel_event(event: Readiness) -> Ready {
    Ready::Channel { worker: WorkerIx(event.token), writable: event.writable, ended: event.ended }
}
