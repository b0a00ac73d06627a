//! The listeners of an app: what was configured and what workers asked for, each bound once and kept while the app
//! lives. Which listener a worker's `listen()` means is decided here.
use super::polls::Polls;
use crate::balance::GroupIx;
use crate::balance::starvation::Starvation;
use crate::config::Listen;
use crate::ids::Generation;
use crate::keeper::protocol::Credentials;
use crate::limits;
use crate::os::listen::{self, LocalAddress, SocketFile};
use crate::os::{identity, procfs};
use crate::reuseport::group::Group;
use crate::worker::node::lines::{AddressType, NewconnLine, Query};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// One bound socket.
pub(super) struct Listener {
    pub(super) fd: OwnedFd,
    /// The key that workers are told; also names the fd in the keeper. Stable over masters.
    pub(super) key: String,
    /// The configured address, for those that were.
    pub(super) configured: Option<Listen>,
    pub(super) local: LocalAddress,
    pub(super) datagram: bool,
    pub(super) group: GroupIx,
    /// What the first worker attached to it (TLS ticket keys and the like), as JSON.
    pub(super) data: Option<String>,
    pub(super) newconn: NewconnLine,
    /// The poll knows it, so that the master may accept from it.
    pub(super) polled: bool,
    /// Connections may wait: set by the poll, cleared when accept finds none.
    pub(super) readable: bool,
    /// Of what waits in each of its sockets, where nobody could take it.
    pub(super) starvation: BTreeMap<u32, Starvation>,
    /// Ours to remove from the file system at the end.
    pub(super) unlink: Option<SocketFile>,
    /// Admitted workers that serve it, by generation.
    pub(super) present: BTreeMap<Generation, u32>,
    /// The sockets of the slots, where each has its own (balance `kernel`). `fd` is the first.
    pub(super) reuseport: Option<Group>,
}

/// A listener could not be bound.
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
            (io::ErrorKind::AddrInUse, Some(holder)) => {
                write!(f, "the address is in use by pid {} ({})", holder.pid, holder.command)
            }
            (io::ErrorKind::AddrInUse, None) => {
                write!(f, "the address is in use, by a process that this user may not see (as root: ss -ltnp shows it)")
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

/// Binds a configured address.
pub(super) fn bind_configured(address: &Listen) -> Result<OwnedFd, BindError> {
    let backlog = limits::LISTEN_BACKLOG;
    let bound = match address {
        Listen::Any(port) => listen::bind_tcp_any(*port, backlog),
        Listen::Tcp(address) => listen::bind_tcp(*address, true, backlog),
        Listen::Host(host, port) => bind_host(host, *port, backlog),
        Listen::Unix(path) => listen::bind_unix(path, backlog, true),
    };
    bound.map_err(|source| {
        let holder = (source.kind() == io::ErrorKind::AddrInUse).then(|| holder(address)).flatten();
        BindError { address: address.to_string(), source, holder }
    })
}

fn bind_host(host: &str, port: u16, backlog: i32) -> io::Result<OwnedFd> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in (host, port).to_socket_addrs()? {
        match listen::bind_tcp(address, true, backlog) {
            Ok(fd) => return Ok(fd),
            Err(e) => last = e,
        }
    }
    Err(last)
}

fn holder(address: &Listen) -> Option<procfs::Holder> {
    let any = IpAddr::from([0, 0, 0, 0]);
    match address {
        Listen::Any(port) | Listen::Host(_, port) => procfs::tcp_port_holder(SocketAddr::new(any, *port)),
        Listen::Tcp(address) => procfs::tcp_port_holder(*address),
        Listen::Unix(path) => procfs::unix_path_holder(path),
    }
}

/// Binds what a worker asks for, with the rights of its user (`None`: ours). The error goes into the app as its errno.
///
/// # Errors
/// Those of the system; `InvalidInput` for an address that is none.
pub(super) fn bind_asked(query: &Query, cwd: &Path, who: Option<&Credentials>) -> io::Result<OwnedFd> {
    match who {
        None => bind(query, cwd),
        Some(who) => {
            let (query, cwd) = (query.clone(), cwd.to_owned());
            identity::as_user(who, move || bind(&query, &cwd))
        }
    }
}

fn bind(query: &Query, cwd: &Path) -> io::Result<OwnedFd> {
    // UV_TCP_IPV6ONLY and UV_UDP_IPV6ONLY are 1, UV_UDP_REUSEADDR is 4 (libuv's uv.h).
    let (v6only, reuse) = (query.flags & 1 != 0, query.flags & 4 != 0);
    let backlog = match query.backlog {
        Some(n) if n > 0 => i32::try_from(n).unwrap_or(limits::LISTEN_BACKLOG),
        _ => limits::LISTEN_BACKLOG,
    };
    match query.address_type {
        AddressType::Unix => {
            let path = query.address.as_deref().ok_or(io::ErrorKind::InvalidInput)?;
            listen::bind_unix(&cwd.join(path), backlog, false)
        }
        AddressType::Tcp4 | AddressType::Tcp6 => {
            let port = asked_port(query)?;
            match asked_ip(query)? {
                Some(ip) => listen::bind_tcp(SocketAddr::new(ip, port), v6only, backlog),
                None if v6only => listen::bind_tcp(SocketAddr::new([0u16; 8].into(), port), true, backlog),
                None => listen::bind_tcp_any(port, backlog),
            }
        }
        AddressType::Udp4 | AddressType::Udp6 => {
            let port = asked_port(query)?;
            let any = match query.address_type {
                AddressType::Udp6 => IpAddr::from([0u16; 8]),
                _ => IpAddr::from([0u8; 4]),
            };
            let ip = asked_ip(query)?.unwrap_or(any);
            listen::bind_udp(SocketAddr::new(ip, port), v6only, reuse)
        }
    }
}

fn asked_port(query: &Query) -> io::Result<u16> {
    u16::try_from(query.port).map_err(|_| io::ErrorKind::InvalidInput.into())
}

fn asked_ip(query: &Query) -> io::Result<Option<IpAddr>> {
    match query.address.as_deref() {
        None | Some("") => Ok(None),
        // A scope ("%eth0") is not part of an IpAddr; link-local listening goes by its address alone.
        Some(text) => {
            let bare = text.split('%').next().unwrap_or(text);
            bare.parse().map(Some).map_err(|_| io::ErrorKind::InvalidInput.into())
        }
    }
}

impl Listener {
    /// One admitted worker of this generation more (or less) serves it.
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
        if asked_key(&self.key) == key {
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
                query.port == i64::from(local.port()) && same_ip(query, local.ip())
            }
            _ => false,
        }
    }

    fn matches_port(&self, query: &Query, local: SocketAddr) -> bool {
        if query.port != i64::from(local.port()) || query.port == 0 {
            return false;
        }
        match self.configured {
            // The operator decided where this port listens: any spelling of the app's own means it.
            Some(_) => query.address.is_none() || local.ip().is_unspecified() || same_ip(query, local.ip()),
            None => same_ip(query, local.ip()),
        }
    }

    /// Whether a configured address means this socket. Port 0 means any, so the real port may take its place.
    pub(super) fn serves(&self, wanted: &Listen) -> bool {
        let LocalAddress::Inet(local) = &self.local else { return self.configured.as_ref() == Some(wanted) };
        match (&self.configured, wanted) {
            (Some(Listen::Tcp(own)), Listen::Tcp(wanted)) => wanted == local || own == wanted,
            (Some(Listen::Any(own)), Listen::Any(wanted)) => *wanted == local.port() || own == wanted,
            (own, wanted) => own.as_ref() == Some(wanted),
        }
    }

    /// The master accepts from it no more.
    pub(super) fn leave_poll(&mut self, polls: &Polls) {
        if std::mem::take(&mut self.polled) {
            polls.remove_listener(&self.fd);
        }
    }

    /// The port, for TCP and UDP.
    pub(super) fn port(&self) -> Option<u16> {
        match &self.local {
            LocalAddress::Inet(address) => Some(address.port()),
            LocalAddress::Unix(_) | LocalAddress::Other => None,
        }
    }

    /// Removes its socket's file, where that is still its own. What the configuration does not name is removed with the
    /// rights of the workers' user (`None`: ours), as it was bound.
    pub(super) fn remove_file(&mut self, who: Option<&Credentials>) {
        let Some(file) = self.unlink.take() else { return };
        let removed = match who.filter(|_| self.configured.is_none()) {
            None => file.remove(),
            Some(who) => identity::as_user(who, move || file.remove()),
        };
        if let Err(e) = removed {
            // Somebody may have removed it before us.
            log::debug!("{self}: its file stays: {e}");
        }
    }

    /// It listens no more: nothing may ever mean it again. Its place in the list stays, because indices name it.
    pub(super) fn retire(&mut self) {
        self.configured = None;
        self.local = LocalAddress::Other;
        self.key = format!("retired {}", self.key);
        self.readable = false;
    }

    pub(super) fn is_retired(&self) -> bool {
        self.configured.is_none() && matches!(self.local, LocalAddress::Other)
    }

    /// The number of its sockets.
    pub(super) fn socket_count(&self) -> u32 {
        self.reuseport.as_ref().map_or(1, Group::socket_count)
    }

    /// The socket with this number; the first where there are fewer.
    pub(super) fn socket(&self, number: u32) -> BorrowedFd<'_> {
        let other = self.reuseport.as_ref().and_then(|group| group.socket(number));
        other.unwrap_or(self.fd.as_fd())
    }

    /// The socket of a slot.
    pub(super) fn socket_of(&self, slot: u32) -> BorrowedFd<'_> {
        self.socket(self.reuseport.as_ref().map_or(0, |group| group.selection.socket_of(slot)))
    }

    pub(super) fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        (0..self.socket_count()).map(|number| self.socket(number))
    }

    /// Connections that the kernel gave to each of its sockets, where it counts them.
    pub(super) fn steered(&self) -> Vec<u64> {
        self.reuseport.as_ref().map(Group::counts).unwrap_or_default()
    }

    /// The name of its fd in the keeper.
    pub(super) fn held_name(&self, app: &str) -> String {
        held_name(app, &self.key)
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let udp = if self.datagram { "udp:" } else { "" };
        match &self.local {
            LocalAddress::Inet(address) if address.ip().is_unspecified() => write!(f, "{udp}*:{}", address.port()),
            LocalAddress::Inet(address) => write!(f, "{udp}{address}"),
            LocalAddress::Unix(path) => write!(f, "unix:{}", path.display()),
            LocalAddress::Other => write!(f, "an unnamed socket"),
        }
    }
}

/// The key of the n-th further socket that one worker asked for with the same words: `listen(0)`, `listen(0)`.
pub(super) fn sibling_key(asked: &str, n: usize) -> String {
    format!("{asked}~{n}")
}

/// The words that a worker asked with, from the key of what it got. (Nothing after the last colon is the user's.)
fn asked_key(key: &str) -> &str {
    match (key.rfind('~'), key.rfind(':')) {
        (Some(at), Some(colon)) if at > colon => &key[..at],
        _ => key,
    }
}

/// The name under which the keeper holds a listener.
pub(super) fn held_name(app: &str, key: &str) -> String {
    format!("listen/{app}/{key}")
}

/// The app and the key in such a name.
pub(super) fn names_in(held: &str) -> Option<(&str, &str)> {
    // The name of an app has no slash.
    held.strip_prefix("listen/")?.split_once('/')
}

/// The name under which the keeper holds the socket of a slot other than the first. What stands last is the slot, so no
/// two names are the same.
pub(super) fn slot_name(app: &str, key: &str, slot: u32) -> String {
    format!("slot/{app}/{key}/{slot}")
}

/// Whether the worker's address means this IP: no address means all interfaces.
fn same_ip(query: &Query, ip: IpAddr) -> bool {
    match asked_ip(query) {
        Ok(Some(asked)) => asked == ip || (asked.is_unspecified() && ip.is_unspecified()),
        Ok(None) => ip.is_unspecified(),
        Err(_) => false,
    }
}
