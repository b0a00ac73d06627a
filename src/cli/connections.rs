//! Counts the connections of draining workers from outside, so that the master does not have to.
use crate::api::types::{App, WorkerState};
use crate::os::procfs::{self, ConnectionTable};
use std::collections::HashSet;

/// Connections of these apps' draining workers; `None`: none drains, or permission is missing.
pub(super) fn held_by_draining<'a>(apps: impl IntoIterator<Item = &'a App>) -> Option<usize> {
    let mut sockets: HashSet<u64> = HashSet::new();
    let (mut ports, mut paths) = (Vec::new(), Vec::new());
    for app in apps {
        let draining = app.workers.iter().filter(|worker| worker.state == WorkerState::Draining);
        sockets.extend(draining.filter_map(|worker| procfs::socket_inodes(worker.pid?)).flatten());
        for address in &app.listen {
            match place(address) {
                Some(Place::Port(port)) => ports.push(port),
                Some(Place::Path(path)) => paths.push(path.to_owned()),
                None => {}
            }
        }
    }
    if sockets.is_empty() {
        return None;
    }
    Some(ConnectionTable::read(&ports, &paths)?.count(&sockets, &ports, &paths))
}

#[derive(Debug, PartialEq, Eq)]
enum Place<'a> {
    Port(u16),
    Path(&'a str),
}

/// The port or path of an address of the control API.
fn place(address: &str) -> Option<Place<'_>> {
    if address.starts_with("udp:") {
        return None;
    }
    match address.strip_prefix("unix:") {
        Some(path) => Some(Place::Path(path)),
        None => address.rsplit_once(':')?.1.parse().ok().map(Place::Port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_what_the_api_shows() {
        let all = ["*:8080", "127.0.0.1:81", "[::1]:82", "unix:/run/a.sock", "udp:*:53", "an unnamed socket"];
        let places = [
            Some(Place::Port(8080)),
            Some(Place::Port(81)),
            Some(Place::Port(82)),
            Some(Place::Path("/run/a.sock")),
            None,
            None,
        ];
        assert_eq!(all.map(place), places);
    }
}
