//! Connections and accept queues of apps and workers, from the kernel's lists of sockets.
use crate::api::types::{App, Deployment};
use crate::os::{procfs, sock_diag};
use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, SocketAddr};

/// Connections of the sockets of one app.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct AppSockets {
    /// Connections that its workers, or the master for them, hold.
    pub(super) open: Option<u64>,
    /// Connections over TCP in the kernel that nobody has accepted yet.
    pub(super) queued: Option<u64>,
}

/// What the kernel tells; nothing where it tells nothing.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    /// By name of the app; only apps with addresses.
    pub(super) apps: BTreeMap<String, AppSockets>,
    /// Connections of clients that a worker holds, by pid.
    pub(super) workers: BTreeMap<i32, u64>,
}

/// A TCP address of an app; without an IP address: all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bound {
    ip: Option<IpAddr>,
    port: u16,
}

impl Bound {
    /// From an address as the control API writes it.
    fn parse(text: &str) -> Option<Bound> {
        if let Some(port) = text.strip_prefix("*:") {
            return Some(Bound { ip: None, port: port.parse().ok()? });
        }
        let address: SocketAddr = text.parse().ok()?;
        Some(Bound { ip: Some(address.ip()), port: address.port() })
    }

    fn is_local_of(&self, socket: &sock_diag::Found) -> bool {
        self.port == socket.port && self.ip.is_none_or(|ip| socket.ip().is_none_or(|local| local == ip))
    }
}

fn tcp(app: &App) -> Vec<Bound> {
    app.listen.iter().filter_map(|text| Bound::parse(text)).collect()
}

fn paths(app: &App) -> Vec<String> {
    app.listen.iter().filter_map(|text| text.strip_prefix("unix:").map(str::to_owned)).collect()
}

impl Sockets {
    /// Reads them, in one pass for all apps.
    pub(super) fn read(deployment: &Deployment) -> Sockets {
        let mut found = Sockets::default();
        let bound: Vec<Vec<Bound>> = deployment.apps.iter().map(tcp).collect();
        let ports: Vec<u16> = bound.iter().flatten().map(|bound| bound.port).collect();
        let listening = if ports.is_empty() { None } else { sock_diag::listening(&ports).ok() };
        let all_paths: Vec<String> = deployment.apps.iter().flat_map(paths).collect();
        let table = procfs::ConnectionTable::read(&ports, &all_paths);
        for (app, bound) in deployment.apps.iter().zip(&bound) {
            let ports: Vec<u16> = bound.iter().map(|bound| bound.port).collect();
            let paths = paths(app);
            if ports.is_empty() && paths.is_empty() {
                continue;
            }
            let of_app = |socket: &&sock_diag::Found| bound.iter().any(|bound| bound.is_local_of(socket));
            let queued = listening
                .as_ref()
                .filter(|_| !ports.is_empty())
                .map(|listening| listening.iter().filter(of_app).map(|socket| u64::from(socket.waiting)).sum());
            let open = table.as_ref().map(|table| table.count_all(&ports, &paths) as u64);
            found.apps.insert(app.name.clone(), AppSockets { open, queued });
            let Some(table) = &table else { continue };
            for pid in app.workers.iter().filter_map(|worker| worker.pid) {
                // What a process has open takes long to read; of an app without connections nobody holds one.
                let held = if open == Some(0) { Some(HashSet::new()) } else { procfs::socket_inodes(pid) };
                if let Some(held) = held {
                    found.workers.insert(pid, table.count(&held, &ports, &paths) as u64);
                }
            }
        }
        found
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::api::types::Worker;
    use std::net::{TcpListener, TcpStream};
    use std::process;

    #[test]
    fn addresses_are_read_as_they_are_shown() {
        assert_eq!(Bound::parse("*:80"), Some(Bound { ip: None, port: 80 }));
        assert_eq!(Bound::parse("[::1]:81"), Some(Bound { ip: Some("::1".parse().unwrap()), port: 81 }));
        for other in ["unix:/run/a.sock", "udp:*:53", "an unnamed socket", "*:x", ""] {
            assert_eq!(Bound::parse(other), None, "{other}");
        }
    }
    #[test]
    fn connections_are_counted_by_app_and_worker_and_what_nobody_has_accepted_waits() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let me = process::id() as i32;
        let worker = Worker { pid: Some(me), ..Worker::default() };
        let web =
            App { name: "web".to_owned(), listen: vec![address.to_string()], workers: vec![worker], ..App::default() };
        let job = App { name: "job".to_owned(), ..App::default() };
        let deployment = Deployment { apps: vec![web, job], ..Deployment::default() };
        let clients: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
        let accepted = listener.accept().unwrap();
        let found = Sockets::read(&deployment);
        assert_eq!(found.workers.get(&me), Some(&1));
        let web = found.apps["web"];
        assert_eq!(web.open, Some(1), "those that wait belong to nobody");
        // Where netlink is refused, the queue is not known.
        assert!(web.queued.is_none_or(|queued| queued == 2), "{web:?}");
        assert!(!found.apps.contains_key("job"));
        drop((clients, accepted, listener));
        let idle = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut deployment = deployment;
        deployment.apps[0].listen = vec![idle.local_addr().unwrap().to_string()];
        assert_eq!(Sockets::read(&deployment).workers.get(&me), Some(&0), "known without a look at what it has open");
    }
}
