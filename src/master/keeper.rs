//! Orders of the master to its keeper. A send that fails means that the keeper is gone or the link is broken; the loop
//! notices that in its next turn, so callers need no error.
use super::system::System;
use crate::ids::WorkerId;
use crate::keeper::link::{Inheritance, Link};
use crate::keeper::protocol::{Notice, Order, SpawnSpec};
use crate::limits;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The link, and whether it broke.
pub(super) struct Keeper<S: System> {
    link: Link<S::KeeperSocket>,
    broken: Option<io::Error>,
    /// When to send again what could not be sent (milliseconds).
    retry_at_ms: Option<u64>,
    heartbeats: u32,
}

impl<S: System> Keeper<S> {
    pub(super) fn new(system: &S) -> io::Result<Keeper<S>> {
        Ok(Keeper { link: Link::new(system.keeper_socket()?), broken: None, retry_at_ms: None, heartbeats: 0 })
    }

    pub(super) fn adopt(&mut self) -> io::Result<Inheritance> {
        self.link.adopt()
    }

    pub(super) fn send(&mut self, order: Order) {
        let sent = self.link.order(&order, &[]);
        self.check(sent);
    }

    /// Gives the keeper a copy of an fd to hold.
    pub(super) fn hold(&mut self, name: String, fd: BorrowedFd<'_>) {
        let sent = self.link.order(&Order::Hold { name }, &[fd]);
        self.check(sent);
    }

    /// Has the keeper start the next master from this binary.
    pub(super) fn upgrade(&mut self, binary: BorrowedFd<'_>) {
        let sent = self.link.order(&Order::Upgrade, &[binary]);
        self.check(sent);
    }

    /// Has the keeper write its log to this file.
    pub(super) fn own_log(&mut self, file: BorrowedFd<'_>) {
        let sent = self.link.order(&Order::OwnLog, &[file]);
        self.check(sent);
    }

    pub(super) fn spawn(&mut self, worker: WorkerId, spec: &SpawnSpec, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.link.spawn(worker, spec, fds)
    }

    /// Tells the keeper that the deployment is over; queued orders are still sent.
    pub(super) fn finish(&mut self, system: &S, code: u8) {
        // The keeper ends at once, and this process with it.
        system.finish_stderr();
        self.send(Order::Finish { code });
        let flushed = self.link.flush();
        self.check(flushed);
    }

    /// Tells the keeper's watchdog that the loop turns. Returns the number of heartbeats so far.
    pub(super) fn heartbeat(&mut self) -> u32 {
        self.send(Order::Heartbeat);
        self.heartbeats = self.heartbeats.saturating_add(1);
        self.heartbeats
    }

    /// Has the keeper send a signal to a process that it has not reaped yet.
    pub(super) fn signal(&mut self, worker: WorkerId, signal: i32) {
        self.send(Order::Signal { worker, signal, group: false });
    }

    /// Has the keeper send a signal to a worker and everything that it started in its process group.
    pub(super) fn signal_group(&mut self, worker: WorkerId, signal: i32) {
        self.send(Order::Signal { worker, signal, group: true });
    }

    /// Sends queued orders.
    ///
    /// # Errors
    /// The keeper is gone, now or since an earlier call.
    pub(super) fn flush(&mut self, now_ms: u64) -> io::Result<()> {
        if let Some(e) = self.broken.take() {
            return Err(e);
        }
        if self.link.lacks_resources() && self.retry_at_ms.is_some_and(|at| at > now_ms) {
            return Ok(());
        }
        self.link.flush()?;
        self.retry_at_ms = self.link.lacks_resources().then_some(now_ms + limits::KEEPER_SEND_PAUSE_MS);
        Ok(())
    }

    /// Whether orders are queued.
    pub(super) fn has_more(&self) -> bool {
        self.link.wants_write()
    }

    /// Whether the keeper has to read before more can be sent.
    pub(super) fn wants_write(&self) -> bool {
        self.link.wants_write() && !self.link.lacks_resources()
    }

    /// When to try again after the system was out of a resource.
    pub(super) fn retry_at_ms(&self) -> Option<u64> {
        self.retry_at_ms
    }

    pub(super) fn receive(&mut self) -> io::Result<Option<(Notice, VecDeque<OwnedFd>)>> {
        self.link.receive_with_fds()
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.link.as_fd()
    }

    fn check(&mut self, result: io::Result<()>) {
        if let Err(e) = result {
            self.broken.get_or_insert(e);
        }
    }
}
