//! The sockets that clusterd is given at its start: by a socket unit of the service manager, or from its store, where an earlier
//! keeper has put them. Which of them an app has; everything else it needs is bound here.
use super::kernel_mode::groups::Groups;
use super::listener::{self, names_in, slot_of};
use super::narration::plural;
use super::settings::Settings;
use super::start::StartError;
use super::system::System;
use super::{checkpoint, reload};
use crate::config::Listen;
use crate::ids::AppIx;
use crate::keeper::INHERITED_PREFIX;
use crate::master::context::Context;
use crate::os::listen::LocalAddress;
use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd, OwnedFd};

/// Sockets that no app has taken yet.
pub(super) struct Given {
    sockets: Vec<One>,
    /// The further sockets of reuseport groups, by the name of the group's first one and by their number.
    groups: BTreeMap<String, BTreeMap<u32, OwnedFd>>,
    /// What the keeper holds them as.
    names: Vec<String>,
}

struct One {
    /// What the keeper holds it as.
    held: String,
    /// What the service manager calls it.
    name: String,
    fd: OwnedFd,
}

impl One {
    /// Whether an earlier keeper has put it into the service manager's store.
    fn came_from_store(&self) -> bool {
        names_in(&self.name).is_some()
    }
}

/// A listener's sockets at the start.
pub(super) struct Bound {
    address: Listen,
    fd: OwnedFd,
    /// Whoever started clusterd opened it and keeps it open.
    given: bool,
    /// The other sockets of its reuseport group, in their order.
    group: Vec<OwnedFd>,
}

impl Given {
    /// Those among what the keeper holds.
    pub(super) fn new(fds: HashMap<String, OwnedFd>) -> Given {
        let mut given = Given { sockets: Vec::new(), groups: BTreeMap::new(), names: Vec::new() };
        // `inherited/<index>/<name>`
        let mut named: Vec<(String, OwnedFd)> =
            fds.into_iter().filter(|(held, _)| held.starts_with(INHERITED_PREFIX)).collect();
        named.sort_by(|a, b| a.0.cmp(&b.0));
        for (held, fd) in named {
            let name = held.strip_prefix(INHERITED_PREFIX).and_then(|rest| rest.split_once('/')).map(|(_, name)| name);
            let name = name.unwrap_or_default().to_owned();
            given.names.push(held.clone());
            match slot_of(&name) {
                Some((first, number)) => {
                    given.groups.entry(first).or_default().insert(number, fd);
                }
                None => given.sockets.push(One { held, name, fd }),
            }
        }
        given
    }

    /// The listeners of one app: given where the address is the same, bound otherwise. An app without configured addresses, `alone`
    /// in its deployment, takes every socket.
    pub(super) fn bind_all(
        &mut self,
        system: &impl System,
        settings: &Settings,
        alone: bool,
    ) -> Result<Vec<Bound>, StartError> {
        let mut bound = Vec::new();
        for address in &settings.config.listen {
            bound.push(match self.take(system, |local| is_address(local, address)) {
                Some((fd, given, group)) => Bound { address: address.clone(), fd, given, group },
                None => {
                    let fd = listener::bind_configured(system, address, &[], settings)
                        .map_err(|e| StartError::failed(format!("{}: {e}", settings.config.name)))?;
                    Bound { address: address.clone(), fd, given: false, group: Vec::new() }
                }
            });
        }
        if settings.config.listen.is_empty() && alone {
            while let Some(address) = self.sockets.iter().find_map(|one| address_of(system, &one.fd)) {
                let Some((fd, _, group)) = self.take(system, |local| as_configured(local).as_ref() == Some(&address))
                else {
                    break;
                };
                bound.push(Bound { address, fd, given: true, group });
            }
        }
        Ok(bound)
    }

    /// Takes the socket with such an address, whether a unit opened it, and the rest of its group. The service manager may have one
    /// and the same socket by its own unit and from its store.
    fn take(
        &mut self,
        system: &impl System,
        is_wanted: impl Fn(&LocalAddress) -> bool,
    ) -> Option<(OwnedFd, bool, Vec<OwnedFd>)> {
        let is_it = |one: &One| system.local_address(one.fd.as_fd()).is_ok_and(|local| is_wanted(&local));
        let mut find = |stored| {
            let at = self.sockets.iter().position(|one| one.came_from_store() == stored && is_it(one))?;
            Some(self.sockets.remove(at))
        };
        let (by_unit, stored) = (find(false), find(true));
        let group = stored.as_ref().and_then(|one| self.groups.remove(&one.name)).unwrap_or_default();
        let given = by_unit.is_some();
        let fd = by_unit.or(stored)?.fd;
        let (group, others) = in_kernels_order(group, |fd| system.is_listening(fd.as_fd()));
        end_listening(system, others);
        Some((fd, given, group))
    }

    /// Closes what no app has taken. The keeper holds by its own name what is used; it is to drop the rest.
    pub(super) fn end(self, system: &impl System) -> Vec<String> {
        for One { held, .. } in &self.sockets {
            log::warn!("the inherited socket {held} matches no configured address; it is not used");
        }
        self.groups.into_values().for_each(|group| end_listening(system, group.into_values().collect()));
        self.names
    }
}

/// The sockets of a group of which the place in the kernel's order is known, and the others. It is that of their numbers, as far as
/// they are all there and listen: a socket that was closed has left its place to the last one.
fn in_kernels_order<F>(group: BTreeMap<u32, F>, is_listening: impl Fn(&F) -> bool) -> (Vec<F>, Vec<F>) {
    let (mut known, mut others) = (Vec::new(), Vec::new());
    for (number, fd) in group {
        let is_next = others.is_empty() && number as usize == known.len() + 1 && is_listening(&fd);
        if is_next { known.push(fd) } else { others.push(fd) }
    }
    (known, others)
}

/// Takes sockets out of their groups at once: the keeper and the service manager close them later.
fn end_listening(system: &impl System, sockets: Vec<OwnedFd>) {
    if let Some(count) = u32::try_from(sockets.len()).ok().filter(|count| *count > 0) {
        let sockets = plural(count, "inherited socket");
        log::warn!("{count} {sockets} of slots cannot be used; connections that wait there are closed");
    }
    sockets.iter().for_each(|fd| system.stop_listening(fd.as_fd()));
}

/// Adds an app's listeners.
pub(super) fn add_listeners(cx: &mut Context<impl System>, groups: &mut Groups, ix: AppIx, bound: Vec<Bound>) {
    for Bound { address, fd, given, group } in bound {
        let protocol = cx.apps[ix].settings().protocol;
        let listener = reload::add_configured_listener(cx, ix, address, fd, protocol);
        if given {
            cx.apps[ix].listeners[listener].mark_given();
        }
        groups.adopt(cx, ix, listener, group);
        checkpoint::save_listener(cx, ix, listener);
    }
}

/// The address of a socket that clusterd was given, as a configuration would name it.
pub(super) fn address_of(system: &impl System, fd: &OwnedFd) -> Option<Listen> {
    system.local_address(fd.as_fd()).ok().as_ref().and_then(as_configured)
}

fn as_configured(local: &LocalAddress) -> Option<Listen> {
    match local {
        LocalAddress::Inet(address) => Some(Listen::Tcp(*address)),
        LocalAddress::Unix(path) => Some(Listen::Unix(path.clone())),
        LocalAddress::Other => None,
    }
}

fn is_address(local: &LocalAddress, address: &Listen) -> bool {
    match (local, address) {
        (LocalAddress::Inet(local), Listen::Tcp(wanted)) => local == wanted,
        (LocalAddress::Inet(local), Listen::Any(port)) => local.port() == *port && local.ip().is_unspecified(),
        (LocalAddress::Inet(local), Listen::Host(_, port)) => local.port() == *port,
        (LocalAddress::Unix(local), Listen::Unix(wanted)) => local == wanted,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_behind_a_gap_or_one_that_does_not_listen_have_no_known_place() {
        let split = |numbers: &[u32], closed: u32| {
            in_kernels_order(numbers.iter().map(|number| (*number, *number)).collect(), |number| *number != closed)
        };
        assert_eq!(split(&[1, 2, 3], 0), (vec![1, 2, 3], vec![]));
        assert_eq!(split(&[1, 3, 4], 0), (vec![1], vec![3, 4]));
        assert_eq!(split(&[2, 3], 0), (vec![], vec![2, 3]));
        assert_eq!(split(&[1, 2, 3], 2), (vec![1], vec![2, 3]));
        assert_eq!(split(&[], 0), (vec![], vec![]));
    }
}
