//! The listeners of an app: configured ones and those that workers requested, each bound once and kept while the app
//! lives. Decides which listener a worker's `listen()` means.
use super::address_in_use::in_use;
use super::context::Context;
use super::listening::Listening;
use super::reactor::Reactor;
use super::settings::Settings;
use super::system::System;
use crate::balance::GroupIx;
use crate::balance::starvation::Starvation;
use crate::config::Listen;
use crate::ids::{AppIx, Generation, ListenerIx};
use crate::keeper::protocol::Credentials;
use crate::limits;
use crate::os::listen::{Access, LocalAddress, SocketFile};
use crate::os::procfs;
use crate::reuseport::group::Group;
use crate::worker::node::lines::{AddressType, NewconnLine, Query};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

pub(super) struct Listener {
    pub(super) fd: OwnedFd,
    /// The key that workers get; also names the fd in the keeper. It outlives masters.
    pub(super) key: String,
    /// The configured address; `None` for listeners that workers requested.
    pub(super) configured: Option<Listen>,
    pub(super) local: LocalAddress,
    pub(super) datagram: bool,
    pub(super) group: GroupIx,
    /// Data that the first worker attached (TLS ticket keys and the like), as JSON.
    pub(super) data: Option<String>,
    pub(super) newconn: NewconnLine,
    /// Registered in the reactor, so that the master can accept from it.
    pub(super) polled: bool,
    /// Connections may wait: set by the reactor, cleared when accept finds none.
    pub(super) readable: bool,
    /// For each of its sockets: how long connections have waited without a worker that can take them.
    pub(super) starvation: BTreeMap<u32, Starvation>,
    /// Whether its sockets listen.
    pub(super) listening: Listening,
    /// It is closed; its place may be used again.
    pub(super) retired: bool,
    /// When it was bound (milliseconds; 0 under a later master).
    pub(super) opened_ms: u64,
    /// It was passed to clusterd at its start by who keeps it open: it is never shut down but by a configuration that does
    /// not name it any more.
    pub(super) given: bool,
    /// The socket file to remove at the end.
    pub(super) unlink: Option<SocketFile>,
    /// Number of admitted workers that serve it, by generation.
    pub(super) present: BTreeMap<Generation, u32>,
    /// The sockets of the slots, where each slot has its own (balance `kernel`). `fd` is the first one.
    pub(super) reuseport: Option<Group>,
}

/// Why a listener could not be bound.
#[derive(Debug)]
pub(super) struct BindError {
    address: String,
    source: io::Error,
    holder: Option<procfs::Holder>,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot listen on {}: ", self.address)?;
        match (self.source.kind(), &self.holder) {
            (io::ErrorKind::AddrInUse, holder) => {
                write!(f, "{}; stop it, or choose another address", in_use(holder.as_ref()))
            }
            (io::ErrorKind::PermissionDenied, _) => write!(
                f,
                "permission denied; ports below 1024 need root, CAP_NET_BIND_SERVICE or a lower \
                 net.ipv4.ip_unprivileged_port_start, and a socket file needs a folder that this user may write"
            ),
            _ => write!(f, "{}", self.source),
        }
    }
}

/// Binds a configured address. Where sockets of the same app (`covering`) have a part of it, it does not listen yet:
/// what comes there is still for them.
///
/// # Errors
/// The address, who holds it, and what to do.
pub(super) fn bind_configured(
    system: &impl System,
    address: &Listen,
    covering: &[BorrowedFd<'_>],
    settings: &Settings,
) -> Result<OwnedFd, BindError> {
    let backlog = limits::LISTEN_BACKLOG;
    let bind = |address, v6only| match covering {
        [] => system.bind_tcp(address, v6only, backlog),
        others => system.bind_tcp_beside(address, v6only, others),
    };
    let bound = match address {
        Listen::Any(port) if covering.is_empty() => system.bind_tcp_any(*port, backlog),
        Listen::Any(port) => system.bind_tcp_any_beside(*port, covering),
        Listen::Tcp(address) => bind(*address, true),
        Listen::Host(host, port) => bind_host(system, host, *port, bind),
        Listen::Unix(path) => system.bind_unix(path, backlog, true, &settings.socket_access(path)),
    };
    bound.map_err(|source| {
        let holder = (source.kind() == io::ErrorKind::AddrInUse).then(|| holder(system, address)).flatten();
        BindError { address: address.to_string(), source, holder }
    })
}

fn bind_host(
    system: &impl System,
    host: &str,
    port: u16,
    bind: impl Fn(SocketAddr, bool) -> io::Result<OwnedFd>,
) -> io::Result<OwnedFd> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in system.addresses_of(host, port)? {
        match bind(address, true) {
            Ok(fd) => return Ok(fd),
            Err(e) => last = e,
        }
    }
    Err(last)
}

fn holder(system: &impl System, address: &Listen) -> Option<procfs::Holder> {
    let any = IpAddr::from([0, 0, 0, 0]);
    match address {
        Listen::Any(port) | Listen::Host(_, port) => system.tcp_port_holder(SocketAddr::new(any, *port)),
        Listen::Tcp(address) => system.tcp_port_holder(*address),
        Listen::Unix(path) => system.unix_path_holder(path),
    }
}

/// Binds the address that a worker requested, with the rights of its user. The app gets the error as its
/// errno.
///
/// # Errors
/// Those of the system; `InvalidInput` for text that is not an address.
pub(super) fn bind_asked(system: &impl System, query: &Query, cwd: &Path, settings: &Settings) -> io::Result<OwnedFd> {
    // As libuv's uv_pipe_chmod: added to what the umask leaves.
    let added = [(query.readable_all, 0o444), (query.writable_all, 0o222)];
    let added = added.into_iter().filter(|(all, _)| *all).fold(0, |bits, (_, more)| bits | more);
    let access = Access { mode: settings.socket_mode(), added, uid: None, gid: None };
    match settings.credentials() {
        None => bind(system, query, cwd, &access),
        Some(who) => {
            let (query, cwd) = (query.clone(), cwd.to_owned());
            system.as_user(who, move |system| bind(system, &query, &cwd, &access))
        }
    }
}

fn bind(system: &impl System, query: &Query, cwd: &Path, access: &Access) -> io::Result<OwnedFd> {
    // UV_TCP_IPV6ONLY and UV_UDP_IPV6ONLY are 1, UV_UDP_REUSEADDR is 4 (libuv's uv.h).
    let (v6only, reuse) = (query.flags & 1 != 0, query.flags & 4 != 0);
    let backlog = match query.backlog {
        Some(n) if n > 0 => i32::try_from(n).unwrap_or(limits::LISTEN_BACKLOG),
        _ => limits::LISTEN_BACKLOG,
    };
    match query.address_type {
        AddressType::Unix => {
            let path = query.address.as_deref().ok_or(io::ErrorKind::InvalidInput)?;
            // An abstract name is no path.
            let path = if path.starts_with('\0') { PathBuf::from(path) } else { cwd.join(path) };
            system.bind_unix(&path, backlog, true, access)
        }
        AddressType::Tcp4 | AddressType::Tcp6 => {
            let port = asked_port(query)?;
            match asked_address(system, query, port)? {
                Some(address) => system.bind_tcp(address, v6only, backlog),
                None if v6only => system.bind_tcp(SocketAddr::new([0u16; 8].into(), port), true, backlog),
                None => system.bind_tcp_any(port, backlog),
            }
        }
        AddressType::Udp4 | AddressType::Udp6 => {
            let port = asked_port(query)?;
            let any = match query.address_type {
                AddressType::Udp6 => IpAddr::from([0u16; 8]),
                _ => IpAddr::from([0u8; 4]),
            };
            let address = asked_address(system, query, port)?.unwrap_or(SocketAddr::new(any, port));
            system.bind_udp(address, v6only, reuse)
        }
    }
}

fn asked_port(query: &Query) -> io::Result<u16> {
    u16::try_from(query.port).map_err(|_| io::ErrorKind::InvalidInput.into())
}

fn asked_ip(query: &Query) -> io::Result<Option<IpAddr>> {
    match query.address.as_deref() {
        None | Some("") => Ok(None),
        // A scope ("%eth0") is not part of an IpAddr.
        Some(text) => {
            let bare = text.split('%').next().unwrap_or(text);
            bare.parse().map(Some).map_err(|_| io::ErrorKind::InvalidInput.into())
        }
    }
}

/// The address that a worker asked for, with the scope of a link-local one (`fe80::1%eth0`).
fn asked_address(system: &impl System, query: &Query, port: u16) -> io::Result<Option<SocketAddr>> {
    let Some(ip) = asked_ip(query)? else { return Ok(None) };
    match query.address.as_deref() {
        // It begins with an IP address: no resolver is asked.
        Some(text) if text.contains('%') => {
            let found = system.addresses_of(text, port)?.into_iter().next();
            found.map(Some).ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
        }
        Some(_) | None => Ok(Some(SocketAddr::new(ip, port))),
    }
}

/// Has a listener listen that waited for a worker.
pub(super) fn begin_listening(cx: &mut Context<impl System>, app_ix: AppIx, listener_ix: ListenerIx) {
    let app = &mut cx.apps[app_ix];
    let Some(listener) = app.listeners.get_mut(listener_ix).filter(|l| l.listening == Listening::Later) else { return };
    listener.listening = Listening::Yes;
    if let Err(e) = cx.system.set_backlog(listener.fd.as_fd(), limits::LISTEN_BACKLOG) {
        log::error!("{}: cannot listen on {listener}: {e}", app.name);
    }
}

/// Gives a listener another socket, which was bound at the path of its own. Clients that wait at the old one are served.
pub(super) fn replace_socket(cx: &mut Context<impl System>, app_ix: AppIx, listener_ix: ListenerIx, fd: OwnedFd) {
    let Context { apps, system, reactor, keeper, now_us, .. } = cx;
    let app = &mut apps[app_ix];
    let accepts = app.master_accepts();
    let listener = &mut app.listeners[listener_ix];
    listener.leave_poll(reactor);
    let old = std::mem::replace(&mut listener.fd, fd);
    if let LocalAddress::Unix(path) = &listener.local {
        listener.unlink = system.socket_file(path);
    }
    keeper.hold(listener.held_name(&app.name), listener.fd.as_fd());
    while accepts && app.connections.len() < limits::HANDOFFS_OPEN_MAX {
        let Ok(socket) = system.accept(old.as_fd()) else { break };
        let conn = app.admit(socket, listener_ix, None, *now_us);
        app.waiting.queue.push_back(conn);
    }
    poll(cx, app_ix, listener_ix);
}

/// Polls a listener from which the master accepts, once a worker serves it.
pub(super) fn poll(cx: &mut Context<impl System>, app_ix: AppIx, listener_ix: ListenerIx) {
    let app = &mut cx.apps[app_ix];
    let accepts = app.master_accepts();
    let Some(listener) = app.listeners.get_mut(listener_ix) else { return };
    if accepts && !listener.datagram && !listener.polled && listener.listening != Listening::Later {
        listener.polled = cx.reactor.add_listener(app_ix, listener_ix, &listener.fd);
    }
}

impl Listener {
    /// Counts one admitted worker of this generation more (or less).
    pub(super) fn count_present(&mut self, generation: Generation, more: bool) {
        let count = self.present.entry(generation).or_default();
        *count = if more { *count + 1 } else { count.saturating_sub(1) };
        if *count == 0 {
            self.present.remove(&generation);
        }
    }

    /// Whether an admitted worker of another generation serves it.
    pub(super) fn is_served_by_others_than(&self, generation: Generation) -> bool {
        self.present.keys().any(|other| *other != generation)
    }

    /// Whether a worker's `listen()` means this socket.
    pub(super) fn matches(&self, query: &Query, key: &str, cwd: &Path) -> bool {
        if self.retired {
            return false;
        }
        // First what is cheap: a worker may ask without end.
        if self.key.starts_with(key) && asked_key(&self.key) == key {
            return true;
        }
        match (&self.local, query.address_type) {
            (LocalAddress::Unix(path), AddressType::Unix) => {
                query.address.as_deref().is_some_and(|asked| cwd.join(asked) == *path)
            }
            (LocalAddress::Inet(local), AddressType::Tcp4 | AddressType::Tcp6) if !self.datagram => {
                self.matches_port(query, *local)
            }
            (LocalAddress::Inet(local), AddressType::Udp4 | AddressType::Udp6) if self.datagram => {
                let same_family = local.is_ipv4() == (query.address_type == AddressType::Udp4);
                same_family && query.port == i64::from(local.port()) && same_ip(query, *local)
            }
            _ => false,
        }
    }

    fn matches_port(&self, query: &Query, local: SocketAddr) -> bool {
        if query.port != i64::from(local.port()) || query.port == 0 {
            return false;
        }
        match self.configured {
            // The operator decided where this port listens: any spelling of it in the app means this listener.
            Some(_) => query.address.is_none() || local.ip().is_unspecified() || same_ip(query, local),
            None => same_ip(query, local),
        }
    }

    /// Whether it was asked for without an address: for every one, of IPv6 and IPv4. `0.0.0.0` and `[::]` are addresses.
    fn is_any(&self) -> bool {
        match &self.configured {
            Some(Listen::Any(_)) => true,
            Some(Listen::Tcp(_) | Listen::Host(..) | Listen::Unix(_)) => false,
            None => self.key.starts_with("null:"),
        }
    }

    /// Whether somebody has removed the file of this socket, so that no client can find it.
    pub(super) fn has_lost_its_file(&self, system: &impl System) -> bool {
        let LocalAddress::Unix(path) = &self.local else { return false };
        self.unlink.is_some() && system.socket_file(path).is_none()
    }

    /// Whether a configured address means this socket. Port 0 means any, so it matches the port that was assigned.
    pub(super) fn serves(&self, wanted: &Listen) -> bool {
        let LocalAddress::Inet(local) = &self.local else { return self.configured.as_ref() == Some(wanted) };
        match (&self.configured, wanted) {
            (Some(Listen::Tcp(own)), Listen::Tcp(wanted)) => wanted == local || own == wanted,
            (Some(Listen::Any(own)), Listen::Any(wanted)) => *wanted == local.port() || own == wanted,
            (own, wanted) => own.as_ref() == Some(wanted),
        }
    }

    /// Removes the listener from the reactor.
    pub(super) fn leave_poll(&mut self, reactor: &Reactor<impl System>) {
        if std::mem::take(&mut self.polled) {
            reactor.remove_listener(&self.fd);
        }
    }

    pub(super) fn port(&self) -> Option<u16> {
        match &self.local {
            LocalAddress::Inet(address) => Some(address.port()),
            LocalAddress::Unix(_) | LocalAddress::Other => None,
        }
    }

    /// Whoever started clusterd opened this socket, and looks after it and its file.
    pub(super) fn mark_given(&mut self) {
        self.given = true;
        self.unlink = None;
    }

    /// Removes the socket file, if it is still this socket's own. A file that the configuration does not name is
    /// removed with the rights of the workers' user (`None`: ours), as it was bound.
    pub(super) fn remove_file(&mut self, system: &impl System, who: Option<&Credentials>) {
        let Some(file) = self.unlink.take() else { return };
        let removed = match who.filter(|_| self.configured.is_none()) {
            None => system.remove_socket_file(&file),
            Some(who) => system.as_user(who, move |system| system.remove_socket_file(&file)),
        };
        if let Err(e) = removed {
            // The file may have been removed already.
            log::debug!("{self}: its file stays: {e}");
        }
    }

    /// Closes our copy of the socket, so that no request can match it again. The entry stays until its place is used
    /// again, because indices refer to it.
    pub(super) fn retire(&mut self, system: &impl System) {
        self.configured = None;
        self.local = LocalAddress::Other;
        self.key = format!("retired {}", self.key);
        self.readable = false;
        self.retired = true;
        if let Ok(nothing) = system.null_device() {
            self.fd = nothing;
        }
    }

    pub(super) fn is_retired(&self) -> bool {
        self.retired
    }

    pub(super) fn socket_count(&self) -> u32 {
        self.reuseport.as_ref().map_or(1, Group::socket_count)
    }

    /// The socket with this number; the first one where the number is too high.
    pub(super) fn socket(&self, number: u32) -> BorrowedFd<'_> {
        let other = self.reuseport.as_ref().and_then(|group| group.socket(number));
        other.unwrap_or(self.fd.as_fd())
    }

    pub(super) fn socket_of(&self, slot: u32) -> BorrowedFd<'_> {
        self.socket(self.reuseport.as_ref().map_or(0, |group| group.selection.socket_of(slot)))
    }

    pub(super) fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        (0..self.socket_count()).map(|number| self.socket(number))
    }

    /// Connections that the kernel gave to each socket, where the kernel counts them.
    pub(super) fn steered(&self) -> Vec<u64> {
        self.reuseport.as_ref().map(Group::counts).unwrap_or_default()
    }

    pub(super) fn held_name(&self, app: &str) -> String {
        held_name(app, &self.key)
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let udp = if self.datagram { "udp:" } else { "" };
        match &self.local {
            LocalAddress::Inet(address) if address.ip().is_unspecified() && self.is_any() => {
                write!(f, "{udp}*:{}", address.port())
            }
            LocalAddress::Inet(address) => write!(f, "{udp}{address}"),
            LocalAddress::Unix(path) => write!(f, "unix:{}", path.display()),
            LocalAddress::Other => match self.key.strip_prefix('\0').and_then(|key| key.rsplitn(5, ':').last()) {
                Some(name) => write!(f, "unix:@{name}"),
                None => write!(f, "an unnamed socket"),
            },
        }
    }
}

/// The key of the n-th further socket that one worker requested with the same arguments: `listen(0)`, `listen(0)`.
pub(super) fn sibling_key(asked: &str, n: usize) -> String {
    format!("{asked}~{n}")
}

/// The requested part of a key. (User input cannot follow the last colon.)
fn asked_key(key: &str) -> &str {
    match (key.rfind('~'), key.rfind(':')) {
        (Some(at), Some(colon)) if at > colon => &key[..at],
        _ => key,
    }
}

/// The name of a listener's fd in the keeper.
pub(super) fn held_name(app: &str, key: &str) -> String {
    format!("listen/{app}/{key}")
}

/// The app and the key in such a name.
pub(super) fn names_in(held: &str) -> Option<(&str, &str)> {
    // App names contain no slash.
    held.strip_prefix("listen/")?.split_once('/')
}

/// The name in the keeper of a slot's socket other than the first. The slot comes last, so names are unique.
pub(super) fn slot_name(app: &str, key: &str, slot: u32) -> String {
    format!("slot/{app}/{key}/{slot}")
}

/// The name of the first socket, and the slot, in such a name.
pub(super) fn slot_of(held: &str) -> Option<(String, u32)> {
    let (first, slot) = held.strip_prefix("slot/")?.rsplit_once('/')?;
    Some((format!("listen/{first}"), slot.parse().ok()?))
}

/// Whether the worker's address means this one; no address means all interfaces. `0.0.0.0` and `::` are two addresses. A
/// link-local address is known by its key alone, which has its scope.
fn same_ip(query: &Query, local: SocketAddr) -> bool {
    let has_scope = matches!(local, SocketAddr::V6(local) if local.scope_id() != 0);
    match asked_ip(query) {
        Ok(Some(asked)) => asked == local.ip() && !has_scope,
        Ok(None) => local.ip().is_unspecified(),
        Err(_) => false,
    }
}
