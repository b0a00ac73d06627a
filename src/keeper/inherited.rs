//! Sockets that the keeper's parent passed: as systemd does, or in a message, as `resurrect --stay` does. The master reads what
//! they are for.
use super::INHERITED_PREFIX;
use super::system::System;
use super::table::Table;
use crate::limits::KEEPER_PACKET_BYTES_MAX;
use crate::os::packet::{FDS_LOST, Packet};
use std::collections::VecDeque;

/// Listening sockets that clusterd takes from its own parent (systemd).
const INHERITED_FDS_MAX: usize = 256;

/// Holds the sockets that the keeper's parent passed as systemd does, so that every master finds them.
pub(super) fn hold_inherited<S: System>(system: &S, table: &mut Table<S::Fd>) {
    let variables = system.environment();
    let variable = |wanted: &str| {
        let (_, value) = variables.iter().find(|(name, _)| name == wanted)?;
        value.to_str().map(str::to_owned)
    };
    if variable("LISTEN_PID").and_then(|pid| pid.parse().ok()) != Some(system.own_pid()) {
        return;
    }
    let Some(count) = variable("LISTEN_FDS").and_then(|count| count.parse::<usize>().ok()) else { return };
    if count > INHERITED_FDS_MAX {
        system.say(&format!("clusterd: LISTEN_FDS is {count}; only the first {INHERITED_FDS_MAX} sockets are taken"));
    }
    let names = variable("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    for (index, number) in (3..).take(count.min(INHERITED_FDS_MAX)).enumerate() {
        let name = names.next().unwrap_or_default();
        match system.take_inherited(number) {
            Ok(fd) => {
                // At the start the limit on held fds cannot be reached.
                let _ = table.hold(format!("{INHERITED_PREFIX}{index}/{name}"), fd);
            }
            Err(error) => system.say(&format!("clusterd: LISTEN_FDS is {count}, but fd {number} is not open: {error}")),
        }
    }
}

/// Holds the sockets that came in a message: a name on each line, and a file for each.
pub(super) fn hold_passed<S: System>(system: &S, table: &mut Table<S::Fd>) {
    let (mut names, mut fds) = (vec![0; KEEPER_PACKET_BYTES_MAX], VecDeque::new());
    match system.take_passed(&mut names, &mut fds) {
        Ok(Packet::Whole(length)) => names.truncate(length),
        Ok(Packet::End) => return,
        Ok(Packet::WithoutFds(_)) => return system.say(&format!("clusterd: the kept sockets: {FDS_LOST}")),
        Ok(Packet::Damaged(why)) => return system.say(&format!("clusterd: the kept sockets: their names are {why}")),
        Err(error) => return system.say(&format!("clusterd: cannot take the kept sockets: {error}")),
    }
    let names = String::from_utf8_lossy(&names);
    for (index, (name, fd)) in names.lines().zip(fds).enumerate() {
        // At the start the limit on held fds cannot be reached.
        let _ = table.hold(format!("{INHERITED_PREFIX}{index}/{name}"), fd);
    }
}
