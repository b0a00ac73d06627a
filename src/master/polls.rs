//! The reactor: which fds the master waits for, and how. Three epolls, so that answers can be read in batches:
//!
//! ```text
//! all ─┬─ urgent     keeper, listeners, control API, notify socket, answers about readiness
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
use crate::ids::{AppIx, ListenerIx, WorkerIx};
use crate::limits;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token, Waker};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// Waits of `ANSWER_BATCH_WAIT_MS` in a row without an event, after which the loop sleeps until something happens.
const QUIET_WAITS_MAX: u32 = 3;

/// Events taken from one epoll at a time.
const POLL_EVENTS_MAX: usize = 256;

const KEEPER: Token = Token(0);
const CALLS: Token = Token(1);
const NOTIFY: Token = Token(2);
const QUEUES: Token = Token(3);
/// First token of a listener; the token encodes app and listener.
const LISTENER_FIRST: usize = 16;
/// First token of a worker: its readiness probe has the even ones, its intercepted calls the odd ones.
const WORKER_FIRST: usize = LISTENER_FIRST + limits::APPS_MAX * limits::LISTENER_KEYS_PER_APP_MAX;
const GROUP: usize = limits::GROUP_SOCKETS_MAX as usize;

/// An fd that is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ready {
    Keeper,
    Calls,
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
    /// An answer to the readiness probe of this worker.
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
pub(super) struct Polls {
    all: Poll,
    urgent: Poll,
    channels: Poll,
    queues: Poll,
    /// Events on `queues` wake the loop.
    queues_wake: bool,
    events: Events,
    keeper_writes: bool,
    /// Waits in a row without an event: a stuck worker must not keep the loop turning.
    quiet_waits: u32,
}

impl Polls {
    pub(super) fn new(link: &Keeper) -> io::Result<Polls> {
        let (all, urgent, channels, queues) = (Poll::new()?, Poll::new()?, Poll::new()?, Poll::new()?);
        for (n, inner) in [&urgent, &channels].into_iter().enumerate() {
            all.registry().register(&mut SourceFd(&inner.as_raw_fd()), Token(n), Interest::READABLE)?;
        }
        urgent.registry().register(&mut SourceFd(&link.as_raw_fd()), KEEPER, Interest::READABLE)?;
        let events = Events::with_capacity(POLL_EVENTS_MAX);
        let (queues_wake, keeper_writes, quiet_waits) = (false, false, 0);
        Ok(Polls { all, urgent, channels, queues, queues_wake, events, keeper_writes, quiet_waits })
    }

    /// Wakes the loop from another thread. There can be only one; threads share it (`Context::wake`).
    pub(super) fn waker(&self) -> io::Result<Waker> {
        Waker::new(self.urgent.registry(), CALLS)
    }

    pub(super) fn add_notify(&self, socket: &OwnedFd) -> io::Result<()> {
        self.urgent.registry().register(&mut SourceFd(&socket.as_raw_fd()), NOTIFY, Interest::READABLE)
    }

    /// Sleeps for at most `timeout_ms`, then returns what is ready. `nap_us`: sleeps that long first, even if fds are
    /// ready, so that more are.
    pub(super) fn wait(
        &mut self,
        timeout_ms: u64,
        nap_us: u64,
        open_handoffs: bool,
        ready: &mut Vec<Ready>,
    ) -> io::Result<()> {
        if nap_us > 0 {
            std::thread::sleep(Duration::from_micros(nap_us));
        }
        if open_handoffs && self.quiet_waits < QUIET_WAITS_MAX {
            let timeout_ms = timeout_ms.min(limits::ANSWER_BATCH_WAIT_MS);
            collect(&mut self.urgent, &mut self.events, timeout_ms, ready, urgent_event)?;
        } else {
            sleep(&mut self.all, &mut self.events, timeout_ms)?;
            collect(&mut self.urgent, &mut self.events, 0, ready, urgent_event)?;
        }
        collect(&mut self.channels, &mut self.events, 0, ready, channel_event)?;
        self.quiet_waits = if ready.is_empty() { self.quiet_waits.saturating_add(1) } else { 0 };
        Ok(())
    }

    /// Watches the keeper's socket for writing while orders are queued.
    pub(super) fn keeper_interest(&mut self, link: &Keeper) -> io::Result<()> {
        let wanted = link.wants_write();
        if wanted != self.keeper_writes {
            let interest = if wanted { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
            self.urgent.registry().reregister(&mut SourceFd(&link.as_raw_fd()), KEEPER, interest)?;
            self.keeper_writes = wanted;
        }
        Ok(())
    }

    /// Returns whether it worked; a failure is logged.
    pub(super) fn add_listener(&self, app: AppIx, listener: ListenerIx, fd: &OwnedFd) -> bool {
        let token = Token(LISTENER_FIRST + place(app, listener));
        added(self.urgent.registry(), fd.as_raw_fd(), token)
    }

    pub(super) fn remove_listener(&self, fd: &OwnedFd) {
        // The fd may be out of the epoll already.
        let _ = self.urgent.registry().deregister(&mut SourceFd(&fd.as_raw_fd()));
    }

    /// Returns whether it worked; a failure is logged. Closing the fd removes it.
    pub(super) fn add_probe(&self, worker: WorkerIx, fd: &OwnedFd) -> bool {
        added(self.urgent.registry(), fd.as_raw_fd(), Token(WORKER_FIRST + 2 * worker.0))
    }

    /// Returns whether it worked; a failure is logged. Closing the fd removes it.
    pub(super) fn add_calls(&self, worker: WorkerIx, listener: &OwnedFd) -> bool {
        added(self.urgent.registry(), listener.as_raw_fd(), Token(WORKER_FIRST + 2 * worker.0 + 1))
    }

    /// Returns whether it worked; a failure is logged.
    pub(super) fn add_queue(&self, (app, listener, socket): QueueIx, fd: BorrowedFd<'_>) -> bool {
        let token = Token(place(app, listener) * GROUP + socket as usize);
        added(self.queues.registry(), fd.as_raw_fd(), token)
    }

    pub(super) fn remove_queue(&self, fd: BorrowedFd<'_>) {
        // The fd may be out of the epoll already.
        let _ = self.queues.registry().deregister(&mut SourceFd(&fd.as_raw_fd()));
    }

    /// Sets whether a connection at a slot's socket wakes the loop.
    pub(super) fn wake_for_queues(&mut self, wanted: bool) {
        if self.queues_wake == wanted {
            return;
        }
        self.queues_wake = wanted;
        let inner = self.queues.as_raw_fd();
        let mut source = SourceFd(&inner);
        let done = if wanted {
            self.urgent.registry().register(&mut source, QUEUES, Interest::READABLE)
        } else {
            self.urgent.registry().deregister(&mut source)
        };
        if let Err(e) = done {
            log::error!("cannot watch the queues of slots: {e}");
        }
    }

    /// Collects the sockets of slots to which connections came since the last call and still wait.
    pub(super) fn take_queues(&mut self, news: &mut Vec<QueueIx>) -> io::Result<()> {
        sleep(&mut self.queues, &mut self.events, 0)?;
        loop {
            let mut count = 0;
            for event in self.events.iter() {
                let (app, listener) = at_place(event.token().0 / GROUP);
                news.push((app, listener, (event.token().0 % GROUP) as u32));
                count += 1;
            }
            if count < POLL_EVENTS_MAX {
                return Ok(());
            }
            sleep(&mut self.queues, &mut self.events, 0)?;
        }
    }

    /// Returns whether it worked; a failure is logged.
    pub(super) fn add_channel(&self, worker: WorkerIx, fd: BorrowedFd<'_>) -> bool {
        added(self.channels.registry(), fd.as_raw_fd(), Token(worker.0))
    }

    pub(super) fn remove_channel(&self, fd: BorrowedFd<'_>) {
        // The fd may be out of the epoll already.
        let _ = self.channels.registry().deregister(&mut SourceFd(&fd.as_raw_fd()));
    }

    pub(super) fn channel_wants_write(&self, worker: WorkerIx, fd: BorrowedFd<'_>) {
        self.channel_interest(worker, fd, Interest::READABLE | Interest::WRITABLE);
    }

    pub(super) fn channel_writable_done(&self, worker: WorkerIx, fd: BorrowedFd<'_>) {
        // Only while lines wait: otherwise every read by the worker would wake the loop.
        self.channel_interest(worker, fd, Interest::READABLE);
    }

    fn channel_interest(&self, worker: WorkerIx, fd: BorrowedFd<'_>, interest: Interest) {
        let mut source = SourceFd(&fd.as_raw_fd());
        if let Err(e) = self.channels.registry().reregister(&mut source, Token(worker.0), interest) {
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

fn added(registry: &Registry, fd: i32, token: Token) -> bool {
    match registry.register(&mut SourceFd(&fd), token, Interest::READABLE) {
        Ok(()) => true,
        Err(e) => {
            log::error!("cannot poll fd {fd}: {e}");
            false
        }
    }
}

fn sleep(poll: &mut Poll, events: &mut Events, timeout_ms: u64) -> io::Result<()> {
    match poll.poll(events, Some(Duration::from_millis(timeout_ms))) {
        Err(e) if e.kind() != io::ErrorKind::Interrupted => Err(e),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Waits once, then collects everything that is ready: the outer epoll is edge-triggered, so nothing may be left
/// behind.
fn collect(
    poll: &mut Poll,
    events: &mut Events,
    timeout_ms: u64,
    ready: &mut Vec<Ready>,
    translate: fn(&mio::event::Event) -> Ready,
) -> io::Result<()> {
    sleep(poll, events, timeout_ms)?;
    loop {
        let mut count = 0;
        for event in events.iter() {
            ready.push(translate(event));
            count += 1;
        }
        if count < POLL_EVENTS_MAX {
            return Ok(());
        }
        sleep(poll, events, 0)?;
    }
}

fn urgent_event(event: &mio::event::Event) -> Ready {
    match event.token() {
        KEEPER => Ready::Keeper,
        CALLS => Ready::Calls,
        NOTIFY => Ready::Notify,
        QUEUES => Ready::Queues,
        Token(n) if n >= WORKER_FIRST => {
            let worker = WorkerIx((n - WORKER_FIRST) / 2);
            if (n - WORKER_FIRST) % 2 == 0 { Ready::Answer { worker } } else { Ready::Intercepted { worker } }
        }
        Token(n) => {
            let (app, listener) = at_place(n - LISTENER_FIRST);
            Ready::Listener { app, listener }
        }
    }
}

fn channel_event(event: &mio::event::Event) -> Ready {
    Ready::Channel { worker: WorkerIx(event.token().0), writable: event.is_writable(), ended: event.is_read_closed() }
}
