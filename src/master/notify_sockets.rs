//! The sockets behind `NOTIFY_SOCKET`: one for each user that workers run as; only that user and root can reach it.
//! Finds the sender of a message, and passes on what it says; the supervisor decides what follows.
use super::context::Context;
use super::reactor::Reactor;
use super::settings::Settings;
use super::system::System;
use super::timers::{Timer, Timers};
use crate::home::Home;
use crate::limits;
use crate::supervisor::{Event, Evidence};
use crate::worker::notify::{Said, parse};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Datagrams read from a notify socket per turn of the loop.
const NOTIFY_BATCH_MAX: usize = 64;

/// Pause after a turn that left datagrams unread, in milliseconds.
const NOTIFY_REST_MS: u64 = 1;

/// A message whose sender is not known is kept for so long, in milliseconds: a quick worker says READY=1 before the keeper's
/// notice of its spawn is read.
const NOTIFY_EARLY_MS: u64 = 5_000;

/// Such messages that are kept.
const NOTIFY_EARLY_MAX: usize = 256;

/// Pause between two looks for their senders, in milliseconds.
const NOTIFY_EARLY_REST_MS: u64 = 10;

/// Name in the keeper of the socket for workers of our own user. Masters of every version know it.
const OWN: &str = "notify";
/// Prefix of the name in the keeper of the socket for another user's workers; the user's number follows.
const OF_USER: &str = "notify/";
/// Folder of the sockets for other users, who cannot reach our home.
const SHARED_FOLDER: &str = "/run/clusterd";

#[derive(Default)]
pub(super) struct NotifySockets {
    by_user: BTreeMap<u32, NotifySocket>,
    /// Users for whom no socket could be opened; logged once.
    without: Vec<u32>,
    /// Messages whose senders are not known yet.
    early: Vec<Heard>,
    /// The sockets are read from this time on (monotonic milliseconds).
    rests_until_ms: u64,
}

struct NotifySocket {
    socket: OwnedFd,
    /// The value of `NOTIFY_SOCKET`.
    address: String,
}

/// A message and its sender.
struct Heard {
    pid: i32,
    /// Its process group, whose leader the worker is when a helper such as systemd-notify sends for it.
    group: Option<i32>,
    said: Said,
    /// It is dropped then, if its sender is still not known.
    until_ms: u64,
}

/// Takes out the messages of known senders, each with its worker; the others stay until their time is over.
fn of_known<W>(heard: &mut Vec<Heard>, now_ms: u64, find: impl Fn(i32) -> Option<W>) -> Vec<(W, Said)> {
    let mut known = Vec::new();
    for one in std::mem::take(heard) {
        match find(one.pid).or_else(|| find(one.group?)) {
            Some(worker) => known.push((worker, one.said)),
            None if now_ms < one.until_ms && heard.len() < NOTIFY_EARLY_MAX => heard.push(one),
            None => {}
        }
    }
    known
}

impl NotifySockets {
    /// The value of `NOTIFY_SOCKET` for workers with these settings; the first call for a user opens the socket.
    pub(super) fn address_for(&mut self, cx: &mut Context<impl System>, settings: &Settings) -> Option<String> {
        let Context { system, deployment, keeper, reactor, timers, .. } = cx;
        let (system, home, name, uid) = (&*system, deployment.home.as_ref(), &deployment.name, settings.uid());
        if !self.by_user.contains_key(&uid) && !self.without.contains(&uid) {
            let is_own = uid == system.own_uid();
            match open(system, uid, is_own, home, name) {
                Ok(socket) => {
                    keeper.hold(held_name(uid, is_own), socket.as_fd());
                    self.take(system, uid, socket, reactor, timers);
                }
                Err(e) => {
                    log::warn!(
                        "cannot open a notify socket for user {uid}: {e}; READY=1 of its workers is not received"
                    );
                    self.without.push(uid);
                }
            }
        }
        self.address_of(uid).map(ToOwned::to_owned)
    }

    /// The address of the socket for workers of this user, if it is open.
    pub(super) fn address_of(&self, uid: u32) -> Option<&str> {
        self.by_user.get(&uid).map(|socket| socket.address.as_str())
    }

    /// Takes over the sockets of the previous master.
    pub(super) fn adopt(&mut self, cx: &mut Context<impl System>, fds: &mut HashMap<String, OwnedFd>) {
        let Context { system, reactor, timers, .. } = cx;
        let uid_of = |name: &str| match name {
            OWN => Some(system.own_uid()),
            other => other.strip_prefix(OF_USER)?.parse().ok(),
        };
        let ours: Vec<(String, u32)> = fds.keys().filter_map(|name| Some((name.clone(), uid_of(name)?))).collect();
        for (name, uid) in ours {
            if let Some(socket) = fds.remove(&name) {
                self.take(system, uid, socket, reactor, timers);
            }
        }
    }

    fn take<S: System>(&mut self, system: &S, uid: u32, socket: OwnedFd, reactor: &Reactor<S>, timers: &mut Timers) {
        let Ok(address) = system.notify_address(socket.as_fd()) else { return };
        if let Err(e) = reactor.add_notify(&socket) {
            log::warn!("cannot poll the notify socket of user {uid}: {e}; READY=1 of its workers is not received");
        }
        self.by_user.insert(uid, NotifySocket { socket, address });
        // Messages that came before the registration raise no event.
        timers.set_earlier(Timer::Notify, self.rests_until_ms);
    }

    /// A socket became readable.
    pub(super) fn woke(&self, cx: &mut Context<impl System>) {
        cx.timers.set_earlier(Timer::Notify, self.rests_until_ms);
    }

    /// Handles the messages of `listen-fds` programs, when that is due. The sender is found by its pid, or by its process
    /// group when a helper such as systemd-notify sends for it.
    pub(super) fn take_messages(&mut self, cx: &mut Context<impl System>) {
        if !cx.timers.take_due(Timer::Notify, cx.now_ms) {
            return;
        }
        let workers = &cx.workers;
        let (heard, more) = self.read(&cx.system, cx.now_ms, |pid| workers.find_pid(pid));
        self.early.extend(heard);
        let known = of_known(&mut self.early, cx.now_ms, |pid| workers.find_pid(pid));
        if more || !self.early.is_empty() {
            self.rests_until_ms = cx.now_ms + if more { NOTIFY_REST_MS } else { NOTIFY_EARLY_REST_MS };
            cx.timers.set(Timer::Notify, self.rests_until_ms);
        }
        for (ix, said) in known {
            let Some(worker) = cx.workers.get_mut(ix) else { continue };
            if let Some(text) = said.status {
                worker.status_text = Some(text);
            }
            if said.ready {
                let (app, worker, listens) = (worker.app, worker.id, worker.channel.is_none());
                cx.push_news(app, Event::Evidence { worker, evidence: Evidence::Notify });
                if listens {
                    // It says so itself, and need not call listen(2) on a socket that it inherited.
                    cx.push_news(app, Event::Evidence { worker, evidence: Evidence::Listening });
                }
            }
        }
    }

    /// Reads each socket, up to the limit per turn, and whether more may be left. A sender whose pid `find` does not
    /// know must be the socket's user, our own user or root; other messages are dropped.
    fn read<W>(&self, system: &impl System, now_ms: u64, find: impl Fn(i32) -> Option<W>) -> (Vec<Heard>, bool) {
        let (mut heard, mut more, mut buffer) = (Vec::new(), false, [0_u8; limits::NOTIFY_BYTES_MAX]);
        for (uid, NotifySocket { socket, .. }) in &self.by_user {
            let mut left = NOTIFY_BATCH_MAX;
            while left > 0 {
                left -= 1;
                match system.receive_notify(socket.as_fd(), &mut buffer) {
                    Ok(Some(found)) => {
                        let known = found.uid == 0 || found.uid == *uid || found.uid == system.own_uid();
                        let is_worker = find(found.pid).is_some();
                        if known || is_worker {
                            heard.push(Heard {
                                pid: found.pid,
                                // Workers lead process groups of their own. A helper may be gone in the next turn.
                                group: if is_worker { None } else { system.process_group(found.pid) },
                                said: parse(&buffer[..found.bytes]),
                                until_ms: now_ms + NOTIFY_EARLY_MS,
                            });
                        }
                    }
                    Ok(None) => {}
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => break,
                }
            }
            more |= left == 0;
        }
        (heard, more)
    }

    /// The socket files, to be removed at the end.
    pub(super) fn files(&self) -> impl Iterator<Item = PathBuf> {
        let names = self.by_user.values().map(|socket| socket.address.as_str());
        names.filter(|name| name.starts_with('/')).map(PathBuf::from).collect::<Vec<_>>().into_iter()
    }
}

/// Opens a socket that only this user can reach; where no folder can be written, one that accepts messages of this user
/// only.
fn open(system: &impl System, uid: u32, is_own: bool, home: Option<&Home>, name: &str) -> io::Result<OwnedFd> {
    let path = if is_own { home.map(|home| home.notify_path(name)) } else { shared_path(system, uid) };
    // A relative home is useless to a worker in another working directory.
    let path = path.and_then(|path| std::path::absolute(path).ok());
    match path.map(|path| system.bind_notify(&path, uid)) {
        Some(Ok(socket)) => Ok(socket),
        Some(Err(e)) => {
            log::debug!("the notify socket for user {uid} has no path: {e}");
            system.bind_notify_abstract()
        }
        None => system.bind_notify_abstract(),
    }
}

fn shared_path(system: &impl System, uid: u32) -> Option<PathBuf> {
    let folder = Path::new(SHARED_FOLDER);
    system.prepare_notify_folder(folder).inspect_err(|e| log::debug!("cannot use {SHARED_FOLDER}: {e}")).ok()?;
    // The keeper outlives masters.
    Some(folder.join(format!("{}-{uid}.notify", system.keeper_pid())))
}

fn held_name(uid: u32, is_own: bool) -> String {
    if is_own { OWN.to_owned() } else { format!("{OF_USER}{uid}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_comes_before_its_sender_is_known_is_not_lost() {
        let heard = |pid, group| Heard { pid, group, said: parse(b"READY=1"), until_ms: 100 };
        let mut early = vec![heard(7, Some(7)), heard(8, Some(5)), heard(9, None)];
        let workers = |known: &'static [i32]| move |pid: i32| known.contains(&pid).then_some(pid);
        let found = |known: Vec<(i32, Said)>| known.into_iter().map(|(worker, _)| worker).collect::<Vec<_>>();
        assert_eq!(found(of_known(&mut early, 10, workers(&[]))), Vec::<i32>::new());
        assert_eq!(found(of_known(&mut early, 20, workers(&[5, 7]))), [7, 5], "a helper speaks for its group");
        assert_eq!(early.len(), 1);
        assert_eq!(found(of_known(&mut early, 100, workers(&[]))), Vec::<i32>::new());
        assert!(early.is_empty(), "its time is over");
        early.extend((0..1_000).map(|pid| heard(pid, None)));
        of_known(&mut early, 10, workers(&[]));
        assert_eq!(early.len(), NOTIFY_EARLY_MAX);
    }
}
