//! Keeps shared listening sockets listening. A worker that has one can end the listening of all with shutdown(2): the
//! socket stays bound, clients are refused, and nobody else notices. So each is asked once a second, and a slot's own one when
//! it wakes the accept queue monitor. A TCP socket listens again. For a Unix socket the kernel offers no way back: another one is bound at its path, and the workers, which have the
//! old one, are replaced.
use super::app::App;
use super::checkpoint;
use super::context::Context;
use super::listener;
use super::system::System;
use super::timers::Timer;
use crate::ids::{AppIx, ListenerIx};
use crate::limits;
use crate::os::listen::LocalAddress;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};

/// Pause before sockets of a group listen again, in milliseconds: by then the kernel has a program for those that do.
const AGAIN_AFTER_MS: u64 = 2;

/// What happened to the listening of a listener's sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Listening {
    /// It listens, as far as is known.
    #[default]
    Yes,
    /// A worker ended it before, which was logged.
    Restored,
    /// The master ended it.
    Stopped,
    /// It is bound, and listens once a worker of its generation serves: until then its clients are for another socket of
    /// the app.
    Later,
}

impl Listening {
    /// The state of a stream socket that was taken over, or bound just now.
    pub(super) fn of(system: &impl System, socket: BorrowedFd<'_>) -> Listening {
        if system.is_listening(socket) { Listening::Yes } else { Listening::Later }
    }
}

/// Has sockets whose listening a worker has ended listen again. The first time is logged for each listener. Returns the
/// apps whose workers have a socket that nobody can reach any more.
pub(super) fn restore(cx: &mut Context<impl System>) -> Vec<AppIx> {
    let mut outdated = Vec::new();
    for app_ix in cx.apps.indices().filter(|app_ix| !cx.apps[*app_ix].closed).collect::<Vec<_>>() {
        for listener_ix in cx.apps[app_ix].listeners.indices().collect::<Vec<_>>() {
            let listener = &cx.apps[app_ix].listeners[listener_ix];
            if listener.datagram || matches!(listener.listening, Listening::Stopped | Listening::Later) {
                continue;
            }
            match &listener.local {
                LocalAddress::Inet(address) => {
                    let address = *address;
                    restore_tcp(cx, app_ix, listener_ix, address);
                }
                LocalAddress::Unix(_) if cx.system.refuses_clients(listener.fd.as_fd()) => {
                    if replace_unix(cx, app_ix, listener_ix) && !outdated.contains(&app_ix) {
                        outdated.push(app_ix);
                    }
                }
                LocalAddress::Unix(_) | LocalAddress::Other => {}
            }
        }
    }
    outdated
}

fn restore_tcp(cx: &mut Context<impl System>, app_ix: AppIx, listener_ix: ListenerIx, address: SocketAddr) {
    let mut ended = note_ended(cx, app_ix, listener_ix);
    let keeper_knows = !cx.keeper.has_more();
    let is_steered = !cx.group_changes.unsteered.contains(&(app_ix, listener_ix));
    let Context { apps, system, group_changes, timers, .. } = &mut *cx;
    let app = &mut apps[app_ix];
    let listener = &mut app.listeners[listener_ix];
    let others_serve = listener.reuseport.as_ref().is_some_and(|group| !group.order().is_empty());
    if !ended.is_empty() && others_serve && !(is_steered && keeper_knows) {
        cx.timers.set_earlier(Timer::Listening, cx.now_ms + AGAIN_AFTER_MS);
        return;
    }
    let restored: Result<Vec<()>, _> = ended
        .iter()
        .map(|number| system.listen_again(listener.socket(*number), address, limits::LISTEN_BACKLOG))
        .collect();
    if restored.is_err() {
        ended.retain(|number| system.is_listening(listener.socket(*number)));
    }
    if let Some(group) = &mut listener.reuseport
        && !ended.is_empty()
    {
        ended.iter().for_each(|number| group.note_opened(*number));
        group_changes.add_unsteered(timers, (app_ix, listener_ix));
    }
    tell(app, listener_ix, restored);
    if !ended.is_empty() {
        checkpoint::save_listener(cx, app_ix, listener_ix);
    }
}

/// The sockets of a listener that do not listen, by number. In a group the kernel has given their places to others then: its
/// program is replaced before they listen again, and join the group as its last ones.
fn note_ended(cx: &mut Context<impl System>, app_ix: AppIx, listener_ix: ListenerIx) -> Vec<u32> {
    let Context { apps, system, .. } = &mut *cx;
    let listener = &mut apps[app_ix].listeners[listener_ix];
    let (ended, listen): (Vec<u32>, Vec<u32>) =
        (0..listener.socket_count()).partition(|number| !system.is_listening(listener.socket(*number)));
    let Some(group) = &mut listener.reuseport else { return ended };
    let known = group.order().len();
    // The previous master may have died before it noted that they listen.
    listen.iter().for_each(|number| group.note_opened(*number));
    let is_longer = group.order().len() > known;
    let newly_ended = ended.iter().filter(|number| group.note_closed(**number)).count();
    if newly_ended > 0 || is_longer {
        cx.needs_steering(app_ix, listener_ix);
        checkpoint::save_listener(cx, app_ix, listener_ix);
    }
    ended
}

/// Logs that a listener listens again, or why it does not.
fn tell(app: &mut App, listener_ix: ListenerIx, restored: io::Result<Vec<()>>) {
    let listener = &mut app.listeners[listener_ix];
    let told = listener.listening == Listening::Restored;
    match restored {
        Ok(none) if none.is_empty() => {}
        Ok(_) if told => listener.readable = true,
        Ok(_) => {
            listener.readable = true;
            listener.listening = Listening::Restored;
            let whose = match listener.reuseport {
                Some(_) => "",
                None => ", which all workers share",
            };
            log::warn!(
                "{}: a worker called shutdown(2) on the listening socket of {listener}{whose}; it listens again",
                app.name
            );
        }
        Err(_) if told => {}
        Err(e) => {
            listener.listening = Listening::Restored;
            log::error!(
                "{}: a worker called shutdown(2) on the listening socket of {listener}, which cannot listen again: {e}; \
                 restart the app",
                app.name
            );
        }
    }
}

/// Binds another socket at the path of one that a worker has shut down. What a worker asked for is bound when the next one
/// asks. Whether the workers have to be replaced.
fn replace_unix(cx: &mut Context<impl System>, app_ix: AppIx, listener_ix: ListenerIx) -> bool {
    let Context { apps, system, .. } = &mut *cx;
    let app = &mut apps[app_ix];
    // Until its workers are replaced one of them may shut down the next one as well.
    if app.supervisor.is_reloading() {
        return false;
    }
    let who = app.settings().credentials().cloned();
    let listener = &mut app.listeners[listener_ix];
    let told = std::mem::replace(&mut listener.listening, Listening::Restored) == Listening::Restored;
    let file = listener.unlink.clone();
    listener.remove_file(system, who.as_ref());
    // It has lost its file, which whoever asks for it finds out.
    listener.unlink = file;
    let bound = match &app.listeners[listener_ix].configured {
        Some(address) => listener::bind_configured(system, address, &[], app.settings()).map(Some),
        None => Ok(None),
    };
    let name = &app.name;
    let listener = &app.listeners[listener_ix];
    match &bound {
        Ok(_) => log::warn!(
            "{name}: a worker called shutdown(2) on the listening socket of {listener}, which all workers share; it was bound \
             again, and the workers are replaced (clients were refused for up to a second)"
        ),
        Err(_) if told => {}
        Err(e) => log::error!(
            "{name}: a worker called shutdown(2) on the listening socket of {listener}, which cannot be bound again: {e}; restart \
             the app"
        ),
    }
    if let Ok(Some(fd)) = bound {
        listener::replace_socket(cx, app_ix, listener_ix, fd);
        return true;
    }
    bound.is_ok() && !told
}
