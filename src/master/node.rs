//! Node's side of the conversation: what a worker's lines ask for and what is answered. Bytes are `worker::node`'s,
//! sockets are `listener`'s; hand-offs are in `dispatch`.
use super::listener::{self, Listener};
use super::settings::Settings;
use super::{Master, checkpoint, dispatch, eligibility};
use crate::config::Balance;
use crate::ids::{AppIx, ListenerIx, WorkerId, WorkerIx};
use crate::limits;
use crate::os::listen::{self, LocalAddress};
use crate::os::{closer, errno};
use crate::supervisor::{Event, Evidence};
use crate::worker::node::channel::{Channel, Read, Unsendable};
use crate::worker::node::framing::Oversize;
use crate::worker::node::lines::{self, BadLine, FromWorker, Query, Reply, SockName};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use thiserror::Error;

/// What a worker did that no honest one does. It is failed for it.
#[derive(Debug, Error)]
pub(super) enum Violation {
    /// A line that is too long to be taken.
    #[error(transparent)]
    Oversize(#[from] Oversize),
    /// A line of another language.
    #[error(transparent)]
    BadLine(#[from] BadLine),
    /// More fds than lines that claim them.
    #[error("it sent more than {} handles at once", limits::CHANNEL_FDS_PENDING_MAX)]
    TooManyHandles,
    /// It does not read what it is answered.
    #[error(transparent)]
    Unsendable(#[from] Unsendable),
}

impl Master {
    /// Reads one channel until it is empty and acts on every line. `to_end`: the other side may have closed, which a
    /// read that comes back short does not tell and no later event will.
    pub(super) fn read_channel(&mut self, worker_ix: WorkerIx, to_end: bool) {
        // The channel leaves the table while its lines are worked on, so that lines may change the table.
        let Some(mut channel) = self.cx.workers.get_mut(worker_ix).and_then(|w| w.channel.take()) else { return };
        self.dispatch.begin_reading();
        let outcome = self.read_lines(worker_ix, &mut channel, to_end);
        let (closed, blocked) = (channel.closed, channel.is_blocked());
        if let Some(worker) = self.cx.workers.get_mut(worker_ix) {
            worker.channel = Some(channel);
        }
        self.dispatch.end_reading(&self.cx, worker_ix);
        if blocked && !closed {
            self.scarce.await_writable(&mut self.cx, worker_ix);
        }
        match outcome {
            Err(violation) => self.misbehaved(worker_ix, &violation),
            Ok(()) if closed => self.channel_closed(worker_ix),
            Ok(()) if blocked => self.scarce.await_writable(&mut self.cx, worker_ix),
            Ok(()) => {}
        }
    }

    fn read_lines(&mut self, worker_ix: WorkerIx, channel: &mut Channel, to_end: bool) -> Result<(), Violation> {
        if channel.closed {
            return Ok(());
        }
        loop {
            if !to_end && self.relay.defers(&mut self.cx, worker_ix) {
                return Ok(());
            }
            let read = channel.read();
            let worked = self.work_on_lines(worker_ix, channel);
            self.note_and_answer(worker_ix, channel);
            worked?;
            match read {
                Read::Some => {}
                Read::Last if to_end => {}
                Read::Last | Read::Nothing => return Ok(()),
                Read::TooManyFds => {
                    return Err(Violation::TooManyHandles);
                }
                Read::Closed => {
                    channel.closed = true;
                    return Ok(());
                }
            }
        }
    }

    /// Writes down what the worker serves by now, then sends what it waits for.
    fn note_and_answer(&mut self, ix: WorkerIx, channel: &mut Channel) {
        if self.cx.workers.get(ix).is_some_and(|worker| worker.unnoted) {
            checkpoint::save_serves(&mut self.cx, ix);
        }
        channel.flush_held();
    }

    fn work_on_lines(&mut self, worker_ix: WorkerIx, channel: &mut Channel) -> Result<(), Violation> {
        loop {
            let (message, resumed) = match channel.inbox.next_line() {
                Ok(Some(line)) => {
                    let message = lines::decode(line.bytes);
                    if matches!(message, Ok(FromWorker::User)) {
                        self.relay.pass_on(&mut self.cx, worker_ix, line.bytes);
                    }
                    (message, line.resumed)
                }
                Ok(None) => return Ok(()),
                Err(oversize) => return Err(oversize.into()),
            };
            match message {
                Ok(FromWorker::Answer { ack, accepted: Some(accepted) }) => {
                    self.dispatch.answered(&mut self.cx, worker_ix, ack, accepted);
                }
                Ok(FromWorker::User) => self.relay.reply(&mut self.cx, worker_ix, channel),
                Ok(message) => {
                    if matches!(message, FromWorker::Online { .. }) {
                        self.relay.introduce_agent_to(&self.cx, worker_ix);
                        self.relay.reply(&mut self.cx, worker_ix, channel);
                    }
                    self.on_message(worker_ix, channel, message)?;
                }
                // The first piece of a line that a former master had begun to read.
                Err(_) if resumed => {}
                Err(bad) => return Err(bad.into()),
            }
        }
    }

    fn on_message(&mut self, ix: WorkerIx, channel: &mut Channel, message: FromWorker) -> Result<(), Violation> {
        let Some(worker) = self.cx.workers.get(ix) else { return Ok(()) };
        let (app, id) = (worker.app, worker.id);
        match message {
            // An agent is no worker: it serves nothing.
            FromWorker::QueryServer { .. } | FromWorker::Close { .. } | FromWorker::ExitedAfterDisconnect { .. }
                if worker.is_agent => {}
            FromWorker::Online { .. } => self.cx.events.push_back((app, Event::Online { worker: id })),
            FromWorker::QueryServer { seq, query } => return self.on_query(ix, channel, seq, &query),
            FromWorker::Listening { .. } => {
                if let Some(why) = self.serves_too_little(ix) {
                    log::warn!("{}: worker {id} {why}: it is not ready", self.cx.apps[app].name);
                    self.cx.events.push_back((app, Event::NotYet { worker: id, why: format!("it {why}") }));
                    return Ok(());
                }
                self.readiness.begin(&mut self.cx, ix);
                self.cx.events.push_back((app, Event::Evidence { worker: id, evidence: Evidence::Listening }));
            }
            FromWorker::Ready => {
                self.cx.events.push_back((app, Event::Evidence { worker: id, evidence: Evidence::Message }));
            }
            FromWorker::Close { key, .. } => self.on_close(ix, &key),
            FromWorker::ExitedAfterDisconnect { seq } => {
                let own = channel.next_seq();
                let mut line = Vec::new();
                lines::ack(&mut line, seq, own);
                let sent = channel.send_line(&line, None);
                checkpoint::save_goodbye(&mut self.cx, ix);
                self.cx.events.push_back((app, Event::Leaving { worker: id }));
                return sent.map_err(Violation::from);
            }
            FromWorker::Handle { .. } => {
                // Nobody here wants the handle, but Node sends nothing more before it is acknowledged.
                if let Some(handle) = channel.fds.pop_front() {
                    closer::close(handle);
                    return channel.send_line(lines::HANDLE_ACK, None).map_err(Violation::from);
                }
                return channel.send_line(lines::HANDLE_NACK, None).map_err(Violation::from);
            }
            FromWorker::Answer { .. }
            | FromWorker::HandleAck
            | FromWorker::HandleNack
            | FromWorker::User
            | FromWorker::OtherInternal(_) => {}
        }
        Ok(())
    }

    /// Whether a worker that listens does not listen where it has to: on an address of the configuration, and in a
    /// reload on what the present workers serve: in words. Said once per worker and server; its ready time-out does the
    /// rest.
    pub(super) fn serves_too_little(&self, ix: WorkerIx) -> Option<String> {
        let worker = self.cx.workers.get(ix)?;
        let app = &self.cx.apps[worker.app];
        let settings = app.generations.get(&worker.generation).unwrap_or_else(|| app.settings());
        let wanted = |n: &ListenerIx| {
            app.listeners[*n].configured.as_ref().is_some_and(|address| settings.config.listen.contains(address))
        };
        let present: BTreeSet<ListenerIx> =
            app.listeners.indices().filter(|n| app.listeners[*n].is_served_by_others_than(worker.generation)).collect();
        let configured = || -> Vec<ListenerIx> { app.listeners.indices().filter(wanted).collect() };
        // A worker says each address by itself: what costs most with many of them comes last.
        let lacking: Vec<ListenerIx> = if present.iter().any(wanted) {
            present.iter().copied().filter(|n| !worker.serves.contains(n)).filter(wanted).collect()
        } else if worker.serves.iter().any(wanted) {
            Vec::new()
        } else if let configured = configured()
            && !configured.is_empty()
        {
            configured
        } else {
            let serves_one = present.is_empty() || present.iter().any(|n| worker.serves.contains(n));
            if serves_one { Vec::new() } else { present.into_iter().collect() }
        };
        if lacking.is_empty() {
            return None;
        }
        let list = |all: &mut dyn Iterator<Item = ListenerIx>| {
            all.map(|n| app.listeners[n].to_string()).collect::<Vec<String>>().join(", ")
        };
        Some(format!(
            "listens on {} and not yet on {} (does it read PORT?)",
            list(&mut worker.serves.iter().copied()),
            list(&mut lacking.into_iter())
        ))
    }

    /// `listen()` was called: find or bind the socket, answer with the key (round-robin) or the socket itself.
    fn on_query(&mut self, ix: WorkerIx, channel: &mut Channel, seq: u64, query: &Query) -> Result<(), Violation> {
        let Some(worker) = self.cx.workers.get(ix) else { return Ok(()) };
        let (app_ix, id, slot, own_socket) = (worker.app, worker.id, worker.slot, worker.own_socket);
        let settings = self.cx.apps[app_ix].generations.get(&worker.generation);
        let shared = own_socket || settings.is_some_and(|s: &Settings| s.config.balance == Balance::Shared);
        let found = self.listener_for(ix, query);
        if let Ok(listener_ix) = found
            && own_socket
        {
            self.kernel_mode.groups.give_slot_a_socket(&mut self.cx, app_ix, listener_ix, slot);
        }
        if let Ok(listener_ix) = found {
            let listener = &mut self.cx.apps[app_ix].listeners[listener_ix];
            if listener.data.is_none() && query.data.is_some() {
                listener.data.clone_from(&query.data);
            }
            checkpoint::save_listener(&mut self.cx, app_ix, listener_ix);
            self.join(ix, listener_ix);
            self.cx.events.push_back((app_ix, Event::ServersOpen { worker: id }));
        }
        let own = channel.next_seq();
        let mut line = Vec::new();
        let given = match found {
            Err(code) => {
                let reply = Reply { errno: code, key: &query.key(), data: None, sockname: None };
                lines::reply(&mut line, seq, own, &reply, None);
                None
            }
            Ok(listener_ix) => {
                let listener = &self.cx.apps[app_ix].listeners[listener_ix];
                let sockname = sock_name(&listener.local);
                let reply =
                    Reply { errno: 0, key: &listener.key, data: listener.data.as_deref(), sockname: sockname.as_ref() };
                let kind = if listener.datagram { "dgram.Native" } else { "net.Native" };
                let given = shared || listener.datagram;
                lines::reply(&mut line, seq, own, &reply, given.then_some(kind));
                given.then_some(listener_ix)
            }
        };
        let own_slot = own_socket.then_some(slot);
        let mut sent = channel.hold_line(&line, given.map(|listener| self.handle_of(app_ix, listener, own_slot)));
        if let Err(Unsendable::NoFd(_)) = sent {
            // It cannot be held back without a copy: noted now, and sent.
            self.note_and_answer(ix, channel);
            sent = channel.send_line(&line, given.map(|listener| self.handle_of(app_ix, listener, own_slot)));
        }
        if channel.held() >= limits::CHANNEL_HELD_LINES_MAX {
            self.note_and_answer(ix, channel);
        }
        sent.map_err(Violation::from)
    }

    /// The socket itself, for a worker that accepts by itself: its slot's, or the one that all share.
    fn handle_of(&self, app_ix: AppIx, listener_ix: ListenerIx, own_slot: Option<u32>) -> BorrowedFd<'_> {
        let listener = &self.cx.apps[app_ix].listeners[listener_ix];
        own_slot.map_or(listener.fd.as_fd(), |slot| listener.socket_of(slot))
    }

    /// The listener that a worker's request means, bound now if nobody asked for it before. The error is what
    /// `listen()` shall fail with.
    fn listener_for(&mut self, ix: WorkerIx, query: &Query) -> Result<ListenerIx, i32> {
        let worker = self.cx.workers.get(ix).ok_or(errno::UV_EINVAL)?;
        let app_ix = worker.app;
        let app = &self.cx.apps[app_ix];
        let cwd = app.generations.get(&worker.generation).map_or_else(|| app.settings().cwd.clone(), |s| s.cwd.clone());
        if let Some(fd) = query.fd.filter(|&fd| fd >= 0) {
            // As with systemd: 3 is the first configured socket.
            let nth = usize::try_from(fd).ok().and_then(|fd| fd.checked_sub(3)).ok_or(errno::UV_EINVAL)?;
            let mut configured = app.listeners.entries().filter(|(_, l)| l.configured.is_some());
            return configured.nth(nth).map(|(ix, _)| ix).ok_or(errno::UV_EINVAL);
        }
        let mut key = query.key();
        let meant = app.listeners.entries().filter(|(_, l)| l.matches(query, &key, &cwd));
        let mut own = 0;
        for (found, _) in meant {
            if !worker.serves.contains(&found) {
                return Ok(found);
            }
            own += 1;
        }
        if own > 0 && query.port != 0 {
            // Two servers of one process on one address: the second fails, as everywhere.
            return Err(errno::UV_EADDRINUSE);
        }
        if own > 0 {
            // Any free port, once more: another one.
            key = listener::sibling_key(&key, own);
        }
        if app.listeners.len() >= limits::LISTENER_KEYS_PER_APP_MAX {
            log::warn!(
                "{}: worker {} asks for more than {} addresses; refused",
                app.name,
                worker.id,
                limits::LISTENER_KEYS_PER_APP_MAX
            );
            return Err(errno::UV_EMFILE);
        }
        let fd = listener::bind_asked(query, &cwd).map_err(|e| match errno::libuv_code(&e) {
            // libuv's uv_pipe_bind says so for a folder that is not there.
            errno::UV_ENOENT => errno::UV_EACCES,
            code => code,
        })?;
        Ok(self.add_listener(app_ix, fd, key, None))
    }

    /// Takes a bound socket into the app, tells the keeper to hold it, and polls it where the master accepts.
    pub(super) fn add_listener(
        &mut self,
        app_ix: AppIx,
        fd: OwnedFd,
        key: String,
        configured: Option<crate::config::Listen>,
    ) -> ListenerIx {
        let local = listen::local_address(fd.as_fd()).unwrap_or(LocalAddress::Other);
        let datagram = listen::is_datagram(fd.as_fd());
        let unlink = match &local {
            LocalAddress::Unix(path) => Some(path.clone()),
            LocalAddress::Inet(_) | LocalAddress::Other => None,
        };
        let app = &mut self.cx.apps[app_ix];
        let listener = Listener {
            fd,
            newconn: lines::NewconnLine::new(&key),
            key,
            configured,
            local,
            datagram,
            group: app.balancer.add_group(),
            data: None,
            polled: false,
            readable: false,
            starvation: BTreeMap::new(),
            unlink,
            present: BTreeMap::new(),
            reuseport: None,
        };
        let name = listener.held_name(&app.name);
        self.cx.keeper.hold(name, listener.fd.as_fd());
        if listener.configured.is_none() {
            log::info!("{}: listening on {listener}, as its workers asked for", app.name);
        }
        let listener_ix = app.listeners.push(listener);
        checkpoint::save_listener(&mut self.cx, app_ix, listener_ix);
        listener_ix
    }

    /// The worker serves this listener from now on. To be noted by the caller.
    pub(super) fn join(&mut self, ix: WorkerIx, listener_ix: ListenerIx) {
        let Some(worker) = self.cx.workers.get_mut(ix) else { return };
        worker.serves.insert(listener_ix);
        worker.unnoted = true;
        let app = &mut self.cx.apps[worker.app];
        if let (Some(member), Some(listener)) = (worker.member, app.listeners.get(listener_ix)) {
            app.balancer.join(listener.group, member);
        }
        let app_ix = worker.app;
        eligibility::recount_listener(&mut self.cx, ix, listener_ix);
        self.poll_listener(app_ix, listener_ix);
    }

    /// It has closed a server.
    pub(super) fn on_close(&mut self, ix: WorkerIx, key: &str) {
        let Some(worker) = self.cx.workers.get_mut(ix) else { return };
        let app = &mut self.cx.apps[worker.app];
        let Some(listener_ix) = app.listeners.find(|l| l.key == key) else { return };
        worker.serves.remove(&listener_ix);
        worker.unnoted = true;
        if let Some(member) = worker.member {
            app.balancer.leave(app.listeners[listener_ix].group, member);
        }
        if worker.serves.is_empty() {
            self.cx.events.push_back((worker.app, Event::ServersClosed { worker: worker.id }));
        }
        eligibility::recount_listener(&mut self.cx, ix, listener_ix);
    }

    /// The other end is closed and everything that came before was read: what it had not answered for was not taken.
    pub(super) fn channel_closed(&mut self, ix: WorkerIx) {
        self.forget_channel_poll(ix);
        dispatch::take_back(&mut self.cx, ix);
        let now_ms = self.cx.now_ms;
        let Some(worker) = self.cx.workers.get_mut(ix) else { return };
        worker.severed_ms.get_or_insert(now_ms);
        let (app, id) = (worker.app, worker.id);
        eligibility::recount(&mut self.cx, ix);
        let Some(worker) = self.cx.workers.get(ix) else { return };
        if worker.drain.is_some() {
            self.drains.step(&mut self.cx, ix);
        } else {
            self.cx.events.push_back((app, Event::ChannelClosed { worker: id }));
        }
    }

    /// Bad input from a worker: it alone is failed.
    pub(super) fn misbehaved(&mut self, ix: WorkerIx, violation: &Violation) {
        if let Some(channel) = self.cx.workers.get_mut(ix).and_then(|w| w.channel.as_mut()) {
            channel.closed = true;
        }
        self.forget_channel_poll(ix);
        dispatch::take_back(&mut self.cx, ix);
        eligibility::recount(&mut self.cx, ix);
        let Some(worker) = self.cx.workers.get(ix) else { return };
        let (app, id) = (worker.app, worker.id);
        self.cx.events.push_back((app, Event::Misbehaved { worker: id, reason: violation.to_string() }));
    }

    /// The message `"shutdown"` for apps that listen for it, then Node's own disconnect: it closes the servers, then
    /// the channel.
    pub(super) fn say_goodbye(&mut self, worker: WorkerId) {
        let Some(ix) = self.cx.workers.find(worker) else { return };
        checkpoint::save_goodbye(&mut self.cx, ix);
        let mut line = Vec::new();
        lines::user_string(&mut line, "shutdown");
        self.say(ix, &line);
        let Some(channel) = self.cx.workers.get_mut(ix).and_then(|w| w.channel.as_mut()) else { return };
        let seq = channel.next_seq();
        line.clear();
        lines::disconnect(&mut line, seq);
        self.say(ix, &line);
    }

    /// Sends a control line to a worker; one that does not read its channel is failed.
    pub(super) fn say(&mut self, ix: WorkerIx, line: &[u8]) {
        let Some(channel) = self.cx.workers.get_mut(ix).and_then(|w| w.channel.as_mut()) else { return };
        match channel.send_line(line, None) {
            Ok(()) if channel.is_blocked() => self.scarce.await_writable(&mut self.cx, ix),
            Ok(()) => {}
            Err(e) => self.misbehaved(ix, &e.into()),
        }
    }
}

/// What `server.address()` shall say in the worker.
fn sock_name(local: &LocalAddress) -> Option<SockName> {
    match local {
        LocalAddress::Inet(address) => Some(SockName { address: address.ip(), port: address.port() }),
        LocalAddress::Unix(_) | LocalAddress::Other => None,
    }
}
